# SPDX-License-Identifier: Apache-2.0
"""Golden values of tests/unit/test_optim.c, from the formulas in optim.h; AdamW and clipping from PyTorch."""
import math
def lr(kind, step, peak=1e-3, ratio=0.1, steps=200, warmup=20, decay=40):
    lo = peak * ratio
    if step < warmup:
        return peak * (step + 1) / warmup
    x = min(1, (step - warmup) / (steps - warmup))
    if kind == "cosine":
        return lo + (peak - lo) * (1 + math.cos(math.pi * x)) / 2
    if kind == "linear":
        return peak - (peak - lo) * x
    if kind == "wsd":
        y = min(1, max(0, (step - (steps - decay)) / decay))
        return lo + (peak - lo) * (1 - math.sqrt(y))
    return peak
for kind in ("cosine", "linear", "wsd", "constant"):
    print(kind, ", ".join("{%d, %.12g}" % (s, lr(kind, s)) for s in (0, 9, 19, 20, 65, 110, 160, 170, 199, 200, 500)))
try:
    import torch
    torch.manual_seed(0)
    torch.set_printoptions(precision=9)
    w = [torch.tensor([0.5, -1.25, 3.0]).requires_grad_(), torch.tensor([0.75, -0.1]).requires_grad_()]
    opt = torch.optim.AdamW([{"params": [w[0]], "weight_decay": 0.1}, {"params": [w[1]], "weight_decay": 0.0}], betas=(0.9, 0.95), eps=1e-8)
    g = [torch.tensor([0.2, -0.4, 1e-3]), torch.tensor([-2.0, 1e-6])]
    for step in range(3):
        for p, q in zip(w, g):
            p.grad = q * (step + 1) * (-1 if step == 1 else 1)
        n = torch.nn.utils.clip_grad_norm_(w, 1.0)
        for group in opt.param_groups:
            group["lr"] = 1e-2 * (step + 1)
        opt.step()
        print("norm %.9g" % n, ", ".join("%.9gf" % x for p in w for x in p.tolist()))
except ImportError:
    print("no torch")
