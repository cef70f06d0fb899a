"""Makes Sudoku puzzles: a fast exact solver on bitboards, and random puzzles from easy to hard.

It knows nothing of networks. The solver is for making and grading puzzles only; no part of it is in the specialist.

One integer of 81 bits for each digit holds the cells where that digit is still possible, so one machine operation on
a Python integer speaks of all cells at once. Puzzles are made in numbered blocks; a block depends on the seed and its
number alone, and a block already on disk is not made again.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

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


class Puzzle(NamedTuple):
    """A puzzle with one solution. `guesses`: the nodes that `search` opened to prove it, the root excluded."""

    clues: str
    solution: str
    guesses: int


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


def grade(clues: str) -> tuple[list[str], int]:
    """Up to two solutions of a puzzle, and the nodes opened to prove that there are no more."""
    results = list(islice(search(boards_of(_read(clues))), 2))
    return [solution for solution, _ in results if solution], results[-1][1]


def random_puzzle(rng: random.Random) -> Puzzle:
    """A minimal puzzle (no clue can be taken away) on a chance solution."""
    start: dict[int, int] = {}
    for box in (0, 30, 60):  # three boxes that share no row or column may hold anything
        start |= zip(_box(box), rng.sample(range(9), 9), strict=True)
    solution, _ = next(search(boards_of(start), rng))
    clues = {cell: int(solution[cell]) - 1 for cell in rng.sample(range(81), 28)}
    return _finish(clues, solution, rng)


def harder(puzzle: Puzzle, rng: random.Random) -> Puzzle:
    """A neighbour: a few clues are taken away, a chance solution of what is left is chosen, and made minimal anew."""
    clues = _read(puzzle.clues)
    for cell in rng.sample(sorted(clues), rng.choice((1, 1, 2, 2, 3))):
        del clues[cell]
    solution, _ = next(search(boards_of(clues), rng))
    return _finish(clues, solution, rng)


def _finish(clues: dict[int, int], solution: str, rng: random.Random) -> Puzzle:
    """Adds clues of `solution` until it is the only one, then takes away, in a chance order, all that can go."""
    unique = False
    while not unique:
        unique = True
        for other, _ in search(boards_of(clues), rng):
            differ = [c for c in range(81) if other and other[c] != solution[c]]
            if differ:
                cell = rng.choice(differ)
                clues[cell] = int(solution[cell]) - 1
                unique = False
                break
    for cell in rng.sample(sorted(clues), len(clues)):
        digit = clues.pop(cell)
        boards = boards_of(clues)
        boards[digit] &= ~(1 << cell)  # any solution now has another digit here, and shows that the clue is needed
        if next(search(boards))[0]:
            clues[cell] = digit
    text = "".join(str(clues[c] + 1) if c in clues else "." for c in range(81))
    return Puzzle(text, solution, grade(text)[1])


def make_block(seed: int, number: int, size: int) -> list[Puzzle]:
    """One block of puzzles: with an odd number `size` random ones, with an even one some `size / 2` hard ones.

    Hard ones cost ten times as long. They come from a climb: of a puzzle's neighbours, one that takes as many guesses
    is the next to stand on, and what takes 12 or more on the way is kept.
    """
    rng = random.Random(f"{seed}/{number}")
    if number % 2:
        return [random_puzzle(rng) for _ in range(size)]
    block: list[Puzzle] = []
    while len(block) < size // 2:
        best = random_puzzle(rng)
        for _ in range(250):
            step = harder(best, rng)
            if step.guesses >= 12:
                block.append(step)
            if step.guesses >= best.guesses:
                best = step
    return block


def write_block(job: tuple[Path, int, int, int]) -> Path:
    """Writes the block (folder, seed, number, size) unless it is there: lines `puzzle,solution,guesses`."""
    folder, seed, number, size = job
    path = folder / f"{seed}-{number:04d}.csv"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text("".join(f"{p.clues},{p.solution},{p.guesses}\n" for p in make_block(seed, number, size)))
        part.rename(path)  # a block that was broken off never counts as one
    return path


def write_blocks(folder: Path, seed: int, numbers: Iterable[int], size: int, processes: int = 2) -> Iterator[Path]:
    """Makes the blocks that are missing, several at a time, and yields each path as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(write_block, [(folder, seed, number, size) for number in numbers])


def read_blocks(paths: list[Path]) -> list[Puzzle]:
    """All puzzles of some blocks."""
    rows = (line.split(",") for path in paths for line in path.read_text().splitlines())
    return [Puzzle(clues, solution, int(guesses)) for clues, solution, guesses in rows]


def _box(first: int) -> list[int]:
    return [first + 9 * r + c for r in range(3) for c in range(3)]


def _read(clues: str) -> dict[int, int]:
    return {cell: int(mark) - 1 for cell, mark in enumerate(clues) if mark not in ".0"}


def _digits(boards: Boards) -> str:
    return "".join(next(str(d + 1) for d in range(9) if boards[d] >> c & 1) for c in range(81))
