# SPDX-License-Identifier: Apache-2.0
# Difficult situations of trainerd: a rank that cannot start, another optimizer than the checkpoint's, a margin evaluated twice, a damaged checkpoint,
# fewer steps than were already done, a switch moved to an earlier step, rows in many short answers.
. "$(dirname "$0")/lib.sh"
cd "$scratch"

"$BIN/saltctl" corpus build --tokenizer "$SOURCE/share/tokenizer-4k" --out train --heldout-out held --heldout-one-in 8 --threads 1 \
	--split-on blank-lines --only '*.md' "$SOURCE/docs" > corpus.log
"$BIN/saltctl" model new --layers 1 --width 32 --heads 2 --context 32 --tokenizer "$SOURCE/share/tokenizer-4k" slm > model.log
daemons=()
saltctl() { "$BIN/saltctl" "$@"; }

# fleet NAME MODEL PHASE_ONE [TRAINER] [REST]: NAME.yaml
fleet() {
	cat > "$1.yaml" <<YAML
run: {dir: run_$1, seed: 3}
corpus: {train: train, heldout: held, context: 32}
cache: {dir: cache_$1, map_size: 1GiB}
teacher: {model: $2, threads: 1}
labels: {kind: ${kind:-sampled}, samples: 8}
selector: {mode: none, block: 64, endpoints: ["ipc://$scratch/$1.ipc"], lease_s: 5, label_ahead_steps: 4}
trainer: {model: slm, batch: 16, lanes: 2, lr: 3e-3, eval_sequences: 4, threads: 1, wait_max_s: 20${4:+, $4}}
phase_one: {${3:-steps: 0}}
${5:-}
YAML
}
train() {				# NAME ARGS..: one rank; its exit code
	timeout 60 "$BIN/trainerd" -c "$1.yaml" "${@:2}" > "$1.log" 2>&1
}
serve() {				# NAME ARGS..
	"$BIN/selectord" -c "$1.yaml" "${@:2}" > "$1.selectord.log" 2>&1 &
	daemons+=($!)
	"$BIN/teacherd" -c "$1.yaml" "${@:2}" > "$1.teacherd.log" 2>&1 &
	daemons+=($!)
}
serve_no_more() {
	kill "${daemons[@]}" 2>/dev/null || true
	wait "${daemons[@]}" 2>/dev/null || true
	daemons=()
}
last_log() {
	tail -n 3 "$1.log" >&2
	fail "$2"
}

# One rank cannot bind its status socket: both ranks end with the reason, instead of one waiting for the other.
fleet socket slm
port=$((20000 + $$ % 10000))
rc=0
timeout 40 "${mpirun[@]}" -n 2 "$BIN/trainerd" -c socket.yaml --set trainer.steps=2 --set status.bind="tcp://127.0.0.1:$port" > socket.log 2>&1 || rc=$?
[ $rc -ne 0 ] && [ $rc -ne 124 ] || last_log socket "two ranks on one port ended with $rc"
grep -q "tcp://127.0.0.1:$port" socket.log || last_log socket "the port is not named"

# A held-out corpus shorter than one sequence: every daemon refuses to start and names the corpus.
head -c 300 "$SOURCE/LICENSE" | tr -d '\n' | cut -c 1-40 > short.txt
"$BIN/saltctl" corpus build --tokenizer "$SOURCE/share/tokenizer-4k" --out short short.txt > corpus.log
fleet short slm
for daemon in trainerd selectord; do
	rc=0
	timeout 20 "$BIN/$daemon" -c short.yaml --set trainer.steps=2 --set corpus.heldout=short > short.log 2>&1 || rc=$?
	[ $rc -eq 65 ] && grep -q 'short: expected at least .*33 tokens.* found 7' short.log || last_log short "$daemon, a short held-out set: $rc"
done

# An evaluation that fails, here because another program overwrites the held-out tokens, does not cost the steps before it:
# no other checkpoint is written in this run, whichever evaluation is the first to read them.
for file in held.*; do cp "$file" "spoilt.${file#held.}"; done
fleet spoilt slm
train spoilt --set corpus.heldout=spoilt --set trainer.steps=100000 --set trainer.eval_every=50 --set trainer.checkpoint_every=0 & trainer=$!
for ((i = 0; i < 200; i++)); do ! grep -qs '"step":1,' run_spoilt/metrics.jsonl || break; sleep 0.05; done
head -c 300 /dev/zero | tr '\0' '\377' | dd of=spoilt.bin conv=notrunc status=none
rc=0; wait $trainer || rc=$?
[ $rc -eq 65 ] && grep -q 'spoilt' spoilt.log || last_log spoilt "an evaluation of spoilt tokens: $rc"
compgen -G 'run_spoilt/checkpoints/step_*' > /dev/null || last_log spoilt "the steps before a failed evaluation were lost"

