"""The books of one run: what it sends is reserved in the ledger before, and written down after, attempt by attempt.

Everything goes into the store through here, in the order in which it happens, and a step of the journal goes together
with the money that belongs to it. Nothing waits for a disk but what must not happen before it is written: an attempt
for its reservation, a call for its intent. This module knows nothing of models, tools or messages.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from specialists import Attempt, Cost, Policy

from .budgets import Budget, Scope, allowances, check_shared, merged
from .describing import OWN_WORK, Whose, attempt_settled, brain_settled, model_settled
from .errors import BrainError, BudgetExceeded, ConfigurationError, LedgerError, ModelTimeout, RunBusy, UnpricedModel
from .events import ChatModel, Sending, WireAttempt
from .prices import Rates, cpu_cost
from .storage.changes import Allowance, Change, Commit, Finish, Intend, Note, Release, Reserve, Settle, Store
from .storage.failpoints import failpoint
from .storage.rows import NOTHING, LedgerRow, RowKind

__all__ = ["MACHINE", "Books", "Page", "current_books", "kept", "refused"]

MACHINE = Rates()
"""What a machine costs that nobody says anything about."""
BRAIN_SLICE = 0.1
"""CPU seconds of the brain's own work that money is set aside for at a time."""
UNLIMITED = 60.0
"""Seconds that an attempt on this machine is given under a budget when nothing else limits it: without any limit there
is no most that it can cost."""
GRACE = 1.0
"""Seconds by which a stop may come late."""

current_books: ContextVar[Books | None] = ContextVar("brain_books", default=None)
"""Those of the run around: a run that a tool begins spends from the same budgets."""


@dataclass(frozen=True, slots=True)
class _Open:
    """An attempt in flight."""

    row: LedgerRow
    allowances: tuple[Allowance, ...]


