"""Promises of budgets under faults; the number in a test's name is its row in the table of promises.

After whatever happens three things agree: the endpoint's own meter lies within the bounds of the rows, nothing is in
flight that has ended, and the accounts bear what the rows can have cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Coroutine, Generator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import Brain, BrainError, Budget, BudgetExceeded, Ledger, LedgerError, OpenAIModel, Price
from brain.storage.failpoints import failpoints
from brain.testing import FakeEndpoint, Fault, Metered, ScriptedModel, SimulatedModel, call, reply
from brain.wire import retrying
from specialists import Answer, Cost, specialist

GUARD = 60.0
PRICE = Price("2", "8")
MANY = 10**6


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(retrying, "pause", at_once)


def billed(meter: Sequence[Metered]) -> Decimal:
    return sum((Decimal(2 * each.input + 8 * each.output) / 10**6 for each in meter), Decimal(0))


def agree(ledger: Ledger, *, limited: bool = True) -> None:
    """The accounts bear the sum of what the rows can have cost, and no attempt of this process is in flight."""
    rows = ledger.rows()
    assert [row.kind for row in rows if row.in_flight] == []
    if limited:
        total = Cost.total(row.cost for row in rows).high
        for spent in ledger.spent():
            assert spent.usd == total, spent.account
            assert spent.calls == sum(row.kind in ("model", "function", "specialist") for row in rows)


# 15: storms


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_15_a_storm_is_reserved_try_by_try_and_settled(
    status: int, where: str, tmp_path: Path, no_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = 60
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger()
    with FakeEndpoint(Fault.server_error(status)) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=5)
        monkeypatch.setattr(model._process().breaker, "_threshold", 10**9)
        async with Brain(model, ledger=ledger, budget=Budget(usd=1, calls=MANY)) as brain:

            async def one() -> None:
                with pytest.raises(BrainError):
                    await brain.run("go")

            for _ in range(offered // 10):
                await asyncio.gather(*(one() for _ in range(10)))
        sent = len(endpoint.meter)
    assert offered < sent <= 1.2 * offered + 10
    rows = ledger.rows(kind="model")
    assert len(rows) == sent
    assert Cost.total(row.cost for row in rows) == Cost.exact(0)  # nobody bills an error
    agree(ledger)
    (spent,) = ledger.spent()
    assert spent.calls == sent
    ledger.close()


async def test_15_a_storm_is_ended_by_a_budget_of_calls(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint(Fault.server_error(503)) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=5)
        monkeypatch.setattr(model._process().breaker, "_threshold", 10**9)
        async with Brain(model, ledger=Ledger(), budget=Budget(calls=15)) as brain:
            ended = await asyncio.gather(*(brain.run("go") for _ in range(30)), return_exceptions=True)
        assert len(endpoint.meter) == 15
    assert all(isinstance(each, BrainError) for each in ended)
    assert any(isinstance(each, BudgetExceeded) for each in ended)


# 32: a hundred runs and ten calls


@pytest.mark.parametrize("where", ["memory", "file"])
async def test_32_a_hundred_runs_and_ten_calls(where: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger()
    with FakeEndpoint() as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
        async with Brain(model, ledger=ledger, budget=Budget(calls=10)) as brain:
            ended = await asyncio.gather(*(brain.run("go") for _ in range(100)), return_exceptions=True)
        assert len(endpoint.requests) == 10
    refused = [each for each in ended if isinstance(each, BudgetExceeded)]
    assert len(refused) == 90
    assert all((each.unit, each.limit, each.asked) == ("calls", 10, 1) for each in refused)
    ledger.close()


def test_32_from_threads(tmp_path: Path) -> None:
    for ledger in (Ledger(), Ledger(tmp_path / "bill.db")):
        with FakeEndpoint() as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
            with contextlib.closing(Brain(model, ledger=ledger, budget=Budget(calls=10))) as brain:

                def some(brain: Brain[str] = brain) -> None:
                    for _ in range(10):
                        with contextlib.suppress(BudgetExceeded):
                            brain.run_sync("go")

                threads = [threading.Thread(target=some) for _ in range(10)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(GUARD)
            assert len(endpoint.requests) == 10
        ledger.close()


@pytest.mark.parametrize("place", ["storage.before_commit", "storage.after_commit"])
@pytest.mark.parametrize("error", ["OSError", "sqlite3.OperationalError", "LedgerError"])
async def test_32_a_disk_that_fails_now_and_then_sends_nothing_more(place: str, error: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    ledger.spent()  # the file is there
    with FakeEndpoint() as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
        async with Brain(model, ledger=ledger, budget=Budget(calls=10)) as brain:
            with failpoints({f"{place}@{number}": f"raise:{error}" for number in (2, 3, 5, 8)}) as set_up:
                ended = await asyncio.gather(*(brain.run("go") for _ in range(100)), return_exceptions=True)
                while set_up.reached.get(place, 0) < 9:
                    ended += await asyncio.gather(brain.run("go"), return_exceptions=True)
        sent = len(endpoint.requests)
    assert sent <= 10
    assert any(isinstance(each, LedgerError) for each in ended)
    # What was sent is borne, whether or not it could be settled.
    (spent,) = ledger.spent()
    assert sent <= spent.calls <= 10
    ledger.close()


WORKER = """
import asyncio, sys
from brain import Brain, BrainError, Budget, BudgetExceeded, OpenAIModel, Price

