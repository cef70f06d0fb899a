"""The problems under way while `constraints` trains: a pool a shape, each with its batch, carries and ages.

Problems of one pool have as many variables and values, so that they step as one batch; their groups may differ.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specialists.training import constraints_problems as problems
from specialists.training.constraints_problems import Made
from specialists.training.constraints_step import GPU_WIDTH, WIDTH
from specialists.training.sudoku_puzzles import Puzzle

__all__ = ["Batch", "Mixture", "Pool", "every_pool", "read_hard"]

Array = NDArray[np.float32]
HARD_SHARE = 0.5
"""Of the 9x9 Sudokus that come in, where there are hard ones."""
EASED, HARD_EASED = 0.3, 0.8
"""Shares of the problems with one solution, and of the hard ones, that get a few clues more."""
PLANNED = ((30, 4), (30, 5), (30, 6), (30, 7), (30, 8), (30, 9), (24, 4), (40, 8), (60, 5))
"""Exams and slots of the timetables learned from."""
MADE = 300
"""Problems made for each pool but that of the 9x9 Sudokus."""


class Batch(NamedTuple):
    """Problems under way: ``allowed`` (n, V, N), ``groups`` (n, G, V), ``overlaps`` (n, O, V), ``conflicts`` (n, V, V),
    ``solution`` (n, V), ``carry`` (n, V, N, D).

    ``unique``: every problem has one solution, and is learned from that; else from the rules.
    """

    allowed: Tensor
    groups: Tensor
    overlaps: Tensor
    conflicts: Tensor
    solution: Tensor
    carry: Tensor
    unique: bool

    def wrong(self, reading: Tensor) -> Tensor:
        """Which variables of a reading (n, V) are wrong: unlike the one solution, or in conflict. Bool (n, V)."""
        if self.unique:
            return reading != self.solution
        same = reading.unsqueeze(2) == reading.unsqueeze(1)
        return (same & (self.conflicts > 0)).any(2)

    def rows(self, which: slice | Tensor) -> Batch:
        """Some of the problems."""
        allowed, groups, overlaps, conflicts, solution, carry = (tensor[which] for tensor in self[:-1])
        return Batch(allowed, groups, overlaps, conflicts, solution, carry, self.unique)


class Pool:
    """Problems of one shape, and a batch of them under way. ``weight``: how often it gets an update."""

    def __init__(
        self, name: str, made: Sequence[Made], batch: int, weight: float, seed: int, device: str, hard: int = 0
    ) -> None:
        self.name, self.weight, self.device = name, weight, device
        self.chance = np.random.default_rng([seed, len(made), batch])
        self.noise = torch.Generator().manual_seed(seed)
        rows = [each.problem.arrays() for each in made]
        self.every_allowed = np.stack([row["allowed"][0] for row in rows])
        self.every_solution = np.array([each.solution for each in made])
        # Sudokus all have the same groups: one copy serves them.
        self.shared = all(np.array_equal(row["groups"], rows[0]["groups"]) for row in rows)
        kept = rows[:1] if self.shared else rows
        self.every_groups = _stack([row["groups"][0] for row in kept])
        self.every_overlaps = _stack([row["overlaps"][0] for row in kept])
        variables, self.values = self.every_allowed.shape[1:]
        self.hard = hard
        self.batch = Batch(
            torch.zeros(batch, variables, self.values, device=device),
            torch.zeros(batch, *self.every_groups.shape[1:], device=device),
            torch.zeros(batch, *self.every_overlaps.shape[1:], device=device),
            torch.zeros(batch, variables, variables, device=device),
            torch.zeros(batch, variables, dtype=torch.long, device=device),
            torch.zeros(batch, variables, self.values, GPU_WIDTH if device == "cuda" else WIDTH, device=device),
            made[0].unique,
        )
        self.age = torch.from_numpy(self.chance.integers(0, 12, batch))
        self._place(torch.arange(batch), self._pick(batch))

    def again(self) -> Pool:
        """This pool with its first problems under way from fresh noise: the same each time, for measuring."""
        self.noise = torch.Generator().manual_seed(0)
        count = len(self.age)
        self._place(torch.arange(count), np.arange(count) % len(self.every_allowed), more=False)
        return self

    def go_on(self, carry: Tensor, right: Tensor, longest: int) -> None:
        """Keep the carries; what is right or too old makes room for another problem."""
        self.batch, self.age = self.batch._replace(carry=carry), self.age + 1
        gone = torch.nonzero(right.cpu() | (self.age >= longest)).squeeze(1)
        if len(gone):
            self._place(gone, self._pick(len(gone)))

    def renew(self, made: Sequence[Made], hard: int) -> None:
        """Draw from other problems of the same shape and groups from now on; the last ``hard`` are hard."""
        self.every_allowed = np.stack([each.problem.arrays()["allowed"][0] for each in made])
        self.every_solution = np.array([each.solution for each in made])
        self.hard = hard

    def _pick(self, count: int) -> NDArray[np.int64]:
        total, hard = len(self.every_allowed), self.hard
        easy = self.chance.integers(0, total - hard, count)
        if not hard:
            return easy
        return np.where(self.chance.random(count) < HARD_SHARE, self.chance.integers(total - hard, total, count), easy)

    def _place(self, slots: Tensor, index: NDArray[np.int64], more: bool = True) -> None:
        allowed, solution = self.every_allowed[index], self.every_solution[index]
        if self.batch.unique and more:
            allowed = self._with_more(allowed, solution, index >= len(self.every_allowed) - self.hard)
        source = np.zeros_like(index) if self.shared else index
        groups = torch.from_numpy(self.every_groups[source])
        conflicts = (torch.matmul(groups.transpose(1, 2), groups) > 0).float()
        conflicts -= torch.diag_embed(conflicts.diagonal(dim1=1, dim2=2))
        noise = torch.randn(len(index), *self.batch.carry.shape[1:], generator=self.noise)
        overlaps = torch.from_numpy(self.every_overlaps[source])
        new = (torch.from_numpy(allowed), groups, overlaps, conflicts, torch.from_numpy(solution), noise)
        for tensor, rows in zip(self.batch[:-1], new, strict=True):
            tensor[slots] = rows.to(self.device)
        self.age[slots] = 0

    def _with_more(self, allowed: Array, solution: NDArray[np.int64], hard: NDArray[np.bool_]) -> Array:
        """Some problems get a few of their variables given besides, as branches would give them.

        Most of the hard ones do: one that nothing leads into teaches nothing, and a clue or three make it one that is
        just about to be solved.
        """
        n, count = solution.shape
        some = self.chance.random(n) < np.where(hard, HARD_EASED, EASED)
        more = np.where(some, self.chance.integers(1, np.where(hard, 6, max(2, count // 8))), 0)
        given = allowed.sum(2) == 1
        rank = (self.chance.random((n, count)) + given).argsort(1).argsort(1)  # what is open first, in a chance order
        one = (solution[:, :, None] == np.arange(self.values)).astype(np.float32)
        return np.where((rank < more[:, None])[:, :, None], one, allowed)


class Mixture:
    """All pools, chosen from by their weights."""

    def __init__(self, pools: list[Pool], seed: int) -> None:
        self.pools = pools
        self.chance = random.Random(seed)

    def choose(self) -> Pool:
        """The pool that gets the next update."""
        return self.chance.choices(self.pools, [pool.weight for pool in self.pools])[0]

    def renew(self, hard: list[Puzzle]) -> None:
        """Let the 9x9 Sudokus under way be followed by these hard ones too."""
        pool = self.pools[0]
        easy = len(pool.every_allowed) - pool.hard
        if hard:
            made = [problems.from_clues(row.clues, row.solution) for row in hard]
            allowed, solution = pool.every_allowed[:easy], pool.every_solution[:easy]
            pool.renew(made, len(made))
            pool.every_allowed = np.concatenate([allowed, pool.every_allowed])
            pool.every_solution = np.concatenate([solution, pool.every_solution])

    def told(self) -> str:
        """How many problems of each kind, for a line of progress."""
        return ", ".join(f"{len(pool.every_allowed):,} {pool.name}" for pool in self.pools)


def every_pool(easy: list[Puzzle], hard: list[Puzzle], seed: int, device: str, most: int = 0) -> list[Pool]:
    """The pools of a seed; the 9x9 Sudokus come first. With ``most`` each has so many problems, all under way."""
    rng = random.Random(f"pools/{seed}")
    nines = [problems.from_clues(row.clues, row.solution) for row in easy]
    tough = [problems.from_clues(row.clues, row.solution) for row in hard]
    batches = 4 if device == "cuda" else 1
    pools = []

    def add(name: str, made: list[Made], batch: int, weight: float, hard: int = 0) -> None:
        pools.append(Pool(name, made, most or batch * batches, weight, seed, device, hard))

    count = most or MADE
    if most:
        add("sudoku 9x9", nines, 32, 1)
        if tough:
            add("hard sudoku 9x9", tough, 32, 1)
    else:
        add("sudoku 9x9", nines + tough, 32, 70, len(tough))
        add("sudoku 4x4", [problems.sudoku(4, rng) for _ in range(count)], 64, 0.5)
        add("sudoku 16x16", [problems.sudoku(16, rng) for _ in range(count)], 6, 5)
    add("sudoku 6x6", [problems.sudoku(6, rng) for _ in range(count)], 48, 1)
    add("latin 8x8", [_latin(8, rng, most) for _ in range(count)], 32, 7)
    if not most:
        for side in (5, 7, 10):
            add(f"latin {side}x{side}", [_latin(side, rng, most) for _ in range(count)], 24, 1)
    for exams, slots in PLANNED[:3] if most else PLANNED:
        made = [_planned(exams, slots, rng, most) for _ in range(count)]
        add(f"timetable {exams} in {slots}", made, 32 if exams < 50 else 16, 3 if exams == 30 else 1)
    return pools


def read_hard(files: list[Path]) -> list[Puzzle]:
    """Puzzles of CSV files with the columns ``puzzle`` and ``solution``, gzipped or not. How hard is left at 0."""
    rows: list[Puzzle] = []
    for file in files:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")
        for row in csv.DictReader(io.StringIO(text)):
            rows.append(Puzzle(row["puzzle"].replace("0", "."), row["solution"], 0))
    random.Random(0).shuffle(rows)
    return rows


def _latin(side: int, rng: random.Random, plain: int) -> Made:
    return problems.latin_square(side, 0.4 if plain else rng.uniform(0.25, 0.6), rng)


def _planned(exams: int, slots: int, rng: random.Random, plain: int) -> Made:
    if plain:
        return problems.colouring(exams, slots, rng.uniform(0.2, 0.35), rng)
    bent = rng.random() < 0.25
    density = rng.uniform(0.15, 0.4) * (1 if exams < 50 else 0.5)
    return problems.colouring(exams, slots, density, rng, 0.15 if bent else 0.0, 0.3 if bent else 0.0)


def _stack(arrays: list[Array]) -> Array:
    """Arrays of unlike lengths as one, filled up with rows of zeros: (len, longest, V)."""
    longest = max(len(array) for array in arrays)
    return np.stack([np.concatenate([a, np.zeros((longest - len(a), a.shape[1]), np.float32)]) for a in arrays])
