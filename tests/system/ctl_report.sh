# SPDX-License-Identifier: Apache-2.0
# report and ledger on metrics files made here, so that every figure is known.
. "$(dirname "$0")/lib.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
# run NAME LAST LOSSES [SWITCH]: evaluations at steps 2, 4, ...; 0.5 s a step; phase one: 100 tokens with 250 label bytes a step.
run() {
	local name=$1 last=$2 switch=${4-0} step=0 kd loss
	mkdir -p "$name"
	: > "$name/metrics.jsonl"
	for loss in $3; do
		for i in 1 2; do
			step=$((step + 1))
			kd=0
			[ $step -gt "$switch" ] || kd=100
			echo "{\"kind\":\"step\",\"step\":$step,\"phase\":2,\"loss\":9,\"hard\":$loss,\"lr\":0.001,\"kd_tokens\":$kd,\"label_bytes\":$((kd * 5 / 2)),\"seconds\":$((step / 2)).$((step % 2 * 5)),\"wait_seconds\":0.25}" >> "$name/metrics.jsonl"
		done
		echo "{\"kind\":\"eval\",\"step\":$step,\"loss\":$loss,\"accuracy\":0.25,\"bits_per_byte\":1.5,\"tokens\":9,\"teacher_loss\":null,\"seconds\":1}" >> "$name/metrics.jsonl"
		[ $step != "$switch" ] || echo "{\"kind\":\"event\",\"step\":$step,\"event\":\"switch\",\"rows_seen_again\":7}" >> "$name/metrics.jsonl"
	done
	cat > "$name/fleet.yaml" <<END
run: {dir: ., seed: 1}
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
mkdir small big		# two ways to a model are one model
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

# The baseline by name; teacher seconds out of a saved status; names that want escaping.
ctl report --run other --run base --baseline base --json | grep -q '"verdict": "reached at step 6 of 8"' || fail "--baseline"
echo '{"daemons":[{"role":"teacherd","state_seconds":{"computing":2.5}},{"role":"selectord"},{"role":"teacherd","state_seconds":{"computing":1}}]}' > st.json
ctl report --run base --json --teacher-seconds st.json | grep -q '"teacher_seconds": 3.5' || fail "--teacher-seconds FILE"
ctl report --run '<b>&=base' --out e.html && grep -q '&lt;b&gt;&amp;' e.html && ! grep -q '<td><b>&' e.html || fail "names are not escaped"
mkdir base/ledger good/ledger
echo '{"role":"teacherd","name":"a","cpu_seconds":1.5}' > good/ledger/a-1.json
echo '{"role":"teacherd","name":"a","cpu_seconds":2}' > good/ledger/a-2.json
echo '{"role":"trainerd","name":"b","cpu_seconds":9}' > good/ledger/b-1.json
echo '{"role":"teach' > base/ledger/half.json
ctl report --run good --run base --out l.html --table | grep -q '^teacher seconds *3.5 (processor time, RUN/ledger)$' || fail "RUN/ledger"
grep -q 'Teachers computed for 3.5 s (processor time' l.html || fail "RUN/ledger is not in the page"
got=0; ctl report --run base --baseline nobody 2> err || got=$?
[ $got = 64 ] && grep -q 'no run is named "nobody"' err || fail "--baseline nobody: $got $(cat err)"

# Half a last line is a run being written; a line of something else is counted; nothing of ours is an error.
cp -r base half
printf '{"kind":"step","st' >> half/metrics.jsonl
ctl report --run half --json 2> err | grep -q '"last_step": 8' && [ ! -s err ] || fail "half a line: $(cat err)"
echo 'what is this' >> base/metrics.jsonl
ctl report --run base 2> err > /dev/null && grep -q '1 lines' err || fail "a bad line: $(cat err)"
mkdir empty && : > empty/metrics.jsonl
got=0; ctl report --run empty 2> err || got=$?
[ $got = 65 ] && grep -q "empty/metrics.jsonl: expected a trainer's metrics" err || fail "no metrics: $got $(cat err)"
# A page is only replaced by a whole one.
echo old > keep.html
got=0; ctl report --run empty --out keep.html 2> /dev/null || got=$?
[ "$(cat keep.html)" = old ] || fail "a failed report replaced the old one"

ctl ledger --run good --run base --json > l.json
python3 - <<'END'
import json
good, base = json.load(open("l.json"))
assert (good["steps"], good["tokens"], good["labelled_tokens"], good["label_bytes"]) == (8, 8 * 8 * 32, 400, 1000), good
assert (good["train_seconds"], good["wait_seconds"], good["flops"]) == (4.0, 2.0, None), good
assert base["label_bytes"] == 0, base
END
