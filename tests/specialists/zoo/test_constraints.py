"""The bundled `constraints`: the canonical form of a problem, its rules, what it refuses, and what it learned."""

from __future__ import annotations

import asyncio
import json
import random
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import CannotAnswer, Effort
from specialists.errors import InvalidArguments
from specialists.training import sudoku_puzzles as puzzles
from specialists.zoo.constraints import (
    Limits,
    NoSolution,
    constraints,
    make,
    reason,
    rules,
    scheduler,
    solver,
    sudoku_groups,
)
from specialists.zoo.constraints.problem import BOXES, structure

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(solver.__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]
SOLVED = [case for case in CASES if case["expected"] is not None]
UNSOLVABLE = {"values": 2, "variables": 5, "groups": [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]}  # an odd ring


def asked(case: dict[str, Any]) -> dict[str, Any]:
    return constraints.signature.check_json(json.dumps(case["input"]))


def pairs(groups: Any) -> set[tuple[int, int]]:
    return {pair for group in groups for pair in combinations(sorted(set(group)), 2)}


def groups_of(variables: int, largest: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, variables - 1), min_size=1, max_size=largest), max_size=20)


# The canonical form.


@given(groups_of(12, 5), st.randoms(use_true_random=False))
def test_the_canonical_groups_hold_the_same_conflicts_and_no_others(groups: list[list[int]], chance: Any) -> None:
    values = 6
    try:
        known = structure(values, 12, tuple(map(tuple, groups)))
    except NoSolution as error:
        crowd = set(combinations(sorted(error.members), 2))
        assert len(error.members) > values and crowd <= pairs(groups)  # noqa: PT017, PT018
        return
    conflicts = pairs(groups)
    assert pairs(known.groups) == conflicts
    assert {(a, b) for a in range(12) for b in range(a + 1, 12) if known.conflicts[a] >> b & 1} == conflicts
    assert all(2 <= len(group) <= values for group in known.groups)
    for group in known.groups:  # each is as large as it can be, and adds something
        others = [v for v in range(12) if v not in group and all(tuple(sorted((v, w))) in conflicts for w in group)]
        assert not others
    tight = [set(group) for group in known.groups if len(group) == values]
    shared = {tuple(sorted(a & b)) for a, b in combinations(tight, 2) if len(a & b) > 1}
    assert set(known.overlaps) == shared
    mixed = [chance.sample(group, len(group)) for group in chance.sample(groups, len(groups))]
    assert structure(values, 12, tuple(map(tuple, mixed))) == known


@given(groups_of(10, 4))
def test_pairs_lists_and_cliques_that_say_the_same_are_the_same(groups: list[list[int]]) -> None:
    wide = structure(10, 10, tuple(map(tuple, groups)))
    assert structure(10, 10, tuple(pairs(groups))) == wide
    assert structure(10, 10, (*wide.groups, *map(tuple, groups))) == wide


@pytest.mark.parametrize("side", BOXES)
def test_a_sudoku_keeps_its_rows_columns_and_boxes_however_it_is_written(side: int) -> None:
    groups = sudoku_groups(side)
    problem = make(side, side**2, groups)
    assert set(problem.groups) == set(groups)
    assert make(side, side**2, sorted(pairs(groups))).groups == problem.groups
    arrays = problem.arrays()
    assert arrays["allowed"].shape == (1, side**2, side)
    assert arrays["groups"].shape == (1, 3 * side, side**2)
    assert (arrays["groups"].sum(2) == side).all()
    if side == 9:
        assert {len(each) for each in problem.overlaps} == {3}
        assert len(problem.overlaps) == 54


def test_what_is_given_and_allowed_is_all_that_a_variable_may_be() -> None:
    problem = make(4, 3, [[0, 1], [1, 2]], {0: 3}, {1: [0, 3], 2: [1, 1]})
    assert problem.allowed.astype(int).tolist() == [[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 0]]  # 1 may still be 3
    assert {name: array.dtype for name, array in problem.arrays().items()} == dict.fromkeys(
        ("allowed", "groups", "overlaps"), np.dtype("float32")
    )
    lone = make(2, 2, []).arrays()
    assert not lone["groups"].any()
    assert lone["groups"].shape == lone["overlaps"].shape == (1, 1, 2)


def test_large_problems_are_put_in_order_quickly() -> None:
    chance = random.Random(1)
    students = [chance.sample(range(30), 5) for _ in range(500)]
    edges = [chance.sample(range(1000), 2) for _ in range(4000)]
    for values, variables, groups, seconds in (
        (30, 30, students, 0.1),
        (16, 256, sudoku_groups(16), 0.2),
        (8, 1000, edges, 3.0),
    ):
        structure.cache_clear()
        start = time.process_time()
        make(values, variables, groups)
        assert time.process_time() - start < seconds  # far more than it takes: the machine may be busy


