"""Wrong answers made from right ones, to see whether a verifier notices.

They are values as JSON, made by what the answer looks like; which of them are really wrong, and which fit the answer's
type, is for the caller to find out. This module knows nothing of specialists or verifiers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

__all__ = ["choices_in", "corruptions"]

MOST_PLACES = 120
"""Of a long text or list, so many places are tried, drawn with a fixed seed."""


def corruptions(value: Any, *, choices: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Values near ``value``, without repetition, never ``value`` itself. ``choices``: the members of an enumeration."""
    seen = {_key(value)}
    for candidate in _near(value, choices):
        key = _key(candidate)
        if key not in seen:
            seen.add(key)
            yield candidate


def choices_in(schema: Mapping[str, Any]) -> tuple[Any, ...]:
    """Every value that a JSON schema names in an ``enum`` or a ``const``, wherever it stands."""
    found: list[Any] = []

    def walk(part: Any) -> None:
        if isinstance(part, Mapping):
            found.extend(part["enum"] if isinstance(part.get("enum"), list) else [])
            found.extend([part["const"]] if "const" in part else [])
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(schema)
    return tuple(found)


def _near(value: Any, choices: tuple[Any, ...]) -> Iterator[Any]:
    yield None
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from _integers(value)
    elif isinstance(value, float):
        yield from (value + 1, value - 1, -value, 0.0, value * 1.01, value * 0.99, value * 2, value * 10, value / 10)
    elif isinstance(value, str):
        yield from (choice for choice in choices if isinstance(choice, str))
        yield from _strings(value)
    elif isinstance(value, list):
        yield from _lists(value, choices)
    elif isinstance(value, dict):
        yield from _objects(value, choices)


def _integers(value: int) -> Iterator[int]:
    yield from (value + 1, value - 1, -value, 0, 1, value * 2, value + 10, value - 10, value * 10, value // 10)
    digits = str(abs(value))
    for place, digit in enumerate(digits):
        changed = digits[:place] + str((int(digit) + 1) % 10) + digits[place + 1 :]
        yield int(changed) if value >= 0 else -int(changed)
    for place in range(len(digits) - 1):
        swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
        yield int(swapped) if value >= 0 else -int(swapped)


def _strings(value: str) -> Iterator[str]:
    yield ""
    if not value:
        yield from ("0", "x")
        return
    yield from (value[:-1], value[1:], value[: len(value) // 2], value + value[-1], value + value, value[::-1])
    yield value[1:] + value[0]
    # One symbol for another throughout: this keeps every pattern, and breaks only what ties the answer to its question.
    symbols = sorted(set(value))
    for one, other in list(combinations(symbols, 2))[:MOST_PLACES]:
        yield value.translate(str.maketrans(one + other, other + one))
    if " " in value:
        words = value.split()
        yield " ".join(reversed(words))
        yield from (" ".join(words[:place] + words[place + 1 :]) for place in _places(len(words)))
    yield from _chains(value)
    for place in _places(len(value)):
        for symbol in _others(value[place]):
            yield value[:place] + symbol + value[place + 1 :]
    for place in _places(len(value) - 1):
        yield value[:place] + value[place + 1] + value[place] + value[place + 2 :]
    chosen = random.Random(len(value))
    for _ in range(MOST_PLACES if len(value) > 1 else 0):
        left, right = sorted(chosen.sample(range(len(value)), 2))
        yield value[:left] + value[right] + value[left + 1 : right] + value[left] + value[right + 1 :]


def _chains(value: str) -> Iterator[str]:
    """A text of n times n symbols as a square: two symbols change places along one chain of shared rows and columns.

    Each row and column keeps its symbols, so a check of no more than these passes it.
    """
    width = math.isqrt(len(value))
    if width < 4 or width * width != len(value):
        return
    for one, other in list(combinations(sorted(set(value)), 2))[:MOST_PLACES]:
        left = {place for place, symbol in enumerate(value) if symbol in (one, other)}
        while left:
            chain: set[int] = set()
            edge = {min(left)}
            while edge:
                chain |= edge
                edge = {b for a in edge for b in left - chain if a // width == b // width or a % width == b % width}
            left -= chain
            swapped = {one: other, other: one}
            yield "".join(swapped[symbol] if place in chain else symbol for place, symbol in enumerate(value))


def _others(symbol: str) -> tuple[str, ...]:
    if symbol.isdecimal() and symbol.isascii():
        return (str((int(symbol) + 1) % 10), str((int(symbol) - 1) % 10))
    if symbol.isascii() and symbol.isalpha():
        first = "a" if symbol.islower() else "A"
        return (chr(ord(first) + (ord(symbol) - ord(first) + 1) % 26),)
    return ("x",)


def _lists(value: list[Any], choices: tuple[Any, ...]) -> Iterator[Any]:
    yield from ([], value[:-1], value[1:], value[::-1], value + value[-1:], value + value, value[1:] + value[:1])
    for place in _places(len(value) - 1):
        yield [*value[:place], value[place + 1], value[place], *value[place + 2 :]]
    for place in _places(len(value)):
        yield value[:place] + value[place + 1 :]
        for index, inner in enumerate(corruptions(value[place], choices=choices)):
            if index == 12:
                break
            yield [*value[:place], inner, *value[place + 1 :]]


def _objects(value: dict[str, Any], choices: tuple[Any, ...]) -> Iterator[Any]:
    yield {}
    for name in value:
        yield {key: inner for key, inner in value.items() if key != name}
        yield from ({**value, name: inner} for inner in corruptions(value[name], choices=choices))
    for one, other in combinations(value, 2):
        yield {**value, one: value[other], other: value[one]}


def _places(count: int) -> list[int]:
    if count <= MOST_PLACES:
        return list(range(max(0, count)))
    return sorted(random.Random(count).sample(range(count), MOST_PLACES))


def _key(value: Any) -> str:
    return f"{type(value).__name__}:{value!r}"
