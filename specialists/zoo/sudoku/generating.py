"""Makes puzzles for calibration: chance solutions from which clues are taken away while there is no other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .boards import full_grid, has_another

__all__ = ["generate", "with_clues"]

CLUES = (22, 40)


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Endless cases, independent draws of one distribution, the same for the same seed.

    9x9 puzzles with one solution. How many clues are wanted is drawn uniformly from 22 to 40. Few grids get down to 22:
    where no clue can be taken away any more the puzzle is minimal and stays so, mostly with 23 to 26 clues.
    ``expected`` is the solution.
    """
    rng = random.Random(f"calibrate sudoku {seed}")
    while True:
        solution = full_grid(rng)
        yield {"input": {"puzzle": with_clues(solution, rng.randint(*CLUES), rng)}, "expected": solution}


def with_clues(solution: str, wanted: int, rng: random.Random) -> str:
    """A puzzle with just this solution: cells are emptied in a chance order until as few are left, or none can go."""
    clues = {cell: int(digit) - 1 for cell, digit in enumerate(solution)}
    for cell in rng.sample(range(81), 81):
        if len(clues) <= wanted:
            break
        digit = clues.pop(cell)
        if has_another(clues, cell, digit):
            clues[cell] = digit
    return "".join(digit if cell in clues else "." for cell, digit in enumerate(solution))
