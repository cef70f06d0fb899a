"""What judging, refining, proving and step checks are worth, beside what is computed for them, and what they take.

    python -m tests.benchmarks.thinking_checks [--quick] [--json]

The models are simulated, with stated accuracies: the figures say what a strategy makes of those, not how any real model
behaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from brain import Price
from brain.scaling import Asker, Solution, asker, check_steps, judge, prove, prove_precision, refine, refine_bound
from brain.testing import (
    SimulatedJudge,
    SimulatedModel,
    SimulatedReviewer,
    SimulatedReviser,
    SimulatedVerifier,
    polish,
)

__all__ = ["measure"]

SEED = 20_261_130
PRICE = Price("0.25", "2")
LIES, CATCHES = 0.2, 0.8
NONSENSE = 0.03


def right(text: str) -> int:
    """The answer to "What is number N?", also where it is quoted."""
    found = re.search(r"What is number (\d+)\?", text)
    assert found is not None
    return int(found[1])


def simulated(name: str = "solver", **more: Any) -> SimulatedModel:
    settings: dict[str, Any] = {"accuracy": 0.6, "variety": 20, **more}
    return SimulatedModel(solve=right, price=PRICE, seed=SEED, name=name, keep_requests=False, **settings)


class Explained(BaseModel):
    """An answer with its steps."""

    answer: int
    steps: list[str]


class Sum:
    """Questions added up."""

    def __init__(self) -> None:
        self.questions = self.correct = self.answered = self.calls = self.most = 0
        self.money = Decimal(0)

    def add(self, solution: Solution[Any], correct: bool) -> None:
        self.questions += 1
        self.correct += correct
        self.answered += solution.answered
        self.calls += solution.calls
        self.most = max(self.most, solution.calls)
        self.money += solution.cost.high or Decimal(0)

    def row(self, strategy: str, **more: Any) -> dict[str, Any]:
        return {
            "strategy": strategy,
            "accuracy": self.correct / self.questions,
            "answered": self.answered / self.questions,
            "calls per question": self.calls / self.questions,
            "money per question": self.money / self.questions,
            "questions": self.questions,
            **more,
        }


async def asked(ask: Asker, questions: int, see: Callable[[Solution[Any], int], None] | None = None) -> Sum:
    total = Sum()
    for number in range(questions):
        solution = await ask.solve(f"What is number {number}?", output_type=int, seed=number)
        total.add(solution, solution.answered and solution.value == number)
        if see is not None:
            see(solution, number)
    return total


async def judging(questions: int) -> list[dict[str, Any]]:
    """A judge who goes by place alone, and one who sees something."""
    rows = []
    for name, sees, judged in (("who goes by place", 0.0, questions), ("who sees seven of ten", 0.7, questions // 4)):
        outcomes = {"one": 0, "other": 0, "tie": 0}

        def see(solution: Solution[Any], number: int, outcomes: dict[str, int] = outcomes) -> None:
            for pair in solution.report.pairs:
                outcomes[pair.outcome] += 1

        by = simulated("judge", judge=SimulatedJudge(accuracy=sees, prefers_first=0.7))
        total = await asked(judge(simulated(accuracy=0.5), by=by), judged, see)
        pairs = sum(outcomes.values())
        bias = abs(outcomes["one"] - outcomes["other"]) / pairs
        error = math.sqrt((outcomes["one"] + outcomes["other"]) / pairs / pairs)
        target = "bias under 2 %" if sees == 0 else None
        rows.append(
            total.row(
                f"judge {name}",
                bias=bias,
                standard_error=error,
                ties=outcomes["tie"] / pairs,
                pairs=pairs,
                target=target,
                reached=bias < 0.02 if target else None,
            )
        )
    return rows


async def refining(questions: int) -> list[dict[str, Any]]:
    """Revisions that harm half of what is right, under checks from sound to noisy."""
    rows = []
    for misses, accuses in ((0.0, 0.0), (0.0, 0.2), (0.2, 0.2), (0.4, 0.3)):
        worse = 0

        def see(solution: Solution[Any], number: int) -> None:
            nonlocal worse
            worse += solution.report.rounds[0].value == number and solution.value != number

        solver = simulated(reviser=SimulatedReviser(mends=0.5, harms=0.5))
        check = simulated("verifier", verifier=SimulatedVerifier(misses=misses, accuses=accuses))
        total = await asked(refine(solver, check=check, rounds=3), questions, see)
        bound = refine_bound(accuses=accuses, misses=misses, rounds=3, accuracy=0.6, harms=0.5, mends=0.5)
        rows.append(
            total.row(
                f"refine, check misses {misses:.0%}, accuses {accuses:.0%}",
                worse=worse / questions,
                computed_worse=bound,
                target="never worse" if misses == 0 else "worse at most as computed",
                reached=worse == 0 if misses == 0 else worse / questions <= bound,
            )
        )
    return rows


async def proving(questions: int) -> list[dict[str, Any]]:
    """A verifier who lies, and a second one who catches most lies."""
    rows = [(await asked(asker(simulated(accuracy=0.5)), questions)).row("one solution, not checked", target=None)]
    for checks, reviewed in ((1, False), (3, False), (1, True), (2, True), (3, True)):
        by = simulated("verifier", verifier=SimulatedVerifier.lying(LIES), reviewer=SimulatedReviewer(catches=CATCHES))
        ask = prove(simulated(accuracy=0.5), by, by if reviewed else None, n=3, m=checks)
        total = await asked(ask, questions)
        precision = total.correct / total.answered
        computed, _ = prove_precision(
            0.5, misses=LIES, accuses=LIES, m=checks, n=3, catches=CATCHES if reviewed else 0.0
        )
        most = ask.most_calls
        rows.append(
            total.row(
                f"prove, {checks} checks, {'objections reviewed' if reviewed else 'objections stand'}",
                precision=precision,
                computed_precision=computed,
                most=total.most,
                declared=most,
                target="precision within 2 points of what is computed, never above the declared calls",
                reached=abs(precision - computed) <= 0.02 and most is not None and total.most <= most,
            )
        )
    return rows


async def step_checking(questions: int) -> list[dict[str, Any]]:
    """Convincing nonsense that a checker of looks scores highest: picked by score, and by what is here."""
    rows = []
    solver = simulated(accuracy=0.6, nonsense=NONSENSE)
    ask = asker(solver)

    async def best_of(count: int) -> Sum:
        total = Sum()
        for number in range(questions):
            found = []
            for sample in range(count):
                text = f"What is number {number}?"
                found.append(await ask.solve(text, output_type=Explained, seed=number * 1000 + sample))
            best = max(found, key=lambda each: polish(each.value))
            total.add(best, best.value.answer == number)
            total.calls += sum(each.calls for each in found) - best.calls
            total.money += sum((each.cost.high or Decimal(0) for each in found if each is not best), Decimal(0))
        return total

    for count in (1, 8, 128):
        rows.append((await best_of(count)).row(f"best of {count} by looks", target=None))
    single = rows[0]["accuracy"]
    for count in (8, 128):
        for floor in (0.999, 0.85):
            wanted = [0]  # what the second check knows, and no one else
            ours = check_steps(
                solver,
                lambda value, floor=floor: polish(value) >= floor,
                lambda value, wanted=wanted: value.answer == wanted[0],
                n=count,
            )
            total = Sum()
            for number in range(questions):
                wanted[0] = number
                solution = await ours.solve(f"What is number {number}?", output_type=Explained, seed=number)
                total.add(solution, solution.answered and solution.value.answer == number)
            alarm = ours.trust.alarm
            rows.append(
                total.row(
                    f"check_steps of {count}, veto below {floor}",
                    alarm_at=None if alarm is None else alarm.samples,
                    single=single,
                    target="at least a single sample's accuracy; alarm within 500 calls",
                    reached=total.correct / questions >= single and alarm is not None and alarm.samples <= 500,
                )
            )
    return rows


def measure(quick: bool = False) -> dict[str, Any]:
    """The figures, by part."""

    async def all_of() -> list[dict[str, Any]]:
        return [
            *await judging(400 if quick else 24_000),
            *await refining(100 if quick else 4000),
            *await proving(100 if quick else 4000),
            *await step_checking(4 if quick else 100),
        ]

    rows = asyncio.run(all_of())
    if quick:  # so few questions reach nothing and miss nothing
        rows = [{**row, "reached": None} for row in rows]
    return {"rows": rows, "seeds": [SEED], "model": simulated().describe()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking_checks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parsed = parser.parse_args()
    figures = measure(parsed.quick)
    if parsed.json:
        print(json.dumps(figures, default=str))
        return
    for row in figures["rows"]:
        more = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
            if key not in ("strategy", "accuracy", "calls per question", "money per question", "target", "reached")
        )
        end = "" if row["target"] is None else f"; {row['target']}: {row['reached']}"
        print(
            f"{row['strategy']:44} accuracy {row['accuracy']:.3f}, {row['calls per question']:.2f} calls,"
            f" ${row['money per question']:.7f} a question; {more}{end}"
        )


if __name__ == "__main__":
    main()
