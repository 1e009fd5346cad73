# SPDX-License-Identifier: Apache-2.0
"""saltfleet: labels of a SALT fleet in a PyTorch loop.

    ds = saltfleet.SaltDataset("fleet.yaml")
    for batch in ds:
        loss = saltfleet.salt_loss(model(batch.input_ids).logits, batch)

Names that need torch are imported when they are first used.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .client import Client, Lease, Model, Plan, Rows, Teacher, Trainer, View, model_identity, status, version
from .corpus import Corpus
from .errors import *  # noqa: F403
from .errors import __all__ as _errors

if TYPE_CHECKING:
    from .dataset import Batch, SaltDataset
    from .loss import salt_loss, salt_loss_from_hidden, salt_metrics

_torch = {
    "Batch": "dataset",
    "SaltDataset": "dataset",
    "salt_loss": "loss",
    "salt_loss_from_hidden": "loss",
    "salt_metrics": "loss",
}
_modules = ("documents", "export", "hf", "torchtitan", "teacher")
__all__ = ["Client", "Corpus", "Lease", "Model", "Plan", "Rows", "Teacher", "Trainer", "View", "model_identity", "status", "version",
           *_torch, *_errors]


def __getattr__(name: str) -> Any:
    if name in _torch:
        return getattr(importlib.import_module(f".{_torch[name]}", __name__), name)
    if name in _modules:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'saltfleet' has no attribute {name!r}")
