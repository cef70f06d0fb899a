"""What the queue between many callers and one model costs, against ONNX Runtime itself with its inputs ready.

Run: ``python -m tests.benchmarks.serving [--quick] [--json] [--picture FILE]``. The limit is the best of a stated grid
of batch size and threads over inputs that are padded, sorted by length and waiting in memory. Callers await one item
after the other; lengths are lognormal between 4 and 128. Ratios are medians of interleaved pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from specialists import OnnxModel
from specialists.sessions import open_session
from specialists.workers import usable_cores

from .encoders import write_encoder
from .report import Row, report

BATCHES = (1, 2, 4, 8, 16, 32)
CALLERS = (64, 256)
ENCODERS = {
    # name: width, layers, items a measurement, target
    "an encoder of about 2 ms an item": (288, 2, 1500, 0.95),
    "an encoder of about 0.12 ms an item": (56, 2, 12000, 0.88),
}


def make_items(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Items of one row: random tokens, lengths lognormal with a median of 24, from 4 to 128."""
    chance = np.random.default_rng(seed)
    lengths = np.clip(np.exp(chance.normal(np.log(24), 0.7, count)), 4, 128).astype(int)
    return [
        {"ids": chance.integers(1, 1000, (1, length)), "mask": np.ones((1, length), np.int64)} for length in lengths
    ]


