"""Watched calls: who audits a certified answer, what is kept of it, and what an alarm does."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from brain import Brain, Price
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Answer, Attempt, Certificate, Outcome, RungPolicy, SqliteStore, Verdict, Watch, specialist
from specialists.calibration import calibrate_async
from specialists.climb import Hooks, LadderRung, Question
from specialists.define import Specialist
from specialists.ladder import replay
from specialists.watching import Watched


async def certified(
    verify: Any = None, audit: Any = None, alpha: float = 0.1, function: Any = None
) -> Specialist[..., Any]:
    """Says whether a number is even, and has a certificate."""

    @specialist(name="even", verify=verify, audit=audit)
    async def even(x: int) -> Answer[bool]:
        """Whether x is even."""
        return Answer((function or (lambda each: each % 2 == 0))(x), 0.9)

    rows = [{"input": {"x": x}, "expected": x % 2 == 0} for x in range(1_000, 1_400)]
    return even.with_certificate((await calibrate_async(even, rows, alpha=alpha)).certificate)


class Big:
    """A rung in the big model's place."""

    def __init__(self, answer: Any = lambda x: x % 2 == 0, **fields: Any) -> None:
        self.asked: list[Question] = []
        self.answer = answer
        self.fields = fields

    def rung(self, kind: Any = "big_model") -> LadderRung:
        async def run(question: Question) -> Attempt:
            self.asked.append(question)
            fields = {"outcome": "answered", "value": self.answer(question.arguments["x"])} | self.fields
            return Attempt("big_model", seconds=0.0, source="big", **fields)

        return LadderRung(RungPolicy("big_model", kind), run)


async def ask(s: Specialist[..., Any], watch: Watch, x: int = 2, call_id: str = "c", **more: Any) -> Outcome[Any]:
    outcome = await s.climb({"x": x}, accept="certified", watch=watch, call_id=call_id, **more)
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert replay(again) == replay(outcome)
    assert (again.audit is None) == (outcome.audit is None)
    return outcome


def watched(s: Specialist[..., Any]) -> Watched:
    assert s.certificate is not None
    c = s.certificate
    return Watched(c.specialist, c.id, c.alpha, c.delta, c.scores_edges, c.scores_counts)


def counts(watch: Watch) -> tuple[int, int, int, int]:
    """Calls, audits, errors, waiting."""
    (status,) = watch.status()
    return status.calls, status.audits, status.errors, status.awaiting


async def test_the_big_model_audits_where_nothing_better_does() -> None:
    s, watch, big = await certified(), Watch(share=1.0), Big()
    outcome = await ask(s, watch, above=(big.rung(),))
    assert (outcome.accepted_by, outcome.answered_by, outcome.value) == ("certified", "specialist", True)
    assert [each.rung for each in outcome.attempts] == ["specialist"]
    assert outcome.audit is not None
    assert (outcome.audit.rung, outcome.audit.value) == ("big_model", True)
    assert outcome.to_json()["audit"]["rung"] == "big_model"
    assert len(outcome.to_json()["attempts"]) == 1
    (question,) = big.asked
    assert question.attempts == ()  # it must not see the answer that it judges
    assert counts(watch) == (1, 1, 0, 0)
    other = Big(lambda x: x % 2 == 1)
    assert (await ask(s, watch, call_id="d", above=(other.rung(),))).value is True
    assert counts(watch) == (2, 2, 1, 0)


async def test_a_declared_check_goes_before_the_big_model() -> None:
    told: list[Any] = []

    def audit(arguments: Mapping[str, Any], value: bool) -> Verdict:
        told.append((dict(arguments), value))
        return Verdict.passed() if arguments["x"] != 4 else Verdict.failed("no")

    s, watch, big = await certified(audit=audit), Watch(share=1.0), Big()
    outcome = await ask(s, watch, above=(big.rung(),))
    assert told == [({"x": 2}, True)]
    assert big.asked == []
    assert outcome.audit is None
    assert counts(watch) == (1, 1, 0, 0)
    assert (await ask(s, watch, x=4, call_id="d")).accepted_by == "certified"
    assert counts(watch) == (2, 2, 1, 0)


