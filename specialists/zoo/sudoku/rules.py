"""The rules of Sudoku: what a finished grid must be, and when two clues already break them.

Sound and complete for the task: a grid passes if and only if every row, column and box holds each digit once and every
clue stands. A puzzle with several solutions has several right answers; each of them passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt
from typing import Any

from specialists import Verdict

__all__ = ["BOXES", "DIGITS", "clash", "houses", "is_right", "is_solved"]

DIGITS = "123456789ABCDEFG"
"""A grid with a side of n cells has the first n of these."""

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 16: (4, 4)}
"""Rows and columns of a box, by the cells of a side."""


@lru_cache
def houses(side: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The groups of ``side`` cells that hold each digit once, by name. Cells count from 0 row by row, boxes likewise
    from 1.
    """
    high, wide = BOXES[side]
    across = side // wide
    lines = range(side)
    return (
        *((f"row {r + 1}", tuple(r * side + c for c in lines)) for r in lines),
        *((f"column {c + 1}", tuple(r * side + c for r in lines)) for c in lines),
        *(
            (
                f"box {b + 1}",
                tuple((b // across * high + i // wide) * side + b % across * wide + i % wide for i in lines),
            )
            for b in lines
        ),
    )


def clash(grid: str) -> str | None:
    """Says which digit stands twice in which row, column or box of `grid` (one character a cell, `.` or `0`: empty)."""
    for name, cells in houses(isqrt(len(grid))):
        digits = [grid[cell] for cell in cells if grid[cell] not in ".0"]
        for digit in digits:
            if digits.count(digit) > 1:
                return f"the digit {digit} stands twice in {name}"
    return None


def is_solved(arguments: Mapping[str, Any], value: object) -> Verdict:
    """Passes `value` if it fills the grid of `arguments["puzzle"]` with digits that keep its clues and the rules."""
    puzzle = str(arguments["puzzle"]).upper()
    side = isqrt(len(puzzle))
    if side not in BOXES or side * side != len(puzzle):
        return Verdict.failed(f"a puzzle of {len(puzzle)} cells is none of {', '.join(str(n * n) for n in BOXES)}")
    digits = DIGITS[:side]
    if not isinstance(value, str) or len(value) != len(puzzle) or not set(value) <= set(digits):
        return Verdict.failed(f"the answer is not {len(puzzle)} digits from {digits[0]} to {digits[-1]}")
    for cell, (clue, digit) in enumerate(zip(puzzle, value, strict=True)):
        if clue not in ".0" and clue != digit:
            return Verdict.failed(f"the clue {clue} in row {cell // side + 1}, column {cell % side + 1} became {digit}")
    problem = clash(value)
    return Verdict.failed(problem) if problem else Verdict.passed()


def is_right(arguments: Mapping[str, Any], expected: object, value: object) -> bool:
    """Whether `value` is a solution: the expected one, or any other where the puzzle has several."""
    return is_solved(arguments, value).status == "passed"
