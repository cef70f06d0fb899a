"""The journal's parts by themselves, and the check that a store of one's own is run through."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain.errors import BudgetExceeded, JournalCorrupt, RunBusy, RunTaken, UnknownRun
from brain.journal import Journal, call_step, history_step, idempotency_key, taken_once, turn_step
from brain.storage.changes import (
    Begin,
    Begun,
    Change,
    Commit,
    Finish,
    Intend,
    Release,
    Reserve,
    RunRow,
    Settle,
    Spent,
    StepRow,
    Sum,
)
from brain.storage.rows import LedgerRow
from brain.storage.sqlite_store import SqliteStore
from brain.testing import check_store
from specialists import Cost
from specialists.costs import EXACT


class Books:
    """What a dictionary store keeps."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        self.charges: dict[tuple[str, str], list[Any]] = {}
        self.accounts: dict[str, list[Any]] = {}
        self.labels: dict[str, str] = {}
        self.runs: dict[str, RunRow] = {}
        self.steps: dict[tuple[str, str], StepRow] = {}


class DictStore:
    """A store in dictionaries. Each of its parts can be broken in a subclass, to see that the check notices."""

    shared = False

    def __init__(self) -> None:
        self.kept = Books()
        self.lock = threading.Lock()
        self.token = "d" * 32

    def apply(self, changes: Sequence[Change]) -> Future[list[Any]]:
        future: Future[list[Any]] = Future()
        with self.lock:
            before = self.copy()
            try:
                future.set_result([getattr(self, type(each).__name__.lower())(each) for each in changes])
            except Exception as error:
                self.undo(before)
                future.set_exception(error)
        return future

    def copy(self) -> Books:
        return copy.deepcopy(self.kept)

    def undo(self, before: Books) -> None:
        self.kept = before

    def has_room(self, usd: Decimal, limit: Decimal) -> bool:
        return usd <= limit

    def reserve(self, change: Reserve) -> int | None:
        granted = None
        for each in change.allowances:
            usd, micros, calls = self.kept.accounts.setdefault(each.account, [Decimal(0), 0, 0])
            self.kept.labels[each.account] = each.label
            if each.usd is not None and not self.has_room(EXACT.add(usd, change.usd), each.usd):
                raise BudgetExceeded.of(each.label, "usd", each.usd, usd, change.usd)
            if each.calls is not None and calls + change.calls > each.calls:
                raise BudgetExceeded.of(each.label, "calls", each.calls, calls, change.calls)
            if each.microseconds is not None:
                if change.microseconds and micros >= each.microseconds:
                    raise BudgetExceeded.of(each.label, "seconds", each.microseconds, micros, change.microseconds)
                granted = min(change.microseconds if granted is None else granted, each.microseconds - micros)
        for each in change.allowances:
            more = [change.usd, change.microseconds if granted is None else granted, change.calls]
            self.bear(change.row.id, each.account, more)
        self.kept.rows[change.row.id] = change.row
        return granted

    def bear(self, row: str, account: str, more: list[Any]) -> None:
        had = self.kept.accounts.setdefault(account, [Decimal(0), 0, 0])
        self.kept.accounts[account] = [EXACT.add(had[0], more[0]), had[1] + more[1], had[2] + more[2]]
        charged = self.kept.charges.setdefault((row, account), [Decimal(0), 0, 0])
        self.kept.charges[row, account] = [EXACT.add(charged[0], more[0]), charged[1] + more[1], charged[2] + more[2]]

    def settle(self, change: Settle) -> None:
        id = change.instead_of or change.row.id
        usd = change.row.cost.high if change.usd is None else change.usd
        if id in self.kept.rows:
            self.kept.rows = {
                (change.row.id if key == id else key): (change.row if key == id else row)
                for key, row in self.kept.rows.items()
            }
        else:
            self.kept.rows[id] = change.row
            for each in change.allowances:
                self.kept.labels[each.account] = each.label
                self.bear(id, each.account, [usd or Decimal(0), 0, 1])
            return
        for row, account in list(self.kept.charges):
            if row == id:
                charged = self.kept.charges[row, account]
                if usd is not None:
                    self.bear(row, account, [EXACT.subtract(usd, charged[0]), 0, 0])
                self.kept.charges[change.row.id, account] = self.kept.charges.pop((row, account))

    def release(self, change: Release) -> None:
        row = self.kept.rows.get(change.id)
        if row is None or row.outcome is not None:
            return
        del self.kept.rows[change.id]
        for key in [key for key in self.kept.charges if key[0] == change.id]:
            usd, micros, calls = self.kept.charges[key]
            self.bear(*key, [-usd, -micros, -calls])
            del self.kept.charges[key]

    def begin(self, change: Begin) -> Begun:
        found = self.kept.runs.get(change.run)
        if found is None:
            if not change.create:
                raise UnknownRun("no such run")
            run = RunRow(
                change.run,
                change.tenant,
                change.session,
                change.parent_run,
                "running",
                1,
                change.owner,
                "now",
                None,
                None,
                change.salt,
                change.request,
                None,
            )
        else:
            if found.tenant != change.tenant:
                raise RunTaken("another tenant's")
            busy = found.owner not in (None, change.owner) and self.is_alive(found.owner or "")
            if busy and not change.force:
                raise RunBusy("a living process has it")
            run = found if found.status == "done" else replace(found, fence=self.next_fence(found), owner=change.owner)
        self.kept.runs[change.run] = run
        return Begun(run, {each.step: each for each in self.steps(change.run)}, found is not None)

    def next_fence(self, run: RunRow) -> int:
        return run.fence + 1

    def fenced(self, change: Intend | Commit | Finish) -> None:
        if self.kept.runs[change.run].fence != change.fence:
            raise RunBusy("taken up by another")

    def intend(self, change: Intend) -> None:
        self.fenced(change)
        key = (change.run, change.step)
        found = self.kept.steps.get(key)
        if found is not None and found.result is not None:
            raise RunBusy("committed before")
        times = 1 if found is None else found.times + 1
        self.kept.steps[key] = StepRow(
            change.run,
            change.step,
            change.name,
            change.effect,
            change.key,
            change.arguments,
            change.schema,
            times,
            "now",
            None,
            None,
        )

    def commit(self, change: Commit) -> None:
        self.fenced(change)
        found = self.kept.steps.get((change.run, change.step))
        if found is None or found.result is not None:
            raise RunBusy("committed before, or never begun")
        self.kept.steps[change.run, change.step] = replace(found, result=change.result)

    def finish(self, change: Finish) -> None:
        self.fenced(change)
        run = replace(self.kept.runs[change.run], status=change.status, owner=None, result=change.result)
        self.kept.runs[change.run] = run

    def note(self, notes: Sequence[Any]) -> None:
        for each in notes:
            self.apply([each.change()])

    def claim(self) -> str:
        return self.token

    def rows(self, **where: str | None) -> list[LedgerRow]:
        return [row for row in self.kept.rows.values() if all(getattr(row, k) == v for k, v in where.items())]

    def sums(self, by: str, **where: str | None) -> list[Sum]:
        keys: dict[Any, list[LedgerRow]] = {}
        for row in self.rows(**where):
            keys.setdefault("all" if by == "all" else getattr(row, by), []).append(row)
        return [
            Sum(key, len(rows), self.add([row.cost for row in rows]), 0, 0, 0.0, 0.0, None, None, None, None, None)
            for key, rows in keys.items()
        ]

    def add(self, costs: list[Cost]) -> Cost:
        return Cost.total(costs)

    def spent(self) -> list[Spent]:
        return [Spent(account, self.kept.labels[account], *had) for account, had in self.kept.accounts.items()]

    def runs(self, tenant: str | None = None, status: str | None = None) -> list[RunRow]:
        found = [*self.kept.runs.values()][::-1]
        return [each for each in found if tenant in (None, each.tenant) and status in (None, each.status)]

    def run(self, id: str) -> RunRow | None:
        return self.kept.runs.get(id)

    def steps(self, run: str) -> list[StepRow]:
        return [each for each in self.kept.steps.values() if each.run == run]

    def is_alive(self, owner: str) -> bool:
        return owner == self.token

    def close(self) -> None:
        pass


