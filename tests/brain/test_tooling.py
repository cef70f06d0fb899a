"""Tools: typed functions of every kind, tools from a JSON schema, names, contexts."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field

from brain import ConfigurationError, RunContext, Tool, tool
from brain.tooling import check_name, load_object
from specialists import InvalidArguments


@dataclass
class Shop:
    stock: int


Ctx = RunContext[Shop]


def context(deps: Any = None) -> RunContext[Any]:
    return RunContext(deps, "run", "call")


async def answer(made: Tool[..., Any], deps: Any = None, /, **arguments: Any) -> Any:
    return await made.run(made.check(json.dumps(arguments)), context(deps))


def plain(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a: The first one.
        b: The second one.
    """
    return a + b


class TestFunctions:
    async def test_types_and_docstring_are_the_schema(self) -> None:
        made = tool(plain)
        assert made.name == "plain"
        assert made.description == "Add two numbers."
        assert made.parameters["properties"] == {
            "a": {"type": "integer", "description": "The first one."},
            "b": {"type": "integer", "description": "The second one.", "default": 2},
        }
        assert made.parameters["required"] == ["a"]
        assert made.parameters["additionalProperties"] is False
        assert made.schema.returns == {"type": "integer"}
        assert made.effect == "once"
        assert await answer(made, a=1) == 3
        assert made(1, 5) == 6

    async def test_declared(self) -> None:
        @tool(name="sum", description="Sum.", effect="pure", requires_approval=True, timeout=2)
        def add(a: int) -> int:
            return a

        assert (add.name, add.description, add.effect) == ("sum", "Sum.", "pure")
        assert (add.requires_approval, add.timeout) == (True, 2)

    async def test_of_every_kind(self) -> None:
        class Counter:
            def __init__(self) -> None:
                self.count = 0

            def add(self, by: int) -> int:
                """Count on."""
                self.count += by
                return self.count

            async def add_later(self, by: int) -> int:
                """Count on."""
                await asyncio.sleep(0)
                return self.add(by)

            @staticmethod
            def double(by: int) -> int:
                """Double."""
                return 2 * by

            @classmethod
            def name(cls, by: int) -> str:
                """Name."""
                return cls.__name__ * by

            def __call__(self, by: int) -> int:
                """Count on."""
                return self.add(by)

        class AsyncCall:
            async def __call__(self, by: int) -> int:
                """Count on."""
                return by

        counter = Counter()
        assert await answer(Tool(counter.add), by=1) == 1
        assert await answer(Tool(counter.add_later), by=1) == 2
        assert await answer(Tool(counter.double), by=4) == 8
        assert await answer(Tool(counter.name), by=1) == "Counter"
        assert await answer(Tool(counter), by=1) == 3
        later = Tool(AsyncCall())
        assert later.is_async
        assert await answer(later, by=7) == 7
        assert await answer(Tool(functools.partial(counter.add_later)), by=1) == 4

    async def test_what_a_partial_binds_by_position_is_not_shown_to_a_model(self) -> None:
        def send(key: str, text: str) -> str:
            """Send."""
            return f"{key}:{text}"

        made = Tool(functools.partial(send, "canary"))
        assert "canary" not in json.dumps(dict(made.parameters))
        assert await answer(made, text="x") == "canary:x"

    async def test_nor_is_what_it_binds_by_name_and_no_model_can_change_it(self) -> None:
        def send(text: str, key: str = "none") -> str:
            """Send."""
            return f"{key}:{text}"

        made = Tool(functools.partial(send, key="canary"))
        assert "canary" not in json.dumps(dict(made.parameters))
        assert await answer(made, text="x") == "canary:x"
        with pytest.raises(InvalidArguments, match="key"):
            made.check('{"text": "x", "key": "mine"}')

    async def test_a_function_that_returns_an_awaitable(self) -> None:
        async def inner() -> int:
            return 5

        def outer() -> Any:
            """Give a coroutine."""
            return inner()

        assert await answer(Tool(outer)) == 5

    def test_generators_are_refused(self) -> None:
        def pieces() -> Iterator[int]:
            """Yield."""
            yield 1

        async def later() -> AsyncIterator[int]:
            """Yield."""
            yield 1

        for function in (pieces, later):
            with pytest.raises(ConfigurationError, match="return it whole"):
                tool(function)
            with pytest.raises(ConfigurationError, match="whole"):
                Tool.from_schema("pieces", "Yield.", {}, function)

    @pytest.mark.parametrize(
        ("function", "says"),
        [
            (lambda a: a, "annotation"),
            (len, "len"),
            (Shop, "class"),
            (5, "5"),
            (Tool, "class"),
        ],
    )
    def test_what_cannot_be_a_tool_is_told_so(self, function: Any, says: str) -> None:
        with pytest.raises(ConfigurationError, match=says):
            Tool(function)

    def test_of_declarations_that_cannot_be(self) -> None:
        for declared in ({"effect": "twice"}, {"timeout": 0}, {"timeout": -1}, {"name": "a b"}, {"name": ""}):
            with pytest.raises(ConfigurationError):
                tool(**declared)(plain) if declared != {"name": ""} else check_name("")

    async def test_parameters_may_have_any_name(self) -> None:
        def odd(function: str, self: str, args: int, kwargs: int, call: str, schema: str) -> str:
            """Odd."""
            return function + self + str(args) + str(kwargs) + call + schema

        assert await answer(Tool(odd), function="f", self="s", args=1, kwargs=2, call="c", schema="x") == "fs12cx"

    async def test_strict_json_and_constraints(self) -> None:
        class Point(BaseModel):
            x: int

        def place(point: Point, how: Literal["up", "down"], grid: Annotated[str, Field(pattern="^[0-9]{3}$")]) -> Any:
            """Place."""
            return point

        made = Tool(place)
        assert await answer(made, point={"x": 1}, how="up", grid="123") == Point(x=1)
        for wrong in (
            {"point": {"x": "1"}, "how": "up", "grid": "123"},
            {"point": {"x": 1}, "how": "left", "grid": "123"},
            {"point": {"x": 1}, "how": "up", "grid": "12"},
            {"point": {"x": 1}, "how": "up"},
            {"point": {"x": 1}, "how": "up", "grid": "123", "more": 1},
        ):
            with pytest.raises(InvalidArguments) as caught:
                made.check(json.dumps(wrong))
            assert caught.value.problems


