"""From labelled cases to a certificate, and that live calls accept exactly what was certified."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from specialists import (
    Answer,
    CannotAnswer,
    CannotCertify,
    CasesError,
    Effort,
    ModelRejected,
    Outcome,
    Symmetry,
    Verdict,
    calibrate,
    replay,
    specialist,
    thresholds,
)
from specialists.calibration import calibrate_async, cost_bound, gather, marginal_risk, observe
from specialists.define import Specialist
from specialists.ladder import NO_MODEL, Accept, Climb, jsonable


def noise(*what: Any) -> float:
    """As good as random, and the same for the same."""
    return random.Random(repr(what)).random()


def thinker(who: str, risk: float, confidence: str = "says") -> Any:
    """Answers whether x is even; the less sure, the oftener wrong."""

    def answer(x: int, steps: int) -> Answer[bool]:
        sure = round(noise(who, "sure", x, steps), 2)
        if confidence == "some" and x % 7 == 0:
            raise CannotAnswer("sevens are hard")
        wrong = noise(who, "wrong", x, steps) < risk * (1 - sure)
        told = None if confidence == "none" or (confidence == "some" and x % 5 == 0) else sure
        return Answer((x % 2 == 0) is not wrong, told)

    return answer


def half_check(arguments: Mapping[str, Any], value: bool) -> Verdict:
    """Sound, and knows of small numbers only; fails some right answers of larger ones."""
    x = arguments["x"]
    if x % 11 == 0:
        return Verdict.passed() if value == (x % 2 == 0) else Verdict.failed("it is not")
    return Verdict.failed("odd feeling") if noise("check", x) < 0.1 else Verdict.unknown()


def deep(confidence: str = "some", **declared: Any) -> Specialist[..., Any]:
    """Two rungs of steps, a vote, and another specialist."""
    last = thinker("last", 0.1)
    think = thinker("first", 0.4, confidence)

    @specialist(name="last")
    def after(x: int) -> Answer[bool]:
        """Whether x is even, by another."""
        return last(x, 1)

    @specialist(
        name="parity",
        steps=(1, 4),
        next=after,
        symmetries=[Symmetry("by two more", lambda arguments: {"x": arguments["x"] + 2})],
        **declared,
    )
    def parity(x: int, effort: Effort) -> Answer[bool]:
        """Whether x is even."""
        return think(x, effort.max_steps or 0)

    return parity


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"input": {"x": x}, "expected": x % 2 == 0, **more} for x in range(count)]


class Spy:
    """Sees what was handed to :func:`specialists.thresholds.certify`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, Any]] = []
        certify = thresholds.certify

        def spy(rungs: Any, keys: Any, **more: Any) -> Any:
            self.calls.append((rungs, keys))
            return certify(rungs, keys, **more)

        monkeypatch.setattr(thresholds, "certify", spy)


SOUND = {"verify": half_check, "sound": True}


