"""List prices, out of the data that ships with ``genai-prices``: found by name, endpoint, service tier and moment.

The network is never asked. An application that starts that package's own updates gets the newer prices. Of its data
only the rates are taken; the arithmetic is ours, because its own follows the application's decimal context.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from .entries import BEGINNING, END
from .exact import exactly
from .quote import Quote
from .rates import Price
from .tiers import CHEAPER, STANDARD

__all__ = ["ListPrice", "current_list", "list_price", "load_price_list"]

_CONTEXT = {"batch": {"processing": "batch"}}
_RATES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "cache_audio_read_mtok": "audio_cache_read",
    "output_audio_mtok": "audio_output",
    "output_reasoning_mtok": "reasoning",
}
_NEVER_ASKED = frozenset(
    {"web_searches_kcount", "social_searches_kcount", "storage_searches_kcount", "code_executions_kcount"}
)
"""Tools that run at the provider, billed when a request asks for them; ours never do."""
_OTHER_INPUT = (
    "input_image_mtok",
    "cache_image_read_mtok",
    "cache_image_write_mtok",
    "input_video_mtok",
    "cache_video_read_mtok",
    "cache_video_write_mtok",
    "cache_audio_write_mtok",
)
_OTHER_OUTPUT = ("output_image_mtok", "output_video_mtok")


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What holds from ``since`` until ``until``; no ``quote`` where no usage can be priced by what is listed."""

    quote: Quote | None
    since: datetime
    until: datetime


def load_price_list() -> None:
    """Read the list prices now, which takes a moment, rather than when the first bill is due."""
    current_list()


def current_list() -> Any:
    """The list in use: another object once the application has updated it."""
    return _data_snapshot().get_snapshot()


@cache
def _data_snapshot() -> Any:
    # An import statement would look the module up on every request.
    from genai_prices import data_snapshot

    return data_snapshot


def list_price(name: str, endpoint: str | None, tier: str, at: datetime) -> ListPrice:
    """The list price of model ``name`` at ``at``.

    The list is that of the provider whose API lives at ``endpoint``, else OpenAI's. Where it states no price for a
    tier that is cheaper by nature (flex, batch) the standard one bounds it; any other tier without a price has none.
    """
    found = _find(name, endpoint)
    if found is None:
        return ListPrice(None, BEGINNING, END)
    provider, model = found
    rows = list(model.prices) if isinstance(model.prices, list) else []
    variants = [] if tier == STANDARD else _variants(provider, model, tier)
    since, until = _span(at, [each.constraint for each in (*rows, *variants) if each.constraint is not None])
    stated = any(_holds(each, at) and any(rate is not None for rate in vars(each.prices).values()) for each in variants)
    if tier != STANDARD and not stated and tier not in CHEAPER:
        return ListPrice(None, since, until)
    context = variants[0].when if stated else None
    versions = [model]
    if rows and _by_the_hour(([row for row in rows if _holds(row, at)] or rows[:1])[-1]):
        # Peak hours: the data cannot say on which days there are none, so the price outside them may hold as well.
        calm = copy(model)
        calm.prices = [row for row in rows if not _by_the_hour(row)] or rows
        versions.append(calm)
    prices = [_price(vars(each.get_prices(at, context))) for each in versions]
    quotes = [
        Quote(
            "genai-prices",
            price,
            tier=tier,
            at_most=tier != STANDARD and not stated,
            provider=provider.id,
            model=model.id,
            version=_version(),
        )
        for price in prices
        if price is not None
    ]
    return ListPrice(Quote.either(quotes) if len(quotes) == len(prices) else None, since, until)


def _variants(provider: Any, model: Any, tier: str) -> list[Any]:
    if not any(model is each for each in provider.models):
        return []  # another provider's model: its tiers are not this one's
    context = _CONTEXT.get(tier, {"service_tier": tier})
    return [each for each in model.price_variants or () if each.when == context]


def _holds(row: Any, at: datetime) -> bool:
    return row.constraint is None or bool(row.constraint.active(at))


def _by_the_hour(row: Any) -> bool:
    return getattr(row.constraint, "start_time", None) is not None


def _find(name: str, endpoint: str | None) -> tuple[Any, Any] | None:
    snapshot = current_list()
    if endpoint is not None:
        try:
            return snapshot.find_provider_model(name, None, None, endpoint)  # type: ignore[no-any-return]
        except LookupError:
            pass
        try:
            snapshot.find_provider(None, None, endpoint)
        except LookupError:
            pass
        else:
            return None  # a known provider that does not list this model; another's price would be a guess
    try:
        return snapshot.find_provider_model(name, None, "openai", None)  # type: ignore[no-any-return]
    except LookupError:
        return None


def _price(rates: dict[str, Any]) -> Price | None:
    """``None`` for what has no price by tokens, or one that depends on what no usage states."""
    known = {key: value for key, value in rates.items() if value is not None and key not in _NEVER_ASKED}
    handled = {*_RATES, *_OTHER_INPUT, *_OTHER_OUTPUT, "requests_kcount"}
    if "input_mtok" not in known or "output_mtok" not in known or known.keys() - handled:
        return None
    starts = sorted({tier.start for value in known.values() for tier in getattr(value, "tiers", ())})
    return Price.from_json(
        {**_rates(known, 0), "tiers": [{"above": start, **_rates(known, start + 1)} for start in starts]}
    )


def _rates(known: dict[str, Any], input_tokens: int) -> dict[str, Any]:
    now = {key: _rate(value, input_tokens) for key, value in known.items()}
    written: dict[str, Any] = {ours: str(now[theirs]) for theirs, ours in _RATES.items() if theirs in now}
    for ours, keys in (("other_input", _OTHER_INPUT), ("other_output", _OTHER_OUTPUT)):
        others = [now[key] for key in keys if key in now]
        if others:
            written[ours] = [str(min(others)), str(max(others))]
    if "requests_kcount" in now:
        with exactly():
            written["request"] = str(now["requests_kcount"].scaleb(-3))
    return written


def _rate(value: Any, input_tokens: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    rate: Decimal = value.base
    for tier in value.tiers:
        if input_tokens > tier.start:
            rate = tier.price
    return rate


def _span(at: datetime, constraints: list[Any]) -> tuple[datetime, datetime]:
    """Between which moments nothing changes, as far as ``constraints`` say."""
    since, until = BEGINNING, END
    for moment in _changes(at, constraints):
        if moment <= at:
            since = max(since, moment)
        else:
            until = min(until, moment)
    return since, until


def _changes(at: datetime, constraints: list[Any]) -> Iterator[datetime]:
    for constraint in constraints:
        if isinstance(begins := getattr(constraint, "start_date", None), date):
            yield datetime.combine(begins, time(), UTC)
        for clock in (getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)):
            if isinstance(clock, time):
                aware = clock if clock.tzinfo is not None else clock.replace(tzinfo=UTC)
                for day in (-2, -1, 0, 1, 2):
                    yield datetime.combine(at.date() + timedelta(days=day), aware).astimezone(UTC)


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("genai-prices")
