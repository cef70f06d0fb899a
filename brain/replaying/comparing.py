"""Two policies side by side on the same calls: counts, money, time, and paired differences."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from specialists import Attempt, Cost, Outcome, Policy

from ..errors import ConfigurationError
from .decisions import FORMAT, UNPRICED, cut_short, spend, told_difference
from .intervals import paired_intervals
from .policies import BIG, PolicyChange, Untried, Walk, walk
from .reading import Labels, Logged, attempts_of, is_function, run_of

__all__ = ["Comparison", "Difference", "Side", "compare"]


@dataclass
class Side:
    """What was counted for one policy."""

    accepted_by: Counter[str | None] = field(default_factory=Counter)
    local: int = 0
    """Calls whose answer was accepted from a rung on this machine."""
    escalated: int = 0
    """Calls in which the big model was asked."""
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(0)
    unpriced: int = 0
    """Attempts without a known price; then ``high`` holds for the others only."""
    cpu_seconds: float = 0.0
    cpu_unknown: int = 0
    """Attempts on this machine that state no CPU time."""
    seconds: float = 0.0
    wrong: int = 0
    """Accepted and wrong, of the labelled."""
    right: int = 0

    @property
    def abstained(self) -> int:
        """Calls without an accepted answer."""
        return self.accepted_by[None]

    @property
    def cost(self) -> Cost:
        """All attempts together."""
        return Cost.unpriced(self.low) if self.unpriced else Cost.bounded(self.low, self.high)

    def to_json(self, calls: int, labelled: int) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "local": self.local,
            "coverage": self.local / calls if calls else None,
            "escalated": self.escalated,
            "abstained": self.abstained,
            "accepted_by": {by or "none": count for by, count in sorted(self.accepted_by.items(), key=str)},
            "cost": self.cost.to_json(),
            "unpriced": self.unpriced,
            "cpu_seconds": self.cpu_seconds,
            "cpu_unknown": self.cpu_unknown,
            "seconds": self.seconds,
            "wrong_accepted": self.wrong if labelled else None,
            "right_accepted": self.right if labelled else None,
        }

    def add(
        self, tried: Sequence[Attempt], taken: Sequence[int], policy: Policy, by: str | None, rung: str | None
    ) -> bool:
        """Count one call. Returns whether its answer was accepted from a rung on this machine."""
        kinds = {each.name: each.kind for each in policy.rungs}
        local = by is not None and kinds[rung or ""] not in BIG
        self.accepted_by[by] += 1
        self.local += local
        self.escalated += any(kinds[tried[index].rung] in BIG for index in taken)
        for index in taken:
            attempt = tried[index]
            self.seconds += attempt.seconds
            if attempt.cpu_seconds is not None:
                self.cpu_seconds += attempt.cpu_seconds
            else:
                self.cpu_unknown += kinds[attempt.rung] not in BIG
            cost = attempt.cost or UNPRICED
            self.low += cost.low
            if cost.high is None:
                self.unpriced += 1
            else:
                self.high += cost.high
        return local


@dataclass(frozen=True)
class Difference:
    """The mean over calls of new minus logged, and its paired 95 % interval over runs.

    ``mean`` is an interval itself where prices are bounded. ``interval`` is ``None`` where it cannot be told: there is
    one run, or the runs do not differ in it. ``basis``: ``"low"`` when something unpriced made the difference, so that
    it was taken between the low ends of the costs.
    """

    mean: tuple[float, float]
    interval: tuple[float, float] | None
    basis: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        low, high = self.interval or (None, None)
        data = {"mean_low": self.mean[0], "mean_high": self.mean[1], "low": low, "high": high}
        return data if self.basis is None else {**data, "basis": self.basis}


_COLUMNS = ("calls", "local", "cpu", "wall", "cost_least", "cost_most", "cost_low", "labelled", "wrong")


class _Runs:
    """Sums of the differences, one row for each run: what resampling needs, and no more."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.columns = {name: array("d") for name in _COLUMNS}

    def place(self, run: str) -> int:
        place = self.places.setdefault(run, len(self.places))
        if place == len(self.columns["calls"]):
            for column in self.columns.values():
                column.append(0.0)
        return place


