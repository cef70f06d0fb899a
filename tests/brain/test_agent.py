"""The loop: concurrency, history, the sync form, and what bad arguments get."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from brain import (
    Abstained,
    Brain,
    BrainError,
    ConfigurationError,
    Cost,
    InvalidOutput,
    ModelTimeout,
    Planner,
    Price,
    PriceBook,
    PriceEntry,
    PromptError,
    RunContext,
    RunTimeout,
    TokenUsage,
    ToolCall,
    tool,
)
from brain.handles import HANDLE
from brain.testing import FakeEndpoint, ScriptedModel, call, reply
from specialists import specialist
from tests.running import GUARD, add, carried, contents


async def test_answers_after_a_tool() -> None:
    with ScriptedModel([call("add", a=1, b=2), "It is 3."]) as model:
        result = await Brain(model, tools=[add]).run("What is 1 + 2?")
    assert result.output == "It is 3."
    assert [outcome.value for outcome in result.calls] == [3]
    (content,) = contents(result)
    assert HANDLE.fullmatch(content.pop("handle"))
    assert content == {"value": 3, "accepted_by": "unchecked"}
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
        assert contents(result)[0].items() >= {"value": 2, "accepted_by": "unchecked"}.items()
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
        model = ScriptedModel([call("add", a=1, b=1), call("add", a=1, b=2), "done", "done"])
        brain = Brain(model, tools=[add])
        result = await asyncio.wait_for(brain.run("go", history=history), GUARD)
        assert len(result.messages) == 40_006
        assert result.messages[0] == history[0]
        again = await asyncio.wait_for(brain.run("go on", history=result.messages), GUARD)
        assert again.messages[0] is result.messages[0]  # shared, not copied


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"prompt": ""}, PromptError),
            ({"prompt": " \n"}, PromptError),
            ({"prompt": None}, PromptError),
            ({"prompt": b"bytes"}, PromptError),
            ({"prompt": "half \ud800"}, PromptError),
            ({"prompt": "x", "budget": Decimal(1)}, ConfigurationError),
            ({"prompt": "x", "session": 5}, ConfigurationError),
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
            {"prices": "prices.toml"},
            {"ledger": 5},
            {"ledger": ""},
            {"budget": Decimal(1)},
            {"budget": ["0.10"]},
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


def test_a_price_book_prices_models_given_by_name_and_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    book = PriceBook([PriceEntry("house-model", Price(2, 8))], cpu_second="0.5", list_prices=False)
    with FakeEndpoint(reply("yes", usage={"input": 1_000, "output": 100})) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        brain = Brain("openai:house-model", prices=book)
        result = brain.run_sync("Is it raining?")
        brain.close()
        (row,) = [row for row in result.usage.rows if row.kind == "brain"]
    assert result.wire_attempts[0].cost == Cost.exact("0.0028")
    assert row.cost.low == Decimal(str(round(row.cpu_seconds, 10))) * Decimal("0.5")
