"""The benchmarks run, and print what machines can read. What they measure is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_start_prints_rows_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.start", "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["benchmark"] == "start"
    assert told["machine"]
    rows = {row["measure"]: row for row in told["rows"]}
    assert len(rows) == len(told["rows"]) == 7
    for row in rows.values():
        assert set(row) == {"measure", "value", "unit", "target", "better", "against", "note", "met"}
        assert row["value"] > 0
        assert row["against"], "each figure stands beside its limit"
    first = [row for row in rows.values() if row["target"] is not None]
    assert [row["target"] for row in first] == [1.0, 1.0]
