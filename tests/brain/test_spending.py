"""Nobody spends more than a budget, however they go about it: what is refused, set aside and borne."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Abstained,
    Brain,
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Ledger,
    ModelRequest,
    ModelResponse,
    ModelTimeout,
    OpenAIModel,
    Price,
    UnpricedModel,
    WireAttempt,
    tool,
)
from brain.books import Books
from brain.budgets import Scope, allowances
from brain.events import Sending
from brain.prices import PriceBook, PriceEntry
from brain.storage.changes import Reserve
from brain.testing import FakeEndpoint, Fault, ScriptedModel, call, reply
from brain.wire import retrying
from specialists import Answer, Cost, specialist
from tests.brain.purses import MANY, PRICE, Plain, calls, simulated, usd
from tests.running import GUARD, add, carried


class TestRefused:
    async def test_it_carries_the_run_and_the_exact_numbers(self) -> None:
        steps: list[Any] = [reply(tool_calls=call("add", a=1, b=1)), "never"]
        with FakeEndpoint(steps) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
            async with Brain(model, tools=[add], ledger=Ledger(), budget=Budget(calls=2)) as brain:
                with pytest.raises(BudgetExceeded) as caught:
                    await brain.run("go")
                ledger = brain.ledger
            assert len(endpoint.meter) == 1
        error, result = caught.value, carried(caught.value)
        assert (error.unit, error.limit, error.spent, error.asked) == ("calls", 2, 2, 1)
        assert "2 calls" in str(error)
        assert len(result.wire_attempts) == 1
        assert [outcome.value for outcome in result.calls] == [2]
        assert ledger.total() == result.usage.cost
        again = pickle.loads(pickle.dumps(error))
        assert (again.unit, again.limit, again.spent, again.asked) == ("calls", 2, 2, 1)

    async def test_the_ladder_goes_on_to_what_there_is_room_for(self) -> None:
        @specialist(min_confidence=0.9)
        async def unsure(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.1)

        big = simulated()
        brain = Brain(ScriptedModel([call("unsure", text="x"), "done"]), specialists=[unsure], fallback=big)
        with pytest.raises(BudgetExceeded) as caught:
            await brain.run("go", budget=Budget(calls=1))
        (outcome,) = carried(caught.value).calls
        assert [attempt.outcome for attempt in outcome.attempts] == ["answered", "refused"]
        assert len(carried(caught.value).wire_attempts) == 0

    async def test_a_second_ask_of_the_big_model_is_reserved_too(self) -> None:
        @specialist(verify=lambda arguments, value: False)
        async def wrong(text: str) -> str:
            """Guess."""
            return text

        big = simulated()
        brain = Brain(ScriptedModel([call("wrong", text="x"), "done"]), specialists=[wrong], fallback=big)
        with pytest.raises(BudgetExceeded) as caught:
            await brain.run("go", budget=Budget(calls=2))
        (outcome,) = carried(caught.value).calls
        assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "big_model", "big_model_again"]
        assert outcome.attempts[-1].outcome == "refused"
        assert len(carried(caught.value).wire_attempts) == 1

    async def test_nothing_at_all_may_be_spent(self) -> None:
        model = simulated(latency=0.01)
        for nothing in (Budget(usd=0), Budget(seconds=0), Budget(calls=0)):
            with pytest.raises(BudgetExceeded):
                await Brain(model).run("go", budget=nothing)
        with pytest.raises(BudgetExceeded):
            await Brain(tools=[add]).run("add 1 and 2", budget=Budget(usd=0))
        with FakeEndpoint() as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)) as brain:
                for nothing in (Budget(usd=0), Budget(seconds=0), Budget(calls=0)):
                    with pytest.raises(BudgetExceeded):
                        await brain.run("go", budget=nothing)
            assert endpoint.requests == []

    async def test_the_planner_costs_what_it_computes_and_has_a_price(self) -> None:
        ledger = Ledger()
        result = await Brain(tools=[add], ledger=ledger, budget=Budget(usd=1)).run("add 1 and 2")
        assert result.calls[0].value == 3
        assert usd(ledger) == ledger.total().high == result.usage.cost.high
        with pytest.raises(Abstained):
            await Brain(tools=[add], ledger=ledger).run("hello", budget=Budget(usd=1))


class TestWorstCase:
    """Before anything is sent, the most that it can cost has room."""

    @pytest.mark.parametrize("stream", [False, True])
    async def test_it_is_set_aside_before_and_never_less_than_the_bill(self, stream: bool) -> None:
        ledger, budget = Ledger(), Budget(usd=1)
        seen: list[Decimal] = []

        def answer(body: dict[str, Any]) -> Any:
            seen.append(usd(ledger))
            return reply("x" * 50, usage={"input": 40, "output": 100, "cache_read": 0, "cache_write": 0})

        with FakeEndpoint(answer) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, max_output_tokens=100)
            async with Brain(model, ledger=ledger, budget=budget) as brain:
                if stream:
                    _ = [event async for event in brain.run_stream("go")]
                else:
                    await brain.run("go")
            assert endpoint.requests[0].body["max_tokens"] == 100
        (row,) = ledger.rows(kind="model")
        assert row.cost == Cost.exact(Decimal(40 + 200) / 10**6)
        bytes_sent = len(str(endpoint.requests[0].body))
        assert seen[0] >= (Decimal(bytes_sent) / 2 + 200) / 10**6
        assert usd(ledger) == ledger.total().high
        assert usd(ledger) < seen[0]

    async def test_a_request_for_which_there_is_no_room_is_not_sent(self) -> None:
        with FakeEndpoint() as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=Price("1", "1000"), max_output_tokens=1000)
            async with Brain(model, budget=Budget(usd="0.99")) as brain:
                with pytest.raises(BudgetExceeded) as caught:
                    await brain.run("go")
            assert endpoint.requests == []
        assert caught.value.unit == "usd"
        assert caught.value.asked > 1

    async def test_a_price_by_the_second_is_reserved_for_an_end_that_comes_late(self) -> None:
        ledger = Ledger()
        seen: list[Decimal] = []

        def answer(body: dict[str, Any]) -> Any:
            seen.append(usd(ledger))
            return Fault.hang()

        with FakeEndpoint(answer) as endpoint:
            prices = PriceBook([PriceEntry("m", per_second="1")])
            model = OpenAIModel("m", base_url=endpoint.base_url, prices=prices, timeout=0.2, retries=0)
            async with Brain(model, ledger=ledger, budget=Budget(usd=5)) as brain:
                with pytest.raises(ModelTimeout):
                    await brain.run("go")
        (row,) = ledger.rows(kind="model")
        assert row.cost.high is not None
        assert Decimal("0.2") <= row.cost.high <= seen[0]

    async def test_every_retry_is_reserved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def at_once(seconds: float) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(retrying, "pause", at_once)
        with FakeEndpoint(Fault.server_error(503)) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=5)
            ledger = Ledger()
            async with Brain(model, ledger=ledger, budget=Budget(calls=3)) as brain:
                with pytest.raises(BudgetExceeded) as caught:
                    await brain.run("go")
            assert len(endpoint.meter) == 3
            assert len(carried(caught.value).wire_attempts) == len(ledger.rows(kind="model")) == 3

    async def test_an_unpriced_model_is_refused_before_a_byte_is_sent(self) -> None:
        with FakeEndpoint() as endpoint:
            async with Brain(OpenAIModel("nobodys-model", base_url=endpoint.base_url)) as brain:
                with pytest.raises(UnpricedModel, match="ceiling"):
                    await brain.run("go", budget=Budget(usd=5))
                assert endpoint.requests == []
                await brain.run("go", budget=Budget(calls=5))  # no money is limited
                await brain.run("go", budget=Budget(usd=5, ceiling="0.10"))
                assert len(endpoint.requests) == 2

    async def test_under_a_ceiling_every_request_is_taken_to_cost_it(self) -> None:
        ledger = Ledger()
        budget = Budget(usd="0.35", ceiling="0.10")
        with FakeEndpoint() as endpoint:
            async with Brain(OpenAIModel("nobodys-model", base_url=endpoint.base_url), ledger=ledger) as brain:
                for _ in range(3):
                    await brain.run("go", budget=budget)
                with pytest.raises(BudgetExceeded):
                    await brain.run("go", budget=budget)
            assert len(endpoint.requests) == 3
        assert Decimal("0.30") <= usd(ledger) < Decimal("0.31")
        assert ledger.total().status == "unpriced"

    async def test_absurd_usage_is_not_believed_and_the_worst_case_is_borne(self) -> None:
        for kind in ("absurd", "negative", "zero", "missing"):
            ledger = Ledger()
            fault: Any = Fault.usage(kind)  # type: ignore[arg-type]
            with FakeEndpoint(fault) as endpoint:
                model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, max_output_tokens=100)
                async with Brain(model, ledger=ledger, budget=Budget(usd="0.01")) as brain:
                    await brain.run("go")
            (row,) = ledger.rows(kind="model")
            assert row.cost.status == "bounded"
            assert row.cost.high is not None
            assert row.cost.high < Decimal("0.01")
            assert usd(ledger) == ledger.total().high


class TestSilentModels:
    """A model of the application's own, that does not announce what it sends."""

    async def test_it_has_no_price_and_needs_a_ceiling(self) -> None:
        model = Plain()
        with pytest.raises(UnpricedModel):
            await Brain(model).run("go", budget=Budget(usd=1))
        assert model.asked == 0
        ledger, budget = Ledger(), Budget(usd="0.25", ceiling="0.10")
        brain = Brain(model, ledger=ledger, budget=budget)
        for _ in range(2):
            await brain.run("go")
        with pytest.raises(BudgetExceeded):
            await brain.run("go")
        assert model.asked == 2
        assert Decimal("0.20") <= usd(ledger) < Decimal("0.21")

    async def test_what_it_tells_is_what_is_spent(self) -> None:
        ledger, budget = Ledger(), Budget(usd=1, calls=9, ceiling="0.10")
        result = await Brain(Plain(3, Cost.exact("0.02")), ledger=ledger, budget=budget).run("go")
        assert calls(ledger) == len(result.wire_attempts) == 3
        assert usd(ledger) == ledger.total().high == result.usage.cost.high
        assert usd(ledger) > Decimal("0.06")

    @pytest.mark.parametrize("role", ["brain", "fallback"])
    async def test_what_tells_nothing_is_not_free(self, role: str) -> None:
        model, ledger = Plain(attempts=0), Ledger()
        budget = Budget(usd="0.25", ceiling="0.10", calls=MANY)

        @specialist(min_confidence=0.9)
        async def unsure(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.1)

        if role == "brain":
            brain = Brain(model, ledger=ledger, budget=budget)
        else:
            steps = [call("unsure", text="x"), "done"] * 9
            brain = Brain(ScriptedModel(steps), specialists=[unsure], fallback=model, ledger=ledger, budget=budget)
        for _ in range(4):
            with contextlib.suppress(BudgetExceeded):
                await brain.run("go")
        assert model.asked == 2
        assert usd(ledger) >= Decimal("0.20")
        assert not any(row.in_flight for row in ledger.rows())

    async def test_one_that_fails_or_is_cancelled_before_it_tells_is_not_free(self) -> None:
        class Broken(Plain):
            async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
                self.asked += 1
                raise RuntimeError("lost in the middle")

        ledger, budget = Ledger(), Budget(usd="0.25", ceiling="0.10")
        with pytest.raises(RuntimeError):
            await Brain(Broken(), ledger=ledger, budget=budget).run("go")
        slow = Plain(wait=GUARD)
        task = asyncio.create_task(Brain(slow, ledger=ledger, budget=budget).run("go"))
        await slow.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(BudgetExceeded):
            await Brain(Plain(), ledger=ledger, budget=budget).run("go")
        assert Decimal("0.20") <= usd(ledger) < Decimal("0.21")

    async def test_it_has_no_more_time_than_is_left(self) -> None:
        ledger = Ledger()
        with pytest.raises(ModelTimeout, match="all that a budget has left"):
            await Brain(Plain(wait=GUARD), ledger=ledger).run("go", budget=Budget(seconds=0.05))

    async def test_two_attempts_under_one_id_are_two(self) -> None:
        class Careless(Plain):
            async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
                for _ in range(2):
                    on_attempt(WireAttempt("x", "own", "http://x", "ok", 0.1, Cost.exact("0.02")))
                return ModelResponse("yes")

        for budget in (None, Budget(usd=1, ceiling="0.10")):
            ledger = Ledger()
            brain = Brain(Careless(), ledger=ledger, budget=budget)
            results = [await brain.run("go") for _ in range(2)]
            assert len(ledger.rows(kind="model")) == 4
            assert ledger.total() == Cost.total(result.usage.cost for result in results)
            if budget is not None:
                assert usd(ledger) == ledger.total().high

    async def test_announced_ids_that_repeat_are_refused(self) -> None:
        class Repeating(Plain):
            announces = True

            async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
                for _ in range(2):
                    if request.on_send is not None:
                        await request.on_send(Sending("x", "own", "http://x", Cost.exact("0.02"), 1.0))
                    self.asked += 1
                    on_attempt(WireAttempt("x", "own", "http://x", "ok", 0.1, Cost.exact("0.02")))
                return ModelResponse("yes")

        model, ledger = Repeating(), Ledger()
        with pytest.raises(ConfigurationError, match="id of its own"):
            await Brain(model, ledger=ledger).run("go", budget=Budget(usd=1))
        assert model.asked == 1
        with pytest.raises(Exception, match="id of its own"):  # nor in a later run
            await Brain(model, ledger=ledger).run("go", budget=Budget(usd=1))
        assert model.asked == 1
        assert ledger.total(kind="model") == Cost.exact("0.02")


