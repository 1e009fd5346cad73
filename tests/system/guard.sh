# SPDX-License-Identifier: Apache-2.0
# Outside of kernels, device memory is only passed on, uploaded and downloaded. The fleet runs once with the usual programs and once with programs
# in which any other access ends the process (tests/kernels/guard.c): training with either optimizer, labels and scores, a stop and a resume at another number of ranks,
# evaluation, generation. No access is reported, and every bit is the same.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

guard=${GUARD:-$BIN/../guard}
small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)"
sed -i 's/^trainer.*/trainer: {model: student, steps: 16, batch: 32, lanes: 4, lr: 3e-3, warmup: 2, eval_every: 8, eval_sequences: 8, checkpoint_every: 4, threads: 1}/
	s/^phase_one.*/phase_one: {steps: 8, weight: 0.667}/' f.yaml

# reported LOG...: prints the accesses that the guard reported, with their call stacks.
reported() {
	grep -h -A 12 '^guard: ' "$@" >&2 || true
	! grep -q '^guard: ' "$@"
}

# trained BIN RUN RANKS STEP: trains until STEP is written, or to the end.
trained() {
	local bin=$1 run=$2 n=$3 step=$4 rc=0 pid
	"${mpirun[@]}" -n "$n" "$bin/trainerd" -c f.yaml --set cache.dir="cache_$run" --set run.dir="$run" > "$run.$step.log" 2>&1 &
	pid=$!
	if [ "$step" != end ]; then
		until grep -q "\"kind\":\"step\",\"step\":$step," "$run/metrics.jsonl" 2> /dev/null; do
			kill -0 $pid 2> /dev/null || break
			sleep 0.01
		done
		kill -USR1 $pid 2> /dev/null || true
	fi
	wait $pid || rc=$?
	reported "$run.$step.log" || fail "trainerd at $n ranks accesses device memory"
	[ $rc = 0 ] || { [ $rc = 75 ] && [ "$step" != end ]; } || { tail -5 "$run.$step.log" >&2; fail "$run: step $step at $n ranks: exit code $rc"; }
}

# cycle BIN RUN
cycle() {
	local bin=$1 run=$2 program
	BIN=$bin small_teachers f.yaml
	reported slm.log || fail "trainerd accesses device memory"
	start selectord "$bin/selectord" -c f.yaml --set cache.dir="cache_$run" --set run.dir="fleet_$run"
	start teacherd "$bin/teacherd" -c f.yaml --set run.dir="fleet_$run"
	trained "$bin" "$run" 2 3
	trained "$bin" "$run" 1 10
	trained "$bin" "$run" 2 end
	stop TERM $selectord $teacherd
	reported selectord.log teacherd.log || fail "a daemon accesses device memory"
	"$bin/saltctl" eval --model "$run/checkpoints/step_00000016" --corpus held --context 32 --json > "$run.eval" 2> "$run.eval.log" ||
		{ reported "$run.eval.log"; fail "saltctl eval"; }
	"$bin/saltctl" generate --model "$run/checkpoints/step_00000016" --prompt "You may" --tokens 8 > "$run.text" 2> "$run.text.log" ||
		{ reported "$run.text.log"; fail "saltctl generate"; }
	"$bin/saltctl" plan -c f.yaml --measure > "$run.plan" 2>&1 || { reported "$run.plan"; fail "saltctl plan --measure"; }
	"$bin/trainerd" -c f.yaml --set run.dir="$run.muon" --set phase_one.steps=0 --set selector.mode=none --set trainer.optimizer=muon \
		--set trainer.steps=4 > "$run.muon.log" 2>&1 || { reported "$run.muon.log"; fail "trainerd with Muon: $(tail -3 "$run.muon.log")"; }
	"$bin/saltctl" plan -c f.yaml --set trainer.optimizer=muon --measure > "$run.plan" 2>&1 || { reported "$run.plan"; fail "plan --measure, Muon"; }
	losses "$run/metrics.jsonl" > "$run.bits"
	losses "$run.muon/metrics.jsonl" >> "$run.bits"
	sha256sum < "$run.muon/checkpoints/step_00000004/model.safetensors" >> "$run.bits"
	sha256sum < slm/checkpoints/step_00000080/model.safetensors >> "$run.bits"
	sha256sum < "$run/checkpoints/step_00000016/model.safetensors" >> "$run.bits"
	grep -E 'perplexity|accuracy' "$run.eval" >> "$run.bits"
	cat "$run.text" >> "$run.bits"
}
cycle "$guard" run_guard
mv slm slm_guard
cycle "$BIN" run_usual
[ "$(grep -c '"kind":"step"' run_guard.bits)" = 20 ] || fail "not 16 steps and 4 of Muon"
same run_guard.bits run_usual.bits "with the guard and without"
