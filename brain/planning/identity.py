"""A key for what cannot be hashed: an object, equal to nothing but itself. Knows nothing of what it holds."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Itself"]

T = TypeVar("T")


class Itself(Generic[T]):
    """``thing`` as a key. It keeps ``thing`` alive, so that no other object can take its place."""

    __slots__ = ("thing",)

    def __init__(self, thing: T) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self.thing is other.thing
