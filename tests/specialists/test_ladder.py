"""The ladder is a pure function: these tests put random policies and attempts through it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import Attempt, Cost, Outcome, Policy, RungPolicy, Verdict, decide, replay
from specialists.ladder import Abstain, Accept, Climb, jsonable

OUTCOMES = ["answered", "cannot", "invalid", "error", "timeout", "overloaded", "refused", "cancelled"]
KINDS = ["specialist", "more_steps", "next", "big_model", "function"]

text = st.text(max_size=8)
unit = st.floats(0, 1)
verdicts = st.builds(Verdict, st.sampled_from(["passed", "failed", "unknown"]), st.none() | text)
costs = st.none() | st.builds(Cost.exact, st.decimals(0, 9, places=4)) | st.just(Cost.unpriced())


@st.composite
def policies(draw: Any) -> Policy:
    rungs = [
        RungPolicy(
            f"rung{number}",
            draw(st.sampled_from(KINDS)),
            draw(st.none() | unit),
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    return Policy(tuple(rungs), draw(st.sampled_from(["verified", "certified", "confident"])))


@st.composite
def climbs(draw: Any) -> tuple[Policy, tuple[Attempt, ...], list[Any]]:
    """A policy, the attempts of a whole climb under it, and the decisions that were taken."""
    policy = draw(policies())
    attempts: tuple[Attempt, ...] = ()
    decisions = [decide(policy, attempts)]
    while isinstance(decisions[-1], Climb):
        attempt = Attempt(
            decisions[-1].rung,
            draw(st.sampled_from(OUTCOMES)),
            draw(unit),
            value=draw(st.none() | st.integers() | text),
            confidence=draw(st.none() | unit),
            verdict=draw(st.none() | verdicts),
            steps=draw(st.none() | st.integers(1, 99)),
            reason=draw(st.none() | text),
            source=draw(st.none() | text),
            cpu_seconds=draw(st.none() | unit),
            cost=draw(costs),
        )
        attempts += (attempt,)
        decisions.append(decide(policy, attempts))
    return policy, attempts, decisions


@given(climbs())
def test_a_log_can_be_replayed_and_decides_the_same(climb: tuple[Policy, tuple[Attempt, ...], list[Any]]) -> None:
    policy, attempts, decisions = climb
    last = decisions[-1]
    by = last.by if isinstance(last, Accept) else None
    outcome: Outcome[Any] = Outcome(
        attempts[-1].value if by else None, attempts[-1].rung if by else None, by, attempts, policy
    )
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert again == outcome
    assert replay(again) == replay(outcome) == decisions
    assert again.to_json() == outcome.to_json()


@given(climbs())
def test_a_climb_ends_and_asks_no_rung_twice(climb: tuple[Policy, tuple[Attempt, ...], list[Any]]) -> None:
    policy, attempts, decisions = climb
    names = [attempt.rung for attempt in attempts]
    order = [rung.name for rung in policy.rungs]
    assert names == sorted(set(names), key=order.index)
    assert not isinstance(decisions[-1], Climb)


@given(climbs())
def test_what_is_accepted_is_what_was_asked_for(climb: tuple[Policy, tuple[Attempt, ...], list[Any]]) -> None:
    policy, attempts, decisions = climb
    if not isinstance(decisions[-1], Accept):
        return
    last, by = attempts[-1], decisions[-1].by
    rung = next(rung for rung in policy.rungs if rung.name == last.rung)
    assert last.outcome == "answered"
    assert last.verdict is None or last.verdict.status != "failed"
    if policy.accept == "verified":
        assert by == "verified"
    if by == "verified":
        assert rung.sound
        assert last.verdict is not None
        assert last.verdict.status == "passed"
    if by == "confident":
        assert policy.accept == "confident"
        assert last.confidence is not None
        assert rung.min_confidence is not None
        assert last.confidence >= rung.min_confidence


def one(outcome: str = "answered", **fields: Any) -> Attempt:
    return Attempt("a", outcome, 0.0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rung", "accept", "attempt", "by"),
    [
        ({"sound": True}, "verified", one(verdict=Verdict.passed(), confidence=0.0), "verified"),
        ({"sound": False}, "verified", one(verdict=Verdict.passed(), confidence=1.0), None),
        ({"sound": True}, "confident", one(verdict=Verdict.unknown()), None),
        (
            {"sound": True, "min_confidence": 0.5},
            "confident",
            one(verdict=Verdict.unknown(), confidence=0.5),
            "confident",
        ),
        ({"min_confidence": 0.5}, "confident", one(verdict=Verdict.failed("no"), confidence=1.0), None),
        ({"min_confidence": 0.5}, "confident", one(confidence=0.4999), None),
        ({"min_confidence": 0.5}, "confident", one(confidence=float("nan")), None),
        ({"min_confidence": 0.5}, "confident", one(), None),
        ({"min_confidence": 0.0}, "confident", one(confidence=0.0), "confident"),
        ({"min_confidence": 0.5}, "certified", one(confidence=1.0), None),
        ({"checked": False}, "confident", one(), "unchecked"),
        ({"checked": False}, "verified", one(), None),
        ({"checked": False}, "certified", one(), None),
        ({"checked": True}, "confident", one(), None),
        ({"kind": "big_model"}, "confident", one(), "unchecked"),
        ({"kind": "big_model"}, "verified", one(), None),
        ({"kind": "big_model"}, "confident", one(verdict=Verdict.failed("no")), None),
        ({"checked": False}, "confident", one("error"), None),
    ],
)
def test_by_what_an_answer_is_accepted(rung: dict, accept: Any, attempt: Attempt, by: str | None) -> None:
    decision = decide(Policy((RungPolicy(**{"name": "a", "kind": "specialist", **rung}),), accept), [attempt])
    assert decision == Accept(by) if by else isinstance(decision, Abstain)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", ["cannot", "invalid", "error", "timeout", "overloaded", "refused"])
def test_more_steps_are_only_for_a_thinker(outcome: str) -> None:
    policy = Policy(tuple(RungPolicy(name, kind) for name, kind in zip("abc", KINDS[:3], strict=True)))  # type: ignore[arg-type]
    assert decide(policy, [one()]) == Climb("b")
    assert decide(policy, [one(outcome)]) == Climb("c")
    assert isinstance(decide(policy, [one("cancelled")]), Abstain)


def test_the_reason_says_what_each_rung_said() -> None:
    rungs = (RungPolicy("a", "specialist", 0.9), RungPolicy("b", "more_steps", 0.9), RungPolicy("c", "big_model"))
    attempts = [
        one(confidence=0.8999, source="maths"),
        Attempt("b", "answered", 0.0, source="maths", verdict=Verdict.failed("2 is not 3")),
        Attempt("c", "refused", 0.0, reason="the budget is spent"),
    ]
    assert decide(Policy(rungs), attempts) == Abstain(
        "maths: confidence 0.8999 is below the floor of 0.9; maths with more steps: its answer failed the check"
        " (2 is not 3); c: the budget is spent"
    )


@pytest.mark.parametrize("accept", ["sure", "", None, "unchecked"])
def test_an_unknown_level_is_refused_and_not_the_weakest(accept: Any) -> None:
    with pytest.raises(ValueError, match="verified, certified, confident"):
        Policy((), accept)


def test_two_rungs_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        Policy((RungPolicy("a", "specialist"), RungPolicy("a", "next")))


def test_an_attempt_on_an_unknown_rung_is_refused() -> None:
    with pytest.raises(ValueError, match="no rung 'a'"):
        decide(Policy((RungPolicy("b", "specialist"),)), [one()])
    assert isinstance(decide(Policy(()), ()), Abstain)


def test_another_format_is_not_read() -> None:
    line = Outcome(None, None, None, (), Policy(())).to_json()
    with pytest.raises(ValueError, match="format 2"):
        Outcome.from_json({**line, "format": 2})


class Strange:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_every_value_can_be_logged() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (float("nan"), b"\xff", object(), {1, 2}, Decimal("1.5"), {(1, 2): 3}, Strange(), circle, "\ud800"):
        json.dumps(jsonable(value), allow_nan=False)
