"""What a vote is worth on labelled cases, beside a single sample and what independent errors would allow, with its
money and calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specialists import Cost
from specialists.statistics import clopper_pearson

from .correlations import Correlation, Moments
from .forms import Canonical, canonical_form
from .labelled import Case, labelled_cases, one_purse
from .stopping import fixed_error
from .vote_reports import VoteReport

if TYPE_CHECKING:
    from .voting import Vote

__all__ = ["VoteMeasure", "measured"]

LEVEL = 0.05
_FOREVER = 1001
"""So many samples stand for any number."""


@dataclass(frozen=True, slots=True)
class VoteMeasure:
    """A vote on labelled cases.

    ``accuracy``: share of cases that the vote answers right, with its exact 95 % interval ``low`` .. ``high``; a case
    without an answer is not right. ``single``: the accuracy of a single sample, and its interval. ``samples``: asked a
    case. ``predicted``: the accuracy that this very vote would have with independent errors, at the accuracy of the
    single samples, with one wrong answer (with several it would be higher). ``correlation``: of the samples of a case.
    ``within``: the accuracy that is predicted with that correlation. ``ceiling``: the same for a vote of any size.
    ``calls`` and ``cost``: of all cases together. ``stopped``: why fewer cases were asked than were given.
    """

    cases: int
    answered: int
    accuracy: float
    low: float
    high: float
    single: float | None
    single_low: float | None
    single_high: float | None
    samples: float
    most: int
    predicted: float | None
    correlation: Correlation
    within: float | None
    ceiling: float | None
    calls: int
    cost: Cost
    stopped: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known before this vote is used."""
        said = []
        if self.correlation.independence == "contradicted" and self.single is not None:
            found = self.correlation
            text = (
                f"errors are correlated ({found.value:.2f}, from {found.low:.2f} to {found.high:.2f}): samples of one"
                " question are right or wrong together, because questions are not equally hard or errors have a common"
                f" cause; independent ones would give {self.predicted:.1%} where this vote gives {self.accuracy:.1%}"
            )
            if self.ceiling is not None:
                text += f", and however many samples give about {self.ceiling:.1%} at most"
            said.append(text)
        if self.correlation.independence == "unknown":
            said.append(
                f"whether errors are correlated is unknown: {self.correlation.questions} cases with two samples or more"
                " of each that differ in anything are too few"
            )
        if self.single is not None and self.cases and self.accuracy <= self.single:
            said.append(f"a single sample is right in {self.single:.1%}: here the vote only costs more")
        if self.answered < self.cases:
            said.append(f"{self.cases - self.answered} of {self.cases} cases have no answer, which counts as wrong")
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "strategy": "vote",
            "cases": self.cases,
            "answered": self.answered,
            "accuracy": self.accuracy,
            "interval": [self.low, self.high],
            "single": self.single,
            "single_interval": [self.single_low, self.single_high],
            "samples": self.samples,
            "most": self.most,
            "predicted_if_independent": self.predicted,
            "correlation": self.correlation.to_json(),
            "predicted_with_correlation": self.within,
            "ceiling": self.ceiling,
            "calls": self.calls,
            "cost": self.cost.to_json(),
            "stopped": self.stopped,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        lines = [
            f"vote of at most {self.most}: {self.accuracy:.1%} of {self.cases} cases right"
            f" ({self.low:.1%} to {self.high:.1%}), {self.samples:.2f} samples and"
            f" {self.calls / max(self.cases, 1):.2f} calls a case, {self.cost} in all"
        ]
        if self.single is not None:
            lines.append(f"  a single sample: {self.single:.1%} ({self.single_low:.1%} to {self.single_high:.1%})")
        if self.predicted is not None:
            lines.append(f"  with independent errors it would be {self.predicted:.1%}")
        if self.correlation.independence == "consistent":
            lines.append(f"  no correlation of errors was seen (at most {self.correlation.high:.2f})")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if self.stopped is not None:
            lines.append(f"  stopped: {self.stopped}")
        return "\n".join(lines)


async def measured(
    vote: Vote, cases: Iterable[Case] | Mapping[str, Any], canonical: Canonical | None, at_once: int, how: Any
) -> VoteMeasure:
    """What :meth:`Vote.measure` returns."""
    given = labelled_cases(cases, canonical)
    asked = await given.ask(vote, at_once, one_purse(how))
    solutions = asked.solutions
    rule, right, answered, samples = vote.rule, 0, 0, 0
    singles, shares = Moments(), list[float]()
    for form, solution in zip(given.forms, solutions, strict=False):
        report = solution.report
        if not isinstance(report, VoteReport):  # it had not begun
            continue
        samples += report.asked
        answered += solution.answered
        right += solution.answered and canonical_form(solution.value, canonical) == form
        fair = [sample.form == form for sample in report.samples[: rule.least]]
        if len(fair) < rule.least:
            continue
        shares.append(sum(fair) / len(fair))
        singles.add(sum(fair), len(fair))
    n = len(solutions)
    low, high = clopper_pearson(n - right, n, LEVEL)
    correlation = singles.correlation()
    single = sum(shares) / len(shares) if shares else None
    interval = _interval(shares)
    predicted = within = ceiling = None
    if single is not None:
        predicted = 1 - rule.predict(single).error
        if correlation.value is not None:
            value = min(max(correlation.value, 0.0), 1.0)
            within = 1 - rule.predict(single, value).error
            ceiling = max(1 - fixed_error(_FOREVER, single, value), within)
    return VoteMeasure(
        cases=n,
        answered=answered,
        accuracy=right / n,
        low=1 - high,
        high=1 - low,
        single=single,
        single_low=None if interval is None else interval[0],
        single_high=None if interval is None else interval[1],
        samples=samples / n,
        most=rule.most,
        predicted=predicted,
        correlation=correlation,
        within=within,
        ceiling=ceiling,
        calls=asked.calls,
        cost=asked.cost,
        stopped=asked.stopped,
    )


def _interval(shares: Sequence[float]) -> tuple[float, float] | None:
    """At 95 %, of a mean over cases with several samples each: the exact interval for as many independent samples as
    have the spread that was seen (Korn and Graubard, "Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data", 1998)."""
    n = len(shares)
    if n == 0:
        return None
    mean = sum(shares) / n
    variance = sum((share - mean) ** 2 for share in shares) / max(n - 1, 1) / n
    alike = n if variance == 0 else max(1, math.floor(mean * (1 - mean) / variance))
    low, high = clopper_pearson(round(alike * mean), alike, LEVEL)
    return min(low, mean), max(high, mean)
