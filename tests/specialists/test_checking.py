"""`check` finds the counter-example: each test breaks one thing in a folder that passes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from specialists.card import seal
from specialists.checking import Report
from specialists.checking import check as look
from specialists.corruptions import choices_in, corruptions
from specialists.scaffold import create

from .folders import of_task, with_code


def check(folder: Path, **options: Any) -> Report:
    """With everything that trust allows."""
    return look(folder, trust=True, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "root_finder")
    return tmp_path / "root_finder"


def change(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    seal(folder)


def failures(report: Report) -> dict[str, str]:
    found: dict[str, str] = {}
    for finding in report.findings:
        if finding.status == "failed":
            assert finding.remedy
            found[finding.what] = f"{found.get(finding.what, '')} {finding.detail}".strip()
    return found


def notes(report: Report) -> str:
    return " ".join(finding.detail for finding in report.findings if finding.status == "note")


def write(folder: Path, code: str, cases: list[dict[str, Any]], card: str = "") -> Path:
    """A specialist of one file and no model."""
    folder.mkdir()
    (folder / "code.py").write_text(
        "from typing import Literal\nfrom pydantic import BaseModel\n"
        "from specialists import Answer, Classification, Verdict, specialist\n" + code,
        "utf-8",
    )
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), "utf-8")
    (folder / "specialist.toml").write_text(
        f'format = 1\nname = "it"\nversion = "1"\ndescription = "It."\nfunction = "code:it"\n{card}\n[files]\n', "utf-8"
    )
    seal(folder)
    return folder


def test_the_template_passes_and_says_what_is_left_to_do(folder: Path) -> None:
    report = check(folder)
    assert report.passed
    assert "specialist.py" in notes(report)
    assert {"card", "hashes", "code", "cases", "complete", "sound", "floor", "time"} <= {
        finding.what for finding in report.findings
    }
    json.dumps(report.to_json())


def test_code_is_announced_before_it_is_run_and_not_run_with_a_wrong_hash(folder: Path) -> None:
    told: list[str] = []
    check(folder, before_code=lambda: told.append("code"))
    assert told == ["code"]
    (folder / "specialist.py").write_text("raise SystemExit('never run')")
    report = check(folder, before_code=lambda: told.append("again"))
    assert told == ["code"]
    assert list(failures(report)) == ["hashes"]
    assert "sha256 differs" in failures(report)["hashes"]


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    assert "has no specialist.toml" in failures(check(tmp_path))["card"]
    (tmp_path / "specialist.toml").write_text("[[[")
    report = check(tmp_path)
    assert "is not TOML" in failures(report)["card"]
    assert str(report.findings[0].remedy).startswith("mend it")


@pytest.mark.parametrize(
    "code", ["import nowhere", "raise RuntimeError('out')", "raise SystemExit(3)", "def (", "it = 3", "x = 1"]
)
def test_code_that_cannot_be_used_is_one_failure_and_no_traceback(tmp_path: Path, code: str) -> None:
    assert list(failures(check(write(tmp_path / "it", code, [])))) == ["code"]


def test_a_claim_of_soundness_is_refused_on_one_counter_example(folder: Path) -> None:
    change(folder, "specialist.py", 'return Verdict.failed(f"x = {value}', 'return Verdict.passed(f"x = {value}')
    report = check(folder)
    assert "the wrong answer" in failures(report)["sound"]
    assert not report.passed


def test_a_claim_of_completeness_is_refused_on_one_right_answer_that_fails(folder: Path) -> None:
    change(folder, "specialist.py", "if is_root(arguments, None, value):", "if is_root(arguments, None, value) > 7:")
    found = failures(check(folder))
    assert "the right answer" in found["complete"]
    assert "sound" not in found, "the other claim is tried all the same"


def test_right_answers_besides_the_expected_one_must_pass_too(folder: Path) -> None:
    # It passes every expected answer, the larger root, and fails the smaller one, which is as right.
    old = "if is_root(arguments, None, value):"
    change(folder, "specialist.py", old, "if is_root(arguments, None, value) and 2 * value >= -arguments['b']:")
    assert "the right answer" in failures(check(folder))["complete"]
    change(folder, "specialist.py", "    complete=True,\n", "")
    assert check(folder).passed, "what is not claimed is not refused"


def test_a_verifier_that_raises_is_named(folder: Path) -> None:
    change(folder, "specialist.py", "if is_root(arguments, None, value):", "if arguments['z']:")
    assert "the verifier raised KeyError" in failures(check(folder))["complete"]


def test_a_case_that_is_not_as_expected_is_named_by_its_line(folder: Path) -> None:
    change(folder, "cases.jsonl", '{"input": {"b": 0, "c": 1}, "expected": null}', '{"input": {"b": 0, "c": 1}}')
    assert "line 11: it abstained" in failures(check(folder))["cases"]


def test_an_expected_answer_that_the_card_says_is_wrong(folder: Path) -> None:
    change(folder, "cases.jsonl", '"expected": 3}', '"expected": 4}')
    assert "says that the expected answer 4 is wrong" in failures(check(folder))["cases"]


def test_where_it_must_abstain_every_answer_that_passes_refutes_soundness(tmp_path: Path) -> None:
    code = """
