from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from specialists.statistics import (
    DriftMartingale,
    ShiftMartingale,
    alternatives,
    binomial_tail,
    cases_needed,
    clopper_pearson,
    conformal_quantile,
    conformal_risk_threshold,
    fixed_sequence,
    histogram,
    most_errors,
    predicted_audits,
    upper_bound,
)

rates = st.floats(0.0005, 0.9995)
deltas = st.floats(0.001, 0.5)


@st.composite
def counted(draw: st.DrawFn, most: int = 5_000) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


def exact_tail(errors: int, n: int, rate: float) -> Fraction:
    p = Fraction(rate)
    return sum((math.comb(n, count) * p**count * (1 - p) ** (n - count) for count in range(errors + 1)), Fraction(0))


# Exact tests and bounds.


@pytest.mark.parametrize(
    ("errors", "n", "rate"),
    [(0, 1, 0.5), (3, 40, 0.01), (5, 40, 0.3), (39, 40, 0.3), (60, 120, 0.5), (2, 300, 0.01), (100, 300, 0.25)],
)
def test_a_tail_is_exact(errors: int, n: int, rate: float) -> None:
    assert binomial_tail(errors, n, rate) == pytest.approx(float(exact_tail(errors, n, rate)), rel=1e-13)


@settings(max_examples=300)
@given(counted(100_000), rates)
def test_a_tail_is_that_of_scipy(case: tuple[int, int], rate: float) -> None:
    peer = float(stats.binom.cdf(*case, rate))
    if peer > 1e-250:  # where scipy itself has digits left; it loses some where a rate is small and n is large
        assert binomial_tail(*case, rate) == pytest.approx(peer, rel=1e-11 if rate * case[1] < 100 else 1e-12)


@settings(max_examples=200)
@given(st.integers(1, 100_000), st.floats(0.01, 0.99), st.floats(-5, 5))
def test_a_tail_is_that_of_scipy_about_the_mean(n: int, rate: float, deviations: float) -> None:
    errors = min(n, max(0, int(n * rate + deviations * math.sqrt(n * rate * (1 - rate)))))
    assert binomial_tail(errors, n, rate) == pytest.approx(float(stats.binom.cdf(errors, n, rate)), rel=2e-12)


def test_a_tail_at_the_ends() -> None:
    assert binomial_tail(0, 0, 0.3) == 1
    assert binomial_tail(7, 7, 0.3) == 1
    assert binomial_tail(6, 7, 1) == 0
    assert binomial_tail(0, 7, 0) == 1
    assert binomial_tail(10, 100_000, 0.5) == 0  # too small to be a number


@pytest.mark.parametrize(
    ("errors", "n", "rate"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, -0.1), (1, 5, 1.1), (1, 5, math.nan)]
)
def test_counts_and_rates_that_cannot_be(errors: int, n: int, rate: float) -> None:
    with pytest.raises(ValueError, match=r"cannot be counted|a rate lies"):
        binomial_tail(errors, n, rate)


@given(counted(), deltas)
def test_an_interval_is_that_of_the_beta_distribution(case: tuple[int, int], delta: float) -> None:
    errors, n = case
    low, high = clopper_pearson(errors, n, delta)
    if errors:
        assert low == pytest.approx(float(stats.beta.ppf(delta / 2, errors, n - errors + 1)), rel=1e-9)
    else:
        assert low == 0
    if errors < n:
        assert high == pytest.approx(float(stats.beta.ppf(1 - delta / 2, errors + 1, n - errors)), rel=1e-9)
        assert upper_bound(errors, n, delta / 2) == high
    else:
        assert high == 1
    assert low < high


def test_nothing_seen_is_nothing_known() -> None:
    assert clopper_pearson(0, 0, 0.05) == (0, 1)


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan])
def test_a_level_lies_between(delta: float) -> None:
    for use in (
        lambda: clopper_pearson(1, 10, delta),
        lambda: most_errors(10, 0.1, delta),
        lambda: cases_needed(delta, 0.1),
        lambda: fixed_sequence([0.1], delta),
        lambda: conformal_quantile([1.0], delta),
        lambda: conformal_risk_threshold([], delta),
        lambda: ShiftMartingale(delta),
    ):
        with pytest.raises(ValueError, match="lies between 0 and 1"):
            use()


