"""Tiny ONNX models, built on the spot: each does one thing, right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from specialists.isolation import IsolatedModel

from .batchers import Hand, by_hand
from .children import Open

FLOAT = TensorProto.FLOAT
INT = TensorProto.INT64


def save(path: Path, nodes: list, inputs: list, outputs: list, initializers: list = ()) -> Path:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """``y = x + x`` for rows of three floats."""
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", FLOAT, ["n", 3])
    return save(tmp_path / "double.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], [x], [y])


@pytest.fixture
def logarithm(tmp_path: Path) -> Path:
    """``y = log(x)``: NaN below zero, minus infinity at zero."""
    x = helper.make_tensor_value_info("x", FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", FLOAT, ["n"])
    return save(tmp_path / "logarithm.onnx", [helper.make_node("Log", ["x"], ["y"])], [x], [y])


@pytest.fixture
def wrong_shape(tmp_path: Path) -> Path:
    """Says that its output has two columns whatever it is given; the input's shape decides."""
    x = helper.make_tensor_value_info("x", FLOAT, ["n"])
    shape = helper.make_tensor_value_info("shape", INT, [2])
    y = helper.make_tensor_value_info("y", FLOAT, ["rows", 2])
    return save(tmp_path / "wrong_shape.onnx", [helper.make_node("Reshape", ["x", "shape"], ["y"])], [x, shape], [y])


@pytest.fixture
def takes(tmp_path: Path) -> Callable[[int], Path]:
    """A model whose input ``x`` has the given element type."""

    def make(kind: int) -> Path:
        x = helper.make_tensor_value_info("x", kind, ["n"])
        y = helper.make_tensor_value_info("y", FLOAT, ["n"])
        return save(tmp_path / f"takes_{kind}.onnx", [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)], [x], [y])

    return make


@pytest.fixture
def named_self(tmp_path: Path) -> Path:
    """A graph whose inputs bear the names that Python methods use."""
    inputs = [helper.make_tensor_value_info(name, FLOAT, ["n"]) for name in ("self", "inputs")]
    y = helper.make_tensor_value_info("y", FLOAT, ["n"])
    return save(tmp_path / "self.onnx", [helper.make_node("Add", ["self", "inputs"], ["y"])], inputs, [y])


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A loop that adds one to ``x`` as often as ``trips`` says: 2**40 is for ever."""
    inner = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["state_in", "one"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", INT, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    loop = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=inner)
    return save(
        tmp_path / "endless.onnx",
        [loop],
        [helper.make_tensor_value_info("trips", INT, []), helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [1])],
    )


@pytest.fixture
def opened() -> Iterator[Open]:
    """Models in child processes, which are closed after the test."""
    models: list[IsolatedModel] = []

    def make(path: Path, **options: Any) -> IsolatedModel:
        models.append(IsolatedModel(path, **options))
        return models[-1]

    yield make
    for model in models:
        model.close()


@pytest.fixture
def hand() -> Iterator[Hand]:
    """The workers of all batchers, driven by the test."""
    with by_hand() as each:
        yield each
