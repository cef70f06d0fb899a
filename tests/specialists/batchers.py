"""What tests of batching share: models that only hand back what they are given, and workers driven by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from specialists import batching
from specialists.batching import Batcher
from specialists.calls import Batch, Call, Sizes

GUARD = 30.0
"""Seconds that no test here needs; only what hangs reaches it."""

PADDED = Sizes(joined=True, padded=True, run_cells=64, max_cells=512)
EQUAL = Sizes(joined=True, padded=False, run_cells=64, max_cells=512)
APART = Sizes(joined=False)


class Echo:
    """Serves a batch by handing back what it was given. ``batches`` holds what each run was given."""

    def __init__(self, during: Callable[[Batch], None] | None = None) -> None:
        self.batches: list[list[Any]] = []
        self.padding = 0
        self.threads: list[int] = []
        self.during = during

    def __call__(self, batch: Batch) -> None:
        self.batches.append([call.arguments for call in batch.calls])
        self.threads.append(threading.get_ident())
        if self.during is not None:
            self.during(batch)
        for call in batch.calls:
            call.result = call.arguments


class Gate:
    """Holds every run until it is opened; ``entered`` counts the runs that came this far."""

    def __init__(self) -> None:
        self.entered = 0
        self._open = threading.Event()

    def __call__(self, batch: Batch) -> None:
        self.entered += 1
        assert self._open.wait(GUARD)

    def open(self) -> None:
        self._open.set()

    async def reached(self, runs: int = 1) -> None:
        await until(lambda: self.entered >= runs)


class Hand:
    """Workers that work when they are told to, one run at a time, on this thread."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None], *, long: bool = False) -> None:
        self.jobs.append(job)

    def run(self, times: int = 1) -> None:
        for _ in range(times):
            if self.jobs:
                self.jobs.pop(0)()

    def run_all(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@contextmanager
def by_hand() -> Iterator[Hand]:
    hand = Hand()
    with (
        mock.patch.object(batching.workers, "submit", hand.submit),
        mock.patch.object(batching.workers, "others_wait", return_value=True),  # so a job is one run
    ):
        yield hand


class Caller:
    """Makes calls that are delivered where they are served, and counts what came."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.came: list[Call] = []

    def make(self, arguments: Any, length: int = 1, **fields: Any) -> Call:
        fields.setdefault("shape", length)
        return Call(arguments, self.came.append, None, None, fields.pop("rows", 1), length, **fields)

    def put(self, arguments: Any, length: int = 1, **fields: Any) -> Call:
        call = self.make(arguments, length, **fields)
        self.batcher.put(call)
        return call

    @property
    def answers(self) -> list[Any]:
        return [call.error or call.result for call in self.came]


def batcher_of(serve: Callable[[Batch], None], sizes: Sizes = EQUAL, width: int = 1, **options: Any) -> Batcher:
    batcher = Batcher(serve, name="model", width=width, **options)
    batcher.sizes = sizes
    return batcher


async def ask(batcher: Batcher, arguments: Any, length: int = 1, **fields: Any) -> Any:
    """As a model's ``run`` does."""
    loop = asyncio.get_running_loop()

    def resolve(call: Call) -> None:
        assert asyncio.get_running_loop() is loop
        if not call.future.done():
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.result)

    fields.setdefault("shape", length)
    call = Call(arguments, resolve, loop, loop.create_future(), fields.pop("rows", 1), length, **fields)
    batcher.put(call)
    try:
        return await call.future
    except asyncio.CancelledError:
        batcher.cancel(call)
        raise


async def until(holds: Callable[[], object]) -> None:
    """Wait for something that happens in another thread."""
    async with asyncio.timeout(GUARD):
        while not holds():  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(0.001)


async def settled(batcher: Batcher) -> None:
    """Until the workers have found that nothing is left."""
    await until(lambda: not batcher._workers)
