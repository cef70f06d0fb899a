"""Judges, revisions, proofs and step checks against what is odd, late, hostile, or in an unlucky order."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from collections import Counter
from typing import Any

import numpy
import pytest

from brain import ConfigurationError
from brain.asking import Asker, Query, Solution
from brain.keys import Secret
from brain.scaling import asker, check_steps, judge, prove, prove_precision, refine, vote
from brain.scaling.step_checks import StepTrust
from brain.testing import SimulatedJudge, SimulatedModel, SimulatedReviewer, SimulatedVerifier
from specialists import Answer, Verdict, specialist


class Numbered(Asker):
    """Gives as its answer the number of the sample that it is asked for."""

    @property
    def name(self) -> str:
        return "numbered"

    async def ask(self, query: Query) -> Solution[Any]:
        return Solution(int(query.path.rpartition(" ")[2]), source=self.name, tab=query.tab)


def by_place() -> SimulatedModel:
    """A judge who sees nothing and likes the first of two answers."""
    chance = SimulatedJudge(accuracy=0.0, prefers_first=0.7)
    return SimulatedModel(solve=lambda _: 0, judge=chance, seed=11, name="judge", keep_requests=False)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_judge_by_place_favours_no_sample(n: int) -> None:
    ask, won = judge(Numbered(), by=by_place(), n=n), Counter[Any]()
    trials = 900

    async def measure() -> None:
        for number in range(trials):
            # Other answers for each question: which one is compared first has to do with what they say.
            made = judge(Offset(number), by=by_place(), n=n)
            solution = await made.solve("which?", output_type=int, seed=number)
            won[None if solution.value is None else solution.value % 100] += 1

    asyncio.run(measure())
    shares = [won[place] / trials for place in range(1, n + 1)]
    assert max(shares) - min(shares) < 0.06  # four standard errors of a difference
    assert ask.most_calls == n + n * (n - 1)


class Offset(Numbered):
    """Answers that are like no other question's, and tell by their last two digits which sample they were."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def ask(self, query: Query) -> Solution[Any]:
        place = int(query.path.rpartition(" ")[2])
        return Solution(self._number * 100 + place, source=self.name, tab=query.tab)


def test_candidates_stay_in_the_order_in_which_they_were_given() -> None:
    def larger(text: str) -> str:
        told = json.loads(text)
        return "first" if told["first"] > told["second"] else "second"

    solution = judge(Numbered(), by=larger, n=6).solve_sync("which?", output_type=int)
    assert solution.value == 6
    assert solution.report.candidates == (1, 2, 3, 4, 5, 6)
    assert solution.report.standing == (5,)
    assert all(pair.one < pair.other and pair.outcome == "other" for pair in solution.report.pairs)
    tied = judge(Numbered(), by=lambda _: "tie", n=4, on_tie="first").solve_sync("which?", output_type=int)
    assert tied.value == 1
    assert tied.report.standing == (0, 1, 2, 3)


def test_what_is_asked_at_most_is_known_around_an_asker_that_does_not_say() -> None:
    inner = prove(Numbered(), lambda _: True)
    assert inner.most_calls is None
    assert judge(inner, by=by_place()).most_calls == 4
    assert refine(inner, check=lambda _: True, rounds=2).most_calls == 3
    assert check_steps(inner, lambda _: True, lambda _: None, n=5).most_calls == 5


def steps_of(said: Any) -> Any:
    return check_steps(Numbered(), said, lambda _: True, n=4)


class Hostile:
    def item(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "said",
    [
        lambda _: [Hostile()],
        lambda _: [numpy.array([True, False])],
        lambda _: 0.2,
        lambda _: [],
        lambda _: {"a": False},
        lambda _: itertools.repeat(True),
        lambda _: 1 / 0,
        lambda _: None,
    ],
)
def test_a_step_check_that_says_nothing_of_use_vetoes_nothing(said: Any) -> None:
    solution = steps_of(said).solve_sync("which?", output_type=int)
    assert solution.value == 1
    assert solution.report.vetoed == 0


def test_a_numpy_truth_is_a_truth() -> None:
    solution = steps_of(lambda value: numpy.array([True, value > 2])).solve_sync("which?", output_type=int)
    assert solution.value == 3
    assert solution.report.vetoed == 2


