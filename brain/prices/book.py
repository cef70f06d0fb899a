"""The price book: a user's own prices over the list prices, looked up for the moment of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .listed import BEGINNING, END, current_list, list_price
from .quote import Quote
from .rates import Price
from .tiers import STANDARD, tier_name

__all__ = ["PriceBook"]

_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    quote: Quote | None
    text: Quote | None
    since: datetime
    until: datetime
    prices: Any
    """The list it was taken from, if it was."""


class PriceBook:
    """Prices of models: list prices, and over them what the application says."""

    def __init__(self, *, flat: Price | None = None) -> None:
        self._flat = None if flat is None else Quote("price", flat)
        self._kept: dict[tuple[str, str | None, str], _Kept] = {}

    @classmethod
    def flat(cls, price: Price) -> PriceBook:
        """A book in which every model costs ``price``, at any endpoint, in any tier and at any time."""
        return cls(flat=price)

    @property
    def cpu_second(self) -> Decimal | None:
        """US dollars per CPU second of this machine, or ``None`` when the book does not say."""
        return None

    @property
    def needs_list(self) -> bool:
        """Whether list prices are looked up, so that it is worth reading them beforehand."""
        return self._flat is None

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
        ``None`` is now. ``text_only``: for a request that has no images and no sound.
        """
        moment = datetime.now(UTC) if at is None else at
        if moment.tzinfo is None:
            raise ValueError("at needs a time zone, for example datetime.now(UTC)")
        if tier is None or isinstance(tier, str):
            return self._one(model, endpoint, tier_name(tier), moment, text_only)
        quotes = [self._one(model, endpoint, name, moment, text_only) for name in dict.fromkeys(map(tier_name, tier))]
        if not quotes:
            return self._one(model, endpoint, STANDARD, moment, text_only)
        known = [quote for quote in quotes if quote is not None]
        return Quote.either(known) if len(known) == len(quotes) else None

    def _one(self, model: str, endpoint: str | None, tier: str, at: datetime, text_only: bool) -> Quote | None:
        key = (model, endpoint, tier)
        kept = self._kept.get(key)
        if (
            kept is None
            or not kept.since <= at < kept.until
            or (kept.prices is not None and kept.prices is not current_list())
        ):
            kept = self._look_up(model, endpoint, tier, at)
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {}
            self._kept[key] = kept
        return kept.text if text_only else kept.quote

    def _look_up(self, model: str, endpoint: str | None, tier: str, at: datetime) -> _Kept:
        if self._flat is not None:
            return _Kept(self._flat, self._flat.text_only(), BEGINNING, END, None)
        prices = current_list()
        listed = list_price(model.removeprefix("openai:"), endpoint, tier, at)
        text = None if listed.quote is None else listed.quote.text_only()
        return _Kept(listed.quote, text, listed.since, listed.until, prices)
