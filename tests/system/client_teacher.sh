#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A teacher of libsaltfleet (client/examples/teacher.c) on a real selectord: alone, beside teacherd on one cache, killed, stopped by SIGTERM, over a
# restart of selectord; refused with another class, model or vocabulary. trainerd trains on its labels.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"
class=fp32/any

small_corpus
small_model teacher 1
small_model scorer 2
small_model student -
small_fleet fleet.yaml "$(free_port)"
sed -i "s|teacher: {|teacher: {compute_class: $class, |; s|lease_sequences: 8|lease_sequences: 4, lease_s: 3, teacher_idle_s: 0|" fleet.yaml
# one model scores and labels, with one pass for both
sed "s|scorer: $scratch/scorer|scorer: $scratch/teacher|; s|dir: cache|dir: cache_one|; s|dir: run|dir: run_one|" fleet.yaml > one.yaml

# refused CODE PATTERN COMMAND...: the command ends with CODE, and a line of its output matches PATTERN
refused() {
	local code=$1 pattern=$2 status=0
	shift 2
	timeout 30 "$@" > refused.log 2>&1 || status=$?
	[ $status = "$code" ] && grep -qE -- "$pattern" refused.log || fail "$*: exit $status, expected $code and \"$pattern\": $(cat refused.log)"
}

# ---- alone: every sequence of phase one, scores and labels; drained by SIGTERM
start selectord "$BIN/selectord" -c one.yaml
until_line selectord.log event=identity
start first "$BIN/example_teacher" one.yaml teacher 4096 first
ctl label -c one.yaml --wait-max 60 > label.txt || fail "label: $(cat label.txt)"
grep -q "48 of 48 rows" label.txt || fail "rows: $(cat label.txt)"
ctl status -c one.yaml > status.txt || fail "status"
grep -q "first" status.txt || fail "status does not show the teacher: $(cat status.txt)"
kill -TERM $first
status=0
wait $first || status=$?
[ $status = 0 ] && grep -qE "^[0-9]+ sequences, 0 not confirmed" first.log || fail "SIGTERM: exit $status: $(cat first.log)"
n=$(grep -oE "^[0-9]+" first.log)
[ "$n" -ge 96 ] || fail "48 of 96 sequences were chosen, and $n computed"
# its cost is in the run's ledger, as for teacherd
python3 - "$n" run_one/ledger/first-*.json <<- 'EOF' || fail "ledger: $(cat run_one/ledger/*)"
	import json, sys
	a = json.load(open(sys.argv[2]))
	assert a["role"] == "teacherd" and a["name"] == "first" and a["sequences"] == int(sys.argv[1]) and a["tokens"] % a["sequences"] == 0, a
	assert 0 < a["cpu_seconds"] < 60 and a["up_seconds"] > 0, a
EOF
! grep -qE "level=(warn|error)" selectord.log || fail "selectord complains: $(grep -E 'level=(warn|error)' selectord.log | head -3)"
ctl cache fsck -c one.yaml > fsck.txt 2>&1 || fail "fsck: $(tail -3 fsck.txt)"

# ---- refused: another class, another model, another vocabulary
sed "s|$class|bf16/other|" one.yaml > other.yaml
sed "s|compute_class: $class, ||" one.yaml > auto.yaml
refused 78 "models.compute_class: .*expected $class, found bf16/other" "$BIN/example_teacher" other.yaml teacher 4096
refused 78 "teacher.compute_class: expected a name" "$BIN/example_teacher" auto.yaml teacher 4096
refused 78 "models.fingerprint: " "$BIN/example_teacher" one.yaml scorer 4096
refused 78 "models.vocab_size: .*at least 4096.*found 4000" "$BIN/example_teacher" one.yaml teacher 4000
refused 66 "nowhere" "$BIN/example_teacher" one.yaml nowhere 4096
stop TERM $selectord

# ---- beside teacherd on one cache, scores and labels of two models; kill -9 of a teacher, selectord restarts; trainerd trains meanwhile
start selectord "$BIN/selectord" -c fleet.yaml
start second "$BIN/example_teacher" fleet.yaml teacher 4096 second
start trainerd "$BIN/trainerd" -c fleet.yaml
until_line selectord.log 'peer.welcome .*name=second'
start teacherd "$BIN/teacherd" -c fleet.yaml
until_line teacherd.log 'lease.first'
kill -9 $second
wait $second 2> /dev/null || true
start third "$BIN/example_teacher" fleet.yaml teacher 4096 third
kill -9 $selectord
wait $selectord 2> /dev/null || true
start selectord "$BIN/selectord" -c fleet.yaml
status=0
wait $trainerd || status=$?
[ $status = 0 ] || fail "trainerd: exit $status: $(tail -3 trainerd.log)"
python3 - <<'END'
import json
steps = {}
for line in open("run/metrics.jsonl"):
    j = json.loads(line)
    if j["kind"] == "step":
        steps[j["step"]] = j
assert sorted(steps) == list(range(1, 13)), sorted(steps)
assert all(steps[s]["label_bytes"] > 0 for s in range(1, 7)), "phase one without labels"
assert not any(j.get("quarantined_rows") for j in steps.values()), "quarantined"
END
# both are released at the switch and end by themselves
status=0
wait $third || status=$?
[ $status = 0 ] && grep -qE "^[0-9]+ sequences, 0 not confirmed" third.log || fail "released: exit $status: $(cat third.log)"
status=0
wait $teacherd || status=$?
[ $status = 0 ] || fail "teacherd: exit $status: $(tail -1 teacherd.log)"
stop TERM $selectord
ctl cache fsck -c fleet.yaml > fsck.txt 2>&1 || fail "fsck: $(tail -3 fsck.txt)"
echo "client_teacher: passed"
