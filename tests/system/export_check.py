# SPDX-License-Identifier: Apache-2.0
"""Reads an export of a sampled cache with the standard library alone, from the description in docs/formats.md, and checks or chooses.

    export_check.py DIR                                   prints sequences, ids a token, bits of entropy a token
    export_check.py DIR rows K KEEP WINDOW SEED STEPS BATCH    the rows of such a plan: row, position, sequence, S(x)
    export_check.py DIR bins K KEEP WINDOW SEED STEPS BATCH    sequences of that plan's blocks by S(x), in bins of 0.25 nats, and the kept ones
    export_check.py DIR stored PLAN                       the rows that are stored of that plan, likewise
"""
import glob, json, math, struct, sys
sys.argv, argv = sys.argv[:1] + ["0", "1", "0", "0"], sys.argv
sys.path.insert(0, argv[0].rsplit("/", 2)[0] + "/golden")
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()):
    from order_of import order

FORMS = {"U64": "Q", "I64": "q", "I32": "i", "U32": "I", "F32": "f", "U16": "H", "U8": "B"}


def load(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            a, b = (8 + n + x for x in t["data_offsets"])
            out[name] = struct.unpack("<%d%s" % (math.prod(t["shape"]), FORMS[t["dtype"]]), raw[a:b])
    return out


def shards(part):
    for d in dirs:
        for f in json.load(open(d + "/manifest.json"))[part]["files"]:
            yield load(d + "/" + f["file"])


dirs = sorted(glob.glob(argv[1] + "/shard_*")) or [argv[1]]
manifest = json.load(open(dirs[0] + "/manifest.json"))
L, V, N = manifest["context"], manifest["vocabulary"], manifest["labels"]["n"]
if len(argv) == 2:
    n, rows, entries, entropy = 0, 0, 0, 0.0
    for t in shards("labels"):
        n += len(t["seq"])
        assert len(t["row_offsets"]) == len(t["seq"]) * L + 1 and len(t["token_hash"]) == 2 * len(t["seq"])
        for a, b in zip(t["row_offsets"], t["row_offsets"][1:]):
            ids, counts = t["ids"][a:b], t["counts"][a:b]
            assert sum(counts) == N and list(ids) == sorted(set(ids)) and 0 <= ids[0] and ids[-1] < V
            rows, entries = rows + 1, entries + len(ids)
            entropy -= sum(c / N * math.log2(c / N) for c in counts)
    print("%d %.9f %.9f" % (n, entries / rows, entropy / rows))
elif argv[2] == "stored":
    rows = []
    for t in shards("rows"):
        plans = zip(t["plan"][::2], t["plan"][1::2])
        rows += [(b, p, s, x) for h, b, p, s, x in zip(plans, t["block"], t["position"], t["seq"], t["score"]) if "%016x%016x" % h == argv[3]]
    for g, (b, p, s, x) in enumerate(sorted(rows)):
        print("%d\t%d\t%d\t%.6f" % (g, p, s, x))
else:
    k, keep, W, seed, steps, batch = (float(x) if "." in x else int(x) for x in argv[3:9])
    S = {}
    for t in shards("scores"):
        for i, seq in enumerate(t["seq"]):
            x = sorted(l / 2048 if r < k else 0.0 for l, r in zip(t["loss"][i * L:(i + 1) * L], t["rank"][i * L:(i + 1) * L]))
            S[seq] = (x[(L - 1) // 2] + x[L // 2]) / 2
    windows, K, g, b = int(manifest["identity"]["windows"]), int(keep * W + 1e-9), 0, 0
    scored, kept = [0] * 48, [0] * 48
    while g < steps * batch:
        at = [(p, order(seed, windows, p)) for p in range(b * W, (b + 1) * W)]
        for p, seq in sorted(sorted(at, key=lambda e: (-S[e[1]], e[0]))[:K]):
            kept[min(int(S[seq] * 4), 47)] += 1
            if g < steps * batch and argv[2] == "rows":
                print("%d\t%d\t%d\t%.6f" % (g, p, seq, S[seq]))
            g += 1
        for p, seq in at:
            scored[min(int(S[seq] * 4), 47)] += 1
        b += 1
    if argv[2] == "bins":
        print("scored", *scored)
        print("kept", *kept)
