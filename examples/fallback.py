"""A brain with a fallback model: what the specialist cannot answer right goes to a big model, and is checked again.

    pip install .[cpu,dev]
    python examples/fallback.py

Without OPENAI_API_KEY it starts a test endpoint on this machine, which speaks the same protocol, and says so. With a
key it asks the model given by --model, and the receipt shows real money:

    OPENAI_API_KEY=... python examples/fallback.py --model openai:gpt-4.1-mini

OPENAI_BASE_URL names any other OpenAI-compatible endpoint; one on this machine needs no key. The requests are the lines
of `fallback_requests.txt`; the specialist and its check are those of `register_specialist.py`, asked for more than its
model has learned.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brain import Abstained, Brain, BrainError, ChatModel, OpenAIModel, Price, RunResult, Usage
from brain.testing import FakeEndpoint, Fault
from specialists import Answer, OnnxModel, Verdict, specialist

HERE = Path(__file__).parent
REQUESTS = HERE / "fallback_requests.txt"

model = OnnxModel(HERE / "whole_root.onnx")


def solves(arguments: Mapping[str, Any], value: int) -> Verdict:
    """Put x into the equation."""
    left = value * value + arguments["b"] * value + arguments["c"]
    return Verdict.passed() if left == 0 else Verdict.failed(f"x = {value} gives {left}, not 0")


@specialist(verify=solves, sound=True, complete=True, timeout=30.0)
async def whole_root(
    b: Annotated[int, Field(ge=-1000, le=1000, description="the number before x")],
    c: Annotated[int, Field(ge=-250_000, le=250_000, description="the number that stands alone")],
) -> Answer[int]:
    """Find a whole root x of the equation x*x + b*x + c = 0."""
    out = await model.run(coefficients=np.array([[b, c]], dtype=np.float32))
    odds = np.exp(out["logits"][0] - out["logits"][0].max())
    best = int(odds.argmax())
    return Answer(best - 9, confidence=float(odds[best] / odds.sum()))


class PretendModel:
    """What the test endpoint answers: 429 at first, then a root of the equation it is asked about, or a wrong one."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> Any:
        self.asked += 1
        if self.asked == 1:
            return Fault.rate_limited(retry_after=1)
        question = json.loads(body["messages"][-1]["content"])["arguments"]
        b, c = question["b"], question["c"]
        root = next((x for x in range(-1000, 1001) if x * x + b * x + c == 0), 0)
        return json.dumps({"answer": root})


def big_model(name: str, stack: ExitStack) -> ChatModel | str:
    """The model to fall back to: the named one where there is a key, else one at the local test endpoint."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        print(f"asking {name} where the specialist does not know\n")
        return name
    endpoint = stack.enter_context(FakeEndpoint(PretendModel(), models=("pretend-model",)))
    print(
        f"OPENAI_API_KEY is not set: the big model is a test endpoint on this machine ({endpoint.base_url}).\n"
        "It is no language model: it works the equation out, and its price is made up.\n"
    )
    price = Price(input="0.40", output="1.60")  # US dollars per million tokens
    return OpenAIModel("pretend-model", base_url=endpoint.base_url, api_key=endpoint.api_key, price=price)


def show(result: RunResult[Any]) -> None:
    """The ladder of each call, rung by rung, and what left the machine for it."""
    for call in result.calls:
        for attempt in call.attempts:
            said = attempt.reason or f"says {attempt.value}"
            verdict = f", {attempt.verdict.status}" if attempt.verdict else ""
            print(f"    {attempt.rung:<11} {said}{verdict}")
        print(f"    -> {call.value} by {call.answered_by}, {call.accepted_by}" if call.accepted else "    -> abstained")
    for wire in result.wire_attempts:
        tokens = "" if wire.usage.input is None else f", {wire.usage.input} in and {wire.usage.output} out"
        print(f"    wire: {wire.outcome} ({wire.status}) in {wire.seconds * 1000:.0f} ms{tokens}, {wire.cost}")


async def answer(brain: Brain[str], requests: list[str]) -> Usage:
    """Ask each request in turn; the bill of all of them."""
    total = Usage()
    for request in requests:
        print(request)
        result: RunResult[Any]
        try:
            result = await brain.run(request, timeout=60)
        except Abstained as error:
            if error.result is None:
                raise
            result = error.result  # the attempts and the bill, as far as the run got
        show(result)
        total += result.usage
        print()
    return total


async def run(model_name: str) -> None:
    requests = [line for line in REQUESTS.read_text("utf-8").splitlines() if line.strip()]
    with ExitStack() as stack:
        # No model of its own: the built-in planner plans, and only what the specialist got wrong goes out.
        async with Brain(specialists=[whole_root], fallback=big_model(model_name, stack)) as brain:
            print(await answer(brain, requests))


def main() -> None:
    parser = argparse.ArgumentParser(description="A brain whose specialists fall back to a big model.")
    parser.add_argument("--model", default="openai:gpt-4.1-mini", help="asked when OPENAI_API_KEY is set")
    try:
        asyncio.run(run(parser.parse_args().model))
    except BrainError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
