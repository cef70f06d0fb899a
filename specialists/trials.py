"""Whether calls of a model may share a run, and how large its batches should be: tried and measured, not believed.

The first time calls meet, one is run singly and beside another, and filled up. Only when its answers agree are calls
joined from then on, or filled up. So a model whose rows are not independent, or that has no mask for what is filled
up, is served one call at a time, or equal lengths together, and never answers wrong because it was busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, Any

from .joining import Layout, bad_rows, join, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["is_apart", "measure"]

RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""How far the answers of one call may lie apart, alone and in a batch: kernels sum in another order."""

MEASURING_SECONDS = 0.25
SIZES = (1, 2, 4, 8, 16, 32, 64)
GAIN = 0.97
"""The smallest batch is taken whose seconds per item are so near to the best."""
RUNS_WORTH = 4
"""A batch may hold at least so many times what its run costs beside its cells."""
QUEUE_SECONDS = 300e-6
"""About what a batch costs here beside its run: taken from the queue, joined, split and handed out."""


def is_apart(
    run: Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]],
    layout: Layout,
    call: Sequence[NDArray[Any]],
    *,
    longer: bool,
) -> bool | None:
    """Whether a call's answer changes when it runs beside another: then the two must not share a run.

    ``run`` gives the outputs for inputs in the graph's order. The other call is made of this one, with other values;
    with ``longer`` this one is filled up beside it. ``None``: this call does not tell, as one of zeros alone, which
    is the same filled up or not.
    """
    others = []
    for made in _others(call):
        other = _resized(layout, made, 1) if longer and not _can_shrink(layout, call) else made
        alone = _lone(run, other)
        if alone is not None:
            others.append((other, alone))
            if not all(map(_is_binary, call)):
                break
    ones = [call]
    if longer:
        if not _says_something(layout, call):
            return None
        ones.append([_negative(array) for array in call])  # zeros among positive numbers alter no maximum
        if _can_shrink(layout, call):
            ones = [_resized(layout, one, -1) for one in ones]
    told = False
    for one in ones:
        mine = _lone(run, one)
        if mine is None:
            continue
        for other, alone in others:
            told = True
            both = [one, other]
            values = run(list(join(layout, both).values()))
            rows = sum(len(each[0]) for each in both)
            if any(value.ndim == 0 or len(value) != rows for value in values):
                return True
            parts = split(layout, both, values)
            for answer, part in zip((mine, alone), parts, strict=True):
                if not all(_agree(answer[index], part[entry.name]) for index, entry in enumerate(layout.outputs)):
                    return True
    return False if told else None


def _lone(
    run: Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]], call: Sequence[NDArray[Any]]
) -> Sequence[NDArray[Any]] | None:
    """The outputs for a call that was made up; ``None`` where the model has no answer to it."""
    try:
        values = run(call)
    except Exception:  # what a model says of an input that nobody gave it is no failure of anyone's call
        return None
    return None if bad_rows([value for value in values if value.ndim]) is not None else values


