"""Looks through a model's bytes before ONNX Runtime sees them: how much there is, and nothing that has no place there.

It copies no weights, never recurses, and gives up at the first bound that is passed, so a hostile file costs little.
It knows nothing of files and of what a graph computes.

What it does not promise: that a run ends, or that it needs little memory. Sizes that a graph computes while it runs
cannot be known before; a model that nobody trusts belongs in a process of its own.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass, field

from ..errors import ModelRejected
from .rules import DOMAINS, MICROSOFT, ONNX, REFUSED, takes_ir, takes_opset
from .sizes import MAKERS, Numbers, elements_made
from .wire import FIXED32, FIXED64, LENGTH, VARINT, Malformed, Reader, Refused, signed

__all__ = ["Limits", "check_graph"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a model may hold. The defaults are far above what is usual, and far below what does harm.

    ``nodes``: of all graphs together, calls of the model's own functions written out. ``nesting``: graphs inside
    graphs (the bodies of ``If``, ``Loop``, ``Scan``). ``initializers``: weights and constants in graphs. ``values``:
    inputs and outputs of one graph, functions of the model. ``fields``: protobuf fields read in all. ``name_bytes``:
    of one name. ``made_bytes``: of all tensors together that the file makes out of a written size (as
    ``ConstantOfShape`` does) and not out of an input.
    """

    nodes: int = 50_000
    nesting: int = 16
    initializers: int = 50_000
    values: int = 10_000
    fields: int = 500_000
    name_bytes: int = 4096
    made_bytes: int = 1024**3


def check_graph(data: bytes, *, limits: Limits | None = None, name: str = "the model") -> None:
    """Raise :class:`ModelRejected`, in one sentence that begins with ``name``, when ``data`` is not a model to load.

    ``data``: an ONNX model, the whole of it: one with weights in other files is refused. It is read as protobuf only,
    and nothing of it is run.
    """
    try:
        _Checker(data, limits or Limits()).check()
    except (Malformed, IndexError) as error:
        why = str(error) if isinstance(error, Malformed) else "it ends in the middle of a field"
        raise ModelRejected(f"{name} is not a model that can be opened: {why}; get a clean copy") from None
    except Refused as error:
        raise ModelRejected(f"{name} is refused: {error}") from None


Place = tuple[int, int]
"""Where a message lies in the data."""

Key = tuple[bytes, bytes, bytes]
"""Domain, name and overload of a function."""


@dataclass(slots=True)
class _Body:
    """What stands under one name: the graph of the model, or a function of its own. ``calls``: of other functions."""

    nodes: int = 0
    calls: Counter[Key] = field(default_factory=Counter)


