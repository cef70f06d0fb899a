"""One private background event loop per process, for the sync twins, and one bounded pool for sync functions.

Both are made on first use and again after a fork. Sync twins may be called from any thread but one that runs a loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
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


class _Job:
    """A sync function under way in a thread, and what is to be called when nobody waits for it any more."""

    __slots__ = ("_call", "_calls", "_context", "_future", "_loop", "_meter", "_stopped")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self._call = call
        self._loop = loop
        self._future = future
        self._context = contextvars.copy_context()
        self._meter = current_meter.get()
        self._calls: tuple[Callable[[], object], ...] = ()
        self._stopped = False

    def __call__(self) -> None:
        """In the thread."""
        if self._stopped:
            return
        result: Any = None
        error: BaseException | None = None
        try:
            if self._meter is None:
                result = self._context.run(self._inside)
            else:
                with self._meter.counting():
                    result = self._context.run(self._inside)
        except (StopIteration, SystemExit) as raised:  # the one no future can carry, the other would end the loop
            error = RuntimeError(f"the function raised {raised!r}")
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # its loop may have been closed meanwhile
            self._loop.call_soon_threadsafe(self._ended, result, error)

    def _inside(self) -> Any:
        _in_pool.set(True)
        _current_job.set(self)
        return self._call()

    def _ended(self, result: Any, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)

    def add(self, call: Callable[[], object]) -> None:
        with _stopping_lock:
            self._calls = (*self._calls, call)
            late = self._stopped
        if late:
            call()

    def remove(self, call: Callable[[], object]) -> None:
        with _stopping_lock:
            calls = list(self._calls)
            calls.remove(call)
            self._calls = tuple(calls)

    def stop(self) -> None:
        with _stopping_lock:
            self._stopped = True
            calls = self._calls
        for call in calls:
            call()


_stopping_lock = threading.Lock()
_current_job: contextvars.ContextVar[_Job | None] = contextvars.ContextVar("specialists_job", default=None)


@contextmanager
def stopping(*calls: Callable[[], object]) -> Iterator[None]:
    """While the block runs in a thread of :func:`run_in_thread`: make these calls, in order, when its caller gives up.

    They are made on the caller's thread and must not block. Elsewhere this does nothing.
    """
    job = _current_job.get()
    if job is None:
        yield
        return
    for call in calls:
        job.add(call)
    try:
        yield
    finally:
        for call in calls:
            job.remove(call)


async def run_in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Run a sync function in the bounded pool, with this task's context variables and counted by its CPU meter.

    A cancelled caller leaves at once; a thread cannot be stopped and ends by itself, but what it runs under
    :func:`stopping` is. What a function in the pool calls in its turn gets a thread beside the pool: outer calls that
    wait for inner ones cannot then use it up.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    job = _Job(functools.partial(function, *args, **kwargs) if args or kwargs else function, loop, future)
    (_start_thread if _in_pool.get() else _pool.submit)(job)
    try:
        return await future
    except asyncio.CancelledError:
        job.stop()
        raise


_inherited: list[object] = []
"""What a child must not close: the parent's loop shares its file descriptors with it."""


def _after_fork() -> None:
    """Threads and the locks they hold do not live on in a child."""
    global _lock, _loop, _pool, _stopping_lock
    _inherited.append(_loop)
    _stopping_lock = threading.Lock()
    _lock, _loop, _pool = threading.Lock(), None, _Threads(SYNC_FUNCTION_THREADS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
