"""A plan drawn as a tree while it runs."""

from __future__ import annotations

from typing import Any

import rich.console

from brain import Brain, PlanTree, tool
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
