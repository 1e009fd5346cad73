#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# compare.sh [--build DIR] [--out DIR] [--rounds N] [--threads N] [--tiny] [NAME...]: the benches beside their peers, in turns.
#
# NAME: a row of bench/README.md's table, for instance train_gpt2_124m_fp32; none: all of them. Results: DIR/*.json (build/bench).
# Peers are optional: the newest PyTorch that pip installs, in the virtual environment of tests/peers/setup.sh (or $SALT_PEERS_PYTHON),
# and the system's python3 where it has torch and transformers. Each that is missing is said. What the benches need is built first, in
# build/, or in DIR if that is a build directory. Nothing else may run meanwhile: if something did, the output says so, and each row of the
# file has a member "disturbed" (load.sh).
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build="$here/build" out="$here/build/bench" rounds=5 threads=0 tiny=
while [ $# -gt 0 ]; do
	case $1 in
	--build) build=$2; shift 2 ;;
	--out) out=$2; shift 2 ;;
	--rounds) rounds=$2; shift 2 ;;
	--threads) threads=$2; shift 2 ;;
	--tiny) tiny=--tiny; shift ;;
	-*) sed -n '3s/^# //p' "$0" >&2; exit 64 ;;
	*) break ;;
	esac
done
mkdir -p "$out"
cores=$(nproc)
[ "$threads" = 0 ] && threads=$cores
export OMP_NUM_THREADS="$threads"

names=${*:-train teacher memory start ranks busy feed allreduce labels angle teachers python}
peer="sh '$here/tests/peers/run.sh' '$here/bench/peers/torch_peer.py' --threads $threads"
if ! sh "$here/tests/peers/run.sh" -c 'import torch; print("peer: PyTorch", torch.__version__)'; then
	echo "no peer from pip: tests/peers/setup.sh makes its environment"
	peer=
fi
debian=
if /usr/bin/python3 -c 'import torch, transformers; print("peer: the system'"'"'s PyTorch", torch.__version__)' 2> /dev/null; then
	debian="/usr/bin/python3 '$here/bench/peers/torch_peer.py' --threads $threads"
else
	echo "no peer from the system: its python3 has no torch with transformers"
fi
lscpu 2> /dev/null | sed -n 's/^Model name: */processor: /p'

# run PROGRAM FILE ARGUMENT...: with every peer there is.
run() {
	program=$1 file=$2
	shift 2
	if [ -n "$peer" ]; then set -- "$@" --peer "$peer --variants eager" --peer "$peer --variants compiled"; fi
	if [ -n "$debian" ]; then set -- "$@" --peer "$debian"; fi
	"$build/bin/$program" --threads "$threads" --rounds "$rounds" $tiny --json "$out/$file.json" "$@"
}

# The programs of what was asked for.
targets=
for name in $names; do
	case $name in
	train* | share_of_ceiling* | kd_step_cost | muon_step_cost* | document_step_cost*) targets+=" bench_train" ;;
	teacher | teacher_*) targets+=" bench_teacher" ;;
	memory | rss_vs_*) targets+=" bench_memory" ;;
	*) targets+=" saltctl selectord teacherd trainerd"
		case $name in
		ranks* | busy*) targets+=" bench_ranks" ;;
		allreduce*) targets+=" bench_allreduce" ;;
		labels | label_ratio* | label_b* | label_*code*) targets+=" bench_labels" ;;
		angle | label_angle* | label_gradient*) targets+=" bench_angle" ;;
		teachers*) targets+=" bench_teachers" ;;
		python*) targets+=" saltfleet" ;;
		esac ;;
	esac
done
if [ ! -e "$build/CMakeCache.txt" ]; then
	[ "$build" = "$here/build" ] || { echo "compare.sh: $build is no build directory; make one: cmake -S $here -B $build -D \
CMAKE_BUILD_TYPE=Release" >&2; exit 66; }
	(cd "$here" && cmake --preset release > "$out/build.log") || { tail "$out/build.log" >&2; exit 66; }
fi
echo "cmake --build $build --target$targets"
cmake --build "$build" --target $targets > "$out/build.log" 2>&1 || { tail -n 20 "$out/build.log" >&2; exit 70; }

. "$here/bench/load.sh"
for name in $names; do
	marker=$out/.began
	: > "$marker"
	load_begin "$marker"
	case $name in
	train) run bench_train train ;;
	train_* | share_of_ceiling* | kd_step_cost | muon_step_cost* | document_step_cost*) run bench_train "$name" --only "$name" ;;
	teacher | teacher_*) run bench_teacher teacher ;;
	memory | rss_vs_*) "$build/bin/bench_memory" --threads "$threads" $tiny --json "$out/rss_vs_plan.json" ;;
	start | start_seconds) "$here/bench/start/start.sh" --build "$build" $tiny --json "$out/start_seconds.json" ;;
	ranks | ranks_2x1_vs_1x2) "$here/bench/ranks/ranks.sh" --build "$build" $tiny --json "$out/ranks_2x1_vs_1x2.json" ;;
	busy | busy_machine_share*) "$here/bench/busy/busy.sh" --build "$build" $tiny --json "$out/busy_machine_share.json" ;;
	feed | feed_wait_share) "$here/bench/feed/feed.sh" --build "$build" $tiny --json "$out/feed_wait_share.json" ;;
	angle | label_angle* | label_gradient*) "$here/bench/angle/angle.sh" --build "$build" $tiny --json "$out/angle.json" ;;
	labels | label_*) "$here/bench/labels/labels.sh" --build "$build" $tiny --json "$out/labels.json" ;;
	teachers | teachers_*) "$here/bench/teachers/teachers.sh" --build "$build" $tiny --json "$out/teachers.json" ;;
	allreduce | allreduce_*) "$here/bench/allreduce/allreduce.sh" --build "$build" $tiny --json "$out/allreduce.json" ;;
	python | python_*)
		for script in "$here"/bench/python/*.py; do
			sh "$here/tests/peers/run.sh" "$script" --build "$build" --rounds "$rounds" $tiny --json "$out/python_$(basename "$script" .py).json" ||
				[ $? = 77 ]
		done ;;
	*) echo "compare.sh: no bench for $name" >&2; exit 64 ;;
	esac
	load_end "$marker"
	if [ -n "$disturbed" ]; then
		echo "disturbed: $disturbed"
		find "$out" -maxdepth 1 -name '*.json' -newer "$marker" | while read -r file; do load_mark "$file" "$disturbed"; done
	fi
	rm -f "$marker"
done
