"""The bundled router: its features, its graph on strange input, its cases, and its recipe on data made here."""

from __future__ import annotations

import json
import random
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specialists
from specialists import OnnxModel, load, read_card
from specialists import texts as features
from specialists.errors import InvalidArguments
from specialists.tasks import read_labels

FOLDER = Path(specialists.__file__).parent / "zoo" / "intent"
CASES: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "cases.jsonl").read_text("utf-8").splitlines()]

intent = load("intent")
model = OnnxModel(FOLDER / "model.onnx")
card = read_card(FOLDER)
labels = read_labels(FOLDER, card)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["input"]["text"][:40])
async def test_own_sentences_are_routed_or_left_alone(case: dict[str, Any]) -> None:
    outcome = await intent.solve(**case["input"])
    if case["expected"] is None:
        assert outcome.accepted_by is None
    else:
        assert outcome.value is not None
        assert outcome.value.label == case["expected"]["label"]
        assert outcome.accepted_by == "confident"


def test_tokens_ignore_case_accents_punctuation_and_which_digits() -> None:
    assert features.tokens("What’s the CAFÉ’s  bill, 1,250?") == ["whats", "the", "cafes", "bill", "0", "000"]


def test_features_are_crc32_by_kind() -> None:
    found = features.features("pay it")
    assert found["words"] == [1 + zlib.crc32(b"words:" + word) % (2**32 - 2) for word in (b"pay", b"it")]
    assert len(found["pairs"]) == 3  # < pay, pay it, it >
    assert len(found["chars"]) == (3 + 2 + 1) + (2 + 1)  # of <pay> and <it>
    assert features.features("?!") == {"words": [], "pairs": [], "chars": []}


@given(st.text())
def test_any_text_gives_probabilities(text: str) -> None:
    arrays = features.encode([text])
    assert all(array.dtype == np.int64 and 0 <= array.min() <= array.max() < 2**32 - 1 for array in arrays.values())
    probabilities = model.run_sync(**arrays)["probabilities"]
    assert probabilities.shape == (1, len(labels))
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_a_text_in_a_batch_gets_what_it_gets_alone() -> None:
    texts = [case["input"]["text"] for case in CASES]
    together = model.run_sync(**features.encode(texts))["probabilities"]
    alone = np.concatenate([model.run_sync(**features.encode([t]))["probabilities"] for t in texts])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("text", [" ", "!!!", "почему небо", "你好", "नमस्ते दुनिया", "qzx vvk jjq", "x" * 100_000])
async def test_what_has_no_known_feature_has_no_confidence(text: str) -> None:
    answer = await intent(text)
    assert answer.confidence is not None
    assert answer.confidence < 0.15


@pytest.mark.parametrize("text", ["", "\ud800", None, 7])
async def test_what_is_no_text_never_reaches_the_model(text: Any) -> None:
    with pytest.raises(InvalidArguments):
        await intent(text)


def test_the_floor_is_the_declared_one_and_the_file_is_small() -> None:
    assert intent.min_confidence == 0.81
    assert model.path.stat().st_size < 2_000_000
    assert len(labels) == len(set(labels)) == 150
    assert "CC BY 3.0" in str(card.data)


def test_there_is_no_code_in_the_folder() -> None:
    assert card.function is None
    assert sorted(card.files) == ["cases.jsonl", "labels.txt", "model.onnx"]


def test_the_recipe_trains_exports_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from specialists.training import intent as recipe

    words = {
        "weather": "rain sun cloud storm wind",
        "money": "pay bank cash loan coin",
        "food": "soup rice bread egg tea",
    }
    chance = random.Random(0)

    def rows(count: int) -> str:
        made = [(label, " ".join(chance.choices(words[label].split(), k=3))) for label in words for _ in range(count)]
        return "".join(f"{label}\tplease tell me about {text}\n" for label, text in made)

    (tmp_path / "own.train.tsv").write_text(rows(100), "utf-8")
    (tmp_path / "own.test.tsv").write_text(rows(20), "utf-8")
    monkeypatch.setattr(recipe, "MADE_TEXTS", 500)
    monkeypatch.setattr(recipe, "EPOCHS", 3)
    whole, halved = tmp_path / "whole", tmp_path / "halved"

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["intent", "--data", str(tmp_path), *arguments])
        recipe.main()

    run("--out", str(whole))
    save, saved = recipe.torch.save, []

    def stop_after_two(state: Any, path: Any) -> None:
        save(state, path)
        saved.append(path)

    class Stopped(Exception):
        pass

    def replace(path: Path, target: Path) -> Path:
        moved = real_replace(path, target)
        if len(saved) == 2:
            raise Stopped
        return moved

    real_replace = Path.replace
    with monkeypatch.context() as patched:
        patched.setattr(recipe.torch, "save", stop_after_two)
        patched.setattr(Path, "replace", replace)
        with pytest.raises(Stopped):
            run("--out", str(halved))
    run("--out", str(halved), "--resume")
    assert "resumed after epoch 2" in capsys.readouterr().out
    assert (halved / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()
    assert json.loads((whole / "measured.json").read_text("utf-8"))["test"]["in_scope_accuracy"] > 0.9
    found = OnnxModel(whole / "model.onnx").run_sync(**features.encode(["please tell me about rice soup"]))
    assert (whole / "labels.txt").read_text("utf-8").split()[int(found["probabilities"].argmax())] == "food"
