"""The ONNX graph of a text classifier, calibrated probabilities out. Weights are numpy arrays, no PyTorch.

Two graphs are built here: from hashes (``build``), and from an encoder's graph with a head after it (``add_head``).

A hash is looked up by a binary search in a sorted table inside the graph, so that a feature never seen in training is
known to be unknown (hashing straight into buckets would mistake it for another). Embeddings are int8 with one scale per
dimension; the rest is float16; arithmetic is float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Head", "Weights", "add_head", "build"]

OPSET = 17
IR = 9
PRODUCER = "specialists.training"


class Weights(NamedTuple):
    """A trained network.

    ``hashes``: int64 [V], sorted, the known features; row i + 1 of ``table`` is the i-th's embedding. ``table``:
    float32 [V + 2, D]; row 0 (padding) is zero, row V + 1 stands for every unknown word. ``hidden``: float32
    [3 D, H]; ``out``: float32 [H, labels]. ``temperature`` divides the logits.
    """

    hashes: NDArray[np.int64]
    table: NDArray[np.float32]
    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: NDArray[np.float32]
    temperature: float


class Head(NamedTuple):
    """A trained head: ``hidden`` float32 [D, H], ``out`` float32 [H, labels]. ``temperature`` divides the logits."""

    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: NDArray[np.float32]
    temperature: float


class _Graph:
    """Nodes and constants, collected in order. ``prefix`` keeps their names apart from those of another graph."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def half(self, value: NDArray[np.float32]) -> str:
        """A float16 constant, read as float32."""
        return self.add("Cast", self.constant(value, np.float16), to=TensorProto.FLOAT)


