"""The ledger: one row for every attempt, sums by what they are for, and totals that are those of the receipts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain import (
    Brain,
    BrainError,
    Budget,
    ConfigurationError,
    Ledger,
    LedgerRow,
    OpenAIModel,
    Price,
    RunResult,
    TokenUsage,
    UnknownRun,
    tool,
)
from brain.budgets import Scope
from brain.storage.changes import Reserve, Settle
from brain.storage.rows import COLUMNS
from brain.testing import FakeEndpoint, Fault, ScriptedModel, SimulatedModel, call, reply
from specialists import Answer, Cost, Watch, specialist
from specialists.calibration import calibrate_async
from tests.running import add, carried

PRICE = Price("1", "2", "0.25")
MANY = 10**6
WHERE = [(where, limited) for where in ("memory", "file") for limited in (False, True)]
IDS = [f"{where}-{'limited' if limited else 'free'}" for where, limited in WHERE]


@pytest.fixture(params=WHERE, ids=IDS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where a brain writes down what it spends: ``ledger`` and ``budget``."""
    where, limited = request.param
    ledger = Ledger(tmp_path / "bill.db") if where == "file" else Ledger()
    yield {"ledger": ledger, "budget": Budget(usd=1000, calls=MANY, ceiling=1) if limited else None}
    ledger.close()


def agrees(ledger: Ledger, *results: RunResult[Any]) -> list[LedgerRow]:
    """The ledger's total is that of the receipts, also when its rows are added up by run, by call and by kind."""
    total = ledger.total()
    assert total == Cost.total(result.usage.cost for result in results)
    for by in ("run", "kind", "tenant", "session", "day"):
        assert Cost.total(each.cost for each in ledger.sums(by)) == total, by
    for result in results:
        assert ledger.total(run=result.run_id) == result.usage.cost
        wires = ledger.rows(run=result.run_id, kind="model")
        assert {row.id for row in wires} == {wire.id for wire in result.wire_attempts}
        assert {row.id: row.cost for row in wires} == {wire.id: wire.cost for wire in result.wire_attempts}
    rows = ledger.rows()
    assert not any(row.in_flight for row in rows)
    for spent in ledger.spent():
        assert spent.usd == total.high
    return rows