@pytest.mark.parametrize(
    ("confidence", "declared"),
    [
        ("says", {}),
        ("some", {}),
        ("some", SOUND),
        ("says", {"verify": half_check}),
        ("some", SOUND | {"complete": True}),
    ],
)
async def test_what_was_certified_is_what_live_calls_accept(
    confidence: str, declared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1_500
    spy = Spy(monkeypatch)
    s = deep(confidence, **declared)
    made = (await calibrate_async(s, rows(count), alpha=0.06, delta=0.2)).certificate
    ((signals, keys),) = spy.calls
    policy = made.groups[0].policy
    floors = np.array(
        [
            [
                np.inf if rung.name not in policy or each is None else each
                for each in of_each_verdict(policy.get(rung.name))
            ]
            for rung in signals
        ]
    )
    end = thresholds.walk(signals, floors, used=[rung.name in policy for rung in signals])
    asked = s.with_certificate(made)
    names = [rung.name for rung in signals]
    live = [await asked.under("certified").solve(x=x) for x in range(count)]
    for x, outcome in enumerate(live):
        rung = -1 if outcome.answered_by is None else names.index(outcome.answered_by)
        assert (rung, outcome.accepted_by == "verified") == (int(end.rung[x]), bool(end.proven[x])), x
        assert bool(end.wrong[x]) == (outcome.accepted and outcome.value != (x % 2 == 0))
        assert outcome.certificate is not None
        assert outcome.certificate.status == "valid"
    testing = ~thresholds.split(keys)
    taken = [x for x in range(count) if testing[x] and live[x].accepted]
    assert (made.n, made.groups[0].cases) == (len(taken), int(testing.sum()))
    assert made.errors == sum(live[x].value != (x % 2 == 0) for x in taken)
    assert made.groups[0].verified == sum(live[x].accepted_by == "verified" for x in taken)
    assert 0 < made.errors < made.n
    # What was logged of it decides the same again, every time.
    for outcome in live[::7]:
        again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
        moves = replay(again)
        assert moves == replay(outcome)
        assert [move.rung for move in moves if isinstance(move, Climb)] == [each.rung for each in outcome.attempts]
        assert (moves[-1].by if isinstance(moves[-1], Accept) else None) == outcome.accepted_by
        assert again.certificate == outcome.certificate


def of_each_verdict(floors: Any) -> list[float | None]:
    return [None] * 3 if floors is None else [floors.passed, floors.unknown, floors.failed]


async def test_under_the_other_level_a_valid_certificate_decides_too() -> None:
    s = deep("says", min_confidence=0.0)
    made = (await calibrate_async(s, rows(1_500), alpha=0.06, delta=0.2)).certificate
    asked = s.with_certificate(made)
    taken = refused = 0
    for x in range(200):
        sure = await asked.under("certified").solve(x=x)
        laxer = await asked.under("confident").solve(x=x)
        assert (sure.accepted_by, sure.answered_by) == (laxer.accepted_by, laxer.answered_by)
        taken += sure.accepted
        refused += not sure.accepted
    assert taken
    assert refused
    # Without one the declared floor stands again: it takes everything.
    assert all([(await s.under("confident").solve(x=x)).accepted_by == "confident" for x in range(50)])
    assert not any([(await s.under("certified").solve(x=x)).accepted_by == "certified" for x in range(50)])


# The numbers of the claim.


@specialist
async def even(x: int) -> bool:
    """Whether x is even."""
    return x % 2 == 0


def with_errors(count: int, errors: int) -> list[dict[str, Any]]:
    return [{"input": {"x": x}, "expected": (x % 2 == 0) is not (x < errors)} for x in range(count)]


@pytest.mark.parametrize(("count", "errors", "enough"), [(299, 0, True), (298, 0, False), (1_000, 4, True)])
def test_one_percent_at_95(count: int, errors: int, enough: bool) -> None:
    if enough:
        made = calibrate(even, with_errors(count, errors)).certificate
        assert (made.n, made.errors, made.coverage, made.alpha, made.delta) == (count, errors, 1.0, 0.01, 0.05)
        assert made.coverage_high == 1.0
        assert made.coverage_low > 0.98
        assert made.models == (NO_MODEL,)
        assert (made.provider, made.onnxruntime) == (None, None)
        return
    with pytest.raises(CannotCertify, match="about 299 cases like these would be needed") as refusal:
        calibrate(even, with_errors(count, errors))
    assert (refusal.value.reason, refusal.value.needed) == ("too few", 299)


def test_one_error_too_many() -> None:
    with pytest.raises(CannotCertify) as refusal:
        calibrate(even, with_errors(1_000, 5))
    assert refusal.value.reason == "too few"
    assert refusal.value.needed is not None
    assert refusal.value.needed > 1_000
    with pytest.raises(CannotCertify, match="no number of such cases would do") as refusal:
        calibrate(even, with_errors(1_000, 50))
    assert (refusal.value.reason, refusal.value.needed) == ("too wrong", None)


def test_an_answer_where_none_is_due_is_an_error() -> None:
    """Out of distribution: the label says that it must abstain."""
    given = with_errors(1_000, 0)
    for row in given[:5]:
        row["expected"] = None
    with pytest.raises(CannotCertify):
        calibrate(even, given)
    given[4]["expected"] = True
    assert calibrate(even, given).certificate.errors == 4


@pytest.mark.parametrize("name", ["alpha", "delta"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), float("inf"), "0.5", None, True])
def test_levels_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} lies between 0 and 1"):
        calibrate(even, with_errors(300, 0), **{name: value})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none(value: float) -> None:
    with pytest.raises(ValueError, match="escalation"):
        calibrate(even, with_errors(300, 0), escalation=value)


