"""One tool for one request: each tool with the arguments it would get, a rank among its fellows, and a score.

The score (0 .. 1, before any threshold) says how likely the tool is what the request asks for, from how the words fit
both ways and how surely the required arguments were found. Its weights were fitted on half of a public benchmark (see
``docs/planner.md``); there are few of them, so that they say something about other tools too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .extraction import Extraction, extract
from .matching import Fit, Profile, fit, rarity
from .spans import Reading

__all__ = ["THRESHOLD", "Proposal", "completion", "features", "propose", "score_of"]

THRESHOLD = 0.5
"""A plan whose score is lower is an abstention."""

_BIAS = -4.7
_WEIGHTS = {
    "asked": 1.2,
    "named": 2.0,
    "purpose": 2.0,
    "head": 0.6,
    "share": 1.2,
    "complete": 1.2,
    "sure": 1.0,
    "weakest": 0.5,
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tool, the arguments the request gives it, and how good that is."""

    profile: Profile
    extraction: Extraction
    fit: Fit
    rank: float
    score: float

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.profile.tool.name


def features(fit: Fit, profile: Profile, extraction: Extraction) -> dict[str, float]:
    """What the score is made of, each 0 .. 1."""
    required = [p.name for p in profile.parameters if p.required]
    found = [extraction.confidence.get(name, 0.0) for name in required]
    missing = {name.split(".")[0] for name in extraction.missing}
    return {
        "asked": fit.asked,
        "named": fit.named,
        "purpose": fit.purpose,
        "head": fit.head,
        "share": 1.0 - len(missing) / len(required) if required else 1.0,
        "complete": float(not missing),
        "sure": sum(found) / len(found) if found else 0.6,
        "weakest": min(found, default=0.6),
    }


def score_of(figures: dict[str, float]) -> float:
    """The score of a tool with these :func:`features`."""
    return 1.0 / (1.0 + math.exp(-(_BIAS + sum(_WEIGHTS[name] * value for name, value in figures.items()))))


def completion(lacked: int, profile: Profile) -> float:
    """What a proposal gains in rank when the ``lacked`` required arguments come from elsewhere."""
    required = sum(p.required for p in profile.parameters) or 1
    return lacked / required + 0.6


def propose(reading: Reading, profiles: Sequence[Profile], *, whole_text: bool = True) -> list[Proposal]:
    """A proposal for every tool, the best first; tools that rank alike keep their order."""
    rare = rarity(profiles)
    proposals = []
    for profile in profiles:
        extraction = extract(reading, profile.parameters, profile.own, whole_text=whole_text)
        plain = fit(reading, profile, extraction.spans)
        telling = fit(reading, profile, (), rare) if len(profiles) > 1 else plain
        figures = features(plain, profile, extraction)
        rank = 1.2 * telling.asked + 1.2 * telling.named + telling.purpose + 0.6 * telling.head
        rank += 1.0 * figures["share"] + 0.6 * figures["complete"] + 0.6 * figures["sure"]
        proposals.append(Proposal(profile, extraction, plain, rank, score_of(figures)))
    proposals.sort(key=lambda proposal: -proposal.rank)
    return proposals
