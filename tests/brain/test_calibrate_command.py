"""``brain specialists calibrate`` as a user types it, and ``show``, ``try`` and ``seal`` beside it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from specialists import read_certificate
from specialists.card import CARD, seal
from specialists.certificates import CERTIFICATE
from specialists.scaffold import create

from ..specialists.folders import of_task
from .test_cli import Typed


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, and a state folder of its own."""
    monkeypatch.setenv("SPECIALISTS_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


@pytest.fixture
def roots(here: Path) -> Path:
    """The template's specialist with all its equations as cases: every answer can be proved."""
    create(here / "root_finder")
    rows = []
    for one in range(-9, 10):
        for other in range(one, 10):
            rows.append({"input": {"b": -one - other, "c": one * other}, "expected": one})
    return write(here / "roots.jsonl", rows)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def uses(tmp: Path) -> list[dict[str, Any]]:
    file = tmp.parent / "state" / "calibrations.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines() if line] if file.exists() else []


WIDE = ("--alpha", "0.05", "--delta", "0.1")


def test_a_certificate_is_made_written_shown_and_used(typed: Typed, roots: Path, here: Path) -> None:
    code, out, err = typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    assert code == 0
    assert "wrong at most 5 % of the time, with 90 % confidence" in out
    assert f"written to {here / 'root_finder' / CERTIFICATE}" in out.replace("root_finder/./", "root_finder/")
    assert "running the Python code in ./root_finder" in err
    made = read_certificate(here / "root_finder")
    assert made is not None
    assert (made.specialist, made.alpha, made.delta, made.errors) == ("root_finder", 0.05, 0.1, 0)
    assert made.groups[0].verified == made.n == 190
    assert made.command is not None
    assert made.command.startswith("brain specialists calibrate ./root_finder roots.jsonl --alpha 0.05 --delta 0.1")
    code, out, _ = typed("specialists", "show", "./root_finder", "--trust")
    assert code == 0
    assert "certificate: valid" in out
    assert made.sentence() in out
    assert "proofs only" in out
    shown = typed.json("specialists", "show", "./root_finder", "--trust")["certificate"]
    assert (shown["status"], shown["sentence"]) == ("valid", made.sentence())
    unread = typed.json("specialists", "show", "./root_finder")["certificate"]
    assert (unread["status"], unread["sentence"]) == ("unknown", made.sentence())
    code, out, _ = typed("specialists", "try", "./root_finder", "b=-5", "c=6")
    assert "accepted by: verified" in out


def test_what_it_prints_as_json(typed: Typed, roots: Path, here: Path) -> None:
    told = typed.json("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE, "--weaker")
    made = read_certificate(here / "root_finder")
    assert made is not None
    assert told["certificate"] == made.model_dump(mode="json")
    assert told["sentence"] == made.sentence()
    assert told["written"].endswith(CERTIFICATE)
    assert set(told["marginal_risk"]) == {"alpha", "min_confidence"}
    assert (told["refused"], told["format"]) == ({}, 1)


def test_too_few_cases_are_refused_with_their_number_and_nothing_is_written(
    typed: Typed, roots: Path, here: Path
) -> None:
    sentence = typed.refused("specialists", "calibrate", "./root_finder", "roots.jsonl", code=1)
    assert "190 cases do not support at most 1 % wrong at 95 % confidence" in sentence
    assert "about 299 cases" in sentence
    assert not (here / "root_finder" / CERTIFICATE).exists()
    told = typed.json("specialists", "calibrate", "./root_finder", "roots.jsonl", code=1)
    assert told["certificate"] is None
    assert (told["refused"][""]["reason"], told["refused"][""]["needed"]) == ("too few", 299)


def test_a_refusal_leaves_the_certificate_that_was_there(typed: Typed, roots: Path, here: Path) -> None:
    typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    before = (here / "root_finder" / CERTIFICATE).read_bytes()
    assert typed("specialists", "calibrate", "./root_finder", "roots.jsonl", "--reuse")[0] == 1
    assert (here / "root_finder" / CERTIFICATE).read_bytes() == before


def test_a_file_looked_at_before_is_told_of(typed: Typed, roots: Path, here: Path) -> None:
    words = ("specialists", "calibrate", "./root_finder", "roots.jsonl")
    assert typed(*words, *WIDE, "--dry-run")[0] == 0
    assert not (here / "root_finder" / CERTIFICATE).exists()
    assert len(uses(here)) == 1
    # The same again is the same calculation.
    assert typed(*words, *WIDE)[0] == 0
    made = read_certificate(here / "root_finder")
    assert made is not None
    assert made.uses == 0
    for other in (("--alpha", "0.06"), ("--alpha", "0.05", "--delta", "0.2"), (*WIDE, "--escalation", "3")):
        sentence = typed.refused(*words, *other)
        assert "these cases were looked at 1 time before" in sentence
        assert "--reuse" in sentence
    assert typed(*words, "--alpha", "0.06", "--reuse")[0] == 0
    made = read_certificate(here / "root_finder")
    assert made is not None
    assert made.uses == 1
    assert "looked at 1 time before" in made.sentence()
    # So it is after a change of the folder, which is what testing is for.
    (here / "root_finder" / "notes.txt").write_text("changed")
    seal(here / "root_finder")
    assert "looked at 2 times before" in typed.refused(*words, *WIDE)
    # In another order they are the same cases; others are others.
    write(here / "turned.jsonl", [json.loads(line) for line in roots.read_text().splitlines()][::-1])
    assert "looked at 2 times" in typed.refused(*words[:3], "turned.jsonl", *WIDE)
    write(here / "fewer.jsonl", [json.loads(line) for line in roots.read_text().splitlines()][1:])
    assert typed(*words[:3], "fewer.jsonl", *WIDE)[0] == 0


def test_a_counter_that_cannot_be_written_is_complained_of_and_no_more(
    typed: Typed, roots: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("SPECIALISTS_STATE", str(here / "file"))
    code, _, err = typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    assert code == 0
    assert "cannot be told" in err
    assert "cannot be noted" in err
    assert "SPECIALISTS_STATE" in err


def row(b: int = -5, c: int = 6, **more: Any) -> dict[str, Any]:
    return {"input": {"b": b, "c": c}, "expected": 2, **more}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cases.jsonl holds no rows"),
        ("\n\n  \n", "cases.jsonl holds no rows"),
        ("{", "line 1: not JSON"),
        ("[]\n", "line 1: not of the form"),
        ('{"input": {"b": 1, "c": 1}, "expected": NaN}', "line 1: not JSON"),
        ('{"input": {"b": 1, "c": 1}, "expected": 1, "expected": 2}', "line 1: not JSON"),
        (json.dumps(row(b=99)), "line 1: root_finder: b: input should be less than or equal to 18"),
        (json.dumps(row() | {"input": {"b": 1}}), "line 1: the argument 'c' of root_finder is missing"),
        (json.dumps(row() | {"input": {"b": 1, "c": 1, "d": 1}}), "line 1: root_finder has no argument 'd'"),
        (json.dumps(row(specialist="sudoku")), "line 1: it is a case of 'sudoku', not of 'root_finder'"),
        (json.dumps(row(group=1)), "line 1: 'group' is a text"),
        (json.dumps(row(expected="two")), 'line 1: the label "two" is no answer of root_finder'),
        (json.dumps(row(expected=1.5)), "line 1: the label 1.5 is no answer of root_finder"),
        (
            json.dumps(row()) + "\n" + json.dumps(row(expected=3)),
            "line 2: line 1 has the same input with another label",
        ),
        ("\ufeff" + json.dumps(row(expected="x")), "line 1: the label"),
        (json.dumps(row()) + "\n\udcff", "line 2: not UTF-8"),
        ("[" * 100_000, "line 1: nested too deeply"),
        (json.dumps(row(expected="x" * 100_000)), "line 1: the label"),
        (json.dumps(row(expected="\x1b[2J")), "line 1: the label"),
    ],
)
def test_cases_that_cannot_be_used(typed: Typed, here: Path, content: str, says: str) -> None:
    create(here / "root_finder")
    (here / "cases.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    before = sorted(here.rglob("*.*"))
    sentence = typed.refused("specialists", "calibrate", "./root_finder", "cases.jsonl")
    assert says in sentence
    assert len(sentence) < 500
    assert "\x1b" not in sentence
    assert [path for path in sorted(here.rglob("*.*")) if "__pycache__" not in str(path)] == before
    assert uses(here) == []


def test_unlabelled_rows_of_a_specialist_that_cannot_judge_itself(typed: Typed, here: Path) -> None:
    of_task(here / "mood")
    write(here / "cases.jsonl", [{"input": {"text": "happy"}}])
    sentence = typed.refused("specialists", "calibrate", "./mood", "cases.jsonl", "--trust")
    assert 'line 1: there is no "expected"' in sentence
    write(here / "cases.jsonl", [{"input": {"text": "happy"}, "expected": {"label": "hungry"}}])
    sentence = typed.refused("specialists", "calibrate", "./mood", "cases.jsonl", "--trust")
    assert "is no answer of mood" in sentence


def test_repeats_are_told_and_counted_once_unless_they_were_drawn(typed: Typed, roots: Path, here: Path) -> None:
    many = write(here / "many.jsonl", [json.loads(line) for line in roots.read_text().splitlines()] * 2)
    code, out, err = typed("specialists", "calibrate", "./root_finder", many.name, *WIDE)
    assert code == 0
    assert "190 rows repeat an input that stands in many.jsonl before" in err
    assert "--drawn" in err
    assert "none wrong of 190 accepted" in out
    code, out, err = typed("specialists", "calibrate", "./root_finder", many.name, "--drawn")
    assert code == 0
    assert "repeat" not in err
    assert "none wrong of 380 accepted" in out
    assert "as drawn, with repeats" in out


@pytest.mark.parametrize("option", ["--alpha", "--delta"])
@pytest.mark.parametrize("value", ["0", "1", "-0.1", "2", "nan", "inf", "x", "", "1e-400", "0,01"])
def test_levels_that_are_none(typed: Typed, roots: Path, here: Path, option: str, value: str) -> None:
    sentence = typed.refused("specialists", "calibrate", "./root_finder", "roots.jsonl", f"{option}={value}")
    assert "does not lie between 0 and 1" in sentence
    assert not (here / "root_finder" / CERTIFICATE).exists()
    assert uses(here) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["./root_finder"], "give either CASES.jsonl or --generate N"),
        (["./root_finder", "roots.jsonl", "--generate", "5"], "give either CASES.jsonl or --generate N"),
        (["./root_finder", "--generate", "5"], "root_finder brings no generator"),
        (["./root_finder", "nowhere.jsonl"], "'nowhere.jsonl' cannot be used"),
        (["./root_finder", "root_finder"], "cannot be used"),
        (["./root_finder", "roots.jsonl", "--out", "nowhere/c.json"], "there is no folder 'nowhere'"),
        (["./root_finder", "roots.jsonl", "--out", "root_finder"], "is a folder; name a file"),
        (["./nothing", "roots.jsonl"], "there is no folder"),
        (["nothing", "roots.jsonl"], "there is no specialist 'nothing'"),
    ],
)
def test_what_is_asked_wrongly(typed: Typed, roots: Path, here: Path, words: list[str], says: str) -> None:
    assert says in typed.refused("specialists", "calibrate", *words)
    assert uses(here) == []


