# SPDX-License-Identifier: Apache-2.0
"""saltctl eval --choices, --pairs and --last-word beside lm-evaluation-harness, on a checkpoint that trainerd wrote.

    tests/peers/run.sh tests/peers/lm_eval_choices.py --bin build/dev/bin

The harness reads the same files with the task files of share/lm-eval, offline, and computes with transformers. Every log-probability must lie
within 1e-3 of ours, every "greedy" and every accuracy must be equal. A file that has contexts longer than the model's is among them.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

CONTEXT, STEPS = 48, 8


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240).stdout


def words():
    text = pathlib.Path("/usr/share/common-licenses/GPL-3").read_text(encoding="utf-8").split()
    return [text[i:i + 40] for i in range(0, len(text) - 40, 40)]


def write(path, items):
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def make_files(folder):
    """Choices between right and wrong continuations, some with a space at the border, without context, or too long; pairs; last words."""
    rng, pieces = random.Random(3), words()
    choices, pairs, texts = [], [], []
    for i, piece in enumerate(pieces[:60]):
        n = rng.choice([0, 3, 9, 35])
        space = i % 3 == 0 and n > 0
        others = [rng.choice(pieces)[:rng.choice([1, 2, 4])] for _ in range(3)]
        options = [piece[n:n + 2]] + others
        order = rng.sample(range(4), 4)
        choices.append({"context": " ".join(piece[:n]) + (" " if space else ""), "gold": order.index(0),
                        "choices": [("" if space or n == 0 else " ") + " ".join(options[k]) + ("\u00e9\u00e9\u00e9" if k == 2 else "") for k in order]})
        swapped = piece[:8]
        rng.shuffle(swapped)
        pairs.append({"sentence_good": " ".join(piece[:8]), "sentence_bad": " ".join(swapped), "UID": "x"})
        texts.append({"text": " ".join(piece[:10])})
    pairs = [p for p in pairs if p["sentence_good"] != p["sentence_bad"]]
    write(folder / "choices.jsonl", choices)
    write(folder / "pairs.jsonl", pairs)
    write(folder / "last_word.jsonl", texts)


def checkpoint(args, folder):
    tokenizer = args.source / "share/tokenizer-4k"
    run(args.bin / "saltctl", "corpus", "build", "--tokenizer", tokenizer, "--out", folder / "train", "/usr/share/common-licenses/GPL-3")
    run(args.bin / "saltctl", "model", "new", "--layers", "2", "--width", "48", "--heads", "3", "--context", CONTEXT, "--tokenizer", tokenizer,
        folder / "model")
    (folder / "fleet.yaml").write_text(f"""
run: {{dir: run, seed: 5}}
corpus: {{train: train, context: {CONTEXT}}}
trainer: {{model: model, steps: {STEPS}, batch: 8, dtype: fp32, lr: 1e-2, threads: 1}}
""")
    run(args.bin / "trainerd", "-c", folder / "fleet.yaml")
    return folder / f"run/checkpoints/step_{STEPS:08d}"


def ours(args, folder, model, kind):
    (folder / "items").unlink(missing_ok=True)
    result = json.loads(run(args.bin / "saltctl", "eval", "--model", model, f"--{kind.replace('_', '-')}", folder / f"{kind}.jsonl", "--items",
                            folder / "items", "--json", "--set", "compute.dtype=fp32", "-c", folder / "fleet.yaml"))
    return result, [json.loads(line) for line in open(folder / "items")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    args.bin, args.source = args.bin.resolve(), args.source.resolve()
    if importlib.util.find_spec("lm_eval") is None:
        print("skipped: this python has no lm_eval (lm-evaluation-harness): run tests/peers/setup.sh", file=sys.stderr)
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        os.environ.update(HF_HOME=name + "/hf", HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        make_files(folder)
        model = checkpoint(args, folder)
        shutil.copytree(args.source / "share/lm-eval", folder / "tasks")
        os.chdir(folder)		# the task files name choices.jsonl and so on
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        begin = json.load(open(model / "config.json"))["eos_token_id"]
        tasks = {"choices": "salt_choices", "pairs": "salt_pairs", "last_word": "salt_last_word"}
        theirs = simple_evaluate(model="hf", model_args={"pretrained": str(model), "dtype": "float32", "prefix_token_id": begin, "max_length": CONTEXT},
                                 tasks=list(tasks.values()), task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
                                 batch_size=4, device="cpu", log_samples=True, bootstrap_iters=0)
        good = True
        for kind, task in tasks.items():
            result, items = ours(args, folder, model, kind)
            samples = sorted(theirs["samples"][task], key=lambda s: s["doc_id"])
            assert len(samples) == len(items) > 50, (len(samples), len(items))
            worst, greedy, cut = 0.0, 0, result["cut"]
            for sample, item in zip(samples, items):
                answers = [r[0] if isinstance(r[0], (list, tuple)) else r for r in sample["resps"]]
                worst = max([worst] + [abs(a[0] - b) for a, b in zip(answers, item["log_probability"])])
                greedy += sum(bool(a[1]) != b for a, b in zip(answers, item["greedy"]))
            pick = {k.split(",")[0]: v for k, v in theirs["results"][task].items()}
            same = [("acc", "accuracy")] + ([("acc_bytes", "accuracy_by_byte")] if kind == "choices" else [])
            equal = all(abs(pick[a] - result[b]) < 1e-12 for a, b in same)
            fine = worst < 1e-3 and greedy == 0 and equal and (cut > 0) == (kind == "choices")
            print(f"{kind}: {len(items)} items ({cut} cut), log-probabilities within {worst:.1e}, {greedy} greedy differ, accuracy {result['accuracy']:.4f} "
                  f"(theirs {pick['acc']:.4f}): {'good' if fine else 'BAD'}")
            good = good and fine
        sys.exit(not good)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as e:
        sys.exit(f"{e.cmd}: {e.stderr}")
