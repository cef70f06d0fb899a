"""One run: what it was asked, checked, and what it has gathered so far.

The loop that fills it is in :mod:`brain.agent`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import Any

from specialists import Attempt, Outcome
from specialists.metering import CpuMeter

from .books import Books, Page
from .budgets import Budget
from .cleaning import CleaningReport
from .dispatch import CheckedCall, Observer
from .encoding import EncodedMessage, NotJson, as_message
from .errors import ConfigurationError, PromptError, RunTimeout
from .events import AttemptMade, Message, ModelResponse, Plan, RunEvent, ToolAnswered, ToolCall, Turn, WireAttempt
from .handles import UnknownHandle, handle_of
from .journal import Journal, idempotency_key
from .keys import redact
from .messages import ROLES, as_content, tool_message
from .offering import Offer
from .previews import failed, text_of, value_in
from .receipts import Usage
from .results import RunResult
from .storage.changes import Effect

__all__ = ["NOTHING", "Run", "RunArguments", "check_arguments"]

logger = logging.getLogger("brain")


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments of ``Brain.run``, checked."""

    prompt: str | None
    history: tuple[EncodedMessage, ...]
    deps: Any
    tenant: str | None
    run_id: str
    timeout: float | None
    approvals: Mapping[str, bool] | None
    group: str | None = None
    session: str | None = None
    budget: Budget | None = None
    named: bool = False
    """Whether the caller named the run, so that there may be one of this name to take up."""


NOTHING = RunArguments(None, (), None, None, "", None, None)
"""What a run was given whose arguments could not be used."""


