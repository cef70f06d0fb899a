"""What the schemas of tools say an argument looks like, so that a prompt's cleaning leaves it alone.

A pattern comes from whoever made the tool and is run on what anybody wrote. So it is run by a regular-expression engine
that takes linear time whatever the pattern (Rust's ``regex``, which pydantic brings); what that engine does not know
(looking ahead or behind, references back) is left out of the pattern, which then matches more. This module knows
nothing of the rest of cleaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

from ..events import ToolSchema

__all__ = ["Shield"]

_LONGEST_PATTERN = 1_000
_LONGEST_OPTION = 200
_MOST = 2_000
"""Patterns, and options, that are looked at."""
_HEAVIEST = 100.0
_HEAVIEST_TOGETHER = 1_000.0
"""How large patterns may become when they are compiled, in ``\\w``: a thousand of them take about a second, once."""
_NODES = 50_000
_DEPTH = 32
_WINDOW = 6
"""Words that one match has at most, where the pattern admits blanks; a longer one is found line by line."""
_CHUNK = 48
_TRIES = 100_000
"""Tries of one pattern on windows of words; beyond, whole chunks of words that it matches in are protected."""
_WORD = re.compile(r"[^ \t\n]++")
_NAME = re.compile(r"\w+")
_HALF = re.compile("[\ud800-\udfff]")
"""Half a character (a lone surrogate), which the engine cannot read."""
_AROUND = "\"'“”‘’`,;:!?()[]<>."
_MAY_HOLD_BLANKS = re.compile(r" |\\[sWDPpx uUnt]|\.|\[\^|\[:|\(\?[a-z]*[sx]|\\[HhNRv]")
_WORDS = ("of", "the", "and", "desk", "word", "order", "table", "please", "message", "question", "Paris", "Message")
_PROBES = (
    *_WORDS,
    *("7", "42", "365", "2024", "90210", "123456"),
    *("The message", "order of the table", "the question is which desk should have this message, please"),
)
_LOOSE = 3


class Shield:
    """The patterns and options of ``tools``. ``unread``: patterns that cannot be run here, which protect nothing.

    A pattern that ordinary words or any numbers match says what a value may look like, not where it stands; it protects
    nothing. Formats (``date``, ``email``, ``uri`` and the like) are literals, which are protected anyway.
    """

    def __init__(self, tools: Iterable[ToolSchema] = ()) -> None:
        patterns: dict[str, None] = {}
        options: dict[str, None] = {}
        for tool in tools:
            _collect(tool.parameters, patterns, options)
        self._options: dict[str, list[tuple[str, int]]] = {}
        for option in options:
            if word := _NAME.search(option):
                self._options.setdefault(word.group().lower(), []).append((option.lower(), word.start()))
        self._patterns: list[_Pattern] = []
        unread = []
        room = _HEAVIEST_TOGETHER
        for source in patterns:
            weight = _weight(source)
            pattern = _compiled(source) if weight <= min(room, _HEAVIEST) else None
            room -= weight if pattern is not None else 0.0
            if pattern is None:
                unread.append(source)
            elif not pattern.loose:
                self._patterns.append(pattern)
        self.unread = tuple(unread)

    def options(self, text: str) -> Iterator[tuple[int, int]]:
        """Where an option stands in ``text``, in capitals or not, as words of their own."""
        if not self._options:
            return
        lower = text.lower()
        if len(lower) != len(text):  # İ and its kind: the places would be wrong
            lower = text
        for word in _NAME.finditer(lower):
            for option, offset in self._options.get(word.group(), ()):
                start = word.start() - offset
                end = start + len(option)
                if start >= 0 and lower.startswith(option, start) and not _goes_on(lower, start, end):
                    yield start, end

    def matches(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a pattern matches: a word or what is between its marks, words in a row, a line, spaced digits."""
        if not self._patterns:
            return
        text = _HALF.sub("\ufffd", text)
        words = [(m.start(), m.end()) for m in _WORD.finditer(text)]
        distinct = {text[start:end] for start, end in words}
        lines = list(_lines(text, words))
        for pattern in self._patterns:
            if not pattern.found(text):
                continue
            fitting = {word for word in distinct if _fits(word, pattern)}
            if fitting:
                yield from ((a, b) for a, b in words if text[a:b] in fitting)
            if pattern.blanks:
                yield from _several(text, words, pattern)
                yield from ((a, b) for a, b in lines if pattern.whole(text[a:b]))
        for start, end in _dense(text, words):
            whole = text[start:end]
            joined = (re.sub(r"[ \t\n|+,]+|-{2,}", "", whole), re.sub(r"[ \t\n]+", "", whole))
            if any(pattern.whole(each) for pattern in self._patterns for each in joined):
                yield start, end


class _Pattern:
    """A pattern, compiled: does it match within a text, all of it, or (``found``) perhaps somewhere in a longer one?"""

    def __init__(self, source: str) -> None:
        bare = source.removeprefix("^")
        if bare.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$$", bare):
            bare = bare[:-1]
        self._whole = _engine(rf"\A(?:{source})\z")
        self._within = _engine(source)
        anchored = re.search(r"[\^$]|\\[AzZbB]", re.sub(r"\\[\\^$]|\[\^", "", bare))
        self._found = None if anchored else _engine(bare)
        self.blanks = _MAY_HOLD_BLANKS.search(source) is not None
        self.loose = sum(map(self._within.isinstance_python, _PROBES)) >= _LOOSE

    def within(self, text: str) -> bool:
        return self._within.isinstance_python(text)

    def whole(self, text: str) -> bool:
        return self._whole.isinstance_python(text)

    def found(self, text: str) -> bool:
        return self._found is None or self._found.isinstance_python(text)


