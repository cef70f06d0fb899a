"""Tool names on the wire: chat completions allow letters, digits, ``_`` and ``-``, and our tools may have dots.

A name with a dot travels as one without and comes back as it was, in the tools, in the history and in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..encoding import EncodedMessage, encode
from ..events import ModelRequest, ModelResponse, ToolSchema

__all__ = ["as_registered", "as_sent", "renamed_tool", "wire_names"]


def wire_names(request: ModelRequest) -> dict[str, str]:
    """From each registered name that cannot travel to one that can and that no other tool has. Mostly empty."""
    dotted = [tool.name for tool in request.tools if "." in tool.name]
    if not dotted:
        return {}
    taken = {tool.name for tool in request.tools if "." not in tool.name}
    names: dict[str, str] = {}
    for name in dotted:
        plain = _plain(name)
        number = 2
        while plain in taken:
            suffix = f"_{number}"
            plain = name.replace(".", "_")[: 64 - len(suffix)] + suffix
            number += 1
        taken.add(plain)
        names[name] = plain
    return names


def renamed_tool(tool: ToolSchema, names: Mapping[str, str]) -> ToolSchema:
    """``tool`` under the name it travels by; the same object when that is its own."""
    name = names.get(tool.name)
    return tool if name is None else tool.named(name)


def as_sent(message: EncodedMessage, names: Mapping[str, str]) -> bytes:
    """The bytes of ``message`` with names that can travel, also of tools that are not offered any more."""
    if not message.dotted:
        return message.wire
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message.wire
    if message.renamed is None or message.renamed[0] != names:
        renamed = encode({**message, "tool_calls": [_renamed_call(entry, names) for entry in calls]})
        message.renamed = (dict(names), renamed)
    return message.renamed[1]


def as_registered(response: ModelResponse, names: Mapping[str, str]) -> ModelResponse:
    """``response`` with the names the tools were registered under."""
    if not names or not response.tool_calls:
        return response
    back = {plain: name for name, plain in names.items()}
    calls = tuple(replace(call, name=back.get(call.name, call.name)) for call in response.tool_calls)
    return replace(response, tool_calls=calls)


def _plain(name: str) -> str:
    return name.replace(".", "_")[:64]


def _renamed_call(entry: Any, names: Mapping[str, str]) -> Any:
    function = entry.get("function") if isinstance(entry, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or "." not in name:
        return entry
    assert function is not None
    return {**entry, "function": {**function, "name": names.get(name) or _plain(name)}}
