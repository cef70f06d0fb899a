"""Which policies are tried and which pass. The vectorised walk must do what the ladder does, to the last case."""

from __future__ import annotations

import math
import random
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists import Attempt, Policy, RungPolicy, Verdict, decide, thresholds
from specialists.calibration import Case, Observation
from specialists.calibration import signals as signals_of
from specialists.climb import LadderRung
from specialists.evaluation import Row
from specialists.ladder import NO_MODEL, Accept, CertificateState, Climb, Floors
from specialists.statistics import binomial_tail
from specialists.thresholds import (
    PROVEN,
    STRATA,
    Certified,
    Refusal,
    RungSignals,
    certify,
    split,
    walk,
)

VALID = CertificateState("valid", id="c", alpha=0.01, delta=0.05, holds_for=(NO_MODEL,))
NEVER = math.inf

# Few values, so that floors and confidences meet; two that differ in the last bit.
LEVELS = [0.0, 0.25, 0.5, math.nextafter(0.5, 1), 1.0]
OUTCOMES = ["answered"] * 6 + ["cannot", "cannot", "invalid", "error", "timeout", "overloaded", "refused"]
VERDICTS = [None, Verdict.passed(), Verdict.failed("no"), Verdict.unknown()]

levels = st.sampled_from(LEVELS)


@dataclass
class Ladder:
    """What :func:`specialists.calibration.signals` asks of a specialist."""

    policies: tuple[RungPolicy, ...]

    def ladder(self) -> tuple[LadderRung, ...]:
        return tuple(LadderRung(policy, None) for policy in self.policies)  # type: ignore[arg-type]


@st.composite
def ladders(draw: Any) -> tuple[tuple[RungPolicy, ...], list[Observation]]:
    """Local rungs with a certificate's floors, and what each of them did on some cases."""
    policies = []
    for number in range(draw(st.integers(1, 5))):
        sound = draw(st.booleans())
        kind = "specialist" if number == 0 else draw(st.sampled_from(["more_steps", "vote", "next"]))
        floors = st.builds(Floors, *[st.none() | levels] * 3)
        policies.append(
            RungPolicy(
                f"rung{number}",
                kind,
                draw(st.none() | levels),
                sound,
                draw(st.booleans()),
                draw(st.booleans()),
                draw(floors if number == 0 or sound else st.none() | floors),
            )
        )
    chance = random.Random(draw(st.integers(0, 2**32)))
    seen = []
    for number in range(60):
        attempts = tuple(
            Attempt(
                policy.name,
                chance.choice(OUTCOMES),  # type: ignore[arg-type]
                chance.choice([0.5, 2.0]),
                confidence=chance.choice([None, *LEVELS]),
                verdict=chance.choice(VERDICTS),
            )
            for policy in policies
        )
        wrong = tuple(chance.random() < 0.5 if each.outcome == "answered" else None for each in attempts)
        seen.append(Observation(Case(Row(number, {}), {}, b"%d" % number), attempts, wrong))
    return tuple(policies), seen


def step_by_step(policy: Policy, attempts: tuple[Attempt, ...]) -> tuple[int, bool, float]:
    """Where the ladder ends when each rung does what it did: the rung's number or -1, by a proof, after how long."""
    made: tuple[Attempt, ...] = ()
    while isinstance(decision := decide(policy, made), Climb):
        made += (next(each for each in attempts if each.rung == decision.rung),)
    seconds = sum(each.seconds for each in made)
    if not isinstance(decision, Accept):
        return -1, False, seconds
    assert decision.by in ("verified", "certified")
    return [rung.name for rung in policy.rungs].index(made[-1].rung), decision.by == "verified", seconds


@settings(max_examples=150)
@given(ladders(), st.sampled_from(["certified", "confident"]))
def test_the_walk_does_what_the_ladder_does(
    made: tuple[tuple[RungPolicy, ...], list[Observation]], accept: Any
) -> None:
    policies, seen = made
    signals = signals_of(Ladder(policies), seen)  # type: ignore[arg-type]
    floors = np.array(
        [
            [NEVER if rung.certified is None or value is None else value for value in row]
            for rung in policies
            for row in [[getattr(rung.certified, status, None) for status in STRATA]]
        ]
    )
    end = walk(signals, floors, used=[rung.certified is not None for rung in policies])
    policy = Policy(policies, accept, VALID)
    for number, each in enumerate(seen):
        rung, proven, seconds = step_by_step(policy, each.attempts)
        assert (int(end.rung[number]), bool(end.proven[number])) == (rung, proven)
        assert bool(end.accepted[number]) == (rung >= 0)
        assert bool(end.wrong[number]) == (rung >= 0 and bool(each.wrong[rung]))
        assert float(end.seconds[number]) == seconds


