#!/bin/bash
# Who may include what: one door for each library, rooms that do not know daemons, two wings that do not know each other, nothing in common/
# that ends the process but log_fatal, no paths of the machine it was written on. The rules are tried on files that break them first.
# Usage: one_door.sh SOURCE
set -u
failures=0
found() {
	echo "FAIL: $1"
	sed 's/^/    /' <<< "$2"
	failures=1
}

# sources FOLDER...: C files under them that are there
sources() {
	find "$@" -name '*.[ch]' -not -path '*/build/*' 2>/dev/null
}

# door WHAT PATTERN ALLOWED: no file includes PATTERN but those whose path matches ALLOWED
door() {
	local bad
	bad=$(sources . | xargs -r grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)[>\"]" | grep -vE "^\./($3)")
	[ -z "$bad" ] || found "$1 has one door" "$bad"
}

# wing WHAT FROM... -- TO...: rooms of common that must not include those
wing() {
	local what=$1 from=() to= bad
	shift
	while [ "$1" != -- ]; do
		from+=("common/$1")
		shift
	done
	shift
	to=$(IFS='|'; echo "$*")
	bad=$(sources "${from[@]}" | xargs -r grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*\"($to)/")
	[ -z "$bad" ] || found "$what" "$bad"
}

rules() {
	local bad
	# Tests of a room may look at the library behind it.
	door ZeroMQ '(zmq|czmq|zmq_.*|zauth|zpoller)\.h' 'common/bus/|tests/unit/test_bus'
	door protobuf-c '(.*\.pb-c|protobuf-c/.*)\.h' 'common/wire/|tests/(unit|fuzz)/test_wire|tests/replay/'
	door LMDB 'lmdb\.h' 'common/cache/|tests/(unit|crash)/test_cache|bench/'
	door 'BLAS, oneDNN and CUDA' '(cblas|openblas.*|lapacke|dnnl.*|oneapi/.*|cuda.*|cublas.*)\.h' 'common/kernels/|bench/'
	door MPI 'mpi\.h' 'trainerd/comm_mpi\.c'
	door Jansson 'jansson\.h' 'common/json/'
	door libyaml 'yaml\.h' 'common/config/'
	door PCRE2 'pcre2\.h' 'common/tokenizer/'
	door utf8proc 'utf8proc\.h' 'common/tokenizer/'
	door xxHash 'xxhash\.h' 'common/hash/'
	door ISA-L '(isa-l|isa-l/.*)\.h' 'common/hash/'
	door zstd 'zstd\.h' 'ctl/'
	door libmicrohttpd 'microhttpd\.h' 'ctl/'
	door libsystemd 'systemd/.*\.h' 'common/notify/'
	door ncurses '(ncurses|curses|ncursesw/.*)\.h' 'ctl/'
	bad=$(sources common | xargs -r grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"(\.\./)*(teacherd|selectord|trainerd|ctl)/')
	[ -z "$bad" ] || found "common/ includes no daemon" "$bad"
	wing 'the engine knows no fabric' tensor kernels model optim weights checkpoint -- bus wire cache labels status notify presence
	wing 'the fabric knows no engine' bus wire cache labels status notify presence -- tensor kernels model optim weights checkpoint
	# log.c is log_fatal, crash.c the tests' kill, clock.c obeys a second signal at once.
	bad=$(sources common | grep -vE '^common/(log/log|err/crash|bus/clock)\.c$' |
		xargs -r grep -nE '(^|[^A-Za-z0-9_>.])(exit|_exit|_Exit|quick_exit|abort|raise)[[:space:]]*\(' | grep -vE ':[[:space:]]*(\*|/\*|//)')
	[ -z "$bad" ] || found "nothing in common/ ends the process but log_fatal" "$bad"
	bad=$(sources common teacherd selectord trainerd ctl | xargs -r grep -nE '"/[A-Za-z]' |
		grep -vE '"/(dev|proc|sys|tmp|etc|run|var|usr)(/|")' | grep -E '"/[a-z]+/' | grep -vE '%s|"/(metrics|status|api|checkpoints|daemons)')
	[ -z "$bad" ] || found "no paths of a machine" "$bad"
	bad=$(find common teacherd selectord trainerd ctl deploy docs tests bench README.md -type f \
		\( -name '*.[ch]' -o -name '*.sh' -o -name '*.md' -o -name '*.yaml' -o -name '*.py' \) 2>/dev/null |
		xargs -r grep -nE '(^|[^A-Za-z0-9_.])/(home|root)/[a-z]' | grep -v '^tests/unit/one_door\.sh:')
	[ -z "$bad" ] || found "no folder of a user" "$bad"
}

# Every rule must be able to fail: one file for each that breaks it.
self_test() {
	local dir n=0 line file rest out
	dir=$(mktemp -d)
	while read -r file rest; do
		mkdir -p "$dir/$(dirname "$file")"
		printf '%s\n' "$rest" > "$dir/$file"
		out=$(cd "$dir" && failures=0 && rules && exit $failures)
		if [ "$(grep -c '^FAIL' <<< "$out")" -ne 1 ]; then
			echo "FAIL: of $file with \"$rest\" the rules say: $out"
			failures=1
		fi
		rm "$dir/$file"
		n=$((n + 1))
	done <<- 'LINES'
		selectord/a.c #include <zmq.h>
		trainerd/a.c #include "salt.pb-c.h"
		selectord/a.c #include <lmdb.h>
		common/model/a.c #include <cblas.h>
		trainerd/step.c #include <mpi.h>
		ctl/a.c #include <jansson.h>
		ctl/a.c #include <yaml.h>
		common/corpus/a.c #include <pcre2.h>
		ctl/a.c #include <utf8proc.h>
		common/corpus/a.h #include <xxhash.h>
		common/corpus/a.c #include <zstd.h>
		selectord/a.c #include <microhttpd.h>
		trainerd/a.c #include <ncurses.h>
		teacherd/a.c #include <systemd/sd-daemon.h>
		common/status/a.c #include "selectord/core.h"
		common/kernels/a.c #include "labels/labels.h"
		common/cache/a.c #include "kernels/kernels.h"
		common/hash/a.c 	exit(1);
		common/mem/a.c 	abort ();  
		common/mem/a.c 	if (x) _exit(3);
		teacherd/a.c static const char *dir = "/srv/models";
		deploy/a.sh cd /home/someone/fleet
	LINES
	rm -r "$dir"
	[ "$n" -ge 20 ] || found "self test" "only $n lines"
}

self_test
cd "$1" || exit 1
rules
exit $failures
