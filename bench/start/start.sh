#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# start.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: from the start of a process to work, 135M Llama shape, files cached.
#
#   start_seconds_trainer    trainerd to the beginning of its first step, weights from trainer.init
#   start_seconds_new        trainerd with fresh weights, no files to cache: making the numbers takes longer than reading them
#   start_seconds_teacher    teacherd to its first lease, selectord waiting
#   start_seconds            the longer of trainer and teacher
# Medians; a first round that warms the files and writes the fingerprints' sidecars is not counted.
. "$(dirname "$0")/../lib.sh"
export OMP_WAIT_POLICY=passive
shape=(--layers 30 --width 576 --heads 9 --kv-heads 3 --ff 1536 --vocab 49152 --context 2048)
[ -z "$tiny" ] || shape=(--layers 2 --width 64 --heads 2 --ff 128 --vocab 4096 --context 256)
"$bin/saltctl" model new "${shape[@]}" --tokenizer "$root/share/tokenizer-4k" --weights 1 "$scratch/model" > /dev/null
find /usr/share/common-licenses -type f | sort | xargs "$bin/saltctl" corpus build --split-on blank-lines \
	--tokenizer "$root/share/tokenizer-4k" --out "$scratch/train" --heldout-out "$scratch/held" > /dev/null
port=$(free_port)
cat > "$scratch/fleet.yaml" <<END
run: {dir: run, seed: 3}
corpus: {train: $scratch/train, heldout: $scratch/held, context: 64}
cache: {dir: cache, map_size: 64MiB}
teacher: {model: $scratch/model, scorer: $scratch/model}
labels: {kind: sampled, samples: 50, seed: 7}
selector: {mode: none, block: 32, endpoints: ["tcp://127.0.0.1:$port"], lease_sequences: 1, label_ahead_steps: 4}
trainer: {model: $scratch/model, init: $scratch/model, steps: 1, batch: 1, lanes: 1, micro_batch: 1, checkpoint_every: 0, eval_every: 0, keep_checkpoints: 1}
phase_one: {steps: 0}
END

# seconds_to FILE SINCE REGEX: from SINCE to the time stamp of the first such line.
seconds_to() {
	local stamp
	stamp=$(grep -m 1 -E -- "$3" "$1" | sed 's/^ts=\([^ ]*\).*/\1/')
	awk -v a="$(date -d "$stamp" +%s.%N)" -v b="$2" 'BEGIN { printf "%.3f\n", a - b }'
}

# once ROUND
once() {
	local since name
	for name in trainer new; do
		since=$(date +%s.%N)
		start job "$bin/trainerd" -c "$scratch/fleet.yaml" --set run.dir="$scratch/run_$name$1" $([ $name = trainer ] || echo --set trainer.init=)
		until_line "$scratch/job.log" 'event=steps.begin' 60
		seconds_to "$scratch/job.log" "$since" 'event=steps.begin' >> "$scratch/$name"
		kill -KILL "$job" 2> /dev/null || true	# TERM would finish the step and write a checkpoint; a small one may have ended
		wait "$job" 2> /dev/null || true
		rm -rf "$scratch/run_$name$1"
	done
	rm -rf "$scratch/cache"
	start selector "$bin/selectord" -c "$scratch/fleet.yaml" --set phase_one.steps=1
	until_line "$scratch/selector.log" 'event=' 60
	sleep 0.5
	since=$(date +%s.%N)
	start job "$bin/teacherd" -c "$scratch/fleet.yaml" --set phase_one.steps=1
	until_line "$scratch/job.log" 'event=lease.first' 60
	seconds_to "$scratch/job.log" "$since" 'event=lease.first' >> "$scratch/teacher"
	kill "$job" "$selector" 2> /dev/null || true
	wait "$job" "$selector" || true
}

once 0
rm -f "$scratch/trainer" "$scratch/new" "$scratch/teacher"
for round in $(seq "$rounds"); do
	once "$round"
done
worst=0
for name in trainer new teacher; do
	value=$(median < "$scratch/$name")
	row start_seconds_$name "$value" s
	[ $name = new ] || worst=$(awk -v a="$worst" -v b="$value" 'BEGIN { print (a > b ? a : b) }')
done
row start_seconds "$worst" s
rows_write
