"""Sessions of a model: shared, let go under a ceiling of memory, swapped under load, warmed up and closed."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from specialists import ModelFailed, ModelRejected, OnnxModel
from specialists.calls import Batch, Call, Sizes
from specialists.onnx import loaded_bytes, set_memory_limit
from specialists.sessions import Session, memory_of

from . import graphs
from .batchers import GUARD, Hand, settled, until

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def ceiling() -> Iterator[int]:
    """No model is loaded, and there is room for two and a half of :func:`graphs.scaled`. Gives the bytes of one."""
    gc.collect()
    set_memory_limit(1)  # lets everything go; it is opened again when asked
    one = 1 << 20
    set_memory_limit(int(2.5 * one))
    yield one
    set_memory_limit(None)


def is_loaded(model: OnnxModel) -> bool:
    return model._current().held is not None


def factor_of(model: OnnxModel) -> float:
    return float(model.run_sync(x=ROW)["y"][0, 0])


def test_models_of_the_same_bytes_share_a_session(tmp_path: Path) -> None:
    one = OnnxModel(graphs.scaled(tmp_path / "one.onnx", 2))
    other = OnnxModel(graphs.scaled(tmp_path / "other.onnx", 2))
    third = OnnxModel(graphs.scaled(tmp_path / "third.onnx", 3))
    assert one.session is other.session
    assert one.session is not third.session
    assert one.session is not OnnxModel(tmp_path / "one.onnx", threads=2).session
    assert (factor_of(one), factor_of(other), factor_of(third)) == (2, 2, 3)


def test_what_was_not_used_for_longest_is_let_go(tmp_path: Path, ceiling: int) -> None:
    models = [OnnxModel(graphs.scaled(tmp_path / f"{factor}.onnx", factor)) for factor in (2, 3, 4)]
    assert loaded_bytes() == 0
    for model in models[:2]:
        factor_of(model)
    assert 2 * ceiling <= loaded_bytes() <= 2.5 * ceiling
    factor_of(models[0])  # used again
    assert factor_of(models[2]) == 4
    assert [is_loaded(model) for model in models] == [True, False, True]
    assert loaded_bytes() <= 2.5 * ceiling
    assert factor_of(models[1]) == 3  # opened again, as if nothing had been
    assert [is_loaded(model) for model in models] == [False, True, True]
    assert models[0].statistics.calls == 2


def test_models_of_the_same_bytes_take_room_once(tmp_path: Path, ceiling: int) -> None:
    models = [OnnxModel(graphs.scaled(tmp_path / f"{number}.onnx", 2)) for number in range(6)]
    for model in models:
        factor_of(model)
    assert all(is_loaded(model) for model in models)
    assert loaded_bytes() < 2 * ceiling
    other = OnnxModel(graphs.scaled(tmp_path / "other.onnx", 3))
    factor_of(other)
    assert all(is_loaded(model) for model in [*models, other])


def test_a_lower_ceiling_holds_at_once(tmp_path: Path, ceiling: int) -> None:
    models = [OnnxModel(graphs.scaled(tmp_path / f"{factor}.onnx", factor)) for factor in (2, 3)]
    for model in models:
        factor_of(model)
    set_memory_limit(int(1.5 * ceiling))
    assert [is_loaded(model) for model in models] == [False, True]


def test_a_model_above_the_ceiling_is_refused_by_name(tmp_path: Path, ceiling: int) -> None:
    path = graphs.scaled(tmp_path / "large.onnx", 2)
    keeps = OnnxModel(graphs.scaled(tmp_path / "keeps.onnx", 3))
    factor_of(keeps)
    set_memory_limit(memory_of(path.read_bytes()) - 1)
    with pytest.raises(ModelRejected, match=r"large\.onnx.*set_memory_limit"):
        factor_of(OnnxModel(path))
    set_memory_limit(memory_of(path.read_bytes()))
    assert factor_of(OnnxModel(path)) == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_a_ceiling_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        set_memory_limit(limit)


async def test_a_run_under_way_keeps_a_session_that_is_let_go(tmp_path: Path, ceiling: int) -> None:
    models = [OnnxModel(graphs.scaled(tmp_path / f"{factor}.onnx", factor)) for factor in (2, 3, 4, 5)]
    for _ in range(5):  # more than there is room for, all at once
        found = await asyncio.gather(*(model.run(x=ROW) for model in models for _ in range(4)))
        assert [float(each["y"][0, 0]) for each in found] == [factor for factor in (2, 3, 4, 5) for _ in range(4)]
    assert sum(is_loaded(model) for model in models) < 4


async def test_a_file_that_changed_while_it_was_let_go_is_refused(tmp_path: Path, ceiling: int) -> None:
    path = graphs.scaled(tmp_path / "model.onnx", 2)
    model = OnnxModel(path)
    assert factor_of(model) == 2
    model._current().let_go()
    graphs.scaled(path, 666)
    with pytest.raises(ModelRejected, match="sha256"):
        factor_of(model)
    found = await model.run_many([{"x": ROW}] * 3)
    assert [str(each).split(":")[0] for each in found] == ["item 0", "item 1", "item 2"]
    assert all(isinstance(each, ModelRejected) and str(each).count("item") == 1 for each in found)
    graphs.scaled(path, 2)
    assert factor_of(model) == 2
    assert factor_of(OnnxModel(path)) == 2


async def test_a_model_that_was_let_go_is_not_opened_on_a_loops_thread(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "model.onnx", 2))
    for _ in range(3):
        await model.run(x=ROW)
    service = model._current()
    opened: list[int] = []
    real = service._open

    def note(path: Path, sha256: str | None) -> Session:
        opened.append(threading.get_ident())
        return real(path, sha256)

    service._open = note  # type: ignore[method-assign]
    await settled(service.batcher)
    service.let_go()
    assert (await model.run(x=ROW))["y"].tolist() == [[2, 4, 6]]
    assert len(opened) == 1
    assert opened != [threading.get_ident()]


# Warming up.


def test_warming_up_opens_and_tries(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "model.onnx", 2))
    assert model.warm_up().result(GUARD) is None
    assert is_loaded(model)
    assert model.statistics.runs == 0
    assert not model.sizes.joined
    assert model.warm_up(x=ROW).result(GUARD) is None
    assert model.sizes.joined
    assert model.sizes.max_cells >= 3


def test_warming_up_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"nowhere\.onnx"):
        OnnxModel(tmp_path / "nowhere.onnx").warm_up().result(GUARD)
    model = OnnxModel(graphs.logarithms(tmp_path / "log.onnx"))
    with pytest.raises(ModelFailed, match="missing or unknown"):
        model.warm_up(z=ROW).result(GUARD)
    with pytest.raises(ModelFailed, match="not finite"):
        model.warm_up(x=-ROW).result(GUARD)
    assert model.warm_up(x=ROW).result(GUARD) is None


# Swapping.


async def test_a_swap_under_load_drops_no_call(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "old.onnx", 2))
    await asyncio.wrap_future(model.warm_up(x=ROW))
    new = graphs.scaled(tmp_path / "new.onnx", 3)
    stop = asyncio.Event()
    found: list[float] = []

    async def caller() -> None:
        while not stop.is_set():
            found.append(float((await model.run(x=ROW))["y"][0, 0]))

    callers = [asyncio.create_task(caller()) for _ in range(16)]
    await asyncio.sleep(0)
    for path in (new, tmp_path / "old.onnx", new):
        await model.swap(path)
        before = len(found)
        await until(lambda before=before: len(found) >= before + 100)
    stop.set()
    await asyncio.gather(*callers)
    assert set(found) == {2.0, 3.0}
    assert (await model.run(x=ROW))["y"].tolist() == [[3, 6, 9]]
    assert model.path == new
    assert pickle.loads(pickle.dumps(model)).path == new


async def test_new_content_of_the_same_path_is_taken_when_told(tmp_path: Path) -> None:
    path = graphs.scaled(tmp_path / "model.onnx", 2)
    model = OnnxModel(path)
    assert factor_of(model) == 2
    graphs.scaled(path, 3)
    assert factor_of(model) == 2
    await model.swap()
    assert factor_of(model) == 3
    model._current().let_go()
    assert factor_of(model) == 3


async def test_a_swap_that_cannot_be_keeps_the_old(tmp_path: Path) -> None:
    old = graphs.scaled(tmp_path / "old.onnx", 2)
    model = OnnxModel(old)
    assert factor_of(model) == 2
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    good = graphs.scaled(tmp_path / "good.onnx", 3)
    fails = graphs.graph(
        tmp_path / "fails.onnx",
        [graphs.helper.make_node("Log", ["negative"], ["nan"]), graphs.helper.make_node("Mul", ["x", "nan"], ["y"])],
        {"x": (graphs.FLOAT, ("n", "length"))},
        {"y": (graphs.FLOAT, ("n", "length"))},
        negative=np.float32(-1),
    )
    for path, sha256, says in [
        (tmp_path / "nowhere.onnx", None, "cannot be read"),
        (tmp_path / "garbage.onnx", None, "is not a model|is refused"),
        (graphs.position_mean(tmp_path / "outputs.onnx"), None, "other inputs or outputs"),
        (graphs.table(tmp_path / "inputs.onnx"), None, "other inputs or outputs"),
        (good, "0" * 64, "sha256"),
        (fails, None, r"fails where old\.onnx did not"),
    ]:
        with pytest.raises(ModelRejected, match=says):
            await model.swap(path, sha256=sha256)
        assert factor_of(model) == 2
        assert model.path == old
    await model.swap(good, sha256=hashlib.sha256(good.read_bytes()).hexdigest())
    assert factor_of(model) == 3


async def test_what_was_found_out_of_the_old_one_is_not_believed_of_the_new(tmp_path: Path) -> None:
    shape = (graphs.FLOAT, ("n", "length"))
    old = graphs.graph(
        tmp_path / "old.onnx", [graphs.helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape}
    )
    model = OnnxModel(old)
    await asyncio.wrap_future(model.warm_up(x=ROW))
    assert model.sizes.joined
    await model.swap(graphs.batch_mean(tmp_path / "new.onnx"))
    assert not model.sizes.joined
    await asyncio.wrap_future(model.warm_up(x=ROW))
    assert not model.sizes.joined
    found = await asyncio.gather(*(model.run(x=number * ROW) for number in range(10)))
    assert not np.concatenate([each["y"] for each in found]).any()
    await model.swap(old)
    await asyncio.wrap_future(model.warm_up(x=ROW))
    assert model.sizes.joined


def test_calls_that_were_put_together_before_a_swap_run_singly_after_it(tmp_path: Path, hand: Hand) -> None:
    shape = (graphs.FLOAT, ("n", "length"))
    old = graphs.graph(
        tmp_path / "old.onnx", [graphs.helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape}
    )
    new = graphs.batch_mean(tmp_path / "new.onnx")
    model = OnnxModel(old)
    model.session  # noqa: B018
    service = model._current()
    service.batcher.sizes = Sizes(joined=True, padded=True)
    serve, sizes = service.serve, []

    def swap_first(batch: Batch) -> None:
        sizes.append(len(batch.calls))
        service.swap(new, None)
        serve(batch)

    service.batcher._serve = swap_first
    came: list[Call] = []
    for number in range(4):
        call = service.call({"x": number * ROW}, None, None)
        call.deliver = came.append
        service.batcher.put(call)
    hand.run_all()
    assert max(sizes) > 1
    assert [call.error for call in came] == [None] * 4
    assert not any(call.result["y"].any() for call in came)  # each less its own mean: nothing of its neighbours'


# Closing.


async def test_closing_answers_what_was_asked_and_refuses_what_comes(tmp_path: Path) -> None:
    model = OnnxModel(graphs.scaled(tmp_path / "model.onnx", 2))
    model.session  # noqa: B018
    asked = [asyncio.create_task(model.run(x=ROW)) for _ in range(20)]
    await asyncio.sleep(0)
    assert await model.aclose(GUARD)
    assert len(await asyncio.gather(*asked)) == 20
    assert not is_loaded(model)
    with pytest.raises(ModelFailed, match=r"model\.onnx was closed.*anew"):
        await model.run(x=ROW)
    with pytest.raises(ModelFailed, match="was closed"):
        model.run_sync(x=ROW)
    found = await model.run_many([{"x": ROW}] * 3)
    assert all(isinstance(each, ModelFailed) for each in found)
    assert not is_loaded(model)
    assert model.close()
    assert factor_of(OnnxModel(tmp_path / "model.onnx")) == 2


async def test_closing_gives_up_waiting_when_told(endless: Path) -> None:
    model = OnnxModel(endless)
    await model.run(trips=np.int64(1), x=[0.0])
    task = asyncio.create_task(model.run(trips=np.int64(2**40), x=[0.0]))
    await asyncio.sleep(0)
    assert not await model.aclose(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert await model.aclose(GUARD)


def test_closing_one_that_was_never_opened_is_no_trouble(tmp_path: Path) -> None:
    model = OnnxModel(tmp_path / "nowhere.onnx")
    assert model.close(0)
