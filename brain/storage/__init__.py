"""The ledger's store: one SQLite file, or a database in memory. What is written in it is found in its modules."""

from __future__ import annotations

from .database import Schema, SqliteFile
from .failpoints import failpoint, failpoints

__all__ = ["Schema", "SqliteFile", "failpoint", "failpoints"]
