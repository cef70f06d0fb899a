"""Numbers as people write them, and the units beside them. Knows nothing of tools or parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..words import word_set

__all__ = ["Numeral", "convert", "dimension", "find_numerals", "unit_in"]


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text. ``unit`` is the unit written beside it, in its plain form (``km``), or empty."""

    value: int | float
    start: int
    end: int
    unit: str = ""
    percent: bool = False
    money: bool = False
    ordinal: bool = False
    spelled: bool = False


_SMALL_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_WORDS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_SMALL = {word: value for value, word in enumerate(_SMALL_WORDS.split())}
_TENS = {word: 10 * value for value, word in enumerate(_TENS_WORDS.split(), start=2)}
_ORDINAL = {word: value for value, word in enumerate(_ORDINAL_WORDS.split(), start=1)}
_SCALE = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "crore": 10**7,
    "dozen": 12,
}
_DIGITS = re.compile(
    r"(?<![\w.])(?P<sign>[-−+](?=[\d.$€£]))?(?P<money>[$€£¥₹₩]|(?:USD|EUR|GBP|Rs\.?)\s)?\s?"
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<power>[eE][-+]?\d{1,3}|\s?[x×*]\s?10\^\(?-?\d{1,3}\)?)?"
    r"(?:\s?(?P<percent>%)|(?P<ordinal>st|nd|rd|th)\b|(?P<short>[kKmMbB]n?)(?![\w/²³^]))?"
)
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_UNIT_AFTER = re.compile(
    r"\s*-?\s*(?P<unit>(?:cubic|square|sq\.?)\s+[A-Za-z]+|[µμ]?[A-Za-z°Ω]+(?:/[A-Za-z]+)?(?:\^?[23²³](?![\d,.]\d))?)"
)

