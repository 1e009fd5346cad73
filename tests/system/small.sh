# SPDX-License-Identifier: Apache-2.0
# Sourced after lib.sh by tests of the whole fleet: a corpus, models and a fleet.yaml so small that every start is quick. The text consists of the
# licences that every Debian has.

# free_port: prints a port of 127.0.0.1 without a listener.
free_port() {
	local port
	while :; do
		port=$((20000 + RANDOM % 12000))
		(exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
	done
	echo $port
}

# small_model DIR SEED [OPTION...]: makes config.json, tokenizer.json, and weights unless SEED is -.
small_model() {
	local dir=$1 seed=$2
	shift 2
	"$BIN/saltctl" model new --layers 1 --width 32 --heads 2 --ff 64 --context 32 --tokenizer "$SOURCE/share/tokenizer-4k" \
		$([ "$seed" = - ] || echo --weights "$seed") "$@" "$dir" > /dev/null || fail "saltctl model new $dir"
}

# small_disk_or_skip: ends the test as skipped if it cannot mount a file system of its own.
small_disk_or_skip() {
	[ "$(id -u)" != 0 ] || ! unshare -m true 2> /dev/null || return 0
	echo "skipped: a small file system of its own needs root and a mount namespace" >&2
	exit 77
}

# small_corpus: makes the corpora train and held in $scratch, about 60,000 tokens. It uses only the licences that Debian 12 has, because with the
# dozen more of Debian 13 the corpus would have another size.
small_corpus() {
	printf "/usr/share/common-licenses/%s\n" Apache-2.0 Artistic BSD CC0-1.0 GFDL-1.2 GFDL-1.3 GPL-1 GPL-2 GPL-3 LGPL-2 LGPL-2.1 LGPL-3 \
		MPL-1.1 MPL-2.0 | xargs "$BIN/saltctl" corpus build --split-on blank-lines --tokenizer "$SOURCE/share/tokenizer-4k" \
		--out "$scratch/train" --heldout-out "$scratch/held" > /dev/null || fail "saltctl corpus build"
}

# small_teachers FILE: makes teacher and scorer in $scratch, trained just enough that scores differ; otherwise every selection would be a tie.
small_teachers() {
	timeout 150 "$BIN/trainerd" -c "$1" --set run.dir="$scratch/slm" --set run.seed=11 --set selector.mode=none --set phase_one.steps=0 \
		--set trainer.steps=80 --set trainer.batch=16 --set trainer.lr=1e-2 --set trainer.keep_steps=[40] --set trainer.checkpoint_every=0 \
		--set trainer.eval_every=0 > "$scratch/slm.log" 2>&1 || fail "training the teacher: $(tail -1 "$scratch/slm.log")"
	ln -sfn slm/checkpoints/step_00000080 "$scratch/teacher"
	ln -sfn slm/checkpoints/step_00000040 "$scratch/scorer"
}

# small_fleet FILE PORT...: writes FILE with one selector shard for each port. run.dir and cache.dir are beside the file. selector.k is large:
# teachers trained so little have less than half of the tokens among their first ten ids, so all medians would be 0.
small_fleet() {
	local file=$1 ends= port
	shift
	for port; do
		ends="$ends${ends:+, }\"tcp://127.0.0.1:$port\""
	done
	cat > "$file" <<END
run: {dir: run, seed: 3}
corpus: {train: $scratch/train, heldout: $scratch/held, context: 32}
cache: {dir: cache, map_size: 64MiB}
teacher: {model: $scratch/teacher, scorer: $scratch/scorer, threads: 1}
labels: {kind: sampled, samples: 8, seed: 7}
selector: {mode: salt_ds, block: 32, keep_share: 0.5, k: 200, endpoints: [$ends], lease_sequences: 8, label_ahead_steps: 4, commit_ms: 5}
trainer: {model: $scratch/student, steps: 12, batch: 8, lanes: 4, lr: 3e-3, warmup: 2, eval_every: 6, eval_sequences: 8, checkpoint_every: 3, threads: 1}
phase_one: {steps: 6, weight: 0.667}
END
}

# start NAME COMMAND...: starts the command in the background, with its log in $scratch/NAME.log and its process id in the variable NAME.
start() {
	local name=$1
	shift
	: > "$scratch/$name.log"	# here, not in the child: until_line must not find a line of the previous process
	"$@" >> "$scratch/$name.log" 2>&1 &
	printf -v "$name" %s $!
}

# stop SIGNAL PID...: sends the signal and waits for the end.
stop() {
	local signal=$1
	shift
	kill -"$signal" "$@" 2> /dev/null || true
	wait "$@" 2> /dev/null || true
}

# until_line FILE REGEX [SECONDS]: waits for a matching line.
until_line() {
	local tenths=$((${3:-20} * 10))
	until grep -qE -- "$2" "$1" 2> /dev/null; do
		[ $((tenths--)) -gt 0 ] || { tail -5 "$1" >&2; fail "no line \"$2\" in $1"; }
		sleep 0.1
	done
}

# until_gone PID [SECONDS]: waits for the end of a process that is not a child of this shell.
until_gone() {
	local tenths=$((${2:-10} * 10))
	while [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null; do
		[ $((tenths--)) -gt 0 ] || fail "process $1 does not end: $(grep State "/proc/$1/status")"
		sleep 0.1
	done
}

# losses FILE: prints the content of metrics.jsonl without the times.
losses() {
	sed 's/,"seconds":.*/}/' "$1"
}
