"""One private background event loop per process, for the sync twins, and one bounded pool for sync functions.

Both are made on first use and again after a fork. Sync twins may be called from any thread but one that runs a loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

from .metering import current_meter

__all__ = ["current_deadline", "run_in_thread", "run_sync", "stopping"]

T = TypeVar("T")

SYNC_FUNCTION_THREADS = 32
"""Sync functions that may run at a time in one process; a further one waits for its turn."""

current_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("specialists_deadline", default=None)
"""A point on :func:`time.monotonic` after which nobody has a use for what is computed now."""

_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("specialists_in_pool", default=False)


def run_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that ``make`` returns on the background loop and wait for it.

    Raises ``RuntimeError`` on a thread that runs an event loop: there the async form is to be awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("this is the sync form, and an event loop runs in this thread; await the async form instead")
    future = asyncio.run_coroutine_threadsafe(make(), background_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C in the caller stops the work too
        raise


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process, started if need be."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_keep_running, args=(_loop,), name="specialists-loop", daemon=True).start()
        return _loop


def _keep_running(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            continue  # raised by one task, whose caller gets it; the loop is everyone's


class _Threads:
    """At most ``size`` daemon threads: a function that never ends must not keep the process from ending."""

    def __init__(self, size: int) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._left = size

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._left:
                self._left -= 1
                _start_thread(self._work)

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            with self._lock:
                self._idle += 1


_pool = _Threads(SYNC_FUNCTION_THREADS)


def _start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="specialists-sync", daemon=True).start()


class _Stops:
    """What is to be called when nobody waits for a thread's work any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []
        self._stopped = False

    def add(self, call: Callable[[], object]) -> None:
        with self._lock:
            self._calls.append(call)
            late = self._stopped
        if late:
            call()

    def remove(self, call: Callable[[], object]) -> None:
        with self._lock:
            self._calls.remove(call)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            calls = list(self._calls)
        for call in calls:
            call()


_current_stops: contextvars.ContextVar[_Stops | None] = contextvars.ContextVar("specialists_stops", default=None)


@contextmanager
def stopping(*calls: Callable[[], object]) -> Iterator[None]:
    """While the block runs in a thread of :func:`run_in_thread`: make these calls, in order, when its caller gives up.

    They are made on the caller's thread and must not block. Elsewhere this does nothing.
    """
    stops = _current_stops.get()
    if stops is None:
        yield
        return
    for call in calls:
        stops.add(call)
    try:
        yield
    finally:
        for call in calls:
            stops.remove(call)


async def run_in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run a sync function in the bounded pool, with this task's context variables and counted by its CPU meter.

    A cancelled caller leaves at once; a thread cannot be stopped and ends by itself, but what it runs under
    :func:`stopping` is. What a function in the pool calls
    in its turn gets a thread beside the pool: outer calls that wait for inner ones cannot then use it up.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()
    meter = current_meter.get()

    def job() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            with meter.counting() if meter else nullcontext():
                result = context.run(function, *args, **kwargs)
        except (StopIteration, SystemExit) as error:  # the one no future can carry, the other would end the loop
            future.set_exception(RuntimeError(f"the function raised {error!r}"))
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    submit = _start_thread if context.get(_in_pool) else _pool.submit
    context.run(_in_pool.set, True)
    stops = _Stops()
    context.run(_current_stops.set, stops)
    submit(job)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        stops.stop()
        raise


_inherited: list[object] = []
"""What a child must not close: the parent's loop shares its file descriptors with it."""


def _after_fork() -> None:
    """Threads and the locks they hold do not live on in a child."""
    global _lock, _loop, _pool
    _inherited.append(_loop)
    _lock, _loop, _pool = threading.Lock(), None, _Threads(SYNC_FUNCTION_THREADS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
