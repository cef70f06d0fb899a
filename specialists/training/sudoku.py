"""The recipe of the bundled `sudoku`: makes puzzles, trains the step network on a CPU, exports it, measures it.

    python -m specialists.training.sudoku --out FOLDER [--minutes N] [--seed N] [--resume]
    python -m specialists.training.sudoku --evaluate FILE [--limit N] [--model MODEL.onnx | --untrained]

FOLDER gets the puzzles (a broken-off run keeps what it has made), `last.pt` every few minutes, and `model.onnx`. Each
block of puzzles follows from the seed; how many blocks and updates fit into the minutes depends on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import io
import math
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specialists import OnnxModel, StepScheduler
from specialists.training import sudoku_puzzles as puzzles
from specialists.training.sudoku_step import WIDTH, Step, export, parameters
from specialists.zoo.sudoku import rules, solver

UNROLL = 6
"""Steps with gradient; then the carry is detached and goes on."""
BATCH = 32
LONGEST = 24
"""Segments of `UNROLL` steps after which an unsolved puzzle makes room for another."""
RATE = 3e-3
BOLD_FROM, BOLDNESS = 0.6, 0.8
"""From this part of the training on the loss is (1 - p**q) / q with q = `BOLDNESS`; before, it is -log p."""
RANDOM_BLOCKS, HARD_BLOCKS, BLOCK = range(1, 80, 2), range(2, 400, 2), 500
"""Blocks of puzzles made before the training, blocks made beside it while it lasts, and puzzles in one."""
VALID = 128
REPORT_SECONDS = 150.0


class Pool:
    """Puzzles as arrays, drawn at random, hard ones more often than easy ones."""

    def __init__(self, rows: list[puzzles.Puzzle], seed: int) -> None:
        self.clues = np.array([[0 if mark == "." else int(mark) for mark in row.clues] for row in rows])
        self.solution = np.array([[int(mark) - 1 for mark in row.solution] for row in rows])
        weight = np.array([1.0 + min(row.guesses, 30) / 5 for row in rows])
        self.weight = np.cumsum(weight / weight.sum())
        self.chance = np.random.default_rng([seed, len(rows)])

    def __len__(self) -> int:
        return len(self.clues)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """`n` puzzles: clues (n, 81, 9) and solutions (n, 81), digits 0..8. A third get up to 15 clues more."""
        index = np.minimum(np.searchsorted(self.weight, self.chance.random(n)), len(self) - 1)
        clues, solution = self.clues[index], self.solution[index]
        more = np.where(self.chance.random(n) < 1 / 3, self.chance.integers(1, 16, n), 0)
        rank = (self.chance.random((n, 81)) + (clues > 0)).argsort(1).argsort(1)  # empty cells first, in a chance order
        return one_hot(np.where(rank < more[:, None], solution + 1, clues)), torch.from_numpy(solution)


def one_hot(clues: NDArray[np.int64]) -> Tensor:
    """Clues (n, 81), 0 for empty, as (n, 81, 9) zeros and ones."""
    return functional.one_hot(torch.from_numpy(clues), 10)[:, :, 1:].float()


def fresh_carry(n: int, generator: torch.Generator | None = None) -> Tensor:
    """The latent state that a rollout starts from: noise."""
    return torch.randn(n, 81, 9, WIDTH, generator=generator)


def solved_at(net: Step, pool: Pool, steps: int) -> Tensor:
    """The step 1..`steps` at which each puzzle of `pool` was first right in one rollout, else `steps + 1`: (n,)."""
    clues, solution = one_hot(pool.clues), torch.from_numpy(pool.solution)
    carry = fresh_carry(len(pool), torch.Generator().manual_seed(0))
    first = torch.full((len(pool),), steps + 1)
    left = torch.arange(len(pool))
    for step in range(1, steps + 1):
        with torch.no_grad():
            logits, carry = net(clues[left], carry)
        right = (logits.argmax(2) == solution[left]).all(1)
        first[left[right]] = step
        left, carry = left[~right], carry[~right]
    return first


def surprise(logits: Tensor, solution: Tensor, boldness: float) -> Tensor:
    """The mean of (1 - p**q) / q over the cells, p the probability of the right digit; at q = 0 it is -log p.

    The logarithm (Zhang and Sabuncu, arXiv 1805.07836, for the family) makes a wrong guess so dear that the network
    learns to stand still, undecided, in front of a hard puzzle, whatever noise it began from. A bounded price leaves it
    the courage to try something, see it fail and try another.
    """
    if boldness == 0:
        return functional.cross_entropy(logits.flatten(0, 1), solution.flatten())
    chance = logits.softmax(2).gather(2, solution.unsqueeze(2)).clamp_min(1e-6)
    return ((1 - chance**boldness) / boldness).mean()


class Training:
    """The network, its running mean (which is what ships), the optimizer, and a batch of puzzles under way.

    The carry of a puzzle goes on from update to update until the puzzle is solved, so the network learns from the
    states it really gets into, and spends most of its time on what it cannot do yet.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        torch.manual_seed(seed)
        self.net, self.mean, self.pool = Step(), Step(), pool
        self.mean.load_state_dict(self.net.state_dict())
        groups = [
            {"params": [p for p in self.net.parameters() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in self.net.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE)
        self.updates, self.spent = 0, 0.0
        self.clues, self.solution = pool.draw(BATCH)
        self.carry, self.age = fresh_carry(BATCH), torch.randint(0, LONGEST, (BATCH,))

    def save(self, path: Path) -> None:
        state = {"net": self.net.state_dict(), "mean": self.mean.state_dict(), "optimizer": self.optimizer.state_dict()}
        part = path.with_suffix(".part")
        torch.save({**state, "updates": self.updates, "spent": self.spent}, part)
        part.rename(path)

    def load(self, path: Path) -> None:
        state = torch.load(path)
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.spent = state["updates"], state["spent"]

    def update(self, progress: float) -> tuple[float, int]:
        """One update, at `progress` 0..1 of the whole. Returns the loss and how many puzzles are now solved."""
        rate = RATE * min(1.0, (self.updates + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        carry, losses = self.carry, []
        for step in range(UNROLL):
            logits, carry = self.net(self.clues, carry)
            if step % 2:
                losses.append(surprise(logits, self.solution, BOLDNESS if progress >= BOLD_FROM else 0.0))
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
        self.optimizer.step()
        self.updates += 1
        with torch.no_grad():
            for kept, now in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(now, max(1 / self.updates, 0.002))
        right = (logits.argmax(2) == self.solution).all(1)
        self.carry, self.age = carry.detach(), self.age + 1
        gone = right | (self.age >= LONGEST)
        new = int(gone.sum())
        if new:
            self.clues[gone], self.solution[gone] = self.pool.draw(new)
            self.carry[gone], self.age[gone] = fresh_carry(new), 0
        return loss.item(), int(right.sum())


def make_puzzles(folder: Path, seed: int, numbers: range) -> None:
    """Makes the blocks `numbers`, one after another; runs beside the training."""
    for number in numbers:
        puzzles.write_block((folder, seed, number, BLOCK))


def train(out: Path, minutes: float, seed: int, resume: bool) -> None:
    """The whole recipe within `minutes`: puzzles, training, `out/model.onnx`."""
    began, folder = time.monotonic(), out / "puzzles"
    for done, _ in enumerate(puzzles.write_blocks(folder, seed, RANDOM_BLOCKS, BLOCK), 1):
        if done % 8 == 0:
            minute = (time.monotonic() - began) / 60
            print(f"{minute:5.1f} min  puzzles: block {done} of {len(RANDOM_BLOCKS)}", flush=True)
    maker = multiprocessing.get_context("spawn").Process(
        target=make_puzzles, args=(folder, seed, HARD_BLOCKS), daemon=True
    )
    maker.start()
    try:
        _train(out, folder, minutes * 60 - (time.monotonic() - began), seed, resume)
    finally:
        maker.terminate()


def _train(out: Path, folder: Path, seconds: float, seed: int, resume: bool) -> None:
    torch.set_num_threads(1)  # the other core makes puzzles
    rows = puzzles.read_blocks(sorted(folder.glob(f"{seed}-*.csv")))
    checked = Pool(rows[:VALID], seed)
    training = Training(Pool(rows[BLOCK:], seed), seed)
    if resume and (out / "last.pt").exists():
        training.load(out / "last.pt")
    began, reported = time.monotonic() - training.spent, time.monotonic()
    print(f"training {parameters(training.net)} parameters on {len(training.pool)} puzzles", flush=True)
    losses: list[float] = []
    solved = 0
    while training.spent < seconds:
        loss, right = training.update(training.spent / seconds)
        losses.append(loss)
        solved += right
        training.spent = time.monotonic() - began
        if time.monotonic() - reported < REPORT_SECONDS and training.spent < seconds:
            continue
        first = solved_at(training.mean, checked, 64)
        print(
            f"{training.spent / 60:5.1f} min ({time.process_time() / 60:.1f} computing)  update {training.updates}"
            f"  loss {np.mean(losses):.4f}  solved per update {solved / len(losses):.2f}  of {VALID} kept aside:"
            f" {(first <= 16).float().mean():.1%} in 16 steps, {(first <= 64).float().mean():.1%} in 64",
            flush=True,
        )
        losses, solved = [], 0
        training.save(out / "last.pt")
        export(training.mean, out / "model.onnx")
        training.pool = Pool(puzzles.read_blocks(sorted(folder.glob(f"{seed}-*.csv")))[BLOCK:], seed)
        reported = time.monotonic()


def evaluate(model: Path, file: Path, limit: int | None) -> None:
    """Runs the shipped loop at full effort over a CSV, gzipped or not, with columns `puzzle` and `solution`."""
    data = file.read_bytes()
    text = gzip.decompress(data).decode() if file.suffix == ".gz" else data.decode()
    rows = list(csv.DictReader(io.StringIO(text)))[:limit]
    scheduler = StepScheduler(solver.Reasoner(OnnxModel(model, threads=1)), max_steps=solver.MORE)
    solved = wrong = 0
    steps: list[int] = []
    seconds: list[float] = []

    async def run() -> None:
        nonlocal solved, wrong
        await solver.reason(scheduler, rows[0]["puzzle"], 1)  # opens the model
        for row in rows:
            began = time.perf_counter()
            answer = await solver.reason(scheduler, row["puzzle"])
            seconds.append(time.perf_counter() - began)
            steps.append(answer.steps or 0)
            accepted = rules.is_solved({"puzzle": row["puzzle"]}, answer.value).status == "passed"
            solved += accepted and answer.value == row["solution"]
            wrong += accepted and answer.value != row["solution"]

    asyncio.run(run())
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    print(
        f"{file.name}: solved {solved} of {len(rows)} ({solved / len(rows):.2%}), wrong and accepted {wrong},"
        f" within {solver.FIRST} steps {np.mean(np.array(steps) <= solver.FIRST):.2%},"
        f" steps on average {np.mean(steps):.1f}, p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {max(seconds):.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m specialists.training.sudoku", description=(__doc__ or "").splitlines()[0]
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="make puzzles, train and export into this folder")
    task.add_argument("--evaluate", type=Path, metavar="FILE", help="measure on a CSV: puzzle, solution")
    parser.add_argument("--minutes", type=float, default=50, help="for all of it, puzzles included (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where a broken-off run stopped")
    parser.add_argument("--limit", type=int, help="measure on the first rows only")
    parser.add_argument("--model", type=Path, default=solver.model.path)
    parser.add_argument("--untrained", action="store_true", help="measure a network fresh from the seed instead")
    given = parser.parse_args()
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        train(given.out, given.minutes, given.seed, given.resume)
    elif given.untrained:
        torch.manual_seed(given.seed)
        with tempfile.TemporaryDirectory() as folder:
            export(Step(), Path(folder, "model.onnx"))
            evaluate(Path(folder, "model.onnx"), given.evaluate, given.limit)
    else:
        evaluate(given.model, given.evaluate, given.limit)


if __name__ == "__main__":
    main()
