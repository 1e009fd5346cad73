# SPDX-License-Identifier: Apache-2.0
# A fleet with backend cuda, on the emulated plug-in (PLUGIN): teacherd and trainerd load it; selectord needs no plug-in, because it compares the
# names of classes; a CPU teacher is refused. Losses and weights have the same bits at 1 and 2 ranks, with labels of 1 and 2 workers of a teacher, and
# when 4 ranks continue from a checkpoint; they are close to a CPU's, also in fp32 and with Muon. Errors name what is missing: plug-in, driver,
# device, memory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"

: "${PLUGIN:?the emulated libsalt_cuda.so}" "${NVML:?tests/unit/stub_nvml.c as a library}"
export SALT_CUDA_PLUGIN=none		# on the CPU, unless a command says otherwise
gpu=(env "SALT_CUDA_PLUGIN=$PLUGIN" "SALT_NVML=$NVML")
small_corpus
small_model "$scratch/student" -
cd "$scratch"
small_fleet f.yaml "$(free_port)"
sed -i 's/^trainer.*/trainer: {model: student, steps: 8, batch: 4, lanes: 4, lr: 3e-3, warmup: 2, eval_every: 4, eval_sequences: 4, checkpoint_every: 2, keep_checkpoints: 4, threads: 1}/
	s/^phase_one.*/phase_one: {steps: 4, weight: 0.667}/; s/mode: salt_ds, block: 32/mode: salt_ds, block: 8/; s/lease_sequences: 8/lease_sequences: 4/' f.yaml
small_teachers f.yaml
sed 's/^corpus.*/&\ncompute: {backend: cuda}/' f.yaml > g.yaml

# refused CODE REGEX COMMAND...
refused() {
	local code=$1 regex=$2 rc=0
	shift 2
	timeout 60 "$@" > refused.log 2>&1 || rc=$?
	[ $rc = "$code" ] || fail "exit code $code expected, found $rc: $* $(tail -2 refused.log)"
	tail -1 refused.log | grep -qE -- "$regex" || fail "no \"$regex\": $(tail -1 refused.log)"
}
alone=(--set phase_one.steps=0 --set selector.mode=none --set run.dir=refused)
refused 78 'libsalt_cuda.so.*SALT_CUDA_PLUGIN=none' "$BIN/trainerd" -c g.yaml "${alone[@]}"
refused 78 'libsalt_cuda.so.*SALT_CUDA_PLUGIN=none' "$BIN/teacherd" -c g.yaml
refused 78 'expected the NVIDIA driver' env CUDA_EMU_DEVICE=no_driver "${gpu[@]}" "$BIN/trainerd" -c g.yaml "${alone[@]}"
refused 78 'driver for CUDA 12.0 or newer.*found one for CUDA 11.0' env CUDA_EMU_DEVICE=old_driver "${gpu[@]}" "$BIN/teacherd" -c g.yaml
refused 78 'expected a GPU .CUDA_VISIBLE_DEVICES' env CUDA_EMU_DEVICE=none "${gpu[@]}" "$BIN/trainerd" -c g.yaml "${alone[@]}"
refused 78 'compute capability 8.0 or higher, found CPU emulation with 7.0' env CUDA_EMU_DEVICE=old "${gpu[@]}" "$BIN/teacherd" -c g.yaml
refused 71 'memory of the GPU: expected 0.0. GiB or more; more ranks.*0.00 GiB free of 0.00 GiB on CPU emulation' env CUDA_EMU_MEMORY=1000000 \
	"${gpu[@]}" "$BIN/trainerd" -c g.yaml "${alone[@]}"

# Enough memory, but only little more than needed.
for memory in 100000000 2000000000; do
	timeout 60 env CUDA_EMU_MEMORY=$memory "${gpu[@]}" "$BIN/trainerd" -c g.yaml "${alone[@]}" --set trainer.steps=2 --set run.dir=room_$memory > room.log 2>&1 ||
		fail "trainerd with $memory bytes of GPU memory: $(tail -2 room.log)"
	[ "$(grep -c 'level=warn .*event=gpu.tight needed_gib=0.0. free_gib=0.09 ' room.log)" = $((memory == 100000000)) ] ||
		fail "gpu.tight with $memory bytes of GPU memory: $(grep gpu room.log)"
done

# Messages name another process on the GPU: with too little memory, with enough memory, a process of the fleet, another rank.
shared=(env "STUB_NVML_PROCESSES=$$:2147483648" "${gpu[@]}")
refused 71 'or another GPU .CUDA_VISIBLE_DEVICES., found 0.00 GiB free .* on CPU emulation, shared with bash .[0-9]*. 2.00 GiB' env \
	CUDA_EMU_MEMORY=1000000 "${shared[@]}" "$BIN/trainerd" -c g.yaml "${alone[@]}"
