"""One model and many callers: which models let calls share runs, and that answers are those of a lone call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specialists import DeadlinePassed, ModelFailed, OnnxModel, Overloaded, specialist
from specialists.batching import current_caller
from specialists.loops import current_deadline
from specialists.onnx import _Service
from specialists.workers import usable_cores

from ..benchmarks.encoders import write_encoder
from . import graphs
from .batchers import GUARD, Hand, settled, until

Feeds = dict[str, Any]


def floats(*rows: Sequence[float]) -> Feeds:
    return {"x": np.array(rows, np.float32)}


def many_floats(count: int, length: Callable[[int], int] = lambda _: 3) -> list[Feeds]:
    chance = np.random.default_rng(3)
    return [floats(chance.uniform(1, 1 + number, length(number))) for number in range(count)]


async def alone_and_together(path: Path, calls: list[Feeds], example: Feeds | None = None) -> OnnxModel:
    """Ask one after the other and all at once; the answers are the same. Returns the model that was asked at once."""
    lone = OnnxModel(path, batch=False)
    expected = [await lone.run(**call) for call in calls]
    model = OnnxModel(path)
    await asyncio.wrap_future(model.warm_up(**(example or calls[-1])))
    found = await asyncio.gather(*(model.run(**call) for call in calls))
    exactly = not model.sizes.joined
    for one, other in zip(expected, found, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            assert other[name].shape == value.shape
            assert other[name].dtype == value.dtype
            np.testing.assert_allclose(other[name], value, rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-5)
    return model


# Which models.


async def test_a_masked_encoder_is_joined_and_filled_up(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder.onnx", width=16, layers=2, vocabulary=50)
    chance = np.random.default_rng(1)
    lengths = [int(length) for length in chance.integers(1, 30, 60)]
    calls = [{"ids": chance.integers(0, 50, (1, length)), "mask": np.ones((1, length), np.int64)} for length in lengths]
    model = await alone_and_together(path, calls)
    assert model.sizes.joined
    assert model.sizes.padded
    statistics = model.statistics
    assert statistics.largest > 2
    assert statistics.runs < 40
    assert statistics.padding > 0


async def test_calls_of_several_rows_are_joined_too(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    calls = [{"ids": chance.integers(0, 9, (1 + number % 3, 2 + number % 5))} for number in range(30)]
    model = await alone_and_together(graphs.table(tmp_path / "table.onnx"), calls)
    assert model.statistics.largest > 1


async def test_outputs_of_each_position_have_each_callers_own_length(tmp_path: Path) -> None:
    calls = many_floats(40, lambda number: 1 + number % 9)
    model = await alone_and_together(graphs.scaled(tmp_path / "scaled.onnx", 2.5), calls)
    assert model.sizes.padded
    assert model.statistics.padding > 0


async def test_a_mean_over_positions_without_a_mask_is_joined_at_equal_lengths_only(tmp_path: Path) -> None:
    calls = many_floats(40, lambda number: 2 + number % 3)
    model = await alone_and_together(graphs.position_mean(tmp_path / "mean.onnx"), calls)
    assert model.sizes.joined
    assert not model.sizes.padded
    assert model.statistics.largest > 1
    assert model.statistics.padding == 0


@pytest.mark.parametrize("make", [graphs.batch_mean, graphs.quantised, graphs.fixed_rows, graphs.without_rows])
@pytest.mark.parametrize("same", [False, True])
async def test_models_whose_rows_are_not_independent_run_singly(
    tmp_path: Path, make: Callable[[Path], Path], same: bool
) -> None:
    length = 4 if make is graphs.quantised else 3
    calls = many_floats(20, lambda _: length)
    example = floats([7.0] * length) if same else None  # the first call it sees is not a telling one
    model = await alone_and_together(make(tmp_path / "model.onnx"), calls, example)
    assert not model.sizes.joined
    statistics = model.statistics
    assert statistics.largest == 1
    assert statistics.runs == 21


async def test_a_model_with_a_scalar_input_runs_singly(tmp_path: Path) -> None:
    calls = [{**floats([1, 2, 3]), "factor": np.float32(number)} for number in range(8)]
    model = await alone_and_together(graphs.with_scalar(tmp_path / "model.onnx"), calls)
    assert model.statistics.largest == 1


async def test_a_loop_is_joined_only_when_told_so(tmp_path: Path) -> None:
    path = graphs.counting(tmp_path / "loop.onnx")
    calls = [{"turns": [[2 + number % 5]], "x": [[float(number)]]} for number in range(12)]
    assert (await alone_and_together(path, calls)).statistics.largest == 1
    told = OnnxModel(path, batch=True)
    await asyncio.wrap_future(told.warm_up(**calls[3]))
    found = await asyncio.gather(*(told.run(**call) for call in calls))
    assert [float(each["y"][0, 0]) for each in found] == list(range(12))
    assert told.statistics.largest > 1


async def test_what_calls_share_is_found_out_by_itself_under_load(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "scaled.onnx", 2))
    calls = many_floats(100)
    async with asyncio.timeout(GUARD):
        while model.statistics.largest < 2:  # as long as it is being found out, calls run singly
            found = await asyncio.gather(*(model.run(**call) for call in calls))
            for call, answer in zip(calls, found, strict=True):
                assert np.array_equal(answer["y"], 2 * call["x"])
    assert model.sizes.joined
    assert model.statistics.largest > 1


async def test_a_first_call_of_zeros_decides_nothing(tmp_path: Path) -> None:
    model = OnnxModel(graphs.position_mean(tmp_path / "mean.onnx"))
    await asyncio.wrap_future(model.warm_up(x=np.zeros((1, 4), np.float32)))
    assert not model.sizes.padded
    calls = many_floats(20, lambda number: 2 + number % 3)
    for _ in range(5):
        found = await asyncio.gather(*(model.run(**call) for call in calls))
        for call, answer in zip(calls, found, strict=True):
            np.testing.assert_allclose(answer["y"], call["x"].mean(1), rtol=1e-5)
    assert not model.sizes.padded


# One bad item.


async def test_one_bad_item_fails_alone(tmp_path: Path) -> None:
    model = OnnxModel(graphs.table(tmp_path / "table.onnx"))
    await asyncio.wrap_future(model.warm_up(ids=[[1, 2, 3]]))
    ids: list[list[int]] = [[number % 10, 3] for number in range(20)]
    ids[7] = [99, 3]
    found = await asyncio.gather(*(model.run(ids=[each]) for each in ids), return_exceptions=True)
    assert isinstance(found[7], ModelFailed)
    assert "table.onnx: the run failed" in str(found[7])
    for number, answer in enumerate(found):
        if number != 7:
            assert isinstance(answer, dict)
            assert answer["y"].tolist() == [[[2 * each + 1, 2 * each + 2] for each in ids[number]]]


async def test_one_item_that_is_not_finite_fails_alone(tmp_path: Path) -> None:
    model = OnnxModel(graphs.logarithms(tmp_path / "logarithms.onnx"))
    await asyncio.wrap_future(model.warm_up(**floats([1, 2, 3])))
    assert model.sizes.joined
    calls = many_floats(20)
    calls[5] = floats([1, -2, 3])
    calls[11] = floats([0, 2, 3])
    found = await asyncio.gather(*(model.run(**call) for call in calls), return_exceptions=True)
    assert model.statistics.largest > 1
    for number, answer in enumerate(found):
        if number in (5, 11):
            assert isinstance(answer, ModelFailed)
            assert "'y' is not finite" in str(answer)
        else:
            assert isinstance(answer, dict)
            np.testing.assert_allclose(answer["y"], np.log(calls[number]["x"]), rtol=1e-5)


async def test_a_bulk_call_names_its_bad_items_and_answers_the_others(tmp_path: Path) -> None:
    model = OnnxModel(graphs.table(tmp_path / "table.onnx"))
    items: list[Any] = [{"ids": [[number % 10]]} for number in range(600)]
    items[3] = {"ids": [[99]]}
    items[4] = {"ids": [[-99]]}
    items[5] = {"idz": [[1]]}
    items[6] = 5
    items[599] = {"ids": [["text"]]}
    found = await model.run_many(items)
    bad = {
        3: "the run failed",
        4: "the run failed",
        5: "missing or unknown",
        6: "arrays by name",
        599: "int64",
    }
    assert len(found) == 600
    for number, answer in enumerate(found):
        if number in bad:
            assert isinstance(answer, ModelFailed)
            assert str(answer).startswith(f"item {number}: table.onnx: ")
            assert bad[number] in str(answer)
            assert str(answer).count("item") == 1
        else:
            assert isinstance(answer, dict)
            assert answer["y"][0, 0, 0] == 2 * (number % 10) + 1
    assert await model.run_many([]) == []


async def test_a_bulk_call_is_larger_than_the_queue(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "scaled.onnx", 2), queue_limit=4)
    found = await model.run_many(many_floats(50))
    assert all(isinstance(answer, dict) for answer in found)
    assert model.statistics.calls == 50


async def test_a_bulk_call_that_is_given_up_leaves_the_queue(tmp_path: Path, endless: Path) -> None:
    model = OnnxModel(endless)
    model.session  # noqa: B018 - opened before, so that only runs are in the queue
    task = asyncio.create_task(model.run_many([{"trips": np.int64(2**40), "x": [0.0]}] * 20))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await model.aclose(GUARD)
    assert model.statistics.cancelled == 20


# Many callers.


async def test_a_queue_that_is_full_overflows_to_the_next_rung(endless: Path) -> None:
    model = OnnxModel(endless, queue_limit=usable_cores())
    await model.run(trips=np.int64(1), x=[0.0])
    busy = [asyncio.create_task(model.run(trips=np.int64(2**40), x=[0.0])) for _ in range(usable_cores())]
    await until(lambda: model._current().batcher._running == usable_cores())
    busy += [asyncio.create_task(model.run(trips=np.int64(2**40), x=[0.0])) for _ in range(usable_cores())]
    await asyncio.sleep(0)

    @specialist
    async def instead(x: float) -> float:
        """Stands in."""
        return x

    @specialist(next=instead, min_confidence=0.0)
    async def counted(x: float) -> float:
        """Counts."""
        return float((await model.run(trips=np.int64(1), x=[x]))["y"][0])

    with pytest.raises(Overloaded) as caught:
        await model.run(trips=np.int64(1), x=[0.0])
    assert caught.value.wait is not None
    outcome = await counted.solve(3.0)
    assert outcome.attempts[0].outcome == "overloaded"
    assert outcome.attempts[1].source == "instead"
    assert outcome.attempts[1].outcome == "answered"
    assert model.statistics.refused == 2
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    outcome = await counted.solve(3.0)
    assert outcome.attempts[0].outcome == "answered"


async def test_callers_take_turns(double: Path, hand: Hand) -> None:
    model = OnnxModel(double, batch=False)
    model.session  # noqa: B018
    order: list[str] = []

    async def one(name: str) -> None:
        token = current_caller.set(name)
        try:
            await model.run(x=[[1, 2, 3]])
            order.append(name)
        finally:
            current_caller.reset(token)

    tasks = [asyncio.create_task(one(name)) for name in ["flood"] * 10 + ["quiet"]]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    while len(order) < 11:
        hand.run()
        await asyncio.sleep(0)
    assert order.index("quiet") <= 1
    await asyncio.gather(*tasks)


async def test_a_call_whose_deadline_passed_is_not_run(double: Path) -> None:
    model = OnnxModel(double)
    model.session  # noqa: B018
    token = current_deadline.set(0.0)
    try:
        with pytest.raises(DeadlinePassed, match=r"double\.onnx"):
            await model.run(x=[[1, 2, 3]])
    finally:
        current_deadline.reset(token)
    assert model.statistics.runs == 0
    assert model.statistics.expired == 1


async def test_the_loop_goes_on_while_a_model_is_opened(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()
    opens: list[Path] = []
    real = _Service._open

    def slowly(self: _Service, path: Path, sha256: str | None) -> Any:
        opens.append(path)
        entered.set()
        assert release.wait(GUARD)
        return real(self, path, sha256)

    monkeypatch.setattr(_Service, "_open", slowly)
    model = OnnxModel(double)
    tasks = [asyncio.create_task(model.run(x=[[1, 2, 3]]))]
    await until(entered.is_set)
    tasks += [asyncio.create_task(model.run(x=[[1, 2, 3]])) for _ in range(5)]
    await asyncio.sleep(0.01)  # were the loop held up here, nobody would let the model open
    release.set()
    await asyncio.gather(*tasks)
    assert len(opens) == 1


async def test_a_model_opens_while_others_hold_all_workers(double: Path, endless: Path) -> None:
    slow = OnnxModel(endless)
    await slow.run(trips=np.int64(1), x=[0.0])
    await settled(slow._current().batcher)
    slow._current().batcher._long = True
    busy = [asyncio.create_task(slow.run(trips=np.int64(2**40), x=[0.0])) for _ in range(usable_cores())]
    await until(lambda: slow._current().batcher._running == usable_cores())
    async with asyncio.timeout(GUARD):
        assert (await OnnxModel(double).run(x=[[1, 2, 3]]))["y"].tolist() == [[2, 4, 6]]
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)


async def test_giving_up_is_no_trouble_worth_a_line_in_the_log(endless: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = OnnxModel(endless)
    await model.run(trips=np.int64(1), x=[0.0])
    with caplog.at_level(logging.WARNING, "specialists"):
        task = asyncio.create_task(model.run(trips=np.int64(2**40), x=[0.0]))
        await until(lambda: model._current().batcher._running)
        task.cancel()
        await asyncio.wait([task])
        assert await model.aclose(GUARD)
    assert not caplog.records


# Sync callers.


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
@pytest.mark.parametrize("where", ["here", "queued"])
async def test_a_sync_function_that_is_given_up_stops_its_native_run(endless: Path, how: str, where: str) -> None:
    model = OnnxModel(endless)
    model.run_sync(trips=np.int64(1), x=[0.0])
    batcher = model._current().batcher
    threads = 1 if where == "here" else 2 * usable_cores()
    started: list[int] = []

    @specialist(timeout=0.3 if how == "timeout" else None)
    def forever(x: float) -> float:
        """Never answers."""
        started.append(1)
        return float(model.run_sync(trips=np.int64(2**40), x=[x])["y"][0])

    tasks = [asyncio.create_task(forever.solve(1.0)) for _ in range(threads)]
    await until(lambda: len(started) == threads)
    if how == "cancelled":
        await until(lambda: batcher._running >= min(threads, usable_cores()))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
    else:
        outcomes = await asyncio.gather(*tasks)
        assert {outcome.attempts[0].outcome for outcome in outcomes} == {"timeout"}
    # Closing waits for every run: it returns because they were stopped.
    assert await model.aclose(GUARD)
    assert batcher.idle
