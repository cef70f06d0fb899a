"""The cases that bundled specialists make from a seed: the same each time, as described, and each with an answer."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from functools import lru_cache
from itertools import combinations, islice
from typing import Any

import pytest

from specialists import Specialist
from specialists.evaluation import evaluate
from specialists.registry import Found, find
from specialists.zoo.constraints import sudoku_groups
from specialists.zoo.maze import rules as maze_rules

# The head of a hash of five rows of the seed 0. Whoever changes what is drawn changes what the figures in the READMEs
# and the certificates are about: they are then to be made anew, and these hashes with them.
NAMES = {
    "constraints": "4c8cf5b877760a8a",
    "maze": "31f1db3e35cce9cd",
    "sudoku": "2c3c22e725b4756c",
    "timetable": "9ae4057d9d1ba54f",
}
every_one = pytest.mark.parametrize("name", NAMES)


@lru_cache
def found(name: str) -> Found:
    return find(name)


@lru_cache
def rows(name: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    card = found(name).card
    assert card is not None
    assert card.generate == "generating:generate"
    return list(islice(importlib.import_module(f"specialists.zoo.{name}.generating").generate(seed), count))


def arguments(name: str, row: dict[str, Any]) -> dict[str, Any]:
    specialist: Specialist[..., Any] = found(name).specialist
    return specialist.signature.check_json(json.dumps(row["input"]))


@every_one
def test_the_same_seed_makes_the_same_rows_on_every_machine_and_another_seed_others(name: str) -> None:
    code = (
        f"import json, sys; from itertools import islice; from specialists.zoo.{name}.generating import generate;"
        "print(json.dumps(list(islice(generate(0), 5))))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(told) == rows(name, 5) == rows(name, 500)[:5]
    assert hashlib.sha256(told.strip().encode()).hexdigest()[:16] == NAMES[name]
    others = [row["input"] for row in rows(name, 20, seed=1)]
    assert not [row for row in rows(name, 20) if row["input"] in others]


@every_one
def test_every_row_is_json_fits_the_types_and_has_an_answer(name: str) -> None:
    correct = found(name).correct
    assert correct is not None
    for row in rows(name, 500)[:100]:
        assert json.loads(json.dumps(row)) == row
        assert set(row) == {"input", "expected"}
        assert correct(arguments(name, row), row["expected"], row["expected"])


@every_one
def test_no_row_comes_twice(name: str) -> None:
    asked = [json.dumps(row["input"], sort_keys=True) for row in rows(name, 500)]
    assert len(set(asked)) == 500


@every_one
def test_twenty_rows_are_solved_and_right(name: str) -> None:
    result = evaluate(found(name).specialist, rows(name, 500)[:20], correct=found(name).correct)
    assert (result.n, result.correct, result.wrong_accepted, result.rejected) == (20, 20, 0, 0)


@every_one
def test_a_specialist_loads_none_of_what_makes_its_cases(name: str) -> None:
    code = f"import sys, specialists.zoo.{name}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    home = [each for each in told.split() if each.startswith("specialists.zoo.")]
    assert f"specialists.zoo.{name}.solver" in home
    assert not [each for each in home if each.endswith((".generating", ".boards"))]


def test_sudokus_have_22_to_40_clues_and_one_solution() -> None:
    from ortools.sat.python import cp_model

    clues = [81 - row["input"]["puzzle"].count(".") for row in rows("sudoku", 500)]
    assert 22 <= min(clues) < 25
    assert max(clues) == 40
    for number in range(27, 41):  # what was wanted is what there is, a nineteenth each
        assert 10 <= clues.count(number) <= 45
    for row in rows("sudoku", 500)[:12]:
        model = cp_model.CpModel()
        cells = [
            model.new_int_var(1, 9, "") if mark == "." else model.new_constant(int(mark))
            for mark in row["input"]["puzzle"]
        ]
        for group in sudoku_groups(9):
            model.add_all_different([cells[cell] for cell in group])
        same = [model.new_bool_var("") for _ in cells]
        for cell, literal, digit in zip(cells, same, row["expected"], strict=True):
            model.add(cell != int(digit)).only_enforce_if(~literal)
        model.add_bool_or([~literal for literal in same])
        engine = cp_model.CpSolver()
        engine.parameters.num_workers = 1
        assert engine.solve(model) == cp_model.INFEASIBLE  # but for the expected one there is none


def test_timetables_are_of_the_sizes_that_are_said() -> None:
    asked = [row["input"] for row in rows("timetable", 500)]
    assert {each["slots"] for each in asked} == {4, 5, 6, 7, 8, 9}
    sizes = [len(each["exams"]) for each in asked]
    assert (min(sizes), max(sizes)) == (10, 60)
    for each in asked:
        taken = [sorted(student) for student in each["students"]]
        assert all(2 <= len(student) == len(set(student)) <= 5 for student in taken)
        pairs = len(each["exams"]) * (len(each["exams"]) - 1) / 2
        conflicts = {pair for student in taken for pair in combinations(student, 2)}
        assert 0.07 <= len(conflicts) / pairs <= 0.36


def test_constraints_are_of_three_kinds_a_third_each() -> None:
    kinds: dict[str, list[dict[str, Any]]] = {"latin": [], "sudoku": [], "graph": []}
    for row in rows("constraints", 500):
        asked = row["input"]
        values, cells = asked["values"], asked["variables"]
        if cells == values**2 and len(asked["groups"]) in (2 * values, 3 * values):
            kind = "latin" if len(asked["groups"]) == 2 * values else "sudoku"
            assert "allowed" not in asked
            assert 0.29 <= len(asked["given"]) / cells <= 0.62
        else:
            kind = "graph"
            assert 12 <= cells <= 40
            assert all(len(group) == 2 for group in asked["groups"])
            assert len(asked["groups"]) <= 0.31 * cells * (cells - 1) / 2
        kinds[kind].append(asked)
    assert all(130 <= len(each) <= 204 for each in kinds.values())
    assert {each["values"] for each in kinds["latin"]} == {5, 6, 7, 8, 9}
    assert {each["values"] for each in kinds["sudoku"]} == {6, 9}
    assert {each["values"] for each in kinds["graph"]} == {3, 4, 5, 6}
    restricted = [each for each in kinds["graph"] if "given" in each or "allowed" in each]
    assert 0.35 <= len(restricted) / len(kinds["graph"]) <= 0.65


def test_mazes_are_of_the_sizes_that_are_said_and_the_expected_path_is_a_shortest() -> None:
    sides = set()
    for row in rows("maze", 500):
        grid = row["input"]["grid"]
        assert row["input"]["shortest"] is True
        assert maze_rules.problem(grid) is None
        assert maze_rules.shortest_length(grid) == len(row["expected"]) - 1
        sides |= {len(grid), len(grid[0])}
    assert sides == set(range(10, 31))