class Books:
    """Those of the run ``scope.run``. ``fence``: its place in the journal, if it has one."""

    __slots__ = (
        "_brain_id",
        "_brain_reserved",
        "_handed",
        "_inflight",
        "_notes",
        "_pending",
        "_rates",
        "announces",
        "budgets",
        "fence",
        "limited",
        "parent",
        "scope",
        "store",
        "whose",
    )

    def __init__(
        self,
        store: Store,
        scope: Scope,
        budgets: Sequence[Budget] = (),
        *,
        rates: Rates = MACHINE,
        parent: Books | None = None,
        fence: int | None = None,
        owner: str | None = None,
    ) -> None:
        self.store = store
        self.scope = scope
        self.budgets = tuple(budgets)
        self.parent = parent
        self.fence = fence
        self.whose = Whose(scope.run, None if parent is None else parent.scope.run, scope.session, scope.tenant, owner)
        self._rates = rates
        self._pending: list[Change] = []
        self._notes: list[Note] = []
        self._inflight: dict[Future[list[Any]], tuple[Change, ...]] = {}
        self._handed: list[Future[list[Any]]] = []
        self._brain_id: str | None = None
        self._brain_reserved = 0.0
        self.limited: bool = bool(self.budgets) or (parent is not None and parent.limited)
        """Whether any budget holds for this run."""
        self.announces = self.limited or store.shared
        """Whether anything has to be written before an attempt is made."""
        if self.limited:
            check_shared([each for books in self._line() for each in books.budgets], store.shared)
            for books in self._line():
                for budget in books.budgets:
                    budget.hold(getattr(books.store, "identity", None), shared=books.store.shared)
            if parent is not None and parent.limited and not _same(parent.store, store):
                raise ConfigurationError(
                    "this run was begun within a run that has a budget, and uses another ledger; use the same one"
                )
            self.allowances()  # a budget per session or tenant, and a run without one: before anything is done

    def allowances(self) -> tuple[Allowance, ...]:
        """What may be spent now, by this run and those around it."""
        if not self.limited:
            return ()
        return merged(each for books in self._line() for each in allowances(books.budgets, books.scope))

    def ceiling(self) -> Decimal | None:
        """What a request without a known price is taken to cost at most. ``None``: there is none that all agree to; a
        run within another has no say about the budgets of that one."""
        most: Decimal | None = None
        for books in reversed(self._line()):
            budgets = [each for budget in books.budgets for each in budget.chain()]
            found = [most, *(each.ceiling for each in budgets)]
            most = max((each for each in found if each is not None), default=None)
            if most is None and any(each.usd is not None for each in budgets):
                return None
        return most

    def note(self, make: Callable[[Any], Change], ended: tuple[Any, ...], cost: Cost) -> None:
        """Have the settled attempt written down, with the next changes, that ``make`` describes of ``ended``.

        Where nobody else sees the ledger and no budget holds, it is described when somebody looks.
        """
        if self.announces:
            self._pending.append(make(ended))
        else:
            self._notes.append(Note(make, ended, cost))

    def pend(self, *changes: Change) -> None:
        """Have ``changes`` written with the next ones."""
        self._pending += changes

    async def push(self, *changes: Change) -> list[Any]:
        """Write what is pending, then ``changes`` as a whole; what each of them gives. A cancellation ends the wait.

        Raises what the changes do, and :class:`LedgerError`.
        """
        self.hand_over()
        before = list(self._handed)
        future = self.store.apply(changes)
        if not before and future.done():
            return future.result()
        self._inflight[future] = changes
        for each in before:  # nothing more happens in a run whose steps cannot be written down
            await kept(each)
        if before:
            self._handed = [each for each in self._handed if each not in before]
            failpoint("journal.after_commit")
        given: list[Any] = await kept(future)
        return given

    def hand_over(self) -> None:
        """Have what is pending written, without waiting for it."""
        # What was handed over before and is kept by now needs no more looking after.
        for future in [each for each in self._inflight if each.done() and each.exception() is None]:
            del self._inflight[future]
        if self._pending:
            pending, self._pending = tuple(self._pending), []
            future = self.store.apply(pending)
            self._inflight[future] = pending
            self._handed.append(future)

    async def close(self, finish: Finish | None = None) -> None:
        """Write all that is left, ``finish`` as the last. Raises :class:`LedgerError`, and :class:`RunBusy` where the
        run was taken up by another process: the steps are then that one's, and the bill is written all the same.
        """
        if self._notes:
            self.store.note(self._notes)
            self._notes = []
        if not self._pending and finish is None and not self._inflight:
            return
        problem: Exception | None = None
        rest = (*self._pending, *(() if finish is None else (finish,)))
        self._pending = []
        if rest:
            self._inflight[self.store.apply(rest)] = rest
        while self._inflight:
            future = next(iter(self._inflight))
            changes = self._inflight[future]
            try:
                await kept(future)
            except RunBusy as error:
                problem = problem or error
                money = tuple(each for each in changes if isinstance(each, Settle | Release))
                if money:
                    self._inflight[self.store.apply(money)] = money
            except LedgerError as error:
                problem = problem or error
            except BrainError:
                pass  # whoever waited for it was told
            del self._inflight[future]
        if problem is not None:
            raise problem
        failpoint("journal.after_commit")

    async def brain_may_work(self, cpu_seconds: float) -> None:
        """Before a turn: set money aside for the brain's own work. Raises :class:`BudgetExceeded`."""
        if not self.limited or cpu_seconds < self._brain_reserved - BRAIN_SLICE / 2:
            return
        more = BRAIN_SLICE if self._brain_id is None else BRAIN_SLICE + max(0.0, cpu_seconds - self._brain_reserved)
        usd = cpu_cost(more, self._rates.cpu).low
        held = cpu_cost(self._brain_reserved + more, self._rates.cpu).low
        id = self._brain_id or os.urandom(16).hex()
        row = self.whose.row("brain", OWN_WORK, id=id, cost=Cost.bounded(0, held))
        try:
            await self.push(Reserve(row, self.allowances(), usd, 0, 0))
        except asyncio.CancelledError:
            self._brain_id = id  # it may be applied yet; what was done is settled, or borne without it
            raise
        self._brain_id = id
        self._brain_reserved += more

    def brain_worked(self, cpu_seconds: float) -> None:
        """At the end: what the brain's own work took. A refusal's is in the rows, and on no account that was full."""
        if cpu_seconds <= 0 and self._brain_id is None:
            return
        cost = cpu_cost(cpu_seconds, self._rates.cpu)
        extra = () if self._brain_id is None else self.allowances()
        self.note(brain_settled, (self.whose, cpu_seconds, cost, self._brain_id, extra), cost)

    def _line(self) -> list[Books]:
        """This run and those around it."""
        line: list[Books] = []
        books: Books | None = self
        while books is not None:
            line.append(books)
            books = books.parent
        return line


