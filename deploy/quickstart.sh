#!/bin/bash
# quickstart.sh [--fresh] [--dir DIR] [--steps N] - builds, trains a small model, then a larger one with and without its help, and says how
# that went. Asks nothing; about eight minutes on two cores once the packages are in. Started again, it goes on where it stopped, and what
# is finished is not done again. What it prints at the end was measured in these runs.
set -euo pipefail

usage() {
	cat <<'END'
usage: quickstart.sh [options]

  --fresh      forget what an earlier start left in DIR
  --dir DIR    where everything goes (default: run/quickstart in this source tree)
  --steps N    steps of the large model (default: as in deploy/examples/quickstart); all else follows from it; 40 for a quick look
  --size SIZE  small: SLM 2 layers of 96, student 4 of 160; large: SLM 4 of 160, student 6 of 256, three times the work;
               auto (default): large where the processor multiplies in bf16, else small
  --no-build   the programs in build/bin as they are (or in $BIN); nothing is installed or built
END
}
die() { echo "quickstart: $2" >&2; exit "$1"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/.." && pwd)
dir=$source/run/quickstart fresh=0 steps='' size=auto build=1
while [ $# -gt 0 ]; do
	case "$1" in
	--fresh) fresh=1 ;;
	--no-build) build=0 ;;
	--dir | --steps | --size)
		[ $# -ge 2 ] || die 64 "an argument is missing after $1"
		case "$1" in
		--dir) dir=$2 ;;
		--steps) steps=$2 ;;
		--size) size=$2 ;;
		esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	*) die 64 "unexpected argument $1; see quickstart.sh --help" ;;
	esac
	shift
done
[[ $steps =~ ^([1-9][0-9]*)?$ ]] || die 64 "--steps: expected a whole number, found $steps"
case "$size" in
small | large | auto) ;;
*) die 64 "--size: expected small, large or auto, found $size" ;;
esac
[ -z "$steps" ] || [ "$steps" -ge 16 ] || die 64 "--steps: expected at least 16, found $steps"

bin=$source/build/bin
[ $build -eq 1 ] || bin=${BIN:-$bin}
begun=$SECONDS parts=()
part() {		# part NAME COMMAND ...: runs it, and notes how long it took
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
	"$here/install-deps.sh"
	begun=$SECONDS
	title "build"
	make_programs() {
		cmake -S "$source" --preset release -DSALT_WERROR=OFF > "$source/build/configure.log" || {
			cat "$source/build/configure.log" >&2
			return 70
		}
		cmake --build "$source/build" -j "$(nproc)" --target saltctl selectord teacherd trainerd | tail -n 1 || return 70
	}
	mkdir -p "$source/build"
	cd "$source"
	part build make_programs
fi
for program in saltctl selectord teacherd trainerd; do
	[ -x "$bin/$program" ] || die 69 "$bin/$program is not there"
done

# ---- where everything goes ----

mkdir -p "$dir" || die 73 "$dir: cannot be made"
dir=$(cd "$dir" && pwd)
exec 8>>"$dir/.lock"
flock -n 8 || die 75 "another quickstart works in $dir"
fleet() { "$here/local.sh" "$1" --bin "$bin" -c "$dir/$2.yaml" "${@:3}" 8>&-; }
down_all() {
	local name
	for name in slm salt baseline; do
		[ ! -e "$dir/$name.yaml" ] || fleet down "$name" || true
	done
}
trap 'echo; echo "stopping; start again to go on" >&2; down_all; exit 130' INT TERM HUP
if [ $fresh -eq 1 ]; then
	down_all
	for what in data models slm salt baseline cache report.html table.txt settings; do rm -rf "${dir:?}/$what"; done
fi
cp "$here"/examples/quickstart/*.yaml "$dir"
value() { "$bin/saltctl" config check -c "$dir/$1.yaml" --get "$2"; }
: "${steps:=$(value baseline trainer.steps)}"
slm_steps=$((steps * $(value slm trainer.steps) / $(value baseline trainer.steps)))
early=$((slm_steps / 4))
arithmetic() {		# what every daemon will choose here
	local shape rc=0
	shape=$(mktemp -d) || return 73
	"$bin/saltctl" model new --layers 1 --width 64 --context 16 --vocab 256 "$shape/model" > "$shape/log" &&
	    "$bin/saltctl" model info --json "$shape/model" | sed -n 's/.*"compute": *"\([^"]*\)".*/\1/p' || rc=$?
	rm -rf "$shape"
	return $rc
}
if [ "$size" = auto ]; then		# the size of an earlier start, if there was one
	size=$(sed -n 's/.* size //p' "$dir/settings" 2>/dev/null || true)
	if [ -z "$size" ]; then
		compute=$(arithmetic) || die $? "saltctl model info failed"
		case $compute in *bf16*) size=large ;; *) size=small ;; esac
		echo "arithmetic here: $compute; models: $size"
	fi
fi
if [ -e "$dir/settings" ] && [ "$(cat "$dir/settings")" != "steps $steps size $size" ]; then
	die 64 "$dir was made with $(cat "$dir/settings"), not steps $steps size $size; give --fresh or another --dir"
