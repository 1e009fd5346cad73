# SPDX-License-Identifier: Apache-2.0
"""Logits to scores and labels against plain references in float64, and the answers of a vLLM server to labels. No fleet."""
from __future__ import annotations

import math
import socket
import threading

import numpy as np
import pytest
import torch

from saltfleet import SaltConfigError, SaltMismatch
from saltfleet.teacher import vllm
from saltfleet.teacher.label import BLOCK, CHUNK, Reducer, Wanted, philox_uniforms
from saltfleet.teacher.model import dtype_of

from vllm_stub import prompt_logprobs

N, L = 3, 5


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Philox4x32-10 of Salmon et al. (2011), word by word."""
    k0, k1 = key
    c = list(counter)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def test_philox():
    # Known answers of the authors' Random123 (kat_vectors), then the contract of labels.h on top of it.
    assert philox((0, 0), [0, 0, 0, 0]) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox((0xFFFFFFFF, 0xFFFFFFFF), [0xFFFFFFFF] * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    seed, seq = 4100000007, 5 << 33 | 12345
    got = philox_uniforms(seed, seq, 4, 7)
    for t in range(4):
        for d in range(7):
            words = philox((seed, 3), [seq & 0xFFFFFFFF, seq >> 32, t, d // 2])
            high, low = words[2 * (d % 2):2 * (d % 2) + 2]
            assert got[t, d] == ((high << 32 | low) >> 11) / 2.0**53


def sets_of_logits(vocab: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(vocab)
    return (torch.randn(N, L, vocab, generator=g) * 4).to(dtype), torch.randint(0, vocab - 2, (N, L), generator=g)


def reference(u: np.ndarray, y: int, n_valid: int, tau: float) -> tuple[float, int, np.ndarray]:
    """Loss, rank and tempered probabilities of a row, in float64."""
    u = u[:n_valid].astype(np.float64)
    top = u.max()
    loss = top + math.log(np.exp(u - top).sum()) - u[y]
    weights = np.exp((u - top) / tau)
    return loss, sum(1 for v in range(n_valid) if u[v] > u[y] or (u[v] == u[y] and v < y)), weights / weights.sum()


# 70 and 1000 are no multiples of the block; with 3000 a chunk of 4000 logits is one row.
@pytest.mark.parametrize("vocab,n_valid", [(5, 5), (70, 70), (1000, 990), (3000, 3000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_scores_and_draws(vocab, n_valid, dtype, tau, monkeypatch):
    monkeypatch.setitem(CHUNK, "cpu", 4000)
    logits, targets = sets_of_logits(vocab, dtype)
    targets.clamp_(max=n_valid - 1)
    uniforms = np.stack([philox_uniforms(7, seq, L, 40) for seq in range(N)])
    got = Reducer().start(logits, targets, Wanted(n_valid, True, "sampled", 40, tau), torch.from_numpy(uniforms)).get()
    assert not got.failed
    near = 0
    for i in range(N):
        for t in range(L):
            loss, rank, p = reference(logits[i, t].float().numpy(), int(targets[i, t]), n_valid, tau)
            assert abs(got.loss_nats[i, t] - loss) < 1e-5 * max(1, loss)
            assert got.rank[i, t] == rank
            ends = np.cumsum(p)
            for d, v in enumerate(got.draws[i, t]):
                assert 0 <= v < n_valid
                expected = int(np.searchsorted(ends, uniforms[i, t, d] * ends[-1], side="right"))
                if v != expected:       # only where the uniform falls on a boundary, within the rounding of the weights
                    edge = min(abs(ends - uniforms[i, t, d]))
                    assert edge < 1e-6, f"{v} for {expected}, {edge} from a boundary"
                    near += 1
    assert near <= 2


def test_ties_go_to_the_lower_id():
    logits = torch.zeros(1, 1, 200)
    for y in (0, 1, 130, 199):
        assert Reducer().start(logits, torch.tensor([[y]]), Wanted(200)).get().rank[0, 0] == y


def test_a_draw_on_a_block_boundary():
    """Probability 1/128 each: u * total = k / 128 exactly is the start of id k, which it must give, also where k begins a block."""
    vocab = 2 * BLOCK
    uniforms = (torch.arange(vocab, dtype=torch.float64) / vocab).view(1, 1, vocab)
    got = Reducer().start(torch.zeros(1, 1, vocab), torch.zeros(1, 1, dtype=torch.long), Wanted(vocab, False, "sampled", vocab), uniforms).get()
    assert got.draws[0, 0].tolist() == list(range(vocab))
    assert got.loss_nats is None and got.rank is None


def test_ids_without_weight_are_not_drawn():
    """At the beginning of a block, and those below 2^-34 of the best, which the rounding of weights takes away."""
    vocab, logits = 2 * BLOCK, torch.zeros(1, 1, 2 * BLOCK)
    logits[..., BLOCK:BLOCK + 3] = -math.inf
    half = torch.full((1, 1, 1), BLOCK / (vocab - 3), dtype=torch.float64)      # u * total is the sum of the first block
    wanted = Wanted(vocab, False, "sampled", 1)
    assert Reducer().start(logits, torch.zeros(1, 1, dtype=torch.long), wanted, half).get().draws.item() == BLOCK + 3
    almost = torch.full((1, 1, 1), 1 - 1e-14, dtype=torch.float64)
    got = Reducer().start(torch.tensor([[[0.0, -30.0]]]), torch.zeros(1, 1, dtype=torch.long), Wanted(2, False, "sampled", 1), almost).get()
    assert got.draws.item() == 0


def test_the_same_memory_again():
    """A small vocabulary after a large one, and short batches after long ones: nothing of the earlier one is left."""
    reducer = Reducer()
    for vocab, n in ((1000, 3), (70, 1), (70, 3), (1000, 1)):
        logits, targets = sets_of_logits(vocab, torch.float32)
        u = torch.rand(n, L, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        wanted = Wanted(vocab, True, "sampled", 9)
        a, b = (r.start(logits[:n], targets[:n], wanted, u).get() for r in (reducer, Reducer()))
        assert np.array_equal(a.draws, b.draws) and np.array_equal(a.loss_nats, b.loss_nats) and np.array_equal(a.rank, b.rank)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_topk(tau):
    logits, targets = sets_of_logits(300, torch.float32)
    targets.clamp_(max=289)
    got = Reducer().start(logits, targets, Wanted(290, True, "topk", 12, tau)).get()
    for i in range(N):
        for t in range(L):
            p = reference(logits[i, t].numpy(), 0, 300, tau)[2]
            best = np.argsort(-p[:290], kind="stable")[:12]
            assert got.ids[i, t].tolist() == best.tolist()
            assert np.allclose(got.log_p[i, t], np.log(p[best]), atol=1e-5)
            assert abs(got.loss_nats[i, t] - reference(logits[i, t].numpy(), int(targets[i, t]), 290, tau)[0]) < 1e-4


@pytest.mark.parametrize("tau,best", [(1.0, [0.4, 0.2]), (0.5, [16 / 26, 4 / 26])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ids_that_the_corpus_has_not(tau, best, dtype):
    """Probabilities 0.4, 0.2, 0.2, and 0.1 twice beyond the corpus's three ids. The label's tail has what its two ids have not; scores, draws
    and dense labels are among the three."""
    logits = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1], dtype=dtype).log().view(1, 1, 5)
    y = torch.tensor([[0]])
    got = Reducer().start(logits, y, Wanted(3, True, "topk", 2, tau)).get()
    assert got.ids.tolist() == [[[0, 1]]] and np.exp(got.log_p).reshape(-1).tolist() == pytest.approx(best, abs=1e-6)
    assert got.loss_nats.item() == pytest.approx(-math.log(0.5), abs=1e-6) and not got.failed
    u = torch.tensor([[[0.0, 0.49, 0.51, 0.74, 0.76, 1 - 1e-9]]], dtype=torch.float64)
    assert Reducer().start(logits, y, Wanted(3, True, "sampled", 6), u).get().draws.tolist() == [[[0, 0, 1, 1, 2, 2]]]
    assert np.exp(Reducer().start(logits, y, Wanted(3, False, "dense")).logits(0)).sum() == pytest.approx(0.8, abs=1e-6)    # no more than the three
    logits[..., 4] = 1000.0             # all of the mass
    got = Reducer().start(logits, y, Wanted(3, True, "topk", 2, tau)).get()
    assert (np.exp(got.log_p) < 1e-30).all() and not got.failed
    for value in (math.nan, math.inf):
        logits[..., 3] = value
        assert Reducer().start(logits, y, Wanted(3, True, "topk", 2, tau)).get().failed[0] == f"position 0: logit of id 3: {value:g}"
        assert not Reducer().start(logits, y, Wanted(3, True, "sampled", 6), u).get().failed


@pytest.mark.parametrize("kind", ["none", "sampled", "topk"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite(kind, value):
    logits, targets = sets_of_logits(70, torch.float32)
    logits[1, 3, 17] = value
    u = torch.rand(N, L, 4, dtype=torch.float64)
    got = Reducer().start(logits, targets, Wanted(70, True, kind, 4), u if kind == "sampled" else None).get()
    assert set(got.failed) == {1}
    assert got.failed[1] == f"position 3: logit of id 17: {value:g}"
    assert np.isfinite(got.loss_nats[[0, 2]]).all()


def test_masked_logits():
    """-inf is a probability of 0: fine unless it is the token that follows."""
    logits, targets = sets_of_logits(70, torch.float32)
    logits[:, :, 60:] = -math.inf
    targets.clamp_(max=59)
    assert not Reducer().start(logits, targets, Wanted(70)).get().failed
    targets[2, 1] = 65
    assert "position 1" in Reducer().start(logits, targets, Wanted(70)).get().failed[2]


def test_logits_of_fewer_ids():
    with pytest.raises(ValueError, match="at least 80 ids.*found 70"):
        Reducer().start(*sets_of_logits(70, torch.float32), Wanted(80))


def test_dtype_of_the_class():
    cpu = torch.device("cpu")
    assert dtype_of("auto", "bf16/torch-cuda", cpu) is torch.bfloat16
    assert dtype_of("auto", "auto", cpu) is torch.float32
    assert dtype_of("float16", "mixed/any", cpu) is torch.float16
    with pytest.raises(SaltMismatch, match="bf16/torch-cuda, found float32"):
        dtype_of("float32", "bf16/torch-cuda", cpu)


# ---- answers of a vLLM server ----

@pytest.mark.parametrize("n_valid", [70, 64])
def test_vllm_answer(n_valid):
    """Beside what the transformers teacher makes of the same logits; ids beyond the corpus's are in the tail of both."""
    logits, targets = sets_of_logits(70, torch.float32)
    targets.clamp_(max=n_valid - 1)
    tokens = np.concatenate([[0], targets[0].numpy()])
    k = 10
    got = vllm.parse(tokens, prompt_logprobs(logits[0].numpy(), tokens, k + 70 - n_valid), n_valid, k)
    expected = Reducer().start(logits[:1], targets[:1], Wanted(n_valid, True, "topk", k)).get()
    shift = 0.0 if n_valid == 70 else None      # without ids in the answer that are taken out, nothing is left to differ
    for t in range(L):
        whole = reference(logits[0, t].numpy(), 0, 70, 1.0)[2]
        shown = np.argsort(-whole)[:k + 70 - n_valid]
        unseen = sum(whole[v] for v in range(n_valid, 70) if v not in shown)
        assert abs(got[0][t] - expected.loss_nats[0, t]) < 1e-4 + 2 * unseen
        assert np.allclose(got[3][t], expected.log_p[0, t], atol=1e-4)
        if shift == 0.0:
            assert got[1][t] == expected.rank[0, t]
    assert np.array_equal(got[2], expected.ids[0])


