"""A new folder works before anything is filled in, by path and installed; no name may hide another."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import specialists
from specialists import ScaffoldError
from specialists.card import listed_files, verify_files
from specialists.checking import check
from specialists.scaffold import TEMPLATE, check_name, create


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "root_finder")
    return tmp_path / "root_finder"


def test_a_new_folder_is_sealed_and_passes_its_check(folder: Path) -> None:
    card = specialists.read_card(folder)
    verify_files(folder, card)
    assert card.name == "root_finder"
    report = check(folder, trust=True)
    assert report.passed, report.findings


def test_it_can_be_loaded_by_path_and_proves_its_answers(folder: Path) -> None:
    found = specialists.load(folder, trust=True)
    outcome = found.solve_sync(b=-5, c=6)
    assert outcome.value in (2, 3)
    assert outcome.accepted_by == "verified"
    assert not found.solve_sync(b=0, c=1).accepted


def test_nothing_of_the_template_is_left_unfilled(folder: Path) -> None:
    files = {*listed_files(folder), "specialist.toml", "README.md"}
    assert len(files) == sum(1 for _ in TEMPLATE.iterdir())
    for name in files - {"model.onnx"}:
        assert "{{" not in (folder / name).read_text("utf-8"), name
    assert (folder / "model.onnx").stat().st_size < 20_000
    for name in ("specialist.py", "specialist.toml", "README.md"):
        assert "FILL IN" in (folder / name).read_text("utf-8")


def test_its_own_tests_pass(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_it_is_known_by_its_name(folder: Path, tmp_path: Path) -> None:
    """As ``pip install`` lays it out: the wheel's own rules for files and entry points, without a network."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["specialists"] == {"root_finder": "root_finder"}
    assert project["tool"]["setuptools"]["package-dir"] == {"root_finder": "."}
    patterns = [*project["tool"]["setuptools"]["package-data"]["root_finder"], "*.py"]
    site = tmp_path / "site"
    package, info = site / "root_finder", site / "specialist_root_finder-0.1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for pattern in patterns:
        for path in folder.glob(pattern):
            (package / path.name).write_bytes(path.read_bytes())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: specialist-root-finder\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[specialists]\nroot_finder = root_finder\n")
    code = (
        "import specialists; s = specialists.load('root_finder');"
        "print(specialists.names()['root_finder'], s.solve_sync(b=-5, c=6).accepted_by)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=site, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["specialist-root-finder", "verified"], done.stderr


def test_a_folder_that_is_there_is_left_alone(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(ScaffoldError, match="is there already"):
        create(folder)
    assert sorted(folder.iterdir()) == before


def test_half_a_folder_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("specialists.scaffold.seal", fail)
    with pytest.raises(OSError, match="No space"):
        create(tmp_path / "root_finder")
    assert not (tmp_path / "root_finder").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "lower-case letters"),
        ("..", "lower-case letters"),
        ("Invoice", "lower-case letters"),
        ("two-words", "lower-case letters"),
        ("ends_", "lower-case letters"),
        ("dou__ble", "lower-case letters"),
        ("9lives", "lower-case letters"),
        ("é", "lower-case letters"),
        ("x" * 65, "lower-case letters"),
        ("class", "word of the Python language"),
        ("match", "word of the Python language"),
        ("list", "would hide"),
        ("specialist", "would hide"),
        ("json", "an installed Python module"),
        ("numpy", "an installed Python module"),
        ("brain", "an installed Python module"),
    ],
)
def test_a_name_that_is_no_good_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ScaffoldError, match=why):
        check_name(name)


def test_a_known_specialists_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specialists.scaffold.names", lambda: {"invoice": "acme-invoice"})
    with pytest.raises(ScaffoldError, match=r"known already \(acme-invoice\)"):
        check_name("invoice")


def test_the_model_is_the_one_that_its_script_makes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import numpy as np

    from specialists import OnnxModel
    from specialists.training.template_model import equations, export, train

    coefficients, labels = equations()
    export(train(coefficients, labels), tmp_path / "again.onnx")
    inputs = {"coefficients": coefficients.astype(np.float32)}
    again = OnnxModel(tmp_path / "again.onnx").run_sync(**inputs)["logits"]
    shipped = OnnxModel(TEMPLATE / "model.onnx").run_sync(**inputs)["logits"]
    assert (shipped.argmax(axis=1) == labels).all()
    # Another machine's arithmetic may differ in the last digits, and training carries that on.
    assert (again.argmax(axis=1) == labels).mean() > 0.97
