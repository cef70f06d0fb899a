"""Sessions of ONNX Runtime: opened from bytes, shared by models of the same bytes, and let go under a memory ceiling.

One compute thread a run and no spinning, so that parallel callers share the machine and CPU time can be told exactly.
An optimised graph is kept for the next process where that pays (:mod:`specialists.graph_cache`). This module is given
bytes that were checked already; it knows neither a model's file nor its queue.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet, WeakValueDictionary

from . import graph_cache
from .errors import MissingRuntime, ModelFailed, ModelRejected
from .joining import Entry, Layout
from .runtime import identity_of, import_runtime

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "Session",
    "default_threads",
    "enter_run",
    "keep_within",
    "leave_run",
    "loaded_bytes",
    "make_room",
    "memory_of",
    "open_session",
    "opening",
    "require_runtime",
    "set_memory_limit",
    "set_threads",
]

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"

COPIES = 2
"""How often a model's weights lie in memory: as ONNX Runtime read them, and packed for its kernels."""
EMPTY_SESSION = 1 << 20
"""About what a session takes beside its weights, in bytes."""

_LOOPS = (b"\x22\x04Loop", b"\x22\x04Scan", b"\x22\x0bSequenceMap")
"""How operators that may run any number of times are written in a file. Bytes that only look so do no harm."""

_WHOLE = b"DynamicQuantize"
"""In the names of operators whose result for one row depends on the largest number of all rows."""

_threads_per_run = 1


def set_threads(threads: int) -> None:
    """Compute threads per run for models opened from now on that do not say so themselves (default 1)."""
    if threads < 1:
        raise ValueError("a run needs at least one thread")
    global _threads_per_run
    _threads_per_run = threads


def default_threads() -> int:
    """What :func:`set_threads` was told last."""
    return _threads_per_run


class Session:
    """An open model. ``native`` is ONNX Runtime's session, which any number of threads may run."""

    def __init__(
        self,
        native: onnxruntime.InferenceSession,
        *,
        digest: str,
        threads: int,
        memory: int,
        steady: bool,
        by_rows: bool,
    ) -> None:
        self.native = native
        self.steady = steady
        """Whether a run's time depends on the shapes of its inputs alone."""
        self.by_rows = by_rows
        """``False`` where an operator looks at all rows together: their calls never share a run."""
        self.digest = digest
        self.threads = threads
        self.memory = memory
        self.layout = Layout(
            [Entry(entry.name, _dtypes().get(entry.type), tuple(entry.shape)) for entry in native.get_inputs()],
            [Entry(entry.name, _dtypes().get(entry.type), tuple(entry.shape)) for entry in native.get_outputs()],
        )
        self.run_options = require_runtime().RunOptions
        provider = native.get_providers()[0]
        self.on_cpu = provider == CPU
        self.identity = identity_of(digest, provider)
        self.output_names = [entry.name for entry in self.layout.outputs]


def open_session(
    data: bytes, digest: str, *, name: str, threads: int | None = None, providers: Sequence[str] | None = None
) -> Session:
    """Open the model of these bytes, whose sha256 is ``digest``, or share it where it is open with these settings.

    ``name`` is how messages name it. Raises :class:`MissingRuntime` or :class:`ModelRejected`.
    """
    runtime = require_runtime()
    available = runtime.get_available_providers()
    if missing := sorted(set(providers or ()) - set(available)):
        raise MissingRuntime(
            f"{name} is to run by {missing[0]}, which this ONNX Runtime lacks; it has {', '.join(available)}, and"
            " CUDA comes with pip install 'brain-specialists[gpu]'"
        )
    chosen = tuple(each for each in providers or (GPU, CPU) if each in available)
    count = threads or _threads_per_run
    key = (os.getpid(), digest, count, chosen)
    with _sharing:
        found = _open.get(key)
    if found is not None:
        return found
    try:
        if chosen == (CPU,):
            native = graph_cache.open_session(data, digest, lambda: session_options(count))
        else:
            native = runtime.InferenceSession(data, session_options(count), list(chosen))
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ModelRejected(f"{name} is not a model that ONNX Runtime {runtime.__version__} can open: {why}") from None
    session = Session(
        native,
        digest=digest,
        threads=count,
        memory=memory_of(data),
        steady=not any(sign in data for sign in _LOOPS),
        by_rows=_WHOLE not in data,
    )
    with _sharing:
        return _open.setdefault(key, session)


def memory_of(data: bytes) -> int:
    """About what a model of these bytes takes when it is loaded, in bytes."""
    return COPIES * len(data) + EMPTY_SESSION


def session_options(threads: int) -> Any:
    """How sessions are set up here: ``threads`` compute threads that sleep when they have nothing to do."""
    options = require_runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # one is kept for every shape that was ever seen, and saves nothing measurable
    # Bytes that look like ONNX Runtime's own format would be read as that, past every check of the graph.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4  # errors come back as exceptions
    return options


def require_runtime() -> Any:
    """The module ``onnxruntime``, imported now. Raises :class:`MissingRuntime`, which names the extras."""
    try:
        return import_runtime()
    except ImportError:
        raise MissingRuntime(
            "specialists need ONNX Runtime, which is not installed: pip install 'brain-specialists[cpu]'"
            " (or [gpu] on a machine with CUDA)"
        ) from None