class TestContext:
    async def test_is_injected_and_absent_from_the_schema(self) -> None:
        @tool
        def stock(ctx: RunContext[Shop], item: str) -> str:
            """How many."""
            return f"{ctx.deps.stock} {item}"

        @tool
        async def bare(ctx: RunContext, item: str = "tea") -> str:  # type: ignore[type-arg]
            """How many."""
            return f"{ctx.deps.stock} {item}"

        for made in (stock, bare):
            assert set(made.parameters["properties"]) == {"item"}
            assert await answer(made, Shop(3), item="tea") == "3 tea"

    async def test_by_an_alias_and_by_keyword_only(self) -> None:
        @tool
        def alias(shop: Ctx, n: int) -> int:
            """How many."""
            return shop.deps.stock + n

        @tool
        def keyword(*, ctx: Ctx, n: int) -> int:
            """How many."""
            return ctx.deps.stock + n

        assert await answer(alias, Shop(3), n=1) == 4
        assert await answer(keyword, Shop(3), n=1) == 4

    def test_only_as_the_first_parameter(self) -> None:
        def late(item: str, ctx: RunContext[Shop]) -> str:
            """Late."""
            return item

        with pytest.raises(ConfigurationError, match="only the first parameter"):
            tool(late)


OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "default": 3}},
    "required": ["city"],
}