# The rules.


@given(st.data())
def test_an_answer_passes_exactly_if_it_keeps_every_rule(data: st.DataObject) -> None:
    values, variables = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    index, value = st.integers(0, variables - 1), st.integers(0, values - 1)
    groups = data.draw(st.lists(st.lists(index, min_size=1, max_size=3), max_size=3))
    known = data.draw(st.dictionaries(index, value, max_size=2))
    allowed = data.draw(st.dictionaries(index, st.lists(value, min_size=1), max_size=2))
    answer = data.draw(st.lists(value, min_size=variables, max_size=variables))
    right = (
        all(answer[a] != answer[b] for a, b in pairs(groups))
        and all(answer[variable] == wanted for variable, wanted in known.items())
        and all(answer[variable] in choice for variable, choice in allowed.items())
    )
    arguments = {"values": values, "variables": variables, "groups": groups, "given": known, "allowed": allowed}
    assert (rules.is_answer(arguments, answer).status == "passed") == right
    assert rules.is_right(arguments, None, answer) == right


@given(st.integers(0, len(SOLVED) - 1), st.data())
def test_an_answer_with_one_changed_value_fails_where_that_breaks_a_rule(row: int, data: st.DataObject) -> None:
    arguments, answer = asked(SOLVED[row]), list(SOLVED[row]["expected"])
    assert rules.is_answer(arguments, answer).status == "passed"
    variable = data.draw(st.integers(0, len(answer) - 1))
    answer[variable] = data.draw(st.integers(-1, arguments["values"]))
    clash = any(
        variable in group and len({answer[v] for v in group}) < len(set(group)) for group in arguments["groups"]
    )
    wrong = clash or not 0 <= answer[variable] < arguments["values"]
    wrong |= answer[variable] != arguments["given"].get(variable, answer[variable])
    wrong |= answer[variable] not in arguments["allowed"].get(variable, [answer[variable]])
    assert (rules.is_answer(arguments, answer).status == "failed") == wrong


@pytest.mark.parametrize("value", [None, 3, "01", [], [0], [0, 1, 0], [0, 1.0], [True, False], [0, None], (0, 1)])
def test_what_is_no_answer_fails(value: object) -> None:
    arguments = {"values": 2, "variables": 2, "groups": [[0, 1]], "given": {}, "allowed": {}}
    assert rules.is_answer(arguments, [0, 1]).status == "passed"
    assert rules.is_answer(arguments, value).status == "failed"


# What is refused before the network runs.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"groups": [[0, 1], [4, 1]]}, r"^groups\[1\] names the variable 4, and variables count from 0 to 3$"),
        ({"given": {4: 0}}, "given names the variable 4"),
        ({"given": {0: 3}}, "variable 0 is to have the value 3, and values count from 0 to 2"),
        ({"allowed": {9: [0]}}, "allowed names the variable 9"),
        ({"allowed": {0: [0, 3]}}, "value 3"),
        ({"allowed": {2: []}}, "variable 2 has no allowed value"),
        ({"given": {0: 1}, "allowed": {0: [0, 2]}}, "given the value 1, which is not allowed"),
        ({"given": {0: 1, 1: 1}}, "variables 0 and 1 share a group, and the value 1 is the only one for both"),
        ({"given": {0: 1}, "allowed": {1: [1]}}, "variables 0 and 1 share a group"),
        ({"groups": [[0, 1, 2, 3]]}, "the 4 variables 0, 1, 2, 3 must all differ"),
        ({"groups": [list(pair) for pair in combinations(range(4), 2)]}, "the 4 variables 0, 1, 2, 3 must all differ"),
    ],
)
def test_a_question_that_is_none_gets_one_sentence(change: dict[str, Any], says: str) -> None:
    question: dict[str, Any] = {"values": 3, "variables": 4, "groups": [[0, 1], [1, 2]]} | change
    with pytest.raises(CannotAnswer, match=says) as raised:
        asyncio.run(constraints(**question))
    assert "\n" not in str(raised.value)
    outcome = constraints.solve_sync(**question)
    assert [(attempt.outcome, attempt.steps) for attempt in outcome.attempts] == [("cannot", None)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": 33}, "values: input should be less than or equal to 32"),
        ({"values": 0}, "values"),
        ({"variables": 1025}, "variables"),
        ({"variables": 0}, "variables"),
        ({"groups": [[0, 1], []]}, "groups"),
        ({"groups": [[-1, 1]]}, "groups"),
        ({"groups": "all"}, "groups"),
        ({"given": {"x": 1}}, "given"),
        ({"given": {-1: 1}}, "given"),
        ({"allowed": {0: 1}}, "allowed"),
        ({"effort": 3}, "effort"),
    ],
)
def test_arguments_of_a_wrong_type_or_size_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArguments, match=says):
        constraints.signature.check({"values": 3, "variables": 4, "groups": [[0, 1]]} | change)


