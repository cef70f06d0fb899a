"""Runs that are taken up: after an error, a person's decision, another process, in a stream, within another run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from brain import Brain, Budget, Done, Ledger, OpenAIModel, Price, RunContext, Tool, tool
from brain.errors import (
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    JournalCorrupt,
    PromptError,
    RunTaken,
    RunTimeout,
    RunUncertain,
    SchemaChanged,
    TurnLimit,
    UnknownRun,
)
from brain.events import ToolCall
from brain.testing import FakeEndpoint, ScriptedModel, call, failpoints
from specialists import Answer, specialist
from tests.running import GUARD, Pair, Shape

CANARY = "sk-canary-77aa01bc"


@dataclass
class World:
    """A ledger's file, and a tool that counts what it did."""

    path: Path
    made: list[str]

    def brain(self, steps: Any, **more: Any) -> Brain[Any]:
        made = self.made

        @tool(effect=more.pop("effect", "idempotent"), requires_approval=more.pop("ask", False))
        def act(ctx: RunContext[Any], number: int) -> int:
            """Act."""
            made.append(ctx.idempotency_key)
            if number < 0:
                raise ValueError("no such number")
            return number

        model = steps if hasattr(steps, "ask") else ScriptedModel(steps)
        return Brain(model, tools=[act, *more.pop("tools", ())], ledger=self.path, **more)

    async def run(self, steps: Any, prompt: str | None = None, **more: Any) -> Any:
        given = {key: more.pop(key) for key in ("run_id", "approvals", "history", "tenant", "session") if key in more}
        given |= {key: more.pop(key) for key in ("timeout", "run_budget") if key in more}
        if "run_budget" in given:
            given["budget"] = given.pop("run_budget")
        brain = self.brain(steps, **more)
        try:
            return await brain.run(prompt, **({"run_id": "r"} | given))
        finally:
            await brain.aclose()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "bill.db", [])


def same(id: str = "c1", number: int = 1) -> ToolCall:
    return ToolCall(id, "act", json.dumps({"number": number}))


async def test_an_unknown_run_needs_a_prompt(world: World) -> None:
    with pytest.raises(UnknownRun, match="'r'"):
        await world.run([])
    assert Ledger(world.path).runs() == []
    with pytest.raises(PromptError, match="give the brain the ledger"):
        await Brain(ScriptedModel([])).run(run_id="r")


async def test_after_an_error_of_the_model_the_run_goes_on(world: World) -> None:
    with pytest.raises(OSError, match="cut"):
        await world.run([same(), OSError("cut")], "go")
    result = await world.run(["done"])
    assert (result.output, len(world.made), len(result.calls), len(result.turns)) == ("done", 1, 1, 2)
    whole = await world.run([same(), "done"], "go", run_id="whole")
    assert result.messages == whole.messages
    assert [each.to_json()["value"] for each in result.calls] == [each.to_json()["value"] for each in whole.calls]
    assert [each.tool_calls for each in result.turns] == [each.tool_calls for each in whole.turns]
    assert (result.repairs, result.new_messages()) == (whole.repairs, whole.new_messages())


async def test_another_question_is_another_run(world: World) -> None:
    await world.run(["done"], "go")
    assert (await world.run([], "go")).output == "done"
    for given in ({"prompt": "stop"}, {"history": [{"role": "user", "content": "x"}]}, {"session": "s"}):
        with pytest.raises(RunTaken):
            await world.run([], **given)
    with pytest.raises(SchemaChanged, match="instructions"):
        await world.run([], instructions="Be brief.")
    with pytest.raises(SchemaChanged, match="form of the answer"):
        await world.run([], output_type=int)


async def test_a_session_is_remembered(world: World) -> None:
    with pytest.raises(OSError, match="cut"):
        await world.run([same(), OSError("cut")], "go", session="s")
    await world.run(["done"])
    assert {row.session for row in Ledger(world.path).rows(run="r")} == {"s"}


async def test_a_result_that_cannot_be_read_is_refused_and_stays_as_it_is(world: World) -> None:
    await world.run([same(), "done"], "go")
    with contextlib.closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("UPDATE runs SET result = json_set(result, '$.output', 5)")
    before = Ledger(world.path).run("r")
    with pytest.raises(JournalCorrupt, match="no text"):
        await world.run([])
    assert Ledger(world.path).run("r") == before
    assert before.status == "done"


async def test_a_budget_per_session_finds_the_session_of_a_run_that_is_taken_up(world: World) -> None:
    budget = Budget(calls=5, per="session")
    with pytest.raises(OSError, match="cut"):
        await world.run([same(), OSError("cut")], "go", session="s", budget=budget)
    assert (await world.run(["done"], budget=budget)).output == "done"
    with pytest.raises(ConfigurationError, match="per session"):
        await world.run(["done"], "go", run_id="another", budget=budget)


