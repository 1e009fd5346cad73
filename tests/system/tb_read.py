# SPDX-License-Identifier: Apache-2.0
"""Event files of RUN/tb against RUN/metrics.jsonl: every step once, the same numbers as fp32.

    tb_read.py [--tensorboard] [--cut] RUN

Reads them by itself, from the description of the format, or with TensorBoard's own reader. --cut: the last record was cut off.
"""
import json
import math
import pathlib
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data, cut):
    at = 0
    while at < len(data):
        if at + 12 > len(data) or at + 16 + struct.unpack_from("<Q", data, at)[0] > len(data):
            assert cut, "a record is cut off"
            return
        n, head = struct.unpack_from("<QI", data, at)
        assert head == masked(data[at:at + 8]), f"checksum of the length at {at}"
        body = data[at + 12:at + 12 + n]
        assert struct.unpack_from("<I", data, at + 12 + n)[0] == masked(body), f"checksum of the data at {at}"
        yield body
        at += 16 + n


def fields(data):
    """(number, value) of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 1:
            yield key >> 3, struct.unpack_from("<d", data, at)[0]
            at += 8
        elif kind == 2:
            n = varint()
            yield key >> 3, data[at:at + n]
            at += n
        elif kind == 5:
            yield key >> 3, struct.unpack_from("<f", data, at)[0]
            at += 4
        else:
            raise AssertionError(f"wire type {kind}")


def own_reader(folder, cut):
    """{tag: {step: value}}, with the purge marks obeyed; fails where a step comes twice."""
    found = {}
    for path in sorted(folder.iterdir()):
        for i, body in enumerate(records(path.read_bytes(), cut)):
            event = dict(fields(body))
            step = event.get(2, 0)
            assert event[1] > 1.6e9, "no time"
            if i == 0:
                assert event[3] == b"brain.Event:2", "no version"
            if 7 in event:
                assert dict(fields(event[7]))[1] == 1
                for values in found.values():
                    for old in [s for s in values if s >= step]:
                        del values[old]
            for number, value in fields(event.get(5, b"")):
                value = dict(fields(value))
                values = found.setdefault(value[1].decode(), {})
                assert step not in values, f"step {step} of {value[1]} twice"
                values[step] = value[2]
    return found


def tensorboards_reader(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    found = {}
    for tag in reader.Tags()["scalars"]:
        events = reader.Scalars(tag)
        found[tag] = {e.step: e.value for e in events}
        assert len(found[tag]) == len(events), f"{tag}: a step twice"
    return found


def fp32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def main():
    options, run = sys.argv[1:-1], pathlib.Path(sys.argv[-1])
    cut = "--cut" in options
    found = tensorboards_reader(run / "tb") if "--tensorboard" in options else own_reader(run / "tb", cut)
    lines = [json.loads(x) for x in open(run / "metrics.jsonl")]
    steps = [x for x in lines if x["kind"] == "step"]
    evals = [x for x in lines if x["kind"] == "eval"]
    names = {"loss": "loss", "hard_loss": "hard", "soft_loss": "soft", "kl": "kl", "accuracy": "accuracy", "grad_norm": "grad_norm", "lr": "lr", "kd_weight": "weight", "token_weight": "token_weight", "phase": "phase"}
    n = 0
    for tag, key, rows in [(f"train/{t}", k, steps) for t, k in names.items()] + [(f"heldout/{k}", k, evals) for k in ("loss", "accuracy", "bits_per_byte")]:
        rows = {x["step"]: fp32(x[key]) for x in rows if x[key] is not None}
        if not rows and tag not in found:       # nothing soft without a teacher
            continue
        if cut:                 # what was cut is of the last step, a step's or an evaluation's
            last = max(rows)
            rows = {s: v for s, v in rows.items() if s < last}
            found[tag] = {s: v for s, v in found[tag].items() if s < last}
        assert found[tag] == rows, f"{tag}: {sorted(set(found[tag].items()) ^ set(rows.items()))[:4]}"
        n += len(rows)
    for x in steps[:-1]:
        rate, share = found["train/tokens_per_second"][x["step"]], found["train/wait_share"][x["step"]]
        all_s = x["step_seconds"] + x["wait_seconds"]
        assert math.isclose(share, x["wait_seconds"] / all_s, rel_tol=1e-5, abs_tol=1e-7), f"wait share of {x}"
        assert math.isclose(rate, (x["tokens"] / x["step"]) / all_s, rel_tol=1e-5), f"tokens a second of {x}"
    assert n > 500, "hardly anything was compared"
    print(f"{n} values of {len(steps)} steps and {len(evals)} evaluations are those of metrics.jsonl")


if __name__ == "__main__":
    main()
