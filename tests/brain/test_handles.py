"""Handles: what has one, what it stands for, and what only looks like one."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel

from brain import Brain, ModelRequest, Tool
from brain.handles import HANDLE, UnknownHandle, handle_of, part_of, resolved, with_handle
from brain.keys import Secret
from brain.testing import ScriptedModel, call
from specialists import InvalidArguments
from tests.running import contents

VALUES: dict[str, Any] = {
    "@v1:00aa": "text",
    "@v2:00bb": {"rows": [{"name": "n0"}, {"name": "n1"}], "größe": 3, "gr": 9, "none": None},
    "@v3:00cc": None,
}


def value_of(handle: str) -> Any:
    if handle not in VALUES:
        raise UnknownHandle(f"no result has the handle {handle}")
    return VALUES[handle]


def passed(**arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resolved("f", json.dumps(arguments), value_of))
    return found


class TestNaming:
    def test_a_handle_follows_from_the_place_and_what_is_said(self) -> None:
        handle = handle_of(3, '{"value": 1}')
        assert HANDLE.fullmatch(handle)
        assert handle == handle_of(3, '{"value": 1}')
        assert handle.startswith("@v3:")
        assert len({handle_of(3, f'{{"value": {n}}}') for n in range(100)}) > 90

    def test_the_content_with_its_handle_has_the_same_handle(self) -> None:
        bare = json.dumps({"value": 'a"}, "handle": "@v1:0000"}'})
        said = with_handle(7, bare)
        assert json.loads(said) == {**json.loads(bare), "handle": handle_of(7, bare)}
        assert handle_of(7, said) == handle_of(7, bare)

    def test_halves_of_characters_have_one_too(self) -> None:
        assert HANDLE.fullmatch(handle_of(1, '{"value": "\ud800"}'))


class TestParts:
    @pytest.mark.parametrize(
        ("path", "part"),
        [
            ("", VALUES["@v2:00bb"]),
            (".rows", [{"name": "n0"}, {"name": "n1"}]),
            (".rows[1].name", "n1"),
            (".größe", 3),
            (".gr", 9),
            (".none", None),
        ],
    )
    def test_are_found_by_their_paths(self, path: str, part: Any) -> None:
        assert part_of(VALUES["@v2:00bb"], path, "it") == part
        assert passed(x=f"@v2:00bb{path}") == {"x": part}

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            (".nothing", "it has no 'nothing'; its keys are rows, größe, gr, none"),
            (".größer", "it has no 'größer'"),
            (".rows[2]", "it has no item 2; it has 2 items"),
            (".rows[999999999]", "it has no item 999999999"),
            ("[0]", "it has no item 0; it is no list"),
            (".rows.name", "it has no 'name'; it has no keys"),
            (".none.x", "it has no 'x'; it has no keys"),
        ],
    )
    def test_that_are_not_there_are_told(self, path: str, said: str) -> None:
        with pytest.raises(UnknownHandle) as caught:
            part_of(VALUES["@v2:00bb"], path, "it")
        assert said in str(caught.value)

    def test_what_is_told_of_keys_is_short(self) -> None:
        with pytest.raises(UnknownHandle) as caught:
            part_of({f"{n}" * 10_000: 1 for n in range(1000)}, ".x", "it")
        assert len(str(caught.value)) < 2000

    def test_a_text_is_no_list_of_characters(self) -> None:
        with pytest.raises(UnknownHandle, match="no list"):
            part_of("text", "[0]", "it")


class TestPassing:
    def test_wherever_they_stand_in_arguments(self) -> None:
        given = {"a": "@v1:00aa", "b": [1, "@v1:00aa", {"c": " @v2:00bb.rows[0] "}], "d": "@v3:00cc"}
        assert passed(**given) == {"a": "text", "b": [1, "text", {"c": {"name": "n0"}}], "d": None}

    def test_names_of_arguments_are_none(self) -> None:
        assert passed(**{"@v1:00aa": 1}) == {"@v1:00aa": 1}

    @pytest.mark.parametrize("text", ["{}", "", "not JSON @v1:00aa", '{"x": "@v1:00aa', '{"x": "plain"}'])
    def test_what_is_no_json_or_has_none_stays_as_it_is(self, text: str) -> None:
        assert resolved("f", text, value_of) is text

    @pytest.mark.parametrize(
        "text",
        [
            "mail me @v1", "@v1", "@v1:00a", "@v1:00AA", "@v0:00aa", "@v01:00aa", "@v\u0661:00aa", "@v9:00aa x",
            "@v1:00ab is not it", "x@v", "@v9999999999:00aa",
        ],
    )  # fmt: skip
    def test_texts_that_look_like_one_are_texts(self, text: str) -> None:
        assert passed(x=text) == {"x": text}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("@v9:00aa", "f: no result has the handle @v9:00aa"),
            ("@v1:00ab", "f: no result has the handle @v1:00ab"),
            ("@v1:00aa.x", "f: the value of @v1:00aa has no 'x'"),
            ("see @v1:00aa, please", "@v1:00aa stands within a longer text"),
            ("@v1:00aa and @v2:00bb", "@v1:00aa stands within a longer text"),
            ("@v1:00aa.", "@v1:00aa stands within a longer text"),
            ("@v1:00aa[-1]", "@v1:00aa stands within a longer text"),
            ("@v9:00aa @v1:00aa", "@v1:00aa stands within a longer text"),
        ],
    )
    def test_what_cannot_be_meant_is_told(self, text: str, said: str) -> None:
        with pytest.raises(InvalidArguments) as caught:
            passed(x=text)
        assert said in str(caught.value)
        assert caught.value.problems

    def test_a_value_that_is_a_handle_is_passed_as_text(self) -> None:
        def inner(handle: str) -> Any:
            return "@v1:00aa" if handle == "@v4:00dd" else value_of(handle)

        assert json.loads(resolved("f", '{"x": "@v4:00dd"}', inner)) == {"x": "@v1:00aa"}

    def test_few_words_do_not_stand_for_much_too_much(self) -> None:
        with pytest.raises(InvalidArguments, match="more than 256 handles"):
            passed(x=["@v1:00aa"] * 257)

    def test_a_long_text_of_what_looks_like_handles_is_looked_at_in_reason(self) -> None:
        asked = []

        def counting(handle: str) -> Any:
            asked.append(handle)
            return value_of(handle)

        text = " ".join(f"@v7:{n:04x}" for n in range(60_000))
        assert json.loads(resolved("f", json.dumps({"x": text}), counting)) == {"x": text}
        assert len(asked) <= 256

    @pytest.mark.parametrize("levels", [300, 600, 900, 5_000])
    def test_nested_deeply(self, levels: int) -> None:
        text = '{"x": ' + "[" * levels + '"@v1:00aa"' + "]" * levels + "}"
        filled: str | None = None
        with suppress(InvalidArguments):  # that it nests too deeply
            filled = resolved("f", text, value_of)
        assert filled is None or filled is text or filled == text.replace("@v1:00aa", "text")


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    """What a typed tool gives."""

    at: datetime
    price: Decimal
    colours: set[Colour]
    lines: dict[int, tuple[str, float]]
    next: Order | None = None


ORDER = Order(at=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.50"), colours={Colour.RED}, lines={1: ("a", 0.5)})

Loop = Literal["turns", "graph"]


async def handed_on(value: Any, kind: Any, planning: Loop) -> tuple[list[Any], dict[str, Any]]:
    """What arrives at a tool of a parameter of ``kind`` when another has answered ``value``, and what is said of it."""
    arrived: list[Any] = []

    def give():  # type: ignore[no-untyped-def]
        """Give it."""
        return value

    def take(it):  # type: ignore[no-untyped-def]
        """Take it."""
        arrived.append(it)
        return "taken"

    give.__annotations__ = {"return": kind}
    take.__annotations__ = {"it": kind, "return": str}

    def by_handle(request: ModelRequest) -> Any:
        said = json.loads(request.messages[-1]["content"])
        return call("take", it=said.get("handle") or said["preview"]["handle"])

    def end(request: ModelRequest) -> Any:
        return {"steps": []} if str(request.messages[-1]["content"]).startswith("Do not call any tool") else "done"

    plan = {"steps": [{"id": "a", "tool": "give"}, {"id": "b", "tool": "take", "references": {"it": "a"}}]}
    said: list[Any] = [plan] if planning == "graph" else [call("give"), by_handle]
    tools = [Tool(give, effect="pure"), Tool(take, effect="pure")]
    result = await Brain(ScriptedModel([*said, end, end]), tools=tools, planning=planning).run("go")
    return arrived, contents(result)[1]


@pytest.mark.parametrize("planning", ["turns", "graph"])
class TestInBothLoops:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (Order, ORDER),
            (list[Order], [ORDER, ORDER.model_copy(update={"next": ORDER})]),
            (date, date(2026, 2, 3)),
            (datetime, ORDER.at),
            (timedelta, timedelta(seconds=3.5)),
            (Decimal, Decimal("0.1")),
            (UUID, UUID(int=3)),
            (Path, Path("/a/b")),
            (Colour, Colour.RED),
            (set[int], {1, 2, 3}),
            (tuple[int, str], (1, "a")),
            (dict[int, str], {1: "a"}),
            (str | None, None),
            (str, ""),
            (int, 10**30),
            (list[float], [0.1, 1e300]),
            (str, "@v1:0000 and @v9:abcd"),
            (str, 'a quote ", a line\n, a nothing \x00 and \u2028'),
            (str, "long " * 1_000_000),
            (Any, {"preview": {"handle": "@v1:0000"}, "error": "none"}),
        ],
        ids=lambda each: str(each)[:30] if isinstance(each, str | type) else None,
    )
    async def test_typed_values_arrive_as_they_were(self, kind: Any, value: Any, planning: Loop) -> None:
        (arrived,), _ = await handed_on(value, kind, planning)
        assert arrived == value
        assert type(arrived) is type(value)

    async def test_half_of_a_character_arrives_as_the_model_is_shown_it(self, planning: Loop) -> None:
        assert (await handed_on("a\ud800b", str, planning))[0] == ["a?b"]

    async def test_a_key_does_not_pass(self, planning: Loop) -> None:
        key = Secret("sk-this-is-one-of-ours")
        assert (await handed_on(["sk-this-is-one-of-ours"], list[str], planning))[0] == [["[key]"]]
        assert key

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    async def test_what_is_no_number_is_told_and_not_passed(self, value: float, planning: Loop) -> None:
        arrived, said = await handed_on(value, float, planning)
        assert arrived == []
        assert "valid number" in said["error"]


@pytest.mark.parametrize("planning", ["turns", "graph"])
async def test_a_value_may_be_read_by_a_model_that_was_not_offered_it(planning: Loop) -> None:
    """With few of many tools offered, and nothing shown as a preview yet."""

    def first(number: int) -> str:
        """Give the first thing."""
        return "abcdefgh" * number

    def second() -> int:
        """Give the second thing."""
        return 2

    made = {"steps": [{"id": "a", "tool": "first", "arguments": {"number": 1}}]}
    begin = made if planning == "graph" else call("first", number=1)

    def read(request: ModelRequest) -> Any:
        return call("read_value", value=json.loads(request.messages[-1]["content"])["handle"], start=2, length=3)

    model = ScriptedModel([begin, read, "done"])
    tools = [Tool(first, effect="pure"), Tool(second, effect="pure")]
    result = await Brain(model, tools=tools, tool_limit=1, planning=planning).run("Give the first thing")
    assert result.output == "done"
    assert contents(result)[-1]["value"] == "cde"
