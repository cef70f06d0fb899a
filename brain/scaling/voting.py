"""The same question asked several times, and the answer that most samples give.

Self-consistency (Wang, Wei, Schuurmans, Le, Chi, Narang, Chowdhery and Zhou, "Self-Consistency Improves Chain of
Thought Reasoning in Language Models", 2022), with an early stop (:mod:`brain.scaling.stopping`). It helps where one
sample is right more often than any wrong answer is given, and where errors are independent; where samples share an
error (:mod:`brain.scaling.correlations`), more of them only burn money. The canonical form, which says what is the same
answer, is in :mod:`brain.scaling.forms`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specialists import Verdict

from ..asking import Asker, Query, Solution
from ..errors import (
    AuthenticationFailed,
    BudgetExceeded,
    ConfigurationError,
    ContextOverflow,
    PromptError,
    RequestRejected,
)
from ..keys import redact
from .correlations import Agreement
from .forms import Canonical, NoCanonicalForm, canonical_form
from .guarding import asks_of, checked, guarded
from .labelled import Case
from .sources import asker as as_asker
from .stopping import StopRule
from .vote_measuring import VoteMeasure, measured
from .vote_reports import VoteCandidate, VoteReport, VoteSample

__all__ = ["Vote", "VoteCandidate", "VoteMeasure", "VoteReport", "VoteSample", "canonical_form", "vote"]

_HOPELESS = (ConfigurationError, PromptError, AuthenticationFailed, RequestRejected, ContextOverflow)
"""What another sample of the same question would end in too."""


def vote(
    asker: Any,
    most: int | None = None,
    *,
    canonical: Canonical | None = None,
    weight: Callable[[Solution[Any]], float] | None = None,
    error: float = 0.05,
    early_stop: bool | StopRule = True,
    at_once: int | None = None,
    accuracy: float | None = None,
) -> Vote:
    """An asker that asks another one several times, and gives the answer with the most ballots.

    Each sample has a seed, a branch of the bill and an idempotency key of its own. A sample that fails, or that the
    query's check proves wrong, has no ballot. Of answers with the same weight the one with more ballots wins, then the
    one that came first; ``report.tied`` says so. The solution's ``confidence`` is the share of the samples asked that
    gave the answer, failed ones included: a count, no probability of being right.

    Args:
        asker: What is asked: anything that :func:`brain.scaling.asker` takes.
        most: Samples at most, by default 9, or those of a :class:`StopRule`.
        canonical: Gives of a value what it is compared by (:func:`canonical_form`).
        weight: What a ballot counts, from 0 (none) up, by its solution, whose ``verdict`` is that of the check where
            there is one. By default each counts 1. With weights the lead is counted in ballots of mean weight, so what
            is left could change more than the early stop reckons with.
        error: How likely, at most, all ``most`` samples would give another answer than the early stop does
            (:meth:`StopRule.predictive`).
        early_stop: ``False``: all are asked, together. A :class:`StopRule`: that one, and ``error`` says nothing.
        at_once: How many are asked at the same time at most. By default as many as are needed before it can stop at
            all: none is asked in vain, and none is ever called back.
        accuracy: How often a single sample is right, where that was measured (the upper end of
            :attr:`VoteMeasure.single`): the running agreement of samples is held against it.

    A value of which no canonical form can be made, or no weight, has no ballot; where no value that came back can be
    compared, the vote ends with a :class:`ConfigurationError` in the solution, after its first samples.

    Raises :class:`ConfigurationError` for arguments that cannot be.
    """
    return Vote(as_asker(asker), _rule(most, error, early_stop), canonical, weight, at_once, accuracy)


class Vote(Asker):
    """What :func:`vote` returns."""

    def __init__(
        self,
        asker: Asker,
        rule: StopRule,
        canonical: Canonical | None,
        weight: Callable[[Solution[Any]], float] | None,
        at_once: int | None,
        accuracy: float | None,
    ) -> None:
        for name, function in (("canonical", canonical), ("weight", weight)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"{name} is a function, not {function!r}")
        if at_once is not None and (isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1):
            raise ConfigurationError(f"at_once is a number of samples from 1 up, not {at_once!r}")
        if accuracy is not None and not (isinstance(accuracy, int | float) and 0 < accuracy < 1):
            raise ConfigurationError(f"an accuracy lies between 0 and 1, and is neither, not {accuracy!r}")
        self.rule = rule
        self.agreement = Agreement(accuracy)
        """Running evidence, over all questions that this vote was asked, on whether errors are correlated."""
        self._asker = asker
        self._canonical, self._weight, self._at_once = canonical, weight, at_once

    @property
    def name(self) -> str:
        return f"vote of {self.rule.most} by {self._asker.name}"

    @property
    def most_calls(self) -> int:
        """What it asks for one question at most, all below it included; retries on the wire are not counted."""
        return self.rule.most * asks_of(self._asker)

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        count = _Count(self, query)
        await count.run()
        solution = count.solution()
        return replace(solution, seconds=time.perf_counter() - start)

    async def measure(self, cases: Iterable[Case] | Mapping[str, Any], *, at_once: int = 8, **how: Any) -> VoteMeasure:
        """What the vote and a single sample make of labelled cases, and whether errors are correlated.

        Args:
            cases: Pairs of a question and its right answer, each question once.
            at_once: How many questions are asked at the same time.
            how: ``output_type``, ``check``, ``ledger``, ``tenant``, ``session``, ``timeout`` of each question, as for
                :meth:`solve`; ``budget`` of all together.

        The votes are cast as always, with the early stop, so the money is that of the vote. Single samples and their
        correlation are told from those that are asked of every question: ``rule.least``, and all of them with
        ``early_stop=False``. A budget that has no more room ends it: ``stopped`` says so, and cases that it cut short
        are left out. Raises :class:`ConfigurationError`, also for a right answer that cannot be compared,
        :class:`AuthenticationFailed`, and :class:`BudgetExceeded` where there is no room for one case.
        """
        return await measured(self, cases, self._canonical, at_once, how)

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass
class _Group:
    """The ballots for one answer."""

    solution: Solution[Any]
    votes: int = 0
    weight: float = 0.0


@dataclass
class _Count:
    """One question being voted on."""

    vote: Vote
    query: Query
    samples: list[VoteSample] = field(default_factory=list)
    groups: dict[str, _Group] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    failure: Exception | None = None
    stopped: str | None = None
    stopper: Exception | None = None
    uncomparable: str | None = None
    compared: bool = False
    ended: str = "every sample was asked"

    async def run(self) -> None:
        rule, equal = self.vote.rule, self.vote._weight is None
        while (more := self._next(equal)) > 0:
            if self.query.remaining() == 0:
                self.stopped = self.ended = "the deadline passed"
                break
            first = len(self.samples) + 1
            for solution in await self._round(range(first, first + more)):
                await self._take(solution)
            if self.stopped is not None:
                self.ended = self.stopped
                break
            if not self.compared and self.uncomparable is not None:
                self.failure = ConfigurationError(self.uncomparable)
                self.ended = "the answers cannot be compared"
                break
        else:
            if len(self.samples) < rule.most:
                self.ended = "the leader was far enough ahead"
        self._observe()

    def _next(self, equal: bool) -> int:
        asked, lead = len(self.samples), self._lead()
        rule, most = self.vote.rule, self.vote._at_once
        if asked and rule.stops(asked, lead, equal=equal):
            return 0
        more = rule.next(asked, lead, equal=equal)
        return more if most is None else min(more, most)

    def _lead(self) -> float:
        """Of the first answer before the second, in ballots of mean weight."""
        ballots = sum(group.votes for group in self.groups.values())
        if not ballots:
            return 0
        weights = sorted((group.weight for group in self.groups.values()), reverse=True)
        lead = weights[0] - (weights[1] if len(weights) > 1 else 0.0)
        return lead if self.vote._weight is None else lead * ballots / math.fsum(weights)

    async def _round(self, numbers: Sequence[int]) -> list[Solution[Any]]:
        """Ask these samples; each has a solution, in their order, whatever becomes of it."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(guarded(self.vote._asker, self.query.sample(number))) for number in numbers]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _take(self, solution: Solution[Any]) -> None:
        number = len(self.samples) + 1
        sample = VoteSample(number, calls=solution.calls)
        if not solution.answered:
            self.failure = solution.failure or self.failure
            self._stop_at(solution.failure)
            self.samples.append(replace(sample, problem=redact(solution.reason or "no answer")[:500]))
            return
        self._stop_at(solution.failure)  # a strategy may have a value all the same
        value = solution.value
        sample = replace(sample, value=self.query.answer.plain(value))
        try:
            form = canonical_form(value, self.vote._canonical)
        except NoCanonicalForm as error:
            self.uncomparable = redact(
                f"the answers cannot be compared: {error}; give vote(canonical=...) a function that makes a text, or"
                " other JSON, of an answer, the same for answers that are the same"
            )[:1000]
            self.samples.append(replace(sample, problem=redact(f"it cannot be compared: {error}")[:500]))
            return
        sample = replace(sample, form=form)
        verdict = await self._verdict(value)
        if verdict is not None:
            solution = replace(solution, verdict=verdict)
            sample = replace(sample, verdict=verdict.status)
            if verdict.status == "failed":
                self.compared = True
                self.samples.append(replace(sample, problem=redact(f"proved wrong: {verdict.reason}")[:500]))
                return
        try:
            weight = self._weigh(solution)
        except ConfigurationError as error:
            self.uncomparable = str(error)
            self.samples.append(replace(sample, problem=str(error)[:500]))
            return
        self.compared = True
        self.samples.append(replace(sample, weight=weight))
        if weight > 0:
            group = self.groups.setdefault(form, _Group(solution))
            group.votes += 1
            group.weight += weight

    def _stop_at(self, failure: Exception | None) -> None:
        """Ask no more after this."""
        if isinstance(failure, BudgetExceeded):
            self.stopped, self.stopper = redact(str(failure)), failure
        elif isinstance(failure, _HOPELESS):
            self.stopped, self.stopper = redact(f"no other sample would be answered: {failure}"), failure

    async def _verdict(self, value: Any) -> Verdict | None:
        check = self.query.check
        if check is None:
            return None
        try:
            key = canonical_form(value)
        except NoCanonicalForm:
            key = None
        if key is not None and key in self.verdicts:
            return self.verdicts[key]
        verdict = await checked(check, value, self.query)
        if key is not None:
            self.verdicts[key] = verdict
        return verdict

    def _weigh(self, solution: Solution[Any]) -> float:
        if self.vote._weight is None:
            return 1.0
        try:
            weight = float(self.vote._weight(solution))
        except Exception as error:  # the application's own
            said = redact(f"{type(error).__name__}: {error}")[:500]
            raise ConfigurationError(f"weight raised {said}; it returns a number from 0 up") from error
        if not math.isfinite(weight) or weight < 0:
            raise ConfigurationError(f"weight returned {weight!r}; it returns a number from 0 up")
        return weight

    def _observe(self) -> None:
        """Count what was asked whatever it would be: what was asked because of earlier samples is no fair sample."""
        fair = self.samples[: self.vote.rule.least]
        if len(fair) < self.vote.rule.least or any(sample.form is None for sample in fair):
            return
        checked = all(sample.verdict in ("passed", "failed") for sample in fair)
        right = [sample.verdict == "passed" for sample in fair] if checked else None
        self.vote.agreement.add([str(sample.form) for sample in fair], right)

    def solution(self) -> Solution[Any]:
        query, asked = self.query, len(self.samples)
        # Of equals the first: groups stand in the order of their first ballot.
        ranked = sorted(self.groups.values(), key=lambda group: (group.weight, group.votes), reverse=True)
        report = self._report(ranked)
        said: dict[str, Any] = {"source": self.vote.name, "stopped": self.stopped, "report": report, "tab": query.tab}
        if ranked:
            first = ranked[0]
            share = first.votes / asked
            return Solution(
                first.solution.value, confidence=share, verdict=first.solution.verdict, failure=self.stopper, **said
            )
        return Solution(None, self._reason(), failure=self.stopper or self.failure, **said)

    def _reason(self) -> str:
        if isinstance(self.failure, ConfigurationError) and self.uncomparable is not None:
            return self.uncomparable
        if not self.samples:
            return self.stopped or "nothing was asked"
        wrong = [sample for sample in self.samples if sample.verdict == "failed"]
        answered = [sample for sample in self.samples if sample.form is not None]
        last = self.samples[-1].problem
        if wrong and len(wrong) == len(answered):
            return f"each of the {len(answered)} answers was {wrong[-1].problem}"
        if answered:
            return f"none of the {len(answered)} answers has any weight"
        return f"none of {len(self.samples)} samples was answered; the last: {last}"

    def _report(self, ranked: Sequence[_Group]) -> VoteReport:
        plain, tab = self.query.answer.plain, self.query.tab
        usage = tab.usage()
        agreement = self.vote.agreement
        return VoteReport(
            candidates=tuple(
                VoteCandidate(
                    plain(group.solution.value),
                    group.votes,
                    group.weight,
                    None if group.solution.verdict is None else group.solution.verdict.status,
                )
                for group in ranked
            ),
            samples=tuple(self.samples),
            most=self.vote.rule.most,
            ended=self.ended,
            calls=tab.calls,
            cost=usage.cost,
            tied=len(ranked) > 1 and ranked[0].weight == ranked[1].weight,
            independence=agreement.independence,
            warnings=() if agreement.warning is None else (agreement.warning,),
        )


def _rule(most: int | None, error: float, early_stop: bool | StopRule) -> StopRule:
    if isinstance(early_stop, StopRule):
        if most is not None and most != early_stop.most:
            raise ConfigurationError(f"most is {most!r}, and the stop rule is for {early_stop.most} samples")
        return early_stop
    if not isinstance(early_stop, bool):
        raise ConfigurationError(f"early_stop is True, False or a StopRule, not {early_stop!r}")
    wanted = 9 if most is None else most
    return StopRule.predictive(wanted, error) if early_stop else StopRule.fixed(wanted)
