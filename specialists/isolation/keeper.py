"""Keeps one child for one model: starts it when it is needed, again when it died, and tells each call how it ended.

One thread does all of that, so calls from any thread and loop wait in one queue. It knows nothing of files.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import math
import os
import select
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..errors import (
    DeadlinePassed,
    MissingRuntime,
    ModelFailed,
    ModelRejected,
    Overloaded,
    Quarantined,
    SpecialistError,
    UntrustedFolder,
    WorkerDied,
)
from ..joining import Entry, Layout, Refused
from ..metering import CpuMeter
from ..runtime import identity_of
from .process import Child, Died, Interrupted, TooLate
from .protocol import MOST_DIMENSIONS, TYPES, Nonsense, read_arrays, tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Call", "Keeper", "Limits"]

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a child is started again: doubled with each death that no answer came between."""
DEATHS = 2
"""After so many an input is not tried again."""
REMEMBERED = 1024
"""Inputs that children died of, at most; the oldest is forgotten."""
OPENING_SECONDS = 60.0
MOST_ENTRIES, MOST_NAME = 10_000, 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory``: bytes for the model and its work. ``timeout``: seconds for a run. ``queue``: calls that may wait."""

    memory: int
    timeout: float
    queue: int


@dataclass(eq=False)
class Call:
    """One run that somebody waits for. ``deadline``: on :func:`time.monotonic`."""

    inputs: Mapping[str, Any]
    deadline: float | None = None
    meter: CpuMeter | None = None
    future: Future[dict[str, NDArray[Any]]] = field(default_factory=Future)

    def finish(self, result: dict[str, NDArray[Any]] | None, error: BaseException | None) -> None:
        """Tell whoever waits; one who gave up meanwhile is not disturbed."""
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                assert result is not None
                self.future.set_result(result)


class Keeper:
    """``read``: gives the checked bytes of the model. ``name``: how messages name it."""

    def __init__(self, name: str, read: Callable[[], bytes], limits: Limits) -> None:
        self.name = name
        self.pid = os.getpid()
        self.starts = 0
        self._identity = ""
        """How many children were started."""
        self._read = read
        self._limits = limits
        self._lock = threading.RLock()  # a model may be forgotten, and closed, wherever memory is tidied up
        self._waiting: deque[Call] = deque()
        self._current: Call | None = None
        self._closing = False
        self._thread: threading.Thread | None = None
        self._wake_in, self._wake = -1, -1
        self._child: Child | None = None
        self._layout: Layout | None = None
        self._fresh = False
        self._deaths: OrderedDict[bytes, int] = OrderedDict()
        self._in_a_row = 0
        self._not_before = 0.0
        self._seconds = 0.0
        _keepers.add(self)

    @property
    def child_pid(self) -> int | None:
        """The child's process id while there is one."""
        child = self._child
        return None if child is None else child.pid

    def submit(self, call: Call) -> None:
        """Put a call into the queue. Raises :class:`Overloaded`."""
        with self._lock:
            if self._closing:
                raise ModelFailed(f"{self.name} is closed; open the model anew")
            if len(self._waiting) >= self._limits.queue:
                self._waiting = deque(each for each in self._waiting if not each.future.done())
            if len(self._waiting) >= self._limits.queue:
                wait = self._seconds * len(self._waiting) if self._seconds else None
                told = "" if wait is None else f", about {wait:.2g} s of work"
                raise Overloaded(
                    f"{self.name}: {len(self._waiting)} calls wait already{told}; ask again later", wait=wait
                )
            self._waiting.append(call)
            if self._thread is None:
                self._wake, self._wake_in = os.pipe()
                os.set_blocking(self._wake, False)
                os.set_blocking(self._wake_in, False)
                self._thread = threading.Thread(target=self._work, name="specialists-isolation", daemon=True)
                self._thread.start()
        call.future.add_done_callback(lambda future: self._nudge() if future.cancelled() else None)
        self._nudge()

    def close(self, *, wait: bool = True) -> None:
        """End the child, and fail what waits. It cannot be used again."""
        with self._lock:
            self._closing = True
            thread = self._thread
        self._nudge()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(10.0)

    def forget(self) -> None:
        """After a fork: the child is the parent's own, and so is everything else here."""
        self._closing = True
        if self._child is not None:
            self._child.disown()
        for descriptor in (self._wake, self._wake_in):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    # Below, only the keeper's own thread.

    def _nudge(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full pipe wakes as well
            if self._wake_in >= 0:
                os.write(self._wake_in, b".")

    def _work(self) -> None:
        try:
            while (call := self._next()) is not None:
                self._current = call
                start = time.monotonic()
                try:
                    result, error = self._answer(call), None
                except SpecialistError as problem:
                    result, error = None, problem
                except _GivenUp:
                    result, error = None, ModelFailed(f"{self.name} was closed")
                except BaseException as problem:
                    result, error = None, ModelFailed(f"{self.name}: {type(problem).__name__}: {problem}")
                    self._end()
                self._current = None
                self._seconds = time.monotonic() - start
                call.finish(result, error)
                del call, result, error
        finally:
            self._end()
            with self._lock:
                self._closing = True
                left, self._waiting = list(self._waiting), deque()
                os.close(self._wake)
                os.close(self._wake_in)
                self._wake = self._wake_in = -1
            for call in left:
                call.finish(None, ModelFailed(f"{self.name} was closed"))

    def _next(self) -> Call | None:
        """The next call that somebody still waits for; ``None`` when it is closed. Meanwhile the child is watched."""
        while True:
            with self._lock:
                if self._closing:
                    return None
                call = self._waiting.popleft() if self._waiting else None
            if call is None:
                self._rest(None)
            elif not call.future.done():
                return call

    def _rest(self, until: float | None) -> None:
        """Wait for a nudge, for ``until``, or for the end of a child that has nothing to do."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._child is not None:
            poll.register(self._child.output, select.POLLIN)
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1
        ready = dict(poll.poll(left))
        if self._wake in ready:
            self._drain()
        if self._child is not None and self._child.output in ready:  # nobody asked it anything: it died
            self._end()
            self._pause()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake, 4096)) == 4096:
                pass

    def _interrupted(self) -> bool:
        self._drain()
        return self._closing or (self._current is not None and self._current.future.cancelled())

    def _answer(self, call: Call) -> dict[str, NDArray[Any]]:
        key = b""
        while True:
            start = time.monotonic()
            try:
                with call.meter.counting() if call.meter else contextlib.nullcontext():
                    child, layout = self._opened(call)
                    arrays = self._arrays(layout, call.inputs)
                    key = key or _digest(layout, arrays)
                    if self._deaths.get(key, 0) >= DEATHS:
                        raise Quarantined(
                            f"{self.name}: {DEATHS} child processes died of this input, and it is not tried again"
                        )
                    values = self._run(child, layout, arrays, call)
                    if call.meter is not None:
                        call.meter.note(self._identity)
            except Died as death:
                self._end(call, start)
                self._pause()
                if not key:
                    raise WorkerDied(f"{self.name}: its child process {death} while it opened the model") from None
                deaths = self._died_of(key)
                if deaths < DEATHS and not self._is_late(call, self._not_before):
                    continue  # a run has no effects, and another's fault may have ended the child
                told = "; it is the second, so this input is not tried again" if deaths >= DEATHS else ""
                raise WorkerDied(f"{self.name}: its child process {death} during the run{told}") from None
            except Nonsense as problem:
                self._end(call, start)
                self._pause()
                raise WorkerDied(f"{self.name}: its child process was ended, for it sent {problem}") from None
            except TooLate:
                self._end(call, start)
                if not self._is_late(call, time.monotonic()):  # it had all the time that it may take
                    self._pause()
                    if key:
                        self._died_of(key)
                if not key:
                    raise DeadlinePassed(f"{self.name}: the model was not open in time") from None
                limit = self._limits.timeout
                raise DeadlinePassed(
                    f"{self.name}: no answer in time (a run may take {limit:g} s); its child process was ended"
                ) from None
            except Interrupted:
                self._end(call, start)
                raise _GivenUp from None
            self._count(call, start)
            self._in_a_row = 0
            self._deaths.pop(key, None)
            return self._checked(layout, values)

    def _opened(self, call: Call) -> tuple[Child, Layout]:
        while self._child is None and (wait := self._not_before - time.monotonic()) > 0:
            if self._is_late(call, self._not_before):
                raise WorkerDied(f"{self.name}: its child process died, and is started again in {wait:.2g} s")
            self._rest(self._not_before)
            if self._interrupted():
                raise Interrupted
        if self._child is not None and self._layout is not None:
            return self._child, self._layout
        if self._is_late(call, time.monotonic()):
            raise DeadlinePassed(f"{self.name}: the time was over before the run began")
        data = self._read()
        self._identity = identity_of(hashlib.sha256(data).hexdigest(), "CPUExecutionProvider")
        self.starts += 1
        try:
            self._child = child = Child(self._wake, self._interrupted)
        except OSError as error:
            raise WorkerDied(f"{self.name}: no child process can be started: {error.strerror}") from None
        settings = {
            "path": [entry for entry in sys.path if os.path.isabs(entry)],
            "memory": self._limits.memory,
            "seconds": OPENING_SECONDS,
        }
        deadline = time.monotonic() + OPENING_SECONDS
        if call.deadline is not None:
            deadline = min(deadline, call.deadline)
        answer, _ = child.ask(settings, [data], deadline=deadline, most=0)
        try:
            self._layout = layout = self._described(answer)
        except SpecialistError:
            self._end(call, time.monotonic())
            raise
        return child, layout

    def _described(self, answer: dict[str, Any]) -> Layout:
        if answer.get("unlimited"):
            raise UntrustedFolder(
                f"{self.name} is not trusted and would run in a child process, whose memory this system does not limit;"
                " look at the folder, then pass trust=True (--trust on the command line)"
            )
        if "failed" in answer:
            raise MissingRuntime(
                f"{self.name}: {_plain(answer['failed'])}; specialists need ONNX Runtime:"
                " pip install 'brain-specialists[cpu]'"
            )
        if "rejected" in answer:
            raise ModelRejected(f"{self.name} is not a model that ONNX Runtime can open: {_plain(answer['rejected'])}")
        return Layout(self._entries(answer.get("inputs")), self._entries(answer.get("outputs")))

    def _entries(self, told: Any) -> list[Entry]:
        import numpy as np

        if not isinstance(told, list) or len(told) > MOST_ENTRIES:
            raise Nonsense("no description of the model")
        entries = []
        for entry in told:
            if not isinstance(entry, list) or len(entry) != 3 or not all(isinstance(part, str) for part in entry[:2]):
                raise Nonsense("no description of the model")
            name, kind, shape = entry
            if len(name) > MOST_NAME or not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
                raise Nonsense("no description of the model")
            if not all(size is None or isinstance(size, str) or type(size) is int for size in shape):
                raise Nonsense("no description of the model")
            if kind not in TYPES:
                raise ModelRejected(
                    f"{self.name}: {name[:64]!r} is of the type {_plain(kind)}, and only arrays of numbers are handed"
                    " to a child process"
                )
            entries.append(Entry(name, np.dtype(TYPES[kind]), tuple(shape)))
        if len({entry.name for entry in entries}) != len(entries):
            raise Nonsense("no description of the model")
        return entries

    def _arrays(self, layout: Layout, inputs: Mapping[str, Any]) -> list[NDArray[Any]]:
        import numpy as np

        try:
            arrays = [np.asarray(array, order="C") for array in layout.arrays(inputs)]
        except Refused as problem:
            raise ModelFailed(f"{self.name}: {problem}") from None
        size = sum(array.nbytes for array in arrays)
        if size > self._limits.memory:
            raise ModelFailed(f"{self.name}: inputs of {size:,} bytes are more than the child may have memory")
        return arrays

    def _run(self, child: Child, layout: Layout, arrays: list[NDArray[Any]], call: Call) -> list[NDArray[Any]]:
        deadline = time.monotonic() + self._limits.timeout
        if call.deadline is not None:
            deadline = min(deadline, call.deadline)
        header = {"arrays": tell(layout.names, arrays), "seconds": math.ceil(self._limits.timeout)}
        answer, body = child.ask(header, arrays, deadline=deadline, most=self._limits.memory)
        if "failed" in answer:
            self._count(call, time.monotonic() - self._limits.timeout)
            raise ModelFailed(f"{self.name}: the run failed: {_plain(answer['failed'])}")
        return read_arrays(answer.get("arrays"), body, [entry.name for entry in layout.outputs])

    def _checked(self, layout: Layout, values: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for entry, value in zip(layout.outputs, values, strict=True):
            if value.dtype != entry.dtype:
                raise ModelFailed(f"{self.name}: its output {entry.name!r} is {value.dtype}, not {entry.dtype}")
        try:
            layout.check_outputs(values)
        except Refused as problem:
            raise ModelFailed(f"{self.name}: {problem}") from None
        return {entry.name: value for entry, value in zip(layout.outputs, values, strict=True)}

    def _is_late(self, call: Call, moment: float) -> bool:
        return call.deadline is not None and moment >= call.deadline

    def _died_of(self, key: bytes) -> int:
        deaths = self._deaths[key] = self._deaths.pop(key, 0) + 1
        if len(self._deaths) > REMEMBERED:
            self._deaths.popitem(last=False)
        return deaths

    def _pause(self) -> None:
        """The child died: the next one has to wait, the longer the more of them died in a row."""
        self._not_before = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._in_a_row)
        self._in_a_row = min(self._in_a_row + 1, 16)

    def _end(self, call: Call | None = None, start: float = 0.0) -> None:
        child, self._child, self._layout = self._child, None, None
        if child is not None:
            if call is not None:
                self._count(call, start, child)
            child.end()

    def _count(self, call: Call, start: float, child: Child | None = None) -> None:
        """Add the child's CPU time to the call's meter, by the kernel's clock; what the child says is not asked."""
        child = child or self._child
        if child is None:
            return
        spent = child.cpu_seconds()  # asked in any case: the next call does not pay for this one
        if call.meter is None:
            return
        if spent is None:
            call.meter.add(0.0, max(0.0, time.monotonic() - start))
        else:
            call.meter.add(spent)


class _GivenUp(Exception):
    """Nobody waits for this call any more."""


def _digest(layout: Layout, arrays: list[NDArray[Any]]) -> bytes:
    digest = hashlib.sha256()
    for name, array in zip(layout.names, arrays, strict=True):
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _plain(text: Any) -> str:
    """What a child said, as a harmless part of a line."""
    words = "".join(sign if sign.isprintable() else " " for sign in str(text)[:300])
    return " ".join(words.split())


_keepers: WeakSet[Keeper] = WeakSet()


def _at_exit() -> None:
    keepers = list(_keepers)
    for keeper in keepers:
        if keeper.pid == os.getpid():
            keeper.close(wait=False)
    for keeper in keepers:
        if keeper.pid == os.getpid():
            keeper.close()


def _after_fork() -> None:
    for keeper in list(_keepers):
        keeper.forget()
    _keepers.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
