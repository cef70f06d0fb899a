"""A log once more: every live decision again, and another policy only where the log can answer for it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain import Brain, ConfigurationError, Cost, Price, cli, tool
from brain.replaying import (
    Labels,
    Logged,
    OutcomeReader,
    PolicyChange,
    Untried,
    Walk,
    compare,
    cut_short,
    difference,
    paired_intervals,
    reproduce,
    runs_needed,
    walk,
)
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Answer, Attempt, Effort, Outcome, Policy, RungPolicy, Verdict, specialist

LABELS = ("card", "refund", "parcel")


@specialist(min_confidence=0.7)
def route(text: str) -> Answer[str]:
    """Route a message."""
    chance = random.Random(text)
    if chance.random() < 0.1:
        raise RuntimeError("no route")
    return Answer(chance.choice(LABELS), confidence=chance.random())


@specialist(
    verify=lambda arguments, value: (
        Verdict.passed() if value == 2 * arguments["n"] else Verdict.failed("it is not the double")
    ),
    sound=True,
    complete=True,
    steps=(1, 4),
)
def double(n: int, effort: Effort) -> Answer[int]:
    """Double a number."""
    return Answer(2 * n if n % 4 or (n % 8 and effort.max_steps == 4) else n + 1, steps=1)


@specialist(verify=lambda arguments, value: Verdict.unknown("who knows"), min_confidence=0.5, next=route)
def guess(text: str) -> Answer[str]:
    """Guess."""
    chance = random.Random(text + "!")
    return Answer(text, confidence=None if chance.random() < 0.3 else chance.random())


@tool(effect="pure")
def days(country: str) -> int:
    """Days to a country."""
    return 4


def solve(question: str) -> Any:
    arguments = json.loads(question)["arguments"]
    return 2 * arguments["n"] if "n" in arguments else "card"


def fail(question: str) -> Any:
    raise RuntimeError("the big model is ill")


async def live(log: Path, accept: Any = "confident", runs: int = 25) -> list[Outcome[Any]]:
    """What a brain decided in some runs with all kinds of calls; it wrote them to ``log``."""
    made: list[Outcome[Any]] = []
    for run in range(runs):
        calls = [call("route", text=f"message {run}"), call("guess", text=f"thing {run}"), call("double", n=run)]
        calls += [call("days", country="Norway")] if run % 5 == 0 else []
        big = SimulatedModel(
            solve=solve if run % 3 else fail,
            wrong=lambda _, right: right + 1 if isinstance(right, int) else "parcel",
            accuracy=0.8,
            price=Price("1", "4"),
        )
        async with Brain(
            ScriptedModel([calls, "done"]),
            tools=[days],
            specialists=[route, guess, double],
            accept=accept,
            fallback=big,
            log=log,
        ) as brain:
            made += (await brain.run("go", run_id=f"run-{run}")).calls
    return made


@pytest.mark.parametrize("accept", ["verified", "certified", "confident"])
async def test_every_live_decision_is_made_again(tmp_path: Path, accept: Any) -> None:
    log = tmp_path / "log.jsonl"
    made = await live(log, accept)
    ladders = [outcome for outcome in made if outcome.answered_by != "function"]
    result = reproduce(OutcomeReader(log))
    assert result.first is None
    assert (result.calls, result.functions, result.cut_short, result.differing) == (75, 5, 0, 0)
    assert result.decisions == result.reproduced == sum(len(outcome.attempts) + 1 for outcome in ladders)
    assert {outcome.accepted_by for outcome in ladders} >= {"verified", None}
    read = [outcome for _, outcome in OutcomeReader(log)]
    assert [(o.tool, o.answered_by, o.accepted_by) for o in read] == [
        (o.tool, o.answered_by, o.accepted_by) for o in made
    ]
    same = compare(OutcomeReader(log), PolicyChange(accept=accept))
    assert same.refused is None
    assert same.logged == same.replayed
    assert (same.other_value, same.newly_accepted, same.no_longer_accepted) == (0, 0, 0)


async def test_a_stricter_log_tells_what_the_laxer_policy_did_live(tmp_path: Path) -> None:
    """The same calls, live under both levels: replaying the one gives the other's decisions."""
    strict = {(o.run_id, o.tool): o for o in await live(tmp_path / "strict.jsonl", "verified")}
    lax = {(o.run_id, o.tool): o for o in await live(tmp_path / "lax.jsonl", "confident")}
    for key, outcome in lax.items():
        if outcome.answered_by == "function":
            continue
        end = walk(outcome.policy, strict[key])
        assert isinstance(end, Walk)
        assert (end.accepted_by, end.rung, len(end.attempts)) == (
            outcome.accepted_by,
            outcome.answered_by,
            len(outcome.attempts),
        )
    forth = compare(OutcomeReader(tmp_path / "strict.jsonl"), PolicyChange(accept="confident"))
    assert forth.refused is None
    assert (
        forth.replayed.accepted_by
        == compare(OutcomeReader(tmp_path / "lax.jsonl"), PolicyChange(accept="confident")).logged.accepted_by
    )
    back = compare(OutcomeReader(tmp_path / "lax.jsonl"), PolicyChange(accept="verified"))
    assert back.refused is not None
    assert "big_model" in back.refused


