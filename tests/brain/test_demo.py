"""``brain demo`` as its user sees it, and its JSON as a program reads it that knows the rules of Sudoku."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from brain import cli
from brain.demo import INBOX, main, read_inbox
from brain.testing import FakeEndpoint, call
from specialists import MissingRuntime

ROWS = [json.loads(line) for line in INBOX.read_text("utf-8").splitlines()]
CALL = {"tool", "answered_by", "accepted_by", "attempts"}
ATTEMPT = {"rung", "outcome", "seconds", "steps", "confidence", "verdict", "reason", "cost"}


def grid_in(request: str) -> str:
    """The Sudoku of a request, in one line or in nine."""
    return "".join(re.findall(r"(?<![^\s])[0-9.]{9,}(?![^\s])", request)).replace("0", ".")


def solves(puzzle: str, answer: str) -> bool:
    """By the rules of Sudoku alone."""
    if not re.fullmatch(r"[1-9]{81}", answer) or any(p not in (".", a) for p, a in zip(puzzle, answer, strict=True)):
        return False
    places = range(9)
    lines = [[(r, c) for c in places] for r in places] + [[(r, c) for r in places] for c in places]
    lines += [[(3 * (b // 3) + i // 3, 3 * (b % 3) + i % 3) for i in places] for b in places]
    return all(len({answer[9 * r + c] for r, c in line}) == 9 for line in lines)


def demo(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    got = cli.main(["demo", "--json", *words])
    out, err = capsys.readouterr()
    assert got == code, err
    assert "Traceback" not in err
    return [json.loads(line) for line in out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence that a wrong use gets."""
    assert cli.main(["demo", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("brain: ")
    return err


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "BRAIN_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """The shipped inbox, run once."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["demo", "--json"]) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_shipped_inbox_is_answered_as_a_reader_expects(answers: list[dict[str, Any]]) -> None:
    assert [answer["request"] for answer in answers] == [row["request"] for row in ROWS]
    solvable = solved = labels = labelled = 0
    wrong = []
    for row, answer in zip(ROWS, answers, strict=True):
        calls = {one["tool"]: one for one in answer["calls"]}
        puzzle = grid_in(row["request"])
        expected = row.get("expected", {})
        if "label" in expected:
            labelled += 1
            labels += list(calls) == ["intent"] and calls["intent"]["value"]["label"] == expected["label"]
        elif "desk" in expected:
            assert list(calls) == ["intent", "desk_for"]
            assert expected["desk"] in calls["desk_for"]["value"]
        elif "row" in expected:
            assert list(calls) == ["sudoku", "row_of"]
            assert calls["row_of"]["value"] == expected["row"]
        if len(puzzle) == 81 and calls["sudoku"]["accepted_by"]:
            solvable += 1
            solved += solves(puzzle, calls["sudoku"]["value"]) and calls["sudoku"]["accepted_by"] == "verified"
        elif len(puzzle) == 81:
            wrong.append(row["request"])
    assert labelled == 6
    assert labels >= 5
    assert solved == solvable
    assert wrong == [ROWS[-1]["request"]]  # the one that has no solution


def test_what_nobody_can_answer_is_an_abstention_with_its_reason(answers: list[dict[str, Any]]) -> None:
    ends = {answer["request"]: answer for answer in answers}

    def ending(part: str) -> dict[str, Any]:
        return next(answer for request, answer in reversed(ends.items()) if part in request)

    poem = ending("Write a warm paragraph")
    assert poem["calls"] == []
    assert "No tool fits" in poem["error"]["message"]
    short = next(a for r, a in ends.items() if len(grid_in(r)) == 80)
    assert short["calls"] == []
    assert "'puzzle' (81 characters" in short["error"]["message"]
    assert "one of 80" in short["error"]["message"]
    presents = ending("wedding presents")
    assert [one["tool"] for one in presents["calls"]] == ["intent"]
    assert presents["calls"][0]["accepted_by"] is None
    assert "confidence" in presents["error"]["message"]
    unsolvable = ends[ROWS[-1]["request"]]
    assert [one["tool"] for one in unsolvable["calls"]] == ["sudoku"]
    assert unsolvable["calls"][0]["accepted_by"] is None
    assert {a["error"]["type"] for a in (poem, short, presents, unsolvable)} == {"Abstained"}
    assert all(a["output"] is None for a in (poem, short, presents, unsolvable))


def test_the_shape_that_programs_read(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert set(answer) == {"request", "output", "calls", "usage", "error", "format"}
        assert answer["format"] == 1
        assert (answer["output"] is None) == (answer["error"] is not None)
        for one in answer["calls"]:
            assert set(one) >= CALL
            assert one["attempts"]
            assert all(set(attempt) == ATTEMPT for attempt in one["attempts"])
            assert all(attempt["seconds"] >= 0 for attempt in one["attempts"])


def test_a_reader_sees_a_table_a_receipt_and_what_a_model_would_be_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox.txt"
    inbox.write_text("Route this customer message: 'i lost my credit card'\nSing me a song\n", "utf-8")
    assert cli.main(["demo", "--inbox", str(inbox)]) == 0
    out, _ = capsys.readouterr()
    for part in ("answered by", "accepted by", "receipt", "report_lost_card", "No tool fits", "Sing me a song"):
        assert part in out
    assert "A connected model (--model openai:NAME) would have been asked: 1 whole request(s)" in " ".join(out.split())


def test_an_inbox_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "# mine\n\nRoute this customer message: 'what is my balance'\n  Write a limerick  \n"
    plain = tmp_path / "inbox.txt"
    plain.write_text(text, "utf-8")
    lines = tmp_path / "inbox.jsonl"
    lines.write_text("\n".join(json.dumps({"request": r}) for r in read_inbox(plain)) + "\n", "utf-8")
    first, second = demo(capsys, "--inbox", str(plain)), demo(capsys, "--inbox", str(lines))
    assert [a["request"] for a in first] == ["Route this customer message: 'what is my balance'", "Write a limerick"]
    assert [(a["request"], a["output"]) for a in first] == [(a["request"], a["output"]) for a in second]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9 au lait\n", "not UTF-8"),
        (b"", "has no requests"),
        (b"# nothing\n\n", "has no requests"),
        (b'{"request": 3}\n', "not text"),
        (b'{"question": "x"}\n', '{"request"'),
        (b"{broken\n", "line 1"),
        (None, "cannot be read"),
    ],
)
def test_an_inbox_that_is_none_gets_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, said: str
) -> None:
    inbox = tmp_path / "inbox.txt"
    if content is not None:
        inbox.write_bytes(content)
    sentence = refused(capsys, "--inbox", str(inbox), "--json")
    assert said in sentence
    assert "inbox.txt" in sentence


def test_the_same_inbox_with_a_real_endpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox.txt"
    inbox.write_text("Please route: 'i lost my credit card'\n", "utf-8")
    said = [call("intent", text="i lost my credit card"), "It is a lost card."]
    with FakeEndpoint(said) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        (answer,) = demo(capsys, "--inbox", str(inbox), "--model", "openai:x")
        assert len(endpoint.meter) == 2
    assert answer["output"] == "It is a lost card."
    assert [(one["tool"], one["accepted_by"]) for one in answer["calls"]] == [("intent", "certified")]


@pytest.mark.parametrize("model", ["x", "nobody:x", "openai:x"])
def test_a_model_that_cannot_be_named_gets_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    refused(capsys, "--model", model)


def test_without_a_runtime_the_remedy_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingRuntime, match=r"brain-specialists\[cpu\]"):
        main(None, None, True)
