# SPDX-License-Identifier: Apache-2.0
# Ranks whose devices exchange by NCCL, on the emulated plug-in (PLUGIN) and an emulated libnccl (NCCL): sums, steps and runs of trainerd have the
# same bits as through host memory and MPI, and as with one rank. Without the library, with an old one or one that refuses, or with two ranks on one
# card, the ranks continue by MPI and report it once.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
: "${PLUGIN:?the emulated libsalt_cuda.so}" "${NCCL:?the emulated libnccl.so}"
export SALT_CUDA_PLUGIN=$PLUGIN SALT_NCCL=$NCCL CUDA_EMU_BUS=process TMPDIR=$scratch
cd "$scratch"

# says LOG REGEX: LOG has exactly one line about the exchange, and it matches REGEX.
says() {
	[ "$(grep -c ranks.exchange "$1")" = 1 ] && grep ranks.exchange "$1" | grep -qE -- "$2" || fail "$1: not once \"$2\": $(cat "$1")"
}

for r in 2 4; do
	ranks $r "$BIN/mpi_reduce" cuda > "reduce$r.log" 2>&1 || fail "sums at R = $r: $(head -5 "reduce$r.log")"
	grep -q '^equal$' "reduce$r.log" || fail "sums at R = $r: $(cat "reduce$r.log")"
	says "reduce$r.log" "by=\"NCCL 2.27.3\" ranks=$r"
done
ranks 2 env NCCL_EMU=eager "$BIN/mpi_reduce" cuda > eager.log 2>&1 || fail "sums by transfers that run at once: $(head -5 eager.log)"

# step NAME RANKS ENVIRONMENT...
step() {
	local name=$1 r=$2
	shift 2
	ranks "$r" env "$@" "$BIN/mpi_step" cuda gpt2 bf16 steps=1 bucket=1 > "$name" 2> "$name.log" || fail "$name: $(tail -5 "$name.log")"
}
step one 1 X=
! grep -q ranks.exchange one.log || fail "one rank exchanges: $(cat one.log)"
step mpi 2 SALT_NCCL=none
says mpi.log 'by="MPI through host memory" why=.*SALT_NCCL=none, which forbids it'
for r in 2 4; do
	step nccl$r $r X=
	says nccl$r.log "by=\"NCCL 2.27.3\" ranks=$r"
	same one nccl$r "one rank and R = $r by NCCL"
done
same one mpi "one rank and two by MPI"

# Conditions under which the ranks use MPI.
# falls REGEX ENVIRONMENT...
falls() {
	local regex=$1
	shift
	ranks 2 env "$@" "$BIN/mpi_reduce" connect > connect.log 2>&1 || fail "$*: $(cat connect.log)"
	says connect.log "by=\"MPI through host memory\" why=.*$regex"
}
falls 'expected libnccl.so.2, where the dynamic linker finds it or SALT_NCCL names it.*nowhere.so' SALT_NCCL=/nowhere.so
falls 'version 2.7 or later.*version code 2604' NCCL_EMU=old
falls 'ncclCommInitRank.*invalid usage; said by the emulation' NCCL_EMU=refuse
falls 'a separate GPU for each rank .CUDA_VISIBLE_DEVICES..*ranks 0 and 1 on 0000:01:00.0' CUDA_EMU_BUS=0000:01:00.0
# A library that fails while the ranks work ends them.
if ranks 2 env NCCL_EMU=broken "$BIN/mpi_reduce" cuda > broken.log 2>&1; then
	fail "a broken NCCL was not noticed"
fi
grep -qE 'kernels.nccl.*error="unhandled system error".*SALT_NCCL=none' broken.log || fail "a broken NCCL is not named: $(head -5 broken.log)"

# trainerd, two ranks, saved and resumed.
small_corpus
small_model student -
small_fleet f.yaml "$(free_port)"
# run NAME DIRECT ENVIRONMENT...; DIRECT: the expected exchange_direct of the status, 0 or 1.
run() {
	local name=$1 direct=$2 rc=0 seen=
	shift 2
	start trainer timeout 300 "${mpirun[@]}" -n 2 env "$@" "$BIN/trainerd" -c f.yaml --set compute.backend=cuda --set phase_one.steps=0 \
		--set selector.mode=none --set trainer.steps=2 --set trainer.warmup=0 --set trainer.batch=4 --set trainer.checkpoint_every=1 \
		--set trainer.eval_every=0 --set run.dir="$name"
	while [ -z "$seen" ] && kill -0 "$trainer" 2> /dev/null; do
		"$BIN/saltctl" status -c f.yaml --set run.dir="$name" --json > status.json 2> /dev/null || true
		grep -q "\"exchange_direct\": $direct" status.json && seen=1
		sleep 0.1
	done
	wait "$trainer" || rc=$?
	cp trainer.log "$name.log"
	[ $rc = 0 ] || fail "$name: exit code $rc: $(tail -5 "$name.log")"
	[ -n "$seen" ] || fail "no exchange_direct $direct in the status: $(cat status.json)"
	sha256sum < "$name/checkpoints/step_00000002/model.safetensors" > "$name.sum"
}
run by_nccl 1 X=
run by_mpi 0 SALT_NCCL=none
says by_nccl.log 'by="NCCL 2.27.3"'
says by_mpi.log 'by="MPI through host memory"'
same by_nccl.sum by_mpi.sum "NCCL and MPI"
rm -r by_nccl/checkpoints/step_00000002
cp by_nccl.sum first.sum
run by_nccl 1 X=
same first.sum by_nccl.sum "a run and one that was resumed"
