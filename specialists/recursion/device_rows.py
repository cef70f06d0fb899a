"""The rows of a lane on a GPU: the state stays there from step to step, and only what is asked for comes back.

Rows that come, go and move are noted, and done together before the next step by a graph of two nodes, which puts new
rows behind the old ones and picks those that are of use. ``device="cpu"`` does the same in the host's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ModelFailed
from ..onnx import OnnxModel, require_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

__all__ = ["DeviceRows"]


class DeviceRows:
    """As :class:`~specialists.step_rows.HostRows`, with every input and every carried output bound on ``device``."""

    whole = True
    carried = ()

    def __init__(self, model: OnnxModel, carry: Mapping[str, str], device: str) -> None:
        self._session = model.session
        self._name = model.path.name
        self._carry = carry
        self._device = device
        self._runtime = require_runtime()
        self._options = self._runtime.RunOptions()
        self._values: dict[str, Any] = {}
        """The state on the device, by input name."""
        self._length = 0
        self._order: list[int] = []
        """Which row of the state each row now is; beyond the state's length stand the new rows, in their order."""
        self._new: list[Mapping[str, Array]] = []

    def place(self, first: int, state: Mapping[str, Array]) -> None:
        count = _length(state)
        begin = self._length + sum(_length(each) for each in self._new)
        self._order[first : first + count] = range(begin, begin + count)
        self._new.append(state)

    def move(self, source: int, target: int) -> None:
        self._order[target] = self._order[source]

    def keep(self, count: int) -> None:
        del self._order[count:]

    def take(self, rows: list[int]) -> dict[str, Array]:
        self._arrange()
        return {name: value.numpy()[rows] for name, value in self._values.items()}

    def step(self, first: int, last: int) -> dict[str, Array]:
        self._arrange()
        binding = self._session.io_binding()
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
        names = [entry.name for entry in self._session.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device if name in self._carry else "cpu")
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:
            line = str(error).partition("\n")[0] or type(error).__name__
            raise ModelFailed(f"{self._name}: the run failed: {line}") from None
        outputs = {}
        for name, value in zip(names, binding.get_outputs(), strict=True):
            if name in self._carry:
                self._values[self._carry[name]] = value
            else:
                outputs[name] = value.numpy()
        return outputs

    def state(self, count: int) -> dict[str, Callable[[], Array]]:
        self._arrange()
        return {name: value.numpy for name, value in self._values.items()}

    def begin(self) -> None:
        if self._options.terminate:
            self._options = self._runtime.RunOptions()

    def stop(self) -> None:
        self._options.terminate = True

    def _arrange(self) -> None:
        """Do what was noted: one small run for each array of the state, none where nothing has changed."""
        import numpy as np

        if not self._new and self._order == list(range(self._length)):
            return
        make = self._runtime.OrtValue.ortvalue_from_numpy
        order = np.array(self._order, np.int64)
        new = {name: np.concatenate([each[name] for each in self._new]) for name in (self._new[0] if self._new else ())}
        if not self._length or not len(order):
            self._values = (
                {name: make(value[order], self._device, 0) for name, value in new.items()} if len(order) else {}
            )
        else:
            index = make(order, self._device, 0)
            for name, old in self._values.items():
                self._values[name] = self._picked(old, make(new[name], self._device, 0) if new else None, index)
        self._new, self._length, self._order = [], len(order), list(range(len(order)))

    def _picked(self, old: Any, new: Any | None, index: Any) -> Any:
        kind = old.element_type()
        session = _picking(kind, new is not None, tuple(self._session.get_providers()))
        binding = session.io_binding()
        for name, value in (("old", old), ("new", new), ("index", index)):
            if value is not None:
                binding.bind_ortvalue_input(name, value)
        binding.bind_output("rows", self._device)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]


def _length(state: Mapping[str, Array]) -> int:
    return len(next(iter(state.values())))


@cache
def _picking(kind: int, joined: bool, providers: tuple[str, ...]) -> Any:
    """A session that picks rows: ``rows = Gather(Concat(old, new), index)``, or of ``old`` alone."""
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(_picking_graph(kind, joined), options, list(providers))


def _picking_graph(kind: int, joined: bool) -> bytes:
    """The graph as an ONNX file (field numbers as in onnx.proto); the package ``onnx`` is not needed to run models."""

    def field(number: int, content: bytes | int) -> bytes:
        tag = number << 3 | (0 if isinstance(content, int) else 2)
        head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
        if isinstance(content, int):
            return head + bytes([content])
        size = len(content)
        return head + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content

    def node(operator: bytes, inputs: list[bytes], output: bytes) -> bytes:
        axis = field(1, b"axis") + field(3, 0) + field(20, 2)
        names = b"".join(field(1, name) for name in inputs)
        return field(1, names + field(2, output) + field(4, operator) + field(5, axis))

    def value(number: int, name: bytes, element: int) -> bytes:
        return field(number, field(1, name) + field(2, field(1, field(1, element))))

    int64 = 7
    nodes = node(b"Concat", [b"old", b"new"], b"all") if joined else b""
    nodes += node(b"Gather", [b"all" if joined else b"old", b"index"], b"rows")
    inputs = value(11, b"old", kind) + (value(11, b"new", kind) if joined else b"") + value(11, b"index", int64)
    graph = nodes + field(2, b"pick") + inputs + value(12, b"rows", kind)
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13))
