"""``IsolatedModel``: a model file of somebody unknown, with the same calls as an ``OnnxModel``."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph_check import check_graph
from ..loops import current_deadline, stopping
from ..metering import current_meter
from ..model_files import read_model
from .keeper import Call, Keeper, Limits
from .process import require_isolation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["IsolatedModel"]


class IsolatedModel:
    """A model file, run in a child process that is started at the first run and shared by all callers.

    Args:
        path: The ``.onnx`` file.
        sha256: What it must hash to (hex); without it, a ``specialist.toml`` beside the file is asked.
        memory_mb: Megabytes (2**20 bytes) for the model, its inputs and what it computes.
        timeout: Seconds for one run; the child is ended then.
        queue_limit: Calls that may wait; a further one is refused with :class:`Overloaded`.

    A run has no effects: when the child dies, the run is tried once more in a new one. An input that two children died
    of, by their own fault or out of time, is not tried again.

    Raises, at the first run: :class:`UntrustedFolder` on a system that does not limit a child's memory,
    :class:`MissingRuntime`, :class:`ModelRejected`; at any run: :class:`ModelFailed`, :class:`WorkerDied`,
    :class:`Quarantined`, :class:`DeadlinePassed`, :class:`Overloaded`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sha256: str | None = None,
        memory_mb: int = 1024,
        timeout: float = 10.0,
        queue_limit: int = 256,
    ) -> None:
        if memory_mb < 1 or not timeout > 0 or queue_limit < 1:
            raise ValueError("memory_mb, timeout and queue_limit are positive")
        self.path = Path(path)
        self._settings: dict[str, Any] = {
            "sha256": sha256, "memory_mb": memory_mb, "timeout": timeout, "queue_limit": queue_limit,
        }  # fmt: skip
        self._limits = Limits(memory_mb * 2**20, timeout, queue_limit)
        self._keeper: Keeper | None = None

    def __repr__(self) -> str:
        return f"IsolatedModel({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, **self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def child_pid(self) -> int | None:
        """The process that runs the model, if one is there."""
        return None if self._keeper is None else self._keeper.child_pid

    @property
    def starts(self) -> int:
        """How many child processes were started so far."""
        return 0 if self._keeper is None else self._keeper.starts

    async def run(self, /, **inputs: Any) -> Arrays:
        """Run the graph once. ``inputs`` are arrays by graph input name; the result is arrays by output name.

        A cancelled caller's call leaves the queue; if it runs already, the child is ended.
        """
        return await asyncio.wrap_future(self._submit(inputs).future)

    def run_sync(self, /, **inputs: Any) -> Arrays:
        """As :meth:`run`, from a thread that may wait."""
        future = self._submit(inputs).future
        try:
            with stopping(future.cancel):
                return future.result()
        except BaseException:
            future.cancel()
            raise

    async def aclose(self) -> None:
        """End the child; what waits fails. Another run opens the model anew."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """As :meth:`aclose`."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.pid == os.getpid():
            keeper.close()

    def _submit(self, inputs: dict[str, Any]) -> Call:
        call = Call(inputs, current_deadline.get(), current_meter.get())
        self._kept().submit(call)
        return call

    def _kept(self) -> Keeper:
        keeper = self._keeper
        if keeper is not None and keeper.pid == os.getpid():
            return keeper
        require_isolation()
        with _making:
            if self._keeper is None or self._keeper.pid != os.getpid():
                read = _Reader(self.path, self._settings["sha256"], self._limits.memory)
                self._keeper = Keeper(self.path.name, read, self._limits)
                weakref.finalize(self, self._keeper.close, wait=False)
            return self._keeper


_making = threading.Lock()


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Reader:
    """Gives the bytes of a model that was looked through. It does not hold the model: that one may be forgotten."""

    def __init__(self, path: Path, sha256: str | None, limit: int) -> None:
        self.path, self.sha256, self.limit = path, sha256, limit

    def __call__(self) -> bytes:
        data = read_model(self.path, sha256=self.sha256, limit=self.limit, hard_links=False)
        check_graph(data, name=repr(str(self.path)))
        return data
