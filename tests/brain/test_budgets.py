"""Budgets: what may be declared, whose spending it limits, and that there is one purse and no second."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain import (
    Brain,
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Ledger,
    OpenAIModel,
    tool,
)
from brain.budgets import Scope, allowances
from brain.testing import FakeEndpoint, ScriptedModel, call
from tests.brain.purses import MANY, PRICE, calls, simulated, usd
from tests.running import add


class TestDeclared:
    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"name": "nothing"},
            {"usd": -1},
            {"usd": "-0.01"},
            {"usd": Decimal("-1E-30")},
            {"usd": "NaN"},
            {"usd": "sNaN"},
            {"usd": "Infinity"},
            {"usd": 0.5},
            {"usd": True},
            {"usd": "half"},
            {"usd": [1]},
            {"usd": "1E+999999999"},
            {"usd": "0E-999999999"},
            {"usd": "1E-999999999"},
            {"seconds": -1},
            {"seconds": float("nan")},
            {"seconds": float("inf")},
            {"seconds": "60"},
            {"seconds": True},
            {"seconds": Decimal("1E+999999")},
            {"calls": -1},
            {"calls": 1.0},
            {"calls": True},
            {"calls": "10"},
            {"usd": 1, "ceiling": -1},
            {"usd": 1, "ceiling": 0.1},
            {"usd": 1, "ceiling": "NaN"},
            {"usd": 1, "per": "user"},
            {"usd": 1, "window": "week"},
            {"usd": 1, "window": 3600},
            {"usd": 1, "window": timedelta(0)},
            {"usd": 1, "window": timedelta(days=-1)},
            {"usd": 1, "name": ""},
            {"usd": 1, "name": "a\nb"},
            {"usd": 1, "name": "a\0b"},
            {"usd": 1, "name": "x" * 201},
            {"usd": 1, "name": 7},
            {"usd": 1, "within": 5},
        ],
        ids=str,
    )
    def test_what_is_no_budget(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            Budget(**wrong)

    def test_it_is_written_down_and_read_back(self) -> None:
        outer = Budget(usd="100", per="tenant", window=timedelta(seconds=1.5), name="all of | them")
        budget = Budget("0.50", 1.25, 7, per="run", window="day", within=outer, ceiling="0.01")
        again = Budget.from_json(budget.to_json())
        assert again == budget
        assert again.purse == budget.purse
        assert again.within is not None
        assert again.within.window == timedelta(seconds=1.5)
        for copied in (pickle.loads(pickle.dumps(budget)), copy.copy(budget), copy.deepcopy(budget)):
            assert copied == budget
            assert copied.purse == budget.purse

    @pytest.mark.parametrize("broken", [{}, {"purse": 5}, {"usd": "x"}, {"within": {"usd": 1}}, {"calls": -1}])
    def test_what_is_no_budget_cannot_be_read_back(self, broken: dict[str, Any]) -> None:
        data = {} if broken == {} else {**Budget(usd=1).to_json(), **broken}
        with pytest.raises(ConfigurationError):
            Budget.from_json(data)

    @pytest.mark.parametrize(
        "wrong", [{"calls": -5}, {"calls": True}, {"seconds": -1}, {"seconds": float("nan")}, {"usd": "-1"}]
    )
    def test_less_than_nothing_is_not_set_aside(self, wrong: dict[str, Any]) -> None:
        ledger, budget = Ledger(), Budget(usd=1, seconds=1, calls=1)
        with pytest.raises(ConfigurationError):
            ledger.reserve_sync(budget, **wrong)
        assert ledger.spent() == []
        assert ledger.rows() == []
        reservation = ledger.reserve_sync(budget, usd="0.5")
        with pytest.raises(ConfigurationError):
            reservation.settle_sync("-5")
        assert usd(ledger) == Decimal("0.5")

    async def test_a_budget_that_cannot_hold_is_refused_before_anything_is_done(self) -> None:
        model = ScriptedModel(["never"])
        for spanning in (
            Budget(usd=1, per="tenant"),
            Budget(usd=1, window="day"),
            Budget(usd=1, name="x"),
            Budget(usd=1, within=Budget(calls=5, name="x")),
        ):
            with pytest.raises(ConfigurationError, match=r"ledger='bill\.db'"):
                Brain(model, budget=spanning)
            with pytest.raises(ConfigurationError, match=r"ledger='bill\.db'"):
                await Brain(model).run("go", budget=spanning, tenant="t")
            with pytest.raises(ConfigurationError, match=r"ledger='bill\.db'"):
                Ledger().reserve_sync(spanning, tenant="t")
        with pytest.raises(ConfigurationError, match="session"):
            await Brain(model, budget=Budget(usd=1, per="session")).run("go")
        assert model.requests == []

    async def test_a_tenants_budget_without_a_tenant_is_refused(self, tmp_path: Path) -> None:
        model = ScriptedModel(["never"])
        async with Brain(model, ledger=tmp_path / "bill.db", budget=Budget(usd=1, per="tenant")) as brain:
            with pytest.raises(ConfigurationError, match="tenant"):
                await brain.run("go")
            assert brain.ledger.runs() == []
        assert model.requests == []


class TestAccounts:
    """Which purse it is."""

    @given(
        st.lists(
            st.tuples(
                st.text(alphabet="a|/:\0=1@", min_size=1, max_size=6),
                st.one_of(st.none(), st.text(alphabet="a|/:\0=1@", max_size=6)),
            ),
            min_size=2,
            max_size=30,
            unique=True,
        )
    )
    def test_no_two_have_one_name(self, scopes: list[tuple[str, str | None]]) -> None:
        session, run = Budget(usd=1, per="session"), Budget(usd=1, per="run")
        sessions = {session.allowance(Scope("r", name, tenant)).account for name, tenant in scopes}
        assert len(sessions) == len(set(scopes))
        names = {name for name, _ in scopes}
        assert len({run.allowance(Scope(name)).account for name in names}) == len(names)

    def test_a_name_cannot_pretend_to_be_another_budgets_window_or_tenant(self) -> None:
        at = datetime(2026, 5, 4, 3, tzinfo=UTC)
        scope = Scope("r", "s", "t")
        made = [
            Budget(usd=1, name="x", per="tenant"),
            Budget(usd=1, name="x|tenant=1:t"),
            Budget(usd=1, name="x", window="day"),
            Budget(usd=1, name="x|window=day@2026-05-04"),
            Budget(usd=1, name="x"),
            Budget(usd=1, per="tenant"),
            Budget(usd=1),
            Budget(usd=1),
        ]
        assert len({budget.allowance(scope, at).account for budget in made}) == len(made)

    async def test_tenants_with_odd_names_have_each_their_own(self, tmp_path: Path) -> None:
        tenants = ["a", "a|b", "a/b", "a:b", "1:a", "a\0", "a\0b", "ä", "a|tenant=1:a", " a"]
        budget = Budget(calls=1, per="tenant", window="month")
        async with Brain(simulated(), ledger=tmp_path / "bill.db", budget=budget) as brain:
            for tenant in tenants:
                await brain.run("go", tenant=tenant)
                with pytest.raises(BudgetExceeded):
                    await brain.run("go", tenant=tenant)
            assert [len(brain.ledger.rows(tenant=tenant, kind="model")) for tenant in tenants] == [1] * len(tenants)

    def test_of_several_that_look_at_one_account_the_least_holds(self) -> None:
        wide, narrow = Budget(usd=100, calls=3, name="x"), Budget(usd=1, seconds=2, name="x")
        for order in ([wide, narrow], [narrow, wide]):
            (found,) = allowances(order, Scope("r"))
            assert (found.usd, found.microseconds, found.calls) == (1, 2_000_000, 3)

    @pytest.mark.parametrize(
        ("window", "inside", "outside"),
        [
            ("hour", "2026-03-31T22:59:59.999999", "2026-03-31T23:00:00"),
            ("day", "2026-03-31T23:59:59.999999", "2026-04-01T00:00:00"),
            ("month", "2026-03-31T23:59:59.999999", "2026-04-01T00:00:00"),
        ],
    )
    def test_a_window_ends_where_it_says(self, window: Any, inside: str, outside: str) -> None:
        budget = Budget(usd=1, window=window)
        start = {"hour": "2026-03-31T22:00:00", "day": "2026-03-31T00:00:00", "month": "2026-03-01T00:00:00"}[window]
        first, last, after = (
            budget.allowance(Scope("r"), datetime.fromisoformat(at).replace(tzinfo=UTC)).account
            for at in (start, inside, outside)
        )
        assert first == last != after

    def test_a_window_of_a_timedelta_is_no_shorter_than_it_says(self) -> None:
        window = timedelta(seconds=1.9)
        budget = Budget(usd=1, window=window)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        begun: dict[str, datetime] = {}
        for step in range(200):
            begun.setdefault(budget.allowance(Scope("r"), at + step * timedelta(seconds=0.1)).account, at)
        assert len(begun) <= 20 / 1.9 + 2
        zone = datetime(2026, 1, 1, 5, tzinfo=UTC).astimezone()
        assert budget.allowance(Scope("r"), zone) == budget.allowance(Scope("r"), zone.astimezone(UTC))

    def test_what_was_begun_in_one_window_is_settled_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hours = ["2026-01-01T10:59:59", "2026-01-01T11:00:01", "2026-01-01T10:30:00"]

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.fromisoformat(hours[0]).replace(tzinfo=tz)

        monkeypatch.setattr("brain.budgets.datetime", Clock)
        ledger, budget = Ledger(tmp_path / "bill.db"), Budget(usd=1, window="hour")
        first = ledger.reserve_sync(budget, usd=1)
        hours.pop(0)
        second = ledger.reserve_sync(budget, usd=1)
        first.settle_sync("0.25")
        second.settle_sync("0.75")
        assert usd(ledger, "T10") == Decimal("0.25")
        assert usd(ledger, "T11") == Decimal("0.75")
        hours.pop(0)  # the clock goes back: nothing is full again
        with pytest.raises(BudgetExceeded):
            ledger.reserve_sync(budget, usd="0.76")
        ledger.close()


class TestOnePurse:
    """One object is one purse, and there is no second one to be had."""

    async def test_all_that_are_given_it_spend_from_it(self) -> None:
        ledger, budget = Ledger(), Budget(calls=5)
        brains = [Brain(simulated(), ledger=ledger, budget=budget) for _ in range(3)]
        admitted = 0
        for brain in brains * 3:
            with contextlib.suppress(BudgetExceeded):
                await brain.run("go")
                admitted += 1
        assert admitted == 5
        with pytest.raises(BudgetExceeded) as caught:
            await Brain(simulated(), ledger=ledger).run("go", budget=budget)
        error = caught.value
        assert (error.unit, error.limit, error.spent, error.asked) == ("calls", 5, 5, 1)

    async def test_two_ledgers_do_not_hold_it(self) -> None:
        budget = Budget(calls=1)
        await Brain(simulated(), budget=budget).run("go")
        copies = [pickle.loads(pickle.dumps(budget)), copy.deepcopy(budget), Budget(calls=9, within=budget)]
        for again in (budget, *copies):
            with pytest.raises(ConfigurationError, match="another ledger"):
                await Brain(simulated(), budget=again).run("go")
            with pytest.raises(ConfigurationError, match="another ledger"):
                Ledger().reserve_sync(again)

    async def test_each_run_has_its_own_in_any_ledger(self) -> None:
        budget = Budget(calls=1, per="run")
        for _ in range(3):
            await Brain(simulated(), budget=budget).run("go")

    async def test_two_ledger_objects_on_one_file_hold_it(self, tmp_path: Path) -> None:
        (tmp_path / "there").symlink_to(tmp_path)
        budget = Budget(calls=2)
        first, second = Ledger(tmp_path / "bill.db"), Ledger(tmp_path / "there" / "bill.db")
        first.reserve_sync(budget)
        second.reserve_sync(budget)
        for ledger in (first, second):
            with pytest.raises(BudgetExceeded):
                ledger.reserve_sync(budget)
        with pytest.raises(ConfigurationError, match="another ledger"):
            Ledger(tmp_path / "other.db").reserve_sync(budget)
        first.close()
        second.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_has_no_allowance_of_its_own_in_memory(self) -> None:
        unused, used, ledger = Budget(calls=1), Budget(calls=1), Ledger()
        ledger.reserve_sync(used)
        child = os.fork()
        if child == 0:
            refused = 0
            for budget, where in ((unused, ledger), (used, ledger), (unused, Ledger()), (used, Ledger())):
                try:
                    where.reserve_sync(budget)
                except ConfigurationError:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4

    def test_a_pickled_one_is_the_same_purse_in_another_process(self, tmp_path: Path) -> None:
        path, budget = tmp_path / "bill.db", Budget(calls=3)
        context = multiprocessing.get_context("spawn")
        ledger = Ledger(path)
        ledger.reserve_sync(budget)
        results = context.Queue()
        process = context.Process(target=reserve_three, args=(str(path), budget, results))
        process.start()
        assert results.get(timeout=60) == (2, "ConfigurationError")
        process.join(60)
        assert calls(ledger) == 3
        ledger.close()

    def test_closing_a_ledger_in_memory_fills_no_purse(self) -> None:
        ledger, budget = Ledger(), Budget(calls=1)
        ledger.reserve_sync(budget)
        ledger.close()
        with pytest.raises(BudgetExceeded):
            ledger.reserve_sync(budget)

    async def test_a_named_one_is_one_for_all_brains_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "bill.db"
        done = 0
        for _ in range(4):  # as after four restarts: every object is new
            async with Brain(simulated(), ledger=path, budget=Budget(calls=3, name="daily", window="month")) as brain:
                for _ in range(2):
                    try:
                        await brain.run("go")
                        done += 1
                    except BudgetExceeded:
                        pass
        assert done == 3

    async def test_sessions_have_each_their_own(self) -> None:
        brain = Brain(simulated(), budget=Budget(calls=1, per="session"))
        for session in ("a", "b"):
            await brain.run("go", session=session)
            with pytest.raises(BudgetExceeded):
                await brain.run("go", session=session)


def reserve_three(path: str, budget: Budget, results: Any) -> None:
    """In another process: as many as there are, then in memory."""
    ledger, admitted, said = Ledger(path), 0, ""
    for _ in range(5):
        try:
            ledger.reserve_sync(budget)
            admitted += 1
        except BudgetExceeded:
            pass
    try:
        Ledger().reserve_sync(budget)
    except ConfigurationError as error:
        said = type(error).__name__
    ledger.close()
    results.put((admitted, said))


class TestNested:
    def test_a_child_reserves_from_its_parents(self) -> None:
        ledger = Ledger()
        outer = Budget(usd=10)
        middle = Budget(usd=100, within=outer)  # says more than there is
        inner = [Budget(usd=6, within=middle) for _ in range(2)]
        ledger.reserve_sync(inner[0], usd=6)
        with pytest.raises(BudgetExceeded) as caught:
            ledger.reserve_sync(inner[1], usd=6)
        error = caught.value
        assert (error.unit, error.limit, error.spent, error.asked) == ("usd", 10, 6, 6)
        assert usd(ledger, inner[1].purse) == 0  # on every account, or on none
        ledger.reserve_sync(inner[1], usd=4)
        assert [usd(ledger, each.purse) for each in (outer, middle, *inner)] == [10, 10, 6, 4]

    def test_settling_makes_room_on_every_level_and_a_release_too(self) -> None:
        ledger = Ledger()
        outer = Budget(usd=1)
        inner = Budget(usd=1, within=outer)
        first = ledger.reserve_sync(inner, usd=1)
        first.settle_sync("0.10")
        assert usd(ledger, outer.purse) == usd(ledger, inner.purse) == Decimal("0.10")
        second = ledger.reserve_sync(inner, usd="0.9")
        second.release_sync()
        second.release_sync()
        assert usd(ledger, outer.purse) == Decimal("0.10")
        second.settle_sync("0.3")  # it was made after all
        assert usd(ledger, outer.purse) == usd(ledger, inner.purse) == Decimal("0.40")
        second.settle_sync("0.2")
        second.release_sync()
        assert usd(ledger, outer.purse) == Decimal("0.30")

    def test_what_costs_more_than_was_set_aside_is_borne(self) -> None:
        ledger, budget = Ledger(), Budget(usd=1)
        ledger.reserve_sync(budget, usd="0.5").settle_sync("1.5")
        assert usd(ledger) == Decimal("1.5")
        with pytest.raises(BudgetExceeded):
            ledger.reserve_sync(budget, usd="0.000001")

    async def test_a_run_within_a_tool_spends_from_the_runs_around_it(self) -> None:
        ledger, budget = Ledger(), Budget(calls=6)
        inner = Brain(simulated())

        @tool
        async def think(n: int) -> str:
            """Think."""
            return (await inner.run("go")).output

        @tool
        def think_in_a_thread(n: int) -> str:
            """Think."""
            return inner.run_sync("go").output

        def in_a_context(n: int) -> str:
            """Think."""
            context = contextvars.copy_context()
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(context.run, lambda: inner.run_sync("go").output).result()

        @tool
        async def think_in_a_task(n: int) -> str:
            """Think."""
            return (await asyncio.create_task(inner.run("go"))).output

        ways = [call("think", n=1), call("think_in_a_thread", n=1), call("think_in_a_task", n=1)]
        brain = Brain(
            ScriptedModel([[*ways, call("in_a_context", n=1)], "done"]),
            tools=[think, think_in_a_thread, think_in_a_task, in_a_context],
            ledger=ledger,
            budget=budget,
        )
        result = await brain.run("go")
        # Four calls of functions had room, and of the four runs within them the first two.
        assert calls(ledger) == 6
        assert len(ledger.rows(kind="model")) == 2
        assert sorted(outcome.accepted for outcome in result.calls) == [False, False, True, True]
        assert {row.parent_run for row in ledger.rows(kind="model")} == {result.run_id}

    async def test_a_nested_runs_wider_limit_of_the_same_account_does_not_hold(self, tmp_path: Path) -> None:
        path = tmp_path / "bill.db"
        inner = Brain(simulated(), ledger=path, budget=Budget(calls=MANY, name="x"))

        @tool
        async def think(n: int) -> str:
            """Think."""
            return (await inner.run("go")).output

        model = ScriptedModel([[call("think", n=number) for number in range(4)], "done"])
        ledger = Ledger(path)
        await Brain(model, tools=[think], ledger=ledger, budget=Budget(calls=6, name="x")).run("go")
        assert calls(ledger) == 6
        assert len(ledger.rows(kind="model")) == 2
        await inner.aclose()
        ledger.close()

    async def test_a_nested_run_gives_no_ceiling_to_the_budget_around_it(self) -> None:
        with FakeEndpoint() as endpoint:
            inner = Brain(OpenAIModel("nobodys-model", base_url=endpoint.base_url))

            @tool
            async def think(n: int) -> str:
                """Think."""
                return (await inner.run("go", budget=Budget(usd=1, ceiling="0.000001"))).output

            for around, sent in ((Budget(usd=5), 0), (Budget(usd=5, ceiling="0.5"), 1)):
                ledger = Ledger()
                model = ScriptedModel([call("think", n=1), "done"])
                result = await Brain(model, tools=[think], ledger=ledger, budget=around).run("go")
                assert len(endpoint.requests) == sent
                assert result.calls[0].accepted is bool(sent)
                assert (usd(ledger, around.purse) >= Decimal("0.5")) is bool(sent)
            await inner.aclose()

    async def test_a_run_that_is_taken_up_finds_its_purse_as_it_left_it(self, tmp_path: Path) -> None:
        path = tmp_path / "bill.db"

        async def go(steps: list[Any], budget: Budget | None) -> None:
            with FakeEndpoint(steps) as endpoint:
                model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
                async with Brain(model, tools=[add], ledger=path) as brain:
                    try:
                        await brain.run("go", run_id="a run", budget=budget)
                    finally:
                        sent.append(len(endpoint.requests))

        sent: list[int] = []
        with pytest.raises(BudgetExceeded):
            await go([call("add", a=1, b=1)], Budget(calls=1))
        for again in (None, Budget(calls=1)):  # a new object of the same limits is no new purse
            with pytest.raises(BudgetExceeded):
                await go(["never"], again)
        await go(["two"], Budget(calls=3))
        assert sent == [1, 0, 0, 1]

    async def test_a_nested_run_cannot_leave_for_another_ledger(self) -> None:
        model = simulated()
        inner = Brain(model, ledger=Ledger())

        @tool
        async def think(n: int) -> str:
            """Think."""
            return (await inner.run("go")).output

        outer = Brain(ScriptedModel([call("think", n=1), "done"]), tools=[think], budget=Budget(calls=9))
        result = await outer.run("go")
        assert "another ledger" in (result.calls[0].reason or "")
        assert model.requests == []
