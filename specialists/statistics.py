"""What can be claimed from counted errors, with which certainty, and when a claim no longer holds.

Exact tests and bounds for a share of errors, and two tests that may be looked at after every single observation. Pure
functions and small states over :mod:`math`; this module knows nothing of specialists, certificates or files.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

__all__ = [
    "DriftMartingale",
    "ShiftMartingale",
    "binomial_tail",
    "cases_needed",
    "clopper_pearson",
    "conformal_quantile",
    "conformal_risk_threshold",
    "fixed_sequence",
    "histogram",
    "most_errors",
    "predicted_audits",
    "upper_bound",
]


def binomial_tail(errors: int, n: int, rate: float) -> float:
    """P(X <= ``errors``) for X binomial with ``n`` cases and ``rate``: the exact p-value of "the true rate is at
    least ``rate``", given ``errors`` among ``n``. Raises ``ValueError`` for counts or a rate that cannot be.
    """
    _counts(errors, n)
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate lies between 0 and 1, not at {rate!r}")
    return _tail(errors, n, rate, 1 - rate)


def clopper_pearson(errors: int, n: int, delta: float) -> tuple[float, float]:
    """The exact two-sided interval of a rate at confidence 1 - ``delta``; (0, 1) when nothing was seen.

    Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934. Each end misses with
    probability ``delta`` / 2 at most. Raises ``ValueError`` for counts or a ``delta`` that cannot be.
    """
    _level("delta", delta)
    return _lower_bound(errors, n, delta / 2), upper_bound(errors, n, delta / 2)


def upper_bound(errors: int, n: int, delta: float) -> float:
    """The exact one-sided upper bound of a rate at confidence 1 - ``delta`` (Clopper and Pearson 1934).

    It is the least rate at which so few errors have a probability of ``delta`` at most. Raises ``ValueError``.
    """
    _counts(errors, n)
    _level("delta", delta)
    return 1.0 if errors == n else _root(lambda rate: _tail(errors, n, rate, 1 - rate) <= delta)


def _lower_bound(errors: int, n: int, delta: float) -> float:
    _counts(errors, n)
    # At least `errors` errors are at most `n - errors` right ones.
    return 0.0 if errors == 0 else _root(lambda rate: _tail(n - errors, n, 1 - rate, rate) > delta)


def most_errors(n: int, alpha: float, delta: float) -> int | None:
    """The most errors among ``n`` with which "the error rate is at most ``alpha``" can be claimed at confidence
    1 - ``delta``; ``None`` when not even none would do. Raises ``ValueError``.
    """
    _counts(0, n)
    _level("alpha", alpha)
    _level("delta", delta)
    low, high = -1, n  # the claim holds with `low` errors, and not with `high`: a tail of all cases is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_tail(middle, n, alpha) <= delta else (low, middle)
    return None if low < 0 else low


def cases_needed(alpha: float, delta: float, errors: int = 0) -> int:
    """The fewest cases with which ``errors`` errors allow the claim "at most ``alpha``" at confidence 1 - ``delta``.

    299 for one percent, 95 % and no error. Raises ``ValueError``.
    """
    _counts(errors, errors)
    _level("alpha", alpha)
    _level("delta", delta)
    low = high = errors  # the tail of all cases is 1
    while binomial_tail(errors, high, alpha) > delta:
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_tail(errors, middle, alpha) <= delta else (middle, high)
    return high


def fixed_sequence(p_values: Iterable[float], delta: float) -> int:
    """How many hypotheses from the front are rejected: up to the first whose p-value is above ``delta``.

    With an order that was fixed beforehand, the chance that any true one is among them is at most ``delta``, without
    a correction. Bauer, "Multiple testing in clinical trials", 1991; Angelopoulos, Bates, Candès, Jordan and Lei,
    "Learn then Test", 2021, section 2.3. NaN rejects nothing. Raises ``ValueError`` for a ``delta`` that cannot be.
    """
    _level("delta", delta)
    count = 0
    for p_value in p_values:
        if not p_value <= delta:
            break
        count += 1
    return count


def conformal_quantile(values: Sequence[float], level: float) -> float | None:
    """The ceil((n + 1) * ``level``)-th smallest value: a new exchangeable one is not above it with probability
    ``level`` at least. ``None`` when ``values`` are too few for that level: then nothing is known.

    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Lei, G'Sell, Rinaldo, Tibshirani and
    Wasserman, "Distribution-free predictive inference for regression", 2018. Raises ``ValueError`` for NaN.
    """
    _level("level", level)
    if any(math.isnan(value) for value in values):
        raise ValueError("a quantile of values with NaN among them is not known")
    rank = math.ceil((len(values) + 1) * _as_written(level))
    return None if rank > len(values) else sorted(values)[rank - 1]


def conformal_risk_threshold(cases: Iterable[tuple[float | None, bool]], alpha: float) -> float | None:
    """The laxest threshold at which a new exchangeable case is accepted *and* wrong with probability at most
    ``alpha``; ``None`` when there is none.

    ``cases``: confidence and whether the answer is wrong; one without a confidence is never accepted and still counts
    as a case. Accepted is whoever reaches the threshold, so equal confidences stand or fall together. It is the least
    confidence t with n/(n+1) * risk(t) + 1/(n+1) <= ``alpha``: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal
    Risk Control", 2022, theorem 1, for the loss "accepted and wrong", which falls with a stricter threshold and is 1 at
    most. It bounds a mean over calibrations, not each one with confidence. Raises ``ValueError`` for NaN.
    """
    _level("alpha", alpha)
    kept = list(cases)
    scored = [(confidence, bool(wrong)) for confidence, wrong in kept if confidence is not None]
    if any(math.isnan(confidence) for confidence, _ in scored):
        raise ValueError("a confidence is a number or None, not NaN")
    allowed = _as_written(alpha) * (len(kept) + 1)
    errors, threshold = 1, None  # the 1: as if the new case were wrong
    for confidence, tied in groupby(sorted(scored, reverse=True), key=lambda case: case[0]):
        errors += sum(wrong for _, wrong in tied)
        if errors > allowed:
            break
        threshold = confidence
    return threshold


MULTIPLES = (2, 4, 8, 16)
"""The alternatives that are bet on, as multiples of the null."""

_CAP = 1e200
"""No stake grows above this: a smaller one is as valid, and infinity is no number in JSON."""


@dataclass
class ShiftMartingale:
    """A bet against "each audited answer is wrong with probability at most ``null``, whatever came before".

    Where that is true, the chance that :attr:`value` *ever* reaches 1/delta is at most delta (Ville, "Étude critique
    de la notion de collectif", 1939), so it may be looked at after each audit. An audit multiplies a stake on the
    alternative a by a/null for an error, else by (1-a)/(1-null): for each, the mean under the null is at most 1
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024). So that a late shift
    is not drowned by what was lost before it, a part of the first unit, R(t) - R(t+1) with R(t) = 1/(1 + log(1+t)),
    is only staked after audit t, for every t: a mixture over the moments of the shift (as the e-detectors of Shin,
    Ramdas and Rinaldo, 2023, made a single martingale by weights that sum to 1). Raises ``ValueError`` for a null
    that is not between 0 and 1.
    """

    null: float
    audits: int = 0
    errors: int = 0
    stakes: list[float] = field(default_factory=list)
    """What stands on each alternative, without its share of what is not staked yet."""

    def __post_init__(self) -> None:
        _level("null", self.null)
        self._factors = [
            ((1 - alternative) / (1 - self.null), alternative / self.null) for alternative in alternatives(self.null)
        ]
        self.stakes = self.stakes or [0.0] * len(self._factors)
        if len(self.stakes) != len(self._factors):
            raise ValueError(f"{len(self.stakes)} stakes for {len(self._factors)} alternatives")

    @property
    def value(self) -> float:
        """What one unit has become: evidence against the null, 1 before any audit."""
        return math.fsum(self.stakes) / len(self.stakes) + _rest(self.audits)

    def update(self, wrong: bool) -> float:
        """Count one audit, and return the new :attr:`value`."""
        new = _rest(self.audits) - _rest(self.audits + 1)
        self.stakes = [
            min((stake + new) * pair[wrong], _CAP) for stake, pair in zip(self.stakes, self._factors, strict=True)
        ]
        self.audits += 1
        self.errors += wrong
        return self.value

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"null": self.null, "audits": self.audits, "errors": self.errors, "stakes": list(self.stakes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShiftMartingale:
        """The inverse of :meth:`to_json`. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        return cls(float(data["null"]), int(data["audits"]), int(data["errors"]), [float(s) for s in data["stakes"]])


