"""Attempts that wait to be described until somebody looks: of a ledger in memory, mostly nobody ever does.

The newest are kept; of those before, their number and the exact sum of their costs.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence

from specialists import Cost

from .changes import Note
from .rows import NOTHING

__all__ = ["Notes"]


class Notes:
    """At most ``keep`` of them. Safe from any thread; a forked child has none of its parent's."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._notes: deque[Note] = deque()
        self._forgotten = 0
        self._cost = NOTHING

    def add(self, notes: Sequence[Note]) -> None:
        """Keep these, and let go of the oldest where there are too many."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._lock:
            self._notes.extend(notes)
            while len(self._notes) > self.keep:
                self._count(1, self._notes.popleft().cost)

    def take(self) -> list[Note]:
        """All that wait; they wait no longer."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._lock:
            taken = list(self._notes)
            self._notes.clear()
        return taken

    def forget(self, rows: int, cost: Cost) -> None:
        """So many rows, described already, were let go of."""
        with self._lock:
            self._count(rows, cost)

    @property
    def forgotten(self) -> tuple[int, Cost]:
        """How many were let go of, and what they cost together."""
        with self._lock:
            return self._forgotten, self._cost

    def _count(self, rows: int, cost: Cost) -> None:
        self._forgotten += rows
        self._cost += cost
