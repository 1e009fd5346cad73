# SPDX-License-Identifier: Apache-2.0
# Sourced by local.sh and ssh.sh, which define usage and own_option first. It handles arguments, reads the
# configuration as the programs do, and keeps the numbers of `scale`. parse stores the words after the verb in
# names and the --set options in set_options.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
self=${0##*/}
die() { echo "$self: $2" >&2; exit "$1"; }

bin=${BIN:-$here/../build/bin}
# installed: PREFIX/share/saltfleet/deploy, PREFIX/bin
[ -n "${BIN-}" ] || [ -d "$bin" ] || [ ! -x "$here/../../../bin/saltctl" ] || bin=$here/../../../bin
verb='' config='' only='' await=0 follow=0 set_options=() names=()

# The script's own_option OPTION VALUE returns 1 for an unknown option, and sets own_words to the number of
# words used.
parse() {
	while [ $# -gt 0 ]; do
		case "$1" in
		--wait) await=1 ;;
		-f) follow=1 ;;
		-h | --help) usage; exit 0 ;;
		-c | --config | --set | --bin)
			[ $# -ge 2 ] || die 64 "$1 needs a value"
			case "$1" in
			--set) set_options+=(--set "$2") ;;
			--bin) bin=$2 ;;
			*) config=$2 ;;
			esac
			shift ;;
		-*)
			own_option "$@" || die 64 "unknown option $1; see $self --help"
			shift $((own_words - 1)) ;;
		*) if [ -z "$verb" ]; then verb=$1; else names+=("$1"); fi ;;
		esac
		shift
	done
	case "$verb" in
	up | down | restart | scale | drain | status | logs) ;;
	"") usage >&2; exit 64 ;;
	*) die 64 "unknown verb $verb; see $self --help" ;;
	esac
	[ $await -eq 0 ] || [ "$verb" = up ] || die 64 "$verb takes no --wait; up --wait, also after $verb, waits for the trainer"
	[ $follow -eq 0 ] || [ "$verb" = logs ] || die 64 "$verb takes no -f; see $self --help"
	case "$verb" in status | logs | scale | drain) [ -z "$only" ] || die 64 "$verb takes no --only; see $self --help" ;; esac
	case "$verb" in
	scale | drain)
		[ ${#names[@]} -gt 0 ] || die 64 "$verb needs an argument, for example: $self $([ "$verb" = scale ] && echo scale teachers=4 || echo drain teacherd-1) -c fleet.yaml" ;;
	logs) ;;
	*) [ ${#names[@]} -eq 0 ] || die 64 "unexpected argument ${names[0]}" ;;
	esac
	[ -n "$config" ] || die 64 "-c fleet.yaml is missing"
	[ -r "$config" ] || die 66 "$config: cannot be read"
	config=$(absolute "$config")
	local program
	for program in saltctl selectord teacherd trainerd saltfleet-supervise; do
		[ -x "$bin/$program" ] || die 69 "$bin/$program does not exist; build first: cmake --preset release && cmake --build --preset release; or name the programs' folder: --bin DIR"
	done
	bin=$(cd -- "$bin" && pwd)
	run=$(get run.dir) || exit $?
	[ -n "$run" ] || die 78 "$config: run.dir is required"
	daemons=$run/daemons logs=$run/logs metrics=$run/metrics.jsonl
}

get() { "$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} --get "$1"; }		# get SECTION.KEY

# Is the run in phase two, so that the trainer needs no other daemon? Its newest complete checkpoint decides,
# not a log or metrics.jsonl, which may be of an earlier start. $1: a command that runs saltctl elsewhere.
switched() {
	local info
	info=$("$@" "$bin/saltctl" run info -c "$config" ${set_options[@]+"${set_options[@]}"} --json < /dev/null) || exit $?
	[[ $info == *'"phase": "two"'* ]]
}

has_phase_one() { [ "$(get phase_one.steps)" != 0 ] || [ "$(get phase_one.until_margin)" != none ]; }

shards() { get selector.endpoints | awk -F', ' '{ print NF }'; }	# [tcp://A:1, tcp://A:2]
shard_name() { echo "selectord$([ "$2" -eq 1 ] || echo "-$1")"; }	# shard_name I OF

# ---- numbers of teachers and ranks: --set of this call, else daemons/scale (written by scale), else fleet.yaml ----

declare -A option=([teachers]=deploy.teachers [trainers]=trainer.ranks) scaled=()

read_scale() {		# daemons/scale: "teachers=4 trainers=2", or one of them, or no file
	local words=() word
	[ -e "$daemons/scale" ] || return 0
	read -ra words < "$daemons/scale" || true
	for word in ${words[@]+"${words[@]}"}; do
		[[ $word =~ ^(teachers|trainers)=([0-9]{1,5})$ ]] || die 65 "$daemons/scale: expected teachers=N trainers=R, found $word; \
if you delete the file, the numbers of $config are used"
		scaled[${BASH_REMATCH[1]}]=$((10#${BASH_REMATCH[2]}))
	done
}

says() { get "${option[$1]}"; }		# the number without scale; ssh.sh redefines this

write_scale() {		# keeps only numbers that differ from fleet.yaml, so that later edits of fleet.yaml take effect
	local what line=''
	for what in teachers trainers; do
		[ -n "${scaled[$what]-}" ] || continue
		if [ "${scaled[$what]}" = "$(set_options=() && says "$what")" ]; then
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

set_here() {		# set_here KEY: is KEY set by --set in this call?
	local o
	for o in ${set_options[@]+"${set_options[@]}"}; do
		case "$o" in "$1="*) return 0 ;; esac
	done
	return 1
}

count() {		# count teachers|trainers
	if [ -n "${scaled[$1]-}" ] && ! set_here "${option[$1]}"; then echo "${scaled[$1]}"; else says "$1"; fi
}

check_ranks() {		# check_ranks N: may this run have N ranks? saltctl checks the configuration as trainerd does and prints the error
	local lanes n fit=''
	! "$bin/saltctl" config check -c "$config" ${set_options[@]+"${set_options[@]}"} --set "trainer.ranks=$1" --get trainer.ranks > /dev/null ||
	    return 0
	lanes=$(get trainer.lanes) || exit $?
	for ((n = 1; n <= lanes; n *= 2)); do fit="$fit $n"; done
	die 78 "trainers=$1: trainer.lanes of this run is $lanes, so expected one of$fit"
}

# Checks the arguments of scale and stores them in to[teachers] and to[trainers]; changes nothing else.
declare -A to=()
scale_words() {
	local word what n
	for word in "${names[@]}"; do
		[[ $word =~ ^(teachers|trainers)=([0-9]{1,5})$ ]] ||
		    die 64 "scale: expected teachers=N or trainers=R, found $word; for example: $self scale teachers=4 trainers=2 -c fleet.yaml"
		what=${BASH_REMATCH[1]} n=$((10#${BASH_REMATCH[2]}))
		[ -z "${to[$what]-}" ] || die 64 "scale: $what= is given twice"
		! set_here "${option[$what]}" || die 64 "scale: $what=$n and --set ${option[$what]} are both given; give one of them"
		to[$what]=$n
	done
	if [ -n "${to[teachers]-}" ]; then
		"$bin/saltctl" config check -c "$config" --set "deploy.teachers=${to[teachers]}" --get deploy.teachers > /dev/null || exit $?
	fi
	if [ -n "${to[trainers]-}" ]; then
		[ "${to[trainers]}" -gt 0 ] || die 64 "trainers=0: expected 1 or more; to stop the trainer: $self down --only trainer -c fleet.yaml"
		check_ranks "${to[trainers]}"
	fi
}

scale_keep() {		# called before anything is stopped, so that after an interruption the same scale, or up, completes the change
	local what
	for what in "${!to[@]}"; do scaled[$what]=${to[$what]}; done
	write_scale
}
