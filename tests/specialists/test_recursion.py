"""Recursive models step together: who steps with whom, who leaves when, who pays. Counts alone, no times."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from specialists import (
    DeadlinePassed,
    ModelFailed,
    OnnxModel,
    OnnxStep,
    Overloaded,
    StepResult,
    StepScheduler,
)
from specialists.metering import CpuMeter, current_meter
from specialists.recursion import rows as step_rows

from .conftest import FLOAT, INT, save

BAD, NAN = 900.0, 901.0
"""Items with these names fail a step, or get numbers that are not finite."""


class Countdown:
    """An item is ``(name, steps)``, or several of them that belong together; it halts when ``steps`` were done.

    ``batches`` are the names in each step. While ``gate`` is shut a step does not end.
    """

    def __init__(self, sleep: float = 0.0) -> None:
        self.batches: list[list[float]] = []
        self.started = 0
        self.sleep = sleep
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Semaphore(0)
        self._lock = threading.Lock()

    def start(self, item: Any) -> dict[str, Any]:
        with self._lock:
            self.started += 1
        rows = np.array(item if isinstance(item, list) else [item], float)
        return {"name": rows[:, 0], "left": rows[:, 1]}

    def step(self, state: Any) -> dict[str, Any]:
        names = state["name"].tolist()
        with self._lock:
            self.batches.append(names)
        self.inside.release()
        assert self.gate.wait(30)
        time.sleep(self.sleep)
        if BAD in names:
            raise ValueError("this row is bad")
        return {"left": np.where(state["name"] == NAN, np.nan, state["left"] - 1), "score": state["left"]}

    def halted(self, rows: Any) -> Any:
        return rows["left"] <= 0

    def answer(self, rows: Any) -> Any:
        return rows["name"].tolist(), rows["left"].tolist()

    def steps_of(self, name: float) -> int:
        return sum(name in batch for batch in self.batches)


async def entered(model: Countdown, times: int = 1) -> None:
    """Wait until a step is under way."""
    for _ in range(times):
        assert await asyncio.to_thread(model.inside.acquire, timeout=30)


async def all_at_once(
    scheduler: StepScheduler, model: Countdown, items: list[Any], **settings: Any
) -> list[StepResult]:
    """Run the items with the first held in its first step until all others wait."""
    model.gate.clear()
    tasks = [asyncio.create_task(scheduler.run(items[0], **settings))]
    await entered(model)
    tasks += [asyncio.create_task(scheduler.run(item, **settings)) for item in items[1:]]
    await asyncio.sleep(0)
    model.gate.set()
    return await asyncio.gather(*tasks)


async def test_each_item_takes_its_own_steps_and_none_after_it_halted() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=4)
    steps = [1 + (7 * item) % 13 for item in range(60)]
    results = await asyncio.gather(*[scheduler.run((item, count)) for item, count in enumerate(steps)])
    assert [result.steps for result in results] == steps
    assert [result.value for result in results] == [([item], [0]) for item in range(60)]
    assert all(result.halted for result in results)
    assert [model.steps_of(item) for item in range(60)] == steps
    assert max(map(len, model.batches)) <= 4
    assert scheduler.runs == len(model.batches)


async def test_a_waiting_item_enters_before_the_next_step() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=2, lanes=1)
    results = await all_at_once(scheduler, model, [(1, 6), (2, 1), (3, 2), (4, 1), (5, 3)])
    assert [set(batch) for batch in model.batches] == [{1}, {1, 2}, {1, 3}, {1, 3}, {1, 4}, {1, 5}, {5}, {5}]
    assert [result.steps for result in results] == [6, 1, 2, 1, 3]


async def test_full_batches_need_as_few_runs_as_can_be() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=8, lanes=1)
    await all_at_once(scheduler, model, [(item, 4) for item in range(32)])
    assert len(model.batches) <= 4 * 32 / 8 + 4
    assert sum(map(len, model.batches)) == 4 * 32


async def test_while_there_is_no_crowd_half_of_the_items_step_and_half_wait() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, lanes=1)
    scheduler._lanes.slots = 8  # as if measured
    await all_at_once(scheduler, model, [(item, 4) for item in range(10)])
    assert max(map(len, model.batches)) == 5
    model.batches.clear()
    await all_at_once(scheduler, model, [(item, 4) for item in range(40)])
    assert max(map(len, model.batches)) == 8


async def test_few_items_are_spread_over_the_lanes() -> None:
    model = Countdown(sleep=0.001)
    scheduler = StepScheduler(model, max_steps=400, slots=8, lanes=2)
    await asyncio.gather(*[scheduler.run((item, 40)) for item in range(4)])
    assert sum(len(batch) <= 2 for batch in model.batches) > len(model.batches) / 2
    model.batches.clear()
    # Two long items beside two short ones: whoever shares a lane with the other does not stay there.
    await asyncio.gather(*[scheduler.run(item) for item in [(1, 300), (2, 300), (3, 1), (4, 1)]])
    assert sum(len(batch) == 1 for batch in model.batches) > 300


async def test_out_of_steps_an_item_leaves_with_what_it_has() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=5, slots=2)
    default, fewer, more = await asyncio.gather(
        scheduler.run((1, 50)), scheduler.run((2, 50), max_steps=3), scheduler.run((3, 50), max_steps=60)
    )
    assert (default.steps, default.halted, default.value) == (5, False, ([1], [45]))
    assert (fewer.steps, fewer.halted, fewer.value) == (3, False, ([2], [47]))
    assert (more.steps, more.halted) == (50, True)
    assert model.steps_of(2) == 3


async def test_a_verified_item_leaves() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=50, slots=2)
    result = await scheduler.run((1, 40), verify=lambda value: value[1] == [33])
    assert (result.steps, result.halted) == (7, True)
    never = await scheduler.run((1, 40), max_steps=3, verify=lambda value: False)
    assert (never.steps, never.halted) == (3, False)

    async def slow(value: object) -> bool:
        return True

    with pytest.raises(TypeError, match="plain function"):
        await scheduler.run((1, 40), verify=slow)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        await scheduler.run((1, 40), verify=lambda value: 1 / 0)


async def test_out_of_time_an_item_leaves_with_what_it_has() -> None:
    model = Countdown(sleep=0.02)
    scheduler = StepScheduler(model, max_steps=10_000, slots=2)
    result = await scheduler.run((1, 10_000), deadline=time.monotonic() + 1.0)
    assert not result.halted
    assert 0 < result.steps == model.steps_of(1) < 10_000
    with pytest.raises(DeadlinePassed):
        await scheduler.run((2, 1), deadline=time.monotonic())
    assert model.steps_of(2) == 0


async def test_a_deadline_that_passes_in_the_queue_or_in_a_step_is_told_at_once() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=10, slots=1, lanes=1)
    model.gate.clear()
    stuck = asyncio.create_task(scheduler.run((1, 5), deadline=time.monotonic() + 0.2))
    await entered(model)
    with pytest.raises(DeadlinePassed):
        await scheduler.run((2, 5), deadline=time.monotonic() + 0.1)
    with pytest.raises(DeadlinePassed):
        await stuck  # the step is still held
    model.gate.set()
    assert (await scheduler.run((3, 2))).steps == 2
    assert (model.steps_of(1), model.steps_of(2)) == (1, 0)


async def test_a_cancelled_item_leaves_before_the_next_step() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=3, lanes=1)
    await all_at_once(scheduler, model, [(8, 1), (9, 1)])
    model.gate.clear()
    model.batches.clear()
    await entered(model, 0)
    while model.inside.acquire(blocking=False):
        pass
    tasks = [asyncio.create_task(scheduler.run((item, 20))) for item in (1, 2, 3, 4)]
    await entered(model)
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    assert scheduler.waiting == 0
    model.gate.set()
    assert (await tasks[0]).steps == 20
    assert max(model.steps_of(item) for item in (2, 3, 4)) <= 1  # one may have been in the step that was held
    assert all(set(batch) == {1} for batch in model.batches[1:])


async def test_a_full_queue_refuses_and_says_how_long_the_wait_would_be() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=1, lanes=1, queue_limit=2)
    await scheduler.run((0, 3))
    model.gate.clear()
    await entered(model, 3)
    tasks = [asyncio.create_task(scheduler.run((1, 1)))]
    await entered(model)
    tasks += [asyncio.create_task(scheduler.run((item, 1))) for item in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 items wait") as refused:
        await scheduler.run((4, 1))
    assert refused.value.wait is not None
    assert refused.value.wait > 0
    tasks[1].cancel()
    await asyncio.wait(tasks[1:2])
    tasks.append(asyncio.create_task(scheduler.run((5, 1))))  # a place is free again
    model.gate.set()
    assert [(await task).steps for task in (tasks[0], *tasks[2:])] == [1, 1, 1]
    assert model.steps_of(4) == model.steps_of(2) == 0


async def test_before_anything_was_done_the_wait_is_unknown() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=1, lanes=1, queue_limit=1)
    model.gate.clear()
    tasks = [asyncio.create_task(scheduler.run((1, 1)))]
    await entered(model)
    tasks.append(asyncio.create_task(scheduler.run((2, 1))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await scheduler.run((3, 1))
    assert refused.value.wait is None
    model.gate.set()
    await asyncio.gather(*tasks)


def test_callers_may_sit_in_many_loops_and_threads() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=4)
    found: dict[int, list[int]] = {}

    def caller(thread: int) -> None:
        async def many() -> list[StepResult]:
            return await asyncio.gather(*[scheduler.run((100 * thread + item, item + 1)) for item in range(12)])

        if thread % 2:
            results = asyncio.run(many())
        else:
            results = [scheduler.run_sync((100 * thread + item, item + 1)) for item in range(12)]
        found[thread] = [result.steps for result in results]

    threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {thread: list(range(1, 13)) for thread in range(6)}


async def test_the_sync_form_is_refused_on_a_loop() -> None:
    with pytest.raises(RuntimeError, match="await the async form"):
        StepScheduler(Countdown(), max_steps=5).run_sync((1, 1))


async def test_a_step_wakes_a_loop_once() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=16, lanes=1)
    loop = asyncio.get_running_loop()
    calls = Counter[str]()
    wake = loop.call_soon_threadsafe

    def counting(callback: Any, *arguments: Any, **options: Any) -> Any:
        calls[getattr(callback, "__name__", "")] += 1
        return wake(callback, *arguments, **options)

    loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
    await all_at_once(scheduler, model, [(item, 2) for item in range(16)])
    assert calls["_settle"] <= 2  # the first item was a step ahead


async def test_shares_of_the_cpu_time_add_up_to_all_of_it() -> None:
    class Busy(Countdown):
        def step(self, state: Any) -> dict[str, Any]:
            sum(range(20_000))
            return super().step(state)

    scheduler = StepScheduler(Busy(), max_steps=100, slots=4)
    meters = [CpuMeter() for _ in range(20)]

    async def one(item: int) -> StepResult:
        current_meter.set(meters[item])
        rows = [(item, 1 + item % 5)] * (1 + item % 3)
        return await scheduler.run(rows)

    results = await asyncio.gather(*[one(item) for item in range(20)])
    shares = [round(result.cpu_seconds * 1e9) for result in results]
    assert sum(shares) == round(scheduler.cpu_seconds * 1e9) > 0
    assert min(shares) > 0
    assert [meter.low for meter in meters] == pytest.approx([share / 1e9 for share in shares])
    assert all(meter.high == meter.low for meter in meters)


async def test_threads_beside_the_one_that_steps_are_only_bounded() -> None:
    model = Countdown()
    model.threads = 4  # type: ignore[attr-defined]
    meter = CpuMeter()
    current_meter.set(meter)
    await StepScheduler(model, max_steps=100).run((1, 3))
    assert meter.high == pytest.approx(4 * meter.low)


async def test_21_one_bad_row_fails_alone() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=8, lanes=1)
    items = [(1, 3), (2, 4), (NAN, 4), (3, 5), (BAD, 4), (4, 6)]
    model.gate.clear()
    tasks = [asyncio.create_task(scheduler.run(item)) for item in items]
    await entered(model)
    model.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    nan, bad = results.pop(2), results.pop(3)
    assert isinstance(nan, ModelFailed)
    assert "not finite" in str(nan)
    assert isinstance(bad, ModelFailed)
    assert "this row is bad" in str(bad)
    assert [result.steps for result in results if isinstance(result, StepResult)] == [3, 4, 5, 6]
    assert [result.value[1] for result in results if isinstance(result, StepResult)] == [[0]] * 4
    assert model.steps_of(NAN) <= 2
    assert (await scheduler.run((5, 2))).steps == 2


@pytest.mark.parametrize(
    ("method", "gives", "error"),
    [
        ("start", lambda item: {}, ModelFailed),
        ("start", lambda item: {"name": np.zeros(2), "left": np.zeros(1)}, ModelFailed),
        ("start", lambda item: {"name": np.zeros(0)}, ModelFailed),
        ("start", lambda item: {"name": 5}, ModelFailed),
        ("start", lambda item: {}["lost"], KeyError),
        ("step", lambda state: {"left": np.zeros(7)}, ModelFailed),
        ("start", lambda item: sys.exit(3), ModelFailed),
        ("step", lambda state: sys.exit(3), ModelFailed),
        ("halted", lambda rows: [1.0], ModelFailed),
        ("halted", lambda rows: np.zeros(3, bool), ModelFailed),
        ("halted", lambda rows: 1 / 0, ModelFailed),
        ("answer", lambda rows: rows["nothing"], KeyError),
    ],
)
async def test_21_a_model_that_does_not_keep_its_word_is_told(method: str, gives: Any, error: type[Exception]) -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=5)
    setattr(model, method, gives)
    for _ in range(2):
        with pytest.raises(error):
            await asyncio.wait_for(scheduler.run((1, 2)), 30)
    delattr(model, method)
    assert (await scheduler.run((1, 2))).steps == 2  # the lanes go on


async def test_an_item_of_several_rows_enters_and_leaves_as_one() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=4, lanes=1)
    items: list[Any] = [[(1, 9), (1, 9)], (2, 2), [(3, 9), (3, 4), (3, 9)], (4, 3), [(5, 1), (5, 9)]]
    results = await all_at_once(scheduler, model, items)
    assert [result.steps for result in results] == [9, 2, 4, 3, 1]  # the first row that halts ends all of an item's
    assert results[2].value == ([3, 3, 3], [5, 0, 5])
    assert all(len(batch) <= 4 for batch in model.batches)
    assert all(batch.count(1) in (0, 2) and batch.count(3) in (0, 3) for batch in model.batches)


async def test_an_item_wider_than_the_slots_steps_in_pieces_beside_the_others() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=4, lanes=1)
    wide = [(1, 5)] * 10
    results = await asyncio.gather(scheduler.run(wide), *[scheduler.run((item, 3)) for item in range(2, 8)])
    assert [result.steps for result in results] == [5] + [3] * 6
    assert results[0].value == ([1] * 10, [0] * 10)
    pieces = [len(batch) for batch in model.batches if 1 in batch]
    assert pieces == [3, 3, 4] * 5
    assert all(set(batch) == {1} for batch in model.batches if 1 in batch)


async def test_items_of_different_shapes_do_not_share_a_batch() -> None:
    class Shapes(Countdown):
        def start(self, item: Any) -> dict[str, Any]:
            return super().start(item) | {"extra": np.zeros((1, int(item[0]) % 3))}

        def step(self, state: Any) -> dict[str, Any]:
            assert set(state["name"] % 3) == {state["extra"].shape[1]}
            return super().step(state)

    model = Shapes()
    results = await all_at_once(StepScheduler(model, max_steps=9, slots=4, lanes=1), model, [(n, 3) for n in range(12)])
    assert [result.steps for result in results] == [3] * 12


@pytest.mark.parametrize(("run_cost", "row_cost", "slots"), [(0.01, 0.0, 32), (0.0, 0.018, 1), (0.002, 0.0005, 32)])
def test_slots_are_measured(monkeypatch: pytest.MonkeyPatch, run_cost: float, row_cost: float, slots: int) -> None:
    now = [0.0]
    clock = SimpleNamespace(thread_time=lambda: now[0], perf_counter=lambda: now[0] / 10)
    monkeypatch.setattr(step_rows, "time", clock)

    def step(state: Any) -> dict[str, Any]:
        now[0] += run_cost + row_cost * len(state["left"])
        return {"left": state["left"]}

    found = step_rows.most_useful_slots(
        step_rows.HostRows(step), {"left": np.ones((3, 2))}, lambda rows: rows["left"][:, 0] < 0
    )
    assert found == slots


async def test_slots_are_measured_when_items_must_share_and_not_for_a_lone_one() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, lanes=1)
    await scheduler.run((1, 3))
    assert scheduler.slots is None
    assert len(model.batches) == 3
    results = await asyncio.gather(*[scheduler.run((item, 3)) for item in range(10)])
    assert [result.steps for result in results] == [3] * 10
    assert scheduler.slots is not None
    other = StepScheduler(model, max_steps=100)
    assert await other.warm_up((1, 3)) == other.slots


async def test_closing_lets_those_who_are_there_finish() -> None:
    model = Countdown()
    scheduler = StepScheduler(model, max_steps=100, slots=1, lanes=1)
    model.gate.clear()
    tasks = [asyncio.create_task(scheduler.run((item, 2))) for item in range(3)]
    await entered(model)
    assert await scheduler.close(timeout=0.01) is False
    with pytest.raises(ModelFailed, match="closed"):
        await scheduler.run((5, 1))
    model.gate.set()
    assert await scheduler.close(timeout=30) is True
    assert [(await task).steps for task in tasks] == [2, 2, 2]


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"slots": 0}, {"queue_limit": 0}, {"lanes": -1}])
async def test_numbers_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1"):
        StepScheduler(Countdown(), **({"max_steps": 3} | wrong))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_steps"):
        await StepScheduler(Countdown(), max_steps=3).run((1, 1), max_steps=0)


def test_a_scheduler_that_nobody_holds_goes_away() -> None:
    model = Countdown()
    asyncio.run(StepScheduler(model, max_steps=3).run((1, 1)))
    from specialists.recursion import scheduler as recursion

    gc.collect()
    assert not [each for each in recursion._schedulers if each.model is model]


# ONNX step graphs


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """``state' = state * 0.5 + x``; ``left' = left - 1``; ``done = left' <= 0``; ``score = 0.5 - left'``."""
    half, one, zero, point = (numpy_helper.from_array(np.array(v, np.float32), n) for v, n in
                              ((0.5, "half"), (1.0, "one"), (0.0, "zero"), (0.5, "point")))  # fmt: skip
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["state", "half"], ["halved"]),
        helper.make_node("Add", ["halved", "x"], ["next_state"]),
        helper.make_node("Sub", ["left", "one"], ["next_left"]),
        helper.make_node("LessOrEqual", ["next_left", "zero"], ["done"]),
        helper.make_node("Sub", ["point", "next_left"], ["score"]),
    ]
    inputs = [info("x", FLOAT, ["n", 3]), info("state", FLOAT, ["n", 3]), info("left", FLOAT, ["n"])]
    outputs = [
        info("next_state", FLOAT, ["n", 3]),
        info("next_left", FLOAT, ["n"]),
        info("done", TensorProto.BOOL, ["n"]),
        info("score", FLOAT, ["n"]),
    ]
    return save(tmp_path / "counter.onnx", nodes, inputs, outputs, [half, one, zero, point])


CARRY = {"next_state": "state", "next_left": "left"}


def expected(x: float, steps: int) -> float:
    state = 0.0
    for _ in range(steps):
        state = state * 0.5 + x
    return state


@pytest.mark.parametrize(
    "halted",
    ["done", "score", lambda rows: rows["next_left"] <= 0, lambda rows: rows["left"] + rows["x"][:, 0] * 0 <= 0],
)
@pytest.mark.parametrize("device", [None, "cpu"])
async def test_an_onnx_graph_is_stepped(counter: Path, halted: Any, device: str | None) -> None:
    step = OnnxStep(OnnxModel(counter), carry=CARRY, halted=halted, answer=["next_state", "score"])
    step._device = device  # as on a GPU, in the host's memory
    scheduler = StepScheduler(step, max_steps=50, slots=4)
    counts = [1 + item % 7 for item in range(30)]
    results = await asyncio.gather(
        *[
            scheduler.run({"x": np.full((1, 3), item, np.float32), "left": np.array([count], np.float32)})
            for item, count in enumerate(counts)
        ]
    )
    assert [result.steps for result in results] == counts
    for item, (result, count) in enumerate(zip(results, counts, strict=True)):
        np.testing.assert_allclose(result.value["next_state"], np.full((1, 3), expected(item, count)), rtol=1e-6)
        assert result.value["score"].tolist() == [0.5]
    assert (1 if device else 2) >= len(scheduler._lanes.shared.lanes) - 14
    assert scheduler.runs < sum(counts)


async def test_the_default_answer_is_what_is_not_carried(counter: Path) -> None:
    step = OnnxStep(OnnxModel(counter), carry=CARRY, halted="done")
    item = {"x": np.ones((1, 3), np.float32), "left": [2.0], "state": np.full((1, 3), 8, np.float32)}
    result = await StepScheduler(step, max_steps=9).run(item)
    assert {name: value.tolist() for name, value in result.value.items()} == {"done": [True], "score": [0.5]}
    step = OnnxStep(OnnxModel(counter), carry=CARRY, halted="done", answer=lambda rows: rows["state"].tolist())
    assert (await StepScheduler(step, max_steps=9).run(item)).value == [[3.5, 3.5, 3.5]]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"left": [1.0]}, "lacks the input 'x'"),
        ({"x": np.ones((1, 3)), "left": [1.0], "y": [1.0]}, "has no input 'y'"),
        ({"x": np.ones(3), "left": [1.0]}, r"must have shape \[1, 3\]"),
        ({"x": np.ones((1, 4)), "left": [1.0]}, r"must have shape \[1, 3\]"),
        ({"x": [["a", "b", "c"]], "left": [1.0]}, "must be float32"),
        ({"x": np.ones((2, 3)), "left": [1.0]}, "same number of rows"),
        ([1, 2], "maps input names to arrays"),
    ],
)
async def test_21_inputs_that_do_not_fit_are_typed_errors(counter: Path, item: Any, says: str) -> None:
    scheduler = StepScheduler(OnnxStep(OnnxModel(counter), carry=CARRY, halted="done"), max_steps=9)
    good = {"x": np.ones((1, 3)), "left": [3.0]}
    bad, fine = await asyncio.gather(scheduler.run(item), scheduler.run(good), return_exceptions=True)
    assert isinstance(bad, ModelFailed)
    assert isinstance(fine, StepResult)
    with pytest.raises(ModelFailed, match=says):
        raise bad


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"carry": {"nothing": "state"}, "halted": "done"}, "has no output 'nothing'"),
        ({"carry": {"next_state": "nothing"}, "halted": "done"}, "has no input 'nothing'"),
        ({"carry": CARRY, "halted": "nothing"}, "has no output 'nothing'"),
        ({"carry": CARRY, "halted": "done", "answer": "nothing"}, "has no output 'nothing'"),
        ({"carry": {"next_left": "left"}, "halted": "next_state", "answer": "score"}, "one number a row"),
    ],
)
async def test_names_that_the_graph_lacks_are_told(counter: Path, settings: Any, says: str) -> None:
    scheduler = StepScheduler(OnnxStep(OnnxModel(counter), **settings), max_steps=9)
    with pytest.raises(ModelFailed, match=says):
        await scheduler.run({"x": np.ones((1, 3)), "state": np.ones((1, 3)), "left": [3.0]})
    with pytest.raises(ValueError, match="carry is empty"):
        OnnxStep(OnnxModel(counter), carry={}, halted="done")


@pytest.mark.parametrize("device", [None, "cpu"])
async def test_21_one_bad_row_of_a_graph_fails_alone(counter: Path, device: str | None) -> None:
    step = OnnxStep(OnnxModel(counter), carry=CARRY, halted="done", answer="next_state")
    step._device = device
    scheduler = StepScheduler(step, max_steps=50, slots=8)
    rows = [1.0, 2.0, float("nan"), 3.0]
    results = await asyncio.gather(
        *[scheduler.run({"x": np.full((1, 3), x), "left": [np.float32(4)]}) for x in rows], return_exceptions=True
    )
    good = [result for result in results if isinstance(result, StepResult)]
    assert [result.value["next_state"][0, 0] for result in good if result.value["next_state"][0, 0] > 0] == [
        expected(x, 4) for x in (1.0, 2.0, 3.0)
    ]
    if device is None:
        assert isinstance(results[2], ModelFailed)


@pytest.fixture
def spinner(tmp_path: Path) -> Path:
    """A step that adds one to ``x`` as often as the largest ``trips`` of its rows says: 2**40 is for ever."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Add", ["v_in", "one"], ["v_out"])],
        "body",
        [info("trip", INT, []), info("go_in", TensorProto.BOOL, []), info("v_in", FLOAT, ["n"])],
        [info("go_out", TensorProto.BOOL, []), info("v_out", FLOAT, ["n"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["trips"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "x"], ["next_x"], body=body),
    ]
    inputs = [info("trips", INT, ["n"]), info("x", FLOAT, ["n"])]
    return save(tmp_path / "spinner.onnx", nodes, inputs, [info("next_x", FLOAT, ["n"])])


async def test_22_a_native_run_is_stopped_when_no_live_item_is_left_in_it(spinner: Path) -> None:
    step = OnnxStep(OnnxModel(spinner), carry={"next_x": "x"}, halted=lambda rows: rows["x"] >= 3)
    scheduler = StepScheduler(step, max_steps=50, slots=2, lanes=1)
    assert (await scheduler.run({"trips": [1]})).steps == 3
    endless = asyncio.create_task(scheduler.run({"trips": [2**40]}))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(scheduler.run({"trips": [3]}))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    endless.cancel()
    assert (await waiting).steps == 1
    with pytest.raises(DeadlinePassed):
        await scheduler.run({"trips": [2**40]}, deadline=time.monotonic() + 0.1)
    assert (await scheduler.run({"trips": [1]})).steps == 3


def test_44_a_forked_child_steps_with_lanes_of_its_own(counter: Path) -> None:
    code = f"""
        import asyncio, os, threading
        import numpy as np
        from specialists import OnnxModel, OnnxStep, StepScheduler
        step = OnnxStep(OnnxModel({str(counter)!r}), carry={CARRY!r}, halted="done")
        scheduler = StepScheduler(step, max_steps=50, slots=2)
        item = {{"x": np.ones((1, 3), np.float32), "left": np.array([4], np.float32)}}
        assert scheduler.run_sync(item).steps == 4
        inside, release = threading.Event(), threading.Event()
        def hold():
            with scheduler._lanes.lock:
                inside.set()
                release.wait()
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                async def many():
                    return await asyncio.gather(*[scheduler.run(item) for _ in range(5)])
                assert [result.steps for result in asyncio.run(many())] == [4] * 5
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        release.set()
        assert scheduler.run_sync(item).steps == 4
        print(os.waitstatus_to_exitcode(status))
    """
    assert run_python(code) == "0"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_making_one_opens_nothing_and_imports_nothing_heavy() -> None:
    code = """
        import sys
        from specialists import OnnxModel, OnnxStep, StepScheduler
        StepScheduler(OnnxStep(OnnxModel("nowhere.onnx"), carry={"a": "b"}, halted="c"), max_steps=4)
        assert not {"onnxruntime", "numpy"} & set(sys.modules), "imported too early"
    """
    run_python(code)
