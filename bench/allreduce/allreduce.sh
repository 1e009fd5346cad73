#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# allreduce.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: sums of gradients over two ranks, on loopback and over 1 Gbit/s (two network
# namespaces, a veth pair, tc tbf: needs root). Every run is bounded.
#   allreduce_hidden_share    1 - (what the sum cost during and after backward) / (the sum alone), at least 0: GPT-2 124M, 2 x 256 a rank, one thread
#   allreduce_fixed_vs_mpi    128 MiB summed and on all ranks: GB/s of the fixed tree beside MPI_Allreduce
. "$(dirname "$0")/../lib.sh"
elements=$((32 << 20)) steps=2
[ -z "$tiny" ] || elements=$((1 << 20))
export OMP_WAIT_POLICY=passive

# measure SUFFIX LAUNCHER...: the launcher takes the program's arguments
measure() {
	local suffix=$1 out
	shift
	if out=$("$@" sums "$elements" "$rounds"); then
		fixed=$(cut -d' ' -f1 <<< "$out" | median) mpi=$(cut -d' ' -f2 <<< "$out" | median) any=$(cut -d' ' -f3 <<< "$out" | median)
		row "allreduce_fixed_vs_mpi$suffix" "$(awk -v n="$elements" -v s="$fixed" 'BEGIN { printf "%.4g", n * 4e-9 / s }')" GB/s MPI_Allreduce \
			"$(awk -v n="$elements" -v s="$mpi" 'BEGIN { printf "%.4g", n * 4e-9 / s }')"
		row "allreduce_fixed_vs_ireduce$suffix" "$(awk -v n="$elements" -v s="$fixed" 'BEGIN { printf "%.4g", n * 4e-9 / s }')" GB/s MPI_Ireduce \
			"$(awk -v n="$elements" -v s="$any" 'BEGIN { printf "%.4g", n * 4e-9 / s }')"
	else
		echo "allreduce_fixed_vs_mpi$suffix: the run did not end well" >&2
	fi
	if out=$("$@" hidden "$steps" $tiny); then
		row "allreduce_hidden_share$suffix" "$(awk '{ s = 1 - $2 / $1; print (s > 0 ? s : 0) }' <<< "$out" | median)" share
		row "allreduce_early_share$suffix" "$(cut -d' ' -f3 <<< "$out" | median)" share
		row "allreduce_alone$suffix" "$(cut -d' ' -f1 <<< "$out" | median)" s
		row "allreduce_cost$suffix" "$(cut -d' ' -f2 <<< "$out" | median)" s
	else
		echo "allreduce_hidden_share$suffix: the run did not end well" >&2
	fi
}

measure "" timeout 200 "${mpirun[@]}" -n 2 "$bin/bench_allreduce"

# Two ranks, a namespace each: mpirun starts its daemon in the other one through this instead of ssh, under another host name.
a=salt_a_$$ b=salt_b_$$
cat > "$scratch/agent" <<END
#!/bin/bash
while [[ \$1 = -* ]]; do shift; done
shift
exec ip netns exec $b unshare -u bash -c "hostname salt-b; \$*"
END
chmod +x "$scratch/agent"
link_end() {
	ip netns del $a 2> /dev/null || true
	ip netns del $b 2> /dev/null || true
	end
}
link_make() {
	ip netns add $a && ip netns add $b && ip -n $a link add salt0 type veth peer name salt0 netns $b &&
		ip -n $a addr add 10.213.77.1/24 dev salt0 && ip -n $b addr add 10.213.77.2/24 dev salt0 || return 1
	for ns in $a $b; do
		ip -n $ns link set lo up && ip -n $ns link set salt0 up &&
			ip netns exec $ns tc qdisc add dev salt0 root tbf rate 1gbit burst 256kb latency 50ms || return 1
	done
}
across=(timeout 200 env SALT_SSH="$scratch/agent" ip netns exec $a "${mpirun[@]}" --hosts localhost:1,10.213.77.2:1
	--network 10.213.77.0/24 -n 2 "$bin/bench_allreduce")
trap link_end EXIT
if [ "$(id -u)" != 0 ]; then
	echo "allreduce_*_1gbit: needs root (network namespaces)" >&2
elif ! link_make; then
	echo "allreduce_*_1gbit: no network namespaces or no tc here" >&2
else
	measure _1gbit "${across[@]}"
fi
rows_write