class Run:
    """What one run has gathered so far."""

    def __init__(
        self,
        arguments: RunArguments,
        emit: Callable[[RunEvent], None] | None,
        cpu_rate: Decimal | None,
        offer: Offer | None = None,
    ) -> None:
        self.arguments = arguments
        self.id = arguments.run_id
        self.emit = emit
        """Where events go; ``None``: nobody listens, so none are made."""
        self.offer = offer
        """The tools that the run's model is offered."""
        self.messages: list[EncodedMessage] = []
        self.results = 0
        """Tool messages in the conversation so far."""
        self.begin_with(arguments.history)
        self.calls: list[Outcome[Any]] = []
        self.turns: list[Turn] = []
        self.wire: list[WireAttempt] = []
        self.repeats: Counter[tuple[str, str]] = Counter()
        self.logged: set[int] = set()
        """Which of the calls (by :func:`id`) stand in the log."""
        self.cleaning: CleaningReport | None = None
        self.view: Any = None
        """What its model is shown of its messages (:mod:`brain.showing`)."""
        self.summaries = 0
        """Summaries that were asked for."""
        self.plans: list[Plan] = []
        self.step_handles: dict[str, str] = {}
        """Handles of what the steps of its plans gave, by their ids."""
        self.inner: list[Outcome[Any]] = []
        """What was answered on this machine within its calls: for subtasks, and for askers that are rungs."""
        self.within: dict[str, list[WireAttempt]] = {}
        """What left for endpoints for runs within calls, by the calls' ids."""
        self.repairs = 0
        self.plan_repairs = 0
        """Those of them that were of plans; the loop of turns has its own, where it goes on without a plan."""
        self.books: Books | None = None
        self.journal: Journal | None = None
        self.salt = arguments.run_id
        """What makes this run's idempotency keys its own."""
        self.from_journal = False
        """Whether the latest turn was taken from the journal."""
        self.meter = CpuMeter()
        self.cpu_before = 0.0
        """CPU seconds of the brain's own work in the process that ended the run."""
        self.last_failure: BaseException | None = None
        self.observer = Observer(self._attempt, self.wire.append, self._ended, self.inner.append)
        self._cpu_rate = cpu_rate
        self._start = time.perf_counter()
        self.deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
        loop = asyncio.get_running_loop()
        self.loop_deadline = None if arguments.timeout is None else loop.time() + arguments.timeout

    def begin_with(self, history: Iterable[EncodedMessage]) -> None:
        """The conversation so far."""
        self.messages = list(history)
        self.results = sum(message["role"] == "tool" for message in self.messages)

    def _attempt(self, call_id: str, tool: str, attempt: Attempt) -> None:
        if self.emit is not None:
            self.emit(AttemptMade(call_id, tool, attempt))

    def _ended(self, outcome: Outcome[Any], failure: BaseException | None) -> None:
        self.calls.append(outcome)
        if isinstance(failure, Exception):
            self.last_failure = failure
        logger.debug("%s answered by %s", outcome.tool, outcome.answered_by)
        if self.emit is not None:
            self.emit(ToolAnswered(outcome.call_id or "", outcome.tool or "", outcome))

    def seconds(self) -> float:
        """Wall time until now."""
        return time.perf_counter() - self._start

    def late(self) -> bool:
        """Whether the deadline has passed (a timer may ring a moment early)."""
        return self.deadline is not None and time.monotonic() >= self.deadline - 0.001

    def timeout(self) -> RunTimeout:
        """The error of a run that is late."""
        return RunTimeout(f"the run had {self.arguments.timeout:g} s and did not end within them")

    def add_answers(self, calls: Sequence[ToolCall], answers: Mapping[str, dict[str, Any]]) -> dict[str, str]:
        """In the order asked, so that the same run writes the same history. What is still open stays unanswered.

        A value gets its handle here, by its place in the conversation. Gives the handles by the calls' ids.
        """
        handles: dict[str, str] = {}
        for call in calls:
            if call.id in answers:
                self.results += 1
                message = tool_message(call.id, answers[call.id], self.results)
                self.messages.append(message)
                if "value" in answers[call.id]:
                    handles[call.id] = handle_of(self.results, message["content"])
        return handles

    def rename_duplicates(self, calls: Sequence[ToolCall]) -> list[ToolCall]:
        """Give the calls of the last message ids of their own."""
        renamed = [replace(call, id=f"{call.id}#{index}") for index, call in enumerate(calls)]
        last = self.messages[-1]
        entries = [{**entry, "id": call.id} for entry, call in zip(last["tool_calls"], renamed, strict=True)]
        self.messages[-1] = EncodedMessage({**last, "tool_calls": entries})
        return renamed

    def value_of(self, call_id: str) -> Any:
        """The typed value of a call of this run, or the JSON one of a call in the history."""
        for outcome in self.calls:
            if outcome.call_id == call_id:
                return outcome.value
        for message in reversed(self.messages):
            if message["role"] == "tool" and message.get("tool_call_id") == call_id:
                try:
                    return json.loads(message["content"])["value"]
                except (ValueError, TypeError, KeyError):  # not written by this loop
                    return message["content"]
        return None

    def value_by(self, handle: str) -> Any:
        """The value that has ``handle``, as JSON types. Raises :class:`UnknownHandle`."""
        number = int(handle[2:].partition(":")[0])
        tools = (message for message in self.messages if message["role"] == "tool")
        message = next(islice(tools, number - 1, None), None) if number <= self.results else None
        if message is None or handle_of(number, text_of(message)) != handle:
            raise UnknownHandle(f"no result has the handle {handle}")
        content = text_of(message)
        if failed(content):
            raise UnknownHandle(f"the call behind {handle} gave no value")
        return value_in(content)

    def key(self, step: str) -> str:
        """The idempotency key of a step."""
        return idempotency_key(self.salt, step)

    def page(self, step: str, name: str, effect: Effect, **more: Any) -> Page:
        """Where what a step takes is written down. ``more``: ``call``, ``arguments`` and ``schema``."""
        assert self.books is not None
        call = more.pop("call", None)
        intent = None if self.journal is None else self.journal.intend(step, name, effect, **more)
        return Page(self.books, call=call, tool=None if call is None else name, intent=intent)

    def turn_from_journal(self, step: str) -> ModelResponse | None:
        """The response of a turn that happened before the run was taken up."""
        found = None if self.journal is None else self.journal.turn(step)
        self.from_journal = found is not None
        if found is None:
            return None
        turn, response = found
        self.turns.append(turn)
        self.wire += turn.wire_attempts
        return response

    def call_from_journal(self, step: str, call: CheckedCall, answers: dict[str, dict[str, Any]]) -> bool:
        """Whether a call happened before the run was taken up; if so, its answer is in ``answers``."""
        found = None if self.journal is None else self.journal.call(step)
        if found is None:
            return False
        answers[call.id] = self._take(found)
        return True

    def _take(self, found: Outcome[Any] | Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(found, Outcome):
            return dict(found)
        self.wire += [each for attempt in attempts_of(found) for each in wire_of(attempt)]
        self.calls.append(found)
        if self.journal is not None and self.journal.run.status != "running":
            self.logged.add(id(found))  # whoever ended the run wrote it down
        return as_content(found)

    def answer_call(self, step: str, call: CheckedCall, answer: dict[str, Any]) -> dict[str, Any]:
        """A call that is answered without being made: a person decided so, and that is a step as well."""
        page = self.page(step, call.callee.name, call.effect, call=call.id)
        page.commit({"answer": answer})
        return answer

    def take_all(self) -> None:
        """Take every step from the journal: those of a run that is done."""
        assert self.journal is not None
        for step in self.journal.happened():
            call = self.journal.call(step)
            if call is None:
                self.turn_from_journal(step)
            else:
                self._take(call)

    def usage(self) -> Usage:
        """The bill so far."""
        return Usage.of(
            [*self.calls, *self.inner] if self.inner else self.calls,
            self.wire,
            brain_cpu_seconds=self.meter.high + self.cpu_before,
            cpu_rate=self._cpu_rate,
            seconds=self.seconds(),
        )

    def result(self, output: Any) -> RunResult[Any]:
        """The run as far as it got."""
        return RunResult(
            run_id=self.id,
            output=output,
            usage=self.usage(),
            calls=tuple(self.calls),
            turns=tuple(self.turns),
            wire_attempts=tuple(self.wire),
            messages=tuple(self.messages),
            new_from=len(self.arguments.history),
            repairs=self.repairs,
            tenant=self.arguments.tenant,
            plans=tuple(self.plans),
            cleaning=self.cleaning,
        )


def check_arguments(
    prompt: str | None,
    history: Sequence[Message] | None,
    deps: Any,
    tenant: str | None,
    session: str | None,
    run_id: str | None,
    budget: Any,
    timeout: float | None,
    approvals: Mapping[str, bool] | None,
    group: str | None = None,
) -> RunArguments:
    """Check the arguments of ``Brain.run``. Raises :class:`ConfigurationError` or :class:`PromptError`."""
    if budget is not None and not isinstance(budget, Budget):
        raise ConfigurationError(f"budget is a Budget, such as Budget(usd='0.50'), not {budget!r}")
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
        raise ConfigurationError(f"timeout is in seconds and positive, not {timeout!r}")
    for name, text in (("run_id", run_id), ("tenant", tenant), ("session", session), ("group", group)):
        if text is not None and not isinstance(text, str):
            raise ConfigurationError(f"{name} is text, not {text!r}")
        if text is not None and not text.isascii() and not _is_whole(text):
            raise ConfigurationError(f"{name} contains half of a character pair; decode its source again")
    if approvals is not None and not isinstance(approvals, Mapping):
        raise ConfigurationError("approvals is a dictionary from the ids of calls to True or False")
    if history is not None and (isinstance(history, str | bytes) or not isinstance(history, Iterable)):
        raise ConfigurationError("history is a list of chat messages, as in result.messages")
    messages: tuple[Any, ...] = tuple(history or ())
    if any(type(message) is not EncodedMessage for message in messages):  # read from somewhere, or built by hand
        messages = tuple([_as_message(message) for message in messages])
    if prompt is not None:
        prompt = _checked_prompt(prompt)
    elif run_id is None and (
        not messages or (messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"))
    ):
        raise PromptError("there is no prompt and nothing to resume; say what is wanted")
    id = run_id or os.urandom(16).hex()
    return RunArguments(
        prompt, messages, deps, tenant, id, timeout, approvals, group, session, budget, named=bool(run_id)
    )


def _is_open(messages: Sequence[Message]) -> bool:
    """Whether something is left to do."""
    return bool(messages) and (messages[-1]["role"] != "assistant" or bool(messages[-1].get("tool_calls")))


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _as_message(message: Any) -> EncodedMessage:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ConfigurationError("history is a list of chat messages, as in result.messages")
    try:
        return as_message(message)
    except (NotJson, RecursionError) as error:
        raise PromptError(f"a message of the history contains {error}") from None


def _checked_prompt(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise PromptError(f"the prompt is {type(prompt).__name__}, not text; decode bytes as UTF-8 first")
    if not prompt.strip():
        raise PromptError("the prompt is empty; say what is wanted")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt cannot be written as UTF-8 (character {error.start} is half of a pair); decode its source"
            " again"
        ) from None
    return redact(prompt)  # an API key pasted by mistake goes to no model, no tool and no log


def attempts_of(outcome: Outcome[Any]) -> tuple[Attempt, ...]:
    """Every attempt of a call, an audit's too."""
    return outcome.attempts if outcome.audit is None else (*outcome.attempts, outcome.audit)


def wire_of(attempt: Attempt) -> list[WireAttempt]:
    """The requests that left for an attempt."""
    return [each for each in attempt.wire_attempts if isinstance(each, WireAttempt)]
