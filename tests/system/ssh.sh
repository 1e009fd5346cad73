# SPDX-License-Identifier: Apache-2.0
# deploy/ssh.sh with three separate hosts, each a real sshd in a network namespace with its own name, address and files: the verbs of local.sh, and the
# losses of a run with local.sh. Skipped without root, sshd, rsync or namespaces.
if [ -z "${SALT_NAMESPACES:-}" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "skipped: needs root (network namespaces)"; exit 77; }
	PATH=$PATH:/usr/sbin
	for program in sshd ssh ssh-keygen rsync ip unshare mpirun; do
		command -v $program > /dev/null || { echo "skipped: no $program here: apt-get install openssh-server rsync iproute2"; exit 77; }
	done
	why=$(unshare --net --mount --uts --pid --fork --mount-proc ip link add salt type bridge 2>&1) ||
	    { echo "skipped: no namespaces or no bridge here: $why"; exit 77; }
	# All processes started below end with this shell; the network of this machine is not changed.
	SALT_NAMESPACES=1 exec unshare --net --mount --uts --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"

# ---- three hosts ----

hostname control
ip link set lo up
ip link add salt type bridge
ip link set salt up
ip addr add 10.77.1.1/24 dev salt
mkdir fleet keys home
ssh-keygen -q -t ed25519 -N '' -f keys/host
ssh-keygen -q -t ed25519 -N '' -f keys/user
cat > keys/sshd_config <<END
HostKey $scratch/keys/host
AuthorizedKeysFile $scratch/keys/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv HOME=$scratch/home
END
cat > keys/ssh_config <<END
Host *
User root
IdentityFile $scratch/keys/user
UserKnownHostsFile $scratch/keys/known
StrictHostKeyChecking yes
BatchMode yes
ConnectTimeout 10
LogLevel ERROR
END
export SALT_SSH="ssh -F $scratch/keys/ssh_config"
echo "127.0.0.1 localhost" > keys/names
n=1
for host in alpha beta gamma; do
	n=$((n + 1))
	echo "10.77.1.$n $host" >> keys/names
	echo "$host $(cut -d ' ' -f 1,2 keys/host.pub)" >> keys/known
	mkdir $host
	# Each host has a fleet folder of its own, at the same path as here.
	unshare --net --mount --uts bash -c '
		set -e
		hostname "$1"
		touch "$2/$1.there"
		mount --bind "$2/$1" "$2/fleet"
		mount --bind "$2/keys/names" /etc/hosts
		mount -t tmpfs tmpfs /run
		mkdir /run/sshd
		until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
		ip link set lo up
		ip addr add "$3" dev eth0
		ip link set eth0 up
		exec "$(command -v sshd)" -D -e -f "$2/keys/sshd_config"' - "$host" "$scratch" "10.77.1.$n/24" > $host.sshd 2>&1 &
	pid=$!
	until [ -e $host.there ]; do sleep 0.02; done
	ip link add "to_$host" type veth peer name eth0 netns $pid || fail "$host has no network"
	ip link set "to_$host" master salt up
done
mount --bind keys/names /etc/hosts
for host in alpha beta gamma; do
	until_line $host.sshd 'listening on'
	for ((i = 0; i < 50; i++)); do [ "$($SALT_SSH $host hostname 2> ssh.err)" != $host ] || break; sleep 0.1; done
	[ $i -lt 50 ] || fail "sshd of $host: $(cat ssh.err $host.sshd)"
done

# ---- the fleet: its files are on this machine, and on no host ----

