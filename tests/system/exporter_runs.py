#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exporter_runs.py write DIR | check URL DIR - a run's metrics.jsonl of 1,000 steps with known curves, and what /api/runs makes of it."""
import json, math, sys, urllib.request

N, BATCH, CONTEXT = 1000, 8, 32


def hard(step):
    return 3 + 5 * math.exp(-step / 200) + (0.25 if step % 2 else -0.25)


if sys.argv[1] == "write":
    with open(sys.argv[2] + "/metrics.jsonl", "w") as out:
        for s in range(1, N + 1):
            one = s <= 600
            line = {"kind": "step", "step": s, "phase": 1 if one else 2, "hard": hard(s), "lr": s / 1000, "kd_tokens": 256 if one else 0,
                    "label_bytes": 1000 if one else 0, "seconds": s * 0.5 if s <= 500 else 250 + (s - 500) * 0.25, "wait_seconds": 0.5 if one else 0,
                    "rows_ahead": s % 4}
            print(json.dumps(line), file=out)
            if s % 100 == 0:
                print(json.dumps({"kind": "eval", "step": s, "loss": 9 - s / 200, "accuracy": s / 10000}), file=out)
            if s == 600:
                print(json.dumps({"kind": "event", "event": "switch", "step": s, "rows_seen_again": 3}), file=out)
        out.write('{"kind":"step","step":1001,"ha')          # being written
    sys.exit()

runs = {r["name"]: r for r in json.load(urllib.request.urlopen(sys.argv[2] + "api/runs", timeout=10))["runs"]}
r = runs[sys.argv[3]]
assert r["step"] == N and r["switch_step"] == 600 and r["heldout_loss"] == 4 and r["accuracy"] == 0.1, r
assert r["evals"] == {"step": list(range(100, 1001, 100)), "loss": [9 - s / 200 for s in range(100, 1001, 100)]}, r["evals"]
# 1,000 steps in at most 400 points: three at a time, the last one alone.
p, each = r["points"], r["steps_per_point"]
assert each == 3 and p["step"] == list(range(3, 1000, 3)) + [1000], (each, p["step"][-3:])
first = 1
for i, last in enumerate(p["step"]):
    steps = range(first, last + 1)
    near = lambda a, b: math.isclose(a, b, rel_tol=1e-6)
    assert near(p["hard"][i], sum(map(hard, steps)) / len(steps)), (last, p["hard"][i])
    assert near(p["lr"][i], last / 1000), (last, p["lr"][i])
    # 256 tokens a step; half a second each up to step 500, a quarter after it
    took = sum(0.5 if s <= 500 else 0.25 for s in steps)
    assert near(p["tokens_per_s"][i], len(steps) * BATCH * CONTEXT / took), (last, p["tokens_per_s"][i])
    if last <= 600:
        assert near(p["rows_ahead"][i], sum(s % 4 for s in steps) / len(steps)) , (last, p["rows_ahead"][i])
    else:
        assert p["rows_ahead"][i] is None, last
    first = last + 1
l = r["ledger"]
assert l["tokens"] == N * BATCH * CONTEXT and l["train_seconds"] == 375 and l["wait_seconds"] == 300 and l["label_bytes"] == 600000, l
assert "error" in runs["broken"] and "points" not in runs["broken"], runs["broken"]
assert "metrics.jsonl" in runs["broken"]["error"], runs["broken"]
