"""The recipe of the bundled `maze`: trains the step network on mazes made on the way, exports it, measures it.

    python -m specialists.training.maze --out FOLDER [--minutes N] [--seed N] [--resume]
    python -m specialists.training.maze --evaluate KIND [--side N] [--least N] [--any] [--limit N] [--untrained]
    python -m specialists.training.maze --curve FOLDER

FOLDER gets `last.pt` every few minutes and when the run is stopped, `curve.json` and `model.onnx`; `--curve` draws
`curve.svg` from what was recorded. Every maze follows from the seed; how many updates fit into the minutes depends on
the machine. A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specialists import OnnxModel, StepScheduler
from specialists.evaluation import wilson
from specialists.training import maze_grids as grids
from specialists.training.maze_step import NOISE, SURE, WIDTH, Step, export, parameters
from specialists.zoo.maze import rules, solver

UNROLL = 10
"""Steps with gradient; then the carry is detached and goes on."""
SIZES = ((9, 48), (16, 20), (23, 10), (31, 6), (42, 4))
"""Sides of the squares that mazes are laid in, and how many such mazes are under way at a time."""
RATE = 3e-3
FRONT = 4
"""Steps since news of the goal came to a cell, while the cell counts among the front of the wave."""
REPORTS = ((300.0, 30.0), (math.inf, 120.0))
"""Up to how many seconds of the training a line is printed how often; the first minutes are those that change most."""
CHECKED = {"15x15": (15, 1, 100), "30x30, path > 110": (30, 111, 30)}
RECORDED = 12
"""Steps after which it is recorded what the network says."""
FAR = {"60x60, path > 150": (60, 151, 8)}
"""What is kept aside and looked at while training: side, least path, how many."""


class Lot(NamedTuple):
    """Mazes as arrays. Cells outside of a smaller maze are walls."""

    maze: Tensor
    """(n, 3, side, side): open, start, goal."""
    distance: Tensor
    """(n, side, side): steps to the goal, -1 where there is no way."""
    good: Tensor
    """(n, 4, side, side): which moves shorten the way by one."""


def draw(chance: random.Random, count: int, side: int) -> Lot:
    """``count`` mazes of any kind, at most ``side`` high and wide; some of the most winding that there are."""
    maze = np.zeros((count, 3, side, side), np.float32)
    distance = np.full((count, side, side), -1, np.int64)
    for number in range(count):
        kind = chance.choice(list(grids.KINDS))
        smallest = max(5, side // 2)
        rows, columns = (side if chance.random() < 0.5 else chance.randint(smallest, side) for _ in range(2))
        grid, steps = grids.make(chance, kind, rows, columns, far=0.5)
        put(grid, steps, maze[number], distance[number])
    return lot(maze, distance)


def put(grid: list[str], steps: list[int], maze: NDArray[Any], distance: NDArray[Any]) -> None:
    """Writes one maze into arrays that may be larger."""
    cells = np.array([list(row) for row in grid])
    rows, columns = cells.shape
    for layer, marks in enumerate((cells != "#", cells == "S", cells == "G")):
        maze[layer, :rows, :columns] = marks
    distance[:rows, :columns] = np.array(steps).reshape(rows, columns)


def lot(maze: NDArray[Any], distance: NDArray[Any]) -> Lot:
    """Arrays as tensors, with the moves that are right."""
    around = np.pad(distance, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    rows, columns = distance.shape[1:]
    beside = [around[:, 1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns] for dy, dx in grids.SIDES]
    good = np.stack([(distance > 0) & (other == distance - 1) for other in beside], 1)
    return Lot(torch.from_numpy(maze), torch.from_numpy(distance), torch.from_numpy(good))


def fresh(n: int, rows: int, columns: int, generator: torch.Generator | None = None) -> Tensor:
    """The latent state that a rollout starts from: noise."""
    return torch.randn(n, WIDTH, rows, columns, generator=generator) * NOISE


class Herd:
    """Mazes of one size that are under way. Each goes on from update to update until its wave has long come through.

    So the network learns from states that it really gets into, late ones too: what is known must stay known.
    """

    def __init__(self, chance: random.Random, count: int, side: int, device: torch.device) -> None:
        self.chance, self.side, self.device = chance, side, device
        self.lot = Lot(*(each.to(device) for each in draw(chance, count, side)))
        self.carry = fresh(count, side, side).to(device)
        self.age = torch.zeros(count, dtype=torch.long, device=device)
        self.life = self._lives(self.lot.distance)

    def _lives(self, distance: Tensor) -> Tensor:
        longest = distance.flatten(1).amax(1)
        more = torch.tensor([self.chance.choice((5, 20, 0.5, 1.0)) for _ in range(len(longest))], device=self.device)
        return longest + torch.where(more > 1, more, more * longest).long()

    def replace(self) -> None:
        """Mazes that are through make room for others."""
        gone = torch.nonzero(self.age >= self.life)[:, 0]
        if len(gone):
            new = Lot(*(each.to(self.device) for each in draw(self.chance, len(gone), self.side)))
            for old, other in zip(self.lot, new, strict=True):
                old[gone] = other
            self.carry[gone] = fresh(len(gone), self.side, self.side).to(self.device)
            self.age[gone] = 0
            self.life[gone] = self._lives(new.distance)


def price(moves: Tensor, known: Tensor, lot: Lot, age: Tensor) -> Tensor:
    """The loss after ``age`` steps (n,): the wave has come as many cells far, and points back the way it came.

    A move costs -log of the summed probability of all right ones. The front of the wave counts as much as all that
    lies behind it: what goes wrong there stays wrong.
    """
    behind = age[:, None, None] - lot.distance
    reachable = lot.distance >= 0
    told = reachable & (behind >= 0)
    right = torch.where(lot.good, moves.log_softmax(1), -torch.inf).logsumexp(1)
    pointed = told & (lot.distance > 0)
    cost = torch.where(pointed, -right, 0.0)
    fresh_cells = pointed & (behind < FRONT)
    doubt = functional.binary_cross_entropy_with_logits(known, told.to(known.dtype), reduction="none")
    edge = reachable & (behind.abs() <= FRONT)
    free = lot.maze[:, 0] > 0
    return (
        cost.sum() / pointed.sum().clamp(min=1)
        + (cost * fresh_cells).sum() / fresh_cells.sum().clamp(min=1)
        + (doubt * free).sum() / free.sum()
        + (doubt * edge).sum() / edge.sum().clamp(min=1)
    )


class Training:
    """The network, its running mean (which is what ships), the optimizer, and the mazes under way."""

    def __init__(self, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.device = device
        self.net, self.mean = Step().to(device), Step().to(device)
        self.mean.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=RATE, weight_decay=0.01)
        self.updates, self.spent, self.computing, self.curve = 0, 0.0, 0.0, list[dict[str, Any]]()
        self.seed = seed
        self.gather()

    def gather(self) -> None:
        """New mazes; which ones follows from the seed and from how far the training is."""
        self.chance = random.Random(f"{self.seed} {self.updates}")
        more = 8 if self.device.type == "cuda" else 1
        self.herds = [Herd(self.chance, count * more, side, self.device) for side, count in SIZES]

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = path.with_suffix(".part")
        state |= {"updates": self.updates, "spent": self.spent, "computing": self.computing, "curve": self.curve}
        torch.save(state | {"seed": self.seed}, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device)
        if state["seed"] != self.seed:
            raise SystemExit(f"{path} is of seed {state['seed']}; go on with that one, or begin without --resume")
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.spent, self.curve = state["updates"], state["spent"], state["curve"]
        self.computing = state["computing"]
        self.gather()

    def update(self, progress: float) -> float:
        """One update, at ``progress`` 0..1 of the whole. Returns the loss."""
        rate = RATE * min(1.0, (self.updates + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Small mazes first: the large ones teach how far a wave can go, and that is only of use once there is one.
        most = min(len(self.herds), 1 + self.updates // 60)
        herd = self.herds[self.chance.randrange(most)]
        carry, losses = herd.carry, []
        looked = set(self.chance.sample(range(1, UNROLL + 1), UNROLL // 2))
        for step in range(1, UNROLL + 1):
            moves, _, known, carry = self.net(herd.lot.maze, carry)
            if step in looked:
                losses.append(price(moves, known, herd.lot, herd.age + step))
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.net.parameters(), 0.5)
        self.optimizer.step()
        self.updates += 1
        with torch.no_grad():
            for kept, now in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(now, max(1 / self.updates, 0.005))
        herd.carry, herd.age = carry.detach(), herd.age + UNROLL
        herd.replace()
        return float(loss.item())


def kept_aside(seed: int) -> dict[str, list[tuple[list[str], int]]]:
    """Mazes that are only looked at, each with the length of its shortest path."""
    found = {}
    for name, (side, least, count) in CHECKED.items():
        chance = random.Random(f"aside {seed} {name}")
        mazes = list[tuple[list[str], int]]()
        while len(mazes) < count:
            kind = list(grids.KINDS)[len(mazes) % len(grids.KINDS)]
            try:
                grid, _ = grids.make(chance, kind, side, side, least, tries=20)
            except ValueError:  # no such long way in this kind
                grid, _ = grids.make(chance, "depth-first", side, side, least)
            mazes.append((grid, grids.path_length(grid)))
        found[name] = mazes
    return found


def far_aside(seed: int) -> dict[str, list[tuple[list[str], int]]]:
    """Larger mazes than any that are trained on."""
    found = {}
    for name, (side, least, count) in FAR.items():
        chance = random.Random(f"aside {seed} {name}")
        kinds = ("depth-first", "braided", "wilson", "spiral")
        mazes = [grids.make(chance, kinds[number % 4], side, side, least)[0] for number in range(count)]
        found[name] = [(grid, grids.path_length(grid)) for grid in mazes]
    return found


def solved_at(net: Step, mazes: list[tuple[list[str], int]], steps: int, device: torch.device) -> NDArray[Any]:
    """After which step 1..`steps` each maze reads as a shortest path in one rollout: bool (mazes, steps)."""
    side = max(max(len(grid), len(grid[0])) for grid, _ in mazes)
    maze = np.zeros((len(mazes), 3, side, side), np.float32)
    for number, (grid, _) in enumerate(mazes):
        put(grid, [-1] * (len(grid) * len(grid[0])), maze[number], np.zeros((side, side)))
    given = torch.from_numpy(maze).to(device)
    carry = fresh(len(mazes), side, side, torch.Generator().manual_seed(0)).to(device)
    right = np.zeros((len(mazes), steps), bool)
    for step in range(steps):
        with torch.no_grad():
            moves, _, known, carry = net(given, carry)
        said = torch.where(known > SURE, moves.argmax(1), -1).cpu().numpy()
        for number, (grid, length) in enumerate(mazes):
            path = solver.walk(said[number], *rules.ends(grid), grid)
            right[number, step] = path is not None and len(path) - 1 == length
    return right


def train(out: Path, minutes: float, seed: int, resume: bool) -> None:
    """The whole recipe within `minutes`: training, `out/model.onnx`, `out/curve.json`."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(seed, device)
    if resume and (out / "last.pt").exists():
        training.load(out / "last.pt")
        print(f"goes on after {training.spent / 60:.1f} min and {training.updates} updates", flush=True)
    aside = kept_aside(seed)
    print(f"training {parameters(training.net)} parameters on {device}", flush=True)
    stop = False

    def asked(*_: Any) -> None:
        nonlocal stop
        stop = True

    before = [signal.signal(each, asked) for each in (signal.SIGINT, signal.SIGTERM)]
    began, reported = time.monotonic() - training.spent, time.monotonic()
    computed = time.process_time() - training.computing
    losses: list[float] = []
    try:
        while training.spent < minutes * 60 and not stop:
            losses.append(training.update(training.spent / (minutes * 60)))
            training.spent, training.computing = time.monotonic() - began, time.process_time() - computed
            every = next(seconds for until, seconds in REPORTS if training.spent < until)
            if time.monotonic() - reported >= every or training.spent >= minutes * 60:
                report(training, aside, float(np.mean(losses)), out)
                losses, reported = [], time.monotonic()
    finally:
        training.save(out / "last.pt")
        for each, old in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(each, old)
    export(training.mean, out / "model.onnx")
    if not stop:
        steps = {name: reads(training.mean, mazes, device) for name, mazes in (aside | far_aside(seed)).items()}
        write_curve(out, training.curve, steps)
        record(training.mean, out / "recorded.npz", seed)
    print(f"{'stopped' if stop else 'done'} after {training.spent / 60:.1f} min: {out / 'last.pt'}", flush=True)


