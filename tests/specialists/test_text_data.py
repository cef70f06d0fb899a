"""Labelled texts for a training: what is read, what is refused with its line, and what is held out."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import CasesError
from specialists.training import text_data
from specialists.training.text_data import Rows
from specialists.training.text_figures import Said, choose_floor, measure, weakest
from specialists.training.text_folder import curve, pick_cases
from specialists.training.text_noise import make_out_of_scope, misspell
from specialists.training.text_watch import Epoch


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows([text for _, text in pairs], [label for label, _ in pairs], list(range(1, len(pairs) + 1)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_as_people_save_it(tmp_path: Path, packed: bool) -> None:
    data = b'\xef\xbb\xbfLabel\tText\r\n\r\n glad \t so happy\ttoday \r\nsad\tan "awful" day\r\n'
    path = tmp_path / "mood.tsv"
    path.write_bytes(gzip.compress(data) if packed else data)
    found, digest = text_data.read(path)
    assert found == Rows(["so happy\ttoday", 'an "awful" day'], ["glad", "sad"], [3, 4])
    assert len(digest) == 64


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "holds no rows; each line is a label, a tab, and the text"),
        (b"glad\thappy\nno tab here\n", "line 2: there is no tab"),
        (b"glad\thappy\n\tno label\n", "line 2: the text has no label"),
        (b"glad\thappy\nsad\t \n", "line 2: the label 'sad' has no text"),
        (b"glad\thappy\nsad\t\xff\n", "line 2: not UTF-8 at byte 5; save the file as UTF-8"),
        (b"\xff\xfeg\0l\0", "is UTF-16; save it as UTF-8"),
        (b"glad\thappy\ns\x07d\tday\n", "line 2: 's\\x07d' is no label"),
        (b"x" * 201 + b"\tday\n", "line 1: 'xxx"),
        (b"\x1f\x8bnonsense", "cannot be unpacked"),
    ],
    ids=range(9),
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "mood.tsv"
    path.write_bytes(data)
    with pytest.raises(CasesError) as caught:
        text_data.read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (rows(("a", "x"), ("a", "y")), "every row has the label 'a'; a classifier needs two labels or more"),
        (rows(("oos", "x"), ("oos", "y")), "every row has the label 'oos'"),
        (rows(("oos", "x"), ("a", "y"), ("a", "z")), "every row has the label 'a'"),
        (rows(("a", "x"), ("a", "y"), ("b", "z")), "mood.tsv, line 3: the label 'b' is seen once"),
        (rows(*((f"text {n}", "a") for n in range(12))), "line 1: 12 of 12 labels are seen once"),
    ],
    ids=range(5),
)
def test_labels_that_cannot_be_learned_are_refused(given: Rows, says: str) -> None:
    with pytest.raises(CasesError) as caught:
        text_data.check_labels(given, Path("mood.tsv"), "oos")
    assert says in str(caught.value)


def test_a_repeated_text_counts_once_and_a_torn_one_keeps_its_most_frequent_label() -> None:
    given = rows(("a", "Hello  there"), ("a", "hello there"), ("b", "so"), ("a", "so"), ("a", "SO"), ("b", "other"))
    found = text_data.clean(given, Path("x.tsv"))
    assert found.rows.labels == ["a", "a", "b"]
    assert found.rows.texts == ["Hello  there", "so", "other"]
    assert found.notes[0].startswith("3 of 6 rows repeat")
    assert "1 texts have more than one label, such as 'b' in line 3 and 'a' in line 4 of x.tsv" in found.notes[1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=200), st.integers(0, 9))
def test_parts_share_no_words_and_every_label_is_learned(pairs: list[tuple[str, int]], seed: int) -> None:
    given = rows(*((label, f"text {'x' * n}!") for label, n in pairs))
    parts = text_data.part(given, choose=True, measure=True, seed=seed)
    words = [{text_data._near(text) for text in part.texts} for part in parts]
    assert not words[0] & words[1]
    assert not words[0] & words[2]
    assert not words[1] & words[2]
    assert sum(len(part.texts) for part in parts) == len(pairs)
    first = {}
    for label, n in pairs:
        first.setdefault(n, label)  # texts with the same words go where the first of them goes
    assert set(first.values()) <= set(parts.fitted.labels)


def test_parts_hold_of_each_label_what_the_whole_holds() -> None:
    given = rows(*((label, f"{label} {'abcdefghij'[n % 10] * (1 + n // 10)}") for label in "abc" for n in range(60)))
    parts = text_data.part(given, choose=True, measure=True, seed=3)
    assert Counter(parts.measured.labels) == Counter(parts.chosen.labels) == {"a": 10, "b": 10, "c": 10}
    assert text_data.part(given, choose=True, measure=True, seed=3) == parts
    assert text_data.part(given, choose=True, measure=True, seed=4) != parts
    assert len(text_data.part(given, choose=False, measure=False, seed=3).fitted.texts) == 180


def test_what_is_measured_is_not_learned_from_in_other_words() -> None:
    left = text_data.without(rows(("a", "Pay 20!"), ("a", "pay it")), [rows(("a", "pay 99"))])
    assert left.texts == ["pay it"]


def test_made_texts_lose_the_words_that_speak_for_a_label() -> None:
    import random

    texts = [f"please tell me about {word}" for word in ("rain", "cash") for _ in range(20)]
    labels = ["weather"] * 20 + ["money"] * 20
    made = make_out_of_scope(texts, labels, 200, random.Random(0))
    assert made == make_out_of_scope(texts, labels, 200, random.Random(0))
    frames = [text for text in made if "tell me" in text]
    assert len(frames) > 100
    assert not [text for text in frames if "rain" in text.split() or "cash" in text.split()]
    assert make_out_of_scope(["дождь идет"] * 3, ["a", "b", "a"], 60, random.Random(0))[25].isascii() is False


@given(st.text(), st.integers(0, 5))
def test_any_text_can_be_misspelt(text: str, seed: int) -> None:
    import random

    assert isinstance(misspell(text, random.Random(seed)), str)


def test_figures_are_what_they_say() -> None:
    given = rows(("a", "1"), ("a", "2"), ("b", "3"), ("oos", "4"))
    said = Said(["a", "b", "b", "a"], np.array([0.9, 0.6, 0.4, 0.7]))
    found = measure(said, given, floor=0.5, out_of_scope="oos")
    assert (found.n, found.in_scope, found.wrong_accepted) == (4, 3, 2)
    assert found.in_scope_accuracy == pytest.approx(2 / 3, abs=1e-4)
    assert found.accuracy_of_each_label == 0.75
    assert found.accepted_right == 0.5
    assert found.abstained_in_scope == pytest.approx(1 / 3, abs=1e-4)
    assert found.abstained_out_of_scope == 0.0
    assert found.auroc_in_or_out_of_scope == pytest.approx(1 / 3, abs=1e-4)
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.6) / 3, abs=1e-4)
    assert weakest(said, given, "oos") == [("a", 1, 2, "b")]
    inside = measure(Said(["a", "b"], np.array([0.9, 0.6])), rows(("a", "1"), ("a", "2")), 0.95, "oos")
    assert (inside.abstained_out_of_scope, inside.auroc_in_or_out_of_scope, inside.accepted_right) == (None, None, None)


@pytest.mark.parametrize(
    ("confidence", "labels", "floor"), [([1.0] * 10, 2, 0.99), ([0.5] * 10, 2, 0.51), ([0.2] + [0.87] * 10, 50, 0.87)]
)
def test_the_floor_stays_above_ignorance_and_below_certainty(
    confidence: list[float], labels: int, floor: float
) -> None:
    said = Said(["a"] * len(confidence), np.array(confidence))
    given = rows(*(("a", str(n)) for n in range(len(confidence))))
    assert choose_floor(said, given, labels, "oos") == floor


def test_cases_are_right_above_the_floor_or_abstained_on() -> None:
    given = rows(("a", "yes"), ("a", "unsure"), ("b", "wrong"), ("oos", "out"), ("oos", "sure out"), ("b", "a\x07b"))
    said = Said(["a", "a", "a", "a", "a", "b"], np.array([0.9, 0.4, 0.9, 0.2, 0.9, 0.9]))
    assert pick_cases(said, given, 0.5, "oos", 0).splitlines() == [
        '{"input": {"text": "yes"}, "expected": {"label": "a"}}',
        '{"input": {"text": "a\\u0007b"}, "expected": {"label": "b"}}',
        '{"input": {"text": "out"}, "expected": null}',
    ]


def test_long_texts_are_cases_where_there_are_no_others() -> None:
    given = rows(("a", "very long " * 500), ("a", "quite long " * 500))
    picked = pick_cases(Said(["a", "a"], np.array([1.0, 1.0])), given, 0.99, "oos", 0)
    assert picked.count("\n") == 1


@pytest.mark.parametrize("count", [1, 2, 60])
def test_the_curve_is_a_small_picture(count: int) -> None:
    import xml.etree.ElementTree as tree

    drawn = curve([Epoch(n + 1, n / 60, 1.0, 2.0 * n) for n in range(count)], best=count)
    assert tree.fromstring(drawn).tag.endswith("svg")
    assert "kept" in drawn
    assert len(drawn) < 20_000


def test_texts_that_are_mostly_numbers_are_held_out_too() -> None:
    given = rows(*((label, f"order {n} {label}") for label in "ab" for n in range(60)))
    parts = text_data.part(given, choose=True, measure=True, seed=0)
    assert (len(parts.chosen.texts), len(parts.measured.texts)) == (20, 20)
