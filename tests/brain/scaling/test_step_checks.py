"""Step checks: a veto is no score, is not followed where it would drop nearly everything, and is itself checked."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from brain import Budget, ConfigurationError, LedgerError, Price
from brain.asking import Asker, Query, Solution
from brain.keys import Secret
from brain.scaling import StepAlarm, asker, check_steps
from brain.scaling.step_checks import StepTrust
from brain.testing import SimulatedModel, SimulatedVerifier, polish
from specialists import Verdict

from .saying import Said

NONSENSE = 0.03


class Explained(BaseModel):
    """An answer with its steps."""

    answer: int
    steps: list[str]


def cannot_tell(_: Any) -> Verdict:
    return Verdict.unknown()


def passes(_: Any) -> bool:
    return True


def solver(**more: Any) -> SimulatedModel:
    def knows(text: str) -> int:
        told = json.loads(text)
        return int(told["question"] if isinstance(told, dict) else told)

    settings: dict[str, Any] = {"accuracy": 0.6, "variety": 20, "keep_requests": False, **more}
    return SimulatedModel(solve=knows, name="solver", seed=5, **settings)


def test_a_step_that_fails_drops_its_sample_and_the_rest_vote() -> None:
    def positive(value: int) -> list[bool]:
        return [True, value > 0, True]

    ask = check_steps(Said(-1, -1, -1, 2, 3, 3), positive, cannot_tell, n=6)
    solution = ask.solve_sync("?", output_type=int)
    assert solution.value == 3
    assert (solution.report.vetoed, solution.report.votes, solution.report.followed) == (3, 2, True)


def test_who_is_liked_best_does_not_count() -> None:
    liked: list[int] = []

    def scores(value: int) -> float:
        liked.append(value)
        return float(value)

    solution = check_steps(Said(1, 9, 1), scores, cannot_tell, n=3).solve_sync("?", output_type=int)
    assert sorted(liked) == [1, 1, 9]
    assert solution.value == 1
    assert solution.report.vetoed == 0


@pytest.mark.parametrize(("most", "value", "followed"), [(0.5, 1, False), (0.75, 4, True), (1.0, 4, True)])
def test_a_veto_that_drops_too_many_is_not_followed(most: float, value: int, *, followed: bool) -> None:
    ask = check_steps(Said(1, 1, 1, 4), lambda given: given == 4, cannot_tell, n=4, most_vetoed=most)
    solution = ask.solve_sync("?", output_type=int)
    assert solution.value == value
    assert solution.report.followed is followed
    assert (solution.report.why_not is None) is followed


def test_a_veto_of_all_leaves_nothing_only_where_that_was_allowed() -> None:
    ask = check_steps(Said(1, 2), lambda _: False, cannot_tell, n=2, most_vetoed=1.0)
    solution = ask.solve_sync("?", output_type=int)
    assert solution.reason == "no sample is left: 2 of 2 have a step that fails"
    other = check_steps(Said(1, 2), lambda _: False, cannot_tell, n=2).solve_sync("?", output_type=int)
    assert other.value == 1


def test_what_the_second_check_fails_has_no_ballot() -> None:
    ask = check_steps(Said(1, 1, 2), passes, lambda value: value == 2, n=3, sample=1.0, level=1e-9)
    solution = ask.solve_sync("?", output_type=int)
    assert solution.value == 2
    assert (solution.report.audits, solution.report.disagreements) == (3, 2)


def test_the_best_looking_of_many_is_nonsense_and_ours_is_not() -> None:
    model = solver(nonsense=NONSENSE)
    count, questions = 128, 12
    for floor in (0.85, 0.999):  # the stricter, the more honest samples it drops
        wanted = [0]

        def looks_good(value: Explained, floor: float = floor) -> bool:
            return polish(value) >= floor

        def is_right(value: Explained, wanted: list[int] = wanted) -> bool:
            return value.answer == wanted[0]

        ask = check_steps(model, looks_good, is_right, n=count)

        async def measure(ask: Any = ask, wanted: list[int] = wanted) -> tuple[int, int]:
            best = ours = 0
            for number in range(questions):
                wanted[0] = number
                solution = await ask.solve(str(number), output_type=Explained, seed=number)
                ours += solution.value.answer == number
                single = asker(model)
                samples = [
                    await single.solve(str(number), output_type=Explained, seed=1000 * number + place)
                    for place in range(count)
                ]
                best += max((each.value for each in samples if each.value), key=polish).answer == number
            return best, ours

        best, ours = asyncio.run(measure())
        assert best <= 2  # a single sample is right in six of ten
        assert ours / questions >= 0.6


@pytest.mark.parametrize("vetoes_honest", [0.0, 1.0])
def test_an_alarm_comes_within_five_hundred_samples(vetoes_honest: float) -> None:
    """Also at worst, where the check passes nonsense alone: at least one that it passed is then looked at."""
    model, wanted = solver(nonsense=0.3 if vetoes_honest else NONSENSE), [0]

    def looks_good(value: Explained) -> bool:
        return not vetoes_honest or polish(value) >= 0.999

    def is_right(value: Explained) -> bool:
        return value.answer == wanted[0]

    alarms: list[StepAlarm] = []
    ask = check_steps(model, looks_good, is_right, n=8, sample=0.5, on_alarm=alarms.append)

    async def measure() -> None:
        for number in range(62):
            wanted[0] = number
            await ask.solve(str(number), output_type=Explained, seed=number)

    asyncio.run(measure())
    (alarm,) = alarms
    assert alarm == ask.trust.alarm
    assert alarm.samples <= 500
    assert alarm.disagreements > alarm.tolerance * alarm.audits


def test_after_an_alarm_the_veto_is_ignored_until_it_is_restored(caplog: pytest.LogCaptureFixture) -> None:
    def raising(alarm: StepAlarm) -> None:
        raise RuntimeError("no pager")

    ask = check_steps(Said(1, 1, 1, 2, 2), lambda value: value == 1, cannot_tell, n=5, on_alarm=raising)
    assert ask.solve_sync("?", output_type=int).value == 1
    with caplog.at_level(logging.WARNING, "brain.scaling"):
        for _ in range(5):
            ask.trust.audited(disagree=True)
    assert ask.trust.alarm is not None
    assert caplog.text.count("no longer believed") == 1
    assert "on_alarm raised RuntimeError: no pager" in caplog.text
    solution = ask.solve_sync("?", output_type=int)
    assert solution.report.why_not == "the step check is no longer believed"
    assert solution.report.alarm == ask.trust.alarm
    assert "ALARM" in str(solution.report)
    ask.trust.restore()
    assert ask.trust.alarm is None
    assert ask.trust.audits == (0, 0)
    assert ask.solve_sync("?", output_type=int).report.followed


def test_trust_is_safe_from_many_threads() -> None:
    alarms: list[StepAlarm] = []
    trust, start = StepTrust(0.05, 0.05, alarms.append), threading.Barrier(8)

    def work(_: int) -> None:
        start.wait()
        for number in range(200):
            trust.asked(2)
            trust.audited(disagree=number % 2 == 0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert trust.samples == 3200
    assert trust.audits == (1600, 800)
    assert len(alarms) == 1


@pytest.mark.parametrize("calls", range(1, 10))
def test_a_budget_that_ends_loses_nothing_that_was_paid(calls: int) -> None:
    model = solver(price=Price("0.40", "1.60"), verifier=SimulatedVerifier())
    ask = check_steps(model, asker(model), cannot_tell, n=4)
    solution = ask.solve_sync("3", output_type=int, seed=calls, budget=Budget(calls=calls))
    assert solution.answered
    assert len(solution.wire_attempts) == min(calls, 8)
    assert solution.report.answered == min(calls, 4)
    assert (solution.stopped is None) == (calls >= 8)
    assert solution.report.cost == solution.cost
    assert ask.most_calls == 8


def test_samples_that_do_not_come_are_counted() -> None:
    ask = check_steps(Said(ValueError("no"), 4), passes, cannot_tell, n=2)
    solution = ask.solve_sync("?", output_type=int)
    assert solution.value == 4
    assert solution.report.answered == 1
    nothing = check_steps(Said(ValueError("no")), passes, cannot_tell, n=1).solve_sync("?", output_type=int)
    assert nothing.reason == "none of 1 samples came: no"
    assert isinstance(nothing.failure, ValueError)


def test_a_ledger_that_cannot_be_written_is_no_veto() -> None:
    class Broken(Asker):
        @property
        def name(self) -> str:
            return "broken"

        async def ask(self, query: Query) -> Solution[Any]:
            raise LedgerError("the disk is full")

    for ask in (
        check_steps(Broken(), passes, cannot_tell),
        check_steps(Said(1), Broken(), cannot_tell, n=1),
        check_steps(Said(1), passes, Broken(), n=1, sample=1.0),
    ):
        with pytest.raises(LedgerError):
            ask.solve_sync("?", output_type=int)


def test_answers_that_cannot_be_compared_are_a_typed_error() -> None:
    ask = check_steps(Said(float("nan"), float("nan")), passes, cannot_tell, n=2)
    solution = ask.solve_sync("?", output_type=float)
    assert isinstance(solution.failure, ConfigurationError)
    assert "canonical" in str(solution.reason)
    key = "sk-" + "c3D4" * 12
    secret = Secret(key)

    def tells(_: Any) -> Any:
        raise RuntimeError(f"no access with {key}")

    told = check_steps(Said(1, 2), passes, cannot_tell, n=2, canonical=tells).solve_sync("?", output_type=int)
    assert isinstance(told.failure, ConfigurationError)
    assert "no access" in str(told.reason)
    assert key not in f"{told.reason} {told.failure}"
    assert secret.reveal() == key


def test_one_answer_that_cannot_be_compared_loses_only_itself() -> None:
    ask = check_steps(Said(float("nan"), 1.0, 2.0, 2.0), passes, cannot_tell, n=4)
    solution = ask.solve_sync("?", output_type=float)
    assert solution.value == 2.0
    assert solution.failure is None
    assert (solution.report.answered, solution.report.votes) == (4, 2)


def test_who_left_no_sample_is_named() -> None:
    second = check_steps(Said(1, 2), passes, lambda _: False, n=2, sample=1.0).solve_sync("?", output_type=int)
    assert second.reason == "no sample is left: the second check fails 2 of 2"
    both = check_steps(Said(1, 2), lambda value: value == 1, lambda _: False, n=2, sample=1.0)
    said = "no sample is left: 1 of 2 have a step that fails and the second check fails 1 of 2"
    assert both.solve_sync("?", output_type=int).reason == said


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 257},
        {"n": True},
        {"sample": 1.1},
        {"sample": float("nan")},
        {"tolerance": 0.0},
        {"tolerance": 1},
        {"level": 0},
        {"level": "often"},
        {"most_vetoed": -0.1},
        {"on_alarm": 3},
        {"steps": None},
        {"hidden": 3},
    ],
)
def test_arguments_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        check_steps(**{"asker": Said(1), "steps": passes, "hidden": cannot_tell, **wrong})


def test_what_is_reported_is_json_and_readable() -> None:
    ask = check_steps(Said(1, 2, 1), lambda value: value == 1, lambda _: False, n=3, sample=1.0, tolerance=0.01)
    for _ in range(4):
        solution = ask.solve_sync("?", output_type=int)
    assert ask.trust.alarm is not None
    data = json.loads(json.dumps(solution.report.to_json()))
    assert data["strategy"] == "check_steps"
    assert data["alarm"] == ask.trust.alarm.to_json()
    assert "of 3 samples" in str(solution.report)
