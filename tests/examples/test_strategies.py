"""The strategies on real invoices, run as a newcomer runs them: as a program, in an empty folder, with no key."""

from __future__ import annotations

import re
from pathlib import Path

from .test_programs import run

LINE = re.compile(
    r"^(\w+) +(\d+) of 20 right, (\d+) wrong, (\d+) not answered; ([\d.]+) calls an invoice, \$", re.MULTILINE
)


def test_each_strategy_stands_beside_one_answer(tmp_path: Path) -> None:
    ended = run("strategies.py", "--invoices", "20", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "It is no language model" in ended.stdout
    rows = {found[1]: [float(each) for each in found.groups()[1:]] for found in LINE.finditer(ended.stdout)}
    assert set(rows) == {"one", "effort", "refine", "judge", "check_steps"}
    assert rows["one"][3] == 1
    for name in ("effort", "refine", "check_steps"):
        assert rows[name][0] > rows["one"][0]
    assert rows["judge"][1] < rows["one"][1], "a judge abstains where he sees no difference"


def test_a_strategy_that_there_is_not(tmp_path: Path) -> None:
    ended = run("strategies.py", "guess", cwd=tmp_path)
    assert ended.returncode == 2
    assert "there is no strategy 'guess'" in ended.stderr
