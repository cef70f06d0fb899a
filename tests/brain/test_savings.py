"""Savings: three figures kept apart, worked out by hand; negative, unpriced and not measured are said so."""

from __future__ import annotations

import json
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Brain,
    ConfigurationError,
    Cost,
    Ledger,
    Price,
    RunResult,
    Savings,
    TokenUsage,
    Turn,
    Usage,
    WireAttempt,
)
from brain.savings import ASKS, AUDITS
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Answer, Attempt, Outcome, Policy, RungPolicy, Verdict, specialist

PRICE = Price("1", "4")
LADDER = Policy((RungPolicy("specialist", "specialist", 0.5), RungPolicy("big_model", "big_model")))


@specialist(
    verify=lambda arguments, value: (
        Verdict.passed() if value == 2 * arguments["n"] else Verdict.failed("it is not the double")
    ),
    sound=True,
    complete=True,
)
def double(n: int) -> Answer[int]:
    """Double a number."""
    return Answer(2 * n if n % 4 else n + 1)


def wire(
    cost: Cost | str, tokens: tuple[int, int] | None = (100, 10), model: str = "big", id: str = "w"
) -> WireAttempt:
    usage = TokenUsage() if tokens is None else TokenUsage(*tokens, 0, 0, 0, "provider")
    return WireAttempt(id, model, "http://here", "ok", 0.1, cost if isinstance(cost, Cost) else Cost.exact(cost), usage)


def local(cost: str = "0.001") -> Attempt:
    return Attempt("specialist", "answered", 0.1, 2, 0.9, source="double", cpu_seconds=0.1, cost=Cost.exact(cost))


def answered(n: int = 1, audit: WireAttempt | None = None, by: Any = "confident") -> Outcome[Any]:
    asked = None if audit is None else Attempt("big_model", "answered", 0.1, 2, wire_attempts=(audit,), cost=audit.cost)
    return Outcome(2, "specialist", by, (local(),), LADDER, tool="double", arguments={"n": n}, audit=asked)


def run_of(calls: list[Outcome[Any]], wires: list[WireAttempt], brain_cpu: float = 0.0) -> RunResult[Any]:
    usage = Usage.of(calls, wires, brain_cpu_seconds=brain_cpu, cpu_rate=Decimal("0.01"))
    turns: tuple[Turn, ...] = ()
    return RunResult("r", None, usage, tuple(calls), turns, tuple(wires), (), 0)


def test_the_same_tokens_at_the_big_models_price_by_hand() -> None:
    result = run_of([], [wire("0.00003", (1000, 100), "small")])
    tokens = Savings.of(result, "big", price=PRICE).same_tokens
    assert (tokens.requests, tokens.paid, tokens.cost) == (1, Cost.exact("0.00003"), Cost.exact("0.0014"))
    assert (tokens.saved.low, tokens.saved.high) == (Decimal("0.00137"), Decimal("0.00137"))


def test_a_request_that_nobody_bills_has_no_tokens_and_one_that_is_unknown_is_unpriced() -> None:
    refused, lost = wire("0", None, id="a"), wire(Cost.bounded(0, "0.5"), None, id="b")
    assert Savings.of(run_of([], [refused]), "big", price=PRICE).same_tokens.cost == Cost.exact(0)
    assert Savings.of(run_of([], [refused, lost]), "big", price=PRICE).same_tokens.cost.status == "unpriced"


def test_the_actual_bill_has_everything_in_it() -> None:
    """The brain's work, a specialist, a retry, the fallback and an audit."""
    failed: Outcome[Any] = Outcome(
        2,
        "big_model",
        "unchecked",
        (local("0.002"), Attempt("big_model", "answered", 0.1, 2, wire_attempts=(wire("0.1", id="f"),))),
        LADDER,
        tool="double",
        arguments={"n": 4},
    )
    wires = [wire("0", None, id="retry"), wire("0.3", id="turn"), wire("0.1", id="f"), wire("0.05", id="audit")]
    result = run_of([answered(audit=wires[3]), failed], wires, brain_cpu=2.0)
    savings = Savings.of(result, "big", price=PRICE, specialists=[double])
    assert savings.actual == result.usage.cost == Cost.exact("0.473")
    assert savings.modelled.instead_of == Cost.exact("0.053")  # both attempts on this machine, and the audit
    assert savings.modelled.rest == Cost.exact("0.42")
    assert savings.modelled.calls == 1


