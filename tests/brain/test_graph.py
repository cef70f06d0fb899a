"""The loop of plans: run in parallel, checked before, planned anew from where it failed, taken up where it stopped."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Abstained,
    ApprovalRequired,
    Brain,
    Budget,
    BudgetExceeded,
    ConfigurationError,
    CostLimit,
    Ledger,
    MemorySessions,
    ModelRequest,
    ModelResponse,
    OpenAIModel,
    PlanMade,
    Price,
    RepeatLimit,
    RunTimeout,
    StepReused,
    ToolAnswered,
    ToolCall,
    ToolCalled,
    TurnLimit,
    tool,
)
from brain.handles import handle_of
from brain.testing import FakeEndpoint, ScriptedModel, call, failpoints
from specialists import strict_json
from tests.running import GUARD, add, carried, contents

MADE: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    MADE.clear()


@tool(effect="pure")
async def fetch(name: str) -> dict[str, Any]:
    """Fetch something by its name."""
    MADE.append(name)
    if name.startswith("bad"):
        raise ValueError("there is no such thing")
    return {"name": name, "rows": [len(name), 2, 3]}


@tool(effect="pure")
def total(numbers: list[int], extra: int = 0) -> int:
    """Add up."""
    MADE.append("total")
    return sum(numbers) + extra


@tool(effect="once", requires_approval=True)
def pay(to: str) -> str:
    """Pay somebody."""
    MADE.append(f"pay {to}")
    return f"paid {to}"


def step(id: str, tool: str | None = None, /, after: list[str] | None = None, **arguments: Any) -> dict[str, Any]:
    """A step; arguments that begin with ``$`` refer to another one."""
    plain = {name: value for name, value in arguments.items() if not str(value).startswith("$")}
    references = {name: value[1:] for name, value in arguments.items() if str(value).startswith("$")}
    return {"id": id, "tool": tool or "fetch", "arguments": plain, "references": references, "after": after or []}


def plan(*steps: dict[str, Any], answer: str | None = None) -> dict[str, Any]:
    return {"steps": list(steps), "answer": answer}


def brain(*said: Any, **more: Any) -> Brain[Any]:
    return Brain(ScriptedModel(said), **{"tools": [fetch, total, pay, add], "planning": "graph", **more})


def chain(count: int, bad: int | None = None) -> list[dict[str, Any]]:
    return [
        step(f"s{n}", after=[f"s{n - 1}"] if n > 1 else [], name=f"bad{n}" if n == bad else f"n{n}")
        for n in range(1, count + 1)
    ]


def shaky(chance: random.Random, number: int) -> dict[str, Any]:
    """A plan whose last step fails, but for that of the last one; it may repeat what those before it did."""
    steps = []
    for place in range(chance.randint(2, 5)):
        after = [f"p{number}s{before}" for before in range(place) if chance.random() < 0.4]
        steps.append(step(f"p{number}s{place}", after=after, name=f"n{place}"))
    if number < 2:
        steps.append(step(f"p{number}b", name=f"bad{number}"))
    return plan(*steps)


def next_of(plans: list[Any], request: ModelRequest) -> Any:
    """What a model says that goes by the conversation alone, so that it can be asked again after a crash."""
    said = [str(message.get("content")) for message in request.messages if message["role"] == "user"]
    failures = sum("gave no answer" in text for text in said)
    return plans[failures] if said[-1].startswith("Do not call any tool") else "the end"


class TestPlans:
    async def test_values_pass_by_reference_and_the_answer_is_a_steps_value(self) -> None:
        made = plan(step("a", name="four"), step("b", "total", numbers="$a.rows", extra="$a.rows[1]"), answer="b")
        result = await brain(made, output_type=int).run("go")
        assert result.output == 4 + 2 + 3 + 2
        assert len(result.turns) == 1, "the model was asked once"
        assert [str(each) for each in result.plans] == [
            "fetch(name='four') -> total(numbers=#1.rows, extra=#1.rows[1])"
        ]
        assert result.messages[-1] == {"role": "assistant", "content": "11"}

    async def test_what_is_independent_runs_at_the_same_time(self) -> None:
        meeting = asyncio.Barrier(2)

        @tool(effect="pure")
        async def meet(who: str) -> str:
            """Wait for the other one."""
            await asyncio.wait_for(meeting.wait(), GUARD)
            return who

        @tool(effect="pure")
        def both(one: str, other: str) -> str:
            """Put together."""
            return one + other

        diamond = plan(
            step("a", name="x"),
            step("b", "meet", after=["a"], who="b"),
            step("c", "meet", after=["a"], who="c"),
            step("d", "both", one="$b", other="$c"),
            answer="d",
        )
        assert (await brain(diamond, tools=[fetch, meet, both]).run("go")).output == "bc"

    async def test_a_step_begins_as_soon_as_those_it_needs_have_answered(self) -> None:
        slow = asyncio.Event()

        @tool(effect="pure")
        async def wait() -> int:
            """Wait for the chain beside it."""
            await asyncio.wait_for(slow.wait(), GUARD)
            return 1

        @tool(effect="pure")
        def last(text: str) -> str:
            """End of the chain."""
            slow.set()
            return text

        made = plan(step("w", "wait"), step("a", name="x"), step("b", "last", text="$a.name"), answer="b")
        assert (await brain(made, tools=[fetch, wait, last]).run("go")).output == "x"

    async def test_lists_are_put_together_of_several_steps(self) -> None:
        made = plan(
            step("a", name="x"), step("b", name="four"),
            {"id": "c", "tool": "total", "references": {"numbers": ["a.rows[0]", "b.rows[0]"]}}, answer="c",
        )  # fmt: skip
        assert (await brain(made, output_type=int).run("go")).output == 5

    async def test_without_an_answer_the_model_says_what_follows(self) -> None:
        result = await brain(plan(step("a", name="x")), "It is there.").run("go")
        assert result.output == "It is there."

    async def test_where_no_tool_is_needed_it_just_answers(self) -> None:
        assert (await brain(plan(), "Hello.").run("hello")).output == "Hello."

    async def test_a_model_that_calls_tools_all_the_same_is_heard(self) -> None:
        result = await brain(call("add", a=1, b=2), "three").run("go")
        assert (result.output, len(result.calls), result.plans) == ("three", 1, ())

    async def test_events_come_in_order(self) -> None:
        made = plan(step("a", name="x"), step("b", name="y", after=["a"]), answer="b")
        kinds = [type(event) async for event in brain(made).run_stream("go")]
        kinds = [kind for kind in kinds if kind in (PlanMade, ToolCalled, ToolAnswered)]
        assert kinds == [PlanMade, ToolCalled, ToolAnswered, ToolCalled, ToolAnswered]

    def test_planning_is_one_of_two(self) -> None:
        with pytest.raises(ConfigurationError, match="'turns' or 'graph'"):
            brain(planning="guess")

    @pytest.mark.parametrize(
        "request_",
        [
            "add 4 and 5",
            "Add 17 and 25, please",
            "what is the weather",
            "add 4 and 5, then add 6 and 7",
            "add 4 and 5, then double the result",
            "double 4 and add 1 and 2 and then repeat 'ab' 3 times",
            "double 13",
            "double 4, then double it, then double it",
            "repeat 'x' as often as double 2",
            "add 4",
        ],
    )
    async def test_the_built_in_planner_gives_the_same_in_both_loops(self, request_: str) -> None:
        def double(number: int) -> int:
            """Double a number."""
            if number == 13:
                raise ValueError("that brings bad luck")
            return number * 2

        def repeat(text: str, times: int) -> str:
            """Repeat a text."""
            return text * times

        results = []
        tools = [add, double, repeat]
        for planning in ("turns", "graph"):
            try:
                run = await Brain(tools=tools, planning=planning).run(request_)  # type: ignore[arg-type]
            except Abstained as error:
                run = carried(error)
                results.append(str(error))
            else:
                results.append(run.output)
            results[-1] = results[-1], [(each.tool, each.arguments, each.value) for each in run.calls]
        assert results[0] == results[1]


class TestBadPlans:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (plan(step("a", "fetchh", name="x")), "there is no tool 'fetchh'; the nearest are fetch"),
            (plan(step("a", name="$b"), step("b", name="$a")), "wait for each other"),
            (plan(step("a", name="$a")), "waits for itself"),
            (plan(step("a", name="$zz")), "refers to 'zz', and no step has that id"),
            (plan(step("a", name="x"), step("b", "total", numbers="$a")), "it is object, and array is wanted"),
            (plan(step("a", "total", numbers=[1]), step("b", "total", numbers="$a")), "it is integer"),
            (plan(step("a")), "name"),
            (plan(step("a", name="x", nonsense=1)), "nonsense"),
            (plan(step("a", name="x"), step("a", name="y")), "two steps have the id 'a'"),
            (plan(step("a", name="x"), answer="b"), "the answer is to be step 'b'"),
            (plan(*chain(65)), "64 is the most"),
            ({"steps": [{"id": "a"}]}, "a tool or a task, one of the two"),
            ({"steps": ["a"]}, "has no id"),
            ("no plan at all", "no JSON"),
            ({"steps": [{"id": "a", "task": "  "}]}, "a tool or a task, one of the two"),
            (plan(step("a", name="y"), step("b", name="@v9:abcd")), "no result has the handle @v9:abcd"),
            (plan(step("a", name="y"), step("b", "total", numbers="$a.rows", extra="@v1:ffff")), "handle @v1:ffff"),
            (plan({"id": "w", "task": "Say it", "arguments": {"it": "@v9:abcd"}}), "no result has the handle @v9:abcd"),
        ],
    )
    async def test_are_refused_before_anything_runs_then_mended(self, wrong: Any, said: str) -> None:
        result = await brain(wrong, plan(step("a", name="x")), "done").run("go")
        problem = result.messages[2]["content"]
        assert problem.startswith("That plan cannot be run, and nothing was:")
        assert said in problem
        assert MADE == ["x"]
        assert result.repairs == 1

    async def test_a_handle_whose_value_does_not_fit_is_told_before_anything_runs(self) -> None:
        def second(request: ModelRequest) -> Any:
            handle = json.loads(request.messages[2]["content"])["handle"]
            return plan(step("c", name="x"), step("d", "total", numbers=handle))

        last = plan(step("c", name="x"), answer="c")
        result = await brain(plan(step("a", name="four"), step("b", name="bad")), second, last).run("go")
        told = next(m["content"] for m in result.messages if str(m["content"]).startswith("That plan cannot be run"))
        assert "step d: total: numbers" in told
        assert MADE == ["four", "bad", "x"]
        assert result.repairs == 1

    async def test_the_loop_of_turns_may_still_mend_its_own_calls(self) -> None:
        bad = plan(step("a", "nothing"))
        result = await brain(bad, bad, call("fetch"), call("fetch", name="x"), "done").run("go")
        assert (result.output, MADE, result.repairs) == ("done", ["x"], 2)

    async def test_twice_bad_falls_back_to_the_loop_of_turns(self) -> None:
        bad = plan(step("a", "nothing"))
        result = await brain(bad, bad, call("add", a=1, b=2), "three").run("go")
        assert result.output == "three"
        assert len(result.calls) == 1
        assert result.usage.requests == len(result.wire_attempts)

    async def test_a_plan_goes_before_calls_beside_it(self) -> None:
        both = ModelResponse(json.dumps(plan(step("a", name="x"), answer="a")), (ToolCall("q", "add", '{"a": 1}'),))
        result = await brain(both).run("go")
        assert json.loads(result.output)["name"] == "x"
        assert [outcome.tool for outcome in result.calls] == ["fetch"]

    async def test_one_that_was_cut_off_is_to_be_shorter(self) -> None:
        whole = json.dumps(plan(step("a", name="x"), answer="a"))
        result = await brain(ModelResponse(whole[:-9], (), "length"), plan(step("a", name="y"), answer="a")).run("go")
        assert "it was cut off before its end; make a shorter one" in result.messages[2]["content"]
        assert MADE == ["y"]

    @pytest.mark.parametrize("text", ["", None, "null", "[]", "I would call fetch.", '{"steps": "a"}', "[" * 50_000])
    async def test_what_is_no_plan_falls_back_with_all_requests_on_the_bill(self, text: str | None) -> None:
        result = await brain(ModelResponse(text), ModelResponse(text), call("add", a=1, b=2), "three").run("go")
        assert (result.output, len(result.turns), len(result.calls)) == ("three", 4, 1)

    async def test_ids_of_any_letters_become_ids_that_endpoints_take(self) -> None:
        made = plan(step("größe.1 !@x", name="x"), step("b", "total", numbers="$größe.1 !@x.rows"), answer="b")
        result = await brain(made, output_type=int).run("go")
        assert result.output == 6
        ids = [entry["id"] for entry in result.messages[1]["tool_calls"]]
        assert all(re.fullmatch(r"[\w-]{1,40}", id, re.ASCII) for id in ids)

    async def test_a_brain_without_tools(self) -> None:
        assert (await brain(plan(), "Hello.", tools=[]).run("go")).output == "Hello."
        result = await brain(plan(step("a", name="x")), plan(), "No.", tools=[]).run("go")
        assert result.output == "No."
        assert "there is no tool 'fetch'; there are none" in result.messages[2]["content"]


class TestFailures:
    async def test_a_fault_in_step_seven_of_nine_repeats_none_of_the_first_six(self) -> None:
        again = plan(*chain(9), step("t", "total", after=["s9"], numbers=[1]), answer="t")
        result = await brain(plan(*chain(9, bad=7)), again, output_type=int).run("go")
        assert result.output == 1
        assert [*(f"n{n}" for n in range(1, 7)), "bad7", "n7", "n8", "n9", "total"] == MADE

    async def test_the_new_plan_may_refer_to_what_was_done(self) -> None:
        first = plan(step("a", name="four"), step("b", name="bad"), step("c", "total", numbers="$a.rows", after=["b"]))
        second = plan(step("d", "total", numbers="$a.rows"), answer="d")
        assert (await brain(first, second, output_type=int).run("go")).output == 9
        assert MADE == ["four", "bad", "total"]

    async def test_what_fails_again_and_again_is_left_to_the_loop_of_turns(self) -> None:
        result = await brain(*(plan(step("a", name=f"bad{n}")) for n in range(3)), "It cannot be had.").run("go")
        assert result.output == "It cannot be had."
        assert len(result.plans) == 3

    async def test_what_was_done_is_the_answer_as_the_type_that_it_had(self) -> None:
        @tool(effect="pure")
        def day() -> date:
            """Give a day."""
            MADE.append("day")
            return date(2026, 1, 2)

        first, second = plan(step("d", "day"), step("b", name="bad")), plan(step("e", "day"), answer="e")
        result = await brain(first, second, tools=[day, fetch], output_type=date).run("go")
        assert result.output == date(2026, 1, 2)
        assert sorted(MADE) == ["bad", "day"]

    async def test_a_step_that_is_planned_again_is_told_to_be_reused(self) -> None:
        first, second = plan(step("a", name="x"), step("b", name="bad")), plan(step("c", name="x"), answer="c")
        events = [event async for event in brain(first, second).run_stream("go")]
        (reused,) = [event for event in events if isinstance(event, StepReused)]
        made = [event for event in events if isinstance(event, PlanMade)]
        assert reused.id == made[1].ids[0]

    async def test_a_limit_of_turns_between_two_plans_loses_nothing(self) -> None:
        with pytest.raises(TurnLimit) as caught:
            await brain(plan(step("a", name="x"), step("b", name="bad")), turn_limit=1).run("go")
        history = json.loads(json.dumps(carried(caught.value).messages))
        again = plan(step("a", name="x"), step("c", "total", numbers="$a.rows"), answer="c")
        assert (await brain(again, output_type=int).run(history=history)).output == 6
        assert MADE == ["x", "bad", "total"]

    async def test_a_run_that_is_late_keeps_what_had_ended(self) -> None:
        @tool(effect="pure")
        async def never() -> int:
            """Never end."""
            await asyncio.sleep(GUARD)
            return 1

        made = plan(step("a", name="x"), step("n", "never", after=["a"]))
        with pytest.raises(RunTimeout) as caught:
            await brain(made, tools=[fetch, never]).run("go", timeout=1)
        assert [each["value"]["name"] for each in contents(carried(caught.value)) if "value" in each] == ["x"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_budget_that_ends_in_the_middle_keeps_what_was_done(self) -> None:
        with pytest.raises(BudgetExceeded) as caught:
            await brain(plan(*chain(6), answer="s6"), budget=Budget(calls=4)).run("go")
        result = carried(caught.value)
        assert MADE == ["n1", "n2", "n3", "n4"]
        assert len([each for each in contents(result) if "value" in each]) == 4
        assert result.usage.cost.status == "exact"

    async def test_a_call_made_too_often_ends_the_run(self) -> None:
        same = plan(*(step(f"s{n}", name="x") for n in range(5)))
        with pytest.raises(RepeatLimit):
            await brain(same, repeat_limit=3).run("go")
        assert len(MADE) == 3

    async def test_a_cancelled_run_keeps_what_had_ended_and_leaves_no_task(self) -> None:
        began = asyncio.Event()

        @tool(effect="pure")
        async def never() -> int:
            """Never end."""
            began.set()
            await asyncio.sleep(GUARD)
            return 1

        made = plan(step("a", name="x"), step("n", "never", after=["a"]))
        task = asyncio.create_task(brain(made, tools=[fetch, never]).run("go"))
        await asyncio.wait_for(began.wait(), GUARD)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert [each["value"]["name"] for each in contents(carried(caught.value))] == ["x"]
        assert asyncio.all_tasks() == {asyncio.current_task()}


class TestApprovals:
    PLAN = plan(step("a", name="ann"), step("p", "pay", to="$a.name"), step("b", name="$p"), answer="b")

    async def test_wait_for_a_person_and_go_on_from_the_history(self) -> None:
        with pytest.raises(ApprovalRequired) as caught:
            await brain(self.PLAN).run("go")
        assert MADE == ["ann"]
        (pending,) = caught.value.pending
        assert pending.arguments == {"to": "ann"}
        history = json.loads(json.dumps(carried(caught.value).messages))
        result = await brain().run(history=history, approvals={pending.id: True})
        assert MADE == ["ann", "pay ann", "paid ann"]
        assert json.loads(result.output)["name"] == "paid ann"

    async def test_a_no_is_planned_around_and_nothing_is_done_again(self) -> None:
        with pytest.raises(ApprovalRequired) as caught:
            await brain(self.PLAN).run("go")
        history = carried(caught.value).messages
        other = brain(plan(step("a", name="ann"), step("c", "total", numbers="$a.rows"), answer="c"), output_type=int)
        result = await other.run(history=history, approvals={caught.value.pending[0].id: False})
        assert result.output == 8
        assert MADE == ["ann", "total"]

    async def test_what_two_plans_did_is_not_done_again_after_a_resumption(self) -> None:
        first = plan(step("a", name="four"), step("b", name="bad"))
        second = plan(step("c", name="x"), step("p", "pay", after=["c"], to="ann"))
        with pytest.raises(ApprovalRequired) as caught:
            await brain(first, second).run("go")
        history = json.loads(json.dumps(carried(caught.value).messages))
        third = plan(
            step("a2", name="four"), step("c2", name="x"),
            {"id": "t", "tool": "total", "references": {"numbers": [f"{id}.rows[0]" for id in ("a", "c", "a2", "c2")]}},
            answer="t",
        )  # fmt: skip
        MADE.clear()
        result = await brain(third, output_type=int).run(history=history, approvals={caught.value.pending[0].id: False})
        assert (result.output, MADE) == (4 + 1 + 4 + 1, ["total"])
        for number, said in enumerate((m for m in result.messages if m["role"] == "tool"), 1):
            answer = strict_json.loads(said["content"])  # which allows no key twice
            assert "value" not in answer or answer["handle"] == handle_of(number, said["content"])

    async def test_a_new_request_may_be_to_do_it_again(self) -> None:
        with pytest.raises(ApprovalRequired) as caught:
            await brain(self.PLAN).run("go")
        approvals = {caught.value.pending[0].id: True}
        again = brain(plan(step("a", name="ann"), answer="a"))
        await again.run("once more", history=carried(caught.value).messages, approvals=approvals)
        assert MADE == ["ann", "pay ann", "paid ann", "ann"]

    async def test_what_an_earlier_plan_gave_is_there_when_a_later_one_is_resumed(self) -> None:
        first = plan(step("a", name="ann"), step("b", name="bad"))
        second = plan(step("p", "pay", to="$a.name"), step("q", name="$p"), answer="q")
        with pytest.raises(ApprovalRequired) as caught:
            await brain(first, second).run("go")
        assert caught.value.pending[0].arguments == {"to": "ann"}
        history = json.loads(json.dumps(carried(caught.value).messages))
        result = await brain().run(history=history, approvals={caught.value.pending[0].id: True})
        assert json.loads(result.output)["name"] == "paid ann"
        assert sorted(MADE) == ["ann", "bad", "paid ann", "pay ann"]

    @pytest.mark.parametrize(
        ("approvals", "said"),
        [
            ({"nope": True}, "no call with the id 'nope' waits"),
            ({"ID": "yes"}, "True or False"),
            ({"ID": 1}, "True or False"),
        ],
    )
    async def test_approvals_are_checked(self, approvals: Any, said: str) -> None:
        with pytest.raises(ApprovalRequired) as caught:
            await brain(self.PLAN).run("go")
        id = caught.value.pending[0].id
        given = {id if key == "ID" else key: value for key, value in approvals.items()}
        with pytest.raises(ConfigurationError, match=said):
            await brain().run(history=carried(caught.value).messages, approvals=given)
        assert MADE == ["ann"]

    async def test_what_does_not_wait_is_not_made_twice(self) -> None:
        made = plan(step("p", "pay", to="ann"), step("q", "pay", to="bob"), step("a", name="x"), step("z", name="$q"))
        with pytest.raises(ApprovalRequired) as caught:
            await brain(made).run("go")
        assert len(caught.value.pending) == 2
        first, second = (pending.id for pending in caught.value.pending)
        with pytest.raises(ApprovalRequired) as again:
            await brain().run(history=carried(caught.value).messages, approvals={second: True})
        assert [pending.id for pending in again.value.pending] == [first]
        result = await brain("paid").run(history=carried(again.value).messages, approvals={first: True})
        assert result.output == "paid"
        assert MADE == ["x", "pay bob", "paid bob", "pay ann"]

    async def test_in_a_file_a_plan_is_taken_up_where_it_waits(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        with pytest.raises(ApprovalRequired) as caught:
            await brain(self.PLAN, ledger=ledger).run("go", run_id="r")
        result = await brain(ledger=ledger).run(run_id="r", approvals={caught.value.pending[0].id: True})
        assert MADE == ["ann", "pay ann", "paid ann"]
        assert len(result.calls) == 3
        assert (await brain(ledger=ledger).run(run_id="r")).output == result.output
        assert len(MADE) == 3
        await ledger.aclose()

    async def test_a_crash_in_the_midst_repeats_no_step_that_was_written_down(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        seen = []

        def cut_off() -> None:
            seen.append(1)
            if len(seen) == 5:  # the plan is the first
                raise RuntimeError("cut off")

        made = plan(*chain(6), answer="s6")
        with failpoints({"journal.after_effect": cut_off}), pytest.raises(RuntimeError, match="cut off"):
            await brain(made, ledger=ledger).run("go", run_id="r")
        assert MADE == ["n1", "n2", "n3", "n4"]
        MADE.clear()
        result = await brain(ledger=ledger).run(run_id="r")
        assert MADE == ["n4", "n5", "n6"]
        assert len(result.calls) == 6
        await ledger.aclose()

    @pytest.mark.parametrize("seed", range(3))
    async def test_wherever_it_is_cut_off_it_ends_as_if_it_had_not_been(self, seed: int, tmp_path: Path) -> None:
        chance = random.Random(seed)
        plans = [shaky(chance, number) for number in range(3)]
        whole = await brain(*[lambda request: next_of(plans, request)] * 9, tools=[fetch]).run("go")
        once = Counter(MADE)
        for at in range(1, len(whole.turns) + len(whole.calls) + 1):
            MADE.clear()
            seen = []

            def cut_off(at: int = at, seen: list[int] = seen) -> None:
                seen.append(1)
                if len(seen) == at:
                    raise RuntimeError("cut off")

            ledger = Ledger(tmp_path / f"{at}.db")
            one = brain(*[lambda request: next_of(plans, request)] * 20, tools=[fetch], ledger=ledger)
            with failpoints({"journal.after_effect": cut_off}), pytest.raises(RuntimeError, match="cut off"):
                await one.run("go", run_id="r")
            result = await one.run(run_id="r")
            assert result.messages == whole.messages
            assert [outcome.arguments for outcome in result.calls] == [outcome.arguments for outcome in whole.calls]
            assert max((Counter(MADE) - once).values(), default=0) <= 1, "but for what was under way"
            await ledger.aclose()

    async def test_a_session_knows_older_plans_and_does_what_is_asked_anew(self) -> None:
        sessions = MemorySessions()
        made = plan(step("a", name="x"), answer="a")
        for _ in range(2):
            result = await brain(made, sessions=sessions).run("go", session="s")
        assert MADE == ["x", "x"]
        assert len([message for message in result.messages if message["role"] == "tool"]) == 2


class TestSubtasks:
    async def test_are_runs_within_the_run_and_on_its_bill(self) -> None:
        made = plan(
            step("a", name="x"), {"id": "w", "task": "Say what it is", "references": {"it": "a.name"}}, answer="w"
        )
        model = ScriptedModel([made, call("add", a=1, b=2), "It is an x."])
        result = await Brain(model, tools=[fetch, add], planning="graph").run("go")
        assert result.output == "It is an x."
        assert '"it": "x"' in model.requests[1].messages[-1]["content"]
        assert "add" in [row.name for row in result.usage.rows]

    async def test_begin_only_while_the_run_may_spend(self) -> None:
        made = plan(*({"id": f"w{n}", "task": f"Think {n}", "after": [f"w{n - 1}"] if n else []} for n in range(6)))
        with FakeEndpoint(lambda body: made if "response_format" in body else "thought") as endpoint:
            model = OpenAIModel("fake-model", base_url=endpoint.base_url, price=Price(input="1000", output="1000"))
            async with Brain(model, tools=[fetch], planning="graph") as free:
                first, each = (wire.cost.high for wire in (await free.run("go")).wire_attempts[:2])
            endpoint.requests.clear()
            assert each is not None
            assert first is not None
            async with Brain(model, tools=[fetch], planning="graph", cost_limit=first + 2 * each) as limited:
                with pytest.raises(CostLimit) as caught:
                    await limited.run("go")
            assert len(endpoint.requests) == len(carried(caught.value).wire_attempts) == 3
            assert [each.get("value") for each in contents(carried(caught.value))][:2] == ["thought", "thought"]

    async def test_spend_from_the_budgets_of_the_run(self) -> None:
        made = plan({"id": "w", "task": "Add up"}, answer="w")
        with pytest.raises(BudgetExceeded):
            await brain(made, call("add", a=1, b=2), "never", made, budget=Budget(calls=1)).run("go")

    async def test_are_not_done_twice_after_a_crash(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        made = plan({"id": "w", "task": "Think"}, answer="w")
        first = await brain(made, call("fetch", name="x"), "thought", ledger=ledger).run("go", run_id="r")
        again = await brain(ledger=ledger).run(run_id="r")
        assert (first.output, again.output, MADE) == ("thought", "thought", ["x"])
        await ledger.aclose()

    async def test_one_that_fails_is_planned_around(self) -> None:
        made = plan({"id": "w", "task": "Think"}, step("z", name="$w"), answer="z")
        model = [made, ModelResponse(""), ModelResponse(""), plan(step("a", name="x"), answer="a")]
        result = await brain(*model).run("go")
        assert json.loads(result.output)["name"] == "x"
        assert [next(iter(each)) for each in contents(result)] == ["error", "error", "value"]

    async def test_what_a_person_decides_of_is_planned_as_a_step(self) -> None:
        made = plan({"id": "w", "task": "Pay ann"}, answer="w")
        with pytest.raises(ApprovalRequired) as caught:
            await brain(made, call("pay", to="ann"), plan(step("p", "pay", to="ann"), answer="p")).run("go")
        assert MADE == []
        assert "pay waits for a person's approval" in contents(carried(caught.value))[0]["error"]
        approvals = {caught.value.pending[0].id: True}
        result = await brain().run(history=carried(caught.value).messages, approvals=approvals)
        assert (result.output, MADE) == ("paid ann", ["pay ann"])

    async def test_a_tool_of_that_name_is_a_tool(self) -> None:
        @tool(effect="pure")
        def subtask(number: int) -> int:
            """Do a part."""
            return number + 1

        made = plan(step("a", "subtask", number=1), {"id": "w", "task": "Think"}, step("b", "subtask", number="$a"))
        result = await brain({**made, "answer": "b"}, "thought", tools=[subtask], output_type=int).run("go")
        assert result.output == 3
        assert [each.get("value") for each in contents(result)] == [2, "thought", 3]

    async def test_are_told_apart_by_what_they_are_to_do_and_by_their_data(self) -> None:
        first = plan({"id": "v", "task": "Think"}, step("b", after=["v"], name="bad"))
        second = plan(
            {"id": "w", "task": "Think"},
            {"id": "x", "task": "Think", "arguments": {"of": 1}, "after": ["w"]},
            answer="x",
        )
        result = await brain(first, "one", second, "two").run("go")
        assert result.output == "two"
        assert [each.get("value") for each in contents(result)] == ["one", None, "one", "two"]
