"""The bill: exact sums, nothing unpriced shown as zero, and a receipt that can be read."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain import Attempt, Brain, Cost, OpenAIModel, Outcome, Price, TokenUsage, Usage, WireAttempt, tool
from brain.outcome_log import OutcomeLog
from brain.prices import DEFAULT_CPU_RATE
from brain.receipts import UsageRow, priced
from brain.testing import FakeEndpoint, Fault, ScriptedModel, SimulatedModel, call
from specialists import Answer, Policy, specialist


def wire(model: str, cost: Cost, usage: TokenUsage | None = None) -> WireAttempt:
    return WireAttempt("id", model, "http://x", "ok", 0.5, cost, usage or TokenUsage())


def outcome(*attempts: Attempt) -> Outcome[Any]:
    return Outcome(None, None, None, attempts, Policy(()))


money = st.decimals(0, 1000, allow_nan=False, places=9)
costs = st.one_of(
    money.map(Cost.exact),
    st.tuples(money, money).map(lambda pair: Cost.bounded(min(pair), max(pair))),
    money.map(Cost.unpriced),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("ab"), costs)), st.lists(st.floats(0, 100)))
def test_the_whole_is_the_sum_of_its_parts(wires: list[tuple[str, Cost]], cpu: list[float]) -> None:
    attempts = [priced(Attempt("specialist", "answered", 1.0, source="s", cpu_seconds=s), None) for s in cpu]
    sent = [wire(name, cost) for name, cost in wires]
    usage = Usage.of([outcome(*attempts)], sent)
    parts = [each.cost for each in sent] + [each.cost for each in attempts if each.cost is not None]
    assert usage.cost == Cost.total(parts)
    assert usage.requests == len(sent)
    assert usage.unpriced == sum(each.cost.status == "unpriced" for each in sent)
    twice = usage + usage
    assert twice.cost == Cost.total(parts + parts)
    assert twice.requests == 2 * len(sent)
    json.dumps(usage.to_json(), allow_nan=False)
    assert str(usage).startswith("receipt")


async def test_of_a_run_is_exactly_what_its_rows_say() -> None:
    @specialist(min_confidence=0.9)
    def guess(text: str) -> Answer[int]:
        """Guess."""
        return Answer(1, 0.1)

    @tool
    def look() -> int:
        """Look."""
        return sum(range(100_000))

    price = Price("2", "8")
    with FakeEndpoint([[call("guess", text="x"), call("look")], Fault.server_error(500), "done"]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=price)
        big = SimulatedModel(solve=lambda _: 4, price=Price("1", "1"), name="big")
        async with Brain(model, specialists=[guess], tools=[look], fallback=big, cpu_rate=Decimal("0.5")) as brain:
            result = await brain.run("go")
    assert [w.outcome for w in result.wire_attempts if w.model == "m"] == ["ok", "server_error", "ok"]
    rungs = [attempt for each in result.calls for attempt in each.attempts]
    local = [attempt for attempt in rungs if not attempt.wire_attempts]
    own = next(row for row in result.usage.rows if row.kind == "brain")
    assert result.usage.cost == Cost.total(
        [w.cost for w in result.wire_attempts] + [a.cost for a in local if a.cost] + [own.cost]
    )
    # The same bill, added up along the calls and turns in place of the flat list.
    assert result.usage.cost == Cost.total(
        [turn.cost for turn in result.turns] + [a.cost for a in rungs if a.cost] + [own.cost]
    )
    assert all(attempt.cost is not None for attempt in rungs)
    assert own.cost.low == Decimal(repr(round(own.cpu_seconds, 10))) * Decimal("0.5")
    row = next(row for row in result.usage.rows if row.name == "m")
    assert (row.requests, row.input_tokens, row.output_tokens) == (3, endpoint.meter.input, endpoint.meter.output)
    assert row.cost.low == price.of(TokenUsage(endpoint.meter.input, endpoint.meter.output))
    looked = next(each for each in result.calls if each.tool == "look").attempts[0]
    assert looked.cpu_seconds is not None
    assert looked.cpu_seconds > 0


async def test_what_has_no_price_is_counted_and_never_zero() -> None:
    model = SimulatedModel(solve=lambda _: "hello", name="nobody-knows")
    result = await Brain(model).run("go")
    assert result.usage.unpriced == 1
    assert result.usage.cost.status == "unpriced"
    assert result.usage.cost.high is None
    text = str(result.usage)
    assert "nobody-knows" in text
    assert "unpriced" in text
    assert "1 request(s) have no known price" in text


def test_a_receipt() -> None:
    usage = Usage.of(
        [outcome(priced(Attempt("specialist", "answered", 0.1, source="sudoku", cpu_seconds=0.25), None))],
        [
            wire("gpt", Cost.exact("1.5"), TokenUsage(1200, 34, 1000, None, 12, "provider")),
            wire("gpt", Cost.bounded(0, "0.001"), TokenUsage(10, 20, source="estimated")),
        ],
        brain_cpu_seconds=0.002,
        seconds=3.456,
    )
    text = str(usage)
    lines = text.splitlines()
    assert len({len(line) for line in lines if line.startswith("-")}) == 1
    (gpt,) = [line for line in lines if line.startswith("gpt")]
    assert "2 x" in gpt
    assert "1,210 in, 54 out, 1,000 cached, 12 reasoning (estimated)" in gpt
    assert "250.0 ms CPU" in text
    assert "3.46 s" in text
    assert "E-" not in text


def test_bills_add_up_with_sum() -> None:
    bill = Usage((UsageRow("m", "model", requests=1, cost=Cost.exact("0.5")),), 1.0)
    assert sum([bill, bill]) == bill + bill


def test_cpu_time_is_priced_at_the_rate_given() -> None:
    attempt = Attempt("specialist", "answered", 1.0, cpu_seconds=2.0, cpu_seconds_low=1.0)
    assert priced(attempt, None).cost == Cost.bounded(DEFAULT_CPU_RATE, 2 * DEFAULT_CPU_RATE)
    assert priced(attempt, Decimal(0)).cost == Cost.exact(0)
    assert priced(Attempt("big_model", "error", 1.0), None).cost == Cost.exact(0)


async def test_a_cost_limit_stops_before_the_next_request() -> None:
    from brain import CostLimit

    class Looping(SimulatedModel):
        async def ask(self, request: Any, *, on_attempt: Any, on_text: Any = None) -> Any:
            from dataclasses import replace

            response = await super().ask(request, on_attempt=on_attempt, on_text=on_text)
            return replace(response, text=None, tool_calls=(call("look", n=len(self.requests)),))

    @tool
    def look(n: int) -> int:
        """Look."""
        return n

    model = Looping(solve=lambda _: "x", price=Price("1000", "1000"))
    with pytest.raises(CostLimit, match="cost_limit") as caught:
        await Brain(model, tools=[look], cost_limit=Decimal("0.05"), turn_limit=100).run("go")
    result = caught.value.result
    assert result is not None
    assert len(model.requests) == len(result.turns) == len(result.calls) < 100
    spent = result.usage.cost
    assert spent.high is not None
    assert spent.high >= Decimal("0.05") > spent.high - result.turns[-1].cost.low

    unpriced = Looping(solve=lambda _: "x")
    with pytest.raises(CostLimit, match="no known price"):
        await Brain(unpriced, tools=[look], cost_limit=Decimal(1)).run("go")
    assert len(unpriced.requests) == 1


class TestOutcomeLog:
    async def test_appends_in_order_from_many_writers(self, tmp_path: Path) -> None:
        import asyncio

        log = OutcomeLog(tmp_path / "log.jsonl")
        await log.open()
        await asyncio.gather(*(log.append([outcome()] * 5, n=n) for n in range(50)))
        log.close()
        rows = [json.loads(line)["n"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert len(rows) == 250
        assert [rows[i : i + 5] for i in range(0, 250, 5)] == [[n] * 5 for n in rows[::5]]
        await log.append([outcome()], n=-1)  # it can be used again
        log.close()
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 251

    async def test_what_was_written_before_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_text('{"old": true}\n')
        log = OutcomeLog(path)
        await log.open()
        await log.append([])
        log.close()
        assert path.read_text() == '{"old": true}\n'

    async def test_of_brains_that_share_a_file(self, tmp_path: Path) -> None:
        import asyncio

        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        path = tmp_path / "log.jsonl"
        brains = [Brain(ScriptedModel([call("add", a=n, b=1), "x"]), tools=[add], log=path) for n in range(20)]
        await asyncio.gather(*(brain.run("go") for brain in brains))
        values = [json.loads(line)["value"] for line in path.read_text().splitlines()]
        assert sorted(values) == list(range(1, 21))
        for brain in brains:
            await brain.aclose()


def test_where_a_gpu_ran_its_seconds_lie_between_none_and_all() -> None:
    on_gpu = Attempt("specialist", "answered", 2.0, cpu_seconds=1.0, ran=("ab12/CUDAExecutionProvider/1.32",))
    both = priced(on_gpu, Decimal("0.1"), Decimal("0.5")).cost
    assert both == Cost.bounded("0.1", "1.1")
    for ran in ((), ("ab12/CPUExecutionProvider/1.32",), ("ab12/CPU/1.32",)):
        assert priced(replace(on_gpu, ran=ran), Decimal("0.1"), Decimal("0.5")).cost == Cost.exact("0.1")
    assert priced(on_gpu, Decimal("0.1")).cost == Cost.exact("0.1")
