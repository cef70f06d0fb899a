"""Structured output: checked, mended once, typed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import pytest

from brain import (
    Brain,
    ConfigurationError,
    InvalidOutput,
)
from brain.testing import ScriptedModel, reply
from tests.running import Pair, Point, Shape, add, carried


class TestStructuredOutput:
    @pytest.mark.parametrize(
        ("output_type", "text", "expected"),
        [
            (Point, '{"x": 1, "y": 2}', Point(x=1, y=2)),
            (Point, '```json\n{"x": 1}\n```', Point(x=1)),
            (Point, '```\n{"x": 1}\n```', Point(x=1)),
            (int, '{"answer": 3}', 3),
            (float, '{"answer": 3}', 3.0),
            (bool, '{"answer": true}', True),
            (list[int], '{"answer": [1, 2]}', [1, 2]),
            (dict[str, int], '{"answer": {"a": 1}}', {"a": 1}),
            (Literal["yes", "no"], '{"answer": "yes"}', "yes"),
            (Pair, '{"left": 1, "right": "r"}', Pair(1, "r")),
            (int | str, '{"answer": "s"}', "s"),
            (Point | None, '{"answer": null}', None),
            (list[Point], '{"answer": [{"x": 1}]}', [Point(x=1)]),
            (
                Shape,
                '{"answer": {"name": "dot", "points": [{"x": 1}], "inner": null}}',
                Shape(name="dot", points=[Point(x=1)]),
            ),
        ],
        ids=str,
    )
    async def test_from_a_models_json(self, output_type: Any, text: str, expected: Any) -> None:
        model = ScriptedModel([text])
        result = await Brain(model, output_type=output_type).run("go")
        assert result.output == expected
        assert type(result.output) is type(expected)
        schema = model.requests[0].output_schema
        assert schema is not None
        assert schema["type"] == "object"

    @pytest.mark.parametrize(
        "bad",
        [
            "I would rather not.",
            '{"x": "1"}',
            '{"x": 1, "x": 2}',
            '{"x": NaN}',
            '{"x": 1.5}',
            '{"x": true}',
            "[]",
            "{}",
            "",
            '{"x": 1e999}',
            '{"x": "\\ud800"}',
            "[" * 100_000,
        ],
    )
    async def test_one_repair_round_then_the_end(self, bad: str) -> None:
        model = ScriptedModel([bad, '{"x": 1}'])
        result = await Brain(model, output_type=Point).run("go")
        assert result.output == Point(x=1)
        assert result.repairs == 1
        with pytest.raises(InvalidOutput) as caught:
            await Brain(ScriptedModel([bad, bad, '{"x": 1}']), output_type=Point).run("go")
        assert carried(caught.value).repairs == 1
        assert len(carried(caught.value).turns) == 2

    async def test_the_planner_hands_over_a_typed_value(self) -> None:
        def make_point(x: int, y: int) -> Point:
            """Make a point of two coordinates."""
            return Point(x=x, y=y)

        result = await Brain(tools=[make_point], output_type=Point).run("make a point with x 3 and y 4")
        assert result.output == Point(x=3, y=4)
        assert result.output is result.calls[0].value or isinstance(result.output, Point)

    async def test_the_planners_value_of_another_type_is_an_error(self) -> None:
        with pytest.raises(InvalidOutput, match="output_type") as caught:
            await Brain(tools=[add], output_type=Point).run("add 3 and 4")
        assert carried(caught.value).calls[0].value == 7

    async def test_an_answer_that_was_cut_off_is_not_passed_off_as_whole(self) -> None:
        with pytest.raises(InvalidOutput, match="max_output_tokens") as caught:
            await Brain(ScriptedModel([reply("Once upon", finish_reason="length")])).run("go")
        assert carried(caught.value).messages[-1]["content"] == "Once upon"

    def test_a_type_without_a_schema_is_refused_at_once(self) -> None:
        for impossible in (Callable[[int], int], threading.Lock, object()):
            with pytest.raises(ConfigurationError, match="output_type"):
                Brain(output_type=impossible)
