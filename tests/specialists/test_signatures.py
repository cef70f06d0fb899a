"""A typed function as a checked call. The types of this module are strings, as in most code of today."""

from __future__ import annotations

import contextlib
import datetime
import enum
import functools
import json
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from specialists import DefinitionError, InvalidAnswer, InvalidArguments
from specialists.signatures import Signature, check_answer


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: float
    y: float = 0.0


def everything(
    number: int,
    colour: Colour,
    day: datetime.date,
    point: Point,
    points: list[Point],
    size: Literal["small", "large"] = "small",
    note: Optional[str] = None,  # noqa: UP045 - how much code still writes it
    limit: int = Field(3, ge=0, le=10),
    share: Annotated[float, Field(gt=0)] = 0.5,
    names: list[str] = [],  # noqa: B006 - what this test is about
    tags: dict[str, int] = Field(default_factory=dict, description="Counts."),  # noqa: B008 - the idiom this is about
) -> str:
    """Do it all.

    Args:
        number: How many,
            all told.
        limit (int): At most.

    Returns:
        A word.
    """
    return "word"


GOOD: dict[str, Any] = {
    "number": 1,
    "colour": "red",
    "day": "2024-02-29",
    "point": {"x": 1},
    "points": [{"x": 1, "y": 2}],
}


def test_types_make_the_schema_and_the_docstring_its_words() -> None:
    signature = Signature(everything)
    properties = signature.schema["properties"]
    assert signature.schema["required"] == ["number", "colour", "day", "point", "points"]
    assert signature.schema["additionalProperties"] is False
    assert properties["number"] == {"type": "integer", "description": "How many, all told."}
    assert properties["limit"] == {
        "type": "integer",
        "default": 3,
        "minimum": 0,
        "maximum": 10,
        "description": "At most.",
    }
    assert properties["share"]["exclusiveMinimum"] == 0
    assert properties["size"]["enum"] == ["small", "large"]
    assert properties["tags"]["description"] == "Counts."
    assert signature.description == "Do it all.\n\nReturns:\n    A word."
    json.dumps(signature.schema)


def test_json_becomes_the_functions_types_with_defaults() -> None:
    arguments = Signature(everything).check_json(json.dumps(GOOD))
    assert arguments["colour"] is Colour.RED
    assert arguments["day"] == datetime.date(2024, 2, 29)
    assert arguments["points"] == [Point(x=1, y=2)]
    assert (arguments["limit"], arguments["share"], arguments["note"], arguments["tags"]) == (3, 0.5, None, {})
    assert list(arguments) == list(Signature(everything)._signature.parameters)


def test_a_mutable_default_is_not_shared() -> None:
    signature = Signature(everything)
    signature.check_json(json.dumps(GOOD))["names"].append("mine")
    assert signature.check_json(json.dumps(GOOD))["names"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"number": "5"}, "number: input should be a valid integer"),
        ({"number": True}, "number: input should be a valid integer"),
        ({"number": 1.5}, "number"),
        ({"number": None}, "number"),
        ({"colour": "green"}, "colour"),
        ({"day": "2023-02-29"}, "day"),
        ({"point": {"x": "1"}}, "point.x"),
        ({"points": [{"x": 1}, {}]}, "points.1.x is missing"),
        ({"limit": -1}, "limit: input should be greater than or equal to 0"),
        ({"limit": 11}, "limit"),
        ({"share": 0}, "share"),
        ({"names": "a"}, "names"),
        ({"surprise": 1}, "surprise is not a parameter"),
    ],
)
def test_18_what_does_not_fit_is_named_without_its_value(change: dict, says: str) -> None:
    with pytest.raises(InvalidArguments, match=says) as caught:
        Signature(everything).check_json(json.dumps(GOOD | change))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"x": NaN}',
        '{"x": Infinity}',
        '{"x": -Infinity}',
        '{"x": 1e400}',
        '{"x": 1, "x": 2}',
        '{"x": 1, "y": {"a": 1, "a": 2}}',
        '{"x": 1, "y": {"a": NaN}}',
        '{"x": ' + "9" * 5000 + "}",
        '{"x": 1, "y": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"x": 1, "s": "\\ud800"}',
        '{"x": 1, "s": "\ud800"}',
        '{"x": "1"}',
        '{"x": true}',
        "{'x': 1}",
        "\x00",
        "\ufeff{}",
        "{" + ",".join(f'"k{number}": 1' for number in range(10_000)) + "}",
        '{"' + "k" * 1_000_000 + '": 1}',
    ],
    ids=range(22),
)
def test_17_what_is_not_strict_json_is_refused_in_one_short_sentence(text: str) -> None:
    def function(x: float, y: dict[str, Any] | None = None, s: str = "") -> int:
        return 1

    with pytest.raises(InvalidArguments) as caught:
        Signature(function).check_json(text)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_any_text_is_arguments_or_a_typed_error(text: str) -> None:
    def function(x: float = 1.0) -> int:
        return 1

    with contextlib.suppress(InvalidArguments):
        assert set(Signature(function).check_json(text)) == {"x"}