@pytest.mark.parametrize("late", ["steps", "hidden"])
def test_a_check_that_does_not_end_loses_no_sample(late: str) -> None:
    async def never(_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    checks: dict[str, Any] = {"steps": lambda _: True, "hidden": lambda _: None, late: never}
    ask = check_steps(Numbered(), n=4, sample=1.0, **checks)
    solution = ask.solve_sync("which?", output_type=int, timeout=0.2)
    assert solution.value == 1
    assert solution.report.answered == 4


def test_a_check_is_no_second_check_of_itself() -> None:
    def check(_: Any) -> bool:
        return True

    with pytest.raises(ConfigurationError, match="agrees with itself"):
        check_steps(Numbered(), check, check)


def test_after_an_alarm_the_step_check_is_not_paid_for() -> None:
    asked = Counter[str]()

    class Checking(Asker):
        def __init__(self, name: str, says: str) -> None:
            self._name, self._says = name, says

        @property
        def name(self) -> str:
            return self._name

        async def ask(self, query: Query) -> Solution[Any]:
            asked[self._name] += 1
            return Solution(query.answer.take({"verdict": self._says}, self._name), tab=query.tab)

    ask = check_steps(Numbered(), Checking("steps", "passed"), Checking("hidden", "failed"), n=4, sample=1.0)
    for number in range(6):
        ask.solve_sync(f"which of {number}?", output_type=int)
        if ask.trust.alarm is not None:
            break
    assert ask.trust.alarm is not None
    before = asked.copy()
    solution = ask.solve_sync("which?", output_type=int)
    assert asked == before
    assert solution.value == 1
    assert solution.report.alarm == ask.trust.alarm
    assert not solution.report.followed


@pytest.mark.parametrize("together", [False, True])
def test_an_alarm_is_seldom_false_also_where_samples_go_wrong_together(together: bool) -> None:
    alarms, trials, level = 0, 200, 0.05
    for trial in range(trials):
        chance, trust = random.Random(trial), StepTrust(0.05, level)
        for _ in range(150):
            draws = [chance.random() < 0.05 for _ in range(8)]
            trust.audited(disagree=[draws[0]] * 8 if together else draws)
        alarms += trust.alarm is not None
    assert alarms <= 20  # of 200; 5 % are 10, and more than 20 has a chance of 1 in 1,000


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 1), (16, 1), (16, 3)])
@pytest.mark.parametrize("reviewed", [False, True])
def test_precision_is_as_computed_for_any_number_of_solutions(n: int, m: int, *, reviewed: bool) -> None:
    def asked(text: str) -> int:
        told = json.loads(text)
        return int(told["question"] if isinstance(told, dict) else told)

    settings: dict[str, Any] = {"solve": asked, "seed": 7, "keep_requests": False}
    solver = SimulatedModel(accuracy=0.5, variety=10_000, name="solver", **settings)
    lies, catches = SimulatedVerifier.lying(0.2), SimulatedReviewer(catches=0.8)
    verifier = SimulatedModel(verifier=lies, reviewer=catches, name="verifier", **settings)
    ask = prove(solver, verifier, verifier if reviewed else None, n=n, m=m)
    trials = 500

    async def measure() -> tuple[int, int]:
        right = answered = 0
        for number in range(trials):
            solution = await ask.solve(str(number), output_type=int, seed=number)
            right += solution.value == number
            answered += solution.answered
        return right, answered

    right, answered = asyncio.run(measure())
    caught = 0.8 if reviewed else 0.0
    precision, accepted = prove_precision(0.5, misses=0.2, accuses=0.2, m=m, n=n, catches=caught)
    assert abs(right / answered - precision) < 4 * math.sqrt(precision * (1 - precision) / answered) + 0.002
    assert abs(answered / trials - accepted) < 4 * math.sqrt(accepted * (1 - accepted) / trials) + 0.002


def test_precision_of_what_cannot_be() -> None:
    assert prove_precision(0.0, misses=0.0, accuses=1.0, m=1) == (0.0, 0.0)
    for wrong in ({"misses": 1.1}, {"accuses": -0.1}, {"catches": math.nan}, {"m": 0}, {"n": 0}):
        with pytest.raises(ConfigurationError):
            prove_precision(0.5, **{"misses": 0.2, "accuses": 0.2, "m": 1, **wrong})  # type: ignore[arg-type]


def test_a_specialist_that_checks_is_asked_for_a_verdict() -> None:
    @specialist
    async def is_even(question: str, answer: int) -> Answer[str]:
        """Whether a number is even."""
        assert question == "which is even?"
        return Answer("failed" if answer % 2 else "passed", confidence=1.0)

    solution = prove(Numbered(), is_even, n=4, m=1).solve_sync("which is even?", output_type=int)
    assert solution.value == 2
    assert solution.verdict == Verdict.passed("its check agrees")


