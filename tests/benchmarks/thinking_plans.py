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
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from string import ascii_letters
from typing import Any

from brain import Brain, Context, OpenAIModel, tool
from brain.events import ToolCall
from brain.testing import FakeEndpoint, ScriptedModel, call
from specialists import Answer, specialist

__all__ = ["measure"]

SEED = 20_261_130
LARGE = 10_000
"""Characters of the value that is passed."""
HOSTED = 29
"""Characters of the ids that hosted endpoints give calls; each stands twice in a step."""


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
    """Graphs of three levels made by chance, against the same calls turn by turn, one after the other."""
    chance, delays = random.Random(SEED), random.Random(SEED + 1)

    def mixed(numbers: list[int], salt: int) -> int:
        return (sum(place * number for place, number in enumerate(numbers, 1)) * 31 + salt) % 1_000_003

    @tool(effect="pure")
    async def mix(numbers: list[int], salt: int) -> int:
        """Mix numbers, in their order."""
        await asyncio.sleep(delays.random() / 1000)
        return mixed(numbers, salt)

    graphs, same, made = 20 if quick else 300, 0, 0
    for number in range(graphs):
        steps: list[dict[str, Any]] = []
        values: dict[str, int] = {}
        turns: list[Any] = []
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
                values[id] = mixed(given, salt)
                turns.append(call("mix", numbers=given, salt=salt))
        last = steps[-1]["id"]
        chance.shuffle(steps)
        model = ScriptedModel([{"steps": steps, "answer": last}])
        planned = await Brain(model, tools=[mix], planning="graph", output_type=int).run("go")
        # The last step is the answer, so the last call of the run that is made one after the other is, too.
        one_by_one = await Brain(ScriptedModel([*turns, "done"]), tools=[mix], repeat_limit=99).run("go")
        same += planned.output == one_by_one.calls[-1].value and len(planned.calls) == len(one_by_one.calls)
        made += len(planned.calls)
    return [
        {
            "strategy": "graphs of three levels, same answer as one after the other",
            "questions": graphs,
            "value": same / graphs,
            "calls per question": made / graphs,
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


@specialist
def grid(size: int) -> Answer[str]:
    """Make a grid."""
    return Answer("".join("123456789."[place * place % 10] for place in range(size)), confidence=0.9)


@specialist
def prose(size: int) -> Answer[str]:
    """Write a text."""
    chance = random.Random(SEED)
    words = ("".join(chance.choices(ascii_letters, k=chance.randint(2, 9))) for _ in range(size))
    return Answer(" ".join(words)[:size], confidence=0.9)


@specialist
def turned(text: str) -> Answer[str]:
    """Turn a text round."""
    return Answer(text[::-1], confidence=0.9)


@specialist
def checked(text: str) -> Answer[str]:
    """Check a text."""
    return Answer(text, confidence=0.9)


def chained(first: str, by: Callable[[dict[str, Any]], str], characters: int = 6) -> Callable[[dict[str, Any]], Any]:
    """A model that calls three specialists one after the other, and gives each the value before as ``by`` says.

    ``characters``: of the ids of its calls.
    """
    order = ["turned", "checked"]

    def called(number: int, name: str, **arguments: Any) -> ToolCall:
        return replace(call(name, **arguments), id="call_" + str(number).zfill(characters - 5))

    def reply(body: dict[str, Any]) -> Any:
        results = [json.loads(m["content"]) for m in body["messages"] if m["role"] == "tool"]
        if not results:
            return called(1, first, size=LARGE)
        if len(results) > len(order):
            return "done"
        return called(len(results) + 1, order[len(results) - 1], text=by(results[-1]))

    return reply


async def said_by(replies: Any, **settings: Any) -> tuple[list[list[int]], list[int]]:
    """The lengths of the messages of each request of a run, and those of the results in the last, in bytes."""
    with FakeEndpoint(replies) as endpoint:
        model = OpenAIModel("fake-model", base_url=endpoint.base_url)
        async with Brain(model, specialists=[grid, prose, turned, checked], fallback=False, **settings) as brain:
            result = await brain.run("go")
    assert [outcome.tool for outcome in result.calls][1:] == ["turned", "checked"], "the chain was made"
    assert all(len(outcome.value or "") == LARGE for outcome in result.calls), "the whole value passed"
    messages = [received.body["messages"] for received in endpoint.requests]
    assert messages
    return [[length(each) for each in request] for request in messages], [
        length(each) for each in messages[-1] if each["role"] == "tool"
    ]


def length(message: dict[str, Any]) -> int:
    return len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())


async def references() -> list[dict[str, Any]]:
    """Three specialists chained over a large value: by how much each further request is longer, in bytes."""

    def handle(result: dict[str, Any]) -> str:
        return str(result["preview"]["handle"])

    def value(result: dict[str, Any]) -> str:
        return str(result["value"])

    plan = {
        "steps": [
            step("a", "grid", size=LARGE),
            step("b", "turned", refs={"text": "a"}),
            step("c", "checked", refs={"text": "b"}),
        ]
    }
    copied, _ = await said_by(chained("grid", value), context=Context(1_000_000, preview_above=10 * LARGE))
    copying = max(after - before for before, after in pairwise(map(sum, copied)))
    rows: list[dict[str, Any]] = []

    def row(of: str, bytes: int, requests: int, limit: int | None = 200) -> None:
        rows.append(
            {
                "strategy": f"references, {of}",
                "value": bytes,
                "requests": requests,
                "copied": copying,
                "target": None if limit is None else f"under {limit} bytes a step",
                "reached": None if limit is None else bytes < limit,
            }
        )

    for first, characters in (("grid", 6), ("grid", HOSTED), ("prose", 6)):
        requests, results = await said_by(chained(first, handle, characters))
        limit = 200 if first == "grid" else None
        grown = max(after - before for before, after in pairwise(map(sum, requests)))
        name = first if characters == 6 else f"{first}, ids of {characters} characters"
        row(f"turn by turn, {name}: a result", max(results), len(requests), limit)
        row(f"turn by turn, {name}: a step, with the model's own call", grown, len(requests), limit)
    requests, _ = await said_by([{**plan, "answer": "c"}], planning="graph")
    row("planned, grid: a step", (sum(requests[-1]) - sum(requests[0])) // 3, len(requests))
    requests, results = await said_by([plan, "done"], planning="graph")
    own = sum(requests[-1]) - requests[-1][0]
    row("planned, the model words the answer, grid: a result", max(results), len(requests))
    row("planned, the model words the answer, grid: a step, with its share of the plan", own // 3, len(requests))
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
