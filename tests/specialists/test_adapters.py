"""Validators made when they are needed, shared by equal types and by no others; bad types refused at once."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from annotated_types import Gt
from pydantic import AfterValidator, BaseModel, Field

from specialists import DefinitionError, Specialist, adapters, specialist
from specialists.adapters import adapter_of, try_out
from specialists.signatures import Signature


class Counter:
    """How many validators were made, and of what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        for name in ("_adapter", "_arguments"):
            monkeypatch.setattr(adapters, name, self._counted(getattr(adapters, name)))

    def _counted(self, make: Any) -> Any:
        @functools.wraps(make)
        def counted(thing: Any) -> Any:
            self.made += 1
            return make(thing)

        return counted


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter:
    adapters._made.cache_clear()
    adapters._tried.cache_clear()
    return Counter(monkeypatch)


def answer_about(number: int) -> Specialist[..., Any]:
    @specialist(name=f"about_{number}", description=f"Answer questions about {number}.")
    async def answer(text: Annotated[str, Field(description=f"what to ask about {number}", max_length=99)]) -> str:
        return text

    return answer


def test_many_specialists_of_one_shape_make_one_validator_when_declared_and_one_when_called(made: Counter) -> None:
    many = [answer_about(number) for number in range(50)]
    assert made.made == 1  # the type with its limit was tried out once; what is described differs in each
    assert many[7].solve_sync("why?").value == "why?"
    assert made.made == 3  # the arguments' and the answer's
    assert many[7].solve_sync("how?").value == "how?"
    assert many[8].answers is many[7].answers
    assert made.made == 3


def test_plain_types_need_no_trial(made: Counter) -> None:
    @specialist
    async def plain(text: str, number: int = 3, ratio: float = 0.5, flag: bool = False, anything: Any = None) -> str:
        return text

    assert made.made == 0
    assert plain.parameters["required"] == ["text"]
    assert plain.parameters["properties"]["number"] == {"default": 3, "type": "integer"}


def test_functions_with_equal_parameters_share_a_validator(made: Counter) -> None:
    def first(text: Annotated[str, Field(max_length=3)], limit: int = 3) -> None: ...
    def second(text: Annotated[str, Field(max_length=3)], limit: int = 3) -> None: ...
    def third(text: Annotated[str, Field(max_length=3)], limit: int = 4) -> None: ...

    one, two, three = Signature(first), Signature(second), Signature(third)
    assert one._adapter is two._adapter
    assert one._adapter is not three._adapter
    assert (two.check({"text": "a"})["limit"], three.check({"text": "a"})["limit"]) == (3, 4)


class Colour:
    """Equal to every other colour."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Colour)

    def __hash__(self) -> int:
        return 1


def test_a_default_is_the_functions_own_however_equal_it_is() -> None:
    red, blue = Colour("red"), Colour("blue")

    def first(colour: Any = red) -> None: ...
    def second(colour: Any = blue) -> None: ...

    assert Signature(first).check({})["colour"] is red
    assert Signature(second).check({})["colour"] is blue


def test_a_default_that_can_be_changed_is_not_shared() -> None:
    def first(items: list[int] = []) -> None: ...  # noqa: B006
    def second(items: list[int] = []) -> None: ...  # noqa: B006

    Signature(first).check({})["items"].append(1)
    assert Signature(first).check({})["items"] == Signature(second).check({})["items"] == []


class Point(BaseModel):
    x: int


def double(value: int) -> int:
    return 2 * value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Union[int, str], Union[str, int]),  # noqa: UP007 - equal in Python, and not described in the same way
        (Literal[1], Literal[True]),
        (Annotated[int, Gt(1)], Annotated[int, Gt(2)]),
        (Annotated[int, Field(gt=1)], Annotated[int, Field(ge=1)]),
        (Annotated[str, Field(pattern="a")], Annotated[str, Field(pattern="b")]),
        (Annotated[int, Field(description="a")], Annotated[int, Field(description="b")]),
        (Annotated[int, AfterValidator(double)], int),
        (Annotated[int, AfterValidator(double)], Annotated[int, AfterValidator(abs)]),
        (list[int], list[str]),
        (Optional[int], int),  # noqa: UP045
        (Point, dict[str, int]),
    ],
)
def test_types_that_differ_share_nothing(first: Any, second: Any) -> None:
    assert adapter_of(first) is not adapter_of(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (list[int], list[int]),
        (Annotated[int, Field(gt=1, description="a")], Annotated[int, Field(gt=1, description="a")]),
        (Annotated[str, Field(pattern="a")], Annotated[str, Field(pattern="a")]),
        (Annotated[int, AfterValidator(double)], Annotated[int, AfterValidator(double)]),
        (dict[str, Optional[Point]], dict[str, Optional[Point]]),  # noqa: UP045
    ],
)
def test_equal_types_share_one_validator(first: Any, second: Any) -> None:
    assert adapter_of(first) is adapter_of(second)


def test_what_cannot_be_compared_is_made_each_time() -> None:
    annotation = Annotated[int, Field(json_schema_extra={"x": {1, 2}.__contains__})]
    assert adapter_of(annotation).validate_python(3) == 3


@pytest.mark.parametrize("beside", [{"unit": ["m"]}, ["m"], {1, 2}, Colour("red"), ...])
def test_what_stands_beside_a_type_may_be_anything(beside: Any) -> None:
    annotation = Annotated[int, beside]
    try_out(annotation)
    try_out(annotation, argument=True)
    assert adapter_of(annotation).validate_python(3) == 3
    assert adapter_of(Annotated[str, beside]) is not adapter_of(annotation)


class Opaque: ...


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], Annotated[str, Field(pattern="(")]])
def test_a_type_that_cannot_be_checked_is_refused_where_it_is_declared(annotation: Any) -> None:
    def asked(thing: annotation) -> int:  # type: ignore[valid-type]
        return 1

    def answered(thing: int) -> annotation:  # type: ignore[valid-type]
        return thing

    asked.__annotations__["thing"] = answered.__annotations__["return"] = annotation
    for _ in range(2):  # also the second time
        with pytest.raises(DefinitionError, match="asked: its parameters cannot be written as a JSON schema"):
            specialist(asked)
        with pytest.raises(DefinitionError, match="answered: its answer's type cannot be checked"):
            specialist(answered)
        with pytest.raises(Exception, match=r".+"):
            try_out(annotation)


def test_next_specialists_with_the_same_answer_check_their_own_arguments() -> None:
    @specialist
    async def narrow(number: Annotated[int, Field(lt=10)]) -> str:
        return f"narrow {number}"

    @specialist(next=narrow, min_confidence=0.5)
    async def wide(number: int) -> str:
        return "unsure"

    outcome = wide.solve_sync(50)
    assert [attempt.outcome for attempt in outcome.attempts] == ["answered", "error"]
