#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# ssh.sh - a fleet on several hosts: runs local.sh on each of them through ssh. See docs/operation.md.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

usage() {
	cat <<'END'
usage: ssh.sh VERB -c fleet.yaml --hosts FILE [--set section.key=value ...] [options]

FILE has one line per host: its name for ssh, and what runs there:
    node1  selectord
    node2  teachers=4
    node3  teachers=2 trainers=1          # trainers: slots for ranks; mpirun starts on the first host that has any
    node4  trainers=1

  up [--wait]                  compare programs and fleet.yaml of all hosts with those here, copy what is missing, compare corpora and
                               models, then start what is not running: selectord, teachers, trainer. A difference is an error that
                               shows both values. --wait: show progress until the trainer ends, and exit with its exit code
  down                         stop: trainer (which writes a checkpoint), then teachers, then selectord
  restart                      down, then up
  scale teachers=N trainers=R  one or both, while the fleet runs, as local.sh does; teachers are placed on the hosts in turn
  drain NAME ...               teacherd-1 .. or teachers (all): return their leases and end, until the next up, restart or scale
  status                       what runs on each host, then what the daemons report
  logs [-f] [NAME ...]         last lines of each host's logs; -f follows. NAME: selectord, teacherd-0, trainerd ..

examples:
  ssh.sh up -c fleet.yaml --hosts hosts
  ssh.sh up --wait -c fleet.yaml --hosts hosts
  ssh.sh up --update -c fleet.yaml --hosts hosts
  ssh.sh scale teachers=8 trainers=2 -c fleet.yaml --hosts hosts
  ssh.sh drain teacherd-3 -c fleet.yaml --hosts hosts
  ssh.sh status -c fleet.yaml --hosts hosts
  ssh.sh logs -f teacherd-0 trainerd -c fleet.yaml --hosts hosts
  ssh.sh down -c fleet.yaml --hosts hosts

  --update                     replace programs, scripts and fleet.yaml that differ by those here; corpora and models are never replaced
  --bin DIR                    folder of the programs (default: $BIN, build/bin of this source tree, or the bin folder of the installation)
  SALT_SSH="ssh -F FILE"       instead of ssh -o BatchMode=yes, here and on the first trainer's host
END
}

. "$here/fleet.sh"
hosts_file='' update=0
own_option() {
	own_words=1
	case "$1" in
	--update) update=1 ;;
	--hosts)
		[ $# -ge 2 ] || die 64 "$1 needs a value"
		hosts_file=$2 own_words=2 ;;
	*) return 1 ;;
	esac
}
parse "$@"
[ -n "$hosts_file" ] || die 64 "--hosts FILE is missing; see $self --help"
[ -r "$hosts_file" ] && [ ! -d "$hosts_file" ] || die 66 "--hosts: expected a readable file, found $hosts_file"
[ $update -eq 0 ] || case "$verb" in up | restart | scale) ;; *) die 64 "$verb takes no --update" ;; esac
SALT_SSH=${SALT_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}
for program in "${SALT_SSH%% *}" rsync; do
	command -v "$program" > /dev/null || die 69 "$program is not installed: apt-get install openssh-client rsync"
done
work=$(mktemp -d "${TMPDIR:-/tmp}/salt_ssh.XXXXXX")
trap 'rm -rf "$work"' EXIT

# ---- hosts and their parts ----

hosts=() selector_hosts=() teacher_slots=() trainer_hosts=() mpi_hosts='' n_slots=0
declare -A teachers_of=() parts_of=()

