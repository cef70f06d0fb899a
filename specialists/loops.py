"""One private background event loop per process, for the sync twins, and one bounded pool for sync functions.

Both are made on first use and again after a fork. Sync twins may be called from any thread but one that runs a loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["run_in_thread", "run_sync"]

T = TypeVar("T")

SYNC_FUNCTION_THREADS = 32
"""Sync functions that may run at a time in one process; a further one waits for its turn."""

_lock = threading.Lock()
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
_pool: tuple[int, ThreadPoolExecutor] | None = None


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


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process, started if need be."""
    global _loop
    with _lock:
        if _loop is None or _loop[0] != os.getpid() or _loop[1].is_closed():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="specialists-loop", daemon=True).start()
            _loop = (os.getpid(), loop)
        return _loop[1]


async def run_in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a sync function in the bounded pool, with this task's context variables.

    A cancelled caller leaves at once; a thread cannot be stopped and ends by itself.
    """
    global _pool
    with _lock:
        if _pool is None or _pool[0] != os.getpid():
            _pool = (os.getpid(), ThreadPoolExecutor(SYNC_FUNCTION_THREADS, thread_name_prefix="specialists-sync"))
        pool = _pool[1]
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(function, *args, **kwargs))


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
