"""How often cases were looked at is counted on this machine, in a file that may be missing, broken or read-only."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specialists.uses import VARIABLE, Use, count_use, state_file, uses_of

USE = Use("c" * 64, "intent", "f" * 64, "1" * 64, 0.01, 0.05)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "deep" / "state"))
    return tmp_path / "deep" / "state"


def test_the_first_look_is_none_and_the_same_again_shows_nothing_new(folder: Path) -> None:
    assert uses_of(USE) == 0
    for _ in range(3):
        count_use(USE)
    assert uses_of(USE) == 0
    assert (folder / "calibrations.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "other",
    [
        {"specialist": "other"},
        {"folder": None},
        {"ladder": "2" * 64},
        {"alpha": 0.02},
        {"delta": 0.1},
        {"escalation": 3.0},
    ],
)
def test_the_same_cases_in_another_way_are_one_more_look(other: dict[str, Any]) -> None:
    count_use(USE)
    changed = replace(USE, **other)
    assert uses_of(changed) == 1
    count_use(changed)
    assert uses_of(changed) == 1
    assert uses_of(USE) == 1
    assert uses_of(replace(USE, cases="d" * 64)) == 0


@pytest.mark.parametrize(
    "rubbish",
    [
        b'{"cases": "ccc',
        b"\xff\xfe\x00",
        b"null\n7\n[]\n",
        b"[" * 100_000 + b"\n",
        b'{"cases": ' + b"9" * 5_000 + b"}\n",
        b'{"cases": 1, "cases": 2}\n',
    ],
)
def test_rubbish_in_the_file_counts_for_nothing_and_swallows_nothing(folder: Path, rubbish: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "calibrations.jsonl").write_bytes(rubbish)
    assert uses_of(USE) == 0
    count_use(USE)
    assert uses_of(replace(USE, alpha=0.02)) == 1


def test_many_threads_lose_no_line() -> None:
    def count(number: int) -> None:
        for alpha in range(20):
            count_use(replace(USE, alpha=0.01 + number + alpha / 100))

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uses_of(USE) == 80 - 1  # one of them is this very use
    lines = [line for line in state_file().read_text().splitlines() if line]
    assert len([json.loads(line) for line in lines]) == 80


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    below_home = tmp_path / ".local" / "state" / "brain-specialists" / "calibrations.jsonl"
    for base in ("", "relative/is/not/allowed"):
        monkeypatch.setenv("XDG_STATE_HOME", base)
        assert state_file() == below_home
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_file() == tmp_path / "xdg" / "brain-specialists" / "calibrations.jsonl"


def test_what_cannot_be_written_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        count_use(USE)
    with pytest.raises(OSError, match="file"):
        uses_of(USE)