read_hosts() {
	local host words word n line=0
	while read -r host words || [ -n "$host" ]; do
		line=$((line + 1))
		words=${words%%#*}
		case "$host" in
		'' | '#'*) continue ;;
		[-.@]* | *@ | *@*@* | *@[-.]* | *[!-A-Za-z0-9._@]*)
			die 65 "$hosts_file:$line: expected the name of a host, or USER@HOST, found $(printf %q "$host")" ;;
		esac
		[ -z "${parts_of[$host]-}" ] || die 65 "$hosts_file:$line: $host already has a line"
		[ -n "${words// /}" ] || die 65 "$hosts_file:$line: $host has no part: expected selectord, teachers=N or trainers=N"
		hosts+=("$host")
		for word in $words; do
			[[ $word =~ ^(selectord|(teachers|trainers)=([0-9]{1,4}))$ ]] ||
			    die 65 "$hosts_file:$line: expected selectord, teachers=N or trainers=N, found $(printf %q "$word")"
			n=$((10#${BASH_REMATCH[3]:-0}))
			[[ " ${parts_of[$host]-} " != *" ${word%%=*} "* ]] ||
			    die 65 "$hosts_file:$line: ${word%%=*} is given twice for $host; expected each part once"
			parts_of[$host]="${parts_of[$host]-} ${word%%=*}"
			case "$word" in
			selectord) selector_hosts+=("$host") ;;
			teachers=*) teachers_of[$host]=$n ;;
			trainers=*)
				[ "$n" -gt 0 ] || continue
				trainer_hosts+=("$host") n_slots=$((n_slots + n))
				mpi_hosts="$mpi_hosts${mpi_hosts:+,}${host#*@}:$n" ;;
			esac
		done
	done < "$hosts_file"
	[ ${#hosts[@]} -gt 0 ] || die 65 "$hosts_file: names no host"
	# teacherd-K runs in slot K. Slots are numbered round robin over the hosts; beyond the last slot,
	# numbering starts again at 0.
	local round=0 more=1
	while [ $more -eq 1 ]; do
		more=0
		for host in "${hosts[@]}"; do
			[ "${teachers_of[$host]-0}" -gt $round ] || continue
			teacher_slots+=("$host") more=1
		done
		round=$((round + 1))
	done
}
read_hosts
says() { if [ "$1" = teachers ] && ! set_here deploy.teachers; then echo ${#teacher_slots[@]}; else get "${option[$1]}"; fi; }

host_of() {		# host_of NAME: the host of this daemon; nothing if no host has one
	local i=0
	case "$1" in
	trainerd) echo "${trainer_hosts[0]-}" ;;
	teacherd-*) [ ${#teacher_slots[@]} -eq 0 ] || echo "${teacher_slots[${1#teacherd-} % ${#teacher_slots[@]}]}" ;;
	selectord*)
		[ "$1" = selectord ] || i=${1#selectord-}
		[ ${#selector_hosts[@]} -eq 0 ] || echo "${selector_hosts[i % ${#selector_hosts[@]}]}" ;;
	esac
}

# ---- a command on hosts ----

remote() {		# remote HOST COMMAND...: standard input is passed on
	local host=$1 word words='' quote="'\\''"
	shift
	# Single quotes mean the same in every shell; printf %q would write $'..' for letters beyond ASCII.
	for word; do words="$words '${word//\'/$quote}'"; done
	# shellcheck disable=SC2029,SC2086	# quoted here for the remote shell; SALT_SSH is split into words
	$SALT_SSH "$host" "$words"
}

local_there() {		# local_there HOST VERB ARGS...: local.sh on that host, for this fleet
	local host=$1 v=$2
	shift 2
	remote "$host" env SALT_SSH="$SALT_SSH" "$here/local.sh" "$v" -c "$config" --bin "$bin" ${set_options[@]+"${set_options[@]}"} "$@" < /dev/null
}

ended() {		# ended HOST PID: waits for the command on HOST; returns its exit code, 69 instead of ssh's own 255
	local code=0
	wait "$2" || code=$?
	[ $code -ne 255 ] || { echo "$self: $1 cannot be reached by $SALT_SSH" >&2; return 69; }
	return $code
}

# each FUNCTION HOST...: runs FUNCTION HOST for all hosts at once and prints the output host by host, each
# line with the host's name in front. Returns the first exit code of ended
# that is not 0.
each() {
	local fn=$1 host rc=0 code pids=() i=0
	shift
	for host; do
		"$fn" "$host" > "$work/$host" 2>&1 & pids+=($!)
	done
	for host; do
		code=0
		ended "$host" "${pids[i++]}" || code=$?
		sed "s/^/$host: /" "$work/$host"
		[ $rc -ne 0 ] || rc=$code
	done
	return $rc
}

# ---- comparison with the other hosts ----

# This function runs here and, sent by declare -f, on the hosts. It prints for each KIND PATH a line "KIND
# VALUE PATH"; VALUE is - for a missing file.
identities() {		# identities SALTCTL KIND PATH ...
	local ctl=$1 value
	shift
	while [ $# -gt 0 ]; do
		value=''
		case $1 in
		file) [ ! -e "$2" ] || value="sha256=$(sha256sum < "$2" | cut -c 1-32)" ;;
		corpus) [ ! -e "$2" ] && [ ! -e "$2.bin" ] || value=$("$ctl" corpus info "$2" --json 2>&1) ;;
		model) [ ! -e "$2" ] || value=$("$ctl" model info "$2" --json 2>&1) ;;
		esac
		case "$value" in
		*'"fingerprint": "'*) value=${value#*'"fingerprint": "'} value="fingerprint=${value%%'"'*}" ;;
		*'"fingerprint": null'*) 	# a model without weights
			value=$(cat "$2/config.json" 2> /dev/null || cat "$2")
			value=$(printf %s "$value" | sha256sum) value="shape=${value:0:32}" ;;
		'' | sha256=*) ;;
		*) value=$(printf '%.200s' "$value" | tr -s '[:space:]' _) ;;		# saltctl's error
		esac
		echo "$1 ${value:--} $2"
		shift 2
	done
}

