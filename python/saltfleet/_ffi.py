# SPDX-License-Identifier: Apache-2.0
"""libsaltfleet through cffi (ABI mode). The declarations are read from saltfleet.h, which is next to this
file in a wheel, and in client/ in the source tree.

`lib` loads the library when it is first used, so that saltfleet can be imported without it. The library is
searched inside the package (a wheel contains it), then at the path in SALTFLEET_LIBRARY, then among the
system's libraries. cffi releases the GIL during every call.
"""
from __future__ import annotations

import functools
import logging
import os
import pathlib
import re
from typing import Any

import cffi

from . import errors

SONAME = "libsaltfleet.so.1"
_here = pathlib.Path(__file__).resolve().parent


def _declarations() -> str:
    places = [_here / "saltfleet.h", _here.parents[1] / "client" / "saltfleet.h"]
    for place in places:
        if place.exists():
            text = place.read_text(encoding="utf-8")
            break
    else:
        raise ImportError(f"saltfleet: no saltfleet.h in {' or '.join(str(p.parent) for p in places)}: install the package again")
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.S | re.M)
    text = re.sub(r"^[ \t]*#.*$", "", text, flags=re.M)
    return re.sub(r"\bSALT_API\b", "", text)


ffi = cffi.FFI()
ffi.cdef(_declarations())
# cffi parses the name of a type or function at its first use, and holds a lock meanwhile. The garbage
# collector may run in the parser and call a finalizer of this package, which would wait for the same lock for
# ever. So all names are parsed here and in load(), before any object with a finalizer exists.
_types = {name: ffi.typeof(name) for name in (
    "char **", "char *[]", "char[33]", "char[]", "double *", "float *", "int32_t *", "int64_t *", "struct salt **", "struct salt_corpus **",
    "struct salt_corpus_info *", "struct salt_error *", "struct salt_lease **", "struct salt_model[]", "struct salt_options *",
    "struct salt_plan *", "struct salt_rows **", "struct salt_view *", "uintptr_t")}
UNKNOWN = 2**64 - 1     # SALT_UNKNOWN


@functools.cache
def load() -> Any:
    """Loads the library; ImportError names the places that were searched."""
    tried = []
    bundled = sorted(_here.glob("libsaltfleet.so*"))
    for name in [str(bundled[0])] if bundled else [os.environ.get("SALTFLEET_LIBRARY", ""), SONAME]:
        if not name:
            continue
        try:
            library = ffi.dlopen(name)
        except OSError as e:
            tried.append(str(e))
            continue
        for function in dir(library):
            # parses it; a function that an older library lacks raises AttributeError where it is used
            hasattr(library, function)
        return library
    raise ImportError(
        "saltfleet: libsaltfleet cannot be loaded: " + "; ".join(tried) + ". A wheel has it inside (pip install ./python in a clone of "
        "the repository); else set SALTFLEET_LIBRARY to the path of libsaltfleet.so of a build, or install the Debian package")


class _Lib:
    """The library's functions, loaded at the first use."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(load(), name)
        setattr(self, name, value)
        return value


lib: Any = _Lib()


def new(type_name: str, value: Any = None) -> Any:
    """ffi.new of one of _types."""
    return ffi.new(_types[type_name], value)


def cast(type_name: str, value: Any) -> Any:
    """ffi.cast to one of _types."""
    return ffi.cast(_types[type_name], value)


def text(p: Any) -> str:
    """A C string as str; "" for NULL."""
    return ffi.string(p).decode("utf-8", "replace") if p else ""


def check(rc: int, error: Any, also: tuple[int, ...] = ()) -> int:
    """Raises the exception of a call that did not return 0 or one of `also`."""
    if rc != 0 and rc not in also:
        kind = errors.KINDS.get(rc, errors.SaltError)
        raise kind(text(error.text) or text(lib.salt_code_name(rc)), error.exit_code)
    return rc


_log = logging.getLogger("saltfleet")
_levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@ffi.callback("void(void *, int, const char *)")
def log_line(_arg: Any, level: int, line: Any) -> None:     # kept for the life of the process: one for all handles
    _log.log(_levels[min(max(level, 0), 3)], "%s", text(line))


def milliseconds(timeout_s: float | None) -> int:
    """timeout_ms of a C call; None: no limit."""
    return -1 if timeout_s is None else max(0, min(int(timeout_s * 1000), 2**31 - 1))
