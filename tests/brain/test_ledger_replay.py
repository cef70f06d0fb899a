"""A ledger's rows are enough to replay the ladder's decisions: they tell what the log tells."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brain import Brain, Budget, BudgetExceeded, ConfigurationError, Cost, Ledger, LedgerError, Price, ToolCall, cli
from brain.replaying import (
    LedgerReader,
    OutcomeReader,
    PolicyChange,
    calls_of,
    compare,
    cut_short,
    is_ledger,
    open_ledger,
    reproduce,
)
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Outcome
from specialists.ladder import Climb, replay

from .test_replaying import days, double, fail, guess, route, solve


async def both(folder: Path, accept: Any = "confident", runs: int = 17) -> None:
    """Runs with all kinds of calls, logged and kept in a ledger."""
    ledger = Ledger(folder / "bill.db")
    for run in range(runs):
        calls = [call("route", text=f"message {run}"), call("guess", text=f"thing {run}"), call("double", n=run)]
        calls += [call("days", country="Norway")] if run % 5 == 0 else []
        big = SimulatedModel(
            solve=solve if run % 3 else fail,
            wrong=lambda _, right: right + 1 if isinstance(right, int) else "parcel",
            accuracy=0.8,
            price=Price("1", "4"),
        )
        async with Brain(
            ScriptedModel([calls, "done"]),
            tools=[days],
            specialists=[route, guess, double],
            accept=accept,
            fallback=big,
            log=folder / "log.jsonl",
            ledger=ledger,
        ) as brain:
            await brain.run("go", run_id=f"run-{run}")
    ledger.close()


def told(outcome: Outcome[Any]) -> tuple[Any, ...]:
    attempts = tuple(replace(each, wire_attempts=()) for each in outcome.attempts)
    return replace(outcome, attempts=()), attempts, tuple(replay(outcome)) if outcome.answered_by != "function" else ()


@pytest.mark.parametrize("accept", ["verified", "confident"])
async def test_fifty_calls_logged_both_ways_give_the_same_decisions(tmp_path: Path, accept: Any) -> None:
    await both(tmp_path, accept)
    log = {(each.run_id, each.call_id): each for _, each in OutcomeReader(tmp_path / "log.jsonl")}
    kept = {(each.run_id, each.call_id): each for _, each in LedgerReader(tmp_path / "bill.db")}
    assert len(log) == len(kept) > 50
    for key, outcome in kept.items():
        assert told(outcome) == told(log[key])
    one, other = reproduce(OutcomeReader(tmp_path / "log.jsonl")), reproduce(LedgerReader(tmp_path / "bill.db"))
    assert one.to_json() == other.to_json()
    assert one.costs == other.costs
    assert other.differing == 0
    change = PolicyChange(accept=accept)
    assert (
        compare(OutcomeReader(tmp_path / "log.jsonl"), change).logged
        == compare(LedgerReader(tmp_path / "bill.db"), change).logged
    )


async def test_the_rows_alone_are_enough(tmp_path: Path) -> None:
    await both(tmp_path)
    ledger = Ledger(tmp_path / "bill.db")
    log = [each for _, each in OutcomeReader(tmp_path / "log.jsonl")]
    alone = {(each.run_id, each.call_id): each for each in calls_of(ledger.rows())}
    assert len(alone) == len(log)
    for outcome in log:
        mine = alone[outcome.run_id, outcome.call_id]
        assert (mine.value, mine.answered_by, mine.accepted_by) == (
            outcome.value,
            outcome.answered_by,
            outcome.accepted_by,
        )
    ledger.close()


async def test_the_same_call_id_in_two_turns_is_two_calls(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    again: list[Any] = [[ToolCall("c", "double", '{"n": 1}')], [ToolCall("c", "double", '{"n": 3}')], "done"]
    async with Brain(ScriptedModel(again), specialists=[double], fallback=False, ledger=ledger) as brain:
        await brain.run("go")
    ledger.close()
    found = [outcome for _, outcome in LedgerReader(tmp_path / "bill.db")]
    assert [(each.value, each.arguments) for each in found] == [(2, {"n": 1}), (6, {"n": 3})]


async def test_a_call_that_is_in_flight_is_cut_short(tmp_path: Path) -> None:
    await both(tmp_path, "verified", runs=1)
    with sqlite3.connect(tmp_path / "bill.db") as connection:  # as a process leaves it that died
        (last,) = connection.execute("SELECT MAX(number) FROM attempts WHERE tool = 'double'").fetchone()
        connection.execute(
            "UPDATE attempts SET outcome = NULL, details = NULL, policy = NULL WHERE number = ?", (last,)
        )
        connection.execute("UPDATE steps SET result = NULL WHERE name = 'double'")
    ledger = Ledger(tmp_path / "bill.db")
    calls = calls_of(ledger.rows(tool="double"))
    ledger.close()
    assert all(cut_short(each) for each in calls)
    assert all(isinstance(replay(each)[-1], Climb) for each in calls)


async def test_the_price_of_a_call_is_that_of_its_rows_by_now(tmp_path: Path) -> None:
    await both(tmp_path, "verified", runs=2)
    ledger = Ledger(tmp_path / "bill.db")
    wire = ledger.rows(kind="model", run="run-1")[0]
    before = {each.call_id: each for each in calls_of(ledger.rows(run="run-1"))}[wire.call]
    ledger.reconcile(wire.id, "0.75")
    after = {each.call_id: each for each in calls_of(ledger.rows(run="run-1"))}[wire.call]
    ledger.close()
    was, now = (Cost.total(each.cost for each in one.attempts if each.cost) for one in (before, after))
    assert now.low - was.low == Cost.exact("0.75").low - wire.cost.low


async def test_what_a_budget_refused_is_an_attempt_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    async with Brain(
        ScriptedModel([[call("double", n=1), call("double", n=3)], "done"]),
        specialists=[double],
        fallback=False,
        ledger=ledger,
        budget=Budget(calls=1),
    ) as brain:
        with pytest.raises(BudgetExceeded):
            await brain.run("go")
    ledger.close()
    outcomes = sorted(each.attempts[0].outcome for _, each in LedgerReader(tmp_path / "bill.db"))
    assert outcomes == ["answered", "refused"]


async def test_a_row_that_was_tampered_with_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await both(tmp_path, runs=2)
    assert cli.main(["replay", str(tmp_path / "bill.db")]) == 0
    assert "decisions reproduced, in 6 calls of specialists." in capsys.readouterr().out
    with sqlite3.connect(tmp_path / "bill.db") as connection:
        connection.execute("UPDATE attempts SET details = replace(details, '\"passed\"', '\"unknown\"')")
    assert cli.main(["replay", str(tmp_path / "bill.db")]) == 1
    assert "the first is call 7, a call of double: " in capsys.readouterr().err


@pytest.mark.parametrize("column", ["details", "policy"])
async def test_a_row_that_is_no_attempt_is_named(tmp_path: Path, column: str) -> None:
    await both(tmp_path, runs=1)
    with sqlite3.connect(tmp_path / "bill.db") as connection:
        connection.execute(f"UPDATE attempts SET {column} = '{{}}' WHERE kind = 'specialist'")
    with pytest.raises(ConfigurationError, match=r"bill\.db, attempt [0-9a-f]+: it has no '"):
        list(LedgerReader(tmp_path / "bill.db"))


def test_files_that_are_no_ledgers_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        open_ledger(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(LedgerError, match="is no ledger"):
        open_ledger(tmp_path / "empty.db")
    assert (tmp_path / "empty.db").stat().st_size == 0
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    before = (tmp_path / "other.db").read_bytes()
    assert is_ledger(tmp_path / "other.db")
    with pytest.raises(LedgerError):
        list(LedgerReader(tmp_path / "other.db"))
    assert (tmp_path / "other.db").read_bytes() == before


def test_a_pipe_is_read_as_a_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_ledger(tmp_path / "pipe")
