"""Makes Sudoku puzzles, from easy to hard, and grades them by an exact solver.

It knows nothing of networks. Puzzles are made in numbered blocks; a block depends on the seed and its number alone,
and a block already on disk is not made again.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from specialists.zoo.sudoku.boards import boards_of, full_grid, has_another, search


class Puzzle(NamedTuple):
    """A puzzle with one solution. `guesses`: the nodes that `search` opened to prove it, the root excluded."""

    clues: str
    solution: str
    guesses: int


def grade(clues: str) -> tuple[list[str], int]:
    """Up to two solutions of a puzzle, and the nodes opened to prove that there are no more."""
    results = list(islice(search(boards_of(_read(clues))), 2))
    return [solution for solution, _ in results if solution], results[-1][1]


def random_puzzle(rng: random.Random) -> Puzzle:
    """A minimal puzzle (no clue can be taken away) on a chance solution."""
    solution = full_grid(rng)
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
        if has_another(clues, cell, digit):
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


def _read(clues: str) -> dict[int, int]:
    return {cell: int(mark) - 1 for cell, mark in enumerate(clues) if mark not in ".0"}
