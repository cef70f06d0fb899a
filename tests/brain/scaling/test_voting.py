"""A vote: what it counts, when it stops, what it says of itself, and what it does with what cannot be counted."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from brain import AuthenticationFailed, Brain, Budget, BudgetExceeded, ConfigurationError, Ledger, LedgerError, Price
from brain.asking import Asker, Query, Solution
from brain.keys import Secret
from brain.scaling import effort, prove
from brain.scaling.correlations import FEWEST, Agreement, Moments
from brain.scaling.forms import NoCanonicalForm, canonical_form
from brain.scaling.sources import asker as as_asker
from brain.scaling.stopping import StopRule, fixed_error
from brain.scaling.voting import Vote, VoteReport, vote
from brain.testing import ScriptedModel, SimulatedModel
from specialists import Verdict

PRICE = Price("0.40", "1.60")


class Said(Asker):
    """Says what it is told, sample by sample; what is an exception is a failure."""

    def __init__(self, *says: Any, delay: float = 0.0) -> None:
        self.says = says
        self.delay = delay
        self.asked: list[Query] = []
        self.most_at_once = self._now = 0

    @property
    def name(self) -> str:
        return "said"

    async def ask(self, query: Query) -> Solution[Any]:
        number = int(query.path.rpartition(" ")[2])
        self.asked.append(query)
        self._now += 1
        self.most_at_once = max(self._now, self.most_at_once)
        await asyncio.sleep(self.delay * number)
        self._now -= 1
        said = self.says[(number - 1) % len(self.says)]
        if isinstance(said, Solution):
            return replace(said, tab=query.tab)
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)


def model(accuracy: float = 0.6, **more: Any) -> SimulatedModel:
    return SimulatedModel(
        solve=lambda question: int(question.split()[1]), accuracy=accuracy, price=PRICE, keep_requests=False, **more
    )


def cases(count: int) -> list[tuple[str, int]]:
    return [(f"case {number}", number) for number in range(count)]


# What is the same answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Colour(Enum):
    RED = "red"


class Point(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: float
    tags: set[str] = set()


@dataclass(frozen=True)
class Pair:
    one: int
    other: int


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, Decimal("1.00")),
        (0.1, Decimal("0.10")),
        (-0.0, 0),
        (10**22, 1e22),
        (" e\u0301\n", "é"),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ({3, 1, 2}, frozenset((2, 3, 1))),
        ((1, 2), [1, 2]),
        (Point(x=1, tags={"b", "a"}), Point(x=1.0, tags={"a", "b"})),
        (Pair(1, 2), {"other": 2, "one": 1}),
        (Colour.RED, "red"),
        (datetime.date(2025, 1, 2), "2025-01-02"),
        (b"ab", b"ab"),
    ],
)
def test_answers_that_are_the_same(one: Any, other: Any) -> None:
    assert canonical_form(one) == canonical_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (None, ""),
        ("1", 1),
        ("Paris", "paris"),
        ([1, 2], [2, 1]),
        ([1, 2], {1, 2}),
        ({"a": 1}, {"a": 2}),
        (0.1, 0.1000000001),
        (["number", "1"], 1),
        (Point(x=1), Point(x=1, extra=2)),  # type: ignore[call-arg]
    ],
)
def test_answers_that_are_not_the_same(one: Any, other: Any) -> None:
    assert canonical_form(one) != canonical_form(other)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_json_has_a_form_and_the_same_when_read_again(value: Any) -> None:
    form = canonical_form(value)
    assert json.loads(form) is not None or value is None
    assert canonical_form(json.loads(json.dumps(value))) == form


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def around() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [math.nan, {"a": math.inf}, Decimal("NaN"), object(), lambda: 0, nested(100_000), around()]
)
def test_what_has_no_form_says_why(value: Any) -> None:
    with pytest.raises(NoCanonicalForm):
        canonical_form(value)


def test_numbers_of_any_size_have_a_form() -> None:
    assert canonical_form(10**6000) != canonical_form(10**6000 + 1)
    assert canonical_form(Decimal("1e999999")) != canonical_form(Decimal("1e999998"))


# When it stops


def test_an_early_stop_asks_no_more_than_it_needs() -> None:
    source = Said(7)
    solution = vote(source).solve_sync("?", output_type=int)
    assert solution.value == 7
    assert solution.confidence == 1.0
    assert isinstance(solution.report, VoteReport)
    assert solution.report.asked == len(source.asked) == StopRule.predictive(9, 0.05).least == 3
    assert solution.report.saved == 6
    assert source.most_at_once == 3  # together, for two could not have ended it


def test_without_an_early_stop_all_are_asked_and_together() -> None:
    source = Said(7)
    solution = vote(source, 9, early_stop=False).solve_sync("?", output_type=int)
    assert solution.report.asked == source.most_at_once == 9
    assert solution.report.saved == 0


def test_at_once_bounds_what_is_asked_together() -> None:
    source = Said(1, 2, 3)
    solution = vote(source, 7, early_stop=False, at_once=2).solve_sync("?", output_type=int)
    assert source.most_at_once == 2
    assert solution.report.asked == 7


@pytest.mark.parametrize("at_once", [None, 1, 2, 100])
def test_how_many_are_asked_at_once_changes_neither_answer_nor_count(at_once: int | None) -> None:
    told = [vote(model(seed=5), 15, at_once=at_once).solve_sync(q, output_type=int) for q, _ in cases(40)]
    same = [vote(model(seed=5), 15, at_once=1).solve_sync(q, output_type=int) for q, _ in cases(40)]
    assert [(each.value, each.report.asked) for each in told] == [(each.value, each.report.asked) for each in same]


def test_what_is_left_and_can_change_nothing_is_not_asked() -> None:
    source = Said(1, 1, 2, 1)
    assert vote(source, 5, error=0.0).solve_sync("?", output_type=int).report.asked == 4


@given(st.lists(st.integers(0, 3), min_size=15, max_size=15), st.integers(1, 15))
def test_with_no_error_allowed_the_stop_never_changes_the_answer(says: list[int], most: int) -> None:
    stopped = vote(Said(*says), most, error=0.0).solve_sync("?", output_type=int)
    whole = vote(Said(*says), most, early_stop=False).solve_sync("?", output_type=int)
    assert stopped.value == whole.value


def test_a_stop_rule_of_ones_own() -> None:
    source = Said(1, 2, 2, 2)
    solution = vote(source, early_stop=StopRule.lead(2, 50)).solve_sync("?", output_type=int)
    assert (solution.value, solution.report.asked, solution.report.most) == (2, 4, 50)


@pytest.mark.parametrize("rule", [StopRule.fixed(9), StopRule.lead(2, 9), StopRule.predictive(9, 0.05)])
def test_a_rule_is_predicted_exactly(rule: StopRule) -> None:
    def brute(path: tuple[bool, ...] = ()) -> tuple[float, float]:
        right = sum(path)
        lead = abs(2 * right - len(path))
        if path and rule.stops(len(path), lead):
            chance = 0.6**right * 0.4 ** (len(path) - right)
            return chance * (2 * right < len(path)), chance * len(path)
        one, other = brute((*path, True)), brute((*path, False))
        return one[0] + other[0], one[1] + other[1]

    error, samples = brute()
    assert rule.predict(0.6).error == pytest.approx(error)
    assert rule.predict(0.6).samples == pytest.approx(samples)


def test_errors_of_fixed_votes_are_the_binomials() -> None:
    for k in (1, 2, 3, 9, 30, 31):
        majority = sum(
            math.comb(k, n) * 0.6**n * 0.4 ** (k - n) * (1 if 2 * n > k else 0.5) for n in range(k + 1) if 2 * n >= k
        )
        assert fixed_error(k, 0.6) == pytest.approx(1 - majority)
        assert StopRule.fixed(k).predict(0.6).error == pytest.approx(1 - majority)
    assert fixed_error(9, 0.6, 1.0) == pytest.approx(0.4)
    assert fixed_error(9, 0.6, 0.25) == pytest.approx(StopRule.fixed(9).predict(0.6, 0.25).error)
    assert fixed_error(9, 1.0, 0.3) == 0.0
    assert fixed_error(9, 0.6, 1e-12) == pytest.approx(fixed_error(9, 0.6))


def test_a_lead_has_the_error_that_wald_computed() -> None:
    for lead in (1, 2, 3, 4):
        found = StopRule.lead(lead, 600).predict(0.6)
        wrong = 1 / (1 + 1.5**lead)
        assert found.error == pytest.approx(wrong, abs=1e-6)
        assert found.samples == pytest.approx(lead * (1 - 2 * wrong) / 0.2, rel=1e-4)


@pytest.mark.parametrize("k", [3, 5, 7, 9, 15, 31])
def test_a_rule_as_good_as_a_fixed_vote_errs_no_more_and_asks_less(k: int) -> None:
    rule = StopRule.as_good_as(k)
    found = rule.predict(0.6)
    assert found.error <= fixed_error(k, 0.6) * (1 + 1e-9)
    assert 1 - found.samples / k >= (0.3 if k >= 7 else 0.15)


def test_rules_that_cannot_be() -> None:
    for make in (
        lambda: StopRule((0, 1)),
        lambda: StopRule(()),
        lambda: StopRule(3),  # type: ignore[arg-type]
        lambda: StopRule("12"),  # type: ignore[arg-type]
        lambda: StopRule((True,)),
        lambda: StopRule.fixed(0),
        lambda: StopRule.fixed(1001),
        lambda: StopRule.predictive(9, 0.5),
        lambda: StopRule.as_good_as(4),
        lambda: StopRule.as_good_as(5, 0.5),
        lambda: StopRule.as_good_as(5, most=3),
    ):
        with pytest.raises(ConfigurationError):
            make()


# What it counts


def test_the_answer_of_most_wins_and_the_report_says_how() -> None:
    solution = vote(Said("Oslo", "Bergen", " Oslo"), 3, early_stop=False).solve_sync("?")
    assert solution.value == "Oslo"
    assert solution.confidence == pytest.approx(2 / 3)
    report = solution.report
    assert [(each.value, each.votes) for each in report.candidates] == [("Oslo", 2), ("Bergen", 1)]
    assert "2 x Oslo" in str(report)
    assert json.loads(json.dumps(report.to_json()))["asked"] == 3


def test_a_tie_goes_to_the_first_and_says_so() -> None:
    solution = vote(Said(1, 2), 2, early_stop=False).solve_sync("?", output_type=int)
    assert solution.value == 1
    assert solution.report.tied
    assert "tied" in str(solution.report)


def test_the_first_is_the_first_asked_and_not_the_first_to_answer() -> None:
    source = Said(1, 2, delay=0.01)
    assert vote(source, 2, early_stop=False).solve_sync("?", output_type=int).value == 1


def test_weights_count() -> None:
    def weight(solution: Solution[Any]) -> float:
        return 3.0 if solution.value == 2 else 1.0

    solution = vote(Said(1, 1, 2), 3, weight=weight, early_stop=False).solve_sync("?", output_type=int)
    assert solution.value == 2
    assert solution.report.candidates[0].weight == 3.0
    none = vote(Said(1), 3, weight=lambda _: 0).solve_sync("?", output_type=int)
    assert not none.answered
    assert "weight" in str(none.reason)


def test_a_weight_sees_what_the_check_says() -> None:
    def weight(solution: Solution[Any]) -> float:
        assert solution.verdict is not None
        return 5 if solution.verdict.status == "passed" else 1

    def check(value: int) -> Verdict:
        return Verdict.passed() if value == 2 else Verdict.unknown()

    solution = vote(Said(1, 1, 2), 3, weight=weight, early_stop=False).solve_sync("?", output_type=int, check=check)
    assert solution.value == 2
    assert solution.verdict is not None
    assert solution.verdict.status == "passed"


def test_what_is_proved_wrong_has_no_ballot() -> None:
    asked = []

    def check(value: int) -> bool:
        asked.append(value)
        return value != 1

    solution = vote(Said(1, 1, 2), 3, early_stop=False).solve_sync("?", output_type=int, check=check)
    assert solution.value == 2
    assert solution.confidence == pytest.approx(1 / 3)
    assert solution.report.without_ballot == 2
    assert asked == [1, 2]  # each answer once
    none = vote(Said(1), 3).solve_sync("?", output_type=int, check=check)
    assert not none.answered
    assert "proved wrong" in str(none.reason)
    assert none.report.asked == 3


def test_a_check_that_raises_could_not_tell() -> None:
    def check(value: int) -> bool:
        raise RuntimeError("no")

    solution = vote(Said(1), 3).solve_sync("?", output_type=int, check=check)
    assert solution.value == 1
    assert solution.verdict is not None
    assert solution.verdict.status == "unknown"


def test_samples_differ_in_seed_key_and_branch() -> None:
    source = Said(1, 2, 3)
    solution = vote(source, 3, early_stop=False).solve_sync("?", output_type=int, seed=11)
    assert len({query.seed for query in source.asked}) == 3
    assert len({query.path for query in source.asked}) == 3
    assert len({id(query.tab) for query in source.asked}) == 3
    assert solution.report.samples[0].number == 1


def test_votes_nest() -> None:
    inner = vote(model(seed=1), 3)
    outer = vote(inner, 3)
    assert outer.most_calls == 9
    assert outer.models() == {"simulated"}
    solution = outer.solve_sync("case 4", output_type=int)
    assert 4 <= solution.calls <= 9
    assert len({wire.id for wire in solution.wire_attempts}) == solution.calls
    assert solution.cost.status == "exact"
    assert solution.cost == sum((wire.cost for wire in solution.wire_attempts), start=solution.cost.exact(0))


# What goes wrong


def test_a_sample_that_fails_has_no_ballot_and_is_no_end() -> None:
    solution = vote(Said(RuntimeError("down"), 3, 3), 3, early_stop=False).solve_sync("?", output_type=int)
    assert solution.value == 3
    assert solution.confidence == pytest.approx(2 / 3)
    assert "without a ballot" in str(solution.report)


def test_an_asker_that_raises_is_a_sample_that_fails() -> None:
    class Raises(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            if query.path.endswith("1"):
                raise ValueError("mine")
            return await super().ask(query)

    solution = vote(Raises(4), 3, early_stop=False).solve_sync("?", output_type=int)
    assert solution.value == 4
    assert solution.report.samples[0].problem == "ValueError: mine"


def test_an_asker_that_gives_no_solution_is_a_sample_that_fails() -> None:
    class Nothing(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            return None  # type: ignore[return-value]

    solution = vote(Nothing(1), 3).solve_sync("?", output_type=int)
    assert isinstance(solution.failure, TypeError)
    assert "not a Solution" in str(solution.reason)


def test_no_value_may_be_the_answer() -> None:
    solution = vote(Said(None), 3).solve_sync("?", output_type=int | None)
    assert solution.answered
    assert solution.value is None
    assert solution.confidence == 1.0


def test_an_answer_that_was_compared_and_proved_wrong_is_no_error_of_the_configuration() -> None:
    told = vote(Said("x", "7", "7"), 3, canonical=float, at_once=1)
    solution = told.solve_sync("?", check=lambda value: value != "7")
    assert isinstance(solution.failure, ConfigurationError)  # the first, alone, could not be
    told = vote(Said("7", "x", "8"), 3, canonical=float, at_once=1)
    solution = told.solve_sync("?", check=lambda value: value != "7")
    assert solution.value == "8"


def test_when_all_fail_the_failure_is_told() -> None:
    down = RuntimeError("down")
    solution = vote(Said(down), 3).solve_sync("?", output_type=int)
    assert not solution.answered
    assert solution.failure is down
    assert solution.report.asked == 3
    assert "none of 3 samples" in str(solution.reason)


def test_what_every_sample_would_end_in_ends_the_vote() -> None:
    source = Said(AuthenticationFailed("wrong key"))
    solution = vote(source, 9).solve_sync("?", output_type=int)
    assert len(source.asked) == 3  # those that were asked together
    assert isinstance(solution.failure, AuthenticationFailed)
    assert solution.stopped is not None


def test_a_ledger_that_cannot_be_written_is_raised() -> None:
    class Broken(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            raise LedgerError("disk full")

    with pytest.raises(LedgerError):
        vote(Broken(1), 3).solve_sync("?", output_type=int)


def test_a_budget_that_is_used_up_leaves_what_was_paid_for() -> None:
    solution = vote(model(), 9, at_once=1, early_stop=False).solve_sync(
        "case 1", output_type=int, budget=Budget(calls=4)
    )
    assert solution.answered
    assert solution.calls == 4
    assert isinstance(solution.failure, BudgetExceeded)
    assert solution.stopped == solution.report.ended
    assert solution.report.asked == 5
    nothing = vote(model(), 9).solve_sync("case 1", output_type=int, budget=Budget(usd="0.0000001"))
    assert not nothing.answered
    assert nothing.calls == 0
    assert isinstance(nothing.failure, BudgetExceeded)


def test_money_stays_below_the_budget_also_when_samples_are_asked_together() -> None:
    ledger = Ledger()
    budget = Budget(usd="0.00005")
    solution = vote(model(), 31, early_stop=False).solve_sync("case 1", output_type=int, budget=budget, ledger=ledger)
    assert solution.cost.high is not None
    assert solution.cost.high <= Decimal("0.00005")
    assert 1 <= solution.calls < 31
    assert solution.answered


def test_a_deadline_leaves_what_was_answered() -> None:
    class Slow(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            if query.path.endswith("3"):
                await asyncio.sleep(3600)  # and keeps no deadline
            return await super().ask(query)

    solution = vote(Slow(8), 3, early_stop=False).solve_sync("?", output_type=int, timeout=0.05)
    assert solution.value == 8
    assert "deadline" in str(solution.report.samples[2].problem)


def test_a_check_that_keeps_no_deadline_could_not_tell() -> None:
    async def check(value: int) -> bool:
        await asyncio.sleep(3600)
        return True

    solution = vote(Said(8), 1).solve_sync("?", output_type=int, check=check, timeout=0.05)
    assert solution.value == 8
    assert solution.verdict is not None
    assert solution.verdict.status == "unknown"


def test_late_samples_and_late_checks_together_lose_nothing() -> None:
    class Slow(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            if query.path.endswith("4"):
                await asyncio.sleep(3600)
            return await super().ask(query)

    async def check(value: int) -> bool:
        await asyncio.sleep(0 if value == 1 else 3600)
        return True

    told = vote(Slow(1, 2, 3, 4), 4, early_stop=False)
    solution = told.solve_sync("?", output_type=int, check=check, timeout=0.05)
    assert solution.value == 1
    assert solution.report.samples[0].verdict == "passed"
    assert solution.report.samples[2].verdict == "unknown"


async def test_after_the_deadline_nothing_is_asked() -> None:
    source = Said(8)
    whole = await vote(source, 3).solve("?", output_type=int)
    assert whole.tab is not None
    late = await vote(source, 3).ask(Query("?", whole.tab, deadline=time.monotonic() - 1))
    assert not late.answered
    assert late.stopped == "the deadline passed"
    assert len(source.asked) == whole.report.asked == 2


async def test_a_cancellation_ends_every_sample() -> None:
    asked = asyncio.Semaphore(0)

    class Waits(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            asked.release()
            return await super().ask(query)

    task = asyncio.create_task(vote(Waits(1, delay=3600), 9, early_stop=False).solve("?", output_type=int))
    for _ in range(9):
        await asked.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


def test_answers_that_cannot_be_compared_are_a_typed_error_with_the_bill() -> None:
    def canonical(value: int) -> Any:
        raise KeyError("unit")

    solution = vote(model(), 9, canonical=canonical).solve_sync("case 1", output_type=int)
    assert not solution.answered
    assert isinstance(solution.failure, ConfigurationError)
    assert "canonical raised KeyError" in str(solution.reason)
    assert solution.report.asked == solution.calls == 3  # not nine
    assert solution.cost.high is not None
    assert solution.cost.high > 0


@pytest.mark.parametrize("canonical", [lambda value: math.nan, lambda value: object(), lambda value: {1, object()}])
def test_a_canonical_form_that_is_none(canonical: Any) -> None:
    solution = vote(Said(1), 9, canonical=canonical).solve_sync("?", output_type=int)
    assert isinstance(solution.failure, ConfigurationError)


def test_one_value_that_cannot_be_compared_has_no_ballot() -> None:
    solution = vote(Said("7", "n/a", "7.0"), 3, canonical=float, early_stop=False).solve_sync("?")
    assert solution.value == "7"
    assert solution.report.candidates[0].votes == 2
    assert "compared" in str(solution.report.samples[1].problem)


def test_a_canonical_that_gives_what_has_no_hash() -> None:
    solution = vote(Said("b a", "a b", "c"), 3, canonical=lambda text: set(text.split()), early_stop=False).solve_sync(
        "?"
    )
    assert solution.report.candidates[0].votes == 2


@pytest.mark.parametrize(
    "weight", [lambda _: math.nan, lambda _: -1, lambda _: "heavy", lambda _: 1 / 0, lambda _: math.inf]
)
def test_a_weight_that_is_none(weight: Any) -> None:
    solution = vote(Said(1), 9, weight=weight).solve_sync("?", output_type=int)
    assert isinstance(solution.failure, ConfigurationError)
    assert solution.report.asked == 3


def test_arguments_that_cannot_be() -> None:
    for how in (
        {"most": 0},
        {"most": 2.5},
        {"most": True},
        {"most": 1001},
        {"error": 0.5},
        {"error": -0.1},
        {"error": "x"},
        {"at_once": 0},
        {"early_stop": "yes"},
        {"early_stop": StopRule.fixed(3), "most": 5},
        {"canonical": 3},
        {"weight": 3},
        {"accuracy": 1.0},
        {"accuracy": "high"},
    ):
        with pytest.raises(ConfigurationError):
            vote(Said(1), **how)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        vote(3)


def test_what_a_model_writes_draws_nothing_in_a_terminal() -> None:
    said = str(vote(Said("\x1b[31mred\u202e\n" + "long " * 100), 1).solve_sync("?").report)
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert max(map(len, said.splitlines())) < 120


def test_keys_stay_out_of_the_report() -> None:
    key = "sk-" + "a1B2" * 12
    secret = Secret(key)
    solution = vote(Said(RuntimeError(f"bad key {key}")), 1).solve_sync("?")
    assert key not in json.dumps(solution.report.to_json()) + str(solution.report) + str(solution.reason)
    assert secret.reveal() == key


# Whether errors are independent


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_correlated_errors_are_told_with_right_answers_at_hand(seed: int) -> None:
    measure = asyncio.run(vote(model(correlation=0.5, seed=seed)).measure(cases(400), output_type=int))
    assert measure.correlation.independence == "contradicted"
    assert "errors are correlated" in str(measure)
    assert measure.predicted is not None
    assert measure.within is not None
    assert measure.accuracy < measure.predicted - 0.04
    assert abs(measure.accuracy - measure.within) < abs(measure.accuracy - measure.predicted)
    assert json.loads(json.dumps(measure.to_json()))["correlation"]["independence"] == "contradicted"


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_independent_errors_are_not_called_correlated(seed: int) -> None:
    measure = asyncio.run(vote(model(seed=seed), accuracy=0.6).measure(cases(400), output_type=int))
    assert measure.correlation.independence == "consistent"
    assert "errors are correlated" not in str(measure)
    assert measure.predicted == pytest.approx(measure.accuracy, abs=0.06)
    assert measure.calls == sum(1 for _ in range(400)) * measure.samples
    assert measure.cost.status == "exact"


def test_questions_that_are_not_equally_hard_are_told_too() -> None:
    mixed = SimulatedModel(
        solve=lambda question: int(question.split()[1]),
        accuracy={"easy": 0.95, "hard": 0.3},
        task_class=lambda question: "easy" if int(question.split()[1]) % 2 else "hard",
    )
    measure = asyncio.run(vote(mixed).measure(cases(300), output_type=int))
    assert measure.correlation.independence == "contradicted"


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_a_known_accuracy_lets_every_report_warn(seed: int) -> None:
    told = vote(model(correlation=0.8, seed=seed), accuracy=0.6)
    reports = [told.solve_sync(question, output_type=int).report for question, _ in cases(250)]
    assert reports[0].independence == "unknown"
    assert not reports[0].warnings
    assert reports[-1].independence == "contradicted"
    assert "errors are correlated" in str(reports[-1])
    fair = vote(model(seed=seed), accuracy=0.6)
    last = [fair.solve_sync(question, output_type=int).report for question, _ in cases(250)][-1]
    assert last.independence == "consistent"
    assert not last.warnings


def test_a_check_lets_every_report_warn() -> None:
    told = vote(model(correlation=0.7, seed=3), early_stop=False)
    reports = [
        told.solve_sync(question, output_type=int, check=lambda value, right=right: value == right).report
        for question, right in cases(80)
    ]
    assert "by the check" in reports[-1].warnings[0]


def test_without_right_answers_nothing_is_claimed() -> None:
    told = vote(model(correlation=0.9, seed=3))
    reports = [told.solve_sync(question, output_type=int).report for question, _ in cases(60)]
    assert {report.independence for report in reports} == {"unknown"}


def test_false_alarms_are_as_rare_as_said() -> None:
    import random

    chance = random.Random(7)
    alarms = 0
    for _ in range(200):
        agreement = Agreement(0.7)
        for _ in range(300):
            agreement.add(["r" if chance.random() < 0.7 else "w" for _ in range(3)])
        alarms += agreement.warning is not None
    assert alarms <= 6  # 2 are expected at most
    found = sum(
        Moments((sum(chance.random() < 0.6 for _ in range(4)), 4) for _ in range(50)).correlation().independence
        == "contradicted"
        for _ in range(300)
    )
    assert found <= 9


def test_an_accuracy_next_to_none_can_be_held_against() -> None:
    agreement = Agreement(1e-300)
    for _ in range(100):
        agreement.add(["one", "other"])
        agreement.add(["one", "one"])
    assert agreement.independence == "consistent"


def test_few_questions_tell_nothing() -> None:
    assert Moments([(3, 3), (0, 3)] * (FEWEST // 2 - 1)).correlation().independence == "unknown"
    assert Moments([(3, 3)] * 100).correlation().value is None
    assert Moments().correlation().accuracy is None
    assert Moments([(1, 1)] * 50).correlation().questions == 0


def test_running_evidence_may_be_shared_between_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    told = vote(model(), accuracy=0.6)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda case: told.solve_sync(case[0], output_type=int), cases(60)))
    assert told.agreement.pairs == 60


# Measuring


async def test_measuring_needs_cases_that_can_be() -> None:
    asked: Vote = vote(model())
    for bad in (
        [],
        ["ab"],
        [("case 1", 1, 2)],
        [(1, 1)],
        [(" ", 1)],
        [("case 1", 1), ("case 1", 1)],
        [("case 1", object())],
    ):
        with pytest.raises(ConfigurationError):
            await asked.measure(bad, output_type=int)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        await asked.measure(cases(3), at_once=0)


async def test_measuring_ends_where_the_money_does(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    budget = Budget(calls=40, per="tenant")
    told = vote(model(), 5)
    measure = await told.measure(cases(100), output_type=int, ledger=ledger, budget=budget, tenant="acme", at_once=1)
    assert measure.calls == 40
    assert 5 <= measure.cases <= 13
    assert measure.stopped is not None
    assert "stopped" in str(measure)
    with pytest.raises(BudgetExceeded):
        await told.measure(cases(3), output_type=int, ledger=ledger, budget=budget, tenant="acme")
    ledger.close()


async def test_a_budget_without_a_ledger_is_one_purse_for_all_cases() -> None:
    measure = await vote(model(), 5).measure(cases(100), output_type=int, budget=Budget(calls=40))
    assert measure.calls == 40
    assert measure.stopped is not None


@pytest.mark.parametrize("most", [1, 2, 9])
@pytest.mark.parametrize("count", [1, 2])
async def test_few_cases_are_measured_and_say_little(most: int, count: int) -> None:
    measure = await vote(model(1.0), most).measure(cases(count), output_type=int)
    assert (measure.accuracy, measure.single) == (1.0, 1.0)
    assert measure.single_low is not None
    assert measure.single_low < 0.3
    assert "unknown" in str(measure)
    assert json.dumps(measure.to_json())


async def test_a_vote_over_what_never_answers_is_measured_as_wrong() -> None:
    measure = await vote(Said(RuntimeError("down")), 3).measure(cases(5), output_type=int)
    assert (measure.accuracy, measure.answered) == (0.0, 0)
    assert "no answer" in str(measure)


async def test_measuring_with_a_canonical_form() -> None:
    def upper(question: str) -> str:
        return f"  {question.upper()}"

    measure = await vote(as_asker(upper), 3, canonical=str.lower).measure({"abc": "ABC", "x": "y"})
    assert measure.accuracy == 0.5
    assert measure.single == 0.5


def test_around_an_asker_that_does_not_say_what_it_sends_most_calls_is_still_a_number() -> None:
    proof = prove(lambda question: question, verifier=Brain(ScriptedModel([])))
    assert proof.most_calls is None
    assert vote(proof, 3).most_calls == 3
    assert effort(proof, ("low", "high")).most_calls == 2