class Holder(Protocol):
    """Whoever holds a session and can do without it until it is next asked."""

    @property
    def last_used(self) -> float:
        """A point on :func:`time.monotonic`."""
        ...

    @property
    def held(self) -> Session | None:
        """The session, if it is loaded."""
        ...

    def let_go(self) -> None:
        """Drop the session; runs under way keep it until they end."""
        ...


_runs: dict[int, Any] = {}
"""The options of the native runs under way."""
_ending = False

ENDING_SECONDS = 5.0
"""How long the interpreter waits at its end for native runs that were told to stop."""


def enter_run(options: Any) -> None:
    """A native run with these options begins. Call :func:`leave_run` when it has ended."""
    _runs[id(options)] = options
    if _ending:
        options.terminate = True


def leave_run(options: Any) -> None:
    """The run with these options has ended."""
    _runs.pop(id(options), None)


@contextmanager
def opening(name: str) -> Iterator[None]:
    """While the block runs a model is opened, which cannot be stopped: the interpreter's end waits for it."""
    token = SimpleNamespace(terminate=False)
    enter_run(token)
    try:
        if _ending:
            raise ModelFailed(f"{name} is not opened any more: the interpreter ends")
        yield
    finally:
        leave_run(token)


def _end_runs() -> None:
    """At the interpreter's end: a thread that comes back from a native run after it would abort the process."""
    global _ending
    _ending = True
    end = time.monotonic() + ENDING_SECONDS
    while _runs and time.monotonic() < end:
        for options in list(_runs.values()):
            options.terminate = True
        time.sleep(0.001)


atexit.register(_end_runs)

_memory_limit: int | None = None
_holders: WeakSet[Holder] = WeakSet()
_room = threading.Lock()
_sharing = threading.Lock()
_open: WeakValueDictionary[Any, Session] = WeakValueDictionary()
_inherited_runs: list[dict[int, Any]] = []
_inherited: list[Session] = []
"""A parent's sessions: closing one in a child waits for threads that the child does not have."""


def set_memory_limit(limit: int | None) -> None:
    """The most bytes that loaded models may take together; ``None``: half of what this process may use.

    A model's share is estimated from its file: its weights as read and as packed. Above the limit, models that were
    not used for the longest time are let go, and opened again when they are next asked.
    """
    if limit is not None and limit < 1:
        raise ValueError("the limit is a number of bytes from 1 on, or None")
    global _memory_limit
    _memory_limit = limit
    with _room:
        _evict(limit or _half_of_memory(), None)


def loaded_bytes() -> int:
    """What the loaded models are estimated to take, in bytes; models of the same bytes count once."""
    return sum(session.memory for session in {holder.held for holder in list(_holders)} - {None} if session)


def make_room(holder: Holder, memory: int, name: str, digest: str = "") -> None:
    """Before ``holder`` opens a model of ``memory`` bytes: let go what was not used for the longest time.

    Where a model of this ``digest`` is loaded already, it is shared, and takes no more room.
    Raises :class:`ModelRejected` when the model alone is above the limit.
    """
    limit = _memory_limit or _half_of_memory()
    if memory > limit:
        raise ModelRejected(
            f"{name} would take about {memory / 2**20:.0f} MiB, and all models together may take"
            f" {limit / 2**20:.0f} MiB; raise the limit with specialists.set_memory_limit"
        )
    with _room:
        _holders.add(holder)
        if not any(session.digest == digest for each in list(_holders) if (session := each.held) is not None):
            _evict(limit - memory, holder)


def keep_within(holder: Holder) -> None:
    """After ``holder`` has opened its model: others may have made room and opened at the same time."""
    with _room:
        _evict(_memory_limit or _half_of_memory(), holder)


def _evict(limit: int, spared: Holder | None) -> None:
    candidates = sorted((each for each in list(_holders) if each.held is not None), key=lambda each: each.last_used)
    for each in candidates:
        if loaded_bytes() <= limit:
            return
        if each is not spared:
            each.let_go()


def _half_of_memory() -> int:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 << 30
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            pages = min(pages, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return pages // 2


def _dtypes() -> dict[str, Any]:
    global _known_dtypes
    if _known_dtypes is None:
        import numpy as np

        _known_dtypes = {
            "tensor(float)": np.dtype(np.float32),
            "tensor(double)": np.dtype(np.float64),
            "tensor(float16)": np.dtype(np.float16),
            "tensor(bool)": np.dtype(np.bool_),
            **{
                f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}")
                for kind in ("int", "uint")
                for bits in (8, 16, 32, 64)
            },
        }
    return _known_dtypes


_known_dtypes: dict[str, Any] | None = None


def _after_fork() -> None:
    """Locks may be held for ever by threads that did not come along; sessions do not survive a fork."""
    global _room, _sharing, _open
    _inherited.extend(_open.values())
    _inherited_runs.append(dict(_runs))
    _runs.clear()
    _room, _sharing, _open = threading.Lock(), threading.Lock(), WeakValueDictionary()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
