"""What tokens and CPU seconds cost: decimals to the last digit, and unknown is never zero."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from brain.events import TokenUsage
from brain.prices import DEFAULT_CPU_RATE, Price, cpu_cost, token_cost
from specialists import Cost

USAGE = TokenUsage(1_000, 100, 400, 0, 0, "provider")


def test_a_price_of_ones_own_is_exact() -> None:
    price = Price(input="0.4", output=Decimal("1.6"), cache_read="0.1", cache_write=1)
    expected = (Decimal("0.4") * 600 + Decimal("0.1") * 400 + Decimal("1.6") * 100) / 10**6
    assert token_cost(USAGE, "anything", price) == Cost.exact(expected)
    written = TokenUsage(1_000, 0, 400, 500, 0, "provider")
    assert price.of(written) == (Decimal("0.4") * 100 + Decimal("0.1") * 400 + 500) / 10**6


def test_without_a_price_for_the_cache_its_tokens_cost_what_others_do() -> None:
    assert Price(1, 0).of(USAGE) == Decimal("0.001")


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


@pytest.mark.parametrize("amount", [0.4, True, "nan", "inf", -1, "-0.1"])
def test_floats_and_amounts_that_are_none_are_refused(amount: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Price(amount, 1)
    with pytest.raises((TypeError, ValueError)):
        Price(1, 1, cache_read=amount)


def test_cpu_seconds_are_exact_and_add_up() -> None:
    assert cpu_cost(2, "0.5") == Cost.exact(1)
    assert cpu_cost(0.1, 1) == Cost.exact("0.1")
    assert cpu_cost(3600).low == DEFAULT_CPU_RATE * 3600
    assert cpu_cost(0) == Cost.exact(0)
    with pytest.raises(ValueError, match="negative"):
        cpu_cost(-1)
    with pytest.raises(TypeError):
        cpu_cost(1, 0.5)  # type: ignore[arg-type]
