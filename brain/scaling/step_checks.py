"""Samples whose steps are checked: a check may veto, and never scores; and it is itself checked, in secret.

Who picks the sample that a checker of steps likes best picks, sooner or later, the one that only looks best (Gao,
Schulman and Hilton 2023, "Scaling laws for reward model overoptimization"): with enough samples, convincing nonsense
wins every time. So here a step that fails drops its sample, the rest vote, and no score is ever compared. A second
check, independent of the first, looks at a share of what the first let pass, drawn from a hash that nobody who answers
knows; where the two disagree more often than was declared, an alarm is raised, and the first is no longer believed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import BaseModel

from specialists import Cost, Verdict
from specialists.statistics import ShiftMartingale

from ..asking import Asker, Query, Solution, ask_all
from ..errors import ConfigurationError
from ..keys import redact
from .forms import Canonical, NoCanonicalForm, canonical_form
from .guarding import asks_of, checked, cut_short, guarded
from .showing import short
from .sources import asker as as_asker
from .verifying import CheckedBy, as_verifier, verified

__all__ = ["StepAlarm", "StepChecker", "StepReport", "StepTrust", "check_steps"]

logger = logging.getLogger("brain.scaling")

MOST_SAMPLES = 256
MOST_STEPS = 10_000
EXPLANATIONS = ("steps", "explanation", "reasoning")


def check_steps(
    asker: Any,
    steps: Any,
    hidden: Any,
    n: int = 8,
    *,
    sample: float = 0.1,
    tolerance: float = 0.05,
    level: float = 0.05,
    most_vetoed: float = 0.5,
    canonical: Canonical | None = None,
    on_alarm: Callable[[StepAlarm], None] | None = None,
) -> StepChecker:
    """An asker that asks another one ``n`` times, drops the samples with a step that fails, and lets the rest vote.

    A check that drops nearly everything is more likely wrong than nearly everything is: where it would drop more than
    ``most_vetoed`` of a question's samples, its veto is not followed, and at least one sample that it let pass is
    looked at by the second check.

    Args:
        asker: What is asked: anything that :func:`brain.scaling.asker` takes.
        steps: The check of the steps: a function of the value, which returns a verdict or a boolean, or one for each
            step; or a model or another asker, which is asked for a verdict.
        hidden: The second check, of the same kinds, independent of the first. What it fails has no ballot either.
        n: Samples, from 1 to 256.
        sample: The share of the samples that passed at which the second check looks.
        tolerance: The share of what the step check passes that the second check may fail, before it means anything.
        level: The chance of a false alarm, ever, where that share is no more, whatever came before, and also where the
            samples of one question go wrong together (a test that may be looked at after each question:
            :class:`specialists.statistics.ShiftMartingale`).
        most_vetoed: See above.
        canonical: Gives of a value what it is compared by (:func:`canonical_form`); by default the value without
            ``steps``, ``explanation`` and ``reasoning``, so that answers with other steps are the same answer.
        on_alarm: Called once, with the alarm. It is logged, too.

    What is known of the step check is kept over all questions in :attr:`StepChecker.trust`; :meth:`StepTrust.restore`
    begins anew. Raises :class:`ConfigurationError` for arguments that cannot be.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_SAMPLES:
        raise ConfigurationError(f"n is a number of samples from 1 to {MOST_SAMPLES}, not {n!r}")
    for name, share, zero in (
        ("sample", sample, False),
        ("tolerance", tolerance, False),
        ("level", level, False),
        ("most_vetoed", most_vetoed, True),
    ):
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not (0 <= share <= 1 if zero or name == "sample" else 0 < share < 1):
            raise ConfigurationError(f"{name} is a share between 0 and 1, not {share!r}")
    if steps is hidden or (type(steps) is type(hidden) and _equal(steps, hidden)):
        raise ConfigurationError(
            "hidden is the check of the steps itself, which always agrees with itself; give another"
        )
    if on_alarm is not None and not callable(on_alarm):
        raise ConfigurationError(f"on_alarm is a function, not {on_alarm!r}")
    if inspect.iscoroutinefunction(on_alarm):
        raise ConfigurationError(f"on_alarm is called and not awaited, so it is no async function such as {on_alarm!r}")
    if canonical is not None and not callable(canonical):
        raise ConfigurationError(f"canonical is a function, not {canonical!r}")
    return StepChecker(
        as_asker(asker),
        as_verifier(steps),
        as_verifier(hidden),
        n,
        float(sample),
        float(most_vetoed),
        canonical or _without_steps,
        StepTrust(float(tolerance), float(level), on_alarm),
    )


