"""Which tries are repeated, and when not; the budget over all asks; the breaker."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from brain.errors import EndpointUnavailable
from brain.events import ModelResponse, WireAttempt
from brain.wire import retrying as module
from brain.wire.retrying import Breaker, BreakerOpen, RetryBudget, Try, parse_retry_after, retrying
from specialists import Cost

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


def failed(*, retryable: bool = True, retry_after: float | None = None) -> Try:
    attempt = WireAttempt("1", "m", "http://x", "server_error", 0.0, Cost.exact(0))
    return Try(attempt, error=EndpointUnavailable("down"), retryable=retryable, retry_after=retry_after)


OK = Try(WireAttempt("2", "m", "http://x", "ok", 0.0, Cost.exact(0)), response=ModelResponse("yes"))


class Tries:
    """Gives the tries in order, the last one for ever."""

    def __init__(self, *tries: Try) -> None:
        self.tries = list(tries)
        self.made = 0

    async def __call__(self) -> Try:
        self.made += 1
        return self.tries.pop(0) if len(self.tries) > 1 else self.tries[0]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr(module, "pause", note)
    return noted


async def run(once: Any, **limits: Any) -> Try:
    return await retrying(once, **{"retries": 2, "deadline": None, "budget": RetryBudget(), **limits})


async def test_the_first_good_try_ends_it(pauses: list[float]) -> None:
    once = Tries(failed(), OK)
    assert await run(once) is OK
    assert once.made == 2
    assert len(pauses) == 1


async def test_two_retries_are_three_tries(pauses: list[float]) -> None:
    once = Tries(failed())
    last = await run(once)
    assert last.error is not None
    assert once.made == 3
    assert pauses[0] < pauses[1] * 2  # jittered around 0.25 and 0.5


async def test_none_when_none_are_wanted_or_it_is_not_worth_it() -> None:
    once = Tries(failed())
    await run(once, retries=0)
    assert once.made == 1
    once = Tries(failed(retryable=False))
    await run(once)
    assert once.made == 1


async def test_a_wait_beyond_the_deadline_is_not_begun(pauses: list[float]) -> None:
    once = Tries(failed(retry_after=5))
    await run(once, deadline=time.monotonic() + 3)
    assert once.made == 1
    assert pauses == []


async def test_retry_after_is_kept_and_a_long_one_believed(pauses: list[float]) -> None:
    await run(Tries(failed(retry_after=7), OK))
    assert 7 <= pauses[0] < 8
    once = Tries(failed(retry_after=3600), OK)
    await run(once)
    assert once.made == 1


async def test_the_budget_holds_over_all_asks() -> None:
    budget = RetryBudget(minimum=10, share=0.2)
    once = Tries(failed())
    for _ in range(200):
        await run(once, budget=budget)
    assert once.made <= 200 * 1.2 + 10
    assert once.made >= 200 + 10


async def test_what_a_try_raises_goes_through() -> None:
    async def cancelled() -> Try:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run(cancelled)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("1", 1.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("3600", 3600.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Tue, 01 Jan 2030 12:00:30 GMT", 30.0),
        ("Tue, 01 Jan 2030 11:00:00 GMT", None),
        ("Tue, 99 Jan 2030 11:00:00 GMT", None),
        ("9" * 100, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


def state_of(breaker: Breaker) -> str:
    return breaker.state


def test_the_breaker_opens_rests_probes_and_closes() -> None:
    now = [0.0]
    breaker = Breaker(threshold=3, rest=10, clock=lambda: now[0])
    for _ in range(3):
        assert state_of(breaker) == "closed"
        breaker.leave(breaker.enter(), "down")
    assert state_of(breaker) == "open"
    with pytest.raises(BreakerOpen) as caught:
        breaker.enter()
    assert caught.value.seconds == 10
    now[0] = 10.0
    assert state_of(breaker) == "half-open"
    assert breaker.enter() is True
    with pytest.raises(BreakerOpen):  # one at a time
        breaker.enter()
    breaker.leave(True, "down")
    assert state_of(breaker) == "open"
    now[0] = 20.0
    breaker.leave(breaker.enter(), "unknown")  # a cancelled probe says nothing, the next ask is the probe
    assert state_of(breaker) == "half-open"
    breaker.leave(breaker.enter(), "up")
    assert state_of(breaker) == "closed"


def test_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker(threshold=2)
    for ended in ("down", "up", "down", "unknown", "up", "down"):
        breaker.leave(breaker.enter(), ended)
    assert state_of(breaker) == "closed"


def test_budget_and_breaker_count_right_from_many_threads() -> None:
    budget = RetryBudget(minimum=100, share=0)
    breaker = Breaker(threshold=10**6)
    taken: list[bool] = []

    def work() -> None:
        for _ in range(100):
            taken.append(budget.take())
            breaker.leave(breaker.enter(), "down")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 100
