"""Watching a certificate in service: audits that may revoke it, and a test that warns when confidences drift."""

from .book import Book, Key, MemoryStore, Store, Waiting
from .sqlite_store import SqliteStore
from .state import Alarm, Watched, WatchStatus
from .watch import Watch

__all__ = [
    "Alarm",
    "Book",
    "Key",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "Waiting",
    "Watch",
    "WatchStatus",
    "Watched",
]
