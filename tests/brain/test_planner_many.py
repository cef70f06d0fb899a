"""The built-in planner with very many tools: it compares a few of them, and finds the right one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brain import Brain, Planner, planner, tool
from brain.catalogue import Catalogue
from brain.events import ModelRequest, ToolSchema
from specialists import Specialist, specialist

FIELDS = ["airport", "bakery", "clinic", "dairy", "farm", "forest", "harbour", "hotel", "library", "museum"]
THINGS = [f"{colour} {thing}" for colour in ("amber", "crimson", "violet", "olive", "ivory")
          for thing in ("kettle", "ladder", "lantern", "anchor", "carpet", "bucket", "mirror", "shovel")]  # fmt: skip


def schemas(count: int = 400) -> list[ToolSchema]:
    made = []
    for place in range(count):
        thing, field = THINGS[place % len(THINGS)], FIELDS[place // len(THINGS) % len(FIELDS)]
        parameters = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
        name = f"order_{thing.replace(' ', '_')}_{field}"
        made.append(ToolSchema(name, f"Order a number of {thing}s for a {field}.", parameters, {"type": "integer"}))
    return made


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tools each comparison was with."""
    seen: list[int] = []
    propose = planner.propose

    def counted(reading: Any, profiles: Any, **settings: Any) -> Any:
        seen.append(len(profiles))
        return propose(reading, profiles, **settings)

    monkeypatch.setattr(planner, "propose", counted)
    return seen


def test_the_right_one_of_many_is_found_among_a_few(compared: list[int]) -> None:
    tools = tuple(schemas())
    for place in range(0, 400, 13):
        thing, field = THINGS[place % len(THINGS)], FIELDS[place // len(THINGS) % len(FIELDS)]
        [step] = Planner().plan(f"Order 12 {thing}s for the {field}", tools).steps
        assert (step.tool, step.arguments) == (tools[place].name, {"amount": 12})
    assert max(compared) <= planner._CANDIDATES


def test_each_clause_of_a_request_brings_its_own_tools(compared: list[int]) -> None:
    plan = Planner().plan(
        "Order 3 amber kettles for the hotel, and then order 7 ivory shovels for the museum", schemas()
    )
    assert [(step.tool, step.arguments) for step in plan.steps] == [
        ("order_amber_kettle_hotel", {"amount": 3}),
        ("order_ivory_shovel_museum", {"amount": 7}),
    ]
    assert max(compared) <= 3 * planner._CANDIDATES // 2


def test_up_to_a_limit_all_tools_are_compared(compared: list[int]) -> None:
    few = schemas(planner.MANY)
    Planner().plan("Order 12 amber kettles", few)
    assert compared == [planner.MANY]
    assert Planner()._considered("Order 12 amber kettles", few) is few


def test_the_same_words_and_tools_give_the_same_plan_whatever_holds_them() -> None:
    tools = schemas()
    request = "Order 5 violet mirrors for the clinic"
    plans = [Planner().plan(request, each) for each in (tools, tuple(tools), Catalogue(tools))]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0].steps[0].tool == "order_violet_mirror_clinic"


def test_a_request_that_speaks_of_no_tool_abstains() -> None:
    plan = Planner().plan("Sing me a song about rain", schemas())
    assert plan.steps == ()
    assert plan.reason is not None
    assert plan.reason.startswith("No tool fits")
    assert Planner().plan("  ", schemas()).reason == "The request is empty."


def test_the_index_is_made_once_for_each_set_of_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    catalogue = planner.Catalogue

    class Counted(catalogue):  # type: ignore[misc, valid-type]
        def __init__(self, tools: Any) -> None:
            made.append(len(tools))
            super().__init__(tools)

    monkeypatch.setattr(planner, "Catalogue", Counted)
    one, tools, other = Planner(), schemas(), schemas(300)
    for _ in range(3):
        one.plan("Order 5 violet mirrors for the clinic", tools)
        one.plan("Order 5 violet mirrors for the clinic", other)
    assert made == [400, 300]
    tools[0] = ToolSchema("order_nothing", "Order nothing.", {})  # a list may change: its index is then another
    one.plan("Order 5 violet mirrors for the clinic", tools)
    assert made == [400, 300, 400]
    for count in range(70, 80):
        one.plan("Order 5 violet mirrors for the clinic", schemas(count))
    assert len(one._known) == planner._SETS


def test_a_profile_is_made_once_for_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    from brain.planning import matching

    read: list[Any] = []
    parameters_of = matching.parameters_of
    monkeypatch.setattr(matching, "parameters_of", lambda schema: (read.append(schema), parameters_of(schema))[1])
    tools = schemas(40)
    for _ in range(3):
        Planner().plan("Order 12 amber kettles", tools)
    assert len(read) == 40


def numbered(number: int) -> Specialist[..., Any]:
    thing, field = THINGS[number % len(THINGS)], FIELDS[number // len(THINGS) % len(FIELDS)]

    @specialist(name=f"count_{thing.replace(' ', '_')}_{field}", description=f"Count {thing}s of a {field}.")
    async def count(text: str) -> int:
        return number

    return count


async def test_a_run_with_many_specialists_describes_few_of_them() -> None:
    brain = Brain(specialists=[numbered(number) for number in range(400)])
    tools = brain._dispatcher.schemas
    assert tools.described == 0
    assert len(repr(brain)) < 2000
    result = await brain.run("Count the crimson ladders of the bakery: 'one, two, three'")
    assert [outcome.tool for outcome in result.calls] == ["count_crimson_ladder_bakery"]
    assert tools.described <= planner._CANDIDATES
    for place in range(50):
        await brain.run(f"Count the crimson ladders of the bakery: 'one, two, {place}'")
    assert tools.described <= planner._CANDIDATES


async def test_later_turns_of_a_plan_with_many_tools_use_what_was_answered() -> None:
    tools = schemas()
    request = "Order 3 amber kettles for the hotel, and then order 7 ivory shovels for the museum"
    asked = ModelRequest(messages=[{"role": "user", "content": request}], tools=tools)
    first = await Planner().ask(asked, on_attempt=lambda attempt: None)
    assert [call.name for call in first.tool_calls] == ["order_amber_kettle_hotel", "order_ivory_shovel_museum"]
    answers = [
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"value": 1})} for call in first.tool_calls
    ]
    later = await Planner().ask(
        ModelRequest(messages=[*asked.messages, *answers], tools=tools), on_attempt=lambda attempt: None
    )
    assert later.text == "order_amber_kettle_hotel answered 1. order_ivory_shovel_museum answered 1."


def test_an_unknown_tool_among_many_is_answered_with_the_nearest_names() -> None:
    from brain.events import ToolCall
    from specialists import InvalidArguments

    def made(number: int) -> Any:
        @tool(name=f"paint_{THINGS[number].replace(' ', '_')}")
        def paint(text: str) -> str:
            """Paint it."""
            return text

        return paint

    brain = Brain(tools=[made(number) for number in range(len(THINGS))])
    with pytest.raises(InvalidArguments) as caught:
        brain._dispatcher.check(ToolCall("1", "paint_olive_lantrn", "{}"))
    assert "there is no tool 'paint_olive_lantrn'; of the 40 tools the nearest are paint_olive_" in str(caught.value)
    assert "paint_olive_lantern" in str(caught.value)
    assert len(str(caught.value)) < 300
