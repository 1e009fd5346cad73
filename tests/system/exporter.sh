# SPDX-License-Identifier: Apache-2.0
# saltctl exporter with a real fleet: its figures are those of the status sockets, at rest and in training; a hanging daemon does not delay the
# others; it serves loss curves of all runs, and proper errors for wrong requests.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/small.sh"
. "$(dirname "$0")/exporter_fleet.sh"
cd "$scratch"
check() { timeout 60 python3 "$SOURCE/tests/system/exporter_check.py" "$BIN/saltctl" fleet.yaml "$url" "$1" || fail "the exporter's figures: $2"; }
exporter_files

# Before any daemon runs: none answers, and the metrics show this.
exporter_start
curl -fs "${url}metrics" > metrics || fail "metrics of no fleet"
grep -qx 'salt_exporter_daemons 0' metrics && grep -qx 'salt_exporter_daemons_answering 0' metrics || fail "of no fleet: $(cat metrics)"

exporter_fleet
check 40 "at rest"
# One teacher hangs: it is reported as down; the figures of the others are as recent as before.
value() { sed -n "s/^$1{.*daemon=\"$2\".*} //p" metrics; }
kill -STOP "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' run/daemons/teacherd-1.json)"
tenths=100
until curl -fs -m 5 "${url}metrics" > metrics && [ "$(value salt_up teacherd-1)" = 0 ]; do
	[ $((tenths--)) -gt 0 ] || fail "a stopped teacher is up: $(grep salt_up metrics)"
	sleep 0.1
done
[ "$(value salt_up teacherd-0)$(value salt_up selectord)" = 11 ] || fail "the others: $(grep salt_up metrics)"
grep -qx 'salt_exporter_daemons_answering 2' metrics && grep -qx 'salt_exporter_daemons 3' metrics || fail "$(grep '^salt_exporter' metrics)"
[ -z "$(value salt_teacher_tokens_total teacherd-1)" ] || fail "old figures of a daemon that does not answer"
old=$(value salt_uptime_seconds teacherd-0) old_selectord=$(value salt_uptime_seconds selectord)
tenths=100
until curl -fs -m 5 "${url}metrics" > metrics && [ "$(value salt_uptime_seconds teacherd-0)" != "$old" ] &&
	[ "$(value salt_uptime_seconds selectord)" != "$old_selectord" ]; do
	[ $((tenths--)) -gt 0 ] || fail "one hangs, and the figures of the others stand still"
	sleep 0.1
done
curl -fs "${url}api/status" | python3 -c '
import json, sys
d = {d["name"]: d for d in json.load(sys.stdin)["daemons"]}
assert not d["teacherd-1"]["answered"] and d["teacherd-1"]["why"] == "no answer in time", d["teacherd-1"]
assert d["teacherd-0"]["answered"] and "teacherd-1" in [p["name"] for p in d["selectord"]["roster"]]' || fail "status of a hung daemon"
kill -CONT "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' run/daemons/teacherd-1.json)"

# A teacher that only selectord's roster lists, as on another host: it stays in the figures while selectord hangs, and is removed after it has left.
until_up() {			# NAME WHAT ("" for not in the figures)
	local tenths=100
	until curl -fs -m 5 "${url}metrics" > metrics && [ "$(value salt_up "$1")" = "$2" ]; do
		[ $((tenths--)) -gt 0 ] || fail "salt_up of $1 is not '$2': $(grep salt_up metrics)"
		sleep 0.1
	done
}
start elsewhere timeout 200 "$BIN/teacherd" -c fleet.yaml --name elsewhere --set run.dir=other/run
until_up elsewhere 1
kill -STOP "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' run/daemons/selectord.json)"
until_up selectord 0
polls=$(sed -n 's/^salt_exporter_polls_total //p' metrics)
tenths=100
until curl -fs -m 5 "${url}metrics" > metrics && [ "$(sed -n 's/^salt_exporter_polls_total //p' metrics)" -gt $((polls + 2)) ]; do
	[ $((tenths--)) -gt 0 ] || fail "the exporter stands still: $(grep ^salt_exporter metrics)"
	sleep 0.1