class TestSeconds:
    async def test_a_request_has_no_more_time_than_is_left(self) -> None:
        ledger, budget = Ledger(), Budget(seconds=0.3)
        with FakeEndpoint(Fault.hang()) as endpoint:
            model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=3, timeout=GUARD)
            async with Brain(model, ledger=ledger, budget=budget) as brain:
                with pytest.raises((BudgetExceeded, ModelTimeout)):
                    await brain.run("go")
                with pytest.raises(BudgetExceeded) as caught:
                    await brain.run("go")
            assert len(endpoint.requests) == 1
        assert caught.value.unit == "seconds"
        assert caught.value.limit == Decimal("0.3")

    async def test_a_function_and_a_specialist_have_no_more_time_than_is_left(self) -> None:
        ended: list[str] = []

        @tool
        async def slow() -> str:
            """Never end."""
            try:
                await asyncio.sleep(GUARD)
            finally:
                ended.append("function")
            return "never"

        @specialist
        async def slow_too(text: str) -> str:
            """Never end."""
            try:
                await asyncio.sleep(GUARD)
            finally:
                ended.append("specialist")
            return text

        for steps in ([call("slow"), "done"], [call("slow_too", text="x"), "done"]):
            model = ScriptedModel(steps)
            result = await Brain(model, tools=[slow], specialists=[slow_too], fallback=False).run(
                "go", budget=Budget(seconds=0.1)
            )
            assert result.calls[0].attempts[0].outcome == "timeout"
        assert ended == ["function", "specialist"]

    def test_an_overdrawn_account_gives_nothing_back(self) -> None:
        ledger, budget = Ledger(), Budget(seconds=1)
        ledger.reserve_sync(budget, seconds=1).settle_sync(0, seconds=3)
        ledger.reserve_sync(budget, seconds=0).settle_sync(0)
        (spent,) = ledger.spent()
        assert spent.microseconds == 3_000_000
        with pytest.raises(BudgetExceeded):
            ledger.reserve_sync(budget, seconds=0.1)

    async def test_what_is_granted_at_once_is_no_more_than_there_is(self) -> None:
        ledger, budget = Ledger(), Budget(seconds=1)
        reservations = [ledger.store.apply([reserve(budget, 0.4)]).result()[0] for _ in range(3)]
        assert reservations == [400_000, 400_000, 200_000]


