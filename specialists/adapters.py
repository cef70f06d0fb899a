"""Pydantic's validators, made when they are needed and shared by equal types: thousands of typed functions stay light.

A type is tried out when it is first seen, so that one which cannot be checked or described is refused where it is
declared; what is then needed to check values is made at the first value. Knows nothing of functions or specialists.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

__all__ = ["adapter_of", "arguments_adapter", "schema_of", "schema_of_arguments", "try_out"]

_PLAIN = (str, int, float, bool, type(None), Any, bytes)
"""Types that every check and every schema can be made of."""
_VALUES = frozenset({str, int, float, bool, bytes, type(None)})
_SAYS_NOTHING = frozenset({"description", "title", "examples", "default", "default_factory"})
"""What of a field cannot make its type one that cannot be checked or described."""
_UNSAID = tuple((name, getattr(FieldInfo(), name)) for name in FieldInfo.__slots__ if not name.startswith("_"))
"""What a field says of itself when nothing was said of it."""
_SHARED = 512
"""Validators kept for the next equal type."""
_TRIED = 4096


class _Itself:
    """An object, equal to nothing but itself."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.thing is other.thing


class _Keyed:
    """Something with a key: equal to what has an equal key."""

    __slots__ = ("key", "thing")

    def __init__(self, key: Hashable, thing: Any) -> None:
        self.key = key
        self.thing = thing

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """The validator of a type; the same one for equal types. Raises what pydantic raises."""
    return cast("TypeAdapter[Any]", _shared(_adapter, _key_of(annotation), annotation))


def arguments_adapter(fields: Mapping[str, Any]) -> TypeAdapter[dict[str, Any]]:
    """The validator of named arguments, each with its type, and of no others; the same one for equal arguments."""
    key = _keys_of(fields)
    return cast("TypeAdapter[dict[str, Any]]", _shared(_arguments, key, fields))


def schema_of_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of named arguments, made anew."""
    return arguments_adapter(fields).json_schema(schema_generator=_JsonSchema)


def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON schema of a type, the caller's own."""
    return cast("dict[str, Any]", copy.deepcopy(_shared(_schema, _key_of(annotation), annotation)))


def try_out(annotation: Any, *, argument: bool = False) -> None:
    """Raises what pydantic raises when a type (of an argument: as a field) cannot be checked or described."""
    if any(annotation is plain for plain in _PLAIN):  # what is no type need not be hashable
        return
    key = _key_of(annotation, leave_out=_SAYS_NOTHING)
    if key is None:
        _attempt(annotation, argument)
    else:
        _tried(_Keyed((argument, key), annotation), argument)


@lru_cache(maxsize=_TRIED)
def _tried(keyed: _Keyed, argument: bool) -> None:
    _attempt(keyed.thing, argument)
    keyed.thing = None  # the key is all that is needed from now on


def _attempt(annotation: Any, argument: bool) -> None:
    if argument:
        _arguments({"argument": annotation}).json_schema(schema_generator=_JsonSchema)
    else:
        _adapter(annotation).json_schema()


class _JsonSchema(GenerateJsonSchema):
    # A default that is not JSON is merely absent from the schema.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own spelling


def _shared(make: Callable[[Any], Any], key: Hashable | None, thing: Any) -> Any:
    return make(thing) if key is None else _made(make, _Keyed(key, thing))


@lru_cache(maxsize=_SHARED)
def _made(make: Callable[[Any], Any], keyed: _Keyed) -> Any:
    made = make(keyed.thing)
    keyed.thing = None
    return made


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _schema(annotation: Any) -> dict[str, Any]:
    return adapter_of(annotation).json_schema()


def _arguments(fields: Mapping[str, Any]) -> TypeAdapter[dict[str, Any]]:
    # A typed dictionary, not a model: a parameter may be called `schema`, `json` or `copy`.
    arguments = cast("Any", TypedDict)("arguments", dict(fields))
    arguments.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)
    return TypeAdapter(arguments)


def _key_of(annotation: Any, *, leave_out: frozenset[str] = frozenset()) -> Hashable | None:
    """Equal for types that mean the same in the same words; ``None`` for what cannot be compared."""
    try:
        key = _key(annotation, leave_out)
        hash(key)
    except (TypeError, RecursionError):
        return None
    return key


def _keys_of(fields: Mapping[str, Any]) -> Hashable | None:
    keys = [(name, _key_of(annotation)) for name, annotation in fields.items()]
    return None if any(key is None for _, key in keys) else tuple(keys)


def _key(annotation: Any, leave_out: frozenset[str]) -> Hashable:
    # By their parts, in order: a `str | int` equals an `int | str`, yet is not described in the same way.
    origin = get_origin(annotation)
    if origin is None:
        return cast("Hashable", annotation)
    if origin is Annotated:
        metadata = cast("tuple[Any, ...]", annotation.__metadata__)
        said = tuple(_said(each, leave_out) for each in metadata)
        return ("annotated", _key(annotation.__origin__, leave_out), said)
    if origin is Literal:
        return ("literal", tuple((type(value), value) for value in get_args(annotation)))
    return (origin, tuple(_key(part, leave_out) for part in get_args(annotation)))


def _said(thing: Any, leave_out: frozenset[str]) -> Hashable:
    """What is said about a type beside it: fields and constraints by what they say, all else by its own equality."""
    if isinstance(thing, FieldInfo):
        given = [(name, getattr(thing, name)) for name, usual in _UNSAID if getattr(thing, name) is not usual]
        return (FieldInfo, tuple((name, _said(value, leave_out)) for name, value in given if name not in leave_out))
    if isinstance(thing, list | tuple):
        return (type(thing), tuple(_said(each, leave_out) for each in thing))
    if isinstance(thing, dict):
        return (dict, tuple((key, _said(value, leave_out)) for key, value in thing.items()))
    if isinstance(thing, type) or get_origin(thing) is not None:
        return _key(thing, leave_out)
    if type(thing).__module__.partition(".")[0] in ("annotated_types", "pydantic"):
        parts = (
            {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
            if dataclasses.is_dataclass(thing)
            else getattr(thing, "__dict__", None)
        )
        if parts:
            return (type(thing).__qualname__, tuple((name, _said(value, leave_out)) for name, value in parts.items()))
    # An object of another's making may call equal what is not the same to whoever gets it as a default.
    return (type(thing), repr(thing)) if type(thing) in _VALUES else _Itself(thing)
