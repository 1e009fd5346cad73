# SPDX-License-Identifier: Apache-2.0
# Choices, pairs and last words: results that are known independently of our code, lines that cannot be read, and the trainer's evaluations, which
# have the same bits at one and two ranks and in saltctl eval, and change nothing else in a run.
. "$(dirname "$0")/lib.sh"
tok="$SOURCE/share/tokenizer-4k"
ctl() { timeout 100 "$BIN/saltctl" "$@"; }
cd "$scratch"
for i in $(seq 1 300); do echo "The quick brown fox jumps over the lazy dog for the ${i}th time."; echo; done > text
ctl corpus build --tokenizer "$tok" --split-on blank-lines --out train --heldout-out heldout --heldout-one-in 6 text > /dev/null
ctl model new --layers 2 --width 32 --heads 4 --kv-heads 2 --context 32 --tokenizer "$tok" --weights 5 model > /dev/null
python3 - <<'END'
import json
with open("choices.jsonl", "w") as f:
    for i in range(40):
        right, wrong = (" lazy dog", " quick fox over") if i % 2 else (" quick brown", " lazy")
        f.write(json.dumps({"context": f"The quick brown fox jumps over the{' ' * (i % 3)}" if i % 2 else f"{i} times over: the",
                            "choices": [wrong, right, " for"], "gold": 1, "set": "ab"[i % 2]}) + "\n")
with open("pairs.jsonl", "w") as f:
    for i in range(30):
        f.write(json.dumps({"sentence_good": "The quick brown fox jumps." + " It does." * (i % 2), "sentence_bad": f"The fox jumps {i} quick brown.", "UID": "order"}) + "\n")
with open("words.jsonl", "w") as f:
    for word in ("dog", "time.", "elephantine"):
        f.write(json.dumps({"text": "The quick brown fox jumps over the lazy " + word}) + "\n")
with open("long.jsonl", "w") as f:
    f.write(json.dumps({"context": "The quick brown fox jumps over the lazy dog. " * 8, "choices": [" a", " b"], "gold": 0}) + "\n")
END

