"""What a split is worth and what it takes: long sums that a model gets wrong whole and right in parts; then the bounds.

    python -m tests.benchmarks.thinking_decompose [--quick] [--json]

The model is simulated, with stated accuracies for short and for long sums: the figures say what the strategy makes of
those, not how any real model behaves. One sum is asked whole, and split into five; a short one, which is right whole,
is split as well, so that it is seen what that burns. Then a model that always asks for five children, under every
depth, declared number of calls and amount of money.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from decimal import Decimal
from typing import Any

from brain import Budget, Ledger, OpenAIModel, Price
from brain.asking import Asker
from brain.scaling import asker
from brain.scaling.decomposing import decompose
from brain.testing import FakeEndpoint, SimulatedModel

PRICE = Price("1.123456789", "4.987654321")
"""US dollars per million tokens; many digits, so that a rounded sum would show."""
LONG, SHORT, PARTS = 0.40, 0.96, 5
SEED = 11


def numbers(question: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", question)]


def fifths(task: str) -> list[dict[str, Any]]:
    """A sum of more than ten numbers as five shorter ones; a sum of fewer as two."""
    given = numbers(task)
    size = -(-len(given) // PARTS) if len(given) > 10 else -(-len(given) // 2)
    shares = [given[at : at + size] for at in range(0, len(given), size)]
    return [{"task": f"Add up: {', '.join(map(str, share))}", "type": "integer"} for share in shares]


def adder(**more: Any) -> SimulatedModel:
    return SimulatedModel(
        **{
            "solve": lambda question: sum(numbers(question)),
            "task_class": lambda question: "long" if len(numbers(question)) > 10 else "short",
            "accuracy": {"long": LONG, "short": SHORT},
            "splitter": fifths,
            "combiner": lambda _, answers: sum(answers),
            "price": PRICE,
            "seed": SEED,
            "name": "adder",
            "keep_requests": False,
            **more,
        }
    )


def five(**more: Any) -> SimulatedModel:
    """A model that always asks for five children."""
    return SimulatedModel(**{"solve": lambda _: 7, "splitter": 5, "price": PRICE, "seed": SEED, "name": "five", **more})


async def accuracy(what: str, by: Asker, questions: list[str], against: float | None = None) -> dict[str, Any]:
    right = calls = 0
    money = Decimal(0)
    for question in questions:
        solution = await by.solve(question, output_type=int)
        right += solution.value == sum(numbers(question))
        calls += solution.calls
        money += solution.cost.high or Decimal(0)
    share = right / len(questions)
    return {
        "strategy": what,
        "accuracy": share,
        "computed": against,
        "calls per question": calls / len(questions),
        "money per question": money / len(questions),
        "questions": len(questions),
        "target": None if against is None else "within 2 points of what is computed",
        "reached": None if against is None else abs(share - against) <= 0.02,
    }


async def calls_within(most_depth: int, caps: range) -> dict[str, Any]:
    """Every depth and fan-out by itself, then every declared number of calls."""
    over = tried = answered = calls = 0
    money = Decimal(0)
    settings: list[dict[str, Any]] = [
        {"depth": depth, "fan_out": fan} for depth in range(most_depth + 1) for fan in range(1, 6)
    ]
    settings += [{"most_calls": cap} for cap in caps]
    for setting in settings:
        by = decompose(five(splitter=setting.get("fan_out", 5)), **setting)
        solution = await by.solve("What is the sum?", output_type=int)
        assert by.most_calls is not None
        tried, calls = tried + 1, calls + solution.calls
        over += solution.calls > by.most_calls
        answered += solution.value == 7
        money += solution.cost.high or Decimal(0)
    return {
        "strategy": "always five children: calls bounded",
        "accuracy": answered / tried,
        "calls per question": calls / tried,
        "money per question": money / tried,
        "questions": tried,
        "over the bound": over,
        "target": "0 over the bound, every one answered",
        "reached": over == 0 and answered == tried,
    }


async def money_within(amounts: list[Decimal]) -> dict[str, Any]:
    """Every amount: what the ledger bears is what the endpoint billed, never more than the amount."""
    over = inexact = untyped = answered = calls = 0
    money = Decimal(0)
    for amount in amounts:
        ledger = Ledger()
        solution = await decompose(five()).solve(
            "What is the sum?", output_type=int, ledger=ledger, budget=Budget(usd=amount)
        )
        spent = ledger.spent()
        bears = sum((each.usd for each in spent), Decimal(0))
        billed = sum((wire.cost.high or Decimal(0) for wire in solution.wire_attempts), Decimal(0))
        over += bears > amount
        inexact += bears != billed or len(spent) > 1
        parts = [part for part in solution.report.root.leaves() if part.answered and part.type is not None]
        untyped += any(type(part.value) is not int for part in parts) or (solution.value is None) != bool(
            solution.stopped
        )
        answered += solution.value == 7
        calls += solution.calls
        money += bears
    return {
        "strategy": "always five children: money bounded",
        "accuracy": answered / len(amounts),
        "calls per question": calls / len(amounts),
        "money per question": money / len(amounts),
        "questions": len(amounts),
        "over the cap": over,
        "not exact": inexact,
        "not typed": untyped,
        "target": "0 over the cap, exact to the last digit, all parts typed",
        "reached": not (over or inexact or untyped),
    }


async def by_endpoint(questions: list[str]) -> dict[str, Any]:
    """The same over HTTP: what the endpoint's own meter counts is what the bill says."""
    with FakeEndpoint(adder(), models=("adder",)) as endpoint:
        model = OpenAIModel("adder", base_url=endpoint.base_url, api_key=endpoint.api_key, price=PRICE)
        row = await accuracy("split, through the endpoint", decompose(model, depth=1), questions)
        await model.aclose()
        counted = len(endpoint.meter)
    row["target"] = "the endpoint's meter says the same number of calls"
    row["reached"] = counted == round(row["calls per question"] * len(questions))
    return row


