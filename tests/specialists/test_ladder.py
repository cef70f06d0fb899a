"""The ladder is a pure function: these tests put random policies and attempts through it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import Attempt, Cost, Outcome, Policy, RungPolicy, Verdict, decide, replay
from specialists.ladder import NO_MODEL, Abstain, Accept, CertificateState, Climb, Floors, jsonable

OUTCOMES = ["answered", "cannot", "invalid", "error", "timeout", "overloaded", "refused", "cancelled"]
KINDS = ["specialist", "more_steps", "next", "vote", "big_model", "big_model_again", "function"]
LOCAL = {"specialist", "more_steps", "next", "vote"}
MODELS = ("aa/CPU/1.0", NO_MODEL)

text = st.text(max_size=8)
unit = st.floats(0, 1)
verdicts = st.builds(Verdict, st.sampled_from(["passed", "failed", "unknown"]), st.none() | text)
floors = st.builds(Floors, *[st.none() | st.just(0.0) | unit] * 3)
states = st.builds(
    CertificateState,
    st.sampled_from(["valid", "valid", "missing", "void", "revoked"]),
    st.none() | text,
    st.none() | text,
    st.none() | unit,
    st.none() | unit,
    st.none() | text,
    st.sampled_from([MODELS, MODELS[:1], ()]),
)
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
            draw(st.none() | floors),
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    return Policy(tuple(rungs), draw(st.sampled_from(["verified", "certified", "confident"])), draw(st.none() | states))


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
            ran=draw(st.sampled_from([(), MODELS[:1], ("bb/CPU/1.0",)])),
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
    assert again.certificate == outcome.certificate


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
    state = policy.certificate
    holds = state is not None and state.status == "valid" and (last.ran or (NO_MODEL,))[0] in state.holds_for
    failed = last.verdict is not None and last.verdict.status == "failed"
    if by == "certified":
        assert holds
        assert rung.kind in LOCAL
        assert rung.certified is not None
        assert rung.certified.accepts(last)
        assert not (failed and rung.complete)
        assert policy.accept != "verified"
    else:
        assert not failed
    if holds and rung.kind in LOCAL:
        assert by in ("verified", "certified")
    if policy.accept == "certified" and rung.kind in LOCAL:
        assert by in ("verified", "certified")
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


# Certificates.


def state(status: Any = "valid", holds_for: tuple[str, ...] = (NO_MODEL,), **fields: Any) -> CertificateState:
    return CertificateState(status, holds_for=holds_for, **fields)


@pytest.mark.parametrize(
    ("floors", "attempt", "taken"),
    [
        (Floors(unknown=0.5), one(confidence=0.5), True),
        (Floors(unknown=0.5), one(confidence=0.4999), False),
        (Floors(unknown=0.5), one(), False),
        (Floors(unknown=0.5), one(confidence=float("nan")), False),
        (Floors(unknown=0.5), one(confidence=1.0, verdict=Verdict.passed()), False),
        (Floors(unknown=0.5), one(confidence=1.0, verdict=Verdict.unknown()), True),
        (Floors(passed=0.5), one(confidence=1.0), False),
        (Floors(failed=0.5), one(confidence=1.0, verdict=Verdict.failed("no")), True),
        (Floors(unknown=0), one(), True),
        (Floors(unknown=0), one(confidence=float("nan")), True),
        (Floors(), one(confidence=1.0), False),
        (None, one(confidence=1.0), False),
        (Floors(unknown=0), one("cannot"), False),
    ],
)
def test_the_floors_of_a_certificate(floors: Floors | None, attempt: Attempt, taken: bool) -> None:
    rung = RungPolicy("a", "specialist", 0.0, certified=floors)
    for accept in ("certified", "confident"):
        decision = decide(Policy((rung,), accept, state()), [attempt])  # type: ignore[arg-type]
        assert decision == Accept("certified") if taken else isinstance(decision, Abstain)
    assert isinstance(decide(Policy((rung,), "verified", state()), [attempt]), Abstain)


def test_what_a_complete_verifier_fails_no_floor_takes() -> None:
    rung = RungPolicy("a", "specialist", sound=False, complete=True, certified=Floors(0, 0, 0))
    assert isinstance(decide(Policy((rung,), "certified", state()), [one(verdict=Verdict.failed("no"))]), Abstain)
    assert decide(Policy((rung,), "certified", state()), [one(verdict=Verdict.passed())]) == Accept("certified")


@pytest.mark.parametrize("status", ["missing", "void", "revoked"])
def test_without_a_valid_one_nothing_is_certified_and_the_declared_floor_stands(status: Any) -> None:
    rung = RungPolicy("a", "specialist", 0.5, certified=Floors(0, 0, 0))
    sure = one(confidence=0.9)
    decision = decide(Policy((rung,), "certified", state(status, reason="so it is")), [sure])
    assert decision == Abstain(f"a: its certificate is {status}: so it is")
    assert decide(Policy((rung,), "confident", state(status)), [sure]) == Accept("confident")
    unsure = decide(Policy((rung,), "confident", state(status)), [one(confidence=0.1)])
    assert isinstance(unsure, Abstain)
    assert "below the floor of 0.5" in unsure.reason


@pytest.mark.parametrize("ran", [("bb/CPU/1.0",), ("aa/CUDA/1.0",), ("aa/CPU/1.1",), ("aa/CPU/1.0", "bb/CPU/1.0"), ()])
def test_what_it_was_not_made_with_it_does_not_speak_of(ran: tuple[str, ...]) -> None:
    rung = RungPolicy("a", "specialist", 0.5, certified=Floors(0, 0, 0))
    policy = Policy((rung,), "certified", state(holds_for=("aa/CPU/1.0",)))
    attempt = one(confidence=0.9, ran=ran)
    decision = decide(policy, [attempt])
    assert isinstance(decision, Abstain)
    assert f"here ran {next((each for each in ran if each != 'aa/CPU/1.0'), NO_MODEL)}" in decision.reason
    outcome: Outcome[Any] = Outcome(None, None, None, (attempt,), policy)
    assert outcome.certificate is not None
    assert outcome.certificate.status == "void"
    assert decide(Policy((rung,), "confident", policy.certificate), [attempt]) == Accept("confident")
    known = one(confidence=0.9, ran=("aa/CPU/1.0",))
    assert decide(policy, [known]) == Accept("certified")
    # One that gave no answer says nothing of what would have run.
    silent: Outcome[Any] = Outcome(None, None, None, (one("timeout", ran=ran),), policy)
    assert silent.certificate == policy.certificate


def test_a_rung_that_a_certificate_does_without_is_asked_for_proofs_only() -> None:
    def after(sound: bool, certificate: CertificateState | None, accept: Any = "certified") -> Any:
        rungs = (
            RungPolicy("a", "specialist", 0.5, certified=Floors(unknown=0.9)),
            RungPolicy("b", "next", 0.5, sound=sound),
        )
        return decide(Policy(rungs, accept, certificate), [one(confidence=0.1)])

    assert isinstance(after(False, state()), Abstain)
    assert isinstance(after(False, state(), "confident"), Abstain)
    assert after(True, state()) == Climb("b")
    assert after(False, state("void"), "confident") == Climb("b")
    assert after(False, None, "confident") == Climb("b")


def test_a_certificate_that_turns_out_void_keeps_no_rung_from_being_asked() -> None:
    rungs = (RungPolicy("a", "specialist", 0.5, certified=Floors(unknown=0.9)), RungPolicy("b", "next", 0.5))
    swapped = one(confidence=0.1, ran=("bb/CPU/1.0",))
    assert decide(Policy(rungs, "confident", state("void")), [swapped]) == Climb("b")
    assert decide(Policy(rungs, "confident", state()), [swapped]) == Climb("b")


def test_the_big_model_is_asked_again_only_with_something_new_to_tell_it() -> None:
    rungs = (RungPolicy("big", "big_model", complete=True), RungPolicy("again", "big_model_again"))

    def after(*attempts: Attempt) -> Any:
        return decide(Policy(rungs, "confident"), attempts)

    assert after(Attempt("big", "answered", 0.0, verdict=Verdict.failed("it is odd"))) == Climb("again")
    assert after(Attempt("big", "invalid", 0.0)) == Climb("again")
    for outcome in ("error", "timeout", "refused", "cannot", "overloaded"):
        assert isinstance(after(Attempt("big", outcome, 0.0)), Abstain)  # type: ignore[arg-type]
    twice = after(
        Attempt("big", "answered", 0.0, verdict=Verdict.failed("it is odd")),
        Attempt("again", "answered", 0.0, verdict=Verdict.failed("it is odd too")),
    )
    assert isinstance(twice, Abstain)
    assert "big: its answer failed the check (it is odd)" in twice.reason
    assert "again once more: its answer failed the check (it is odd too)" in twice.reason
    certified = decide(Policy(rungs, "certified", state()), [Attempt("big", "answered", 0.0)])
    assert certified == Accept("unchecked")


def test_a_log_without_certificates_is_still_read() -> None:
    policy = Policy((RungPolicy("a", "specialist", 0.5),))
    outcome: Outcome[Any] = Outcome(1, "a", "confident", (one(confidence=0.9),), policy)
    old = outcome.to_json()
    del old["audit"], old["policy"]["certificate"], old["policy"]["rungs"][0]["certified"], old["attempts"][0]["ran"]
    again = Outcome.from_json(json.loads(json.dumps(old)))
    assert replay(again) == replay(outcome)
    assert again.certificate is None


def test_an_audit_is_no_attempt_of_the_climb() -> None:
    policy = Policy((RungPolicy("a", "specialist", 0.5),))
    audit = Attempt("big_model", "answered", 0.5, value=2, source="big")
    outcome: Outcome[Any] = Outcome(1, "a", "confident", (one(value=1, confidence=0.9),), policy, audit=audit)
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert again.audit == audit
    assert replay(again) == [Climb("a"), Accept("confident")]
