"""An asker as a rung of a specialist's ladder, without a brain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from brain import Budget, ConfigurationError, Ledger, Price
from brain.asking import Asker, Query, Solution
from brain.scaling.decomposing import decompose
from brain.scaling.rungs import rung
from brain.testing import SimulatedModel
from specialists import Answer, CannotAnswer, Verdict, specialist


def is_sum(arguments: Mapping[str, Any], value: int) -> Verdict:
    return Verdict.passed() if value == sum(arguments["numbers"]) else Verdict.failed("it is not the sum")


@specialist(verify=is_sum, sound=True, complete=True)
def total(numbers: list[int]) -> Answer[int]:
    """The sum of the numbers, of few of them."""
    if len(numbers) > 2:
        raise CannotAnswer("they are too many")
    return Answer(sum(numbers))


def model(right: int, **more: Any) -> SimulatedModel:
    return SimulatedModel(solve=lambda _: right, price=Price("1.37", "2.91"), name="big", **more)


async def test_a_rung_answers_what_the_specialist_cannot_and_is_checked_by_its_verifier() -> None:
    ledger = Ledger()
    outcome = await total.climb({"numbers": [1, 2, 3]}, above=(rung(model(6), total, ledger=ledger),))
    assert (outcome.value, outcome.answered_by, outcome.accepted_by) == (6, "big_model", "verified")
    last = outcome.attempts[-1]
    assert last.source == "big"
    assert len(last.wire_attempts) == 1
    (row,) = [row for row in ledger.rows() if row.kind == "model"]
    assert last.cost is not None
    assert (row.cost.low, row.tool, row.rung) == (last.cost.low, "total", "big_model")


async def test_a_wrong_answer_goes_on_to_the_next_rung() -> None:
    above = (rung(model(7), total, name="cheap"), rung(decompose(model(6, splitter=2)), total, name="strong"))
    outcome = await total.climb({"numbers": [1, 2, 3]}, above=above)
    assert (outcome.value, outcome.answered_by) == (6, "strong")
    assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "cheap", "strong"]
    assert outcome.attempts[1].verdict is not None
    assert outcome.attempts[1].verdict.reason == "it is not the sum"
    assert len(outcome.attempts[2].wire_attempts) == 1 + 2 * 4 + 1


async def test_the_query_has_the_verifier_as_its_check() -> None:
    class Checks(Asker):
        name = "checks"

        async def ask(self, query: Query) -> Solution[Any]:
            assert query.check is not None
            tried = [value for value in range(10) if (await query.check(value)).status == "passed"]
            return Solution(tried[0], confidence=1.0)

    outcome = await total.climb({"numbers": [1, 2, 5]}, above=(rung(Checks(), total),))
    assert outcome.value == 8


async def test_a_budget_holds_over_climbs_and_refuses() -> None:
    big = model(6)
    one = rung(big, total, budget=Budget(calls=2), ledger=Ledger())
    outcomes = [await total.climb({"numbers": [1, 2, 3]}, above=(one,)) for _ in range(4)]
    assert sum(len(outcome.attempts[-1].wire_attempts) for outcome in outcomes) == 2
    assert [outcome.attempts[-1].outcome for outcome in outcomes] == ["answered", "answered", "refused", "refused"]


async def test_what_was_found_before_the_deadline_of_the_climb_is_paid_and_told() -> None:
    slow = rung(model(6, latency=(30.0, 30.0)), total)
    outcome = await total.climb({"numbers": [1, 2, 3]}, above=(slow,), deadline=time.monotonic() + 0.4)
    last = outcome.attempts[-1]
    assert last.outcome == "timeout"
    assert len(last.wire_attempts) == 1
    assert last.cost is not None
    assert last.cost.high > Decimal(0)


async def test_an_asker_that_raises_ends_its_rung_only() -> None:
    class Raises(Asker):
        name = "raises"

        async def ask(self, query: Query) -> Solution[Any]:
            raise KeyError("mine")

    outcome = await total.climb({"numbers": [1, 2, 3]}, above=(rung(Raises(), total),))
    assert outcome.attempts[-1].outcome == "error"
    assert not outcome.accepted


def test_what_cannot_be_a_rung_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="already"):
        rung(model(1), total, name="specialist")
    with pytest.raises(ConfigurationError, match="is none"):
        rung(model(1), print)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="cannot be asked"):
        rung(3, total)
