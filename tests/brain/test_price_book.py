"""The price book: whose price holds, where, in which tier and when; list prices; and files that are refused whole."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain.errors import ConfigurationError, PriceError
from brain.events import TokenUsage
from brain.prices import LIST_PRICES, Price, PriceBook, PriceEntry, Quote, served, tier_name
from brain.prices.rates import LEAST_PER_MILLION
from specialists import Cost
from tests.brain.test_prices import MILLION, usages

USAGE = TokenUsage(1_000, 100, 400, 0, 0, "provider")
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
OPENAI = "https://api.openai.com/v1"


def rate(book: PriceBook, model: str = "m", **where: Any) -> Decimal | None:
    """The input price that holds."""
    quote = book.price_of(model, **{"at": NOW, **where})
    return None if quote is None or quote.price is None else quote.price.input


# Which entry holds


def test_a_whole_name_goes_before_a_beginning_and_the_longer_before_the_shorter() -> None:
    book = PriceBook(
        [
            PriceEntry("*", Price(1, 1)),
            PriceEntry("gpt-*", Price(2, 2)),
            PriceEntry("gpt-4*", Price(3, 3)),
            PriceEntry("openai:GPT-4.1", Price(4, 4)),
        ]
    )
    assert [rate(book, name) for name in ("llama", "gpt-5", "gpt-4o", "gpt-4.1", "openai:gpt-4.1", "GPT-4.1")] == [
        1, 2, 3, 4, 4, 4,
    ]  # fmt: skip


def test_an_endpoint_goes_before_a_name() -> None:
    book = PriceBook(
        [
            PriceEntry("m", Price(1, 1)),
            PriceEntry("*", Price(2, 2), endpoint="https://gateway.example.com"),
            PriceEntry("*", Price(3, 3), endpoint="https://Gateway.example.com:443/team/v1/"),
        ]
    )
    assert rate(book) == rate(book, endpoint=OPENAI) == 1
    assert rate(book, endpoint="https://gateway.example.com/v1") == 2
    assert rate(book, endpoint="https://gateway.example.com/team/v1") == 3
    assert rate(book, endpoint="https://gateway.example.com/team/v12") == 2  # another path, not a longer one
    assert rate(book, endpoint="http://gateway.example.com/team/v1") == 1  # another origin
    assert rate(book, endpoint="https://gateway.example.com.evil.example/v1") == 1
    assert rate(book, endpoint="not a URL") == 1


def test_a_price_that_changed_on_a_date_is_looked_up_for_the_moment() -> None:
    book = PriceBook(
        [
            PriceEntry("m", Price(1, 1)),
            PriceEntry("m", Price(2, 2), since=date(2026, 7, 1)),
            PriceEntry("m", Price(3, 3), since=datetime(2026, 9, 1, 8, tzinfo=timezone(timedelta(hours=2)))),
            PriceEntry("n", Price(9, 9), since=date(2026, 7, 1), until=date(2026, 8, 1)),
        ],
        list_prices=False,
    )
    second = timedelta(seconds=1)
    july, september = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 9, 1, 6, tzinfo=UTC)
    moments = [july - second, july, september - second, september, july - second]
    assert [rate(book, at=at) for at in moments] == [1, 2, 2, 3, 1]  # and back: nothing is remembered too long
    august = datetime(2026, 8, 1, tzinfo=UTC)
    assert [rate(book, "n", at=at) for at in (july - second, july, august - second, august)] == [None, 9, 9, None]
    elsewhere = july.astimezone(timezone(-timedelta(hours=5)))
    assert rate(book, at=elsewhere) == 2
    with pytest.raises(ValueError, match="time zone"):
        book.price_of("m", at=datetime(2026, 7, 1))


def test_a_tier_has_a_price_of_its_own_or_a_bound_or_none() -> None:
    entries = [PriceEntry("m", Price(4, 4)), PriceEntry("m", Price(1, 1), tier="flex"), PriceEntry("*", Price(9, 9))]
    book = PriceBook(entries)
    assert [rate(book, tier=tier) for tier in (None, "default", "auto", "on_demand", "standard")] == [4] * 5
    assert rate(book, tier="flex") == 1
    batch = book.price_of("m", tier="batch", at=NOW)
    assert batch is not None
    assert batch.at_most  # cheaper by nature, by how much nobody said
    assert batch.cost(USAGE) == Cost.bounded(0, Decimal(4_400) / MILLION)
    assert (
        book.price_of("m", tier="priority", at=NOW) is None
    )  # dearer by nature, and not the list's: it has a price here
    everywhere = PriceBook([PriceEntry("m", Price(4, 4), tier="any")])
    assert rate(everywhere, tier="priority") == rate(everywhere, tier="scale") == 4
    only = PriceBook([PriceEntry("gpt-4.1", Price(1, 1), tier="batch")])
    assert rate(only, "gpt-4.1", tier="batch") == 1
    assert rate(only, "gpt-4.1") == rate(LIST_PRICES, "gpt-4.1")  # it says nothing of the standard tier


def test_of_several_tiers_one_serves() -> None:
    book = PriceBook([PriceEntry("m", Price(4, 4)), PriceEntry("m", Price(1, 1), tier="flex")])
    both = book.price_of("m", tier=served("flex", None), at=NOW)
    assert both is not None
    assert both.cost(USAGE) == Cost.bounded(Decimal(1_100) / MILLION, Decimal(4_400) / MILLION)
    assert both.worst(1_000, 100) == Cost.bounded(0, Decimal(4_400) / MILLION)
    assert book.price_of("m", tier=served("priority", None), at=NOW) is None
    assert served("flex", "default") == served(None, None) == served(None, "auto") == ("standard",)
    assert served("fast", "priority") == ("priority",)
    assert served("flex", None) == ("flex", "standard")
    assert tier_name("Fast") == "priority"


def test_two_entries_that_contradict_each_other_are_refused() -> None:
    entries = [PriceEntry("m", Price(1, 1), label="one"), PriceEntry("openai:M", Price(2, 2), label="two")]
    with pytest.raises(PriceError, match=r"two: one is about the same|one: two is about the same"):
        PriceBook(entries)
    PriceBook([entries[0], PriceEntry("m", Price(2, 2), since=date(2026, 1, 1))])
    PriceBook([entries[0], PriceEntry("m", Price(2, 2), tier="flex")])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": 3},
        {"model": "a*b"},
        {"model": "a\nb"},
        {"price": None},
        {"price": 3},
        {"factor": "0.8"},
        {"price": None, "factor": "80"},
        {"price": None, "factor": -1},
        {"price": None, "factor": 0.5},
        {"like": "gpt-4.1"},
        {"price": None, "like": "gpt*"},
        {"per_second": 0.1},
        {"per_second": "-1"},
        {"endpoint": "api.openai.com"},
        {"endpoint": "https://key@api.openai.com/v1"},
        {"endpoint": "https://api.openai.com/v1?key=1"},
        {"endpoint": "ftp://api.openai.com"},
        {"endpoint": 3},
        {"tier": ""},
        {"tier": 3},
        {"since": "2026-01-01"},
        {"since": datetime(2026, 1, 1)},
        {"since": date(2026, 2, 1), "until": date(2026, 2, 1)},
    ],
)
def test_an_entry_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PriceError) as raised:
        PriceEntry(**{"model": "m", "price": Price(1, 1), **fields})
    assert isinstance(raised.value, ConfigurationError)


# List prices


def test_a_negotiated_rate_is_a_part_of_the_list_price() -> None:
    book = PriceBook(
        [PriceEntry("gpt-4.1*", factor="0.8"), PriceEntry("ours", like="gpt-4.1"), PriceEntry("x", factor=1)]
    )
    listed = LIST_PRICES.price_of("gpt-4.1-mini", at=NOW)
    reduced = book.price_of("gpt-4.1-mini", at=NOW)
    assert listed is not None
    assert reduced is not None
    assert reduced.cost(USAGE).low == listed.cost(USAGE).low * Decimal("0.8") > 0
    for tier in ("flex", "priority", "batch"):
        assert rate(book, "gpt-4.1", tier=tier) == rate(LIST_PRICES, "gpt-4.1", tier=tier) * Decimal("0.8")  # type: ignore[operator]
    assert rate(book, "ours") == rate(LIST_PRICES, "gpt-4.1")
    assert rate(book, "x") is None  # a part of what is not listed
    written = reduced.to_json()
    assert written["source"] == "genai-prices"
    assert written["provider"] == "openai"
    assert written["entry"] == "The price entry for gpt-4.1*"
    assert written["version"].count(".") == 2
    standard = PriceBook([PriceEntry("gpt-4.1", factor="0.5", tier="standard")])
    flex = standard.price_of("gpt-4.1", tier="flex", at=NOW)
    assert flex is not None
    assert (flex.at_most, flex.tier) == (True, "flex")


def test_a_local_model_is_priced_by_the_second_and_a_closed_book_knows_no_list() -> None:
    book = PriceBook(
        [PriceEntry("qwen*", per_second="0.0008", endpoint="http://127.0.0.1:8000", tier="any")],
        cpu_second="0.00001",
        gpu_second="0.0008",
        list_prices=False,
    )
    quote = book.price_of("qwen3-8b", endpoint="http://127.0.0.1:8000/v1")
    assert quote is not None
    assert quote.cost(TokenUsage(), seconds=2) == Cost.exact("0.0016")
    assert (book.cpu_second, book.gpu_second) == (Decimal("0.00001"), Decimal("0.0008"))
    assert book.price_of("qwen3-8b") is None
    assert book.price_of("gpt-4.1") is None
    with pytest.raises(PriceError, match="gpu_second is money"):
        PriceBook(gpu_second=0.1)  # type: ignore[arg-type]


def test_one_price_for_everything() -> None:
    book = PriceBook.flat(Price(3, 3))
    assert rate(book, "anything", endpoint=OPENAI, tier="scale", at=datetime(1999, 1, 1, tzinfo=UTC)) == 3
    quote = book.price_of("anything")
    assert quote is not None
    assert quote.to_json() == {
        "source": "price",
        "tier": "standard",
        "usd_per_million_tokens": {"input": "3", "output": "3"},
    }


def models() -> Iterator[tuple[Any, Any]]:
    from genai_prices.data_snapshot import get_snapshot

    for provider in get_snapshot().providers:
        for model in provider.models:
            yield provider, model


def listed_price(provider: Any, model: Any, at: datetime) -> Price | None:
    from brain.prices.listed import _price

    return _price(vars(model.get_prices(at, None)))


def test_every_list_price_is_above_what_is_taken_for_a_price_per_token() -> None:
    """And no price of one token reaches it: that is what the limit rests on."""
    amounts = set()
    for provider, model in models():
        price = listed_price(provider, model, NOW)
        for each in [] if price is None else [price, *(price for _, price in price.tiers)]:
            named = ("input", "output", "cache_read", "cache_write", "audio_input", "audio_output")
            amounts |= {getattr(each, name) for name in named if getattr(each, name) is not None}
    amounts.discard(Decimal(0))
    assert len(amounts) > 300
    assert min(amounts) > LEAST_PER_MILLION > max(amounts) / MILLION


def test_we_price_as_the_list_itself_does() -> None:
    """What a usage states in full costs here what genai-prices calculates, for each model with a price by tokens."""
    from genai_prices import Usage

    compared = 0
    for provider, model in models():
        price = listed_price(provider, model, NOW)
        if price is None:
            continue
        for given_ in (1_000, 200_000, 200_001, 272_001):
            usage = TokenUsage(given_, 500, 300, 0, 0, "provider", 0, 0)
            theirs = model.calc_price(
                Usage(input_tokens=given_, output_tokens=500, cache_read_tokens=300),
                provider,
                genai_request_timestamp=NOW,
            ).total_price
            low, high = price.text_only().bounds(usage)
            assert low <= theirs <= high, (provider.id, model.id)
            assert price.other_output is not None or low == high == theirs, (provider.id, model.id)
            compared += 1
    assert compared > 8_000


def test_a_list_price_tier_begins_one_token_above_its_boundary() -> None:
    quote = LIST_PRICES.price_of("gpt-5.4", at=NOW)
    assert quote is not None
    assert quote.price is not None
    [(above, dearer)] = quote.price.tiers
    at, beyond = (quote.cost(TokenUsage(above + more, 0, 0, 0, 0, "provider")) for more in (0, 1))
    assert at == Cost.exact(quote.price.input * above / MILLION)
    assert beyond == Cost.exact(dearer.input * (above + 1) / MILLION)
    assert dearer.input > quote.price.input


@settings(max_examples=60)
@given(usages(300_000, 20_000), st.integers(0, 10**6), st.sampled_from([None, "flex", "batch", "priority"]))
def test_no_usage_of_a_listed_model_costs_more_than_its_worst_case(usage: TokenUsage, pick: int, tier: Any) -> None:
    every = list(models())
    for step in range(20):
        _, model = every[(pick + step * 7919) % len(every)]
        provider = every[(pick + step * 7919) % len(every)][0]
        price = listed_price(provider, model, NOW)
        if price is not None:
            quote = Quote("genai-prices", price)
            cost, worst = quote.cost(usage), quote.worst(usage.input, usage.output)
            assert cost.high is not None
            assert worst.high is not None
            assert cost.high <= worst.high, (model.id, usage)
    quote_at = LIST_PRICES.price_of("gpt-5.4-mini", tier=tier, at=NOW)
    if quote_at is not None:
        high = quote_at.cost(usage).high
        most = quote_at.worst(usage.input, usage.output).high
        assert high is not None
        assert most is not None
        assert high <= most


def test_what_the_list_names_without_a_price_is_unpriced_and_not_free() -> None:
    """genai-prices calculates zero for a model that it lists without any price."""
    nameless = [(provider, model) for provider, model in models() if not vars(model.get_prices(NOW, None))]
    assert len(nameless) > 100
    assert all(listed_price(provider, model, NOW) is None for provider, model in nameless)
    embedding = LIST_PRICES.price_of("text-embedding-3-small", at=NOW)
    assert embedding is None  # it has no price for what comes out


def test_a_list_price_that_changed_on_a_date() -> None:
    """Tiers of gpt-5-mini are listed from 12 October 2026 on; before, flex is only known to be no dearer."""
    before, after = (
        LIST_PRICES.price_of("gpt-5-mini", tier="flex", at=datetime(2026, 10, day, tzinfo=UTC)) for day in (11, 12)
    )
    assert before is not None
    assert after is not None
    assert (before.at_most, after.at_most) == (True, False)
    assert before.price == getattr(LIST_PRICES.price_of("gpt-5-mini", at=NOW), "price", None)
    assert LIST_PRICES.price_of("gpt-5-mini", tier="priority", at=datetime(2026, 10, 11, 23, 59, tzinfo=UTC)) is None
    assert LIST_PRICES.price_of("gpt-5-mini", tier="priority", at=datetime(2026, 10, 12, tzinfo=UTC)) is not None


def test_a_list_price_by_the_hour_is_between_the_peak_and_the_rest() -> None:
    """The data cannot say on which days there is no peak."""
    where: dict[str, Any] = {"endpoint": "https://api.deepseek.com/v1"}
    calm = LIST_PRICES.price_of("deepseek-chat", at=datetime(2026, 11, 2, 0, 29, 59, tzinfo=UTC), **where)
    peak = LIST_PRICES.price_of("deepseek-chat", at=datetime(2026, 11, 2, 0, 30, tzinfo=UTC), **where)
    again = LIST_PRICES.price_of("deepseek-chat", at=datetime(2026, 11, 2, 16, 30, tzinfo=UTC), **where)
    assert calm is not None
    assert peak is not None
    assert calm == again
    assert calm.cost(USAGE).status == "exact"
    cost = peak.cost(USAGE)
    assert cost.status == "bounded"
    assert cost.low == calm.cost(USAGE).low
    assert cost.high == 2 * cost.low


def test_a_list_that_the_application_updates_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_prices import data_snapshot
    from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider

    book = PriceBook()
    old = rate(book, "gpt-4.1")
    newer = ModelInfo(
        "gpt-4.1", ClauseEquals("gpt-4.1"), prices=ModelPrice(input_mtok=Decimal(77), output_mtok=Decimal(1))
    )
    provider = Provider("openai", "OpenAI", r"https://api\.openai\.com", models=[newer])
    monkeypatch.setattr(
        data_snapshot, "_custom_snapshot", data_snapshot.DataSnapshot([provider], from_auto_update=True)
    )
    assert rate(book, "gpt-4.1") == 77 != old
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", None)
    assert rate(book, "gpt-4.1") == old


def test_a_quote_is_kept_and_the_keeping_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from brain.prices import book as module
    from brain.prices.listed import ListPrice, list_price

    looked: list[str] = []

    def counting(name: str, *more: Any) -> ListPrice:
        looked.append(name)
        return list_price(name, *more)

    monkeypatch.setattr(module, "list_price", counting)
    book = PriceBook()
    for _ in range(3):
        book.price_of("gpt-4.1", endpoint=OPENAI)
        book.price_of("gpt-4.1", endpoint=OPENAI, text_only=True)
    assert looked == ["gpt-4.1"]
    for number in range(3_000):
        book.price_of(f"model-{number}")
    assert len(book._kept) <= module._MOST_KEPT


MOMENTS = st.integers(-200, 500).map(lambda hours: NOW + timedelta(hours=hours))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["deepseek-chat", "deep*", "*"]), st.none() | MOMENTS, st.integers(1, 400),
                       st.sampled_from([None, "standard", "flex", "any"]), st.booleans()),
             max_size=6, unique_by=lambda drawn: drawn[:2]),
    st.lists(st.tuples(MOMENTS, st.sampled_from([None, "flex"])), min_size=2, max_size=8),
)  # fmt: skip
def test_what_is_kept_is_what_a_new_book_would_find(drawn: list[Any], asked: list[Any]) -> None:
    """In whatever order moments are asked for: dates of the book, and dates and hours of the list."""
    entries = []
    for number, (model, since, hours, tier, listed) in enumerate(drawn, 1):
        until = (since or NOW) + timedelta(hours=hours)
        what: dict[str, Any] = {"factor": "0.5"} if listed else {"price": Price(number, number)}
        entries.append(PriceEntry(model, tier=tier, since=since, until=until, **what))
    book = PriceBook(entries)
    for at, tier in asked:
        where: dict[str, Any] = {"endpoint": "https://api.deepseek.com/v1", "tier": tier, "at": at}
        assert book.price_of("deepseek-chat", **where) == PriceBook(entries).price_of("deepseek-chat", **where)


def test_a_book_is_pickled_without_the_list() -> None:
    book = PriceBook([PriceEntry("gpt-4.1", factor="0.8")], cpu_second=0)
    book.price_of("gpt-4.1")
    written = pickle.dumps(book)
    assert len(written) < 2_000
    again = pickle.loads(written)
    assert again.entries == book.entries
    assert rate(again, "gpt-4.1") == rate(book, "gpt-4.1")


# Files

GOOD = """
# Ours from July on, and theirs with a fifth off.
[machine]
cpu_second = "0.00001"
gpu_second = 0.0008

