"""The proof-style check, run as a newcomer runs it: as a program, in an empty folder, with no key."""

from __future__ import annotations

import re
from pathlib import Path

from .test_programs import run


def test_what_is_proved_is_booked_rightly_and_the_rest_left_to_a_person(tmp_path: Path) -> None:
    ended = run("proved.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "It is no language model" in ended.stdout
    counts = {
        found[1]: tuple(map(int, found.groups()[1:4]))
        for found in re.finditer(
            r"^(one answer|proved) +(\d+) booked rightly, (\d+) wrongly, (\d+) left", ended.stdout, re.M
        )
    }
    assert counts["one answer"][2] == 0
    assert sum(counts["proved"]) == sum(counts["one answer"]) == 40
    assert counts["proved"][1] < counts["one answer"][1]
    assert counts["proved"][0] > 20
    assert "calls of at most 21" in ended.stdout


def test_an_endpoint_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    ended = run("proved.py", "--invoices", "1", cwd=tmp_path, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert ended.returncode == 0, "nothing was booked, and everything is left to a person"
    assert "0 booked rightly, 0 wrongly, 1 left to a person" in ended.stdout
