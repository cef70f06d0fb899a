"""Which payments settle an invoice, accepted only where every check of the answer agrees.

    pip install .[cpu,dev]
    python examples/proved.py

A bookkeeper would rather leave a payment open than book it wrongly. So an answer is checked several times, each
objection is looked at once more, and only what all checks agree on is booked; the rest is left to a person. Beside it
stands what one unchecked answer books. What is right is computed afterwards, from the amounts.

Without OPENAI_API_KEY it starts a test endpoint on this machine, which speaks the same protocol, and says so. With a
key it asks the model given by --model, within --usd dollars for each of the two:

    OPENAI_API_KEY=... python examples/proved.py --model openai:gpt-4.1-mini --invoices 5

OPENAI_BASE_URL names any other OpenAI-compatible endpoint; one on this machine needs no key. The invoices with their
payments are the lines of `proved_invoices.jsonl`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
from contextlib import ExitStack
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

from brain import BrainError, Budget, Ledger, OpenAIModel, Price
from brain.scaling import Asker, asker, prove
from brain.testing import FakeEndpoint, SimulatedModel, SimulatedReviewer, SimulatedVerifier
from specialists import Cost

INVOICES = Path(__file__).parent / "proved_invoices.jsonl"


def question(row: dict[str, Any]) -> str:
    """An invoice and its payments, as a bookkeeper asks."""
    payments = ", ".join(f"{name}: {amount}" for name, amount in row["payments"].items())
    return (
        f"Invoice {row['invoice']} is over {row['total']}. Payments that came in: {payments}. Which of them together"
        " pay it to the cent? Answer with their names, in this order."
    )


def settles(text: str, names: list[str]) -> bool:
    """Whether these payments, each once, add up to the invoice of a question."""
    total = re.search(r"is over ([0-9.]+)\.", text)
    payments = dict(re.findall(r"(P\d+): ([0-9.]+\d)", text))
    if total is None or len(set(names)) < len(names) or not set(names) <= payments.keys():
        return False
    return sum((Decimal(payments[name]) for name in names), Decimal(0)) == Decimal(total[1])


def solved(text: str) -> list[str]:
    """The payments that settle it, by trying all: what the test endpoint is told to be right."""
    names = re.findall(r"(P\d+):", text)
    found = (each for count in range(1, len(names) + 1) for each in combinations(names, count))
    return list(next(each for each in found if settles(text, list(each))))


def mistaken(text: str, right: list[str], chance: random.Random) -> list[str]:
    """What the test endpoint says when it is wrong: one payment too few, too many, or another one."""
    others = [name for name in re.findall(r"(P\d+):", text) if name not in right]
    kept = [name for name in right if name != chance.choice(right)]
    return sorted(kept if chance.random() < 0.3 else [*kept, chance.choice(others)])


def clerk(name: str, stack: ExitStack) -> Any:
    """The model: the named one where there is a key, else one at the local test endpoint."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        print(f"asking {name}\n")
        return name
    simulated = SimulatedModel(
        solve=solved,
        wrong=mistaken,
        accuracy=0.6,
        verifier=SimulatedVerifier.lying(0.2),
        reviewer=SimulatedReviewer(catches=0.8),
        seed=3,
    )
    endpoint = stack.enter_context(FakeEndpoint(simulated, models=("pretend-model",)))
    print(
        f"OPENAI_API_KEY is not set: the model is a test endpoint on this machine ({endpoint.base_url}).\n"
        "It is no language model: it is told what is right, says so in 60 % of its answers, and lies in 20 % of its\n"
        "checks, of which a second look finds 80 %. Its price is made up.\n"
    )
    price = Price(input="0.40", output="1.60")  # US dollars per million tokens
    return OpenAIModel("pretend-model", base_url=endpoint.base_url, api_key=endpoint.api_key, price=price)


async def booked(name: str, ask: Asker, texts: list[str], usd: str) -> None:
    """Ask for every invoice, and say how many were booked, and how many of those rightly."""
    ledger, budget = Ledger(), Budget(usd=usd)
    right = wrong = calls = 0
    costs = []
    for text in texts:
        solution = await ask.solve(text, output_type=list[str], ledger=ledger, budget=budget)
        calls += solution.calls
        costs.append(solution.cost)
        if solution.answered:
            pays = settles(text, solution.unwrap())
            right, wrong = right + pays, wrong + (not pays)
        if sys.stderr.isatty():
            print(f"\r{right + wrong} booked", end="", file=sys.stderr)
    left = len(texts) - right - wrong
    print(
        f"{name:<12} {right} booked rightly, {wrong} wrongly, {left} left to a person;"
        f" {calls / len(texts):.2f} calls an invoice, {Cost.total(costs)} in all"
    )


async def run(arguments: argparse.Namespace) -> None:
    rows = [json.loads(each) for each in INVOICES.read_text("utf-8").splitlines() if each.strip()]
    texts = [question(row) for row in rows[: arguments.invoices]]
    with ExitStack() as stack:
        model = clerk(arguments.model, stack)
        # A limit on what is written keeps small what a budget has to set aside for each answer.
        answer = asker(model, max_output_tokens=1000)
        proof = prove(answer, verifier=answer, reviewer=answer, n=arguments.solutions, m=arguments.checks)
        await booked("one answer", answer, texts, arguments.usd)
        await booked("proved", proof, texts, arguments.usd)
        print("\none invoice in full:")
        solution = await proof.solve(texts[0], output_type=list[str], budget=Budget(usd=arguments.usd))
        print(f"  {texts[0]}\n  -> {solution.value or solution.reason}\n{solution.report}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Payments are matched with invoices, and booked only where all checks of an answer agree.",
        epilog="More checks book fewer wrongly and leave more to a person. Where checks err together, they agree on"
        " what is wrong: then only another verifier helps.",
    )
    parser.add_argument("--model", default="openai:gpt-4.1-mini", help="asked when OPENAI_API_KEY is set")
    parser.add_argument("--invoices", type=int, default=40, metavar="N", help="take the first N (default: all)")
    parser.add_argument("--solutions", type=int, default=3, metavar="N", help="tries at an invoice (default: 3)")
    parser.add_argument("--checks", type=int, default=3, metavar="M", help="checks of each (default: 3)")
    parser.add_argument("--usd", default="0.50", help="the most that each of the two may cost (default: 0.50)")
    try:
        asyncio.run(run(parser.parse_args()))
    except (BrainError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
