"""One typed question: its books, its bounds, its deadline, and where it stands within a run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
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
    LedgerError,
    ModelRequest,
    ModelResponse,
    OpenAIModel,
    Price,
    PromptError,
    WireAttempt,
    tool,
)
from brain.asking import Asker, ModelAsker, Query, Revision, Solution, ask_all, typed
from brain.testing import FakeEndpoint, Fault, ScriptedModel, SimulatedModel, call
from specialists import Cost, Verdict

PRICE = Price("1.123456789", "2.987654321")


def big(**more: Any) -> SimulatedModel:
    return SimulatedModel(**{"solve": lambda _: 7, "price": PRICE, "name": "big", **more})


class Own:
    """A model of an application's own, which announces nothing."""

    name = "own"

    def __init__(self, said: Any = "7") -> None:
        self.sent = 0
        self._said = said

    async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
        self.sent += 1
        await asyncio.sleep(0)
        if isinstance(self._said, BaseException):
            raise self._said
        on_attempt(WireAttempt(f"w{self.sent}", self.name, "http://x", "ok", 0.1, Cost.exact("0.001")))
        return ModelResponse(self._said)


class Many(Asker):
    """Asks the same question ``times`` over, on one branch."""

    name = "many"

    def __init__(self, by: Asker, times: int, most: int | None = None) -> None:
        self.by, self.times, self.most = by, times, most
        self.got: list[Solution[Any]] = []

    async def ask(self, query: Query) -> Solution[Any]:
        bounded = replace(query, tab=query.tab.branch(most_calls=self.most))
        self.got = await ask_all(self.by, [bounded.sample(n) for n in range(self.times)])
        return replace(self.got[0], report=self.got)


async def test_an_answer_its_row_and_its_bill() -> None:
    ledger = Ledger()
    solution = await ModelAsker(big()).solve("how many?", output_type=int, ledger=ledger, tenant="acme", session="s")
    (row,) = ledger.rows()
    assert solution.unwrap() == 7
    assert (solution.calls, solution.source, solution.reason) == (1, "big", None)
    assert (row.kind, row.name, row.tenant, row.session, row.outcome) == ("model", "big", "acme", "s", "ok")
    assert row.cost.low == solution.cost.low == solution.wire_attempts[0].cost.low
    assert "big" in str(solution.usage)
    assert repr(solution).startswith("<Solution of big: 7; 1 calls")


@pytest.mark.parametrize("question", ["", "  \n", 3, None])
async def test_an_empty_question_is_refused(question: Any) -> None:
    with pytest.raises(PromptError):
        await ModelAsker(big()).solve(question)


@pytest.mark.parametrize(
    "how", [{"timeout": 0}, {"timeout": -1}, {"timeout": True}, {"timeout": "1"}, {"ledger": "x"}, {"output_type": 3}]
)
async def test_arguments_that_cannot_be_are_refused(how: dict[str, Any]) -> None:
    model = big()
    with pytest.raises(ConfigurationError):
        await ModelAsker(model).solve("q", **how)
    assert not model.requests


@pytest.mark.parametrize("announcing", [True, False])
@pytest.mark.parametrize("most", [1, 3, 10, 50])
async def test_the_declared_calls_hold_under_concurrency(announcing: bool, most: int) -> None:
    by = Many(ModelAsker(big() if announcing else Own()), 20, most)
    solution = await by.solve("q", output_type=int)
    assert solution.calls == min(20, most)
    assert sum(each.answered for each in by.got) == min(20, most)
    refused = [each for each in by.got if not each.answered]
    assert all(isinstance(each.failure, BudgetExceeded) and each.failure.unit == "calls" for each in refused)


async def test_the_calls_of_a_branch_are_those_of_the_whole_too() -> None:
    inner = Many(ModelAsker(big()), 4, 10)
    outer = Many(inner, 4, 6)
    solution = await outer.solve("q", output_type=int)
    assert solution.calls == 6


