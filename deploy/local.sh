#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# local.sh - a fleet on this machine, each daemon under a supervisor that restarts it when it fails. See
# docs/operation.md.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

usage() {
	cat <<'END'
usage: local.sh VERB -c fleet.yaml [--set section.key=value ...] [options]

  up [--only PARTS] [--wait]   start what is not running: selectord (one per endpoint), deploy.teachers teacherd, mpirun with
                               trainer.ranks trainerd. A baseline and a run in phase two need the trainer only.
                               --wait: show progress until the trainer ends, and exit with its exit code
  down [--only PARTS]          stop: trainer (which writes a checkpoint), then teachers, then selectord
  restart [--only PARTS]       down, then up
  scale teachers=N trainers=R  one or both, while the fleet runs. Teachers: start the missing ones, stop those with the highest numbers;
                               other daemons are not affected. Trainers: checkpoint, stop, start with R ranks; the losses stay the
                               same. Later calls of up use these numbers
  drain NAME ...               teacherd-1 .. or teachers (all): return their leases and end, until the next up, restart or scale
  status                       the supervisors, then what the daemons report (saltctl status)
  logs [-f] [NAME ...]         last lines of run.dir/logs; -f follows. NAME: selectord, teacherd-0, trainerd ..

examples:
  local.sh up -c fleet.yaml
  local.sh up --wait -c fleet.yaml
  local.sh down --only trainer -c fleet.yaml
  local.sh restart --only teachers -c fleet.yaml
  local.sh scale teachers=4 trainers=2 -c fleet.yaml
  local.sh drain teacherd-3 -c fleet.yaml
  local.sh status -c fleet.yaml
  local.sh logs -f trainerd -c fleet.yaml

  PARTS: selectord, teachers, trainer, or one by its name (teacherd-3, selectord-0), or several with commas
  --but NAMES                  leave these out of PARTS (down --only teachers --but teacherd-0)
  --supervisors                status: only the supervisors; no daemon is asked
  --hosts A:2,B:2              run the ranks on these hosts, in mpirun's notation; mpirun reaches them by ssh (or $SALT_SSH)
  --bin DIR                    folder of the programs (default: $BIN, build/bin of this source tree, or the bin folder of the installation)
END
}
. "$here/fleet.sh"
own_option() {
	own_words=2
	case "$1" in
	--only)
		only=${2-}
		[ $# -lt 2 ] || [ -n "$only" ] || die 64 "--only: expected selectord, teachers or trainer, found nothing; leave it out for all" ;;
	--but) but=${2-} ;;
	--hosts) hosts=${2-} ;;
	--supervisors) supervisors_only=1 own_words=1 ;;
	*) return 1 ;;
	esac
	[ $# -ge $own_words ] || die 64 "$1 needs a value"
}
hosts='' but='' supervisors_only=0
parse "$@"
for part in ${only//,/ } ${but//,/ }; do
	[[ $part =~ ^(selectord|teachers|trainer|trainerd|selectord-[0-9]+|teacherd-[0-9]+)$ ]] ||
	    die 64 "--only, --but: expected selectord, teachers, trainer, or the name of a daemon such as teacherd-1, found $part"
done
case "$verb" in up | down | restart) ;; *) [ -z "$but" ] || die 64 "$verb takes no --but; see $self --help" ;; esac
case "$verb" in up | restart | scale) ;; *) [ -z "$hosts" ] || die 64 "$verb takes no --hosts; see $self --help" ;; esac
[ "$verb" = status ] || [ $supervisors_only -eq 0 ] || die 64 "$verb takes no --supervisors; see $self --help"

# Threads that wait by spinning take processor time from the other daemons.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# wanted NAME: is this daemon, or its kind, among those that --only and --but select?
wanted() {
	local kind=trainer
	case "$1" in selectord*) kind=selectord ;; teacherd-*) kind=teachers ;; esac
	[ -z "$only" ] || case ",$only," in *",$1,"* | *",$kind,"*) ;; *) return 1 ;; esac
	case ",$but," in *",$1,"*) return 1 ;; esac
}

pick() {		# pick NAME ...: prints the wanted ones
	local name
	for name; do
		! wanted "$name" || echo "$name"
	done
}

# ---- one daemon ----

# The supervisors on this machine, from the kernel's list of processes, so that a fleet whose run.dir was
# removed is found too. A line is "pid NAME RUN FLEET.YAML", separated by tabs.
supervisors_here() { "$bin/saltfleet-supervise" --list; }

