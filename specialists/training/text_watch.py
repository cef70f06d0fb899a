"""Who looks on while something is trained, and may stop it. Nothing of PyTorch is known here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

__all__ = ["Epoch", "Stopped", "Watch"]


class Stopped(Exception):
    """The training was told to stop; what it has reached so far is kept. ``signal``: the number it was told by."""

    def __init__(self, signal: int, where: str) -> None:
        super().__init__(where)
        self.signal = signal


class Epoch(NamedTuple):
    """What an epoch came to, on the rows that choose."""

    number: int
    accuracy: float
    loss: float
    seconds: float


@dataclass
class Watch:
    """``say`` is given a line, ``step`` what is being done, how much of it is done, and how much there is.

    ``stop`` is 0 until it is told to stop: then it is the signal's number.
    """

    say: Callable[[str], None] = lambda line: None
    step: Callable[[str, int, int], None] = lambda what, done, of: None
    stop: int = 0

    def tick(self, what: str) -> Callable[[int, int], None]:
        """What a long piece of work calls now and then: shows how far it is, and stops it when that is wanted."""

        def tick(done: int, of: int) -> None:
            self.check(f"stopped at {what}")
            self.step(what, done, of)

        return tick

    def check(self, where: str) -> None:
        """Raise :class:`Stopped` if it was told to stop."""
        if self.stop:
            raise Stopped(self.stop, where)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to stop at the next step; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def told(number: int, frame: FrameType | None) -> None:
            if self.stop:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.stop = number

        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
