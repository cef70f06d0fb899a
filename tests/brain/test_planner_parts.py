"""The planner where a request has several parts: none is dropped, and each value goes where it belongs."""

from __future__ import annotations

from typing import Any

import pytest

from brain.events import ToolSchema
from brain.planner import Planner

from .test_planner import INT, NUM, STR, of, tool

CODE = of(STR, "Topic code of the letter", pattern=r"^[a-z_]+$")
SHELF = {"type": "object", "properties": {"topic": STR, "certainty": NUM}, "required": ["topic"]}
LIBRARY = [
    tool("topic_of", "Tell the topic of a letter to the editor.", SHELF, text=of(STR, "The text of the letter")),
    tool("editor_for", "Find the editor who answers a letter, by its topic.", STR, topic=CODE),
    tool("subtract", "Subtract a number from another.", NUM, minuend=NUM, subtrahend=NUM),
    tool("divide", "Divide a number by another.", NUM, dividend=NUM, divisor=NUM),
    tool("sum_of", "Add two numbers.", NUM, x=NUM, y=NUM),
    tool(
        "convert_length",
        "Convert a length from one unit to another.",
        NUM,
        value=NUM,
        from_unit=of(STR, "Unit to convert from", enum=["km", "miles", "feet"]),
        to_unit=of(STR, "Unit to convert to", enum=["km", "miles", "feet"]),
    ),
    tool("unscramble", "Unscramble a jigsaw board.", STR, board=of(STR, "The board", pattern=r"^[A-D.]{16}$")),
    tool("column_of", "Read a column of a jigsaw board.", STR, board=of(STR, "16 letters", pattern=r"^[A-D]{16}$"),
         column=of(INT, "Number of the column", minimum=1, maximum=4)),
    tool("iban_owner", "Find whose account an IBAN is.", STR, iban=of(STR, "IBAN", pattern=r"^[A-Z]{2}[0-9]{10,30}$")),
    tool("tide_times", "Tide times of a harbour.", STR, harbour=of(STR, "The harbour")),
]  # fmt: skip
LOOSE = [t for t in LIBRARY if t.name != "editor_for"] + [
    tool("editor_for", "Find the editor who answers a letter, by its topic.", STR, topic=of(STR, "Topic of the letter"))
]
BOARD = "AB.CD..ABCD.A.BC"


def plan(request: str, tools: list[ToolSchema] = LIBRARY) -> list[tuple[str, dict[str, Any], dict[str, int]]]:
    made = Planner().plan(request, tools)
    assert made.steps, made.reason
    return [(s.tool, dict(s.arguments), dict(s.references)) for s in made.steps]


def refusal(request: str, tools: list[ToolSchema] = LIBRARY) -> str:
    made = Planner().plan(request, tools)
    assert not made.steps, str(made)
    return made.reason or ""


@pytest.mark.parametrize("tools", [LIBRARY, LOOSE], ids=["a loose pattern", "no pattern"])
@pytest.mark.parametrize(
    "request_",
    [
        "Which editor should answer the letter 'the trams are late again'?",
        "Find the editor for the letter 'the trams are late again'",
        "Tell the topic of the letter 'the trams are late again' and find the editor for it",
    ],
)
def test_a_tool_that_knows_better_is_asked_first(request_: str, tools: list[ToolSchema]) -> None:
    assert plan(request_, tools) == [
        ("topic_of", {"text": "the trams are late again"}, {}),
        ("editor_for", {}, {"topic": 0}),
    ]


@pytest.mark.parametrize("tools", [LIBRARY, LOOSE], ids=["a loose pattern", "no pattern"])
def test_a_value_named_outright_needs_no_other_tool(tools: list[ToolSchema]) -> None:
    assert plan("Find the editor for the topic public_transport", tools) == [
        ("editor_for", {"topic": "public_transport"}, {})
    ]
    assert plan("Which editor answers letters on the topic 'sport'?", tools) == [("editor_for", {"topic": "sport"}, {})]


@pytest.mark.parametrize("request_", ["Good evening", "Find the editor", "Compose a warm hymn about the snow"])
def test_words_of_the_request_are_no_value_of_a_loose_pattern(request_: str) -> None:
    assert refusal(request_)


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        ("Convert 12 km to miles", {"value": 12, "from_unit": "km", "to_unit": "miles"}),
        ("Convert 12 to feet from miles", {"value": 12, "from_unit": "miles", "to_unit": "feet"}),
        ("How many miles is 40 km in miles?", None),
        ("How much is 40 km in feet?", {"value": 40, "from_unit": "km", "to_unit": "feet"}),
    ],
)
def test_two_parameters_with_one_list_share_no_mention(request_: str, arguments: dict[str, Any] | None) -> None:
    made = Planner().plan(request_, LIBRARY)
    if arguments is None:
        assert all(s.arguments["from_unit"] != s.arguments["to_unit"] for s in made.steps)
    else:
        assert [(s.tool, dict(s.arguments)) for s in made.steps] == [("convert_length", arguments)], made.reason


