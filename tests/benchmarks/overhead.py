"""What a run costs around the model: CPU time and runs per second, beside a loop with the bare ``openai`` client.

Run: ``python -m tests.benchmarks.overhead [--json] [--picture FILE] [--quick]``. One run is two model calls and one
tool call. The endpoint answers canned bytes in a process of its own, so that only the client's work is counted. The
bare loop makes the same two ``chat.completions.create`` calls, calls the same function and keeps the same messages.
"Ready bytes" is the client as it comes, fed with two bodies written beforehand through its ``post``; nothing is done
with the answers but to read their JSON. All are measured in turns, in short rounds; a row is the median of the rounds'
ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from brain import Brain, OpenAIModel, Tool

from .canned_endpoint import CannedEndpoint
from .report import Row, report

KEY = "sk-no-key-at-all"
PROMPT = "How long does a parcel to Norway take by express?"
TOOL = {
    "type": "function",
    "function": {
        "name": "shipping_days",
        "description": "How many days a parcel takes to a country.",
        "parameters": {
            "type": "object",
            "properties": {"country": {"type": "string"}, "express": {"type": "boolean", "default": False}},
            "required": ["country"],
            "additionalProperties": False,
        },
    },
}
AT_ONCE = 32
LONG = 1000
MANY = 1000
TARGETS: dict[str, tuple[float, float]] = {"httpx": (0.6, 1.8), "aiohttp": (0.45, 2.5)}
"""By transport: CPU of a run, and runs per second, each as a ratio to the bare loop."""

Run = Callable[[], Awaitable[Any]]
Kind = Literal["httpx", "aiohttp"]


def shipping_days(country: str, express: bool = False) -> int:
    """How many days a parcel takes to a country."""
    return 2 if express else 6


def official_client(url: str, kind: Kind = "httpx") -> Any:
    """The ``openai`` client with its own transport of this kind."""
    import openai

    http = openai.DefaultAioHttpClient() if kind == "aiohttp" else None
    return openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0, http_client=http)


def bare_loop(client: Any) -> Run:
    """The loop that people write by hand."""

    async def run() -> str | None:
        messages: list[Any] = [{"role": "user", "content": PROMPT}]
        while True:
            completion = await client.chat.completions.create(
                model="m", messages=messages, tools=[TOOL], max_tokens=4096
            )
            message = completion.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                text: str | None = message.content
                return text
            for call in message.tool_calls:
                days = shipping_days(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(days)})

    return run


def ready_bytes(client: Any) -> Run:
    """Two bodies written beforehand, through the client's public ``post``."""
    import httpx2

    asked = {"role": "user", "content": PROMPT}
    call = {"id": "call_1", "type": "function", "function": {"name": "shipping_days", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    answered = {"role": "tool", "tool_call_id": "call_1", "content": "2"}
    bodies = [
        json.dumps({"model": "m", "messages": messages, "tools": [TOOL], "max_tokens": 4096}).encode()
        for messages in ([asked], [asked, called, answered])
    ]

    async def run() -> None:
        for body in bodies:
            answer = await client.post("/chat/completions", content=body, cast_to=httpx2.Response)
            json.loads(answer.content)

    return run


def brain_at(url: str, kind: Kind, tools: Sequence[Any] = (shipping_days,)) -> Brain[str]:
    """The brain that is measured, as an application would make it."""
    return Brain(OpenAIModel("m", base_url=url, api_key=KEY, transport=kind), tools=tools)


def other_tools(count: int) -> list[Any]:
    """As many tools as a large registry has, each with words of its own."""
    things = ("customer", "order", "invoice", "contract", "ticket", "country", "parcel", "employee", "supplier", "bill")
    doings = ("find", "update", "close", "list", "export", "merge", "archive", "check", "count", "print")

    def look_up(key: str, exact: bool = True) -> str:
        return key

    return [
        Tool(
            look_up,
            name=f"{doings[number % 10]}_{things[number // 10 % 10]}_{number}",
            description=f"{doings[number % 10].title()} the {things[number // 10 % 10]} of department {number // 100}.",
        )
        for number in range(count)
    ]


def long_history(count: int) -> list[dict[str, Any]]:
    """As many messages of earlier rounds: a question, a call, its answer, and what was said of it."""
    messages: list[dict[str, Any]] = []
    for number in range(count // 4):
        function = {"name": "shipping_days", "arguments": '{"country": "Norway"}'}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        messages += [
            {"role": "user", "content": f"Parcel {number}: how long does it take, and what does it cost to Norway?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": '{"value": 6, "accepted_by": "unchecked"}'},
            {"role": "assistant", "content": f"Parcel {number} takes six days; express would take two days."},
        ]
    return messages


async def cpu(runs: dict[str, Run], *, rounds: int, each: int) -> dict[str, list[float]]:
    """CPU seconds of one run of each, round by round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(each):
            await run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            for _ in range(each):
                await run()
            times[name].append((time.process_time() - start) / each)
    return times


async def rates(runs: dict[str, Run], *, rounds: int, each: int) -> dict[str, list[float]]:
    """Runs per second of each with :data:`AT_ONCE` at a time, round by round."""
    found: dict[str, list[float]] = {name: [] for name in runs}

    async def worker(run: Run) -> None:
        for _ in range(each):
            await run()

    for round in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            await asyncio.gather(*(worker(run) for _ in range(AT_ONCE)))
            if round:  # in the first, connections are made
                found[name].append(AT_ONCE * each / (time.perf_counter() - start))
    return found


def ratio(found: dict[str, list[float]], name: str, against: str) -> float:
    """Median of the ratios of each round."""
    return statistics.median(one / other for one, other in zip(found[name], found[against], strict=True))


async def measured(url: str, kinds: Sequence[Kind], quick: bool) -> list[Row]:
    """All rows."""
    rounds, each = (3, 3) if quick else (25, 20)
    history = long_history(LONG)
    text = json.dumps(history)
    clients = [official_client(url), *(official_client(url, kind) for kind in kinds)]
    runs: dict[str, Run] = {"bare": bare_loop(clients[0])}
    brains: list[Brain[str]] = []
    for kind, client in zip(kinds, clients[1:], strict=True):
        brain = brain_at(url, kind)
        many = brain_at(url, kind, [shipping_days, *other_tools(MANY - 1)])
        brains += [brain, many]
        warm = (await brain.run(PROMPT, history=history)).messages[:LONG]
        runs[f"ready, {kind}"] = ready_bytes(client)
        runs[f"run, {kind}"] = lambda brain=brain: brain.run(PROMPT)  # type: ignore[misc]
        runs[f"tools, {kind}"] = lambda many=many: many.run(PROMPT)  # type: ignore[misc]
        runs[f"history, {kind}"] = lambda brain=brain, warm=warm: brain.run(PROMPT, history=warm)  # type: ignore[misc]
        runs[f"cold, {kind}"] = lambda brain=brain: brain.run(PROMPT, history=json.loads(text))  # type: ignore[misc]
    found = await cpu(runs, rounds=rounds, each=each)
    alike = {name: run for name, run in runs.items() if name.split(",")[0] in ("bare", "ready", "run")}
    at_once = await rates(alike, rounds=2 if quick else 8, each=2 if quick else 8)
    bare_ms = 1000 * statistics.median(found["bare"])
    rows = [Row("CPU of the bare loop", bare_ms, "ms", note="two chat.completions.create calls, one tool call")]
    for kind in kinds:
        most, least = TARGETS[kind]
        extra = f"transport {kind}" + (", extra fast" if kind == "aiohttp" else ", the default without extras")
        ready, one = ratio(found, f"ready, {kind}", "bare"), ratio(at_once, f"ready, {kind}", "bare")
        run = f"run, {kind}"
        rows += [
            Row(f"CPU of one run ({kind})", ratio(found, run, "bare"), "ratio", most, "lower", "bare loop", extra),
            Row(f"  ready bytes ({kind})", ready, against="bare loop", note="the official client, fed by hand"),
            Row(f"runs/s, {AT_ONCE} at once ({kind})", ratio(at_once, run, "bare"), target=least, against="bare loop"),
            Row(f"  ready bytes ({kind})", one, against="bare loop"),
            Row(f"CPU with {LONG:,} messages of history ({kind})", ratio(found, f"history, {kind}", run), "ratio", 2.0,
                "lower", "itself with none", "the messages of an earlier result"),
            Row("  the same, read cold from JSON", ratio(found, f"cold, {kind}", run), against="itself with none"),
            Row(f"CPU with {MANY:,} tools ({kind})", ratio(found, f"tools, {kind}", run), "ratio", 2.0, "lower",
                "itself with one", "tool_limit=32"),
        ]  # fmt: skip
    for brain in brains:
        await brain.aclose()
    for client in clients:
        await client.close()
    return rows


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Start the endpoint and measure."""
    import importlib.util

    kinds: list[Kind] = ["httpx"]
    if importlib.util.find_spec("aiohttp") is not None:
        kinds.append("aiohttp")
    with CannedEndpoint() as endpoint:
        return asyncio.run(measured(endpoint.base_url, kinds, arguments.quick))


if __name__ == "__main__":
    sys.exit(report("overhead", "What a run costs around the model, beside the bare openai client.", measure))
