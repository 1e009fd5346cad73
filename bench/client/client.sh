#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# client.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: rows through libsaltfleet in one process that does nothing with them: sampled
# labels, N = 50, all of them in the cache, 512 tokens a row, 32 rows a step. selectord works beside it, on the same processors.
# The teacher is a small model trained for a minute; SALT_TEACHER=DIR: another, in saltfleet's format.
#   client_feed_tps        tokens/s with one thread for decoding, which is the default; client_feed_tps_2 with two
#   client_feed_cpu        processor seconds of the process for a million tokens, one thread
#   client_feed_entries    different ids of a label: what decoding costs depends on it
. "$(dirname "$0")/../lib.sh"
export OMP_WAIT_POLICY=passive
context=512 batch=32 steps=220 train_steps=150 shape=(--layers 2 --width 128 --heads 4 --ff 512)
[ -z "$tiny" ] || { context=64 batch=8 steps=24 train_steps=4 shape=(--layers 1 --width 32 --heads 2 --ff 64); }
teacher=${SALT_TEACHER:-$scratch/run/checkpoints/step_$(printf %08d $train_steps)}
tokenizer=$root/share/tokenizer-4k
[ -z "${SALT_TEACHER:-}" ] || tokenizer=$SALT_TEACHER
"$bin/saltctl" model new "${shape[@]}" --context $context --tokenizer "$tokenizer" "$scratch/shape" > /dev/null
find /usr/share/common-licenses -type f | sort |
	xargs "$bin/saltctl" corpus build --split-on blank-lines --tokenizer "$tokenizer" --out "$scratch/train" > /dev/null
cat > "$scratch/fleet.yaml" <<END
run: {dir: run, seed: 3}
corpus: {train: train, context: $context}
cache: {dir: cache, map_size: 1GiB}
teacher: {model: $teacher, scorer: $teacher}
labels: {kind: sampled, samples: 50, seed: 7}
selector: {mode: none, block: 32, endpoints: ["tcp://127.0.0.1:$(free_port)"], lease_sequences: 8}
trainer: {model: $scratch/shape, steps: $steps, batch: $batch, lanes: 1, lr: 3e-3, eval_every: 0, checkpoint_every: 0}
phase_one: {steps: $steps, weight: 0.667}
END
[ -n "${SALT_TEACHER:-}" ] || "$bin/trainerd" -c "$scratch/fleet.yaml" --set phase_one.steps=0 --set trainer.steps=$train_steps --set trainer.batch=8 \
	> "$scratch/teacher.log" 2>&1 || { tail -3 "$scratch/teacher.log" >&2; exit 70; }
start selectord "$bin/selectord" -c "$scratch/fleet.yaml"
start teacherd "$bin/teacherd" -c "$scratch/fleet.yaml"
timeout 600 "$bin/saltctl" label -c "$scratch/fleet.yaml" > "$scratch/label.log" 2>&1 || { tail -3 "$scratch"/*.log >&2; exit 70; }
kill $teacherd

# measure THREADS: medians
measure() {
	local n
	for ((n = 0; n < rounds; n++)); do
		"$bin/bench_client" "$scratch/fleet.yaml" 8 "$1"
	done > "$scratch/out"
	for n in 2 3 4; do
		awk -v n=$n '{ print $n }' "$scratch/out" | median
	done | tr '\n' ' '
}
read -r tps cpu entries <<< "$(measure 1)"
row client_feed_tps "$tps" tokens/s
row client_feed_cpu "$cpu" s
row client_feed_entries "$entries" ids
read -r tps _ <<< "$(measure 2)"
row client_feed_tps_2 "$tps" tokens/s
rows_write