def test_the_stores_of_the_house_keep_what_they_promise(tmp_path: Path) -> None:
    numbers = itertools.count()
    check_store(SqliteStore)
    check_store(lambda: SqliteStore(tmp_path / f"{next(numbers)}.db"))
    check_store(DictStore)


class Broken:
    """One fault each, and a word of the complaint that it earns."""

    class KeepsHalf(DictStore):
        def undo(self, before: Books) -> None:
            pass

    class FloatSums(DictStore):
        def add(self, costs: list[Cost]) -> Cost:
            return Cost.exact(Decimal(str(sum(float(each.low) for each in costs))))

    class ForgetsUnknown(DictStore):
        def add(self, costs: list[Cost]) -> Cost:
            return Cost.exact(Cost.total(costs).low)

    class Disordered(DictStore):
        def rows(self, **where: str | None) -> list[LedgerRow]:
            return sorted(super().rows(**where), key=lambda row: row.id)

    class NoLimit(DictStore):
        def has_room(self, usd: Decimal, limit: Decimal) -> bool:
            return True

    class Unlocked(DictStore):
        def has_room(self, usd: Decimal, limit: Decimal) -> bool:
            return usd <= limit + (3 if limit == 10 else 0)

    class NeverReleases(DictStore):
        def release(self, change: Release) -> None:
            pass

    class ReleasesWhatEnded(DictStore):
        def release(self, change: Release) -> None:
            if change.id in self.kept.rows:
                self.kept.rows[change.id] = replace(self.kept.rows[change.id], outcome=None)
            super().release(change)

    class SettlesNothing(DictStore):
        def settle(self, change: Settle) -> None:
            self.kept.rows[change.row.id] = change.row

    class CommitsTwice(DictStore):
        def commit(self, change: Commit) -> None:
            self.fenced(change)
            key = (change.run, change.step)
            if key not in self.kept.steps:
                raise RunBusy("never begun")
            self.kept.steps[key] = replace(self.kept.steps[key], result=change.result)

    class SameFence(DictStore):
        def next_fence(self, run: RunRow) -> int:
            return run.fence

    class NoFence(DictStore):
        def fenced(self, change: Intend | Commit | Finish) -> None:
            pass

    class NobodyLives(DictStore):
        def begin(self, change: Begin) -> Begun:
            return super().begin(replace(change, force=True))

    class EverybodyLives(DictStore):
        def is_alive(self, owner: str) -> bool:
            return True

    class OneTenant(DictStore):
        def begin(self, change: Begin) -> Begun:
            found = self.kept.runs.get(change.run)
            return super().begin(change if found is None else replace(change, tenant=found.tenant))

    class BeginsWhatIsNot(DictStore):
        def begin(self, change: Begin) -> Begun:
            return super().begin(replace(change, create=True))

    class ShortText(DictStore):
        def intend(self, change: Intend) -> None:
            super().intend(replace(change, step=change.step[:1000]))

    class ForgetsResults(DictStore):
        def finish(self, change: Finish) -> None:
            super().finish(replace(change, result=None))

    class FindsAll(DictStore):
        def rows(self, **where: str | None) -> list[LedgerRow]:
            return list(self.kept.rows.values())


