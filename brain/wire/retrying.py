"""Retrying, in the one place where it is done: which tries are repeated, when, how often, and when not at all.

Three limits hold at once: ``retries`` of one ask, the deadline of that ask, and a budget over all asks of a model, so
that a storm of failures is not answered with a storm of retries. A breaker gives an endpoint that is down a rest.
This module knows nothing of HTTP, messages or keys; it sees tries and how they ended.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from specialists.breaker import Breaker, BreakerOpen

from ..errors import BrainError
from ..events import ModelResponse, WireAttempt

__all__ = ["Breaker", "BreakerOpen", "RetryBudget", "Try", "parse_retry_after", "retrying"]

BACKOFF_FIRST = 0.25
"""Mean of the first wait, in seconds; each further one is twice as long, all with jitter."""
BACKOFF_LONGEST = 8.0
LONGEST_RETRY_AFTER = 60.0
"""An endpoint that asks for a longer rest than this, in seconds, is believed and not asked again."""


@dataclass(frozen=True, slots=True)
class Try:
    """One wire attempt, ended: a ``response``, or the ``error`` to raise if it is the last."""

    attempt: WireAttempt
    response: ModelResponse | None = None
    error: BrainError | None = None
    retryable: bool = False
    retry_after: float | None = None
    """Seconds that the endpoint asked to be left alone, or ``None``."""


class RetryBudget:
    """Retries allowed over all asks: ``minimum`` at once, and ``share`` of a retry more for every ask. Thread safe."""

    def __init__(self, *, minimum: int = 10, share: float = 0.2) -> None:
        self._most = float(minimum)
        self._share = share
        self._tokens = float(minimum)
        self._lock = threading.Lock()

    def asked(self) -> None:
        """One more ask has begun."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Whether one retry may be made now; if so it is counted."""
        with self._lock:
            # A tenth of slack for the binary fraction: five asks must make one retry.
            if self._tokens < 0.999:
                return False
            self._tokens = max(0.0, self._tokens - 1.0)
            return True


async def retrying(
    once: Callable[[], Awaitable[Try]], *, retries: int, deadline: float | None, budget: RetryBudget
) -> Try:
    """Call ``once`` until a try is not worth repeating or a limit is reached, and return the last try.

    ``deadline`` is a point on :func:`time.monotonic`; a wait that would pass it is not begun. Nothing is raised but
    what ``once`` raises (a cancellation, for one).
    """
    budget.asked()
    first = await once()
    if not first.retryable:
        return first
    return await _again(first, once, retries=retries, deadline=deadline, budget=budget)


async def _again(
    first: Try, once: Callable[[], Awaitable[Try]], *, retries: int, deadline: float | None, budget: RetryBudget
) -> Try:
    import tenacity

    made = [first]

    async def next_try() -> Try:
        return made.pop() if made else await once()

    def wait(state: tenacity.RetryCallState) -> float:
        asked = _last(state).retry_after
        exponential = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0 ** (state.attempt_number - 1))
        jittered = exponential * random.uniform(0.5, 1.5)
        # A little later than asked, not all at the same moment.
        return jittered if asked is None else asked + 0.1 * jittered

    def stop(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number > retries:
            return True
        asked = _last(state).retry_after
        if asked is not None and asked > LONGEST_RETRY_AFTER:
            return True
        if deadline is not None and time.monotonic() + state.upcoming_sleep >= deadline:
            return True
        return not budget.take()

    runner = tenacity.AsyncRetrying(
        sleep=lambda seconds: pause(seconds),
        retry=tenacity.retry_if_result(lambda ended: isinstance(ended, Try) and ended.retryable),
        wait=wait,
        stop=stop,
        retry_error_callback=_last,
    )
    ended: Try = await runner(next_try)
    return ended


async def pause(seconds: float) -> None:
    """Wait before the next try. Tests look in here."""
    await asyncio.sleep(seconds)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a ``Retry-After`` header: a number, or an HTTP date. Anything else, and the past, is ``None``."""
    if value is None or len(value) > 64:
        return None
    text = value.strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return seconds if seconds >= 0 else None


def _last(state: object) -> Try:
    outcome = getattr(state, "outcome", None)
    assert outcome is not None
    ended = outcome.result()
    assert isinstance(ended, Try)
    return ended
