"""The price book: a user's own prices over the list prices, looked up for the moment of a request.

This module knows nothing of files, nor how a list is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from ..errors import PriceError
from .entries import ANY_TIER, BEGINNING, END, PriceEntry
from .exact import amount
from .listed import ListPrice, current_list, list_price
from .overlay import read_overlay
from .quote import Quote
from .rates import Amount, Price
from .tiers import CHEAPER, STANDARD, tier_name

__all__ = ["PriceBook"]

_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found, and between which moments it holds."""

    quote: Quote | None
    text: Quote | None
    since: datetime
    until: datetime
    prices: Any
    """The list it was taken from, if it was."""


class PriceBook:
    """Prices of models: what the application says, and the list prices for all else.

    ``entries``: a :class:`~brain.prices.PriceEntry` each; :meth:`load` reads them from a TOML file. Of those that are
    about a model at an endpoint, the ones that say more go first: a longer endpoint before a shorter or none, then a
    whole name before one with a ``*``, then a longer name. Of several for the same name, endpoint and tier, the one
    that began last holds. Where a model has a price of its own for the standard tier and none for ``flex`` or
    ``batch``, these cost something up to it; any other tier is unpriced.

    ``cpu_second``, ``gpu_second``: US dollars a second of this machine. With ``list_prices=False`` what is not in the
    book is unpriced. A book does not change, and may be used from any thread.

    Raises :class:`~brain.errors.PriceError`.
    """

    def __init__(
        self,
        entries: Iterable[PriceEntry] = (),
        *,
        cpu_second: Amount | None = None,
        gpu_second: Amount | None = None,
        list_prices: bool = True,
    ) -> None:
        self._entries = tuple(sorted(entries, key=lambda entry: entry.place, reverse=True))
        self._cpu_second = None if cpu_second is None else _second("cpu_second", cpu_second)
        self._gpu_second = None if gpu_second is None else _second("gpu_second", gpu_second)
        self._list_prices = list_prices
        self._kept: dict[tuple[str, str | None, str], _Kept] = {}
        seen: dict[Any, PriceEntry] = {}
        for entry in self._entries:
            other = seen.setdefault((entry.place, entry.tier, entry.since), entry)
            if other is not entry:
                raise PriceError(
                    f"{entry.label}: {other.label} is about the same model, endpoint and tier and begins at the same "
                    "time; leave one out, or say from when it holds."
                )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PriceBook:
        """The book in a TOML file. A file with a mistake is refused as a whole.

        Raises :class:`~brain.errors.PriceError`, which names the table and its line.
        """
        overlay = read_overlay(path)
        return cls(overlay.entries, cpu_second=overlay.cpu_second, gpu_second=overlay.gpu_second)

    @classmethod
    def flat(cls, price: Price) -> PriceBook:
        """A book in which every model costs ``price``, at any endpoint, in any tier and at any time."""
        return cls([PriceEntry("*", price, tier=ANY_TIER, label="price")], list_prices=False)

    @property
    def entries(self) -> tuple[PriceEntry, ...]:
        """In the order in which they are looked at."""
        return self._entries

    @property
    def cpu_second(self) -> Decimal | None:
        """US dollars per CPU second of this machine, or ``None`` when the book does not say."""
        return self._cpu_second

    @property
    def gpu_second(self) -> Decimal | None:
        """US dollars per GPU second of this machine, or ``None`` when the book does not say."""
        return self._gpu_second

    def price_of(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        tier: str | Sequence[str] | None = None,
        at: datetime | None = None,
        text_only: bool = False,
    ) -> Quote | None:
        """The price of ``model``, or ``None`` when there is none.

        ``model``: ``openai:NAME`` or ``NAME``. ``endpoint``: its base URL. ``tier``: a service tier, ``None`` for the
        standard one; of several, one serves, and the cost lies between theirs. ``at``: the moment, with a time zone;
        ``None`` is now. ``text_only``: for a request that has no images and no sound. Raises ``ValueError`` for a
        moment without a time zone.
        """
        moment = datetime.now(UTC) if at is None else at
        if moment.tzinfo is None:
            raise ValueError("at needs a time zone, for example datetime.now(UTC)")
        if tier is None or isinstance(tier, str):
            return self._one(model, endpoint, tier_name(tier), moment, text_only)
        names = list(dict.fromkeys(map(tier_name, tier))) or [STANDARD]
        quotes = [self._one(model, endpoint, name, moment, text_only) for name in names]
        known = [quote for quote in quotes if quote is not None]
        return Quote.either(known) if len(known) == len(quotes) else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def __repr__(self) -> str:
        return f"PriceBook({len(self._entries)} entries, list_prices={self._list_prices})"

    def _one(self, model: str, endpoint: str | None, tier: str, at: datetime, text_only: bool) -> Quote | None:
        key = (model, endpoint, tier)
        kept = self._kept.get(key)
        if (
            kept is None
            or not kept.since <= at < kept.until
            or (kept.prices is not None and kept.prices is not current_list())
        ):
            kept = self._look_up(model.removeprefix("openai:"), endpoint, tier, at)
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {}
            self._kept[key] = kept
        return kept.text if text_only else kept.quote

    def _look_up(self, name: str, endpoint: str | None, tier: str, at: datetime) -> _Kept:
        at = at.astimezone(UTC)
        matching = [entry for entry in self._entries if entry.matches(name, endpoint)]
        changes = [moment for entry in matching for moment in (entry.since, entry.until)]
        since = max((moment for moment in changes if moment <= at), default=BEGINNING)
        until = min((moment for moment in changes if moment > at), default=END)
        choice = _chosen([entry for entry in matching if entry.holds(at)], tier)
        entry = choice.entry
        prices = quote = None
        if entry is not None and entry.factor is None:
            source = "price" if entry.label == "price" else "price book"
            quote = Quote(
                source,
                entry.price,
                entry.per_second,
                tier=tier,
                at_most=choice.at_most,
                model=None if entry.model == "*" else entry.model,
                entry=None if source == "price" else entry.label,
            )
        elif entry is not None or (choice.listed and self._list_prices):
            prices = current_list()
            like = name if entry is None else entry.like or name
            listed = list_price(like, endpoint, STANDARD if choice.at_most else tier, at)
            quote = _reduced(listed, entry, tier, choice.at_most)
            since, until = max(since, listed.since), min(until, listed.until)
        return _Kept(quote, None if quote is None else quote.text_only(), since, until, prices)


