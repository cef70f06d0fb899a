"""A specialist without code: what its card says, what it answers, in this process and in a child."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from specialists import CardError, InvalidArguments, ModelFailed, ModelRejected, OnnxModel, UntrustedFolder, load
from specialists.card import CARD, read_card, seal
from specialists.isolation import IsolatedModel
from specialists.registry import find
from specialists.tasks import from_card, read_labels

from .folders import CARD_OF_TASK, of_task

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return of_task(tmp_path / "mood")


@pytest.mark.parametrize("trust", [True, pytest.param(False, marks=on_linux)])
async def test_it_answers_checks_and_abstains(folder: Path, trust: bool) -> None:
    s = load(folder, trust=trust)
    for text, label in (("so very happy", "glad"), ("an awful day", "sad")):
        outcome = await s.solve(text)
        assert outcome.value.label == label
        assert outcome.accepted_by == "confident"
    assert (await s.solve("a stone")).accepted_by is None
    for wrong in ("", 7, None, "\ud800"):
        with pytest.raises(InvalidArguments):
            await s.solve(wrong)


def test_its_schema_names_the_labels_and_its_card_the_rest(folder: Path) -> None:
    s = load(folder, trust=True)
    assert s.name == "mood"
    assert s.description == "Says whether a text is glad or sad."
    assert s.parameters["properties"]["text"] == {
        "type": "string", "minLength": 1, "description": "The text to classify, as it was written.",
    }  # fmt: skip
    assert s.returns["properties"]["label"]["enum"] == ["glad", "sad", "other"]
    assert (s.min_confidence, s.timeout, s.sound, s.complete) == (0.6, 5.0, False, True)


async def test_what_is_no_label_fails_whoever_says_it(folder: Path) -> None:
    s = load(folder, trust=True)
    assert s.verify is not None
    assert s.verify({}, s.answers.validate_python({"label": "glad"})).status == "passed"
    verdict = s.verify({}, s.answers.validate_python({"label": "furious"}))
    assert (verdict.status, verdict.reason) == ("failed", "'furious' is not one of the 3 labels")


@on_linux
def test_where_its_model_runs_is_a_matter_of_trust(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_of(load(folder, trust=True)) is OnnxModel
    assert model_of(load(folder)) is IsolatedModel
    assert load(folder) is load(folder)
    assert load(folder) is not load(folder, trust=True)
    monkeypatch.setattr(sys, "platform", "darwin")
    gc.collect()
    with pytest.raises(UntrustedFolder, match=r"darwin does not enforce.*trust=True \(--trust"):
        load(folder)
    assert load(folder, trust=True).name == "mood"


def model_of(s: object) -> type:
    closure = s.function.__closure__  # type: ignore[attr-defined]
    return next(type(cell.cell_contents) for cell in closure if hasattr(cell.cell_contents, "run"))


@on_linux
def test_python_in_such_a_folder_is_never_imported(folder: Path) -> None:
    (folder / "__init__.py").write_text("raise SystemExit('never run')")
    (folder / "mood.py").write_text("raise SystemExit('never run')")
    seal(folder)
    for trust in (False, True):
        assert load(folder, trust=trust).solve_sync("happy").value.label == "glad"


def test_a_change_that_is_sealed_is_loaded_anew(folder: Path) -> None:
    first = load(folder, trust=True)
    assert load(folder, trust=True) is first
    (folder / "labels.txt").write_text("good\nbad\nother\n")
    with pytest.raises(ModelRejected, match=r"'labels.txt' is not the file the card names"):
        load(folder, trust=True)
    seal(folder)
    assert load(folder, trust=True).solve_sync("happy").value.label == "good"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('task = "text-classification"', 'task = "mind-reading"', "task"),
        ('task = "text-classification"', "", "either function = ... or task"),
        ('task = "text-classification"', 'task = "text-classification"\nfunction = "a:b"', "either function"),
        ('task = "text-classification"', 'function = "a:b"', r"\[text_classification\] wants task"),
        ('task = "text-classification"', 'task = "text-classification"\ncorrect = "a:b"', "has no code"),
        ('[text_classification]\nfeatures = "hashed-ngrams"\nmin_confidence = 0.6\n', "", "wants the table"),
        ("min_confidence = 0.6", "", "min_confidence is missing"),
        ("min_confidence = 0.6", "min_confidence = 60", "min_confidence"),
        ("min_confidence = 0.6", "min_confidence = nan", "min_confidence"),
        ("min_confidence = 0.6", "min_confidence = 0.6\ntimeout = 0", "timeout"),
        ("hashed-ngrams", "tea-leaves", "features"),
        ("min_confidence = 0.6", 'min_confidence = 0.6\nmodel = "../model.onnx"', "the name of a file in the folder"),
        ("min_confidence = 0.6", 'min_confidence = 0.6\nlabels = "/etc/passwd"', "the name of a file in the folder"),
        ("min_confidence = 0.6", 'min_confidence = 0.6\nlabels = "a\\\\b"', "the name of a file in the folder"),
        ("min_confidence = 0.6", "min_confidence = 0.6\nmind = 1", "mind is not a parameter"),
    ],
    ids=range(15),
)
def test_a_card_that_does_not_say_it_is_refused(folder: Path, old: str, new: str, says: str) -> None:
    text = (folder / CARD).read_text()
    assert old in text
    (folder / CARD).write_text(text.replace(old, new))
    with pytest.raises(CardError, match=says) as caught:
        read_card(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (b"", "has 0 labels"),
        (b"glad\n", "has 1 labels"),
        (b"glad\nsad\nglad\n", "a label twice"),
        (b"glad\n\xff\xfe\n", "is not UTF-8"),
        (b"glad\nsad\n" + b"x" * 201, "is no label"),
        (b"glad\ns\x1b[31mad\n", "is no label"),
        (b"\n".join(b"%d" % n for n in range(10_001)), "has 10001 labels"),
        (b"x" * (4 * 2**20 + 1), "more than the 4,194,304 allowed"),
        (None, "cannot be read"),
    ],
    ids=range(9),
)
def test_labels_that_cannot_be_used_are_refused(folder: Path, labels: bytes | None, says: str) -> None:
    if labels is None:
        (folder / "labels.txt").unlink()
    else:
        (folder / "labels.txt").write_bytes(labels)
    seal(folder)
    with pytest.raises(CardError, match=says):
        load(folder, trust=True)


def test_labels_are_read_from_the_bytes_that_the_card_lists(folder: Path) -> None:
    card = read_card(folder)
    assert read_labels(folder, card) == ("glad", "sad", "other")
    (folder / "labels.txt").write_text("sad\nglad\nother\n")  # between the look at the folder and its use
    with pytest.raises(ModelRejected, match="is not the file the card names"):
        read_labels(folder, card)


async def test_another_number_of_labels_than_the_model_has_is_told(tmp_path: Path) -> None:
    s = load(of_task(tmp_path / "mood", labels="glad\nsad\n"), trust=True)
    with pytest.raises(ModelFailed, match=r"has the shape \[1, 3\], not \[1, 2\]"):
        await s("happy")
    other = CARD_OF_TASK + 'output = "nothing"\n'
    s = load(of_task(tmp_path / "two" / "mood", card=other), trust=True)
    with pytest.raises(ModelFailed, match="no output 'nothing'; it has probabilities"):
        await s("happy")


async def test_any_model_that_runs_will_do(folder: Path) -> None:
    import numpy as np

    class Model:
        async def run(self, /, **inputs: object) -> dict:
            return {"probabilities": np.array([[0.1, 0.2, 0.7]], np.float32)}

    s = from_card(folder, read_card(folder), Model())
    answer = await s("anything")
    assert answer.value.label == "other"
    assert answer.confidence == pytest.approx(0.7)


def test_the_bundled_one_is_of_this_kind() -> None:
    found = find("intent")
    assert found.card is not None
    assert found.card.task == "text-classification"
    assert found.correct is None
