"""The bundled Sudoku specialist: its rules, its loop, and the puzzles its recipe makes. The puzzles are our own."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists import CannotAnswer, StepScheduler
from specialists.errors import InvalidArguments
from specialists.recursion import rows as step_rows
from specialists.training import sudoku_puzzles as puzzles
from specialists.zoo.sudoku import rules, solver, sudoku

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(solver.__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]
EASY, EASY_SOLUTION = CASES[0]["input"]["puzzle"], CASES[0]["expected"]
# Row 1 lacks 9 alone, and the column of its only empty cell has a 9: no two clues clash, yet there is no solution.
NO_SOLUTION = "12345678." + "." * 9 + "........9" + "." * 54


def passes(puzzle: str, value: object) -> bool:
    return rules.is_solved({"puzzle": puzzle}, value).status == "passed"


@given(st.integers(0, len(CASES) - 1), st.permutations("123456789"))
def test_a_solution_passes_under_every_naming_of_the_digits(row: int, names: list[str]) -> None:
    table = str.maketrans("123456789", "".join(names))
    case = CASES[row]
    assert passes(case["input"]["puzzle"].translate(table), case["expected"].translate(table))


@given(st.integers(0, len(CASES) - 1), st.integers(0, 80), st.sampled_from("123456789"))
def test_every_grid_with_one_changed_cell_fails(row: int, cell: int, digit: str) -> None:
    puzzle, solution = CASES[row]["input"]["puzzle"], CASES[row]["expected"]
    changed = solution[:cell] + digit + solution[cell + 1 :]
    assert passes(puzzle, changed) == (digit == solution[cell])


@given(st.integers(0, len(CASES) - 1), st.data())
def test_a_valid_grid_that_drops_a_clue_fails(row: int, data: st.DataObject) -> None:
    puzzle, solution = CASES[row]["input"]["puzzle"], CASES[row]["expected"]
    one, other = data.draw(st.permutations("123456789"))[:2]
    swapped = solution.translate(str.maketrans(one + other, other + one))  # still keeps the rules
    if one in puzzle or other in puzzle:
        verdict = rules.is_solved({"puzzle": puzzle}, swapped)
        assert verdict.status == "failed"
        assert str(verdict.reason).startswith("the clue")


def test_any_solution_of_a_puzzle_with_several_passes() -> None:
    assert passes("." * 81, EASY_SOLUTION)
    assert passes("0" * 81, EASY_SOLUTION[::-1])


@pytest.mark.parametrize(
    "value", [None, 5, "", "1" * 80, "." * 81, "0" * 81, "１" * 81, EASY_SOLUTION + "\n", ["1"] * 81]
)
def test_what_is_no_grid_fails(value: object) -> None:
    assert not passes("." * 81, value)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_solves_its_own_cases_and_proves_them(case: dict[str, Any]) -> None:
    outcome = sudoku.solve_sync(case["input"]["puzzle"])
    assert outcome.value == case["expected"]
    assert outcome.accepted_by == "verified"


async def test_zeros_are_dots_and_the_same_puzzle_gets_the_same_answer() -> None:
    dots, zeros, again = [await sudoku(puzzle) for puzzle in (EASY, EASY.replace(".", "0"), EASY)]
    assert dots == zeros == again
    assert dots.value == EASY_SOLUTION


def test_two_equal_clues_in_a_house_have_no_answer() -> None:
    puzzle = "5...5" + "." * 76
    with pytest.raises(CannotAnswer, match="digit 5 stands twice in row 1"):
        asyncio.run(sudoku(puzzle))
    assert sudoku.solve_sync(puzzle).accepted_by is None


@pytest.mark.parametrize("puzzle", ["." * 80, "." * 82, "x" + "." * 80, "." * 81 + "\n", ""])
def test_what_is_no_puzzle_is_refused(puzzle: str) -> None:
    with pytest.raises(InvalidArguments, match="puzzle"):
        asyncio.run(sudoku(puzzle))


def test_an_unsolvable_puzzle_is_not_accepted_and_ends() -> None:
    outcome = sudoku.solve_sync(NO_SOLUTION)
    assert outcome.accepted_by is None
    assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "more_steps"]
    first, more = (attempt.steps or 0 for attempt in outcome.attempts)
    assert 0 < first <= solver.FIRST < more <= solver.MORE  # fewer where a slow machine runs out of time


def test_it_comes_back_with_its_best_grid_before_the_time_is_up() -> None:
    answer = asyncio.run(solver.reason(solver.scheduler, NO_SOLUTION, None, time.monotonic() + 0.5))
    assert 0 < (answer.steps or 0) < solver.MORE
    assert 0 < (answer.confidence or 0) < 0.5
    assert len(answer.value) == 81


class Recorder(solver.Reasoner):
    """Answers with a grid that breaks the rules, until a rollout that it is told of gets a right one."""

    def __init__(self, right: int | None = None) -> None:
        super().__init__(solver.model)
        self.right, self.batches = right, list[int]()
        self.gate = threading.Event()
        self.gate.set()

    def lane_rows(self) -> Any:
        return step_rows.HostRows(self.step)

    def step(self, state: Any, /) -> dict[str, Any]:
        assert self.gate.wait(30)
        carry = state["carry"]
        self.batches.append(len(carry))
        logits = np.zeros((len(carry), 81, 9), np.float32)
        if self.right is not None and len(carry) > self.right:
            logits[self.right] = 9 * solver.encode(EASY_SOLUTION)[0]
        return {"logits": logits, "carry": carry}


def test_rollouts_are_sixty_four_at_most_and_stop_at_the_first_right_one() -> None:
    recorder = Recorder()
    answer = asyncio.run(solver.reason(StepScheduler(recorder, max_steps=solver.MORE), EASY))
    assert not passes(EASY, answer.value)
    assert recorder.batches == [n for n, steps in solver.STAGES for _ in range(steps)]
    assert max(recorder.batches) <= 64
    recorder = Recorder(right=5)
    answer = asyncio.run(solver.reason(StepScheduler(recorder, max_steps=solver.MORE), EASY))
    assert answer.value == EASY_SOLUTION
    assert answer.steps == len(recorder.batches) == solver.STAGES[0][1] + 1


async def test_puzzles_of_many_callers_step_together_and_get_the_answers_they_get_alone() -> None:
    reasoner = Recorder()
    scheduler = StepScheduler(reasoner, max_steps=solver.MORE, slots=8, lanes=1)
    reasoner.gate.clear()
    calls = [asyncio.create_task(solver.reason(scheduler, EASY, 20)) for _ in range(16)]
    await asyncio.sleep(0)  # all of them have asked by now
    reasoner.gate.set()
    answers = await asyncio.gather(*calls)
    assert all(answer.steps == 20 for answer in answers)
    assert sum(reasoner.batches) == 16 * 20
    assert len(reasoner.batches) < 16 * 20 / 4
    puzzles = [case["input"]["puzzle"] for case in CASES[:12]]
    together = await asyncio.gather(*[sudoku(puzzle) for puzzle in puzzles])
    assert [answer.value for answer in together] == [case["expected"] for case in CASES[:12]]


def test_a_step_is_the_same_for_every_naming_of_digits_and_in_every_batch() -> None:
    """The network has no favourite digit, row or rollout: rename the digits and the logits are renamed alike."""
    chance = np.random.default_rng(1)
    shape = solver.model.session.get_inputs()[1].shape
    carry = chance.standard_normal((3, *shape[1:]), np.float32)
    clues = np.repeat(solver.encode(EASY), 3, 0)
    names = chance.permutation(9)
    plain = solver.model.run_sync(clues=clues, carry=carry)["logits"]
    named = solver.model.run_sync(clues=clues[:, :, names], carry=carry[:, :, names])["logits"]
    turned = solver.model.run_sync(clues=clues[::-1, ::-1], carry=carry[::-1, ::-1])["logits"]
    np.testing.assert_allclose(named, plain[:, :, names], atol=1e-3)
    np.testing.assert_allclose(turned, plain[::-1, ::-1], atol=1e-3)


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
