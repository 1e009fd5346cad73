# SPDX-License-Identifier: Apache-2.0
# Properties common to all daemons: every form of an option, check-only mode with its exit codes, SIGHUP.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
small_corpus
small_model teacher 1
small_model student -
ln -s teacher scorer
small_fleet fleet.yaml "$(free_port)"

# ends CODE REGEX PROGRAM ARGUMENT...: the program ends by itself with CODE and prints one line that matches REGEX on standard error.
ends() {
	local code=$1 regex=$2 got=0
	shift 2
	timeout -s KILL 60 "$BIN/$1" "${@:2}" > out 2> err || got=$?
	[ $got = "$code" ] || fail "$*: exit code $got, expected $code: $(cat err)"
	[ "$(grep -cE -- "$regex" err)" = 1 ] || fail "$*: expected one line \"$regex\": $(cat err)"
}
for d in selectord teacherd trainerd; do
	good="^$d: configuration and files are good: salt_ds\$"
	for form in "-c fleet.yaml -n" "-cfleet.yaml -n" "-ncfleet.yaml" "--config fleet.yaml --check" "--config=fleet.yaml --check" "-n --set run.seed=3 --set=run.seed=3 -c fleet.yaml"; do
		ends 0 "$good" $d $form
		[ ! -s out ] || fail "$d $form: wrote to standard output"
	done
	[ ! -e run ] && [ ! -e cache ] || fail "$d -n made folders: $(ls)"
	ends 0 "$good" $d -nv -c fleet.yaml --set run.seed=4711
	grep -qE '^  seed: 4711 +# --set' out || fail "$d -nv does not print the configuration: $(head -n 5 out)"
	ends 64 "^$d: unknown option --confg=x; did you mean --config\?" $d --confg=x
	ends 64 "^$d: unknown option -x" $d -x
	ends 64 "^$d: --config FILE: the FILE is missing" $d -c
	ends 64 "^$d: --check takes no value" $d --check=yes
	ends 64 "^$d: unexpected argument more" $d -c fleet.yaml more
	ends 64 "^$d: no configuration: give -c fleet.yaml" $d -n
	# The files that a daemon opens at its start: the same exit codes in check-only mode and without it.
	model=teacher.model
	[ $d != trainerd ] || model=trainer.model
	for check in -n ""; do
		ends 66 "nowhere.*No such file" $d $check -c fleet.yaml --set $model="$scratch/nowhere" --set run.dir=other --set cache.dir=other_cache
	done
	[ $d = teacherd ] || ends 66 "nowhere.*(No such file|expected)" $d -n -c fleet.yaml --set corpus.train="$scratch/nowhere"
	[ $d = teacherd ] || ends 78 "position limit of at least 64" $d -n -c fleet.yaml --set corpus.context=64
done
ends 64 "^selectord: --shard: expected 0 .. 0 .*found 1" selectord -n -c fleet.yaml --shard 1

# A failure of a running daemon gives one log line, an event with name, expected and found.
mkdir file && touch file/way
ends 66 'level=error prog=selectord .*event=failed exit=66 why=".*/way: .*expected a folder, found a file' selectord -c fleet.yaml --set run.dir=file/way/run
[ "$(grep -c level=error err)" = 1 ] || fail "more than one line: $(cat err)"

# SIGHUP ends a daemon as SIGTERM does.
start sel "$BIN/selectord" -c fleet.yaml
until_line sel.log event=start
kill -HUP "$sel"
got=0
wait "$sel" || got=$?
[ $got = 0 ] && grep -q 'event=stop rc=0 signal=1$' sel.log || fail "SIGHUP: exit code $got: $(tail -n 3 sel.log)"
[ ! -e run/daemons/selectord.json ] || fail "SIGHUP: the announcement stays"
