#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# mpi.sh [--hosts A:2,B:2] [--network LIST] -n RANKS PROGRAM [ARG ...]
# mpi.sh --check
#
# Executes mpirun with the options that the installed version understands. All scripts, tests and benches
# start ranks through this file, so that only this file has options that depend on the version. Everything
# from -n on is passed to mpirun unchanged.
#
#   --hosts LIST     hosts and their slots, as mpirun takes them; they are reached by $SALT_SSH (default: ssh -o BatchMode=yes).
#                    Without it all ranks run on this host
#   --network LIST   the networks between hosts, such as 10.0.0.0/24 or eth0, if they have several
#   --check          starts nothing; exit code 0 if mpirun is one that this script knows
#
# Exit code: mpirun's; 64 wrong use; 69 no mpirun, or not Open MPI 3 or later.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

hosts='' network='' check=0
while [ $# -gt 0 ]; do
	case "$1" in
	--check) check=1; shift ;;
	--hosts | --network)
		[ -n "${2-}" ] || die 64 "$1 needs a value"
		case "$1" in --hosts) hosts=$2 ;; *) network=$2 ;; esac
		shift 2 ;;
	*) break ;;
	esac
done

command -v mpirun > /dev/null || die 69 "mpirun is not installed; deploy/install-deps.sh installs it"
version=$(mpirun --version 2>&1 < /dev/null) || true
[[ $version =~ \(Open\ MPI\)\ ([0-9]+)\.[0-9] && ${BASH_REMATCH[1]} -ge 3 ]] || die 69 "expected Open MPI 3 or later, found a mpirun whose \
--version says \"$(head -n 1 <<< "$version")\"; put Open MPI first in PATH, or start trainerd yourself by the launcher of that MPI"
major=${BASH_REMATCH[1]}
[ $check -eq 0 ] || exit 0
[ -z "$network" ] || [ -n "$hosts" ] || die 64 "--network is for the networks between hosts, and --hosts is missing"
[ $# -gt 0 ] || die 64 "usage: mpi.sh [--hosts LIST] [--network LIST] -n RANKS PROGRAM [ARG ...]"

# Open MPI 5 starts processes by PRRTE, whose parameters are set by --prtemca, and calls the shared-memory
# transport sm.
if [ "$major" -ge 5 ]; then
	memory=sm runtime=--prtemca remote=ssh interfaces=prte_if_include
else
	memory=vader runtime=--mca remote=rsh interfaces=oob_tcp_if_include
fi
# mpirun counts cores as slots: two ranks with one thread each on two hardware threads of one core need
# OVERSUBSCRIBE.
options=(--bind-to none --map-by slot:OVERSUBSCRIBE --mca pml ob1 --mca mpi_yield_when_idle 1
    --mca "btl_${memory}_single_copy_mechanism" none)
[ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)
if [ -n "$hosts" ]; then
	options+=(--host "$hosts" --mca btl "self,$memory,tcp"
	    "$runtime" plm "$remote" "$runtime" "plm_${remote}_agent" "${SALT_SSH:-ssh -o BatchMode=yes}")
	for name in OMP_WAIT_POLICY GOMP_SPINCOUNT; do
		[ -z "${!name-}" ] || options+=(-x "$name")
	done
	[ -z "$network" ] || options+=(--mca btl_tcp_if_include "$network" "$runtime" "$interfaces" "$network")
else
	options+=(--mca btl "self,$memory")
	# Open MPI 5 uses the loopback interface if there is no other one, but ends with 213 if that is
	# requested explicitly.
	[ "$major" -ge 5 ] || options+=(--mca oob_tcp_if_include lo)
fi
exec mpirun "${options[@]}" "$@"
