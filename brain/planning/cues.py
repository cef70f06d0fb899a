"""What a place in the request is worth to a parameter: a candidate, and how strongly the words around it name it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..words import FAINT, STOP, Token, likeness, stem, word_set
from .parameters import Parameter
from .spans import Reading

__all__ = ["Candidate", "cue", "naming", "preposition_fit"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value and how well it fits. ``exclusive``: no other parameter may use the same stretch of the request.

    ``group``: parameters of one group do not share a stretch either, exclusive or not.
    """

    value: Any
    score: float
    start: int
    end: int
    exclusive: bool = True
    source: str = ""
    group: str = ""


_FAINT_STEMS = frozenset(stem(word) for word in FAINT)
_WALL = frozenset(".;?!")
_LEFT = 7
_RIGHT = 4
_RIGHT_WALL = word_set("and or in at for from to by with on over within during given if where")


@lru_cache(maxsize=65536)
def _best(word: str, names: tuple[str, ...]) -> tuple[float, int]:
    best, which = 0.0, -1
    for index, name in enumerate(names):
        alike = likeness(word, name)
        if alike > best:
            best, which = alike, index
    return best, which


def naming(tokens: Iterable[Token], parameter: Parameter, decay: float) -> float:
    """0 .. 1: how well ``tokens``, nearest first, name ``parameter``; each further content word counts less."""
    found: dict[int, float] = {}
    described = 0.0
    weight = 1.0
    for token in tokens:
        if not token.is_word:
            continue
        alike, which = _best(token.stem, parameter.words)
        if alike and (token.lower not in STOP or len(token.lower) == 1):
            found[which] = max(found.get(which, 0.0), alike * weight)
        elif token.is_content:
            alike, _ = _best(token.stem, parameter.described)
            described = max(described, alike * weight)
        if token.is_content:
            weight *= decay
    if not found:
        return 0.45 * described
    heavy = [0.5 if word in _FAINT_STEMS else 1.0 for word in parameter.words]
    share = sum(found.get(i, 0.0) * w for i, w in enumerate(heavy)) / max(sum(heavy), 1.0)
    strongest = max(value * heavy[i] for i, value in found.items())
    return max(0.55 * strongest + 0.45 * share, 0.45 * described)


def cue(reading: Reading, start: int, end: int, parameter: Parameter, taken: frozenset[int]) -> tuple[float, float]:
    """How well the words to the left and to the right of ``start .. end`` name ``parameter``.

    ``taken`` are the places where other values of the same sort begin: words beyond them belong to those.
    """
    left: list[Token] = []
    for token in reading.tokens_before(start, 14):
        if token.text in _WALL or token.start in taken or len(left) >= _LEFT:
            break
        left.append(token)
    right: list[Token] = []
    for token in reading.tokens_after(end, 8):
        if token.text in _WALL or token.text == "," or token.start in taken or token.lower in _RIGHT_WALL:
            break
        right.append(token)
        if len(right) >= _RIGHT:
            break
    return naming(left, parameter, 0.8), naming(right, parameter, 0.85)


_FROM = word_set("from between starting since start begin beginning")
_TO = word_set("to and until into till towards toward ending reaching")


def preposition_fit(preposition: str, position: int) -> float:
    """Whether ``from … to …`` agrees with a parameter that is the first or the second of two."""
    if position == 1:
        return (
            0.3
            if preposition in _FROM
            else -0.25
            if preposition in _TO - {"and"}
            else -0.1
            if preposition == "and"
            else 0.0
        )
    if position == 2:
        if preposition == "and":
            return 0.12
        return 0.3 if preposition in _TO else -0.3 if preposition in _FROM else 0.0
    return 0.0
