"""Which numbers of a request could be the value of a numeric parameter, with a score each.

What counts: the words that name the number, its unit, and whether it is money, a percentage, a year or a count.
"""

from __future__ import annotations

import re

from ..words import word_set
from .cues import Candidate, cue, naming, preposition_fit
from .numerals import Numeral, convert, dimension
from .parameters import Parameter
from .spans import Reading

__all__ = ["numbers"]

_MONEY = word_set(
    """
    amount price cost invest principal salari budget valu incom monei dollar usd loan deposit payment fee revenu
    profit capit asset liabil equiti expens balanc contribut dividend debt earn cash rent
    """
)
_ANY_AMOUNT = word_set("valu amount level")
_RATE = word_set(
    "rate percent percentag interest return yield discount tax ratio probabl alpha growth margin inflat level"
)
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
_COUNTS = word_set("count limit top num quantiti number maximum max result")


def _counting(parameter: Parameter) -> bool:
    """Whether the parameter says how many results are wanted."""
    return bool(_COUNTS & set(parameter.words)) and bool(
        re.search(r"(?i)number of|how many|quantity|limit|top|maximum", parameter.description)
    )


def _count_fit(reading: Reading, numeral: Numeral) -> float:
    """``find ten …``, ``the top five …``, ``5 latest …`` say how many."""
    before = reading.word_before(numeral.start)
    return 0.3 if before in _COUNTING_VERBS else 0.0


_COUNTING_VERBS = word_set(
    "find get show give list top me first last latest recommend suggest fetch retrieve search for best order book buy"
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
        elif (words - _ANY_AMOUNT) & _MONEY or words & _RATE:
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
    if (
        bare
        and 1500 <= numeral.value <= 2100
        and reading.word_before(numeral.start) in ("in", "year", "since", "during")
    ):
        return -0.3
    return 0.0


_PERIOD = re.compile(
    r"\b(?:next|past|last|coming|upcoming|following|previous)\s+(day|week|month|year|hour|decade)\b", re.IGNORECASE
)


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
