"""The bundled `timetable`: its rules, what it refuses, and that a front door asks only the model its card names."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain import cli
from specialists import CannotAnswer, CardError, Effort, ModelRejected, UntrustedFolder, load, read_card
from specialists.checking import check
from specialists.errors import InvalidArguments
from specialists.registry import model_digest
from specialists.zoo.timetable import rules, solver, timetable

FOLDER = Path(solver.__file__).parent
CASES: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "cases.jsonl").read_text("utf-8").splitlines()]
SOLVED = [case for case in CASES if case["expected"] is not None]
EXAMS = ["Greek", "Latin", "Law", "Logic"]


@given(st.data())
def test_a_timetable_passes_exactly_if_nobody_sits_two_exams_at_once(data: st.DataObject) -> None:
    slots = data.draw(st.integers(1, 3))
    students = data.draw(st.lists(st.lists(st.sampled_from(EXAMS), max_size=4), max_size=4))
    answer = data.draw(st.fixed_dictionaries(dict.fromkeys(EXAMS, st.integers(0, 2))))
    right = all(slot < slots for slot in answer.values()) and all(
        len({answer[exam] for exam in taken}) == len(set(taken)) for taken in students
    )
    arguments = {"exams": EXAMS, "students": students, "slots": slots}
    assert (rules.is_timetable(arguments, answer).status == "passed") == right
    assert rules.is_right(arguments, None, answer) == right


@pytest.mark.parametrize(
    "value",
    [
        None,
        [0, 1, 0, 1],
        {},
        {"Greek": 0, "Latin": 0, "Law": 0},
        dict.fromkeys([*EXAMS, "Music"], 0),
        dict.fromkeys(EXAMS, 2),
        dict.fromkeys(EXAMS, -1),
        dict.fromkeys(EXAMS, 0.0),
        dict.fromkeys(EXAMS, False),
        dict.fromkeys(EXAMS, "0"),
    ],
)
def test_what_is_no_timetable_fails(value: object) -> None:
    arguments = {"exams": EXAMS, "students": [], "slots": 2}
    assert rules.is_timetable(arguments, dict.fromkeys(EXAMS, 0)).status == "passed"
    assert rules.is_timetable(arguments, value).status == "failed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exams": [*EXAMS, "Law"]}, "^the exam 'Law' is listed twice$"),
        ({"students": [["Law"], ["Law", "Music"]]}, r"^students\[1\] takes 'Music', which is none of the exams$"),
        ({"slots": 3, "students": [EXAMS]}, "the 4 exams 'Greek', 'Latin', 'Law', 'Logic' clash with each other"),
        ({"slots": 1}, "the 2 exams 'Law', 'Logic' clash with each other, and the slots are 1 in number"),
    ],
)
def test_a_question_that_is_none_gets_one_sentence(change: dict[str, Any], says: str) -> None:
    question: dict[str, Any] = {"exams": EXAMS, "students": [["Law", "Logic"]], "slots": 2} | change
    with pytest.raises(CannotAnswer, match=says) as raised:
        asyncio.run(timetable(**question))
    assert "\n" not in str(raised.value)
    assert timetable.solve_sync(**question).accepted_by is None


@pytest.mark.parametrize(
    "change", [{"exams": []}, {"exams": [""]}, {"slots": 0}, {"slots": 33}, {"students": ["Law"]}, {"students": None}]
)
def test_arguments_of_a_wrong_type_or_size_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=next(iter(change))):
        timetable.signature.check({"exams": EXAMS, "students": [], "slots": 2} | change)


def test_an_exam_listed_twice_by_a_student_is_one_and_one_alone_clashes_with_nothing() -> None:
    problem = solver.pose(EXAMS, [["Law", "Law"], ["Law", "Greek", "Law"], [], ["Logic"]], 3)
    assert problem.groups == ((0, 2),)
    assert timetable.signature.check_json(json.dumps({"exams": EXAMS, "students": [["Law", "Law"]], "slots": 1}))


@pytest.mark.parametrize("case", SOLVED, ids=range(len(SOLVED)))
def test_solves_its_own_cases_and_proves_them(case: dict[str, Any]) -> None:
    outcome = timetable.solve_sync(**case["input"])
    assert outcome.accepted_by == "verified"
    assert rules.is_right(case["input"], case["expected"], outcome.value)
    assert list(outcome.value or ()) == case["input"]["exams"]


def test_what_has_no_timetable_is_an_abstention_in_time() -> None:
    ring = [["a", "b"], ["b", "c"], ["c", "d"], ["d", "e"], ["e", "a"]]
    start = time.monotonic()
    answer = asyncio.run(timetable(exams=[*"abcde"], students=ring, slots=2, effort=Effort(deadline=start + 0.7)))
    assert time.monotonic() - start < 0.7
    assert [*answer.value] == [*"abcde"]
    assert (answer.confidence or 0) < 0.5
    for case in CASES:
        if case["expected"] is None:
            assert timetable.solve_sync(**case["input"]).accepted_by is None


# The model of another, by name and digest.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "timetable", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "timetable"


def change_card(folder: Path, old: str, new: str) -> None:
    card = folder / "specialist.toml"
    text = card.read_text("utf-8")
    assert old in text
    card.write_text(text.replace(old, new), "utf-8")


def test_the_card_names_the_model_and_a_copy_of_the_folder_asks_the_same(folder: Path) -> None:
    model = read_card(FOLDER).model
    assert model is not None
    assert (model.name, model.sha256) == ("constraints", model_digest("constraints"))
    assert load(folder, trust=True).solve_sync(exams=["a"], students=[], slots=1).value == {"a": 0}
    with pytest.raises(UntrustedFolder):
        load(folder)


def test_another_model_than_the_one_named_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = model_digest("constraints")
    change_card(folder, digest, "0" * 64)
    with pytest.raises(ModelRejected, match="the model of constraints is not the one the card names"):
        load(folder, trust=True)
    report = check(folder, trust=True)
    assert [finding.what for finding in report.findings if finding.status == "failed"] == ["model"]
    assert cli.main(["specialists", "seal", str(folder)]) == 0
    assert "is not the one the card names" in capsys.readouterr().err
    assert "0" * 64 in (folder / "specialist.toml").read_text("utf-8")  # its figures were measured with another
    assert cli.main(["specialists", "seal", str(folder), "--model"]) == 0
    assert capsys.readouterr().err == ""
    assert digest in (folder / "specialist.toml").read_text("utf-8")
    assert load(folder, trust=True).name == "timetable"


@pytest.mark.parametrize(("name", "says"), [("nobody", "'nobody' is none"), ("../constraints", "model.from")])
def test_only_a_bundled_specialist_lends_its_model(folder: Path, name: str, says: str) -> None:
    change_card(folder, 'from = "constraints"', f'from = "{name}"')
    with pytest.raises(CardError, match=re.escape(says)):
        load(folder, trust=True)


def test_a_folder_with_a_task_brings_its_own_model(folder: Path) -> None:
    table = '\n[text_classification]\nfeatures = "hashed-ngrams"\nmin_confidence = 0.5\n\n[model]'
    change_card(folder, 'function = "solver:timetable"', 'task = "text-classification"')
    change_card(folder, 'correct = "rules:is_right"', "")
    change_card(folder, 'generate = "generating:generate"', "")
    change_card(folder, "[model]", table)
    with pytest.raises(CardError, match="one with a task brings its own model"):
        read_card(folder)


def test_show_names_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["specialists", "show", "timetable", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == {"name": "constraints", "sha256": model_digest("constraints")}
    assert shown["declared"]["steps"] == "auto"
    assert cli.main(["specialists", "show", "timetable"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"model from +constraints \(", out)
    assert re.search(r"steps +as many as pay", out)
