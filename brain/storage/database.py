"""The one SQLite file under the ledger and the journal, or a database in memory: who writes in it, and when.

A file has one writer thread, so that an event loop never waits for a disk; whatever waits is written in one
transaction. In memory a work runs at once, on the thread that asks, under a lock. A forked child begins afresh: its
connections, threads and token are its own, and a database in memory is empty there. This module knows nothing of what
is written.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from ..errors import LedgerError
from . import liveness
from .complaints import complaint, is_complaint
from .failpoints import failpoint
from .opening import Schema, check_version, open_file, open_memory
from .workers import Task, Worker, no_more_threads

__all__ = ["Schema", "SqliteFile"]

T = TypeVar("T")


class _Lane:
    """A connection, and the lock that whoever uses it holds."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.identity: tuple[int, int] | None = None

    def let_go(self) -> None:
        """With the lock held."""
        connection, self.connection, self.identity = self.connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def hold(self) -> None:
        """Before a fork. SQLite's locks belong to the process: a child that inherited one would believe to hold it."""
        self.lock.acquire()
        if self.identity is not None and self.connection is not None and not self.connection.in_transaction:
            self.let_go()

    def renew(self) -> None:
        """In a forked child."""
        if self.connection is not None:
            _inherited.append(self.connection)  # closing it would be its parent's business
        self.lock = threading.RLock()
        self.connection = self.identity = None


_inherited: Final[list[sqlite3.Connection]] = []


