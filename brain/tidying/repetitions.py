"""Lines and paragraphs that are repeated word for word: kept once, at their first place, where they read as text.

A list, a table or a column of values is data; a word in it twice is there twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .characters import HAN
from .protecting import MARKS
from .spelling import SENTENCE_ENDS

__all__ = ["without_repetitions"]

_COUNTED_WORD = re.compile(r"[^\W_]+")


class _Line(NamedTuple):
    text: str
    words: str
    """The text without the blanks before it: how far a line is indented makes it no other."""
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
        yield _Line(line, line.lstrip(" \t"), not touched and MARKS.search(line) is None)
        start = end + 1


def _reads_as_text(line: str) -> bool:
    """A sentence of three words, or six words; where a script has no spaces, two characters count as a word."""
    words = len(_COUNTED_WORD.findall(line)) + len(HAN.findall(line)) // 2
    return words >= 6 or (words >= 3 and line.rstrip()[-1:] in SENTENCE_ENDS)


def without_repetitions(text: str, places: Sequence[tuple[int, int]], changes: Counter[str]) -> str:
    """``text`` without the lines and paragraphs that stand in it before, word for word."""
    shown = [line.lstrip(" \t") for line in text.split("\n") if line]
    if len(set(shown)) == len(shown):
        return text
    lines = list(_lines(text, places))
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
        whole = "\n".join(line.words for line in block)
        several = len(block) > 1 and all(line.free for line in block) and len(_COUNTED_WORD.findall(whole)) >= 5
        if several and whole in paragraphs:
            changes["paragraphs"] += 1
            left: list[_Line] = []
        else:
            if several:
                paragraphs.add(whole)
            left = []
            for line in block:
                if line.free and line.words in known and _reads_as_text(line.words):
                    changes["lines"] += 1
                    continue
                if line.free:
                    known.add(line.words)
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