def report(training: Training, aside: dict[str, list[tuple[list[str], int]]], loss: float, out: Path) -> None:
    """One line of progress, one point of the curve, a checkpoint and the model as it is now."""
    point: dict[str, Any] = {"minutes": round(training.spent / 60, 2), "computing": round(training.computing / 60, 2)}
    point |= {"updates": training.updates, "loss": loss}
    for name, mazes in aside.items():
        most = 10 + max(length for _, length in mazes)
        point[name] = float(solved_at(training.mean, mazes, most, training.device)[:, -1].mean())
    training.curve.append(point)
    print("  ".join(f"{key} {value:.4g}" for key, value in point.items()), flush=True)
    training.save(out / "last.pt")
    export(training.mean, out / "model.onnx")
    write_curve(out, training.curve, {})


def record(net: Step, path: Path, seed: int) -> None:
    """What the network says of two small mazes, for a test of the exported graph that needs no PyTorch."""
    maze = draw(random.Random(seed), 2, 9).maze
    carry = start = fresh(2, 9, 9, torch.Generator().manual_seed(seed))
    net = net.cpu()
    with torch.no_grad():
        for _ in range(RECORDED):
            moves, halt, known, carry = net(maze, carry)
    said = torch.where(known > SURE, moves.argmax(1), -1)
    arrays = {"maze": maze, "carry": start, "moves": said, "halt": halt, "next_carry": carry}
    np.savez_compressed(path, **{name: value.numpy() for name, value in arrays.items()})


