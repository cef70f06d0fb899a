"""Optimised graphs kept between processes: when one is used, and all that must mean that none is."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from specialists import graph_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="whose a folder is cannot be told here")

DIGEST = hashlib.sha256(b"a model").hexdigest()
KEY = {"onnxruntime": "1", "level": "all"}
GRAPH = bytes(range(256)) * 20


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    chosen = tmp_path / "cache" / "graphs"
    monkeypatch.setenv(graph_cache.VARIABLE, str(chosen))
    monkeypatch.setattr(graph_cache, "_said", set())
    yield chosen
    chosen.parent.chmod(0o700) if chosen.parent.exists() else None


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every opening is slow enough, and every kept graph fast enough: what is asked here is what happens, not when."""
    monkeypatch.setattr(graph_cache, "WORTH_SECONDS", -1.0)
    monkeypatch.setattr(graph_cache, "WORTH_SHARE", 1e12)
    monkeypatch.setattr(graph_cache, "_hashing_seconds", lambda data: -1e15)


@pytest.fixture
def model() -> bytes:
    """``y = x @ transpose(w) + x @ transpose(w)``: ONNX Runtime folds what it can of this."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["a"]),
        helper.make_node("MatMul", ["x", "wt"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


class Opened:
    """Counts what ONNX Runtime was given to open, and with which level."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[bytes, str]] = []
        whole = graph_cache._session

        def session(data: bytes, options: Any) -> Any:
            self.seen.append((data, options.graph_optimization_level.name))
            return whole(data, options)

        monkeypatch.setattr(graph_cache, "_session", session)


def make_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def only_file(place: Path) -> Path:
    (path,) = place.glob("*.graph")
    return path


def test_what_is_stored_comes_back_for_the_same_key_alone(place: Path) -> None:
    assert graph_cache.cached(DIGEST, KEY) is None
    assert not place.exists(), "nothing is made before it is needed"
    assert graph_cache.store(DIGEST, KEY, GRAPH)
    assert graph_cache.cached(DIGEST, KEY) == GRAPH
    assert graph_cache.cached(DIGEST, {**KEY, "onnxruntime": "2"}) is None
    assert graph_cache.cached(DIGEST, {**KEY, "cpu": "another"}) is None
    assert graph_cache.cached(hashlib.sha256(b"another").hexdigest(), KEY) is None
    assert place.stat().st_mode & 0o777 == 0o700
    assert only_file(place).stat().st_mode & 0o777 == 0o600
    assert not list(place.glob("*.tmp"))


def test_a_file_given_another_name_is_not_taken_for_another_model(place: Path) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    graph_cache.store(DIGEST, {"another": "key"}, b"another graph")
    one, other = sorted(place.iterdir(), key=lambda path: path.stat().st_size)
    one.replace(other)
    assert graph_cache.cached(DIGEST, KEY) is None


def test_the_key_holds_all_that_the_graph_depends_on() -> None:
    import onnxruntime

    key = graph_cache.graph_key("ORT_ENABLE_ALL", {"precision": "int8"})
    assert key["onnxruntime"] == onnxruntime.__version__
    assert key["level"] == "ORT_ENABLE_ALL"
    assert key["precision"] == "int8"
    assert key["cpu"] == graph_cache.cpu_features()
    assert len(key["cpu"]) == 16


def test_a_changed_byte_anywhere_means_that_there_is_none(place: Path) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    good = only_file(place).read_bytes()
    for index in [*range(0, len(good), 97), len(good) - 1]:
        changed = bytearray(good)
        changed[index] ^= 1
        path = place / graph_cache._name(DIGEST, KEY)
        path.touch(0o600)
        path.write_bytes(changed)
        found = graph_cache.cached(DIGEST, KEY)
        assert found is None or found == GRAPH, index  # the byte may be of the time written down
        if found is None:
            assert not path.exists(), "what is damaged is removed"


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_file_means_that_there_is_none(place: Path, length: int) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    path = only_file(place)
    path.write_bytes(path.read_bytes()[:length])
    assert graph_cache.cached(DIGEST, KEY) is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o701])
