"""Models in child processes: limits, deaths, lies, and that nothing of the parent is handed on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from specialists import (
    DeadlinePassed,
    ModelFailed,
    ModelRejected,
    Overloaded,
    Quarantined,
    UntrustedFolder,
    WorkerDied,
)
from specialists.isolation import IsolatedModel, keeper, process
from specialists.metering import CpuMeter, current_meter

from .children import Open, gone, may_take, running, serve_instead
from .conftest import FLOAT, INT, save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)
FOR_EVER = np.int64(2**40)


@pytest.fixture
def sized(tmp_path: Path) -> Path:
    """As many zeros as its input says: what it needs is known only when it runs."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["y"])]
    inputs, outputs = (
        [helper.make_tensor_value_info("shape", INT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, ["n"])],
    )
    return save(tmp_path / "sized.onnx", nodes, inputs, outputs)


def test_gives_what_the_model_gives_in_this_process(double: Path, opened: Open) -> None:
    model = opened(double)
    assert (model.starts, model.child_pid) == (0, None)  # nothing is started before it is needed
    assert model.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert asyncio.run(model.run(x=[[1, 2, 3]]))["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert model.run_sync(x=np.zeros((0, 3), np.float32))["y"].shape == (0, 3)
    assert model.starts == 1
    assert model.child_pid != os.getpid()


def test_loops_and_threads_share_one_child(double: Path, opened: Open) -> None:
    model = opened(double)

    def one(number: int) -> list[float]:
        x = np.full((1, 3), number, np.float32)

        async def many() -> list[float]:
            results = await asyncio.gather(*(model.run(x=x) for _ in range(5)))
            return [float(result["y"][0, 0]) for result in results]

        return asyncio.run(many()) if number % 2 else [float(model.run_sync(x=x)["y"][0, 0])]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(16)))
    assert all(set(result) == {2.0 * number} for number, result in enumerate(results))
    assert model.starts == 1


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT64]
)
def test_types_are_handed_on_and_back(tmp_path: Path, opened: Open, kind: int) -> None:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["z"])]
    inputs, outputs = [value("x", kind, ["n"]), value("s", kind, [])], [value("y", kind, ["n"]), value("z", kind, [])]
    model = opened(save(tmp_path / "identity.onnx", nodes, inputs, outputs))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    outputs = model.run_sync(x=np.array([1, 0, 1], dtype), s=np.array(1, dtype))
    assert outputs["y"].tolist() == [1, 0, 1]
    assert (outputs["y"].dtype, outputs["z"].dtype, outputs["z"].shape) == (dtype, dtype, ())


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "'x' is missing"),
        ({"x": ROW, "z": ROW}, "'z' is missing or unknown"),
        ({"x": ROW[0]}, "must have shape"),
        ({"x": [["a", "b", "c"]]}, "must be float32"),
    ],
)
def test_21_inputs_that_do_not_fit_are_told_as_elsewhere(double: Path, opened: Open, inputs: dict, says: str) -> None:
    with pytest.raises(ModelFailed, match=says):
        opened(double).run_sync(**inputs)


def test_21_nan_and_wrong_shapes_never_leave_a_child(logarithm: Path, wrong_shape: Path, opened: Open) -> None:
    with pytest.raises(ModelFailed, match="'y' is not finite"):
        opened(logarithm).run_sync(x=[-1.0])
    model = opened(wrong_shape)
    with pytest.raises(ModelFailed, match="has shape"):
        model.run_sync(x=np.ones(6, np.float32), shape=[2, 3])
    with pytest.raises(ModelFailed, match="the run failed"):
        model.run_sync(x=np.ones(6, np.float32), shape=[4, 4])
    assert model.run_sync(x=np.ones(6, np.float32), shape=[3, 2])["y"].shape == (3, 2)
    assert model.starts == 1  # a failed run is no death


def test_28_what_is_refused_is_refused_before_any_child_is_there(double: Path, opened: Open) -> None:
    digest = hashlib.sha256(double.read_bytes()).hexdigest()
    assert opened(double, sha256=digest).run_sync(x=ROW)
    for options, says in (({"sha256": "0" * 64}, "not the one asked for"),):
        model = opened(double, **options)
        with pytest.raises(ModelRejected, match=says):
            model.run_sync(x=ROW)
        assert model.starts == 0
    os.link(double, double.parent / "second")
    with pytest.raises(ModelRejected, match="second name"):
        opened(double).run_sync(x=ROW)
    evil = onnx.load(double)
    evil.graph.node[0].domain = "evil"
    (double.parent / "evil.onnx").write_bytes(evil.SerializeToString())
    model = opened(double.parent / "evil.onnx")
    with pytest.raises(ModelRejected, match="only ONNX's own operators"):
        model.run_sync(x=ROW)
    assert model.starts == 0


