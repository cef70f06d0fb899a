"""What the tests of budgets share."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from brain import (
    Ledger,
    ModelRequest,
    ModelResponse,
    Price,
    WireAttempt,
)
from brain.testing import SimulatedModel
from specialists import Cost

PRICE = Price("1", "2")
MANY = 10**6


def simulated(**more: Any) -> SimulatedModel:
    return SimulatedModel(**{"solve": lambda _: "yes", "price": PRICE, "name": "big", **more})


def usd(ledger: Ledger, part: str = "") -> Decimal:
    """What the accounts bear whose names hold ``part``."""
    return sum((spent.usd for spent in ledger.spent() if part in spent.account), Decimal(0))


def calls(ledger: Ledger, part: str = "") -> int:
    return sum(spent.calls for spent in ledger.spent() if part in spent.account)


class Plain:
    """A model of an application's own: it announces nothing, and tells of ``attempts``."""

    name = "own"

    def __init__(self, attempts: int = 1, cost: Cost | None = None, wait: float = 0.0) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self._attempts = attempts
        self._cost = Cost.unpriced() if cost is None else cost
        self._wait = wait

    async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
        self.asked += 1
        self.begun.set()
        await asyncio.sleep(self._wait)
        for number in range(self._attempts):
            on_attempt(WireAttempt(f"{id(self)}-{self.asked}-{number}", "own", "http://x", "ok", 0.1, self._cost))
        return ModelResponse("yes")
