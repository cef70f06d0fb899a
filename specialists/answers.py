"""What a specialist's function is given and gives back, as types; and how they are read out of its annotations.

It knows nothing of ladders or verifiers.
"""

from __future__ import annotations

import inspect
import time
import types
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from .errors import DefinitionError, InvalidAnswer

__all__ = ["Answer", "Classification", "Effort", "answer_type_of", "is_effort", "probability", "source_of"]

T = TypeVar("T")

ROUNDING = 1e-6
"""How far a probability computed in 32 bits may lie outside of 0 .. 1."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a specialist's function returns: the value, how sure it is (0 .. 1) and how many steps it took.

    ``None`` is unknown.
    """

    value: T
    confidence: float | None = None
    steps: int | None = None


class Classification(BaseModel):
    """The answer of a classifier."""

    label: str


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to think. A parameter with this type is filled in by the ladder and absent from the schema.

    ``max_steps``: how many steps this rung may take; ``None``: as many as the function thinks fit. ``deadline``: a
    point on :func:`time.monotonic` after which the answer is thrown away; return the best one before.
    """

    max_steps: int | None = None
    deadline: float | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; ``None`` without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def answer_type_of(annotation: Any, who: str) -> Any:
    """The type of the value, out of ``Answer[T]``, ``Awaitable[T]`` or plain ``T``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Awaitable, Coroutine):  # a plain function that hands on a coroutine
        return answer_type_of(inner[-1], who)
    if annotation is Answer:
        return Any
    if origin is Answer:
        return inner[0]
    if origin is Annotated and (get_origin(inner[0]) or inner[0]) is Answer:
        return answer_type_of(inner[0], who)
    if origin in (Union, types.UnionType) and any((get_origin(each) or each) is Answer for each in inner):
        raise DefinitionError(
            f"{who}: it answers with an Answer or raises CannotAnswer; there is no third thing to return"
        )
    return annotation


def is_effort(annotation: Any) -> bool:
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return any(each is Effort for each in get_args(annotation))
    return annotation is Effort


def probability(confidence: float | None, who: str) -> float | None:
    if confidence is None:
        return None
    value = float(confidence)
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise InvalidAnswer(f"{who} gave {value} as its confidence, which is not a probability")
    return min(1.0, max(0.0, value))


def source_of(function: Callable[..., Any]) -> str:
    """What a function is: its source where it can be had, else where it comes from."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '')}:{name}"
