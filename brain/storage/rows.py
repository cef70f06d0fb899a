"""One row of the ledger: a request that left for an endpoint, a specialist's run, a function's, the brain's own work.

This module knows nothing of SQL, budgets or how a row comes about; it knows how one is written down and read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

from specialists import Cost, strict_json

from ..keys import redact

__all__ = ["COLUMNS", "NOTHING", "LedgerRow", "RowKind", "moment", "now"]

RowKind = Literal["model", "specialist", "function", "brain", "rung"]
"""``model``: a wire attempt. ``rung``: an attempt that asked a big model; its price is in its wire attempts."""

KINDS: tuple[str, ...] = get_args(RowKind)
NOTHING = Cost.exact(0)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt with its price. ``None`` is unknown, or does not apply.

    ``outcome`` is ``None`` while the attempt is in flight; its ``cost`` then lies between nothing and the reservation.
    Should the process die, the row stays as it is: nobody knows what was billed. ``usage`` is
    :meth:`TokenUsage.to_json`, ``price`` the snapshot it was priced by, ``details`` the whole attempt as JSON.
    """

    id: str
    kind: RowKind
    name: str
    """The model asked for; the specialist, the function or what of the brain's own work it was."""
    run: str | None = None
    parent_run: str | None = None
    session: str | None = None
    tenant: str | None = None
    call: str | None = None
    tool: str | None = None
    rung: str | None = None
    answered: str | None = None
    """The model that answered, in its own words."""
    endpoint: str | None = None
    at: str = field(default_factory=lambda: now())
    """When it began: ISO 8601, UTC."""
    outcome: str | None = None
    cost: Cost = NOTHING
    price: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    cpu_seconds_low: float | None = None
    confidence: float | None = None
    verdict: str | None = None
    steps: int | None = None
    policy: Mapping[str, Any] | None = None
    certificate: str | None = None
    """``valid``, ``missing``, ``void`` or ``revoked``, as it stood when the call began."""
    audit: bool = False
    """Whether the attempt audited an answer that had been accepted."""
    details: Mapping[str, Any] | None = None
    owner: str | None = None
    """The process that has it in flight."""

    @property
    def in_flight(self) -> bool:
        """Whether it has not ended, as far as anybody has written down."""
        return self.outcome is None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        row["cost"] = self.cost.to_json()
        return row

    def values(self) -> tuple[Any, ...]:
        """As the columns of the table, in the order of :data:`COLUMNS`."""
        cost, usage = self.cost, self.usage
        return (
            self.id,
            self.kind,
            self.name,
            self.run,
            self.parent_run,
            self.session,
            self.tenant,
            self.call,
            self.tool,
            self.rung,
            self.answered,
            self.endpoint,
            self.at,
            self.outcome,
            f"{cost.low:f}",
            None if cost.high is None else f"{cost.high:f}",
            _text(self.price),
            None if usage is None else usage.get("source"),
            _text(usage),
            self.seconds,
            self.cpu_seconds,
            self.cpu_seconds_low,
            self.confidence,
            self.verdict,
            self.steps,
            _text(self.policy),
            self.certificate,
            int(self.audit),
            _text(self.details),
            self.owner,
        )

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> LedgerRow:
        """Read back what :meth:`values` wrote. Raises ``ValueError`` for a row that no version can have written."""
        given = dict(zip(COLUMNS, values, strict=True))
        low, high = given.pop("low"), given.pop("high")
        source = given.pop("source")
        for name in _JSON:
            given[name] = _object(name, given[name])
        if given["kind"] not in KINDS or not all(isinstance(given[name], str) for name in ("id", "name", "at")):
            raise ValueError("it is no attempt of any known kind")
        for name in _TEXTS:
            if given[name] is not None and not isinstance(given[name], str):
                raise ValueError(f"its {name} is no text")
        for name in _NUMBERS:
            if given[name] is not None and (isinstance(given[name], bool) or not isinstance(given[name], int | float)):
                raise ValueError(f"its {name} is no number")
        if given["usage"] is not None and given["usage"].get("source") != source:
            raise ValueError("its usage contradicts itself")
        if given["audit"] not in (0, 1):
            raise ValueError("audit is neither yes nor no")
        given["audit"] = bool(given["audit"])
        return cls(**given, cost=_cost(low, high))


COLUMNS = (
    "id",
    "kind",
    "name",
    "run",
    "parent_run",
    "session",
    "tenant",
    "call",
    "tool",
    "rung",
    "answered",
    "endpoint",
    "at",
    "outcome",
    "low",
    "high",
    "price",
    "source",
    "usage",
    "seconds",
    "cpu_seconds",
    "cpu_seconds_low",
    "confidence",
    "verdict",
    "steps",
    "policy",
    "certificate",
    "audit",
    "details",
    "owner",
)

_JSON = ("price", "usage", "policy", "details")
_TEXTS = (
    "run",
    "parent_run",
    "session",
    "tenant",
    "call",
    "tool",
    "rung",
    "answered",
    "endpoint",
    "outcome",
    "verdict",
    "certificate",
    "owner",
)
_NUMBERS = ("seconds", "cpu_seconds", "cpu_seconds_low", "confidence", "steps")

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def now() -> str:
    """This moment: ISO 8601, UTC, to the microsecond, so that texts sort as moments do."""
    return _written(datetime.now(UTC))


def moment(seconds: float) -> str:
    """The moment so many seconds after the epoch, as :func:`now` writes it."""
    return _written(datetime.fromtimestamp(seconds, UTC))


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else redact(_encode(value))


def _object(name: str, text: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"its {name} is no text")
    try:
        value = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"its {name} is no JSON object")
    return value


def _cost(low: Any, high: Any) -> Cost:
    try:
        least = Decimal(low)
        return Cost.unpriced(least) if high is None else Cost.bounded(least, Decimal(high))
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ValueError(f"its cost is no amount: {error}") from None