def alternatives(null: float) -> tuple[float, ...]:
    """The error rates that are bet on against ``null``: some multiples of it, none above nine tenths."""
    if null >= 0.9:
        return ((1 + null) / 2,)
    return tuple(sorted({min(multiple * null, 0.9) for multiple in MULTIPLES}))


def predicted_audits(
    rate: float, null: float, delta: float, after: int = 0, *, before: float | None = None, limit: int = 1_000_000
) -> int | None:
    """How many audits after a shift to the error rate ``rate``, which came after ``after`` audits, the bet against
    ``null`` reaches 1/``delta``: half of all streams are expected to take no longer. ``None``: not within ``limit``.

    The martingale's own recursion is run with the mean of the logarithm of each factor in place of the factor: first
    at ``before``, the error rate until the shift, then at ``rate``. Without ``before``, what was staked by then is
    taken for lost. Chance helps a mixture of bets more than it harms it, so the median of streams comes somewhat
    sooner. Raises ``ValueError``.
    """
    _level("rate", rate)
    _level("null", null)
    _level("delta", delta)
    stakes = [0.0] * len(alternatives(null))

    def bet(factors: list[float], audits: int) -> float:
        new = _rest(audits) - _rest(audits + 1)
        stakes[:] = [min((stake + new) * factor, _CAP) for stake, factor in zip(stakes, factors, strict=True)]
        return sum(stakes) / len(stakes) + _rest(audits + 1)

    if before is not None:
        usual = _growth(before, null)
        for audits in range(after):
            bet(usual, audits)
    factors = _growth(rate, null)
    return next((count for count in range(1, limit + 1) if bet(factors, after + count - 1) >= 1 / delta), None)


