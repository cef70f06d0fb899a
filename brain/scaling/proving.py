"""Several solutions, each checked several times, and every objection looked at once more: accepted where all agree.

Generator, verifier and meta-verifier as in DeepSeekMath-V2 (Shao et al. 2025, sections 2 and 3): a verifier that only
says no teaches nothing, so what it objects to is itself checked. Here that is done at answering time, within a declared
maximum: the first solution that none of its checks has a standing objection to is the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from specialists import Cost, Verdict

from ..asking import Asker, Query, Solution
from ..errors import BudgetExceeded, ConfigurationError, EndpointUnavailable, RateLimited
from ..keys import redact
from .forms import Canonical, NoCanonicalForm, canonical_form
from .guarding import cut_short, guarded
from .showing import short, written
from .sources import asker as as_asker
from .verifying import CheckedBy, as_verifier, reviewed, verified

__all__ = ["Proof", "Prove", "ProveReport", "ProvenCheck", "prove", "prove_precision"]

MOST_SOLUTIONS = 64
MOST_CHECKS = 16


def prove(
    asker: Any,
    verifier: Any,
    reviewer: Any = None,
    n: int = 4,
    m: int = 3,
    *,
    canonical: Canonical | None = None,
) -> Prove:
    """An asker that gives a solution only where all of its checks agree that it is right.

    Solutions are asked for one after the other, and each is checked ``m`` times at once. A negative verdict gets a
    second look; where the reviewer says that it does not stand, it counts as passed. A check that could not tell is no
    agreement. The first solution with which all agree is the answer; the same answer is not checked a second time, so
    that trying often enough does not get it through. Only a check whose request an endpoint did not take (a rate limit,
    a server error) is made up for when that answer is given again: of each check there is one verdict at most. Where
    none of ``n`` is agreed on there is no answer, and the report has them all.

    Args:
        asker: Who solves: anything that :func:`brain.scaling.asker` takes.
        verifier: Who checks: a model (or another asker), asked for a verdict; or a function of the value.
        reviewer: Who looks at negative verdicts once more: a model or another asker. ``None``: they stand.
        n: Solutions at most, from 1 to 64.
        m: Checks of each, from 1 to 16.
        canonical: Gives of a value what it is compared by (:func:`canonical_form`).

    Never more than :attr:`Prove.most_calls` requests are sent for one question: a retry takes the place of an ask.
    :func:`prove_precision` says what agreement is worth. Raises :class:`ConfigurationError` for arguments that cannot
    be.
    """
    for name, number, most in (("n", n, MOST_SOLUTIONS), ("m", m, MOST_CHECKS)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise ConfigurationError(f"{name} is a whole number from 1 to {most}, not {number!r}")
    reviewing: Asker | None = None
    if reviewer is not None:
        reviewing = as_asker(reviewer)
    if canonical is not None and not callable(canonical):
        raise ConfigurationError(f"canonical is a function, not {canonical!r}")
    return Prove(as_asker(asker), as_verifier(verifier), reviewing, n, m, canonical)


def prove_precision(
    accuracy: float,
    *,
    misses: float,
    accuses: float,
    m: int,
    n: int = 1,
    catches: float = 0.0,
    overturns: float = 0.0,
) -> tuple[float, float]:
    """How often an accepted solution is right, and how often one is accepted at all.

    A right solution passes one check unless it is accused and that is not caught: ``1 - accuses * (1 - catches)``. A
    wrong one passes where it is missed, or rightly failed and that is overturned: ``misses + (1 - misses) *
    overturns``. All ``m`` must agree, and checks are taken to err independently of each other; where they do not, both
    figures are what one check gives, at worst.

    Of ``n`` solutions, the first that is accepted counts. There is one right answer and it is checked once; wrong ones
    are taken to be others each time, so each has its own chance. So more solutions give more answers, and somewhat less
    precision. Where wrong answers repeat, each is checked once too, and the precision is higher than computed.

    Args:
        accuracy: The share of solutions that are right.
        misses: The share of wrong solutions that a check passes.
        accuses: The share of right solutions that a check fails.
        m: Checks of each solution.
        n: Solutions.
        catches: The share of false negative verdicts that the reviewer finds false.
        overturns: The share of true negative verdicts that the reviewer finds false.

    Raises :class:`ConfigurationError` for shares and numbers that cannot be.
    """
    shares = {"accuracy": accuracy, "misses": misses, "accuses": accuses, "catches": catches, "overturns": overturns}
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigurationError(f"{name} lies between 0 and 1, not {share!r}")
    for name, number in (("m", m), ("n", n)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigurationError(f"{name} is a whole number from 1 up, not {number!r}")
    passes = (1 - accuses * (1 - catches)) ** m
    right = accuracy * passes
    refused = accuracy * (1 - passes)
    wrong = (1 - accuracy) * (misses + (1 - misses) * overturns) ** m
    accepted_right = accepted_wrong = 0.0
    open_, without = 1.0, 0.0  # nothing accepted yet: with the right answer still to come, and with it refused
    for _ in range(n):
        accepted_right += open_ * right
        accepted_wrong += (open_ + without) * wrong
        open_, without = open_ * (1 - right - refused - wrong), without * (1 - wrong) + open_ * refused
    accepted = accepted_right + accepted_wrong
    return (accepted_right / accepted if accepted else 0.0), accepted


@dataclass(frozen=True, slots=True)
class ProvenCheck:
    """One check of a solution. ``stands``: what the second look at a negative verdict says; ``None``: there was none,
    or it could not tell, and the verdict stands."""

    verdict: Verdict
    stands: bool | None = None

    @property
    def agrees(self) -> bool:
        """Whether it counts as passed."""
        return self.verdict.status == "passed" or (self.verdict.status == "failed" and self.stands is False)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"verdict": self.verdict.status, "reason": self.verdict.reason, "stands": self.stands}


@dataclass(frozen=True, slots=True)
class Proof:
    """One solution, as JSON, and its checks. Where it is the same as an earlier one (``same_as``, its place), only
    those of which the request failed then."""

    value: Any
    checks: tuple[ProvenCheck, ...] = ()
    accepted: bool = False
    same_as: int | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "value": written(self.value),
            "checks": [check.to_json() for check in self.checks],
            "accepted": self.accepted,
            "same_as": self.same_as,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class ProveReport:
    """All solutions and checks of one question. ``most_calls``: the declared maximum; ``None``: somebody is asked who
    does not say what he sends."""

    solutions: tuple[Proof, ...]
    most_calls: int | None
    calls: int
    cost: Cost

    @property
    def overturned(self) -> int:
        """Negative verdicts that did not stand."""
        return sum(check.stands is False for each in self.solutions for check in each.checks)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "strategy": "prove",
            "solutions": [each.to_json() for each in self.solutions],
            "overturned": self.overturned,
            "most_calls": self.most_calls,
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }

    def __str__(self) -> str:
        most = "" if self.most_calls is None else f" of at most {self.most_calls}"
        lines = [f"{len(self.solutions)} solutions, {self.overturned} objections overturned; {self.calls} calls{most}"]
        for each in self.solutions:
            said = "".join("+" if check.agrees else "-" for check in each.checks) or short(
                each.problem or "seen before"
            )
            lines.append(f"{'*' if each.accepted else ' '} {said} {short(each.value)}")
        return "\n".join(lines)


class Prove(Asker):
    """What :func:`prove` returns."""

    def __init__(
        self, asker: Asker, verifier: CheckedBy, reviewer: Asker | None, n: int, m: int, canonical: Canonical | None
    ) -> None:
        self._asker, self._verifier, self._reviewer, self._n, self._m = asker, verifier, reviewer, n, m
        self._canonical = canonical

    @property
    def name(self) -> str:
        return f"proof by {self._asker.name}"

    @property
    def most_calls(self) -> int | None:
        """Requests for one question at most: ``n * (solution + m * (check + second check))``; ``None`` where somebody
        is asked who does not say what he sends."""
        parts = [_most(self._asker), _most(self._verifier), _most(self._reviewer)]
        if any(part is None for part in parts):
            return None
        solving, checking, reviewing = (part or 0 for part in parts)
        return self._n * (solving + self._m * (checking + reviewing))

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        most = self.most_calls
        tab = query.tab.branch(most)
        course = _Course(self, replace(query, tab=tab))
        solution = await course.run()
        if isinstance(solution.failure, BudgetExceeded) and most is not None and len(tab.wire) >= most:
            # What was declared for this proof is used up, and nothing of what whoever asks may still spend.
            solution = replace(solution, failure=course.problem)
        report = ProveReport(tuple(course.proofs), most, tab.calls, tab.cost)
        return replace(
            solution,
            source=self.name,
            stopped=course.stopped or solution.stopped,
            report=report,
            tab=query.tab,
            seconds=time.perf_counter() - start,
        )


@dataclass
class _Held:
    """What is known of one answer, however often it is given. ``first``: its place; ``open``: checks to be made."""

    first: int
    open: set[int]
    checks: dict[int, ProvenCheck] = field(default_factory=dict)

    @property
    def objected(self) -> bool:
        """Whether some check that is made does not agree."""
        return any(place not in self.open and not check.agrees for place, check in self.checks.items())


@dataclass
class _Course:
    """One question being solved and checked."""

    prove: Prove
    query: Query
    proofs: list[Proof] = field(default_factory=list)
    seen: dict[str, _Held] = field(default_factory=dict)
    stopped: str | None = None
    failure: Exception | None = None
    problem: Exception | None = None
    """The latest failure that is no budget's."""

    async def run(self) -> Solution[Any]:
        for number in range(1, self.prove._n + 1):
            self.stopped = self.stopped or cut_short(self.query)
            if self.stopped is not None:
                break
            solution = await guarded(self.prove._asker, self.query.sample(number))
            self.heard(solution)
            if not solution.answered:
                self.proofs.append(Proof(None, problem=redact(solution.reason or "no answer")[:500]))
                continue
            plain = self.query.answer.plain(solution.value)
            held = self.held(solution.value)
            new = await self.checks(number, solution.value, held)
            agreed = all(check.agrees for check in held.checks.values())
            first = held.first == len(self.proofs)
            self.proofs.append(Proof(plain, new, agreed, None if first else held.first))
            if agreed:
                count = len(held.checks)
                verdict = Verdict.passed("its check agrees" if count == 1 else f"all {count} checks agree")
                return replace(solution, verdict=verdict, failure=None)
        return Solution(None, self.stopped or self.reason(), failure=self.failure)

    def reason(self) -> str:
        tried = sum(bool(each.checks) and each.same_as is None for each in self.proofs)
        if not tried:
            return "no solution came: " + self.why()
        open_ = sum(len(held.open) for held in self.seen.values())
        more = f"; the requests of {open_} checks failed" if open_ else ""
        return f"none of {tried} different solutions is agreed on{more}"

    def why(self) -> str:
        return next((each.problem for each in reversed(self.proofs) if each.problem), "nothing was answered")

    async def checks(self, number: int, value: Any, held: _Held) -> tuple[ProvenCheck, ...]:
        """The checks of ``value`` that have no verdict yet."""
        if held.objected:
            return ()  # nothing that could still be said would get it through
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.check(number, place, value, held)) for place in sorted(held.open)]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def check(self, number: int, place: int, value: Any, held: _Held) -> ProvenCheck:
        # Samples of the same check: each has a seed and a place of its own.
        query = self.query.sample(MOST_SOLUTIONS + number * MOST_CHECKS + place)
        done = held.checks.get(place)
        if done is None or done.verdict.status != "failed":
            verdict, asked = await verified(self.prove._verifier, query, value, "check")
            done = held.checks[place] = ProvenCheck(verdict)
            if asked is not None:
                self.heard(asked)
                if _not_taken(asked):
                    return done
            elif verdict.status == "unknown":
                self.stopped = self.stopped or cut_short(self.query)
        if done.verdict.status == "failed" and self.prove._reviewer is not None:
            if self.stopped is not None or self.query.remaining() == 0:
                return done  # a budget is used up, or the time: nobody is asked any more, and the verdict stands
            stands, review = await reviewed(self.prove._reviewer, query, value, done.verdict, "second check")
            self.heard(review, same=False)  # what nobody objects to needs no second look
            done = held.checks[place] = ProvenCheck(done.verdict, stands)
            if stands is None and _not_taken(review):
                return done
        held.open.discard(place)
        return done

    def held(self, value: Any) -> _Held:
        """What is known of this answer: of the earlier one that is the same, else nothing yet."""
        new = _Held(len(self.proofs), set(range(1, self.prove._m + 1)))
        try:
            return self.seen.setdefault(canonical_form(value, self.prove._canonical), new)
        except NoCanonicalForm:
            return self.seen.setdefault(f"solution {new.first}", new)  # what cannot be compared is like no other

    def heard(self, solution: Solution[Any], *, same: bool = True) -> None:
        if solution.failure is not None:
            self.failure = solution.failure
            if not isinstance(solution.failure, BudgetExceeded):
                self.problem = solution.failure
        self.stopped = self.stopped or cut_short(self.query, solution, same=same)


def _not_taken(solution: Solution[Any]) -> bool:
    """Whether an endpoint did not take the request, whatever was asked: that says nothing of the answer. A refusal, an
    answer of another form or one that took too long may well be about it, and are doubts."""
    return isinstance(solution.failure, RateLimited | EndpointUnavailable)


def _most(asker: CheckedBy | None) -> int | None:
    """What one ask sends at most; ``None``: it does not say, or it is made of somebody who does not."""
    if not isinstance(asker, Asker):
        return 0
    parts = [part for held in getattr(asker, "__dict__", {}).values() for part in _several(held)]
    if any(isinstance(part, Asker) and part is not asker and _most(part) is None for part in parts):
        return None
    said = getattr(asker, "most_calls", None)
    return said if isinstance(said, int) and not isinstance(said, bool) else None


def _several(held: Any) -> Iterable[Any]:
    return held if isinstance(held, list | tuple) else (held,)
