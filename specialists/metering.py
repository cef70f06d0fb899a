"""CPU time of one call, wherever its pieces run: on the event loop, in a worker thread, in a native library.

A meter is opened around a call and found by the parts below through a context variable, so that none of them needs an
argument for it. This module knows nothing of prices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["CpuMeter", "current_meter", "metered"]

T = TypeVar("T")

current_meter: ContextVar[CpuMeter | None] = ContextVar("specialists_cpu_meter", default=None)


class CpuMeter:
    """Adds up CPU seconds between a lower and an upper bound. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.low = 0.0
        self.high = 0.0

    def add(self, low: float, high: float | None = None) -> None:
        """Add ``low`` to ``high`` CPU seconds; without ``high`` the figure is exact."""
        with self._lock:
            self.low += low
            self.high += low if high is None else high


class metered:  # noqa: N801 - used like a function: ``await metered(coroutine, meter)``
    """Await a coroutine and add to ``meter`` the time this thread spends in its own steps, not what others do."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], meter: CpuMeter) -> None:
        self._coroutine = coroutine
        self._meter = meter

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        send: Any = None
        throw: BaseException | None = None
        while True:
            start = time.thread_time()
            try:
                item = steps.send(send) if throw is None else steps.throw(throw)
            except StopIteration as stop:
                return stop.value
            finally:
                self._meter.add(time.thread_time() - start)
            send, throw = None, None
            try:
                send = yield item
            except BaseException as error:  # a cancellation is thrown in here and belongs to the coroutine
                throw = error