def _others(call: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """Other values of the same shapes that a model can be expected to take, the most telling first.

    What holds nothing but 0 and 1 may be a mask and is only turned round. The other numbers are also halved: a model
    that looks at the largest number of a whole batch shows it then. Where there are no others, one array is changed at
    a time, and each has something to tell.
    """
    turned = [_turned(array) for array in call]
    if all(map(_is_binary, call)):
        made = [[_flipped(each) if each is array else each for each in call] for array in call]
        made.append([_halved(each) if each.dtype.kind == "f" else each for each in call])
    else:
        made = [[each if _is_binary(each) else _halved(each) for each in turned], turned]
    return [other for other in made if not all(map(_same, call, other))]


def _turned(array: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(array[..., ::-1] if array.ndim > 1 else array[::-1])


def _halved(array: NDArray[Any]) -> NDArray[Any]:
    halved: NDArray[Any] = array * array.dtype.type(0.5) if array.dtype.kind == "f" else array - array // 2
    return halved


def _flipped(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "b":
        return ~array
    return (1 - array).astype(array.dtype) if array.dtype.kind in "fiu" else array


def _negative(array: NDArray[Any]) -> NDArray[Any]:
    return array if _is_binary(array) or array.dtype.kind not in "fi" else -array


def _is_binary(array: NDArray[Any]) -> bool:
    return array.dtype.kind not in "fiu" or bool(((array == 0) | (array == 1)).all())


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    import numpy as np

    return np.array_equal(one, other)


def _free(layout: Layout) -> set[tuple[int, int]]:
    return {*layout.variable, *((index, axis) for index, axis, _, _ in layout.equal)}


def _says_something(layout: Layout, call: Sequence[NDArray[Any]]) -> bool:
    """Whether what is filled up with zeros differs from what the call holds."""
    arrays = [call[index] for index in {index for index, _ in _free(layout)}]
    numbers = [array for array in arrays if not _is_binary(array)] or arrays
    return any(array.any() for array in numbers)


def _can_shrink(layout: Layout, call: Sequence[NDArray[Any]]) -> bool:
    return all(call[index].shape[axis] > 1 for index, axis in _free(layout))


def _resized(layout: Layout, call: Sequence[NDArray[Any]], sign: int) -> list[NDArray[Any]]:
    """The call, each axis of free length a quarter longer or shorter: what follows repeats what came first."""
    import numpy as np

    free = _free(layout)
    found = []
    for index, array in enumerate(call):
        for axis in range(1, array.ndim):
            if (index, axis) in free:
                size = array.shape[axis]
                array = np.take(array, range(size + sign * max(1, size // 4)), axis=axis, mode="wrap")
        found.append(array)
    return found


def _agree(alone: NDArray[Any], together: NDArray[Any]) -> bool:
    import numpy as np

    if alone.shape != together.shape:
        return False
    if alone.dtype.kind != "f":
        return np.array_equal(alone, together)
    scale = float(np.abs(alone).max(initial=0.0))
    loose = 10 if alone.dtype.itemsize < 4 else 1
    return np.allclose(alone, together, rtol=RELATIVE * loose, atol=ABSOLUTE * loose * scale)


def measure(
    run: Callable[[dict[str, NDArray[Any]]], float], layout: Layout, call: Sequence[NDArray[Any]], length: int
) -> tuple[float, float]:
    """How large batches of this model should be: what a run costs beside its cells, in cells, and the most cells.

    ``run`` runs a batch and gives its seconds. Batches are made of one row of a real call. All sizes are swept again
    and again, and the best time of each counts: what disturbs one sweep disturbs all sizes alike.
    """
    one = [array[:1] for array in call]
    run(join(layout, [one]))
    best: dict[int, float] = {}
    batches = {}
    spent = 0.0
    for size in SIZES:
        batches[size] = join(layout, [one] * size)
        best[size] = run(batches[size])
        spent += best[size]
        if spent + 2 * best[size] > MEASURING_SECONDS / 3:
            break
    while spent + sum(best.values()) < MEASURING_SECONDS:
        for size, feeds in batches.items():
            seconds = run(feeds)
            spent += seconds
            best[size] = min(best[size], seconds)
    each = {size: (seconds + QUEUE_SECONDS) / size for size, seconds in best.items()}
    most = next(size for size in each if each[size] * GAIN <= min(each.values()))
    # Beyond the best size a run no longer grows with its rows alone: only the sizes up to it tell what a row costs.
    fitted = [(size, seconds) for size, seconds in best.items() if size <= max(2, most)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(fitted, 2)]
    row = max(1e-9, median(slopes)) if slopes else best[1]
    fixed = (max(0.0, median(seconds - row * size for size, seconds in fitted)) + QUEUE_SECONDS) / row * length
    return fixed, max(float(most * length), min(RUNS_WORTH * fixed, max(best) * float(length)))