@dataclass(frozen=True, slots=True)
class StepAlarm:
    """The step check passes what the second check fails, more often than was declared. ``samples``: how many had been
    asked for until then, over all questions."""

    samples: int
    audits: int
    disagreements: int
    tolerance: float
    level: float

    def __str__(self) -> str:
        return (
            f"the step check passed {self.disagreements} of {self.audits} answers that the second check fails; declared"
            f" is a share of {self.tolerance:g} at most. It is no longer believed"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "samples": self.samples,
            "audits": self.audits,
            "disagreements": self.disagreements,
            "tolerance": self.tolerance,
            "level": self.level,
        }


class StepTrust:
    """What is known of a step check, over all questions. Safe from any thread."""

    def __init__(self, tolerance: float, level: float, on_alarm: Callable[[StepAlarm], None] | None = None) -> None:
        self._tolerance, self._level, self._on_alarm = tolerance, level, on_alarm
        self._lock = threading.Lock()
        self.restore()

    def restore(self) -> None:
        """Believe the check again, and forget what was seen of it."""
        with self._lock:
            self._test = ShiftMartingale(self._tolerance)
            self._samples = self._audits = self._disagreements = 0
            self._alarm: StepAlarm | None = None

    @property
    def alarm(self) -> StepAlarm | None:
        """The alarm that was raised; ``None``: the check is believed."""
        return self._alarm

    @property
    def samples(self) -> int:
        """Samples that were asked for."""
        return self._samples

    @property
    def audits(self) -> tuple[int, int]:
        """Answers that both checks looked at, and how many of them the second failed."""
        return self._audits, self._disagreements

    def asked(self, samples: int) -> None:
        """So many samples were asked for."""
        with self._lock:
            self._samples += samples

    def audited(self, *, disagree: bool | Sequence[bool]) -> None:
        """The second check has looked at an answer that the first passed, or at several to one question.

        The samples of one question may all be wrong for one reason, so they are one bet together: of what each alone
        would have made of the stakes, the mean. However they depend on each other, its expectation is not above 1.
        """
        several = (disagree,) if isinstance(disagree, bool) else tuple(disagree)
        if not several:
            return
        with self._lock:
            self._audits += len(several)
            self._disagreements += sum(several)
            _bet(self._test, sum(several) / len(several))
            if self._alarm is not None or self._test.value < 1 / self._level:
                return
            alarm = self._alarm = StepAlarm(
                self._samples, self._audits, self._disagreements, self._tolerance, self._level
            )
        logger.warning("check_steps: %s", alarm)
        if self._on_alarm is not None:
            try:
                self._on_alarm(alarm)
            except Exception as error:  # the application's own; the answer is not its affair
                logger.error("check_steps: on_alarm raised %s: %s", type(error).__name__, redact(str(error)))


def _bet(test: ShiftMartingale, share: float) -> None:
    """Count one audit of which the ``share`` went wrong."""
    wrong = ShiftMartingale(test.null, test.audits, test.errors, list(test.stakes))
    wrong.update(True)
    test.update(False)
    test.stakes = [share * one + (1 - share) * other for one, other in zip(wrong.stakes, test.stakes, strict=True)]


@dataclass(frozen=True, slots=True)
class StepReport:
    """One question. ``vetoed``: samples that the step check failed; ``followed``: whether its veto counted, else
    ``why_not``. ``audits``: samples that the second check looked at, ``disagreements``: that it failed. ``votes``: of
    the answer that was given. ``alarm``: of this or an earlier question."""

    samples: int
    answered: int
    vetoed: int
    followed: bool
    why_not: str | None
    audits: int
    disagreements: int
    votes: int
    alarm: StepAlarm | None
    calls: int
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "strategy": "check_steps",
            "samples": self.samples,
            "answered": self.answered,
            "vetoed": self.vetoed,
            "followed": self.followed,
            "why_not": self.why_not,
            "audits": self.audits,
            "disagreements": self.disagreements,
            "votes": self.votes,
            "alarm": None if self.alarm is None else self.alarm.to_json(),
            "calls": self.calls,
            "cost": self.cost.to_json(),
        }

    def __str__(self) -> str:
        veto = "followed" if self.followed else f"not followed: {short(self.why_not, 160)}"
        lines = [
            f"{self.answered} of {self.samples} samples, {self.vetoed} vetoed ({veto}), {self.votes} votes for the"
            f" answer; the second check failed {self.disagreements} of {self.audits}; {self.calls} calls, {self.cost}"
        ]
        return "\n".join(lines if self.alarm is None else [*lines, f"ALARM: {self.alarm}"])