def test_what_n_cases_allow() -> None:
    assert [most_errors(n, 0.01, 0.05) for n in (0, 298, 299, 1_000, 5_000)] == [None, None, 0, 4, 38]
    assert cases_needed(0.01, 0.05) == 299
    assert cases_needed(0.01, 0.05, 4) <= 1_000 < cases_needed(0.01, 0.05, 5)


@given(st.floats(0.002, 0.4), deltas, st.integers(0, 30))
def test_the_fewest_cases_are_enough_and_one_fewer_is_not(alpha: float, delta: float, errors: int) -> None:
    n = cases_needed(alpha, delta, errors)
    assert most_errors(n, alpha, delta) == errors
    assert binomial_tail(errors, n, alpha) <= delta
    # Down to as many cases as errors, of which nothing can be claimed.
    assert n - 1 == errors or binomial_tail(errors, n - 1, alpha) > delta
    assert upper_bound(errors, n, delta) <= alpha * (1 + 1e-9)


# Sequences of tests, and conformal bounds.


def test_a_fixed_sequence_ends_at_the_first_that_holds() -> None:
    assert fixed_sequence([0.01, 0.05, 0.2, 0.01], 0.05) == 2
    assert fixed_sequence([0.06, 0.0], 0.05) == 0
    assert fixed_sequence([], 0.05) == 0
    assert fixed_sequence([0.01, math.nan, 0.01], 0.05) == 1
    assert fixed_sequence([0.01] * 9, 0.05) == 9


def test_a_conformal_quantile_is_unknown_for_too_few() -> None:
    assert conformal_quantile([3, 1, 2], 0.5) == 2
    assert conformal_quantile(list(range(1, 20)), 0.95) == 19
    assert conformal_quantile(list(range(1, 19)), 0.95) is None
    assert conformal_quantile([], 0.5) is None
    # 100 * 0.55 is 55.00000000000001 as floats multiply, and the 55th is meant.
    assert conformal_quantile(list(range(1, 100)), 0.55) == 55
    with pytest.raises(ValueError, match="NaN"):
        conformal_quantile([1, math.nan], 0.5)


def test_a_conformal_quantile_covers() -> None:
    chance = random.Random(1)
    covered = 0
    for _ in range(4_000):
        bound = conformal_quantile([chance.random() for _ in range(19)], 0.9)
        assert bound is not None
        covered += chance.random() <= bound
    assert 0.9 - 0.015 < covered / 4_000 < 0.9 + 0.015  # exactly 0.9; three standard errors


def laxest(cases: list[tuple[float | None, bool]], alpha: Fraction) -> float | None:
    """By the definition: every confidence is tried."""
    n = len(cases)
    good = [
        t
        for t in {confidence for confidence, _ in cases if confidence is not None}
        if Fraction(sum(wrong for c, wrong in cases if c is not None and c >= t) + 1, n + 1) <= alpha
    ]
    return min(good, default=None)


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.sampled_from([0.1, 0.5, 0.5, 0.9, 1.0])), st.booleans()), max_size=60),
    st.integers(1, 99),
)
def test_a_risk_threshold_is_the_laxest(cases: list[tuple[float | None, bool]], percent: int) -> None:
    assert conformal_risk_threshold(cases, percent / 100) == laxest(cases, Fraction(percent, 100))


def test_equal_confidences_stand_or_fall_together() -> None:
    cases = [(0.9, False)] * 17 + [(0.5, False), (0.5, True), (0.5, True)]
    assert conformal_risk_threshold(cases, 0.1) == 0.9  # with one of the two errors it would still be 2/21
    assert conformal_risk_threshold(cases, 0.15) == 0.5
    assert conformal_risk_threshold([(0.9, False)] * 8, 0.1) is None  # 1/9 is more
    assert conformal_risk_threshold([(0.9, False)] * 9, 0.1) == 0.9
    with pytest.raises(ValueError, match="NaN"):
        conformal_risk_threshold([(math.nan, False)], 0.5)


