"""What a child answers is other people's: whatever it says, the parent gives arrays as promised, or a typed error."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import ModelFailed, WorkerDied
from specialists.isolation.protocol import PREFIX, Nonsense, pack, read_arrays, read_header, read_prefix, tell

from .children import Open, answer_instead

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)

LIES = {
    "a huge answer": "send_bytes(b'', 2**60, 10)",
    "a huge header": "send_bytes(b'', 0, 2**31)",
    "no JSON": "send_bytes(b'{}}')",
    "deep JSON": "send_bytes(b'[' * 90_000)",
    "a key twice": """send_bytes(b'{"arrays": [], "arrays": []}')""",
    "NaN as JSON": """send_bytes(b'{"arrays": NaN}')""",
    "a pickle": "send_bytes(pickle.dumps({'arrays': []}))",
    "no arrays": "send({})",
    "another name": "send({'arrays': [['z', 'float32', [1, 3]]]}, bytes(12))",
    "another type": "send({'arrays': [['y', 'object', [1, 3]]]}, bytes(24))",
    "a negative size": "send({'arrays': [['y', 'float32', [-1, -3]]]}, bytes(12))",
    "a huge size": "send({'arrays': [['y', 'float32', [2**40, 3]]]}, bytes(12))",
    "too many bytes": "send({'arrays': [['y', 'float32', [1, 3]]]}, bytes(13))",
}


@on_linux
@pytest.mark.parametrize("lie", LIES)
def test_25_a_child_that_lies_is_ended(double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    answer_instead(monkeypatch, LIES[lie])
    model = opened(double)
    with pytest.raises(WorkerDied, match="for it sent") as caught:
        model.run_sync(x=ROW)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert model.child_pid is None


@on_linux
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("send({'arrays': [['y', 'float32', [1, 3]]]}, bytes([255]) * 12)", "is not finite"),
        ("send({'arrays': [['y', 'float32', [3, 1]]]}, bytes(12))", "has shape"),
        ("send({'arrays': [['y', 'float64', [1, 3]]]}, bytes(24))", "is float64, not float32"),
        ("send({'failed': chr(10) + 'one ' + chr(27) + '[31m two' + 'x' * 9000})", r"the run failed: one \[31m two"),
        ("send({'failed': {'a': [1]}})", "the run failed"),
    ],
)
def test_25_an_answer_is_checked_as_if_it_came_from_a_stranger(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, answer: str, says: str
) -> None:
    answer_instead(monkeypatch, answer)
    with pytest.raises(ModelFailed, match=says) as caught:
        opened(double).run_sync(x=ROW)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_frames_are_read_as_they_were_written() -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(True), np.zeros((0, 4), np.int64)]
    names = ["a", "ü", "c"]
    data = b"".join(pack({"arrays": tell(names, arrays)}, arrays))
    length, size = read_prefix(data[:PREFIX], 1000)
    header = read_header(data[PREFIX : PREFIX + length])
    assert len(data) == PREFIX + length + size
    again = read_arrays(header["arrays"], bytearray(data[PREFIX + length :]), names)
    assert [array.dtype for array in again] == [array.dtype for array in arrays]
    assert [array.tolist() for array in again] == [array.tolist() for array in arrays]
    with pytest.raises(Nonsense, match="are allowed"):
        read_prefix(data[:PREFIX], size - 1)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["x", "float32", "bool"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.binary(max_size=24))
def test_28_any_description_gives_arrays_or_nonsense(told: Any, body: bytes) -> None:
    for described in (told, [told], [["x", "float32", told]], [["x", told, [3]]]):
        try:
            (array,) = read_arrays(described, bytearray(body), ["x"])
        except Nonsense:
            continue
        assert array.nbytes == len(body)


@given(st.binary(max_size=64))
def test_28_any_header_gives_an_object_or_nonsense(data: bytes) -> None:
    with contextlib.suppress(Nonsense):
        assert isinstance(read_header(data), dict)
