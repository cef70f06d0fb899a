"""A specialist without code whose texts are read by a tokenizer's file, which may be somebody else's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from specialists import CardError, MissingRuntime, ModelRejected, load
from specialists.card import CARD, read_card, seal
from specialists.checking import check
from specialists.texts import Tokens, tokens

from .encoders import of_tokens, tokenizer

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return of_tokens(tmp_path / "mood")


@pytest.mark.parametrize("trust", [True, pytest.param(False, marks=on_linux)])
async def test_it_answers_and_abstains(folder: Path, trust: bool) -> None:
    s = load(folder, trust=trust)
    for text, label in (("So HAPPY", "glad"), ("an awful day", "sad")):
        outcome = await s.solve(text)
        assert outcome.value.label == label
        assert outcome.accepted_by == "confident"
    for text in ("a stone", " ", "\x00", "你好"):
        assert (await s.solve(text)).accepted_by is None


def test_it_passes_the_check(folder: Path) -> None:
    assert check(folder, trust=True).passed


async def test_no_more_tokens_are_read_than_the_card_says(folder: Path) -> None:
    s = load(folder, trust=True)
    assert (await s.solve("one two three four five six seven happy")).accepted
    assert not (await s.solve("one two three four five six seven eight happy")).accepted
    assert not (await s.solve("x " * 200_000 + "happy")).accepted


def test_a_batch_is_filled_up_and_masked() -> None:
    made = Tokens(tokenizer(["a", "b"]).encode(), most=4, name="t").encode(["a b a", "b", "", "c"])
    assert made["input_ids"].tolist() == [[2, 3, 2], [3, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert {array.dtype for array in made.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('tokenizer = "tokenizer.json"\n', "", "go together"),
        ('features = "tokenizer"', 'features = "hashed-ngrams"', "go together"),
        ('"tokenizer.json"', '"../tokenizer.json"', "the name of a file in the folder"),
        ("max_tokens = 8", "max_tokens = 0", "max_tokens"),
        ("max_tokens = 8", "max_tokens = 100000", "max_tokens"),
        ('"tokenizer.json"', '"other.json"', "cannot be read"),
    ],
    ids=range(6),
)
def test_a_card_that_does_not_say_it_is_refused(folder: Path, old: str, new: str, says: str) -> None:
    text = (folder / CARD).read_text()
    (folder / CARD).write_text(text.replace(old, new, 1))
    with pytest.raises(CardError, match=says):
        load(folder, trust=True)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"model": ' * 10_000, b"[" * 100_000, b"null"], ids=range(6))
def test_what_is_no_tokenizer_is_refused_in_one_sentence(folder: Path, data: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(data)
    with pytest.raises(ModelRejected, match="sha256 differs"):
        load(folder, trust=True)
    seal(folder)
    with pytest.raises(CardError, match=r"is not a tokenizer that can be read") as caught:
        load(folder, trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '{"type":"Whitespace"}',
            '{"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Removed","invert":false}',
            "own",
        ),
        (
            '{"type":"Whitespace"}',
            '{"type":"Split","pattern":{"R\\u0065gex":"x"},"behavior":"Removed","invert":false}',
            "own",
        ),
        ('{"type":"Lowercase"}', '{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaa"}', "more letters"),
        ('{"type":"Lowercase"}', '{"type":"Replace","pattern":{"String":""},"content":"a"}', "more letters"),
        ('"type":"WordLevel"', '"type":"WordPiece","max_input_chars_per_word":100000000', "more than 1000 letters"),
    ],
    ids=range(5),
)
def test_a_tokenizer_that_may_never_end_is_refused(folder: Path, old: str, new: str, says: str) -> None:
    data = json.dumps(json.loads((folder / "tokenizer.json").read_text()), separators=(",", ":"))
    assert old in data
    (folder / "tokenizer.json").write_text(data.replace(old, new))
    seal(folder)
    with pytest.raises(CardError, match=says):
        load(folder, trust=True)


@pytest.mark.parametrize(
    "normal",
    [
        '{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}',
        '{"type":"Replace","pattern":{"String":"``"},"content":"x"}',
    ],
)
def test_what_usual_tokenizers_hold_is_read(folder: Path, normal: str) -> None:
    data = json.dumps(json.loads((folder / "tokenizer.json").read_text()), separators=(",", ":"))
    data = data.replace('{"type":"Lowercase"}', normal).replace('"awful":3', '"awful":3,"Regex":4,"type":5,"String":6')
    (folder / "tokenizer.json").write_text(data)
    seal(folder)
    assert load(folder, trust=True).solve_sync("so happy").value.label == "glad"


def test_a_tokenizer_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(33 * 2**20)
    seal(folder)
    with pytest.raises(CardError, match="more than the 33,554,432 allowed"):
        load(folder, trust=True)


def test_a_missing_library_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingRuntime, match=r"pip install 'brain-specialists\[encoder\]'"):
        load(folder, trust=True)


def test_the_card_says_how_texts_are_read(folder: Path) -> None:
    task = read_card(folder).text_classification
    assert task is not None
    assert (task.features, task.tokenizer, task.max_tokens) == ("tokenizer", "tokenizer.json", 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好 abc", ["你", "好", "abc"]),
        ("abc中12文", ["abc", "中", "00", "文"]),
        ("नमस्ते दुनिया।", ["नमसते", "दुनिया"]),
        ("почему НЕБО?", ["почему", "небо"]),
        ("한국어 말", ["한국어", "말"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    import unicodedata

    assert [unicodedata.normalize("NFC", word) for word in tokens(text)] == words
