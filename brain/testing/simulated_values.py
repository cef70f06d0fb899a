"""The values that a simulated model gives: spoilt, written as a schema wants them, split into parts that are made up.

This module knows nothing of chance but what it is handed, and nothing of accuracies.
"""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..events import ModelRequest
from .replies import as_json
from .scripted import ScriptError

__all__ = ["invented", "part_of", "request_of", "split_parts", "spoilt", "with_chance", "written"]

_INVENTED = re.compile(r"(?:\(part \d+ of \d+\) )+")


def written(value: Any, schema: Mapping[str, Any] | None, explained: Mapping[str, Any] | None = None) -> str:
    """``value`` as a model answers it: JSON of ``schema``, or text. ``explained``: properties that hold an explanation;
    one that the value has already stays as it is."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if schema is None:
        return value if isinstance(value, str) else as_json(value)
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    if not explained:
        if not isinstance(value, Mapping) and len(properties) == 1:
            value = {next(iter(properties)): value}
        return as_json(value)
    own = [name for name in properties if name not in explained]
    if not isinstance(value, Mapping):
        if len(own) != 1:
            return as_json(value)
        value = {own[0]: value}
    whole = {**explained, **value}
    ordered = [name for name in properties if name in whole]  # thoughts come before what they end in, or as is wanted
    return as_json({name: whole[name] for name in [*ordered, *(name for name in whole if name not in properties)]})


def spoilt(value: Any, way: int = 0) -> Any:
    """A wrong value of the same shape; another one for each ``way``, as far as the type has as many."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 + way
    if isinstance(value, float):
        moved = value + 1 + way
        return moved if math.isfinite(moved) and moved != value else float(way)
    if isinstance(value, str):
        turned = value[::-1] if value[::-1] != value else value + "x"
        return turned + "x" * way
    if isinstance(value, Mapping) and value:
        return {key: spoilt(inner, way) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) and value:
        return [spoilt(inner, way) for inner in value]
    return "wrong" if not isinstance(value, (list, tuple)) else ["wrong"]


def with_chance(wrong: Callable[..., Any]) -> Callable[[str, Any, random.Random], Any]:
    """``wrong`` as a function of question, right answer and chance, whether it has a parameter ``chance`` or not."""
    try:
        takes = "chance" in inspect.signature(wrong).parameters
    except (TypeError, ValueError):  # a builtin that does not say
        takes = False
    if takes:
        return lambda question, right, chance: wrong(question, right, chance=chance)
    return lambda question, right, _: wrong(question, right)


def invented(question: str, parts: int) -> list[str]:
    """So many tasks that are parts of ``question`` in name only."""
    return [f"(part {number} of {parts}) {question}" for number in range(1, parts + 1)]


def part_of(question: str) -> str:
    """The question that an invented part was made of; any other as it is."""
    return _INVENTED.sub("", question, count=1) if question.startswith("(part ") else question


def split_parts(
    parts: Iterable[Any], schema: Mapping[str, Any] | None, right: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Parts as a splitter's answer lists them, with what ``schema`` has room for. ``right``: a task's right answer,
    whose type the part has; where it raises, the part's answer is a text. Raises :class:`ScriptError`."""
    listed = []
    allowed = _allowed(schema)
    if isinstance(parts, (str, Mapping)) or not isinstance(parts, Iterable):
        raise ScriptError(f"a splitter returns a list of tasks, not {str(parts)[:80]!r}")
    for number, part in enumerate(parts, 1):
        given = {"task": part} if isinstance(part, str) else part
        if not isinstance(given, Mapping) or not isinstance(given.get("task"), str):
            raise ScriptError(f"a splitter returns texts or objects with a task, not {str(part)[:80]!r}")
        whole = {"id": str(number), "type": None, "needs": [], **given}
        whole["type"] = whole["type"] or _type_of(given["task"], right)
        listed.append({name: value for name, value in whole.items() if allowed is None or name in allowed})
    return listed


def request_of(body: Mapping[str, Any]) -> ModelRequest:
    """The request that a chat-completions body is. Raises ``ValueError`` for one that is none."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError("messages is a list of objects")
    form = body.get("response_format")
    form = form.get("json_schema") if isinstance(form, Mapping) else None
    form = form if isinstance(form, Mapping) else {}
    schema, name = form.get("schema"), form.get("name")
    effort, seed = body.get("reasoning_effort"), body.get("seed")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if effort is not None and not isinstance(effort, str):
        raise ValueError("reasoning_effort is a text")
    for number in (seed, limit):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise ValueError("seed and max_tokens are whole numbers")
    return ModelRequest(
        messages,
        output_schema=schema if isinstance(schema, Mapping) else None,
        output_name=name if isinstance(name, str) else "answer",
        max_output_tokens=limit,
        effort=effort,
        seed=seed,
    )


def _allowed(schema: Mapping[str, Any] | None) -> set[str] | None:
    """The properties that a part may have; ``None``: nobody says."""
    node: Any = schema
    for name in ("properties", "parts", "items", "properties"):
        node = node.get(name) if isinstance(node, Mapping) else None
    return set(node) if isinstance(node, Mapping) else None


def _type_of(task: str, right: Callable[[str], Any]) -> str:
    try:
        value = right(task)
    except Exception:  # no answer to this task is known, in whatever words the application's function says so
        return "string"
    if hasattr(value, "model_dump") or isinstance(value, Mapping):
        return "object"
    if isinstance(value, (list, tuple)):
        return "list of strings"
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return kinds.get(type(value), "string")
