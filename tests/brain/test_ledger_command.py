"""``brain ledger`` as it is typed."""

from __future__ import annotations

import csv
import io
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from brain import Brain, Budget, Cost, Ledger, Price
from brain.storage.changes import Reserve
from brain.storage.rows import LedgerRow
from brain.testing import SimulatedModel
from tests.brain.typed import Typed


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIN_DEBUG", raising=False)
    monkeypatch.delenv("BRAIN_LEDGER", raising=False)
    return Typed("ledger", capsys)


def fill(*tenants: str, price: Price | None = None, budget: Budget | None = None) -> None:
    model = SimulatedModel(solve=lambda question: "fine", price=price or Price("1", "4"))
    for number, tenant in enumerate(tenants):
        brain = Brain(model, ledger="bill.db", budget=budget)
        brain.run_sync("how are you", run_id=f"run-{number}", tenant=tenant)
        brain.close()


def leave(id: str, owner: str | None, name: str = "simulated") -> None:
    """A request in flight, of at most half a dollar."""
    ledger = Ledger("bill.db")
    row = LedgerRow(id, "model", name, run="run-x", cost=Cost.bounded(0, "0.5"), owner=owner or ledger.store.claim())
    ledger.store.apply([Reserve(row, usd=Decimal("0.5"))]).result()
    ledger.close()


def test_sums_by_anything_add_up(typed: Typed) -> None:
    fill("a", "b", "a")
    ledger = Ledger("bill.db")
    total = ledger.total()
    ledger.close()
    for by in ("kind", "run", "tenant", "session", "day"):
        data = typed.json("bill.db", "--by", by)
        assert (
            Cost.from_json(data["total"]) == Cost.total(Cost.from_json(each["cost"]) for each in data["sums"]) == total
        )
        assert typed("bill.db", "--by", by)[0] == 0
    assert [each["key"] for each in typed.json("bill.db", "--by", "tenant")["sums"]] == ["a", "b"]
    assert typed.json("bill.db", "--by", "tenant", "--tenant", "b")["sums"][0]["key"] == "b"
    models = typed.json("bill.db", "--by", "model")
    assert [(each["key"], each["rows"], each["in_flight"]) for each in models["sums"]] == [("simulated", 3, 0)]
    assert models["total"] != models["all"]
    assert "total of these, of $" in typed("bill.db", "--by", "model")[1]


def test_what_is_unpriced_in_flight_or_lost_is_said(typed: Typed) -> None:
    brain = Brain(SimulatedModel(solve=lambda question: "fine"), ledger="bill.db")
    brain.run_sync("how are you", run_id="free")
    brain.close()
    leave("lives", None)
    leave("died", "no-such-process")
    (row,) = typed.json("bill.db", "--by", "model")["sums"]
    assert (row["unpriced"], row["in_flight"], row["lost"], row["cost"]["status"]) == (1, 1, 1, "unpriced")
    _, out, _ = typed("bill.db")
    assert "unpriced" in out
    assert "1 lost: the process died before they ended." in out
    rows = {each["id"]: each["outcome"] for each in typed.json("bill.db", "--rows")["rows"]}
    assert (rows["lives"], rows["died"]) == ("in flight", "lost")
    assert "$0 to $0.500" in typed("bill.db", "--rows", "--run", "run-x")[1]