async def test_a_cancelled_call_is_counted_and_not_compared(tmp_path: Path) -> None:
    begun = asyncio.Event()

    @specialist(min_confidence=0.5)
    async def slow(text: str) -> Answer[str]:
        """Be slow."""
        begun.set()
        await asyncio.sleep(60)
        return Answer(text, confidence=1.0)

    log = tmp_path / "log.jsonl"
    async with Brain(ScriptedModel([call("slow", text="x"), "done"]), specialists=[slow], log=log) as brain:
        run = asyncio.create_task(brain.run("go"))
        await begun.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    (logged,) = OutcomeReader(log)
    assert cut_short(logged.outcome)
    result = reproduce([logged])
    assert (result.calls, result.cut_short, result.differing, result.reproduced) == (1, 1, 0, result.decisions)
    compared = compare([logged], PolicyChange(accept="verified"))
    assert (compared.calls, compared.cut_short) == (0, 1)
    assert "nothing to compare" in str(compared.refused)


# Logs made by hand.

HERE = RungPolicy("specialist", "specialist", min_confidence=0.5)
MORE = RungPolicy("more_steps", "more_steps", min_confidence=0.5)
VOTE = RungPolicy("vote", "vote", min_confidence=0.5)
BIG = RungPolicy("big_model", "big_model", checked=False)
AGAIN = RungPolicy("big_model_again", "big_model_again")
TWO = Policy((HERE, BIG))


def tried(rung: str, value: Any = "a", confidence: float | None = None, cost: Any = "0", **more: Any) -> Attempt:
    more = {"outcome": "answered", "seconds": 0.5, "cpu_seconds": None if rung.startswith("big") else 0.25} | more
    return Attempt(
        rung, value=value, confidence=confidence, cost=cost if isinstance(cost, Cost) else Cost.exact(cost), **more
    )


def ended(
    *attempts: Attempt,
    by: str | None = None,
    policy: Policy = TWO,
    run: str | None = "r",
    id: str = "c",
    tool: str = "t",
    audit: Attempt | None = None,
    **more: Any,
) -> Outcome[Any]:
    last = attempts[-1] if by else None
    return Outcome(
        last.value if last else None,
        last.rung if last else None,
        by,  # type: ignore[arg-type]
        attempts,
        policy,
        reason=None if by else "no",
        tool=tool,
        call_id=id,
        run_id=run,
        audit=audit,
        **more,
    )


def numbered(outcomes: Sequence[Outcome[Any]]) -> Iterator[Logged]:
    return (Logged(line, outcome) for line, outcome in enumerate(outcomes, 1))


def low(confidence: float = 0.2, **more: Any) -> Attempt:
    return tried("specialist", confidence=confidence, **more)


