# SPDX-License-Identifier: Apache-2.0
# logs and events of a real fleet: merged from files and over the network; daemons that join, rotated files, a daemon that hangs.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
code() { local got=0; "$@" > out 2> err || got=$?; echo $got; }
small_corpus
small_model teacher 5
small_model student -
ln -s teacher scorer
small_fleet fleet.yaml "$(free_port)"
mkdir -p run/logs

[ "$(code ctl logs -c fleet.yaml)" = 69 ] && grep -q 'is the fleet up' err || fail "logs without a fleet: $(cat out err)"
# What cannot be read is named.
mkdir run/logs/folder.log
[ "$(code ctl logs -c fleet.yaml)" = 66 ] && grep -q '^saltctl logs: .*run/logs/folder.log: Is a directory' err || fail "a folder with the name of a log: $(cat out err)"
rmdir run/logs/folder.log
start events timeout 300 "$BIN/saltctl" events -c fleet.yaml
start follow timeout 300 "$BIN/saltctl" logs -f -c fleet.yaml

# selectord and the trainer write to the files that a supervisor would use; the teacher writes elsewhere, as on another host.
timeout 300 "$BIN/selectord" -c fleet.yaml 2>> run/logs/selectord.log &
selectord=$!
until_line follow.log '^selectord +\| ts=.* event=start '
until_line events.log 'listening to selectord'
ctl label --no-wait --set run.seed=99 -c fleet.yaml > /dev/null	# a plan that is never released, so the teacher stays
timeout 300 "$BIN/trainerd" -c fleet.yaml > run/logs/trainerd.log 2>&1 &
trainerd=$!
until_line events.log 'listening to trainerd-0'
until_line follow.log '^trainerd +\| ts=.* event=rows.waiting'
start teacher timeout 300 "$BIN/teacherd" -c fleet.yaml --name teacherd-0
wait $trainerd || fail "trainerd: $(tail -3 run/logs/trainerd.log)"
until_line events.log ' event=run.done '
until_line follow.log '^teacherd-0 +\| ts=.* event=model.loaded'

# Events: every step, the switch, peers that join or are lost; each with the daemon that reports it.
steps=$(sed -nE 's/^trainerd-0 +\| ts=.* event=step step=([0-9]+) .*loss=[0-9.]+ .*/\1/p' events.log | sort -n | xargs)
[ "$steps" = "1 2 3 4 5 6 7 8 9 10 11 12" ] || fail "of 12 steps the events had: $steps"
grep -qE '^trainerd-0 +\| .* event=switch step=6 ' events.log || fail "no switch among the events"
grep -qE '^selectord +\| .* event=peer.welcome .*name=teacherd-0 ' events.log || fail "no event when the teacher joined"
grep -qE '^selectord +\| .* level=debug .*event=lease.granted ' events.log || fail "no leases among the events"
! grep -q 'event=lease.granted' run/logs/selectord.log || fail "debug lines are in the log file"
until_line events.log '^selectord +\| .*event=peer.(bye|lost) name=trainerd-0 '
[ "$(code ctl events switch checkpoint --count 0 -c fleet.yaml)" = 64 ] || fail "events --count 0"

# Each line appears once, from a file or from the network, and in the order of time.
for name in selectord:run/logs/selectord.log trainerd:run/logs/trainerd.log teacherd-0:teacher.log; do
	sed -nE "s/^${name%:*} +\| //p" follow.log > seen
	grep -v 'event=lease' "${name#*:}" | head -8 > said
	[ "$(head -8 said | grep -cxFf seen || true)" = "$(wc -l < said)" ] || { diff said seen | head -5; fail "logs -f: not all of ${name%:*}'s lines"; }
	[ -z "$(sort seen | uniq -d)" ] || fail "logs -f: lines twice: $(sort seen | uniq -d | head -3)"
done
[ "$(code ctl logs --lines 4 -c fleet.yaml)" = 0 ] || fail "logs: $(cat out err)"
for name in selectord trainerd teacherd-0; do
	[ "$(grep -cE "^$name +\|" out)" = 4 ] || fail "logs --lines 4: $(grep -cE "^$name +\|" out) of $name: $(cat out)"
done
sed -nE 's/.* \| ts=([^ ]*) .*/\1/p' out > times
sort -c times || fail "logs: not in the order of time"
tail -4 teacher.log > said
ctl logs --lines 4 teacherd -c fleet.yaml | sed -E 's/^teacherd-0 \| //' > seen
same said seen "the last lines of a daemon without a file"
ctl logs --lines 2 --json trainerd-0 -c fleet.yaml > out
tail -2 run/logs/trainerd.log > said
python3 - out said <<'END'
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
assert lines == [{"daemon": "trainerd", "line": l.rstrip("\n")} for l in open(sys.argv[2])] and len(lines) == 2, lines
END
[ "$(code ctl logs nobody -c fleet.yaml)" = 66 ] && grep -q 'there is no daemon "nobody"; there is .*selectord' err || fail "logs nobody: $(cat out err)"

