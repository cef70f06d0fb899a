"""How long the bundled `constraints` thinks, and on what, seen with a network whose every output is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specialists import CannotAnswer, StepScheduler
from specialists.recursion import rows as step_rows
from specialists.zoo.constraints import Limits, make, reason, reasoner, solver, sudoku_groups

PROBLEM = make(4, 16, sudoku_groups(4), {0: 0})
RIGHT = [0, 1, 2, 3, 2, 3, 0, 1, 1, 0, 3, 2, 3, 2, 1, 0]
ROLLOUTS = [rows for rows, steps in reasoner.STAGES for _ in range(steps)]


class Told(reasoner.Reasoner):
    """Reads as RIGHT in the rows that ``right`` names, given the state and how often it has stepped; else breaks rules.

    ``halt`` gives the halting head's logits likewise.
    """

    def __init__(
        self,
        right: Callable[[dict[str, Any], int], Any] = lambda state, step: [],
        halt: Callable[[dict[str, Any], int], Any] = lambda state, step: 0.0,
    ) -> None:
        super().__init__(solver.model)
        self.right, self.halt = right, halt
        self.batches: list[int] = []
        self.noise: list[float] = []
        self.fixed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def lane_rows(self) -> Any:
        return step_rows.HostRows(self.step)

    def step(self, state: Any, /) -> dict[str, Any]:
        assert self.gate.wait(30)
        allowed, carry = state["allowed"], state["carry"]
        self.batches.append(len(carry))
        self.noise.append(float(carry.sum()))
        self.fixed.append(int((allowed.sum(2) == 1).sum(1).max()))
        logits = np.where(allowed > 0, np.arange(4, 0, -1, dtype=np.float32), -30).astype(np.float32)
        for row in self.right(state, len(self.batches)):
            logits[row] = np.eye(4, dtype=np.float32)[RIGHT] * 9
        halt = np.broadcast_to(np.asarray(self.halt(state, len(self.batches)), np.float32), len(carry))
        doubt = np.zeros(carry.shape[:2], np.float32)
        doubt[:, 5] = 3
        return {"logits": logits, "halt": halt.copy(), "doubt": doubt, "carry": carry}


def think(told: Told, limits: Limits = reasoner.ALL, deadline: float | None = None) -> Any:
    return asyncio.run(reason(StepScheduler(told, max_steps=8, lanes=1), PROBLEM, limits, deadline))


def test_the_check_of_all_rows_is_the_rules() -> None:
    chance = np.random.default_rng(0)
    inputs = {name: np.repeat(array, 50, 0) for name, array in PROBLEM.arrays().items()}
    logits = np.eye(4, dtype=np.float32)[RIGHT][None].repeat(50, 0) + chance.normal(0, 0.3, (50, 16, 4))
    got = reasoner.keeps_rules(logits.astype(np.float32), inputs["allowed"], inputs["groups"])
    readings = logits.argmax(2)
    want = [row[0] == 0 and all(len(set(row[list(group)])) == 4 for group in sudoku_groups(4)) for row in readings]
    assert got.tolist() == want
    assert 0 < sum(want) < 50


def test_rollouts_come_in_stages_and_the_first_right_one_ends_it() -> None:
    told = Told()
    answer = think(told, Limits(nodes=0))
    assert told.batches == ROLLOUTS
    assert answer.steps == len(ROLLOUTS)
    assert answer.confidence < 0.5
    told = Told(right=lambda state, step: [5] if len(state["carry"]) > 5 else [])
    answer = think(told)
    assert (answer.value, answer.confidence) == (RIGHT, 1.0)
    assert answer.steps == len(told.batches) == reasoner.STAGES[0][1] + 1


@pytest.mark.parametrize("rollouts", [1, 8, 64])
def test_rollouts_are_as_many_as_the_limit_says(rollouts: int) -> None:
    told = Told()
    think(told, Limits(rollouts=rollouts, nodes=0))
    assert told.batches == [rows for rows in ROLLOUTS if rows <= rollouts]


def test_fewer_steps_cut_the_same_course_short() -> None:
    whole = Told()
    think(whole)
    assert len(whole.batches) > len(ROLLOUTS)
    for steps in (1, 15, 16, 17, 100, len(ROLLOUTS), len(whole.batches) - 1):
        part = Told()
        answer = think(part, Limits(max_steps=steps))
        assert answer.steps == len(part.batches) == steps
        assert (part.batches, part.noise) == (whole.batches[:steps], whole.noise[:steps])


def test_branches_fix_the_variable_in_doubt_and_their_nodes_are_counted() -> None:
    told = Told()
    think(told, Limits(rollouts=1))
    branches = told.batches[reasoner.STAGES[0][1] :]
    assert set(told.fixed[reasoner.STAGES[0][1] :]) >= {2, 3}  # variable 5, then a further one
    waves = branches[:: reasoner.BRANCH_STEPS]
    assert sum(rows // reasoner.BRANCH_ROLLOUTS for rows in waves) == 32
    assert max(branches) <= 32 * reasoner.BRANCH_ROLLOUTS
    few = Told()
    think(few, Limits(rollouts=1, nodes=6))
    assert (
        few.batches[: reasoner.STAGES[0][1] + reasoner.BRANCH_STEPS]
        == told.batches[: reasoner.STAGES[0][1] + reasoner.BRANCH_STEPS]
    )
    assert (
        sum(rows // reasoner.BRANCH_ROLLOUTS for rows in few.batches[reasoner.STAGES[0][1] :: reasoner.BRANCH_STEPS])
        == 6
    )


def test_the_branches_of_a_level_come_first_and_the_most_trusted_of_them_goes_on() -> None:
    def halt(state: dict[str, Any], step: int) -> Any:
        return np.where(state["allowed"][:, 5].argmax(1) == RIGHT[5], 1.0, -9.0)

    def right(state: dict[str, Any], step: int) -> Any:  # two variables fixed beside the given one, and rightly
        fixed = (state["allowed"] * np.eye(4)[RIGHT]).sum(2) * (state["allowed"].sum(2) == 1)
        return np.flatnonzero(fixed.sum(1) >= 3)

    answer = think(Told(right, halt))
    assert answer.value == RIGHT


def test_a_stage_without_hope_ends_early_and_one_that_rises_goes_on() -> None:
    given_up = Told(halt=lambda state, step: -9.0)
    think(given_up, Limits(nodes=0))
    looks = reasoner.SLICE * (reasoner.PATIENCE + 1)
    assert given_up.batches == [rows for rows, steps in reasoner.STAGES for _ in range(min(steps, looks))]
    rising = Told(halt=lambda state, step: -9.0 + step / 1000)
    think(rising, Limits(nodes=0))
    assert rising.batches == ROLLOUTS


def test_the_deadline_is_kept_and_the_most_trusted_reading_given() -> None:
    def slow(state: dict[str, Any], step: int) -> float:
        time.sleep(0.015)
        return 1.0 if step <= reasoner.SLICE else -1.0

    start = time.monotonic()
    answer = think(Told(halt=slow), deadline=start + 0.5)
    assert time.monotonic() - start < 0.5
    assert reasoner.SLICE < answer.steps < 40
    assert answer.confidence == pytest.approx(0.5 / (1 + np.exp(-1)), abs=1e-3)


def test_no_time_for_one_step_is_said() -> None:
    with pytest.raises(CannotAnswer, match="no time for one step"):
        think(Told(), deadline=time.monotonic())


async def test_a_caller_who_goes_away_stops_the_thinking() -> None:
    told = Told()
    told.gate.clear()
    scheduler = StepScheduler(told, max_steps=8, lanes=1)
    task = asyncio.create_task(reason(scheduler, PROBLEM))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    told.gate.set()
    assert await scheduler.close(5)
    assert len(told.batches) <= 1


async def test_problems_of_many_callers_step_together() -> None:
    told = Told()
    scheduler = StepScheduler(told, max_steps=8, slots=8, lanes=1)
    told.gate.clear()
    calls = [asyncio.create_task(reason(scheduler, PROBLEM, Limits(max_steps=16))) for _ in range(16)]
    await asyncio.sleep(0)  # all of them have asked by now
    told.gate.set()
    answers = await asyncio.gather(*calls)
    assert all(answer.steps == 16 for answer in answers)
    assert sum(told.batches) == 16 * 16
    assert len(told.batches) < 16 * 16 / 4


def test_rollouts_are_fewer_where_they_would_be_large_and_what_is_too_large_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = 4 * (max(16, 3 * 12) * 4 * 32 + (12 + 16) * 16)
    monkeypatch.setattr(reasoner, "MOST_BYTES", 10 * row)
    told = Told()
    think(told)
    assert max(told.batches) == 10
    monkeypatch.setattr(reasoner, "MOST_ROW_BYTES", row - 1)
    with pytest.raises(CannotAnswer, match="too large for the model: its conflicts fill 12 groups"):
        think(told)