def write(path: Path, outcomes: Sequence[Outcome[Any]]) -> Path:
    path.write_text("".join(json.dumps(outcome.to_json()) + "\n" for outcome in outcomes), "utf-8")
    return path


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (ended(low(0.9), by="confident"), None),
        (ended(low(0.9), by="verified"), "the ladder accepts as confident"),
        (
            ended(low(0.2), by="confident"),
            "the ladder goes on to 'big_model', and in the log the answer of 'specialist' is",
        ),
        (ended(low(0.9)), "accepts as confident, and in the log the call is not accepted"),
        (ended(low(0.9), tried("big_model"), by="unchecked"), "after 1 attempt the ladder accepts as confident"),
        (ended(tried("big_model"), by="unchecked"), "after 0 attempts the ladder goes on to 'specialist'"),
        (ended(low(0.2), tried("big_model", outcome="error")), None),
        (ended(low(0.2), tried("big_model", outcome="error"), by="unchecked"), "the ladder abstains"),
    ],
    ids=range(8),
)
def test_what_differs_is_said(outcome: Outcome[Any], says: str | None) -> None:
    found = difference(outcome)
    assert found == says if says is None else says in str(found)


def test_another_value_and_an_abstention_where_the_ladder_goes_on_are_differences() -> None:
    changed = ended(low(0.9), by="confident").to_json() | {"value": "b"}
    assert "another" in str(difference(Outcome.from_json(changed)))
    reason = "specialist: confidence 0.2 is below the floor of 0.5"
    abstained = Outcome(None, None, None, (low(),), TWO, reason=reason, tool="t")
    assert not cut_short(abstained)
    assert "goes on to 'big_model'" in str(difference(abstained))
    stopped = Outcome(None, None, None, (low(),), TWO, reason="t: RuntimeError: a hook failed", tool="t")
    assert cut_short(stopped)
    assert difference(stopped) is None


@pytest.mark.parametrize("by", [None, "unchecked"])
def test_a_rung_the_logged_policy_does_not_have(by: str | None) -> None:
    log = [Logged(7, ended(low(), tried("elsewhere"), by=by))]
    says = "a call of t: its policy has no rung 'elsewhere', and the log tried it"
    assert reproduce(log).first == (7, says)
    assert says in str(compare(log, PolicyChange(accept="verified")).refused)


class TestWalk:
    def test_attempts_count_in_any_order(self) -> None:
        outcome = ended(low(0.9), by="confident", audit=tried("big_model", "b"))
        assert walk(Policy((BIG, HERE)), outcome) == Walk((1,), "unchecked", "big_model")
        assert walk(Policy((HERE, BIG)), outcome) == Walk((0,), "confident", "specialist")
        assert walk(Policy((HERE,), "verified"), outcome) == Walk((0,), None, None)

    def test_what_was_never_tried_is_unknown(self) -> None:
        outcome = ended(low(0.9), by="confident")
        assert walk(Policy((HERE, BIG), "verified"), outcome) == Untried("big_model", "the log has no attempt on it")
        assert walk(Policy((VOTE,)), outcome) == Untried("vote", "the logged ladder has no rung of this name")

    def test_a_big_model_asked_again_stands_on_its_first_answer(self) -> None:
        failed = tried("big_model", verdict=Verdict.failed("no"))
        again = tried("big_model_again", "b", verdict=Verdict.unknown())
        logged = ended(low(), failed, again, by="unchecked", policy=Policy((HERE, BIG, AGAIN)))
        assert difference(logged) is None
        assert walk(Policy((BIG, AGAIN)), logged) == Walk((1, 2), "unchecked", "big_model_again")
        other = ended(
            failed, low(), again, by="unchecked", policy=Policy((BIG, HERE, AGAIN))
        )  # asked again after something else
        assert isinstance(walk(Policy((BIG, AGAIN)), other), Untried)

    def test_a_vote_stands_on_the_answer_that_had_a_voice(self) -> None:
        logged = ended(
            low(source="me"), tried("more_steps", confidence=0.3, source="me"),
            tried("vote", confidence=0.8, source="me"), by="confident", policy=Policy((HERE, MORE, VOTE)),
        )  # fmt: skip
        assert difference(logged) is None
        assert walk(Policy((MORE, VOTE)), logged) == Walk((1, 2), "confident", "vote")
        assert isinstance(walk(Policy((HERE, VOTE)), logged), Untried)

    def test_what_ran_out_of_time_might_not_have_had_it_been_asked_sooner(self) -> None:
        logged = ended(low(), tried("big_model", outcome="timeout"))
        assert walk(TWO, logged) == Walk((0, 1), None, None)
        assert isinstance(walk(Policy((BIG,)), logged), Untried)


