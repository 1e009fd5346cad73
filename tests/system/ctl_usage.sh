# SPDX-License-Identifier: Apache-2.0
# Wrong use of every verb: the exit code, and a message that shows the correct use.
. "$(dirname "$0")/lib.sh"

# wrong CODE PATTERN ARGUMENT...: saltctl must end with CODE, print a message that matches PATTERN on standard error, and nothing on standard output.
wrong() {
	local code=$1 pattern=$2 got=0
	shift 2
	timeout 60 "$BIN/saltctl" "$@" > "$scratch/out" 2> "$scratch/err" < /dev/null || got=$?
	[ "$got" = "$code" ] || fail "saltctl $*: exit code $got, expected $code: $(cat "$scratch/err")"
	grep -q -- "$pattern" "$scratch/err" || fail "saltctl $*: expected \"$pattern\", said: $(cat "$scratch/err")"
	[ ! -s "$scratch/out" ] || fail "saltctl $*: wrote to standard output: $(head -3 "$scratch/out")"
}
tok="$SOURCE/share/tokenizer-4k"
printf 'run: {dir: run}\n' > "$scratch/fleet.yaml"
printf 'run: {dir: run}\ntrainer:\n  stepz: 3\n' > "$scratch/bad.yaml"
printf '<p>\n' > "$scratch/text"
printf 12345 > "$scratch/odd"

wrong 64 'usage: saltctl VERB'
wrong 64 'did you mean "report"' repot
wrong 64 'there is "corpus build" "corpus info"' corpus
wrong 64 'did you mean "tokenizer encode"' tokenizer encod
wrong 64 'unknown verb "xyzzy"' xyzzy
wrong 64 'unknown verb "xyzzy"' help xyzzy

wrong 64 '--tokenizer PATH is missing' corpus build --out "$scratch/c" "$scratch/text"
wrong 64 '--out PREFIX is missing' corpus build --tokenizer "$tok" "$scratch/text"
wrong 64 'TEXT ... is missing' corpus build --tokenizer "$tok" --out "$scratch/c"
wrong 64 'did you mean --tokenizer?' corpus build --tokenzier "$tok"
wrong 64 'name the same corpus' corpus build --tokenizer "$tok" --out "$scratch/c" --heldout-out "$scratch/c" "$scratch/text"
wrong 64 'needs --heldout-out' corpus build --tokenizer "$tok" --out "$scratch/c" --heldout-one-in 3 "$scratch/text"
wrong 64 'from 2 to 4294967295, found "1"' corpus build --tokenizer "$tok" --out "$scratch/c" --heldout-out "$scratch/h" --heldout-one-in 1 "$scratch/text"
wrong 64 'expected file, blank-lines, lines or =TEXT' corpus build --tokenizer "$tok" --out "$scratch/c" --split-on words "$scratch/text"
wrong 64 'given twice' corpus build --out a --out b
wrong 64 '--field is for JSON' corpus build --tokenizer "$tok" --out "$scratch/c" --text --field x "$scratch/text"
wrong 64 '--skip-bad-lines is for JSON' corpus build --tokenizer "$tok" --out "$scratch/c" --text --skip-bad-lines "$scratch/text"
wrong 64 '--split-on is for plain text' corpus build --tokenizer "$tok" --out "$scratch/c" --jsonl --split-on lines "$scratch/text"
wrong 66 'nowhere' corpus build --tokenizer "$tok" --out "$scratch/c" "$scratch/nowhere"
wrong 64 'TEXT ...: expected - at most once, because standard input can be read once, found it 2 times' corpus build --tokenizer "$tok" --out "$scratch/c" - "$scratch/text" -
wrong 66 'nowhere' corpus build --tokenizer "$scratch/nowhere" --out "$scratch/c" "$scratch/text"
wrong 66 "/text: make folder: .*Not a directory" corpus build --tokenizer "$tok" --out "$scratch/text/c" "$scratch/text"
wrong 64 'PREFIX is missing' corpus info
wrong 66 'nowhere' corpus info "$scratch/nowhere"
wrong 64 '--context: expected a whole number' corpus info --context x "$scratch/nowhere"

wrong 64 '--tokenizer PATH is missing' tokenizer encode
wrong 64 '--tokenizer PATH is missing' tokenizer decode
wrong 66 'nowhere' tokenizer encode --tokenizer "$tok" "$scratch/nowhere"
wrong 64 'expected - at most once' tokenizer encode --tokenizer "$tok" - -
wrong 65 'byte 0: expected token ids' tokenizer decode --tokenizer "$tok" "$scratch/text"
wrong 65 'a multiple of 4 bytes' tokenizer decode --raw --tokenizer "$tok" "$scratch/odd"
wrong 64 'PATH is missing' tokenizer info
wrong 66 'nowhere' tokenizer info "$scratch/nowhere"

