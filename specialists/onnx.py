"""A model file as a session of ONNX Runtime: bytes checked, provider chosen, threads set, stopped when told.

One compute thread per run, and as many workers as cores that this process may use: so parallel callers share the
machine and CPU time can be told exactly. onnxruntime and numpy are imported when a model is first run.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card import CARD, read_card
from .errors import MissingRuntime, ModelFailed, ModelRejected
from .metering import current_meter

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["OnnxModel", "set_threads", "usable_cores"]

MAX_BYTES = 2 * 1024**3
"""Larger files cannot be one protobuf message."""

_threads_per_run = 1


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
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._pid = 0

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
        with self._lock:
            # A session's state does not survive a fork: the child opens its own.
            if self._session is None or self._pid != os.getpid():
                self._session = self._open()
                self._pid = os.getpid()
            return self._session

    async def run(self, **inputs: Any) -> Arrays:
        """Run the graph once. ``inputs`` are arrays by graph input name; the result is arrays by output name.

        A cancelled caller stops the native run too.
        """
        runtime = _runtime()
        options = runtime.RunOptions()
        loop = asyncio.get_running_loop()
        meter = current_meter.get()
        future = loop.run_in_executor(_workers(), lambda: self._run(inputs, options, meter))
        try:
            return await future
        except asyncio.CancelledError:
            options.terminate = True
            raise

    def run_sync(self, **inputs: Any) -> Arrays:
        """As :meth:`run`, in this thread."""
        return self._run(inputs, _runtime().RunOptions(), current_meter.get(), nested=True)

    def _run(self, inputs: Mapping[str, Any], options: Any, meter: Any, nested: bool = False) -> Arrays:
        import numpy as np

        session = self.session
        feeds = self._feeds(session, inputs)
        threads = self._threads or _threads_per_run
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            values = session.run(None, feeds, options)
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelFailed(f"{self.path.name}: the run failed: {first}") from None
        finally:
            if meter is not None:
                own = time.thread_time() - cpu
                # A caller in the same thread is metered already; only what other threads may have done is added.
                others = max(0.0, (time.perf_counter() - wall) * threads - own) if threads > 1 else 0.0
                meter.add(0.0 if nested else own, others if nested else own + others)
        outputs = dict(zip([output.name for output in session.get_outputs()], values, strict=True))
        for name, value in outputs.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ModelFailed(f"{self.path.name}: its output {name!r} is not finite")
        return outputs

    def _feeds(self, session: onnxruntime.InferenceSession, inputs: Mapping[str, Any]) -> Arrays:
        import numpy as np

        expected = {entry.name: entry for entry in session.get_inputs()}
        wrong = sorted(set(inputs) ^ set(expected))
        if wrong:
            raise ModelFailed(f"{self.path.name}: inputs are {sorted(expected)}; {wrong[0]!r} is missing or unknown")
        feeds: Arrays = {}
        for name, entry in expected.items():
            array = np.asarray(inputs[name])
            wanted = _dtypes().get(entry.type)
            if wanted is not None and array.dtype != wanted:
                if not np.can_cast(array.dtype, wanted, "same_kind"):
                    raise ModelFailed(f"{self.path.name}: input {name!r} must be {wanted}, not {array.dtype}")
                array = array.astype(wanted)
            shape = entry.shape
            fits = len(shape) == array.ndim and all(
                not isinstance(want, int) or want == have for want, have in zip(shape, array.shape, strict=False)
            )
            if not fits:
                raise ModelFailed(f"{self.path.name}: input {name!r} must have shape {shape}, not {list(array.shape)}")
            feeds[name] = array
        return feeds

    def _open(self) -> onnxruntime.InferenceSession:
        runtime = _runtime()
        data = self._read()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._threads or _threads_per_run
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors come back as exceptions
        available = runtime.get_available_providers()
        wanted = self._providers or ("CUDAExecutionProvider", "CPUExecutionProvider")
        try:
            return runtime.InferenceSession(data, options, [name for name in wanted if name in available])
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelRejected(
                f"{str(self.path)!r} is not a model that ONNX Runtime {runtime.__version__} can open: {first}"
            ) from None

    def _read(self) -> bytes:
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ModelRejected(f"{str(self.path)!r} is larger than an ONNX file can be")
            data = self.path.read_bytes()
        except OSError as error:
            raise ModelRejected(f"the model file {str(self.path)!r} cannot be read: {error.strerror}") from None
        if not data:
            raise ModelRejected(f"the model file {str(self.path)!r} is empty")
        expected = self._sha256
        folder = self.path.parent
        if expected is None and (folder / CARD).is_file():
            expected = read_card(folder).files.get(self.path.name)
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise ModelRejected(
                f"the model file {str(self.path)!r} is not the one its card names (its sha256 differs);"
                f" get a clean copy, or, if the change is yours, run `brain specialists seal {folder}`"
            )
        return data


_pool: tuple[int, ThreadPoolExecutor] | None = None
_pool_lock = threading.Lock()


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None or _pool[0] != os.getpid():
            _pool = (os.getpid(), ThreadPoolExecutor(usable_cores(), thread_name_prefix="specialists-onnx"))
        return _pool[1]


def _renew_lock() -> None:
    global _pool_lock
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _runtime() -> Any:
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
        "tensor(int64)": np.dtype(np.int64),
        "tensor(int32)": np.dtype(np.int32),
        "tensor(int8)": np.dtype(np.int8),
        "tensor(uint8)": np.dtype(np.uint8),
        "tensor(bool)": np.dtype(np.bool_),
    }


def _quota_v2(path: Path) -> float | None:
    quota, period = path.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(path: Path) -> float | None:
    quota = int(path.read_text())
    return None if quota <= 0 else quota / int((path.parent / "cpu.cfs_period_us").read_text())