# name of the dimension: base unit 1, and how many of the base each unit is
_UNITS: dict[str, dict[str, float]] = {
    "length": {
        "m": 1, "mm": 1e-3, "cm": 1e-2, "km": 1e3, "nm": 1e-9, "µm": 1e-6, "inch": 0.0254, "ft": 0.3048,
        "yard": 0.9144, "mile": 1609.344, "light-year": 9.4607e15,
    },
    "mass": {"kg": 1, "g": 1e-3, "mg": 1e-6, "lb": 0.45359237, "oz": 0.028349523125, "ton": 1000},
    "time": {
        "s": 1, "ms": 1e-3, "min": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2629800,
        "year": 31557600, "decade": 315576000, "quarter": 7889400, "generation": 0,
    },
    "volume": {"l": 1, "ml": 1e-3, "m³": 1000, "gallon": 3.785411784, "cup": 0.2366, "pint": 0.473176473},
    "area": {"m²": 1, "ft²": 0.09290304, "km²": 1e6, "acre": 4046.8564224, "hectare": 1e4, "cm²": 1e-4},
    "speed": {"m/s": 1, "km/h": 1 / 3.6, "mph": 0.44704, "knot": 0.514444},
    "acceleration": {"m/s²": 1, "g-force": 9.80665},
    "temperature": {"°C": 0, "°F": 0, "K": 0},
    "angle": {"degree": 1, "radian": 57.29577951308232},
    "voltage": {"V": 1, "mV": 1e-3, "kV": 1e3},
    "current": {"A": 1, "mA": 1e-3},
    "charge": {"C": 1, "µC": 1e-6, "nC": 1e-9},
    "resistance": {"Ω": 1, "kΩ": 1e3},
    "capacitance": {"F": 1, "µF": 1e-6, "nF": 1e-9, "pF": 1e-12},
    "inductance": {"H": 1, "mH": 1e-3, "µH": 1e-6},
    "frequency": {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "power": {"W": 1, "kW": 1e3, "MW": 1e6, "hp": 745.7},
    "energy": {"J": 1, "kJ": 1e3, "kWh": 3.6e6, "kcal": 4184},
    "force": {"N": 1, "kN": 1e3},
    "pressure": {"Pa": 1, "kPa": 1e3, "atm": 101325, "bar": 1e5, "psi": 6894.757},
    "amount": {"mol": 1},
    "data": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "bit": 0.125},
}  # fmt: skip
_SPELLINGS: dict[str, str] = {
    "m": "meter meters metre metres", "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres", "km": "kilometer kilometers kilometre kilometres kms",
    "nm": "nanometer nanometers", "µm": "micrometer micrometers", "inch": "inches", "ft": "foot feet",
    "yard": "yards yd", "mile": "miles mi", "kg": "kilogram kilograms kgs kilo kilos", "g": "gram grams",
    "mg": "milligram milligrams", "lb": "pound pounds lbs", "oz": "ounce ounces", "ton": "tons tonne tonnes",
    "s": "second seconds sec secs", "ms": "millisecond milliseconds", "min": "minute minutes mins",
    "hour": "hours hr hrs h", "day": "days", "week": "weeks", "month": "months", "year": "years yr yrs annum",
    "decade": "decades", "quarter": "quarters", "generation": "generations", "l": "liter liters litre litres",
    "ml": "milliliter milliliters millilitre millilitres", "gallon": "gallons", "cup": "cups", "pint": "pints",
    "acre": "acres", "hectare": "hectares", "mph": "mi/h miles/hour", "km/h": "kmh kph km/hr kmph", "knot": "knots",
    "m/s": "meters/second mps", "m/s²": "m/s^2 m/s2", "°C": "celsius c", "°F": "fahrenheit f", "K": "kelvin kelvins",
    "degree": "degrees °", "radian": "radians rad", "V": "volt volts", "kV": "kilovolt kilovolts",
    "A": "ampere amperes amp amps", "mA": "milliampere milliamps", "C": "coulomb coulombs", "Ω": "ohm ohms",
    "F": "farad farads", "H": "henry henries henrys", "µF": "μf uf microfarad microfarads",
    "mH": "millihenry millihenries", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "W": "watt watts", "kW": "kilowatt kilowatts", "MW": "megawatt megawatts", "hp": "horsepower",
    "J": "joule joules", "kJ": "kilojoule kilojoules", "kcal": "calorie calories kilocalories",
    "N": "newton newtons", "Pa": "pascal pascals", "kPa": "kilopascal kilopascals",
    "atm": "atmosphere atmospheres", "bar": "bars", "mol": "mole moles", "B": "byte bytes", "kB": "kilobyte kilobytes",
    "MB": "megabyte megabytes", "GB": "gigabyte gigabytes", "TB": "terabyte terabytes", "bit": "bits",
    "m²": "m^2 m2 sqm sq.m", "ft²": "sqft ft^2 ft2", "km²": "km^2 km2", "m³": "m^3 m3", "cm²": "cm^2 cm2",
}  # fmt: skip
_DIMENSION = {unit: name for name, units in _UNITS.items() for unit in units}
_AS_WRITTEN = {unit: unit for unit in _DIMENSION} | {"μF": "µF", "μC": "µC", "°": "degree"}
_FOLDED = {unit.lower(): unit for unit in _DIMENSION if len(unit) > 1} | {
    word: unit for unit, words in _SPELLINGS.items() for word in words.split()
}
_AMBIGUOUS = word_set("A C F K B g c f in h")
"""Letters that are more often a word or a name than a unit: a unit only when they touch the number."""


def unit_in(text: str) -> str:
    """The unit that the words of a description name (``height in centimeters``), or empty."""
    for match in re.finditer(r"(?:cubic|square|sq\.?)\s+[A-Za-z]+|[µμ]?[A-Za-z°Ω]+(?:/[A-Za-z]+)?(?:\^?[23²³])?", text):
        word = match.group()
        unit = _unit(word)
        if not unit:
            continue
        before = " " + text[: match.start()].rstrip(" (").lower()
        spelled = len(word) > 2 or "/" in word
        if before.endswith((" in", "of", "per", "as", "number of")) and not (len(word) == 1 and word.islower()):
            return unit
        if text[: match.start()].endswith("(") and text[match.end() : match.end() + 1] == ")":
            return unit
        if text[: match.start()].endswith(", ") and not spelled:
            return unit
    return ""


