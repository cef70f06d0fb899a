"""Model files of strangers: what is refused before the runtime sees it, and what a child process keeps for itself."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import specialists
from specialists import (
    DeadlinePassed,
    ModelFailed,
    ModelRejected,
    OnnxModel,
    Quarantined,
    SpecialistError,
    WorkerDied,
    load,
)
from specialists.card import seal
from specialists.graph_check import Limits, _Checker, check_graph
from specialists.graph_check.wire import Malformed, Refused
from specialists.isolation import IsolatedModel

from ..specialists.children import Open, gone, may_take, serve_instead
from ..specialists.conftest import double, endless, opened, save  # noqa: F401
from ..specialists.folders import of_task

ZOO = Path(specialists.__file__).parent / "zoo"
CANARY = "canary-7f3a9"
ROW = np.array([[1.0, 2.0, 3.0]], np.float32)
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")
needs_links = pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")
value, node = helper.make_tensor_value_info, helper.make_node


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What ONNX Runtime was given to open; it must stay empty."""
    given: list[object] = []

    def session(data: object, *others: object, **options: object) -> None:
        given.append(data)
        raise AssertionError("the runtime was given a model")

    check_graph(bundled())  # the runtime may be asked once what it takes
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    yield given
    assert not given


def bundled() -> bytes:
    return (ZOO / "constraints" / "model.onnx").read_bytes()


