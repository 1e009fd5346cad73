#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# quickstart.sh [--fresh] [--dir DIR] [--steps N] [--size SIZE] [--no-build] - builds the programs, trains a small model, then a larger
# one with and without its help, and compares the results. It asks no questions and takes less than ten
# minutes on two cores once the packages are installed. If it is started again, it continues where it stopped and
# skips finished parts. The table at the end contains measurements of these runs only.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

usage() {
	cat <<'END'
usage: quickstart.sh [options]

  --fresh      delete what an earlier call left in DIR
  --dir DIR    folder for all results (default: run/quickstart in this source tree; if installed, ./saltfleet-quickstart)
  --steps N    steps of the large model (default: as in deploy/examples/quickstart); other numbers scale with it; 40 for a quick look
  --size SIZE  small: SLM 2 layers of 96, student 4 of 160; large: SLM 4 of 160, student 6 of 256, three times the work;
               auto (default): large if the processor multiplies in bf16, else small
  --no-build   use the programs in build/bin (or in $BIN) as they are; install and build nothing
END
}
. "$here/example.sh"
fresh=0 steps='' size=auto
while [ $# -gt 0 ]; do
	case "$1" in
	--fresh) fresh=1 ;;
	--no-build) build=0 ;;
	--dir | --steps | --size)
		[ $# -ge 2 ] || die 64 "$1 needs a value"
		case "$1" in
		--dir) dir=$2 ;;
		--steps) steps=$2 ;;
		--size) size=$2 ;;
		esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	*) die 64 "unexpected argument $1; see $self.sh --help" ;;
	esac
	shift
done
[[ $steps =~ ^([1-9][0-9]{0,8})?$ ]] || die 64 "--steps: expected a whole number of at most 9 digits, found $steps"
case "$size" in
small | large | auto) ;;
*) die 64 "--size: expected small, large or auto, found $size" ;;
esac
[ -z "$steps" ] || [ "$steps" -ge 16 ] || die 64 "--steps: expected at least 16, found $steps"

begun=$SECONDS parts=()
part() {		# part NAME COMMAND ...: runs it and records how long it took
	local name=$1 t=$SECONDS rc=0
	shift
	"$@" || rc=$?
	[ $rc -eq 0 ] || die $rc "$name ended with $rc after $((SECONDS - t)) s"
	parts+=("$name $((SECONDS - t)) s")
}
title() { printf '\n== %s\n' "$*"; }

# ---- packages and programs ----

if [ $build -eq 1 ]; then
	title "packages"
	programs_install
	begun=$SECONDS
	title "build"
	part build programs_build
fi
programs_find

# ---- working folder ----

dir_open {slm,salt,baseline}.yaml report.html table.txt
down_all() {
	local name
	for name in slm salt baseline; do
		[ ! -e "$dir/$name.yaml" ] || fleet down "$name" || true
	done
}
trap 'echo; echo "stopping; start again to continue" >&2; down_all; exit 130' INT TERM HUP
if [ $fresh -eq 1 ]; then
	for what in data models slm salt baseline cache; do
		[ -e "$dir/settings" ] || [ ! -e "$dir/$what" ] ||
		    die 73 "--fresh would delete $dir/$what, and $dir was not made by this script; give another --dir"
	done
	down_all
	for what in data models slm salt baseline cache report.html table.txt settings; do rm -rf "${dir:?}/$what"; done
fi
cp "$here"/examples/quickstart/*.yaml "$dir"
value() { "$bin/saltctl" config check -c "$dir/$1.yaml" --get "$2"; }
: "${steps:=$(value baseline trainer.steps)}"
slm_steps=$((steps * $(value slm trainer.steps) / $(value baseline trainer.steps)))
n_kd=$((steps * $(value salt phase_one.steps) / $(value salt trainer.steps)))
arithmetic() {		# the compute class that every daemon will choose on this machine
	local shape rc=0
	shape=$(mktemp -d) || return 73
	"$bin/saltctl" model new --layers 1 --width 64 --context 16 --vocab 256 "$shape/model" > "$shape/log" &&
	    "$bin/saltctl" model info --json "$shape/model" | sed -n 's/.*"compute": *"\([^"]*\)".*/\1/p' || rc=$?
	rm -rf "$shape"
	return $rc
}
if [ "$size" = auto ]; then		# the size of an earlier call, if there was one
	size=$(sed -n 's/.* size //p' "$dir/settings" 2>/dev/null || true)
	if [ -z "$size" ]; then
		compute=$(arithmetic) || die $? "saltctl model info failed"
		case $compute in *bf16*) size=large ;; *) size=small ;; esac
		echo "arithmetic of this machine: $compute; models: $size"
	fi
