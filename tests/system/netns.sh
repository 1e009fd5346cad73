# SPDX-License-Identifier: Apache-2.0
# Sourced before lib.sh by tests that need several hosts: network namespaces of this kernel, each with a name, a /tmp and an /etc/hosts of its own,
# connected by a bridge. The script restarts itself in new namespaces for processes, mounts and network, so everything that it starts ends with it,
# and the network of the machine is not changed. If that is not possible, it exits with 77 and prints the reason.
if [ -z "${SALT_NETNS:-}" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "skipped: needs root (network namespaces)"; exit 77; }
	for program in ip unshare nsenter mpirun; do
		command -v $program > /dev/null || { echo "skipped: no $program here: apt-get install iproute2 util-linux openmpi-bin"; exit 77; }
	done
	why=$(unshare --net --mount --pid --fork --mount-proc ip link add salt type bridge 2>&1) ||
	    { echo "skipped: no namespaces or no bridge here: $why"; exit 77; }
	SALT_NETNS=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi
ip link set lo up
ip link add salt type bridge
ip link set salt up
declare -A host_pid=()
hosts_n=0

# host_new NAME [SHARED]: makes a host with the next address of 10.77.0.0/24. Its /mnt is $scratch/hosts/NAME, with the programs in /mnt/bin, the
# source in /mnt/source and a /tmp of its own. SHARED, a folder that several hosts use, is its /mnt/run.
host_new() {
	local name=$1 shared=${2:-} dir=$scratch/hosts/$1
	hosts_n=$((hosts_n + 1))
	mkdir -p "$dir"/{bin,source,run,tmp,data}
	[ -e "$scratch/hosts/names" ] || echo "127.0.0.1 localhost" > "$scratch/hosts/names"
	echo "10.77.0.$hosts_n $name" >> "$scratch/hosts/names"
	unshare --net --mount --uts --propagation private bash -c '
		set -e
		name=$1 dir=$2 shared=$3
		hostname "$name"
		mount --bind "$BIN" "$dir/bin"
		mount --bind "$SOURCE" "$dir/source"
		[ -z "$shared" ] || mount --bind "$shared" "$dir/run"
		mount --rbind "$dir" /mnt
		mount --bind "$4" /etc/hosts
		mount --bind /mnt/tmp /tmp
		touch /mnt/ready
		exec sleep infinity' - "$name" "$dir" "$shared" "$scratch/hosts/names" &
	host_pid[$name]=$!
	until [ -e "$dir/ready" ]; do
		kill -0 "${host_pid[$name]}" 2> /dev/null || fail "host $name"
		sleep 0.02
	done
	ip link add "to_$name" type veth peer name eth0 netns "${host_pid[$name]}"
	ip link set "to_$name" master salt up
	on "$name" ip link set lo up
	on "$name" ip addr add "10.77.0.$hosts_n/24" dev eth0
	on "$name" ip link set eth0 up
}

# on NAME COMMAND...: runs the command on that host, in its /mnt.
on() {
	local pid=${host_pid[$1]}
	shift
	nsenter -t "$pid" --net --mount --uts -- env -C /mnt "$@"
}

# cut_off NAME, brought_back NAME: disconnects and reconnects the host at the bridge.
cut_off() { ip link set "to_$1" down; }
brought_back() { ip link set "to_$1" up; }

# launch_agent FILE NAME...: writes the program with which mpirun starts its daemons on those hosts, instead of ssh and without this environment.
launch_agent() {
	local file=$1 name
	shift
	{
		echo '#!/bin/bash'
		echo 'while [[ $1 = -* ]]; do shift; done'
		echo 'case $1 in'
		for name; do echo "$name) pid=${host_pid[$name]} ;;"; done
		echo '*) echo "no host $1" >&2; exit 69 ;;'
		echo 'esac'
		echo 'shift'
		echo 'exec nsenter -t $pid --net --mount --uts -- env -i -C /mnt PATH="$PATH" HOME=/root bash -c "$*"'
	} > "$file"
	chmod +x "$file"
}
