"""The calls of one turn: checked, made concurrently, answered in the order asked; those that happened before a crash
are taken from the journal, and those that may have happened are a person's to decide.

What one call does is in :mod:`brain.dispatch`. This module knows nothing of models.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from specialists import InvalidArguments
from specialists.ladder import jsonable

from .books import Page
from .dispatch import CheckedCall, Dispatcher
from .encoding import NotJson, encode
from .errors import (
    ApprovalRequired,
    BrainError,
    ConfigurationError,
    InvalidToolCall,
    RepeatLimit,
    RunUncertain,
    SchemaChanged,
)
from .events import PendingApproval, ToolCall, ToolCalled
from .handles import resolved
from .journal import call_step, history_step
from .logs import current_call
from .messages import as_content, unanswered, user_message
from .runs import Run
from .storage.failpoints import failpoint
from .tooling import RunContext

__all__ = ["REPAIRS", "Caller", "Waiting", "canonical"]

REPAIRS = 1
"""Rounds in which a model may mend a call or an answer of the wrong form."""

DENIED = {"denied": "a person did not allow this call"}
LOST = {"error": "the run was interrupted; the call may or may not have taken effect"}


class Caller:
    """Makes the calls of a turn. ``repairs``: rounds in which wrong calls may be mended. Shared by all runs."""

    def __init__(self, dispatcher: Dispatcher, *, repeat_limit: int, repairs: int) -> None:
        self._dispatcher = dispatcher
        self._repeat_limit = repeat_limit
        self._repairs = repairs

    async def dispatch(self, run: Run, calls: Sequence[ToolCall]) -> None:
        """Check the calls of the latest turn, make the good ones concurrently, and answer each in the order asked.

        Raises :class:`ApprovalRequired` and :class:`RunUncertain` for calls that a person decides of,
        :class:`InvalidToolCall` and :class:`RepeatLimit`, and :class:`BudgetExceeded` where a call has no answer
        because a budget had no room.
        """
        problems: dict[str, str] = {}
        good: list[CheckedCall] = []
        turn = len(run.turns) - 1
        if len({call.id for call in calls}) < len(calls):
            # Answers could not be told apart, so none of the calls is run.
            calls = run.rename_duplicates(calls)
            problems = {call.id: "several calls had the same id; none was run" for call in calls}
        else:
            for place, call in enumerate(calls):
                self.offer(run, call.name)
                try:
                    good.append(self.checked(run, call))
                except InvalidArguments as error:
                    problems[call.id] = str(error)
                    _check_same(run, call_step(turn, place), call, error)
        answers: dict[str, dict[str, Any]] = {id: {"error": problem} for id, problem in problems.items()}
        try:
            if problems:
                if run.repairs - run.plan_repairs >= self._repairs:
                    raise InvalidToolCall("; ".join(problems.values()))
                run.repairs += 1
            for checked in good:
                self.count_repeat(run, checked)
        except BrainError:
            for checked in good:
                answers[checked.id] = {"error": "the run was stopped before this call"}
            run.add_answers(calls, answers)
            raise
        steps = {call.id: call_step(turn, place) for place, call in enumerate(calls)}
        # What a person said is of calls that waited when the run was taken up, not of later ones with the same id.
        decided = run.arguments.approvals if run.from_journal else None
        await self._make(run, calls, good, steps, answers, decided or {})

    async def resume(self, run: Run) -> None:
        """Deal with the calls at the end of the history that have no answer, then add the new prompt."""
        open_calls = unanswered(run.messages)
        approvals = self.approvals(run, open_calls)
        good: list[CheckedCall] = []
        answers: dict[str, dict[str, Any]] = {}
        for place, call in enumerate(open_calls):
            try:
                good.append(self.checked(run, call))
            except InvalidArguments as error:
                answers[call.id] = {"error": str(error)}
                _check_same(run, history_step(place), call, error)
        steps = {call.id: history_step(place) for place, call in enumerate(open_calls)}
        await self._make(run, open_calls, good, steps, answers, approvals, lost=True)
        if run.arguments.prompt is not None:
            run.messages.append(user_message(run.arguments.prompt))

    def offer(self, run: Run, name: str) -> None:
        """Offer a tool that was called without having been offered. The loop's own come and go by what is shown."""
        if run.offer is not None and name in self._dispatcher.schemas.names:
            run.offer.add(name)

    def approvals(self, run: Run, open_calls: Sequence[ToolCall]) -> dict[str, bool]:
        """What persons decided of calls, checked. Raises :class:`ConfigurationError`."""
        approvals = dict(run.arguments.approvals or {})
        taken_up = run.journal is not None and run.journal.resumed
        for id, given in approvals.items():
            if not taken_up and id not in {call.id for call in open_calls}:
                raise ConfigurationError(f"no call with the id {id!r} waits for approval in this history")
            if not isinstance(given, bool):
                raise ConfigurationError(f"an approval is True or False; that of {id!r} is {given!r}")
        return approvals

    async def _make(
        self,
        run: Run,
        calls: Sequence[ToolCall],
        good: Sequence[CheckedCall],
        steps: Mapping[str, str],
        answers: dict[str, dict[str, Any]],
        decided: Mapping[str, bool],
        *,
        lost: bool = False,
    ) -> None:
        """Make those of the ``good`` calls that are to be made. ``lost``: of calls that nobody decided of, nobody knows
        whether they were made, unless the journal does."""
        first = len(run.calls)
        todo: list[CheckedCall] = []
        waiting = Waiting()
        for call in good:
            ready = self.prepare(run, steps[call.id], call, decided, waiting, lost=lost)
            if isinstance(ready, CheckedCall):
                todo.append(ready)
            elif ready is not None:
                answers[call.id] = ready
        try:
            await self._run_calls(run, todo, steps, answers)
        finally:
            asked = {call.id: place for place, call in enumerate(calls)}  # which call ends first is chance
            run.calls[first:] = sorted(run.calls[first:], key=lambda outcome: asked.get(outcome.call_id or "", -1))
            run.add_answers(calls, answers)
        waiting.raise_for(run)

    def prepare(
        self,
        run: Run,
        step: str,
        call: CheckedCall,
        decided: Mapping[str, bool],
        waiting: Waiting,
        *,
        lost: bool = False,
    ) -> CheckedCall | dict[str, Any] | None:
        """What is to be done about a call: the call, where it is to be made; its answer, where it is not; ``None``
        where a person decides, which is noted in ``waiting``."""
        answers: dict[str, dict[str, Any]] = {}
        if run.call_from_journal(step, call, answers):
            return answers[call.id]
        if run.journal is not None and run.journal.is_past(step):
            raise SchemaChanged(
                f"the run {run.id!r} cannot be taken up: it went on without calling {call.callee.name}, whose"
                " arguments fit now; nothing was executed. Begin a new run, or restore the tool"
            )
        begun = None if run.journal is None else run.journal.in_flight(step)
        id = call.id if lost else _asked_as(run, call.id)
        pending = waiting.approvals
        if begun is not None and call.effect == "once":
            # Another id each time: what was said before the crash is no leave to do it twice.
            id = f"{id}!{begun.times}"
            given, pending = decided.get(id), waiting.uncertain
        else:
            given = decided.get(id) if call.requires_approval or lost else True
        if given is None and lost and begun is None and not call.requires_approval:
            return run.answer_call(step, call, LOST)
        if given is None:
            pending.append(PendingApproval(id, call.callee.name, call.arguments))
            return None
        return call if given else run.answer_call(step, call, LOST if begun is not None else DENIED)

    async def _run_calls(
        self, run: Run, calls: Sequence[CheckedCall], steps: Mapping[str, str], answers: dict[str, dict[str, Any]]
    ) -> None:
        """Make ``calls`` concurrently and add what each answered; also, when stopped, what the ended ones did."""
        refusals: list[BrainError] = []

        async def one(call: CheckedCall) -> None:
            answer = await self.make(run, call, steps[call.id])
            if isinstance(answer, BrainError):
                refusals.append(answer)
            else:
                answers[call.id] = answer

        if not calls:
            return
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(one(call))
        except BaseExceptionGroup as several:  # a ledger that cannot be written, a run that another process has now
            raise several.exceptions[0] from None
        if refusals:
            raise refusals[0]

    async def make(self, run: Run, call: CheckedCall, step: str) -> dict[str, Any] | BrainError:
        """Make one call: its answer; or why a budget had no room for it, which is no answer to remember, for with more
        room there may be one. Run it in a task of its own."""
        current_call.set(call.id)
        arguments = run.arguments
        context = RunContext(
            arguments.deps,
            run.id,
            call.id,
            arguments.tenant,
            run.deadline,
            arguments.group,
            arguments.session,
            run.key(step),
        )
        if run.emit is not None:
            run.emit(ToolCalled(call.id, call.callee.name, call.arguments))
        page = self._page(run, step, call)
        outcome = await self._dispatcher.call(call, context, run.observer, page)
        if not outcome.accepted and page.refusal is not None:
            return page.refusal
        if (within := run.within.get(call.id)) is not None:
            outcome = replace(outcome, attempts=(replace(outcome.attempts[-1], wire_attempts=tuple(within)),))
        if run.journal is not None:
            failpoint("journal.after_effect")
            page.commit({"outcome": outcome.to_json()})
            page.books.hand_over()  # the others of this turn may take long
        return as_content(outcome)

    def checked(self, run: Run, call: ToolCall) -> CheckedCall:
        """The call with the values that handles in it stand for. Raises ``specialists.InvalidArguments``."""
        arguments = resolved(call.name[:64], call.arguments, run.value_by)
        return self._dispatcher.check(call if arguments is call.arguments else replace(call, arguments=arguments))

    def _page(self, run: Run, step: str, call: CheckedCall) -> Page:
        if run.journal is None:
            return run.page(step, call.callee.name, call.effect, call=call.id)
        name, schema = call.callee.name, self._dispatcher.digest(call.callee.name)
        arguments = jsonable(dict(call.arguments))
        return run.page(step, name, call.effect, call=call.id, arguments=arguments, schema=schema)

    def count_repeat(self, run: Run, call: CheckedCall) -> None:
        """Raises :class:`RepeatLimit` when the run has made this call too often."""
        key = (call.callee.name, canonical(call.arguments))
        run.repeats[key] += 1
        if run.repeats[key] > self._repeat_limit:
            raise RepeatLimit(
                f"the model called {call.callee.name} {run.repeats[key]} times with the same arguments;"
                f" repeat_limit is {self._repeat_limit}"
            )


