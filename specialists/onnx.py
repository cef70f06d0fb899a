"""A model file as a session of ONNX Runtime: bytes checked, provider chosen, threads set, stopped when told.

One compute thread per run, and as many workers as cores that this process may use: so parallel callers share the
machine and CPU time can be told exactly. onnxruntime and numpy are imported when a model is first run.

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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .card import CARD, read_card
from .errors import MissingRuntime, ModelFailed, ModelRejected
from .metering import CpuMeter, current_meter
from .workers import usable_cores

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["OnnxModel", "require_runtime", "set_threads"]

MAX_BYTES = 2 * 1024**3
"""Larger files cannot be one protobuf message."""

_threads_per_run = 1


def set_threads(threads: int) -> None:
    """Compute threads per run for models opened from now on that do not say so themselves (default 1)."""
    if threads < 1:
        raise ValueError("a run needs at least one thread")
    global _threads_per_run
    _threads_per_run = threads


class OnnxModel:
    """A model file, opened at its first run and shared by all callers, threads and event loops.

    ``path``: the ``.onnx`` file. ``sha256``: what it must hash to (hex); without it, a ``specialist.toml`` beside the
    file is asked. ``threads``: compute threads per run, default 1. ``providers``: ONNX Runtime execution providers;
    default CUDA if it is there, then CPU.

    Raises, at the first run: :class:`MissingRuntime`, :class:`ModelRejected`; at any run: :class:`ModelFailed`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sha256: str | None = None,
        threads: int | None = None,
        providers: tuple[str, ...] | None = None,
    ) -> None:
        self.path = Path(path)
        self._sha256 = sha256
        self._threads = threads
        self._providers = providers
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"OnnxModel({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_sha256": self._sha256, "_threads": self._threads, "_providers": self._providers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["path"], sha256=state["_sha256"], threads=state["_threads"], providers=state["_providers"]
        )

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The ONNX Runtime session; opens the model if it is not open."""
        return self._ready().session

    def _ready(self) -> _Opened:
        # A session's state does not survive a fork: the child opens its own.
        if self._opened is None or self._opened.pid != os.getpid():
            with _opening:
                if self._opened is None or self._opened.pid != os.getpid():
                    if self._opened is not None:
                        _inherited.append(self._opened)
                    self._opened = self._open()
        return self._opened

    async def run(self, /, **inputs: Any) -> Arrays:
        """Run the graph once. ``inputs`` are arrays by graph input name; the result is arrays by output name.

        A cancelled caller stops the native run too.
        """
        loop = asyncio.get_running_loop()
        # The first import takes its time, and the loop has other things to do.
        runtime = require_runtime() if self._opened else await loop.run_in_executor(_workers(), require_runtime)
        options = runtime.RunOptions()
        meter = current_meter.get()
        future = loop.run_in_executor(_workers(), lambda: self._run(inputs, options, meter))
        try:
            return await future
        except asyncio.CancelledError:
            options.terminate = True
            raise

    def run_sync(self, /, **inputs: Any) -> Arrays:
        """As :meth:`run`, in this thread."""
        return self._run(inputs, require_runtime().RunOptions(), current_meter.get())

    def _run(self, inputs: Mapping[str, Any], options: Any, meter: CpuMeter | None) -> Arrays:
        with meter.counting() if meter else nullcontext():
            opened = self._ready()
            session = opened.session
            feeds = self._feeds(session, inputs)
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                values = session.run(None, feeds, options)
            except Exception as error:
                raise ModelFailed(f"{self.path.name}: the run failed: {_first_line(error)}") from None
            finally:
                if meter is not None and opened.threads > 1:
                    own = time.thread_time() - cpu  # what the other threads did, nobody can tell
                    meter.add(0.0, max(0.0, (time.perf_counter() - wall) * opened.threads - own))
            return self._checked(session, values)

    def _checked(self, session: onnxruntime.InferenceSession, values: list[Any]) -> Arrays:
        import numpy as np

        outputs: Arrays = {}
        for entry, value in zip(session.get_outputs(), values, strict=True):
            outputs[entry.name] = value
            if not isinstance(value, np.ndarray):
                continue
            if not _fits(entry.shape, value.shape):
                have = list(value.shape)
                raise ModelFailed(f"{self.path.name}: its output {entry.name!r} has shape {have}, not {entry.shape}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ModelFailed(f"{self.path.name}: its output {entry.name!r} is not finite")
        return outputs

    def _feeds(self, session: onnxruntime.InferenceSession, inputs: Mapping[str, Any]) -> Arrays:
        import numpy as np

        expected = {entry.name: entry for entry in session.get_inputs()}
        wrong = sorted(set(inputs) ^ set(expected))
        if wrong:
            raise ModelFailed(f"{self.path.name}: inputs are {sorted(expected)}; {wrong[0]!r} is missing or unknown")
        feeds: Arrays = {}
        for name, entry in expected.items():
            try:
                given = np.asarray(inputs[name])
            except ValueError as error:
                raise ModelFailed(f"{self.path.name}: input {name!r} is not an array: {_first_line(error)}") from None
            array = given
            wanted = _dtypes().get(entry.type)
            if wanted is not None and given.dtype != wanted:
                if not np.can_cast(given.dtype, wanted, "same_kind"):
                    raise ModelFailed(f"{self.path.name}: input {name!r} must be {wanted}, not {given.dtype}")
                array = given.astype(wanted)
                if wanted.kind in "iu" and (array != given).any():
                    raise ModelFailed(f"{self.path.name}: input {name!r} holds a number too large for {wanted}")
            if not _fits(entry.shape, array.shape):
                have = list(array.shape)
                raise ModelFailed(f"{self.path.name}: input {name!r} must have shape {entry.shape}, not {have}")
            feeds[name] = array
        return feeds

    def _open(self) -> _Opened:
        runtime = require_runtime()
        data = self._read()
        threads = self._threads or _threads_per_run
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors come back as exceptions
        available = runtime.get_available_providers()
        if missing := sorted(set(self._providers or ()) - set(available)):
            raise MissingRuntime(
                f"{self.path.name} is to run by {missing[0]}, which this ONNX Runtime lacks; it has"
                f" {', '.join(available)}, and CUDA comes with pip install 'brain-specialists[gpu]'"
            )
        wanted = self._providers or ("CUDAExecutionProvider", "CPUExecutionProvider")
        try:
            session = runtime.InferenceSession(data, options, [name for name in wanted if name in available])
        except Exception as error:
            version, why = runtime.__version__, _first_line(error)
            raise ModelRejected(
                f"{str(self.path)!r} is not a model that ONNX Runtime {version} can open: {why}"
            ) from None
        return _Opened(os.getpid(), threads, session)

    def _read(self) -> bytes:
        named = repr(str(self.path))
        try:
            if self.path.exists() and not self.path.is_file():
                raise ModelRejected(f"the model file {named} is not a file")
            if self.path.stat().st_size > MAX_BYTES:
                raise ModelRejected(f"{named} is larger than an ONNX file can be")
            data = self.path.read_bytes()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ModelRejected(f"the model file {named} cannot be read: {why}; check its path") from None
        if not data:
            raise ModelRejected(f"the model file {named} is empty; get a clean copy")
        digest = hashlib.sha256(data).hexdigest()
        if self._sha256 is not None:
            if digest != self._sha256.lower():
                raise ModelRejected(f"the model file {named} is not the one asked for (its sha256 is {digest})")
            return data
        folder = self.path.parent
        listed = read_card(folder).files if (folder / CARD).is_file() else {}
        if listed and digest != listed.get(self.path.name):  # a card that lists nothing is not sealed yet
            raise ModelRejected(
                f"the model file {named} is not the one its card names (its sha256 differs);"
                f" get a clean copy, or, if the change is yours, run `brain specialists seal {folder}`"
            )
        return data


class _Opened(NamedTuple):
    pid: int
    threads: int
    session: onnxruntime.InferenceSession


_opening = threading.Lock()
_inherited: list[_Opened] = []
"""A parent's sessions: closing one in a child waits for threads that the child does not have."""

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="specialists-onnx")
        return _pool


def _after_fork() -> None:
    """Threads and the locks they hold do not live on in a child."""
    global _opening, _pool, _pool_lock
    _opening, _pool, _pool_lock = threading.Lock(), None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def require_runtime() -> Any:
    """The module ``onnxruntime``, imported now. Raises :class:`MissingRuntime`, which names the extras."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingRuntime(
            "specialists need ONNX Runtime, which is not installed: pip install 'brain-specialists[cpu]'"
            " (or [gpu] on a machine with CUDA)"
        ) from None
    return onnxruntime


def _dtypes() -> dict[str, Any]:
    import numpy as np

    return {
        "tensor(float)": np.dtype(np.float32),
        "tensor(double)": np.dtype(np.float64),
        "tensor(float16)": np.dtype(np.float16),
        "tensor(bool)": np.dtype(np.bool_),
        **{f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    }


def _fits(shape: Sequence[int | str | None], have: tuple[int, ...]) -> bool:
    """Whether an array fits the shape a graph declares; a name or ``None`` in it stands for any length."""
    return len(shape) == len(have) and all(
        not isinstance(want, int) or want == length for want, length in zip(shape, have, strict=True)
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
