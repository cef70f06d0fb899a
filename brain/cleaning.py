"""A prompt made tidy without touching what must stay.

Deterministic, in linear time, and without any model: the Unicode normal form, invisible characters, blanks, repeated
boilerplate and, only where the user gives a word list, spelling. Code, quotations, literals, typed arguments and what a
tool's schema describes keep every byte (:mod:`brain.protecting`).

Cleaning what was cleaned changes nothing. That is not hoped for but looked at: a cleaned text is cleaned again before
it is given back, and where it would change for ever, or a protected stretch would, the text stays as it was given.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

from .errors import ConfigurationError, PromptError
from .events import ToolSchema
from .protecting import BLANKS, INVISIBLE, LINE_ENDS, MARKS, Kind, Stretch, protected
from .shielding import Shield
from .spelling import WordList

__all__ = ["Cleaned", "Cleaner", "CleaningReport", "Protected"]

_ROUNDS = 4
_MOST_UNKNOWN = 20_000
"""Different words that are not in the word list; a text with more is in another language, and keeps them."""

_WHITE = f"{BLANKS}{LINE_ENDS}"
_WHITE_RUN = re.compile(rf"[{_WHITE}]{{2,}}|[^\S \n\t\v\f\x1c-\x1f\u3000\u1680]")
_ENDING = re.compile(rf"[{_WHITE}]++\Z")
_OPENING = re.compile(rf"\A[{_WHITE}]++")
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")
_NARROW = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
_KEPT_AS_IT_IS = re.compile("[\t\u1680\u3000]")
"""Blanks that align columns or belong to a script: a run that has one is not shortened."""
_WORD = re.compile(rf"[^{_WHITE}]++")
_AROUND_LEFT = "([\"'“‘„«¿¡"
_AROUND_RIGHT = ".,;:!?…)]\"'”’»"
_SENTENCE_ENDS = frozenset(".!?…。！？¿¡")

_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1aaf\u1b00-\u1c4f\u1cd0-\u1cff\ua8e0-\ua8ff"
    "\ua900-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00010fff\U00011000-\U00011fff"
    "\U0001e900-\U0001e95f"
)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_HAN = "\u2e80-\u2fff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_EMOJI = re.compile(f"[{_EMOJI}]")
_IS_JOINING = re.compile(f"[{_JOINING}]")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_IS_HAN = re.compile(f"[{_HAN}]")
_FLAG = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
"""The tags that make a black flag that of a region (Unicode Technical Standard 51, annex C)."""


class Protected(NamedTuple):
    """A stretch that kept its bytes: why, and where it begins and ends in the text given and begins in the cleaned one.

    ``kind``: ``code``, ``quote``, ``literal`` (numbers, dates, addresses, paths, JSON), ``argument`` (``key=value``),
    ``table``, ``pattern`` and ``option`` (of a tool's schema) or ``protect`` (the user's).
    """

    kind: Kind
    start: int
    end: int
    cleaned_start: int


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
    protected: Sequence[Protected] = field(default=(), repr=False)
    corrections: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    given_up: bool = False

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
        kinds = Counter(each.kind for each in self.protected)
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
        form: Literal["NFC", "NFKC"] = "NFC",
    ) -> None:
        if form not in ("NFC", "NFKC"):
            raise ConfigurationError(f"form is 'NFC' or 'NFKC', not {form!r}")
        self._boilerplate = boilerplate
        self._form = form
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
        kept, place = [], 0
        for start, end, kind in first.stretches:
            place = start if cleaned == text else cleaned.find(text[start:end], place)
            kept.append(Protected(kind, start, end, place))
            place += end - start
        counts = {kind: changes[kind] for kind in _CHANGES if changes[kind]}
        report = CleaningReport(
            counts, _tokens(text), _tokens(cleaned), kept, dict(corrections), shield.unread, given_up
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
                    piece = _corrected(piece, words, _before(parts), start == len(text), corrections)
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
            cleaned = _without_repetitions(cleaned, places, changes)
        return _Pass(text, cleaned, stretches, changes, corrections)

    def _tidy(self, text: str, start: int, end: int, changes: Counter[str]) -> str:
        """The unprotected ``text[start:end]`` without what shows nothing, in the normal form, with tidy blanks."""
        piece = text[start:end]
        if not piece.isascii():
            piece = self._normal(_visible(text, start, end, changes), changes)
        opens = start == 0 or text[start - 1] in LINE_ENDS
        if start == 0 or end == len(text) or _WHITE_RUN.search(piece):
            blanks = partial(_blanks, changes=changes, opens=opens)
            piece = _WHITE_RUN.sub(blanks, piece)
            if start == 0 and (found := _OPENING.search(piece)):
                indent = found.group().rpartition("\n")[2]
                piece = _counted(piece, indent + piece[found.end() :], changes)
            if end == len(text) and (found := _ENDING.search(piece)):
                piece = _counted(piece, piece[: found.start()], changes)
        return piece

    def _normal(self, piece: str, changes: Counter[str]) -> str:
        if piece.isascii() or unicodedata.is_normalized(self._form, piece):
            return piece
        normal = unicodedata.normalize(self._form, piece)
        if normal != piece:
            words = (word.group() for word in _WORD.finditer(piece) if not word.group().isascii())
            changes["normalised"] += max(1, sum(not unicodedata.is_normalized(self._form, word) for word in words))
        return normal

    def _misspelt(self, text: str, stretches: Sequence[Stretch]) -> dict[str, str]:
        """The words outside ``stretches`` that the list knows better, each with what it is to be."""
        assert self._words is not None
        unknown: dict[str, None] = {}
        place = 0
        for start, end, _ in [*stretches, (len(text), len(text), "protect")]:
            piece = text[place:start]
            if not piece.isascii():
                piece = unicodedata.normalize(self._form, INVISIBLE.sub("", piece))
            for token in _WORD.findall(piece):
                word = token.lstrip(_AROUND_LEFT).rstrip(_AROUND_RIGHT)
                if word.isalpha() and word not in self._words:
                    unknown.setdefault(word)
            place = end
        if len(unknown) > _MOST_UNKNOWN:
            return {}
        found = ((word, self._words.near(word)) for word in unknown if word[1:].islower())
        return {word: _like(word, right) for word, right in found if right is not None}


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


def _counted(before: str, after: str, changes: Counter[str]) -> str:
    changes["blanks"] += before != after
    return after


def _visible(text: str, start: int, end: int, changes: Counter[str]) -> str:
    """``text[start:end]`` without invisible characters, but for those that emoji and some scripts are written with."""
    parts, place = [], start
    for run in INVISIBLE.finditer(text, start, end):
        before = text[run.start() - 1] if run.start() else ""
        after = text[run.end()] if run.end() < len(text) else ""
        kept = _needed(run.group(), before, after)
        changes["invisible"] += len(run.group()) - len(kept)
        parts += [text[place : run.start()], kept]
        place = run.end()
    return "".join([*parts, text[place:end]]) if parts else text[start:end]


def _needed(run: str, before: str, after: str) -> str:
    """Of a run of invisible characters those that belong to what stands around it: a selector, then a joiner."""
    if not before:
        return ""
    if before == "\U0001f3f4" and (flag := _FLAG.match(run)):
        return flag.group()
    emoji, joining = _IS_EMOJI.match(before), _IS_JOINING.match(before)
    selector = joiner = ""
    for char in run:
        code = ord(char)
        if joiner or (selector and (0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF)):
            continue
        if 0xFE00 <= code <= 0xFE0F:
            is_keycap = code == 0xFE0F and after == "\u20e3"
            if emoji or joining or is_keycap or _IS_HAN.match(before) or unicodedata.category(before) == "Sm":
                selector = char
        elif (0xE0100 <= code <= 0xE01EF and _IS_HAN.match(before)) or (
            0x180B <= code <= 0x180F and "\u1800" <= before <= "\u18af"
        ):
            selector = char
        elif (char == "\u200d" and emoji and after and _IS_EMOJI.match(after)) or (char in "\u200c\u200d" and joining):
            joiner = char
        elif char == "\u200b" and _IS_UNSPACED.match(before) and after and _IS_UNSPACED.match(after):
            joiner = char  # where a script has no spaces it says where a word ends
    return selector + joiner


def _blanks(found: re.Match[str], changes: Counter[str], opens: bool) -> str:
    """A run of blanks and line ends, tidied. ``opens``: the piece stands at the beginning of a line."""
    run = found.group()
    lines = _LINE_END.sub("\n", run)
    plain = _NARROW.sub(" ", lines)
    count = plain.count("\n")
    if count:
        tidy = "\n" * min(count, 2) + plain.rpartition("\n")[2]
    elif opens and found.start() == 0:
        tidy = plain
    else:
        tidy = run if _KEPT_AS_IT_IS.search(run) else " "
    return _counted(run, tidy, changes)


def _before(parts: Sequence[str]) -> str:
    """The last character shown so far."""
    for part in reversed(parts):
        if stripped := part.rstrip():
            return stripped[-1]
    return ""


def _like(word: str, right: str) -> str:
    return right[:1].upper() + right[1:] if word[0].isupper() else right


def _corrected(
    piece: str, words: Mapping[str, str], before: str, ends: bool, corrections: Counter[tuple[str, str]]
) -> str:
    """``piece`` with the misspelt ``words`` corrected that stand free in it and are no names.

    ``before``: the character before the piece, nothing at the beginning; ``ends``: the text ends with it.
    """
    parts, place = [], 0
    for token in _WORD.finditer(piece):
        free = (token.start() > 0 or not before) and (token.end() < len(piece) or ends)
        text = token.group()
        word = text.lstrip(_AROUND_LEFT).rstrip(_AROUND_RIGHT)
        right = words.get(word)
        name = word[:1].isupper() and before != "" and before not in _SENTENCE_ENDS
        if right is not None and free and not name:
            start = token.start() + len(text) - len(text.lstrip(_AROUND_LEFT))
            parts += [piece[place:start], right]
            place = start + len(word)
            corrections[word, right] += 1
        before = text[-1]
    return "".join([*parts, piece[place:]]) if parts else piece


_COUNTED_WORD = re.compile(r"[^\W_]+")


class _Line(NamedTuple):
    text: str
    free: bool
    """Nothing protected and no mark of something protected is in it."""


def _lines(text: str, places: Iterable[tuple[int, int]]) -> Iterator[_Line]:
    waiting = iter(places)
    stretch = next(waiting, None)
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        touched = False
        while stretch is not None and stretch[0] <= end:
            touched = True
            if stretch[1] > end:
                break
            stretch = next(waiting, None)
        yield _Line(line, not touched and MARKS.search(line) is None)
        start = end + 1


def _reads_as_text(line: str) -> bool:
    """A sentence of three words, or six words; where a script has no spaces, two characters count as a word."""
    words = len(_COUNTED_WORD.findall(line)) + len(_IS_HAN.findall(line)) // 2
    return words >= 6 or (words >= 3 and line.rstrip()[-1:] in _SENTENCE_ENDS)


def _without_repetitions(text: str, places: Sequence[tuple[int, int]], changes: Counter[str]) -> str:
    """``text`` without the lines and paragraphs that stand in it before, word for word."""
    lines = list(_lines(text, places))
    if len(lines) < 2:
        return text
    kept: list[_Line] = []
    known: set[str] = set()
    paragraphs: set[str] = set()
    dropped = False
    index = 0
    while index < len(lines):
        stop = index
        while stop < len(lines) and (lines[stop].text or not lines[stop].free):
            stop += 1
        block = lines[index:stop]
        whole = "\n".join(line.text for line in block)
        several = len(block) > 1 and all(line.free for line in block) and len(_COUNTED_WORD.findall(whole)) >= 5
        if several and whole in paragraphs:
            changes["paragraphs"] += 1
            left: list[_Line] = []
        else:
            if several:
                paragraphs.add(whole)
            left = []
            for line in block:
                if line.free and line.text in known and _reads_as_text(line.text):
                    changes["lines"] += 1
                    continue
                if line.free:
                    known.add(line.text)
                left.append(line)
        dropped = dropped or len(left) < len(block)
        kept += left
        if stop < len(lines) and (left or not block):
            kept.append(lines[stop])
        index = stop + 1
    if not dropped:
        return text
    while kept and not kept[-1].text and kept[-1].free:
        kept.pop()
    return "\n".join(line.text for line in kept)