def _unit(word: str) -> str:
    if word in _AS_WRITTEN:
        return _AS_WRITTEN[word]
    lower = word.lower()
    square = re.match(r"(square|sq\.?|cubic)\s+(.+)", lower)
    if square:
        base = _FOLDED.get(square.group(2), "")
        power = "³" if square.group(1) == "cubic" else "²"
        return base + power if base + power in _DIMENSION else ""
    return _FOLDED.get(lower, "") if len(word) > 1 or lower in ("h", "°") else ""


def dimension(unit: str) -> str:
    """``length`` for ``km``; empty for what is not a unit."""
    return _DIMENSION.get(unit, "")


def convert(value: int | float, unit: str, wanted: str) -> int | float | None:
    """``value`` of ``unit`` in ``wanted``, rounded to 12 figures; ``None`` where the two do not convert exactly."""
    if unit == wanted:
        return value
    name = dimension(unit)
    if not name or name != dimension(wanted) or name == "temperature":
        return None
    have, want = _UNITS[name][unit], _UNITS[name][wanted]
    if not have or not want or (name == "time" and (have > 604800) != (want > 604800)):
        return None  # a month is no fixed number of days
    if (unit == "month" and wanted == "year") or (unit == "year" and wanted == "month"):
        result = value / 12 if wanted == "year" else value * 12
    else:
        result = float(f"{value * have / want:.12g}")
    return int(result) if isinstance(result, float) and result.is_integer() and abs(result) < 1e15 else result


def find_numerals(text: str, limit: int = 2000) -> list[Numeral]:
    """The numbers of ``text`` in order, at most ``limit``."""
    found = [*_written(text, limit), *_spelled(text, limit)]
    found.sort(key=lambda numeral: numeral.start)
    return found[:limit]


def _written(text: str, limit: int) -> list[Numeral]:
    found: list[Numeral] = []
    for match in _DIGITS.finditer(text):
        if len(found) >= limit:
            break
        if found and match.start() < found[-1].end:
            continue  # the 2 of m/s^2
        digits = match["number"].replace(",", "")
        if len(digits) > 40:
            continue
        number: int | float = float(digits) if "." in digits else int(digits)
        start, end = match.start(), match.end()
        if match["sign"] in ("-", "−"):
            before = text[start - 1] if start else " "
            if not (before.isalnum() or before in ")]"):
                number = -number
        if match["power"]:
            exponent = int(re.sub(r"[()]", "", re.split(r"[eE^]", match["power"])[-1]))
            if abs(exponent) > 300:
                continue
            number = float(f"{number}e{exponent}")
            if match["power"][0] not in "eE" and number.is_integer():
                number = int(number)
        if match["short"] == "K" and not match["money"]:
            end = match.start("short")  # 298K may be kelvins: what the parameter measures decides
        elif match["short"] and (match["money"] or match["short"] == "k"):
            number = _scaled(number, {"k": 1000, "m": 10**6, "b": 10**9}[match["short"][0].lower()])
        elif match["short"]:
            end = match.start("short")  # 5m is five metres
        word = _WORD.match(text, end + 1) if text[end : end + 1] in (" ", "-") else None
        if word and word.group().lower() in _SCALE and word.group().lower() != "dozen":
            number, end = _scaled(number, _SCALE[word.group().lower()]), word.end()
        percent = bool(match["percent"])
        if re.match(r"\s?(percent|per cent|percentage points?)\b", text[end : end + 20], re.IGNORECASE):
            percent = True
        unit, unit_end = _unit_after(text, end)
        tail = text[end : end + 1]
        if (
            not match["ordinal"]
            and not unit
            and not unit_end
            and not match["percent"]
            and tail
            and (tail.isalpha() or tail == "_")
        ):
            continue  # 2x, 3D, 7zip: part of a word
        money = bool(match["money"]) or bool(
            re.match(r"\s?(?:dollars?|euros?|pounds|usd|eur|gbp)\b", text[end : end + 10], re.I)
        )
        found.append(
            Numeral(number, match.start("number") if not (match["sign"] or match["money"]) else start, unit_end or end,
                    unit, percent, money, bool(match["ordinal"]))
        )  # fmt: skip
    return found


