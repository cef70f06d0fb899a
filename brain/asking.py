"""What may be asked one typed question, and what it then gives: the shape that all ways of thinking harder share.

An :class:`Asker` answers a :class:`Query` with a :class:`Solution`. A model is one (:class:`ModelAsker`); each strategy
of :mod:`brain.scaling` is one around another, so they nest. Everything that an answer takes goes through the query's
:class:`Tab`: it is reserved before it is sent, written down after, and counted, for all that a strategy asks together.
This module knows nothing of tools, ladders or turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter

from specialists import Cost, InvalidAnswer, Outcome, Verdict
from specialists.loops import run_sync
from specialists.verifiers import run_verifier

from .books import MACHINE, Books, Page, current_books
from .budgets import Budget, Scope
from .errors import (
    Abstained,
    BrainError,
    BudgetExceeded,
    ConfigurationError,
    JournalError,
    LedgerError,
    PromptError,
    RunTimeout,
)
from .events import ChatModel, Message, ModelRequest, Sending, WireAttempt
from .journal import idempotency_key
from .keys import redact
from .ledger import Ledger
from .questions import TypedAnswer
from .receipts import Usage

__all__ = ["Asker", "ModelAsker", "Query", "Revision", "Solution", "Tab", "ask_all", "typed"]

T = TypeVar("T")

Check = Callable[[Any], Awaitable[Verdict]]
"""What says of a value whether it answers the question."""

GRACE = 0.5
"""Seconds that a strategy has after its deadline to give what it has."""

_TEXT = TypedAnswer(TypeAdapter(str))


@dataclass(frozen=True, slots=True)
class Revision:
    """An earlier answer to the same question, and what is wrong with it."""

    answer: Any
    objection: str


@dataclass(slots=True)
class Loan:
    """Requests that a run may send, ``None``: any number; and what it sent of them, ``None``: nobody knows."""

    calls: int | None
    used: int | None = None


class Tab:
    """What is asked for one question, put on one bill.

    Strategies hand :meth:`branch` to what they ask, so that each part knows what it took and the whole knows the sum.
    ``most_calls`` bounds the requests of this branch and all its branches; the budgets of the books bound them too.
    """

    __slots__ = (
        "_call",
        "_heard",
        "_key",
        "_left",
        "_lending",
        "_local",
        "_observe",
        "_parent",
        "_rung",
        "_tool",
        "books",
        "wire",
    )

    def __init__(
        self,
        books: Books,
        *,
        key: str,
        call: str | None = None,
        tool: str | None = None,
        rung: str = "brain",
        observe: Callable[[WireAttempt], None] | None = None,
        heard: Callable[[Outcome[Any]], None] | None = None,
    ) -> None:
        self.books = books
        self.wire: list[WireAttempt] = []
        """The requests of this branch and its branches."""
        self._local: list[Outcome[Any]] = []
        self._key = key
        self._call, self._tool, self._rung = call, tool, rung
        self._observe, self._heard = observe, heard
        self._parent: Tab | None = None
        self._left: int | None = None
        self._lending: asyncio.Lock | None = None

    def branch(self, most_calls: int | None = None) -> Tab:
        """A part of this bill. ``most_calls``: requests that it may send at most, retries counted."""
        part = Tab(self.books, key=self._key, call=self._call, tool=self._tool, rung=self._rung)
        part._parent, part._left = self, most_calls
        return part

    def usage(self, seconds: float = 0.0) -> Usage:
        """The bill of this branch."""
        return Usage.of(self._local, self.wire, seconds=seconds)

    @property
    def cost(self) -> Cost:
        """Money, as far as it is known."""
        return self.usage().cost

    @property
    def calls(self) -> int:
        """Requests sent, and attempts made on this machine."""
        return len(self.wire) + sum(len(outcome.attempts) for outcome in self._local)

    def key(self, path: str) -> str:
        """The idempotency key of one ask, the same whenever it is asked."""
        return idempotency_key(self._key, path)

    def page(self) -> Page:
        """Where one ask reserves and writes down what it takes."""
        page = Page(self.books, call=self._call, tool=self._tool)
        page.rung = self._rung
        return page

    def room(self, page: Page, model: ChatModel) -> Callable[[Sending], Awaitable[float | None]] | None:
        """What a model awaits before each request: room below every ``most_calls``, then in the budgets.

        Raises :class:`BudgetExceeded` at once for a model that announces nothing and has no room left.
        """
        reserve = page.on_send
        if not any(tab._left is not None for tab in self._line()):
            return reserve
        if not getattr(model, "announces", False):
            self._take()
            return reserve

        async def send(sending: Sending) -> float | None:
            await self.turn()
            self._take()
            return None if reserve is None else await reserve(sending)

        return send

    def sent(self, attempt: WireAttempt) -> None:
        """A request has ended."""
        for tab in self._line():
            tab.wire.append(attempt)
            if tab._observe is not None:
                tab._observe(attempt)

    def made(self, outcome: Outcome[Any]) -> None:
        """A specialist or a function has answered. Its wire attempts are told by :meth:`sent`."""
        for tab in self._line():
            tab._local.append(outcome)
            if tab._heard is not None:
                tab._heard(outcome)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Loan]:
        """All the requests that are left, for a run that counts its own.

        What it says at the end that it did not send is given back. Who comes while they are lent waits here. Raises
        :class:`BudgetExceeded` where none is left.
        """
        line = [tab for tab in self._line() if tab._left is not None]
        if not line:
            yield Loan(None)
            return
        async with AsyncExitStack() as held:
            for tab in reversed(line):  # from the top, so that no two wait for each other
                tab._lending = tab._lending or asyncio.Lock()
                await held.enter_async_context(tab._lending)
            calls = min(cast(int, tab._left) for tab in line)
            if calls == 0:
                self._take()
            for tab in line:
                tab._left = cast(int, tab._left) - calls
            loan = Loan(calls)
            try:
                yield loan
            finally:
                unused = 0 if loan.used is None else max(0, calls - loan.used)
                for tab in line:
                    tab._left = cast(int, tab._left) + unused

    async def turn(self) -> None:
        """Wait while requests are :meth:`lent`: what is not used of them comes back."""
        for tab in self._line():
            if tab._left == 0 and tab._lending is not None and tab._lending.locked():
                async with tab._lending:
                    pass

    def _take(self) -> None:
        line = [tab for tab in self._line() if tab._left is not None]
        for tab in line:
            if tab._left == 0:
                raise BudgetExceeded(
                    "the calls that were declared for this question are used up; the next one was not made",
                    unit="calls",
                )
        for tab in line:
            tab._left = cast(int, tab._left) - 1

    def _line(self) -> list[Tab]:
        line: list[Tab] = []
        tab: Tab | None = self
        while tab is not None:
            line.append(tab)
            tab = tab._parent
        return line


@dataclass(frozen=True, slots=True)
class Query:
    """One typed question. ``text`` is what is asked, ``answer`` the type of what is to come back.

    ``seed`` tells samples of the same question apart and goes with the request; ``None``: the only one. ``path`` names
    the place of this ask within the whole. ``revisions``: what was answered before and why it is not good. ``depth``:
    how often the question it belongs to was split. ``check``: what says whether a value is right, where there is such
    a thing (a specialist's verifier). ``deadline``: a point on :func:`time.monotonic`. ``wants``, ``instructions``: of
    a question that is for no answer but, say, a verdict: the name of that, and what a model that was told nothing else
    is told first. They go down with the question through whatever strategy is asked.
    """

    text: str
    tab: Tab = field(repr=False)
    answer: TypedAnswer = _TEXT
    seed: int | None = None
    effort: str | None = None
    revisions: tuple[Revision, ...] = ()
    deadline: float | None = None
    depth: int = 0
    check: Check | None = None
    path: str = ""
    wants: str | None = None
    instructions: str | None = None

    def sample(self, number: int) -> Query:
        """The same question once more, on a branch of its own: another seed, another place."""
        return self.part(f"sample {number}", seed=_mixed(self.seed, number))

    def part(self, name: str, **changed: Any) -> Query:
        """A question within this one, on a branch of its own. ``changed``: fields of the query that differ."""
        return replace(self, tab=changed.pop("tab", None) or self.tab.branch(), path=f"{self.path}/{name}", **changed)

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; ``None`` without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True, repr=False)
class Solution(Generic[T]):
    """What an asker gives: a value, or the ``reason`` why there is none.

    ``value``: of the type that was asked for; ``None`` where there is a ``reason``. ``confidence``: 0 .. 1, where the
    asker has one. ``verdict``: what was checked of the value. ``source``: who answered. ``failure``: what ended it,
    where an error did. ``stopped``: why a strategy asked less than it would have (a budget, a deadline), also where
    there is a value all the same. ``report``: what the strategy did, typed. ``tab``: what it took.
    """

    value: T | None
    reason: str | None = None
    confidence: float | None = None
    verdict: Verdict | None = None
    source: str = ""
    failure: Exception | None = None
    stopped: str | None = None
    report: Any = None
    tab: Tab | None = None
    seconds: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether there is a value."""
        return self.reason is None

    @property
    def calls(self) -> int:
        """Requests sent, and attempts made on this machine."""
        return 0 if self.tab is None else self.tab.calls

    @property
    def cost(self) -> Cost:
        """Money."""
        return self.usage.cost

    @property
    def usage(self) -> Usage:
        """The bill; prints as a receipt."""
        return Usage.of([], []) if self.tab is None else self.tab.usage(self.seconds)

    @property
    def wire_attempts(self) -> tuple[WireAttempt, ...]:
        """Every request that left for an endpoint."""
        return () if self.tab is None else tuple(self.tab.wire)

    def unwrap(self) -> T:
        """The value. Raises :class:`Abstained` where there is none."""
        if self.reason is not None:
            raise Abstained(self.reason) from self.failure
        return cast(T, self.value)

    def __repr__(self) -> str:
        try:
            said = f"no answer: {self.reason}" if self.reason is not None else repr(self.value)
        except Exception:  # a number of thousands of digits, an object of the application's own
            said = f"({type(self.value).__name__})"
        shown = said if len(said) <= 80 else said[:79] + "…"
        return f"<Solution of {self.source or 'nobody'}: {redact(shown)}; {self.calls} calls, {self.cost}>"


class Asker(ABC):
    """What may be asked one typed question. Immutable, and shared by any number of concurrent questions.

    One of your own implements :meth:`ask`. It gives a :class:`Solution` for everything but a cancellation and a ledger
    or a journal that cannot be written.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Shown in reports and receipts."""

    @abstractmethod
    async def ask(self, query: Query) -> Solution[Any]:
        """Answer ``query``."""

    def models(self) -> frozenset[str]:
        """The names of the chat models that it may ask, as far as it can tell: those of the askers it is made of."""
        held = [each for value in getattr(self, "__dict__", {}).values() for each in _several(value)]
        return frozenset().union(*(each.models() for each in held if isinstance(each, Asker) and each is not self))

    async def solve(
        self,
        question: str,
        *,
        output_type: Any = str,
        check: Check | Callable[[Any], Verdict | bool] | None = None,
        seed: int | None = None,
        effort: str | None = None,
        ledger: Ledger | None = None,
        budget: Budget | Sequence[Budget] | None = None,
        tenant: str | None = None,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Solution[Any]:
        """Ask ``question``, for an application.

        Args:
            question: What is asked.
            output_type: The type of the value; anything pydantic can check.
            check: Says of a value whether it is right, sync or async, for strategies that have such a thing.
            seed: For askers that sample: the same seed asks the same samples.
            effort: The reasoning effort that models are asked with.
            ledger: Where every attempt is written down; by default that of the run around, or one in memory.
            budget: What it may spend, all that it asks together.
            tenant: For whom, in the ledger and for budgets per tenant.
            session: Likewise.
            timeout: Seconds for the whole.

        Raises :class:`ConfigurationError` and :class:`PromptError` for arguments that cannot be, :class:`LedgerError`.
        What goes wrong with a model is in the solution.
        """
        if not isinstance(question, str) or not question.strip():
            raise PromptError("the question is empty, or no text; say what is wanted")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
            raise ConfigurationError(f"timeout is in seconds and positive, not {timeout!r}")
        around = current_books.get()
        if ledger is not None and not isinstance(ledger, Ledger):
            raise ConfigurationError(f"ledger is a Ledger, such as Ledger('bill.db'), not {ledger!r}")
        store = ledger.store if ledger is not None else around.store if around is not None else Ledger().store
        owner = await asyncio.to_thread(store.claim) if store.shared else None
        budgets = () if budget is None else (budget,) if isinstance(budget, Budget) else tuple(budget)
        scope = Scope(os.urandom(16).hex(), session, tenant)
        if around is not None:  # what it belongs to holds for this too
            scope = replace(scope, session=session or around.scope.session, tenant=tenant or around.scope.tenant)
        books = Books(store, scope, budgets, rates=MACHINE, parent=around, owner=owner)
        tab = Tab(books, key=os.urandom(16).hex())
        query = Query(
            redact(question),
            tab,
            typed(output_type),
            seed,
            effort,
            deadline=None if timeout is None else time.monotonic() + timeout,
            check=None if check is None else _as_check(check),
        )
        start = time.perf_counter()
        token = current_books.set(books)
        try:
            # Whoever is asked keeps the deadline, and gives what there is; this is for one that does not.
            async with asyncio.timeout(None if timeout is None else timeout + GRACE) as limit:
                solution = await self.ask(query)
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = RunTimeout(f"the question had {timeout:g} s and was not answered within them")
            late.__cause__ = error
            solution = Solution(None, str(late), source=self.name, failure=late)
        finally:
            current_books.reset(token)
            await books.close()
        return replace(solution, tab=tab, seconds=time.perf_counter() - start)

    def solve_sync(self, question: str, **how: Any) -> Solution[Any]:
        """:meth:`solve` for callers without an event loop. Raises ``RuntimeError`` on a thread where one runs."""
        return run_sync(lambda: self.solve(question, **how))


class ModelAsker(Asker):
    """A chat model that is asked one typed question and gives one answer.

    ``instructions``: what it is told first. ``wants``: the name of the answer's form in the request. ``effort`` and
    ``max_output_tokens`` hold where a query does not say otherwise.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        instructions: str | None = None,
        wants: str = "answer",
        effort: str | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        self.model = model
        self._system: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
        self._wants = wants
        self._effort = effort
        self._max_output_tokens = max_output_tokens

    @property
    def name(self) -> str:
        return self.model.name

    def models(self) -> frozenset[str]:
        return frozenset((self.model.name,))

    @property
    def instructions(self) -> str | None:
        """What it is told first."""
        return self._system[0]["content"] if self._system else None

    @property
    def plain(self) -> bool:
        """Whether it is told nothing but the question."""
        return not self._system

    @property
    def most_calls(self) -> int:
        """Asks that one query takes; a model's retries come on top."""
        return 1

    def asking_for(self, wants: str, instructions: str | None = None) -> ModelAsker:
        """The same model, asked for something else."""
        return ModelAsker(
            self.model,
            instructions=instructions,
            wants=wants,
            effort=self._effort,
            max_output_tokens=self._max_output_tokens,
        )

    def _named(self, query: Query) -> str:
        return query.wants if query.wants is not None and self._wants == "answer" else self._wants

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        tab, model = query.tab, self.model
        fields: dict[str, Any]
        try:
            page = tab.page()
            await tab.turn()
            request = ModelRequest(
                messages=[*(self._system or _told_first(query)), *_messages(query)],
                output_schema=query.answer.schema,
                output_name="revision" if query.revisions else self._named(query),
                deadline=query.deadline,
                max_output_tokens=self._max_output_tokens,
                on_send=tab.room(page, model),
                idempotency_key=tab.key(query.path),
                effort=query.effort or self._effort,
                seed=query.seed,
            )

            def made(attempt: WireAttempt) -> None:
                page.on_attempt(attempt)
                tab.sent(attempt)

            async with page.asking(model):
                response = await model.ask(request, on_attempt=made)
            if response.abstention is not None:
                raise Abstained(response.abstention)
            fields = {"value": query.answer.parse(response.text or "", model.name)}
        except (LedgerError, JournalError):
            raise
        except (BrainError, InvalidAnswer) as error:
            fields = {"value": None, "reason": redact(str(error)) or type(error).__name__, "failure": error}
        except Exception as error:  # a model may be the application's own
            said = redact(f"{type(error).__name__}: {error}")[:2000]
            fields = {"value": None, "reason": said, "failure": error}
        return Solution(source=self.name, tab=tab, seconds=time.perf_counter() - start, **fields)

    def __repr__(self) -> str:
        return f"ModelAsker({self.model!r})"


def typed(output_type: Any) -> TypedAnswer:
    """The form of answers of a type. Raises :class:`ConfigurationError` for a type that has no JSON schema."""
    if isinstance(output_type, TypedAnswer):
        return output_type
    if output_type is str:
        return _TEXT
    try:
        return TypedAnswer(TypeAdapter(output_type))
    except Exception as error:  # pydantic has several exceptions for a type it cannot describe
        raise ConfigurationError(f"output_type {output_type!r} has no JSON schema: {error}") from None


async def ask_all(asker: Asker, queries: Iterable[Query], at_once: int | None = None) -> list[Solution[Any]]:
    """Ask several queries, at most so many at once; the solutions in their order. What one raises ends the others."""
    gate = None if at_once is None else asyncio.Semaphore(at_once)

    async def one(query: Query) -> Solution[Any]:
        if gate is None:
            return await asker.ask(query)
        async with gate:
            return await asker.ask(query)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(query)) for query in queries]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _told_first(query: Query) -> list[Message]:
    return [] if query.instructions is None else [{"role": "system", "content": query.instructions}]


def _messages(query: Query) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": query.text}]
    for revision in query.revisions:
        said = query.answer.write(revision.answer)
        messages.append({"role": "assistant", "content": said})
        objection = f"That does not pass the check: {revision.objection}. Answer once more."
        messages.append({"role": "user", "content": redact(objection)})
    return messages


def _mixed(seed: int | None, number: int) -> int:
    """A seed of its own for each sample of each seed: 31 bits, which every endpoint takes."""
    if seed is None:
        return number
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big") >> 1


def _as_check(check: Callable[[Any], Any]) -> Check:
    async def checked(value: Any) -> Verdict:
        return await run_verifier(lambda _, given: check(given), {}, value)

    return checked
