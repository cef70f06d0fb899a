"""English words made comparable: tokens, stems, stop words, synonyms.

Knows nothing of tools, schemas or requests. The list of synonyms is general English and lies beside this file; it is
read on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

__all__ = [
    "FAINT",
    "STOP",
    "Token",
    "Vocabulary",
    "identifier_words",
    "likeness",
    "lines_of",
    "stem",
    "stems",
    "tokenize",
    "vocabulary_of",
    "word_set",
]

MAX_WORD = 64
"""Longer words are kept as text but not stemmed: they are data, not language."""

_TOKEN = re.compile(
    r"[A-Za-z](?:#|\+\+)(?!\w)|[^\W\d_][^\W_]*(?:['’][^\W\d_]+)*(?:\.(?=[A-Za-z]\.)[A-Za-z])*"  # C#, K2, isn't, U.S
    r"|\d+(?:[.,]\d+)*"  # numbers
    r"|[^\w\s]|_",
    re.UNICODE,
)


def word_set(words: str) -> frozenset[str]:
    """The words of ``words``: a set that reads as a line of text."""
    return frozenset(words.split())


STOP = word_set(
    """
    a an the this that these those it its they them their he him his she her i me my mine we us our you your and or
    but nor so if then than as of in on at by for from to into onto with without within about over under between
    among through during before after above below up down out off per via is are was were be been being am do does
    did doing done have has had having can could will would shall should may might must not no what what's which who
    whom whose when where why how there here please kindly also just only very too more most such some any each
    every all both other another same own s t re ve ll d m don't doesn't isn't let lets i'm i'd i'll i've it's
    that's there's who's where's how's hi hello hey thanks thank ok okay while given using use used want need like
    would'd know tell
    """
)

FAINT = word_set(
    """
    calculate compute determine find get give show list search retrieve fetch provide return check help look see
    make do take obtain work know like want need figure evaluate function tool specific certain given based using
    information info data detail details value values number numbers result results output input parameter optional
    default type name various different general example user way thing something current
    """
)
"""Words that nearly every tool or request has: they count, but little."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or mark of the request and where it stands."""

    text: str
    lower: str
    stem: str
    start: int
    end: int
    is_word: bool
    """Letters, not a number or a mark."""
    is_content: bool
    """A word that carries meaning."""


def tokenize(text: str, limit: int = 2500) -> list[Token]:
    """The first ``limit`` tokens of ``text``."""
    tokens = []
    for match in _TOKEN.finditer(text):
        word = match.group()
        lower = word.lower() if len(word) <= MAX_WORD else word
        is_word = word[0].isalpha()
        is_content = is_word and lower not in STOP
        tokens.append(Token(word, lower, stem(lower), match.start(), match.end(), is_word, is_content))
        if len(tokens) >= limit:
            break
    return tokens


def identifier_words(name: str) -> list[str]:
    """``getUserName``, ``get_user_name``, ``user.get-name`` and ``side1`` as lower-case words."""
    spaced = re.sub(r"([a-z\d])([A-Z])", r"\1 \2", name[:400])
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1 \2", spaced)
    spaced = re.sub(r"([A-Za-z])(\d)", r"\1 \2", spaced)
    words = [word.lower() for word in re.findall(r"[^\W_]+", spaced)]
    return [part for word in words for part in _uncompounded(word)]


_COMPOUND = re.compile(
    r"(user|file|host|first|last|full|nick|pass|zip|phone|post|time|date|data|start|end)(name|path|code|number|word|stamp|base|zone|time|date|id)"
)


def _uncompounded(word: str) -> list[str]:
    match = _COMPOUND.fullmatch(word)
    return [match[1], match[2]] if match and word not in ("database", "password", "update") else [word]


def stems(text: str, limit: int = 400) -> tuple[str, ...]:
    """Stems of the content words among the first ``limit`` tokens of ``text``."""
    return _stems(text, limit) if len(text) <= 200 else _stems.__wrapped__(text, limit)


@lru_cache(maxsize=2048)
def _stems(text: str, limit: int) -> tuple[str, ...]:
    return tuple(token.stem for token in tokenize(text, limit) if token.is_content)


@lru_cache(maxsize=65536)
def likeness(first: str, second: str) -> float:
    """How alike two stems are in meaning: 1 the same, 0.8 synonyms or one an inflection of the other, else 0."""
    if first == second:
        return 1.0
    if len(first) >= 5 and len(second) >= 5:
        shorter, longer = sorted((first, second), key=len)
        if longer.startswith(shorter) and len(longer) - len(shorter) <= 4:
            return 0.8
        if _is_typo(shorter, longer):
            return 0.8
    groups = _synonyms()
    return 0.8 if not groups.get(first, _NONE).isdisjoint(groups.get(second, _NONE)) else 0.0


