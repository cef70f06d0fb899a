"""What English asks for without its verb: ``12 plus 7`` is an addition, ``how much is 5 km in miles`` a conversion.

Knows nothing of tools: it says which verb a word stands for, as a stem, and the matching goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from ..words import FAINT, Token, stem, word_set
from .numerals import Numeral, unit_in
from .wording import currency_code

__all__ = ["worded"]

_OPERATORS = {
    "plus": "add", "+": "add", "minus": "subtract", "less": "subtract", "−": "subtract", "times": "multiply",
    "*": "multiply", "×": "multiply", "multiplied": "multiply", "divided": "divide", "÷": "divide",
}  # fmt: skip
_BETWEEN = re.compile(r"\s{1,3}([^\W\d]+|[+*×÷−])(?:\s{1,3}by)?\s{1,3}")
_INTO = word_set("in into to")
_QUANTITY = word_set("much many worth value price cost exactly")


def worded(text: str, words: list[Token], numerals: Sequence[Numeral]) -> tuple[list[Token], frozenset[int]]:
    """The tokens ``words`` of a request, each word that stands for a verb read as it, and where those words are."""
    verbs = {**_operators(text, numerals), **_conversion(words[:40], numerals)}
    if not verbs:
        return words, frozenset()
    converts = "convert" in verbs.values()
    tokens = []
    for token in words:
        verb = verbs.get(token.start)
        if verb:
            token = replace(token, lower=verb, stem=stem(verb), is_word=True, is_content=True)
        elif converts and token.lower in _QUANTITY:
            token = replace(token, is_content=False)
        tokens.append(token)
    return tokens, frozenset(verbs)


def _operators(text: str, numerals: Sequence[Numeral]) -> Mapping[int, str]:
    """Operator words between two numbers."""
    found = {}
    for first, second in pairwise(numerals):
        between = _BETWEEN.fullmatch(text[first.end : second.start])
        verb = _OPERATORS.get(between[1].lower()) if between else None
        if between and verb:
            found[first.end + between.start(1)] = verb
    return found


def _conversion(tokens: Sequence[Token], numerals: Sequence[Numeral]) -> Mapping[int, str]:
    """``5 km in miles``, where the request says nothing else to do."""
    measures = {t.start for t in tokens if t.is_word and (currency_code(t.lower) or unit_in(f"in {t.text}"))}
    rest = [t for t in tokens if t.is_content and t.start not in measures and t.lower not in _QUANTITY]
    inside = [t for t in rest if not any(n.start <= t.start < n.end for n in numerals)]
    if any(t.lower not in FAINT for t in inside):
        return {}
    for index, token in enumerate(tokens[:-1]):
        if token.lower not in _INTO or tokens[index + 1].start not in measures:
            continue
        before = tokens[index - 1] if index else token
        if any(n.end == before.end or n.end + 1 >= before.start > n.start for n in numerals):
            return {token.start: "convert"}
    return {}
