"""The few of many tools that a text speaks of: ranked by the words of names and descriptions, without any model.

An inverted index with the weights of BM25: a word counts the more the fewer entries have it, and more in a name than in
a description. Pure Python and deterministic. Knows nothing of schemas, messages or plans.
"""

from __future__ import annotations

import heapq
import math
import re
import threading
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .words import STOP, likeness, meanings, stem

__all__ = ["Index"]

_NAME_WEIGHT = 3.0
"""How many times a word of a name counts."""
_SATURATION = 1.2
_LENGTH = 0.4
"""The two parameters of BM25: how soon a repeated word counts no more, and how much long descriptions are held back."""
_ALIKE = 0.6
"""What a synonym, an inflection or a misspelling counts for."""
_POSTINGS = 5_000
"""Entries one query looks at, counted with repetitions, before common words only reorder what rare words found."""
_MOST_WORDS = 64
"""Words of a text that are looked up, the rarest ones."""
_KEPT = 128
"""How many entries common words reorder, at least."""
_ENDS = 4_000
"""Characters from the beginning and from the end of a longer text that are read."""
_MOST_DESCRIPTION = 2_000
_PREFIX = 3
"""Letters that a word and its misspelling or inflection have in common at the beginning."""

_WORD = re.compile(r"[^\W_]+")
_INNER = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\U0003ffff]")
"""Scripts that put no space between words: pairs of characters stand in for words there."""


@dataclass(frozen=True, slots=True)
class _Postings:
    """Where each word stands (positions, rising) and what it counts for there, before the word's rarity."""

    positions: dict[str, array[int]]
    weights: dict[str, array[float]]
    by_meaning: dict[int, list[str]]
    by_prefix: dict[str, list[str]]


class Index:
    """Entries, each a name and a description, that :meth:`best` finds by their words.

    The postings are made at the first question, once, and take about 300 bytes an entry beside the texts themselves.
    Immutable; may be asked from any number of threads.
    """

    def __init__(self, entries: Sequence[tuple[str, str]]) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._postings: _Postings | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def best(self, text: str, limit: int) -> list[int]:
        """Positions of the entries that ``text`` speaks of, the best first, at most ``limit``.

        Entries that rank alike come in their own order. There are fewer than ``limit`` where fewer have any of the
        telling words. Where the text shares no word with any entry (it is in another
        language, or says only "yes"), these are the first ``limit`` entries, so that there is something to choose from.
        """
        if limit <= 0 or not self._entries:
            return []
        scores = self._scores(text, limit)
        if not scores:
            return list(range(min(limit, len(self._entries))))
        return _highest(scores, limit)

    def _scores(self, text: str, limit: int) -> dict[int, float]:
        postings = self._made()
        if len(text) > 2 * _ENDS:
            text = f"{text[:_ENDS]} {text[-_ENDS:]}"
        wanted = []
        for word in dict.fromkeys(_stems((*_plain(text), *_inner(text)))):
            variants = self._variants(word, postings)
            if variants:
                wanted.append((sum(len(postings.positions[variant]) for variant in variants), variants))
        wanted.sort(key=lambda pair: pair[0])
        scores: dict[int, float] = {}
        looked_at = 0
        for length, variants in wanted[:_MOST_WORDS]:
            looked_at += length
            if scores and looked_at > _POSTINGS:
                if len(scores) > max(_KEPT, 4 * limit):
                    scores = {position: scores[position] for position in _highest(scores, max(_KEPT, 4 * limit))}
                self._reorder(scores, variants, postings)
            else:
                self._add(scores, variants, postings)
        return scores

    def _add(self, scores: dict[int, float], variants: dict[str, float], postings: _Postings) -> None:
        """Count a word for every entry that has it, or something like it; once, however many of these it has."""
        if len(variants) == 1:
            [(variant, factor)] = variants.items()
            for position, weight in zip(postings.positions[variant], postings.weights[variant], strict=True):
                scores[position] = scores.get(position, 0.0) + factor * weight
            return
        most: dict[int, float] = {}
        for variant, factor in variants.items():
            for position, weight in zip(postings.positions[variant], postings.weights[variant], strict=True):
                counted = factor * weight
                if counted > most.get(position, 0.0):
                    most[position] = counted
        for position, counted in most.items():
            scores[position] = scores.get(position, 0.0) + counted

    def _reorder(self, scores: dict[int, float], variants: dict[str, float], postings: _Postings) -> None:
        """As :meth:`_add`, but only for entries that have a score already."""
        found = [(postings.positions[name], postings.weights[name], factor) for name, factor in variants.items()]
        for position in scores:
            most = 0.0
            for positions, weights, factor in found:
                place = bisect_left(positions, position)
                if place < len(positions) and positions[place] == position:
                    most = max(most, factor * weights[place])
            scores[position] += most

    def _variants(self, word: str, postings: _Postings) -> dict[str, float]:
        """The indexed words that ``word`` may mean, each with what it counts for: never more than the word."""
        total = len(self._entries)
        found: dict[str, float] = {}
        own = math.inf
        if word in postings.positions:
            found[word] = own = _rarity(total, len(postings.positions[word]))
        others = [other for group in meanings(word) for other in postings.by_meaning.get(group, ())]
        if len(word) > _PREFIX:
            others += [o for o in postings.by_prefix.get(word[:_PREFIX], ()) if likeness(word, o) > 0.0]
        for other in others:
            if other not in found:
                found[other] = _ALIKE * min(own, _rarity(total, len(postings.positions[other])))
        return found

    def _made(self) -> _Postings:
        with self._lock:
            if self._postings is None:
                self._postings = _post(self._entries)
            return self._postings