wrong 64 '--layers N is missing' model new "$scratch/m"
wrong 64 'how large is the vocabulary' model new --layers 1 --width 8 "$scratch/m"
wrong 64 'do not divide the width' model new --layers 1 --width 8 --heads 3 --vocab 10 "$scratch/m"
wrong 64 'expected llama, gpt2, qwen2' model new --family bert --layers 1 --width 8 --vocab 10 "$scratch/m"
wrong 64 'do not apply to gpt2' model new --family gpt2 --layers 1 --width 8 --vocab 10 --untied "$scratch/m"
wrong 66 'nowhere' model info "$scratch/nowhere"
"$BIN/saltctl" model new --layers 2 --width 16 --heads 2 --context 4 --vocab 10 --weights 1 "$scratch/slm" > "$scratch/log"
wrong 64 'SLM FOLDER is missing' model grow "$scratch/slm"
wrong 64 '--layers, width, heads or ff: expected one that is larger' model grow "$scratch/slm" "$scratch/grown"
wrong 64 "--layers: expected at least the small model's 2, found 1" model grow --layers 1 "$scratch/slm" "$scratch/grown"
wrong 64 '--width: expected a width for a whole number of heads (the small model has 2 in 16), or heads set as well, found 20' model grow --width 20 "$scratch/slm" "$scratch/grown"
wrong 64 '--heads: expected a divisor of the width 32.*found 3' model grow --width 32 --heads 3 "$scratch/slm" "$scratch/grown"
wrong 64 '--depth: expected identity or stack, found "more"' model grow --layers 4 --depth more "$scratch/slm" "$scratch/grown"
wrong 64 '--noise: expected a number from 0 to 10, found "-1"' model grow --width 32 --noise -1 "$scratch/slm" "$scratch/grown"
wrong 64 '--noise: expected 0, because no dimension' model grow --layers 4 --noise 0.5 "$scratch/slm" "$scratch/grown"
wrong 66 'nowhere' model grow --width 32 "$scratch/nowhere" "$scratch/grown"
wrong 65 'saltctl model import' model grow --width 32 "$scratch/x.gguf" "$scratch/grown"
wrong 73 'File exists' model grow --width 32 "$scratch/slm" "$scratch/slm"
[ ! -e "$scratch/grown" ] || fail "a refused model grow left a folder"
# Copies without noise cause a warning; adding layers alone does not.
for words in '1 --width 32' '0 --width 32 --noise 1' '1 --ff 99' '0 --layers 3'; do
	rm -rf "$scratch/grown"
	"$BIN/saltctl" model grow "$scratch/slm" "$scratch/grown" ${words#* } > "$scratch/out" 2> "$scratch/err" || fail "model grow ${words#* }: $(cat "$scratch/err")"
	[ "$(grep -c 'warning: in training, copies get equal gradients' "$scratch/err")" = "${words%% *}" ] || fail "model grow ${words#* }: $(cat "$scratch/err")"
done
"$BIN/saltctl" model new --layers 1 --width 8 --context 4 --vocab 10 "$scratch/shape" > "$scratch/log"
"$BIN/saltctl" model info "$scratch/shape" > "$scratch/log" || fail "a folder with only config.json is a shape, and model info refused it"
grep -q '^fingerprint *none' "$scratch/log" || fail "model info of a shape: $(cat "$scratch/log")"
wrong 65 "a file of weights: name its folder" model info "$scratch/shape/model.safetensors"
wrong 65 "saltctl model import" model info "$scratch/x.gguf"
# For weights that cannot be read, model info prints the same message as eval.
: > "$scratch/shape/pytorch_model.bin"
wrong 66 'only pytorch_model.bin, in PyTorch.s format; type: python3 -c' model grow --width 16 "$scratch/shape" "$scratch/grown"
wrong 66 'only pytorch_model.bin, in PyTorch.s format; type: python3 -c' model info "$scratch/shape"
sed 's/model info/eval/' "$scratch/err" > "$scratch/log"
wrong 66 'type: python3 -c' eval --model "$scratch/shape" --corpus "$scratch/nowhere"
cmp -s "$scratch/err" "$scratch/log" || fail "eval and model info differ: $(cat "$scratch/err" "$scratch/log")"

wrong 64 'give -c fleet.yaml' config check
wrong 66 'nowhere' config check -c "$scratch/nowhere"
wrong 78 'bad.yaml:3: trainer.stepz' config check -c "$scratch/bad.yaml"
wrong 64 'there is no option "run.dirt"' config check -c "$scratch/fleet.yaml" --get run.dirt
wrong 64 'unexpected argument' config check -c "$scratch/fleet.yaml" more

wrong 64 'give -c fleet.yaml' plan
wrong 78 'trainer.model' plan -c "$scratch/fleet.yaml"
wrong 64 'give -c fleet.yaml' label
wrong 78 'corpus.train' label -c "$scratch/fleet.yaml"
# eval refuses what the kind of evaluation would not use.
for words in '--corpus c' '--windows 3' '--group 2' '--lanes 2' '--isolate-documents' '--by-sequence f' '--dtype uint16'; do
	wrong 64 "${words%% *} is for a corpus" eval --model "$scratch/slm" --pairs "$scratch/pairs" $words
done
for words in '--items f' '--against f' '--tokenizer t'; do
	wrong 64 "${words%% *} goes with --choices" eval --model "$scratch/slm" --corpus "$scratch/c" $words
done
wrong 64 'a live view needs a terminal, and standard output is none' top -c "$scratch/fleet.yaml"
wrong 64 'OUT and --documents both name' scores export -c "$scratch/fleet.yaml" --documents "$scratch/same" "$scratch/same"
[ ! -e "$scratch/same" ] || fail "a refused scores export left a file"
wrong 73 'slm: expected a folder that is new or empty.*in it' model new --layers 1 --width 8 --vocab 10 "$scratch/slm"
wrong 64 'give -c fleet.yaml or --endpoint' status
wrong 64 'give -c fleet.yaml or --endpoint' exporter
wrong 64 'HOST:PORT, such as' exporter -c "$scratch/fleet.yaml" --listen here
wrong 64 'HOST:PORT, such as' exporter -c "$scratch/fleet.yaml" --listen 127.0.0.1:65536
wrong 64 'from 0.1 to 3600, found "0"' exporter -c "$scratch/fleet.yaml" --every 0
wrong 69 'no daemon is announced' status -c "$scratch/fleet.yaml"
wrong 64 'give --cache FOLDER or -c' cache stat
wrong 66 'nowhere' cache stat --cache "$scratch/nowhere"
wrong 64 'need --fidelity' cache stat --cache "$scratch/nowhere" --teacher x
wrong 64 'give --cache FOLDER or -c' cache fsck
wrong 66 'nowhere' cache fsck --cache "$scratch/nowhere"
wrong 64 'DIR is missing' cache export --cache "$scratch/nowhere"
wrong 66 'nowhere' cache export --cache "$scratch/nowhere" "$scratch/ex"
wrong 64 'DIR is missing' cache import --cache "$scratch/nowhere"
wrong 66 'noexport/manifest.json' cache import --cache "$scratch/c2" "$scratch/noexport"
mkdir -p "$scratch/one/shard_0" "$scratch/two/shard_0" "$scratch/two/shard_1"
wrong 64 'two has shard_1, .*one has not: make that folder' cache import --cache "$scratch/one" "$scratch/two"
mkdir -p "$scratch/three/shard_2"
wrong 64 'three has no shard_0; for another shard alone give --cache .*three/shard_2' cache stat --cache "$scratch/three"
wrong 64 '--set cache.dir=x changes an option of fleet.yaml: give -c FILE' cache stat --cache "$scratch/nowhere" --set cache.dir=x
wrong 64 'give -c fleet.yaml' cache reselect --k 3
wrong 64 'from 1 to 255, found "300"' cache reselect -c "$scratch/fleet.yaml" --cache "$scratch/nowhere" --k 300
wrong 64 'give --cache FOLDER or -c' cache drop

wrong 64 '--model FOLDER is missing' eval
wrong 64 'give --corpus PREFIX' eval --model "$scratch/m"
wrong 66 'nowhere' eval --model "$scratch/nowhere" --corpus "$scratch/c"
wrong 64 '--model FOLDER is missing' generate
wrong 66 'nowhere' generate --model "$scratch/nowhere"
wrong 64 'from 0 to 100, found "hot"' generate --model "$scratch/nowhere" --temperature hot

wrong 64 '--run \[NAME=\]DIR is missing' report
wrong 66 'nowhere/metrics.jsonl' report --run "$scratch/nowhere"
wrong 64 '--run DIR is missing' ledger
wrong 64 'FOLDER is missing' keygen
wrong 64 'expected selector, teacher, trainer or client' keygen --role king "$scratch/keys"
wrong 64 '--name needs --role' keygen --name x "$scratch/keys"

# Every verb has a help text, with an example that names the verb.
"$BIN/saltctl" --version | grep -q '^saltctl [0-9]' || fail "--version"
n=0
while read -r verb; do
	"$BIN/saltctl" help $verb > "$scratch/out" || fail "help $verb"
	grep -q "^example: .*saltctl $verb" "$scratch/out" || fail "help $verb has no example"
	"$BIN/saltctl" $verb --help | cmp -s - "$scratch/out" || fail "$verb --help says something else than help $verb"
	grep -q "saltctl $verb" "$SOURCE/docs/saltctl.md" || fail "docs/saltctl.md does not show $verb"
	n=$((n + 1))
done < <("$BIN/saltctl" help | sed -n 's/^  \([a-z]\+\( [a-z]\+\)\?\)  .*/\1/p')
[ "$n" -ge 16 ] || fail "only $n verbs in help"

# A full disk under standard output is reported as an error.
if [ -e /dev/full ]; then
	got=0
	"$BIN/saltctl" tokenizer info "$tok" > /dev/full 2> /dev/null || got=$?
	[ $got = 74 ] || fail "standard output full: exit code $got, expected 74"
fi
# Keys are secret and never overwritten.
"$BIN/saltctl" keygen "$scratch/keys" > /dev/null
[ "$(stat -c %a "$scratch/keys/client.key")" = 600 ] || fail "client.key can be read by others"
wrong 73 'selector' keygen "$scratch/keys"