def reads(net: Step, mazes: list[tuple[list[str], int]], device: torch.device) -> list[tuple[int, float]]:
    """After how many steps which share of the mazes reads as a shortest path, up to twice the longest."""
    right = solved_at(net, mazes, 2 * max(length for _, length in mazes), device)
    every = max(1, right.shape[1] // 80)
    return [(step + 1, round(float(right[:, step].mean()), 4)) for step in range(0, right.shape[1], every)]


def write_curve(out: Path, training: list[dict[str, Any]], steps: dict[str, list[tuple[int, float]]]) -> None:
    """What is known of the run so far, for ``--curve`` and for whoever wants the numbers."""
    (out / "curve.json").write_text(json.dumps({"training": training, "steps": steps}) + "\n")


def draw_curve(folder: Path) -> None:
    """`curve.svg` from `curve.json`: right answers against training time, and against steps."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "maze"  # the same numbers give the same file
    from matplotlib import pyplot as plt

    curve = json.loads((folder / "curve.json").read_text())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    for name, colour in zip((*CHECKED, *FAR), ("tab:blue", "tab:orange", "tab:green"), strict=True):
        points = [(point["minutes"], 100 * point[name]) for point in curve["training"] if name in point]
        if points:
            left.plot(*zip((0, 0), *points, strict=True), color=colour, label=name, marker=".")
        steps = curve["steps"].get(name, [])
        if steps:
            right.plot([step for step, _ in steps], [100 * share for _, share in steps], color=colour, label=name)
    left.set(xlabel="minutes of training (one thread)", ylabel="shortest path read, one rollout (%)", ylim=(-2, 103))
    right.set(xlabel="steps (log)", xscale="log", ylim=(-2, 103))
    for side in (left, right):
        side.grid(alpha=0.3)
        side.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize="small", loc="upper left")
    figure.savefig(folder / "curve.svg", metadata={"Date": None})
    print(f"{folder / 'curve.svg'}: {(folder / 'curve.svg').stat().st_size} bytes")


class Measured(NamedTuple):
    """One maze, measured: whether one rollout and whether all of them were accepted, and what it cost."""

    one: bool
    every: bool
    wrong: bool
    steps: int
    seconds: float
    cpu_seconds: float
    search_seconds: float


async def ask(scheduler: StepScheduler, grid: list[str], shortest: bool) -> Measured:
    """Asks as the specialist's ladder does: one rollout first, more if that is not accepted. Checks are in the time."""

    async def rung(most: int | None) -> tuple[bool, int, list[tuple[int, int]]]:
        assert rules.problem(grid) is None
        assert rules.shortest_length(grid) is not None
        answer = await solver.reason(scheduler, grid, shortest, most)
        passed = rules.is_path({"grid": grid, "shortest": shortest}, answer.value).status == "passed"
        return passed, answer.steps or 0, answer.value

    began, computed = time.perf_counter(), time.process_time()
    one, steps, path = await rung(solver.FIRST)
    every = one
    if not one:
        every, more, path = await rung(None)
        steps += more
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
    began = time.perf_counter()
    known = grids.search(grid)  # written apart from the verifier, so that it is not the only one to say what is right
    search_seconds = time.perf_counter() - began
    assert known is not None
    proper = bool(path) and grid[path[0][0]][path[0][1]] == "S" and grid[path[-1][0]][path[-1][1]] == "G"
    proper &= all(abs(y - v) + abs(x - u) == 1 for (y, x), (v, u) in pairwise(path))
    proper &= all(grid[y][x] != "#" for y, x in path) and (not shortest or len(path) == len(known))
    return Measured(one, every, every and not proper, steps, seconds, cpu_seconds, search_seconds)


def evaluate(model: Path, kind: str, side: int, least: int, limit: int, shortest: bool, seed: int) -> None:
    """Runs the shipped loop over mazes that no training draws, and prints one line."""
    scheduler = StepScheduler(solver.Reasoner(OnnxModel(model, threads=1)), max_steps=solver.MORE)
    kinds = list(grids.KINDS) if kind == "all" else [kind]
    mazes: list[list[str]] = []
    chance = random.Random(f"measured {seed} {kind} {side} {least}")
    while len(mazes) < limit:
        name = kinds[len(mazes) % len(kinds)]
        try:
            mazes.append(grids.make(chance, name, side, side, least, tries=200)[0])
        except ValueError:
            kinds.remove(name)  # it has no ways that long
            if not kinds:
                raise SystemExit(f"no {kind} maze of {side} x {side} has a path of {least} steps") from None

    async def run() -> list[Measured]:
        await solver.reason(scheduler, mazes[0], shortest, 1)  # opens the model
        return [await ask(scheduler, grid, shortest) for grid in mazes]

    rows = asyncio.run(run())
    figures = []
    for name, right in (("one rollout", sum(row.one for row in rows)), ("64 rollouts", sum(row.every for row in rows))):
        low, high = wilson(right, len(rows))
        figures.append(f"{name} {right} of {len(rows)} = {right / len(rows):.2%} ({low:.2%} .. {high:.2%})")
    milliseconds = np.array([row.seconds for row in rows]) * 1000
    p50, p99 = np.percentile(milliseconds, [50, 99])
    search = np.array([row.search_seconds for row in rows]) * 1000
    paths = [grids.path_length(grid) for grid in mazes]
    print(
        f"{', '.join(kinds)} {side}x{side}, paths of {min(paths)} to {max(paths)} steps,"
        f" {'shortest' if shortest else 'any path'}: {', '.join(figures)}, wrong and accepted"
        f" {sum(row.wrong for row in rows)}; steps {np.mean([row.steps for row in rows]):.0f}; p50 {p50:.0f} ms,"
        f" p99 {p99:.0f} ms, longest {milliseconds.max():.0f} ms, CPU {np.mean([row.cpu_seconds for row in rows]):.3f}"
        f" s an answer; breadth-first search p50 {np.median(search):.2f} ms, longest {search.max():.2f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m specialists.training.maze", description=(__doc__ or "").splitlines()[0])
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, metavar="FOLDER", help="train and export into this folder")
    task.add_argument(
        "--evaluate", choices=[*grids.KINDS, "all"], metavar="KIND", help=", ".join([*grids.KINDS, "all"])
    )
    task.add_argument("--curve", type=Path, metavar="FOLDER", help="draw curve.svg from the folder's curve.json")
    parser.add_argument("--minutes", type=float, default=20, help="for the training (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where a broken-off run stopped")
    parser.add_argument("--side", type=int, default=15, help="rows and columns of the mazes to measure (default 15)")
    parser.add_argument("--least", type=int, default=1, help="steps that a shortest path has at least")
    parser.add_argument("--any", action="store_true", help="any path is right, not the shortest alone")
    parser.add_argument("--limit", type=int, default=200, help="how many mazes to measure (default 200)")
    parser.add_argument("--model", type=Path, default=solver.model.path)
    parser.add_argument("--untrained", action="store_true", help="measure a network fresh from the seed instead")
    given = parser.parse_args()
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        train(given.out, given.minutes, given.seed, given.resume)
    elif given.curve:
        draw_curve(given.curve)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = given.model
            if given.untrained:
                torch.manual_seed(given.seed)
                model = Path(folder, "model.onnx")
                export(Step(), model)
            evaluate(model, given.evaluate, given.side, given.least, given.limit, not given.any, given.seed)


if __name__ == "__main__":
    main()