def test_a_folder_that_others_can_enter_is_not_used(place: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    place.chmod(mode)
    with caplog.at_level(logging.WARNING, "specialists"):
        for _ in range(3):
            assert graph_cache.cached(DIGEST, KEY) is None
            assert not graph_cache.store(DIGEST, KEY, GRAPH)
    assert len(caplog.records) == 1, "said once"
    assert "chmod 700" in caplog.text


def test_a_folder_of_somebody_else_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert graph_cache.cached(DIGEST, KEY) is None
    assert not graph_cache.store(DIGEST, KEY, GRAPH)


def test_a_link_in_the_folder_s_place_is_not_followed(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(0o700)
    place.parent.mkdir()
    place.symlink_to(target)
    assert not graph_cache.store(DIGEST, KEY, GRAPH)
    assert graph_cache.cached(DIGEST, KEY) is None
    assert not list(target.iterdir())


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "readable by all"])
def test_only_a_plain_file_of_our_own_is_read(place: Path, tmp_path: Path, kind: str) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    path = only_file(place)
    aside = tmp_path / "aside"
    if kind == "link":
        path.rename(aside)
        path.symlink_to(aside)
    elif kind == "hard link":
        os.link(path, aside)
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.unlink()
        path.mkdir(0o700)
    else:
        path.chmod(0o644)
    assert graph_cache.cached(DIGEST, KEY) is None


def test_a_link_in_a_file_s_place_is_replaced_and_not_written_through(place: Path, tmp_path: Path) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    canary = tmp_path / "canary"
    canary.write_bytes(b"untouched")
    path = only_file(place)
    path.unlink()
    path.symlink_to(canary)
    assert graph_cache.store(DIGEST, KEY, GRAPH)
    assert canary.read_bytes() == b"untouched"
    assert graph_cache.cached(DIGEST, KEY) == GRAPH


def test_a_disk_that_cannot_be_written_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(graph_cache.VARIABLE, str(file / "graphs"))
    assert not graph_cache.store(DIGEST, KEY, GRAPH)
    assert graph_cache.cached(DIGEST, KEY) is None


