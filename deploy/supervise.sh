#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# supervise.sh NAME RUN [--stop SIGNAL] [--restarts N] [--within SECONDS] [--launcher] -- COMMAND [ARG ...]
# Runs one daemon and restarts it when it fails, after 1, 2, 4 .. 30 s (1 s again once it has run for a
# minute). Gives up after N restarts (10) within SECONDS (600). Does not restart after exit code 0 (done) nor
# after a code that stands for a permanent error. --launcher: COMMAND is a launcher such as mpirun. If it ends
# before any of its processes has logged a line or announced itself, it cannot start at all; that is a
# permanent error too. Later failures (a lost host, say) are retried as usual. TERM to the supervisor: SIGNAL
# (TERM) to the daemon, KILL after 20 s, no restart. local.sh starts one supervisor per daemon.
#
# Files in RUN/daemons: NAME.lock is locked as long as the supervisor or the daemon lives; NAME.supervisor
# "pid started restarts"; NAME.pid the daemon's pid; NAME.exit "code word" at the end (done, failed, gave_up,
# stopped). All output goes to RUN/logs/NAME.log.
set -uo pipefail		# no -e: exit codes are handled one by one

usage() { echo "usage: $0 NAME RUN [--stop SIGNAL] [--restarts N] [--within SECONDS] [--launcher] -- COMMAND [ARG ...]" >&2; exit 64; }

[ $# -ge 4 ] || usage
name=$1 run=$2
shift 2
signal=TERM restarts_max=10 within_s=600 reached=1
while [ "${1-}" != -- ]; do
	[ $# -ge 2 ] || usage
	if [ "$1" = --launcher ]; then
		reached=0
		shift
		continue
	fi
	case "$1" in
	--stop) signal=$2 ;;
	--restarts) restarts_max=$2 ;;
	--within) within_s=$2 ;;
	*) usage ;;
	esac
	shift 2
done
shift
[ $# -ge 1 ] || usage

stop_wait_s=20 backoff_max_s=30 good_s=60
at=$run/daemons/$name
mkdir -p "$run/daemons" "$run/logs" || exit 73
exec </dev/null >>"$run/logs/$name.log" 2>&1 || exit 73

say() {		# say LEVEL EVENT [key=value ...]
	printf 'ts=%s level=%s prog=supervise pid=%d name=%s event=%s%s\n' "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "$1" $$ "$name" "$2" \
	    "${3:+ $3}"
}

put() {		# put SUFFIX TEXT: a whole file or none
	echo "$2" > "$at.$1.tmp" && mv -f "$at.$1.tmp" "$at.$1"
}

exec 9>>"$at.lock" || exit 73
# A daemon whose supervisor was killed is about to end: its death signal was sent.
flock -w $((stop_wait_s + 5)) 9 || { say error busy "why=\"another $name runs in $run\""; exit 75; }

started=$(date +%s) child='' stopping=0 interrupted=0
# shellcheck disable=SC2317	# called by the trap
on_stop() { stopping=1 interrupted=1; }
trap on_stop TERM INT HUP

finish() {	# finish CODE WORD
	rm -f "$at.pid"
	put exit "$1 $2"
	rm -f "$at.supervisor"
	exit "$1"
}

pause() {	# pause SECONDS, unless stopped
	sleep "$1" 9>&- &
	wait $! || kill $! 2>/dev/null || true
}

# Has the launcher's command logged a line or announced itself since this start?
has_started() {
	[ -e "$at-0.json" ] || tail -c "+$((log_bytes + 1))" "$run/logs/$name.log" | grep ' prog=' | grep -qv ' prog=supervise '
}

# Waits for the daemon's end, exit code in rc. When stopping: the signal, then KILL.
await() {
	local killer=''
	while :; do
		interrupted=0
		if [ $stopping -eq 1 ] && [ -z "$killer" ]; then
			say info daemon.stop "signal=$signal child=$child"
			kill -s "$signal" "$child" 2>/dev/null
			(
				trap 'kill $nap 2>/dev/null; exit 0' TERM
				sleep $stop_wait_s &
				nap=$!
				wait $nap
				say warn daemon.kill "child=$child why=\"no end within $stop_wait_s s\""
				kill -KILL "$child" 2>/dev/null
			) 9>&- &
			killer=$!
		fi
		wait "$child" 2>/dev/null		# bash would add "Killed" to the log
		rc=$?
		[ $interrupted -eq 1 ] || break		# else the wait was cut short, not the daemon
	done
	[ -z "$killer" ] || kill "$killer" 2>/dev/null
}

rm -f "$at.exit"
recent=() backoff_s=1 restarts=0
while [ $stopping -eq 0 ]; do
	put supervisor "$$ $started $restarts"
	born=$(date +%s) log_bytes=$(stat -c %s "$run/logs/$name.log")
	# The daemon goes when this script goes, however that happens; it holds the lock too (fd 9).
	setpriv --pdeathsig "$signal" -- "$@" &
	child=$!
	put pid "$child"
	say info daemon.start "child=$child restarts=$restarts"
	await
	now=$(date +%s)
	say info daemon.exit "child=$child code=$rc ran_s=$((now - born))"
	if [ $stopping -eq 1 ]; then
		finish "$rc" stopped
	fi
	[ $reached -eq 1 ] || ! has_started || reached=1
	case $rc in
	0) finish 0 "done" ;;
	64 | 65 | 66 | 73 | 77 | 78 | 126 | 127)
		say error daemon.failed "code=$rc why=\"permanent error, no restart; the lines above give the reason\""
		finish "$rc" failed ;;
	129 | 130 | 137 | 143) ;;		# HUP, INT, KILL, TERM from outside
	*)
		if [ $reached -eq 0 ]; then
			say error launcher.failed "code=$rc why=\"it ended before it had started any process, no restart; its own message is above\""
			finish "$rc" failed
		fi ;;
	esac
	kept=()
	for t in ${recent[@]+"${recent[@]}"}; do
		[ $((now - t)) -ge "$within_s" ] || kept+=("$t")
	done
	recent=(${kept[@]+"${kept[@]}"})
	if [ ${#recent[@]} -ge "$restarts_max" ]; then
		say error daemon.given_up "code=$rc restarts=${#recent[@]} within_s=$within_s"
		finish "$rc" gave_up
	fi
	recent+=("$now")
	[ $((now - born)) -lt $good_s ] || backoff_s=1
	say warn daemon.restart "code=$rc in_s=$backoff_s restart=${#recent[@]} of=$restarts_max"
	pause $backoff_s
	backoff_s=$((backoff_s * 2 < backoff_max_s ? backoff_s * 2 : backoff_max_s))
	restarts=$((restarts + 1))
done
finish 75 stopped
