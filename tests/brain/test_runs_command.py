"""``brain runs`` as it is typed: what runs there are, what they wait for, and one taken up."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from brain import ApprovalRequired, Ledger, RunUncertain
from tests.brain.typed import Typed

APP = '''
from pathlib import Path

from brain import Brain, tool
from brain.testing import ScriptedModel, call


@tool(effect="once", requires_approval=True)
def pay(usd: int) -> str:
    """Pay."""
    with Path("paid.txt").open("a") as file:
        file.write(f"{usd}\\\\n")
    return "paid"


@tool(effect="pure")
def look(at: str) -> str:
    """Look."""
    return "seen"


steps = [[call("look", at="it"), call("pay", usd=5)], "all done"]
brain = Brain(ScriptedModel(steps), tools=[pay, look], ledger="bill.db")
again = Brain(ScriptedModel(steps[1:]), tools=[pay, look], ledger="bill.db")
elsewhere = Brain(ScriptedModel([]), ledger="other.db")
nothing = 3
'''.replace("\\\\n", "\\n")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("BRAIN_LEDGER", raising=False)
    sys.modules.pop("the_shop", None)
    (tmp_path / "the_shop.py").write_text(APP)
    return Typed("runs", capsys)


def begin() -> str:
    """A run that waits for a person; the id of the call."""
    import the_shop  # type: ignore[import-not-found]

    with pytest.raises(ApprovalRequired) as caught:
        the_shop.brain.run_sync("pay the bill", run_id="r1", tenant="acme")
    the_shop.brain.close()
    sys.modules.pop("the_shop")
    return str(caught.value.pending[0].id)


def test_a_run_that_waits_is_shown_and_resumed(typed: Typed) -> None:
    id = begin()
    (listed,) = typed.json("list", "bill.db")["runs"]
    assert (listed["run"], listed["state"], listed["tenant"]) == ("r1", "waiting", "acme")
    assert "waiting" in typed("list", "bill.db")[1]
    shown = typed.json("show", "bill.db", "r1")
    assert [(each["id"], each["tool"], each["why"]) for each in shown["asked"]] == [(id, "pay", "waits for approval")]
    assert [(each["name"], each["state"]) for each in shown["steps"]][1:] == [("look", "committed")]
    assert f"--approve {id} or --deny {id}" in typed("show", "bill.db", "r1")[1]
    code, out, err = typed("resume", "bill.db", "r1", "--app", "the_shop:again")
    assert (code, f"--approve {id}" in out) == (1, True)
    sys.modules.pop("the_shop")
    code, out, err = typed("resume", "bill.db", "r1", "--app", "the_shop:again", "--approve", id)
    assert code == 0, err
    assert out.startswith("all done\n\nreceipt\n")
    assert Path("paid.txt").read_text() == "5\n"
    sys.modules.pop("the_shop")
    code, out, _ = typed("resume", "bill.db", "r1", "--app", "the_shop:again")  # done: its result once more
    assert (code, out.splitlines()[0], Path("paid.txt").read_text()) == (0, "all done", "5\n")
    assert typed.json("list", "bill.db", "--state", "done")["runs"][0]["run"] == "r1"
    assert typed("list", "bill.db", "--state", "cut-off")[1] == "there are no such runs\n"


def test_a_call_that_is_denied_is_not_made(typed: Typed) -> None:
    id = begin()
    code, out, err = typed("resume", "bill.db", "r1", "--app", "the_shop:again", "--deny", id)
    assert (code, out.splitlines()[0]) == (0, "all done"), err
    assert not Path("paid.txt").exists()


def test_a_run_that_was_cut_off_in_a_call_asks_a_person(typed: Typed) -> None:
    id = begin()
    assert typed("resume", "bill.db", "r1", "--app", "the_shop:again", "--approve", id)[0] == 0
    with sqlite3.connect("bill.db") as connection:  # as a process leaves it that died while it paid
        connection.execute("UPDATE steps SET result = NULL, ended = NULL WHERE name = 'pay'")
        connection.execute("DELETE FROM steps WHERE step = 'turn 1'")
        connection.execute("UPDATE runs SET status = 'running', owner = 'gone', result = NULL, ended = NULL")
    assert typed.json("list", "bill.db")["runs"][0]["state"] == "cut off"
    shown = typed.json("show", "bill.db", "r1")
    assert [(each["id"], each["why"]) for each in shown["asked"]] == [(f"{id}!1", "may have taken effect")]
    sys.modules.pop("the_shop")
    code, out, err = typed("resume", "bill.db", "r1", "--app", "the_shop:again")
    assert (code, f"--approve '{id}!1'" in out) == (1, True), err
    assert typed.json("list", "bill.db", "--state", "uncertain")["runs"][0]["run"] == "r1"
    assert (
        "the calls it asks about: " + f"{id}!1"
        in typed("resume", "bill.db", "r1", "--app", "the_shop:again", "--approve", id)[2]
    )
    sys.modules.pop("the_shop")
    code, out, err = typed("resume", "bill.db", "r1", "--app", "the_shop:again", "--deny", f"{id}!1")
    assert (code, Path("paid.txt").read_text()) == (0, "5\n"), err
    assert issubclass(RunUncertain, Exception)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "bill.db", "r9"], "the journal knows no run 'r9'"),
        (["show"], "type `brain runs show FILE RUN`"),
        (["resume", "bill.db", "r1"], "--app"),
        (["resume", "bill.db", "r1", "--app", "the_shop"], "--app is MODULE:ATTRIBUTE"),
        (["resume", "bill.db", "r1", "--app", "../x:brain"], "--app is MODULE:ATTRIBUTE"),
        (["resume", "bill.db", "r1", "--app", "no_shop:brain"], "there is no module 'no_shop'"),
        (["resume", "bill.db", "r1", "--app", "the_shop:nothing"], "has a int there"),
        (["resume", "bill.db", "r1", "--app", "the_shop:none"], "has no such attribute"),
        (["resume", "bill.db", "r1", "--app", "the_shop:elsewhere"], "other.db'"),
        (["resume", "bill.db", "r1", "--app", "broken:brain"], "cannot be imported: ZeroDivisionError"),
        (["resume", "bill.db", "r1", "--app", "the_shop:brain", "--approve", "x"], "does not ask about 'x'"),
        (
            ["resume", "bill.db", "r1", "--app", "the_shop:brain", "--approve", "x", "--deny", "x"],
            "approved and denied",
        ),
        (["list", "bill.db", "--state", "odd"], "invalid choice"),
    ],
)
def test_what_is_asked_in_a_wrong_way_is_one_sentence(typed: Typed, words: list[str], says: str) -> None:
    begin()
    Path("broken.py").write_text("1 / 0\n")
    code, out, err = typed(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not Path("other.db").exists()


def test_nothing_of_a_run_reaches_the_terminal_as_a_command(typed: Typed) -> None:
    begin()
    with sqlite3.connect("bill.db") as connection:
        connection.execute("UPDATE runs SET tenant = ?, reason = ?", ("\x1b[31mred", "\x1b]0;x\x07"))
    ledger = Ledger("bill.db")
    assert ledger.run("r1").tenant == "\x1b[31mred"
    ledger.close()
    for words in (("list", "bill.db"), ("show", "bill.db", "r1"), ("list", "bill.db", "--json")):
        code, out, _ = typed(*words)
        assert (code, "\x1b" in out) == (0, False)
