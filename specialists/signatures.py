"""A typed function as a checked call: JSON schema from its types, arguments validated before it runs.

Specialists and a brain's plain tools share this. It knows nothing of either.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python
from typing_extensions import NotRequired, Required, TypedDict

from .errors import DefinitionError, InvalidAnswer, InvalidArguments

__all__ = ["Signature", "check_answer", "problems_of"]


class Signature:
    """The parameters of ``function`` that a caller fills in, and the type it returns.

    ``injected`` decides from an annotation whether a parameter is filled in by us and absent from the schema;
    ``injected_names`` holds those parameters. Raises :class:`DefinitionError` when a parameter has no type.
    """

    def __init__(self, function: Callable[..., Any], *, injected: Callable[[Any], bool] = lambda _: False) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        hints = _hints(function)
        self.returns: Any = hints.get("return", Any)
        self._signature = inspect.signature(function)
        self.injected_names: tuple[str, ...] = ()
        self._defaults: dict[str, Any] = {}
        fields: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError(
                    f"{self.name}: parameter {parameter.name!r} cannot be passed by name, and a tool's arguments are"
                    " named; use plain named parameters"
                )
            if parameter.name not in hints:
                raise DefinitionError(f"{self.name}: parameter {parameter.name!r} needs a type annotation")
            if injected(hints[parameter.name]):
                self.injected_names += (parameter.name,)
            elif parameter.default is parameter.empty:
                fields[parameter.name] = Required[hints[parameter.name]]
            else:
                fields[parameter.name] = NotRequired[hints[parameter.name]]
                self._defaults[parameter.name] = _plain_default(parameter.default)
        arguments = TypedDict(f"{self.name}_arguments", fields)  # type: ignore[operator]
        arguments.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        try:
            self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(arguments)
            self.schema = self._schema()
        except Exception as error:  # pydantic has several exceptions for a type it cannot describe
            raise DefinitionError(f"{self.name}: its parameters cannot be written as a JSON schema: {error}") from None

    @property
    def description(self) -> str:
        """The docstring without its ``Args`` section, which goes into the schema."""
        return _split_docstring(inspect.getdoc(self.function) or "")[0]

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Arguments of an ordinary Python call, checked, defaults filled in. Raises :class:`InvalidArguments`."""
        try:
            given = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}: {error}", problems=(str(error),)) from None
        for name in self.injected_names:
            given.pop(name, None)
        return self.check(given)

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check Python values, fill in defaults. Raises :class:`InvalidArguments`."""
        return self._complete(lambda: self._adapter.validate_python(dict(arguments)))

    def check_json(self, text: str) -> dict[str, Any]:
        """Check the JSON a model wrote: no coercion between types. Raises :class:`InvalidArguments`."""
        return self._complete(lambda: self._adapter.validate_json(text.encode("utf-8", "replace"), strict=True))

    def _complete(self, validate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            checked = validate()
        except ValidationError as error:
            problems = problems_of(error)
            raise InvalidArguments(f"{self.name}: {'; '.join(problems)}", problems=problems) from None
        for name, parameter in self._signature.parameters.items():
            if name not in checked and name not in self.injected_names and parameter.default is not parameter.empty:
                default = parameter.default
                if not (hasattr(default, "get_default") and default.__class__.__name__ == "FieldInfo"):
                    checked[name] = default
                elif (value := default.get_default(call_default_factory=True)) is not PydanticUndefined:
                    checked[name] = value
        return {name: checked[name] for name in self._signature.parameters if name in checked}

    def _schema(self) -> dict[str, Any]:
        schema = self._adapter.json_schema()
        schema.pop("title", None)
        schema.setdefault("properties", {})
        described = _split_docstring(inspect.getdoc(self.function) or "")[1]
        for name, entry in schema["properties"].items():
            entry.pop("title", None)
            if name in described:
                entry.setdefault("description", described[name])
            if name in self._defaults and self._defaults[name] is not PydanticUndefined:
                entry.setdefault("default", self._defaults[name])
        return schema


def check_answer(adapter: TypeAdapter[Any], value: Any, who: str) -> Any:
    """``value`` as the promised type, with no NaN or infinity in it. Raises :class:`InvalidAnswer`."""
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidAnswer(f"{who} answered with the wrong type: {'; '.join(problems_of(error))}") from None
    if any(not math.isfinite(number) for number in _floats(to_jsonable_python(checked, fallback=repr))):
        raise InvalidAnswer(f"{who} answered with a number that is not finite")
    return checked


def problems_of(error: ValidationError) -> tuple[str, ...]:
    """One short line per problem, without the values themselves: they may be long or private."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        message = {
            "missing": "is missing",
            "extra_forbidden": "is not a parameter",
        }.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:])
        lines.append(f"{where} {message}" if where and not message.startswith("input") else f"{where}: {message}")
    return tuple(line.removeprefix(": ") for line in lines)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except NameError:
        # A function defined inside another may name types that only its surroundings know.
        local: dict[str, Any] = {}
        frame = sys._getframe(1)
        frames = []
        while frame is not None and len(frames) < 8:
            frames.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        for each in reversed(frames):
            local.update(each.f_locals)
        try:
            return get_type_hints(target, localns=local, include_extras=True)
        except NameError as error:
            raise DefinitionError(f"{getattr(function, '__name__', function)}: its types cannot be read: {error}") from None


def _plain_default(default: Any) -> Any:
    if hasattr(default, "get_default") and default.__class__.__name__ == "FieldInfo":
        default = default.get_default(call_default_factory=False)
        if default is None or default is PydanticUndefined:
            return PydanticUndefined
    try:
        plain = to_jsonable_python(default)
        json.dumps(plain, allow_nan=False)
        return plain
    except Exception:
        return PydanticUndefined


def _split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what an ``Args:`` section says of each parameter."""
    head, found, tail = text.partition("\nArgs:\n")
    if not found:
        return text.strip(), {}
    described: dict[str, str] = {}
    current = ""
    lines = tail.splitlines()
    for index, line in enumerate(lines):
        if line and not line.startswith(" "):
            head = head.rstrip() + "\n\n" + "\n".join(lines[index:])
            break
        name, colon, rest = line.strip().partition(":")
        if colon and name.split(" ")[0].isidentifier() and len(line) - len(line.lstrip()) <= 4:
            current = name.split(" ")[0]
            described[current] = rest.strip()
        elif current and line.strip():
            described[current] += " " + line.strip()
    return head.strip(), described


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _floats(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _floats(part)
