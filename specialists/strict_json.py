"""JSON as the standard has it: no key twice in one object, no NaN or infinity, no number too large to be one.

Everything that other people wrote is read through here: arguments, rows, answers of endpoints.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["loads"]


def loads(text: str) -> Any:
    """``text`` as a value. Raises ``ValueError``, and ``RecursionError`` where it is nested too deeply."""
    return _decoder.decode(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {_short(twice)!r} stands twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_short(text)} is too large")
    return number


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