identities_of() {	# identities_of HOST: writes the identities of the files in $work/HOST.ask to $work/HOST.are
	local ask=()
	mapfile -t ask < "$work/$1.ask"
	{ declare -f identities; printf 'identities'; printf ' %q' "$bin/saltctl" ${ask[@]+"${ask[@]}"}; echo; } |
	    remote "$1" bash -s > "$work/$1.are"
}

# compare HOST...: compares each line of HOST.are with the one of this machine. Writes missing files to
# HOST.lacks; if there are differences, prints them and returns 1.
compare() {
	local host kind value path ours differs=0
	local -A here_is=()
	while read -r kind value path; do here_is[$kind $path]=$value; done < "$work/here.are"
	for host; do
		: > "$work/$host.lacks"
		while read -r kind value path; do
			ours=${here_is[$kind $path]}
			if [ "$value" = - ]; then
				echo "$kind $path" >> "$work/$host.lacks"
			elif [ "$ours" = - ]; then		# missing here: compare with the first host that has it
				here_is[$kind $path]=$value
			elif [ "$value" != "$ours" ]; then
				[ "$kind" = file ] && [ $update -eq 1 ] && { echo "$kind $path" >> "$work/$host.lacks"; continue; }
				echo "$self: $host: $path: expected $ours, found $value" >&2
				differs=1
			fi
		done < "$work/$host.are"
	done
	return $differs
}

ask() {			# ask KIND PATH ...: the same list for every host and for this machine
	local host
	for host in here "${hosts[@]}"; do
		printf '%s\n' "$@" > "$work/$host.ask"
	done
}

data_of() {		# data_of HOST: KIND and PATH, a line each, of the corpora and models that its parts read
	local part parts=${parts_of[$1]}
	for part in $parts; do
		[ "$part" = teachers ] || printf 'corpus\n%s\n' "${trains[@]}"
		case "$part" in
		selectord) printf '%s\n' corpus "$heldout" model "$teacher" model "$scorer" ;;
		teachers) printf '%s\n' model "$teacher" model "$scorer" ;;
		trainers) printf '%s\n' corpus "$heldout" model "$student" model "$init" ;;
		esac
	done | paste - - | awk -F '\t' '$2 != "" && !seen[$0]++' | tr '\t' '\n'
}