# A model with all weights 0 gives each token a loss of ln 4096, so the text with fewer tokens is more probable.
cp -r model zeros
rm -f zeros/.salt_fingerprint
python3 - zeros/model.safetensors <<'END'
import struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
begin = 8 + struct.unpack("<Q", data[:8])[0]
data[begin:] = bytes(len(data) - begin)
open(sys.argv[1], "wb").write(data)
END
ctl eval --model zeros --pairs pairs.jsonl --json --items items > pairs.json
python3 - "$tok" "$BIN/saltctl" <<'END'
import json, math, subprocess, sys
def count(text):
    out = subprocess.run([sys.argv[2], "tokenizer", "encode", "--tokenizer", sys.argv[1]], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return len(out.stdout.split())
got, pairs, items = json.load(open("pairs.json")), [json.loads(l) for l in open("pairs.jsonl")], [json.loads(l) for l in open("items")]
n = [(count(p["sentence_good"]), count(p["sentence_bad"])) for p in pairs]
right = sum(a < b for a, b in n) / len(n)
assert 0 < right < 1 and abs(got["accuracy"] - right) < 1e-12, (got["accuracy"], right)
assert abs(got["accuracy_se"] - math.sqrt(right * (1 - right) / (len(n) - 1))) < 1e-12
assert abs(got["log_probability"] + math.log(4096) * sum(a for a, b in n) / len(n)) < 1e-4
assert got["items"] == 30 and [s["set"] for s in got["sets"]] == ["order"] and got["kind"] == "pairs"
for i, (item, (a, b)) in enumerate(zip(items, n)):
    assert item["tokens"] == [a, b] and item["right"] == (a < b) and item["line"] == i + 1, item
END

# Item by item compared with another model, which has every third item right.
python3 - <<'END'
import json
with open("theirs", "w") as f:
    for i, item in enumerate(json.loads(l) for l in open("items")):
        f.write(json.dumps(dict(item, right=i % 3 == 0)) + "\n")
END
ctl eval --model zeros --pairs pairs.jsonl --json --against theirs > against.json
python3 - <<'END'
import json, statistics
d = [json.loads(l)["right"] - (i % 3 == 0) for i, l in enumerate(open("items"))]
got = json.load(open("against.json"))
assert len(set(d)) == 3 and abs(got["difference"] - statistics.mean(d)) < 1e-12, (got, d)
assert abs(got["difference_se"] - statistics.stdev(d) / len(d) ** 0.5) < 1e-12, got
END

must_fail() {
	local code=$1 pattern=$2 got=0
	shift 2
	ctl eval --model model "$@" > /dev/null 2> err || got=$?
	[ $got = "$code" ] || fail "eval $*: exit code $got, expected $code: $(cat err)"
	grep -q -- "$pattern" err || fail "eval $*: expected \"$pattern\", said: $(cat err)"
}
printf '{"good": "a b", "bad": "b a"}\n{"good": "a b"}\n' > bad.jsonl
printf '{"good": "a b", "bad": "b a", "set": 3}\n' > one.jsonl
must_fail 65 'bad.jsonl: line 2: expected a member "sentence_bad"' --pairs bad.jsonl
must_fail 65 'choices.jsonl: line 1: expected a member "text"' --last-word choices.jsonl
must_fail 66 'none.jsonl' --pairs none.jsonl
must_fail 64 'one of --choices' --pairs pairs.jsonl --choices choices.jsonl
must_fail 64 'goes with --choices' --pairs pairs.jsonl --control 1
head -n 7 items > short
must_fail 65 'short: expected what --items wrote of the same 30 items, found 7 lines' --pairs pairs.jsonl --against short
must_fail 65 'pairs.jsonl: line 1: expected what --items wrote of the same 3 items' --last-word words.jsonl --against pairs.jsonl
must_fail 65 'one.jsonl: line 1: expected a member "set"' --pairs one.jsonl
# Options of --corpus are not ignored.
for option in '--corpus heldout' '--windows 3' '--group 2' '--lanes 2' --isolate-documents '--by-sequence x' '--dtype uint16'; do
	must_fail 64 "^saltctl eval: ${option%% *} is for a corpus" --pairs pairs.jsonl $option
done
must_fail 64 '^saltctl eval: --tokenizer goes with' --corpus heldout --tokenizer "$tok"
must_fail 64 '^saltctl eval: --set compute.dtype=fp32 .* give -c' --pairs pairs.jsonl --set compute.dtype=fp32
# --items replaces its own files only, and a file that cannot be written is found before the work.
cp pairs.jsonl precious.jsonl
must_fail 73 'precious.jsonl: expected no such file, or --replace' --pairs precious.jsonl --items precious.jsonl
same pairs.jsonl precious.jsonl "the items after --items"
mkfifo pipe
must_fail 73 'pipe: expected a regular file, or none, found a pipe' --pairs pairs.jsonl --items pipe
[ -p pipe ] || fail "--items removed a pipe"
ctl eval --model model --pairs pairs.jsonl --items items.again > /dev/null
ctl eval --model model --pairs pairs.jsonl --items items.again > /dev/null || fail "--items does not replace its own file"
ctl eval --model model --pairs pairs.jsonl --items precious.jsonl --replace > /dev/null || fail "--items --replace"
same items.again precious.jsonl "--items --replace"
# Items of another kind with as many lines are refused; those of another set are compared with a warning.
head -n 30 choices.jsonl > as_many.jsonl
ctl eval --model model --choices as_many.jsonl --items of_choices > /dev/null
must_fail 65 'of_choices: line 1: expected what --items wrote of the same 30 items' --pairs pairs.jsonl --against of_choices
sed 's/"UID": "order"/"UID": "other"/' pairs.jsonl > renamed.jsonl
ctl eval --model model --pairs renamed.jsonl --against items > out 2> err || fail "--against: $(cat err)"
grep -q 'warning: items has items of the set "order"' err || fail "items of another set: $(cat err)"
ctl eval --model model --pairs pairs.jsonl --against items > out 2> err && [ ! -s err ] || fail "items of the same set: $(cat err)"
cp pairs.jsonl kept
must_fail 73 'kept: expected no such file, or --replace' --corpus heldout --by-sequence kept
must_fail 64 'expected the name of a file' --pairs pairs.jsonl --items -
for i in 1 2; do ctl eval --model model --corpus heldout --windows 2 --by-sequence losses > /dev/null || fail "--by-sequence, call $i"; done
must_fail 73 'items: expected no such file' --corpus heldout --by-sequence items
must_fail 65 'context: expected at most the model.s, 32' --pairs pairs.jsonl --context 33
ctl eval --model model --choices long.jsonl | grep -q '^cut  *1 items longer than 32 tokens' || fail "a long context is not said to be cut"

# The trainer: two kinds in addition to the held-out loss; then saltctl eval on the checkpoint; then two ranks; then a run without them.
cat > fleet.yaml <<'END'
run: {dir: run, seed: 5}
corpus: {train: train, heldout: heldout, context: 32}
trainer: {model: model, steps: 12, batch: 8, micro_batch: 2, lanes: 4, threads: 1, eval_sequences: 13, eval_every: 6, lr: 1e-2}
END
eval_lines() { grep '"kind":"eval"' "$1/metrics.jsonl" | sed 's/,"seconds":[^,}]*//'; }
with=(--set "trainer.eval_choices=[choices.jsonl, pairs.jsonl, words.jsonl]")
timeout 100 "$BIN/trainerd" -n -c fleet.yaml "${with[@]}" > /dev/null 2> err || fail "trainerd -n: $(cat err)"
timeout 100 "$BIN/trainerd" -c fleet.yaml "${with[@]}" 2> trainer.log || fail "trainerd: $(tail -3 trainer.log)"
timeout 100 "$SOURCE/deploy/mpi.sh" -n 2 "$BIN/trainerd" -c fleet.yaml "${with[@]}" --set run.dir=two 2> trainer.log || fail "two ranks: $(tail -3 trainer.log)"
timeout 100 "$BIN/trainerd" -c fleet.yaml --set run.dir=without 2> trainer.log || fail "without: $(tail -3 trainer.log)"
eval_lines run > a
eval_lines two > b
same a b "evaluations of one and two ranks"
sed 's/,"choices":.*/}/' a > b
eval_lines without > c
same b c "evaluations without trainer.eval_choices"
for threads in 1 2; do
	ctl eval -c fleet.yaml --model run/checkpoints/step_00000012 --threads $threads --choices choices.jsonl --control 3 --json > choices.json
	ctl eval -c fleet.yaml --model run/checkpoints/step_00000012 --threads $threads --pairs pairs.jsonl --json > pairs.json
	ctl eval -c fleet.yaml --model run/checkpoints/step_00000012 --threads $threads --last-word words.jsonl --json > words.json
	python3 - <<'END'
import json
lines = [json.loads(l) for l in open("run/metrics.jsonl")]
evals = [l for l in lines if l["kind"] == "eval"]
assert [e["step"] for e in evals] == [6, 12] and all(set(e["choices"]) == {"choices", "pairs", "words"} for e in evals)
for name, theirs in evals[-1]["choices"].items():
    ours = json.load(open(name + ".json"))
    for key, value in theirs.items():
        if key == "sets":
            assert value == len(ours["sets"])
        else:
            assert ours["sets_mean_se_over_items" if key == "sets_mean_se" else key] == value, (name, key, value, ours)
choices = json.load(open("choices.json"))
values = [choices["log_probability"], choices["contexts_permuted"]["log_probability"], choices["choices_alone"]["log_probability"]]
assert len(set(values)) == 3 and choices["control_seed"] == 3 and choices["contexts_permuted"]["items"] == 40, choices
END
done
python3 - "$SOURCE/tests/system" <<'END'
import json, pathlib, struct, sys
sys.path.insert(0, sys.argv[1])
import tb_read
found = tb_read.own_reader(pathlib.Path("run/tb"), False)
for e in (json.loads(l) for l in open("run/metrics.jsonl")):
    for name, r in e.get("choices", {}).items():
        assert found[f"choices/{name}"][e["step"]] == tb_read.fp32(r["accuracy"]), (name, e)
END
got=0; timeout 100 "$BIN/trainerd" -n -c fleet.yaml --set 'trainer.eval_choices=[bad.jsonl]' > /dev/null 2> err || got=$?
[ $got = 65 ] && grep -q 'bad.jsonl: line 2' err || fail "trainerd -n with a bad file: exit code $got: $(cat err)"
got=0; timeout 100 "$BIN/trainerd" -n -c fleet.yaml --set 'trainer.eval_choices=[pairs.jsonl]' --set corpus.heldout= > /dev/null 2> err || got=$?
[ $got = 78 ] && grep -q 'trainer.eval_choices' err || fail "eval_choices without a held-out corpus: exit code $got: $(cat err)"
