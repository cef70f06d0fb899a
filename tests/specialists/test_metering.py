"""CPU time is counted once, wherever a call's pieces run; these tests compare figures with figures, not with clocks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialists import Attempt, OnnxModel, Outcome, specialist
from specialists.loops import run_in_thread
from specialists.metering import CpuMeter, current_meter, metered


def burn(seconds: float) -> None:
    """Spend CPU time on this thread."""
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def first(outcome: Outcome[Any]) -> Attempt:
    assert outcome.attempts[0].outcome == "answered", outcome.attempts[0]
    return outcome.attempts[0]


async def counted(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, CpuMeter]:
    meter = CpuMeter()
    return await metered(coroutine, meter), meter


async def test_only_own_steps_are_counted() -> None:
    async def work() -> None:
        burn(0.02)
        await asyncio.sleep(0.01)
        burn(0.02)

    async def others() -> None:
        for _ in range(10):
            burn(0.02)
            await asyncio.sleep(0)

    (_, meter), _ = await asyncio.gather(counted(work()), others())
    assert 0.04 <= meter.low == meter.high < 0.12


async def test_a_cancellation_and_a_result_pass_through() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            burn(0.01)
            return "caught"
        return "never"

    task = asyncio.ensure_future(counted(work()))
    await asyncio.sleep(0)
    task.cancel()
    result, meter = await task
    assert result == "caught"
    assert meter.low >= 0.01


async def test_an_error_passes_through() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await counted(work())


def test_nested_blocks_count_a_second_once() -> None:
    outer = CpuMeter()
    token = current_meter.set(outer)
    inner = CpuMeter()
    current_meter.reset(token)
    with outer.counting(), inner.counting(), outer.counting():
        burn(0.05)
    assert inner.low <= outer.low < 0.1
    with inner.counting():
        burn(0.05)
    assert 0.1 <= inner.low <= outer.low < 0.2
    inner.add(1.0, 2.0)
    assert 1.1 <= outer.low < 1.2
    assert 2.1 <= outer.high < 2.2


def test_a_thread_left_behind_is_counted_from_above() -> None:
    meter = CpuMeter()
    inside, release = threading.Event(), threading.Event()

    def work() -> None:
        with meter.counting():
            inside.set()
            release.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    time.sleep(0.01)
    assert meter.low == 0.0
    assert meter.high >= 0.01
    release.set()
    thread.join()
    assert meter.low == meter.high


@specialist
def in_thread(seconds: float) -> int:
    burn(seconds)
    return 1


@specialist
async def on_loop(seconds: float) -> int:
    burn(seconds)
    await asyncio.sleep(0)
    return 1


@pytest.mark.parametrize("which", [in_thread, on_loop])
async def test_concurrent_calls_are_told_apart(which: Any) -> None:
    outcomes = await asyncio.gather(*(which.solve(0.01 * number) for number in (1, 5, 10)))
    for number, outcome in zip((1, 5, 10), outcomes, strict=True):
        attempt = first(outcome)
        assert 0.01 * number <= attempt.cpu_seconds < 0.01 * number + 0.04
        assert attempt.cpu_seconds_low == attempt.cpu_seconds


async def test_an_outer_call_includes_its_inner_ones_once() -> None:
    inner: list[Attempt] = []

    @specialist
    async def one_after_another(seconds: float) -> int:
        burn(seconds)
        for each in (in_thread, on_loop):
            inner.append(first(await each.solve(seconds)))
        return 1

    @specialist
    async def at_once(seconds: float) -> int:
        burn(seconds)
        inner.extend(map(first, await asyncio.gather(in_thread.solve(seconds), on_loop.solve(seconds))))
        return 1

    @specialist
    async def unchecked(seconds: float) -> int:
        await asyncio.gather(in_thread(3 * seconds))
        return 1

    @specialist
    def from_a_thread(seconds: float) -> int:
        burn(seconds)
        inner.append(first(in_thread.solve_sync(seconds)))
        inner.append(first(on_loop.solve_sync(seconds)))
        return 1

    for outer in (one_after_another, at_once, unchecked, from_a_thread):
        inner.clear()
        spent = first(await outer.solve(0.03)).cpu_seconds
        assert spent is not None
        assert 0.09 <= spent < 0.18, outer
        assert sum(attempt.cpu_seconds or 0.0 for attempt in inner) < spent


async def test_a_native_run_is_counted_once_wherever_it_is_called(endless: Path) -> None:
    model = OnnxModel(endless)
    feeds = {"trips": np.int64(60_000), "x": [0.0]}
    model.run_sync(**feeds)
    start = time.thread_time()
    model.run_sync(**feeds)
    alone = time.thread_time() - start

    @specialist
    async def awaits(x: int) -> float:
        return float((await model.run(**feeds))["y"][0])

    @specialist
    def calls(x: int) -> float:
        return float(model.run_sync(**feeds)["y"][0])

    @specialist
    async def calls_on_the_loop(x: int) -> float:
        return float(model.run_sync(**feeds)["y"][0])

    @specialist
    async def calls_in_another_task(x: int) -> float:
        return float((await asyncio.gather(asyncio.to_thread(model.run_sync, **feeds)))[0]["y"][0])

    for each in (awaits, calls, calls_on_the_loop, calls_in_another_task):
        spent = first(await each.solve(1)).cpu_seconds
        assert spent is not None
        assert 0.4 * alone < spent < 1.9 * alone + 0.02, each


async def test_a_plain_function_in_a_thread_is_counted() -> None:
    meter = CpuMeter()
    token = current_meter.set(meter)
    await run_in_thread(burn, 0.02)
    current_meter.reset(token)
    assert 0.02 <= meter.low < 0.06


async def test_what_a_stopped_attempt_spent_is_in_its_row() -> None:
    @specialist(timeout=0.2)
    def stuck(seconds: float) -> int:
        burn(seconds)
        return 1

    attempt = (await stuck.solve(1.0)).attempts[0]
    assert attempt.outcome == "timeout"
    assert "thread runs on" in (attempt.reason or "")
    assert attempt.cpu_seconds is not None
    assert attempt.cpu_seconds >= 0.1
    assert attempt.cpu_seconds_low is not None
    assert attempt.cpu_seconds_low < attempt.cpu_seconds
