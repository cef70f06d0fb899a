"""Measures the bundled `constraints` by the loop that ships, beside the exact solvers one would otherwise take.

    python -m specialists.training.constraints_measuring sudoku FILE [--limit N] [--untrained] [--classical] [--json]
    python -m specialists.training.constraints_measuring random | timetable | latin [--limit N] ...

`sudoku` reads a CSV, gzipped or not, with a column `puzzle`; the others make their problems from seeds that the
training does not use. Each problem is thought about three times, as far as it is needed: with one rollout, with 64
rollouts from noise, and with 32 branch nodes besides. One counts as solved when the rules pass the answer in time.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import io
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specialists import CannotAnswer, DeadlinePassed, OnnxModel, StepScheduler
from specialists.evaluation import wilson
from specialists.training import constraints_problems as problems
from specialists.zoo.constraints import solver
from specialists.zoo.constraints.problem import Problem, make, sudoku_groups
from specialists.zoo.constraints.reasoner import SLICE, Limits, Reasoner, reason

COLUMNS = {
    "one rollout": Limits(rollouts=1, nodes=0),
    "64 rollouts": Limits(rollouts=64, nodes=0),
    "32 branch nodes": Limits(rollouts=64, nodes=32),
}
SECONDS = 5.0
SEED = 1_000_003
"""Far from the seeds of the training."""
SLOTS = (4, 5, 6, 7, 8, 9)


class Solved(NamedTuple):
    """One problem: the first column that solved it, or ``None``; and what the last one tried took."""

    column: str | None
    steps: int
    seconds: float
    cpu_seconds: float


def read_sudokus(file: Path, limit: int | None, skip: int = 0) -> list[Problem]:
    """The puzzles of a CSV with a column ``puzzle``: ``limit`` of them, the first ``skip`` left out."""
    data = file.read_bytes()
    text = gzip.decompress(data).decode() if file.suffix == ".gz" else data.decode()
    rows = list(csv.DictReader(io.StringIO(text)))[skip:][:limit]
    return [_nine(row["puzzle"]) for row in rows]


def make_problems(kind: str, count: int, seed: int = SEED) -> list[Problem]:
    """``count`` problems of ``kind``, the same each time: ``random``, ``timetable`` or ``latin``."""
    rng = random.Random(f"{kind}/{seed}")
    if kind == "random":
        return [_nine(problems.random_sudoku(rng).clues) for _ in range(count)]
    if kind == "latin":
        return [problems.latin_square(8, 0.4, rng).problem for _ in range(count)]
    return [
        problems.colouring(30, SLOTS[number % len(SLOTS)], rng.uniform(0.2, 0.35), rng).problem
        for number in range(count)
    ]


def keeps(problem: Problem, answer: list[int]) -> bool:
    """Whether ``answer`` keeps the rules; said without the loop's own check."""
    allowed = all(problem.allowed[variable, value] for variable, value in enumerate(answer))
    return allowed and all(len({answer[v] for v in group}) == len(group) for group in problem.groups)


async def _measure(scheduler: StepScheduler, given: list[Problem], tell: Callable[[int, int], None]) -> list[Solved]:
    await reason(scheduler, given[0], Limits(1, 0, 1))  # opens the model
    results: list[Solved] = []
    for number, problem in enumerate(given, 1):
        column = None
        for name, limits in COLUMNS.items():
            began, cpu = time.perf_counter(), scheduler.cpu_seconds
            try:
                answer = await reason(scheduler, problem, limits, time.monotonic() + SECONDS)
                right, steps = keeps(problem, answer.value) and answer.confidence == 1.0, answer.steps or 0
            except (CannotAnswer, DeadlinePassed):
                right, steps = False, 0
            seconds = time.perf_counter() - began
            if right and seconds <= SECONDS:
                column = name
                break
        results.append(Solved(column, steps, seconds, scheduler.cpu_seconds - cpu))
        tell(number, sum(each.column is not None for each in results))
    return results


