"""The bill of a run, summed from its wire attempts and the attempts of its calls.

Every figure here is a sum over wire attempts and over attempts on rungs; nothing is estimated a second time. What has
no price is counted as unpriced, never as zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from specialists import Attempt, Cost, Outcome

from .events import WireAttempt
from .prices import cpu_cost

__all__ = ["Usage", "UsageRow", "cpu_price", "priced"]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one model, one specialist or the planning on this machine took.

    ``kind``: ``model``, ``specialist``, ``function`` or ``brain``. ``requests``: wire attempts of a model, attempts of
    a specialist. Token counts are ``None`` when no request stated any. ``seconds``: wall time, summed over requests.
    """

    name: str
    kind: str
    requests: int = 0
    unpriced: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: int = 0
    """Requests whose tokens were estimated because the endpoint's own figures were missing or absurd."""
    cost: Cost = field(default_factory=lambda: Cost.exact(0))


@dataclass(frozen=True, slots=True)
class Usage:
    """Money and time of a run, per model and per specialist. ``print(usage)`` is a receipt."""

    rows: tuple[UsageRow, ...] = ()
    seconds: float = 0.0
    """Wall time of the run."""

    @classmethod
    def of(
        cls,
        outcomes: Iterable[Outcome[Any]],
        wire_attempts: Iterable[WireAttempt],
        *,
        brain_cpu_seconds: float = 0.0,
        cpu_rate: Decimal | None = None,
        seconds: float = 0.0,
    ) -> Usage:
        """Sum the rows of a run."""
        rows: dict[tuple[str, str], _Sum] = {}
        if brain_cpu_seconds:
            row = rows["brain", "planning and dispatch"] = _Sum()
            row.requests, row.cpu_seconds = 1, brain_cpu_seconds
            row.costs.append(cpu_cost(brain_cpu_seconds, cpu_rate))
        for outcome in outcomes:
            for attempt in outcome.attempts:
                # A big model's attempt is paid for by its wire attempts, which are summed below.
                if attempt.cpu_seconds is not None and attempt.rung not in ("big_model", "big_model_again"):
                    kind = "function" if attempt.rung == "function" else "specialist"
                    row = rows.setdefault((kind, attempt.source or attempt.rung), _Sum())
                    row.requests += 1
                    row.seconds += attempt.seconds
                    row.cpu_seconds += attempt.cpu_seconds
                    row.costs.append(_cpu(attempt, cpu_rate))
        for wire in wire_attempts:
            usage = wire.usage
            row = rows.setdefault(("model", wire.model), _Sum())
            row.requests += 1
            row.unpriced += wire.cost.status == "unpriced"
            row.seconds += wire.seconds
            row.input_tokens = _plus(row.input_tokens, usage.input)
            row.output_tokens = _plus(row.output_tokens, usage.output)
            row.cached_tokens = _plus(row.cached_tokens, usage.cache_read)
            row.reasoning_tokens = _plus(row.reasoning_tokens, usage.reasoning)
            row.estimated += usage.source == "estimated"
            row.costs.append(wire.cost)
        return cls(tuple([row.row(kind, name) for (kind, name), row in rows.items()]), seconds)

    @property
    def cost(self) -> Cost:
        """The whole bill."""
        return Cost.total(row.cost for row in self.rows)

    @property
    def unpriced(self) -> int:
        """Requests that were sent and have no price."""
        return sum(row.unpriced for row in self.rows)

    @property
    def cpu_seconds(self) -> float:
        """Compute time on this machine."""
        return sum(row.cpu_seconds for row in self.rows)

    @property
    def requests(self) -> int:
        """Requests that left for an endpoint."""
        return sum(row.requests for row in self.rows if row.kind == "model")

    @property
    def input_tokens(self) -> int | None:
        """Tokens read by models, where known."""
        return _sum_known(row.input_tokens for row in self.rows)

    @property
    def output_tokens(self) -> int | None:
        """Tokens written by models, reasoning included, where known."""
        return _sum_known(row.output_tokens for row in self.rows)

    def __add__(self, other: Usage) -> Usage:
        """Two bills as one; wall times add up too."""
        rows: dict[tuple[str, str], UsageRow] = {(row.kind, row.name): row for row in self.rows}
        for row in other.rows:
            mine = rows.get((row.kind, row.name))
            rows[row.kind, row.name] = row if mine is None else _merge(mine, row)
        return Usage(tuple(rows.values()), self.seconds + other.seconds)

    def __radd__(self, other: int) -> Usage:
        return self if other == 0 else NotImplemented  # so that `sum` begins

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        return {
            "cost": self.cost.to_json(),
            "requests": self.requests,
            "unpriced": self.unpriced,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "rows": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "requests": row.requests,
                    "unpriced": row.unpriced,
                    "seconds": row.seconds,
                    "cpu_seconds": row.cpu_seconds,
                    "input_tokens": row.input_tokens,
                    "output_tokens": row.output_tokens,
                    "cached_tokens": row.cached_tokens,
                    "reasoning_tokens": row.reasoning_tokens,
                    "estimated": row.estimated,
                    "cost": row.cost.to_json(),
                }
                for row in self.rows
            ],
        }

    def __str__(self) -> str:
        return _receipt(self)