class TestTotals:
    """Whatever kind of run it is, the ledger says what the receipt says."""

    async def test_the_planner(self, kept: Any) -> None:
        result = await Brain(tools=[add], **kept).run("add 1 and 2")
        rows = agrees(kept["ledger"], result)
        assert sorted(row.kind for row in rows) == ["brain", "function"]
        (row,) = [row for row in rows if row.kind == "function"]
        assert (row.name, row.outcome, row.run) == ("add", "answered", result.run_id)

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_chat_model(self, kept: Any, streamed: bool) -> None:
        steps: list[Any] = [reply(tool_calls=call("add", a=1, b=2)), Fault.server_error(503), "three"]
        with FakeEndpoint(steps) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
            async with Brain(model, tools=[add], **kept) as brain:
                if streamed:
                    events = [event async for event in brain.run_stream("go", tenant="t", session="s")]
                    result: RunResult[Any] = events[-1].result  # type: ignore[union-attr]
                else:
                    result = await brain.run("go", tenant="t", session="s")
            meter = list(endpoint.meter)
            origin = model.endpoint
        rows = agrees(kept["ledger"], result)
        models = [row for row in rows if row.kind == "model"]
        assert [row.outcome for row in models] == ["ok", "server_error", "ok"]
        assert [row.cost for row in models] == [
            Cost.exact(Decimal(served.input + 2 * served.output) / 10**6) for served in meter
        ]
        for row in rows:
            assert (row.tenant, row.session, row.run) == ("t", "s", result.run_id)
        assert {row.endpoint for row in models} == {origin}
        assert all(row.price is not None and row.usage is not None and row.details is not None for row in models)

    async def test_a_specialist_and_the_big_model_after_it(self, kept: Any) -> None:
        @specialist(min_confidence=0.9)
        async def unsure(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.1)

        @specialist(verify=lambda arguments, value: False)
        async def wrong(text: str) -> str:
            """Guess."""
            return text

        big = SimulatedModel(solve=lambda _: "yes", price=PRICE, name="big")
        steps = [[call("unsure", text="x"), call("wrong", text="y")], "done"]
        result = await Brain(ScriptedModel(steps), specialists=[unsure, wrong], fallback=big, **kept).run("go")
        rows = agrees(kept["ledger"], result)
        of_wrong = [(row.kind, row.rung) for row in rows if row.tool == "wrong"]
        assert of_wrong == [
            ("specialist", "specialist"),
            ("model", "big_model"),
            ("rung", "big_model"),
            ("model", "big_model_again"),
            ("rung", "big_model_again"),
        ]
        by_call = {each.key: each.cost for each in kept["ledger"].sums("call")}
        for outcome in result.calls:
            cost = Cost.total(attempt.cost for attempt in outcome.attempts if attempt.cost is not None)
            assert by_call[f"{result.run_id}/{outcome.call_id}"] == cost

    async def test_an_audit(self, kept: Any) -> None:
        @specialist
        async def even(x: int) -> Answer[bool]:
            """Whether x is even."""
            return Answer(x % 2 == 0, 0.9)

        cases = [{"input": {"x": x}, "expected": x % 2 == 0} for x in range(400)]
        certified = even.with_certificate((await calibrate_async(even, cases, alpha=0.1)).certificate)
        big = SimulatedModel(solve=lambda _: True, price=PRICE, name="big")
        model = ScriptedModel([call("even", x=2), "done"])
        brain = Brain(model, specialists=[certified], fallback=big, accept="certified", watch=Watch(share=1.0), **kept)
        result = await brain.run("go")
        assert result.calls[0].audit is not None
        rows = agrees(kept["ledger"], result)
        assert [(row.kind, row.audit) for row in rows if row.tool == "even" and row.kind != "model"] == [
            ("specialist", False),
            ("rung", True),
        ]
        assert len([row for row in rows if row.kind == "model"]) == len(big.requests) == 1
        assert {row.certificate for row in rows if row.kind == "specialist"} == {"valid"}

    async def test_a_run_within_a_tool(self, kept: Any) -> None:
        inside: list[RunResult[str]] = []
        inner = Brain(SimulatedModel(solve=lambda _: "yes", price=PRICE, name="inner"))

        @tool
        async def think(n: int) -> str:
            """Think."""
            inside.append(await inner.run("go"))
            return inside[-1].output

        @tool
        def think_in_a_thread(n: int) -> str:
            """Think."""
            inside.append(inner.run_sync("go"))
            return inside[-1].output

        steps = [[call("think", n=1), call("think_in_a_thread", n=1)], "done"]
        result = await Brain(ScriptedModel(steps), tools=[think, think_in_a_thread], **kept).run("go")
        ledger = kept["ledger"]
        assert all(outcome.accepted for outcome in result.calls)
        for each in (result, *inside):
            assert ledger.total(run=each.run_id) == each.usage.cost
        assert {row.parent_run for row in ledger.rows(kind="model")} == {result.run_id}
        assert ledger.total() == Cost.total(each.usage.cost for each in (result, *inside))
        for spent in ledger.spent():
            assert spent.usd == ledger.total().high

    async def test_an_unpriced_model_stays_unpriced(self, kept: Any) -> None:
        with FakeEndpoint() as endpoint:
            async with Brain(OpenAIModel("nobodys-model", base_url=endpoint.base_url), **kept) as brain:
                result = await brain.run("go")
        ledger = kept["ledger"]
        assert ledger.total() == result.usage.cost
        assert ledger.total().status == "unpriced"
        (models,) = ledger.sums("model")
        assert (models.key, models.rows, models.unpriced) == ("nobodys-model", 1, 1)

    @pytest.mark.parametrize("fault", [Fault.close(), Fault.malformed("nan"), Fault.rejected(418), Fault.echo_key(401)])
    async def test_a_run_that_fails(self, kept: Any, fault: Fault) -> None:
        with FakeEndpoint(fault) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=0)
            async with Brain(model, **kept) as brain:
                with pytest.raises(BrainError) as caught:
                    await brain.run("go")
        rows = agrees(kept["ledger"], carried(caught.value))
        assert endpoint.api_key not in repr(rows)

    async def test_many_at_once(self, kept: Any) -> None:
        with FakeEndpoint() as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
            async with Brain(model, **kept) as brain:
                runs = (brain.run(f"go {number}", tenant=f"t{number % 3}") for number in range(30))
                results = await asyncio.gather(*runs)
        agrees(kept["ledger"], *results)
        by_tenant = {each.key: each for each in kept["ledger"].sums("tenant")}
        assert sorted(by_tenant) == ["t0", "t1", "t2"]
        for name, each in by_tenant.items():
            mine = [result for number, result in enumerate(results) if f"t{number % 3}" == name]
            assert each.cost == Cost.total(result.usage.cost for result in mine)
            assert each.input == sum(result.usage.input_tokens or 0 for result in mine)


