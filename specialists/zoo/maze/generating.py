"""Makes mazes for calibration. Each has a way through, and the row says a shortest one."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from .rules import Cell

__all__ = ["generate"]

SIDES = (10, 30)

Cells = list[list[bool]]
"""Which cells are open."""


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Endless cases, independent draws of one distribution, the same for the same seed.

    10 to 30 rows and 10 to 30 columns, drawn one by one, and always the shortest path is asked for. A third each:

    - carved depth-first, with one way between any two cells;
    - the same, and of the walls between two corridors 2 to 20 % are opened, so that there are loops;
    - 15 to 40 % of the cells are walls, wherever they fall.

    G is any open cell, and S any other from which there is a way. ``expected`` is a shortest path, one of several.
    """
    rng = random.Random(f"calibrate maze {seed}")
    while True:
        layout = rng.choice((_carved, _with_loops, _scattered))
        cells = layout(rng, rng.randint(*SIDES), rng.randint(*SIDES))
        goal = rng.choice([(y, x) for y, row in enumerate(cells) for x, is_open in enumerate(row) if is_open])
        onward = _towards(cells, goal)
        if len(onward) < 2:
            continue  # walls all around G
        start = rng.choice([cell for cell in onward if cell != goal])
        yield {"input": {"grid": _drawn(cells, start, goal), "shortest": True}, "expected": _walk(onward, start, goal)}


def _carved(rng: random.Random, rows: int, columns: int) -> Cells:
    """Every second cell of every second row is a room; walls between rooms go as the way first comes through."""
    cells = [[False] * columns for _ in range(rows)]
    y, x = 2 * rng.randrange((rows + 1) // 2), 2 * rng.randrange((columns + 1) // 2)
    cells[y][x] = True
    stack = [(y, x)]
    while stack:
        y, x = stack[-1]
        around = ((y - 2, x), (y, x + 2), (y + 2, x), (y, x - 2))
        ways = [(v, u) for v, u in around if 0 <= v < rows and 0 <= u < columns and not cells[v][u]]
        if not ways:
            stack.pop()
            continue
        v, u = rng.choice(ways)
        cells[(y + v) // 2][(x + u) // 2] = cells[v][u] = True
        stack.append((v, u))
    return cells


def _with_loops(rng: random.Random, rows: int, columns: int) -> Cells:
    cells = _carved(rng, rows, columns)
    share = rng.uniform(0.02, 0.2)
    for y in range(rows):
        for x in range(columns):
            across = 0 < x < columns - 1 and cells[y][x - 1] and cells[y][x + 1]
            along = 0 < y < rows - 1 and cells[y - 1][x] and cells[y + 1][x]
            if not cells[y][x] and (across or along) and rng.random() < share:
                cells[y][x] = True
    return cells


def _scattered(rng: random.Random, rows: int, columns: int) -> Cells:
    walls = rng.uniform(0.15, 0.4)
    return [[rng.random() >= walls for _ in range(columns)] for _ in range(rows)]


def _towards(cells: Cells, goal: Cell) -> dict[Cell, Cell]:
    """For each cell with a way to ``goal``, the next one on a shortest; for ``goal`` itself ``goal``."""
    onward = {goal: goal}
    queue = deque([goal])
    while queue:
        y, x = queue.popleft()
        for v, u in ((y - 1, x), (y, x + 1), (y + 1, x), (y, x - 1)):
            if 0 <= v < len(cells) and 0 <= u < len(cells[0]) and cells[v][u] and (v, u) not in onward:
                onward[v, u] = (y, x)
                queue.append((v, u))
    return onward


def _walk(onward: dict[Cell, Cell], start: Cell, goal: Cell) -> list[list[int]]:
    path = [start]
    while path[-1] != goal:
        path.append(onward[path[-1]])
    return [list(cell) for cell in path]


def _drawn(cells: Cells, start: Cell, goal: Cell) -> list[str]:
    marks = {start: "S", goal: "G"}
    return [
        "".join(marks.get((y, x), "." if is_open else "#") for x, is_open in enumerate(row))
        for y, row in enumerate(cells)
    ]