@pytest.mark.parametrize(
    ("kind", "outcome", "asked"),
    [
        ("more_steps", "answered", True),
        ("more_steps", "cannot", False),
        ("more_steps", "error", False),
        ("vote", "answered", True),
        ("vote", "cannot", True),
        ("vote", "timeout", False),
        ("next", "error", True),
    ],
)
def test_which_rung_comes_after_which_end(kind: Any, outcome: Any, asked: bool) -> None:
    policies = (
        RungPolicy("a", "specialist", certified=Floors()),
        RungPolicy("b", kind, certified=Floors(unknown=0)),
    )
    attempts = (Attempt("a", outcome, 1.0), Attempt("b", "answered", 1.0))
    wrong = (False if outcome == "answered" else None, False)
    signals = signals_of(Ladder(policies), [Observation(Case(Row(1, {}), {}, b""), attempts, wrong)])  # type: ignore[arg-type]
    end = walk(signals, np.array([[NEVER] * 3, [NEVER, 0, NEVER]]))
    assert end.rung.tolist() == [1 if asked else -1]
    assert step_by_step(Policy(policies, "certified", VALID), attempts)[0] == end.rung[0]


# What may be certified.


def signals(wrong: Any, confidence: Any = math.nan, *, name: str = "specialist", **fields: Any) -> RungSignals:
    """A rung that answers every case, with no verifier."""
    count = len(wrong)
    whole = {
        "stratum": np.full(count, STRATA.index("unknown"), np.int8),
        "answered": np.ones(count, bool),
        "cannot": np.zeros(count, bool),
        "seconds": np.full(count, 0.001),
    } | fields
    return RungSignals(
        name,
        whole.pop("kind", "specialist"),
        np.broadcast_to(np.asarray(confidence, float), (count,)).copy(),
        wrong=np.asarray(wrong, bool),
        **whole,
    )


def first(errors: int, count: int) -> np.ndarray:
    wrong = np.zeros(count, bool)
    wrong[:errors] = True
    return wrong


def keys(count: int, salt: int = 0) -> list[bytes]:
    rng = np.random.default_rng(salt)
    return [rng.bytes(16) for _ in range(count)]


def plain(errors: int, count: int, alpha: float = 0.01, delta: float = 0.05) -> Certified | Refusal:
    """Nothing to choose: one rung, no confidence."""
    return certify([signals(first(errors, count))], keys(count), alpha=alpha, delta=delta)


@pytest.mark.parametrize(("count", "errors"), [(299, 0), (1_000, 4), (5_000, 38)])
def test_the_numbers_of_one_percent_at_95(count: int, errors: int) -> None:
    found = plain(errors, count)
    assert isinstance(found, Certified)
    assert (found.n, found.errors, found.cases, found.level) == (count, errors, count, 0.05)
    assert found.floors == {"specialist": Floors(unknown=0)}
    one_more = plain(errors + 1, count)
    assert isinstance(one_more, Refusal)
    one_fewer = plain(errors, count - 1)
    assert isinstance(one_fewer, Refusal) is (errors == 0)


