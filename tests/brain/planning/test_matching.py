"""Which tool fits a request, from the words of both."""

from __future__ import annotations

import pytest

from brain.events import ToolSchema
from brain.planning.clauses import split
from brain.planning.matching import fit, profile_of
from brain.planning.parameters import parameters_of
from brain.planning.references import NoValue, fill, suits
from brain.planning.spans import Reading
from brain.words import identifier_words, likeness, stem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_user_name", ["get", "user", "name"]),
        ("getUserName", ["get", "user", "name"]),
        ("math.factorial", ["math", "factorial"]),
        ("HTTPServer2", ["http", "server", "2"]),
        ("username", ["user", "name"]),
    ],
)
def test_names_in_any_style(name: str, words: list[str]) -> None:
    assert identifier_words(name) == words


def test_stems_and_synonyms() -> None:
    assert stem("calculations") == stem("calculate")
    assert stem("travelled") == stem("travel")
    assert likeness(stem("purchase"), stem("buying")) > 0
    assert likeness(stem("accelleration"), stem("acceleration")) > 0
    assert likeness(stem("weather"), stem("sudoku")) == 0


def test_the_tool_that_speaks_of_what_is_asked_fits_best() -> None:
    area = profile_of(ToolSchema("circle.area", "Calculate the area of a circle.", {}))
    volume = profile_of(ToolSchema("cone.volume", "Calculate the volume of a cone.", {}))
    reading = Reading("What is the area of a circle?")
    assert fit(reading, area, ()).named == 1
    assert fit(reading, volume, ()).named == 0
    assert fit(reading, area, ()).head > fit(reading, volume, ()).head


def test_what_is_quoted_is_no_part_of_the_request() -> None:
    area = profile_of(ToolSchema("circle.area", "Calculate the area of a circle.", {}))
    assert fit(Reading("Translate 'the area of a circle'"), area, ()).named == 0


@pytest.mark.parametrize(
    ("request_", "clauses"),
    [
        ("Do this", ["Do this"]),
        ("Solve it, then count the fives", ["Solve it", "count the fives"]),
        ("Classify 'pay, then go' and open a ticket", ["Classify 'pay, then go'", "open a ticket"]),
        ("Find bread and butter", ["Find bread and butter"]),
        ("What is 2? Also convert 3 USD", ["What is 2", "convert 3 USD"]),
    ],
)
def test_clauses(request_: str, clauses: list[str]) -> None:
    assert split(Reading(request_), ()) == clauses


ORDER = {"type": "object", "properties": {"id": {"type": "string"}, "customer_email": {"type": "string"}}}


def test_an_answers_field_suits_the_parameter_it_is_named_after() -> None:
    email, count = parameters_of({"properties": {"email": {"type": "string"}, "count": {"type": "integer"}}})
    assert suits(ORDER, ["order"], email) > 0.7
    assert suits(ORDER, ["order"], count) == 0
    assert fill({"id": "A1", "customer_email": "a@b.example"}, email) == "a@b.example"
    with pytest.raises(NoValue):
        fill({"lines": []}, email)
