# Sourced by the system tests: strict mode, a scratch folder, mpirun as tests need it.
set -euo pipefail
: "${BIN:?folder of the programs}" "${SOURCE:?root of the source}"
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
# ranks N COMMAND...: more ranks than cores, as root, on loopback only. In the background, where its process id is wanted: "${mpirun[@]}" -n N.
mpirun=(mpirun --allow-run-as-root --oversubscribe --bind-to none --mca btl self,vader,tcp --mca btl_tcp_if_include lo
	--mca oob_tcp_if_include lo --mca mpi_yield_when_idle 1)
ranks() {
	"${mpirun[@]}" -n "$@"
}
same() {
	cmp -s "$1" "$2" || { diff "$1" "$2" | head -20 >&2 || true; fail "$3: $1 and $2 differ"; }
}
