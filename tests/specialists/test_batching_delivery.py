"""Calls of many callers in one queue: answers reach each in its own thread and loop, once; what is paid; the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import DeadlinePassed, ModelFailed, Overloaded, batching
from specialists.batching import Batcher
from specialists.calls import Batch, Call, Sizes
from specialists.metering import CpuMeter

from .batchers import APART, EQUAL, GUARD, PADDED, Caller, Echo, Gate, Hand, ask, batcher_of, by_hand, settled

# Threads and loops.


def test_callers_may_sit_in_any_thread_and_event_loop() -> None:
    serve = Echo()
    batcher = batcher_of(serve, PADDED, width=2)

    def one(number: int) -> list[int]:
        async def many() -> list[int]:
            return list(await asyncio.gather(*(ask(batcher, number, 1 + each % 5) for each in range(20))))

        if number % 2:
            return asyncio.run(many())
        came = threading.Event()
        caller = Caller(batcher)
        calls = [caller.make(number, 1 + each % 5) for each in range(20)]

        def deliver(call: Call) -> None:
            caller.came.append(call)
            if len(caller.came) == 20:
                came.set()

        for call in calls:
            call.deliver = deliver
            batcher.put(call)
        assert came.wait(GUARD)
        return caller.answers

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(16)))
    assert results == [[number] * 20 for number in range(16)]
    assert batcher.close(GUARD)
    assert batcher.statistics.calls == 320


def test_a_loop_that_was_closed_harms_nobody_else(hand: Hand) -> None:
    serve = Echo()
    batcher = batcher_of(serve)
    caller = Caller(batcher)
    closed = asyncio.new_event_loop()
    dead = Call("dead", caller.came.append, closed, None, 1, 1, 1)
    batcher.put(dead)
    closed.close()
    caller.put("alive")
    hand.run_all()
    assert serve.batches == [["dead", "alive"]]
    assert caller.answers == ["alive"]
    assert batcher.idle


def test_a_loop_that_ended_before_the_workers_were_called_does_not_keep_others_from_closing() -> None:
    batcher = batcher_of(Echo())
    loop = asyncio.new_event_loop()
    batcher.put(Call("left behind", lambda call: None, loop, None, 1, 1, 1))
    loop.close()
    assert batcher.close(GUARD)


def test_an_answer_that_cannot_be_delivered_keeps_no_other_from_coming(hand: Hand) -> None:
    batcher = batcher_of(Echo())
    caller = Caller(batcher)

    def raises(call: Call) -> None:
        raise RuntimeError("the caller's own")

    broken = caller.make("broken")
    broken.deliver = raises
    batcher.put_many([caller.make("before"), broken, caller.make("after")])
    hand.run_all()
    assert caller.answers == ["before", "after"]
    caller.put("later")
    hand.run_all()
    assert caller.answers[-1] == "later"


def test_a_short_lone_call_runs_on_the_loops_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SHORT_SECONDS", 1e9)
    serve = Echo()
    batcher = batcher_of(serve)

    async def main() -> None:
        for number in range(3):
            assert await ask(batcher, number) == number
            await asyncio.to_thread(lambda: None)
        batcher.steady = True
        await settled(batcher)
        assert await ask(batcher, "here") == "here"
        assert await asyncio.gather(*(ask(batcher, number) for number in range(3))) == [0, 1, 2]
        await settled(batcher)
        monkeypatch.setattr(batching, "SHORT_SECONDS", 0.0)
        assert await ask(batcher, "long") == "long"

    asyncio.run(main())
    here = threading.get_ident()
    own = [batch for batch, thread in zip(serve.batches, serve.threads, strict=True) if thread == here]
    assert own == [["here"]]  # not an unsteady one, not the first, not one of several, not a long one
    assert batcher.idle


def test_the_first_call_of_a_steady_model_does_not_run_on_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SHORT_SECONDS", 1e9)
    serve = Echo()
    batcher = batcher_of(serve)
    batcher.steady = True
    assert asyncio.run(ask(batcher, 1)) == 1
    assert serve.threads != [threading.get_ident()]


# What it costs.


def test_the_shares_of_cpu_time_add_up(hand: Hand) -> None:
    def spin(batch: Batch) -> None:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass

    batcher = batcher_of(Echo(spin), PADDED)
    caller = Caller(batcher)
    meters = []
    for number in range(50):
        meters.append(CpuMeter())
        caller.put(number, 1 + number % 7, rows=1 + number % 3, meter=meters[-1])
    hand.run_all()
    statistics = batcher.statistics
    assert statistics.cpu_seconds >= 0.002 * statistics.runs
    assert sum(meter.low for meter in meters) == pytest.approx(statistics.cpu_seconds, rel=1e-9)
    assert all(0 < meter.low == meter.high for meter in meters)


def test_a_share_is_by_rows_and_what_comes_after_is_nobodys(hand: Hand) -> None:
    came: list[int] = []

    def spin() -> None:
        came.append(len(caller.came))
        start = time.thread_time()
        while time.thread_time() < start + 0.01:
            pass
        raise ValueError("harms nobody")

    def after(batch: Batch) -> None:
        batch.after = spin

    batcher = batcher_of(Echo(after))
    caller = Caller(batcher)
    meters = {rows: CpuMeter() for rows in (1, 3)}
    batcher.put_many([caller.make(rows, rows=rows, meter=meter) for rows, meter in meters.items()])
    hand.run_all()
    assert came == [2]  # nobody waited for it
    assert batcher.statistics.runs == 1
    assert batcher.statistics.cpu_seconds < 0.01
    assert meters[3].low == pytest.approx(3 * meters[1].low)


def test_a_call_that_was_given_up_pays_between_nothing_and_the_time_it_ran(hand: Hand) -> None:
    def give_up(batch: Batch) -> None:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        batcher.cancel(batch.calls[0])

    batcher = batcher_of(Echo(give_up))
    caller = Caller(batcher)
    gone, stays = CpuMeter(), CpuMeter()
    batcher.put_many([caller.make("gone", meter=gone), caller.make("stays", meter=stays)])
    hand.run_all()
    assert caller.answers == ["stays"]
    assert 0 < gone.low <= gone.high
    assert gone.high >= 0.002
    assert gone.low + stays.low == pytest.approx(batcher.statistics.cpu_seconds)


def test_a_run_counts_once_for_who_runs_it_itself() -> None:
    batcher = batcher_of(Echo(), width=1)
    caller = Caller(batcher)
    assert batcher.enter()
    assert not batcher.enter()  # no place is free
    batcher.count_own(caller.make("own", 5), 0.5)
    batcher.leave()
    assert batcher.idle
    statistics = batcher.statistics
    assert (statistics.runs, statistics.calls, statistics.cells, statistics.cpu_seconds) == (1, 1, 5, 0.5)


def test_who_waits_while_another_runs_by_itself_is_served_after(hand: Hand) -> None:
    batcher = batcher_of(Echo(), width=1)
    caller = Caller(batcher)
    assert batcher.enter()
    caller.put("waits")
    assert not batcher.enter()
    batcher.leave()
    hand.run_all()
    assert caller.answers == ["waits"]


def test_the_statistics_are_a_copy() -> None:
    batcher = batcher_of(Echo())
    batcher.statistics.runs += 5
    assert batcher.statistics.runs == 0
    assert batcher.statistics.padding_share == 0


# The end.


async def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    gate = Gate()
    batcher = batcher_of(Echo(gate))
    asked = [asyncio.create_task(ask(batcher, 0))]
    await gate.reached()
    asked += [asyncio.create_task(ask(batcher, number)) for number in range(1, 5)]
    await asyncio.sleep(0)
    assert not batcher.close(0.01)
    with pytest.raises(ModelFailed, match="model was closed"):
        await ask(batcher, "late")
    with pytest.raises(ModelFailed, match="open the model anew"):
        batcher.enter()
    closing = asyncio.create_task(asyncio.to_thread(batcher.close, GUARD))
    gate.open()
    assert await closing
    assert await asyncio.gather(*asked) == [0, 1, 2, 3, 4]
    assert batcher.close()


async def test_closing_does_not_wait_for_calls_that_are_given_up() -> None:
    batcher = batcher_of(Echo())
    call = Call(1, lambda call: None, asyncio.get_running_loop(), None, 1, 1, 1)
    batcher.put(call)  # the workers are called in the loop's next turn
    closing = asyncio.get_running_loop().run_in_executor(None, batcher.close, GUARD)
    while not batcher._closed:
        time.sleep(0.001)  # noqa: ASYNC251 - the loop must not turn
    batcher.cancel(call)
    async with asyncio.timeout(GUARD / 2):
        assert await closing


def test_closing_an_idle_one_is_done_at_once() -> None:
    batcher = batcher_of(Echo())
    assert batcher.close()
    assert batcher.close(0)


# What goes wrong in a run.


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_run_that_raises_fails_its_own_calls_only(hand: Hand, error: BaseException) -> None:
    def fail(batch: Batch) -> None:
        if "bad" in [call.arguments for call in batch.calls]:
            raise error

    batcher = batcher_of(Echo(fail))
    caller = Caller(batcher)
    for arguments, length in (("bad", 1), ("beside", 1), ("good", 2)):
        caller.put(arguments, length)
    hand.run_all()
    errors = {call.arguments: call.error for call in caller.came}
    assert errors["good"] is None
    assert isinstance(errors["bad"], ValueError | ModelFailed)
    assert isinstance(errors["beside"], ValueError | ModelFailed)
    assert errors["bad"] is not errors["beside"]  # each caller may write into its own
    assert str(errors["bad"]) == str(errors["beside"])
    assert batcher.idle
    caller.put("later")
    hand.run_all()
    assert caller.answers[-1] == "later"


def test_calls_that_were_answered_are_not_kept(hand: Hand) -> None:
    """A queue that is never empty holds what waits, and nothing of what was."""

    class Token:
        pass

    for sizes in (APART, EQUAL, PADDED):
        batcher = batcher_of(Echo(), sizes)
        batcher._serve = lambda batch: [setattr(call, "result", True) for call in batch.calls]  # type: ignore[assignment]
        alive: weakref.WeakSet[Token] = weakref.WeakSet()

        def put(number: int, batcher: Batcher = batcher, alive: weakref.WeakSet[Token] = alive) -> None:
            token = Token()
            alive.add(token)
            batcher.put(Call(token, lambda call: None, None, None, 1, 1, 1, number % 3))

        for number in range(200):
            put(2 * number)
            put(2 * number + 1)
            hand.run()
            if sizes is not APART:
                put(number)
        gc.collect()
        assert len(alive) < batcher.waiting + 10, sizes
        hand.run_all()
        gc.collect()
        assert not alive


# Whatever happens.


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(1, 6),  # length
            st.integers(1, 3),  # rows
            st.sampled_from(["a", "b", None]),  # caller
            st.sampled_from(["shaped", "alone", "late"]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("cancel in the next run"), st.integers(0, 40)),
        st.tuples(st.just("put in the next run"), st.integers(1, 6)),
        st.tuples(st.just("run")),
    ),
    max_size=60,
)


@given(
    OPERATIONS,
    st.sampled_from([APART, EQUAL, PADDED, Sizes(joined=True, padded=True, run_cells=4, max_cells=10)]),
    st.integers(1, 3),
)
def test_every_call_is_delivered_once_or_given_up(operations: list[tuple[Any, ...]], sizes: Sizes, width: int) -> None:
    calls: list[Call] = []
    served: list[Call] = []
    delivered: list[Call] = []
    given_up: list[Call] = []
    expired: list[Call] = []
    refused = 0
    soon: list[Callable[[], None]] = []

    def serve(batch: Batch) -> None:
        for each in [soon.pop(0) for _ in range(len(soon))]:
            each()
        group = batch.calls
        served.extend(group)
        rows, longest = sum(call.rows for call in group), max(call.length for call in group)
        if len(group) > 1:
            assert sizes.joined
            assert all(call.shape is not None for call in group)
            assert sizes.padded or len({call.shape for call in group}) == 1
            assert rows * longest <= sizes.max_cells
        for call in group:
            call.result = call.arguments

    batcher = batcher_of(serve, sizes, width, queue_limit=12)

    def put(length: int, rows: int = 1, caller: str | None = None, kind: str = "shaped") -> None:
        nonlocal refused
        shape = None if kind == "alone" else length
        deadline = 0.0 if kind == "late" else None
        call = Call(len(calls), delivered.append, None, None, rows, length, shape, caller, deadline)
        try:
            batcher.put(call)
        except Overloaded:
            refused += 1
        else:
            calls.append(call)
            if kind == "late":
                expired.append(call)

    def cancel(index: int) -> None:
        if index < len(calls) and calls[index] not in given_up and calls[index] not in delivered:
            call = calls[index]
            assert call not in served or call.batch is not None
            given_up.append(call)
            batcher.cancel(call)

    with by_hand() as hand:
        for operation, *rest in operations:
            if operation == "put":
                put(*rest)
            elif operation == "cancel":
                cancel(*rest)
            elif operation == "cancel in the next run":
                soon.append(lambda rest=rest: cancel(*rest))  # type: ignore[misc]
            elif operation == "put in the next run":
                soon.append(lambda rest=rest: put(*rest))  # type: ignore[misc]
            else:
                hand.run()
        assert batcher.waiting <= 12
        hand.run_all()

    assert batcher.idle
    assert len(set(map(id, served))) == len(served)
    assert len(set(map(id, delivered))) == len(delivered)
    assert {id(call) for call in delivered} == {id(call) for call in calls} - {id(call) for call in given_up}
    for call in delivered:
        late = isinstance(call.error, DeadlinePassed)
        assert late == (call in expired)
        assert late or call.result == call.arguments
    statistics = batcher.statistics
    assert statistics.calls == len(served)
    assert statistics.cells == sum(call.rows * call.length for call in served)
    assert statistics.expired == sum(call in expired for call in delivered)
    assert statistics.cancelled == len(given_up)
    assert statistics.refused == refused
    assert statistics.runs <= len(served)
    if not sizes.padded:
        assert statistics.padding == 0
    wait = batcher.expected_wait()
    assert wait is None or wait == 0
    assert not batcher._shelves
    assert not batcher._sorted
