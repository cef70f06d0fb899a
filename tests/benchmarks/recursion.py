"""Recursive models under load: useful steps per second and latency, against raw ONNX Runtime and simpler schedules.

A step is an ONNX graph of mixer-like blocks with random weights; the carry holds the state and a counter that tells
when an item halts: geometric, mean 4, at most 16 steps, from a seed. The limit is raw ONNX Runtime with inputs ready,
every row useful, at the best batch size and number of threads of a grid. Windows of limit and schedules alternate;
what is shown are medians of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specialists import OnnxModel, OnnxStep, StepScheduler
from specialists.workers import usable_cores

from .report import Row, report

MOST_STEPS, MEAN_STEPS = 16, 4
CALLERS = 64
OUTPUTS = ["next_state", "next_left", "done"]


@dataclass(frozen=True)
class Shape:
    """A step graph: rows of ``length`` vectors of ``width`` numbers through ``blocks`` of a hidden layer each."""

    name: str
    length: int
    width: int
    hidden: int
    blocks: int
    batches: tuple[int, ...]
    window: float

    @property
    def flop(self) -> float:
        """Floating-point operations of one row's step."""
        return 4.0 * self.length * self.width * self.hidden * self.blocks


SMALL = Shape("75 MFLOP", 24, 384, 1024, 2, (1, 2, 4, 8, 16, 32), 2.0)
BIG = Shape("1.6 GFLOP", 128, 256, 1024, 12, (1, 2, 4, 8), 6.0)


def build(shape: Shape, path: Path) -> Path:
    """Write the step graph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(0)
    nodes = [helper.make_node("Add", ["x", "state"], ["h0"])]
    weights = {"scale": np.ones(shape.width), "one": np.ones(()), "zero": np.zeros(())}
    for block in range(shape.blocks):
        weights[f"up{block}"] = chance.standard_normal((shape.width, shape.hidden)) / shape.width**0.5
        weights[f"down{block}"] = chance.standard_normal((shape.hidden, shape.width)) / shape.hidden**0.5
        nodes += [
            helper.make_node("LayerNormalization", [f"h{block}", "scale"], [f"n{block}"], axis=-1),
            helper.make_node("MatMul", [f"n{block}", f"up{block}"], [f"a{block}"]),
            helper.make_node("Relu", [f"a{block}"], [f"r{block}"]),
            helper.make_node("MatMul", [f"r{block}", f"down{block}"], [f"m{block}"]),
            helper.make_node("Add", [f"h{block}", f"m{block}"], [f"h{block + 1}"]),
        ]
    nodes += [
        helper.make_node("LayerNormalization", [f"h{shape.blocks}", "scale"], ["next_state"], axis=-1),
        helper.make_node("Sub", ["left", "one"], ["next_left"]),
        helper.make_node("LessOrEqual", ["next_left", "zero"], ["done"]),
    ]
    row = ["n", shape.length, shape.width]
    kinds = {"done": TensorProto.BOOL}
    shapes = {
        name: ["n"] if name in ("left", "next_left", "done") else row for name in ["x", "state", "left", *OUTPUTS]
    }
    values = {
        name: helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), dims)
        for name, dims in shapes.items()
    }
    graph = helper.make_graph(
        nodes,
        "step",
        [values[name] for name in ("x", "state", "left")],
        [values[name] for name in OUTPUTS],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


class Work:
    """An endless, seeded stream of items for one graph."""

    def __init__(self, shape: Shape) -> None:
        chance = np.random.default_rng(1)
        self.shape = shape
        self.inputs = [chance.standard_normal((1, shape.length, shape.width), np.float32) for _ in range(16)]
        self.steps = np.minimum(chance.geometric(1 / MEAN_STEPS, 20_000), MOST_STEPS).tolist()
        self._next = itertools.count()
        self._lock = threading.Lock()

    def item(self) -> tuple[dict[str, Any], int]:
        """The next item, and its steps."""
        with self._lock:
            number = next(self._next)
        steps = self.steps[number % len(self.steps)]
        return {"x": self.inputs[number % 16], "left": np.array([steps], np.float32)}, steps

    def batch(self, rows: int) -> tuple[dict[str, Any], list[int]]:
        """The next items side by side, ready to run."""
        items, steps = zip(*[self.item() for _ in range(rows)], strict=True)
        feeds = {name: np.concatenate([item[name] for item in items]) for name in ("x", "left")}
        return feeds | {"state": np.zeros_like(feeds["x"])}, list(steps)


def open_session(path: Path, threads: int) -> Any:
    """Raw ONNX Runtime, with the compute threads told."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])


