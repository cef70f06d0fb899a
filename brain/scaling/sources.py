"""What an asker at the bottom of a strategy may be: a model, a brain with its tools, a specialist, a function.

The strategies are in the other files of this package; each is an asker around askers.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from specialists import InvalidAnswer, InvalidArguments, Outcome, Specialist, SpecialistError
from specialists.strict_json import loads

from ..agent import Brain
from ..asking import Asker, ModelAsker, Query, Solution, Tab
from ..books import Page, current_books
from ..budgets import Budget
from ..dispatch import CheckedCall, Dispatcher, Observer
from ..errors import BrainError, ConfigurationError, JournalError, LedgerError, RunTimeout
from ..events import ChatModel
from ..keys import redact
from ..models import model_from_name
from ..results import RunResult
from ..tooling import RunContext, Tool

__all__ = ["asker", "with_objections"]


def asker(
    source: Asker | Brain[Any] | Specialist[..., Any] | ChatModel | Callable[[str], Any] | str,
    *,
    instructions: str | None = None,
    effort: str | None = None,
    max_output_tokens: int | None = None,
) -> Asker:
    """What strategies are built around.

    Args:
        source: ``"openai:NAME"`` or a model, which answers by itself; a :class:`Brain`, which plans and calls its
            tools; a specialist, whose question is its one text argument, or JSON of its arguments, and whose local
            rungs are climbed; a function of the question, sync or async. An asker stays as it is.
        instructions: What a model is told before the question.
        effort: The reasoning effort of a model, where nothing else says one.
        max_output_tokens: The most that a model may write.

    Raises :class:`ConfigurationError` for anything else.
    """
    plain = instructions is None and effort is None and max_output_tokens is None
    if isinstance(source, str):
        source = model_from_name(source)
    if callable(getattr(source, "ask", None)) and not isinstance(source, Asker | type):
        return ModelAsker(
            source,  # type: ignore[arg-type]
            instructions=instructions,
            effort=effort,
            max_output_tokens=max_output_tokens,
        )
    if not plain:
        raise ConfigurationError("instructions, effort and max_output_tokens are of models; this source is none")
    if isinstance(source, Asker):
        return source
    if isinstance(source, Brain):
        return _BrainAsker(source)
    if isinstance(source, Specialist):
        return _SpecialistAsker(source)
    if callable(source) and not isinstance(source, type):
        return _FunctionAsker(source)
    raise ConfigurationError(f"{source!r} cannot be asked: pass a model, a Brain, a specialist or a function")


class _BrainAsker(Asker):
    def __init__(self, brain: Brain[Any]) -> None:
        self._brain = brain

    @property
    def name(self) -> str:
        return f"brain of {self._brain.model_name}"

    def models(self) -> frozenset[str]:
        return frozenset((self._brain.model_name,))

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        tab = query.tab
        remaining = query.remaining()
        if remaining == 0:
            return _too_late(self.name, tab)
        fields: dict[str, Any]
        result: RunResult[Any] | None = None
        try:
            # One run after the other where requests are counted: what a run may send is known before it begins.
            async with tab.lent() as loan:
                budget = None if loan.calls is None else Budget(calls=loan.calls)
                token = current_books.set(tab.books)  # what the run spends, it spends from the same budgets
                try:
                    result = await self._brain.run(
                        with_objections(query), tenant=tab.books.scope.tenant, timeout=remaining, budget=budget
                    )
                except (Exception, asyncio.CancelledError) as error:  # the run as far as it got is paid for
                    result = getattr(error, "result", None)
                    raise
                finally:
                    current_books.reset(token)
                    if result is not None:
                        _put_down(result, tab)
                        # A model of the application's own may tell of fewer requests than it was asked for.
                        loan.used = max(len(result.wire_attempts), len(result.turns))
            fields = {"value": _taken(query, result.output, self.name)}
        except (LedgerError, JournalError):
            raise
        except Exception as error:  # a model or an output type may be the application's own
            fields = _failed(error)
        return Solution(source=self.name, tab=tab, seconds=time.perf_counter() - start, report=result, **fields)


class _SpecialistAsker(Asker):
    def __init__(self, specialist: Specialist[..., Any]) -> None:
        self._specialist = specialist
        self._dispatcher = Dispatcher([specialist])

    @property
    def name(self) -> str:
        return self._specialist.name

    @property
    def most_calls(self) -> int:
        """Attempts that one ask makes at most: its local rungs."""
        return len(self._specialist.ladder())

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        if query.remaining() == 0:
            return _too_late(self.name, query.tab)
        try:
            call = CheckedCall(query.path or "asked", self._specialist, self._arguments(query.text))
        except Exception as error:  # the arguments do not fit, or a validator of the application's own raises
            return Solution(source=self.name, tab=query.tab, **_failed(error))
        page = query.tab.page()
        page.tool = self._specialist.name
        outcome = await _dispatched(self._dispatcher, call, query, page)
        solution: Solution[Any] = Solution(
            None, outcome.reason, source=self.name, tab=query.tab, report=outcome, failure=page.refusal
        )
        if outcome.accepted:
            last = outcome.attempts[-1]
            try:
                value = query.answer.take(outcome.value, self.name)
            except InvalidAnswer as error:
                solution = replace(solution, reason=redact(str(error)), failure=error)
            else:
                solution = replace(
                    solution, value=value, confidence=last.confidence, verdict=last.verdict, failure=None
                )
        return replace(solution, seconds=time.perf_counter() - start)

    def _arguments(self, text: str) -> Mapping[str, Any]:
        signature = self._specialist.signature
        problem: InvalidArguments | None = None
        try:
            if isinstance(loads(text), dict):
                return signature.check_json(text)
        except InvalidArguments as error:
            problem = error
        except (ValueError, RecursionError):
            pass
        properties = self._specialist.parameters.get("properties", {})
        if len(properties) == 1:
            return signature.check({next(iter(properties)): text})
        if problem is not None:
            raise problem
        names = json.dumps(list(properties))
        message = f"{self.name} is asked by JSON of its arguments, an object with {names}"
        raise InvalidArguments(message, problems=(message,))


class _FunctionAsker(Asker):
    """Called as a plain tool is: in the books an attempt of its own, with its time and what the machine costs."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        said = getattr(inner, "__name__", type(inner).__name__)
        self._name = said if said.isidentifier() and len(said) <= 64 else "function"
        self._tool: Tool[..., Any] = Tool.from_schema(
            self._name, "Answers a question.", _ONE_TEXT, _by_name(function), effect="pure"
        )
        self._dispatcher = Dispatcher([self._tool])

    @property
    def name(self) -> str:
        return self._name

    @property
    def most_calls(self) -> int:
        """Attempts that one ask makes."""
        return 1

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        if query.remaining() == 0:
            return _too_late(self.name, query.tab)
        call = CheckedCall(query.path or "asked", self._tool, {"question": with_objections(query)})
        page = query.tab.page()
        page.tool = self.name
        # A function that asks somebody in its turn spends from the same budgets.
        token = current_books.set(query.tab.books)
        failures: list[BaseException] = []
        try:
            if query.deadline is None:
                outcome = await _dispatched(self._dispatcher, call, query, page, failures)
            else:
                async with asyncio.timeout(query.remaining()):
                    outcome = await _dispatched(self._dispatcher, call, query, page, failures)
        except TimeoutError:
            return _too_late(self.name, query.tab)
        finally:
            current_books.reset(token)
        fields: dict[str, Any]
        if outcome.accepted:
            try:
                fields = {"value": query.answer.take(outcome.value, self.name)}
            except InvalidAnswer as error:
                fields = _failed(error)
        else:
            failure = next((each for each in failures if isinstance(each, Exception)), None)
            fields = {"value": None, "reason": outcome.reason, "failure": page.refusal or failure}
        return Solution(source=self.name, tab=query.tab, seconds=time.perf_counter() - start, **fields)