# bf16: a checkpoint has the fp32 masters, and a run that continues from it, on two ranks, ends with the same bits.
fleet bf16 slm
options=(--set trainer.dtype=bf16 --set trainer.steps=30 --set trainer.checkpoint_every=15 --set trainer.keep_checkpoints=3)
train bf16 "${options[@]}" || last_log bf16 "bf16"
grep -q 'compute="[^"]*bf16' bf16.log || last_log bf16 "not in bf16"
mv run_bf16/checkpoints/step_00000030 bf16_whole
timeout 60 "${mpirun[@]}" -n 2 "$BIN/trainerd" -c bf16.yaml "${options[@]}" > bf16.log 2>&1 || last_log bf16 "bf16 goes on, on two ranks"
same bf16_whole/model.safetensors run_bf16/checkpoints/step_00000030/model.safetensors "bf16 stopped and resumed on two ranks"
grep -q '"dtype":"F32"' bf16_whole/model.safetensors || fail "the masters are not fp32"

# Muon: the same from a checkpoint, on two ranks; another optimizer is refused, with or without the stored options of the run.
fleet muon slm
options=(--set trainer.optimizer=muon --set trainer.steps=8 --set trainer.checkpoint_every=4 --set trainer.keep_checkpoints=3)
train muon "${options[@]}" || last_log muon "muon"
grep -q 'event=run.start .*optimizer=muon' muon.log || last_log muon "the log does not say which optimizer"
grep -q '"optimizer": *"muon"' run_muon/checkpoints/step_00000008/state.json || fail "state.json does not say which optimizer"
saltctl run info -c muon.yaml "${options[@]}" | grep -q '^optimizer *muon$' || fail "run info does not say which optimizer"
mv run_muon/checkpoints/step_00000008 muon_whole
rc=0; train muon "${options[@]}" --set trainer.optimizer=adamw || rc=$?
[ $rc = 78 ] && grep -q 'trainer.optimizer.*another run.dir' muon.log || last_log muon "AdamW goes on with Muon's run: exit code $rc"
mv run_muon/fleet.yaml muon_fleet.yaml
rc=0; train muon "${options[@]}" --set trainer.optimizer=adamw || rc=$?
[ $rc = 78 ] && grep -q 'trainer.optimizer.*trainer.init: .*step_00000004' muon.log || last_log muon "AdamW goes on from Muon's checkpoint: exit code $rc"
mv muon_fleet.yaml run_muon/fleet.yaml
timeout 60 "${mpirun[@]}" -n 2 "$BIN/trainerd" -c muon.yaml "${options[@]}" > muon.log 2>&1 || last_log muon "muon goes on, on two ranks"
same muon_whole/model.safetensors run_muon/checkpoints/step_00000008/model.safetensors "Muon stopped and resumed on two ranks"

# A damaged checkpoint is skipped, and replaced by a valid one when the run reaches that step again.
fleet base slm
train base --set trainer.steps=30 --set trainer.checkpoint_every=15 --set trainer.keep_checkpoints=3 || last_log base "baseline"
c=run_base/checkpoints
cp $c/step_00000030/model.safetensors whole.safetensors
printf 'damaged!' | dd of=$c/step_00000030/model.safetensors bs=1 seek=9000 conv=notrunc 2> /dev/null
train base --set trainer.steps=30 --set trainer.checkpoint_every=15 --set trainer.keep_checkpoints=3 || last_log base "baseline after damage"
same whole.safetensors $c/step_00000030/model.safetensors "the checkpoint made again"
[ -d $c/step_00000030.damaged-1 ] || fail "the damaged checkpoint was not kept aside: $(ls $c)"

