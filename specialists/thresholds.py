"""From the signals of labelled cases to the cheapest ladder policy that can be certified: learn, then test.

On one part of the cases (tuning) candidate policies are put in a row from strict to lax; on the other part (testing)
they are tested in that row, each by an exact binomial test of "more than ``alpha`` of what it accepts is wrong". The
row is begun at two places, each with half of ``delta``, and left at the first candidate that does not pass; with
probability 1 - ``delta`` at least, every candidate that passed keeps the promise (Angelopoulos, Bates, Candès, Jordan,
Lei, "Learn then Test", 2021, section 2.3; the row is found on data of its own as in Laufer-Goldshtein et al.,
"Efficiently controlling multiple risks with Pareto testing", 2023). Of those the cheapest is taken.

Arrays in, floors out: this module knows nothing of specialists, files or certificates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .ladder import Floors, RungKind
from .statistics import binomial_tail, cases_needed, fixed_sequence, most_errors

__all__ = ["PROVEN", "STRATA", "Certified", "Refusal", "RungSignals", "Walk", "certify", "split", "walk"]

STRATA = ("passed", "unknown", "failed")
"""What a verifier can have said of an answer that is not settled by it; the numbers 0, 1, 2 in arrays."""
PROVEN, NEVER = 3, -1
"""A sound verifier passed it; there is no answer, or a complete verifier failed it."""

TUNING = 0.2
"""The share of the cases that the row of candidates is made from."""
CANDIDATES = 40
"""How many policies stand in a row, about."""
LEAST_IN_CELL = 8
"""Answers of one rung and verdict, below which nothing is learnt of them, so none is accepted."""
ESCALATION = 1000.0
"""What an answer of the big model costs beside one attempt on the first rung, where nobody says."""

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Floor = NDArray[np.float64]
"""[rungs, strata]: from which confidence on an answer is accepted; infinity: never."""


class RungSignals(NamedTuple):
    """What one rung did on every case, whether a live call would have come to it or not. Arrays have one entry a case.

    ``stratum``: a number of :data:`STRATA`, :data:`PROVEN` or ``NEVER``. ``confidence``: NaN where none was given.
    ``wrong``: whether the answer is wrong. ``answered``, ``cannot``: how the attempt ended. ``seconds``: its compute.
    """

    name: str
    kind: RungKind
    confidence: Floats
    stratum: NDArray[np.int8]
    wrong: Bools
    answered: Bools
    cannot: Bools
    seconds: Floats

    def of(self, cases: Bools) -> RungSignals:
        """The same of some of the cases."""
        return self._replace(**{name: getattr(self, name)[cases] for name in self._fields[2:]})


class Walk(NamedTuple):
    """Where a policy ends for each case: ``rung`` (-1: escalated), by a proof or by a floor, at what compute."""

    rung: NDArray[np.int64]
    proven: Bools
    wrong: Bools
    seconds: Floats

    @property
    def accepted(self) -> Bools:
        """Which cases are answered without the big model."""
        return self.rung >= 0


@dataclass(frozen=True, slots=True)
class Certified:
    """A policy that passed. Counts are of the testing cases; ``verified`` of the ``n`` accepted were proven.

    ``floors``: by rung; a rung that is not in it is done without. ``level``: the part of ``delta`` it was tested at.
    ``passed``: how many candidates passed, of ``tested``.
    """

    floors: dict[str, Floors]
    n: int
    errors: int
    verified: int
    cases: int
    level: float
    passed: int
    tested: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no policy can be certified. ``needed``: cases that would be, if they go on like these; ``None``: no number.

    ``n`` accepted with ``errors`` is the candidate that came nearest, of ``cases`` testing cases.
    """

    reason: Literal["too few", "too wrong", "nothing accepted"]
    n: int
    errors: int
    cases: int
    level: float
    needed: int | None


