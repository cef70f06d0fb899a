"""Counts on labelled rows, row by row, against specialists whose every answer is known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from specialists import (
    Answer,
    CannotAnswer,
    CasesError,
    Classification,
    Effort,
    MissingRuntime,
    OnnxModel,
    Verdict,
    specialist,
)
from specialists.evaluation import Evaluation, Row, evaluate, evaluate_async, read_rows, same_answer, wilson


@specialist(min_confidence=0.5)
def parrot(text: Annotated[str, Field(max_length=20)]) -> Answer[str]:
    """Answers `word` with the confidence given as `word 0.7`; gives up on an empty text."""
    word, _, confidence = text.partition(" ")
    if not word:
        raise CannotAnswer("there is no word")
    return Answer(word, confidence=float(confidence or 1), steps=len(word))


def row(text: str, expected: Any) -> dict[str, Any]:
    return {"input": {"text": text}, "expected": expected}


def test_each_kind_of_row_is_counted_as_documented() -> None:
    result = evaluate(
        parrot,
        [
            row("yes", "yes"),  # accepted and right
            row("no", "yes"),  # accepted and wrong
            row("yes 0.2", "yes"),  # right, not accepted
            row("no 0.2", "yes"),  # wrong, not accepted
            row("yes", None),  # accepted where it must abstain
            row("yes 0.2", None),  # abstained where it must
            row("", None),  # has no answer, and must have none
            row("x" * 21, None),  # the types refuse it, and it must abstain
            row("x" * 21, "x"),  # the types refuse it
        ],
    )
    data = result.to_json()
    assert data["n"] == 9
    assert data["accepted"] == 3
    assert data["correct"] == 1
    assert data["right"] == 2
    assert data["wrong_accepted"] == 2
    assert data["abstained"] == 6
    assert data["rejected"] == 2
    assert (data["out_of_scope"], data["out_of_scope_abstained"]) == (4, 3)
    assert data["accuracy"] == pytest.approx(1 / 9)
    assert data["in_scope_accuracy"] == pytest.approx(2 / 5)
    assert data["accuracy_low"] < data["accuracy"] < data["accuracy_high"]
    assert data["format"] == 1
    assert set(data) >= {"steps_mean", "ms_p50", "ms_p99"}
    json.dumps(data, allow_nan=False)


def test_doubts_are_kept_by_kind() -> None:
    result = evaluate(parrot, [row("yes 0.2", "yes"), row("no 0.2", "no"), row("", None)])
    assert {kind: count for kind, (count, _) in result.doubts.items()} == {"not sure enough": 2, "cannot": 1}


def test_steps_are_averaged_over_rows_that_told_theirs() -> None:
    assert evaluate(parrot, [row("ab", "ab"), row("abcd", "abcd"), row("", None)]).steps_mean == 3


def test_what_cannot_be_told_is_none() -> None:
    data = evaluate(parrot, [row("x" * 21, None)]).to_json()
    assert data["in_scope_accuracy"] is None
    assert data["ms_p50"] is None
    assert data["steps_mean"] is None
    assert Evaluation().to_json()["accuracy"] is None


def test_the_best_answer_is_taken_whatever_its_rung() -> None:
    def verify(arguments: Any, value: str) -> Verdict:
        return Verdict.failed("too short") if len(value) < 2 else Verdict.unknown()

    @specialist(verify=verify, min_confidence=0.9, steps=(1, 2))
    def thinker(text: str, effort: Effort) -> Answer[str]:
        assert effort.max_steps is not None
        return Answer(text[: effort.max_steps], confidence=0.8 / effort.max_steps, steps=effort.max_steps)

    result = evaluate(thinker, [row("abc", "ab")])
    assert (result.right, result.accepted) == (1, 0)
    assert result.steps_mean == 3, "the steps of both attempts"
    assert evaluate(thinker, [row("abc", "a")], max_steps=1).right == 1


def test_correct_judges_where_answers_are_not_unique() -> None:
    @specialist(min_confidence=0.0)
    def factor(number: int) -> Answer[int]:
        return Answer(3 if number % 3 == 0 else 2, confidence=1.0)

    def divides(arguments: dict[str, Any], expected: Any, value: Any) -> bool:
        assert expected in (None, 2)
        return bool(arguments["number"] % value == 0)

    rows = [{"input": {"number": 12}, "expected": 2}, {"input": {"number": 8}}, {"input": {"number": 7}}]
    result = evaluate(factor, rows, correct=divides)
    assert (result.correct, result.wrong_accepted) == (2, 1)
    assert result.in_scope_accuracy == pytest.approx(2 / 3), "an absent answer is expected all the same"
    # An abstention is asked for by null, and `correct` has no say in it.
    assert evaluate(factor, [{"input": {"number": 12}, "expected": None}], correct=divides).wrong_accepted == 1


def test_correct_that_fails_is_named_with_its_line() -> None:
    with pytest.raises(CasesError, match="line 1: the card's function 'correct' failed with ZeroDivisionError"):
        evaluate(parrot, [row("a", "a")], correct=lambda arguments, expected, value: bool(1 / 0))


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        ("a", "a", True),
        (1, 1.0, True),
        (1, True, False),
        (False, 0, False),
        ("1", 1, False),
        ("greet", Classification(label="greet"), True),
        ({"label": "greet"}, Classification(label="greet"), True),
        ("greet", Classification(label="leave"), False),
        ({"a": [1, 2.0]}, {"a": [1.0, 2]}, True),
        ([1, 2], (1, 2), True),
        ([1, 2], [1, 2, 3], False),
        ("a", {"one": "a", "two": "a"}, False),
    ],
)
def test_answers_are_compared_as_json(expected: Any, value: Any, same: bool) -> None:
    assert same_answer(expected, value) is same


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 3), (15, 20), (10, 10), (999, 1000)])
def test_the_bounds_are_the_shares_from_which_the_seen_one_is_just_possible(successes: int, n: int) -> None:
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert (successes / n - bound) ** 2 == pytest.approx(1.959963984540054**2 * bound * (1 - bound) / n)
    assert (low == 0) == (successes == 0)
    assert (high == 1) == (successes == n)


def test_a_row_has_its_own_time_limit_in_place_of_the_specialists() -> None:
    @specialist(min_confidence=0.5, timeout=5.0)
    def slow(text: str) -> Answer[str]:
        time.sleep(0.3)
        return Answer(text, confidence=1.0)

    assert evaluate(slow, [row("a", "a")]).correct == 1
    result = evaluate(slow, [row("a", "a")], timeout=0.05)
    assert result.abstained == 1
    assert "timeout" in result.doubts


def test_a_longer_limit_than_the_specialists_own_is_kept_too() -> None:
    @specialist(min_confidence=0.5, timeout=0.05)
    def slow(text: str) -> Answer[str]:
        time.sleep(0.2)
        return Answer(text, confidence=1.0)

    assert evaluate(slow, [row("a", "a")]).abstained == 1
    assert evaluate(slow, [row("a", "a")], timeout=5).correct == 1


def test_a_specialist_that_cannot_run_at_all_has_no_figures() -> None:
    @specialist(min_confidence=0.5)
    def without_runtime(text: str) -> Answer[str]:
        raise MissingRuntime("specialists need ONNX Runtime, which is not installed")

    with pytest.raises(MissingRuntime):
        evaluate(without_runtime, [row("a", "a")])


def test_a_function_that_breaks_is_counted_and_not_raised() -> None:
    @specialist(min_confidence=0.5)
    def broken(text: str) -> Answer[str]:
        raise RuntimeError("out of order")

    result = evaluate(broken, [row("a", "a")])
    assert result.doubts["error"] == [1, "broken: RuntimeError: out of order"]


def test_progress_is_told_after_each_row() -> None:
    seen: list[int] = []
    evaluate(parrot, [row("a", "a")] * 3, progress=lambda so_far: seen.append(so_far.n))
    assert seen == [1, 2, 3]


async def test_it_can_be_awaited_on_a_running_loop() -> None:
    assert (await evaluate_async(parrot, [row("a", "a")])).correct == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": {"text": "a"}}, 'row 1: there is no "expected"'),
        ({"input": {"word": "a"}, "expected": "a"}, "row 1: parrot has no argument 'word'; its arguments are text"),
        ({"input": {}, "expected": "a"}, "row 1: the argument 'text' of parrot is missing"),
        ({"input": "a", "expected": "a"}, "row 1: not of the form"),
        ({"expected": "a"}, "row 1: not of the form"),
    ],
)
def test_a_row_that_cannot_be_asked_is_an_error_that_names_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CasesError, match=message):
        evaluate(parrot, [given])


def test_rows_are_read_with_their_line_and_absent_is_not_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"input": {"text": "a"}, "expected": null}\r\n\n{"input": {"text": "\xc3\xa9"}, "id": 7}\n'
    )
    first, second = read_rows(path)
    assert (first.line, first.wants_answer, first.labelled) == (1, False, True)
    assert (second.line, second.wants_answer, second.labelled) == (3, True, False)
    assert second.input == {"text": "é"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not of the form"),
        (b'{"input": {"text": "\xff"}, "expected": 1}', "not UTF-8 at byte 21"),
        (b'{"input": {"text": "a"}, "expected": NaN}', "NaN is not a JSON number"),
        (b'{"input": {"text": "a"}, "expected": 1, "expected": 2}', "the key 'expected' stands twice"),
        (b'{"input": {"text": "a"}, "expected": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"input": {"text": "a"}, "expected": "a"}\n' + line + b"\n")
    with pytest.raises(CasesError, match=f"rows.jsonl, line 2: .*{message}"):
        list(read_rows(path))


def test_a_row_with_a_lone_surrogate_is_rejected_and_nothing_breaks() -> None:
    result = evaluate(parrot, [row("\ud800", None), row("a", "a")])
    assert (result.rejected, result.correct) == (1, 1)


def test_a_model_that_cannot_be_opened_has_no_figures(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    model = OnnxModel(tmp_path / "model.onnx")

    @specialist(min_confidence=0.5)
    async def unopened(text: str) -> Answer[str]:
        await model.run()
        return Answer(text)

    with pytest.raises(Exception, match="is not a model"):
        evaluate(unopened, [row("a", "a")])


def test_rows_may_come_from_anywhere() -> None:
    assert evaluate(parrot, (Row(9, {"text": "a"}, "a") for _ in range(2))).correct == 2
