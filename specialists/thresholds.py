"""From the signals of labelled cases to the cheapest ladder policy that can be certified: learn, then test.

On one part of the cases (tuning) candidate policies are put in a row from strict to lax; on the other part (testing)
they are tested in that row, each by an exact binomial test of "more than ``alpha`` of what it accepts is wrong". The
row is begun at two places, each with its part of ``delta``, and left at the first candidate that does not pass; with
probability 1 - ``delta`` at least, every candidate that passed keeps the promise (Angelopoulos, Bates, Candès, Jordan,
Lei, "Learn then Test", 2021, section 2.3; the row is found on data of its own as in Laufer-Goldshtein et al.,
"Efficiently controlling multiple risks with Pareto testing", 2023). Of those the cheapest is taken.

Arrays in, floors out: this module knows nothing of specialists, files or certificates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
CAUTIOUS = 0.8
"""The part of delta that the strictest start has where the tuning cases show no candidate that is likely to pass."""
MOST_NEEDED = 10_000_000
"""Beyond so many accepted cases it is not told how many exactly would be needed."""
SPARE = 1.4
"""How many times the cases that one error takes there must be, so that the row begins with room for one."""
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
    tuning = split(keys)
    tuned = bool(np.any(tuning)) and _may_be_tuned(rungs)
    if not tuned:
        rows, testing = _plain(rungs, alpha, delta), np.ones(len(keys), bool)
    else:
        testing = ~tuning
        rows = _row([rung.of(tuning) for rung in rungs], alpha, escalation, always)
    tested = [rung.of(testing) for rung in rungs]
    row, starts = rows, {0: delta}
    if tuned and len(rows) > 1:
        size = float(np.sum(testing)) / max(1.0, float(np.sum(~testing)))
        row, starts = _starts(rows, size, alpha, delta)
    results: dict[int, _Result] = {}
    passed: dict[int, float] = {}
    """The part of delta that each was tested at."""

    def p_value(index: int) -> float:
        if index not in results:
            results[index] = _test(tested, row[index], alpha)
        return results[index].p

    for start, part in starts.items():
        count = fixed_sequence((p_value(index) for index in range(start, len(row))), part)
        for index in range(start, start + count):
            passed[index] = max(part, passed.get(index, 0.0))
    if not passed:
        # Nothing is claimed any more, so all may be looked at, those that were too small to be tried included.
        seen = [_test(tested, each, alpha) for each in rows]
        return _refuse(seen, alpha, max(starts.values()), len(keys), int(np.sum(testing)))

    price = _price(rungs, escalation)
    best = min(sorted(passed), key=lambda index: _cost(walk(rungs, row[index].floors, used=row[index].used), price))
    result, policy = results[best], row[best]
    return Certified(
        floors={rung.name: _as_floors(policy.floors[i]) for i, rung in enumerate(rungs) if policy.used[i]},
        n=result.n,
        errors=result.errors,
        verified=result.verified,
        cases=int(np.sum(testing)),
        level=passed[best],
        passed=len(passed),
        tested=len(results),
    )


class _Candidate(NamedTuple):
    """A policy, with what it accepts of the tuning cases and gets wrong there, what of that by a floor, and the mean
    seconds that it takes."""

    floors: Floor
    used: tuple[bool, ...]
    n: int = 0
    errors: int = 0
    by_floor: int = 0
    wrong_by_floor: int = 0
    seconds: float = 0.0

    @property
    def proofs_only(self) -> bool:
        """Whether no floor can accept anything."""
        return not np.any(self.floors[list(self.used)] < math.inf)

    @property
    def to_test(self) -> int:
        """How many accepted tuning cases stand behind its harder test."""
        return self.n if self.proofs_only else self.by_floor


class _Result(NamedTuple):
    p: float
    n: int
    errors: int
    verified: int
    wrong_by_floor: int
    proofs_only: bool

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Errors and cases of each of its tests."""
        by_floor = [] if self.proofs_only else [(self.wrong_by_floor, self.n - self.verified)]
        return [(self.errors, self.n), *by_floor]


def _test(rungs: Sequence[RungSignals], candidate: _Candidate, alpha: float) -> _Result:
    end = walk(rungs, candidate.floors, used=candidate.used)
    by_floor = end.accepted & ~end.proven
    n, errors = int(np.sum(end.accepted)), int(np.sum(end.wrong))
    certified, wrong = int(np.sum(by_floor)), int(np.sum(end.wrong & by_floor))
    p = binomial_tail(errors, n, alpha) if n else 1.0
    # An intersection-union test: both hypotheses are to be rejected, each at the whole level. A floor that took nothing
    # here may take something elsewhere, and of that nothing is known: then the second is not rejected.
    if not candidate.proofs_only:
        p = max(p, binomial_tail(wrong, certified, alpha))
    return _Result(p, n, errors, n - certified, wrong, candidate.proofs_only)


def _may_be_tuned(rungs: Sequence[RungSignals]) -> bool:
    """Whether there is more than one policy: several rungs or verdicts to take from, or confidences that differ."""
    cells = [rung.confidence[rung.stratum == place] for rung in rungs for place in range(len(STRATA))]
    cells = [cell for cell in cells if len(cell)]
    return len(cells) > 1 or any(len(np.unique(cell)) > 1 for cell in cells)