class StepChecker(Asker):
    """What :func:`check_steps` returns."""

    def __init__(
        self,
        asker: Asker,
        steps: CheckedBy,
        hidden: CheckedBy,
        n: int,
        sample: float,
        most_vetoed: float,
        canonical: Canonical,
        trust: StepTrust,
    ) -> None:
        self._asker, self._steps, self._hidden, self._n, self._sample = asker, steps, hidden, n, sample
        self._most_vetoed, self._canonical = most_vetoed, canonical
        self._secret = os.urandom(16)  # so that nobody who answers can tell what the second check looks at
        self.trust = trust

    @property
    def name(self) -> str:
        return f"{self._n} checked samples of {self._asker.name}"

    @property
    def most_calls(self) -> int:
        """Asks for one question at most: every sample, and both checks of each where somebody is asked for them."""
        checks = [asks_of(by) for by in (self._steps, self._hidden) if isinstance(by, Asker)]
        return self._n * (asks_of(self._asker) + sum(checks))

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        solution = await _Question(self, query).answered()
        return replace(solution, source=self.name, tab=query.tab, seconds=time.perf_counter() - start)


@dataclass
class _Sample:
    number: int
    query: Query
    solution: Solution[Any]
    verdict: Verdict | None = None
    second: Verdict | None = None


@dataclass
class _Question:
    """One question being answered."""

    checker: StepChecker
    query: Query
    samples: list[_Sample] = field(default_factory=list)
    stopped: str | None = None
    failure: Exception | None = None

    async def answered(self) -> Solution[Any]:
        checker, trust = self.checker, self.checker.trust
        queries = [self.query.sample(number) for number in range(1, checker._n + 1)]
        solutions = await ask_all(_Guarded(checker._asker), queries)
        trust.asked(len(solutions))
        for number, (query, solution) in enumerate(zip(queries, solutions, strict=True), 1):
            self.heard(solution)
            if solution.answered:
                self.samples.append(_Sample(number, query, solution))
        if not self.samples:
            reason = f"none of {len(solutions)} samples came: {solutions[-1].reason}"
            return self.solution(None, 0, [], followed=True, why_not=None, reason=reason)
        if trust.alarm is None:  # else whatever it says is not believed, and not paid for
            await self.check()
        vetoed = [each for each in self.samples if each.verdict is not None and each.verdict.status == "failed"]
        many = len(vetoed) > checker._most_vetoed * len(self.samples)
        await self.audit(at_least_one=many)
        why_not = None
        if trust.alarm is not None:
            why_not = "the step check is no longer believed"
        elif many:
            why_not = f"it would drop {len(vetoed)} of {len(self.samples)}"
        left = [
            each
            for each in self.samples
            if not (each.second is not None and each.second.status == "failed")
            and not (why_not is None and each in vetoed)
        ]
        if not left:
            dropped = vetoed if why_not is None else ()
            said = f"{len(dropped)} of {len(self.samples)} have a step that fails" if dropped else ""
            second = sum(each.second is not None and each.second.status == "failed" for each in self.samples)
            refused = f"the second check fails {second} of {len(self.samples)}" if second else ""
            reason = "no sample is left: " + " and ".join(each for each in (said, refused) if each)
            return self.solution(None, 0, vetoed, followed=why_not is None, why_not=why_not, reason=reason)
        return self.vote(left, vetoed, why_not)

    async def check(self) -> None:
        """Have the steps of every sample checked, all at once."""

        async def one(sample: _Sample) -> None:
            sample.verdict = await self.looked_at(self.checker._steps, sample, "check")

        try:
            async with asyncio.TaskGroup() as group:
                for sample in self.samples:
                    group.create_task(one(sample))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    def vote(self, left: Sequence[_Sample], vetoed: Sequence[_Sample], why_not: str | None) -> Solution[Any]:
        """The answer that most of those that are left give, the first among equals. What cannot be compared has no
        ballot."""
        groups: dict[str, list[_Sample]] = {}
        problem: NoCanonicalForm | None = None
        for each in left:
            try:
                form = canonical_form(each.solution.value, self.checker._canonical)
            except NoCanonicalForm as error:
                problem = error
                continue
            groups.setdefault(form, []).append(each)
        if not groups:
            said = f"the answers cannot be compared: {redact(str(problem))}; give check_steps(canonical=...)"
            self.failure = ConfigurationError(said)
            return self.solution(None, 0, vetoed, followed=why_not is None, why_not=why_not, reason=said)
        chosen = max(groups.values(), key=len)  # of equals the first
        return self.solution(chosen[0], len(chosen), vetoed, followed=why_not is None, why_not=why_not)

    async def audit(self, *, at_least_one: bool) -> None:
        """Have the second check look at some of what the first let pass."""
        passed = [each for each in self.samples if each.verdict is not None and each.verdict.status != "failed"]
        drawn = [each for each in passed if self.chance(each) < self.checker._sample]
        if at_least_one and not drawn and passed:
            drawn = [min(passed, key=self.chance)]
        for sample in drawn:
            self.stopped = self.stopped or cut_short(self.query)
            if self.stopped is not None:
                break
            sample.second = await self.looked_at(self.checker._hidden, sample, "second check")
        told = [each.second.status for each in drawn if each.second is not None and each.second.status != "unknown"]
        self.checker.trust.audited(disagree=[status == "failed" for status in told])

    def chance(self, sample: _Sample) -> float:
        """Of a sample, from 0 to 1: the same whenever it is drawn, and known to nobody before."""
        text = f"{self.query.tab.key(sample.query.path)}\0{self.query.text}\0{sample.number}"
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), key=self.checker._secret, digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    async def looked_at(self, by: CheckedBy, sample: _Sample, name: str) -> Verdict:
        if not isinstance(by, Asker):
            verdict = await checked(lambda value: _over_steps(by, value), sample.solution.value, self.query)
            if verdict.status == "unknown":
                self.stopped = self.stopped or cut_short(self.query)
            return verdict
        self.stopped = self.stopped or cut_short(self.query)
        if self.stopped is not None:
            return Verdict.unknown("it was not asked: nothing is left for it")
        verdict, asked = await verified(by, sample.query, sample.solution.value, name)
        if asked is not None:
            self.heard(asked)
        return verdict

    def heard(self, solution: Solution[Any]) -> None:
        if solution.failure is not None:
            self.failure = solution.failure
        self.stopped = self.stopped or cut_short(self.query, solution)

    def solution(
        self,
        chosen: _Sample | None,
        votes: int,
        vetoed: Sequence[_Sample],
        *,
        followed: bool,
        why_not: str | None,
        reason: str | None = None,
    ) -> Solution[Any]:
        seconds = [each.second for each in self.samples if each.second is not None]
        report = StepReport(
            self.checker._n,
            len(self.samples),
            len(vetoed),
            followed,
            why_not,
            len(seconds),
            sum(each.status == "failed" for each in seconds),
            votes,
            self.checker.trust.alarm,
            self.query.tab.calls,
            self.query.tab.cost,
        )
        if chosen is None:
            return Solution(None, reason, failure=self.failure, stopped=self.stopped, report=report)
        stopped = self.stopped or chosen.solution.stopped
        return replace(chosen.solution, report=report, stopped=stopped, failure=None)


