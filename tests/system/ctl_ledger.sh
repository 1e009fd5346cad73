# SPDX-License-Identifier: Apache-2.0
# ledger on files made here: costs and savings are compared with arithmetic in Python that uses the models' shapes only.
. "$(dirname "$0")/lib.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
model() { ctl model new --family gpt2 --layers "$2" --width "$3" --heads 2 --context 32 --vocab 100 "$1" > /dev/null || fail "model new"; }
model big 2 16
model slm 1 8
model young 1 12

# run NAME SECONDS_A_STEP LOSSES [SETTINGS]: writes the files of a run with evaluations at steps 2, 4, ..., and labels in the first 4 steps if it has
# a phase one.
run() {
	local name=$1 pace=$2 losses=$3 more=${4-}
	mkdir -p "$name"
	python3 - "$name" "$pace" "$losses" "$more" <<'END'
import json, sys
name, pace, losses, more = sys.argv[1], float(sys.argv[2]), [float(x) for x in sys.argv[3].split()], sys.argv[4]
with open(name + "/metrics.jsonl", "w") as f:
    for i, loss in enumerate(losses):
        for step in (2 * i + 1, 2 * i + 2):
            kd = 8 * 32 if "phase_one" in more and step <= 4 else 0
            f.write(json.dumps(dict(kind="step", step=step, phase=1 if kd else 2, hard=loss, lr=1e-3, kd_tokens=kd, label_bytes=3 * kd,
                                    quarantined_rows=2 if kd and name == "plain" else 0, seconds=pace * step, wait_seconds=0.25)) + "\n")
        f.write(json.dumps(dict(kind="eval", step=2 * i + 2, loss=loss, accuracy=0.5, bits_per_byte=1.0, teacher_loss=None)) + "\n")
        if "phase_one" in more and i == 1:
            f.write(json.dumps(dict(kind="event", step=4, event="switch", rows_seen_again=0)) + "\n")
END
	printf 'run: {dir: ., seed: %s}\ncorpus: {train: t, context: 32}\ntrainer: {model: ../big, steps: 8, batch: 8}\n%b' "${5-1}" "$more" > "$name/fleet.yaml"
}
two='cache: {dir: c}\nphase_one: {steps: 4}\nteacher: {model: ../slm, scorer: ../young}\nselector: {mode: salt_ds, block: 20, keep_share: 0.5}\n'
one='cache: {dir: c}\nphase_one: {steps: 4}\nteacher: {model: ../slm}\nselector: {mode: salt_ds, block: 20, keep_share: 0.5}\n'
plain='cache: {dir: c}\nphase_one: {steps: 4}\nteacher: {model: ../slm}\n'
run base 1 "5 4.5 4.25 4.0"
run two 1.25 "5 4.4 3.9 3.8" "$two"
run one 1 "5 4.5 4.25 3.9" "$one"
run plain 0.5 "5 4.0 3.9 3.8" "$plain"
run never 1 "5 4.5 4.25 4.1" "$plain"
run seed 1 "5 4.5 4.25 3.9" "$plain" 2
mkdir two/ledger
echo '{"role":"teacherd","cpu_seconds":1.5}' > two/ledger/a.json
echo '{"role":"teacherd","cpu_seconds":2.25}' > two/ledger/b.json
ctl ledger --run two --run one --run plain --run never --run seed --run base --baseline base --json > l.json
python3 - <<'END'
import json
l = {x["run"]: x for x in json.load(open("l.json"))}
def flops(c, layers): return 6 * (12 * layers * c * c + 100 * c) + 12 * layers * c * 32
S, T, Y = flops(16, 2), flops(8, 1), flops(12, 1)
step = 8 * 32 * S
def want(got, expected, what):
    assert got is not None and abs(got - expected) <= 1e-9 * max(1, abs(expected)), f"{what}: {got}, expected {expected}"
want(l["base"]["flops"], 8 * step, "baseline"); want(l["base"]["teacher_flops"], 0, "no teacher"); want(l["base"]["teacher_cpu_seconds"], 0, "none")
# 32 rows, 10 chosen of each 20: 4 blocks, 80 sequences scored; 32 labelled, or all 80 in one pass
cost = {"two": (80 * Y + 32 * T) / 3 * 32, "one": 80 * T / 3 * 32, "plain": 32 * T / 3 * 32}
for name, flop in cost.items():
    want(l[name]["teacher_flops"], flop, name)
