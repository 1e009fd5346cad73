# SPDX-License-Identifier: Apache-2.0
# docs/python.md: runs all its commands and programs, in its order, if a Python has PyTorch (python/tests/run.sh). Takes one to two minutes.
. "$(dirname "$0")/lib.sh"
"$SOURCE/python/tests/run.sh" "$(dirname "$BIN")" "$SOURCE/python/tests/docs_page.py"
