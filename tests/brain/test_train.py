"""``brain specialists train`` before anything is trained: what it teaches, and one sentence for what it cannot use."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from brain import cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    good = "".join(f"{label}\t{label} number {n} {'x' * n}\n" for n in range(10) for label in ("glad", "sad"))
    (tmp_path / "good.tsv").write_text(good, "utf-8")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """The one sentence on stderr; nothing was printed, and no folder was made."""
    assert cli.main(["specialists", "train", "text-classifier", *words]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert err.startswith("brain: ")
    assert "Traceback" not in err
    return err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["specialists", "train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "text-classifier" in out
    assert "brain specialists train text-classifier" in out.split("example:")[1]
    assert cli.main(["specialists", "train"]) == 0
    assert cli.main(["specialists", "train", "text-classifier", "--help"]) == 0
    out = capsys.readouterr().out
    for said in ("<TAB>", "--encoder", "--resume", "--out-of-scope", "examples:", "brain specialists check"):
        assert said in out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "glad\tso happy\nhappy too\n",
            "bad.tsv, line 2: there is no tab between label and text; each line is a label",
        ),
        ("glad\tso happy\n\tday\n", "bad.tsv, line 2: the text has no label; put one before the tab"),
        ("glad\tso happy\nglad\thappy day\n", "every row has the label 'glad'; a classifier needs two labels or more"),
        ("glad\tso happy\nglad\thappy day\nsad\tawful\n", "bad.tsv, line 3: the label 'sad' is seen once"),
        ("glad\tso happy\nglad\thappy day\nsad\tawful\nsad\tAwful\n", "line 3: the label 'sad' is seen once"),
        ("glad\ta\nglad\tb\nsad\tc\nsad\td\n", "bad.tsv has 4 different texts in scope, too few"),
        ("", "bad.tsv holds no rows"),
    ],
    ids=range(7),
)
def test_data_that_cannot_be_learned(here: Path, capsys: pytest.CaptureFixture[str], content: str, says: str) -> None:
    (here / "bad.tsv").write_text(content, "utf-8")
    assert says in refused(capsys, "--data", "bad.tsv", "--out", "made")
    assert not (here / "made").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "made"], "--data"),
        (["--data", "good.tsv"], "--out"),
        (["--data", "none.tsv", "--out", "made"], "'none.tsv' cannot be used: no such file"),
        (["--data", ".", "--out", "made"], ". is a folder; name a file"),
        (["--data", "good.tsv", "--out", "made", "--seed", "-1"], "is not a whole number"),
        (["--data", "good.tsv", "--out", "made", "--minutes", "nan"], "is not a positive number of minutes"),
        (["--data", "good.tsv", "--out", "made", "--epochs", "0"], "is not a whole number"),
        (["--data", "good.tsv", "--out", "made", "--name", "No Name"], "'No Name' cannot be a specialist's name"),
        (["--data", "good.tsv", "--out", "made", "--resume", "--force"], "not allowed with"),
        (["--data", "good.tsv", "--out", "made", "--cases", "good.tsv"], "good.tsv, line 1: not JSON"),
        (["--data", "good.tsv", "--out", "made", "--fast"], "unrecognized argument '--fast'"),
    ],
    ids=range(11),
)
def test_a_wrong_use(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in refused(capsys, *words)
    assert not (here / "made").exists()


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_a_missing_package_is_named_with_the_extra(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for each in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, each, None if each == package else sys)
    said = refused(capsys, "--data", "good.tsv", "--out", "made", code=1)
    assert f"needs the package {package}, which is not installed; run `pip install 'brain-specialists[train]'`" in said
    assert not (here / "made").exists()


def test_a_folder_of_something_else_is_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)  # this is about what comes before
    (here / "made").mkdir()
    (here / "made" / "letter.txt").write_text("dear")
    for more in ([], ["--force"], ["--resume"]):
        said = refused(capsys, "--data", "good.tsv", "--out", "made", *more)
        assert "the folder 'made' holds 'letter.txt' and was not made by `brain specialists train" in said
    assert (here / "made" / "letter.txt").read_text() == "dear"
    (here / "made" / ".training").mkdir()
    assert "also holds 'letter.txt'" in refused(capsys, "--data", "good.tsv", "--out", "made", "--force")
    (here / "made" / "letter.txt").unlink()
    assert "--resume goes on, --force begins anew" in refused(capsys, "--data", "good.tsv", "--out", "made")
    (here / "file").write_text("")
    assert "'file' is a file; name a folder" in refused(capsys, "--data", "good.tsv", "--out", "file")


def test_the_bundled_one_says_which_command_made_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["specialists", "show", "intent", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["command"].startswith("brain specialists train text-classifier --data clinc150.train.tsv.gz ")
