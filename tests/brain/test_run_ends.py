"""How a run ends early: its one deadline, and a cancellation at every await."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Brain,
    ModelRequest,
    ModelResponse,
    Outcome,
    Price,
    RunContext,
    RunTimeout,
    WireAttempt,
    tool,
)
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Answer, specialist
from tests.running import GUARD, add, carried, contents


class TestDeadline:
    async def test_in_an_async_tool(self) -> None:
        ended = []

        async def slow() -> int:
            """Never end."""
            try:
                await asyncio.sleep(GUARD)
            finally:
                ended.append(True)
            return 1

        model = ScriptedModel([[call("add", a=1, b=1), call("slow")], "never"])
        with pytest.raises(RunTimeout, match=r"0\.1 s") as caught:
            await Brain(model, tools=[add, slow]).run("go", timeout=0.1)
        result = carried(caught.value)
        assert ended == [True]
        assert {outcome.tool: outcome.attempts[0].outcome for outcome in result.calls} == {
            "add": "answered",
            "slow": "cancelled",
        }
        assert len(result.turns) == 1
        # What was known stands in the history; only the stopped call is open.
        (content,) = contents(result)
        assert content.items() >= {"value": 2, "accepted_by": "unchecked"}.items()

    async def test_in_a_sync_tool_the_run_ends_and_the_thread_goes_on(self) -> None:
        release = threading.Event()

        def slow() -> int:
            """Block."""
            release.wait(GUARD)
            return 1

        try:
            with pytest.raises(RunTimeout) as caught:
                await Brain(ScriptedModel([call("slow")]), tools=[slow]).run("go", timeout=0.1)
            assert not release.is_set()
        finally:
            release.set()
        (outcome,) = carried(caught.value).calls
        assert outcome.reason is not None
        assert "its thread runs on" in outcome.reason

    async def test_in_a_specialist(self) -> None:
        @specialist
        async def slow(text: str) -> str:
            """Never end."""
            await asyncio.sleep(GUARD)
            return text

        brain = Brain(ScriptedModel([call("slow", text="x")]), specialists=[slow], fallback=False)
        with pytest.raises(RunTimeout) as caught:
            await brain.run("go", timeout=0.1)
        (outcome,) = carried(caught.value).calls
        assert outcome.tool == "slow"
        assert outcome.attempts[-1].outcome in ("cancelled", "timeout")

    async def test_in_a_sync_specialist_the_result_says_that_its_thread_goes_on(self) -> None:
        release = threading.Event()

        @specialist
        def slow(text: str) -> str:
            """Block."""
            release.wait(GUARD)
            return text

        task = asyncio.create_task(
            Brain(ScriptedModel([call("slow", text="x")]), specialists=[slow], fallback=False).run("go")
        )
        try:
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        finally:
            release.set()
        (outcome,) = carried(caught.value).calls
        assert outcome.reason is not None
        assert "its thread runs on" in outcome.reason

    async def test_in_the_model_call(self) -> None:
        model = SimulatedModel(solve=lambda _: "late", latency=GUARD, price=Price("1", "1"))
        with pytest.raises(RunTimeout) as caught:
            await Brain(model).run("go", timeout=0.1)
        result = carried(caught.value)
        assert len(result.wire_attempts) == 1
        assert result.turns[0].wire_attempts == result.wire_attempts
        assert result.messages[-1] == {"role": "user", "content": "go"}

    async def test_in_the_rung_of_the_big_model(self) -> None:
        @specialist(min_confidence=0.9)
        async def unsure(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.1)

        big = SimulatedModel(solve=lambda _: "late", latency=GUARD, name="big")
        brain = Brain(ScriptedModel([call("unsure", text="x")]), specialists=[unsure], fallback=big)
        with pytest.raises(RunTimeout) as caught:
            await brain.run("go", timeout=0.2)
        result = carried(caught.value)
        assert [wire.model for wire in result.wire_attempts] == ["big"]
        (outcome,) = result.calls
        assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "big_model"]
        assert outcome.attempts[-1].wire_attempts == result.wire_attempts

    async def test_the_planner_too_says_timeout_and_not_that_a_tool_failed(self) -> None:
        @specialist
        async def add_slowly(a: int, b: int) -> int:
            """Add two numbers."""
            await asyncio.sleep(GUARD)
            return a + b

        for _ in range(5):
            with pytest.raises(RunTimeout):
                await Brain(specialists=[add_slowly]).run("add slowly 1 and 2", timeout=0.02)

    async def test_a_tools_own_limit_is_the_end_of_the_tool_only(self) -> None:
        @tool(timeout=0.05)
        async def slow() -> int:
            """Never end."""
            await asyncio.sleep(GUARD)
            return 1

        @tool
        async def gives_up() -> int:
            """Give up."""
            raise TimeoutError("its own")

        model = ScriptedModel([[call("slow"), call("gives_up")], "done"])
        result = await Brain(model, tools=[slow, gives_up]).run("go", timeout=GUARD)
        assert {o.tool: o.attempts[0].outcome for o in result.calls} == {"slow": "timeout", "gives_up": "error"}
        assert contents(result)[0] == {"error": "slow: no answer within 0.05 s"}

    async def test_tools_are_told_the_deadline(self) -> None:
        seen: list[float | None] = []

        def look(ctx: RunContext[None]) -> int:
            """Look."""
            seen.append(ctx.deadline)
            return 1

        brain = Brain(ScriptedModel([call("look"), "a", call("look"), "b"]), tools=[look])
        await brain.run("go")
        before = time.monotonic()
        await brain.run("go", timeout=GUARD)
        assert seen[0] is None
        assert seen[1] is not None
        assert before < seen[1] <= time.monotonic() + GUARD


class Counting(SimulatedModel):
    """Keeps the wire attempts it made, for comparison."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.sent: list[WireAttempt] = []

    async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
        def both(attempt: WireAttempt) -> None:
            self.sent.append(attempt)
            on_attempt(attempt)

        return await super().ask(request, on_attempt=both, on_text=on_text)


