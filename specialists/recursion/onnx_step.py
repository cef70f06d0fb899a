"""An ONNX graph that holds one step of a recursive model, as :class:`~specialists.recursion.RecursiveModel`.

On a CPU the state lies in numpy arrays. On a GPU it stays on the device: inputs and outputs of a step are bound there,
and rows that come and go are rearranged by a graph of two nodes. This module knows nothing of queues and callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ModelFailed, SpecialistError
from ..onnx import OnnxModel, require_runtime
from ..sessions import enter_run, leave_run
from .rows import HostRows, RowArrays, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

__all__ = ["OnnxStep"]

CUDA = "CUDAExecutionProvider"


class OnnxStep:
    """A step graph: inputs and outputs have one row per item along axis 0, whose length is free.

    An item, as :meth:`StepScheduler.run` takes it, is a mapping from input names to arrays with a first axis of length
    one, or more where several rows belong to one item. Inputs that are not carried stay with their row.

    Args:
        model: The graph.
        carry: From the name of an output to the name of the input that it becomes in the next step.
        halted: The name of an output, one number a row: a boolean, or a score that halts above ``threshold``. Or a
            function from the rows (inputs and outputs by name) to a boolean array.
        answer: What an item's value is: the names of the outputs it is to hold (default: all that are not carried), or
            a function from the item's own rows to any value.
        threshold: Above which a score halts; the default suits a logit.

    A carried input that an item does not bring begins with zeros.
    """

    def __init__(
        self,
        model: OnnxModel,
        *,
        carry: Mapping[str, str],
        halted: str | Callable[[Mapping[str, Array]], Array],
        answer: Sequence[str] | Callable[[Mapping[str, Array]], Any] | None = None,
        threshold: float = 0.0,
    ) -> None:
        if not carry:
            raise ValueError("carry is empty: name the outputs that become inputs of the next step")
        if isinstance(answer, str):
            answer = (answer,)
        self.model = model
        self.carry = dict(carry)
        self._halted = halted
        self._answer = answer
        self._threshold = threshold
        self._device: str | None = None
        self._known: _Names | None = None

    def __repr__(self) -> str:
        return f"OnnxStep({self.model.path.name!r})"

    @property
    def threads(self) -> int:
        """Compute threads of a step; opens the model."""
        return self._names().threads

    @property
    def identity(self) -> str:
        """What runs here, as :attr:`specialists.OnnxModel.identity` says it."""
        return self.model.identity

    def start(self, item: Any, /) -> dict[str, Array]:
        """The inputs of ``item``, checked, and zeros for what is carried and not given.

        Raises :class:`ModelFailed` for an input that is missing, unknown, or of a wrong shape or type.
        """
        import numpy as np

        names = self._names()
        if not isinstance(item, Mapping):
            raise ModelFailed(
                f"{self!r}: an item maps input names to arrays; this one is of type {type(item).__name__}"
            )
        given: dict[str, Array] = {}
        for name, value in item.items():
            fixed = names.fixed.get(name)
            if (
                fixed is not None
                and type(value) is np.ndarray
                and value.shape[1:] == fixed[1]
                and value.dtype == fixed[0]
            ):
                given[name] = value
            else:
                given[name] = names.checked(name, value, self)
        if len(given) < len(names.inputs):
            self._begin(given, names)
        return given

    def _begin(self, given: dict[str, Array], names: _Names) -> None:
        """Zeros for what is carried and not given."""
        import numpy as np

        count = len(next(iter(given.values()))) if given else 1
        for name, (_, shape) in names.inputs.items():
            if name in given:
                continue
            if name not in self.carry.values():
                raise ModelFailed(f"{self!r}: the item lacks the input {name!r}; it needs {sorted(names.inputs)}")
            if name not in names.zeros:
                raise ModelFailed(f"{self!r}: the item must bring {name!r}, whose shape {shape} is not fixed")
            zero = names.zeros[name]
            given[name] = zero if count == 1 else np.broadcast_to(zero, (count, *zero.shape[1:]))

    def step(self, state: Mapping[str, Array], /) -> dict[str, Array]:
        """One run of the graph; carried outputs bear the names of their inputs."""
        return self._run(state, None)

    def halted(self, rows: Mapping[str, Array], /) -> Array:
        """Which rows are done: bool, (n,)."""
        if callable(self._halted):
            return self._halted(self._both_names(rows))
        import numpy as np

        score = rows[self.carry.get(self._halted, self._halted)]
        if score.ndim != 1:
            if score.size != len(score):
                raise ModelFailed(
                    f"{self!r}: the output {self._halted!r} must be one number a row, not {score.shape[1:]}"
                )
            score = score.reshape(-1)
        return score if score.dtype == bool else np.asarray(score > self._threshold)

    def answer(self, rows: Mapping[str, Array], /) -> Any:
        """An item's value: arrays by output name, or what the function that was given makes of the rows."""
        if callable(self._answer):
            return self._answer(self._both_names(rows))
        names = self._names().others if self._answer is None else self._answer
        return {name: rows[self.carry.get(name, name)] for name in names}

    def lane_rows(self) -> Rows:
        """A place for the state of a lane: on the GPU if the model runs there. Opens the model."""
        device = self._device or ("cuda" if CUDA in self.model.session.get_providers()[:1] else None)
        if device is None:
            return _HostRows(self)
        from .device_rows import DeviceRows

        return DeviceRows(self.model, self.carry, device)

    def _both_names(self, rows: Mapping[str, Array]) -> Mapping[str, Array]:
        return rows.also(self.carry) if isinstance(rows, RowArrays) else rows

    def _run(self, state: Mapping[str, Array], options: Any) -> dict[str, Array]:
        names = self._names()
        try:
            session = self.model.session
            if options is not None:
                enter_run(options)  # so that it is stopped when the interpreter ends
            try:
                values = session.run(names.outputs, state, options)
            finally:
                if options is not None:
                    leave_run(options)
        except SpecialistError:
            raise
        except Exception as error:
            line = str(error).partition("\n")[0] or type(error).__name__
            raise ModelFailed(f"{self!r}: the run failed: {line}") from None
        return {self.carry.get(name, name): value for name, value in zip(names.outputs, values, strict=True)}

    def _names(self) -> _Names:
        if self._known is None:
            self._known = _Names(self)
        return self._known