refused 71 'teacher: expected 0.00 GiB .*, found 0.00 GiB free .*, shared with bash .[0-9]*. 2.00 GiB' env CUDA_EMU_MEMORY=100000 "${shared[@]}" \
	"$BIN/teacherd" -c g.yaml
refused 71 'teacher: expected 0.00 GiB of GPU memory for its parameters, found 0.00 GiB free' env CUDA_EMU_MEMORY=100000 "${gpu[@]}" \
	"$BIN/teacherd" -c g.yaml
refused 71 'memory of the GPU: expected 0.0. GiB for activations and logits of 2 teacher.threads beside .*teacher.threads: 1 fits' env \
	CUDA_EMU_MEMORY=60000000 "${gpu[@]}" "$BIN/teacherd" -c g.yaml --set teacher.threads=2

# Compute class by name: selectord without a plug-in, whose teachers compute in bf16/cuda.
start selectord "$BIN/selectord" -c g.yaml --set run.dir=one
until_line selectord.log event=identity
refused 78 'models.compute_class: .*expected bf16/cuda, found (fp32|bf16)/' "$BIN/teacherd" -c f.yaml --set run.dir=one
start teacherd "${shared[@]}" "$BIN/teacherd" -c g.yaml --set run.dir=one

# run NAME RANKS OPTION...: trains to the end; losses and hashes of the results go to NAME.bits.
run() {
	local name=$1 n=$2 rc=0
	shift 2
	timeout 300 "${gpu[@]}" "${mpirun[@]}" -n "$n" "$BIN/trainerd" -c g.yaml --set run.dir="$name" "$@" >> "$name.log" 2>&1 || rc=$?
	! grep -h -A 12 '^cuda_emu: ' "$name.log" teacherd.log >&2 || fail "the emulation reports a fault"
	[ $rc = 0 ] || { tail -5 "$name.log" >&2; fail "$name at $n ranks: exit code $rc"; }
	losses "$name/metrics.jsonl" > "$name.bits"
	sha256sum < "$name/checkpoints/step_00000008/model.safetensors" >> "$name.bits"
}
until_line teacherd.log event=selectord.welcome
grep -q 'level=warn .*event=gpu.shared gpu="CPU emulation" pci=0000:65:00.0 with="bash ([0-9]*) 2.00 GiB" .*CUDA_VISIBLE_DEVICES' teacherd.log ||
	fail "the other process is not named: $(grep gpu teacherd.log)"
timeout 60 "$BIN/saltctl" status -c g.yaml --set run.dir=one > status.log || fail "saltctl status: $(cat status.log)"
grep -q '^teacherd .*  CPU emulation 97 %, 3.0 of 4.3 GB  ' status.log || fail "no GPU in status: $(cat status.log)"
grep -q '^selectord .*  -  ' status.log || fail "selectord has a GPU: $(cat status.log)"
timeout 60 "${gpu[@]}" "$BIN/saltctl" model info student > info.log || fail "saltctl model info: $(cat info.log)"
grep -q '^GPU in use *97 % of the time, its memory 41 %; by no process that can be seen from here' info.log || fail "no use of the GPU: $(cat info.log)"
STUB_NVML_PROCESSES="$teacherd:3221225472" run one 1
grep -q 'level=info .*event=gpu.shared .*with="teacherd-.* ('"$teacherd"') 3.00 GiB" .*hint="all processes belong to this fleet"' one.log ||
	fail "the teacher on the same GPU: $(grep gpu one.log)"
grep -q event=gpu.ranks one.log && fail "one rank is two: $(grep gpu.ranks one.log)"
stop TERM $selectord $teacherd
# Labels made again by a teacher with two workers are the same.
start selectord "$BIN/selectord" -c g.yaml --set run.dir=one --set cache.dir=cache2
until_line selectord.log event=identity
start teacherd "${gpu[@]}" "$BIN/teacherd" -c g.yaml --set run.dir=one --set teacher.threads=2
run two 2
grep -q 'event=engine .*threads=2' teacherd.log || fail "not two workers: $(grep event=engine teacherd.log)"
stop TERM $teacherd
same one.bits two.bits "one rank and two"
grep -q 'level=warn .*rank=1 .*event=gpu.ranks pci=0000:65:00.0 also_of_rank=0 ' two.log || fail "two ranks on one GPU: $(grep gpu two.log)"
grep -q '"compute_class": *"bf16/cuda"' one/checkpoints/step_00000008/state.json || fail "no compute class in state.json"
grep -q '"device": *"sm_90 CUDA 12.0 cuBLASLt' one/checkpoints/step_00000008/state.json || fail "no device in state.json"
[ "$(grep -c '"kind":"step"' one.bits)" = 8 ] || fail "not 8 steps"
grep -q '"kd_tokens":128' one/metrics.jsonl || fail "no label was used: $(head -2 one/metrics.jsonl)"
stop TERM $selectord

