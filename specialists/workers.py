"""The threads that models run on: one process-wide pool, as many as cores that this process may use.

A job is a short piece of work, one run of a model; whoever has more to do hands in the next piece when one is done, so
that models take turns. The threads are daemons: a model that never ends must not keep the process from ending.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

__all__ = ["others_wait", "submit", "usable_cores"]

logger = logging.getLogger("specialists")


def usable_cores() -> int:
    """Cores this process may use: affinity and the container's quota respected, at least one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    for path, read in (("/sys/fs/cgroup/cpu.max", _quota_v2), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _quota_v1)):
        try:
            quota = read(Path(path))
        except (OSError, ValueError):
            continue
        if quota is not None:
            cores = min(cores, max(1, int(quota)))
    return max(1, cores)


def submit(job: Callable[[], None], *, long: bool = False) -> None:
    """Run ``job`` on the next worker that is free, jobs in the order handed in. Never blocks. A job must not raise.

    ``long``: it will take its time. Such jobs have workers of their own, as many again, so that the short ones of
    other models do not stand behind them: the system shares the cores among the two.
    """
    (_long if long else _short).submit(job)


def others_wait(*, long: bool = False) -> bool:
    """Whether jobs wait for a worker: who has more to do then hands it in as a further job, and lets them go first."""
    return (_long if long else _short).has_jobs()


class _Pool:
    """Threads that are started when the first jobs come, and then stay."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if not self._started:
            self._start()

    def has_jobs(self) -> bool:
        return not self._jobs.empty()

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            for index in range(usable_cores()):
                threading.Thread(target=self._work, name=f"{self._name}_{index}", daemon=True).start()
            self._started = True

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except BaseException:
                logger.exception("a job of a model's worker raised")  # the worker is everyone's, and stays
            job = None  # type: ignore[assignment]  # what it held is not kept until the next one comes


_short = _Pool("specialists-onnx")
_long = _Pool("specialists-long")


def _after_fork() -> None:
    """Threads do not live on in a child, and a lock may be held for ever."""
    global _short, _long
    _short, _long = _Pool("specialists-onnx"), _Pool("specialists-long")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _quota_v2(path: Path) -> float | None:
    quota, period = path.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(path: Path) -> float | None:
    quota = int(path.read_text())
    return None if quota <= 0 else quota / int((path.parent / "cpu.cfs_period_us").read_text())