copy_to() {		# copy_to HOST: copies the files that HOST.lacks names and that exist here, to the same paths
	local kind path f list=() how=(--ignore-existing)
	[ $update -eq 0 ] || how=()
	while read -r kind path; do
		case "$kind" in
		file) list+=("$path") ;;
		corpus) for f in "$path" "$path".{bin,idx,json,counts.bin}; do [ ! -f "$f" ] || list+=("$f"); done ;;
		model)
			if [ -d "$path" ]; then list+=("$path/"); elif [ -e "$path" ]; then list+=("$path"); fi
			f=$(dirname "$path")/tokenizer.json
			[ ! -f "$path" ] || [ ! -f "$f" ] || list+=("$f") ;;
		esac
	done < "$work/$1.lacks"
	[ ${#list[@]} -gt 0 ] || return 0
	echo "copying ${list[*]}"
	rsync -aRL --no-implied-dirs "${how[@]}" --exclude .salt_fingerprint -e "$SALT_SSH" "${list[@]}" "$1:/"
}

check_layout() {	# does the hosts file fit fleet.yaml?
	local ends ranks
	ends=$(get selector.endpoints)
	if has_phase_one; then
		[ ${#selector_hosts[@]} -gt 0 ] || die 65 "$hosts_file: no host has selectord, and this run has a phase one"
		[ ${#selector_hosts[@]} -le "$(shards)" ] ||
		    die 65 "$hosts_file: ${#selector_hosts[@]} hosts have selectord; selector.endpoints of $config names $(shards)"
		[ ${#hosts[@]} -eq 1 ] || case "$ends" in *//127.* | *//localhost:* | *ipc:*)
			die 78 "$config: selector.endpoints: expected addresses that all hosts reach, such as tcp://${selector_hosts[0]#*@}:5750, found $ends" ;;
		esac
	fi
	[ ${#trainer_hosts[@]} -gt 0 ] || die 65 "$hosts_file: no host has trainers=N"
	ranks=${to[trainers]:-$(count trainers)}
	[ "$ranks" -le $n_slots ] || die 78 "trainers: expected at most $n_slots, the slots that $hosts_file has, found $ranks"
}

# Checks, before anything is started or stopped, that all hosts have what they need and that it is identical
# to the files here.
same_everywhere() {
	local host lacks=() programs=("$bin"/{saltctl,selectord,teacherd,trainerd,saltfleet-supervise} "$here"/{shell,fleet,local,mpi}.sh "$config") asked=() p
	local trains heldout teacher scorer student init
	mapfile -t trains < <(get corpus.train | sed '/^\[ *{/!b; s/"prefix": "\([^"]*\)"/\n\1\n/g' | sed '/^[^/]/d')	# of a blend: a line for each prefix
	heldout=$(get corpus.heldout) teacher=$(get teacher.model) scorer=$(get teacher.scorer)
	student=$(get trainer.model) init=$(get trainer.init)
	for p in "${programs[@]}"; do asked+=(file "$p"); done
	ask "${asked[@]}"
	identities "$bin/saltctl" "${asked[@]}" > "$work/here.are"
	each identities_of "${hosts[@]}" || return
	compare "${hosts[@]}" || die 78 "programs, scripts or fleet.yaml differ from those here; --update replaces them by those of this machine"
	each copy_to "${hosts[@]}" || return
	: > "$work/all.ask"
	for host in "${hosts[@]}"; do
		data_of "$host" > "$work/$host.ask"
		cat "$work/$host.ask" >> "$work/all.ask"
	done
	mapfile -t asked < "$work/all.ask"
	identities "$bin/saltctl" "${asked[@]}" > "$work/here.are"
	each identities_of "${hosts[@]}" || return
	compare "${hosts[@]}" || die 78 "a corpus or model differs from the one here; rename it or remove the wrong one"
	for host in "${hosts[@]}"; do
		[ ! -s "$work/$host.lacks" ] || lacks+=("$host")
	done
	[ ${#lacks[@]} -gt 0 ] || return 0
	each copy_to "${lacks[@]}" || return
	each identities_of "${lacks[@]}" || return
	update=0
	compare "${hosts[@]}" || die 78 "copied files differ from those here; is the disk full?"
	for host in "${lacks[@]}"; do
		[ ! -s "$work/$host.lacks" ] || die 66 "$host: $(head -n 1 "$work/$host.lacks") exists neither there nor here"
	done
}

# ---- verbs ----

# chosen HOST PATTERN: the wanted daemons of that host that match, separated by commas, as --only takes them
chosen() {
	local name list=''
	for name in "${wanted[@]}"; do
		# shellcheck disable=SC2053	# a pattern
		[[ $name = $2 ]] && [ "$(host_of "$name")" = "$1" ] && list="$list${list:+,}$name"
	done
	echo "$list"
}

hosts_with() {		# hosts_with PATTERN: hosts that have one of the wanted daemons
	local host
	for host in "${hosts[@]}"; do
		[ -z "$(chosen "$host" "$1")" ] || echo "$host"
	done
}

start_selectors() { local_there "$1" up --only "$(chosen "$1" 'selectord*')"; }
start_teachers() { local_there "$1" up --only "$(chosen "$1" 'teacherd-*')"; }
start_trainer() {	# start_trainer HOST [--wait]
	local_there "$1" up --only trainer --hosts "$mpi_hosts" --set trainer.ranks="$(count trainers)" "${@:2}"
}
stop_trainer() { local_there "$1" down --only trainer; }
stop_teachers() { local_there "$1" down --only teachers; }
stop_selectors() { local_there "$1" down --only selectord; }
switched_there() { switched remote "${trainer_hosts[0]}"; }

want_teachers() {	# want_teachers N
	local i
	[ "$1" -eq 0 ] || [ ${#teacher_slots[@]} -gt 0 ] || die 65 "$hosts_file: no host has teachers=N"
	for ((i = 0; i < $1; i++)); do wanted+=("teacherd-$i"); done
}

start_all() {
	local i n
	wanted=()
	if ! has_phase_one; then
		:
	elif switched_there; then
		echo "phase two: the trainer needs no other daemon"
	else
		n=$(shards)
		for ((i = 0; i < n; i++)); do wanted+=("$(shard_name "$i" "$n")"); done
		want_teachers "$(count teachers)"
		mapfile -t with < <(hosts_with 'selectord*')
		each start_selectors "${with[@]}" || return
		mapfile -t with < <(hosts_with 'teacherd-*')
		[ ${#with[@]} -eq 0 ] || each start_teachers "${with[@]}" || return
	fi
	each start_trainer "${trainer_hosts[0]}"
}

down() {		# a host that cannot be reached does not keep the others running
	local rc=0
	[ ${#trainer_hosts[@]} -eq 0 ] || each stop_trainer "${trainer_hosts[0]}" || rc=$?
	mapfile -t with < <(printf '%s\n' "${teacher_slots[@]}" | awk 'NF && !seen[$0]++')
	[ ${#with[@]} -eq 0 ] || each stop_teachers "${with[@]}" || rc=$?
	[ ${#selector_hosts[@]} -eq 0 ] || each stop_selectors "${selector_hosts[@]}" || rc=$?
	return $rc
}

running_there() {	# running_there NAME: does its supervisor or the daemon run?
	local host
	host=$(host_of "$1")
	# shellcheck disable=SC2016	# expanded on the host
	[ -n "$host" ] && remote "$host" bash -c '[ -e "$1" ] && ! flock -n "$1" true' - "$daemons/$1.lock" < /dev/null
}

stop_surplus() { local_there "$1" down --only teachers --but "$(chosen "$1" 'teacherd-*')"; }
scale_there() { local_there "$1" scale trainers="${to[trainers]}" --hosts "$mpi_hosts"; }

scale() {
	local first
	wanted=()
	scale_words
	check_layout
	[ -z "${to[teachers]-}" ] || want_teachers "${to[teachers]}"
	same_everywhere || return
	scale_keep
	if [ -n "${to[teachers]-}" ]; then
		mapfile -t with < <(printf '%s\n' "${teacher_slots[@]}" | awk 'NF && !seen[$0]++')
		each stop_surplus "${with[@]}" || return
		first=$(shard_name 0 "$(shards)")
		if ! has_phase_one || switched_there; then
			echo "teachers: the trainer needs none any more"
		elif ! running_there "$first"; then
			echo "teachers: $first does not run; up will start ${to[teachers]}"
		else
			mapfile -t with < <(hosts_with 'teacherd-*')
			[ ${#with[@]} -eq 0 ] || each start_teachers "${with[@]}" || return
			[ "${to[teachers]}" -gt 0 ] || echo "teachers: none; the trainer will wait when it has used its rows"
		fi
	fi
	[ -z "${to[trainers]-}" ] || each scale_there "${trainer_hosts[0]}"
}

drain_there() {
	local list=()
	[ $everybody -eq 1 ] && list=(teachers) || IFS=, read -ra list <<< "$(chosen "$1" 'teacherd-*')"
	local_there "$1" drain "${list[@]}"
}

drain() {
	local name
	wanted=() everybody=0
	for name in "${names[@]}"; do
		if [ "$name" = teachers ]; then
			everybody=1
		elif ! [[ $name =~ ^teacherd-[0-9]{1,5}$ ]]; then
			die 64 "drain: expected teachers, teacherd-0, teacherd-1 .., found $name"
		else
			wanted+=("$name")
		fi
	done
	[ ${#teacher_slots[@]} -gt 0 ] || die 65 "$hosts_file: no host has teachers=N"
	if [ $everybody -eq 1 ]; then
		mapfile -t with < <(printf '%s\n' "${teacher_slots[@]}" | awk '!seen[$0]++')
	else
		mapfile -t with < <(hosts_with 'teacherd-*')
	fi
	each drain_there "${with[@]}"
}

supervisors_of() { local_there "$1" status --supervisors; }

status() {
	local rc=0 code=0 head=${trainer_hosts[0]-} first
	first=$(shard_name 0 "$(shards)")
	each supervisors_of "${hosts[@]}" || rc=$?
	echo
	! running_there "$first" || head=$(host_of "$first")		# selectord's host: it has the roster of all connected daemons
	[ -z "$head" ] || remote "$head" "$bin/saltctl" status -c "$config" ${set_options[@]+"${set_options[@]}"} < /dev/null || code=$?
	[ $rc -ne 0 ] || rc=$code
	return $rc
}

logs_there() {
	local list=()
	IFS=, read -ra list <<< "$(chosen "$1" '*')"
	local_there "$1" logs ${follow_option[@]+"${follow_option[@]}"} ${list[@]+"${list[@]}"}
}

logs() {
	local name host pids=() i=0 rc=0
	wanted=() follow_option=()
	with=("${hosts[@]}")
	for name in ${names[@]+"${names[@]}"}; do
		[[ $name =~ ^(selectord(-[0-9]{1,5})?|teacherd-[0-9]{1,5}|trainerd)$ ]] && [ -n "$(host_of "$name")" ] ||
		    die 64 "logs: no host has $name; expected selectord, teacherd-0, trainerd .."
		wanted+=("$name")
	done
	[ ${#wanted[@]} -eq 0 ] || mapfile -t with < <(hosts_with '*')
	if [ $follow -eq 0 ]; then
		each logs_there "${with[@]}"
		return
	fi
	follow_option=(-f)
	for host in "${with[@]}"; do
		logs_there "$host" > >(sed -u "s/^/$host: /") 2>&1 & pids+=($!)
	done
	# shellcheck disable=SC2064	# these
	trap "kill ${pids[*]} 2> /dev/null; exit 130" INT TERM
	for host in "${with[@]}"; do
		ended "$host" "${pids[i++]}" || rc=$?
	done
	return $rc
}

case "$verb" in up | restart | scale) read_scale ;; esac
case "$verb" in up | restart) check_layout; same_everywhere ;; esac
case "$verb" in
up)
	start_all
	[ $await -eq 1 ] || exit 0
	rc=0
	start_trainer "${trainer_hosts[0]}" --wait || rc=$?
	[ $rc -ne 255 ] || die 69 "the connection to ${trainer_hosts[0]} by $SALT_SSH ended, and the trainer may still run there; up --wait again shows it"
	exit $rc
	;;
restart)
	down
	start_all
	;;
*) "$verb" ;;
esac
