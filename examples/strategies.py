"""The other ways of thinking harder, on the same invoices: efforts, a judge, refinement, checked steps.

    pip install .[cpu,dev]
    python examples/strategies.py
    python examples/strategies.py refine judge

Each strategy answers which payments settle an invoice (see `proved.py`, which has the invoices), within the same budget
an invoice; beside the share answered rightly stand the calls and the money. `check` here is the bookkeeper's own: the
amounts are added up. That is a sound check, and with one at hand the cheapest strategy is to ask until it passes; the
judge and the step checks do without it.

Without OPENAI_API_KEY it starts a test endpoint on this machine, which speaks the same protocol, and says so. With a
key it asks the model given by --model:

    OPENAI_API_KEY=... python examples/strategies.py --model openai:gpt-5-mini --invoices 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from proved import INVOICES, mistaken, question, settles, solved
from pydantic import BaseModel

from brain import BrainError, Budget, Ledger, OpenAIModel, Price
from brain.scaling import Asker, Solution, asker, check_steps, effort, judge, refine
from brain.testing import FakeEndpoint, SimulatedJudge, SimulatedModel, SimulatedReviser
from specialists import Cost


class Explained(BaseModel):
    """Which payments, and why."""

    payments: list[str]
    steps: list[str]


def clerk(name: str, stack: ExitStack) -> Any:
    """The model: the named one where there is a key, else one at the local test endpoint."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        print(f"asking {name}\n")
        return name
    simulated = SimulatedModel(
        solve=solved,
        wrong=mistaken,
        accuracy={"low": 0.6, "medium": 0.8, "high": 0.9, "*": 0.6},
        reasoning_tokens={"low": 100, "medium": 400, "high": 1500, "*": 100},
        judge=SimulatedJudge(accuracy=0.7, prefers_first=0.6),
        reviser=SimulatedReviser(mends=0.6, harms=0.3),
        nonsense=0.03,
        seed=3,
    )
    endpoint = stack.enter_context(FakeEndpoint(simulated, models=("pretend-model",)))
    print(
        f"OPENAI_API_KEY is not set: the model is a test endpoint on this machine ({endpoint.base_url}).\n"
        "It is no language model: it is told what is right, and says so in 60, 80 and 90 % of its answers at low,\n"
        "medium and high effort. Its price is made up.\n"
    )
    price = Price(input="0.40", output="1.60")  # US dollars per million tokens
    return OpenAIModel("pretend-model", base_url=endpoint.base_url, api_key=endpoint.api_key, price=price)


def well_formed(value: Explained) -> bool:
    """A check of steps that anybody can make: there are some, and each is a sentence."""
    return bool(value.steps) and all(len(step.split()) >= 2 for step in value.steps)


def payments_of(value: Any) -> list[str]:
    return value.payments if isinstance(value, Explained) else list(value)


async def answered(ask: Asker, text: str, arguments: argparse.Namespace, ledger: Ledger, **how: Any) -> Solution[Any]:
    return await ask.solve(text, ledger=ledger, budget=Budget(usd=arguments.usd), seed=1, **how)


async def tried(name: str, ask: Asker, texts: list[str], arguments: argparse.Namespace, how: dict[str, Any]) -> None:
    """One strategy over all invoices."""
    ledger = Ledger()
    right = wrong = calls = 0
    costs = []
    for text in texts:
        check = partial(settles, text) if how.get("check") else None
        kind = how.get("output_type", list[str])
        solution = await answered(ask, text, arguments, ledger, output_type=kind, check=check)
        calls += solution.calls
        costs.append(solution.cost)
        if solution.answered:
            pays = settles(text, payments_of(solution.unwrap()))
            right, wrong = right + pays, wrong + (not pays)
    left = len(texts) - right - wrong
    print(
        f"{name:<12} {right} of {len(texts)} right, {wrong} wrong, {left} not answered;"
        f" {calls / len(texts):.2f} calls an invoice, {Cost.total(costs)} in all"
    )


def strategies(answer: Asker) -> dict[str, tuple[Callable[[], Asker], dict[str, Any]]]:
    """Each by its name, with what its questions need."""
    return {
        "one": (lambda: answer, {}),
        "effort": (lambda: effort(answer, ("low", "medium", "high")), {"check": True}),
        "refine": (lambda: refine(answer, rounds=4), {"check": True}),
        "judge": (lambda: judge(answer, by=answer, n=3), {}),
        "check_steps": (
            lambda: check_steps(answer, well_formed, lambda value: bool(value.payments), n=7),
            {"output_type": Explained},
        ),
    }


async def run(arguments: argparse.Namespace) -> None:
    rows = [json.loads(each) for each in INVOICES.read_text("utf-8").splitlines() if each.strip()]
    texts = [question(row) for row in rows[: arguments.invoices]]
    with ExitStack() as stack:
        # A limit on what is written keeps small what a budget has to set aside for each answer.
        known = strategies(asker(clerk(arguments.model, stack), max_output_tokens=2000))
        for name in arguments.strategies or known:
            make, how = known[name]
            await tried(name, make(), texts, arguments, how)


def main() -> None:
    names = ("one", "effort", "refine", "judge", "check_steps")
    parser = argparse.ArgumentParser(
        description="Ways of thinking harder on real invoices: answers, calls and money.",
        epilog="votes, splits and proofs have programs of their own: voted.py, split_timetable.py, proved.py",
    )
    parser.add_argument("strategies", nargs="*", metavar="STRATEGY", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--model", default="openai:gpt-5-mini", help="asked when OPENAI_API_KEY is set")
    parser.add_argument("--invoices", type=int, default=40, metavar="N", help="take the first N (default: all)")
    parser.add_argument("--usd", default="0.05", help="the most that one invoice may cost (default: 0.05)")
    parsed = parser.parse_args()
    if unknown := [name for name in parsed.strategies if name not in names]:
        parser.error(f"there is no strategy {unknown[0]!r}; there are {', '.join(names)}")
    try:
        asyncio.run(run(parsed))
    except (BrainError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
