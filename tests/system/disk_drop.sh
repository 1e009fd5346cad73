# SPDX-License-Identifier: Apache-2.0
# A disk full of labels that no plan needs: `saltctl cache drop` frees space inside the cache's file while selectord waits for it, and the waiting
# records are then stored. In the end the cache has the same content as one on a large disk.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
small_disk_or_skip

small_corpus
small_model "$scratch/teacher" 5
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)"
echo 'compute: {dtype: fp32}' >> f.yaml
sed -i 's/scorer: [^,]*, //; s/^labels.*/labels: {kind: sampled, samples: 50, seed: 7}/; s/map_size: 64MiB/map_size: 1MiB/
	s/mode: salt_ds/mode: none/; s/steps: 12/steps: 100/; s/^phase_one.*/phase_one: {steps: 100, weight: 0.667}/; s/eval_every: 6/eval_every: 0/' f.yaml
# Two plans, which share about half of their labels. The run of the first is over: no trainer will request its rows again.
other=(--set run.seed=4 --set run.dir=run_other)
second() {			# LOG of selectord. The teacher starts when the plan is open: if there were only released plans, it would be released.
	start label "$BIN/saltctl" label -c f.yaml "${other[@]}"
	until_line "$1" "event=plan.opened .*seed=4"
	start teacherd "$BIN/teacherd" -c f.yaml
}
first() {			# the teacher is released at the end
	start teacherd "$BIN/teacherd" -c f.yaml
	timeout 100 "$BIN/trainerd" -c f.yaml --set run.dir="run_$1" > train.log 2>&1 || fail "trainerd beside $1: $(tail -1 train.log)"
	wait $teacherd || fail "the teacher was not released: $(tail -1 teacherd.log)"
}
drop() {			# CACHE [COMMAND...]
	timeout 60 "${@:2}" "$BIN/saltctl" cache drop -c "$scratch/f.yaml" --set cache.dir="$scratch/$1" --released --write > drop.log 2>&1 || fail "saltctl cache drop: $(cat drop.log)"
	grep -qE ': [1-9][0-9]* labels' drop.log || fail "saltctl cache drop: $(cat drop.log)"
}

start selectord "$BIN/selectord" -c f.yaml --set cache.dir=roomy
first roomy
before=$(stat -c %s roomy/data.mdb)
second selectord.log
wait $label || fail "saltctl label: $(tail -1 label.log)"
after=$(stat -c %s roomy/data.mdb)
drop roomy
stop TERM $selectord $teacherd
"$BIN/cache_dump" roomy 3000 > roomy.dump
n=$(grep -c ^label roomy.dump)
[ "$n" -ge 800 ] && [ $((after - before)) -gt 200000 ] || fail "$n labels, $before and $after bytes: not what this test is for"

# The same on a disk with space for the first plan and for half of what the second plan needs in addition.
mkdir small
unshare -m bash -c '
	mount -t tmpfs -o size="$2" tmpfs small || exit 99
	"$1/selectord" -c f.yaml --set cache.dir=small/cache > full.log 2>&1 &
	selectord=$!
	echo $selectord > full.pid
	trap "kill -KILL $selectord; exit 1" TERM
	until [ -e over ]; do sleep 0.05; done
	kill -TERM $selectord
	wait $selectord
	echo "exit $?" > full.exit
	cp -r small/cache small.end
' disk "$BIN" "$(((before + after) / 2))" &
disk=$!
until_line full.log event=start
first small
! grep -qE 'event=(disk.full|commit.no_room)' full.log || fail "the first plan did not fit"
second full.log
until_line full.log event=disk.full 60
sleep 1				# the state does not change
kill -0 $label || fail "saltctl label ended: $(tail -1 label.log)"
! grep -qE 'event=(disk.room|commit.room)' full.log || fail "there was room before it was made"
drop small/cache nsenter -t "$(cat full.pid)" -m
until_line full.log event=disk.room
wait $label || fail "saltctl label over a full disk: $(tail -1 label.log)"
touch over
wait $disk || fail "the disk's shell: $?"
[ "$(cat full.exit)" = "exit 0" ] || fail "selectord ended with $(cat full.exit): $(tail -3 full.log)"
stop TERM $teacherd
"$BIN/cache_dump" small.end 3000 > end.dump
same roomy.dump end.dump "after room was made by dropping"
"$BIN/saltctl" cache fsck --cache small.end -c f.yaml > fsck.log 2>&1 || fail "fsck: $(cat fsck.log)"
