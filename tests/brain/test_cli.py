"""The command line as a user types it: what it prints, how it ends, and one sentence for whatever goes wrong."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brain import cli
from brain.commands import doctor, terminal
from specialists.card import seal
from specialists.scaffold import create

from ..specialists.folders import of_task, with_code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the specialist ``root_finder`` in it."""
    create(tmp_path / "root_finder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    return tmp_path


class Typed:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *words: str, code: int = 0) -> Any:
        got, out, err = self(*words, "--json")
        assert got == code, err
        assert out.count("\n") == 1
        return json.loads(out)

    def refused(self, *words: str, code: int = 2) -> str:
        """The one sentence on stderr; stdout stays empty."""
        got, out, err = self(*words)
        lines = [line for line in err.splitlines() if "as you named this folder" not in line]
        assert (got, out, len(lines)) == (code, "", 1), (out, err)
        assert lines[0].startswith("brain: ")
        return lines[0]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


def test_alone_it_helps_and_tells_its_version(typed: Typed) -> None:
    code, out, _ = typed()
    assert code == 0
    assert all(command.name in out for command in cli.COMMANDS)
    assert typed("--version")[1].startswith("brain ")
    assert typed("specialists")[0] == 0


@pytest.mark.parametrize("name", ["list", "show", "try", "new", "check", "eval", "seal"])
def test_each_sub_command_teaches_by_an_example(typed: Typed, name: str) -> None:
    code, out, _ = typed("specialists", name, "--help")
    assert code == 0
    assert f"brain specialists {name}" in out.split("example:")[1]


def test_the_help_of_eval_explains_each_figure(typed: Typed, here: Path) -> None:
    figures = typed.json("specialists", "eval", "./root_finder", "root_finder/cases.jsonl")
    _, out, _ = typed("specialists", "eval", "--help")
    assert [name for name in figures if name not in out] == ["format"]


def test_from_a_new_folder_to_a_measured_specialist(typed: Typed, here: Path) -> None:
    code, out, _ = typed("specialists", "new", "second")
    assert code == 0
    assert "brain specialists check second --trust" in out
    code, out, err = typed("specialists", "check", "second", "--trust")
    assert code == 0
    assert "second passes" in out
    assert "running the Python code in ./second" in err
    code, out, err = typed("specialists", "try", "./second", "b=-5", "c=6")
    assert code == 0
    assert "answer: 3" in out
    assert "accepted by: verified" in out
    assert err.count("\n") == 1
    code, out, _ = typed("specialists", "eval", "./second", "second/cases.jsonl")
    assert code == 0
    assert "in_scope_accuracy" in out
    assert "failed the check" in out


def test_what_machines_read(typed: Typed, here: Path) -> None:
    assert typed.json("specialists", "new", "second")["name"] == "second"
    assert typed.json("specialists", "check", "second", "--trust")["passed"] is True
    assert set(typed.json("specialists", "seal", "second")["files"]) > {"model.onnx", "specialist.py"}
    assert typed.json("specialists", "try", "./second", "b=-5", "c=6")["accepted_by"] == "verified"
    assert typed.json("specialists", "try", "./second", "b=0", "c=1", code=1)["accepted_by"] is None
    shown = typed.json("specialists", "show", "./second", "--trust")
    assert shown["declared"] == {
        "verifier": "verify",
        "sound": True,
        "complete": True,
        "min_confidence": 0.9,
        "timeout": 10.0,
        "steps": [],
        "next": None,
    }
    assert shown["arguments"]["required"] == ["b", "c"]
    assert not any(entry["problem"] for entry in shown["files"])
    assert shown["measured"][0]["command"].startswith("brain specialists eval")
    figures = typed.json("specialists", "eval", "./second", "second/cases.jsonl", "--timeout", "5", "--max-steps", "4")
    assert (figures["n"], figures["correct"], figures["abstained"], figures["format"]) == (12, 10, 2, 1)
    assert isinstance(typed.json("specialists", "list")["specialists"], list)


@pytest.mark.parametrize(
    "words",
    [["b=-5", "c=6"], ['{"b": -5, "c": 6}'], ["--json", "b=-5", "c=6"], ["b=-5", "--json", "c=6"]],
)
def test_arguments_in_each_form_and_order(typed: Typed, here: Path, words: list[str]) -> None:
    code, out, _ = typed("specialists", "try", "./root_finder", *words)
    assert code == 0
    assert "3" in out


