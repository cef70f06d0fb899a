"""Mazes of many kinds for the recipe of the bundled `maze`, and what is right in each. Pure Python, seeded.

A maze is rows of ``#`` (wall), ``.`` (open), ``S`` and ``G``. It always has a way through. Breadth-first search is used
here alone: to know the right moves while training, and as the honest comparison when measuring.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise

__all__ = ["KINDS", "LARGEST", "distances", "make", "path_length", "search"]

Cells = list[list[bool]]
"""Which cells are open."""
Link = tuple[tuple[int, int], tuple[int, int]]

LARGEST = 60
SIDES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left: the order of the network's moves."""


def _lattice(chance: random.Random, rows: int, columns: int) -> tuple[Cells, list[int], list[int]]:
    """All walls, and the rows and columns on which rooms lie: every second, with an outer wall or without one."""
    first = chance.choice((0, 1, 1)) if min(rows, columns) > 3 else 0
    last = 1 if first and chance.random() < 0.7 else 0
    ys, xs = list(range(first, rows - last, 2)), list(range(first, columns - last, 2))
    return [[False] * columns for _ in range(rows)], ys, xs


def _links(height: int, width: int) -> list[Link]:
    down = [((y, x), (y + 1, x)) for y in range(height - 1) for x in range(width)]
    return down + [((y, x), (y, x + 1)) for y in range(height) for x in range(width - 1)]


def _beside(room: tuple[int, int], height: int, width: int) -> list[tuple[int, int]]:
    around = [(room[0] + dy, room[1] + dx) for dy, dx in SIDES]
    return [(y, x) for y, x in around if 0 <= y < height and 0 <= x < width]


def _depth_first(chance: random.Random, height: int, width: int) -> list[Link]:
    stack = [(chance.randrange(height), chance.randrange(width))]
    seen, links = set(stack), []
    while stack:
        ways = [room for room in _beside(stack[-1], height, width) if room not in seen]
        if not ways:
            stack.pop()
            continue
        room = chance.choice(ways)
        links.append((stack[-1], room))
        seen.add(room)
        stack.append(room)
    return links


def _prim(chance: random.Random, height: int, width: int) -> list[Link]:
    room = (chance.randrange(height), chance.randrange(width))
    seen, links = {room}, []
    edge = [(room, other) for other in _beside(room, height, width)]
    while edge:
        at = chance.randrange(len(edge))
        edge[at], edge[-1] = edge[-1], edge[at]
        link = edge.pop()
        if link[1] not in seen:
            seen.add(link[1])
            links.append(link)
            edge += [(link[1], other) for other in _beside(link[1], height, width) if other not in seen]
    return links


def _kruskal(chance: random.Random, height: int, width: int) -> list[Link]:
    group = {(y, x): (y, x) for y in range(height) for x in range(width)}

    def root(room: tuple[int, int]) -> tuple[int, int]:
        while group[room] != room:
            group[room] = group[group[room]]
            room = group[room]
        return room

    links, every = [], _links(height, width)
    chance.shuffle(every)
    for one, other in every:
        if root(one) != root(other):
            group[root(one)] = root(other)
            links.append((one, other))
    return links


def _wilson(chance: random.Random, height: int, width: int) -> list[Link]:
    rooms = [(y, x) for y in range(height) for x in range(width)]
    chance.shuffle(rooms)
    seen, links = {rooms[0]}, []
    for start in rooms[1:]:
        steps, room = {}, start
        while room not in seen:  # a walk by chance; what it crosses again is forgotten
            steps[room] = chance.choice(_beside(room, height, width))
            room = steps[room]
        room = start
        while room not in seen:
            seen.add(room)
            links.append((room, steps[room]))
            room = steps[room]
    return links


