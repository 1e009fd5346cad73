#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# selectord with simulated teachers and trainers (fakes.c): rows do not depend on killed processes, shards or lost results; acknowledged records
# survive kill -9 at every step of a commit; data that must not be mixed are refused.
set -u
dir=$(mktemp -d /tmp/salt-selectord-XXXXXX)
pids=()
failures=0

finish() {
	for pid in "${pids[@]:-}"; do
		[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
	done
	wait 2>/dev/null
	if [ "$failures" -eq 0 ]; then rm -rf "$dir"; else echo "left: $dir"; fi
	exit "$failures"
}
trap finish EXIT

fail() {
	echo "FAIL: $*"
	failures=1
	tail -n 5 "$dir"/log.* 2>/dev/null
	exit
}

# same WHAT FILE FILE
same() { cmp -s "$2" "$3" || fail "$1: $2 and $3 differ"; }

config() {				# NAME ENDPOINTS [LINES]
	cat > "$dir/$1.yaml" <<YAML
run: {dir: run_$1, seed: 1}
corpus: {train: train, heldout: held, context: 16}
cache: {dir: cache_$1, map_size: 1GiB}
teacher: {model: model}
labels: {kind: sampled, samples: 4}
selector: {endpoints: [$2], lease_s: 1, lease_sequences: 4, commit_ms: 5, teacher_idle_s: 0}
status: {bind: "ipc://$dir/status_$1_\$\$"}
YAML
	sed -i "s/_\\$\\\$\"/\"/" "$dir/$1.yaml"
}

start() {				# NAME ARGS..: starts selectord in the background, pid in $selector
	local name=$1
	shift
	"$BIN/selectord" -c "$dir/$name.yaml" "$@" 2>> "$dir/log.selectord.$name" &
	selector=$!
	pids+=("$selector")
}

teacher() {				# ENDPOINT ARGS..
	"$BIN/fakes" teacher "$@" >> "$dir/log.teacher" 2>&1 &
	pids+=("$!")
	teacher=$!
}

rows() {				# OUT ENDPOINTS ARGS..
	local out=$1 ends=$2
	shift 2
	timeout 60 "$BIN/fakes" rows "$ends" "$dir" timeout=40 "$@" > "$out" 2>> "$dir/log.rows" || fail "rows $*: $(tail -n 1 "$dir/log.rows")"
}

stop() {
	kill -TERM "$1"
	wait "$1"
	local code=$?
	[ "$code" -eq 0 ] || fail "SIGTERM: exit $code"
}

cd "$dir" || exit 1
"$BIN/fakes" files "$dir" || fail "files"

# 1. The normal course: two teachers, both modes on one cache, then the same rows again after a restart without any teacher.
config a "ipc://$dir/a"
timeout 20 "$BIN/selectord" -c a.yaml -n 2>/dev/null || fail "-n"
start a
teacher "ipc://$dir/a" "$dir" name=t1
one=$teacher
teacher "ipc://$dir/a" "$dir" name=t2 lose=1
rows ds.1 "ipc://$dir/a" mode=salt_ds first=0 count=200 total=200
rows none.1 "ipc://$dir/a" mode=none first=0 count=300 total=300
[ "$(sort -u -k1,1 ds.1 | wc -l)" -eq 200 ] || fail "rows are missing"
[ -s run_a/daemons/selectord.json ] || fail "not announced"
stop "$selector"
[ ! -e run_a/daemons/selectord.json ] || fail "announcement left behind"
kill -9 "$one" "$teacher"
wait "$one" "$teacher" 2>/dev/null
start a
rows ds.2 "ipc://$dir/a" mode=salt_ds first=0 count=200 total=200
rows none.2 "ipc://$dir/a" mode=none first=100 count=50 total=300
same "rows after a restart" ds.1 ds.2
sed -n 101,150p none.1 > none.part
same "rows from the middle" none.part none.2

# 1b. A teacher that sends different results for a sequence: this is counted, and the first result stays, so the rows are the same. The other teachers
# agreed.
stop "$selector"
config d "ipc://$dir/d"
start d
teacher "ipc://$dir/d" "$dir" name=td differ=1
rows ds.d "ipc://$dir/d" mode=salt_ds first=0 count=200 total=200
same "results that differ" ds.1 ds.d
differed() { timeout 10 "$BIN/saltctl" status -c "$1.yaml" --json | grep -o '"differed_total": *[0-9]*' | grep -o '[0-9]*$'; }
for i in $(seq 50); do [ "$(differed d)" -gt 0 ] 2>/dev/null && break; sleep 0.1; done
[ "$(differed d)" -gt 0 ] || fail "differed_total does not count: $(timeout 10 "$BIN/saltctl" status -c d.yaml --json)"
kill -9 "$teacher"
wait "$teacher" 2>/dev/null
stop "$selector"
start a
for i in $(seq 50); do [ -n "$(differed a)" ] && break; sleep 0.1; done
[ "$(differed a)" -eq 0 ] || fail "differed_total counts what does not differ"

# 2. A second selectord on the cache is refused, and the error names the process that has it. The port of the first is in use, too.
cp a.yaml second.yaml
sed -i "s#ipc://$dir/a#ipc://$dir/second#; s#status_a#status_second#" second.yaml
timeout 20 "$BIN/selectord" -c second.yaml 2> second.err
[ $? -eq 69 ] || fail "a second selectord on one cache: $(cat second.err)"
grep -q "pid $selector" second.err || fail "the holder is not named: $(cat second.err)"

# 3. Another identity on that cache: refused with both values, 78.
stop "$selector"
for set in labels.tau=0.5 labels.seed=9 labels.samples=5 corpus.context=8 labels.kind=dense corpus.train=held; do
	timeout 20 "$BIN/selectord" -c a.yaml --set "$set" 2> other.err
	[ $? -eq 78 ] || fail "$set on a live cache: $(cat other.err)"
	grep -q "expected .*found" other.err || fail "$set: both values: $(cat other.err)"
done
# Records that are too large for a frame: refused with both numbers.
timeout 20 "$BIN/selectord" -c a.yaml --set bus.max_message=64KiB --set labels.kind=dense --set corpus.context=512 --set cache.dir=cache_wide 2> other.err
[ $? -eq 78 ] && grep -q "bus.max_message.*expected.*found 65536" other.err || fail "records over max_message: $(cat other.err)"
[ ! -e cache_wide ] || fail "a refused start left a cache"

# 4. Two shards give the same rows as one; one teacher dies during the run, and one is slow.
config s "ipc://$dir/s0, ipc://$dir/s1"
sed -i "s#^status:.*#status: {bind: \"tcp://127.0.0.1:*\"}#" s.yaml
start s --shard 0
start s --shard 1
teacher "ipc://$dir/s0" "$dir" name=t3 rows=60
teacher "ipc://$dir/s1" "$dir" name=t4 slow_ms=2
teacher "ipc://$dir/s0" "$dir" name=t5
rows ds.3 "ipc://$dir/s0,ipc://$dir/s1" mode=salt_ds first=0 count=200 total=200
same "two shards" ds.1 ds.3
[ -d cache_s/shard_0 ] && [ -d cache_s/shard_1 ] || fail "shards have caches of their own"

# 5. kill -9 at each step of a commit, repeatedly: all acknowledged records exist, and the rows are the same.
points=
if grep -q SALT_CRASH_AT "$BIN/selectord"; then		# a build with SALT_CRASH_POINTS
	points="commit.begin commit.written commit.synced loop.acknowledge"
else
	echo "kill -9 at each step: not tried, this build has no crash points"
fi
for point in $points; do
	config k "ipc://$dir/k"
	rm -rf cache_k
	teacher "ipc://$dir/k" "$dir" name=tk
	tk=$teacher
	(
		trap 'kill -TERM $child; wait $child; exit 0' TERM
		for n in $(seq 12); do
			SALT_CRASH_AT=$point:$((4 + n % 7)) "$BIN/selectord" -c k.yaml 2>> log.selectord.k &
			child=$!
			echo "$n" > k.starts
			wait $child
		done
		"$BIN/selectord" -c k.yaml 2>> log.selectord.k &
		child=$!
		wait $child
	) 2>/dev/null &
	supervisor=$!
	pids+=("$supervisor")
	rows ds.4 "ipc://$dir/k" mode=salt_ds first=0 count=200 total=200 timeout=60
	same "killed at $point" ds.1 ds.4
	[ "$(cat k.starts)" -ge 2 ] || fail "never killed at $point"
	kill -TERM "$supervisor"
	wait "$supervisor" 2>/dev/null
	kill -9 "$tk" 2>/dev/null
	wait "$tk" 2>/dev/null
	! grep LOST log.teacher || fail "acknowledged and lost, killed at $point"
done

# 6. The disk is full: leases and acknowledgements stop, rows are still served, and the status shows it; with free space selectord continues.
if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
	config f "ipc://$dir/f"
	mkdir -p cache_f
	unshare -m bash -c '
		mount -t tmpfs -o size=160k tmpfs cache_f || exit 99
		"$1/selectord" -c f.yaml 2>> log.selectord.f &
		child=$!
		trap "kill -TERM $child" TERM
		while [ ! -e f.room ]; do sleep 0.05; done
		mount -o remount,size=64m cache_f
		wait $child
		wait $child
	' full "$BIN" &
	full=$!
	pids+=("$full")
	teacher "ipc://$dir/f" "$dir" name=tf
	( timeout 60 "$BIN/fakes" rows "ipc://$dir/f" "$dir" mode=salt_ds first=0 count=200 total=200 timeout=50 > ds.5 2>> log.rows ) &
	fetch=$!
	for i in $(seq 200); do grep -q "no_room\|disk.full" log.selectord.f && break; sleep 0.1; done
	grep -q "no_room\|disk.full" log.selectord.f || fail "the disk never got full"
	touch f.room
	wait "$fetch" || fail "rows after the disk was full: $(tail -n 1 log.rows)"
	same "disk full on the way" ds.1 ds.5
	kill -TERM "$full"
	wait "$full" 2>/dev/null
	kill -9 "$teacher" 2>/dev/null
	wait "$teacher" 2>/dev/null
else
	echo "skipped: disk full (needs root and mount namespaces)"
fi

# 6b. A teacher that fails on every sequence: it is refused with 65 (here: refused, 3), nothing is put into quarantine, and another one does the work.
config r "ipc://$dir/r"
start r
( timeout 60 "$BIN/fakes" rows "ipc://$dir/r" "$dir" mode=salt_ds first=0 count=200 total=200 timeout=50 > ds.6 2>> log.rows ) &
fetch=$!
timeout 20 "$BIN/fakes" teacher "ipc://$dir/r" "$dir" name=faulty fail=1 > faulty 2>&1
[ $? -eq 3 ] && grep -q "valid scores and labels\|errors for at most a few" faulty || fail "a teacher that fails on everything: $(cat faulty)"
timeout 20 "$BIN/fakes" teacher "ipc://$dir/r" "$dir" name=faulty fail=1 > faulty 2>&1
[ $? -eq 3 ] || fail "it came back, as another process: $(cat faulty)"
teacher "ipc://$dir/r" "$dir" name=good
wait "$fetch" || fail "rows beside a faulty teacher: $(tail -n 1 log.rows)"
same "beside a faulty teacher" ds.1 ds.6
! grep -q seq.quarantined log.selectord.r || fail "one teacher filled the quarantine"
kill -9 "$teacher"
wait "$teacher" 2>/dev/null

# 6c. Three teachers fail on every 60th sequence: beyond selector.max_quarantined the trainer is refused, with the reason. After the sequences are
# taken out of quarantine (fsck), with selectord stopped, the run continues.
stop "$selector"
config q "ipc://$dir/q"
start q --set selector.max_quarantined=0.001
for t in 1 2 3; do teacher "ipc://$dir/q" "$dir" name=q$t fail=60; done
timeout 60 "$BIN/fakes" rows "ipc://$dir/q" "$dir" mode=none first=0 count=512 total=512 timeout=50 > none.6 2> refused
[ $? -eq 3 ] && grep -q "selector.max_quarantined.*expected at most 0.001 of.*in quarantine" refused || fail "too many in quarantine: $(cat refused)"
timeout 20 "$BIN/fakes" rows "ipc://$dir/q" "$dir" mode=none first=0 count=8 total=512 > none.6 2> refused
[ $? -eq 3 ] && grep -q "selector.max_quarantined" refused || fail "too many in quarantine, at the next HELLO: $(cat refused)"
stop "$selector"
kill -9 "${pids[@]: -3}" 2>/dev/null
timeout 20 "$BIN/saltctl" cache fsck --cache cache_q > fsck || true
grep -q "is in quarantine: not finite: q[123]@" fsck && grep -q "sequences in quarantine" fsck || fail "fsck: $(cat fsck)"
timeout 20 "$BIN/saltctl" cache fsck --queue --free-quarantine --cache cache_q > /dev/null || true
start q
teacher "ipc://$dir/q" "$dir" name=good
rows none.6 "ipc://$dir/q" mode=none first=0 count=300 total=300
same "out of quarantine again" none.1 none.6
kill -9 "$teacher"
wait "$teacher" 2>/dev/null
stop "$selector"

# 7. RELEASE: the teacher gets RELEASE_TEACHER and ends by itself with 0.
start a
teacher "ipc://$dir/a" "$dir" name=t9
rows none.3 "ipc://$dir/a" mode=none first=0 count=8 total=300 release=1
wait "$teacher"
[ $? -eq 0 ] || fail "the released teacher"
grep -q "released: plans released" log.teacher || fail "no RELEASE_TEACHER"
stop "$selector"
echo "all good"
