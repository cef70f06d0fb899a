"""How long the network thinks, and on what: rollouts from noise side by side, then branches. It knows no puzzle.

A rollout is the step network applied again and again to a latent state that began as noise. After every step what it
reads as is checked by the rules, and the first reading that keeps them ends the thinking. A problem that resists gets
more rollouts beside the first; then the variable that the network is least certain of is fixed to one value after the
other, and the thinking goes on in each such branch; then come more rollouts yet. Which branch is pursued, and when a
stage is given up, the network's halting head says. Nothing here rules out a value or follows a conflict: that is the
network's work.

The same problem is always thought about in the same order. Fewer steps or less time cut that order short, so more of
them never lose an answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from specialists import Answer, CannotAnswer, DeadlinePassed, OnnxModel, OnnxStep, StepScheduler

from .problem import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALL", "SLICE", "STAGES", "Limits", "Reasoner", "keeps_rules", "reason"]

STAGES = ((1, 256), (8, 64), (64, 64))
"""Rollouts of a problem, and for how many steps at most. Those of a stage go on in the next, new ones beside them."""
BRANCH_AFTER = 2
"""Stages before the branches, which cost less than the last one and mostly tell more."""
SLICE = 16
"""Steps between two looks at the halting head."""
PATIENCE = 6
HOPELESS = -2.0
"""A stage ends early after so many looks in which the head's best logit has not risen, if it lies below this."""

BRANCH_ROLLOUTS, BRANCH_STEPS = 1, 32
"""Rollouts of a branch, and their steps. They go on from where the most trusted ones stood before the branch."""
LEAST_LIKELY = 0.03
"""A value with less of the network's mean probability gets no branch, unless it is one of the two likeliest."""
DOUBT_WEIGHT = 0.1
"""What a doubt of 1 counts beside probabilities when the least certain variable is chosen."""
DEPTH_WEIGHT = 100.0
"""How much of the halting head's trust a level costs. It hardly tells a right branch from a wrong one before the end is
near, so that all branches of one level come before those of the next."""

MOST_BYTES = 64 * 1024**2
"""Of a carry, or of the widest thing that a step makes on the way: rollouts are fewer where they would be larger."""
MOST_ROW_BYTES = 512 * 1024**2
TIME_TO_SPARE = 0.05
"""Seconds before the deadline at which the best reading so far is given."""
SUREST = 0.49
"""The most confidence in a reading that breaks a rule."""


class Limits(NamedTuple):
    """How much may be thought: ``rollouts`` from noise side by side, branch ``nodes``, and steps (``None``: all)."""

    rollouts: int = STAGES[-1][0]
    nodes: int = 32
    max_steps: int | None = None


ALL = Limits()
"""All that there is."""


class Rollouts(NamedTuple):
    """Rows that step together: those of ``carry`` go on, the others begin with noise from ``chance``.

    ``allowed`` (rows, variables, values); ``groups`` and ``overlaps`` as :meth:`Problem.arrays` gives them, for all.
    ``chance``: a numpy generator, or ``None`` where all rows go on.
    """

    allowed: NDArray[Any]
    groups: NDArray[Any]
    overlaps: NDArray[Any]
    carry: NDArray[Any] | None
    chance: Any


class Look(NamedTuple):
    """What rollouts have come to. ``best``: a row that keeps the rules, or else the one the halting head trusts most.

    ``right``: whether that row keeps them. ``logits`` (rows, variables, values), ``halt`` (rows,), ``doubt`` (rows,
    variables), ``carry`` as the network gave them.
    """

    best: int
    right: bool
    logits: NDArray[Any]
    halt: NDArray[Any]
    doubt: NDArray[Any]
    carry: NDArray[Any]

    def of(self, rows: slice) -> Look:
        """Of some of the rows alone, none of them right."""
        halt = self.halt[rows]
        return Look(int(halt.argmax()), False, self.logits[rows], halt, self.doubt[rows], self.carry[rows])


def keeps_rules(logits: NDArray[Any], allowed: NDArray[Any], groups: NDArray[Any]) -> NDArray[Any]:
    """Which rows read as an answer: every value allowed, no two equal in a group. Bool (rows,)."""
    import numpy as np

    reading = logits.argmax(2)[..., None]
    chosen = np.zeros(logits.shape, np.float32)
    np.put_along_axis(chosen, reading, 1, 2)
    good = np.take_along_axis(allowed, reading, 2).all((1, 2))
    return np.asarray(good & (np.matmul(groups, chosen).max((1, 2)) < 1.5))