path, url = sys.argv[1:]

async def main():
    model = OpenAIModel("m", base_url=url, price=Price("2", "8"))
    budget = Budget(calls=10, name="ten")
    async with Brain(model, ledger=path, budget=budget) as brain:
        ended = await asyncio.gather(*(brain.run("go") for _ in range(25)), return_exceptions=True)
    strange = [each for each in ended if isinstance(each, BaseException) and not isinstance(each, BrainError)]
    assert not strange, strange

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("place", ["storage.before_commit", "storage.after_commit"])
def test_32_never_more_than_ten_also_when_processes_are_killed(place: str, tmp_path: Path) -> None:
    path = tmp_path / "bill.db"
    with FakeEndpoint(latency=0.05) as endpoint:
        for rounds in range(2):
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", WORKER, str(path), endpoint.base_url],
                    env={**os.environ, "BRAIN_FAILPOINTS": f"{place}@{2 + 2 * rounds + number}=kill"}
                    if number < 3
                    else os.environ,
                    stderr=subprocess.PIPE,
                )
                for number in range(4)
            ]
            for process in processes:
                _, said = process.communicate(timeout=GUARD)
                assert process.returncode in (0, -9), said.decode()
            assert len(endpoint.requests) <= 10
        ledger = Ledger(path)
        (spent,) = ledger.spent()
        rows = ledger.rows(kind="model")
        # What a killed process had set aside stays set aside, sent or not; the others took the rest.
        assert spent.calls == len(rows) == 10
        assert len([row for row in rows if not row.in_flight]) <= len(endpoint.requests) <= 10
        ledger.close()


# 33: cancelled at every await