class Vocabulary:
    """Some stems, to be asked which others are alike: as :func:`likeness` with each of them, at the cost of one."""

    __slots__ = ("_beginnings", "_meanings", "_words")

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._meanings = frozenset(group for word in self._words for group in meanings(word))
        self._beginnings: dict[str, list[str]] = {}
        for word in self._words:
            if len(word) >= 5:
                self._beginnings.setdefault(word[:3], []).append(word)

    def likeness(self, word: str) -> float:
        """The most that ``word`` is like any of the words: 1, 0.8 or 0."""
        if word in self._words:
            return 1.0
        if not self._meanings.isdisjoint(meanings(word)):
            return 0.8
        if len(word) >= 5:  # inflections and misspellings begin alike
            return max((likeness(word, other) for other in self._beginnings.get(word[:3], ())), default=0.0)
        return 0.0


@lru_cache(maxsize=1024)
def vocabulary_of(words: frozenset[str]) -> Vocabulary:
    """The :class:`Vocabulary` of ``words``, kept for the next time."""
    return Vocabulary(words)


def _is_typo(shorter: str, longer: str) -> bool:
    """One letter too many or another in its place, in a long word."""
    if len(shorter) < 6 or len(longer) - len(shorter) > 1 or shorter[0] != longer[0]:
        return False
    same = 0
    while same < len(shorter) and shorter[same] == longer[same]:
        same += 1
    tail = len(shorter) - same if len(longer) > len(shorter) else len(shorter) - same - 1
    return same >= 3 and (tail <= 0 or shorter[-tail:] == longer[-tail:])


def meanings(word: str) -> frozenset[int]:
    """The groups of synonyms that a stem stands in: two stems with a group in common may stand for each other."""
    return _synonyms().get(word, _NONE)


_NONE: frozenset[int] = frozenset()


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for index, line in enumerate(lines_of(__package__, "synonyms.txt")):
        for word in line.split():
            found.setdefault(stem(word), set()).add(index)
    return {word: frozenset(groups) for word, groups in found.items()}


def lines_of(package: str, file: str) -> list[str]:
    """The lines of a word list that lies in ``package``, without comments and empty lines."""
    text = (resources.files(package) / file).read_text("utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


# Porter's algorithm (1980), with its later departures left out: short, exact and without exceptions lists.

_STEP2 = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("abli", "able"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"),
)  # fmt: skip
_STEP3 = (("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""))
_STEP4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "ion",
    "al", "er", "ic", "ou",
)  # fmt: skip
_REPLACED = tuple((step, tuple(ending for ending, _ in step)) for step in (_STEP2, _STEP3))


def _measure(word: str) -> int:
    """How many vowel-consonant pairs ``word`` has."""
    return _shape(word).count("VC")


def _shape(word: str) -> str:
    shape = ""
    for index, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and index > 0 and shape[index - 1] == "C")
        shape += "V" if vowel else "C"
    return shape


def _doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and word[-1] not in "aeiou"


def _short_end(word: str) -> bool:
    return _shape(word).endswith("CVC") and word[-1] not in "wxy"


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """The stem of a lower-case English word; other text comes back as it is."""
    if word.endswith(("'s", "’s")):
        word = word[:-2]
    if len(word) <= 2 or len(word) > MAX_WORD or not (word.isascii() and word.isalpha()):
        return word
    word = _inflection(word)
    for endings, any_of_them in _REPLACED:
        if not word.endswith(any_of_them):
            continue
        ending, new = next(each for each in endings if word.endswith(each[0]))
        if _measure(word[: -len(ending)]) > 0:
            word = word[: -len(ending)] + new
    if word.endswith(_STEP4):
        ending = next(each for each in _STEP4 if word.endswith(each))
        rest = word[: -len(ending)]
        if _measure(rest) > 1 and (ending != "ion" or rest[-1:] in ("s", "t")):
            word = rest
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _short_end(rest)):
            word = rest
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _inflection(word: str) -> str:
    if word.endswith("sses") or word.endswith("ies"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    if word.endswith("eed"):
        if _measure(word[:-3]) > 0:
            word = word[:-1]
    else:
        for ending in ("ed", "ing"):
            if word.endswith(ending) and "V" in _shape(word[: -len(ending)]):
                word = word[: -len(ending)]
                if word.endswith(("at", "bl", "iz")):
                    word += "e"
                elif _doubled(word) and word[-1] not in "lsz":
                    word = word[:-1]
                elif _measure(word) == 1 and _short_end(word):
                    word += "e"
                break
    if word.endswith("y") and "V" in _shape(word[:-1]):
        word = word[:-1] + "i"
    return word