def split(keys: Sequence[bytes]) -> Bools:
    """Which cases are for tuning: :data:`TUNING` of them, by the order of their keys, which are as good as random."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    tuning = np.zeros(len(keys), bool)
    tuning[order[: int(len(keys) * TUNING)]] = True
    return tuning


def walk(rungs: Sequence[RungSignals], floors: Floor, *, used: Sequence[bool] | None = None) -> Walk:
    """What :func:`specialists.ladder.decide` does with these floors under a valid certificate, for all cases at once.

    ``used``: which rungs are tried at all.
    """
    count = len(rungs[0].wrong)
    where = np.full(count, -1)
    proven = np.zeros(count, bool)
    wrong = np.zeros(count, bool)
    seconds = np.zeros(count)
    waiting = np.ones(count, bool)
    answered, cannot = waiting.copy(), ~waiting
    for index, rung in enumerate(rungs):
        if used is not None and not used[index]:
            continue
        tried = waiting & _of_use(rung.kind, answered, cannot)
        seconds[tried] += rung.seconds[tried]
        answered = np.where(tried, rung.answered, answered)
        cannot = np.where(tried, rung.cannot, cannot)
        proof = tried & (rung.stratum == PROVEN)
        taken = proof | (tried & _above(rung, floors[index]))
        where[taken], wrong[taken] = index, rung.wrong[taken]
        proven |= proof
        waiting &= ~taken
    return Walk(where, proven, wrong, seconds)


def certify(
    rungs: Sequence[RungSignals],
    keys: Sequence[bytes],
    *,
    alpha: float,
    delta: float,
    escalation: float | None = None,
    always: Sequence[str] = (),
) -> Certified | Refusal:
    """The cheapest policy that can be certified: at most ``alpha`` of its answers wrong, at confidence 1 - ``delta``.

    What is accepted by a floor must keep the promise by itself, and all that is accepted, proofs included, must too.

    Args:
        rungs: The signals, first rung first.
        keys: One for each case, as good as drawn at random: they decide who is for tuning.
        escalation: What an escalation costs, in the unit of ``seconds``. Default: :data:`ESCALATION` times the mean of
            the first rung.
        always: Rungs that are tried whatever the policy says, since a proof may come from them.
    """
    first = float(np.mean(rungs[0].seconds))
    price = (escalation if escalation is not None else ESCALATION * first) or 1.0
    if not _may_be_tuned(rungs):
        rows, testing = [_plain(rungs)], np.ones(len(keys), bool)
    else:
        tuning = split(keys)
        testing = ~tuning
        rows = _row([rung.of(tuning) for rung in rungs], alpha, price, always)
    tested = [rung.of(testing) for rung in rungs]
    starts = [0]
    if len(rows) > 1:
        size = float(np.sum(testing)) / max(1.0, float(np.sum(~testing)))
        starts = _starts(rows, size, alpha, delta)
    level = delta / len(starts)
    results: dict[int, _Result] = {}
    passed: dict[int, _Result] = {}

    def p_value(index: int) -> float:
        if index not in results:
            results[index] = _test(tested, rows[index], alpha)
        return results[index].p

    for start in starts:
        count = fixed_sequence((p_value(index) for index in range(start, len(rows))), level)
        passed |= {index: results[index] for index in range(start, start + count)}
    if not passed:
        return _refuse(results, alpha, level, len(keys), int(np.sum(testing)))

    def cost(index: int) -> float:
        end = walk(rungs, rows[index].floors, used=rows[index].used)
        return float(np.mean(end.seconds + price * ~end.accepted))

    best = min(sorted(passed), key=cost)
    result, row = passed[best], rows[best]
    return Certified(
        floors={rung.name: _as_floors(row.floors[i]) for i, rung in enumerate(rungs) if row.used[i]},
        n=result.n,
        errors=result.errors,
        verified=result.verified,
        cases=int(np.sum(testing)),
        level=level,
        passed=len(passed),
        tested=len(results),
    )


class _Candidate(NamedTuple):
    """A policy, with what it accepts of the tuning cases and gets wrong there."""

    floors: Floor
    used: tuple[bool, ...]
    n: int
    errors: int


class _Result(NamedTuple):
    p: float
    n: int
    errors: int
    verified: int


def _test(rungs: Sequence[RungSignals], candidate: _Candidate, alpha: float) -> _Result:
    end = walk(rungs, candidate.floors, used=candidate.used)
    by_floor = end.accepted & ~end.proven
    n, errors = int(np.sum(end.accepted)), int(np.sum(end.wrong))
    certified, wrong = int(np.sum(by_floor)), int(np.sum(end.wrong & by_floor))
    p = binomial_tail(errors, n, alpha) if n else 1.0
    if certified:  # an intersection-union test: both hypotheses are to be rejected, each at the whole level
        p = max(p, binomial_tail(wrong, certified, alpha))
    return _Result(p, n, errors, n - certified)


def _may_be_tuned(rungs: Sequence[RungSignals]) -> bool:
    """Whether there is more than one policy: several rungs or verdicts to take from, or confidences that differ."""
    cells = [rung.confidence[rung.stratum == place] for rung in rungs for place in range(len(STRATA))]
    cells = [cell for cell in cells if len(cell)]
    return len(cells) > 1 or any(len(np.unique(cell)) > 1 for cell in cells)


def _plain(rungs: Sequence[RungSignals]) -> _Candidate:
    """The only policy there is: whatever may be accepted is."""
    floors = np.array([[0.0 if np.any(rung.stratum == place) else math.inf for place in range(3)] for rung in rungs])
    return _Candidate(floors, (True,) * len(rungs), 0, 0)


def _row(rungs: Sequence[RungSignals], alpha: float, price: float, always: Sequence[str]) -> list[_Candidate]:
    """Candidates from strict to lax, for as many of the rungs as pay."""
    best: list[_Candidate] = []
    least = math.inf
    for depth in range(1, len(rungs) + 1):
        used = tuple(index < depth or rung.name in always for index, rung in enumerate(rungs))
        if best and used == best[0].used:
            continue
        row = _candidates(rungs, used, alpha)
        for candidate in row:
            if candidate.n and candidate.errors > alpha * candidate.n:
                continue
            end = walk(rungs, candidate.floors, used=candidate.used)
            cost = float(np.mean(end.seconds + price * ~end.accepted))
            if cost < least:
                best, least = row, cost
        best = best or row
    return best


def _candidates(rungs: Sequence[RungSignals], used: tuple[bool, ...], alpha: float) -> list[_Candidate]:
    """Policies that accept more and more, the surest first: by the risk that the tuning cases show near an answer."""
    floors = np.full((len(rungs), len(STRATA)), math.inf)
    points: list[tuple[float, float, int, int, bool]] = []  # risk, -confidence, rung, stratum, last of its cell
    left = np.ones(len(rungs[0].wrong), bool)
    for index, rung in enumerate(rungs):
        if not used[index]:
            continue
        sure = rung.stratum == PROVEN
        for place in range(len(STRATA)):
            cell = left & (rung.stratum == place)
            if np.sum(cell) < LEAST_IN_CELL:
                continue
            confidence = np.nan_to_num(rung.confidence[cell], nan=-1.0)
            order = np.argsort(-confidence, kind="stable")
            values, risks = confidence[order], _risks(confidence[order], rung.wrong[cell][order])
            ends = np.flatnonzero(np.append(np.diff(values) != 0, True))  # all of a tie are accepted together
            points += [(float(risks[i]), -float(values[i]), index, place, i == len(values) - 1) for i in ends]
            # Which cases a later rung is there for, about: those that this one would not be sure enough of.
            good = np.zeros(len(confidence), bool)
            good[order] = risks <= alpha
            sure[np.flatnonzero(cell)[good]] = True
        left = left & ~sure
    points.sort()
    marks = {round(step * len(points) / CANDIDATES) - 1 for step in range(1, CANDIDATES + 1)}
    found = [_candidate(rungs, floors, used)]
    for number, (_, minus, index, place, last) in enumerate(points):
        floors[index, place] = 0.0 if last else -minus
        if last or number in marks:
            found.append(_candidate(rungs, floors, used))
    # The strictest accepts proofs only, if there are any.
    return [candidate for candidate in found if candidate.n] or found[:1]


def _candidate(rungs: Sequence[RungSignals], floors: Floor, used: tuple[bool, ...]) -> _Candidate:
    end = walk(rungs, floors, used=used)
    return _Candidate(floors.copy(), used, int(np.sum(end.accepted)), int(np.sum(end.wrong)))


def _risks(values: Floats, wrong: Bools) -> Floats:
    """The risk near each answer, which grows as the confidence falls: isotonic regression, smoothed by half a case.

    Pool adjacent violators; Barlow et al., "Statistical inference under order restrictions", 1972.
    """
    blocks: list[list[float]] = []  # errors, cases
    start = 0
    for end in [*(np.flatnonzero(np.diff(values) != 0) + 1), len(values)]:
        blocks.append([float(np.sum(wrong[start:end])), float(end - start)])
        start = int(end)
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            errors, cases = blocks.pop()
            blocks[-1][0] += errors
            blocks[-1][1] += cases
    smooth = np.maximum.accumulate([(errors + 0.5) / (cases + 1) for errors, cases in blocks])
    return np.repeat(smooth, [int(cases) for _, cases in blocks])


def _starts(row: Sequence[_Candidate], size: float, alpha: float, delta: float) -> list[int]:
    """Where the row is begun: at the strictest candidate that is large enough, and at the laxest likely to pass.

    ``size``: testing cases for each tuning case.
    """
    level = delta / 2
    enough = 1.25 * cases_needed(alpha, level)
    strict = next((i for i, each in enumerate(row) if each.n * size >= enough), len(row) - 1)
    likely = strict
    for index in range(strict, len(row)):
        n = row[index].n * size
        errors = n * (row[index].errors + 0.5) / (row[index].n + 1)
        most = most_errors(int(n), alpha, level)
        if most is not None and errors + math.sqrt(errors) <= most:
            likely = index
    return sorted({strict, likely})


def _refuse(results: dict[int, _Result], alpha: float, level: float, cases: int, tested: int) -> Refusal:
    nearest = min(results.values(), key=lambda result: (result.p, -result.n))
    needed = None
    if nearest.n and nearest.errors / nearest.n < alpha:
        needed = math.ceil(_accepted_needed(nearest.errors, nearest.n, alpha, level) * cases / nearest.n)
    reason: Literal["too few", "too wrong", "nothing accepted"] = (
        "nothing accepted" if not nearest.n else "too few" if needed is not None else "too wrong"
    )
    return Refusal(reason, nearest.n, nearest.errors, tested, level, needed)


def _accepted_needed(errors: int, n: int, alpha: float, level: float) -> int:
    """Accepted cases from which an error rate like ``errors`` of ``n`` can be certified, where ``n`` were too few."""
    rate = errors / n
    while True:
        needed = cases_needed(alpha, level, errors)
        if needed * rate <= errors or needed > 10_000_000:
            return needed
        errors = max(errors + 1, math.floor(needed * rate))


def _of_use(kind: RungKind, answered: Bools, cannot: Bools) -> Bools:
    if kind == "more_steps":
        return answered
    return answered | cannot if kind == "vote" else np.ones(len(answered), bool)


def _above(rung: RungSignals, floors: Floats) -> Bools:
    """Which answers lie on or above the floor of their stratum."""
    taken = np.zeros(len(rung.wrong), bool)
    confidence = np.nan_to_num(rung.confidence, nan=-1.0)
    for place, floor in enumerate(floors):
        if floor == 0:
            taken |= rung.stratum == place
        elif floor < math.inf:
            taken |= (rung.stratum == place) & (confidence >= floor)
    return taken


def _as_floors(floors: Floats) -> Floors:
    return Floors(*(None if floor == math.inf else float(floor) for floor in floors))
