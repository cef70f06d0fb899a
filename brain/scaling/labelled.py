"""Questions with their right answers, asked one after the other until a budget has no more room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from specialists import Cost

from ..asking import Asker, Solution
from ..books import current_books
from ..errors import AuthenticationFailed, BudgetExceeded, ConfigurationError
from ..ledger import Ledger
from .forms import Canonical, NoCanonicalForm, canonical_form

__all__ = ["Asked", "Case", "LabelledCases", "labelled_cases", "one_purse"]

Case: TypeAlias = tuple[str, Any]
"""A question and its right answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of cases: ``solutions`` of those that were asked whole; ``calls`` and ``cost`` of all."""

    solutions: Sequence[Solution[Any]]
    stopped: str | None
    calls: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class LabelledCases:
    """Questions with the forms of their right answers."""

    questions: tuple[str, ...]
    forms: tuple[str, ...]

    async def ask(self, asker: Asker, at_once: int, how: Mapping[str, Any]) -> Asked:
        """Ask them, in their order, until a budget has no more room. Raises :class:`ConfigurationError`,
        :class:`AuthenticationFailed`, and :class:`BudgetExceeded` where there was no room for a single case."""
        if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
            raise ConfigurationError(f"at_once is a number of questions from 1 up, not {at_once!r}")
        done: list[Solution[Any]] = []
        for start in range(0, len(self.questions), at_once):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(asker.solve(question, **how))
                        for question in self.questions[start : start + at_once]
                    ]
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None
            done += [task.result() for task in tasks]
            for place, solution in enumerate(done[start:], start):
                if isinstance(solution.failure, ConfigurationError | AuthenticationFailed):
                    raise solution.failure
                if isinstance(solution.failure, BudgetExceeded):  # what it cut short tells nothing of the accuracy
                    if place == 0:
                        raise solution.failure
                    whole = f"{place} of {len(self.questions)} cases were asked whole: {solution.failure}"
                    return Asked(done[:place], whole, *_bill(done))
        return Asked(done, None, *_bill(done))


def one_purse(how: Mapping[str, Any]) -> dict[str, Any]:
    """``how`` with a ledger where there is a budget and none: one that all cases share, as a budget needs."""
    alone = how.get("budget") is not None and how.get("ledger") is None and current_books.get() is None
    return {**how, "ledger": Ledger()} if alone else dict(how)


def labelled_cases(cases: Iterable[Case] | Mapping[str, Any], canonical: Canonical | None) -> LabelledCases:
    """Cases checked. Raises :class:`ConfigurationError`."""
    rows = list(cases.items() if isinstance(cases, Mapping) else cases)
    questions, forms = [], []
    for number, row in enumerate(rows, 1):
        if (
            not isinstance(row, Sequence)
            or isinstance(row, str)
            or len(row) != 2
            or not isinstance(row[0], str)
            or not row[0].strip()
        ):
            raise ConfigurationError(f"case {number} is a pair of a question and its right answer, not {row!r:.200}")
        try:
            forms.append(canonical_form(row[1], canonical))
        except NoCanonicalForm as error:
            raise ConfigurationError(f"the right answer of case {number} cannot be compared: {error}") from error
        questions.append(row[0])
    if not rows:
        raise ConfigurationError("there are no cases to measure on")
    if len(set(questions)) < len(questions):
        raise ConfigurationError("a question stands twice among the cases: it would be asked the same samples twice")
    return LabelledCases(tuple(questions), tuple(forms))


def _bill(solutions: Iterable[Solution[Any]]) -> tuple[int, Cost]:
    kept = list(solutions)
    return sum(solution.calls for solution in kept), Cost.total(solution.cost for solution in kept)