def test_the_risk_is_controlled_on_average() -> None:
    chance = random.Random(2)

    def case() -> tuple[float, bool]:
        confidence = chance.random()
        return confidence, chance.random() > confidence

    harmed = 0
    for _ in range(3_000):
        threshold = conformal_risk_threshold([case() for _ in range(60)], 0.1)
        confidence, wrong = case()
        harmed += threshold is not None and confidence >= threshold and wrong
    assert 0.04 < harmed / 3_000 < 0.1 + 3 * math.sqrt(0.09 / 3_000)


# The bet over audited errors.


def ever(null: float, rate: float, audits: int, delta: float, chance: random.Random) -> bool:
    bet = ShiftMartingale(null)
    return any(bet.update(chance.random() < rate) >= 1 / delta for _ in range(audits))


def test_an_alarm_without_a_cause_is_rare() -> None:
    chance = random.Random(3)
    alarms = sum(ever(0.1, 0.1, 200, 0.2, chance) for _ in range(1_500))
    assert 0.02 < alarms / 1_500 < 0.2 + 3 * math.sqrt(0.16 / 1_500)


@given(st.floats(0.001, 0.99), st.lists(st.booleans(), max_size=60))
def test_under_the_null_no_step_wins_on_average(null: float, past: list[bool]) -> None:
    """The martingale property itself, which the rarity of alarms follows from."""
    bet = ShiftMartingale(null)
    for wrong in past:
        bet.update(wrong)
    right, wrong_too = (ShiftMartingale.from_json(bet.to_json()).update(wrong) for wrong in (False, True))
    assert (1 - null) * right + null * wrong_too == pytest.approx(bet.value, rel=1e-9)
    assert wrong_too > right  # so a lower rate than the null loses


def test_a_late_shift_is_seen_early() -> None:
    chance = random.Random(4)
    delays = []
    for _ in range(40):
        bet = ShiftMartingale(0.01)
        for _ in range(2_000):
            bet.update(chance.random() < 0.005)
        while bet.value < 20:
            bet.update(chance.random() < 0.05)
        delays.append(bet.audits - 2_000)
    predicted = predicted_audits(0.05, 0.01, 0.05, 2_000)
    assert predicted is not None
    assert predicted / 2 < sorted(delays)[20] < predicted * 1.1
    assert sorted(delays)[36] <= 2 * predicted


def test_what_is_predicted() -> None:
    # No detector needs fewer on average than log(1/delta) over the divergence of the two rates.
    divergence = 0.05 * math.log(5) + 0.95 * math.log(0.95 / 0.99)
    first = predicted_audits(0.05, 0.01, 0.05)
    assert first is not None
    assert first > math.log(20) / divergence
    later = [predicted_audits(0.05, 0.01, 0.05, after) or 0 for after in (0, 10, 100, 1_000, 10_000)]
    assert later == sorted(later)
    # What stands from the audits before a shift helps a little.
    assert first < (predicted_audits(0.05, 0.01, 0.05, 100, before=0.005) or 0) < later[2]
    assert (predicted_audits(0.2, 0.01, 0.05) or 0) < first
    assert predicted_audits(0.01, 0.01, 0.05, limit=10_000) is None


def test_the_state_of_a_bet_is_json() -> None:
    chance = random.Random(5)
    bet = ShiftMartingale(0.02)
    for _ in range(50):
        bet.update(chance.random() < 0.1)
        bet = ShiftMartingale.from_json(json.loads(json.dumps(bet.to_json(), allow_nan=False)))
    chance = random.Random(5)
    straight = ShiftMartingale(0.02)
    for _ in range(50):
        straight.update(chance.random() < 0.1)
    assert bet == straight
    assert bet.audits == 50
    with pytest.raises(ValueError, match="alternatives"):
        ShiftMartingale.from_json({**bet.to_json(), "stakes": [1.0]})


def test_a_bet_never_overflows_and_never_dies() -> None:
    bet = ShiftMartingale(0.01)
    for _ in range(1_000):
        bet.update(True)
    assert 1e100 < bet.value < math.inf
    bet = ShiftMartingale(0.05)
    for _ in range(20_000):
        bet.update(False)
    assert 0 < bet.value < 1
    for _ in range(20):
        bet.update(True)
    assert bet.value > 20


