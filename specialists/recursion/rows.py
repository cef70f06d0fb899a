"""The rows of a batch that steps together, kept in arrays that stay where they are while items come and go.

An item's state is one row, or several, in each of a few arrays. The rows in use are always the first ones, so that a
step runs on one contiguous piece. This module knows nothing of queues, threads or sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import ModelFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

__all__ = ["HostRows", "RowArrays", "Rows", "layout_of", "most_useful_slots", "unfinite"]

MEASURING_SECONDS = 0.5
ROUND_SECONDS = 2e-4
"""About what it costs to let items in and out and to tell their callers, beside each step."""
NEARLY = 1.02
"""A step of more rows must be faster per row by this factor to be worth the waiting."""
MOST_SLOTS = 32
MOST_SLOTS_ON_DEVICE = 256


class RowArrays(Mapping[str, "Array"]):
    """Arrays by name, one row per row of the batch, or those of one item.

    ``arrays`` holds an array, or a function that fetches it when it is asked for. With ``index`` each look-up gives a
    copy of these rows; without, the array itself, which is only lent until the next step.
    """

    def __init__(
        self, arrays: Mapping[str, Array | Callable[[], Array]], index: Sequence[int] | slice | None = None
    ) -> None:
        self._arrays = arrays
        self._index = index

    def __getitem__(self, name: str) -> Array:
        found = self._arrays[name]
        array = found() if callable(found) else found
        if self._index is None:
            return array
        array = array[self._index]
        return array.copy() if isinstance(self._index, slice) else array  # a list of rows gives a copy by itself

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def of(self, rows: list[int]) -> RowArrays:
        """The same arrays with these rows alone."""
        return RowArrays(self._arrays, slice(rows[0], rows[0] + 1) if len(rows) == 1 else rows)

    def also(self, names: Mapping[str, str]) -> RowArrays:
        """The same arrays, some of them under a second name: ``names`` is from the second name to the first."""
        return RowArrays({**self._arrays, **{name: self._arrays[other] for name, other in names.items()}}, self._index)


class Rows(Protocol):
    """Where a lane keeps the state of its items, row by row.

    ``whole``: it is on a device, and a step cannot be cut into pieces. ``carried``: the names of the state that a step
    replaces, of those that are here.
    """

    @property
    def whole(self) -> bool: ...

    @property
    def carried(self) -> Sequence[str]: ...

    def place(self, first: int, state: Mapping[str, Array]) -> None:
        """Write an item's rows, beginning at row ``first``."""

    def move(self, source: int, target: int) -> None:
        """Copy row ``source`` over row ``target``."""

    def take(self, rows: list[int]) -> dict[str, Array]:
        """A copy of the state of these rows."""

    def step(self, first: int, last: int) -> Mapping[str, Array]:
        """One step of the rows from ``first`` to before ``last``: the outputs that are no state.

        When it raises, the state is as it was.
        """

    def state(self, count: int) -> Mapping[str, Array | Callable[[], Array]]:
        """The state of the first ``count`` rows; what is not here is fetched when it is asked for."""

    def keep(self, count: int) -> None:
        """Only the first ``count`` rows are still of use."""

    def begin(self) -> None:
        """A stop that was asked for before now means nothing any more."""

    def stop(self) -> None:
        """Stop the step that runs, from another thread, if it can be stopped."""


