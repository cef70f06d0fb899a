"""The rules of a maze: what a path is, which is a shortest one, and what is wrong with a grid.

Sound and complete for the task: an answer passes if and only if it begins at S, ends at G, goes one cell up, right,
down or left at a time and never into a wall, and, where the shortest is asked for, no path is shorter. Several paths
may be right; each of them passes. How long the shortest is, is counted by a flood from G: that tells whether an answer
is right, and is not shown to the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from specialists import Verdict

Cell = tuple[int, int]

LARGEST = 200
"""Rows or columns of the largest grid that is taken."""


def problem(grid: Sequence[str]) -> str | None:
    """What is wrong with ``grid`` as a maze, or ``None``. Whether there is a way through it is not asked here."""
    if not grid or not grid[0]:
        return "the grid is empty"
    if max(len(grid), len(grid[0])) > LARGEST:
        return f"the grid has {len(grid)} rows of {len(grid[0])} cells; at most {LARGEST} of each are taken"
    for number, row in enumerate(grid, 1):
        if len(row) != len(grid[0]):
            return f"row {number} has {len(row)} cells and row 1 has {len(grid[0])}; all rows must be equally long"
        strange = set(row) - set("#.SG")
        if strange:
            return f"row {number} holds {min(strange)!r}; a maze is made of '#', '.', 'S' and 'G'"
    for mark, name in (("S", "start"), ("G", "goal")):
        count = sum(row.count(mark) for row in grid)
        if count != 1:
            many = f"{count} times {mark!r}, the {name}" if count else f"no {name} {mark!r}"
            return f"the maze has {many}; there must be exactly one"
    return None


def ends(grid: Sequence[str]) -> tuple[Cell, Cell]:
    """Where S and G are, as (row, column), in a grid without a problem."""
    start, goal = (next((y, row.index(mark)) for y, row in enumerate(grid) if mark in row) for mark in "SG")
    return start, goal


def shortest_length(grid: Sequence[str]) -> int | None:
    """Steps from S to G on a shortest path, or ``None`` where there is no way: a flood from G, ring by ring."""
    start, goal = ends(grid)
    wide = len(grid[0]) + 1  # a wall after each row, and one row of walls before and after all: no edges to test
    free = bytearray(wide)
    for row in grid:
        free += bytes(mark != "#" for mark in row) + b"\0"
    free += bytes(wide)
    target = (start[0] + 1) * wide + start[1]
    ring = [(goal[0] + 1) * wide + goal[1]]
    free[ring[0]] = 0
    steps = 0
    while ring:
        further = []
        for at in ring:
            if at == target:
                return steps
            for there in (at - wide, at - 1, at + 1, at + wide):
                if free[there]:
                    free[there] = 0
                    further.append(there)
        ring = further
        steps += 1
    return None


def is_path(arguments: Mapping[str, Any], value: object) -> Verdict:
    """Passes ``value`` if it is a path through ``arguments["grid"]``, a shortest one if ``arguments["shortest"]``."""
    grid: Sequence[str] = arguments["grid"]
    if problem(grid):
        return Verdict.failed("the grid is no maze, so there is no path")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return Verdict.failed("the answer is not a list of cells")
    if not value:
        return Verdict.failed("no path was found")
    path: list[Cell] = []
    for cell in value:
        if not isinstance(cell, Sequence) or len(cell) != 2 or not all(type(each) is int for each in cell):
            return Verdict.failed(f"{cell!r} is not a cell: a row and a column")
        path.append((cell[0], cell[1]))
    start, goal = ends(grid)
    if path[0] != start or path[-1] != goal:
        return Verdict.failed(f"the path must go from S at {start} to G at {goal}")
    for (y, x), (v, u) in pairwise(path):
        if abs(y - v) + abs(x - u) != 1:
            return Verdict.failed(f"from {(y, x)} to {(v, u)} is not one step up, right, down or left")
        if not (0 <= v < len(grid) and 0 <= u < len(grid[0])) or grid[v][u] == "#":
            return Verdict.failed(f"{(v, u)} is a wall or outside of the maze")
    if arguments.get("shortest"):
        length = shortest_length(grid)
        if length != len(path) - 1:
            return Verdict.failed(f"the path has {len(path) - 1} steps, and {length} are enough")
    return Verdict.passed()


def is_right(arguments: Mapping[str, Any], expected: object, value: object) -> bool:
    """Whether ``value`` is right: the expected path, or any other that passes."""
    return expected is not None and is_path(arguments, value).status == "passed"