def test_json_names_variables_by_strings() -> None:
    text = '{"values": 3, "variables": 3, "groups": [[0, 1]], "given": {"2": 1}, "allowed": {"0": [0, 2]}}'
    checked = constraints.signature.check_json(text)
    assert checked["given"] == {2: 1}
    assert checked["allowed"] == {0: [0, 2]}
    assert constraints.signature.check(json.loads(text)) == checked
    outcome = constraints.solve_sync(**checked)
    assert json.loads(json.dumps(outcome.to_json()))["arguments"]["given"] == {"2": 1}
    properties = constraints.parameters["properties"]
    assert all(properties[name]["description"] for name in checked)
    assert "effort" not in properties


# What the network does.


def test_a_step_is_the_same_for_every_naming_of_variables_and_values() -> None:
    """The network has no favourite variable, value, group or row: rename them and the logits are renamed alike."""
    chance = np.random.default_rng(1)
    problem = make(6, 36, sudoku_groups(6), {0: 1, 7: 4})
    one = {name: np.repeat(array, 3, 0) for name, array in problem.arrays().items()}
    width = next(each.shape[-1] for each in solver.model.session.get_inputs() if each.name == "carry")
    one["carry"] = chance.standard_normal((3, 36, 6, width), np.float32)
    variables, values, groups = chance.permutation(36), chance.permutation(6), chance.permutation(18)
    other = {
        "allowed": one["allowed"][::-1][:, variables][:, :, values],
        "groups": one["groups"][::-1][:, groups][:, :, variables],
        "overlaps": one["overlaps"][::-1][:, :, variables],
        "carry": one["carry"][::-1][:, variables][:, :, values],
    }
    plain, named = solver.model.run_sync(**one), solver.model.run_sync(**other)
    np.testing.assert_allclose(named["logits"], plain["logits"][::-1][:, variables][:, :, values], atol=1e-3)
    np.testing.assert_allclose(named["halt"], plain["halt"][::-1], atol=1e-3)
    np.testing.assert_allclose(named["doubt"], plain["doubt"][::-1][:, variables], atol=1e-3)


@pytest.mark.parametrize("case", SOLVED, ids=range(len(SOLVED)))
def test_solves_its_own_cases_and_proves_them(case: dict[str, Any]) -> None:
    arguments = asked(case)
    outcome = constraints.solve_sync(**arguments)
    assert outcome.accepted_by == "verified"
    assert rules.is_right(arguments, case["expected"], outcome.value)


@pytest.mark.parametrize("case", [case for case in CASES if case["expected"] is None], ids=str)
def test_what_has_no_answer_is_an_abstention(case: dict[str, Any]) -> None:
    assert constraints.solve_sync(**asked(case)).accepted_by is None


async def test_the_same_question_gets_the_same_answer() -> None:
    arguments = asked(SOLVED[4])
    assert await constraints(**arguments) == await constraints(**arguments)


async def test_a_problem_without_an_answer_ends_in_time_and_is_not_accepted() -> None:
    start = time.monotonic()
    answer = await constraints(**UNSOLVABLE, effort=Effort(deadline=start + 1.0))
    assert time.monotonic() - start < 1.0
    assert len(answer.value) == 5
    assert answer.confidence is not None
    assert answer.confidence < 0.5
    outcome = await constraints.solve(**UNSOLVABLE)
    assert outcome.accepted_by is None
    assert outcome.reason is not None


def test_accuracy_never_falls_with_more_steps() -> None:
    """Over puzzles of seeds that no network was trained on: who is solved with few steps is so with more, alike."""
    made = [puzzles.random_puzzle(random.Random(10**9 + seed)).clues for seed in range(8)]
    problems = [
        make(9, 81, sudoku_groups(9), {cell: int(mark) - 1 for cell, mark in enumerate(clues) if mark != "."})
        for clues in made
    ]
    solved: dict[int, list[int]] = {}
    for steps in (4, 16, 40, 130):
        now = {}
        for number, problem in enumerate(problems):
            answer = asyncio.run(reason(scheduler, problem, Limits(max_steps=steps)))
            assert (answer.steps or 0) <= steps
            if answer.confidence == 1.0:
                now[number] = answer.value
        assert solved.items() <= now.items()
        solved = now


def test_the_graph_says_what_pytorch_said() -> None:
    recorded = np.load(Path(__file__).with_name("constraints_recorded.npz"))
    for number in range(3):
        rows = {name: recorded[f"{number}/{name}"] for name in ("allowed", "groups", "overlaps", "carry")}
        for _ in range(4):
            out = solver.model.run_sync(**rows)
            rows["carry"] = out["next_carry"]
        for name in ("logits", "halt", "doubt", "next_carry"):
            np.testing.assert_allclose(out[name], recorded[f"{number}/{name}"], atol=2e-3)
