"""Arrays of several calls made one batch, and its outputs taken apart again.

What a graph declares of its inputs and outputs says which axes are rows, which are lengths, and what an answer must
look like. This module knows neither sessions nor queues.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

__all__ = ["Entry", "Layout", "Refused", "bad_rows", "join", "split"]

SMALL = 8192
"""Numbers in an array of which a product is made at once, without threads."""
SHARED_BYTES = 1 << 16
"""Answers of a batch up to this size stay parts of one array."""


class Refused(Exception):
    """An input does not fit. The message names it; the caller puts the model's name before it."""


class Entry(NamedTuple):
    """An input or output of a graph. ``shape``: a number is fixed, a name or ``None`` stands for any length."""

    name: str
    dtype: Any
    shape: tuple[int | str | None, ...]


class Layout:
    """What a graph's declared inputs and outputs allow.

    ``joinable``: every input and output has a first axis of free length, under one name, so that it may be the rows.
    ``variable``: where the further axes of free length are first met, as (input, axis, name).
    """

    def __init__(self, inputs: Sequence[Entry], outputs: Sequence[Entry]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.names = tuple(entry.name for entry in inputs)
        every = [*inputs, *outputs]
        first = {entry.shape[0] if entry.shape else 0 for entry in every}
        self.joinable = bool(inputs) and len(first) == 1 and not isinstance(next(iter(first)), int)
        seen: dict[str, tuple[int, int]] = {}
        self.variable: list[tuple[int, int]] = []
        self.equal: list[tuple[int, int, int, int]] = []
        """Pairs of axes of one name: (input, axis, the same elsewhere)."""
        self.named = True
        for index, entry in enumerate(inputs):
            for axis, size in enumerate(entry.shape[1:], 1):
                if isinstance(size, int):
                    continue
                if size is None:
                    self.named = False
                    self.variable.append((index, axis))
                elif size in seen:
                    self.equal.append((index, axis, *seen[size]))
                else:
                    seen[size] = (index, axis)
                    self.variable.append((index, axis))
        self.cut: tuple[tuple[tuple[int, int, int], ...], ...] = tuple(
            tuple(
                (axis, *seen[size])
                for axis, size in enumerate(entry.shape)
                if axis and isinstance(size, str) and size in seen
            )
            for entry in outputs
        )
        """For each output, the axes that are as long as an input's: (axis, input, its axis)."""
        self.whole = not any(self.cut)
        self.output_names = [entry.name for entry in outputs]
        self._one_axis = (
            self.joinable
            and len(self.variable) == 1
            and all(len(entry.shape) == 2 and not isinstance(entry.shape[1], int) for entry in inputs)
        )
        self._fixed = tuple(
            (
                entry.name,
                entry.dtype,
                len(entry.shape),
                tuple((a, s) for a, s in enumerate(entry.shape) if isinstance(s, int)),
            )
            for entry in inputs
        )

    def arrays(self, given: Mapping[str, Any]) -> list[NDArray[Any]]:
        """The inputs in the graph's order, as arrays of its types. Raises :class:`Refused`."""
        if len(given) != len(self._fixed):
            raise self._unknown(given)
        import numpy as np

        kind = np.ndarray
        arrays = []
        for name, dtype, rank, fixed in self._fixed:
            try:
                array = given[name]
            except KeyError:
                raise self._unknown(given) from None
            fits = type(array) is kind and array.dtype is dtype and array.ndim == rank
            for axis, size in fixed:
                fits = fits and array.shape[axis] == size
            arrays.append(array if fits else self._converted(name, array))
        return arrays

    def place(self, arrays: Sequence[NDArray[Any]]) -> tuple[int, int, Any]:
        """Rows, length and shape of a call, as :class:`~specialists.batching.Call` takes them.

        The shape is ``None`` where the call must run by itself; it is as long then as all that goes in, so that what a
        run takes can be foretold.
        """
        if not self.joinable:
            return self._by_itself(arrays)
        first = arrays[0]
        rows = first.shape[0]
        shape: Any
        if self._one_axis:
            shape = first.shape
            for array in arrays:
                if array.shape != shape:
                    return self._by_itself(arrays)
            length = shape[1]
            return (rows, length, length) if rows and length else (1, 1, None)
        if len(arrays) == 1:
            shape = first.shape[1:]
        else:
            shape = tuple([array.shape[1:] for array in arrays])
            for array in arrays:
                if array.shape[0] != rows:
                    return self._by_itself(arrays)
        for index, axis, other, its in self.equal:
            if arrays[index].shape[axis] != arrays[other].shape[its]:
                return self._by_itself(arrays)
        length = 0
        for index, axis in self.variable:
            length += arrays[index].shape[axis]
        return (rows, length or 1, shape) if rows else (1, 1, None)

    def _by_itself(self, arrays: Sequence[NDArray[Any]]) -> tuple[int, int, None]:
        return 1, max(1, sum([array.size for array in arrays])), None

    def check_outputs(self, values: Sequence[Any], *, finite: bool = True) -> None:
        """Raises :class:`Refused` for an output of another shape than declared, or, if asked, one not ``finite``."""
        import numpy as np

        for entry, value in zip(self.outputs, values, strict=True):
            if not isinstance(value, np.ndarray):
                if finite and not _all_finite(value):
                    raise Refused(f"its output {entry.name!r} is not finite")
                continue
            if not fits(entry.shape, value.shape):
                have = list(value.shape)
                raise Refused(f"its output {entry.name!r} has shape {have}, not {list(entry.shape)}")
            if finite and not _is_finite(value):
                raise Refused(f"its output {entry.name!r} is not finite")

    def _unknown(self, given: Mapping[str, Any]) -> Refused:
        wrong = sorted(set(given) ^ set(self.names))
        return Refused(f"inputs are {sorted(self.names)}; {wrong[0]!r} is missing or unknown")

    def _converted(self, name: str, value: Any) -> NDArray[Any]:
        import numpy as np

        entry = self.inputs[self.names.index(name)]
        try:
            given = np.asarray(value)
        except ValueError as error:
            raise Refused(f"input {name!r} is not an array: {str(error).partition(chr(10))[0]}") from None
        array = given
        wanted = entry.dtype
        if wanted is not None and given.dtype != wanted:
            if not np.can_cast(given.dtype, wanted, "same_kind"):
                raise Refused(f"input {name!r} must be {wanted}, not {given.dtype}")
            array = given.astype(wanted)
            if wanted.kind in "iu" and (array != given).any():
                raise Refused(f"input {name!r} holds a number too large for {wanted}")
        if not fits(entry.shape, array.shape):
            raise Refused(f"input {name!r} must have shape {list(entry.shape)}, not {list(array.shape)}")
        return array


def _is_finite(array: NDArray[Any]) -> bool:
    import numpy as np

    if array.dtype.kind != "f":
        return True
    # One product of small arrays is quicker than looking at each number; where it is not finite, it may have overflown.
    if array.size < SMALL and math.isfinite(np.vdot(array, array)):
        return True
    return bool(np.isfinite(array).all())


def _all_finite(value: Any) -> bool:
    """Whether a sequence or a map, as some outputs are, holds finite numbers only."""
    import numpy as np

    if isinstance(value, Mapping):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_all_finite, value))
    return _is_finite(np.asarray(value))


