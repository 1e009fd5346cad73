# SPDX-License-Identifier: Apache-2.0
# local.sh scale and drain on a real fleet: teachers 1 -> 4 -> 1 and trainers 1 -> 2 while it runs, with the losses of an undisturbed run of one rank.
# Where phase one must not end, the trainer is held by draining its teachers or by SIGSTOP; in_phase_one fails if it has ended all the same.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
mkdir quiet scaled
fleet() { timeout 100 "$SOURCE/deploy/local.sh" "$1" --bin "$BIN" -c "$2/fleet.yaml" "${@:3}"; }
trap 'kill -CONT ${held:-} 2> /dev/null || true; for f in quiet scaled; do fleet down $f > /dev/null 2>&1 || true; done; cleanup' EXIT

small_corpus
small_model "$scratch/student" -
for f in quiet scaled; do
	small_fleet $f/fleet.yaml "$(free_port)"
	sed -i 's/steps: 12,/steps: 620,/; s/checkpoint_every: 3/checkpoint_every: 50/; s/phase_one: {steps: 6/phase_one: {steps: 600/; s/eval_every: 6/eval_every: 200/' \
	    $f/fleet.yaml
done
small_teachers quiet/fleet.yaml

d=scaled/run/daemons
step() { { tail -n 3 scaled/run/metrics.jsonl 2> /dev/null || true; } | sed -n 's/.*"kind":"step","step":\([0-9]*\).*/\1/p' | tail -n 1; }
wait_step() {		# wait_step N
	local tenths=600 now
	while :; do
		now=$(step)
		[ "${now:-0}" -lt "$1" ] || return 0
		[ $((tenths--)) -gt 0 ] || { tail -n 5 scaled/run/logs/*.log >&2; fail "no step $1; it is at ${now:-0}"; }
		sleep 0.1
	done
}
scaled() { fleet "$1" scaled "${@:2}" > out 2>&1 || fail "$*: exit code $?: $(cat out)"; }
says() { grep -q -- "$1" out || fail "expected to hear \"$1\", heard: $(cat out)"; }
pids() { for n; do echo "$n $(cat "$d/$n.pid")"; done; }
in_phase_one() { ! grep -q '"event":"switch"' scaled/run/metrics.jsonl || fail "phase one is over: the test does not test what it says"; }
n_teachers() { "$BIN/saltctl" config check -c scaled/fleet.yaml --get deploy.teachers; }
refused() {		# refused CODE WORDS VERB ARGS...: the verb ends with this exit code and these words, and changes nothing
	local rc=0 before
	before=$(cat "$d"/*.pid "$d/scale" 2> /dev/null || true)
	fleet "$3" scaled "${@:4}" > out 2>&1 || rc=$?
	[ $rc -eq "$1" ] || fail "${*:3}: exit code $rc, expected $1: $(cat out)"
	grep -q -- "$2" out || fail "${*:3}: does not say \"$2\": $(cat out)"
	[ "$before" = "$(cat "$d"/*.pid "$d/scale" 2> /dev/null || true)" ] || fail "${*:3} was refused and changed something"
}

fleet up quiet --wait > out 2>&1 || fail "the quiet run: $(cat out)"
fleet down quiet > /dev/null

# Before anything runs, scale only stores the number.
scaled scale teachers=2
says 'up will start 2'
[ "$(cat $d/scale)" = teachers=2 ] && [ ! -e scaled/run/logs/teacherd-0.log ] || fail "scale of a fleet that does not run"
scaled scale teachers=1			# the number of fleet.yaml
[ "$(n_teachers)" = 1 ] && [ ! -e $d/scale ] || fail "fleet.yaml's own number was kept"

# One teacher, one rank, and an up --wait that waits for the end.
scaled up
(trap - EXIT; fleet up scaled --wait > waiting.out 2>&1) &
waiting=$!
until_line waiting.out 'trainerd: runs already'		# otherwise this up would start the teacher again that is drained below
wait_step 3
scaled drain teachers
says 'teacherd-0: stopped'
says 'no teacher is left'
[ "$(cat $d/teacherd-0.exit)" = "0 drained" ] || fail "a drained teacher: $(cat $d/teacherd-0.exit)"
grep -q 'event=daemon.exit .*code=0' scaled/run/logs/teacherd-0.log || fail "a drained teacher does not end with 0"
scaled drain teacherd-0 teachers
says 'teacherd-0: does not run'
in_phase_one

# 1 -> 4 teachers: the trainer, which waits for rows, and selectord are not affected otherwise. A second call changes nothing.
others=$(pids selectord trainerd)
at=$(step)
scaled scale teachers=4
for k in 0 1 2 3; do says "teacherd-$k: up"; done
[ "$(cat $d/scale)" = teachers=4 ] || fail "kept: $(cat $d/scale)"
[ "$(pids selectord trainerd)" = "$others" ] || fail "scale teachers=4 started others again"
wait_step $((at + 5))
scaled drain teachers
in_phase_one

# 1 -> 2 ranks, with all teachers drained: checkpoint, stop, start. Impossible numbers are refused before that.
refused 64 'teachers=N' scale teachers=-1
refused 64 'teachers=N' scale teachers=many
refused 64 'teachers=N' scale sideways=2
refused 64 'scale teachers=4 -c' scale
refused 64 'twice' scale teachers=2 teachers=3
refused 64 'give one' scale teachers=2 --set deploy.teachers=3
refused 64 'only trainer' scale trainers=0
refused 64 'no --only' scale teachers=2 --only teachers
refused 78 'one of 1 2 4$' scale teachers=2 trainers=3
refused 78 'deploy.teachers' scale teachers=5000
refused 64 'expected teachers, teacherd-0, teacherd-1 .., found selectord' drain selectord
refused 64 'there are: teacherd-0 teacherd-1 teacherd-2 teacherd-3$' drain teacherd-9
refused 64 'drain teacherd-1' drain
selectord=$(pids selectord)
scaled scale trainers=2
says 'trainerd: stopped'
says 'trainerd: up'
[ "$(cat $d/scale)" = "teachers=4 trainers=2" ] || fail "kept: $(cat $d/scale)"
[ "$(pids selectord)" = "$selectord" ] || fail "scale trainers=2 started selectord again"
grep -q 'event=daemon.exit .*code=75' scaled/run/logs/trainerd.log || fail "the trainer was not stopped by its checkpoint"
trainer=$(pids trainerd)
scaled scale trainers=2
says 'runs already with 2 ranks'
[ "$(pids trainerd)" = "$trainer" ] || fail "the same number of ranks started the trainer again"

# The numbers are kept: up and restart start four teachers; --set takes precedence for one call.
scaled up
for k in 0 1 2 3; do says "teacherd-$k: up"; done
[ "$(pids trainerd)" = "$trainer" ] || fail "up started the trainer again"
at=$(step)
wait_step $((at + 5))
held=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' $d/trainerd-0.json)
kill -STOP "$held"
in_phase_one
[ -e $d/trainerd-1.json ] && [ ! -e $d/trainerd-2.json ] || fail "not two ranks: $(ls $d)"
scaled restart --only teachers --set deploy.teachers=1
says 'teacherd-0: up'
! grep -q 'teacherd-1: up' out || fail "--set does not go before: $(cat out)"
scaled restart --only teachers
says 'teacherd-3: up'
fleet status scaled > out 2>&1 || true		# rank 0 is stopped and cannot answer
says 'scaled to teachers=4 trainers=2;'
says '^teacherd-3 *running'

# 4 -> 1: the teachers with the highest numbers end; the one that stays is not restarted, and no other daemon is.
others=$(pids selectord teacherd-0 trainerd)
scaled scale teachers=1 trainers=2
says 'trainerd: runs already with 2 ranks'
for k in 3 2 1; do
	says "teacherd-$k: stopped"
	[ "$(cat $d/teacherd-$k.exit)" = "0 stopped" ] || fail "teacherd-$k: $(cat $d/teacherd-$k.exit)"
done
[ "$(grep -o 'teacherd-[0-9]: stopped' out | paste -s)" = "$(printf 'teacherd-%d: stopped\n' 3 2 1 | paste -s)" ] || fail "order: $(cat out)"
[ "$(pids selectord teacherd-0 trainerd)" = "$others" ] || fail "scale teachers=1 started others again"
[ "$(cat $d/scale)" = trainers=2 ] || fail "kept: $(cat $d/scale)"
in_phase_one
kill -CONT "$held"

# To the end; the up --wait from the time of one rank has seen it.
wait $waiting || fail "up --wait did not outlast the scaling: exit code $?: $(cat waiting.out)"
[ "$(cat $d/trainerd.ranks)" = 2 ] && [ "$(cat $d/trainerd.exit)" = "0 done" ] || fail "the end: $(cat $d/trainerd.exit)"
steps() { grep -v '"kind":"event"' "$1/run/metrics.jsonl" | sed 's/,"tokens".*//'; }
steps quiet > want
steps scaled > got
[ "$(grep -c '"kind":"step"' want)" = 620 ] && [ "$(grep -c '"phase":1' want)" = 600 ] || fail "the quiet run is not 600 and 20 steps"
same want got "scaled in mid-run"
python3 "$SOURCE/tests/system/tb_read.py" scaled/run > out 2>&1 || fail "TensorBoard's files: $(cat out)"

# After the switch no teacher is started; a damaged daemons/scale is named.
scaled scale teachers=3
says 'needs none any more'
echo 'teachers=some' > $d/scale
refused 65 'daemons/scale: expected teachers=N' up
