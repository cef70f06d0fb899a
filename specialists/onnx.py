"""``OnnxModel``: a model file that any number of tasks, threads and event loops may call at once.

Calls wait in one queue per model and leave it in batches (:mod:`specialists.batching`); sessions are opened at the
first call, shared, and let go under a memory ceiling (:mod:`specialists.sessions`). onnxruntime and numpy are imported
when a model is first opened.

A forked child may run models, and opens its own sessions. ONNX Runtime itself starts a thread when it is imported, and
a child of a process that has it loaded may hang or abort in its destructors when it ends in the ordinary way (with
``os._exit``, as multiprocessing's do, it does not): a server that forks had better run its first model in the workers.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import workers
from .batching import Batcher, current_caller
from .calls import Batch, Call, Sizes, Statistics
from .errors import DeadlinePassed, ModelFailed, ModelRejected, Overloaded, SpecialistError
from .graph_check import check_graph
from .joining import Layout, Refused, bad_rows, join, split
from .loops import current_deadline, run_in_thread, stopping
from .metering import current_meter
from .model_files import read_model
from .sessions import (
    Session,
    enter_run,
    keep_within,
    leave_run,
    loaded_bytes,
    make_room,
    memory_of,
    open_session,
    opening,
    require_runtime,
    set_memory_limit,
    set_threads,
)
from .trials import is_apart, measure

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["OnnxModel", "loaded_bytes", "require_runtime", "set_memory_limit", "set_threads"]

BULK = 256
"""Items of one bulk call that wait in the queue at a time."""

UNTOLD = 8
"""Calls that may say nothing of whether calls can share runs, before it is taken that they cannot."""


class OnnxModel:
    """A model file, opened at its first run and shared by all callers, threads and event loops.

    Args:
        path: The ``.onnx`` file.
        sha256: What it must hash to (hex); without it, a ``specialist.toml`` beside the file is asked.
        threads: Compute threads per run, default 1.
        providers: ONNX Runtime execution providers; default CUDA if it is there, then CPU.
        queue_limit: Calls that may wait; a further one is refused with :class:`Overloaded`.
        batch: Whether calls may share a run. ``None``: it is tried on the first calls that meet, and they share runs
            only if their answers stay the same. ``True``: it is tried also for a model with loops, where all calls
            of a run then wait for the one that takes the most turns. ``False``: never.

    Raises, at the first run: :class:`MissingRuntime`, :class:`ModelRejected`; at any run: :class:`ModelFailed`,
    :class:`Overloaded`, :class:`DeadlinePassed`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sha256: str | None = None,
        threads: int | None = None,
        providers: tuple[str, ...] | None = None,
        queue_limit: int = 4096,
        batch: bool | None = None,
    ) -> None:
        self.path = Path(path)
        self._settings: dict[str, Any] = {
            "sha256": sha256, "threads": threads, "providers": providers, "queue_limit": queue_limit, "batch": batch,
        }  # fmt: skip
        self._service: _Service | None = None

    def __repr__(self) -> str:
        return f"OnnxModel({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, **self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    async def run(self, /, **inputs: Any) -> Arrays:
        """Run the graph on ``inputs``, arrays by graph input name. Returns arrays by output name.

        Calls that wait at the same time share a run where the model allows it. A cancelled caller's call leaves the
        queue; a native run is stopped when nobody waits for it any more.
        """
        service = self._service
        if service is None or service.layout is None or service.pid != os.getpid():
            service = await self._current().opened()
        loop = asyncio.get_running_loop()
        call = service.call(inputs, loop.create_future(), loop)
        service.batcher.put(call)
        try:
            return await call.future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            service.batcher.cancel(call)
            raise

    def run_sync(self, /, **inputs: Any) -> Arrays:
        """As :meth:`run`, from a thread: in this thread if a core is free for it, else in the queue."""
        service = self._opened()
        call = service.call(inputs, None, None)
        if service.batcher.enter():
            try:
                return service.run_here(call)
            finally:
                service.batcher.leave()
        answered: Future[Any] = Future()
        call.future = answered
        service.batcher.put(call)
        with stopping(lambda: service.batcher.cancel(call), answered.cancel):
            return answered.result()  # type: ignore[no-any-return]

    async def run_many(self, items: Sequence[Mapping[str, Any]], /) -> list[Arrays | SpecialistError]:
        """Run the graph on many items; each is what :meth:`run` takes. Returns, in the same order, arrays by name.

        An item that fails has its error in its place, which names it by its number; the others are answered. The queue
        is not flooded: only some of the items wait in it at a time.
        """
        service = await self._current().opened()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        found: list[Any] = [None] * len(items)
        calls: dict[Call, int] = {}
        following: Iterator[int] = iter(range(len(items)))

        def answered(call: Call) -> None:
            index = calls.pop(call)
            error = call.error
            if isinstance(error, SpecialistError):
                error.args = (f"item {index}: {error}", *error.args[1:])
            found[index] = error or call.result
            feed(1)

        def feed(count: int) -> None:
            nonlocal following
            while count and (index := next(following, None)) is not None:
                try:
                    if not isinstance(items[index], Mapping):
                        raise ModelFailed(f"{service.name}: inputs are arrays by name, not {items[index]!r:.80}")
                    call = service.call(items[index], None, loop)
                    call.deliver = answered
                    service.batcher.put(call)
                except SpecialistError as error:
                    if isinstance(error, Overloaded) and calls:
                        following = chain([index], following)  # there is room when one of the others is answered
                        break
                    error.args = (f"item {index}: {error}", *error.args[1:])
                    found[index] = error
                else:
                    calls[call] = index
                    count -= 1
            if not calls and not done.done():
                done.set_result(found)

        feed(BULK)
        try:
            return await done  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            following = iter(())
            for call in list(calls):
                service.batcher.cancel(call)
            raise

    def warm_up(self, /, **example: Any) -> Future[None]:
        """Open the model in the background, and with an ``example`` run it and find out how to batch it.

        Returns at once; the future is done when the model is warm, or has the error that stopped it.
        """
        warm: Future[None] = Future()

        def job() -> None:
            try:
                service = self._opened()
                if example:
                    call = service.call(example, None, None)
                    service.run_here(call)
                    service.try_batches(service.session(), call)
            except BaseException as error:
                warm.set_exception(error)
            else:
                warm.set_result(None)

        workers.submit(job)
        return warm

    async def swap(self, path: str | os.PathLike[str] | None = None, *, sha256: str | None = None) -> None:
        """Go on with another file, or with the same path's new content, without dropping a call.

        The new model is opened, and run once on a call that was seen, before it takes over; calls under way end on the
        old one. Raises :class:`ModelRejected` when it cannot be opened, has other inputs or outputs, or fails that
        run; then the old one stays.
        """
        target = self.path if path is None else Path(path)
        service = await self._current().opened()
        await run_in_thread(service.swap, target, sha256)
        self.path = target
        self._settings["sha256"] = sha256

    def close(self, timeout: float | None = None) -> bool:
        """Take no further calls, wait until those under way are answered, and let the session go.

        ``timeout`` in seconds; ``False``: some were not answered within it. Blocks.
        """
        service = self._current()
        drained = service.batcher.close(timeout)
        service.let_go()
        return drained

    async def aclose(self, timeout: float | None = None) -> bool:
        """:meth:`close` without blocking the event loop."""
        return await run_in_thread(self.close, timeout)

    @property
    def identity(self) -> str:
        """What runs here: the head of the file's sha256, the provider, ONNX Runtime's version. Opens the model."""
        return self._opened().session().identity

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The ONNX Runtime session; opens the model if it is not open."""
        service = self._opened()
        service.last_used = time.monotonic()
        return service.session().native

    @property
    def statistics(self) -> Statistics:
        """Runs, calls, cells and padding so far, and the CPU seconds spent."""
        return self._current().batcher.statistics

    @property
    def sizes(self) -> Sizes:
        """What was found out about batches of this model."""
        return self._current().batcher.sizes

    def _current(self) -> _Service:
        # Neither threads nor sessions survive a fork: the child has a service of its own.
        service = self._service
        if service is None or service.pid != os.getpid():
            with _making:
                service = self._service
                if service is None or service.pid != os.getpid():
                    if service is not None:
                        _inherited.append(service)
                    service = self._service = _Service(self.path, **self._settings)
        return service

    def _opened(self) -> _Service:
        service = self._current()
        if service.layout is None:
            service.session()
        return service


class _Service:
    """One model in one process: its queue and its session."""

    def __init__(
        self,
        path: Path,
        *,
        sha256: str | None,
        threads: int | None,
        providers: tuple[str, ...] | None,
        queue_limit: int,
        batch: bool | None,
    ) -> None:
        self.pid = os.getpid()
        self.path = path
        self.name = path.name
        self.sha256 = sha256
        self.threads = threads
        self.providers = providers
        self.layout: Layout | None = None
        self.batcher = Batcher(self.serve, name=path.name, queue_limit=queue_limit)
        self.batcher.sizes = Sizes(joined=False)
        self.last_used = 0.0
        self.held: Session | None = None
        self._batch = batch
        self._tried = batch is False
        self._untold = 0
        self._opening = threading.Lock()
        self._asking = threading.Lock()
        self._opener: Future[None] | None = None
        self._seen: Call | None = None

    def session(self) -> Session:
        """The open session; opens the model if it is not open, or was let go."""
        session = self.held
        if session is None:
            with self._opening:
                session = self.held
                if session is None:
                    session = self._open(self.path, self.sha256)
                    self._adopt(session)
                    keep_within(self)
        return session

    def let_go(self) -> None:
        self.batcher.steady = False  # the next call opens it again, which is nothing for an event loop's thread
        self.held = None

    async def opened(self) -> _Service:
        """This service with its model open. However many callers come first, one thread opens it, and they wait."""
        if self.layout is None:
            with self._asking:  # not the lock that is held while the model is opened: this is an event loop's thread
                opener = self._opener
                mine = opener is None or opener.done()
                if opener is None or mine:
                    opener = self._opener = Future()
            if mine:
                meter = current_meter.get()

                def job() -> None:
                    try:
                        with meter.counting() if meter else nullcontext():
                            self.session()
                    except BaseException as error:
                        opener.set_exception(error)
                    else:
                        opener.set_result(None)

                # A thread of its own: what runs, or never ends, on the workers keeps no other model from opening.
                threading.Thread(target=job, name="specialists-opening", daemon=True).start()
            await asyncio.shield(asyncio.wrap_future(opener))  # a caller that leaves does not stop the opening
        return self

    def call(self, inputs: Mapping[str, Any], future: Any, loop: asyncio.AbstractEventLoop | None) -> Call:
        """A call with checked inputs. Raises :class:`ModelFailed`."""
        layout = self.layout
        assert layout is not None
        try:
            arrays = layout.arrays(inputs)
        except Refused as problem:
            raise ModelFailed(f"{self.name}: {problem}") from None
        rows, length, shape = layout.place(arrays)
        caller, deadline, meter = current_caller.get(), current_deadline.get(), current_meter.get()
        return Call(arrays, _resolve, loop, future, rows, length, shape, caller, deadline, meter)

    def serve(self, batch: Batch) -> None:
        """Answer the calls of a batch; on a worker."""
        session = self.session()
        calls = batch.calls
        self.last_used = time.monotonic()
        if len(calls) > 1:
            if self._may_share(calls):
                self._run_joined(session, batch)
                if batch.stopped or all(call.error is None for call in calls):
                    return
                calls = [call for call in calls if call.error is not None]
            for call in calls:  # each by itself, so that only the bad one fails, and is stopped when its time is over
                own = self.batcher.alone(call)
                if own is not None:
                    call.error = None
                    self._run_one(session, call, own)
                    batch.beside += own.beside
        else:
            self._run_one(session, calls[0], batch)
        if not self._tried and self.batcher.waiting and calls[-1].error is None:
            batch.after = partial(self.try_batches, session, calls[-1])

    def run_here(self, call: Call) -> Arrays:
        """Answer one call in this thread."""
        batch = Batch([call])
        self.last_used = time.monotonic()
        meter = call.meter
        with meter.counting() if meter else nullcontext(), stopping(batch.give_up):
            cpu = time.thread_time()
            self._run_one(self.session(), call, batch)
            self.batcher.count_own(call, time.thread_time() - cpu)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[no-any-return]

    def try_batches(self, session: Session, call: Call) -> None:
        """Find out, on a real call, whether calls may share runs, and how large batches should be."""
        if self._tried or call.shape is None:
            return
        self._tried = True
        if not session.by_rows or not (session.steady or self._batch):
            return
        layout = session.layout
        options = require_runtime().RunOptions()

        # A thread's own CPU time is the same on a busy machine; what other threads or a GPU do, only the wall shows.
        clock = time.thread_time if session.threads == 1 and session.on_cpu else time.perf_counter

        def native(feeds: Arrays) -> Any:
            enter_run(options)
            try:
                return session.native.run(session.output_names, feeds, options)
            finally:
                leave_run(options)

        def outputs(arrays: Sequence[Any]) -> Any:
            return native(dict(zip(layout.names, arrays, strict=True)))

        def seconds(feeds: Arrays) -> float:
            start = clock()
            native(feeds)
            return clock() - start

        def apart(longer: bool) -> bool | None:
            try:
                return is_apart(outputs, layout, call.arguments, longer=longer)
            except Exception:  # what a model says of an input that nobody gave it is no failure of anyone's call
                return True

        together = apart(longer=False)
        filled = apart(longer=True) if together is False and layout.variable else True
        if (together is None or filled is None) and self._untold < UNTOLD:
            self._untold += 1
            self._tried = False  # another call may tell
            return
        joined, padded = together is False, filled is False
        sizes = Sizes(joined=joined, padded=padded)
        if joined:
            try:
                run_cells, max_cells = measure(seconds, layout, call.arguments, call.length)
                sizes = Sizes(joined, padded, run_cells, max_cells)
            except Exception:
                sizes = Sizes(joined=False)
        with self._opening:
            if session.digest == self.sha256:  # else it was swapped for another meanwhile
                self.batcher.sizes = sizes

    def _may_share(self, calls: Sequence[Call]) -> bool:
        """Whether these calls may share a run still: the model may have been swapped since they were put together."""
        sizes = self.batcher.sizes
        return sizes.joined and (sizes.padded or len({call.shape for call in calls}) == 1)

    def swap(self, path: Path, sha256: str | None) -> None:
        session = self._open(path, sha256)
        layout, old = session.layout, self.layout
        assert old is not None
        if (layout.inputs, layout.outputs) != (old.inputs, old.outputs):
            raise ModelRejected(f"{str(path)!r} has other inputs or outputs than {self.name}; open it as another model")
        seen = self._seen
        if seen is not None:
            trial = Call(seen.arguments, _resolve, None, None, seen.rows, seen.length, seen.shape)
            self._run_one(session, trial, Batch([trial]))
            if trial.error is not None:
                raise ModelRejected(f"{str(path)!r} fails where {self.name} did not: {trial.error}")
        with self._opening:
            self.path, self.name, self.sha256 = path, path.name, session.digest
            self.batcher.name = path.name
            if session.digest != (self.held.digest if self.held else None):
                self._tried, self._untold = self._batch is False, 0
                self.batcher.sizes = Sizes(joined=False)
            self._adopt(session)

    def _open(self, path: Path, sha256: str | None) -> Session:
        with opening(repr(str(path))):
            require_runtime()
            data = read_model(path, sha256=sha256)
            check_graph(data, name=repr(str(path)))
            digest = hashlib.sha256(data).hexdigest()
            make_room(self, memory_of(data), repr(str(path)), digest)
            return open_session(data, digest, name=repr(str(path)), threads=self.threads, providers=self.providers)

    def _adopt(self, session: Session) -> None:
        self.layout = session.layout
        self.sha256 = session.digest  # let go and opened again, it must be the same file
        self.batcher.steady = session.steady
        self.last_used = time.monotonic()
        self.held = session

    def _run_one(self, session: Session, call: Call, batch: Batch) -> None:
        layout = session.layout
        try:
            values = self._native(session, dict(zip(layout.names, call.arguments, strict=True)), batch)
            self._check(layout, values)
        except (ModelFailed, DeadlinePassed) as error:
            call.error = error
            return
        call.result = dict(zip(session.output_names, values, strict=True))
        if call.meter is not None:
            call.meter.note(session.identity)
        if self._seen is None:
            self._seen = call

    def _run_joined(self, session: Session, batch: Batch) -> None:
        layout, calls = session.layout, batch.calls
        arguments = [call.arguments for call in calls]
        try:
            values = self._native(session, join(layout, arguments), batch)
            rows = sum([call.rows for call in calls])
            if any(value.shape[0] != rows for value in values):
                raise ModelFailed(f"{self.name}: its outputs do not have a row for each row that went in")
            bad = bad_rows(values)
            self._check(layout, values, finite=False)
        except Exception as error:
            for call in calls:
                call.error = error
            return
        row = 0
        for call, result in zip(calls, split(layout, arguments, values), strict=True):
            if bad is not None and bad[row : row + call.rows].any():
                call.error = ModelFailed(f"{self.name}: not finite")  # asked again by itself, which names the output
            else:
                call.result = result
                if call.meter is not None:
                    call.meter.note(session.identity)
            row += call.rows

    def _native(self, session: Session, feeds: Arrays, batch: Batch) -> list[Any]:
        options = session.run_options()
        batch.options = options
        if batch.stopped:
            options.terminate = True
        several = session.threads > 1
        if several:
            wall, cpu = time.perf_counter(), time.thread_time()
        enter_run(options)
        try:
            return session.native.run(session.output_names, feeds, options)  # type: ignore[no-any-return]
        except Exception as error:
            if batch.stopped:
                raise DeadlinePassed(f"{self.name}: the run was stopped, for nobody waited for it any more") from None
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ModelFailed(f"{self.name}: the run failed: {why}") from None
        finally:
            leave_run(options)
            if several:
                own = time.thread_time() - cpu  # what the other threads did, nobody can tell
                batch.beside += max(0.0, (time.perf_counter() - wall) * session.threads - own)

    def _check(self, layout: Layout, values: Sequence[Any], *, finite: bool = True) -> None:
        try:
            layout.check_outputs(values, finite=finite)
        except Refused as problem:
            raise ModelFailed(f"{self.name}: {problem}") from None


def _resolve(call: Call) -> None:
    future = call.future
    if not future.done():
        if call.error is not None:
            future.set_exception(call.error)
        else:
            future.set_result(call.result)


_making = threading.Lock()
_inherited: list[_Service] = []
"""A parent's services: closing a session in a child waits for threads that the child does not have."""


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