def _scaled(number: int | float, scale: int) -> int | float:
    result = float(f"{number * scale:.12g}") if isinstance(number, float) else number * scale
    return int(result) if isinstance(result, float) and result.is_integer() else result


def _unit_after(text: str, end: int) -> tuple[str, int]:
    match = _UNIT_AFTER.match(text, end, end + 40)
    if not match:
        return "", 0
    word = match["unit"]
    degrees = re.match(
        r"\s?-?(?:degrees?|deg\.?|°)\s?(celsius|centigrade|fahrenheit|[CF])\b", text[end : end + 24], re.IGNORECASE
    )
    if degrees:
        return ("°F" if degrees[1][0] in "fF" else "°C"), end + degrees.end()
    touching = match.start("unit") == end
    unit = _unit(word) or _unit(re.sub(r"[23]$", "", word))
    if unit and (word in _AMBIGUOUS or (len(word) == 1 and word not in "mslVWJN°Ω")) and not touching:
        unit = unit if word in "ACFK" and len(word) == 1 and word != "A" else ""
    if touching and word == "s" and re.search(r"\b(?:many|the|of|all|any)\s+\d+$", text[max(0, end - 12) : end]):
        return "", end + 1  # "how many 5s": the digit, not a time
    if not touching and word.lower() in ("in", "second", "a"):
        return "", 0
    per = re.match(r"\s+per\s+(second|hour)(?:\s+(squared))?", text[match.end() : match.end() + 24])
    if unit and per and dimension(unit) == "length":
        unit = {"m": "m/s", "km": "km/h", "mile": "mph"}.get(unit, unit)
        return ("m/s²" if per.group(2) and unit == "m/s" else unit), match.end() + per.end()
    return (unit, match.end()) if unit else ("", 0)


def _spelled(text: str, limit: int) -> list[Numeral]:
    found: list[Numeral] = []
    total = current = 0
    start = end = -1

    def flush() -> None:
        nonlocal total, current, start, end
        if start >= 0:
            unit, _ = _unit_after(text, end)
            percent = bool(re.match(r"\s(percent|per cent)\b", text[end : end + 12], re.IGNORECASE))
            found.append(Numeral(total + current, start, end, unit, percent, spelled=True))
        total, current, start, end = 0, 0, -1, -1

    for match in _WORD.finditer(text):
        if len(found) >= limit:
            break
        word = match.group().lower()
        if len(word) > 24:
            flush()
            continue
        parts = word.split("-")
        if all(part in _SMALL or part in _TENS or part in _SCALE for part in parts):
            if start >= 0 and text[end : match.start()].strip() not in ("", "and"):
                flush()
            if start >= 0 and parts[0] in _SMALL and (current % 10 or (0 < current < 20)):
                flush()
            counted = text[max(0, match.start() - 3) : match.start()].lower() == " a "
            if start < 0 and parts[0] in _SCALE and not counted and word != "dozen":
                continue  # "millions of", "hundred-fold": no number of its own
            for part in parts:
                if part in _SCALE:
                    scale = _SCALE[part]
                    if scale >= 1000:
                        total, current = total + max(current, 1) * scale, 0
                    else:
                        current = max(current, 1) * scale
                else:
                    current += _SMALL.get(part, _TENS.get(part, 0))
            start = match.start() if start < 0 else start
            end = match.end()
        elif word in _ORDINAL:
            flush()
            found.append(Numeral(_ORDINAL[word], match.start(), match.end(), ordinal=True, spelled=True))
        elif word in ("once", "twice", "half"):
            flush()
            value: int | float = {"once": 1, "twice": 2, "half": 0.5}[word]
            found.append(Numeral(value, match.start(), match.end(), spelled=True))
        elif word != "and":
            flush()
    flush()
    return found
