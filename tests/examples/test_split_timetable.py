"""The week that is split, as a newcomer runs it."""

from __future__ import annotations

from pathlib import Path

from examples.split_timetable import LESSONS, is_week, read
from tests.examples.test_programs import run


def test_a_week_is_split_answered_and_checked(tmp_path: Path) -> None:
    ended = run("split_timetable.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "the week in one call is no question to the specialist: exams list should have at most 1024" in ended.stdout
    assert "5 parts answered, 0 open; 7 calls" in ended.stdout
    assert "├─ Monday: Place the lessons of Monday (object) -> {" in ended.stdout
    assert "1050 lessons in 8 periods a day; the school's rules: passed" in ended.stdout


def test_a_week_that_cannot_be_has_no_timetable(tmp_path: Path) -> None:
    ended = run("split_timetable.py", "--periods", "3", cwd=tmp_path)
    assert ended.returncode == 1
    assert "0 parts answered, 5 open" in ended.stdout
    assert "no timetable: 5 of 5 parts have no answer; 'Monday': " in ended.stdout


def test_too_little_money_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    ended = run("split_timetable.py", "--usd", "0.00001", cwd=tmp_path)
    assert ended.returncode == 1
    assert "0 parts answered, 1 open; 0 calls, $0\nstopped: the budget of $0.00001" in ended.stdout


def test_the_schools_rules_find_what_is_wrong() -> None:
    lessons = read(LESSONS)
    monday = [each for each in lessons if each.day == "Monday"]
    one_each = {each.name: place for place, each in enumerate(monday)}
    assert is_week(monday, len(monday), {"Monday": one_each}).status == "passed"
    assert "at once on Monday" in str(is_week(monday, 8, {"Monday": dict.fromkeys(one_each, 0)}).reason)
    assert "has no period" in str(is_week(monday, len(monday), {}).reason)
    assert "are placed" in str(is_week(monday, len(monday), {"Monday": {**one_each, "else": 0}}).reason)
