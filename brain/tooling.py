"""Tools: plain typed functions with a schema, checked arguments and a declared effect.

This module knows nothing of models, ladders or loops.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_origin, get_type_hints, overload

from specialists import DefinitionError, InvalidArguments, strict_json
from specialists.adapters import schema_of
from specialists.loops import run_in_thread
from specialists.signatures import Signature

from .errors import ConfigurationError
from .events import ToolSchema

__all__ = ["Effect", "RunContext", "Tool", "check_name", "is_async", "load_object", "tool"]

Deps = TypeVar("Deps")
P = ParamSpec("P")
R = TypeVar("R")

Effect = Literal["pure", "idempotent", "once"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class RunContext(Generic[Deps]):
    """What a tool may know of the run that calls it, as its first parameter.

    ``deps`` is what the application gave to ``run(deps=...)``; ``deadline`` is a point on :func:`time.monotonic`;
    ``group`` is the group of calls whose certificates hold in this run. ``idempotency_key`` is the same whenever this
    very call is made again, also after a crash: pass it to services that make nothing twice under one key.
    """

    deps: Deps
    run_id: str
    call_id: str
    tenant: str | None = None
    deadline: float | None = None
    group: str | None = None
    session: str | None = None
    idempotency_key: str = ""


class Tool(Generic[P, R]):
    """A typed function that a model may call. Made by :func:`tool` or :meth:`from_schema`; called, it is the function.

    ``effect``: ``pure`` (no effect at all), ``idempotent`` (twice is as once) or ``once`` (the default: never run
    twice). ``requires_approval``: a person is asked first. ``timeout``: seconds for one call.
    Raises :class:`ConfigurationError` for a function or a name that cannot be offered to a model.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        effect: Effect = "once",
        requires_approval: bool = False,
        timeout: float | None = None,
    ) -> None:
        try:
            signature = Signature(function, injected=_is_context)
        except DefinitionError as error:
            raise ConfigurationError(str(error)) from None
        self._setup(name or signature.name, description or signature.description, effect, requires_approval, timeout)
        parameters = list(inspect.signature(function).parameters.values())
        injected = signature.injected_names
        if injected and injected != tuple(each.name for each in parameters[:1]):
            raise ConfigurationError(f"{self.name}: only the first parameter may be a RunContext")
        self.function: Callable[..., Any] = function
        self.is_async = is_async(function)
        self._context = parameters[0] if injected else None
        self._as_one = False
        self._check = signature.check_json
        self._signature = signature

    def _setup(
        self, name: str, description: str, effect: Effect, requires_approval: bool, timeout: float | None
    ) -> None:
        self.name = check_name(name)
        self.description = description
        if effect not in ("pure", "idempotent", "once"):
            raise ConfigurationError(f"{name}: effect is 'pure', 'idempotent' or 'once', not {effect!r}")
        if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
            raise ConfigurationError(f"{name}: timeout is in seconds and positive, not {timeout!r}")
        self.effect: Effect = effect
        self.requires_approval = requires_approval
        self.timeout = timeout
        self.__name__ = name
        self.__doc__ = description

    @functools.cached_property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments; made when it is first asked for, as of a thousand tools few ever are."""
        return self._signature.schema

    @functools.cached_property
    def returns(self) -> Mapping[str, Any] | None:
        """JSON schema of the answer, ``None`` if unknown."""
        return _returns(self._signature.returns)

    @classmethod
    def from_schema(
        cls,
        name: str,
        description: str,
        json_schema: Mapping[str, Any],
        call: Callable[..., Any],
        *,
        effect: Effect = "once",
        requires_approval: bool = False,
        timeout: float | None = None,
    ) -> Tool[..., Any]:
        """A tool from a JSON schema of its arguments (an object), for functions whose types are not at hand.

        ``call``, sync or async, gets the checked arguments by name, or, when it takes a single parameter that is not
        one of the schema's, as one dictionary. A first parameter of type :class:`RunContext` is filled in. Defaults of
        the schema's own properties are filled in; what the schema does not name is refused, unless it says otherwise.
        Raises :class:`ConfigurationError` for an invalid schema, or for a ``call`` that cannot take what it describes.
        """
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for

        self = cls.__new__(cls)
        self._setup(name, description, effect, requires_approval, timeout)
        if not callable(call) or inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
            raise ConfigurationError(f"{name}: call is a function, sync or async, that returns its answer whole")
        closed = _closed(name, json_schema)
        validator_class = validator_for(closed, default=Draft202012Validator)
        try:
            validator_class.check_schema(closed)
        except SchemaError as error:
            raise ConfigurationError(
                f"{name}: its arguments are not described by a JSON schema: {error.message}"
            ) from None
        validator = validator_class(closed)
        defaults = {
            key: entry["default"]
            for key, entry in closed["properties"].items()
            if isinstance(entry, dict) and "default" in entry
        }

        def check(text: str) -> dict[str, Any]:
            arguments = load_object(text, name)
            problems = tuple(
                f"{'.'.join(str(part) for part in problem.absolute_path)}: {problem.message}".removeprefix(": ")
                for problem in validator.iter_errors(arguments)
            )
            if problems:
                raise InvalidArguments(f"{name}: {'; '.join(problems)}", problems=problems)
            return {**copy.deepcopy(defaults), **arguments}

        self._check = check
        self.parameters = closed
        self.returns = None
        self.function = call
        self.is_async = is_async(call)
        self._context, takes = _split_context(name, call)
        self._as_one = (
            len(takes) == 1
            and takes[0].kind in (takes[0].POSITIONAL_ONLY, takes[0].POSITIONAL_OR_KEYWORD)
            and takes[0].name not in closed["properties"]
        )
        if not self._as_one and not any(each.kind is each.VAR_KEYWORD for each in takes):
            named = {each.name for each in takes if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
            for key in closed["properties"]:
                if key not in named:
                    raise ConfigurationError(f"{name}: its schema has {key!r}, and call has no parameter of that name")
        return self

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, unchecked."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]

    @property
    def schema(self) -> ToolSchema:
        """The tool as a model sees it."""
        return ToolSchema(self.name, self.description, self.parameters, self.returns)

    def check(self, text: str) -> dict[str, Any]:
        """The arguments a model wrote as JSON, checked. Raises ``specialists.InvalidArguments``."""
        return self._check(text)

    async def run(self, arguments: Mapping[str, Any], context: RunContext[Any]) -> Any:
        """Run with checked arguments; a sync function in a thread. Whatever the function raises is raised."""
        args: tuple[Any, ...] = ()
        given = dict(arguments)
        if self._as_one:
            args, given = (given,), {}
        if self._context is not None:
            if self._context.kind is inspect.Parameter.KEYWORD_ONLY:
                given[self._context.name] = context
            else:
                args = (context, *args)
        call = functools.partial(self.function, *args, **given)
        result = call() if self.is_async else await run_in_thread(call)
        return await result if inspect.isawaitable(result) else result


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "once",
    requires_approval: bool = False,
    timeout: float | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(function: Callable[..., Any] | None = None, /, **declared: Any) -> Any:
    """Make a tool of a typed function, sync or async; with or without arguments.

    The types are the schema, the docstring is the description. A first parameter of type :class:`RunContext` is
    filled in by the run and absent from the schema.

    Args:
        name: The tool's name; by default the function's.
        description: For whoever plans; by default the docstring.
        effect: ``pure``, ``idempotent`` or ``once`` (default).
        requires_approval: A person must agree to each call.
        timeout: Seconds for one call.
    """
    if function is None:
        return lambda inner: Tool(inner, **declared)
    return Tool(function)


def check_name(name: str) -> str:
    """``name``, if a model can tell it from every other. Raises :class:`ConfigurationError`.

    Letters outside ASCII are refused: two names that look alike must not be two tools.
    """
    if not isinstance(name, str) or unicodedata.normalize("NFKC", name) != name or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be a tool's name: use up to 64 of the letters a-z, A-Z, digits, '_', '-' and '.', and"
            " begin with a letter"
        )
    return name


def load_object(text: str, who: str) -> dict[str, Any]:
    """JSON text as an object: no key twice, no NaN, no half of a surrogate pair.

    Raises ``specialists.InvalidArguments``.
    """

    try:
        value = strict_json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "half of a surrogate pair is not text"
        raise InvalidArguments(f"{who}: the arguments are not JSON: {problem}", problems=(problem,)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"{who}: the arguments are not JSON: {error}", problems=(str(error),)) from None
    if not isinstance(value, dict):
        raise InvalidArguments(f"{who}: the arguments are not a JSON object", problems=("not an object",))
    return value


def _closed(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``schema`` that refuses what it does not name, as typed functions do, unless it says otherwise."""
    try:
        own = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: its JSON schema cannot be written as JSON: {error}") from None
    if not isinstance(own, dict) or own.setdefault("type", "object") != "object":
        raise ConfigurationError(f"{name}: the JSON schema of a tool's arguments describes an object")
    if not isinstance(own.setdefault("properties", {}), dict):
        raise ConfigurationError(f"{name}: the properties of its JSON schema are not an object")
    # A word that brings in other schemas names properties that `additionalProperties` would not see.
    elsewhere = own.keys() & {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "dependentSchemas"}
    own.setdefault("unevaluatedProperties" if elsewhere else "additionalProperties", False)
    return own


def _split_context(name: str, call: Callable[..., Any]) -> tuple[inspect.Parameter | None, list[inspect.Parameter]]:
    """The first parameter of ``call``, if it is a :class:`RunContext`, and the others."""
    try:
        takes = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name}: the parameters of call cannot be read; wrap it in a function") from None
    if not takes:
        return None, takes
    hint = takes[0].annotation
    if isinstance(hint, str):  # written under `from __future__ import annotations`
        owner = call if inspect.isroutine(call) else type(call).__call__
        try:
            hint = get_type_hints(owner).get(takes[0].name)
        except Exception:  # names that only a type checker sees
            is_context = re.match(r"(\w+\.)*RunContext\b", hint) is not None
            return (takes[0], takes[1:]) if is_context else (None, takes)
    return (takes[0], takes[1:]) if _is_context(hint) else (None, takes)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function`` gives a coroutine, so that it needs no thread."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _is_context(hint: Any) -> bool:
    return hint is RunContext or get_origin(hint) is RunContext


def _returns(annotation: Any) -> dict[str, Any] | None:
    if annotation is Any or annotation is None:
        return None
    try:
        return schema_of(annotation)
    except Exception:  # a return type that pydantic cannot describe is merely unknown
        return None
