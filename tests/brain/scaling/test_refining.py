"""Refining: never worse with a sound check, within the computed bound with a noisy one, and when it ends."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from brain import Brain, Budget, ConfigurationError, LedgerError, OpenAIModel, Price
from brain.asking import Asker, Query, Solution
from brain.scaling import refine, refine_bound
from brain.testing import FakeEndpoint, ScriptedModel, SimulatedModel, SimulatedReviser, SimulatedVerifier, call
from specialists import Answer, Verdict, specialist

PRICE = Price("0.40", "1.60")


class Said(Asker):
    """Says one thing after the other: the first for the question, the next ones for its revisions."""

    def __init__(self, *says: Any) -> None:
        self.says = says
        self.asked: list[Query] = []

    @property
    def name(self) -> str:
        return "said"

    async def ask(self, query: Query) -> Solution[Any]:
        said = self.says[min(int(query.path.rpartition(" ")[2]), len(self.says) - 1)]
        self.asked.append(query)
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)


def simulated(name: str, **more: Any) -> SimulatedModel:
    def knows(text: str) -> int:
        told = json.loads(text)
        return int(told["question"] if isinstance(told, dict) else told)

    settings: dict[str, Any] = {"accuracy": 0.6, "variety": 1000, "keep_requests": False, **more}
    return SimulatedModel(solve=knows, name=name, seed=5, **settings)


@pytest.mark.parametrize(("accuses", "complete"), [(0.0, False), (0.5, False), (0.0, True)])
def test_with_a_sound_check_no_answer_gets_worse(accuses: float, *, complete: bool) -> None:
    solver = simulated("solver", reviser=SimulatedReviser(mends=0.5, harms=0.5))
    check = simulated("check", verifier=SimulatedVerifier(misses=0.0, accuses=accuses))
    ask = refine(solver, check=check, rounds=4, complete=complete)

    async def measure() -> tuple[int, int]:
        better = worse = 0
        for number in range(300):
            solution = await ask.solve(str(number), output_type=int, seed=number)
            before = solution.report.rounds[0].value == number
            better += not before and solution.value == number
            worse += before and solution.value != number
        return better, worse

    better, worse = asyncio.run(measure())
    assert worse == 0
    assert better > 30


@pytest.mark.parametrize(
    ("misses", "accuses", "unsure", "harms", "mends"),
    [
        (0.2, 0.2, 0.0, 0.5, 0.5),
        (0.5, 0.5, 0.0, 0.5, 0.5),
        (0.8, 0.9, 0.0, 0.5, 0.5),
        (0.3, 0.9, 0.0, 0.1, 0.0),  # what went wrong stays wrong: later revisions are wrong more often than harmed
        (0.3, 0.0, 0.5, 0.5, 0.5),  # what nobody can tell of is revised too
    ],
)
def test_with_a_noisy_check_the_computed_bound_holds(
    misses: float, accuses: float, unsure: float, harms: float, mends: float
) -> None:
    solver = simulated("solver", reviser=SimulatedReviser(mends=mends, harms=harms))
    check = simulated("check", verifier=SimulatedVerifier(misses=misses, accuses=accuses, unsure=unsure))
    ask, trials = refine(solver, check=check, rounds=3, patience=3), 500

    async def measure() -> int:
        worse = 0
        for number in range(trials):
            solution = await ask.solve(str(number), output_type=int, seed=number)
            worse += solution.report.rounds[0].value == number and solution.value != number
        return worse

    worse = asyncio.run(measure())
    shares = {"accuses": accuses, "misses": misses, "unsure": unsure}
    bound = refine_bound(rounds=3, accuracy=0.6, harms=harms, mends=mends, **shares)
    assert bound <= refine_bound(rounds=3, **shares)
    assert worse / trials <= bound + 3 * math.sqrt(bound * (1 - bound) / trials)
    assert worse > 0


def test_the_bound() -> None:
    assert refine_bound(accuses=0.5, misses=0.0, rounds=9) == 0.0
    assert refine_bound(accuses=0.0, misses=1.0, rounds=9) == 0.0
    half = {"accuracy": 0.5, "harms": 0.5}
    assert refine_bound(accuses=0.2, misses=0.1, rounds=3, mends=0.5, **half) == pytest.approx(0.015)
    assert refine_bound(accuses=0.2, misses=0.1, rounds=3, **half) == pytest.approx(0.025)
    assert refine_bound(accuses=0.2, misses=0.1, rounds=1, unsure=0.5, **half) == pytest.approx(0.5 * 0.6 * 0.025)
    assert refine_bound(accuses=0.5, misses=1.0, rounds=9) == 0.5
    assert refine_bound(accuses=0.5, misses=1.0, rounds=0) == 0.0
    for wrong in (-1, 1.5, True):
        with pytest.raises(ConfigurationError, match="rounds"):
            refine_bound(accuses=0.1, misses=0.1, rounds=wrong)  # type: ignore[arg-type]
    for name in ("accuses", "misses", "accuracy", "harms", "mends", "unsure"):
        for share in (-0.1, 1.1, math.nan, "half"):
            with pytest.raises(ConfigurationError, match=name):
                refine_bound(**{"accuses": 0.1, "misses": 0.1, "rounds": 3, name: share})  # type: ignore[arg-type]


def test_an_answer_that_passes_is_not_revised() -> None:
    said = Said(1, 2)
    solution = refine(said, check=lambda value: value == 1).solve_sync("?", output_type=int)
    assert solution.value == 1
    assert solution.verdict == Verdict.passed()
    assert len(said.asked) == 1
    assert solution.report.ended == "the check passed it"
    assert not solution.report.revised


def test_a_revision_is_told_what_is_wrong_and_takes_the_place_of_what_is_worse() -> None:
    def check(value: int) -> Verdict:
        return Verdict.passed() if value == 3 else Verdict.failed(f"{value} is not odd enough")

    said = Said(1, 2, 3)
    solution = refine(said, check=check).solve_sync("?", output_type=int)
    assert solution.value == 3
    assert solution.report.revised
    told = [[(each.answer, each.objection) for each in query.revisions] for query in said.asked]
    assert told == [
        [],
        [(1, "1 is not odd enough")],
        [(1, "1 is not odd enough"), (2, "2 is not odd enough")],
    ]
    assert [each.kept for each in solution.report.rounds] == [True, False, True]
    assert len({query.path for query in said.asked}) == 3


@pytest.mark.parametrize(("complete", "value"), [(False, 1), (True, 2)])
def test_what_cannot_be_told_takes_a_failed_one_s_place_only_where_failed_is_wrong(
    value: int, *, complete: bool
) -> None:
    def check(given: int) -> Verdict:
        return Verdict.failed("no") if given == 1 else Verdict.unknown()

    solution = refine(Said(1, 2, 2), check=check, complete=complete).solve_sync("?", output_type=int)
    assert solution.value == value
    assert solution.verdict is not None
    assert solution.verdict.status == ("unknown" if complete else "failed")


def test_an_answer_that_nobody_can_tell_of_is_not_called_wrong() -> None:
    said = Said(1, 2)
    refine(said, check=lambda _: Verdict.unknown(), rounds=1).solve_sync("?", output_type=int)
    (revision,) = said.asked[1].revisions
    assert revision.objection == "nobody could tell whether it is right"


def test_it_ends_where_the_same_answer_comes_again_and_where_nothing_gets_better() -> None:
    checks: list[int] = []

    def check(value: int) -> bool:
        checks.append(value)
        return False

    same = refine(Said(1, 2, 1, 3), check=check, rounds=9, patience=9).solve_sync("?", output_type=int)
    assert same.report.ended == "the same answer came again"
    assert checks == [1, 2]  # a check that errs is asked of one answer once
    plateau = refine(Said(*range(20)), check=check, rounds=9, patience=3).solve_sync("?", output_type=int)
    assert plateau.report.ended == "3 revisions brought nothing better"
    assert len(plateau.report.rounds) == 4
    failing = refine(Said(1, *[ValueError("no")] * 9), check=check, rounds=9).solve_sync("?", output_type=int)
    assert failing.value == 1
    assert failing.report.ended == "2 revisions brought nothing better"
    used = refine(Said(*range(20)), check=check, rounds=2, patience=9).solve_sync("?", output_type=int)
    assert used.report.ended == "every round was used"
    assert used.value == 0


def test_without_a_check_the_first_answer_is_given_and_it_says_so() -> None:
    said = Said(1, 2)
    solution = refine(said).solve_sync("?", output_type=int)
    assert solution.value == 1
    assert solution.verdict is None
    assert solution.stopped == "there is nothing to check by, so nothing was refined"
    assert len(said.asked) == 1
    assert refine(said).solve_sync("?", output_type=int, check=lambda value: value == 2).value == 2


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_budget_that_ends_loses_nothing_that_was_paid(calls: int) -> None:
    model = simulated("model", accuracy=0.0, price=PRICE, verifier=SimulatedVerifier(), reviser=SimulatedReviser(0, 0))
    ask = refine(model, check=model, rounds=9, patience=9)
    solution = ask.solve_sync("3", output_type=int, seed=calls, budget=Budget(calls=calls))
    assert solution.answered
    assert len(solution.wire_attempts) == calls
    assert solution.stopped is not None
    assert "allows" in solution.stopped
    assert solution.report.ended == solution.stopped
    assert solution.report.cost == solution.cost


def test_a_deadline_that_passes_leaves_the_answer() -> None:
    async def slow(_: int) -> bool:
        await asyncio.Event().wait()
        return True

    solution = refine(Said(1, 2), check=slow).solve_sync("?", output_type=int, timeout=0.2)
    assert solution.value == 1
    assert solution.stopped == "the deadline passed"
    assert solution.verdict is not None
    assert solution.verdict.status == "unknown"


def test_where_no_answer_comes_there_is_none_to_refine() -> None:
    solution = refine(Said(ValueError("no")), check=lambda _: True).solve_sync("?", output_type=int)
    assert solution.reason == "no"
    assert isinstance(solution.failure, ValueError)
    assert solution.report.ended == "there is no answer to refine"


def test_over_http_the_bill_is_what_the_endpoint_counted() -> None:
    model = simulated("model", verifier=SimulatedVerifier(), reviser=SimulatedReviser(mends=0.5, harms=0.5))
    with FakeEndpoint(model, models=("small",)) as endpoint:
        small = OpenAIModel("small", base_url=endpoint.base_url, api_key=endpoint.api_key, price=PRICE)
        ask = refine(small, check=small, rounds=5, patience=5)
        solved = [ask.solve_sync(str(number), output_type=int, seed=number) for number in range(8)]
        assert sum(each.calls for each in solved) == len(endpoint.meter)
    assert all(each.calls == 2 * len(each.report.rounds) <= ask.most_calls for each in solved)
    assert any(each.report.revised for each in solved)
    for number, each in enumerate(solved):
        assert each.verdict is not None
        assert (each.value == number) == (each.verdict.status == "passed")


def test_who_is_cancelled_revises_no_more() -> None:
    async def main() -> None:
        begun, said = asyncio.Event(), Said(1, 2)

        async def check(_: int) -> bool:
            begun.set()
            await asyncio.Event().wait()
            return False

        task = asyncio.create_task(refine(said, check=check).solve("?", output_type=int))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(said.asked) == 1

    asyncio.run(main())


def test_a_ledger_that_cannot_be_written_is_no_plateau() -> None:
    class Broken(Said):
        async def ask(self, query: Query) -> Solution[Any]:
            raise LedgerError("the disk is full")

    with pytest.raises(LedgerError):
        refine(Said(1, 2), check=Broken()).solve_sync("?", output_type=int)


def test_on_a_ladder_it_refines_by_the_specialist_s_verifier() -> None:
    def is_twice(arguments: Any, value: int) -> Verdict:
        right = value == 2 * arguments["number"]
        return Verdict.passed() if right else Verdict.failed(f"{value} is not twice {arguments['number']}")

    @specialist(verify=is_twice, sound=True, complete=True)
    async def twice(number: int) -> Answer[int]:
        """Twice a number."""
        return Answer(0)

    said = Said(5, 7, 8)
    brain = Brain(ScriptedModel([call("twice", number=4), "done"]), specialists=[twice], fallback=refine(said))
    (outcome,) = brain.run_sync("go").calls
    assert outcome.value == 8
    assert outcome.accepted_by == "verified"
    assert said.asked[-1].revisions[0].objection == "5 is not twice 4"


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"rounds": 33}, {"rounds": True}, {"patience": 0}, {"check": 3}, {"check": int | str}]
)
def test_arguments_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        refine(**{"asker": Said(1), "check": lambda _: True, **wrong})


def test_what_is_reported_is_json_and_readable() -> None:
    ask = refine(Said(1, 2), check=lambda value: value == 2)
    report = ask.solve_sync("?", output_type=int).report
    data = json.loads(json.dumps(report.to_json()))
    assert data["strategy"] == "refine"
    assert [each["verdict"] for each in data["rounds"]] == ["failed", "passed"]
    assert "* 1: passed 2" in str(report)
    assert ask.most_calls == 4