[[price]]
model = "gpt-4.1"
endpoint = "https://api.openai.com/v1"
from = 2026-07-01
until = 2027-01-01T00:00:00Z
unit = "million tokens"
input = "2.00"
output = 8
cache_read = 0.1234567890123456789
audio_input = 40
request = "0.001"
tiers = [{ above = 200_000, input = "4.00", output = "12.00" }]

[[price]]
model = "gpt-4.1"
tier = "batch"
unit = "token"
input = "0.0000000001"
output = 0

[[price]]
model = "gpt-5*"
discount = 0.20

[[price]]
model = "house-model"
like = "gpt-4.1-mini"
factor = "1.05"

[[price]]
model = "qwen3-*"
endpoint = "http://127.0.0.1:8000"
tier = "any"
gpu_second = "0.0008"
cpu_second = "0.0001"
"""


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "prices.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_file_is_read_without_a_digit_lost(tmp_path: Path) -> None:
    book = PriceBook.load(written(tmp_path, GOOD))
    assert (book.cpu_second, book.gpu_second) == (Decimal("0.00001"), Decimal("0.0008"))
    quote = book.price_of("gpt-4.1", endpoint=OPENAI, at=NOW)
    assert quote is not None
    assert quote.price == Price(
        2, 8, cache_read="0.1234567890123456789", audio_input=40, request="0.001", tiers={200_000: Price(4, 12)}
    )
    assert quote.to_json()["entry"] == "prices.toml, [[price]] 1, line 7 (gpt-4.1)"
    assert rate(book, "gpt-4.1", endpoint=OPENAI, at=datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC)) == rate(
        LIST_PRICES, "gpt-4.1"
    )
    assert rate(book, "gpt-4.1", endpoint=OPENAI, at=datetime(2027, 1, 1, tzinfo=UTC)) == rate(LIST_PRICES, "gpt-4.1")
    assert rate(book, "gpt-4.1", tier="batch") == Decimal("0.0001")
    assert rate(book, "gpt-5-mini") == rate(LIST_PRICES, "gpt-5-mini") * Decimal("0.8")  # type: ignore[operator]
    assert rate(book, "house-model") == rate(LIST_PRICES, "gpt-4.1-mini") * Decimal("1.05")  # type: ignore[operator]
    local = book.price_of("qwen3-8b", endpoint="http://127.0.0.1:8000/v1")
    assert local is not None
    assert local.cost(TokenUsage(), seconds=10) == Cost.exact("0.009")


def test_an_empty_file_is_the_list(tmp_path: Path) -> None:
    book = PriceBook.load(str(written(tmp_path, "\ufeff# nothing yet\r\n")))
    assert book.entries == ()
    assert rate(book, "gpt-4.1") == rate(LIST_PRICES, "gpt-4.1")


def table(*lines: str) -> str:
    return "\n".join(['[[price]]\nmodel = "good"\nfactor = 1\n', "[[price]]", 'model = "bad"', *lines])


UNIT = 'unit = "million tokens"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table("input = 1", "output = 1"), r"the unit is missing; add unit = \"million tokens\""),
        (table('unit = "million"', "input = 1", "output = 1"), "unit is"),
        (table("unit = 1", "input = 1", "output = 1"), "unit is"),
        (table(UNIT, "factor = 1"), "no price by tokens"),
        (table(UNIT, 'input = "0.0000025"', "output = 10"), r"per million.*write 2\.5, or unit = \"token\""),
        (table(UNIT, "input = 0.0000025", "output = 10"), r"per million.*write 2\.5, or unit = \"token\""),
        (table(UNIT, "input = 1"), "output is missing"),
        (table(UNIT, "cache_read = 1"), "input and output is missing"),
        (table(UNIT, "input = -1", "output = 1"), "zero or more"),
        (table(UNIT, "input = inf", "output = 1"), "finite"),
        (table(UNIT, "input = nan", "output = 1"), "finite"),
        (table(UNIT, 'input = "2,50"', "output = 1"), "such as 2.50"),
        (table(UNIT, "input = true", "output = 1"), "never a bool"),
        (table(UNIT, "input = [1]", "output = 1"), "never a list"),
        (
            table(UNIT, "input = 1", "output = 1", "inptu = 2"),
            "inptu is not a key that is known here; did you mean input?",
        ),
        (table(UNIT, "input = 1", "output = 1", "tiers = 3"), "tiers is a list"),
        (
            table(UNIT, "input = 1", "output = 1", "tiers = [{ input = 1, output = 1 }]"),
            "tier 1: it does not say above",
        ),
        (table(UNIT, "input = 1", "output = 1", "tiers = [{ above = 5, input = 1 }]"), "tier 1: output is missing"),
        (
            table(UNIT, "input = 1", "output = 1", "tiers = [{ above = 0, input = 1, output = 1 }]"),
            "a tier begins above",
        ),
        (
            table(UNIT, "input = 1", "output = 1", "tiers = [{ above = 5, input = 1, output = 1, unit = 3 }]"),
            "unit is not",
        ),
        (table("discount = 20"), "a discount is a part of one"),
        (table("discount = 0.2", "factor = 0.8"), "leave one out"),
        (table("factor = 80"), "a factor is a part"),
        (table("factor = 0.8", UNIT, "input = 1", "output = 1"), "give a price"),
        (table(), "give a price"),
        (table("gpu_second = 2.5"), "looks like the price of an hour"),
        (table("gpu_second = 0.001", "from = 2026-01-01T00:00:00"), "needs a time zone"),
        (table("gpu_second = 0.001", 'from = "2026-01-01"'), "from is a date"),
        (table("gpu_second = 0.001", "from = 2026-02-01", "until = 2026-01-01"), "ends"),
        (table("gpu_second = 0.001", 'endpoint = "here"'), "endpoint is"),
        (table("gpu_second = 0.001", "tier = 1"), "tier is"),
    ],
)
def test_a_table_with_a_mistake_is_named_and_the_file_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PriceError, match=message) as raised:
        PriceBook.load(written(tmp_path, text))
    assert str(raised.value).startswith("prices.toml, [[price]] 2, line 5"), str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[price]]\nfactor = 1", r"\[\[price\]\] 1, line 1: it names no model"),
        ("[[price]]\nmodel = 3\nfactor = 1", "model's name"),
        ("[price]\nmodel = 'm'", "double brackets"),
        ("price = 3", "double brackets"),
        ("machine = 3", "machine is a table"),
        ("[machine]\ngpu = 1", r"\[machine\]: gpu is not a key"),
        ("[machine]\ngpu_second = 3", "looks like the price of an hour"),
        ("currency = 'EUR'", "currency is not a key"),
        ("[[price]\n", "not TOML.*line 1"),
        ("a = 1\nb 2", "not TOML.*line 2"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than"),
        ("price = " + "[" * 100_000, "not TOML"),
        ("price = 1" + "0" * 10_000, "not TOML|double brackets"),
        ('[[price]]\nmodel = "m"\nfactor = 1e999999999', "less than"),
        ('[[price]]\nmodel = "m"\nfactor = 1\n[[price]]\nmodel = "M"\nfactor = 2', "about the same model"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(PriceError, match=message) as raised:
        PriceBook.load(written(tmp_path, text))
    assert len(str(raised.value)) < 500


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match=r"nowhere\.toml cannot be read"):
        PriceBook.load(tmp_path / "nowhere.toml")
    with pytest.raises(PriceError, match="cannot be read"):
        PriceBook.load(tmp_path)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, len(GOOD)), st.integers(0, 30))
def test_any_file_is_a_book_or_a_price_error(tmp_path_factory: Any, noise: bytes, position: int, cut: int) -> None:
    folder = tmp_path_factory.mktemp("prices")
    good = GOOD.encode()
    for raw in (noise, good[:position] + noise[:5] + good[position + cut :]):
        with contextlib.suppress(PriceError):
            assert PriceBook.load(written(folder, raw)).price_of("no such model at all") is None
