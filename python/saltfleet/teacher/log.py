# SPDX-License-Identifier: Apache-2.0
"""Lines of the log on stderr, in the daemons' format (common/base/log/log.h), and messages to systemd."""
from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import re
import socket
import sys
from typing import Any

PROG = "saltfleet-teacher"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if re.fullmatch(r"[!#-<>-~]+", text) else json.dumps(text, ensure_ascii=False)


def event(level: str, name: str, **fields: Any) -> None:
    """ts=... level=... prog=... pid=... event=name key=value. Control characters are escaped, so that an
    event is one line."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").removesuffix("+00:00")
    words = [f"ts={now}Z", f"level={level}", f"prog={PROG}", f"pid={os.getpid()}", f"event={name}"]
    line = " ".join(words + [f"{key}={_value(value)}" for key, value in fields.items()])
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), re.sub(r"[\x00-\x1f\x7f]", "?", line)[:4000].encode("utf-8", "replace") + b"\n")


def info(name: str, **fields: Any) -> None:
    event("info", name, **fields)


def warn(name: str, **fields: Any) -> None:
    event("warn", name, **fields)


def error(name: str, **fields: Any) -> None:
    event("error", name, **fields)


class _Lines(logging.Handler):
    """The library's lines, which have the format already."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), record.getMessage().encode("utf-8", "replace") + b"\n")


def library(debug: bool) -> None:
    """Sends the log lines of libsaltfleet to stderr too."""
    logger = logging.getLogger("saltfleet")
    logger.addHandler(_Lines())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False


def notify(text: str) -> None:
    """sd_notify(3): READY=1, STATUS=..., WATCHDOG=1, STOPPING=1. Without NOTIFY_SOCKET nothing is sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        s.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
