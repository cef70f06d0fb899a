"""Which strategy wins where, at equal budget: worlds that differ in how errors fall and in what can be checked, and in
each the same questions, the same money a question, the same simulated model.

Every strategy spends from a budget of the same size for each question, so that none can buy its accuracy. A strategy
wins a world only where it is better than the cheapest single ask by more than chance; where none is, the table says so.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from brain import Budget, Price
from brain.scaling import Asker, asker, effort, judge, prove, refine, vote
from brain.testing import SimulatedJudge, SimulatedModel, SimulatedReviewer, SimulatedReviser, SimulatedVerifier
from specialists import Cost

__all__ = ["BUDGET", "SEED", "WORLDS", "compare", "winner"]

SEED = 20_261_130
BUDGET = "0.0150"
"""US dollars a question: one ask at high effort, or about fifteen at low."""
PRICE = Price(input=1, output=4)
ACCURACY = {"low": 0.60, "medium": 0.70, "high": 0.78, "*": 0.60}
TOKENS = {"low": 200, "medium": 800, "high": 3200, "*": 200}


def question(number: int) -> str:
    """The ``number``-th question; it has one right answer, a whole number."""
    return f"Case {number}: what is {number % 97 + 3} times {number % 89 + 7}, plus {number}?"


def right(text: str) -> int:
    """Its answer."""
    found = re.search(r"what is (\d+) times (\d+), plus (\d+)", text)
    assert found is not None
    first, second, third = map(int, found.groups())
    return first * second + third


@dataclass(frozen=True)
class World:
    """How errors fall, and what can be checked. ``sound``: whether a check of the value is at hand."""

    name: str
    sound: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def model(self) -> SimulatedModel:
        """The simulated model of this world; each of a strategy's parts asks it."""
        settings: dict[str, Any] = {
            "accuracy": ACCURACY,
            "reasoning_tokens": TOKENS,
            "variety": 5,
            "judge": SimulatedJudge(accuracy=0.7, prefers_first=0.6),
            "verifier": SimulatedVerifier.lying(0.2),
            "reviewer": SimulatedReviewer(catches=0.8, overturns=0.1),
            "reviser": SimulatedReviser(mends=0.4, harms=0.4),
            **self.more,
        }
        return SimulatedModel(solve=right, price=PRICE, seed=SEED, keep_requests=False, **settings)


WORLDS = (
    World("errors independent, nothing to check by"),
    World("errors correlated, nothing to check by", more={"correlation": 0.9}),
    World("a sound check", sound=True),
    World("a sound check, errors correlated", sound=True, more={"correlation": 0.9}),
    World(
        "right nearly always, errors correlated",
        more={"accuracy": {"low": 0.985, "medium": 0.987, "high": 0.99, "*": 0.985}, "correlation": 0.9},
    ),
    World("wrong more often than right", more={"accuracy": dict.fromkeys((*TOKENS,), 0.3), "variety": 1}),
)


@dataclass(frozen=True)
class Tried:
    """One strategy in one world. ``accuracy``: right answers, of all questions; an abstention is none."""

    strategy: str
    questions: int
    correct: int
    abstained: int
    calls: float
    money: Decimal
    most: Decimal
    """The dearest question."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.questions

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return math.sqrt(max(self.accuracy * (1 - self.accuracy), 1 / self.questions) / self.questions)

    def to_json(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "questions": self.questions,
            "accuracy": self.accuracy,
            "standard_error": self.error,
            "abstained": self.abstained / self.questions,
            "calls_per_question": self.calls,
            "money_per_question": str(self.money),
            "dearest_question": str(self.most),
        }


def strategies(world: World) -> dict[str, Callable[[Asker], Asker]]:
    """What is tried in a world, by name, as asker around the model."""
    found: dict[str, Callable[[Asker], Asker]] = {
        "one ask, low effort": lambda ask: ask,
        "vote": lambda ask: vote(ask, most=15),
        "judge": lambda ask: judge(ask, by=ask, n=4),
        "refine": lambda ask: refine(ask, rounds=6) if world.sound else refine(ask, check=ask, rounds=4),
        "prove": lambda ask: prove(ask, verifier=ask, reviewer=ask, n=3, m=2),
    }
    if world.sound:
        found["effort"] = lambda ask: effort(ask, ("low", "medium", "high"))
        found["vote, checked"] = lambda ask: vote(ask, most=15)
        del found["vote"]
    return found


async def tried(name: str, world: World, make: Callable[[Asker], Asker], questions: int, level: str | None) -> Tried:
    """One strategy over all questions."""
    ask = make(asker(world.model()))
    correct = abstained = calls = 0
    costs: list[Cost] = []
    for number in range(questions):
        text = question(number)
        wanted = right(text)
        check = (lambda value, wanted=wanted: value == wanted) if world.sound else None
        solution = await ask.solve(
            text, output_type=int, check=check, effort=level, budget=Budget(usd=BUDGET), seed=number
        )
        abstained += not solution.answered
        correct += solution.answered and solution.value == wanted
        calls += solution.calls
        costs.append(solution.cost)
    money = [cost.high or Decimal(0) for cost in costs]
    return Tried(name, questions, correct, abstained, calls / questions, sum(money, Decimal(0)) / questions, max(money))


def compare(questions: int = 600, worlds: tuple[World, ...] = WORLDS) -> dict[str, list[Tried]]:
    """Every strategy in every world."""

    async def all_of() -> dict[str, list[Tried]]:
        found: dict[str, list[Tried]] = {}
        for world in worlds:
            rows = [await tried(name, world, make, questions, "low") for name, make in strategies(world).items()]
            rows.insert(1, await tried("one ask, high effort", world, lambda ask: ask, questions, "high"))
            found[world.name] = rows
        return found

    return asyncio.run(all_of())


def winner(rows: list[Tried]) -> Tried | None:
    """The best of a world, the cheapest among equals; ``None`` where nothing is better than one cheap ask by more than
    chance (two standard errors of the difference)."""
    single = rows[0]
    best = max(rows, key=lambda row: (row.accuracy, -row.money))
    near = [row for row in rows if best.accuracy - row.accuracy <= 2 * math.hypot(best.error, row.error)]
    if single in near:
        return None
    return min(near, key=lambda row: row.money)
