"""The specialist `constraints`: one small network that gives every variable of a problem a value, step by step.

Every value of an answer is the network's own. What is here says what a question is, and what is refused before the
network runs; how long it thinks is in ``reasoner``. Problems of many callers step together.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import Field

from specialists import Answer, Effort, OnnxModel, StepScheduler, specialist

from .problem import MOST_VALUES, MOST_VARIABLES, Problem, make
from .reasoner import SLICE, Limits, Reasoner, reason
from .rules import is_answer

__all__ = ["constraints", "model", "scheduler", "think"]

MANY = 20_000
"""Members of all groups together from which on they are put in order on another thread, beside the event loop."""

Index = Annotated[int, Field(ge=0)]

model = OnnxModel(Path(__file__).with_name("model.onnx"))
scheduler = StepScheduler(Reasoner(model), max_steps=SLICE)


async def think(problem: Problem, effort: Effort) -> Answer[list[int]]:
    """A value for every variable of ``problem``; see :func:`specialists.zoo.constraints.reasoner.reason`."""
    return await reason(scheduler, problem, Limits(max_steps=effort.max_steps), effort.deadline)


@specialist(verify=is_answer, sound=True, complete=True, timeout=5.0, steps="auto")
async def constraints(
    values: Annotated[
        int, Field(ge=1, le=MOST_VALUES, description="how many values there are; they count from 0 to values - 1")
    ],
    variables: Annotated[
        int, Field(ge=1, le=MOST_VARIABLES, description="how many variables there are; they too count from 0")
    ],
    groups: Annotated[
        list[Annotated[list[Index], Field(min_length=1)]],
        Field(max_length=100_000, description="lists of variables of which no two may get the same value"),
    ],
    given: Annotated[
        dict[Index, Index], Field(description="values that are known already, by variable: {variable: value}")
    ] = {},  # noqa: B006
    allowed: Annotated[
        dict[Index, list[Index]],
        Field(description="the only values a variable may get, by variable; one not named here may get any"),
    ] = {},  # noqa: B006
    *,
    effort: Effort,
) -> Answer[list[int]]:
    """Give every variable a value so that no two variables of a group are equal.

    Sudokus, Latin squares, the colouring of graphs and maps, timetables without double booking are such problems. The
    answer lists the value of each variable in order.
    """
    if sum(map(len, groups)) < MANY:
        problem = make(values, variables, groups, given, allowed)
    else:
        problem = await asyncio.to_thread(make, values, variables, groups, given, allowed)
    return await think(problem, effort)
