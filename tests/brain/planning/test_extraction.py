"""Typed arguments from a request's own words, one shape of value at a time."""

from __future__ import annotations

from typing import Any

import pytest

from brain.planning.extraction import extract
from brain.planning.moments import find_dates, write_date
from brain.planning.numerals import convert, find_numerals
from brain.planning.parameters import parameters_of
from brain.planning.spans import Reading


def taken(request: str, required: str = "", /, **properties: Any) -> dict[str, Any]:
    """The arguments found; all parameters are required unless ``required`` lists some."""
    wanted = required.split() if required else list(properties)
    schema = {"type": "object", "properties": properties, "required": wanted}
    return dict(extract(Reading(request), parameters_of(schema)).arguments)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12 and -4", [12, -4]),
        ("1,250,000.5", [1250000.5]),
        ("1.5 million people", [1500000]),
        ("$2,000,000", [2000000]),
        ("three hundred twenty-five", [325]),
        ("a dozen eggs and 1e-9 C", [12, 1e-9]),
        ("the 19th century", [19]),
        ("range 5-10", [5, 10]),
        ("K2 and x2 are names", []),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, values: list[float]) -> None:
    assert [numeral.value for numeral in find_numerals(text)] == values


def test_units_and_percent() -> None:
    speed, share = find_numerals("5 m/s^2 at 8%")
    assert (speed.value, speed.unit) == (5, "m/s²")
    assert share.percent
    assert convert(1.2, "m", "cm") == 120
    assert convert(50, "mH", "H") == 0.05
    assert convert(1, "month", "day") is None
    assert convert(1, "kg", "m") is None


@pytest.mark.parametrize(
    ("text", "description", "written"),
    [
        ("on 3rd of May 2024", "YYYY-MM-DD", "2024-05-03"),
        ("on March 11, 2022", "Format: dd/mm/yyyy", "11/03/2022"),
        ("on 2022/08/16", "(month-day-year)", "08-16-2022"),
        ("on 25.12.2023", "ISO 8601", "2023-12-25"),
        ("on July 5", "YYYY-MM-DD", None),
    ],
)
def test_dates_are_written_as_asked(text: str, description: str, written: str | None) -> None:
    (moment,) = find_dates(text)
    assert write_date(moment, description) == written


NUMBER = {"type": "number"}
WHOLE = {"type": "integer"}
TEXT = {"type": "string"}


def test_numbers_go_to_the_parameter_they_are_named_after() -> None:
    found = taken("height 7 and radius of 4", radius=WHOLE, height=WHOLE)
    assert found == {"radius": 4, "height": 7}


def test_runs_fill_numbered_parameters_in_order() -> None:
    assert taken("a triangle with sides 3, 4 and 5", side1=WHOLE, side2=WHOLE, side3=WHOLE) == {
        "side1": 3,
        "side2": 4,
        "side3": 5,
    }
    found = taken("base and height as 6cm and 10cm", base=WHOLE, height=WHOLE)
    assert found == {"base": 6, "height": 10}


def test_percent_follows_the_parameter() -> None:
    assert taken("at 4.5% interest", interest_rate={"type": "number", "description": "as a decimal"}) == {
        "interest_rate": 0.045
    }
    assert taken("at 4.5% interest", interest_rate={"type": "number", "description": "in percent"}) == {
        "interest_rate": 4.5
    }


def test_limits_of_the_schema_hold() -> None:
    assert taken("level 12", level={**WHOLE, "maximum": 9}) == {}
    assert taken("level 2.5", level=WHOLE) == {}


def test_options_by_word_form_and_synonym() -> None:
    enum = {"type": "string", "enum": ["monthly", "quarterly", "annually"]}
    assert taken("compounded yearly", frequency=enum) == {"frequency": "annually"}
    assert taken("compounded every fortnight", frequency=enum) == {}
    several = {"type": "array", "items": {"type": "string", "enum": ["tolls", "highways", "ferries"]}}
    assert taken("avoiding tolls and highways", avoid=several) == {"avoid": ["tolls", "highways"]}


def test_from_and_to() -> None:
    found = taken("from New York to Los Angeles", destination=TEXT, origin=TEXT)
    assert found == {"origin": "New York", "destination": "Los Angeles"}
    assert taken("between 2012 and 2015", from_year=WHOLE, to_year=WHOLE) == {"from_year": 2012, "to_year": 2015}


def test_lists() -> None:
    numbers = {"type": "array", "items": NUMBER}
    assert taken("the mean of 3, 4.5 and 5", values=numbers) == {"values": [3, 4.5, 5]}
    assert taken("the mean of [1, 2, 3]", values=numbers) == {"values": [1, 2, 3]}
    words = {"type": "array", "items": TEXT}
    assert taken("with the variables 'Age' and 'Income'", variables=words) == {"variables": ["Age", "Income"]}
    matrix = {"type": "array", "items": numbers}
    assert taken("on [[1, 2], [3, 4]]", table=matrix) == {"table": [[1, 2], [3, 4]]}


def test_pairs_and_nested_objects() -> None:
    assert taken("where a=2, b = -6 and c is 5", a=WHOLE, b=WHOLE, c=WHOLE) == {"a": 2, "b": -6, "c": 5}
    person = {"type": "object", "properties": {"name": TEXT, "email": TEXT}, "required": ["name", "email"]}
    assert taken("for Maria Lopez, maria@lopez.example", person=person) == {
        "person": {"name": "Maria Lopez", "email": "maria@lopez.example"}
    }


def test_flags_affirmed_and_denied() -> None:
    assert taken("with standardization", standardize={"type": "boolean"}) == {"standardize": True}
    assert taken("without standardization", standardize={"type": "boolean"}) == {"standardize": False}


def test_optional_parameters_not_spoken_of_are_left_out() -> None:
    found = taken("the area of a circle with radius 3", "radius", radius=WHOLE, unit=TEXT, round_to=WHOLE)
    assert found == {"radius": 3}


def test_references_and_null_branches_are_followed() -> None:
    schema = {
        "properties": {"size": {"anyOf": [{"$ref": "#/$defs/Size"}, {"type": "null"}]}},
        "required": ["size"],
        "$defs": {"Size": {"enum": ["small", "large"], "type": "string"}},
    }
    assert dict(extract(Reading("a large one"), parameters_of(schema)).arguments) == {"size": "large"}


def test_types_of_other_languages() -> None:
    found = taken(
        "radius 2.5 and the points (3, 4)",
        radius={"type": "float"},
        points={"type": "tuple", "items": {"type": "float"}},
    )
    assert found == {"radius": 2.5, "points": [3, 4]}


def test_what_is_missing_is_named() -> None:
    schema = {"properties": {"email": TEXT, "count": WHOLE}, "required": ["email", "count"]}
    result = extract(Reading("send 3 of them"), parameters_of(schema))
    assert result.missing == ("email",)
    assert result.arguments == {"count": 3}
