"""What in a request could be the value of a text parameter: quotations, names, phrases, codes, with a score each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ..words import STOP, likeness, stem, stems, vocabulary_of, word_set
from .candidates import dates, options, times
from .cues import Candidate, cue, preposition_fit
from .numerals import unit_in
from .parameters import Parameter
from .patterns import is_loose, patterns
from .spans import Reading, Span
from .wording import country_of, currency_code, is_name_of

__all__ = ["texts"]

_BASE = {
    "quote": 0.5,
    "name": 0.42,
    "phrase": 0.2,
    "id": 0.3,
    "path": 0.3,
    "code": 0.2,
    "colon": 0.25,
    "known": 0.4,
    "numeral": 0.1,
}
_PLACE_WORDS = word_set("in at near from to for around between and of within located based")
_KINDS = {
    "place": ("place",), "language": ("language",), "currency": ("currency",), "color": ("color",),
    "instrument": ("instrument",), "material": ("material",), "genre": ("genre", "demonym"),
    "transport": ("transport",), "sport": ("sport",), "species": ("animal",), "meal": ("meal",), "diet": ("diet",),
    "company": ("company",), "programming": ("programming",),
}  # fmt: skip
_CUISINE = frozenset(("cuisin", "food", "dish"))
_SUFFIXES = word_set("inc inc. ltd ltd. llc corp corp. gmbh co co. plc company corporation bank university")


def texts(reading: Reading, parameter: Parameter, known: frozenset[str]) -> list[Candidate]:
    """Candidates for a text parameter. ``known``: stems of the tool's own words, which describe and are no value."""
    pattern = parameter.pattern
    if pattern is None:
        return _texts(reading, parameter, known)
    if is_loose(pattern):
        return [c for c in _texts(reading, parameter, known) if pattern.search(str(c.value))]
    return patterns(reading, parameter)


def _texts(reading: Reading, parameter: Parameter, known: frozenset[str]) -> list[Candidate]:
    found = options(reading, parameter)
    if parameter.is_closed:
        return found
    role = parameter.role
    if role == "date":
        return found + dates(reading, parameter)
    if role == "time" and (clock := times(reading, parameter)):
        return found + clock
    if role == "email":
        return found + [_exact(reading, span, parameter) for span in reading.emails]
    if role == "url":
        return found + [_exact(reading, span, parameter) for span in reading.urls]
    if role == "unit":
        return found + _units(reading, parameter)
    if role == "phone":
        return found + _phones(reading)
    if role == "currency":
        return found + _currencies(reading, parameter)
    spans = list(_spans(reading, parameter))
    starts = frozenset(span.start for span in spans if span.source != "phrase")
    for span in spans:
        candidate = _scored(reading, span, parameter, known, starts - {span.start})
        if candidate:
            found.append(candidate)
    return found


def _exact(reading: Reading, span: Span, parameter: Parameter) -> Candidate:
    left, right = cue(reading, span.start, span.end, parameter, frozenset())
    return Candidate(
        span.value,
        0.75 + 0.2 * max(left, right) + preposition_fit(span.preposition, parameter.position),
        span.start,
        span.end,
    )


def _phones(reading: Reading) -> list[Candidate]:
    pattern = re.compile(r"(?<![\w.])\+?\(?\d[\d ().-]{5,18}\d(?!\w)")
    return [Candidate(m.group(), 0.8, m.start(), m.end()) for m in pattern.finditer(reading.head)]


