#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh SCRIPT ARGUMENT...: runs a peer test with $SALT_PEERS_PYTHON, else with build/peers of setup.sh, else with python3: the first of these that
# has the required packages. If none has them, prints the reason and exits with 77 (skipped).
here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$here/../.." && pwd)/build/peers/bin/python

for python in ${SALT_PEERS_PYTHON:-"$venv" python3}; do
	if "$python" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in ("numpy", "safetensors", "tokenizers", "torch", "transformers")))' 2>/dev/null; then
		export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
		exec "$python" "$@"
	fi
done
echo "skipped: no python with torch and transformers: run tests/peers/setup.sh, or set SALT_PEERS_PYTHON" >&2
exit 77