Rate = tuple[float, float]
"""Useful steps per second, and per CPU second."""


def in_threads(count: int, seconds: float, rounds: Callable[[], Iterator[int]]) -> Rate:
    """Let ``count`` threads go through their rounds, each of which yields useful steps, until the time is over."""
    done = [0] * count
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        for useful in rounds():
            done[place] += useful
            if time.perf_counter() >= end:
                return

    start, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start), sum(done) / (time.process_time() - cpu)


def limit(session: Any, work: Work, rows: int, workers: int, seconds: float) -> Rate:
    """Every row useful, inputs ready."""

    def rounds() -> Iterator[int]:
        feeds, _ = work.batch(rows)
        while True:
            session.run(OUTPUTS, feeds)
            yield rows

    return in_threads(workers, seconds, rounds)


def whole_batches(session: Any, work: Work, rows: int, seconds: float, *, fixed: bool) -> Rate:
    """Batches that go through all steps (``fixed``), or until the last of their items has halted."""

    def rounds() -> Iterator[int]:
        while True:
            feeds, steps = work.batch(rows)
            for _ in range(MOST_STEPS if fixed else max(steps)):
                feeds["state"], feeds["left"], _ = session.run(OUTPUTS, feeds)
            yield sum(steps)

    return in_threads(usable_cores(), seconds, rounds)


def scheduled(scheduler: StepScheduler, work: Work, seconds: float) -> Rate:
    """Callers that each have one item under way all the time; the steps of the items that ended in the window."""

    async def main() -> Rate:
        useful = 0

        async def caller() -> None:
            nonlocal useful
            while True:
                item, steps = work.item()
                result = await scheduler.run(item)
                assert result.halted
                assert result.steps == steps
                useful += steps

        callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        await asyncio.sleep(0.3)
        before, start, cpu = useful, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        done, wall, spent = useful - before, time.perf_counter() - start, time.process_time() - cpu
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
        return done / wall, done / spent

    return asyncio.run(main())


def latencies(answer: Callable[[dict[str, Any]], Any], work: Work, rate: float, count: int, seed: int) -> list[float]:
    """Seconds from each item's arrival to its answer. Arrivals are Poisson; a late start counts as waiting."""

    async def main() -> list[float]:
        gaps = np.random.default_rng(seed).exponential(1 / rate, count)
        found: list[float] = []
        begin = time.perf_counter()

        async def one(item: dict[str, Any], arrival: float) -> None:
            await answer(item)
            found.append(time.perf_counter() - begin - arrival)

        async with asyncio.TaskGroup() as tasks:
            for arrival in np.cumsum(gaps).tolist():
                if (ahead := arrival - (time.perf_counter() - begin)) > 0:
                    await asyncio.sleep(ahead)
                tasks.create_task(one(work.item()[0], arrival))
        return found

    return asyncio.run(main())