class TestPolicyChange:
    def test_a_level_a_policy_a_map_and_floors(self, tmp_path: Path) -> None:
        assert PolicyChange.read("verified").of("t", TWO) == Policy((HERE, BIG), "verified")
        other = Policy((HERE,), "certified")
        (tmp_path / "one.json").write_text(json.dumps(other.to_json()))
        (tmp_path / "map.json").write_text(json.dumps({"tools": {"t": other.to_json()}}))
        assert PolicyChange.read(str(tmp_path / "one.json")).of("t", TWO) == other
        by_tool = PolicyChange.read(str(tmp_path / "map.json"))
        assert by_tool.of("t", TWO) == other
        assert by_tool.of("u", TWO) == TWO
        floor = PolicyChange.read(None, {"t": 0.9}).of("t", TWO)
        assert [rung.min_confidence for rung in floor.rungs] == [0.9, None]
        assert PolicyChange.read(None, {"t": 0.9}).of("u", TWO) == TWO

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "not JSON"),
            ("[]", "neither a policy"),
            ('{"rungs": 1, "accept": "verified"}', "not a policy"),
            ('{"rungs": []}', "the policy has no 'accept'"),
            ('{"rungs": [], "accept": "maybe"}', "accept is one of"),
            ('{"rungs": [{"name": "a", "kind": "odd"}], "accept": "verified"}', "one of the kinds"),
            ('{"rungs": [{"name": "a", "kind": "next", "min_confidence": "1"}], "accept": "verified"}', "is a number"),
            ('{"tools": {"t": {"accept": "verified"}}}', "p.json, t: the policy has no 'rungs'"),
        ],
        ids=range(8),
    )
    def test_what_is_no_policy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, says: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path("p.json").write_text(content)
        with pytest.raises(ConfigurationError, match=r"p\.json") as caught:
            PolicyChange.read("p.json")
        assert says in str(caught.value)
        with pytest.raises(ConfigurationError, match="'maybe' is neither"):
            PolicyChange.read("maybe")


