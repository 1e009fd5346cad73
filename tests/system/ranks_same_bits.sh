# SPDX-License-Identifier: Apache-2.0
# Losses, gradients, evaluation, parameters and moments are equal, bit for bit, at R = 1, 2, 4, 8, for any size of the buckets in which gradients are
# summed, with activations recomputed or kept. A number of ranks that does not divide the lanes is refused.
# Sanitizers look for faults of memory, for which fewer ranks are enough: these runs take most of the time.
. "$(dirname "$0")/lib.sh"

all=(1 2 4 8) some=(1 2 4) ends=(1 4) many=4
[ -z "${SANITIZED-}" ] || { all=(1 4) some=(1 2) ends=(1 2) many=2; }

for r in "${all[@]}"; do
	ranks $r "$BIN/mpi_step" > "$scratch/r$r"
	same "$scratch/r1" "$scratch/r$r" "R = $r"
done
for r in "${all[@]}"; do
	ranks $r "$BIN/mpi_reduce" > "$scratch/reduce" || fail "sums in buckets at R = $r: $(head -3 "$scratch/reduce")"
done
ranks $many "$BIN/mpi_step" bucket=1 > "$scratch/buckets"
same "$scratch/r1" "$scratch/buckets" "small buckets"
for r in 1 2; do
	ranks $r "$BIN/mpi_step" recompute > "$scratch/recompute"
	same "$scratch/r1" "$scratch/recompute" "recompute, R = $r"
done
for r in "${some[@]}"; do
	ranks $r "$BIN/mpi_step" bf16 > "$scratch/bf16_$r"
	same "$scratch/bf16_1" "$scratch/bf16_$r" "bf16, R = $r"
done
for how in margin "margin bf16"; do
	ranks 1 "$BIN/mpi_step" $how > "$scratch/margin_1"
	ranks $many "$BIN/mpi_step" $how recompute > "$scratch/margin_many"
	same "$scratch/margin_1" "$scratch/margin_many" "$how, R = $many with recompute"
done
awk '$1 == "step" && $2 < 7 && !($14 > 0 && $14 < 0.499) { exit 1 }' "$scratch/margin_1" || fail "weights under margin: $(head -6 "$scratch/margin_1")"
cmp -s "$scratch/r1" "$scratch/bf16_1" && fail "bf16 gives the bits of fp32"
for how in documents "documents bf16"; do
	for r in "${some[@]}"; do
		ranks $r "$BIN/mpi_step" $how > "$scratch/documents_$r"
		same "$scratch/documents_1" "$scratch/documents_$r" "isolated documents, $how, R = $r"
	done
done
cmp -s "$scratch/bf16_1" "$scratch/documents_1" && fail "isolated documents give the bits of others"
for how in weights "weights documents bf16"; do
	for r in "${some[@]}"; do
		ranks $r "$BIN/mpi_step" $how > "$scratch/weights_$r"
		same "$scratch/weights_1" "$scratch/weights_$r" "loss weights, $how, R = $r"
	done
	cmp -s "$scratch/r1" "$scratch/weights_1" && fail "loss weights change nothing"
done
# Muon: ranks get whole matrices, separate or fused, also if there are more ranks than a layer has matrices.
for r in "${all[@]}"; do
	ranks $r "$BIN/mpi_step" muon > "$scratch/muon_$r"
	same "$scratch/muon_1" "$scratch/muon_$r" "Muon, R = $r"
done
for r in "${ends[@]}"; do
	ranks $r "$BIN/mpi_step" muon gpt2 bf16 > "$scratch/muon_bf16_$r"
	same "$scratch/muon_bf16_1" "$scratch/muon_bf16_$r" "Muon, GPT-2 in bf16, R = $r"