# Rotation: by moving the file away, and by emptying it; a new file.
mv run/logs/trainerd.log run/logs/trainerd.log.1
echo 'ts=2026-01-01T00:00:00.000Z event=test.moved' > run/logs/trainerd.log
until_line follow.log '^trainerd +\| .*event=test.moved'
echo 'ts=2026-01-01T00:00:00.000Z event=t' > run/logs/trainerd.log
until_line follow.log '^trainerd +\| .*event=t$'
echo 'ts=2026-01-01T00:00:00.000Z event=test.new' > run/logs/another.log
until_line follow.log '^another +\| .*event=test.new'

# One daemon hangs. The lines of the others still arrive, and so do the lines that the hanging daemon had logged.
pkill -STOP -P $teacher 2> /dev/null || kill -STOP $teacher
echo 'ts=2026-01-01T00:00:01.000Z event=test.meanwhile' >> run/logs/selectord.log
until_line follow.log '^selectord +\| .*event=test.meanwhile'
[ "$(code ctl logs --lines 1 -c fleet.yaml)" = 69 ] && grep -q 'teacherd-0 on .*: no answer' err || fail "logs with a teacher that hangs: $(cat out err)"
grep -q '^selectord .*test.meanwhile' out || fail "a teacher that hangs hides the others: $(cat out)"
pkill -CONT -P $teacher 2> /dev/null || kill -CONT $teacher

# A new process in its place is followed from its first line on.
n=$(grep -cE '^teacherd-0 +\| .*event=model.loaded' follow.log)
pkill -KILL -P $teacher
wait $teacher || true
until_line events.log '^selectord +\| .*event=peer.lost name=teacherd-0 '
start teacher timeout 300 "$BIN/teacherd" -c fleet.yaml --name teacherd-0 --set status.bind=tcp://127.0.0.1:$(free_port)
for ((i = 0; i < 200; i++)); do
	[ "$(grep -cE '^teacherd-0 +\| .*event=model.loaded' follow.log)" -le "$n" ] || break
	sleep 0.1
done
[ "$(grep -cE '^teacherd-0 +\| .*event=model.loaded' follow.log)" = $((n + 1)) ] || fail "logs -f does not follow a daemon that was started again"
stop TERM $teacher $selectord
stop INT $follow $events

# With keys: only the holder of a client's key gets events, and lines of a daemon without a file here.
ctl keygen keys > /dev/null
small_fleet keyed.yaml "$(free_port)"
sed -i 's/^run: {dir: [^,}]*/run: {dir: keyed/' keyed.yaml
echo 'security: {curve_dir: keys}' >> keyed.yaml
ctl keygen other > /dev/null
cp -r keys strange
cp -f other/client.* strange/
start selectord timeout 100 "$BIN/selectord" -c keyed.yaml --set cache.dir=cache_keyed
until_line selectord.log 'event=start'
start events timeout 100 "$BIN/saltctl" events -c keyed.yaml
until_line events.log 'listening to selectord'
start teacher timeout 100 "$BIN/teacherd" -c keyed.yaml --name teacherd-0
until_line events.log '^selectord +\| .* event=peer.welcome .*name=teacherd-0 '
[ "$(code ctl logs --lines 50 -c keyed.yaml)" = 0 ] && grep -qE '^teacherd-0 +\| .*event=selectord.welcome' out || fail "logs with keys: $(cat out err)"
[ "$(code ctl logs --lines 50 -c keyed.yaml --set security.curve_dir=strange)" = 69 ] && grep -q 'teacherd-0 on .*: no answer' err && ! grep -q ' | ' out ||
	fail "logs with a key that nobody knows: $(cat out err)"
stop TERM $teacher $selectord
stop INT $events

# Standard output is a pipe without a reader: a signal still ends the verb.
mkdir -p full/logs
for i in $(seq 1000 1999); do
	echo "ts=2026-11-29T15:00:00.$i""Z level=info prog=trainerd pid=1 event=step step=$i of=4000 loss=1.0 and more, so that the pipe is full soon"
done > full/logs/trainerd.log
mkfifo pipe
exec 5<> pipe
"$BIN/saltctl" logs -f --lines 1000 -c fleet.yaml --set run.dir=full >&5 2> full.err &
full=$!
sleep 1
kill -TERM $full
until_gone $full
exec 5>&-
