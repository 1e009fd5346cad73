# SPDX-License-Identifier: Apache-2.0
# deploy/local.sh and its supervisors with simulated programs: which daemons are started, restarted, given up and stopped, and in which order.
. "$(dirname "$0")/lib.sh"

root="$scratch/a fleet"; bin="$scratch/bin dir"		# spaces on purpose
mkdir -p "$root" "$bin"
echo "as it was at up" > "$root/fleet.yaml"
trap 'local_sh down >/dev/null 2>&1 || true; cleanup' EXIT
local_sh() {
	local verb=$1
	shift
	timeout 90 "$SOURCE/deploy/local.sh" "$verb" -c "$root/fleet.yaml" --bin "$bin" "$@"
}
cat > "$bin/saltctl" <<'END'
#!/bin/bash
[ "$1" != status ] || { echo "status asked"; exit 0; }
# What fleet.yaml says is in it; what up resolved is the copy of it that the program gets.
[ "$1" != run ] || { printf '"phase": "%s"\n' "$(cat "$(dirname "$4")/phase" 2> /dev/null || echo one)"; exit 0; }
case "${6-}" in		# config check -c FILE --get KEY
"" | trainer.ranks=*) cat "$4" ;;
run.dir) echo "$(dirname "$4")/run" ;;
selector.endpoints) echo "[tcp://127.0.0.1:5750, tcp://127.0.0.1:5751]" ;;
trainer.steps) echo 10 ;;
trainer.ranks | deploy.teachers) echo 2 ;;
phase_one.steps) echo 5 ;;
phase_one.until_margin) echo none ;;
esac
END
# At each start a program reads its behaviour from RUN/NAME.does: an exit code, or nothing, which means to keep running.
cat > "$bin/program" <<'END'
#!/bin/bash
name=$(basename "$0") dir=
while [ $# -gt 0 ]; do
	case "$1" in -c) config=$2 dir=$(dirname "$(dirname "$2")") ;; --name) name=$2 ;; --shard) name=selectord-$2 ;; esac
	shift
done
[ -z "${OMPI_COMM_WORLD_RANK-}" ] || name=trainerd-$OMPI_COMM_WORLD_RANK
echo "start $name" >> "$dir/story"
tail -n 1 "$config" > "$dir/$name.read"
trap 'echo "TERM $name" >> "$dir/story"; exit 0' TERM
trap 'echo "USR1 $name" >> "$dir/story"; exit 75' USR1
echo $$ > "$dir/$name.self"
if [ -s "$dir/$name.does" ]; then
	echo "$name: that is how it is" >&2
	exit "$(cat "$dir/$name.does")"
fi
echo '{}' > "$dir/daemons/$name.json"
while :; do
	sleep 0.1
	[ ! -e "$dir/$name.end" ] || exit "$(cat "$dir/$name.end")"
done
END
chmod +x "$bin"/*
for p in selectord teacherd trainerd; do cp "$bin/program" "$bin/$p"; done
cp "$BIN/saltfleet-supervise" "$bin"
run="$root/run"
starts() { grep -c "^start $1\$" "$run/story" || true; }
within() {		# within SECONDS WHAT COMMAND ...
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "$what: $* (see ${KEEP:+$scratch})"
		sleep 0.1
	done
}

# Everything comes up; a second up changes nothing.
local_sh up > "$scratch/out"
for n in selectord-0 selectord-1 teacherd-0 teacherd-1 trainerd; do
	grep -q "^$n: up, pid [0-9]" "$scratch/out" || fail "up does not name $n: $(cat "$scratch/out")"
done
within 10 "rank 1" grep -q 'start trainerd-1' "$run/story"
cp "$run/story" "$scratch/story"
local_sh up > "$scratch/out"
[ "$(grep -c 'runs already$' "$scratch/out")" = 5 ] || fail "second up: $(cat "$scratch/out")"
same "$run/story" "$scratch/story" "a second up started something"
local_sh status > "$scratch/out"
grep -q 'teacherd-1 *running' "$scratch/out" && grep -q 'status asked' "$scratch/out" || fail "status: $(cat "$scratch/out")"
cp "$run/daemons/teacherd-1.supervisor" "$scratch/supervisor"
for damaged in '' 'x y z'; do
	printf '%s' "$damaged" > "$run/daemons/teacherd-1.supervisor"
	local_sh status > "$scratch/out" 2>&1 || fail "status with teacherd-1.supervisor '$damaged': $? $(cat "$scratch/out")"
	grep -q '^teacherd-1 *running .* not known: .*/teacherd-1.supervisor is empty or damaged' "$scratch/out" && grep -q 'status asked' "$scratch/out" ||
		fail "status with teacherd-1.supervisor '$damaged': $(cat "$scratch/out")"