class TestFigures:
    def test_known_numbers(self) -> None:
        """Ten runs of two calls; the laxer floor saves the big model, at 0.04, in one call of every second run."""
        log = []
        for run in range(10):
            for place in range(2):
                saved = place == 0 and run % 2 == 0
                local = low(0.4 if saved else 0.1, value="here", cost="0.01")
                big = tried("big_model", "here" if run else "there", cost="0.04")
                log.append(ended(local, big, by="unchecked", run=f"r{run}", id=f"c{place}"))
        result = compare(numbered(log), PolicyChange(floors={"t": 0.3}))
        assert (result.calls, result.runs, result.refused) == (20, 10, None)
        assert (result.logged.local, result.replayed.local) == (0, 5)
        assert (result.logged.escalated, result.replayed.escalated) == (20, 15)
        assert result.logged.cost == Cost.exact("1.00")
        assert result.replayed.cost == Cost.exact("0.80")
        assert (result.logged.seconds, result.replayed.seconds) == (20.0, 17.5)
        assert result.logged.cpu_seconds == result.replayed.cpu_seconds == 5.0
        assert (result.other_value, result.newly_accepted) == (1, 0)
        local, cost = result.differences["local"], result.differences["cost"]
        assert local.mean == (0.25, 0.25)
        assert cost.mean == pytest.approx((-0.01, -0.01))
        assert local.interval is not None
        assert cost.interval is not None
        # The mean of ten numbers, half 0 and half 0.5: its standard error is 0.083, and t at nine degrees 2.26.
        assert local.interval == pytest.approx((0.25 - 0.19, 0.25 + 0.19), abs=0.04)
        assert cost.interval == pytest.approx([-0.04 * end for end in reversed(local.interval)])
        assert result.differences["cpu_seconds"].interval is None
        assert compare(numbered(log), PolicyChange(floors={"t": 0.3})).to_json() == result.to_json()

    def test_shared_attempts_cancel_out_though_they_have_no_price(self) -> None:
        unpriced = Cost.unpriced()
        log = [
            ended(low(confidence, cost=unpriced), tried("big_model", cost="0.5"), by="unchecked", run=f"r{n}")
            for n, confidence in enumerate([0.4, 0.1, 0.4])
        ]
        result = compare(numbered(log), PolicyChange(floors={"t": 0.3}))
        assert result.logged.cost == Cost.unpriced("1.5")
        assert (result.logged.unpriced, result.replayed.unpriced) == (3, 3)
        assert result.differences["cost"].basis == "priced"
        assert result.differences["cost"].mean == pytest.approx((-1 / 3, -1 / 3))

    def test_where_what_differs_has_no_price_the_low_ends_are_compared(self) -> None:
        log = [
            ended(low(0.4, cost="0.1"), tried("big_model", cost=cost), by="unchecked", run=f"r{n}")
            for n, cost in enumerate([Cost.unpriced("0.2"), Cost.exact("0.4")])
        ]
        cost = compare(numbered(log), PolicyChange(floors={"t": 0.3})).differences["cost"]
        assert cost.basis == "low"
        assert cost.mean == pytest.approx((-0.3, -0.3))

    def test_bounded_prices_make_the_difference_a_range(self) -> None:
        log = [
            ended(low(0.4), tried("big_model", cost=Cost.bounded("0.2", high)), by="unchecked", run=f"r{n}")
            for n, high in enumerate(["0.3", "0.5"])
        ]
        cost = compare(numbered(log), PolicyChange(floors={"t": 0.3})).differences["cost"]
        assert cost.mean == pytest.approx((-0.4, -0.2))

    def test_an_audit_counts_where_the_policy_asks_for_it(self) -> None:
        log = [
            ended(low(0.9, cost="0.1"), by="confident", run=f"r{n}", audit=tried("big_model", "b", cost="1"))
            for n in range(3)
        ]
        same = compare(numbered(log), PolicyChange(accept="confident"))
        assert same.audits == 3
        assert same.logged.cost == same.replayed.cost == Cost.exact("0.3")
        climbs = compare(numbered(log), PolicyChange(floors={"t": 0.95}))
        assert climbs.replayed.cost == Cost.exact("3.3")
        assert climbs.other_value == 3
        assert climbs.costs[0] == climbs.costs[1] == dict.fromkeys(["r0", "r1", "r2"], Decimal("1.1"))

    def test_one_run_has_no_interval(self) -> None:
        log = [ended(low(0.4), tried("big_model"), by="unchecked", id=f"c{n}") for n in range(50)]
        result = compare(numbered(log), PolicyChange(floors={"t": 0.3}))
        assert result.runs == 1
        assert all(each.interval is None for each in result.differences.values())

    def test_calls_outside_of_runs_stand_for_themselves(self) -> None:
        log = [ended(low(0.4), tried("big_model"), by="unchecked", run=None) for _ in range(5)]
        assert compare(numbered(log), PolicyChange(floors={"t": 0.3})).runs == 5


class TestRefusal:
    def test_nothing_is_averaged_over_the_known_ones(self) -> None:
        log = [ended(low(0.1), tried("big_model"), by="unchecked", run=f"r{n}") for n in range(99)]
        log.append(ended(low(0.6), by="confident", run="odd"))
        result = compare(numbered(log), PolicyChange(floors={"t": 0.9}))
        assert result.unknown == 1
        assert result.refused is not None
        assert result.refused.startswith(
            "the policy would have asked big_model of t in 1 of 100 calls where the log has no attempt on it"
        )
        data = result.to_json()
        assert data["refused"] == result.refused
        assert (data["calls"], data["unknown"]) == (100, 1)
        assert data["untried"][0]["calls"] == 1
        assert data["logged"] is data["replayed"] is data["difference"] is data["other_value"] is None

    def test_a_log_that_is_not_reproduced_is_not_compared(self) -> None:
        log = [ended(low(0.9), by="confident"), ended(low(0.9), by="verified")]
        result = compare(numbered(log), PolicyChange(accept="verified"))
        assert str(result.refused).startswith("line 2 is not what this ladder decides")

    def test_a_policy_may_climb_less(self) -> None:
        log = [ended(low(0.1), tried("big_model"), by="unchecked", run=f"r{n}") for n in range(3)]
        result = compare(numbered(log), PolicyChange(everywhere=Policy((HERE,))))
        assert result.refused is None
        assert result.replayed.abstained == result.no_longer_accepted == 3
        assert result.left_out == {"t": {"big_model"}}