def bomb() -> bytes:
    """``ConstantOfShape`` of 2**36 elements: a terabyte when the runtime folds its constants."""
    shape = numpy_helper.from_array(np.array([1 << 36]), "s")
    nodes = [node("Constant", [], ["s"], value=shape), node("ConstantOfShape", ["s"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [value("y", FLOAT, ["n"])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_fault_24_a_memory_bomb_in_a_trusted_file_is_refused_unopened(tmp_path: Path, no_session: list[object]) -> None:
    data = bomb()
    assert len(data) < 142
    (tmp_path / "bomb.onnx").write_bytes(data)
    with pytest.raises(ModelRejected, match=r"'ConstantOfShape' makes in it has 6\.87e"):
        OnnxModel(tmp_path / "bomb.onnx").run_sync()
    with pytest.raises(ModelRejected, match=r"'ConstantOfShape' makes in it has 6\.87e"):
        IsolatedModel(tmp_path / "bomb.onnx").run_sync()


@on_linux
def test_fault_24_a_memory_bomb_that_shows_when_it_runs_hits_a_child_alone(
    tmp_path: Path,
    double: Path,  # noqa: F811
    opened: Open,  # noqa: F811
) -> None:
    inputs, outputs = [value("shape", INT, [1])], [value("y", FLOAT, ["n"])]
    path = save(tmp_path / "sized.onnx", [node("ConstantOfShape", ["shape"], ["y"])], inputs, outputs)
    bad, good = opened(path, memory_mb=128), OnnxModel(double)
    for size in (2**27, 2**36, 2**55):
        with pytest.raises((ModelFailed, Quarantined)):
            bad.run_sync(shape=[size])
        assert good.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
        assert bad.run_sync(shape=[2])["y"].tolist() == [0.0, 0.0]


@on_linux
async def test_fault_23_a_runaway_loop_in_a_child_is_ended_and_the_loop_stays_free(
    endless: Path,  # noqa: F811
    opened: Open,  # noqa: F811
) -> None:
    model = opened(endless, timeout=600.0)
    await model.run(trips=np.int64(1), x=[0.0])
    pid = model.child_pid
    turns = 0
    with may_take(model, 0.4):
        task = asyncio.create_task(model.run(trips=np.int64(2**40), x=[0.0]))
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
    with pytest.raises(DeadlinePassed):
        task.result()
    assert turns > 20
    assert gone(pid)


@on_linux
def test_fault_25_workers_killed_again_and_again_lose_no_call(
    endless: Path,  # noqa: F811
    opened: Open,  # noqa: F811
) -> None:
    model = opened(endless, timeout=60.0)
    model.run_sync(trips=np.int64(1), x=[0.0])
    for number in range(2):
        answers: list[Any] = []
        trips = 200_000 + number
        run = threading.Thread(
            target=lambda trips=trips, answers=answers: answers.append(model.run_sync(trips=np.int64(trips), x=[0.0]))
        )
        run.start()
        time.sleep(0.05)
        os.kill(model.child_pid or 0, signal.SIGKILL)
        run.join()
        assert answers[0]["y"].tolist() == [float(trips)]
        assert model.starts == 2 + number


@on_linux
@pytest.mark.parametrize("crash", ["ctypes.string_at(0)", "os.kill(os.getpid(), 9)"], ids=["null read", "killed"])
def test_fault_25_a_poisonous_input_costs_two_workers_and_no_third(
    double: Path,  # noqa: F811
    opened: Open,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    crash: str,
) -> None:
    serve_instead(monkeypatch, f"def serve(session, sink, waiting):\n    waiting.get()\n    {crash}")
    model = opened(double)
    with pytest.raises(WorkerDied, match="it is the second, so this input is not tried again"):
        model.run_sync(x=ROW)
    assert model.starts == 2
    monkeypatch.undo()  # the next children are honest
    for _ in range(3):
        with pytest.raises(Quarantined):
            model.run_sync(x=ROW)
    assert model.run_sync(x=2 * ROW)["y"].tolist() == [[4.0, 8.0, 12.0]]
    assert model.starts == 3


# Row 27.


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that must never be read; its words would be found again."""
    path = tmp_path / "secrets" / "secret"
    path.parent.mkdir()
    path.write_text(f"{CANARY}\n" * 20)
    return path


def tricks() -> dict[str, Any]:
    def link(folder: Path, secret: Path) -> None:
        (folder / "model.onnx").symlink_to(secret)

    def hard_link(folder: Path, secret: Path) -> None:
        os.link(secret, folder / "model.onnx")

    def pipe(folder: Path, secret: Path) -> None:
        os.mkfifo(folder / "model.onnx")

    def device(folder: Path, secret: Path) -> None:
        (folder / "model.onnx").symlink_to("/dev/zero")

    def parent_link(folder: Path, secret: Path) -> None:
        secret.rename(secret.parent / "model.onnx")
        (folder / "inner").symlink_to(secret.parent)
        rename(folder, "inner/model.onnx")

    def above(folder: Path, secret: Path) -> None:
        rename(folder, "../secrets/secret")

    def absolute(folder: Path, secret: Path) -> None:
        rename(folder, str(secret))

    def elsewhere(folder: Path, secret: Path) -> None:
        entry = onnx.StringStringEntryProto(key="location", value="../secrets/secret")
        weights = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=1, external_data=[entry])
        graph = helper.make_graph([node("Identity", ["w"], ["y"])], "g", [], [value("y", FLOAT, [4])], [weights])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (folder / "model.onnx").write_bytes(made.SerializeToString())
        seal(folder)

    def sparse_elsewhere(folder: Path, secret: Path) -> None:
        entry = onnx.StringStringEntryProto(key="location", value="../secrets/secret")
        weights = TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=1, external_data=[entry])
        indices = helper.make_tensor("i", INT, [1], [0])
        graph = helper.make_graph([node("Identity", ["w"], ["y"])], "g", [], [value("y", FLOAT, [4])])
        graph.sparse_initializer.append(onnx.SparseTensorProto(values=weights, indices=indices, dims=[4]))
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (folder / "model.onnx").write_bytes(made.SerializeToString())
        seal(folder)

    def rename(folder: Path, name: str) -> None:
        """The card names another file, with the hash that this one really has."""
        card = folder / "specialist.toml"
        lines = [line for line in card.read_text().splitlines() if not line.startswith('"model.onnx"')]
        place = lines.index("[text_classification]") + 1
        lines.insert(place, f'model = "{name}"')
        digest = hashlib.sha256(f"{CANARY}\n".encode() * 20).hexdigest()
        card.write_text("\n".join([*lines, f'"{name}" = "{digest}"', ""]))

    return {each.__name__: each for each in (
        link, hard_link, pipe, device, parent_link, above, absolute, elsewhere, sparse_elsewhere,
    )}  # fmt: skip


@on_linux
@needs_links
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("trick", tricks())
async def test_fault_27_a_file_that_is_none_of_the_folders_is_refused_and_tells_nothing(
    trick: str,
    trust: bool,
    tmp_path: Path,
    secret: Path,
    no_session: list[object],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = of_task(tmp_path / "mood")
    (folder / "model.onnx").unlink()
    tricks()[trick](folder, secret)
    with pytest.raises(SpecialistError) as caught:
        await load(folder, trust=trust)("happy")
    told: BaseException | None = caught.value
    while told is not None:
        assert CANARY not in repr(told) + str(told)
        told = told.__cause__ or told.__context__
    if (folder / "model.onnx").exists() or trick in ("link", "device"):
        with pytest.raises(ModelRejected) as refused:
            await OnnxModel(folder / "model.onnx").run(words=[[1]], pairs=[[1]], chars=[[1]])
        assert CANARY not in str(refused.value)
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err + caplog.text


@needs_links
def test_fault_27_a_file_exchanged_between_check_and_load_is_never_loaded(
    double: Path,  # noqa: F811
    tmp_path: Path,
    secret: Path,
) -> None:
    """Another thread exchanges the file all the time; a model that opens gives the right answers, always."""
    right = double.read_bytes()
    wrong = right.replace(b"Add", b"Mul")
    check_graph(wrong)
    digest = hashlib.sha256(right).hexdigest()
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.onnx"
    stop, rounds = threading.Event(), [0]

    def exchange() -> None:
        other = folder / "other"
        while not stop.is_set():
            for make in (
                lambda: other.write_bytes(wrong),
                lambda: other.symlink_to(secret),
                lambda: os.link(secret, other),
                lambda: other.write_bytes(right),
            ):
                make()
                other.replace(path)
            rounds[0] += 1

    path.write_bytes(right)
    thread = threading.Thread(target=exchange)
    thread.start()
    loaded, said = 0, set()
    try:
        while (loaded < 5 or len(said) < 2 or rounds[0] < 20) and loaded + rounds[0] < 50_000:
            try:
                answer = OnnxModel(path, sha256=digest).run_sync(x=ROW)
            except ModelRejected as error:
                said.add(str(error))
                continue
            loaded += 1
            assert answer["y"].tolist() == [[2.0, 4.0, 6.0]]
    finally:
        stop.set()
        thread.join()
    assert loaded
    assert said
    assert CANARY not in "".join(said)


# Row 28, without signatures.


def test_fault_28_one_flipped_byte_anywhere_is_refused(tmp_path: Path, no_session: list[object]) -> None:
    folder = tmp_path / "constraints"
    shutil.copytree(ZOO / "constraints", folder, ignore=shutil.ignore_patterns("__pycache__"))
    data = (folder / "model.onnx").read_bytes()
    model = OnnxModel(folder / "model.onnx")
    tried = 0
    for at in range(0, len(data), 997):
        flipped = bytearray(data)
        flipped[at] ^= 1
        (folder / "model.onnx").write_bytes(flipped)
        with pytest.raises(ModelRejected, match="is not the one its card names"):
            model.run_sync(carry=[[0] * 81])
        tried += 1
    assert tried == -(-len(data) // 997)
    with pytest.raises(ModelRejected, match=r"'model.onnx' is not the file the card names"):
        load(folder, trust=True)


@pytest.mark.parametrize("length", [0, 1, 7, 100, 5_000, 100_000])
def test_fault_28_a_truncated_file_is_refused_with_or_without_a_hash(
    tmp_path: Path, no_session: list[object], length: int
) -> None:
    (tmp_path / "model.onnx").write_bytes(bundled()[:length])
    for options in ({}, {"sha256": hashlib.sha256(bundled()).hexdigest()}):
        for model in (OnnxModel(tmp_path / "model.onnx", **options), IsolatedModel(tmp_path / "model.onnx", **options)):
            with pytest.raises(ModelRejected):
                model.run_sync(carry=[[0] * 81])


def test_fault_28_flipped_bytes_without_a_hash_give_a_typed_answer(tmp_path: Path) -> None:
    """Nobody said what the bytes should be: a weight may be wrong then, but nothing breaks."""
    data = bundled()
    outcomes = {"opened": 0, "refused": 0}
    for at in range(0, len(data), 997 * 8):
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        (tmp_path / "model.onnx").write_bytes(flipped)
        try:
            OnnxModel(tmp_path / "model.onnx").session  # noqa: B018
            outcomes["opened"] += 1
        except ModelRejected:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == -(-len(data) // (997 * 8))


# Row 29.


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def whole(graph: bytes) -> bytes:
    return b"\x08\x08" + message(8, b"\x10\x11") + message(7, graph)


def hostile() -> dict[str, tuple[bytes, int]]:
    """Models with the most fields that may be read of each before it is refused."""
    one = node("Identity", ["x"], ["y"]).SerializeToString()

    def of(operator: str, domain: str, opset: int = 17) -> bytes:
        graph = helper.make_graph([node(operator, ["x"], ["y"], domain=domain)], "g", [], [])
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain or "ai.onnx.ml", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()

    nested = message(1, one)
    for _ in range(10_000):
        nested = message(1, message(4, b"If") + message(5, message(1, b"then_branch") + message(6, nested)))
    return {
        "custom domain": (of("Anything", "evil.example"), 50),
        "a library's domain": (of("PythonOp", "ai.onnx.contrib"), 50),
        "disallowed operator": (of("EPContext", "com.microsoft"), 50),
        "opset from the future": (of("Identity", "", 4000), 50),
        "a million nodes": (whole(message(1, one) * 1_000_000), Limits().nodes + 10),
        "ten thousand graphs in each other": (whole(nested), 200),
    }


@pytest.mark.parametrize("what", hostile())
def test_fault_29_hostile_models_are_refused_after_a_few_fields(
    what: str, tmp_path: Path, no_session: list[object]
) -> None:
    data, most = hostile()[what]
    (tmp_path / "model.onnx").write_bytes(data)
    for model in (OnnxModel(tmp_path / "model.onnx"), IsolatedModel(tmp_path / "model.onnx")):
        with pytest.raises(ModelRejected) as caught:
            model.run_sync(x=[1.0])
        assert "\n" not in str(caught.value)
    checker = _Checker(data, Limits())
    with pytest.raises((Refused, Malformed)):
        checker.check()
    assert checker.reader.count <= most
