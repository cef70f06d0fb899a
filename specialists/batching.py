"""Calls of many callers become few runs of one model, without a timer and without a thread per caller.

Calls wait in one bounded queue. A worker that frees up takes the oldest call of the caller whose turn it is, and with
it those waiting calls that are cheapest to run beside it: a run costs a fixed part and a part for every cell, and a
call that is shorter than its batch is filled up with cells that nobody needs. So neighbours in length go together, and
a lone call waits for nobody.

This module knows neither arrays nor ONNX Runtime: it is handed a function that serves a list of calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from itertools import count as counter

from . import workers
from .calls import Batch, Call, Sizes, Statistics
from .errors import DeadlinePassed, ModelFailed, Overloaded

__all__ = ["Batcher", "current_caller"]

logger = logging.getLogger("specialists")

current_caller: ContextVar[Hashable] = ContextVar("specialists_caller", default=None)
"""For whom calls are made; callers take turns at the head of the queue. A brain sets it to the tenant or the run."""

SMOOTHING = 0.2
LONG_SECONDS = 0.02
"""Runs that take longer go to the workers for long jobs."""

SHORT_SECONDS = 0.0005
"""A run that is known to be shorter is made on the event loop's own thread, if it is the only one: to wake a worker and
be woken by it takes longer, and a loop can spare that much."""


class _Shelf:
    """The waiting calls of one shape, oldest first; those taken out of turn stay in the deque, marked.

    ``entry`` is where it stands among the others: its length, a number that is its own, and itself.
    """

    __slots__ = ("calls", "entry", "length", "rows", "shape")

    def __init__(self, shape: Hashable, length: int, number: int) -> None:
        self.shape = shape
        self.length = length
        self.entry = (length, number, self)
        self.calls: deque[Call] = deque()
        self.rows = 0


class Batcher:
    """The queue of one model, and the workers that empty it. Safe from any thread and event loop.

    Args:
        serve: Runs one batch: sets ``result`` or ``error`` of each of its calls, and ``batch.options``.
        name: The model, as messages name it.
        queue_limit: Calls that may wait; a further one is refused with :class:`Overloaded`.
        width: Runs at a time; by default as many as cores that this process may use.
    """

    def __init__(
        self, serve: Callable[[Batch], None], *, name: str, queue_limit: int = 4096, width: int | None = None
    ) -> None:
        self.name = name
        self.sizes = Sizes()
        self.steady = False
        """Whether how long a run takes depends on its cells alone, so that it can be foretold."""
        self._serve = serve
        self._limit = queue_limit
        self._width = width or workers.usable_cores()
        self._lock = threading.Lock()
        self._turns: dict[Hashable, deque[Call]] = {}
        """The waiting calls of each caller; the caller whose turn it is stands first."""
        self._shelves: dict[Hashable, _Shelf] = {}
        self._sorted: list[tuple[int, int, _Shelf]] = []
        self._numbers = counter()
        self._waiting = 0
        self._waiting_rows = 0
        self._waiting_cells = 0
        self._workers = 0
        self._running = 0
        self._kicked: set[asyncio.AbstractEventLoop | None] = set()
        self._closed = False
        self._empty = threading.Condition(self._lock)
        self._cell_seconds: float | None = None
        self._run_seconds = 0.0
        self._long = False
        self._counted = Statistics()

    @property
    def statistics(self) -> Statistics:
        """What was done so far: a copy."""
        with self._lock:
            return replace(self._counted)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._waiting

    def put(self, call: Call) -> None:
        """Let ``call`` wait for its turn. Raises :class:`Overloaded`, or :class:`ModelFailed` after :meth:`close`."""
        with self._lock:
            self._admit(1)
            self._add(call)
            kick = self._workers < self._width and call.loop not in self._kicked
            if kick:
                self._kicked.add(call.loop)
        if kick:
            # Whoever else is ready in this turn of the loop comes along; then the workers are called.
            if call.loop is not None:
                call.loop.call_soon(self._kick, call.loop)
            else:
                self._kick()

    def put_many(self, calls: Iterable[Call]) -> None:
        """:meth:`put` for calls that come together; either all are taken or none."""
        calls = list(calls)
        with self._lock:
            self._admit(len(calls))
            for call in calls:
                self._add(call)
        self._kick()

    def cancel(self, call: Call) -> None:
        """Take ``call`` out: before its run if it still waits, else from its batch. Nothing is delivered for it."""
        stop = None
        with self._lock:
            if call.deliver is _nobody:
                return
            if call.waiting:
                self._remove(call)
            elif call.batch is not None:
                if call.meter is not None:  # what the run has cost so far is not known before it ends
                    call.bound = time.perf_counter() - call.batch.start
                    call.meter.add(0.0, call.bound)
                call.batch.live -= 1
                if not call.batch.live:
                    stop = call.batch.give_up
                call.batch = None
            call.deliver = _nobody
            call.loop = None  # in this order: whoever sees no loop delivers to nobody
            self._counted.cancelled += 1
            if self._closed and not self._waiting and not self._running:
                self._empty.notify_all()
        if stop is not None:
            stop()

    def alone(self, call: Call) -> Batch | None:
        """A batch of its own for a call that goes on without its neighbours; ``None`` if it was given up meanwhile."""
        with self._lock:
            if call.batch is None:
                return None
            own = Batch([call])
            own.start = call.batch.start
            call.batch = own
            return own

    def enter(self) -> bool:
        """Whether the caller's own thread may run the model now: a place is free and nobody waits. Then :meth:`leave`.

        Raises :class:`ModelFailed` after :meth:`close`.
        """
        with self._lock:
            self._admit(0)
            if self._waiting or self._running >= self._width:
                return False
            self._running += 1
            return True

    def leave(self) -> None:
        """The place that :meth:`enter` gave is free again."""
        with self._lock:
            self._running -= 1
            if not self._waiting and not self._running:
                self._empty.notify_all()
            kick = self._waiting > 0
        if kick:
            self._kick()

    def count_own(self, call: Call, cpu_seconds: float) -> None:
        """Count a run that the caller's own thread made."""
        with self._lock:
            self._counted.add(1, call.rows * call.length, 0, cpu_seconds)

    def close(self, timeout: float | None = None) -> bool:
        """Take no further calls and wait until those that wait or run are answered. ``False``: not within ``timeout``.

        ``timeout`` is in seconds. Blocks; not for an event loop's thread.
        """
        with self._lock:
            self._closed = True
        self._kick()  # the loop that was to call the workers may be gone
        with self._empty:
            return self._empty.wait_for(lambda: not self._waiting and not self._running, timeout)

    def expected_wait(self) -> float | None:
        """Seconds a new call would wait, from the speed so far; ``None`` before the first run."""
        if self._cell_seconds is None:
            return None
        return self._waiting_cells * self._cell_seconds / self._width

    # From here on, what is called with the lock held says so.

    def _admit(self, count: int) -> None:  # locked
        if self._closed:
            raise ModelFailed(f"{self.name} was closed and takes no further calls; open the model anew")
        if self._waiting + count > self._limit:
            self._counted.refused += count
            wait = self.expected_wait()
            about = "" if wait is None else f", and a further one would wait about {wait:.2g} s"
            raise Overloaded(f"{self.name}: {self._waiting} calls wait already{about}; come back later", wait=wait)

    def _add(self, call: Call) -> None:  # locked
        call.waiting = True
        turn = self._turns.get(call.caller)
        if turn is None:
            turn = self._turns[call.caller] = deque()
        turn.append(call)
        shelf = self._shelves.get(call.shape)
        if shelf is None:
            shelf = self._shelves[call.shape] = _Shelf(call.shape, call.length, next(self._numbers))
            if call.shape is not None:  # a call that runs by itself is nobody's neighbour
                insort(self._sorted, shelf.entry)
        shelf.calls.append(call)
        shelf.rows += call.rows
        call.place = shelf
        self._waiting += 1
        self._waiting_rows += call.rows
        self._waiting_cells += call.rows * call.length

    def _remove(self, call: Call) -> None:  # locked
        call.waiting = False
        shelf = call.place
        assert shelf is not None
        call.place = None
        shelf.rows -= call.rows
        waiting = shelf.calls
        while waiting and not waiting[0].waiting:  # what was taken out of turn is not kept
            waiting.popleft()
        if not waiting:
            del self._shelves[shelf.shape]
            if shelf.shape is not None:
                del self._sorted[bisect_left(self._sorted, shelf.entry)]
        self._waiting -= 1
        self._waiting_rows -= call.rows
        self._waiting_cells -= call.rows * call.length

    def _kick(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Call as many workers as there are calls and room for."""
        with self._lock:
            self._kicked.discard(loop)
            lone = self._lone(loop)
            if lone is not None:
                self._running += 1
                lone.batch = Batch([lone])
        if lone is not None and lone.batch is not None:
            self._run(lone.batch, _hand_out)
            return
        with self._lock:
            more = min(self._width - self._workers, self._waiting)
            self._workers += more
        for _ in range(more):
            workers.submit(self._work, long=self._long)

    def _lone(self, loop: asyncio.AbstractEventLoop | None) -> Call | None:  # locked
        """The only call there is, if it is this loop's and short."""
        if not self.steady or self._waiting != 1 or self._running or self._workers or self._cell_seconds is None:
            return None
        if loop is None or self._waiting_cells * self._cell_seconds > SHORT_SECONDS:
            return None
        lone = next((call for turn in self._turns.values() for call in turn if call.waiting), None)
        if lone is None or lone.loop is not loop:
            return None
        self._turns.clear()
        self._remove(lone)
        return lone

    def _work(self) -> None:
        mine = self._long
        while True:
            expired: list[Call] = []
            with self._lock:
                calls = self._take(expired)
                if calls:
                    self._running += 1
                    batch = Batch(calls)
                    for call in calls:
                        call.batch = batch
                else:
                    self._workers -= 1
                    if not self._waiting and not self._running:
                        self._empty.notify_all()
            if expired:
                _deliver(expired)
            if not calls:
                return
            self._run(batch, _deliver)
            if batch.after is not None:
                try:
                    batch.after()
                except Exception:
                    logger.exception("%s: what was to be done after a batch failed", self.name)
            long = self._long = self._run_seconds > LONG_SECONDS
            if long is not mine or workers.others_wait(long=long):
                workers.submit(self._work, long=long)  # other models take their turn
                return

    def _run(self, batch: Batch, deliver: Callable[[list[Call]], None]) -> None:
        calls = batch.calls
        cpu = time.thread_time()
        try:
            self._serve(batch)
        except BaseException as error:
            logger.exception("%s: a batch could not be served", self.name)
            if not isinstance(error, Exception):
                error = ModelFailed(f"{self.name}: {error!r}")
            for call in calls:
                if call.result is None and call.error is None:
                    call.error = _copy(error)
        spent = time.thread_time() - cpu
        longest = rows = cells = 0
        paid = False
        for call in calls:
            rows += call.rows
            cells += call.rows * call.length
            if call.length > longest:
                longest = call.length
            if call.meter is not None:
                paid = True
        if paid:
            _charge(calls, rows, spent, batch.beside)
        took = time.perf_counter() - batch.start
        seconds = took / (rows * longest)
        before = self._cell_seconds
        with self._lock:
            self._running -= 1
            self._run_seconds += SMOOTHING * (took - self._run_seconds)
            self._cell_seconds = seconds if before is None else before + SMOOTHING * (seconds - before)
            self._counted.add(len(calls), cells, rows * longest - cells, spent)
            if self._closed and not self._waiting and not self._running:
                self._empty.notify_all()
        deliver(calls)

    def _take(self, expired: list[Call]) -> list[Call]:  # locked
        """The next batch; empty when nothing waits."""
        head = self._head(expired)
        if head is None:
            return []
        shelf = head.place
        assert shelf is not None
        sizes = self.sizes
        # What waits is shared out among the workers that are free: two calls on two idle cores are two runs.
        free = max(1, self._width - self._running)
        rows = -(-self._waiting_rows // free)
        if not sizes.joined or rows <= head.rows or shelf.shape is None:
            self._remove(head)
            return [head]
        if sizes.padded:
            top, bottom, rows = self._window(head, shelf, rows)
        else:
            top = bottom = bisect_left(self._sorted, shelf.entry)
            rows = min(rows, max(1, int(sizes.max_cells // shelf.length)))
        shelves = self._sorted[bottom : top + 1]
        self._remove(head)
        taken = [head]
        rows -= head.rows
        now = None
        for _, _, each in reversed(shelves):
            calls = each.calls
            while rows > 0 and calls:
                call = calls[0]
                if call.waiting and call.rows > rows:
                    break
                calls.popleft()
                if not call.waiting:
                    continue
                self._remove(call)
                if call.deadline is not None:
                    now = now or time.monotonic()
                    if now >= call.deadline:
                        self._expire(call, expired)
                        continue
                taken.append(call)
                rows -= call.rows
        return taken

    def _head(self, expired: list[Call]) -> Call | None:  # locked
        """The oldest waiting call of the caller whose turn it is."""
        while self._turns:
            caller = next(iter(self._turns))
            turn = self._turns[caller]
            call = turn.popleft()
            live = call.waiting
            if live and call.deadline is not None and time.monotonic() >= call.deadline:
                self._remove(call)
                self._expire(call, expired)
                live = False
            if not turn:
                del self._turns[caller]
            elif live and len(self._turns) > 1:  # a call that is gone is no turn
                del self._turns[caller]
                self._turns[caller] = turn  # to the end: the others come first
            if live:
                return call
        return None

    def _expire(self, call: Call, expired: list[Call]) -> None:  # locked
        call.error = DeadlinePassed(f"{self.name}: the time was over while the call waited for its turn")
        expired.append(call)
        self._counted.expired += 1

    def _window(self, head: Call, shelf: _Shelf, limit: int) -> tuple[int, int, int]:  # locked
        """Which shelves go into the head's batch, from the longest down to the shortest, and how many rows.

        The batch grows from the head to the neighbour, longer or shorter, that gives more useful cells for what the
        run costs, as long as one does: the same rule says when a batch is better smaller.
        """
        shelves, fixed, most = self._sorted, self.sizes.run_cells, self.sizes.max_cells
        top = bottom = bisect_left(shelves, shelf.entry)
        last = len(shelves) - 1
        longest = head.length
        rows = min(shelf.rows, limit, max(head.rows, int(most // longest)))
        useful = rows * longest
        score = useful / (fixed + useful)
        while rows < limit and longest * rows < most:
            up = down = -1.0
            if top < last:
                length, _, each = shelves[top + 1]
                more_up = min(each.rows, limit - rows, int(most // length) - rows)
                if more_up > 0:
                    up = (useful + more_up * length) / (fixed + length * (rows + more_up))
            if bottom:
                length, _, each = shelves[bottom - 1]
                more_down = min(each.rows, limit - rows, int(most // longest) - rows)
                if more_down > 0:
                    down = (useful + more_down * length) / (fixed + longest * (rows + more_down))
            if up > down and up > score:
                top, score, rows = top + 1, up, rows + more_up
                longest = shelves[top][0]
                useful += more_up * longest
            elif down > score:
                bottom, score, rows = bottom - 1, down, rows + more_down
                useful += more_down * shelves[bottom][0]
            else:
                break
        return top, bottom, rows


def _charge(calls: list[Call], rows: int, spent: float, beside: float) -> None:
    """Divide a run's CPU seconds among its calls by rows. The last one gets what is left, so that the shares add up."""
    left = spent
    for call in calls:
        share = left if call is calls[-1] else spent * call.rows / rows
        left -= share
        if call.meter is not None:
            call.meter.add(share, max(0.0, share + beside * call.rows / rows - call.bound))


def _deliver(calls: list[Call]) -> None:
    """Hand the answers out: one wake-up for each event loop."""
    loop = calls[0].loop
    if len(calls) == 1 or all(call.loop is loop for call in calls):
        groups = {loop: calls}
    else:
        groups = {}
        for call in calls:
            groups.setdefault(call.loop, []).append(call)
    for loop, group in groups.items():
        if loop is None:
            _hand_out(group)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits there any more
                loop.call_soon_threadsafe(_hand_out, group)


def _hand_out(calls: list[Call]) -> None:
    for call in calls:
        try:
            call.deliver(call)
        except Exception:  # one caller's trouble is not its neighbours'
            logger.exception("an answer could not be delivered")


def _copy(error: BaseException) -> BaseException:
    """Each call has an error of its own: who gets it may write into it."""
    try:
        return copy(error)
    except Exception:
        return error


def _nobody(call: Call) -> None:
    """For a call that was given up."""
