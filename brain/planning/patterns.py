"""Which stretches of a request the ``pattern`` of a parameter matches, also when broken into lines or spaced out.

A match is evidence only as far as the pattern is selective: one that matches ordinary words or any number says what a
value may look like, not where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .cues import Candidate
from .parameters import Parameter
from .spans import Reading

__all__ = ["is_loose", "near_miss", "patterns"]

_PROSE = (
    *("of the and desk word order table please message question", "Paris", "Message"),
    *("The message", "order of the table", "the question is which desk should have this message, please"),
)
_PROBES = (*_PROSE[0].split(), *_PROSE[1:])
_NUMBERS = ("7", "42", "365", "2024", "90210", "123456")


@lru_cache(maxsize=1024)
def is_loose(pattern: re.Pattern[str]) -> bool:
    """Whether ordinary words, or numbers of any length, match ``pattern``."""
    words = sum(pattern.search(probe) is not None for probe in _PROBES)
    return words >= 2 or sum(pattern.search(probe) is not None for probe in _NUMBERS) >= 4


_ANY = r"(?:\[(?:[^\]\\]|\\.)+\]|\\[dwsDWS])\{\d+(?:,\d*)?\}"
_REPEATED = re.compile(r"(?P<one>\[(?:[^\]\\]|\\.)+\]|\\[dwsDWS])\{(?P<low>\d+)(?:(?P<more>,)(?P<high>\d*))?\}")
_SHAPES = re.compile(rf"\^?\(?(?:\?:)?({_ANY}(?:\|{_ANY})*)\)?\$?")


def near_miss(reading: Reading, parameter: Parameter) -> str:
    """What is wrong with the stretch that the parameter's ``pattern`` nearly matches, where its length is: or nothing.

    Told for patterns that repeat one class of characters, such as ``^[0-9.]{81}$``, or one of several.
    """
    shapes = _SHAPES.fullmatch(parameter.pattern.pattern) if parameter.pattern else None
    nearly = [_nearly(reading, shape) for shape in _REPEATED.finditer(shapes[1])] if shapes else []
    return min((found for found in nearly if found is not None), default=(0, 0, ""))[2]


def _nearly(reading: Reading, shape: re.Match[str]) -> tuple[int, int, str] | None:
    """By how much the stretch misses whose length is nearest to ``shape``'s, minus its length, and what is to say."""
    low = int(shape["low"])
    high = (int(shape["high"]) if shape["high"] else None) if shape["more"] else low
    allowed = re.compile(f"{shape['one']}+")
    fitting = [text for _, _, text in _stretches(reading) if len(text) * 2 > low and allowed.fullmatch(text)]
    if is_loose(allowed):
        fitting = [text for text in fitting if not text.isalpha()]
    if not fitting:
        return None
    miss, size = min((abs(len(text) - low), -len(text)) for text in fitting)
    wanted = f"{low}" if high == low else f"at least {low}" if high is None else f"{low} to {high}"
    plural = "" if wanted == "1" else "s"
    return miss, size, f"({wanted} character{plural} of {shape['one']}); the request has one of {-size}"


def patterns(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Stretches that the parameter's ``pattern`` matches, also when they were broken into lines or spaced out."""
    pattern = parameter.pattern
    if pattern is None or is_loose(pattern):
        return []
    found = []
    for start, end, text in _stretches(reading):
        if pattern.fullmatch(text):
            found.append(Candidate(text, 0.95, start, end, source="pattern"))
        elif " " not in text and pattern.search(text):
            found.append(Candidate(text, 0.7, start, end, source="pattern"))
        if len(found) >= 20:
            break
    return found


_LONG = 1_000_000


def _stretches(reading: Reading) -> Sequence[tuple[int, int, str]]:
    """Words, quotations, and runs of lines or words joined: what a pattern is tried on."""
    text = reading.text[:_LONG]
    found: list[tuple[int, int, str]] = []
    words = [(m.start(), m.end()) for m, _ in zip(re.finditer(r"\S+", text), range(60_000), strict=False)]
    for quote in reading.quotes:
        found.append((quote.start, quote.end, quote.value))
        joined = re.sub(r"\s+", "", quote.value)
        if joined != quote.value:
            found.append((quote.start, quote.end, joined))
    for start, end in words:
        word = text[start:end]
        found.append((start, end, word))
        bare = word.strip("\"'“”‘’`,;:!?()[]<>")
        if bare != word:
            found.append((start, end, bare))
        if bare.rstrip(".") != bare:
            found.append((start, end, bare.rstrip(".")))
    run: list[tuple[int, int]] = []
    for start, end in [*words, (-1, -1)]:
        dense = start >= 0 and not re.search(r"[A-Za-z]{2,}", text[start : min(end, start + 200)])
        if dense:
            run.append((start, end))
            continue
        if len(run) > 1:
            whole = text[run[0][0] : run[-1][1]]
            joined = re.sub(r"[\s|+,]+|-{2,}", "", whole)
            spaced = re.sub(r"\s+", " ", whole)
            found += [(run[0][0], run[-1][1], joined), (run[0][0], run[-1][1], spaced)]
            plain = "".join(text[a:b] for a, b in run)
            found += [(run[0][0], run[-1][1], plain)]
        run = []
    for width in (2, 3, 4):
        for index in range(min(len(words), 400) - width + 1):
            part = text[words[index][0] : words[index + width - 1][1]]
            found.append((words[index][0], words[index + width - 1][1], part.strip("\"'“”,.;:!?")))
    return found
