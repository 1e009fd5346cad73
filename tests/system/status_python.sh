# SPDX-License-Identifier: Apache-2.0
# The Python program of docs/monitoring.md, taken from the page, asks a real daemon, and reports one that was killed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
python=
for p in python3 /usr/bin/python3; do
	"$p" -c 'import zmq' 2> /dev/null && python=$p && break
done
[ -n "$python" ] || { echo "SKIP: no python3 with pyzmq here (Debian's package python3-zmq)"; exit 77; }
cd "$scratch"
sed -n '/^```python$/,/^```$/p' "$SOURCE/docs/monitoring.md" | sed '1d;$d' > status.py
[ "$(grep -c . status.py)" = 9 ] || fail "not the lines that were looked for: $(cat status.py)"
small_corpus
small_model "$scratch/student" -
small_fleet fleet.yaml "$(free_port)"
start trainer timeout 100 "$BIN/trainerd" -c fleet.yaml --set phase_one.steps=0 --set selector.mode=none --set trainer.steps=1000000 --set trainer.checkpoint_every=0
until_line run/metrics.jsonl '"kind":"step","step":3,' 30
timeout 20 "$python" status.py run/daemons/*.json > out 2>&1 || fail "status.py: $(cat out)"
grep -qE "^trainerd-0 (training|evaluating) [0-9]+ \{'tokens_per_s': [0-9.]+\}$" out || fail "status.py said: $(cat out)"
kill -9 "$(pgrep -P "$trainer")"
wait "$trainer" || true
timeout 20 "$python" status.py run/daemons/*.json > out 2>&1 || fail "status.py of a dead daemon: $(cat out)"
grep -qx 'run/daemons/trainerd-0.json no answer None None' out || fail "status.py said of a dead daemon: $(cat out)"
