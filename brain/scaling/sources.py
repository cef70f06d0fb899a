"""What an asker at the bottom of a strategy may be: a model, a brain with its tools, a specialist, a function.

The strategies are in the other files of this package; each is an asker around askers.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from specialists import InvalidAnswer, InvalidArguments, Outcome, Specialist
from specialists.loops import run_in_thread
from specialists.strict_json import loads

from ..agent import Brain
from ..asking import Asker, ModelAsker, Query, Solution
from ..books import current_books
from ..dispatch import CheckedCall, Dispatcher, Observer
from ..errors import BrainError, ConfigurationError, JournalError, LedgerError
from ..events import ChatModel
from ..keys import redact
from ..models import model_from_name
from ..results import RunResult
from ..tooling import RunContext

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
            tools; a specialist, whose question is its one text argument, or JSON of its arguments, and whose local rungs
            are climbed; a function of the question, sync or async. An asker stays as it is.
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

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        fields: dict[str, Any]
        result: RunResult[Any] | None
        token = current_books.set(query.tab.books)  # what the run spends, it spends from the same budgets
        try:
            result = await self._brain.run(
                with_objections(query), tenant=query.tab.books.scope.tenant, timeout=query.remaining() or None
            )
            fields = {"value": query.answer.take(result.output, self.name)}
        except (LedgerError, JournalError):
            raise
        except (BrainError, InvalidAnswer) as error:
            result = getattr(error, "result", None)
            fields = {"value": None, "reason": redact(str(error)) or type(error).__name__, "failure": error}
        finally:
            current_books.reset(token)
        if result is not None:
            for attempt in result.wire_attempts:
                query.tab.sent(attempt)
            for outcome in result.calls:
                query.tab.made(outcome)
        return Solution(source=self.name, tab=query.tab, seconds=time.perf_counter() - start, report=result, **fields)


class _SpecialistAsker(Asker):
    def __init__(self, specialist: Specialist[..., Any]) -> None:
        self._specialist = specialist
        self._dispatcher = Dispatcher([specialist])

    @property
    def name(self) -> str:
        return self._specialist.name

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        books, ended = query.tab.books, list[Outcome[Any]]()
        try:
            call = CheckedCall(query.path or "asked", self._specialist, self._arguments(query.text))
        except InvalidArguments as error:
            return Solution(None, str(error), source=self.name, failure=error, tab=query.tab)
        context: RunContext[None] = RunContext(
            None,
            books.scope.run,
            call.id,
            books.scope.tenant,
            query.deadline,
            session=books.scope.session,
            idempotency_key=query.tab.key(query.path),
        )

        def heard(outcome: Outcome[Any], _: BaseException | None) -> None:
            ended.append(outcome)
            query.tab.made(outcome)

        page = query.tab.page()
        page.tool = self._specialist.name
        observer = Observer(attempt=lambda *_: None, wire=query.tab.sent, ended=heard)
        outcome = await self._dispatcher.call(call, context, observer, page)
        solution: Solution[Any] = Solution(None, outcome.reason, source=self.name, tab=query.tab, report=outcome)
        if outcome.accepted:
            last = outcome.attempts[-1]
            try:
                value = query.answer.take(outcome.value, self.name)
            except InvalidAnswer as error:
                solution = replace(solution, reason=str(error), failure=error)
            else:
                solution = replace(solution, value=value, confidence=last.confidence, verdict=last.verdict)
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
    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    @property
    def name(self) -> str:
        return getattr(self._function, "__name__", type(self._function).__name__)

    async def ask(self, query: Query) -> Solution[Any]:
        start = time.perf_counter()
        fields: dict[str, Any]
        text = with_objections(query)
        try:
            if inspect.iscoroutinefunction(self._function):
                value = await self._function(text)
            else:
                value = await run_in_thread(self._function, text)
                if inspect.isawaitable(value):
                    value = await value
            fields = {"value": query.answer.take(value, self.name)}
        except Exception as error:  # other people's code
            fields = {"value": None, "reason": redact(f"{type(error).__name__}: {error}")[:2000], "failure": error}
        return Solution(source=self.name, tab=query.tab, seconds=time.perf_counter() - start, **fields)


def with_objections(query: Query) -> str:
    """The question, and what was wrong with earlier answers, as one text."""
    parts = [query.text]
    for revision in query.revisions:
        parts.append(
            f"An earlier answer was {query.answer.write(revision.answer)}, which is wrong: {revision.objection}"
        )
    return "\n\n".join(parts)
