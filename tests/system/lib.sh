# SPDX-License-Identifier: Apache-2.0
# Sourced by the system tests: strict mode, a scratch folder, mpirun with the options that tests need.
set -euo pipefail
: "${BIN:?folder of the programs}" "${SOURCE:?root of the source}"
export OMP_WAIT_POLICY=passive		# tests run at the same time, so a waiting thread must leave its processor to others
scratch=$(mktemp -d "${TMPDIR:-/tmp}/salt_test.XXXXXX")
cleanup() {
	local pids
	pids=$(jobs -p)
	[ -z "$pids" ] || kill $pids 2>/dev/null || true
	wait 2>/dev/null || true
	[ -n "${KEEP:-}" ] || rm -rf "$scratch"
}
trap cleanup EXIT
fail() {
	echo "FAIL: $*" >&2
	exit 1
}
# ranks N COMMAND...: runs N ranks on this host. In the background, if the process id of mpirun is needed, use "${mpirun[@]}" -n N COMMAND...
mpirun=("$SOURCE/deploy/mpi.sh")
ranks() {
	"${mpirun[@]}" -n "$@"
}
same() {
	cmp -s "$1" "$2" || { diff "$1" "$2" | head -20 >&2 || true; fail "$3: $1 and $2 differ"; }
}
# rot FILE BYTE: flips a bit without changing size and times, like a failing disk. A second call restores the file.
rot() {
	python3 - "$@" <<'END'
import os, sys
path, at = sys.argv[1], int(sys.argv[2])
st = os.stat(path)
with open(path, "r+b") as f:
    f.seek(at)
    byte = f.read(1)[0]
    f.seek(at)
    f.write(bytes([byte ^ 4]))
os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
END
}
