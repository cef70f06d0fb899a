"""CPU time of one call, wherever its pieces run: on the event loop, in a worker thread, in a native library.

It also keeps which models ran, which is known at the same places.

A meter is opened around a call and found by the parts below through a context variable, so that none of them needs an
argument for it. A meter made inside another's call counts for both. This module knows nothing of prices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["CpuMeter", "current_meter", "metered"]

T = TypeVar("T")

current_meter: ContextVar[CpuMeter | None] = ContextVar("specialists_cpu_meter", default=None)


class _Counting(threading.local):
    """The meters that are counting this thread's time right now, outermost first."""

    def __init__(self) -> None:
        self.meters: list[CpuMeter] = []


_counting = _Counting()


class CpuMeter:
    """Adds up CPU seconds between a lower and an upper bound. Safe from any thread.

    What it counts is also counted by the meter that was current when it was made: a call includes its inner calls.
    """

    def __init__(self) -> None:
        self._around = current_meter.get()
        self._lock = threading.Lock()
        self._low = 0.0
        self._high = 0.0
        self._open: dict[object, float] = {}
        self.ran: set[str] = set()
        """The models that ran: the head of the file's sha256, the provider and the runtime's version, by slashes."""

    @property
    def low(self) -> float:
        """CPU seconds that were spent for certain."""
        return self._low

    @property
    def high(self) -> float:
        """The most that can have been spent: a thread that was left behind may have computed all the time."""
        with self._lock:
            if not self._open:
                return self._high
            begun = list(self._open.values())  # in one step: other threads begin theirs meanwhile
            now = time.perf_counter()
            return self._high + sum([now - start for start in begun])

    def add(self, low: float, high: float | None = None) -> None:
        """Add ``low`` to ``high`` CPU seconds; without ``high`` the figure is exact."""
        for meter in self._chain():
            meter._add(low, low if high is None else high)

    def note(self, model: str) -> None:
        """Keep that ``model`` ran."""
        for meter in self._chain():
            meter.ran.add(model)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count this thread's own CPU time, once, however deep these blocks are nested."""
        running = _counting.meters
        mine = [meter for meter in self._chain() if meter not in running]
        running.extend(mine)
        span = object()
        began = time.perf_counter()
        for meter in mine:
            meter._open[span] = began
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            for meter in mine:
                running.remove(meter)
                meter._end(span, spent)

    def _chain(self) -> Iterator[CpuMeter]:
        meter: CpuMeter | None = self
        while meter is not None:
            yield meter
            meter = meter._around

    def _end(self, span: object, spent: float) -> None:
        with self._lock:
            self._low += spent
            self._high += spent
            del self._open[span]

    def _add(self, low: float, high: float) -> None:
        with self._lock:
            self._low += low
            self._high += high


class metered:
    """Await a coroutine and add to ``meter`` the time this thread spends in its own steps, not what others do."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], meter: CpuMeter) -> None:
        self._coroutine = coroutine
        self._meter = meter

    def __await__(self) -> Generator[Any, Any, Any]:
        # What `counting` does, written out: a call has a dozen steps, and most take less time than a context manager.
        steps = self._coroutine.__await__()
        chain = tuple(self._meter._chain())
        clock, cpu = time.perf_counter, time.thread_time
        send: Any = None
        throw: BaseException | None = None
        while True:
            running = _counting.meters
            mine = [meter for meter in chain if meter not in running] if running else chain
            running.extend(mine)
            began = clock()
            for meter in mine:
                meter._open[self] = began
            start = cpu()
            try:
                item = steps.send(send) if throw is None else steps.throw(throw)
            except StopIteration as stop:
                return stop.value
            finally:
                spent = cpu() - start
                for meter in mine:
                    running.remove(meter)
                    meter._end(self, spent)
            send, throw = None, None
            try:
                send = yield item
            except BaseException as error:  # a cancellation is thrown in here and belongs to the coroutine
                throw = error
