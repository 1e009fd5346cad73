# SPDX-License-Identifier: Apache-2.0
"""Label records version 3, put together byte by byte from docs/formats.md; shares no code with common/data/labels.
Writes sampled.bin, like.bin, common.bin, topk.bin, dense.bin, scores.bin beside itself and prints the identity hashes that tests know.
Needs libxxhash.so.0 (Debian: libxxhash0) and nothing else."""
import ctypes
import math
import os
import struct

here = os.path.dirname(os.path.abspath(__file__))
xxh = ctypes.CDLL("libxxhash.so.0")


class H128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


xxh.XXH3_128bits.restype = H128
xxh.XXH3_64bits.restype = ctypes.c_uint64
for f in (xxh.XXH3_128bits, xxh.XXH3_64bits):
    f.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def h128(b):
    h = xxh.XXH3_128bits(b, len(b))
    return h.high, h.low


def record(kind, L, param, vocab, tokens, payload, label_set=(0, 0)):
    assert len(tokens) == L + 1
    head = b"SL" + bytes([3, kind]) + struct.pack("<III", L, param, vocab)
    head += struct.pack("<QQ", *h128(struct.pack("<%di" % (L + 1), *tokens)))
    head += struct.pack("<II", len(payload), 0) + struct.pack("<QQ", *label_set)
    body = head + payload
    return body + struct.pack("<Q", xxh.XXH3_64bits(body, len(body)))


def code(log_p):
    if log_p == -math.inf:
        return 65535
    (log_p,) = struct.unpack("<f", struct.pack("<f", log_p))
    return min(65535, round(-log_p * 2048))


def write(name, data):
    with open(os.path.join(here, name), "wb") as f:
        f.write(data)
    print(name, len(data), "bytes")


# ---- the coder of sampled labels, as docs/formats.md tells it ----

