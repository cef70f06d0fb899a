"""How a run comes into the ledger and the journal at its beginning, is taken up from there, and leaves them.

This module knows nothing of turns and calls; those are the loop's (:mod:`brain.agent`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import TypeAdapter

from specialists.ladder import jsonable

from .books import Books, current_books, kept
from .budgets import Budget, Scope
from .errors import ApprovalRequired, JournalCorrupt, PromptError, RunTaken, RunUncertain
from .journal import Journal, messages_from_json
from .keys import redact
from .prices import Rates
from .results import RunResult
from .runs import Run, RunArguments
from .storage.changes import Begin, Begun, Finish, RunRow, RunStatus, Store

__all__ = [
    "finish_of",
    "leaving_as_before",
    "open_run",
    "owner_of",
    "result_to_store",
    "stored_result",
]

LONGEST_REASON = 500


_opened: weakref.WeakSet[Store] = weakref.WeakSet()


async def owner_of(store: Store) -> str:
    """This process's token. The first time the file is opened for it, for which no event loop waits."""
    if store in _opened:
        return store.claim()
    owner = await asyncio.to_thread(store.claim)
    _opened.add(store)
    return owner


async def open_run(
    store: Store,
    run: Run,
    budgets: Sequence[Budget],
    rates: Rates,
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
        if arguments.named:  # a name may be used again
            run.salt = os.urandom(16).hex()
        _check_prompt(arguments)
        run.books = _books(store, arguments, budgets, own, rates, parent)
        return
    owner = store.claim()
    given = budgets if own is None else (*budgets, own)
    by_session = any(each.per == "session" for budget in given for each in budget.chain())
    if by_session and arguments.named and arguments.session is None:
        begun = await asyncio.to_thread(store.run, arguments.run_id)
        if begun is not None and begun.tenant == arguments.tenant:  # its session is what a budget per session is of
            arguments = replace(arguments, session=begun.session)
    _books(store, arguments, budgets, own, rates, parent)  # what cannot hold is refused before anything is written
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
    run.journal = journal = Journal(await _begun(store, begin))
    run.salt = journal.salt
    if journal.resumed:
        with leaving_as_before(store, run):
            journal.read()
            journal.check_request(request)
            run.arguments = arguments = _as_begun(arguments, journal.run)
            run.begin_with(arguments.history)
            earlier = journal.run.request["budget"]
            if earlier is not None:
                before = Budget.from_json(earlier)
                own = before if own is None else own.like(before)
            run.books = _books(store, arguments, budgets, own, rates, parent, journal.fence, owner)
    else:
        run.books = _books(store, arguments, budgets, own, rates, parent, journal.fence, owner)


@contextlib.contextmanager
def leaving_as_before(store: Store, run: Run) -> Iterator[None]:
    """A run that was taken up, and turns out to be none that can be, is left as it was found. Nobody waits for that."""
    try:
        yield
    except BaseException:
        if run.journal is not None:
            _leave(store, run.journal)
        raise


def _leave(store: Store, journal: Journal) -> None:
    if journal.run.status != "done":
        store.apply([journal.as_before()])


async def _begun(store: Store, begin: Begin) -> Begun:
    future = store.apply([begin])
    try:
        return cast(Begun, (await kept(future))[0])
    except asyncio.CancelledError:
        # It may be begun yet, and must not look as if this process had it.
        future.add_done_callback(lambda done: None if done.exception() else _leave(store, Journal(done.result()[0])))
        raise


def result_to_store(run: Run, output: Any, output_type: TypeAdapter[Any] | None) -> dict[str, Any]:
    """What a run that is done gives back when it is asked for again."""
    if output_type is not None:
        with contextlib.suppress(Exception):  # a serializer of the type's own
            output = output_type.dump_python(output, mode="json", by_alias=True, round_trip=True, warnings=False)
        output = jsonable(output)
    return {
        "output": output,
        "messages": [*run.messages[len(run.arguments.history) :]],
        "repairs": run.repairs,
        "seconds": run.seconds(),
        "cpu_seconds": run.meter.high,
    }


def stored_result(run: Run, journal: Journal, output_type: TypeAdapter[Any] | None) -> RunResult[Any]:
    """The result of a run that was done before. Raises :class:`JournalCorrupt`."""
    stored = journal.run.result or {}
    try:
        output, run.repairs, run.cpu_before = stored["output"], stored["repairs"], stored["cpu_seconds"]
        if type(run.repairs) is not int or type(run.cpu_before) not in (int, float) or run.cpu_before < 0:
            run.repairs, run.cpu_before = 0, 0.0  # the error carries the run as far as it got
            raise TypeError("repairs or cpu_seconds is no number from zero up")
        run.messages += messages_from_json(stored["messages"])
        if output_type is not None:
            output = output_type.validate_json(json.dumps(output))
        elif not isinstance(output, str):
            raise TypeError("the output is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise JournalCorrupt(f"the result of the run {run.id!r} cannot be read: {error}") from None
    run.take_all()
    return run.result(output)


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
    rates: Rates,
    parent: Books | None,
    fence: int | None = None,
    owner: str | None = None,
) -> Books:
    scope = Scope(arguments.run_id, arguments.session, arguments.tenant)
    given = (*budgets, own) if own is not None else tuple(budgets)
    return Books(store, scope, given, rates=rates, parent=parent, fence=fence, owner=owner)


def _as_begun(arguments: RunArguments, begun: RunRow) -> RunArguments:
    """The arguments with what the run was asked when it was begun."""
    request = begun.request
    if arguments.session is not None and arguments.session != begun.session:
        raise RunTaken(f"the run id {begun.id!r} belongs to a run of another session; choose another id")
    return replace(
        arguments,
        prompt=request["prompt"],
        group=request["group"],
        history=tuple(messages_from_json(request["history"])),
        session=begun.session,
    )


def _check_prompt(arguments: RunArguments) -> None:
    if arguments.prompt is None and not arguments.history:
        raise PromptError(
            "there is no prompt and nothing to resume; say what is wanted, or give the brain the ledger's file that the"
            " run was begun with: ledger='bill.db'"
        )
