# SPDX-License-Identifier: Apache-2.0
# Sourced by the benches that are scripts: arguments, a scratch folder, medians, JSON results.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build="$root/build" json= rounds=3 tiny=
while [ $# -gt 0 ]; do
	case $1 in
	--build) build=$2; shift 2 ;;
	--json) json=$2; shift 2 ;;
	--rounds) rounds=$2; shift 2 ;;
	--tiny) tiny=tiny; shift ;;
	*) echo "usage: $0 [--build DIR] [--json FILE] [--rounds N] [--tiny]" >&2; exit 64 ;;
	esac
done
bin=$build/bin
[ -x "$bin/trainerd" ] || { echo "$0: no $bin/trainerd: build first, or --build DIR" >&2; exit 66; }
scratch=$(mktemp -d "${TMPDIR:-/tmp}/salt_bench.XXXXXX")
pids=
end() {
	[ -z "$pids" ] || kill $pids 2> /dev/null || true
	wait 2> /dev/null || true
	[ -n "${KEEP:-}" ] || rm -rf "$scratch"
}
trap end EXIT
mpirun=("$root/deploy/mpi.sh")

# median: of the numbers on stdin.
median() {
	sort -g | awk '{ x[NR] = $1 } END { if (NR == 0) exit 1; print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

rows=
# row NAME VALUE UNIT [PEER PEER_VALUE]
row() {
	local peer=null peer_value=null ratio=null
	if [ $# -gt 3 ]; then
		peer="\"$4\"" peer_value=$5
		ratio=$(awk -v a="$2" -v b="$5" 'BEGIN { printf "%.6g", a / b }')
	fi
	printf '%-26s %12s %-10s %s %s\n' "$1" "$2" "$3" "${4:+$5  $4}" "${4:+$ratio}"
	rows="$rows${rows:+,}
  {\"name\": \"$1\", \"value\": $2, \"unit\": \"$3\", \"peer\": $peer, \"peer_value\": $peer_value, \"ratio\": $ratio}"
}

# rows_write: to --json's file, if one was named.
rows_write() {
	[ -z "$json" ] || printf '[%s\n]\n' "$rows" > "$json"
}

# free_port: a port of 127.0.0.1 that nobody listens on.
free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM % 12000))
		(exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
	done
	echo $port
}

# start NAME COMMAND...: in the background, log in $scratch/NAME.log, process id in $NAME.
start() {
	local name=$1
	shift
	: > "$scratch/$name.log"	# here, not in the child: until_line must not find a line of the last one
	"$@" >> "$scratch/$name.log" 2>&1 &
	printf -v "$name" %s $!
	pids="$pids $!"
}

# until_line FILE REGEX SECONDS
until_line() {
	local hundredths=$(($3 * 100))
	until grep -qE -- "$2" "$1" 2> /dev/null; do
		[ $((hundredths--)) -gt 0 ] || { tail -5 "$1" >&2; echo "$0: no line \"$2\" in $1" >&2; exit 70; }
		sleep 0.01
	done
}
