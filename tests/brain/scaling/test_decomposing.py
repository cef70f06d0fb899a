"""A task split into parts: bounds shared downward, bad splits, what there is when the money ends."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from brain import Budget, ConfigurationError, Ledger, LedgerError, OpenAIModel, Price
from brain.asking import Asker, Query, Solution
from brain.scaling import asker
from brain.scaling.decomposing import decompose
from brain.testing import FakeEndpoint, Fault, SimulatedModel
from specialists import Answer, specialist

PRICE = Price("1.123456789", "2.987654321")
"""Many digits: a rounded sum would show."""


def big(splitter: Any = 5, **more: Any) -> SimulatedModel:
    return SimulatedModel(**{"solve": lambda _: 7, "splitter": splitter, "price": PRICE, "name": "big", **more})


def parts(*given: Any) -> Any:
    """A splitter that splits the task of two words "the task", and nothing else."""
    return lambda task: list(given) if task == "the task" else []


def tree(solution: Solution[Any]) -> Any:
    assert solution.report is not None
    return solution.report


async def test_a_model_that_always_splits_stops_by_depth_within_the_closed_form() -> None:
    for depth, fan_out, most in ((0, 5, 1), (1, 5, 7), (2, 5, 37), (2, 1, 5), (3, 2, 22)):
        model = big(fan_out)
        by = decompose(model, depth=depth, fan_out=fan_out)
        assert by.most_calls == by.most_asks == most
        solution = await by.solve("What is the sum?", output_type=int)
        assert solution.value == 7
        assert solution.calls == len(model.requests) == tree(solution).asks == most
        assert sum(1 for _ in tree(solution).root.leaves()) == fan_out**depth


@pytest.mark.parametrize("most", range(1, 41))
async def test_a_declared_bound_holds_and_still_ends_in_an_answer(most: int) -> None:
    model = big()
    solution = await decompose(model, most_calls=most).solve("What is the sum?", output_type=int)
    assert len(model.requests) == solution.calls <= min(most, 37)
    assert solution.value == 7
    assert tree(solution).open == 0


async def test_what_is_split_further_than_the_calls_allow_is_asked_whole() -> None:
    solution = await decompose(big(), most_calls=9).solve("What is the sum?", output_type=int)
    assert tree(solution).problems == ("too few calls are left to split it",) * 5
    assert [part.how for part in tree(solution).root.parts] == ["whole"] * 5


async def test_all_is_paid_from_one_purse_to_the_last_digit() -> None:
    ledger, budget = Ledger(), Budget(usd="0.004")
    solution = await decompose(big()).solve("What is the sum?", output_type=int, ledger=ledger, budget=budget)
    (spent,) = ledger.spent()  # no part has an account of its own
    assert spent.usd == solution.cost.low == solution.cost.high == tree(solution).cost.low
    assert spent.usd <= Decimal("0.004")
    assert spent.usd == sum((wire.cost.low for wire in solution.wire_attempts), Decimal(0))
    assert spent.calls == solution.calls
    root = tree(solution).root
    assert solution.value is None
    assert solution.stopped is not None
    assert "budget of $0.004" in solution.stopped
    assert type(solution.failure).__name__ == "BudgetExceeded"
    answered = [part for part in root.leaves() if part.answered]
    assert answered
    assert all(part.type == "integer" and part.value == 7 for part in answered)
    # What each part took adds up: its own splits and combinations stand beside its parts.
    for part in root.all():
        assert sum((each.cost.low for each in part.parts), Decimal(0)) <= part.cost.low
        assert sum(each.calls for each in part.parts) <= part.calls


async def test_the_cap_holds_for_every_amount(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bill.db")
    for cents in range(0, 60, 6):
        budget = Budget(usd=Decimal(cents) / 10_000)
        model = big()
        solution = await decompose(model).solve("What is the sum?", output_type=int, ledger=ledger, budget=budget)
        spent = [each for each in ledger.spent() if budget.purse in each.account]
        assert sum((each.usd for each in spent), Decimal(0)) == solution.cost.low <= budget.usd
        assert (solution.value == 7) == (solution.stopped is None)
    await ledger.aclose()


async def test_parts_have_types_and_what_they_need() -> None:
    seen: list[str] = []

    def answer(text: str) -> Any:
        seen.append(text)
        return 4 if text.startswith("count") else ["red", "blue"]

    split = parts(
        {"id": "n", "task": "count them", "type": "integer", "needs": ["names"]},
        {"id": "names", "task": "name them", "type": "list of strings"},
    )
    by = decompose(asker(answer), split=split, combine=lambda text: json.loads(text)["parts"], depth=1)
    solution = await by.solve("the task", output_type=list[dict[str, Any]])
    assert solution.value == [
        {"task": "name them", "answer": ["red", "blue"]},
        {"task": "count them", "answer": 4},
    ]
    assert seen[0] == "name them"
    assert seen[1].startswith("count them\n\n")
    assert '[{"id": "names", "task": "name them", "answer": ["red", "blue"]}]' in seen[1]


async def test_a_part_of_a_wrong_type_has_no_answer_and_nothing_is_invented() -> None:
    split = parts({"task": "one", "type": "integer"}, {"task": "two", "type": "integer"})
    by = decompose(asker(lambda text: "many" if text == "one" else 2), split=split, combine=lambda _: 1)
    solution = await by.solve("the task", output_type=int)
    assert solution.value is None
    assert solution.reason is not None
    assert solution.reason.startswith("1 of 2 parts have no answer; '1':")
    assert [part.value for part in tree(solution).root.parts] == [None, 2]


async def test_what_needs_an_open_part_is_not_asked() -> None:
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        raise ValueError("no")

    split = parts({"id": "a", "task": "one"}, {"id": "b", "task": "two", "needs": ["a"]})
    solution = await decompose(asker(answer), split=split, combine=lambda _: "").solve("the task")
    assert asked == ["one"]
    assert "needs the part 'a', which has no answer" in tree(solution).root.parts[1].reason


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([{"id": "a", "task": "x"}, {"id": "a", "task": "y"}], "two of its parts are called a"),
        ([{"id": "a", "task": "x", "needs": ["b"]}], "the part a needs b, which is none of the parts"),
        ([{"id": "a", "task": "x", "needs": ["a"]}], "in a circle"),
        ([{"id": "a", "task": "x", "needs": ["b"]}, {"id": "b", "task": "y", "needs": ["a"]}], "in a circle"),
        ([{"task": "  THE\n task "}], "is the task itself"),
        ([{"task": "ｔｈｅ task"}], "is the task itself"),
        ([{"task": " "}], "has no task"),
        (["x"] * 6, "split into 6 parts, and 5 are the most"),
        ([{"task": "x" * 20_001}], "longer than 20000 characters"),
        ([{"task": "x", "type": "a poem"}], "nobody split it"),
        ([{"id": 3, "task": "x"}], "nobody split it"),
        ("no list at all", "nobody split it"),
        (None, "nobody split it"),
    ],
)
async def test_a_bad_split_is_asked_whole_once(given: Any, problem: str) -> None:
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return "fine"

    solution = await decompose(asker(answer), split=lambda _: given, combine=lambda _: "").solve("the task")
    assert (solution.value, asked) == ("fine", ["the task"])
    assert problem in tree(solution).root.problem
    assert solution.calls == 2
    assert json.loads(json.dumps(tree(solution).to_json()))["problems"] == [tree(solution).root.problem]


async def test_a_splitter_that_raises_and_one_that_gives_no_parts_are_told_apart() -> None:
    def broken(_: str) -> Any:
        raise RuntimeError("broken")

    raised = await decompose(asker(lambda _: "fine"), split=broken, combine=lambda _: "").solve("the task")
    none = await decompose(asker(lambda _: "fine"), split=lambda _: [], combine=lambda _: "").solve("the task")
    assert (raised.value, none.value) == ("fine", "fine")
    assert "RuntimeError: broken" in tree(raised).root.problem
    assert tree(none).root.problem is None


async def test_an_ancestors_task_is_not_split_off_again() -> None:
    def back(task: str) -> list[str]:
        return ["first half", "second half"] if task == "the task" else ["The  TASK"]

    solution = await decompose(asker(lambda t: t), split=back, combine=lambda _: "done", depth=8).solve("the task")
    assert solution.value == "done"
    assert [part.value for part in tree(solution).root.parts] == ["first half", "second half"]
    assert all("one that it is a part of" in part.problem for part in tree(solution).root.parts)


async def test_a_split_that_is_hostile_to_terminals_prints_on_one_line_each() -> None:
    split = parts({"id": "\x1b[2J\u202e" + "i" * 500, "task": "a\r\nb\x00" + "c" * 900})
    solution = await decompose(asker(lambda _: "\x1b[31m\nred"), split=split, combine=lambda _: "").solve("the task")
    printed = str(tree(solution))
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert len(printed.splitlines()) == 3
    assert max(len(line) for line in printed.splitlines()) < 300


async def test_large_answers_are_shown_with_a_notice() -> None:
    told: list[dict[str, Any]] = []

    def combine(text: str) -> str:
        told.append(json.loads(text))
        return "done"

    split = parts({"id": "a", "task": "one"}, {"id": "b", "task": "two", "needs": ["a"]})
    seen: list[str] = []

    def answer(text: str) -> str:
        seen.append(text)
        return "x" * 100_000

    solution = await decompose(asker(answer), split=split, combine=combine, answer_limit=50).solve("the task")
    assert solution.value == "done"
    assert all("(shortened: 100002 characters in all)" in part["answer"] for part in told[0]["parts"])
    assert len(seen[1]) < 300
    assert len(tree(solution).root.parts[0].value) == 100_000


async def test_a_router_names_who_answers_a_part() -> None:
    @specialist()
    def double(number: int) -> Answer[int]:
        """Twice a number."""
        return Answer(2 * number)

    def route(task: str) -> Any:
        if task == "broken":
            raise KeyError("nobody")
        return double if task.startswith("{") else None

    split = parts(
        {"task": '{"number": 21}', "type": "integer"},
        {"task": "else", "type": "integer"},
        {"task": "broken", "type": "integer"},
    )
    by = decompose(asker(lambda _: 1), split=split, parts=route, combine=lambda text: text)
    solution = await by.solve("the task")
    first, second, third = tree(solution).root.parts
    assert (first.value, first.source, first.calls) == (42, "double", 1)
    assert (second.value, third.value) == (1, 1)
    assert second.problem is None
    assert "the router gave nobody: KeyError" in third.problem
    assert by.most_calls is None  # whom a router names is not known beforehand
    assert {row.name for row in solution.usage.rows} >= {"double"}


async def test_independent_parts_run_side_by_side_and_no_more_than_allowed() -> None:
    running, most = 0, 0

    async def answer(_: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return "x"

    for at_once in (1, 3):
        most = 0
        by = decompose(asker(answer), split=parts(*"abcde"), combine=lambda _: "y", at_once=at_once)
        assert (await by.solve("the task")).value == "y"
        assert most == at_once


async def test_what_there_is_is_combined_when_asked_for() -> None:
    def answer(text: str) -> str:
        if text == "b":
            raise ValueError("no")
        return text

    how: dict[str, Any] = {"split": parts("a", "b", "c"), "combine": lambda text: text}
    assert (await decompose(asker(answer), **how).solve("the task")).value is None
    solution = await decompose(asker(answer), partial=True, **how).solve("the task")
    assert json.loads(solution.unwrap()) == {
        "question": "the task",
        "parts": [{"task": "a", "answer": "a"}, {"task": "c", "answer": "c"}],
        "without_answer": ["b"],
    }
    assert solution.stopped == "1 of 3 parts have no answer and are left out"
    none = await decompose(asker(lambda _: 1 / 0), partial=True, **how).solve("the task")
    assert none.value is None


async def test_a_deadline_leaves_what_is_done_in_the_report() -> None:
    async def answer(text: str) -> str:
        await asyncio.sleep(0 if text == "a" else 60)
        return text

    by = decompose(asker(answer), split=parts("a", "b", "c"), combine=lambda _: "y", at_once=2)
    solution = await by.solve("the task", timeout=0.3)
    assert solution.value is None
    assert [part.value for part in tree(solution).root.parts] == ["a", None, None]
    assert type(solution.failure).__name__ == "RunTimeout"
    assert solution.stopped


async def test_a_cancellation_ends_every_part_and_settles_what_was_set_aside() -> None:
    ledger = Ledger()
    begun = asyncio.Event()

    async def answer(text: str) -> str:
        begun.set()
        await asyncio.sleep(60)
        return text

    by = decompose(asker(answer), split=parts("a", "b", "c"), combine=lambda _: "y")
    before = asyncio.all_tasks()
    task = asyncio.create_task(by.solve("the task", ledger=ledger, budget=Budget(usd=1)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    rows = list(ledger.rows())
    assert {row.outcome for row in rows if row.name == "answer"} == {"cancelled"}
    assert all(row.outcome is not None for row in rows)  # none is left in flight


async def test_a_ledger_that_cannot_be_written_is_raised_as_itself() -> None:
    class Broken(Asker):
        name = "broken"

        async def ask(self, query: Query) -> Solution[Any]:
            raise LedgerError("the disk is full")

    with pytest.raises(LedgerError, match="the disk is full"):
        await decompose(Broken(), split=parts("a", "b"), combine=lambda _: "").solve("the task")


@pytest.mark.parametrize("said", [ValueError("mine"), "no solution", asyncio.CancelledError()])
async def test_an_asker_that_breaks_its_word_is_a_part_without_an_answer(said: Any) -> None:
    class Odd(Asker):
        name = "odd"

        async def ask(self, query: Query) -> Any:
            if isinstance(said, BaseException):
                raise said
            return said

    solution = await decompose(Odd(), split=parts("a", "b"), combine=lambda _: "").solve("the task")
    assert solution.value is None
    assert tree(solution).open == 2


async def test_a_decomposition_within_one_shares_its_depth_and_its_calls() -> None:
    model = big()
    inner = decompose(model, depth=2, fan_out=5)
    solution = await decompose(model, parts=inner, depth=1, most_calls=200).solve("What is it?", output_type=int)
    assert solution.value == 7
    # The parts stand at depth 1, so each is split once more, not twice.
    assert len(model.requests) == 1 + 5 * 7 + 1
    model = big()
    inner = decompose(model, depth=2, fan_out=5)
    bounded = await decompose(model, parts=inner, depth=1, most_calls=20).solve("What is it?", output_type=int)
    assert len(model.requests) <= 20
    assert bounded.calls <= 20


async def test_a_number_that_nobody_can_write_is_no_crash() -> None:
    told: list[str] = []
    split = parts({"task": "p", "type": "integer"})
    by = decompose(asker(lambda _: 10**5000), split=split, combine=lambda text: told.append(text) or "done")
    solution = await by.solve("the task")
    assert solution.value == "done"
    assert "cannot be written as JSON" in told[0]
    assert "(int)" in str(tree(solution))
    assert json.loads(json.dumps(tree(solution).to_json()))["root"]["parts"][0]["value"] == "(int)"


async def test_retries_take_no_combination_away_where_nothing_was_declared() -> None:
    received = 0

    def flaky(body: dict[str, Any]) -> Any:
        nonlocal received
        received += 1
        if received % 3 == 0:
            return Fault.server_error(503)
        wants = body["response_format"]["json_schema"]["name"]
        listed = [{"id": each, "task": each, "type": "string", "needs": []} for each in "ab"]
        return {"parts": listed} if wants == "split" else {"answer": "done"}

    with FakeEndpoint(flaky) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, api_key=endpoint.api_key)
        solution = await decompose(model, depth=1, fan_out=2).solve("the task")
        assert solution.value == "done"
        assert tree(solution).asks == 4 < solution.calls == len(endpoint.requests)
        bounded = await decompose(model, depth=1, fan_out=2, most_calls=4).solve("the task")
        assert bounded.calls <= 4
        await model.aclose()


async def test_it_can_be_asked_by_many_at_once() -> None:
    by = decompose(big())
    solutions = await asyncio.gather(*(by.solve(f"question {n}", output_type=int) for n in range(20)))
    assert [solution.calls for solution in solutions] == [37] * 20


@pytest.mark.parametrize(
    "wrong",
    [{"depth": -1}, {"depth": 9}, {"depth": True}, {"fan_out": 0}, {"most_calls": 0}, {"at_once": 0}, {"depth": 1.5}],
)
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        decompose(big(), **wrong)


def test_who_is_no_model_does_not_split() -> None:
    with pytest.raises(ConfigurationError, match=r"does not split tasks; pass split="):
        decompose(asker(lambda _: ""))