@specialist(verify=lambda arguments, value: arguments["text"][:1] == value, sound=True)
def it(text: str) -> Answer[str]:
    '''Find the start.'''
    return Answer(text[:1] if text != "none" else "x")
"""
    cases = [{"input": {"text": "name"}, "expected": "n"}, {"input": {"text": "none"}, "expected": None}]
    assert "line 2: the wrong answer" in failures(check(write(tmp_path / "it", code, cases)))["sound"]


CLASSIFIER = """
def verify(arguments, value):
    {verify}

@specialist(verify=verify{claims})
def it(text: str) -> Answer[Classification]:
    '''Say what it is about.'''
    return Answer(Classification(label=text.split()[0]), confidence=len(text) / 100)
"""
LABELLED = [{"input": {"text": f"{label} please"}, "expected": label} for label in ("help", "refund", "cancel")]


def test_labels_of_other_cases_are_tried(tmp_path: Path) -> None:
    code = CLASSIFIER.format(
        verify="return value.label in ('help', 'refund', 'cancel') or Verdict.failed('no such label')",
        claims=", sound=True",
    )
    detail = failures(check(write(tmp_path / "it", code, LABELLED)))["sound"]
    assert 'the wrong answer {"label": "refund"} passes; right is {"label": "help"}' in detail


def test_without_a_claim_a_weak_verifier_is_only_noted(tmp_path: Path) -> None:
    code = CLASSIFIER.format(verify="return value.label.isalpha()", claims=", min_confidence=0.1")
    report = check(write(tmp_path / "it", code, LABELLED))
    assert report.passed
    assert "it does not claim to be sound" in notes(report)


def test_a_verifier_that_is_neither_sound_nor_helped_by_a_floor(tmp_path: Path) -> None:
    code = CLASSIFIER.format(verify="return value.label in arguments['text']", claims="")
    assert "nothing is accepted" in failures(check(write(tmp_path / "it", code, LABELLED)))["floor"]


def test_a_verifier_that_never_tells_is_of_no_use(tmp_path: Path) -> None:
    code = CLASSIFIER.format(verify="return Verdict.unknown()", claims=", sound=True, min_confidence=0.1")
    assert "could tell none to be wrong" in failures(check(write(tmp_path / "it", code, LABELLED)))["sound"]


UNCHECKED = """
@specialist({claims})
def it(text: str) -> Answer[str]:
    '''Say it again.'''
    return Answer(text{confidence})
