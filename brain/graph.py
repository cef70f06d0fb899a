"""The loop of plans: a model is asked once for a typed plan, which is checked, and run in parallel where it can be.

Where a step fails, what is left is planned anew, and what was done is not done again. Where no plan can be had, the
loop of turns goes on from there. What a plan is stands in :mod:`brain.plans`; what one call does in
:mod:`brain.calling`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, takewhile
from typing import Any, TypeAlias

from specialists import InvalidAnswer, InvalidArguments
from specialists.ladder import jsonable

from .calling import REPAIRS, Caller, Waiting, canonical
from .dispatch import CheckedCall, Dispatcher
from .encoding import EncodedMessage
from .errors import Abstained, BrainError
from .events import ChatModel, ModelResponse, Plan, PlanMade, PlanStep, StepReused, ToolCall
from .handles import UnknownHandle, handle_of, part_of, resolved
from .journal import call_step, history_step
from .keys import redact
from .messages import assistant_message, unanswered, user_message
from .planner import Planner
from .planning.references import NoValue
from .plans import PLAN_SCHEMA, plan_problems, put, read_plan, told
from .previews import text_of
from .runs import Run
from .tooling import Tool
from .turns import TurnLoop

__all__ = ["REPLANS", "GraphLoop", "Subtask"]

REPLANS = 2
"""How often what is left of a plan is planned anew after a step has failed."""

Subtask = Callable[[Run, str, str], Tool[..., Any]]
"""What does a subtask of a run (the call's id, the step's name): a tool of ``task`` and ``data``."""

_ASKED = (
    "Do not call any tool now. Answer with a plan for what was asked last: the tool calls that answer it, each a step"
    " with an id; where an argument is what an earlier step gives, refer to that step instead of writing the value."
    " Steps that do not refer to each other run at the same time. A step without a tool is a subtask in words. Where no"
    " tool is needed, the plan has no steps."
)
_CUT_OFF = "it was cut off before its end; make a shorter one, the first part of what is to be done"
_REFUSED = "cannot be run"
_AGAIN = (
    "gave no answer. Plan what is left to be done, another way: only further steps. What was done stays done,"
    " and is referred to by the ids of its steps, or by handle."
)


_UNFIT = (UnknownHandle, NoValue, InvalidArguments, ValueError, RecursionError)
"""Why a step cannot be called with what it refers to."""

_Done: TypeAlias = tuple[dict[str, Any], str]
"""An answer, and the id of the call that it was."""


@dataclass
class _Course:
    """A plan being run: what each step answered, and the values of those that answered well."""

    plan: Plan
    calls: Sequence[ToolCall]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)
    made_as: dict[int, str] = field(default_factory=dict)
    """Ids of the calls that made the values of steps that were not made again."""
    waiting: Waiting = field(default_factory=Waiting)
    refusal: BrainError | None = None
    problem: BrainError | None = None

    def settle(self, place: int, answer: dict[str, Any]) -> None:
        self.answers[self.calls[place].id] = answer
        if "value" in answer:
            self.values[place] = answer["value"]

    @property
    def failed(self) -> list[int]:
        """The steps that were made, and gave no value."""
        return [
            place
            for place, call in enumerate(self.calls)
            if call.id in self.answers and place not in self.values and "skipped" not in self.answers[call.id]
        ]


class GraphLoop:
    """Shared by all runs of a brain. ``subtask``: what does a step that is no call."""

    def __init__(
        self, turns: TurnLoop, caller: Caller, dispatcher: Dispatcher, model: ChatModel, subtask: Subtask
    ) -> None:
        self._turns = turns
        self._caller = caller
        self._dispatcher = dispatcher
        self._planner = model if isinstance(model, Planner) else None
        self._subtask = subtask
        self._schemas = {schema.name: schema for schema in dispatcher.schemas}

    async def answer(self, run: Run, stream: bool) -> Any:
        """Answer ``run`` from its beginning: the output."""
        done: dict[str, _Done] = {}
        """What the plans of this run have done: the answers by tool and arguments."""
        course = self._course_so_far(run, done)
        if course is None:
            await self._caller.resume(run)
            course = await self._next(run, done)
        else:
            decided = self._caller.approvals(run, unanswered(run.messages))
            await self._run(run, course, done, history_step, decided)
            if run.arguments.prompt is not None:
                run.messages.append(user_message(run.arguments.prompt))
                self._forget(run, done)
                course = await self._next(run, done)
        replans = 0
        while course is not None:
            failed = course.failed
            if not failed:
                output = self._output(run, course)
                return output[0] if output else await self._turns.go_on(run, stream)
            if self._planner is not None or replans == REPLANS:
                return await self._turns.go_on(run, stream)  # which is told what failed, and says what follows from it
            replans += 1
            names = ", ".join(course.plan.steps[place].id or course.plan.steps[place].tool for place in failed)
            run.messages.append(user_message(f"{names} {_AGAIN}"))
            course = await self._next(run, done)
        return await self._turns.go_on(run, stream)

    async def _next(self, run: Run, done: dict[str, _Done]) -> _Course | None:
        """Have a plan made and run; ``None`` where the loop of turns is to go on without one."""
        while True:
            self._turns.check_limits(run)
            plan: Plan | ValueError
            response = await self._turns.ask(
                run,
                more=() if self._planner is not None else self._question(run),
                schema=PLAN_SCHEMA,
                name="plan",
                ask=None if self._planner is None else self._planner.ask_plan,
                shaped=lambda response: self._as_calls(run, response),
            )
            if response.abstention is not None:
                raise Abstained(response.abstention) from run.last_failure
            try:
                plan = self._read(run, response)
            except ValueError as error:
                plan = ValueError(_CUT_OFF) if response.finish_reason == "length" else error
            if isinstance(plan, Plan) and plan.steps and response.tool_calls:
                run.messages.append(assistant_message(response))
                course = _Course(plan, response.tool_calls)
                turn = len(run.turns) - 1
                decided = run.arguments.approvals if run.from_journal else None
                await self._run(run, course, done, partial(call_step, turn), decided or {})
                return course
            if response.tool_calls:  # it called tools all the same, as in the loop of turns
                await self._turns.dispatch(run, response)
                return None
            if isinstance(plan, Plan):
                return None  # no tool is needed
            run.messages.append(assistant_message(response))
            if run.plan_repairs >= REPAIRS:
                run.messages.append(
                    user_message(f"That plan {_REFUSED} either, and nothing was: {plan}. Go on without one.")
                )
                return None
            run.repairs += 1
            run.plan_repairs += 1
            run.messages.append(user_message(f"That plan {_REFUSED}, and nothing was: {plan}. Plan again."))

    def _question(self, run: Run) -> list[EncodedMessage]:
        offered = () if run.offer is None else run.offer.tools
        returns = {tool.name: tool.returns for tool in offered if tool.returns is not None}
        text = _ASKED + (f" What the tools give: {json.dumps(returns, ensure_ascii=False)}" if returns else "")
        return [user_message(text)]

    def _read(self, run: Run, response: ModelResponse) -> Plan:
        """The checked plan of a response. Raises ``ValueError`` with all its problems."""
        plan = read_plan(response.text or "", run.step_handles)
        schemas = {**self._schemas, **{tool.name: tool for tool in (run.offer.tools if run.offer else ())}}
        if self._planner is not None:
            return plan
        problems = plan_problems(plan, schemas, partial(self._check, run))
        for place, step in enumerate(plan.steps):
            try:
                self._given(run, step)
            except InvalidArguments as error:
                problems.append(f"step {step.id or place + 1}: {error}")
        if problems:
            raise ValueError(told(list(dict.fromkeys(problems))))
        return plan

    def _check(self, run: Run, tool: str, arguments: Mapping[str, Any]) -> None:
        text = json.dumps(arguments, ensure_ascii=False)
        self._dispatcher.check(ToolCall("", tool, resolved(tool, text, run.value_by)))

    def _given(self, run: Run, step: PlanStep) -> dict[str, Any]:
        """The arguments that a step itself gives, with the values that handles in it stand for.

        Raises ``specialists.InvalidArguments`` for a handle that nothing has.
        """
        text = json.dumps(dict(step.arguments), ensure_ascii=False)
        given: dict[str, Any] = json.loads(resolved(step.tool, text, run.value_by))
        return given

    def _as_calls(self, run: Run, response: ModelResponse) -> ModelResponse:
        """The response with the steps of its plan as calls, which is how a history and a journal know them.

        A plan goes before calls that a model makes beside it: it was told to make none.
        """
        if self._planner is not None or response.abstention is not None:
            return response
        try:
            plan = self._read(run, response)
        except ValueError:
            return response
        if not plan.steps:
            return response
        begun = len(run.messages)
        calls = [
            ToolCall(f"call_{begun}_{place}", step.tool, _shown(plan, step)) for place, step in enumerate(plan.steps)
        ]
        return replace(response, tool_calls=tuple(calls))

    def _course_so_far(self, run: Run, done: dict[str, _Done]) -> _Course | None:
        """The plan that the history ends in, where steps of it are left to be made. What it and those before it have
        done for the same request goes into ``done``."""
        open_calls = unanswered(run.messages)
        if run.arguments.prompt is not None and not open_calls:
            return None  # another request
        course: _Course | None = None
        results = 0
        for place, message in enumerate(run.messages):
            if message["role"] == "tool":
                results += 1
            elif message["role"] == "user" and not _is_own(message.get("content")):
                self._forget(run, done)
            elif message["role"] == "assistant":
                course = self._course_at(run, place, results, done)
        return course if open_calls else None

    def _course_at(self, run: Run, place: int, results: int, done: dict[str, _Done]) -> _Course | None:
        """The plan that the message at ``place`` is, as far as it was run. ``results``: those that stand before it."""
        asked = run.messages[place]
        answers = list(takewhile(lambda message: message["role"] == "tool", islice(run.messages, place + 1, None)))
        try:
            plan = read_plan(asked["content"] or "", run.step_handles)
            calls = [ToolCall(e["id"], e["function"]["name"], e["function"]["arguments"]) for e in asked["tool_calls"]]
            said = [(str(message["tool_call_id"]), text_of(message)) for message in answers]
            contents = {id: (number, text, json.loads(text)) for number, (id, text) in enumerate(said, results + 1)}
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if [call.name for call in calls] != [step.tool for step in plan.steps]:
            return None
        if not all(isinstance(answer, dict) for _, _, answer in contents.values()):
            return None
        course = _Course(plan, calls)
        for index, call in enumerate(calls):
            if call.id in contents:
                answer = contents[call.id][2]
                answer.pop("handle", None)  # where it is given again it has another
                course.settle(index, answer)
        for index in course.values:
            step, call = plan.steps[index], calls[index]
            number, text, answer = contents[call.id]
            if step.id:
                run.step_handles[step.id] = handle_of(number, text)
            with contextlib.suppress(*_UNFIT):
                checked = self._checked(run, step, call, "", self._arguments(run, step, course))
                done[_key(step, checked)] = answer, call.id
        return course

    @staticmethod
    def _forget(run: Run, done: dict[str, _Done]) -> None:
        """What is asked now may be to do it again."""
        done.clear()
        run.step_handles.clear()

    async def _run(
        self,
        run: Run,
        course: _Course,
        done: dict[str, _Done],
        step_of: Callable[[int], str],
        decided: Mapping[str, bool],
    ) -> None:
        """Make the calls of a plan, each as soon as those that it needs have answered; then add the answers.

        Raises what :meth:`Caller.dispatch` does.
        """
        plan, calls = course.plan, course.calls
        already = frozenset(course.answers)
        run.plans.append(plan)
        ended = [asyncio.Event() for _ in calls]
        lost = step_of is history_step
        earlier = dict(done)
        first = len(run.calls)

        async def work(place: int) -> None:
            try:
                if calls[place].id in already:
                    return
                for before in plan.steps[place].needs:
                    await ended[before].wait()
                missing = [before for before in plan.steps[place].needs if before not in course.values]
                if course.refusal is not None or course.problem is not None:
                    return  # the run is going to end
                if any(calls[before].id not in course.answers for before in missing):
                    return  # one of them waits for a person
                if missing:
                    names = ", ".join(plan.steps[before].id or str(before + 1) for before in missing)
                    course.settle(
                        place, {"error": f"not begun: it needs {names}, which gave no answer", "skipped": True}
                    )
                    return
                # Of a history nobody knows whether a step was made whose answers before it were there already.
                open_ended = lost and all(calls[before].id in already for before in plan.steps[place].needs)
                await self._step(run, course, place, step_of(place), decided, earlier, done, lost=open_ended)
            finally:
                ended[place].set()

        if run.emit is not None:
            run.emit(PlanMade(plan, tuple(call.id for call in calls)))
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(len(calls)):
                    group.create_task(work(place))
        except BaseExceptionGroup as several:  # a ledger that cannot be written, a run that another process has now
            raise several.exceptions[0] from None
        finally:
            asked = {call.id: place for place, call in enumerate(calls)}
            run.calls[first:] = sorted(run.calls[first:], key=lambda outcome: asked.get(outcome.call_id or "", -1))
            handles = run.add_answers([call for call in calls if call.id not in already], course.answers)
            ids = {call.id: step.id for call, step in zip(calls, plan.steps, strict=True)}
            run.step_handles.update({ids[id]: handle for id, handle in handles.items() if ids[id]})
        if course.problem is not None:
            raise course.problem
        if course.refusal is not None:
            raise course.refusal
        course.waiting.raise_for(run)

    async def _step(
        self,
        run: Run,
        course: _Course,
        place: int,
        name: str,
        decided: Mapping[str, bool],
        earlier: Mapping[str, _Done],
        done: dict[str, _Done],
        *,
        lost: bool,
    ) -> None:
        step, call = course.plan.steps[place], course.calls[place]
        try:
            checked = self._checked(run, step, call, name, self._arguments(run, step, course))
            key = _key(step, checked)
            if key in earlier:  # what an earlier plan has done is not done again
                answer, course.made_as[place] = earlier[key]
                course.settle(place, answer)
                if run.emit is not None:
                    run.emit(StepReused(call.id, call.name))
                return
            self._caller.count_repeat(run, checked)
            if step.task is not None:  # it asks the model
                self._turns.check_cost(run)
        except _UNFIT as error:
            course.settle(place, {"error": str(error)})
            return
        except BrainError as error:
            course.problem = error
            course.settle(place, {"error": "the run was stopped before this call"})
            return
        if step.task is None:
            self._caller.offer(run, call.name)
        ready = self._caller.prepare(run, name, checked, decided, course.waiting, lost=lost)
        said = await self._caller.make(run, ready, name) if isinstance(ready, CheckedCall) else ready
        if isinstance(said, BrainError):
            course.refusal = said
        elif said is not None:
            course.settle(place, said)
            if "value" in said:
                done[key] = said, call.id

    def _checked(self, run: Run, step: PlanStep, call: ToolCall, name: str, arguments: dict[str, Any]) -> CheckedCall:
        """The call of a step. Raises ``specialists.InvalidArguments``."""
        # As a tool's answer is shown: without keys, and without halves of characters that could not be sent.
        text = redact(json.dumps(arguments, ensure_ascii=False).encode("utf-8", "replace").decode())
        if step.task is None:
            return self._dispatcher.check(replace(call, arguments=text))
        return CheckedCall(call.id, self._subtask(run, call.id, name), {"task": step.task, "data": json.loads(text)})

    def _arguments(self, run: Run, step: PlanStep, course: _Course) -> dict[str, Any]:
        """The arguments of a step, with the values that it refers to. Raises what is in ``_UNFIT``."""
        # Handles are a plan's to write: one within a value that is passed is text, whoever wrote it.
        arguments = self._given(run, step)
        if self._planner is not None and not step.paths and step.tool in self._schemas:
            step = replace(step, arguments=arguments)
            return self._planner.fill(step, course.values, tuple(self._schemas.values()))
        for name, source in step.references.items():
            whole = f"the value of {course.plan.steps[source].id or source + 1}"
            put(arguments, name, part_of(course.values[source], step.paths.get(name, ""), whole))
        return arguments

    def _output(self, run: Run, course: _Course) -> tuple[Any] | None:
        """The output, where the plan says which step's value it is and that fits."""
        if course.plan.answer is None or course.plan.answer not in course.values:
            return None
        made_as = course.made_as.get(course.plan.answer, course.calls[course.plan.answer].id)
        try:
            output = self._turns.output_from(run.value_of(made_as))
        except InvalidAnswer:
            return None
        if isinstance(output, str) and not output.strip():
            return None
        text = output if isinstance(output, str) else json.dumps(jsonable(course.values[course.plan.answer]))
        run.messages.append(assistant_message(ModelResponse(text)))
        return (output,)


def _key(step: PlanStep, call: CheckedCall) -> str:
    """What two steps have in common that do the same."""
    return f"{step.tool}\0{step.task or ''}\0{canonical(call.arguments)}"


def _is_own(said: Any) -> bool:
    """Whether this loop said it, in the person's place."""
    return isinstance(said, str) and (said.startswith(f"That plan {_REFUSED}") or said.endswith(_AGAIN))


def _shown(plan: Plan, step: PlanStep) -> str:
    """A step's arguments as its call has them in a history: what is referred to stands there by the step's id."""
    arguments = dict(step.arguments)
    for name, source in step.references.items():
        arguments[name] = {"$from": (plan.steps[source].id or str(source + 1)) + step.paths.get(name, "")}
    if step.task is not None:
        arguments = {**arguments, "task": step.task}
    return json.dumps(arguments, ensure_ascii=False)
