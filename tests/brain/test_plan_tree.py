"""A plan drawn as a tree while it runs."""

from __future__ import annotations

from typing import Any

import rich.console

from brain import ApprovalRequired, Brain, PlanTree, tool
from brain.events import Plan, PlanMade, PlanStep
from brain.keys import Secret
from brain.testing import ScriptedModel


@tool(effect="pure")
def fetch(name: str) -> str:
    """Fetch."""
    if name == "bad":
        raise ValueError("gone\x1b[31m")
    return name * 2


def step(id: str, name: str, *after: str) -> dict[str, Any]:
    return {"id": id, "tool": "fetch", "arguments": {"name": name}, "after": list(after)}


async def drawn(*plans: Any) -> list[str]:
    tree, seen = PlanTree(), []
    async for event in Brain(ScriptedModel(plans), tools=[fetch], planning="graph").run_stream("go"):
        if tree.see(event):
            seen.append(str(tree))
    console = rich.console.Console(width=120)
    with console.capture() as captured:
        console.print(tree)
    assert captured.get().split() == seen[-1].split()
    return seen


async def test_steps_stand_under_the_last_that_they_need() -> None:
    plan = {
        "steps": [step("a", "x"), step("b", "y", "a"), step("c", "z", "a"), step("d", "w", "b", "c")],
        "answer": "d",
    }
    seen = await drawn(plan)
    assert seen[0].splitlines()[0] == "plan: 0 of 4 steps"
    assert all("\u00b7" in line for line in seen[0].splitlines()[1:]), "nothing has begun"
    last = seen[-1].splitlines()
    assert last[0] == "plan: 4 of 4 steps"
    assert last[1].startswith("\u2514\u2500 \u2713 a: fetch(name='x') -> xx")
    assert last[2].startswith("   \u251c\u2500 \u2713 b")
    assert last[3].startswith("   \u2514\u2500 \u2713 c")
    assert last[4].startswith("      \u2514\u2500 \u2713 d")
    assert "(needs b too)" in last[4]


async def test_a_failure_and_the_plan_after_it() -> None:
    first = {"steps": [step("a", "bad"), step("b", "y", "a")]}
    second = {"steps": [step("c", "z")], "answer": "c"}
    text = (await drawn(first, second))[-1]
    assert "\u2717 a" in text
    assert "plan 2, after a failure: 1 of 1 steps" in text
    assert "\x1b" not in text, "what a tool wrote draws nothing in a terminal"


def test_nothing_yet() -> None:
    assert str(PlanTree()) == "no plan yet"


async def test_a_step_stands_under_the_last_also_where_the_plan_names_them_in_another_order() -> None:
    plan = {"steps": [step("d", "w", "b", "c"), step("c", "z", "b"), step("a", "x"), step("b", "y", "a")]}
    lines = (await drawn({**plan, "answer": "d"}))[-1].splitlines()[1:]
    assert [line.split("\u2713 ")[1][0] for line in lines] == ["a", "b", "c", "d"]
    assert [line.index("\u2713") for line in lines] == [3, 6, 9, 12]


async def test_what_a_failure_keeps_from_beginning() -> None:
    first = {"steps": [step("a", "bad"), step("b", "y", "a"), step("c", "z", "b"), step("d", "w")]}
    seen = (await drawn(first, {"steps": [step("e", "v")], "answer": "e"}))[-1].splitlines()
    assert seen[0] == "plan: 2 of 4 steps"
    assert [line.strip("\u2502\u251c\u2514\u2500 ")[0] for line in seen[1:5]] == [
        "\u2717",
        "\u2013",
        "\u2013",
        "\u2713",
    ]


async def test_a_reference_that_finds_nothing_is_a_failure_with_its_reason() -> None:
    first = {"steps": [step("a", "x"), {"id": "b", "tool": "either", "references": {"name": "a.none"}}]}

    @tool(effect="pure")
    def fetch(name: str) -> Any:
        """Fetch."""
        return {"name": name}

    @tool(effect="pure")
    def either(name: str) -> str:
        """Either."""
        return name

    tree = PlanTree()
    model = ScriptedModel([first, {"steps": [step("c", "z")]}, "done"])
    async for event in Brain(model, tools=[fetch, either], planning="graph").run_stream("go"):
        tree.see(event)
    assert "\u2717 b: either(name=#1.none) -> the value of a" in str(tree)


async def test_what_a_person_did_not_allow_and_what_was_done_before_they_were_asked() -> None:
    @tool(requires_approval=True)
    def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    plan = {"steps": [step("a", "x"), {"id": "b", "tool": "pay", "arguments": {"amount": 3}, "after": ["a"]}]}
    brain = Brain(ScriptedModel([plan, {"steps": []}, "not paid"]), tools=[fetch, pay], planning="graph")
    tree = PlanTree()
    try:
        async for event in brain.run_stream("go"):
            tree.see(event)
    except ApprovalRequired as waits:
        pending, messages = waits.pending, waits.result.messages
    assert "\u2713 a" in str(tree)
    assert "\u00b7 b" in str(tree), "it waits for a person"

    again = PlanTree()
    async for event in brain.run_stream(history=messages, approvals={pending[0].id: False}):
        again.see(event)
    lines = str(again).splitlines()
    assert lines[0] == "plan: 2 of 2 steps"
    assert lines[1].endswith("\u2713 a: fetch(name='x') -> xx")
    assert lines[2].endswith("\u2717 b: pay(amount=3, after #1) -> a person did not allow this call")


def test_keys_and_odd_steps_draw_nothing() -> None:
    key = "sk-" + "k" * 60
    secret = Secret(key)
    odd = PlanStep("t\x1b[2J\n", {"name": key, "half": "\ud800"}, id="\u202e\x07")
    task = PlanStep("subtask", {}, task=f"use {key}", after=(0,))
    tree = PlanTree()
    assert tree.see(PlanMade(Plan((odd, task)), ("1", "2")))
    text = str(tree)
    assert secret.reveal() == key, "it is held"
    assert "kkkk" not in text
    assert all(each.isprintable() for each in text.replace("\n", ""))
    assert len(text.splitlines()) == 3
    text.encode()


def test_hundreds_of_steps() -> None:
    steps = tuple(PlanStep("t", {}, after=tuple(range(max(0, place - 70), place))) for place in range(300))
    tree = PlanTree()
    tree.see(PlanMade(Plan(steps), tuple(map(str, range(300)))))
    assert len(str(tree).splitlines()) == 301