def build(weights: Weights, kinds: tuple[str, ...], words: str = "words") -> onnx.ModelProto:
    """The graph: for each of ``kinds`` an input int64 [batch, length] of hashes, 0 for padding; output
    ``probabilities``, float32 [batch, labels]. An unknown hash of the kind ``words`` counts as an unknown word; of
    another kind it is left out."""
    graph = _Graph()
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    axis = graph.constant([1], np.int64)
    known = len(weights.hashes)
    span = 1 << known.bit_length()  # more than `known`, so that the search is a fixed number of halvings
    padded = np.full(span, np.iinfo(np.uint32).max, np.uint32)
    padded[0] = 0  # row 0: padding, below every hash
    padded[1 : known + 1] = weights.hashes
    table = graph.constant(padded, np.uint32)
    scale = np.abs(weights.table).max(axis=0) / 127
    rows = graph.constant(np.rint(weights.table / scale).clip(-127, 127), np.int8)
    scale_name = graph.constant(scale, np.float32)

    pooled, counts = [], []
    for kind in kinds:
        at = graph.add("Mul", kind, zero)
        step = span >> 1
        while step:
            further = graph.add("Add", at, graph.constant(step, np.int64))
            value = graph.add("Cast", graph.add("Gather", table, further), to=TensorProto.INT64)
            at = graph.add("Where", graph.add("LessOrEqual", value, kind), further, at)
            step >>= 1
        value = graph.add("Cast", graph.add("Gather", table, at), to=TensorProto.INT64)
        missing = graph.constant(known + 1 if kind == words else 0, np.int64)
        row = graph.add("Where", graph.add("Equal", value, kind), at, missing)
        row = graph.add("Where", graph.add("Equal", kind, zero), zero, row)
        embedded = graph.add("Cast", graph.add("Gather", rows, row), to=TensorProto.FLOAT)
        total = graph.add("Mul", graph.add("ReduceSum", embedded, axis, keepdims=0), scale_name)
        present = graph.add("Cast", graph.add("Greater", row, zero), to=TensorProto.INT64)
        counts.append(graph.add("ReduceSum", present, axis, keepdims=1))
        count = graph.add("Max", counts[-1], one)
        pooled.append(graph.add("Div", total, graph.add("Sqrt", graph.add("Cast", count, to=TensorProto.FLOAT))))

    hidden = graph.add("MatMul", graph.add("Concat", *pooled, axis=1), graph.half(weights.hidden))
    hidden = graph.add("Add", hidden, graph.half(weights.hidden_bias))
    hidden = graph.add("LayerNormalization", hidden, graph.half(weights.gain), graph.half(weights.shift), axis=-1)
    logits = graph.add("MatMul", graph.add("Relu", hidden), graph.half(weights.out / weights.temperature))
    logits = graph.add("Add", logits, graph.half(weights.out_bias / weights.temperature))
    # Where nothing at all was found the bias would speak alone: then every label is as likely as another.
    found = graph.add("Cast", graph.add("Min", graph.add("Max", *counts), one), to=TensorProto.FLOAT)
    logits = graph.add("Mul", logits, found)
    graph.add("Softmax", logits, out="probabilities", axis=-1)

    labels = weights.out.shape[1]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "text_classifier",
            [helper.make_tensor_value_info(kind, TensorProto.INT64, ["batch", f"{kind}_length"]) for kind in kinds],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", labels])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name=PRODUCER,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def add_head(encoder: onnx.ModelProto, output: str, head: Head | None) -> onnx.ModelProto:
    """An encoder's graph with what follows it; ``encoder`` itself stays as it is.

    It gets the inputs ``input_ids`` and ``attention_mask``, int64 [batch, tokens], whatever types they had, and makes
    ``token_type_ids`` of zeros where the encoder wants them. ``output``: its output, a vector a token or a text. The
    result has one output: ``probabilities``, float32 [batch, labels]; without a head ``vectors``, of length 1. The
    encoder's opset must be 13 or later.
    """
    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    graph = _Graph("head_")
    before = _Graph("given_")
    own = {entry.name: entry for entry in model.graph.input}
    taken = {name: f"encoder_{name}" for name in own}
    _rename(model.graph, taken)
    for name, entry in own.items():
        source = name if name in ("input_ids", "attention_mask") else "input_ids"
        if name == "token_type_ids":
            source = before.add("Mul", source, before.constant(0, np.int64))
        before.add("Cast", source, to=entry.type.tensor_type.elem_type, out=taken[name])
    shape = next(entry for entry in model.graph.output if entry.name == output).type.tensor_type.shape
    vectors = graph.add("Cast", output, to=TensorProto.FLOAT)
    if len(shape.dim) == 3:
        mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        weight = graph.add("Unsqueeze", mask, graph.constant([2], np.int64))
        axis = graph.constant([1], np.int64)
        total = graph.add("ReduceSum", graph.add("Mul", vectors, weight), axis, keepdims=0)
        count = graph.add("ReduceSum", weight, axis, keepdims=0)
        vectors = graph.add("Div", total, graph.add("Max", count, graph.constant(1, np.float32)))
    square = graph.add("ReduceSum", graph.add("Mul", vectors, vectors), graph.constant([1], np.int64), keepdims=1)
    length = graph.add("Max", graph.add("Sqrt", square), graph.constant(1e-9, np.float32))
    vectors = graph.add("Div", vectors, length, out="vectors" if head is None else None)
    if head is None:
        ends = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", None])
    else:
        hidden = graph.add("MatMul", vectors, graph.constant(head.hidden, np.float32))
        hidden = graph.add("Relu", graph.add("Add", hidden, graph.constant(head.hidden_bias, np.float32)))
        logits = graph.add("MatMul", hidden, graph.constant(head.out / head.temperature, np.float32))
        logits = graph.add("Add", logits, graph.constant(head.out_bias / head.temperature, np.float32))
        graph.add("Softmax", logits, out="probabilities", axis=-1)
        ends = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.out.shape[1]])
    nodes = [*before.nodes, *model.graph.node, *graph.nodes]
    del model.graph.node[:], model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*before.constants, *graph.constants])
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    model.graph.output.append(ends)
    model.producer_name = PRODUCER
    return model


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give what the nodes read other names, in the graphs inside them too."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _rename(inner, names)
