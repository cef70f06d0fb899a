"""An answer that is revised as long as a check finds fault with it, and kept unless the check says that it got better.

Self-refinement (Madaan et al. 2023, section 2) asks the model what is wrong; without an outside signal that makes as
many answers worse as better (Huang et al. 2023, "Large language models cannot self-correct reasoning yet"). Here a
revision takes an answer's place only where a verifier passes it and did not pass the one before.

Why it is never worse than round 0 with a sound check (one that passes nothing wrong): an answer is only given up for
one that was passed, which is then right. With a check that errs, :func:`refine_bound` says how often it may get worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from specialists import Cost, Verdict

from ..asking import Asker, Query, Revision, Solution
from ..errors import ConfigurationError
from .forms import Canonical, NoCanonicalForm, canonical_form
from .guarding import asks_of, cut_short, guarded
from .showing import short, written
from .sources import asker as as_asker
from .verifying import CheckedBy, as_verifier, verified

__all__ = ["Refine", "RefineReport", "RefineRound", "refine", "refine_bound"]

MOST_ROUNDS = 32
_WORTH = {"failed": 0, "unknown": 1, "passed": 2}


def refine(
    asker: Any,
    check: Any = None,
    rounds: int = 3,
    *,
    complete: bool = False,
    patience: int = 2,
    canonical: Canonical | None = None,
) -> Refine:
    """An asker whose answer is checked, revised where it fails, and checked again.

    Args:
        asker: Who answers and revises: anything that :func:`brain.scaling.asker` takes.
        check: A function of the value (a verdict or a boolean, sync or async); or a model or another asker, which is
            asked for a verdict. By default the query's own check: a specialist's verifier, on its ladder.
        rounds: Revisions at most, from 1 to 32.
        complete: The check fails nothing right. Then a revision that it cannot tell of may take the place of an answer
            that it failed; else only one that it passes may.
        patience: Revisions in a row that bring nothing new, after which no more are asked for.
        canonical: Gives of a value what it is compared by (:func:`canonical_form`): an answer that was there before is
            no revision, and ends it.

    Without any check there is nothing to refine by: the first answer is given, and ``stopped`` says so. The solution's
    ``verdict`` is that on its value. Raises :class:`ConfigurationError` for arguments that cannot be.
    """
    for name, number, most in (("rounds", rounds, MOST_ROUNDS), ("patience", patience, MOST_ROUNDS)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise ConfigurationError(f"{name} is a whole number from 1 to {most}, not {number!r}")
    if not isinstance(complete, bool):
        raise ConfigurationError(f"complete is True or False, not {complete!r}")
    if canonical is not None and not callable(canonical):
        raise ConfigurationError(f"canonical is a function, not {canonical!r}")
    return Refine(as_asker(asker), None if check is None else as_verifier(check), rounds, complete, patience, canonical)


def refine_bound(
    *,
    accuses: float,
    misses: float,
    rounds: int,
    accuracy: float = 1.0,
    harms: float = 1.0,
    mends: float = 0.0,
    unsure: float = 0.0,
) -> float:
    """How often, at most, the answer in the end is wrong though that of round 0 was right.

    Args:
        accuses: The share of right answers that the check fails.
        misses: The share of wrong answers that the check passes.
        rounds: Revisions at most.
        accuracy: The share of answers of round 0 that are right.
        harms: The share of revisions of right answers that are wrong.
        mends: The share of revisions of wrong answers that are right.
        unsure: The share of answers that it cannot tell of (``unknown``). ``accuses``, ``misses`` are of the others.

    ``accuracy``, ``harms`` and ``mends`` may be left out: the bound is then larger. The answer has to be right at first
    (``accuracy``), not be passed all the same (``u + (1 - u) * accuses``, ``u``: unsure), and in one of the rounds be
    revised to a wrong one that the check passes (``(1 - u) * misses``). The first revision is of the right answer, and
    wrong with ``harms``; a later one may be of a revision that was not passed, right or wrong, and is wrong with at
    most ``max(harms, 1 - mends)``. Over rounds the chances add up at most, however they depend on each other (Boole).

    It takes the check's errors on one answer to say nothing of its errors on another. With a sound check, which misses
    nothing, it is 0. With ``complete=True`` it holds where the check is complete in fact: ``accuses`` is 0. Raises
    :class:`ConfigurationError` for shares that are none, and for a negative number of rounds.
    """
    shares = {"accuses": accuses, "misses": misses, "accuracy": accuracy, "harms": harms, "mends": mends}
    for name, share in {**shares, "unsure": unsure}.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigurationError(f"{name} lies between 0 and 1, not {share!r}")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise ConfigurationError(f"rounds is a whole number from 0 up, not {rounds!r}")
    if rounds == 0:
        return 0.0
    wrong = harms + (rounds - 1) * max(harms, 1 - mends)
    return accuracy * (unsure + (1 - unsure) * accuses) * min(1.0, wrong * (1 - unsure) * misses)


@dataclass(frozen=True, slots=True)
class RefineRound:
    """One answer and what the check said of it. ``value``: as JSON. ``kept``: it took the place of the one before."""

    number: int
    value: Any
    verdict: Literal["passed", "failed", "unknown"] | None
    reason: str | None
    kept: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "number": self.number,
            "value": written(self.value),
            "verdict": self.verdict,
            "reason": self.reason,
            "kept": self.kept,
        }


@dataclass(frozen=True, slots=True)
class RefineReport:
    """How an answer was refined. ``rounds``: round 0 and the revisions. ``ended``: why no more were asked for."""

    rounds: tuple[RefineRound, ...]
    ended: str
    calls: int
    cost: Cost

    @property
    def revised(self) -> bool:
        """Whether the answer is another one than that of round 0."""
        return any(each.kept for each in self.rounds[1:])

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "strategy": "refine",
            "rounds": [each.to_json() for each in self.rounds],
            "revised": self.revised,
            "ended": self.ended,
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }

    def __str__(self) -> str:
        many = f"{len(self.rounds)} round{'' if len(self.rounds) == 1 else 's'}"
        lines = [f"{many}, {short(self.ended, 160)}; {self.calls} calls, {self.cost}"]
        for each in self.rounds:
            mark = "*" if each.kept else " "
            lines.append(f"{mark} {each.number}: {each.verdict or 'not checked'} {short(each.value)}")
        return "\n".join(lines)


class Refine(Asker):
    """What :func:`refine` returns."""

    def __init__(
        self,
        asker: Asker,
        check: CheckedBy | None,
        rounds: int,
        complete: bool,
        patience: int,
        canonical: Canonical | None,
    ) -> None:
        self._asker, self._check, self._rounds = asker, check, rounds
        self._complete, self._patience, self._canonical = complete, patience, canonical

    @property
    def name(self) -> str:
        return f"refinement by {self._asker.name}"

    @property
    def most_calls(self) -> int:
        """Asks for one question at most: round 0 and every revision, each with its check where somebody is asked."""
        checking = asks_of(self._check) if isinstance(self._check, Asker) else 0
        return (1 + self._rounds) * (asks_of(self._asker) + checking)

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        check: Callable[[Any], Any] | Asker | None = self._check if self._check is not None else query.check
        course = _Course(self, query, check)
        solution = await course.run()
        report = RefineReport(tuple(course.rounds), course.ended, query.tab.calls, query.tab.cost)
        return replace(
            solution,
            source=self.name,
            stopped=course.stopped or solution.stopped,
            report=report,
            tab=query.tab,
            seconds=time.perf_counter() - start,
        )


@dataclass
class _Course:
    """One question being refined."""

    refine: Refine
    query: Query
    check: Callable[[Any], Any] | Asker | None
    rounds: list[RefineRound] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    stopped: str | None = None
    ended: str = "every round was used"

    async def run(self) -> Solution[Any]:
        refine, query = self.refine, self.query
        best = await guarded(refine._asker, query.part("round 0"))
        self.ends_with(best)
        if not best.answered:
            self.ended = "there is no answer to refine"
            return best
        if self.check is None:
            self.stopped = self.ended = "there is nothing to check by, so nothing was refined"
            self.rounds.append(RefineRound(0, query.answer.plain(best.value), None, None, kept=True))
            return best
        verdict = await self.verdict(best.value, 0)
        self.note(best, verdict, 0, kept=True)
        idle, objections = 0, [_objection(best.value, verdict)]
        for number in range(1, refine._rounds + 1):
            if verdict.status == "passed":
                self.ended = "the check passed it"
                break
            if self.over():
                break
            asked = query.part(f"round {number}", revisions=(*query.revisions, *objections), seed=_seed(query, number))
            revised = await guarded(refine._asker, asked)
            self.ends_with(revised)
            if not revised.answered:
                idle += 1
            elif self.known(revised.value):
                self.ended = "the same answer came again"
                break
            else:
                new = await self.verdict(revised.value, number)
                better = new.status == "passed" or (refine._complete and _WORTH[new.status] > _WORTH[verdict.status])
                self.note(revised, new, number, kept=better)
                # What is told next time: the answer that stands, and the latest that does not.
                objections = objections[:1] if not better else []
                objections.append(_objection(revised.value, new))
                if better:
                    best, verdict, idle = revised, new, 0
                else:
                    idle += 1
            if idle >= refine._patience:
                self.ended = f"{idle} revisions brought nothing better"
                break
        if verdict.status == "passed":
            self.ended, self.stopped = "the check passed it", None
        elif self.stopped is not None:
            self.ended = self.stopped
        return replace(best, verdict=verdict)

    async def verdict(self, value: Any, number: int) -> Verdict:
        assert self.check is not None
        verdict, asked = await verified(self.check, self.query, value, f"check {number}")
        if asked is not None:
            self.ends_with(asked)
        elif verdict.status == "unknown":
            self.stopped = self.stopped or cut_short(self.query)
        return verdict

    def note(self, solution: Solution[Any], verdict: Verdict, number: int, *, kept: bool) -> None:
        self.known(solution.value)
        plain = self.query.answer.plain(solution.value)
        self.rounds.append(RefineRound(number, plain, verdict.status, verdict.reason, kept))

    def known(self, value: Any) -> bool:
        """Whether this answer was there before; it is from now on."""
        try:
            form = canonical_form(value, self.refine._canonical)
        except NoCanonicalForm:
            return False  # what cannot be compared is checked like any other
        if form in self.seen:
            return True
        self.seen.add(form)
        return False

    def over(self) -> bool:
        """Whether no more may be asked."""
        self.stopped = self.stopped or cut_short(self.query)
        return self.stopped is not None

    def ends_with(self, solution: Solution[Any]) -> None:
        self.stopped = self.stopped or cut_short(self.query, solution, same=True)


def _objection(value: Any, verdict: Verdict) -> Revision:
    """What the one who revises is told. An answer that nobody could tell of is not called wrong."""
    said = "it is wrong" if verdict.status == "failed" else "nobody could tell whether it is right"
    return Revision(value, verdict.reason or said)


def _seed(query: Query, number: int) -> int | None:
    """Of a revision: another one than round 0 has, so that what is asked again may come out differently."""
    return query.sample(number).seed
