"""The bundled Sudoku specialist: its rules, its questions, and the puzzles its cases come from. They are our own."""

from __future__ import annotations

import asyncio
import json
import random
import time
from math import isqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists import CannotAnswer, Effort
from specialists.errors import InvalidArguments
from specialists.training import sudoku_puzzles as puzzles
from specialists.zoo.constraints import sudoku_groups
from specialists.zoo.sudoku import rules, solver, sudoku

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(solver.__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]
SOLVED = [case for case in CASES if case["expected"]]
EASY, EASY_SOLUTION = CASES[0]["input"]["puzzle"], CASES[0]["expected"]
# Row 1 lacks 9 alone, and the column of its only empty cell has a 9: no two clues clash, yet there is no solution.
NO_SOLUTION = "12345678." + "." * 9 + "........9" + "." * 54


def passes(puzzle: str, value: object) -> bool:
    return rules.is_solved({"puzzle": puzzle}, value).status == "passed"


@given(st.integers(0, len(SOLVED) - 1), st.data())
def test_a_solution_passes_under_every_naming_of_the_digits(row: int, data: st.DataObject) -> None:
    puzzle, solution = SOLVED[row]["input"]["puzzle"], SOLVED[row]["expected"]
    digits = rules.DIGITS[: isqrt(len(puzzle))]
    table = str.maketrans(digits, "".join(data.draw(st.permutations(digits))))
    assert passes(puzzle.translate(table), solution.translate(table))
    assert passes(puzzle.translate(table).lower(), solution.translate(table))


@given(st.integers(0, len(SOLVED) - 1), st.data())
def test_every_grid_with_one_changed_cell_fails(row: int, data: st.DataObject) -> None:
    puzzle, solution = SOLVED[row]["input"]["puzzle"], SOLVED[row]["expected"]
    cell = data.draw(st.integers(0, len(puzzle) - 1))
    digit = data.draw(st.sampled_from(rules.DIGITS))
    changed = solution[:cell] + digit + solution[cell + 1 :]
    assert passes(puzzle, changed) == (digit == solution[cell])


@given(st.integers(0, len(SOLVED) - 1), st.data())
def test_a_valid_grid_that_drops_a_clue_fails(row: int, data: st.DataObject) -> None:
    puzzle, solution = SOLVED[row]["input"]["puzzle"], SOLVED[row]["expected"]
    one, other = data.draw(st.permutations(rules.DIGITS[: isqrt(len(puzzle))]))[:2]
    swapped = solution.translate(str.maketrans(one + other, other + one))  # still keeps the rules
    if one in puzzle or other in puzzle:
        verdict = rules.is_solved({"puzzle": puzzle}, swapped)
        assert verdict.status == "failed"
        assert str(verdict.reason).startswith("the clue")


def test_any_solution_of_a_puzzle_with_several_passes() -> None:
    assert passes("." * 81, EASY_SOLUTION)
    assert passes("0" * 81, EASY_SOLUTION[::-1])


@pytest.mark.parametrize(
    "value",
    [None, 5, "", "1" * 80, "." * 81, "0" * 81, "１" * 81, EASY_SOLUTION + "\n", ["1"] * 81, "1234" * 4],
)
def test_what_is_no_grid_fails(value: object) -> None:
    assert not passes("." * 81, value)


@pytest.mark.parametrize("side", rules.BOXES)
def test_the_houses_of_the_rules_are_the_groups_that_the_network_learned(side: int) -> None:
    assert {cells for _, cells in rules.houses(side)} == set(sudoku_groups(side))
    assert len(solver.pose("." * side**2).groups) == 3 * side


@pytest.mark.parametrize("case", SOLVED, ids=range(len(SOLVED)))
def test_solves_its_own_cases_and_proves_them(case: dict[str, Any]) -> None:
    outcome = sudoku.solve_sync(case["input"]["puzzle"])
    assert outcome.accepted_by == "verified"
    assert passes(case["input"]["puzzle"], outcome.value)