class TestFromSchema:
    async def test_arguments_by_name(self) -> None:
        def forecast(city: str, days: int) -> str:
            return f"{city} {days}"

        made = Tool.from_schema("forecast", "Weather.", OBJECT, forecast)
        assert await answer(made, city="Bonn") == "Bonn 3"
        assert await answer(made, city="Bonn", days=1) == "Bonn 1"
        assert made("Bonn", 2) == "Bonn 2"
        assert made.schema.returns is None

    async def test_arguments_as_one_dictionary_sync_and_async(self) -> None:
        async def later(arguments: dict[str, Any]) -> Any:
            return arguments

        for call in (lambda data: data, later, lambda data, /: data):
            made = Tool.from_schema("f", "F.", OBJECT, call)
            assert await answer(made, city="Bonn") == {"city": "Bonn", "days": 3}

    async def test_keyword_arguments(self) -> None:
        made = Tool.from_schema("f", "F.", OBJECT, lambda **given: given)
        assert await answer(made, city="Bonn", days=2) == {"city": "Bonn", "days": 2}

    async def test_with_a_context_first(self) -> None:
        async def by_name(ctx: RunContext[Shop], city: str, days: int) -> Any:
            return ctx.deps.stock, city, days

        def as_one(ctx: Ctx, data: dict[str, Any]) -> Any:
            return ctx.deps.stock, data

        class Callable_:
            def __call__(self, ctx: Ctx, **given: Any) -> Any:
                return ctx.deps.stock, given

        assert await answer(Tool.from_schema("f", "F.", OBJECT, by_name), Shop(1), city="x") == (1, "x", 3)
        assert await answer(Tool.from_schema("f", "F.", OBJECT, as_one), Shop(1), city="x") == (
            1,
            {"city": "x", "days": 3},
        )
        assert await answer(Tool.from_schema("f", "F.", OBJECT, Callable_()), Shop(1), city="x") == (
            1,
            {"city": "x", "days": 3},
        )

    async def test_a_property_may_be_called_like_the_context(self) -> None:
        def as_one(ctx: RunContext[Shop], data: dict[str, Any]) -> Any:
            return ctx.deps.stock, data

        made = Tool.from_schema("f", "F.", {"properties": {"ctx": {"type": "string"}}}, as_one)
        assert await answer(made, Shop(1), ctx="mine") == (1, {"ctx": "mine"})

    async def test_a_default_is_not_shared_between_calls(self) -> None:
        schema = {"properties": {"items": {"type": "array", "default": []}}}

        def push(data: dict[str, Any]) -> list[int]:
            data["items"].append(1)
            return list(data["items"])

        made = Tool.from_schema("push", "Push.", schema, push)
        assert await answer(made) == [1]
        assert await answer(made) == [1]

    @pytest.mark.parametrize(
        ("schema", "fits", "more"),
        [
            (OBJECT, True, False),
            ({**OBJECT, "additionalProperties": True}, True, True),
            ({"$ref": "#/$defs/A", "$defs": {"A": OBJECT}}, True, False),
            ({"allOf": [OBJECT, {"properties": {"days": True}}]}, True, False),
            ({"anyOf": [OBJECT, {"required": ["none"]}]}, True, False),
            ({"$ref": "#/$defs/none"}, False, False),
        ],
        ids=["plain", "open", "ref", "allOf", "anyOf", "dangling"],
    )
    async def test_what_the_schema_does_not_name_is_refused(self, schema: Any, fits: bool, more: bool) -> None:
        from brain.dispatch import Dispatcher
        from brain.events import ToolCall

        dispatcher = Dispatcher([Tool.from_schema("f", "F.", schema, lambda data: data)])

        def passes(**given: Any) -> bool:
            try:
                dispatcher.check(ToolCall("1", "f", json.dumps(given)))
            except InvalidArguments:
                return False
            return True

        assert passes(city="Bonn", days=2) is fits
        assert passes(city="Bonn", days=2, more=1) is more
        assert not passes(city=5)

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "string"},
            {"type": "objekt"},
            {"properties": []},
            {"properties": {"a": {"type": 5}}},
            [],
            "object",
            None,
            {"properties": {"a": {"default": object()}}},
        ],
        ids=str,
    )
    def test_an_invalid_schema_is_refused(self, schema: Any) -> None:
        with pytest.raises(ConfigurationError, match="f: "):
            Tool.from_schema("f", "F.", schema, lambda **given: given)

    def test_a_call_that_cannot_take_what_the_schema_describes_is_refused(self) -> None:
        def other(town: str, days: int) -> None: ...

        with pytest.raises(ConfigurationError, match="'city'"):
            Tool.from_schema("f", "F.", OBJECT, other)
        with pytest.raises(ConfigurationError, match="function"):
            Tool.from_schema("f", "F.", OBJECT, 5)  # type: ignore[arg-type]

    def test_the_schema_given_is_not_changed_and_changing_it_changes_nothing(self) -> None:
        schema = json.loads(json.dumps(OBJECT))
        made = Tool.from_schema("f", "F.", schema, lambda **given: given)
        assert schema == OBJECT
        schema["properties"]["more"] = {"type": "string"}
        with pytest.raises(InvalidArguments):
            made.check('{"city": "x", "more": "y"}')


BAD_JSON = [
    "",
    "null",
    "[]",
    "5",
    "{",
    '{"a": 1,}',
    '{"a": 1, "a": 2}',
    '{"a": NaN}',
    '{"a": Infinity}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"a": ' + "[" * 100_000,
    '{"a": ' + "9" * 5000 + "}",
    '{"a": "\ud800"}',
    "\x00",
]


@pytest.mark.parametrize("text", BAD_JSON, ids=range(len(BAD_JSON)))
def test_arguments_that_are_not_json(text: str) -> None:
    def take(a: float) -> None:
        """Take."""

    made = [Tool(take), Tool.from_schema("take", "Take.", {"properties": {"a": {}}}, lambda a: a)]
    for each in made:
        with pytest.raises(InvalidArguments) as caught:
            each.check(text)
        assert len(str(caught.value)) < 500


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_load_object_gives_an_object_or_says_why_not(value: Any) -> None:
    text = json.dumps(value)
    try:
        loaded = load_object(text, "x")
    except InvalidArguments:
        return
    assert loaded == value


@pytest.mark.parametrize("name", ["a", "get_weather", "a.b-c", "_x", "A1", "x" * 64])
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "a b",
        "x" * 65,
        "päy",
        "раy",
        "pay\u200b",
        "ｐay",
        "pay\u202e",
        "pay\n",
        "pay\x00",
        "pay\ud800",
        "a/b",
        "ﬁle",
    ],
    ids=ascii,
)
def test_names_that_look_like_others_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a tool's name") as caught:
        check_name(name)
    str(caught.value).encode()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_a_name_is_plain_ascii_or_refused(name: str) -> None:
    try:
        check_name(name)
    except ConfigurationError as error:
        str(error).encode()
    else:
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", name)
        assert unicodedata.normalize("NFKC", name) == name


def test_a_validator_that_breaks_is_a_problem_of_the_call() -> None:
    from brain.dispatch import Dispatcher
    from brain.events import ToolCall

    def explode(value: int) -> int:
        raise RuntimeError("boom")

    def take(a: Annotated[int, AfterValidator(explode)]) -> int:
        """Take."""
        return a

    with pytest.raises(InvalidArguments, match="boom"):
        Dispatcher([Tool(take)]).check(ToolCall("1", "take", '{"a": 1}'))
