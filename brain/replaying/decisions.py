"""Are the logged decisions those that ``decide`` makes of the logged attempts?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from specialists import Cost, Outcome
from specialists.ladder import Abstain, Accept, Climb, Decision, decide

from .reading import Logged, attempts_of, is_function, run_of

__all__ = ["FORMAT", "UNPRICED", "Reproduction", "cut_short", "difference", "reproduce", "spend", "told_difference"]

FORMAT = 1
"""Version of :meth:`Reproduction.to_json` and :meth:`Comparison.to_json`."""

UNPRICED = Cost.unpriced()


def cut_short(outcome: Outcome[Any]) -> bool:
    """Whether something from outside ended the call (a cancellation, a failure around the rungs), not the ladder."""
    if outcome.accepted:
        return False
    if not outcome.attempts or outcome.attempts[-1].outcome == "cancelled":
        return bool(outcome.policy.rungs)
    if not isinstance(decide(outcome.policy, outcome.attempts), Climb):
        return False
    # Where the log has the very words of an abstention, the ladder itself ended there.
    last = [rung.name for rung in outcome.policy.rungs].index(outcome.attempts[-1].rung)
    shorter = replace(outcome.policy, rungs=outcome.policy.rungs[: last + 1])
    return decide(shorter, outcome.attempts) != Abstain(outcome.reason or "")


def difference(outcome: Outcome[Any]) -> str | None:
    """How a logged outcome differs from what ``decide`` makes of its attempts; ``None``: every decision is the same."""
    attempts = outcome.attempts
    rungs = {rung.name for rung in outcome.policy.rungs}
    strange = next((attempt.rung for attempt in attempts if attempt.rung not in rungs), None)
    if strange is not None:
        return f"its policy has no rung {strange!r}, and the log tried it"
    for count, attempt in enumerate(attempts):
        move = decide(outcome.policy, attempts[:count])
        if move != Climb(attempt.rung):
            return f"after {_attempts(count)} the ladder {_said(move)}, and the log goes on to {attempt.rung!r}"
    end = decide(outcome.policy, attempts)
    logged = "the call is not accepted"
    if outcome.accepted:
        logged = f"the answer of {outcome.answered_by!r} is accepted as {outcome.accepted_by}"
    if isinstance(end, Accept):
        if (outcome.accepted_by, outcome.answered_by) != (end.by, attempts[-1].rung):
            return f"after {_attempts(len(attempts))} the ladder {_said(end)}, and in the log {logged}"
        if outcome.value != attempts[-1].value:
            return f"the ladder takes the value of {attempts[-1].rung!r}, and the log has another"
        return None
    if outcome.accepted or not (isinstance(end, Abstain) or cut_short(outcome)):
        return f"after {_attempts(len(attempts))} the ladder {_said(end)}, and in the log {logged}"
    return None


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _said(move: Decision) -> str:
    if isinstance(move, Accept):
        return f"accepts as {move.by}"
    return f"goes on to {move.rung!r}" if isinstance(move, Climb) else "abstains"


@dataclass
class Reproduction:
    """What came of replaying a log under its own policies."""

    calls: int = 0
    """Calls of specialists."""
    functions: int = 0
    """Calls of plain tools, which have no ladder."""
    cut_short: int = 0
    """Of ``calls``: ended from outside. Their last decision was never made."""
    decisions: int = 0
    reproduced: int = 0
    """Decisions of calls that are reproduced as a whole."""
    differing: int = 0
    """Calls that are not."""
    first: tuple[int, str] | None = None
    """Line and sentence of the first that differs."""
    costs: dict[str, Decimal | None] = field(default_factory=dict, repr=False)
    """The most that each run's calls cost; ``None``: unpriced."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "calls": self.calls,
            "functions": self.functions,
            "cut_short": self.cut_short,
            "decisions": self.decisions,
            "reproduced": self.reproduced,
            "differing": self.differing,
            "first": None if self.first is None else {"line": self.first[0], "difference": self.first[1]},
            "format": FORMAT,
        }


def reproduce(log: Iterable[Logged]) -> Reproduction:
    """Replay each logged outcome under the policy it was made under, and count the decisions that are the same."""
    result = Reproduction()
    for line, outcome in log:
        spend(result.costs, outcome, line, range(len(attempts_of(outcome))))
        if is_function(outcome):
            result.functions += 1
            continue
        result.calls += 1
        differs = told_difference(outcome)
        short = differs is None and cut_short(outcome)
        made = len(outcome.attempts) + (not short)
        result.decisions += made
        result.cut_short += short
        if differs is None:
            result.reproduced += made
        else:
            result.differing += 1
            result.first = result.first or (line, differs)
    return result


def told_difference(outcome: Outcome[Any]) -> str | None:
    """:func:`difference`, with the tool's name before it."""
    differs = difference(outcome)
    return None if differs is None else f"a call of {outcome.tool}: {differs}"


def spend(costs: dict[str, Decimal | None], outcome: Outcome[Any], line: int, places: Iterable[int]) -> None:
    tried = attempts_of(outcome)
    run = run_of(outcome, line)
    so_far = costs.get(run, Decimal(0))
    for index in places:
        high = (tried[index].cost or UNPRICED).high
        so_far = None if so_far is None or high is None else so_far + high
    costs[run] = so_far
