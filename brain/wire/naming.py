"""Tool names on the wire: chat completions allow letters, digits, ``_`` and ``-``, and our tools may have dots.

A name with a dot travels as one without and comes back as it was, in the tools, in the history and in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..events import Message, ModelRequest, ModelResponse

__all__ = ["as_on_wire", "as_registered", "wire_names"]


def wire_names(request: ModelRequest) -> dict[str, str]:
    """From each registered name that cannot travel to one that can and that no other tool has. Mostly empty."""
    taken = {tool.name for tool in request.tools if "." not in tool.name}
    names: dict[str, str] = {}
    for tool in request.tools:
        if "." not in tool.name:
            continue
        plain = tool.name.replace(".", "_")[:64]
        number = 2
        while plain in taken:
            suffix = f"_{number}"
            plain = tool.name.replace(".", "_")[: 64 - len(suffix)] + suffix
            number += 1
        taken.add(plain)
        names[tool.name] = plain
    return names


def as_on_wire(request: ModelRequest, names: Mapping[str, str]) -> ModelRequest:
    """``request`` with the names that can travel; the same object when there is nothing to change."""
    if not names:
        return request
    tools = [replace(tool, name=names.get(tool.name, tool.name)) for tool in request.tools]
    return replace(request, tools=tools, messages=[_renamed(message, names) for message in request.messages])


def as_registered(response: ModelResponse, names: Mapping[str, str]) -> ModelResponse:
    """``response`` with the names the tools were registered under."""
    if not names or not response.tool_calls:
        return response
    back = {plain: name for name, plain in names.items()}
    calls = tuple(replace(call, name=back.get(call.name, call.name)) for call in response.tool_calls)
    return replace(response, tool_calls=calls)


def _renamed(message: Message, names: Mapping[str, str]) -> Message:
    entries = message.get("tool_calls")
    if not isinstance(entries, list) or not entries:
        return message
    return {**message, "tool_calls": [_renamed_call(entry, names) for entry in entries]}


def _renamed_call(entry: Any, names: Mapping[str, str]) -> Any:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict) or function.get("name") not in names:
        return entry
    return {**entry, "function": {**function, "name": names[function["name"]]}}
