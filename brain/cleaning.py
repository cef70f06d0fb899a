"""A prompt made tidy without touching what must stay.

Deterministic, in linear time, and without any model: the Unicode normal form, invisible characters, blanks, repeated
boilerplate and, only where the user gives a word list, spelling. Code, quotations, literals, typed arguments and what a
tool's schema describes keep every byte (:mod:`brain.tidying.protecting`).

Cleaning what was cleaned changes nothing. That is not hoped for but looked at: a cleaned text is cleaned again before
it is given back, and where it would change for ever, or a protected stretch would, the text stays as it was given.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .errors import ConfigurationError, PromptError
from .events import ToolSchema
from .tidying.blanks import tidy_blanks
from .tidying.characters import INVISIBLE, Form, normalised, visible
from .tidying.protecting import Kind, Stretch, protected
from .tidying.repetitions import without_repetitions
from .tidying.shielding import Shield
from .tidying.spelling import WORD, WordList, bare, corrected

__all__ = ["Cleaned", "Cleaner", "CleaningReport", "Protected"]

_ROUNDS = 4
_MOST_UNKNOWN = 20_000
"""Different words that are not in the word list; a text with more is in another language, and keeps them."""


class Protected(NamedTuple):
    """A stretch that kept its bytes: why, and where it begins and ends in the text that was given.

    ``kind``: ``code``, ``quote``, ``literal`` (numbers, dates, addresses, paths, JSON), ``argument`` (``key=value``),
    ``table``, ``pattern`` and ``option`` (of a tool's schema) or ``protect`` (the user's). Stretches that overlap are
    one, under the kind of the longest.
    """

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning one text did. It quotes nothing of the text but corrected words.

    ``changes``: how many of each kind: ``invisible`` characters dropped, words ``normalised``, runs of ``blanks``
    tidied, ``lines`` and ``paragraphs`` of boilerplate dropped, words of ``spelling`` corrected. ``corrections``: the
    words before and after, with how often. Tokens are estimates, one for every four bytes of UTF-8, rounded up; no
    tokenizer says exactly that. ``unread``: patterns of tools that could not be tried, and protected nothing.
    ``given_up``: cleaning would not have come to rest or would have changed a protected stretch, so nothing was
    changed.
    """

    changes: Mapping[str, int]
    tokens_before: int
    tokens_after: int
    corrections: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    given_up: bool = False
    _stretches: Sequence[Stretch] = field(default=(), repr=False)

    @property
    def protected(self) -> tuple[Protected, ...]:
        """What kept its bytes, in order."""
        return tuple(Protected(kind, start, end) for start, end, kind in self._stretches)

    @property
    def tokens_saved(self) -> int:
        """An estimate; below zero in the rare case that a normal form is longer."""
        return self.tokens_before - self.tokens_after

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary. Of the protected stretches it has kinds and places, not the text."""
        return {
            "changes": dict(self.changes),
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "tokens_saved": self.tokens_saved,
            "tokens_rule": "estimate: one for every four bytes of UTF-8, rounded up",
            "protected": [each._asdict() for each in self.protected],
            "corrections": [
                {"before": before, "after": after, "count": count}
                for (before, after), count in self.corrections.items()
            ],
            "unread": list(self.unread),
            "given_up": self.given_up,
        }

    def __str__(self) -> str:
        lines = [f"about {self.tokens_saved} of {self.tokens_before} tokens saved (four bytes of UTF-8 each)"]
        if self.given_up:
            lines.append("  unchanged: what must stay could not be told from the rest")
        elif not self.changes:
            lines.append("  unchanged: the text was clean")
        lines += [f"  {_CHANGES[kind]}: {count}" for kind, count in self.changes.items()]
        lines += [f"    {before} -> {after} ({count})" for (before, after), count in self.corrections.items()]
        kinds = Counter(kind for _, _, kind in self._stretches)
        if kinds:
            lines.append("  kept byte for byte: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        lines += [f"  a tool's pattern could not be tried: {source}" for source in self.unread]
        return "\n".join(lines)


_CHANGES = {
    "invisible": "invisible characters dropped",
    "normalised": "words brought to the normal form",
    "blanks": "runs of blanks tidied",
    "paragraphs": "repeated paragraphs dropped",
    "lines": "repeated lines dropped",
    "spelling": "words corrected",
}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A cleaned text and what was done."""

    text: str = field(repr=False)
    report: CleaningReport

    def __str__(self) -> str:
        return self.text


