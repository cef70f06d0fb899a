"""Fault 20: usage that is missing, zero, negative or absurd. It is estimated conservatively and flagged.

A real brain and a real model against a server on this machine. Also which service tier the endpoint says it served.
"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from brain import Brain
from brain.errors import ConfigurationError
from brain.events import TokenUsage, WireAttempt
from brain.models import OpenAIModel
from brain.prices import Price, PriceBook, PriceEntry, Quote
from brain.testing import FakeEndpoint, Fault, fake_endpoint, reply
from brain.wire import retrying
from brain.wire.parsing import input_bound, read_usage
from specialists import Cost
from tests.asking import ask

PRICE = Price(input=2, output=8, cache_read="0.5", cache_write=3)
LIMIT = 500
MILLION = 10**6

LIES: dict[str, Any] = {
    "missing": None,
    "empty": {},
    "a list": [],
    "a string": "lots",
    "no input": {"completion_tokens": 5},
    "no output": {"prompt_tokens": 5},
    "zero": {"prompt_tokens": 0, "completion_tokens": 0},
    "zero input": {"prompt_tokens": 0, "completion_tokens": 5},
    "zero output for an answer": {"prompt_tokens": 10, "completion_tokens": 0},
    "negative input": {"prompt_tokens": -10, "completion_tokens": 5},
    "negative output": {"prompt_tokens": 10, "completion_tokens": -5},
    "absurd": {"prompt_tokens": 10**15, "completion_tokens": 10**15},
    "more input than the request has bytes": {"prompt_tokens": 100_000, "completion_tokens": 5},
    "far more output than was allowed": {"prompt_tokens": 10, "completion_tokens": 2 * LIMIT + 65},
    "a float": {"prompt_tokens": 10.0, "completion_tokens": 5},
    "a large float": {"prompt_tokens": 1e300, "completion_tokens": 5},
    "a bool": {"prompt_tokens": True, "completion_tokens": 5},
    "a number in a string": {"prompt_tokens": "10", "completion_tokens": 5},
    "null": {"prompt_tokens": None, "completion_tokens": None},
    "more cached than there was": {
        "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11},
    },
    "cached and written are more than there was": {
        "prompt_tokens": 10, "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 6},
    },
    "negative cache": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -9}},
    "a cache in a string": {
        "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": "9"},
    },
    "more reasoning than output": {
        "prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6},
    },
    "sound in a request of text": {
        "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 3},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(retrying, "pause", pause)


def model_at(endpoint: FakeEndpoint, **settings: Any) -> OpenAIModel:
    more = {"base_url": endpoint.base_url, "api_key": endpoint.api_key, "max_output_tokens": LIMIT, **settings}
    return OpenAIModel("m", **more)


def lie(monkeypatch: pytest.MonkeyPatch, usage: Any) -> None:
    """``Fault.usage()`` states this; the meter keeps the truth."""
    monkeypatch.setattr(fake_endpoint, "_wrong_usage", lambda kind, true: usage)


def state_tier(monkeypatch: pytest.MonkeyPatch, tier: str | None) -> None:
    """Answers state that this service tier served them."""
    whole, events = fake_endpoint.answer_body, fake_endpoint.answer_events

    def answer_body(*told: Any) -> dict[str, Any]:
        return {**whole(*told), "service_tier": tier}

    def answer_events(*told: Any) -> list[bytes]:
        written = [event for event in events(*told) if event != b"data: [DONE]\n\n"]
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in written]
        marked = [b"data: " + json.dumps({**chunk, "service_tier": tier}).encode() + b"\n\n" for chunk in chunks]
        return [*marked, b"data: [DONE]\n\n"]

    monkeypatch.setattr(fake_endpoint, "answer_body", answer_body)
    monkeypatch.setattr(fake_endpoint, "answer_events", answer_events)


def again(attempt: WireAttempt) -> Cost:
    """The cost computed from what the attempt's row says, and nothing else."""
    row = json.loads(json.dumps(attempt.to_json()))
    return Quote.from_json(row["price"]).cost(TokenUsage.from_json(row["usage"]), seconds=row["seconds"])