def test_a_mention_for_one_of_the_two_leaves_the_other_missing() -> None:
    assert "'from_unit'" in refusal("Convert a length of 12 to feet")


@pytest.mark.parametrize(
    ("request_", "name", "arguments"),
    [
        ("What is 3.5 plus 4?", "sum_of", {"x": 3.5, "y": 4}),
        ("what's 30 divided by 4", "divide", {"dividend": 30, "divisor": 4}),
        ("19 minus 8?", "subtract", {"minuend": 19, "subtrahend": 8}),
        ("How much is 19 + 8", "sum_of", {"x": 19, "y": 8}),
    ],
)
def test_operators_in_words(request_: str, name: str, arguments: dict[str, Any]) -> None:
    assert plan(request_) == [(name, arguments, {})]


@pytest.mark.parametrize(
    ("request_", "first", "second"),
    [
        (
            "add 4 and 5, then divide the result by 3",
            ("sum_of", {"x": 4, "y": 5}, {}),
            ("divide", {"divisor": 3}, {"dividend": 0}),
        ),
        (
            "add 4 and 5 and then divide 90 by the result",
            ("sum_of", {"x": 4, "y": 5}, {}),
            ("divide", {"dividend": 90}, {"divisor": 0}),
        ),
        (
            "divide 90 by 9 and then subtract 3 from the result",
            ("divide", {"dividend": 90, "divisor": 9}, {}),
            ("subtract", {"subtrahend": 3}, {"minuend": 0}),
        ),
        (
            "divide 90 by 9 and then divide the result by 2",
            ("divide", {"dividend": 90, "divisor": 9}, {}),
            ("divide", {"divisor": 2}, {"dividend": 0}),
        ),
        (
            f"Unscramble the jigsaw board {BOARD} and then read column 3 of the board.",
            ("unscramble", {"board": BOARD}, {}),
            ("column_of", {"column": 3}, {"board": 0}),
        ),
    ],
)
def test_a_value_of_a_clause_stands_beside_the_earlier_answer(request_: str, first: Any, second: Any) -> None:
    assert plan(request_) == [first, second]


def test_a_full_stop_that_belongs_to_a_value_ends_no_clause() -> None:
    board = "AB.CD..ABCD.A.B."
    assert plan(f"Unscramble the board {board} and then read column 1 of the board") == [
        ("unscramble", {"board": board}, {}),
        ("column_of", {"column": 1}, {"board": 0}),
    ]


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (f"Unscramble the board {BOARD} and order me a pizza", "order me a pizza"),
        ("What are the tide times of Whitby harbour? Write a sonnet about them.", "Write a sonnet about them"),
        ("Draw a map and then divide 8 by 2", "Draw a map"),
        ("Divide 8 by 2, then sing the result", "sing the result"),
    ],
)
def test_a_part_that_no_tool_does_is_named(request_: str, part: str) -> None:
    assert part in refusal(request_)


@pytest.mark.parametrize(
    "request_",
    [
        "Divide 8 by 2 and tell me the result",
        "Please divide 8 by 2. Thanks a lot!",
        "Divide 8 by 2, please, it is urgent.",
        "Divide 8 by 2 and show me the answer, please.",
    ],
)
def test_politeness_is_no_part(request_: str) -> None:
    assert plan(request_) == [("divide", {"dividend": 8, "divisor": 2}, {})]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            f"Unscramble the board {BOARD[:15]}",
            "unscramble needs 'board' (16 characters of [A-D.]); the request has one of 15.",
        ),
        (f"Unscramble the board {BOARD}A", "one of 17"),
        ("Unscramble the board", "unscramble needs 'board', which the request does not give."),
    ],
)  # fmt: skip
def test_a_value_that_nearly_fits_is_told(request_: str, said: str) -> None:
    assert said in refusal(request_)


@pytest.mark.parametrize(
    ("request_", "name", "parameter", "values"),
    [
        ("What are the tide times of Whitby and Dover?", "tide_times", "harbour", ["Whitby", "Dover"]),
        ("Tide times of Whitby, Dover and Hull harbour", "tide_times", "harbour", ["Whitby", "Dover", "Hull"]),
        ("Tell the topic of the letters 'trams are late' and 'we love the park'", "topic_of", "text",
         ["trams are late", "we love the park"]),
        (f"Unscramble the boards {BOARD} and {BOARD[::-1]}", "unscramble", "board", [BOARD, BOARD[::-1]]),
        ("Whose are the accounts with IBAN DE4410010010 and GB2960161331?", "iban_owner", "iban",
         ["DE4410010010", "GB2960161331"]),
    ],
)  # fmt: skip
def test_joined_values_are_a_call_each(request_: str, name: str, parameter: str, values: list[str]) -> None:
    assert plan(request_) == [(name, {parameter: value}, {}) for value in values]


@pytest.mark.parametrize(
    "request_", ["Tide times of Whitby, Yorkshire", "Add 3 and 4", "What are the tide times of Hull?"]
)
def test_a_comma_alone_and_values_of_other_parameters_join_nothing(request_: str) -> None:
    assert len(plan(request_)) == 1
