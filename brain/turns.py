"""The loop of turns: a model is asked, calls tools, is told what they answered, and is asked again until it answers.

How a run begins and ends is in :mod:`brain.agent`; what the calls of a turn do in :mod:`brain.calling`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from specialists import Cost, InvalidAnswer
from specialists.ladder import jsonable

from .calling import REPAIRS, Caller
from .dispatch import Dispatcher
from .encoding import EncodedMessage
from .errors import Abstained, CostLimit, InvalidOutput, ModelTimeout, TurnLimit
from .events import ChatModel, Message, ModelRequest, ModelResponse, TextDelta, TokenUsage, Turn, WireAttempt
from .journal import turn_step, turn_to_json
from .keys import redact
from .messages import assistant_message, user_message, without_keys
from .planner import Planner
from .questions import TypedAnswer
from .runs import Run
from .showing import Showing
from .storage.failpoints import failpoint

__all__ = ["TurnLoop"]

Ask = Callable[..., Awaitable[ModelResponse]]


class TurnLoop:
    """Shared by all runs of a brain. ``typed`` and ``output``: the form of the answer, where it is not text."""

    def __init__(
        self,
        model: ChatModel,
        caller: Caller,
        dispatcher: Dispatcher,
        *,
        showing: Showing,
        typed: TypedAnswer | None,
        output: TypeAdapter[Any] | None,
        turn_limit: int,
        cost_limit: Decimal | None,
    ) -> None:
        self._model = model
        self.is_planner = isinstance(model, Planner)
        self._caller = caller
        self._dispatcher = dispatcher
        self._showing = showing
        self._typed = typed
        self._output = output
        self._turn_limit = turn_limit
        self._cost_limit = cost_limit

    async def answer(self, run: Run, stream: bool) -> Any:
        """Answer ``run`` from its beginning: the output."""
        await self._caller.resume(run)
        return await self.go_on(run, stream)

    async def go_on(self, run: Run, stream: bool) -> Any:
        """Go on with ``run`` until the model has an answer: the output."""
        while True:
            self.check_limits(run)
            response = await self.ask(run, stream=stream)
            if response.abstention is not None:
                raise Abstained(response.abstention) from run.last_failure
            if response.tool_calls:
                await self.dispatch(run, response)
                continue
            run.messages.append(assistant_message(response))
            try:
                return self.output_of(run, response)
            except InvalidAnswer as error:
                if self.is_planner or run.repairs - run.plan_repairs >= REPAIRS:
                    raise InvalidOutput(str(error)) from None
                run.repairs += 1
                problem = f"{str(error).rstrip('.')}. Answer again, in the form that was asked for."
                run.messages.append(user_message(problem))

    async def dispatch(self, run: Run, response: ModelResponse) -> None:
        """Make the calls of a response."""
        if response.finish_reason == "length":
            raise self._cut_off()  # calls may be missing, so none is run
        run.messages.append(assistant_message(response))
        await self._caller.dispatch(run, response.tool_calls)

    def check_limits(self, run: Run) -> None:
        """Raise the limit that the run has reached, if any."""
        if run.late():
            raise run.timeout()
        if len(run.turns) >= self._turn_limit:
            raise TurnLimit(f"the run took {len(run.turns)} turns and has no answer; turn_limit is {self._turn_limit}")
        self.check_cost(run)

    def check_cost(self, run: Run) -> None:
        """Raise :class:`CostLimit` where the run has spent what it may."""
        if self._cost_limit is None:
            return
        spent = run.usage().cost
        if spent.high is None:
            raise CostLimit("cost_limit cannot be held: a request has no known price; give the model a price")
        if spent.high >= self._cost_limit and run.turns:
            raise CostLimit(f"the run has spent up to ${spent.high:f}, and cost_limit is ${self._cost_limit:f}")

    async def ask(
        self,
        run: Run,
        *,
        stream: bool = False,
        more: Sequence[EncodedMessage] = (),
        schema: Mapping[str, Any] | None = None,
        name: str = "answer",
        ask: Ask | None = None,
        shaped: Callable[[ModelResponse], ModelResponse] | None = None,
    ) -> ModelResponse:
        """Ask the model once, which is a turn; or take the turn from the journal.

        ``more``: messages after those of the run, for this question only. ``schema`` and ``name``: the form of the
        answer, where it is not that of the output. ``ask``: another way to ask the model. ``shaped``: what is made of
        the response before it is written down.
        """
        step = turn_step(len(run.turns))
        before = run.turn_from_journal(step)
        if before is not None:
            return before
        assert run.offer is not None
        assert run.books is not None
        if run.books.limited:
            await run.books.brain_may_work(run.meter.high)
        form = schema or (None if self._typed is None else self._typed.schema)
        messages: Sequence[Message]
        if self.is_planner:  # it reads no tokens, and feeds one tool what another answered
            messages = [*run.messages]
        else:
            messages = await self._showing.messages(run, more, form)
        page = run.page(step, self._model.name, "pure")
        request = ModelRequest(
            messages=messages,
            tools=run.offer.tools,
            output_schema=form,
            output_name=name,
            deadline=run.deadline,
            on_send=page.on_send,
            idempotency_key=run.key(step),
        )
        start = time.perf_counter()
        first = len(run.wire)
        response: ModelResponse | None = None
        error: BaseException | None = None
        emit = run.emit
        on_text = None if not stream or emit is None else lambda text: emit(TextDelta(redact(text)))

        def made(attempt: WireAttempt) -> None:
            run.wire.append(attempt)
            page.on_attempt(attempt)

        try:
            async with page.asking(self._model):
                response = await (ask or self._model.ask)(request, on_attempt=made, on_text=on_text)
            response = without_keys(response)
            if shaped is not None:
                response = shaped(response)
            return response
        except BaseException as caught:
            error = caught
            if isinstance(caught, ModelTimeout) and run.late():
                raise run.timeout() from caught  # which of the two timers rings first is chance
            raise
        finally:
            wire = tuple(run.wire[first:])
            turn = Turn(
                model=self._model.name,
                seconds=time.perf_counter() - start,
                usage=response.usage if response else wire[-1].usage if wire else TokenUsage(),
                cost=Cost.total(attempt.cost for attempt in wire),
                tool_calls=response.tool_calls if response else (),
                wire_attempts=wire,
                error=None if error is None else redact(f"{type(error).__name__}: {error}"),
            )
            run.turns.append(turn)
            if response is not None and run.journal is not None:
                failpoint("journal.after_effect")
                called = {call.name: self._dispatcher.digest(call.name) for call in response.tool_calls}
                page.commit(turn_to_json(turn, response, called))

    def output_of(self, run: Run, response: ModelResponse) -> Any:
        text = response.text or ""
        if response.finish_reason == "length":
            raise self._cut_off()
        if self._output is None or self._typed is None:
            if not text.strip():
                raise InvalidAnswer(f"{self._model.name} gave an empty answer.")
            return text
        if response.value_of is None:
            return self._typed.parse(text, self._model.name)
        return self.output_from(run.value_of(response.value_of))

    def output_from(self, value: Any) -> Any:
        """A tool's value as the output. Raises ``specialists.InvalidAnswer`` where it does not fit."""
        if self._output is None:
            return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
        try:
            return self._output.validate_python(value)
        except Exception:  # a ValidationError, or what a validator of the type's own raises
            raise InvalidAnswer(f"the answer {_shortened(value)} does not fit output_type") from None

    def _cut_off(self) -> InvalidOutput:
        return InvalidOutput(
            f"{self._model.name} was cut off before the end of its answer; raise its max_output_tokens"
        )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
