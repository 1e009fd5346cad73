# SPDX-License-Identifier: Apache-2.0
"""Teachers in a vLLM server: top-k labels and scores from prompt_logprobs of its OpenAI-compatible
completions. No torch.

A prompt is the L + 1 token ids of a sequence, or with corpus.isolate_documents those of a document in it and
the token after it. Entry t + 1 of the answer's prompt_logprobs is the distribution after tokens 0..t: its
most probable ids, and the token that follows with its logarithm and its rank, counted from 1.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import math
import os
import re
import socket
import threading
import time
import urllib.parse
from typing import Any, Callable, Sequence

import numpy as np

from ..client import Lease, Model, Plan
from ..errors import SaltConfigError, SaltMismatch, SaltRefused
from . import log
from .loop import Item, fail, submit

BATCH = 16              # sequences requested at a time; the server makes its own batches
SPARE = 8               # ids requested beyond k if the model has ids beyond the corpus's
RETRY_S = 30.0          # a request is retried so long; then its lease goes back, and the server is polled
HEALTH_S = 2.0
CONNECT_S = 5.0         # this process may take so long to end: connecting cannot be interrupted
RENEW_S = 5.0
ANSWER_MAX = 1 << 30    # bytes
MINUS_INFINITY = -9999  # JSON has no infinity: the server writes this


class Gone(Exception):
    """The server does not answer."""


class Refused(Exception):
    """The server answers that a request is wrong (4xx), or fails on it again and again (5xx)."""

    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {text}")
        self.status = status


class Server:
    """HTTP requests. Any thread; each thread has its own connection."""

    def __init__(self, url: str, timeout_s: float):
        try:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("no http:// or https:// with a host")
            parts.port, parts.hostname.encode("idna")       # ValueError: not below 65536; no name of a host
        except ValueError as e:
            raise SaltConfigError(f"--vllm: expected http://HOST:PORT or https://HOST:PORT, found {url}: {e}") from None
        self.url, self._parts, self._timeout_s = url, parts, timeout_s
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._local = threading.local()
        self._sockets: set[socket.socket | None] = set()
        self.stop = threading.Event()
        key = os.environ.get("VLLM_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
        if not re.fullmatch(r"[!-~]*", key):
            raise SaltConfigError("VLLM_API_KEY or OPENAI_API_KEY: expected printable ASCII characters alone, found others, such as spaces or "
                                  "the end of a line")
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def once(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body; OSError or HTTPException if the server does not answer."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            connection = self._local.connection = kind(self._parts.hostname, self._parts.port, timeout=min(CONNECT_S, self._timeout_s))
        try:
            if connection.sock is None:
                connection.connect()
                connection.sock.settimeout(self._timeout_s)
            known = getattr(self._local, "socket", None)
            if connection.sock is not known:
                self._sockets.discard(known)
                self._sockets.add(connection.sock)
                self._local.socket = connection.sock
            # checked when the socket is in _sockets: interrupt() sets stop, and then shuts down the sockets
            if self.stop.is_set():
                raise OSError("this process ends")
            connection.request(method, self._path + path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_MAX)
            return answer.status, data
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise

    def interrupt(self) -> None:
        """Ends requests in progress and allows no new ones. Any thread, and signal handlers."""
        self.stop.set()
        for s in self._sockets.copy() - {None}:
            try:
                # not the method of a TLS socket, which waits for a thread that reads
                socket.socket.shutdown(s, socket.SHUT_RDWR)
            except OSError:                 # closed, or not connected any more
                pass

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Returns the JSON of an answer. Retries while the server does not answer or is busy; raises Gone
        after RETRY_S."""
        begun, wait_s, failures = time.monotonic(), 0.2, 0
        while True:
            try:
                status, data = self.once(method, path, body)
                if status == 200:
                    with contextlib.suppress(ValueError):
                        return json.loads(data)
                why = _message(data) if status != 200 else f"expected JSON, found {data[:80]!r}"
                failures += status >= 500 and status != 503
                if (400 <= status < 500 and status not in (408, 429)) or failures >= 3:
                    raise Refused(status, why)
                why = f"{status}: {why}"
            except (OSError, http.client.HTTPException) as e:
                why = str(e) or type(e).__name__
            if time.monotonic() - begun > RETRY_S or self.stop.wait(wait_s):
                raise Gone(why)
            wait_s = min(2 * wait_s, 5.0)


def _message(data: bytes) -> str:
    try:
        error = json.loads(data)
        error = error.get("error", error)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:400]
    except (ValueError, AttributeError):
        return data[:200].decode("utf-8", "replace")


