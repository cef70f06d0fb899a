"""Runs the rungs that :func:`specialists.ladder.decide` asks for, one after the other.

A rung is an opaque async callable; this module knows neither models nor money. Hooks stand before and after each
attempt: a brain reserves money in the one and writes a row in the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .ladder import Abstain, Accept, Attempt, Outcome, Policy, RungPolicy, decide
from .ladder import Climb as Next

__all__ = ["Hooks", "LadderRung", "Question", "Rung", "climb"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a rung is asked: the checked arguments, what was tried before, and until when an answer is of use.

    ``deadline`` is a point on :func:`time.monotonic`, or ``None``.
    """

    arguments: Mapping[str, Any]
    attempts: tuple[Attempt, ...] = ()
    deadline: float | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; ``None`` without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Rung(Protocol):
    """One place where an answer may come from. It returns an attempt for everything but a cancellation."""

    async def __call__(self, question: Question, /) -> Attempt: ...


@dataclass(frozen=True, slots=True)
class LadderRung:
    """A rung with what the policy knows of it beforehand."""

    policy: RungPolicy
    run: Rung


class Hooks:
    """What stands around each attempt; the default does nothing. Override what is needed."""

    async def before(self, rung: str, question: Question) -> Attempt | None:
        """Return an attempt (``refused``, ``overloaded``) to have it stand in place of the rung's own."""
        return None

    def after(self, attempt: Attempt) -> Attempt:
        """Called with each attempt, also a cancelled one; what it returns is what is kept."""
        return attempt


async def climb(
    rungs: Sequence[LadderRung],
    arguments: Mapping[str, Any],
    *,
    accept: str = "confident",
    deadline: float | None = None,
    hooks: Hooks | None = None,
) -> Outcome[Any]:
    """Climb until an answer is accepted or no rung is left.

    ``deadline`` (:func:`time.monotonic`) holds for the whole climb: a rung that passes it becomes an attempt with the
    outcome ``timeout``. A cancellation is handed to ``hooks.after`` as an attempt and raised on.
    """
    hooks = hooks or Hooks()
    policy = Policy(tuple(rung.policy for rung in rungs), accept)  # type: ignore[arg-type]
    by_name = {rung.policy.name: rung.run for rung in rungs}
    attempts: tuple[Attempt, ...] = ()
    while True:
        decision = decide(policy, attempts)
        if isinstance(decision, Accept):
            last = attempts[-1]
            return Outcome(last.value, last.rung, decision.by, attempts, policy, arguments=arguments)
        if isinstance(decision, Abstain):
            return Outcome(None, None, None, attempts, policy, reason=decision.reason, arguments=arguments)
        question = Question(arguments, attempts, deadline)
        attempt = await _try(decision, by_name, question, hooks)
        attempts += (hooks.after(attempt),)


async def _try(decision: Next, rungs: Mapping[str, Rung], question: Question, hooks: Hooks) -> Attempt:
    start = time.perf_counter()
    remaining = question.remaining()
    if remaining is not None and remaining <= 0:
        return Attempt(decision.rung, "timeout", 0.0, reason="no time was left for it")
    try:
        stand_in = await hooks.before(decision.rung, question)
        if stand_in is not None:
            return stand_in
        async with asyncio.timeout(remaining) as limit:
            return await rungs[decision.rung](question)
    except asyncio.CancelledError:
        hooks.after(Attempt(decision.rung, "cancelled", time.perf_counter() - start, reason="cancelled"))
        raise
    except TimeoutError:
        if not limit.expired():
            raise
        seconds = time.perf_counter() - start
        return Attempt(decision.rung, "timeout", seconds, reason="the time for the whole call was over")
