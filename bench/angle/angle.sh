#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# angle.sh [--build DIR] [--json FILE] [--tiny]: how far sampled labels turn the student's gradient. The quickstart's text, SLM and student, the student
# as phase one has made it by step 100; 8,192 tokens that it has not seen; sampled labels N = 50 at tau 1 beside dense ones.
#   label_angle_deg        degrees between the two gradients of the loss that phase one trains with (weight 0.667)
#   label_angle_soft_deg   of the soft labels alone (weight 1)
#   label_gradient_error   |sampled - dense| / |dense| of the latter
# SALT_QUICKSTART=DIR names what deploy/quickstart.sh --size small left; without it a quickstart is run first (eight minutes).
# --tiny: a student of one layer after 4 steps, a teacher of the same kind after 8, Debian's licences.
. "$(dirname "$0")/../lib.sh"
export OMP_WAIT_POLICY=passive
at=100 context=128 tokens=8192 batch=16

# until_checkpoint DIR PID: the trainer's checkpoint is there.
until_checkpoint() {
	until [ -d "$1" ]; do
		kill -0 "$2" 2> /dev/null || { tail -n 3 "$scratch"/*.log >&2; exit 70; }
		sleep 0.1
	done
}

if [ -n "$tiny" ]; then
	at=4 context=32 tokens=512 batch=8 quick=$scratch/tiny
	mkdir -p "$quick/data" "$quick/slm/checkpoints" "$quick/models"
	find /usr/share/common-licenses -type f | sort | xargs "$bin/saltctl" corpus build --split-on blank-lines --tokenizer "$root/share/tokenizer-4k" \
		--out "$quick/data/train" --heldout-out "$quick/data/heldout" > /dev/null
	"$bin/saltctl" model new --layers 1 --width 32 --heads 2 --context $context --tokenizer "$root/share/tokenizer-4k" --weights 1 "$quick/slm/model" > /dev/null
	"$bin/saltctl" model new --layers 1 --width 48 --heads 2 --context $context --tokenizer "$root/share/tokenizer-4k" "$quick/models/student" > /dev/null
	sed -e "s/context: 128/context: $context/; s/steps: 160/steps: 6/; s/steps: 400/steps: 6/; s/warmup: .*/warmup: 2/; s/block: 256/block: 32/" \
		-e "s/^  batch: .*/  batch: $batch/; s/eval_sequences: .*/eval_sequences: 8/; s/micro_batch: 2/micro_batch: 1/; s/step_00000300/model/; s/checkpoints\/model/model/" \
		"$root/deploy/examples/quickstart/salt.yaml" > "$quick/salt.yaml"
else
	quick=${SALT_QUICKSTART:-$scratch/quickstart}
	[ -n "${SALT_QUICKSTART:-}" ] || BIN=$bin "$root/deploy/quickstart.sh" --no-build --size small --dir "$quick" >&2
fi
value() {
	"$bin/saltctl" config check -c "$quick/salt.yaml" --get "$1"
}
teacher=$(value teacher.model)
case $teacher in /*) ;; *) teacher=$quick/$teacher ;; esac
[ -e "$teacher/model.safetensors" ] || { echo "angle.sh: no $teacher: what quickstart.sh makes" >&2; exit 66; }

# The student up to that step, by a fleet of its own.
port=$(free_port)
salt=(-c "$quick/salt.yaml" --set "run.dir=$scratch/run" --set "cache.dir=$scratch/cache" --set "selector.endpoints=[tcp://127.0.0.1:$port]"
	--set "trainer.keep_steps=[$at]" --set trainer.eval_every=0)
start selectord "$bin/selectord" "${salt[@]}"
start teacherd "$bin/teacherd" "${salt[@]}"
start trainerd "$bin/trainerd" "${salt[@]}"
student=$scratch/run/checkpoints/$(printf 'step_%08d' "$at")
until_checkpoint "$student" "$trainerd"
kill $trainerd $teacherd $selectord 2> /dev/null || true
wait $trainerd $teacherd $selectord || true

weight=$(value phase_one.weight)
read -r soft error _ <<< "$("$bin/bench_angle" "$teacher" "$student" "$quick/data/train" $context $tokens "$(value labels.samples)" 1 1 $((at * batch)))"
read -r mixed _ _ <<< "$("$bin/bench_angle" "$teacher" "$student" "$quick/data/train" $context $tokens "$(value labels.samples)" 1 "$weight" $((at * batch)))"
row label_angle_deg "$mixed" degrees
row label_angle_soft_deg "$soft" degrees
row label_gradient_error "$error" ratio
rows_write
