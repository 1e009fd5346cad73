# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a vLLM server: /health, /v1/models and /v1/completions with prompt_logprobs, of a model of transformers.

    vllm_stub.py MODEL PORT MAX_LOGPROBS MAX_MODEL_LEN [--die-after N]      the process ends in the middle of the N-th completion

Answers and errors have the form of vLLM 0.32, which was compared by hand; suite and CI have no vLLM.
"""
from __future__ import annotations

import http.server
import itertools
import json
import math
import os
import sys
from typing import Any

import numpy as np


def prompt_logprobs(logits: np.ndarray, tokens: Any, k: int) -> list:
    """The k most probable ids of each position and the prompt's token, ranks from 1; null for the first token."""
    out: list = [None]
    for t in range(len(tokens) - 1):
        u = logits[t].astype(np.float64)
        log_p = u - u.max() - math.log(np.exp(u - u.max()).sum())
        order = np.argsort(-log_p, kind="stable")
        shown = [int(tokens[t + 1])] + [int(v) for v in order[:k] if v != tokens[t + 1]]
        out.append({str(v): {"logprob": float(log_p[v]), "rank": int((log_p >= log_p[v]).sum()), "decoded_token": "x"} for v in shown})
    return out


def serve(model: str, port: int, max_logprobs: int, max_model_len: int, die_after: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    completions = itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def refuse(self, text: str) -> None:
            self.answer(400, {"error": {"message": text, "type": "BadRequestError", "param": None, "code": 400}})

        def do_GET(self) -> None:
            if self.path == "/health":
                self.answer(200, None)
            else:
                self.answer(200, {"object": "list", "data": [{"id": "stub", "object": "model", "root": model, "max_model_len": max_model_len}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            tokens, k = asked["prompt"], asked["prompt_logprobs"]
            if next(completions) == die_after:
                os._exit(1)
            if k > max_logprobs:
                self.refuse(f"Requested prompt logprobs of {k}, which is greater than max allowed: {max_logprobs} (parameter=prompt_logprobs, value={k})")
            elif len(tokens) + asked["max_tokens"] > max_model_len:
                self.refuse(f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains {len(tokens)} input tokens")
            else:
                with torch.no_grad():
                    logits = net(torch.tensor([tokens[:-1]]), use_cache=False).logits[0].numpy()
                self.answer(200, {"id": "cmpl-1", "object": "text_completion", "model": "stub", "choices": [
                    {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": prompt_logprobs(logits, tokens, k)}]})

        def log_message(self, *args: Any) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:5]), int(sys.argv[6]) if len(sys.argv) > 6 else 0)