# Groups.


async def test_each_group_has_a_certificate_of_its_own_at_its_part_of_the_level() -> None:
    given = [*with_errors(473, 0)]
    for row in given:
        row["group"] = "de"
    for row in (rest := with_errors(900, 450)):
        row["group"] = "ロシア"
    found = await calibrate_async(even, [*given, *rest], alpha=0.01, delta=0.05)
    made = found.certificate
    assert [(each.group, each.level) for each in made.groups] == [("de", 0.025)]
    assert set(found.refused) == {"ロシア"}
    assert found.refused["ロシア"].group == "ロシア"
    asked = even.with_certificate(made)
    told = {}
    for group in ("de", "ロシア", "fr", "", None):
        outcome = await asked.under("certified", group=group).solve(x=3)
        assert outcome.certificate is not None
        told[group] = (outcome.accepted_by, outcome.certificate.status, outcome.certificate.group)
    missing = {group: (None, "missing", group) for group in ("ロシア", "fr", "", None)}
    assert told == {"de": ("certified", "valid", "de"), **missing}
    assert "none was made for the group 'fr'" in str((await asked.under(group="fr").solve(x=3)).reason)


def test_half_of_the_level_takes_more_cases() -> None:
    two = [{**row, "group": group} for group in "ab" for row in with_errors(299, 0)]
    with pytest.raises(CannotCertify) as refusal:
        calibrate(even, two)
    assert refusal.value.needed == 368
    assert "97.5 %" in str(refusal.value)
    enough = [{**row, "group": group} for group in "ab" for row in with_errors(368, 0)]
    made = calibrate(even, enough).certificate
    assert [each.n for each in made.groups] == [368, 368]
    assert (made.n, made.cases) == (736, 736)


def test_calls_without_a_group_are_a_group() -> None:
    made = calibrate(even, [*with_errors(368, 0), *({**row, "group": "a"} for row in with_errors(368, 0))]).certificate
    assert [each.group for each in made.groups] == [None, "a"]
    assert made.state(None).status == made.state("a").status == "valid"


# What bad input gets.


class Place(BaseModel):
    name: str


