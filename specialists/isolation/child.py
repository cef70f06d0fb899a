"""The child: limits itself, opens one model, and runs it for its parent until its parent is gone.

It is started as a bare interpreter, without environment, site or the package's own face, so that it begins quickly and
holds nothing that is not needed. What it is not: a cage for machine code that took it over. It may read what its user
may read, and where the kernel does not let it leave the network, it may use it; system calls are not filtered.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import queue
import resource
import sys
import threading
from typing import Any

from .protocol import PREFIX, TYPES, pack, read_arrays, read_header, read_prefix, tell

NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000
NO_NEW_PRIVILEGES = 38
FILES = 64
MOST_TEXT = 300
NO_LIMIT_OF_FRAME = 1 << 62
"""The parent is believed."""


def main() -> None:
    """Serve the parent on what are standard input and output when it begins."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whatever prints must not speak to the parent
        os.dup2(nothing, standard)
    source, sink = os.fdopen(requests, "rb"), os.fdopen(replies, "wb", buffering=0)
    settings, body = _read(source)
    alone = _leave_network()
    _give_up_rights()
    sys.path[:] = settings["path"]
    try:
        import numpy  # noqa: F401 - before the limits, so that they count for the model alone
        import onnxruntime
    except ImportError as error:
        _write(sink, {"failed": f"the runtime cannot be imported: {error}"})
        return
    _give_up_capabilities()  # not before: root may need them to read its own libraries
    waiting: queue.SimpleQueue[tuple[dict[str, Any], bytearray]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(source, waiting), daemon=True).start()
    if not _limit_memory(settings["memory"] + len(body)):
        _write(sink, {"unlimited": True})
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    _limit_time(settings["seconds"])
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # what a large input took is given back
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")
        session = onnxruntime.InferenceSession(bytes(body), options, ["CPUExecutionProvider"])
    except Exception as error:
        _write(sink, {"rejected": _text(error)})
        return
    del body
    inputs = [[entry.name, entry.type, list(entry.shape)] for entry in session.get_inputs()]
    outputs = [[entry.name, entry.type, list(entry.shape)] for entry in session.get_outputs()]
    _write(sink, {"inputs": inputs, "outputs": outputs, "network": not alone})
    if all(kind in TYPES for _, kind, _ in [*inputs, *outputs]):
        _serve(session, sink, waiting)


def _serve(session: Any, sink: Any, waiting: queue.SimpleQueue[tuple[dict[str, Any], bytearray]]) -> None:
    import numpy as np

    inputs = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]
    while True:
        header, body = waiting.get()
        _limit_time(header["seconds"])
        try:
            feeds = dict(zip(inputs, read_arrays(header["arrays"], body, inputs), strict=True))
            values = [np.asarray(value, order="C") for value in session.run(outputs, feeds)]
            frame = pack({"arrays": tell(outputs, values)}, values)
        except Exception as error:
            frame = pack({"failed": _text(error)})
        for part in frame:
            _write_all(sink, part)
        del body, frame
        with contextlib.suppress(UnboundLocalError):
            del feeds, values


def _receive(source: Any, waiting: queue.SimpleQueue[tuple[dict[str, Any], bytearray]]) -> None:
    """Read requests; when the parent is gone, or sends what does not fit into memory, end at once."""
    try:
        while True:
            waiting.put(_read(source))
    finally:
        os._exit(0)


def _read(source: Any) -> tuple[dict[str, Any], bytearray]:
    prefix = source.read(PREFIX)
    if len(prefix) != PREFIX:
        os._exit(0)
    length, size = read_prefix(prefix, NO_LIMIT_OF_FRAME)
    header = read_header(source.read(length))
    body = bytearray(size)
    at, view = 0, memoryview(body)
    while at < size:
        count = source.readinto(view[at:])
        if not count:
            os._exit(0)
        at += count
    return header, body


def _write(sink: Any, header: dict[str, Any]) -> None:
    for part in pack(header):
        _write_all(sink, part)


def _write_all(sink: Any, part: Any) -> None:
    view = memoryview(part)
    while view:
        view = view[sink.write(view) :]


def _limit_memory(memory: int) -> bool:
    """Let this process have ``memory`` bytes more than it has now. Whether that holds is tried."""
    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    try:
        mmap.mmap(-1, now + memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000).close()  # never touched
    except (OSError, MemoryError, ValueError):
        return True
    return False


def _limit_time(seconds: float) -> None:
    """End by the kernel's hand when this much CPU time more is used, should the parent not be there to do it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _give_up_rights() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"1000")  # when the machine runs out of memory, this one goes first
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no file; pipes are none
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _leave_network() -> bool:
    """Take a network without any device, where the kernel lets this process; it is not counted on."""
    try:
        library = ctypes.CDLL(None)
        if library.unshare(NEW_NETWORK) == 0:
            return True
        # Root without that right would lose others with a user namespace that it may need to read its own libraries.
        if os.geteuid() == 0 or library.unshare(NEW_USER | NEW_NETWORK) != 0:
            return False
        _give_up_capabilities()  # inside that namespace it would have every right
    except (OSError, AttributeError):
        return False
    return True


def _give_up_capabilities() -> None:
    """What makes root more than a user; the threads that are started from here on have none either."""
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).capset(header, nothing)


def _text(error: BaseException) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__)[:MOST_TEXT]
