# SPDX-License-Identifier: Apache-2.0
# None of the following may change a bit: a second run, stops and resumes at one or two ranks, shards, another plan on the same cache, the size of
# leases, the threads of teachers. Phase two runs without other processes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

small_corpus
small_model "$scratch/student" -
cd "$scratch"
port=$(free_port)
small_fleet f.yaml "$port"
small_teachers f.yaml
# Steps are long enough that a signal arrives during one.
sed -i 's/^trainer.*/trainer: {model: student, steps: 24, batch: 32, lanes: 4, lr: 3e-3, warmup: 2, eval_every: 6, eval_sequences: 8, checkpoint_every: 5, threads: 1}/
	s/^phase_one.*/phase_one: {steps: 12, weight: 0.667}/' f.yaml

# up CACHE [OPTION...]: starts selectord and a teacher on that cache. down [SIGNAL]: stops both.
up() {
	local cache=$1
	shift
	start selectord "$BIN/selectord" -c f.yaml --set cache.dir="$cache" --set run.dir="fleet_$cache" "$@"
	start teacherd "$BIN/teacherd" -c f.yaml --set run.dir="fleet_$cache" "$@"
}
down() {
	stop "${1:-TERM}" $selectord $teacherd
}
train() {			# RUN [OPTION...]: trains RUN to its end
	local run=$1
	shift
	timeout 60 "$BIN/trainerd" -c f.yaml --set run.dir="$run" "$@" > "$run.log" 2>&1 || { tail -3 "$run.log" >&2; fail "$run: exit code $?"; }
}
bits() {			# RUN [STEPS]: losses, and the weights at the end
	losses "$1/metrics.jsonl" > "$1.bits"
	[ "$(grep -c '"kind":"step"' "$1.bits")" = "${2:-24}" ] || fail "$1: not ${2:-24} steps"
	sha256sum < "$1/checkpoints/step_000000${2:-24}/model.safetensors" >> "$1.bits"
}
equal() {
	bits "$1"
	bits "$2"
	same "$1.bits" "$2.bits" "$3"
}

# 1. The same command twice, each time with a new cache; another seed gives another run.
up one; train run_one; down
up two; train run_two; down
up seed; train run_seed --set run.seed=4; down
equal run_one run_two "the same command twice"
bits run_seed
cmp -s run_one.bits run_seed.bits && fail "another seed gives the same losses"

# 2. Stopped around the switch and resumed, at one rank, two ranks (also with checkpoints gathered through rank 0), and one again.
resume() {			# RUN RANKS STEP: trains until the run has written STEP, then sends SIGUSR1; further arguments are options
	local run=$1 n=$2 step=$3 rc=0
	shift 3
	"${mpirun[@]}" -n "$n" "$BIN/trainerd" -c f.yaml --set run.dir="$run" "$@" > "$run.$step.log" 2>&1 &
	local pid=$!
	if [ "$step" != end ]; then
		until_line "$run.$step.log" event=run.start
		until grep -q "\"kind\":\"step\",\"step\":$step," "$run/metrics.jsonl" 2> /dev/null; do
			kill -0 $pid 2> /dev/null || break
			sleep 0.005
		done
		kill -USR1 $pid 2> /dev/null || true
	fi
	wait $pid || rc=$?
	if [ "$step" = end ]; then
		[ $rc = 0 ] || { tail -3 "$run.$step.log" >&2; fail "$run: the end at $n ranks: exit code $rc"; }
	else
		[ $rc = 75 ] || [ $rc = 0 ] || { tail -3 "$run.$step.log" >&2; fail "$run: stopped at step $step at $n ranks: exit code $rc"; }
		stops="$stops $(ls "$run/checkpoints" | tail -1 | sed 's/step_0*//')x$n"
	fi
}
up two; stops=
resume run_stops 1 2
resume run_stops 2 8 --set checkpoint.gather=true
resume run_stops 1 11
resume run_stops 2 12 --set checkpoint.gather=true
resume run_stops 1 16
resume run_stops 2 end
down
echo "stopped after steps (x ranks):$stops"
[ "$(printf '%s\n' $stops | sort -u | wc -l)" -ge 4 ] || fail "not stopped often enough: $stops"
equal run_one run_stops "stopped and resumed"

