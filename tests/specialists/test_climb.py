"""The climb: rungs run in order, hooks stand around each, a cancellation at any await leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from specialists import Attempt, Hooks, LadderRung, Question, RungPolicy
from specialists.climb import climb

Run = Callable[[Question], Awaitable[Attempt]]


def rung(name: str, run: Run, **policy: Any) -> LadderRung:
    return LadderRung(RungPolicy(name, policy.pop("kind", "specialist"), **policy), run)


def gives(outcome: str = "answered", **fields: Any) -> Run:
    async def run(question: Question) -> Attempt:
        await asyncio.sleep(0)
        return Attempt("", outcome, 0.0, **fields)  # type: ignore[arg-type]

    return run


async def hangs(question: Question) -> Attempt:
    await asyncio.sleep(60)
    raise AssertionError


class Watch(Hooks):
    def __init__(self, stand_in: Attempt | None = None) -> None:
        self.before_calls: list[str] = []
        self.after_calls: list[Attempt] = []
        self.stand_in = stand_in

    async def before(self, rung: str, question: Question) -> Attempt | None:
        await asyncio.sleep(0)
        self.before_calls.append(rung)
        return self.stand_in

    def after(self, attempt: Attempt) -> Attempt:
        self.after_calls.append(attempt)
        return attempt


async def test_goes_on_until_an_answer_is_accepted() -> None:
    hooks = Watch()
    rungs = [
        rung("a", gives("cannot", reason="no")),
        rung("b", gives(value=1, confidence=0.1), min_confidence=0.5),
        rung("c", gives(value=2, confidence=0.9), min_confidence=0.5),
        rung("d", hangs),
    ]
    outcome = await climb(rungs, {"x": 1}, hooks=hooks)
    assert (outcome.value, outcome.answered_by, outcome.accepted_by) == (2, "c", "confident")
    assert [attempt.rung for attempt in outcome.attempts] == ["a", "b", "c"] == hooks.before_calls
    assert tuple(hooks.after_calls) == outcome.attempts
    assert outcome.arguments == {"x": 1}


async def test_abstains_with_every_reason_and_no_value() -> None:
    outcome = await climb([rung("a", gives(value=1)), rung("b", gives("error", reason="broke"))], {})
    assert not outcome.accepted
    assert outcome.value is None
    assert outcome.reason is not None
    assert outcome.reason.endswith("b: broke")
    assert (await climb([], {})).reason == "the ladder has no rungs"


async def test_a_rung_sees_what_was_tried_before() -> None:
    seen: list[tuple[Attempt, ...]] = []

    async def look(question: Question) -> Attempt:
        seen.append(question.attempts)
        return Attempt("b", "cannot", 0.0)

    await climb([rung("a", gives("error")), rung("b", look)], {})
    assert [[attempt.rung for attempt in attempts] for attempts in seen] == [["a"]]


async def test_a_hook_may_stand_in_for_a_rung() -> None:
    hooks = Watch(Attempt("elsewhere", "refused", 0.0, reason="the budget is spent"))
    outcome = await climb([rung("a", hangs), rung("b", hangs)], {}, hooks=hooks)
    assert [(attempt.rung, attempt.outcome) for attempt in outcome.attempts] == [("a", "refused"), ("b", "refused")]


async def test_a_rung_with_anothers_name_cannot_make_the_climb_endless() -> None:
    async def lies(question: Question) -> Attempt:
        return Attempt("a", "cannot", 0.0)

    async with asyncio.timeout(30):
        outcome = await climb([rung("a", lies), rung("b", lies)], {})
    assert [attempt.rung for attempt in outcome.attempts] == ["a", "b"]


async def test_the_deadline_holds_for_the_whole_climb() -> None:
    hooks = Watch()
    rungs = [rung("a", hangs), rung("b", hangs)]
    outcome = await climb(rungs, {}, deadline=time.monotonic() + 0.05, hooks=hooks)
    assert [attempt.outcome for attempt in outcome.attempts] == ["timeout", "timeout"]
    assert hooks.before_calls == ["a"]
    assert len(hooks.after_calls) == 2
    assert (await climb(rungs, {}, deadline=time.monotonic() - 1)).reason is not None


async def test_a_hook_that_waits_too_long_is_a_timeout() -> None:
    class Slow(Watch):
        async def before(self, rung: str, question: Question) -> Attempt | None:
            await asyncio.sleep(60)
            return None

    outcome = await climb([rung("a", hangs)], {}, deadline=time.monotonic() + 0.05, hooks=Slow())
    assert outcome.attempts[0].outcome == "timeout"


@pytest.mark.parametrize("error", [TimeoutError("own"), ZeroDivisionError("no"), asyncio.CancelledError()])
async def test_a_hook_that_refuses_by_raising_ends_the_climb_with_nothing_attempted(error: BaseException) -> None:
    class Raises(Watch):
        async def before(self, rung: str, question: Question) -> Attempt | None:
            raise error

    hooks = Raises()
    with pytest.raises(type(error)):
        await climb([rung("a", hangs)], {}, hooks=hooks, deadline=time.monotonic() + 30)
    assert not hooks.after_calls


@pytest.mark.parametrize("error", [TimeoutError("own"), ZeroDivisionError("no")])
async def test_a_rung_that_raises_is_settled_all_the_same(error: Exception) -> None:
    async def raises(question: Question) -> Attempt:
        raise error

    hooks = Watch()
    with pytest.raises(type(error)):
        await climb([rung("a", raises)], {}, hooks=hooks)
    assert [(each.outcome, each.reason) for each in hooks.after_calls] == [
        ("error", f"{type(error).__name__}: {error}")
    ]


async def test_33_a_cancellation_at_every_await_is_handed_to_the_hooks_once() -> None:
    rungs = [rung("a", gives("cannot")), rung("b", gives("answered", value=1))]
    tasks = asyncio.all_tasks()
    ended = 0
    for steps in range(12):
        hooks = Watch()
        task = asyncio.ensure_future(climb(rungs, {}, hooks=hooks))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            ended += 1
        except asyncio.CancelledError:
            # Every attempt that was begun has its row, the last of them a cancelled one.
            begun = [name for name in hooks.before_calls if name in [each.rung for each in hooks.after_calls]]
            assert begun == hooks.before_calls
            assert [each.outcome for each in hooks.after_calls].count("cancelled") <= 1
    assert ended
    assert asyncio.all_tasks() == tasks


async def test_a_stopped_rung_keeps_the_cpu_time_it_counted() -> None:
    async def works(question: Question) -> Attempt:
        question.meter.add(1.0, 2.0)
        return await hangs(question)

    outcome = await climb([rung("a", works), rung("b", hangs)], {}, deadline=time.monotonic() + 0.05)
    assert [(each.cpu_seconds_low, each.cpu_seconds) for each in outcome.attempts] == [(1.0, 2.0), (None, None)]


async def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="accept is one of"):
        await climb([], {}, accept="sure")  # type: ignore[arg-type]
