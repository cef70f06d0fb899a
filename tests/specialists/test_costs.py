from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import Cost

amounts = st.decimals(min_value=0, max_value=10**6, places=9)
costs = st.one_of(
    st.builds(Cost.exact, amounts),
    st.builds(lambda low, more: Cost.bounded(low, low + more), amounts, amounts),
    st.builds(Cost.unpriced, amounts),
)


def test_what_has_no_price_is_never_zero() -> None:
    assert Cost.unpriced() != Cost.exact(0)
    assert str(Cost.unpriced()) == "unpriced"
    assert str(Cost.total([Cost.exact("0.5"), Cost.unpriced()])) == "unpriced (at least $0.5)"
    assert Cost.total([]) == Cost.exact(0)


def test_money_is_never_a_float() -> None:
    with pytest.raises(TypeError, match="never a float"):
        Cost.exact(0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-1"])
def test_an_amount_is_a_number_from_zero_up(amount: str) -> None:
    for make in (Cost.exact, Cost.unpriced, lambda value: Cost.bounded(value, value)):
        with pytest.raises(ValueError, match="amount"):
            make(amount)


def test_bounds_stand_in_order() -> None:
    with pytest.raises(ValueError, match="between"):
        Cost.bounded(2, 1)
    assert Cost.bounded(1, 1).status == "exact"
    assert str(Cost.bounded("0.1", "0.2")) == "$0.1 to $0.2"


@given(costs, costs, costs)
def test_sums_are_exact_in_any_order(a: Cost, b: Cost, c: Cost) -> None:
    assert (a + b) + c == a + (b + c) == c + b + a
    assert Cost.total([a, b, c]).low == a.low + b.low + c.low


@given(costs)
def test_json_loses_no_digit(cost: Cost) -> None:
    again = Cost.from_json(json.loads(json.dumps(cost.to_json())))
    assert again == cost
    assert str(again.low) == str(cost.low)
    assert again.low.__class__ is Decimal


@pytest.mark.parametrize(
    "wrong",
    [
        (Decimal(1), Decimal(2), "exact"),
        (Decimal(1), Decimal(1), "bounded"),
        (Decimal(1), None, "exact"),
        (Decimal(1), Decimal(1), "unpriced"),
        (Decimal(2), Decimal(1), "bounded"),
        (Decimal(1), Decimal(1), "free"),
        ("x", "y", "bounded"),
    ],
)
def test_a_status_says_what_the_amounts_say(wrong: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"cost|amount"):
        Cost(*wrong)


def test_costs_add_up_with_sum() -> None:
    assert sum([Cost.exact("1"), Cost.bounded("1", "2")]) == Cost.bounded("2", "3")
    with pytest.raises(TypeError):
        1 + Cost.exact("1")