def test_a_row_is_settled_by_the_providers_bill(typed: Typed) -> None:
    fill("a")
    leave("lives", None)
    leave("died", "no-such-process")
    code, out, _ = typed("reconcile", "bill.db", "died", "0.0123")
    assert (code, out) == (0, "died: $0.0123, where it was $0 to $0.5\n")
    code, _, err = typed("reconcile", "bill.db", "died", "0.0123")
    assert (code, err) == (1, "brain: the attempt 'died' costs $0.0123 exactly; there is nothing to reconcile\n")
    assert "is in flight in a process that lives" in typed("reconcile", "bill.db", "lives", "1")[2]
    leave("dearer", "no-such-process")
    assert "that is more than the $0.500" in typed("reconcile", "bill.db", "dearer", "2")[2]
    for words, says in (
        (("bill.db", "nobody", "1"), "the ledger has no attempt 'nobody'"),
        (("bill.db", "died", "much"), "USD is a number such as 2.50, not 'much'"),
        (("bill.db", "died", "1_0"), "USD is a number"),
        (("bill.db", "died", "NaN"), "USD must be a finite amount"),
        (("bill.db",), "type `brain ledger reconcile FILE ATTEMPT USD`"),
        ((), "type `brain ledger reconcile FILE ATTEMPT USD`"),
    ):
        code, out, err = typed("reconcile", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err


def test_a_spreadsheet_takes_no_name_for_a_formula(typed: Typed) -> None:
    names = ["=1+1", "+1", "-1", "@x", "\tt", 'a,"b', "plain", "\x1b[31mred", "-"]
    for number, name in enumerate(names):
        leave(f"id{number}", "gone", name)
    code, out, _ = typed("bill.db", "--by", "model", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    shown = {row["key"] for row in rows}
    assert shown == {"'=1+1", "'+1", "'-1", "'@x", "'\\tt", 'a,"b', "plain", "\\x1b[31mred", "'-"}
    assert {row["high"] for row in rows} == {"0.5"}
    for words in (("--rows",), ("--by", "model"), ("--rows", "--csv"), ("--json",)):
        assert "\x1b[31mred" not in typed("bill.db", *words)[1]


def test_csv_has_every_digit(typed: Typed) -> None:
    fill("a", price=Price.per_token(input="0.000000012345678901", output="0.000000000000000001"))
    sums = {row["key"]: row for row in csv.DictReader(io.StringIO(typed("bill.db", "--csv")[1]))}
    ledger = Ledger("bill.db")
    exact = ledger.total(kind="model").low
    ledger.close()
    assert Decimal(sums["model"]["low"]) == exact
    assert "E" not in sums["model"]["low"]
    rows = list(csv.DictReader(io.StringIO(typed("bill.db", "--rows", "--csv")[1])))
    assert sum(Decimal(row["low"]) for row in rows if row["kind"] == "model") == exact


def test_what_budgets_bear(typed: Typed) -> None:
    fill("a", "b", budget=Budget(usd=1, per="tenant", window="month"))
    data = typed.json("bill.db", "--budgets")["budgets"]
    assert len(data) == 2
    assert all(Decimal(each["usd"]) > 0 for each in data)
    assert "the budget of the tenant 'a' for the month" in " ".join(typed("bill.db", "--budgets")[1].split())


def test_the_file_of_the_environment(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill("a")
    code, _, err = typed()
    assert (code, err) == (
        2,
        'brain: name the ledger\'s file, or set BRAIN_LEDGER; Brain(ledger="bill.db") makes one\n',
    )
    monkeypatch.setenv("BRAIN_LEDGER", "bill.db")
    assert typed()[0] == 0
    leave("died", "no-such-process")
    assert typed("reconcile", "died", "0.1")[0] == 0


def test_files_that_are_no_ledgers_are_left_as_they_are(typed: Typed) -> None:
    with sqlite3.connect("other.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    Path("empty.db").touch()
    Path("text.db").write_text("hello" * 200)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    for name in ("other.db", "empty.db", "text.db", "none.db", "."):
        code, out, err = typed(name)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "unexpected" not in err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_an_empty_ledger_and_a_strange_request(typed: Typed) -> None:
    ledger = Ledger("bill.db")
    ledger.rows()
    ledger.close()
    assert typed("bill.db")[:2] == (0, "the ledger has no rows yet\n")
    assert typed("bill.db", "--csv")[:2] == (0, "")
    assert typed("bill.db", "--by", "colour")[0] == 2
    assert typed("bill.db", "--budgets", "--run", "x")[0] == 2
    assert typed("bill.db", "two")[0] == 2