def test_a_full_disk_leaves_nothing_behind(place: Path) -> None:
    code = f"""
import resource, signal
from specialists import graph_cache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
assert not graph_cache.store({DIGEST!r}, {KEY!r}, {GRAPH!r})
assert graph_cache.cached({DIGEST!r}, {KEY!r}) is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())


@pytest.mark.parametrize("named", ["", "relative/graphs"])
def test_it_can_be_turned_off(named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(graph_cache.VARIABLE, named)
    assert graph_cache.folder() is None
    assert not graph_cache.store(DIGEST, KEY, GRAPH)
    assert graph_cache.cached(DIGEST, KEY) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["package", "site-packages"])
def test_it_never_lies_in_an_installed_package(inside: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Path(graph_cache.__file__).parent
    chosen = package / "graphs" if inside == "package" else tmp_path / "site-packages" / "model" / "graphs"
    monkeypatch.setenv(graph_cache.VARIABLE, str(chosen))
    assert not graph_cache.store(DIGEST, KEY, GRAPH)
    assert not chosen.exists()


def test_the_users_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(graph_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert graph_cache.folder() == tmp_path / "brain-specialists" / "graphs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert graph_cache.folder() == tmp_path / "home" / ".cache" / "brain-specialists" / "graphs"


def test_what_was_used_longest_ago_goes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "LIMIT_BYTES", 3 * 8192)
    for number in range(3):
        assert graph_cache.store(DIGEST, {"number": str(number)}, b"g" * 7000)
        path = place / graph_cache._name(DIGEST, {"number": str(number)})
        os.utime(path, (1000 + number, 1000 + number))
    assert graph_cache.cached(DIGEST, {"number": "0"}) is not None  # used now, and so the youngest
    assert graph_cache.store(DIGEST, {"number": "3"}, b"g" * 7000)
    left = [number for number in range(4) if graph_cache.cached(DIGEST, {"number": str(number)}) is not None]
    assert left == [0, 2, 3]


def test_what_a_dead_process_left_unfinished_is_removed(place: Path) -> None:
    graph_cache.store(DIGEST, KEY, GRAPH)
    old, young = place / "old.tmp", place / "young.tmp"
    old.touch()
    young.touch()
    os.utime(old, (1000, 1000))
    graph_cache.store(DIGEST, KEY, GRAPH)
    assert not old.exists()
    assert young.exists(), "another process may be writing it"


def test_from_the_third_opening_on_the_kept_graph_is_used(
    eager: None, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(monkeypatch)
    digest = hashlib.sha256(model).hexdigest()
    x = np.ones((2, 3), np.float32)
    answers = [graph_cache.open_session(model, digest, make_options).run(None, {"x": x})[0].tolist() for _ in range(4)]
    assert answers == [answers[0]] * 4
    assert [data == model for data, _ in opened.seen] == [True, True, False, False]
    assert [level for _, level in opened.seen] == ["ORT_ENABLE_ALL"] * 2 + ["ORT_DISABLE_ALL"] * 2
    kept = onnx.load_from_string(opened.seen[-1][0]).graph
    assert "Transpose" not in {node.op_type for node in kept.node}, "it was optimised"


def test_a_graph_that_saves_nothing_is_not_used_again(
    eager: None, model: bytes, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    opened = Opened(monkeypatch)
    digest = hashlib.sha256(model).hexdigest()
    graph_cache.open_session(model, digest, make_options)
    graph_cache.open_session(model, digest, make_options)
    monkeypatch.setattr(graph_cache, "WORTH_SHARE", 0.0)
    for _ in range(3):
        graph_cache.open_session(model, digest, make_options)
    assert [data == model for data, _ in opened.seen] == [True, True, False, True, True]
    assert only_file(place).stat().st_size < 1000


def test_weights_that_take_longer_to_hash_than_to_open_are_not_kept(
    eager: None, model: bytes, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    opened = Opened(monkeypatch)
    monkeypatch.setattr(graph_cache, "_hashing_seconds", lambda data: 1e9)
    for _ in range(3):
        graph_cache.open_session(model, hashlib.sha256(model).hexdigest(), make_options)
    assert [data == model for data, _ in opened.seen] == [True] * 3
    assert only_file(place).stat().st_size < 1000


def test_a_model_that_opens_fast_leaves_no_file(model: bytes, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "WORTH_SECONDS", 1e9)
    for _ in range(3):
        graph_cache.open_session(model, hashlib.sha256(model).hexdigest(), make_options)
    assert not place.exists()


def test_a_kept_graph_that_does_not_open_is_given_up(
    model: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Opened(monkeypatch)
    digest = hashlib.sha256(model).hexdigest()
    key = graph_cache.graph_key("ORT_ENABLE_ALL")
    graph_cache.store(digest, key, b"no graph at all")
    x = np.ones((2, 3), np.float32)
    for _ in range(2):
        assert graph_cache.open_session(model, digest, make_options).run(None, {"x": x})[0].shape == (2, 3)
    assert [data == model for data, _ in opened.seen] == [False, True, True]
    assert "could not be opened" in caplog.text


def test_a_broken_model_raises_what_it_would_without_a_cache(eager: None) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match=r"INVALID_PROTOBUF|Protobuf"):
            graph_cache.open_session(b"no model", hashlib.sha256(b"no model").hexdigest(), make_options)


def test_processes_that_store_at_once_leave_one_whole_file(place: Path) -> None:
    code = f"""
import sys
from specialists import graph_cache
for number in range(40):
    graph_cache.store({DIGEST!r}, {KEY!r}, bytes([int(sys.argv[1])]) * 20000)
    graph = graph_cache.cached({DIGEST!r}, {KEY!r})
    assert graph is not None and len(graph) == 20000 and len(set(graph)) == 1, graph
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stderr=subprocess.PIPE) for number in range(3)
    ]
    for child in children:
        assert child.communicate(timeout=60)[1] == b""
        assert child.returncode == 0
    assert [path.suffix for path in place.iterdir()] == [".graph"]
