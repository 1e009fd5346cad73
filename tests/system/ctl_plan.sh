# SPDX-License-Identifier: Apache-2.0
# saltctl plan: every figure is compared with the same arithmetic in Python, from the configuration alone; a real run is read; bad input is refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"

# All examples are valid. For the paper's example, plan needs only the files with the shapes.
example="$SOURCE/deploy/examples/paper-2.8b.yaml"
for yaml in "$SOURCE"/deploy/examples/*.yaml "$SOURCE"/deploy/examples/*/*.yaml; do
	ctl config check -c "$yaml" > /dev/null 2> err || fail "config check of $yaml: $(cat err)"
done
ctl plan -c "$example" --set trainer.dtype=bf16 --ranks 1,64,1024 --flops-per-second 1e12 --cores 4 --set trainer.threads=0 \
	--latency 20e-6 --bandwidth 12.5e9 --json > paper.json
python3 - <<'END'
import json, math
p = json.load(open("paper.json"))
V, L, steps, batch, lanes, micro = 50257, 1280, 208000, 2048, 1024, 2
def params(c, layers): return V * c + 1280 * c + layers * (12 * c * c + 13 * c) + 2 * c
def flops(c, layers): return 6 * (12 * layers * c * c + V * c) + 12 * layers * c * L
def near(got, want, what):
    assert abs(got - want) <= 1e-9 * abs(want), f"{what}: {got}, expected {want}"
