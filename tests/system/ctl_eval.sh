# SPDX-License-Identifier: Apache-2.0
# eval and generate: compared with results that are known independently of our code, and with the trainer's evaluation.
. "$(dirname "$0")/lib.sh"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
field() { sed -n "s/^ *\"$1\": \([^,]*\),*\$/\1/p" "$2"; }		# field NAME FILE: a number in our indented JSON
cd "$scratch"
for i in $(seq 1 300); do echo "The quick brown fox jumps over the lazy dog for the ${i}th time."; echo; done > text
ctl corpus build --tokenizer "$tok" --split-on blank-lines --out train --heldout-out heldout --heldout-one-in 6 text > /dev/null
ctl model new --layers 2 --width 32 --heads 4 --kv-heads 2 --context 32 --tokenizer "$tok" --weights 5 model > /dev/null
got=0
ctl model new --layers 2 --width 32 --tokenizer "$tok" model > /dev/null 2>&1 || got=$?
[ $got = 73 ] || fail "model new over a model: exit code $got, expected 73"

# A model with all weights 0 gives every id the same probability: the loss is ln 4096, and id 0 wins every tie.
cp -r model zeros
rm -f zeros/.salt_fingerprint
python3 - zeros/model.safetensors <<'END'
import struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
begin = 8 + struct.unpack("<Q", data[:8])[0]
data[begin:] = bytes(len(data) - begin)
open(sys.argv[1], "wb").write(data)
END
ctl eval --model zeros --corpus heldout --context 16 --json > zeros.json
python3 - zeros.json heldout <<'END'
import array, json, math, sys
got = json.load(open(sys.argv[1]))
ids = array.array("H", open(sys.argv[2] + ".bin", "rb").read())
windows = (len(ids) - 1) // 16
targets = ids[1:windows * 16 + 1]
assert got["windows"] == windows and got["tokens"] == windows * 16, got
assert abs(got["log_perplexity"] - math.log(4096)) < 1e-6, got
assert abs(got["accuracy"] - targets.count(0) / len(targets)) < 1e-12, got
END
# Bits per byte: 12 bits for each token, divided by the bytes of the held-out text, which the corpus decodes to.
bytes=$(od -An -v -tu2 heldout.bin | tr -s ' ' '\n' | grep -v '^0*$' | ctl tokenizer decode --tokenizer "$tok" | wc -c)
python3 - "$(field bits_per_byte zeros.json)" "$bytes" "$(($(stat -c %s heldout.bin) / 2))" <<'END'
import sys
got, text_bytes, tokens = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
assert abs(got - 12 * tokens / text_bytes) < 1e-5, (got, 12 * tokens / text_bytes)
END

# NaN in a model file; a corpus with ids outside of the model's vocabulary; a context beyond the model's position limit; too little text.
cp -r model nan
python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(-4, 2); f.write(b"\0\0\xc0\x7f")' nan/model.safetensors
must_fail() {
	local code=$1 pattern=$2 got=0
	shift 2
	ctl eval "$@" > /dev/null 2> err || got=$?
	[ $got = "$code" ] || fail "eval $*: exit code $got, expected $code: $(cat err)"
	grep -q -- "$pattern" err || fail "eval $*: expected \"$pattern\", said: $(cat err)"
}
must_fail 65 'model.norm.weight\|finite' --model nan --corpus heldout --context 16
ctl model new --layers 1 --width 8 --heads 1 --context 32 --vocab 100 --weights 1 small > /dev/null
must_fail 78 '4096' --model small --corpus heldout --context 16
must_fail 65 '33' --model model --corpus heldout --context 33
printf x | ctl corpus build --tokenizer "$tok" --out tiny - > /dev/null
must_fail 65 'at least context + 1 = 17 tokens, found 2' --model model --corpus tiny --context 16
# The ids of another tokenizer mean other texts, and would give a loss that means nothing. Without a tokenizer beside the model nothing is compared.
cp -r model other
python3 - other/tokenizer.json <<'END'
import json, sys
tokenizer = json.load(open(sys.argv[1]))
vocab = tokenizer["model"]["vocab"]
a, b = list(vocab)[100:102]
vocab[a], vocab[b] = vocab[b], vocab[a]
json.dump(tokenizer, open(sys.argv[1], "w"))
END
must_fail 78 'other/tokenizer.json: expected the tokenizer of corpus heldout' --model other --corpus heldout --context 16
rm other/tokenizer.json
ctl eval --model other --corpus heldout --context 16 --windows 2 > /dev/null

