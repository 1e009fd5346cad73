# SPDX-License-Identifier: Apache-2.0
# A full disk: selectord accepts no more results, serves the rows it has, reports the state in log and status, and continues when there is space.
# Everything acknowledged is in the cache, and in the end its content is that of a cache on a large disk. Its map of 1 MiB grows meanwhile.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
small_disk_or_skip

small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)"
echo 'compute: {dtype: fp32}' >> f.yaml
small_teachers f.yaml
# Two plans on one cache: the trainer's plan is small and fits the disk, that of `saltctl label` does not.
sed -i 's/^labels.*/labels: {kind: sampled, samples: 50, seed: 7}/; s/map_size: 64MiB/map_size: 1MiB/; s/keep_share: 0.5/keep_share: 1/' f.yaml
large=(--set run.seed=4 --set phase_one.steps=200 --set trainer.steps=200 --set selector.label_ahead_steps=all)

# status: selectord's, as JSON.
status() {
	timeout 5 "$BIN/saltctl" status -c f.yaml --json 2> /dev/null || true
}

# The final size on a disk with enough space.
start selectord "$BIN/selectord" -c f.yaml --set cache.dir=roomy
start teacherd "$BIN/teacherd" -c f.yaml
timeout 60 "$BIN/saltctl" label -c f.yaml > label.log 2>&1 || fail "saltctl label: $(tail -1 label.log)"
timeout 100 "$BIN/saltctl" label -c f.yaml "${large[@]}" > label.log 2>&1 || fail "saltctl label of much: $(tail -1 label.log)"
stop TERM $selectord $teacherd
grep -q 'event=cache.map_grown' selectord.log || fail "a map of 1 MiB did not grow: $(tail -3 selectord.log)"
"$BIN/cache_dump" roomy 3000 > roomy.dump
[ "$(grep -c ^label roomy.dump)" -gt 1200 ] || fail "only $(grep -c ^label roomy.dump) labels: not enough to fill a disk"
bytes=$(stat -c %s roomy/data.mdb)

# The same on a disk of half that size.
mkdir small
unshare -m bash -c '
	mount -t tmpfs -o size="$2" tmpfs small || exit 99
	"$1/selectord" -c f.yaml --set cache.dir=small/cache > full.log 2>&1 &
	selectord=$!
	trap "kill -KILL $selectord; exit 1" TERM
	echo $selectord > full.pid
	when() { until [ -e "$1" ]; do sleep 0.05; done; }
	when copy
	cp -r small/cache full.copy
	echo > copied
	when room
	mount -o remount,size=1g small
	when over
	kill -TERM $selectord
	wait $selectord
	echo "exit $?" > full.exit
	cp -r small/cache small.end
' disk "$BIN" "$((bytes / 2))" &
disk=$!
until_line full.log event=start
start teacherd "$BIN/teacherd" -c f.yaml
timeout 60 "$BIN/saltctl" label -c f.yaml > label.log 2>&1 || fail "saltctl label beside the disk that gets full: $(tail -1 label.log)"
start label "$BIN/saltctl" label -c f.yaml "${large[@]}"
until_line full.log 'event=disk.full|event=commit.no_room' 60
until_line full.log event=disk.full
grep -q 'event=disk.full.*leases=stopped rows=served' full.log || fail "disk.full: $(grep disk.full full.log)"
status > status.full
grep -q '"disk full"' status.full && grep -q 'no space in the cache' status.full || fail "status of a full disk: $(head -c 600 status.full)"
# served: a whole run, from the first row to its end
timeout 60 "$BIN/trainerd" -c f.yaml --set run.dir=run_full > train.log 2>&1 || fail "the trainer beside a full disk: $(tail -1 train.log)"
grep -q 'event=run.done steps=12' train.log || fail "the trainer beside a full disk: $(tail -1 train.log)"
! grep -q 'event=commit.room\|event=disk.room' full.log || fail "there was room before it was made"
kill -0 "$(cat full.pid)" || fail "selectord is gone"
# acknowledged results are those that the teacher has computed and no longer keeps; a lease has at most 8 sequences
timeout 5 "$BIN/saltctl" status -c f.yaml --json > status.teacher || true
metric() {
	python3 -c '
import json, sys
for d in json.load(open("status.teacher"))["daemons"]:
    if d["role"] == "teacherd":
        print(int(d[sys.argv[1]][sys.argv[2]]))' "$@"
}
computed=$(metric counters sequences_total) in_hand=$(metric queues leases_in_hand)
touch copy
until_line copied ''
"$BIN/saltctl" cache stat --cache full.copy --json > stat.json
number() {
	sed -n "/\"$1\": *{/,/}/s/.*\"records\": *\([0-9]*\).*/\1/p" stat.json | head -1
}
on_disk=$(($(number labels) + $(number scores)))
[ "$in_hand" -gt 0 ] && [ $on_disk -ge $((computed - 8 * in_hand)) ] ||
	fail "$on_disk records on the disk, $computed computed, $in_hand leases in hand"
"$BIN/cache_dump" full.copy 3000 > full.dump
[ -z "$(sort full.dump | comm -23 - <(sort roomy.dump))" ] || fail "records of the full disk that a roomy one does not have"
! cmp -s full.dump roomy.dump || fail "the disk was never full"

# With free space selectord continues by itself, and no record is missing.
touch room
until_line full.log 'event=commit.room|event=disk.room'
wait $label || fail "saltctl label over a full disk: $(tail -1 label.log)"
touch over
wait $disk || fail "the disk's shell: $?"
[ "$(cat full.exit)" = "exit 0" ] || fail "selectord ended with $(cat full.exit)"
stop TERM $teacherd
"$BIN/cache_dump" small.end 3000 > end.dump
same roomy.dump end.dump "after the disk was full"
