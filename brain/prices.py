"""What a token and a CPU second cost, in US dollars, as :class:`decimal.Decimal`.

Token prices come from the caller (:class:`Price`) or from the data that ships with ``genai-prices``; the network is
never asked. What has no price is ``unpriced``, never zero. This module knows nothing of requests, ladders or budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from specialists import Cost

from .events import TokenUsage

__all__ = ["DEFAULT_CPU_RATE", "Price", "cpu_cost", "load_price_list", "token_cost"]

DEFAULT_CPU_RATE = Decimal("0.0000112444")
"""US dollars per CPU second.

AWS Fargate, Linux on x86, us-east-1: 0.04048 USD per vCPU hour (https://aws.amazon.com/fargate/pricing/, on demand),
divided by 3600. A machine of one's own costs less, a busy laptop nothing; hand in a rate to say so.
"""

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. Decimals, ints and strings of digits are taken; floats raise ``TypeError``.

    ``cache_read`` and ``cache_write`` are the prices of input tokens read from and written to the provider's cache;
    ``None`` means that they cost what other input tokens cost. Raises ``ValueError`` for a negative price.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None

    def __init__(
        self,
        input: Decimal | int | str,
        output: Decimal | int | str,
        cache_read: Decimal | int | str | None = None,
        cache_write: Decimal | int | str | None = None,
    ) -> None:
        object.__setattr__(self, "input", _money("input", input))
        object.__setattr__(self, "output", _money("output", output))
        object.__setattr__(self, "cache_read", None if cache_read is None else _money("cache_read", cache_read))
        object.__setattr__(self, "cache_write", None if cache_write is None else _money("cache_write", cache_write))

    def of(self, usage: TokenUsage) -> Decimal:
        """The price of ``usage``, unknown counts taken as none."""
        read, written = usage.cache_read or 0, usage.cache_write or 0
        plain = max((usage.input or 0) - read - written, 0)
        total = (
            self.input * plain
            + (self.input if self.cache_read is None else self.cache_read) * read
            + (self.input if self.cache_write is None else self.cache_write) * written
            + self.output * (usage.output or 0)
        )
        return total / _MILLION


def token_cost(usage: TokenUsage, model_name: str, price: Price | None = None, *, endpoint: str | None = None) -> Cost:
    """What ``usage`` costs at ``price``, or at the list price of ``model_name`` (``openai:NAME`` or ``NAME``).

    The list is that of the provider whose API lives at ``endpoint`` (a URL), else OpenAI's, whose names the short form
    uses; a server of one's own that borrows such a name should be given its own ``price``. Usage that the endpoint
    stated is exact. Usage we estimated is an upper bound: it costs between nothing and its price. Absent usage, and a
    model without a price, is unpriced.
    """
    if usage.source == "absent" or usage.input is None or usage.output is None:
        return Cost.unpriced()
    amount = price.of(usage) if price is not None else _list_price(usage, model_name, endpoint)
    if amount is None:
        return Cost.unpriced()
    return Cost.exact(amount) if usage.source == "provider" else Cost.bounded(0, amount)


def load_price_list() -> None:
    """Read the list prices now, which takes a moment, rather than when the first bill is due."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def cpu_cost(seconds: float, rate: Decimal | int | str | None = None) -> Cost:
    """``seconds`` of CPU time at ``rate`` US dollars a second (``None``: :data:`DEFAULT_CPU_RATE`). Exact."""
    if seconds < 0:
        raise ValueError(f"CPU time cannot be negative: {seconds}")
    price = DEFAULT_CPU_RATE if rate is None else _money("rate", rate)
    # Ten decimals of a second are finer than any clock; the shortest repr keeps the sum free of binary dust.
    return Cost.exact(Decimal(repr(round(float(seconds), 10))) * price)


def _list_price(usage: TokenUsage, model_name: str, endpoint: str | None) -> Decimal | None:
    found = _find(model_name.partition(":")[2] if model_name.startswith("openai:") else model_name, endpoint)
    if found is None:
        return None
    from genai_prices import Usage

    provider, model = found
    counts: dict[str, int] = {"input_tokens": usage.input or 0, "output_tokens": usage.output or 0}
    if usage.cache_read:
        counts["cache_read_tokens"] = usage.cache_read
    if usage.cache_write:
        counts["cache_write_tokens"] = usage.cache_write
    try:
        return Decimal(model.calc_price(Usage(**counts), provider).total_price)
    except (LookupError, ValueError):  # a model that lists no price for what was used
        return None


@lru_cache(maxsize=256)
def _find(name: str, endpoint: str | None) -> tuple[Any, Any] | None:
    # Reading the snapshot downloads nothing: only an application that starts `UpdatePrices` itself gets newer prices.
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    if endpoint is not None:
        try:
            return snapshot.find_provider_model(name, None, None, endpoint)
        except LookupError:
            pass
        try:
            snapshot.find_provider(None, None, endpoint)
        except LookupError:
            pass
        else:
            return None  # a known provider that does not list this model; another's price would be a guess
    try:
        return snapshot.find_provider_model(name, None, "openai", None)
    except LookupError:
        return None


def _money(what: str, amount: Decimal | int | str) -> Decimal:
    if isinstance(amount, (float, bool)):
        raise TypeError(f"{what} is money: a Decimal, an int or a string of digits, never a {type(amount).__name__}")
    value = Decimal(amount)
    if not value.is_finite() or value < 0:
        raise ValueError(f"{what} must be a finite amount of zero or more, not {value}")
    return value
