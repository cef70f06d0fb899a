"""Promises of models in process under faults; the number in a test's name is its row in the table of promises."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialists import Answer, DeadlinePassed, ModelFailed, OnnxModel, Specialist, specialist
from specialists.breaker import Breaker
from specialists.errors import InvalidAnswer
from specialists.workers import usable_cores

from ..specialists import graphs
from ..specialists.batchers import GUARD, until

FOREVER = 2**40
"""Turns of a loop that nobody lives to see the end of."""


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def with_breaker(one: Specialist[..., Any], threshold: int = 3, rest: float = 10.0) -> Clock:
    clock = Clock()
    one.breaker = Breaker(threshold=threshold, rest=rest, clock=clock)
    return clock


@specialist(min_confidence=0.5)
async def stand_in(x: float) -> Answer[float]:
    """Answers when the other does not."""
    return Answer(-1.0, confidence=1.0)


def outcomes_of(outcome: Any) -> list[str]:
    return [attempt.outcome for attempt in outcome.attempts]


@pytest.fixture
def looping(tmp_path: Path) -> OnnxModel:
    """A model whose ``turns`` say how long it takes."""
    model = OnnxModel(graphs.counting(tmp_path / "looping.onnx"))
    model.run_sync(turns=[[1]], x=[[0.0]])
    return model


# 21: an exception of the runtime, numbers that are none, another shape or type than declared.

Faulty = Callable[[Path], tuple[Path, dict[str, Any], str]]


def raises(path: Path) -> tuple[Path, dict[str, Any], str]:
    return graphs.table(path), {"ids": [[99]]}, "the run failed"


def not_a_number(path: Path) -> tuple[Path, dict[str, Any], str]:
    return graphs.logarithms(path), {"x": [[1.0, -1.0, 1.0]]}, "'y' is not finite"


def infinite(path: Path) -> tuple[Path, dict[str, Any], str]:
    return graphs.logarithms(path), {"x": [[1.0, 0.0, 1.0]]}, "'y' is not finite"


def other_shape(path: Path) -> tuple[Path, dict[str, Any], str]:
    node = graphs.helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = {"x": (graphs.FLOAT, ("n",)), "shape": (graphs.INT, (2,))}
    made = graphs.graph(path, [node], inputs, {"y": (graphs.FLOAT, ("rows", 2))})
    return made, {"x": np.ones(6, np.float32), "shape": [2, 3]}, "has shape"


def wrong_input_shape(path: Path) -> tuple[Path, dict[str, Any], str]:
    return graphs.logarithms(path), {"x": [[1.0, 2.0]]}, "must have shape"


def wrong_input_type(path: Path) -> tuple[Path, dict[str, Any], str]:
    return graphs.table(path), {"ids": [[1.5]]}, "must be int64"


FAULTY = [raises, not_a_number, infinite, other_shape, wrong_input_shape, wrong_input_type]


@pytest.mark.parametrize("make", FAULTY)
async def test_fault_21_a_faulty_model_is_a_typed_error_and_the_ladder_goes_on(tmp_path: Path, make: Faulty) -> None:
    path, feeds, says = make(tmp_path / "faulty.onnx")
    model = OnnxModel(path)

    @specialist(next=stand_in, min_confidence=0.5)
    async def faulty(x: float) -> Answer[float]:
        """Asks a faulty model."""
        found = await model.run(**feeds)
        return Answer(float(next(iter(found.values())).ravel()[0]), confidence=1.0)

    with pytest.raises(ModelFailed, match=says) as caught:
        await faulty(1.0)
    assert "faulty.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelFailed, match=says):
        model.run_sync(**feeds)
    outcome = await faulty.solve(1.0)
    assert outcomes_of(outcome) == ["error", "answered"]
    assert says in (outcome.attempts[0].reason or "")
    assert (outcome.value, outcome.answered_by) == (-1.0, "next:stand_in")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
async def test_fault_21_a_function_that_makes_a_nan_itself_has_no_answer(value: float) -> None:
    @specialist(next=stand_in, min_confidence=0.5)
    async def wrong(x: float) -> Answer[float]:
        """Divides by nothing."""
        return Answer(value, confidence=1.0)

    @specialist(next=stand_in, min_confidence=0.5)
    async def unsure(x: float) -> Answer[float]:
        """Does not know how sure it is."""
        return Answer(1.0, confidence=value)

    for each in (wrong, unsure):
        outcome = await each.solve(1.0)
        assert outcomes_of(outcome) == ["invalid", "answered"]
        assert outcome.value == -1.0
    assert issubclass(InvalidAnswer, Exception)


@pytest.mark.parametrize("make", FAULTY)
async def test_fault_21_the_breaker_opens_passes_by_and_closes_after_its_rest(tmp_path: Path, make: Faulty) -> None:
    path, feeds, _ = make(tmp_path / "faulty.onnx")
    model = OnnxModel(path)
    asked: list[float] = []
    broken = True

    @specialist(next=stand_in, min_confidence=0.5)
    async def faulty(x: float) -> Answer[float]:
        """Asks a model that is faulty for a time."""
        asked.append(x)
        if broken:
            await model.run(**feeds)
        return Answer(x, confidence=1.0)

    clock = with_breaker(faulty, threshold=3, rest=10.0)
    for number in range(3):
        assert outcomes_of(await faulty.solve(float(number))) == ["error", "answered"]
    assert faulty.breaker.state == "open"
    for _ in range(5):
        outcome = await faulty.solve(9.0)
        assert outcomes_of(outcome) == ["refused", "answered"]
        assert "rest" in (outcome.attempts[0].reason or "")
        assert outcome.attempts[0].source == "faulty"
    assert len(asked) == 3  # it was left in peace
    clock.now += 11
    assert faulty.breaker.state == "half-open"
    assert outcomes_of(await faulty.solve(9.0)) == ["error", "answered"]  # one try, and it is no better
    assert outcomes_of(await faulty.solve(9.0)) == ["refused", "answered"]
    assert len(asked) == 4
    clock.now += 11
    broken = False
    outcome = await faulty.solve(5.0)
    assert (outcome.value, outcome.answered_by) == (5.0, "specialist")
    assert faulty.breaker.state == "closed"
    assert outcomes_of(await faulty.solve(6.0)) == ["answered"]


async def test_fault_21_an_evaluation_gives_no_rest(tmp_path: Path) -> None:
    asked: list[float] = []

    @specialist
    async def broken(x: float) -> float:
        """Never works."""
        asked.append(x)
        raise ModelFailed("never")

    with_breaker(broken, threshold=2)
    for _ in range(6):
        await broken.climb({"x": 1.0}, resting=False)
    assert len(asked) == 6
    assert broken.breaker.state == "closed"


async def test_fault_21_in_a_batch_only_the_bad_item_fails_and_is_named(tmp_path: Path) -> None:
    model = OnnxModel(graphs.logarithms(tmp_path / "logarithms.onnx"))
    await asyncio.wrap_future(model.warm_up(x=[[1.0, 2.0, 3.0]]))
    items = [{"x": np.full((1, 3), -1.0 if number in (4, 9) else number + 1.0, np.float32)} for number in range(20)]
    found = await model.run_many(items)
    assert model.statistics.largest > 1
    for number, answer in enumerate(found):
        if number in (4, 9):
            assert str(answer) == f"item {number}: logarithms.onnx: its output 'y' is not finite"
        else:
            assert isinstance(answer, dict)
            np.testing.assert_allclose(answer["y"], np.log(items[number]["x"]), rtol=1e-5)


# 22: ten times slower, or slower still.


@pytest.mark.parametrize("sync", [False, True])
async def test_fault_22_a_slow_model_is_stopped_at_the_deadline_and_given_a_rest(
    looping: OnnxModel, sync: bool
) -> None:
    started: list[int] = []

    async def slowly(x: float) -> Answer[float]:
        """Takes as many turns as it is asked."""
        started.append(1)
        return Answer(float((await looping.run(turns=[[int(x)]], x=[[x]]))["y"][0, 0]), confidence=1.0)

    def slowly_in_a_thread(x: float) -> Answer[float]:
        """Takes as many turns as it is asked."""
        started.append(1)
        return Answer(float(looping.run_sync(turns=[[int(x)]], x=[[x]])["y"][0, 0]), confidence=1.0)

    slow = specialist(next=stand_in, min_confidence=0.5, timeout=0.1)(slowly_in_a_thread if sync else slowly)
    slow.timeout = GUARD  # the first calls are quick, however busy the machine
    assert (await slow.solve(10.0)).value == 10.0
    slow.timeout = 0.1
    clock = with_breaker(slow, threshold=2)
    for _ in range(2):
        outcome = await slow.solve(float(FOREVER))
        assert outcomes_of(outcome) == ["timeout", "answered"]
        assert outcome.value == -1.0
    assert outcomes_of(await slow.solve(10.0)) == ["refused", "answered"]
    assert len(started) == 3
    clock.now += 11
    slow.timeout = GUARD
    assert (await slow.solve(10.0)).value == 10.0
    assert slow.breaker.state == "closed"
    assert await looping.aclose(GUARD)  # which waits for every run: they were stopped


async def test_fault_22_a_deadline_of_the_callers_own_says_nothing_of_the_specialist(looping: OnnxModel) -> None:
    @specialist(timeout=GUARD)
    async def slow(x: float) -> float:
        """Takes for ever."""
        return float((await looping.run(turns=[[FOREVER]], x=[[x]]))["y"][0, 0])

    with_breaker(slow, threshold=1)
    for _ in range(3):
        outcome = await slow.climb({"x": 1.0}, deadline=asyncio.get_running_loop().time() + 0.05)
        assert outcomes_of(outcome) == ["timeout"]
    assert slow.breaker.state == "closed"
    assert await looping.aclose(GUARD)


async def test_fault_22_a_slow_answer_is_asked_for_twice_and_only_then(looping: OnnxModel) -> None:
    turns = iter([FOREVER, 3])

    @specialist(hedge=0.05, timeout=GUARD)
    async def hedged(x: float) -> float:
        """Slow the first time, quick the second."""
        return float((await looping.run(turns=[[next(turns)]], x=[[x]]))["y"][0, 0])

    assert (await hedged.solve(7.0)).value == 7.0
    assert next(turns, None) is None  # both were asked
    hedged.hedge = GUARD
    turns = iter([3, 4])
    assert (await hedged.solve(8.0)).value == 8.0
    assert list(turns) == [4]  # the second was not
    assert await looping.aclose(GUARD)  # the one that lost was stopped


@pytest.mark.parametrize("first", ["answers", "fails"])
@pytest.mark.parametrize("attempt", range(10))
async def test_fault_22_of_two_that_end_together_the_one_with_an_answer_counts(first: str, attempt: int) -> None:
    asked: list[int] = []
    both = asyncio.Event()

    @specialist(hedge=0.001)
    async def hedged(x: float) -> float:
        """One of two fails."""
        number = len(asked)
        asked.append(number)
        if number == 1:
            both.set()
        await both.wait()
        if (number == 0) == (first == "fails"):
            raise ModelFailed("this one does not")
        return x

    outcome = await hedged.solve(1.0)
    assert outcome.attempts[0].outcome == "answered", outcome.attempts[0].reason
    assert len(asked) == 2


async def test_fault_22_when_both_fail_the_attempt_does(looping: OnnxModel) -> None:
    asked: list[int] = []

    @specialist(hedge=0.001)
    async def hedged(x: float) -> float:
        """Fails slowly."""
        asked.append(1)
        await asyncio.sleep(0.01)
        raise ModelFailed("neither does")

    outcome = await hedged.solve(1.0)
    assert outcomes_of(outcome) == ["error"]
    assert len(asked) == 2


async def test_fault_22_others_get_their_runs_while_slow_ones_hold_all_long_workers(
    looping: OnnxModel, tmp_path: Path
) -> None:
    quick = OnnxModel(graphs.scaled(tmp_path / "quick.onnx", 2))
    await quick.run(x=[[1.0]])
    turns = 100_000
    while not looping._current().batcher._long:  # it finds out by itself that its runs are long
        await looping.run(turns=[[turns]], x=[[0.0]])
        turns = min(2 * turns, 2_000_000)
    slow = [asyncio.create_task(looping.run(turns=[[FOREVER]], x=[[0.0]])) for _ in range(3 * usable_cores())]
    await until(lambda: looping._current().batcher._running == usable_cores())
    for number in range(50):
        found = await quick.run(x=[[float(number)]])
        assert found["y"].tolist() == [[2.0 * number]]
    found = await asyncio.gather(*(quick.run(x=[[float(number)]]) for number in range(50)))
    assert [each["y"][0, 0] for each in found] == [2.0 * number for number in range(50)]
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    assert await looping.aclose(GUARD)


# 23: a loop that never ends.


@pytest.mark.parametrize("sync", [False, True])
async def test_fault_23_a_runaway_loop_ends_at_the_deadline(
    looping: OnnxModel, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(x: float) -> float:
        """Never ends."""
        return float((await looping.run(turns=[[FOREVER]], x=[[x]]))["y"][0, 0])

    def run_in_a_thread(x: float) -> float:
        """Never ends."""
        return float(looping.run_sync(turns=[[FOREVER]], x=[[x]])["y"][0, 0])

    runaway = specialist(next=stand_in, timeout=0.05)(run_in_a_thread if sync else run)
    with caplog.at_level(logging.WARNING, "specialists"):
        many = 2 * usable_cores() + 1
        with_breaker(runaway, threshold=100)
        found = await asyncio.gather(*(runaway.solve(1.0) for _ in range(many)))
        assert {outcome.attempts[0].outcome for outcome in found} == {"timeout"}
        assert {outcome.value for outcome in found} == {-1.0}
        # All workers are free again, and nothing runs on.
        assert (await looping.run(turns=[[3]], x=[[4.0]]))["y"].tolist() == [[4.0]]
        assert await looping.aclose(GUARD)
    assert not caplog.records


def test_fault_23_a_runaway_loop_ends_for_callers_without_a_loop(looping: OnnxModel) -> None:
    @specialist(timeout=0.05)
    def runaway(x: float) -> float:
        """Never ends."""
        return float(looping.run_sync(turns=[[FOREVER]], x=[[x]])["y"][0, 0])

    assert outcomes_of(runaway.solve_sync(1.0)) == ["timeout"]
    assert looping.close(GUARD)


async def test_fault_23_a_runaway_loop_ends_in_a_bulk_call(looping: OnnxModel) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await looping.run_many([{"turns": [[FOREVER if number == 3 else 1]], "x": [[0.0]]} for number in range(8)])
    assert await looping.aclose(GUARD)


async def test_fault_23_a_runaway_in_a_batch_is_stopped_when_its_last_caller_leaves(tmp_path: Path) -> None:
    model = OnnxModel(graphs.counting(tmp_path / "told.onnx"), batch=True)
    await asyncio.wrap_future(model.warm_up(turns=[[3]], x=[[1.0]]))
    assert model.sizes.joined
    width = usable_cores()
    tasks = [asyncio.create_task(model.run(turns=[[FOREVER]], x=[[float(number)]])) for number in range(4 * width)]
    await until(lambda: model._current().batcher._running == width)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (await model.run(turns=[[3]], x=[[5.0]]))["y"].tolist() == [[5.0]]
    assert await model.aclose(GUARD)
    assert model.statistics.cancelled == 4 * width


async def test_fault_23_a_runaway_beside_a_bad_item_is_stopped_and_the_others_are_answered(tmp_path: Path) -> None:
    """A batch that failed goes on one by one; the one that never ends is then nobody's but its caller's."""
    path = graphs.counting(tmp_path / "told.onnx")
    model = OnnxModel(path, batch=True)
    await asyncio.wrap_future(model.warm_up(turns=[[3]], x=[[1.0]]))
    service = model._current()
    real, joined = service._run_joined, []

    def fails(session: Any, batch: Any) -> None:
        joined.append(len(batch.calls))
        for call in batch.calls:
            call.error = ModelFailed("together they fail")

    service._run_joined = fails  # type: ignore[method-assign]
    service.batcher._width = 1
    calls = [model.run(turns=[[FOREVER if number == 1 else 2]], x=[[float(number)]]) for number in range(4)]
    tasks = [asyncio.create_task(call) for call in calls]
    await until(lambda: service.batcher._running and service.batcher.waiting == 0)
    await asyncio.sleep(0.05)
    tasks[1].cancel()
    async with asyncio.timeout(GUARD):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert joined == [4]
    assert isinstance(found[1], asyncio.CancelledError)
    assert [each["y"][0, 0] for each in found if isinstance(each, dict)] == [0.0, 2.0, 3.0]
    service._run_joined = real  # type: ignore[method-assign]
    assert await model.aclose(GUARD)


async def test_fault_23_what_waits_behind_a_runaway_is_told_when_its_time_is_over(looping: OnnxModel) -> None:
    busy = [asyncio.create_task(looping.run(turns=[[FOREVER]], x=[[0.0]])) for _ in range(usable_cores())]
    await until(lambda: looping._current().batcher._running == usable_cores())

    @specialist(timeout=0.05, next=stand_in)
    async def waits(x: float) -> float:
        """Waits for its turn."""
        return float((await looping.run(turns=[[1]], x=[[x]]))["y"][0, 0])

    runs = looping.statistics.runs
    outcome = await waits.solve(1.0)
    assert outcomes_of(outcome)[0] == "timeout"
    assert outcome.value == -1.0
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    assert await looping.aclose(GUARD)
    assert looping.statistics.runs == runs + usable_cores()  # the one that waited was never run
    assert issubclass(DeadlinePassed, Exception)


# 44: fork, spawn, threads, loops in threads, the interpreter's end.

BEGIN = """
import asyncio, os, sys, threading, time, multiprocessing
import numpy as np
from specialists import OnnxModel, SpecialistError, specialist