def _growth(rate: float, null: float) -> list[float]:
    """By what each stake grows in an audit, as a geometric mean, where answers are wrong at ``rate``."""
    _level("rate", rate)
    logs = [rate * math.log(a / null) + (1 - rate) * math.log((1 - a) / (1 - null)) for a in alternatives(null)]
    return [math.exp(each) for each in logs]


BETTING_BINS = 10
MEMORIES = (1.0, 0.995)
"""What a p-value's count is worth one observation later, for each of the two bettors: one for a small lasting drift,
one for a sudden late one."""


@dataclass
class DriftMartingale:
    """A bet against "the live confidences and those of the calibration are exchangeable".

    Where that is true, the chance that :attr:`value` *ever* reaches 1/level is at most level. Each confidence gets a
    conformal p-value among those of the calibration and all live ones before it (Vovk, Nouretdinov and Gammerman,
    "Testing exchangeability on-line", 2003); such p-values are independent and uniform, and bettors that learn a
    histogram of the past ones bet that they are not (Fedorova, Gammerman, Nouretdinov and Vovk, "Plug-in martingales
    for testing exchangeability on-line", 2012). Stakes are mixed over the moments of a change as in
    :class:`ShiftMartingale`. Exchangeability also fails where cases merely come in an order: it warns, no more.

    ``edges``: where one bin of confidences ends and the next begins, ascending; a confidence on an edge lies in the
    upper one. ``pool``: how many lie in each of the ``len(edges) + 1`` bins, and at last how many calls had no
    confidence; at first those of the calibration (:func:`histogram`). Raises ``ValueError`` where these do not fit.
    """

    edges: tuple[float, ...]
    pool: list[int]
    calls: int = 0
    bets: list[list[float]] = field(default_factory=lambda: [[0.0] * BETTING_BINS for _ in MEMORIES])
    stakes: list[float] = field(default_factory=lambda: [0.0] * len(MEMORIES))

    def __post_init__(self) -> None:
        self.edges, self.pool = tuple(self.edges), list(self.pool)
        check_histogram(self.edges, self.pool)
        if [len(counts) for counts in self.bets] != [BETTING_BINS] * len(MEMORIES) or len(self.stakes) != len(MEMORIES):
            raise ValueError("the state of a drift test has other bettors than this version's")
        self._total = sum(self.pool)

    @property
    def value(self) -> float:
        """What one unit has become: evidence against exchangeability, 1 before any call."""
        return math.fsum(self.stakes) / len(self.stakes) + _rest(self.calls)

    def update(self, confidence: float | None, chance: float) -> float:
        """Count one live confidence, and return the new :attr:`value`.

        ``chance`` breaks ties and must be uniform in [0, 1) and have nothing to do with the confidence: the caller
        takes it from a hash, so that the same calls give the same value. Raises ``ValueError`` outside of [0, 1).
        """
        if not 0 <= chance < 1:
            raise ValueError(f"a chance lies in [0, 1), not at {chance!r}")
        place = _bin(self.edges, confidence)
        self.pool[place] += 1
        self._total += 1
        p_value = (sum(self.pool[:place]) + chance * self.pool[place]) / self._total
        at = min(int(p_value * BETTING_BINS), BETTING_BINS - 1)
        new = _rest(self.calls) - _rest(self.calls + 1)
        for bettor, (counts, memory) in enumerate(zip(self.bets, MEMORIES, strict=True)):
            # Half a count to begin with, after Krichevsky and Trofimov: no bin is ever bet to be impossible.
            density = BETTING_BINS * (counts[at] + 0.5) / (sum(counts) + 0.5 * BETTING_BINS)
            self.stakes[bettor] = min((self.stakes[bettor] + new) * density, _CAP)
            if memory < 1:
                counts[:] = [count * memory for count in counts]
            counts[at] += 1
        self.calls += 1
        return self.value

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "edges": list(self.edges),
            "pool": list(self.pool),
            "calls": self.calls,
            "bets": [list(counts) for counts in self.bets],
            "stakes": list(self.stakes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DriftMartingale:
        """The inverse of :meth:`to_json`. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        bets = [[float(count) for count in counts] for counts in data["bets"]]
        edges, pool = tuple(map(float, data["edges"])), [int(count) for count in data["pool"]]
        return cls(edges, pool, int(data["calls"]), bets, [float(stake) for stake in data["stakes"]])


def histogram(
    confidences: Iterable[float | None], bins: int = 20, *, edges: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """``(edges, counts)`` of a calibration's confidences, as :class:`DriftMartingale` takes them.

    Without ``edges``, about equally many lie in each of at most ``bins`` bins. Raises ``ValueError``.
    """
    if bins < 1:
        raise ValueError(f"a histogram has one bin or more, not {bins}")
    kept = list(confidences)
    if edges is None:
        known = sorted(value for value in kept if value is not None and not math.isnan(value))
        edges = (
            sorted({known[len(known) * place // bins] for place in range(1, bins)} - set(known[:1])) if known else ()
        )
    counts = [0] * (len(edges) + 2)
    for value in kept:
        counts[_bin(edges, value)] += 1
    check_histogram(edges, counts)
    return tuple(edges), tuple(counts)


def check_histogram(edges: Sequence[float], counts: Sequence[int]) -> None:
    """Raise ``ValueError`` unless edges ascend and each bin, the one for no confidence included, has a count."""
    if not all(one < other for one, other in pairwise(edges)) or any(map(math.isnan, edges)):
        raise ValueError("the edges of a histogram ascend")
    if len(counts) != len(edges) + 2 or any(count < 0 for count in counts):
        raise ValueError(f"{len(edges)} edges have {len(edges) + 2} counts from zero up, the last for no confidence")


def _bin(edges: Sequence[float], confidence: float | None) -> int:
    if confidence is None or math.isnan(confidence):
        return len(edges) + 1
    return bisect_right(edges, confidence)


def _rest(count: int) -> float:
    """The share of the first unit that is not staked yet after ``count`` observations."""
    return 1 / (1 + math.log1p(count))


def _tail(errors: int, n: int, p: float, q: float) -> float:
    """P(X <= errors), with ``q`` = 1 - ``p`` beside ``p`` so that neither loses digits when it is small."""
    if errors >= n or p == 0:
        return 1.0
    if q == 0:
        return 0.0
    if errors < n * p:  # terms fall from here down
        term = total = _point(errors, n, p, q)
        odds = q / p
        for count in range(errors, 0, -1):
            term *= count * odds / (n - count + 1)
            total += term
            if term < total * 1e-17:
                break
        return min(total, 1.0)
    term = total = _point(errors + 1, n, p, q)
    odds = p / q
    for count in range(errors + 1, n):
        term *= (n - count) * odds / (count + 1)
        total += term
        if term < total * 1e-17:
            break
    return max(1 - total, 0.0)


def _point(count: int, n: int, p: float, q: float) -> float:
    """P(X = count), after Loader, "Fast and accurate computation of binomial probabilities", 2000.

    Factorials by their logarithms would lose as many digits as these logarithms are long.
    """
    if count == 0 or count == n:
        base = q if count == 0 else p
        other = p if count == 0 else q
        return math.exp(n * (math.log1p(-other) if other < 0.5 else math.log(base)))
    rest = n - count
    exponent = _stirling_error(n) - _stirling_error(count) - _stirling_error(rest)
    exponent -= _deviance(count, n * p) + _deviance(rest, n * q)
    return math.exp(exponent) * math.sqrt(n / (2 * math.pi * count * rest))


_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
_SMALL_STIRLING_ERRORS = [0.0] + [
    math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - _HALF_LOG_2_PI for n in range(1, 16)
]


def _stirling_error(n: int) -> float:
    """log(n!) without Stirling's formula for it."""
    if n < 16:
        return _SMALL_STIRLING_ERRORS[n]
    square = n * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / n


def _deviance(count: int, mean: float) -> float:
    """count * log(count / mean) + mean - count, without cancellation where the two are close."""
    difference = count - mean
    if abs(difference) >= 0.1 * (count + mean):
        return count * math.log(count / mean) - difference
    ratio = difference / (count + mean)
    total, term, odd = difference * ratio, 2 * count * ratio, 1
    while True:
        term *= ratio * ratio
        odd += 2
        if total + term / odd == total:
            return total
        total += term / odd


def _root(above: Callable[[float], bool]) -> float:
    """The point in [0, 1] from which on ``above`` holds, to the last digit."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if above(middle) else (middle, high)
        if high - low < 1e-16 * high:
            break
    return high


def _as_written(value: float) -> Fraction:
    """0.29 as 29/100: what was meant, where the float beside it would ask for one case more or fewer."""
    return Fraction(str(float(value)))


def _counts(errors: int, n: int) -> None:
    if not 0 <= errors <= n:
        raise ValueError(f"{errors} errors among {n} cases cannot be counted")


def _level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies between 0 and 1, and is neither, not {value!r}")
