#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Rules for includes: only one module includes each library, modules do not include daemons, and fabric and engine do not include each other. Other
# rules: nothing in common/ except log_fatal ends the process, and no file contains paths of a developer's machine. The rules are first tested on
# files that break them.
set -u
failures=0
found() {
	echo "FAIL: $1"
	sed 's/^/    /' <<< "$2"
	failures=1
}

# sources FOLDER...: the C files under these folders
sources() {
	find "$@" \( -name '*.[ch]' -o -name '*.cu' \) -not -path '*/build/*' 2>/dev/null
}

# door WHAT PATTERN ALLOWED: only files whose path matches ALLOWED include PATTERN
door() {
	local bad
	bad=$(sources . | xargs -r grep -HnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)[>\"]" | grep -vE "^\./($3)")
	[ -z "$bad" ] || found "$1 has one door" "$bad"
}

# layer FOLDER ALLOWED...: sources under FOLDER include only from FOLDER itself and the ALLOWED layers
layer() {
	local folder=$1 all='base|data|engine|fabric|client|teacherd|selectord|trainerd|saltctl' allowed bad
	shift
	allowed=$(IFS='|'; echo "$*")
	bad=$(sources "$folder" | xargs -r grep -HnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*\"(\.\./|common/)*($all)/" |
		grep -vE "include[[:space:]]*\"($allowed)/")
	[ -z "$bad" ] || found "$folder includes only $*" "$bad"
}

rules() {
	local bad
	# Tests of a module may include its library.
	door ZeroMQ '(zmq|czmq|zmq_.*|zauth|zpoller)\.h' 'common/fabric/bus/|tests/unit/test_bus|tests/system/wrong_keys\.c'
	door protobuf-c '(.*\.pb-c|protobuf-c/.*)\.h' 'common/fabric/wire/|tests/unit/test_wire|tests/replay/'
	door LMDB 'lmdb\.h' 'common/data/cache/|tests/(unit|crash)/test_cache|bench/'
	door 'BLAS, oneDNN and CUDA' '(cblas|openblas.*|lapacke|dnnl.*|oneapi/.*|cuda.*|cublas.*)\.h' 'common/engine/kernels/|tests/cuda_emu/|bench/'
	door MPI 'mpi\.h' 'trainerd/comm_mpi\.c|bench/allreduce/'
	door Jansson 'jansson\.h' 'common/base/json/'
	door libyaml 'yaml\.h' 'common/fabric/config/'
	door PCRE2 'pcre2\.h' 'common/data/tokenizer/'
	door utf8proc 'utf8proc\.h' 'common/data/tokenizer/'
	door xxHash 'xxhash\.h' 'common/base/hash/'
	door ISA-L '(isa-l|isa-l/.*)\.h' 'common/base/hash/'
	door 'zlib, bzip2, xz and zstd' '(zlib|bzlib|lzma|zstd)\.h' 'common/data/text/'
	door libmicrohttpd 'microhttpd\.h' 'saltctl/watch/'
	door libsystemd 'systemd/.*\.h' 'common/fabric/daemon/'
	door ncurses '(ncurses|curses|ncursesw/.*)\.h' 'saltctl/watch/'
	# The layers: includes point downward only.
	layer common/base base
	layer common/data base data
	layer common/fabric base data fabric
	layer common/engine base data engine
	layer client base data fabric client
	for daemon in teacherd selectord trainerd saltctl; do
		layer $daemon base data engine fabric "$daemon"
	done
	bad=$(sources common/engine | grep -v '^common/engine/infer/' | xargs -r grep -HnE '#[[:space:]]*include[[:space:]]*"data/')
	[ -z "$bad" ] || found "the engine below infer includes nothing of data" "$bad"
	bad=$(sources common client teacherd selectord trainerd saltctl tests/system bench | grep -vE '^common/fabric/(session|wire)/|^tests/system/frames\.c$' |
		xargs -r grep -HnE '\.?type = WIRE_HELLO')		# frames.c sends hostile ones
	[ -z "$bad" ] || found "only the session encodes a HELLO" "$bad"
	# Private headers: only their own module may include them.
	bad=$(sources common client teacherd selectord trainerd saltctl | xargs -r grep -HnE '#[[:space:]]*include[[:space:]]*"[^"]*_internal\.h"' |
		awk -F: '{ split($1, at, "/"); split($3, quoted, "\""); inc = quoted[2]; sub(/\/[^\/]*$/, "", inc); f = $1; sub(/^common\//, "", f);
			sub(/\/[^\/]*$/, "", f); if (f != inc && index(f, inc "/") != 1) print }')
	[ -z "$bad" ] || found "a private header is included by its own module only" "$bad"
	# log.c has log_fatal, crash.c ends the process for tests, and stop.c of clock ends it at a second signal.
	bad=$(sources common | grep -vE '^common/base/(log/log|err/crash|clock/stop)\.c$' |
		xargs -r grep -HnE '(^|[^A-Za-z0-9_>.])(exit|_exit|_Exit|quick_exit|abort|raise)[[:space:]]*\(' | grep -vE ':[[:space:]]*(\*|/\*|//)')
	[ -z "$bad" ] || found "nothing in common/ ends the process but log_fatal" "$bad"
	bad=$(sources common teacherd selectord trainerd saltctl | xargs -r grep -HnE '"/[A-Za-z]' |
		grep -vE '"/(dev|proc|sys|tmp|etc|run|var|usr)(/|")' | grep -E '"/[a-z]+/' | grep -vE '%s|"/(metrics|status|api|checkpoints|daemons)')
	[ -z "$bad" ] || found "no paths of a machine" "$bad"
	bad=$(find common teacherd selectord trainerd saltctl deploy docs tests bench README.md -type f \
		\( -name '*.[ch]' -o -name '*.sh' -o -name '*.md' -o -name '*.yaml' -o -name '*.py' \) 2>/dev/null |
		xargs -r grep -HnE '(^|[^A-Za-z0-9_.])/(home|root)/[a-z]' | grep -v '^tests/unit/layers\.sh:')
	[ -z "$bad" ] || found "no folder of a user" "$bad"
}