def _plain(rungs: Sequence[RungSignals], alpha: float, delta: float) -> list[_Candidate]:
    """The only policies there are: proofs, if they can pass by themselves, and whatever may be accepted.

    Made from verdicts, and from nothing that tells what is wrong: so the same cases may test them.
    """
    floors = np.array([[0.0 if np.any(rung.stratum == place) else math.inf for place in range(3)] for rung in rungs])
    used = (True,) * len(rungs)
    proofs = _Candidate(np.full(floors.shape, math.inf), used)
    enough = np.sum(walk(rungs, proofs.floors).accepted) >= cases_needed(alpha, delta)
    return [*([proofs] if enough else []), _Candidate(floors, used)]


def _price(rungs: Sequence[RungSignals], escalation: float | None) -> float:
    """What an escalation costs, in the unit of the rungs' seconds."""
    return (ESCALATION * float(np.mean(rungs[0].seconds)) if escalation is None else escalation) or 1.0


def _cost(end: Walk, price: float) -> float:
    return float(np.mean(end.seconds + price * ~end.accepted))


def _row(
    rungs: Sequence[RungSignals], alpha: float, escalation: float | None, always: Sequence[str]
) -> list[_Candidate]:
    """Candidates from strict to lax, for as many of the rungs as pay."""
    price = _price(rungs, escalation)
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
            cost = candidate.seconds + price * (1 - candidate.n / len(rungs[0].wrong))
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
    by_floor = end.accepted & ~end.proven
    counts = (end.accepted, end.wrong, by_floor, end.wrong & by_floor)
    n, errors, taken, wrong = (int(np.sum(each)) for each in counts)
    return _Candidate(floors.copy(), used, n, errors, taken, wrong, float(np.mean(end.seconds)))


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


def _starts(
    row: list[_Candidate], size: float, alpha: float, delta: float
) -> tuple[list[_Candidate], dict[int, float]]:
    """The row without candidates that are too small to pass, and where it is begun: at its strictest, and at the laxest
    that is likely to pass.

    ``size``: testing cases for each tuning case.
    """
    level = delta / 2
    # With room for one error where there are cases enough: to pass without any takes luck.
    most = max((each.to_test * size for each in row if each.errors <= alpha * each.n), default=0.0)
    none, one = (cases_needed(alpha, level, errors) for errors in (0, 1))
    enough = one if most >= SPARE * one else none
    row = [each for each in row if each.to_test * size >= enough] or row[-1:]

    def passes(errors: int, n: int) -> bool:
        count = int(n * size)
        expected = count * (errors + 0.5) / (n + 1)
        bad = math.ceil(expected + math.sqrt(expected))
        return bad < count and binomial_tail(bad, count, alpha) <= level

    def chance(errors: int, n: int) -> float:
        count = int(n * size)
        most = most_errors(count, alpha, (1 - CAUTIOUS) * delta) if count else None
        return 0.0 if most is None else binomial_tail(most, count, (errors + 0.5) / (n + 1))

    def both(each: _Candidate, test: Callable[[int, int], float]) -> float:
        overall = test(each.errors, each.n)
        return overall if each.proofs_only else min(overall, test(each.wrong_by_floor, each.by_floor))

    likely = max((index for index, each in enumerate(row) if both(each, passes)), default=None)
    if (
        likely is None
    ):  # an error by bad luck in few tuning cases says little: a small part goes where most may be gained
        likely = max(range(len(row)), key=lambda index: row[index].n * both(row[index], chance))
        return row, ({0: CAUTIOUS * delta, likely: (1 - CAUTIOUS) * delta} if likely else {0: delta})
    return row, ({0: level, likely: level} if likely else {0: delta})


def _refuse(results: Sequence[_Result], alpha: float, level: float, cases: int, tested: int) -> Refusal:
    """What the candidate that needs the fewest cases would need. Of many some are lucky on a handful of cases: they are
    none to hope for, so half an error more is counted."""
    luck = 0.5 if len(results) > 1 else 0.0

    def needed(result: _Result) -> float:
        if any(not n or (errors + luck) / (n + 2 * luck) >= alpha for errors, n in result.parts):
            return math.inf
        return max(_accepted_needed(errors, n, alpha, level) * cases / n for errors, n in result.parts)

    best = min(results, key=lambda result: (needed(result), result.p, -result.n))
    count = needed(best)
    reason: Literal["too few", "too wrong", "nothing accepted"] = (
        "nothing accepted" if not best.n else "too few" if count < math.inf else "too wrong"
    )
    return Refusal(reason, best.n, best.errors, tested, level, math.ceil(count) if count < math.inf else None)


def _accepted_needed(errors: int, n: int, alpha: float, level: float) -> int:
    """Accepted cases from which an error rate like ``errors`` of ``n`` can be certified, where ``n`` were too few."""
    rate = errors / n

    def enough(count: int) -> bool:
        return binomial_tail(math.floor(count * rate), count, alpha) <= level

    low, high = n, 2 * n
    while not enough(high) and high < MOST_NEEDED:
        low, high = high, 2 * high
    while high - low > max(1, high // 1000):  # more digits would be of no use
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _of_use(kind: RungKind, answered: Bools, cannot: Bools) -> Bools:
    if kind == "more_steps":
        return answered
    return answered | cannot if kind == "vote" else np.ones(len(answered), bool)


def _above(rung: RungSignals, floors: Floats) -> Bools:
    """Which answers lie on or above the floor of their stratum."""
    taken = np.zeros(len(rung.wrong), bool)
    for place, floor in enumerate(floors):
        if floor == 0:
            taken |= rung.stratum == place
        elif floor < math.inf:
            taken |= (rung.stratum == place) & (rung.confidence >= floor)  # NaN reaches no floor
    return taken


def _as_floors(floors: Floats) -> Floors:
    return Floors(*(None if floor == math.inf else float(floor) for floor in floors))
