"""The plan over an inbox, run as a newcomer runs it: as a program, in an empty folder, with no key."""

from __future__ import annotations

from pathlib import Path

from .test_programs import run


def test_what_fails_is_planned_around_and_nothing_is_done_twice(tmp_path: Path) -> None:
    ended = run("planned.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "It is no language model" in ended.stdout
    assert "\u2717 read4: message(number=4) -> message: ValueError: message 4 is empty" in ended.stdout
    assert "plan 2, after a failure: 7 of 7 steps" in ended.stdout
    assert "route1: intent(text=#1) -> as before" in ended.stdout
    assert "1 x report_lost_card, 1 x balance, 1 x play_music" in ended.stdout
    assert "intent                 3 x" in ended.stdout, "each message is routed once"


def test_the_built_in_planner_plans_too(tmp_path: Path) -> None:
    request = "Route this customer message: 'I lost my wallet, please block my card'"
    ended = run("planned.py", "--planner", request, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "report_lost_card" in ended.stdout
    assert "plan: 1 of 1 steps" in ended.stdout
