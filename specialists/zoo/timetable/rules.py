"""The rules of an exam timetable: what a finished one must be. Sound and complete for the task.

A timetable passes if and only if each exam, and nothing else, has one of the slots, and no student has two different
exams in the same one. A question with several timetables has several right answers; each of them passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specialists import Verdict

__all__ = ["is_right", "is_timetable"]


def is_timetable(arguments: Mapping[str, Any], value: object) -> Verdict:
    """Passes ``value`` if it gives each of the exams a slot and no student of ``arguments`` two exams in one."""
    if not isinstance(value, dict):
        return Verdict.failed("the answer is not a mapping from exams to slots")
    exams, slots = arguments["exams"], arguments["slots"]
    for exam in exams:
        if exam not in value:
            return Verdict.failed(f"the exam {exam!r} has no slot")
        slot = value[exam]
        if type(slot) is not int or not 0 <= slot < slots:
            return Verdict.failed(f"the exam {exam!r} has a slot that is not one of 0 to {slots - 1}")
    more = [exam for exam in value if exam not in set(exams)]
    if more:
        return Verdict.failed(f"{more[0]!r} has a slot and is none of the exams")
    for number, taken in enumerate(arguments["students"]):
        at: dict[int, str] = {}
        for exam in taken:
            if exam not in value:
                return Verdict.failed(f"students[{number}] takes {exam!r}, which is none of the exams")
            other = at.setdefault(value[exam], exam)
            if other != exam:
                return Verdict.failed(f"students[{number}] has {other!r} and {exam!r} in the slot {value[exam]}")
    return Verdict.passed()


def is_right(arguments: Mapping[str, Any], expected: object, value: object) -> bool:
    """Whether ``value`` is a timetable without a clash: the expected one, or any other where there are several."""
    return is_timetable(arguments, value).status == "passed"
