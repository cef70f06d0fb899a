"""The private loop and the pool of threads: nothing that runs on them may hang them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from specialists.loops import SYNC_FUNCTION_THREADS, run_in_thread, run_sync


async def value(number: int) -> int:
    await asyncio.sleep(0)
    return number


def test_many_threads_share_one_loop() -> None:
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda number: run_sync(lambda: value(number)), range(200))) == list(range(200))
    assert len([thread for thread in threading.enumerate() if thread.name == "specialists-loop"]) == 1


async def test_the_sync_form_says_what_to_do_on_a_running_loop() -> None:
    made = []
    with pytest.raises(RuntimeError, match="await the async form"):
        run_sync(lambda: made.append(1))  # type: ignore[arg-type, func-returns-value]
    assert not made


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_errors_come_back_and_the_loop_lives_on(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        run_sync(fail)
    assert run_sync(lambda: value(1)) == 1


def test_an_interrupted_caller_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started, stopped = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    schedule = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine: Any, loop: Any) -> Any:
        """What Ctrl-C does, without a signal: the wait for the result is broken off."""
        future = schedule(coroutine, loop)

        def result() -> None:
            started.wait(30)
            raise KeyboardInterrupt

        monkeypatch.setattr(future, "result", result)
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sync(work)
    assert stopped.wait(30)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_context_variables_go_along() -> None:
    variable.set("mine")
    assert await run_in_thread(variable.get) == "mine"


async def test_arguments_may_have_any_name() -> None:
    def function(function: int, self: int) -> int:
        return function + self

    assert await run_in_thread(function, function=1, self=2) == 3


@pytest.mark.parametrize("error", [StopIteration(1), SystemExit(2), ValueError("no"), asyncio.CancelledError()])
async def test_whatever_a_function_raises_comes_back(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async with asyncio.timeout(30):
        with pytest.raises((RuntimeError, ValueError, asyncio.CancelledError)):
            await run_in_thread(fail)
        assert await run_in_thread(lambda: 1) == 1


async def test_the_pool_is_bounded() -> None:
    release = threading.Event()
    running = 0
    most = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(30)
        with lock:
            running -= 1

    calls = [asyncio.ensure_future(run_in_thread(work)) for _ in range(SYNC_FUNCTION_THREADS + 10)]
    async with asyncio.timeout(30):
        while running < SYNC_FUNCTION_THREADS:  # noqa: ASYNC110 - other threads count
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*calls)
    assert most == SYNC_FUNCTION_THREADS


async def test_one_that_waits_and_is_cancelled_never_runs() -> None:
    release = threading.Event()
    ran = []
    busy = [asyncio.ensure_future(run_in_thread(release.wait, 30)) for _ in range(SYNC_FUNCTION_THREADS)]
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(run_in_thread(lambda: ran.append(1)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    release.set()
    await asyncio.gather(*busy)
    assert await run_in_thread(lambda: 1) == 1
    assert not ran


async def test_inner_calls_never_wait_for_outer_ones() -> None:
    def outer(number: int) -> int:
        return run_sync(lambda: run_in_thread(lambda: number))

    async with asyncio.timeout(30):
        results = await asyncio.gather(*(run_in_thread(outer, number) for number in range(2 * SYNC_FUNCTION_THREADS)))
    assert results == list(range(2 * SYNC_FUNCTION_THREADS))


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_its_own_loop_and_threads() -> None:
    code = """
        import asyncio, os, sys, threading
        from specialists import loops
        from specialists.loops import run_in_thread, run_sync
        assert run_sync(lambda: run_in_thread(lambda: 1)) == 1
        inside, release = threading.Event(), threading.Event()
        def hold():
            with loops._lock, loops._pool._lock:
                inside.set()
                release.wait()
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            sys.exit(run_sync(lambda: run_in_thread(lambda: 7)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        release.set()
        assert run_sync(lambda: run_in_thread(lambda: 1)) == 1
    """
    assert run_python(code) == "7"


def test_a_function_that_never_ends_does_not_keep_the_process() -> None:
    code = """
        import asyncio, time
        from specialists import specialist
        @specialist(timeout=0.2)
        def stuck(x: int) -> int:
            while True:
                time.sleep(1)
        outcome = stuck.solve_sync(1)
        print(outcome.attempts[0].outcome)
    """
    start = time.monotonic()
    assert run_python(code) == "timeout"
    assert time.monotonic() - start < 60
