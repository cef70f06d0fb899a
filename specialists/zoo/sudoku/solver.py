"""The specialist `sudoku`: cells are variables, digits are values, rows, columns and boxes are groups.

Its network is that of the bundled `constraints`, which the card names. Every digit of the answer is the network's own:
nothing here searches or rules out candidates. What is here reads the puzzle, and writes the grid.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated

from pydantic import Field

from specialists import Answer, CannotAnswer, Effort, specialist
from specialists.zoo.constraints import Problem, make, think

from .rules import DIGITS, clash, houses, is_solved

__all__ = ["pose", "sudoku"]

PATTERN = r"^([0-4.]{16}|[0-6.]{36}|[0-9.]{81}|[0-9A-Ga-g.]{256})$"


def pose(puzzle: str) -> Problem:
    """The puzzle as a problem of variables and groups. Raises :class:`CannotAnswer` when two clues clash."""
    problem = clash(puzzle.upper())
    if problem:
        raise CannotAnswer(f"this Sudoku has no solution: {problem}")
    side = isqrt(len(puzzle))
    clues = {cell: DIGITS.index(clue) for cell, clue in enumerate(puzzle.upper()) if clue not in ".0"}
    return make(side, side * side, [cells for _, cells in houses(side)], clues)


@specialist(verify=is_solved, sound=True, complete=True, timeout=5.0, steps="auto")
async def sudoku(
    puzzle: Annotated[
        str,
        Field(
            pattern=PATTERN,
            description="the 81 cells row by row, a dot or a zero for an empty one; 16 or 36 cells for 4x4 or 6x6, and"
            " 256, with 1 to 9 and then A to G, for 16x16",
        ),
    ],
    *,
    effort: Effort,
) -> Answer[str]:
    """Solve a 9x9 Sudoku, or one of 4x4, 6x6 or 16x16. The answer is the full grid, its digits row by row."""
    answer = await think(pose(puzzle), effort)
    grid = "".join(DIGITS[value] for value in answer.value)
    return Answer(grid, confidence=answer.confidence, steps=answer.steps)