@pytest.mark.parametrize("audit", [lambda arguments, value: Verdict.unknown(), lambda arguments, value: 1 / 0])
async def test_a_check_that_cannot_tell_leaves_it_to_the_big_model(audit: Any) -> None:
    s, watch, big = await certified(audit=audit), Watch(share=1.0), Big()
    assert (await ask(s, watch, above=(big.rung(),))).audit is not None
    assert counts(watch) == (1, 1, 0, 0)


async def test_with_neither_it_waits_for_a_person() -> None:
    s, watch = await certified(), Watch(share=1.0)
    outcome = await ask(s, watch, call_id="run/7")
    assert (outcome.accepted_by, outcome.audit) == ("certified", None)
    (waiting,) = watch.awaiting(watched(s))
    assert waiting.call_id == "run/7"
    assert json.loads(waiting.value_json) == {"arguments": {"x": 2}, "value": True}
    assert counts(watch) == (1, 0, 0, 1)
    assert watch.label("run/7", wrong=True)
    assert counts(watch) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "error", "value": None, "reason": "no line"},
        {"outcome": "invalid", "value": None},
        {"outcome": "refused", "value": None},
        # It has an answer, of which the check says itself that it is wrong: it can judge nobody.
        {"verdict": Verdict.failed("that is none")},
    ],
)
async def test_a_big_model_without_a_good_answer_audits_nothing(fields: dict[str, Any]) -> None:
    s, watch, big = await certified(), Watch(share=1.0), Big(lambda x: x % 2 == 1, **fields)
    outcome = await ask(s, watch, above=(big.rung(),))
    assert outcome.accepted_by == "certified"
    assert outcome.audit is not None  # it was asked, and is paid for
    assert counts(watch) == (1, 0, 0, 1)


async def test_only_what_is_certified_and_drawn_is_audited() -> None:
    s, big = await certified(), Big()
    none = Watch(share=0.0)
    assert (await ask(s, none, above=(big.rung(),))).audit is None
    assert (big.asked, counts(none)) == ([], (1, 0, 0, 0))
    half = Watch(share=0.5)
    ids = [f"call-{number}" for number in range(40)]
    for each in ids:
        await ask(s, half, call_id=each, above=(big.rung(),))
    drawn = [each for each in ids if half.draws(each)]
    assert 5 < len(drawn) < 35
    assert counts(half) == (40, len(drawn), 0, 0)
    # A proof needs no audit, an answer that was not accepted has none, nor has one under the declared floor.
    proven, watch = await certified(verify=lambda arguments, value: arguments["x"] != 8), Watch(share=1.0)
    proven.sound = True
    assert (await proven.climb({"x": 2}, accept="certified", watch=watch, call_id="p")).accepted_by == "verified"
    assert (await ask(s, watch, group="another", above=(big.rung(),))).audit is None
    assert [each.audits for each in watch.status()] == [0]


async def test_without_a_certificate_nothing_is_watched() -> None:
    s, watch = (await certified()).with_certificate(None), Watch(share=1.0)
    outcome = await s.climb({"x": 2}, watch=watch, call_id="c")
    assert outcome.certificate is not None
    assert outcome.certificate.status == "missing"
    assert watch.status() == []