done
[ "$(value salt_up selectord)$(value salt_up elsewhere)" = 01 ] || fail "a teacher is gone with selectord: $(grep salt_up metrics)"
kill -CONT "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' run/daemons/selectord.json)"
until_up selectord 1
stop TERM "$elsewhere"
until_up elsewhere ""

exporter_train
wait "$teacher0" "$teacher1"		# released at the switch
check 25 "in training"

# Loss curves: of a run in progress, of a finished one, of a long one with known curves, and of a folder that is not a run.
mkdir long broken
cp run/fleet.yaml long/
sed -i 's/^  steps: .*/  steps: 1000/' long/fleet.yaml
python3 "$SOURCE/tests/system/exporter_runs.py" write long
echo "not JSON" > broken/metrics.jsonl
tenths=100
until curl -fs "${url}api/runs" | grep -q '"name":"broken"'; do
	[ $((tenths--)) -gt 0 ] || fail "new runs are not found"
	sleep 0.1
done
python3 "$SOURCE/tests/system/exporter_runs.py" check "$url" long || fail "the curves of a run"
curl -fs "${url}api/runs" > runs.json
python3 - run/metrics.jsonl runs.json slm/metrics.jsonl <<'END' || fail "the runs: $(cut -c1-2000 runs.json)"
import json, sys
answer = json.load(open(sys.argv[2]))
runs = {r["name"]: r for r in answer["runs"]}
assert runs.keys() == {"run", "slm", "long", "broken"}, runs.keys()
assert answer["run_dir"] == runs["run"]["dir"], answer["run_dir"]
steps = [l for l in map(json.loads, open(sys.argv[3])) if l["kind"] == "step"]
slm = runs["slm"]
assert slm["mode"] == "baseline" and slm["finished"] and slm["steps_per_point"] == 1, slm
assert slm["points"]["step"] == [l["step"] for l in steps]
assert all(abs(a - l["hard"]) < 1e-6 * l["hard"] for a, l in zip(slm["points"]["hard"], steps))
assert 20 <= runs["run"]["step"] <= [l for l in map(json.loads, open(sys.argv[1]).read().rsplit("\n", 1)[0].split("\n")) if l["kind"] == "step"][-1]["step"]
assert runs["run"]["switch_step"] == 6 and not runs["run"]["finished"], runs["run"]
END
tenths=100
until [ "$(curl -fs "${url}metrics" | sed -n 's/^salt_exporter_runs //p')" = 4 ]; do
	[ $((tenths--)) -gt 0 ] || fail "not 4 runs"
	sleep 0.1
done
# The run continues, and its curves grow.
was=$(grep -o '"name":"run",[^{]*"step":[0-9]*' runs.json)
tenths=100
until [ "$(curl -fs "${url}api/runs" | grep -o '"name":"run",[^{]*"step":[0-9]*')" != "$was" ]; do
	[ $((tenths--)) -gt 0 ] || fail "the curves stand still"
	sleep 0.1
done

# Invalid requests. A HEAD request gets the answer without its body.
code() { curl -s -m 10 -o body -w '%{http_code}' "$@"; }
for path in nothing metrics/ api api/status.json ../../etc/passwd %2e%2e/%2e%2e/etc/passwd dashboard.html; do
	[ "$(code --path-as-is "$url$path")" = 404 ] || fail "/$path is not 404: $(cat body)"
done
for method in POST PUT DELETE OPTIONS PATCH; do
	[ "$(code -X $method -d x "${url}metrics")" = 405 ] || fail "$method is not 405"
done
curl -s -X POST -D - -o /dev/null "$url" | tr -d '\r' | grep -qix 'allow: GET, HEAD' || fail "405 does not say what is allowed"
curl -s --head "${url}api/runs" > head || fail "HEAD"
grep -q '^HTTP/1.1 200' head && grep -qi '^content-length: [1-9]' head || fail "HEAD: $(cat head)"
[ "$(code "${url}metrics?x=$(printf 'a%.0s' $(seq 1 20000))")" -ge 400 ] || fail "a request of 20 kB"
for file in '' dashboard.js dashboard.css; do
	[ "$(code "$url$file")" = 200 ] || fail "/$file"
	cmp -s body "$SOURCE/saltctl/watch/page/${file:-dashboard.html}" || fail "/$file is not saltctl/watch/page/${file:-dashboard.html}"
