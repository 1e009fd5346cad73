#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# session.sh [--pack DIR] [--out DIR] [--seconds N] [--only STEP,...] [--limit STEP:N]... [--emulated PLUGIN]: tests and measures the plug-in for
# NVIDIA GPUs on this machine, with what pack.sh has built. README.md of this folder says what it needs and what the steps are.
#
# Each step has a limit in seconds, and all of them end after --seconds (480). A step that fails or hangs loses only itself. After each one
# DIR (cuda_session) has results.json, table.md and log.txt. Exit code 0: each step that could run has passed. 1: one has not. 78: no GPU.
# --emulated: tiny shapes on the emulation of tests/cuda_emu, to test this script.
set -u
here=$(cd "$(dirname "$0")" && pwd)
pack=$here out=cuda_session seconds=480 only= emulated= size=()
[ -x "$pack/bin/bench_cuda" ] || pack=$here/../../build/cuda/pack
declare -A limits=()
usage() {
	sed -n '3s/^# \(.*\]\): .*/usage: \1/p' "$0" >&2
	exit 64
}
while [ $# -gt 0 ]; do
	[ $# -ge 2 ] || usage
	case $1 in
	--pack) pack=$2 ;;
	--out) out=$2 ;;
	--seconds) seconds=$2 ;;
	--only) only=$2 ;;
	--limit) limits[${2%%:*}]=${2##*:} ;;
	--emulated) emulated=$2 size=(--tiny --rounds 1) ;;
	*) usage ;;
	esac
	shift 2