class Cleaner:
    """Cleans prompts. Immutable; may be used by any number of threads.

    ``boilerplate``: a line or paragraph that is repeated word for word is kept once, at its first place. That is one
    that reads as text (a sentence, or six words; a paragraph of several lines, five) and has nothing protected in it,
    so that data is never thinned. ``spelling``: words, or the path of a file with a word to a line; ``None``: no word
    is changed. ``protect``: more patterns whose matches keep every byte; they are the application's own and are run as
    they are. ``form``: the Unicode normal form; ``"NFKC"`` also replaces characters by what they are compatible with
    (``ﬁ`` by ``fi``, ``²`` by ``2``), which can change what is meant.

    Raises :class:`~brain.errors.ConfigurationError` for a pattern or a word list that cannot be.
    """

    def __init__(
        self,
        *,
        boilerplate: bool = True,
        spelling: Iterable[str] | str | os.PathLike[str] | None = None,
        protect: Iterable[str | re.Pattern[str]] = (),
        form: Form = "NFC",
    ) -> None:
        if form not in ("NFC", "NFKC"):
            raise ConfigurationError(f"form is 'NFC' or 'NFKC', not {form!r}")
        self._boilerplate = boilerplate
        self._form: Form = form
        self._patterns = tuple(
            map(_pattern, (protect,) if isinstance(protect, (str, re.Pattern)) else protect)  # one alone is meant so
        )
        self._words = None if spelling is None else WordList(spelling)

    def __repr__(self) -> str:
        spelling = None if self._words is None else f"<{len(self._words)} words>"
        patterns = [pattern.pattern for pattern in self._patterns]
        return f"Cleaner(boilerplate={self._boilerplate}, spelling={spelling}, protect={patterns}, form={self._form!r})"

    def clean(self, text: str, *, tools: Iterable[ToolSchema] = ()) -> Cleaned:
        """``text`` cleaned; what the parameters of ``tools`` describe by patterns and options is protected.

        Raises :class:`~brain.errors.PromptError` for what is not text.
        """
        if not isinstance(text, str):
            raise PromptError(f"a prompt is text, not {type(text).__name__}")
        shield = Shield(tools)
        first = last = self._once(text, shield)
        changes, corrections = Counter(first.changes), Counter(first.corrections)
        for _ in range(_ROUNDS):
            if last.text == text or last.given == last.text:
                break
            again = self._once(last.text, shield)
            if not _holds(again.kept, first.kept):
                break
            if again.text == last.text:
                return self._cleaned(text, last.text, first, changes, corrections, shield, given_up=False)
            changes, corrections, last = changes + again.changes, corrections + again.corrections, again
        return self._cleaned(text, text, first, Counter(), Counter(), shield, given_up=first.text != text)

    def _cleaned(
        self,
        text: str,
        cleaned: str,
        first: _Pass,
        changes: Counter[str],
        corrections: Counter[tuple[str, str]],
        shield: Shield,
        *,
        given_up: bool,
    ) -> Cleaned:
        counts = {kind: changes[kind] for kind in _CHANGES if changes[kind]}
        report = CleaningReport(
            counts,
            _tokens(text),
            _tokens(cleaned),
            dict(corrections),
            shield.unread,
            given_up,
            first.stretches,
        )
        return Cleaned(cleaned, report)

    def _once(self, text: str, shield: Shield) -> _Pass:
        """One pass over ``text``: pieces between what is protected are tidied, then repetitions are dropped."""
        stretches = protected(text, shield, self._patterns, compatible=self._form == "NFKC")
        changes: Counter[str] = Counter()
        corrections: Counter[tuple[str, str]] = Counter()
        words = self._misspelt(text, stretches) if self._words is not None else {}
        parts: list[str] = []
        places: list[tuple[int, int]] = []
        size = place = 0
        for start, end, _ in [*stretches, (len(text), len(text), "protect")]:
            piece = text[place:start]
            if piece and piece != " ":
                piece = self._tidy(text, place, start, changes)
                if words:
                    piece = corrected(piece, words, _before(parts), start == len(text), corrections)
            elif piece and (place == 0 or start == len(text)):
                piece = self._tidy(text, place, start, changes)
            parts += [piece, text[start:end]]
            size += len(piece)
            if end > start:
                places.append((size, size + end - start))
            size += end - start
            place = end
        if corrections:
            changes["spelling"] += corrections.total()
        cleaned = "".join(parts)
        if self._boilerplate:
            cleaned = without_repetitions(cleaned, places, changes)
        return _Pass(text, cleaned, stretches, changes, corrections)

    def _tidy(self, text: str, start: int, end: int, changes: Counter[str]) -> str:
        """The unprotected ``text[start:end]`` without what shows nothing, in the normal form, with tidy blanks."""
        piece = text[start:end]
        if not piece.isascii():
            piece = self._normal(visible(text, start, end, changes), changes)
        return tidy_blanks(piece, text, start, end, changes)

    def _normal(self, piece: str, changes: Counter[str]) -> str:
        normal = normalised(piece, self._form)
        if normal != piece:
            pairs = zip(WORD.findall(piece), WORD.findall(normal), strict=False)
            changes["normalised"] += max(1, sum(before != after for before, after in pairs))
        return normal

    def _misspelt(self, text: str, stretches: Sequence[Stretch]) -> dict[str, str]:
        """The words outside ``stretches`` that the list knows better, each with what it is to be."""
        assert self._words is not None
        unknown: dict[str, None] = {}
        place = 0
        for start, end, _ in [*stretches, (len(text), len(text), "protect")]:
            piece = text[place:start]
            if not piece.isascii():
                piece = normalised(INVISIBLE.sub("", piece), self._form)
            for token in WORD.findall(piece):
                word = bare(token)
                if word.isalpha() and word not in self._words:
                    unknown.setdefault(word)
            place = end
        if len(unknown) > _MOST_UNKNOWN:
            return {}
        found = ((word, self._words.like(word)) for word in unknown)
        return {word: right for word, right in found if right is not None}


class _Pass(NamedTuple):
    """What one pass made of ``given``."""

    given: str
    text: str
    stretches: Sequence[Stretch]
    changes: Counter[str]
    corrections: Counter[tuple[str, str]]

    @property
    def kept(self) -> list[str]:
        """The protected stretches."""
        return [self.given[start:end] for start, end, _ in self.stretches]


def _pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return pattern
    if not isinstance(pattern, str):
        raise ConfigurationError(f"protect takes patterns for text, not {type(pattern).__name__}")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigurationError(f"protect has a pattern that cannot be read, {pattern!r}: {error}") from None


def _holds(there: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether each of ``wanted`` is, in its order, one of ``there`` or a part of one."""
    if there == wanted:
        return True
    index = place = 0
    for each in wanted:
        while index < len(there):
            found = there[index].find(each, place)
            if found >= 0:
                place = found + len(each)
                break
            index, place = index + 1, 0
        else:
            return False
    return True


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def _before(parts: Sequence[str]) -> str:
    """The last character shown so far."""
    for part in reversed(parts):
        if stripped := part.rstrip():
            return stripped[-1]
    return ""