@given(
    st.dictionaries(
        st.sampled_from(["x", "s", "b"]), st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    )
)
def test_json_is_taken_as_what_it_is(given: dict) -> None:
    def function(x: int = 0, s: str = "", b: bool = False) -> int:
        return 1

    fits = all(type(value) is {"x": int, "s": str, "b": bool}[name] for name, value in given.items())
    try:
        checked = Signature(function).check_json(json.dumps(given))
    except InvalidArguments:
        assert not fits
    else:
        assert fits
        assert checked == {"x": 0, "s": "", "b": False} | given


def test_values_never_stand_in_a_message() -> None:
    def function(pin: int, words: list[int]) -> int:
        return 1

    with pytest.raises(InvalidArguments) as caught:
        Signature(function).check({"pin": "canary-1234", "words": ["canary-1234"]})
    assert "canary" not in str(caught.value) + repr(caught.value) + str(caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_nan_is_no_argument_from_python_either() -> None:
    def function(x: float) -> int:
        return 1

    with pytest.raises(InvalidArguments, match="finite"):
        Signature(function).bind(float("nan"))


def test_parameters_may_have_any_name() -> None:
    def function(
        self: int, schema: int, json: int, copy: int, class_: int, args: int, kwargs: int, function: int, _x: int
    ) -> int:
        return 1

    names = ["self", "schema", "json", "copy", "class_", "args", "kwargs", "function", "_x"]
    signature = Signature(function)
    assert list(signature.schema["properties"]) == names
    assert signature.bind(**dict.fromkeys(names, 1)) == dict.fromkeys(names, 1)
    assert signature.check_json(json.dumps(dict.fromkeys(names, 1))) == dict.fromkeys(names, 1)


def test_a_field_without_a_default_is_required() -> None:
    def function(x: int = Field(ge=1, description="From one.")) -> int:
        return x

    signature = Signature(function)
    assert signature.schema["required"] == ["x"]
    with pytest.raises(InvalidArguments, match="x is missing"):
        signature.bind()


def test_a_default_in_the_annotation_counts() -> None:
    def function(x: Annotated[int, Field(default=4, ge=1)] = 5, y: Annotated[int, Field(ge=1)] = 6) -> int:
        return x

    assert Signature(function).check_json("{}") == {"x": 5, "y": 6}


def test_a_default_that_is_no_json_is_absent_from_the_schema() -> None:
    def function(x: object = object()) -> int:
        return 1

    assert "default" not in Signature(function).schema["properties"]["x"]


def test_types_from_the_surroundings_are_found() -> None:
    class Local(BaseModel):
        a: int

    def maker() -> Signature:
        def function(x: Local, y: Colour) -> Local:
            return x

        return Signature(function)

    local: type = str  # a name that this test's own types must not be taken for
    signature = maker()
    assert signature.returns is Local
    assert local is str
    assert signature.check_json('{"x": {"a": 1}, "y": "red"}') == {"x": Local(a=1), "y": Colour.RED}


def test_partials_methods_and_callables() -> None:
    class Scale:
        """Scales."""

        def by(self, x: int, times: int = 2) -> int:
            """Times."""
            return x * times

        def __call__(self, x: int) -> int:
            return x

    partial = Signature(functools.partial(Scale().by, times=Decimal(3)))
    assert partial.name == "by"
    assert partial.description == "Times."
    assert list(partial.schema["properties"]) == ["x"]  # what is bound is nobody's to change
    assert Signature(Scale().by).bind(3) == {"x": 3, "times": 2}
    assert Signature(Scale()).bind(3) == {"x": 3}
    assert Signature(Scale()).name == "Scale"


def positional(x: int, /) -> int:
    return x


def many(*numbers: int) -> int:
    return 1


def named(**numbers: int) -> int:
    return 1


def untyped(x) -> int:
    return 1


def unknown(x: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 1


def nonsense(x: "not a type") -> int:  # type: ignore[valid-type]  # noqa: F722
    return 1


def opaque(x: threading_lock) -> int:  # type: ignore[valid-type]
    return 1


threading_lock = type("Opaque", (), {})


def pieces(x: int):
    yield x


class Method:
    def method(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (positional, "'x' cannot be passed by name.*use plain named parameters"),
        (many, "'numbers' cannot be passed by name"),
        (named, "'numbers' cannot be passed by name"),
        (untyped, "'x' needs a type annotation"),
        (lambda x: x, "'x' needs a type annotation"),
        (unknown, "unknown: its types cannot be read.*'Nowhere'.*import or define"),
        (nonsense, "nonsense: its types cannot be read"),
        (opaque, "cannot be written as a JSON schema"),
        (pieces, "piece by piece"),
        (Method.method, "'self' needs a type annotation.*bound"),
        (Method, "is a class"),
        (len, "len"),
        (max, "max"),
        ("text", "not a function"),
        (functools.partial(untyped, 1).func, "'x' needs"),
    ],
)
def test_what_cannot_be_a_call_is_named_with_the_remedy(function: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        Signature(function)


def test_a_wrong_call_is_a_typed_error() -> None:
    with pytest.raises(InvalidArguments, match="unexpected keyword"):
        Signature(everything).bind(surprise=1)
    with pytest.raises(InvalidArguments, match="too many positional"):
        Signature(lambda: 1).bind(1)
    with pytest.raises(InvalidArguments, match="number is missing"):
        Signature(everything).bind()


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, np.int64(3), 3),
        (float, np.float32(0.5), 0.5),
        (bool, np.True_, True),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (Point, {"x": 1}, Point(x=1)),
        (Any, object, object),
        (type(None), None, None),
    ],
)
def test_an_answer_becomes_the_promised_type(kind: Any, value: Any, expected: Any) -> None:
    checked = check_answer(TypeAdapter(kind), value, "it")
    assert checked == expected
    assert type(checked) is type(expected)


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (float, NAN),
        (float, float("inf")),
        (float, np.float32("nan")),
        (Any, np.array([1.0, NAN])),
        (Any, complex(NAN, 0)),
        (list[float], [1.0, NAN]),
        (tuple[int, float], (1, NAN)),
        (dict[str, list[float]], {"a": [NAN]}),
        (dict[float, int], {NAN: 1}),
        (set[float], {NAN}),
        (Point, Point(x=NAN)),
        (list[Point], [Point(x=1, y=NAN)]),
        (Any, {"deep": [{"er": Point(x=NAN)}]}),
        (Any, Decimal("NaN")),
    ],
    ids=str,
)
def test_21_nan_is_never_an_answer(kind: Any, value: Any) -> None:
    with pytest.raises(InvalidAnswer, match="it answered with a number that is not finite"):
        check_answer(TypeAdapter(kind), value, "it")


def test_a_wrong_answer_is_named_without_its_value() -> None:
    with pytest.raises(InvalidAnswer, match="wrong type") as caught:
        check_answer(TypeAdapter(int), "canary", "it")
    assert "canary" not in str(caught.value)
