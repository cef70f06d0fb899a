"""``Brain``: what it is made of, how a run of it begins and ends; and nothing else.

The loop in which a model calls tools until it has an answer is in :mod:`brain.turns`, what a tool call does in
:mod:`brain.dispatch`, what a model is in :mod:`brain.models` and :mod:`brain.planner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, Unpack, cast, get_args, overload

from pydantic import TypeAdapter

from specialists import Specialist, SpecialistError, load
from specialists.batching import current_caller
from specialists.ladder import AcceptLevel
from specialists.loops import run_sync
from specialists.metering import metered

from .asking import Asker
from .books import current_books
from .budgets import Budget
from .calling import REPAIRS, Caller
from .cleaning import Cleaner
from .context import Context
from .conversations import Sessions
from .dispatch import MOST_NAMED, Dispatcher
from .encoding import EncodedMessage, NotJson
from .errors import (
    BrainError,
    ConfigurationError,
    JournalCorrupt,
    JournalError,
    LedgerError,
)
from .events import (
    ChatModel,
    Done,
    Message,
    RunEvent,
)
from .graph import GraphLoop
from .journal import Journal, digest_of, taken_once
from .ledger import Ledger
from .logs import current_run, mark_records
from .models import model_from_name
from .offering import Offering
from .outcome_log import OutcomeLog
from .planner import Planner
from .plans import SUBTASK
from .prices import PriceBook, Rates
from .questions import TypedAnswer
from .results import RunResult
from .resuming import finish_of, leaving_as_before, open_run, owner_of, result_to_store, stored_result
from .runs import NOTHING, Run, check_arguments
from .showing import READ, Showing
from .storage.changes import Store
from .tooling import Tool
from .turns import TurnLoop

if TYPE_CHECKING:
    from specialists import Watch

__all__ = ["Brain"]

logger = logging.getLogger("brain")
mark_records()

Out = TypeVar("Out")

Planning = Literal["turns", "graph"]

LONG_PROMPT = 20_000
"""Characters from which on a prompt is cleaned in a thread: it takes about a millisecond for each thousand."""


class _Options(TypedDict, total=False):
    """What :class:`Brain` takes beside its model and its output type, for type checkers."""

    tools: Sequence[Callable[..., Any]]
    specialists: Sequence[Specialist[..., Any] | str]
    instructions: str | None
    fallback: ChatModel | Asker | str | Literal[False] | None
    accept: AcceptLevel
    pinned: Sequence[str]
    tool_limit: int
    turn_limit: int
    repeat_limit: int
    cost_limit: Decimal | None
    cpu_rate: Decimal | None
    log: str | os.PathLike[str] | None
    watch: Watch | None
    ledger: Ledger | str | os.PathLike[str] | None
    budget: Budget | Sequence[Budget] | None
    prices: PriceBook | None
    planning: Planning
    context: Context | None
    sessions: Sessions | None
    cleaning: Cleaner | None


class Brain(Generic[Out]):
    """A model with tools. Immutable, and shared by any number of concurrent runs.

    Use it as ``async with Brain(...) as brain``, or call :meth:`aclose` at the end.

    Args:
        model: ``"openai:NAME"``, a model object, or ``None`` for the built-in planner, which needs no key and is not a
            language model. A key in the environment alone never makes a brain spend money.
        tools: Plain typed functions, or what :func:`brain.tool` and ``Tool.from_schema`` make of them.
        specialists: Specialists, or names of bundled or installed ones.
        instructions: What a chat model is told before everything else. The planner has no use for any.
        output_type: The type of ``result.output``: ``str``, or anything pydantic can check.
        fallback: The big model that is asked a tool's typed question when no specialist's answer was accepted. By
            default the brain's own model when that is a chat model; ``False``: none. Or another asker, such as a vote
            or a judged refinement of :mod:`brain.scaling`.
        accept: What a specialist's answer must be: ``"verified"``, ``"certified"`` or ``"confident"``.
        pinned: Names of tools and specialists that every request offers.
        tool_limit: Tools that a chat model is offered at most. Of more, each run offers the pinned ones, those its
            history has called, and those whose names and descriptions have to do with the prompt. They are chosen at
            its beginning; a registered tool that the model calls all the same is checked and run as ever, and offered
            from then on. (The planner sees them all.)
        turn_limit: Model calls in one run.
        repeat_limit: How often a run may make one and the same call.
        cost_limit: US dollars after which a run makes no further model call. It stops a run; a budget that nothing
            can overspend is something else.
        cpu_rate: US dollars per CPU second of this machine; ``None``: :data:`brain.prices.DEFAULT_CPU_RATE`.
        log: A file to which every call's outcome is appended, one JSON object a line.
        watch: Audits a share of what certificates accept (:class:`specialists.Watch`), and revokes those that no longer
            hold.
        ledger: Where every attempt is written down with its price: a :class:`Ledger`, or the path of its file. In a
            file, runs are journaled too, and can be taken up after a crash. By default one in memory, or, for a run
            that a tool of another run begins, that one's.
        budget: What all runs of this brain may spend, together: a :class:`Budget`, or several.
        prices: Prices of your own over the list prices, for models that are given by name, and for this machine: its
            CPU seconds where ``cpu_rate`` does not say, its GPU seconds where a specialist ran there.
        planning: ``"turns"``: the model is asked again after every call. ``"graph"``: it is asked once for a plan of
            calls and subtasks, which is checked before anything runs, and run in parallel where steps do not need each
            other; see :mod:`brain.graph`.
        context: What of a long history the model is shown: a :class:`Context`. Without one it is shown all of it, but
            for results of more than 8,000 characters, which are shown as previews, and read in parts by a tool.
        sessions: Where conversations are kept from run to run, by ``run(session=...)``: :class:`MemorySessions`,
            :class:`SqliteSessions`, or a store of your own.
        cleaning: Makes prompts tidy before anything reads them: a :class:`Cleaner`.

    Raises:
        ConfigurationError: for tools that cannot be offered, a model name that cannot be used, an unknown specialist.
    """

    @overload
    def __init__(
        self: Brain[str],
        model: ChatModel | str | None = None,
        *,
        output_type: type[str] = str,
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: ChatModel | str | None = None,
        *,
        output_type: type[Out],
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Brain[Any],
        model: ChatModel | str | None = None,
        *,
        output_type: object,  # unions and literals, which are no classes
        **options: Unpack[_Options],
    ) -> None: ...
    def __init__(
        self,
        model: ChatModel | str | None = None,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        specialists: Sequence[Specialist[..., Any] | str] = (),
        instructions: str | None = None,
        output_type: Any = str,
        fallback: ChatModel | Asker | str | Literal[False] | None = None,
        accept: AcceptLevel = "confident",
        pinned: Sequence[str] = (),
        tool_limit: int = 32,
        turn_limit: int = 16,
        repeat_limit: int = 3,
        cost_limit: Decimal | None = None,
        cpu_rate: Decimal | None = None,
        log: str | os.PathLike[str] | None = None,
        watch: Watch | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        budget: Budget | Sequence[Budget] | None = None,
        prices: PriceBook | None = None,
        planning: Planning = "turns",
        context: Context | None = None,
        sessions: Sessions | None = None,
        cleaning: Cleaner | None = None,
    ) -> None:
        for name, part, kind in (("context", context, Context), ("cleaning", cleaning, Cleaner)):
            if part is not None and not isinstance(part, kind):
                raise ConfigurationError(f"{name} is a {kind.__name__}, not {part!r}")
        if sessions is not None and (isinstance(sessions, type) or not callable(getattr(sessions, "append", None))):
            raise ConfigurationError(
                f"sessions are MemorySessions(), SqliteSessions('talks.db') or like these, not {sessions!r}"
            )
        if planning not in get_args(Planning):
            raise ConfigurationError(f"planning is 'turns' or 'graph', not {planning!r}")
        if accept not in ("verified", "certified", "confident"):
            raise ConfigurationError(f"accept is 'verified', 'certified' or 'confident', not {accept!r}")
        limits = (("tool_limit", tool_limit), ("turn_limit", turn_limit), ("repeat_limit", repeat_limit))
        for name, limit in limits:
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise ConfigurationError(f"{name} is a whole number from 1 on, not {limit!r}")
        if instructions is not None and not isinstance(instructions, str):
            raise ConfigurationError(f"instructions are text, not {type(instructions).__name__}")
        for name, money in (("cost_limit", cost_limit), ("cpu_rate", cpu_rate)):
            if money is not None and not (isinstance(money, Decimal) and money.is_finite() and money >= 0):
                raise ConfigurationError(f"{name} is money, so a Decimal: Decimal('0.10'), not {money!r}")
        if log is not None and not isinstance(log, str | os.PathLike):
            raise ConfigurationError(f"log is the path of a file, not {log!r}")
        for name, given in (("tools", tools), ("specialists", specialists), ("pinned", pinned)):
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ConfigurationError(f"{name} is a list, also for one: {name}=[{given!r}]")
        if prices is not None and not isinstance(prices, PriceBook):
            raise ConfigurationError(f"prices is a PriceBook, such as PriceBook.load('prices.toml'), not {prices!r}")
        if prices is not None and cpu_rate is None:
            cpu_rate = prices.cpu_second
        self._sessions = sessions
        self._cleaning = cleaning
        self._rates = Rates(cpu_rate, None if prices is None else prices.gpu_second)
        self._model: ChatModel = Planner() if model is None else _as_model(model, prices)
        self._is_planner = isinstance(self._model, Planner)
        self._fallback: ChatModel | Asker | None = None
        if fallback is None:
            self._fallback = None if self._is_planner else self._model
        elif isinstance(fallback, Asker):
            self._fallback = fallback
        elif fallback is not False:
            self._fallback = _as_model(fallback, prices)
        if isinstance(self._fallback, Planner):
            raise ConfigurationError("the planner is no language model and cannot be the fallback; name a chat model")
        callees = [_as_tool(each) for each in tools] + [_as_specialist(each) for each in specialists]
        self._dispatcher = Dispatcher(
            callees,
            accept=accept,
            fallback=self._fallback,
            rates=self._rates,
            watch=watch,
            own=() if self._is_planner else (READ,),
        )
        self._offering = Offering(self._dispatcher.schemas, None if self._is_planner else tool_limit, pinned)
        self._typed, self._output = _as_output(output_type)
        self._log = None if log is None else OutcomeLog(Path(log))
        self._own_ledger = not isinstance(ledger, Ledger)
        self._inherits = ledger is None
        self._ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self._budgets = _as_budgets(budget)
        self._ledger.check_budgets(self._budgets)
        self._asked_with: dict[str, Any] = {
            "instructions": digest_of(instructions) if instructions else None,
            "output": None if self._typed is None else digest_of(json.dumps(self._typed.schema, sort_keys=True)),
            "model": self._model.name,
        }
        caller = Caller(self._dispatcher, repeat_limit=repeat_limit, repairs=0 if self._is_planner else REPAIRS)
        summary = context.summary if context is not None else None
        self._summary = None if summary is None else _as_model(summary, prices)
        showing = Showing(context, self._summary, _as_system(instructions))

        def turns(typed: TypedAnswer | None, output: TypeAdapter[Any] | None) -> TurnLoop:
            return TurnLoop(
                self._model,
                caller,
                self._dispatcher,
                showing=showing,
                typed=typed,
                output=output,
                turn_limit=turn_limit,
                cost_limit=cost_limit,
            )

        self._loop: TurnLoop | GraphLoop = turns(self._typed, self._output)
        self._subtasks = self._loop
        if planning == "graph":
            self._subtasks = turns(None, None)
            self._loop = GraphLoop(self._loop, caller, self._dispatcher, self._model, self._subtask)
        self._sealed = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "_sealed" in self.__dict__:
            raise AttributeError(f"a Brain is immutable, runs share it; make another one to change {name!r}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Brain is immutable, runs share it; {name!r} stays")

    def __repr__(self) -> str:
        names = self._dispatcher.schemas.names
        shown = ", ".join(names[:MOST_NAMED]) or "none"
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return f"<Brain {self._model.name}, tools: {shown}{more}>"

    async def __aenter__(self) -> Brain[Out]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def model_name(self) -> str:
        """The name of the model that plans and calls tools."""
        return self._model.name

    @property
    def ledger(self) -> Ledger:
        """Where this brain writes down what it spends."""
        return self._ledger

    async def aclose(self) -> None:
        """Close the models' connections, the log, and the ledger's file where only its path was given."""
        for model in (self._model, self._fallback, self._summary):
            close = getattr(model, "aclose", None)
            if close is not None:
                await close()
        if self._log is not None:
            await asyncio.to_thread(self._log.close)
        if self._own_ledger and self._ledger.shared:
            await self._ledger.aclose()

    def close(self) -> None:
        """:meth:`aclose` for callers without an event loop. Raises ``RuntimeError`` on a thread where one runs."""
        run_sync(self.aclose)

    async def run(
        self,
        prompt: str | None = None,
        *,
        history: Sequence[Message] | None = None,
        deps: Any = None,
        tenant: str | None = None,
        session: str | None = None,
        run_id: str | None = None,
        budget: Budget | None = None,
        timeout: float | None = None,
        approvals: Mapping[str, bool] | None = None,
        group: str | None = None,
    ) -> RunResult[Out]:
        """Answer ``prompt``.

        Args:
            prompt: The request. ``None`` only to resume a ``history`` that has no final answer yet, or a run that the
                ledger's file knows by its ``run_id``.
            history: ``result.messages`` of an earlier run, also read back from JSON. It is believed: calls in it that
                wait for approval are run as they stand there, so take it from where nobody can change it.
            deps: Handed to tools as ``ctx.deps``.
            tenant: For whom; written to the log and given to tools.
            session: The conversation that this run belongs to, in the ledger and for budgets per session. With
                ``Brain(sessions=...)`` it goes on from the messages that are kept there, where no ``history`` is given,
                and a run that ends well adds its own. (Else it keeps none: pass them as ``history``.)
            run_id: A name for this run; by default a fresh one. With a ledger's file, a run of this name is taken up
                where it was cut off: a step that was written down is not executed again, and one that is done gives
                its result. Its prompt may be left out then.
            budget: What this run may spend, beside what holds for the brain.
            timeout: Seconds for the whole run.
            approvals: Ids of calls that wait, with ``True`` (run it) or ``False`` (denied).
            group: The group of calls that this run's belong to, an opaque string: certificates that were made with
                groups hold for each by itself.

        Raises:
            BrainError: one of the tree in :mod:`brain.errors`, with the run as far as it got in ``.result``.
        """
        arguments = (prompt, history, deps, tenant, session, run_id, budget, timeout, approvals, group)
        return await self._run(arguments, None)

    def run_sync(
        self,
        prompt: str | None = None,
        *,
        history: Sequence[Message] | None = None,
        deps: Any = None,
        tenant: str | None = None,
        session: str | None = None,
        run_id: str | None = None,
        budget: Budget | None = None,
        timeout: float | None = None,
        approvals: Mapping[str, bool] | None = None,
        group: str | None = None,
    ) -> RunResult[Out]:
        """:meth:`run` for callers without an event loop. Raises ``RuntimeError`` on a thread where one runs."""
        arguments = (prompt, history, deps, tenant, session, run_id, budget, timeout, approvals, group)
        return run_sync(lambda: self._run(arguments, None))

    async def run_stream(
        self,
        prompt: str | None = None,
        *,
        history: Sequence[Message] | None = None,
        deps: Any = None,
        tenant: str | None = None,
        session: str | None = None,
        run_id: str | None = None,
        budget: Budget | None = None,
        timeout: float | None = None,
        approvals: Mapping[str, bool] | None = None,
        group: str | None = None,
    ) -> AsyncGenerator[RunEvent, None]:
        """:meth:`run` as a stream of typed events, the last of which is ``Done``. Leaving the loop cancels the run.

        (Python closes a generator that was left when nothing refers to it any more; ``contextlib.aclosing`` does it
        at once.)
        """
        arguments = (prompt, history, deps, tenant, session, run_id, budget, timeout, approvals, group)
        events: asyncio.Queue[RunEvent | None] = asyncio.Queue()

        async def produce() -> RunResult[Out]:
            try:
                return await self._run(arguments, events.put_nowait, stream=True)
            finally:
                events.put_nowait(None)

        task = asyncio.create_task(produce())
        try:
            while (event := await events.get()) is not None:
                yield event
            yield Done(await task)
        finally:
            task.cancel()  # nothing happens to one that has ended
            await asyncio.gather(task, return_exceptions=True)

    async def _run(
        self,
        given: tuple[Any, ...],
        emit: Callable[[RunEvent], None] | None,
        *,
        stream: bool = False,
        loop: TurnLoop | None = None,
    ) -> RunResult[Out]:
        try:
            arguments = check_arguments(*given)
        except BrainError as error:
            error.result = Run(NOTHING, emit, self._rates.cpu).result(None)
            raise
        run = Run(arguments, emit, self._rates.cpu)
        token = current_run.set(run.id)
        turn = current_caller.set(run.arguments.tenant or run.id)  # tenants, or else runs, take turns at a model
        around = current_books.get()
        ledger_store = around.store if around is not None and self._inherits else self._ledger.store
        logger.info("run started")
        try:
            with contextlib.ExitStack() as held:
                try:
                    if ledger_store.shared:
                        held.enter_context(taken_once(await owner_of(ledger_store), run.id))
                    await self._open(run, ledger_store)
                except (Exception, asyncio.CancelledError) as error:
                    error.result = run.result(None)  # type: ignore[union-attr]
                    raise
                books = current_books.set(run.books)
                try:
                    return await self._opened(run, loop or self._loop, stream)
                finally:
                    current_books.reset(books)
        except BaseException as error:
            logger.info("run ended: %s", type(error).__name__)
            raise
        finally:
            current_run.reset(token)
            current_caller.reset(turn)

    async def _open(self, run: Run, store: Store) -> None:
        """Bring the run into the ledger; with a file, take it up where it was begun before."""
        arguments = run.arguments
        if self._sessions is not None and arguments.session is not None and not arguments.history:
            known = store.shared and arguments.named
            if (
                not known or await asyncio.to_thread(store.run, arguments.run_id) is None
            ):  # one that was begun before goes on from the history that it began with
                history = await self._sessions.messages(arguments.session, tenant=arguments.tenant)
                run.arguments = arguments = replace(arguments, history=tuple(history))
                run.begin_with(history)
        run.offer = self._offering.for_run(arguments.prompt, arguments.history)
        if self._cleaning is not None and arguments.prompt is not None:
            clean = partial(self._cleaning.clean, arguments.prompt, tools=run.offer.tools)
            cleaned = clean() if len(arguments.prompt) < LONG_PROMPT else await asyncio.to_thread(clean)
            run.cleaning = cleaned.report
            if cleaned.text.strip():  # of nothing but what would be taken out, all is kept
                run.arguments = arguments = replace(arguments, prompt=cleaned.text)
        if not store.shared:
            await open_run(store, run, self._budgets, self._rates, {})
            return
        request = {
            **self._asked_with,
            "prompt": arguments.prompt,
            "history": [json.loads(message.wire) for message in arguments.history],
            "group": arguments.group,
            "budget": None if arguments.budget is None else arguments.budget.to_json(),
        }
        offered = () if self._is_planner else run.offer.tools
        request["tools"] = {tool.name: self._dispatcher.digest(tool.name) for tool in offered}
        await open_run(store, run, self._budgets, self._rates, request)
        journal = run.journal
        if journal is None or not journal.resumed or journal.run.status == "done":
            return
        with leaving_as_before(store, run):
            journal.check_tools({name: self._dispatcher.digest(name) for name in journal.tools()})
        if not self._is_planner:
            run.offer = self._offering.again(tuple(journal.run.request["tools"]))

    async def _opened(self, run: Run, loop: TurnLoop | GraphLoop, stream: bool) -> RunResult[Out]:
        if run.journal is not None and run.journal.run.status == "done":
            return cast(RunResult[Out], self._as_stored(run, run.journal))
        output: Any = None
        error: BaseException | None = None
        try:
            output = await self._answer(run, loop, stream)
            if self._sessions is not None and run.arguments.session is not None and loop is self._loop:
                await self._keep(self._sessions, run.arguments.session, run)
            problem = await self._write_log(run)
            if problem is not None:
                raise problem
        except (Exception, asyncio.CancelledError) as caught:
            error = caught
            try:
                await self._write_log(run)
            except asyncio.CancelledError as again:  # what was spent is written down all the same
                error = again
        unkept = await self._close(run, output, error)
        ended = unkept if error is None or isinstance(unkept, asyncio.CancelledError) else error
        if ended is None:
            logger.info("run ended")
            return run.result(output)
        # Also on a cancellation, and on what a model of the application's own raised: the bill is always there.
        with contextlib.suppress(Exception):
            ended.result = run.result(output)  # type: ignore[attr-defined]
        raise ended

    async def _keep(self, sessions: Sessions, session: str, run: Run) -> None:
        """Add what was said to the session. Raises :class:`SessionError` where another run has gone on with it."""
        before = len(run.arguments.history)
        new = run.messages[before:]
        await sessions.append(session, new, tenant=run.arguments.tenant, expected=before)

    def _as_stored(self, run: Run, journal: Journal) -> RunResult[Any]:
        """The result of a run that was done before. Nothing is executed, and nothing is written."""
        try:
            return stored_result(run, journal, self._output)
        except JournalCorrupt as error:
            error.result = run.result(None)
            raise

    async def _close(self, run: Run, output: Any, error: BaseException | None) -> BaseException | None:
        """Write down what is left. A problem is returned, and logged: another error may be ending the run already."""
        books, journal = run.books, run.journal
        assert books is not None
        books.brain_worked(run.meter.high)
        finish = None
        if journal is not None:
            result = None if error is not None else result_to_store(run, output, self._output)
            finish = finish_of(journal, error, result)
        try:
            await books.close(finish)
        except (LedgerError, JournalError) as problem:
            logger.error("the end of the run could not be written down: %s", problem)
            return problem
        except asyncio.CancelledError as cancelled:  # of the waiting: everything was handed over
            return cancelled
        return None

    async def _answer(self, run: Run, loop: TurnLoop | GraphLoop, stream: bool) -> Out:
        if self._log is not None:
            try:
                await self._log.open()  # before anything is paid for
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from None
        if run.loop_deadline is None:
            return cast(Out, await metered(loop.answer(run, stream), run.meter))
        limit = asyncio.timeout_at(run.loop_deadline)
        try:
            async with limit:
                return cast(Out, await metered(loop.answer(run, stream), run.meter))
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise run.timeout() from error

    def _subtask(self, run: Run, call: str, step: str) -> Tool[..., Any]:
        """What does a subtask of ``run``: a run of this brain within it, turn by turn, that spends from its budgets."""

        async def subtask(task: str, data: dict[str, Any]) -> str:
            around = run.arguments
            prompt = f"{task}\n\nWhat is known:\n{json.dumps(data, ensure_ascii=False)}" if data else task
            name = f"{run.id}, {step}" if run.journal is not None else None
            left = None if run.deadline is None else max(0.001, run.deadline - time.monotonic())
            given = (prompt, None, around.deps, around.tenant, around.session, name, None, left, None, around.group)
            result: RunResult[Any] | None = None
            try:
                result = await self._run(given, None, loop=self._subtasks)
                return cast(str, result.output)
            except BaseException as error:
                result = getattr(error, "result", None)
                raise
            finally:
                wire = [] if result is None else list(result.wire_attempts)
                run.within[call] = wire
                run.wire += wire
                run.inner += [] if result is None else result.calls

        return Tool(subtask, name=SUBTASK, effect="pure")

    async def _write_log(self, run: Run) -> ConfigurationError | None:
        """Append the run's calls. A problem is returned, and logged: another error may be ending the run already."""
        rows = [] if self._log is None else [each for each in run.calls if id(each) not in run.logged]
        if self._log is None or not rows:
            return None
        run.logged.update(map(id, rows))
        try:
            await self._log.append(rows, tenant=run.arguments.tenant)
        except (OSError, ValueError) as error:
            problem = self._unwritable(error)
            logger.error("%s", problem)
            return problem
        return None

    def _unwritable(self, error: Exception) -> ConfigurationError:
        path = None if self._log is None else str(self._log.path)
        why = getattr(error, "strerror", None) or error
        return ConfigurationError(f"the log {path!r} cannot be written: {why}; name another file")


