"""A price book as a TOML file: read whole or refused whole, with the table and its line named.

This module knows nothing of how prices are looked up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import PriceError
from .entries import PriceEntry, moment_of
from .exact import amount, exactly
from .rates import Price

__all__ = ["Overlay", "read_overlay"]

MOST_BYTES = 1024 * 1024
"""A file of prices larger than this is none."""
MOST_PER_SECOND = Decimal("0.1")
"""360 US dollars an hour. What costs more by the second is taken for a price by the hour."""

_TOKENS = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "audio_cache_read",
    "audio_output",
    "reasoning",
)
_RATES = (*_TOKENS, "request")
_SECONDS = ("cpu_second", "gpu_second")
_LIST = ("factor", "discount", "like")
_KEYS = ("model", "endpoint", "tier", "from", "until", "unit", "tiers", *_RATES, *_SECONDS, *_LIST)
_UNITS = ("million tokens", "token")
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*price[ \t]*\]\]")


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a file says."""

    entries: tuple[PriceEntry, ...]
    cpu_second: Decimal | None
    gpu_second: Decimal | None


def read_overlay(path: str | os.PathLike[str]) -> Overlay:
    """The file at ``path``. Raises :class:`~brain.errors.PriceError`, and reads nothing of a file with a mistake."""
    file = Path(path)
    text = _text(file)
    import tomllib  # here, because most applications read no file of prices

    try:
        # Decimals as they are written: no amount is ever a float, quoted or not.
        data = tomllib.loads(text, parse_float=_decimal)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        problem = str(error) or type(error).__name__
    else:
        return _overlay(data, file.name, text)
    raise PriceError(f"{file.name} is not TOML: {problem}.")


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
        if len(raw) <= MOST_BYTES:
            return raw.decode("utf-8-sig").replace("\r\n", "\n")
        problem = f"is larger than {MOST_BYTES:,} bytes"
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    raise PriceError(f"The price book {file} {problem}; name a TOML file of prices.")


def _overlay(data: Mapping[str, Any], name: str, text: str) -> Overlay:
    _known(name, data, ("machine", "price"))
    machine, tables = data.get("machine", {}), data.get("price", [])
    if not isinstance(machine, dict):
        raise PriceError(f"{name}: machine is a table, [machine].")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PriceError(f"{name}: prices are tables, each under [[price]] in double brackets.")
    _known(f"{name}, [machine]", machine, _SECONDS)
    seconds = {key: _second(f"{name}, [machine]", key, machine[key]) for key in _SECONDS if key in machine}
    lines = [number for number, line in enumerate(text.split("\n"), 1) if _HEADER.match(line)]
    entries = []
    for index, table in enumerate(tables):
        line = f", line {lines[index]}" if len(lines) == len(tables) else ""
        entries.append(_entry(f"{name}, [[price]] {index + 1}{line}", table))
    return Overlay(tuple(entries), seconds.get("cpu_second"), seconds.get("gpu_second"))


def _entry(where: str, table: Mapping[str, Any]) -> PriceEntry:
    _known(where, table, _KEYS)
    if "model" not in table:
        raise PriceError(f'{where}: it names no model; add model = "...", with a * at the end for all that begin so.')
    where = f"{where} ({_shown(table['model'])})"
    seconds = [_second(where, key, table[key]) for key in _SECONDS if key in table]
    with exactly():
        per_second = sum(seconds[1:], seconds[0]) if seconds else None
    factor = _factor(where, table)
    price = _price(where, table)
    return PriceEntry(
        table["model"],
        price,
        per_second=per_second,
        factor=factor,
        like=table.get("like"),
        endpoint=table.get("endpoint"),
        tier=table.get("tier"),
        since=moment_of(where, "from", table["from"]) if "from" in table else None,
        until=moment_of(where, "until", table["until"]) if "until" in table else None,
        label=where,
    )


def _price(where: str, table: Mapping[str, Any]) -> Price | None:
    used = [key for key in (*_RATES, "tiers") if key in table]
    unit = table.get("unit")
    if not used:
        if unit is not None:
            raise PriceError(f"{where}: it has a unit and no price by tokens; add input and output, or leave unit out.")
        return None
    if "unit" not in table:
        raise PriceError(f'{where}: the unit is missing; add unit = "million tokens", or "token" if the prices are so.')
    if unit not in _UNITS:
        raise PriceError(f'{where}: unit is "million tokens" or "token", not {unit!r}.')
    tiers = table.get("tiers", [])
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) for tier in tiers):
        raise PriceError(f"{where}: tiers is a list of tables, [{{ above = 200000, input = ..., output = ... }}].")
    above = []
    for number, tier in enumerate(tiers, 1):
        inside = f"{where}, tier {number}"
        _known(inside, tier, ("above", *_RATES))
        if "above" not in tier:
            raise PriceError(f"{inside}: it does not say above how many input tokens it begins; add above = ...")
        above.append((tier["above"], _rates(inside, tier, unit)))
    price = _rates(where, table, unit)
    if not above:
        return price
    try:
        return price.with_tiers(above)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise PriceError(f"{where}: {problem}.")


def _rates(where: str, table: Mapping[str, Any], unit: str) -> Price:
    missing = [key for key in ("input", "output") if key not in table]
    if missing:
        raise PriceError(f"{where}: {' and '.join(missing)} is missing; a price by tokens has both (0 if it is free).")
    amounts = {key: table[key] for key in _RATES if key in table}
    try:
        return Price.per_token(**amounts) if unit == "token" else Price(**amounts)
    except (TypeError, ValueError) as error:
        problem = str(error)
    if "looks like the price of one token" in problem:
        problem = problem.partition(", or say")[0] + ', or unit = "token" if it is meant'
    raise PriceError(f"{where}: {problem}.")


def _factor(where: str, table: Mapping[str, Any]) -> Decimal | None:
    if "factor" in table and "discount" in table:
        raise PriceError(f"{where}: factor and discount say the same in two ways; leave one out.")
    for key in ("factor", "discount"):
        if key in table:
            value = _amount(where, key, table[key])
            if key == "factor":
                return value
            if value > 1:
                raise PriceError(f"{where}: a discount is a part of one, 0.20 for a fifth off, not {value}.")
            with exactly():
                return 1 - value
    return None


def _second(where: str, key: str, value: Any) -> Decimal:
    read = _amount(where, key, value)
    if read > MOST_PER_SECOND:
        raise PriceError(
            f"{where}: {key} is US dollars a second, and {read:f} looks like the price of an hour; divide it by 3600."
        )
    return read


def _amount(where: str, key: str, value: Any) -> Decimal:
    try:
        return amount(key, value)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise PriceError(f"{where}: {problem}.")


def _known(where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in table:
        if key not in keys:
            import difflib

            near = difflib.get_close_matches(key, list(keys), 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(keys)}."
            raise PriceError(f"{where}: {_shown(key)} is not a key that is known here{hint}")


def _decimal(digits: str) -> Decimal:
    return Decimal(digits.replace("_", ""))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and len(text) <= 80 else repr(text)[:80]