fi
echo "steps $steps size $size" > "$dir/settings"
case "$size" in
small) slm_shape=(2 96 3) student_shape=(4 160 5) ;;
large) slm_shape=(4 160 5) student_shape=(6 256 8) ;;
esac
checkpoint() { printf '%s/checkpoints/step_%08d' "$1" "$2"; }
slm_set=(--set "trainer.steps=$slm_steps" --set "trainer.warmup=$((slm_steps / 10))" --set "trainer.keep_steps=[$early]"
    --set "trainer.eval_every=$(((slm_steps + 5) / 6))")
student_set=(--set "trainer.steps=$steps" --set "trainer.warmup=$((steps / 10))" --set "trainer.eval_every=$(((steps + 15) / 16))")
salt_set=(--set "phase_one.steps=$((steps / 4))" --set "teacher.model=$(checkpoint slm $slm_steps)"
    --set "teacher.scorer=$(checkpoint slm $early)")
for ((port = 5750; port < 5800; port++)); do		# the first that nobody listens on
	(exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
salt_set+=(--set "selector.endpoints=[tcp://127.0.0.1:$port]")

# ---- text, tokens, models ----

title "text: Perl's documentation, from Debian's package perl-doc"
make_corpus() {
	local pods=() pod bytes
	while read -r pod; do
		case "$pod" in
		*/perltoc.pod | */perluniprops.pod) ;;		# a list of the other files' headings; a table
		*.pod) [ ! -f "$pod" ] || pods+=("$pod") ;;
		esac
	done < <(dpkg -L perl-doc)
	[ ${#pods[@]} -gt 0 ] || { echo "quickstart: perl-doc has no *.pod files here" >&2; return 66; }
	bytes=$(cat "${pods[@]}" | wc -c)
	[ "$bytes" -ge 5000000 ] || { echo "quickstart: only $bytes bytes of text in perl-doc, at least 5000000 are needed" >&2; return 66; }
	rm -rf "$dir/data.new"
	mkdir "$dir/data.new"
	# By document: one in 25 is held out and never trained on.
	"$bin/saltctl" corpus build --tokenizer "$source/share/tokenizer-4k" --out "$dir/data.new/train" \
	    --heldout-out "$dir/data.new/heldout" --heldout-one-in 25 "${pods[@]}" || return $?
	mv "$dir/data.new" "$dir/data"
}
make_model() {		# make_model NAME SHAPE ...
	[ -e "$dir/models/$1/config.json" ] || "$bin/saltctl" model new "${@:2}" --context 128 --tokenizer "$source/share/tokenizer-4k" \
	    "$dir/models/$1"
}
[ -d "$dir/data" ] || part corpus make_corpus
mkdir -p "$dir/models"
make_model slm --layers "${slm_shape[0]}" --width "${slm_shape[1]}" --heads "${slm_shape[2]}"
make_model student --layers "${student_shape[0]}" --width "${student_shape[1]}" --heads "${student_shape[2]}"

# ---- the three runs ----

train() {		# train NAME STEPS --set ...
	local name=$1 last=$2 rc=0
	shift 2
	if [ "$(cat "$dir/$name/daemons/trainerd.exit" 2>/dev/null)" = "0 done" ] && [ -d "$dir/$(checkpoint "$name" "$last")" ]; then
		echo "finished before"
		return 0
	fi
	timeout --foreground 3600 "$here/local.sh" up --wait --bin "$bin" -c "$dir/$name.yaml" "$@" 8>&- || rc=$?
	fleet down "$name" "$@"
	return $rc
}
title "SLM: ${slm_shape[0]} layers of ${slm_shape[1]}, $slm_steps steps; early checkpoint at $early"
part SLM train slm "$slm_steps" "${slm_set[@]}"
grep -ho 'compute="[^"]*"' "$dir/slm/logs/trainerd.log" | tail -n 1 | sed 's/^compute=/arithmetic: /; s/"//g'
title "SALT_DS: ${student_shape[0]} layers of ${student_shape[1]}, $steps steps, the first $((steps / 4)) with the SLM's help; selectord, two teacherd, two ranks"
part SALT_DS train salt "$steps" "${student_set[@]}" "${salt_set[@]}"
title "BASELINE: the same model, seed, order of data and steps, alone"
part BASELINE train baseline "$steps" "${student_set[@]}"

# ---- what came of it ----

title "result"
report() {
	"$bin/saltctl" report --run SLM="$dir/slm" --run BASELINE="$dir/baseline" --run SALT_DS="$dir/salt" --table --out "$dir/report.html" |
	    tee "$dir/table.txt"
}
part report report
total=$((SECONDS - begun))
printf '\n%d:%02d min in all (' $((total / 60)) $((total % 60))
printf '%s' "${parts[0]}"
printf ', %s' "${parts[@]:1}"
printf ')\n'
cat <<END
loss curves  $dir/report.html
try          $bin/saltctl generate --model "$dir/$(checkpoint salt "$steps")" --prompt "The function returns"
END
