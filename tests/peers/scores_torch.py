# SPDX-License-Identifier: Apache-2.0
"""Stored scores beside PyTorch: S(x) of every scored sequence, from transformers' logits in fp32, and loss and rank of every token.

    scores_torch.py EXPORT MODEL CORPUS K        EXPORT: of saltctl cache export; CORPUS: prefix of uint16 tokens

S(x) is the median over the tokens of the loss, where a token that is not among the K most likely counts 0. It must lie within 1e-3 of PyTorch's
for every sequence. Exit status 1 if not.
"""
import json
import sys

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

export, model, corpus, k = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
manifest = json.load(open(f"{export}/manifest.json"))
L = manifest["context"]
files = [load_file(f"{export}/{f['file']}") for f in manifest["scores"]["files"]]
seq, loss, rank = (np.concatenate([f[name] for f in files]) for name in ("seq", "loss", "rank"))
tokens = np.fromfile(corpus + ".bin", dtype=np.uint16).astype(np.int64)
net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
stored = np.median(np.where(rank < k, loss / 2048.0, 0), axis=1)
worst, worst_loss, ranks = 0.0, 0.0, 0
with torch.no_grad():
    for i in range(0, len(seq), 256):
        windows = torch.from_numpy(np.stack([tokens[s * L:s * L + L + 1] for s in seq[i:i + 256].astype(np.int64)]))
        logits = net(windows[:, :-1]).logits
        at_next = logits.gather(2, windows[:, 1:, None])
        theirs = (torch.logsumexp(logits, 2) - at_next[:, :, 0]).numpy()
        their_rank = (logits > at_next).sum(2).numpy()
        s = np.median(np.where(their_rank < k, theirs, 0), axis=1)
        worst = max(worst, np.abs(s - stored[i:i + 256]).max())
        worst_loss = max(worst_loss, np.abs(theirs - loss[i:i + 256] / 2048.0).max())
        ranks += int((np.minimum(their_rank, 255) != rank[i:i + 256]).sum())
print(f"{len(seq)} sequences: S(x) within {worst:.2e} of PyTorch's, from {stored.min():.3f} to {stored.max():.3f}; "
      f"losses within {worst_loss:.2e}, {ranks} of {rank.size} ranks differ")
sys.exit(not (len(seq) >= 100 and stored.max() > stored.min() and worst <= 1e-3))
