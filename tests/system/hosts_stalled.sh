# SPDX-License-Identifier: Apache-2.0
# Trainers on two hosts (hosts_fleet.sh) and mpirun across them: SIGTERM to mpirun itself, a hanging rank on the other host, that host cut off for longer
# than trainer.stall_s, and a stop. Each time the trainer ends, is restarted and continues from its checkpoint. The losses are those of an
# undisturbed run on one host.
. "$(dirname "$0")/netns.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
. "$(dirname "$0")/hosts_fleet.sh"
cd "$scratch"

fleet_files "label_ahead_steps: 2, commit_ms: 160" 320 300 "stall_s: 4"
quiet_run
hosts_up
local_sh selector up --only selectord
local_sh teachers up --only teachers
log=$run/logs/trainerd.log
count() { grep -cE -- "$1" "$log" || true; }
until_count() {		# until_count N REGEX SECONDS: waits for N matching lines in the trainer's log
	local tenths=$(($3 * 10))
	until [ "$(count "$2")" -ge "$1" ]; do
		[ $((tenths--)) -gt 0 ] || { tail -n 8 "$log" >&2; fail "not $1 lines \"$2\""; }
		sleep 0.1
	done
}
# goes_on: the trainer has ended once more, for any reason, and makes steps again.
ends=0
goes_on() {
	ends=$((ends + 1))
	until_count $ends 'event=daemon.restart' 60
	until_count $((ends + 1)) 'rank=1 .*event=selectord.welcome' 60
	wait_step $(($(step) + 5))
	in_phase_one
}

trainer_up trainer-a trainer-b
wait_step 5
kill -TERM "$(cat $run/daemons/trainerd.pid)"
goes_on

held=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' $run/daemons/trainerd-1.json)
kill -STOP "$held"
until_count 1 'rank=0 .*event=watchdog.stalled' 30
goes_on
[ "$(count 'event=daemon.exit .*code=75')" -ge 1 ] || fail "a stalled run did not end with 75"
until_gone "$held"

# mpirun ends when it gets a connection to that host again; without the host there could not be two ranks.
cut_off trainer-b
until_count 2 'rank=0 .*event=watchdog.stalled' 30
brought_back trainer-b
goes_on

trainer_down
grep 'event=daemon.exit' "$log" | tail -n 1 | grep -q 'code=75' || fail "a stop across hosts: $(grep 'event=daemon.exit' "$log" | tail -n 1)"
! pgrep -f bin/trainerd > /dev/null || fail "ranks are left: $(pgrep -af bin/trainerd)"
in_phase_one
local_sh selector restart --only selectord --set selector.commit_ms=5 --set selector.label_ahead_steps=32
trainer_up trainer-a trainer-b
to_the_end
