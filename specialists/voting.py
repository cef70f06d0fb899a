"""A vote over symmetric variants of one input: what a specialist says of the same question turned around.

A Sudoku transposed is the same Sudoku, and its solution transposed back is the answer. A trained model is not exactly
symmetric, so the variants are as many further opinions, each as dear as the first.
This module knows nothing of models or rungs; it counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .ladder import jsonable
from .verifiers import Verdict

__all__ = ["Ballot", "Symmetry", "count_votes"]


@dataclass(frozen=True, slots=True)
class Symmetry:
    """A change of a specialist's input that changes its right answer in a known way.

    ``arguments(arguments)`` gives the variant's arguments; ``answer(arguments, value)`` turns the variant's answer back
    into one to the original question, whose arguments it is given. By default the answer stays as it is. Both must
    leave what they are given unchanged. ``name`` is for people.
    """

    name: str
    arguments: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    answer: Callable[[Mapping[str, Any], Any], Any] = lambda arguments, value: value


@dataclass(frozen=True, slots=True)
class Ballot:
    """One opinion: a value of the answer's type with its confidence, and what the verifier said, where it was asked."""

    value: Any
    confidence: float | None = None
    verdict: Verdict | None = None


def count_votes(ballots: Sequence[Ballot], asked: int) -> Ballot | None:
    """The value that wins; ``None`` when there is no ballot. ``asked``: how many were asked, answered or not.

    A value that passed the verifier goes before others, and one that failed it after them; then votes count, then the
    sum of the confidences, then who came first. The winner's confidence is the mean over all that were asked, in which
    a vote for it counts with its own confidence (one without any with 1), and everything else with 0.
    """
    if not ballots:
        return None
    groups: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        groups.setdefault(json.dumps(jsonable(ballot.value), sort_keys=True), []).append(ballot)
    rank = {"passed": 2, "unknown": 1, "failed": 0}

    def worth(group: list[Ballot]) -> tuple[int, int, float]:
        verdict = group[0].verdict
        return 1 if verdict is None else rank[verdict.status], len(group), _weight(group)

    winners = max(groups.values(), key=worth)  # of equals the first: groups stand in the order of their first ballot
    return Ballot(winners[0].value, min(1.0, _weight(winners) / max(asked, len(ballots))), winners[0].verdict)


def _weight(group: Sequence[Ballot]) -> float:
    return sum(1.0 if ballot.confidence is None else ballot.confidence for ballot in group)
