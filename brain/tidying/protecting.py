"""Which stretches of a prompt stay as they are: code, quotations, literals, typed arguments, what a schema names.

Everything is found on the *shape* of a text: its characters without the invisible ones, with each kind of blank as a
space and each line end as a line feed. So what is protected does not depend on what cleaning changes. In doubt more is
protected, not less: where quotation marks do not pair up, all from the first to the last of the paragraph. All of it is
linear in the text's length. This module knows nothing of how a text is cleaned.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from .characters import INVISIBLE, LINE_ENDS
from .shielding import Shield

__all__ = ["MARKS", "Kind", "Shape", "Stretch", "protected"]

Kind: TypeAlias = Literal["code", "quote", "literal", "argument", "table", "pattern", "option", "protect"]

_SHOWN = {ord(c): "\n" for c in LINE_ENDS} | {ord(c): " " for c in "\u00a0\u1680\u202f\u205f\u3000"}
_SHOWN |= dict.fromkeys(range(0x2000, 0x200B), " ")
_SHOWN |= {0x1FEF: "`"}  # whose normal form is the backtick

MARKS = re.compile(r"[\"`|{}\[\]<>“”„«»‹›「」『』‘‚]|(?<![^\W_])['’]|['’](?![^\W_])")
"""What opens or closes a protected stretch; the apostrophe of ``don't`` does not."""

_RUN = re.compile(r"`++|~{3,}+")
_LINE_HEAD = re.compile(r"[ \t>]*(?:[-*+][ \t]|\d{1,9}[.)][ \t])?[ \t]*")
_GAP = re.compile(r"\n[ \t]*+\n")
_TAG = re.compile(r"<(/?)(code|pre|kbd|samp|q|blockquote|script|style)\b[^<>\n]{0,200}>", re.IGNORECASE)
_REST = r"(?:[^\n]*[^ \t\n])?"


def _lines(line: str, between: str = r"[ \t]*+\n") -> re.Pattern[str]:
    """Lines of one sort after each other, without the blanks behind the last."""
    return re.compile(rf"^{line}(?:{between}{line})*+", re.MULTILINE)


_INDENTED = _lines(rf"(?: {{4}}| {{0,3}}\t)[ \t]*+[^ \t\n]{_REST}", r"[ \t]*+\n(?:[ \t]*+\n)*+")
_BLOCK_QUOTE = _lines(rf" {{0,3}}>{_REST}")
_TABLE = _lines(rf"[^|\n]*+\|[^|\n]*+\|{_REST}")
_BRACKET = re.compile(r"[{}\[\]]")
_NUMBER = r"[^ \t\n\d]*+\d[^ \t\n]*+"
_LITERALS = (
    re.compile(rf"(?<![^ \t\n]){_NUMBER}(?:[ \t]++{_NUMBER})*+"),
    re.compile(r"(?<![^ \t\n])[^ \t\n@=/\\_<>{}\[\]|^~#$%+]*+[@=/\\_<>{}\[\]|^~#$%+][^ \t\n]*+"),
    # a mark within a word: of a host's name, a file's, a time
    re.compile(r"(?<![^ \t\n])(?:[^ \t\n.:]*+[.:]++(?![^\W_]))*+[^ \t\n.:]*+[.:]++[^\W_][^ \t\n]*+"),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?:{'|'.join(_MONTHS)})[a-z]{{0,6}}+[.,]?"
_DATE = re.compile(
    rf"(?<![^ \t\n])(?:\d{{1,2}}(?:st|nd|rd|th)?[ \t]++(?:of[ \t]++)?{_MONTH}(?:[ \t]++\d{{2,4}}\b)?"
    rf"|{_MONTH}[ \t]++\d{{1,4}}(?:st|nd|rd|th)?,?(?:[ \t]++\d{{4}}\b)?)",
    re.IGNORECASE,
)
_ARGUMENT = re.compile(r"(?<![\w.\-])[\w.\-]++[ \t]*+(?:=|:(?![/\\])=?)[ \t]*+[^ \t\n]++")
_ARGUMENT_LINE = re.compile(
    r"^[ \t]*+(?:[-*+][ \t]++)?(?:[\w.\-]++[ \t]*+=|[a-z][\w.\-]*+[ \t]*+:(?![/\\]))(?:[^\n]*[^ \t\n])?", re.MULTILINE
)