_ONE_TEXT = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}


def _by_name(function: Callable[[str], Any]) -> Callable[..., Any]:
    """``function`` under the one name that it is called with, whatever it calls its parameter."""
    if inspect.iscoroutinefunction(function):

        async def ask_async(question: str) -> Any:
            return await function(question)

        return ask_async

    def ask(question: str) -> Any:
        return function(question)

    return ask


async def _dispatched(
    dispatcher: Dispatcher,
    call: CheckedCall,
    query: Query,
    page: Page,
    failures: list[BaseException] | None = None,
) -> Outcome[Any]:
    """One call, as a run makes it, put down on the query's bill. Without a time limit of its own for a function."""
    tab, scope = query.tab, query.tab.books.scope

    def heard(outcome: Outcome[Any], failure: BaseException | None) -> None:
        if failure is not None and failures is not None:
            failures.append(failure)
        tab.made(outcome)

    observer = Observer(attempt=lambda *_: None, wire=tab.sent, ended=heard)
    context: RunContext[None] = RunContext(
        None,
        scope.run,
        call.id,
        scope.tenant,
        query.deadline,
        session=scope.session,
        idempotency_key=tab.key(query.path),
    )
    return await dispatcher.call(call, context, observer, page)


def _put_down(result: RunResult[Any], tab: Tab) -> None:
    """What a run took, on the bill of who began it."""
    for attempt in result.wire_attempts:
        tab.sent(attempt)
    for outcome in result.calls:
        tab.made(outcome)


def _taken(query: Query, output: Any, who: str) -> Any:
    """A run's output as the type that was asked for: a run whose output is text may have written JSON."""
    try:
        return query.answer.take(output, who)
    except InvalidAnswer:
        if not isinstance(output, str):
            raise
        return query.answer.parse(output, who)


def _failed(error: Exception) -> dict[str, Any]:
    """The fields of a solution that an error ended."""
    said = str(error) if isinstance(error, BrainError | SpecialistError) else f"{type(error).__name__}: {error}"
    return {"value": None, "reason": redact(said)[:2000] or type(error).__name__, "failure": error}


def _too_late(who: str, tab: Tab) -> Solution[Any]:
    late = RunTimeout(f"{who} was not done when the time for the whole was over")
    return Solution(None, str(late), source=who, failure=late, stopped=str(late), tab=tab)


def with_objections(query: Query) -> str:
    """The question, and what was wrong with earlier answers, as one text."""
    parts = [query.text]
    for revision in query.revisions:
        parts.append(
            f"An earlier answer was {query.answer.write(revision.answer)}, which is wrong: {revision.objection}"
        )
    return "\n\n".join(parts)
