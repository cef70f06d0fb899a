"""Makes timetables for calibration, and for the recipe to learn from: planted, so that each of them can be done.

It knows nothing of networks. Each function draws from the generator that it is handed: a seed makes a timetable.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

__all__ = ["Timetable", "generate", "timetable"]

EXAMS = (10, 60)
SLOTS = (4, 9)
DENSITY = (0.1, 0.35)


class Timetable(NamedTuple):
    """A planted timetable as its front door takes it, and the slot of each exam that it was made from."""

    exams: list[str]
    students: list[list[str]]
    slots: int
    planted: list[int]


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Endless cases, independent draws of one distribution, the same for the same seed.

    From easy to hard: 10 to 60 exams, 4 to 9 slots, and students of two to five exams each who make 10 to 35 % of all
    pairs of exams conflict (or fewer, where more of the planted slots are the same); each drawn uniformly.
    ``expected`` is the planted timetable, mostly one of several.
    """
    rng = random.Random(f"calibrate timetable {seed}")
    while True:
        made = timetable(rng.randint(*EXAMS), rng.randint(*SLOTS), rng.uniform(*DENSITY), rng)
        yield {
            "input": {"exams": made.exams, "students": made.students, "slots": made.slots},
            "expected": dict(zip(made.exams, made.planted, strict=True)),
        }


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