def parse(tokens: np.ndarray, entries: Any, n_valid: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Converts prompt_logprobs of L + 1 tokens to loss float32 [L], rank int32 [L] from 0, ids int32 [L, k]
    and log_p float32 [L, k], best first.

    Ids >= n_valid are in no label; their probability is in its tail. Scores are of the distribution without
    them, as far as the answer lists them. ValueError says what is wrong with the answer.
    """
    length = len(tokens) - 1
    if not isinstance(entries, list) or len(entries) != length + 1:
        raise ValueError(f"prompt_logprobs: expected {length + 1} entries, found "
                         f"{len(entries) if isinstance(entries, list) else type(entries).__name__}")
    loss, rank = np.empty(length, np.float32), np.empty(length, np.int32)
    ids, log_p = np.empty((length, k), np.int32), np.empty((length, k), np.float32)
    for t in range(length):
        entry, y = entries[t + 1], str(int(tokens[t + 1]))
        if not isinstance(entry, dict) or y not in entry:
            raise ValueError(f"prompt_logprobs, position {t + 1}: expected an entry for token {y}, found "
                             f"{list(entry)[:5] if isinstance(entry, dict) else entry}")
        found = sorted(((-float(e["logprob"]), int(v)) for v, e in entry.items()))
        if not all(math.isfinite(p) for p, _ in found):
            raise ValueError(f"prompt_logprobs, position {t + 1}: expected finite numbers, found {found[0][0]}")
        at_y = -float(entry[y]["logprob"])
        others = [p for p, v in found if v >= n_valid]
        shift = math.log1p(-min(sum(math.exp(-p) for p in others), 1 - 1e-12)) if others else 0.0
        loss[t] = max(0.0, at_y + shift)
        rank[t] = int(entry[y]["rank"]) - 1 - sum(p < at_y for p in others)
        best = [(p, v) for p, v in found if v < n_valid][:k]
        if len(best) < k:
            raise ValueError(f"prompt_logprobs, position {t + 1}: expected {k} ids below {n_valid}, found {len(best)}")
        ids[t] = [v for _, v in best]
        log_p[t] = [-math.inf if -p <= MINUS_INFINITY else min(0.0, -p) for p, _ in best]
    return loss, rank, ids, log_p


class Vllm:
    """The backend of loop.Loop."""

    def __init__(self, server: Server, name: str, model: Model, batch: int):
        self._server, self._name, self._model, self.batch = server, name, model, batch
        self._pool = concurrent.futures.ThreadPoolExecutor(batch, thread_name_prefix="vllm")
        self._down, self._asked = False, 0.0

    def ready(self) -> bool:
        """False while the server does not answer; it is polled every HEALTH_S."""
        if not self._down:
            return True
        if time.monotonic() - self._asked < HEALTH_S:
            self._server.stop.wait(0.25)
            return False
        self._asked = time.monotonic()
        try:
            self._down = self._server.once("GET", "/health")[0] != 200
        except (OSError, http.client.HTTPException):
            pass
        if not self._down:
            log.info("vllm.back", url=self._server.url)
        return not self._down

    def interrupt(self) -> None:
        self._server.interrupt()

    def _ask(self, lease: Lease, i: int) -> tuple[np.ndarray, ...]:
        """Results as parse() returns them. An isolated document is a prompt of its own, with the token after
        it, so that attention and positions begin again."""
        starts = [0] if lease.document_starts is None else np.unique(lease.document_starts[i]).tolist()
        parts = [self._ask_prompt(lease, lease.tokens[i, a:b + 1]) for a, b in zip(starts, [*starts[1:], lease.context])]
        return tuple(np.concatenate(part) for part in zip(*parts))

    def _ask_prompt(self, lease: Lease, tokens: np.ndarray) -> tuple[np.ndarray, ...]:
        k = lease.k if lease.want_label else 1
        spare = min(SPARE, self._model.vocab - lease.n_valid)
        answer = self._server.ask("POST", "/v1/completions", request(self._name, tokens.tolist(), k + spare))
        try:
            return parse(tokens, answer["choices"][0]["prompt_logprobs"], lease.n_valid, k)
        except (KeyError, IndexError, TypeError, AttributeError) as e:
            raise ValueError(f"answer of {self._server.url}: expected choices[0].prompt_logprobs with logprob and rank, found {e!r}") from None

    def start(self, items: Sequence[Item]) -> Callable[[], None]:
        asked = [(item, self._pool.submit(self._ask, item.lease, item.i)) for item in items]
        return lambda: self._finish(asked)

    def _finish(self, asked: Sequence[tuple[Item, concurrent.futures.Future]]) -> None:
        for item, answer in asked:
            while not answer.done():
                concurrent.futures.wait([answer], RENEW_S)
                for other, _ in asked:
                    other.held.renew()
            try:
                loss, rank, ids, log_p = answer.result()
            except Gone as e:
                if not self._down:
                    log.warn("vllm.gone", url=self._server.url, why=e, hint="leases are handed back, and the server is asked until it answers")
                self._down = True
                item.held.give_back()
                continue
            except (Refused, ValueError) as e:
                if isinstance(e, Refused) and e.status < 500:
                    raise refusal(e, self._server, item.lease.k, item.lease.context) from None
                fail(item, str(e))
                continue

            def give(lease: Lease, i: int) -> None:
                if lease.want_score:
                    lease.submit_scores(i, loss, rank)
                if lease.want_label:
                    lease.submit_topk(i, ids, log_p)
            submit(item, give)


def request(name: str, tokens: list[int], k: int) -> dict[str, Any]:
    return {"model": name, "prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": k, "add_special_tokens": False}


def refusal(e: Refused, server: Server, k: int, context: int) -> Exception:
    text = str(e)
    most, asked = re.search(r"greater than max allowed: (\d+)", text), re.search(r"logprobs of (\d+)", text)
    if most:
        return SaltMismatch(f"{server.url}: expected a server that gives {asked[1] if asked else k} log-probabilities a position for labels.k = {k}, found "
                            f"--max-logprobs {most[1]}: start it with --max-logprobs {asked[1] if asked else k}, or set a smaller labels.k")
    if "context length" in text or "max_model_len" in text:
        return _too_long(server, context, text)
    if e.status in (401, 403):
        return SaltRefused(f"{server.url}: {text}: set VLLM_API_KEY to the server's --api-key", 77)
    return SaltRefused(f"{server.url}: the request was refused: {text}", 69)


def _too_long(server: Server, context: int, found: Any) -> SaltMismatch:
    return SaltMismatch(f"{server.url}: expected --max-model-len of at least {context + 2} (corpus.context + 2: a prompt of context + 1 tokens and one "
                        f"that is generated and not used), found {found}: start it with --max-model-len {context + 2}; where the model itself is no "
                        "longer than the context, and has no learned positions, VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 allows it")


def check_plan(plan: Plan, labels: bool) -> None:
    """Rejects a plan whose labels a server cannot give."""
    if not labels:
        return
    if plan.label_kind != "topk":
        why = {"sampled": "draws need all probabilities of a position, and the server gives the most probable ones",
               "dense": "the server gives the most probable ids of a position, not all"}.get(plan.label_kind, "there is nothing to label")
        raise SaltConfigError(f"labels.kind: expected topk for a teacher in vLLM, found {plan.label_kind}: {why}. Set labels.kind: topk in "
                              "fleet.yaml, or start this teacher without --vllm")
    if plan.tau != 1:
        raise SaltConfigError(f"labels.tau: expected 1 for a teacher in vLLM, found {plan.tau:g}: the server gives probabilities at temperature 1. Set "
                              "labels.tau: 1 in fleet.yaml, or start this teacher without --vllm")


def backend(args: argparse.Namespace, models: Sequence[Model], plan: Plan) -> Vllm:
    model = models[0]
    check_plan(plan, model.label)
    server, told = Server(args.vllm, args.vllm_timeout), 0.0
    while True:
        try:
            listed = {m["id"]: m for m in server.ask("GET", "/v1/models")["data"]}
            break
        except Gone as e:
            log.warn("vllm.waiting", url=server.url, why=e, seconds=round(told := told + RETRY_S))
        except Refused as e:
            raise refusal(e, server, plan.n, plan.context) from None
        except (KeyError, TypeError) as e:
            raise SaltConfigError(f"{server.url}: expected a list of models at /v1/models, found an answer without {e}") from None
    name = args.vllm_model or next(iter(listed), "")
    if name not in listed:
        raise SaltConfigError(f"--vllm-model: expected one of {', '.join(listed) or 'no model'}, found {name}")
    longest = listed[name].get("max_model_len")
    if longest is not None and longest < plan.context + 2:
        raise _too_long(server, plan.context, longest)
    if model.label:
        try:
            server.ask("POST", "/v1/completions", request(name, [0, 0], plan.n))
        except Refused as e:
            raise refusal(e, server, plan.n, plan.context) from None
        except Gone as e:
            raise SaltRefused(f"{server.url}: it listed its models and then did not answer a request: {e}", 69) from None
    log.info("vllm", url=server.url, model=name, root=listed[name].get("root"), max_model_len=longest, batch=args.batch or BATCH)
    return Vllm(server, name, model, args.batch or BATCH)


__all__ = ["Vllm", "backend", "check_plan", "parse"]
