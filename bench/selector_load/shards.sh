#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shards.sh BIN [--json FILE] [--dir DIR] [--pace MB_S]: ingest of one selectord and of four, each with a disk slowed to MB_S (pace.c: its
# fdatasync waits; the limit is simulated), eight simulated teachers in both. Prints the ratio.
set -eu
bin=${1:?folder of the programs}
shift
json= dir=/tmp pace=8
while [ $# -ge 2 ]; do
	case $1 in
	--json) json=$2 ;;
	--dir) dir=$2 ;;
	--pace) pace=$2 ;;
	*) echo "usage: shards.sh BIN [--json FILE] [--dir DIR] [--pace MB_S]" >&2; exit 64 ;;
	esac
	shift 2
done
one=$("$bin/bench_selector_load" --dir "$dir" --pace "$pace" --shards 1 --tokens 4000000 | awk '/^shards/ {print $2}')
four=$("$bin/bench_selector_load" --dir "$dir" --pace "$pace" --shards 4 --tokens 16000000 | awk '/^shards/ {print $2}')
awk -v a="$one" -v b="$four" -v p="$pace" -v json="$json" 'BEGIN {
	printf "four selectors of %s MB/s: %.0f tokens/s, one: %.0f tokens/s, ratio %.2f\n", p, b, a, b / a
	if (json != "")
		printf "[{\"name\": \"selector_shards_tps\", \"value\": %.0f, \"unit\": \"tokens/s\", \"peer\": \"one selector, paced alike\", \"peer_value\": %.0f, \"ratio\": %.4f}]\n", b, a, b / a > json
}'