def test_it_can_be_written_elsewhere(typed: Typed, roots: Path, here: Path) -> None:
    assert typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE, "--out", "mine.json")[0] == 0
    assert read_certificate(here / "mine.json") is not None
    assert not (here / "root_finder" / CERTIFICATE).exists()


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_runs(
    typed: Typed, roots: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "root_finder" not in str(path) and access(path, mode))
    sentence = typed.refused("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    assert "cannot be written to" in sentence
    assert uses(here) == []


def test_groups(typed: Typed, roots: Path, here: Path) -> None:
    rows = [json.loads(line) for line in roots.read_text().splitlines()]
    wrong = {"input": {"b": 0, "c": -4}, "expected": None, "group": "out"}
    write(here / "groups.jsonl", [*({**each, "group": "\x1b[31min"} for each in rows), wrong])
    # Found right where an abstention was wanted: nothing of that group can be accepted.
    told = typed.json("specialists", "calibrate", "./root_finder", "groups.jsonl", *WIDE)
    assert [each["group"] for each in told["certificate"]["groups"]] == ["\x1b[31min"]
    assert told["certificate"]["groups"][0]["level"] == 0.05
    assert list(told["refused"]) == ["out"]
    code, out, _ = typed("specialists", "calibrate", "./root_finder", "groups.jsonl", *WIDE)
    assert code == 0
    assert "no certificate: root_finder, group 'out'" in out
    assert "\x1b" not in out


GENERATOR = """

def generate(seed):
    import random
    draw = random.Random(seed)
    while True:
        one, other = sorted((draw.randint(-9, 9), draw.randint(-9, 9)))
        yield {"input": {"b": -one - other, "c": one * other}, "expected": one}
"""


def with_generator(folder: Path, code: str = GENERATOR) -> None:
    create(folder)
    with (folder / "specialist.py").open("a") as file:
        file.write(code)
    card = folder / CARD
    card.write_text(card.read_text().replace("correct =", 'generate = "specialist:generate"\ncorrect ='))
    seal(folder)


def test_cases_may_be_made(typed: Typed, here: Path) -> None:
    with_generator(here / "root_finder")
    words = ("specialists", "calibrate", "./root_finder", "--generate", "300")
    code, out, _ = typed(*words, "--seed", "7")
    assert code == 0
    assert "none wrong of 300 accepted" in out
    assert "made by its generator" in out
    made = read_certificate(here / "root_finder")
    assert made is not None
    assert made.command is not None
    assert "--generate 300 --seed 7" in made.command
    again = typed.json(*words, "--seed", "7")["certificate"]
    assert again["cases_sha256"] == made.cases_sha256
    other = typed.json(*words, "--seed", "8")["certificate"]
    assert other["cases_sha256"] != made.cases_sha256
    assert other["uses"] == 0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("\n\ndef generate(seed):\n    return iter(())\n", "holds no rows"),
        ("\n\ndef generate(seed):\n    yield {'input': {'b': 1, 'c': 1}, 'expected': 'x'}\n", "the label"),
        ("\n\ndef generate(seed):\n    yield 7\n", "not of the form"),
        ("\n\ngenerate = 7\n", "is not a function"),
    ],
)
def test_a_generator_that_makes_no_cases(typed: Typed, here: Path, code: str, says: str) -> None:
    with_generator(here / "root_finder", code)
    assert says in typed.refused("specialists", "calibrate", "./root_finder", "--generate", "5")


