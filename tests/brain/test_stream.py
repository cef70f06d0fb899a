"""A run as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from brain import (
    AttemptMade,
    Brain,
    Done,
    ModelTimeout,
    OpenAIModel,
    Price,
    RunEvent,
    RunResult,
    RunTimeout,
    TextDelta,
    ToolAnswered,
    ToolCalled,
    TurnLimit,
)
from brain.testing import FakeEndpoint, ScriptedModel, SimulatedModel, call
from specialists import Answer, specialist

GUARD = 20.0


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@specialist(min_confidence=0.9)
async def unsure(text: str) -> Answer[str]:
    """Guess."""
    return Answer(text, 0.1)


async def collect(stream: Any) -> list[RunEvent]:
    return [event async for event in stream]


async def test_events_in_order() -> None:
    asked = call("unsure", text="x")
    big = ScriptedModel(['{"answer": "y"}'], name="big")
    brain = Brain(ScriptedModel([asked, "all done"]), specialists=[unsure], fallback=big)
    events = await collect(brain.run_stream("go"))
    assert [type(event) for event in events] == [
        ToolCalled,
        AttemptMade,
        AttemptMade,
        ToolAnswered,
        TextDelta,
        TextDelta,
        Done,
    ]
    called, first, second, answered = events[:4]
    assert isinstance(called, ToolCalled)
    assert isinstance(first, AttemptMade)
    assert isinstance(second, AttemptMade)
    assert isinstance(answered, ToolAnswered)
    assert {called.id, first.id, second.id, answered.id} == {asked.id}
    assert [first.attempt.rung, second.attempt.rung] == ["specialist", "big_model"]
    assert answered.outcome.value == "y"
    done = events[-1]
    assert isinstance(done, Done)
    assert done.result.output == "all done"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "all done"
    assert done.result.calls == (answered.outcome,)


async def test_is_the_same_run() -> None:
    def steps() -> ScriptedModel:
        return ScriptedModel([call("add", a=1, b=2), "three"])

    plain = await Brain(steps(), tools=[add]).run("go", run_id="r", tenant="t")
    done = (await collect(Brain(steps(), tools=[add]).run_stream("go", run_id="r", tenant="t")))[-1]
    assert isinstance(done, Done)
    assert done.result.output == plain.output
    assert done.result.tenant == plain.tenant
    assert [outcome.value for outcome in done.result.calls] == [outcome.value for outcome in plain.calls]
    assert len(done.result.messages) == len(plain.messages)


async def test_of_the_planner() -> None:
    events = await collect(Brain(tools=[add]).run_stream("add 3 and 4"))
    assert [type(event) for event in events] == [ToolCalled, AttemptMade, ToolAnswered, TextDelta, Done]


async def test_a_real_endpoint_streams() -> None:
    with FakeEndpoint([call("add", a=1, b=2), "one two three"]) as endpoint:
        async with Brain(OpenAIModel("m", base_url=endpoint.base_url, price=Price("1", "1")), tools=[add]) as brain:
            events = await collect(brain.run_stream("go"))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one two three"
    assert all(row.streamed for row in endpoint.meter)
    done = events[-1]
    assert isinstance(done, Done)
    assert len(done.result.wire_attempts) == len(endpoint.meter) == 2


async def test_an_error_reaches_the_consumer_after_the_events_and_with_the_result() -> None:
    seen: list[RunEvent] = []

    async def consume(stream: Any) -> None:
        async for event in stream:
            seen.append(event)

    brain = Brain(ScriptedModel([call("add", a=1, b=2), ModelTimeout("too slow")]), tools=[add])
    with pytest.raises(ModelTimeout) as caught:
        await consume(brain.run_stream("go"))
    assert [type(event) for event in seen] == [ToolCalled, AttemptMade, ToolAnswered]
    result = caught.value.result
    assert isinstance(result, RunResult)
    assert result.calls[0].value == 3


async def test_a_timeout_too() -> None:
    model = SimulatedModel(solve=lambda _: "late", latency=GUARD, price=Price("1", "1"))
    with pytest.raises(RunTimeout) as caught:
        await collect(Brain(model).run_stream("go", timeout=0.05))
    assert caught.value.result is not None
    assert len(caught.value.result.wire_attempts) == 1


class Waiting:
    """A tool that tells when it begins and when it is stopped."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    async def wait(self) -> int:
        """Never end."""
        self.begun.set()
        try:
            await asyncio.sleep(GUARD)
        finally:
            self.stopped.set()
        return 1


async def test_leaving_the_loop_cancels_the_run() -> None:
    tool = Waiting()
    before = asyncio.all_tasks()
    async with contextlib.aclosing(Brain(ScriptedModel([call("wait")]), tools=[tool.wait]).run_stream("go")) as events:
        async for event in events:
            assert isinstance(event, ToolCalled)
            await tool.begun.wait()
            break
    assert tool.stopped.is_set()
    assert asyncio.all_tasks() == before


async def test_leaving_it_without_closing_does_too() -> None:
    tool = Waiting()
    brain = Brain(ScriptedModel([call("wait")]), tools=[tool.wait])
    async for _ in brain.run_stream("go"):
        await tool.begun.wait()
        break
    gc.collect()
    await asyncio.wait_for(tool.stopped.wait(), GUARD)


async def test_cancelling_the_consumer_cancels_the_run() -> None:
    tool = Waiting()
    before = asyncio.all_tasks()
    brain = Brain(ScriptedModel([call("wait")]), tools=[tool.wait])
    task = asyncio.create_task(collect(brain.run_stream("go")))
    await tool.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tool.stopped.is_set()
    assert asyncio.all_tasks() == before


async def test_leaving_before_an_error_is_seen_says_nothing_about_it(caplog: pytest.LogCaptureFixture) -> None:
    brain = Brain(ScriptedModel([call("add", a=1, b=2)]), tools=[add], turn_limit=1)
    stream = brain.run_stream("go")
    await anext(aiter(stream))
    for _ in range(20):
        await asyncio.sleep(0)  # the run ends with TurnLimit, and nobody looks
    await stream.aclose()  # type: ignore[attr-defined]
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    with pytest.raises(TurnLimit):
        await collect(Brain(ScriptedModel([call("add", a=1, b=2)]), tools=[add], turn_limit=1).run_stream("go"))


async def test_one_that_is_never_begun_runs_nothing() -> None:
    model = ScriptedModel(["x"])
    stream = Brain(model).run_stream("go")
    await stream.aclose()  # type: ignore[attr-defined]
    assert model.requests == []
