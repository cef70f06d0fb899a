"""A model's bytes before ONNX Runtime sees them: what is let through, what is refused, how little is read for it."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from specialists import ModelRejected
from specialists.graph_check import Limits, _Checker, check_graph, rules
from specialists.graph_check.wire import Malformed, Reader, Refused

ZOO = Path(__file__).parents[2] / "specialists" / "zoo"
FLOAT = TensorProto.FLOAT
node = helper.make_node
value = helper.make_tensor_value_info


def model(
    nodes: Sequence[Any] = (),
    initializers: Sequence[Any] = (),
    *,
    opset: int = 17,
    imports: Sequence[Any] = (),
    functions: Sequence[Any] = (),
    ir: int = 8,
) -> bytes:
    nodes = nodes or [node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])], list(initializers))
    opsets = [helper.make_opsetid("", opset), *imports]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))
    return made.SerializeToString()


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ModelRejected) as caught:
        check_graph(data, limits=limits, name="'a.onnx'")
    text = str(caught.value)
    assert text.startswith("'a.onnx' ")
    assert "\n" not in text
    assert len(text) < 400
    return text


def fields_read(data: bytes) -> int:
    """How many fields are looked at until it is clear what to do."""
    checker = _Checker(data, Limits())
    with contextlib.suppress(Refused, Malformed, IndexError):
        checker.check()
    return checker.reader.count


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def of_graph(graph: bytes) -> bytes:
    return b"\x08\x08" + message(8, b"\x10\x11") + message(7, graph)


ONE_NODE = node("Identity", ["x"], ["y"]).SerializeToString()


# What is let through.


@pytest.mark.parametrize("name", ["intent", "constraints"])
def test_the_bundled_models_are_let_through(name: str) -> None:
    check_graph((ZOO / name / "model.onnx").read_bytes())


def test_the_models_of_onnx_itself_are_let_through() -> None:
    said = Counter()
    for path in Path(onnx.__file__).parent.glob("backend/test/data/*/**/*.onnx"):
        try:
            check_graph(path.read_bytes())
            said["let through"] += 1
        except ModelRejected as error:
            said[str(error)] += 1
    (others,) = [text for text in said if text != "let through"]  # models that learn
    assert "'ai.onnx.preview.training'" in others
    assert said["let through"] > 100


def test_what_the_runtime_itself_writes_is_let_through(tmp_path: Path) -> None:
    """Quantized and optimized models hold operators of Microsoft's domain."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    source, quantized, optimized = ZOO / "constraints" / "model.onnx", tmp_path / "q.onnx", tmp_path / "o.onnx"
    quantize_dynamic(source, quantized)
    found = set()
    for path in (source, quantized):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        check_graph(path.read_bytes())
        check_graph(optimized.read_bytes())
        found |= {each.op_type for each in onnx.load(optimized).graph.node if each.domain == "com.microsoft"}
    assert {each.encode() for each in found} <= rules.MICROSOFT
    assert found


def test_weights_are_stepped_over_and_not_copied() -> None:
    data = model([node("Identity", ["w"], ["y"])], [numpy_helper.from_array(np.zeros(4_000_000, np.float32), "w")])
    tracemalloc.start()
    check_graph(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    assert fields_read(data) < 50


def test_a_long_list_of_numbers_is_one_field() -> None:
    tree = node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=list(range(100_000)),
        nodes_values=[0.5] * 100_000,
    )
    data = model([tree], imports=[helper.make_opsetid("ai.onnx.ml", 3)])
    check_graph(data)
    assert fields_read(data) < 50


def test_functions_of_its_own_are_let_through_as_far_as_they_stay_small() -> None:
    check_graph(of_functions(8))
    assert "nodes when its functions are written out" in refused(of_functions(16))
    assert "deep" in refused(of_functions(40))
    check_graph(of_functions(8), limits=Limits(nodes=1 << 9))
    refused(of_functions(8), Limits(nodes=1 << 7))


