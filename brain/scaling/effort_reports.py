"""What climbing through efforts says of itself. This module asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from specialists import Cost
from specialists.ladder import jsonable

from .vote_reports import short

__all__ = ["EffortLevel", "EffortReport", "EffortTry"]


@dataclass(frozen=True, slots=True)
class EffortTry:
    """One level asked. ``value``: as JSON. ``verdict``: of the check. ``settled``: whether it was enough. ``problem``:
    why there is no value."""

    level: str
    value: Any = None
    verdict: str | None = None
    confidence: float | None = None
    settled: bool = False
    problem: str | None = None
    calls: int = 0
    cost: Cost = field(default_factory=lambda: Cost.exact(0))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "level": self.level,
            "value": jsonable(self.value),
            "verdict": self.verdict,
            "confidence": self.confidence,
            "settled": self.settled,
            "problem": self.problem,
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }


@dataclass(frozen=True, slots=True)
class EffortReport:
    """One climb. ``tries``: in their order. ``chosen``: the level whose answer was given, ``None`` without one."""

    tries: tuple[EffortTry, ...]
    chosen: str | None
    levels: tuple[str, ...]
    calls: int
    cost: Cost

    @property
    def settled(self) -> bool:
        """Whether an answer was enough."""
        return any(each.settled for each in self.tries)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "strategy": "effort",
            "tries": [each.to_json() for each in self.tries],
            "chosen": self.chosen,
            "levels": list(self.levels),
            "settled": self.settled,
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }

    def __str__(self) -> str:
        chosen = "no effort was shown to be enough" if not self.settled else f"{self.chosen} was enough"
        lines = [f"{len(self.tries)} of {len(self.levels)} efforts, {self.calls} calls, {self.cost}; {chosen}"]
        for each in self.tries:
            said = f"no answer: {short(each.problem, 100)}" if each.problem is not None else short(each.value)
            verdict = "" if each.verdict is None else f", {each.verdict}"
            lines.append(f"  {each.level}: {said}{verdict}, {each.cost}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class EffortLevel:
    """One effort on labelled cases. ``accuracy``: the share of cases answered right. ``low`` and ``high``: the ends of
    its exact interval, each at the confidence of the whole fit (Bonferroni over the levels). ``meets``: whether ``low``
    reaches the target. ``calls``, ``cost``: of all its cases."""

    level: str
    cases: int
    right: int
    low: float
    high: float
    meets: bool
    calls: int
    cost: Cost

    @property
    def accuracy(self) -> float | None:
        """``None`` where no case was asked whole."""
        return self.right / self.cases if self.cases else None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "level": self.level,
            "cases": self.cases,
            "right": self.right,
            "accuracy": self.accuracy,
            "interval": [self.low, self.high],
            "meets": self.meets,
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }
