# SPDX-License-Identifier: Apache-2.0
# Loss weights of documents, from a JSON lines column to training. Losses are the same at R = 1 and 2 in both phases, alone, in a blend and with
# isolated documents. Weights of 1 give the same bits as no weights. Labels do not depend on weights. A run refuses to continue with other weights.
# Commands that copy a corpus copy its weights, and programs without support refuse them. The effect of a weight on loss and gradient is tested by unit/step, kernels/loss, python/loss and
# peers/weights_torch.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
ctl() { timeout 60 "$BIN/saltctl" "$@"; }
cd "$scratch"

# refused CODE PATTERN COMMAND...
refused() {
	local code=$1 pattern=$2 got=0
	shift 2
	timeout 30 "$@" > refused.log 2>&1 || got=$?
	[ $got = "$code" ] && grep -q -- "$pattern" refused.log || fail "$*: exit $got, expected $code and \"$pattern\": $(tail -2 refused.log)"
}
build() { ctl corpus build --jsonl --tokenizer "$SOURCE/share/tokenizer-4k" "$@"; }

python3 - <<'END'
import json
text = "\n\n".join(open(f"/usr/share/common-licenses/{name}").read() for name in ("GPL-2", "GPL-3", "LGPL-2.1")).split("\n\n")
with open("text.jsonl", "w") as f:
    for i, t in enumerate(t for t in text if t.strip()):
        f.write(json.dumps({"text": t, "w": [1, 0, 0.5, 2.25, 1e0, 3][i % 6], "one": 1, "none": 0}) + "\n")
END

# ---- invalid weights: the error names the file, the line and the value
for bad in '-1' 'NaN' 'Infinity' '-Infinity' 'null' 'true' '1e-9' '1e300' '1.2.3'; do
	printf '{"text": "a", "w": 1}\n{"w": %s, "text": "b"}\n' "$bad" > bad.jsonl
	refused 65 "bad.jsonl: line 2: expected a weight in the field \"w\", 0 or a number from 1e-06 to 1e+06, found $bad" \
		"$BIN/saltctl" corpus build --jsonl --weight-column w --tokenizer "$SOURCE/share/tokenizer-4k" --out bad bad.jsonl
done
echo '{"text": "a", "w": "0.5"}' > bad.jsonl
refused 65 'line 1: .*found the text "0.5"' "$BIN/saltctl" corpus build --jsonl --weight-column w --tokenizer "$SOURCE/share/tokenizer-4k" --out bad bad.jsonl
refused 65 'line 1: .*"v".*found no such field' "$BIN/saltctl" corpus build --jsonl --weight-column v --tokenizer "$SOURCE/share/tokenizer-4k" --out bad bad.jsonl
refused 64 'weight-column needs --jsonl' "$BIN/saltctl" corpus build --weight-column w --tokenizer "$SOURCE/share/tokenizer-4k" --out bad bad.jsonl
[ ! -e bad.idx ] || fail "a corpus of bad weights was written"

# ---- the same documents with weights, with weights of 1, and without
build --weight-column w --out train --heldout-out held text.jsonl > /dev/null
build --weight-column one --out ones --heldout-out held1 text.jsonl > /dev/null
build --weight-column none --out zeros text.jsonl > /dev/null
build --out plain --heldout-out held2 text.jsonl > /dev/null
[ -e train.weights.bin ] && [ ! -e held.weights.bin ] && [ ! -e plain.weights.bin ] || fail "weights of the wrong corpora: $(ls)"
python3 - <<'END'
import json, struct
def documents(prefix):
    raw = open(prefix + ".idx", "rb").read()
    n, = struct.unpack_from("<Q", raw, 18)
    return struct.unpack_from(f"<{n}i", raw, 34)
def weights(prefix):
    raw = open(prefix + ".weights.bin", "rb").read()
    assert raw[:8] == b"SALTWGT1", raw[:8]
    n, = struct.unpack_from("<Q", raw, 8)
    assert len(raw) == 16 + 4 * n and n == len(documents(prefix))
    return struct.unpack_from(f"<{n}f", raw, 16)