Stretch: TypeAlias = tuple[int, int, Kind]


class Shape(NamedTuple):
    """A text without what cleaning may change, and where its characters stand in the text."""

    text: str
    kept: Sequence[int]
    """Where in ``text`` each run of kept characters begins; empty: the shape has every character."""
    given: Sequence[int]
    """Where that run begins in the text that was given."""

    @classmethod
    def of(cls, text: str, *, compatible: bool = False) -> Shape:
        """``compatible``: characters are seen as their compatibility form (NFKC)."""
        if text.isascii():
            return cls(text.replace("\r\n", " \n").replace("\r", "\n"), (), ())
        parts, kept, given, place, size = [], [0], [0], 0, 0
        for run in INVISIBLE.finditer(text):
            parts.append(text[place : run.start()])
            size += run.start() - place
            place = run.end()
            kept.append(size)
            given.append(place)
        shown = "".join([*parts, text[place:]]) if parts else text
        table = {**_compatible(shown), **_SHOWN} if compatible else _SHOWN
        shown = shown.replace("\r\n", " \n").translate(table)
        return cls(shown, kept, given) if parts else cls(shown, (), ())

    def place(self, index: int) -> int:
        """Where the character at ``index`` of the shape stands in the text."""
        if not self.kept:
            return index
        run = bisect_right(self.kept, index) - 1
        return self.given[run] + index - self.kept[run]


def _compatible(text: str) -> dict[int, str]:
    """One character for each, of the sort that its compatibility form begins a word, a number or a mark with."""
    table = {}
    for char in set(text):
        form = unicodedata.normalize("NFKC", char)
        if form != char and form:
            table[ord(char)] = next((c for c in form if not c.isalpha()), form[0]) if len(form) > 1 else form
    return table


def protected(
    text: str, shield: Shield, patterns: Iterable[re.Pattern[str]] = (), *, compatible: bool = False
) -> list[Stretch]:
    """The protected stretches of ``text``, in order and apart from each other, each with why.

    ``shield``: what the tools name; ``patterns``: what the user protects, matched on ``text`` as it is.
    """
    shape = Shape.of(text, compatible=compatible)
    seen = shape.text
    gaps = [gap.start() for gap in _GAP.finditer(seen)]
    code = _merged([*_code(seen, gaps), *_tagged(seen), *_found(_INDENTED, seen, "code")])
    quoted = _found(_BLOCK_QUOTE, seen, "quote")
    masked = _masked(seen, _merged([*code, *quoted]))
    found: list[Stretch] = [*code, *quoted, *_quotes(masked), *_brackets(masked)]
    found += _found(_TABLE, masked, "table")
    for pattern in _LITERALS:
        found += _found(pattern, masked, "literal")
    lower = masked.lower()
    if any(month in lower for month in _MONTHS):
        found += _found(_DATE, masked, "literal")
    if "=" in masked or ":" in masked:
        for pattern in (_ARGUMENT_LINE, _ARGUMENT):
            found += _found(pattern, masked, "argument")
    found += [(start, end, "option") for start, end in shield.options(seen)]
    found += [(start, end, "pattern") for start, end in shield.matches(seen)]
    if shape.kept:
        found = [(shape.place(start), shape.place(end - 1) + 1, kind) for start, end, kind in found]
    for pattern in patterns:
        found += [(m.start(), m.end(), "protect") for m in pattern.finditer(text) if m.end() > m.start()]
    merged = _merged(found)
    return _merged(list(_widened(text, merged))) if shape.kept else merged


def _merged(found: list[Stretch]) -> list[Stretch]:
    """Overlapping and touching stretches as one, which is there for the reason of its longest part."""
    found.sort()
    merged: list[Stretch] = []
    first = last = -1
    longest = 0
    why: Kind = "literal"
    for start, end, kind in found:
        if start > last:
            if last >= 0:
                merged.append((first, last, why))
            first, last, why, longest = start, end, kind, end - start
            continue
        last = max(last, end)
        if end - start > longest:
            why, longest = kind, end - start
    if last >= 0:
        merged.append((first, last, why))
    return merged