model = OnnxModel(PATH)
ROW = dict(turns=[[3]], x=[[5.0]])
FOREVER = dict(turns=[[2**40]], x=[[5.0]])


def sync():
    assert model.run_sync(**ROW)["y"].tolist() == [[5.0]]


async def several():
    found = await asyncio.gather(*(model.run(**ROW) for _ in range(8)))
    assert [each["y"].tolist() for each in found] == [[[5.0]]] * 8
    assert all(isinstance(each, dict) for each in await model.run_many([ROW] * 8))


def both():
    sync()
    asyncio.run(several())


def busy(count):
    for _ in range(count):
        threading.Thread(target=forever, daemon=True).start()
    while not model._current().batcher._running:
        time.sleep(0.001)


def forever():
    try:
        model.run_sync(**FOREVER)
    except SpecialistError:
        pass  # stopped at the end


def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

MATRIX = {
    "fork before anything was opened": "forked(both)\nboth()",
    "fork after a session was opened, twice deep": "both()\nforked(lambda: (both(), forked(both)))\nboth()",
    "fork with runs in flight": "both()\nbusy(4)\nforked(both)\nos._exit(0)",
    "fork while threads call": """
        both()
        stop = threading.Event()
        def call():
            while not stop.is_set():
                both()
        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            forked(both)
        stop.set()
        for thread in threads:
            thread.join()
    """,
    "multiprocessing by fork": """
        both()
        child = multiprocessing.get_context("fork").Process(target=both)
        child.start()
        child.join(40)
        assert child.exitcode == 0, child.exitcode
    """,
    "a pool of processes by fork": """
        both()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.starmap(both, [()] * 4)
    """,
    "threads, loops in threads and threads of a loop": """
        threads = [threading.Thread(target=both) for _ in range(8)]
        threads += [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(4)]
        for thread in threads:
            thread.start()
        asyncio.run(several())
        async def main():
            await asyncio.gather(several(), asyncio.to_thread(sync), asyncio.to_thread(both))
        asyncio.run(main())
        for thread in threads:
            thread.join()
        assert model.statistics.calls == 8 * 17 + 5 * 16 + 16 + 1 + 17, model.statistics
    """,
    "the end with runs in flight in threads": "both()\nbusy(4)",
    "the end with runs in flight in a loop": """
        async def main():
            tasks = [asyncio.ensure_future(model.run(**FOREVER)) for _ in range(6)]
            await asyncio.sleep(0.1)
        asyncio.run(main())
    """,
    "the end with a loop that was stopped": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(several())
        task = loop.create_task(model.run(**FOREVER))
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
    """,
    "the end with a specialist in the background loop": """
        @specialist(timeout=0.05)
        def runaway(x: float) -> float:
            "Never ends."
            return float(model.run_sync(**FOREVER)["y"][0, 0])
        assert runaway.solve_sync(1.0).attempts[0].outcome == "timeout"
    """,
    "the end while a model is being warmed": "model.warm_up(**ROW)",
    "exit in the middle": "both()\nbusy(4)\nsys.exit(0)",
}

LOUD = {
    "an exception with runs in flight": ("both()\nbusy(4)\nraise ValueError('said aloud')", "said aloud"),
    "a closed model": ("both()\nassert model.close(30)\nsync()", "was closed"),
}


def run_python(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    path = graphs.counting(tmp_path / "model.onnx")
    code = BEGIN.replace("PATH", repr(str(path))) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("case", MATRIX)
def test_fault_44_it_works_and_ends(tmp_path: Path, case: str) -> None:
    if "fork" in case and not hasattr(__import__("os"), "fork"):
        pytest.skip("no fork on this system")
    done = run_python(tmp_path, MATRIX[case])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("case", LOUD)
def test_fault_44_or_it_fails_aloud(tmp_path: Path, case: str) -> None:
    body, says = LOUD[case]
    done = run_python(tmp_path, body)
    assert done.returncode == 1
    assert says in done.stderr


def test_fault_44_a_spawned_child_opens_its_own(tmp_path: Path) -> None:
    path = graphs.counting(tmp_path / "model.onnx")
    script = tmp_path / "spawns.py"
    script.write_text(
        BEGIN.replace("PATH", repr(str(path)))
        + textwrap.dedent("""
        def answer(model, queue):
            queue.put(float(model.run_sync(**ROW)["y"][0, 0]))
            queue.close()
            queue.join_thread()

        if __name__ == "__main__":
            both()
            for method in ("spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                queue = context.Queue()
                child = context.Process(target=answer, args=(model, queue))
                child.start()
                assert queue.get(timeout=40) == 5.0
                child.join(40)
                assert child.exitcode == 0, (method, child.exitcode)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
