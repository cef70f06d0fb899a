"""Small graphs that treat their rows in ways that matter when calls share a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

Shape = tuple[int | str, ...]


def graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    **constants: np.ndarray,
) -> Path:
    """Write a model of these nodes; inputs and outputs are element type and shape by name."""
    declared = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in each.items()]
        for each in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "graph", *declared, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path


def scaled(path: Path, factor: float, *, rows: str = "n", length: str = "length") -> Path:
    """``y = x * factor``, position by position."""
    shape = (rows, length)
    return graph(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (FLOAT, shape)},
        {"y": (FLOAT, shape)},
        factor=np.float32(factor),
    )


def batch_mean(path: Path) -> Path:
    """Each row less the mean of all rows: a row's answer depends on its neighbours."""
    mean = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    return graph(
        path,
        [mean, helper.make_node("Sub", ["x", "mean"], ["y"])],
        {"x": (FLOAT, ("n", "length"))},
        {"y": (FLOAT, ("n", "length"))},
    )


def position_mean(path: Path) -> Path:
    """The mean over the positions of a row, without a mask."""
    return graph(
        path,
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)],
        {"x": (FLOAT, ("n", "length"))},
        {"y": (FLOAT, ("n",))},
    )


def quantised(path: Path) -> Path:
    """Numbers of one byte, whose step is a part of the largest of the whole batch, and back."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return graph(path, nodes, {"x": (FLOAT, ("n", 4))}, {"y": (FLOAT, ("n", 4))})


def fixed_rows(path: Path) -> Path:
    """Takes one row, whatever the load."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return graph(path, [node], {"x": (FLOAT, (1, "length"))}, {"y": (FLOAT, (1, "length"))})


def with_scalar(path: Path) -> Path:
    """``y = x * factor`` with a factor of each call's own."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    return graph(path, [node], {"x": (FLOAT, ("n", 3)), "factor": (FLOAT, ())}, {"y": (FLOAT, ("n", 3))})


def without_rows(path: Path) -> Path:
    """The sum of all rows: there is no row of its own for a call."""
    node = helper.make_node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=1)
    return graph(path, [node], {"x": (FLOAT, ("n", 3))}, {"y": (FLOAT, ("n", 3))})


def table(path: Path, size: int = 10) -> Path:
    """``y[n, length, 2]``: row ``ids`` of a table of ``size`` rows; a number outside of it is an error of the run."""
    return graph(
        path,
        [helper.make_node("Gather", ["rows", "ids"], ["y"])],
        {"ids": (INT, ("n", "length"))},
        {"y": (FLOAT, ("n", "length", 2))},
        rows=np.arange(2 * size, dtype=np.float32).reshape(size, 2) + 1,
    )


def logarithms(path: Path) -> Path:
    """``y = log(x)``: NaN below zero."""
    node = helper.make_node("Log", ["x"], ["y"])
    return graph(path, [node], {"x": (FLOAT, ("n", 3))}, {"y": (FLOAT, ("n", 3))})


def counting(path: Path) -> Path:
    """``y[n, 1] = x``, after as many turns of a loop as the largest of ``turns[n, 1]`` says: 2**40 is for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["state_in", "one"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", INT, []),
            helper.make_tensor_value_info("go_in", BOOL, []),
            helper.make_tensor_value_info("state_in", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", BOOL, []),
            helper.make_tensor_value_info("state_out", FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["turns"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "zero"], ["counted"], body=body),
        helper.make_node("Mul", ["counted", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    return graph(
        path,
        nodes,
        {"turns": (INT, ("n", 1)), "x": (FLOAT, ("n", 1))},
        {"y": (FLOAT, ("n", 1))},
        zero=np.zeros(1, np.float32),
    )
