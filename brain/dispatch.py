"""One tool call: arguments validated, the ladder climbed, every attempt priced; and the rung that asks the big model.

This module knows nothing of turns or messages. A call that does not fit its tool's types never reaches a model.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from specialists import (
    Attempt,
    Hooks,
    InvalidArguments,
    LadderRung,
    Outcome,
    Policy,
    Question,
    RungPolicy,
    Specialist,
)
from specialists.ladder import AcceptLevel, AttemptOutcome, jsonable
from specialists.metering import CpuMeter, current_meter, metered

from .asking import Asker
from .books import MACHINE, Page, refused
from .catalogue import Catalogue
from .errors import (
    BudgetExceeded,
    ConfigurationError,
    JournalError,
    LedgerError,
)
from .events import ChatModel, ToolCall, WireAttempt
from .journal import digest_of
from .keys import redact, redact_value
from .prices import Rates
from .receipts import cpu_price, priced
from .rungs import AGAIN, BIG_MODEL, rungs_above, said_of
from .storage.rows import RowKind
from .tooling import Effect, RunContext, Tool, check_name, is_async

if TYPE_CHECKING:
    from specialists.watching import Watch

__all__ = ["BIG_MODEL", "Callee", "CheckedCall", "Dispatcher", "Observer"]

FUNCTION = "function"
"""Name of the one rung of a plain tool."""

MOST_NAMED = 32
"""Tools that one message names."""

_FUNCTION_POLICY = Policy((RungPolicy(FUNCTION, "function", checked=False),))

Callee: TypeAlias = Tool[..., Any] | Specialist[..., Any]


@dataclass(frozen=True, slots=True)
class CheckedCall:
    """A tool call whose arguments fit."""

    id: str
    callee: Callee
    arguments: Mapping[str, Any]

    @property
    def requires_approval(self) -> bool:
        """Whether a person is asked first."""
        return isinstance(self.callee, Tool) and self.callee.requires_approval

    @property
    def effect(self) -> Effect:
        """What calling it twice would do; a specialist has no effect."""
        return self.callee.effect if isinstance(self.callee, Tool) else "pure"


@dataclass(frozen=True, slots=True)
class Observer:
    """What a run wants to hear while a call goes on."""

    attempt: Callable[[str, str, Attempt], None]
    """Call id, tool, attempt."""
    wire: Callable[[WireAttempt], None]
    ended: Callable[[Outcome[Any], BaseException | None], None]
    """The outcome, also of a cancelled call, and what a plain tool raised."""
    within: Callable[[Outcome[Any]], None] = lambda outcome: None
    """What a specialist or a function answered that was asked within a rung."""


class Dispatcher:
    """The tools of a brain by name, and how a call to one of them is answered. Immutable; shared by all runs.

    ``own``: tools of the loop, which no list of tools names.
    """

    def __init__(
        self,
        callees: Sequence[Callee],
        *,
        accept: AcceptLevel = "confident",
        fallback: ChatModel | Asker | None = None,
        rates: Rates = MACHINE,
        watch: Watch | None = None,
        own: Sequence[Tool[..., Any]] = (),
    ) -> None:
        self._callees: dict[str, Callee] = {}
        for callee in callees:
            check_name(callee.name)
            if callee.name in self._callees:
                raise ConfigurationError(f"two tools are called {callee.name!r}; give one of them another name")
            self._callees[callee.name] = callee
        self._accept = accept
        self._fallback = fallback
        self._rates = rates
        self._watch = watch
        self._digests: dict[str, str] = {}
        self.schemas = Catalogue(tuple(self._callees.values()))
        self._own: dict[str, Tool[..., Any]] = {}
        for each in own:  # a tool of the application's goes before one of the loop's
            if each.name not in self._callees:
                self._callees[each.name] = self._own[each.name] = each

    def knows(self, name: str) -> bool:
        """Whether a tool of this name is registered."""
        return name in self._callees

    def digest(self, name: str) -> str | None:
        """A digest of all that a model is told of a tool, and of its effect; ``None``: there is no such tool."""
        found = self._digests.get(name)
        callee = self._callees.get(name)
        if found is None and callee is not None:
            own = self._own.get(name)
            schema = own.schema if own is not None else self.schemas[self.schemas.names.index(name)]
            effect = callee.effect if isinstance(callee, Tool) else "pure"
            returns = json.dumps(jsonable(schema.returns), sort_keys=True)
            found = self._digests[name] = digest_of(schema.encoded(), returns, effect)
        return found

    def check(self, call: ToolCall) -> CheckedCall:
        """Validate a model's call. Raises ``specialists.InvalidArguments`` for an unknown tool too."""
        callee = self._callees.get(call.name)
        if callee is None:
            message = f"there is no tool {call.name[:64]!r}; {self._known(call.name)}"
            raise InvalidArguments(message, problems=(message,))
        try:
            check = callee.check if isinstance(callee, Tool) else callee.signature.check_json
            # Many endpoints write no arguments at all as an empty text.
            return CheckedCall(call.id, callee, check(call.arguments if call.arguments.strip() else "{}"))
        except InvalidArguments:
            raise
        except Exception as error:  # a validator of the application's own, a schema that refers to nothing
            problem = f"the arguments could not be checked: {type(error).__name__}: {error}"
            raise InvalidArguments(f"{callee.name}: {problem}", problems=(problem,)) from error

    def _known(self, name: str) -> str:
        """Which tools there are, or, where the list would be long, those whose names are the most like ``name``."""
        if len(self.schemas.names) <= MOST_NAMED:
            return f"the tools are {', '.join(self.schemas.names) or 'none'}"
        nearest = ", ".join(self.schemas.names[place] for place in self.schemas.best(name[:64], 8))
        return f"of the {len(self.schemas.names)} tools the nearest are {nearest}"

    async def call(self, call: CheckedCall, context: RunContext[Any], observer: Observer, page: Page) -> Outcome[Any]:
        """Answer one call, and write on ``page`` what it takes.

        Everything becomes an outcome but a cancellation, a ledger that cannot be written and a run that another process
        has taken up.
        """
        if isinstance(call.callee, Tool):
            return await self._run_function(call, call.callee, context, observer, page)
        return await self._climb(call, call.callee, context, observer, page)

    async def _climb(
        self,
        call: CheckedCall,
        specialist: Specialist[..., Any],
        context: RunContext[Any],
        observer: Observer,
        page: Page,
    ) -> Outcome[Any]:
        def tell(attempt: Attempt) -> None:
            observer.attempt(call.id, specialist.name, attempt)

        hooks = _Watch(tell, self._rates, specialist, page)
        above: tuple[LadderRung, ...] = ()
        if self._fallback is not None:

            def sent(attempt: WireAttempt) -> None:
                hooks.wire.append(attempt)
                observer.wire(attempt)

            above = rungs_above(specialist, self._fallback, page, context.idempotency_key, sent, observer.within)
        failure: BaseException | None = None
        try:
            outcome = await specialist.climb(
                call.arguments,
                accept=self._accept,
                deadline=context.deadline,
                hooks=hooks,
                above=above,
                group=context.group,
                watch=self._watch,
                call_id=f"{context.run_id}/{call.id}",
            )
        except BaseException as error:  # the attempts made until now are paid for, whatever ended the climb
            failure = error
            outcome = hooks.so_far(specialist, call.arguments, error)
            if _is_cancellation(error) or isinstance(error, LedgerError | JournalError):
                raise
        finally:
            outcome = replace(outcome, call_id=call.id, run_id=context.run_id)
            observer.ended(outcome, failure)
        return outcome

    async def _run_function(
        self, call: CheckedCall, tool: Tool[..., Any], context: RunContext[Any], observer: Observer, page: Page
    ) -> Outcome[Any]:
        start = time.perf_counter()
        page.begin(_FUNCTION_POLICY)
        limit = tool.timeout
        over: BudgetExceeded | None = None
        try:
            left = None if context.deadline is None else max(0.0, context.deadline - time.monotonic())
            known = [each for each in (tool.timeout, left) if each is not None]
            allowed = await page.before("function", tool.name, FUNCTION, min(known, default=None), 1)
            if allowed is not None:
                limit = allowed if limit is None else min(limit, allowed)
        except BudgetExceeded as error:
            over = error
        meter = CpuMeter()
        token = current_meter.set(meter)
        value: Any = None
        reason: str | None = None
        failure: BaseException | None = None
        kind: AttemptOutcome = "answered"
        timer: asyncio.Timeout | None = None
        try:
            if over is not None:
                kind, reason = "refused", str(over)
            elif limit is None:
                value = redact_value(await metered(tool.run(call.arguments, context), meter))
            else:
                timer = asyncio.timeout(limit)
                async with timer:
                    value = redact_value(await metered(tool.run(call.arguments, context), meter))
        except BaseException as error:  # a tool is other people's code: what it raises becomes an attempt
            failure = error
            if isinstance(error, TimeoutError) and timer is not None and timer.expired():
                kind, reason = "timeout", f"no answer within {limit:g} s{_left_behind(tool.function)}"
            else:
                kind, reason = "error", _end_of(error, tool.function)
            if _is_cancellation(error):
                kind = "cancelled"
                raise
        finally:
            current_meter.reset(token)
            low, high = meter.low, meter.high
            attempt = Attempt(
                rung=FUNCTION,
                outcome=kind,
                seconds=time.perf_counter() - start,
                value=value,
                reason=reason,
                source=tool.name,
                cpu_seconds=high,
                cpu_seconds_low=low,
                cost=cpu_price(low, high, self._rates.cpu),
            )
            answered = kind == "answered"
            outcome: Outcome[Any] = Outcome(
                value=value,
                answered_by=FUNCTION if answered else None,
                accepted_by="unchecked" if answered else None,
                attempts=(attempt,),
                policy=_FUNCTION_POLICY,
                reason=None if answered else f"{tool.name}: {reason}",
                tool=tool.name,
                call_id=call.id,
                run_id=context.run_id,
                arguments=call.arguments,
            )
            page.after("function", attempt)
            observer.attempt(call.id, tool.name, attempt)
            observer.ended(outcome, failure or over)
        return outcome


