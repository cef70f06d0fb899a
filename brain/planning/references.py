"""One tool's answer as another's argument: whether the schemas fit, and which field it is when the answer is there.

Decided on schemas only; a value is looked at only to copy it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..words import likeness
from .identity import Itself
from .parameters import Parameter, parameters_of, resolve

__all__ = ["NoValue", "fill", "suits"]


class NoValue(Exception):
    """The earlier answer has nothing that the parameter can take."""


def suits(returns: Mapping[str, Any] | None, provider: Sequence[str], parameter: Parameter) -> float:
    """How well an answer of schema ``returns`` from a tool of name stems ``provider`` can be ``parameter``, 0 .. 1."""
    if returns is None:
        return 0.25
    whole = _as_parameter(Itself(returns), tuple(provider))
    best = _alike(whole, parameter, whole.words) if whole.kind != "any" else 0.25
    if whole.kind == "object" and parameter.kind != "object":
        best = 0.0
        fields = [field for field in whole.fields if _kinds_fit(field, parameter)]
        for field in fields:
            best = max(best, _alike(field, parameter, field.words) + (0.1 if len(fields) == 1 else 0.0))
    return min(best, 1.0)


@lru_cache(maxsize=1024)
def _as_parameter(returns: Itself[Mapping[str, Any]], provider: tuple[str, ...]) -> Parameter:
    root = returns.thing
    schema = resolve(root, root)
    name = "_".join(provider) or "answer"
    holder = {"type": "object", "properties": {name: schema}, "required": [name]}
    for key in ("$defs", "definitions"):
        if key in root:
            holder[key] = root[key]
    return parameters_of(holder)[0]


def _kinds_fit(source: Parameter, target: Parameter) -> bool:
    if target.kind == "any" or source.kind == target.kind:
        return True
    if target.kind == "number":
        return source.kind == "integer"
    return target.kind == "array" and target.item is not None and target.item.kind == source.kind


def _alike(source: Parameter, target: Parameter, words: Sequence[str]) -> float:
    if not _kinds_fit(source, target):
        return 0.0
    if target.is_closed:
        allowed = [option.value for option in target.options]
        given = [option.value for option in source.options if option.closed]
        return 0.9 if given and all(value in allowed for value in given) else 0.2
    if source.pattern and target.pattern and source.pattern.pattern == target.pattern.pattern:
        return 0.95
    score = 0.45
    if source.name == target.name:
        score += 0.5
    else:
        alike = max((likeness(a, b) for a in words for b in target.words), default=0.0)
        score += 0.35 * alike
        if source.role and source.role == target.role and source.role not in ("title", "text"):
            score += 0.25
        elif target.role in ("email", "url", "phone", "date", "time", "place", "person", "id", "path") and not alike:
            score -= 0.25
    if source.kind == "object":
        names = {field.name for field in source.fields}
        needed = {field.name for field in target.fields if field.required}
        score = 0.9 if needed and needed <= names else score - 0.2
    return score


def fill(value: Any, parameter: Parameter) -> Any:
    """``value``, or the field of it, that ``parameter`` takes. Raises :class:`NoValue` when there is none."""
    if isinstance(value, Mapping) and parameter.kind not in ("object", "any"):
        fields = {str(name): part for name, part in value.items() if _holds(part, parameter)}
        if not fields:
            raise NoValue
        if parameter.name in fields:
            return _cast(fields[parameter.name], parameter)

        def alike(name: str) -> float:
            field = parameters_of({"properties": {name: {"type": "string"}}})[0]
            return max((likeness(a, b) for a in field.words for b in parameter.words), default=0.0)

        return _cast(fields[max(fields, key=alike)], parameter)
    if not _holds(value, parameter):
        raise NoValue
    return _cast(value, parameter)


def _holds(value: Any, parameter: Parameter) -> bool:
    match parameter.kind:
        case "string":
            return isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool))
        case "integer":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, (list, tuple)) or (parameter.item is not None and _holds(value, parameter.item))
        case "object":
            return isinstance(value, Mapping)
    return value is not None


def _cast(value: Any, parameter: Parameter) -> Any:
    if parameter.kind == "string" and not isinstance(value, str):
        return str(value)
    if parameter.kind == "integer":
        return int(value)
    if parameter.kind == "array" and not isinstance(value, (list, tuple)):
        return [value]
    return value