async def test_zeros_are_dots_and_the_same_puzzle_gets_the_same_answer() -> None:
    dots, zeros, again = [await sudoku(puzzle) for puzzle in (EASY, EASY.replace(".", "0"), EASY)]
    assert dots == zeros == again
    assert dots.value == EASY_SOLUTION


async def test_small_letters_are_read_as_large_ones() -> None:
    puzzle = next(case["input"]["puzzle"] for case in SOLVED if len(case["input"]["puzzle"]) == 256)
    assert (solver.pose(puzzle).allowed == solver.pose(puzzle.lower()).allowed).all()


@pytest.mark.parametrize(
    ("puzzle", "says"),
    [
        ("5...5" + "." * 76, "digit 5 stands twice in row 1"),
        ("1..." + "...." * 2 + "1...", "digit 1 stands twice in column 1"),
        ("..g" + "." * 14 + "G" + "." * 238, "digit G stands twice in box 1"),
    ],
)
def test_two_equal_clues_in_a_house_have_no_answer(puzzle: str, says: str) -> None:
    with pytest.raises(CannotAnswer, match=says):
        asyncio.run(sudoku(puzzle))
    assert sudoku.solve_sync(puzzle).accepted_by is None


@pytest.mark.parametrize(
    "puzzle", ["." * 80, "." * 82, "x" + "." * 80, "." * 81 + "\n", "", "5" + "." * 15, "7" + "." * 35, "h" + "." * 255]
)
def test_what_is_no_puzzle_is_refused(puzzle: str) -> None:
    with pytest.raises(InvalidArguments, match="puzzle"):
        asyncio.run(sudoku(puzzle))


def test_an_unsolvable_puzzle_is_not_accepted_and_ends_in_time() -> None:
    start = time.monotonic()
    outcome = sudoku.solve_sync(NO_SOLUTION)
    assert outcome.accepted_by is None
    assert [(attempt.rung, attempt.outcome) for attempt in outcome.attempts] == [("specialist", "answered")]
    assert time.monotonic() - start < 5.5


def test_it_comes_back_with_its_best_grid_before_the_time_is_up() -> None:
    answer = asyncio.run(sudoku(NO_SOLUTION, effort=Effort(deadline=time.monotonic() + 1.0)))
    assert (answer.steps or 0) > 0
    assert 0 <= (answer.confidence or 0) < 0.5
    assert len(answer.value) == 81


async def test_puzzles_of_many_callers_get_right_answers() -> None:
    answers = await asyncio.gather(*[sudoku(case["input"]["puzzle"]) for case in CASES[:12]])
    assert [answer.value for answer in answers] == [case["expected"] for case in CASES[:12]]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_made_puzzles_have_one_solution_and_no_clue_too_many(seed: int) -> None:
    chance = random.Random(seed)
    for puzzle in (easy := puzzles.random_puzzle(chance), puzzles.harder(easy, chance)):
        assert passes(puzzle.clues, puzzle.solution)
        assert puzzles.grade(puzzle.clues) == ([puzzle.solution], puzzle.guesses)
        for cell in (cell for cell, mark in enumerate(puzzle.clues) if mark != "."):
            solutions, _ = puzzles.grade(puzzle.clues[:cell] + "." + puzzle.clues[cell + 1 :])
            assert len(solutions) == 2


def test_a_block_depends_on_its_seed_and_number_alone(tmp_path: Path) -> None:
    one = puzzles.write_block((tmp_path, 7, 1, 3))
    first = puzzles.read_blocks([one])
    assert len(first) == 3
    assert first == puzzles.make_block(7, 1, 3) != puzzles.make_block(8, 1, 3)
    one.write_text("")
    assert puzzles.read_blocks([puzzles.write_block((tmp_path, 7, 1, 3))]) == []  # what is there is not made again