async def _measure(quick: bool) -> dict[str, Any]:
    chance = random.Random(SEED)

    def sums(count: int, long: int) -> list[str]:
        return [f"Add up: {', '.join(str(chance.randrange(10, 100)) for _ in range(long))}" for _ in range(count)]

    many = 150 if quick else 4000
    long, short = sums(many, 40), sums(many, 4)
    model = adder()
    rows = [
        await accuracy("long sums, asked whole", asker(model), long, LONG),
        await accuracy("long sums, split into five", decompose(model, depth=1), long, SHORT**PARTS),
        await accuracy("short sums, asked whole", asker(model), short, SHORT),
        await accuracy("short sums, split all the same", decompose(model, depth=1), short, SHORT**2),
        await calls_within(2 if quick else 3, range(1, 41, 6 if quick else 1)),
        await money_within([Decimal(step) / 10_000 for step in range(0, 70, 14 if quick else 1)]),
        await by_endpoint(long[: 5 if quick else 100]),
    ]
    if quick:  # so few questions say nothing of two points
        for row in rows[:4]:
            row["reached"] = None
    return {
        "rows": rows,
        "seeds": {"model": SEED, "questions": SEED},
        "model": model.describe(),
        "children": five().describe(),
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures, as plain types but for money, which is a Decimal."""
    return asyncio.run(_measure(quick))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking_decompose", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parsed = parser.parse_args()
    start = time.perf_counter()
    figures = measure(parsed.quick)
    if parsed.json:
        print(json.dumps(figures, default=str))
        return
    for row in figures["rows"]:
        computed = "" if row.get("computed") is None else f" (computed {row['computed']:.3f})"
        print(
            f"{row['strategy']:36} accuracy {row['accuracy']:.3f}{computed}, {row['calls per question']:.2f} calls,"
            f" ${row['money per question']:.9f} a question, {row['questions']} questions"
            + (f"; {row['target']}: {row['reached']}" if row["target"] else "")
        )
    print(f"seeds {figures['seeds']}; {time.perf_counter() - start:.1f} s")
    print(f"model: {json.dumps(figures['model'], default=str)}")


if __name__ == "__main__":
    main()
