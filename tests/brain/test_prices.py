"""What tokens and CPU seconds cost: decimals to the last digit, and unknown is never zero."""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.events import TokenUsage
from brain.prices import DEFAULT_CPU_RATE, Price, Quote, cpu_cost, token_cost
from specialists import Cost

USAGE = TokenUsage(1_000, 100, 400, 0, 0, "provider")
MILLION = 10**6

AMOUNTS = st.one_of(
    st.just(Decimal(0)), st.integers(1, 10**10).map(lambda whole: Decimal(whole).scaleb(-3)), st.just(Decimal("0.0011"))
)
MAYBE = st.none() | AMOUNTS


@st.composite
def plain_prices(draw: st.DrawFn) -> Price:
    names = ("cache_read", "cache_write", "cache_write_1h", "audio_input", "audio_cache_read", "audio_output")
    rates: dict[str, Any] = {name: draw(MAYBE) for name in (*names, "reasoning", "request")}
    for name in ("other_input", "other_output"):
        rates[name] = draw(st.none() | st.tuples(AMOUNTS, AMOUNTS).map(lambda pair: tuple(sorted(pair))))
    return Price(draw(AMOUNTS), draw(AMOUNTS), **rates)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = draw(st.lists(st.integers(1, 300_000), max_size=2, unique=True))
    return draw(plain_prices()).with_tiers({start: draw(plain_prices()) for start in starts})


@st.composite
def usages(draw: st.DrawFn, most_input: int = 400_000, most_output: int = 100_000) -> TokenUsage:
    """Any usage that an endpoint may state within these bounds."""
    given_, made = draw(st.integers(0, most_input)), draw(st.integers(0, most_output))
    read = draw(st.none() | st.integers(0, given_))
    written = draw(st.none() | st.integers(0, given_ - (read or 0)))
    reasoning = draw(st.none() | st.integers(0, made))
    spoken = draw(st.none() | st.integers(0, made - (reasoning or 0)))
    heard = draw(st.none() | st.integers(0, given_))
    return TokenUsage(given_, made, read, written, reasoning, "provider", heard, spoken)


# What others get wrong


def test_a_price_of_ones_own_is_exact() -> None:
    price = Price(input="0.4", output=Decimal("1.6"), cache_read="0.1", cache_write=1)
    expected = (Decimal("0.4") * 600 + Decimal("0.1") * 400 + Decimal("1.6") * 100) / MILLION
    assert token_cost(USAGE, "anything", price) == Cost.exact(expected)
    written = TokenUsage(1_000, 0, 400, 500, 0, "provider")
    assert price.of(written) == (Decimal("0.4") * 100 + Decimal("0.1") * 400 + 500) / MILLION


def test_cached_tokens_are_counted_once() -> None:
    """They are a part of the input: neither billed twice nor on top of it."""
    price = Price(10, 0, cache_read=1, cache_write=100)
    assert price.of(TokenUsage(1_000, 0, 1_000, 0)) == Decimal(1_000) / MILLION
    assert price.of(TokenUsage(1_000, 0, 0, 1_000)) == Decimal(100_000) / MILLION
    assert price.of(TokenUsage(1_000, 0, 300, 200)) == Decimal(300 + 20_000 + 5_000) / MILLION


def test_without_a_price_for_the_cache_its_tokens_cost_what_others_do() -> None:
    assert Price(1, 0).of(USAGE) == Decimal("0.001")


def test_a_tier_begins_one_token_above_its_boundary() -> None:
    """At N the lower price; at N + 1 the other, for every token of the request, output and cache too."""
    price = Price(1, 10, cache_read="0.5", tiers={1_000: Price(2, 20, cache_read=1), 5_000: Price(4, 40)})
    for given_, rates in ((999, (1, 10)), (1_000, (1, 10)), (1_001, (2, 20)), (5_000, (2, 20)), (5_001, (4, 40))):
        usage = TokenUsage(given_, 7, 0, 0, 0, "provider")
        assert token_cost(usage, "x", price) == Cost.exact(Decimal(rates[0] * given_ + rates[1] * 7) / MILLION), given_
    assert price.of(TokenUsage(1_001, 0, 1_001)) == Decimal(1_001) / MILLION
    assert price.of(TokenUsage(5_001, 0, 5_001)) == Decimal(4 * 5_001) / MILLION  # that tier has no price for its cache


