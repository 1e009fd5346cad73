# SPDX-License-Identifier: Apache-2.0
# report and ledger on metrics files made here, so that every figure is known.
. "$(dirname "$0")/lib.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
# run NAME LAST LOSSES SWITCH MODEL [SEED [SECONDS]]: writes the files of a run with evaluations at steps 2, 4, ..., 0.5 s (or SECONDS) for each step,
# and in phase one 100 tokens with 250 label bytes for each step.
run() {
	local name=$1 last=$2 switch=${4-0} step=0 kd loss
	mkdir -p "$name"
	: > "$name/metrics.jsonl"
	for loss in $3; do
		for i in 1 2; do
			step=$((step + 1))
			kd=0
			[ $step -gt "$switch" ] || kd=100
			echo "{\"kind\":\"step\",\"step\":$step,\"phase\":2,\"loss\":9,\"hard\":$loss,\"lr\":0.001,\"kd_tokens\":$kd,\"label_bytes\":$((kd * 5 / 2)),\"seconds\":$(awk "BEGIN {print $step * ${7-0.5}}"),\"wait_seconds\":0.25}" >> "$name/metrics.jsonl"
		done
		echo "{\"kind\":\"eval\",\"step\":$step,\"loss\":$loss,\"accuracy\":0.25,\"bits_per_byte\":1.5,\"tokens\":9,\"teacher_loss\":null,\"seconds\":1}" >> "$name/metrics.jsonl"
		[ $step != "$switch" ] || echo "{\"kind\":\"event\",\"step\":$step,\"event\":\"switch\",\"rows_seen_again\":7}" >> "$name/metrics.jsonl"
	done
	cat > "$name/fleet.yaml" <<END
run: {dir: ., seed: ${6-1}}
corpus: {train: t, context: 32}
trainer: {model: ../$5, steps: $last, batch: 8}
END
	[ "$switch" = 0 ] || cat >> "$name/fleet.yaml" <<END
cache: {dir: c}
teacher: {model: slm}
phase_one: {steps: $switch}
selector: {endpoints: ["tcp://127.0.0.1:5750"]}
END
}
mkdir small big		# two paths to a model are one model
run slm 6 "5.5 5.25 5.0" 0 small
run base 8 "5 4.5 4.25 4.125" 0 big
run good 8 "5 4.25 4.0 3.5" 4 big
run equal 8 "5 4.5 4.25 4.125" 4 big
run bad 8 "5 4.5 4.25 4.1251" 4 big
run late 8 "5 4.5" 4 big			# has not finished
run other 6 "5 4.5 4.0" 4 big			# other steps than the baseline's
all="--run slm --run BASE=base --run good --run equal --run bad --run late/ --run other"
ctl report $all --json > r.json
ctl report $all --out r.html --table --teacher-seconds 12.5 > table
python3 - <<'END'
import json
r = json.load(open("r.json"))
runs = {x["name"]: x for x in r["runs"]}
c = {x["run"]: x for x in r["comparisons"]}
def want(got, expected, what):
    assert got == expected, f"{what}: {got}, expected {expected}"
