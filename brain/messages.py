"""Chat messages: how the loop writes what was said and done, and reads it back from a history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from specialists import Outcome
from specialists.ladder import jsonable

from .encoding import EncodedMessage, NotJson
from .errors import ConfigurationError
from .events import Message, ModelResponse, ToolCall
from .handles import with_handle
from .keys import redact

__all__ = [
    "ROLES",
    "as_content",
    "assistant_message",
    "tool_message",
    "unanswered",
    "user_message",
    "without_keys",
]

ROLES = {"system", "developer", "user", "assistant", "tool"}
"""Who may speak in a history."""


_dumps = json.JSONEncoder(ensure_ascii=False).encode


def user_message(text: str) -> EncodedMessage:
    """What a person says, or the loop in a person's place."""
    return EncodedMessage({"role": "user", "content": text})


def assistant_message(response: ModelResponse) -> EncodedMessage:
    """A model's turn. What could not be sent again (half a character) stands in it as a question mark."""
    try:
        return _assistant(response.text, response.tool_calls)
    except NotJson:
        calls = [ToolCall(_whole(c.id), _whole(c.name), _whole(c.arguments)) for c in response.tool_calls]
        return _assistant(None if response.text is None else _whole(response.text), calls)


def _assistant(text: str | None, calls: Sequence[ToolCall]) -> EncodedMessage:
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return EncodedMessage(message)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def tool_message(call_id: str, content: dict[str, Any], number: int | None = None) -> EncodedMessage:
    """The answer to one call. As the ``number``-th of a conversation a value gets its handle."""
    # A lone half of a surrogate pair in a tool's text could not be sent.
    text = redact(_whole(_dumps(content)))
    if number is not None and "value" in content:
        text = with_handle(number, text)
    return EncodedMessage({"role": "tool", "tool_call_id": _whole(call_id), "content": text})


def without_keys(response: ModelResponse) -> ModelResponse:
    """A hostile endpoint may repeat the key it was sent, and a history is stored and sent elsewhere."""
    text = None if response.text is None else redact(response.text)
    calls = tuple([_without_keys(call) for call in response.tool_calls])
    if text is response.text and all(new is old for new, old in zip(calls, response.tool_calls, strict=True)):
        return response
    return replace(response, text=text, tool_calls=calls)


def _without_keys(call: ToolCall) -> ToolCall:
    id, name, arguments = redact(call.id), redact(call.name), redact(call.arguments)
    if id is call.id and name is call.name and arguments is call.arguments:
        return call
    return ToolCall(id, name, arguments)


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