async def test_more_money_and_the_run_goes_on(world: World) -> None:
    with pytest.raises(BudgetExceeded):
        await world.run([same("a", 1), same("b", 2)], "go", run_budget=Budget(calls=1))
    with pytest.raises(BudgetExceeded):  # the purse and its limit are those of before
        await world.run([])
    assert len(world.made) == 1
    result = await world.run(["done"], run_budget=Budget(calls=2))
    assert (result.output, [each.value for each in result.calls]) == ("done", [1, 2])
    assert Ledger(world.path).spent()[0].calls == 2


async def test_a_call_that_a_budget_refused_is_made_later(world: World) -> None:
    with pytest.raises(BudgetExceeded):
        await world.run([[same("a", 1), same("b", 2)], "never"], "go", run_budget=Budget(calls=1))
    assert len(world.made) == 1
    result = await world.run(["done"], run_budget=Budget(calls=9))
    assert (len(world.made), len(set(world.made)), len(result.calls)) == (2, 2, 2)


async def test_a_person_is_asked_and_each_yes_is_for_one_call(world: World) -> None:
    steps: list[Any] = [[same("a", 1), same("b", 2)]]
    with pytest.raises(ApprovalRequired) as caught:
        await world.run(steps, "go", ask=True)
    assert [each.id for each in caught.value.pending] == ["a", "b"]
    assert Ledger(world.path).run("r").status == "waiting"
    with pytest.raises(ApprovalRequired) as caught:
        await world.run([], ask=True, approvals={"a": True})
    assert [each.id for each in caught.value.pending] == ["b"]
    result = await world.run(["done"], ask=True, approvals={"b": False})
    assert (result.output, len(world.made), len(result.calls)) == ("done", 1, 1)
    assert "did not allow" in result.messages[-2]["content"]


async def test_a_yes_said_twice_is_not_one_for_the_next_call_of_the_same_id(world: World) -> None:
    with pytest.raises(ApprovalRequired):
        await world.run([same("c", 1)], "go", ask=True)
    for steps in ([same("c", 2)], []):
        with pytest.raises(ApprovalRequired) as caught:
            await world.run(steps, ask=True, approvals={"c": True})
        assert len(world.made) == 1
    (pending,) = caught.value.pending
    assert pending.id != "c"
    result = await world.run(["done"], ask=True, approvals={pending.id: True})
    assert (result.output, len(world.made), len(set(world.made))) == ("done", 2, 2)


async def test_ids_that_repeat_in_every_turn_are_told_apart(world: World) -> None:
    with pytest.raises(OSError, match="cut"):
        await world.run([same("c", 1), same("c", 2), OSError("cut")], "go")
    result = await world.run([same("c", 3), "done"])
    assert [each.value for each in result.calls] == [1, 2, 3]
    assert len(set(world.made)) == len(world.made) == 3


async def test_a_history_with_open_calls_is_taken_up_twice(world: World) -> None:
    with pytest.raises(ApprovalRequired) as caught:
        await world.run([[same("a", 1), same("b", 2)]], "go", ask=True)
    history = caught.value.result.messages  # type: ignore[union-attr]
    with pytest.raises(OSError, match="cut"):
        await world.run([OSError("cut")], run_id="two", history=history, ask=True, approvals={"a": True, "b": False})
    assert len(world.made) == 1
    result = await world.run(["done"], run_id="two", ask=True)
    assert (result.output, len(world.made)) == ("done", 1)
    again = await world.run([], run_id="two", ask=True)
    assert again.messages == result.messages
    assert again.new_messages() == result.new_messages()


async def test_a_long_history_is_taken_up(world: World) -> None:
    history = [{"role": ("user", "assistant")[n % 2], "content": f"{n}"} for n in range(1000)]
    with pytest.raises(OSError, match="cut"):
        await world.run([same(), OSError("cut")], "go", history=history)
    result = await world.run(["done"])
    assert (len(result.messages), len(result.new_messages())) == (1004, 4)


async def test_what_was_cut_off_by_its_time_may_have_happened(world: World) -> None:
    made = []

    @tool(effect="once")
    async def hang() -> int:
        """Hang."""
        made.append(1)
        if len(made) == 1:
            await asyncio.sleep(GUARD)
        return 5

    with pytest.raises(RunTimeout):
        await world.run([call("hang")], "go", tools=[hang], timeout=0.3)
    with pytest.raises(RunUncertain) as caught:
        await world.run([], tools=[hang])
    assert Ledger(world.path).run("r").status == "uncertain"
    result = await world.run(["done"], tools=[hang], approvals={caught.value.pending[0].id: True})
    assert (result.output, result.calls[0].value, len(made)) == ("done", 5, 2)


