"""The cheapest effort that is enough, beside one effort for every question.

Run: ``python -m tests.benchmarks.thinking_effort [--json] [--quick]``. The model is simulated: at low, medium and high
effort it is right in 80, 93 and 97 %, and thinks for 100, 800 and 6,000 tokens. Climbing has a sound check, or a vote's
agreement for one. Fitting has labelled cases, and its choice is measured on questions that it has not seen; how often
it chooses a level that does not meet the target is counted over many fits, in a world where the cheapest is just below.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from decimal import Decimal
from typing import Any

from brain import OpenAIModel, Price
from brain.asking import Asker
from brain.scaling.efforts import effort
from brain.scaling.sources import asker
from brain.scaling.voting import vote
from brain.testing import FakeEndpoint, SimulatedModel

from .thinking_vote import show

__all__ = ["measure"]

SEED = 20_261_131
ACCURACY = {"low": 0.80, "medium": 0.93, "high": 0.97}
TOKENS = {"low": 100, "medium": 800, "high": 6000}
PRICE = Price("0.40", "1.60")
TARGET, CONFIDENCE = 0.9, 0.95


class AtEffort(Asker):
    """An asker at one effort, to compare with."""

    def __init__(self, source: Any, level: str) -> None:
        self._asker, self._level = asker(source, effort=level), level

    @property
    def name(self) -> str:
        return self._level

    async def ask(self, query: Any) -> Any:
        return await self._asker.ask(query)


def make(seed: int = SEED, **changed: Any) -> SimulatedModel:
    """The model; the right answer of a question is the number in it."""
    return SimulatedModel(
        **{
            "solve": lambda question: int(question.split()[1]),
            "accuracy": ACCURACY,
            "reasoning_tokens": TOKENS,
            "price": PRICE,
            "seed": seed,
            "keep_requests": False,
            **changed,
        }
    )


def question(number: int) -> str:
    return f"Case {number}"


async def asked(name: str, by: Asker, questions: range, *, check: bool = False, **more: Any) -> dict[str, Any]:
    right = calls = answered = 0
    money = Decimal(0)
    for number in questions:
        sound = (lambda value, number=number: value == number) if check else None
        solution = await by.solve(question(number), output_type=int, check=sound)
        answered += solution.answered
        right += solution.value == number
        calls += solution.calls
        money += solution.cost.low
    n = len(questions)
    return {
        "strategy": name,
        "accuracy": right / n,
        "calls per question": calls / n,
        "money per question": money / n,
        "answered": answered / n,
        "questions": n,
        **more,
    }


async def against(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """``row`` beside the dearest level: no less accurate, and for less money? ``value``: the share of money saved."""
    dearest = rows[2]
    saved = float(1 - row["money per question"] / dearest["money per question"])
    reached = row["accuracy"] >= dearest["accuracy"] and saved > 0
    return row | {"fixed": dearest["accuracy"], "value": saved, "target": 0.0, "reached": reached}


async def fits(count: int, cases: int) -> list[dict[str, Any]]:
    """How often a level is chosen that does not meet the target, where the cheapest is right in 89.5 %."""
    accuracy = {"low": 0.895, "medium": 0.95, "high": 0.97}
    chosen: dict[str | None, int] = {}
    calls, money = 0, Decimal(0)
    for number in range(count):
        model = make(SEED + number, accuracy=accuracy)
        choice = await effort(model).fit(
            [(question(at), at) for at in range(cases)], TARGET, CONFIDENCE, output_type=int
        )
        chosen[choice.level] = chosen.get(choice.level, 0) + 1
        calls += choice.calls
        money += choice.cost.low
    wrong = chosen.get("low", 0) / count
    return [
        {
            "strategy": f"fit on {cases} cases, {count} times: a level below the target chosen",
            "accuracy": None,
            "calls per question": calls / count / cases,
            "money per question": money / count / cases,
            "questions": count * cases,
            "chosen": {str(level): times for level, times in chosen.items()},
            "value": wrong,
            "target": 1 - CONFIDENCE,
            "reached": wrong <= 1 - CONFIDENCE,
        }
    ]


async def _measure(quick: bool) -> dict[str, Any]:
    many, fitted = (100, 300) if quick else (4000, 400)
    fresh = range(fitted, fitted + many)  # none of those that the choice is made by
    model = make()
    rows = [await asked(f"always {level}", AtEffort(model, level), fresh) for level in ACCURACY]
    rows.append(await against(rows, await asked("effort, a sound check", effort(model), fresh, check=True)))
    agreeing = effort(vote(model, 9), target=1.0)
    rows.append(await against(rows, await asked("effort of vote(most=9), all agree", agreeing, fresh)))
    choice = await effort(model).fit([(question(at), at) for at in range(fitted)], TARGET, output_type=int)
    row = await asked(f"effort fitted: {choice.level}", choice.asker, fresh)
    row |= {"fixed": TARGET, "value": row["accuracy"], "target": TARGET, "reached": row["accuracy"] >= TARGET}
    rows.append(row)
    rows += await fits(2 if quick else 60, 300)
    with FakeEndpoint(model, models=("simulated",)) as endpoint:
        wire = OpenAIModel("simulated", base_url=endpoint.base_url, api_key=endpoint.api_key, price=PRICE)
        some = range(fitted, fitted + (5 if quick else 100))
        told = await asked("effort, a sound check, over HTTP", effort(wire), some, check=True)
        same = await asked("", effort(model), some, check=True)
        await wire.aclose()
        equal = all(told[name] == same[name] for name in ("accuracy", "calls per question", "money per question"))
        billed = len(endpoint.meter) == round(told["calls per question"] * len(some))
    rows.append(told | {"reached": equal and billed})
    return {
        "rows": rows,
        "seeds": {"model": SEED},
        "model": model.describe(),
        "choice": choice.to_json(),
    }


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures: ``rows``, each a strategy with its accuracy, calls and money a question (a Decimal).

    ``value`` is what is held against ``target``: money saved beside always high, with at least its accuracy
    (``fixed``); the accuracy of the fitted choice on new questions; the share of fits that chose what does not meet
    the target.
    """
    return asyncio.run(_measure(quick))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking_effort", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parsed = parser.parse_args()
    figures = measure(parsed.quick)
    if parsed.json:
        print(json.dumps(figures, default=str))
        return
    show("thinking_effort", figures)


if __name__ == "__main__":
    main()
