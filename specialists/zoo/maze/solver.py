"""The maze specialist: one small recurrent network in which news of the goal spreads, a cell a step, like a wave.

After each step every cell that is sure of it says which way to go, and the answer is read by walking those moves from
S: nothing here searches. A walk that ends at G is a path; where the shortest is asked for, its length is checked too.
The first walk that passes ends the call. How many steps there may be grows with the maze. A rollout starts from noise;
a maze that resists gets more of them side by side, 64 at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from specialists import Answer, CannotAnswer, DeadlinePassed, Effort, OnnxModel, OnnxStep, StepScheduler, specialist

from .rules import LARGEST, Cell, ends, is_path, problem, shortest_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left, as the network numbers them; -1 is "not known yet"."""

NOISE = 0.3
"""How large the noise is that a rollout starts from."""

FIRST, MORE = 2048, 16384
"""Steps of the first rung, which has one rollout, and of the second in all its stages."""

STAGES = (1, 8, 64)
"""Rollouts of one maze, stage by stage."""

WORK = 6_000_000
"""Cells times rollouts times steps that a stage may cost, some two to three seconds; one rollout is always allowed."""

PATIENCE = 16
"""Steps that are waited for a walk after the network says that the news has come to S; then other rollouts begin."""

TIME_TO_SPARE = 0.05
"""Seconds before the deadline at which the best path so far is given."""


def encode(grid: list[str]) -> NDArray[Any]:
    """The maze as zeros and ones: float32 (1, 3, rows, columns) for open, start and goal."""
    import numpy as np

    cells = np.frombuffer("".join(grid).encode("ascii"), np.uint8).reshape(len(grid), -1)
    return np.asarray([[cells != ord("#"), cells == ord("S"), cells == ord("G")]], np.float32)


def walk(moves: NDArray[Any], start: Cell, goal: Cell, grid: list[str]) -> list[Cell] | None:
    """Where ``moves`` (rows, columns) lead from ``start``; ``None`` where that is not to ``goal``."""
    path, seen = [start], {start}
    y, x = start
    rows, columns = len(grid), len(grid[0])
    while (y, x) != goal:
        move = moves[y, x]
        if move < 0:
            return None
        y, x = y + MOVES[move][0], x + MOVES[move][1]
        if not (0 <= y < rows and 0 <= x < columns) or grid[y][x] == "#" or (y, x) in seen:
            return None
        seen.add((y, x))
        path.append((y, x))
    return path


class Rollouts(NamedTuple):
    """A maze, and how many rollouts of it are to begin with noise from ``chance``."""

    maze: NDArray[Any]
    rollouts: int
    chance: Any


class Reader:
    """Looks at the rollouts of one maze after each step, and keeps the best path that was walked so far."""

    def __init__(self, grid: list[str], shortest: bool) -> None:
        self.grid, self.shortest = grid, shortest
        self.start, self.goal = ends(grid)
        self.best: list[Cell] | None = None
        self.done = False
        self.arrived = 0
        """Steps since the network says that the news has come to S."""
        self._length: int | None = None

    def __call__(self, rows: Mapping[str, NDArray[Any]]) -> bool:
        """Whether to end: a path that passes was found, or thinking on will not pay."""
        for moves in rows["moves"]:
            path = walk(moves, self.start, self.goal, self.grid)
            if path is not None and (self.best is None or len(path) < len(self.best)):
                self.best = path
                if self.shortest and self._length is None:
                    self._length = shortest_length(self.grid)  # as the verifier counts it
                if not self.shortest or len(path) - 1 == self._length:
                    self.done = True
                    return True
        self.arrived += bool((rows["halt"] > 0).all())
        return self.arrived > PATIENCE


def _never(rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    import numpy as np

    return np.zeros(len(rows["maze"]), bool)


class Reasoner(OnnxStep):
    """The network's step, for rollouts of a maze that end together when its reader says so."""

    def __init__(self, network: OnnxModel) -> None:
        super().__init__(network, carry={"next_carry": "carry"}, halted=_never, answer=["moves", "halt"])

    def start(self, item: Rollouts, /) -> dict[str, NDArray[Any]]:
        """The rollouts as rows."""
        import numpy as np

        width = self.model.session.get_inputs()[1].shape[1]
        noise = item.chance.standard_normal((item.rollouts, width, *item.maze.shape[2:]), np.float32) * np.float32(
            NOISE
        )
        return super().start({"maze": np.repeat(item.maze, item.rollouts, 0), "carry": noise})


model = OnnxModel(Path(__file__).with_name("model.onnx"))
scheduler = StepScheduler(Reasoner(model), max_steps=MORE)


async def reason(
    scheduler: StepScheduler,
    grid: list[str],
    shortest: bool = False,
    max_steps: int | None = None,
    deadline: float | None = None,
) -> Answer[list[Cell]]:
    """Steps rollouts of `grid` until a walk passes, or `max_steps`, the time, or what the maze is worth is spent.

    The confidence of a path that passes is 1. Otherwise the answer is the shortest path that was walked so far, with
    the confidence 0, and an empty list where there is none.
    """
    import numpy as np

    maze = encode(grid)
    chance = np.random.default_rng(0)  # the same maze always gets the same answer
    longest = int(maze[:, 0].sum())  # no path has more cells than are open
    read = Reader(grid, shortest)
    taken, limit = 0, MORE if max_steps is None else max_steps
    until = None if deadline is None else deadline - TIME_TO_SPARE
    for most in STAGES if limit > FIRST else STAGES[:1]:
        steps = min(longest + PATIENCE, limit - taken)
        rollouts = min(most, max(1, WORK // (maze[0, 0].size * longest)))
        if steps < 1 or (taken and rollouts == 1):
            break
        read.arrived = 0
        try:
            result = await scheduler.run(Rollouts(maze, rollouts, chance), max_steps=steps, deadline=until, verify=read)
        except DeadlinePassed:
            break
        taken += result.steps
        if read.done:
            break
        if result.steps < steps and not result.halted:
            break  # no time for more
    return Answer(read.best or [], confidence=float(read.done), steps=taken)


@specialist(verify=is_path, sound=True, complete=True, timeout=20.0, steps=(FIRST, MORE))
async def maze(
    grid: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=LARGEST,
            description=f"the rows, equally long, at most {LARGEST} x {LARGEST}: '#' wall, '.' open, one 'S' start and"
            " one 'G' goal",
        ),
    ],
    effort: Effort,
    shortest: Annotated[bool, Field(description="whether no path may be shorter than the answer")] = False,
) -> Answer[list[Cell]]:
    """Find a way through a maze, from S to G. The answer is the list of its cells as (row, column), counted from 0."""
    wrong = problem(grid)
    if wrong:
        raise CannotAnswer(wrong)
    if shortest_length(grid) is None:
        raise CannotAnswer("there is no way through this maze: S and G are not connected")
    answer = await reason(scheduler, grid, shortest, effort.max_steps, effort.deadline)
    if not answer.value and (effort.max_steps is None or effort.max_steps > FIRST):
        raise CannotAnswer(f"no path was found in {answer.steps} steps")
    return answer