class HostRows:
    """Rows in numpy arrays that grow when they must. ``step``: from state to new arrays.

    ``owned``: the arrays that ``step`` gives belong to nobody else, and can take the place of the old ones uncopied.
    """

    whole = False

    def __init__(self, step: Callable[[Mapping[str, Array]], Mapping[str, Array]], *, owned: bool = False) -> None:
        self._step = step
        self._owned = owned
        self._used = self._room = 0
        self._state: dict[str, Array] = {}
        self.carried: list[str] = []

    def place(self, first: int, state: Mapping[str, Array]) -> None:
        last = first + len(next(iter(state.values())))
        if last > self._room or not first:
            self._grow(first, last, state)
        for name, value in state.items():
            self._state[name][first:last] = value
        self._used = max(self._used, last)

    def _grow(self, first: int, last: int, state: Mapping[str, Array]) -> None:
        """Make arrays that have room for ``last`` rows like those of ``state``; the ones before ``first`` are kept."""
        import numpy as np

        room = max(last, 2 * first)
        old, self._state = self._state, {}
        for name, value in state.items():
            array = old.get(name)
            if array is None or len(array) < room or array.shape[1:] != value.shape[1:] or array.dtype != value.dtype:
                grown = np.empty((room, *value.shape[1:]), value.dtype)
                if array is not None and first:
                    grown[:first] = array[:first]
                array = grown
            self._state[name] = array
        self._room = min(len(array) for array in self._state.values())

    def move(self, source: int, target: int) -> None:
        for array in self._state.values():
            array[target] = array[source]

    def take(self, rows: list[int]) -> dict[str, Array]:
        return {name: array[rows] for name, array in self._state.items()}

    def step(self, first: int, last: int) -> dict[str, Array]:
        state = {name: array[first:last] for name, array in self._state.items()}
        outputs = dict(self._step(state))
        for name, value in outputs.items():
            if getattr(value, "shape", (None,))[:1] != (last - first,):
                raise ModelFailed(f"a step of {last - first} rows gave another number of rows in {name!r}")
        self.carried = [name for name in state if name in outputs]
        for name in self.carried:
            old, new = state[name], outputs.pop(name)
            if (
                self._owned
                and last - first == self._used
                and new.dtype == old.dtype
                and new.shape == old.shape
                and new.flags.carray
            ):
                self._state[name] = new
                self._room = min(self._room, len(new))
            else:
                old[...] = new
        return outputs

    def state(self, count: int) -> dict[str, Array]:
        return {name: array[:count] for name, array in self._state.items()}

    def keep(self, count: int) -> None:
        self._used = count

    def begin(self) -> None:
        pass

    def stop(self) -> None:
        pass


def layout_of(state: Mapping[str, Array]) -> tuple[int, list[Any]]:
    """How many rows the state of one item has, and what a row is like.

    Raises :class:`ModelFailed` where its arrays do not agree in their number of rows.
    """
    counts = set()
    like = []
    for name, value in state.items():
        shape = getattr(value, "shape", ())
        counts.add(shape[0] if shape else 0)
        like.append((name, shape[1:], getattr(value, "dtype", None)))
    count: int = counts.pop() if len(counts) == 1 else 0
    if not count:
        raise ModelFailed("an item's arrays must all have the same number of rows along their first axis, at least one")
    return count, like


def unfinite(arrays: Iterable[Array], count: int) -> NDArray[np.bool_] | None:
    """Which of ``count`` rows hold a NaN or an infinity in one of ``arrays``; ``None``: not one of them does."""
    import numpy as np

    bad: NDArray[np.bool_] | None = None
    for array in arrays:
        if array.dtype.kind == "f" and np.count_nonzero(finite := np.isfinite(array)) != array.size:
            rows = np.asarray(~finite.reshape(count, -1).all(1))
            bad = rows if bad is None else np.asarray(bad | rows)
    return bad


def most_useful_slots(
    rows: Rows, state: Mapping[str, Array], halted: Callable[[Mapping[str, Array]], NDArray[np.bool_]]
) -> int:
    """The fewest rows a step whose speed per row is about the best. ``state``: a real item's; its first row is used."""
    import numpy as np

    clock = time.perf_counter if rows.whole else time.thread_time  # a device's time is not the thread's
    most = MOST_SLOTS_ON_DEVICE if rows.whole else MOST_SLOTS
    tries: dict[int, list[float]] = {}
    began = time.perf_counter()

    def measure(size: int, runs: int) -> float:
        rows.keep(0)
        rows.place(0, {name: np.repeat(value[:1], size, 0) for name, value in state.items()})
        for _ in range(runs):
            start = clock()
            outputs = rows.step(0, size)
            halted(RowArrays({**rows.state(size), **outputs}))
            unfinite(outputs.values(), size)
            tries.setdefault(size, []).append(ROUND_SECONDS + clock() - start)
        return time.perf_counter() - began

    size = 1
    while size <= most and measure(size, 1) < MEASURING_SECONDS / 4:
        size *= 2
    # Size after size, again and again: what else the machine does then slows all of them alike. Small ones several
    # times in a row: the caches are to be as they are when such steps follow each other.
    while len(tries[1]) < 32 and all(measure(size, max(1, 4 // size)) < MEASURING_SECONDS for size in list(tries)):
        pass
    each = {size: min(seconds) / size for size, seconds in tries.items()}
    return min(size for size in each if each[size] <= NEARLY * min(each.values()))
