"""How a run comes into the ledger and the journal at its beginning, is taken up from there, and leaves them.

This module knows nothing of turns and calls; those are the loop's (:mod:`brain.agent`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .books import Books, current_books
from .budgets import Budget, Scope
from .errors import ApprovalRequired, JournalCorrupt, PromptError, RunUncertain
from .journal import Journal, messages_from_json
from .keys import redact
from .runs import Run, RunArguments
from .storage.changes import Begin, Finish, RunStatus, Store

__all__ = ["finish_of", "journaled", "open_run"]

LONGEST_REASON = 500


async def open_run(
    store: Store,
    run: Run,
    budgets: Sequence[Budget],
    cpu_rate: Decimal | None,
    request: Mapping[str, Any],
) -> None:
    """Give ``run`` its books, and its journal where the ledger is a file; take it up where it was begun before.

    ``request``: what the run is asked, as JSON. Raises :class:`ConfigurationError` for budgets that cannot hold,
    :class:`JournalError` where the run cannot be had, and :class:`LedgerError`; nothing has been done then.
    """
    arguments = run.arguments
    parent = current_books.get()
    own = arguments.budget
    if not store.shared:
        run.salt = os.urandom(16).hex()
        _check_prompt(arguments)
        run.books = _books(store, arguments, budgets, own, cpu_rate, parent)
        return
    owner = store.claim()
    _books(store, arguments, budgets, own, cpu_rate, parent)  # what cannot hold is refused before anything is written
    begin = Begin(
        arguments.run_id,
        arguments.tenant,
        request,
        arguments.session,
        None if parent is None else parent.scope.run,
        os.urandom(16).hex(),
        owner,
        create=arguments.prompt is not None or bool(arguments.history),
    )
    books = Books(store, Scope(arguments.run_id))
    begun = (await books.push(begin))[0]
    run.journal = journal = Journal(begun)
    run.salt = journal.salt
    if journal.resumed:
        try:
            journal.check_request(request)
            run.arguments = arguments = _as_begun(arguments, journal.run.request)
            run.messages = list(arguments.history)
            earlier = journal.run.request.get("budget")
            if isinstance(earlier, dict):
                before = Budget.from_json(earlier)
                own = before if own is None else own.like(before)
        except BaseException:
            await journaled(store, run, None)
            raise
    run.books = _books(store, arguments, budgets, own, cpu_rate, parent, journal.fence, owner)


async def journaled(store: Store, run: Run, finish: Finish | None) -> None:
    """Leave a run that could not be taken up as it was before."""
    journal = run.journal
    if journal is not None and journal.run.status != "done":
        before = finish or journal.finish("failed", "it could not be taken up")
        await Books(store, Scope(run.id)).push(before)


def finish_of(journal: Journal, error: BaseException | None, result: Mapping[str, Any] | None) -> Finish:
    """How the run ended, for the journal."""
    if error is None:
        return journal.finish("done", None, result)
    status: RunStatus = "failed"
    if isinstance(error, ApprovalRequired):
        status = "waiting"
    elif isinstance(error, RunUncertain):
        status = "uncertain"
    reason = redact(f"{type(error).__name__}: {error}")[:LONGEST_REASON]
    return journal.finish(status, reason.encode("utf-8", "replace").decode())


def _books(
    store: Store,
    arguments: RunArguments,
    budgets: Sequence[Budget],
    own: Budget | None,
    cpu_rate: Decimal | None,
    parent: Books | None,
    fence: int | None = None,
    owner: str | None = None,
) -> Books:
    scope = Scope(arguments.run_id, arguments.session, arguments.tenant)
    given = (*budgets, own) if own is not None else tuple(budgets)
    return Books(store, scope, given, cpu_rate=cpu_rate, parent=parent, fence=fence, owner=owner)


def _as_begun(arguments: RunArguments, request: Mapping[str, Any]) -> RunArguments:
    """The arguments with what the run was asked when it was begun."""
    prompt, history, group = (request.get(name) for name in ("prompt", "history", "group"))
    texts = all(each is None or isinstance(each, str) for each in (prompt, group))
    if not texts or not isinstance(history, list):
        raise JournalCorrupt(f"what the run {arguments.run_id!r} was asked cannot be read; nothing was executed")
    return replace(arguments, prompt=prompt, group=group, history=tuple(messages_from_json(history)))


def _check_prompt(arguments: RunArguments) -> None:
    if arguments.prompt is None and not arguments.history:
        raise PromptError(
            "there is no prompt and nothing to resume; say what is wanted, or give the brain the ledger's file that the"
            " run was begun with: ledger='bill.db'"
        )