def reserve(budget: Budget, seconds: float) -> Reserve:
    books = Books(Ledger().store, Scope("r"))
    row = books.whose.row("function", "f")
    return Reserve(row, allowances([budget], Scope("r")), Decimal(0), int(seconds * 1_000_000))


CRASH = """
import asyncio, os, signal, sys
from brain import Brain, Budget, Ledger, OpenAIModel, Price
from brain.testing import FakeEndpoint

path, how = sys.argv[1:]

def die(body):
    os.kill(os.getpid(), signal.SIGKILL)

budget = Budget(usd="0.05", name="crashing")
if how == "by hand":
    Ledger(path).reserve_sync(budget, usd="0.02")
    os.kill(os.getpid(), signal.SIGKILL)
with FakeEndpoint(die) as endpoint:
    model = OpenAIModel("m", base_url=endpoint.base_url, price=Price("1", "1000"), max_output_tokens=15)
    Brain(model, ledger=path, budget=budget).run_sync("go", run_id="the run")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["by hand", "in a run"])
def test_what_a_killed_process_had_set_aside_stays_set_aside(how: str, tmp_path: Path) -> None:
    path = tmp_path / "bill.db"
    ledger, budget = Ledger(path), Budget(usd="0.05", name="crashing")
    before = Decimal(0)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", CRASH, str(path), how], capture_output=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert usd(ledger) >= before + Decimal("0.015")
        before = usd(ledger)
    flown = [row for row in ledger.rows() if row.in_flight]
    assert sum((row.cost.high or Decimal(0) for row in flown), Decimal(0)) == before
    assert not any(ledger.is_alive(row.owner) for row in flown)
    with pytest.raises(BudgetExceeded):
        ledger.reserve_sync(budget, usd="0.02")
    for row in flown:
        ledger.reconcile(row.id, "0.001")
    assert usd(ledger) == Decimal("0.001") * len(flown)
    ledger.reserve_sync(budget, usd="0.02").release_sync()
    ledger.close()


def test_time_of_windows_is_that_of_the_moment_of_sending() -> None:
    before = datetime.now(UTC)
    account = Budget(usd=1, window=timedelta(seconds=1)).allowance(Scope("r")).account
    number = int(account.rpartition("@")[2])
    assert int(before.timestamp()) <= number <= int(time.time())