def test_reasoning_is_inside_the_output() -> None:
    usage = TokenUsage(0, 100, 0, 0, 80, "provider")
    assert token_cost(usage, "x", Price(1, 5)) == Cost.exact(Decimal(500) / MILLION)
    assert token_cost(usage, "x", Price(1, 5, reasoning=2)) == Cost.exact(Decimal(20 * 5 + 80 * 2) / MILLION)
    assert token_cost(replace(usage, reasoning=None), "x", Price(1, 5)).status == "exact"


@pytest.mark.parametrize(
    ("price", "field", "low", "high"),
    [
        (Price(10, 0, cache_read=1), "cache_read", 1_000, 10_000),
        (Price(10, 0, cache_write=12), "cache_write", 10_000, 12_000),
        (Price(10, 0, audio_input=100), "audio_input", 10_000, 100_000),
        (Price(0, 10, reasoning=1), "reasoning", 100, 1_000),
        (Price(0, 10, audio_output=40), "audio_output", 1_000, 4_000),
    ],
)
def test_a_reported_zero_is_zero_and_an_absent_figure_unknown(price: Price, field: str, low: int, high: int) -> None:
    """Where the price depends on what the endpoint left out, the cost is known between bounds, and not guessed."""
    told: dict[str, Any] = dict.fromkeys(("cache_read", "cache_write", "reasoning", "audio_input", "audio_output"), 0)
    stated = TokenUsage(1_000, 100, source="provider", **told)
    assert token_cost(stated, "x", price) == Cost.exact(Decimal(10_000 if price.input else 1_000) / MILLION)
    absent = replace(stated, **{field: None})  # type: ignore[arg-type]
    assert token_cost(absent, "x", price) == Cost.bounded(Decimal(low) / MILLION, Decimal(high) / MILLION)
    assert token_cost(absent, "x", Price(10, 10)).status == "exact"  # nothing depends on it


def test_what_is_known_narrows_what_is_not() -> None:
    price = Price(10, 0, cache_read=1, cache_write=12)
    cost = token_cost(TokenUsage(1_000, 0, 400, None, source="provider"), "x", price)
    assert cost == Cost.bounded(Decimal(400 + 6_000) / MILLION, Decimal(400 + 7_200) / MILLION)


def test_no_usage_says_which_cache_writes_are_kept_for_an_hour() -> None:
    price = Price(4, 0, cache_write=5, cache_write_1h=8)
    assert token_cost(TokenUsage(100, 0, 0, 100, source="provider"), "x", price) == Cost.bounded("0.0005", "0.0008")
    assert token_cost(TokenUsage(100, 0, 0, 0, source="provider"), "x", price) == Cost.exact("0.0004")


def test_sound_is_priced_and_cached_sound_lies_between() -> None:
    price = Price(2, 8, audio_input=40, audio_output=80, cache_read=1)
    plain = TokenUsage(100, 50, 0, 0, 0, "provider", 30, 20)
    assert token_cost(plain, "x", price) == Cost.exact(Decimal(70 * 2 + 30 * 40 + 30 * 8 + 20 * 80) / MILLION)
    mixed = TokenUsage(100, 0, 60, 0, 0, "provider", 30, 0)
    exact = replace(mixed, cache_read=0)
    assert token_cost(exact, "x", price) == Cost.exact(Decimal(70 * 2 + 30 * 40) / MILLION)
    # The sound may be cached or not, and no price says what cached sound costs.
    least, most = 40 * 2 + 60 * 1, 40 * 2 + 30 * 1 + 30 * 40
    assert token_cost(mixed, "x", price) == Cost.bounded(Decimal(least) / MILLION, Decimal(most) / MILLION)
    told = Price(2, 8, audio_input=40, cache_read=1, audio_cache_read=10)
    all_cached = TokenUsage(100, 0, 100, 0, 0, "provider", 30, 0)
    assert token_cost(all_cached, "x", told) == Cost.exact(Decimal(70 * 1 + 30 * 10) / MILLION)


