"""A school week too large for one call: a model splits it, a specialist answers the parts, code checks the whole.

    pip install .[cpu,dev]
    python examples/split_timetable.py

The 1,050 lessons of a week, in `split_timetable_lessons.csv`, each have a class, a teacher and a room. They are more
than the bundled specialist `timetable` takes, and the periods of a week are more than it has slots. So a model is asked
to split the task; each part that names a day goes to the specialist, with that day's lessons; what comes back is put
together by a function, and checked by the school's own rules. The model never sees a lesson.

Without OPENAI_API_KEY the model is a simulated one, at a test endpoint on this machine: no key, no network, a made-up
price. With a key it is the model given by --model:

    OPENAI_API_KEY=... python examples/split_timetable.py --model openai:gpt-4.1-mini

Try --periods 6 (a tighter day), --periods 3 (which cannot be: the parts have no answer, and nothing is invented) and
--usd 0.00001 (too little: refused before anything is sent, and what there is of the answer is in the report).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brain import BrainError, Budget, ChatModel, Ledger, OpenAIModel, Price
from brain.asking import Asker, Query, Solution
from brain.scaling import asker
from brain.scaling.decomposing import decompose
from brain.testing import FakeEndpoint, SimulatedModel
from specialists import InvalidArguments, Verdict, load

LESSONS = Path(__file__).parent / "split_timetable_lessons.csv"


@dataclass(frozen=True)
class Lesson:
    day: str
    name: str
    needs: tuple[str, str, str]
    """Its class, its teacher and its room: none of them can be in two lessons at once."""


def read(path: Path) -> list[Lesson]:
    """The lessons of a file. A class has a subject at most once a day, which is what a lesson is called by."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Lesson(
                row["day"],
                f"{row['class']} {row['subject']}",
                (f"class {row['class']}", f"teacher {row['teacher']}", row["room"]),
            )
            for row in csv.DictReader(file)
        ]


def as_arguments(lessons: list[Lesson], periods: int) -> dict[str, Any]:
    """The lessons as a question to `timetable`: whatever cannot be twice at once is one of its students."""
    taken: dict[str, list[str]] = defaultdict(list)
    for lesson in lessons:
        for need in lesson.needs:
            taken[need].append(lesson.name)
    students = sorted({tuple(sorted(names)) for names in taken.values() if len(names) > 1})
    return {"exams": [each.name for each in lessons], "students": [list(each) for each in students], "slots": periods}


def is_week(lessons: list[Lesson], periods: int, week: Mapping[str, Mapping[str, int]]) -> Verdict:
    """The school's rules, read off the lessons themselves and not off what the specialist was asked."""
    busy: dict[tuple[str, int, str], str] = {}
    for lesson in lessons:
        period = week.get(lesson.day, {}).get(lesson.name)
        if type(period) is not int or not 0 <= period < periods:
            return Verdict.failed(f"{lesson.name} on {lesson.day} has no period of 0 to {periods - 1}")
        for need in lesson.needs:
            other = busy.setdefault((lesson.day, period, need), lesson.name)
            if other != lesson.name:
                return Verdict.failed(f"{need} has {other} and {lesson.name} at once on {lesson.day}")
    placed = sum(len(day) for day in week.values())
    return Verdict.passed() if placed == len(lessons) else Verdict.failed(f"{placed} lessons are placed")


class Day(Asker):
    """Whoever answers for one day: the specialist, asked by the day's lessons in place of the words of the task."""

    def __init__(self, lessons: list[Lesson], periods: int) -> None:
        self._specialist = asker(load("timetable"))
        self._text = json.dumps(as_arguments(lessons, periods), ensure_ascii=False)

    @property
    def name(self) -> str:
        return self._specialist.name

    async def ask(self, query: Query) -> Solution[Any]:
        return await self._specialist.ask(replace(query, text=self._text))


def simulated(days: list[str]) -> SimulatedModel:
    """Splits a week by its days; no language model."""
    return SimulatedModel(
        solve=lambda _: {},
        splitter=lambda task: [{"id": day, "task": f"Place the lessons of {day}", "type": "object"} for day in days],
        price=Price("0.40", "1.60"),
        name="simulated",
    )


def model_of(name: str, days: list[str], stack: ExitStack) -> ChatModel | str:
    """The named model where there is a key, else a simulated one at the local test endpoint."""
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        print(f"asking {name} to split the week")
        return name
    endpoint = stack.enter_context(FakeEndpoint(simulated(days), models=("simulated",)))
    print("OPENAI_API_KEY is not set: the model is a simulated one, at a test endpoint on this machine")
    price = Price("0.40", "1.60")  # US dollars per million tokens, made up
    return OpenAIModel("simulated", base_url=endpoint.base_url, api_key=endpoint.api_key, price=price)


def solve(lessons: list[Lesson], periods: int, name: str, usd: str) -> int:
    """Split, answer, put together, check. The exit status."""
    days = {day: [each for each in lessons if each.day == day] for day in dict.fromkeys(each.day for each in lessons)}
    askers = {day: Day(of_day, periods) for day, of_day in days.items()}

    def route(task: str) -> Asker | None:
        named = [day for day in days if day.casefold() in task.casefold()]
        return askers[named[0]] if len(named) == 1 else None

    def put_together(text: str) -> dict[str, Any]:
        parts = json.loads(text)["parts"]
        return {day: part["answer"] for part in parts for day in days if day.casefold() in part["task"].casefold()}

    question = (
        "Make the timetable of a school week: give each lesson a period of its day. The lessons are kept by day, and"
        f" whoever answers a part that names one day has them at hand. The days are {', '.join(days)}. Make one part"
        " of each day, whose task names that day and no other, and whose answer is an object."
    )
    ledger = Ledger()
    with ExitStack() as stack:
        by = decompose(
            model_of(name, list(days), stack),
            parts=route,
            combine=put_together,
            depth=1,
            fan_out=len(days),
            answer_limit=1_000_000,  # the function reads whole answers
        )
        solution = by.solve_sync(
            question, output_type=dict[str, dict[str, int]], ledger=ledger, budget=Budget(usd=usd), timeout=120
        )
    print(f"\n{solution.report}\n\n{solution.usage}\n")
    if not solution.answered:
        print(f"no timetable: {solution.reason}")
        return 1
    verdict = is_week(lessons, periods, solution.unwrap())
    print(f"{len(lessons)} lessons in {periods} periods a day; the school's rules: {verdict.status}")
    if verdict.reason is not None:
        print(verdict.reason)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="openai:gpt-4.1-mini", help="which model splits, where there is a key")
    parser.add_argument("--periods", type=int, default=8, help="periods of a day (default: %(default)s)")
    parser.add_argument("--usd", default="0.50", help="US dollars that it may spend (default: %(default)s)")
    parsed = parser.parse_args()
    lessons = read(LESSONS)
    timetable = load("timetable")
    try:
        whole = as_arguments([replace(each, name=f"{each.day} {each.name}") for each in lessons], 5 * parsed.periods)
        outcome = timetable.solve_sync(**whole)
        print(f"the week in one call: {outcome.value or outcome.reason}")
    except InvalidArguments as error:
        print(f"the week in one call is no question to the specialist: {error.problems[0]}")
    try:
        return solve(lessons, parsed.periods, parsed.model, parsed.usd)
    except BrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
