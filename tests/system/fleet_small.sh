# SPDX-License-Identifier: Apache-2.0
# A whole small fleet: SLM, then SALT_DS with two teachers and two ranks, then BASELINE. Losses are compared as text of 17 digits, so equal text means
# equal bits. Killing, stopping and restarting processes, at any number of ranks, changes none of them.
. "$(dirname "$0")/lib.sh"

for ((port = 5800; port < 5900; port++)); do
	(exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
cd "$scratch"
mkdir models data
"$BIN/saltctl" corpus build --tokenizer "$SOURCE/share/tokenizer-4k" --out data/train --heldout-out data/heldout --heldout-one-in 8 \
    --split-on blank-lines --only '*.md' "$SOURCE/docs" > corpus.out 2>&1 || fail "corpus build: $(cat corpus.out)"
"$BIN/saltctl" model new --layers 1 --width 32 --heads 2 --context 64 --tokenizer "$SOURCE/share/tokenizer-4k" models/slm > /dev/null
"$BIN/saltctl" model new --layers 2 --width 64 --heads 4 --context 64 --tokenizer "$SOURCE/share/tokenizer-4k" models/student > /dev/null
common() {
	cat <<END
run: {dir: $1, seed: 7}
corpus: {train: data/train, heldout: data/heldout, context: 64}
END
}
cat > slm.yaml <<END
$(common slm)
trainer: {model: models/slm, steps: 40, batch: 8, micro_batch: 1, ranks: 2, threads: 1, lr: 3e-3, warmup: 4, keep_steps: [10], eval_sequences: 16}
END
student="model: models/student, steps: 90, batch: 8, micro_batch: 1, ranks: 2, threads: 1, lr: 2e-3, warmup: 5, checkpoint_every: 10,
    eval_every: 15, eval_sequences: 16"
salt() {		# salt NAME: a configuration with a run and a cache of its own
	cat > "$1.yaml" <<END
$(common "$1")
cache: {dir: cache_$1, map_size: 256MiB}
teacher: {model: slm/checkpoints/step_00000040, scorer: slm/checkpoints/step_00000010, threads: 1}
labels: {samples: 20}
selector: {mode: salt_ds, block: 32, keep_share: 0.5, endpoints: ["tcp://127.0.0.1:$port"], label_ahead_steps: 6, lease_s: 2}
trainer: {$student}
phase_one: {steps: 50, handover: linear, handover_steps: 10}
deploy: {teachers: 2}
END
}
fleet() { timeout 240 "$SOURCE/deploy/local.sh" "$1" --bin "$BIN" -c "$2.yaml" "${@:3}"; }
down_all() {
	local f
	for f in *.yaml; do fleet down "${f%.yaml}" > /dev/null 2>&1 || true; done
}
trap 'down_all; cleanup' EXIT

show() { tail -n 25 "$1"/logs/*.log >&2 2>/dev/null || true; }
step_of() { { tail -n 3 "$1/metrics.jsonl" 2>/dev/null || true; } | sed -n 's/.*"kind":"step","step":\([0-9]*\).*/\1/p' | tail -n 1; }
wait_step() {		# wait_step RUN N: until N steps are done
	local end=$((SECONDS + 120)) step
	while :; do
		step=$(step_of "$1")
		[ "${step:-0}" -lt "$2" ] || return 0
		[ $SECONDS -lt $end ] || { show "$1"; fail "$1 did not reach step $2 in time; it is at ${step:-0}"; }
		sleep 0.02
	done
}
finish() {		# finish RUN: until its trainer is done
	fleet up "$1" --wait > "$1.out" 2>&1 || { show "$1"; fail "$1: $(cat "$1.out")"; }
}
losses() { grep -v '"kind":"event"' "$1/metrics.jsonl" | sed 's/,"tokens".*//'; }
compare() {
	losses "$1" > "$1.losses"
	same quiet.losses "$1.losses" "$2"
}
pid_in() { sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$1"; }

# The small model, then all daemons together, undisturbed.
finish slm
[ -e slm/checkpoints/step_00000010/model.safetensors ] && [ -e slm/checkpoints/step_00000040/model.safetensors ] || fail "SLM's checkpoints"
salt quiet
finish quiet
fleet down quiet > /dev/null
losses quiet > quiet.losses
[ "$(grep -c '"kind":"step"' quiet.losses)" = 90 ] || fail "not 90 steps"
[ "$(grep -c '"kd_tokens":512' quiet.losses)" = 50 ] || fail "not 50 steps with a teacher"
[ "$(grep -c '"late_rows":0,"quarantined_rows":0,"skipped":false' quiet.losses)" = 90 ] || fail "late, quarantined or skipped"
grep -q '"event":"switch"' quiet/metrics.jsonl || fail "no switch"

# The same, and each of these is killed once: a teacher, selectord, a rank in phase one, a rank in phase two.
salt killed
fleet up killed > /dev/null
wait_step killed 8
kill -9 "$(cat killed/daemons/teacherd-0.pid)"
wait_step killed 16
kill -9 "$(cat killed/daemons/selectord.pid)"
wait_step killed 28
kill -9 "$(pid_in killed/daemons/trainerd-1.json)"
wait_step killed 62
kill -9 "$(pid_in killed/daemons/trainerd-0.json)"
finish killed
for n in teacherd-0:1 selectord:1 trainerd:2; do
	[ "$(grep -c event=daemon.restart "killed/logs/${n%:*}.log")" = "${n#*:}" ] || { show killed; fail "restarts of ${n%:*} are not ${n#*:}"; }
done
fleet down killed > /dev/null
compare killed "daemons were killed"

# Stopped and started again at other numbers of ranks, around the switch; after the switch all other daemons are stopped and the cache is removed.
# Labels come late, so that phase one is not over before the stop.
salt stopped
fleet up stopped --set trainer.ranks=1 --set selector.label_ahead_steps=1 --set selector.commit_ms=150 > /dev/null
wait_step stopped 33
fleet down stopped > /dev/null
grep -q 'event=daemon.exit .*code=75' stopped/logs/trainerd.log || { show stopped; fail "a stopped trainer ends with 75"; }
fleet up stopped --set trainer.ranks=4 > /dev/null
wait_step stopped 52
fleet down stopped > /dev/null
rm -rf cache_stopped slm.gone
mv slm slm.gone
finish stopped
[ "$(grep -c event=daemon.start stopped/logs/selectord.log)" = 2 ] || fail "selectord was started in phase two"
mv slm.gone slm
compare stopped "stopped and resumed at 1, 4 and 2 ranks"

# BASELINE: only the trainer; the rows of phase two are those of BASELINE at the same steps.
{ common baseline; echo "trainer: {$student}"; } > baseline.yaml
finish baseline
[ ! -e baseline/logs/selectord.log ] && [ ! -e baseline/logs/teacherd-0.log ] || fail "BASELINE started others"
"$BIN/saltctl" report --run SLM=slm --run BASELINE=baseline --run SALT_DS=quiet --table --out report.html > table.txt || fail "report"
grep -q 'SALT_DS *salt_ds *at the switch *50 ' table.txt && grep -q '<svg' report.html || fail "report: $(cat table.txt)"

# A seed changed on a live run is refused and changes nothing.
rc=0
fleet up quiet --wait --only trainer --set run.seed=8 > refused.out 2>&1 || rc=$?
[ $rc -eq 78 ] && grep -q 'run.seed' refused.out || fail "another seed on a live run: exit code $rc: $(cat refused.out)"
compare quiet "after a refused start"
