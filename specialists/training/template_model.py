"""Makes the small model that ``brain specialists new`` starts a folder with.

Command: ``python -m specialists.training.template_model``.

A network of two layers learns to name a whole root of ``x*x + b*x + c``: easy to check, less easy to find, and the
whole task fits on one page. Trained with numpy alone in seconds, seeded; ``onnx`` writes the graph. This module knows
nothing of the folder that the model is copied into.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOTS = range(-9, 10)
HIDDEN = 48
STEPS = 4000
SEED = 7
TARGET = Path(__file__).parents[1] / "template" / "model.onnx"


def equations() -> tuple[Any, Any]:
    """Every equation with two roots in -9 .. 9: its coefficients, and the larger root, counted from -9."""
    pairs = [(one, other) for one in ROOTS for other in ROOTS if one <= other]
    coefficients = np.array([[-(one + other), one * other] for one, other in pairs], dtype=np.float64)
    return coefficients, np.array([other + 9 for _, other in pairs])


def train(coefficients: Any, labels: Any) -> dict[str, Any]:
    """Full-batch Adam on the cross entropy; returns the weights by name."""
    random = np.random.default_rng(SEED)
    sizes = {"w1": (2, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, len(ROOTS)), "b2": (len(ROOTS),)}
    weights = {name: random.normal(0, 0.5, size) for name, size in sizes.items()}
    first = {name: np.zeros(size) for name, size in sizes.items()}
    second = {name: np.zeros(size) for name, size in sizes.items()}
    inputs = coefficients / [18.0, 81.0]
    wanted = np.eye(len(ROOTS))[labels]
    for step in range(1, STEPS + 1):
        hidden = np.tanh(inputs @ weights["w1"] + weights["b1"])
        logits = hidden @ weights["w2"] + weights["b2"]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (odds / odds.sum(axis=1, keepdims=True) - wanted) / len(labels)
        back = (error @ weights["w2"].T) * (1 - hidden**2)
        slopes = {"w1": inputs.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}
        rate = 0.05 * (1 - step / (STEPS + 1))
        for name, slope in slopes.items():
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope**2
            momentum, scale = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            weights[name] -= rate * momentum / (np.sqrt(scale) + 1e-8)
    # The scale of the inputs goes into the first layer, so that the graph takes b and c as they are.
    weights["w1"] = weights["w1"] / [[18.0], [81.0]]
    return weights


def export(weights: dict[str, Any], path: Path) -> None:
    """Write the graph: ``coefficients`` [batch, 2] to ``logits`` [batch, 19]."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes = [
        helper.make_node("MatMul", ["coefficients", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Tanh", ["a1"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "whole_root",
        [helper.make_tensor_value_info("coefficients", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(ROOTS)])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, path)


def main() -> None:
    coefficients, labels = equations()
    weights = train(coefficients, labels)
    hidden = np.tanh(coefficients @ weights["w1"] + weights["b1"])
    logits = hidden @ weights["w2"] + weights["b2"]
    right = int((logits.argmax(axis=1) == labels).sum())
    export(weights, TARGET)
    count = sum(value.size for value in weights.values())
    sys.stdout.write(f"{right} of {len(labels)} right, {count} parameters, {TARGET.stat().st_size} bytes: {TARGET}\n")


if __name__ == "__main__":
    main()
