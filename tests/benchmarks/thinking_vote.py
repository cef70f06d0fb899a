"""A vote beside the binomial distribution, and its early stop beside fixed votes of equal error.

Run: ``python -m tests.benchmarks.thinking_vote [--json] [--quick]``. The model is simulated: a single sample is right
with probability 0.6, else wrong in one way, independently (or, where a row says so, not). 10,000 questions; each sample
is drawn from the model once and kept, and every rule is applied to the same samples, which it takes in the order in
which ``vote`` asks for them. That ``vote`` itself asks as many and answers the same is seen on a part of them, in
process and through a real endpoint.

"Of equal error" is taken in two ways. For every odd k: the rule that was made to err no more often than the majority
of k (:meth:`StopRule.as_good_as`), beside k. And for every lead of Wald's test, and for the early stop that ``vote``
has by default: the least odd k that errs no more often than it, computed exactly, beside what it asks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from brain import OpenAIModel, Price
from brain.asking import typed
from brain.events import ModelRequest, WireAttempt
from brain.scaling.stopping import StopRule, fixed_error
from brain.scaling.voting import vote
from brain.testing import FakeEndpoint, SimulatedModel

from .report import machine

__all__ = ["measure"]

SEED = 20_261_130
ACCURACY = 0.6
PRICE = Price("0.40", "1.60")
SIZES = tuple(range(1, 32, 2))
POINTS = 0.02
"""How far a vote may be from the binomial."""
SAVING = 0.30
LEADS = (2, 3, 4, 5)


def make(correlation: float = 0.0, seed: int = SEED) -> SimulatedModel:
    """The model; the right answer of a question is the number in it."""
    return SimulatedModel(
        solve=lambda question: int(question.split()[1]),
        accuracy=ACCURACY,
        correlation=correlation,
        price=PRICE,
        seed=seed,
        keep_requests=False,
    )


def question(number: int) -> str:
    return f"Case {number}"


class Samples:
    """The samples of every question, drawn when they are first wanted."""

    def __init__(self, model: SimulatedModel, questions: int) -> None:
        self.model = model
        self.rows: list[list[bool]] = [[] for _ in range(questions)]
        self.costs: list[list[Decimal]] = [[] for _ in range(questions)]
        self._schema = typed(int).schema

    async def sample(self, at: int, number: int) -> bool:
        """Whether sample ``number`` (from 1) of the question ``at`` is right: what a vote's sample would be."""
        row, costs = self.rows[at], self.costs[at]

        def made(attempt: WireAttempt) -> None:
            costs.append(attempt.cost.low)

        while len(row) < number:
            request = ModelRequest(
                [{"role": "user", "content": question(at)}],
                output_schema=self._schema,
                output_name="answer",
                seed=len(row) + 1,
            )
            answer = await self.model.ask(request, on_attempt=made)
            row.append(json.loads(answer.text or "")["answer"] == at)
        return row[number - 1]


async def apply(rule: StopRule, samples: Samples) -> dict[str, Any]:
    """What a rule makes of every question; ``asked`` and ``right`` are of each."""
    asked, right, money = [], [], Decimal(0)
    for at in range(len(samples.rows)):
        lead = count = 0
        first = False
        while not rule.stops(count, abs(lead)):
            count += 1
            good = await samples.sample(at, count)
            first = good if count == 1 else first
            lead += 1 if good else -1
        asked.append(count)
        right.append(lead > 0 or (lead == 0 and first))
        money += sum(samples.costs[at][:count])
    n = len(asked)
    return {
        "accuracy": sum(right) / n,
        "calls per question": sum(asked) / n,
        "money per question": money / n,
        "questions": n,
        "asked": asked,
        "right": right,
    }


def bound(k: int) -> float:
    """Samples that no rule can do without on average that errs as seldom as the majority of ``k``: mixtures of two of
    Wald's tests, which are the best there are (Wald and Wolfowitz, 1948)."""
    error, odds = fixed_error(k, ACCURACY), ACCURACY / (1 - ACCURACY)
    points = [(0.5, 0.0)]
    for lead in range(1, 40):
        wrong = 1 / (1 + odds**lead)
        points.append((wrong, lead * (1 - 2 * wrong) / (2 * ACCURACY - 1)))
    for (high, few), (low, many) in pairwise(points):
        if low <= error <= high:
            return few + (many - few) * (high - error) / (high - low)
    raise ValueError(f"no mixture errs as seldom as the majority of {k}")


