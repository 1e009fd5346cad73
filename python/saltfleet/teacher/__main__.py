# SPDX-License-Identifier: Apache-2.0
"""python -m saltfleet.teacher: a transformers model, or that of a vLLM server, as a teacher of the fleet.
docs/teacher.md describes it."""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import traceback
from typing import NoReturn, Sequence

from .. import Model, SaltConfigError, SaltError, SaltMismatch, SaltNotFound, Teacher, model_identity
from . import log
from .loop import Loop

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def _number_or_auto(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected auto or a number from 1 on, found {text}")
    return int(text)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    p = _Parser(prog="python -m saltfleet.teacher", description="Scores and labels sequences for selectord: a teacher in transformers or vLLM.",
                epilog="Exit codes are those of sysexits.h; 0 after SIGTERM and when selectord has no more work.")
    p.add_argument("--model", required=True, metavar="DIR", help="directory of the model (config.json, safetensors, tokenizer.json)")
    p.add_argument("--scorer", metavar="DIR", help="second model, teacher.scorer of the configuration")
    p.add_argument("-c", "--config", required=True, metavar="FILE", help="fleet.yaml")
    p.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as in fleet.yaml; may be given several times")
    p.add_argument("--serve", choices=("both", "score", "label"), default="both", help="what --model is offered for (default: both)")
    p.add_argument("--corpus-tokenizer", metavar="FILE", help="tokenizer.json of the corpus, if the model's has more ids")
    p.add_argument("--name", help="name in status and logs (default: teacher-HOST-PID)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    p.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                   help="default: of teacher.compute_class, else bfloat16 on a GPU and float32 on the CPU")
    p.add_argument("--batch", type=_number_or_auto, default=None, metavar="N", help="sequences at a time (default: auto, from memory)")
    p.add_argument("--compile", action="store_true", help="torch.compile; the first batch takes minutes")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="threads of torch on the CPU (default: torch's)")
    p.add_argument("--trust-remote-code", action="store_true", help="run Python code that lies in the model's directory")
    p.add_argument("--vllm", metavar="URL", help="a vLLM server that serves this model, such as http://127.0.0.1:8000; torch is not needed")
    p.add_argument("--vllm-model", metavar="NAME", help="the model's name there (default: the first that the server lists)")
    p.add_argument("--vllm-timeout", type=float, default=120.0, metavar="S", help="seconds that one request may take (default: 120)")
    p.add_argument("--verbose", action="store_true", help="debug lines of the library too")
    args = p.parse_args(argv)
    if args.threads < 0:
        p.error(f"--threads: expected a number from 0 on, found {args.threads}")
    if not 0 < args.vllm_timeout <= 86400:      # 0 would not wait at all, and sockets refuse others
        p.error(f"--vllm-timeout: expected seconds above 0, at most 86400, found {args.vllm_timeout:g}")
    return args


def _same(a: str, b: str) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


_CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")


def _shape(directory: str, trust_remote_code: bool) -> tuple[int, int]:
    """Vocabulary and longest context, from config.json. transformers adds defaults that the file may omit,
    but is not needed for vLLM."""
    path = pathlib.Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("text_config", config)
    except FileNotFoundError:
        raise SaltNotFound(f"{path}: expected the config.json of a model, found no such file") from None
    except (OSError, ValueError, AttributeError) as e:
        raise SaltConfigError(f"{path}: expected a JSON object, found: {e}") from None
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=trust_remote_code).get_text_config().to_dict()
    except ImportError:
        pass
    except (ValueError, KeyError, OSError) as e:
        raise SaltConfigError(f"{path}: expected a model that transformers knows, found model_type {config.get('model_type')}: "
                              f"{str(e).splitlines()[0]}") from None
    vocab = config.get("vocab_size")
    if not isinstance(vocab, int) or vocab < 1:
        raise SaltConfigError(f"{path}: vocab_size: expected a number from 1 on, found {vocab}")
    return vocab, next((config[key] for key in _CONTEXTS if isinstance(config.get(key), int)), 2**31 - 1)


def _serve(args: argparse.Namespace) -> None:
    scorer = args.scorer if args.scorer and not _same(args.scorer, args.model) else None
    if args.vllm and scorer:
        raise SaltConfigError(f"--scorer: a vLLM server serves one model, found --model {args.model} and --scorer {scorer}: start a teacher for "
                              "each, with --serve and the URL of its server")
    models = []
    for directory in [args.model] + ([scorer] if scorer else []):
        vocab, context = _shape(directory, args.trust_remote_code)
        models.append(Model(directory, vocab, context, score=bool(models) or args.serve != "label", label=not models and args.serve != "score",
                            corpus_tokenizer=args.corpus_tokenizer))
    with Teacher(args.config, models, overrides=args.set, name=args.name) as teacher:
        plan = teacher.plan
        for m in models:
            if plan.context > m.max_context:
                raise SaltMismatch(f"{m.dir}: expected a model for at least corpus.context = {plan.context} tokens, found "
                                   f"{m.max_context} positions in its config.json: take another teacher, or a smaller corpus.context")
            log.info("model", dir=m.dir, identity=model_identity(m.dir), score=int(m.score), label=int(m.label))
        if args.vllm:
            from .vllm import backend
        else:
            from .model import backend
        loop = Loop(teacher, backend(args, models, plan))
        for number in SIGNALS:
            signal.signal(number, loop.stop)
        loop.run()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    log.library(args.verbose)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        _serve(args)
    except SaltError as e:
        log.error("exit", code=e.exit_code, why=e)
        return e.exit_code
    except KeyboardInterrupt:       # before the loop began
        return 0
    except ImportError as e:
        log.error("exit", code=69, why=f"{e}: the teacher needs torch and transformers: pip install 'saltfleet[transformers]'")
        return 69
    except Exception as e:          # a bug in the model's code or in this package: the leases go back
        traceback.print_exc()
        log.error("exit", code=70, why=f"{type(e).__name__}: {e}")
        return 70
    return 0


if __name__ == "__main__":
    code = main()
    # The interpreter takes a second to end; a late signal must not change the exit code.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
