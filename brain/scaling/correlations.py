"""Whether samples of one question are right and wrong together, and what that takes from a vote.

A vote gains where errors are independent. They are not where questions are not equally hard, or where one cause (a
trap in the question, a gap in the training) leads many samples to the same wrong answer. With right answers at hand the
correlation is estimated; without them, unanimous and wrong looks like unanimous and right, and nothing can be seen but
that samples agree more often than independent ones of a *known* accuracy would. This module knows nothing of askers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

__all__ = ["Agreement", "Correlation", "Independence", "Moments"]

Independence = Literal["unknown", "consistent", "contradicted"]
"""What is known of it: nothing; that nothing speaks against it; that something does."""

DELTA = 0.01
"""The chance of a false alarm, over everything that one vote is ever asked."""
FEWEST = 20
"""Questions without which nothing is said."""
_STEPS = 9
"""Alternatives that are bet on."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """How the samples of a question hang together.

    ``value``: the correlation of two samples of a question being right (the intraclass correlation of Fisher,
    *Statistical Methods for Research Workers*, 1925, §38): 0 where errors are independent and all questions equally
    hard, 1 where all samples of a question are right or all wrong. ``low`` and ``high``: its interval at 99 %. All are
    ``None`` where they cannot be told. ``accuracy``: of single samples. ``questions``: with two samples or more.
    """

    questions: int
    accuracy: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def independence(self) -> Independence:
        """``contradicted`` when the interval lies above zero."""
        if self.low is None or self.questions < FEWEST:
            return "unknown"
        return "contradicted" if self.low > 0 else "consistent"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "questions": self.questions,
            "accuracy": self.accuracy,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "independence": self.independence,
        }


class Moments:
    """Sums over questions, from which their correlation is told: as many questions as there are, in no memory."""

    def __init__(self, rows: Iterable[tuple[int, int]] = ()) -> None:
        self.questions = 0
        self._share = self._pair = self._share2 = self._pair2 = self._both = 0.0
        for right, samples in rows:
            self.add(right, samples)

    def add(self, right: int, samples: int) -> None:
        """Count a question of whose ``samples`` so many were right. One with fewer than two samples tells nothing."""
        if samples < 2:
            return
        share, pair = right / samples, right * (right - 1) / (samples * (samples - 1))
        self.questions += 1
        self._share += share
        self._pair += pair
        self._share2 += share * share
        self._pair2 += pair * pair
        self._both += share * pair

    def correlation(self, delta: float = DELTA) -> Correlation:
        """What they say, at confidence 1 - ``delta``.

        The share of pairs in which both are right is p² + value p(1 - p); p² is estimated from pairs of different
        questions. The interval comes from the spread over questions (the delta method), with Student's quantiles.
        """
        n = self.questions
        if n < 2:
            return Correlation(n, self._share / n if n else None)
        p, pair = self._share / n, self._pair / n
        square = (self._share**2 - self._share2) / (n * (n - 1))
        scale = p - square
        if scale <= 1e-12:  # all right, or all wrong
            return Correlation(n, p)
        value = (pair - square) / scale
        # How much one question moves the estimate: a in its share of pairs, b in its share of right samples.
        a, b = 1 / scale, (-2 * p - value * (1 - 2 * p)) / scale
        pair_spread, share_spread = self._pair2 / n - pair * pair, self._share2 / n - p * p
        both = self._both / n - pair * p
        variance = a * a * pair_spread + b * b * share_spread + 2 * a * b * both
        margin = _student(1 - delta / 2, n - 1) * math.sqrt(max(variance, 0.0) / (n - 1))
        return Correlation(n, p, value, max(value - margin, -1.0), min(value + margin, 1.0))


class Agreement:
    """Running evidence over the questions of one vote; safe to share between threads. It keeps a few numbers.

    ``accuracy``: that of single samples, where it is known. Two independent samples of it agree with probability
    p² + (1 - p)² at most, whatever the wrong answers are. Pairs are counted of which both were asked before either was
    known, and a bet is held on their agreeing more often: where they do not, the chance that it *ever* reaches
    1/``DELTA`` is at most ``DELTA`` (Ville 1939), so it may be looked at after every question. With a ``check`` that
    says which samples are right, the correlation is estimated too, and looked at each time that the number of
    questions has doubled.
    """

    def __init__(self, accuracy: float | None = None) -> None:
        self._lock = threading.Lock()
        self._most = None if accuracy is None else min(accuracy**2 + (1 - accuracy) ** 2, 1 - 1e-9)
        self._logs = [0.0] * _STEPS
        self._checked = Moments()
        self._found: str | None = None
        self.pairs = 0
        self.agreeing = 0

    def add(self, forms: list[str], right: list[bool] | None = None) -> None:
        """Count the samples of one question that were asked whatever they would be. ``right``: which of them are."""
        with self._lock:
            for one, other in zip(forms[::2], forms[1::2], strict=False):  # pairs that share no sample
                self._pair(one == other)
            if right is not None and len(right) > 1:
                self._checked.add(sum(right), len(right))
                self._look()

    @property
    def evidence(self) -> float | None:
        """What one unit bet on it has become; ``None`` where no accuracy is known."""
        if self._most is None:
            return None
        with self._lock:
            return self._value()

    @property
    def warning(self) -> str | None:
        """That errors are correlated, in words, once it was seen."""
        return self._found

    @property
    def independence(self) -> Independence:
        """What is known of it so far."""
        if self._found is not None:
            return "contradicted"
        known = self.pairs >= FEWEST and self._most is not None
        return "consistent" if known or self._checked.questions >= 2 * FEWEST else "unknown"

    def _pair(self, agree: bool) -> None:
        self.pairs += 1
        self.agreeing += agree
        most = self._most
        if most is None:
            return
        for step in range(_STEPS):
            bet = most + (1 - most) * (step + 1) / (_STEPS + 1)
            self._logs[step] += math.log(bet / most) if agree else math.log((1 - bet) / (1 - most))
        if self._found is None and self._value() >= 1 / DELTA:
            self._found = (
                f"samples agree more often ({self.agreeing} of {self.pairs} pairs) than independent ones of the stated"
                f" accuracy can ({most:.0%}): errors are correlated, and more samples gain less than it seems"
            )

    def _value(self) -> float:
        return math.fsum(math.exp(min(log, 600.0)) for log in self._logs) / _STEPS

    def _look(self) -> None:
        number = self._checked.questions
        if self._found is not None or number < FEWEST or number & (number - 1):
            return
        looks = number.bit_length() - FEWEST.bit_length() + 1
        told = self._checked.correlation(DELTA / 2**looks)
        if told.independence == "contradicted":
            self._found = (
                f"by the check, samples of one question are right or wrong together (correlation {told.value:.2f} over"
                f" {number} questions): errors are correlated, and more samples gain less than it seems"
            )


def _student(level: float, free: int) -> float:
    """Student's quantile, after Cornish and Fisher: from 20 degrees of freedom on to the second digit."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / free + second / free**2