def strategies(check: Any) -> list[Asker]:
    """One of each, around a check or a judge of the application's own."""
    return [
        judge(Numbered(), by=check),
        refine(Lasting(), check=check),
        prove(Numbered(), check),
        check_steps(Numbered(), check, lambda _: True),
    ]


class Lasting(Asker):
    """Gives as its answer how often it was told that it is wrong."""

    @property
    def name(self) -> str:
        return "lasting"

    async def ask(self, query: Query) -> Solution[Any]:
        return Solution(len(query.revisions), source=self.name, tab=query.tab)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("raised", [False, True])
def test_keys_stay_out_of_what_is_reported(place: int, *, raised: bool) -> None:
    key = "sk-" + "c3D4" * 12
    secret = Secret(key)

    def check(_: Any) -> Verdict:
        if raised:
            raise RuntimeError(f"bad key {key}")
        return Verdict.failed(f"bad key {key}")

    solution = strategies(check)[place].solve_sync("which?", output_type=int)
    told = [json.dumps(solution.report.to_json()), str(solution.report), repr(solution), str(solution.verdict)]
    assert key not in "".join(told) + str(solution.reason)
    assert secret.reveal() == key


@pytest.mark.parametrize("value", ["\x1b[31mred\u202e\n" + "long " * 100, "\ud800"])
def test_what_a_model_writes_draws_nothing_in_a_terminal(value: str) -> None:
    for ask in (
        judge(lambda _: value, by=lambda _: "tie"),
        refine(lambda _: value, check=lambda _: False),
        prove(lambda _: value, lambda _: False),
        check_steps(lambda _: value, lambda _: False, lambda _: True),
    ):
        said = str(ask.solve_sync("which?").report)
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert max(map(len, said.splitlines())) < 200


def test_an_objection_names_the_check() -> None:
    def is_large(value: int) -> bool:
        return value > 5

    solution = refine(Lasting(), check=is_large, rounds=2).solve_sync("which?", output_type=int)
    assert solution.verdict == Verdict.failed("is_large says no")


def knows(text: str) -> int:
    """The right answer to a number is that number, also within what a judge or a verifier is told."""
    told = json.loads(text)
    return int(told["question"] if isinstance(told, dict) else told)


def test_who_judges_and_verifies_may_be_strategies_too() -> None:
    solver = SimulatedModel(solve=knows, accuracy=0.5, variety=50, name="solver", seed=1)
    other = SimulatedModel(
        solve=knows, name="other", judge=SimulatedJudge(), verifier=SimulatedVerifier(), reviewer=SimulatedReviewer()
    )
    for ask in (
        judge(solver, by=vote(other, 3), n=3),
        judge(vote(solver, 1), by=refine(other, check=lambda _: True)),
        prove(solver, vote(other, 3), vote(other, 1)),
        refine(solver, check=vote(other, 3)),
        check_steps(solver, vote(other, 3), lambda _: True),
    ):
        solved = [ask.solve_sync(str(number), output_type=int, seed=number) for number in range(8)]
        values = [solution.value for solution in solved if solution.answered]
        assert len(values) >= 5
        assert [solution.value for solution in solved if solution.answered] == [
            number for number, solution in enumerate(solved) if solution.answered
        ]
    wanted = {request.output_name for request in other.requests}
    assert wanted == {"judgement", "verdict", "review"} or wanted == {"judgement", "verdict"}
    assert all(request.messages[0]["role"] == "system" for request in other.requests)


def test_a_judge_with_instructions_of_its_own_keeps_them() -> None:
    other = SimulatedModel(solve=knows, name="other", judge=SimulatedJudge())
    solver = SimulatedModel(solve=knows, accuracy=0.5, variety=50, name="solver", seed=1)
    ask = judge(solver, by=asker(other, instructions="Be strict."), n=4)
    assert ask.solve_sync("3", output_type=int).value == 3
    assert {request.messages[0]["content"] for request in other.requests} == {"Be strict."}


def test_a_number_that_cannot_be_written_is_no_crash() -> None:
    given = itertools.count()

    def huge(_: str) -> int:
        return 10 ** (5000 + next(given))

    def said(_: str) -> str:
        return "passed"

    for ask in (
        judge(huge, by=lambda _: "first"),
        prove(huge, asker(said)),
        refine(huge, check=lambda _: False),
        prove(huge, lambda _: True),
        check_steps(huge, lambda _: True, lambda _: None),
    ):
        solution = ask.solve_sync("which?", output_type=int)
        assert ("(int)" in repr(solution)) == solution.answered
        assert len(str(solution.report)) < 1000
        json.dumps(solution.report.to_json())
