"""Makes the problems that `constraints` learns from and is measured with: Sudokus, Latin squares, timetables.

It knows nothing of networks. Every problem is planted: a full solution comes first, and what is given, allowed or in
conflict is chosen so that it holds. Each function draws from the generator that it is handed: a seed makes a problem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from specialists.training import sudoku_puzzles
from specialists.zoo.constraints.problem import Problem, make, sudoku_groups

__all__ = ["Made", "Timetable", "colouring", "latin_square", "random_sudoku", "solutions", "sudoku", "timetable"]

Groups = Sequence[Sequence[int]]


class Made(NamedTuple):
    """A problem with the solution it was made from. ``unique``: it has no other one."""

    problem: Problem
    solution: list[int]
    unique: bool


class Timetable(NamedTuple):
    """A planted timetable as its front door takes it, and the slot of each exam that it was made from."""

    exams: list[str]
    students: list[list[str]]
    slots: int
    planted: list[int]


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
    solution = _stirred(_first_sudoku(side), groups, side, rng)
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
    groups = [[r * side + c for c in range(side)] for r in range(side)]
    groups += [[r * side + c for r in range(side)] for c in range(side)]
    solution = _stirred([(r + c) % side for r in range(side) for c in range(side)], groups, side, rng)
    given = {cell: solution[cell] for cell in rng.sample(range(side * side), round(share * side * side))}
    return Made(_posed(side, side * side, groups, given), solution, False)


def timetable(exams: int, slots: int, density: float, rng: random.Random) -> Timetable:
    """``exams`` with planted slots, and students whose exams make a share ``density`` of all pairs conflict.

    A student has two to five exams, each in another planted slot; students come until the conflicts are there.
    """
    planted = [rng.randrange(slots) for _ in range(exams)]
    names = [f"exam {number + 1}" for number in range(exams)]
    apart = [(a, b) for a, b in combinations(range(exams), 2) if planted[a] != planted[b]]
    wanted = min(round(density * exams * (exams - 1) / 2), len(apart))
    conflicts: set[tuple[int, int]] = set()
    students: list[list[str]] = []
    rng.shuffle(apart)
    for pair in apart:
        if len(conflicts) >= wanted:
            break
        if pair in conflicts:
            continue
        chosen = list(pair)
        for other in rng.sample(range(exams), rng.randint(0, 3) if exams > 4 else 0):
            new = {(min(other, one), max(other, one)) for one in chosen} - conflicts
            fits = all(planted[other] != planted[one] for one in chosen)
            if fits and len(conflicts) + len(new) + 1 <= wanted:
                chosen.append(other)
        conflicts |= set(combinations(sorted(chosen), 2))
        students.append([names[exam] for exam in chosen])
    return Timetable(names, students, slots, planted)


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


def _first_sudoku(side: int) -> list[int]:
    high = {4: 2, 6: 2, 9: 3, 16: 4}[side]
    wide = side // high
    return [(r % high * wide + r // high + c) % side for r in range(side) for c in range(side)]


def _stirred(solution: list[int], groups: Groups, values: int, rng: random.Random) -> list[int]:
    """Another solution of the same rules, reached by many swaps of two values in a connected part (Kempe's chains)."""
    found = list(solution)
    peers: list[set[int]] = [set() for _ in found]
    for group in groups:
        for v in group:
            peers[v] |= set(group) - {v}
    lines = [group for group in groups if len(group) == values]
    for turn in range(6 * values):
        one, other = rng.sample(range(values), 2)
        _swap(found, peers, one, other, rng)
        if turn % 3 == 0:
            _trade_lines(found, lines, groups, rng)
    return found


def _swap(found: list[int], peers: list[set[int]], one: int, other: int, rng: random.Random) -> None:
    start = rng.choice([v for v, value in enumerate(found) if value in (one, other)])
    part, edge = {start}, [start]
    while edge:
        v = edge.pop()
        for peer in peers[v]:
            if found[peer] in (one, other) and peer not in part:
                part.add(peer)
                edge.append(peer)
    for v in part:
        found[v] = one + other - found[v]


def _trade_lines(found: list[int], lines: Groups, groups: Groups, rng: random.Random) -> None:
    """Two parallel lines trade the cells of one cycle, where that keeps every group whole."""
    line, second = rng.sample(lines, 2)
    if set(line) & set(second):
        return
    pairs = dict(zip(line, second, strict=True))
    place = {found[cell]: cell for cell in line}
    first = cell = rng.choice(line)
    cycle: list[int] = []
    while True:
        cycle.append(cell)
        if found[pairs[cell]] not in place:
            return
        cell = place[found[pairs[cell]]]
        if cell == first:
            break
    if len(cycle) == len(line):
        return
    trial = list(found)
    for cell in cycle:
        trial[cell], trial[pairs[cell]] = found[pairs[cell]], found[cell]
    if all(len({trial[v] for v in group}) == len(group) for group in groups):
        found[:] = trial
