"""A ledger's file opened: looked at before it is touched, made, migrated, and compared with its schema.

Whatever is not ours is refused and left as it was. What a schema holds is content that SQLite would execute, so a file
of ours whose schema is not what we wrote is refused too. This module knows nothing of what the tables mean.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias
from urllib.parse import quote

from ..errors import JournalCorrupt, LedgerError
from .complaints import DAMAGED, PATIENCE, complaint, is_complaint
from .failpoints import failpoint
from .filesystems import network_file_system

__all__ = ["LOOKS", "Schema", "check_version", "open_file", "open_memory"]

WAL_LIMIT = 16 * 2**20
"""Bytes that the write-ahead log keeps on the disk after it was larger."""

CHECKED, CHECKED_UNCLEAN = 16 * 2**20, 64 * 2**20
"""Bytes up to which a file is read as a whole at opening, for about a millisecond a megabyte; the second is for one
that was not closed cleanly. Damage in a larger one is found when it is met."""

SMALLEST = 512
"""Bytes of the smallest database, which is one page."""

LOOKS = 20
"""How often a file that changes while it is looked at is looked at again."""


@dataclass(frozen=True)
class Schema:
    """What a file holds.

    ``application_id`` (32 bits, not 0) marks a file as ours, ``version`` (from 1) is that of ``statements``, which make
    everything from nothing. ``migrations[n]`` leads from version ``n`` to ``n + 1``; together they must lead to exactly
    what ``statements`` make, whitespace aside. ``functions`` registers SQL functions on each new connection.
    """

    application_id: int
    version: int
    statements: tuple[str, ...]
    migrations: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    functions: Callable[[sqlite3.Connection], None] | None = None

    @cached_property
    def objects(self) -> Objects:
        """The tables and whatever else ``statements`` make."""
        connection = open_memory(self)
        try:
            return _objects(connection)
        finally:
            connection.close()


Objects: TypeAlias = frozenset[tuple[str, str, str, str | None]]

_touching = threading.Lock()
"""Held while a file is made: closing any descriptor of a file drops all of this process's POSIX locks on it."""


def open_memory(schema: Schema) -> sqlite3.Connection:
    """A new database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
    _guard(connection, schema)
    for statement in schema.statements:
        connection.execute(statement)
    return connection


def open_file(path: str, schema: Schema, *, durable: bool, read_only: bool, check: bool) -> sqlite3.Connection:
    """A connection to the file at the real ``path``, which is made when it is not there; its folder is not.

    ``check``: look for damage in all of the file, when it is not large. Raises :class:`LedgerError`, and then the file
    is as it was; :class:`JournalCorrupt` when it is damaged.
    """
    made = _look(path, schema)
    try:
        # mode=rw: should the file be gone by now, SQLite must not make one with other permissions.
        connection = sqlite3.connect(
            _uri(path, "mode=rw"),
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise complaint(path, error) from error
    try:
        _prepare(connection, path, schema, durable=durable, check=check)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException as error:
        connection.close()
        if made:
            _unmake(path)
        if isinstance(error, sqlite3.Error) and not is_complaint(error) and not made:
            raise _damaged(path, error) from error  # a header that SQLite does not understand
        if isinstance(error, (sqlite3.Error, OSError)):
            raise complaint(path, error) from error
        raise
    return connection


def check_version(connection: sqlite3.Connection, path: str, schema: Schema) -> None:
    """Within a transaction: that nobody has migrated the file since it was opened. Raises :class:`LedgerError`."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != schema.version:
        raise _later(path, version, schema)