# The trainer's figures, bit for bit, with any number of threads; other groups change only the last digits.
cat > fleet.yaml <<'END'
run: {dir: run, seed: 5}
corpus: {train: train, heldout: heldout, context: 32}
trainer: {model: model, steps: 3, batch: 8, micro_batch: 2, lanes: 4, threads: 1, eval_sequences: 13, lr: 1e-2}
END
timeout 100 "$BIN/trainerd" -c fleet.yaml 2> trainer.log || fail "trainerd: $(tail -3 trainer.log)"
for threads in 1 2; do
	ctl eval -c fleet.yaml --model run/checkpoints/step_00000003 --threads $threads --json > eval.json
	grep '"kind":"eval","step":3' run/metrics.jsonl | grep -q "\"loss\":$(field log_perplexity eval.json),\"accuracy\":$(field accuracy eval.json),\"bits_per_byte\":$(field bits_per_byte eval.json),\"tokens\":$(field tokens eval.json)," ||
		fail "eval -c differs from the trainer: $(cat eval.json; grep '"eval"' run/metrics.jsonl)"
done
# Also for each sequence: their mean is the loss, and the trainer has written the same values after its last step.
ctl eval -c fleet.yaml --model run/checkpoints/step_00000003 --by-sequence losses > /dev/null
same losses run/sequence_losses.jsonl "losses of sequences"
# --by-sequence does not overwrite a file that no earlier call wrote. A path that cannot be written is reported before the evaluation. If the disk is
# full when the file is written, the result is printed all the same.
echo '{"sequence": 17}' > list
must_fail 73 'list: expected no such file, or --replace' -c fleet.yaml --model run/checkpoints/step_00000003 --by-sequence list
[ "$(cat list)" = '{"sequence": 17}' ] || fail "--by-sequence replaced another file"
ctl eval -c fleet.yaml --model run/checkpoints/step_00000003 --by-sequence losses > /dev/null || fail "--by-sequence does not replace its own file"
got=0; (ulimit -f 0; trap '' XFSZ; exec timeout 100 "$BIN/saltctl" eval -c fleet.yaml --model run/checkpoints/step_00000003 --by-sequence full.losses) 2>&1 |
	cat > out || got=$?
[ $got = 74 ] && grep -q '^log-perplexity' out && grep -q 'full.losses: write: File too large' out || fail "a full disk: $got $(cat out)"
python3 - "$(field log_perplexity eval.json)" <<'END'
import json, sys
lines = [json.loads(x) for x in open("losses")]
assert [x["sequence"] for x in lines] == list(range(13)) and len({x["loss"] for x in lines}) > 5
assert abs(sum(x["loss"] for x in lines) / 13 - float(sys.argv[1])) < 1e-6
END
ctl eval --model run/checkpoints/step_00000003 --corpus heldout --context 32 --windows 13 --group 13 --lanes 1 --json > other.json
python3 - "$(field log_perplexity eval.json)" "$(field log_perplexity other.json)" <<'END'
import sys
a, b = map(float, sys.argv[1:])
assert abs(a - b) < 1e-6, (a, b)
END

# A grown model has the loss of the small one, and a run that starts with it has the first loss of a run that starts with the small one.
ctl model grow run/checkpoints/step_00000003 grown --layers 4 --width 64 --noise 1 --seed 9 --json > grow.json
for model in run/checkpoints/step_00000003 grown; do
	ctl eval -c fleet.yaml --set compute.dtype=fp32 --model $model --json > eval.json
	field log_perplexity eval.json >> grown.losses
	timeout 100 "$BIN/trainerd" -c fleet.yaml --set compute.dtype=fp32 --set run.dir=run_$(basename $model) --set trainer.steps=1 \
		--set trainer.model=$model --set trainer.init=$model 2> trainer.log || fail "trainerd from $model: $(tail -3 trainer.log)"
	sed -n 's/.*"step":1,"phase":2,"loss":\([^,]*\),.*/\1/p' run_$(basename $model)/metrics.jsonl >> grown.losses
