"""What a watch keeps, and where: rows of audits, answers that wait for a label, and one state per certificate.

A store opens a :class:`Book` for one transaction. It knows nothing of what states mean. Here is the one in memory.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

__all__ = ["Audit", "Book", "Key", "MemoryStore", "Store", "Waiting"]


class Key(NamedTuple):
    """Names of a specialist and of its certificate."""

    name: str
    certificate: str


class Audit(NamedTuple):
    """One audited answer. ``by``: who audited. ``at``: when, in ISO 8601."""

    call_id: str
    wrong: bool
    by: str
    at: str


class Waiting(NamedTuple):
    """An answer that waits for a label. ``value_json``: what the label is about."""

    call_id: str
    value_json: str
    at: str


class Book(Protocol):
    """One transaction: what is written in it is kept as a whole or not at all. States are JSON objects."""

    def watched(self) -> list[Key]: ...
    def state(self, key: Key) -> dict[str, Any] | None: ...
    def keep(self, key: Key, state: dict[str, Any]) -> None: ...

    def audits(self, key: Key) -> list[Audit]:
        """In the order in which they came."""
        ...

    def audit(self, key: Key, call_id: str) -> Audit | None: ...
    def add_audit(self, key: Key, audit: Audit) -> None: ...
    def audited_in(self, call_id: str) -> list[Key]: ...
    def waiting(self, key: Key) -> list[Waiting]: ...
    def waits_in(self, call_id: str) -> list[Key]: ...

    def add_waiting(self, key: Key, waiting: Waiting) -> None:
        """A call that waits already stays as it is."""
        ...

    def drop_waiting(self, key: Key, call_id: str) -> None: ...


class Store(Protocol):
    """Where a watch keeps what it knows. Safe from any thread. What cannot be kept raises ``WatchError``.

    ``stale_after``: for how many seconds what was read may be used again.
    """

    stale_after: float

    def reading(self) -> AbstractContextManager[Book]:
        """A book to read from, as it stands at one moment."""
        ...

    def writing(self) -> AbstractContextManager[Book]:
        """A book to read from and write in; nobody else writes meanwhile."""
        ...


class Guarded:
    """A lock that a fork waits for, so that a child inherits nothing half done and no lock that is held for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _living.add(self)

    def _before_fork(self) -> None:
        """With the lock held: let go of what must not be inherited."""


_living: weakref.WeakSet[Guarded] = weakref.WeakSet()
_held: list[Guarded] = []


def _hold() -> None:
    for each in sorted(_living, key=id):
        each._lock.acquire()
        _held.append(each)
        each._before_fork()


def _release() -> None:
    while _held:
        _held.pop()._lock.release()


def _renew() -> None:
    while _held:
        _held.pop()._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)


class MemoryStore(Guarded):
    """Keeps everything in this process. What it knows ends with the process, its alarms too.

    A forked child has a copy, which goes its own way.
    """

    stale_after = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._book = _MemoryBook()

    def __repr__(self) -> str:
        return "MemoryStore()"

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """A book to read from."""
        with self._lock:
            yield self._book

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """A book to write in."""
        with self._lock:
            yield self._book


class _MemoryBook:
    def __init__(self) -> None:
        self._states: dict[Key, dict[str, Any]] = {}
        self._audits: dict[Key, dict[str, Audit]] = {}
        self._waiting: dict[Key, dict[str, Waiting]] = {}

    def watched(self) -> list[Key]:
        return sorted(self._states)

    def state(self, key: Key) -> dict[str, Any] | None:
        return self._states.get(key)

    def keep(self, key: Key, state: dict[str, Any]) -> None:
        self._states[key] = state

    def audits(self, key: Key) -> list[Audit]:
        return list(self._audits.get(key, {}).values())

    def audit(self, key: Key, call_id: str) -> Audit | None:
        return self._audits.get(key, {}).get(call_id)

    def add_audit(self, key: Key, audit: Audit) -> None:
        self._audits.setdefault(key, {})[audit.call_id] = audit

    def audited_in(self, call_id: str) -> list[Key]:
        return sorted(key for key, audits in self._audits.items() if call_id in audits)

    def waiting(self, key: Key) -> list[Waiting]:
        return list(self._waiting.get(key, {}).values())

    def waits_in(self, call_id: str) -> list[Key]:
        return sorted(key for key, waiting in self._waiting.items() if call_id in waiting)

    def add_waiting(self, key: Key, waiting: Waiting) -> None:
        self._waiting.setdefault(key, {}).setdefault(waiting.call_id, waiting)

    def drop_waiting(self, key: Key, call_id: str) -> None:
        self._waiting.get(key, {}).pop(call_id, None)
