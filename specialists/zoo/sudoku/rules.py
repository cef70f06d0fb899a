"""The rules of Sudoku: what a finished grid must be, and when two clues already break them.

Sound and complete for the task: a grid passes if and only if every row, column and box holds each digit once and every
clue stands. A puzzle with several solutions has several right answers; each of them passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specialists import Verdict

HOUSES: tuple[tuple[str, tuple[int, ...]], ...] = (
    *((f"row {r + 1}", tuple(r * 9 + c for c in range(9))) for r in range(9)),
    *((f"column {c + 1}", tuple(r * 9 + c for r in range(9))) for c in range(9)),
    *((f"box {b + 1}", tuple((b // 3 * 3 + i // 3) * 9 + b % 3 * 3 + i % 3 for i in range(9))) for b in range(9)),
)
"""The 27 groups of nine cells, by name. Cells count 0..80 row by row, boxes 1..9 likewise."""


def clash(grid: str) -> str | None:
    """Says which digit stands twice in which row, column or box of `grid` (81 characters, `.` or `0` for empty)."""
    for name, cells in HOUSES:
        digits = [grid[cell] for cell in cells if grid[cell] not in ".0"]
        for digit in digits:
            if digits.count(digit) > 1:
                return f"the digit {digit} stands twice in {name}"
    return None


def is_solved(arguments: Mapping[str, Any], value: object) -> Verdict:
    """Passes `value` if it is 81 digits 1..9 that keep the clues of `arguments["puzzle"]` and the rules."""
    if not isinstance(value, str) or len(value) != 81 or not set(value) <= set("123456789"):
        return Verdict.failed("the answer is not 81 digits from 1 to 9")
    for cell, (clue, digit) in enumerate(zip(str(arguments["puzzle"]), value, strict=True)):
        if clue not in ".0" and clue != digit:
            return Verdict.failed(f"the clue {clue} in row {cell // 9 + 1}, column {cell % 9 + 1} became {digit}")
    problem = clash(value)
    return Verdict.failed(problem) if problem else Verdict.passed()


def is_right(arguments: Mapping[str, Any], expected: object, value: object) -> bool:
    """Whether `value` is a solution: the expected one, or any other where the puzzle has several."""
    return is_solved(arguments, value).status == "passed"