@dataclass(slots=True)
class _Graph:
    """A graph in a body. ``numbers``: its small constants; ``elements``: how many each of its constants has."""

    body: _Body
    around: _Graph | None = None
    depth: int = 1
    numbers: dict[bytes, Numbers] = field(default_factory=dict)
    elements: dict[bytes, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Tensor:
    name: bytes
    elements: int
    bits: int
    numbers: Numbers | None


@dataclass(slots=True)
class _Node:
    op: bytes = b""
    domain: bytes = b""
    overload: bytes = b""
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    written: Numbers | None = None
    tensor: _Tensor | None = None


_BITS = {  # element type -> bits of one element
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
    15: 128,
}
_STRING = 8
_RAW_NUMBERS = {1: "f", 6: "i", 7: "q", 11: "d"}
_TYPED = {4: FIXED32, 5: VARINT, 7: VARINT, 10: FIXED64, 11: VARINT}
"""Fields of a tensor that hold numbers one by one, and how, when not as one packed list."""
_SMALL = 64
"""A constant of more elements is no shape."""

_WRITTEN = frozenset({b"pads", b"shape", b"value_float", b"value_floats", b"value_int", b"value_ints"})
"""Attributes whose numbers say how large something is to be made, or are a constant."""


class _Checker:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data = data
        self.limits = limits
        self.reader = Reader(data, limits.fields)
        self.fields = self.reader.fields
        self.nodes = 0
        self.initializers = 0
        self.made = 0.0
        self.functions: dict[Key, _Body] = {}
        self.waiting: list[tuple[_Graph, Place]] = []

    def check(self) -> None:
        if self.data[4:8] == b"ORTM":  # ONNX Runtime would take it for its own format, and none of this would hold
            raise Refused("it is in ONNX Runtime's own format; export it as ONNX")
        seen: set[int] = set()
        functions: list[Place] = []
        graph: Place | None = None
        for number, wire, at, end in self.fields(0, len(self.data)):
            if number == 1:
                _once(seen, number, wire, VARINT)
                if not takes_ir(at):
                    raise Refused(f"its file format's version is {at}, which is too new to be loaded; export it anew")
            elif number == 7:
                _once(seen, number, wire, LENGTH)
                graph = at, end
            elif number == 8:
                self._opset(wire, at, end)
            elif number == 20:
                raise Refused("it holds instructions for training; export it for inference")
            elif number == 25:
                _expect(wire, LENGTH)
                functions.append((at, end))
                if len(functions) > self.limits.values:
                    raise Refused(f"it has more than {self.limits.values:,} functions of its own")
        if graph is None:
            raise Malformed("it holds no graph")
        bodies = [self._function(place) for place in functions]
        main = _Body()
        self._walk(_Graph(main), graph)
        for body, nodes in bodies:
            self._nodes(_Graph(body), nodes)
            self._walk()
        self._check_calls(main)

    def _walk(self, graph: _Graph | None = None, place: Place = (0, 0)) -> None:
        """One graph, and the graphs that wait inside it, one after the other."""
        if graph is not None:
            self.waiting.append((graph, place))
        while self.waiting:
            self._graph(*self.waiting.pop())

    def _opset(self, wire: int, at: int, end: int) -> None:
        _expect(wire, LENGTH)
        domain, version = b"", 0
        seen: set[int] = set()
        for number, inner, start, stop in self.fields(at, end):
            if number == 1:
                _once(seen, number, inner, LENGTH)
                domain = self._name(start, stop)
            elif number == 2:
                _once(seen, number, inner, VARINT)
                version = start
        if not takes_opset(domain, version):
            shown = domain.decode() or "ai.onnx"
            raise Refused(
                f"it wants opset {version} of {shown}, which is too new to be loaded; export it for an older one"
            )

    # Graphs and functions.

    def _function(self, place: Place) -> tuple[_Body, list[Place]]:
        names = {1: b"", 10: b"", 13: b""}
        nodes: list[Place] = []
        seen: set[int] = set()
        body = _Body()
        for number, wire, at, end in self.fields(*place):
            if number in names:
                _once(seen, number, wire, LENGTH)
                names[number] = self._name(at, end)
            elif number == 7:
                self._count_node(wire)
                nodes.append((at, end))
            elif number == 9:
                self._opset(wire, at, end)
            elif number == 11:
                _expect(wire, LENGTH)
                self._attribute((at, end), _Node(), _Graph(body))
        key = names[10], names[1], names[13]
        if key[0] in DOMAINS or key in self.functions:
            raise Refused(f"its own function {_shown(key[1])} has the name of another")
        body.nodes = len(nodes)
        self.functions[key] = body
        return body, nodes

    def _graph(self, graph: _Graph, place: Place) -> None:
        nodes: list[Place] = []
        tensors: list[Place] = []
        values = 0
        for number, wire, at, end in self.fields(*place):
            if number == 1:
                self._count_node(wire)
                nodes.append((at, end))
            elif number in (5, 15):
                _expect(wire, LENGTH)
                self.initializers += 1
                if self.initializers > self.limits.initializers:
                    raise Refused(f"it has more than {self.limits.initializers:,} initializers")
                if number == 5:
                    tensors.append((at, end))
                else:
                    self._sparse((at, end))
            elif number in (11, 12):
                _expect(wire, LENGTH)
                values += 1
                if values > self.limits.values:
                    raise Refused(f"it has more than {self.limits.values:,} inputs and outputs")
        for place in tensors:
            self._keep(graph, (tensor := self._tensor(place)).name, tensor)
        graph.body.nodes += len(nodes)
        self._nodes(graph, nodes)

    def _count_node(self, wire: int) -> None:
        _expect(wire, LENGTH)
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise Refused(f"it has more than {self.limits.nodes:,} nodes")

    def _nodes(self, graph: _Graph, places: list[Place]) -> None:
        makers = []
        for place in places:
            node = self._node(graph, place)
            if node.domain not in ONNX:
                continue
            if node.op == b"Constant" and node.outputs:
                if node.tensor is not None:
                    self._keep(graph, node.outputs[0], node.tensor)
                elif node.written is not None:
                    graph.numbers[node.outputs[0]] = node.written
            elif node.op in MAKERS:
                makers.append(node)
        for node in makers:  # nodes may stand in any order
            self._make(graph, node)

    @staticmethod
    def _keep(graph: _Graph, name: bytes, tensor: _Tensor) -> None:
        graph.elements[name] = tensor.elements
        if tensor.numbers is not None:
            graph.numbers[name] = tensor.numbers

    def _make(self, graph: _Graph, node: _Node) -> None:
        def given(index: int) -> Numbers | None:
            return _look_up(graph, node.inputs[index]) if index < len(node.inputs) else None

        elements = graph.elements.get(node.inputs[0], 1) if node.inputs else 1
        count = elements_made(node.op, given, node.written, elements)
        bits = 8
        if node.op == b"ConstantOfShape":
            bits = 32 if node.tensor is None else node.tensor.bits
        self._add(count, bits, f"what {_shown(node.op)} makes")

    # Nodes.

    def _node(self, graph: _Graph, place: Place) -> _Node:
        node = _Node()
        attributes: list[Place] = []
        seen: set[int] = set()
        for number, wire, at, end in self.fields(*place):
            if number in (1, 2):
                _expect(wire, LENGTH)
                names = node.inputs if number == 1 else node.outputs
                names.append(self._name(at, end))
                if len(names) > self.limits.values:
                    raise Refused(f"a node of it has more than {self.limits.values:,} inputs and outputs")
            elif number == 4:
                _once(seen, number, wire, LENGTH)
                node.op = self._name(at, end)
            elif number == 5:
                _expect(wire, LENGTH)
                attributes.append((at, end))
            elif number == 7:
                _once(seen, number, wire, LENGTH)
                node.domain = self._name(at, end)
            elif number == 8:
                _once(seen, number, wire, LENGTH)
                node.overload = self._name(at, end)
        self._allow(graph, node)
        for place in attributes:
            self._attribute(place, node, graph)
        return node

    def _allow(self, graph: _Graph, node: _Node) -> None:
        key = node.domain, node.op, node.overload
        if node.domain in DOMAINS:
            if node.domain in ONNX and node.op in REFUSED:
                raise Refused(f"it has a node {_shown(node.op)}: {REFUSED[node.op]}")
        elif key in self.functions:
            graph.body.calls[key] += 1
        elif node.domain != b"com.microsoft" or node.op not in MICROSOFT:
            where = f"the operator {_shown(node.op)} of the domain {_shown(node.domain)}"
            raise Refused(f"it uses {where}; only ONNX's own operators are loaded")

    def _attribute(self, place: Place, node: _Node, graph: _Graph) -> None:
        name = b""
        numbers: list[float] = []
        seen: set[int] = set()
        for number, wire, at, end in self.fields(*place):
            if number == 1:
                _once(seen, number, wire, LENGTH)
                name = self._name(at, end)
            elif number == 3:
                _once(seen, number, wire, VARINT)
                numbers.append(signed(at))
            elif number in (2, 7, 8):
                numbers += self._listed(number, wire, at, end)
            elif number in (5, 10):
                _once(seen, number, wire, LENGTH) if number == 5 else _expect(wire, LENGTH)
                node.tensor = self._tensor((at, end))
            elif number in (6, 11):
                _once(seen, number, wire, LENGTH) if number == 6 else _expect(wire, LENGTH)
                if graph.depth >= self.limits.nesting:
                    raise Refused(f"its graphs are nested more than {self.limits.nesting} deep")
                self._count_node(wire)  # a graph costs at least as much
                self.waiting.append((_Graph(graph.body, graph, graph.depth + 1), (at, end)))
            elif number in (22, 23):
                _once(seen, number, wire, LENGTH) if number == 22 else _expect(wire, LENGTH)
                self._sparse((at, end))
        if name in _WRITTEN:
            node.written = numbers

    def _listed(self, number: int, wire: int, at: int, end: int) -> list[float]:
        """The float, or the list of numbers, of an attribute when it is short; what is long is no shape."""
        if end - at > 16 * _SMALL:
            return []
        if number == 8:  # one after the other each has its tag, as the reader steps over them in one go
            _expect(wire, VARINT, LENGTH)
            return list(self.reader.varints(at, end, tagged=wire == VARINT))
        _expect(wire, FIXED32, *([LENGTH] if number == 7 else []))
        tagged = number == 7 and wire == FIXED32
        return self._floats("f", at, end, tag=int(tagged))

    def _floats(self, sign: str, at: int, end: int, tag: int = 0) -> list[float]:
        size = struct.calcsize(sign)
        return [struct.unpack_from(f"<{sign}", self.data, i + tag)[0] for i in range(at, end - size + 1, size + tag)]

    # Tensors.

    def _tensor(self, place: Place) -> _Tensor:
        dims: list[int] = []
        name, kind, payload, strings, raw = b"", 0, 0, 0, -1
        parts: list[tuple[int, int, int, int]] = []
        seen: set[int] = set()
        for number, wire, at, end in self.fields(*place):
            if number == 1:
                self._dims(dims, wire, at, end)
            elif number == 2:
                _once(seen, number, wire, VARINT)
                kind = at
            elif number == 8:
                _once(seen, number, wire, LENGTH)
                name = self._name(at, end)
            elif number == 9:
                _once(seen, number, wire, LENGTH)
                raw = end - at
                parts.append((number, wire, at, end))
            elif number == 6:
                _expect(wire, LENGTH)
                strings += 1
            elif number in _TYPED:
                _expect(wire, LENGTH, _TYPED[number])
                payload += 1 if wire == VARINT else end - at
                if len(parts) <= _SMALL:
                    parts.append((number, wire, at, end))
            elif number in (3, 13) or (number == 14 and (wire != VARINT or at)):
                raise Refused("its weights lie in another file; a model must be one file, so save it as one")
        if raw >= 0 and payload + strings:
            raise Malformed("it has a tensor with two contents")
        elements = math.prod(dims)
        bits = _bits_of(kind, elements, strings if kind == _STRING else payload, raw)
        numbers = None
        if kind in _RAW_NUMBERS and 0 < elements <= _SMALL and len(parts) <= _SMALL:
            numbers = [number for part in parts for number in self._numbers(kind, part)][:elements]
        return _Tensor(name, elements, bits, numbers)

    def _dims(self, dims: list[int], wire: int, at: int, end: int) -> None:
        _expect(wire, VARINT, LENGTH)
        if len(dims) >= _SMALL or (wire == LENGTH and end - at > 10 * _SMALL):
            raise Refused(f"it has a tensor of more than {_SMALL} dimensions")
        dims += [signed(at)] if wire == VARINT else self.reader.varints(at, end)
        if any(length < 0 for length in dims):
            raise Malformed("it has a tensor of a negative size")

    def _numbers(self, kind: int, part: tuple[int, int, int, int]) -> list[float]:
        number, wire, at, end = part
        if number == 9:
            sign = _RAW_NUMBERS[kind]
            return list(struct.unpack_from(f"<{(end - at) // struct.calcsize(sign)}{sign}", self.data, at))
        if number in (4, 10):
            return self._floats("f" if number == 4 else "d", at, end)
        return [signed(at)] if wire == VARINT else list(self.reader.varints(at, end))

    def _sparse(self, place: Place) -> None:
        """A sparse tensor is written out when it is loaded, so what counts is its full size."""
        dims: list[int] = []
        seen: set[int] = set()
        bits = 8
        for number, wire, at, end in self.fields(*place):
            if number in (1, 2):
                _once(seen, number, wire, LENGTH)
                tensor = self._tensor((at, end))
                bits = tensor.bits if number == 1 else bits
            elif number == 3:
                self._dims(dims, wire, at, end)
        self._add(float(min(math.prod(dims), 1 << 100)), bits, "a sparse tensor")

    def _add(self, elements: float, bits: int, what: str) -> None:
        self.made += max(0.0, elements) * bits / 8
        if not self.made <= self.limits.made_bytes:
            most = self.limits.made_bytes
            raise Refused(f"{what} in it has {elements:.3g} elements, and all that it so makes may have {most:,} bytes")

    def _name(self, at: int, end: int) -> bytes:
        if end - at > self.limits.name_bytes:
            raise Refused(f"it has a name of {end - at:,} bytes; {self.limits.name_bytes:,} are allowed")
        return self.data[at:end]

    def _check_calls(self, main: _Body) -> None:
        """The nodes there are when each call of a function is replaced by the function, as the runtime does."""
        total: dict[Key, int] = {}

        def nodes_of(body: _Body, callers: tuple[Key, ...]) -> int:
            count = body.nodes
            for key, times in body.calls.items():
                if key not in total:
                    if key in callers or len(callers) >= self.limits.nesting:
                        raise Refused(f"its own functions call each other more than {self.limits.nesting} deep")
                    total[key] = nodes_of(self.functions[key], (*callers, key))
                count += times * total[key]
            if count > self.limits.nodes:
                raise Refused(f"it has more than {self.limits.nodes:,} nodes when its functions are written out")
            return count

        nodes_of(main, ())


def _look_up(graph: _Graph | None, name: bytes) -> Numbers | None:
    while graph is not None:
        if name in graph.numbers:
            return graph.numbers[name]
        graph = graph.around
    return None


def _once(seen: set[int], number: int, wire: int, wanted: int) -> None:
    # Of two numbers protobuf takes the last, and it merges two messages: nobody writes that, and it could hide things.
    _expect(wire, wanted)
    if number in seen:
        raise Malformed("a part of it stands there twice")
    seen.add(number)


def _expect(wire: int, *wanted: int) -> None:
    if wire not in wanted:
        raise Malformed("a part of it is of another type than in ONNX")


def _bits_of(kind: int, elements: int, payload: int, raw: int) -> int:
    """Bits of one element of this type, when there is as much content as the declared size wants."""
    if kind == _STRING:
        enough, bits = raw < 0 and elements <= payload, 8
    elif kind in _BITS:
        bits = _BITS[kind]
        # Each number takes a byte at least; small ones may share it.
        enough = raw * 8 >= elements * bits if raw >= 0 else elements * min(8, bits) <= payload * 8
    else:
        raise Refused(f"it has a tensor of the element type {kind}, which is not known")
    if not enough:
        raise Malformed(f"it declares a tensor of {min(elements, 10**18):,} elements and does not bring them")
    return bits


def _shown(name: bytes) -> str:
    return repr(name[:64].decode("utf-8", "replace"))