def ready(items: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The items as batches of ``size``, sorted by length and padded."""
    batches = []
    ordered = sorted(items, key=lambda item: item["ids"].shape[1])
    for start in range(0, len(ordered), size):
        chosen = ordered[start : start + size]
        longest = chosen[-1]["ids"].shape[1]
        batch = {name: np.zeros((len(chosen), longest), np.int64) for name in ("ids", "mask")}
        for row, item in enumerate(chosen):
            for name, array in item.items():
                batch[name][row, : array.shape[1]] = array
        batches.append(batch)
    return batches


def raw_seconds(session: Any, batches: list[dict[str, Any]], lanes: int) -> float:
    """Wall seconds that ``lanes`` threads take to run the batches."""
    left: Iterator[dict[str, Any]] = iter(batches)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                feeds = next(left, None)
            if feeds is None:
                return
            session.run(None, feeds)

    threads = [threading.Thread(target=work) for _ in range(lanes)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


async def served_seconds(model: OnnxModel, items: list[dict[str, Any]], callers: int, waits: list[float]) -> float:
    """Wall seconds that ``callers`` tasks take, each of which awaits one item after the other."""
    left = iter(items)

    async def caller() -> None:
        for item in left:
            start = time.perf_counter()
            await model.run(**item)
            waits.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - start


def throughput(name: str, folder: Path, quick: bool, pairs: int) -> Iterator[Row]:
    """Items per second with many callers, as a share of the limit."""
    width, layers, count, target = ENCODERS[name]
    path = write_encoder(folder / f"{width}.onnx", width=width, layers=layers)
    items = make_items(count // 20 if quick else count)
    data = path.read_bytes()
    sessions = {
        threads: open_session(data, str(path), name=name, threads=threads).native for threads in (1, usable_cores())
    }
    grid = {}
    sample = items[: max(64, len(items) // 5)]
    for threads, session in sessions.items():
        for size in BATCHES:
            batches = ready(sample, size)
            raw_seconds(session, batches[: 1 + len(batches) // 8], 1)
            lanes = max(1, usable_cores() // threads)
            grid[threads, size] = min(raw_seconds(session, batches, lanes) for _ in range(2)) / len(sample)
    threads, size = min(grid, key=lambda key: grid[key])
    batches = ready(items, size)
    lanes = max(1, usable_cores() // threads)
    model = OnnxModel(path)
    model.warm_up(**items[0]).result()  # tried out, so that this is not still going on when time is taken
    asyncio.run(served_seconds(model, items[: len(items) // 5], 64, []))  # warm
    for callers in CALLERS:
        ratios, cpu_ratios, waits = [], [], []
        before = model.statistics
        each = 0.0
        for _ in range(pairs):
            cpu = [time.process_time()]
            raw = raw_seconds(sessions[threads], batches, lanes)
            cpu.append(time.process_time())
            ours = asyncio.run(served_seconds(model, items, callers, waits))
            cpu.append(time.process_time())
            ratios.append(raw / ours)
            cpu_ratios.append((cpu[1] - cpu[0]) / (cpu[2] - cpu[1]))
            each = raw / len(items)
        after = model.statistics
        calls = (after.calls - before.calls) / max(1, after.runs - before.runs)
        padding = after.padding - before.padding
        share = padding / max(1, padding + after.cells - before.cells)
        waits.sort()
        note = (
            f"{calls:.1f} calls a run, padding {share:.1%}, CPU ratio {statistics.median(cpu_ratios):.3f}, p99 wait"
            f" {waits[int(len(waits) * 0.99)] / statistics.median(waits):.1f} x the median; {model.sizes.max_cells:.0f}"
            f" cells at most, a run costs {model.sizes.run_cells:.0f}"
        )
        against = f"raw, {lanes} x {threads} threads, batches of {size}: {each * 1e6:.0f} µs an item"
        measure = f"throughput, {callers} callers, {name}"
        yield Row(measure, statistics.median(ratios), target=target, against=against, note=note)


def lone_latency(folder: Path, quick: bool) -> Iterator[Row]:
    """What a lone caller waits beyond the raw run."""
    path = write_encoder(folder / "lone.onnx", width=64, layers=2)
    model = OnnxModel(path)
    item = make_items(1)[0]
    count = 200 if quick else 3000

    async def measure() -> float:
        loop_waits, raw_waits = [], []
        session = model.session
        for _ in range(count):
            start = time.perf_counter()
            await model.run(**item)
            middle = time.perf_counter()
            session.run(None, item)
            loop_waits.append(middle - start)
            raw_waits.append(time.perf_counter() - middle)
        return (statistics.median(loop_waits) - statistics.median(raw_waits)) * 1e6

    lone = asyncio.run(measure())
    yield Row("latency of a lone caller, over the raw run", lone, "µs", 150, "lower", "session.run", "medians")

    async def sync() -> float:
        waits, raw_waits = [], []
        for _ in range(count):
            start = time.perf_counter()
            model.run_sync(**item)
            middle = time.perf_counter()
            model.session.run(None, item)
            waits.append(middle - start)
            raw_waits.append(time.perf_counter() - middle)
        return (statistics.median(waits) - statistics.median(raw_waits)) * 1e6

    yield Row("the same, run_sync", asyncio.run(sync()), "µs", None, "lower", "session.run", "medians")


def loop_held_up(folder: Path, quick: bool) -> Iterator[Row]:
    """How late the event loop comes to a timer while a model runs under load."""
    path = write_encoder(folder / "held.onnx", width=288, layers=2)
    model = OnnxModel(path)
    items = make_items(100 if quick else 2000)

    async def measure() -> float:
        late: list[float] = []

        async def watch() -> None:
            while True:
                start = time.perf_counter()
                await asyncio.sleep(0.002)
                late.append(time.perf_counter() - start - 0.002)

        await served_seconds(model, items[:50], 8, [])
        watcher = asyncio.create_task(watch())
        await served_seconds(model, items, 32, [])
        watcher.cancel()
        late.sort()
        return late[int(len(late) * 0.99)] * 1000

    held = asyncio.run(measure())
    yield Row("event loop held up while a model runs, p99", held, "ms", 5, "lower", "a timer of 2 ms", "32 callers")


def measure(arguments: argparse.Namespace) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for encoder in ENCODERS:
            if arguments.only in encoder:
                rows += throughput(encoder, folder, arguments.quick, 1 if arguments.quick else arguments.pairs)
        if not arguments.only:
            rows += lone_latency(folder, arguments.quick)
            rows += loop_held_up(folder, arguments.quick)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside what every benchmark has."""
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs a row (default 5)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only encoders whose name has these words")


if __name__ == "__main__":
    sys.exit(report("serving", __doc__.split("\n\n")[0], measure, add_arguments=add_arguments))