# Texts of the held-out part are left out; a corpus without held-out part, zeros, shows which these are.
tokens = lambda p: open(p + ".bin", "rb").read()
rows = [json.loads(line) for line in open("text.jsonl")]
every, at, want = tokens("zeros"), 0, []
kept, have = iter(documents("train")), tokens("train")
pos = 0
for size, row in zip(documents("zeros"), rows):
    piece = every[2 * at:2 * (at + size)]
    if have[2 * pos:2 * (pos + size)] == piece:
        want.append(row["w"])
        pos += size
    at += size
assert at * 2 == len(every) and pos * 2 == len(have) and tuple(want) == weights("train"), (len(want), len(weights("train")))
assert set(weights("ones")) == {1} and set(weights("zeros")) == {0}
END
for p in train ones plain; do ctl corpus info $p --json > $p.info; done
python3 - <<'END'
import json
train, ones, plain = (json.load(open(p + ".info")) for p in ("train", "ones", "plain"))
assert train["fingerprint"] == ones["fingerprint"] == plain["fingerprint"] and train["loss_weights"] != ones["loss_weights"]
assert "loss_weights" not in plain and ones["loss_weights"]["mean"] == 1 and train["loss_weights"]["masked_tokens"] > 0, (train, ones)
END

# ---- copies keep weights, and report it
ctl corpus merge --out both train plain > /dev/null
ctl corpus merge --no-weights --out without train > /dev/null
ctl corpus sample --documents 40 --out some train > /dev/null
ctl corpus split --out left=1 --out right=1 train > /dev/null
for p in both some left right; do ctl corpus show --corpus $p --context 32 --json $(seq 0 9) > $p.show || fail "show $p"; done
python3 - <<'END'
import json, struct
def weights(prefix):
    raw = open(prefix + ".weights.bin", "rb").read()
    return struct.unpack(f"<{len(raw) // 4 - 4}f", raw[16:])
sources = lambda p: [json.loads(line) for line in open(p + ".sources.jsonl")][1:]
train = weights("train")
assert weights("both") == train + (1,) * len(train)
for copy in ("some", "left", "right"):
    lines, got = sources(copy), weights(copy)
    want = [train[a["first"] + i] for a, b in zip(lines, lines[1:]) for i in range(b["document"] - a["document"])]
    assert list(got) == want and len(set(got)) > 1, (copy, got, want)
    for row in json.load(open(copy + ".show")):
        for d in row["documents"]:
            assert d["weight"] == got[d["document"]], (copy, d)
END
[ ! -e without.weights.bin ] || fail "--no-weights left them"

# ---- training
small_model teacher 1
small_model scorer 4
small_model student -
small_fleet fleet.yaml "$(free_port)"
sed -i 's/steps: 12, /steps: 6, /; s/phase_one: {steps: 6/phase_one: {steps: 3/; s/k: 200/k: 255/' fleet.yaml
start selectord "$BIN/selectord" -c fleet.yaml
start teacherd "$BIN/teacherd" -c fleet.yaml
until_line teacherd.log 'selectord.welcome'
# train RANKS NAME OPTION...: trains in run NAME; its losses go to NAME.losses
train() {
	local n=$1 name=$2
	shift 2
	timeout 100 "${mpirun[@]}" -n "$n" "$BIN/trainerd" -c fleet.yaml --set run.dir="$name" "$@" > "$name.log" 2>&1 || fail "$name: $(tail -3 "$name.log")"
	losses "$name/metrics.jsonl" | grep -v '"kind":"run"' | sed 's/,"label_bytes".*//' > "$name.losses"
}
train 1 w1
train 2 w2
same w1.losses w2.losses "weights at R = 2"
grep -q '"step":6,' w1.losses || fail "no sixth step: $(cat w1.losses)"
# With the same selectord, labels and rows: a copy without weights, and one with weights of 1.
train 1 plain1 --set corpus.train="$scratch/plain"
train 2 ones2 --set corpus.train="$scratch/ones"
same plain1.losses ones2.losses "weights of 1"
python3 - <<'END'
import json
a, b = ([x for x in map(json.loads, open(p)) if x["kind"] == "step"] for p in ("w1/metrics.jsonl", "plain1/metrics.jsonl"))
assert all(x["hard"] != y["hard"] and x["kl"] != y["kl"] for x, y in zip(a[:3], b[:3])), (a[0], b[0])
masked = [y["kd_tokens"] - x["kd_tokens"] for x, y in zip(a[:3], b[:3])]
assert min(masked) >= 0 and max(masked) > 0 and b[0]["kd_tokens"] == 8 * 32, masked
END
refused 78 'loss weights' "$BIN/trainerd" -c fleet.yaml --set run.dir=w1 --set trainer.steps=7 --set corpus.train="$scratch/ones"
refused 78 'loss weights' "$BIN/trainerd" -c fleet.yaml --set run.dir=plain1 --set trainer.steps=7 --set corpus.train="$scratch/train"
refused 65 'a document with a loss weight above 0' "$BIN/trainerd" -n -c fleet.yaml --set corpus.train="$scratch/zeros"
refused 78 'corpus without loss weights, because only trainerd applies them' "$BIN/example_trainer" fleet.yaml
stop TERM $teacherd $selectord