class _HostRows(HostRows):
    """Rows in numpy arrays, stepped by runs that can be stopped."""

    def __init__(self, model: OnnxStep) -> None:
        self._options = require_runtime().RunOptions()
        super().__init__(lambda state: model._run(state, self._options), owned=True)

    def begin(self) -> None:
        if self._options.terminate:
            self._options = require_runtime().RunOptions()

    def stop(self) -> None:
        self._options.terminate = True


class _Names:
    """What the graph says of its inputs and outputs, read once."""

    def __init__(self, step: OnnxStep) -> None:
        import numpy as np

        session = step.model.session
        self.inputs = {entry.name: (_dtype(entry.type), entry.shape) for entry in session.get_inputs()}
        self.fixed = {name: (dtype, tuple(shape[1:])) for name, (dtype, shape) in self.inputs.items()}
        self.zeros = {
            name: np.zeros((1, *shape[1:]), dtype)
            for name, (dtype, shape) in self.inputs.items()
            if all(isinstance(size, int) for size in shape[1:])
        }
        self.outputs = [entry.name for entry in session.get_outputs()]
        self.others = [name for name in self.outputs if name not in step.carry]
        self.threads: int = max(1, session.get_session_options().intra_op_num_threads)
        wanted = [*step.carry, *([step._halted] if isinstance(step._halted, str) else [])]
        if not (step._answer is None or callable(step._answer)):
            wanted += step._answer
        for name in wanted:
            if name not in self.outputs:
                raise ModelFailed(f"{step!r} has no output {name!r}; its outputs are {self.outputs}")
        for name in step.carry.values():
            if name not in self.inputs:
                raise ModelFailed(f"{step!r} has no input {name!r} to carry to; its inputs are {sorted(self.inputs)}")
        for name, (_, shape) in self.inputs.items():
            if not shape or isinstance(shape[0], int):
                raise ModelFailed(
                    f"{step!r}: the first axis of the input {name!r} must have a free length, as it counts the rows;"
                    f" its shape is {shape}"
                )

    def checked(self, name: str, value: Any, step: OnnxStep) -> Array:
        """``value`` as an array of the graph's type, if it fits."""
        import numpy as np

        if name not in self.inputs:
            raise ModelFailed(f"{step!r} has no input {name!r}; its inputs are {sorted(self.inputs)}")
        dtype, shape = self.inputs[name]
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ModelFailed(f"{step!r}: input {name!r} is not an array: {error}") from None
        if array.dtype != dtype:
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise ModelFailed(f"{step!r}: input {name!r} must be {dtype}, not {array.dtype}")
            array = array.astype(dtype)
        sizes = zip(shape, array.shape, strict=False)
        if array.ndim != len(shape) or any(isinstance(want, int) and want != have for want, have in sizes):
            raise ModelFailed(
                f"{step!r}: input {name!r} must have shape {[1, *shape[1:]]} (the first axis: one for each row of the"
                f" item), not {list(array.shape)}"
            )
        return array


def _dtype(kind: str) -> Any:
    import numpy as np

    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    except TypeError:
        raise ModelFailed(f"a recursive model's inputs are arrays of numbers, and {kind} is none") from None
