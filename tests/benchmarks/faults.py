"""What it costs to be careful with model files, and to run a model in a child process.

Run: ``python -m tests.benchmarks.faults [--json] [--quick]``. Hostile files are those of the fault tests. CPU time is
taken where one process does the work, wall time where two do; medians.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import specialists
from specialists import IsolatedModel, ModelRejected, OnnxModel
from specialists.graph_check import check_graph
from specialists.texts import encode

from ..faults.test_model_faults import bomb, hostile
from .report import Row, report

ZOO = Path(specialists.__file__).parent / "zoo"
LIMIT_MS = 100.0


def measure(arguments: argparse.Namespace) -> list[Row]:
    """The rows, in milliseconds."""
    rounds = 3 if arguments.quick else 15
    rows = []
    for name, data in {"memory bomb": bomb(), **{name: data for name, (data, _) in hostile().items()}}.items():
        spent = median(rounds, lambda data=data: refuse(data))
        rows.append(Row(f"refuse: {name}", spent, "ms", LIMIT_MS, "lower", note=f"{len(data):,} bytes"))
    ordinary = {f"{name}, bundled": (ZOO / name / "model.onnx").read_bytes() for name in ("constraints", "intent")}
    for name, data in {**ordinary, "50 MB of weights": heavy()}.items():
        spent = median(rounds, lambda data=data: check_graph(data))
        rows.append(Row(f"look through: {name}", spent, "ms", better="lower", note=f"{len(data):,} bytes"))
    return rows + children(rounds)


def refuse(data: bytes) -> None:
    try:
        check_graph(data)
    except ModelRejected:
        return
    raise AssertionError("it was let through")


def heavy() -> bytes:
    weights = numpy_helper.from_array(np.zeros(12_500_000, np.float32), "w")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def children(rounds: int) -> list[Row]:
    inputs = encode(["please freeze my account, I have lost my card"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes((ZOO / "intent" / "model.onnx").read_bytes())
        here, there = OnnxModel(path), IsolatedModel(path)
        start = wall(lambda: there.run_sync(**inputs))
        here.run_sync(**inputs)
        both = [
            (wall(lambda: here.run_sync(**inputs)), wall(lambda: there.run_sync(**inputs))) for _ in range(10 * rounds)
        ]
        again = []
        for _ in range(rounds):
            os.kill(there.child_pid or 0, signal.SIGKILL)
            again.append(wall(lambda: there.run_sync(**inputs)))
        there.close()
    inside, outside = (statistics.median(each) for each in zip(*both, strict=True))
    return [
        Row("child: first answer", start, "ms", better="lower", note="bundled `intent`; wall time"),
        Row("child: an answer", outside, "ms", better="lower", against=f"in this process {inside:.2f} ms"),
        Row("child: an answer after kill -9", statistics.median(again), "ms", better="lower", note="pause included"),
    ]


def median(rounds: int, do: Callable[[], None]) -> float:
    def once() -> float:
        start = time.process_time()
        do()
        return (time.process_time() - start) * 1000

    return statistics.median(once() for _ in range(rounds))


def wall(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    raise SystemExit(report("faults", __doc__.splitlines()[0], measure))
