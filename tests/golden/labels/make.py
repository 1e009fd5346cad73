"""Label records version 1, put together byte by byte from docs/formats.md; shares no code with common/labels.
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


def varint(v):
    out = b""
    while v > 127:
        out += bytes([v % 128 + 128])
        v //= 128
    return out + bytes([v])


def record(kind, L, param, vocab, tokens, payload):
    assert len(tokens) == L + 1
    head = b"SL" + bytes([1, kind]) + struct.pack("<III", L, param, vocab)
    head += struct.pack("<QQ", *h128(struct.pack("<%di" % (L + 1), *tokens)))
    head += struct.pack("<II", len(payload), 0)
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


# sampled: N 300, V 70000
tokens = [11, 69999, 0, 7]
rows = [{0: 300}, {5: 1, 6: 128, 134: 129, 69999: 42}, {127: 150, 256: 149, 40000: 1}]
payload = b""
for row in rows:
    assert sum(row.values()) == 300
    payload += varint(len(row))
    last = None
    for v in sorted(row):
        gap = v if last is None else v - last - 1
        payload += varint(gap) + varint(row[v] - 1)
        last = v
write("sampled.bin", record(1, 3, 300, 70000, tokens, payload))

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
spec = struct.pack("<IIIIIIdI", 128, 4096, 1, 50, 0, 17, 0.25, 1)
models = struct.pack("<QQQQ", 1, 2, 3, 4) + b"fp32/openblas".ljust(48, b"\0")
for name, packed in (("spec", b"SALTSPEC" + spec), ("label set", b"SALTLSET" + models + spec),
                     ("score set", b"SALTSSET" + models + struct.pack("<II", 128, 1))):
    print(name, "%016x%016x" % h128(packed))