def _post(entries: Sequence[tuple[str, str]]) -> _Postings:
    counted: list[dict[str, float]] = []
    for name, description in entries:
        counts: dict[str, float] = {}
        for word in _stems(_plain(description[:_MOST_DESCRIPTION])):
            counts[word] = counts.get(word, 0.0) + 1.0
        for word in dict.fromkeys(_stems((*_plain(name), *_inner(name)))):
            counts[word] = counts.get(word, 0.0) + _NAME_WEIGHT
        counted.append(counts)
    average = sum(sum(counts.values()) for counts in counted) / len(counted) or 1.0
    positions: dict[str, array[int]] = {}
    weights: dict[str, array[float]] = {}
    for position, counts in enumerate(counted):
        held_back = _SATURATION * (1.0 - _LENGTH + _LENGTH * sum(counts.values()) / average)
        for word, count in counts.items():
            if word not in positions:
                positions[word], weights[word] = array("L"), array("f")
            positions[word].append(position)
            weights[word].append(count * (_SATURATION + 1.0) / (count + held_back))
    by_meaning: dict[int, list[str]] = {}
    by_prefix: dict[str, list[str]] = {}
    for word in positions:
        for group in meanings(word):
            by_meaning.setdefault(group, []).append(word)
        if len(word) > _PREFIX and word.isalpha():
            by_prefix.setdefault(word[:_PREFIX], []).append(word)
    return _Postings(positions, weights, by_meaning, by_prefix)


def _highest(scores: dict[int, float], limit: int) -> list[int]:
    """The positions with the highest scores, the best first, of equal ones the first."""
    if len(scores) <= limit:
        chosen = list(scores)
    else:  # a key function for each of thousands would cost more than all the rest
        least = heapq.nlargest(limit, scores.values())[-1]
        chosen = [position for position, score in scores.items() if score > least]
        alike = [position for position, score in scores.items() if score == least]
        chosen += heapq.nsmallest(limit - len(chosen), alike)
    return sorted(chosen, key=lambda position: (-scores[position], position))


def _rarity(total: int, having: int) -> float:
    return math.log(1.0 + (total - having + 0.5) / (having + 0.5))


def _plain(text: str) -> Iterator[str]:
    """The words as they are written, in lower case."""
    if text.isascii():
        yield from _WORD.findall(text.lower())
        return
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if word.isascii() or not _UNSPACED.search(word) or len(word) == 1:
            yield word
        else:
            yield from (word[place : place + 2] for place in range(len(word) - 1))


def _inner(text: str) -> Iterator[str]:
    """The words inside ``getUserName``, ``K2`` and ``HTTPServer``."""
    for word in _WORD.findall(text):
        if not (word.isalpha() and word.islower()):
            parts = _INNER.split(word)
            if len(parts) > 1:
                yield from (part.lower() for part in parts)


def _stems(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word not in STOP:
            yield stem(word)