# Changed bytes in the corpus, and a corpus that is truncated while it is used: an error names them before a step uses them.
rot train.bin 4000
rc=0; train base --set run.dir=run_rot --set trainer.steps=30 || rc=$?
[ $rc = 65 ] && grep -q 'train.bin: block 0 .*its bytes changed' base.log || last_log base "a rotten corpus: exit code $rc"
rot train.bin 4000
cp -p train.bin whole.bin
train base --set run.dir=run_rot --set trainer.steps=1000000 --set trainer.checkpoint_every=0 --set trainer.eval_every=0 &
pid=$!
for ((i = 0; i < 400; i++)); do
	if grep -qs '"kind":"step"' run_rot/metrics.jsonl; then break; fi
	sleep 0.05
done
truncate -s 2000 train.bin
rc=0; wait $pid || rc=$?
[ $rc = 65 ] && grep -q 'train.bin: byte .*cut short while in use' base.log || last_log base "a corpus that was cut short: exit code $rc"
cp -p whole.bin train.bin

# selectord, which sends sequences to teachers, also ends, and puts no sequence into quarantine because of it; teacherd does not label with damaged
# weights.
mkdir good
cp -p train.* good
rot train.bin 4000
fleet sel "$c/step_00000015" "steps: 4"
serve sel
train sel --set corpus.train=good/train --set trainer.steps=4 &
rc=0; wait "${daemons[0]}" || rc=$?
[ $rc = 65 ] && grep -q 'event=failed .*train.bin: block 0 .*its bytes changed' sel.selectord.log || fail "selectord, rotten corpus: exit code $rc, $(tail -2 sel.selectord.log)"
kill %% && wait %% || true
serve_no_more
rot train.bin 4000
"$BIN/saltctl" cache stat -c sel.yaml | grep -q '^quarantine *0 sequences' || fail "quarantine: $("$BIN/saltctl" cache stat -c sel.yaml)"
rot "$c/step_00000015/model.safetensors" 9000
rc=0; timeout 20 "$BIN/teacherd" -c sel.yaml > sel.log 2>&1 || rc=$?
[ $rc = 65 ] && grep -q 'step_00000015/model.safetensors: .*its bytes changed' sel.log || last_log sel "teacherd, rotten weights: exit code $rc"
rot "$c/step_00000015/model.safetensors" 9000

# Changed bytes in trainer.init, in a folder and in a checkpoint.
cp -r "$c/step_00000015" init
for manifest in yes no; do
	[ $manifest = yes ] || rm init/MANIFEST.json
	rm -rf run_rot
	train base --set run.dir=run_rot --set trainer.steps=1 --set trainer.init=init || last_log base "trainer.init"
	rot init/model.safetensors 9000
	rm -rf run_rot
	rc=0; train base --set run.dir=run_rot --set trainer.steps=1 --set trainer.init=init || rc=$?
	[ $rc = 65 ] && grep -q 'init/model.safetensors: .*its bytes changed' base.log || last_log base "rotten trainer.init, manifest $manifest: exit code $rc"
	rot init/model.safetensors 9000
done

# Fewer steps than were done: nothing is left to do.
train base --set trainer.steps=20 --set trainer.warmup=0 || last_log base "fewer steps than were done"

# Weights in the folder of trainer.model are not read, and this is reported once; a resumed run does not read trainer.init either.
[ "$(grep -c weights.unused base.log)" -eq 0 ] || fail "a warning about weights that are not there: $(cat base.log)"
fleet unused $c/step_00000030
train unused --set trainer.model=$c/step_00000030 --set trainer.steps=1 || last_log unused "trainer.model with weights"
[ "$(grep -c "event=weights.unused .*set trainer.init: $PWD/$c/step_00000030" unused.log)" -eq 1 ] || fail "weights that are not read: $(cat unused.log)"
train unused --set trainer.model=$c/step_00000030 --set trainer.steps=2 --set trainer.init=$c/step_00000015 || last_log unused "resumed"
grep -q "event=init.ignored .*was=\"\"" unused.log || fail "trainer.init of a run that goes on: $(cat unused.log)"
! grep -q weights.unused unused.log || fail "a run that goes on warns about initial weights"
"$BIN/saltctl" plan -c unused.yaml --set trainer.model=$c/step_00000030 --set trainer.steps=1 2> plan.err > plan.log || fail "plan: $(cat plan.err)"
grep -q "random weights.*set trainer.init" plan.err || fail "plan says nothing of weights that are not read"
"$BIN/saltctl" model new --layers 2 --width 32 --heads 2 --context 32 --tokenizer "$SOURCE/share/tokenizer-4k" --weights 1 deeper > model.log
! train unused -n --set trainer.steps=2 --set trainer.init=deeper || fail "trainer.init of another shape"
grep -q "trainer.init (shape of trainer.model)" unused.log || fail "trainer.init of another shape: $(cat unused.log)"

