"""Whether two answers are the same, as JSON. It knows nothing of labels or of what is right."""

from __future__ import annotations

from typing import Any

from .ladder import jsonable

__all__ = ["same_answer"]


def same_answer(expected: Any, value: Any) -> bool:
    """Whether two answers are the same as JSON. ``1`` equals ``1.0``; a plain value equals an object's only field."""
    one, other = jsonable(expected), jsonable(value)
    if _equal(one, other):
        return True
    only = next(iter(other.values())) if isinstance(other, dict) and len(other) == 1 else None
    return isinstance(one, str) and isinstance(only, str) and one == only


def _equal(one: Any, other: Any) -> bool:
    # Python holds True to be 1; JSON does not.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
