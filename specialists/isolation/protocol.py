"""What parent and child say to each other: arrays with a header of strict JSON before them, nothing that is executed.

A frame is the length of its header (4 bytes), the length of its body (8 bytes), the header, the body. Arrays stand in
the body one after the other, without gaps; the header tells their names, types and shapes. Nothing is pickled, and the
reader believes no length before it has compared it with its limit. It knows nothing of processes and models.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..strict_json import loads

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_HEADER", "PREFIX", "TYPES", "Nonsense", "pack", "read_arrays", "read_header", "read_prefix", "tell"]

PREFIX = 12
MOST_HEADER = 1 << 20
MOST_DIMENSIONS = 32

TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
"""ONNX Runtime's names of the types that can be told, and numpy's."""

_prefix = struct.Struct(">IQ")
_names = frozenset(TYPES.values())


class Nonsense(Exception):
    """The other side said something that is not in the protocol. The message quotes nothing of it."""


def pack(header: Mapping[str, Any], parts: Sequence[Any] = ()) -> list[Any]:
    """A frame as buffers to be written in this order. ``parts``: contiguous arrays or bytes."""
    views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
    return [_prefix.pack(len(text), sum(len(view) for view in views)) + text, *views]


def read_prefix(data: bytes, most: int) -> tuple[int, int]:
    """The lengths of header and body. ``most``: the bytes a body may have. Raises :class:`Nonsense`."""
    header, body = _prefix.unpack(data)
    if header > MOST_HEADER or body > most:
        raise Nonsense(f"a message of {header + body:,} bytes, where {MOST_HEADER + most:,} are allowed")
    return header, body


def read_header(data: bytes | bytearray) -> dict[str, Any]:
    """The header as an object. Raises :class:`Nonsense`."""
    try:
        header = loads(bytes(data).decode("utf-8"))
    except (ValueError, RecursionError):
        raise Nonsense("a header that is not strict JSON") from None
    if not isinstance(header, dict):
        raise Nonsense("a header that is not an object")
    return header


def tell(names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> list[list[Any]]:
    """Names, types and shapes of arrays, as they stand in a header."""
    return [[name, array.dtype.name, list(array.shape)] for name, array in zip(names, arrays, strict=True)]


def read_arrays(told: Any, body: bytearray, names: Sequence[str]) -> list[NDArray[Any]]:
    """The arrays of a body. ``names``: which they must be, in this order. Raises :class:`Nonsense`."""
    import numpy as np

    if not isinstance(told, list) or len(told) != len(names):
        raise Nonsense("another number of arrays than the model has")
    arrays, at = [], 0
    for entry, wanted in zip(told, names, strict=True):
        if not isinstance(entry, list) or len(entry) != 3:
            raise Nonsense("an array that is not described")
        name, kind, shape = entry
        if name != wanted or not isinstance(kind, str) or kind not in _names:
            raise Nonsense("an array of another name or of an unknown type")
        if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(_is_size(size) for size in shape):
            raise Nonsense("an array of an impossible shape")
        dtype = np.dtype(kind)
        end = at + math.prod(shape) * dtype.itemsize
        if end > len(body):
            raise Nonsense("arrays that are larger than what was sent")
        part = np.frombuffer(body, np.uint8, end - at, at)
        # A byte that is neither 0 nor 1 is no bool, whatever computes with it.
        array = part != 0 if kind == "bool" else part.view(dtype)
        arrays.append(array.reshape(shape))
        at = end
    if at != len(body):
        raise Nonsense("more bytes than its arrays have")
    return arrays


def _is_size(size: Any) -> bool:
    return type(size) is int and 0 <= size < 1 << 48
