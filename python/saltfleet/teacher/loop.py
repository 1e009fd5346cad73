# SPDX-License-Identifier: Apache-2.0
"""The main loop of a teacher: it takes leases, passes batches to a backend and submits the results.

A backend has `batch`, the number of sequences that it takes at a time, and `start(items)`, which begins to
compute them and returns a function that submits the results. While the results of a batch are fetched and
submitted, the device computes the next one.
"""
from __future__ import annotations

import collections
import dataclasses
import os
import threading
import time
from typing import Callable, Protocol, Sequence

from ..client import Lease, Teacher
from ..errors import SaltClosed, SaltNonfinite, SaltTimeout
from . import log

NOTE_S = 1.0        # systemd's status line changes at most once in this time
RATE_S = 30.0       # interval of log lines with rates
LEAVE_S = 10.0      # longest wait for selectord's last confirmations at the end


class Held:
    """A lease, and the number of its sequences that are still to be computed."""

    def __init__(self, lease: Lease):
        self.lease, self.left, self.gone, self.closed = lease, lease.n, False, False

    def done(self, n: int = 1) -> None:
        self.left -= n
        if self.left == 0:
            self.lease.close()

    def lost(self, why: SaltClosed) -> None:
        """Called when the lease has expired or selectord was restarted. Results that are computed already are
        still submitted; the rest is not computed any more."""
        if not self.closed:
            log.info("lease.lost", lease=self.lease.id, left=self.left, why=why)
        self.closed = True

    def give_back(self) -> None:
        self.gone = True
        self.lease.close()

    def renew(self) -> None:
        if not self.gone and not self.closed and self.left:
            try:
                self.lease.renew()
            except SaltClosed as e:
                self.lost(e)


@dataclasses.dataclass(frozen=True)
class Item:
    """A sequence to compute."""

    held: Held
    i: int

    @property
    def lease(self) -> Lease:
        return self.held.lease


class Backend(Protocol):
    batch: int
    def start(self, items: Sequence[Item]) -> Callable[[], None]: ...
    def ready(self) -> bool: ...        # False, after a short wait: it cannot compute; leases are handed back
    def interrupt(self) -> None: ...    # the loop ends: do not wait for long any more. Any thread, and signal handlers


def submit(item: Item, give: Callable[[Lease, int], None]) -> None:
    """give(lease, i) submits the results of one sequence. If they are not finite, only this sequence
    fails."""
    if item.held.gone:
        return
    try:
        give(item.lease, item.i)
    except SaltClosed as e:
        item.held.lost(e)
    except SaltNonfinite:           # the library has reported it to selectord and logged it
        pass
    item.held.done()


def fail(item: Item, why: str) -> None:
    """The sequence cannot be computed here; selectord gives it to another teacher. The library logs it."""
    submit(item, lambda lease, i: lease.submit_error(i, why[:120]))


class Loop:
    def __init__(self, teacher: Teacher, backend: Backend):
        self._teacher, self._backend = teacher, backend
        self._queue: collections.deque[Item] = collections.deque()
        self._stop = threading.Event()
        self._ready = self._ended = False
        self._noted = self._rated = time.monotonic()
        self._sequences, self._tokens, self._busy_s = 0, 0, 0.0

    def stop(self, *_: object) -> None:
        """Finishes the batch, hands back the rest, and ends the loop. Any thread, and signal handlers."""
        self._stop.set()
        self._backend.interrupt()

    def _fill(self, computing: bool) -> None:
        """Takes leases until there are enough sequences for a batch. Waits only if there is nothing else to
        do."""
        if not self._backend.ready():
            self._hand_back()
            return
        while not self._ended and len(self._queue) < self._backend.batch:
            try:
                lease = self._teacher.lease(timeout_s=0 if self._queue or computing else 0.25)
            except SaltTimeout:
                return
            if lease is None:
                self._ended = True
                log.info("released")
                return
            held = Held(lease)
            self._queue.extend(Item(held, i) for i in range(lease.n))

    def _hand_back(self) -> int:
        n = len(self._queue)
        for item in self._queue:
            item.held.give_back()
        self._queue.clear()
        return n

    def _take(self) -> list[Item]:
        """Takes sequences of one model for a batch, from several leases if one does not fill it."""
        items: list[Item] = []
        renewed: set[int] = set()
        while self._queue and len(items) < self._backend.batch:
            item = self._queue[0]
            if items and (item.lease.model, item.lease.context) != (items[0].lease.model, items[0].lease.context):
                break
            self._queue.popleft()
            if id(item.held) not in renewed:
                renewed.add(id(item.held))
                item.held.renew()
            if item.held.closed:
                item.held.give_back()
            if not item.held.gone:
                items.append(item)
        return items

    def _note(self) -> None:
        now = time.monotonic()
        if self._ready and now - self._noted < NOTE_S:
            return
        self._noted = now
        view = self._teacher.view()
        if not self._ready and view.shards_welcomed > 0:
            self._ready = True
            log.info("ready", shards=view.shards_welcomed, status=view.status_endpoint)
            log.notify("READY=1\nSTATUS=accepted by selectord")
        elif self._ready:
            log.notify(f"STATUS={self._sequences} sequences computed; {view.waiting}" + ("\nWATCHDOG=1" if "WATCHDOG_USEC" in os.environ else ""))
        if self._tokens and now - self._rated > RATE_S:
            log.info("rate", sequences=self._sequences, tokens=self._tokens, tokens_per_s=round(self._tokens / max(self._busy_s, 1e-9)),
                     unconfirmed=view.unconfirmed)
            self._rated = now

    def run(self) -> None:
        """Runs until selectord releases the teacher, or stop() is called. Errors of selectord are raised."""
        finish: Callable[[], None] | None = None
        while not self._stop.is_set() and not self._ended:
            self._fill(finish is not None)
            begun = time.monotonic()
            items = self._take() if not self._ended and not self._stop.is_set() else []
            started = self._backend.start(items) if items else None
            if finish is not None:
                finish()
            finish = started
            if items:
                self._sequences += len(items)
                self._tokens += len(items) * items[0].lease.context
            if items or finish:
                self._busy_s += time.monotonic() - begun
            self._note()
        if finish is not None:
            finish()
        self._leave()

    def _leave(self) -> None:
        log.notify("STOPPING=1\nSTATUS=leases are finished or handed back")
        self._teacher.drain()
        back = self._hand_back()
        try:
            self._teacher.flush(timeout_s=LEAVE_S)
        except SaltTimeout as e:
            log.warn("unconfirmed", why=e)
        log.info("done", sequences=self._sequences, tokens=self._tokens, handed_back=back, reason="stopped" if self._stop.is_set() else "released")


__all__ = ["Backend", "Held", "Item", "Loop", "fail", "submit"]
