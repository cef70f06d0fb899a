"""The lanes in which items of a recursive model step, and the queue before them.

A lane is a batch: its rows step together in one run, as a job of the process's workers, so that other models get their
turn between two steps. Before each step those who are done have left and those who wait have come in. Few items are
spread over the lanes, so that all cores have work and a half-empty lane costs nothing.

An item with more rows than a lane has slots gets a lane to itself, beside the others, and steps piece by piece.
This module knows nothing of ONNX, nor of how callers wait: a model is four functions over arrays of rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .. import workers
from ..errors import DeadlinePassed, ModelFailed, SpecialistError
from ..metering import CpuMeter, current_meter
from .rows import HostRows, RowArrays, Rows, layout_of, most_useful_slots, unfinite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["Item", "Lanes", "RecursiveModel", "StepResult"]

logger = logging.getLogger("specialists")

FEW = 2
"""So many items in a lane step together in any case."""


class RecursiveModel(Protocol):
    """A model that is applied to its own state, step by step. All arrays have one row per item along axis 0.

    The four methods are called on worker threads, for several lanes at a time. An attribute ``threads`` may be there
    besides: compute threads that a step uses (default 1; the CPU time of the others is only bounded).
    """

    def start(self, item: Any, /) -> Mapping[str, Array]:
        """The state of a new item, by name: one row, or several that enter and leave together."""

    def step(self, state: Mapping[str, Array], /) -> Mapping[str, Array]:
        """One step of all rows. What is named as in ``state`` takes its place, what is not stays as it was.

        The arrays of ``state`` are only lent, and must not be written to.
        """

    def halted(self, rows: Mapping[str, Array], /) -> NDArray[np.bool_]:
        """Which rows are done: bool, (n,). ``rows``, only lent, holds the new state and what else the step gave."""

    def answer(self, rows: Mapping[str, Array], /) -> Any:
        """The value of one item that leaves, from its own rows alone. They are copies and may be kept."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How an item left.

    ``value``: what the model's ``answer`` made of its rows. ``steps``: how many it took. ``halted``: it was done, or
    verified; else it was out of steps or time, and the value is as it stood then. ``cpu_seconds``: its share of the
    CPU time of its steps.
    """

    value: Any
    steps: int
    halted: bool
    cpu_seconds: float


class Item:
    """One item on its way. ``queue`` and ``lane`` say where it is; ``rows``: which rows of the lane are its own."""

    __slots__ = (
        "cpu_ns", "deadline", "ended", "future", "given", "lane", "loop", "max_steps", "meter", "queue", "rows",
        "state", "steps", "verify",
    )  # fmt: skip

    def __init__(
        self,
        given: Any,
        max_steps: int,
        deadline: float | None,
        verify: Callable[[Any], bool] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.given = given
        self.max_steps = max_steps
        self.deadline = deadline
        self.verify = verify
        self.loop = loop
        self.future: asyncio.Future[StepResult] = loop.create_future()
        self.meter: CpuMeter | None = current_meter.get()
        self.state: Mapping[str, Array] | None = None
        self.steps = 0
        self.cpu_ns = 0
        self.ended = False
        self.queue: _Queue | None = None
        self.lane: _Lane | None = None
        self.rows: list[int] = []


_Leaving = tuple[Item, StepResult | Exception]


class Lanes:
    """All lanes of one model. ``slots``: rows of a run, measured if ``None``. ``count``: lanes, or one a core."""

    def __init__(self, model: RecursiveModel, slots: int | None, count: int | None) -> None:
        self.model = model
        self.slots = slots
        self.told = slots is not None
        self.threads = 1
        self.lock = threading.Lock()
        self.drained = threading.Condition(self.lock)
        self.unfinished = 0
        self.measuring = False
        self.cpu_ns = 0
        self._count = count
        # How many lanes there may be is known when the first one has opened the model.
        self.shared = _Queue(self, count or 1, alone=False)
        self.wide = _Queue(self, count or 1, alone=True)

    @property
    def waiting(self) -> int:
        """Items that wait for a slot."""
        return self.shared.count + self.wide.count

    @property
    def every(self) -> list[_Lane]:
        """The lanes of both queues."""
        return [*self.shared.lanes, *self.wide.lanes]

    def put(self, item: Item) -> None:  # locked
        """Let an item come in as soon as there is room."""
        self.unfinished += 1
        self.shared.add(item)

    def abandon(self, item: Item) -> None:
        """Nobody waits for ``item`` any more: it leaves before the next step."""
        with self.lock:
            self._end(item)

    def _end(self, item: Item) -> bool:  # locked
        if item.ended:
            return False
        item.ended = True
        if item.lane is not None:
            item.lane.live -= 1
            if not item.lane.live:
                item.lane.stop()  # no live item is left in the run, if one is under way
        elif item.queue is not None:
            item.queue.count -= 1
        else:
            return True  # it never came in
        self.unfinished -= 1
        if not self.unfinished:
            self.drained.notify_all()
        return True

    def deliver(self, leaving: list[_Leaving]) -> None:
        """Hand results and errors to those who wait for them: one call for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Leaving]] = {}
        with self.lock:
            for item, result in leaving:
                if self._end(item):
                    by_loop.setdefault(item.loop, []).append((item, result))
        for loop, own in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_settle, own)

    def open_rows(self) -> Rows:
        """Room for a lane's state; opens the model if it is not open."""
        make = getattr(self.model, "lane_rows", None)
        rows: Rows = make() if make is not None else HostRows(lambda state: self.model.step(state))
        if self._count is None:
            self.threads = getattr(self.model, "threads", 1)
            with self.lock:
                self._count = 1 if rows.whole else workers.usable_cores()
                self.shared.widen(self._count)
                self.wide.widen(self._count)
        return rows

    def measure(self, state: Mapping[str, Array]) -> None:
        """Find out how many slots are best, with one row of ``state``, a real item's."""
        slots = most_useful_slots(self.open_rows(), state, self.model.halted)
        with self.lock:
            self.slots = slots