def equal(error: float) -> int:
    """The least odd k whose majority errs no more often."""
    return next(k for k in range(1, 400, 2) if fixed_error(k, ACCURACY) <= error * (1 + 1e-12))


async def fixed(samples: Samples, sizes: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for k in sizes:
        found = await apply(StopRule.fixed(k), samples)
        exact = 1 - fixed_error(k, ACCURACY)
        off = abs(found["accuracy"] - exact)
        name = "a single sample" if k == 1 else f"vote of {k}, all asked"
        rows.append(_row(name, found, computed=exact, target=POINTS, value=off, reached=off <= POINTS))
    return rows


async def early(samples: Samples, sizes: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for k in sizes[1:]:
        rule = StopRule.as_good_as(k, ACCURACY)
        found, told = await apply(rule, samples), rule.predict(ACCURACY)
        saving = 1 - found["calls per question"] / k
        least = bound(k)
        rows.append(
            _row(
                f"early stop, as good as {k}",
                found,
                computed=1 - told.error,
                fixed=1 - fixed_error(k, ACCURACY),
                most=rule.most,
                target=SAVING,
                value=saving,
                best=1 - least / k,
                reached=saving >= SAVING,
            )
        )
    defaults = (5, 9, 15, 21, 31) if len(sizes) == len(SIZES) else (5, 9)
    rules = [(f"early stop, lead of {lead}", StopRule.lead(lead, 1000)) for lead in LEADS]
    rules += [(f"early stop by default, most={k}", StopRule.predictive(k, 0.05)) for k in defaults]
    for name, rule in rules:
        found, told = await apply(rule, samples), rule.predict(ACCURACY)
        k = equal(told.error)
        saving = 1 - found["calls per question"] / k
        rows.append(
            _row(
                name,
                found,
                computed=1 - told.error,
                fixed=1 - fixed_error(k, ACCURACY),
                beside=k,
                most=rule.most,
                target=SAVING,
                value=saving,
                reached=saving >= SAVING,
            )
        )
    return rows


async def by_vote(samples: Samples, questions: int) -> list[dict[str, Any]]:
    """The strategy itself on the first questions: does it ask as many, and answer the same?"""
    rows = []
    for name, rule in (
        ("vote(most=9)", StopRule.predictive(9, 0.05)),
        ("vote, as good as 15", StopRule.as_good_as(15, ACCURACY)),
        ("vote(most=9, early_stop=False)", StopRule.fixed(9)),
    ):
        expected = await apply(rule, samples)
        rows.append(await _asked(name, samples.model, rule, questions, expected))
    return rows


async def by_endpoint(samples: Samples, questions: int) -> dict[str, Any]:
    """The same through HTTP."""
    expected = await apply(StopRule.predictive(9, 0.05), samples)
    with FakeEndpoint(samples.model, models=("simulated",)) as endpoint:
        model = OpenAIModel("simulated", base_url=endpoint.base_url, api_key=endpoint.api_key, price=PRICE)
        row = await _asked("vote(most=9), over HTTP", model, StopRule.predictive(9, 0.05), questions, expected)
        await model.aclose()
        metered = len(endpoint.meter)
    return row | {
        "metered": metered,
        "reached": row["reached"] and metered == round(row["calls per question"] * questions),
    }


async def _asked(name: str, model: Any, rule: StopRule, questions: int, expected: dict[str, Any]) -> dict[str, Any]:
    told = vote(model, early_stop=rule)
    right = calls = same = 0
    money = Decimal(0)
    for at in range(questions):
        solution = await told.solve(question(at), output_type=int)
        right += solution.value == at
        calls += solution.calls
        money += solution.cost.low
        same += (solution.report.asked, solution.value == at) == (expected["asked"][at], expected["right"][at])
    found = {
        "accuracy": right / questions,
        "calls per question": calls / questions,
        "money per question": money / questions,
        "questions": questions,
    }
    return _row(name, found, target=1.0, value=same / questions, reached=same == questions)


async def correlated(seeds: Sequence[int], questions: int) -> list[dict[str, Any]]:
    """Does the report say so, and only then?"""
    rows = []
    for correlation in (0.0, 0.5, 0.8):
        said = 0
        accuracy = calls = predicted = 0.0
        money = Decimal(0)
        for seed in seeds:
            told = vote(make(correlation, seed))
            found = await told.measure([(question(at), at) for at in range(questions)], output_type=int)
            said += found.correlation.independence == "contradicted"
            accuracy += found.accuracy
            predicted += found.predicted or math.nan
            calls += found.calls / questions
            money += found.cost.low / questions
        n = len(seeds)
        share = said / n
        found_row = {
            "accuracy": accuracy / n,
            "calls per question": calls / n,
            "money per question": money / n,
            "questions": questions * n,
        }
        rows.append(
            _row(
                f"vote(most=9).measure, correlation {correlation:g}",
                found_row,
                computed=predicted / n,
                target=0.05 if correlation == 0 else 1.0,
                value=share,
                reached=share <= 0.05 if correlation == 0 else share == 1.0,
            )
        )
    return rows


def elsewhere(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Rules that were made for an accuracy of 0.6, where it is another: exact, nothing is drawn."""
    rows = []
    for accuracy in (0.55, 0.7, 0.8, 0.9):
        for k in sizes:
            told = StopRule.as_good_as(k, ACCURACY).predict(accuracy)
            row = {
                "strategy": f"as good as {k} at 0.6, single accuracy {accuracy:g}, computed",
                "accuracy": 1 - told.error,
                "fixed": 1 - fixed_error(k, accuracy),
                "calls per question": told.samples,
                "value": 1 - told.samples / k,
            }
            rows.append(row)
    return rows


def _row(strategy: str, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    kept = {name: found[name] for name in ("accuracy", "calls per question", "money per question", "questions")}
    return {"strategy": strategy, **kept, **more}


async def _measure(quick: bool) -> dict[str, Any]:
    samples = Samples(make(), 250 if quick else 10_000)
    sizes = (1, 3, 9, 15) if quick else SIZES
    rows = await fixed(samples, sizes)
    rows += await early(samples, sizes)
    rows += elsewhere((9,) if quick else (9, 21))
    rows += await by_vote(samples, 40 if quick else 1_000)
    rows.append(await by_endpoint(samples, 10 if quick else 100))
    seeds = range(SEED, SEED + (1 if quick else 20))
    rows += await correlated(seeds, 120 if quick else 300)
    return {"rows": rows, "seeds": {"samples": SEED, "correlated": list(seeds)}, "model": make().describe()}


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures: ``rows``, each a strategy with its accuracy, calls and money a question (a Decimal).

    ``computed``: the exact accuracy where errors are independent. ``value`` is what is held against ``target``: for a
    vote of which all is asked how far it is from the binomial; for an early stop the saving beside the fixed vote of
    ``fixed`` accuracy, and ``best`` what no rule could go beyond; else the share of questions, or of seeds.
    """
    return asyncio.run(_measure(quick))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking_vote", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parsed = parser.parse_args()
    figures = measure(parsed.quick)
    if parsed.json:
        print(json.dumps(figures, default=str))
        return
    show("thinking_vote", figures)


def show(name: str, figures: dict[str, Any]) -> None:
    """The rows as a table."""
    table = Table(title=f"{name} ({machine()})", title_justify="left")
    for heading in (
        "strategy",
        "accuracy",
        "computed",
        "fixed",
        "calls",
        "money",
        "value",
        "best",
        "target",
        "reached",
    ):
        table.add_column(heading, justify="left" if heading == "strategy" else "right", overflow="fold")

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}"

    for row in figures["rows"]:
        money = row.get("money per question")
        table.add_row(
            row["strategy"],
            shown(row.get("accuracy")),
            shown(row.get("computed")),
            shown(row.get("fixed")),
            shown(row.get("calls per question")),
            "" if money is None else f"${money:.7f}",
            shown(row.get("value")),
            shown(row.get("best")),
            shown(row.get("target")),
            {None: "", True: "yes", False: "no"}[row.get("reached")],
        )
    Console(width=160).print(table)
    print(json.dumps({"seeds": figures["seeds"], "model": figures["model"]}, default=str))


if __name__ == "__main__":
    main()