def _engine(source: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=source, regex_engine="rust-regex", strict=True))


_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def _weight(source: str) -> float:
    """About how large the compiled pattern is: every repetition that is counted is written out there."""
    sums, last, in_class, index = [0.0], 0.0, False, 0
    while index < len(source):
        char = source[index]
        size, adds = 1, 0.01
        if char == "\\":
            size, following = 2, source[index + 1 : index + 2]
            adds = 1.0 if following in ("w", "W", "p", "P", "S", "D") else 0.1 if following in ("d", "s") else 0.01
        elif char == "[" and not in_class:
            sums.append(0.0)
            in_class = True
        elif char == "(" and not in_class:
            sums.append(0.0)
        elif (char == ")" and not in_class) or (char == "]" and in_class):
            in_class = False
            adds = sums.pop() if len(sums) > 1 else 0.0
        elif not in_class and (count := _COUNT.match(source, index)):
            size = count.end() - index
            adds = last * (max(int(count[1]), int(count[2] or 0)) - 1)
            last += adds
            sums[-1] += adds
            index += size
            continue
        sums[-1] += adds
        last = adds
        index += size
    return sum(sums)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> _Pattern | None:
    for attempt in (source, _without_assertions(source)):
        try:
            return _Pattern(attempt)
        except SchemaError:
            continue
    return None


_LOOKAROUND = re.compile(r"\(\?(?:<?[=!])")


def _without_assertions(source: str) -> str:
    """``source`` without what only Python's engine knows; it matches all that ``source`` does, and more."""
    parts: list[str] = []
    index = depth = 0
    skip_until: int | None = None
    in_class = False
    while index < len(source):
        char = source[index]
        piece = source[index : index + 2] if char == "\\" else char
        if char == "\\":
            piece = {"\\Z": r"\z"}.get(piece, ".*" if piece[1:].isdigit() and piece != "\\0" else piece)
            if in_class and piece == ".*":
                piece = ""
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char == "(":
            if skip_until is None and _LOOKAROUND.match(source, index):
                skip_until = depth
            depth += 1
        elif char == ")":
            depth -= 1
            if skip_until == depth:
                skip_until = None
                piece = ""
        if skip_until is None:
            parts.append(piece)
        index += 2 if char == "\\" else 1
    return "".join(parts).replace("(?>", "(?:")


def _collect(schema: Any, patterns: dict[str, None], options: dict[str, None]) -> None:
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    nodes = 0
    while waiting and nodes < _NODES:
        node, depth = waiting.pop()
        nodes += 1
        if depth > _DEPTH:
            continue
        if isinstance(node, Mapping):
            pattern = node.get("pattern")
            if isinstance(pattern, str) and 0 < len(pattern) <= _LONGEST_PATTERN and len(patterns) < _MOST:
                patterns.setdefault(pattern)
            named = node.get("enum")
            values = [*(named if isinstance(named, (list, tuple)) else ()), node.get("const")]
            for value in values:
                if isinstance(value, str) and 0 < len(value) <= _LONGEST_OPTION and len(options) < _MOST:
                    options.setdefault(value)
            waiting += [(part, depth + 1) for part in node.values() if isinstance(part, (Mapping, list, tuple))]
        elif isinstance(node, (list, tuple)):
            waiting += [(part, depth + 1) for part in node if isinstance(part, (Mapping, list, tuple))]


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether the word goes on before ``start`` or after ``end``."""
    before = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return before or (end < len(text) and text[end - 1].isalnum() and text[end].isalnum())


def _fits(word: str, pattern: _Pattern) -> bool:
    bare = word.strip(_AROUND)
    return pattern.within(word) or (bare != word and pattern.within(bare))


def _several(text: str, words: Sequence[tuple[int, int]], pattern: _Pattern) -> Iterator[tuple[int, int]]:
    """Two words in a row and more: only within chunks of words where the pattern matches at all."""
    tries = 0
    for first in range(0, len(words), _CHUNK):
        chunk = words[first : first + _CHUNK + _WINDOW]
        start, end = chunk[0][0], chunk[-1][1]
        if len(chunk) < 2 or not pattern.found(text[start:end]):
            continue
        if tries > _TRIES:
            yield start, end
            continue
        for place in range(min(_CHUNK, len(chunk))):
            shortest = True
            for width in range(2, min(_WINDOW, len(chunk) - place) + 1):
                low, high = chunk[place][0], chunk[place + width - 1][1]
                stretch = text[low:high]
                tries += 1
                if pattern.whole(stretch) or pattern.whole(stretch.strip(_AROUND)):
                    yield low, high
                if shortest and pattern.within(stretch):  # part of the first and of the last word, and all between
                    shortest = False
                    if not pattern.within(text[chunk[place + 1][0] : high]):
                        yield low, high


def _lines(text: str, words: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Lines of more words than a window has, from their first word to their last."""
    start, count = 0, 0
    for index, (low, high) in enumerate(words):
        if count == 0:
            start = low
        count += 1
        following = words[index + 1][0] if index + 1 < len(words) else len(text)
        if index + 1 == len(words) or "\n" in text[high:following]:
            if count > _WINDOW:
                yield start, high
            count = 0


_TWO_LETTERS = re.compile(r"[A-Za-z]{2,}")


def _dense(text: str, words: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs of words without letters in a row: a value that was spaced out or broken into lines."""
    run: list[tuple[int, int]] = []
    for start, end in [*words, (-1, -1)]:
        if start >= 0 and not _TWO_LETTERS.search(text, start, min(end, start + 200)):
            run.append((start, end))
            continue
        if len(run) > 1:
            yield run[0][0], run[-1][1]
        run = []
