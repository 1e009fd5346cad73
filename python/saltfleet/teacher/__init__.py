# SPDX-License-Identifier: Apache-2.0
"""Teachers that run in PyTorch or vLLM: `python -m saltfleet.teacher --help`, docs/teacher.md."""
