"""What small models saved, or cost more: three figures beside a receipt, kept apart, and never mixed.

What a big model would have cost is not known where it was not asked. So each figure says what it rests on: tokens that
were used, a model of what would have been asked, or a sample that was asked. An interval may lie below zero, and is
shown so. This module knows nothing of terminals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, Any

from specialists import Attempt, Cost, Outcome, Question, Specialist, load
from specialists.costs import EXACT
from specialists.ladder import jsonable

from .errors import ConfigurationError
from .events import TokenUsage, WireAttempt
from .ledger import Ledger
from .prices import LIST_PRICES, Price, PriceBook, Quote
from .questions import TypedAnswer
from .replaying import calls_of, student_t
from .rungs import BIG_MODEL, as_question

if TYPE_CHECKING:
    from .results import RunResult

__all__ = ["Difference", "Measured", "Modelled", "SameTokens", "Savings"]

FRAMING = 256
"""Bytes by which a request may be longer than its messages and its schema."""
LONG_TOKEN = 8
"""Bytes of text that no token is taken to be longer than, on average; and none is shorter than one."""
ASKS = 39
"""Asks of one tool from which on tokens for each byte are measured: one more lies between the least and the most of
them with a probability of 95 %."""
AUDITS = 10
"""Audits of one tool from which on their cost is a sample."""

_NOTHING = Cost.exact(0)
_WIDE = Context(prec=60)
_LEAST = Decimal("1e-18")


@dataclass(frozen=True, slots=True)
class Difference:
    """US dollars that were saved, between ``low`` and ``high``; below zero: that were paid on top. ``None``: nobody
    knows how much less, or more, it may be.
    """

    low: Decimal | None
    high: Decimal | None

    @classmethod
    def between(cls, would: Cost, did: Cost) -> Difference:
        """What ``would`` have been paid, less what ``did`` get paid."""
        low = None if did.high is None else EXACT.subtract(would.low, did.high)
        high = None if would.high is None else EXACT.subtract(would.high, did.low)
        return cls(low, high)

    def to_json(self) -> dict[str, str | None]:
        """Amounts as strings."""
        return {"low": _text(self.low), "high": _text(self.high)}

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return "unknown"
        if self.low is None:
            return f"at most {_dollars(self.high)}"
        if self.high is None:
            return f"at least {_dollars(self.low)}"
        low, high = _dollars(self.low), _dollars(self.high)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True, slots=True)
class SameTokens:
    """The tokens that models used in ``requests`` requests, at the big model's price (``cost``), and at their own."""

    requests: int
    cost: Cost
    paid: Cost

    @property
    def saved(self) -> Difference:
        """Of the price of tokens alone: that other models would have used as many is nowhere said."""
        return Difference.between(self.cost, self.paid)


@dataclass(frozen=True, slots=True)
class Modelled:
    """What the whole would have cost had the big model been asked each of the ``calls`` that a specialist answered.

    ``asks``: those requests. ``rest``: what would have been paid all the same. ``instead_of``: what the specialists
    and the audits of them took, also in calls that the big model answered in the end. ``unmodelled``: calls whose
    question is unknown, so that there is no upper end. ``measured``: tools whose tokens for each byte were measured.
    """

    calls: int
    unmodelled: int
    asks: Cost
    rest: Cost
    instead_of: Cost
    measured: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """The counterfactual bill."""
        return self.rest + self.asks

    @property
    def saved(self) -> Difference:
        """The counterfactual less the actual bill; what stands in both cancels out."""
        return Difference.between(self.asks, self.instead_of)


@dataclass(frozen=True, slots=True)
class Measured:
    """What it costs to ask the big model, by ``audits`` in which it was asked what a specialist had answered.

    ``asks``: scaled to the ``calls`` of which the audits are a sample, of ``of`` calls that specialists answered; a
    95 % interval. ``saved`` is ``None`` where the sample does not speak of them all.
    """

    audits: int
    calls: int
    of: int
    asks: Cost
    saved: Difference | None


