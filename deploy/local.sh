#!/bin/bash
# local.sh - a fleet on this machine, each daemon under a supervisor that starts it again when it dies. docs/operation.md tells more.
set -euo pipefail

usage() {
	cat <<'END'
usage: local.sh VERB -c fleet.yaml [--set section.key=value ...] [options]

  up [--only PARTS] [--wait]   start what is not running: selectord (one per endpoint), deploy.teachers teacherd, mpirun with
                               trainer.ranks trainerd. A baseline and a run in phase two get the trainer alone.
                               --wait: show progress until the trainer ends; its exit code is ours
  down [--only PARTS]          stop: trainer (which writes a checkpoint), then teachers, then selectord
  restart [--only PARTS]       down, then up
  scale teachers=N trainers=R  one or both, while the fleet runs. Teachers: missing numbers are started, the highest stopped, nobody else
                               notices. Trainers: checkpoint, stop, start with R ranks, the same losses. Later ups keep these numbers
  drain NAME ...               teacherd-1 .. or teachers (all): hand their leases back and end, until the next up, restart or scale
  status                       supervisors, then what the daemons say of themselves (saltctl status)
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

  PARTS: selectord, teachers, trainer, or several with commas
  --bin DIR                    folder of the programs (default: $BIN, build/bin of this source tree, or bin of where this is installed)
END
}
die() { echo "local.sh: $2" >&2; exit "$1"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${BIN:-$here/../build/bin}
[ -n "${BIN-}" ] || [ -d "$bin" ] || bin=$here/../../../bin		# installed: PREFIX/share/saltfleet/deploy, PREFIX/bin
verb='' config='' only='' await=0 follow=0 set_options=() names=()
while [ $# -gt 0 ]; do
	case "$1" in
	-c | --config | --set | --only | --bin)
		[ $# -ge 2 ] || die 64 "an argument is missing after $1"
		case "$1" in
		--set) set_options+=(--set "$2") ;;
		--only) only=$2 ;;
		--bin) bin=$2 ;;
		*) config=$2 ;;
		esac
		shift ;;
	--wait) await=1 ;;
	-f) follow=1 ;;
	-h | --help) usage; exit 0 ;;
	-*) die 64 "unknown option $1; see local.sh --help" ;;
	*) if [ -z "$verb" ]; then verb=$1; else names+=("$1"); fi ;;
	esac
	shift
done
case "$verb" in
up | down | restart | scale | drain | status | logs) ;;
"") usage >&2; exit 64 ;;
*) die 64 "unknown verb $verb; see local.sh --help" ;;
esac
case "$verb" in
scale | drain)
	[ -z "$only" ] || die 64 "$verb takes no --only; see local.sh --help"
	[ ${#names[@]} -gt 0 ] || die 64 "$verb what? such as: local.sh $([ "$verb" = scale ] && echo scale teachers=4 || echo drain teacherd-1) -c fleet.yaml" ;;
logs) ;;
*) [ ${#names[@]} -eq 0 ] || die 64 "unexpected argument ${names[0]}" ;;
esac
[ -n "$config" ] || die 64 "which fleet? give -c fleet.yaml"
case ",$only," in *[!a-z,]*) die 64 "--only: expected selectord, teachers, trainer, found $only" ;; esac
for part in ${only//,/ }; do
	case "$part" in selectord | teachers | trainer) ;; *) die 64 "--only: expected selectord, teachers, trainer, found $part" ;; esac
done
[ -r "$config" ] || die 66 "$config: cannot be read"
config=$(cd "$(dirname "$config")" && pwd)/$(basename "$config")
for program in saltctl selectord teacherd trainerd; do
	[ -x "$bin/$program" ] || die 69 "$bin/$program is not there; build first: cmake --preset release && cmake --build --preset release"
done
bin=$(cd "$bin" && pwd)

# Teams of threads that wait by spinning starve the daemons beside them.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# ---- the configuration, as the programs read it ----