def _as_model(model: ChatModel | str, prices: PriceBook | None = None) -> ChatModel:
    if isinstance(model, str):
        return model_from_name(model) if prices is None else model_from_name(model, prices=prices)
    if isinstance(model, type) or not callable(getattr(model, "ask", None)):
        raise ConfigurationError(
            f"{model!r} is not a model: pass a name such as 'openai:NAME', or an object with `ask`"
        )
    return model


def _as_system(instructions: str | None) -> EncodedMessage | None:
    if not instructions:
        return None
    try:
        return EncodedMessage({"role": "system", "content": instructions})
    except NotJson as error:
        raise ConfigurationError(f"the instructions contain {error}") from None


def _as_output(output_type: Any) -> tuple[TypedAnswer | None, TypeAdapter[Any] | None]:
    if output_type is str:
        return None, None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output_type)
        return TypedAnswer(adapter), adapter
    except Exception as error:  # pydantic has several exceptions for a type it cannot describe
        raise ConfigurationError(f"output_type {output_type!r} has no JSON schema: {error}") from None


def _as_budgets(given: Budget | Sequence[Budget] | None) -> tuple[Budget, ...]:
    budgets = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    if not all(isinstance(each, Budget) for each in budgets):
        raise ConfigurationError(f"budget is a Budget, such as Budget(usd='5.00'), or a list of them, not {given!r}")
    return budgets


def _as_tool(function: Callable[..., Any]) -> Tool[..., Any]:
    if isinstance(function, Tool):
        return function
    if isinstance(function, Specialist):
        raise ConfigurationError(f"{function.name} is a specialist; pass it in specialists=, so that it is checked")
    if not callable(function):
        raise ConfigurationError(f"{function!r} is not a tool: pass a typed function")
    return Tool(function)


def _as_specialist(each: Specialist[..., Any] | str) -> Specialist[..., Any]:
    if isinstance(each, Specialist):
        return each
    if isinstance(each, str | os.PathLike):
        try:
            return load(each)
        except SpecialistError as error:
            raise ConfigurationError(str(error)) from error
    raise ConfigurationError(
        f"{each!r} is not a specialist: decorate the function with @specialist, or pass it in tools="
    )
