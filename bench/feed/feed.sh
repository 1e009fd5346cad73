#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# feed.sh [--build DIR] [--json FILE] [--tiny]: a real fleet, one teacherd, small shape (6 layers, width 256, vocabulary 8,192, 32 x 256).
#
#   feed_wait_share   time that trainerd waits for rows beside the time of its steps, over phase one, from the
#                     step on by which teacherd could be ahead by label_ahead_steps. It works beside trainerd, on the same processors.
. "$(dirname "$0")/../lib.sh"
export OMP_WAIT_POLICY=passive
steps=40 ahead=8 context=256 batch=32
student=(--layers 6 --width 256 --heads 4 --vocab 8192) teacher=(--layers 2 --width 128 --heads 2 --vocab 8192)
[ -z "$tiny" ] || { steps=10 ahead=4 context=32 batch=8; student=(--layers 1 --width 32 --heads 2 --vocab 8192); teacher=("${student[@]}"); }
for name in student teacher; do
	declare -n shape=$name
	"$bin/saltctl" model new --family gpt2 "${shape[@]}" --context "$context" --tokenizer "$root/share/tokenizer-4k" --weights 1 \
		"$scratch/$name" > /dev/null
done
find /usr/share/common-licenses /usr/share/doc -type f \( -name copyright -o -path '*common-licenses*' \) | sort | sed -n 1,300p |
	xargs "$bin/saltctl" corpus build --split-on blank-lines --tokenizer "$root/share/tokenizer-4k" --out "$scratch/train" \
		--heldout-out "$scratch/held" > /dev/null
cat > "$scratch/fleet.yaml" <<END
run: {dir: run, seed: 3}
corpus: {train: $scratch/train, context: $context}
cache: {dir: cache, map_size: 1GiB}
teacher: {model: $scratch/teacher, scorer: $scratch/teacher, threads: 1}
labels: {kind: sampled, samples: 50, seed: 7}
selector: {mode: none, block: 64, endpoints: ["tcp://127.0.0.1:$(free_port)"], lease_sequences: 8, label_ahead_steps: $ahead}
trainer: {model: $scratch/student, steps: $steps, batch: $batch, lanes: 8, lr: 1e-3, warmup: 4, eval_every: 0, checkpoint_every: 0}
phase_one: {steps: $steps, weight: 0.667}
END
start selectord "$bin/selectord" -c "$scratch/fleet.yaml"
start teacherd "$bin/teacherd" -c "$scratch/fleet.yaml"
"$bin/trainerd" -c "$scratch/fleet.yaml" > "$scratch/trainerd.log" 2>&1 || { tail -3 "$scratch/trainerd.log" >&2; exit 70; }
# teacherd begins when the trainer has come, so the first steps wait for the first labels: from step `ahead` on it is ahead by that many.
share=$(awk -v ahead="$ahead" '/"kind": *"step"/ {
	n++
	if (match($0, /"wait_seconds": *[0-9.e+-]+/)) { v = substr($0, RSTART, RLENGTH); sub(/.*: */, "", v) }
	all += v
	if (n <= ahead) next
	wait += v
	if (match($0, /"step_seconds": *[0-9.e+-]+/)) { v = substr($0, RSTART, RLENGTH); sub(/.*: */, "", v); step += v } }
	END { printf "%.6f %.3f %.3f %.3f", wait / step, wait, step, all }' "$scratch/run/metrics.jsonl")
set -- $share
row feed_wait_share "$1" ratio
echo "  waited $2 s in $3 s of steps; $4 s with the start"
rows_write
