"""The parts of a request that can be an argument: numbers, quotations, dates, names, phrases, lists.

Each is found once, with its place and the words around it, whatever the tools are. All of it is bounded: a request is
read up to :data:`READ` characters word by word, and only quotations, literals and patterns reach further.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from ..words import STOP, Token, tokenize, word_set
from .moments import Moment, find_dates, find_times
from .numerals import Numeral, find_numerals
from .operators import worded

__all__ = ["READ", "Reading", "Span"]

READ = 12_000
"""Characters read word by word; a longer request is data after this point."""

Source = Literal["quote", "name", "phrase", "list", "literal", "email", "url", "path", "code", "id", "colon", "pair"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the request. ``value`` is its text, or for lists and literals the value that it reads as."""

    source: Source
    value: Any
    start: int
    end: int
    preposition: str = ""
    """The word before it, where that is a preposition (``in``, ``from``, ``named``)."""


PREPOSITIONS = word_set(
    """
    in of to from at on by for with about near between into onto than over during within as named called titled
    using via through and against like per under after before around across regarding concerning is are was being
    like likes love loves enjoy enjoys selling offering serving featuring starring include including contains
    containing without versus vs or saying since until till towards toward located based
    """
)
_BREAK = word_set(
    """
    in of to from at on by for with about near between into than over during within as using via through against per
    under after before around that which who whose where when if is are was were be given and or but then having
    like likes love loves enjoy enjoys selling offering serving featuring has have do does did can could would
    should will starting beginning while because so including without since until assuming also please what how
    considering named called titled
    """
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")
_URL = re.compile(r"\b(?:https?://|ftp://|www\.)[^\s\"'<>]{1,2000}")
_PATH = re.compile(
    r"(?<![\w/])(?:[A-Za-z]:[\\/]|\.{0,2}/|~/)[\w.\-/\\]{1,300}|\b(?:[\w\-.]{1,80}/){0,12}[\w\-]{1,80}\.(?:csv|json|txt|pdf|docx?|xlsx?|png|jpe?g|gif|mp[34]|wav|py|js|html|xml|zip|md|log|sql|parquet|ya?ml)\b"
)
_ID = re.compile(r"(?<![\w.@])#?(?=[\w\-/]{0,60}\d)(?=[\w\-/]{0,60}[A-Za-z#_])[A-Za-z0-9_#][\w\-/]{1,60}\w(?![\w@])")
_NUMBERED = re.compile(
    r"\d+(?:\.\d+)?(?:st|nd|rd|th|cm|mm|km|kg|mg|m|g|s|ml|l|h|hz|[kmb]|am|pm|v|w|a|mH|µF|years?|days?)$", re.I
)
_SNAKE = re.compile(r"\b[A-Za-z]+(?:_[A-Za-z0-9]+)+\b")
_ATOM = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|[a-zA-Z]|sin|cos|tan|log|ln|exp|sqrt|pi|lambda|[\^*+/()=²³.-]|\*\*)+")
_OPERATOR = re.compile(r"[-+*/^=]|\*\*")
_PAIR = re.compile(
    r"(?:(?<=[\w'\"])|(?<=\w ))(?::|=|\bis\b)\s{0,4}"
    r"(?P<value>'[^'\n]{0,200}'|\"[^\"\n]{0,200}\"|[^\s,;]{1,200})"
)
_KEY = re.compile(r"(?:'([A-Za-z_][\w ]{0,40})'|\"([A-Za-z_][\w ]{0,40})\"|([A-Za-z_]\w{0,40}(?: \w{1,30}){0,3}))\s?$")
_OPEN = {'"': '"', "“": "”", "‘": "’", "'": "'", "`": "`", "«": "»", "„": "“"}
_OPENING = re.compile("[" + "".join(_OPEN) + "]")


