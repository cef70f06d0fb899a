"""Calls of many callers in one queue: who goes with whom, who comes first, and who never runs.

Most tests drive the workers by hand, so that what is in the queue when a worker comes free is known to the call.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from specialists import DeadlinePassed, Overloaded
from specialists.calls import Batch, Call, Sizes

from .batchers import APART, EQUAL, GUARD, PADDED, Caller, Echo, Gate, Hand, ask, batcher_of

# What shares a run.


async def test_calls_that_wait_while_a_run_is_under_way_share_the_next() -> None:
    gate = Gate()
    serve = Echo(gate)
    batcher = batcher_of(serve)
    first = asyncio.create_task(ask(batcher, 0))
    await gate.reached()
    others = [asyncio.create_task(ask(batcher, number)) for number in range(1, 11)]
    await asyncio.sleep(0)
    assert batcher.waiting == 10
    gate.open()
    assert await asyncio.gather(first, *others) == list(range(11))
    assert serve.batches == [[0], list(range(1, 11))]
    statistics = batcher.statistics
    assert (statistics.runs, statistics.calls, statistics.largest, statistics.padding) == (2, 11, 10, 0)


async def test_calls_of_one_turn_of_the_loop_go_together() -> None:
    serve = Echo()
    batcher = batcher_of(serve)
    assert await asyncio.gather(*(ask(batcher, number) for number in range(8))) == list(range(8))
    assert serve.batches == [list(range(8))]


async def test_a_lone_call_waits_for_nobody_and_there_is_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[float] = []

    def later(delay: float, *rest: Any, **more: Any) -> Any:
        timers.append(delay)
        return asyncio.BaseEventLoop.call_at(loop, loop.time() + delay, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_later", later)
    monkeypatch.setattr(threading, "Timer", None)
    serve = Echo()
    batcher = batcher_of(serve, PADDED)
    for number in range(5):
        assert await ask(batcher, number) == number
    assert serve.batches == [[number] for number in range(5)]
    assert not timers


def test_two_calls_on_two_idle_workers_are_two_runs(hand: Hand) -> None:
    serve = Echo()
    batcher = batcher_of(serve, width=2)
    caller = Caller(batcher)
    batcher.put_many([caller.make("one"), caller.make("two")])
    assert len(hand.jobs) == 2  # two workers are called
    hand.run_all()
    assert serve.batches == [["one"], ["two"]]


def test_four_calls_on_two_idle_workers_are_two_runs_of_two(hand: Hand) -> None:
    def the_other_too(batch: Batch) -> None:
        if len(serve.batches) == 1:
            hand.run()

    serve = Echo(the_other_too)
    batcher = batcher_of(serve, width=2)
    caller = Caller(batcher)
    batcher.put_many([caller.make(number) for number in range(4)])
    hand.run_all()
    assert serve.batches == [[0, 1], [2, 3]]


def test_calls_that_may_not_share_a_run_do_not(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, APART))
    for number in range(4):
        caller.put(number)
    hand.run_all()
    assert serve.batches == [[0], [1], [2], [3]]
    serve.batches.clear()
    caller.batcher.sizes = PADDED
    for number in range(3):
        caller.put(number, shape=None)  # each by itself, whatever the sizes say
    caller.put("shaped", 3)
    hand.run_all()
    assert sorted(len(batch) for batch in serve.batches) == [1, 1, 1, 1]


def test_only_equal_shapes_go_together_where_nothing_is_filled_up(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, EQUAL))
    for number in range(12):
        caller.put(number, 1 + number % 3)
    hand.run_all()
    assert serve.batches == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert caller.batcher.statistics.padding == 0


def test_a_batch_is_no_larger_than_pays(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, Sizes(joined=True, padded=True, run_cells=64, max_cells=64)))
    for number in range(40):
        caller.put(number, 16)
    caller.put("long", 400)  # larger than any batch by itself: it runs all the same
    hand.run_all()
    assert [len(batch) for batch in serve.batches] == [4] * 10 + [1]


def test_calls_of_several_rows_count_as_many(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, Sizes(joined=True, padded=False, run_cells=64, max_cells=10)))
    for number, rows in enumerate((4, 4, 4, 20, 1)):
        caller.put(number, 1, rows=rows)
    hand.run_all()
    assert serve.batches == [[0, 1], [2], [3], [4]]
    assert caller.batcher.statistics.cells == 33


# How little is filled up.


def lognormal(count: int) -> list[int]:
    chance = random.Random(1)
    return [min(128, max(4, round(chance.lognormvariate(3.0, 0.8)))) for _ in range(count)]


def padding_in_order(lengths: list[int], size: int) -> float:
    """The share of padding when batches are what came one after the other."""
    every = useful = 0
    for start in range(0, len(lengths), size):
        batch = lengths[start : start + size]
        every += len(batch) * max(batch)
        useful += sum(batch)
    return 1 - useful / every


def test_neighbours_in_length_go_together_and_little_is_filled_up(hand: Hand) -> None:
    lengths = lognormal(2000)
    serve = Echo()
    caller = Caller(batcher_of(serve, PADDED))
    for length in lengths:
        caller.put(length, length)
    hand.run_all()
    statistics = caller.batcher.statistics
    assert statistics.calls == 2000
    assert statistics.runs < 300  # they were joined
    in_order = padding_in_order(lengths, round(2000 / statistics.runs))
    assert in_order > 0.4
    assert statistics.padding_share < 0.05
    every = sum(len(batch) * max(batch) for batch in serve.batches)
    assert statistics.padding == every - sum(lengths)


@pytest.mark.parametrize(("callers", "most"), [(16, 0.30), (64, 0.15), (256, 0.06)])
def test_little_is_filled_up_while_calls_come_and_go(hand: Hand, callers: int, most: float) -> None:
    """As many calls wait at any time; whoever is answered asks anew."""
    lengths = lognormal(4000)
    following = iter(lengths[callers:])
    serve = Echo()
    batcher = batcher_of(serve, PADDED)
    asked = Caller(batcher)

    def again(call: Call) -> None:
        length = next(following, None)
        if length is not None:
            batcher.put(Call(length, again, None, None, 1, length, length))

    for length in lengths[:callers]:
        batcher.put(Call(length, again, None, None, 1, length, length))
    hand.run_all()
    assert not asked.came
    statistics = batcher.statistics
    assert statistics.calls == 4000
    in_order = padding_in_order(lengths, max(2, round(4000 / statistics.runs)))
    assert statistics.padding_share < min(most, in_order / 1.3)
    assert statistics.runs < 4000 / 2


# Who comes first.


def test_the_oldest_call_is_in_the_next_run_however_odd(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, PADDED))
    for number in range(100):
        caller.put(number, 8)
    caller.put("odd", 128)
    for number in range(100, 600):  # a stream of calls that are cheaper together
        caller.put(number, 8)
        if number % 20 == 0:
            hand.run()
    hand.run_all()
    first = next(index for index, batch in enumerate(serve.batches) if "odd" in batch)
    older = [index for index, batch in enumerate(serve.batches) if set(batch) & set(range(100))]
    assert first <= max(older) + 1
    assert first <= 2


def test_callers_take_turns_at_the_head(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve, APART))
    for number in range(100):
        caller.put(("flood", number), caller="flood")
    for number in range(3):
        caller.put(("quiet", number), caller="quiet")
    caller.put(("third", 0), caller="third")
    hand.run_all()
    order = [batch[0] for batch in serve.batches]
    assert order.index(("third", 0)) <= 2
    assert [order.index(("quiet", number)) for number in range(3)] == [1, 4, 6]
    assert [name for name in order if name[0] == "flood"] == [("flood", number) for number in range(100)]


@pytest.mark.parametrize("how", ["cancelled", "expired", "joined"])
def test_calls_that_are_gone_take_no_turn(hand: Hand, how: str) -> None:
    """Who gave up fifty calls, or had them served beside others', is not fifty turns behind with the next."""
    serve = Echo()
    caller = Caller(batcher_of(serve, EQUAL if how == "joined" else APART))
    caller.put("first", 1, caller="flood")
    past = time.monotonic() - 1 if how == "expired" else None
    gone = [caller.put(number, 2, caller="quiet", deadline=past) for number in range(50)]
    for number in range(100):
        caller.put(("flood", number), 100 + number, caller="flood")
    if how == "cancelled":
        for call in gone:
            caller.batcher.cancel(call)
    if how == "joined":  # another's call takes all fifty with it
        caller.put("other", 2, caller="other")
        hand.run(2)
    caller.put("next", 3, caller="quiet")
    serve.batches.clear()
    hand.run(4)
    assert ["next"] in serve.batches