_WHITE = frozenset(" \t\u00a0\u1680\u202f\u205f\u3000" + LINE_ENDS + "".join(map(chr, range(0x2000, 0x200B))))


def _widened(text: str, found: Iterable[Stretch]) -> Iterator[Stretch]:
    """With the invisible characters that stand between a stretch and a word: without them the two would be one."""
    last = 0
    for start, end, kind in found:
        first = start
        while first > last and INVISIBLE.match(text[first - 1]):
            first -= 1
        start = first if first > 0 and text[first - 1] not in _WHITE else start
        after = INVISIBLE.match(text, end)
        if after and after.end() < len(text) and text[after.end()] not in _WHITE:
            end = after.end()
        last = end
        yield start, end, kind


def _masked(text: str, found: Iterable[Stretch]) -> str:
    parts, place = [], 0
    for start, end, _ in found:
        parts += [text[place:start], "\0" * (end - start)]
        place = end
    return "".join([*parts, text[place:]])


def _found(pattern: re.Pattern[str], text: str, kind: Kind) -> list[Stretch]:
    return [(match.start(), match.end(), kind) for match in pattern.finditer(text)]


class _Fence(NamedTuple):
    """What a run of backticks or tildes is that stands first in its line."""

    line: int
    """Where the line begins."""
    stop: int
    """Where the line ends."""
    closes: bool
    """Nothing follows it in its line."""


def _fence(text: str, start: int, end: int) -> _Fence | None:
    line = text.rfind("\n", max(0, start - 64), start) + 1
    if (line == 0 and start > 64) or not _LINE_HEAD.fullmatch(text, line, start):
        return None
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop
    return _Fence(line, stop, not text[end:stop].strip(" \t"))


def _code(text: str, gaps: Sequence[int]) -> Iterator[Stretch]:
    """Fenced code and code between backticks (CommonMark 0.31, sections 4.5 and 6.1).

    Beyond it, a fence in the middle of a line is one too, as people write them; one that is never closed goes to the
    end of the text.
    """
    runs = [run.span() for run in _RUN.finditer(text)]
    following = [-1] * len(runs)
    last: dict[int, int] = {}
    for index in range(len(runs) - 1, -1, -1):
        start, end = runs[index]
        if text[start] == "`":
            following[index] = last.get(end - start, -1)
            last[end - start] = index
    index = 0
    while index < len(runs):
        start, end = runs[index]
        close = following[index]
        index += 1
        fence = _fence(text, start, end) if end - start >= 3 else None
        alone = fence is not None and (index == len(runs) or runs[index][0] >= fence.stop)
        if fence is not None and (alone or text[start] == "~"):
            while index < len(runs):
                low, high = runs[index]
                index += 1
                if high - low >= end - start and text[low] == text[start]:
                    other = _fence(text, low, high)
                    if other is not None and other.closes:
                        yield fence.line, high, "code"
                        break
            else:
                yield fence.line, len(text), "code"
        elif text[start] == "`":
            if close < 0 and end - start >= 3:
                yield start, len(text), "code"
                return
            if close < 0:
                continue
            stop = runs[close][1]
            if not gaps or end - start >= 3 or bisect_right(gaps, start) == bisect_right(gaps, stop - 1):
                yield start, stop, "code"
                index = close + 1


def _tagged(text: str) -> Iterator[Stretch]:
    """What stands between ``<code>`` and ``</code>``, and between other tags that mean code or a quotation."""
    if "</" not in text:
        return
    opened: dict[str, int] = {}
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if not tag[1]:
            opened.setdefault(name, tag.start())
        elif name in opened:
            yield opened.pop(name), tag.end(), "quote" if name in ("q", "blockquote") else "code"


def _brackets(text: str) -> Iterator[Stretch]:
    """Stretches between brackets that pair up, each sort for itself: JSON, lists, placeholders."""
    opened: dict[str, list[int]] = {"{": [], "[": []}
    for bracket in _BRACKET.finditer(text):
        char = bracket.group()
        if char in opened:
            opened[char].append(bracket.start())
        elif stack := opened["{" if char == "}" else "["]:
            start = stack.pop()
            yield start, bracket.end(), "literal"


