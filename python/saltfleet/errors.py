# SPDX-License-Identifier: Apache-2.0
"""Exceptions, one for each enum salt_code. The text names what failed and where, what was expected, what was
found, and what to do."""
from __future__ import annotations


class SaltError(Exception):
    """Any error of saltfleet. `exit_code` is a sysexits.h code, for a program that exits on this error."""

    code = 0
    exit_code = 1

    def __init_subclass__(cls, code: int = 0, exit_code: int = 1):
        cls.code, cls.exit_code = code, exit_code

    def __init__(self, text: str, exit_code: int | None = None):
        super().__init__(text)
        if exit_code:
            self.exit_code = exit_code


class SaltTimeout(SaltError, TimeoutError, code=1, exit_code=75): "Not yet: the same call may succeed later."
class SaltEnd(SaltError, code=2, exit_code=0): "No more work: selectord released the teacher, or drain() was called."
class SaltForked(SaltError, RuntimeError, code=3, exit_code=70): "This process is a fork of the one that opened the object."
class SaltConfigError(SaltError, ValueError, code=4, exit_code=78): "Invalid fleet.yaml, option or argument."
class SaltMismatch(SaltError, ValueError, code=5, exit_code=78): "Identities differ: corpus, plan, label set, model, tokenizer."
class SaltDataError(SaltError, ValueError, code=6, exit_code=65): "Damaged or unusable data."
class SaltRefused(SaltError, ConnectionRefusedError, code=7, exit_code=69): "selectord refused."
class SaltNonfinite(SaltError, ValueError, code=8, exit_code=65): "NaN or infinity in logits or probabilities."
class SaltRangeError(SaltError, ValueError, code=9, exit_code=64): "Out of range, or a wrong shape or type."
class SaltNotFound(SaltError, FileNotFoundError, code=10, exit_code=66): "A file does not exist."
class SaltMemoryError(SaltError, MemoryError, code=11, exit_code=71): "Out of memory."
class SaltSystemError(SaltError, OSError, code=12, exit_code=74): "Another system error."
class SaltClosed(SaltError, code=13, exit_code=75): "The lease is gone or expired, or the object was closed."
class SaltInternalError(SaltError, RuntimeError, code=14, exit_code=70): "A bug in libsaltfleet."


KINDS: dict[int, type[SaltError]] = {kind.code: kind for kind in SaltError.__subclasses__()}
__all__ = ["SaltError", *(kind.__name__ for kind in KINDS.values())]
