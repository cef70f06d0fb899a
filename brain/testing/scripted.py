"""A model that says what it is told to say. It knows nothing of wires, tokens or time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

from ..events import ModelRequest, ModelResponse, TokenUsage, ToolCall, WireAttempt
from .replies import Reply

__all__ = ["ScriptError", "ScriptedModel", "Step"]

Step: TypeAlias = (
    str
    | ToolCall
    | list[ToolCall]
    | tuple[ToolCall, ...]
    | Reply
    | ModelResponse
    | Mapping[str, Any]
    | BaseModel
    | BaseException
    | type[BaseException]
    | Callable[[ModelRequest], Any]
)


class ScriptError(AssertionError):
    """The script and what was asked do not fit: too many questions, or too few."""


class ScriptedModel:
    """Answers each question with the next of ``steps``.

    A step is text; a :class:`~brain.events.ToolCall` or a list of them (see :func:`brain.testing.call`); a dictionary
    or pydantic object, given as JSON text; a :func:`~brain.testing.reply`; a
    :class:`~brain.events.ModelResponse`; an exception, which is raised; or a function of the request that returns any
    of these. ``requests`` holds what was asked. Used as a context manager (plain or async) it raises
    :class:`ScriptError` at the end when steps are left over. It makes no wire attempts.
    """

    announces = True  # all that it sends, which is nothing

    def __init__(self, steps: Iterable[Step] = (), *, name: str = "scripted") -> None:
        self._steps: list[Step] = [steps] if isinstance(steps, str) else list(steps)
        self._name = name
        self._lock = threading.Lock()
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def unused(self) -> list[Step]:
        """Steps nobody has asked for yet."""
        return self._steps[len(self.requests) :]

    async def ask(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """The next step. Raises what the step raises, and :class:`ScriptError` when there is none."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        if number >= len(self._steps):
            raise ScriptError(
                f"{self._name} was asked {number + 1} times and has {len(self._steps)} steps; "
                f"the last message was {_shown(request.messages[-1] if request.messages else None)}"
            )
        step: Any = self._steps[number]
        if callable(step) and not isinstance(step, type):
            step = step(request)
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        response = _response(step, self._name)
        if on_text is not None and response.text:
            middle = (len(response.text) + 1) // 2
            for piece in (response.text[:middle], response.text[middle:]):
                if piece:
                    on_text(piece)
        return response

    async def aclose(self) -> None:
        """Nothing to close; here so that it stands in for models that have."""

    def assert_finished(self) -> None:
        """Raises :class:`ScriptError`, naming the steps that were never used."""
        if self.unused:
            left = ", ".join(_shown(step) for step in self.unused)
            raise ScriptError(f"{self._name} has {len(self.unused)} unused steps: {left}")

    def __enter__(self) -> ScriptedModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # another error is the news; unused steps are its consequence
            self.assert_finished()

    async def __aenter__(self) -> ScriptedModel:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)

    def __repr__(self) -> str:
        return f"ScriptedModel({len(self._steps)} steps, {len(self.unused)} unused)"


def _response(step: Any, name: str) -> ModelResponse:
    if isinstance(step, ModelResponse):
        return step
    if isinstance(step, str):
        return ModelResponse(step, finish_reason="stop", model=name)
    if isinstance(step, Reply):
        return ModelResponse(step.text, step.tool_calls, step.ends, step.model or name, step.usage or TokenUsage())
    if isinstance(step, BaseModel):
        return ModelResponse(step.model_dump_json(), finish_reason="stop", model=name)
    if isinstance(step, Mapping):
        return ModelResponse(json.dumps(dict(step), ensure_ascii=False), finish_reason="stop", model=name)
    calls = (step,) if isinstance(step, ToolCall) else tuple(step) if isinstance(step, (list, tuple)) else ()
    if calls and all(isinstance(one, ToolCall) for one in calls):
        return ModelResponse(None, calls, "tool_calls", name)
    raise ScriptError(f"a step is text, tool calls, a response, an exception or a function of these: {_shown(step)}")


def _shown(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
