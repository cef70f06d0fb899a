"""Kinds of names that requests speak of: currencies, countries, places, languages, animals.

Knows nothing of tools, schemas or arguments. The lists lie beside this file; they are read on first use, so that
importing the package stays cheap.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ..words import lines_of

__all__ = ["country_of", "currency_code", "is_name_of"]


def currency_code(text: str) -> str:
    """``USD`` for ``US dollars``, ``dollar`` or ``usd``; empty for what is no currency."""
    return _currencies().get(_fold(text), "")


def country_of(text: str) -> str:
    """``Germany`` for ``German``; empty for what is no such adjective."""
    return _countries().get(_fold(text), "")


def is_name_of(kind: str, text: str) -> bool:
    """Whether ``text`` is a well-known ``place``, ``language``, ``currency``, ``animal`` … (see ``names.txt``)."""
    return _fold(text) in _names().get(kind, _NONE_TEXT)


_NONE_TEXT: frozenset[str] = frozenset()


@lru_cache(maxsize=8192)
def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text[:80].lower())
    return " ".join(re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c))))


@lru_cache(maxsize=1)
def _currencies() -> dict[str, str]:
    codes: dict[str, str] = {}
    for line in lines_of(__package__, "currencies.txt"):
        code, _, names = line.partition(":")
        codes[code.strip().lower()] = code.strip()
        codes.update((_fold(name), code.strip()) for name in names.split(",") if name.strip())
    return codes


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    pairs = (line.partition(":") for line in lines_of(__package__, "countries.txt"))
    return {_fold(name): country.strip() for country, _, names in pairs for name in names.split(",")}


@lru_cache(maxsize=1)
def _names() -> dict[str, frozenset[str]]:
    kinds: dict[str, set[str]] = {}
    for line in lines_of(__package__, "names.txt"):
        kind, _, members = line.partition(":")
        kinds.setdefault(kind.strip(), set()).update(_fold(name) for name in members.split(","))
    return {kind: frozenset(members) for kind, members in kinds.items()}
