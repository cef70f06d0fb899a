"""SQLite's and the operating system's errors as one sentence that names the file and the remedy."""

from __future__ import annotations

import sqlite3

from ..errors import JournalCorrupt, LedgerError

__all__ = ["complaint", "is_complaint"]

PATIENCE = 10.0
"""Seconds to wait for another process that writes."""

DAMAGED = "it is damaged, or somebody changed it: put a copy back, or move it away and begin a new one"

REMEDIES = {
    sqlite3.SQLITE_BUSY: f"another process has kept it locked for {PATIENCE:g} s: see which one writes for so long",
    sqlite3.SQLITE_LOCKED: "another connection keeps it locked: see which one",
    sqlite3.SQLITE_FULL: "the disk is full: make room",
    sqlite3.SQLITE_IOERR: "the disk or its file system failed: see to it, or name a file elsewhere",
    sqlite3.SQLITE_READONLY: "it may only be read: make the file and its folder writable, or name another",
    sqlite3.SQLITE_CANTOPEN: "name a file in a folder that exists and may be written",
    sqlite3.SQLITE_PERM: "this user may not use it: see to its permissions",
    sqlite3.SQLITE_AUTH: "this user may not use it: see to its permissions",
    sqlite3.SQLITE_NOMEM: "there is no memory left: make room",
    sqlite3.SQLITE_NOLFS: "its file system takes no files of this size: name a file elsewhere",
    sqlite3.SQLITE_PROTOCOL: "too many processes began to use it at once: try again",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FORMAT: DAMAGED,
}
"""By primary result code. What is not here is a mistake in a statement, not a trouble of the file."""

CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


def is_complaint(error: BaseException) -> bool:
    """Whether an error tells of the file and its disk, and not of a mistake in a statement."""
    return isinstance(error, OSError) or (isinstance(error, sqlite3.Error) and _code(error) in REMEDIES)


def complaint(path: str | None, error: BaseException) -> LedgerError:
    """The error that a caller gets for ``error``, which :func:`is_complaint`; its cause is for the caller to set."""
    if isinstance(error, LedgerError):
        return type(error)(*error.args)
    what = "the ledger in memory" if path is None else f"the ledger's file {path}"
    code = _code(error) if isinstance(error, sqlite3.Error) else None
    remedy = REMEDIES.get(code, "see to the file, its folder and its disk") if code is not None else "see to its disk"
    kind = JournalCorrupt if code in CORRUPT else LedgerError
    return kind(f"{what} cannot be used ({error}): {remedy}")


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF
    # Python's own words for a text that is not UTF-8; SQLite does not look.
    return sqlite3.SQLITE_CORRUPT if str(error).startswith("Could not decode to UTF-8") else None