# An evaluation does not use weights.
for p in train plain; do ctl eval --model w1/checkpoints/step_00000006 --corpus $p --context 32 --windows 8 --json | grep perplexity > $p.eval; done
same train.eval plain.eval "evaluation"

# ---- a blend of a part with weights and one without, with isolated documents; phase two alone
blend="corpus.train=[{prefix: $scratch/train, weight: 2}, {prefix: $scratch/right, weight: 1}, {prefix: $scratch/without, weight: 1}]"
alone=(--set selector.mode=none --set phase_one.steps=0)
for isolate in false true; do
	for r in 1 2; do train $r blend_${isolate}_$r "${alone[@]}" --set corpus.isolate_documents=$isolate --set "$blend"; done
	same blend_${isolate}_1.losses blend_${isolate}_2.losses "a blend at R = 2, isolate_documents $isolate"
done
# Another micro-batch only changes the order of sums.
train 1 micro "${alone[@]}" --set trainer.micro_batch=2
train 1 micro1 "${alone[@]}" --set trainer.micro_batch=1
python3 - <<'END'
import json
a, b = ([x["loss"] for x in map(json.loads, open(p + "/metrics.jsonl")) if x["kind"] == "step"] for p in ("micro", "micro1"))
assert len(a) == 6 and all(abs(x - y) < 1e-5 for x, y in zip(a, b)), (a, b)
END
# A batch whose weights are all 0 is not trained, and the run continues.
ctl corpus merge --out mostly zeros zeros zeros right > /dev/null
train 2 mostly "${alone[@]}" --set corpus.train="$scratch/mostly" --set trainer.batch=4 --set trainer.steps=30
grep -q 'event=update.none' mostly.log && grep -q '"step":30,' mostly.losses || fail "no batch of weight 0: $(tail -3 mostly.log)"

# ---- corpora, checkpoints and weights that do not belong together
cp plain.bin stray.bin; cp plain.idx stray.idx; cp plain.json stray.json; cp ones.weights.bin stray.weights.bin
refused 65 'stray.weights.bin: expected its hash in stray.json' "$BIN/saltctl" corpus info stray
refused 65 'left.bin: expected shards without loss weights in a pattern (saltctl corpus merge' "$BIN/saltctl" corpus info '[lr]*t.bin'
rot train.weights.bin 30
refused 65 'train.weights.bin: expected the hash .*, as in train.json' "$BIN/saltctl" corpus info train
refused 65 'train.weights.bin: expected the hash' "$BIN/trainerd" -n -c fleet.yaml
rm train.weights.bin
refused 66 'train.weights.bin' "$BIN/trainerd" -n -c fleet.yaml
build --replace --out ones text.jsonl > /dev/null
[ ! -e ones.weights.bin ] || fail "--replace without the column left the weights of the old corpus"
