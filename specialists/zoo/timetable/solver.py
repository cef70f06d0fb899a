"""The specialist `timetable`: exams are variables, slots are values, and a student's exams are a group.

Its network is that of the bundled `constraints`, which the card names. What is here says the question and what is wrong
with it in words of exams.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from specialists import Answer, CannotAnswer, Effort, specialist
from specialists.zoo.constraints import MOST_VALUES, MOST_VARIABLES, NoSolution, Problem, make, think

from .rules import is_timetable

__all__ = ["pose", "timetable"]

Exam = Annotated[str, Field(min_length=1, max_length=500)]


def pose(exams: list[str], students: list[list[str]], slots: int) -> Problem:
    """The question as a problem of variables and groups. Raises :class:`CannotAnswer` for what is none."""
    places = {exam: place for place, exam in enumerate(exams)}
    if len(places) < len(exams):
        twice = next(exam for place, exam in enumerate(exams) if places[exam] != place)
        raise CannotAnswer(f"the exam {twice!r} is listed twice")
    groups = []
    for number, taken in enumerate(students):
        try:
            group = {places[exam] for exam in taken}
        except KeyError as error:
            raise CannotAnswer(f"students[{number}] takes {error.args[0]!r}, which is none of the exams") from None
        if len(group) > 1:
            groups.append(sorted(group))
    try:
        return make(slots, len(exams), groups)
    except NoSolution as error:
        named = ", ".join(repr(exams[member]) for member in error.members[:8])
        more = " ..." if len(error.members) > 8 else ""
        raise CannotAnswer(
            f"there is no timetable: the {len(error.members)} exams {named}{more} clash with each other, and the slots"
            f" are {slots} in number"
        ) from None


@specialist(verify=is_timetable, sound=True, complete=True, timeout=5.0, steps="auto")
async def timetable(
    exams: Annotated[
        list[Exam], Field(min_length=1, max_length=MOST_VARIABLES, description="names of the exams, each once")
    ],
    students: Annotated[
        list[list[Exam]], Field(max_length=100_000, description="for each student, the names of the exams they take")
    ],
    slots: Annotated[int, Field(ge=1, le=MOST_VALUES, description="how many time slots there are")],
    *,
    effort: Effort,
) -> Answer[dict[str, int]]:
    """Place exams in time slots so that no student has two exams at the same time.

    The answer gives each exam its slot, from 0 to slots - 1. Any double booking is such a question: shifts and the
    people who work them, meetings and those who attend.
    """
    answer = await think(pose(exams, students, slots), effort)
    return Answer(dict(zip(exams, answer.value, strict=True)), confidence=answer.confidence, steps=answer.steps)