@specialist
async def where(text: str) -> Place:
    """Where it is."""
    return Place(name=text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "holds no rows"),
        ([{"input": {"x": 1}}], r'there is no "expected"'),
        ([{"input": {"x": 1}, "expected": True, "specialist": "odd"}], "a case of 'odd', not of 'even'"),
        ([{"input": {"x": 1}, "expected": "yes"}], 'the label "yes" is no answer of even'),
        ([{"input": {"x": 1}, "expected": 3.5}], "no answer of even"),
        ([{"input": {"x": 1}, "expected": [True]}], "no answer of even"),
        ([{"input": {"x": "one"}, "expected": True}], r"row 1: \w+: x: input should be a valid integer"),
        ([{"input": {"y": 1}, "expected": True}], "even has no argument 'y'"),
        ([{"input": {}, "expected": True}], "argument 'x' of even is missing"),
        ([{"x": 1}], "not of the form"),
        (["x"], "not of the form"),
        ([{"input": {"x": 1}, "expected": True, "group": 7}], "'group' is a text"),
        (
            [{"input": {"x": 1}, "expected": True}, {"input": {"x": 1}, "expected": False}],
            "row 2: line 1 has the same input with another label",
        ),
        (
            [{"input": {"x": 1}, "expected": True}, {"input": {"x": 1}, "expected": None}],
            "same input with another label",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_told_before_any_is_run(given: list[Any], says: str) -> None:
    ran = []

    @specialist(name="even")
    def watched(x: int) -> bool:
        """Whether x is even."""
        ran.append(x)
        return True

    with pytest.raises(CasesError, match=says) as error:
        calibrate(watched, given)
    assert "\n" not in str(error.value)
    assert ran == []


def test_a_label_may_be_a_plain_text_for_an_objects_only_field() -> None:
    assert gather(where, [{"input": {"text": "a"}, "expected": "a"}]).cases
    assert gather(where, [{"input": {"text": "a"}, "expected": {"name": "a"}}]).cases
    with pytest.raises(CasesError, match="no answer of where"):
        gather(where, [{"input": {"text": "a"}, "expected": {"title": "a"}}])


def test_one_label_may_be_spelt_in_two_ways_and_true_is_not_one() -> None:
    rows = [{"input": {"text": "a"}, "expected": each} for each in ("a", {"name": "a"}, "a")]
    assert gather(where, rows).repeated == 2
    assert gather(where, rows[::-1]).repeated == 2

    @specialist
    async def either(x: int) -> bool | int:
        """A number, or whether."""
        return x

    with pytest.raises(CasesError, match="another label"):
        gather(either, [{"input": {"x": 1}, "expected": each} for each in (1, True)])


def test_an_input_that_stands_many_times_over_counts_once() -> None:
    given = [*with_errors(299, 0), *with_errors(299, 0), *with_errors(10, 0)]
    cases = gather(even, given)
    assert (len(cases.cases), cases.repeated) == (299, 309)
    assert calibrate(even, cases).certificate.n == 299
    with pytest.raises(CannotCertify):
        calibrate(even, with_errors(150, 0) * 2)
    drawn = calibrate(even, with_errors(150, 0) * 2, drawn="drawn").certificate
    assert (drawn.n, drawn.cases, drawn.drawn) == (300, 300, "drawn")


async def test_what_was_drawn_twice_is_run_once() -> None:
    ran: list[int] = []

    @specialist
    async def seen(x: int) -> bool:
        """Whether x is even."""
        ran.append(x)
        return x % 2 == 0

    cases = gather(seen, with_errors(3, 0) * 4, drawn="drawn")
    told: list[int] = []
    assert len(await observe(seen, cases.cases, progress=told.append)) == 12
    assert sorted(ran[1:]) == [0, 1, 2]  # and one before, to see whether it runs at all
    assert told == list(range(1, 13))


def test_the_hash_of_the_cases_is_of_what_they_say() -> None:
    def digest(given: list[Any]) -> str:
        return gather(even, given).sha256

    one = with_errors(5, 0)
    assert digest(one) == digest(one[::-1]) == digest([*one, one[0]])
    assert digest(one[1:]) != digest(one)
    assert digest([{**one[0], "expected": False}, *one[1:]]) != digest(one)
    assert digest([{**one[0], "group": "a"}, *one[1:]]) != digest(one)
    assert digest([{**one[0], "expected": None}, *one[1:]]) != digest(one)


def test_one_call_written_in_two_ways_is_one_input() -> None:
    @specialist
    async def plus(x: int, y: int = 2) -> int:
        """Add."""
        return x + y

    short, long = {"input": {"x": 1}, "expected": 3}, {"input": {"y": 2, "x": 1}, "expected": 3}
    assert gather(plus, [short, long]).repeated == 1
    assert gather(plus, [short]).sha256 == gather(plus, [long]).sha256
    with pytest.raises(CasesError, match="same input with another label"):
        gather(plus, [short, {**long, "expected": 4}])


def test_the_hash_does_not_ask_how_a_label_is_written() -> None:
    @specialist
    async def spot(x: int) -> dict[str, int]:
        """Two numbers."""
        return {"a": x, "b": x}

    one = gather(spot, [{"input": {"x": 1}, "expected": {"a": 1, "b": 1}}])
    assert gather(spot, [{"input": {"x": 1}, "expected": {"b": 1, "a": 1}}]).sha256 == one.sha256


def test_what_cannot_run_at_all_is_said_and_not_measured() -> None:
    @specialist
    async def broken(x: int) -> bool:
        """Whether x is even."""
        raise ModelRejected("model.onnx is not the file the card names")

    with pytest.raises(ModelRejected):
        calibrate(broken, with_errors(299, 0))


def test_a_specialist_that_always_fails_is_refused() -> None:
    @specialist
    async def failing(x: int) -> bool:
        """Whether x is even."""
        raise OSError("no disk")

    with pytest.raises(CannotCertify, match="none of its answers to the 299 cases can be accepted") as refusal:
        calibrate(failing, with_errors(299, 0))
    assert refusal.value.reason == "nothing accepted"


def test_a_judge_of_ones_own_needs_no_label() -> None:
    given = [{"input": {"x": x}} for x in range(299)]
    made = calibrate(even, given, correct=lambda arguments, expected, value: value == (arguments["x"] % 2 == 0))
    assert made.certificate.errors == 0
    with pytest.raises(CannotCertify):
        calibrate(even, given, correct=lambda arguments, expected, value: False)


def test_the_certificate_says_what_it_was_made_with() -> None:
    made = calibrate(even, with_errors(400, 0), folder="f" * 64, uses=3, command="brain", precision="int8").certificate
    assert (made.specialist, made.cases, made.uses, made.command, made.folder) == ("even", 400, 3, "brain", "f" * 64)
    assert made.precision is None  # of what no model ran in
    assert made.ladder == even.ladder_digest
    assert made.scores_counts[-1] == 400
    assert sum(made.scores_counts) == 400
    told = made.sentence()
    for part in ("at most 1 %", "95 % confidence", "none wrong of 400 accepted", "looked at 3 times before"):
        assert part in told


async def test_a_certificate_of_another_ladder_says_nothing() -> None:
    made = (await calibrate_async(even, with_errors(299, 0))).certificate

    @specialist(name="even", verify=lambda arguments, value: Verdict.unknown())
    async def other(x: int) -> bool:
        """Whether x is even."""
        return x % 2 == 0

    for s, says in ((other, "the ladder or the verifier"), (where, "of the specialist 'even'")):
        asked = s.with_certificate(made)
        outcome = await asked.under("certified").solve(**{"x": 2} if s is other else {"text": "a"})
        assert outcome.accepted_by is None
        assert outcome.certificate is not None
        assert outcome.certificate.status == "void"
        assert says in str(outcome.certificate.reason)
        assert says in str(outcome.reason)


# The weaker promises.


async def test_marginal_risk_is_another_promise() -> None:
    think = thinker("first", 0.5)

    @specialist
    async def sure(x: int) -> Answer[bool]:
        """Whether x is even."""
        return think(x, 1)

    seen = await observe(sure, gather(sure, rows(2_000)).cases)
    weaker = marginal_risk(sure, seen, 0.05)
    assert weaker.min_confidence is not None
    wrong = sum(
        each.wrong[0] is True and each.attempts[0].confidence >= weaker.min_confidence  # type: ignore[operator]
        for each in seen
    )
    assert (wrong + 1) / 2_001 <= 0.05
    assert "marginal risk" in weaker.sentence()
    assert "confidence," not in weaker.sentence().replace("min_confidence", "")
    none = marginal_risk(sure, seen[:5], 0.01)
    assert none.min_confidence is None
    assert "no threshold" in none.sentence()


def test_a_bound_on_cost() -> None:
    bound = cost_bound([float(each) for each in range(1, 100)], 0.95)
    assert (bound.level, bound.bound, bound.n) == (0.95, 95.0, 99)
    assert cost_bound([1.0] * 5, 0.95).bound is None
    for level in (0, 1, float("nan")):
        with pytest.raises(ValueError, match="level"):
            cost_bound([1.0], level)


def test_the_observations_are_kept() -> None:
    found = calibrate(deep("says"), rows(600), alpha=0.3, delta=0.3)
    assert len(found.observations) == 600
    assert [each.rung for each in found.observations[0].attempts] == ["specialist", "more_steps", "vote", "next:last"]
    assert all(jsonable(each.attempts[0].value) in (True, False) for each in found.observations)


def test_a_group_has_a_short_name() -> None:
    rows = [{"input": {"n": 1}, "expected": 1, "group": "g" * 201}]
    with pytest.raises(CasesError, match="row 1: a group's name has up to 200 characters, and this one 201"):
        calibrate(_same, rows)


def test_a_sound_verifier_judges_what_a_generator_makes_without_labels() -> None:
    made = [{"input": {"n": n}} for n in range(300)]
    result = calibrate(_same, made, drawn="generated")
    assert (result.certificate.n, result.certificate.errors, result.certificate.drawn) == (300, 0, "generated")
    with pytest.raises(CasesError, match='there is no "expected"'):
        calibrate(_same, made)


@specialist(verify=lambda arguments, value: arguments["n"] == value, sound=True)
def _same(n: int) -> int:
    """The number itself."""
    return n