def of_functions(count: int) -> bytes:
    """Each function calls the next one twice: a hundred bytes more, and twice the nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]

    def body(number: int) -> list:
        if number == count - 1:
            return [node("Identity", ["x"], ["y"])]
        inner = f"F{number + 1}"
        return [node(inner, ["x"], ["t"], domain="own"), node(inner, ["t"], ["y"], domain="own")]

    functions = [helper.make_function("own", f"F{n}", ["x"], ["y"], body(n), opsets) for n in range(count)]
    return model([node("F0", ["x"], ["y"], domain="own")], imports=opsets[1:], functions=functions)


# Row 29: what has no place in a specialist.


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("Evil", "evil.example"),
        ("PyOp", "ai.onnx.contrib"),
        ("Identity", "ai.onnx.preview.training"),
        ("EPContext", "com.microsoft"),
        ("BeamSearch", "com.microsoft"),
        ("ATen", "org.pytorch.aten"),
        ("Identity", "AI.ONNX"),
        ("Identity", "ai.onnx\0"),
        ("x" * 1000, "y" * 1000),
        ("\ud7ff\U0001f600", "é"),
    ],
)
def test_29_custom_operators_are_refused(operator: str, domain: str) -> None:
    text = refused(model([node(operator, ["x"], ["y"], domain=domain)], imports=[helper.make_opsetid(domain, 1)]))
    assert "only ONNX's own operators are loaded" in text


def test_29_custom_operators_are_found_in_every_corner() -> None:
    evil = node("Evil", ["x"], ["y"], domain="evil")
    inner = helper.make_graph([evil], "inner", [], [value("y", FLOAT, ["n"])])
    branch = node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    assert "'Evil'" in refused(model([branch]))
    assert "'Evil'" in refused(model([node("Identity", ["x"], ["y"], a=inner)]))  # no attribute of that operator
    attribute = helper.make_attribute("graphs", [inner])
    many = node("Identity", ["x"], ["y"])
    many.attribute.append(attribute)
    assert "'Evil'" in refused(model([many]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for body in (evil, branch):
        function = helper.make_function("own", "F", ["x"], ["y"], [body], opsets)
        assert "'Evil'" in refused(model(functions=[function]))  # also one that nobody calls


def test_29_a_function_of_its_own_cannot_replace_an_operator() -> None:
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("ai.onnx.ml", "Scaler", ["x"], ["y"], [node("Identity", ["x"], ["y"])], opsets)
    assert "has the name of another" in refused(model(functions=[function]))
    other = helper.make_function("own", "F", ["x"], ["y"], [node("Identity", ["x"], ["y"])], opsets)
    assert "has the name of another" in refused(model(functions=[other, other]))
    circle = helper.make_function("own", "F", ["x"], ["y"], [node("F", ["x"], ["y"], domain="own")], opsets)
    assert "call each other" in refused(model([node("F", ["x"], ["y"], domain="own")], functions=[circle]))


def test_29_operators_that_a_specialist_has_no_use_for_are_refused() -> None:
    assert "'ImageDecoder'" in refused(model([node("ImageDecoder", ["x"], ["y"])], opset=20))


@pytest.mark.parametrize(("opset", "domain"), [(29, ""), (99, ""), (2**40, ""), (6, "ai.onnx.ml"), (2**63 - 1, "")])
def test_29_an_opset_from_the_future_is_refused(opset: int, domain: str) -> None:
    imports = [helper.make_opsetid(domain, opset)] if domain else []
    assert f"opset {opset} of" in refused(model(opset=17 if domain else opset, imports=imports))


@pytest.mark.parametrize("ir", [99, 2**40])
def test_29_a_file_format_from_the_future_is_refused(ir: int) -> None:
    assert f"version is {ir}" in refused(model(ir=ir))


def test_29_which_versions_are_too_new_is_asked_of_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[bytes] = []
    real = onnxruntime.InferenceSession

    def session(data: bytes, *others: Any) -> Any:
        asked.append(data)
        return real(data, *others)

    rules._runtime_takes.cache_clear()
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    check_graph(model(opset=17))
    assert not asked  # what every runtime takes needs no question
    for _ in range(3):
        check_graph(model(opset=22))
        check_graph(model(ir=11))
        refused(model(opset=999))
    assert len(asked) == 3
    for data in asked[:2]:
        onnx.checker.check_model(onnx.load_from_string(data))
    # Without a runtime it is known what one of these days takes.
    rules._runtime_takes.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check_graph(model(opset=28))
    refused(model(opset=29))
    refused(model(ir=15))
    rules._runtime_takes.cache_clear()


def test_29_a_million_nodes_are_refused_after_a_few() -> None:
    data = of_graph(message(1, ONE_NODE) * 1_000_000)
    tracemalloc.start()
    assert "more than 50,000 nodes" in refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert fields_read(data) < 50_010


def test_29_ten_thousand_graphs_in_each_other_are_refused_after_a_few() -> None:
    graph = message(1, ONE_NODE)
    for _ in range(10_000):
        graph = message(1, message(4, b"If") + message(5, message(1, b"then_branch") + message(6, graph)))
    assert "nested more than 16 deep" in refused(of_graph(graph))
    assert fields_read(of_graph(graph)) < 200


def test_29_bodies_as_deep_as_people_nest_them_are_let_through() -> None:
    graph = message(1, ONE_NODE)
    for _ in range(15):
        graph = message(1, message(4, b"If") + message(5, message(1, b"then_branch") + message(6, graph)))
    check_graph(of_graph(graph))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (message(5, b"") * 60_000, "initializer|element type"),
        (message(11, b"") * 20_000, "inputs and outputs"),
        (message(1, message(4, b"Add") + message(1, b"x" * 5000)), "a name of 5,000 bytes"),
        (message(1, message(4, b"Add") + message(1, b"") * 20_000), "more than 10,000 inputs and outputs"),
        (message(1, message(5, message(11, b"") * 60_000)), "more than 50,000 nodes"),
        (message(9, b"") * 600_000, "more than 500,000 fields"),
    ],
    ids=range(6),
)
def test_29_everything_that_may_be_many_is_bounded(what: bytes, says: str) -> None:
    with pytest.raises(ModelRejected, match=says):
        check_graph(of_graph(what))
    assert fields_read(of_graph(what)) <= 500_001


def test_29_training_and_other_formats_are_refused() -> None:
    made = onnx.load_from_string(model())
    made.training_info.add()
    assert "training" in refused(made.SerializeToString())
    # A file that protobuf takes for one thing and ONNX Runtime for another.
    assert "ONNX Runtime's own format" in refused(b"\x12\x06..ORTM" + model())


# Row 24: a small file that asks for much memory.


def bombs() -> dict[str, bytes]:
    big = np.array([1 << 18, 1 << 18])
    made = {}
    shapes = {
        "initializer": ([], [numpy_helper.from_array(big, "s")]),
        "numbers": ([], [helper.make_tensor("s", TensorProto.INT64, [2], big)]),
        "tensor": ([node("Constant", [], ["s"], value=numpy_helper.from_array(big))], []),
        "value_ints": ([node("Constant", [], ["s"], value_ints=[int(n) for n in big])], []),
    }
    for name, (nodes, initializers) in shapes.items():
        made[name] = model([*nodes, node("ConstantOfShape", ["s"], ["y"])], initializers)
        # nodes in another order than they are run in
        made[f"{name}, later"] = model([node("ConstantOfShape", ["s"], ["y"]), *nodes], initializers)
    raw, huge = numpy_helper.from_array, 1 << 40
    scalars = [raw(np.array(n), name) for n, name in ((0, "a"), (huge, "b"), (1, "c"))]
    floats = [raw(np.array(n), name) for n, name in ((0.0, "a"), (1e15, "b"), (1.0, "c"))]
    endless = [raw(np.array(n), name) for n, name in ((0.0, "a"), (np.inf, "b"), (1.0, "c"))]
    made["Range"] = model([node("Range", ["a", "b", "c"], ["y"])], scalars)
    made["Range of floats"] = model([node("Range", ["a", "b", "c"], ["y"])], floats)
    made["Range without end"] = model([node("Range", ["a", "b", "c"], ["y"])], endless)
    made["Expand"] = model([node("Expand", ["x", "s"], ["y"])], [raw(big, "s")])
    made["Tile"] = model([node("Tile", ["x", "s"], ["y"])], [raw(np.array([huge]), "s")])
    made["OneHot"] = model([node("OneHot", ["x", "s", "v"], ["y"])], [raw(np.array(huge), "s")])
    made["Pad"] = model([node("Pad", ["x", "s"], ["y"])], [raw(np.array([0, huge]), "s")])
    made["Resize"] = model([node("Resize", ["x", "", "", "s"], ["y"])], [raw(big, "s")])
    scales = raw(np.array([1e6, 1e6], np.float32), "s")
    made["Resize by scales"] = model([node("Resize", ["x", "", "s"], ["y"])], [scales])
    made["RandomNormal"] = model([node("RandomNormal", [], ["y"], shape=[1 << 20, 1 << 20])])
    made["many small ones"] = model(
        [node("ConstantOfShape", ["s"], [f"y{n}"]) for n in range(100)], [raw(np.array([1 << 22]), "s")]
    )
    negative = [raw(np.array([-(1 << 40)]), "t"), raw(big, "s")]
    made["after a negative one"] = model(
        [node("ConstantOfShape", ["t"], ["z"]), node("Expand", ["x", "s"], ["y"])], negative
    )
    inner = helper.make_graph([node("ConstantOfShape", ["s"], ["y"])], "inner", [], [value("y", FLOAT, ["n"])])
    outer = node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    made["in a body, by an outer name"] = model([outer], [raw(big, "s")])
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [1], [1.0]), helper.make_tensor("i", TensorProto.INT64, [1], [0]), [1 << 40]
    )
    made["sparse constant"] = model([node("Constant", [], ["y"], sparse_value=sparse)])
    with_sparse = onnx.load_from_string(model())
    with_sparse.graph.sparse_initializer.append(sparse)
    made["sparse initializer"] = with_sparse.SerializeToString()
    return made


@pytest.mark.parametrize("name", bombs())
def test_24_a_written_size_that_is_too_large_is_refused(name: str) -> None:
    data = bombs()[name]
    assert len(data) < 8_000
    assert "may have 1,073,741,824 bytes" in refused(data)


def test_24_sizes_as_people_write_them_are_let_through() -> None:
    shape = numpy_helper.from_array(np.array([64, 1024, 1024]), "s")
    check_graph(model([node("ConstantOfShape", ["s"], ["y"])], [shape]))
    check_graph(model([node("ConstantOfShape", ["x"], ["y"])]))  # known only when it is run
    empty = numpy_helper.from_array(np.array([], np.int64), "s")
    check_graph(model([node("ConstantOfShape", ["s"], ["y"])], [empty]))


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=FLOAT, dims=[1 << 40], raw_data=b"1234"),
        TensorProto(name="w", data_type=FLOAT, dims=[1 << 40] * 60),
        TensorProto(name="w", data_type=FLOAT, dims=[-1], raw_data=b"1234"),
        TensorProto(name="w", data_type=FLOAT, dims=[2], float_data=[1.0], raw_data=b"12345678"),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[3], string_data=[b"a", b"b"]),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], raw_data=b"a"),
        TensorProto(name="w", data_type=TensorProto.INT64, dims=[9], int64_data=[1, 2]),
        TensorProto(name="w", data_type=99, dims=[1], raw_data=b"12345678"),
        TensorProto(name="w", dims=[1], raw_data=b"12345678"),
        TensorProto(name="w", data_type=FLOAT, dims=[1] * 200, raw_data=b"1234"),
    ],
    ids=range(10),
)
def test_24_a_tensor_brings_what_it_declares(tensor: TensorProto) -> None:
    refused(model(initializers=[tensor]))
    refused(model([node("Constant", [], ["y"], value=tensor)]))


# Row 27: weights that lie elsewhere.


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "weights.bin", ""])
def test_27_weights_in_another_file_are_refused(location: str) -> None:
    entry = onnx.StringStringEntryProto(key="location", value=location)
    tensors = [
        TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL, external_data=[entry]),
        TensorProto(name="w", data_type=FLOAT, dims=[1], raw_data=b"1234", external_data=[entry]),
        TensorProto(name="w", data_type=FLOAT, dims=[1], raw_data=b"1234", data_location=TensorProto.EXTERNAL),
    ]
    for tensor in tensors:
        sparse = onnx.SparseTensorProto(values=tensor, indices=tensor, dims=[4])
        inner = helper.make_graph([ONE], "inner", [], [value("y", FLOAT, ["n"])], [tensor])
        with_sparse = onnx.load_from_string(model())
        with_sparse.graph.sparse_initializer.append(sparse)
        for data in (
            model(initializers=[tensor]),
            model([node("Constant", [], ["y"], value=tensor)]),
            model([node("Constant", [], ["y"], sparse_value=sparse)]),
            model([node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]),
            with_sparse.SerializeToString(),
        ):
            text = refused(data)
            assert "lie in another file" in text
            assert "passwd" not in text


ONE = node("Identity", ["x"], ["y"])


# Row 28: damaged and forged bytes.


def test_28_every_997th_byte_flipped_is_refused_or_still_a_small_model() -> None:
    """A flipped weight cannot be seen here (the hash sees it); nothing else than a typed refusal ever happens."""
    data = (ZOO / "constraints" / "model.onnx").read_bytes()
    outcomes = {"let through": 0, "refused": 0}
    for at in range(0, len(data), 997):
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        try:
            check_graph(bytes(flipped))
            outcomes["let through"] += 1
        except ModelRejected:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == -(-len(data) // 997)


def test_28_a_truncated_model_is_refused_wherever_it_ends() -> None:
    data = model([node("Identity", ["x"], ["y"])], [numpy_helper.from_array(np.ones(3, np.float32), "w")])
    whole, said = {len(data)}, set()
    for length in range(len(data)):
        try:
            check_graph(data[:length])
            whole.add(length)
        except ModelRejected as error:
            said.add("not a model that can be opened" in str(error))
    assert said == {True}
    # Fields at the end may be missing as a whole: what is left then is a model.
    assert all(onnx.load_from_string(data[:length]).HasField("graph") for length in whole)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\0" * 100, b"\xff" * 100, b"\x7f" * 100, b"PK\x03\x04" * 9])
def test_28_what_is_no_model_is_refused(data: bytes) -> None:
    assert "is not a model" in refused(data)


@given(st.binary(max_size=300))
def test_28_any_bytes_give_an_answer_or_a_typed_refusal(data: bytes) -> None:
    for whole in (data, of_graph(data), of_graph(message(1, data)), of_graph(message(5, data))):
        with contextlib.suppress(ModelRejected):
            check_graph(whole)


@given(st.data())
def test_28_any_damage_gives_an_answer_or_a_typed_refusal(data: st.DataObject) -> None:
    samples = list(bombs().values())
    sample = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(sample) - 1))
        sample[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(ModelRejected):
        check_graph(bytes(sample))


TWICE: dict[str, Callable[[bytes], bytes]] = {
    "graph": lambda data: data + message(7, b""),
    "ir_version": lambda data: data + b"\x08\x08",
    "a needless byte in a tag": lambda data: b"\x88\x80\x00\x08" + data,
    "a needless byte in a number": lambda data: b"\x28\x81\x00" + data,
    "a group": lambda data: data + b"\xa3\x06\xa4\x06",
    "a field of number 0": lambda data: data + b"\x02\x00",
    "another type": lambda data: data + b"\x3d1234",
    "a number of 70 bits": lambda data: b"\x28" + b"\xff" * 9 + b"\x7f" + data,
    "a length beyond the end": lambda data: data + b"\x32\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("name", TWICE)
def test_28_what_may_be_read_in_two_ways_is_refused(name: str) -> None:
    refused(TWICE[name](model()))


@pytest.mark.parametrize(
    "again",
    [message(4, b"Identity"), message(7, b""), message(4, b"Evil")],
)
def test_28_a_node_says_once_what_it_is(again: bytes) -> None:
    check_graph(of_graph(message(1, ONE_NODE + (again if again == message(7, b"") else b""))))
    if again != message(7, b""):
        assert "twice" in refused(of_graph(message(1, ONE_NODE + again)))


def test_28_a_tensor_says_once_what_it_holds() -> None:
    """Protobuf takes the last content, and the dimensions of all."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1], raw_data=b"1234").SerializeToString()
    check_graph(of_graph(message(1, ONE_NODE) + message(5, tensor)))
    for more in (message(9, b"12345678"), b"\x10\x01", message(8, b"v")):
        assert "twice" in refused(of_graph(message(1, ONE_NODE) + message(5, tensor + more)))
    attribute = message(1, b"value") + message(5, tensor) + message(5, b"\x08\x7f")
    assert "twice" in refused(of_graph(message(1, message(4, b"Constant") + message(5, attribute))))


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_read_as_protobuf_writes_them(number: int) -> None:
    data = varint(number) + b"\x01"
    assert Reader(data, 10).varint(0) == (number, len(data) - 1)
