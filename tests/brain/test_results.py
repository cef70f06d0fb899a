"""What a run gives back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from brain import Brain, BrainError, RunResult, TurnLimit
from brain.testing import ScriptedModel, call


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def result_of(*steps: Any) -> RunResult[str]:
    return await Brain(ScriptedModel(steps), tools=[add]).run("one and two?")


async def test_has_everything() -> None:
    result = await result_of([call("add", a=1, b=2), call("add", a=3, b=4)], "three")
    assert result.output == "three"
    assert sorted(outcome.value for outcome in result.calls) == [3, 7]  # in the order they ended
    assert [len(turn.tool_calls) for turn in result.turns] == [2, 0]
    assert result.wire_attempts == ()
    assert result.new_messages() == list(result.messages)
    assert result.repairs == 0
    assert result.usage.seconds > 0
    json.dumps([outcome.to_json() for outcome in result.calls])
    json.dumps(result.usage.to_json())


async def test_cannot_be_changed() -> None:
    result = await result_of("three")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.output = "four"  # type: ignore[misc]
    result.new_messages().clear()
    assert len(result.new_messages()) == 2


async def test_its_repr_is_short_and_tells_no_tale() -> None:
    result = await result_of(call("add", a=123456, b=2), "x" * 10_000)
    assert len(repr(result)) < 250
    assert "1 calls, 2 turns, 0 wire attempts" in repr(result)
    assert "123456" not in repr(result)
    assert "one and two" not in repr(result)


async def test_errors_carry_it_as_far_as_it_got() -> None:
    with pytest.raises(TurnLimit) as caught:
        await Brain(ScriptedModel([call("add", a=1, b=2)]), tools=[add], turn_limit=1).run("go")
    result = caught.value.result
    assert isinstance(caught.value, BrainError)
    assert result is not None
    assert result.output is None
    assert [outcome.value for outcome in result.calls] == [3]
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool"]