def test_the_model_of_a_call_is_bounded_by_the_bytes_of_the_question_that_would_be_asked() -> None:
    savings = Savings.of(run_of([answered(1)], []), "big", price=PRICE, specialists=[double])
    asks = savings.modelled.asks
    model = SimulatedModel(solve=lambda question: 2, price=PRICE)
    with Ledgerless(model) as brain:
        brain.run_sync("go")
    messages = len(json.dumps(model.requests[0].messages, ensure_ascii=False).encode())
    said = len(b'{"answer": 2}')
    assert asks.low == (messages // 8 + said // 8 * 4) * Decimal("0.000001")
    schema = len(json.dumps(model.requests[0].output_schema, ensure_ascii=False).encode())
    assert asks.high == (messages + schema + 256 + (said + 8) * 4) * Decimal("0.000001")
    assert savings.modelled.saved.low == asks.low - Decimal("0.001")
    assert savings.modelled.saved.high == asks.high - Decimal("0.001")


class Ledgerless:
    """A brain whose one call, of 4 in place of 1 (as many bytes), goes to the big model."""

    def __init__(self, model: SimulatedModel) -> None:
        script = ScriptedModel([[call("double", n=4)], "done"])
        self.brain = Brain(script, specialists=[double], fallback=model)

    def __enter__(self) -> Brain[str]:
        return self.brain

    def __exit__(self, *_: object) -> None:
        self.brain.close()


def test_what_saved_nothing_is_negative_and_shown_so() -> None:
    dear = run_of([answered()] * 3, [])
    cheap = Price("0.001", "0.001")
    savings = Savings.of(dear, "big", price=cheap, specialists=[double])
    assert savings.modelled.saved.high is not None
    assert savings.modelled.saved.high < 0
    assert "saved -$0.00" in str(savings)
    assert str(savings.to_json()["modelled"]["saved"]["low"]).startswith("-")


def test_a_ladder_that_climbed_in_vain_saved_less_than_nothing() -> None:
    failed: Outcome[Any] = Outcome(None, None, None, (local(),), LADDER, reason="no", tool="double", arguments={"n": 4})
    saved = Savings.of(run_of([failed], []), "big", price=PRICE, specialists=[double]).modelled.saved
    assert (saved.low, saved.high) == (Decimal("-0.001"), Decimal("-0.001"))


def test_a_model_without_a_price_is_unpriced_and_never_zero() -> None:
    savings = Savings.of(run_of([answered()], [wire("0.1")]), "openai:nobody-knows-this", specialists=[double])
    assert savings.same_tokens.cost.status == savings.modelled.asks.status == "unpriced"
    assert savings.modelled.saved.high is None
    assert "unpriced" in str(savings)


def test_a_specialist_that_is_not_named_has_no_question() -> None:
    savings = Savings.of(run_of([answered()], []), "big", price=PRICE)
    assert (savings.modelled.unmodelled, savings.modelled.asks.high) == (1, None)
    assert "pass specialists=[...]" in str(savings)


def test_tokens_for_each_byte_are_measured_from_enough_asks() -> None:
    def asked(n: int) -> Outcome[Any]:
        tokens = (100 + n % 2 * 10, 5)
        attempt = Attempt("big_model", "answered", 0.1, 2, wire_attempts=(wire("0.01", tokens, id=f"w{n}"),))
        return Outcome(2, "big_model", "unchecked", (attempt,), LADDER, tool="double", arguments={"n": 4})

    few = Savings.of(run_of([answered(), *map(asked, range(ASKS - 1))], []), "big", price=PRICE, specialists=[double])
    many = Savings.of(run_of([answered(), *map(asked, range(ASKS))], []), "big", price=PRICE, specialists=[double])
    assert (few.modelled.measured, many.modelled.measured) == ((), ("double",))
    # The question is as long as those that were asked, and so is the answer: 100 to 110 tokens, and 5.
    assert many.modelled.asks == Cost.bounded(Decimal("0.00012"), Decimal("0.00013"))
    assert few.modelled.asks.low < many.modelled.asks.low < many.modelled.asks.high < few.modelled.asks.high  # type: ignore[operator]


def audited(count: int, of: int, model: str = "big") -> list[Outcome[Any]]:
    calls = [
        answered(audit=wire(str(Decimal(1 + n % 2) / 100), model=model, id=f"a{n}"), by="certified")
        for n in range(count)
    ]
    return calls + [answered(by="certified") for _ in range(of - count)]


def test_a_shadow_sample_by_hand() -> None:
    calls = audited(10, 100)
    wires = [call.audit.wire_attempts[0] for call in calls if call.audit is not None]
    savings = Savings.of(run_of(calls, wires), "big", price=PRICE, specialists=[double])  # type: ignore[arg-type]
    measured = savings.measured
    assert measured is not None
    assert (measured.audits, measured.calls, measured.of) == (10, 100, 100)
    # Mean 0.015; five of 0.01 and five of 0.02: variance 0.00025 / 9; t with 9 degrees of freedom 2.262.
    half = 2.262 * 100 * (0.00025 / 9 / 10) ** 0.5
    assert float(measured.asks.low) == pytest.approx(1.5 - half)
    assert float(measured.asks.high or 0) == pytest.approx(1.5 + half)
    # In place of 100 attempts at 0.001 and audits of 0.15.
    assert measured.saved is not None
    assert measured.saved.low == measured.asks.low - Decimal("0.25")


def test_no_digit_hangs_on_the_applications_decimal_context() -> None:
    calls = [*audited(11, 40), answered(3)]
    result = run_of(calls, [wire("0.123456789", (1234567, 7654321))])
    usual = Savings.of(result, "big", price=PRICE, specialists=[double])
    with localcontext(prec=2):
        assert Savings.of(result, "big", price=PRICE, specialists=[double]) == usual


def test_without_enough_audits_nothing_is_measured_and_that_is_no_zero() -> None:
    for calls in (audited(0, 50), audited(AUDITS - 1, 50), audited(20, 50, model="another")):
        savings = Savings.of(run_of(calls, []), "big", price=PRICE, specialists=[double])
        assert savings.measured is None
        assert savings.to_json()["measured"] is None
        assert "measured      nothing" in str(savings)


def test_a_sample_speaks_of_certified_calls_only() -> None:
    measured = Savings.of(run_of([*audited(12, 20), answered()], []), "big", price=PRICE).measured
    assert measured is not None
    assert (measured.calls, measured.of, measured.saved) == (20, 21, None)


async def test_a_ledger_and_its_results_say_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    results = []
    for n in range(1, 9):
        big = SimulatedModel(solve=lambda question: 2 * json.loads(question)["arguments"]["n"], price=PRICE)
        script = ScriptedModel([[call("double", n=n)], "done"])
        async with Brain(script, specialists=[double], fallback=big, ledger=ledger) as brain:
            results.append(await brain.run("go", tenant="a" if n % 2 else "b"))
    one = Savings.of(results, "simulated", price=PRICE, specialists=[double])
    other = Savings.of_ledger(ledger, "simulated", price=PRICE, specialists=[double])
    assert one == other
    assert one.modelled.calls == 6
    assert one.same_tokens.requests == 2
    assert one.same_tokens.saved.low == one.same_tokens.saved.high == 0
    assert (
        Savings.of_ledger(ledger, "simulated", price=PRICE, specialists=[double], tenant="b").same_tokens.requests == 2
    )
    json.dumps(one.to_json(), allow_nan=False)
    ledger.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"big_model": ""}, "the name of a model"),
        ({"big_model": "m", "price": 3}, "a Price, a PriceBook or None, not int"),
        ({"big_model": "m", "specialists": [3]}, "3 is no specialist"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Savings.of(run_of([], []), **arguments)