def test_298_cases_want_299() -> None:
    found = plain(0, 298)
    assert isinstance(found, Refusal)
    assert (found.reason, found.needed, found.n, found.errors) == ("too few", 299, 298, 0)


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        (0, 10),
        (1, 300),
        (3, 500),
        (5, 900),
        (60, 6_500),
        (97, 10_000),
    ],
)
def test_as_many_cases_as_it_asks_for_would_do(errors: int, count: int) -> None:
    start = time.process_time()
    found = plain(errors, count)
    assert isinstance(found, Refusal)
    assert found.needed is not None
    assert time.process_time() - start < 2
    assert binomial_tail(errors * found.needed // count, found.needed, 0.01) <= 0.05


@pytest.mark.parametrize(("errors", "count"), [(10, 1_000), (200, 1_000), (1_000, 1_000)])
def test_no_number_helps_what_is_wrong_too_often(errors: int, count: int) -> None:
    found = plain(errors, count)
    assert isinstance(found, Refusal)
    assert (found.reason, found.needed) == ("too wrong", None)


def test_nothing_to_accept_is_said() -> None:
    nobody = signals(first(0, 500), stratum=np.full(500, -1, np.int8), answered=np.zeros(500, bool))
    found = certify([nobody], keys(500), alpha=0.01, delta=0.05)
    assert isinstance(found, Refusal)
    assert (found.reason, found.n, found.needed) == ("nothing accepted", 0, None)


@pytest.mark.parametrize(
    ("count", "tie"), [(count, tie) for count in (1, 2, 3, 4, 5, 7, 9, 20) for tie in (True, False)]
)
def test_a_handful_of_cases_is_refused_and_not_stumbled_over(count: int, tie: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confidence = 0.5 if tie else np.linspace(0.1, 0.9, count)
        found = certify([signals(first(0, count), confidence)], keys(count), alpha=0.01, delta=0.05)
    assert isinstance(found, Refusal)


def sample(
    count: int, seed: int, risk: Any = lambda confidence: 0.5 * (1 - confidence) ** 2
) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and errors that are the rarer the higher they are."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(count)
    return rng.random(count) < risk(confidence), confidence


def test_the_cheapest_policy_accepts_what_it_can() -> None:
    wrong, confidence = sample(20_000, 1)
    found = certify([signals(wrong, confidence)], keys(20_000), alpha=0.02, delta=0.05)
    assert isinstance(found, Certified)
    # P(wrong | confidence >= t) = (1 - t)**2 / 6 is 0.02 at t = 0.65.
    floor = found.floors["specialist"].unknown
    assert floor is not None
    assert 0.65 < floor < 0.75
    assert found.cases == 16_000
    testing = ~split(keys(20_000))
    taken = testing & (confidence >= floor)
    assert (found.n, found.errors) == (int(taken.sum()), int((taken & wrong).sum()))


def test_tuning_and_testing_share_no_case() -> None:
    """A rung that is wrong on exactly the testing cases is never certified, however right it is on the others."""
    count = 5_000
    tuning = split(keys(count))
    assert int(tuning.sum()) == count // 5
    confidence = np.linspace(0.2, 0.9, count)
    found = certify([signals(~tuning, confidence)], keys(count), alpha=0.01, delta=0.05)
    assert isinstance(found, Refusal)
    assert (found.reason, found.cases) == ("too wrong", 4_000)


def test_the_split_is_of_the_keys_and_not_of_the_order() -> None:
    made = keys(1_000)
    tuning = {key for key, mine in zip(made, split(made), strict=True) if mine}
    assert {key for key, mine in zip(made[::-1], split(made[::-1]), strict=True) if mine} == tuning


def test_equal_confidences_stand_or_fall_together() -> None:
    confidence = np.where(np.arange(4_000) % 2 == 0, 0.9, 0.4)
    wrong = (confidence == 0.4) & (np.arange(4_000) % 8 == 1)
    found = certify([signals(wrong, confidence)], keys(4_000), alpha=0.01, delta=0.05)
    assert isinstance(found, Certified)
    assert found.floors == {"specialist": Floors(unknown=0.9)}
    assert found.errors == 0


def test_a_confidence_that_says_nothing_cannot_save_a_bad_specialist() -> None:
    rng = np.random.default_rng(3)
    found = certify([signals(rng.random(3_000) < 0.05, rng.random(3_000))], keys(3_000), alpha=0.01, delta=0.05)
    assert isinstance(found, Refusal)


def test_proofs_do_not_pay_for_what_is_accepted_by_a_floor() -> None:
    """999 proofs in a thousand would hide that the rest is wrong half of the time."""
    count = 20_000
    rng = np.random.default_rng(4)
    unsure = np.arange(count) % 100 == 0
    stratum = np.where(unsure, STRATA.index("unknown"), PROVEN).astype(np.int8)
    wrong = unsure & (rng.random(count) < 0.5)
    assert wrong.mean() < 0.006
    found = certify([signals(wrong, 0.5, stratum=stratum)], keys(count), alpha=0.01, delta=0.05)
    assert isinstance(found, Certified)
    assert found.floors["specialist"] == Floors()
    assert (found.n, found.errors) == (found.verified, 0)


def half_proven(wrong: np.ndarray, confidence: np.ndarray) -> RungSignals:
    """A rung of which every second answer is proved, and right."""
    proof = np.arange(len(wrong)) % 2 == 0
    stratum = np.where(proof, PROVEN, STRATA.index("unknown")).astype(np.int8)
    return signals(wrong & ~proof, confidence, stratum=stratum)


@pytest.mark.parametrize("seed", range(4))
def test_proofs_do_not_crowd_out_what_can_be_accepted_beside_them(seed: int) -> None:
    wrong, confidence = sample(6_000, seed, lambda each: 0.4 * (1 - each) ** 3)
    found = certify([half_proven(wrong, confidence)], keys(6_000, seed), alpha=0.02, delta=0.05)
    assert isinstance(found, Certified)
    assert found.verified > 0.45 * found.cases
    # P(wrong | confidence >= t) = (1 - t)**3 / 10 is 0.02 at t = 0.42: of the other half 0.58 could be accepted.
    assert found.n - found.verified > 0.35 * (found.cases - found.verified)


def test_beside_proofs_a_false_promise_is_seldom_certified_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "_accepted_needed", lambda *_: 1)
    false = 0
    for seed in range(60):
        wrong, confidence = sample(1_500, 3_000 + seed, lambda each: 0.1 + 0 * each)
        found = certify([half_proven(wrong, confidence)], keys(1_500, seed), alpha=0.1, delta=0.1)
        false += isinstance(found, Certified) and found.n > found.verified
    assert false < 15


def test_a_claim_that_is_no_proof_spoils_the_certificate() -> None:
    """A verifier that is said to be sound and passes one wrong answer in fifty."""
    wrong = np.arange(5_000) % 50 == 0
    found = certify([signals(wrong, stratum=np.full(5_000, PROVEN, np.int8))], keys(5_000), alpha=0.01, delta=0.05)
    assert isinstance(found, Refusal)
    assert found.reason == "too wrong"


def test_a_second_rung_is_used_where_it_pays_and_left_out_where_it_does_not() -> None:
    count = 20_000
    rng = np.random.default_rng(5)
    wrong, confidence = sample(count, 5)
    good = signals(rng.random(count) < 0.001, 0.9, name="next:b", kind="next")
    bad = signals(rng.random(count) < 0.3, rng.random(count), name="next:b", kind="next")
    one = certify([signals(wrong, confidence), good], keys(count), alpha=0.01, delta=0.05)
    assert isinstance(one, Certified)
    assert set(one.floors) == {"specialist", "next:b"}
    assert one.n > 0.9 * one.cases
    other = certify([signals(wrong, confidence), bad], keys(count), alpha=0.01, delta=0.05)
    assert isinstance(other, Certified)
    assert set(other.floors) == {"specialist"}


def test_what_escalating_costs_decides_whether_a_dear_rung_is_tried() -> None:
    count = 10_000
    wrong, confidence = sample(count, 6)
    rng = np.random.default_rng(6)
    dear = signals(
        rng.random(count) < 0.001, rng.random(count), name="next:b", kind="next", seconds=np.full(count, 5.0)
    )
    pair = [signals(wrong, confidence), dear]
    cheap = certify(pair, keys(count), alpha=0.01, delta=0.05, escalation=0.01)
    costly = certify(pair, keys(count), alpha=0.01, delta=0.05, escalation=100.0)
    assert isinstance(cheap, Certified)
    assert isinstance(costly, Certified)
    assert set(cheap.floors) == {"specialist"}
    assert set(costly.floors) == {"specialist", "next:b"}


def test_a_rung_that_may_prove_is_always_tried() -> None:
    count = 10_000
    wrong, confidence = sample(count, 7)
    half = np.arange(count) % 2 == 0
    prover = signals(
        first(0, count),
        name="next:b",
        kind="next",
        stratum=np.where(half, PROVEN, -1).astype(np.int8),
        seconds=np.full(count, 50.0),
    )
    found = certify([signals(wrong, confidence), prover], keys(count), alpha=0.01, delta=0.05, always=["next:b"])
    assert isinstance(found, Certified)
    assert "next:b" in found.floors
    assert found.verified > 0


@pytest.mark.parametrize(
    ("alpha", "risk"),
    [
        (0.05, lambda confidence: np.full(len(confidence), 0.05)),
        (0.05, lambda confidence: 0.052 + 0 * confidence),
        (0.1, lambda confidence: 0.1 + 0.3 * (0.5 - np.abs(confidence - 0.5))),
    ],
)
def test_a_promise_that_is_false_is_seldom_certified(alpha: float, risk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every policy of these worlds is wrong at least ``alpha`` of the time, so each certificate is a false one."""
    monkeypatch.setattr(thresholds, "_accepted_needed", lambda *_: 1)  # not asked here, and takes long
    worlds = 60
    false = 0
    for seed in range(worlds):
        wrong, confidence = sample(1_000, 1_000 + seed, risk)
        found = certify([signals(wrong, confidence)], keys(1_000, seed), alpha=alpha, delta=0.1)
        false += isinstance(found, Certified)
    # Of 60 at 10 %, 15 or more would be a chance of one in a thousand.
    assert false < 15


def test_a_promise_that_is_true_is_mostly_certified() -> None:
    found = 0
    for seed in range(20):
        wrong, confidence = sample(3_000, seed, lambda each: 0.2 * (1 - each) ** 2)
        found += isinstance(certify([signals(wrong, confidence)], keys(3_000, seed), alpha=0.05, delta=0.05), Certified)
    assert found == 20