done
cp "$scratch/supervisor" "$run/daemons/teacherd-1.supervisor"

# fleet.yaml is edited: a restarted daemon reads the file that the last up resolved, also after an up that changed nothing.
echo "the next experiment" > "$root/fleet.yaml"
local_sh up > "$scratch/out"
[ "$(grep -c 'runs already, with other settings than .*fleet.yaml has now; restart applies those$' "$scratch/out")" = 5 ] || fail "up after an edit: $(cat "$scratch/out")"
# A daemon that dies is restarted: after a signal, and after an exit code that may be temporary; if a rank dies, all ranks end.
kill -9 "$(cat "$run/daemons/teacherd-0.pid")"
kill -9 "$(cat "$run/daemons/selectord-1.pid")"
kill -9 "$(cat "$run/trainerd-1.self")"
again() { [ "$(starts teacherd-0) $(starts selectord-1) $(starts trainerd-0) $(starts trainerd-1)" = "2 2 2 2" ]; }
within 20 "all again" again
[ "$(starts teacherd-1) $(starts selectord-0)" = "1 1" ] || fail "others were started again too"
[ "$(cat "$run"/{teacherd-0,selectord-1,trainerd-0}.read | sort -u)" = "as it was at up" ] || fail "a restart reads the edited file: $(cat "$run"/*.read)"
grep -q 'event=daemon.restart .*code=137' "$run/logs/teacherd-0.log" || fail "the log does not tell"

# A permanent exit code: no restart, and the reason is reported.
echo 78 > "$run/teacherd-1.does"
kill -9 "$(cat "$run/daemons/teacherd-1.pid")"
within 15 "given up" [ -e "$run/daemons/teacherd-1.exit" ]
[ "$(cat "$run/daemons/teacherd-1.exit")" = "78 failed" ] || fail "exit: $(cat "$run/daemons/teacherd-1.exit")"
rc=0
local_sh up > "$scratch/out" 2>&1 || rc=$?
[ $rc -eq 78 ] || fail "up of a daemon that cannot start: exit code $rc, expected 78"
grep -q 'teacherd-1: that is how it is' "$scratch/out" || fail "up does not say why: $(cat "$scratch/out")"
rm "$run/teacherd-1.does"