async def test_errors_revoke_it_and_then_it_escalates(caplog: pytest.LogCaptureFixture) -> None:
    s, watch, big = await certified(), Watch(share=1.0), Big(lambda x: x % 2 == 1)
    with caplog.at_level(logging.ERROR, "specialists"):
        for number in range(50):
            outcome = await ask(s, watch, call_id=f"c{number}", above=(big.rung(),))
            if outcome.accepted_by != "certified":
                break
    assert 1 < number < 20
    assert outcome.certificate is not None
    assert outcome.certificate.status == "revoked"
    assert "calibrate anew" in str(outcome.certificate.reason)
    assert (outcome.answered_by, outcome.accepted_by) == ("big_model", "unchecked")
    alone = await s.under("certified", watch=watch).solve(x=2)
    assert (alone.accepted_by, alone.value) == (None, None)
    assert "its certificate is revoked" in str(alone.reason)
    assert len([each for each in caplog.records if "revoked" in each.getMessage()]) == 1
    # Another watch has not heard of it, and another calibration is another certificate.
    assert (await s.under("certified", watch=Watch()).solve(x=2)).accepted_by == "certified"
    assert s.certificate is not None
    anew = s.with_certificate(s.certificate.model_copy(update={"uses": 1}))
    assert (await anew.under("certified", watch=watch).solve(x=2)).accepted_by == "certified"


async def test_a_revoked_one_falls_to_the_declared_floor_under_confident() -> None:
    @specialist(name="even", min_confidence=0.5)
    async def even(x: int) -> Answer[bool]:
        """Whether x is even."""
        return Answer(x % 2 == 0, 0.9)

    rows = [{"input": {"x": x}, "expected": x % 2 == 0} for x in range(1_000, 1_400)]
    s = even.with_certificate((await calibrate_async(even, rows, alpha=0.1)).certificate)
    watch = Watch(share=1.0)
    for number in range(50):
        watch.audited(watched(s), f"w{number}", True, "person")
    outcome = await s.under("confident", watch=watch).solve(x=2)
    assert outcome.accepted_by == "confident"
    assert outcome.certificate is not None
    assert outcome.certificate.status == "revoked"


async def test_alarms_of_another_process_are_heard(tmp_path: Path) -> None:
    s = await certified()
    one, other = Watch(SqliteStore(tmp_path / "w.db")), Watch(SqliteStore(tmp_path / "w.db"))
    assert (await ask(s, one)).accepted_by == "certified"
    for number in range(50):
        other.audited(watched(s), f"w{number}", True, "person")
    await asyncio.sleep(0.6)
    assert (await ask(s, one, call_id="d")).accepted_by is None


async def test_a_store_that_cannot_be_read_certifies_nothing(tmp_path: Path) -> None:
    s = await certified()
    watch = Watch(SqliteStore(tmp_path / "nowhere" / "w.db"), share=1.0)
    outcome = await ask(s, watch)
    assert outcome.accepted_by is None
    assert outcome.certificate is not None
    assert outcome.certificate.status == "void"
    assert "its watch cannot be read" in str(outcome.certificate.reason)


async def test_a_store_that_fails_after_the_answer_does_not_take_it_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s = await certified()
    watch = Watch(SqliteStore(tmp_path / "w.db"), share=1.0)
    assert (await ask(s, watch)).accepted_by == "certified"
    (tmp_path / "w.db").unlink()
    with caplog.at_level(logging.ERROR, "specialists"):
        outcome = await ask(s, watch, call_id="d")
    assert outcome.value is True
    assert "could not be audited" in caplog.text


async def test_a_watch_whose_audits_could_test_nothing_is_told_before_an_answer_is_accepted() -> None:
    s, watch = await certified(), Watch(share=1.0, auditor_error=0.9)
    outcome = await ask(s, watch, above=())
    assert outcome.accepted_by is None
    assert outcome.certificate is not None
    assert "no audit could test it" in str(outcome.certificate.reason)


async def test_an_audit_is_within_the_deadline() -> None:
    async def endless(arguments: Mapping[str, Any], value: Any) -> bool:
        await asyncio.sleep(60)
        return True

    s, watch = await certified(audit=endless), Watch(share=1.0)
    start = time.monotonic()
    outcome = await ask(s, watch, deadline=start + 0.2, above=(Big().rung(),))
    assert time.monotonic() - start < 20
    assert (outcome.value, outcome.accepted_by) == (True, "certified")
    assert outcome.audit is not None
    assert outcome.audit.outcome == "timeout"
    assert counts(watch) == (1, 0, 0, 1)