class _Queue:
    """Items that wait, oldest first, and the lanes that take them. ``alone``: each item has a lane to itself.

    All methods are called with the lock held.
    """

    def __init__(self, all_lanes: Lanes, lanes: int, *, alone: bool) -> None:
        self.alone = alone
        self.count = 0
        self._all = all_lanes
        self._items: deque[Item] = deque()
        self.lanes = [_Lane(all_lanes, self) for _ in range(lanes)]

    def widen(self, lanes: int) -> None:
        """There may be as many lanes as ``lanes``: make the rest, and wake them for those who wait."""
        self.lanes += [_Lane(self._all, self) for _ in range(lanes - len(self.lanes))]
        for _ in range(min(self.count, lanes - 1)):
            self._wake()

    def add(self, item: Item, *, first: bool = False) -> None:
        """Let ``item`` wait, and wake a lane that has nothing to do."""
        item.queue, item.lane = self, None
        if first:
            self._items.appendleft(item)
        else:
            self._items.append(item)
        self.count += 1
        self._wake()

    def _wake(self) -> None:
        for lane in self.lanes:
            if lane.idle:
                lane.idle = False
                workers.submit(lane.work)
                return

    def share(self) -> int:
        """How many items each lane would have if all that are here were spread evenly; at least one."""
        here = self.count
        for lane in self.lanes:
            here += lane.live
        return -(-here // len(self.lanes)) or 1

    def take(self, lane: _Lane, most: int) -> tuple[list[Item], list[Item]]:
        """Up to ``most`` items for ``lane``; and those whose deadline has passed while they waited."""
        taken: list[Item] = []
        late: list[Item] = []
        now = time.monotonic()
        while len(taken) < most and self.count:
            item = self._items.popleft()
            if item.ended:
                continue
            self.count -= 1
            item.queue, item.lane = None, lane
            lane.live += 1
            (late if item.deadline is not None and item.deadline <= now else taken).append(item)
        if not self.count:
            self._items.clear()  # what is left was cancelled
        return taken, late


class _Lane:
    """A batch that steps. Its rows are touched by its own job alone; ``idle`` and ``live`` with the lock held.

    ``live``: items in it, or on their way in, whose callers still wait. ``runs`` of the model, items that ``left``, and
    ``busy_seconds`` spent in steps are counted.
    """

    def __init__(self, all_lanes: Lanes, queue: _Queue) -> None:
        self.idle = True
        self.live = 0
        self.runs = 0
        self.left = 0
        self.busy_seconds = 0.0
        self._all = all_lanes
        self._model = all_lanes.model
        self._queue = queue
        self._kept: Rows | None = None
        self._items: dict[Item, None] = {}
        """The items here, in order of arrival."""
        self._owners: list[Item | None] = []
        """Whose each row is, as far as rows are in use; ``None``: nobody's any more."""
        self._holes: list[int] = []
        self._like: list[Any] = []
        """Shapes and types of a row: items that differ in them do not share a lane at a time."""
        self._rounds = self._run()
        self._took = 0.0
        self._spent_ns = 0
        self._mark_ns = 0

    def stop(self) -> None:  # locked
        """Stop the step that runs, if one does."""
        if self._kept is not None:
            self._kept.stop()

    def work(self) -> None:
        """The lane's job: steps until nothing is left to do, or until another model's job waits."""
        while True:
            self._mark_ns = time.thread_time_ns()
            try:
                more = next(self._rounds)
            except BaseException as error:  # a lane that died would leave its callers waiting for ever
                logger.exception("%r: a step could not be scheduled", self._model)
                lost, self._items, self._owners, self._holes = self._items, {}, [], []
                self._kept, self._rounds, more = None, self._run(), True
                self._all.deliver([(item, self._failure(error)) for item in lost])
            self._spent_ns += time.thread_time_ns() - self._mark_ns
            if not more:
                with self._all.lock:
                    if not self._queue.count:
                        self.idle = True  # from here on another worker may have the lane
                        return
            if workers.others_wait():
                workers.submit(self.work)
                return

    def _run(self) -> Generator[bool]:
        """Round by round. At each ``yield`` another job may go first; ``False``: nothing is left to do."""
        while True:
            new: list[Item] = []
            late: list[Item] = []
            surplus: list[Item] = []
            with self._all.lock:
                gone = [item for item in self._items if item.ended] if self.live < len(self._items) else ()
                if self._queue.count:
                    new, late = self._queue.take(self, self._room(len(gone)))
                elif self.live > 1:
                    surplus = self._surplus()
                empty = not self.live
                if self._kept is not None:
                    self._kept.begin()
            for item in gone:
                self._remove(item)
            if empty:
                yield False
                continue
            if late:
                error = DeadlinePassed("the deadline passed while the item waited; not one step was done")
                self._all.deliver([(item, error) for item in late])
            if surplus:
                self._hand_over(surplus)
            if new:
                self._enter(new)
            self._close_up()
            if not self._owners or (self._all.slots is None and self._measure()):
                continue  # who waits may come in now
            yield from self._step()
            yield True

    def _room(self, gone: int) -> int:  # locked
        """How many items may come in now."""
        if self._queue.alone:
            return 0 if self.live else 1
        share, most = self._queue.share(), self._all.slots or 1
        if not self._all.told:
            # With all in one batch those who need many steps would wait for everybody at each. So while there is no
            # crowd, half of them step and half wait: that is as fast, and nobody waits as long.
            most = min(most, max(FEW, share // 2))
        return min(most - len(self._owners) + len(self._holes) + gone, share - self.live)

    def _surplus(self) -> list[Item]:  # locked
        """Items that a lane with nothing to do could take from this one."""
        if self._queue.alone or not any(lane.idle for lane in self._queue.lanes):
            return []
        return [item for item in self._items if not item.ended][self._queue.share() :]

    def _hand_over(self, items: list[Item]) -> None:
        assert self._kept is not None
        for item in items:
            item.state = self._kept.take(item.rows)
            self._remove(item)
        self._put_back(items, self._queue)

    def _put_back(self, items: list[Item], queue: _Queue) -> None:
        """Let items that were taken wait again, in front of all others."""
        with self._all.lock:
            for item in reversed(items):
                if not item.ended:
                    self.live -= 1
                    queue.add(item, first=True)

    def _enter(self, items: list[Item]) -> None:
        """Give each item its rows. One that does not fit beside the others waits on."""
        slots = self._all.slots
        failed: list[_Leaving] = []
        for place, item in enumerate(items):
            used = len(self._owners) - len(self._holes)
            try:
                if self._kept is None:
                    self._kept = self._all.open_rows()
                if item.state is None:
                    item.state, item.given = self._model.start(item.given), None
                count, like = layout_of(item.state)
                if slots is not None and not self._queue.alone:
                    if count > slots:
                        self._put_back([item], self._all.wide)
                        continue
                    if used and (used + count > slots or like != self._like):
                        self._put_back(items[place:], self._queue)
                        break
                if count > 1 or not used:
                    self._close_up()
                row = self._holes.pop() if self._holes else len(self._owners)
                self._kept.place(row, item.state)
            except BaseException as error:  # a function may raise SystemExit; it is its item's failure all the same
                failed.append((item, error if isinstance(error, Exception) else self._failure(error)))
                continue
            self._like = like
            item.state = None
            item.rows = list(range(row, row + count))
            self._owners[row : row + count] = [item] * count
            self._items[item] = None
        if failed:
            self._share([item for item, _ in failed])
            self._all.deliver(failed)

    def _remove(self, item: Item) -> None:
        """Take an item's rows out. What they leave are holes, for those who come in."""
        del self._items[item]
        for row in item.rows:
            self._owners[row] = None
        self._holes += item.rows

    def _close_up(self) -> None:
        """Move the last rows into the holes that are left, so that those in use are the first ones."""
        if not self._holes:
            return
        assert self._kept is not None
        owners = self._owners
        for hole in sorted(self._holes):
            while owners and owners[-1] is None:
                owners.pop()
            last = len(owners) - 1
            if hole < last and (owner := owners.pop()) is not None:
                self._kept.move(last, hole)
                owners[hole] = owner
                owner.rows[owner.rows.index(last)] = hole
        self._holes.clear()
        self._kept.keep(len(owners))

    def _measure(self) -> bool:
        """Measure how many slots are best: once, and only when there are more items than lanes."""
        with self._all.lock:
            if self._all.measuring or self._queue.alone or self._queue.share() == 1:
                return False
            self._all.measuring = True
        assert self._kept is not None
        try:
            self._all.measure(self._kept.take([0]))
        except Exception:
            return False  # the step itself will tell what is wrong
        finally:
            self._all.measuring = False
        return True

    def _step(self) -> Generator[bool]:
        """One step of all rows; who is done leaves."""
        kept = self._kept
        assert kept is not None
        count = len(self._owners)
        began = time.perf_counter()
        try:
            parts = []
            for first, last in self._pieces(count):
                if first:
                    yield True
                parts.append(kept.step(first, last))
                self.runs += 1
            leaving = self._look(list(self._items), kept, parts, count)
        except Exception as error:
            leaving = self._one_by_one(error)
        self._took = time.perf_counter() - began
        self._share(list(self._items))
        results: list[_Leaving] = []
        for item, value, halted in leaving:
            if isinstance(value, Exception):
                results.append((item, value))
            else:
                results.append((item, StepResult(value, item.steps, halted, item.cpu_ns / 1e9)))
            self._remove(item)
        self.busy_seconds += self._took
        if results:
            self.left += len(results)
            self._all.deliver(results)

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        """An item wider than the slots steps piece by piece, as even as can be, two rows at least in each."""
        most = max(2, self._all.slots or count)
        if count <= most or (self._kept is not None and self._kept.whole):
            return [(0, count)]
        pieces = -(-count // most)
        return [(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]

    def _look(
        self, items: list[Item], kept: Rows, parts: list[Mapping[str, Array]], count: int
    ) -> list[tuple[Item, Any, bool]]:
        """Who leaves after a step, with what: a value or an error, and whether it halted."""
        import numpy as np

        outputs = parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        rows = RowArrays({**kept.state(count), **outputs})
        flags = np.asarray(self._model.halted(rows))
        if flags.shape != (count,) or flags.dtype != bool:
            raise ModelFailed(
                f"{self._model!r}: halted must give {count} booleans for {count} rows, and gave an array of"
                f" {flags.dtype} and shape {list(flags.shape)}"
            )
        over = flags.tolist()
        bad = unfinite([*outputs.values(), *[rows[name] for name in kept.carried]], count)
        until = time.monotonic() + self._took
        leaving: list[tuple[Item, Any, bool]] = []
        for item in items:
            item.steps += 1
            own = item.rows
            halted = over[own[0]] if len(own) == 1 else any(over[row] for row in own)
            out = item.steps >= item.max_steps or (item.deadline is not None and item.deadline < until)
            if item.ended or not (halted or out or item.verify or bad is not None):
                continue
            try:
                if bad is not None and bad[own].any():
                    raise ModelFailed(f"{self._model!r}: after {item.steps} steps a number of this item is not finite")
                if not (halted or out or item.verify):
                    continue
                value = self._model.answer(rows.of(own))
                if not halted and item.verify is not None:
                    halted = bool(item.verify(value))
                if halted or out:
                    leaving.append((item, value, halted))
            except Exception as error:
                leaving.append((item, error, False))
        return leaving

    def _one_by_one(self, error: Exception) -> list[tuple[Item, Any, bool]]:
        """After a step that failed: each item alone, so that only the one whose fault it is fails."""
        live = [item for item in self._items if not item.ended]
        if len(self._items) == 1 or not live or self._kept is None:
            return [(item, self._failure(error), False) for item in live]
        leaving: list[tuple[Item, Any, bool]] = []
        for item in live:
            own, count = item.rows, len(item.rows)
            item.rows = list(range(count))
            try:
                alone = self._all.open_rows()
                alone.place(0, self._kept.take(own))
                outputs = alone.step(0, count)
                self.runs += 1
                leaving += self._look([item], alone, [outputs], count)
                for row, stepped in zip(own, item.rows, strict=True):
                    self._kept.place(row, alone.take([stepped]))
            except Exception as raised:
                leaving.append((item, self._failure(raised), False))
            finally:
                item.rows = own
        return leaving

    def _failure(self, error: BaseException) -> Exception:
        if isinstance(error, SpecialistError):
            return error
        line = str(error).partition("\n")[0] or type(error).__name__
        failed = ModelFailed(f"{self._model!r}: a step failed: {line}")
        failed.__cause__ = error
        return failed

    def _share(self, items: list[Item]) -> None:
        """Divide the CPU time since the last time among ``items``, by rows, in whole nanoseconds."""
        now = time.thread_time_ns()
        left = spent = self._spent_ns + now - self._mark_ns
        self._spent_ns, self._mark_ns = 0, now
        spread = 0
        identity: str | None = getattr(self._model, "identity", None)
        for item in items:
            spread += len(item.rows) or 1
        for item in items:
            width = len(item.rows) or 1
            share = left * width // spread  # what rounding leaves goes to those who follow
            left, spread = left - share, spread - width
            item.cpu_ns += share
            if item.meter is not None:
                item.meter.add(share / 1e9, share * self._all.threads / 1e9)
                if identity is not None:
                    item.meter.note(identity)
        with self._all.lock:
            self._all.cpu_ns += spent


def _settle(results: list[_Leaving]) -> None:
    for item, result in results:
        if item.future.done():
            continue
        if isinstance(result, Exception):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)
