# SPDX-License-Identifier: Apache-2.0
# A fleet on four hosts (netns.sh): selectord, teachers, and two for trainers under mpirun with TCP between them. Endpoints are names, CURVE keys are
# used, each host has only the files that it needs, and the trainers share one directory for checkpoints. While it runs it is scaled, 1 -> 4 -> 1
# teachers and 1 -> 2 trainers, and each host is cut off once for longer than a lease. The losses are those of an undisturbed run on one host.
. "$(dirname "$0")/netns.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
. "$(dirname "$0")/hosts_fleet.sh"
cd "$scratch"

# Late labels make steps slow, so that phase one lasts longer than the following tests.
fleet_files "label_ahead_steps: 2, commit_ms: 160" 320 300
quiet_run
hosts_up

# A host name that resolves to loopback, as installers often write it into /etc/hosts: it is reported, because no other host could connect.
echo "127.0.1.1 aside" >> hosts/names
start aside on selector /mnt/bin/selectord -c /mnt/fleet.yaml --set selector.endpoints='[tcp://aside:5750]' --set cache.dir=/mnt/aside --set run.dir=/mnt/aside_run
until_line aside.log 'event=bus.loopback_name .*aside'
until_file hosts/selector/aside_run/daemons/selectord.json
kill "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' hosts/selector/aside_run/daemons/selectord.json)"
wait "$aside" || fail "SIGTERM: exit $?"

# One teacher, one rank.
local_sh selector up --only selectord
local_sh teachers up --only teachers
trainer_up trainer-a
wait_step 3

# 1 -> 4 teachers; all daemons are visible from selectord's host, by name and with keys.
local_sh teachers scale teachers=4
for k in 0 1 2 3; do says "teacherd-$k: up\|teacherd-$k: runs already"; done
wait_step $(($(step) + 3))
in_phase_one
seen selectord@selector teacherd-{0,1,2,3}@teachers trainerd-0@trainer-a

# The teachers' host is cut off until its leases have gone to others and it has noticed the loss; meanwhile 1 -> 2 trainers.
cut_off teachers
until_line "$own/selector/run/logs/selectord.log" 'event=lease.expired'
trainer_down
grep -q 'event=daemon.exit .*code=75' $run/logs/trainerd.log || fail "the trainer was not stopped by its checkpoint"
trainer_up trainer-a trainer-b
until_line "$own/teachers/run/logs/teacherd-0.log" 'event=selectord.gone' 30
until_line $run/logs/trainerd.log 'rank=1 .*event=selectord.welcome'
at=$(step)
brought_back teachers
wait_step $((at + 3))
in_phase_one
seen selectord@selector teacherd-{0,1,2,3}@teachers trainerd-0@trainer-a trainerd-1@trainer-b

# 4 -> 1 teachers.
local_sh teachers scale teachers=1
for k in 3 2 1; do says "teacherd-$k: stopped"; done
wait_step $(($(step) + 3))
in_phase_one

# The host of a rank is cut off, which affects MPI's own connections. Meanwhile no step is made except one that was in progress, and no process ends.
others=$(pids)
cut_off trainer-b
sleep 0.5
at=$(step)
sleep 3
[ "$(step)" -le $((at + 1)) ] || fail "steps are made without a rank: $at, $(step)"
in_phase_one
brought_back trainer-b
wait_step $((at + 5))
in_phase_one

# selectord's host is cut off: all others notice, wait and reconnect.
cut_off selector
until_line $run/logs/trainerd.log 'rank=1 .*event=selectord.gone' 30
until_line $run/logs/trainerd.log 'rank=0 .*event=selectord.gone' 30
at=$(step)
brought_back selector
wait_step $((at + 5))
[ "$(pids)" = "$others" ] || fail "somebody was started again: $others, now $(pids)"
in_phase_one
local_sh selector restart --only selectord --set selector.commit_ms=5 --set selector.label_ahead_steps=32

to_the_end
