# SPDX-License-Identifier: Apache-2.0
# label, status and cache stat with a real selectord and teacherd.
. "$(dirname "$0")/lib.sh"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
cd "$scratch"
for i in $(seq 1 400); do echo "The quick brown fox jumps over the lazy dog for the ${i}th time."; echo; done > text
ctl corpus build --tokenizer "$tok" --split-on blank-lines --out train --heldout-out heldout text > /dev/null
ctl model new --layers 1 --width 32 --heads 2 --context 32 --tokenizer "$tok" --weights 5 model > /dev/null
port=$((20000 + RANDOM % 20000))
cat > fleet.yaml <<END
run: {dir: run, seed: 1}
corpus: {train: train, heldout: heldout, context: 32}
cache: {dir: cache}
teacher: {model: model, threads: 1}
labels: {samples: 10}
selector: {endpoints: ["tcp://127.0.0.1:$port"], block: 16}
trainer: {model: model, steps: 8, batch: 8, threads: 1}
phase_one: {steps: 4}
END
mkdir run
code() { local got=0; "$@" > out 2> err || got=$?; echo $got; }

[ "$(code ctl label -c fleet.yaml --wait-max 0.5)" = 69 ] && grep -q 'no answer from selectord' out || fail "label without selectord: $(cat out err)"
[ "$(code ctl label -c fleet.yaml --set phase_one.steps=0)" = 78 ] && grep -q 'without a phase one' err || fail "label without phase one: $(cat out err)"

timeout 200 "$BIN/selectord" -c fleet.yaml 2> selectord.log &
[ "$(code ctl label -c fleet.yaml --no-wait)" = 0 ] && grep -q 'the plan is open' out || fail "label --no-wait: $(cat out err)"
[ "$(code ctl label -c fleet.yaml --wait-max 0.5)" = 75 ] && grep -q '^0 of 32 rows' out || fail "label without teachers: $(cat out err)"
[ "$(code ctl label -c fleet.yaml --set labels.tau=2)" = 78 ] && grep -q 'label_set.tau' err || fail "label with another tau: $(cat out err)"
"$BIN/teacherd" -c fleet.yaml --name teacher-a 2> teacherd.log &
teacher=$!
[ "$(code ctl label -c fleet.yaml --json)" = 0 ] && grep -q '"rows_ready": 32' out || fail "label: $(cat out err)"
[ ! -s err ] || fail "label says something where no terminal is: $(cat err)"

# selectord's figures may be a second old.
for i in $(seq 1 100); do
	[ "$(code ctl status -c fleet.yaml)" = 0 ] || fail "status: $(cat out err)"
	! grep -q '32 of 32 rows ready' out || break
	sleep 0.1
done
grep -q '^selectord  *selectord .* 32 of 32 ' out && grep -q '^teacherd  *teacher-a ' out || fail "status: $(cat out)"
grep -q '32 of 32 rows ready' out || fail "status shows no plan: $(cat out)"
ctl status -c fleet.yaml --json > status.json
python3 - status.json $teacher <<'END'
import json, sys
daemons = json.load(open(sys.argv[1]))["daemons"]
assert [d["role"] for d in daemons] == ["selectord", "teacherd"], daemons
assert all(d["answered"] for d in daemons), daemons
assert daemons[1]["pid"] == int(sys.argv[2]), daemons
END
# An announcement that cannot be read is reported.
printf '{"role": "teach' > run/daemons/half.json
[ "$(code ctl status -c fleet.yaml)" = 0 ] && grep -q '^saltctl status: .*run/daemons: 1 .json files are not what a daemon announces' err || fail "a damaged announcement: $(cat out err)"
rm run/daemons/half.json
# Without announcements: the teacher is in selectord's roster.
at=$(sed -n 's/.*"endpoint": "\(tcp[^"]*\)".*/\1/p' status.json | head -1)
[ "$(code ctl status --endpoint "$at")" = 0 ] && grep -q '^teacherd  *teacher-a ' out || fail "status by roster: $(cat out err)"

# report takes the teachers' seconds from a saved status.
[ "$(code ctl report --run nowhere --teacher-seconds status.json)" = 66 ] || fail "report"

ctl cache stat -c fleet.yaml --json > cache.json
python3 - cache.json heldout.bin train.bin <<'END'
import json, os, sys
c = json.load(open(sys.argv[1]))[0]
heldout, train = [(os.path.getsize(p) // 2 - 1) // 32 for p in sys.argv[2:]]
assert c["identity"]["context"] == "32" and c["identity"]["windows"] == str(train), c
assert c["tables"]["labels"]["records"] == 32, c
assert c["tables"]["scores"]["records"] == heldout, (c["tables"], heldout)		# the teacher scores the held-out windows
assert len(c["plans"]) == 1 and c["plans"][0]["rows"] == 32 and not c["plans"][0]["released"], c
assert c["quarantine"] == [], c
END
ctl cache stat --cache cache | grep -q '^covered  *32 labels' || fail "cache stat"

# A killed daemon: its announcement stays, and status shows it with the reason; the others are shown as before.
kill -9 $teacher
wait $teacher 2> /dev/null || true
[ "$(code ctl status -c fleet.yaml --timeout 1)" = 69 ] || fail "status with a dead teacher is not 69: $(cat out)"
grep -q '^teacherd  *teacher-a .*NO ANSWER.*its process has ended' out && grep -q '^1 of 2 do not answer' out || fail "a dead teacher: $(cat out)"
grep -q '^selectord .* 32 of 32 ' out || fail "a dead teacher hides the others: $(cat out)"