# Stopped at step 4 and resumed at another number of ranks: the same bits.
cp -r one resumed
rm -r resumed/checkpoints/step_00000008 resumed/checkpoints/step_00000006
run resumed 4
tail -1 resumed.bits > resumed.sum
tail -1 one.bits > one.sum
same one.sum resumed.sum "a run and one that was resumed"

# On another GPU a run continues, with a warning, if the backend is named, but not if auto chose it.
rm -r resumed/checkpoints/step_00000008
sed 's/^compute.*//' g.yaml > auto.yaml
refused 78 'GPU and its libraries .trainer.backend: cuda accepts others.: .*expected sm_90 CUDA 12.0 .*found sm_80 CUDA 12.0' env CUDA_EMU_DEVICE=sm_80 \
	"${gpu[@]}" "$BIN/trainerd" -c auto.yaml --set run.dir=resumed
CUDA_EMU_DEVICE=sm_80 run resumed 1
grep -q 'compute.changed was="bf16/cuda sm_90 .* is="bf16/cuda sm_80 ' resumed.log || fail "no warning: $(grep compute resumed.log)"
grep -q '"device": *"sm_80 ' resumed/checkpoints/step_00000008/state.json || fail "no new device in state.json"

# near NAME DTYPE LIMIT OPTION...: compares a run without a teacher with the same run on the CPU, from the same weights and on the same rows.
near() {
	local name=$1 dtype=$2 limit=$3
	shift 3
	run "$name" 1 --set phase_one.steps=0 --set selector.mode=none --set compute.dtype="$dtype" "$@"
	timeout 300 "$BIN/trainerd" -c f.yaml --set run.dir="$name.cpu" --set phase_one.steps=0 --set selector.mode=none \
		--set compute.backend=openblas --set compute.dtype="$dtype" "$@" > cpu.log 2>&1 || fail "$name on the CPU: $(tail -1 cpu.log)"
	python3 - "$name/metrics.jsonl" "$name.cpu/metrics.jsonl" "$limit" <<-'END' || fail "$name: losses differ from those of the CPU"
		import json, sys
		def losses(path):
		    return [r["loss"] for r in map(json.loads, open(path)) if r["kind"] in ("step", "eval")]
		a, b = map(losses, sys.argv[1:3])
		worst = max(abs(x - y) for x, y in zip(a, b))
		print(f"{sys.argv[1]}: {len(a)} losses, {worst:.2e} apart at most, from {a[0]:.4f} to {a[-1]:.4f}")
		sys.exit(not (len(a) == len(b) >= 10 and 0 < worst <= float(sys.argv[3])))
	END
}
near plain bf16 1e-3
near fp32 fp32 2e-5
grep -q '"compute_class": *"fp32/cuda"' fp32/checkpoints/step_00000008/state.json || fail "no class fp32/cuda in state.json"
near muon bf16 2e-3 --set trainer.optimizer=muon
# With Muon each rank gets whole matrices.
run muon2 2 --set phase_one.steps=0 --set selector.mode=none --set compute.dtype=bf16 --set trainer.optimizer=muon
same muon.bits muon2.bits "Muon: one rank and two"

# trainer.backend alone, and auto with a device.
timeout 300 "${gpu[@]}" "$BIN/trainerd" -c f.yaml --set run.dir=auto --set phase_one.steps=0 --set selector.mode=none --set trainer.steps=1 \
	--set trainer.warmup=0 > auto.log 2>&1 || fail "auto: $(tail -1 auto.log)"
grep -q 'compute="CUDA 12.0 CPU emulation sm_90 bf16" why="GPU found: CPU emulation"' auto.log || fail "auto takes no GPU: $(grep compute= auto.log)"
timeout 300 "$BIN/trainerd" -c g.yaml --set run.dir=mixed --set phase_one.steps=0 --set selector.mode=none --set trainer.steps=1 \
	--set trainer.warmup=0 --set trainer.backend=openblas > mixed.log 2>&1 || fail "trainer.backend: $(tail -1 mixed.log)"
