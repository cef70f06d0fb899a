"""What a token, a request and a second cost, in US dollars, as :class:`decimal.Decimal`.

Prices come from the caller (:class:`Price`, :class:`PriceBook`) or from the data that ships with ``genai-prices``; the
network is never asked. What has no price is ``unpriced``, never zero. This package knows nothing of requests, ladders
or budgets.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from specialists import Cost
from specialists.costs import EXACT

from ..events import TokenUsage
from .book import PriceBook
from .entries import PriceEntry
from .exact import amount, seconds_of
from .listed import load_price_list
from .quote import Quote
from .rates import Price
from .tiers import served, tier_name

__all__ = [
    "DEFAULT_CPU_RATE",
    "LIST_PRICES",
    "Price",
    "PriceBook",
    "PriceEntry",
    "Quote",
    "Rates",
    "cpu_cost",
    "load_price_list",
    "served",
    "tier_name",
    "token_cost",
]

DEFAULT_CPU_RATE = Decimal("0.0000112444")
"""US dollars per CPU second.

AWS Fargate, Linux on x86, us-east-1: 0.04048 USD per vCPU hour (https://aws.amazon.com/fargate/pricing/, on demand),
divided by 3600. A machine of one's own costs less, a busy laptop nothing; hand in a rate to say so.
"""


class Rates(NamedTuple):
    """What this machine costs, in US dollars a second. ``cpu``: ``None`` is :data:`DEFAULT_CPU_RATE`. ``gpu``: ``None``
    is nothing, or nobody says."""

    cpu: Decimal | None = None
    gpu: Decimal | None = None


LIST_PRICES = PriceBook()
"""The list prices alone."""


def token_cost(usage: TokenUsage, model_name: str, price: Price | None = None, *, endpoint: str | None = None) -> Cost:
    """What ``usage`` costs now at ``price``, or at the list price of ``model_name`` (``openai:NAME`` or ``NAME``).

    The list is that of the provider whose API lives at ``endpoint`` (a URL), else OpenAI's, whose names the short form
    uses; a server of one's own that borrows such a name should be given its own ``price``. Usage that the endpoint
    stated is exact, or between bounds where it leaves out what the price depends on. Usage we estimated is an upper
    bound: it costs between nothing and the most it can. Absent usage, and a model without a price, is unpriced.
    """
    quote = Quote("price", price) if price is not None else LIST_PRICES.price_of(model_name, endpoint=endpoint)
    return Cost.unpriced() if quote is None else quote.cost(usage)


def cpu_cost(seconds: float, rate: Decimal | int | str | None = None) -> Cost:
    """``seconds`` of CPU time at ``rate`` US dollars a second (``None``: :data:`DEFAULT_CPU_RATE`). Exact."""
    if seconds < 0:
        raise ValueError(f"CPU time cannot be negative: {seconds}")
    price = DEFAULT_CPU_RATE if rate is None else amount("rate", rate)
    return Cost.exact(EXACT.multiply(seconds_of(seconds), price))
