"""A typed function as a checked call: JSON schema from its types, arguments validated before it runs.

Specialists and a brain's plain tools share this. It knows nothing of either.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, NotRequired, Required, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from . import strict_json
from .adapters import arguments_adapter, schema_of_arguments, try_out
from .errors import DefinitionError, InvalidAnswer, InvalidArguments

__all__ = ["Signature", "check_answer", "problems_of"]

MANY_PROBLEMS = 8
"""Problems that one message names; who sends ten thousand wrong arguments is not answered in kind."""


class Signature:
    """The parameters of ``function`` that a caller fills in, and the type it returns.

    ``injected`` decides from an annotation whether a parameter is filled in by us and absent from the schema;
    ``injected_names`` holds those parameters. Raises :class:`DefinitionError` when a parameter has no type.
    """

    def __init__(self, function: Callable[..., Any], *, injected: Callable[[Any], bool] = lambda _: False) -> None:
        self.function = function
        inner = _innermost(function)
        self.name: str = getattr(inner, "__name__", type(inner).__name__)
        _check_kind(inner, self.name)
        hints = _hints(inner, self.name)
        self.returns: Any = hints.get("return", Any)
        self._described = _split_docstring(inspect.getdoc(inner) or "")
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"{self.name}: its parameters cannot be read: {error}") from None
        if isinstance(function, functools.partial):  # what is bound is not the caller's to see or to change
            free = [each for name, each in self._signature.parameters.items() if name not in function.keywords]
            self._signature = self._signature.replace(parameters=free)
        self.injected_names: tuple[str, ...] = ()
        self._types: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError(
                    f"{self.name}: parameter {parameter.name!r} cannot be passed by name, and a tool's arguments are"
                    " named; use plain named parameters"
                )
            if parameter.name not in hints:
                method = "; for a method, pass it bound to its object" if parameter.name in ("self", "cls") else ""
                raise DefinitionError(f"{self.name}: parameter {parameter.name!r} needs a type annotation{method}")
            if injected(hints[parameter.name]):
                self.injected_names += (parameter.name,)
            else:
                self._types[parameter.name] = hints[parameter.name]
        try:
            for name, annotation in self._types.items():
                default = self._signature.parameters[name].default
                try_out(_field(annotation, default) if isinstance(default, FieldInfo) else annotation, argument=True)
        except Exception as error:  # pydantic has several exceptions for a type it cannot describe
            raise DefinitionError(f"{self.name}: its parameters cannot be written as a JSON schema: {error}") from None

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[dict[str, Any]]:
        """Made at the first call: most of many thousand functions are never called."""
        return arguments_adapter(self._fields())

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        schema = schema_of_arguments(self._fields())
        schema.pop("title", None)
        schema.setdefault("properties", {})
        for name, entry in schema["properties"].items():
            entry.pop("title", None)
            if name in self._described[1]:
                entry.setdefault("description", self._described[1][name])
        return schema

    @property
    def description(self) -> str:
        """The docstring without its ``Args`` section, which goes into the schema."""
        return self._described[0]

    def bind(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Arguments of an ordinary Python call, checked, defaults filled in. Raises :class:`InvalidArguments`."""
        return self.split(*args, **kwargs)[0]

    def split(self, /, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As :meth:`bind`; and beside it what the call gave for the injected parameters."""
        try:
            given = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}: {error}", problems=(str(error),)) from None
        injected = {name: given.pop(name) for name in self.injected_names if name in given}
        return self.check(given), injected

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check Python values, fill in defaults. Raises :class:`InvalidArguments`."""
        return self._ordered(lambda: self._adapter.validate_python(dict(arguments)))

    def check_json(self, text: str) -> dict[str, Any]:
        """Check the JSON a model wrote: no coercion between types, no key twice, no NaN. Raises
        :class:`InvalidArguments`.
        """
        try:
            data = text.encode()
            strict_json.loads(text)
        except (ValueError, RecursionError) as error:
            problem = f"the arguments are not JSON: {_first_line(error)}"
            raise InvalidArguments(f"{self.name}: {problem}", problems=(problem,)) from None
        return self._ordered(lambda: self._adapter.validate_json(data, strict=True))

    def _fields(self) -> dict[str, Any]:
        defaults = {name: parameter.default for name, parameter in self._signature.parameters.items()}
        return {name: _field(annotation, defaults[name]) for name, annotation in self._types.items()}

    def _ordered(self, validate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            checked = validate()
        except ValidationError as error:
            problems = problems_of(error)
            raise InvalidArguments(f"{self.name}: {'; '.join(problems)}", problems=problems) from None
        return {name: checked[name] for name in self._signature.parameters if name in checked}


def check_answer(adapter: TypeAdapter[Any], value: Any, who: str) -> Any:
    """``value`` as the promised type, with no NaN or infinity in it. Raises :class:`InvalidAnswer`."""
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidAnswer(f"{who} answered with the wrong type: {'; '.join(problems_of(error))}") from None
    if not all(math.isfinite(number) for number in _numbers(adapter.dump_python(checked, warnings=False))):
        raise InvalidAnswer(f"{who} answered with a number that is not finite")
    return checked


def problems_of(error: ValidationError) -> tuple[str, ...]:
    """One short line per problem, without the values themselves: they may be long or private."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False)[:MANY_PROBLEMS]:
        where = ".".join(_short(str(part)) for part in problem["loc"])
        message = {
            "missing": "is missing",
            "extra_forbidden": "is not a parameter",
        }.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:])
        if problem["type"] == "string_pattern_mismatch" and isinstance(problem["input"], str):
            message += f"; it has {len(problem['input']):,} characters"
        lines.append(f"{where} {message}" if where and not message.startswith("input") else f"{where}: {message}")
    if error.error_count() > MANY_PROBLEMS:
        lines.append(f"and {error.error_count() - MANY_PROBLEMS} more")
    return tuple(line.removeprefix(": ") for line in lines)


def _innermost(function: Callable[..., Any]) -> Any:
    """The function whose name, types and docstring count, under any :func:`functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _check_kind(function: Any, name: str) -> None:
    if not callable(function):
        raise DefinitionError(f"{function!r} is not a function; decorate a typed function")
    if inspect.isclass(function):
        raise DefinitionError(f"{name} is a class; decorate a typed function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{name} yields its answer piece by piece; return it whole")


def _hints(function: Any, name: str) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        try:
            return get_type_hints(target, include_extras=True)
        except NameError:
            return get_type_hints(target, localns=_around(target), include_extras=True)
    except Exception as error:  # whatever evaluating an annotation raises
        raise DefinitionError(
            f"{name}: its types cannot be read: {error}; import or define them where the function can see them"
        ) from None


def _around(function: Any) -> dict[str, Any]:
    """The local names of the functions that enclose ``function`` and still run: its types may be among them."""
    names: dict[str, Any] = {}
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        inside = function.__qualname__.startswith(f"{frame.f_code.co_qualname}.<locals>.")
        if inside and frame.f_globals is function.__globals__:
            names = {**frame.f_locals, **names}
    return names


def _field(annotation: Any, default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return Required[annotation]
    field = default if isinstance(default, FieldInfo) else Field(default=default)
    annotated = Annotated[annotation, field]
    return Required[annotated] if field.is_required() else NotRequired[annotated]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(";")[0] or type(error).__name__


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."


def _split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what an ``Args:`` section says of each parameter."""
    head, found, tail = f"\n{text}".partition("\nArgs:\n")
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
            described[current] = f"{described[current]} {line.strip()}".strip()
    return head.strip(), described


def _numbers(value: Any) -> Iterator[float | Decimal]:
    """The numbers that can be NaN, wherever they stand in ``value``."""
    if isinstance(value, float | Decimal):
        yield value
    elif isinstance(value, complex):
        yield from (value.real, value.imag)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(key)
            yield from _numbers(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _numbers(part)
    elif hasattr(value, "tolist"):  # an array or a scalar of numpy
        yield from _numbers(value.tolist())