done
[ -x "$pack/bin/bench_cuda" ] || { echo "session.sh: no programs in $pack: make them with bench/cuda/pack.sh, or name their folder (--pack)" >&2; exit 66; }
pack=$(cd "$pack" && pwd)
mkdir -p "$out" || exit 73
out=$(cd "$out" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/salt_session.XXXXXX") || exit 73
trap 'rm -rf "$scratch"' EXIT
files=() bad=0
: > "$out/log.txt"
python=${SALT_PEERS_PYTHON:-python3}
outside_path=${LD_LIBRARY_PATH:-}
[ -n "$emulated" ] || PATH=$PATH:/usr/local/cuda/bin		# compute-sanitizer, where only a toolkit has it
cd "$pack" || exit 66

# row NAME VALUE UNIT WHY: a row of its own, VALUE null where there is none.
row() {
	local why
	why=$(printf %s "$4" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')
	printf '[{"name": "%s", "value": %s, "unit": "%s", "peer": null, "peer_value": null, "ratio": null, "why": "%s"}]\n' "$1" "$2" "$3" "$why" \
		> "$scratch/$1.row.json"
	files+=("$scratch/$1.row.json")
	printf '%-28s %8s %-10s %s\n' "$1" "$2" "$3" "$4"
}

# bounded LIMIT LOG COMMAND...: in a session of its own. 124: it took longer; it is killed with all that it started, and not waited for.
bounded() {
	local limit=$1 log=$2 rc=$scratch/rc.$RANDOM pid end
	shift 2
	setsid bash -c 'rc=$1 log=$2; shift 2; "$@" > "$log" 2>&1 < /dev/null; echo $? > "$rc.new"; mv "$rc.new" "$rc"' - "$rc" "$log" "$@" &
	pid=$!
	end=$((SECONDS + limit))
	until [ -e "$rc" ]; do
		if [ "$SECONDS" -ge "$end" ]; then
			kill -TERM -- -$pid 2> /dev/null
			sleep 0.3
			kill -KILL -- -$pid 2> /dev/null
			disown $pid 2> /dev/null
			return 124
		fi
		sleep 0.1
	done
	wait $pid
	return "$(cat "$rc")"
}

wanted() {
	[ -z "$only" ] || [[ ",$only," == *",$1,"* ]]
}

# step NAME LIMIT COMMAND...: a command that writes rows to the file after its --json, or is a test, whose last line becomes the row's text.
step() {
	local name=$1 limit=${limits[$1]:-$2} log=$scratch/$1.log left=$((seconds - SECONDS)) rc=0 why start=$SECONDS json=
	shift 2
	wanted "$name" || return 0
	[ "$limit" -le "$left" ] || limit=$left
	if [ "$limit" -lt 2 ]; then
		row "$name" null "" "not run: no time left of $seconds s"
		bad=1
	else
		[[ " $* " != *" --json "* ]] || json=$scratch/$name.json
		bounded "$limit" "$log" "$@" || rc=$?
		why=$(grep -v '^[[:space:]]*$' "$log" | tail -1 | cut -c1-300)
		[ -z "$json" ] || [ ! -s "$json" ] || { files+=("$json"); grep -vE '^(  step|no peers asked)' "$log"; }
		if [ $rc = 124 ] && [ $((SECONDS - start)) -ge "$limit" ]; then
			why="took longer than $limit s; last line: $why"
		elif [ $rc != 0 ]; then
			why="exit code $rc: $why"
		fi
		if [ $rc != 0 ]; then
			row "$name" 0 passed "$why"
			bad=1
		elif [ -z "$json" ]; then
			row "$name" 1 passed "$why"
		fi
	fi
	{ echo "==== $name, $((SECONDS - start)) s, exit code $rc: $*"; cat "$log" 2> /dev/null; echo; } >> "$out/log.txt"
	bin/bench_cuda report "$out/results.json" "$out/table.md" "${files[@]}" || bad=1
}

# bench NAME LIMIT PROGRAM ARGUMENT...: a bench on the GPU; size is --tiny on the emulation.
bench() {
	local name=$1 limit=$2 program=$3
	shift 3
	step "$name" "$limit" "bin/$program" "$@" --json "$scratch/$name.json" "${size[@]}"
}

# ---- what there is ----

# cuBLASLt of the plug-in's CUDA, where the dynamic linker does not look: a toolkit, or the packages that PyTorch comes with.
cublas_folder() {
	local name found
	name=$(cat cublas)
	ldconfig -p 2> /dev/null | grep -qF "$name " && return
	for found in "${CUDA_HOME:-/nonexistent}"/lib*/"$name" /usr/local/cuda*/lib*/"$name" /usr/local/cuda*/targets/*/lib/"$name" \
		$(timeout 20 "$python" -c 'import sys; print("\n".join(p + "/nvidia" for p in sys.path if "packages" in p))' 2> /dev/null |
			while read -r p; do find "$p" -maxdepth 4 -name "$name" 2> /dev/null; done); do
		[ ! -e "$found" ] || { dirname "$found"; return; }
	done
}

if [ -n "$emulated" ]; then
	export SALT_CUDA_PLUGIN=$emulated LD_LIBRARY_PATH="$pack/lib${outside_path:+:$outside_path}"
	small=$emulated
else
	folder=$(cublas_folder)
	export SALT_CUDA_PLUGIN=$pack/bin/libsalt_cuda.so LD_LIBRARY_PATH="$pack/lib${folder:+:$folder}${outside_path:+:$outside_path}"
	small=$pack/bin/libsalt_cuda_small.so
fi
if ! bounded 60 "$scratch/device.log" bin/bench_cuda device; then
	{ tail -3 "$scratch/device.log"; echo "session.sh: no GPU that the plug-in can use ($SALT_CUDA_PLUGIN); nothing was tested"; } | tee -a "$out/log.txt" >&2
	exit 78
fi
device=$(tail -1 "$scratch/device.log")
query=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu
# smi ROW: what nvidia-smi says now.
smi() {
	local said
	if ! command -v nvidia-smi > /dev/null; then
		row "$1" null "" "no nvidia-smi in PATH: driver and clocks are not known"
	elif said=$(timeout 10 nvidia-smi --query-gpu=$query --format=csv,noheader 2>&1); then
		row "$1" 1 "" "$(head -1 <<< "$said") ($query)"
	else
		row "$1" null "" "nvidia-smi: exit code $?: $(tail -1 <<< "$said")"
	fi
}
row device 1 "" "$device"
row commit 1 "" "$(cat commit)"
smi driver

# ---- right? ----

for name in reference label loss bf16 documents muon; do
	step kernels_$name 25 "bin/test_plugin_$name"
done
for name in label loss muon; do			# several chunks at the tests' sizes
	step kernels_small_$name 20 env SALT_CUDA_PLUGIN="$small" "bin/test_plugin_$name"
done
step model_session 40 bin/test_unit_model_session cuda
step model_golden 40 bin/test_golden_model cuda
bench two_runs 30 bench_cuda check --only two_runs_same_bits
bench labels_same 40 bench_teacher --backend cuda --only labels_same_bytes
bench losses_fp32 45 bench_cuda check --only losses_vs_cpu_fp32
bench losses_bf16 60 bench_cuda check --only losses_vs_cpu_bf16

# ---- fast? ----

[ -n "$emulated" ] || size=(--rounds 10)
bench copies 20 bench_cuda check --only copy_device
bench train_124m 40 bench_train --backend cuda --only train_gpt2_124m_cuda
bench kernel_times 40 bench_kernels --backend cuda --dtype bf16 --seconds 0.2 --batch 32 --context 1024 --width 768 --heads 12 --ff 3072 \
	--vocab 50257 --layers 12
bench kd 40 bench_train --backend cuda --only kd_step_cost_gpt2_124m_gpu
bench teacher 60 bench_teacher --backend cuda
[ -n "$emulated" ] || size=(--rounds 5)
bench train_1558m 90 bench_train --backend cuda --only train_gpt2_1558m_cuda
smi driver_after_training

# peer NAME LIMIT ROW VARIANT: the row again, in turns with PyTorch.
peer() {
	bench "$1" "$2" bench_train --backend cuda --only "$3" \
		--peer "LD_LIBRARY_PATH='$outside_path' '$python' '$pack/torch_peer.py' --device cuda --threads $(nproc) --variants $4"
}
torch=
if wanted peer_124m || wanted peer_1558m; then
	bounded 60 "$scratch/torch.log" env LD_LIBRARY_PATH="$outside_path" "$python" -c \
		'import torch, transformers; print("PyTorch", torch.__version__, "GPU" if torch.cuda.is_available() else "no GPU")' || true
	torch=$(tail -1 "$scratch/torch.log")
	case $torch in
	*" GPU") [ "${torch% no GPU}" != "$torch" ] && torch="no GPU in ${torch% no GPU}" ;;
	*) torch="no PyTorch with transformers in $python: $torch" ;;
	esac
fi
case $torch in
PyTorch*) peer peer_124m 110 train_gpt2_124m_cuda compiled ;;
?*) row peer_124m null "" "not compared: $torch" ;;
esac

# sanitizer TOOL: attention with documents, small sizes. 9: it has found something.
sanitizer() {
	if ! wanted "$1"; then
		return
	elif command -v compute-sanitizer > /dev/null; then
		step "$1" 50 compute-sanitizer --tool "$1" --error-exitcode 9 bin/test_plugin_documents
	else
		row "$1" null "" "not run: no compute-sanitizer in PATH"
	fi
}
sanitizer memcheck
sanitizer racecheck
case $torch in
PyTorch*) peer peer_1558m 150 train_gpt2_1558m_cuda layers ;;
?*) row peer_1558m null "" "not compared: $torch" ;;
esac

bin/bench_cuda report "$out/results.json" "$out/table.md" "${files[@]}" || bad=1
printf '\n%s\n\n' "$device, $(cat commit), $(date -u '+%d %B %Y'), $SECONDS s"
cat "$out/table.md"
[ $bad = 0 ] || echo "session.sh: not all steps have passed: $out/log.txt" >&2
exit $bad