def _look(path: str, schema: Schema) -> bool:
    """That the file is ours or new, without touching it. Whether it was made, empty, because there was none."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise LedgerError(f"the folder {folder} of the ledger's file does not exist: make it, or name another file")
    kind = network_file_system(path)
    if kind is not None:
        raise LedgerError(
            f"the ledger's file {path} lies on a network file system ({kind}), where locks do not hold: name a file on"
            " a disk of this machine"
        )
    try:
        info = os.stat(path)
    except FileNotFoundError:
        info = None
    except OSError as error:
        raise complaint(path, error) from error
    if info is not None and not stat.S_ISREG(info.st_mode):
        what = "a folder" if stat.S_ISDIR(info.st_mode) else "no regular file"
        raise LedgerError(f"{path} is {what}: name a file for the ledger")
    if not _may(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LedgerError(f"the ledger's folder {folder} may not be written: make it writable, or name another file")
    if info is not None and not _may(path, os.R_OK | os.W_OK):
        raise LedgerError(f"the ledger's file {path} may not be read and written: make it writable, or name another")
    with _touching:
        if info is None:
            return _make(path)
    if 0 < info.st_size < SMALLEST:  # SQLite would take it for an empty one, and write over it
        raise _damaged(path, "file is not a database")
    if info.st_size:
        _inspect(path, schema)
    elif _size(f"{path}-wal"):
        raise _damaged(path, "it is empty, but its write-ahead log is not")
    return False


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _make(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise complaint(path, error) from error
    return True


def _unmake(path: str) -> None:
    """Remove the file that was made and could not be filled, unless another process has begun to fill it."""
    with suppress(OSError):
        if os.stat(path).st_size == 0 and not os.path.exists(f"{path}-journal"):
            os.unlink(path)


def _inspect(path: str, schema: Schema) -> None:
    """That the file is ours, by its header, and not of a later version."""
    looks = LOOKS
    while True:
        looks -= 1
        log = os.path.exists(f"{path}-wal")
        try:
            state = _header(path, schema, log)
            break
        except sqlite3.Error as error:
            # Another process may have begun to write meanwhile, and show us half of it.
            if not looks or not (log or os.path.exists(f"{path}-wal")):
                raise (complaint(path, error) if is_complaint(error) else _damaged(path, error)) from error
            time.sleep(0.005)
    _check_ours(path, schema, *state)
    if not any(state) and _size(f"{path}-wal"):  # ours bears its mark before it has a log
        raise _foreign(path)


def _header(path: str, schema: Schema, log: bool) -> tuple[int, int, int]:
    """The mark, the version, and how much else there is, if the mark is not ours: without a lock, and touching nothing.

    Through SQLite, since closing a descriptor of our own would drop the locks of this process's connections. With a
    ``log``, the file may be shorter than its header says: what has come half way into it will come again.
    """
    connection = sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None)
    try:
        if log:
            connection.execute("PRAGMA writable_schema = ON")  # then SQLite does not insist on the size
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        if application == schema.application_id:
            return application, version, 0
        return application, version, _state(connection)[2]
    finally:
        connection.close()


def _check_ours(path: str, schema: Schema, application: int, version: int, objects: int) -> None:
    if application != schema.application_id:
        if application or version or objects:
            raise _foreign(path)
    elif version < 1:
        raise _damaged(path, "it has no version")
    elif version > schema.version:
        raise _later(path, version, schema)


def _foreign(path: str) -> LedgerError:
    return LedgerError(f"{path} is a database of something else than a ledger: name another file")


def _damaged(path: str, why: object) -> JournalCorrupt:
    return JournalCorrupt(f"the ledger's file {path} cannot be used ({why}): {DAMAGED}")


def _later(path: str, version: int, schema: Schema) -> LedgerError:
    return LedgerError(
        f"the ledger's file {path} has format {version}, written by a later version of this package, which reads up to"
        f" {schema.version}: upgrade the package, or name another file"
    )


def _uri(path: str, options: str) -> str:
    encoded = quote(os.fsencode(path)) if os.sep == "/" else "/" + quote(path.replace(os.sep, "/"))
    return f"file:{encoded}?{options}"


def _guard(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if hasattr(connection, "setconfig"):  # Python 3.12
        connection.setconfig(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009
    if schema.functions is not None:
        schema.functions(connection)


def _prepare(connection: sqlite3.Connection, path: str, schema: Schema, *, durable: bool, check: bool) -> None:
    check = check and _size(path) <= (CHECKED_UNCLEAN if _size(f"{path}-wal") else CHECKED)
    _guard(connection, schema)
    state = _state(connection)
    _check_ours(path, schema, *state)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    if durable:  # macOS; nothing elsewhere
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    if not any(state):
        _create(connection, path, schema)
    _use_wal(connection, path)
    if _state(connection)[1] < schema.version:
        _migrate(connection, path, schema)
    if _objects(connection) != schema.objects:
        raise _damaged(path, "its tables are not those that it was made with")
    if check:
        ((found,),) = connection.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise _damaged(path, found)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _state(connection: sqlite3.Connection) -> tuple[int, int, int]:
    # In one statement: another process may be making the tables.
    row = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),"
        " (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create(connection: sqlite3.Connection, path: str, schema: Schema) -> None:
    # Before the write-ahead log is used, so that the file itself always bears its mark.
    with _transaction(connection):
        application, version, objects = _state(connection)
        _check_ours(path, schema, application, version, objects)
        if application:
            return  # somebody else was faster
        for statement in schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {int(schema.application_id)}")
        connection.execute(f"PRAGMA user_version = {int(schema.version)}")
        failpoint("storage.before_creation_commit")


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:  # for this SQLite does not wait by itself
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise LedgerError(f"the ledger's file {path} takes no write-ahead log, but stays in mode {mode}: name another")


def _migrate(connection: sqlite3.Connection, path: str, schema: Schema) -> None:
    begun = version = 0
    try:
        with _transaction(connection):
            begun = version = _state(connection)[1]
            _check_ours(path, schema, *_state(connection))
            while version < schema.version:
                if version not in schema.migrations:
                    raise LedgerError(
                        f"the ledger's file {path} has format {version}, which this version of the package no longer"
                        " reads: migrate it with an earlier one, or name another file"
                    )
                for statement in schema.migrations[version]:
                    connection.execute(statement)
                failpoint("storage.during_migration")
                version += 1
            if _objects(connection) != schema.objects:
                raise _damaged(path, f"its tables of format {begun} do not become those of format {version}")
            connection.execute(f"PRAGMA user_version = {int(version)}")
            failpoint("storage.before_migration_commit")
    except sqlite3.Error as error:
        if is_complaint(error):
            raise
        raise LedgerError(
            f"the ledger's file {path} cannot be migrated from format {version} ({error}); it is left as it was: use"
            " the version of the package that wrote it, or name another file"
        ) from error
    with suppress(sqlite3.Error):
        # So that the file itself bears its version; whoever looks before touching reads nothing else.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


_TOKENS = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|\s+|\w+|.""", re.DOTALL
)


def _objects(connection: sqlite3.Connection) -> Objects:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return frozenset(
        (str(kind), str(name), str(table), None if sql is None else _plain(str(sql)))
        for kind, name, table, sql in rows
        if not str(name).startswith("sqlite_stat")  # made by ANALYZE
    )


def _plain(sql: str) -> str:
    """Without whitespace, comments and needless quotes, which ALTER TABLE leaves otherwise than CREATE TABLE."""
    tokens = []
    for token in _TOKENS.findall(sql):
        if token.isspace() or token.startswith(("--", "/*")):
            continue
        tokens.append(token[1:-1] if re.fullmatch(r'"\w+"', token) else token)
    return " ".join(tokens)


def _after_fork() -> None:
    global _touching
    _touching = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
