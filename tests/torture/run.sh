#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [--seed N] [--only NAME,...] [--jobs N] - runs all rows of the table below, two (N) at a time; the longest begins first.
# run.sh NAME [COUNT [SEED]] - runs one row, as README.md describes.
set -u
cd "$(dirname "$0")/../.." || exit 1

# NAME COUNT SECONDS: the count of a full run, and the time limit after which a row counts as failed.
rows="
soak 3600 5000
kill 500 2400
faults 40 3600
frames 500000 3600
power 2000 1500
fuzz 60 1800
proxy 200000 3600
flips 2000 1500
"

usage() {
	sed -n 's/^# \(run\.sh.*\)/\1/p' "$0" >&2
	exit 64
}

# number WHAT WORD
number() {
	[[ $2 =~ ^[0-9]+$ ]] || { echo "run.sh: $1: expected a number, found \"$2\"" >&2; exit 64; }
}

row_of() {
	awk -v n="$1" '$1 == n' <<< "$rows"
}

export SOURCE=$PWD BIN=${BIN:-$PWD/build/dev/bin}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
seed=$((RANDOM * 32768 + RANDOM)) only= jobs=2
while [ $# -gt 0 ] && [[ $1 == -* ]]; do
	[ $# -ge 2 ] || usage
	case $1 in
	--seed) number --seed "$2"; seed=$2 ;;
	--only) only=${2//,/ } ;;
	--jobs) number --jobs "$2"; jobs=$2 ;;
	*) usage ;;
	esac
	shift 2
done
if [ $# -gt 0 ]; then
	only=$1
	[ $# -lt 2 ] || number COUNT "$2"
	[ $# -lt 3 ] || { number SEED "$3"; seed=$3; }
fi
for name in $only; do
	[ -n "$(row_of "$name")" ] || { echo "run.sh: no row \"$name\"; there is: $(awk 'NF { printf "%s ", $1 }' <<< "$rows")" >&2; exit 64; }
done
if [ ! -d build/dev ]; then
	cmake --preset dev || exit
fi
cmake --build --preset dev -j "$(nproc)" > /dev/null || exit
memory=/dev/shm				# in memory, because the fsyncs of thousands of runs would be slow on a disk
[ -w $memory ] || memory=/tmp
work=$(mktemp -d "${TMPDIR:-$memory}/salt_torture.XXXXXX") || exit

# row NAME COUNT SECONDS: runs the row; its line and verdict go to $work/NAME.line
row() {
	local name=$1 count=$2 limit=$3 start=$SECONDS rc verdict line
	export SCRATCH=$work/$name
	mkdir "$SCRATCH"
	line=$(timeout --kill-after=20 "$limit" "tests/torture/$name" "$count" "$seed" 2> "$SCRATCH/log")
	rc=$?
	case $rc in
	0) verdict=good ;;
	77) verdict="not run" ;;
	124 | 137) verdict="FAILED (out of time)" ;;
	*) verdict="FAILED (exit $rc)" ;;
	esac
	[ "$(wc -l <<< "$line")" = 1 ] && [[ $line == *$'\t'*$'\t'* ]] || { line="$name"$'\t\t'"no line of result"; [ $rc != 0 ] || verdict="FAILED (no result)"; }
	printf '%s\t%s\t%ds\n' "$line" "$verdict" $((SECONDS - start)) > "$work/$name.line"
	echo "run.sh: $name $count $seed: $verdict" >&2
	[[ $verdict == FAILED* ]] || rm -rf "$SCRATCH"
}

start=$SECONDS
while read -r name count limit; do
	[ -n "$name" ] || continue
	[ -z "$only" ] || [[ " $only " == *" $name "* ]] || continue
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	row "$name" "${2:-$count}" "$limit" < /dev/null &		# because the loop reads its rows from standard input
done <<< "$rows"
wait

failed=0
echo "| what | goal | result | | time |"
echo "|---|---|---|---|---|"
while read -r name count limit; do
	[ -e "$work/$name.line" ] || continue
	IFS=$'\t' read -r what goal got verdict seconds < "$work/$name.line"
	echo "| $what | $goal | $got | $verdict | $seconds |"
	[[ $verdict != FAILED* ]] || { failed=1; echo "replay: tests/torture/run.sh $name ${2:-$count} $seed    (left: $work/$name)" >&2; }
done <<< "$rows"
echo "$(date -u +%F), $(git describe --always --dirty 2> /dev/null), $(nproc) cores, seed $seed, $((SECONDS - start)) s"
[ $failed = 1 ] || rm -rf "$work"
exit $failed