def test_a_generator_that_fails_is_one_sentence(typed: Typed, here: Path) -> None:
    with_generator(here / "root_finder", "\n\ndef generate(seed):\n    raise KeyError('oh')\n    yield\n")
    sentence = typed.refused("specialists", "calibrate", "./root_finder", "--generate", "5", code=1)
    assert "KeyError" in sentence


# Voids.


def test_a_change_that_is_sealed_voids_it(typed: Typed, roots: Path, here: Path) -> None:
    typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    with (here / "root_finder" / "specialist.py").open("a") as file:
        file.write("\n# changed\n")
    code, out, err = typed("specialists", "show", "./root_finder", "--trust")
    assert code == 1
    assert "certificate: void: the folder's files are not those that it was made with" in out
    assert "its code was not run" in err
    assert typed("specialists", "seal", "./root_finder")[0] == 0
    shown = typed.json("specialists", "show", "./root_finder", "--trust")["certificate"]
    assert (shown["status"], shown["reason"]) == (
        "void",
        "the folder's files are not those that it was made with",
    )
    code, out, _ = typed("specialists", "try", "./root_finder", "b=-5", "c=6")
    assert code == 0
    assert "accepted by: verified" in out


def test_one_byte_of_the_model(typed: Typed, here: Path) -> None:
    of_task(here / "mood")
    rows = [
        {"input": {"text": f"{text} {number}"}, "expected": label}
        for text, label in (("so very happy", "glad"), ("such an awful day", "sad"))
        for number in range(40)
    ]
    write(here / "cases.jsonl", rows)
    assert typed("specialists", "calibrate", "./mood", "cases.jsonl", "--alpha", "0.1", "--trust")[0] == 0
    told = typed.json("specialists", "try", "./mood", "happy", "--trust")
    assert told["accepted_by"] == "certified"
    # Nobody has trusted it here.
    told = typed.json("specialists", "try", "./mood", "happy")
    assert told["accepted_by"] == "confident"
    assert told["policy"]["certificate"]["status"] == "void"
    content = bytearray((here / "mood" / "model.onnx").read_bytes())
    content[content.rindex(b"\x00\x00\xc0@")] ^= 1
    (here / "mood" / "model.onnx").write_bytes(content)
    assert "is not the file the card names" in typed.refused("specialists", "try", "./mood", "happy", code=1)
    typed("specialists", "seal", "mood")
    told = typed.json("specialists", "try", "./mood", "happy", "--trust")
    assert told["accepted_by"] == "confident"
    assert told["policy"]["certificate"]["status"] == "void"


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff", b"[" * 10_000, b'{"specialist": "\\u001b[2J"}'])
def test_show_copes_with_what_is_no_certificate(typed: Typed, here: Path, content: bytes) -> None:
    create(here / "root_finder")
    (here / "root_finder" / CERTIFICATE).write_bytes(content)
    code, out, _ = typed("specialists", "show", "./root_finder")
    assert code == 0
    assert "certificate: void: " in out
    assert "is not a certificate" in out
    assert "\x1b" not in out


def test_show_obeys_no_word_of_a_certificate(typed: Typed, roots: Path, here: Path) -> None:
    typed("specialists", "calibrate", "./root_finder", "roots.jsonl", *WIDE)
    path = here / "root_finder" / CERTIFICATE
    data = json.loads(path.read_text())
    hostile = "\x1b]0;gone\x07[bold red]\u202e"
    data |= {"specialist": hostile, "provider": hostile, "precision": hostile, "onnxruntime": hostile}
    data["groups"][0] |= {"group": hostile, "policy": {hostile: {"passed": 0.5}}}
    path.write_text(json.dumps(data))
    code, out, _ = typed("specialists", "show", "./root_finder", "--trust")
    assert code == 0
    assert "certificate: void: it is of the specialist" in out
    assert not set("\x1b\x07\u202e") & set(out)
    assert "[bold red]" in out


# A user's trial: a new specialist, of a task that is none of the project's, by the command line only.

TRIAL = '''"""Says whether two numbers lie inside of a ring."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from specialists import Answer, Symmetry, specialist

INNER, OUTER = 0.3, 0.8


def turned(arguments):
    return {"x": -arguments["y"], "y": arguments["x"]}


@specialist(symmetries=[Symmetry("a quarter turn", turned)], min_confidence=0.5)
def ring(x: Annotated[float, Field(ge=-1, le=1)], y: Annotated[float, Field(ge=-1, le=1)]) -> Answer[bool]:
    """Whether a point lies inside of the ring: no farther out than 0.8, and farther than 0.3."""
    radius = abs(x) * 0.97 + abs(y) * 0.4 if abs(x) > abs(y) else abs(y) * 0.97 + abs(x) * 0.4
    sure = min(1.0, 4 * min(abs(radius - INNER), abs(radius - OUTER)))
    return Answer(INNER < radius <= OUTER, sure)
'''


def ring_rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        x, y = round(draw.uniform(-1, 1), 6), round(draw.uniform(-1, 1), 6)
        rows.append({"input": {"x": x, "y": y}, "expected": 0.3 < (x * x + y * y) ** 0.5 <= 0.8})
    return rows


def command(*words: str, code: int = 0) -> str:
    """In a process of its own, as a user does it."""
    done = subprocess.run(
        [sys.executable, "-m", "brain.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_users_trial(typed: Typed, here: Path) -> None:
    assert typed("specialists", "new", "ring")[0] == 0
    folder = here / "ring"
    (folder / "specialist.py").write_text(TRIAL)
    for name in ("model.onnx", "test_specialist.py"):
        (folder / name).unlink()
    card = (folder / CARD).read_text().replace('correct = "specialist:is_root"\n', "")
    (folder / CARD).write_text(card)
    write(folder / "cases.jsonl", ring_rows(10, 1))
    assert typed("specialists", "seal", "./ring")[0] == 0
    write(here / "few.jsonl", ring_rows(100, 2))
    told = command("specialists", "calibrate", "./ring", "few.jsonl", code=1)
    assert "cases do not support" in told
    write(here / "many.jsonl", ring_rows(3_000, 3))
    told = command("specialists", "calibrate", "./ring", "many.jsonl", "--alpha", "0.02")
    assert "wrong at most 2 % of the time, with 95 % confidence" in told
    made = read_certificate(folder)
    assert made is not None
    assert 0.3 < made.coverage < 1
    # Another process finds it valid, at the same files and the same ladder.
    told = command("specialists", "show", "./ring", "--trust")
    assert "certificate: valid" in told
    assert made.sentence() in told
    sure = json.loads(command("specialists", "try", "./ring", "x=0.5", "y=0.01", "--json").splitlines()[0])
    assert (sure["accepted_by"], sure["value"]) == ("certified", True)
    unsure = json.loads(command("specialists", "try", "./ring", "x=0.8", "y=0.06", "--json", code=1).splitlines()[0])
    assert unsure["accepted_by"] is None
    assert [each["outcome"] for each in unsure["attempts"]] == ["answered"] * len(unsure["attempts"])
    # New cases from the same place: the promise is kept.
    asked = ring_rows(400, 4)
    from specialists import load

    s = load(folder, trust=True).under("certified")
    outcomes = [(s.solve_sync(**each["input"]), each["expected"]) for each in asked]
    accepted = [(outcome.value, expected) for outcome, expected in outcomes if outcome.accepted]
    assert len(accepted) > 100
    assert sum(value != expected for value, expected in accepted) <= 0.05 * len(accepted)
    # A change, sealed: void, and the declared floor stands again.
    (folder / "specialist.py").write_text(TRIAL.replace("0.97", "0.96"))
    assert typed("specialists", "seal", "./ring")[0] == 0
    told = command("specialists", "show", "./ring", "--trust")
    assert "certificate: void: the folder's files are not those" in told
    sure = json.loads(command("specialists", "try", "./ring", "x=0.5", "y=0.01", "--json").splitlines()[0])
    assert sure["accepted_by"] == "confident"
    assert "looked at" in command("specialists", "calibrate", "./ring", "many.jsonl", "--alpha", "0.02", code=2)


def test_the_help_teaches(typed: Typed) -> None:
    code, out, _ = typed("specialists", "calibrate", "--help")
    assert code == 0
    for word in ("299", "1,000 with at most 4", "5,000 with at most 38", "--reuse", "--drawn", "group"):
        assert word in out
    assert "brain specialists calibrate" in out.split("example:")[1]
