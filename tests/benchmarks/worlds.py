"""Worlds to certify in, made up so that the true risk of every policy is known in closed form, and not counted.

A world is a mixture of kinds of cases. For each kind every rung has a verdict, a score and a chance to be wrong, and
given the kind the scores of two rungs are independent; errors of rungs are not: a case that is hard for one is hard
for the other. So what a policy accepts, and how much of it is wrong, is a sum over kinds. It knows no specialist.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specialists.ladder import Floors, RungKind
from specialists.thresholds import PROVEN, STRATA, RungSignals

__all__ = ["PASSED", "UNKNOWN", "Answers", "Kind", "Logistic", "Truth", "World", "naive_threshold"]

PASSED, UNKNOWN, FAILED = range(3)

Policy: TypeAlias = Mapping[str, Floors]
Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """The chance to be wrong: ``top`` where the score is low, falling around ``middle``."""

    top: float
    slope: float
    middle: float

    def at(self, score: Numbers) -> Numbers:
        """The chance at a score."""
        return self.top / (1 + np.exp(self.slope * (score - self.middle)))

    def above(self, floor: Numbers) -> Numbers:
        """Its integral over the scores from ``floor`` to 1."""
        end, start = (np.logaddexp(0, self.slope * (at - self.middle)) for at in (1.0, floor))
        return self.top * ((1 - floor) - (end - start) / self.slope)


@dataclass(frozen=True)
class Answers:
    """What a rung answers to one kind of case.

    ``verdict``: a number of :data:`specialists.thresholds.STRATA`, or ``PROVEN``. ``error``: the chance to be wrong,
    or how it falls with the score; the score then is uniform. ``power``: the score is a uniform number to the power of
    1/``power``, so the more the higher; ``None``: it gives no confidence.
    """

    verdict: int
    error: float | Logistic
    power: float | None = 1.0

    def above(self, floor: Numbers) -> tuple[Numbers, Numbers]:
        """The share of its answers on or above a floor (infinity: none; 0: all), and of it what is wrong."""
        if self.power is None:
            share = np.where(floor == 0, 1.0, 0.0)
        else:
            share = np.where(floor < math.inf, 1 - np.minimum(floor, 1.0) ** self.power, 0.0)
        if isinstance(self.error, Logistic):
            return share, np.where(floor < math.inf, self.error.above(np.minimum(floor, 1.0)), 0.0)
        return share, share * self.error


class Kind(NamedTuple):
    """A share of the cases, and what each rung answers to them."""

    share: float
    answers: tuple[Answers, ...]


class Truth(NamedTuple):
    """What a policy does in the world: the share it accepts and its risk; the same of what no proof accepts."""

    coverage: Any
    risk: Any
    by_floor: Any
    risk_by_floor: Any

    def breaks(self, alpha: float) -> Any:
        """Whether it breaks the promise: of all, and of what is accepted by a floor by itself."""
        return (self.risk > alpha) | (self.risk_by_floor > alpha)


RUNGS: tuple[tuple[str, RungKind, float], ...] = (("specialist", "specialist", 0.001), ("more", "more_steps", 0.004))
"""Name, kind and seconds."""


@dataclass(frozen=True)
class World:
    """Kinds of cases, and what is to be certified with how many of them. ``told``: what it is, in a few words."""

    name: str
    told: str
    kinds: tuple[Kind, ...]
    cases: int = 2_000
    alpha: float = 0.01
    delta: float = 0.05
    always: tuple[str, ...] = field(default=())

    def draw(self, chance: np.random.Generator) -> list[RungSignals]:
        """The signals of independent cases."""
        kind = chance.choice(len(self.kinds), self.cases, p=[each.share for each in self.kinds])
        luck = chance.random(self.cases)  # shared by the rungs: who is wrong on the first is mostly wrong on the next
        everywhere, nowhere = np.ones(self.cases, bool), np.zeros(self.cases, bool)
        signals = []
        for index in range(len(self.kinds[0].answers)):
            name, rung, seconds = RUNGS[index]
            uniform = chance.random(self.cases)
            score, error = np.full(self.cases, math.nan), np.zeros(self.cases)
            stratum = np.zeros(self.cases, np.int8)
            for number, each in enumerate(self.kinds):
                mine, answers = kind == number, each.answers[index]
                stratum[mine] = answers.verdict
                if answers.power is not None:
                    score[mine] = uniform[mine] ** (1 / answers.power)
                error[mine] = answers.error.at(score[mine]) if isinstance(answers.error, Logistic) else answers.error
            signals.append(
                RungSignals(name, rung, score, stratum, luck < error, everywhere, nowhere, np.full(self.cases, seconds))
            )
        return signals

    def truth(self, policy: Policy) -> Truth:
        """Exactly what ``policy`` does."""
        floors = {}
        for index in range(len(self.kinds[0].answers)):
            name = RUNGS[index][0]
            if name in policy or name in self.always:
                told = policy.get(name, Floors()).to_json()
                for place, verdict in enumerate(STRATA):
                    floor = told[verdict]
                    floors[index, place] = np.array(math.inf if floor is None else floor)
        return self._truth(floors)

    def _truth(self, floors: Mapping[tuple[int, int], Numbers]) -> Truth:
        used = {index for index, _ in floors}
        proven, proven_wrong, accepted, wrong = (np.zeros(()) for _ in range(4))
        for kind in self.kinds:
            left = np.asarray(kind.share)
            for index, answers in enumerate(kind.answers):
                if index not in used:
                    continue
                if answers.verdict == PROVEN:
                    assert not isinstance(answers.error, Logistic)
                    proven, proven_wrong, left = proven + left, proven_wrong + left * answers.error, left * 0
                    continue
                share, bad = answers.above(floors[index, answers.verdict])
                accepted, wrong, left = accepted + left * share, wrong + left * bad, left * (1 - share)
        return Truth(
            accepted + proven,
            _ratio(wrong + proven_wrong, accepted + proven),
            accepted,
            _ratio(wrong, accepted),
        )

    def oracle(self) -> float:
        """The most that floors can accept and keep the promise, by who knows the world: on a grid of floors."""
        cells = sorted(
            {(i, a.verdict) for kind in self.kinds for i, a in enumerate(kind.answers) if a.verdict < PROVEN}
        )
        fine = {1: 4001, 2: 501, 3: 101, 4: 33}[len(cells)]
        grid = np.append(np.linspace(0, 1, fine), math.inf)
        axes = np.meshgrid(*[grid] * len(cells), indexing="ij", sparse=True)
        floors = dict(zip(cells, axes, strict=True))
        for index in range(len(self.kinds[0].answers)):  # a rung of proofs only is tried too
            floors.setdefault((index, UNKNOWN), np.array(math.inf))
        truth = self._truth(floors)
        return float(np.max(np.where(truth.breaks(self.alpha), 0.0, truth.coverage)))


def naive_threshold(rung: RungSignals, alpha: float) -> Policy:
    """What many do: sort by verdict and confidence, and take the laxest threshold at which at most ``alpha`` of what
    it accepts of these very cases is wrong. It looks at all thresholds and adds no margin."""
    unproven = rung.stratum < PROVEN
    confidence = np.nan_to_num(rung.confidence, nan=0.0)
    order = np.lexsort((-confidence, rung.stratum))
    order = order[unproven[order] & (rung.stratum[order] >= 0)]
    place, value = rung.stratum[order], confidence[order]
    ends = np.flatnonzero(np.append((np.diff(value) != 0) | (np.diff(place) != 0), True)) if len(order) else order
    good = ends[np.cumsum(rung.wrong[order])[ends] <= alpha * (ends + 1)] if len(order) else ends
    if not len(good):
        return {rung.name: Floors()}
    at = int(good[-1])
    last = at == len(order) - 1 or place[at + 1] != place[at]
    floors = {STRATA[each]: 0.0 for each in range(place[at])}
    return {rung.name: Floors(**floors | {STRATA[place[at]]: 0.0 if last else float(value[at])})}


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
