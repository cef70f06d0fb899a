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
from .opening import LOOKS, Schema, check_version, open_file, open_memory
from .workers import Task, Worker, no_more_threads

__all__ = ["Schema", "SqliteFile"]

T = TypeVar("T")


class _Lane:
    """A connection, the lock that whoever uses it holds, and the thread that runs a work on it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.schema_version: int | None = None
        self.thread: int | None = None
        self._held = False

    def let_go(self) -> None:
        """With the lock held: closed, and what was not committed is undone."""
        connection, self.connection, self.schema_version = self.connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def hold(self, *, in_memory: bool) -> None:
        """Before a fork. SQLite's locks belong to the process: a child that inherited one would believe to hold it."""
        self._held = self.lock.acquire(timeout=FORK_PATIENCE)
        if self._held and self.thread is None and not in_memory:
            self.let_go()

    def release(self) -> None:
        """After a fork, in the parent."""
        if self._held:
            self.lock.release()

    def renew(self, *, in_memory: bool) -> bool:
        """After a fork, in the child. Whether nothing of the parent's is in the way."""
        clean = self._held and self.thread is None
        if clean and in_memory:
            self.let_go()
        elif self.connection is not None:
            _inherited.append(self.connection)  # never closed: that is the parent's business
        self.lock = threading.RLock()
        self.connection = self.schema_version = self.thread = None
        return clean


FORK_PATIENCE = 30.0
"""Seconds that a fork waits for a work in progress. A child of one that had to go on without cannot use the file."""

_inherited: Final[list[sqlite3.Connection]] = []
_spoilt: Final[set[str]] = set()
"""Files whose locks this process believes to hold, since its parent held them."""


