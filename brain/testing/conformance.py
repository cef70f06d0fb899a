"""What every store of a ledger promises, as one check that an application can run against its own.

It uses nothing but :class:`brain.storage.changes.Store`, and knows nothing of SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from specialists import Cost

from ..errors import BrainError, BudgetExceeded, RunBusy, RunTaken, UnknownRun
from ..storage.changes import (
    Allowance,
    Begin,
    Begun,
    Change,
    Commit,
    Finish,
    Intend,
    Release,
    Reserve,
    Settle,
    Store,
)
from ..storage.rows import LedgerRow

__all__ = ["check_store"]

PATIENCE = 60.0
"""Seconds after which a change that is not kept never will be."""
HOSTILE = (
    "'; DROP TABLE attempts; --",
    '"quoted"',
    "a\nb",
    "\x00",
    "日本語 \N{PILE OF POO}",
    "%s {0} ?1 :id",
    "x" * 100_000,
)


def check_store(make_store: Callable[[], Store]) -> None:
    """See that the stores that ``make_store`` gives keep what :class:`brain.storage.changes.Store` promises.

    ``make_store()`` gives a new and empty store each time; each is closed in the end. Raises ``AssertionError``, which
    names the promise that is not kept; takes a second or two.
    """
    for check in (
        _exact,
        _ordered,
        _whole,
        _refusing,
        _settling,
        _releasing,
        _under_threads,
        _stepping,
        _fencing,
        _apart,
        _as_data,
    ):
        store = make_store()
        try:
            check(store)
        except BrainError as error:
            raise AssertionError(
                f"the store refused what it has to take, with {type(error).__name__}: {error}"
            ) from error
        finally:
            store.close()


def _apply(store: Store, *changes: Change) -> list[Any]:
    return store.apply(changes).result(PATIENCE)


def _refused(store: Store, kind: type[BrainError], promise: str, *changes: Change) -> None:
    try:
        _apply(store, *changes)
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{promise}: it raised {type(error).__name__} instead of {kind.__name__}") from error
    raise AssertionError(f"{promise}: it was not refused with {kind.__name__}")


def _row(id: str, low: str = "0", high: str | None = None, **more: Any) -> LedgerRow:
    return LedgerRow(id, "model", "a model", cost=Cost.bounded(low, high or low), **more)


def _reserve(id: str, usd: str, allowance: Allowance, **more: Any) -> Reserve:
    return Reserve(_row(id, "0", usd), (allowance,), Decimal(usd), **more)


def _exact(store: Store) -> None:
    digits = "0.1234567890123456789012345678901234567890"
    _apply(store, *(Settle(_row(f"{each}", digits, outcome="ok", run="r")) for each in range(3)))
    (total,) = store.sums("all")
    assert total.cost.low == Decimal("0.3703703670370370367037037036703703703670"), "sums keep every digit"
    assert (total.rows, [each.key for each in store.sums("run")]) == (3, ["r"]), "sums are by what was asked"
    _apply(store, Settle(LedgerRow("4", "model", "m", cost=Cost.unpriced(), outcome="ok")))
    assert store.sums("all")[0].cost.high is None, "a sum with an unpriced row has no upper bound"


def _ordered(store: Store) -> None:
    waiting = [store.apply([Settle(_row(f"row {number}", outcome="ok"))]) for number in range(50)]
    for each in waiting:
        each.result(PATIENCE)
    assert [row.id for row in store.rows()] == [f"row {number}" for number in range(50)], (
        "lists are applied in the order in which they were handed over"
    )


def _whole(store: Store) -> None:
    room = Allowance("a", "the budget", usd=Decimal(1))
    _refused(
        store,
        BudgetExceeded,
        "a budget holds within one list",
        Settle(_row("before", outcome="ok")),
        _reserve("one", "0.6", room),
        _reserve("two", "0.6", room),
    )
    assert not store.rows(), "changes are applied as a whole or not at all: rows of a refused list are kept"
    assert not any(each.usd for each in store.spent()), (
        "changes are applied as a whole or not at all: an account bears what was refused"
    )


def _refusing(store: Store) -> None:
    wide, narrow = Allowance("wide", "wide", usd=Decimal(9)), Allowance("narrow", "narrow", calls=1)
    _apply(store, Reserve(_row("one"), (wide, narrow), Decimal(1)))
    _refused(store, BudgetExceeded, "every account needs room", Reserve(_row("two"), (wide, narrow), Decimal(1)))
    spent = {each.account: (each.usd, each.calls) for each in store.spent()}
    assert spent == {"wide": (Decimal(1), 1), "narrow": (Decimal(1), 1)}, (
        "money is set aside on every account or on none"
    )
    timed = Allowance("timed", "timed", microseconds=5_000_000)
    assert _apply(store, Reserve(_row("three"), (timed,), microseconds=3_000_000)) == [3_000_000], "time is granted"
    assert _apply(store, Reserve(_row("four"), (timed,), microseconds=3_000_000)) == [2_000_000], (
        "less time is granted where less is left"
    )
    _refused(store, BudgetExceeded, "no time is left", Reserve(_row("five"), (timed,), microseconds=1))
    assert _apply(store, Reserve(_row("six"), (wide,), microseconds=1)) == [None], "an account without a limit of time"


def _settling(store: Store) -> None:
    room = Allowance("a", "a", usd=Decimal(1))
    _apply(store, _reserve("one", "0.9", room))
    assert store.rows()[0].outcome is None, "what is set aside is a row in flight"
    assert store.spent()[0].usd == Decimal("0.9"), "what is set aside counts"
    _apply(store, Settle(_row("one", "0.25", outcome="ok")))
    assert (store.spent()[0].usd, store.spent()[0].calls) == (Decimal("0.25"), 1), "what is settled counts as it cost"
    assert store.rows()[0].outcome == "ok", "what is settled is written"
    _apply(store, _reserve("stand-in", "0.5", room))
    _apply(store, Settle(_row("two", "0.1", outcome="ok"), instead_of="stand-in"))
    assert [row.id for row in store.rows()] == ["one", "two"], "one row takes another's place"
    _apply(store, Settle(_row("three", "0.2", outcome="ok"), allowances=(room,)))
    assert store.spent()[0].usd == Decimal("0.55"), "what was not announced is borne too"


def _releasing(store: Store) -> None:
    room = Allowance("a", "a", usd=Decimal(1))
    _apply(store, _reserve("one", "1", room))
    _apply(store, Release("one"))
    assert (store.spent()[0].usd, store.spent()[0].calls) == (Decimal(0), 0), "what is released counts no more"
    assert not store.rows(), "what is released leaves no row"
    _apply(store, _reserve("two", "1", room), Settle(_row("two", "1", outcome="ok")), Release("two"))
    assert store.spent()[0].usd == 1, "what has ended is not released"
    _apply(store, Release("nobody"))


def _under_threads(store: Store) -> None:
    room = Allowance("a", "a", usd=Decimal(10))

    def take(number: int) -> bool:
        try:
            _apply(store, _reserve(f"{number}", "1", room))
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(take, range(40)))
    assert taken == 10, f"reserved room is not given twice: {taken} of 10 were taken by threads"


def _begin(store: Store, run: str = "r", tenant: str | None = None, **more: Any) -> Begun:
    more = {"owner": store.claim(), "salt": "s", **more}
    begun: Begun = _apply(store, Begin(run, tenant, {"prompt": "go"}, **more))[0]
    return begun


def _stepping(store: Store) -> None:
    _refused(store, UnknownRun, "a run that is not there is not begun", Begin("r", None, {}, create=False))
    begun = _begin(store)
    assert not begun.resumed, "a new run is not resumed"
    fence = begun.run.fence
    intend = Intend("r", fence, "turn 0", "m", "pure", "key", {"a": [1]}, "digest")
    _apply(store, intend)
    _apply(store, intend)
    (step,) = store.steps("r")
    assert (step.times, step.result, step.arguments) == (2, None, {"a": [1]}), "a step is counted as often as begun"
    _apply(store, Commit("r", fence, "turn 0", {"value": 1}))
    _refused(store, RunBusy, "a step is committed once", Commit("r", fence, "turn 0", {"value": 2}))
    _refused(store, RunBusy, "a committed step is not begun again", intend)
    _refused(store, RunBusy, "what was never begun is not committed", Commit("r", fence, "turn 1", {}))
    assert store.steps("r")[0].result == {"value": 1}, "a result stays as it is"
    again = _begin(store)
    assert again.resumed, "a run that was begun is resumed"
    assert again.steps["turn 0"].result == {"value": 1}, "a resumed run has its steps"
    assert (again.run.salt, again.run.request) == ("s", {"prompt": "go"}), "a resumed run has what it was begun with"
    _apply(store, Finish("r", again.run.fence, "done", None, {"output": "x"}))
    done = store.run("r")
    assert done is not None
    assert (done.status, done.result, done.owner) == ("done", {"output": "x"}, None), "a finished run is nobody's"
    assert [each.id for each in store.runs(status="done")] == ["r"], "runs are found by their status"
    assert _begin(store).run.result == {"output": "x"}, "a run that is done keeps its result"
    assert store.run("nobody") is None, "a run that is not there is none"


def _fencing(store: Store) -> None:
    first = _begin(store).run.fence
    _apply(store, Intend("r", first, "turn 0", "m", "pure", "key"))
    second = _begin(store, force=True).run.fence
    assert second > first, "whoever takes a run up gets a higher fence"
    for change in (
        Intend("r", first, "turn 1", "m", "pure", "key"),
        Commit("r", first, "turn 0", {}),
        Finish("r", first, "done", None, {}),
    ):
        _refused(store, RunBusy, f"a late {type(change).__name__} is refused", Settle(_row("late")), change)
    assert not store.rows(), "what goes with a late change is refused with it"
    _apply(store, Commit("r", second, "turn 0", {}))
    _begin(store, "living")
    _refused(store, RunBusy, "a living process's run is not taken", Begin("living", None, {}, owner="f" * 32))
    _begin(store, "dead", owner="e" * 32)
    assert _begin(store, "dead").resumed, "a dead process's run is taken up"
    assert store.is_alive(store.claim()), "this process lives"
    assert not store.is_alive("e" * 32), "a token that nobody holds is no living process's"
    assert store.claim() == store.claim(), "a process has one token"


def _apart(store: Store) -> None:
    _begin(store, tenant="a")
    before = store.run("r")
    _refused(store, RunTaken, "another tenant's run is not taken", Begin("r", "b", {}, owner=store.claim()))
    _refused(store, RunTaken, "a tenant's run is nobody's else", Begin("r", None, {}, owner=store.claim()))
    assert store.run("r") == before, "what is refused changes nothing"
    assert not store.runs(tenant="b"), "runs are found by their tenant"
    _apply(store, *(Settle(_row(each, "1", outcome="ok", tenant=each)) for each in "ab"))
    assert [row.id for row in store.rows(tenant="b")] == ["b"], "rows are found by their tenant"
    assert store.sums("all", tenant="b")[0].rows == 1, "sums are of the rows asked for"
    assert not store.rows(tenant=None), "None is found where there is nothing"


def _as_data(store: Store) -> None:
    for number, text in enumerate(HOSTILE):
        begun = _begin(store, text, text, salt=text)
        _apply(
            store,
            Settle(_row(f"{number}{text}", "1", outcome=text, run=text, tenant=text, session=text)),
            Intend(text, begun.run.fence, text, text, "pure", text, {text: text}),
            Commit(text, begun.run.fence, text, {text: [text]}),
        )
        assert [row.run for row in store.rows(tenant=text)] == [text], f"text is data: {text[:20]!r}"
        assert store.steps(text)[0].result == {text: [text]}, f"text is data: {text[:20]!r}"
        assert [run.id for run in store.runs(tenant=text)] == [text], f"text is data: {text[:20]!r}"
    assert len(store.rows()) == len(HOSTILE), "text is data: rows are missing"