class Waiting:
    """Calls that a person decides of."""

    def __init__(self) -> None:
        self.approvals: list[PendingApproval] = []
        self.uncertain: list[PendingApproval] = []

    def raise_for(self, run: Run) -> None:
        """Raise :class:`RunUncertain` or :class:`ApprovalRequired` if there are any."""
        if self.uncertain:
            names = ", ".join(call.tool for call in self.uncertain)
            raise RunUncertain(
                f"the run was cut off while {names} was called, and nobody knows whether it took effect; look, and"
                f" resume with run(run_id={run.id!r}, approvals={{id: True}}) to call it again, or False to go on"
                " without",
                pending=self.uncertain,
            )
        if self.approvals:
            names = ", ".join(call.tool for call in self.approvals)
            how = "history=error.result.messages" if run.journal is None else f"run_id={run.id!r}"
            raise ApprovalRequired(
                f"{names} waits for a person's approval; resume with run({how}, approvals={{id: True}})",
                pending=self.approvals,
            )


def _asked_as(run: Run, id: str) -> str:
    """What a person is asked about a call by. Many models begin with the same ids in every turn, and a yes to one call
    is no yes to the next. (What ends in ``@`` and a number is no id of a model's own, so that none can be made up.)"""
    if run.journal is None:
        return id
    before = sum(message["role"] == "tool" and message.get("tool_call_id") == id for message in run.messages)
    return f"{id}@{before}" if before or "@" in id or "!" in id else id


def _check_same(run: Run, step: str, call: ToolCall, problem: InvalidArguments) -> None:
    """A call that was made before a crash must still be one that can be made."""
    journal = run.journal
    if journal is not None and (journal.call(step) is not None or journal.in_flight(step) is not None):
        raise SchemaChanged(
            f"the run {run.id!r} cannot be taken up: {call.name} was called, and now refuses its arguments ({problem});"
            " nothing was executed. Begin a new run, or restore the tool"
        )


def canonical(arguments: Mapping[str, Any]) -> str:
    """Equal arguments as equal texts. They stand in the order of the parameters already, unless some nest."""
    if all(type(value) in (str, int, float, bool, type(None)) for value in arguments.values()):
        with contextlib.suppress(NotJson):
            return encode(arguments).decode()
    return json.dumps(jsonable(dict(arguments)), sort_keys=True)
