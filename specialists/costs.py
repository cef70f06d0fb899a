"""What an attempt cost: an interval with a status, because an unknown price is not zero.

This module knows nothing of prices, currencies but one (US dollars) or budgets; it only adds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Literal

__all__ = ["EXACT", "Cost"]

EXACT = Context(prec=10_000, traps=[InvalidOperation, Inexact])
"""Arithmetic with money: sums and products keep every digit, whatever context the application has set for itself."""

CostStatus = Literal["exact", "bounded", "unpriced"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Money in US dollars, between ``low`` and ``high``.

    ``exact``: both are the amount. ``bounded``: the amount lies between them. ``unpriced``: at least ``low`` was
    spent and nobody knows how much more, so ``high`` is ``None``.

    Build one with :meth:`exact`, :meth:`bounded` or :meth:`unpriced`; add them with ``+`` or :meth:`total`.
    """

    low: Decimal
    high: Decimal | None
    status: CostStatus

    def __post_init__(self) -> None:
        low, high = _decimal(self.low), None if self.high is None else _decimal(self.high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if high is not None and high < low:
            raise ValueError(f"a cost cannot lie between {low} and {high}")
        status = "unpriced" if high is None else "exact" if low == high else "bounded"
        if self.status != status:
            raise ValueError(f"a cost with these amounts is {status}, not {self.status}")

    @classmethod
    def exact(cls, amount: Decimal | int | str) -> Cost:
        """A known amount. Floats are refused (``TypeError``): money is never a float here; so is less than nothing
        (``ValueError``).
        """
        value = _decimal(amount)
        return _made(value, value, "exact")

    @classmethod
    def bounded(cls, low: Decimal | int | str, high: Decimal | int | str) -> Cost:
        """An amount known to lie in ``low .. high``. Raises ``ValueError`` when ``high < low``."""
        first, last = _decimal(low), _decimal(high)
        if last < first:
            raise ValueError(f"a cost cannot lie between {first} and {last}")
        return _made(first, last, "exact" if first == last else "bounded")

    @classmethod
    def unpriced(cls, low: Decimal | int | str = 0) -> Cost:
        """Something was spent and has no price."""
        return _made(_decimal(low), None, "unpriced")

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """The sum; one unpriced part makes the whole unpriced. The sum of nothing is exactly zero."""
        low = _ZERO
        high: Decimal | None = _ZERO
        add = EXACT.add
        for cost in costs:
            low = add(low, cost.low)
            high = None if high is None or cost.high is None else add(high, cost.high)
        return _made(low, high, "unpriced" if high is None else "exact" if low == high else "bounded")

    def __add__(self, other: Cost) -> Cost:
        return Cost.total((self, other))

    def __radd__(self, other: int) -> Cost:
        return self if other == 0 else NotImplemented  # so that `sum` begins

    def __str__(self) -> str:
        if self.status == "exact":
            return f"${self.low:f}"
        if self.high is None:
            return f"unpriced (at least ${self.low:f})" if self.low else "unpriced"
        return f"${self.low:f} to ${self.high:f}"

    def to_json(self) -> dict[str, Any]:
        """Amounts as strings, so that no digit is lost."""
        return {"low": str(self.low), "high": None if self.high is None else str(self.high), "status": self.status}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cost:
        """The inverse of :meth:`to_json`."""
        high = data["high"]
        return cls(Decimal(data["low"]), None if high is None else Decimal(high), data["status"])


_ZERO = Decimal(0)


def _made(low: Decimal, high: Decimal | None, status: CostStatus) -> Cost:
    """A cost of amounts that were checked."""
    cost = object.__new__(Cost)
    object.__setattr__(cost, "low", low)
    object.__setattr__(cost, "high", high)
    object.__setattr__(cost, "status", status)
    return cost


def _decimal(amount: Decimal | int | str) -> Decimal:
    if type(amount) is Decimal and amount.is_finite() and amount >= 0:
        return amount
    if isinstance(amount, float | bool):
        raise TypeError(f"money is a Decimal, an int or a string of digits, never a {type(amount).__name__}")
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f"an amount is a number from zero up, not {amount!r}") from None
    if not value.is_finite() or value < 0:
        raise ValueError(f"an amount is a number from zero up, not {value}")
    return value
