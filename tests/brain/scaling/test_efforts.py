"""The cheapest effort that is enough: question by question, and chosen once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from brain import AuthenticationFailed, Budget, BudgetExceeded, ConfigurationError, Ledger, LedgerError, Price
from brain.asking import Asker, Query, Solution
from brain.scaling.efforts import EffortReport, effort
from brain.scaling.voting import vote
from brain.testing import SimulatedModel
from specialists import Verdict
from specialists.statistics import binomial_tail

PRICE = Price("0.40", "1.60")
ACCURACY = {"low": 0.75, "medium": 0.93, "high": 0.97}
TOKENS = {"low": 50, "medium": 400, "high": 3000}


class Said(Asker):
    """Says something at each effort; what is an exception is a failure."""

    def __init__(self, **says: Any) -> None:
        self.says = says
        self.efforts: list[str | None] = []
        self.paths: list[str] = []

    @property
    def name(self) -> str:
        return "said"

    async def ask(self, query: Query) -> Solution[Any]:
        self.efforts.append(query.effort)
        self.paths.append(query.path)
        said = self.says[query.effort or "low"]
        if isinstance(said, Solution):
            return said
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)


def model(seed: int = 1, **more: Any) -> SimulatedModel:
    return SimulatedModel(
        solve=lambda question: int(question.split()[1]),
        accuracy=ACCURACY,
        reasoning_tokens=TOKENS,
        price=PRICE,
        keep_requests=False,
        seed=seed,
        **more,
    )


def cases(count: int) -> list[tuple[str, int]]:
    return [(f"case {number}", number) for number in range(count)]


# Question by question


def test_the_cheapest_answer_that_passes_is_taken() -> None:
    source = Said(low=1, medium=2, high=3)
    solution = effort(source).solve_sync("?", output_type=int, check=lambda value: value == 2)
    assert solution.value == 2
    assert source.efforts == ["low", "medium"]
    assert len(set(source.paths)) == 2
    assert solution.verdict == Verdict.passed()
    report = solution.report
    assert isinstance(report, EffortReport)
    assert (report.chosen, report.settled, [each.verdict for each in report.tries]) == (
        "medium",
        True,
        ["failed", "passed"],
    )
    assert json.loads(json.dumps(report.to_json()))["chosen"] == "medium"
    assert "medium was enough" in str(report)


def test_its_own_check_goes_before_the_querys() -> None:
    async def check(value: int) -> Verdict:
        return Verdict.passed() if value == 3 else Verdict.failed("no")

    solution = effort(Said(low=1, medium=2, high=3), check=check).solve_sync("?", output_type=int, check=lambda _: True)
    assert solution.value == 3


def test_a_check_that_cannot_tell_goes_up_and_the_dearest_answer_stands() -> None:
    solution = effort(Said(low=1, medium=2, high=3)).solve_sync("?", output_type=int, check=lambda _: Verdict.unknown())
    assert solution.value == 3
    assert solution.verdict is not None
    assert solution.verdict.status == "unknown"
    assert not solution.report.settled


def test_an_unknown_answer_goes_before_one_that_is_proved_wrong() -> None:
    def check(value: int) -> Verdict:
        return Verdict.failed("no") if value == 3 else Verdict.unknown()

    solution = effort(Said(low=1, medium=2, high=3)).solve_sync("?", output_type=int, check=check)
    assert (solution.value, solution.report.chosen) == (2, "medium")


def test_answers_that_are_all_proved_wrong_are_none() -> None:
    solution = effort(Said(low=1, medium=2, high=3)).solve_sync("?", output_type=int, check=lambda _: False)
    assert not solution.answered
    assert "proved wrong" in str(solution.reason)
    assert [each.value for each in solution.report.tries] == [1, 2, 3]


def test_a_target_is_held_against_the_confidence() -> None:
    source = Said(low=Solution(1, confidence=0.5), medium=Solution(2, confidence=0.9), high=Solution(3, confidence=1.0))
    solution = effort(source, target=0.8).solve_sync("?", output_type=int)
    assert (solution.value, solution.confidence) == (2, 0.9)
    nested = effort(vote(model(), 5), target=1.0).solve_sync("case 3", output_type=int)
    assert nested.confidence is not None


def test_a_failed_check_is_not_outvoted_by_confidence() -> None:
    source = Said(low=Solution(1, confidence=1.0), high=2)
    solution = effort(source, ["low", "high"], target=0.5).solve_sync("?", output_type=int, check=lambda v: v == 2)
    assert solution.value == 2


def test_where_nothing_can_tell_it_stays_cheap_and_says_so() -> None:
    source = Said(low=1, medium=2, high=3)
    solution = effort(source).solve_sync("?", output_type=int)
    assert solution.value == 1
    assert source.efforts == ["low"]
    assert "nothing says whether" in str(solution.stopped)
    assert not solution.report.settled
    assert effort(source, target=0.5).solve_sync("?", output_type=int).value == 1  # no confidence to hold against it


def test_a_level_that_fails_is_no_end() -> None:
    source = Said(low=RuntimeError("cut off"), medium=2, high=3)
    solution = effort(source).solve_sync("?", output_type=int, check=lambda _: True)
    assert solution.value == 2
    assert solution.failure is None
    assert solution.report.tries[0].problem == "cut off"
    gone = RuntimeError("gone")
    nothing = effort(Said(low=gone, medium=gone, high=gone)).solve_sync("?", output_type=int)
    assert nothing.failure is gone
    assert "no effort gave an answer" in str(nothing.reason)


def test_an_asker_that_raises_is_a_level_that_fails() -> None:
    class Raises(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            if query.effort == "low":
                raise ValueError("mine")
            if query.effort == "ledger":
                raise LedgerError("disk full")
            return await super().ask(query)

    assert effort(Raises(medium=2, high=3)).solve_sync("?", output_type=int, check=lambda _: True).value == 2
    with pytest.raises(LedgerError):
        effort(Raises(), ["ledger"]).solve_sync("?", output_type=int)


def test_a_budget_leaves_what_was_paid_for() -> None:
    told = effort(model())
    solution = told.solve_sync("case 1", output_type=int, check=lambda _: Verdict.unknown(), budget=Budget(calls=1))
    assert solution.answered
    assert solution.calls == 1
    assert isinstance(solution.failure, BudgetExceeded)
    assert solution.stopped is not None
    nothing = told.solve_sync("case 1", output_type=int, budget=Budget(usd="0.0000001"))
    assert not nothing.answered
    assert nothing.calls == 0


def test_a_deadline_leaves_what_was_answered() -> None:
    class Slow(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            if query.effort == "medium":
                await asyncio.sleep(3600)  # and keeps no deadline
            return await super().ask(query)

    told = effort(Slow(low=1, high=3))
    solution = told.solve_sync("?", output_type=int, check=lambda _: Verdict.unknown(), timeout=0.05)
    assert solution.value == 1
    assert solution.stopped == "the deadline passed"


async def test_after_the_deadline_nothing_is_asked() -> None:
    source = Said(low=1)
    whole = await effort(source).solve("?", output_type=int)
    assert whole.tab is not None
    late = await effort(source).ask(Query("?", whole.tab, deadline=time.monotonic() - 1))
    assert (late.answered, late.reason, source.efforts) == (False, "the deadline passed", ["low"])


def test_the_bill_is_that_of_every_level_asked() -> None:
    solution = effort(model()).solve_sync("case 1", output_type=int, check=lambda _: Verdict.unknown())
    assert solution.calls == solution.report.calls == 3
    assert [each.calls for each in solution.report.tries] == [1, 1, 1]
    assert solution.cost == sum((each.cost for each in solution.report.tries), start=solution.cost.exact(0))


def test_efforts_nest() -> None:
    inner = effort(model(), check=lambda _: Verdict.unknown())
    told = vote(inner, 3, early_stop=False)
    assert told.most_calls == 9
    assert told.solve_sync("case 1", output_type=int).calls == 9


def test_arguments_that_cannot_be() -> None:
    source = Said(low=1)
    for how in (
        {"levels": "low"},
        {"levels": []},
        {"levels": ["low", "low"]},
        {"levels": ["low", " "]},
        {"levels": [1]},
        {"levels": 3},
        {"check": True},
        {"target": 1.5},
        {"target": True},
        {"target": "high"},
    ):
        with pytest.raises(ConfigurationError):
            effort(source, **how)  # type: ignore[arg-type]


# Chosen once


def test_the_cheapest_level_that_meets_the_target_is_chosen() -> None:
    choice = asyncio.run(effort(model()).fit(cases(500), 0.88, output_type=int))
    assert choice.level == "medium"
    assert [each.level for each in choice.levels] == ["low", "medium"]  # the dearest was not needed
    low, medium = choice.levels
    assert not low.meets
    assert medium.meets
    assert medium.low >= 0.88
    assert medium.low <= medium.right / medium.cases <= medium.high
    assert low.cost.high is not None
    assert medium.cost.high is not None
    assert low.cost.high < medium.cost.low
    assert choice.calls == 1000
    assert json.loads(json.dumps(choice.to_json()))["level"] == "medium"
    assert "cases that were chosen by" in str(choice)
    solution = choice.asker.solve_sync("case 700", output_type=int)
    assert solution.calls == 1


def test_the_chosen_asker_asks_at_its_level_and_nests() -> None:
    source = Said(low=1, medium=7, high=3)
    choice = asyncio.run(effort(source, ["low", "medium"]).fit([(str(n), 7) for n in range(200)], output_type=int))
    assert choice.level == "medium"
    source.efforts.clear()
    assert vote(choice.asker, 3).solve_sync("?", output_type=int, effort="high").value == 7
    assert set(source.efforts) == {"medium"}


def test_where_no_level_meets_the_target_there_is_none() -> None:
    choice = asyncio.run(effort(model()).fit(cases(300), 0.985, confidence=0.9, output_type=int))
    assert choice.level is None
    assert len(choice.levels) == 3
    assert "no effort" in str(choice)
    with pytest.raises(ConfigurationError):
        _ = choice.asker


def test_a_level_meets_the_target_exactly_where_the_binomial_test_rejects() -> None:
    delta, n = 0.05 / 2, 100
    most = max(errors for errors in range(n) if binomial_tail(errors, n, 0.2) <= delta)
    assert 2 * binomial_tail(most, n, 0.2) <= 0.05  # so often, at most, is a level chosen that is at the target
    for errors, chosen in ((most, "low"), (most + 1, None)):

        def source(question: str, errors: int = errors) -> int:
            return 0 if int(question) < errors else 1

        choice = asyncio.run(
            effort(source, ["low", "high"]).fit([(str(number), 1) for number in range(n)], 0.8, output_type=int)
        )
        assert choice.level == chosen


def test_too_few_cases_are_refused_before_anything_is_asked() -> None:
    asked = model()
    with pytest.raises(ConfigurationError, match="cases without an error would"):
        asyncio.run(effort(asked).fit(cases(20), 0.9, output_type=int))


async def test_fitting_ends_where_the_money_does(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    how: dict[str, Any] = {"ledger": ledger, "budget": Budget(calls=150, per="tenant"), "tenant": "acme"}
    choice = await effort(model()).fit(cases(100), 0.8, output_type=int, at_once=4, **how)
    assert choice.level is None
    assert choice.stopped is not None
    assert choice.calls == 150
    assert choice.levels[0].cases == 100
    assert 40 <= choice.levels[1].cases <= 50  # those that were asked whole
    again = await effort(model()).fit(cases(100), 0.8, output_type=int, **how)
    assert again.levels == ()
    assert "no case" in str(again.stopped)
    ledger.close()


async def test_a_budget_without_a_ledger_is_one_purse_for_all_levels() -> None:
    choice = await effort(model()).fit(cases(100), 0.8, output_type=int, budget=Budget(calls=150))
    assert choice.calls == 150
    assert choice.stopped is not None


async def test_a_model_that_does_not_know_efforts_is_told_of() -> None:
    same = SimulatedModel(solve=lambda q: int(q.split()[1]), accuracy=0.5, price=PRICE, keep_requests=False)
    choice = await effort(same, ["low", "high"]).fit(cases(100), 0.9, output_type=int)
    assert "may not know these efforts" in choice.warnings[0]


async def test_fitting_with_arguments_that_cannot_be() -> None:
    told = effort(model())
    for target, confidence in ((0.0, 0.95), (1.0, 0.95), (0.9, 1.0), ("x", 0.9), (True, 0.9)):
        with pytest.raises(ConfigurationError):
            await told.fit(cases(200), target, confidence, output_type=int)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        await told.fit([], 0.9)


async def test_a_key_that_is_wrong_ends_the_fit() -> None:
    source = Said(low=AuthenticationFailed("no"), medium=1, high=1)
    with pytest.raises(AuthenticationFailed):
        await effort(source).fit([(str(n), 1) for n in range(100)], 0.9, output_type=int, at_once=4)
    assert len(source.efforts) == 4
    assert (await effort(source).solve("?", output_type=int)).failure is source.says["low"]
    assert len(source.efforts) == 5
