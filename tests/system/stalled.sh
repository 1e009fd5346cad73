# SPDX-License-Identifier: Apache-2.0
# A rank that hangs (SIGSTOP): the watchdog of the others reports it and ends the run with 75, the supervisor restarts it from the last checkpoint, and
# the losses are those of an undisturbed run. The same limit applies to a rank that never completes the start of MPI.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
fleet() { timeout 100 "$SOURCE/deploy/local.sh" "$1" --bin "$BIN" -c "$2.yaml" "${@:3}"; }
trap 'for f in quiet held; do fleet down $f > /dev/null 2>&1 || true; done; kill -KILL ${held:-} 2> /dev/null || true; cleanup' EXIT

small_corpus
small_model "$scratch/student" -
for f in quiet held; do
	cat > $f.yaml <<END
run: {dir: run_$f, seed: 3}
corpus: {train: $scratch/train, heldout: $scratch/held, context: 32}
trainer: {model: $scratch/student, steps: 160, batch: 8, lanes: 4, lr: 3e-3, eval_every: 0, checkpoint_every: 50, threads: 1, ranks: 2, stall_s: 4}
END
done
fleet up quiet --wait > out 2>&1 || fail "the quiet run: $(cat out)"

# Rank 0 runs another program. (Two programs with ":" between them make mpirun 5.0.7 crash with SIGSEGV.)
code=0
timeout 60 "${mpirun[@]}" -n 2 bash -c '[ "$OMPI_COMM_WORLD_RANK" != 0 ] || exec sleep 50; exec "$@"' - "$BIN/trainerd" -c quiet.yaml --set trainer.stall_s=1 --set run.dir=run_alone > alone.log 2>&1 || code=$?
[ "$code" = 75 ] && grep -q 'event=watchdog.stalled limit=10 doing="starting MPI"' alone.log || fail "a rank that never started: $code: $(cat alone.log)"

log=run_held/logs/trainerd.log
step() { { tail -n 2 run_held/metrics.jsonl 2> /dev/null || true; } | sed -n 's/.*"kind":"step","step":\([0-9]*\).*/\1/p' | tail -n 1; }
fleet up held > out 2>&1 || fail "up: $(cat out)"
for ((i = 0; i < 3000; i++)); do
	at=$(step)
	[ "${at:-0}" -lt 60 ] || break
	sleep 0.01
done
held=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' run_held/daemons/trainerd-1.json)
kill -STOP "$held"
at=$(step)
[ "${at:-0}" -ge 60 ] && [ "$at" -lt 160 ] || fail "held at step ${at:-0} of 160"
until_line $log 'rank=0 .*event=watchdog.stalled' 30
until_line $log 'event=daemon.exit .*code=75' 30
until_gone "$held"
fleet up held --wait > out 2>&1 || fail "after the restart: $(cat out)"
[ "$(grep -c event=daemon.restart $log)" = 1 ] || fail "it was started again more than once"
grep -qE 'event=resume step=[1-9]' $log || fail "it did not go on from a checkpoint"
steps() { grep -v '"kind":"event"' "run_$1/metrics.jsonl" | sed 's/,"tokens".*//'; }
steps quiet > want
steps held > got
[ "$(grep -c '"kind":"step"' want)" = 160 ] || fail "the quiet run is not 160 steps"
same want got "a rank that hung"
