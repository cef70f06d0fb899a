"""A model file as a session: what is refused, what is stopped, what is shared."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from specialists import CardError, MissingRuntime, ModelFailed, ModelRejected, OnnxModel
from specialists.metering import CpuMeter, current_meter
from specialists.onnx import set_threads
from specialists.workers import usable_cores

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)

CARD_TEXT = """format = 1
name = "double"
version = "1"
description = "Doubles."
function = "double:double"
"""


async def test_runs_and_gives_arrays_by_name(double: Path) -> None:
    outputs = await OnnxModel(double).run(x=ROW)
    assert list(outputs) == ["y"]
    assert outputs["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert OnnxModel(double).run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]


async def test_lists_and_wider_floats_are_taken(double: Path) -> None:
    model = OnnxModel(double)
    assert (await model.run(x=[[1, 2, 3]]))["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert (await model.run(x=[[0.5, 1.5, 2.5]]))["y"].tolist() == [[1.0, 3.0, 5.0]]


async def test_inputs_may_have_any_name(named_self: Path) -> None:
    feeds = {"self": np.ones(2, np.float32), "inputs": np.ones(2, np.float32)}
    assert (await OnnxModel(named_self).run(**feeds))["y"].tolist() == [2.0, 2.0]
    assert OnnxModel(named_self).run_sync(**feeds)["y"].tolist() == [2.0, 2.0]


def test_making_one_opens_nothing_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
        import sys
        from specialists import OnnxModel
        model = OnnxModel("nowhere.onnx")
        assert not {"onnxruntime", "numpy"} & set(sys.modules), "imported too early"
        print(repr(model))
    """
    assert run_python(code) == "OnnxModel('nowhere.onnx')"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"not a model", "is not a model"), (None, "cannot be read"), (Path, "is not a file")],
)
def test_21_a_file_that_is_no_model_is_refused(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "model.onnx"
    if content is Path:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelRejected, match=says) as caught:
        OnnxModel(path).run_sync(x=ROW)
    assert "model.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(double: Path) -> None:
    double.write_bytes(double.read_bytes()[:-20])
    with pytest.raises(ModelRejected, match=r"is not a model|is refused"):
        OnnxModel(double).run_sync(x=ROW)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelRejected, match="not a file"):
        OnnxModel(tmp_path / "model.onnx").run_sync(x=ROW)


def test_a_path_with_nul_is_refused() -> None:
    with pytest.raises(ModelRejected, match="cannot be read"):
        OnnxModel("a\0b.onnx").run_sync(x=ROW)


def test_the_hash_is_held(double: Path) -> None:
    digest = hashlib.sha256(double.read_bytes()).hexdigest()
    OnnxModel(double, sha256=digest.upper()).run_sync(x=ROW)
    with pytest.raises(ModelRejected, match="sha256"):
        OnnxModel(double, sha256="0" * 64).run_sync(x=ROW)


def test_the_card_beside_the_file_is_asked(double: Path) -> None:
    card = double.parent / "specialist.toml"
    card.write_text(CARD_TEXT)
    OnnxModel(double).run_sync(x=ROW)  # a card that is not sealed yet
    digest = hashlib.sha256(double.read_bytes()).hexdigest()
    card.write_text(f'{CARD_TEXT}\n[files]\n"double.onnx" = "{digest}"\n')
    OnnxModel(double).run_sync(x=ROW)
    card.write_text(f'{CARD_TEXT}\n[files]\n"double.onnx" = "{"0" * 64}"\n')
    with pytest.raises(ModelRejected, match=r"its card names.*seal"):
        OnnxModel(double).run_sync(x=ROW)
    card.write_text(f'{CARD_TEXT}\n[files]\n"other.onnx" = "{digest}"\n')
    with pytest.raises(ModelRejected, match="its card names"):
        OnnxModel(double).run_sync(x=ROW)
    card.write_text("not a card")
    with pytest.raises(CardError):
        OnnxModel(double).run_sync(x=ROW)


async def test_a_missing_runtime_names_the_extras(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingRuntime, match=r"brain-specialists\[cpu\].*\[gpu\]"):
        await OnnxModel(double).run(x=ROW)
    with pytest.raises(MissingRuntime):
        OnnxModel(double).run_sync(x=ROW)


def test_a_provider_that_is_not_there_is_named(double: Path) -> None:
    with pytest.raises(MissingRuntime, match="NoSuchProvider"):
        OnnxModel(double, providers=("NoSuchProvider",)).run_sync(x=ROW)
    assert OnnxModel(double, providers=("CPUExecutionProvider",)).run_sync(x=ROW)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "'x' is missing"),
        ({"x": ROW, "z": ROW}, "'z' is missing or unknown"),
        ({"x": ROW[0]}, "must have shape"),
        ({"x": ROW[:, :2]}, "must have shape"),
        ({"x": [[1.0, 2.0], [3.0]]}, "is not an array"),
        ({"x": [["a", "b", "c"]]}, "must be float32"),
        ({"x": [[None, None, None]]}, "must be float32"),
        ({"x": ROW.astype(complex)}, "must be float32"),
    ],
)
async def test_21_inputs_that_do_not_fit_are_typed_errors(double: Path, inputs: dict, says: str) -> None:
    with pytest.raises(ModelFailed, match=says) as caught:
        await OnnxModel(double).run(**inputs)
    assert "double.onnx" in str(caught.value)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.INT32, TensorProto.UINT8, TensorProto.UINT32])
