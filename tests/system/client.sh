# SPDX-License-Identifier: Apache-2.0
# Trainers of libsaltfleet with real selectord (two shards) and teacherd: they get the same rows and label bytes as trainerd's feed and as the cache
# holds, also when selectord is killed; errors name their cause; phase two needs no other process; the example runs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)" "$(free_port)"
small_teachers f.yaml

# daemons NAME [OPTION...]: starts both shards and a teacher, on the cache of that name.
daemons() {
	local name=$1
	shift
	start selectord0 "$BIN/selectord" -c f.yaml --shard 0 --set cache.dir="cache_$name" "$@"
	start selectord1 "$BIN/selectord" -c f.yaml --shard 1 --set cache.dir="cache_$name" "$@"
	start teacherd "$BIN/teacherd" -c f.yaml "$@"
}
no_daemons() {
	stop TERM $selectord0 $selectord1 $teacherd
}
long=(trainer.steps=16 phase_one.steps=12)
set_long=(--set trainer.steps=16 --set phase_one.steps=12)

# The same bits as trainerd's feed; one shard is killed during the run and restarted.
daemons sampled "${set_long[@]}"
PAUSE=5 start same "$BIN/client_feed" f.yaml same "${long[@]}"
until_line same.log '^paused'
stop KILL $selectord1
start selectord1 "$BIN/selectord" -c f.yaml --shard 1 --set cache.dir=cache_sampled "${set_long[@]}"
touch go
wait $same || fail "same: $(tail -5 same.log)"
grep -q 'checks, 0 failures' same.log || fail "same: $(tail -5 same.log)"

# The bytes of every record are those of the cache.
"$BIN/client_feed" f.yaml rows 0 "${long[@]}" > all.rows || fail "rows"
[ "$(wc -l < all.rows)" = 128 ] || fail "rows: $(wc -l < all.rows) lines"
grep -q '^row 11 ' all.rows && [ "$(awk '$2 < 12 && $4 == "-"' all.rows)" = "" ] || fail "a row of phase one without label"
[ "$(awk '$2 >= 12 && $4 != "-"' all.rows)" = "" ] || fail "a row of phase two with a label"

# Errors name their cause, and occur at the first row, not later.
bad() {				# WHAT EXIT-CODE PATTERN COMMAND...
	local what=$1 code=$2 pattern=$3 rc=0
	shift 3
	timeout 60 "$@" > bad.out 2>&1 || rc=$?
	[ $rc = "$code" ] && grep -qE -- "$pattern" bad.out || fail "$what: exit code $rc, expected $code and \"$pattern\": $(tail -2 bad.out)"
}
bad "other labels" 78 'SALT_MISMATCH 78 label_set\.samples.*expected 8, found 9' "$BIN/client_feed" f.yaml rows 0 labels.samples=9
bad "other corpus" 78 'SALT_MISMATCH 78 corpus\.' "$BIN/client_feed" f.yaml rows 0 corpus.train="$scratch/held"
bad "other shards" 78 'SALT_MISMATCH 78 selector\.endpoints.*shard 0 of 1.*shard 0 of 2' \
	"$BIN/client_feed" f.yaml rows 0 selector.endpoints="[$(sed -n 's/.*endpoints: \["\([^"]*\)".*/\1/p' f.yaml)]"
bad "small vocabulary" 78 'SALT_MISMATCH 78 .*4000' env VOCAB=4000 "$BIN/client_feed" f.yaml rows 0
no_daemons
bad "nobody" 75 'SALT_TIMEOUT 75 .*step 0' env WAIT_MS=300 "$BIN/client_feed" f.yaml rows 0
grep -q 'connecting to tcp' bad.out || fail "nobody: $(cat bad.out)"

for shard in 0 1; do
	"$BIN/cache_dump" "cache_sampled/shard_$shard" 4000
done | awk '$1 == "label" { print $2, $4 }' > cache.labels
awk 'NR == FNR { have[$1] = $2; next } $2 < 12 && have[$3] != $4 { print; n++ } END { exit n > 0 }' cache.labels all.rows ||
	fail "records that the cache has otherwise"

# Phase two needs no other process, also after a restart in phase two.
"$BIN/client_feed" f.yaml rows 13 "${long[@]}" > two.rows || fail "phase two alone"
same two.rows <(awk '$2 >= 13' all.rows) "phase two after a restart"

# Other kinds of labels; the example; teachers are released at the switch.
daemons topk --set labels.kind=topk --set labels.k=12
"$BIN/client_feed" f.yaml same labels.kind=topk labels.k=12 > topk.log 2>&1 || fail "topk: $(tail -3 topk.log)"
no_daemons
daemons dense --set labels.kind=dense --set selector.mode=none
"$BIN/client_feed" f.yaml same labels.kind=dense selector.mode=none > dense.log 2>&1 || fail "dense: $(tail -3 dense.log)"
no_daemons
daemons example
timeout 60 "$BIN/example_trainer" f.yaml > example.log 2>&1 || fail "example: $(tail -3 example.log)"
[ "$(grep -c '^step .* phase 1 ' example.log)" = 6 ] && [ "$(grep -c '^step .* phase 2 ' example.log)" = 6 ] || fail "example: $(cat example.log)"
awk '/phase/ { loss[++n] = $6 } END { exit !(loss[6] < loss[1] - 0.5) }' example.log || fail "example: it did not learn: $(cat example.log)"
until_gone $teacherd 20
grep -q 'event=released reason="plans released"' teacherd.log || fail "teacherd was not released: $(tail -2 teacherd.log)"
stop TERM $selectord0 $selectord1
