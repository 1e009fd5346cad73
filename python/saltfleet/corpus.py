# SPDX-License-Identifier: Apache-2.0
"""A token corpus (PREFIX.bin and PREFIX.idx, or raw ids) as numpy."""
from __future__ import annotations

import dataclasses
import functools
import json
import os
import weakref
from typing import Any, Iterator

import numpy as np

from ._ffi import cast, check, ffi, lib, new, text
from .errors import SaltRangeError


@dataclasses.dataclass(frozen=True)
class Info:
    """struct salt_corpus_info; None: not known."""

    n_tokens: int
    n_documents: int | None
    n_bytes: int | None         # of the text
    vocab: int | None
    eod: int | None             # id of the end of a document
    kind: str                   # "megatron", "uint16", ...
    dtype: str
    tokenizer: str | None       # fingerprints
    fingerprint: str | None


class Corpus:
    """Sequences ("windows") of L + 1 tokens, as trainer and teachers use them, and tokens by position. Any
    thread.

        c = Corpus("data/train")
        c.window(7, 1024)       # int32 [1025], from token 7 * 1024 on
        c[100:200]              # int32 [100]
        len(c)                  # tokens

    For a blend, prefix is a list as JSON text, like `plan.corpus_train`: its windows are those of the first
    part, then of the second, and so on; `parts` are the corpora.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: str | None = None):
        c, error = new("struct salt_corpus **"), new("struct salt_error *")
        check(lib.salt_corpus_open(c, os.fsencode(prefix), ffi.NULL if dtype is None else new("char[]", dtype.encode()), error), error)
        self._c: Any = c[0]
        listed = os.fspath(prefix).lstrip().startswith(("[{", "[ {")) if isinstance(os.fspath(prefix), str) else False
        self.parts: list[Corpus] = [Corpus(p["prefix"], dtype) for p in json.loads(os.fspath(prefix))] if listed else [self]
        weakref.finalize(self, lib.salt_corpus_close, c)

    @functools.cached_property
    def info(self) -> Info:
        """Reads the corpus once if no side file has its fingerprint."""
        i, error = new("struct salt_corpus_info *"), new("struct salt_error *")
        i.size = ffi.sizeof(i[0])
        check(lib.salt_corpus_info(self._c, i, error), error)
        return Info(i.n_tokens, i.n_documents or None, i.n_bytes or None, i.vocab or None, None if i.eod < 0 else i.eod, text(i.kind),
                    text(i.dtype), text(i.tokenizer) or None, text(i.fingerprint) or None)

    def __len__(self) -> int:
        return self.info.n_tokens

    def window(self, index: int, context: int) -> np.ndarray:
        """int32 [context + 1]: the tokens from index * context on."""
        for what, value in (("index", index), ("context", context)):
            if not 0 <= value < 2**(63 if what == "index" else 31):
                raise SaltRangeError(f"corpus window: {what}: expected a number >= 0, found {value}")
        tokens, error = np.empty(context + 1, np.int32), new("struct salt_error *")
        check(lib.salt_corpus_window(self._c, index, context, cast("int32_t *", tokens.ctypes.data), error), error)
        return tokens

    def n_windows(self, context: int) -> int:
        return max(0, (len(self) - 1) // context) if self.parts == [self] else sum(p.n_windows(context) for p in self.parts)

    def windows(self, context: int) -> Iterator[np.ndarray]:
        """All windows, in the corpus's order."""
        return (self.window(i, context) for i in range(self.n_windows(context)))

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                raise SaltRangeError(f"corpus: expected a slice of step 1, found step {step}")
            return self._read(start, max(start, stop))
        n = len(self)
        if not -n <= at < n:
            raise IndexError(f"corpus: expected a position in [{-n}, {n}), found {at}")
        return int(self._read(at % n, at % n + 1)[0])

    def _read(self, start: int, stop: int) -> np.ndarray:
        if self.parts != [self]:
            pieces, first = [np.empty(0, np.int32)], 0
            for p in self.parts:
                pieces.append(p[max(start - first, 0):max(min(stop - first, len(p)), 0)])
                first += len(p)
            return np.concatenate(pieces)
        out, n, at = np.empty(stop - start, np.int32), len(self), start
        while at < stop:
            # the largest window that begins here, ends inside the corpus and is not much larger than needed
            context = 1 << 20
            while context > 1 and (at % context or at + context >= n or context >= 2 * (stop - at)):
                context >>= 1
            if at + 1 >= n:     # the last token is the target of the window before it
                out[-1] = self.window(n - 2, 1)[1]
                break
            part = self.window(at // context, context)[:stop - at]
            out[at - start:at - start + len(part)] = part
            at += len(part)
        return out
