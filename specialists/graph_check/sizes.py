"""How large the tensors are that a file makes out of a written size: a hundred bytes can ask for a terabyte.

Only what stands in the file is looked at, never what a graph computes while it runs. It knows nothing of how a model
is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["MAKERS", "Numbers", "elements_made"]

Numbers = Sequence[float]
"""A small constant, flat."""

Given = Callable[[int], "Numbers | None"]
"""The node's input of this index, if it is a small constant."""


def elements_made(op: bytes, given: Given, written: Numbers | None, elements: float) -> float:
    """At least how many elements a node's output has, as far as the file alone tells; 0 if it does not.

    ``written``: the node's own attribute for it. ``elements``: of the first input, if it is a constant, else 1.
    """
    count = MAKERS[op](given, written, elements)
    return math.inf if math.isnan(count) else count


def _product(numbers: Numbers | None) -> float:
    if numbers is None:
        return 0.0
    return math.prod(float(number) for number in numbers)


def _stretched(numbers: Numbers | None) -> float:
    """As a product, when no dimension gets smaller."""
    return 0.0 if numbers is None else math.prod(max(1.0, float(number)) for number in numbers)


def _padded(numbers: Numbers | None) -> float:
    if numbers is None:
        return 0.0
    half = len(numbers) // 2
    return math.prod(max(1.0, 1.0 + a + b) for a, b in zip(numbers[:half], numbers[half:], strict=False))


def _range(given: Given) -> float:
    start, limit, delta = given(0), given(1), given(2)
    if not start or not limit or not delta or delta[0] == 0:
        return 0.0
    return max(0.0, (limit[0] - start[0]) / delta[0])


MAKERS: dict[bytes, Callable[[Given, Numbers | None, float], float]] = {
    b"AffineGrid": lambda given, written, elements: _product(given(1)),
    b"BlackmanWindow": lambda given, written, elements: _product(given(0)),
    b"CenterCropPad": lambda given, written, elements: _product(given(1)),
    b"ConstantOfShape": lambda given, written, elements: _product(given(0)),
    b"Expand": lambda given, written, elements: _stretched(given(1)),
    b"HammingWindow": lambda given, written, elements: _product(given(0)),
    b"HannWindow": lambda given, written, elements: _product(given(0)),
    b"OneHot": lambda given, written, elements: elements * _product(given(1)),
    b"Pad": lambda given, written, elements: _padded(written if written is not None else given(1)),
    b"RandomNormal": lambda given, written, elements: _product(written),
    b"RandomUniform": lambda given, written, elements: _product(written),
    b"Range": lambda given, written, elements: _range(given),
    b"Resize": lambda given, written, elements: max(
        elements * _stretched(given(1)), elements * _stretched(given(2)), _product(given(3))
    ),
    b"Tile": lambda given, written, elements: elements * _product(given(1)),
    b"Upsample": lambda given, written, elements: elements * _stretched(given(1)),
}
"""Operators that make a tensor of a size that is given to them as numbers."""
