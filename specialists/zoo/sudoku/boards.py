"""A fast exact solver of 9x9 Sudokus on bitboards. It makes and grades puzzles; the specialist never asks it.

One integer of 81 bits for each digit holds the cells where that digit is still possible, so one machine operation on
a Python integer speaks of all cells at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["Boards", "boards_of", "full_grid", "has_another", "search"]

ALL = (1 << 81) - 1
Boards = list[int]
"""Nine integers, one a digit: bit `c` is set while the digit is possible in cell `c` (row by row from the top left)."""

_CELLS = [
    *([r * 9 + c for c in range(9)] for r in range(9)),
    *([r * 9 + c for r in range(9)] for c in range(9)),
    *([(b // 3 * 3 + i // 3) * 9 + b % 3 * 3 + i % 3 for i in range(9)] for b in range(9)),
]
HOUSES = [sum(1 << c for c in cells) for cells in _CELLS]
PEERS = [sum(1 << p for p in {q for h in _CELLS if c in h for q in h} - {c}) for c in range(81)]


def propagate(boards: Boards, done: int) -> int:
    """Fills naked and hidden singles into `boards`, in place. Returns the filled cells, or -1 at a contradiction."""
    while True:
        once = twice = 0
        for board in boards:
            twice |= once & board
            once |= board
        if once != ALL:
            return -1
        fresh = once & ~twice & ~done
        if fresh:
            for digit in range(9):
                hits = boards[digit] & fresh
                while hits:
                    low = hits & -hits
                    hits ^= low
                    if not boards[digit] & low:  # an equal digit placed just before took it away
                        return -1
                    boards[digit] &= ~PEERS[low.bit_length() - 1]
            done |= fresh
            continue
        if done == ALL:
            return done
        found = False
        for digit in range(9):
            board = boards[digit]
            for house in HOUSES:
                spots = board & house
                if not spots:
                    return -1
                if not spots & (spots - 1) and not spots & done:
                    for other in range(9):
                        if other != digit:
                            boards[other] &= ~spots
                    board &= ~PEERS[spots.bit_length() - 1]
                    boards[digit] = board
                    done |= spots
                    found = True
        if not found:
            return done


def search(boards: Boards, rng: random.Random | None = None) -> Iterator[tuple[str, int]]:
    """Yields every solution as (81 digits, nodes opened so far); ends with ("", nodes opened in all).

    Branches on a cell with the fewest candidates, the first such, or a chance one in a chance order given `rng`.
    """
    stack = [(list(boards), 0)]
    nodes = -1
    while stack:
        boards, done = stack.pop()
        nodes += 1
        done = propagate(boards, done)
        if done == -1:
            continue
        if done == ALL:
            yield _digits(boards), nodes
            continue
        once = twice = thrice = 0
        for board in boards:
            thrice |= twice & board
            twice |= once & board
            once |= board
        open_cells = (twice & ~thrice) or (ALL & ~done)
        if rng is None:
            bit = open_cells & -open_cells
        else:
            spots = [c for c in range(81) if open_cells >> c & 1]
            bit = 1 << rng.choice(spots)
        digits = [d for d in range(9) if boards[d] & bit]
        if rng is not None:
            rng.shuffle(digits)
        for digit in digits:
            child = [board & ~bit for board in boards]
            child[digit] = boards[digit] & ~PEERS[bit.bit_length() - 1]
            stack.append((child, done))
    yield "", nodes


def boards_of(clues: dict[int, int]) -> Boards:
    """The boards of some clues, a cell 0..80 to its digit 0..8; every peer of a clue has lost the digit."""
    boards = [ALL] * 9
    for cell, digit in clues.items():
        for other in range(9):
            if other != digit:
                boards[other] &= ~(1 << cell)
        boards[digit] &= ~PEERS[cell]
    return boards


def full_grid(rng: random.Random) -> str:
    """A chance solution, as 81 digits."""
    start: dict[int, int] = {}
    for box in (0, 30, 60):  # three boxes that share no row or column may hold anything
        start |= zip([box + 9 * r + c for r in range(3) for c in range(3)], rng.sample(range(9), 9), strict=True)
    return next(search(boards_of(start), rng))[0]


def has_another(clues: dict[int, int], cell: int, digit: int) -> bool:
    """Whether `clues`, without `cell`, have a solution in which `cell` does not hold `digit`."""
    boards = boards_of(clues)
    boards[digit] &= ~(1 << cell)
    return bool(next(search(boards))[0])


def _digits(boards: Boards) -> str:
    return "".join(next(str(d + 1) for d in range(9) if boards[d] >> c & 1) for c in range(81))