# A corpus of foreign ids and a tokenizer.json of an unsupported kind: all daemons continue, compare it by its hash and copy it.
cp train.bin foreign.bin
cp train.idx foreign.idx
cp -r slm slm_foreign
cp -r $c/step_00000030 teacher_foreign
rm teacher_foreign/MANIFEST.json		# the manifest has the hash of the tokenizer.json that is replaced
sed -i 's/"type": *"BPE"/"type": "WordPiece"/' slm_foreign/tokenizer.json
cp slm_foreign/tokenizer.json teacher_foreign/
fleet foreign teacher_foreign "steps: 2"
foreign=(--set corpus.train=foreign --set corpus.heldout= --set trainer.model=slm_foreign --set trainer.steps=2)
serve foreign "${foreign[@]}"
train foreign "${foreign[@]}" || last_log foreign "a tokenizer that is not read"
serve_no_more
for log in foreign foreign.selectord foreign.teacherd; do
	[ "$(grep -c 'event=tokenizer.unread .*model.type: expected BPE or Unigram, found WordPiece' $log.log)" -eq 1 ] || fail "$log: $(cat $log.log)"
done
same slm_foreign/tokenizer.json run_foreign/checkpoints/step_00000002/tokenizer.json "the tokenizer of the checkpoint"
echo >> teacher_foreign/tokenizer.json
serve foreign "${foreign[@]}" --set cache.dir=cache_foreign2
! train foreign "${foreign[@]}" --set run.dir=run_foreign2 || fail "another tokenizer of the teacher was accepted"
grep -q "corpus.tokenizer" foreign.log || fail "another tokenizer of the teacher: $(cat foreign.log)"
serve_no_more
"$BIN/saltctl" generate --model run_foreign/checkpoints/step_00000002 --prompt a 2> generate.err && fail "text without a tokenizer"
grep -q "model.type: expected BPE or Unigram, found WordPiece" generate.err || fail "generate: $(cat generate.err)"

# A margin that was not met is still not met after a resume, without another evaluation of the same step.
fleet margin $c/step_00000030 "until_margin: 0"
serve margin
train margin --set trainer.steps=4 || last_log margin "margin, first part"
train margin --set trainer.steps=6 || last_log margin "margin, resumed"
[ "$(grep -c '"kind":"step".*"phase":1' run_margin/metrics.jsonl)" -eq 6 ] || fail "phase one ended without the margin: $(grep switch margin.log)"
[ "$(grep -c '"kind":"eval","step":4,' run_margin/metrics.jsonl)" -eq 1 ] || fail "evaluations of step 4"
serve_no_more

# A switch that was made stays at its step; if phase_one.steps is lowered below the steps already done, the switch comes at once. Both runs continue
# without the other daemons.
fleet moved $c/step_00000030 "steps: 4" "checkpoint_every: 1, keep_checkpoints: 20"
serve moved
train moved --set trainer.steps=6 || last_log moved "switch at 4"
serve_no_more
train moved --set trainer.steps=8 --set phase_one.steps=7 || last_log moved "phase one made longer after its end"
[ "$(grep '"kind":"step"' run_moved/metrics.jsonl | grep -c '"phase":1')" -eq 4 ] || fail "phase one came back"
rm -r run_moved/checkpoints/step_0000000[3-8]
train moved --set trainer.steps=8 --set phase_one.steps=1 || last_log moved "phase one made shorter than what was done"
[ "$(grep '"kind":"step"' run_moved/metrics.jsonl | grep -c '"phase":1')" -eq 2 ] || fail "phase one went on beyond its end"