done
python3 - grow.json grown/config.json <<'END'
import json, math, sys
said, config = (json.load(open(path)) for path in sys.argv[1:])
small, small_first, grown, grown_first = map(float, open("grown.losses"))
assert abs(small - grown) < 1e-5 and abs(small_first - grown_first) < 1e-5, (small, grown, small_first, grown_first)
assert abs(small - math.log(4096)) > 0.1, small
assert said["function_preserved"] and said["grown_from"] == config["salt_grown_from"], (said, config)
END
fingerprint=$(ctl model info run/checkpoints/step_00000003 | sed -n 's/^fingerprint *//p')
ctl model info grown | grep -q "^grown from *$fingerprint: 2 layers, width 32, 4 heads (2 key/value).*; depth identity, noise 1 of seed 9" ||
	fail "model info of a grown model: $(ctl model info grown)"
[ "$(ctl model info grown --json | sed -n 's/^ *"fingerprint": "\(.*\)",*/\1/p' | sort -u | wc -l)" = 2 ] || fail "model info --json: the fingerprints of both models"
cmp -s run/checkpoints/step_00000003/tokenizer.json grown/tokenizer.json || fail "model grow did not copy the tokenizer"
cp -r small bare
ctl model grow bare bare_grown --layers 2 > /dev/null 2> err
grep -q 'bare has no tokenizer.json or tokenizer.model, so the new folder has no tokenizer' err || fail "model grow without a tokenizer: $(cat err)"

# Changed bytes with the same size and times, in a checkpoint (found by its manifest) and in another folder (found by the record of its first use).
for dir in run/checkpoints/step_00000003 model; do
	ctl eval --model $dir --corpus heldout --context 16 > /dev/null
	rot $dir/model.safetensors 9000
	must_fail 65 "$dir/model.safetensors: .*its bytes changed" --model $dir --corpus heldout --context 16
	got=0; ctl generate --model $dir --prompt x --tokens 2 > /dev/null 2> err || got=$?
	[ $got = 65 ] && grep -q "$dir/model.safetensors: .*its bytes changed" err || fail "generate with rotten weights: exit code $got: $(cat err)"
	got=0; ctl model info $dir > /dev/null 2> err || got=$?
	[ $got = 65 ] || fail "model info with rotten weights: exit code $got: $(cat err)"
	rot $dir/model.safetensors 9000
done
rot heldout.bin 400
must_fail 65 'heldout.bin: block 0 ' --model model --corpus heldout --context 16
rot heldout.bin 400

# generate: the same seed gives the same text, another seed another text; temperature 0 needs no seed; the window slides after 32 tokens.
ctl generate --model model --prompt 'The quick' --tokens 60 --seed 1 --go-on > a
ctl generate --model model --prompt 'The quick' --tokens 60 --seed 1 --go-on --threads 1 > b
same a b "generate with one seed"
ctl generate --model model --prompt 'The quick' --tokens 60 --seed 2 --go-on > b
cmp -s a b && fail "another seed gives the same text"
ctl generate --model model --prompt 'The quick' --tokens 9 --temperature 0 --go-on > a
ctl generate --model model --prompt 'The quick' --tokens 9 --top-k 1 --seed 9 --go-on > b
same a b "temperature 0 and top-k 1"
[ "$(head -c 9 a)" = 'The quick' ] || fail "generate does not begin with the prompt"
[ -n "$(ctl generate --model model --tokens 3 --go-on)" ] || fail "generate without a prompt"
[ "$(ctl generate --model zeros --prompt x --tokens 5 --temperature 0)" = x ] || fail "id 0 ends a document"
