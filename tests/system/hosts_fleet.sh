# SPDX-License-Identifier: Apache-2.0
# Sourced by hosts.sh and hosts_stalled.sh after netns.sh, lib.sh, small.sh: a fleet on four hosts, and the same fleet on one host.
own=$scratch/hosts run=$scratch/shared
trap 'for h in "${!host_pid[@]}"; do kill "${host_pid[$h]}" 2> /dev/null || true; done; cleanup' EXIT

# fleet_files SELECTOR STEPS PHASE_ONE [TRAINER]: makes corpus and models, quiet.yaml for one host and fleet.yaml for four, the latter with these
# options of selector and trainer.
fleet_files() {
	small_corpus
	small_model "$scratch/student" -
	small_fleet quiet.yaml "$(free_port)"
	sed -i "s/steps: 12,/steps: $2,/; s/checkpoint_every: 3/checkpoint_every: 20/; s/phase_one: {steps: 6/phase_one: {steps: $3/; s/eval_every: 6/eval_every: 100/" quiet.yaml
	small_teachers quiet.yaml
	sed "s|$scratch/|/mnt/data/|g; s/run: {dir: run/run: {dir: \/mnt\/run/; s/endpoints: .*label_ahead_steps.*}/endpoints: [\"tcp:\/\/selector:5750\"], lease_sequences: 8, lease_s: 1, $1}/; s/trainer: {/trainer: {${4:+$4, }/" \
	    quiet.yaml > fleet.yaml
	cat >> fleet.yaml <<YAML
security: {curve_dir: /mnt/keys}
status: {bind: "tcp://*:*"}
YAML
}

quiet_run() {
	timeout 100 "$SOURCE/deploy/local.sh" up --wait --bin "$BIN" -c quiet.yaml > out 2>&1 || fail "the quiet run: $(cat out)"
	timeout 60 "$SOURCE/deploy/local.sh" down --bin "$BIN" -c quiet.yaml > /dev/null
}

# Each host gets its own secret key, all public keys, and the files that it needs according to docs/operation.md.
hosts_up() {
	local h
	mkdir -p "$run" "$own"
	"$BIN/saltctl" keygen keys > /dev/null || fail "saltctl keygen"
	host_new selector
	host_new teachers
	host_new trainer-a "$run"
	host_new trainer-b "$run"
	for h in "${!host_pid[@]}"; do
		mkdir -m 700 "$own/$h/keys"
		cp keys/*.pub "$own/$h/keys"
		cp fleet.yaml "$own/$h"
	done
	cp -p keys/selector.key keys/client.key "$own/selector/keys"
	cp -p keys/teacher.key "$own/teachers/keys"
	for h in trainer-a trainer-b; do
		cp -p keys/trainer.key "$own/$h/keys"
		cp -r train.* held.* student "$own/$h/data"
	done
	cp -r train.* held.* "$own/selector/data"
	for h in selector teachers; do cp -rL teacher scorer "$own/$h/data"; done
	for h in trainer-a trainer-b; do launch_agent "$own/$h/agent" trainer-a trainer-b; done
}

# local_sh HOST VERB ...: runs local.sh on that host, for its own daemons.
local_sh() { on "$1" timeout 60 /mnt/source/deploy/local.sh "${@:2}" --bin /mnt/bin -c /mnt/fleet.yaml > out 2>&1 || fail "$*: exit code $?: $(cat out)"; }
says() { grep -q -- "$1" out || fail "expected to hear \"$1\", heard: $(cat out)"; }

# trainer_up HOST...: starts one rank on each host, with mpirun on the first.
trainer_up() {
	local list
	list=$(printf ',%s:1' "$@")
	rm -f $run/daemons/trainerd-*.json
	on trainer-a env OMP_WAIT_POLICY=passive SALT_SSH=/mnt/agent /mnt/bin/saltfleet-supervise trainerd /mnt/run --detach --stop USR1 -- \
	    /mnt/source/deploy/mpi.sh --hosts "${list#,}" --network 10.77.0.0/24 -n $# \
	    /mnt/bin/trainerd -c /mnt/fleet.yaml --set trainer.ranks=$# < /dev/null > /dev/null 2>&1
	until_file $run/daemons/trainerd-$(($# - 1)).json
}
trainer_down() {
	kill -TERM "$(cut -d' ' -f1 $run/daemons/trainerd.supervisor)"
	flock -w 30 $run/daemons/trainerd.lock true || fail "the trainer does not end"
}

until_file() {		# until_file FILE [SECONDS]
	local tenths=$((${2:-30} * 10))
	until [ -e "$1" ]; do
		[ $((tenths--)) -gt 0 ] || { tail -n 5 "$(dirname "$1")"/../logs/*.log >&2; fail "no $1"; }
		sleep 0.1
	done
}
step() { { tail -n 3 $run/metrics.jsonl 2> /dev/null || true; } | sed -n 's/.*"kind":"step","step":\([0-9]*\).*/\1/p' | tail -n 1; }
wait_step() {		# wait_step N [SECONDS]
	local tenths=$((${2:-60} * 10)) now
	while :; do
		now=$(step)
		[ "${now:-0}" -lt "$1" ] || return 0
		[ $((tenths--)) -gt 0 ] || { tail -n 8 $run/logs/*.log "$own"/{selector,teachers}/run/logs/*.log >&2; fail "no step $1; it is at ${now:-0}"; }
		sleep 0.1
	done
}
in_phase_one() { ! grep -q '"event":"switch"' $run/metrics.jsonl || fail "phase one is over: the test does not test what it says"; }

# pids: the running processes, without the trainer's ranks.
pids() { cat $run/daemons/trainerd.pid "$own"/selector/run/daemons/selectord.pid "$own"/teachers/run/daemons/teacherd-0.pid; }

# seen NAME@HOST ...: checks that exactly these daemons answer on their status sockets.
seen() {
	local rc tries
	for tries in 1 2 3 4 5 6; do
		rc=0
		on selector /mnt/bin/saltctl status --json -c /mnt/fleet.yaml > status.json 2> status.err || rc=$?
		python3 -c 'import json, sys; print(*sorted(d["name"] + "@" + d["host"] for d in json.load(open("status.json"))["daemons"] if d["answered"]))' \
		    > seen 2>> status.err || rc=$?
		[ $rc -ne 0 ] || [ "$(cat seen)" != "$*" ] || return 0
		sleep 0.5
	done
	fail "status: exit code $rc, $(cat seen status.err)"
}

# to_the_end: waits until the last step is done, and compares the losses with those of the undisturbed run.
to_the_end() {
	until_file $run/daemons/trainerd.exit 60
	[ "$(cat $run/daemons/trainerd.exit)" = "0 done" ] || fail "the end: $(cat $run/daemons/trainerd.exit): $(tail -n 5 $run/logs/trainerd.log)"
	steps() { grep -v '"kind":"event"' "$1/metrics.jsonl" | sed 's/,"tokens".*//'; }
	steps run > want
	steps "$run" > got
	same want got "four hosts"
	! grep -q 'quarantined' "$own/selector/run/logs/selectord.log" || fail "a sequence was quarantined: $(grep quarantined "$own/selector/run/logs/selectord.log")"
	local_sh teachers down
	local_sh selector down
}
