"""The benchmarks run, and print what machines can read. What they measure is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_certificates_hold_in_a_few_worlds(tmp_path: Path) -> None:
    picture = tmp_path / "certificates.svg"
    done = run("certificates", "--worlds", "10", "--json", "--picture", str(picture))
    assert done.returncode in (0, 1), done.stderr  # ten worlds prove nothing
    told = json.loads(done.stdout)
    assert done.returncode == bool(told["broken"])
    shapes = {row["shape"]: row for row in told["worlds"]}
    assert {"smooth", "near-sound check", "useless score"} < set(shapes)
    assert shapes["near-sound check"]["oracle"] == pytest.approx(0.65)
    assert shapes["useless score"]["oracle"] == 0
    for row in shapes.values():
        assert row["worlds"] == 10
        assert row["broken_low"] <= row["broken"] <= row["broken_high"]
        assert row["broken"] <= row["issued"]
    assert told["splits"] == []
    assert "naive threshold" in picture.read_text("utf-8")


def test_a_cascade_is_compared_on_the_same_cases(tmp_path: Path) -> None:
    picture = tmp_path / "cascade.svg"
    done = run("cascade", "--quick", "--json", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    (compared,) = json.loads(done.stdout)["compared"]
    assert compared["big_model"] == "simulated"
    policies = compared["policies"]
    assert next(iter(policies)) == "always big"
    assert list(policies)[-1] == "oracle"
    for name, figures in policies.items():
        assert 0 <= figures["coverage"]["mean"] <= 1, name
        assert figures["recovered_100"]["mean"] <= 1.05, name
        assert figures["accuracy_1"]["mean"] == pytest.approx(  # only what is wrongly accepted is wrong
            1 - figures["coverage"]["mean"] * figures["wrong_accepts"]["mean"], abs=0.005
        )
    assert policies["always big"]["recovered_100"]["mean"] == 0
    assert policies["oracle"]["recovered_100"]["mean"] == pytest.approx(1)
    assert "big model simulated" in picture.read_text("utf-8")


def test_the_truth_of_a_world_is_what_is_counted_in_it() -> None:
    """Every shape, under a policy with a floor everywhere, against a large sample that is walked case by case."""
    from dataclasses import replace

    import numpy as np

    from specialists.ladder import Floors
    from specialists.thresholds import walk
    from tests.benchmarks.certificates import ATTACKS, PROMISED

    floors = Floors(0.3, 0.6, 0.9)
    for world in (*PROMISED, *ATTACKS):
        rungs = replace(world, cases=100_000).draw(np.random.default_rng(1))
        truth = world.truth({rung.name: floors for rung in rungs})
        end = walk(rungs, np.array([[0.3, 0.6, 0.9]] * len(rungs)))
        accepted = int(end.accepted.sum())
        assert accepted / 100_000 == pytest.approx(truth.coverage, abs=0.01), world.name
        if accepted:
            assert end.wrong.sum() / accepted == pytest.approx(truth.risk, abs=0.006), world.name
        by_floor = end.accepted & ~end.proven
        if by_floor.sum() > 1_000:
            assert end.wrong[by_floor].mean() == pytest.approx(truth.risk_by_floor, abs=0.04), world.name


def test_the_ledger_is_measured_beside_a_bare_transaction() -> None:
    done = run("ledger", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["measure"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["durable commit of a step"]["target"] == 2.0
    assert rows["durable commit of a step"]["value"] > 0
    assert rows["CPU that the ledger in memory adds"]["value"] > 0
    assert all(row["against"] for row in rows.values())


def test_thinking_shows_accuracy_beside_money_and_calls(tmp_path: Path) -> None:
    picture = tmp_path / "thinking.svg"
    done = run("thinking", "decompose", "compare", "--quick", "--json", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["parts"]) == {"decompose", "compare"}
    for part in told["parts"].values():
        assert part["seeds"]
        assert part["model"]
        for row in part["rows"]:
            assert 0 <= row["accuracy"] <= 1
            assert row["calls per question"] > 0
            assert float(row["money per question"]) > 0
    budget = float(told["parts"]["compare"]["budget a question"])
    assert all(float(row["dearest"]) <= budget for row in told["parts"]["compare"]["rows"])
    assert "accuracy" in picture.read_text("utf-8")


def test_thinking_refuses_a_part_that_there_is_not() -> None:
    done = run("thinking", "guessing")
    assert done.returncode == 2
    assert "there is no part 'guessing'" in done.stderr
