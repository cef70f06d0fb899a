"""An inbox read by a plan: the calls are planned at once, run in parallel, and drawn as a tree while they run.

    pip install .[cpu,dev]
    python examples/planned.py

Each message is routed by the bundled `intent` specialist, and the desks are counted at the end; a message that cannot
be routed fails its step only, and what is left is planned anew. Results pass from step to step by reference.

Without OPENAI_API_KEY the plan comes from a test endpoint on this machine, and it says so. With a key the model given
by --model plans; --planner has the built-in planner do it, which needs neither:

    OPENAI_API_KEY=... python examples/planned.py --model openai:gpt-4.1-mini
    python examples/planned.py --planner "Route this message: 'I lost my card'"

OPENAI_BASE_URL names any other OpenAI-compatible endpoint; one on this machine needs no key.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.live import Live

from brain import Brain, BrainError, Done, OpenAIModel, PlanTree, Price, tool
from brain.testing import FakeEndpoint

MESSAGES = (
    "I lost my wallet, please block my card",
    "What is the balance of my checking account?",
    "Play some jazz in the kitchen",
    "",
)


@tool(effect="pure")
def message(number: int) -> str:
    """The text of a message of the inbox, from 1."""
    text = MESSAGES[number - 1]
    if not text:
        raise ValueError(f"message {number} is empty")
    return text


@tool(effect="pure")
def desks(routes: list[Any]) -> str:
    """How many messages go where."""
    found = [str(each.get("label", each) if isinstance(each, dict) else each) for each in routes]
    return ", ".join(f"{found.count(name)} x {name}" for name in dict.fromkeys(found))


def plan(numbers: list[int]) -> dict[str, Any]:
    """What the test endpoint plans: read each message, route it, count the desks."""
    steps: list[dict[str, Any]] = []
    for number in numbers:
        steps.append({"id": f"read{number}", "tool": "message", "arguments": {"number": number}})
        steps.append({"id": f"route{number}", "tool": "intent", "references": {"text": f"read{number}"}})
    steps.append({"id": "desks", "tool": "desks", "references": {"routes": [f"route{number}" for number in numbers]}})
    return {"steps": steps, "answer": "desks"}


def planning(name: str, stack: ExitStack) -> Any:
    """The model that plans: the named one where there is a key, else one at the local test endpoint."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        print(f"asking {name}\n")
        return name
    # All four messages first; after the failure of the empty one, the three that can be read.
    endpoint = stack.enter_context(FakeEndpoint([plan([1, 2, 3, 4]), plan([1, 2, 3])], models=("pretend-model",)))
    print(
        f"OPENAI_API_KEY is not set: the plan comes from a test endpoint on this machine ({endpoint.base_url}).\n"
        "It is no language model, and its price is made up.\n"
    )
    price = Price(input="0.40", output="1.60")  # US dollars per million tokens
    return OpenAIModel("pretend-model", base_url=endpoint.base_url, api_key=endpoint.api_key, price=price)


async def run(arguments: argparse.Namespace) -> None:
    tree, console = PlanTree(), Console()
    with ExitStack() as stack:
        model = None if arguments.planner else planning(arguments.model, stack)
        request = arguments.request or "Read messages 1 to 4, route each of them, and count the desks."
        tools: list[Callable[..., Any]] = [message, desks]
        async with Brain(model, tools=tools, specialists=["intent"], fallback=False, planning="graph") as brain:
            result = None
            with Live(tree, console=console, auto_refresh=False, transient=not console.is_terminal) as live:
                async for event in brain.run_stream(request):
                    if tree.see(event):
                        live.refresh()
                    if isinstance(event, Done):
                        result = event.result
            if not console.is_terminal:
                print(tree)
            if result is not None:
                print(f"\n{result.output}\n\n{result.usage}")


def main() -> None:
    parser = argparse.ArgumentParser(description="An inbox read by a plan that is drawn while it runs.")
    parser.add_argument("request", nargs="?", help="what is wanted (default: read and route the inbox)")
    parser.add_argument("--model", default="openai:gpt-4.1-mini", help="asked when OPENAI_API_KEY is set")
    parser.add_argument("--planner", action="store_true", help="have the built-in planner plan; it needs no key")
    try:
        asyncio.run(run(parser.parse_args()))
    except BrainError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