# A run that was phase one from start to end is extended: with more of phase one, until a margin, and without the teacher.
phase() { saltctl run info -c longer.yaml "$@" --json | sed -n 's/.*"phase": "\(.*\)".*/\1/p'; }
ones() { grep '"kind":"step"' run_longer/metrics.jsonl | grep -c '"phase":1'; }
more() { serve_no_more; serve longer; train longer "$@"; }		# the teacher was released at the end of the previous run
fleet longer $c/step_00000030 "steps: 4"
more --set trainer.steps=4 || last_log longer "phase one only"
more --set trainer.steps=6 --set phase_one.steps=6 || last_log longer "more of phase one"
[ "$(ones) $(phase --set trainer.steps=8)" = "6 two" ] || fail "phase one made longer: $(ones) steps"
margin=(--set trainer.steps=8 --set phase_one.steps=0 --set phase_one.until_margin=-50)
[ "$(phase "${margin[@]}")" = one ] || fail "run info: $(saltctl run info -c longer.yaml "${margin[@]}")"
more "${margin[@]}" || last_log longer "until a margin that is not met"
[ "$(ones)" = 8 ] || fail "phase one ended without the margin: $(grep switch longer.log)"
train longer --set trainer.steps=10 --set phase_one.steps=8 || last_log longer "without the teacher"
serve_no_more
[ "$(ones) $(grep -c '"kind":"step"' run_longer/metrics.jsonl)" = "8 10" ] || fail "the last two steps: $(ones)"
rc=0
train longer --set trainer.steps=12 --set phase_one.steps=12 --set selector.mode=salt_ds || rc=$?
[ $rc -eq 78 ] || last_log longer "another choice of rows on resume: $rc"

# One run.dir, two trainers: the error of the second names the first. If run.dir is removed, the trainer continues, and ends if another trainer has it
# by then.
fleet owner slm
"$BIN/trainerd" -c owner.yaml --set trainer.steps=100000 --set trainer.checkpoint_every=1 --set trainer.eval_every=0 > owner.log 2>&1 & pid=$!
wait_checkpoint() {			# and for the files beside it
	for ((i = 0; i < 200; i++)); do
		[ -z "$(ls -d run_owner/checkpoints/step_???????? 2> /dev/null)" ] || [ ! -s run_owner/metrics.jsonl ] || break
		sleep 0.05
	done
}
wait_checkpoint
rc=0
timeout 60 "$BIN/trainerd" -c owner.yaml --set trainer.steps=5 > owner2.log 2>&1 || rc=$?
[ $rc -eq 75 ] && grep -q "in use by another trainer on $(hostname), pid $pid," owner2.log || last_log owner2 "a second trainer: $rc"
for ((n = 0; n < 20; n++)); do		# most of these moves happen while a checkpoint is being written
	mv run_owner moved_owner_$n
	wait_checkpoint
	grep -q event=run.removed owner.log && [ -s run_owner/metrics.jsonl ] && [ -e run_owner/fleet.yaml ] || last_log owner "a run.dir that was moved away: $n"
done
kill -USR1 $pid
rc=0; wait $pid || rc=$?
[ $rc -eq 75 ] || last_log owner "the stop after that: $rc"
cp moved_owner_0/metrics.jsonl run_owner/metrics.jsonl
rm -r run_owner/checkpoints
train owner --set trainer.steps=3 || last_log owner "anew, beside the metrics of a run whose checkpoints are gone"
cmp -s moved_owner_0/metrics.jsonl run_owner/metrics.jsonl.2* || fail "the former metrics are gone: $(ls run_owner)"
[ "$(grep -c '"kind":"step"' run_owner/metrics.jsonl)" = 3 ] || fail "the new metrics"

# Dense rows: a frame holds only a few, so a step needs many frames. Rows that an answer leaves out are requested again at once, without a delay.
kind=dense fleet dense $c/step_00000030 "steps: 3" "" "bus: {max_message: 1MiB}"
serve dense
train dense --set trainer.steps=3 --set trainer.wait_max_s=15 || last_log dense "short answers"
serve_no_more

# late: hard without a teacher: rows of phase one are trained on the text alone, as in BASELINE, and each is counted.
fleet late $c/step_00000030 "steps: 3, late: hard"
fleet plain slm
"$BIN/selectord" -c late.yaml > late.selectord.log 2>&1 &
daemons+=($!)
train late --set trainer.steps=5 --set trainer.wait_max_s=5 || last_log late "late rows trained without the teacher"
train plain --set trainer.steps=5 || last_log plain "baseline of five steps"
serve_no_more
[ "$(grep -o '"late_rows":[0-9]*' run_late/metrics.jsonl | cut -d: -f2 | xargs)" = "16 16 16 0 0" ] || fail "late rows: $(grep -o '"late_rows":[0-9]*' run_late/metrics.jsonl | xargs)"
for run in late plain; do
	sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"hard":\([^,]*\),.*/\1 \2/p' run_$run/metrics.jsonl > hard_$run
done
[ "$(wc -l < hard_plain)" = 5 ] || fail "no losses"
same hard_plain hard_late "rows without the teacher and BASELINE's"