def classical(given: list[Problem]) -> dict[str, float]:
    """CP-SAT of OR-tools, one worker, over the same problems: share solved and milliseconds. Wants ``ortools``."""
    from ortools.sat.python import cp_model

    seconds, solved = [], 0
    for problem in given:
        began = time.perf_counter()
        model = cp_model.CpModel()
        cells = [
            model.new_int_var_from_domain(cp_model.Domain.from_values(np.flatnonzero(row).tolist()), str(v))
            for v, row in enumerate(problem.allowed)
        ]
        for group in problem.groups:
            model.add_all_different([cells[v] for v in group])
        engine = cp_model.CpSolver()
        engine.parameters.num_workers = 1
        engine.parameters.max_time_in_seconds = SECONDS
        solved += engine.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
        seconds.append(time.perf_counter() - began)
    return {"solved": solved / len(given), **_milliseconds(seconds)}


def report(results: list[Solved]) -> dict[str, Any]:
    """Shares of all problems, with their 95 % intervals, for each column; and what an answer took."""
    n, found, names = len(results), {}, list(COLUMNS)
    for place, name in enumerate(names):
        count = sum(each.column in names[: place + 1] for each in results)
        found[name] = {"solved": count, "share": count / n, "interval": wilson(count, n)}
    return {
        "n": n,
        "columns": found,
        "steps_mean": float(np.mean([each.steps for each in results])),
        "cpu_ms_mean": 1000 * float(np.mean([each.cpu_seconds for each in results])),
        **_milliseconds([each.seconds for each in results]),
    }


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"ms_p50": float(p50), "ms_p99": float(p99), "longest_s": max(seconds)}


def _nine(puzzle: str) -> Problem:
    given = {cell: int(mark) - 1 for cell, mark in enumerate(puzzle) if mark not in ".0"}
    return make(9, 81, sudoku_groups(9), given)


def _scheduler(model: Path) -> StepScheduler:
    return StepScheduler(Reasoner(OnnxModel(model, threads=1)), max_steps=SLICE)


def _show(name: str, found: dict[str, Any]) -> None:
    for column, row in found["columns"].items():
        low, high = row["interval"]
        print(
            f"{name}: {column}: {row['solved']} of {found['n']} = {row['share']:.2%}  (95 %: {low:.2%} to {high:.2%})"
        )
    print(
        f"{name}: steps {found['steps_mean']:.1f} on average, CPU {found['cpu_ms_mean']:.0f} ms on average, p50"
        f" {found['ms_p50']:.0f} ms, p99 {found['ms_p99']:.0f} ms, longest {found['longest_s']:.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m specialists.training.constraints_measuring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=["sudoku", "random", "timetable", "latin"])
    parser.add_argument("file", type=Path, nargs="?", help="for sudoku: the CSV")
    parser.add_argument("--limit", type=int, help="so many problems (default: all of a file, 300 made ones)")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many puzzles at the head of a file")
    parser.add_argument("--model", type=Path, default=solver.model.path)
    parser.add_argument("--untrained", action="store_true", help="a network fresh from its seed instead")
    parser.add_argument("--classical", action="store_true", help="CP-SAT of OR-tools besides")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if (given.kind == "sudoku") != (given.file is not None):
        parser.error("a file goes with the kind `sudoku`, and with no other")
    asked = (
        read_sudokus(given.file, given.limit, given.skip)
        if given.file
        else make_problems(given.kind, given.limit or 300)
    )

    def tell(done: int, solved: int) -> None:
        if done % 50 == 0 and not given.json:
            print(f"... {done} of {len(asked)}, {solved} solved", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = given.model
        if given.untrained:
            import torch

            from specialists.training.constraints_step import Step, export

            torch.manual_seed(0)
            path = Path(folder, "untrained.onnx")
            export(Step(), path)
        results = asyncio.run(_measure(_scheduler(path), asked, tell))
    found = report(results)
    if given.classical:
        found["classical"] = classical(asked)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    _show(given.file.name if given.file else given.kind, found)
    if given.classical:
        exact = found["classical"]
        print(f"CP-SAT: {exact['solved']:.1%} solved, p50 {exact['ms_p50']:.0f} ms, p99 {exact['ms_p99']:.0f} ms")


if __name__ == "__main__":
    main()