async def test_hooks_stand_around_an_audit_and_may_refuse_it() -> None:
    class Poor(Hooks):
        def __init__(self) -> None:
            self.seen: list[str] = []
            self.ends = 0

        async def before(self, rung: str, question: Question) -> Attempt | None:
            return Attempt(rung, "refused", 0.0, reason="no money") if rung == "big_model" else None

        def after(self, attempt: Attempt) -> Attempt:
            self.seen.append(attempt.rung)
            return attempt

        def ended(self, outcome: Outcome[Any]) -> None:
            self.ends += 1
            assert outcome.accepted_by == "certified"

    s, watch, hooks, big = await certified(), Watch(share=1.0), Poor(), Big()
    outcome = await ask(s, watch, hooks=hooks, above=(big.rung(),))
    assert (hooks.seen, hooks.ends, big.asked) == (["specialist", "big_model"], 1, [])
    assert outcome.audit is not None
    assert outcome.audit.outcome == "refused"
    assert counts(watch) == (1, 0, 0, 1)


async def test_calls_without_an_id_are_given_one() -> None:
    s, watch = await certified(), Watch(share=1.0)
    ids = {(await s.under("certified", watch=watch).solve(x=2)).call_id for _ in range(5)}
    assert len(ids) == 5
    assert None not in ids
    assert counts(watch) == (5, 0, 0, 5)


# In a brain.


def simulated(answer: bool) -> SimulatedModel:
    return SimulatedModel(solve=lambda _: answer, price=Price("1", "1"), name="big")


async def run(s: Specialist[..., Any], fallback: Any, watch: Watch, x: int = 2, group: str | None = None) -> Any:
    model = ScriptedModel([call("even", x=x), "done"])
    brain = Brain(model, specialists=[s], fallback=fallback, accept="certified", watch=watch)
    return await brain.run("go", group=group)


async def test_a_brain_pays_for_the_audit_and_shows_it() -> None:
    s, watch = await certified(), Watch(share=1.0)
    bare = await run(s, simulated(True), Watch(share=0.0))
    result = await run(s, simulated(True), watch)
    (outcome,) = result.calls
    assert (outcome.accepted_by, outcome.answered_by, outcome.value) == ("certified", "specialist", True)
    assert outcome.audit is not None
    assert (outcome.audit.outcome, outcome.audit.value) == ("answered", True)
    assert len(outcome.audit.wire_attempts) == 1
    assert outcome.attempts[0].wire_attempts == ()
    (row,) = [row for row in result.usage.rows if row.name == "big"]
    assert (row.requests, row.cost) == (1, outcome.audit.wire_attempts[0].cost)
    assert row.cost.low > 0
    assert [wire.model for wire in result.wire_attempts].count("big") == 1
    assert not [row for row in bare.usage.rows if row.name == "big"]
    assert counts(watch) == (1, 1, 0, 0)
    assert bare.calls[0].audit is None
    # What the planning model is told is the answer, and nothing of the audit.
    assert "audit" not in json.dumps(result.messages)


async def test_a_brain_whose_big_model_disagrees_keeps_the_answer_and_counts_it() -> None:
    s, watch = await certified(), Watch(share=1.0)
    result = await run(s, simulated(False), watch)
    assert result.calls[0].value is True
    assert counts(watch) == (1, 1, 1, 0)


async def test_two_runs_have_two_ids_though_their_calls_have_one() -> None:
    s, watch = await certified(), Watch(share=1.0)
    for _ in range(3):
        await run(s, simulated(True), watch)
    assert counts(watch)[1] == 3


async def test_a_brains_group_is_the_calls_group() -> None:
    s, watch = await certified(), Watch(share=0.0)
    result = await run(s, simulated(False), watch, group="fr")
    (outcome,) = result.calls
    assert outcome.answered_by == "big_model"
    assert outcome.certificate.status == "missing"
    assert outcome.certificate.group == "fr"


def test_a_certificate_that_was_watched_is_told_by_its_id() -> None:
    fields = set(Certificate.model_fields)
    assert {"alpha", "delta", "folder", "ladder", "models", "cases_sha256", "groups"} <= fields