@dataclass(frozen=True)
class Reading:
    """A request, read once. Everything is found on first use and kept."""

    text: str
    skip: frozenset[str] = field(default=frozenset())

    @cached_property
    def head(self) -> str:
        """The part read word by word."""
        return self.text[:READ]

    @cached_property
    def tokens(self) -> list[Token]:
        return tokenize(self.head)

    @cached_property
    def worded(self) -> tuple[list[Token], frozenset[int]]:
        """The tokens with words that stand for a verb (``plus``) read as it, and where those are."""
        return worded(self.head, self.tokens, self.numerals)

    @cached_property
    def numerals(self) -> list[Numeral]:
        """Numbers that are not part of a quotation's words, a date or an identifier."""
        hidden = [*((s.start, s.end) for s in self.ids), *((s.start, s.end) for s in self.emails)]
        return [n for n in find_numerals(self.head, 400) if not _inside(n.start, n.end, hidden)]

    @cached_property
    def dates(self) -> list[Moment]:
        return find_dates(self.head)

    @cached_property
    def times(self) -> list[Moment]:
        return find_times(self.head)

    @cached_property
    def emails(self) -> list[Span]:
        return [Span("email", m.group(), m.start(), m.end()) for m in _EMAIL.finditer(self.head)]

    @cached_property
    def urls(self) -> list[Span]:
        return [Span("url", m.group().rstrip(".,;:!?)"), m.start(), m.end()) for m in _URL.finditer(self.head)]

    @cached_property
    def paths(self) -> list[Span]:
        return [Span("path", m.group().rstrip("."), m.start(), m.end()) for m in _PATH.finditer(self.head)]

    @cached_property
    def ids(self) -> list[Span]:
        """Words of letters and digits (``CA123456``, ``ORD-77``) and names in snake case."""
        found = []
        for match in _ID.finditer(self.head):
            word = match.group()
            if not _NUMBERED.match(word) and not re.fullmatch(
                r"\d+(?:-[A-Za-z]+)+|\d+x\d+|[a-z]\d|\d[\d.]*[eE]-?\d+", word
            ):
                found.append(Span("id", word.lstrip("#"), match.start(), match.end()))
        for match in _SNAKE.finditer(self.head):
            if not any(s.start <= match.start() < s.end for s in found):
                found.append(Span("id", match.group(), match.start(), match.end()))
        for match in re.finditer(r"(?<![\w/-])\d{4}[-/]\d{2,4}(?![\w/-])", self.head):
            found.append(Span("id", match.group(), match.start(), match.end()))
        return found[:200]

    @cached_property
    def quotes(self) -> list[Span]:
        """Quoted stretches; an apostrophe inside a word opens nothing."""
        found: list[Span] = []
        text = self.text
        done = 0
        misses: set[str] = set()
        for opening in _OPENING.finditer(text):
            index, mark = opening.start(), opening.group()
            close = _OPEN[mark]
            if index < done or close in misses or (index and text[index - 1].isalnum()):
                continue
            end = text.find(close, index + 1)
            while end != -1 and mark in "'‘" and end + 1 < len(text) and text[end + 1].isalnum():
                end = text.find(close, end + 1)  # the apostrophe of it's
            if end == -1:
                misses.add(close)
                continue
            if text[index + 1 : end].strip():
                found.append(Span("quote", text[index + 1 : end].strip(), index, end + 1, self.word_before(index)))
            done = end + 1
            if len(found) >= 200:
                break
        return found

    @cached_property
    def literals(self) -> list[Span]:
        """Bracketed lists and objects (``[1, 2]``, ``{"a": 1}``, ``(3, 4)``) as the values they write."""
        found: list[Span] = []
        text = self.text[: 10 * READ]
        for start, end in _brackets(text):
            value = _literal(text[start:end])
            if value is not None:
                found.append(Span("literal", value, start, end, self.word_before(start)))
        return found

    @cached_property
    def colon(self) -> Span | None:
        """What follows the first colon that ends a phrase (``Translate this: …``), to the end of the request."""
        match = re.search(r"(?<=[A-Za-z\"')])\s?:\s+(?=\S)", self.text[:READ])
        if not match:
            return None
        value = self.text[match.end() :].strip()
        return Span("colon", _unquoted(value), match.end(), len(self.text))

    @cached_property
    def expressions(self) -> list[Span]:
        """Formulas: ``3x^2 + 2x - 1``, ``sin(x)``, ``x**3``."""
        found: list[Span] = []
        run: list[tuple[int, int]] = []

        def close() -> None:
            while run and _OPERATOR.fullmatch(self.head[run[-1][0] : run[-1][1]]):
                run.pop()
            while run and _OPERATOR.fullmatch(self.head[run[0][0] : run[0][1]]) and self.head[run[0][0]] != "-":
                run.pop(0)
            if run:
                body = self.head[run[0][0] : run[-1][1]]
                equation = re.fullmatch(r"[a-zA-Z]\s*=\s*-?[\d.]+", body)
                if re.search(r"[a-z]", body) and re.search(r"[\^*+/²³(]|\d[xyztn]|\s-\s", body) and not equation:
                    found.append(Span("code", body, run[0][0], run[-1][1]))
            run.clear()

        operand = False
        for match in re.finditer(r"\S+", self.head[:4000]):
            word = match.group().rstrip(",.;?!'\"").lstrip("'\"")
            start = match.start() + match.group().find(word) if word else match.start()
            operator = bool(word) and bool(_OPERATOR.fullmatch(word))
            if (
                not word
                or len(word) > 200
                or not _ATOM.fullmatch(word)
                or (operand and not operator)
                or word in ("a", "A", "I")
            ):
                close()
                operand = False
            if word and len(word) <= 200 and _ATOM.fullmatch(word) and (word not in ("a", "A", "I") or run):
                run.append((start, start + len(word)))
                operand = not operator
            if word != match.group() and not match.group().startswith(("'", '"')):
                close()
                operand = False
        close()
        return found

    @cached_property
    def pairs(self) -> list[tuple[str, str, int, int]]:
        """``key: value``, ``key = value``, ``'key':'value'`` as (key, value, start, end of the value)."""
        found: list[tuple[str, str, int, int]] = []
        for match in _PAIR.finditer(self.head):
            key = _KEY.search(self.head[max(0, match.start() - 60) : match.start()])
            if key:
                name = key[1] or key[2] or key[3]
                value = _unquoted(match["value"]).rstrip(".,;?!")
                found.append((name.strip(), value, match.start("value"), match.end("value")))
            if len(found) >= 200:
                break
        return found

    @cached_property
    def names(self) -> list[Span]:
        """Runs of capitalised words (``New York City``, ``Bank of America``), the start of a sentence with care."""
        return list(_names(self))[:200]

    @cached_property
    def phrases(self) -> list[Span]:
        """Runs of words between prepositions and marks, each with the preposition before it."""
        plain = list(_phrases(self))[:300]
        joined = []
        for first, second in pairwise(plain):
            between = self.head[first.end : second.start]
            if re.fullmatch(r"\s+of\s+(?:the\s+|a\s+|an\s+)?", between):
                text = self.head[first.start : second.end]
                joined.append(Span("phrase", text, first.start, second.end, first.preposition))
        return plain + joined

    def word_before(self, position: int) -> str:
        """The word just before ``position``, in lower case."""
        match = re.search(r"([A-Za-z]+)[\s:]*$", self.text[max(0, position - 40) : position])
        return match[1].lower() if match else ""

    def tokens_before(self, position: int, limit: int) -> list[Token]:
        """Up to ``limit`` tokens before ``position``, nearest first."""
        index = self._index(position)
        return self.tokens[max(0, index - limit) : index][::-1]

    def tokens_after(self, position: int, limit: int) -> list[Token]:
        """Up to ``limit`` tokens from ``position`` on."""
        index = self._index(position)
        return self.tokens[index : index + limit]

    def _index(self, position: int) -> int:
        low, high = 0, len(self.tokens)
        while low < high:
            middle = (low + high) // 2
            if self.tokens[middle].start < position:
                low = middle + 1
            else:
                high = middle
        return low