# What is refused, and what never runs.


def test_a_full_queue_refuses_and_says_how_long_the_wait_is(hand: Hand) -> None:
    serve = Echo()
    batcher = batcher_of(serve, queue_limit=3)
    caller = Caller(batcher)
    for number in range(3):
        caller.put(number)
    with pytest.raises(Overloaded, match="model: 3 calls wait already; come back later") as caught:
        caller.put("too many")
    assert caught.value.wait is None  # nothing ran yet: unknown is not zero
    assert batcher.statistics.refused == 1
    hand.run_all()
    assert caller.answers == [0, 1, 2]
    for number in range(3):
        caller.put(number)
    with pytest.raises(Overloaded, match="would wait about") as caught:
        caller.put("too many")
    assert caught.value.wait is not None
    assert caught.value.wait > 0
    assert batcher.expected_wait() == caught.value.wait
    hand.run_all()
    assert len(caller.came) == 6
    assert batcher.expected_wait() == 0


def test_of_calls_that_come_together_all_are_taken_or_none(hand: Hand) -> None:
    caller = Caller(batcher_of(Echo(), queue_limit=3))
    caller.put(0)
    with pytest.raises(Overloaded):
        caller.batcher.put_many([caller.make(number) for number in range(3)])
    assert caller.batcher.waiting == 1
    assert caller.batcher.statistics.refused == 3
    caller.batcher.put_many([caller.make(number) for number in (1, 2)])
    hand.run_all()
    assert sorted(caller.answers) == [0, 1, 2]


