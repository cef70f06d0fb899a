"""Transformer encoders of a wished size as ONNX files, with random weights: what is served in measurements of speed.

``ids`` and ``mask`` are int64 [batch, length]; the output is ``embedding``, float32 [batch, width], the mean of the
unmasked positions. Weights are drawn from a seed; what such a model says means nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["write_encoder"]


def write_encoder(path: Path, *, width: int, layers: int, heads: int = 4, vocabulary: int = 1000) -> Path:
    """Write an encoder of ``layers`` layers of ``width``, about ``24 * layers * width**2`` operations a token."""
    chance = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    counter = iter(range(100_000))

    def constant(array: np.ndarray) -> str:
        name = f"w{next(counter)}"
        weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(*shape: int) -> str:
        return constant((chance.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def node(kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{next(counter)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def integers(*values: int) -> str:
        return constant(np.array(values, np.int64))

    def norm(x: str) -> str:
        scale, shift = constant(np.ones(width, np.float32)), constant(np.zeros(width, np.float32))
        return node("LayerNormalization", x, scale, shift, axis=-1)

    def linear(x: str, inner: int, outer: int) -> str:
        return node("Add", node("MatMul", x, weight(inner, outer)), constant(np.zeros(outer, np.float32)))

    split = integers(0, 0, heads, width // heads)
    merge = integers(0, 0, width)
    one = constant(np.float32(1))
    mask = node("Cast", "mask", to=TensorProto.FLOAT)
    away = node("Mul", node("Sub", mask, one), constant(np.float32(1e4)))
    away = node("Unsqueeze", away, integers(1, 2))  # [batch, 1, 1, length]
    x = node("Gather", weight(vocabulary, width), "ids")
    for _ in range(layers):
        y = norm(x)
        parts = [node("Reshape", linear(y, width, width), split) for _ in range(3)]
        q, v = (node("Transpose", part, perm=[0, 2, 1, 3]) for part in (parts[0], parts[2]))
        k = node("Transpose", parts[1], perm=[0, 2, 3, 1])
        scores = node("Mul", node("MatMul", q, k), constant(np.float32((width // heads) ** -0.5)))
        mixed = node("MatMul", node("Softmax", node("Add", scores, away), axis=-1), v)
        mixed = node("Reshape", node("Transpose", mixed, perm=[0, 2, 1, 3]), merge)
        x = node("Add", x, linear(mixed, width, width))
        hidden = node("Relu", linear(norm(x), width, 4 * width))
        x = node("Add", x, linear(hidden, 4 * width, width))
    weighted = node("Mul", norm(x), node("Unsqueeze", mask, integers(2)))
    total = node("ReduceSum", weighted, integers(1), keepdims=0)
    count = node("ReduceSum", mask, integers(1), keepdims=1)
    nodes.append(helper.make_node("Div", [total, node("Max", count, one)], ["embedding"]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
