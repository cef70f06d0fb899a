"""Typed questions: the schema that goes out, and what of a model's text comes back as a value."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter

from brain.questions import TypedAnswer
from specialists import InvalidAnswer


class Leaf(BaseModel):
    size: int


class Tree(BaseModel):
    leaves: list[Leaf]
    below: list[Tree] = []


class Colour(enum.Enum):
    RED = "red"


class Answer(BaseModel):
    answer: int


class Pair(NamedTuple):
    left: int
    right: str


TYPES: list[tuple[Any, Any]] = [
    (int, 5),
    (str, "x"),
    (bool, False),
    (float, 2.5),
    (None, None),
    (list[Leaf], [Leaf(size=1)]),
    (Leaf, Leaf(size=1)),
    (Tree, Tree(leaves=[Leaf(size=1)], below=[Tree(leaves=[])])),
    (Answer, Answer(answer=3)),
    (Literal["a", 1], "a"),
    (Leaf | Tree, Leaf(size=2)),
    (Leaf | None, None),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Pair, Pair(1, "x")),
    (Colour, Colour.RED),
    (datetime.date, datetime.date(2026, 2, 3)),
    (dict[str, list[Leaf]], {"a": [Leaf(size=1)]}),
    (Any, {"free": [1]}),
]


@pytest.mark.parametrize(("kind", "value"), TYPES, ids=str)
def test_what_fits_the_schema_comes_back_as_the_type(kind: Any, value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    question = TypedAnswer(adapter)
    assert question.schema["type"] == "object"
    Draft202012Validator.check_schema(question.schema)
    plain = adapter.dump_python(value, mode="json")
    wrapped = set(question.schema["properties"]) == {"answer"} and kind is not Answer
    sent = {"answer": plain} if wrapped else plain
    Draft202012Validator(question.schema).validate(sent)  # references resolve where the definitions now stand
    back = question.parse(json.dumps(sent), "model")
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"5"',
        "5.5",
        "NaN",
        '5, "answer": 6',
        "{}",
        '{"5": 5}',
        '{"answer": "5"}',
        '{"answer": 5.5}',
        '{"answer": true}',
        '{"answer": null}',
        '{"answer": NaN}',
        '{"answer": 1e999}',
        '{"answer": 5, "why": "because"}',
        '{"answer": 5, "answer": 6}',
        "I cannot help with that.",
        '```json\n{"answer": 5}',
        '{"answer": 5} trailing',
        '{"answer": "\\ud800"}',
        "\x00",
        "[" * 50_000,
        '{"answer": ' + "9" * 6000 + "}",
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidAnswer, match="model") as caught:
        TypedAnswer(TypeAdapter(int)).parse(text, "model")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ['```json\n{"answer": 5}\n```', '```\n{"answer": 5}```', ' ```JSON {"answer": 5} ``` \n']
)
def test_fences_are_taken_off(text: str) -> None:
    assert TypedAnswer(TypeAdapter(int)).parse(text, "model") == 5


def test_a_number_that_is_not_finite_is_no_answer() -> None:
    for text in ('{"answer": "NaN"}', '{"answer": 1e999}', '{"answer": -Infinity}'):
        with pytest.raises(InvalidAnswer):
            TypedAnswer(TypeAdapter(float)).parse(text, "model")


def test_a_given_schema_is_sent_in_place_of_the_types_own() -> None:
    given_schema = {"$defs": {"L": {"type": "integer"}}, "$ref": "#/$defs/L"}
    question = TypedAnswer(TypeAdapter(int), schema=given_schema)
    assert question.schema["$defs"] == given_schema["$defs"]
    assert question.schema["properties"]["answer"] == {"$ref": "#/$defs/L"}
    assert "$defs" in given_schema  # not taken out of the caller's own


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_any_text_is_a_value_or_an_invalid_answer(text: str) -> None:
    try:
        value = TypedAnswer(TypeAdapter(list[int])).parse(text, "model")
    except InvalidAnswer:
        return
    assert isinstance(value, list)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "5", 5),
        (int, "```json\n5\n```", 5),
        (list[Leaf], ' [{"size": 1}]', [Leaf(size=1)]),
        (Leaf | None, "null", None),
        (Leaf | None, '{"size": 2}', Leaf(size=2)),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Literal["a", "b"], '"a"', "a"),
    ],
)
def test_the_bare_value_of_an_endpoint_that_ignores_schemas_is_taken(kind: Any, text: str, value: Any) -> None:
    assert TypedAnswer(TypeAdapter(kind)).parse(text, "model") == value


def test_a_wrapped_answer_with_something_beside_it_is_not_taken_for_the_bare_value() -> None:
    with pytest.raises(InvalidAnswer, match="just the key"):
        TypedAnswer(TypeAdapter(dict[str, Any])).parse('{"answer": {"a": 1}, "why": "so"}', "model")