# down: trainer, teachers, selectord, in that order; the trainer by USR1. A second down is harmless.
pids=$(cat "$run"/daemons/*.pid)
: > "$run/story"
local_sh down > "$scratch/out"
expected=$'USR1 trainerd-\nUSR1 trainerd-\nTERM teacherd-\nTERM selectord-\nTERM selectord-'
[ "$(sed 's/[0-9]$//' "$run/story")" = "$expected" ] || fail "order of down: $(cat "$run/story")"
for pid in $pids; do ! kill -0 "$pid" 2>/dev/null || fail "pid $pid is still there after down"; done
local_sh down > "$scratch/out"
[ ! -s "$scratch/out" ] || fail "second down: $(cat "$scratch/out")"

# If a supervisor is killed, its daemon ends too; up starts both again.
local_sh up --only teachers > /dev/null
read -r supervisor _ < "$run/daemons/teacherd-0.supervisor"
pid=$(cat "$run/daemons/teacherd-0.pid")
kill -9 "$supervisor"
gone() { ! kill -0 "$pid" 2>/dev/null; }
within 10 "the daemon of a killed supervisor" gone
local_sh up --only teachers > "$scratch/out"
grep -q '^teacherd-0: up' "$scratch/out" || fail "up after a killed supervisor: $(cat "$scratch/out")"
! grep -q 'start trainerd' <(tail -n +6 "$run/story") || fail "--only teachers started a trainer"

# --wait passes the trainer's exit code on: 0 when done, 65 at once (75, after all restarts are used up, would take too long here). An old line in
# metrics.jsonl does not mean phase two; only the newest checkpoint, which saltctl reads, decides.
printf '{"kind":"event","step":5,"event":"switch"}\n{"kind":"step","step":5,"phase":2,"loss":1.5}\n' > "$run/metrics.jsonl"
echo two > "$root/phase"
# A locale with a decimal comma, if one can be made: progress still has numbers with a point.
mkdir "$scratch/locales"
{
	for c in CTYPE COLLATE MONETARY TIME MESSAGES PAPER NAME ADDRESS TELEPHONE MEASUREMENT IDENTIFICATION; do
		printf 'LC_%s\n%s\nEND LC_%s\n' $c "$([ $c = IDENTIFICATION ] && echo 'title "comma"' || echo 'copy "POSIX"')" $c
	done
	printf 'LC_NUMERIC\ndecimal_point ","\nthousands_sep "."\ngrouping 3;3\nEND LC_NUMERIC\n'
} > "$scratch/comma.src"
localedef -c -i "$scratch/comma.src" -f ANSI_X3.4-1968 "$scratch/locales/de_DE" > /dev/null 2>&1 || true
export LOCPATH=$scratch/locales
[ "$(LC_ALL=de_DE bash -c 'printf %.1f 1,5' 2> /dev/null)" = 1,5 ] || echo "not shown: a decimal comma, since no locale with one can be made here"
( sleep 2; echo 0 > "$run/trainerd-0.end"; echo 0 > "$run/trainerd-1.end" ) &
LC_ALL=de_DE local_sh up --wait > "$scratch/out" 2>&1 || fail "up --wait: exit code $?: $(cat "$scratch/out")"
grep -q 'step 5 of 10  phase 2  loss 1.5000' "$scratch/out" || fail "progress: $(cat "$scratch/out")"
grep -q 'phase two' "$scratch/out" || fail "phase two is not seen: $(cat "$scratch/out")"
[ "$(cat "$run/daemons/trainerd.exit")" = "0 done" ] || fail "trainerd.exit: $(cat "$run/daemons/trainerd.exit")"
echo 65 > "$run/trainerd-0.end"; echo 65 > "$run/trainerd-1.end"
rc=0
local_sh up --wait > "$scratch/out" 2>&1 || rc=$?
[ $rc -eq 65 ] || fail "up --wait of a trainer that ends with 65: $rc: $(cat "$scratch/out")"

# The budget: after two restarts the supervisor gives up and reports it.
mkdir "$scratch/sup"
rc=0
timeout 60 "$bin/saltfleet-supervise" one "$scratch/sup" --restarts 2 -- sh -c 'exit 70' || rc=$?
[ $rc -eq 70 ] || fail "a spent budget: exit code $rc"
[ "$(grep -c event=daemon.start "$scratch/sup/logs/one.log")" = 3 ] || fail "starts within the budget"
grep -q event=daemon.given_up "$scratch/sup/logs/one.log" || fail "giving up is not said"
for option in '--restarts x' '--restarts 3x' '--restarts 1000' '--restarts -1' '--within 10m' '--within 0' '--stop KILL'; do
	rc=0
	"$bin/saltfleet-supervise" never "$scratch/never" $option -- true 2> "$scratch/err" || rc=$?
	[ $rc = 64 ] && grep -q -e "${option% *}: expected .*, found \"${option#* }\"" "$scratch/err" || fail "supervise $option: $rc $(cat "$scratch/err")"
done

# The stop signal reaches the supervisor while the daemon ends by itself: there is no wait and no KILL, and the daemon's own exit code is kept.
for ((i = 0; i < 8; i++)); do
	mkdir "$scratch/race$i"
	( rc=0; "$bin/saltfleet-supervise" x "$scratch/race$i" -- bash -c 'sleep 0.1; kill -TERM $PPID; exit 3' || rc=$?; echo $rc > "$scratch/race$i/rc" ) & races[i]=$!
done
wait "${races[@]}"
for ((i = 0; i < 8; i++)); do
	case "$(cat "$scratch/race$i/rc" "$scratch/race$i/daemons/x.exit" | paste -s)" in $'3\t3 stopped' | $'143\t143 stopped') ;; *)
		fail "a stop as the daemon ends: $(cat "$scratch/race$i/daemons/x.exit" "$scratch/race$i/logs/x.log")" ;;
	esac
	! grep -q daemon.kill "$scratch/race$i/logs/x.log" || fail "KILL for a daemon that had ended: $(cat "$scratch/race$i/logs/x.log")"
done

# USR1 is repeated until it has an effect, because a launcher that is still starting loses it; a process that outlives its daemon is ended.
mkdir "$scratch/lost"
"$bin/saltfleet-supervise" x "$scratch/lost" --stop USR1 -- bash -c 'trap : USR1; sleep 60 & echo $! > "$1/rest"; while [ $((n++)) -lt 20 ]; do sleep 0.1; done
	trap "exit 75" USR1; while :; do sleep 0.1; done' - "$scratch/lost" & pid=$!
within 10 "the daemon" [ -s "$scratch/lost/rest" ]
kill -TERM $pid
rc=0; wait $pid || rc=$?
[ $rc -eq 75 ] || fail "a stop signal that was lost at first: exit code $rc: $(cat "$scratch/lost/logs/x.log")"
gone() { ! kill -0 "$(cat "$scratch/lost/rest")" 2> /dev/null; }
gone || fail "a process outlives its daemon and the supervisor"

# mpirun dies by a USR1 that arrives before its ranks exist or after they have ended: this counts as a stop, too.
mkdir "$scratch/early"
"$bin/saltfleet-supervise" x "$scratch/early" --stop USR1 -- sh -c ': > "$1"; sleep 60' - "$scratch/early/up" & pid=$!
within 10 "the daemon" [ -e "$scratch/early/up" ]
kill -TERM $pid
rc=0; wait $pid || rc=$?
[ "$rc $(cat "$scratch/early/daemons/x.exit")" = "75 75 stopped" ] || fail "a launcher that died by USR1: $rc $(cat "$scratch/early/daemons/x.exit")"

# A launcher that cannot start any rank: its own output and exit code, at once, no restart. A failure after ranks have run is retried.
mkdir "$scratch/fake"
cat > "$scratch/fake/mpirun" <<'END'
#!/bin/bash
[ "$1" != --version ] || { echo "mpirun (Open MPI) 5.0.7"; exit 0; }
dir=$(cat "$(dirname "$0")/run")
echo "launch" >> "$dir/launches"
if [ -e "$dir/launch.ranks" ]; then
	rm "$dir/launch.ranks"
	while [[ "$1" != */trainerd ]]; do shift; done
	OMPI_COMM_WORLD_RANK=0 "$@" &
	while [ ! -e "$dir/daemons/trainerd-0.json" ]; do sleep 0.1; done
	sleep 1
	kill %1
	wait
	exit 1