async def test_a_cancelled_run_goes_on(world: World) -> None:
    entered = asyncio.Event()

    async def wait(_: Any) -> str:
        entered.set()
        await asyncio.sleep(GUARD)
        return "never"

    class Slow(ScriptedModel):
        async def ask(self, request: Any, **more: Any) -> Any:
            if len(self.requests) == 1:
                await wait(request)
            return await super().ask(request, **more)

    brain = world.brain(Slow([same(), "never"]))
    task = asyncio.create_task(brain.run("go", run_id="r"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await brain.aclose()
    run = Ledger(world.path).run("r")
    assert (run.status, run.owner) == ("failed", None)
    assert (await world.run(["done"])).output == "done"
    assert len(world.made) == 1


async def test_a_run_cancelled_while_it_is_begun_is_nobodys(world: World) -> None:
    brain = world.brain(["done"])
    ledger = brain.ledger
    ledger.store.claim()

    with failpoints({"storage.before_commit": "sleep:0.2"}):
        task = asyncio.create_task(brain.run("go", run_id="r"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await brain.aclose()
    assert [run.owner for run in Ledger(world.path).runs()] == [None]
    assert (await world.run(["done"])).output == "done"


async def test_a_tool_that_raised_raised(world: World) -> None:
    with pytest.raises(OSError, match="cut"):
        await world.run([same("c", -1), OSError("cut")], "go")
    result = await world.run(["done"])
    assert len(world.made) == 1
    assert "no such number" in (result.calls[0].reason or "")


async def test_a_limit_of_turns_can_be_raised(world: World) -> None:
    with pytest.raises(TurnLimit):
        await world.run([same()], "go", turn_limit=1)
    assert (await world.run(["done"], turn_limit=2)).output == "done"


async def test_calls_that_ended_are_kept_while_others_go_on(world: World) -> None:
    kept = Ledger(world.path)

    @tool(effect="pure")
    async def watch() -> bool:
        """See whether the other call is in the journal."""
        for _ in range(2000):
            done = await asyncio.to_thread(kept.steps, "r")
            if any(each.step == "turn 0, call 0" and each.result is not None for each in done):
                return True
            await asyncio.sleep(0.005)
        return False

    result = await world.run([[same(), call("watch")], "done"], "go", tools=[watch])
    assert result.calls[1].value is True
    kept.close()


async def test_a_stream_is_taken_up(world: World) -> None:
    brain = world.brain([same(), OSError("cut")])
    with pytest.raises(OSError, match="cut"):
        [event async for event in brain.run_stream("go", run_id="r")]
    await brain.aclose()
    brain = world.brain(["done"])
    events = [event async for event in brain.run_stream(run_id="r")]
    assert isinstance(events[-1], Done)
    assert events[-1].result.output == "done"
    again = [event async for event in brain.run_stream(run_id="r")]
    assert [type(each) for each in again] == [Done]
    await brain.aclose()
    assert len(world.made) == 1


class Aliased(BaseModel):
    when: date = Field(alias="at")
    sizes: tuple[int, ...] = ()
    price: Decimal = Decimal(0)


VALUES: list[tuple[Any, Any]] = [
    (int, 7),
    (float, 0.5),
    (bool, True),
    (date, "2024-02-29"),
    (tuple[int, str], [1, "a"]),
    (set[int], [1, 2]),
    (dict[str, date], {"a": "2024-02-29"}),
    (int | None, None),
    (list[Shape], [{"name": "dot", "points": [{"x": 1}], "inner": {"name": "line", "points": []}}]),
    (Pair, {"left": 1, "right": "x"}),
    (Aliased, {"at": "2024-02-29", "sizes": [1, 2], "price": "0.10"}),
    (bytes, "abc"),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[str(kind) for kind, _ in VALUES])
async def test_an_output_is_given_back_as_the_type_it_was(world: World, kind: Any, value: Any) -> None:
    class Given(ScriptedModel):
        pass

    schema_wraps = {"result": value} if not isinstance(value, dict) else value
    brain = world.brain(Given([json.dumps(value), json.dumps(schema_wraps)]), output_type=kind)
    first = await brain.run("go", run_id="r")
    again = await brain.run(run_id="r")
    await brain.aclose()
    assert again.output == first.output
    assert type(again.output) is type(first.output)


async def test_strange_values_of_tools_are_written_down(world: World) -> None:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]

    def maker(name: str, value: Any) -> Tool[..., Any]:
        def strange() -> Any:
            """Strange."""
            return value

        return Tool(strange, name=name, effect="pure")

    values = {"nan": float("nan"), "deep": nested, "half": "\ud800", "raw": b"\xff", "big": 10**400, "thing": object()}
    tools = [maker(name, value) for name, value in values.items()]
    with pytest.raises(OSError, match="cut"):
        await world.run([[call(name) for name in values], OSError("cut")], "go", tools=tools)
    steps = {each.name: each for each in Ledger(world.path).steps("r")}
    assert all(steps[name].result is not None for name in values)
    result = await world.run(["done"], tools=tools)
    assert len(result.calls) == len(values)
    assert len(Ledger(world.path).rows(run="r", kind="function")) == len(values)


async def test_a_run_within_a_tool_is_taken_up_under_its_key(world: World) -> None:
    inner_made: list[int] = []

    def inner_tool() -> int:
        """Inner."""
        inner_made.append(1)
        return 3

    def outer(steps: Any) -> Tool[..., Any]:
        @tool(effect="idempotent")
        async def ask(ctx: RunContext[Any]) -> str:
            """Ask another."""
            brain = Brain(ScriptedModel(steps), tools=[Tool(inner_tool, effect="once")], ledger=world.path)
            try:
                return str((await brain.run("inner", run_id=ctx.idempotency_key)).output)
            finally:
                await brain.aclose()

        return ask

    steps = [call("inner_tool"), "inner done"]
    task = asyncio.create_task(world.run([call("ask")], "go", tools=[outer(steps)]))
    with failpoints({"journal.after_effect@4": task.cancel}), pytest.raises(asyncio.CancelledError):
        await task
    result = await world.run(["done"], tools=[outer([])])
    assert (result.output, result.calls[0].value, inner_made) == ("done", "inner done", [1])
    parents = {run.id: run.parent_run for run in Ledger(world.path).runs()}
    assert sorted(map(str, parents.values())) == ["None", "r"]


async def test_a_big_model_in_flight_is_asked_again_under_the_key_of_its_rung(world: World) -> None:
    @specialist(verify=lambda arguments, value: value > 0)
    def guess(number: int) -> Answer[int]:
        """Guess."""
        return Answer(-1)

    def answers(body: dict[str, Any]) -> Any:
        if "response_format" in body:
            return '{"result": 5}' if "result" in json.dumps(body["response_format"]) else "5"
        return "done" if body["messages"][-1]["role"] == "tool" else call("guess", number=1)

    with FakeEndpoint(answers) as endpoint:

        def brain() -> Brain[str]:
            model = OpenAIModel(
                "fake-model", base_url=endpoint.base_url, api_key=CANARY, price=Price(input=1, output=1)
            )
            return Brain(model, specialists=[guess], ledger=world.path)

        def stop() -> None:
            raise OSError("cut")

        first = brain()
        with pytest.raises(OSError, match="cut"), failpoints({"journal.after_effect@2": stop}):
            await first.run(
                f"go with {CANARY}", run_id="r", history=[{"role": "user", "content": f"my key is {CANARY}"}]
            )
        await first.aclose()
        second = brain()
        result = await second.run(run_id="r")
        await second.aclose()
        assert result.output == "done"
        sent = [each.headers["idempotency-key"] for each in endpoint.requests]
        assert len(sent) == 4
        assert sent[1] == sent[2]
        assert len(set(sent)) == 3
        assert result.calls[0].answered_by == "big_model"
        assert len(result.wire_attempts) == 3
        assert len(Ledger(world.path).rows(kind="model")) == 4
    for path in world.path.parent.rglob("bill.db*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes()


async def test_a_planner_run_is_taken_up(tmp_path: Path) -> None:
    made: list[int] = []

    def brain(fail: bool) -> Brain[int]:
        @tool(effect="idempotent")
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            made.append(a + b)
            return a + b

        return Brain(tools=[add], output_type=int, ledger=tmp_path / "bill.db")

    first = brain(True)
    with pytest.raises(OSError, match="failpoint"), failpoints({"journal.after_effect@3": "raise:OSError"}):
        await first.run("add 2 and 3", run_id="r")
    await first.aclose()
    second = brain(False)
    result = await second.run(run_id="r")
    assert (result.output, made) == (5, [5])
    assert (await second.run(run_id="r")).output == 5
    await second.aclose()


async def test_a_log_has_each_call_of_a_run_that_was_taken_up(world: World, tmp_path: Path) -> None:
    log: Callable[[], list[str]] = lambda: (tmp_path / "log.jsonl").read_text().splitlines()  # noqa: E731
    with pytest.raises(OSError, match="cut"):
        await world.run([same(), OSError("cut")], "go", log=tmp_path / "log.jsonl")
    await world.run([same("d", 2), "done"], log=tmp_path / "log.jsonl")
    assert {json.loads(line)["call_id"] for line in log()} == {"c1", "d"}
    assert len(log()) == 2
