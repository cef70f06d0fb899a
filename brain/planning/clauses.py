"""A request taken apart where it asks for more than one thing. Knows nothing of tools but their verbs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .spans import Reading
from .wording import likeness, stem, word_set

__all__ = ["refers_back", "split"]

_VERB_WORDS = """find get calculate compute show give tell search determine list create convert translate book order
    buy send make check add update delete generate predict estimate analyze retrieve fetch look solve play draw plot
    compare identify set schedule remind write read run train provide suggest recommend open close start stop cancel
    reserve locate classify summarize count email mail notify post file route return sort save store print explain
    forward call text message assign escalate log record register remove pay transfer move copy rename upload download
    evaluate verify validate measure detect extract switch turn put change move raise lower cut apply assume clean
    merge split encrypt decode parse list name describe review assess approve reject reply answer share invite"""
_VERBS = frozenset(stem(word) for word in _VERB_WORDS.split())
_OPENING = word_set("please would like can i want need to kindly me you we let's use just")
_ASKING = word_set("what what's who which when where how is are does do can could tell")
_CUT = re.compile(
    r"\s{0,8}(?:[,;.!?]\s{0,8})?\b(?:and\s{1,8})?"
    r"(?:then|after that|afterwards|after which|subsequently|once (?:that is|that's) done)\b[,:]?\s{1,8}"
    r"|\s{0,8}[;.!?]\s{1,8}(?:(?:and|also|next|finally|additionally|secondly|plus)\b,?\s{0,8})*(?=[A-Za-z\"'“])"
    r"|\s{0,8}[,]?\s{1,8}(?:and|plus|as well as)\s{1,8}(?:(?:also|finally|next|please)\s{1,8})*(?=[A-Za-z])"
    r"|\s{0,8},\s{1,8}(?:(?:also|finally|next)\s{1,8})*(?=[A-Za-z])",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:it|its|this|them|their|that|those|these|him|her|the (?:result|answer|output|solution|value|outcome|label|"
    r"response|translation|summary|total|sum|same)s?|result)\b",
    re.IGNORECASE,
)


def split(reading: Reading, verbs: Iterable[str]) -> list[str]:
    """The clauses of a request that each begin with a verb or a question word, in order; one if there are no more.

    ``verbs`` are stems of the tools' own verbs. Quotations and brackets are never cut.
    """
    text = reading.text
    head = reading.head
    known = _VERBS | set(verbs)
    closed = [(s.start, s.end) for s in (*reading.quotes, *reading.literals, *reading.urls, *reading.emails)]
    cuts: list[tuple[int, int]] = []
    for match in _CUT.finditer(head):
        if any(start < match.end() and match.start() < end for start, end in closed):
            continue
        if _begins_request(head[match.end() : match.end() + 60], known, loose="then" in match.group().lower()):
            cuts.append((match.start(), match.end()))
        if len(cuts) >= 7:
            break
    parts, start = [], 0
    for low, high in [*cuts, (len(text), len(text))]:
        part = text[start:low].strip()
        if part:
            parts.append(part)
        start = high
    if len(parts) > 1 and not _begins_request(parts[0][:60], known, loose=False):
        parts[:2] = [text[: text.find(parts[1], len(parts[0])) + len(parts[1])].strip()]
    return parts or [text]


def _begins_request(text: str, verbs: frozenset[str] | set[str], *, loose: bool) -> bool:
    words = re.findall(r"[A-Za-z']+", text)[:3]
    while words and words[0].lower() in _OPENING:
        words = words[1:]
    if not words:
        return False
    first = words[0].lower()
    return loose or first in _ASKING or stem(first) in verbs


def refers_back(clause: str) -> bool:
    """Whether a clause speaks of what an earlier one gave: ``email it``, ``the result``."""
    return bool(_BACK.search(clause[:2000]))


def verb_stems(names: Sequence[Sequence[str]]) -> set[str]:
    """The first words of tools' names, which are mostly verbs, where no general verb means the same."""
    return {words[0] for words in names if words and not any(likeness(words[0], verb) == 1.0 for verb in _VERBS)}
