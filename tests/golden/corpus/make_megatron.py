# SPDX-License-Identifier: Apache-2.0
"""Token files as other projects write them, from the layouts in docs/formats.md; shares no code with common/data/corpus.
  small.bin, small.idx    Megatron, uint16: three documents, the second of two sequences
  wide.bin, wide.idx      Megatron, int32, ids over 65,535
  gpt2_000.bin, gpt2_001.bin   llm.c, uint16; llama3.bin  llm.c, uint32
  raw.u16                 raw
"""
import os
import struct

here = os.path.dirname(os.path.abspath(__file__))


def write(name, data):
    with open(os.path.join(here, name), "wb") as f:
        f.write(data)


def megatron(name, documents, code, letter):
    """documents: lists of sequences, a sequence a list of ids."""
    sequences = [s for d in documents for s in d]
    size = struct.calcsize("<" + letter)
    pointers, at = [], 0
    for s in sequences:
        pointers.append(at)
        at += size * len(s)
    marks = [0]
    for d in documents:
        marks.append(marks[-1] + len(d))
    idx = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", code)
    idx += struct.pack("<Q", len(sequences)) + struct.pack("<Q", len(marks))
    idx += b"".join(struct.pack("<i", len(s)) for s in sequences)
    idx += b"".join(struct.pack("<q", p) for p in pointers)
    idx += b"".join(struct.pack("<q", m) for m in marks)
    write(name + ".idx", idx)
    write(name + ".bin", b"".join(struct.pack("<%d%s" % (len(s), letter), *s) for s in sequences))


def llmc(name, ids, magic, version, letter):
    header = [magic, version, len(ids)] + [0] * 253
    write(name, struct.pack("<256i", *header) + struct.pack("<%d%s" % (len(ids), letter), *ids))


megatron("small", [[[1, 2, 3, 0]], [[40000, 65535], [7, 0]], [[9, 8, 7, 6, 5, 0]]], 8, "H")
megatron("wide", [[[70000, 1, 2147483646, 0]], [[5, 0]]], 4, "i")
llmc("gpt2_000.bin", [50256, 11, 12, 13, 14], 20240520, 1, "H")
llmc("gpt2_001.bin", [15, 16, 50256, 17], 20240520, 1, "H")
llmc("llama3.bin", [128000, 1, 2, 3], 20240801, 7, "I")
write("raw.u16", struct.pack("<7H", 3, 1, 4, 1, 5, 9, 65535))