_Role: TypeAlias = Callable[[str, str, str, int], int]
"""From a mark, the characters before and after it, and how many are open: 1 opens, -1 closes, 0 neither, and 2 or -2 as
1 and -1 where it looks as if a mark was forgotten."""


def _white(char: str) -> bool:
    return char in " \t\n"


def _lettered(char: str) -> bool:
    """A letter, a digit, or an accent that stands after its letter."""
    return char.isalnum() or (not char.isascii() and unicodedata.category(char)[0] == "M")


def _straight(mark: str, before: str, after: str, depth: int) -> int:
    if depth:
        if before == "\\":
            return 0
        looks_opening = _white(before) and bool(after) and not _white(after)
        return -2 if looks_opening else -1
    return -1 if _lettered(before) else 1


def _apostrophe(mark: str, before: str, after: str, depth: int) -> int:
    if depth:
        return -1 if not _white(before) and not after.isalnum() else 0
    return 1 if not _lettered(before) and after and not _white(after) else 0


def _curved(mark: str, before: str, after: str, depth: int) -> int:
    if mark == "’":
        return -1 if depth and not after.isalnum() else 0
    return 1 if mark != "‘" or not depth else -1


def _double(mark: str, before: str, after: str, depth: int) -> int:
    if mark == "“" and depth and _white(after or " "):
        return -1  # „so“
    return -1 if mark == "”" else 1


def _guillemets(mark: str, before: str, after: str, depth: int) -> int:
    # Which way they point differs: «so», »so«, » so »; what stands close to a word on its right opens.
    if depth:
        return -1 if not after or not after.isalnum() or _lettered(before) else -2
    return -1 if _lettered(before) and not after.isalnum() else 1


def _corner(mark: str, before: str, after: str, depth: int) -> int:
    return 1 if mark in "「『" else -1


_MARK_ROLES: tuple[tuple[str, _Role, bool], ...] = (
    ('"', _straight, True),
    ("“”„", _double, True),
    ("«»", _guillemets, True),
    ("‹›", _guillemets, True),
    ("「」", _corner, True),
    ("『』", _corner, True),
    ("'", _apostrophe, False),
    ("‘’‚", _curved, False),
)


def _quotes(text: str) -> Iterator[Stretch]:
    for marks, role, doubts in _MARK_ROLES:
        if any(mark in text for mark in marks):
            for start, end in _paired(text, marks, role, doubts):
                yield start, end, "quote"


def _paired(text: str, marks: str, role: _Role, doubts: bool) -> Iterator[tuple[int, int]]:
    """Quotations in one sort of marks, paragraph by paragraph.

    ``doubts``: where the marks of a paragraph do not pair up, all from its first to its last is one, to its end where
    one stays open; and such a paragraph and the next one where a mark closes what none has opened are one, with all
    between.
    """
    first = last = -1
    starts: list[int] = []
    pairs: list[tuple[int, int]] = []
    pending, doubt = -1, False
    size = len(text)
    for found in re.finditer(rf"([{marks}])\1{{3,}}+|[{marks}]|\n[ \t]*+\n|\Z", text):
        at, end = found.span()
        mark = text[at : at + 1] if end > at else ""  # four of a sort and more are one
        if mark and mark in marks:
            before, after = text[at - 1] if at else "\n", text[end] if end < size else ""
            does = role(mark, before, after, len(starts))
            if does:
                last = end
                doubt = doubt or abs(does) == 2
            if does > 0:
                starts.append(at)
                first = at if first < 0 else first
            elif does < 0 and starts:
                pairs.append((starts.pop(), end))
            elif does < 0:
                doubt = True
                if pending >= 0:
                    yield pending, end
                    pending = -1
            continue
        if first < 0 and not doubt:
            continue
        if starts and doubts:
            yield first, at
            if pending >= 0:
                yield pending, at
            pending = starts[0] if pending < 0 else -1
        elif doubt and first >= 0 and doubts:
            yield first, last
        else:
            yield from pairs
        first = last = -1
        starts, pairs, doubt = [], [], False
