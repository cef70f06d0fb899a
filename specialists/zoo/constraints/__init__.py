"""Gives every variable a value so that no two of a group are equal; every answer is checked by the rules.

Other bundled specialists that are such problems in other words (see their cards) ask the network through ``think``.
"""

from .problem import BOXES, MOST_VALUES, MOST_VARIABLES, NoSolution, Problem, make, sudoku_groups
from .reasoner import Limits, Reasoner, reason
from .solver import constraints, model, scheduler, think

__all__ = [
    "BOXES",
    "MOST_VALUES",
    "MOST_VARIABLES",
    "Limits",
    "NoSolution",
    "Problem",
    "Reasoner",
    "constraints",
    "make",
    "model",
    "reason",
    "scheduler",
    "sudoku_groups",
    "think",
]
