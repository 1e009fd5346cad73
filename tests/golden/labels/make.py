"""Label records version 2, put together byte by byte from docs/formats.md; shares no code with common/labels.
Writes sampled.bin, topk.bin, dense.bin, scores.bin beside itself and prints the identity hashes that test_labels.c knows.
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
    head = b"SL" + bytes([2, kind]) + struct.pack("<III", L, param, vocab)
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


LONGER = ((59, 60, 37, 32, 32, 32, 32, 32), (102, 116, 94, 45, 32, 32, 32, 32), (123, 150, 142, 104, 20, 32, 32, 32),
          (140, 172, 160, 151, 53, 32, 32, 32), (156, 185, 170, 157, 116, 64, 32, 32), (162, 194, 192, 177, 143, 96, 64, 64),
          (172, 198, 206, 189, 155, 112, 64, 64), (187, 209, 214, 208, 165, 128, 96, 64), (196, 219, 220, 215, 189, 144, 112, 96),
          (213, 228, 231, 228, 214, 160, 128, 112), (213, 228, 231, 228, 214, 160, 128, 112), (213, 228, 231, 228, 214, 160, 128, 112))


class Bit:
    def __init__(self, p, seen):
        self.p, self.seen = p, seen

    def steps(self, value):
        slots = (0, self.p) if value else (self.p, 32768 - self.p)
        target = 32768 - 24 if value else 24
        rate = min(65535, math.floor(65536 / (self.seen + 1.6) + 0.5))
        self.p += int((target - self.p) * rate / 65536)        # towards zero
        self.seen = min(63, self.seen + 1)
        return [("slots",) + slots]


def plain(value, bits):
    return [("slots", 0, 16384) if value >> i & 1 else ("slots", 16384, 16384) for i in reversed(range(bits))]


def sampled(rows, N, V, codes):
    of, place = tables(codes)
    ids_max = min(N, V)
    n_bits = (ids_max - 1).bit_length()
    n_tree = {i: Bit(16384, 0) for i in range(256)}
    longer = {(c, r, k, i): Bit(LONGER[r][i] * 128, 8) for c in range(3) for r in range(12) for k in range(4) for i in range(8)}
    half = {(c, i): Bit(12288, 8) for c in range(3) for i in range(8)}
    steps = []
    for row in rows:
        ids = sorted(row)
        node = 1
        for i in range(n_bits):
            bit = (len(ids) - 1) >> (n_bits - 1 - i) & 1
            if i < 8:
                steps += n_tree[node].steps(bit)
                node = 2 * node + bit
            else:
                steps += plain(bit, 1)
        steps.append(("set", ids))
        left = N
        for i, v in enumerate(ids[:-1]):
            n = len(ids) - i
            c = 0 if place[v] < 128 else 1 if place[v] < 2048 else 2
            r = 0
            while r < 11 and left * left >= n * n << (r + 1):
                r += 1
            k = 0 if n <= 2 else 1 if n <= 4 else 2 if n <= 8 else 3
            length, most = row[v].bit_length() - 1, (left - n + 1).bit_length() - 1
            for j in range(min(most, length + 1)):
                steps += longer[c, r, k, min(j, 7)].steps(j < length)
            if length > 0:
                steps += half[c, min(length, 7)].steps(row[v] >> (length - 1) & 1)
                steps += plain(row[v] & ((1 << (length - 1)) - 1), length - 1)
            left -= row[v]
    x, words = 2 ** 31, []

    def push(start, freq, bits=0, low=0):
        nonlocal x
        if x >= freq << (48 - bits):
            words.append(x % 2 ** 32)
            x >>= 32
        x = x << bits | low
        x = x // freq * 32768 + x % freq + start

    for step in reversed(steps):
        if step[0] == "slots":
            push(step[1], step[2])
            continue
        ids = list(step[1])
        while ids:
            m = len(ids)
            j = 0
            if m > 1:
                slot = x % 65536
                j = slot * m // 65536
                begin, end = -(-j * 65536 // m), -(-(j + 1) * 65536 // m)
                x = (end - begin) * (x >> 16) + slot - begin
                if x < 2 ** 31:
                    x = x << 32 | (words.pop() if words else 0)
            start, freq, low, bits = of[ids.pop(j)]
            push(start, freq, bits, low)
    return struct.pack("<Q", x) + b"".join(struct.pack("<I", w) for w in reversed(words))


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
spec = struct.pack("<IIIIIIdIQQ", 128, 4096, 1, 50, 0, 17, 0.25, 2, 5, 6)
models = struct.pack("<QQQQ", 1, 2, 3, 4) + b"fp32/openblas".ljust(48, b"\0")
for name, packed in (("spec", b"SALTSPEC" + spec), ("label set", b"SALTLSET" + models + spec),
                     ("score set", b"SALTSSET" + models + struct.pack("<II", 128, 1))):
    print(name, "%016x%016x" % h128(packed))