done
! grep -nE "(src|href)=\"(https?:)?//|@import|url\(" "$SOURCE"/saltctl/watch/page/* || fail "the page loads something from elsewhere"

# A hundred connections that send nothing, and a hundred that send a header byte by byte: others are answered meanwhile.
python3 - "$url" <<'END' || fail "idle connections"
import socket, sys, time, urllib.parse, urllib.request
at = urllib.parse.urlsplit(sys.argv[1])
idle = []
for i in range(100):
    s = socket.create_connection((at.hostname, at.port), 5)
    s.settimeout(5)
    idle.append(s)
assert urllib.request.urlopen(sys.argv[1] + "metrics", timeout=10).status == 200, "silent connections keep others out"
for i in range(100):
    s = socket.create_connection((at.hostname, at.port), 5)
    try:
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ")
    except OSError:
        pass
    idle.append(s)
for i in range(3):
    for s in idle:
        try:
            s.sendall(b"a")
        except OSError:
            pass
    assert urllib.request.urlopen(sys.argv[1] + "metrics", timeout=10).status == 200, "slow connections keep others out"
for s in idle:
    s.close()
END
fds=$(ls "/proc/$(pgrep -P "$exporter")/fd" | wc -l)
[ "$fds" -lt 60 ] || fail "$fds open files after all have gone"

# The address on which it listens: loopback by default, with a warning if other hosts can reach it; a port in use and an invalid address give an
# error.
port=${url##*:} port=${port%/}
ss -Hltn "sport = :$port" > listening
[ "$(wc -l < listening)" = 1 ] && grep -q "127.0.0.1:$port" listening || fail "it listens on: $(cat listening)"
! grep -q exporter.public exporter.log || fail "loopback is called public: $(cat exporter.log)"
for at in 0.0.0.0:0 '[::]:0'; do
	timeout -s INT 2 "$BIN/saltctl" exporter -c fleet.yaml --listen "$at" > public.log 2>&1 || true
	[ "$at" = '[::]:0' ] && ! grep -q http public.log || grep -q 'event=exporter.public url=http' public.log || fail "--listen $at without a warning: $(cat public.log)"
done
rc=0
timeout 20 "$BIN/saltctl" exporter -c fleet.yaml --listen "127.0.0.1:$port" > taken.log 2>&1 || rc=$?
[ $rc = 69 ] && grep -q "127.0.0.1:$port" taken.log || fail "a taken port: exit code $rc, $(cat taken.log)"

# A signal ends it at once, with 0.
rc=0
kill -TERM "$(pgrep -P "$exporter")"
wait "$exporter" || rc=$?
[ $rc = 0 ] || fail "stopped, the exporter ended with $rc: $(cat exporter.log)"

# Skipped updates are counted in the metric that the alert uses: with gains this large no loss is finite.
small_model "$scratch/wild-model" 1
python3 - wild-model/model.safetensors <<'END'
import json, struct, sys
with open(sys.argv[1], "r+b") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    tensors = json.loads(f.read(n))
    for name, t in tensors.items():
        if "norm" in name and "weight" in name:
            begin, end = t["data_offsets"]
            f.seek(8 + n + begin)
            f.write(struct.pack("<f", 1e38) * ((end - begin) // 4))
END
start wild timeout 100 "$BIN/trainerd" -c fleet.yaml --set run.dir=wild --set phase_one.steps=0 --set selector.mode=none \
	--set trainer.init="$scratch/wild-model" --set trainer.batch=1024 --set trainer.eval_every=0
skipped=0
while [ "$skipped" = 0 ]; do
	kill -0 "$wild" 2> /dev/null || fail "ten updates were left out and none was counted: $(tail -3 wild.log)"
	"$BIN/saltctl" status -c fleet.yaml --set run.dir=wild --json > wild.json 2> /dev/null || true	# it may not exist yet
	skipped=$(sed -n 's/.*"updates_skipped_total": \([0-9]*\).*/\1/p' wild.json)
	skipped=${skipped:-0}
done
stop TERM "$wild"
