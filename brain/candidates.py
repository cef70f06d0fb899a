"""What in a request could be the value of one parameter, with a score each: numbers, options, dates, flags, lists.

Text values have a module of their own. Which candidate each parameter gets is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .cues import cue, naming, preposition_fit
from .moments import Moment, write_date, write_time
from .numerals import Numeral, convert, dimension
from .parameters import Parameter
from .spans import Reading
from .wording import likeness

__all__ = ["Candidate", "dates", "flags", "numbers", "options", "patterns", "times"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value and how well it fits. ``exclusive``: no other parameter may use the same stretch of the request."""

    value: Any
    score: float
    start: int
    end: int
    exclusive: bool = True
    source: str = ""


_MONEY = frozenset(
    """amount price cost invest principal salari budget valu incom monei dollar usd loan deposit payment fee revenu profit
    capit asset liabil equiti expens balanc contribut dividend debt earn cash rent""".split()
)
_RATE = frozenset("rate percent percentag interest return yield discount tax ratio probabl alpha growth margin inflat level".split())
_COUNT_UNITS = frozenset(("generation", "decade"))
_DIMENSION_WORDS = {
    "length": "distanc length height width radiu depth side diamet altitud base thick perimet far elev hypotenus",
    "mass": "mass weight",
    "time": "time durat hour minut second dai week month year period term ag span tenur interv timefram ahead",
    "volume": "volum capac",
    "area": "area size surfac footag",
    "speed": "speed veloc",
    "acceleration": "acceler graviti",
    "temperature": "temperatur temp",
    "angle": "angl theta rotat",
    "voltage": "voltag potenti",
    "current": "current",
    "charge": "charg",
    "resistance": "resist",
    "capacitance": "capacit",
    "inductance": "induct",
    "frequency": "frequenc",
    "power": "power",
    "energy": "energi calori heat work",
    "force": "forc",
    "pressure": "pressur",
}
_DIMENSIONS = {name: frozenset(words.split()) for name, words in _DIMENSION_WORDS.items()}


