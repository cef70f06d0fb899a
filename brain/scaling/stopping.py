"""When a vote may stop: how far the leader has to be ahead, after each number of samples, and what comes of that.

Pure functions of numbers; this module knows nothing of askers. Exact figures are for two answers, one right: with more,
wrong answers are split, and a vote does better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from specialists.statistics import binomial_tail

from ..errors import ConfigurationError

__all__ = ["Prediction", "StopRule", "fixed_error"]

MOST_SAMPLES = 1000
"""Of one vote: more would change nothing, and tables grow with the square."""
_PATTERN = 9
"""Places of a rule at which the cheapest is searched for; the last stands for all that follow."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a rule does to independent samples of which each is right with the same probability, and else wrong in one
    way. ``error``: the probability that the vote is wrong. ``samples``: how many it asks on average."""

    error: float
    samples: float


@dataclass(frozen=True, slots=True)
class StopRule:
    """After ``n`` samples a vote stops when the leader is ``leads[n - 1]`` ballots before the next answer.

    It has ``len(leads)`` samples at most. ``curtailed``: it also stops when those that are left can change nothing.
    Make one with :meth:`fixed`, :meth:`lead`, :meth:`predictive` or :meth:`as_good_as`. Raises
    :class:`ConfigurationError` for leads that are no whole numbers from 1 up, or more than 1,000.
    """

    leads: tuple[int, ...]
    curtailed: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.leads, Sequence) or isinstance(self.leads, str):
            raise ConfigurationError(f"leads are numbers of ballots, one after each sample; not {self.leads!r:.200}")
        object.__setattr__(self, "leads", tuple(self.leads))
        _check_most(len(self.leads))
        if any(isinstance(lead, bool) or not isinstance(lead, int) or lead < 1 for lead in self.leads):
            raise ConfigurationError(f"a lead is a number of ballots from 1 up; these are {list(self.leads)!r:.200}")

    @classmethod
    def fixed(cls, most: int) -> StopRule:
        """No early stop: all samples are asked."""
        _check_most(most)
        return cls((most + 1,) * most, curtailed=False)

    @classmethod
    def lead(cls, lead: int, most: int) -> StopRule:
        """Stop at this lead, whenever it comes: Wald's sequential probability ratio test ("Sequential tests of
        statistical hypotheses", 1945). Of all rules that err as often on two answers, at the single accuracy ``p``,
        none asks less on average (Wald and Wolfowitz, "Optimum character of the sequential probability ratio test",
        1948). Without a ``most`` it errs with probability 1 / (1 + (p / (1 - p)) ** lead).
        """
        _check_most(most)
        return cls((lead,) * most)

    @classmethod
    def predictive(cls, most: int, error: float) -> StopRule:
        """Stop when all ``most`` samples would give another answer with a probability of ``error`` at most, judged by
        the samples so far and a uniform prior: the leader against the next, as the Beta rule of Aggarwal, Madaan, Yang
        and Mausam, "Let's Sample Step by Step: Adaptive-Consistency", 2023, but for the answer of the whole vote.
        """
        _check_most(most)
        if isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error < 0.5:
            raise ConfigurationError(f"error is a probability from 0 up to, not including, 0.5; not {error!r}")
        return _predictive(most, float(error))

    @classmethod
    def as_good_as(cls, fixed: int, accuracy: float = 0.6, *, most: int | None = None) -> StopRule:
        """The cheapest rule found that errs no more often than the majority of ``fixed`` samples (an odd number), where
        each is right with probability ``accuracy``. It may ask up to ``most``, by default three times as many, and asks
        fewer on average.

        Searched are all that want a lead of d or d + 1, whichever, at each of the first places where d can come, and
        the same at all later ones. The best mixtures of two of Wald's tests are among them, nearly.
        """
        if isinstance(fixed, bool) or not isinstance(fixed, int) or fixed < 1 or fixed % 2 == 0:
            raise ConfigurationError(f"a fixed vote that cannot tie has an odd number of samples, not {fixed!r}")
        if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0.5 < accuracy < 1:
            raise ConfigurationError(f"a vote helps where a single answer is right more often than not: {accuracy!r}")
        most = 3 * fixed if most is None else most
        _check_most(most)
        if most < fixed:
            raise ConfigurationError(f"{most} samples cannot be as good as {fixed}")
        return _as_good_as(fixed, float(accuracy), most)

    @property
    def most(self) -> int:
        """Samples at most."""
        return len(self.leads)

    @property
    def least(self) -> int:
        """Samples that are asked whatever they are."""
        return self.next(0, 0)

    def stops(self, asked: int, lead: float, *, equal: bool = True) -> bool:
        """Whether it stops after ``asked`` samples with this lead. ``equal``: each sample has one ballot at most, so
        that what is left can be counted."""
        if asked >= self.most:
            return True
        decided = self.curtailed and equal and lead > self.most - asked
        return asked > 0 and (decided or lead >= self.leads[asked - 1])

    def next(self, asked: int, lead: float, *, equal: bool = True) -> int:
        """How many more samples it takes at the least until it can stop: asked together, none is asked in vain."""
        for more in range(1, self.most - asked + 1):
            if self.stops(asked + more, lead + more, equal=equal):
                return more
        return 0

    def predict(self, accuracy: float, correlation: float = 0.0) -> Prediction:
        """Exactly what it does where a single sample is right with probability ``accuracy``.

        ``correlation``: that of two samples of a question being right. Above 0 the accuracy of questions follows a
        beta distribution, as in Skellam's beta-binomial ("A probability distribution derived from the binomial
        distribution by regarding the probability of success as variable", 1948). Raises ``ValueError``.
        """
        _check_chance(accuracy, correlation)
        errors, samples = [], []
        for asked, lead, ways in self._ends():
            right, wrong = (asked + lead) // 2, (asked - lead) // 2
            # Counted for a leader that is right; for one that is wrong there are as many ways.
            won = math.exp(math.log(ways) + _log_chance(right, wrong, accuracy, correlation))
            lost = math.exp(math.log(ways) + _log_chance(wrong, right, accuracy, correlation))
            errors.append(lost if lead else won / 2)
            samples.append(asked * (won + lost if lead else won))
        return Prediction(math.fsum(errors), math.fsum(samples))

    def _ends(self) -> Iterator[tuple[int, int, int]]:
        """Where it stops: samples, lead of the right answer (none negative), and in how many orders it comes there."""
        ways = {0: 1}
        for asked in range(1, self.most + 1):
            moved: dict[int, int] = {}
            for lead, count in ways.items():
                for step in (1, -1):
                    moved[lead + step] = moved.get(lead + step, 0) + count
            ways = {}
            for lead, count in moved.items():
                if not self.stops(asked, abs(lead)):
                    ways[lead] = count
                elif lead >= 0:
                    yield asked, lead, count


def fixed_error(samples: int, accuracy: float, correlation: float = 0.0) -> float:
    """The probability that the majority of ``samples`` is wrong, of which each is right with probability ``accuracy``;
    half of the ties are wrong. ``correlation`` as in :meth:`StopRule.predict`. Exact. Raises ``ValueError``."""
    if samples < 1:
        raise ValueError(f"a vote has one sample or more, not {samples}")
    _check_chance(accuracy, correlation)
    below, half = (samples - 1) // 2, samples % 2 == 0
    if correlation == 0:
        tails = [binomial_tail(right, samples, accuracy) for right in ((below, below + 1) if half else (below,))]
        return math.fsum(tails) / len(tails)
    logs = (
        (_log_ways(right, samples) + _log_chance(right, samples - right, accuracy, correlation), right * 2 == samples)
        for right in range(samples // 2 + 1 if half else below + 1)
    )
    return math.fsum(math.exp(log) / (2 if tie else 1) for log, tie in logs)


def _check_chance(accuracy: float, correlation: float) -> None:
    if not 0 <= accuracy <= 1 or not 0 <= correlation <= 1:
        raise ValueError("an accuracy and a correlation lie between 0 and 1")


def _log_ways(right: int, samples: int) -> float:
    return math.lgamma(samples + 1) - math.lgamma(right + 1) - math.lgamma(samples - right + 1)


def _log_chance(right: int, wrong: int, accuracy: float, correlation: float) -> float:
    """The logarithm of the probability of samples in one order of which so many are right."""
    if accuracy in (0, 1):
        return 0.0 if (wrong if accuracy else right) == 0 else -math.inf
    if correlation == 1:  # all of a question are as the first
        logs = [math.log(accuracy)] * (wrong == 0) + [math.log1p(-accuracy)] * (right == 0)
        return logs[0] if logs else -math.inf
    if correlation < 1e-9:  # the difference of gammas would keep no digit of it
        return right * math.log(accuracy) + wrong * math.log1p(-accuracy)
    spread = (1 - correlation) / correlation
    for_it, against = accuracy * spread, (1 - accuracy) * spread
    return (math.lgamma(for_it + right) - math.lgamma(for_it) + math.lgamma(against + wrong) - math.lgamma(against)) - (
        math.lgamma(spread + right + wrong) - math.lgamma(spread)
    )


def _check_most(most: int) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SAMPLES:
        raise ConfigurationError(f"a vote has 1 to {MOST_SAMPLES:,} samples at most, not {most!r}")


@lru_cache(maxsize=256)
def _predictive(most: int, error: float) -> StopRule:
    leads: list[int] = []
    last = 1
    for asked in range(1, most):
        lead = max(last - 1, 2 - asked % 2)  # a lead is even after an even number of samples; it rises by one at most
        lead += (lead - asked) % 2
        while lead > 2 and _changes(asked, lead - 2, most) <= error:
            lead -= 2
        while lead <= asked and _changes(asked, lead, most) > error:
            lead += 2
        leads.append(lead if lead <= asked else most + 1)
        last = lead
    return StopRule((*leads, 1))


def _changes(asked: int, lead: int, most: int) -> float:
    """The probability that the answer which is ``lead`` ahead is not ahead in the end; a tie is half of that."""
    for_it, against, rest = (asked + lead) // 2, (asked - lead) // 2, most - asked
    # How many of the rest are for it is beta-binomial. The first term: none is.
    log = math.lgamma(asked + 2) - math.lgamma(against + 1) + math.lgamma(against + rest + 1) - math.lgamma(most + 2)
    term, total = math.exp(log), 0.0
    for more in range(rest + 1):
        end = lead + 2 * more - rest
        if end >= 0:
            return total + (term / 2 if end == 0 else 0.0)
        total += term
        term *= (rest - more) * (for_it + more + 1) / ((more + 1) * (against + rest - more))
    return total


@lru_cache(maxsize=256)
def _as_good_as(fixed: int, accuracy: float, most: int) -> StopRule:
    target = fixed_error(fixed, accuracy) * (1 + 1e-12)
    odds = accuracy / (1 - accuracy)
    low = 1
    while 1 / (1 + odds ** (low + 1)) > target:
        low += 1
    best, cost = StopRule.fixed(fixed), float(fixed)
    for lead in (low, low + 1):
        for pattern in range(2**_PATTERN):
            places = (min(max((asked - lead) // 2, 0), _PATTERN - 1) for asked in range(1, most + 1))
            rule = StopRule(tuple(lead + (pattern >> place & 1) for place in places))
            found = rule.predict(accuracy)
            if found.error <= target and found.samples < cost:
                best, cost = rule, found.samples
    return best