fi
settings="SALT muon steps $steps size $size"
if [ -e "$dir/settings" ] && [ "$(cat "$dir/settings")" != "$settings" ]; then
	die 64 "$dir was made with $(cat "$dir/settings"), not $settings; give --fresh or another --dir"
fi
echo "$settings" > "$dir/settings"
case "$size" in
small) slm_shape=(2 96 3) student_shape=(4 160 5) ;;
large) slm_shape=(4 160 5) student_shape=(6 256 8) ;;
esac
checkpoint() { printf '%s/checkpoints/step_%08d' "$1" "$2"; }
slm_set=(--set "trainer.steps=$slm_steps" --set "trainer.warmup=$((slm_steps / 10))"
    --set "trainer.eval_every=$(((slm_steps + 5) / 6))")
student_set=(--set "trainer.steps=$steps" --set "trainer.warmup=$((steps / 10))" --set "trainer.eval_every=$(((steps + 15) / 16))")
salt_set=(--set "phase_one.steps=$n_kd" --set "teacher.model=$(checkpoint slm $slm_steps)"
    --set "selector.endpoints=[tcp://127.0.0.1:$(free_port 5750)]")

# ---- text, tokens, models ----

title "text: Perl's documentation, from Debian's package perl-doc"
make_model() {		# make_model NAME SHAPE ...
	[ -e "$dir/models/$1/config.json" ] || "$bin/saltctl" model new "${@:2}" --context 128 --tokenizer "$tokenizer" \
	    "$dir/models/$1"
}
[ -d "$dir/data" ] || part corpus corpus_make "$tokenizer"
mkdir -p "$dir/models"
make_model slm --layers "${slm_shape[0]}" --width "${slm_shape[1]}" --heads "${slm_shape[2]}"
make_model student --layers "${student_shape[0]}" --width "${student_shape[1]}" --heads "${student_shape[2]}"

# ---- the three runs ----

train() {		# train NAME STEPS --set ...
	local name=$1 last=$2 rc=0
	shift 2
	if [ "$(cat "$dir/$name/daemons/trainerd.exit" 2>/dev/null)" = "0 done" ] && [ -d "$dir/$(checkpoint "$name" "$last")" ]; then
		echo "already finished"
		return 0
	fi
	timeout --foreground 3600 "$here/local.sh" up --wait --bin "$bin" -c "$dir/$name.yaml" "$@" 8>&- || rc=$?
	fleet down "$name" "$@"
	return $rc
}
title "SLM: ${slm_shape[0]} layers of ${slm_shape[1]}, $slm_steps steps"
part SLM train slm "$slm_steps" "${slm_set[@]}"
grep -ho 'compute="[^"]*"' "$dir/slm/logs/trainerd.log" | tail -n 1 | sed 's/^compute=/arithmetic: /; s/"//g'
title "SALT: ${student_shape[0]} layers of ${student_shape[1]}, $steps steps, the first $n_kd with the SLM's help; selectord, two teacherd, two ranks"
part SALT train salt "$steps" "${student_set[@]}" "${salt_set[@]}"
title "BASELINE: the same model, seed, order of data and steps, alone"
part BASELINE train baseline "$steps" "${student_set[@]}"

# ---- result ----

title "result"
report() { "$bin/saltctl" report --run SLM="$dir/slm" --run BASELINE="$dir/baseline" --run SALT="$dir/salt" "$@"; }
result() {
	local json reached target
	report --table --out "$dir/report.html" || return
	json=$(report --json | tr -d ' \n') || return
	target=$(sed -n 's/.*"target_log_perplexity":\([0-9.]*\).*/\1/p' <<< "$json")
	reached=$(sed -n 's/.*"reached_at":{"step":\([0-9]*\).*/\1/p' <<< "$json")
	if [ -z "$target" ]; then
		printf '\nthe report compares no runs: nothing measured\n'
	elif [ -z "$reached" ]; then
		printf '\nSALT did not reach the final loss of BASELINE (%.4f nats): no saving in these %d steps\n' "$target" "$steps"
	else
		printf '\nSALT reached the final loss of BASELINE (%.4f nats) at step %d of %d: %d %% of the steps saved (evaluated every %d steps)\n' \
		    "$target" "$reached" "$steps" $((100 * (steps - reached) / steps)) $(((steps + 15) / 16))
	fi
}
part report result > "$dir/table.txt"
cat "$dir/table.txt"
total=$((SECONDS - begun))
printf '\n%d:%02d min in all (' $((total / 60)) $((total % 60))
printf '%s' "${parts[0]}"
printf ', %s' "${parts[@]:1}"
printf ')\n'
cat <<END
loss curves  $dir/report.html
try          $bin/saltctl generate --model "$dir/$(checkpoint salt "$steps")" --prompt "The function returns"
END
