"""The recipe of the bundled `constraints`: makes problems, trains the step network, exports it.

    python -m specialists.training.constraints --out FOLDER [--minutes N] [--seed N] [--resume] [--hard FILE ...]

FOLDER gets the puzzles (a broken-off run keeps what it has made), `last.pt` every few minutes, `curve.json` and
`model.onnx`. `--hard` names CSV files, gzipped or not, with columns `puzzle` and `solution`: hard 9x9 Sudokus to learn
from besides; without it the recipe looks for hard ones itself, on another core, while it trains. What is made follows
from the seed; how many updates fit into the minutes depends on the machine. Measured by `constraints_measuring`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from specialists.training import constraints_problems as problems
from specialists.training import sudoku_puzzles as puzzles
from specialists.training.constraints_pools import Batch, Mixture, Pool, every_pool, read_hard
from specialists.training.constraints_step import INPUTS, OUTPUTS, Step, Thought, export, parameters, step_for

UNROLL = 6
"""Steps with gradient; then the carry is detached and goes on."""
LONGEST = 16
"""Segments of `UNROLL` steps after which an unsolved problem makes room for another."""
RATE = 3e-3
BOLD_FROM, BOLDNESS = 0.35, 0.8
"""From this part of the training on the loss is (1 - p**q) / q with q = `BOLDNESS`; before, it is -log p."""
DOUBT_WEIGHT, HALT_WEIGHT = 0.1, 0.02
RANDOM_BLOCKS, HARD_BLOCKS, BLOCK = range(1, 40, 2), range(2, 400, 2), 500
"""Blocks of puzzles made before the training, blocks made beside it while it lasts, and puzzles in one."""
VALID = 96
STEPS_DRAWN, RECORDED = 256, 4
REPORT_SECONDS = 240.0


def price(chance: Tensor, boldness: float) -> Tensor:
    """(1 - p**q) / q, elementwise, for the probability p of what is right; at q = 0 it is -log p.

    The logarithm (Zhang and Sabuncu, arXiv 1805.07836, for the family) makes a wrong guess so dear that the network
    learns to stand still, undecided, in front of a hard problem, whatever noise it began from. A bounded price leaves
    it the courage to try something, see it fail and try another.
    """
    chance = chance.clamp_min(1e-6)
    return -chance.log() if boldness == 0 else (1 - chance**boldness) / boldness


def surprise(thought: Thought, batch: Batch, boldness: float) -> Tensor:
    """What a step's reading costs: against the one solution, or, where there are several, against the rules alone.

    By the rules the price is that of each conflict's probability not to be one, over the variables: any solution is as
    good as another, and the noise that a rollout begins from decides which.
    """
    chances = thought.logits.softmax(2)
    if batch.unique:
        return price(chances.gather(2, batch.solution.unsqueeze(2)).squeeze(2), boldness).mean()
    clash = torch.matmul(chances, chances.transpose(1, 2))
    return (price(1 - clash, boldness) * batch.conflicts).sum((1, 2)).div(2 * chances.shape[1]).mean()


class Done(NamedTuple):
    """What one thread made of its part of a batch."""

    gradients: tuple[Tensor, ...]
    loss: float
    carry: Tensor
    right: Tensor


class Training:
    """The network, its running mean (which is what ships), the optimizer, and the problems under way.

    The carry of a problem goes on from update to update until the problem is solved, so the network learns from the
    states it really gets into, and spends most of its time on what it cannot do yet.
    """

    def __init__(self, mixture: Mixture, seed: int, device: str, threads: int = 1) -> None:
        torch.manual_seed(seed)
        self.device, self.threads = device, threads
        self.workers = ThreadPoolExecutor(threads)
        self.net, self.mean, self.mixture = step_for(device), step_for(device), mixture
        self.mean.load_state_dict(self.net.state_dict())
        groups = [
            {"params": [p for p in self.net.parameters() if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in self.net.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE)
        self.updates, self.spent = 0, 0.0
        self.curve: list[dict[str, Any]] = []

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        state |= {"updates": self.updates, "spent": self.spent, "curve": self.curve}
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device)
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.spent, self.curve = state["updates"], state["spent"], state["curve"]

    def update(self, progress: float) -> float:
        """One update on one pool, at `progress` 0..1 of the whole. Returns the loss."""
        rate = RATE * min(1.0, (self.updates + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        boldness = BOLDNESS if progress >= BOLD_FROM else 0.0
        pool = self.mixture.choose()
        # Each thread has its share of the problems; for so small a network, threads inside a product gain nothing.
        share = -(-len(pool.age) // self.threads)
        parts = [pool.batch.rows(slice(first, first + share)) for first in range(0, len(pool.age), share)]
        jobs = [self.workers.submit(self._gradients, part, len(part.carry) / len(pool.age), boldness) for part in parts]
        done = [job.result() for job in jobs]
        for parameter, *grads in zip(self.net.parameters(), *(each.gradients for each in done), strict=True):
            parameter.grad = torch.stack(grads).sum(0)
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
        self.optimizer.step()
        self.updates += 1
        with torch.no_grad():
            for kept, now in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(now, max(1 / self.updates, 0.002))
        pool.go_on(torch.cat([each.carry for each in done]), torch.cat([each.right for each in done]), LONGEST)
        return sum(each.loss for each in done)

    def _gradients(self, batch: Batch, share: float, boldness: float) -> Done:
        carry, thoughts = batch.carry, list[Thought]()
        for step in range(UNROLL):
            thought = self.net(batch.allowed, batch.groups, batch.overlaps, carry)
            carry = thought.carry
            if step % 2:
                thoughts.append(thought)
        with torch.no_grad():
            wrong = [batch.wrong(each.logits.argmax(2)) for each in thoughts]
            right = ~wrong[-1].any(1)
        losses = []
        for each, mistaken in zip(thoughts, wrong, strict=True):
            doubt = functional.binary_cross_entropy_with_logits(each.doubt, mistaken.float())
            halt = functional.binary_cross_entropy_with_logits(each.halt, right.float())
            losses.append(surprise(each, batch, boldness) + DOUBT_WEIGHT * doubt + HALT_WEIGHT * halt)
        loss = torch.stack(losses).mean() * share
        gradients = torch.autograd.grad(loss, list(self.net.parameters()))
        return Done(gradients, loss.item(), carry.detach(), right)


def solved_at(net: Step, pool: Pool, steps: int) -> Tensor:
    """The step 1..`steps` at which each problem of `pool` was first right in one rollout, else `steps + 1`: (n,)."""
    left, first = torch.arange(len(pool.age)), torch.full((len(pool.age),), steps + 1)
    batch = pool.batch
    for step in range(1, steps + 1):
        with torch.no_grad():
            thought = net(batch.allowed, batch.groups, batch.overlaps, batch.carry)
        right = ~batch.wrong(thought.logits.argmax(2)).any(1)
        first[left[right.cpu()]] = step
        left, batch = left[~right.cpu()], batch._replace(carry=thought.carry).rows(~right)
        if not len(left):
            break
    return first


def make_puzzles(folder: Path, seed: int, numbers: range) -> None:
    """Makes the blocks `numbers`, one after another; runs beside the training."""
    os.nice(5)
    for number in numbers:
        puzzles.write_block((folder, seed, number, BLOCK))


def train(out: Path, minutes: float, seed: int, resume: bool, hard: list[Path], threads: int) -> None:
    """The whole recipe within `minutes`: puzzles, training, `out/model.onnx`."""
    began, folder = time.monotonic(), out / "puzzles"
    for done, _ in enumerate(puzzles.write_blocks(folder, seed, RANDOM_BLOCKS, BLOCK, threads), 1):
        if done % 4 == 0:
            minute = (time.monotonic() - began) / 60
            print(f"{minute:5.1f} min  puzzles: block {done} of {len(RANDOM_BLOCKS)}", flush=True)
    rows = read_hard(hard)
    maker = None
    if not rows:
        maker = multiprocessing.get_context("spawn").Process(
            target=make_puzzles, args=(folder, seed, HARD_BLOCKS), daemon=True
        )
        maker.start()
    try:
        _train(out, folder, minutes * 60 - (time.monotonic() - began), seed, resume, rows, threads)
    finally:
        if maker is not None:
            maker.terminate()


def _train(
    out: Path, folder: Path, seconds: float, seed: int, resume: bool, hard: list[puzzles.Puzzle], threads: int
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    random_rows = puzzles.read_blocks(sorted(folder.glob(f"{seed}-*[13579].csv")))
    pools = every_pool(random_rows[VALID:], hard[VALID:], seed, device)
    checked = _kept_aside(folder, hard, seed, device)
    training = Training(Mixture(pools, seed), seed, device, 1 if device == "cuda" else threads)
    if resume and (out / "last.pt").exists():
        training.load(out / "last.pt")
    began, reported = time.monotonic() - training.spent, time.monotonic()
    print(f"training {parameters(training.net)} parameters on {device}: {training.mixture.told()}", flush=True)
    stopped = _note_signals()
    losses: list[float] = []
    while training.spent < seconds and not stopped:
        losses.append(training.update(training.spent / seconds))
        training.spent = time.monotonic() - began
        if time.monotonic() - reported < REPORT_SECONDS and training.spent < seconds and not stopped:
            continue
        _report(training, checked, float(np.mean(losses)))
        losses = []
        training.save(out / "last.pt")
        (out / "curve.json").write_text(json.dumps(training.curve, indent=1) + "\n")
        export(training.mean.cpu(), out / "model.onnx")
        training.mean.to(device)
        if not hard:
            found = puzzles.read_blocks(sorted(folder.glob(f"{seed}-*[02468].csv")))
            training.mixture.renew(found)
        reported = time.monotonic()
    if stopped:
        print(f"stopped; go on with --resume --out {out}", flush=True)
        raise SystemExit(130)


def _kept_aside(folder: Path, hard: list[puzzles.Puzzle], seed: int, device: str) -> dict[str, Pool]:
    """Problems that are not learned from, by name: `VALID` of each kind."""
    rows = puzzles.read_blocks(sorted(folder.glob(f"{seed}-*[13579].csv")))[:VALID]
    return {pool.name: pool for pool in every_pool(rows, hard[:VALID], seed + 1, device, VALID)}


def draw_curve(out: Path, seed: int, hard: list[Path]) -> None:
    """`out/curve.svg`: what of the problems kept aside was right, against training time, and then against steps."""
    from specialists.training.curves import draw

    device = "cuda" if torch.cuda.is_available() else "cpu"
    state = torch.load(out / "last.pt", map_location=device)
    net = step_for(device)
    net.load_state_dict(state["mean"])
    steps = {}
    for name, pool in _kept_aside(out / "puzzles", read_hard(hard), seed, device).items():
        first = solved_at(net, pool.again(), STEPS_DRAWN)
        steps[name] = [(n, (first <= n).float().mean().item()) for n in sorted({*range(1, 32), *range(32, 257, 8)})]
    minutes = {
        name: [(0.0, 0.0), *((point["minutes"], point["solved"][name]["64"]) for point in state["curve"])]
        for name in steps
    }
    (out / "curve.json").write_text(json.dumps({"training": state["curve"], "steps": steps}, indent=1) + "\n")
    what, machine = "solved by one rollout, left in 64 steps", "a shared two-core machine"
    print(f"{out / 'curve.svg'}: {draw(out / 'curve.svg', minutes, steps, what=what, machine=machine)} bytes")


def record(out: Path, path: Path) -> None:
    """What PyTorch says of the network in `out`, on a small problem of each kind, as arrays for a test of the graph."""
    state = torch.load(out / "last.pt", map_location="cpu")
    net = Step(*state["mean"]["group.weight"].T.shape)
    net.load_state_dict(state["mean"])
    rng, noise = random.Random(0), torch.Generator().manual_seed(0)
    arrays: dict[str, Any] = {}
    made = (problems.sudoku(4, rng), problems.latin_square(4, 0.3, rng), problems.colouring(9, 3, 0.3, rng, 0.1, 0.3))
    for number, each in enumerate(made):
        rows = {name: torch.from_numpy(array) for name, array in each.problem.arrays().items()}
        rows["carry"] = torch.randn(*rows["allowed"].shape, net.width, generator=noise)
        with torch.no_grad():
            thought = net(*(rows[name] for name in INPUTS))
            for _ in range(RECORDED - 1):
                thought = net(*(rows[name] for name in INPUTS[:-1]), thought.carry)
        said = dict(zip(OUTPUTS, thought, strict=True))
        arrays |= {f"{number}/{name}": tensor.numpy() for name, tensor in (*rows.items(), *said.items())}
    np.savez_compressed(path, **arrays)


def _report(training: Training, checked: dict[str, Pool], loss: float) -> None:
    shares = {}
    for name, pool in checked.items():
        first = solved_at(training.mean, pool.again(), 64)
        shares[name] = {str(steps): round((first <= steps).float().mean().item(), 4) for steps in (16, 64)}
    minutes = training.spent / 60
    training.curve.append({"minutes": round(minutes, 2), "updates": training.updates, "loss": loss, "solved": shares})
    told = ", ".join(f"{name} {share['16']:.0%}/{share['64']:.0%}" for name, share in shares.items())
    print(f"{minutes:5.1f} min  update {training.updates}  loss {loss:.4f}  16/64 steps: {told}", flush=True)


def _note_signals() -> list[int]:
    """A list that gets the number of a signal to stop: the update under way is ended and a checkpoint written."""
    seen: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: seen.append(got))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m specialists.training.constraints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="make puzzles, train and export into this folder")
    parser.add_argument("--minutes", type=float, default=110, help="for all of it, puzzles included (default 110)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where a run that was stopped has left off")
    parser.add_argument("--hard", type=Path, nargs="+", default=[], metavar="FILE", help="hard Sudokus to learn from")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--curve", action="store_true", help="only draw curve.svg from what --out holds already")
    parser.add_argument("--record", type=Path, metavar="NPZ", help="only write what the network in --out says")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.record:
        record(given.out, given.record)
        return
    if given.curve:
        draw_curve(given.out, given.seed, given.hard)
        return
    train(given.out, given.minutes, given.seed, given.resume, given.hard, given.threads)


if __name__ == "__main__":
    main()
