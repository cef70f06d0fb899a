"""One thread that does what it is handed, in order, and all that waits at once.

After a fork the child's worker begins with nothing. This module knows nothing of SQLite.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..errors import LedgerError

__all__ = ["Promise", "Task", "Worker"]

T = TypeVar("T")

IDLE = 30.0
"""Seconds after which a thread that has nothing to do ends; the next task starts another."""

MOST = 256
"""How many tasks go together at most."""


class Promise(Future[T]):
    """A future that cannot be cancelled: what was handed over is done."""

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()

    def abandon(self) -> None:
        """In a forked child: the parent does it, and nobody here will ever hear of it."""
        self._condition = threading.Condition()  # a thread that is not here may have held the old one
        if not self.done():
            self.set_exception(LedgerError("the process that began this write was forked: ask that process"))


class Task(Generic[T]):
    """A piece of work and its promise, kept together with how it ended until it may be told."""

    __slots__ = ("error", "promise", "value", "work")

    def __init__(self, work: Callable[..., T]) -> None:
        self.work = work
        self.promise: Promise[T] = Promise()
        self.value: T | None = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        """Keep the promise."""
        if isinstance(self.error, StopIteration):  # asyncio cannot raise it, and its future would never be done
            self.promise.set_exception(RuntimeError(f"a work raised {self.error!r}"))
        elif self.error is not None:
            self.promise.set_exception(self.error)
        else:
            self.promise.set_result(self.value)  # type: ignore[arg-type]


class Worker:
    """Calls ``handle`` with what waits, on a thread of its own. ``handle`` must not raise and tells every task."""

    def __init__(self, name: str, handle: Callable[[list[Task[Any]]], None]) -> None:
        self._name = name
        self._handle = handle
        self.renew()

    def renew(self) -> None:
        """As new, with locks of its own."""
        self._condition = threading.Condition()  # on a lock that a signal handler may take again
        self._waiting: deque[Task[Any]] = deque()
        self._doing: list[Task[Any]] = []
        self._thread: threading.Thread | None = None
        self._ending = False
        self._handed = 0
        self._handled = 0

    def hand(self, task: Task[Any]) -> None:
        """Have the task done: soon, or before this returns when the interpreter ends and no thread can be had."""
        with self._condition:
            if self._thread is None and not _exiting:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:  # no more threads
                    pass
            if self._thread is not None and not _exiting:
                self._handed += 1
                self._waiting.append(task)
                self._condition.notify_all()
                return
        self.finish()  # in order, at the exit too
        self._handle([task])

    def is_current(self) -> bool:
        """Whether it is this thread that does the work."""
        return self._thread is threading.current_thread()

    def finish(self) -> None:
        """Wait until all that was handed over is done; the thread ends."""
        with self._condition:
            thread, target = self._thread, self._handed
            if thread is None or thread is threading.current_thread():
                return
            self._ending = True
            self._condition.notify_all()
            self._condition.wait_for(
                lambda: self._handled >= target and (self._thread is not thread or bool(self._waiting))
            )

    def hold(self) -> None:
        """Before a fork: nothing is handed over or taken until :meth:`release`."""
        self._condition.acquire()

    def release(self) -> None:
        self._condition.release()

    def abandon(self) -> None:
        """In a forked child: what waited is the parent's; here everything is new."""
        left = [*self._doing, *self._waiting]
        self.renew()
        for task in left:
            task.promise.abandon()

    def _serve(self) -> None:
        me = threading.current_thread()
        while True:
            with self._condition:
                while not self._waiting:
                    if self._ending or not (self._condition.wait(IDLE) or self._waiting):
                        if self._thread is me:
                            self._thread, self._ending = None, False
                        self._condition.notify_all()
                        return
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
                self._doing = batch
            try:
                self._handle(batch)
            except BaseException as error:  # whoever waits must not wait for ever
                for task in batch:
                    if not task.promise.done():
                        task.promise.set_exception(error)
            with self._condition:
                self._handled += len(batch)
                self._doing = []
                del batch
                if self._ending:
                    self._condition.notify_all()


_exiting = False


def no_more_threads() -> None:
    """From now on everything is done on the thread that asks for it: the interpreter ends."""
    global _exiting
    _exiting = True
