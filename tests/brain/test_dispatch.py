"""One call: what is accepted under which level, and the rung of the big model, asked the same typed question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from brain import Brain, EndpointRefused, ModelError, ModelTimeout, Outcome, Price, RunResult, tool
from brain.testing import ScriptedModel, SimulatedModel, call, reply
from specialists import Answer, Specialist, Verdict, replay, specialist


def is_even(arguments: Mapping[str, Any], value: int) -> Verdict:
    return Verdict.passed() if value % 2 == 0 else Verdict.failed("it is odd")


def guesser(value: Any, confidence: float | None = None, **declared: Any) -> Specialist[..., Any]:
    @specialist(name="guess", **declared)
    async def guess(text: str) -> Answer[int]:
        """Guess a number."""
        return Answer(value, confidence)

    return guess


async def outcome_of(
    given: Specialist[..., Any], big: Any = False, accept: Any = "confident"
) -> tuple[Outcome[Any], RunResult[Any]]:
    model = ScriptedModel([call("guess", text="x"), "done"])
    brain = Brain(model, specialists=[given], fallback=big, accept=accept)
    result = await brain.run("go")
    (outcome,) = result.calls
    assert [str(move) for move in replay(Outcome.from_json(json.loads(json.dumps(outcome.to_json()))))] == [
        str(move) for move in replay(outcome)
    ]
    return outcome, result


def says(*texts: Any) -> ScriptedModel:
    return ScriptedModel(list(texts), name="big")


PROVED = {"verify": is_even, "sound": True}
DOUBTED = {"verify": is_even}
FLOOR = {"min_confidence": 0.9}


@pytest.mark.parametrize(
    ("declared", "value", "confidence", "accept", "alone", "with_big"),
    [
        # A sound pass is a proof, whatever the confidence.
        (PROVED | FLOOR, 2, 0.1, "verified", "verified", "verified"),
        (PROVED, 2, None, "certified", "verified", "verified"),
        # Failed by a sound verifier: up the ladder, where the big model's 4 is proved too.
        (PROVED, 3, 1.0, "confident", None, "verified"),
        (PROVED, 3, 1.0, "verified", None, "verified"),
        # Confidence.
        (FLOOR, 3, 0.95, "confident", "confident", "confident"),
        (FLOOR, 3, 0.5, "confident", None, "unchecked"),
        (FLOOR, 3, None, "confident", None, "unchecked"),
        # No certificates yet: nothing but a proof is enough, and then the big model's word.
        (FLOOR, 3, 0.95, "certified", None, "unchecked"),
        (FLOOR, 3, 0.95, "verified", None, None),
        # Nothing to check it with.
        ({}, 3, None, "confident", "unchecked", "unchecked"),
        ({}, 3, None, "verified", None, None),
        # An unsound pass proves nothing; an incomplete fail is a doubt.
        (DOUBTED, 2, None, "confident", None, "unchecked"),
        (DOUBTED | FLOOR, 2, 0.95, "confident", "confident", "confident"),
        (DOUBTED | FLOOR, 3, 0.95, "confident", None, "unchecked"),
    ],
)
async def test_what_is_accepted_by_what(
    declared: dict[str, Any], value: int, confidence: float, accept: Any, alone: str | None, with_big: str | None
) -> None:
    outcome, _ = await outcome_of(guesser(value, confidence, **declared), False, accept)
    assert outcome.accepted_by == alone
    if alone is None:
        assert outcome.value is None
        assert outcome.reason
    outcome, _ = await outcome_of(guesser(value, confidence, **declared), says('{"answer": 4}'), accept)
    assert outcome.accepted_by == with_big
    if alone is None and with_big is not None:
        assert outcome.answered_by == "big_model"
        assert outcome.value == 4


class TestBigModel:
    async def test_is_asked_the_same_typed_question(self) -> None:
        big = says('{"answer": 4}')
        await outcome_of(guesser(3, **PROVED), big)
        (request,) = big.requests
        asked = json.loads(request.messages[-1]["content"])
        assert asked["task"] == "Guess a number."
        assert asked["arguments"] == {"text": "x"}
        assert request.output_schema is not None
        assert request.output_schema["properties"]["answer"] == {"type": "integer"}
        assert request.output_name == "guess"
        assert request.tools == ()

    async def test_a_nested_answer_has_its_definitions_where_they_resolve(self) -> None:
        class Leaf(BaseModel):
            size: int

        class Tree(BaseModel):
            leaves: list[Leaf]

        @specialist(name="guess", verify=lambda arguments, value: len(value) == 1, sound=True)
        async def guess(text: str) -> list[Tree]:
            """Guess."""
            return []

        big = says('{"answer": [{"leaves": [{"size": 1}]}]}')
        outcome, _ = await outcome_of(guess, big)
        assert outcome.value == [Tree(leaves=[Leaf(size=1)])]
        schema = big.requests[0].output_schema
        assert schema is not None
        assert set(schema["$defs"]) == {"Leaf", "Tree"}

    async def test_its_answer_is_verified_too(self) -> None:
        outcome, result = await outcome_of(guesser(3, **PROVED), says('{"answer": 5}', '{"answer": 7}'))
        assert not outcome.accepted
        assert outcome.value is None
        assert outcome.reason is not None
        assert outcome.reason.count("it is odd") == 3
        assert json.loads(result.messages[2]["content"]) == {"abstained": outcome.reason}

    @pytest.mark.parametrize(
        "text",
        [
            "I would rather not.",
            '{"answer": "4"}',
            '{"answer": NaN}',
            '{"answer": 4.5}',
            "",
            '{"answer": 4, "more": 1}',
        ],
    )
    async def test_what_is_not_the_type_is_no_answer(self, text: str) -> None:
        outcome, _ = await outcome_of(guesser(3, **PROVED), says(text, text))
        assert [attempt.outcome for attempt in outcome.attempts] == ["answered", "invalid", "invalid"]
        assert not outcome.accepted
        assert "big" in str(outcome.reason)

    async def test_is_asked_once_more_with_what_the_check_had_against_its_answer(self) -> None:
        big = says('{"answer": 5}', '{"answer": 4}')
        outcome, _ = await outcome_of(guesser(3, **PROVED), big)
        assert (outcome.value, outcome.answered_by, outcome.accepted_by) == (4, "big_model_again", "verified")
        first, again = big.requests
        assert again.messages[:2] == first.messages
        assert again.messages[2] == {"role": "assistant", "content": "5"}
        assert "it is odd" in again.messages[3]["content"]

    async def test_each_of_its_rungs_has_the_requests_that_were_its_own(self) -> None:
        big = SimulatedModel(solve=lambda _: 5, price=Price("1", "1"), name="big")
        outcome, result = await outcome_of(guesser(3, **PROVED), big)
        assert [len(attempt.wire_attempts) for attempt in outcome.attempts] == [0, 1, 1]
        assert outcome.attempts[1].wire_attempts + outcome.attempts[2].wire_attempts == result.wire_attempts

    async def test_fences_are_taken_off(self) -> None:
        outcome, _ = await outcome_of(guesser(3, **PROVED), says('```json\n{"answer": 4}\n```'))
        assert outcome.value == 4

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (ModelTimeout("too slow"), "timeout"),
            (ModelError("broken"), "error"),
            (EndpointRefused("it redirects"), "error"),
            (ZeroDivisionError("of its own"), "error"),
            (asyncio.CancelledError(), "error"),
        ],
        ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else each,
    )
    async def test_its_failure_is_the_end_of_its_rung_only(self, error: BaseException, kind: str) -> None:
        outcome, result = await outcome_of(guesser(3, **PROVED), says(error))
        assert not outcome.accepted
        assert outcome.attempts[0].outcome == "answered"
        if not isinstance(error, asyncio.CancelledError):
            assert outcome.attempts[-1].outcome == kind
        assert result.output == "done"

    async def test_its_requests_stand_in_its_attempt(self) -> None:
        big = SimulatedModel(solve=lambda _: 4, price=Price("1", "1"), name="big")
        outcome, result = await outcome_of(guesser(3, **PROVED), big)
        assert outcome.value == 4
        assert outcome.attempts[-1].wire_attempts == result.wire_attempts
        assert outcome.attempts[-1].cost == result.wire_attempts[0].cost

    async def test_is_the_brains_own_model_unless_told_otherwise(self) -> None:
        given = guesser(3, **PROVED)
        own = ScriptedModel([call("guess", text="x"), '{"answer": 4}', "done"])
        result = await Brain(own, specialists=[given]).run("go")
        assert result.calls[0].answered_by == "big_model"
        assert len(result.turns) == 2  # the typed question is no turn
        none = ScriptedModel([call("guess", text="x"), "done"])
        result = await Brain(none, specialists=[given], fallback=False).run("go")
        assert [rung.name for rung in result.calls[0].policy.rungs] == ["specialist"]

    async def test_of_a_planner_is_only_the_one_named(self) -> None:
        given = guesser(3, **PROVED)
        big = says('{"answer": 4}')
        result = await Brain(specialists=[given], fallback=big).run("guess a number for the text 'x'")
        assert result.calls[0].answered_by == "big_model"
        assert result.calls[0].accepted_by == "verified"
        assert len(big.requests) == 1

    async def test_an_answer_cut_short_is_not_read(self) -> None:
        cut = reply('{"answer": 4', finish_reason="length")
        outcome, _ = await outcome_of(guesser(3, **PROVED), says(cut, cut))
        assert [attempt.outcome for attempt in outcome.attempts[1:]] == ["invalid", "invalid"]


async def test_the_next_specialist_comes_before_the_big_model() -> None:
    @specialist(min_confidence=0.5)
    async def second(text: str) -> Answer[int]:
        """Guess."""
        return Answer(8, 0.9)

    big = says('{"answer": 4}')
    outcome, _ = await outcome_of(guesser(3, 0.1, min_confidence=0.5, next=second), big)
    assert (outcome.value, outcome.answered_by) == (8, "next:second")
    assert big.requests == []


async def test_a_specialist_that_cancels_itself_fails_alone() -> None:
    @specialist(name="guess")
    async def guess(text: str) -> int:
        """Guess."""
        raise asyncio.CancelledError

    outcome, result = await outcome_of(guess)
    assert not outcome.accepted
    assert result.output == "done"


async def test_what_a_tool_raised_is_short_and_has_no_line_of_its_code() -> None:
    def loud() -> int:
        """Fail."""
        raise ValueError("x" * 1_000_000)

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def mute() -> int:
        """Fail."""
        raise Mute

    result = await Brain(ScriptedModel([[call("loud"), call("mute")], "done"]), tools=[loud, mute]).run("go")
    reasons = {outcome.tool: str(outcome.reason) for outcome in result.calls}
    assert len(reasons["loud"]) < 2100
    assert reasons["mute"] == "mute: Mute: its message cannot be read"


async def test_a_value_json_has_no_word_for_is_still_told_to_the_model() -> None:
    @tool
    def odd() -> Any:
        """Odd."""
        return {"nan": float("nan"), "bytes": b"\xff", "half": "a\ud800b"}

    result = await Brain(ScriptedModel([call("odd"), "done"]), tools=[odd]).run("go")
    text = result.messages[2]["content"]
    text.encode()
    assert json.loads(text)["value"] == {"nan": "NaN", "bytes": "_w==", "half": "a?b"}


async def test_a_big_model_that_is_stopped_is_not_taken_for_the_specialists_thread() -> None:
    asked = asyncio.Event()

    @specialist(min_confidence=0.9)
    def guess(text: str) -> Answer[int]:
        """Guess a number."""
        return Answer(1, 0.1)

    class Slow(ScriptedModel):
        async def ask(self, *_: Any, **__: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

    model = ScriptedModel([call("guess", text="x")])
    task = asyncio.create_task(Brain(model, specialists=[guess], fallback=Slow()).run("go"))
    await asyncio.wait_for(asked.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    (outcome,) = caught.value.result.calls  # type: ignore[attr-defined]
    assert outcome.attempts[-1].rung == "big_model"
    assert outcome.reason == "guess: cancelled"  # its own thread ended long ago