# 3. Two shards.
two="[tcp://127.0.0.1:$port, tcp://127.0.0.1:$(free_port)]"
start shard0 "$BIN/selectord" -c f.yaml --set cache.dir=shards --set run.dir=fleet_shards --set selector.endpoints="$two" --shard 0
start shard1 "$BIN/selectord" -c f.yaml --set cache.dir=shards --set run.dir=fleet_shards --set selector.endpoints="$two" --shard 1
start teacherd "$BIN/teacherd" -c f.yaml --set run.dir=fleet_shards --set selector.endpoints="$two"
train run_shards --set selector.endpoints="$two"
stop TERM $shard0 $shard1 $teacherd
[ -e shards/shard_1 ] || fail "no second shard's cache"
equal run_one run_shards "two shards"

# 4. Two plans on one cache at the same time: each gives the bits that it gives alone.
up both
"$BIN/trainerd" -c f.yaml --set run.dir=run_both_seed --set run.seed=4 > run_both_seed.log 2>&1 &
other=$!
until_line run_both_seed.log event=selectord.welcome
kill -STOP $other			# otherwise its phase one may be over, and the teachers released, before the next trainer sends HELLO
"$BIN/trainerd" -c f.yaml --set run.dir=run_both > run_both.log 2>&1 &
trainer=$!
until_line run_both.log event=selectord.welcome
kill -CONT $other
wait $other || fail "the one plan: exit code $?: $(tail -1 run_both_seed.log)"
wait $trainer || fail "the other plan: exit code $?: $(tail -1 run_both.log)"
down
equal run_one run_both "beside another plan"
equal run_seed run_both_seed "the other plan"

# 5. All labels are made ahead, without a trainer, by leases of one or many sequences, with one or two threads: the same bytes. Then a trainer runs
# without teachers.
n=$("$BIN/saltctl" corpus info --json train | tr -d ' ",' | sed -n 's/^tokens:\([0-9]*\)$/\1/p')
ahead() {			# CACHE OPTION...
	up "$@" --set selector.label_ahead_steps=all --set cache.keep_unselected=true
	timeout 60 "$BIN/saltctl" label -c f.yaml --set selector.label_ahead_steps=all > "label_$1.log" 2>&1 || { cat "label_$1.log" >&2; fail "saltctl label: $1"; }
}
ahead alone --set selector.lease_sequences=1 --set teacher.threads=1; down
ahead many --set selector.lease_sequences=32 --set teacher.threads=2
stop TERM $teacherd
train run_ahead
stop TERM $selectord
"$BIN/cache_dump" alone $((${n:-70000} / 32)) > alone.dump
"$BIN/cache_dump" many $((${n:-70000} / 32)) > many.dump
[ "$(grep -c ^label alone.dump)" -ge 384 ] || fail "fewer labels than rows of phase one: $(grep -c ^label alone.dump)"
[ "$(grep -c ^score alone.dump)" -ge 768 ] || fail "fewer scores than sequences looked at"
same alone.dump many.dump "labels one by one and many at a time"
equal run_one run_ahead "labels made ahead, no teacher any more"

# 6. After the switch all other processes are killed: phase two continues; after a stop it resumes and ends.
up gone
"$BIN/trainerd" -c f.yaml --set run.dir=run_gone > run_gone.log 2>&1 &
trainer=$!
until_line run_gone.log "event=switch"
down KILL
until_line run_gone/metrics.jsonl '"step":15,'
kill -USR1 $trainer
wait $trainer && fail "was not stopped in phase two" || [ $? = 75 ] || fail "stopped in phase two: exit code $?"
train run_gone
equal run_one run_gone "phase two alone"
