# SPDX-License-Identifier: Apache-2.0
"""A fleet so small that every start is quick, for the rows of this folder: corpus, models, a trained teacher, processes, what they left."""
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SOURCE = os.path.abspath(os.environ.get("SOURCE", os.path.join(os.path.dirname(__file__), "..", "..")))
BIN = os.environ.get("BIN", os.path.join(SOURCE, "build/dev/bin"))
TOKENIZER = SOURCE + "/share/tokenizer-4k"
LICENCES = ("Apache-2.0 Artistic BSD CC0-1.0 GFDL-1.2 GFDL-1.3 GPL-1 GPL-2 GPL-3 LGPL-2 LGPL-2.1 LGPL-3 MPL-1.1 MPL-2.0").split()


def scratch():
    """The row's folder; without run.sh a new one that is removed at the end (KEEP=1: it stays)."""
    if "SCRATCH" in os.environ:
        return os.environ["SCRATCH"]
    new = tempfile.mkdtemp(prefix="salt_torture.", dir=os.environ.get("TMPDIR", "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"))
    if "KEEP" not in os.environ:
        atexit.register(shutil.rmtree, new, ignore_errors=True)
    return new


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def result(what, goal, got, good):
    """The row's line; ends the program."""
    print(f"{what}\t{goal}\t{got}", flush=True)
    sys.exit(0 if good else 1)


def run(*argv, timeout=60, check=True, **more):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, errors="replace", timeout=timeout, **more)
    if check and p.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))}: exit {p.returncode}: {p.stderr.strip()[-600:]}")
    return p


def tool(name):
    return f"{BIN}/{name}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def models(work):
    """WORK/train, held, student (no weights), teacher and scorer: trained just enough that scores differ."""
    run(tool("saltctl"), "corpus", "build", "--split-on", "blank-lines", "--tokenizer", TOKENIZER, "--out", work + "/train", "--heldout-out",
        work + "/held", *["/usr/share/common-licenses/" + x for x in LICENCES])
    run(tool("saltctl"), "model", "new", "--layers", 1, "--width", 32, "--heads", 2, "--ff", 64, "--context", 32, "--tokenizer", TOKENIZER,
        work + "/student")
    write_config(work, work + "/slm.yaml", 1)
    run(tool("trainerd"), "-c", work + "/slm.yaml", "--set", f"run.dir={work}/slm", "--set", "run.seed=11", "--set", "selector.mode=none",
        "--set", "phase_one.steps=0", "--set", "trainer.steps=80", "--set", "trainer.batch=16", "--set", "trainer.lr=1e-2", "--set",
        "trainer.keep_steps=[40]", "--set", "trainer.checkpoint_every=0", "--set", "trainer.eval_every=0", timeout=240)
    for name, step in (("teacher", 80), ("scorer", 40)):
        shutil.copytree(f"{work}/slm/checkpoints/step_{step:08}", f"{work}/{name}")
    shutil.rmtree(work + "/slm")


def write_config(work, path, port, steps=12, phase_one=6, checkpoint_every=3, extra="", lease_s=1, ahead=4):
    with open(path, "w") as f:
        f.write(f"""run: {{dir: run, seed: 3}}
corpus: {{train: {work}/train, heldout: {work}/held, context: 32}}
cache: {{dir: cache, map_size: 64MiB}}
teacher: {{model: {work}/teacher, scorer: {work}/scorer, threads: 1}}
labels: {{kind: sampled, samples: 8, seed: 7}}
selector: {{mode: salt_ds, block: 32, keep_share: 0.5, k: 200, endpoints: ["tcp://127.0.0.1:{port}"], lease_sequences: 8,
    label_ahead_steps: {ahead}, commit_ms: 5, lease_s: {lease_s}}}
trainer: {{model: {work}/student, steps: {steps}, batch: 8, lanes: 4, lr: 3e-3, warmup: 2, eval_every: 6, eval_sequences: 8,
    checkpoint_every: {checkpoint_every}, threads: 1}}
phase_one: {{steps: {phase_one}, weight: 0.667}}
compute: {{dtype: fp32}}
{extra}""")


def start(log, *argv, env=None, cwd=None):
    with open(log, "ab") as f:
        return subprocess.Popen([str(a) for a in argv], stdout=f, stderr=subprocess.STDOUT, cwd=cwd, env={**os.environ, **(env or {})})


def stop(*processes, sig=signal.SIGTERM, timeout=20):
    for p in processes:
        if p is not None and p.poll() is None:
            p.send_signal(sig)
    for p in processes:
        try:
            if p is not None:
                p.wait(timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


def text_of(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def wait_line(path, pattern, seconds=20, alive=None):
    """True once a line of the file matches; False if the process ends, or the time."""
    end = time.time() + seconds
    while time.time() < end:
        if re.search(pattern, text_of(path)):
            return True
        if alive is not None and alive.poll() is not None:
            return False
        time.sleep(0.01)
    return False


def losses(run_dir):
    """metrics.jsonl without times; an event may come again after a restart and is left out."""
    lines = []
    for line in text_of(run_dir + "/metrics.jsonl").splitlines():
        m = json.loads(line)
        if m.get("kind") != "event":
            lines.append((m["kind"], m["step"], m.get("loss"), m.get("kd_tokens"), m.get("quarantined_rows")))
    return lines


def dump(cache):
    """Every label and score record with a hash of its bytes, as lines."""
    return run(tool("cache_dump"), cache, 4000).stdout.splitlines()


def damage(cache):
    """Changes a byte of the LMDB file that makes cache fsck find one damaged record."""
    path = cache + "/data.mdb"
    with open(path, "r+b") as f:
        size = os.path.getsize(path)
        for at in range(size // 2, size, 997):
            f.seek(at)
            old = f.read(1)
            f.seek(at)
            f.write(bytes([old[0] ^ 1]))
            f.flush()
            if "to have 1 records made again" in run(tool("saltctl"), "cache", "fsck", "--cache", cache, check=False).stdout:
                return
            f.seek(at)
            f.write(old)
            f.flush()
    sys.exit(f"no byte of {path} damages a record alone")


def checkpoint_files(run_dir):
    """The sizes and hashes of the last checkpoint, without those of state.json, which has times in it."""
    root = run_dir + "/checkpoints"
    last = sorted(x for x in os.listdir(root) if re.fullmatch(r"step_\d{8}", x))[-1]
    with open(f"{root}/{last}/MANIFEST.json") as f:
        files = json.load(f)["files"]
    files.pop("state.json")
    return last, files
