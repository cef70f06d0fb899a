"""Makes the problems that `constraints` learns from and is measured with: Sudokus, Latin squares, timetables.

It knows nothing of networks. Every problem is planted: a full solution comes first, and what is given, allowed or in
conflict is chosen so that it holds. Each function draws from the generator that it is handed: a seed makes a problem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from specialists.training import sudoku_puzzles
from specialists.zoo.constraints.generating import first_latin, first_sudoku, latin_groups, stirred
from specialists.zoo.constraints.problem import Problem, make, sudoku_groups
from specialists.zoo.timetable.generating import Timetable, timetable

__all__ = ["Made", "Timetable", "colouring", "latin_square", "random_sudoku", "solutions", "sudoku", "timetable"]

Groups = Sequence[Sequence[int]]


class Made(NamedTuple):
    """A problem with the solution it was made from. ``unique``: it has no other one."""

    problem: Problem
    solution: list[int]
    unique: bool


def random_sudoku(rng: random.Random) -> sudoku_puzzles.Puzzle:
    """A minimal random 9x9 Sudoku: clues of a random full grid removed in random order until none can go."""
    return sudoku_puzzles.random_puzzle(rng)


def from_clues(clues: str, solution: str) -> Made:
    """A 9x9 Sudoku with one solution, both as 81 characters."""
    given = {cell: int(mark) - 1 for cell, mark in enumerate(clues) if mark not in ".0"}
    return Made(_posed(9, 81, sudoku_groups(9), given), [int(mark) - 1 for mark in solution], True)


def sudoku(side: int, rng: random.Random) -> Made:
    """A Sudoku of 4x4, 6x6 (minimal, one solution) or 16x16 (45 to 70 % given, often with several)."""
    groups = sudoku_groups(side)
    solution = stirred(first_sudoku(side), groups, side, rng)
    if side > 9:
        share = rng.uniform(0.45, 0.7)
        given = {cell: solution[cell] for cell in rng.sample(range(side * side), round(share * side * side))}
        return Made(_posed(side, side * side, groups, given), solution, False)
    given = dict(enumerate(solution))
    for cell in rng.sample(range(side * side), side * side):
        value = given.pop(cell)
        if len(list(solutions(side, side * side, groups, given, 2))) > 1:
            given[cell] = value
    return Made(_posed(side, side * side, groups, given), solution, True)


def latin_square(side: int, share: float, rng: random.Random) -> Made:
    """A Latin square of ``side`` rows with so great a ``share`` of its cells given; mostly with several solutions."""
    groups = latin_groups(side)
    solution = stirred(first_latin(side), groups, side, rng)
    given = {cell: solution[cell] for cell in rng.sample(range(side * side), round(share * side * side))}
    return Made(_posed(side, side * side, groups, given), solution, False)


def colouring(
    variables: int, values: int, density: float, rng: random.Random, given: float = 0.0, narrow: float = 0.0
) -> Made:
    """A planted graph colouring as conflicting pairs, density as in :func:`timetable`.

    ``given``: the share of variables whose planted value is given. ``narrow``: the share of variables that may have
    only some values, the planted one among them.
    """
    made = timetable(variables, values, density, rng)
    place = {name: index for index, name in enumerate(made.exams)}
    groups = [[place[name] for name in student] for student in made.students]
    fixed = {v: made.planted[v] for v in range(variables) if rng.random() < given}
    allowed = {}
    for v in range(variables):
        if v not in fixed and rng.random() < narrow:
            some = set(rng.sample(range(values), rng.randint(1, values))) | {made.planted[v]}
            allowed[v] = sorted(some)
    return Made(make(values, variables, groups, fixed, allowed), made.planted, False)


def solutions(values: int, variables: int, groups: Groups, given: dict[int, int], most: int) -> Iterator[list[int]]:
    """Yields up to ``most`` solutions by plain search, smallest domain first. For making small puzzles only."""
    peers: list[set[int]] = [set() for _ in range(variables)]
    for group in groups:
        for v in group:
            peers[v] |= set(group) - {v}
    stack = [[(1 << values) - 1] * variables]
    for v, value in given.items():
        for peer in peers[v]:
            stack[0][peer] &= ~(1 << value)
    for v, value in given.items():
        stack[0][v] &= 1 << value
    fixed = [set(given)]
    found = 0
    while stack and found < most:
        domains, done = stack.pop(), fixed.pop()
        if 0 in domains:
            continue
        if len(done) == variables:
            found += 1
            yield [domain.bit_length() - 1 for domain in domains]
            continue
        v = min((v for v in range(variables) if v not in done), key=lambda v: domains[v].bit_count())
        for value in range(values):
            if domains[v] >> value & 1:
                child = list(domains)
                child[v] = 1 << value
                for peer in peers[v] - done:
                    child[peer] &= ~(1 << value)
                stack.append(child)
                fixed.append(done | {v})


def _posed(values: int, variables: int, groups: Groups, given: dict[int, int]) -> Problem:
    return make(values, variables, groups, given, {})