get() { "$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} --get "$1"; }		# get SECTION.KEY
run=$(get run.dir) || exit $?
[ -n "$run" ] || die 78 "$config: run.dir is required"
daemons=$run/daemons logs=$run/logs metrics=$run/metrics.jsonl

# ---- how many: --set of this call, else what `scale` left in daemons/scale, else fleet.yaml ----

declare -A option=([teachers]=deploy.teachers [trainers]=trainer.ranks) scaled=()

read_scale() {		# daemons/scale: "teachers=4 trainers=2", or one of them, or no file
	local words=() word
	[ -e "$daemons/scale" ] || return 0
	read -ra words < "$daemons/scale" || true
	for word in ${words[@]+"${words[@]}"}; do
		[[ $word =~ ^(teachers|trainers)=([0-9]{1,5})$ ]] || die 65 "$daemons/scale: expected teachers=N trainers=R, found $word; \
without this file the numbers of $config hold"
		scaled[${BASH_REMATCH[1]}]=$((10#${BASH_REMATCH[2]}))
	done
}

write_scale() {		# a number that is fleet.yaml's is not kept: who edits it later is heard
	local what line=''
	for what in teachers trainers; do
		[ -n "${scaled[$what]-}" ] || continue
		if [ "${scaled[$what]}" = "$("$bin/saltctl" config check -c "$config" --get "${option[$what]}")" ]; then
			unset "scaled[$what]"
		else
			line="$line${line:+ }$what=${scaled[$what]}"
		fi
	done
	if [ -n "$line" ]; then
		if ! { mkdir -p "$daemons" && echo "$line" > "$daemons/scale.tmp" && mv -f "$daemons/scale.tmp" "$daemons/scale"; }; then
			die 73 "$daemons/scale: cannot be written"
		fi
	else
		rm -f "$daemons/scale"
	fi
}

set_here() {		# set_here KEY: does --set of this call name it?
	local o
	for o in ${set_options[@]+"${set_options[@]}"}; do
		case "$o" in "$1="*) return 0 ;; esac
	done
	return 1
}

count() {		# count teachers|trainers
	if [ -n "${scaled[$1]-}" ] && ! set_here "${option[$1]}"; then echo "${scaled[$1]}"; else get "${option[$1]}"; fi
}

check_ranks() {		# may this run have so many? saltctl reads the configuration as trainerd does, and says what is wrong
	local lanes n fit=''
	! "$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} --set "trainer.ranks=$1" --get trainer.ranks > /dev/null ||
	    return 0
	lanes=$(get trainer.lanes) || exit $?
	for ((n = 1; n <= lanes; n *= 2)); do fit="$fit $n"; done
	die 78 "trainers=$1: trainer.lanes of this run is $lanes, so it can have one of$fit"
}

wanted() { [ -z "$only" ] || case ",$only," in *",$1,"*) ;; *) return 1 ;; esac; }

# ---- one daemon ----

# A shared lock: who looks at the same moment is not taken for the daemon.
running() { [ -e "$daemons/$1.lock" ] && ! flock -s -n "$daemons/$1.lock" true; }

supervisor_of() {	# pid of a supervisor that lives; nothing otherwise
	local pid=''
	[ ! -r "$daemons/$1.supervisor" ] || read -r pid _ < "$daemons/$1.supervisor" || true
	if [ -n "$pid" ] && running "$1" && kill -0 "$pid" 2>/dev/null; then
		echo "$pid"
	fi
}

start() {		# start NAME [supervisor's options] -- COMMAND ...
	local name=$1
	if [ -n "$(supervisor_of "$name")" ]; then
		echo "$name: runs already"
		return
	fi
	rm -f "$daemons/$name.exit" "$daemons/$name.supervisor"
	if [ "$name" = trainerd ]; then rm -f "$daemons"/trainerd-*.json; else rm -f "$daemons/$name.json"; fi
	# A session of its own: ^C and a closed terminal are not for the daemons.
	name=$1
	shift
	setsid --fork "$here/supervise.sh" "$name" "$run" "$@" </dev/null >/dev/null 2>&1
	started+=("$name")
}

why_not() {		# the last lines that say something, for a daemon that did not stay up
	local said
	said=$(grep -v 'prog=supervise' "$logs/$1.log" 2>/dev/null | tail -n 60 || true)
	{ grep 'level=error' <<< "$said" || grep -v -e '^[-[:space:]]*$' -e '^mpirun' -e '^Primary job' -e '^a non-zero' <<< "$said"; } |
	    tail -n 2 | sed "s/^/$1: /" >&2 || true
}

