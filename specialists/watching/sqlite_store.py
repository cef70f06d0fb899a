"""A watch's store in one SQLite file, for as many threads and processes of one machine as like.

Every change is one transaction that begins by taking the file's only write lock, so that nothing that another has
written in between is lost. A connection is never inherited by a forked child.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import WatchError
from .book import Audit, Book, Guarded, Key, Waiting

__all__ = ["SqliteStore"]

FORMAT = 1
"""The file's ``user_version``."""

PATIENCE = 10.0
"""Seconds to wait for another process that writes."""

TABLES = (
    "CREATE TABLE certificates (name, certificate, state TEXT NOT NULL, PRIMARY KEY (name, certificate))",
    "CREATE TABLE audits (number INTEGER PRIMARY KEY AUTOINCREMENT, name, certificate, call_id, wrong INTEGER NOT NULL,"
    " auditor, at TEXT NOT NULL, UNIQUE (call_id, name, certificate))",
    "CREATE TABLE waiting (number INTEGER PRIMARY KEY AUTOINCREMENT, name, certificate, call_id, value,"
    " at TEXT NOT NULL, UNIQUE (call_id, name, certificate))",
    "CREATE INDEX audits_of ON audits (name, certificate)",
    "CREATE INDEX waiting_of ON waiting (name, certificate)",
)


class SqliteStore(Guarded):
    """Keeps everything in the SQLite file ``path``, which is made when it is first needed; its folder is not.

    Not for a network's file system: SQLite's locks do not hold there. Raises :class:`WatchError` where the file cannot
    be used, from whatever asked for it.
    """

    stale_after = 0.5

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return SqliteStore, (self._path,)

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """A book to read from. Raises :class:`WatchError`."""
        with self._lock, self._transaction("BEGIN") as book:
            yield book

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """A book to write in. Raises :class:`WatchError`; then nothing of it was kept."""
        with self._lock, self._transaction("BEGIN IMMEDIATE") as book:
            yield book

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            self._let_go()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Book]:
        try:
            connection = self._open()
            connection.execute(begin)
            yield _SqliteBook(connection, self._path)
            connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            self._let_go()
            raise WatchError(self._sentence(error)) from error
        except BaseException:
            # Closing rolls back; an interrupted connection is in no state that is worth keeping.
            self._let_go()
            raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _identity(self._path) == self._file:
                return self._connection
            # What was written from now on would be lost with the file that nobody else can find.
            self._let_go()
            raise WatchError(f"the watch's store {self._path} was removed or replaced while it was used; see who did")
        self._connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        self._prepare(self._connection)
        self._file = _identity(self._path)
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")  # an audit is kept although the power fails
        if self._version(connection) == FORMAT:
            return
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # for this SQLite does not wait by itself
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.execute("BEGIN IMMEDIATE")
        if self._version(connection) != FORMAT:  # nobody else has made the tables meanwhile
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        # In one statement: another process may be making the tables.
        version, tables = connection.execute(
            "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)"
        ).fetchone()
        if version not in (0, FORMAT) or (version == 0 and tables):
            raise WatchError(f"{self._path} is a database of something else than a watch; name another file")
        return int(version)

    def _let_go(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _before_fork(self) -> None:
        self._let_go()  # SQLite's locks belong to the process: a child that inherits them would believe to hold them

    def _sentence(self, error: Exception) -> str:
        told = str(error)
        if "locked" in told or "busy" in told:
            remedy = f"another process has kept it locked for {PATIENCE:g} s; see which"
        elif "not a database" in told or "malformed" in told:
            remedy = "move the file away and begin a new one, or put a copy back"
        elif "full" in told:
            remedy = "make room on the disk"
        elif "unable to open" in told or "readonly" in told or "read-only" in told:
            remedy = "name a file in a folder that exists and may be written"
        else:
            remedy = "see to the file and its disk"
        return f"the watch's store {self._path} cannot be used ({told}): {remedy}"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


class _SqliteBook:
    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, [_stored(value) for value in values]).fetchall()

    def watched(self) -> list[Key]:
        return sorted(_key(row) for row in self._rows("SELECT name, certificate FROM certificates"))

    def state(self, key: Key) -> dict[str, Any] | None:
        rows = self._rows("SELECT state FROM certificates WHERE name = ? AND certificate = ?", *key)
        if not rows:
            return None
        try:
            state = json.loads(rows[0][0])
        except (TypeError, ValueError):
            state = None
        if not isinstance(state, dict):
            raise WatchError(f"the watch's store {self._path} holds a state that is no JSON object; put a copy back")
        return state

    def keep(self, key: Key, state: dict[str, Any]) -> None:
        text = json.dumps(state, allow_nan=False)
        self._rows("INSERT OR REPLACE INTO certificates (name, certificate, state) VALUES (?, ?, ?)", *key, text)

    def audits(self, key: Key) -> list[Audit]:
        sql = "SELECT call_id, wrong, auditor, at FROM audits WHERE name = ? AND certificate = ? ORDER BY number"
        return [_audit(row) for row in self._rows(sql, *key)]

    def audit(self, key: Key, call_id: str) -> Audit | None:
        sql = "SELECT call_id, wrong, auditor, at FROM audits WHERE call_id = ? AND name = ? AND certificate = ?"
        rows = self._rows(sql, call_id, *key)
        return _audit(rows[0]) if rows else None

    def add_audit(self, key: Key, audit: Audit) -> None:
        sql = "INSERT INTO audits (name, certificate, call_id, wrong, auditor, at) VALUES (?, ?, ?, ?, ?, ?)"
        self._rows(sql, *key, *audit)

    def audited_in(self, call_id: str) -> list[Key]:
        return sorted(
            _key(row) for row in self._rows("SELECT name, certificate FROM audits WHERE call_id = ?", call_id)
        )

    def waiting(self, key: Key) -> list[Waiting]:
        sql = "SELECT call_id, value, at FROM waiting WHERE name = ? AND certificate = ? ORDER BY number"
        return [Waiting(_read(row[0]), _read(row[1]), row[2]) for row in self._rows(sql, *key)]

    def waits_in(self, call_id: str) -> list[Key]:
        sql = "SELECT name, certificate FROM waiting WHERE call_id = ?"
        return sorted(_key(row) for row in self._rows(sql, call_id))

    def add_waiting(self, key: Key, waiting: Waiting) -> None:
        sql = "INSERT OR IGNORE INTO waiting (name, certificate, call_id, value, at) VALUES (?, ?, ?, ?, ?)"
        self._rows(sql, *key, *waiting)

    def drop_waiting(self, key: Key, call_id: str) -> None:
        self._rows("DELETE FROM waiting WHERE call_id = ? AND name = ? AND certificate = ?", call_id, *key)


def _stored(value: Any) -> Any:
    """Half a surrogate pair, which JSON can bring, is no text to SQLite: such a string is kept as bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value


def _read(value: Any) -> str:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else str(value)


def _key(row: tuple[Any, ...]) -> Key:
    return Key(_read(row[0]), _read(row[1]))


def _audit(row: tuple[Any, ...]) -> Audit:
    return Audit(_read(row[0]), bool(row[1]), _read(row[2]), row[3])
