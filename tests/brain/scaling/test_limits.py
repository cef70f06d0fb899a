"""Where strategies with checks end: at a deadline, a budget, a key that is refused, their own declared maximum."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from brain import AuthenticationFailed, Brain, Budget, ConfigurationError, OpenAIModel, Price
from brain.asking import Asker, Query, Solution
from brain.errors import EndpointUnavailable
from brain.scaling import StepAlarm, asker, check_steps, judge, prove, prove_precision, refine
from brain.testing import FakeEndpoint, Fault, ScriptedModel, SimulatedJudge, SimulatedModel, SimulatedVerifier

PRICE = Price("0.40", "1.60")


class Said(Asker):
    """Says one thing after the other, by the number in the place where it is asked."""

    def __init__(self, *says: Any) -> None:
        self.says = says
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return "said"

    async def ask(self, query: Query) -> Solution[Any]:
        self.asked.append(query.path)
        said = self.says[int(query.path.rpartition(" ")[2]) % len(self.says)]
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)


class Refused(Asker):
    """Whose key is not accepted."""

    def __init__(self) -> None:
        self.asked = 0

    @property
    def name(self) -> str:
        return "refused"

    async def ask(self, query: Query) -> Solution[Any]:
        self.asked += 1
        failure = AuthenticationFailed("the key is not accepted")
        return Solution(None, str(failure), failure=failure, source=self.name, tab=query.tab)


async def never(_: Any) -> Any:
    await asyncio.Event().wait()


def knows(text: str) -> int:
    told = json.loads(text)
    return int(told["question"] if isinstance(told, dict) else told)


LATE: dict[str, Callable[[], Asker]] = {
    "judge, a judge": lambda: judge(Said(1, 2), by=never),
    "judge, the answers": lambda: judge(never, by=lambda _: "first"),
    "refine, the only check": lambda: refine(Said(1, 2), check=never, rounds=1),
    "refine, the answer": lambda: refine(never, check=lambda _: True),
    "refine, an asker that checks": lambda: refine(Said(1, 2), check=asker(never), rounds=1),
    "prove, the last checks": lambda: prove(Said(1), never, n=1),
    "prove, the last solution": lambda: prove(never, lambda _: True, n=1),
    "prove, the last second check": lambda: prove(Said(1), lambda _: False, never, n=1),
    "check_steps, the samples": lambda: check_steps(never, lambda _: True, lambda _: None, n=2),
    "check_steps, the steps": lambda: check_steps(Said(1, 2), never, lambda _: None, n=2),
    "check_steps, an asker for the steps": lambda: check_steps(Said(1, 2), asker(never), lambda _: None, n=2),
    "check_steps, the second check": lambda: check_steps(Said(1, 2), lambda _: True, never, n=2, sample=1.0),
}


@pytest.mark.parametrize("late", LATE)
def test_who_was_cut_short_by_the_deadline_says_so(late: str) -> None:
    solution = LATE[late]().solve_sync("which?", output_type=int, timeout=0.1)
    assert solution.stopped == "the deadline passed"
    assert solution.report is not None
    json.dumps(solution.report.to_json())


@pytest.mark.parametrize("strategy", range(4))
def test_who_was_done_before_the_deadline_was_not_cut_short(strategy: int) -> None:
    ask: Asker = (
        judge(Said(1, 1), by=never),
        refine(Said(1), check=lambda _: True),
        prove(Said(1), lambda _: True),
        check_steps(Said(1), lambda _: True, lambda _: None),
    )[strategy]
    solution = ask.solve_sync("which?", output_type=int, timeout=60)
    assert solution.value == 1
    assert solution.stopped is None


@pytest.mark.parametrize("strategy", range(4))
def test_without_money_for_anything_nothing_is_asked_and_it_says_so(strategy: int) -> None:
    model = SimulatedModel(solve=lambda _: 1, price=PRICE)
    ask: Asker = (
        judge(model, by=model),
        refine(model, check=lambda _: False),
        prove(model, lambda _: True),
        check_steps(model, lambda _: True, lambda _: None),
    )[strategy]
    solution = ask.solve_sync("which?", output_type=int, budget=Budget(usd="0.0000001"))
    assert not solution.answered
    assert "allows" in str(solution.stopped)
    assert solution.calls == 0
    assert solution.wire_attempts == ()


def test_a_budget_that_ends_in_the_last_round_is_what_ended_it() -> None:
    model = SimulatedModel(solve=knows, accuracy=0.0, variety=1000, price=PRICE, verifier=SimulatedVerifier())
    ask = refine(model, check=model, rounds=1, patience=1)
    for calls in (1, 2, 3):
        solution = ask.solve_sync("3", output_type=int, seed=1, budget=Budget(calls=calls))
        assert solution.stopped is not None
        assert solution.report.ended == solution.stopped
        assert solution.answered


def test_whose_key_is_refused_is_not_asked_again_and_again() -> None:
    judging = Refused()
    solution = judge(Said(*range(9)), by=judging, n=8).solve_sync("which?", output_type=int)
    assert judging.asked == 2  # the first pair, in both orders
    assert "the key is not accepted" in str(solution.stopped)
    assert isinstance(solution.failure, AuthenticationFailed)
    assert len(solution.report.candidates) == 8
    solving, checking = Refused(), Refused()
    assert "the key is not accepted" in str(prove(solving, lambda _: True, n=9).solve_sync("?").stopped)
    assert solving.asked == 1
    said = Said(1, 2, 3)
    assert not prove(said, checking, n=9, m=2).solve_sync("?", output_type=int).answered
    assert (checking.asked, len(said.asked)) == (2, 1)
    refined = refine(Said(1, 2, 3), check=Refused(), rounds=9).solve_sync("?", output_type=int)
    assert refined.value == 1
    assert len(refined.report.rounds) == 1


def test_a_reviewer_whose_key_is_refused_bars_nothing_that_needs_no_second_look() -> None:
    reviewing = Refused()
    solution = prove(Said(0, 1, 2), lambda value: value == 2, reviewing, n=2, m=1).solve_sync("?", output_type=int)
    assert solution.value == 2
    assert reviewing.asked == 1


def test_a_proof_that_used_up_its_own_maximum_does_not_end_what_it_is_part_of() -> None:
    served = SimulatedModel(
        solve=knows, accuracy=1.0, seed=3, verifier=SimulatedVerifier(), faults={Fault.server_error(): 0.35}
    )
    with FakeEndpoint(served) as endpoint:
        sends = OpenAIModel("fake", base_url=endpoint.base_url, api_key=endpoint.api_key, retries=2)
        inner = prove(sends, sends, n=1, m=2)
        cut = 0
        for seed in range(6):
            alone = inner.solve_sync("3", output_type=int, seed=seed)
            if alone.stopped is None:
                continue
            cut += 1
            assert alone.calls == inner.most_calls
            assert not alone.answered
            assert "declared" in str(alone.reason)
            assert alone.failure is None or isinstance(alone.failure, EndpointUnavailable)
        assert cut >= 2
        judging = SimulatedModel(solve=knows, judge=SimulatedJudge(), name="judging")
        outer = judge(inner, by=judging, n=3)
        solved = [outer.solve_sync("3", output_type=int, seed=seed) for seed in range(4)]
        assert any(0 < solution.report.missing < 3 for solution in solved)
        assert all(solution.stopped is None for solution in solved)
        assert all(solution.value == 3 for solution in solved if solution.report.missing < 3)


def test_no_maximum_is_declared_around_somebody_who_does_not_say_what_he_sends() -> None:
    brain = Brain(ScriptedModel(["8"]))
    model = SimulatedModel(solve=lambda _: 8, judge=SimulatedJudge())
    assert prove(judge(brain, by=model), lambda _: True).most_calls is None
    assert prove(refine(model, check=brain), lambda _: True).most_calls is None
    assert prove(judge(model, by=model), lambda _: True, n=2).most_calls == 2 * (2 + 2)


@pytest.mark.parametrize("strategy", [judge, refine, prove, check_steps])
def test_a_form_is_a_function_before_anything_is_paid(strategy: Any) -> None:
    needs: dict[Any, dict[str, Any]] = {
        judge: {"by": lambda _: "first"},
        refine: {},
        prove: {"verifier": lambda _: True},
        check_steps: {"steps": lambda _: True, "hidden": lambda _: None},
    }
    with pytest.raises(ConfigurationError, match="canonical"):
        strategy(Said(1), **needs[strategy], canonical="casefold")


def test_more_arguments_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="complete"):
        refine(Said(1), complete="no")  # type: ignore[arg-type]
    for wrong in ({"m": 1.5}, {"n": 2.0}, {"m": True}, {"misses": "0.1"}, {"accuses": True}, {"overturns": math.inf}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            prove_precision(0.5, **{"misses": 0.2, "accuses": 0.2, "m": 1, **wrong})  # type: ignore[arg-type]


def test_an_alarm_is_told_by_a_plain_function() -> None:
    async def tell(_: Any) -> None:
        raise AssertionError("nobody would await it")

    with pytest.raises(ConfigurationError, match="async"):
        check_steps(Said(1), lambda _: True, lambda _: None, on_alarm=tell)


def test_the_same_method_is_no_second_check_of_itself() -> None:
    class Rules:
        def hold(self, _: Any) -> bool:
            return True

    rules = Rules()
    with pytest.raises(ConfigurationError, match="agrees with itself"):
        check_steps(Said(1), rules.hold, rules.hold)
    check_steps(Said(1), rules.hold, Rules().hold)


def test_why_an_inner_strategy_was_stopped_is_not_lost() -> None:
    inner = refine(Said(1))  # there is nothing to check by
    for ask in (
        judge(inner, by=never),
        prove(inner, lambda _: True),
        check_steps(inner, lambda _: True, lambda _: None),
    ):
        solution = ask.solve_sync("which?", output_type=int)
        assert solution.value == 1
        assert solution.stopped == "there is nothing to check by, so nothing was refined"


def test_step_checks_that_are_cancelled_leave_nothing_running() -> None:
    begun: list[int] = []
    waiting = asyncio.Event()

    async def waits(value: int) -> bool:
        begun.append(value)
        waiting.set()
        await asyncio.Event().wait()
        return True

    async def cancelled(steps: Any, hidden: Any) -> None:
        begun.clear()
        waiting.clear()
        ask = check_steps(Said(0, 1, 2), steps, hidden, n=2, sample=1.0)
        task = asyncio.create_task(ask.solve("?", output_type=int))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert ask.trust.audits == (0, 0)  # what was not ended says nothing of the check

    async def main() -> None:
        await cancelled(waits, lambda _: None)
        assert sorted(begun) == [1, 2]
        await cancelled(lambda _: True, waits)
        assert begun == [1]

    asyncio.run(main())


def test_one_checker_is_asked_from_many_threads() -> None:
    alarms: list[StepAlarm] = []
    ask = check_steps(
        Said(0, 1, 1, 2), lambda _: True, lambda value: value != 2, n=3, sample=1.0, on_alarm=alarms.append
    )

    def work(number: int) -> list[Solution[Any]]:
        return [ask.solve_sync(f"{number}/{each}", output_type=int) for each in range(10)]

    with ThreadPoolExecutor(8) as pool:
        solved = [each for several in pool.map(work, range(8)) for each in several]
    assert [each.value for each in solved] == [1] * 80
    assert ask.trust.samples == 240
    assert ask.trust.audits == (
        sum(each.report.audits for each in solved),
        sum(each.report.disagreements for each in solved),
    )
    assert alarms == [ask.trust.alarm]


def test_an_honest_check_is_seldom_accused() -> None:
    """End to end: of what the first check passes the second fails 4 %, and 5 % were declared."""
    model = SimulatedModel(solve=knows, accuracy=0.96, variety=10, keep_requests=False, seed=2)

    async def alarmed(trial: int) -> bool:
        wanted = [0]
        ask = check_steps(model, lambda _: True, lambda value: value == wanted[0], n=4, sample=0.5)
        for number in range(60):
            wanted[0] = number
            await ask.solve(str(number), output_type=int, seed=1000 * trial + number)
        return ask.trust.alarm is not None

    alarms = sum(asyncio.run(alarmed(trial)) for trial in range(20))
    assert alarms <= 4  # 5 % of 20 is 1; more than 4 has a chance below 0.3 %
