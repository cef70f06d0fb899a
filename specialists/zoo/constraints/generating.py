"""Makes problems for calibration, and full squares for the recipe to learn from: planted, so that each has an answer.

It knows nothing of networks. Each function draws from the generator that it is handed: a seed makes a problem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from .problem import BOXES, sudoku_groups

__all__ = ["first_latin", "first_sudoku", "generate", "latin_groups", "stirred"]

Groups = Sequence[Sequence[int]]


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Endless cases, independent draws of one distribution, the same for the same seed.

    A third each, and within them everything uniformly:

    - Latin squares with 5 to 9 rows, 30 to 60 % of the cells given.
    - Sudokus of 6x6 or 9x9, 35 to 60 % of the cells given.
    - Graphs of 12 to 40 variables to be coloured with 3 to 6 values, with 10 to 30 % of all pairs (as far as the
      planted values allow) as groups of two. In half of them some variables are restricted besides: 15 % are given,
      and 30 % may have only some values.

    What is given is drawn without looking at what follows from it, so there may be several answers. ``expected`` is
    the planted one.
    """
    rng = random.Random(f"calibrate constraints {seed}")
    while True:
        yield rng.choice((_latin, _sudoku, _colouring))(rng)


def _latin(rng: random.Random) -> dict[str, Any]:
    side = rng.randint(5, 9)
    groups = latin_groups(side)
    return _square(side, groups, stirred(first_latin(side), groups, side, rng), rng.uniform(0.3, 0.6), rng)


def _sudoku(rng: random.Random) -> dict[str, Any]:
    side = rng.choice((6, 9))
    groups = sudoku_groups(side)
    return _square(side, groups, stirred(first_sudoku(side), groups, side, rng), rng.uniform(0.35, 0.6), rng)


def _square(side: int, groups: Groups, solution: list[int], share: float, rng: random.Random) -> dict[str, Any]:
    given = sorted(rng.sample(range(side * side), round(share * side * side)))
    return _case(side, groups, solution, {cell: solution[cell] for cell in given})


def _colouring(rng: random.Random) -> dict[str, Any]:
    variables, values = rng.randint(12, 40), rng.randint(3, 6)
    planted = [rng.randrange(values) for _ in range(variables)]
    pairs = list(combinations(range(variables), 2))
    apart = [pair for pair in pairs if planted[pair[0]] != planted[pair[1]]]
    edges = rng.sample(apart, min(round(rng.uniform(0.1, 0.3) * len(pairs)), len(apart)))
    given, allowed = {}, {}
    if rng.random() < 0.5:
        for variable, value in enumerate(planted):
            chance = rng.random()
            if chance < 0.15:
                given[variable] = value
            elif chance < 0.45:
                others = [other for other in range(values) if other != value]
                allowed[variable] = sorted([value, *rng.sample(others, rng.randint(0, values - 2))])
    return _case(values, edges, planted, given, allowed)


def _case(
    values: int,
    groups: Groups,
    solution: list[int],
    given: dict[int, int],
    allowed: dict[int, list[int]] | None = None,
) -> dict[str, Any]:
    """A row as JSON has it: the keys of objects are strings."""
    asked: dict[str, Any] = {"values": values, "variables": len(solution), "groups": [list(group) for group in groups]}
    if given:
        asked["given"] = {str(variable): value for variable, value in given.items()}
    if allowed:
        asked["allowed"] = {str(variable): some for variable, some in allowed.items()}
    return {"input": asked, "expected": solution}


def latin_groups(side: int) -> list[list[int]]:
    """The rows and columns of a square, its cells counted row by row."""
    rows = [[r * side + c for c in range(side)] for r in range(side)]
    return rows + [[r * side + c for r in range(side)] for c in range(side)]


def first_latin(side: int) -> list[int]:
    """The plainest Latin square, to begin with."""
    return [(r + c) % side for r in range(side) for c in range(side)]


def first_sudoku(side: int) -> list[int]:
    """The plainest solution of a Sudoku with so long a side, to begin with."""
    high, wide = BOXES[side]
    return [(r % high * wide + r // high + c) % side for r in range(side) for c in range(side)]


def stirred(solution: list[int], groups: Groups, values: int, rng: random.Random) -> list[int]:
    """Another solution of the same rules, reached by many swaps of two values in a connected part (Kempe's chains)."""
    found = list(solution)
    peers: list[set[int]] = [set() for _ in found]
    for group in groups:
        for v in group:
            peers[v] |= set(group) - {v}
    lines = [group for group in groups if len(group) == values]
    for turn in range(6 * values):
        one, other = rng.sample(range(values), 2)
        _swap(found, peers, one, other, rng)
        if turn % 3 == 0:
            _trade_lines(found, lines, groups, rng)
    return found


def _swap(found: list[int], peers: list[set[int]], one: int, other: int, rng: random.Random) -> None:
    start = rng.choice([v for v, value in enumerate(found) if value in (one, other)])
    part, edge = {start}, [start]
    while edge:
        v = edge.pop()
        for peer in peers[v]:
            if found[peer] in (one, other) and peer not in part:
                part.add(peer)
                edge.append(peer)
    for v in part:
        found[v] = one + other - found[v]


def _trade_lines(found: list[int], lines: Groups, groups: Groups, rng: random.Random) -> None:
    """Two parallel lines trade the cells of one cycle, where that keeps every group whole."""
    line, second = rng.sample(lines, 2)
    if set(line) & set(second):
        return
    pairs = dict(zip(line, second, strict=True))
    place = {found[cell]: cell for cell in line}
    first = cell = rng.choice(line)
    cycle: list[int] = []
    while True:
        cycle.append(cell)
        if found[pairs[cell]] not in place:
            return
        cell = place[found[pairs[cell]]]
        if cell == first:
            break
    if len(cycle) == len(line):
        return
    trial = list(found)
    for cell in cycle:
        trial[cell], trial[pairs[cell]] = found[pairs[cell]], found[cell]
    if all(len({trial[v] for v in group}) == len(group) for group in groups):
        found[:] = trial
