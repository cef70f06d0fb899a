"""Confidences on their way to the store and into the test for drift, and the chance that is taken from a call's id."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import threading
import time
import weakref

from ..statistics import DriftMartingale
from .book import Book, Key, Store
from .state import State, Watched, now, plain

__all__ = ["Scores", "chance"]

logger = logging.getLogger("specialists")

BATCH = 64
"""Confidences that are written down together."""

LATEST = 1.0
"""Seconds that a confidence waits at most, when others follow, until it is written down."""

MOST_WAITING = 10_000
"""Confidences that wait in memory while a store cannot be written; older ones are let go."""


class Scores:
    """What is written down some at a time, because a transaction for each would cost more than the call."""

    def __init__(self, store: Store, level: float) -> None:
        self._store = store
        self._level = level
        self.forget()
        _scores.add(self)

    def forget(self) -> None:
        """In a forked child: what waits belongs to the parent, and so does whoever holds the lock."""
        self._lock = threading.Lock()
        self._waiting: list[tuple[Watched, str, float | None]] = []
        self._next = time.monotonic() + LATEST

    def add(self, watched: Watched, call_id: str, confidence: float | None) -> None:
        with self._lock:
            self._waiting.append((watched, call_id, confidence))
            due = time.monotonic() >= self._next or len(self._waiting) % BATCH == 0
        if due:
            self.write()

    def write(self) -> None:
        """Raises :class:`WatchError`; what could not be written then waits on."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._next = time.monotonic() + LATEST
        if not taken:
            return
        groups: dict[Key, list[tuple[Watched, str, float | None]]] = {}
        for each in taken:
            groups.setdefault(each[0].key, []).append(each)
        try:
            with self._store.writing() as book:
                warned = [group[-1][0] for group in groups.values() if self._count(book, group)]
        except BaseException:
            with self._lock:
                self._waiting = (taken + self._waiting)[-MOST_WAITING:]
            raise
        for watched in warned:
            name = plain(watched.name)
            logger.warning(
                "the confidences of %s are no longer those of its calibration: what its certificate promises may no"
                " longer hold for today's calls; calibrate it anew with `brain specialists calibrate %s CASES.jsonl`",
                name,
                name,
            )

    def write_quietly(self) -> None:
        """At the end of a process, where nobody could be told."""
        try:
            self.write()
        except Exception as error:
            logger.warning("the last confidences were not written down: %s", error)

    def _count(self, book: Book, group: list[tuple[Watched, str, float | None]]) -> bool:
        """Whether these are what brought the warning."""
        watched = group[-1][0]
        state = State.of(book, watched)
        state.calls += len(group)
        drift = state.drift
        if watched.counts and (drift is None or drift.edges != watched.edges):
            drift = state.drift = DriftMartingale(watched.edges, list(watched.counts))
        warned = False
        if drift is not None:
            for _, call_id, confidence in group:
                value = drift.update(confidence, chance("drift", call_id))
                warned = warned or (state.warned is None and value >= 1 / self._level)
        if warned:
            state.warned = now()
        book.keep(watched.key, state.to_json())
        return warned


_scores: weakref.WeakSet[Scores] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_scores):
        each.forget()


@atexit.register
def _at_exit() -> None:
    # Not when a watch is collected: that can happen in the middle of anything, a store's own transaction included.
    for each in list(_scores):
        each.write_quietly()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def chance(purpose: str, call_id: str) -> float:
    """A number in [0, 1) that a call's id determines; what is drawn for one purpose tells nothing of another's."""
    digest = hashlib.sha256(f"specialists.watching.{purpose}\0{call_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # so few bits that no rounding makes it 1