def _inside(start: int, end: int, ranges: list[tuple[int, int]]) -> bool:
    return any(low <= start and end <= high for low, high in ranges)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] in _OPEN and text.endswith(_OPEN[text[0]]):
        return text[1:-1].strip()
    return text


def _brackets(text: str) -> Iterator[tuple[int, int]]:
    """The outermost balanced brackets."""
    closing = {"[": "]", "{": "}", "(": ")"}
    stack: list[tuple[str, int]] = []
    for match in re.finditer(r"[\[\]{}()]", text):
        mark = match.group()
        if mark in closing:
            stack.append((closing[mark], match.start()))
            if len(stack) > 50:
                return
        elif stack and stack[-1][0] == mark:
            _, start = stack.pop()
            if not stack or all(expected == ")" for expected, _ in stack):
                yield start, match.end()
        else:
            stack.clear()


def _literal(text: str) -> Any:
    """The value of a bracketed text, or ``None``: JSON first, then a list of bare words and numbers."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return value if isinstance(value, (list, dict)) and value else None
    if len(text) > 20_000:
        return None
    plain = text.replace("(", "[").replace(")", "]").replace("'", '"').replace("“", '"').replace("”", '"')
    plain = re.sub(r"\bTrue\b", "true", re.sub(r"\bFalse\b", "false", re.sub(r"\bNone\b", "null", plain)))
    plain = re.sub(r",\s*([\]}])", r"\1", plain)
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, (list, dict)) and value:
        return value if text[0] != "(" or (isinstance(value, list) and len(value) > 1) else None
    if text[0] == "[" and "[" not in text[1:] and "{" not in text:
        parts = [part.strip(" '\"") for part in text[1:-1].split(",")]
        return [_scalar(part) for part in parts] if all(parts) else None
    return None


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_OPENERS = word_set(
    """
    please could can would will i i'd i'm what what's which who whom whose when where why how is are was were do
    does did find get calculate compute show give tell search determine list create convert translate book order buy
    send make check add update delete generate predict estimate analyze analyse retrieve fetch look solve play draw
    plot compare identify set schedule remind write read run train provide need want help let suggest recommend if
    for in on at from given using with the a an my our this that evaluate perform also and then next classify
    summarize open close start stop cancel reserve locate simulate
    """
)
_JOIN = word_set("of the de la du von van der den and & for in")
_TITLES = word_set("mr mrs ms dr prof st sr jr inc ltd co corp d.c vs")


def _names(reading: Reading) -> Iterator[Span]:
    tokens, text = reading.tokens, reading.head
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if not _is_capital(token) or (_starts_sentence(tokens, index) and token.lower in _OPENERS):
            index += 1
            continue
        last = index
        look = index + 1
        while look < len(tokens):
            gap = text[tokens[look - 1].end : tokens[look].start]
            following = tokens[look]
            if _is_capital(following) and gap.strip() == "" and "\n" not in gap:
                last = look
            elif following.text in ("&", "-", "'") and look + 1 < len(tokens):
                pass
            elif (
                following.text == "."
                and gap == ""
                and (tokens[look - 1].lower in _TITLES or len(tokens[look - 1].text) == 1)
            ):
                last = look if tokens[look - 1].lower in _TITLES or last == look - 1 else last
            elif following.text.isdigit() and last == look - 1 and gap == " ":
                if any(m.start <= following.start < m.end for m in reading.dates):
                    break
                last = look
            elif (
                following.lower in _JOIN
                and following.lower not in ("and", "for", "in")
                and gap == " "
                and look - last < 3
            ):
                pass
            else:
                break
            look += 1
            if look - index > 12:
                break
        end = tokens[last].end
        value = re.sub(r"['’]s?$", "", text[token.start : end])
        end = token.start + len(value)
        if not (_starts_sentence(tokens, index) and last == index and token.lower in STOP):
            yield Span("name", value, token.start, end, reading.word_before(token.start))
        index = last + 1


def _is_capital(token: Token) -> bool:
    return token.text[0].isupper() and token.lower != "i" and not token.lower.startswith(("i'", "i’"))


def _starts_sentence(tokens: list[Token], index: int) -> bool:
    return index == 0 or tokens[index - 1].text in (".", "!", "?", ":", ";")


def _phrases(reading: Reading) -> Iterator[Span]:
    tokens, text = reading.tokens, reading.head
    start: int | None = None
    before = ""

    def span(first: int, stop: int) -> Span | None:
        if _starts_sentence(tokens, first):
            while first < stop and tokens[first].lower in _OPENERS:
                first += 1
        while first < stop and tokens[first].lower in (
            "the",
            "a",
            "an",
            "my",
            "our",
            "your",
            "any",
            "some",
            "its",
            "their",
            "all",
        ):
            first += 1
        if first >= stop or not any(t.is_word or t.text.isdigit() for t in tokens[first:stop]):
            return None
        low, high = tokens[first].start, tokens[stop - 1].end
        return Span("phrase", text[low:high], low, high, before)

    for index, token in enumerate(tokens):
        mark = (
            not token.is_word
            and not token.text[0].isdigit()
            and token.text not in ("-", "'", "’", "&", "/", "_", "%", "$", "+")
        )
        if token.text == "." and index + 1 < len(tokens) and tokens[index + 1].start == token.end:
            mark = False
        if mark or token.lower in _BREAK:
            if start is not None and (found := span(start, index)):
                yield found
            start = None
            before = (
                token.lower
                if token.lower in PREPOSITIONS
                else (before if token.text in "\"'" else "" if not mark else "," if token.text == "," else "")
            )
        elif start is None:
            start = index
    if start is not None and (found := span(start, len(tokens))):
        yield found
