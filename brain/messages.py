"""Chat messages: how the loop writes what was said and done, and reads it back from a history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from specialists import Outcome
from specialists.ladder import jsonable

from .errors import ConfigurationError
from .events import Message, ModelResponse, ToolCall
from .keys import redact

__all__ = ["ROLES", "as_content", "assistant_message", "tool_message", "unanswered", "without_keys"]

ROLES = {"system", "developer", "user", "assistant", "tool"}
"""Who may speak in a history."""


def assistant_message(response: ModelResponse) -> Message:
    """A model's turn."""
    message: Message = {"role": "assistant", "content": response.text}
    if response.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in response.tool_calls
        ]
    return message


def tool_message(call_id: str, content: dict[str, Any]) -> Message:
    """The answer to one call."""
    # A lone half of a surrogate pair in a tool's text could not be sent.
    text = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace").decode()
    return {"role": "tool", "tool_call_id": call_id, "content": redact(text)}


def without_keys(response: ModelResponse) -> ModelResponse:
    """A hostile endpoint may repeat the key it was sent, and a history is stored and sent elsewhere."""
    calls = tuple(ToolCall(redact(c.id), redact(c.name), redact(c.arguments)) for c in response.tool_calls)
    return replace(response, text=None if response.text is None else redact(response.text), tool_calls=calls)


def as_content(outcome: Outcome[Any]) -> dict[str, Any]:
    """An outcome as a model reads it: short, and typed."""
    if outcome.accepted:
        return {"value": jsonable(outcome.value), "accepted_by": outcome.accepted_by}
    tried = outcome.attempts[-1].outcome if outcome.attempts else "answered"
    kind = "error" if tried in ("error", "timeout") else "abstained"
    return {kind: outcome.reason}


def unanswered(messages: Sequence[Message]) -> list[ToolCall]:
    """The calls of the last assistant message that no tool message answers."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message["role"] == "tool":
            answered.add(str(message.get("tool_call_id")))
            continue
        try:
            entries = message.get("tool_calls") or () if message["role"] == "assistant" else ()
            calls = [ToolCall(e["id"], e["function"]["name"], e["function"]["arguments"]) for e in entries]
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"the last tool calls of the history cannot be read ({error!r})") from None
        if len({call.id for call in calls}) < len(calls):
            raise ConfigurationError("two of the last tool calls of the history have the same id")
        return [call for call in calls if call.id not in answered]
    return []