async def test_21_a_number_is_never_wrapped_into_a_smaller_type(takes: Callable[[int], Path], kind: int) -> None:
    model = OnnxModel(takes(kind))
    assert (await model.run(x=np.array([1, 2], _numpy(kind))))["y"].tolist() == [1.0, 2.0]
    with pytest.raises(ModelFailed, match=r"too large|must be"):
        await model.run(x=np.array([2**40], np.int64))
    with pytest.raises(ModelFailed, match="must be"):
        await model.run(x=np.array([1.5]))


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
async def test_21_nan_and_infinity_never_leave_a_model(logarithm: Path, value: float) -> None:
    with pytest.raises(ModelFailed, match="'y' is not finite"):
        await OnnxModel(logarithm).run(x=[value])


async def test_21_an_output_of_another_shape_than_declared_is_an_error(wrong_shape: Path) -> None:
    model = OnnxModel(wrong_shape)
    x = np.ones(6, np.float32)
    assert (await model.run(x=x, shape=[3, 2]))["y"].shape == (3, 2)
    with pytest.raises(ModelFailed, match="has shape"):
        await model.run(x=x, shape=[2, 3])
    with pytest.raises(ModelFailed, match="the run failed"):
        await model.run(x=x, shape=[4, 4])


async def test_a_cancelled_caller_stops_the_native_run(endless: Path) -> None:
    model = OnnxModel(endless)
    assert (await model.run(trips=np.int64(5), x=[0.0]))["y"].tolist() == [5.0]
    calls = [asyncio.ensure_future(model.run(trips=np.int64(2**40), x=[0.0])) for _ in range(usable_cores())]
    await asyncio.sleep(0.2)
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    # Every worker was busy: this only runs when they were really stopped.
    async with asyncio.timeout(30):
        assert (await model.run(trips=np.int64(1), x=[0.0]))["y"].tolist() == [1.0]


async def test_a_caller_cancelled_in_the_queue_never_runs(endless: Path) -> None:
    model = OnnxModel(endless)
    model.session  # noqa: B018 - opened before, so that only runs are in the queue
    calls = [asyncio.ensure_future(model.run(trips=np.int64(2**40), x=[0.0])) for _ in range(usable_cores() + 3)]
    await asyncio.sleep(0.1)
    for call in reversed(calls):
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(30):
        await model.run(trips=np.int64(1), x=[0.0])


async def test_no_thread_is_left_over(double: Path) -> None:
    model = OnnxModel(double)
    await asyncio.gather(*(model.run(x=ROW) for _ in range(50)))
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("specialists-onnx")]
    assert len(workers) <= usable_cores()


def test_loops_and_threads_share_one_session(double: Path) -> None:
    model = OnnxModel(double)

    def one(number: int) -> list[float]:
        x = np.full((1, 3), number, np.float32)

        async def many() -> list[float]:
            results = await asyncio.gather(*(model.run(x=x) for _ in range(5)))
            return [float(result["y"][0, 0]) for result in results]

        return asyncio.run(many()) if number % 2 else [float(model.run_sync(x=x)["y"][0, 0])]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(16)))
    assert all(set(result) == {2.0 * number} for number, result in enumerate(results))
    assert model.session is model.session


def test_a_model_can_be_pickled(double: Path) -> None:
    model = OnnxModel(double, sha256=hashlib.sha256(double.read_bytes()).hexdigest(), threads=2)
    model.run_sync(x=ROW)
    again = pickle.loads(pickle.dumps(model))
    assert again.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]


def test_threads_are_set(double: Path) -> None:
    assert OnnxModel(double, threads=2).session.get_session_options().intra_op_num_threads == 2
    try:
        set_threads(3)
        assert OnnxModel(double).session.get_session_options().intra_op_num_threads == 3
    finally:
        set_threads(1)
    with pytest.raises(ValueError, match="at least one"):
        set_threads(0)
    assert usable_cores() >= 1


async def test_the_cpu_time_of_a_run_is_counted(endless: Path) -> None:
    model = OnnxModel(endless)
    meter = CpuMeter()
    token = current_meter.set(meter)
    try:
        await model.run(trips=np.int64(20_000), x=[0.0])
    finally:
        current_meter.reset(token)
    assert 0 < meter.low == meter.high
    # With several threads nobody knows what the others did: the figure is an interval.
    meter = CpuMeter()
    token = current_meter.set(meter)
    try:
        await OnnxModel(endless, threads=2).run(trips=np.int64(20_000), x=[0.0])
    finally:
        current_meter.reset(token)
    assert 0 < meter.low < meter.high


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_opens_its_own_session(double: Path, threads: int) -> None:
    code = f"""
        import os, sys, threading
        import numpy as np
        from specialists import OnnxModel
        from specialists import onnx, sessions
        model = OnnxModel({str(double)!r}, threads={threads})
        row = np.ones((1, 3), np.float32)
        model.run_sync(x=row)
        import asyncio
        asyncio.run(model.run(x=row))
        inside, release = threading.Event(), threading.Event()
        def hold():
            with onnx._making, sessions._sharing, sessions._room:
                inside.set()
                release.wait()
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert model.run_sync(x=row)["y"].tolist() == [[2.0, 2.0, 2.0]]
                assert asyncio.run(model.run(x=row))["y"].tolist() == [[2.0, 2.0, 2.0]]
                code = 0
            finally:
                os._exit(code)  # ONNX Runtime's own destructors do not survive a fork
        status = os.waitpid(pid, 0)[1]
        release.set()
        assert model.run_sync(x=row)["y"].tolist() == [[2.0, 2.0, 2.0]]
        print(os.waitstatus_to_exitcode(status))
    """
    assert run_python(code) == "0"


def run_python(code: str) -> str:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{done.stderr} after {time.monotonic() - start:.1f} s"
    return done.stdout.strip()


def _numpy(kind: int) -> np.dtype:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(kind)
