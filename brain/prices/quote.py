"""The price that holds for one request: what a usage costs at it, the most that it can cost, and its snapshot.

This module knows nothing of where prices come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from specialists import Cost

from ..events import TokenUsage
from .exact import amount, exactly, seconds_of
from .rates import Price

__all__ = ["Quote"]

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Quote:
    """A price for one model, endpoint, service tier and moment.

    ``source``: where it comes from (``price``, ``price book`` or ``genai-prices``), and ``entry``: what of a book had a
    part in it. ``price``: by tokens, in US dollars per million; ``per_second``: by the seconds that a request takes.
    Both add up. ``at_most``: the true price is unknown and no higher than this one. ``alternatives``: instead of a
    price of its own, several of which one holds. ``provider``, ``model`` and ``version`` name a list price.
    """

    source: str
    price: Price | None = None
    per_second: Decimal | None = None
    tier: str = "standard"
    at_most: bool = False
    provider: str | None = None
    model: str | None = None
    version: str | None = None
    entry: str | None = None
    alternatives: tuple[Quote, ...] = ()

    @classmethod
    def either(cls, quotes: Iterable[Quote]) -> Quote:
        """One of ``quotes`` holds, and nobody knows which."""
        found = tuple(dict.fromkeys(quotes))
        if len(found) == 1:
            return found[0]
        if not found:
            raise ValueError("a price is one of at least one")
        return cls("either", tier=" or ".join(dict.fromkeys(quote.tier for quote in found)), alternatives=found)

    @property
    def by_second(self) -> bool:
        """Whether the seconds of a request have a part in the price."""
        return self.per_second is not None or any(quote.by_second for quote in self.alternatives)

    def text_only(self) -> Quote:
        """The price for a request of text alone: what is not text has no part in it."""
        if self.alternatives:
            return replace(self, alternatives=tuple(each.text_only() for each in self.alternatives))
        price = None if self.price is None else self.price.text_only()
        return self if price is self.price else replace(self, price=price)

    def cost(self, usage: TokenUsage, *, seconds: float | None = None) -> Cost:
        """What ``usage`` and ``seconds`` cost.

        Exact when the endpoint stated all that the price depends on; between bounds when it left something out; from
        nothing to the worst case when the usage is our estimate, which is an upper bound; unpriced when the usage is
        absent or a price by the second has no seconds.
        """
        if self.alternatives:
            costs = [quote.cost(usage, seconds=seconds) for quote in self.alternatives]
            low, highs = min(cost.low for cost in costs), [cost.high for cost in costs]
            return (
                Cost.unpriced(low)
                if None in highs
                else Cost.bounded(low, max(high for high in highs if high is not None))
            )
        low = high = _ZERO
        if self.price is not None:
            if usage.source == "absent" or usage.input is None or usage.output is None:
                return Cost.unpriced()
            if usage.source == "estimated":
                high = self.price.most(usage.input, usage.output, usage.requests)
            else:
                low, high = self.price.bounds(usage)
        if self.per_second is not None:
            if seconds is None:
                return Cost.unpriced(_ZERO if self.at_most else low)
            with exactly():
                more = seconds_of(seconds) * self.per_second
                low, high = low + more, high + more
        return Cost.bounded(_ZERO if self.at_most else low, high)

    def worst(self, input_bound: int | None, output_limit: int | None, *, seconds: float | None = None) -> Cost:
        """The most that a request can cost: from nothing to every token at its dearest, in the dearest tier in reach.

        ``input_bound``, ``output_limit``: the most tokens; ``None`` is unknown. ``seconds``: the longest it can take.
        Unpriced where the price depends on what is unknown.
        """
        if self.alternatives:
            highs = [quote.worst(input_bound, output_limit, seconds=seconds).high for quote in self.alternatives]
            return (
                Cost.unpriced() if None in highs else Cost.bounded(0, max(high for high in highs if high is not None))
            )
        high = _ZERO
        if self.price is not None:
            if input_bound is None or output_limit is None:
                return Cost.unpriced()
            high = self.price.most(input_bound, output_limit)
        if self.per_second is not None:
            if seconds is None:
                return Cost.unpriced()
            with exactly():
                high += seconds_of(seconds) * self.per_second
        return Cost.bounded(0, high)

    def to_json(self) -> dict[str, Any]:
        """The snapshot: enough to compute the same cost again. What is ``None`` is left out; amounts are strings."""
        written: dict[str, Any] = {"source": self.source, "tier": self.tier}
        for name in ("provider", "model", "version", "entry"):
            value = getattr(self, name)
            if value is not None:
                written[name] = value
        if self.price is not None:
            written["usd_per_million_tokens"] = self.price.to_json()
        if self.per_second is not None:
            written["usd_per_second"] = str(self.per_second)
        if self.at_most:
            written["at_most"] = True
        if self.alternatives:
            written["either"] = [quote.to_json() for quote in self.alternatives]
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quote:
        """The inverse of :meth:`to_json`. Raises ``ValueError``, ``TypeError`` and ``KeyError`` for what is none."""
        price, second = data.get("usd_per_million_tokens"), data.get("usd_per_second")
        return cls(
            source=data["source"],
            price=None if price is None else Price.from_json(price),
            per_second=None if second is None else amount("usd_per_second", second, computed=True),
            tier=data["tier"],
            at_most=data.get("at_most", False),
            provider=data.get("provider"),
            model=data.get("model"),
            version=data.get("version"),
            entry=data.get("entry"),
            alternatives=tuple(cls.from_json(each) for each in data.get("either", ())),
        )