def _perfect(carve: Callable[[random.Random, int, int], list[Link]]) -> Callable[[random.Random, int, int], Cells]:
    def kind(chance: random.Random, rows: int, columns: int) -> Cells:
        cells, ys, xs = _lattice(chance, rows, columns)
        for y in ys:
            for x in xs:
                cells[y][x] = True
        for (y, x), (v, u) in carve(chance, len(ys), len(xs)):
            cells[(ys[y] + ys[v]) // 2][(xs[x] + xs[u]) // 2] = True
        return cells

    return kind


def _any_perfect(chance: random.Random, rows: int, columns: int) -> Cells:
    return _perfect(chance.choice((_depth_first, _depth_first, _prim, _kruskal, _wilson)))(chance, rows, columns)


def _braided(chance: random.Random, rows: int, columns: int) -> Cells:
    """A perfect maze with some walls taken out, so that there are loops."""
    cells = _any_perfect(chance, rows, columns)
    share = chance.choice((0.01, 0.03, 0.08, 0.2, 0.4))
    for y in range(rows):
        for x in range(columns):
            across = 0 < x < columns - 1 and cells[y][x - 1] and cells[y][x + 1]
            along = 0 < y < rows - 1 and cells[y - 1][x] and cells[y + 1][x]
            if not cells[y][x] and (across or along) and chance.random() < share:
                cells[y][x] = True
    return cells


def _scattered(chance: random.Random, rows: int, columns: int) -> Cells:
    """Wall cells by chance; so many that often just one large region hangs together."""
    walls = chance.uniform(0.15, 0.5)
    return [[chance.random() >= walls for _ in range(columns)] for _ in range(rows)]


def _rooms(chance: random.Random, rows: int, columns: int) -> Cells:
    """Open halls, joined by corridors or by a fine maze."""
    cells = _any_perfect(chance, rows, columns) if chance.random() < 0.5 else [[False] * columns for _ in range(rows)]
    middles = []
    for _ in range(max(2, rows * columns // chance.choice((40, 80, 160)))):
        height, width = chance.randint(1, max(1, rows // 3)), chance.randint(1, max(1, columns // 3))
        top, left = chance.randint(0, rows - height), chance.randint(0, columns - width)
        for y in range(top, top + height):
            cells[y][left : left + width] = [True] * width
        middles.append((top + height // 2, left + width // 2))
    for (y, x), (v, u) in pairwise(middles):
        for column in range(min(x, u), max(x, u) + 1):
            cells[y][column] = True
        for row in range(min(y, v), max(y, v) + 1):
            cells[row][u] = True
    return cells


def _open(chance: random.Random, rows: int, columns: int) -> Cells:
    walls = chance.choice((0.0, 0.02, 0.1))
    return [[chance.random() >= walls for _ in range(columns)] for _ in range(rows)]


def _serpentine(chance: random.Random, rows: int, columns: int) -> Cells:
    """One corridor to and fro: about the longest way there can be. Sometimes with a few short cuts."""
    cells = [[False] * columns for _ in range(rows)]
    border = chance.randint(0, 1) if min(rows, columns) > 6 else 0
    left, right = border, columns - 1 - border
    for number, y in enumerate(range(border, rows - border, 2)):
        cells[y][left : right + 1] = [True] * (right + 1 - left)
        if y + 2 < rows - border:
            cells[y + 1][left if number % 2 else right] = True
    _pierce(chance, cells, border)
    return cells


def _spiral(chance: random.Random, rows: int, columns: int) -> Cells:
    cells = [[False] * columns for _ in range(rows)]
    top, left, bottom, right = 0, 0, rows - 1, columns - 1
    y, x = 0, 0
    cells[0][0] = True
    turn = 1
    stuck = 0
    while stuck < 2:
        dy, dx = SIDES[turn % 4]
        moved = False
        while True:
            v, u = y + dy, x + dx
            beyond = (v + dy, u + dx)
            if not (top <= v <= bottom and left <= u <= right) or cells[v][u]:
                break
            if 0 <= beyond[0] < rows and 0 <= beyond[1] < columns and cells[beyond[0]][beyond[1]]:
                break
            y, x = v, u
            cells[y][x] = moved = True
        turn += 1
        stuck = 0 if moved else stuck + 1
    _pierce(chance, cells, 0)
    return cells


def _pierce(chance: random.Random, cells: Cells, border: int) -> None:
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        y = chance.randrange(border, len(cells) - border)
        x = chance.randrange(border, len(cells[0]) - border)
        cells[y][x] = True


KINDS: dict[str, Callable[[random.Random, int, int], Cells]] = {
    "depth-first": _perfect(_depth_first),
    "prim": _perfect(_prim),
    "kruskal": _perfect(_kruskal),
    "wilson": _perfect(_wilson),
    "braided": _braided,
    "scattered": _scattered,
    "rooms": _rooms,
    "open": _open,
    "serpentine": _serpentine,
    "spiral": _spiral,
}
"""How the cells of a maze are laid out, by name."""


def search(grid: list[str]) -> list[tuple[int, int]] | None:
    """A shortest path from S to G by breadth-first search, or ``None``: what the network is compared with."""
    start = next((y, row.index("S")) for y, row in enumerate(grid) if "S" in row)
    came: dict[tuple[int, int], tuple[int, int]] = {start: start}
    queue = deque([start])
    rows, columns = len(grid), len(grid[0])
    while queue:
        here = queue.popleft()
        if grid[here[0]][here[1]] == "G":
            path = [here]
            while path[-1] != start:
                path.append(came[path[-1]])
            return path[::-1]
        for dy, dx in SIDES:
            there = here[0] + dy, here[1] + dx
            if (
                0 <= there[0] < rows
                and 0 <= there[1] < columns
                and grid[there[0]][there[1]] != "#"
                and there not in came
            ):
                came[there] = here
                queue.append(there)
    return None


def path_length(grid: list[str]) -> int:
    """Steps of a shortest path from S to G."""
    path = search(grid)
    assert path is not None
    return len(path) - 1


def distances(cells: Cells, goal: tuple[int, int]) -> list[int]:
    """Steps from each cell to ``goal``, row by row; -1 where there is no way."""
    rows, columns = len(cells), len(cells[0])
    wide = columns + 1  # a wall beside each row and a row of walls at both ends: no test of the edge is needed
    found = [-2] * ((rows + 2) * wide)
    for y, row in enumerate(cells):
        for x, free in enumerate(row):
            if free:
                found[(y + 1) * wide + x] = -1
    at = (goal[0] + 1) * wide + goal[1]
    found[at] = 0
    queue = deque([at])
    while queue:
        at = queue.popleft()
        further = found[at] + 1
        for there in (at - wide, at + 1, at + wide, at - 1):
            if found[there] == -1:
                found[there] = further
                queue.append(there)
    return [max(-1, found[(y + 1) * wide + x]) for y in range(rows) for x in range(columns)]


def make(
    chance: random.Random, kind: str, rows: int, columns: int, least: int = 1, far: float = 0.0, tries: int = 400
) -> tuple[list[str], list[int]]:
    """A maze of ``kind`` whose shortest path has ``least`` steps or more, and each cell's distance to G.

    With the probability ``far`` the start is as far from the goal as a cell can be; else both lie anywhere. Raises
    :class:`ValueError` where no such maze is found within ``tries``.
    """
    for _ in range(tries):
        turned = chance.random() < 0.5
        cells = KINDS[kind](chance, columns, rows) if turned else KINDS[kind](chance, rows, columns)
        if turned:
            cells = [list(row) for row in zip(*cells, strict=True)]
        if chance.random() < 0.5:
            cells = cells[::-1]
        if chance.random() < 0.5:
            cells = [row[::-1] for row in cells]
        free = [(y, x) for y, row in enumerate(cells) for x, is_open in enumerate(row) if is_open]
        if len(free) < 2:
            continue
        goal = chance.choice(free)
        if chance.random() < far:  # an end of a longest way is the cell farthest from any cell, near enough
            steps = distances(cells, goal)
            at = max(range(len(steps)), key=steps.__getitem__)
            goal = divmod(at, columns)
        steps = distances(cells, goal)
        good = [at for at, distance in enumerate(steps) if distance >= max(1, least)]
        if not good:
            continue
        at = max(good, key=steps.__getitem__) if chance.random() < far else chance.choice(good)
        grid = [["." if is_open else "#" for is_open in row] for row in cells]
        grid[goal[0]][goal[1]] = "G"
        grid[at // columns][at % columns] = "S"
        return ["".join(row) for row in grid], steps
    raise ValueError(f"no {kind} maze of {rows} x {columns} with a path of {least} steps in {tries} tries")
