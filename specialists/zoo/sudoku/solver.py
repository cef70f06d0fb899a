"""The Sudoku specialist: one small network, applied again and again to its latent state until a grid obeys the rules.

Every digit of the answer is the network's own: nothing here searches or rules out candidates. A rollout starts from
noise. After every step the grid it reads as now is checked against the rules and the clues; the first that keeps them
all ends the call. A puzzle that resists gets more rollouts beside the first, each from other noise, 64 at most.
Puzzles of many callers step together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from specialists import Answer, CannotAnswer, DeadlinePassed, Effort, OnnxModel, OnnxStep, StepScheduler, specialist

from .rules import HOUSES, clash, is_solved

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGES = ((1, 48), (8, 64), (64, 128))
"""Rollouts of one puzzle, and for how many steps. Those of a stage go on in the next, new ones beside them."""

FIRST = STAGES[0][1]
MORE = sum(steps for _, steps in STAGES)

TIME_TO_SPARE = 0.05
"""Seconds before the deadline at which the best grid so far is given."""


def encode(puzzle: str) -> NDArray[Any]:
    """The clues of 81 characters as zeros and ones: float32 (1, 81, 9)."""
    import numpy as np

    digits = np.frombuffer(puzzle.replace(".", "0").encode("ascii"), np.uint8) - ord("0")
    return np.asarray(digits[None, :, None] == np.arange(1, 10), np.float32)


def decode(logits: NDArray[Any]) -> NDArray[Any]:
    """The digit 1..9 that the network holds for likeliest in each cell: float32 (n, 81, 9) -> int64 (n, 81)."""
    grids: NDArray[Any] = logits.argmax(2) + 1
    return grids


def valid(grids: NDArray[Any], clues: NDArray[Any]) -> NDArray[Any]:
    """Which of the grids (n, 81) keep the rules and the clues (n or 1, 81, 9): bool (n,)."""
    import numpy as np

    kept = ((grids == clues.argmax(2) + 1) | (clues.sum(2) == 0)).all(1)
    bits = np.left_shift(1, grids)[:, [cells for _, cells in HOUSES]]  # (n, 27, 9)
    return np.asarray(kept & (np.bitwise_or.reduce(bits, axis=2) == 0b1111111110).all(1))


class Rollouts(NamedTuple):
    """A puzzle with so many rollouts: those of ``carry`` go on, the others begin with noise from ``chance``."""

    clues: NDArray[Any]
    rollouts: int
    chance: Any
    carry: NDArray[Any] | None


class Reading(NamedTuple):
    """What the rollouts of a puzzle read as: the first solution, or else the grid the network is surest of."""

    grid: str
    solved: bool
    sure: float
    carry: NDArray[Any] | None


class Reasoner(OnnxStep):
    """The network's step, for rollouts that end together when one of them reads as a solution."""

    def __init__(self, network: OnnxModel) -> None:
        super().__init__(network, carry={"next_carry": "carry"}, halted=_solved, answer=_read)

    def start(self, item: Rollouts, /) -> dict[str, NDArray[Any]]:
        """The rollouts as rows."""
        import numpy as np

        have = [] if item.carry is None else [item.carry]
        shape = self.model.session.get_inputs()[1].shape[1:]
        noise = item.chance.standard_normal((item.rollouts - sum(map(len, have)), *shape), np.float32)
        clues = np.repeat(item.clues, item.rollouts, 0)
        return super().start({"clues": clues, "carry": np.concatenate([*have, noise])})


def _solved(rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return valid(decode(rows["logits"]), rows["clues"])


def _read(rows: Mapping[str, NDArray[Any]]) -> Reading:
    import numpy as np

    logits = rows["logits"]
    grids = decode(logits)
    good = np.flatnonzero(valid(grids, rows["clues"]))
    weights = np.exp(logits - logits.max(2, keepdims=True))
    sure = (1 / weights.sum(2)).mean(1)
    best = good[0] if len(good) else sure.argmax()
    return Reading("".join(map(str, grids[best].tolist())), bool(len(good)), float(sure.max()), rows["carry"])


model = OnnxModel(Path(__file__).with_name("model.onnx"))
scheduler = StepScheduler(Reasoner(model), max_steps=MORE)


async def reason(
    scheduler: StepScheduler, puzzle: str, max_steps: int | None = None, deadline: float | None = None
) -> Answer[str]:
    """Steps rollouts of `puzzle` until one reads as a solution, or `max_steps` or the time is spent.

    The confidence of a solution is 1: the rules have been checked. Otherwise the answer is the grid the network was
    surest of at its last step, and the confidence, always under one half, its mean probability of a cell's digit.
    """
    import numpy as np

    clues = encode(puzzle)
    chance = np.random.default_rng(0)  # the same puzzle always gets the same answer
    taken, limit = 0, MORE if max_steps is None else max_steps
    best = Reading(puzzle, False, 0.0, None)
    for rollouts, steps in STAGES:
        if taken == limit:
            break
        steps = min(steps, limit - taken)
        item = Rollouts(clues, rollouts, chance, best.carry)
        until = None if deadline is None else deadline - TIME_TO_SPARE
        try:
            result = await scheduler.run(item, max_steps=steps, deadline=until)
        except DeadlinePassed:
            break
        taken += result.steps
        best = result.value
        if best.solved:
            return Answer(best.grid, confidence=1.0, steps=taken)
        if result.steps < steps:
            break  # no time for more
    return Answer(best.grid, confidence=best.sure / 2, steps=taken)


@specialist(verify=is_solved, sound=True, complete=True, timeout=20.0, steps=(FIRST, MORE))
async def sudoku(
    puzzle: Annotated[
        str, Field(pattern=r"^[0-9.]{81}$", description="the 81 cells row by row, a dot or a zero for an empty one")
    ],
    effort: Effort,
) -> Answer[str]:
    """Solve a 9x9 Sudoku. The answer is the full grid, 81 digits row by row."""
    problem = clash(puzzle)
    if problem:
        raise CannotAnswer(f"this Sudoku has no solution: {problem}")
    return await reason(scheduler, puzzle, effort.max_steps, effort.deadline)