class TestIntervals:
    def test_they_hold_the_mean_as_often_as_they_say(self) -> None:
        chance = np.random.default_rng(0)
        held = 0
        for _ in range(200):
            counts = chance.integers(1, 5, size=12).astype(float)
            sums = chance.normal(0.3, 1.0, size=12) * counts
            found = paired_intervals({"x": sums}, counts)["x"]
            assert found is not None
            held += found[0] <= 0.3 <= found[1]
        assert 180 <= held <= 200

    def test_many_runs_are_pooled_and_say_the_same(self) -> None:
        chance = np.random.default_rng(0)
        sums = chance.normal(0.0, 1.0, size=25_000)
        found = paired_intervals({"x": sums}, np.ones(25_000))["x"]
        assert found is not None
        assert found[1] - found[0] == pytest.approx(2 * 1.96 / 25_000**0.5, rel=0.1)

    def test_no_run_that_differs_is_no_proof_that_none_will(self) -> None:
        counts = np.ones(20)
        found = paired_intervals({"share": np.zeros(20), "money": np.zeros(20)}, counts, shares={"share"})
        assert found["money"] is None
        assert found["share"] == pytest.approx((-0.168, 0.168), abs=0.001)
        assert paired_intervals({"share": counts}, counts, shares={"share"})["share"] == pytest.approx(
            (1 - 2 * 0.168, 1.0), abs=0.001
        )


class TestLabels:
    def log(self) -> list[Outcome[Any]]:
        """In each run the specialist is right, and the big model in every second."""
        return [
            ended(low(0.4, value="a"), tried("big_model", "a" if n % 2 else "b"), by="unchecked", run=f"r{n}")
            for n in range(8)
        ]

    def test_wrong_answers_under_both(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"run_id": f"r{n}", "call_id": "c", "expected": "a"} for n in range(6)]
        rows += [{"run_id": "r6", "call_id": "c", "expected": None}, {"call_id": "nobody", "expected": 1}]
        path = tmp_path / "labels.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        result = compare(numbered(self.log()), PolicyChange(floors={"t": 0.3}), labels=Labels.read(path))
        assert (result.labelled, result.labels_unused) == (7, ["nobody"])
        assert (result.logged.wrong, result.logged.right) == (4, 3)
        assert (result.replayed.wrong, result.replayed.right) == (1, 6)
        wrong = result.differences["wrong_accepted"]
        assert wrong.mean[0] == pytest.approx(-3 / 7)
        assert wrong.interval is not None
        assert wrong.interval[0] < -3 / 7 < wrong.interval[1] <= 0

    def test_without_labels_nothing_is_said(self) -> None:
        result = compare(numbered(self.log()), PolicyChange(floors={"t": 0.3})).to_json()
        assert result["logged"]["wrong_accepted"] is result["labelled"] is None
        assert "wrong_accepted" not in result["difference"]

    def test_a_label_for_several_calls(self) -> None:
        with pytest.raises(ConfigurationError, match=r"line 1 of the log and line 2; name its run_id too"):
            compare(numbered(self.log()), PolicyChange(floors={"t": 0.3}), labels=Labels({(None, "c"): "a"}))

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("", "holds no labels"),
            ("{", "line 1: not JSON"),
            ('{"call_id": "c"}', "line 1: not of the form"),
            ('{"call_id": 1, "expected": 1}', "line 1: not of the form"),
            ('{"call_id": "c", "run_id": 1, "expected": 1}', "run_id is a text"),
            ('{"call_id": "c", "expected": 1}\n\n{"call_id": "c", "expected": 2}', "line 3: the call 'c' has a label"),
        ],
        ids=range(6),
    )
    def test_what_is_no_label(self, tmp_path: Path, content: str, says: str) -> None:
        path = tmp_path / "labels.jsonl"
        path.write_text(content)
        with pytest.raises(ConfigurationError) as caught:
            Labels.read(path)
        assert says in str(caught.value)


