"""What a plan saves in time and in repeated work, and what passing values by reference saves in tokens.

    python -m tests.benchmarks.thinking_plans [--quick] [--json]

The plans are scripted, so that only the loop is measured; the chain over a large value goes through the real local
endpoint, whose request bodies are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from itertools import pairwise
from typing import Any

from brain import Brain, OpenAIModel, tool
from brain.testing import FakeEndpoint, ScriptedModel, call

__all__ = ["measure"]

SEED = 20_261_130
LARGE = 10_000
"""Characters of the value that is passed."""


def step(id: str, tool: str, /, after: tuple[str, ...] = (), refs: Any = None, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, "arguments": arguments, "references": refs or {}, "after": list(after)}


async def diamond(quick: bool) -> list[dict[str, Any]]:
    """Four steps, two of them side by side: wall time over that of the longest path, and of all one after the other."""
    unit = 0.05 if quick else 0.2

    @tool(effect="pure")
    async def wait(seconds: float) -> float:
        """Wait."""
        await asyncio.sleep(seconds)
        return seconds

    steps = [
        step("a", "wait", seconds=unit),
        step("b", "wait", ("a",), seconds=2 * unit),
        step("c", "wait", ("a",), seconds=3 * unit),
        step("d", "wait", ("b", "c"), seconds=unit),
    ]
    brain = Brain(ScriptedModel([{"steps": steps, "answer": "d"}] * 5), tools=[wait], planning="graph", repeat_limit=9)
    best = float("inf")
    for _ in range(2 if quick else 5):
        start = time.perf_counter()
        await brain.run("go")
        best = min(best, time.perf_counter() - start)
    ratio = best / (5 * unit)
    return [
        {
            "strategy": "a diamond of four steps, time over its longest path",
            "value": ratio,
            "one after the other": 7 / 5,
            "target": "about 1 (a run's own work on top)",
            "reached": None if quick else ratio <= 1.05,
        }
    ]


async def same_answer(quick: bool) -> list[dict[str, Any]]:
    """Graphs of three levels made by chance, against the same calls one after the other."""
    chance = random.Random(SEED)

    @tool(effect="pure")
    async def mix(numbers: list[int], salt: int) -> int:
        """Mix numbers, in their order."""
        await asyncio.sleep(chance.random() / 1000)
        return (sum(place * number for place, number in enumerate(numbers, 1)) * 31 + salt) % 1_000_003

    graphs, same = 20 if quick else 300, 0
    for number in range(graphs):
        steps: list[dict[str, Any]] = []
        values: dict[str, int] = {}
        for level in range(3):
            before = [each["id"] for each in steps]
            for place in range(chance.randint(1, 4)):
                id, salt = f"s{level}{place}", chance.randrange(1000)
                sources = chance.sample(before, min(len(before), chance.randint(1, 3)))
                given = [values[each] for each in sources]
                if sources:
                    steps.append(step(id, "mix", refs={"numbers": sources}, salt=salt))
                else:
                    given = [number]
                    steps.append(step(id, "mix", numbers=given, salt=salt))
                values[id] = (sum(at * each for at, each in enumerate(given, 1)) * 31 + salt) % 1_000_003
        last = steps[-1]["id"]
        chance.shuffle(steps)
        model = ScriptedModel([{"steps": steps, "answer": last}])
        result = await Brain(model, tools=[mix], planning="graph", output_type=int).run("go")
        same += result.output == values[last]
    return [
        {
            "strategy": "graphs of three levels, same answer as one after the other",
            "questions": graphs,
            "value": same / graphs,
            "target": "all",
            "reached": same == graphs,
        }
    ]


async def fault() -> list[dict[str, Any]]:
    """A step of nine that fails, and a new plan that names all nine again."""
    made: list[str] = []

    @tool(effect="pure")
    def work(name: str) -> str:
        """Work."""
        made.append(name)
        if name == "bad":
            raise ValueError("this one fails")
        return name

    def chain(bad: int | None) -> dict[str, Any]:
        names = [f"n{place}" if place != bad else "bad" for place in range(1, 10)]
        steps = [
            step(f"s{place}", "work", (f"s{place - 1}",) if place > 1 else (), name=name)
            for place, name in enumerate(names, 1)
        ]
        return {"steps": steps, "answer": "s9"}

    await Brain(ScriptedModel([chain(7), chain(None)]), tools=[work], planning="graph").run("go")
    again = sum(made.count(f"n{place}") - 1 for place in range(1, 7))
    return [
        {
            "strategy": "a fault in step 7 of 9, calls of the first six repeated",
            "value": again,
            "target": "0",
            "reached": again == 0,
        }
    ]


async def references() -> list[dict[str, Any]]:
    """Three tools chained over a large value: how much each further request is longer."""

    @tool(effect="pure")
    def grid(size: int) -> str:
        """Make a grid."""
        return "".join("123456789."[place * place % 10] for place in range(size))

    @tool(effect="pure")
    def turned(text: str) -> str:
        """Turn a grid round."""
        return text[::-1]

    @tool(effect="pure")
    def checked(text: str) -> str:
        """Check a grid."""
        return text

    order = ["turned", "checked"]

    def by_handle(body: dict[str, Any]) -> Any:
        results = [json.loads(m["content"]) for m in body["messages"] if m["role"] == "tool"]
        if not results:
            return call("grid", size=LARGE)
        return (
            "done"
            if len(results) > len(order)
            else call(order[len(results) - 1], text=results[-1]["preview"]["handle"])
        )

    planned = {
        "steps": [
            step("a", "grid", size=LARGE),
            step("b", "turned", refs={"text": "a"}),
            step("c", "checked", refs={"text": "b"}),
        ],
        "answer": "c",
    }
    rows = []
    for name, replies, planning in (("turn by turn", by_handle, "turns"), ("planned", lambda body: planned, "graph")):
        with FakeEndpoint(replies) as endpoint:
            model = OpenAIModel("fake-model", base_url=endpoint.base_url)
            async with Brain(model, tools=[grid, turned, checked], planning=planning) as brain:  # type: ignore[arg-type]
                await brain.run("go")
        said = [received.body["messages"] for received in endpoint.requests]
        lengths = [sum(len(json.dumps(each, separators=(",", ":"))) for each in messages) for messages in said]
        results = [len(json.dumps(m, separators=(",", ":"))) for m in said[-1] if m["role"] == "tool"]
        grown = [after - before for before, after in pairwise(lengths)]
        most = max(results, default=0)
        rows.append(
            {
                "strategy": f"references, {name}: bytes of a result in the request",
                "value": most,
                "requests": len(said),
                "with the model's own call": max(grown, default=0),
                "copied": 2 * LARGE,
                "target": "under 200 a step",
                "reached": most < 200,
            }
        )
    return rows


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures."""

    async def all_of() -> list[dict[str, Any]]:
        return [*await diamond(quick), *await same_answer(quick), *await fault(), *await references()]

    return {"rows": asyncio.run(all_of()), "seeds": [SEED]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking_plans", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parsed = parser.parse_args()
    figures = measure(parsed.quick)
    if parsed.json:
        print(json.dumps(figures))
        return
    for row in figures["rows"]:
        print(", ".join(f"{key} {value}" if key != "strategy" else str(value) for key, value in row.items()))


if __name__ == "__main__":
    main()