@pytest.mark.parametrize("broken", [each for each in vars(Broken).values() if isinstance(each, type)])
def test_a_store_that_breaks_a_promise_is_told_so(broken: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        check_store(broken)


def journal(*steps: StepRow, request: dict[str, Any] | None = None) -> Journal:
    asked = {"prompt": "go", "history": [], "group": None, "budget": None, "tools": {}, "model": "m"}
    asked |= {"instructions": None, "output": None, **(request or {})}
    run = RunRow("r", None, None, None, "failed", 2, None, "now", None, None, "salt", asked, None)
    return Journal(Begun(run, {each.step: each for each in steps}, True))


def step(name: str, result: dict[str, Any] | None = None, key: str | None = None) -> StepRow:
    key = idempotency_key("salt", name) if key is None else key
    return StepRow("r", name, "double", "once", key, None, None, 1, "now", None, result)


def test_keys_are_stable_and_differ_by_run_and_step() -> None:
    names = [*(turn_step(each) for each in range(20)), *(call_step(each, 1) for each in range(20)), history_step(1)]
    keys = {idempotency_key(salt, name) for salt in ("a", "b") for name in names}
    assert len(keys) == 2 * len(names)
    assert idempotency_key("a", "turn 1") == idempotency_key("a", "turn 1")


@pytest.mark.parametrize(
    "name", ["", "turn", "turn -1", "turn 01", "history", "turn 0, call", "turn 0, call 00", "turn 1e3", "x", "turn ٣"]
)
def test_what_is_no_step_is_refused(name: str) -> None:
    with pytest.raises(JournalCorrupt, match="is no step"):
        journal(step(name)).read()


def test_a_key_of_another_step_is_refused() -> None:
    journal(step("turn 0")).read()
    with pytest.raises(JournalCorrupt, match="another step"):
        journal(step("turn 0", key=idempotency_key("salt", "turn 1"))).read()


@pytest.mark.parametrize("what", ["prompt", "history", "group", "budget", "tools", "model", "instructions", "output"])
def test_a_request_is_whole(what: str) -> None:
    broken = journal()
    broken.run = replace(broken.run, request={k: v for k, v in broken.run.request.items() if k != what})
    with pytest.raises(JournalCorrupt):
        broken.read()


def test_a_call_without_its_turn_is_refused() -> None:
    with pytest.raises(JournalCorrupt):
        journal(step("turn 0, call 0", {"answer": {}})).read()


def test_a_run_is_taken_once_in_a_process() -> None:
    with taken_once("token", "r"):
        with taken_once("token", "other"), taken_once("another", "r"):
            pass
        with pytest.raises(RunBusy), taken_once("token", "r"):
            pass
    with taken_once("token", "r"):
        pass