# Lies


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", LIES)
async def test_20_a_usage_that_cannot_be_is_the_worst_case_and_flagged(
    monkeypatch: pytest.MonkeyPatch, kind: str, stream: bool
) -> None:
    lie(monkeypatch, LIES[kind])
    with FakeEndpoint([Fault.usage("absurd", reply("an answer"))]) as endpoint:
        async with model_at(endpoint, price=PRICE) as model:
            asked = await ask(model, stream=stream)
        true = endpoint.meter[0]
    assert asked.text == "an answer"  # the answer is good, and is kept
    [attempt] = asked.attempts
    assert attempt.outcome == "ok"
    usage = attempt.usage
    assert usage.source == "estimated"
    assert asked.response is not None
    assert asked.response.usage == usage
    assert usage.output == LIMIT >= true.output
    assert usage.input is not None
    assert usage.input >= true.input
    assert usage.cache_read is usage.cache_write is usage.reasoning is None  # nobody knows
    # At the dearest rate: all of it may have been written to the cache.
    assert attempt.cost == Cost.bounded(0, Decimal(3 * usage.input + 8 * LIMIT) / MILLION)
    assert attempt.cost == again(attempt)


@pytest.mark.parametrize("kind", ["missing", "zero", "negative input", "absurd"])
async def test_20_a_brain_goes_on_and_its_bill_only_grows(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    lie(monkeypatch, LIES[kind])
    with FakeEndpoint([Fault.usage("absurd", reply("one")), reply("two")]) as endpoint:
        async with model_at(endpoint, price=PRICE) as model:
            brain = Brain(model)
            wrong, honest = await brain.run("Say one."), await brain.run("Say two.")
    assert (wrong.output, honest.output) == ("one", "two")
    assert wrong.usage.cost.high is not None
    assert wrong.usage.cost.high > 0
    assert wrong.usage.cost.low >= 0
    [row] = [row for row in wrong.usage.rows if row.kind == "model"]
    assert (row.estimated, row.unpriced) == (1, 0)
    assert "(estimated)" in str(wrong.usage)
    assert wrong.wire_attempts[0].usage.source == "estimated"
    total = (wrong.usage + honest.usage).cost
    assert total.high is not None
    assert total.high > wrong.usage.cost.high
    assert "(estimated)" not in str(honest.usage)


async def test_20_a_lie_and_no_price_is_unpriced(monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch, LIES["negative input"])
    with FakeEndpoint([Fault.usage("absurd", reply("one"))]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model)
    [attempt] = asked.attempts
    assert attempt.cost == Cost.unpriced()
    assert attempt.price is None
    assert attempt.usage.source == "estimated"


# The truth, as endpoints tell it


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("details", "cost"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}},
         Cost.exact(Decimal(20 + 40) / MILLION)),
        ({"prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}},
         Cost.exact(Decimal(4 * 2 + 2 + 2 * 3 + 40) / MILLION)),
        ({"prompt_tokens_details": {"cached_tokens": 4}},
         Cost.bounded(Decimal(6 * 2 + 2 + 40) / MILLION, Decimal(6 * 3 + 2 + 40) / MILLION)),
        ({}, Cost.bounded(Decimal(10 * Decimal("0.5") + 40) / MILLION, Decimal(10 * 3 + 40) / MILLION)),
        ({"prompt_tokens_details": None},
         Cost.bounded(Decimal(10 * Decimal("0.5") + 40) / MILLION, Decimal(10 * 3 + 40) / MILLION)),
    ],
)  # fmt: skip
async def test_a_stated_zero_is_exact_and_what_is_left_out_makes_bounds(
    monkeypatch: pytest.MonkeyPatch, details: dict[str, Any], cost: Cost, stream: bool
) -> None:
    lie(monkeypatch, {"prompt_tokens": 10, "completion_tokens": 5, **details})
    with FakeEndpoint([Fault.usage("absurd", reply("one"))]) as endpoint:
        async with model_at(endpoint, price=PRICE) as model:
            asked = await ask(model, stream=stream)
    [attempt] = asked.attempts
    assert attempt.usage.source == "provider"
    assert attempt.cost == cost == again(attempt)


