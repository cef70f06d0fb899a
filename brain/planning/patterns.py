"""Which stretches of a request the ``pattern`` of a parameter matches, also when broken into lines or spaced out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .cues import Candidate
from .parameters import Parameter
from .spans import Reading

__all__ = ["patterns"]


def patterns(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Stretches that the parameter's ``pattern`` matches, also when they were broken into lines or spaced out."""
    pattern = parameter.pattern
    if pattern is None:
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
