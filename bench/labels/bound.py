# SPDX-License-Identifier: Apache-2.0
"""bound.py EXPORT COUNTS: bits a token that sampled labels cost under the plain unigram model of the corpus, by counting; shares no code with
the codec. A row's ids are a set: the sum of -log2 p(id) with p = smoothed count / all, less log2 n! for their order. How many there are costs the
entropy of n over these rows, and the counts of a row of n ids the entropy of counts in rows of as many: what an ideal coder that knew these
frequencies beforehand would need. Prints bytes a token."""
import collections
import json
import math
import struct
import sys

folder, counts_file = sys.argv[1:]
m = json.load(open(folder + "/manifest.json"))
L = m["context"]
raw = open(counts_file, "rb").read()
assert raw[:8] == b"SALTCNT1"
unigram = struct.unpack_from("<%dQ" % m["vocabulary"], raw, 16)
log_all = math.log2(sum(unigram))
log_p = [math.log2(c) - log_all for c in unigram]
kinds = {"U8": "B", "U16": "H", "I32": "i", "I64": "q", "U64": "Q"}


def tensors(path):
    data = open(path, "rb").read()
    size, = struct.unpack_from("<Q", data)
    head = json.loads(data[8:8 + size])
    return {k: memoryview(data)[8 + size + v["data_offsets"][0]:8 + size + v["data_offsets"][1]].cast("B").tobytes() and
            struct.unpack_from("<%d%s" % (math.prod(v["shape"]), kinds[v["dtype"]]), data, 8 + size + v["data_offsets"][0])
            for k, v in head.items() if k != "__metadata__"}


def entropy(c):
    n = sum(c.values())
    return sum(v * math.log2(n / v) for v in c.values())


bits, rows, lengths, counts = 0.0, 0, collections.Counter(), collections.defaultdict(collections.Counter)
for f in m["labels"]["files"]:
    t = tensors(folder + "/" + f["file"])
    for a, b in zip(t["row_offsets"], t["row_offsets"][1:]):
        bits -= sum(log_p[v] for v in t["ids"][a:b]) + math.log2(math.factorial(b - a))
        lengths[b - a] += 1
        counts[b - a].update(t["counts"][a:b - 1])
        rows += 1
assert rows % L == 0
print("%.6f" % ((bits + entropy(lengths) + sum(map(entropy, counts.values()))) / 8 / rows))