nS, nT, fS, fT = params(2560, 34), params(1600, 48), flops(2560, 34), flops(1600, 48)
assert p["student"]["params"] == nS and p["teacher"]["params"] == nT, (p["student"], nS, nT)
assert abs(nS / 2.8e9 - 1) < 0.01 and abs(nT / 1.5e9 - 1) < 0.05
run = steps * batch * L
near(p["tokens"], run, "tokens"); near(p["flops"], run * fS, "FLOPs"); near(p["checkpoint_bytes"], 12 * nS, "checkpoint")
t = p["teacher"]
rows = 36000 * batch
assert (t["rows"], t["labelled_sequences"], t["scored_sequences"], t["stored_sequences"]) == (rows, rows, 0, rows), t
near(t["flops"], (rows + 1024) * L * fT / 3, "teacher's FLOPs")
near(t["inline_factor"], 1 + nT / (3 * nS), "in line")
share = (rows + 1024) * L * fT / 3 / (run * fS)
near(t["share_of_baseline_flops"], share, "share")
near(t["break_even_made_for_this"], nT / nS + share, "made for this")
near(t["break_even_teacher_tokens"], (0.27 - share) * run * nS / nT, "teacher's tokens")
m = {x["ranks"]: x for x in p["memory"]}
blocks = math.ceil(nS / 65536)
def front(n): return min(n, (math.ceil(n / 65536) + 1) // 2 * 65536)
def share_of(r):
    n = nS
    while r > 1:
        n = front(n); r //= 2
    return n
for r in (1, 64, 1024):
    near(m[r]["masters_bytes"], 4 * share_of(r), "masters"); near(m[r]["compute_copy_bytes"], 2 * nS, "copy")
    near(m[r]["moments_bytes"], 8 * share_of(r), "moments")
    near(m[r]["gradients_bytes"], 4 * nS * (1 + int(math.log2(lanes // r))), "gradients")
near(m[64]["scratch_bytes"], 8 * (4 << 20), "scratch")
time = {x["ranks"]: x for x in p["projection"]}
def step(r):
    micro_s = fS * micro * L / 1e12 / 4
    n, net = nS, 0
    for level in range(int(math.log2(r))):
        n = front(n)
        net += 2 * 20e-6 + (4 + 2) * n / 12.5e9 + 5 * 20e-6 + 8 * blocks / 12.5e9
    return micro_s * batch / micro / r + net
for r in (1, 64, 1024):
    near(time[r]["step_seconds"], step(r), f"step at {r}")
    near(time[r]["efficiency"], step(1) / (r * step(r)), "efficiency")
    near(time[r]["end_seconds"], steps * step(r) + 208 * 1024 * L * fS / 3 / 1e12 / 4 / r, "to the end")
END

# The sentences on when the teacher pays: the figures above in percent, and 208000 x 0.73, 208000 x (1 - 0.0334), 0.0334 - 0.01.
near_text() {
	grep -q -- "$1" paper.txt || fail "no \"$1\" in: $(sed -n '/^When/,$p' paper.txt)"
}
ctl plan -c "$example" --set trainer.dtype=bf16 --ranks 64 > paper.txt
near_text "at step 151840 of 208000, 27 % earlier"
near_text "^off the shelf .* costs 3.34 % .* It is expected to pay:"
near_text "^ *23.7 % of the FLOPs are saved. .* before step 20105[0-9]\."
near_text "^made for this .* costs 58.8 % with its training. It is not expected to pay"
near_text "less than 232 G tokens, 42.6 % of the student's"
near_text "Inside the trainer .* 1.185 times as long"
! grep -q "^warning" paper.txt || fail "warnings: $(grep warning paper.txt)"
ctl plan -c "$example" --set trainer.dtype=bf16 --ranks 64 --saving 0.01 --set phase_one.steps=208000 > paper.txt
near_text "^off the shelf .* costs 19.[0-9]* % .* It is not expected to pay:"
near_text "It pays if more than 19.[0-9]* % of the steps are saved"
near_text "^warning .*the whole run"
ctl plan -c "$example" --set trainer.dtype=bf16 --ranks 64 --set phase_one.steps=104000 --set teacher.model="${example%.yaml}/student" > paper.txt
near_text "^warning .* 1 times the student's parameters"
near_text "^warning .*Phase one is 50 %"

# Muon: no second moments for the matrices of the layers; Newton-Schulz takes s^2 (3 l + 17 s) FLOPs for a matrix of sides s <= l.
ctl plan -c "$example" --set trainer.optimizer=muon --set trainer.dtype=bf16 --ranks 1,2,64 --cores 4 --set trainer.threads=2 --json > muon.json
python3 - <<'END'
import json
p, c, layers = json.load(open("muon.json")), 2560, 34
n, hidden = p["student"]["params"], 12 * c * c * layers
assert p["optimizer"] == "muon" and p["muon_flops_per_step"] == layers * 138 * c ** 3, p["muon_flops_per_step"]
assert p["checkpoint_bytes"] == 12 * n - 4 * hidden
m = {x["ranks"]: x for x in p["memory"]}
assert m[1]["moments_bytes"] == 8 * n - 4 * hidden
assert 1 <= m[2]["moments_bytes"] / (m[1]["moments_bytes"] / 2) < 1.05 and 1 <= m[64]["moments_bytes"] / (m[1]["moments_bytes"] / 64) < 1.6
assert m[1]["muon_bytes"] >= 2 * 4 * (4 * c * c + 4 * c * c)
END
ctl plan -c "$example" --set trainer.optimizer=muon --cores 4 | grep -q '^optimizer  *muon: .* FLOPs a step' || fail "plan does not print Muon's work"

# A small model; its run gives the seconds.
small_corpus
small_model student 5
cat > f.yaml <<END
run: {dir: run, seed: 3}
corpus: {train: train, heldout: held, context: 32}
cache: {dir: cache}
teacher: {model: student}
selector: {mode: salt_ds, block: 32, keep_share: 0.5}
trainer: {model: student, steps: 6, batch: 8, lanes: 4, eval_every: 0, eval_sequences: 8, checkpoint_every: 0, threads: 1}
phase_one: {steps: 3}
END
for ranks in 1 2; do
	ranks $ranks "$BIN/trainerd" -c f.yaml --set run.dir=run$ranks --set phase_one.steps=0 > run$ranks.log 2>&1 || fail "trainerd: $(tail -2 run$ranks.log)"
done
python3 - <<'END'
import json
for r in (1, 2):		# known seconds in place of measured ones
    lines = [json.loads(l) for l in open(f"run{r}/metrics.jsonl")]
    with open(f"run{r}/metrics.jsonl", "w") as f:
        n = 0
        for l in lines:
            if l["kind"] == "step":
                assert (l["ranks"], l["host_ranks"], l["threads"]) == (r, r, 1), l
                n += 1
                l.update(compute_seconds=[9, 1, 1, 1, 1, 0.1][n - 1], reduce_seconds=0.25, update_seconds=0.5, step_seconds=1.75, overlap_seconds=0, reduced_early=0.5,
                         kd_tokens=10, label_bytes=77)
            f.write(json.dumps(l) + "\n")
        f.write('{"kind":"step","st')
END
ctl plan -c f.yaml --measured run1 --ranks 1,2,4 --cores 2 --ranks-per-host 4 --json > p1.json
ctl plan -c f.yaml --measured run2/metrics.jsonl --ranks 2 --cores 2 --ranks-per-host 2 --json > p2.json
echo '[{"name":"latency_seconds","value":0.5},{"name":"bytes_per_second","value":1e6},{"name":"sum_bytes_per_second","value":2e6}]' > net.json
ctl plan -c f.yaml --measured run1 --ranks 2 --cores 2 --network net.json --overlap 0.25 --json > p3.json
python3 - <<'END'
import json, math
p = json.load(open("p1.json"))
n = p["student"]["params"]
def front(n): return min(n, (math.ceil(n / 65536) + 1) // 2 * 65536)
def near(got, want, what): assert abs(got - want) <= 1e-9 * abs(want) + 1e-15, f"{what}: {got}, expected {want}"
m = p["measured"]			# 4 micro-batches of 2 rows a step: 1 s median
near(m["micro_batch_seconds"], 0.25, "micro-batch"); near(m["update_seconds"], 0.5, "update"); near(m["cores"], 1, "cores")
near(m["flops_per_second_per_core"], p["student"]["flops_per_token"] * 2 * 32 / 0.25, "rate")
t = {x["ranks"]: x for x in p["projection"]}
near(t[1]["step_seconds"], 1 + 0.5, "one rank")
near(t[2]["compute_seconds"], 0.5, "two"); near(t[2]["update_seconds"], 0.5 * front(n) / n, "two, update")
near(t[4]["compute_seconds"], 0.5, "four ranks on two cores"); near(t[4]["cores"], 0.5, "half a core")
w = p["teacher"]			# 24 rows, blocks of 32 of which 16 are chosen, one model for both
assert (w["rows"], w["blocks"], w["scored_sequences"], w["labelled_sequences"], w["stored_sequences"], w["one_pass"]) == (24, 2, 64, 64, 32, True), w
near(w["label_bytes_per_token"], 7.7, "label bytes"); assert p["network"]["overlap"] == 0; assert w["label_bytes_are"] == "of the measured run"
near(w["cache_label_bytes"], 32 * (64 + 7.7 * 32 + 8 + 9 + 8), "cache"); near(w["cache_score_bytes"], (64 + 8) * (3 * 32 + 25), "scores")
near(w["flops"], (64 + 8) * 32 * p["teacher"]["flops_per_token"] / 3, "FLOPs")
p = json.load(open("p2.json"))		# two ranks: two micro-batches each; the update is a share
near(p["measured"]["micro_batch_seconds"], 0.5, "micro-batch of two ranks"); near(p["network"]["overlap"], 0.5, "overlap seen")
near(p["measured"]["update_seconds"], 0.5 * n / front(n), "update of two ranks")
near(p["projection"][0]["step_seconds"], 1 + 0.5, "two ranks again")
t = json.load(open("p3.json"))["projection"][0]
near(t["reduce_seconds"], 0.5 + 4 * front(n) / 1e6 + 4 * front(n) / 2e6, "reduce")
near(t["hidden_seconds"], min(0.25 * (0.5 + 4 * front(n) / 1e6), 0.25 * 2 / 3), "hidden")
END
# A fleet.yaml in run.dir that trainerd did not write, and that may have changed since, is not the measured run's.
cp -r run1 mine
mv mine/fleet.yaml mine/fleet.resolved.yaml
sed 's/batch: 8/batch: 16/' f.yaml > mine/fleet.yaml
ctl plan -c f.yaml --measured mine --ranks 1 --cores 2 --json | grep -q '"micro_batch_seconds": 0.25,' || fail "a fleet.yaml that is not the run's was read"
ctl plan -c f.yaml --measured run1 --ranks 1,2 > text
ctl plan -c f.yaml --measured run1 --ranks 1 --cores 2 --set trainer.recompute=true --json | grep -q '"micro_batch_seconds": 0.333333' || fail "recompute is a third more"
grep -q '^memory of a rank' text && grep -q 'efficiency' text && grep -q 'Teachers keep up' text || fail "text: $(cat text)"
ctl plan -c f.yaml > text && grep -q '^seconds *not known' text || fail "without seconds: $(cat text)"
ctl plan -c f.yaml --measure --json | grep -q '"source": "here: ' || fail "--measure"

# A GPU with a given memory: a rank, a teacher and both, computed by hand except for activations; advice where a rank does not fit.
gpu_plan() { ctl plan -c f.yaml --set trainer.backend=cuda --set compute.backend=cuda --set trainer.batch=32 --set trainer.micro_batch=8 "$@"; }
gpu_plan --json > gpu.json
cat > gpu.py <<'END'
import json, sys
def plan(name): return json.load(open(name))
p, gib, context = plan("gpu.json"), 2 ** 30, 2 ** 29
n, V = p["student"]["params"], 4096
m = p["memory"][0]
tokens, workspace = 8 * 32, 32 << 20
assert p["dtype"] == "bf16" and p["gpu"]["device"] is None and p["gpu"]["memory_bytes"] is None and "fits" not in m, p["gpu"]
want = dict(masters=4 * n, compute_copy=2 * n, moments=8 * n, gradients=4 * n * 3, scratch=0, muon=0, products=workspace + 6 * tokens * V, rows=0)
assert all(m[f"{k}_bytes"] == v for k, v in want.items()), (m, want)
total = sum(want.values()) + m["activations_bytes"]
assert m["total_bytes"] == total
t = p["gpu"]["teacher"]			# one model for labels and scores; two workers, each with its logits and their weights of 32 tokens
assert (t["params_bytes"], t["workers"]) == (2 * n, 2) and t["worker_bytes"] > workspace + 8 * 32 * V and t["fits"] is None, t
assert t["total_bytes"] == 2 * n + 2 * t["worker_bytes"]
if len(sys.argv) == 1:			# sizes that are just enough and just too little, in GiB
    print((total + context + 1000) / gib, (total + context - 1000) / gib, (m["masters_bytes"] + context) / gib,
          (total + t["total_bytes"] + 2 * context + 1000) / gib)
    sys.exit()
enough, less, none, both = map(plan, ("enough.json", "less.json", "none.json", "both.json"))
assert enough["memory"][0]["fits"] and enough["memory"][0]["fits_with"] == {"micro_batch": 8, "recompute": False}
assert not enough["gpu"]["teacher"]["fits"] and both["gpu"]["teacher"]["fits"]
assert not less["memory"][0]["fits"] and less["memory"][0]["fits_with"] == {"micro_batch": 4, "recompute": False}, less["memory"]
assert not none["memory"][0]["fits"] and none["memory"][0]["fits_with"] is None
END
read -r enough less none both <<< "$(python3 gpu.py)"
for size in enough less none both; do
	gpu_plan --device-memory "${!size}" --json > $size.json
	gpu_plan --device-memory "${!size}" > $size.txt
done
python3 gpu.py compare || fail "a GPU's memory"
grep -q '^a rank, R = 1  *fits: ' enough.txt && grep -q '^a teacher  *does not fit: .*; teacher.threads: 1 does$' enough.txt && grep -q '^both on one GPU  *do not fit: ' enough.txt || fail "enough: $(grep -A 5 '^GPU' enough.txt)"
grep -q '^a rank, R = 1  *does not fit: .* with trainer.micro_batch: 4 it does$' less.txt || fail "too little: $(grep -A 5 '^GPU' less.txt)"
grep -q '^a rank, R = 1  *does not fit: .* no trainer.micro_batch: more ranks' none.txt || fail "far too little: $(grep -A 5 '^GPU' none.txt)"
grep -q '^a teacher  *fits: ' both.txt && grep -q '^both on one GPU  *fit: ' both.txt || fail "both: $(grep -A 5 '^GPU' both.txt)"
gpu_plan | grep -q '^GPU  *none found; give --device-memory GIB' || fail "no GPU here"
# auto: a GPU if its memory is given, else the CPU
ctl plan -c f.yaml --device-memory 80 | grep -q '^a rank, R = 1  *fits: ' || fail "auto with a GPU's memory"
! ctl plan -c f.yaml | grep -q GPU || fail "a GPU without being asked: $(ctl plan -c f.yaml)"

# The processors that are found: those of the affinity mask, unless a cgroup allows fewer.
first=$(python3 -c 'import os; print(min(os.sched_getaffinity(0)))')
taskset -c "$first" timeout 60 "$BIN/saltctl" plan -c f.yaml --json > machine.json || fail "plan on one processor"
python3 -c '
import json, os
m = json.load(open("machine.json"))["machine"]
assert m["allowed"] == 1 and m["usable"] == 1 and m["processors"] == os.cpu_count() and m["numa_nodes"] >= 1 <= m["sockets"], m' || fail "machine of plan --json"
grep -Eq "^this machine +$(nproc --all) processor" text || fail "plan does not print the processors: $(cat text)"

# Errors name the bad input.
wrong() {
	local code=$1 pattern=$2 got=0
	shift 2
	ctl plan "$@" > out 2> err || got=$?
	[ "$got" = "$code" ] && grep -q -- "$pattern" err && [ ! -s out ] || fail "plan $*: $got, expected $code and \"$pattern\": $(cat err)"
}
wrong 64 'divide trainer.lanes (4), .* found "3"' -c f.yaml --ranks 1,3
wrong 64 'divide trainer.lanes (4), .* found "8"' -c f.yaml --ranks 8
wrong 64 'found "x"' -c f.yaml --ranks x
wrong 66 'nowhere' -c f.yaml --set trainer.model=nowhere
wrong 66 'nowhere' -c f.yaml --set teacher.model=nowhere
wrong 66 'nowhere' -c f.yaml --measured nowhere
wrong 65 'net.json: expected a trainer.s metrics' -c f.yaml --measured net.json
wrong 66 'nowhere' -c f.yaml --network nowhere
echo '{"latency_seconds": -1, "bytes_per_second": 5}' > bad.json
wrong 65 'bad.json: expected latency_seconds' -c f.yaml --network bad.json
wrong 64 'go together' -c f.yaml --latency 1e-6
wrong 64 'give one of' -c f.yaml --measure --measured run1
wrong 64 'a power of two' -c f.yaml --ranks-per-host 3
wrong 78 'corpus.context: expected at most 32' -c f.yaml --set corpus.context=64
wrong 78 'trainer.batch: expected a multiple of the lanes' -c f.yaml --set trainer.batch=6 --set trainer.micro_batch=2
wrong 64 'expected cuda or auto' -c f.yaml --device-memory 80 --set compute.backend=openblas
wrong 64 'device-memory' -c f.yaml --device-memory 0
wrong 64 'give -c fleet.yaml'
