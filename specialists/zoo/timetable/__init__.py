"""Places exams in time slots so that nobody sits two at once; every answer is checked by the rules."""

from .solver import timetable

__all__ = ["timetable"]
