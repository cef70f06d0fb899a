"""A breaker gives whatever has failed again and again a rest, and lets one try through to see whether it is up again.

It knows nothing of what is tried: an endpoint, a model, a specialist's function.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

__all__ = ["Breaker", "BreakerOpen"]


class BreakerOpen(Exception):
    """The breaker lets nothing through. ``seconds`` until it tries again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"open for {seconds:.1f} s more")
        self.seconds = seconds


class Breaker:
    """Opens for ``rest`` seconds after ``threshold`` asks in a row have failed; then lets one through to see.

    Call :meth:`enter` before an ask and, exactly once, :meth:`leave` after it. Thread safe.
    """

    def __init__(self, *, threshold: int = 5, rest: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = threshold
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Breaker, threshold=self._threshold, rest=self._rest), ()  # a copy begins closed

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """``half-open``: rested, the next ask is the one that finds out."""
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "half-open" if self._probing or self._clock() >= self._open_until else "open"

    def enter(self) -> bool:
        """Ask to be let through; ``True`` when this ask is the probe. Raises :class:`BreakerOpen`."""
        with self._lock:
            if self._open_until is None:
                return False
            left = self._open_until - self._clock()
            if left > 0 or self._probing:
                raise BreakerOpen(max(left, 0.0))
            self._probing = True
            return True

    def leave(self, probe: bool, ended: Literal["up", "down", "unknown"]) -> None:
        """Tell how an ask ended: what was asked was ``up`` (any answer of its own), ``down``, or nobody knows."""
        with self._lock:
            if probe:
                self._probing = False
            if ended == "up":
                self._failures, self._open_until = 0, None
            elif ended == "down":
                self._failures += 1
                if probe or (self._open_until is None and self._failures >= self._threshold):
                    self._open_until = self._clock() + self._rest