# Every rule must be able to fail: one file for each rule breaks it.
self_test() {
	local dir n=0 file rest out
	local -a files=()
	dir=$(mktemp -d)
	while read -r file rest; do
		file=${file%.*}$n.${file##*.}		# each violation is in a file of its own and must be reported once
		mkdir -p "$dir/$(dirname "$file")"
		printf '%s\n' "$rest" > "$dir/$file"
		files+=("$file")
		n=$((n + 1))
	done <<- 'LINES'
		selectord/a.c #include <zmq.h>
		trainerd/a.c #include "salt.pb-c.h"
		selectord/a.c #include <lmdb.h>
		common/engine/model/a.c #include <cblas.h>
		common/engine/model/a.cu #include <cublasLt.h>
		trainerd/step.c #include <mpi.h>
		saltctl/core/a.c #include <jansson.h>
		saltctl/core/a.c #include <yaml.h>
		common/data/corpus/a.c #include <pcre2.h>
		saltctl/corpus/a.c #include <utf8proc.h>
		common/data/corpus/a.h #include <xxhash.h>
		common/data/corpus/a.h #include <isa-l.h>
		common/data/corpus/a.c #include <zstd.h>
		saltctl/corpus/a.c #include <zlib.h>
		selectord/a.c #include <microhttpd.h>
		trainerd/a.c #include <ncurses.h>
		teacherd/a.c #include <systemd/sd-daemon.h>
		common/fabric/status/a.c #include "selectord/core.h"
		common/base/mem/a.c #include "data/labels/labels.h"
		common/base/mem/a.c #include "../data/labels/labels.h"
		common/data/cache/a.c #include "engine/kernels/kernels.h"
		common/data/cache/a.c #include "fabric/wire/wire.h"
		common/fabric/status/a.c #include "engine/tensor/tensor.h"
		common/fabric/status/a.c #include "client/saltfleet.h"
		common/engine/kernels/a.c #include "data/labels/labels.h"
		common/engine/infer/a.c #include "fabric/bus/bus.h"
		client/a.c #include "engine/model/model.h"
		selectord/a.c #include "trainerd/step.h"
		saltctl/cache/a.c #include "teacherd/loop.h"
		bench/a.c 	struct wire_message m = {.type = WIRE_HELLO};
		teacherd/a.c #include "saltctl/core/ctl.h"
		selectord/a.c #include "data/corpus/corpus_internal.h"
		common/base/hash/a.c 	exit(1);
		common/base/mem/a.c 	abort ();  
		common/base/mem/a.c 	if (x) _exit(3);
		teacherd/a.c static const char *dir = "/srv/models";
		deploy/a.sh cd /home/someone/fleet
	LINES
	out=$(cd "$dir" && rules)
	for file in "${files[@]}"; do
		if [ "$(grep -cF "$file:" <<< "$out")" -ne 1 ]; then
			echo "FAIL: not reported once: $file: $(cat "$dir/$file")"
			failures=1
		fi
	done
	rm -r "$dir"
	[ "$n" -ge 37 ] || found "self test" "only $n lines"
}

self_test
cd "$1" || exit 1
rules
exit $failures