class SqliteFile:
    """One database: the file ``path``, made when it is first used (its folder is not), or one in memory for ``None``.

    ``durable``: what was written outlives a power cut too, for the price of a synchronous write each time. A work is a
    function of a connection; it executes statements, begins and commits nothing, gives back values rather than cursors,
    and does not use the ``SqliteFile`` itself. Safe from any thread and any event loop. Every use raises
    :class:`LedgerError` where the file cannot be used, and :class:`JournalCorrupt` where it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None, schema: Schema, *, durable: bool = False) -> None:
        self.path: Final = None if path is None else _absolute(path)
        self._given = path
        self._schema = schema
        self._durable = durable
        self._real: str | None = None
        self._writing = _Lane()
        self._reading = _Lane()
        self._writer = Worker("brain ledger writer", self._write_all)
        self._reader = Worker("brain ledger reader", self._read_all)
        self._inside: int | None = None  # the thread that runs a work
        weakref.finalize(self, _let_go, self._writing, self._reading).atexit = False
        with _roll:
            _living.add(self)

    def __repr__(self) -> str:
        return f"SqliteFile({self.path!r})"

    def __reduce__(self) -> tuple[object, ...]:
        if self.path is None:
            raise TypeError("a ledger in memory cannot be shared with another process: name a file")
        return _again, (self.path, self._schema, self._durable)

    @property
    def owner(self) -> str:
        """A token for this process and this file; another in a forked child."""
        return liveness.token(self._home())

    def claim(self) -> str:
        """Make sure that other processes see that this one lives, until it ends; gives back :attr:`owner`.

        Raises :class:`LedgerError`.
        """
        if self.path is None:
            return self.owner
        with self._reading.lock:
            self._ready(self._reading)
        return liveness.claim(self._home())

    def is_alive(self, owner: str) -> bool:
        """Whether the process that claimed ``owner`` still lives, on this machine; ``False`` for what is no token.

        Raises :class:`LedgerError` when it cannot be known.
        """
        if self.path is None:
            return owner == self.owner
        return liveness.is_alive(self._home(), owner)

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run ``work`` within a write transaction; the future is done once it is committed, and cannot be cancelled.

        A work that raises is undone, alone, and its future raises the same. Raises ``RuntimeError`` within a work.
        """
        task = Task(work)
        if self.path is None:
            try:
                task.value = self._at_once(work, "COMMIT")
            except Exception as error:
                task.error = error
            task.tell()
        else:
            self._refuse_inside()
            self._writer.hand(task)
        return task.promise

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`submit`, and wait. A cancellation ends the waiting, not the writing."""
        if self.path is None:
            return self._at_once(work, "COMMIT")
        return await asyncio.wrap_future(self.submit(work))

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`submit`, and wait."""
        if self.path is None:
            return self._at_once(work, "COMMIT")
        return self.submit(work).result()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a snapshot that shows everything committed before; it cannot write."""
        if self.path is None:
            return self._at_once(work, "ROLLBACK")
        self._refuse_inside()
        task = Task(work)
        self._reader.hand(task)
        return await asyncio.wrap_future(task.promise)

    def read_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`read`, on this thread."""
        if self.path is None:
            return self._at_once(work, "ROLLBACK")
        return self._read(work)

    def close(self) -> None:
        """Wait until everything submitted is written, and let go of the file; a later use opens it again.

        A database in memory is gone then.
        """
        self._writer.finish()
        self._reader.finish()
        for lane in (self._writing, self._reading):
            with lane.lock:
                lane.let_go()

    def _home(self) -> str:
        """What the path really is, once for all: a link that is turned later leads nowhere else."""
        if self._real is None:
            self._real = f":memory:{id(self)}" if self.path is None else os.path.realpath(self.path)
        return self._real

    def _refuse_inside(self) -> None:
        if self._inside is not None and self._inside == threading.get_ident():
            raise RuntimeError("a work must not use the ledger's file itself: it is within a transaction")

    def _ready(self, lane: _Lane) -> sqlite3.Connection:
        """The lane's connection, with its lock held."""
        real = self._home()
        if lane.connection is not None:
            if lane.identity == _identity(real):
                return lane.connection
            # What was written from now on would be lost with the file that nobody else can find.
            lane.let_go()
            raise LedgerError(f"the ledger's file {real} was removed or replaced while it was used: see who did")
        read_only = lane is self._reading
        lane.connection = open_file(real, self._schema, durable=self._durable, read_only=read_only)
        lane.identity = _identity(real)
        return lane.connection

    def _at_once(self, work: Callable[[sqlite3.Connection], T], end: str) -> T:
        lane = self._writing
        with lane.lock:
            connection = lane.connection
            if connection is None:
                connection = lane.connection = open_memory(self._schema)
            if connection.in_transaction:
                raise RuntimeError("a work must not use the ledger's file itself: it is within a transaction")
            connection.execute("BEGIN")
            try:
                value = work(connection)
                if end == "COMMIT":
                    failpoint("storage.before_commit")
                connection.execute(end)
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if is_complaint(error) and not isinstance(error, OSError):
                    raise complaint(None, error) from error
                raise
        if end == "COMMIT":
            failpoint("storage.after_commit")
        return value

    def _write_all(self, tasks: list[Task[Any]]) -> None:
        left = tasks
        while left:
            with self._writing.lock:
                done = self._transact(left)
            for task in left[:done]:
                task.tell()
            left = left[done:]

    def _transact(self, tasks: list[Task[Any]]) -> int:
        """Write them in one transaction; how many of them have ended. None of them raises here."""
        lane = self._writing
        ended = 0
        try:
            connection = self._ready(lane)
            connection.execute("BEGIN IMMEDIATE")
            check_version(connection, self._home(), self._schema)
            for task in tasks:
                ended += 1
                if not self._within(connection, task, alone=len(tasks) == 1):
                    break
            if connection.in_transaction:
                failpoint("storage.before_commit")
                connection.execute("COMMIT")
                failpoint("storage.after_commit")
                return ended
            raise LedgerError(f"a transaction in {self._home()} was lost: see the error of what was written with it")
        except BaseException as error:
            lane.let_go()  # which rolls back
            for task in tasks[: ended or len(tasks)]:
                if task.error is None:
                    task.error = self._as_told(error)
            return ended or len(tasks)

    def _within(self, connection: sqlite3.Connection, task: Task[Any], *, alone: bool) -> bool:
        """Run one work; whether the transaction still stands."""
        connection.execute("SAVEPOINT work")
        self._inside = threading.get_ident()
        try:
            task.value = task.work(connection)
        except BaseException as error:
            task.error = self._as_told(error)
            if not connection.in_transaction:  # a full disk undoes everything at once
                return False
            connection.execute("ROLLBACK TO work")
        finally:
            self._inside = None
        connection.execute("RELEASE work")
        return True

    def _read_all(self, tasks: list[Task[Any]]) -> None:
        for task in tasks:
            try:
                task.value = self._read(task.work)
            except BaseException as error:
                task.error = error
            task.tell()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        lane = self._reading
        with lane.lock:
            if lane.connection is not None and lane.connection.in_transaction:
                raise RuntimeError("a work must not use the ledger's file itself: it is within a transaction")
            try:
                connection = self._ready(lane)
                connection.execute("BEGIN")
                check_version(connection, self._home(), self._schema)
                value = work(connection)
                connection.execute("ROLLBACK")
                return value
            except BaseException as error:
                lane.let_go()
                if isinstance(error, sqlite3.Error) and is_complaint(error):
                    raise complaint(self._home(), error) from error
                raise

    def _as_told(self, error: BaseException) -> BaseException:
        """What a caller gets: an error of its own, since several may raise it at once."""
        if isinstance(error, LedgerError) or (isinstance(error, sqlite3.Error) and is_complaint(error)):
            told = complaint(self._home(), error)
            told.__cause__ = error
            return told
        return error

    def _hold(self) -> None:
        for lane in (self._writing, self._reading):
            lane.hold()
        for worker in (self._writer, self._reader):
            worker.hold()

    def _release(self) -> None:
        for worker in (self._writer, self._reader):
            worker.release()
        for lane in (self._writing, self._reading):
            lane.lock.release()

    def _renew(self) -> None:
        self._inside = None
        for worker in (self._writer, self._reader):
            worker.abandon()
        for lane in (self._writing, self._reading):
            lane.renew()


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fsdecode(path)
    if not text or "\0" in text or text == ":memory:":
        raise LedgerError(f"{text!r} is no path for the ledger's file: name a file, or give None for one in memory")
    return os.path.abspath(text)


def _again(path: str, schema: Schema, durable: bool) -> SqliteFile:
    return SqliteFile(path, schema, durable=durable)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _let_go(*lanes: _Lane) -> None:
    for lane in lanes:
        lane.let_go()


_living: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_roll = threading.RLock()
_held: list[SqliteFile] = []


def _hold() -> None:
    _roll.acquire()
    for file in sorted(_living, key=id):
        file._hold()
        _held.append(file)


def _release() -> None:
    while _held:
        _held.pop()._release()
    _roll.release()


def _renew() -> None:
    global _roll
    _roll = threading.RLock()
    while _held:
        _held.pop()._renew()


def _at_exit() -> None:
    no_more_threads()
    with _roll:
        files = list(_living)
    for file in files:
        file.close() if file.path is not None else None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)

# Unlike `atexit`, this comes before threads are waited for, and in multiprocessing's children too.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