class _Sum:
    """A row while it is added up."""

    __slots__ = (
        "cached_tokens",
        "costs",
        "cpu_seconds",
        "estimated",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "requests",
        "seconds",
        "unpriced",
    )

    def __init__(self) -> None:
        self.requests = self.unpriced = self.estimated = 0
        self.seconds = self.cpu_seconds = 0.0
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.costs: list[Cost] = []

    def row(self, kind: str, name: str) -> UsageRow:
        return UsageRow(
            name,
            kind,
            self.requests,
            self.unpriced,
            self.seconds,
            self.cpu_seconds,
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.reasoning_tokens,
            self.estimated,
            Cost.total(self.costs),
        )


def cpu_price(low: float | None, high: float | None, rate: Decimal | None) -> Cost:
    """What ``low`` to ``high`` CPU seconds cost; without ``low`` the other is exact."""
    most = cpu_cost(high or 0.0, rate)
    if low is None or low == high:
        return most
    return Cost.bounded(cpu_cost(low, rate).low, most.low)


def priced(attempt: Attempt, cpu_rate: Decimal | None, gpu_rate: Decimal | None = None) -> Attempt:
    """``attempt`` with its cost: the compute time on this machine and what its wire attempts cost.

    ``gpu_rate``: US dollars a second of this machine's GPU. How long it computed for one attempt among others is not
    measured: something from nothing to the whole attempt, where a model ran on another provider than the CPU's.
    """
    costs = [wire.cost for wire in attempt.wire_attempts if isinstance(wire, WireAttempt)]
    if gpu_rate and any("/CPU" not in ran for ran in attempt.ran):
        costs.append(Cost.bounded(0, cpu_cost(attempt.seconds, gpu_rate).low))
    if attempt.cpu_seconds is not None:
        costs.append(cpu_price(attempt.cpu_seconds_low, attempt.cpu_seconds, cpu_rate))
    return replace(attempt, cost=Cost.total(costs))


def _cpu(attempt: Attempt, rate: Decimal | None) -> Cost:
    if attempt.cost is not None and not attempt.wire_attempts:
        return attempt.cost  # it was priced when it was made
    return cpu_price(attempt.cpu_seconds_low, attempt.cpu_seconds, rate)


def _plus(have: Any, more: Any) -> Any:
    if more is None:
        return have
    return more if have is None else have + more


def _merge(left: UsageRow, right: UsageRow) -> UsageRow:
    summed = {
        name: _plus(getattr(left, name), getattr(right, name))
        for name in UsageRow.__dataclass_fields__
        if name not in ("name", "kind")
    }
    return replace(left, **summed)


def _sum_known(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _money(cost: Cost) -> str:
    if cost.high is None:
        return f"unpriced (at least ${_digits(cost.low)})" if cost.low else "unpriced"
    if cost.low == cost.high:
        return f"${_digits(cost.low)}"
    return f"${_digits(cost.low)} to ${_digits(cost.high)}"


def _digits(amount: Decimal) -> str:
    """Cents for large amounts, and enough digits to see a small one."""
    if amount == 0:
        return "0"
    if amount >= 1:
        return f"{amount:.2f}"
    places = min(12, max(4, 2 - amount.adjusted()))
    return f"{amount:.{places}f}"


def _receipt(usage: Usage) -> str:
    lines: list[tuple[str, str, str, str]] = []
    for row in usage.rows:
        tokens = ""
        if row.input_tokens is not None or row.output_tokens is not None:
            tokens = f"{_count(row.input_tokens)} in, {_count(row.output_tokens)} out"
            if row.cached_tokens:
                tokens += f", {_count(row.cached_tokens)} cached"
            if row.reasoning_tokens:
                tokens += f", {_count(row.reasoning_tokens)} reasoning"
            if row.estimated:
                tokens += " (estimated)"
        else:
            tokens = f"{row.cpu_seconds * 1000:,.1f} ms CPU" if row.kind != "model" else "no tokens stated"
        times = "" if row.kind == "brain" else f"{row.requests} x"
        lines.append((row.name, times, tokens, _money(row.cost)))
    total = ("total", "", f"{usage.seconds:.2f} s", _money(usage.cost))
    widths = [max([len(line[i]) for line in [*lines, total]] + [0]) for i in range(4)]

    def text(line: tuple[str, str, str, str]) -> str:
        name, times, what, money = line
        return f"{name:<{widths[0]}}  {times:>{widths[1]}}  {what:<{widths[2]}}  {money:>{widths[3]}}"

    rule = "-" * (sum(widths) + 6)
    body = [text(line).rstrip() for line in lines]
    result = ["receipt", rule, *body, rule, text(total)]
    if usage.unpriced:
        result.append(f"{usage.unpriced} request(s) have no known price; give the model a price to see the whole bill")
    return "\n".join(result)


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"
