"""The preview of one value: what of a tool's result is shown where there is no room for all of it.

A result in a history has a handle, by which a later call can be given the whole value, and by which it can be read in
parts. This module knows nothing of windows, models or loops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from specialists import strict_json

from .events import Message
from .handles import handle_of

__all__ = ["failed", "handles_of", "preview_of", "text_of", "value_in"]

USE = "pass the handle as the argument's whole value, or read_value(handle, start, length)"
ERROR_CHARACTERS = 200
"""Characters of an error that are kept."""
SHORT = 200
"""Previews of fewer characters do not say how a handle is used."""
_FAILURES = ("error", "abstained", "denied")
GRID = 12
"""Characters that are shown of a text of few different ones: of a grid or of digits, more would say no more."""
_FEW, _LOOKED_AT = 16, 2000
_ITEMS = 100
"""Items that are tried at most for the beginning of a list or an object."""


def handles_of(messages: Sequence[Message]) -> dict[str, str]:
    """The contents of the tool messages of a whole stored history, by their handles."""
    return {handle_of(n, content): content for n, content in enumerate(_contents(messages), 1)}


def value_in(content: str) -> Any:
    """The value that the handle of a tool message with this content stands for: what the call gave, else the text."""
    found = _read(content)
    return found["value"] if isinstance(found, dict) and _is_answer(found) else content


def failed(content: str) -> bool:
    """Whether a tool message with this content says that its call gave no value."""
    found = _read(content) if content.startswith("{") and any(f'"{kind}"' in content for kind in _FAILURES) else None
    return isinstance(found, dict) and "value" not in found and any(kind in found for kind in _FAILURES)


def preview_of(content: str, handle: str, limit: int) -> str:
    """A tool message's content in short: JSON with the value's type, its size, its beginning, and its handle.

    ``limit``: characters of the value that are shown at most (of their JSON, for lists and objects); with fewer than
    200 it is not said how a handle is used. By what right the value was accepted stays. Of an error, an abstention and
    a denial the first 200 characters stay. What cannot be read is text like any other.
    """
    found = _read(content)
    kinds = [] if not isinstance(found, dict) else [kind for kind in found if kind != "handle"]
    if len(kinds) == 1 and kinds[0] in _FAILURES:
        reason = found[kinds[0]]
        text = reason if isinstance(reason, str) else _written(reason)
        return _written({kinds[0]: _cut(text, ERROR_CHARACTERS)})
    answer = isinstance(found, dict) and _is_answer(found)
    preview = _described(found["value"] if answer else content, limit)
    preview["handle"] = handle
    if limit >= SHORT and not (preview["type"] == "string" and len(preview["begins"]) <= GRID):
        preview["use"] = USE
    whole: dict[str, Any] = {"preview": preview}
    if answer and "accepted_by" in found:
        accepted = found["accepted_by"]
        whole["accepted_by"] = _cut(accepted, 40) if isinstance(accepted, str) else None
    return _written(whole)


def _contents(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message.get("role") == "tool":
            yield text_of(message)


def text_of(message: Mapping[str, Any]) -> str:
    """A tool message's content as text, also where it is a list of parts."""
    content = message.get("content")
    return content if isinstance(content, str) else _written(content)


def _is_answer(found: Mapping[str, Any]) -> bool:
    return "value" in found and found.keys() <= {"value", "accepted_by", "handle"}


def _read(content: str) -> Any:
    try:
        return strict_json.loads(content)
    except (ValueError, RecursionError):
        return None


def _described(value: Any, limit: int) -> dict[str, Any]:
    if isinstance(value, str):
        few = len(set(value[:_LOOKED_AT])) <= _FEW
        return {"type": "string", "characters": len(value), "begins": _cut(value, min(limit, GRID) if few else limit)}
    if isinstance(value, list):
        return {"type": "list", "items": len(value), "begins": _items(value, limit)}
    if isinstance(value, dict):
        return {"type": "object", "keys": len(value), "begins": _pairs(value, limit)}
    kind = "null" if value is None else "boolean" if isinstance(value, bool) else "number"
    return {"type": kind, "begins": _cut(_written(value), limit)}


def _items(value: list[Any], limit: int) -> Any:
    """The first items that fit as they are; else the beginning of the first, as text."""
    taken: list[Any] = []
    left = limit
    for item in value[:_ITEMS]:
        left -= len(_written(item)) + 1
        if left < 0:
            break
        taken.append(item)
    return taken if taken or not value else _cut(_written(value[0]), limit)


def _pairs(value: dict[str, Any], limit: int) -> Any:
    taken: dict[str, Any] = {}
    left = limit
    for key, item in list(value.items())[:_ITEMS]:
        left -= len(_written({key: item}))
        if left < 0:
            break
        taken[key] = item
    return taken if taken or not value else _cut(_written(dict([next(iter(value.items()))])), limit)


def _cut(text: str, limit: int) -> str:
    """The first characters, fewer where JSON writes them longer: what is hostile costs no more than the rest."""
    text = text[:limit]
    while text and (length := len(_written(text)) - 2) > limit:
        text = text[: min(len(text) - 1, len(text) * limit // length)]
    return text


def _written(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, ValueError):  # nested as deeply as could just be read
        text = '"..."'
    return text.encode("utf-8", "replace").decode()  # a half of a pair, which JSON can bring, cannot be sent
