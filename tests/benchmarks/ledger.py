"""What writing everything down costs: a durable step beside a bare SQLite transaction, and a run with and without.

Run: ``python -m tests.benchmarks.ledger [--json] [--picture FILE] [--quick] [--folder FOLDER]``. A step's end is what
the journal writes when a call has ended: its row settled and its result committed. The bare transaction executes the
same two statements with the same values on a connection of its own, in the same folder, with the same settings; the two
take turns. A run is two model calls and one tool call against canned answers, as in ``overhead``. Its bookkeeping alone
is what the run asks of its books, in the same order, with attempts that are there already.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from brain import Attempt, Brain, Budget, Ledger, OpenAIModel, Price, TokenUsage, WireAttempt
from brain.books import Books, Page
from brain.budgets import Scope
from brain.storage.changes import Begin, Begun, Commit, Intend, Reserve, Settle
from brain.storage.rows import COLUMNS, LedgerRow
from brain.storage.schema import SCHEMA
from brain.storage.sqlite_store import SqliteStore
from brain.testing import ScriptedModel
from specialists import Cost, Policy, RungPolicy

from .canned_endpoint import CannedEndpoint
from .overhead import KEY, PROMPT, TARGETS, Kind, bare_loop, brain_at, official_client, ratio, shipping_days
from .overhead import cpu as cpu_of
from .report import Row, report

DETAILS = {"reason": None, "outcome": "ok", "endpoint": "https://api.example.com", "status": 200, "id": "0" * 32}
RESULT = {"outcome": {"value": 2, "attempts": [{"rung": "function", "outcome": "answered", "seconds": 0.01}] * 2}}


def row_of(number: int) -> LedgerRow:
    """An attempt in flight, of the size that they have."""
    return LedgerRow(
        id=f"{number:032x}",
        kind="model",
        name="gpt-4.1-mini",
        run="run",
        tenant="tenant",
        call="call_1",
        rung="brain",
        cost=Cost.bounded(0, "0.0123"),
    )


def ended(row: LedgerRow) -> LedgerRow:
    """The same, ended."""
    usage = TokenUsage(1200, 300, 1000, 0, 120, "provider").to_json()
    return replace(row, outcome="ok", cost=Cost.exact("0.00123"), usage=usage, seconds=1.5, details=DETAILS)


def step_seconds(folder: Path, durable: bool, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of the end of each step through the store, and of a bare transaction of the same statements."""
    store = SqliteStore(folder / "ledger.db", durable=durable)
    begun: Begun = store.apply([Begin("run", "tenant", {}, salt="salt", owner=store.claim())]).result()[0]
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    for statement in SCHEMA.statements:
        bare.execute(statement)
    update = f"UPDATE attempts SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE id = ?"
    insert = f"INSERT INTO attempts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(steps):
        row, name = row_of(number), f"turn {number}"
        intent = Intend("run", begun.run.fence, name, "gpt-4.1-mini", "pure", "0" * 32)
        store.apply([intent, Reserve(row)]).result()
        bare.execute("BEGIN IMMEDIATE")
        bare.execute(insert, row.values())
        bare.execute(
            "INSERT INTO steps (run, step, name, effect, key, times, begun)"
            " VALUES ('run', ?, 'm', 'pure', 'k', 1, 'now')",
            (name,),
        )
        bare.execute("COMMIT")
        changes = [Settle(ended(row)), Commit("run", begun.run.fence, name, RESULT)]
        values, text = ended(row).values(), str(RESULT)
        start = time.perf_counter()
        store.apply(changes).result()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        bare.execute("BEGIN IMMEDIATE")
        bare.execute(update, (*values, row.id))
        bare.execute("UPDATE steps SET result = ?, ended = ? WHERE run = ? AND step = ?", (text, "now", "run", name))
        bare.execute("COMMIT")
        theirs.append(time.perf_counter() - start)
    bare.close()
    store.close()
    return ours[steps // 10 :], theirs[steps // 10 :]


def bookkeeping(times: int) -> float:
    """CPU seconds that the books of one run take, called as a run of two model calls and one tool calls them."""
    ledger = Ledger()
    usage = TokenUsage(1200, 300, 1000, 0, 120, "provider")
    policy = Policy((RungPolicy("function", "function", checked=False),))

    async def run(number: int) -> None:
        books = Books(ledger.store, Scope(f"run {number}", None, "tenant"))
        first, call, second = Page(books), Page(books, call="call_1", tool="shipping_days"), Page(books)
        for page in (first, second):
            async with page.asking(model):
                page.on_attempt(WireAttempt(f"{number}", "m", "http://x", "ok", 0.5, Cost.exact("0.01"), usage))
        call.begin(policy)
        await call.before("function", "shipping_days", "function", None, 1)
        call.after("function", Attempt("function", "answered", 0.1, 2, cpu_seconds=0.001, cost=Cost.exact("0.0001")))
        books.brain_worked(0.002)
        await books.close()

    async def runs(count: int) -> float:
        start = time.process_time()
        for number in range(count):
            await run(number)
        return (time.process_time() - start) / count

    model = ScriptedModel([])
    asyncio.run(runs(times // 4))  # until the rows that are kept in memory are as many as ever
    return asyncio.run(runs(times))


def brain_with(url: str, kind: Kind, **more: Any) -> Brain[str]:
    """The brain that is measured."""
    model = OpenAIModel("m", base_url=url, api_key=KEY, transport=kind, price=Price(2, 8))
    return Brain(model, tools=[shipping_days], **more)


async def beside_bare(url: str, kind: Kind, quick: bool) -> float:
    """CPU of a run as a share of the bare loop's, as ``overhead`` measures it: the ledger in memory is always there."""
    client, brain = official_client(url), brain_at(url, kind)
    found = await cpu_of(
        {"bare": bare_loop(client), "run": lambda: brain.run(PROMPT)},
        rounds=3 if quick else 25,
        each=3 if quick else 20,
    )
    await brain.aclose()
    await client.close()
    return ratio(found, "run", "bare")


async def run_cpu(url: str, kind: Kind, folder: Path, quick: bool) -> dict[str, list[float]]:
    """CPU seconds of one run of each, round by round."""
    brains = {
        "memory": brain_with(url, kind),
        "budget": brain_with(url, kind, budget=Budget(usd=1_000_000)),
        "file": brain_with(url, kind, ledger=folder / f"{kind}.db"),
        "read": brain_with(url, kind, ledger=Ledger(keep=1_000)),
    }
    rounds, each = (3, 3) if quick else (25, 20)

    def run_of(brain: Brain[str]) -> Callable[[], Awaitable[Any]]:
        return lambda: brain.run(PROMPT)

    async def cpu(run: Callable[[], Awaitable[Any]], after: Callable[[], Any] = lambda: None) -> float:
        start = time.process_time()
        for _ in range(each):
            await run()
        after()
        return (time.process_time() - start) / each

    runs = {name: run_of(brain) for name, brain in brains.items()}
    for run in runs.values():
        await cpu(run)
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(found)
    for place in range(rounds):
        for name in (*names[place % len(names) :], *names[: place % len(names)]):  # none always after the same one
            after = (lambda: brains["read"].ledger.total()) if name == "read" else (lambda: None)
            found[name].append(await cpu(runs[name], after))
    for brain in brains.values():
        await brain.aclose()
    return found


def added(found: dict[str, list[float]], name: str) -> float:
    """Milliseconds of CPU that ``name`` adds to a run with the ledger in memory."""
    both = zip(found[name], found["memory"], strict=True)
    return 1000 * statistics.median(one - other for one, other in both)


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Both sides."""
    import importlib.util

    kind: Kind = "aiohttp" if importlib.util.find_spec("aiohttp") is not None else "httpx"
    steps = 50 if arguments.quick else 1000
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for durable, target in ((True, 2.0), (False, None)):
            inner = folder / ("durable" if durable else "plain")
            inner.mkdir()
            ours, theirs = step_seconds(inner, durable, steps)
            told = "waits for the disk" if durable else "survives a kill, not a loss of power"
            called = "durable commit of a step" if durable else "commit of a step"
            rows += [
                Row(called, statistics.median(ours) / statistics.median(theirs), "ratio", target, "lower",
                    "a bare transaction of the same statements", told),
                Row(f"  {called}", 1000 * statistics.median(ours), "ms", against="the wall clock", note="median"),
            ]  # fmt: skip
        with CannedEndpoint() as endpoint:
            beside = asyncio.run(beside_bare(endpoint.base_url, kind, arguments.quick))
            found = asyncio.run(run_cpu(endpoint.base_url, kind, folder, arguments.quick))
    memory = "the same run, ledger in memory"
    rows += [
        Row("CPU that the ledger in memory adds", 1000 * bookkeeping(400 if arguments.quick else 10_000), "ms", 0.3,
            "lower", "a run's bookkeeping alone", "two model calls, one tool"),
        Row("  and reading its rows after every few runs", added(found, "read"), "ms", against=memory),
        Row("  and a budget", added(found, "budget"), "ms", against=memory, note="each attempt reserved before"),
        Row("  in a file", added(found, "file"), "ms", against=memory, note="journaled, five transactions a run"),
        Row(f"CPU of one run ({kind})", beside, "ratio", TARGETS[kind][0], "lower",
            "bare loop", "ledger in memory, as in overhead"),
    ]  # fmt: skip
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the files are written: a disk, and not memory that calls itself one."""
    parser.add_argument("--folder", help="where files are written (default: the system's temporary folder)")


if __name__ == "__main__":
    sys.exit(report("ledger", "What writing everything down costs.", measure, add_arguments=add_arguments))