class _Watch(Hooks):
    """Has money set aside for each attempt, prices it and keeps it, so that a cancelled climb loses none."""

    def __init__(
        self,
        tell: Callable[[Attempt], None],
        rates: Rates,
        specialist: Specialist[..., Any],
        page: Page,
    ) -> None:
        self._tell = tell
        self._rates = rates
        self._specialist = specialist
        self.page = page
        self.attempts: list[Attempt] = []
        self.wire: list[WireAttempt] = []
        """What left for the big model, also when its rung is stopped before it can say so."""
        self._told = 0
        self._policy: Policy | None = None
        self._outcome: Outcome[Any] | None = None

    def begin(self, policy: Policy) -> None:
        self._policy = policy
        self.page.begin(policy)

    def ended(self, outcome: Outcome[Any]) -> None:
        self._outcome = outcome

    def so_far(
        self, specialist: Specialist[..., Any], arguments: Mapping[str, Any], error: BaseException
    ) -> Outcome[Any]:
        """The outcome of a climb that ``error`` cut short, under the policy it went by."""
        ended = self._outcome
        if ended is not None:  # the answer was accepted, and its audit cut short
            return replace(ended, tool=specialist.name, audit=next(iter(self.attempts[len(ended.attempts) :]), None))
        asked_big = bool(self.attempts) and self.attempts[-1].rung in (BIG_MODEL, AGAIN)
        return Outcome(
            None,
            None,
            None,
            tuple(self.attempts),
            self._policy or Policy(tuple(rung.policy for rung in specialist.ladder())),
            reason=f"{specialist.name}: {_end_of(error, None if asked_big else specialist.function)}",
            tool=specialist.name,
            arguments=arguments,
        )

    async def before(self, rung: str, question: Question) -> Attempt | float | None:
        if rung in (BIG_MODEL, AGAIN):
            self.page.rung = rung  # what it sends is reserved request by request
            return None
        who = _asked_on(rung, self._specialist)
        limits = [each for each in (who.timeout, question.remaining()) if each is not None]
        try:
            return await self.page.before("specialist", who.name, rung, min(limits, default=None), os.cpu_count() or 1)
        except BudgetExceeded as error:
            return refused(rung, who.name, error)

    def after(self, attempt: Attempt) -> Attempt:
        if attempt.rung in (BIG_MODEL, AGAIN):
            attempt = replace(attempt, wire_attempts=tuple(self.wire[self._told :]))
            self._told = len(self.wire)
        if (value := redact_value(attempt.value)) is not attempt.value:
            attempt = replace(attempt, value=value)
        if attempt.reason is not None:
            attempt = replace(attempt, reason=redact(attempt.reason))
        if attempt.verdict is not None and attempt.verdict.reason is not None:
            attempt = replace(attempt, verdict=replace(attempt.verdict, reason=redact(attempt.verdict.reason)))
        attempt = priced(attempt, self._rates.cpu, self._rates.gpu)
        self.attempts.append(attempt)
        kind: RowKind = "rung" if attempt.rung in (BIG_MODEL, AGAIN) else "specialist"
        self.page.after(kind, attempt, audit=self._outcome is not None)
        self._tell(attempt)
        return attempt


def _asked_on(rung: str, specialist: Specialist[..., Any]) -> Specialist[..., Any]:
    """Who answers on a local rung."""
    who, seen = specialist, {specialist.name}
    while rung.startswith("next:") and rung != f"next:{who.name}" and who.next and who.next.name not in seen:
        who = who.next
        seen.add(who.name)
    return who


def _is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` ends the whole run: somebody cancelled it, or the process is to end.

    A ``CancelledError`` that nobody asked for comes out of the called code, and is that code's failure.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(error, Exception)


def _end_of(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """One sentence on what ended a call, without any key."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled" + ("" if function is None else _left_behind(function))
    return said_of(error)


def _left_behind(function: Callable[..., Any]) -> str:
    return "" if is_async(function) else "; its thread runs on until it ends"