def weight(c):
    return c if c < 16 else (8 + c % 8) * 2 ** (c // 8 - 1)


def tables(codes):
    """id -> (start, freq, place in its group, bits of the group), and the order of the ids."""
    order = sorted(range(len(codes)), key=lambda v: (-codes[v], v))
    groups, at = [], 0
    while at < len(order):
        same = at
        while same < len(order) and codes[order[same]] == codes[order[at]]:
            same += 1
        while at < same:
            bits = min(16, (same - at).bit_length() - 1)
            groups.append((at, bits))
            at += 1 << bits
    total = sum(map(weight, codes))
    assert total < 2 ** 47
    starts, before = [], 0
    for g, (first, bits) in enumerate(groups):
        starts.append(before * (32768 - len(groups)) // total + g)
        before += weight(codes[order[first]]) << bits
    starts.append(32768)
    of = {}
    for g, (first, bits) in enumerate(groups):
        for i in range(1 << bits):
            of[order[first + i]] = (starts[g], starts[g + 1] - starts[g], i, bits)
    return of, {v: i for i, v in enumerate(order)}


class Bit:
    def __init__(self):
        self.p, self.rate = 16384, 24576

    def steps(self, value):
        slots = (0, self.p) if value else (self.p, 32768 - self.p)
        self.p += ((32744 if value else 24) - self.p) * self.rate // 65536
        self.rate -= (self.rate - 1024) // 8
        return [("bits",) + slots]


class Bits(dict):                                               # a Bit for whatever it is asked
    def __missing__(self, key):
        self[key] = Bit()
        return self[key]


def plain(value, bits):
    return [("bits", 0, 32768, bits, value % 2 ** bits)] if bits > 0 else []


def tree(bits, name, value, n):
    steps, prefix = [], ""
    for i in reversed(range(n)):
        steps += bits[name, prefix].steps(value >> i & 1)
        prefix += str(value >> i & 1)
    return steps


def log2(x):
    return x.bit_length() - 1


def drawn(count):
    return "once" if count == 1 else "few" if count <= 3 else "more"


def sampled(rows, N, V, codes, lie=None):                       # lie: what the last row says that is not so
    of, place = tables(codes)
    n_bits = (min(N, V) - 1).bit_length()
    bits = Bits()
    steps = []

    def common(v):
        return 0 if place[v] < 128 else 1 if place[v] < 2048 else 2

    def cost(v):
        return 15 + of[v][3] - log2(of[v][1])

    def like(t):
        best, back = 5, 0
        for d in range(1, min(t, 255) + 1):
            other = rows[t - d]
            worth = sum(cost(v) - 5 for v in rows[t] if v in other and cost(v) >= 8) - len(other) // 2
            if worth > best:
                best, back = worth, d
        return back

    used = []
    for t, row in enumerate(rows):
        ids = sorted(row)
        rest = max(0, n_bits - 8)
        lies = lie if t == len(rows) - 1 else None
        n = len(ids) - 1 if lies == "again" else len(ids)
        steps += tree(bits, "n", (n - 1) >> rest, n_bits - rest) + plain(n - 1, rest)
        back = t + 1 if lies == "back" else like(t)
        used.append(back)
        other = rows[t - back] if 0 < back <= t else {}
        steps += tree(bits, "back", back.bit_length(), 4) + plain(back, max(0, back.bit_length() - 1))
        for v in sorted(other):
            steps += bits["again", common(v), drawn(other[v])].steps(v in row)
        steps.append(("set", [ids[0] if lies == "twice" else v for v in ids if v not in other]))
        left = N - len(ids)
        if left == 0:
            continue
        for v in ids:
            then = drawn(other[v]) if v in other else "new"
            steps += bits["twice", log2(N // len(ids)), common(v), then].steps(lies == "many" or lies != "none" and row[v] > 1)
        more = [row[v] - 1 for v in ids if row[v] > 1]
        for i, x in enumerate(more[:-1]):
            n = len(more) - i
            length, most = log2(x), log2(left - n + 1)
            for j in range(min(most, length + 1)):
                steps += bits["longer", log2(left // n), min(j, 7)].steps(j < length)
            if length > 0:
                steps += bits["half", min(length, 7)].steps(x >> (length - 1) & 1)
                steps += plain(x, length - 1)
            left -= x
    print("rows back:", {d: used.count(d) for d in sorted(set(used))})
    state, words = {"bits": 2 ** 31, "ids": 2 ** 31, "ranks": 2 ** 31}, []

    def push(name, start, freq, bits=0, low=0):
        x = state[name]
        if x >= freq << (48 - bits):
            words.append(x % 2 ** 32)
            x >>= 32
        x = x << bits | low
        state[name] = x // freq * 32768 + x % freq + start

    for step in reversed(steps):
        if step[0] == "bits":
            push(*step)
            continue
        ids = list(step[1])
        while ids:
            m = len(ids)
            j = 0
            if m > 1:
                x, each = state["ranks"], 2 ** 24 // m
                slot = x % 2 ** 24
                j = min(slot // each, m - 1)
                x = ((each if j < m - 1 else 2 ** 24 - j * each)) * (x >> 24) + slot - j * each
                if x < 2 ** 31:
                    x = x << 32 | (words.pop() if words else 0)
                state["ranks"] = x
            start, freq, low, bits = of[ids.pop(j)]
            push("ids", start, freq, bits, low)
    return struct.pack("<QQQ", state["bits"], state["ids"], state["ranks"]) + b"".join(struct.pack("<I", w) for w in reversed(words))


# sampled: N 300, V 70000, and a row of 100 ids
tokens = [11, 69999, 0, 7]
codes = bytes(1 + v * 7919 % 251 for v in range(70000))
rows = [{0: 300}, {5: 1, 6: 128, 134: 129, 69999: 42}, {5 + 233 * i: 1 + i % 5 for i in range(100)}]
assert all(sum(row.values()) == 300 for row in rows)
write("sampled.bin", record(1, 3, 300, 70000, tokens, sampled(rows, 300, 70000, codes), (21, 22)))
print("unigram", "%016x%016x" % h128(codes))

# sampled: a vocabulary of 5, N 7, every length of a row
tiny = [{v: 1 for v in range(n - 1)} | {n - 1: 8 - n} for n in (1, 2, 3, 4, 5)]
write("tiny.bin", record(1, 5, 7, 5, [0, 1, 2, 3, 4, 0], sampled(tiny, 7, 5, bytes([1, 255, 16, 15, 200])), (21, 22)))

# sampled: N 1
write("one.bin", record(1, 2, 1, 5, [0, 1, 2], sampled([{4: 1}, {0: 1}], 1, 5, bytes([1, 255, 16, 15, 200])), (21, 22)))

# sampled: 260 rows that are like others, of ids that cost 4 bits to 16, of which some are 255 back, and some too far back
likes = bytes((120, 132, 140, 148, 168, 180)[v // 1000] if v % 100 == 0 else 1 + v * 7919 % 100 for v in range(6000))
like = []
for t in range(260):
    n = 1 + t % 6
    far = 500 if t in (1, 256) else 700 if t in (3, 259) else 0
    row = {1000 * i + (far or 100 * (t % 5)) + (t if i % 3 == 2 else 0): 1 for i in range(n)}
    ids = sorted(row)
    row[ids[t * 7 % n]] += (12 - n) * (t % 4) // 4
    row[ids[t * 3 % n]] += 12 - n - (12 - n) * (t % 4) // 4
    like.append(row)
write("like.bin", record(1, 260, 12, 6000, [i * 17 for i in range(261)], sampled(like, 12, 6000, likes), (21, 22)))

# sampled: ids whose places, here the ids themselves, are the last and the first of how common an id is
edges = []
for t in range(40):
    ids = [v for i, v in enumerate((127, 128, 2047, 2048)) if (t % 15 + 1) >> i & 1]
    edges.append({v: 1 for v in ids[1:]} | {ids[0]: 13 - len(ids)})
write("common.bin", record(1, 40, 12, 3000, list(range(41)), sampled(edges, 12, 3000, bytes([9] * 3000)), (21, 22)))

# sampled, each with one thing wrong in its last row, and all of the rest as it must be
one, other = {100: 4, 1100: 4, 2200: 4}, {300: 11, 1300: 1}
for lie, last in (("again", one), ("back", one), ("twice", {300: 6, 1300: 6}), ("many", {v: 1 for v in range(300, 1300, 100)} | {1300: 2}),
                  ("none", other)):
    write("bad_%s.bin" % lie, record(1, 2, 12, 6000, [1, 2, 3], sampled([one, last], 12, 6000, likes, lie), (21, 22)))

# topk: k 3, V 65537 (ids of 3 bytes). The second row has two entries of one code, the third an underflow.
rows = [
    [(65536, math.log(0.5)), (3, math.log(0.25)), (70, math.log(0.125))],
    [(9, -1.0), (2, -3.0), (65000, -3.0)],
    [(4, 0.0), (1, -31.99951171875), (3, -40.0)],
]
payload = b""
for row in rows:
    entries = sorted((code(p), v) for v, p in row)
    payload += b"".join(v.to_bytes(3, "little") for _, v in entries)
    payload += b"".join(struct.pack("<H", c) for c, _ in entries)
write("topk.bin", record(2, 3, 3, 65537, tokens, payload))

# dense: V 5, the golden soft labels of tau 1 and 0.25, and a row with a masked id
u = (2.0, 1.0, 0.0, 1.5, -2.0)
rows = []
for tau, n in ((1.0, 5), (0.25, 5), (1.0, 4)):
    e = [math.exp(x / tau) for x in u[:n]]
    rows.append([math.log(x / sum(e)) for x in e] + [-math.inf] * (5 - n))
payload = b"".join(struct.pack("<H", code(p)) for row in rows for p in row)
write("dense.bin", record(3, 3, 0, 5, [4, 0, 1, 2], payload))

# scores
losses = (0.0, 0.10, 2.30, 31.9990234375, 31.9997, 100.0)
ranks = (0, 3, 254, 255, 256, 70000)
write("scores.bin", b"".join(struct.pack("<HB", min(65535, round(x * 2048)), min(r, 255)) for x, r in zip(losses, ranks)))

# identities
spec = struct.pack("<IIIIIIdIQQ", 128, 4096, 1, 50, 0, 17, 0.25, 3, 5, 6)
models = struct.pack("<QQQQ", 1, 2, 3, 4) + b"fp32/openblas".ljust(48, b"\0")
for name, packed in (("spec", b"SALTSPEC" + spec), ("label set", b"SALTLSET" + models + spec),
                     ("score set", b"SALTSSET" + models + struct.pack("<II", 128, 1))):
    print(name, "%016x%016x" % h128(packed))