class TestSums:
    def test_tokens_that_are_not_known_are_not_zero(self) -> None:
        ledger = Ledger()
        usage = TokenUsage(10, 5, None, None, 2, "provider").to_json()
        for number, stated in enumerate((usage, None)):
            ledger.store.apply([Settle(LedgerRow(str(number), "model", "m", outcome="ok", usage=stated))]).result()
        (found,) = ledger.sums("model")
        assert (found.input, found.output, found.cache_read, found.reasoning) == (10, 5, None, 2)

    def test_no_digit_is_lost_in_any_decimal_context(self, tmp_path: Path) -> None:
        amounts = [Decimal("1E-40"), Decimal("123456789012345678901234567890"), Decimal("0.1"), Decimal("1E+20")]
        ledger, budget = Ledger(tmp_path / "bill.db"), Budget(usd="1E+100", name="x")
        with localcontext() as context:
            context.prec = 3
            for amount in amounts:
                ledger.reserve_sync(budget, usd=amount).settle_sync(amount)
            total = ledger.total()
            (spent,) = ledger.spent()
        assert f"{total.low:f}" == "123456789112345678901234567890.1" + "0" * 38 + "1"
        assert spent.usd == total.high == total.low
        ledger.close()

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.decimals(0, 10**9, allow_nan=False, places=15),
                st.decimals(0, 10**9, allow_nan=False, places=15),
                st.sampled_from("abc"),
                st.sampled_from(["t", None, "a/b"]),
                st.booleans(),
            ),
            max_size=30,
        )
    )
    def test_every_way_of_adding_up_gives_the_same(self, rows: list[Any]) -> None:
        ledger, budget = Ledger(), Budget(usd="1E+20")
        for number, (one, other, run, tenant, settled) in enumerate(rows):
            low, high = sorted((one, other))
            row = LedgerRow(str(number), "model", "m", run=run, tenant=tenant, call="c", cost=Cost.bounded(0, high))
            ledger.store.apply([Reserve(row, (budget.allowance(Scope(run)),), high)]).result()
            if settled:
                row = replace(row, outcome="ok", cost=Cost.bounded(low, high))
                ledger.store.apply([Settle(row)]).result()
        total = ledger.total()
        for by in ("all", "run", "call", "tenant", "model", "kind", "day", "session"):
            assert Cost.total(each.cost for each in ledger.sums(by)) == total  # type: ignore[arg-type]
        assert sum(spent.usd for spent in ledger.spent()) == total.high

    def test_only_columns_are_asked_for(self) -> None:
        ledger = Ledger()
        for name in ("nothing", "run = run OR 1", "1=1 --"):
            with pytest.raises(TypeError):
                ledger.rows(**{name: "x"})
        with pytest.raises(TypeError):
            ledger.sums("id")  # type: ignore[arg-type]
        assert ledger.rows(run="x' OR '1'='1") == []

    def test_a_row_is_read_back_as_it_was_written(self, tmp_path: Path) -> None:
        odd = "a|b/c:d\0e'\"ü\u202e"
        row = LedgerRow(
            "id",
            "specialist",
            odd,
            run=odd,
            tenant=odd,
            session=odd,
            call=odd,
            cost=Cost.bounded("0.1", "0.30"),
            usage={"source": "provider", "input": 5},
            details={odd: [1.5, None, odd]},
            outcome="answered",
            audit=True,
        )
        ledger = Ledger(tmp_path / "bill.db")
        ledger.store.apply([Settle(row)]).result()
        assert ledger.rows(tenant=odd) == [row]
        assert len(row.values()) == len(COLUMNS)
        ledger.close()


