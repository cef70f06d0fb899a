"""Named places where a test makes a process die or fail, to see that nothing is lost. They do nothing unless set.

A place calls :func:`failpoint` with its name. What happens there is set by the environment, read once when this module
is imported::

    BRAIN_FAILPOINTS="journal.after_intent=kill;storage.before_commit@3=raise:OSError"

or, within a process, by :func:`failpoints`. ``name@3`` means the third time that the place is reached, and no other; a
bare name means every time. Actions:

====================  ==================================================================================
``kill``              the process is killed as by the operating system: nothing is cleaned up
``exit``              the process ends at once with status 99: nothing is cleaned up
``raise:NAME``        raises the built-in exception, the one of ``brain.errors`` or of ``sqlite3`` (``sqlite3.NAME``)
``sleep:SECONDS``     waits
a callable            is called (not from the environment)
====================  ==================================================================================

Names are data: nothing in the variable is evaluated. All the same, whoever may set a process's environment may run code
in it, and can stop it here: the variable is for tests, not for a service.

This module knows nothing of what happens at the places.
"""

from __future__ import annotations

import builtins
import itertools
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from .. import errors

__all__ = ["VARIABLE", "Action", "Failpoints", "failpoint", "failpoints"]

VARIABLE = "BRAIN_FAILPOINTS"
EXIT_STATUS = 99

Action: TypeAlias = str | Callable[[], object]


class Failpoints:
    """What is set, and how often each place was reached. ``reached``: hits by name, of every place passed."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self.reached: dict[str, int] = {}
        self._counters: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        self._actions: dict[tuple[str, int | None], Callable[[], object]] = {}
        for place, action in actions.items():
            name, at, number = place.partition("@")
            if not name or (at and not (number.isascii() and number.isdigit() and int(number))):
                raise errors.ConfigurationError(f"failpoint {place!r}: write a name, or name@3 for the third time")
            self._actions[name, int(number) if at else None] = _does(place, action)

    def reach(self, name: str) -> None:
        """The place ``name`` is passed: whatever is set for it happens."""
        number = next(self._counters[name])  # atomic, and without a lock that a forked child would inherit
        self.reached[name] = number
        for key in ((name, number), (name, None)):
            if key in self._actions:
                self._actions[key]()

    def missed(self) -> list[str]:
        """What was set and never happened."""
        return [
            name if number is None else f"{name}@{number}"
            for name, number in self._actions
            if self.reached.get(name, 0) < (number or 1)
        ]


_active: Failpoints | None = None


def failpoint(name: str) -> None:
    """The place ``name``. Does nothing unless failpoints are set."""
    if _active is not None:
        _active.reach(name)


@contextmanager
def failpoints(actions: Mapping[str, Action] | None = None) -> Iterator[Failpoints]:
    """Set failpoints in this process, in all threads, instead of those that are set; yields what is reached.

    With no actions it only records. Raises ``AssertionError`` at its end when something that was set never happened, so
    that a test cannot pass by missing its place; :class:`ConfigurationError` for an action that is none.
    """
    global _active
    before, _active = _active, Failpoints(actions or {})
    mine = _active
    try:
        yield mine
    finally:
        _active = before
    if missed := mine.missed():
        raise AssertionError(f"never reached: {', '.join(missed)}; reached: {mine.reached}")


def parse(text: str) -> dict[str, Action]:
    """``name=action;name@3=action`` as a mapping. Raises :class:`ConfigurationError`."""
    actions: dict[str, Action] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, action = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise errors.ConfigurationError(f"{VARIABLE}: {part!r} is not name=action")
        actions[name] = action
    return actions


def _does(place: str, action: Action) -> Callable[[], object]:
    if callable(action):
        return action
    kind, _, value = action.partition(":")
    if action == "kill":
        return _kill
    if action == "exit":
        return lambda: os._exit(EXIT_STATUS)
    if kind == "sleep":
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if 0 <= seconds <= 86400:
            return lambda: time.sleep(seconds)
    if kind == "raise" and (error := _exception(value)) is not None:
        return lambda: _throw(error, place)
    raise errors.ConfigurationError(
        f"failpoint {place!r}: {action!r} is no action; use kill, exit, raise:NAME or sleep:SECONDS"
    )


def _exception(name: str) -> type[BaseException] | None:
    home, _, bare = name.rpartition(".")
    if home == "sqlite3":
        import sqlite3

        found = getattr(sqlite3, bare, None)
    elif home:
        return None
    else:
        found = getattr(builtins, bare, None) or getattr(errors, bare, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _throw(error: type[BaseException], place: str) -> None:
    raise error(f"failpoint {place}")


def _kill() -> None:
    # On Windows SIGTERM ends the process at once, which is what a kill is there.
    os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    time.sleep(60)  # the signal may be delivered a moment later; nothing more must happen


if os.environ.get(VARIABLE):
    _active = Failpoints(parse(os.environ[VARIABLE]))
