"""A request taken apart where it asks for more than one thing. Knows nothing of tools but their verbs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..words import FAINT, stem, word_set
from .spans import Reading

__all__ = ["reference_goes_first", "refers_back", "says_something", "split", "verb_stems"]

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


def split(reading: Reading, verbs: Iterable[str], whole: Sequence[tuple[int, int]] = ()) -> list[str]:
    """The clauses of a request that each begin with a verb or a question word, in order; one if there are no more.

    ``verbs`` are stems of the tools' own verbs. Quotations, brackets and the stretches ``whole`` are
    never cut.
    """
    text = reading.text
    head = reading.head
    known = _VERBS | set(verbs)
    closed = [(s.start, s.end) for s in (*reading.quotes, *reading.literals, *reading.urls, *reading.emails)]
    cuts: list[tuple[int, int]] = []
    for match in _CUT.finditer(head):
        if any(start < match.end() and match.start() < end for start, end in closed):
            continue
        # a mark that belongs to a value before it ("… 3.76. and then") is not part of the cut
        low = max((end for start, end in whole if start < match.start() < end < match.end()), default=match.start())
        if any(start < match.end() and low < end for start, end in whole):
            continue
        if _begins_request(head[match.end() : match.end() + 60], known, loose="then" in match.group().lower()):
            cuts.append((low, match.end()))
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


_WORKED_ON = word_set("to from of in into on onto for at")
_WORKED_WITH = word_set("by with than using")


def reference_goes_first(clause: str, place: int) -> bool:
    """Whether the earlier answer that ``clause`` speaks of comes before the value at ``place`` among alike parameters.

    ``Add 10 to the result`` and ``divide it by 2`` work on the answer; ``divide 100 by it`` works with it.
    """
    found = _BACK.search(clause[:2000])
    if found is None:
        return True
    before = re.findall(r"[A-Za-z]+", clause[max(0, found.start() - 30) : found.start()])
    preposition = before[-1].lower() if before else ""
    if preposition in _WORKED_WITH:
        return False
    return preposition in _WORKED_ON or found.start() < place


_MANNERS = word_set(
    """
    please thank thanks let me know tell show give explain answer result results back sure kindly help quick quickly
    fast soon urgent important step steps work
    """
)


def says_something(clause: str) -> bool:
    """Whether a clause asks for anything beyond politeness and the answer itself (``show me the result``)."""
    tokens = Reading(clause).tokens
    rest = [t for t in tokens if t.is_content and t.lower not in _MANNERS]
    return any(t.lower not in FAINT for t in rest) and not (tokens and tokens[0].lower in _EXPLAINING)


_EXPLAINING = word_set("it it's this that these those i i'm we he she they there")


def verb_stems(names: Sequence[Sequence[str]]) -> set[str]:
    """The first words of tools' names, which are mostly verbs, where no general verb means the same."""
    return {words[0] for words in names if words} - _VERBS
