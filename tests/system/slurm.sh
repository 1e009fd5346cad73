# SPDX-License-Identifier: Apache-2.0
# deploy/slurm on a real Slurm of one node, started here: munged, slurmctld and slurmd in a folder of their own. A small fleet runs to its end with its
# trainer requeued in the middle, and its losses are those of a run without Slurm. Then the signal of the time limit. Skipped where Slurm is not
# installed (apt-get install slurm-wlm munge), or without root, which these daemons need.
for program in munged mungekey slurmctld slurmd sbatch; do
	command -v $program > /dev/null || PATH=$PATH:/usr/sbin command -v $program > /dev/null ||
	    { echo "skipped: no $program here: apt-get install slurm-wlm munge"; exit 77; }
done
[ "$(id -u)" -eq 0 ] || { echo "skipped: needs root"; exit 77; }
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
PATH=$PATH:/usr/sbin
slurm=$scratch/slurm
mkdir -p "$slurm"/{state,spool,log}
chmod 755 "$scratch"
daemons=()
trap 'scancel -u root > /dev/null 2>&1 || true; sleep 0.5; [ ${#daemons[@]} -eq 0 ] || kill "${daemons[@]}" 2> /dev/null || true; sleep 0.5; cleanup' EXIT

# ---- Slurm ----

mungekey -c -k "$slurm/munge.key" > /dev/null
munged -F -f --socket="$slurm/munge.socket" --key-file="$slurm/munge.key" --pid-file="$slurm/munged.pid" --seed-file="$slurm/munge.seed" \
    --log-file="$slurm/log/munged" > "$slurm/log/munged.out" 2>&1 & daemons+=($!)
host=$(hostname -s)
cat > "$slurm/slurm.conf" <<CONF
ClusterName=salt
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$slurm/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/log/slurmctld
SlurmdLogFile=$slurm/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=20
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$slurm/slurm.conf
for ((i = 0; i < 50; i++)); do [ ! -S "$slurm/munge.socket" ] || break; sleep 0.1; done
slurmctld -D -c > "$slurm/log/slurmctld.out" 2>&1 & daemons+=($!)
slurmd -D -c > "$slurm/log/slurmd.out" 2>&1 & daemons+=($!)
for ((i = 0; i < 200; i++)); do
	! sinfo -h -o %T 2> /dev/null | grep -q idle || break
	sleep 0.1
done
sinfo -h -o %T 2> /dev/null | grep -q idle || { tail -n 5 "$slurm"/log/* >&2; fail "Slurm of one node did not come up"; }

# ---- the fleet ----

small_corpus
port=$(free_port)
small_fleet "$scratch/fleet.yaml" "$port"
small_model "$scratch/slm" 11
small_model "$scratch/student" -
ln -s "$scratch/slm" "$scratch/teacher"
ln -s "$scratch/slm" "$scratch/scorer"
sed -i 's/steps: 12,/steps: 400,/; s/checkpoint_every: 3/checkpoint_every: 10/; s/phase_one: {steps: 6/phase_one: {steps: 40/; s/eval_every: 6/eval_every: 100/' \
    "$scratch/fleet.yaml"
export SALT_BIN=$BIN
job() {		# job FILE OPTION...: submits deploy/slurm/FILE and prints the number of the job
	local file=$1
	shift
	(cd "$scratch" && sbatch --parsable --output="$scratch/$file.out" "$@" "$SOURCE/deploy/slurm/$file" "$scratch/fleet.yaml") ||
	    fail "sbatch $file"
}
state() { squeue -h -j "$1" -o %T 2> /dev/null || true; }
ended() {	# ended JOB FILE SECONDS
	local tenths=$(($3 * 10))
	while [ -n "$(state "$1")" ]; do
		[ "$(state "$1")" != COMPLETING ] || return 0
		[ $((tenths--)) -gt 0 ] || { tail -n 20 "$scratch/$2.out" >&2; squeue >&2; fail "job $1 ($2) is still $(state "$1")"; }
		sleep 0.1
	done
}
steps() { sed 's/,"seconds":.*//; s/,"tokens".*//' "$1" | grep -v '"kind":"event"' || true; }

# The expected result: the same fleet without Slurm.
start selectord "$BIN/selectord" -c "$scratch/fleet.yaml" --set run.dir="$scratch/plain" --set cache.dir="$scratch/plain_cache"
start teacherd "$BIN/teacherd" -c "$scratch/fleet.yaml" --set run.dir="$scratch/plain"
timeout 120 "$BIN/trainerd" -c "$scratch/fleet.yaml" --set run.dir="$scratch/plain" > "$scratch/plain.log" 2>&1 || { tail -3 "$scratch/plain.log" >&2; fail "the run without Slurm"; }
stop TERM "$selectord" "$teacherd"

through_slurm() {	# through_slurm LAUNCH RANKS requeue|signal
	export SALT_LAUNCH=$1
	rm -rf "$scratch/run" "$scratch/cache" "$scratch"/*.out
	selector_job=$(job selectord.sbatch --cpus-per-task=1)
	teacher_job=$(job teacherd.sbatch --array=1-2)
	trainer_job=$(job trainerd.sbatch --ntasks="$2")
	for ((i = 0; i < 600; i++)); do
		step=$(tail -n 1 "$scratch/run/metrics.jsonl" 2> /dev/null | sed -n 's/.*"step":\([0-9]*\).*/\1/p' || true)
		[ "${step:-0}" -lt 20 ] || break
		sleep 0.1
	done
	[ "${step:-0}" -ge 20 ] || { squeue >&2; tail -n 5 "$scratch"/*.out >&2; fail "$1: no step 20"; }
	[ "$step" -lt 400 ] || fail "$1: over before it could be requeued"
	if [ "$3" = requeue ]; then		# by an operator, or a preemption
		scontrol requeue "$trainer_job" || fail "scontrol requeue"
	else					# like the signal five minutes before the limit
		scancel --batch --signal=USR1 "$trainer_job" || fail "scancel --signal=USR1"
		until_line "$scratch/trainerd.sbatch.out" "restart 0 by $1 ended with 75" 60
	fi
	until_line "$scratch/trainerd.sbatch.out" "restart 1 by $1 ended with 0" 100
	ended "$trainer_job" trainerd.sbatch 20
	steps "$scratch/plain/metrics.jsonl" > "$scratch/want"
	steps "$scratch/run/metrics.jsonl" > "$scratch/got"
	same "$scratch/want" "$scratch/got" "$1, requeued once"
	ended "$teacher_job" teacherd.sbatch 60		# released at the switch, which frees their processors
	scancel "$selector_job"
	ended "$selector_job" selectord.sbatch 30
	echo "$1: stopped by $3 at step $step, $(grep -c '"kind":"step"' "$scratch/got") steps, the same losses"
}
through_slurm mpirun 2 requeue
if srun --mpi=list 2>&1 | grep -qw pmix; then
	through_slurm pmix 2 signal
else
	echo "not run: this Slurm has no PMIx plugin"
	through_slurm mpirun 4 signal
fi