want(sorted(runs), ["BASE", "bad", "equal", "good", "late", "other", "slm"], "names")
want(runs["slm"]["mode"], "baseline", "mode")
want(runs["good"]["mode"], "salt", "mode")
want(runs["slm"]["last"], {"step": 6, "log_perplexity": 5.0, "accuracy": 0.25, "bits_per_byte": 1.5, "seconds": 3.0}, "last")
want(runs["good"]["at_switch"]["log_perplexity"], 4.25, "switch")
want(runs["good"]["label_bytes_per_token"], 2.5, "label bytes")
want(runs["good"]["wait_seconds"], 2.0, "waited")
want(runs["BASE"]["label_bytes_per_token"], None, "no labels")
want(runs["late"]["finished"], False, "finished")
want(sorted(c), ["bad", "equal", "good", "late", "other"], "comparisons")
want(c["good"]["target_log_perplexity"], 4.125, "target")
want((c["good"]["reached"], c["good"]["reached_at"]["step"], c["good"]["reached_at"]["seconds"]), (True, 6, 3.0), "good")
want((c["equal"]["reached"], c["equal"]["reached_at"]["step"]), (True, 8), "equal counts as reached")
want((c["bad"]["reached"], c["bad"]["reached_at"], c["bad"]["verdict"]), (False, None, "not reached"), "bad")
want((c["late"]["reached"], c["late"]["verdict"]), (None, "not reached so far"), "late")
want((c["other"]["baseline"], c["other"]["reached"]), (None, None), "other steps")
want(r["teacher_seconds"], None, "teacher seconds")
html = open("r.html").read()
for word in ("http", "<script", "<img", "<link", "@import", "nan", "inf"):
    assert word not in html.replace("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">", "").lower(), word
assert html.count("<figure>") == 3 and "not reached" in html and "Teachers computed for 12.5 s" in html
END
grep -q 'reached at step 6 of 8 (log-perplexity 4.1250)' table || fail "table: $(cat table)"
grep -q '^ *baseline.s final loss *not reached (log-perplexity 4.1250)$' table || fail "table has no plain \"not reached\": $(cat table)"
grep -q '^teacher seconds *12.5 (as given)$' table || fail "teacher seconds: $(cat table)"

# Choices of the last evaluation; losses on thirds by the teacher's loss: 6 sequences that all files have, so two in each third.
sed -i '$ s/}$/,"choices":{"blimp":{"kind":"pairs","items":4,"accuracy":0.75,"accuracy_se":0.25,"sets_mean":0.5,"sets_mean_se":0.125,"log_probability":-3.5}}}/' good/metrics.jsonl
losses() { python3 -c 'import sys; [print("{\"sequence\": %d, \"loss\": %s}" % (i, x)) for i, x in enumerate(sys.argv[1:])]' "$@"; }
losses 5 1 2 6 4 3 9 > teacher.jsonl			# the order is 1 2 | 5 4 | 0 3
losses 10 20 30 40 50 60 > base/sequence_losses.jsonl
losses 1 2 3 4 5 7 9 > good/sequence_losses.jsonl
ctl report --run base --run good --run bad --teacher-losses teacher.jsonl --json > r.json
ctl report --run base --run good --run bad --teacher-losses teacher.jsonl --out r.html --table > table
python3 - <<'END'
import json
r = json.load(open("r.json"))
runs = {x["name"]: x for x in r["runs"]}
def thirds(o):
    return [o[k]["log_perplexity"] for k in ("easy", "medium", "hard")]
assert thirds(runs["base"]["by_teacher_loss"]) == [25, 55, 25], runs["base"]
assert thirds(runs["good"]["by_teacher_loss"]) == [2.5, 6, 2.5], runs["good"]
assert thirds(r["teacher_by_loss"]) == [1.5, 3.5, 5.5], r["teacher_by_loss"]
assert runs["base"]["by_teacher_loss"]["easy"]["se"] == 5 and runs["bad"]["by_teacher_loss"] is None
assert runs["good"]["choices"]["blimp"]["accuracy"] == 0.75 and runs["good"]["choices"]["blimp"]["sets_mean"] == 0.5 and runs["base"]["choices"] == {}
html = open("r.html").read()
assert "75.00 % +- 25.00" in html and "<td>good</td><td>2.5000 +- 0.5000</td>" in html
END
grep -q '^good *blimp *pairs *4 *75.00 % +- 25.00 *- *50.00 % +- 12.50 *-3.500$' table || fail "choices in the table: $(cat table)"
grep -q '^the teacher *1.5000 +- 0.5000 *3.5000 +- 0.5000 *5.5000 +- 0.5000$' table || fail "thirds in the table: $(cat table)"
grep -q '^bad *- *- *-$' table || fail "a run without losses: $(cat table)"
losses 1 2 > teacher.jsonl
echo '{"sequence": 1, "loss": 3}' >> teacher.jsonl
got=0; ctl report --run base --teacher-losses teacher.jsonl > /dev/null 2> err || got=$?
[ $got = 65 ] && grep -q 'sequence 1 twice' err || fail "a sequence twice: exit code $got: $(cat err)"

# The baseline by name; teacher seconds from a saved status; names that need escaping.
ctl report --run other --run base --baseline base --json | grep -q '"verdict": "reached at step 6 of 8"' || fail "--baseline"
echo '{"daemons":[{"role":"teacherd","state_seconds":{"computing":2.5}},{"role":"selectord"},{"role":"teacherd","state_seconds":{"computing":1}}]}' > st.json
ctl report --run base --json --teacher-seconds st.json | grep -q '"teacher_seconds": 3.5' || fail "--teacher-seconds FILE"
ctl report --run '<b>&=base' --out e.html && grep -q '&lt;b&gt;&amp;' e.html && ! grep -q '<td><b>&' e.html || fail "names are not escaped"
mkdir base/ledger good/ledger
echo '{"role":"teacherd","name":"a","cpu_seconds":1.5}' > good/ledger/a-1.json
echo '{"role":"teacherd","name":"a","cpu_seconds":2}' > good/ledger/a-2.json
echo '{"role":"trainerd","name":"b","cpu_seconds":9}' > good/ledger/b-1.json
echo '{"role":"teach' > base/ledger/half.json
echo '{"role":"teacherd","name":"c"}' > base/ledger/c-1.json
ctl report --run good --run base --out l.html --table 2> err | grep -q '^teacher seconds *3.5 (processor time, RUN/ledger)$' || fail "RUN/ledger"
grep -q 'base/ledger: 2 files cannot be read as a daemon.s' err || fail "a ledger without cpu_seconds: $(cat err)"
ctl report --run good --run other --out l.html 2> err && grep -q '^saltctl report: other: no teacher.s processor time in its ledger' err || fail "a run without a ledger: $(cat err)"
echo '{"daemons":[{"role":"teacherd","state_seconds":{"computing":2.5}},{"role":"teacherd","name":"t1","answered":false,"why":"no answer in time"}]}' > st.json
ctl report --run base --json --teacher-seconds st.json > out 2> err && grep -q '"teacher_seconds": 2.5' out && grep -q 'st.json: t1 did not answer, so its seconds are not counted' err ||
	fail "--teacher-seconds FILE without an answer: $(cat err)"
ctl report --run good --run base --out l.html
grep -q 'Teachers computed for 3.5 s (processor time' l.html || fail "RUN/ledger is not in the page"
got=0; ctl report --run base --baseline nobody 2> err || got=$?
[ $got = 64 ] && grep -q 'no run is named "nobody"' err || fail "--baseline nobody: $got $(cat err)"

# An incomplete last line means that the run is being written; a foreign line is counted; a file without any line of ours is an error.
cp -r base half
rm half/ledger/*.json
printf '{"kind":"step","st' >> half/metrics.jsonl
ctl report --run half --json 2> err | grep -q '"last_step": 8' && [ ! -s err ] || fail "half a line: $(cat err)"
echo 'what is this' >> base/metrics.jsonl
ctl report --run base 2> err > /dev/null && grep -q '1 lines' err || fail "a bad line: $(cat err)"
mkdir empty && : > empty/metrics.jsonl
got=0; ctl report --run empty 2> err || got=$?
[ $got = 65 ] && grep -q "empty/metrics.jsonl: expected a trainer's metrics" err || fail "no metrics: $got $(cat err)"
# A page is replaced only by a complete one.
echo old > keep.html
got=0; ctl report --run empty --out keep.html 2> /dev/null || got=$?
[ "$(cat keep.html)" = old ] || fail "a failed report replaced the old one"

# Seeds of one recipe, and complete shorter runs, have the same name. At the full length each seed is compared with its own baseline.
base=(0 4.0 4.2 4.1) long=(0 3.8 4.1 4.1) short=(0 4.1 4.3 4.2) seeds=()
for n in 1 2 3; do
	run "b$n" 8 "5 5 5 ${base[n]}" 0 big "$n"
	run "l$n" 8 "5 5 5 ${long[n]}" 4 big "$n"
	run "s$n" 6 "5 5 ${short[n]}" 4 big "$n"
	seeds+=(--run "BASELINE=b$n" --run "SALT=l$n" --run "SALT=s$n")
done
ctl report "${seeds[@]}" --json > seeds.json
ctl report "${seeds[@]}" --out seeds.html --table > seeds
python3 - <<'END'
import json, math, statistics
groups = {(g["name"], g["steps"]): g for g in json.load(open("seeds.json"))["seeds"]}
assert sorted(groups) == [("BASELINE", 8), ("SALT", 6), ("SALT", 8)], sorted(groups)
def want(got, values, what):
    mean, se = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    assert got["seeds"] == len(values) and abs(got["mean"] - mean) < 1e-9 and abs(got["standard_error"] - se) < 1e-9, f"{what}: {got}, expected {mean} {se}"
want(groups["BASELINE", 8]["log_perplexity"], [4.0, 4.2, 4.1], "baseline")
want(groups["SALT", 8]["log_perplexity"], [3.8, 4.1, 4.1], "salt")
want(groups["SALT", 8]["against_baseline"], [-0.2, -0.1, 0], "pairs of a seed")
want(groups["SALT", 6]["against_baseline"], [0.1, 0.1, 0.1], "shorter runs")
# From (6, short) to (8, long): the point at which the line reaches the baseline's loss.
want(groups["SALT", 8]["share_of_steps"], [(8 - 2 * 0.2 / 0.3) / 8, 7 / 8, 1], "share of the steps")
assert groups["SALT", 6]["share_of_steps"] is None and groups["BASELINE", 8]["against_baseline"] is None
END
grep -q 'SALT  *8  *3  *4.0000 +- 0.1000 .* -0.1000 +- 0.0577  *90.3 +- 5.0' seeds || fail "seeds: $(cat seeds)"
grep -q 'SALT seed 2, 8 steps against BASELINE seed 2, 8 steps' seeds && grep -q '90.3 +- 5.0' seeds.html || fail "labels of seeds: $(cat seeds)"
# A run counts as one seed.
got=0; ctl report --run S=b1 --run S=b2 --run S=./b1/ > out 2> err || got=$?
[ $got = 64 ] && grep -q 'b1 and ./b1/ are one folder, and would count as two seeds of S' err && [ ! -s out ] || fail "a run given twice: $got $(cat err)"
cp -r b1 again
ctl report --run S=b1 --run S=again > /dev/null 2> err || fail "a repeated run: $(cat err)"
grep -q 'b1 and again, both S, have the same run.seed 1; the standard errors take them for two seeds' err || fail "a repeated run is not named: $(cat err)"
ctl report --run S=b1 --run T=again 2> err > /dev/null && [ ! -s err ] || fail "two names: $(cat err)"
run fast 8 "5 4.25 4.0 3.5" 4 big 1 0.125
ctl report --run fast --run base | grep -q 'at equal speed  *3.00 s; the run made 4.00 times as many steps a second as base' || fail "unequal speeds: $(ctl report --run fast --run base)"

# At 1,280 pixels no table needs a scroll bar; curves are clipped at the frame of their chart.
python3 - <<'END'
import re
for chart in re.findall(r"<figure>.*?</figure>", open("seeds.html").read(), re.S):
    frame = re.search(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="none"', chart).groups()
    inner = re.search(r'<svg x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" viewBox="([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)">(.*?)</svg>', chart, re.S).groups()
    assert inner[:4] == frame and inner[4:8] == frame, (frame, inner[:8])
    assert inner[8].count('<path fill="none"') == chart.count('<path fill="none"') == 9, "curves outside of the inner svg"
END
if command -v chromium > /dev/null; then
	{ cat seeds.html; echo '<script>document.title = [...document.querySelectorAll(".wide")].map(e => e.scrollWidth - e.clientWidth).join(" ")</script>'; } > wide.html
	HOME=$scratch timeout 60 chromium --headless --no-sandbox --disable-gpu --window-size=1280,900 --dump-dom "file://$scratch/wide.html" > dom 2> /dev/null
	grep -q '<title>0 0 0</title>' dom || fail "tables at 1280 pixels: $(grep -o '<title>.*</title>' dom)"
else
	echo "not shown: the page at 1280 pixels (no chromium here)"
fi

ctl ledger --run good --run base --json > l.json
python3 - <<'END'
import json
good, base = json.load(open("l.json"))
assert (good["steps"], good["tokens"], good["labelled_tokens"], good["label_bytes"]) == (8, 8 * 8 * 32, 400, 1000), good
assert (good["train_seconds"], good["wait_seconds"], good["flops"]) == (4.0, 2.0, None), good
assert base["label_bytes"] == 0, base
END