async def test_retries_are_counted_and_bounded() -> None:
    with FakeEndpoint(Fault.server_error(503)) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, api_key=endpoint.api_key)
        by = Many(ModelAsker(model), 3, 2)
        solution = await by.solve("q")
        assert len(endpoint.requests) == solution.calls <= 2
        await model.aclose()
    assert not solution.answered


@pytest.mark.parametrize("shared", [True, False])
async def test_a_budget_holds_for_all_that_is_asked(shared: bool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db") if shared else Ledger()
    budget = Budget(usd="0.0001")
    by = Many(ModelAsker(big()), 30)
    solution = await by.solve("how many?", output_type=int, ledger=ledger, budget=budget)
    (spent,) = ledger.spent()
    assert spent.usd == solution.cost.low <= Decimal("0.0001")
    assert 0 < sum(each.answered for each in by.got) < 30
    rows = [row for row in ledger.rows() if row.kind == "model" and row.outcome == "ok"]
    assert sum((row.cost.low for row in rows), Decimal(0)) == spent.usd
    await ledger.aclose()


async def test_a_budget_of_money_refuses_a_model_without_a_price() -> None:
    model = Own()
    solution = await ModelAsker(model).solve("q", output_type=int, budget=Budget(usd=1))
    assert type(solution.failure).__name__ == "UnpricedModel"
    assert model.sent == 0
    paid = await ModelAsker(model).solve("q", output_type=int, budget=Budget(usd=1, ceiling="0.01"))
    assert paid.value == 7


async def test_a_model_that_raises_is_a_reason() -> None:
    for raised in (ValueError("mine"), RuntimeError()):
        solution = await ModelAsker(Own(raised)).solve("q")
        assert solution.reason
        assert solution.failure is raised
        with pytest.raises(Abstained):
            solution.unwrap()
    wrong = await ModelAsker(Own("not a number")).solve("q", output_type=int)
    assert type(wrong.failure).__name__ == "InvalidAnswer"
    assert wrong.calls == 1


async def test_the_ledgers_own_failure_is_raised() -> None:
    with pytest.raises(LedgerError):
        await ModelAsker(Own(LedgerError("the disk is full"))).solve("q")


async def test_whoever_keeps_no_deadline_is_stopped_and_what_it_took_is_told() -> None:
    class Heedless(Asker):
        name = "heedless"

        async def ask(self, query: Query) -> Solution[Any]:
            await ModelAsker(big()).ask(replace(query.part("first"), deadline=None))
            await asyncio.sleep(60)
            raise AssertionError

    solution = await Heedless().solve("q", output_type=int, timeout=0.05)
    assert type(solution.failure).__name__ == "RunTimeout"
    assert solution.calls == 1


async def test_a_deadline_reaches_the_model() -> None:
    model = big(latency=(30.0, 30.0))
    solution = await ModelAsker(model).solve("q", output_type=int, timeout=0.05)
    assert type(solution.failure).__name__ == "ModelTimeout"
    assert solution.wire_attempts[0].outcome == "timeout"


async def test_a_cancelled_question_leaves_no_row_in_flight(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    begun = asyncio.Event()

    class Slow(SimulatedModel):
        async def ask(self, request: Any, **how: Any) -> Any:
            begun.set()
            return await super().ask(request, **how)

    by = Many(ModelAsker(Slow(solve=lambda _: 7, price=PRICE, latency=(30.0, 30.0))), 5)
    task = asyncio.create_task(by.solve("q", output_type=int, ledger=ledger, budget=Budget(usd=1)))
    await begun.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {row.outcome for row in ledger.rows()} == {"cancelled"}
    await ledger.aclose()


async def test_within_a_runs_tool_it_spends_from_the_runs_budget() -> None:
    solutions: list[Solution[Any]] = []

    @tool
    async def think(question: str) -> int:
        """Think about a question."""
        solutions.append(await Many(ModelAsker(big()), 5).solve(question, output_type=int))
        return solutions[-1].value or 0

    ledger = Ledger()
    brain = Brain(ScriptedModel([call("think", question="how many?"), "done"]), tools=[think], ledger=ledger)
    result = await brain.run("go", budget=Budget(calls=4), tenant="acme")
    assert result.output == "done"
    # The tool is one of the four (a script sends nothing); the five samples share what is left.
    assert sum(each.answered for each in solutions[0].report) == 3
    rows = [row for row in ledger.rows() if row.name == "big"]
    assert {row.parent_run for row in rows} == {result.run_id}
    assert {row.tenant for row in rows} == {"acme"}
    assert len(ledger.spent()) == 1


async def test_a_run_within_a_budget_wants_one_ledger() -> None:
    problems: list[Exception] = []

    @tool
    async def think(question: str) -> int:
        """Think about a question."""
        try:
            await ModelAsker(big()).solve(question, ledger=Ledger())
        except ConfigurationError as error:
            problems.append(error)
        return 0

    brain = Brain(ScriptedModel([call("think", question="q"), "done"]), tools=[think])
    await brain.run("go", budget=Budget(calls=9))
    assert "uses another ledger" in str(problems[0])


async def test_samples_have_seeds_places_and_keys_of_their_own() -> None:
    model = big()
    await Many(Many(ModelAsker(model), 3), 3).solve("q", output_type=int, seed=5)
    assert len({request.seed for request in model.requests}) == 9
    assert len({request.idempotency_key for request in model.requests}) == 9
    again = big()
    await Many(Many(ModelAsker(again), 3), 3).solve("q", output_type=int, seed=5)
    assert [request.seed for request in again.requests] == [request.seed for request in model.requests]


async def test_a_revision_is_told_what_was_wrong() -> None:
    class Again(Asker):
        name = "again"

        async def ask(self, query: Query) -> Solution[Any]:
            return await ModelAsker(model).ask(query.part("2", revisions=(Revision(3, "it is odd"),)))

    model = big()
    await Again().solve("q", output_type=int)
    (request,) = model.requests
    assert request.output_name == "revision"
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
    assert request.messages[1]["content"] == '{"answer": 3}'
    assert "it is odd" in request.messages[2]["content"]


async def test_checks_are_read_as_verdicts() -> None:
    seen: list[Verdict] = []

    class Checks(Asker):
        name = "checks"

        async def ask(self, query: Query) -> Solution[Any]:
            assert query.check is not None
            seen.append(await query.check(3))
            return Solution(3)

    async def later(value: int) -> bool:
        return value == 4

    def broken(_: int) -> bool:
        raise RuntimeError("broken")

    for check in (lambda value: value == 3, later, broken):
        await Checks().solve("q", output_type=int, check=check)
    assert [verdict.status for verdict in seen] == ["passed", "failed", "unknown"]


async def test_ask_all_ends_the_others_with_what_one_raises() -> None:
    ended: list[str] = []

    class Some(Asker):
        name = "some"

        async def ask(self, query: Query) -> Solution[Any]:
            if query.text == "bad":
                raise LedgerError("full")
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(query.text)
            raise AssertionError

    class All(Asker):
        name = "all"

        async def ask(self, query: Query) -> Solution[Any]:
            await ask_all(Some(), [query.part(name, text=name) for name in ("a", "bad", "b")], at_once=2)
            raise AssertionError

    with pytest.raises(LedgerError, match="full"):
        await All().solve("q")
    assert "a" in ended


def test_solve_sync_and_forms() -> None:
    assert ModelAsker(big()).solve_sync("q", output_type=int).value == 7
    form = typed(int)
    assert typed(form) is form
    assert Query("q", None, deadline=time.monotonic() - 1).remaining() == 0  # type: ignore[arg-type]
