"""Runs the rungs that :func:`specialists.ladder.decide` asks for, one after the other.

A rung is an opaque async callable; this module knows neither models nor money. Hooks stand before and after each
attempt: a brain reserves money in the one and writes a row in the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .ladder import (
    Abstain,
    Accept,
    AcceptLevel,
    Attempt,
    AttemptOutcome,
    CertificateState,
    Outcome,
    Policy,
    RungPolicy,
    decide,
)
from .metering import CpuMeter

__all__ = ["Hooks", "LadderRung", "Question", "Rung", "attempt_on", "climb"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a rung is asked: the checked arguments, what was tried before, and until when an answer is of use.

    ``deadline`` is a point on :func:`time.monotonic`, or ``None``. ``meter`` is where the rung counts its CPU time, so
    that it is known also of a rung that is stopped.
    """

    arguments: Mapping[str, Any]
    attempts: tuple[Attempt, ...] = ()
    deadline: float | None = None
    meter: CpuMeter = field(default_factory=CpuMeter, repr=False, compare=False)

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

    def begin(self, policy: Policy) -> None:
        """Called once, before the first attempt, with the policy that the climb goes by."""

    def ended(self, outcome: Outcome[Any]) -> None:
        """Called once, when the climb has come to its end by itself. An audit of the answer may follow."""

    async def before(self, rung: str, question: Question) -> Attempt | float | None:
        """Return an attempt (``refused``, ``overloaded``) to have it stand in place of the rung's own; or the seconds
        that the rung may take, where they are fewer than it would have.

        When this raises, or is cancelled, nothing was attempted: the climb ends and ``after`` is not called.
        """
        return None

    def after(self, attempt: Attempt) -> Attempt:
        """Called once for each attempt, also a cancelled one and one that no time was left for.

        What it returns is what is kept.
        """
        return attempt


async def climb(
    rungs: Sequence[LadderRung],
    arguments: Mapping[str, Any],
    *,
    accept: AcceptLevel = "confident",
    deadline: float | None = None,
    hooks: Hooks | None = None,
    certificate: CertificateState | None = None,
) -> Outcome[Any]:
    """Climb until an answer is accepted or no rung is left.

    ``deadline`` (:func:`time.monotonic`) holds for the whole climb: a rung that passes it becomes an attempt with the
    outcome ``timeout``. A cancellation is handed to ``hooks.after`` as an attempt and raised on. ``certificate``: what
    is known of the certificate whose floors the rungs bear.
    """
    hooks = hooks or Hooks()
    policy = Policy(tuple(rung.policy for rung in rungs), accept, certificate)
    by_name = {rung.policy.name: rung.run for rung in rungs}
    attempts: tuple[Attempt, ...] = ()
    hooks.begin(policy)
    while True:
        decision = decide(policy, attempts)
        if isinstance(decision, Accept | Abstain):
            outcome: Outcome[Any]
            if isinstance(decision, Accept):
                last = attempts[-1]
                outcome = Outcome(last.value, last.rung, decision.by, attempts, policy, arguments=arguments)
            else:
                outcome = Outcome(None, None, None, attempts, policy, reason=decision.reason, arguments=arguments)
            hooks.ended(outcome)
            return outcome
        question = Question(arguments, attempts, deadline)
        attempts += (await attempt_on(decision.rung, by_name[decision.rung], question, hooks),)


async def attempt_on(name: str, rung: Rung, question: Question, hooks: Hooks) -> Attempt:
    """One attempt on one rung, with the hooks around it; :func:`climb` says how it ends."""
    start = time.perf_counter()

    def ended(outcome: AttemptOutcome, reason: str) -> Attempt:
        meter = question.meter
        cpu: dict[str, Any] = {"cpu_seconds": meter.high, "cpu_seconds_low": meter.low} if meter.high else {}
        ran = tuple(sorted(meter.ran))
        return hooks.after(Attempt(name, outcome, time.perf_counter() - start, reason=reason, ran=ran, **cpu))

    remaining = question.remaining()
    if remaining is not None and remaining <= 0:
        return ended("timeout", "no time was left for it")
    attempt = None
    begun = False
    limit = asyncio.timeout(remaining)
    try:
        async with limit:
            said = await hooks.before(name, question)
            if isinstance(said, Attempt):
                attempt = said
            else:
                begun = True
                if said is not None and (remaining is None or said < remaining):
                    question = replace(question, deadline=time.monotonic() + said)
                    limit.reschedule(asyncio.get_running_loop().time() + said)
                attempt = await rung(question)
    except BaseException as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return ended("timeout", "the time for the whole call was over")
        if begun:  # what was reserved for it is settled, whatever ended it
            cancelled = isinstance(error, asyncio.CancelledError)
            ended(
                "cancelled" if cancelled else "error", "cancelled" if cancelled else f"{type(error).__name__}: {error}"
            )
        raise
    # An attempt counts for the rung that was asked, whatever name it brings: else the climb might never end.
    return hooks.after(attempt if attempt.rung == name else replace(attempt, rung=name))
