"""SQLite's and the operating system's errors as one sentence that names the file and the remedy."""

from __future__ import annotations

import errno
import os
import sqlite3

from ..errors import JournalCorrupt, LedgerError

__all__ = ["DAMAGED", "PATIENCE", "complaint", "is_complaint"]

PATIENCE = 10.0
"""Seconds to wait for another process that writes."""

DAMAGED = "it is damaged, or somebody changed it: put a copy back, or move it away and begin a new one"
FULL = "the disk is full: make room"
FORBIDDEN = "make the file and its folder writable, or name another file"

REMEDIES = {
    sqlite3.SQLITE_BUSY: f"it was locked for {PATIENCE:g} s",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: "its disk failed or is full: see to it, or name a file elsewhere",
    sqlite3.SQLITE_READONLY: FORBIDDEN,
    sqlite3.SQLITE_CANTOPEN: "name a file in a folder that exists and may be written",
    sqlite3.SQLITE_PERM: FORBIDDEN,
    sqlite3.SQLITE_AUTH: FORBIDDEN,
    sqlite3.SQLITE_NOMEM: "there is no memory left: make room",
    sqlite3.SQLITE_NOLFS: "its file system takes no files of this size: name a file elsewhere",
    sqlite3.SQLITE_PROTOCOL: "too many processes began to use it at once: try again",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FORMAT: DAMAGED,
}
"""By primary result code. What is not here is a mistake in a statement, not a trouble of the file."""

CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}

SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), FORBIDDEN),
}


def is_complaint(error: sqlite3.Error) -> bool:
    """Whether an error tells of the file and its disk, and not of a mistake in a statement."""
    return _code(error) in REMEDIES


def complaint(path: str | None, error: BaseException) -> LedgerError:
    """A new error for a caller, who sets ``error`` as its cause; ``path`` is ``None`` for a database in memory."""
    if isinstance(error, LedgerError):
        return type(error)(*error.args)
    what = "the ledger in memory" if path is None else f"the ledger's file {path}"
    code = _code(error) if isinstance(error, sqlite3.Error) else None
    if isinstance(error, OSError):
        remedy = SYSTEM.get(error.errno or 0, "see to the file, its folder and its disk")
    else:
        remedy = REMEDIES.get(code or 0, "see to what was written")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        remedy += f" by {_holders(path)}: see why"
    kind = JournalCorrupt if code in CORRUPT else LedgerError
    if code == sqlite3.SQLITE_READONLY and path is not None and _writable(path):
        kind, remedy = JournalCorrupt, DAMAGED  # only a bit in its header says so
    return kind(f"{what} cannot be used ({error or type(error).__name__}): {remedy}")


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF
    # Python's own words for a text that is not UTF-8; SQLite does not look.
    return sqlite3.SQLITE_CORRUPT if str(error).startswith("Could not decode to UTF-8") else None


def _writable(path: str) -> bool:
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)


def _holders(path: str | None) -> str:
    """Who holds locks for writing, as far as Linux tells."""
    holders = set()
    try:
        inodes = {os.stat(f"{path}{end}").st_ino for end in ("", "-shm") if os.path.exists(f"{path}{end}")}
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                fields = line.split()  # 1: POSIX ADVISORY WRITE <pid> <major>:<minor>:<inode> <first> <last>
                if fields[1:4:2] == ["POSIX", "WRITE"] and int(fields[5].rpartition(":")[2]) in inodes:
                    holders.add(int(fields[4]))
    except (OSError, ValueError, IndexError):
        pass
    holders -= {os.getpid()}
    return " and ".join(f"process {pid}" for pid in sorted(holders)) or "another process or connection"