mkdir -p fleet/bin fleet/deploy
cp "$BIN"/{saltctl,selectord,teacherd,trainerd,saltfleet-supervise} fleet/bin/
cp "$SOURCE"/deploy/{shell,fleet,local,mpi,ssh}.sh fleet/deploy/
small_corpus
small_model "$scratch/student" -
small_fleet fleet/fleet.yaml "$(free_port)"
small_teachers fleet/fleet.yaml
mv train.* held.* student fleet/
cp -rL teacher fleet/teacher
cp -rL scorer fleet/scorer
sed -i "s#$scratch/\(train\|held\|teacher\|scorer\|student\)#$scratch/fleet/\1#g; s/steps: 12,/steps: 2420,/; s/checkpoint_every: 3/checkpoint_every: 50/
    s/phase_one: {steps: 6/phase_one: {steps: 2400/; s/eval_every: 6/eval_every: 800/; s#tcp://127.0.0.1:[0-9]*#tcp://alpha:5750#" fleet/fleet.yaml
cat >> fleet/fleet.yaml <<'END'
security: {allow_plain_remote: true}
status: {bind: "tcp://*:*"}
checkpoint: {gather: true}
END
cat > hosts <<'END'
# one line a host
alpha	selectord
beta	teachers=2  trainers=1		# the first with trainers: mpirun runs here
gamma	teachers=1 trainers=1
END
ssh_sh() { timeout "${limit:-180}" fleet/deploy/ssh.sh "$1" -c fleet/fleet.yaml --bin fleet/bin --hosts "${hosts:-hosts}" "${@:2}"; }
trap 'kill -CONT ${held:-} 2> /dev/null || true; ssh_sh down > /dev/null 2>&1 || true; cleanup' EXIT
does() { ssh_sh "$@" > out 2>&1 || fail "$*: exit code $?: $(cat out; tail -n 4 */run/logs/* 2> /dev/null)"; }
says() { grep -q -- "$1" out || fail "expected to hear \"$1\", heard: $(cat out)"; }
refused() {		# refused CODE WORDS VERB ARGS...
	local rc=0
	ssh_sh "${@:3}" > out 2>&1 || rc=$?
	[ $rc -eq "$1" ] || fail "${*:3}: exit code $rc, expected $1: $(cat out)"
	says "$2"
}
running() { pgrep -f "^$scratch/fleet/bin/" | wc -l; }
step() { { tail -n 3 beta/run/metrics.jsonl 2> /dev/null || true; } | sed -n 's/.*"kind":"step","step":\([0-9]*\).*/\1/p' | tail -n 1; }
wait_step() {
	local tenths=600 now
	while now=$(step); [ "${now:-0}" -lt "$1" ]; do
		[ $((tenths--)) -gt 0 ] || { tail -n 5 */run/logs/* >&2; fail "no step $1; it is at ${now:-0}"; }
		sleep 0.1
	done
}
in_phase_one() { ! grep -q '"event":"switch"' beta/run/metrics.jsonl || fail "phase one is over: the test does not test what it says"; }
# The trainer is stopped (SIGSTOP) wherever phase one must not end.
hold() { held=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' beta/run/daemons/trainerd-0.json); kill -STOP "$held"; }
go_on() { kill -CONT "$held"; }
pids() { cat {alpha,beta,gamma}/run/daemons/"$1".pid 2> /dev/null || true; }

# The expected result: the same file through local.sh, on this machine.
(
	cd fleet
	mkdir ../quiet
	timeout 500 deploy/local.sh up -c fleet.yaml --bin bin --wait --set run.dir="$scratch/quiet/run" --set cache.dir="$scratch/quiet/cache" \
	    --set "selector.endpoints=tcp://127.0.0.1:5750" > ../quiet.out 2>&1 || fail "the quiet run: $(cat ../quiet.out)"
	timeout 60 deploy/local.sh down -c fleet.yaml --bin bin --set run.dir="$scratch/quiet/run" > /dev/null
)

# Wrong use, and hosts files that do not fit: no host is contacted.
refused 64 'fleet.yaml is missing' up -c ''
timeout 20 fleet/deploy/ssh.sh up -c fleet/fleet.yaml --bin fleet/bin > out 2>&1 && fail "no --hosts"
says '--hosts FILE is missing'
refused 64 'unknown verb' sideways
refused 64 'scale teachers=4 -c' scale
refused 64 'takes no --update' down --update
refused 64 'no host has teacherd' logs teacherd
wrong() {		# wrong CODE WORDS LINE..: with these lines as the hosts file
	printf '%s\n' "${@:3}" > wrong
	hosts=wrong refused "$1" "$2" up
}
wrong 65 'wrong:2: expected selectord, teachers=N or trainers=N, found teacher=2' 'alpha selectord' 'beta teacher=2'
wrong 65 'wrong:2: alpha already has a line' 'alpha selectord' 'alpha trainers=1'
wrong 65 'wrong:1: alpha has no part' 'alpha'
for name in -oProxyCommand=x .. @alpha root@ 'a;b'; do
	wrong 65 'wrong:1: expected the name of a host, or USER@HOST, found' "$name selectord"
done
wrong 65 'no host has selectord' 'alpha trainers=1'
wrong 65 'no host has trainers' 'alpha selectord'
wrong 65 '2 hosts have selectord' 'alpha selectord' 'beta selectord trainers=1'
wrong 69 'delta cannot be reached' 'alpha selectord' 'delta trainers=1'
refused 78 'expected addresses that all hosts reach' up --set selector.endpoints=tcp://127.0.0.1:5750
refused 78 'expected at most 2, the slots that hosts has, found 4' up --set trainer.ranks=4
[ "$(running)" = 0 ] || fail "a refused up started something"

# Another program, another fleet.yaml on a host: refused with both values before anything is copied; --update copies those of this machine.
mkdir -p gamma/bin
{ cat fleet/bin/trainerd; echo more; } > gamma/bin/trainerd
chmod +x gamma/bin/trainerd
sed 's/lr: 3e-3/lr: 4e-3/' fleet/fleet.yaml > alpha/fleet.yaml
refused 78 "gamma: .*/bin/trainerd: expected sha256=[0-9a-f]*, found sha256=" up
says 'alpha: .*/fleet.yaml: expected sha256=[0-9a-f]*, found sha256='
[ ! -e beta/bin ] && [ ! -e alpha/bin ] && [ "$(running)" = 0 ] || fail "a refused up copied or started something"
# Another corpus under the same name is never replaced.
cp fleet/held.bin alpha/train.bin; cp fleet/held.idx alpha/train.idx; cp fleet/held.json alpha/train.json; cp fleet/held.counts.bin alpha/train.counts.bin
refused 78 "alpha: .*/fleet/train: expected fingerprint=[0-9a-f]*, found fingerprint=" up --update
cmp -s fleet/held.bin alpha/train.bin || fail "a corpus was replaced"
cmp -s fleet/bin/trainerd gamma/bin/trainerd && cmp -s fleet/fleet.yaml alpha/fleet.yaml || fail "--update did not update"
[ "$(running)" = 0 ] || fail "a refused up started something"
rm alpha/train.*

# ---- up, and again ----

does up
for word in 'alpha: selectord: up' 'beta: teacherd-0: up' 'gamma: teacherd-1: up' 'beta: teacherd-2: up' 'beta: trainerd: up'; do says "$word"; done
[ -e alpha/train.bin ] && [ ! -e alpha/student ] && [ -e beta/teacher/model.safetensors ] && [ -e gamma/student/config.json ] ||
    fail "hosts got other files than they need"
[ -e gamma/run/logs/teacherd-1.log ] && [ ! -e gamma/run/logs/teacherd-0.log ] && [ ! -e fleet/run/logs ] || fail "daemons run elsewhere"
wait_step 3
hold
others=$(pids '*')
refused 78 'expected at most 2' restart --set trainer.ranks=4
[ "$(pids '*')" = "$others" ] || fail "a refused restart stopped something"
does up
[ "$(grep -c 'runs already' out)" = 5 ] && [ "$(pids '*')" = "$others" ] || fail "a second up: $(cat out)"
go_on			# selectord drops a trainer that was stopped for long from its roster, and status then cannot ask it
wait_step $(($(step) + 1))
hold
refused 69 '^teacherd  *teacherd-1 ' status		# rank 0 is stopped, and status reports it
says '^gamma: teacherd-1 *running'
says 'trainerd-0 .*NO ANSWER'
[ "$(grep -c 'NO ANSWER' out)" = 1 ] || fail "status: $(cat out)"

# ---- drain, scale ----

does drain teachers
go_on
says 'beta: teacherd-2: stopped'
says 'gamma: teacherd-1: stopped'
[ "$(cat gamma/run/daemons/teacherd-1.exit)" = "0 drained" ] || fail "a drained teacher: $(cat gamma/run/daemons/teacherd-1.exit)"
in_phase_one
does status
says '^beta: teacherd-2 *drained'
says '^trainerd  *trainerd-0 .*beta'
does logs trainerd
says '^beta: .*prog=trainerd .*event='
does logs teacherd-1
says '^gamma: .*event=selectord.welcome'
refused 78 'one of 1 2 4$' scale trainers=3
does scale trainers=2
says 'beta: trainerd: stopped'
says 'beta: trainerd: up'
does scale trainers=2
says 'runs already with 2 ranks'
others=$(pids selectord; pids trainerd)
at=$(step)
hold
does scale teachers=5
says 'beta: teacherd-3: up'
says 'gamma: teacherd-4: up'
[ "$(cat fleet/run/daemons/scale)" = "teachers=5 trainers=2" ] || fail "kept: $(cat fleet/run/daemons/scale)"
go_on
wait_step $((at + 5))
hold
in_phase_one
[ -e gamma/run/daemons/trainerd-1.json ] || fail "rank 1 is not on gamma: $(ls */run/daemons)"
does scale teachers=1
for word in 'beta: teacherd-2: stopped' 'beta: teacherd-3: stopped' 'gamma: teacherd-1: stopped' 'gamma: teacherd-4: stopped'; do says "$word"; done
says 'beta: teacherd-0: runs already'
[ "$(pids selectord; pids trainerd)" = "$others" ] || fail "scaling teachers started others again"
does drain teacherd-0
says 'beta: teacherd-0: stopped'
go_on

# ---- down in mid-run, and up again: from the checkpoint, to the end ----

does down
for word in 'beta: trainerd: stopped' 'alpha: selectord: stopped'; do says "$word"; done
[ "$(running)" = 0 ] || fail "after down there run: $(pgrep -af "^$scratch/fleet/bin/")"
does down
! grep -q stopped out || fail "a second down: $(cat out)"
limit=500 does up --wait			# for most of the 2,420 steps, also on a slow or busy machine
[ "$(cat beta/run/daemons/trainerd.exit)" = "0 done" ] || fail "the end: $(cat beta/run/daemons/trainerd.exit)"
steps() { grep -v '"kind":"event"' "$1/run/metrics.jsonl" | sed 's/,"seconds".*//; s/,"tokens".*//'; }
steps quiet > want
steps beta > got
[ "$(grep -c '"kind":"step"' want)" = 2420 ] && [ "$(grep -c '"phase":1' want)" = 2400 ] || fail "the quiet run is not 2400 and 20 steps"
same want got "three hosts, scaled, stopped and started"

# After the switch no other daemon is started; a host that cannot be reached is named, and the others are served.
does scale teachers=3
says 'needs none any more'
printf 'delta teachers=1\n' | cat hosts - > four
hosts=four refused 69 'delta cannot be reached' status
says '^alpha: selectord '
does down
[ "$(running)" = 0 ] || fail "after down there run: $(pgrep -af "^$scratch/fleet/bin/")"