class Reasoner(OnnxStep):
    """The network's step, for rollouts that end together when one of them reads as an answer."""

    def __init__(self, network: OnnxModel) -> None:
        super().__init__(network, carry={"next_carry": "carry"}, halted=_right, answer=_look)

    def start(self, item: Rollouts, /) -> dict[str, NDArray[Any]]:
        """The rollouts as rows."""
        import numpy as np

        rows, variables, values = item.allowed.shape
        have = [] if item.carry is None else [item.carry]
        width = next(entry.shape[-1] for entry in self.model.session.get_inputs() if entry.name == "carry")
        new = (rows - sum(map(len, have)), variables, values, width)
        noise = [item.chance.standard_normal(new, np.float32)] if new[0] else []
        return super().start(
            {
                "allowed": item.allowed,
                "groups": np.repeat(item.groups, rows, 0),
                "overlaps": np.repeat(item.overlaps, rows, 0),
                "carry": np.concatenate([*have, *noise]),
            }
        )


def _right(rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return keeps_rules(rows["logits"], rows["allowed"], rows["groups"])


def _look(rows: Mapping[str, NDArray[Any]]) -> Look:
    good = _right(rows)
    right = bool(good.any())
    halt = rows["halt"].reshape(len(good))
    best = int(good.argmax() if right else halt.argmax())
    return Look(best, right, rows["logits"], halt, rows["doubt"], rows["carry"])


async def reason(
    scheduler: StepScheduler, problem: Problem, limits: Limits = ALL, deadline: float | None = None
) -> Answer[list[int]]:
    """Think about ``problem`` until a reading keeps its rules, or the limits or the time are spent.

    ``scheduler`` steps a :class:`Reasoner`; ``deadline``: a point on :func:`time.monotonic`. The confidence of a
    reading that keeps the rules is 1, for they were checked. Otherwise the answer is the reading that the halting head
    trusts most, and the confidence, always under one half, half of the head's probability.

    Raises :class:`CannotAnswer` for a problem too large to be stepped, and where there was no time for one step.
    """
    thinking = _Thinking(scheduler, problem, limits, deadline)
    await thinking.think()
    return thinking.answer()


class _Thinking:
    """One call: how much of its limits is spent, and the best reading so far."""

    def __init__(self, scheduler: StepScheduler, problem: Problem, limits: Limits, deadline: float | None) -> None:
        inputs = problem.arrays()
        self.allowed, self.groups, self.overlaps = inputs["allowed"], inputs["groups"], inputs["overlaps"]
        self.scheduler = scheduler
        self.limits = limits
        self.until = None if deadline is None else deadline - TIME_TO_SPARE
        self.taken = 0
        self.over = False
        self.best: tuple[float, bool, list[int]] | None = None
        if self._row_bytes(32) > MOST_ROW_BYTES:
            raise CannotAnswer(
                f"the problem is too large for the model: its conflicts fill {self.groups.shape[1]:,} groups"
            )

    def _row_bytes(self, width: int) -> int:
        """About how many bytes a row needs, for a network with vectors of ``width``."""
        _, variables, values = self.allowed.shape
        groups, overlaps = self.groups.shape[1], self.overlaps.shape[1]
        size: int = 4 * (max(variables, 3 * groups) * values * width + (groups + overlaps) * variables)
        return size

    def _rows(self, wanted: int, width: int) -> int:
        return max(1, min(wanted, MOST_BYTES // self._row_bytes(width)))

    def answer(self) -> Answer[list[int]]:
        """What there is to say now."""
        if self.best is None:
            raise CannotAnswer("there was no time for one step")
        halt, right, values = self.best
        confidence = 1.0 if right else min(SUREST, 0.5 / (1 + math.exp(min(-halt, 500.0))))
        return Answer(values, confidence=confidence, steps=self.taken)

    async def think(self) -> None:
        """Stage after stage of rollouts, and branches between them."""
        import numpy as np

        chance = np.random.default_rng(0)
        stages = [stage for stage in STAGES if stage[0] <= max(self.limits.rollouts, STAGES[0][0])]
        look: Look | None = None
        for number, (rollouts, steps) in enumerate(stages, 1):
            if look is not None:
                rollouts = max(len(look.carry), self._rows(rollouts, look.carry.shape[-1]))
            carry = None if look is None else look.carry
            look = await self._run(np.repeat(self.allowed, rollouts, 0), carry, chance, steps) or look
            if look is not None and number == min(BRANCH_AFTER, len(stages)) and not self.over:
                await self.branches(look)
            if self.over:
                return

    async def branches(self, look: Look) -> None:
        """Fix the least certain variable, look which of its values is promising, and go on from the best of all."""
        import numpy as np

        open_: list[tuple[float, int, int, NDArray[Any], Look]] = [(-math.inf, 0, 0, self.allowed[0], look)]
        nodes, width = 0, look.carry.shape[-1]
        while open_ and nodes < self.limits.nodes and not self.over:
            _, _, depth, allowed, look = heapq.heappop(open_)
            branches = _branches(allowed, look.logits, look.doubt)[: self._rows(self.limits.nodes - nodes, width)]
            if not branches:
                continue
            each = self._rows(BRANCH_ROLLOUTS * len(branches), width) // len(branches)
            trusted = np.argsort(-look.halt, kind="stable")[:each]
            each = len(trusted)
            carry = np.tile(look.carry[trusted], (len(branches), 1, 1, 1))
            found = await self._run(np.repeat(np.stack(branches), each, 0), carry, None, BRANCH_STEPS)
            if found is None or self.over:
                return
            for number, branch in enumerate(branches):
                nodes += 1
                part = found.of(slice(number * each, (number + 1) * each))
                score = DEPTH_WEIGHT * depth - float(part.halt.max())
                heapq.heappush(open_, (score, nodes, depth + 1, branch, part))

    async def _run(self, allowed: NDArray[Any], carry: NDArray[Any] | None, chance: Any, steps: int) -> Look | None:
        """Step these rows until one is right, ``steps`` are taken, or the halting head gives them up."""
        look: Look | None = None
        high, stale = -math.inf, 0
        while steps > 0 and not self.over:
            found = await self._steps(Rollouts(allowed, self.groups, self.overlaps, carry, chance), min(SLICE, steps))
            if found is None:
                break
            look, carry = found, found.carry
            steps -= SLICE
            best = float(look.halt.max())
            high, stale = max(high, best), 0 if best > high else stale + 1
            if stale >= PATIENCE and best < HOPELESS:
                break
        return look

    async def _steps(self, item: Rollouts, steps: int) -> Look | None:
        if self.limits.max_steps is not None:
            steps = min(steps, self.limits.max_steps - self.taken)
        if steps < 1:
            self.over = True
            return None
        try:
            result = await self.scheduler.run(item, max_steps=steps, deadline=self.until)
        except DeadlinePassed:
            self.over = True
            return None
        look: Look = result.value
        self.taken += result.steps
        self.over = look.right or result.steps < steps or self.taken == self.limits.max_steps
        halt = float(look.halt[look.best])
        if self.best is None or (look.right, halt) > (self.best[1], self.best[0]):
            self.best = halt, look.right, look.logits[look.best].argmax(1).tolist()
        return look


def _branches(allowed: NDArray[Any], logits: NDArray[Any], doubt: NDArray[Any]) -> list[NDArray[Any]]:
    """``allowed`` (variables, values) with the least certain variable fixed to each likely value, the likeliest first.

    That is the variable whose mean probabilities over the rollouts waver between just two values, since few branches
    then hold the right one; where all are sure of theirs, the network's doubts tell. Nothing when every variable has
    one value.
    """
    import numpy as np

    free = allowed.sum(1) > 1
    if not free.any():
        return []
    weights = np.exp(logits - logits.max(2, keepdims=True))
    mean = (weights / weights.sum(2, keepdims=True)).mean(0)
    ordered = np.sort(mean, 1)
    wavering = ordered[:, -2] - ordered[:, :-2].sum(1)
    doubts = (1 / (1 + np.exp(-np.clip(doubt, -30, 30)))).mean(0)
    variable = int(np.where(free, wavering + DOUBT_WEIGHT * doubts, -np.inf).argmax())
    order = [int(value) for value in np.argsort(-mean[variable], kind="stable") if allowed[variable, value]]
    likely = [value for place, value in enumerate(order) if place < 2 or mean[variable, value] >= LEAST_LIKELY]
    branches = []
    for value in likely:
        branch = allowed.copy()
        branch[variable] = 0
        branch[variable, value] = 1
        branches.append(branch)
    return branches
