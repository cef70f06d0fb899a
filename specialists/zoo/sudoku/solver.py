"""The Sudoku specialist: one small network, applied again and again to its latent state until a grid obeys the rules.

Every digit of the answer is the network's own: nothing here searches or rules out candidates. A rollout starts from
noise. After every step the grid it reads as now is checked against the rules and the clues; the first that keeps them
all ends the call. A puzzle that resists gets more rollouts beside the first, each from other noise, 64 at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from specialists import Answer, CannotAnswer, Effort, OnnxModel, specialist

from .rules import HOUSES, clash, is_solved

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGES = ((1, 48), (8, 64), (64, 128))
"""Rollouts in one batch, and for how many steps. Those of a stage go on in the next, new ones beside them."""

FIRST = STAGES[0][1]
MORE = sum(steps for _, steps in STAGES)

model = OnnxModel(Path(__file__).with_name("model.onnx"))


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
    """Which of the grids (n, 81) keep the rules and the clues (1, 81, 9): bool (n,)."""
    import numpy as np

    kept = ((grids == clues.argmax(2) + 1) | (clues.sum(2) == 0)).all(1)
    bits = np.left_shift(1, grids)[:, [cells for _, cells in HOUSES]]  # (n, 27, 9)
    return np.asarray(kept & (np.bitwise_or.reduce(bits, axis=2) == 0b1111111110).all(1))


async def reason(
    network: OnnxModel, puzzle: str, max_steps: int | None = None, remaining: Callable[[], float | None] = lambda: None
) -> Answer[str]:
    """Steps `network` on `puzzle` until a rollout reads as a solution, or `max_steps` or the time is spent.

    The confidence of a solution is 1: the rules have been checked. Otherwise the answer is the grid the network was
    surest of at its last step, and the confidence, always under one half, its mean probability of a cell's digit.
    """
    import numpy as np

    clues = encode(puzzle)
    chance = np.random.default_rng(0)  # the same puzzle always gets the same answer
    shape = network.session.get_inputs()[1].shape
    carry = np.empty((0, *shape[1:]), np.float32)
    taken, limit = 0, MORE if max_steps is None else max_steps
    best, surest = puzzle, 0.0
    for rollouts, steps in STAGES:
        noise = chance.standard_normal((rollouts - len(carry), *shape[1:]), np.float32)
        carry = np.concatenate([carry, noise])
        for _ in range(min(steps, limit - taken)):
            began = time.monotonic()
            out = await network.run(clues=np.repeat(clues, rollouts, 0), carry=carry)
            carry, logits = out["next_carry"], out["logits"]
            taken += 1
            grids = decode(logits)
            good = np.flatnonzero(valid(grids, clues))
            if len(good):
                return Answer(_text(grids[good[0]]), confidence=1.0, steps=taken)
            weights = np.exp(logits - logits.max(2, keepdims=True))
            sure = (1 / weights.sum(2)).mean(1)
            best, surest = _text(grids[sure.argmax()]), float(sure.max())
            left = remaining()
            if left is not None and left < 3 * (time.monotonic() - began) + 0.05:
                return Answer(best, confidence=surest / 2, steps=taken)
    return Answer(best, confidence=surest / 2, steps=taken)


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
    return await reason(model, puzzle, effort.max_steps, effort.remaining)


def _text(grid: NDArray[Any]) -> str:
    return "".join(map(str, grid.tolist()))
