# SPDX-License-Identifier: Apache-2.0
"""Figures of `saltctl scores export` worked out again with the standard library alone, from a cache export, the tokens and tokenizer.json.

    scores_check.py EXPORT TRAIN TOKENIZER K SEQUENCES DOCUMENTS    compares both files
    scores_check.py same JSONL SAFETENSORS                          the two forms of one table have the same numbers
"""
import glob, json, math, statistics, struct, sys

FORMS = {"U64": "Q", "F64": "d", "F32": "f", "U16": "H", "U8": "B"}


def load(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            a, b = (8 + n + x for x in t["data_offsets"])
            out[name] = struct.unpack("<%d%s" % (math.prod(t["shape"]), FORMS[t["dtype"]]), raw[a:b])
    return out


def lines(path):
    return [json.loads(line) for line in open(path)]


def near(a, b):
    return abs(a - b) <= 1e-6 * max(1, abs(b))


if sys.argv[1] == "same":
    rows, table = lines(sys.argv[2]), load(sys.argv[3])
    assert set(rows[0]) == set(table), (set(rows[0]), set(table))
    for i, row in enumerate(rows):
        for name, value in row.items():
            assert near(value, table[name][i]), (i, name, value, table[name][i])
    sys.exit(0)

export, train, tokenizer, k = *sys.argv[1:4], int(sys.argv[4])
dirs = sorted(glob.glob(export + "/shard_*")) or [export]
manifest = json.load(open(dirs[0] + "/manifest.json"))
L = manifest["context"]
raw = open(train + ".bin", "rb").read()
tokens = struct.unpack("<%dH" % (len(raw) // 2), raw)
eod = json.load(open(train + ".json"))["eod"]
text = json.load(open(tokenizer))
length = {i: len(s) for s, i in text["model"]["vocab"].items()}	# of byte-level BPE: a character stands for a byte
length.update({a["id"]: 0 for a in text["added_tokens"] if a["special"]})
loss, rank = {}, {}		# by the token that is predicted
for d in dirs:
    for f in json.load(open(d + "/manifest.json"))["scores"]["files"]:
        t = load(d + "/" + f["file"])
        for i, seq in enumerate(t["seq"]):
            for r in range(L):
                loss[seq * L + 1 + r] = t["loss"][i * L + r] / 2048
                rank[seq * L + 1 + r] = t["rank"][i * L + r]


def check(row, first, end):
    at = [p for p in range(first, end) if p in loss]
    n = sum(length[tokens[p]] for p in at)
    nats = sum(loss[p] for p in at)
    assert (row["begin"], row["end"], row["tokens"], row["bytes"]) == (first, end, len(at), n), (row, first, end, len(at), n)
    assert near(row["loss"], nats / len(at)), row
    assert near(row["rank_share"], sum(rank[p] < k for p in at) / len(at)), row
    assert near(row["score"], statistics.median(loss[p] if rank[p] < k else 0 for p in at)), row
    assert "bits_per_byte" not in row if n == 0 else near(row["bits_per_byte"], nats / math.log(2) / n), row


rows = lines(sys.argv[5])
assert [r["sequence"] for r in rows] == sorted({(p - 1) // L for p in loss}), "sequences"
for row in rows:
    check(row, row["sequence"] * L + 1, row["sequence"] * L + L + 1)
ends = [p + 1 for p, token in enumerate(tokens) if token == eod]
ranges = {i: (a, b) for i, (a, b) in enumerate(zip([0] + ends, ends)) if any(p in loss for p in range(a, b))}
rows = lines(sys.argv[6])
assert [r["document"] for r in rows] == sorted(ranges), "documents"
for row in rows:
    check(row, *ranges[row["document"]])
print(len(rows))