def test_a_call_cancelled_in_the_queue_is_never_served(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve))
    calls = [caller.put(number) for number in range(6)]
    for call in calls[::2]:
        caller.batcher.cancel(call)
    assert caller.batcher.waiting == 3
    hand.run_all()
    assert serve.batches == [[1, 3, 5]]
    assert caller.answers == [1, 3, 5]
    assert caller.batcher.statistics.cancelled == 3
    assert caller.batcher.statistics.calls == 3


def test_a_run_is_stopped_when_no_live_call_is_left_in_it_and_not_before(hand: Hand) -> None:
    options = SimpleNamespace(terminate=False)
    seen = []

    def cancel_in_turn(batch: Batch) -> None:
        batch.options = options
        for call in list(batch.calls):
            seen.append(options.terminate)
            batcher.cancel(call)
            batcher.cancel(call)  # said twice, counted once
        seen.append(options.terminate)

    batcher = batcher_of(Echo(cancel_in_turn))
    caller = Caller(batcher)
    batcher.put_many([caller.make(number) for number in range(3)])
    hand.run_all()
    assert seen == [False, False, False, True]
    assert not caller.came
    assert batcher.statistics.cancelled == 3


def test_a_run_that_has_not_begun_yet_is_told_that_it_is_not_wanted(hand: Hand) -> None:
    def cancel_early(batch: Batch) -> None:
        assert batch.options is None
        batcher.cancel(batch.calls[0])
        assert batch.stopped

    batcher = batcher_of(Echo(cancel_early))
    caller = Caller(batcher)
    caller.put(1)
    hand.run_all()
    assert not caller.came


async def test_cancelled_tasks_leave_the_queue_and_the_run() -> None:
    options = SimpleNamespace(terminate=False)
    entered = threading.Event()

    def until_stopped(batch: Batch) -> None:
        batch.options = options
        entered.set()
        end = time.monotonic() + GUARD
        while not options.terminate and time.monotonic() < end:
            time.sleep(0.001)

    serve = Echo(until_stopped)
    batcher = batcher_of(serve)
    running = [asyncio.create_task(ask(batcher, number)) for number in range(2)]
    assert await asyncio.to_thread(entered.wait, GUARD)
    queued = asyncio.create_task(ask(batcher, "queued"))
    await asyncio.sleep(0)
    queued.cancel()
    running[0].cancel()
    await asyncio.wait([queued, running[0]])
    assert not options.terminate
    running[1].cancel()
    await asyncio.wait(running)
    assert options.terminate
    async with asyncio.timeout(GUARD):
        assert await asyncio.to_thread(batcher.close)
    assert serve.batches == [[0, 1]]
    assert batcher.statistics.cancelled == 3


def test_a_call_whose_deadline_passed_in_the_queue_is_not_served(hand: Hand) -> None:
    serve = Echo()
    caller = Caller(batcher_of(serve))
    now = time.monotonic()
    caller.put("head", deadline=now - 1)
    caller.put("in time", deadline=now + 1000)
    caller.put("neighbour", deadline=now - 1)
    caller.put("without")
    hand.run_all()
    assert serve.batches == [["in time", "without"]]
    errors = [call.arguments for call in caller.came if isinstance(call.error, DeadlinePassed)]
    assert sorted(errors) == ["head", "neighbour"]
    assert "model" in str(next(call.error for call in caller.came if call.error))
    statistics = caller.batcher.statistics
    assert (statistics.expired, statistics.calls, statistics.runs) == (2, 2, 1)
