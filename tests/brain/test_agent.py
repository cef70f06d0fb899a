"""The loop: concurrency, deadlines, cancellation, structured output, history, and what bad arguments get."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from brain import (
    Abstained,
    Brain,
    BrainError,
    ConfigurationError,
    InvalidOutput,
    ModelRequest,
    ModelResponse,
    ModelTimeout,
    NotBuilt,
    OpenAIModel,
    Outcome,
    Planner,
    Price,
    PromptError,
    RunContext,
    RunResult,
    RunTimeout,
    TokenUsage,
    ToolCall,
    TurnLimit,
    WireAttempt,
    tool,
)
from brain.testing import FakeEndpoint, ScriptedModel, SimulatedModel, call, reply
from specialists import Answer, Verdict, replay, specialist

GUARD = 20.0
"""Seconds that no test here needs; only what hangs reaches it."""


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def contents(result: RunResult[Any]) -> list[dict[str, Any]]:
    return [json.loads(message["content"]) for message in result.messages if message["role"] == "tool"]


def carried(error: BaseException) -> RunResult[Any]:
    result = error.result  # type: ignore[attr-defined]
    assert isinstance(result, RunResult)
    return result


async def test_answers_after_a_tool() -> None:
    with ScriptedModel([call("add", a=1, b=2), "It is 3."]) as model:
        result = await Brain(model, tools=[add]).run("What is 1 + 2?")
    assert result.output == "It is 3."
    assert [outcome.value for outcome in result.calls] == [3]
    assert contents(result) == [{"value": 3, "accepted_by": "unchecked"}]
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert len(result.turns) == 2


async def test_calls_of_a_turn_run_at_the_same_time_and_are_answered_in_the_order_asked() -> None:
    gate = asyncio.Barrier(3)

    async def meet(name: str, turns: int) -> str:
        """Wait for the others."""
        await asyncio.wait_for(gate.wait(), GUARD)
        for _ in range(turns):
            await asyncio.sleep(0)
        return name

    asked = [call("meet", name="a", turns=9), call("meet", name="b", turns=5), call("meet", name="c", turns=0)]
    result = await Brain(ScriptedModel([asked, "done"]), tools=[meet]).run("go")
    assert [content["value"] for content in contents(result)] == ["a", "b", "c"]
    assert [outcome.value for outcome in result.calls] == ["a", "b", "c"]


async def test_sync_tools_run_at_the_same_time() -> None:
    gate = threading.Barrier(3)

    def meet(name: str) -> str:
        """Wait for the others."""
        gate.wait(GUARD)
        return name

    asked = [call("meet", name=name) for name in "abc"]
    result = await Brain(ScriptedModel([asked, "done"]), tools=[meet]).run("go")
    assert [content["value"] for content in contents(result)] == ["a", "b", "c"]


async def test_one_failing_tool_does_not_take_the_others_with_it() -> None:
    def broken(a: int) -> int:
        """Fail."""
        raise LookupError("no such row")

    asked = [call("add", a=1, b=1), call("broken", a=1), call("add", a=2, b=2)]
    result = await Brain(ScriptedModel([asked, "done"]), tools=[add, broken]).run("go")
    values = contents(result)
    assert [content.get("value") for content in values] == [2, None, 4]
    assert values[1] == {"error": "broken: LookupError: no such row"}


@pytest.mark.parametrize(
    "error",
    [StopIteration("x"), asyncio.CancelledError(), RuntimeError("x"), SystemExit(3)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_whatever_a_tool_raises_is_its_own_failure(error: BaseException, kind: str) -> None:
    if kind == "async" and isinstance(error, SystemExit):
        pytest.skip("ends the process, as it does in any coroutine")

    def sync_tool() -> int:
        """Raise."""
        raise error

    async def async_tool() -> int:
        """Raise."""
        raise error

    function: Callable[..., Any] = sync_tool if kind == "sync" else async_tool
    model = ScriptedModel([[call(function.__name__), call("add", a=1, b=1)], "done"])
    result = await Brain(model, tools=[function, add]).run("go")
    assert result.output == "done"
    failed = next(outcome for outcome in result.calls if outcome.tool != "add")
    assert failed.attempts[0].outcome == "error"
    assert not failed.accepted


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
        assert contents(result) == [{"value": 2, "accepted_by": "unchecked"}]

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


class TestSyncForm:
    def test_runs(self) -> None:
        assert Brain(ScriptedModel(["hello"])).run_sync("hi").output == "hello"

    def test_errors_carry_the_result(self) -> None:
        with pytest.raises(PromptError) as caught:
            Brain(ScriptedModel([])).run_sync(" ")
        assert carried(caught.value).messages == ()

    async def test_on_a_running_loop_it_says_what_to_do(self) -> None:
        with pytest.raises(RuntimeError, match="await the async form"):
            Brain(ScriptedModel([])).run_sync("hi")

    def test_from_threads_at_once(self) -> None:
        brain = Brain(tools=[add])
        outputs: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: outputs.append(brain.run_sync(f"add {n} and 1").output))
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        assert len(outputs) == 10

    async def test_inside_a_sync_tool(self) -> None:
        inner = Brain(tools=[add])

        def nested(a: int) -> str:
            """Ask another brain."""
            return inner.run_sync(f"add {a} and 1").output

        result = await Brain(ScriptedModel([call("nested", a=4), "done"]), tools=[nested]).run("go")
        assert "5" in contents(result)[0]["value"]


class Point(BaseModel):
    x: int
    y: int = 0


class Shape(BaseModel):
    """Has definitions of its own in its schema."""

    name: Literal["line", "dot"]
    points: list[Point]
    inner: Shape | None = None


@dataclass
class Pair:
    left: int
    right: str


class TestStructuredOutput:
    @pytest.mark.parametrize(
        ("output_type", "text", "expected"),
        [
            (Point, '{"x": 1, "y": 2}', Point(x=1, y=2)),
            (Point, '```json\n{"x": 1}\n```', Point(x=1)),
            (Point, '```\n{"x": 1}\n```', Point(x=1)),
            (int, '{"answer": 3}', 3),
            (float, '{"answer": 3}', 3.0),
            (bool, '{"answer": true}', True),
            (list[int], '{"answer": [1, 2]}', [1, 2]),
            (dict[str, int], '{"answer": {"a": 1}}', {"a": 1}),
            (Literal["yes", "no"], '{"answer": "yes"}', "yes"),
            (Pair, '{"left": 1, "right": "r"}', Pair(1, "r")),
            (int | str, '{"answer": "s"}', "s"),
            (Point | None, '{"answer": null}', None),
            (list[Point], '{"answer": [{"x": 1}]}', [Point(x=1)]),
            (
                Shape,
                '{"answer": {"name": "dot", "points": [{"x": 1}], "inner": null}}',
                Shape(name="dot", points=[Point(x=1)]),
            ),
        ],
        ids=str,
    )
    async def test_from_a_models_json(self, output_type: Any, text: str, expected: Any) -> None:
        model = ScriptedModel([text])
        result = await Brain(model, output_type=output_type).run("go")
        assert result.output == expected
        assert type(result.output) is type(expected)
        schema = model.requests[0].output_schema
        assert schema is not None
        assert schema["type"] == "object"

    @pytest.mark.parametrize(
        "bad",
        [
            "I would rather not.",
            '{"x": "1"}',
            '{"x": 1, "x": 2}',
            '{"x": NaN}',
            '{"x": 1.5}',
            '{"x": true}',
            "[]",
            "{}",
            "",
            '{"x": 1e999}',
            '{"x": "\\ud800"}',
            "[" * 100_000,
        ],
    )
    async def test_one_repair_round_then_the_end(self, bad: str) -> None:
        model = ScriptedModel([bad, '{"x": 1}'])
        result = await Brain(model, output_type=Point).run("go")
        assert result.output == Point(x=1)
        assert result.repairs == 1
        with pytest.raises(InvalidOutput) as caught:
            await Brain(ScriptedModel([bad, bad, '{"x": 1}']), output_type=Point).run("go")
        assert carried(caught.value).repairs == 1
        assert len(carried(caught.value).turns) == 2

    async def test_the_planner_hands_over_a_typed_value(self) -> None:
        def make_point(x: int, y: int) -> Point:
            """Make a point of two coordinates."""
            return Point(x=x, y=y)

        result = await Brain(tools=[make_point], output_type=Point).run("make a point with x 3 and y 4")
        assert result.output == Point(x=3, y=4)
        assert result.output is result.calls[0].value or isinstance(result.output, Point)

    async def test_the_planners_value_of_another_type_is_an_error(self) -> None:
        with pytest.raises(InvalidOutput, match="output_type") as caught:
            await Brain(tools=[add], output_type=Point).run("add 3 and 4")
        assert carried(caught.value).calls[0].value == 7

    async def test_an_answer_that_was_cut_off_is_not_passed_off_as_whole(self) -> None:
        with pytest.raises(InvalidOutput, match="max_output_tokens") as caught:
            await Brain(ScriptedModel([reply("Once upon", finish_reason="length")])).run("go")
        assert carried(caught.value).messages[-1]["content"] == "Once upon"

    def test_a_type_without_a_schema_is_refused_at_once(self) -> None:
        for impossible in (Callable[[int], int], threading.Lock, object()):
            with pytest.raises(ConfigurationError, match="output_type"):
                Brain(output_type=impossible)


class TestHistory:
    async def test_goes_through_json_and_on(self) -> None:
        first = await Brain(ScriptedModel([call("add", a=1, b=2), "three"]), tools=[add]).run("one and two?")
        stored = json.loads(json.dumps(list(first.messages)))
        model = ScriptedModel(["six"])
        second = await Brain(model, tools=[add]).run("twice that?", history=stored)
        assert list(model.requests[0].messages) == [*stored, {"role": "user", "content": "twice that?"}]
        assert second.new_messages() == [
            {"role": "user", "content": "twice that?"},
            {"role": "assistant", "content": "six"},
        ]
        assert len(stored) == 4  # what was handed in is not changed

    async def test_of_a_planner(self) -> None:
        brain = Brain(tools=[add])
        first = await brain.run("add 1 and 2")
        second = await brain.run("add 3 and 4", history=json.loads(json.dumps(first.messages)))
        assert second.calls[0].value == 7

    async def test_of_a_run_that_was_stopped_can_be_gone_on_with(self) -> None:
        async def slow() -> int:
            """Never end."""
            await asyncio.sleep(GUARD)
            return 1

        brain = Brain(ScriptedModel([[call("slow"), call("add", a=1, b=1)], "fine"]), tools=[add, slow])
        with pytest.raises(RunTimeout) as caught:
            await brain.run("go", timeout=0.1)
        result = await brain.run(history=carried(caught.value).messages)
        assert result.output == "fine"
        assert contents(result)[0] == {"value": 2, "accepted_by": "unchecked"}
        assert "may or may not" in contents(result)[1]["error"]

    @pytest.mark.parametrize(
        "history",
        [
            "hello",
            [1],
            [{"content": "x"}],
            [{"role": "wizard", "content": "x"}],
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}],
            [{"role": "assistant", "content": None, "tool_calls": [7]}],
            [{"role": "assistant", "content": None, "tool_calls": 7}],
        ],
    )
    async def test_that_is_none_is_refused(self, history: Any) -> None:
        with pytest.raises(ConfigurationError, match="history") as caught:
            await Brain(ScriptedModel([])).run("go", history=history)
        carried(caught.value)

    async def test_nothing_to_resume(self) -> None:
        brain = Brain(ScriptedModel(["hello"]))
        result = await brain.run("hi")
        with pytest.raises(PromptError, match="nothing to resume"):
            await brain.run(history=result.messages)

    async def test_instructions_go_first_and_are_not_kept(self) -> None:
        model = ScriptedModel(["hello"])
        result = await Brain(model, instructions="Be brief.").run("hi")
        assert model.requests[0].messages[0] == {"role": "system", "content": "Be brief."}
        assert [message["role"] for message in result.messages] == ["user", "assistant"]

    async def test_a_long_one_costs_no_more_than_its_length(self) -> None:
        history = [{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "y" * 100}] * 20_000
        model = ScriptedModel([call("add", a=1, b=1), call("add", a=1, b=2), "done"])
        result = await asyncio.wait_for(Brain(model, tools=[add]).run("go", history=history), GUARD)
        assert len(result.messages) == 40_006
        assert result.messages[0] is history[0]  # shared, not copied


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"prompt": ""}, PromptError),
            ({"prompt": " \n"}, PromptError),
            ({"prompt": None}, PromptError),
            ({"prompt": b"bytes"}, PromptError),
            ({"prompt": "half \ud800"}, PromptError),
            ({"prompt": "x", "session": "s"}, NotBuilt),
            ({"prompt": "x", "budget": Decimal(1)}, NotBuilt),
            ({"prompt": "x", "timeout": 0}, ConfigurationError),
            ({"prompt": "x", "timeout": -1}, ConfigurationError),
            ({"prompt": "x", "timeout": float("nan")}, ConfigurationError),
            ({"prompt": "x", "timeout": "5"}, ConfigurationError),
            ({"prompt": "x", "run_id": 5}, ConfigurationError),
            ({"prompt": "x", "tenant": 5}, ConfigurationError),
            ({"prompt": "x", "approvals": {"a": True}}, ConfigurationError),
            ({"prompt": "x", "approvals": ["a"]}, ConfigurationError),
        ],
        ids=str,
    )
    async def test_of_run_that_cannot_be(self, given: dict[str, Any], error: type[BrainError]) -> None:
        model = ScriptedModel([])
        with pytest.raises(error) as caught:
            await Brain(model).run(**given)
        assert carried(caught.value).turns == ()
        with pytest.raises(error) as caught:
            async for _ in Brain(model).run_stream(**given):
                pass
        carried(caught.value)

    @pytest.mark.parametrize(
        "given",
        [
            {"accept": "maybe"},
            {"turn_limit": 0},
            {"turn_limit": "5"},
            {"instructions": 5},
            {"repeat_limit": 0},
            {"cost_limit": 0.1},
            {"cost_limit": "0.1"},
            {"cost_limit": Decimal("NaN")},
            {"cost_limit": Decimal(-1)},
            {"cpu_rate": 0.1},
            {"tools": add},
            {"tools": "add"},
            {"tools": [5]},
            {"tools": [add, add]},
            {"specialists": "sudoku"},
            {"specialists": ["nobody-knows-it"]},
            {"specialists": [add]},
            {"model": 5},
            {"model": "gpt-4.1-mini"},
            {"fallback": Planner()},
            {"fallback": True},
        ],
        ids=str,
    )
    def test_of_the_brain_that_cannot_be(self, given: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Brain(**given)
        assert "\n" not in str(caught.value)

    def test_a_specialist_is_no_plain_tool(self) -> None:
        @specialist
        def echo(text: str) -> str:
            """Echo."""
            return text

        with pytest.raises(ConfigurationError, match="specialists="):
            Brain(tools=[echo])
        with pytest.raises(ConfigurationError, match="two tools are called 'echo'"):
            Brain(specialists=[echo, echo])

    async def test_each_has_its_effect(self) -> None:
        seen: list[RunContext[Any]] = []

        def look(ctx: RunContext[Any]) -> int:
            """Look."""
            seen.append(ctx)
            return 1

        result = await Brain(ScriptedModel([call("look"), "done"]), tools=[look]).run(
            "go", deps={"db": 1}, tenant="acme", run_id="run-7", timeout=GUARD
        )
        assert (seen[0].deps, seen[0].tenant, seen[0].run_id) == ({"db": 1}, "acme", "run-7")
        assert (result.run_id, result.tenant) == ("run-7", "acme")
        assert result.calls[0].run_id == "run-7"
        assert result.calls[0].call_id == seen[0].call_id

    def test_a_brain_cannot_be_changed(self) -> None:
        brain = Brain(tools=[add])
        for name in ("_model", "model", "_turn_limit", "anything"):
            with pytest.raises(AttributeError, match="immutable"):
                setattr(brain, name, 1)
        with pytest.raises(AttributeError, match="immutable"):
            del brain._model
        assert repr(brain) == "<Brain planner, tools: add>"

    async def test_the_key_in_the_environment_alone_spends_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-never-used-0000000000")
        result = await Brain(tools=[add]).run("add 1 and 2")
        assert result.turns[0].model == "planner"
        assert result.wire_attempts == ()

    async def test_closing(self) -> None:
        closed: list[str] = []

        class Closing(ScriptedModel):
            async def aclose(self) -> None:
                closed.append(self.name)

        async with Brain(Closing(["hi"], name="one"), fallback=Closing(name="two")) as brain:
            await brain.run("hello")
        assert closed == ["one", "two"]


class TestErrors:
    async def test_a_models_typed_error_ends_the_run_with_the_turn_in_the_result(self) -> None:
        model = ScriptedModel([call("add", a=1, b=1), ModelTimeout("too slow")])
        with pytest.raises(ModelTimeout) as caught:
            await Brain(model, tools=[add]).run("go")
        result = carried(caught.value)
        assert [outcome.value for outcome in result.calls] == [2]
        assert [turn.error for turn in result.turns] == [None, "ModelTimeout: too slow"]

    async def test_an_untyped_error_of_a_model_of_ones_own_carries_it_too(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await Brain(ScriptedModel([ZeroDivisionError("mine")])).run("go")
        assert len(carried(caught.value).turns) == 1

    async def test_the_planner_abstains_with_the_reason(self) -> None:
        with pytest.raises(Abstained) as caught:
            await Brain(tools=[add]).run("what is the capital of France?")
        assert caught.value.reason == str(caught.value)
        assert carried(caught.value).usage.requests == 0

    async def test_the_planner_names_the_tool_that_failed(self) -> None:
        def divide(a: int, b: int) -> float:
            """Divide two numbers."""
            return a / b

        with pytest.raises(Abstained, match="ZeroDivisionError") as caught:
            await Brain(tools=[divide]).run("divide 1 by 0")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


class TestLog:
    async def test_lines_can_be_read_and_replayed(self, tmp_path: Path) -> None:
        import datetime
        import enum

        class Colour(enum.Enum):
            RED = "red"

        circular: list[Any] = []
        circular.append(circular)
        odd: list[Any] = [
            b"\xff\x00",
            {1, 2},
            datetime.datetime(2026, 1, 2),
            Point(x=1),
            Pair(1, "r"),
            Decimal("0.1"),
            float("nan"),
            float("inf"),
            {"deep": [float("nan")]},
            Colour.RED,
            {(1, 2): 3},
            "half \ud800",
            object(),
            circular,
            10**400,
            Path("/tmp"),
            "line\nbreak\u2028",
        ]

        def odd_value(index: int) -> Any:
            """Give something odd."""
            return odd[index]

        @specialist(verify=lambda arguments, value: Verdict.unknown("who knows"), min_confidence=0.5)
        def guess(text: str) -> Answer[str]:
            """Guess."""
            return Answer(text, 0.25)

        path = tmp_path / "log.jsonl"
        asked = [call("odd_value", index=index) for index in range(len(odd))] + [call("guess", text="x")]
        big = SimulatedModel(solve=lambda _: "big", price=Price("1", "2"))
        brain = Brain(ScriptedModel([asked, "done"]), tools=[odd_value], specialists=[guess], fallback=big, log=path)
        result = await brain.run("go", tenant="acme", run_id="r1")
        await brain.aclose()
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == len(odd) + 1 == len(result.calls)

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} is not JSON")

        for line, outcome in zip(lines, result.calls, strict=True):
            data = json.loads(line, parse_constant=refuse)
            assert data["tenant"] == "acme"
            assert data["run_id"] == "r1"
            back = Outcome.from_json(data)
            assert back.call_id == outcome.call_id
            assert [str(move) for move in replay(back)] == [str(move) for move in replay(outcome)]

    @pytest.mark.parametrize("name", ["no/such/folder.jsonl", ".", "nul\x00.jsonl"], ids=ascii)
    async def test_a_file_that_cannot_be_written_stops_the_run_before_any_effect(
        self, tmp_path: Path, name: str
    ) -> None:
        model = ScriptedModel([call("add", a=1, b=1), "done"])
        brain = Brain(model, tools=[add], log=tmp_path / name)
        with pytest.raises(ConfigurationError, match="cannot be written") as caught:
            await brain.run("go")
        assert carried(caught.value).calls == ()
        assert model.requests == []

    async def test_a_file_that_fails_later_costs_no_answer(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        brain = Brain(
            ScriptedModel([call("add", a=1, b=1), "first", call("add", a=1, b=1), "second"]), tools=[add], log=path
        )
        await brain.run("go")
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigurationError, match="cannot be written") as caught:
            await brain.run("go")
        assert carried(caught.value).output == "second"

    async def test_nor_does_it_hide_why_a_run_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        brain = Brain(ScriptedModel([call("add", a=1, b=1)] * 9), tools=[add], log=path, turn_limit=1)
        with pytest.raises(TurnLimit):
            await brain.run("go")
        path.unlink()
        path.mkdir()
        with pytest.raises(TurnLimit):
            await brain.run("go")


async def test_log_records_have_ids_and_no_prompt_text_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    secret = "the-words-of-the-prompt"
    with FakeEndpoint([call("add", a=1, b=2), f"about {secret}"]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=Price("1", "1"))
        async with Brain(model, tools=[add]) as brain:
            with caplog.at_level(logging.DEBUG):
                result = await brain.run(f"say {secret}", run_id="run-1")
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("brain", "specialists")]
    assert {record.name for record in ours} >= {"brain", "brain.models"}
    assert {record.__dict__["run_id"] for record in ours} == {"run-1"}
    assert result.calls[0].call_id in {record.__dict__["call_id"] for record in ours}
    for record in ours:
        if record.levelno > logging.DEBUG:
            assert secret not in record.getMessage()


def test_log_records_of_concurrent_runs_keep_their_ids(caplog: pytest.LogCaptureFixture) -> None:
    brain = Brain(tools=[add])

    async def both() -> list[RunResult[str]]:
        return await asyncio.gather(*(brain.run(f"add {n} and 1", run_id=f"r{n}") for n in range(5)))

    with caplog.at_level(logging.DEBUG, logger="brain"):
        results = asyncio.run(both())
    pairs = {(r.__dict__["run_id"], r.__dict__["call_id"]) for r in caplog.records if r.__dict__["call_id"]}
    assert pairs == {(result.run_id, result.calls[0].call_id) for result in results}


async def test_turn_usage_is_the_models_own() -> None:
    usage = TokenUsage(5, 7, source="provider")
    result = await Brain(ScriptedModel([reply("hi", usage=usage)])).run("go")
    assert result.turns[0].usage == usage


async def test_a_partial_of_a_method_is_a_tool() -> None:
    class Shop:
        def price(self, item: str, currency: str = "EUR") -> str:
            """The price of an item."""
            return f"{item} in {currency}"

    model = ScriptedModel([call("price", item="tea"), "done"])
    brain = Brain(model, tools=[functools.partial(Shop().price, currency="USD")])
    result = await brain.run("go")
    assert result.calls[0].value == "tea in USD"


def test_messages_of_tool_calls_are_those_of_chat_completions() -> None:
    result = Brain(ScriptedModel([ToolCall("id-1", "add", '{"a": 1, "b": 2}'), "ok"]), tools=[add]).run_sync("x")
    assert result.messages[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "id-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
        ],
    }
    assert result.messages[2]["tool_call_id"] == "id-1"


async def test_calls_of_an_answer_that_was_cut_off_are_not_run() -> None:
    ran: list[int] = []

    def note(number: int) -> None:
        """Note a number."""
        ran.append(number)

    cut = reply(tool_calls=call("note", number=1), finish_reason="length")
    with pytest.raises(InvalidOutput, match="cut off") as caught:
        await Brain(ScriptedModel([cut]), tools=[note]).run("go")
    assert ran == []
    assert [message["role"] for message in carried(caught.value).messages] == ["user"]


async def test_no_arguments_may_be_written_as_an_empty_text() -> None:
    async def now() -> int:
        """Tell the time."""
        return 12

    result = await Brain(ScriptedModel([ToolCall("a", "now", ""), "noon"]), tools=[now]).run("go")
    assert [outcome.value for outcome in result.calls] == [12]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Brain(ScriptedModel),  # type: ignore[arg-type]
        lambda: Brain(log=5),  # type: ignore[call-overload]
        lambda: Brain(turn_limit=True),
        lambda: tool(name=5)(add),  # type: ignore[call-overload]
        lambda: tool(timeout="3")(add),  # type: ignore[call-overload]
        lambda: Brain().run_sync("go", history=5),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_the_wrong_kind_is_named(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        make()
