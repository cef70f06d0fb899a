"""Proving: accepted where all checks agree, within the declared maximum, whatever fails on the way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from brain import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    EndpointUnavailable,
    LedgerError,
    ModelTimeout,
    OpenAIModel,
    Price,
    RateLimited,
    RequestRejected,
)
from brain.asking import Asker, Query, Solution
from brain.scaling import asker, prove
from brain.testing import FakeEndpoint, Fault, SimulatedModel, SimulatedReviewer, SimulatedVerifier
from specialists import InvalidAnswer, Verdict

PRICE = Price("0.40", "1.60")


class Said(Asker):
    """Says what it is told, sample by sample; what is an exception is a failure."""

    def __init__(self, *says: Any) -> None:
        self.says = says
        self.asked: list[Query] = []

    @property
    def name(self) -> str:
        return "said"

    @property
    def most_calls(self) -> int:
        return 1

    async def ask(self, query: Query) -> Solution[Any]:
        self.asked.append(query)
        said = self.says[int(query.path.rpartition(" ")[2]) - 1]
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)


class Checks(Asker):
    """Checks by a function of what it is told, and keeps that."""

    def __init__(self, says: Any, name: str = "checks") -> None:
        self._says, self._name = says, name
        self.told: list[dict[str, Any]] = []
        self.places: list[str] = []
        self.seeds: list[int | None] = []

    @property
    def name(self) -> str:
        return self._name

    async def ask(self, query: Query) -> Solution[Any]:
        told = json.loads(query.text)
        self.told.append(told)
        self.places.append(query.path)
        self.seeds.append(query.seed)
        try:
            return Solution(query.answer.take(self._says(told), self.name), source=self.name, tab=query.tab)
        except Exception as error:
            return Solution(None, str(error), failure=error, source=self.name, tab=query.tab)


def model(name: str = "model", **more: Any) -> SimulatedModel:
    def knows(text: str) -> int:
        told = json.loads(text)
        return int(told["question"] if isinstance(told, dict) else told)

    settings: dict[str, Any] = {"accuracy": 0.5, "variety": 1000, "price": PRICE, **more}
    return SimulatedModel(solve=knows, name=name, seed=5, **settings)


def test_the_first_solution_with_which_all_checks_agree_is_the_answer() -> None:
    said = Said(1, 2, 3, 4)
    verifier = Checks(lambda told: "passed" if told["answer"] >= 3 else {"verdict": "failed", "reason": "too small"})
    solution = prove(said, verifier, n=4, m=2).solve_sync("which?", output_type=int, seed=9)
    assert solution.value == 3
    assert solution.verdict == Verdict.passed("all 2 checks agree")
    assert len(said.asked) == 3
    assert [told["answer"] for told in verifier.told] == [1, 1, 2, 2, 3, 3]
    assert all(told["question"] == "which?" for told in verifier.told)
    assert len(set(verifier.places)) == len(set(verifier.seeds)) == 6  # no check repeats another one's chance
    assert [proof.accepted for proof in solution.report.solutions] == [False, False, True]
    assert solution.report.solutions[0].checks[0].verdict.reason == "too small"


def test_an_objection_that_does_not_stand_counts_as_passed() -> None:
    verifier = Checks(lambda told: {"verdict": "failed", "reason": f"not {told['answer']}"})
    reviewer = Checks(lambda told: {"stands": told["answer"] != 2}, "reviewer")
    solution = prove(Said(1, 2, 3), verifier, reviewer, n=3, m=2).solve_sync("which?", output_type=int)
    assert solution.value == 2
    assert solution.report.overturned == 2
    assert reviewer.told[0] == {"question": "which?", "answer": 1, "verdict": "failed", "reason": "not 1"}
    stands = prove(Said(1, 2, 3), verifier, n=3, m=2).solve_sync("which?", output_type=int)
    assert stands.reason == "none of 3 different solutions is agreed on"


@pytest.mark.parametrize("review", ["perhaps", None, {"reason": "it does not"}, 0.0])
def test_a_second_look_that_says_nothing_of_use_leaves_the_objection(review: Any) -> None:
    verifier, reviewer = Checks(lambda _: "failed"), Checks(lambda _: review)
    solution = prove(Said(1), verifier, reviewer, n=1, m=1).solve_sync("which?", output_type=int)
    assert not solution.answered
    assert solution.report.solutions[0].checks[0].stands is None


@pytest.mark.parametrize("verdict", ["unknown", "certainly", None, {"reason": "right"}])
def test_a_check_that_cannot_tell_is_no_agreement_and_needs_no_second_look(verdict: Any) -> None:
    reviewer = Checks(lambda _: False)
    solution = prove(Said(1), Checks(lambda _: verdict), reviewer, n=1, m=2).solve_sync("which?", output_type=int)
    assert not solution.answered
    assert reviewer.told == []


def test_the_same_solution_is_not_checked_twice() -> None:
    verifier = Checks(lambda told: "passed" if told["answer"] == "c" else "failed")
    solution = prove(Said("a", " a", "b", "c"), verifier, n=4, m=1).solve_sync("which?")
    assert solution.value == "c"
    assert [told["answer"] for told in verifier.told] == ["a", "b", "c"]
    assert [proof.same_as for proof in solution.report.solutions] == [None, 0, None, None]


class Failing(Checks):
    """Checks, except that the endpoint does not take the requests with these numbers."""

    def __init__(self, says: Any, failing: set[int], error: Exception, name: str = "checks") -> None:
        super().__init__(says, name)
        self._failing, self._error, self.requests = failing, error, 0

    async def ask(self, query: Query) -> Solution[Any]:
        self.requests += 1
        if self.requests in self._failing:
            return Solution(None, str(self._error), failure=self._error, source=self.name, tab=query.tab)
        return await super().ask(query)


@pytest.mark.parametrize("error", [EndpointUnavailable("503"), RateLimited("429")])
def test_a_check_whose_request_failed_is_made_up_for_when_the_answer_comes_again(error: Exception) -> None:
    verifier = Failing(lambda _: "passed", {2}, error)
    solution = prove(Said(1, 1, 1), verifier, n=3, m=3).solve_sync("which?", output_type=int)
    assert solution.value == 1
    assert solution.failure is None
    assert solution.verdict == Verdict.passed("all 3 checks agree")
    assert verifier.requests == 4  # of the check that failed one more, of the others none
    assert [len(proof.checks) for proof in solution.report.solutions] == [3, 1]
    assert [proof.same_as for proof in solution.report.solutions] == [None, 0]
    assert len(set(verifier.places)) == 3


def test_an_objection_is_not_asked_for_again_and_only_its_second_look_is_made_up_for() -> None:
    verifier = Checks(lambda _: {"verdict": "failed", "reason": "hm"})
    reviewer = Failing(lambda _: {"stands": False}, {1}, EndpointUnavailable("503"), "reviewer")
    solution = prove(Said(1, 1), verifier, reviewer, n=2, m=1).solve_sync("which?", output_type=int)
    assert solution.value == 1
    assert (len(verifier.told), reviewer.requests) == (1, 2)
    assert solution.report.overturned == 1


def test_an_answer_with_a_standing_objection_gets_no_further_chance() -> None:
    says = iter(["failed", "passed", "passed", "passed"])
    verifier = Failing(lambda _: next(says), {2}, EndpointUnavailable("503"))
    solution = prove(Said(1, 1, 1), verifier, n=3, m=2).solve_sync("which?", output_type=int)
    assert not solution.answered
    assert verifier.requests == 2
    assert solution.reason == "none of 1 different solutions is agreed on; the requests of 1 checks failed"


@pytest.mark.parametrize("error", [ModelTimeout("late"), RequestRejected("400"), InvalidAnswer("no verdict")])
def test_a_failure_that_may_be_about_the_answer_is_a_doubt(error: Exception) -> None:
    verifier = Failing(lambda _: "passed", {1}, error)
    solution = prove(Said(1, 1, 1), verifier, n=3, m=1).solve_sync("which?", output_type=int)
    assert not solution.answered
    assert verifier.requests == 1


def test_after_a_budget_ended_no_second_look_is_asked_for() -> None:
    class Slowly(Checks):
        async def ask(self, query: Query) -> Solution[Any]:
            for _ in range(len(self.told) * 20):  # one after the other
                await asyncio.sleep(0)
            return await super().ask(query)

    reviewer = Failing(lambda _: {"stands": False}, {1}, BudgetExceeded("no more", unit="usd"), "reviewer")
    solution = prove(Said(1, 2), Slowly(lambda _: "failed"), reviewer, n=2, m=4).solve_sync("?", output_type=int)
    assert reviewer.requests == 1
    assert solution.stopped == solution.reason == "no more"
    assert len(solution.report.solutions[0].checks) == 4


def test_solutions_that_do_not_come_are_told_and_passed_over() -> None:
    ask = prove(Said(ValueError("no"), 2), lambda value: value == 2, n=2)
    solution = ask.solve_sync("which?", output_type=int)
    assert solution.value == 2
    assert solution.failure is None
    assert solution.report.solutions[0].problem == "no"
    nothing = prove(Said(ValueError("no")), lambda _: True, n=1).solve_sync("which?", output_type=int)
    assert nothing.reason == "no solution came: no"
    assert isinstance(nothing.failure, ValueError)


@pytest.mark.parametrize("seed", range(8))
def test_no_more_is_sent_than_was_declared_whatever_is_retried(seed: int) -> None:
    served = model(
        price=None,
        verifier=SimulatedVerifier.lying(0.4),
        reviewer=SimulatedReviewer(catches=0.5),
        faults={Fault.server_error(): 0.3},
    )
    with FakeEndpoint(served) as endpoint:
        sends = OpenAIModel("fake", base_url=endpoint.base_url, api_key=endpoint.api_key, retries=2)
        ask = prove(sends, sends, sends, n=2, m=2)
        assert ask.most_calls == 2 * (1 + 2 * 2)
        solution = ask.solve_sync("3", output_type=int, seed=seed)
        assert len(endpoint.meter) <= ask.most_calls
        assert solution.calls == len(endpoint.meter)
    assert solution.report.calls == solution.calls
    assert solution.answered or solution.reason


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_budget_that_ends_loses_nothing_that_was_paid(calls: int) -> None:
    by = model(verifier=SimulatedVerifier.lying(0.3), reviewer=SimulatedReviewer(catches=0.5), accuracy=0.0)
    solution = prove(by, by, by, n=8, m=3).solve_sync("3", output_type=int, seed=calls, budget=Budget(calls=calls))
    assert len(solution.wire_attempts) <= calls
    assert len(solution.report.solutions) >= 1
    assert solution.report.cost == solution.cost
    if not solution.answered:
        assert solution.stopped is not None
        assert solution.reason == solution.stopped
        assert len(solution.wire_attempts) == calls


def test_a_deadline_that_passes_leaves_what_was_tried() -> None:
    async def never(_: int) -> bool:
        await asyncio.Event().wait()
        return True

    said = Said(1, 2, 3, 4)
    solution = prove(said, never).solve_sync("which?", output_type=int, timeout=0.2)
    assert solution.stopped == "the deadline passed"
    assert len(said.asked) == 1
    assert solution.report.solutions[0].value == 1


def test_a_cancellation_leaves_nothing_running() -> None:
    slow = model(latency=0.02, verifier=SimulatedVerifier(), reviewer=SimulatedReviewer())

    async def cancelled(after: float) -> None:
        task = asyncio.create_task(prove(slow, slow, slow).solve("3", output_type=int))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for after in (0.0, 0.01, 0.03):
        asyncio.run(cancelled(after))


def test_a_ledger_that_cannot_be_written_is_no_doubt() -> None:
    class Broken(Asker):
        @property
        def name(self) -> str:
            return "broken"

        async def ask(self, query: Query) -> Solution[Any]:
            raise LedgerError("the disk is full")

    with pytest.raises(LedgerError):
        prove(Said(1), Broken()).solve_sync("which?", output_type=int)
    with pytest.raises(LedgerError):
        prove(Said(1), lambda _: False, Broken()).solve_sync("which?", output_type=int)


def test_what_is_declared() -> None:
    one = asker(model())
    assert prove(one, one, n=3, m=2).most_calls == 3 * (1 + 2)
    assert prove(one, one, one, n=3, m=2).most_calls == 3 * (1 + 2 * 2)
    assert prove(one, lambda _: True, n=3, m=2).most_calls == 3
    assert prove(prove(one, one, n=2, m=1), lambda _: True, n=3).most_calls == 12
    assert prove(one, Checks(lambda _: True)).most_calls is None  # it does not say what it sends


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"n": 65}, {"n": True}, {"m": 0}, {"m": 17}, {"m": 1.0}, {"verifier": None}, {"reviewer": 3}],
)
def test_arguments_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        prove(**{"asker": Said(1), "verifier": lambda _: True, **wrong})


def test_what_is_reported_is_json_and_readable() -> None:
    ask = prove(Said(1, 1, 2), Checks(lambda told: "passed" if told["answer"] == 2 else "failed"), n=3, m=2)
    report = ask.solve_sync("which?", output_type=int).report
    data = json.loads(json.dumps(report.to_json()))
    assert data["strategy"] == "prove"
    assert [each["accepted"] for each in data["solutions"]] == [False, False, True]
    said = str(report)
    assert "-- 1" in said
    assert "seen before" in said
    assert "* ++ 2" in said
