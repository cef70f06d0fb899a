"""One part of a strategy, asked so that it always gives a solution: also where it keeps no promise, or no deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from specialists import Verdict
from specialists.verifiers import run_verifier

from ..asking import GRACE, Asker, Query, Solution
from ..errors import JournalError, LedgerError, ModelTimeout
from ..keys import redact

__all__ = ["LATE", "checked", "guarded"]

LATE = GRACE / 2
"""Seconds after the deadline for which a part is still waited for: whoever is asked keeps the deadline by itself."""


async def guarded(asker: Asker, query: Query) -> Solution[Any]:
    """What ``asker`` gives. What it raises is a failure in the solution, and so is a deadline that it does not keep: a
    strategy then gives what the other parts gave. Raises :class:`LedgerError`, :class:`JournalError` and cancellation.
    """
    remaining = query.remaining()
    failure: Exception
    try:
        if remaining is None:
            return await asker.ask(query)
        async with asyncio.timeout(remaining + LATE) as limit:
            return await asker.ask(query)
    except (LedgerError, JournalError):
        raise
    except Exception as error:  # an asker of somebody else's
        if remaining is not None and isinstance(error, TimeoutError) and limit.expired():
            failure = ModelTimeout(f"{asker.name} did not answer before the deadline")
            said = str(failure)
        else:
            failure, said = error, redact(f"{type(error).__name__}: {error}")[:2000]
        return Solution(None, said, source=asker.name, failure=failure, tab=query.tab)


async def checked(check: Callable[[Any], Awaitable[Verdict] | Verdict | bool], value: Any, query: Query) -> Verdict:
    """What ``check`` says of a value. One that raises, or that has not ended at the deadline, could not tell."""
    remaining = query.remaining()
    try:
        async with asyncio.timeout(None if remaining is None else remaining + LATE):
            return await run_verifier(lambda _, given: check(given), {}, value)
    except TimeoutError:
        return Verdict.unknown("the check had not ended at the deadline")
