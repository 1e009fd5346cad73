#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# teachers.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: does labelling grow with teachers? 1, 2 and 4 stubs of a fixed rate (they sleep
# 100 ms for a lease of eight sequences of 512 tokens; real bus, wire and records) at a real selectord with a new cache each time.
#
#   teachers_label_tps_1, _2, _4   tokens/s acknowledged, that is on the disk, beside those of one stub: medians of N runs
. "$(dirname "$0")/../lib.sh"
lease_ms=100 seconds=5 tokens=4000000
[ -z "$tiny" ] || { lease_ms=10 seconds=0.5; rounds=1; }
"$bin/bench_teachers" files "$scratch" $tokens

# measure TEACHERS: tokens/s
measure() {
	rm -rf "$scratch/run" "$scratch/cache"
	cat > "$scratch/fleet.yaml" <<-END
	run: {dir: run, seed: 1}
	corpus: {train: train, context: 512}
	cache: {dir: cache, map_size: 256MiB}
	teacher: {model: model}
	labels: {kind: sampled, samples: 50}
	selector: {endpoints: ["tcp://127.0.0.1:$(free_port)"], lease_sequences: 8, teacher_idle_s: 0}
	END
	start selectord "$bin/selectord" -c "$scratch/fleet.yaml"
	until_line "$scratch/selectord.log" 'event=start' 20
	"$bin/bench_teachers" rate "$scratch" "$(sed -n 's/.*endpoints: \["\(.*\)"\].*/\1/p' "$scratch/fleet.yaml")" "$1" $lease_ms $seconds |
		awk '{ printf "%.1f\n", $1 * 512 / $2 }'
	kill "$selectord"
	wait "$selectord" 2> /dev/null || true
}

for ((i = 0; i < rounds; i++)); do
	for n in 1 2 4; do measure $n >> "$scratch/tps.$n"; done
done
one=$(median < "$scratch/tps.1")
for n in 1 2 4; do row teachers_label_tps_$n "$(median < "$scratch/tps.$n")" tokens/s "one stub" "$one"; done
rows_write