"""


@pytest.mark.parametrize(
    ("claims", "confidence", "what"),
    [
        ("", "", "checked"),
        ("min_confidence=0.5", "", "floor"),
        ("min_confidence=0", ", confidence=0.1", "floor"),
    ],
)
def test_something_must_check_the_answers(tmp_path: Path, claims: str, confidence: str, what: str) -> None:
    code = UNCHECKED.format(claims=claims, confidence=confidence)
    cases = [{"input": {"text": text}, "expected": text} for text in ("a", "b", "c")]
    assert what in failures(check(write(tmp_path / "it", code, cases)))


def test_a_confidence_that_never_changes_is_noted(tmp_path: Path) -> None:
    code = UNCHECKED.format(claims="min_confidence=0.5, timeout=1", confidence=", confidence=0.9")
    cases = [{"input": {"text": text}, "expected": text} for text in ("a", "b", "c")]
    report = check(write(tmp_path / "it", code, cases))
    assert report.passed
    assert "which tells nothing" in notes(report)


@pytest.mark.parametrize(
    ("cases", "detail"),
    [
        ([], "no case expects an answer"),
        ([{"input": {"text": "a"}, "expected": None}], "no case expects an answer"),
        ([{"input": {"text": "a"}}], 'line 1: there is no "expected"'),
        ([{"input": {"word": "a"}, "expected": "a"}], "line 1: it has no argument 'word'"),
        ([{"input": {"text": 3}, "expected": "3"}], "line 1: its arguments are refused"),
        ([{"input": {"text": "a"}, "expected": 3}], 'line 1: "expected" is not of the answer\'s type'),
    ],
)
def test_cases_that_cannot_be_used(tmp_path: Path, cases: list[dict[str, Any]], detail: str) -> None:
    code = UNCHECKED.format(claims="min_confidence=0.5", confidence=", confidence=0.9")
    assert detail in failures(check(write(tmp_path / "it", code, cases)))["cases"]


def test_a_folder_without_cases(folder: Path) -> None:
    (folder / "cases.jsonl").unlink()
    seal(folder)
    assert failures(check(folder)) == {"cases": "there is no cases.jsonl"}


def test_a_model_that_is_none_is_told_before_any_code_is_run(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a model")
    seal(folder)
    assert list(failures(check(folder, before_code=lambda: pytest.fail("code")))) == ["model"]
    assert "is not a model" in failures(check(folder))["model"]


def test_without_trust_no_code_is_run_and_the_report_says_so(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "doubler")
    report = look(folder, before_code=lambda: pytest.fail("code"))
    assert not (tmp_path / "canary").exists()
    assert report.passed
    assert not report.complete
    assert [finding.what for finding in report.findings] == ["card", "hashes", "cases", "code"]
    assert "its Python was not run" in report.findings[-1].detail
    assert "--trust" in report.findings[-1].detail
    assert report.to_json()["complete"] is False
    trusted = look(folder, trust=True)
    assert (tmp_path / "canary").exists()
    assert trusted.passed
    assert trusted.complete


def test_without_trust_what_can_be_seen_is_seen(tmp_path: Path) -> None:
    folder = with_code(tmp_path / "doubler")
    (folder / "cases.jsonl").write_text("no row\n")
    seal(folder)
    assert list(failures(look(folder))) == ["cases"]
    (folder / "cases.jsonl").unlink()
    (folder / "code.py").rename(folder / "other.py")
    seal(folder)
    assert "lists no code.py" in failures(look(folder))["code"]
    (folder / "model.onnx").write_bytes(b"not a model")
    seal(folder)
    assert list(failures(look(folder))) == ["model"]
    assert not (tmp_path / "canary").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="children are limited on Linux only")
def test_a_folder_without_code_is_checked_in_a_child(tmp_path: Path) -> None:
    report = look(of_task(tmp_path / "mood"))
    assert report.passed, failures(report)
    assert report.complete
    told = {finding.what: finding.detail for finding in report.findings}
    assert "limited child process" in told["task"]
    assert told["cases"] == "3 solved as expected"
    assert "in this process" in {f.what: f.detail for f in check(tmp_path / "mood").findings}["task"]


def test_a_folder_without_code_is_not_run_where_no_child_can_be_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_task(tmp_path / "mood")
    monkeypatch.setattr(sys, "platform", "win32")
    report = look(folder)
    assert report.passed
    assert not report.complete
    assert "win32 does not enforce such a limit" in report.findings[-1].detail


@pytest.mark.parametrize(
    "value",
    [0, 7, -120, 1.5, True, "", "a", "5347" * 20, "two words", [1, 2, 3], {"label": "a", "score": 2}, [], {}, None],
)
def test_corruptions_are_other_values_without_repetition(value: Any) -> None:
    made = list(corruptions(value, choices=("x", "y")))
    keys = [(type(each).__name__, repr(each)) for each in made]
    assert len(keys) == len(set(keys))
    assert (type(value).__name__, repr(value)) not in keys
    assert made or value is None
    assert len(made) < 5000


def test_corruptions_reach_every_place_of_a_text() -> None:
    made = {each for each in corruptions("123456789") if isinstance(each, str)}
    assert all(any(each[place] != "123456789"[place] for each in made if len(each) == 9) for place in range(9))
    assert {"12345678", "213456789", "987654321"} <= made


def test_the_members_of_an_enumeration_are_found_wherever_they_stand() -> None:
    schema = {"properties": {"a": {"enum": ["x", "y"]}}, "$defs": {"b": {"anyOf": [{"const": "z"}]}}}
    assert choices_in(schema) == ("x", "y", "z")


def test_a_grid_is_corrupted_in_a_way_that_a_check_of_rows_and_columns_alone_does_not_see() -> None:
    grid = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    rows = [range(9 * row, 9 * row + 9) for row in range(9)]
    columns = [range(column, 81, 9) for column in range(9)]
    boxes = [[27 * (box // 3) + 3 * (box % 3) + 9 * (i // 3) + i % 3 for i in range(9)] for box in range(9)]

    def keeps(text: str, houses: Any) -> bool:
        return len(text) == 81 and all(len({text[cell] for cell in house}) == 9 for house in houses)

    assert keeps(grid, [*rows, *columns, *boxes])
    unseen = [text for text in corruptions(grid) if text and keeps(text, [*rows, *columns]) and not keeps(text, boxes)]
    assert unseen