done
OMP_NUM_THREADS=2 ranks 1 "$BIN/mpi_step" muon threads=2 > "$scratch/muon_threads"
same "$scratch/muon_1" "$scratch/muon_threads" "Muon, two threads"
cmp -s "$scratch/r1" "$scratch/muon_1" && fail "Muon gives the bits of AdamW"
awk '$1 == "step" { hard[$2] = $6 } END { exit !(hard[12] < hard[1] - 0.3) }' "$scratch/muon_1" || fail "the loss does not fall with Muon"
ranks 1 "$BIN/mpi_step" > "$scratch/again"
same "$scratch/r1" "$scratch/again" "a second run"
grep -q "^step 12 loss" "$scratch/r1" || fail "no twelfth step"
awk '$1 == "step" { hard[$2] = $6 } END { exit !(hard[12] < hard[1] - 0.3) }' "$scratch/r1" || fail "the loss does not fall"
# MPI's own order: the loss of the first step is the same, the bits of later ones need not be.
ranks $many "$BIN/mpi_step" any > "$scratch/any"
[ "$(head -1 "$scratch/any" | cut -d' ' -f1-8)" = "$(head -1 "$scratch/r1" | cut -d' ' -f1-8)" ] || fail "first step without the tree"
# Checkpoints: any number of ranks loads the checkpoint of any other number, with and without gather; one file for each rank.
for r in "${some[@]}"; do
	ranks $r "$BIN/mpi_save" "$scratch/save$r" save > "$scratch/log" 2>&1 || fail "save at R = $r: $(cat "$scratch/log")"
	[ "$(ls "$scratch/save$r"/step_00000007/optim_* | wc -l)" = $r ] || fail "not $r shards: $(ls "$scratch/save$r"/step_00000007)"
	same "$scratch/save1/step_00000007/model.safetensors" "$scratch/save$r/step_00000007/model.safetensors" "saved model, R = $r"
done
ranks $many "$BIN/mpi_save" "$scratch/gather" save gather > "$scratch/log" 2>&1 || fail "gathered save: $(cat "$scratch/log")"
for f in "$scratch/save$many"/step_00000007/*; do
	same "$f" "$scratch/gather/step_00000007/${f##*/}" "gathered or not"
done
ranks 2 "$BIN/mpi_save" "$scratch/save$many" load > "$scratch/log" 2>&1 || fail "load at R = 2 of R = $many: $(cat "$scratch/log")"
ranks $many "$BIN/mpi_save" "$scratch/save1" load gather > "$scratch/log" 2>&1 || fail "gathered load at R = $many of R = 1: $(cat "$scratch/log")"
ranks 1 "$BIN/mpi_save" "$scratch/save2" load > "$scratch/log" 2>&1 || fail "load at R = 1 of R = 2: $(cat "$scratch/log")"
# Checkpoints with Muon: a file for each rank and part, the second moments in an order of their own.
ranks 2 "$BIN/mpi_save" "$scratch/muon2" save muon > "$scratch/log" 2>&1 || fail "save of Muon's state: $(cat "$scratch/log")"
[ "$(ls "$scratch/muon2"/step_00000007/optim_* | wc -l)" = 6 ] || fail "not 6 shards: $(ls "$scratch/muon2"/step_00000007)"
ranks 2 "$BIN/mpi_save" "$scratch/muon2g" save gather muon > "$scratch/log" 2>&1 || fail "gathered save of Muon's state: $(cat "$scratch/log")"
for f in "$scratch/muon2"/step_00000007/*; do
	same "$f" "$scratch/muon2g/step_00000007/${f##*/}" "gathered or not, Muon"
done
ranks $many "$BIN/mpi_save" "$scratch/muon2" load muon > "$scratch/log" 2>&1 || fail "load of Muon's state at R = $many of R = 2: $(cat "$scratch/log")"
ranks 1 "$BIN/mpi_save" "$scratch/muon2" load muon > "$scratch/log" 2>&1 || fail "load of Muon's state at R = 1 of R = 2: $(cat "$scratch/log")"
ranks 2 "$BIN/mpi_save" "$scratch/muon2" load gather muon > "$scratch/log" 2>&1 || fail "gathered load of Muon's state: $(cat "$scratch/log")"
ranks 1 "$BIN/mpi_save" "$scratch/muon2" load > "$scratch/log" 2>&1 && fail "AdamW took the state of Muon"
grep -q "trainer.optimizer.*muon.*trainer.init.*adamw" "$scratch/log" || fail "no clear error for the other optimizer: $(cat "$scratch/log")"
if ranks 3 "$BIN/mpi_step" > "$scratch/r3" 2> "$scratch/r3.err"; then
	fail "3 ranks on 8 lanes were taken"
fi
grep -q "trainer.lanes.*3 ranks" "$scratch/r3.err" || fail "no clear error for 3 ranks: $(cat "$scratch/r3.err")"