class TestCancellation:
    async def test_from_outside_comes_out_as_it_went_in_and_carries_the_result(self) -> None:
        begun = asyncio.Event()

        async def slow() -> int:
            """Never end."""
            begun.set()
            await asyncio.sleep(GUARD)
            return 1

        task = asyncio.create_task(Brain(ScriptedModel([call("slow")]), tools=[slow]).run("go"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert task.cancelled()
        assert carried(caught.value).calls[0].attempts[0].outcome == "cancelled"

    async def test_a_callers_own_timeout_stays_the_callers(self) -> None:
        async def slow() -> int:
            """Never end."""
            await asyncio.sleep(GUARD)
            return 1

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Brain(ScriptedModel([call("slow")]), tools=[slow]).run("go", timeout=GUARD)

    async def test_at_the_nth_step_leaves_nothing_behind(self, tmp_path: Path) -> None:
        @specialist(min_confidence=0.9)
        async def unsure(text: str) -> Answer[str]:
            """Guess."""
            await asyncio.sleep(0)
            return Answer(text, 0.1)

        async def twice(a: int) -> int:
            """Double."""
            await asyncio.sleep(0)
            return 2 * a

        ended = set()
        for step in range(60):
            big = Counting(solve=lambda _: "x", price=Price("1", "1"))
            asked = [call("unsure", text="x"), call("twice", a=1)]
            brain = Brain(
                ScriptedModel([asked, "done"]),
                tools=[twice],
                specialists=[unsure],
                fallback=big,
                log=tmp_path / f"{step}.jsonl",
            )
            before = asyncio.all_tasks()
            task = asyncio.create_task(brain.run("go"))
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            try:
                result = await task
                ended.add("whole")
            except asyncio.CancelledError as error:
                if not hasattr(error, "result"):  # cancelled before its first step
                    assert step < 2
                    continue
                result = carried(error)
                ended.add("cut")
            assert asyncio.all_tasks() == before
            await brain.aclose()  # waits for the log
            assert list(result.wire_attempts) == big.sent
            assert sum((w.cost.low for w in result.wire_attempts), Decimal(0)) <= result.usage.cost.low
            for outcome in result.calls:
                assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))).tool == outcome.tool
            lines = (tmp_path / f"{step}.jsonl").read_text().splitlines() if result.calls else []
            assert [json.loads(line)["tool"] for line in lines] == [outcome.tool for outcome in result.calls]
        assert "cut" in ended

    async def test_a_hundred_runs_share_a_brain(self) -> None:
        def echo(n: int, ctx_free: bool = True) -> int:
            """Echo."""
            return n

        async def who(ctx: RunContext[int]) -> int:
            """Who am I."""
            await asyncio.sleep(0)
            return ctx.deps

        class Model:
            name = "each"

            async def ask(self, request: ModelRequest, *, on_attempt: Any, on_text: Any = None) -> ModelResponse:
                await asyncio.sleep(0)
                last = request.messages[-1]
                if last["role"] == "user":
                    number = int(last["content"])
                    return ModelResponse(None, (call("echo", n=number), call("who")))
                return ModelResponse(last["content"])

        brain = Brain(Model(), tools=[echo, who])
        results = await asyncio.gather(*(brain.run(str(n), deps=n) for n in range(100)))
        for number, result in enumerate(results):
            assert [content["value"] for content in contents(result)] == [number, number]
            assert {outcome.run_id for outcome in result.calls} == {result.run_id}
        assert len({result.run_id for result in results}) == 100
