"""The bundled maze specialist: its rules, its loop, and the mazes its recipe makes. No PyTorch is needed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists import CannotAnswer, OnnxModel, StepScheduler
from specialists.errors import InvalidArguments
from specialists.recursion import rows as step_rows
from specialists.training import maze_grids as grids
from specialists.zoo.maze import maze, rules, solver

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(solver.__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]
RECORDED = Path(__file__).with_name("maze_recorded.npz")
LOOP = ["S..", ".#.", "..G"]
"""Two shortest paths, around the wall."""


def passes(grid: list[str], value: object, shortest: bool = False) -> bool:
    return rules.is_path({"grid": grid, "shortest": shortest}, value).status == "passed"


def drawn(seed: int, largest: int = 12) -> list[str]:
    chance = random.Random(f"test {seed}")
    kind = chance.choice(list(grids.KINDS))
    return grids.make(chance, kind, chance.randint(5, largest), chance.randint(5, largest))[0]


# The rules ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_search_finds_is_a_shortest_path_and_as_long_as_the_rules_say(seed: int) -> None:
    grid = drawn(seed)
    path = grids.search(grid)
    assert path is not None
    assert rules.shortest_length(grid) == len(path) - 1
    assert passes(grid, path)
    assert passes(grid, [list(cell) for cell in path], shortest=True)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_a_path_with_one_cell_changed_lost_or_doubled_fails(seed: int, data: st.DataObject) -> None:
    grid = drawn(seed)
    path = grids.search(grid)
    assert path is not None
    at = data.draw(st.integers(0, len(path) - 1))
    y, x = path[at]
    moved = data.draw(st.sampled_from([(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]))
    assert not passes(grid, [*path[:at], moved, *path[at + 1 :]])  # its neighbours are not beside it any more
    assert not passes(grid, path[:at] + path[at + 1 :])
    assert not passes(grid, [*path[: at + 1], path[at], *path[at + 1 :]])


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60))
def test_a_detour_is_a_path_and_no_shortest_one(seed: int, turns: int) -> None:
    grid, chance = drawn(seed), random.Random(seed)
    path = grids.search(grid)
    assert path is not None
    detour = [path[0]]
    for _ in range(turns):
        around = [(detour[-1][0] + dy, detour[-1][1] + dx) for dy, dx in grids.SIDES]
        ways = [(y, x) for y, x in around if 0 <= y < len(grid) and 0 <= x < len(grid[0]) and grid[y][x] != "#"]
        detour.append(chance.choice(ways))
    walk = [*detour, *detour[-2::-1], *path[1:]]
    assert passes(grid, walk)
    assert passes(grid, walk, shortest=True) == (turns == 0)


def test_each_of_several_shortest_paths_is_right() -> None:
    for path in ([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)], [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]):
        assert passes(LOOP, path, shortest=True)
        assert rules.is_right({"grid": LOOP, "shortest": True}, [[0, 0]], path)
    assert not rules.is_right({"grid": LOOP, "shortest": False}, None, path)


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "",
        "SG",
        [],
        [None],
        [(0, 0)],
        [(0, 0), (1, 1), (2, 2)],
        [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2)],  # through the wall
        [(0, 0), (-1, 0), (0, 0), (0, 1), (0, 2), (1, 2), (2, 2)],  # around the edge
        [(0, 0), (0, 1), (0, 2), (1, 2)],
        [(0, 1), (0, 2), (1, 2), (2, 2)],
        [(0.0, 0.0), (0, 1), (0, 2), (1, 2), (2, 2)],
        [(False, False), (0, True), (0, 2), (1, 2), (2, 2)],
        ["00", "01", "02", "12", "22"],
        {(0, 0): 1},
    ],
)
def test_what_is_no_path_fails(value: object) -> None:
    assert not passes(LOOP, value)


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        (["S..", "..", "..G"], "row 2 has 2 cells and row 1 has 3"),
        (["S.x", "..G"], "row 1 holds 'x'"),
        (["S.Ｇ", "..G"], "row 1 holds"),
        (["...", "..G"], "no start 'S'"),
        (["S..", "..."], "no goal 'G'"),
        (["S.S", "..G"], "2 times 'S'"),
        (["SGG", "..G"], "3 times 'G'"),
        (["S#G", ".#."], "no way through"),
        ([""], "empty"),
        (["S" + "." * 200 + "G"], "at most 200"),
    ],
)
def test_what_is_no_maze_gets_an_abstention_of_one_sentence(grid: list[str], reason: str) -> None:
    with pytest.raises(CannotAnswer, match=reason) as caught:
        asyncio.run(maze(grid))
    assert "\n" not in str(caught.value)
    outcome = maze.solve_sync(grid, shortest=True)
    assert (outcome.value, outcome.accepted_by) == (None, None)
    assert not passes(grid, [(0, 0)])


@pytest.mark.parametrize("grid", [[], ["."] * 201, "S.G", None, [["S", "G"]], [5]])
def test_what_is_no_list_of_rows_is_refused(grid: Any) -> None:
    with pytest.raises(InvalidArguments, match="grid"):
        asyncio.run(maze(grid))


def test_the_schema_is_plain() -> None:
    properties = maze.parameters["properties"]
    assert set(properties) == {"grid", "shortest"}
    assert maze.parameters["required"] == ["grid"]
    assert properties["grid"]["items"] == {"type": "string"}
    assert properties["shortest"]["type"] == "boolean"
    assert properties["shortest"]["default"] is False


# The loop -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_solves_its_own_cases_and_proves_them(case: dict[str, Any]) -> None:
    outcome = maze.solve_sync(**case["input"])
    if case["expected"] is None:
        assert outcome.accepted_by is None
    else:
        assert outcome.accepted_by == "verified"
        assert outcome.answered_by == "specialist"  # one rollout was enough
        assert len(outcome.value or []) == len(case["expected"]) or not case["input"].get("shortest")


def test_finds_the_shortest_way_through_held_out_mazes_of_every_kind_and_beyond_the_trained_sizes() -> None:
    chance = random.Random("held out")
    for kind in grids.KINDS:
        for rows, columns in ((5, 5), (14, 14), (23, 11), (30, 30), (50, 45)):
            grid, _ = grids.make(chance, kind, rows, columns)
            outcome = maze.solve_sync(grid, shortest=True)
            assert outcome.accepted_by == "verified", (kind, rows, columns)
            assert len(outcome.value or []) == len(grids.search(grid) or [])


@pytest.mark.parametrize("grid", [["SG"], ["S....G"], ["G", ".", "S"], ["S.", ".G"], ["#S", "G."]])
def test_tiny_mazes(grid: list[str]) -> None:
    assert maze.solve_sync(grid, shortest=True).accepted_by == "verified"


def right_at(grid: list[str], steps: int) -> list[bool]:
    """Whether a shortest path is read after each of so many steps of one rollout that nothing ends."""
    start, goal = rules.ends(grid)
    length = rules.shortest_length(grid)
    given = solver.encode(grid)
    width = solver.model.session.get_inputs()[1].shape[1]
    carry = solver.NOISE * np.random.default_rng(0).standard_normal((1, width, *given.shape[2:]), np.float32)
    found = []
    for _ in range(steps):
        out = solver.model.run_sync(maze=given, carry=carry)
        path = solver.walk(out["moves"][0], start, goal, grid)
        found.append(path is not None and len(path) - 1 == length)
        carry = out["next_carry"]
    return found


def test_accuracy_never_falls_with_more_steps() -> None:
    """The first path that is proved is kept, so what few steps find more of them find too, and then some."""
    chance = random.Random("more steps")
    mazes = [grids.make(chance, kind, chance.randint(6, 20), chance.randint(6, 20), far=0.5)[0] for kind in grids.KINDS]
    solved = []
    for most in (2, 8, 24, 72, 216, solver.FIRST):
        answers = [asyncio.run(solver.reason(solver.scheduler, grid, True, most)) for grid in mazes]
        assert all((answer.steps or 0) <= most for answer in answers)
        good = [passes(grid, answer.value, True) for grid, answer in zip(mazes, answers, strict=True)]
        assert good == [answer.confidence == 1.0 for answer in answers]
        assert all(now or not before for before, now in zip(solved[-1] if solved else good, good, strict=True))
        solved.append(good)
    assert not any(solved[0])
    assert all(solved[-1])


def test_the_network_stays_with_what_it_knows_for_a_while() -> None:
    """Not by keeping what was found: it still points along a shortest path fifty steps after the first."""
    chance = random.Random("staying")
    for kind in grids.KINDS:
        grid, _ = grids.make(chance, kind, chance.randint(6, 20), chance.randint(6, 20), far=0.5)
        length = rules.shortest_length(grid)
        assert length is not None
        right = right_at(grid, length + 50)
        assert right == sorted(right)  # never from yes to no
        assert right[-1]


def test_more_steps_serve_longer_ways() -> None:
    grid, _ = grids.make(random.Random(0), "serpentine", 25, 25, least=150)
    length = rules.shortest_length(grid)
    assert length is not None
    few = asyncio.run(solver.reason(solver.scheduler, grid, True, length // 2))
    assert (few.value, few.confidence, few.steps) == ([], 0.0, length // 2)
    enough = asyncio.run(solver.reason(solver.scheduler, grid, True, solver.FIRST))
    assert enough.confidence == 1.0
    assert enough.steps is not None
    assert enough.steps <= length + 5
    assert passes(grid, enough.value, shortest=True)


async def test_the_same_maze_gets_the_same_answer_alone_and_among_others() -> None:
    mazes = [drawn(seed, 20) for seed in range(16)]
    alone = [(await maze(grid, shortest=True)).value for grid in mazes]
    together = await asyncio.gather(*[maze(grid, shortest=True) for grid in mazes])
    assert [len(answer.value) for answer in together] == [len(path) for path in alone]
    assert all(passes(grid, answer.value, shortest=True) for grid, answer in zip(mazes, together, strict=True))


def test_it_comes_back_in_time_with_what_it_has() -> None:
    grid = _serpentine(199)
    began = time.monotonic()
    answer = asyncio.run(solver.reason(solver.scheduler, grid, True, None, began + 0.6))
    assert time.monotonic() - began < 1.5
    assert answer.value == []
    assert answer.confidence == 0.0


def _serpentine(side: int) -> list[str]:
    rows = ["." * side if y % 2 == 0 else ("#" * (side - 1) + "." if y % 4 == 1 else "." + "#" * (side - 1))
            for y in range(side)]  # fmt: skip
    last = "G" + "." * (side - 1) if (side // 2) % 2 else "." * (side - 1) + "G"
    return ["S" + rows[0][1:], *rows[1:-1], last]


class Recorder(solver.Reasoner):
    """Points along nothing, or along a longer way, until a rollout that it is told of points along a shortest one."""

    def __init__(self, right: int | None = None, *, says: bool = True, detour: bool = False) -> None:
        super().__init__(solver.model)
        self.right, self.says, self.detour, self.batches = right, says, detour, list[int]()

    def lane_rows(self) -> Any:
        return step_rows.HostRows(self.step)

    def step(self, state: Any, /) -> dict[str, Any]:
        carry = state["carry"]
        self.batches.append(len(carry))
        moves = np.full((len(carry), *carry.shape[2:]), -1)
        if self.detour:
            moves[0] = [[1, 1, 2], [2, 3, 3], [1, 1, 0]]
        if self.right is not None and len(carry) > self.right:
            moves[self.right] = [[1, 1, 2], [0, 0, 2], [0, 0, 0]]
        halt = np.full(len(carry), 9.0 if self.says else -9.0, np.float32)
        return {"moves": moves, "halt": halt, "carry": carry}


def asked(recorder: Recorder, most: int | None = None, grid: list[str] = LOOP, shortest: bool = True) -> Any:
    scheduler = StepScheduler(recorder, max_steps=solver.MORE)
    return asyncio.run(solver.reason(scheduler, grid, shortest, most))


def test_rollouts_are_sixty_four_at_most_and_stop_at_the_first_right_one() -> None:
    recorder = Recorder()
    assert asked(recorder).value == []
    assert sorted(set(recorder.batches)) == list(solver.STAGES) == [1, 8, 64]
    assert len(recorder.batches) == 3 * (solver.PATIENCE + 1)  # the head says that the news is there, and none comes
    recorder = Recorder(right=5)
    answer = asked(recorder)
    assert passes(LOOP, answer.value, shortest=True)
    assert answer.steps == len(recorder.batches) == solver.PATIENCE + 2
    recorder = Recorder(says=False)
    asked(recorder, solver.FIRST)
    assert recorder.batches == [1] * (8 + solver.PATIENCE)  # as many steps as cells are open, and some more


def test_a_detour_is_taken_at_once_unless_the_shortest_is_asked_for() -> None:
    square = ["S..", "...", "..G"]
    any_path = asked(Recorder(detour=True), grid=square, shortest=False)
    assert (len(any_path.value), any_path.confidence, any_path.steps) == (9, 1.0, 1)
    shortest = asked(Recorder(detour=True), solver.FIRST, grid=square)
    assert (len(shortest.value), shortest.confidence) == (9, 0.0)
    assert not passes(square, shortest.value, shortest=True)


def test_where_no_rollout_finds_a_way_it_abstains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "scheduler", StepScheduler(Recorder(), max_steps=solver.MORE))
    with pytest.raises(CannotAnswer, match="no path was found in"):
        asyncio.run(maze(LOOP))
    outcome = maze.solve_sync(LOOP)
    assert outcome.accepted_by is None
    assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "more_steps"]


# The network ----------------------------------------------------------------------------------------------------------


def test_the_graph_says_what_was_recorded_of_the_network_it_was_exported_from() -> None:
    with np.load(RECORDED) as recorded:
        given = dict(recorded)
    model = OnnxModel(solver.model.path)
    carry = given["carry"]
    for _ in range(12):
        out = model.run_sync(maze=given["maze"], carry=carry)
        carry = out["next_carry"]
    np.testing.assert_allclose(carry, given["next_carry"], atol=1e-3)
    np.testing.assert_allclose(out["halt"], given["halt"], atol=1e-2)
    np.testing.assert_array_equal(out["moves"], given["moves"])


def test_news_travels_one_cell_a_step_and_walls_hold_none() -> None:
    found = right_at(["S" + "." * 18 + "G"], 30)
    assert found == [False] * 18 + [True] * 12
    given = solver.encode(["S#.G"])
    width = solver.model.session.get_inputs()[1].shape[1]
    out = solver.model.run_sync(maze=given, carry=np.ones((1, width, 1, 4), np.float32))
    assert not out["next_carry"][0, :, 0, 1].any()


# The recipe's mazes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", grids.KINDS)
def test_made_mazes_have_a_way_and_their_distances(kind: str) -> None:
    chance = random.Random(kind)
    for rows, columns in ((5, 5), (6, 9), (14, 14), (30, 30)):
        grid, steps = grids.make(chance, kind, rows, columns)
        assert rules.problem(grid) is None
        assert (len(grid), len(grid[0])) == (rows, columns)
        (y, x), (v, u) = rules.ends(grid)
        assert steps[y * columns + x] == grids.path_length(grid) == rules.shortest_length(grid)
        assert steps[v * columns + u] == 0


def test_perfect_mazes_have_one_way_between_any_two_cells() -> None:
    for kind in ("depth-first", "prim", "kruskal", "wilson"):
        grid, steps = grids.make(random.Random(kind), kind, 16, 21)
        cells = {(y, x) for y, row in enumerate(grid) for x, mark in enumerate(row) if mark != "#"}
        links = sum(((y + 1, x) in cells) + ((y, x + 1) in cells) for y, x in cells)
        assert links == len(cells) - 1
        assert sum(distance >= 0 for distance in steps) == len(cells)


def test_a_maze_follows_from_its_seed_and_an_impossible_one_is_refused() -> None:
    one, other = (grids.make(random.Random(3), "rooms", 12, 12) for _ in range(2))
    assert one == other
    with pytest.raises(ValueError, match="no open maze of 5 x 5"):
        grids.make(random.Random(3), "open", 5, 5, least=60, tries=3)


def test_a_found_path_has_neighbours_only() -> None:
    path = grids.search(drawn(1))
    assert all(abs(y - v) + abs(x - u) == 1 for (y, x), (v, u) in pairwise(path or []))