def make(shape: Shape, folder: Path) -> tuple[Work, Any, StepScheduler, tuple[int, int, int]]:
    """The work, a raw session of one thread, our scheduler, and the best cell of the grid: rows, workers, threads."""
    path = build(shape, folder / f"{shape.name.replace(' ', '_')}.onnx")
    work, cores = Work(shape), usable_cores()
    sessions = {1: open_session(path, 1), cores: open_session(path, cores)}
    grid = [(rows, cores // threads, threads) for rows in shape.batches for threads in sessions]
    best = max(grid, key=lambda cell: limit(sessions[cell[2]], work, cell[0], cell[1], shape.window / 4)[0])
    step = OnnxStep(
        OnnxModel(path), carry={"next_state": "state", "next_left": "left"}, halted="done", answer=["next_state"]
    )
    scheduler = StepScheduler(step, max_steps=MOST_STEPS)
    asyncio.run(scheduler.warm_up(work.item()[0]))
    return work, sessions, scheduler, best


def throughput(shape: Shape, folder: Path, pairs: int, seconds: float) -> tuple[list[Row], Work, Any, StepScheduler]:
    """Rows for one graph: ours and the simpler schedules, each as a share of the limit beside it."""
    work, sessions, scheduler, (rows, workers, threads) = make(shape, folder)
    one = sessions[1]
    ways: dict[str, Callable[[], Rate]] = {
        "step by step": lambda: scheduled(scheduler, work, seconds),
        "fixed depth": lambda: whole_batches(one, work, max(2, rows), seconds, fixed=True),
        "until all have halted": lambda: whole_batches(one, work, max(2, rows), seconds, fixed=False),
        "one at a time": lambda: whole_batches(one, work, 1, seconds, fixed=False),
    }
    ratios: dict[str, list[Rate]] = {name: [] for name in ways}
    for _ in range(pairs):
        for name, way in ways.items():
            most = limit(sessions[threads], work, rows, workers, seconds / 2)
            ours = way()
            after = limit(sessions[threads], work, rows, workers, seconds / 2)
            wall, cpu = [(before + later) / 2 for before, later in zip(most, after, strict=True)]
            ratios[name].append((ours[0] / wall, ours[1] / cpu))
    raw = f"raw, batch {rows}, {workers} x {threads} threads"
    note = f"{CALLERS} callers, {scheduler.slots} slots, median of {pairs}"
    made = []
    for name, values in ratios.items():
        by_wall, by_cpu = (statistics.median(value) for value in zip(*values, strict=True))
        ours = name == "step by step"
        label = f"{shape.name} a step: useful steps, {name}"
        made.append(Row(label, by_wall, target=0.95 if ours else None, against=raw, note=note if ours else ""))
        if ours:
            made.append(Row(f"{label}, per CPU second", by_cpu, against=raw, note=note))
    return made, work, one, scheduler


def waiting(work: Work, session: Any, scheduler: StepScheduler, count: int, parts: int) -> list[Row]:
    """p99 under Poisson arrivals at 90 % of what one at a time can do, ours and one at a time in turns."""
    pool = ThreadPoolExecutor(usable_cores())

    def alone(item: dict[str, Any]) -> None:
        feeds = item | {"state": np.zeros_like(item["x"])}
        done = False
        while not done:
            feeds["state"], feeds["left"], flags = session.run(OUTPUTS, feeds)
            done = bool(flags[0])

    async def one_at_a_time(item: dict[str, Any]) -> None:
        await asyncio.get_running_loop().run_in_executor(pool, alone, item)

    found: dict[str, list[list[float]]] = {"ours": [], "alone": []}
    mean = statistics.fmean(work.steps)
    rates = []
    for part in range(parts):
        rate = 0.9 * whole_batches(session, work, 1, 1.0, fixed=False)[0] / mean
        rates.append(rate)
        found["alone"].append(latencies(one_at_a_time, work, rate, count // parts, part))
        found["ours"].append(latencies(scheduler.run, work, rate, count // parts, part))
    p99 = {name: [float(np.percentile(part, 99)) for part in found[name]] for name in found}
    p50 = {name: [float(np.percentile(part, 50)) for part in found[name]] for name in found}
    ratios = [ours / alone for ours, alone in zip(p99["ours"], p99["alone"], strict=True)]
    rows = [
        Row(
            "p99 of items that arrive by chance",
            statistics.median(ratios),
            target=0.5,
            better="lower",
            against="one at a time, at 90 % of its capacity",
            note=f"Poisson, {statistics.fmean(rates):.0f} items/s, {count} items, median of {parts} parts",
        )
    ]
    for name, label in (("ours", "step by step"), ("alone", "one at a time")):
        note = f"p50 {1000 * statistics.median(p50[name]):.3g} ms"
        rows.append(Row(f"p99, {label}", 1000 * statistics.median(p99[name]), "ms", better="lower", note=note))
    return rows


def measure(options: argparse.Namespace) -> Sequence[Row]:
    """All rows."""
    pairs = 1 if options.quick else options.pairs
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for shape in (SMALL, BIG):
            seconds = shape.window / 4 if options.quick else shape.window
            made, work, session, scheduler = throughput(shape, Path(name), pairs, seconds)
            rows += made
            if shape is SMALL:
                count, parts = (400, 1) if options.quick else (options.items, 10)
                rows += waiting(work, session, scheduler, count, parts)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides."""
    parser.add_argument("--pairs", type=int, default=5, help="windows of limit and schedule (default 5)")
    parser.add_argument("--items", type=int, default=20_000, help="items that arrive by chance (default 20,000)")


if __name__ == "__main__":
    sys.exit(report("recursion", str(__doc__).splitlines()[0], measure, add_arguments=add_arguments))
