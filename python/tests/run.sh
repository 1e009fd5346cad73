#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh FOLDER-OF-THE-BUILD ARGUMENT...: pytest on the library and the programs of that build, with $SALT_PEERS_PYTHON, else with
# build/peers of tests/peers/setup.sh, else python3; the first that has what is needed. Exit status 77 (skipped) with the reason where none
# has. What all threads do is printed when a test has taken 300 s. With a build under the address sanitizer, its library is loaded first.
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=$(cd "$1" && pwd) || exit 64
shift
library=$build/lib/libsaltfleet.so.1

for python in ${SALT_PEERS_PYTHON:-"$source/build/peers/bin/python"} python3; do
	if "$python" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in ("cffi", "numpy", "pytest", "torch", "transformers")))' 2>/dev/null; then
		export BIN="$build/bin" SOURCE="$source" SALTFLEET_LIBRARY="$library" PYTHONPATH="$source/python" PYTHONDONTWRITEBYTECODE=1 \
			OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY=passive \
			HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
		asan=$(ldd "$library" | sed -n 's/.*libasan[^ ]* => \([^ ]*\).*/\1/p')
		if [ -n "$asan" ]; then		# Python's own leaks are not ours; without libstdc++ beside it, any C++ exception in torch ends the process
			cxx=$(ldd "$library" | sed -n 's/.*libstdc++[^ ]* => \([^ ]*\).*/\1/p')
			export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS-}" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS-}"
			exec env LD_PRELOAD="$asan $cxx" "$python" -m pytest -q -rs -o faulthandler_timeout=300 -p no:cacheprovider --rootdir "$here" "$@"
		fi
		exec "$python" -m pytest -q -rs -o faulthandler_timeout=300 -p no:cacheprovider --rootdir "$here" "$@"
	fi
done
echo "skipped: no Python with cffi, pytest, torch and transformers: run tests/peers/setup.sh, or set SALT_PEERS_PYTHON" >&2
exit 77
