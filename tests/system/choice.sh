# SPDX-License-Identifier: Apache-2.0
# The rows that selectord chooses, through real daemons at 1, 2 and 4 shards, are those that a plain reference chooses from the stored scores: blocks
# and pools, with and without equal scores, also where the blocks outrun the corpus. With one model as teacher and scorer, each sequence takes one
# forward pass, not two. With SCORES_TORCH=PYTHON (tests/peers/choice_torch.py) S(x) is compared with PyTorch's as well.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)"
sed -i 's/^selector.*/selector: {mode: salt_ds, block: 32, keep_share: 0.5, k: 200, lease_sequences: 32, label_ahead_steps: all, commit_ms: 5}/
	s/^phase_one.*/phase_one: {steps: 10, weight: 0.667}/; $a compute: {dtype: fp32}' f.yaml
small_teachers f.yaml
check="python3 $SOURCE/tests/system/export_check.py"
windows=$("$BIN/saltctl" corpus info train --context 32 --json | tr -d ' ",' | sed -n 's/^windows:\([0-9]*\)$/\1/p')
[ "$windows" -gt 1000 ] || fail "windows of the corpus: $windows"

# plan NAME K KEEP WINDOW OPTION...: labels and exports the whole plan; its rows must be those of the reference.
plan() {
	local name=$1 k=$2 keep=$3 window=$4 hash
	shift 4
	timeout 100 "$BIN/saltctl" label "${fleet[@]}" --set selector.k="$k" --set selector.keep_share="$keep" "$@" > label.log 2>&1 ||
		fail "$name at $n shards: $(tail -1 label.log)"
	hash=$(sed -n 's/.*event=plan.opened plan=\([0-9a-f]*\).*/\1/p' shard0.log | tail -1)
	"$BIN/saltctl" cache export "${fleet[@]}" "ex_$name.$n" > /dev/null || fail "export"
	$check "ex_$name.$n" rows "$k" "$keep" "$window" 3 10 8 > want
	$check "ex_$name.$n" stored "$hash" | sed -n 1,80p > "rows_$name.$n"
	[ "$(wc -l < want)" = 80 ] || fail "$name: the reference has $(wc -l < want) rows"
	same want "rows_$name.$n" "$name at $n shards"
	same "rows_$name.1" "rows_$name.$n" "$name at 1 and at $n shards"
	$check "ex_$name.$n" bins "$k" "$keep" "$window" 3 10 8 > want_bins
	tenths=30
	until bins "$hash" > have_bins; cmp -s want_bins have_bins; do		# figures may be a second old
		[ $((tenths--)) -gt 0 ] || same want_bins have_bins "$name at $n shards, the histogram"
		sleep 0.1
	done
}
# bins HASH: the histogram of a plan in selectord's status, summed over shards.
bins() {
	timeout 20 "$BIN/saltctl" status "${fleet[@]}" --json > status.json || true	# the client that had the plan labelled has ended
	python3 - "$1" <<-'END'
	import json, sys
	scored, kept = [0] * 48, [0] * 48
	for d in json.load(open("status.json"))["daemons"]:
	    for p in d.get("plans", []):
	        if p["plan"] == sys.argv[1] and "scores" in p:
	            assert p["scores"]["bin_nats"] == 0.25
	            for to, part in (scored, "sequences"), (kept, "kept"):
	                for i, n in enumerate(p["scores"][part]):
	                    to[i] += n
	print("scored", *scored)
	print("kept", *kept)
	END
}
# ties NAME: number of rows that share the most frequent S.
ties() {
	cut -f4 "rows_$1.1" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1 }'
}
for n in 1 2 4; do
	ends=
	for ((i = 0; i < n; i++)); do
		ends="$ends${ends:+, }\"tcp://127.0.0.1:$(free_port)\""
	done
	fleet=(-c f.yaml --set "selector.endpoints=[$ends]" --set cache.dir="cache_$n" --set run.dir="run_$n")
	daemons=()
	for ((i = 0; i < n; i++)); do
		start "shard$i" "$BIN/selectord" "${fleet[@]}" --shard "$i"
		daemons+=($!)
	done
	start teacherd "$BIN/teacherd" "${fleet[@]}"
	daemons+=($teacherd)
	plan window 200 0.5 32 --set selector.block=32
	plan ties 2 0.3 40 --set selector.block=40		# with a teacher trained so little, most tokens are not among its first two ids, so medians are 0
	plan pool 200 0.25 600 --set selector.pool=600
	plan pool_ties 2 0.25 600 --set selector.pool=600
	plan epochs 200 0.04 $((windows * 3 / 4)) --set selector.block=$((windows * 3 / 4))
	stop TERM "${daemons[@]}"
done
[ "$(ties ties)" -ge 20 ] && [ "$(ties pool_ties)" -ge 20 ] || fail "no ties: $(ties ties), $(ties pool_ties)"

# One model: the number of scores at selectord, held-out ones included, equals the number of sequences that the teacher computed, and each sequence
# that is not held out has a label from the same pass.
fleet=(-c f.yaml --set "selector.endpoints=[tcp://127.0.0.1:$(free_port)]" --set cache.dir=cache_one --set run.dir=run_one --set teacher.scorer=teacher
	--set cache.keep_unselected=true)
start selectord "$BIN/selectord" "${fleet[@]}"
start teacherd "$BIN/teacherd" "${fleet[@]}"
timeout 100 "$BIN/saltctl" label "${fleet[@]}" > label.log 2>&1 || fail "one model: $(tail -1 label.log)"
stop TERM $teacherd $selectord
"$BIN/saltctl" cache stat --cache cache_one --json > stat.json
number() {
	sed -n "/\"$1\": *{/,/}/s/.*\"records\": *\([0-9]*\).*/\1/p" stat.json | head -1
}
passes=$(sed -n 's/.*"sequences": *\([0-9]*\).*/\1/p' run_one/ledger/*.json)
[ "$(number labels)" = 160 ] && [ "$passes" = $((160 + 8)) ] && [ "$(number scores)" = "$passes" ] ||
	fail "one model: $passes sequences computed, $(number scores) scores, $(number labels) labels"
[ -z "${SCORES_TORCH:-}" ] || "$SCORES_TORCH" "$SOURCE/tests/peers/scores_torch.py" ex_window.1 scorer train 200
