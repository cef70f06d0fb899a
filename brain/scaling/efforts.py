"""The cheapest reasoning effort that is enough: question by question with a check, or once, on labelled cases.

Reasoning models think longer at a higher effort (``reasoning_effort`` on the wire), and every thought is paid for. On
easy questions that is money burnt, and on some too much thought does harm (Chen et al., "Do NOT Think That Much for
2+3=?", 2024). Trying cheap before dear is the cascade of FrugalGPT (Chen, Zaharia and Zou 2023, section 3), with effort
in place of models. An endpoint that does not know the setting answers all levels alike: the figures show it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from specialists import Cost
from specialists.statistics import binomial_tail, cases_needed, upper_bound

from ..asking import Asker, Query, Solution
from ..errors import AuthenticationFailed, BudgetExceeded, ConfigurationError
from ..keys import redact
from .effort_reports import EffortLevel, EffortReport, EffortTry
from .forms import Canonical, NoCanonicalForm, canonical_form
from .guarding import asks_of, checked, guarded
from .labelled import Asked, Case, labelled_cases, one_purse
from .sources import asker as as_asker

__all__ = ["Effort", "EffortChoice", "EffortLevel", "EffortReport", "EffortTry", "effort"]

LEVELS = ("low", "medium", "high")
_ORDER = {"failed": 0, "unknown": 1, "passed": 2}


def effort(
    asker: Any,
    levels: Sequence[str] = LEVELS,
    *,
    check: Callable[[Any], Any] | None = None,
    target: float | None = None,
) -> Effort:
    """An asker that asks at the cheapest effort first, and at the next where the answer is wrong or unsure.

    An answer settles the question when the check passes it; or, where there is no verdict or the check cannot tell,
    when its confidence is ``target`` or more. Where no level settles it, the best there is is given: not one that was
    proved wrong, and of others the one of the highest effort. It has the verdict that it has.

    Args:
        asker: What is asked at each effort: anything that :func:`brain.scaling.asker` takes.
        levels: Efforts, the cheapest first, in the words of the model. They go before a query's own effort.
        check: Says of a value whether it is right, sync or async: a verdict or a boolean. By default the query's.
        target: The confidence, from 0 to 1, that an answer needs without a verdict.

    Where there is neither a verdict (of a check, or of an asker whose solutions have some) nor a confidence to hold
    against ``target``, nothing says whether an answer is enough, and dearer ones could not be told to be better: the
    first answer is given then, and ``stopped`` says why. Use :meth:`Effort.fit`, which chooses one level once.

    Raises :class:`ConfigurationError` for arguments that cannot be.
    """
    return Effort(as_asker(asker), levels, check, target)


@dataclass(frozen=True, slots=True)
class EffortChoice:
    """The cheapest level that was shown to meet the target, ``None`` where none was; ``asker`` uses it.

    The levels are judged on the cases that they are chosen by. With ``confidence``, each level that is said to meet the
    target does: that is allowed for by Bonferroni's correction, over all levels, asked or not. The accuracy of the
    chosen one is a training figure all the same, and on average a little high; the lower end of its interval is what
    holds. ``stopped``: why not every level was asked that might have been.
    """

    level: str | None
    levels: tuple[EffortLevel, ...]
    target: float
    confidence: float
    calls: int
    cost: Cost
    warnings: tuple[str, ...] = ()
    stopped: str | None = None
    _asker: Asker | None = None

    @property
    def asker(self) -> Asker:
        """Asks at the chosen effort, and no other. Raises :class:`ConfigurationError` where there is none."""
        if self.level is None or self._asker is None:
            raise ConfigurationError(f"no effort was shown to meet {self.target:.1%}:\n{self}")
        return _Fixed(self._asker, self.level)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "strategy": "effort",
            "level": self.level,
            "levels": [each.to_json() for each in self.levels],
            "target": self.target,
            "confidence": self.confidence,
            "chosen_on": "the cases that are shown",
            "calls": self.calls,
            "cost": self.cost.to_json(),
            "warnings": list(self.warnings),
            "stopped": self.stopped,
        }

    def __str__(self) -> str:
        what = "no effort was shown to meet" if self.level is None else f"{self.level} is the cheapest that meets"
        lines = [f"{what} {self.target:.1%} right, with {self.confidence:.0%} confidence; {self.cost} to find out"]
        for each in self.levels:
            share = "no case" if each.accuracy is None else f"{each.accuracy:.1%}"
            per = max(each.cases, 1)
            lines.append(
                f"  {each.level}: {share} of {each.cases} right ({each.low:.1%} to {each.high:.1%}),"
                f" {each.calls / per:.2f} calls a case, {each.cost} in all"
            )
        lines.append("  accuracies are of the cases that were chosen by; the lower ends allow for that")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if self.stopped is not None:
            lines.append(f"  stopped: {self.stopped}")
        return "\n".join(lines)


class Effort(Asker):
    """What :func:`effort` returns."""

    def __init__(
        self, asker: Asker, levels: Sequence[str], check: Callable[[Any], Any] | None, target: float | None
    ) -> None:
        several = isinstance(levels, Sequence) and not isinstance(levels, str)
        if not several or not all(isinstance(level, str) and level.strip() for level in levels):
            raise ConfigurationError(f"levels are efforts in words, the cheapest first, not {levels!r}")
        if not levels or len(set(levels)) < len(levels):
            raise ConfigurationError(f"levels are one or more different efforts, not {list(levels)!r}")
        if check is not None and not callable(check):
            raise ConfigurationError(f"check is a function of a value, not {check!r}")
        known = isinstance(target, int | float) and not isinstance(target, bool)
        if target is not None and not (known and 0 <= target <= 1):
            raise ConfigurationError(f"target is a confidence from 0 to 1, not {target!r}")
        self.levels = tuple(levels)
        self._asker, self._check, self._target = asker, check, target

    @property
    def name(self) -> str:
        return f"effort of {self._asker.name}"

    @property
    def most_calls(self) -> int:
        """What it asks for one question at most, all below it included; retries on the wire are not counted."""
        return len(self.levels) * asks_of(self._asker)

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        tries: list[EffortTry] = []
        best: Solution[Any] | None = None
        chosen, stopped, failure = None, None, None
        for level in self.levels:
            if query.remaining() == 0:
                stopped = "the deadline passed"
                break
            part = query.part(f"effort {level}", effort=level)
            solution = await guarded(self._asker, part)
            if solution.answered:
                solution = await self._checked(solution, query)
            tried = self._try(level, solution, query)
            tries.append(tried)
            failure = solution.failure or failure
            if solution.answered and (best is None or _rank(solution) >= _rank(best)):
                best, chosen = solution, level
            if isinstance(solution.failure, BudgetExceeded | ConfigurationError | AuthenticationFailed):
                stopped = redact(str(solution.failure))
                break
            if tried.settled:
                break
            if solution.answered and not self._can_tell(solution):
                stopped = (
                    "nothing says whether the answer is enough, so no dearer effort was asked; give effort() a check or"
                    " a target, or choose a level with fit()"
                )
                break
        fields: dict[str, Any] = {"source": self.name, "stopped": stopped, "tab": query.tab}
        if best is None or (best.verdict is not None and best.verdict.status == "failed"):
            chosen = None
        fields["report"] = EffortReport(tuple(tries), chosen, self.levels, query.tab.calls, query.tab.cost)
        fields["seconds"] = time.perf_counter() - start
        if best is not None and chosen is not None:
            kept = failure if stopped is not None else None
            return Solution(best.value, confidence=best.confidence, verdict=best.verdict, failure=kept, **fields)
        if best is not None and best.verdict is not None:
            reason = redact(f"the answers at {len(tries)} efforts are proved wrong: {best.verdict.reason}")[:2000]
        else:
            reason = stopped or f"no effort gave an answer; the last: {tries[-1].problem}"
        return Solution(None, reason, failure=failure, **fields)

    async def fit(
        self,
        cases: Iterable[Case] | Mapping[str, Any],
        target: float = 0.9,
        confidence: float = 0.95,
        *,
        canonical: Canonical | None = None,
        at_once: int = 8,
        **how: Any,
    ) -> EffortChoice:
        """The cheapest level that labelled cases show to be right in ``target`` of all such questions or more.

        Levels are asked the cheapest first, all cases each, until one meets the target; dearer ones are not asked then.
        A level meets it when "it is right less often than ``target``" is rejected by the exact binomial test at
        (1 - ``confidence``) / number of levels, so that with ``confidence`` no level is chosen that does not meet it.

        Args:
            cases: Pairs of a question and its right answer, each question once, drawn as those to come.
            target: Share of right answers.
            confidence: Of the choice.
            canonical: Gives of a value what it is compared by (:func:`canonical_form`).
            at_once: How many questions are asked at the same time.
            how: ``output_type``, ``ledger``, ``tenant``, ``session``, ``timeout`` of each question, as for
                :meth:`solve`; ``budget`` of all together.

        A budget that has no more room ends it with what there is: ``stopped`` says so, and a level that was not asked
        all cases meets nothing. Raises :class:`ConfigurationError`, also for fewer cases than could show ``target``
        with no error at all, and :class:`AuthenticationFailed`.
        """
        given = labelled_cases(cases, canonical)
        for name, value in (("target", target), ("confidence", confidence)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise ConfigurationError(f"{name} lies between 0 and 1, and is neither, not {value!r}")
        delta = (1 - confidence) / len(self.levels)
        needed = cases_needed(1 - target, delta)
        if len(given.questions) < needed:
            raise ConfigurationError(
                f"{len(given.questions)} cases cannot show an accuracy of {target:g} at {confidence:.0%} confidence for"
                f" {len(self.levels)} levels; {needed} cases without an error would"
            )
        how = one_purse(how)
        levels: list[EffortLevel] = []
        stopped: str | None = None
        for level in self.levels:
            try:
                asked = await given.ask(_Fixed(self._asker, level), at_once, how)
            except BudgetExceeded as error:
                stopped = f"no case at the effort {level}: {error}"
                break
            levels.append(_level(level, given.forms, asked, canonical, target, delta, len(given.questions)))
            stopped = asked.stopped
            if stopped is not None or levels[-1].meets:
                break
        met = next((each for each in levels if each.meets), None)
        return EffortChoice(
            level=None if met is None else met.level,
            levels=tuple(levels),
            target=target,
            confidence=confidence,
            calls=sum(each.calls for each in levels),
            cost=Cost.total(each.cost for each in levels),
            warnings=_warnings(levels),
            stopped=stopped,
            _asker=self._asker,
        )

    async def _checked(self, solution: Solution[Any], query: Query) -> Solution[Any]:
        check = self._check or query.check
        return solution if check is None else replace(solution, verdict=await checked(check, solution.value, query))

    def _can_tell(self, solution: Solution[Any]) -> bool:
        return solution.verdict is not None or (self._target is not None and solution.confidence is not None)

    def _try(self, level: str, solution: Solution[Any], query: Query) -> EffortTry:
        tab, verdict = solution.tab, solution.verdict
        calls, cost = (0, Cost.exact(0)) if tab is None else (tab.calls, tab.cost)
        if not solution.answered:
            problem = redact(solution.reason or "no answer")[:500]
            return EffortTry(level, problem=problem, calls=calls, cost=cost)
        status = None if verdict is None else verdict.status
        sure = self._target is not None and solution.confidence is not None and solution.confidence >= self._target
        return EffortTry(
            level,
            query.answer.plain(solution.value),
            status,
            solution.confidence,
            status == "passed" or (status != "failed" and sure),
            None,
            calls,
            cost,
        )

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(self.levels)}>"


class _Fixed(Asker):
    """An asker at one effort."""

    def __init__(self, asker: Asker, level: str) -> None:
        self._asker, self._level = asker, level

    @property
    def name(self) -> str:
        return f"{self._asker.name} at {self._level} effort"

    @property
    def most_calls(self) -> int:
        return asks_of(self._asker)

    async def ask(self, query: Query) -> Solution[Any]:
        return await self._asker.ask(replace(query, effort=self._level))


def _rank(solution: Solution[Any]) -> int:
    return 1 if solution.verdict is None else _ORDER[solution.verdict.status]


def _level(
    level: str,
    forms: Sequence[str],
    asked: Asked,
    canonical: Canonical | None,
    target: float,
    delta: float,
    cases: int,
) -> EffortLevel:
    n = len(asked.solutions)
    right = sum(
        solution.answered and _same(solution.value, form, canonical)
        for form, solution in zip(forms, asked.solutions, strict=False)
    )
    meets = n == cases and binomial_tail(n - right, n, 1 - target) <= delta
    low, high = (1 - upper_bound(n - right, n, delta), upper_bound(right, n, delta)) if n else (0.0, 1.0)
    return EffortLevel(level, n, right, low, high, meets, asked.calls, asked.cost)


def _same(value: Any, form: str, canonical: Canonical | None) -> bool:
    try:
        return canonical_form(value, canonical) == form
    except NoCanonicalForm:
        return False  # the right answer has a form, so this is another


def _warnings(levels: Sequence[EffortLevel]) -> tuple[str, ...]:
    said = []
    for one, other in pairwise(levels):
        if not one.cases or not other.cases or one.cost.high is None or other.cost.high is None:
            continue
        if other.cost.high / other.cases <= one.cost.low / one.cases:
            said.append(f"{other.level} cost no more than {one.level}: the model may not know these efforts")
    return tuple(said)