class _Guarded(Asker):
    """An asker that always gives a solution."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    @property
    def name(self) -> str:
        return self._asker.name

    async def ask(self, query: Query) -> Solution[Any]:
        return await guarded(self._asker, query)


async def _over_steps(check: Callable[[Any], Any], value: Any) -> Verdict:
    """What a function says of the steps of a value. May raise whatever the function does."""
    said = check(value)
    if inspect.isawaitable(said):
        said = await said
    several = isinstance(said, Iterable) and not isinstance(said, str)
    each = list(islice(said, MOST_STEPS + 1)) if several else [said]
    if not each:
        return Verdict.unknown("the check looked at no step")
    if len(each) > MOST_STEPS:
        return Verdict.unknown(f"the check says something of more than {MOST_STEPS:,} steps")
    verdict = Verdict.passed()
    for number, one in enumerate(each, 1):
        said = one.item() if not isinstance(one, bool | Verdict) and hasattr(one, "item") else one  # numpy's own bool
        if isinstance(said, Verdict):
            if said.status == "failed":
                return Verdict.failed(redact(f"step {number}: {said.reason or 'it fails'}")[:2000])
            verdict = said if said.status == "unknown" else verdict
        elif said is False:
            return Verdict.failed(f"step {number} fails")
        elif said is not True:
            verdict = Verdict.unknown(f"the check returned {type(said).__name__}, neither a verdict nor a boolean")
    return verdict


def _equal(one: Any, other: Any) -> bool:
    """Whether they are the same: a bound method is another object each time."""
    try:
        return bool(one == other)
    except Exception:  # the application's own
        return False


def _without_steps(value: Any) -> Any:
    """A value without the explanation in it."""
    if isinstance(value, BaseModel):
        parts = {**dict(value), **(value.__pydantic_extra__ or {})}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        parts = dict(value)
    else:
        return value
    return {key: part for key, part in parts.items() if key not in EXPLANATIONS} or value