def fits(shape: Sequence[int | str | None], have: tuple[int, ...]) -> bool:
    """Whether an array fits the shape a graph declares."""
    return len(shape) == len(have) and all(
        not isinstance(want, int) or want == length for want, length in zip(shape, have, strict=True)
    )


def join(layout: Layout, calls: Sequence[Sequence[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The inputs of several calls as one batch; a shorter call is filled up with zeros."""
    import numpy as np

    feeds = {}
    for index, name in enumerate(layout.names):
        arrays = [call[index] for call in calls]
        shapes = {array.shape for array in arrays}
        if len({shape[1:] for shape in shapes}) == 1:
            feeds[name] = np.concatenate(arrays)
            continue
        most = tuple([max(sizes) for sizes in zip(*shapes, strict=True)])
        if most[0] == 1 and len(most) == 2:
            # Single rows of one axis: bytes are filled up and put together faster than arrays.
            width = most[1] * arrays[0].itemsize
            data = b"".join([array.tobytes().ljust(width, b"\0") for array in arrays])
            feeds[name] = np.frombuffer(data, arrays[0].dtype).reshape(len(arrays), most[1])
            continue
        joined = np.zeros((sum([array.shape[0] for array in arrays]), *most[1:]), arrays[0].dtype)
        row = 0
        for array in arrays:
            end = row + array.shape[0]
            joined[(slice(row, end), *(slice(size) for size in array.shape[1:]))] = array
            row = end
        feeds[name] = joined
    return feeds


def split(
    layout: Layout, calls: Sequence[Sequence[NDArray[Any]]], outputs: Sequence[NDArray[Any]]
) -> list[dict[str, NDArray[Any]]]:
    """Each call's own rows of a batch's outputs, without what was filled up.

    From a large batch they are copies: a caller that keeps an answer does not keep the others' with it.
    """
    names = layout.output_names
    if layout.whole and len(outputs[0]) == len(calls) and sum([value.nbytes for value in outputs]) <= SHARED_BYTES:
        each = [value.reshape(len(calls), 1, *value.shape[1:]) for value in outputs]
        if len(each) == 1:
            name = names[0]
            return [{name: part} for part in each[0]]
        return [dict(zip(names, parts, strict=True)) for parts in zip(*each, strict=True)]
    row, found = 0, []
    for call in calls:
        end = row + call[0].shape[0]
        own = {}
        for name, value, cut in zip(names, outputs, layout.cut, strict=True):
            part = value[row:end]
            for axis, index, its in cut:
                size = call[index].shape[its]
                if part.shape[axis] != size:
                    part = part[(slice(None),) * axis + (slice(size),)]
            own[name] = part if value.nbytes <= SHARED_BYTES else part.copy()
        found.append(own)
        row = end
    return found


def bad_rows(values: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Which rows hold something that is not finite: bool [rows]; ``None`` when there are none."""
    import numpy as np

    bad = None
    for value in values:
        if not _is_finite(value):
            rows = ~np.isfinite(value.reshape(len(value), -1)).all(1)
            bad = rows if bad is None else bad | rows
    return bad
