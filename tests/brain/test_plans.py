"""A model's plan as data: what is read, what is refused and why, and what is checked against the tools' types."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from brain import Tool
from brain.events import Plan, PlanStep, ToolSchema
from brain.plans import MOST_STEPS, SUBTASK, plan_problems, put, read_plan, write_plan
from specialists import InvalidArguments


def step(id: str, tool: str | None = "f", **more: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, **more}


def text(*steps: Any, **more: Any) -> str:
    return json.dumps({"steps": list(steps), **more})


class TestReading:
    def test_every_part_of_a_step(self) -> None:
        plan = read_plan(
            text(
                step("a", arguments={"x": 1}),
                {"id": "b", "task": "say it", "references": {"it": "a.rows[0].name"}, "after": ["a"]},
                answer="b",
            )
        )
        assert plan == Plan(
            (
                PlanStep("f", {"x": 1}, id="a"),
                PlanStep(SUBTASK, {}, {"it": 0}, {"it": ".rows[0].name"}, (0,), "say it", "b"),
            ),
            answer=1,
        )

    @pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "```\n{}```", "The plan:\n```json\n{}\n```\nGood?"])
    def test_code_fences_and_words_around_them(self, around: str) -> None:
        assert read_plan(around.replace("{}", text(step("a", arguments={"x": "``` and ```"})))).steps[0].id == "a"

    def test_ids_may_have_dots_and_are_taken_before_paths(self) -> None:
        plan = read_plan(text(step("a"), step("a.b"), step("c", references={"x": "a.b", "y": "a.b.c", "z": "a.d"})))
        assert plan.steps[2].references == {"x": 1, "y": 1, "z": 0}
        assert plan.steps[2].paths == {"y": ".c", "z": ".d"}

    def test_paths_may_be_of_any_letters_and_reach_far(self) -> None:
        plan = read_plan(text(step("ä"), step("b", references={"x": "ä.größe[123456]"})))
        assert plan.steps[1].paths == {"x": ".größe[123456]"}

    def test_a_list_of_references_is_one_for_each_item(self) -> None:
        plan = read_plan(text(step("a"), step("b"), step("c", references={"texts": ["a", "b.text"]})))
        assert plan.steps[2].references == {"texts[0]": 0, "texts[1]": 1}
        assert plan.steps[2].paths == {"texts[1]": ".text"}

    def test_places_in_a_list_come_in_any_order(self) -> None:
        plan = read_plan(text(step("a"), step("b"), step("c", references={"x[1]": "a", "y": "a", "x[0]": "b"})))
        assert list(plan.steps[2].references) == ["x[0]", "x[1]", "y"]

    def test_names_of_parameters_that_are_no_names_in_python(self) -> None:
        plan = read_plan(text(step("a"), step("b", references={"first-name": "a", "$x": "a"})))
        assert list(plan.steps[1].references) == ["first-name", "$x"]

    def test_empty_parts_are_parts_that_are_not_there(self) -> None:
        (read,) = read_plan(text(step("a", task="", arguments=None, references=None, after=None))).steps
        assert read == PlanStep("f", {}, id="a")

    def test_what_an_earlier_plan_gave_becomes_its_handle_also_in_a_list_with_new_values(self) -> None:
        done = {"old": "@v1:abcd", "gone.by": "@v2:0123"}
        plan = read_plan(
            text(step("a"), step("b", references={"x": "old.rows[0]", "y": ["a", "gone.by", "a"]}, after=["old"])), done
        )
        assert plan.steps[1].arguments == {"x": "@v1:abcd.rows[0]", "y": [None, "@v2:0123", None]}
        assert plan.steps[1].references == {"y[0]": 0, "y[2]": 0}
        assert plan.steps[1].needs == (0,)

    def test_a_step_of_this_plan_goes_before_one_of_an_earlier_plan(self) -> None:
        plan = read_plan(text(step("a"), step("b", references={"x": "a"})), {"a": "@v1:abcd"})
        assert plan.steps[1].references == {"x": 0}

    def test_a_plan_without_steps(self) -> None:
        assert read_plan('{"steps": []}') == Plan(())

    def test_the_most_steps(self) -> None:
        assert len(read_plan(text(*(step(f"s{n}") for n in range(MOST_STEPS)))).steps) == MOST_STEPS


def deep(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


class TestRefusing:
    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("", "no JSON"),
            ("null", "an object with a list of steps"),
            ("[]", "an object with a list of steps"),
            ('{"steps": null}', "an object with a list of steps"),
            ('{"steps": [], "steps": []}', "stands twice"),
            ("[" * 100_000, "no JSON"),
            (text("a"), "step 1 has no id"),
            (text(step("  ")), "step 1 has no id"),
            (text({"id": 1, "tool": "f"}), "step 1 has no id"),
            (text(step("a" * 1_000_000)), "the id of step 1 is longer than 64 characters"),
            (text(step("a\x1b[31m")), "cannot be printed"),
            (text(step("\ud800")), "cannot be printed"),
            (text(step("a"), step("a")), "two steps have the id 'a'"),
            (text(step("a", tool=None)), "a tool or a task, one of the two"),
            (text(step("a", task="t")), "a tool or a task, one of the two"),
            (text({"id": "a", "tool": {"b": 1}, "task": "t"}), "a tool or a task, one of the two"),
            (text({"id": "a", "tool": 5}), "a tool or a task, one of the two"),
            (text(step("a", when="now")), "has 'when', which no step has"),
            (text(step("a", arguments="{}")), "arguments and references are objects"),
            (text(step("a", references=["b"])), "arguments and references are objects"),
            (text(step("a", arguments={"x": deep(400)})), "nest more than 100 deep"),
            (text(step("a", references={"x": "a"})), "step a waits for itself"),
            (text(step("a", after=["a"])), "step a waits for itself"),
            (text(step("a", references={"x": "b"})), "'x' refers to 'b', and no step has that id"),
            (text(step("a", references={"x": None})), "no step has that id"),
            (text(step("a", references={"x": {"y": 1}})), "no step has that id"),
            (text(step("a"), step("b", references={"x": "a..c"})), "no step has that id"),
            (text(step("a"), step("b", references={"x": "ab"})), "no step has that id"),
            (text(step("a", after=[["b"]])), "no step has that id"),
            (text(step("a", after=["b"])), "comes after 'b', and no step has that id"),
            (text(step("a"), answer=["a"]), "the answer is to be step"),
            (text(step("a"), answer="b"), "the answer is to be step 'b', which the plan does not have"),
            (text(step("a"), step("b", references={"": "a"})), "is no parameter"),
            (text(step("a"), step("b", references={"x[-1]": "a"})), "'x[-1]' is no parameter"),
            (text(step("a"), step("b", references={"x[5]": "a"})), "nothing can be put at 'x[5]'"),
            (text(step("a"), step("b", references={"x": "a", "x.y": "a"})), "nothing can be put at 'x.y'"),
            (text(step("a"), step("b", arguments={"x": 1}, references={"x": "a"})), "'x' is given twice"),
            (text(step("a"), step("b", arguments={"x": [1]}, references={"x[0]": "a"})), "'x[0]' is given twice"),
            (text(step("a"), step("b", references={"x": ["a"] * 257})), "256 is the most"),
            (text(*(step(f"s{n}") for n in range(65))), "the plan has 65 steps, and 64 is the most"),
        ],
    )
    def test_says_what_is_wrong_in_few_words(self, written: str, said: str) -> None:
        with pytest.raises(ValueError, match=re.escape(said)) as caught:
            read_plan(written)
        assert len(str(caught.value)) < 2000

    def test_all_problems_at_once_but_no_more_than_can_be_read(self) -> None:
        with pytest.raises(ValueError, match=r"and 990 more$") as caught:
            read_plan(text(step("a", when=1, references={"x": "q"}, after=[f"z{n}" for n in range(1000)])))
        assert "'when'" in str(caught.value)
        assert "'q'" in str(caught.value)

    def test_cycles_are_named_step_by_step(self) -> None:
        with pytest.raises(ValueError, match=r"the steps (\w -> ){3}\w wait for each other"):
            read_plan(text(step("a", after=["c"]), step("b", after=["a"]), step("c", references={"x": "b"}), step("d")))

    def test_whatever_is_written_is_a_plan_or_a_value_error(self) -> None:
        chance = random.Random(35)
        atoms = [
            "a",
            "b",
            "a.rows[0]",
            "",
            "f",
            "x[0]",
            None,
            1,
            True,
            [],
            {},
            ["a"],
            {"a": 1},
            "\ud800",
            10**400,
            [[1]],
        ]

        def anything() -> Any:
            kind = chance.random()
            if kind < 0.7:
                return chance.choice(atoms)
            parts = [anything() for _ in range(chance.randint(0, 3))]
            return parts if kind < 0.85 else {str(part): part for part in parts}

        def one(place: int) -> Any:
            good = {"id": "abc"[place], "tool": "f", "arguments": {"x": 1}}
            good |= {"references": {"y": "a"}, "after": ["a"]} if place else {}
            return {key: value if chance.random() < 0.85 else anything() for key, value in good.items()}

        read = 0
        for _ in range(3000):
            written = json.dumps(
                {"steps": [one(place) for place in range(3)], "answer": chance.choice(["a", None, []])}
            )
            try:
                plan = read_plan(written)
            except ValueError:
                continue
            read += 1
            assert read_plan(write_plan(plan)) == plan
        assert read > 50


class TestWriting:
    def test_what_is_written_is_read_back(self) -> None:
        plan = read_plan(
            text(
                step("a", arguments={"x": [1, {"y": "ü"}]}),
                {"id": "b", "task": "t", "references": {"it": ["a", "a.rows"]}, "after": ["a"]},
                step("c", arguments={"z": [0]}, references={"z[1]": "b"}),
                answer="c",
            )
        )
        assert read_plan(write_plan(plan)) == plan

    def test_steps_without_ids_get_some(self) -> None:
        plan = Plan((PlanStep("f", {}), PlanStep("f", {}, {"x": 0})))
        assert [each.id for each in read_plan(write_plan(plan)).steps] == ["s1", "s2"]


class TestPutting:
    def test_makes_what_is_needed(self) -> None:
        arguments: dict[str, Any] = {"x": [1], "n": None}
        for place, value in [("x[1]", 2), ("y.a[0].b", 3), ("y.a[1]", 4), ("n", 5), ("first-name", 6)]:
            put(arguments, place, value)
        assert arguments == {"x": [1, 2], "y": {"a": [{"b": 3}, 4]}, "n": 5, "first-name": 6}

    @pytest.mark.parametrize("place", ["x", "x[0]", "x[3]", "x.a", "t.a", "t[0]"])
    def test_nothing_is_written_over(self, place: str) -> None:
        arguments: dict[str, Any] = {"x": [1], "t": "text"}
        with pytest.raises(ValueError, match=r"given twice|nothing can be put"):
            put(arguments, place, 2)
        assert arguments == {"x": [1], "t": "text"}

    def test_a_value_passed_before_is_not_changed(self) -> None:
        value = {"y": None}
        arguments: dict[str, Any] = {}
        put(arguments, "x", value)
        with pytest.raises(ValueError, match="given twice"):
            put(arguments, "x", 1)
        assert value == {"y": None}


class Box(BaseModel):
    width: int
    labels: list[str]


class Wide(BaseModel):
    width: int


class Named(BaseModel):
    name: str


def boxes() -> list[Box]:
    """Give boxes."""
    return []


def box() -> Box:
    """Give a box."""
    return Box(width=1, labels=[])


def number() -> float:
    """Give a number."""
    return 1.0


def either() -> int | str:
    """Give one of two."""
    return 1


def whatever() -> Any:
    """Give something."""


def mapping() -> dict[str, str]:
    """Give a mapping."""
    return {}


def take(
    count: int = 0, text: str = "", items: list[str] | None = None, wide: Wide | None = None, things: Any = None
) -> None:
    """Take."""


def measure(wides: list[Wide], named: Named | None = None, wide: Wide | None = None) -> None:
    """Take wide things."""


def one_wide(wide: Wide) -> None:
    """Take a wide thing."""


def one_named(named: Named) -> None:
    """Take a named thing."""


FUNCTIONS = (boxes, box, number, either, whatever, mapping, take, measure, one_wide, one_named)
TOOLS: dict[str, ToolSchema] = {each.__name__: Tool(each, effect="pure").schema for each in FUNCTIONS}


def check(name: str, arguments: Mapping[str, Any]) -> None:
    if "wrong" in arguments:
        raise InvalidArguments(f"{name}.wrong is not a parameter", problems=("wrong",))


def problems_of(*steps: Any) -> list[str]:
    return plan_problems(read_plan(text(*steps)), TOOLS, check)


class TestChecking:
    @pytest.mark.parametrize(
        ("source", "reference", "tool", "place"),
        [
            ("number", "a", "take", "count"),
            ("either", "a", "take", "text"),
            ("whatever", "a", "take", "count"),
            ("whatever", "a.x[0].y", "take", "count"),
            ("mapping", "a.any", "take", "text"),
            ("mapping", "a", "take", "things"),
            ("box", "a.width", "take", "count"),
            ("box", "a.labels", "take", "items"),
            ("box", "a.labels[0]", "take", "text"),
            ("box", "a.labels[0]", "take", "items[0]"),
            ("box", "a", "one_wide", "wide"),
            ("boxes", "a", "measure", "wides"),
            ("boxes", "a[3].labels[0]", "take", "text"),
            ("box", "a.width", "measure", "wides[0].width"),
        ],
    )
    def test_what_can_fit_does(self, source: str, reference: str, tool: str, place: str) -> None:
        more = {"wides": []} if tool == "measure" and not place.startswith("wides") else {}
        assert problems_of(step("a", source), step("b", tool, arguments=more, references={place: reference})) == []

    @pytest.mark.parametrize(
        ("source", "reference", "tool", "place", "said"),
        [
            ("box", "a", "take", "count", "it is object, and integer is wanted"),
            ("box", "a.height", "take", "count", "it has no 'height', only width, labels"),
            ("box", "a[0]", "take", "count", "it is object, and has no '[0]'"),
            ("boxes", "a.width", "take", "count", "it is array, and has no 'width'"),
            ("box", "a.labels[0]", "take", "count", "it is string, and integer is wanted"),
            ("mapping", "a.any", "take", "count", "it is string, and integer is wanted"),
            ("mapping", "a", "take", "items", "it is object, and array or null is wanted"),
            ("box", "a", "measure", "named", "it has no 'name'"),
            ("number", "a", "take", "text", "it is number, and string is wanted"),
            ("box", "a.labels", "measure", "wides", "of its items, it is string, and object is wanted"),
            ("box", "a", "one_named", "named", "it has no 'name', only width, labels"),
            ("box", "a.width", "one_wide", "wide.width[0]", "of the parameter, it is integer, and has no '[0]'"),
            ("box", "a.width", "take", "wide.height", "of the parameter, it has no 'height', only width"),
        ],
    )
    def test_what_cannot_fit_is_told(self, source: str, reference: str, tool: str, place: str, said: str) -> None:
        more = {"wides": []} if place == "named" and tool == "measure" else {}
        written = step("a", source), step("b", tool, arguments=more, references={place: reference})
        (problem,) = problems_of(*written)
        assert problem.startswith(f"step b: {place!r} of {tool} cannot be the value of step a: ")
        assert said in problem

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            (step("b", "tike"), "step b: there is no tool 'tike'; the nearest are take"),
            (step("b", "x" * 10_000), "there is no tool 'xxxx"),
            (step("b", "take", arguments={"wrong": 1}), "take.wrong is not a parameter"),
            (step("b", "take", references={"colour": "a"}), "take has no parameter 'colour'"),
            (step("b", "measure", references={"wide": "a"}), "measure needs 'wides', which is neither given nor"),
            (step("b", "take", arguments={"items": 5}, references={"things": "a"}), "'items' of take is array"),
        ],
    )
    def test_tools_and_parameters(self, written: Any, said: str) -> None:
        found = problems_of(step("a", "box"), written)
        assert said in found[0]
        assert len(found[0]) < 500

    def test_an_argument_that_is_a_handle_is_looked_up_or_checked_with_what_it_stands_beside(self) -> None:
        assert problems_of(step("a", "take", arguments={"count": "@v1:abcd", "wrong": "@v1:abcd"})) == [
            "step a: take.wrong is not a parameter"
        ]
        beside = step("b", "take", arguments={"count": "@v1:abcd", "bad": 1}, references={"things": "a"})
        assert problems_of(step("a", "box"), beside)[-1] == "step b: take has no parameter 'bad'"

    def test_data_of_a_subtask_is_of_any_type(self) -> None:
        assert problems_of(step("a", "box"), {"id": "b", "task": "t", "references": {"it": "a.labels"}}) == []

    def test_schemas_that_say_little_speak_against_nothing(self) -> None:
        odd: dict[str, dict[str, Any]] = {
            "none": {},
            "all_of": {"allOf": [{"type": "string"}]},
            "itself": {"$ref": "#/$defs/it", "$defs": {"it": {"$ref": "#/$defs/it"}}},
            "nowhere": {"$ref": "#/$defs/nothing"},
            "true": {"type": "object", "properties": {"x": True}},
        }
        for schema in odd.values():
            tools = dict(TOOLS, odd=ToolSchema("odd", "Odd.", {"type": "object", "properties": {}}, schema))
            plan = read_plan(text(step("a", "odd"), step("b", "take", references={"things": "a", "text": "a.x"})))
            assert plan_problems(plan, tools, check) == []
