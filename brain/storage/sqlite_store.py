"""A store in one SQLite file, or in memory: applies changes, each list in one transaction. See :mod:`.changes`.

Accounts are read, compared and written within the transaction that holds the file's only write lock, so that no two
reservations can both take the same room, whichever threads or processes they come from.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from typing import Any

from specialists import Cost, strict_json
from specialists.costs import EXACT

from ..errors import BudgetExceeded, JournalCorrupt, LedgerError, RunBusy, RunTaken, UnknownRun
from ..keys import redact
from .changes import (
    Allowance,
    Begin,
    Begun,
    Change,
    Commit,
    Finish,
    Intend,
    Note,
    Release,
    Reserve,
    RunRow,
    Settle,
    Spent,
    StepRow,
    Sum,
    SumBy,
)
from .database import SqliteFile
from .notes import Notes
from .rows import COLUMNS, LedgerRow, now
from .schema import SCHEMA

__all__ = ["KEPT_IN_MEMORY", "SqliteStore"]

KEPT_IN_MEMORY = 10_000
"""Rows that a ledger in memory keeps singly, so that it does not grow for ever."""
PRUNED_EVERY = 1_000
"""Lists of changes after which a ledger in memory is looked through for rows to let go of."""

_LIST = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO attempts ({_LIST}) VALUES ({', '.join('?' * len(COLUMNS))})"
_UPDATE = f"UPDATE attempts SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE id = ?"
_RUN = "id, tenant, session, parent_run, status, fence, owner, begun, ended, reason, salt, request, result"
_STEP = "run, step, name, effect, key, arguments, schema, times, begun, ended, result"
_KEYS = {
    "all": ("'all'", ""),
    "run": ("run", ""),
    "call": ("run || '/' || call", ""),
    "model": ("name", "kind = 'model'"),
    "specialist": ("name", "kind IN ('specialist', 'function')"),
    "session": ("session", ""),
    "tenant": ("tenant", ""),
    "day": ("substr(at, 1, 10)", ""),
    "kind": ("kind", ""),
}
_SUMS = (
    "COUNT(*), money_sum(low), money_sum(COALESCE(high, low)), SUM(high IS NULL), SUM(outcome IS NULL),"
    " TOTAL(seconds), TOTAL(cpu_seconds), "
    + ", ".join(
        f"SUM(json_extract(usage, '$.{name}'))"
        for name in ("input", "output", "cache_read", "cache_write", "reasoning")
    )
)
_STATUS = ("running", "done", "failed", "waiting", "uncertain")


class SqliteStore:
    """Keeps everything in the file ``path``, or in memory. ``durable``: what is kept survives a loss of power too."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durable: bool = False, keep: int = KEPT_IN_MEMORY
    ) -> None:
        self._file = SqliteFile(path, SCHEMA, durable=durable)
        self._notes = Notes(keep)
        self._applied = 0

    def __repr__(self) -> str:
        return f"SqliteStore({self._file.path!r})"

    @property
    def path(self) -> str | None:
        """The file; ``None``: in memory."""
        return self._file.path

    @property
    def identity(self) -> str:
        """The same for all that open the same file; one in memory has its own, in each process."""
        return self._file.owner if self._file.path is None else os.path.realpath(self._file.path)

    @property
    def shared(self) -> bool:
        """Whether other processes see it."""
        return self._file.path is not None

    def apply(self, changes: Sequence[Change]) -> Future[list[Any]]:
        """See :class:`.changes.Store`."""
        todo = tuple(changes)
        if not self.shared:
            self._applied += 1
            if self._applied % PRUNED_EVERY == 0:
                self._file.submit(self._prune)
        return self._file.submit(lambda connection: [_APPLY[type(each)](self, connection, each) for each in todo])

    def note(self, notes: Sequence[Note]) -> None:
        """See :class:`.changes.Store`."""
        self._notes.add(notes)

    @property
    def forgotten(self) -> tuple[int, Cost]:
        """How many attempts are no longer kept singly, and the exact sum of their costs."""
        return self._notes.forgotten

    def _describe(self, connection: sqlite3.Connection) -> None:
        for note in self._notes.take():
            change = note.change()
            _APPLY[type(change)](self, connection, change)
        self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """In memory: let go of the oldest rows that have ended, where there are too many."""
        (rows,) = connection.execute("SELECT COUNT(*) FROM attempts").fetchone()
        if rows <= self._notes.keep:
            return
        old = connection.execute(
            "SELECT id, low, high FROM attempts WHERE outcome IS NOT NULL ORDER BY number LIMIT ?",
            (rows - self._notes.keep,),
        ).fetchall()
        self._notes.forget(len(old), Cost.total(_cost(low, high) for _, low, high in old))
        for id, *_ in old:
            connection.execute("DELETE FROM attempts WHERE id = ?", (id,))
            connection.execute("DELETE FROM charges WHERE attempt = ?", (id,))

    def claim(self) -> str:
        """This process's token."""
        return self._file.claim()

    def is_alive(self, owner: str) -> bool:
        """Whether the process that has this token lives."""
        return self._file.is_alive(owner)

    def close(self) -> None:
        """Wait until all is kept, and let go of the file; the next use opens it again."""
        self._file.close()

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What ``work`` reads, all of one moment. Raises :class:`LedgerError`."""
        if not self.shared:
            self._file.write_sync(self._describe)
        return self._file.read_sync(work)

    def rows(self, **where: str | None) -> list[LedgerRow]:
        """Rows in the order in which they were begun."""
        clause, values = _where(where)
        statement = f"SELECT {_LIST} FROM attempts {clause} ORDER BY number"
        return [_row(each) for each in self.read(lambda connection: connection.execute(statement, values).fetchall())]

    def sums(self, by: SumBy, **where: str | None) -> list[Sum]:
        """Rows added up by ``by``, in the order of their first rows."""
        if by not in _KEYS:
            raise TypeError(f"rows are added up by {', '.join(_KEYS)}, not {by!r}")
        key, only = _KEYS[by]
        clause, values = _where(where)
        if only:
            clause = f"{clause} AND {only}" if clause else f"WHERE {only}"
        statement = f"SELECT {key}, {_SUMS} FROM attempts {clause} GROUP BY 1 ORDER BY MIN(number)"
        return [_sum(each) for each in self.read(lambda connection: connection.execute(statement, values).fetchall())]

    def spent(self) -> list[Spent]:
        """Every account."""
        found = self.read(
            lambda connection: connection.execute(
                "SELECT id, label, usd, microseconds, calls FROM accounts ORDER BY id"
            ).fetchall()
        )
        return [Spent(id, label, _amount(usd), microseconds, calls) for id, label, usd, microseconds, calls in found]

    def runs(self, tenant: str | None = None, status: str | None = None) -> list[RunRow]:
        """Runs, the latest first."""
        clause, values = _where({name: value for name, value in (("tenant", tenant), ("status", status)) if value})
        statement = f"SELECT {_RUN} FROM runs {clause} ORDER BY number DESC"
        return [_run(each) for each in self.read(lambda connection: connection.execute(statement, values).fetchall())]

    def run(self, id: str) -> RunRow | None:
        """The run of this id."""
        found = self.read(lambda connection: _run_of(connection, id))
        return None if found is None else _run(found)

    def steps(self, run: str) -> list[StepRow]:
        """In the order in which they were begun."""
        return [_step(each) for each in self.read(lambda connection: _steps_of(connection, run))]

    def _reserve(self, connection: sqlite3.Connection, change: Reserve) -> int | None:
        granted: int | None = None
        found: list[tuple[Allowance, Decimal, int, int]] = []
        for allowance in change.allowances:
            usd, microseconds, calls = _account(connection, allowance)
            _check(allowance, change, usd, microseconds, calls)
            if allowance.microseconds is not None:
                left = max(0, allowance.microseconds - microseconds)
                granted = min(change.microseconds if granted is None else granted, left)
            found.append((allowance, usd, microseconds, calls))
        wanted = change.microseconds if granted is None else granted
        for allowance, usd, microseconds, calls in found:
            connection.execute(
                "UPDATE accounts SET usd = ?, microseconds = ?, calls = ? WHERE id = ?",
                (f"{EXACT.add(usd, change.usd):f}", microseconds + wanted, calls + change.calls, allowance.account),
            )
        before = connection.execute("SELECT outcome, run FROM attempts WHERE id = ?", (change.row.id,)).fetchone()
        if before is None:
            connection.execute(_INSERT, change.row.values())
        elif before != (None, change.row.run):
            raise LedgerError(
                f"the ledger has an attempt {change.row.id!r} already; give each attempt an id of its own"
            )
        else:
            high = change.row.cost.high
            connection.execute(
                "UPDATE attempts SET high = ? WHERE id = ?", (None if high is None else f"{high:f}", change.row.id)
            )
        for allowance, *_ in found:
            self._charge(connection, change.row.id, allowance.account, change.usd, wanted, change.calls)
        return granted

    def _charge(
        self, connection: sqlite3.Connection, id: str, account: str, usd: Decimal, microseconds: int, calls: int
    ) -> None:
        before = connection.execute(
            "SELECT usd, microseconds, calls FROM charges WHERE attempt = ? AND account = ?", (id, account)
        ).fetchone()
        if before is not None:
            usd = EXACT.add(_amount(before[0]), usd)
            microseconds, calls = before[1] + microseconds, before[2] + calls
        connection.execute(
            "INSERT OR REPLACE INTO charges (attempt, account, usd, microseconds, calls) VALUES (?, ?, ?, ?, ?)",
            (id, account, f"{usd:f}", microseconds, calls),
        )

    def _settle(self, connection: sqlite3.Connection, change: Settle) -> None:
        row = change.row
        before = connection.execute("SELECT outcome, at FROM attempts WHERE id = ?", (row.id,)).fetchone()
        if before is not None and (change.instead_of or (before[0] is not None and before[1] != row.at)):
            # Two attempts must not stand in one row, or one of them would be paid by nobody.
            row = replace(row, id=os.urandom(16).hex())
        id = change.instead_of or row.id
        updated = connection.execute(_UPDATE, (*row.values(), id)).rowcount
        usd = row.cost.high if change.usd is None else change.usd
        took = None if row.seconds is None else round(row.seconds * 1_000_000)
        if not updated:
            connection.execute(_INSERT, row.values())
            for allowance in change.allowances:
                had = _account(connection, allowance)
                new = (usd or Decimal(0), took or 0, change.calls)
                self._bear(connection, allowance.account, had, new)
                self._charge(connection, row.id, allowance.account, *new)
            return
        charges = connection.execute(
            "SELECT account, usd, microseconds, calls FROM charges WHERE attempt = ?", (id,)
        ).fetchall()
        for account, text, held, _ in charges:
            charged = _amount(text)
            now_usd = charged if usd is None else usd
            now_us = held if took is None else took
            had = _numbers(connection, account)
            self._bear(connection, account, had, (EXACT.subtract(now_usd, charged), now_us - held, 0))
            connection.execute(
                "UPDATE charges SET attempt = ?, usd = ?, microseconds = ? WHERE attempt = ? AND account = ?",
                (row.id, f"{now_usd:f}", now_us, id, account),
            )

    def _bear(
        self,
        connection: sqlite3.Connection,
        account: str,
        had: tuple[Decimal, int, int],
        more: tuple[Decimal, int, int],
    ) -> None:
        connection.execute(
            "UPDATE accounts SET usd = ?, microseconds = ?, calls = ? WHERE id = ?",
            (f"{EXACT.add(had[0], more[0]):f}", had[1] + more[1], had[2] + more[2], account),
        )

    def _release(self, connection: sqlite3.Connection, change: Release) -> None:
        gone = connection.execute("DELETE FROM attempts WHERE id = ? AND outcome IS NULL", (change.id,)).rowcount
        if not gone:
            return
        charges = connection.execute(
            "SELECT account, usd, microseconds, calls FROM charges WHERE attempt = ?", (change.id,)
        ).fetchall()
        for account, usd, microseconds, calls in charges:
            less = (EXACT.minus(_amount(usd)), -microseconds, -calls)
            self._bear(connection, account, _numbers(connection, account), less)
        connection.execute("DELETE FROM charges WHERE attempt = ?", (change.id,))

    def _begin(self, connection: sqlite3.Connection, change: Begin) -> Begun:
        found = _run_of(connection, change.run)
        if found is None and not change.create:
            raise UnknownRun(f"the journal knows no run {change.run!r} to take up; begin one with a prompt")
        if found is None:
            connection.execute(
                "INSERT INTO runs (id, tenant, session, parent_run, status, fence, owner, begun, salt, request)"
                " VALUES (?, ?, ?, ?, 'running', 1, ?, ?, ?, ?)",
                (
                    change.run,
                    change.tenant,
                    change.session,
                    change.parent_run,
                    change.owner,
                    now(),
                    change.salt,
                    _written(change.request),
                ),
            )
        else:
            run = _run(found)
            if run.tenant != change.tenant:
                raise RunTaken(f"the run id {change.run!r} belongs to another tenant; choose another one")
            busy = run.owner is not None and run.owner != change.owner and self.is_alive(run.owner)
            if busy and not change.force:
                raise RunBusy(f"the run {change.run!r} is being executed by another process; wait until that has ended")
            if run.status != "done":
                connection.execute(
                    "UPDATE runs SET status = 'running', fence = fence + 1, owner = ?, ended = NULL, reason = NULL"
                    " WHERE id = ?",
                    (change.owner, change.run),
                )
        if found is None:
            run = _run(_run_of(connection, change.run))
        elif run.status != "done":
            run = replace(run, fence=run.fence + 1, owner=change.owner)
        steps = {each.step: each for each in map(_step, _steps_of(connection, change.run))}
        return Begun(run, steps, found is not None)

    def _intend(self, connection: sqlite3.Connection, change: Intend) -> None:
        _check_fence(connection, change.run, change.fence)
        again = connection.execute(
            "UPDATE steps SET times = times + 1, begun = ? WHERE run = ? AND step = ? AND result IS NULL",
            (now(), change.run, change.step),
        ).rowcount
        if not again:
            if _has_step(connection, change.run, change.step):
                raise RunBusy(f"the step {change.step!r} of the run {change.run!r} was committed before")
            values = (
                change.run,
                change.step,
                change.name,
                change.effect,
                change.key,
                None if change.arguments is None else _written(change.arguments),
                change.schema,
                now(),
            )
            connection.execute(
                "INSERT INTO steps (run, step, name, effect, key, arguments, schema, times, begun)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
                values,
            )

    def _commit(self, connection: sqlite3.Connection, change: Commit) -> None:
        _check_fence(connection, change.run, change.fence)
        done = connection.execute(
            "UPDATE steps SET result = ?, ended = ? WHERE run = ? AND step = ? AND result IS NULL",
            (_written(change.result), now(), change.run, change.step),
        ).rowcount
        if not done:
            raise RunBusy(f"the step {change.step!r} of the run {change.run!r} was committed before, or never begun")

    def _finish(self, connection: sqlite3.Connection, change: Finish) -> None:
        _check_fence(connection, change.run, change.fence)
        connection.execute(
            "UPDATE runs SET status = ?, owner = NULL, ended = ?, reason = ?, result = ? WHERE id = ?",
            (
                change.status,
                now(),
                change.reason,
                None if change.result is None else _written(change.result),
                change.run,
            ),
        )


_APPLY: dict[type, Callable[[SqliteStore, sqlite3.Connection, Any], Any]] = {
    Reserve: SqliteStore._reserve,
    Settle: SqliteStore._settle,
    Release: SqliteStore._release,
    Begin: SqliteStore._begin,
    Intend: SqliteStore._intend,
    Commit: SqliteStore._commit,
    Finish: SqliteStore._finish,
}


def _check(allowance: Allowance, change: Reserve, usd: Decimal, microseconds: int, calls: int) -> None:
    """Raise where the account has no room for the change."""
    if allowance.usd is not None and EXACT.add(usd, change.usd) > allowance.usd:
        raise BudgetExceeded.of(allowance.label, "usd", allowance.usd, usd, change.usd)
    if allowance.calls is not None and calls + change.calls > allowance.calls:
        raise BudgetExceeded.of(allowance.label, "calls", allowance.calls, calls, change.calls)
    if allowance.microseconds is not None and change.microseconds and microseconds >= allowance.microseconds:
        limit, spent, asked = (
            Decimal(each) / 1_000_000 for each in (allowance.microseconds, microseconds, change.microseconds)
        )
        raise BudgetExceeded.of(allowance.label, "seconds", limit, spent, asked)


def _account(connection: sqlite3.Connection, allowance: Allowance) -> tuple[Decimal, int, int]:
    """What the account bears; it is opened if need be."""
    found = connection.execute(
        "SELECT usd, microseconds, calls FROM accounts WHERE id = ?", (allowance.account,)
    ).fetchone()
    if found is None:
        connection.execute(
            "INSERT INTO accounts (id, label, usd, microseconds, calls) VALUES (?, ?, '0', 0, 0)",
            (allowance.account, allowance.label),
        )
        return Decimal(0), 0, 0
    return _amount(found[0]), _count(found[1]), _count(found[2])


def _numbers(connection: sqlite3.Connection, account: str) -> tuple[Decimal, int, int]:
    found = connection.execute("SELECT usd, microseconds, calls FROM accounts WHERE id = ?", (account,)).fetchone()
    if found is None:
        raise JournalCorrupt(f"the ledger has a charge on the account {account!r}, which it does not know")
    return _amount(found[0]), _count(found[1]), _count(found[2])


def _check_fence(connection: sqlite3.Connection, run: str, fence: int) -> None:
    found = connection.execute("SELECT fence FROM runs WHERE id = ?", (run,)).fetchone()
    if found is None:
        raise UnknownRun(f"the journal knows no run {run!r}")
    if found[0] != fence:
        raise RunBusy(f"the run {run!r} was taken up by another process; nothing more is written for this one")


def _run_of(connection: sqlite3.Connection, id: str) -> Any:
    return connection.execute(f"SELECT {_RUN} FROM runs WHERE id = ?", (id,)).fetchone()


def _steps_of(connection: sqlite3.Connection, run: str) -> list[Any]:
    return connection.execute(f"SELECT {_STEP} FROM steps WHERE run = ? ORDER BY number", (run,)).fetchall()


def _has_step(connection: sqlite3.Connection, run: str, step: str) -> bool:
    found = connection.execute("SELECT 1 FROM steps WHERE run = ? AND step = ?", (run, step)).fetchone()
    return found is not None


def _where(where: Mapping[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """A clause of parameters only; names are those of columns or nothing."""
    unknown = where.keys() - {*COLUMNS, "status"}
    if unknown:
        raise TypeError(f"the ledger has no column {min(unknown)!r}")
    parts = [f"{name} IS NULL" if value is None else f"{name} = ?" for name, value in where.items()]
    values = tuple(value for value in where.values() if value is not None)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _row(values: tuple[Any, ...]) -> LedgerRow:
    try:
        return LedgerRow.of(values)
    except ValueError as error:
        raise JournalCorrupt(f"a row of the ledger cannot be read: {error}; restore the file from a copy") from None


def _cost(low: Any, high: Any) -> Cost:
    return Cost.unpriced(_amount(low)) if high is None else Cost.bounded(_amount(low), _amount(high))


def _sum(values: tuple[Any, ...]) -> Sum:
    key, rows, low, high, unpriced, in_flight, seconds, cpu_seconds, *tokens = values
    least, most = _amount(low), _amount(high)
    cost = Cost.unpriced(least) if unpriced else Cost.bounded(least, most)
    return Sum(key, rows, cost, unpriced, in_flight, seconds, cpu_seconds, *tokens)


def _run(values: Any) -> RunRow:
    id, tenant, session, parent, status, fence, owner, begun, ended, reason, salt, request, result = values
    try:
        _check_texts((id, begun, salt), (tenant, session, parent, owner, ended, reason))
        if status not in _STATUS:
            raise ValueError(f"it is {status!r}")
        return RunRow(
            id,
            tenant,
            session,
            parent,
            status,
            _count(fence),
            owner,
            begun,
            ended,
            reason,
            salt,
            _read(request),
            None if result is None else _read(result),
        )
    except (ValueError, RecursionError) as error:
        raise JournalCorrupt(f"the run {id!r} in the journal cannot be read: {error}") from None


def _step(values: Any) -> StepRow:
    run, step, name, effect, key, arguments, schema, times, begun, ended, result = values
    try:
        _check_texts((run, step, name, key, begun), (schema, ended))
        if effect not in ("pure", "idempotent", "once"):
            raise ValueError(f"its effect is {effect!r}")
        given = None if arguments is None else _read(arguments)
        done = None if result is None else _read(result)
        return StepRow(run, step, name, effect, key, given, schema, _count(times), begun, ended, done)
    except (ValueError, RecursionError) as error:
        raise JournalCorrupt(f"the step {step!r} of the run {run!r} cannot be read: {error}") from None


def _check_texts(texts: tuple[Any, ...], maybe: tuple[Any, ...]) -> None:
    if not all(isinstance(each, str) for each in (*texts, *(each for each in maybe if each is not None))):
        raise ValueError("a field is no text")


def _amount(text: Any) -> Decimal:
    try:
        value = Decimal(text) if isinstance(text, str) else None
    except ArithmeticError:
        value = None
    if value is None or not value.is_finite():
        raise JournalCorrupt("an account of the ledger holds no amount; restore the file from a copy")
    return value


def _count(value: Any) -> int:
    if type(value) is not int:
        raise JournalCorrupt("a count of the ledger is no whole number; restore the file from a copy")
    return value


def _written(value: Mapping[str, Any]) -> str:
    return redact(json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")))


def _read(text: Any) -> dict[str, Any]:
    value = strict_json.loads(text) if isinstance(text, str) else None
    if not isinstance(value, dict):
        raise ValueError("a field is no JSON object")
    return value