def test_a_model_that_the_runtime_refuses_is_told(tmp_path: Path, opened: Open) -> None:
    graph = onnx.helper.make_graph([helper.make_node("NoSuchOperator", [], ["y"])], "g", [], [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelRejected, match=r"model.onnx is not a model that ONNX Runtime can open: .*NoSuchOperator"):
        opened(tmp_path / "model.onnx").run_sync()


def test_a_model_of_texts_is_not_run(tmp_path: Path, opened: Open) -> None:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = save(
        tmp_path / "texts.onnx", nodes, [value("x", TensorProto.STRING, [1])], [value("y", TensorProto.STRING, [1])]
    )
    with pytest.raises(ModelRejected, match=r"'x' is of the type tensor\(string\), and only arrays of numbers"):
        opened(path).run_sync(x=["a"])


def test_23_a_runaway_model_is_ended_at_its_time(endless: Path, opened: Open) -> None:
    model = opened(endless, timeout=600.0)
    assert model.run_sync(trips=np.int64(5), x=[0.0])["y"].tolist() == [5.0]
    first = model.child_pid
    with may_take(model, 0.3), pytest.raises(DeadlinePassed, match=r"may take 0.3 s\); its child process was ended"):
        model.run_sync(trips=FOR_EVER, x=[0.0])
    assert gone(first)
    assert model.run_sync(trips=np.int64(6), x=[0.0])["y"].tolist() == [6.0]
    with may_take(model, 0.3), pytest.raises(DeadlinePassed):
        model.run_sync(trips=FOR_EVER, x=[0.0])
    for _ in range(3):
        with pytest.raises(Quarantined, match="2 child processes died of this input"):
            model.run_sync(trips=FOR_EVER, x=[0.0])
    assert model.run_sync(trips=np.int64(7), x=[0.0])["y"].tolist() == [7.0]
    assert model.starts == 3


def test_24_a_memory_bomb_hits_the_child_alone(sized: Path, opened: Open) -> None:
    model = opened(sized, memory_mb=128)
    assert model.run_sync(shape=[3])["y"].tolist() == [0.0, 0.0, 0.0]
    for size in (2**26, 2**36, 2**50):
        with pytest.raises((ModelFailed, Quarantined)):
            model.run_sync(shape=[size])
        assert model.run_sync(shape=[4])["y"].tolist() == [0.0] * 4


def test_25_a_child_that_is_killed_is_replaced_and_the_call_answered(endless: Path, opened: Open) -> None:
    model = opened(endless, timeout=60.0)
    model.run_sync(trips=np.int64(1), x=[0.0])
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(model.run_sync(trips=np.int64(400_000), x=[0.0])))
    thread.start()
    time.sleep(0.05)
    os.kill(model.child_pid or 0, signal.SIGKILL)
    thread.join()
    assert answers[0]["y"].tolist() == [400_000.0]
    assert model.starts == 2


def test_25_a_child_that_is_killed_while_it_rests_is_noticed_and_reaped(double: Path, opened: Open) -> None:
    model = opened(double)
    model.run_sync(x=ROW)
    first = model.child_pid or 0
    os.kill(first, signal.SIGKILL)
    for _ in range(1000):
        if gone(first):
            break
        time.sleep(0.01)
    assert gone(first)  # not even as a zombie
    assert model.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert model.starts == 2


CRASHES = {
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGABRT": "os.abort()",
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "ended with 3": "os._exit(3)",
}


