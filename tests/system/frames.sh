#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# frames.sh [COUNT SEED] - mutated frames from peers that a selectord accepts (frames.c), without keys and with them: selectord keeps running, other
# peers are served, its memory stays within bounds, and its log does not grow without bound. Prints the lines of frames.c, which tests/torture/frames
# reads.
. "$SOURCE/tests/system/lib.sh"
count=${1:-4000} seed=${2:-1}
cd "$scratch"
"$BIN/fakes" files .
mkdir home
cat > fleet.yaml <<YAML
run: {dir: run, seed: 1}
corpus: {train: train, heldout: held, context: 16}
cache: {dir: cache, map_size: 1GiB}
teacher: {model: model}
labels: {kind: sampled, samples: 4}
selector: {endpoints: ["ipc://$scratch/data"], lease_s: 2, lease_sequences: 4, commit_ms: 5, teacher_idle_s: 0}
status: {bind: "ipc://$scratch/status"}
YAML
"$BIN/saltctl" keygen keys > /dev/null

for keys in "" keys=keys; do
	set=(${keys:+--set security.curve_dir=keys})
	rm -rf cache run
	"$BIN/selectord" -c fleet.yaml ${set[@]+"${set[@]}"} 2> log &
	selectord=$!
	for ((i = 0; i < 100; i++)); do [ -e run/daemons/selectord.json ] && break; sleep 0.1; done
	timeout 3000 "$BIN/frames" "ipc://$scratch/data" . "$count" "$seed" "$selectord" $keys > line 2> errors ||
	    { tail -n 5 errors log >&2; fail "frames ${keys:-without keys}"; }
	cat line
	kill -0 "$selectord" || fail "selectord ended: $(tail -1 log)"
	most=$(sed 's/.*rss_most \([0-9]*\).*/\1/' line)
	[ "$most" -lt 400 ] || fail "$most MiB"
	! grep -q share_min.0.0 line || fail "other peers were not served: $(cat line)"
	[ "$(grep -c 'event=frame.bad\|event=message.refused' log)" -le $(($(wc -l < log) / 2 + 200)) ] || fail "the log is full of bad frames"
	! grep -q "$(printf '\033')" log || fail "escapes in the log"
	kill -TERM "$selectord"
	wait "$selectord" || fail "SIGTERM: exit $?"
	grep -q 'event=log.left_out' log || fail "nothing was left out of the log"
done
