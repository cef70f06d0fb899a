"""Failpoints do nothing unless set, do what they are set to, and complain about what never happened."""

from __future__ import annotations

import sqlite3

import pytest

from brain.errors import ConfigurationError, LedgerError
from brain.storage import failpoint, failpoints
from brain.storage.failpoints import Failpoints, parse

from .storing import run_python


def test_a_failpoint_does_nothing_unless_it_is_set() -> None:
    failpoint("anything")
    with failpoints() as seen:
        failpoint("anything")
        failpoint("anything")
    assert seen.reached == {"anything": 2}
    failpoint("anything")
    assert seen.reached == {"anything": 2}


def test_the_third_time_is_the_third_time() -> None:
    with failpoints({"a@3": "raise:ValueError"}) as seen:
        failpoint("a")
        failpoint("b")
        failpoint("a")
        with pytest.raises(ValueError, match="a@3"):
            failpoint("a")
        failpoint("a")
    assert seen.reached == {"a": 4, "b": 1}


def test_what_never_happened_is_complained_about() -> None:
    with pytest.raises(AssertionError, match="never reached: a@2, b"), failpoints({"a@2": "kill", "b": "exit"}):
        failpoint("a")
    with pytest.raises(KeyError), failpoints({"a": "kill"}):
        raise KeyError  # the first trouble is the one to see


def test_actions() -> None:
    calls: list[int] = []
    with failpoints(
        {"call": lambda: calls.append(1), "sleep": "sleep:0", "ours": "raise:LedgerError", "sql": "raise:sqlite3.Error"}
    ):
        failpoint("call")
        failpoint("sleep")
        with pytest.raises(LedgerError):
            failpoint("ours")
        with pytest.raises(sqlite3.Error):
            failpoint("sql")
    assert calls == [1]


@pytest.mark.parametrize(
    "action",
    ["", "boom", "raise:", "raise:print", "raise:os.system", "raise:__import__('os')", "sleep:x", "sleep:-1", "kill:1"],
)
def test_an_action_that_is_none_is_refused(action: str) -> None:
    with pytest.raises(ConfigurationError, match="is no action"):
        Failpoints({"a": action})


@pytest.mark.parametrize("name", ["", "a@", "a@0", "a@x", "@1"])
def test_a_place_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="write a name"):
        Failpoints({name: "kill"})


def test_the_variable_is_read_once_and_refused_when_it_is_wrong() -> None:
    assert parse(" a = kill ; b@3=raise:OSError;; ") == {"a": "kill", "b@3": "raise:OSError"}
    done = run_python("failpoint('a'); print('no')", BRAIN_FAILPOINTS="a=exit")
    assert (done.returncode, done.stdout) == (99, "")
    done = run_python("print('no')", BRAIN_FAILPOINTS="a")
    assert done.returncode == 1
    assert "'a' is not name=action" in done.stderr
