#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ranks.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: two ranks of one thread compared with one rank of two threads, in turns.
# GPT-2 124M, 64 x 256. BATCH=8 in the environment takes fewer sequences and changes the name of the row.
. "$(dirname "$0")/../lib.sh"
batch=${BATCH:-64}
name=ranks_2x1_vs_1x2
[ "$batch" = 64 ] || name=${name}_${batch}x256
export OMP_WAIT_POLICY=passive
for _ in $(seq "$rounds"); do
	"${mpirun[@]}" -n 2 "$bin/bench_ranks" gpt2_124m "$batch" 1 1 $tiny >> "$scratch/two"
	"${mpirun[@]}" -n 1 "$bin/bench_ranks" gpt2_124m "$batch" 1 2 $tiny >> "$scratch/one"
done
tokens=$((batch * 256))
two=$(median < "$scratch/two" | awk -v n="$tokens" '{ printf "%.6g", n / $1 }')
one=$(median < "$scratch/one" | awk -v n="$tokens" '{ printf "%.6g", n / $1 }')
row "$name" "$two" tokens/s "one rank of two threads" "$one"
rows_write