def numbers(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """Numbers of the request for a numeric parameter."""
    found = []
    numerals = [n for n in reading.numerals if not _in_date(reading, n)]
    starts = frozenset(n.start for n in numerals)
    lead = 0.0
    for index, numeral in enumerate(numerals):
        left, right = cue(reading, numeral.start, numeral.end, parameter, starts - {numeral.start})
        # "base and height as 6 and 10": what names the first of a run may name the others
        joined = index > 0 and _RUN.fullmatch(reading.head[numerals[index - 1].end : numeral.start])
        lead = left = max(left, 0.95 * lead) if joined else left
        value, shift = _fitted(numeral, parameter)
        if value is None:
            continue
        unit_word = naming(reading.tokens_after(numeral.start, 4)[1:2], parameter, 1.0) if numeral.unit else 0.0
        score = 0.3 + 0.5 * max(left, right, 0.9 * unit_word) + 0.1 * min(left, right) + shift
        score += _unit_fit(numeral, parameter) + _year_fit(numeral, parameter, reading)
        score += 0.6 * preposition_fit(reading.word_before(numeral.start), parameter.position)
        if numeral.ordinal:
            score -= 0.15
        if _counting(parameter) and not (numeral.unit or numeral.money or numeral.percent or numeral.ordinal):
            score += _count_fit(reading, numeral)
        if numeral.spelled and numeral.value in (0, 1, 0.5) and not numeral.unit:
            score -= 0.35
        elif numeral.spelled and parameter.position and right > 0.3 and not numeral.unit:
            score -= 0.35  # "its three sides" counts them
        elif numeral.spelled and numeral.value == 2 and right < 0.3 and not numeral.unit:
            score -= 0.2  # "the two sides", "two numbers": a manner of speaking
        if any(q.start < numeral.start and numeral.end < q.end for q in reading.quotes):
            score -= 0.2
        if any(e.start <= numeral.start and numeral.end <= e.end for e in reading.expressions):
            score -= 0.3
        found.append(Candidate(value, score, numeral.start, numeral.end, source="number"))
    return found + _clock_parts(reading, parameter) + _next_periods(reading, parameter)


_RUN = re.compile(r"\s*(?:units?)?\s*(?:,|and|,\s*and|&|or|to|x|by)\s*", re.IGNORECASE)
_COUNTS = frozenset("count limit top num quantiti number maximum max result".split())


def _counting(parameter: Parameter) -> bool:
    """Whether the parameter says how many results are wanted."""
    return bool(_COUNTS & set(parameter.words)) and bool(
        re.search(r"(?i)number of|how many|quantity|limit|top|maximum", parameter.description)
    )


def _count_fit(reading: Reading, numeral: Numeral) -> float:
    """``find ten …``, ``the top five …``, ``5 latest …`` say how many."""
    before = reading.word_before(numeral.start)
    return 0.3 if before in _COUNTING_VERBS else 0.0


_COUNTING_VERBS = frozenset(
    "find get show give list top me first last latest recommend suggest fetch retrieve search for the best order book buy".split()
)


def _in_date(reading: Reading, numeral: Numeral) -> bool:
    moments = [m for m in reading.dates if m.month is not None] + reading.times
    return any(m.start <= numeral.start and numeral.end <= m.end for m in moments)


def _fitted(numeral: Numeral, parameter: Parameter) -> tuple[int | float | None, float]:
    """The value in the parameter's unit and type, and what the fit of the type is worth."""
    value: int | float | None = numeral.value
    if numeral.unit == "K" and not {"temperatur", "temp", "kelvin"} & {*parameter.words, *parameter.described}:
        value = numeral.value * 1000
    if numeral.percent:
        value = _percent(numeral.value, parameter)
    elif numeral.unit and parameter.unit and parameter.unit != numeral.unit:
        converted = convert(numeral.value, numeral.unit, parameter.unit)
        if converted is not None and (parameter.kind == "number" or isinstance(converted, int)):
            value = converted
    if value is None:
        return None, 0.0
    shift = 0.0
    if parameter.kind == "integer":
        if isinstance(value, float):
            if not value.is_integer():
                return None, 0.0
            value = int(value)
    elif parameter.kind == "number" and isinstance(value, float):
        shift = 0.05
    if parameter.minimum is not None and value < parameter.minimum:
        return None, 0.0
    if parameter.maximum is not None and value > parameter.maximum:
        return None, 0.0
    return value, shift


def _percent(value: int | float, parameter: Parameter) -> int | float:
    """5 % is 0.05 where the parameter is a fraction, and 5 where it counts in percent or is whole."""
    text = parameter.description.lower()
    if re.search(r"decimal|fraction|0 to 1|0-1|between 0 and 1|0\.\d", text) or (
        parameter.maximum is not None and parameter.maximum <= 1
    ):
        return float(f"{value / 100:.12g}")
    if parameter.kind == "integer" or {"percent", "percentag", "pct"} & set(parameter.words):
        return value
    if re.search(r"percent|in %|\(%\)", text):
        return value
    return float(f"{value / 100:.12g}")


def _unit_fit(numeral: Numeral, parameter: Parameter) -> float:
    words = {*parameter.words}
    about = words | set(parameter.described)
    score = 0.0
    if numeral.percent:
        score += 0.35 if about & _RATE else -0.4
    elif words & {"rate", "percentag", "percent", "interest"} and not numeral.money and numeral.value > 1:
        score -= 0.1
    if numeral.money:
        score += 0.35 if words & _MONEY else 0.25 if about & _MONEY else -0.35
    if numeral.unit:
        kind = dimension(numeral.unit)
        if parameter.unit:
            same = dimension(parameter.unit) == kind
            score += 0.3 if same else -0.5
            if same and parameter.unit == numeral.unit:
                score += 0.1
        elif words & _DIMENSIONS.get(kind, frozenset()):
            score += 0.3
        elif about & _DIMENSIONS.get(kind, frozenset()):
            score += 0.1
        elif any(words & other for name, other in _DIMENSIONS.items() if name != kind):
            score -= 0.4
        elif words & _MONEY or words & _RATE:
            score -= 0.35
        elif kind == "time":
            score -= 0.2
    return score


def _year_fit(numeral: Numeral, parameter: Parameter, reading: Reading) -> float:
    if parameter.role == "year" or "year" in parameter.words:
        plain = isinstance(numeral.value, int) and not numeral.unit and not numeral.money and not numeral.percent
        if plain and 1000 <= numeral.value <= 2200:
            return 0.4 if parameter.role == "year" else 0.2
        return -0.15 if parameter.role == "year" and not numeral.unit else 0.0
    bare = not (numeral.unit or numeral.money or numeral.percent)
    if bare and 1500 <= numeral.value <= 2100 and reading.word_before(numeral.start) in ("in", "year", "since", "during"):
        return -0.3
    return 0.0


_PERIOD = re.compile(r"\b(?:next|past|last|coming|upcoming|following|previous)\s+(day|week|month|year|hour|decade)\b", re.IGNORECASE)


def _next_periods(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """``the next week`` is one week, or seven days."""
    found = []
    for match in _PERIOD.finditer(reading.head):
        value = convert(1, match[1].lower(), parameter.unit) if parameter.unit else None
        if isinstance(value, int):
            found.append(Candidate(value, 0.65, match.start(), match.end(), exclusive=False, source="number"))
    return found


def _clock_parts(reading: Reading, parameter: Parameter) -> list[Candidate]:
    """``6:30`` has an hour and a minute, ``2024-05-03`` a year, a month and a day."""
    found = []
    parts = (("year", "year"), ("month", "month"), ("dai", "day"), ("hour", "hour"), ("minut", "minute"))
    for moment in [*reading.dates, *reading.times]:
        for word, part in parts:
            value = getattr(moment, part)
            if value is None or word not in parameter.words:
                continue
            if part == "hour" and moment.half == "pm" and re.search(r"24|0-23", parameter.description) and value < 12:
                value += 12
            found.append(Candidate(value, 0.8, moment.start, moment.end, exclusive=False, source="date"))
    return found


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
            score += 0.2 * max(left, right)
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


_DENIALS = frozenset("no not without don't don’t doesn't doesn’t never exclude excluding avoid avoiding skip isn't isn’t omit".split())


def _denied(reading: Reading, position: int) -> bool:
    for token in reading.tokens_before(position, 3):
        if token.lower in _DENIALS:
            return True
        if token.text in ",.;":
            break
    return False


_FLAG_WORDS = frozenset(
    "is has allow enabl us includ with show return should do can get want need flag option onli appli whether".split()
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
        said = re.match(r"\s*(?:is|=|:|to|as|set to)?\s*['\"]?(true|false|yes|no|on|off)\b", reading.head[end : end + 20], re.I)
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
                verb = re.search(r"\b(?:turn\w*|switch\w*|set|be|is|are|put)\b[^.;]{0,60}$", reading.head[max(0, match.start() - 80) : match.start()], re.I)
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
    words = [(m.start(), m.end()) for m, _ in zip(re.finditer(r"\S+", text), range(4000), strict=False)]
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
