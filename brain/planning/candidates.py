"""What in a request could be the value of one parameter, with a score each: options, flags, dates and times.

Numbers, patterns and text have modules of their own. Which candidate each parameter gets is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..words import likeness, word_set
from .cues import Candidate, cue, preposition_fit
from .moments import Moment, write_date, write_time
from .parameters import Parameter
from .quantities import numbers
from .spans import Reading

__all__ = ["dates", "flags", "options", "times"]


def options(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Values that the schema names and the request says, also in another form or by a synonym."""
    found: list[Candidate] = []
    tokens = reading.tokens
    for option in parameter.options:
        size = len(option.stems)
        best: Candidate | None = None
        value = option.value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found += [
                Candidate(value, c.score + 0.1, c.start, c.end, source="option")
                for c in numbers(reading, parameter)
                if c.value == value
            ]
            continue
        words = [t for t in tokens if t.is_word or t.text[0].isdigit()]
        for index in range(len(words) - size + 1):
            alike = 1.0
            for offset, part in enumerate(option.stems):
                alike = min(alike, _option_likeness(words[index + offset].stem, part, option.closed))
                if not alike:
                    break
            if not alike:
                continue
            start, end = words[index].start, words[index + size - 1].end
            score = (0.85 if option.closed else 0.7) * alike + min(0.05 * (size - 1), 0.1)
            if any(n.start <= start and end <= n.end for n in reading.numerals):
                score -= 0.3
            left, right = cue(reading, start, end, parameter, frozenset())
            score += 0.2 * max(left, right) + preposition_fit(reading.word_before(start), parameter.position)
            if _denied(reading, start):
                score -= 0.5
            if best is None or score > best.score:
                best = Candidate(value, score, start, end, exclusive=not option.closed, source="option")
        if best:
            found.append(best)
    return found


def _option_likeness(word: str, part: str, closed: bool) -> float:
    if word == part:
        return 1.0
    if len(part) < 3 or part.isdigit():
        return 0.0
    return likeness(word, part) * 0.85 if closed else 0.0


_DENIALS = word_set(
    "no not without don't don’t doesn't doesn’t never exclude excluding avoid avoiding skip isn't isn’t omit"
)


def _denied(reading: Reading, position: int) -> bool:
    for token in reading.tokens_before(position, 3):
        if token.lower in _DENIALS:
            return True
        if token.text in ",.;":
            break
    return False


_FLAG_WORDS = word_set(
    "is has allow enabl us includ with show return should do can get want need flag option onli appli whether"
)


def flags(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Yes or no, from a word of the parameter's name that the request affirms or denies."""
    words = [w for w in parameter.words if w not in _FLAG_WORDS] or list(parameter.words)
    found = []
    hits: dict[str, tuple[int, int, float]] = {}
    for token in reading.tokens:
        if not token.is_content and token.lower not in words:
            continue
        for word in words:
            alike = likeness(token.stem, word)
            if alike > hits.get(word, (0, 0, 0.0))[2]:
                hits[word] = (token.start, token.end, alike)
    found += _opposites(reading, words)
    if hits:
        share = sum(hit[2] for hit in hits.values()) / len(words)
        start = min(hit[0] for hit in hits.values())
        end = max(hit[1] for hit in hits.values())
        said = re.match(
            r"\s*(?:is|=|:|to|as|set to)?\s*['\"]?(true|false|yes|no|on|off)\b", reading.head[end : end + 20], re.I
        )
        value = not any(_denied(reading, hit[0]) for hit in hits.values())
        if said:
            value, share = said[1].lower() in ("true", "yes", "on"), 1.0
        found.append(Candidate(value, 0.75 * share, start, end, exclusive=False, source="flag"))
    return found


_OPPOSITES = {
    "on": ("on", "off"), "enabl": ("enable", "disable"), "activ": ("activate", "deactivate"), "open": ("open", "close"),
    "lock": ("lock", "unlock"), "ascend": ("ascending", "descending"), "public": ("public", "private"),
    "visibl": ("show", "hide"), "start": ("start", "stop"), "mute": ("mute", "unmute"), "pin": ("pin", "unpin"),
    "subscrib": ("subscribe", "unsubscribe"), "archiv": ("archive", "unarchive"),
}  # fmt: skip


def _opposites(reading: Reading, words: Sequence[str]) -> list[Candidate]:
    """``off`` is no for a parameter called ``on``."""
    found = []
    for word in words:
        yes, no = _OPPOSITES.get(word, ("", ""))
        for said in (yes, no):
            if not said:
                continue
            for match in re.finditer(rf"\b{said}\w{{0,3}}\b", reading.head, re.IGNORECASE):
                verb = re.search(
                    r"\b(?:turn\w*|switch\w*|set|be|is|are|put)\b[^.;]{0,60}$",
                    reading.head[max(0, match.start() - 80) : match.start()],
                    re.I,
                )
                score = 0.8 if said not in ("on", "off") or verb else 0.4
                score -= 0.15 if said == "on" and re.match(r"\s+\d", reading.head[match.end() :][:3]) else 0.0
                found.append(Candidate(said == yes, score, match.start(), match.end(), exclusive=False, source="flag"))
    return found


def dates(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Dates, written as the parameter's description or format asks."""
    found = []
    starts = frozenset(m.start for m in reading.dates)
    for moment in reading.dates:
        text = _date_text(moment, parameter)
        if text is None:
            continue
        left, right = cue(reading, moment.start, moment.end, parameter, starts - {moment.start})
        score = 0.65 + 0.2 * max(left, right) + preposition_fit(reading.word_before(moment.start), parameter.position)
        score -= 0.15 if moment.month is None else 0.0
        found.append(Candidate(text, score, moment.start, moment.end, source="date"))
    for numeral in reading.numerals:
        if isinstance(numeral.value, int) and 1000 <= numeral.value <= 2200 and not numeral.unit and not numeral.money:
            score = 0.45 + 0.1 * ("year" in parameter.described) - 0.2 * bool(parameter.format)
            found.append(Candidate(str(numeral.value), score, numeral.start, numeral.end, source="year"))
    return found


def _date_text(moment: Moment, parameter: Parameter) -> str | None:
    written = write_date(moment, parameter.description, parameter.format)
    if written is not None:
        return written
    if parameter.format:
        return None
    return moment.text.strip(" ,.")


def times(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Times of day."""
    found = []
    for moment in reading.times:
        left, right = cue(reading, moment.start, moment.end, parameter, frozenset())
        text = write_time(moment, parameter.description, parameter.format)
        score = 0.65 + 0.2 * max(left, right) + preposition_fit(reading.word_before(moment.start), parameter.position)
        found.append(Candidate(text, score, moment.start, moment.end, source="time"))
    return found