supervisor_of() {	# pid of the running supervisor; nothing if there is none
	local pid name of from
	while IFS=$'\t' read -r pid name of from; do
		[ "$name" != "$1" ] || [ "$of" != "$run" ] || { echo "$pid"; return; }
	done < <(supervisors_here)
}

# A shared lock, so that two callers at the same moment do not take each other for the daemon.
locked() { [ -e "$daemons/$1.lock" ] && ! flock -s -n "$daemons/$1.lock" true; }	# by the supervisor or the daemon
running() { locked "$1" || [ -n "$(supervisor_of "$1")" ]; }

names_of() {		# names_of PATTERN: supervised daemons that match it
	local f pid name of from
	{
		for f in "$daemons"/$1.lock; do
			[ ! -e "$f" ] || basename "$f" .lock
		done
		while IFS=$'\t' read -r pid name of from; do
			# shellcheck disable=SC2053	# a pattern
			[ "$of" != "$run" ] || [[ $name != $1 ]] || echo "$name"
		done < <(supervisors_here)
	} | sort -u
}

# After rm -r of run.dir its daemons continue to run, but run.dir no longer shows them. This check prevents a
# second fleet beside them.
check_lost() {
	local name pid lost=''
	for name in $(names_of '*'); do
		pid=$(supervisor_of "$name")
		[ -z "$pid" ] || locked "$name" || lost="$lost $name (pid $pid)"
	done
	[ -z "$lost" ] || die 75 "$run was removed or replaced while its fleet runs:$lost; stop it first: $self down -c $config"
}

# Prints one line for each daemon that was started from this fleet.yaml when the file named another run.dir.
elsewhere() {
	local pid name of from
	while IFS=$'\t' read -r pid name of from; do
		[ "$from" != "$config" ] || [ "$of" = "$run" ] || echo "$name (pid $pid) in $of"
	done < <(supervisors_here)
}

# resolve NAME [--set KEY=VALUE]: writes the file with which NAME is started and restarted, and prints its
# path: the current fleet.yaml with all values resolved. scale only changes a number, so it begins with the
# file of the running NAME, or of another daemon of its kind.
resolve() {
	local name=$1 base=$config f said
	shift
	if [ "$verb" = scale ]; then
		for f in "$daemons/$name.yaml" "$daemons/${name%-*}"*.yaml; do
			[ ! -s "$f" ] || { base=$f; break; }
		done
	fi
	{
		echo "# What $name was started with, made from $config by $self. It is replaced at the next start."
		said=$("$bin/saltctl" config check -c "$base" ${set_options[@]+"${set_options[@]}"} "$@" 2>&1 >&3) || { echo "$said" >&2; return 78; }
	} > "$daemons/$name.yaml.tmp" 3>&1
	mv -f "$daemons/$name.yaml.tmp" "$daemons/$name.yaml" || return
	echo "$daemons/$name.yaml"
}