class SqliteFile:
    """One database: the file ``path``, made when it is first used (its folder is not), or one in memory for ``None``.

    ``durable``: what was written outlives a power cut too, for the price of a synchronous write each time. A work is a
    function of a connection; it executes statements, begins and commits nothing, gives back values rather than cursors,
    and does not use the ``SqliteFile`` itself. Safe from any thread and any event loop. Every use raises
    :class:`LedgerError` where the file cannot be used, and :class:`JournalCorrupt` where it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None, schema: Schema, *, durable: bool = False) -> None:
        self.path: Final = None if path is None else _absolute(path)
        self._schema = schema
        self._durable = durable
        self._real: str | None = None
        self._token: str | None = None
        self._identity: tuple[int, int] | None = None
        self._checked = False
        self._writing = _Lane()
        self._reading = _Lane()
        self._writer = Worker("brain ledger writer", self._write_all)
        self._reader = Worker("brain ledger reader", self._read_all)
        weakref.finalize(self, _let_go, self._writing, self._reading).atexit = False
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
        if self.path is not None:
            return liveness.token(self._home())
        if self._token is None:
            self._token = liveness.new_token()
        return self._token

    def claim(self) -> str:
        """Make sure that other processes see that this one lives, until it ends; gives back :attr:`owner`.

        Raises :class:`LedgerError`.
        """
        if self.path is None:
            return self.owner
        if self._identity is None:  # nothing is made beside a file that is not ours
            with self._reading.lock:
                self._ready(self._reading)
        return liveness.claim(self._home())

    def is_alive(self, owner: str) -> bool:
        """Whether the process that claimed ``owner`` still lives, on this machine; ``False`` for what is no token.

        Raises :class:`LedgerError` when it cannot be known.
        """
        return owner == self.owner if self.path is None else liveness.is_alive(self._home(), owner)

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run ``work`` within a write transaction; the future is done once it is committed, and cannot be cancelled.

        A work that raises is undone, alone, and its future raises the same. Should the file fail, the futures of all
        that was written in one transaction raise :class:`LedgerError`, and nothing of it is kept. Raises
        ``RuntimeError`` within a work.
        """
        self._refuse_inside()
        task = Task(work)
        if self.path is not None:
            self._writer.hand(task)
            return task.promise
        try:
            task.value = self._at_once(work, writes=True)
        except Exception as error:
            task.error = error
        task.tell()
        return task.promise

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`submit`, and wait. A cancellation ends the waiting, not the writing."""
        if self.path is None:
            return self._at_once(work, writes=True)
        return await asyncio.wrap_future(self.submit(work))

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`submit`, and wait."""
        if self.path is None:
            return self._at_once(work, writes=True)
        if not self._writer.is_current():
            return self.submit(work).result()
        self._refuse_inside()
        task = Task(work)  # a future's callback, which would wait for itself
        self._write_all([task])
        return task.promise.result()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a snapshot that shows everything committed before; what it writes is not kept, or refused."""
        if self.path is None:
            return self._at_once(work, writes=False)
        self._refuse_inside()
        task = Task(work)
        self._reader.hand(task)
        return await asyncio.wrap_future(task.promise)

    def read_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """:meth:`read`, on this thread."""
        return self._at_once(work, writes=False) if self.path is None else self._read(work)

    def close(self) -> None:
        """Wait until everything submitted is written, and let go of the file; a later use opens it again.

        A database in memory is gone then. Raises ``RuntimeError`` within a work.
        """
        self._refuse_inside()
        self._writer.finish()
        self._reader.finish()
        for lane in (self._writing, self._reading):
            with lane.lock:
                lane.let_go()
        self._identity, self._checked = None, False

    def _home(self) -> str:
        """What the path really is, once for all: a link that is turned later leads nowhere else."""
        if self._real is None:
            self._real = os.path.realpath(self.path or "")
        return self._real

    def _refuse_inside(self) -> None:
        if threading.get_ident() in (self._writing.thread, self._reading.thread):
            raise RuntimeError("a work must not use the ledger's file itself: it is within a transaction")

    def _ready(self, lane: _Lane) -> sqlite3.Connection:
        """The lane's connection, with its lock held."""
        real = self._home()
        if real in _spoilt:
            raise LedgerError(f"{real} was being written when this process was forked: fork earlier, or spawn")
        if self._identity is not None and self._identity != _identity(real):
            # What was written from now on would be lost with the file that nobody else can find.
            lane.let_go()
            raise LedgerError(f"the ledger's file {real} was removed or replaced while it was used: see who did")
        if lane.connection is None:
            lane.connection = open_file(
                real,
                self._schema,
                durable=self._durable,
                read_only=lane is self._reading,
                check=not self._checked,
            )
            self._identity, self._checked = _identity(real), True
        return lane.connection

    def _begin(self, lane: _Lane, begin: str) -> sqlite3.Connection:
        """A connection in a transaction of its own, to a file that is still what it was when it was opened."""
        for _ in range(LOOKS):
            connection = self._ready(lane)
            connection.execute(begin)
            ((version,),) = connection.execute("PRAGMA schema_version")
            if lane.schema_version is None:
                lane.schema_version = version
            if lane.schema_version == version:
                check_version(connection, self._home(), self._schema)
                return connection
            lane.let_go()  # somebody changed the tables; opening it again compares them
        raise LedgerError(f"the tables of the ledger's file {self._home()} are changed again and again: see who does")

    def _at_once(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        """In memory, on this thread."""
        self._refuse_inside()
        lane = self._writing
        with lane.lock:
            connection = lane.connection
            if connection is None:
                connection = lane.connection = open_memory(self._schema)
            try:
                lane.thread = threading.get_ident()
                connection.execute("BEGIN")
                try:
                    value = work(connection)
                except sqlite3.Error as error:
                    if is_complaint(error):
                        raise complaint(None, error) from error
                    raise
                if writes:
                    _commit(connection, None)
                else:
                    connection.execute("ROLLBACK")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                lane.thread = None
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
        begun = 0
        try:
            connection = self._begin(lane, "BEGIN IMMEDIATE")
            lane.thread = threading.get_ident()
            for task in tasks:
                begun += 1
                self._within(connection, task)
                if not connection.in_transaction:
                    # A full disk undoes all of it at once, and a work that commits deserves no better.
                    raise LedgerError(f"a transaction in {self._home()} was lost: {task.error or 'a work ended it'}")
            _commit(connection, self._home())
        except BaseException as error:
            lane.thread = None
            lane.let_go()  # which rolls back
            begun = begun or len(tasks)
            for task in tasks[:begun]:
                if task.error is None:  # one of its own each, since several threads may raise them at once
                    task.error = complaint(self._home(), error)
                    task.error.__cause__ = error.__cause__ or error
        lane.thread = None
        return begun

    def _within(self, connection: sqlite3.Connection, task: Task[Any]) -> None:
        """Run one work, so that it can be undone alone."""
        connection.execute("SAVEPOINT work")
        try:
            task.value = task.work(connection)
        except BaseException as error:
            task.error = error
            if isinstance(error, sqlite3.Error) and is_complaint(error):
                task.error = complaint(self._home(), error)
                task.error.__cause__ = error
            if not connection.in_transaction:
                return
            connection.execute("ROLLBACK TO work")
        if connection.in_transaction:
            connection.execute("RELEASE work")

    def _read_all(self, tasks: list[Task[Any]]) -> None:
        for task in tasks:
            try:
                task.value = self._read(task.work)
            except BaseException as error:
                task.error = error
            task.tell()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._refuse_inside()
        lane = self._reading
        with lane.lock:
            try:
                connection = self._begin(lane, "BEGIN")
                lane.thread = threading.get_ident()
                value = work(connection)
                connection.execute("ROLLBACK")
                return value
            except BaseException as error:
                lane.let_go()
                if isinstance(error, sqlite3.Error) and is_complaint(error) and not _wrote(error):
                    raise complaint(self._home(), error) from error
                raise
            finally:
                lane.thread = None

    def _hold(self) -> None:
        for lane in (self._writing, self._reading):
            lane.hold(in_memory=self.path is None)
        for worker in (self._writer, self._reader):
            worker.hold()

    def _release(self) -> None:
        for worker in (self._writer, self._reader):
            worker.release()
        for lane in (self._writing, self._reading):
            lane.release()

    def _renew(self) -> None:
        self._token = self._identity = None
        self._checked = False
        for worker in (self._writer, self._reader):
            worker.abandon()
        clean = [lane.renew(in_memory=self.path is None) for lane in (self._writing, self._reading)]
        if self.path is not None and not all(clean):
            _spoilt.add(self._home())


def _wrote(error: sqlite3.Error) -> bool:
    """Whether a work tried to write where it may only read: a mistake of its own, and no trouble of the file."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY


def _commit(connection: sqlite3.Connection, path: str | None) -> None:
    try:
        failpoint("storage.before_commit")
        connection.execute("COMMIT")
    except Exception as error:
        raise complaint(path, error) from error
    failpoint("storage.after_commit")


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
_held: list[SqliteFile] = []


def _files() -> list[SqliteFile]:
    while True:
        try:
            return sorted(_living, key=id)
        except RuntimeError:  # another thread made one meanwhile; a lock here would be one more that a fork waits for
            continue


def _hold() -> None:
    for file in _files():
        file._hold()
        _held.append(file)


def _release() -> None:
    while _held:
        _held.pop()._release()


def _renew() -> None:
    while _held:
        _held.pop()._renew()


def _at_exit() -> None:
    no_more_threads()
    for file in _files():
        if file.path is not None:
            file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)

# Unlike `atexit`, this comes before threads are waited for, and in multiprocessing's children too.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