def test_runs_needed() -> None:
    assert [runs_needed(level) for level in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


# As typed.


class Typed:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = cli.main(["replay", *words])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        assert "unexpected" not in err
        return code, out, err

    def json(self, *words: str, code: int = 0) -> Mapping[str, Any]:
        got, out, err = self(*words, "--json")
        assert (got, out.count("\n")) == (code, 1), err
        data: Mapping[str, Any] = json.loads(out)
        assert data["format"] == 1
        return data


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    return Typed(capsys)


def climbing(runs: int = 40) -> list[Outcome[Any]]:
    return [
        ended(low(0.4 if n % 2 else 0.1, cost="0.01"), tried("big_model", cost="0.04"), by="unchecked", run=f"r{n}")
        for n in range(runs)
    ]


def test_help_teaches(typed: Typed) -> None:
    code, out, _ = typed("--help")
    assert code == 0
    for said in ("brain replay calls.jsonl --policy verified", "--min-confidence", "call_id", "nothing is estimated"):
        assert said in out


def test_a_log_is_reproduced(typed: Typed) -> None:
    write(Path("log.jsonl"), climbing())
    code, out, err = typed("log.jsonl")
    assert (code, err) == (0, "")
    assert out.startswith("120 of 120 decisions reproduced, in 40 calls")
    assert typed.json("log.jsonl")["reproduced"] == 120


def test_the_first_difference_is_named(typed: Typed) -> None:
    write(Path("log.jsonl"), [*climbing(2), ended(low(0.9), by="verified"), ended(low(0.9), by="verified", id="d")])
    code, out, err = typed("log.jsonl")
    assert code == 1
    assert "6 of 10 decisions reproduced" in out
    assert (
        "2 calls not reproduced; the first is line 3, a call of t: after 1 attempt the ladder accepts as confident"
        in err
    )
    assert typed.json("log.jsonl", code=1)["first"]["line"] == 3


def test_another_policy_is_set_beside_the_logged_one(typed: Typed) -> None:
    write(Path("log.jsonl"), climbing())
    Path("labels.jsonl").write_text(
        '{"run_id": "r1", "call_id": "c", "expected": "a"}\n{"call_id": "x", "expected": 1}'
    )
    words = ["log.jsonl", "--min-confidence", "t=0.3", "--labels", "labels.jsonl", "--cost-bound", "0.95"]
    code, out, err = typed(*words)
    assert (code, err) == (0, "")
    for said in ("40 calls in 40 runs", "t>=0.3", "50.0 % (20)", "+50.0 points", "$2.00", "$1.20", "-$0.0200"):
        assert said in out
    assert "39 calls without a label" in out
    assert "Labels of no call that is compared: 1, such as 'x'" in out
    assert "as logged: the next one like these costs at most $0.0500 with probability 0.95 (40 runs)" in out
    data = typed.json(*words)
    assert data["refused"] is None
    assert data["replayed"]["coverage"] == 0.5
    assert data["cost_bound"]["replayed"] == {"runs": 40, "unpriced_runs": 0, "bound": "0.05"}
    lax = typed.json("log.jsonl", "--policy", "confident", "--cost-bound", "0.99")
    assert lax["difference"]["local"]["mean_low"] == 0
    assert lax["cost_bound"] == {
        "level": 0.99,
        "runs_needed": 99,
        "logged": {"runs": 40, "unpriced_runs": 0, "bound": None},
        "replayed": {"runs": 40, "unpriced_runs": 0, "bound": None},
    }
    assert "it takes 99 at least" in typed("log.jsonl", "--cost-bound", "0.99")[1]


def test_what_was_never_asked_is_refused(typed: Typed) -> None:
    write(Path("log.jsonl"), [*climbing(3), ended(low(0.6), by="confident", run="odd")])
    code, out, err = typed("log.jsonl", "--min-confidence", "t=0.9")
    assert (code, out) == (1, "")
    assert "would have asked big_model of t in 1 of 4 calls where the log has no attempt on it" in err
    assert err.count("\n") == 1
    assert typed.json("log.jsonl", "--min-confidence", "t=0.9", code=1)["logged"] is None


def test_no_bound_where_a_run_has_no_price(typed: Typed) -> None:
    write(Path("log.jsonl"), [*climbing(), ended(low(0.9, cost=Cost.unpriced()), by="confident", run="odd")])
    _, out, _ = typed("log.jsonl", "--cost-bound", "0.5")
    assert "no bound, as 1 of 41 runs have no known price" in out


def test_a_line_that_a_crash_cut_off(typed: Typed) -> None:
    text = write(Path("log.jsonl"), climbing(3)).read_text()
    Path("log.jsonl").write_text(text + text[:100])
    code, out, err = typed("log.jsonl")
    assert code == 0
    assert "in 3 calls" in out
    assert "log.jsonl, line 4: the last line is not whole, and is passed by" in err
    assert typed.json("log.jsonl")["cut_off_line"] == 4
    Path("log.jsonl").write_text(text + text[:100] + text)
    code, out, err = typed("log.jsonl")
    assert (code, out) == (2, "")
    assert "line 4: not JSON" in err
    Path("log.jsonl").write_text(text[:100])
    assert "holds no line that is whole" in typed("log.jsonl")[2]


def test_a_line_that_stands_there_twice(typed: Typed) -> None:
    text = write(Path("log.jsonl"), climbing(3)).read_text()
    Path("log.jsonl").write_text(text + text)
    code, out, err = typed("log.jsonl")
    assert code == 0
    assert "in 3 calls" in out
    assert "3 lines passed by that stood there before, letter by letter; the first is line 4" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.jsonl"], "'none.jsonl' cannot be used: no such file"),
        (["."], "'.' cannot be used: is a directory"),
        (["empty.jsonl"], "empty.jsonl holds no line"),
        (["rows.jsonl"], "rows.jsonl, line 1: not a call's outcome, as Brain(log=...) writes them"),
        (["format.jsonl"], "format.jsonl, line 1: this log line has format 9; this version reads 1"),
        (["lacks.jsonl"], "lacks.jsonl, line 1: the outcome has no 'run_id'"),
        (["types.jsonl"], "types.jsonl, line 1: an attempt's seconds are a number, not '1'"),
        (["good.jsonl", "--policy", "maybe"], "'maybe' is neither"),
        (["good.jsonl", "--min-confidence", "u=0.5"], "no calls of a specialist 'u'; those it has are t"),
        (["good.jsonl", "--min-confidence", "t=2"], "'t=2' is not of the form TOOL=FLOOR"),
        (["good.jsonl", "--min-confidence", "t"], "'t' is not of the form TOOL=FLOOR"),
        (["good.jsonl", "--min-confidence", "t=0.1", "--min-confidence", "t=0.2"], "names a tool twice"),
        (["good.jsonl", "--labels", "good.jsonl"], "name it with --policy"),
        (["good.jsonl", "--policy", "verified", "--labels", "none"], "'none' cannot be used: no such file"),
        (["good.jsonl", "--cost-bound", "1"], "'1' is not a probability between 0 and 1"),
    ],
)
def test_one_sentence_for_what_cannot_be_used(typed: Typed, words: list[str], says: str) -> None:
    (good,) = climbing(1)
    data = good.to_json()
    write(Path("good.jsonl"), [good])
    Path("empty.jsonl").write_text("\n")
    Path("rows.jsonl").write_text('{"input": {}}\n')
    Path("format.jsonl").write_text(json.dumps(data | {"format": 9}) + "\n")
    Path("lacks.jsonl").write_text(json.dumps({key: data[key] for key in data if key != "run_id"}) + "\n")
    Path("types.jsonl").write_text(json.dumps(data | {"attempts": [data["attempts"][0] | {"seconds": "1"}]}) + "\n")
    code, out, err = typed(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), (out, err)
    assert says in err


def test_a_log_of_plain_functions_only(typed: Typed) -> None:
    function = Policy((RungPolicy("function", "function", checked=False),))
    write(Path("log.jsonl"), [ended(tried("function"), by="unchecked", policy=function)])
    code, out, _ = typed("log.jsonl")
    assert code == 0
    assert "1 call of plain functions passed by" in out
    assert "nothing to compare" in typed("log.jsonl", "--policy", "verified")[2]
