"""The bundled router: its features, its graph on strange input, its cases, and what it has always said of them."""

from __future__ import annotations

import json
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

intent = load("intent").with_certificate(None)  # by the declared floor
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
    assert intent.min_confidence == 0.8
    assert model.path.stat().st_size < 2_000_000
    assert len(labels) == len(set(labels)) == 150
    assert "CC BY 3.0" in str(card.data)


def test_there_is_no_code_in_the_folder() -> None:
    assert card.function is None
    assert sorted(card.files) == ["cases.jsonl", "curve.svg", "labels.txt", "model.onnx"]
    assert card.command is not None
    assert card.command.startswith("brain specialists train text-classifier --data clinc150.train.tsv.gz ")


def test_the_graph_says_what_was_recorded_when_it_was_made() -> None:
    recorded = json.loads((Path(__file__).parent / "intent_probabilities.json").read_text("utf-8"))
    texts = recorded["texts"]
    found = np.concatenate([model.run_sync(**features.encode([text]))["probabilities"] for text in texts])
    assert np.abs(found - np.array(recorded["probabilities"])).max() < 1e-4


def test_the_curve_is_a_small_picture() -> None:
    picture = (FOLDER / "curve.svg").read_text("utf-8")
    assert picture.startswith("<svg ")
    assert len(picture) < 60_000
    assert "(curve.svg)" in (FOLDER / "README.md").read_text("utf-8")