fi
printf '%s\n' ---------- "No network interfaces were found for out-of-band communications." "mpirun cannot continue." ---------- >&2
exit 213
END
chmod +x "$scratch/fake/mpirun"
echo "$run" > "$scratch/fake/run"
rm "$run"/trainerd-*.end "$run/logs/trainerd.log"
launched() { [ "$(wc -l < "$run/launches")" -ge "$1" ]; }
fake_mpirun() { PATH=$scratch/fake:$PATH local_sh "$@"; }
rc=0
fake_mpirun up --wait --only trainer > "$scratch/out" 2>&1 || rc=$?
[ $rc -eq 213 ] || fail "a launcher that cannot start: exit code $rc, expected 213: $(cat "$scratch/out")"
[ "$(cat "$run/daemons/trainerd.exit")" = "213 failed" ] || fail "trainerd.exit: $(cat "$run/daemons/trainerd.exit")"
! launched 2 || fail "a launcher that cannot start was started $(wc -l < "$run/launches") times"
for words in 'No network interfaces were found' 'mpirun cannot continue'; do
	grep -q "^trainerd: $words" "$scratch/out" && grep -q "$words" "$run/logs/trainerd.log" ||
	    fail "\"$words\" is not shown or not in the log: $(cat "$scratch/out" "$run/logs/trainerd.log")"
done
grep -q 'event=launcher.failed .*code=213' "$run/logs/trainerd.log" || fail "the log does not name the failure: $(cat "$run/logs/trainerd.log")"
touch "$run/launch.ranks"
fake_mpirun up --only trainer > "$scratch/out" 2>&1 || fail "up of a launcher that starts ranks: exit code $?: $(cat "$scratch/out")"
within 20 "another start" launched 4
[ ! -e "$run/daemons/trainerd.exit" ] || fail "a launcher that started ranks before is not retried: $(cat "$run/daemons/trainerd.exit")"
fake_mpirun down > /dev/null

