"""What the tests of the ledger's file share: a small schema in three versions, and Python in other processes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from brain.storage import Schema, SqliteFile

ROOT = Path(__file__).parents[2]

ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"
ONE = Schema(0x74657374, 1, (ITEMS,))
TWO = Schema(
    0x74657374,
    2,
    ("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size TEXT)",),
    {1: ("ALTER TABLE items ADD COLUMN size TEXT",)},
)
THREE = Schema(
    0x74657374,
    3,
    (
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size TEXT)",
        "CREATE INDEX things_by_size ON things (size)",
    ),
    {
        1: ("ALTER TABLE items ADD COLUMN size TEXT",),
        2: (
            "ALTER TABLE items RENAME TO things",
            "UPDATE things SET size = 'old'",
            "CREATE INDEX things_by_size ON things (size)",
        ),
    },
)

CHILD = f"""
import asyncio, os, sys, threading
from brain.storage import Schema, SqliteFile, failpoint, failpoints
ONE = Schema(0x74657374, 1, ({ITEMS!r},))
def add(name):
    return lambda c: c.execute("INSERT INTO items (name) VALUES (?)", (name,)).lastrowid
"""


def add(name: str) -> Callable[[sqlite3.Connection], int | None]:
    return lambda connection: connection.execute("INSERT INTO items (name) VALUES (?)", (name,)).lastrowid


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM items ORDER BY id")]


def run_python(
    body: str, *arguments: object, child: str = CHILD, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``body`` in a process of its own, after what every ``child`` begins with."""
    return subprocess.run(
        [sys.executable, "-c", child + body, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )


def looks(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file of a folder, and the folder: its bytes, mode and time of change."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest(),
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def start(body: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + body, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


class Blocked:
    """The writer kept busy, until released."""

    def __init__(self, file: SqliteFile) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self.future = file.submit(self._wait)
        assert self._begun.wait(60)

    def _wait(self, connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._go.wait(60)

    def release(self) -> None:
        self._go.set()
