"""Any asker as a rung of a specialist's ladder, without a brain: ``await s.climb(arguments, above=(rung(...),))``.

With one, pass the asker as its fallback: ``Brain(fallback=...)``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from specialists import Attempt, LadderRung, Question, RungPolicy, Specialist

from ..asking import Tab
from ..books import MACHINE, Books, current_books
from ..budgets import Budget, Scope
from ..errors import ConfigurationError
from ..ledger import Ledger
from ..rungs import BIG_MODEL, attempt_by
from .sources import asker as as_asker

__all__ = ["rung"]

HANDING_OVER = 0.05
"""Share of the time that is left, and seconds at most ten times as much, in which an asker that has kept its deadline
gives what it has: the climb ends at its own."""


def rung(
    asker: Any,
    specialist: Specialist[..., Any],
    *,
    name: str = BIG_MODEL,
    ledger: Ledger | None = None,
    budget: Budget | Sequence[Budget] | None = None,
) -> LadderRung:
    """A rung that asks ``asker`` the typed question that ``specialist`` was asked.

    The specialist's verifier checks the answer, and is the query's check, for strategies that have use for one. What
    the rung takes is in its attempt (``cost``, ``wire_attempts``) and in the ledger.

    Args:
        asker: Whatever :func:`brain.scaling.asker` takes, a strategy too.
        specialist: Whose ladder it stands on.
        name: The rung's; two rungs of one ladder have two names.
        ledger: Where every attempt is written down; by default that of the run around, or one in memory.
        budget: What all climbs over this rung may spend, together.

    Raises :class:`ConfigurationError` for what cannot be asked, and for a name that one of the specialist's own rungs
    has.
    """
    by = as_asker(asker)
    if not isinstance(specialist, Specialist):
        raise ConfigurationError(f"a rung stands on a specialist's ladder, and {specialist!r} is none")
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a rung's name is a text, not {name!r}")
    if name in {each.policy.name for each in specialist.ladder()}:
        raise ConfigurationError(f"{specialist.name} has a rung {name!r} already; give this one another name")
    if ledger is not None and not isinstance(ledger, Ledger):
        raise ConfigurationError(f"ledger is a Ledger, such as Ledger('bill.db'), not {ledger!r}")
    budgets = () if budget is None else (budget,) if isinstance(budget, Budget) else tuple(budget)

    async def run(question: Question) -> Attempt:
        around = current_books.get()
        store = ledger.store if ledger is not None else around.store if around is not None else Ledger().store
        owner = await asyncio.to_thread(store.claim) if store.shared else None
        scope = Scope(os.urandom(16).hex())
        if around is not None:
            scope = replace(scope, session=around.scope.session, tenant=around.scope.tenant)
        books = Books(store, scope, budgets, rates=MACHINE, parent=around, owner=owner)
        tab = Tab(books, key=os.urandom(16).hex(), tool=specialist.name, rung=name)
        remaining = question.remaining()
        if remaining is not None and question.deadline is not None:
            earlier = min(HANDING_OVER * remaining, 10 * HANDING_OVER)
            question = replace(question, deadline=question.deadline - earlier)
        token = current_books.set(books)
        try:
            attempt, _ = await attempt_by(by, specialist, question, tab, name)
        finally:
            current_books.reset(token)
            await books.close()
        attempt = replace(attempt, cost=tab.cost, wire_attempts=tuple(tab.wire))
        return await specialist.check(question.arguments, attempt)

    checked = specialist.verify is not None
    return LadderRung(RungPolicy(name, "big_model", None, specialist.sound, specialist.complete, checked), run)