@dataclass(frozen=True, slots=True)
class Savings:
    """Three figures against ``big_model``, beside the ``actual`` bill, which has everything in it: the brain, checks,
    retries, audits and the time on this machine. ``print(savings)`` shows them; ``measured`` is ``None`` where nothing
    was measured.
    """

    big_model: str
    actual: Cost
    same_tokens: SameTokens
    modelled: Modelled
    measured: Measured | None

    @classmethod
    def of(
        cls,
        results: RunResult[Any] | Iterable[RunResult[Any]],
        big_model: str,
        *,
        price: Price | PriceBook | None = None,
        specialists: Sequence[Specialist[..., Any] | str] = (),
    ) -> Savings:
        """Of one run, or of several together.

        Args:
            results: The runs.
            big_model: The model to compare with: ``openai:NAME`` or ``NAME``.
            price: Its price; by default the list price of the name. A model without a price is unpriced here too.
            specialists: Those that answered, or names of bundled or installed ones: what the big model would be asked
                is written from them. The questions to those that are not named are unknown.

        Raises :class:`ConfigurationError` for what is no price or specialist.
        """
        runs = list(results) if isinstance(results, Iterable) else [results]
        calls = [outcome for run in runs for outcome in run.calls]
        wires = [wire for run in runs for wire in run.wire_attempts]
        kept = [row.cost for run in runs for row in run.usage.rows if row.kind in ("brain", "function")]
        local = [row.cost for run in runs for row in run.usage.rows if row.kind == "specialist"]
        return _Reckoning(big_model, price, specialists).reckon(calls, wires, kept, local)

    @classmethod
    def of_ledger(
        cls,
        ledger: Ledger,
        big_model: str,
        *,
        price: Price | PriceBook | None = None,
        specialists: Sequence[Specialist[..., Any] | str] = (),
        **where: str | None,
    ) -> Savings:
        """Of the rows of a ledger: ``of_ledger(ledger, "openai:NAME", tenant="a")``. Arguments as in :meth:`of`.

        A request that is in flight, or that a process left so when it died, has tokens that nobody knows.
        """
        rows = ledger.rows(**where)
        steps = [step for run in dict.fromkeys(row.run for row in rows) if run for step in ledger.steps(run)]
        wires = [
            WireAttempt(
                row.id,
                row.name,
                row.endpoint or "",
                "ok",
                row.seconds or 0.0,
                row.cost,
                TokenUsage() if row.usage is None else TokenUsage.from_json(row.usage),
            )
            for row in rows
            if row.kind == "model"
        ]
        kept = [row.cost for row in rows if row.kind in ("brain", "function")]
        local = [row.cost for row in rows if row.kind == "specialist"]
        return _Reckoning(big_model, price, specialists).reckon(calls_of(rows, steps), wires, kept, local)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; money as strings."""
        tokens, modelled, measured = self.same_tokens, self.modelled, self.measured
        return {
            "big_model": self.big_model,
            "actual": self.actual.to_json(),
            "same_tokens": {
                "requests": tokens.requests,
                "cost": tokens.cost.to_json(),
                "paid": tokens.paid.to_json(),
                "saved": tokens.saved.to_json(),
            },
            "modelled": {
                "calls": modelled.calls,
                "unmodelled": modelled.unmodelled,
                "asks": modelled.asks.to_json(),
                "cost": modelled.cost.to_json(),
                "instead_of": modelled.instead_of.to_json(),
                "measured_tokens": list(modelled.measured),
                "saved": modelled.saved.to_json(),
            },
            "measured": None
            if measured is None
            else {
                "audits": measured.audits,
                "calls": measured.calls,
                "of": measured.of,
                "asks": measured.asks.to_json(),
                "saved": None if measured.saved is None else measured.saved.to_json(),
            },
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


class _Reckoning:
    """Prices the big model for one set of calls."""

    def __init__(self, big_model: str, price: Any, specialists: Sequence[Specialist[..., Any] | str]) -> None:
        if not isinstance(big_model, str) or not big_model.removeprefix("openai:"):
            raise ConfigurationError(f"big_model is the name of a model, such as 'openai:NAME', not {big_model!r}")
        if price is not None and not isinstance(price, Price | PriceBook):
            raise ConfigurationError(f"price is a Price, a PriceBook or None, not {type(price).__name__}")
        self.name = big_model
        self.bare = big_model.removeprefix("openai:")
        self.quote: Quote | None
        """For any request, of which nobody knows here whether it was of text alone."""
        if isinstance(price, Price):
            self.quote = Quote("price", price)
        else:
            self.quote = (price or LIST_PRICES).price_of(big_model)
        self.asking = None if self.quote is None else self.quote.text_only()
        """For a typed question, which is text."""
        self.known: dict[str, Specialist[..., Any]] = {}
        for each in [specialists] if isinstance(specialists, str | Specialist) else specialists:
            found = load(each) if isinstance(each, str) else each
            if not isinstance(found, Specialist):
                raise ConfigurationError(f"{each!r} is no specialist; name it, or decorate it with @specialist")
            self.known[found.name] = found

    def reckon(
        self,
        calls: Sequence[Outcome[Any]],
        wires: Sequence[WireAttempt],
        kept: Sequence[Cost],
        local: Sequence[Cost],
    ) -> Savings:
        """``kept``, ``local``: what was paid on this machine beside the specialists, and for them."""
        audits = {
            wire.id
            for outcome in calls
            if outcome.audit is not None
            for wire in outcome.audit.wire_attempts
            if isinstance(wire, WireAttempt)
        }
        instead_of = Cost.total([*local, *(wire.cost for wire in wires if wire.id in audits)])
        rest = Cost.total([*kept, *(wire.cost for wire in wires if wire.id not in audits)])
        modelled = self._modelled(calls, rest, instead_of)
        return Savings(
            self.name,
            rest + instead_of,
            SameTokens(len(wires), Cost.total(map(self._again, wires)), Cost.total(wire.cost for wire in wires)),
            modelled,
            self._measured(calls, modelled),
        )

    def _again(self, wire: WireAttempt) -> Cost:
        """The tokens of a request at the big model's price."""
        if wire.usage.source == "absent" and wire.cost == _NOTHING:
            return _NOTHING  # refused, or never sent: nobody bills that
        if self.quote is None:
            return Cost.unpriced()
        return self.quote.cost(wire.usage)

    def _modelled(self, calls: Sequence[Outcome[Any]], rest: Cost, instead_of: Cost) -> Modelled:
        answered = [outcome for outcome in calls if _local(outcome)]
        spans = {name: span for name in self.known if (span := self._span_of(name, calls)) is not None}
        asks: list[Cost] = []
        unmodelled = 0
        for outcome in answered:
            specialist = self.known.get(outcome.tool or "")
            if specialist is None:
                unmodelled += 1
                asks.append(Cost.unpriced())
            else:
                asks.append(self._ask(specialist, outcome, spans.get(specialist.name)))
        used = tuple(sorted({outcome.tool or "" for outcome in answered} & spans.keys()))
        return Modelled(len(answered), unmodelled, Cost.total(asks), rest, instead_of, used)

    def _ask(self, specialist: Specialist[..., Any], outcome: Outcome[Any], span: _Span | None) -> Cost:
        if self.asking is None:
            return Cost.unpriced()
        given, said = _question_bytes(specialist, outcome.arguments), _answer_bytes(outcome.value)
        if span is None:
            schema = TypedAnswer(specialist.answers, schema=specialist.returns).schema
            longest = given + len(_encoded(schema)) + FRAMING
            tokens = (given // LONG_TOKEN, longest), (max(1, said // LONG_TOKEN), said + LONG_TOKEN)
        else:
            tokens = _tokens(given, span.input), _tokens(said, span.output)
        (least_in, most_in), (least_out, most_out) = tokens
        low = self.asking.cost(TokenUsage(least_in, least_out, source="provider", audio_input=0, audio_output=0))
        high = self.asking.worst(most_in, most_out)
        if low.high is None or high.high is None:  # a price by the second, and nobody knows the seconds
            return Cost.unpriced(low.low)
        return Cost.bounded(min(low.low, high.high), high.high)

    def _span_of(self, tool: str, calls: Sequence[Outcome[Any]]) -> _Span | None:
        """Tokens for each byte, from what the big model was asked for this tool."""
        specialist = self.known[tool]
        inputs: list[Fraction] = []
        outputs: list[Fraction] = []
        for outcome in calls:
            if outcome.tool != tool:
                continue
            for attempt in (*outcome.attempts, *([] if outcome.audit is None else [outcome.audit])):
                usage = self._usage_of(attempt)
                if usage is not None and usage.input is not None and usage.output is not None:
                    inputs.append(Fraction(usage.input, _question_bytes(specialist, outcome.arguments)))
                    outputs.append(Fraction(usage.output, _answer_bytes(attempt.value)))
        if len(inputs) < ASKS:
            return None
        return _Span((min(inputs), max(inputs)), (min(outputs), max(outputs)))

    def _usage_of(self, attempt: Attempt) -> TokenUsage | None:
        """What the big model stated for an ask that went well the first time."""
        if attempt.rung != BIG_MODEL or attempt.outcome != "answered" or len(attempt.wire_attempts) != 1:
            return None
        wire = attempt.wire_attempts[0]
        if not isinstance(wire, WireAttempt) or not self._is_big(wire) or wire.usage.source != "provider":
            return None
        return wire.usage

    def _is_big(self, wire: WireAttempt) -> bool:
        return wire.model.removeprefix("openai:") == self.bare

    def _measured(self, calls: Sequence[Outcome[Any]], modelled: Modelled) -> Measured | None:
        """By tool, since a tool's audits are drawn from its own certified answers; the variances add up."""
        sampled: dict[str, list[Cost]] = {}
        certified: dict[str, int] = {}
        for outcome in calls:
            tool = outcome.tool or ""
            if outcome.accepted_by == "certified" and _local(outcome):
                certified[tool] = certified.get(tool, 0) + 1
            if outcome.audit is not None:
                sent = [wire for wire in outcome.audit.wire_attempts if isinstance(wire, WireAttempt)]
                if sent and all(self._is_big(wire) for wire in sent):
                    sampled.setdefault(tool, []).append(Cost.total(wire.cost for wire in sent))
        enough = {tool: costs for tool, costs in sampled.items() if len(costs) >= AUDITS}
        if not enough:
            return None
        covered = sum(certified.get(tool, 0) for tool in enough)
        strata = [(certified.get(tool, 0), costs) for tool, costs in enough.items()]
        low = max(Decimal(0), _bound(strata, lowest=True))
        unpriced = any(cost.high is None for _, costs in strata for cost in costs)
        asks = Cost.unpriced(low) if unpriced else Cost.bounded(low, max(low, _bound(strata, lowest=False)))
        whole = covered == modelled.calls
        return Measured(
            sum(map(len, enough.values())),
            covered,
            modelled.calls,
            asks,
            Difference.between(asks, modelled.instead_of) if whole else None,
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """The least and the most tokens for each byte."""

    input: tuple[Fraction, Fraction]
    output: tuple[Fraction, Fraction]


def _local(outcome: Outcome[Any]) -> bool:
    """Whether a specialist answered, and the answer was accepted."""
    if outcome.accepted_by is None or outcome.answered_by is None:
        return False
    return any(rung.name == outcome.answered_by and rung.local for rung in outcome.policy.rungs)


def _question_bytes(specialist: Specialist[..., Any], arguments: Mapping[str, Any]) -> int:
    """Bytes of the messages in which the big model is asked a specialist's question."""
    return len(_encoded(as_question(specialist, Question(arguments, (), None), again=False)))


def _answer_bytes(value: Any) -> int:
    return len(_encoded({"answer": jsonable(value)}))


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _tokens(size: int, span: tuple[Fraction, Fraction]) -> tuple[int, int]:
    return int(size * span[0]), -int(-size * span[1] // 1)


def _bound(strata: Sequence[tuple[int, Sequence[Cost]]], *, lowest: bool) -> Decimal:
    """An end of the 95 % interval (Student's t, as many degrees of freedom as the smallest sample has) of a total."""
    total = variance = Decimal(0)
    for calls, costs in strata:
        values = [cost.low if lowest else cost.high or cost.low for cost in costs]
        count = Decimal(len(values))
        mean = _WIDE.divide(reduce(EXACT.add, values), count)
        spread = reduce(_WIDE.add, [_WIDE.power(_WIDE.subtract(value, mean), 2) for value in values])
        total = _WIDE.add(total, _WIDE.multiply(mean, calls))
        part = _WIDE.divide(spread, _WIDE.multiply(count, count - 1))
        variance = _WIDE.add(variance, _WIDE.multiply(part, calls * calls))
    t = Decimal(repr(student_t(min(len(costs) for _, costs in strata) - 1)))
    half = _WIDE.multiply(t, _WIDE.sqrt(variance))
    end = _WIDE.subtract(total, half) if lowest else _WIDE.add(total, half)
    return end.quantize(_LEAST, ROUND_FLOOR if lowest else ROUND_CEILING, _WIDE)


def _lines(savings: Savings) -> list[str]:
    tokens, modelled, measured = savings.same_tokens, savings.modelled, savings.measured
    lines = [
        f"savings against {savings.big_model}; the actual bill, all of it: {_cost(savings.actual)}",
        f"  same tokens   {_many(tokens.requests, 'request')} cost {_cost(tokens.paid)}; as many tokens of"
        f" {savings.big_model}: {_cost(tokens.cost)}; saved {tokens.saved}",
        f"  modelled      had it answered the {_many(modelled.calls, 'call')} that specialists answered:"
        f" {_cost(modelled.cost)}; saved {modelled.saved}",
    ]
    if modelled.unmodelled:
        lines.append(
            f"                {_many(modelled.unmodelled, 'call')} of specialists that are not named here; pass"
            " specialists=[...]"
        )
    if measured is None:
        lines.append(f"  measured      nothing: it takes {AUDITS} audits of one tool by this model")
    else:
        saved = "saved " + str(measured.saved) if measured.saved is not None else "the other calls are not measured"
        lines.append(
            f"  measured      {_many(measured.audits, 'audit')}: asking it costs {_cost(measured.asks)} for"
            f" {measured.calls:,} of {_many(measured.of, 'call')} (95 %); {saved}"
        )
    return lines


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _cost(cost: Cost) -> str:
    if cost.high is None:
        return f"unpriced (at least {_dollars(cost.low)})" if cost.low else "unpriced"
    low, high = _dollars(cost.low), _dollars(cost.high)
    return low if low == high else f"{low} to {high}"


def _dollars(amount: Decimal | None) -> str:
    """Three digits that count, and the sign before the currency's."""
    value = amount or Decimal(0)
    if not value:
        return "$0"
    places = 2 if abs(value) >= 1 else min(15, 2 - value.adjusted())
    return f"{'-' if value < 0 else ''}${abs(value):,.{places}f}"


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