@dataclass(frozen=True, slots=True)
class _Choice:
    entry: PriceEntry | None
    at_most: bool = False
    """Whether the entry is that of the standard tier, and only bounds the tier that was asked about."""
    listed: bool = False
    """Whether the book says nothing, so that the list does."""


def _chosen(entries: Sequence[PriceEntry], tier: str) -> _Choice:
    """What prices ``tier``; ``entries`` hold now, and stand in the order of what they say."""
    for _, group in groupby(entries, key=lambda entry: entry.place):
        tiers: dict[str | None, PriceEntry] = {}
        for entry in sorted(group, key=lambda entry: entry.since):
            tiers[entry.tier] = entry
        for name in (tier, ANY_TIER, None):
            if name in tiers:
                return _Choice(tiers[name])
        if STANDARD in tiers:
            return _Choice(tiers[STANDARD], at_most=True) if tier in CHEAPER else _Choice(None)
    return _Choice(None, listed=True)


def _reduced(listed: ListPrice, entry: PriceEntry | None, tier: str, at_most: bool) -> Quote | None:
    quote = listed.quote
    if quote is None or entry is None or entry.factor is None:
        return quote
    factor, reduced = entry.factor, []
    for each in quote.alternatives or (quote,):
        price = None if each.price is None else each.price.times(factor)
        more = at_most or each.at_most
        reduced.append(replace(each, price=price, entry=entry.label, tier=tier, at_most=more))
    return Quote.either(reduced)


def _second(what: str, value: Amount) -> Decimal:
    try:
        return amount(what, value)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise PriceError(f"{problem}.")
