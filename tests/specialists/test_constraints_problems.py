"""The problems that `constraints` learns from: planted solutions hold, minimal is minimal, density is as asked."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from specialists.training import constraints_problems as problems
from specialists.training.constraints_problems import Made
from specialists.training.sudoku_puzzles import grade
from specialists.zoo.constraints.problem import sudoku_groups


def holds(made: Made) -> bool:
    inside = all(made.problem.allowed[v, value] for v, value in enumerate(made.solution))
    return inside and all(len({made.solution[v] for v in group}) == len(group) for group in made.problem.groups)


@pytest.mark.parametrize("seed", range(4))
def test_planted_solutions_keep_the_rules(seed: int) -> None:
    rng = random.Random(seed)
    for side in (4, 6, 16):
        assert holds(problems.sudoku(side, rng))
    assert holds(problems.latin_square(8, 0.4, rng))
    assert holds(problems.colouring(30, 6, 0.3, rng, 0.2, 0.4))
    puzzle = problems.random_sudoku(rng)
    assert holds(problems.from_clues(puzzle.clues, puzzle.solution))


@pytest.mark.parametrize("seed", range(3))
def test_a_random_sudoku_is_minimal(seed: int) -> None:
    puzzle = problems.random_sudoku(random.Random(seed))
    assert grade(puzzle.clues)[0] == [puzzle.solution]
    for cell, mark in enumerate(puzzle.clues):
        if mark != ".":
            assert len(grade(puzzle.clues[:cell] + "." + puzzle.clues[cell + 1 :])[0]) == 2


@pytest.mark.parametrize("side", [4, 6])
def test_a_small_sudoku_is_minimal(side: int) -> None:
    made = problems.sudoku(side, random.Random(side))
    given = {v: made.solution[v] for v in range(side * side) if made.problem.allowed[v].sum() == 1}

    def count(clues: dict[int, int]) -> int:
        return len(list(problems.solutions(side, side * side, sudoku_groups(side), clues, 2)))

    assert count(given) == 1
    assert all(count({v: value for v, value in given.items() if v != gone}) == 2 for gone in given)


def test_a_latin_square_has_the_share_given_that_was_asked_for() -> None:
    made = problems.latin_square(8, 0.4, random.Random(0))
    assert (made.problem.allowed.sum(1) == 1).sum() == round(0.4 * 64)


@pytest.mark.parametrize("density", [0.2, 0.35])
def test_a_timetable_is_as_dense_as_asked_and_planted(density: float) -> None:
    made = problems.timetable(30, 6, density, random.Random(7))
    place = {name: index for index, name in enumerate(made.exams)}
    conflicts = {tuple(sorted(pair)) for s in made.students for pair in combinations([place[name] for name in s], 2)}
    assert len(conflicts) == round(density * 30 * 29 / 2)
    assert all(made.planted[a] != made.planted[b] for a, b in conflicts)
    assert all(2 <= len(student) == len(set(student)) <= 5 for student in made.students)


def test_the_same_seed_makes_the_same_problem_and_another_seed_another() -> None:
    def make(seed: int) -> tuple[object, ...]:
        rng = random.Random(seed)
        return problems.timetable(20, 5, 0.3, rng), problems.sudoku(9 - 3, rng).solution

    assert make(1) == make(1) != make(2)