# run.dir is removed while a fleet runs: a second fleet is refused, and down still finds the first.
rm -f "$run"/*.end "$root/phase"
local_sh up --only teachers > /dev/null
pid=$(cat "$run/daemons/teacherd-0.pid")
mv "$run" "$scratch/moved"
rc=0
local_sh up > "$scratch/out" 2>&1 || rc=$?
[ $rc -eq 75 ] && grep -q "was removed or replaced while its fleet runs: teacherd-0 (pid [0-9]*)" "$scratch/out" || fail "up beside a lost fleet: $rc: $(cat "$scratch/out")"
local_sh status > "$scratch/out" 2>&1 || true
grep -q '^teacherd-0 *lost' "$scratch/out" || fail "status of a lost fleet: $(cat "$scratch/out")"
local_sh down > "$scratch/out" 2>&1 || fail "down of a lost fleet: $?: $(cat "$scratch/out")"
grep -q '^teacherd-0: stopped' "$scratch/out" && ! kill -0 "$pid" 2> /dev/null || fail "down leaves the lost fleet running: $(cat "$scratch/out")"

# A caller's shell with other settings: aliases of cd and grep, a decimal comma, other shell options; called through a link, from another folder.
mkdir -p "$scratch/links"
ln -s "$SOURCE/deploy/local.sh" "$scratch/links/fleet"
cat > "$scratch/env" <<'END'
set -o noclobber -o posix
shopt -s nullglob failglob
grep() { command grep -v "$@"; }
export -f grep
END
odd() { (cd "$scratch" && env CDPATH=.:/tmp: GREP_OPTIONS=-v POSIXLY_CORRECT=1 LC_NUMERIC=de_DE LC_ALL=de_DE IFS=/ BASH_ENV="$scratch/env" timeout 60 "$@"); }
for how in "$scratch/links/fleet" "bash $SOURCE/deploy/local.sh"; do
	# shellcheck disable=SC2086
	odd $how up -c "a fleet/fleet.yaml" --bin "bin dir" --only teachers > "$scratch/out" 2>&1 || fail "up in an odd shell ($how): $?: $(cat "$scratch/out")"
	grep -q '^teacherd-0: up, pid [0-9]' "$scratch/out" || fail "up in an odd shell ($how): $(cat "$scratch/out")"
	# shellcheck disable=SC2086
	odd $how down -c "a fleet/fleet.yaml" --bin "bin dir" > "$scratch/out" 2>&1 || fail "down in an odd shell ($how): $?: $(cat "$scratch/out")"
	grep -q '^teacherd-1: stopped' "$scratch/out" || fail "down in an odd shell ($how): $(cat "$scratch/out")"
done

# Wrong use.
for wrong in "up -x" "sideways" "up --only nobody" "restart --wait" "up -f" "status --only trainer" "logs --only trainer" "status more" \
    "up --wait --only teachers" "up --wait --but trainerd" "down --but teacher-0" "up --only selectord-2" "up --only selectord-0,selectord-7" \
    "status --but trainerd" "down --hosts a:1" "up --supervisors"; do
	rc=0
	# shellcheck disable=SC2086
	local_sh $wrong > /dev/null 2>&1 || rc=$?
	[ $rc -eq 64 ] || fail "$wrong: exit code $rc, expected 64"
done
rc=0
local_sh down --only "" > "$scratch/out" 2>&1 || rc=$?
[ $rc = 64 ] && grep -q -- '--only: expected selectord, teachers or trainer, found nothing' "$scratch/out" || fail "down --only \"\": $rc $(cat "$scratch/out")"
local_sh down --only teacherd-9 > "$scratch/out" && grep -q '^teacherd-9: there is none in .*/run$' "$scratch/out" || fail "down of a name that never ran: $(cat "$scratch/out")"
mv "$run/daemons" "$scratch/daemons.away"
local_sh drain teachers > "$scratch/out" && grep -q '^no teacher was started in .*/run$' "$scratch/out" || fail "drain of no teacher: $(cat "$scratch/out")"
mv "$scratch/daemons.away" "$run/daemons"
# After a power cut NAME.exit may be empty.
: > "$run/daemons/teacherd-0.exit"
local_sh status > "$scratch/out" 2>&1 || fail "status with an empty teacherd-0.exit: $? $(cat "$scratch/out")"
grep -q '^teacherd-0 *unknown .*exit code not known: .*/teacherd-0.exit is empty or damaged' "$scratch/out" && grep -q 'status asked' "$scratch/out" ||
	fail "status with an empty teacherd-0.exit: $(cat "$scratch/out")"
# In a tree without a build the message names the folder of a build, not that of an installation.
mkdir -p "$scratch/tree"
cp -r "$SOURCE/deploy" "$scratch/tree/deploy"
rc=0
env -u BIN "$scratch/tree/deploy/local.sh" status -c "$root/fleet.yaml" > "$scratch/out" 2>&1 || rc=$?
[ $rc -eq 69 ] && grep -q '/build/bin/saltctl does not exist.*--bin DIR' "$scratch/out" || fail "no build: $rc: $(cat "$scratch/out")"