class Awaits:
    """Counts how often any task waits, and cancels a task at the n-th time."""

    def __init__(self, cancel_at: int | None = None, again_after: int | None = None) -> None:
        self.count = 0
        self._cancel_at = cancel_at
        self._again_at = None if cancel_at is None or again_after is None else cancel_at + again_after
        self._task: asyncio.Task[Any] | None = None

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it as a task; what it gives. Raises what it raises."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._make)
        try:
            self._task = asyncio.ensure_future(coroutine)
            return await self._task
        finally:
            loop.set_task_factory(None)

    def _make(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(self._wrapped(coroutine), loop=loop, **more)

    async def _wrapped(self, coroutine: Any) -> Any:
        return await self._counted(coroutine)

    @types.coroutine
    def _counted(self, coroutine: Any) -> Generator[Any, Any, Any]:
        given: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = coroutine.send(given) if thrown is None else coroutine.throw(thrown)
            except StopIteration as ended:
                return ended.value
            given = thrown = None
            self.count += 1
            if self._task is not None and self.count in (self._cancel_at, self._again_at):
                asyncio.get_running_loop().call_soon(self._task.cancel)
            try:
                given = yield waits_for
            except BaseException as error:
                thrown = error


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "cancelled twice"])
async def test_33_cancelled_at_every_await_with_a_ledger(
    where: str, limited: bool, twice: bool, tmp_path: Path
) -> None:
    @specialist(min_confidence=0.9)
    async def unsure(text: str) -> Answer[str]:
        """Guess."""
        await asyncio.sleep(0)
        return Answer(text, 0.1)

    async def double(a: int) -> int:
        """Double."""
        await asyncio.sleep(0)
        return 2 * a

    cut, rows_at_most = 0, 0
    for step in itertools.count(1):
        ledger = Ledger(tmp_path / f"{step}.db") if where == "file" else Ledger()
        big = Counting(solve=lambda _: "x", price=PRICE, name="big")
        brain = Brain(
            ScriptedModel([[call("unsure", text="x"), call("double", a=1)], "done"]),
            tools=[double],
            specialists=[unsure],
            fallback=big,
            ledger=ledger,
            budget=Budget(usd=1, calls=MANY) if limited else None,
            log=tmp_path / f"{where}{step}.jsonl",
        )
        awaits = Awaits(step, 1 + step % 4 if twice else None)
        before = asyncio.all_tasks()
        cost: Cost | None = None
        try:
            cost = (await awaits.run(brain.run("go"))).usage.cost
        except asyncio.CancelledError as error:
            cut += 1
            if hasattr(error, "result"):
                cost = error.result.usage.cost
        assert asyncio.all_tasks() == before
        await brain.aclose()
        ledger.close()  # waits for what was handed over
        rows = ledger.rows()
        rows_at_most = max(rows_at_most, len(rows))
        assert cost is None or ledger.total() == cost
        assert len([row for row in rows if row.kind == "model"]) == len(big.sent)
        agree(ledger, limited=limited)
        ledger.close()
        if awaits.count < step:  # it was over before
            break
    assert cut > 5
    assert rows_at_most >= 5  # the brain, two calls, a rung and a request


class Counting(SimulatedModel):
    """Keeps the wire attempts it made, for comparison."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.sent: list[Any] = []

    async def ask(self, request: Any, *, on_attempt: Any, on_text: Any = None) -> Any:
        def both(attempt: Any) -> None:
            self.sent.append(attempt)
            on_attempt(attempt)

        return await super().ask(request, on_attempt=both, on_text=on_text)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("where", ["memory", "file"])
async def test_33_cancelled_at_every_await_of_a_real_exchange(where: str, streamed: bool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger()
    budget = Budget(usd=5, calls=MANY)
    cut = 0
    with FakeEndpoint(reply("fine", usage={"input": 30, "output": 5})) as endpoint:

        async def one(brain: Brain[str]) -> None:
            if not streamed:
                await brain.run("go")
                return
            async with contextlib.aclosing(brain.run_stream("go")) as events:
                async for _ in events:
                    pass

        for step in itertools.count(1):
            # A new model has no connection yet: making it is cancelled too.
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, max_output_tokens=50)
            async with Brain(model, ledger=ledger, budget=budget) as brain:
                awaits, before = Awaits(step), asyncio.all_tasks()
                try:
                    await awaits.run(one(brain))
                except asyncio.CancelledError:
                    cut += 1
                assert asyncio.all_tasks() <= before
            if awaits.count < step:  # it was over before
                break
        ledger.close()
        meter = list(endpoint.meter)
        rows = ledger.rows(kind="model")
    assert cut > 5
    total = Cost.total(row.cost for row in rows)
    assert total.high is not None
    assert len(rows) >= len(meter)  # what was cancelled before it left has a row of nothing
    assert total.low <= billed(meter) <= total.high
    agree(ledger)
    ledger.close()


@pytest.mark.parametrize("where", ["memory", "file"])
async def test_33_a_client_that_leaves_a_stream_leaves_nothing_open(where: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger()
    with FakeEndpoint(Fault.stall(2, reply("one two three"))) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, max_output_tokens=50)
        async with Brain(model, ledger=ledger, budget=Budget(usd=1, calls=MANY)) as brain:
            for _ in range(5):
                async with contextlib.aclosing(brain.run_stream("go")) as events:
                    async for _ in events:
                        break
        ledger.close()
        meter = list(endpoint.meter)
        rows = ledger.rows(kind="model")
    assert [row.outcome for row in rows] == ["cancelled"] * 5
    total = Cost.total(row.cost for row in rows)
    assert total.high is not None
    assert 0 < billed(meter) <= total.high
    agree(ledger)
    ledger.close()