@dataclass
class Comparison:
    """Another policy beside the logged one, on the same calls."""

    change: PolicyChange
    unit: str = "line"
    """What the numbers of calls count: lines of a log, or calls of a ledger."""
    calls: int = 0
    """Calls that are compared."""
    runs: int = 0
    functions: int = 0
    cut_short: int = 0
    """Calls that something from outside ended; they are not compared."""
    audits: int = 0
    """Compared calls with an audit. Its cost stands on neither side, except where the new policy asks for it."""
    logged: Side = field(default_factory=Side)
    replayed: Side = field(default_factory=Side)
    differences: dict[str, Difference] = field(default_factory=dict)
    other_value: int = 0
    """Both accept, with another value."""
    newly_accepted: int = 0
    no_longer_accepted: int = 0
    untried: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Calls whose end is unknown, by tool, rung and why."""
    not_reproduced: tuple[int, str] | None = None
    left_out: dict[str, set[str]] = field(default_factory=dict)
    """Rungs of the log, by tool, that the new policy does without."""
    overruled: set[str] = field(default_factory=set)
    """Tools whose new floor is not asked for, as a valid certificate stands above it."""
    labelled: int | None = None
    labels_unused: list[str] = field(default_factory=list)
    costs: tuple[dict[str, Decimal | None], dict[str, Decimal | None]] = field(
        default_factory=lambda: ({}, {}), repr=False
    )
    """The most that each run's calls cost, logged and under the new policy; ``None``: unpriced."""

    @property
    def unknown(self) -> int:
        """Calls whose end under the new policy the log cannot tell."""
        return sum(self.untried.values())

    @property
    def refused(self) -> str | None:
        """Why nothing is estimated; ``None``: it is."""
        if self.not_reproduced is not None:
            line, differs = self.not_reproduced
            return f"{self.unit} {line} is not what this ladder decides, so nothing is set beside it: {differs}"
        if not self.calls:
            return "the log has no calls of specialists that ended by themselves, so there is nothing to compare"
        if not self.untried:
            return None
        wanted = "; ".join(
            f"the policy would have asked {rung} of {tool} in {count:,} of {self.calls:,} calls where {why}"
            for (tool, rung, why), count in self.untried.most_common()
        )
        return (
            f"{wanted}. Nothing can be said of those, so nothing is estimated: log with a policy that tries it (or with"
            " a share of audited calls), or replay a policy that climbs less"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; the figures are ``null`` where refused."""
        refused = self.refused
        labelled = self.labelled or 0
        return {
            "policy": self.change.to_json(),
            "calls": self.calls,
            "runs": self.runs,
            "functions": self.functions,
            "cut_short": self.cut_short,
            "audits": self.audits,
            "refused": refused,
            "unknown": self.unknown,
            "untried": [
                {"tool": tool, "rung": rung, "why": why, "calls": count}
                for (tool, rung, why), count in self.untried.most_common()
            ],
            "left_out": {tool: sorted(rungs) for tool, rungs in self.left_out.items()},
            "labelled": self.labelled,
            "labels_unused": None if self.labelled is None else len(self.labels_unused),
            "logged": None if refused else self.logged.to_json(self.calls, labelled),
            "replayed": None if refused else self.replayed.to_json(self.calls, labelled),
            "difference": None if refused else {name: each.to_json() for name, each in self.differences.items()},
            "other_value": None if refused else self.other_value,
            "newly_accepted": None if refused else self.newly_accepted,
            "no_longer_accepted": None if refused else self.no_longer_accepted,
            "format": FORMAT,
        }


def compare(log: Iterable[Logged], change: PolicyChange, *, labels: Labels | None = None) -> Comparison:
    """Walk another policy over every logged call.

    When the end of one call is unknown, :attr:`Comparison.refused` says so and nothing is estimated: the calls that a
    log can answer for are not like those that it cannot. Raises ``ConfigurationError`` for a tool that ``change``
    names and the log does not have, and for labels that fit several calls.
    """
    result = Comparison(change, unit=getattr(log, "unit", "line"))
    runs = _Runs()
    tools: set[str] = set()
    policies: dict[tuple[str | None, Policy], Policy] = {}
    unpriced = 0
    if labels is not None:
        result.labelled = 0
    for line, outcome in log:
        tried = attempts_of(outcome)
        made = tuple(range(len(outcome.attempts)))
        if is_function(outcome):
            result.functions += 1
        else:
            tools.add(outcome.tool or "")
            if (differs := told_difference(outcome)) is not None:
                result.calls += 1
                result.not_reproduced = result.not_reproduced or (line, differs)
                continue
        if is_function(outcome) or cut_short(outcome):
            result.cut_short += not is_function(outcome)
            for costs in result.costs:
                spend(costs, outcome, line, range(len(tried)))
            continue
        key = outcome.tool, outcome.policy
        policy = policies.get(key)
        if policy is None:
            if len(policies) > 1000:
                policies.clear()
            policy = policies[key] = change.of(*key)
            _note(result, outcome, policy)
        result.calls += 1
        result.audits += len(tried) > len(made)
        spend(result.costs[0], outcome, line, range(len(tried)))
        place, columns = runs.place(run_of(outcome, line)), runs.columns
        end = walk(policy, outcome)
        if isinstance(end, Untried):
            result.untried[outcome.tool or "?", end.rung, end.why] += 1
            continue
        # An audit would be drawn under the new policy too, unless it asks for that answer anyway.
        spend(result.costs[1], outcome, line, {*end.attempts, *range(len(made), len(tried))})
        was_local = result.logged.add(tried, made, outcome.policy, outcome.accepted_by, outcome.answered_by)
        is_local = result.replayed.add(tried, end.attempts, policy, end.accepted_by, end.rung)
        columns["calls"][place] += 1
        columns["local"][place] += is_local - was_local
        more = [tried[index] for index in end.attempts if index not in made]
        less = [tried[index] for index in made if index not in end.attempts]
        unpriced += _add_amounts(columns, place, more, less)
        value = None if end.rung is None else tried[end.attempts[-1]].value
        _count_values(result, outcome, end, value)
        if labels is not None:
            has, expected = labels.take(outcome, line, result.unit)
            if has:
                _judge(result, columns, place, expected, outcome, end, value)
    _check_named(change, tools)
    result.runs = len(runs.places)
    if labels is not None:
        result.labels_unused = labels.unused()
    if result.refused is None:
        result.differences = _differences(runs, bool(unpriced), bool(result.labelled))
    return result


def _add_amounts(
    columns: Mapping[str, array[float]], place: int, more: Sequence[Attempt], less: Sequence[Attempt]
) -> int:
    """Add what the new policy pays for beside the logged one, and saves; what both pay for cancels out exactly.

    Returns how many of these have no price.
    """
    unpriced = 0
    for sign, attempts in ((1, more), (-1, less)):
        for attempt in attempts:
            columns["wall"][place] += sign * attempt.seconds
            columns["cpu"][place] += sign * (attempt.cpu_seconds or 0.0)
            cost = attempt.cost or UNPRICED
            low, high = float(cost.low), float(cost.low if cost.high is None else cost.high)
            unpriced += cost.high is None
            columns["cost_low"][place] += sign * low
            columns["cost_least"][place] += sign * (low if sign > 0 else high)
            columns["cost_most"][place] += sign * (high if sign > 0 else low)
    return unpriced


def _count_values(result: Comparison, outcome: Outcome[Any], end: Walk, value: Any) -> None:
    if outcome.accepted and end.accepted_by is not None:
        result.other_value += outcome.value != value
    else:
        result.newly_accepted += not outcome.accepted and end.accepted_by is not None
        result.no_longer_accepted += outcome.accepted and end.accepted_by is None


def _judge(
    result: Comparison,
    columns: Mapping[str, array[float]],
    place: int,
    expected: Any,
    outcome: Outcome[Any],
    end: Walk,
    value: Any,
) -> None:
    from specialists.evaluation import same_answer

    wrong = []
    sides = ((result.logged, outcome.accepted, outcome.value), (result.replayed, end.accepted_by is not None, value))
    for side, accepted, answer in sides:
        right = accepted and expected is not None and same_answer(expected, answer)
        side.right += right
        side.wrong += accepted and not right
        wrong.append(accepted and not right)
    result.labelled = (result.labelled or 0) + 1
    columns["labelled"][place] += 1
    columns["wrong"][place] += wrong[1] - wrong[0]


def _note(result: Comparison, outcome: Outcome[Any], policy: Policy) -> None:
    """What a reader should know of the new policy for this tool."""
    tool = outcome.tool or "?"
    gone = {rung.name for rung in outcome.policy.rungs} - {rung.name for rung in policy.rungs}
    if gone:
        result.left_out.setdefault(tool, set()).update(gone)
    state = getattr(policy, "certificate", None)
    if tool in result.change.floors and state is not None and state.status == "valid":
        result.overruled.add(tool)


def _check_named(change: PolicyChange, tools: set[str]) -> None:
    strange = sorted(({*change.floors} | {*change.tools}) - tools)
    if strange:
        known = ", ".join(sorted(tools)) or "none"
        raise ConfigurationError(f"the log has no calls of a specialist {strange[0]!r}; those it has are {known}")


def _differences(runs: _Runs, unpriced: bool, labelled: bool) -> dict[str, Difference]:
    import numpy as np

    table = {name: np.frombuffer(column) for name, column in runs.columns.items()}
    shares = {"local": table["local"]}
    amounts = {name: table[name] for name in ("cpu", "wall", "cost_least", "cost_most", "cost_low")}
    found = paired_intervals({**shares, **amounts}, table["calls"], shares={"local"})
    calls = float(table["calls"].sum())
    mean = {name: float(column.sum()) / calls for name, column in table.items()}

    def plain(name: str, basis: str | None = None) -> Difference:
        return Difference((mean[name], mean[name]), found[name], basis)

    least, most = found["cost_least"], found["cost_most"]
    cost = (
        plain("cost_low", "low")
        if unpriced
        else Difference(
            (mean["cost_least"], mean["cost_most"]),
            None if least is None or most is None else (least[0], most[1]),
            "priced",
        )
    )
    result = {"local": plain("local"), "cost": cost, "cpu_seconds": plain("cpu"), "seconds": plain("wall")}
    if labelled:
        some = table["labelled"] > 0
        wrong, counts = table["wrong"][some], table["labelled"][some]
        average = float(wrong.sum() / counts.sum())
        interval = paired_intervals({"wrong": wrong}, counts, shares={"wrong"})["wrong"]
        result["wrong_accepted"] = Difference((average, average), interval)
    return result