def _currencies(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Codes, and names of currencies as their code where the parameter does not ask for the name."""
    found: list[Candidate] = []
    tokens = reading.tokens
    for index, token in enumerate(tokens[:2000]):
        pair = f"{tokens[index - 1].lower} {token.lower}" if index else ""
        code = currency_code(pair) or currency_code(token.lower)
        if not code:
            continue
        start = tokens[index - 1].start if currency_code(pair) else token.start
        adjoins = any(n.end <= start <= n.end + 1 or n.start <= start <= n.end for n in reading.numerals)
        left, right = cue(reading, start, token.end, parameter, frozenset())
        score = 0.7 + 0.2 * max(left, right) + preposition_fit(reading.word_before(start), parameter.position)
        score += 0.0 if not adjoins else 0.35 if parameter.position == 1 else -0.35 if parameter.position == 2 else 0.0
        found.append(Candidate(code, score, start, token.end))
    return found


def _units(reading: Reading, parameter: Parameter) -> list[Candidate]:
    found = []
    for match in re.finditer(r"\b(?:in|to|into|as|using)\s+((?:square |cubic )?[A-Za-z°/²³]+)", reading.head[:4000]):
        if unit_in("in " + match[1]):
            found.append(Candidate(match[1], 0.7, match.start(1), match.end(1), exclusive=False))
    for system in re.finditer(r"\b(metric|imperial)\b", reading.head, re.I):
        found.append(Candidate(system[1].lower(), 0.7, system.start(), system.end(), exclusive=False))
    return found


def _spans(reading: Reading, parameter: Parameter) -> Iterator[Span]:
    yield from reading.quotes
    yield from reading.names
    yield from _joined_places(reading) if parameter.role == "place" else ()
    yield from reading.phrases
    yield from reading.ids
    if parameter.role == "code":
        yield from reading.expressions
    if parameter.role == "path":
        yield from reading.paths
    if parameter.role in ("text", "", "code", "title") and reading.colon:
        yield reading.colon
    if parameter.role in _KINDS:
        for token in reading.tokens:
            inside = any(n.start <= token.start and token.end <= n.end and " " in n.value for n in reading.names)
            if token.is_word and not inside and any(is_name_of(kind, token.lower) for kind in _KINDS[parameter.role]):
                yield Span("name", token.text, token.start, token.end, reading.word_before(token.start))
    for numeral in reading.numerals:
        text = reading.head[numeral.start : numeral.end]
        if not numeral.unit and not numeral.spelled:
            yield Span("id", text, numeral.start, numeral.end, "#number")


def _joined_places(reading: Reading) -> Iterator[Span]:
    """``San Diego, CA``: a place and the larger one it is in."""
    names = reading.names
    for first, second in pairwise(names):
        between = reading.head[first.end : second.start]
        if between == ", " and (is_name_of("place", second.value) or re.fullmatch(r"[A-Z]{2,3}", second.value)):
            yield Span("name", f"{first.value}, {second.value}", first.start, second.end, first.preposition)


def _scored(
    reading: Reading, span: Span, parameter: Parameter, known: frozenset[str], starts: frozenset[int]
) -> Candidate | None:
    value, start, end = str(span.value), span.start, span.end
    score = _BASE[span.source]
    role = parameter.role
    named = 0.0
    if span.source == "phrase" or (span.source == "name" and role == "id"):
        trimmed = _trim(reading, span, parameter)
        if trimmed is None:
            return None
        value, start, end, named = trimmed
    left, right = cue(reading, start, end, parameter, starts)
    score += max(0.42 * max(left, 0.8 * right), named)
    if span.preposition == "#number":
        score = 0.1 + 0.4 * max(left, right) + (0.2 if role == "id" else -0.15)
    elif span.source == "id":
        score += 0.25 if role == "id" else 0.05 if role in ("path", "title", "") else -0.1
    score += preposition_fit(span.preposition, parameter.position)
    if span.preposition in ("named", "called", "titled", "name", "title"):
        score += 0.2 if role in ("title", "person", "company") else 0.1
    score += _role_fit(span, value, parameter)
    if span.source in ("phrase", "name"):
        score -= _own_words(value, parameter, known, strict=span.source == "phrase")
    if span.source in ("phrase", "name", "id") and any(
        q.start <= start and end <= q.end and len(str(q.value)) > len(value) for q in reading.quotes
    ):
        score -= 0.45
    if len(value) > 60 and role not in ("text", "code", "path"):
        score -= 0.3
    if role == "place" and "countri" in parameter.words and (country := country_of(value)):
        value, score = country, score + 0.3
    return Candidate(value, score, start, end, source=span.source)


def _trim(reading: Reading, span: Span, parameter: Parameter) -> tuple[str, int, int, float] | None:
    """A phrase without the parameter's own name in it: ``Thai food`` is ``Thai`` for ``food_type``."""
    tokens = [t for t in reading.tokens_after(span.start, 24) if t.end <= span.end]
    if not tokens:
        return None
    low, high, named = 0, len(tokens), 0.0
    middle = next((i for i in range(1, high) if _is_name_word(tokens[i].stem, parameter)), high)
    if middle < high and tokens[middle].text[0].isupper() and tokens[middle - 1].text[0].isupper():
        middle = high  # New York City is the city's name
    if middle < high:
        high, named = middle, 0.35
    while low < high - 1 and _is_name_word(tokens[low].stem, parameter):
        low += 1
        named = 0.4
    while low < high - 1 and (tokens[low].lower in STOP or not tokens[low].text[0].isalnum()):
        low += 1
    if (
        high - low == 1
        and span.source == "phrase"
        and (_is_name_word(tokens[low].stem, parameter) or tokens[low].lower in STOP)
    ):
        return None
    start, end = tokens[low].start, tokens[high - 1].end
    if high == len(tokens):
        end = span.end
    return reading.head[start:end], start, end, named if high - low < len(tokens) else 0.0


def _is_name_word(word: str, parameter: Parameter) -> bool:
    names = parameter.words if parameter.role != "kind" else (*parameter.words, *parameter.described)
    return any(likeness(word, name) >= 0.8 for name in names if len(name) > 2)


def _own_words(value: str, parameter: Parameter, known: frozenset[str], *, strict: bool) -> float:
    """What a value loses when it only repeats what the tool is called."""
    words = stems(value, 20)
    if not words:
        return 0.0 if any(c.isdigit() for c in value) else 0.2
    own = vocabulary_of(known)
    covered = sum(own.likeness(word) >= 0.8 for word in words) / len(words)
    return covered * (0.35 if strict else 0.15)


def _role_fit(span: Span, value: str, parameter: Parameter) -> float:
    role, source, before = parameter.role, span.source, span.preposition
    first = value[:1]
    capital = first.isupper()
    kinds = _KINDS.get(role, ())
    if is_name_of("calendar", value):
        return -0.4
    if kinds and any(is_name_of(kind, value) for kind in kinds):
        return 0.45
    if role in ("genre", "") and _CUISINE & set(parameter.words) and is_name_of("demonym", value):
        return 0.4
    if role == "place":
        score = 0.15 if before in _PLACE_WORDS else -0.05
        if source == "name":
            score += 0.2 if before in ("in", "at", "near", "from", "to", "between", "around") else 0.05
        if source == "name" and any(c.isdigit() for c in value):
            score -= 0.2
        return score - (0.2 if not capital else 0.0) - (0.3 if source in ("id", "colon") else 0.0)
    if role == "person":
        words = value.split()
        score = 0.15 if capital and 2 <= len(words) <= 4 and source != "quote" else 0.0
        score += 0.1 if before in ("by", "of", "for", "with", "to", "starring", "is") else 0.0
        return score - (0.25 if not capital or is_name_of("place", value) else 0.0)
    if role == "company":
        suffix = value.lower().split()[-1] in _SUFFIXES
        return 0.3 if suffix else (0.1 if capital else -0.25) - (0.2 if is_name_of("place", value) else 0.0)
    if role in ("language", "currency", "color", "instrument", "sport", "meal", "diet"):
        return -0.2
    if role == "code":
        return 0.45 if source == "code" else -0.1 if source in ("phrase", "name") else 0.1
    if role == "path":
        return 0.45 if source == "path" else -0.1 if source == "phrase" else 0.0
    if role == "text":
        return {"quote": 0.3, "colon": 0.3}.get(source, -0.1)
    if role == "id":
        code = bool(re.search(r"\d", value)) or (value.isupper() and len(value) < 8)
        return 0.2 if code else -0.15
    if role == "kind":
        return -0.3 if is_name_of("place", value) else -0.1 if source == "name" else 0.0
    if role == "title":
        score = 0.1 if source in ("quote", "name") else 0.0
        return score + (
            0.15 if before in ("about", "on", "of", "for", "regarding", "named", "called", "titled") else 0.0
        )
    if role in ("material", "genre", "transport", "species"):
        return 0.1 if before in ("of", "by", "with", "for", "from", "in") else 0.0
    return 0.05 if before in ("of", "for", "with", "about", "on", "by", "as", "using") and stem(before) else 0.0