def test_a_request_has_a_price_of_its_own() -> None:
    price = Price(1, 1, request="0.005")
    assert token_cost(USAGE, "x", price) == Cost.exact(Decimal("0.0061"))
    assert token_cost(replace(USAGE, requests=3), "x", price) == Cost.exact(Decimal("0.0161"))


# Bad prices


@pytest.mark.parametrize(
    "amount", [0.4, True, "nan", "inf", -1, "-0.1", "1,5", "1_000", "free", "", None, "1e-50", "1e15"]
)
def test_floats_and_amounts_that_are_none_are_refused(amount: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Price(amount, 1)
    if amount is not None:
        with pytest.raises((TypeError, ValueError)):
            Price(1, 1, cache_read=amount)
        with pytest.raises((TypeError, ValueError)):
            Price(1, 1, request=amount)


@pytest.mark.parametrize("field", ["input", "output", "cache_read", "audio_input", "reasoning"])
def test_a_price_per_token_is_refused_with_what_was_meant(field: str) -> None:
    fields: dict[str, Any] = {"input": 1, "output": 1}
    with pytest.raises(
        ValueError, match=rf"{field} is US dollars per million tokens.*write 2\.5, or.*Price\.per_token"
    ):
        Price(**{**fields, field: "0.0000025"})
    assert Price(**{**fields, field: "0.001"})
    assert Price(**{**fields, field: 0})


def test_a_price_per_token_that_is_said_to_be_one_is_taken() -> None:
    price = Price.per_token(input="0.0000025", output="0.00001", request="0.01", other_input=("0.000001", "0.000002"))
    assert price == Price("2.5", 10, request="0.01", other_input=(1, 2))
    tiny = Price.per_token(input="0.0000000001", output=0)
    assert tiny.input == Decimal("0.0001")  # meant, though it is below what a million tokens cost anywhere
    assert Price.from_json(tiny.to_json()) == tiny


@pytest.mark.parametrize(
    "tiers",
    [{0: Price(1, 1)}, {-1: Price(1, 1)}, {True: Price(1, 1)}, {1.5: Price(1, 1)}, {10: 3}, [(10, Price(1, 1))] * 2,
     [(20, Price(1, 1)), (10, Price(1, 1))], {10: Price(1, 1, tiers={20: Price(1, 1)})}],
)  # fmt: skip
def test_tiers_that_make_no_sense_are_refused(tiers: Any) -> None:
    with pytest.raises(ValueError, match="tier"):
        Price(1, 1, tiers=tiers)


# The worst case


@given(prices(), usages(), st.integers(0, 5_000), st.integers(0, 5_000), st.booleans())
def test_nothing_within_the_bounds_costs_more_than_the_worst_case(
    price: Price, usage: TokenUsage, more_input: int, more_output: int, text: bool
) -> None:
    quote = Quote("price", price)
    if text:
        quote, usage = quote.text_only(), replace(usage, audio_input=0)
    cost = quote.cost(usage)
    worst = quote.worst((usage.input or 0) + more_input, (usage.output or 0) + more_output)
    assert cost.high is not None
    assert worst.high is not None
    assert cost.high <= worst.high
    assert worst.low == 0
    assert quote.cost(TokenUsage(usage.input, usage.output, source="estimated")).low == 0


@given(prices(), usages(), st.data())
def test_what_was_left_out_lies_within_the_bounds(price: Price, usage: TokenUsage, data: st.DataObject) -> None:
    """Whatever the endpoint did not say, had it said it, the cost would have been within what we said without it."""
    quote = Quote("price", price)
    whole: dict[str, Any] = {
        name: getattr(usage, name) or 0 for name in ("cache_read", "cache_write", "reasoning", "audio_output")
    }
    stated = replace(usage, audio_input=usage.audio_input or 0, **whole)
    hidden = data.draw(st.sets(st.sampled_from([*whole, "audio_input"])))
    left_out = replace(stated, **dict.fromkeys(hidden))  # type: ignore[arg-type]
    known, unknown = quote.cost(stated), quote.cost(left_out)
    assert known.high is not None
    assert unknown.high is not None
    assert unknown.low <= known.low <= known.high <= unknown.high


@given(usages(2_000, 500))
def test_the_bounds_of_sound_are_those_of_every_way_to_lie(usage: TokenUsage) -> None:
    """Against all ways in which the sound can lie across what was read from the cache, written to it, and neither."""
    price = Price(2, 8, cache_read=1, cache_write=3, audio_input=40, audio_cache_read=10)
    read, written, heard = (usage.cache_read or 0) % 7, (usage.cache_write or 0) % 7, (usage.audio_input or 0) % 9
    total = read + written + 3
    heard = min(heard, total)
    costs = []
    for in_read in range(min(read, heard) + 1):
        for in_written in range(min(written, heard - in_read) + 1):
            plain = heard - in_read - in_written
            if plain <= 3:
                text = (read - in_read) * 1 + (3 - plain) * 2
                for written_sound in (3, 40):  # cached sound has its price, written sound lies between two
                    costs.append(
                        text + in_read * 10 + plain * 40 + (written - in_written) * 3 + in_written * written_sound
                    )
    cost = Quote("price", price).cost(TokenUsage(total, 0, read, written, 0, "provider", heard, 0))
    assert cost == Cost.bounded(Decimal(min(costs)) / MILLION, Decimal(max(costs)) / MILLION)


def test_the_worst_case_takes_the_dearest_rate_of_the_dearest_tier_in_reach() -> None:
    price = Price(2, 8, cache_write=3, reasoning=9, request="0.5", tiers={1_000: Price(4, 1), 9_000: Price(1, 50)})
    worst = Quote("price", price).worst
    assert worst(1_000, 10) == Cost.bounded(0, Decimal(1_000 * 3 + 10 * 9) / MILLION + Decimal("0.5"))
    assert worst(1_001, 0) == Cost.bounded(0, Decimal(1_001 * 3) / MILLION + Decimal("0.5"))
    assert worst(8_000, 0).high == max(Decimal(8_000 * 3) / MILLION + Decimal("0.5"), Decimal(8_000 * 4) / MILLION)
    assert worst(9_001, 100_000).high == Decimal(9_001 + 50 * 100_000) / MILLION
    assert worst(None, 10) == worst(10, None) == Cost.unpriced()


def test_a_request_of_text_alone_is_not_priced_by_sound_and_pictures() -> None:
    price = Price(2, 8, audio_input=40, other_input=(5, 90), tiers={10: Price(3, 9, audio_output=70)})
    text = Quote("price", price).text_only()
    assert text.worst(10, 10) == Cost.bounded(0, Decimal(100) / MILLION)
    assert text.worst(11, 10) == Cost.bounded(0, Decimal(3 * 11 + 90) / MILLION)
    assert text.cost(TokenUsage(10, 10, source="provider")) == Cost.exact(Decimal(100) / MILLION)
    assert Quote("price", price).cost(TokenUsage(10, 10, source="provider", audio_input=0)).status == "bounded"


# By the second


def test_seconds_and_tokens_add_up() -> None:
    quote = Quote("price", Price(1, 1, request=1), per_second=Decimal("0.0008"))
    assert quote.cost(USAGE, seconds=2.5) == Cost.exact("1.0031")
    assert quote.worst(1_000, 100, seconds=60) == Cost.bounded(0, "1.0491")
    assert quote.cost(USAGE).status == quote.worst(1, 1).status == "unpriced"
    local = Quote("price", per_second=Decimal("0.0008"))
    assert local.cost(TokenUsage(), seconds=0.1) == Cost.exact("0.00008")  # no tokens are needed
    assert local.by_second
    assert Quote.either([local, Quote("price", Price(1, 1))]).by_second


def test_either_price_holds_and_nobody_knows_which() -> None:
    one, other = Quote("price", Price(2, 2), tier="standard"), Quote("price", Price(1, 1), tier="flex")
    both = Quote.either([one, other])
    assert both.cost(USAGE) == Cost.bounded("0.0011", "0.0022")
    assert both.worst(1_000, 100) == Cost.bounded(0, "0.0022")
    assert both.tier == "standard or flex"
    assert Quote.either([one, one]) is one
    assert Quote.either([one, Quote("price", per_second=Decimal(1))]).cost(USAGE).status == "unpriced"
    at_most = replace(one, at_most=True)
    assert at_most.cost(USAGE) == Cost.bounded(0, "0.0022")
    with pytest.raises(ValueError, match="at least one"):
        Quote.either([])


@given(prices(), usages(), st.none() | AMOUNTS, st.booleans(), st.booleans())
def test_a_snapshot_gives_the_same_cost_again(
    price: Price, usage: TokenUsage, second: Decimal | None, at_most: bool, two: bool
) -> None:
    quote = Quote("genai-prices", price, second, "flex", at_most, "openai", "m", "1.2", "an entry")
    if two:
        quote = Quote.either([quote, replace(quote, tier="standard", price=price.times(Decimal("0.37")))])
    written = json.loads(json.dumps(quote.to_json()))
    again = Quote.from_json(written)
    assert again == quote
    long = Quote("x", price.times(Decimal("0.1234567890123456789012345678901234567891")), second)
    assert Quote.from_json(long.to_json()) == long
    assert again.cost(TokenUsage.from_json(json.loads(json.dumps(usage.to_json()))), seconds=1.5) == quote.cost(
        usage, seconds=1.5
    )


@pytest.mark.parametrize(
    "change", [{"input": -1}, {"input": 1.5}, {"requests": True}, {"source": "rumour"}, {"output": "7"}]
)
def test_a_usage_that_is_none_is_not_read(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"whole number|comes from"):
        TokenUsage.from_json({**USAGE.to_json(), **change})
    assert TokenUsage.from_json({}) == TokenUsage()


# Exactness


@pytest.fixture(params=["short", "up", "traps", "narrow"])
def hostile(request: pytest.FixtureRequest) -> Iterator[None]:
    """A decimal context as an application may have set it."""
    signals = [decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.Subnormal, decimal.Overflow]
    context = {
        "short": decimal.Context(prec=3),
        "up": decimal.Context(prec=5, rounding=decimal.ROUND_UP),
        "traps": decimal.Context(prec=4, traps=signals),
        "narrow": decimal.Context(prec=2, Emax=2, Emin=-2, clamp=1),
    }[request.param]
    with decimal.localcontext(context):
        yield


def ratio(one: int, other: int) -> tuple[int, int]:
    return Fraction(one, other).as_integer_ratio()


def test_amounts_are_exact_in_any_decimal_context(hostile: None) -> None:
    price = Price(
        "1.23456789", "9.87654321", cache_read="0.11111111", request="0.00012345", tiers={10**8: Price("3.3333333", 1)}
    )
    usage = TokenUsage(98_765_432, 12_345_678, 23_456_789, 0, 0, "provider")
    cost = Quote("price", price).cost(usage)
    plain, read, made = 98_765_432 - 23_456_789, 23_456_789, 12_345_678
    units = plain * 123456789 + read * 11111111 + made * 987654321  # of 10**-14 US dollars
    assert cost.status == "exact"
    assert cost.low.as_integer_ratio() == ratio(units + 12345 * 10**6, 10**14)
    worst = Quote("price", price).worst(10**8 + 1, 0)
    assert str(worst.high) == "333.3333333333333"  # 100,000,001 tokens at 3.3333333: longer than any context here
    assert cpu_cost(12345.6789, "0.0000112444").low.as_integer_ratio() == ratio(123456789 * 112444, 10**14)
    assert cpu_cost(1234567.125).low.as_integer_ratio() == ratio(1234567125 * 112444, 10**13)
    assert str(Price.per_token(input="0.00000123456789", output=0).input) == "1.23456789000000"
    assert price.times(Decimal("0.87654321")).input.as_integer_ratio() == ratio(123456789 * 87654321, 10**16)
    with pytest.raises(ValueError, match=r"write 2\.51234"):
        Price("0.00000251234", 1)
    with pytest.raises(ValueError, match=r"such as 2\.50"):
        Price("two", 1)


def test_list_prices_are_exact_in_any_decimal_context(hostile: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_prices import data_snapshot
    from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider

    rates = ModelPrice(input_mtok=Decimal("1.2345678"), output_mtok=Decimal(0), requests_kcount=Decimal("12.345678"))
    provider = Provider("openai", "", "", models=[ModelInfo("m", ClauseEquals("m"), prices=rates)])
    snapshot = data_snapshot.DataSnapshot([provider], from_auto_update=False)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", snapshot)
    cost = token_cost(TokenUsage(7_654_321, 0, 0, 0, 0, "provider"), "m")
    assert cost.low.as_integer_ratio() == ratio(12345678 * 7654321 + 12345678 * 10**4, 10**13)
    assert cost.status == "exact"


# List prices


def test_list_prices_go_by_name_and_provider() -> None:
    listed = token_cost(USAGE, "openai:gpt-4.1-mini")
    assert listed.status == "exact"
    assert listed.low > 0
    assert token_cost(USAGE, "gpt-4.1-mini") == listed
    assert token_cost(USAGE, "gpt-4.1-mini", endpoint="https://api.openai.com/v1") == listed
    assert token_cost(USAGE, "gpt-4.1-mini", endpoint="http://127.0.0.1:8000/v1") == listed
    groq = token_cost(USAGE, "gpt-4.1-mini", endpoint="https://api.groq.com/openai/v1")
    assert groq.status == "unpriced"  # a known provider that does not sell this model


def test_what_has_no_price_is_unpriced() -> None:
    assert token_cost(USAGE, "openai:no-such-model-anywhere") == Cost.unpriced()
    assert token_cost(TokenUsage(), "openai:gpt-4.1-mini") == Cost.unpriced()
    assert token_cost(TokenUsage(5, None, source="provider"), "openai:gpt-4.1-mini") == Cost.unpriced()


def test_estimated_usage_is_an_upper_bound() -> None:
    cost = token_cost(TokenUsage(1_000_000, 0, source="estimated"), "x", Price(2, 0))
    assert cost == Cost.bounded(0, 2)
    dear = token_cost(
        TokenUsage(1_000_000, 1_000_000, source="estimated"), "x", Price(2, 1, cache_write=3, reasoning=5)
    )
    assert dear == Cost.bounded(0, 8)
    # An estimate is a bound: the request may have been smaller, and below a tier that is cheaper.
    cheaper = Price(4, 4, tiers={1_000: Price(1, 1)})
    assert token_cost(TokenUsage(1_000_000, 0, source="estimated"), "x", cheaper) == Cost.bounded(0, 4)


# CPU seconds


def test_cpu_seconds_are_exact_and_add_up() -> None:
    assert cpu_cost(2, "0.5") == Cost.exact(1)
    assert cpu_cost(0.1, 1) == Cost.exact("0.1")
    assert cpu_cost(3600).low == DEFAULT_CPU_RATE * 3600
    assert cpu_cost(0) == Cost.exact(0)
    with pytest.raises(ValueError, match="negative"):
        cpu_cost(-1)
    with pytest.raises(TypeError):
        cpu_cost(1, 0.5)  # type: ignore[arg-type]