# Up to 15 s until each that was started has announced itself or ended. What is slower than that goes on starting.
started=()
await_started() {
	local name announced code word i
	for name in ${started[@]+"${started[@]}"}; do
		announced=$daemons/$name.json
		[ "$name" != trainerd ] || announced=$daemons/trainerd-0.json
		for ((i = 0; i < 150; i++)); do
			if [ -e "$daemons/$name.exit" ]; then
				read -r code word < "$daemons/$name.exit"
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
			echo "$name: starting; see $logs/$name.log"
		fi
	done
}

stop_all() {		# stop_all NAME ...: all at once; each has 20 s, then the supervisor kills it; at the latest we do
	local name pid asked=()
	for name in "$@"; do
		pid=$(supervisor_of "$name")
		if [ -n "$pid" ]; then
			kill -TERM "$pid" 2>/dev/null || true
			asked+=("$name")
		elif running "$name"; then		# its supervisor was killed; it was told so
			asked+=("$name")
		fi
	done
	for name in ${asked[@]+"${asked[@]}"}; do
		if ! flock -s -w 30 "$daemons/$name.lock" true; then
			for pid in "$(supervisor_of "$name")" "$(cat "$daemons/$name.pid" 2>/dev/null || true)"; do
				[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
			done
			flock -s -w 5 "$daemons/$name.lock" true || die 75 "$name does not end, not even when killed"
		fi
		echo "$name: stopped"
	done
}

names_of() {		# supervised names that match a pattern
	local f
	for f in "$daemons"/$1.lock; do
		[ ! -e "$f" ] || basename "$f" .lock
	done
}

start_teacher() {	# start_teacher NUMBER
	start "teacherd-$1" -- "$bin/teacherd" -c "$config" ${set_options[@]+"${set_options[@]}"} --name "teacherd-$1"
}

start_trainer() {	# start_trainer RANKS
	local mpi=()
	command -v mpirun >/dev/null || die 69 "mpirun is not there; deploy/install-deps.sh installs it"
	# Slots are physical cores to mpirun, so two ranks on one core with two threads need --oversubscribe as well.
	# shellcheck disable=SC2054	# the commas are mpirun's
	mpi=(mpirun -n "$1" --bind-to none --oversubscribe --mca pml ob1 --mca btl self,vader --mca btl_vader_single_copy_mechanism none
	    --mca oob_tcp_if_include lo --mca mpi_yield_when_idle 1)
	[ "$(id -u)" -ne 0 ] || mpi+=(--allow-run-as-root)
	[ -n "$(supervisor_of trainerd)" ] || echo "$1" > "$daemons/trainerd.ranks"
	# mpirun hands USR1 on at once, TERM late.
	start trainerd --stop USR1 -- "${mpi[@]}" "$bin/trainerd" -c "$config" ${set_options[@]+"${set_options[@]}"} --set "trainer.ranks=$1"
}

# ---- verbs ----

has_phase_one() { [ "$(get phase_one.steps)" != 0 ] || [ "$(get phase_one.until_margin)" != none ]; }
switched() { grep -qs '"event": *"switch"' "$metrics"; }

up() {
	local shards teachers ranks i fleet=1
	mkdir -p "$daemons" "$logs" || die 73 "$run: cannot be made"
	if [ -z "$only" ] && ! has_phase_one; then
		fleet=0
	elif [ -z "$only" ] && switched; then
		echo "phase two: the trainer needs nobody else (--only selectord,teachers starts them all the same)"
		fleet=0
	fi
	if [ $fleet -eq 1 ] && wanted selectord; then
		shards=$(get selector.endpoints | awk -F', ' '{ print NF }')	# [tcp://A:1, tcp://A:2]
		for ((i = 0; i < shards; i++)); do
			start "selectord$([ "$shards" -eq 1 ] || echo "-$i")" -- "$bin/selectord" -c "$config" \
			    ${set_options[@]+"${set_options[@]}"} --shard "$i"
		done
	fi
	if [ $fleet -eq 1 ] && wanted teachers; then
		teachers=$(count teachers) || return
		for ((i = 0; i < teachers; i++)); do start_teacher "$i"; done
	fi
	if wanted trainer; then
		ranks=$(count trainers) || return
		[ -z "${scaled[trainers]-}" ] || check_ranks "$ranks"		# fleet.yaml may have changed since
		start_trainer "$ranks"
	fi
	await_started
}

down() {
	# shellcheck disable=SC2046	# names have no spaces
	{
		! wanted trainer || stop_all $(names_of trainerd)
		! wanted teachers || stop_all $(names_of 'teacherd-*')
		! wanted selectord || stop_all $(names_of 'selectord*')
	}
}

teachers_here() {	# teacherd-K that were ever started, the highest first
	names_of 'teacherd-*' | grep -E '^teacherd-[0-9]+$' | sort -t - -k 2 -n -r || true
}

anybody_up() {
	local name
	for name in $(names_of '*'); do
		[ -z "$(supervisor_of "$name")" ] || return 0
	done
	return 1
}

scale_teachers() {	# scale_teachers N: teacherd-0 .. teacherd-(N-1) run, others do not
	local n=$1 i name over=()
	for name in $(teachers_here); do
		[ "${name#teacherd-}" -lt "$n" ] || ! running "$name" || over+=("$name")
	done
	stop_all ${over[@]+"${over[@]}"}
	if ! has_phase_one || switched; then
		echo "teachers: the trainer needs none any more; kept for up --only teachers"
	elif ! anybody_up; then
		echo "teachers: nothing of this fleet runs here; up starts $n"
	else
		for ((i = 0; i < n; i++)); do start_teacher "$i"; done
		[ "$n" -gt 0 ] || echo "teachers: none; the trainer waits when its rows are used up"
	fi
}

scale_trainer() {	# scale_trainer RANKS
	if [ -z "$(supervisor_of trainerd)" ]; then
		echo "trainerd: does not run; up starts it with $1 ranks"
	elif [ "$(cat "$daemons/trainerd.ranks" 2>/dev/null || true)" = "$1" ]; then
		echo "trainerd: runs already with $1 ranks"
	else
		# An up --wait elsewhere is to go on waiting: see scaling.
		trap 'rm -f "$daemons/scaling"' EXIT
		echo $$ > "$daemons/scaling"
		stop_all trainerd
		start_trainer "$1"
	fi
}

scaling() {		# is the trainer between its two numbers of ranks?
	local pid=''
	{ read -r pid < "$daemons/scaling"; } 2>/dev/null && kill -0 "$pid" 2>/dev/null
}

# Everything is checked and written down before anything is stopped: after an interruption the same scale, or up, does the rest.
scale() {
	local word what n
	declare -A to=()
	for word in "${names[@]}"; do
		[[ $word =~ ^(teachers|trainers)=([0-9]{1,5})$ ]] ||
		    die 64 "scale: expected teachers=N or trainers=R, found $word; such as: local.sh scale teachers=4 trainers=2 -c fleet.yaml"
		what=${BASH_REMATCH[1]} n=$((10#${BASH_REMATCH[2]}))
		[ -z "${to[$what]-}" ] || die 64 "scale: $what= is given twice"
		! set_here "${option[$what]}" || die 64 "scale: $what=$n and --set ${option[$what]}: give one of them"
		to[$what]=$n
	done
	if [ -n "${to[teachers]-}" ]; then
		"$bin/saltctl" config check -c "$config" --set "deploy.teachers=${to[teachers]}" --get deploy.teachers > /dev/null || exit $?
	fi
	if [ -n "${to[trainers]-}" ]; then
		[ "${to[trainers]}" -gt 0 ] || die 64 "trainers=0: expected 1 or more; local.sh down --only trainer -c fleet.yaml stops it"
		check_ranks "${to[trainers]}"
		command -v mpirun > /dev/null || die 69 "mpirun is not there; deploy/install-deps.sh installs it"
	fi
	for what in "${!to[@]}"; do scaled[$what]=${to[$what]}; done
	write_scale
	[ -z "${to[teachers]-}" ] || scale_teachers "${to[teachers]}"
	[ -z "${to[trainers]-}" ] || scale_trainer "${to[trainers]}"
	await_started
}

# Leaves daemons/scale alone: who is drained comes back with the next up. For fewer of them from now on there is scale.
drain() {
	local name code word rc=0 list=() asked=() left=0
	for name in "${names[@]}"; do
		if [ "$name" = teachers ]; then
			mapfile -t -O ${#list[@]} list < <(teachers_here)
		elif ! [[ $name =~ ^teacherd-[0-9]+$ ]]; then
			die 64 "drain: $name is not a teacher; type teacherd-0, teacherd-1 .. or teachers. Others: local.sh down --only trainer (or selectord)"
		elif [ ! -e "$daemons/$name.lock" ]; then
			die 64 "drain: there is no $name in this fleet; there are: $(teachers_here | sort -V | paste -s -d ' ')"
		else
			list+=("$name")
		fi
	done
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
			echo "$name: ended with $code and handed nothing back; others get its leases after selector.lease_s; $logs/$name.log" >&2
			rc=75
		fi
	done
	for name in $(teachers_here); do
		! running "$name" || left=1
	done
	[ $left -eq 1 ] || switched || ! running trainerd || echo "no teacher is left: the trainer waits when its rows are used up; up or scale brings teachers"
	return $rc
}

field() { sed -n "s/.*\"$1\": *\([^,}]*\).*/\1/p" <<< "$2"; }

# Has the fleet gone for good while the trainer still needs it? Says who.
fleet_lost() {
	local name code word left=0 gone=''
	switched && return 1
	for name in $(names_of 'selectord*') $(names_of 'teacherd-*'); do
		if [ -e "$daemons/$name.exit" ]; then
			read -r code word < "$daemons/$name.exit"
			case "$word" in failed | gave_up) ;; *) continue ;; esac
			case "$name" in selectord*) echo "$name: $word with $code; $logs/$name.log"; return 0 ;; esac
			gone="$name: $word with $code; $logs/$name.log"
		elif [ "${name#teacherd}" != "$name" ]; then
			left=1
		fi
	done
	[ $left -eq 0 ] && [ -n "$gone" ] && echo "$gone"
}

wait_trainer() {
	local steps code word line step last_said=0 now t0='' s0=0 before=0 eta why
	steps=$(get trainer.steps)
	trap 'echo; echo "the fleet goes on; local.sh down -c $config stops it" >&2; exit 130' INT TERM
	while scaling || [ ! -e "$daemons/trainerd.exit" ]; do
		sleep 0.5
		if ! scaling && ! running trainerd && [ ! -e "$daemons/trainerd.exit" ]; then
			die 70 "the supervisor of the trainer was killed; up starts it again"
		fi
		now=$(date +%s)
		[ -t 2 ] || [ $((now - last_said)) -ge 15 ] || continue
		if why=$(fleet_lost); then
			die 69 "the trainer waits for rows that cannot come: $why"
		fi
		line=$(tail -n 5 "$metrics" 2>/dev/null | grep '"kind": *"step"' | tail -n 1 || true)
		step=$(field step "$line")
		[ -n "$step" ] || continue
		if [ -z "$t0" ] || [ "$step" -lt "$before" ]; then		# the start, or back to a checkpoint
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
	read -r code word < "$daemons/trainerd.exit"
	if [ "$word" != "done" ]; then
		echo "trainerd: ended with $code ($word); $logs/trainerd.log" >&2
		why_not trainerd
	fi
	return "$code"
}

supervisors() {
	local name pid started restarts code word
	if [ ${#scaled[@]} -gt 0 ]; then
		echo "scaled to $(cat "$daemons/scale"); $config has teachers=$(get deploy.teachers) trainers=$(get trainer.ranks)"
	fi
	[ -n "$(names_of '*')" ] || { echo "nothing was started in $run"; return; }
	printf '%-14s %-9s %8s %9s %s\n' daemon supervisor pid restarts since
	for name in $(names_of 'selectord*') $(names_of 'teacherd-*') $(names_of trainerd); do
		pid=$(cat "$daemons/$name.pid" 2>/dev/null || echo -)
		if [ -n "$(supervisor_of "$name")" ] && read -r _ started restarts < "$daemons/$name.supervisor"; then
			printf '%-14s %-9s %8s %9s %s\n' "$name" running "$pid" "$restarts" "$(date -d "@$started" '+%F %T')"
		elif [ -e "$daemons/$name.exit" ]; then
			read -r code word < "$daemons/$name.exit"
			printf '%-14s %-9s %8s %9s %s\n' "$name" "$word" - - "exit code $code"
		else
			printf '%-14s %-9s %8s %9s %s\n' "$name" gone - - "its supervisor was killed"
		fi
	done
}

case "$verb" in up | restart | scale | status) read_scale ;; esac
case "$verb" in
up)
	up
	[ $await -eq 0 ] || ! wanted trainer || wait_trainer
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
		[ -e "$f" ] || die 66 "$f: there is no such log"
	done
	if [ $follow -eq 1 ]; then exec tail -n 20 -F "${files[@]}"; else exec tail -n 40 "${files[@]}"; fi
	;;
esac
