"""Money over thousands of calls, reservations and rows: to the last digit, and never above a cap."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import Brain, BrainError, Budget, BudgetExceeded, Ledger, LedgerRow, OpenAIModel, Price
from brain.storage.changes import Settle
from brain.testing import FakeEndpoint, Fault, Metered, reply
from brain.wire import retrying
from specialists import Cost
from specialists.costs import EXACT
from tests.running import carried
from tests.soak import scaled

PRICE = Price("2", "8", "0.5")
CAP = Decimal("5.00")
EACH = Decimal("0.10")
PROCESSES = 4
MILLION = Decimal(1_000_000)


def billed(served: Metered) -> Decimal:
    """What the endpoint bills for one request, by its own meter."""
    return (2 * (served.input - served.cached) + Decimal("0.5") * served.cached + 8 * served.output) / MILLION


class Weather:
    """Every fault that the endpoint knows, now and then; each answer of a usage that no other one has."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self.seen: set[str] = set()

    def __call__(self, body: dict[str, Any]) -> Any:
        number = next(self._numbers)
        given, made = 1 + number % 100, 1 + number // 100
        answer = reply("fine", usage={"input": given, "output": made, "cache_read": given // 2, "cache_write": 0})
        chance = self._chance
        if chance.random() < 0.6:
            return answer
        kinds = {
            "rate_limited": lambda: Fault.rate_limited(chance.choice([None, 0, "soon"])),
            "server_error": lambda: Fault.server_error(chance.choice([500, 502, 503, 529])),
            "rejected": lambda: Fault.rejected(chance.choice([400, 404, 418])),
            "overflow": Fault.context_overflow,
            "hang": Fault.hang,
            "trickle": lambda: Fault.trickle(chance.choice([20, 100_000]), answer),
            "cut_stream": lambda: Fault.cut_stream(chance.randrange(4), answer),
            "stall": lambda: Fault.stall(chance.randrange(4), answer),
            "malformed": lambda: Fault.malformed(chance.choice(["truncated", "nan", "wrong_types", "not_json"])),
            "usage": lambda: Fault.usage(chance.choice(["missing", "zero", "negative", "absurd"]), answer),
            "redirect": lambda: Fault.redirect("https://example.com/v1"),
            "echo_key": lambda: Fault.echo_key(chance.choice([400, 401, 500])),
            "close": Fault.close,
        }
        kind = "enormous" if number % 200 == 7 else chance.choice(list(kinds))
        self.seen.add(kind)
        return Fault.enormous(9) if kind == "enormous" else kinds[kind]()


@pytest.mark.parametrize("where", ["memory", "file"])
async def test_the_bill_contains_the_endpoints_own_meter(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(retrying, "pause", at_once)
    calls = scaled(5_000)
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger(keep=10**6)
    budget = Budget(usd=10_000, calls=10**6)
    weather = Weather(7)
    ended: list[Cost] = []
    with FakeEndpoint(weather) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, timeout=0.5, retries=2)
        monkeypatch.setattr(model._process().breaker, "_threshold", 10**9)
        at_a_time = asyncio.Semaphore(16)
        async with Brain(model, ledger=ledger, budget=budget) as brain:

            async def one(number: int) -> None:
                async with at_a_time:
                    try:
                        if number % 3:
                            ended.append((await brain.run(f"call {number}", tenant=f"t{number % 7}")).usage.cost)
                        else:
                            async for event in brain.run_stream(f"call {number}", tenant=f"t{number % 7}"):
                                if hasattr(event, "result"):
                                    ended.append(event.result.usage.cost)
                    except BrainError as error:
                        ended.append(carried(error).usage.cost)

            await asyncio.gather(*(one(number) for number in range(calls)))
        meter = list(endpoint.meter)
    rows = ledger.rows(kind="model")
    assert len(ended) == calls
    assert len(rows) == len(meter)  # every request that left, and no other
    assert not any(row.in_flight for row in rows)
    total, true = Cost.total(row.cost for row in rows), sum(map(billed, meter), Decimal(0))
    assert total.high is not None
    assert total.low <= true <= total.high
    # No two of the whole answers were of the same usage, so that each exact row has one request to be compared with.
    told = [served for served in meter if served.fault in (None, "trickle")]
    by_usage = {(served.input, served.output): billed(served) for served in told}
    assert len(by_usage) == len(told)
    compared = 0
    for row in rows:
        if row.cost.status == "exact" and row.outcome == "ok":
            assert row.usage is not None
            assert row.cost.low == by_usage[row.usage["input"], row.usage["output"]]
            compared += 1
        elif row.cost.status == "exact":
            assert row.cost.low == 0
    assert compared > calls // 4
    assert len(weather.seen) > 10
    # The receipts, the ledger and the budget's account say the same.
    whole = ledger.total()
    assert Cost.total(ended) == whole
    (spent,) = ledger.spent()
    assert spent.usd == whole.high
    assert spent.calls == len(rows)
    for by in ("run", "tenant", "model", "kind"):
        assert Cost.total(each.cost for each in ledger.sums(by)) == (total if by == "model" else whole)
    ledger.close()


def overall() -> Budget:
    return Budget(usd=CAP, name="everything")


def part(number: int) -> Budget:
    """One process's part: the parts together are more than the whole."""
    return Budget(usd="3.00", calls=10**6, name=f"part {number}", within=overall())


def reserve_many(path: str, number: int, tries: int, ready: Any, results: Any, settling: bool) -> None:
    """In a process of its own: half from threads, half from tasks. Tells how many were admitted."""
    ledger = Ledger(path)
    admitted: list[bool] = []
    ready.wait()

    def from_a_thread(times: int) -> None:
        budget = part(number)
        for _ in range(times):
            try:
                reservation = ledger.reserve_sync(budget, usd=EACH)
            except BudgetExceeded:
                continue
            admitted.append(True)
            if settling:
                reservation.settle_sync("0.03")

    async def from_a_task(budget: Budget) -> None:
        try:
            reservation = await ledger.reserve(budget, usd=EACH)
        except BudgetExceeded:
            return
        admitted.append(True)
        if settling:
            await reservation.settle("0.03")

    async def from_tasks(times: int) -> None:
        await asyncio.gather(*(from_a_task(part(number)) for _ in range(times)))

    threads = [threading.Thread(target=from_a_thread, args=(tries // 8,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(from_tasks(tries - 4 * (tries // 8)))
    for thread in threads:
        thread.join()
    ledger.close()
    results.put(len(admitted))


@pytest.mark.parametrize("settling", [False, True])
def test_a_cap_holds_over_threads_tasks_and_processes(settling: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "bill.db")
    tries = max(400, scaled(10_000))
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(PROCESSES + 1), context.Queue()
    processes = [
        context.Process(target=reserve_many, args=(path, number, tries // PROCESSES, ready, results, settling))
        for number in range(PROCESSES)
    ]
    ledger = Ledger(path)
    for process in processes:
        process.start()
    ready.wait(120)
    highest = Decimal(0)
    while any(process.is_alive() for process in processes):
        for spent in ledger.spent():
            limit = CAP if "everything" in spent.account else Decimal("3.00")
            assert spent.usd <= limit, spent
            highest = max(highest, spent.usd)
    admitted = sum(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = ledger.rows()
    accounts = {spent.account: spent for spent in ledger.spent()}
    (whole,) = [spent for account, spent in accounts.items() if "everything" in account]
    assert len(rows) == admitted == whole.calls
    assert whole.usd == Cost.total(row.cost for row in rows).high
    assert whole.usd == sum((spent.usd for spent in accounts.values()), Decimal(0)) - whole.usd
    assert whole.usd <= CAP
    if settling:
        assert admitted > CAP / EACH  # what was settled made room
        assert not any(row.in_flight for row in rows)
        assert whole.usd == admitted * Decimal("0.03")
    else:
        assert admitted == 50
        assert whole.usd == CAP
    ledger.close()


def random_amount(chance: random.Random) -> Decimal:
    return Decimal(chance.randrange(10 ** chance.randrange(1, 19))).scaleb(-chance.randrange(25))


def test_a_million_random_amounts_add_up_the_same_by_call_by_run_and_by_tenant(tmp_path: Path) -> None:
    chance = random.Random(11)
    ledger = Ledger(tmp_path / "bill.db")
    unit = Decimal(10**30)  # a common denominator, for a sum in whole numbers
    low = high = 0
    tenants = ["a", "b|c", "b:c", "ü/x", "0"]
    sizes: Sequence[int] = [5_000] * (scaled(1_000_000) // 5_000)
    for batch, size in enumerate(sizes):
        changes = []
        for number in range(size):
            least = random_amount(chance)
            most = least + random_amount(chance) if chance.random() < 0.2 else least
            low += int(least.scaleb(30))
            high += int(most.scaleb(30))
            run = f"run {batch}-{number % 100}"
            changes.append(
                Settle(
                    LedgerRow(
                        f"{batch}-{number}",
                        "model",
                        "m",
                        run=run,
                        tenant=tenants[number % 5],
                        call=f"call {number % 1000}",
                        at="2026-01-01T00:00:00.000000Z",
                        outcome="ok",
                        cost=Cost.bounded(least, most),
                    )
                )
            )
        ledger.store.apply(changes).result()
    total = ledger.total()
    assert total.high is not None
    assert (EXACT.multiply(total.low, unit), EXACT.multiply(total.high, unit)) == (low, high)
    for by in ("call", "run", "tenant", "model", "day", "kind"):
        sums = ledger.sums(by)
        assert Cost.total(each.cost for each in sums) == total, by
        assert sum(each.rows for each in sums) == scaled(1_000_000)
    ledger.close()