want(l["two"]["teacher_cpu_seconds"], 3.75, "CPU"); assert l["one"]["teacher_cpu_seconds"] is None
want(l["two"]["label_bytes"], 4 * 8 * 32 * 3, "bytes"); want(l["two"]["wait_seconds"], 2, "waited"); want(l["two"]["train_seconds"], 10, "seconds")
want(l["plain"]["quarantined_rows"], 8, "quarantined"); want(l["two"]["quarantined_rows"], 0, "none quarantined")
a = l["two"]["against"]
want(a["target_log_perplexity"], 4.0, "target"); want(a["reached_step"], 6, "reached"); want(a["saved_steps"], 0.25, "steps")
want(a["saved_flops"], 0.25, "FLOPs"); want(a["saved_flops_with_teacher"], 1 - (6 * step + cost["two"]) / (8 * step), "with the teacher")
want(a["saved_seconds"], 1 - 7.5 / 8, "seconds"); want(a["loss_at_equal_steps"], 3.8, "equal steps")
want(a["speed_ratio"], 0.8, "1.25 s a step against 1 s"); assert a["same_speed"] is False, a
want(a["saved_seconds_at_equal_speed"], 0.25, "at 1 s a step"); want(a["loss_at_equal_seconds"], 3.8, "8 s hold 8 steps at the baseline's speed")
k = max(e for e in (0, 2, 4, 6, 8) if e * step + cost["two"] <= 8 * step)
want(a["loss_at_equal_flops"], {2: 5, 4: 4.4, 6: 3.9, 8: 3.8}[k], "equal FLOPs")
a = l["plain"]["against"]
want(a["reached_step"], 4, "equal counts as reached"); want(a["saved_seconds"], 1 - 2 / 8, "twice as fast"); want(a["saved_seconds_at_equal_speed"], 0.5, "at its speed")
assert l["one"]["against"]["same_speed"] is True, l["one"]["against"]; want(a["loss_at_equal_seconds"], 3.8, "all of it")
a = l["one"]["against"]
want(a["reached_step"], 8, "at the end"); want(a["saved_steps"], 0, "nothing"); assert a["saved_flops_with_teacher"] < 0, a
a = l["never"]["against"]
assert a["reached_step"] is None and a["saved_steps"] is None and a["saved_flops"] is None and a["not_compared"] is None, a
assert "seed" in l["seed"]["against"]["not_compared"] and l["seed"]["against"]["saved_steps"] is None
END
ctl ledger --run two --run never --run seed --baseline base > text
grep -q 'reached at step 6' text && grep -q '25.0 % saved' text && grep -q 'not reached: nothing was saved' text &&
	grep -q 'not compared: another seed' text && grep -q 'a claim needs three' text || fail "text: $(cat text)"
grep -q 'wall clock  *does not compare: .* FLOP/s against' text && grep -q "at the baseline's speed 25.0 % saved of training" text || fail "unequal speeds: $(cat text)"
got=0; ctl ledger --run two --baseline nowhere 2> err > out || got=$?
[ $got = 66 ] && grep -q nowhere err && [ ! -s out ] || fail "--baseline nowhere: $got $(cat err)"
ctl ledger --run base --baseline two | grep -q 'not compared: the run to compare with had a teacher' || fail "a baseline with a teacher"
[ "$(ctl ledger --run plain --run two | grep -c 'trained without the teacher')" = 1 ] || fail "ledger: rows in quarantine"
ctl ledger --run plain | grep -q '^plain: 8 rows of phase one were trained' || fail "ledger: $(ctl ledger --run plain)"
ctl report --run Q=plain --out r.html --table | grep -q '^Q: 8 rows of phase one were trained' || fail "report: rows in quarantine"
# What cannot be read is left out, and that is said.
cp -r two torn
sed -i '3s/.*/{"kind":"step","st/' torn/metrics.jsonl
echo '{' > torn/ledger/b.json
for verb in ledger report; do
	ctl $verb --run torn 2> err > out || fail "$verb of a damaged run"
	grep -q "^saltctl $verb: torn/metrics.jsonl: 1 lines are not a trainer's and were left out" err &&
		grep -q "^saltctl $verb: torn/ledger: 1 files cannot be read" err || fail "$verb of a damaged run is silent: $(cat err)"
done
# A run without fleet.yaml: whether it had a teacher is not known, and not claimed.
mkdir bare
cp base/metrics.jsonl bare
ctl ledger --run bare --baseline bare > said
grep -q 'not compared: the run to compare with has no fleet.yaml' said || fail "a baseline without fleet.yaml: $(cat said)"
