# SPDX-License-Identifier: Apache-2.0
# Four shards on hosts that cannot reach one another (netns.sh; their ports of the bridge are isolated from each other). No message can be sent
# between the shards, and they give the same rows as one shard, so none is needed.
. "$(dirname "$0")/netns.sh"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"
trap 'for h in "${!host_pid[@]}"; do kill "${host_pid[$h]}" 2> /dev/null || true; done; cleanup' EXIT

# config DIR ENDPOINTS
config() {
	cat <<END
run: {dir: $1/run, seed: 1}
corpus: {train: $1/data/train, heldout: $1/data/held, context: 16}
cache: {dir: $1/cache, map_size: 64MiB}
teacher: {model: $1/data/model}
labels: {kind: sampled, samples: 4}
selector: {endpoints: [$2], lease_sequences: 4, commit_ms: 5}
END
}
mkdir data
"$BIN/fakes" files "$scratch/data" || fail "fakes files"
rows() {		# rows ENDPOINT,..: gets the rows of both modes
	local mode
	for mode in salt_ds none; do
		timeout 60 "$BIN/fakes" rows "$1" "$scratch/data" mode=$mode window=32 first=0 count=400 total=400 timeout=40 || fail "rows of $1: $mode"
	done
}

one=127.0.0.1:$(free_port)
config "$scratch" "tcp://$one" > one.yaml
start selectord "$BIN/selectord" -c one.yaml
start teacher "$BIN/fakes" teacher "tcp://$one" "$scratch/data"
rows "tcp://$one" > want
stop TERM "$selectord" "$teacher"

ip addr add 10.77.0.254/24 dev salt
ends='' list=''
for n in 0 1 2 3; do
	list="$list${list:+, }\"tcp://shard-$n:5750\"" ends="$ends${ends:+,}tcp://10.77.0.$((n + 1)):5750"
done
for n in 0 1 2 3; do
	host_new shard-$n
	ip link set to_shard-$n type bridge_slave isolated on
	cp -r data/* "hosts/shard-$n/data"
	{ config /mnt "$list"; echo "security: {allow_plain_remote: true}"; } > "hosts/shard-$n/fleet.yaml"
done
for n in 0 1 2 3; do
	start shard_$n on shard-$n /mnt/bin/selectord -c /mnt/fleet.yaml --shard $n
	until_line "$scratch/shard_$n.log" 'event=start .*shard='
done
reaches() { timeout 1 bash -c "exec 3<> /dev/tcp/10.77.0.$1/5750" 2> /dev/null; }
for n in 1 2 3 4; do
	reaches $n || fail "no way to shard $((n - 1)) from here"
	! on shard-$((n % 4)) timeout 1 bash -c "exec 3<> /dev/tcp/10.77.0.$n/5750" 2> /dev/null || fail "shard $((n % 4)) reaches shard $((n - 1))"
	start teacher_$n "$BIN/fakes" teacher "tcp://10.77.0.$n:5750" "$scratch/data"
done
rows "$ends" > got
same want got "four shards apart"
for n in 0 1 2 3; do
	[ "$(wc -c < "hosts/shard-$n/cache/shard_$n/data.mdb")" -gt 100000 ] || fail "shard $n has nothing"
done
