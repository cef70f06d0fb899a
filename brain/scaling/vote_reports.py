"""What a vote says of itself. This module asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specialists import Cost
from specialists.ladder import jsonable

from .correlations import Independence

__all__ = ["VoteCandidate", "VoteReport", "VoteSample", "short"]


@dataclass(frozen=True, slots=True)
class VoteSample:
    """One sample. ``value``: as JSON. ``form``: what it is compared by; ``None``: there is no value, or no form of it.
    ``weight``: what its ballot counts; 0: it has none. ``verdict``: of the query's check, where there is one.
    ``problem``: why it has no ballot. ``calls``: requests sent for it."""

    number: int
    value: Any = None
    form: str | None = None
    weight: float = 0.0
    verdict: str | None = None
    problem: str | None = None
    calls: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "number": self.number,
            "value": jsonable(self.value),
            "form": self.form,
            "weight": self.weight,
            "verdict": self.verdict,
            "problem": self.problem,
            "calls": self.calls,
        }


@dataclass(frozen=True, slots=True)
class VoteCandidate:
    """An answer that has ballots. ``value``: as JSON, of the first sample that gave it."""

    value: Any
    votes: int
    weight: float
    verdict: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "value": jsonable(self.value),
            "votes": self.votes,
            "weight": self.weight,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class VoteReport:
    """One vote. ``candidates``: the winner first. ``samples``: in the order in which they were asked. ``most``: how
    many it could have asked. ``ended``: why it asked no more. ``tied``: two answers had the same weight, and the first
    was taken. ``calls``, ``cost``: all that it took. ``independence``: what is known, from all questions that this vote
    was asked, of whether errors are independent; ``warnings`` say it in words where they are not."""

    candidates: tuple[VoteCandidate, ...]
    samples: tuple[VoteSample, ...]
    most: int
    ended: str
    calls: int
    cost: Cost
    tied: bool = False
    independence: Independence = "unknown"
    warnings: tuple[str, ...] = ()

    @property
    def asked(self) -> int:
        """How many samples were asked, answered or not."""
        return len(self.samples)

    @property
    def saved(self) -> int:
        """How many samples were not asked."""
        return self.most - self.asked

    @property
    def without_ballot(self) -> int:
        """How many samples have no ballot."""
        return sum(sample.weight == 0 for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "strategy": "vote",
            "candidates": [each.to_json() for each in self.candidates],
            "samples": [each.to_json() for each in self.samples],
            "asked": self.asked,
            "most": self.most,
            "ended": self.ended,
            "tied": self.tied,
            "calls": self.calls,
            "cost": self.cost.to_json(),
            "independence": self.independence,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        lines = [f"{self.asked} of at most {self.most} samples, {self.calls} calls, {self.cost}; {self.ended}"]
        for place, each in enumerate(self.candidates):
            weight = "" if each.weight == each.votes else f", weight {each.weight:g}"
            tie = ", tied with the next: it came first" if self.tied and place == 0 else ""
            lines.append(f"  {each.votes} x {short(each.value)}{weight}{tie}")
        if self.without_ballot:
            problem = next((sample.problem for sample in self.samples if sample.problem is not None), "without weight")
            lines.append(f"  {self.without_ballot} without a ballot, such as: {short(problem, 120)}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def short(value: Any, limit: int = 60) -> str:
    """In one printable line: what a model wrote draws nothing in a terminal."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
