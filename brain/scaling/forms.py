"""What makes two answers the same answer. This module knows nothing of votes or askers."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

__all__ = ["Canonical", "NoCanonicalForm", "canonical_form"]

Canonical = Callable[[Any], Any]
"""What an application says that answers are compared by."""


class NoCanonicalForm(ValueError):
    """A value that cannot be compared with others; the message says why."""


def canonical_form(value: Any, by: Canonical | None = None) -> str:
    """A text that is the same for answers that are the same.

    By default that is JSON with sorted keys. Text is compared in Unicode's form NFC and without white space around it,
    letter case counts; numbers are equal as numbers (1, 1.0 and ``Decimal("1.00")``), and no boolean is a number; sets
    have no order, a tuple is a list, a model or a dataclass is an object with its fields.

    Args:
        value: An answer.
        by: Gives of a value what it is compared by: a text, a number, or anything that has a form of its own here.

    Raises :class:`NoCanonicalForm` for a NaN or an infinity, for a value that contains itself or is nested too deeply,
    for an object that is none of these and that pydantic cannot write as JSON; and when ``by`` raises.
    """
    if by is not None:
        try:
            value = by(value)
        except Exception as error:  # the application's own
            raise NoCanonicalForm(f"canonical raised {type(error).__name__}: {error}") from error
    try:
        return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise NoCanonicalForm("it contains itself, or is nested too deeply") from None


def _plain(value: Any) -> Any:
    """``value`` as lists, texts, integers and floats, equal where the values are."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return unicodedata.normalize("NFC", str(value)).strip()
    if isinstance(value, int):
        return {"number": f"{int(value):x}"}  # in hexadecimal: of decimal digits Python writes no more than 4,300
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, BaseModel):
        return _plain({**dict(value), **(value.__pydantic_extra__ or {})})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        pairs = [[_plain(key), _plain(part)] for key, part in value.items()]
        return {"object": sorted(pairs, key=_written)}
    if isinstance(value, Set):
        return {"set": sorted((_plain(part) for part in value), key=_written)}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    try:
        return _plain(to_jsonable_python(value, bytes_mode="base64"))  # dates, times, paths, addresses, bytes
    except RecursionError:
        raise
    except Exception:
        raise NoCanonicalForm(f"a {type(value).__name__} has no JSON") from None


def _number(value: float | Decimal) -> Any:
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise NoCanonicalForm("it has a number that is not finite")
    if isinstance(value, float):
        value = Decimal(repr(float(value)))  # the shortest digits that mean this float: 0.1 is 0.1
    sign, digits, exponent = value.as_tuple()
    shown = "".join(map(str, digits)).lstrip("0")
    kept = shown.rstrip("0")
    if not kept:
        return {"number": "0"}
    place = int(exponent) + len(shown) - len(kept)
    if 0 <= place <= 400:
        return _plain(int(("-" if sign else "") + kept) * 10**place)
    return {"number": f"{'-' if sign else ''}{kept}e{place}"}


def _written(part: Any) -> str:
    return json.dumps(part, ensure_ascii=False)