def test_vllm_answers_that_are_not():
    logits, targets = sets_of_logits(70, torch.float32)
    tokens = np.concatenate([[0], targets[0].numpy()])
    good = prompt_logprobs(logits[0].numpy(), tokens, 10)
    for change, text in ((lambda a: a.pop(), "expected 6 entries, found 5"), (lambda a: a[2].pop(str(tokens[2])), "expected an entry for token"),
                         (lambda a: a.__setitem__(3, None), "position 3"), (lambda a: a[4].popitem() and a[4].popitem(), "position 4"),
                         (lambda a: next(iter(a[1].values())).update(logprob=math.nan), "finite")):
        bad = [None] + [dict(e) for e in prompt_logprobs(logits[0].numpy(), tokens, 10)[1:]]
        change(bad)
        with pytest.raises(ValueError, match=text):
            vllm.parse(tokens, bad, 70, 10)
    assert len(vllm.parse(tokens, good, 70, 10)) == 4


def test_vllm_refuses():
    from types import SimpleNamespace as Plan

    vllm.check_plan(Plan(label_kind="topk", tau=1.0), True)
    vllm.check_plan(Plan(label_kind="sampled", tau=0.5), False)         # scores alone are independent of both
    with pytest.raises(SaltConfigError, match="labels.kind: expected topk.*found sampled: draws need all"):
        vllm.check_plan(Plan(label_kind="sampled", tau=1.0), True)
    with pytest.raises(SaltConfigError, match="labels.kind: expected topk.*found dense"):
        vllm.check_plan(Plan(label_kind="dense", tau=1.0), True)
    with pytest.raises(SaltConfigError, match="labels.tau: expected 1.*found 0.25"):
        vllm.check_plan(Plan(label_kind="topk", tau=0.25), True)
    server = vllm.Server("http://127.0.0.1:1", 1)
    said = vllm.Refused(400, "Requested prompt logprobs of 64, which is greater than max allowed: 20")
    assert "--max-logprobs 64" in str(vllm.refusal(said, server, 64, 32)) and "--max-logprobs 20" in str(vllm.refusal(said, server, 64, 32))


def test_vllm_is_interrupted():
    """A request that the server does not answer ends with interrupt(), not with its time-out; and no other one begins."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server, ended = vllm.Server(f"http://127.0.0.1:{listener.getsockname()[1]}", 3600), []

        def ask() -> None:
            try:
                server.ask("POST", "/v1/completions", {})
            except vllm.Gone as e:
                ended.append(e)
        asks = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
        for thread in asks:
            thread.start()
        held = [listener.accept()[0] for _ in asks]
        for connection in held:
            connection.recv(1)              # the request is on its way
        server.interrupt()
        for thread in asks:
            thread.join(60)
        assert len(ended) == 3
        late = threading.Thread(target=ask, daemon=True)
        late.start()
        late.join(60)
        assert len(ended) == 4
        for connection in held:
            connection.close()
