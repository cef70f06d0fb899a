"""Which tool fits a request, from the words of both. Knows nothing of arguments beyond which words they used up.

A :class:`Profile` is a tool's vocabulary, weighted: the words of its name count most, those of its description less,
those of its parameters least. :func:`fit` compares it with the words of a request from both sides: how much of what is
asked the tool speaks of, and how much of what the tool is called the request asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..events import ToolSchema
from ..words import FAINT, STOP, Token, Vocabulary, identifier_words, stem, tokenize, vocabulary_of, word_set
from .identity import Itself
from .parameters import Parameter, parameters_of
from .spans import Reading

__all__ = ["Fit", "Profile", "fit", "profile_of", "rarity"]

_FAINT_STEMS = frozenset(stem(word) for word in FAINT)
_FAINT_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Profile:
    """A tool's words (stems): of its name, its description's first sentence, the rest of it, and its parameters."""

    tool: ToolSchema
    parameters: tuple[Parameter, ...]
    name: tuple[str, ...]
    purpose: tuple[str, ...]
    other: frozenset[str]
    vocabularies: tuple[Vocabulary, Vocabulary, Vocabulary]
    """The same words, to be compared with."""

    @property
    def own(self) -> frozenset[str]:
        """The words that say what the tool is."""
        return frozenset((*self.name, *self.purpose))


@dataclass(frozen=True, slots=True)
class Fit:
    """How a request and a tool match; every figure is 0 .. 1.

    ``asked``: share of the request's words, arguments aside, that the tool speaks of; ``named``: share of the tool's
    name that the request says; ``purpose``: share of its first sentence; ``head``: whether the thing asked for is
    what the tool is about.
    """

    asked: float
    named: float
    purpose: float
    head: float


@lru_cache(maxsize=1024)
def _profile(name: str, description: str) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    name_stems = tuple(dict.fromkeys(stem(w) for w in identifier_words(name) if w not in STOP and not w.isdigit()))
    first, _, rest = description[:4000].partition(". ")
    purpose = tuple(dict.fromkeys(t.stem for t in tokenize(first, 60) if t.is_content))
    return name_stems, purpose, frozenset(t.stem for t in tokenize(rest, 200) if t.is_content)


def profile_of(tool: ToolSchema) -> Profile:
    """The words of ``tool``; kept for the next plan, so a schema is not to be changed once it was planned with."""
    return _profile_of(Itself(tool))


@lru_cache(maxsize=512)
def _profile_of(known: Itself[ToolSchema]) -> Profile:
    tool = known.thing
    name, purpose, rest = _profile(tool.name, tool.description or "")
    parameters = parameters_of(tool.parameters)
    other = set(rest)
    for parameter in parameters:
        other.update(parameter.words)
        other.update(parameter.described)
        for option in parameter.options:
            other.update(option.stems)
    vocabularies = (Vocabulary(name), Vocabulary(purpose), Vocabulary(other))
    return Profile(tool, parameters, name, purpose, frozenset(other), vocabularies)


def rarity(profiles: Sequence[Profile]) -> Mapping[str, float]:
    """How telling a word is among these tools: 1 where one tool has it, less the more have it."""
    counts: dict[str, int] = {}
    for profile in profiles:
        for word in profile.own:
            counts[word] = counts.get(word, 0) + 1
    total = len(profiles)
    return {word: 1.0 if total < 2 else 1.0 - 0.75 * (count - 1) / (total - 1) for word, count in counts.items()}


def _nearness(word: str, profile: Profile, in_purpose: float, in_other: float) -> float:
    """How near a tool comes to a word: fully by its name, by ``in_purpose`` and ``in_other`` in its other words.

    The weights are such that the first place where the word stands decides; so it is not looked for any further.
    """
    by_name, by_purpose, by_other = profile.vocabularies
    named = by_name.likeness(word)
    if named == 1.0:
        return named
    purposed = in_purpose * by_purpose.likeness(word)
    if purposed == in_purpose or not named:
        return purposed or in_other * by_other.likeness(word)
    return named


def fit(
    reading: Reading, profile: Profile, used: Sequence[tuple[int, int]], rare: Mapping[str, float] | None = None
) -> Fit:
    """How well ``profile`` fits ``reading``, whose stretches ``used`` have become arguments."""
    rare = rare or {}
    tokens, verbs = reading.worded
    tokens = tokens[:400]
    content = [t for t in tokens if t.is_content]
    quoted = [(q.start, q.end) for q in reading.quotes if " " in q.value]  # what is quoted is data, not the request
    free = [t for t in content if not any(start <= t.start < end for start, end in (*used, *quoted))]
    heads = verbs or set(heads_of(tokens))
    asked = total = 0.0
    for token in free:
        weight = _weight(token) * rare.get(token.stem, 1.0)
        total += weight
        asked += weight * _nearness(token.stem, profile, 0.95, 0.75)
    words = vocabulary_of(
        frozenset(t.stem for t in content if not any(start <= t.start < end for start, end in quoted))
    )
    head_tokens = [t for t in tokens if t.start in heads]
    head = max(
        (_nearness(t.stem, profile, 0.9, 0.4) for t in head_tokens),
        default=0.5,
    )
    return Fit(
        asked=asked / total if total else 0.5,
        named=_share(profile.name, words, rare),
        purpose=_share(profile.purpose, words, rare),
        head=head,
    )


def _share(own: Sequence[str], words: Vocabulary, rare: Mapping[str, float]) -> float:
    total = found = 0.0
    for word in own:
        weight = (_FAINT_WEIGHT if word in _FAINT_STEMS else 1.0) * rare.get(word, 1.0)
        total += weight
        found += weight * words.likeness(word)
    return found / total if total else 0.0


def _weight(token: Token) -> float:
    return _FAINT_WEIGHT if token.stem in _FAINT_STEMS else 1.0


_HEAD_STOP = re.compile(r"[.;:?!,(]")
_LINK = word_set(
    "of in for with from to at on by that which given between and or if using when where within over is are was"
)


def heads_of(tokens: Sequence[Token]) -> list[int]:
    """Where the words stand that name what is asked for: the last word of the first noun phrase.

    ``Calculate the area of a triangle`` asks for an area; ``What is the price of …`` for a price.
    """
    index = 0
    while index < len(tokens) and (not tokens[index].is_content or tokens[index].stem in _FAINT_STEMS):
        index += 1
    run: list[Token] = []
    while index < len(tokens):
        token = tokens[index]
        if _HEAD_STOP.match(token.text) or (token.lower in _LINK and run):
            break
        if token.is_content and token.is_word:
            run.append(token)
        index += 1
        if len(run) > 6:
            break
    telling = [t for t in run if t.stem not in _FAINT_STEMS]  # "add the result" is about adding
    return [t.start for t in (telling or run)[-1:]]
