"""One child process as its parent sees it: started, spoken to until a deadline, killed, and never believed.

It knows nothing of calls, queues and models.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UntrustedFolder
from ..runtime import SILENCE
from .protocol import PREFIX, pack, read_header, read_prefix

__all__ = ["Child", "Died", "Interrupted", "TooLate", "require_isolation"]

_PACKAGE = Path(__file__).parents[1]

# The package's own face is not run: it would bring much that a child has no use for.
_BOOT = """
import sys, types
for name, place in (("specialists", {package!r}), ("specialists.isolation", {package!r} + "/isolation")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [place]
from specialists.isolation.child import main
main()
"""

_KEPT = ("LD_LIBRARY_PATH",)
"""What of the environment is needed to load libraries; nothing else is handed on."""


class Died(Exception):
    """The child is gone; the message says how, as the end of a sentence."""


class TooLate(Exception):
    """The deadline passed; the child still runs."""


class Interrupted(Exception):
    """``interrupt`` said so; the child still runs."""


def require_isolation() -> None:
    """Raises :class:`UntrustedFolder` where a child's memory cannot be limited."""
    if sys.platform != "linux":
        raise UntrustedFolder(
            f"a model that is not trusted runs in a child process whose memory is limited, and {sys.platform} does not"
            " enforce such a limit; look at the folder, then pass trust=True (--trust on the command line)"
        )


class Child:
    """A process that was started. ``wake``: a descriptor that is watched beside the child, so that waiting can end;
    ``interrupt`` is called when it becomes readable, and true means :class:`Interrupted`."""

    def __init__(self, wake: int, interrupt: Callable[[], bool]) -> None:
        self._wake = wake
        self._interrupt = interrupt
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= SILENCE | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        code = _BOOT.format(package=str(_PACKAGE))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            close_fds=True,
            env=environment,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self.output = self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self.output, False)
        self.pid = self._process.pid
        self._last = 0.0

    def ask(
        self, header: Mapping[str, Any], parts: Sequence[Any], *, deadline: float, most: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Send a frame and wait for one. ``deadline``: on :func:`time.monotonic`. ``most``: bytes of the answer's body.

        Raises :class:`Died`, :class:`~specialists.isolation.protocol.Nonsense`, :class:`TooLate` or
        :class:`Interrupted`; then it must be killed.
        """
        for part in pack(header, parts):
            self._write(memoryview(part).cast("B"), deadline)
        length, size = read_prefix(bytes(self._read(PREFIX, deadline)), most)
        answer = read_header(self._read(length, deadline))
        return answer, self._read(size, deadline)

    def cpu_seconds(self) -> float | None:
        """CPU time since this was last asked, by the kernel's clock; ``None`` where it cannot tell."""
        try:
            now = time.clock_gettime((~self.pid) << 3 | 2)  # the clock of another process
        except OSError:
            return None
        spent, self._last = now - self._last, now
        return max(0.0, spent)

    def end(self) -> int:
        """Kill it, if it lives, and leave nothing of it behind. Returns how it ended, negative for a signal."""
        with contextlib.suppress(OSError):
            self._process.kill()
        code = self._process.wait()
        self.close()
        return code

    def disown(self) -> None:
        """After a fork: it is the parent's child, and not this process's."""
        self._process.returncode = 0  # there is nothing to wait for
        self.close()

    def close(self) -> None:
        """Close this side's descriptors only."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _write(self, view: memoryview, deadline: float) -> None:
        while view:
            try:
                view = view[os.write(self._input, view[: 1 << 20]) :]
            except BlockingIOError:
                self._wait(self._input, select.POLLOUT, deadline)
            except BrokenPipeError:
                raise self._death() from None

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray()  # it grows as bytes come: what is only announced takes no memory
        while len(data) < size:
            try:
                part = os.read(self.output, min(size - len(data), 1 << 20))
            except BlockingIOError:
                self._wait(self.output, select.POLLIN, deadline)
                continue
            if not part:
                raise self._death()
            data += part
        return data

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._wake, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TooLate
            ready = dict(poll.poll(min(left, 3600.0) * 1000 + 1))
            if self._wake in ready and self._interrupt():
                raise Interrupted
            if descriptor in ready:
                return

    def _death(self) -> Died:
        """It closed its pipe. It is given a moment to end by itself, so that it can be told how it ended."""
        end = time.monotonic() + 1.0
        state = None
        with contextlib.suppress(ChildProcessError):  # the application may have said that it wants to know of none
            while state is None and time.monotonic() < end:
                # It is left to be waited for, since the clock of its CPU time ends with that.
                state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                if state is None:
                    time.sleep(0.002)
        if state is None:
            return Died("closed its pipe")
        if state.si_code == os.CLD_EXITED:
            return Died(f"ended with {state.si_status}")
        try:
            name = signal.Signals(state.si_status).name
        except ValueError:
            name = f"signal {state.si_status}"
        return Died(f"was ended by {name}")