class Page:
    """What one turn or one call of a run brings into the books. ``intent``: its step in the journal."""

    __slots__ = (
        "_announced",
        "_intent",
        "_local",
        "_open",
        "_policy",
        "_step",
        "_unannounced",
        "books",
        "call",
        "refusal",
        "rung",
        "tool",
    )

    def __init__(
        self, books: Books, *, call: str | None = None, tool: str | None = None, intent: Intend | None = None
    ) -> None:
        self.books = books
        self.call = call
        self.tool = tool
        self.rung = "brain"
        self._intent = intent
        self._step = intent
        self._open: dict[str, _Open] = {}
        self._announced: set[str] = set()
        self._unannounced: _Open | None = None
        self._local: _Open | None = None
        self.refusal: BudgetExceeded | UnpricedModel | None = None
        """Why something was not attempted: a budget had no room for it."""
        self._policy: Policy | None = None

    def begin(self, policy: Policy) -> None:
        """The policy that the call's attempts go by."""
        self._policy = policy

    async def intend(self) -> None:
        """Have the step's intent written, if that was not done together with a reservation."""
        if self._intent is not None:
            intent, self._intent = self._intent, None
            failpoint("journal.before_intent")
            await self.books.push(intent)
            failpoint("journal.after_intent")

    def commit(self, result: dict[str, Any]) -> None:
        """The step has happened: its result is written together with its rows."""
        if self._step is not None:
            step, intent = self._step, self._intent
            self._intent = None
            if intent is not None:  # nothing had to be reserved for it
                self.books.pend(intent)
            self.books.pend(Commit(step.run, step.fence, step.step, result))

    @property
    def on_send(self) -> Callable[[Sending], Awaitable[float | None]] | None:
        """For a model that announces what it sends."""
        return self._on_send if self.books.announces else None

    def asking(self, model: ChatModel) -> AbstractAsyncContextManager[None]:
        """Around one ask of ``model``. One that does not announce has one reservation for all that it sends, and no
        more time than a budget has left. Raises :class:`BudgetExceeded`, :class:`UnpricedModel` and
        :class:`ModelTimeout`."""
        return _nothing if getattr(model, "announces", False) else self._asking(model)

    @asynccontextmanager
    async def _asking(self, model: ChatModel) -> AsyncIterator[None]:
        granted = await self._unannounce(model.name)
        timer = asyncio.timeout(granted)
        try:
            async with timer:
                yield
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise ModelTimeout(
                f"{model.name} had {granted:g} s, all that a budget has left, and did not answer"
            ) from error
        finally:
            self._asked()

    async def _unannounce(self, model: str) -> float | None:
        """Before a model is asked that does not announce: one reservation for whatever it sends. The seconds that it
        may take, where a budget limits them."""
        if not self.books.limited:
            await self.intend()
            return None
        sending = Sending(os.urandom(16).hex(), model, "", Cost.unpriced(), UNLIMITED)
        granted = await self._on_send(sending)
        self._unannounced = self._open.pop(sending.id)
        return granted

    async def _on_send(self, sending: Sending) -> float | None:
        books = self.books
        if sending.id in self._announced:
            raise ConfigurationError(
                f"{sending.model} announces two attempts under one id, {sending.id!r}; give each one an id of its own"
            )
        allowed = books.allowances()
        usd = sending.worst.high
        if usd is None:
            usd = books.ceiling() or Decimal(0)
            if books.ceiling() is None and any(each.usd is not None for each in allowed):
                self.refusal = UnpricedModel(
                    f"a budget of money holds for this run, and nobody knows what {sending.model} costs; give the model"
                    " a price (OpenAIModel(price=...)), or the budget a ceiling for one request (Budget(ceiling=...))"
                )
                raise self.refusal
        row = books.whose.row(
            "model",
            sending.model,
            id=sending.id,
            call=self.call,
            tool=self.tool,
            rung=self.rung,
            endpoint=sending.endpoint or None,
            price=sending.price,
            cost=Cost.unpriced() if sending.worst.high is None else Cost.bounded(0, sending.worst.high),
        )
        granted = await self._reserve(Reserve(row, allowed, usd, _micros(sending.seconds)))
        self._announced.add(row.id)
        self._open[row.id] = _Open(row, allowed)
        return None if granted is None else granted / 1_000_000

    async def _reserve(self, change: Reserve) -> int | None:
        intent = self._intent
        changes = (change,) if intent is None else (intent, change)
        self._intent = None
        if intent is not None:
            failpoint("journal.before_intent")
        try:
            granted: int | None = (await self.books.push(*changes))[-1]
        except BudgetExceeded as error:
            self._intent = intent  # nothing of it was written
            self.refusal = error
            raise
        except BaseException:
            self.books.pend(Release(change.row.id))  # it may be applied yet, or was, and what came before it was not
            raise
        if intent is not None:
            failpoint("journal.after_intent")
        return granted

    def on_attempt(self, wire: WireAttempt) -> None:
        """A wire attempt has ended."""
        opened = self._open.pop(wire.id, None)
        stand_in = None
        if opened is None and self._unannounced is not None:
            stand_in, self._unannounced = self._unannounced, None
        before = opened or stand_in
        at = time.time() - wire.seconds if before is None else before.row.at
        extra = self.books.allowances() if before is None else ()
        instead_of = None if stand_in is None else stand_in.row.id
        ended = (self.books.whose, wire, self.call, self.tool, self.rung, at, instead_of, extra)
        self.books.note(model_settled, ended, wire.cost)

    def _asked(self) -> None:
        """A model that does not announce has been asked. Where it told of no attempt, nobody knows what it sent: what
        was set aside stays spent."""
        if self._unannounced is not None:
            self.books.pend(Settle(replace(self._unannounced.row, outcome="lost")))
            self._unannounced = None

    async def before(self, kind: RowKind, name: str, rung: str, seconds: float | None, cores: int) -> float | None:
        """Before an attempt on this machine that has ``seconds`` and may use ``cores``: the seconds it may take.

        A specialist may use the GPU too. Raises :class:`BudgetExceeded`.
        """
        self.rung = rung
        books = self.books
        if not books.announces:
            return None
        allowed = books.allowances()
        money = any(each.usd is not None for each in allowed)
        limit = UNLIMITED if seconds is None and money else seconds
        usd = None
        if limit is not None:
            most = [cpu_cost((limit + GRACE) * cores, books._rates.cpu)]
            if books._rates.gpu is not None and kind == "specialist":
                most.append(cpu_cost(limit + GRACE, books._rates.gpu))
            usd = Cost.total(most).low
        cost = Cost.unpriced() if usd is None else Cost.bounded(0, usd)
        row = books.whose.row(kind, name, call=self.call, tool=self.tool, rung=rung, cost=cost)
        granted = await self._reserve(
            Reserve(row, allowed, usd or Decimal(0), _micros(UNLIMITED if limit is None else limit))
        )
        self._local = _Open(row, allowed)
        if granted is not None:
            return granted / 1_000_000
        return limit if money and seconds is None else None

    def after(self, kind: RowKind, attempt: Attempt, *, audit: bool = False) -> None:
        """An attempt on a rung has ended; it has its price."""
        before, self._local = self._local, None
        cost = attempt.cost if kind != "rung" and attempt.cost is not None else NOTHING
        at = time.time() - attempt.seconds if before is None else before.row.at
        id = None if before is None else before.row.id
        tried = (self.books.whose, kind, attempt, self.call, self.tool, self._policy, audit, cost, at, id)
        self.books.note(attempt_settled, tried, cost)


def refused(rung: str, source: str, error: BudgetExceeded | UnpricedModel) -> Attempt:
    """The attempt that stands in place of one that a budget had no room for."""
    return Attempt(rung, "refused", 0.0, reason=str(error), source=source)


_nothing: nullcontext[None] = nullcontext()


def _same(one: Store, other: Store) -> bool:
    """Whether both keep the same accounts."""
    known = getattr(one, "identity", None)
    return one is other or (known is not None and known == getattr(other, "identity", None))


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


async def kept(future: Future[Any]) -> Any:
    """What the future gives; a cancellation ends the wait only."""
    if future.done():
        return future.result()
    return await asyncio.shield(asyncio.wrap_future(future))
