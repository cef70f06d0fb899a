"""What stands in a model's queue and what leaves it: calls, batches, their sizes, and what was counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from .metering import CpuMeter

__all__ = ["Batch", "Call", "Sizes", "Statistics"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What batches of one model are worth. ``cells`` are rows times length; a call without lengths has one a row.

    ``joined``: calls may share a run at all. ``padded``: also calls of different lengths, the shorter filled up.
    ``run_cells``: what a run costs beside its cells, as so many cells. ``max_cells``: larger batches gain nothing.
    """

    joined: bool = True
    padded: bool = False
    run_cells: float = 64.0
    max_cells: float = 512.0


@dataclass(slots=True)
class Statistics:
    """What a batcher has done so far.

    ``runs`` of the model served ``calls``; ``cells`` of theirs went in, and ``padding`` cells that nobody needed.
    ``cpu_seconds`` is what the workers spent: the calls' shares add up to it. ``refused``: calls turned away by a full
    queue; ``expired``: calls whose deadline passed while they waited; ``cancelled``: calls that were given up.
    """

    runs: int = 0
    calls: int = 0
    cells: int = 0
    padding: int = 0
    cpu_seconds: float = 0.0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    largest: int = 0
    """Calls in the largest run."""

    def add(self, calls: int, cells: int, padding: int, cpu_seconds: float) -> None:
        """Count one run."""
        self.runs += 1
        self.calls += calls
        self.cells += cells
        self.padding += padding
        self.cpu_seconds += cpu_seconds
        if calls > self.largest:
            self.largest = calls

    @property
    def padding_share(self) -> float:
        """Cells that nobody needed, as a share of all that were computed."""
        every = self.cells + self.padding
        return self.padding / every if every else 0.0


class Call:
    """One question to the model on its way through the queue.

    ``arguments`` is opaque here. ``rows`` and ``length`` say how much of a batch it takes; only calls of one ``shape``
    go together without filling up. ``deliver(call)`` is called once, on ``loop``'s thread, or on the worker's where
    ``loop`` is ``None``; then ``result`` or ``error`` is set. ``future`` is for whoever delivers. A call without a
    ``shape`` runs by itself.
    """

    __slots__ = (
        "arguments", "batch", "bound", "caller", "deadline", "deliver", "error", "future", "length", "loop", "meter",
        "place", "result", "rows", "shape", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        arguments: Any,
        deliver: Callable[[Call], None],
        loop: asyncio.AbstractEventLoop | None,
        future: Any = None,
        rows: int = 1,
        length: int = 1,
        shape: Hashable = None,
        caller: Hashable = None,
        deadline: float | None = None,
        meter: CpuMeter | None = None,
    ) -> None:
        self.arguments = arguments
        self.deliver = deliver
        self.loop = loop
        self.future = future
        self.rows = rows
        self.length = length
        self.shape = shape
        self.caller = caller
        self.deadline = deadline
        self.meter = meter
        self.waiting = False
        self.bound = 0.0
        self.batch: Batch | None = None
        self.place: Any = None
        self.result: Any = None
        self.error: BaseException | None = None


class Batch:
    """The calls of one run, and what whoever serves it says of it.

    ``options`` is set to an object whose ``terminate`` ends the native run; it is set to true when no live call is left
    in the batch. ``after``: what the worker is to do when the answers were delivered, at nobody's cost. ``beside``: CPU
    seconds that other threads may have spent on the run, at most.
    """

    __slots__ = ("after", "beside", "calls", "live", "options", "start", "stopped")

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.start = time.perf_counter()
        self.live = len(calls)
        self.options: Any = None
        self.stopped = False
        self.after: Callable[[], None] | None = None
        self.beside = 0.0

    def give_up(self) -> None:
        """Nobody waits for any of the calls: end the run."""
        self.stopped = True
        if self.options is not None:
            self.options.terminate = True