ONE_TEXT = """
from specialists import Answer, specialist

@specialist(min_confidence=0.5)
def it(text: str, times: int = 1) -> Answer[str]:
    '''Say it again.'''
    return Answer(text * times, confidence=1.0)
"""


def test_one_plain_value_is_enough_for_one_parameter(typed: Typed, tmp_path: Path) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    (folder / "specialist.toml").write_text(
        'format = 1\nname = "it"\nversion = "1"\ndescription = "It."\nfunction = "code:it"\n[files]\n'
    )
    (folder / "code.py").write_text(ONE_TEXT.replace(", times: int = 1", "").replace(" * times", ""))
    seal(folder)
    for text in ("two words", "a=b", "12", "{not JSON", "-5", "true", "\x1b[31mred"):
        code, out, _ = typed("specialists", "try", str(folder), text)
        assert code == 0
        assert f"answer: {terminal.plain(text)}" in out
        assert "\x1b" not in out
    assert "answer: a" in typed("specialists", "try", str(folder), "text=a")[1]
    assert "quotes" in typed.refused("specialists", "try", str(folder), "two", "words")
    assert "is not UTF-8 text" in typed.refused("specialists", "try", str(folder), "\udcff")
    (folder / "code.py").write_text(ONE_TEXT)
    seal(folder)
    assert "answer: abab" in typed("specialists", "try", str(folder), "text=ab", "times=2")[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope"], "invalid choice: 'nope'"),
        (["specialists", "nope"], "invalid choice: 'nope'"),
        (["specialists", "list", "more"], "unrecognized argument 'more'; see `brain specialists list --help`"),
        (["specialists", "try"], "required: NAME"),
        (["specialists", "show", "nope"], "there is no specialist 'nope'"),
        (["specialists", "show", ""], "there is no specialist ''"),
        (["specialists", "show", "root_finder"], "write './root_finder'"),
        (["specialists", "show", "./nope"], "there is no folder"),
        (["specialists", "try", "./root_finder"], "b is missing; c is missing"),
        (["specialists", "try", "./root_finder", "5"], "give its arguments as b=... c=..."),
        (["specialists", "try", "./root_finder", "b=\udcff", "c=1"], "is not UTF-8 text"),
        (["specialists", "try", "./root_finder", "b=1"], "c is missing"),
        (["specialists", "try", "./root_finder", "b=1", "c=x"], "valid integer"),
        (["specialists", "try", "./root_finder", "b=1", "c=2", "z=3"], "z is not a parameter"),
        (["specialists", "try", "./root_finder", "b=1", "b=2"], "'b' is given twice"),
        (["specialists", "try", "./root_finder", "{"], "not JSON"),
        (["specialists", "try", "./root_finder", "b=1000", "c=0"], "less than or equal to 18"),
        (["specialists", "new", "root_finder"], "is there already"),
        (["specialists", "new", "class"], "cannot be a specialist's name"),
        (["specialists", "check", "nope"], "there is no folder 'nope'"),
        (["specialists", "seal", "."], "has no specialist.toml"),
        (["specialists", "eval", "./root_finder", "nope.jsonl"], "'nope.jsonl' cannot be used: no such file"),
        (["specialists", "eval", "./root_finder", "."], "'.' cannot be used: is a directory"),
        (["specialists", "eval", "nope", "root_finder/cases.jsonl"], "there is no specialist 'nope'"),
        (["specialists", "eval", "./root_finder", "empty.jsonl"], "empty.jsonl holds no rows"),
        (["specialists", "eval", "./root_finder", "bad.jsonl"], "bad.jsonl, line 2: not JSON"),
        (
            ["specialists", "eval", "./root_finder", "other.jsonl"],
            "other.jsonl, line 1: root_finder has no argument 'z'",
        ),
        (["specialists", "eval", "./root_finder", "empty.jsonl", "--timeout", "0"], "'0' is not a positive number"),
        (["specialists", "eval", "./root_finder", "empty.jsonl", "--timeout", "inf"], "'inf' is not a positive"),
        (["specialists", "eval", "./root_finder", "empty.jsonl", "--threads", "-1"], "'-1' is not a positive whole"),
        (["specialists", "eval", "./root_finder", "empty.jsonl", "--threads", "100000"], "is more than 256 threads"),
        (["specialists", "eval", "./root_finder", "empty.jsonl", "--max-steps", "1.5"], "is not a positive whole"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_code_2(typed: Typed, here: Path, words: list[str], sentence: str) -> None:
    (here / "empty.jsonl").write_text("\n\n")
    good = (here / "root_finder" / "cases.jsonl").read_text().splitlines()[0]
    (here / "bad.jsonl").write_text(good + "\nnot JSON\n")
    (here / "other.jsonl").write_text('{"input": {"z": 1, "b": 1, "c": 1}, "expected": 1}\n')
    assert sentence in typed.refused(*words)


def test_a_changed_file_is_named_with_its_remedy_and_no_code_is_run(typed: Typed, here: Path) -> None:
    (here / "root_finder" / "specialist.py").write_text("raise SystemExit('never run')")
    for words in (["try", "./root_finder", "b=1", "c=0"], ["eval", "./root_finder", "root_finder/cases.jsonl"]):
        sentence = typed.refused("specialists", *words, code=1)
        assert "running the Python code" not in typed("specialists", *words)[2]
        assert "'specialist.py' is not the file the card names" in sentence
        assert "brain specialists seal" in sentence
    code, out, err = typed("specialists", "show", "./root_finder")
    assert code == 1
    assert "specialist.py" in out
    assert "its code was not run" in err
    code, out, _ = typed("specialists", "check", "root_finder")
    assert code == 1
    assert "brain specialists seal root_finder" in out


def test_list_show_and_check_run_no_code_without_trust(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_code(tmp_path / "doubler")
    site = tmp_path / "site"
    (site / "installed_doubler-1.0.dist-info").mkdir(parents=True)
    info = site / "installed_doubler-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed_doubler\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[specialists]\ndoubler = installed_doubler\nbare = installed_bare:it\n")
    (with_code(site / "installed_doubler") / "__init__.py").write_text("from .code import doubler\n")
    assert typed("specialists", "seal", str(site / "installed_doubler"))[0] == 0
    (site / "installed_bare.py").write_text("from pathlib import Path\nPath('canary').write_text('the code ran')\n")
    monkeypatch.syspath_prepend(str(site))
    assert {"doubler", "bare", "intent"} <= {each["name"] for each in typed.json("specialists", "list")["specialists"]}
    for name in ("./doubler", "doubler", "bare"):
        code, out, err = typed("specialists", "show", name)
        assert (code, err) == (0, "")
        assert "its Python was not run" in out
        shown = typed.json("specialists", "show", name)
        assert "declared" not in shown
        assert "--trust" in shown["note"]
    code, out, err = typed("specialists", "check", "doubler")
    assert (code, err) == (0, "")
    assert "doubler passes as far as it was looked at" in out
    assert not list(tmp_path.rglob("canary"))
    assert not list(tmp_path.rglob("__pycache__"))
    code, out, err = typed("specialists", "show", "./doubler", "--trust")
    assert "running the Python code in ./doubler" in err
    assert "verify (sound and complete)" in out
    assert (tmp_path / "canary").exists()


def test_a_folder_without_code_needs_no_trust(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of_task(tmp_path / "mood")
    shown = typed.json("specialists", "show", "./mood")
    assert shown["answer"]["properties"]["label"]["enum"] == ["glad", "sad", "other"]
    assert (shown["task"], shown["note"]) == ("text-classification", None)
    if sys.platform != "linux":
        return
    for trust in ([], ["--trust"]):
        code, out, err = typed("specialists", "try", "./mood", "so happy", *trust)
        assert (code, err) == (0, "")
        assert 'answer: {"label": "glad"}' in out
    assert typed.json("specialists", "eval", "./mood", "mood/cases.jsonl")["correct"] == 2
    assert "mood passes." in typed("specialists", "check", "mood")[1]


def test_an_abstention_is_exit_code_1_with_the_reason(typed: Typed, here: Path) -> None:
    code, out, _ = typed("specialists", "try", "./root_finder", "b=0", "c=1")
    assert code == 1
    assert "abstained: root_finder: its answer failed the check" in out


def test_a_false_claim_is_exit_code_1(typed: Typed, here: Path) -> None:
    path = here / "root_finder" / "specialist.py"
    path.write_text(path.read_text().replace("return Verdict.failed(f", "return Verdict.passed(f"))
    assert typed("specialists", "seal", "root_finder")[0] == 0
    code, out, _ = typed("specialists", "check", "root_finder", "--trust")
    assert code == 1
    assert "do not declare sound=True" in out


def test_rows_from_a_pipe(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brain.cli", "specialists", "eval", "./root_finder", "/dev/stdin", "--json"],
        input=(here / "root_finder" / "cases.jsonl").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["correct"] == 10, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stdout_that_cannot_show_everything(here: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for words in (["check", "root_finder", "--trust"], ["try", "./root_finder", "b=-5", "c=6"]):
        done = subprocess.run(
            [sys.executable, "-m", "brain.cli", "specialists", *words],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode(encoding)
        assert done.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away_is_no_error(here: Path) -> None:
    command = f"{sys.executable} -m brain.cli specialists show ./root_finder | head -c 1 >/dev/null"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division\nby zero"), 1, "ZeroDivisionError: division by zero; set BRAIN_DEBUG=1"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "secret"), 2, "'secret' cannot be used: permission denied"),
    ],
)
def test_whatever_a_command_raises_is_one_sentence(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, sentence: str
) -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(doctor, "_run", fail)
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    assert sentence in typed.refused("doctor", code=code)


def test_the_traceback_can_be_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIN_DEBUG", "1")
    assert cli.main(["specialists", "show", "nope"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_model_run_that_was_given_up_does_not_keep_the_command_from_ending(here: Path) -> None:
    path = here / "root_finder" / "specialist.py"
    text = path.read_text()
    text = text.replace("async def root_finder", "def root_finder").replace("timeout=10.0", "timeout=0.2")
    path.write_text(
        text.replace("    outputs = await model.run(", "    __import__('time').sleep(60)\n    outputs = dict(")
    )
    seal(here / "root_finder")
    done = subprocess.run(
        [sys.executable, "-m", "brain.cli", "specialists", "try", "./root_finder", "b=1", "c=0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "no answer within 0.2 s" in done.stdout


def test_the_doctor_says_what_is_here(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-canary")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example.com/v1")
    code, out, err = typed("doctor", "--json")
    facts = {fact["what"]: fact for fact in json.loads(out)["facts"]}
    assert code == 0, out
    assert facts["endpoint"]["value"] == "https://models.example.com"
    assert facts["key"]["value"] is True
    assert facts["cores"]["value"]["usable"] >= 1
    assert "CPUExecutionProvider" in facts["onnxruntime"]["value"]["providers"]
    assert {"python", "brain-specialists", "pydantic", "openai", "cache"} <= set(facts)
    assert "canary" not in out + err


def test_the_doctor_names_what_is_broken(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:sk-canary-canary@169.254.169.254/")
    monkeypatch.setattr(doctor, "_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = typed("doctor")
    assert code == 1
    assert "not installed: pip install 'brain-specialists[cpu]'" in out
    assert "OPENAI_BASE_URL is refused" in out
    assert "canary" not in out


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cache() -> doctor.Fact:
        return next(fact for fact in doctor.examine() if fact.what == "cache")

    monkeypatch.setenv("SPECIALISTS_GRAPH_CACHE", "")
    assert (cache().status, cache().value) == ("note", None)
    monkeypatch.delenv("SPECIALISTS_GRAPH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache().value == str(tmp_path / "brain-specialists" / "graphs")
    monkeypatch.setenv("SPECIALISTS_GRAPH_CACHE", str(tmp_path))
    assert (cache().status, cache().value) == ("ok", str(tmp_path))


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert terminal.plain("a\x1b[31mb\tc\nd\u202e") == "a\\x1b[31mb\\tc\nd\\u202e"


def test_marks_are_words_where_signs_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert [terminal.mark(status) for status in ("ok", "failed", "note")] == ["ok", "FAILED", "note"]


def test_the_command_and_its_help_load_nothing_heavy() -> None:
    code = (
        "import sys, brain.cli; brain.cli.main(['specialists', '--help']);"
        "heavy = {'onnxruntime', 'numpy', 'openai', 'rich'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