@pytest.mark.parametrize("how", CRASHES)
def test_25_an_input_that_two_children_died_of_is_not_tried_again(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    serve_instead(
        monkeypatch,
        f"""
        honest = child._serve
        class Poisoned:
            def __init__(self, session):
                self.get_inputs, self.get_outputs, self.session = session.get_inputs, session.get_outputs, session
            def run(self, names, feeds):
                if feeds["x"][0, 0] == 13:
                    {CRASHES[how]}
                return self.session.run(names, feeds)
        def serve(session, sink, waiting):
            honest(Poisoned(session), sink, waiting)
        """,
    )
    model = opened(double)
    assert model.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
    poison = np.full((1, 3), 13, np.float32)
    with pytest.raises(WorkerDied, match=f"{how}.*it is the second, so this input is not tried again"):
        model.run_sync(x=poison)
    assert model.starts == 2  # it was tried twice
    for _ in range(3):
        with pytest.raises(Quarantined):
            model.run_sync(x=poison)
    assert model.run_sync(x=ROW)["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert model.starts == 3


def test_25_a_child_that_never_reads_or_answers_is_ended_at_its_time(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_instead(monkeypatch, "def serve(session, sink, waiting):\n    time.sleep(600)")
    model = opened(double, timeout=0.3)
    with pytest.raises(DeadlinePassed):
        model.run_sync(x=ROW)
    monkeypatch.setattr(keeper, "OPENING_SECONDS", 0.3)
    monkeypatch.setattr(process, "_BOOT", "import time; time.sleep(600)  # {package}")
    with pytest.raises(DeadlinePassed, match="not open in time"):
        opened(double).run_sync(x=np.zeros((100_000, 3), np.float32))


def test_25_deaths_at_the_start_are_told_and_slowed_down(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_BOOT", "raise SystemExit(7)  # {package}")
    model = opened(double)
    for _ in range(2):
        with pytest.raises(WorkerDied, match="ended with 7 while it opened the model"):
            model.run_sync(x=ROW)
    assert model.starts == 2
    at = 100.0
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: at))
    kept = keeper.Keeper("name", lambda: b"", keeper.Limits(1, 1.0, 1))
    pauses = []
    for _ in range(12):
        kept._pause()
        pauses.append(round(kept._not_before - at, 3))
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [30.0, 30.0]


async def test_a_caller_with_no_time_is_told_at_once_that_a_child_is_about_to_start(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specialists.loops import current_deadline

    monkeypatch.setattr(keeper, "FIRST_PAUSE", 30.0)
    monkeypatch.setattr(process, "_BOOT", "raise SystemExit(7)  # {package}")
    model = opened(double)
    with pytest.raises(WorkerDied):
        await model.run(x=ROW)
    current_deadline.set(time.monotonic() + 5.0)
    with pytest.raises(WorkerDied, match="is started again in"):
        await model.run(x=ROW)
    assert model.starts == 1


async def test_a_cancelled_caller_ends_the_run_and_blames_nobody(endless: Path, opened: Open) -> None:
    model = opened(endless, timeout=600.0)
    await model.run(trips=np.int64(1), x=[0.0])
    for _ in range(3):
        task = asyncio.create_task(model.run(trips=FOR_EVER, x=[0.0]))
        await running(model)
        first = model.child_pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await model.run(trips=np.int64(3), x=[0.0]))["y"].tolist() == [3.0]
        assert first != model.child_pid
        assert gone(first)


async def test_too_many_calls_are_refused_and_cancelled_ones_make_room(endless: Path, opened: Open) -> None:
    model = opened(endless, timeout=600.0, queue_limit=2)
    await model.run(trips=np.int64(1), x=[0.0])
    tasks = [asyncio.create_task(model.run(trips=FOR_EVER, x=[0.0])) for _ in range(1)]
    await running(model)  # and does not wait
    tasks += [asyncio.create_task(model.run(trips=np.int64(number), x=[0.0])) for number in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls wait already") as caught:
        await model.run(trips=np.int64(4), x=[0.0])
    assert caught.value.wait is not None
    tasks[1].cancel()
    await asyncio.sleep(0)
    later = asyncio.create_task(model.run(trips=np.int64(5), x=[0.0]))
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await tasks[2])["y"].tolist() == [3.0]
    assert (await later)["y"].tolist() == [5.0]


async def test_what_waits_fails_when_it_is_closed_and_it_can_be_opened_anew(endless: Path, opened: Open) -> None:
    model = opened(endless, timeout=600.0)
    running = asyncio.create_task(model.run(trips=FOR_EVER, x=[0.0]))
    waiting = asyncio.create_task(model.run(trips=FOR_EVER, x=[0.0]))
    await asyncio.sleep(0.05)
    await model.aclose()
    for task in (running, waiting):
        with pytest.raises(ModelFailed, match="closed"):
            await task
    assert (await model.run(trips=np.int64(2), x=[0.0]))["y"].tolist() == [2.0]


async def test_the_cpu_time_of_a_child_is_counted_by_the_kernel(endless: Path, opened: Open) -> None:
    model = opened(endless)
    await model.run(trips=np.int64(1), x=[0.0])  # unmetered, and not charged to the next
    spent = []
    for trips in (1, 300_000):
        meter = CpuMeter()
        token = current_meter.set(meter)
        try:
            await model.run(trips=np.int64(trips), x=[0.0])
        finally:
            current_meter.reset(token)
        assert 0 < meter.low == meter.high
        spent.append(meter.low)
    assert spent[0] < spent[1]


def test_nothing_of_the_parent_is_handed_on(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "numpy.py").write_text("raise SystemExit(1)")
    secret = tmp_path / "secret"
    secret.write_text("canary")
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        model = opened(double)
        model.run_sync(x=ROW)
        place = Path(f"/proc/{model.child_pid}")
        environment = place.joinpath("environ").read_bytes()
        assert b"canary" not in environment
        assert {line.split(b"=")[0] for line in environment.split(b"\0") if line} <= {
            b"LD_LIBRARY_PATH", b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS", b"ORT_DISABLE_TELEMETRY",
        }  # fmt: skip
        assert b"canary" not in place.joinpath("cmdline").read_bytes()
        opens = {os.readlink(entry).split(":")[0] for entry in place.joinpath("fd").iterdir()}
        assert str(secret) not in opens
        assert opens == {"pipe", "/dev/null"}
        assert os.readlink(place / "cwd") == "/"
        limits = {
            line[:25].strip(): line[26:].split()[:2] for line in place.joinpath("limits").read_text().splitlines()
        }
        assert limits["Max file size"] == ["0", "0"]
        assert limits["Max core file size"] == ["0", "0"]
        assert int(limits["Max address space"][0]) < 3 * 2**30
        assert limits["Max cpu time"][0] != "unlimited"
        status = place.joinpath("status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert f"CapEff:\t{0:016x}" in status


def test_a_child_has_no_network_where_the_kernel_lets_it_leave(double: Path, opened: Open) -> None:
    model = opened(double)
    model.run_sync(x=ROW)
    if os.readlink(f"/proc/{model.child_pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pytest.skip("this kernel does not let it")
    devices = Path(f"/proc/{model.child_pid}/net/dev").read_text()
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_where_memory_cannot_be_limited_it_is_refused(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    model = opened(double)
    with pytest.raises(UntrustedFolder, match=f"{platform} does not enforce such a limit.*trust=True"):
        model.run_sync(x=ROW)
    assert model.starts == 0


def test_where_the_limit_does_not_hold_it_is_refused(
    double: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_instead(monkeypatch, "child._limit_memory = lambda memory: False\nserve = child._serve")
    with pytest.raises(UntrustedFolder, match="whose memory this system does not limit"):
        opened(double).run_sync(x=ROW)


def test_can_be_pickled_and_shown(double: Path, opened: Open) -> None:
    model = opened(double, timeout=3.0, memory_mb=99)
    again = pickle.loads(pickle.dumps(model))
    assert (again.path, again._limits) == (double, model._limits)
    assert repr(model) == f"IsolatedModel({str(double)!r})"
    for options in ({"timeout": 0}, {"memory_mb": 0}, {"queue_limit": 0}, {"timeout": float("nan")}):
        with pytest.raises(ValueError, match="positive"):
            IsolatedModel(double, **options)


def test_nothing_is_left_when_it_is_closed_or_forgotten(double: Path) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    model = IsolatedModel(double)
    model.run_sync(x=ROW)
    pid = model.child_pid
    model.close()
    assert gone(pid)
    model.run_sync(x=ROW)
    pid = model.child_pid
    del model
    for _ in range(1000):
        if gone(pid) and threading.active_count() == threads and len(os.listdir("/proc/self/fd")) == descriptors:
            break
        time.sleep(0.01)
    assert gone(pid)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    "how",
    ["pass", "raise SystemExit(0)", "os.kill(os.getpid(), 9)", "os._exit(0)"],
    ids=["end", "exit", "kill", "_exit"],
)
def test_44_no_child_outlives_its_parent(endless: Path, how: str) -> None:
    """Also not when it computes, and the parent had no time to say anything."""
    code = f"""
        import os, threading, time
        import numpy as np
        from specialists.isolation import IsolatedModel
        model = IsolatedModel({str(endless)!r}, timeout=600.0)
        model.run_sync(trips=np.int64(1), x=[0.0])
        def run():
            try:
                model.run_sync(trips=np.int64(2**40), x=[0.0])
            except Exception:
                pass
        threading.Thread(target=run, daemon=True).start()
        time.sleep(0.1)
        print(model.child_pid, flush=True)
        {how}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    pid = int(done.stdout)
    for _ in range(1000):
        if gone(pid):
            break
        time.sleep(0.01)
    assert gone(pid)


def test_44_a_forked_child_opens_its_own(double: Path) -> None:
    code = f"""
        import os
        import numpy as np
        from specialists.isolation import IsolatedModel
        model = IsolatedModel({str(double)!r})
        row = np.ones((1, 3), np.float32)
        model.run_sync(x=row)
        first = model.child_pid
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert model.run_sync(x=row)["y"].tolist() == [[2.0, 2.0, 2.0]]
                assert model.child_pid != first
                model.close()
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        assert model.run_sync(x=row)["y"].tolist() == [[2.0, 2.0, 2.0]]
        assert (model.child_pid, model.starts) == (first, 1)
        print(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")