@given(st.floats(0.0001, 0.9999))
def test_alternatives_are_above_the_null(null: float) -> None:
    assert all(null < each < 1 for each in alternatives(null))
    assert len(set(alternatives(null))) == len(alternatives(null)) >= 1


# The test for drift.


def drift_after(calls: int, calibration: list[float], live: random.Random, shift: float = 0.0) -> float:
    """The greatest value over some calls."""
    test = DriftMartingale(*histogram(calibration))
    return max(test.update(max(0.0, live.random() ** 2 - shift), live.random()) for _ in range(calls))


def test_a_drift_without_a_cause_is_rare() -> None:
    chance = random.Random(6)
    warned = sum(drift_after(60, [chance.random() ** 2 for _ in range(40)], chance) >= 5 for _ in range(800))
    assert 0.01 < warned / 800 < 0.2 + 3 * math.sqrt(0.16 / 800)


def test_a_drift_is_seen() -> None:
    chance = random.Random(7)
    assert drift_after(300, [chance.random() ** 2 for _ in range(500)], chance, shift=0.15) > 1_000


def test_a_late_drift_is_seen_early() -> None:
    chance = random.Random(8)
    test = DriftMartingale(*histogram([chance.betavariate(8, 2) for _ in range(1_000)]))
    for _ in range(5_000):
        assert test.update(chance.betavariate(8, 2), chance.random()) < 100
    late = next(count for count in range(1_000) if test.update(chance.betavariate(6, 3), chance.random()) >= 100)
    assert late < 300


def test_no_confidence_is_a_place_of_its_own() -> None:
    edges, counts = histogram([0.5, None, 0.9, math.nan, 0.7], edges=[0.6, 0.8])
    assert (edges, counts) == ((0.6, 0.8), (1, 1, 1, 2))
    chance = random.Random(9)
    test = DriftMartingale(*histogram([chance.random() for _ in range(200)]))
    assert max(test.update(None, chance.random()) for _ in range(50)) > 100


def test_p_values_count_ties_by_chance() -> None:
    """All confidences the same, as of a model that is always sure: nothing can be told, and nothing is."""
    chance = random.Random(10)
    edges, counts = histogram([1.0] * 50)
    assert sum(counts) == 50
    test = DriftMartingale(edges, list(counts))
    assert max(test.update(1.0, chance.random()) for _ in range(300)) < 20
    stuck = DriftMartingale(edges, list(counts))
    assert max(stuck.update(1.0, 0.999) for _ in range(300)) > 20  # what is not by chance is seen
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        test.update(1.0, 1.0)


def test_the_state_of_a_drift_test_is_json() -> None:
    chance = random.Random(11)
    start = histogram([chance.random() for _ in range(30)], bins=5)
    one, other = DriftMartingale(*start), DriftMartingale(*start)
    for _ in range(60):
        seen = (chance.choice([None, 0.2, chance.random()]), chance.random())
        one.update(*seen)
        other.update(*seen)
        one = DriftMartingale.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert one == other
    assert sum(one.pool) == 90
    with pytest.raises(ValueError, match="bettors"):
        DriftMartingale.from_json({**one.to_json(), "stakes": [0.0]})


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=80), st.integers(1, 30))
def test_a_histogram_counts_everything(values: list[float | None], bins: int) -> None:
    edges, counts = histogram(values, bins)
    assert sum(counts) == len(values)
    assert counts[-1] == values.count(None)
    assert len(edges) < bins
    assert list(edges) == sorted(set(edges))
    assert all(counts[:-1]) or not edges  # no bin that nothing was seen in


@pytest.mark.parametrize(
    ("edges", "counts"), [((0.5, 0.5), (1, 1, 1, 1)), ((0.5,), (1, 1)), ((), (1,)), ((0.5,), (1, -1, 1))]
)
def test_a_histogram_that_cannot_be(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"histogram|counts"):
        DriftMartingale(edges, list(counts))
