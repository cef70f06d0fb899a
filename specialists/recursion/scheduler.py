"""How callers ask a recursive model, wait, give up and are refused. The stepping itself is in ``lanes``."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .. import loops
from ..errors import DeadlinePassed, ModelFailed, Overloaded
from .lanes import Item, Lanes, RecursiveModel, StepResult

__all__ = ["StepScheduler"]

QUEUE_LIMIT = 16384


class StepScheduler:
    """Runs the items of one recursive model. Safe from any thread and event loop; making one opens nothing.

    Args:
        model: The model; :class:`OnnxStep` makes one of an ONNX graph.
        max_steps: Steps that an item may take, if its call says nothing else.
        slots: Rows that step together in one run. By default this is measured when items first have to share: steps of
            1, 2, 4 ... 32 rows are timed, for about half a second at most.
        queue_limit: Items that may wait; a further one is refused with :class:`Overloaded`.
        lanes: Batches that step at a time; by default as many as cores this process may use, and one on a GPU.
    """

    def __init__(
        self,
        model: RecursiveModel,
        *,
        max_steps: int,
        slots: int | None = None,
        queue_limit: int = QUEUE_LIMIT,
        lanes: int | None = None,
    ) -> None:
        for name, number in (
            ("max_steps", max_steps),
            ("slots", slots),
            ("queue_limit", queue_limit),
            ("lanes", lanes),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        self.model = model
        self.max_steps = max_steps
        self.queue_limit = queue_limit
        self._wanted = slots, lanes
        self._closed = False
        self._lanes = Lanes(model, slots, lanes)
        _schedulers.add(self)

    def __repr__(self) -> str:
        return f"StepScheduler({self.model!r}, max_steps={self.max_steps})"

    @property
    def slots(self) -> int | None:
        """Rows that step together in one run; ``None``: not measured yet."""
        return self._lanes.slots

    @property
    def waiting(self) -> int:
        """Items that wait for a slot."""
        return self._lanes.waiting

    @property
    def runs(self) -> int:
        """How often the model's ``step`` has run for items."""
        return sum(lane.runs for lane in self._lanes.every)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all steps so far; the items' shares add up to it."""
        return self._lanes.cpu_ns / 1e9

    async def run(
        self,
        item: Any,
        *,
        max_steps: int | None = None,
        deadline: float | None = None,
        verify: Callable[[Any], bool] | None = None,
    ) -> StepResult:
        """Step ``item`` until it halts, or is out of steps or time.

        ``deadline``: a point on :func:`time.monotonic`; an item whose next step would not be done by then leaves with
        what it has. ``verify``: called with the item's value after each step, on a worker thread, for a short look;
        when it says yes the item leaves. A cancelled item leaves before the next step.

        Raises :class:`Overloaded`, :class:`DeadlinePassed` (not one step was done in time, or the last one took far
        longer than those before), :class:`ModelFailed`, and what ``start``, ``answer`` or ``verify`` raise.
        """
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, not {max_steps}")
        if verify is not None and inspect.iscoroutinefunction(verify):
            raise TypeError("verify is called between two steps and must be a plain function; await others after run")
        loop = asyncio.get_running_loop()
        entry = Item(item, max_steps or self.max_steps, deadline, verify, loop)
        if deadline is None:
            return await self._wait(entry)
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlinePassed("the deadline had passed before the first step")
        timer = loop.call_later(left, self._expire, entry)
        try:
            return await self._wait(entry)
        finally:
            timer.cancel()

    def run_sync(
        self,
        item: Any,
        *,
        max_steps: int | None = None,
        deadline: float | None = None,
        verify: Callable[[Any], bool] | None = None,
    ) -> StepResult:
        """As :meth:`run`, for threads without an event loop."""
        return loops.run_sync(lambda: self.run(item, max_steps=max_steps, deadline=deadline, verify=verify))

    async def warm_up(self, item: Any) -> int:
        """Open the model and measure how many slots are best, before the first callers need it. Gives the slots.

        ``item`` is one as :meth:`run` takes it.
        """
        lanes = self._lanes
        if lanes.slots is None:
            await loops.run_in_thread(lambda: lanes.measure(self.model.start(item)))
        assert lanes.slots is not None
        return lanes.slots

    async def close(self, timeout: float | None = None) -> bool:
        """Take no further items and wait for those that are here. ``False``: not done within ``timeout`` seconds."""
        return await loops.run_in_thread(self.close_sync, timeout)

    def close_sync(self, timeout: float | None = None) -> bool:
        """As :meth:`close`; blocks this thread."""
        with self._lanes.drained:
            self._closed = True
            return self._lanes.drained.wait_for(lambda: not self._lanes.unfinished, timeout)

    def expected_wait(self) -> float | None:
        """Seconds that a new item would wait for its first step, from the speed so far; ``None`` is unknown."""
        lanes = self._lanes.every
        left = sum(lane.left for lane in lanes)
        busy = sum(lane.busy_seconds for lane in lanes)
        return self.waiting * busy / left / len(self._lanes.shared.lanes) if left else None

    async def _wait(self, item: Item) -> StepResult:
        lanes = self._lanes
        with lanes.lock:
            if self._closed:
                raise ModelFailed(f"{self!r} was closed and takes no further items; make a new one")
            if lanes.waiting >= self.queue_limit:
                raise self._overloaded()
            lanes.put(item)
        try:
            return await item.future
        except asyncio.CancelledError:
            lanes.abandon(item)
            raise

    def _overloaded(self) -> Overloaded:
        wait = self.expected_wait()
        about = "" if wait is None else f", and a further one would wait about {wait:.2g} s"
        return Overloaded(f"{self.waiting} items wait for {self.model!r} already{about}; come back later", wait=wait)

    def _expire(self, item: Item) -> None:
        if not item.future.done():
            item.future.set_exception(DeadlinePassed(f"the time for the item was over after {item.steps} steps"))
            self._lanes.abandon(item)

    def _after_fork(self) -> None:
        _inherited.append(self._lanes)
        slots, lanes = self._wanted
        self._lanes = Lanes(self.model, slots or self._lanes.slots, lanes)


_schedulers: WeakSet[StepScheduler] = WeakSet()
_inherited: list[Lanes] = []
"""A parent's lanes: what a device holds for them must not be freed in a child."""


def _after_fork() -> None:
    """Threads and the locks they hold do not live on in a child; what the parent's callers wait for is the parent's."""
    for scheduler in list(_schedulers):
        scheduler._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