class TestByHand:
    def test_an_attempt_of_ones_own(self) -> None:
        ledger, budget = Ledger(), Budget(usd=1, calls=3)
        reservation = ledger.reserve_sync(budget, usd="0.5", name="a search", run="r", tenant="t")
        (row,) = ledger.rows()
        assert (row.name, row.run, row.tenant, row.in_flight) == ("a search", "r", "t", True)
        assert row.cost == Cost.bounded(0, "0.5")
        reservation.settle_sync("0.25", seconds=1.5)
        (row,) = ledger.rows(run="r")
        assert (row.outcome, row.cost, row.seconds) == ("answered", Cost.exact("0.25"), 1.5)
        reservation.settle_sync("0.30")  # the later word holds
        assert ledger.total() == Cost.exact("0.30")
        assert ledger.spent()[0].usd == Decimal("0.30")

    async def test_cancelled_while_it_waits_it_leaves_nothing(self, tmp_path: Path) -> None:
        ledger, budget = Ledger(tmp_path / "bill.db"), Budget(usd=1)
        for steps in range(8):
            task = asyncio.create_task(ledger.reserve(budget, usd="0.5"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).release()
            ledger.close()  # waits for what was handed over
            assert [spent.usd for spent in ledger.spent()] in ([], [0])
            assert ledger.rows() == []
        ledger.close()

    def test_a_bill_settles_what_nobody_knew(self) -> None:
        ledger, budget = Ledger(), Budget(usd=1)
        lost = ledger.reserve_sync(budget, usd="0.5")
        ledger.reconcile(lost.id, "0.125")
        (row,) = ledger.rows()
        assert (row.outcome, row.cost) == ("lost", Cost.exact("0.125"))
        assert ledger.spent()[0].usd == Decimal("0.125")
        with pytest.raises(LookupError):
            ledger.reconcile("nobody", 1)
        with pytest.raises(ConfigurationError):
            ledger.reconcile(lost.id, "-1")

    def test_what_is_not_there(self) -> None:
        ledger = Ledger()
        assert ledger.total() == Cost.exact(0)
        assert ledger.sums("run") == ledger.rows() == ledger.runs() == ledger.spent() == []
        with pytest.raises(UnknownRun):
            ledger.run("nobody")

    @pytest.mark.parametrize("wrong", [{"path": ""}, {"path": 5}, {"keep": 0}, {"keep": True}])
    def test_what_is_no_ledger(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            Ledger(**wrong)


def test_a_ledger_in_memory_lets_go_of_rows_and_of_no_money() -> None:
    ledger, budget = Ledger(keep=50), Budget(usd=10**6)
    true = Decimal(0)

    def some(first: int) -> None:
        for number in range(first, first + 1200):
            ledger.reserve_sync(budget, usd=1).settle_sync(Decimal(number) / 10**6)

    threads = [threading.Thread(target=some, args=(first,)) for first in (0, 1200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    true = Decimal(sum(range(2400))) / 10**6
    assert len(ledger.rows()) <= 50
    assert ledger.total() == Cost.exact(true)
    assert ledger.spent()[0].usd == true
    assert ledger.forgotten[0] + len(ledger.rows()) == 2400
