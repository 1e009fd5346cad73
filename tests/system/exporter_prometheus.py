#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exporter_prometheus.py rest|train SALTCTL PROMETHEUS DASHBOARD - what Prometheus knows of a fleet against what its daemons say.

rest: nobody works, figures are equal. train: counters grow, never ahead of the daemons; rules and Grafana's questions have answers.
"""
import json, subprocess, sys, time, urllib.error, urllib.parse, urllib.request

mode, saltctl, at, dashboard = sys.argv[1:]


def ask(path, **q):
    return json.load(urllib.request.urlopen(f"{at}/api/v1/{path}?" + urllib.parse.urlencode(q), timeout=10))["data"]


def query(q):
    return {(r["metric"].get("role"), r["metric"].get("daemon")): float(r["value"][1]) for r in ask("query", query=q)["result"]}


def status():
    out = subprocess.run([saltctl, "status", "-c", "fleet.yaml", "--json"], stdout=subprocess.PIPE, timeout=30).stdout
    return {(d["role"], d["name"]): d for d in json.loads(out)["daemons"]}


def until(what, true):
    late = time.time() + 25
    while True:
        try:
            if true():
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        assert time.time() < late, what
        time.sleep(0.2)


if mode == "rest":
    fleet = status()
    until("all daemons up", lambda: query("salt_up") == {key: 1 for key in fleet})
    n = 0
    for key, d in fleet.items():
        for group in ("counters", "queues", "gauges"):
            for metric, v in d[group].items():
                if metric.startswith(("cpu_", "cache_disk_")):
                    continue
                full = f"salt_{key[0].removesuffix('d')}_{metric}"
                got = query(f'{full}{{daemon="{key[1]}"}}')
                assert got == {key: v}, (full, got, v)
                n += v != 0
    assert n >= 15, f"only {n} figures are not 0"
    target = ask("targets")["activeTargets"]
    assert len(target) == 1 and target[0]["health"] == "up" and target[0]["lastError"] == "", target
    print(f"{n} figures equal, and not 0")
    sys.exit()

trainer = ("trainerd", "trainerd-0")
now = status()[trainer]["counters"]["tokens_total"]
until("the trainer's counter grows", lambda: query("salt_trainer_tokens_total").get(trainer, 0) >= now > 0)
seen = query("salt_trainer_tokens_total")[trainer]
assert seen <= status()[trainer]["counters"]["tokens_total"]
until("every rule was asked", lambda: all(r["health"] != "unknown" for r in ask("rules")["groups"][0]["rules"]))
bad = [r for r in ask("rules")["groups"][0]["rules"] if r["health"] != "ok"]
assert not bad, bad
exprs = [t["expr"] for p in json.load(open(dashboard))["panels"] for t in p["targets"]]
assert len(exprs) >= 20
for e in exprs:
    until(e, lambda: ask("query", query=e.replace("$instance", ".*").replace("$__rate_interval", "20s"))["result"])
