"""One question to a model, with all that came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from brain.errors import BrainError
from brain.events import ChatModel, ModelRequest, ModelResponse, ToolSchema, WireAttempt

ADD = ToolSchema(
    "add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
)


@dataclass
class Asked:
    response: ModelResponse | None = None
    error: Exception | None = None
    attempts: list[WireAttempt] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def outcomes(self) -> list[str]:
        return [attempt.outcome for attempt in self.attempts]

    @property
    def text(self) -> str | None:
        assert self.response is not None, self.error
        return self.response.text


def question(prompt: str = "What is one and one?", **more: Any) -> ModelRequest:
    return ModelRequest([{"role": "user", "content": prompt}], **more)


async def ask(
    model: ChatModel,
    prompt: str = "What is one and one?",
    *,
    stream: bool = False,
    tools: Sequence[ToolSchema] = (),
    **more: Any,
) -> Asked:
    """Ask, and keep whatever comes of it; errors that end an ask are kept too."""
    asked = Asked()
    try:
        asked.response = await model.ask(
            question(prompt, tools=tools, **more),
            on_attempt=asked.attempts.append,
            on_text=asked.pieces.append if stream else None,
        )
    except (BrainError, AssertionError) as error:
        asked.error = error
    return asked
