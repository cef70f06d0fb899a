"""One part of a strategy, asked so that it always gives a solution: also where it keeps no promise, or no deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from specialists import Verdict
from specialists.verifiers import run_verifier

from ..asking import GRACE, Asker, Query, Solution
from ..errors import AuthenticationFailed, BudgetExceeded, JournalError, LedgerError, ModelTimeout
from ..keys import redact

__all__ = ["asks_of", "checked", "cut_short", "guarded"]

MOST_REASON = 2000
"""Characters that are kept of why."""

LATE_PART, LATE_CHECK = GRACE / 4, GRACE / 2
"""Seconds after the deadline for which a part, and then the check of what parts gave, is still waited for: whoever is
asked keeps the deadline by itself, and the whole is given up only after both."""


async def guarded(asker: Asker, query: Query) -> Solution[Any]:
    """What ``asker`` gives. What it raises is a failure in the solution, and so is a deadline that it does not keep: a
    strategy then gives what the other parts gave. Raises :class:`LedgerError`, :class:`JournalError` and cancellation.
    """
    failure: Exception
    try:
        async with asyncio.timeout(_left(query, LATE_PART)) as limit:
            solution = await asker.ask(query)
        if not isinstance(solution, Solution):
            raise TypeError(f"{asker.name} gave {type(solution).__name__}, not a Solution")
        return solution
    except (LedgerError, JournalError):
        raise
    except Exception as error:  # an asker of somebody else's
        if isinstance(error, TimeoutError) and limit.expired():
            failure = ModelTimeout(f"{asker.name} did not answer before the deadline")
            said = str(failure)
        else:
            failure, said = error, redact(f"{type(error).__name__}: {error}")[:MOST_REASON]
        return Solution(None, said, source=asker.name, failure=failure, tab=query.tab)


async def checked(check: Callable[[Any], Awaitable[Verdict] | Verdict | bool], value: Any, query: Query) -> Verdict:
    """What ``check`` says of a value. One that raises, or that has not ended at the deadline, could not tell."""

    def asked(_: Any, given: Any) -> Any:
        return check(given)

    asked.__name__ = getattr(check, "__name__", type(check).__name__)
    try:
        async with asyncio.timeout(_left(query, LATE_CHECK)):
            verdict = await run_verifier(asked, {}, value)
    except TimeoutError:
        return Verdict.unknown("the check had not ended at the deadline")
    # What an application's check says goes into reports, and back to models.
    return verdict if verdict.reason is None else Verdict(verdict.status, redact(str(verdict.reason))[:MOST_REASON])


def cut_short(query: Query, solution: Solution[Any] | None = None, *, same: bool = False) -> str | None:
    """Why a strategy asks no more after ``solution`` (``None``: after something that was not ended in time); ``None``:
    nothing speaks against it. ``same``: whoever is asked next is the one who gave this."""
    if solution is not None and isinstance(solution.failure, BudgetExceeded):
        return redact(str(solution.failure))[:MOST_REASON]
    if solution is not None and same and isinstance(solution.failure, AuthenticationFailed):
        return redact(f"nothing else would be answered: {solution.failure}")[:MOST_REASON]
    missing = solution is None or not solution.answered
    return "the deadline passed" if missing and query.remaining() == 0 else None


def asks_of(asker: Any) -> int:
    """Asks that one query of ``asker`` takes at most, where it says so; one where it says nothing."""
    said = getattr(asker, "most_calls", None)
    return said if isinstance(said, int) else 1


def _left(query: Query, late: float) -> float | None:
    return None if query.deadline is None else max(0.0, query.deadline + late - time.monotonic())
