#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# busy.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: training steps on two processors, beside one process that computes all the
# time, compared with the same without it, in turns. A student of 3.4M parameters, 16 x 256 tokens a step in micro-batches of two: the
# threads meet often. The other process has the same priority; a fair share of two processors would leave 0.67.
#
#   busy_machine_share         one rank of two threads, started as a user would: no variable of OpenMP is set
#   busy_machine_share_ranks   two ranks of one thread
. "$(dirname "$0")/../lib.sh"
unset OMP_WAIT_POLICY GOMP_SPINCOUNT OMP_NUM_THREADS
steps=10
[ -z "$tiny" ] || steps=2
allowed=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status | tr ',' '\n' |
	awk -F- '{ for (i = $1; i <= $NF; i++) print i }' | head -2 | paste -sd,)
case $allowed in *,*) ;; *) echo "$0: needs two processors, found $allowed" >&2; exit 69 ;; esac

# once RANKS THREADS: tokens/s
once() {
	taskset -c "$allowed" "${mpirun[@]}" -n "$1" "$bin/bench_ranks" llama_3m 16 "$steps" "$2" $tiny |
		awk -v tokens=$([ -n "$tiny" ] && echo 512 || echo 4096) '{ s += $1; n++ } END { printf "%.6g\n", n * tokens / s }'
}

# share NAME RANKS THREADS
share() {
	local other
	for _ in $(seq "$rounds"); do
		once "$2" "$3" >> "$scratch/$1.idle"
		taskset -c "$allowed" sh -c 'while :; do :; done' &
		other=$!
		pids="$pids $other"
		once "$2" "$3" >> "$scratch/$1.busy"
		kill "$other"
		wait "$other" 2> /dev/null || true
	done
	row "$1" "$(median < "$scratch/$1.busy")" tokens/s "the same alone" "$(median < "$scratch/$1.idle")"
}
share busy_machine_share 1 2
share busy_machine_share_ranks 2 1
rows_write
