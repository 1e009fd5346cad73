#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the virtual environment of tests/peers and python/tests, build/peers, with the versions of requirements.txt. A second run repairs an
# incomplete environment or does nothing. It takes several GB with torch's libraries; needs python3-venv and a network.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$here/../.." && pwd)/build/peers

python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "setup.sh: python3-venv is missing (apt-get install python3-venv)" >&2; exit 69; }
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$venv/bin/python" -c 'import torch, transformers; print("peers: torch", torch.__version__, "transformers", transformers.__version__)'