def test_all_units_are_read() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 7, "audio_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 10},
    }
    read = read_usage(usage, input_limit=None, output_limit=100)
    assert read == TokenUsage(100, 50, 0, 7, 20, "provider", 30, 10)
    assert read_usage(usage, input_limit=1_000, output_limit=100) is None  # sound, in a request of text alone
    assert TokenUsage.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("total", "details", "output"),
    [
        (None, {}, 5),
        (15, {}, 5),
        (35, {"completion_tokens_details": {"reasoning_tokens": 20}}, 25),
        (15, {"completion_tokens_details": {"reasoning_tokens": 4}}, 5),
        (35, {}, 25),  # thoughts that are stated nowhere else
        (35, {"completion_tokens_details": {"reasoning_tokens": 4}}, 25),
        (3, {}, 5),
        (-1, {}, 5),
        (True, {}, 5),
        ("35", {}, 5),
    ],
)
def test_reasoning_beside_the_output_is_output(total: Any, details: dict[str, Any], output: int) -> None:
    """Whether an endpoint counts it in, beside, or only in its total: it is counted once."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": total, **details}
    read = read_usage(usage, input_limit=1_000, output_limit=100)
    assert read is not None
    assert (read.input, read.output) == (10, output)


def test_a_total_beyond_what_can_be_is_not_believed() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10_000}
    assert read_usage(usage, input_limit=1_000, output_limit=100) is None


def test_nothing_for_nothing_is_believed() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0}
    assert read_usage(usage, input_limit=1_000, output_limit=100) == TokenUsage(10, 0, source="provider")
    assert read_usage(usage, input_limit=1_000, output_limit=100, answered=True) is None
    edge = {"prompt_tokens": input_bound(1), "completion_tokens": 1}
    assert read_usage(edge, input_limit=input_bound(1), output_limit=100) is not None
    assert (
        read_usage({**edge, "prompt_tokens": input_bound(1) + 1}, input_limit=input_bound(1), output_limit=100) is None
    )


# Service tiers

TIERS = PriceBook([PriceEntry("m", Price(4, 8)), PriceEntry("m", Price(1, 2), tier="flex")], list_prices=False)
USED = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked_for", "stated", "cost", "tier"),
    [
        (None, None, Cost.exact(Decimal(80) / MILLION), "standard"),
        (None, "default", Cost.exact(Decimal(80) / MILLION), "standard"),
        (None, "flex", Cost.exact(Decimal(20) / MILLION), "flex"),
        ("flex", "flex", Cost.exact(Decimal(20) / MILLION), "flex"),
        ("flex", "default", Cost.exact(Decimal(80) / MILLION), "standard"),
        ("flex", None, Cost.bounded(Decimal(20) / MILLION, Decimal(80) / MILLION), "flex or standard"),
        ("flex", "priority", Cost.unpriced(), None),
    ],
)
async def test_the_tier_that_served_decides_the_price(
    monkeypatch: pytest.MonkeyPatch,
    asked_for: str | None,
    stated: str | None,
    cost: Cost,
    tier: str | None,
    stream: bool,
) -> None:
    lie(monkeypatch, USED)
    state_tier(monkeypatch, stated)
    with FakeEndpoint([Fault.usage("absurd", reply("one"))]) as endpoint:
        async with model_at(endpoint, prices=TIERS, service_tier=asked_for) as model:
            asked = await ask(model, stream=stream)
        assert endpoint.requests[0].body.get("service_tier") == asked_for
    [attempt] = asked.attempts
    assert attempt.cost == cost
    assert attempt.service_tier == (stated or asked_for)
    assert (None if attempt.price is None else attempt.price["tier"]) == tier
    if tier is not None:
        assert again(attempt) == cost


async def test_a_request_that_was_cut_off_may_have_been_served_by_either_tier() -> None:
    with FakeEndpoint([Fault.cut_stream()]) as endpoint:
        async with model_at(endpoint, prices=TIERS, service_tier="flex", retries=0) as model:
            asked = await ask(model, stream=True)
    [attempt] = asked.attempts
    assert attempt.outcome == "stream_cut"
    assert attempt.usage.input is not None
    assert attempt.cost == Cost.bounded(0, Decimal(4 * attempt.usage.input + 8 * LIMIT) / MILLION)


@pytest.mark.parametrize(
    "settings",
    [
        {"service_tier": "flex", "price": PRICE},
        {"service_tier": ""},
        {"service_tier": "Flex tier"},
        {"service_tier": 3},
        {"service_tier": "batch"},
        {"prices": PRICE},
        {"prices": TIERS, "price": PRICE},
    ],
)
def test_prices_and_tiers_that_cannot_be_are_refused_before_anything_is_sent(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        OpenAIModel("m", base_url="http://127.0.0.1:9/v1", **settings)


async def test_a_model_on_a_machine_of_ones_own_costs_by_the_second() -> None:
    book = PriceBook([PriceEntry("m", per_second="0.0008", tier="any")], list_prices=False)
    with FakeEndpoint([reply("one"), Fault.server_error(500), Fault.usage("missing", reply("two"))]) as endpoint:
        async with model_at(endpoint, prices=book, retries=0, timeout=20) as model:
            well, ill, silent = await ask(model), await ask(model), await ask(model)
    assert well.attempts[0].cost == again(well.attempts[0])
    assert well.attempts[0].cost.status == "exact"
    assert well.attempts[0].cost.low > 0
    assert ill.attempts[0].cost == Cost.bounded(0, "0.016")  # a machine computes for an error too
    assert silent.attempts[0].cost.status == "exact"  # no tokens are needed
