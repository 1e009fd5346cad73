#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exporter_page.py rest|train|bare CHROMEDRIVER SALTCTL URL [SHOTS] - the dashboard in a headless Chromium.

rest: what it shows is what the status sockets say, at 1280 and at 390 pixels. train: it goes on by itself; keys work. bare: no Chart.js
on the exporter's host. In each the console has no error. SHOTS: a folder for screenshots.
"""
import base64, json, os, subprocess, sys, time, urllib.error, urllib.request

mode, driver, saltctl, url = sys.argv[1:5]
shots = sys.argv[5] if len(sys.argv) > 5 else None
at = None


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(at + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]
    except urllib.error.HTTPError as e:
        sys.exit(f"{method} {path}: {e.read().decode()[:600]}")


def js(text):
    return call("POST", "/execute/sync", {"script": text, "args": []})


def status():
    out = subprocess.run([saltctl, "status", "-c", "fleet.yaml", "--json"], stdout=subprocess.PIPE, timeout=30).stdout
    return {d["name"]: d for d in json.loads(out)["daemons"]}


def until(what, true):
    late = time.time() + 30
    while True:
        v = true()
        if v:
            return v
        assert time.time() < late, f"{what}; {page()}"
        time.sleep(0.1)


def page():
    return js("""
        const table = (id) => [...document.getElementById(id).tBodies[0].rows].filter((r) => r.dataset.key).map((r) =>
            Object.fromEntries([...r.cells].map((c) => [c.dataset.column, [c.dataset.value, c.textContent]])));
        return {
            tiles: Object.fromEntries([...document.querySelectorAll("#tiles dd")].map((d) => [d.id.slice(5), d.dataset.value])),
            teachers: document.getElementById("teachers").tBodies.length ? table("teachers") : [],
            daemons: document.getElementById("daemons").tBodies.length ? table("daemons") : [],
            results: document.getElementById("results").tBodies.length ? table("results") : [],
            ledger: document.getElementById("ledger").tBodies.length ? table("ledger") : [],
            now: document.getElementById("now").textContent, phase: document.getElementById("phase").textContent,
            problem: document.getElementById("problem").hidden ? "" : document.getElementById("problem").textContent,
            charts: typeof charts === "undefined" ? {} : Object.fromEntries(Object.entries(charts).map(([k, c]) => [k, {
                sets: c.data.datasets.map((d) => [d.label, d.data.length, d.data.length ? d.data[d.data.length - 1].x : null]),
                switches: c.data.switches.map((s) => s.step), width: c.width}])),
            scores: JSON.parse(document.getElementById("scores").dataset.value || "null"),
            wide: document.documentElement.scrollWidth, window: document.documentElement.clientWidth,
        };""")


def no_error(expected=""):
    bad = [e for e in call("POST", "/se/log", {"type": "browser"}) if not (expected and expected in e["message"])]
    assert not bad, bad


def size(width, height):
    call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride",
        "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}})


def shot(name):
    if shots:
        height = js("return document.documentElement.scrollHeight;")
        width = js("return innerWidth;")
        png = call("POST", "/goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}})["data"]
        open(os.path.join(shots, name + ".png"), "wb").write(base64.b64decode(png))


def key(k, shift=False):
    press = [{"type": "keyDown", "value": k}, {"type": "keyUp", "value": k}]
    if shift:
        press = [{"type": "keyDown", "value": "\ue008"}] + press + [{"type": "keyUp", "value": "\ue008"}]
    call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": press}]})


def number(v):
    return float(v) if v not in (None, "") else None


session = port = None
for attempt in range(5):        # it takes a free IPv4 port, and ends if another program has that port of IPv6
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "successfully on port " in line:
            port = line.rsplit("on port ", 1)[1].strip().rstrip(".")
            break
    if port:
        break
    process.wait()
try:
    at = f"http://127.0.0.1:{port}"
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--user-data-dir=" + os.path.abspath("chromium")]
    session = call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"}}}})["sessionId"]
    at += "/session/" + session
    size(1280, 1000)
    call("POST", "/url", {"url": url})
    until("the page shows the fleet", lambda: page()["teachers"] and page()["results"])
    took = js("return performance.getEntriesByName('shown').map((e) => e.startTime)[0];")
    p = page()
    assert p["wide"] <= p["window"], f"1280: {p['wide']} px wide"

    if mode == "bare":
        assert "apt-get install libjs-chart.js" in p["problem"], p["problem"]
        assert p["charts"] == {} and len(p["teachers"]) == 2, p
        no_error(expected="chart.js")
        print("without Chart.js: " + p["problem"])
        sys.exit()

    assert p["problem"] == "", p["problem"]
    assert set(p["charts"]) == {"loss", "lr", "rate", "ahead", "lead", "scores"}, p["charts"]
    if mode == "rest":
        fleet = status()
        assert len(p["teachers"]) == 2 and len(p["daemons"]) == 1, p
        for row in p["teachers"] + p["daemons"]:
            d = fleet[row["name"][0]]
            assert row["host"][1] == d["host"] and row["state"][1] == d["state"], (row, d["state"])
            want = {"sequences": d["counters"].get("sequences_total"), "leases": d["queues"].get("leases_in_hand"), "rows ahead": d["queues"].get("rows_ahead"),
                    "step": d["step"], "of": d["steps_total"]}
            for column in want.keys() & row.keys():
                assert number(row[column][0]) == want[column] and row[column][1] == str(want[column]), (row["name"], column, row[column], want[column])
        assert sum(number(r["sequences"][0]) for r in p["teachers"]) > 0 and number(p["daemons"][0]["step"][0]) == 48, p
        tiles = {"teachers": 2, "ahead": fleet["selectord"]["queues"]["rows_ahead"], "step": None, "loss": None}
        assert tiles["ahead"] > 0
        for t, v in tiles.items():
            assert number(p["tiles"][t]) == v, (t, p["tiles"][t], v)
        assert p["now"].startswith("3 of 3 daemons answer."), p["now"]
        assert "48 of 48 rows ready" in p["phase"], p["phase"]
        # The histogram is the plan's: a block of 32 for each 16 rows kept.
        plan = fleet["selectord"]["plans"][0]["scores"]
        assert p["scores"] == {"sequences": plan["sequences"], "kept": plan["kept"]}, (p["scores"], plan)
        assert sum(plan["kept"]) == 48 and sum(plan["sequences"]) == 96, plan
        # Loss curves of the runs there are: a training and a held-out one for each.
        runs = {r["name"]: r for r in json.load(urllib.request.urlopen(url + "api/runs", timeout=10))["runs"]}
        sets = {s[0]: s[1:] for s in p["charts"]["loss"]["sets"]}
        assert sets.keys() == {n for r in runs for n in (r, r + ", held-out")}, (sets, runs.keys())
        for name, r in runs.items():
            assert sets[name] == [len(r["points"]["step"]), r["points"]["step"][-1]], (name, sets[name])
        # What is shown of a run is what the run wrote.
        row = next(r for r in p["results"] if r["run"][0] == "slm")
        last = [l for l in map(json.loads, open("slm/metrics.jsonl")) if l["kind"] == "step"][-1]
        assert number(row["step"][0]) == last["step"] and abs(number(row["last training loss"][0]) - last["hard"]) < 1e-5, (row, last["hard"])
        assert number(next(r for r in p["ledger"] if r["run"][0] == "slm")["tokens"][0]) == last["tokens"], p["ledger"]
    else:
        # It goes on by itself, all of it: tiles, curves, tables.
        first = until("a trainer", lambda: (lambda q: q if q["tiles"].get("step") else None)(page()))
        a, b = number(first["tiles"]["step"]), status()["trainerd-0"]
        steps = lambda q: {s[0]: s[2] for s in q["charts"]["loss"]["sets"]}.get("run", 0)
        then = until("the page goes on", lambda: (lambda q: q if number(q["tiles"]["step"]) > max(a, b["step"]) and steps(q) > steps(first) and
            q["now"] != first["now"] and q["charts"]["lead"]["sets"][0][1] > first["charts"]["lead"]["sets"][0][1] else None)(page()))
        assert number(then["tiles"]["step"]) <= status()["trainerd-0"]["step"]
        assert then["tiles"]["phase"] == "one" and "Phase one" in then["phase"], then["phase"]
        assert number(then["tiles"]["lr"]) > 0 and number(then["tiles"]["tokens"]) > 0 and number(then["tiles"]["label-tokens"]) > 0, then["tiles"]
        # The old run has its switch; the upright line stands there.
        until("the line of the switch", lambda: page()["charts"]["loss"]["switches"] == [40])
        # By the keyboard alone: the first stop skips to the figures; then the runs, which Space and Enter switch off and on.
        js("document.activeElement.blur(); window.scrollTo(0, 0);")
        key("\ue004")
        assert js("return document.activeElement.className;") == "skip"
        seen = []
        for _ in range(7):  # three runs, four tables
            key("\ue004")
            e = js("const e = document.activeElement; return [e.tagName, e.dataset.dir || e.getAttribute('aria-labelledby') || '', "
                   "getComputedStyle(e).outlineStyle, e.textContent];")
            seen.append(e)
            assert e[2] == "solid", f"no mark on what has the focus: {e}"
        assert [e[0] for e in seen[:3]] == ["BUTTON"] * 3, seen
        assert [e[1] for e in seen[3:]] == ["h-teachers", "h-daemons", "h-results", "h-ledger"], seen
        js("document.querySelector('#legend button').focus();")
        name = js("return document.activeElement.textContent;")
        for k in (" ", "\ue007"):
            on = js("return document.activeElement.getAttribute('aria-pressed');")
            key(k)
            assert js("return document.activeElement.getAttribute('aria-pressed');") != on
            shown = [s[0] for s in page()["charts"]["loss"]["sets"]]
            assert (name in shown) == (on == "false"), (name, shown)

    shot(mode + "-1280")
    size(390, 844)
    until("charts as wide as the phone", lambda: page()["charts"]["loss"]["width"] < 390)
    p = page()
    assert p["wide"] <= 390, f"390: {p['wide']} px wide"
    shot(mode + "-390")
    no_error()
    print(f"{mode}: all shown {took:.0f} ms after the address was entered")
finally:
    if session:
        call("DELETE", "")
    process.terminate()
    process.wait()
