# SPDX-License-Identifier: Apache-2.0
# Two hundred daemons and twenty that hang: all are asked at once, so the hanging ones cost one timeout and do not delay the others.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
mkdir run
echo 'run: {dir: run}' > fleet.yaml
start stubs timeout 100 "$BIN/status_stubs" run 200 20
until_line stubs.log '^ready' 60
began=$(date +%s)
got=0
timeout 90 "$BIN/saltctl" status -c fleet.yaml --timeout 6 > out 2> err || got=$?
took=$(($(date +%s) - began))
[ $got = 69 ] || fail "status with silent daemons: exit code $got: $(cat err)"
[ "$(grep -c ' computing ' out)" = 200 ] || fail "of 200 that answer, $(grep -c ' computing ' out) are shown"
[ "$(grep -c 'NO ANSWER.*no answer in time' out)" = 20 ] || fail "of 20 that hang, $(grep -c 'NO ANSWER' out) are shown: $(grep -v computing out)"
grep -q '^20 of 220 do not answer' out || fail "$(tail -1 out)"
# The limit is one timeout, three times that for a busy machine. One after the other the daemons would take 120 s.
[ $took -lt 18 ] || fail "20 daemons that hang took $took s, at a time-out of 6 s"
stop TERM $stubs
echo "200 answers and 20 silent ones: $took s"