as_options() {		# as_options FILE: the file that resolve wrote, as --set KEY=VALUE; each word ends with a NUL
	local line section='' value
	while IFS= read -r line; do
		if [[ $line =~ ^([a-z_]+):$ ]]; then
			section=${BASH_REMATCH[1]}
		elif [[ $line =~ ^\ \ ([a-z_]+):\ (.*)\ \ \#\ (default|derived|line\ [0-9]+|--set)$ ]]; then
			value=${BASH_REMATCH[2]}
			[[ $value != \"* ]] || value=$(sed 's/^"\(.*\)"$/\1/; s/\\\(.\)/\1/g' <<< "$value")
			printf '%s\0' --set "$section.${BASH_REMATCH[1]}=$value"
		fi
	done < "$1"
}

# The settings of a resolved file, without their origins and without the numbers that scale changes.
settings() { sed '/^#/d; s/  # .*//; /^  \(ranks\|teachers\):/d'; }

already() {		# already NAME: if it runs, prints that and returns 0; its configuration does not change
	local now more=''
	[ -n "$(supervisor_of "$1")" ] || return
	if [ "$verb" = up ] && now=$("$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} 2> /dev/null) &&
	    [ -s "$daemons/$1.yaml" ] && [ "$(settings <<< "$now")" != "$(settings < "$daemons/$1.yaml")" ]; then
		more=", with other settings than $config has now; restart applies those"
	fi
	echo "$1: runs already$more"
}

start() {		# start NAME [supervisor's options] -- COMMAND ...
	local name=$1
	shift
	rm -f "$daemons/$name.exit" "$daemons/$name.supervisor"
	if [ "$name" = trainerd ]; then rm -f "$daemons"/trainerd-*.json; else rm -f "$daemons/$name.json"; fi
	"$bin/saltfleet-supervise" "$name" "$run" --detach --from "$config" "$@" || exit
	started+=("$name")
}

why_not() {		# the last lines with information, for a daemon that did not stay up
	local said
	if tail -n 1 "$logs/$1.log" 2>/dev/null | grep -q event=launcher.failed; then		# all that mpirun printed
		awk '/ prog=supervise / { if (/ event=daemon.start /) n = 0; next } !/^[-[:space:]]*$/ { line[n++] = $0 }
		    END { for (i = 0; i < n && i < 30; i++) print line[i] }' "$logs/$1.log" | sed "s/^/$1: /" >&2
		return
	fi
	said=$(grep -v 'prog=supervise' "$logs/$1.log" 2>/dev/null | tail -n 60 || true)
	{ grep 'level=error' <<< "$said" || grep -v -e '^[-[:space:]]*$' -e '^mpirun' -e '^Primary job' -e '^a non-zero' <<< "$said"; } |
	    tail -n 2 | sed "s/^/$1: /" >&2 || true
}

# read_exit NAME: sets code and word from its file. After a power cut the file may be empty.
read_exit() {
	code='' word=''
	read -r code word < "$daemons/$1.exit" || true
	[[ $code =~ ^[0-9]{1,3}$ ]] && [ -n "$word" ] || code=70 word=unknown
}

# Waits up to 15 s for each started daemon to announce itself or to end. A slower one continues to start.
started=()
await_started() {
	local name announced code word i
	for name in ${started[@]+"${started[@]}"}; do
		announced=$daemons/$name.json
		[ "$name" != trainerd ] || announced=$daemons/trainerd-0.json
		for ((i = 0; i < 150; i++)); do
			if [ -e "$daemons/$name.exit" ]; then
				read_exit "$name"
				[ "$word" != "done" ] || break
				echo "$name: ended with $code ($word); $logs/$name.log" >&2
				why_not "$name"
				return "$code"
			fi
			[ ! -e "$announced" ] || break
			sleep 0.1
		done
		if [ -e "$announced" ]; then
			echo "$name: up, pid $(cat "$daemons/$name.pid" 2>/dev/null || echo gone)"
		elif [ -e "$daemons/$name.exit" ]; then
			echo "$name: done"
		else
			echo "$name: still starting; see $logs/$name.log"
		fi
	done
}

stop_all() {		# stop_all NAME ...: stops all at once. After 20 s the supervisor kills its daemon; after 30 s this function does
	local name pid i asked=() pids=()
	for name in "$@"; do
		pid=$(supervisor_of "$name")
		if [ -n "$pid" ]; then
			kill -TERM "$pid" 2>/dev/null || true
		elif ! locked "$name"; then		# if locked: its supervisor was killed, and the kernel has sent it the stop signal
			continue
		fi
		asked+=("$name") pids+=("$pid")
	done
	for ((i = 0; i < ${#asked[@]}; i++)); do
		name=${asked[i]} pid=${pids[i]}
		if ! ended "$name" "$pid" 30; then
			for pid in "$pid" "$(cat "$daemons/$name.pid" 2>/dev/null || true)"; do
				[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
			done
			ended "$name" "${pids[i]}" 5 || die 75 "$name does not end, even after SIGKILL"
		fi
		echo "$name: stopped"
	done
}

ended() {		# ended NAME PID SECONDS: waits until the supervisor PID (may be empty) and the daemon have ended
	local end=$((SECONDS + $3))
	while [ -n "$2" ] && kill -0 "$2" 2>/dev/null; do
		[ $SECONDS -lt $end ] || return
		sleep 0.05
	done
	[ ! -e "$daemons/$1.lock" ] || flock -s -w "$3" "$daemons/$1.lock" true
}

start_teacher() {	# start_teacher NUMBER
	local resolved
	! already "teacherd-$1" || return 0
	resolved=$(resolve "teacherd-$1") || exit
	start "teacherd-$1" -- "$bin/teacherd" -c "$resolved" --name "teacherd-$1"
}

start_trainer() {	# start_trainer RANKS
	local resolved
	"$here/mpi.sh" --check || exit
	! already trainerd || return 0
	resolved=$(resolve trainerd --set "trainer.ranks=$1") || exit
	echo "$1" > "$daemons/trainerd.ranks"
	local options=(-c "$resolved")
	if [ -n "$hosts" ]; then		# the hosts have fleet.yaml, but not run.dir
		mapfile -t -d '' options < <(as_options "$resolved")
		options=(-c "$config" "${options[@]}")
	fi
	# mpirun passes USR1 to the ranks at once, TERM only after a delay.
	start trainerd --launcher --stop USR1 -- "$here/mpi.sh" ${hosts:+--hosts "$hosts"} -n "$1" "$bin/trainerd" "${options[@]}"
}

# ---- verbs ----

up() {
	local shards teachers ranks i name resolved others fleet=1
	check_lost
	others=$(elsewhere)
	[ -z "$others" ] || echo "$self: daemons that were started from this file run elsewhere, too: ${others//$'\n'/, }" >&2
	"$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} --quiet > /dev/null || exit		# reports former names of options once
	mkdir -p "$daemons" "$logs" || die 73 "$run: cannot be created"
	if [ -z "$only" ] && ! has_phase_one; then
		fleet=0
	elif [ -z "$only" ] && switched; then
		echo "phase two: the trainer needs no other daemon (--only selectord,teachers starts them anyway)"
		fleet=0
	fi
	if [ $fleet -eq 1 ]; then
		shards=$(shards) || return
		for name in ${only//,/ }; do
			case "$name" in selectord-*)
				[ "$shards" -gt 1 ] && [ "${name#selectord-}" -lt "$shards" ] ||
				    die 64 "--only: there is no $name: selector.endpoints of $config has $shards, so expected \
$([ "$shards" -eq 1 ] && echo selectord || echo "selectord-0 to selectord-$((shards - 1))")" ;;
			esac
		done
		for ((i = 0; i < shards; i++)); do
			name=$(shard_name "$i" "$shards")
			wanted "$name" && ! already "$name" || continue
			resolved=$(resolve "$name") || exit
			start "$name" -- "$bin/selectord" -c "$resolved" --shard "$i"
		done
		teachers=$(count teachers) || return
		for ((i = 0; i < teachers; i++)); do
			! wanted "teacherd-$i" || start_teacher "$i"
		done
		for name in ${only//,/ }; do		# teachers beyond that number, given by name
			case "$name" in teacherd-*) [ "${name#teacherd-}" -lt "$teachers" ] || start_teacher "${name#teacherd-}" ;; esac
		done
	fi
	if wanted trainerd; then
		ranks=$(count trainers) || return
		[ -z "${scaled[trainers]-}" ] || check_ranks "$ranks"		# fleet.yaml may have changed since scale
		start_trainer "$ranks"
	fi
	await_started
}

down() {
	local others name
	# If nothing runs here, but a fleet of this file runs elsewhere, run.dir was probably edited.
	others=$(elsewhere)
	if [ -n "$others" ] && ! set_here run.dir && ! anybody_up; then
		die 69 "nothing runs in $run, but daemons that were started from $config do elsewhere: ${others//$'\n'/, }; stop them: \
$self down -c $config --set run.dir=DIR"
	fi
	for name in ${only//,/ }; do		# a second down of a daemon says nothing, but a name that never ran may be a mistake
		case "$name" in *-*) [ -n "$(names_of "$name")" ] || echo "$name: there is none in $run" ;; esac
	done
	# shellcheck disable=SC2046	# names have no spaces
	{
		stop_all $(pick $(names_of trainerd))
		stop_all $(pick $(names_of 'teacherd-*'))
		stop_all $(pick $(names_of 'selectord*'))
	}
}

teachers_here() {	# all teacherd-K that were ever started, the highest number first
	names_of 'teacherd-*' | grep -E '^teacherd-[0-9]+$' | sort -t - -k 2 -n -r || true
}

anybody_up() {
	local name
	for name in $(names_of '*'); do
		[ -z "$(supervisor_of "$name")" ] || return 0
	done
	return 1
}

scale_teachers() {	# scale_teachers N: afterwards teacherd-0 .. teacherd-(N-1) run and no others
	local n=$1 i name over=()
	for name in $(teachers_here); do
		[ "${name#teacherd-}" -lt "$n" ] || ! running "$name" || over+=("$name")
	done
	stop_all ${over[@]+"${over[@]}"}
	if ! has_phase_one || switched; then
		echo "teachers: the trainer needs none any more; the number is kept for up --only teachers"
	elif ! anybody_up; then
		echo "teachers: no daemon of this fleet runs here; up will start $n"
	else
		for ((i = 0; i < n; i++)); do start_teacher "$i"; done
		[ "$n" -gt 0 ] || echo "teachers: none; the trainer will wait when it has used its rows"
	fi
}

scale_trainer() {	# scale_trainer RANKS
	if [ -z "$(supervisor_of trainerd)" ]; then
		echo "trainerd: does not run; up will start it with $1 ranks"
	elif [ "$(cat "$daemons/trainerd.ranks" 2>/dev/null || true)" = "$1" ]; then
		echo "trainerd: runs already with $1 ranks"
	else
		# Tells an up --wait in another process to continue waiting: see scaling.
		trap 'rm -f "$daemons/scaling"' EXIT
		echo $$ > "$daemons/scaling"
		stop_all trainerd
		start_trainer "$1"
	fi
}

scaling() {		# is a scale in progress that has stopped the trainer?
	local pid=''
	{ read -r pid < "$daemons/scaling"; } 2>/dev/null && kill -0 "$pid" 2>/dev/null
}

scale() {
	scale_words
	[ -z "${to[trainers]-}" ] || "$here/mpi.sh" --check || exit
	scale_keep
	[ -z "${to[teachers]-}" ] || scale_teachers "${to[teachers]}"
	[ -z "${to[trainers]-}" ] || scale_trainer "${to[trainers]}"
	await_started
}

# drain does not change daemons/scale: a drained teacher returns with the next up. Use scale for a lasting
# change.
drain() {
	local name code word rc=0 list=() asked=() left=0
	for name in "${names[@]}"; do
		if [ "$name" = teachers ]; then
			mapfile -t -O ${#list[@]} list < <(teachers_here)
		elif ! [[ $name =~ ^teacherd-[0-9]+$ ]]; then
			die 64 "drain: expected teachers, teacherd-0, teacherd-1 .., found $name; others stop by local.sh down --only trainer (or selectord)"
		elif [ ! -e "$daemons/$name.lock" ]; then
			die 64 "drain: there is no $name in this fleet; there are: $(teachers_here | sort -V | paste -s -d ' ')"
		else
			list+=("$name")
		fi
	done
	[ ${#list[@]} -gt 0 ] || echo "no teacher was started in $run"
	for name in ${list[@]+"${list[@]}"}; do
		if running "$name"; then asked+=("$name"); else echo "$name: does not run"; fi
	done
	stop_all ${asked[@]+"${asked[@]}"}
	for name in ${asked[@]+"${asked[@]}"}; do
		code='?' word=''
		{ read -r code word < "$daemons/$name.exit"; } 2>/dev/null || true
		if [ "$code" = 0 ]; then
			echo "0 drained" > "$daemons/$name.exit.tmp" && mv -f "$daemons/$name.exit.tmp" "$daemons/$name.exit"
		else
			echo "$name: ended with $code and did not return its leases; other teachers get them after selector.lease_s; see $logs/$name.log" >&2
			rc=75
		fi
	done
	for name in $(teachers_here); do
		! running "$name" || left=1
	done
	[ $left -eq 1 ] || switched || ! running trainerd || echo "no teacher is left: the trainer will wait when it has used its rows; up or scale starts teachers"
	return $rc
}

field() { sed -n "s/.*\"$1\": *\([^,}]*\).*/\1/p" <<< "$2"; }

# Has a daemon that the trainer still needs ended permanently? Prints which one.
fleet_lost() {
	local name code word left=0 gone=''
	for name in $(names_of 'selectord*') $(names_of 'teacherd-*'); do
		if [ -e "$daemons/$name.exit" ]; then
			read_exit "$name"
			case "$word" in failed | gave_up) ;; *) continue ;; esac
			gone="$name: $word with $code; $logs/$name.log"
			case "$name" in selectord*) left=0; break ;; esac
		elif [ "${name#teacherd}" != "$name" ]; then
			left=1
		fi
	done
	[ $left -eq 0 ] && [ -n "$gone" ] && ! switched && echo "$gone"
}

wait_trainer() {
	local steps code word line step last_said=0 now t0='' s0=0 before=0 eta why
	steps=$(get trainer.steps)
	trap 'echo; echo "the fleet continues to run; local.sh down -c $config stops it" >&2; exit 130' INT TERM
	while scaling || [ ! -e "$daemons/trainerd.exit" ]; do
		sleep 0.5
		[ -d "$daemons" ] || check_lost
		if ! scaling && ! running trainerd && [ ! -e "$daemons/trainerd.exit" ]; then
			die 70 "the supervisor of the trainer was killed, or $run was removed; up starts both again"
		fi
		now=$(date +%s)
		[ -t 2 ] || [ $((now - last_said)) -ge 15 ] || continue
		if why=$(fleet_lost); then
			die 69 "the trainer waits for rows, and no daemon is left to make them: $why"
		fi
		line=$(tail -n 5 "$metrics" 2>/dev/null | grep '"kind": *"step"' | tail -n 1 || true)
		step=$(field step "$line")
		[ -n "$step" ] || continue
		if [ -z "$t0" ] || [ "$step" -lt "$before" ]; then		# first step seen, or the trainer went back to a checkpoint
			t0=$now s0=$step
		fi
		before=$step
		eta=''
		[ "$step" -le "$s0" ] || eta=" eta $(((now - t0) * (steps - step) / (step - s0))) s"
		last_said=$now
		line=$(printf 'step %d of %d  phase %d  loss %.4f%s' "$step" "$steps" "$(field phase "$line")" "$(field loss "$line")" "$eta")
		if [ -t 2 ]; then printf '\r%s\033[K' "$line" >&2; else echo "$line" >&2; fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
	read_exit trainerd
	if [ "$word" != "done" ]; then
		echo "trainerd: ended with $code ($word); $logs/trainerd.log" >&2
		why_not trainerd
	fi
	return "$code"
}

supervisors() {
	local name pid started restarts since code word
	if [ ${#scaled[@]} -gt 0 ]; then
		echo "scaled to $(cat "$daemons/scale"); $config has teachers=$(get deploy.teachers) trainers=$(get trainer.ranks)"
	fi
	[ -n "$(names_of '*')" ] || { echo "no daemon was started in $run"; return; }
	printf '%-14s %-9s %8s %9s %s\n' daemon supervisor pid restarts since
	for name in $(names_of 'selectord*') $(names_of 'teacherd-*') $(names_of trainerd); do
		pid=$(cat "$daemons/$name.pid" 2>/dev/null || echo -)
		if [ -n "$(supervisor_of "$name")" ] && [ -e "$daemons/$name.supervisor" ]; then
			started='' restarts=-
			read -r _ started restarts < "$daemons/$name.supervisor" || true
			if [[ "$started $restarts" =~ ^[0-9]+\ [0-9]+$ ]]; then
				since=$(date -d "@$started" '+%F %T')
			else
				restarts=- since="not known: $daemons/$name.supervisor is empty or damaged"
			fi
			printf '%-14s %-9s %8s %9s %s\n' "$name" running "$pid" "$restarts" "$since"
		elif [ -n "$(supervisor_of "$name")" ]; then
			printf '%-14s %-9s %8s %9s %s\n' "$name" lost - - "run.dir was removed under it; down stops it"
		elif [ -e "$daemons/$name.exit" ]; then
			read_exit "$name"
			[ "$word" != unknown ] || code="not known: $daemons/$name.exit is empty or damaged"
			printf '%-14s %-9s %8s %9s %s\n' "$name" "$word" - - "exit code $code"
		else
			printf '%-14s %-9s %8s %9s %s\n' "$name" gone - - "its supervisor was killed"
		fi
	done
}

case "$verb" in up | restart | scale | status) read_scale ;; esac
case "$verb" in
up)
	[ $await -eq 0 ] || wanted trainerd || die 64 "--wait waits for the trainer, which ${only:+--only $only}${but:+ --but $but} leaves out"
	up
	[ $await -eq 0 ] || wait_trainer
	;;
down) down ;;
restart)
	down
	up
	;;
scale) scale ;;
drain) drain ;;
status)
	supervisors
	[ $supervisors_only -eq 0 ] || exit 0
	echo
	exec "$bin/saltctl" status -c "$config" ${set_options[@]+"${set_options[@]}"}
	;;
logs)
	files=()
	if [ ${#names[@]} -eq 0 ]; then
		files=("$logs"/*.log)
	else
		for name in "${names[@]}"; do files+=("$logs/$name.log"); done
	fi
	for f in "${files[@]}"; do
		[ -e "$f" ] || die 66 "$f: no such log file"
	done
	if [ $follow -eq 1 ]; then exec tail -n 20 -F "${files[@]}"; else exec tail -n 40 "${files[@]}"; fi
	;;
esac
