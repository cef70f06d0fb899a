"""The tables of a ledger's file, and how the files of earlier versions become those of this one.

Money is text with all its digits, times are whole microseconds; ``money_sum`` adds up and keeps every digit.
"""

from __future__ import annotations

import sqlite3
from decimal import Decimal, InvalidOperation

from specialists.costs import EXACT

from .database import Schema

__all__ = ["SCHEMA"]

STATEMENTS = (
    "CREATE TABLE attempts (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
    " name TEXT NOT NULL, run TEXT, parent_run TEXT, session TEXT, tenant TEXT, call TEXT, tool TEXT, rung TEXT,"
    " answered TEXT, endpoint TEXT, at TEXT NOT NULL, outcome TEXT, low TEXT NOT NULL, high TEXT, price TEXT,"
    " source TEXT, usage TEXT, seconds REAL, cpu_seconds REAL, cpu_seconds_low REAL, confidence REAL, verdict TEXT,"
    " steps INTEGER, policy TEXT, certificate TEXT, audit INTEGER NOT NULL, details TEXT, owner TEXT)",
    "CREATE INDEX attempts_of_run ON attempts (run)",
    # What each account bears for an attempt, so that it can be given back or made exact later.
    "CREATE TABLE charges (attempt TEXT NOT NULL, account TEXT NOT NULL, usd TEXT NOT NULL,"
    " microseconds INTEGER NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (attempt, account)) WITHOUT ROWID",
    "CREATE TABLE accounts (id TEXT PRIMARY KEY, label TEXT NOT NULL, usd TEXT NOT NULL,"
    " microseconds INTEGER NOT NULL, calls INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE runs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT, session TEXT,"
    " parent_run TEXT, status TEXT NOT NULL, fence INTEGER NOT NULL, owner TEXT, begun TEXT NOT NULL, ended TEXT,"
    " reason TEXT, salt TEXT NOT NULL, request TEXT NOT NULL, result TEXT)",
    "CREATE TABLE steps (number INTEGER PRIMARY KEY, run TEXT NOT NULL, step TEXT NOT NULL, name TEXT NOT NULL,"
    " effect TEXT NOT NULL, key TEXT NOT NULL, arguments TEXT, schema TEXT, times INTEGER NOT NULL,"
    " begun TEXT NOT NULL, ended TEXT, result TEXT, UNIQUE (run, step))",
)


class _MoneySum:
    """The sum of amounts written as text. An amount that is none makes the sum ``NULL``."""

    def __init__(self) -> None:
        self._sum: Decimal | None = Decimal(0)

    def step(self, amount: object) -> None:
        if self._sum is not None:
            try:
                self._sum = None if not isinstance(amount, str) else EXACT.add(self._sum, Decimal(amount))
            except (InvalidOperation, ArithmeticError):
                self._sum = None

    def finalize(self) -> str | None:
        return None if self._sum is None else f"{self._sum:f}"


def _register(connection: sqlite3.Connection) -> None:
    connection.create_aggregate("money_sum", 1, _MoneySum)  # type: ignore[arg-type]


SCHEMA = Schema(
    application_id=0x62726E6C,  # "brnl"
    version=1,
    statements=STATEMENTS,
    migrations={},
    functions=_register,
)
