#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exporter_check.py SALTCTL FLEET.YAML URL MIN - what the exporter at URL says against what the status sockets say.

/metrics is read by the rules of Prometheus' text format. A figure that two looks at the status sockets show alike, one before and one
after, must be the one in between; a counter that moves must lie between them. At least MIN figures must have stood still.
"""
import json, math, re, subprocess, sys, time, urllib.request

saltctl, config, url, least = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
SAMPLE = re.compile(r'^([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\]|\\[\\"n])*",?)*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\[\\"n])*)"')


def get(path):
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


def parse(text):
    """{name: (type, {labels: value})}; every rule that is broken ends the test."""
    assert text.endswith("\n")
    found, helped, current = {}, set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert name not in helped and words, line
            helped.add(name)
            current = name
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and name not in found and kind in ("counter", "gauge"), line
            assert (kind == "counter") == name.endswith("_total"), line
            found[name] = (kind, {})
        else:
            m = SAMPLE.match(line)
            assert m and m[1] == current, line
            assert m[1].startswith("salt_"), line
            labels = frozenset(LABEL.findall(m[2] or ""))
            assert labels not in found[current][1], "twice: " + line
            found[current][1][labels] = float(m[3])
    return found


def sockets():
    out = subprocess.run([saltctl, "status", "-c", config, "--json"], stdout=subprocess.PIPE, timeout=30)
    return {(d["role"], d["name"]): d for d in json.loads(out.stdout)["daemons"] if d["answered"]}


before = sockets()
asked = time.time()
while True:
    text, kind = get("metrics")
    metrics = parse(text)
    if next(iter(metrics["salt_exporter_polled_timestamp_seconds"][1].values())) > asked + 0.5:
        break
    assert time.time() < asked + 20, "the exporter does not poll"
    time.sleep(0.1)
assert kind == "text/plain; version=0.0.4; charset=utf-8", kind
status, kind = get("api/status")
assert kind == "application/json", kind
status = {(d["role"], d["name"]): d for d in json.loads(status)["daemons"] if d["answered"]}
after = sockets()

assert before.keys() == after.keys() == status.keys(), (before.keys(), status.keys(), after.keys())
same = moving = 0
for key, a in before.items():
    role, name = key
    b, s = after[key], status[key]
    labels = {("role", role), ("daemon", name), ("host", a["host"])}
    assert a.keys() == s.keys(), (a.keys(), s.keys())
    for field in ("role", "name", "pid", "host", "version", "phase", "steps_total", "help", "endpoint"):
        assert a[field] == s[field], (field, a[field], s[field])
    assert metrics["salt_up"][1][frozenset(labels)] == 1
    for group in ("counters", "timers", "gauges", "queues"):
        for metric, x in a[group].items():
            y = b[group][metric]
            full = "salt_" + role.removesuffix("d") + "_" + metric
            if x is None or y is None:
                continue
            kind, series = metrics[full]
            v, j = series[frozenset(labels)], s[group][metric]
            assert kind == ("counter" if group in ("counters", "timers") else "gauge"), (full, kind)
            # A gauge may have been elsewhere and back: those of a trainer at work, and of a disk that others write to.
            if x == y and not (kind == "gauge" and role == "trainerd") and metric != "cache_disk_free_ratio":
                assert v == x == j, (full, name, x, v, j)
                same += 1
            elif kind == "counter":
                assert x <= v <= y and x <= j <= y, (full, name, x, v, j, y)
                moving += 1
    for field, full in (("step", "salt_step"), ("uptime_s", "salt_uptime_seconds")):
        v = metrics[full][1][frozenset(labels)]
        assert a[field] <= v <= b[field], (full, a[field], v, b[field])
    states = {dict(k)["state"]: v for k, v in metrics["salt_state"][1].items() if labels <= k}
    assert sum(states.values()) == 1 and states.keys() >= a["state_seconds"].keys(), states
    if a["state"] == b["state"]:
        assert states[a["state"]] == 1 or a["role"] == "trainerd", (a["state"], states)
answering = metrics["salt_exporter_daemons_answering"][1][frozenset()]
assert answering == len(before), answering
assert same >= least, f"only {same} figures stood still"
print(f"{same} figures equal, {moving} between two looks, {len(metrics)} metrics")
