"""Dates and times of day in a text, and how a parameter wants them written. Knows nothing of tools."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Moment", "find_dates", "find_times", "write_date", "write_time"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A date (``year``, ``month``, ``day``, each ``None`` if unsaid) or a time of day (``hour``, ``minute``)."""

    start: int
    end: int
    text: str
    year: int | None = None
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None
    half: str = ""
    """``am``, ``pm`` or empty, as it was said."""


_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH = (
    r"(?P<month>"
    + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS).replace("sep(", "sept?(")
    + r")(?![A-Za-z])\.?"
)
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<!\d)(?P<year>[12]\d{3})[-/.](?P<month>[01]?\d)[-/.](?P<day>[0-3]?\d)(?!\d)",
        r"(?<!\d)(?P<first>[0-3]?\d)(?P<mark>[-/.])(?P<second>[0-3]?\d)(?P=mark)(?P<year>[12]\d{3})(?!\d)",
        rf"(?<!\w){_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+(?:of\s+)?{_YEAR})?(?!\d)",
        rf"\b{_MONTH}\s*{_DAY}(?!\d)(?:,?\s*{_YEAR}(?!\d))?",
        rf"\b{_MONTH},?\s+(?:of\s+)?{_YEAR}(?!\d)",
    )
)
_RELATIVE = re.compile(
    r"\b(?:the day after tomorrow|day after tomorrow|today|tomorrow|yesterday|tonight|"
    r"(?:next|this|last|coming)\s+(?:week(?:end)?|month|year|monday|tuesday|wednesday|thursday|friday|saturday|sunday)|"
    r"monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"(?<![\d:.])(?P<hour>[0-2]?\d):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?:\s?(?P<half>[ap])\.?m\b\.?)?|"
    r"(?<![\d:.])(?P<hour2>1[0-2]|0?\d)\s?(?P<half2>[ap])\.?m\b\.?|"
    r"\b(?P<word>noon|midnight|midday)\b",
    re.IGNORECASE,
)


def find_dates(text: str, limit: int = 100) -> list[Moment]:
    """Dates in order, words such as ``tomorrow`` included (with no parts, only their text)."""
    found: list[Moment] = []
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if len(found) >= limit:
                break
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            moment = _date(match)
            if moment:
                found.append(moment)
                taken.append((moment.start, moment.end))
    for match in _RELATIVE.finditer(text):
        if len(found) >= limit:
            break
        if not any(match.start() < end and start < match.end() for start, end in taken):
            found.append(Moment(match.start(), match.end(), match.group()))
    return sorted(found, key=lambda moment: moment.start)


def _date(match: re.Match[str]) -> Moment | None:
    parts = match.groupdict()
    year = int(parts["year"]) if parts.get("year") else None
    if "first" in parts:
        # 13/05/2024 can only be read one way; 05/06/2024 is read as month first, as its writers mostly mean it
        first, second = int(parts["first"]), int(parts["second"])
        month, day = (second, first) if first > 12 or parts["mark"] == "." else (first, second)
    else:
        name = parts["month"].lower()
        month = int(name) if name.isdigit() else 1 + [m[:3] for m in _MONTHS].index(name[:3])
        day = int(parts["day"]) if parts.get("day") else 0
    if not 1 <= month <= 12 or day > 31 or (day == 0 and year is None):
        return None
    end = match.end()
    return Moment(match.start(), end, match.group(), year=year, month=month, day=day or None)


def find_times(text: str, limit: int = 100) -> list[Moment]:
    """Times of day in order."""
    found: list[Moment] = []
    for match in _TIME.finditer(text):
        if len(found) >= limit:
            break
        word = (match["word"] or "").lower()
        half = (match["half"] or match["half2"] or "").lower()
        hour = {"noon": 12, "midday": 12, "midnight": 0}[word] if word else int(match["hour"] or match["hour2"])
        minute = int(match["minute"] or 0)
        second = int(match["second"]) if match["second"] else None
        if hour > 23 or (half and hour > 12):
            continue
        found.append(
            Moment(match.start(), match.end(), match.group(), hour=hour, minute=minute, second=second,
                   half=half + "m" if half else "")
        )  # fmt: skip
    return found


def write_date(moment: Moment, description: str, format: str = "") -> str | None:
    """``moment`` as ``description`` asks (``YYYY-MM-DD``, ``month-day-year`` …); ``None``: as it was said.

    ``format`` is the schema's own: ``date`` and ``date-time`` are ISO 8601.
    """
    if moment.month is None:
        return None
    pattern = None if format else _pattern(description)
    if moment.year is None:
        return None
    if moment.day is None:
        return f"{moment.year:04d}-{moment.month:02d}" if re.search(r"yyyy-mm\b(?!-)", description, re.I) else None
    if pattern is None:
        if not format and not re.match(r"\d{4}-\d\d?-\d\d?$", moment.text) and not _ISO_HINT.search(description):
            return (
                None
                if not re.search(r"\d{4}", description)
                else f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
            )
        return f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
    order, mark = pattern
    parts = {"y": f"{moment.year:04d}", "m": f"{moment.month:02d}", "d": f"{moment.day:02d}"}
    return mark.join(parts[letter] for letter in order)


_ISO_HINT = re.compile(r"\biso\b|8601|\d{4}-\d\d-\d\d", re.IGNORECASE)
_PATTERN = re.compile(
    r"\b(?P<a>y{2,4}|year|m{2}|month|d{2}|day)(?P<mark>[-/. ])(?P<b>m{2}|month|d{2}|day)(?P=mark)"
    r"(?P<c>y{2,4}|year|d{2}|day)\b",
    re.IGNORECASE,
)


def _pattern(description: str) -> tuple[str, str] | None:
    match = _PATTERN.search(description)
    if match:
        order = "".join(match[name][0].lower() for name in "abc")
        return (order, match["mark"]) if sorted(order) == ["d", "m", "y"] else None
    example = re.search(r"(?<!\d)(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?!\d)", description)
    if example and len(example[1]) == 4:
        return "ymd", example[2]
    if example and len(example[4]) == 4:
        return ("dmy" if int(example[1]) > 12 else "mdy"), example[2]
    return None


def write_time(moment: Moment, description: str, format: str = "") -> str:
    """``moment`` as ``HH:MM`` where the description or ``format`` asks for it, else as it was said."""
    hour = moment.hour or 0
    if moment.half == "pm" and hour < 12:
        hour += 12
    elif moment.half == "am" and hour == 12:
        hour = 0
    if format == "time" or re.search(r"hh:mm:ss", description, re.IGNORECASE):
        return f"{hour:02d}:{moment.minute or 0:02d}:{moment.second or 0:02d}"
    if re.search(r"24|hh:mm|\b\d\d:\d\d\b", description, re.IGNORECASE) and not re.search(
        r"am/pm|\b\d\d?:\d\d ?[ap]m|\b[ap]m\b", description, re.IGNORECASE
    ):
        return f"{hour:02d}:{moment.minute or 0:02d}"
    return moment.text
