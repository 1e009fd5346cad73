# SPDX-License-Identifier: Apache-2.0
# docs/python.md: all its commands and programs, in its order, where a Python with PyTorch is at hand (python/tests/run.sh). One to two minutes.
. "$(dirname "$0")/lib.sh"
"$SOURCE/python/tests/run.sh" "$(dirname "$BIN")" "$SOURCE/python/tests/docs_page.py"
