"""``brain ledger``: what a ledger's file says of money, added up or row by row; a row settled by a provider's bill."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .terminal import complain, plain, table, write, write_json

if TYPE_CHECKING:
    from brain import Ledger, LedgerRow
    from brain.storage.changes import Sum
    from specialists import Cost

__all__ = ["configure", "money", "named_ledger"]

FORMAT = 1
VARIABLE = "BRAIN_LEDGER"
BY = ("kind", "run", "model", "specialist", "tenant", "session", "day", "call")

_DESCRIPTION = """\
FILE is what Brain(ledger=FILE) keeps: every request that left for a model, every run of a specialist or a function, and
the brain's own work, each with its price. Without FILE, $BRAIN_LEDGER names it. Nothing is made or changed here, but by
reconcile.

Money is an interval where it is not known. "unpriced": the row has no price, and the sum is at least what is shown.
"in flight": it has not ended; it costs nothing to all that was set aside. "lost": its process died before it ended, and
nobody wrote down what was billed; look at the provider's bill, and reconcile it. --by model shows requests to models
alone, --by specialist what ran on this machine. A row of the kind rung costs nothing: its requests have rows.
"""
_EPILOG = """\
examples:
  brain ledger bill.db                                  by kind
  brain ledger bill.db --by tenant                      by run, model, specialist, tenant, session, day or call
  brain ledger bill.db --rows --run RUN                 every attempt of a run
  brain ledger bill.db --by day --csv > days.csv        with every digit
  brain ledger bill.db --budgets                        what each budget bears
  brain ledger reconcile bill.db ATTEMPT 0.0123         what the provider's bill says of an attempt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("words", metavar="FILE", nargs="*", help="the ledger's file; or: reconcile [FILE] ATTEMPT USD")
    add("--by", choices=BY, default="kind", help="what the rows are added up by (default: kind)")
    add("--run", dest="of_run", metavar="ID", help="only this run")
    add("--tenant", metavar="T", help="only this tenant")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--rows", action="store_true", help="every attempt in place of sums")
    shown.add_argument("--budgets", action="store_true", help="what each budget bears: at most what was spent")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    form.add_argument("--csv", action="store_true", help="print comma-separated values, for spreadsheets")
    parser.set_defaults(run=_run, parser=parser)


def named_ledger(words: Sequence[str], rest: int) -> tuple[Ledger | None, list[str], str]:
    """The ledger that the first word names, else the environment, and the ``rest`` words after it; or a complaint."""
    from brain.replaying import open_ledger

    given = list(words)
    path = given.pop(0) if len(given) > rest else os.environ.get(VARIABLE, "")
    if len(given) != rest:
        return None, given, f"{len(given)} words stand where {rest} belong" if given else "a word is missing"
    if not path:
        return None, given, f'name the ledger\'s file, or set {VARIABLE}; Brain(ledger="bill.db") makes one'
    return open_ledger(path), given, ""


def _run(arguments: argparse.Namespace) -> int:
    words = list(arguments.words)
    if words[:1] == ["reconcile"]:
        return _reconcile(words[1:], arguments.json)
    ledger, _, problem = named_ledger(words, 0)
    if ledger is None:
        complain(problem)
        return 2
    given = {"run": arguments.of_run, "tenant": arguments.tenant}
    where = {name: value for name, value in given.items() if value is not None}
    try:
        if arguments.budgets:
            if where:
                complain("--budgets shows all of them; a budget is no run's and no tenant's alone")
                return 2
            columns, rows, data = _budgets(ledger)
        elif arguments.rows:
            columns, rows, data = _rows(ledger, where)
        else:
            columns, rows, data = _sums(ledger, arguments.by, where)
        lost = _lost(ledger, "kind", where)
    finally:
        ledger.close()
    if arguments.json:
        write_json({**data, "format": FORMAT})
    elif arguments.csv:
        _write_csv(data[next(iter(data))])
    else:
        if not rows:
            write("the ledger has no such rows yet" if where else "the ledger has no rows yet")
            return 0
        table(columns, rows, right=[each for each in columns if each in _NUMBERS])
        if lost and not arguments.budgets:
            write(
                f"{sum(lost.values()):,} lost: the process died before they ended. `brain ledger --rows` names them;"
                " `brain ledger reconcile` settles one by the provider's bill."
            )
    return 0


_NUMBERS = {"rows", "cost", "unpriced", "in flight", "lost", "tokens", "seconds", "CPU s", "spent", "calls"}


def _lost(ledger: Ledger, by: str, where: Mapping[str, str | None]) -> Counter[str | None]:
    """Rows in flight of processes that died, by the key they are added up under."""
    alive: dict[str | None, bool] = {}
    found: Counter[str | None] = Counter()
    for row in ledger.rows(outcome=None, **where):
        if not _is_alive(ledger, row, alive):
            found[_key(row, by)] += 1
    return found


def _is_alive(ledger: Ledger, row: LedgerRow, known: dict[str | None, bool]) -> bool:
    if row.owner not in known:
        known[row.owner] = ledger.is_alive(row.owner)
    return known[row.owner]


def _key(row: LedgerRow, by: str) -> str | None:
    if by == "day":
        return row.at[:10]
    if by == "call":
        return None if row.run is None or row.call is None else f"{row.run}/{row.call}"
    if by in ("model", "specialist"):
        return row.name if (row.kind == "model") == (by == "model") else None
    value: str | None = getattr(row, by)
    return value


def _sums(ledger: Ledger, by: Any, where: Mapping[str, str | None]) -> tuple[list[str], list[Any], dict[str, Any]]:
    from specialists import Cost

    sums, lost = ledger.sums(by, **where), _lost(ledger, by, where)
    rows = [_sum_row(each, lost[each.key]) for each in sums]
    everything = ledger.total(**where)
    total = Cost.total(each.cost for each in sums)
    columns = [by, "rows", "cost", "unpriced", "in flight", "lost", "tokens", "CPU s"]
    shown: list[Any] = [
        (
            each.key if each.key is not None else f"(no {by})",
            f"{each.rows:,}",
            money(each.cost),
            f"{each.unpriced:,}",
            f"{each.in_flight - lost[each.key]:,}",
            f"{lost[each.key]:,}",
            None if each.input is None and each.output is None else f"{each.input or 0:,} in, {each.output or 0:,} out",
            f"{each.cpu_seconds:,.3f}",
        )
        for each in sums
    ]
    if sums:
        counted = [sum(getattr(each, name) for each in sums) for name in ("rows", "unpriced", "in_flight")]
        gone = sum(lost[each.key] for each in sums)
        name = "total" if total == everything else f"total of these, of {money(everything)} in all"
        shown.append(
            (
                name,
                f"{counted[0]:,}",
                money(total),
                f"{counted[1]:,}",
                f"{counted[2] - gone:,}",
                f"{gone:,}",
                None,
                None,
            )
        )
    return columns, shown, {"sums": rows, "by": by, "total": total.to_json(), "all": everything.to_json()}


def _sum_row(each: Sum, lost: int) -> dict[str, Any]:
    return {
        "key": each.key,
        "rows": each.rows,
        "cost": each.cost.to_json(),
        "unpriced": each.unpriced,
        "in_flight": each.in_flight - lost,
        "lost": lost,
        "seconds": each.seconds,
        "cpu_seconds": each.cpu_seconds,
        "input": each.input,
        "output": each.output,
        "cache_read": each.cache_read,
        "cache_write": each.cache_write,
        "reasoning": each.reasoning,
    }


def _rows(ledger: Ledger, where: Mapping[str, str | None]) -> tuple[list[str], list[Any], dict[str, Any]]:
    alive: dict[str | None, bool] = {}
    columns = ["attempt", "begun", "kind", "name", "tenant", "run", "call", "rung", "outcome", "cost", "seconds"]
    shown: list[Any] = []
    data: list[dict[str, Any]] = []
    for row in ledger.rows(**where):
        outcome = row.outcome or ("in flight" if _is_alive(ledger, row, alive) else "lost")
        seconds = None if row.seconds is None else f"{row.seconds:,.3f}"
        names = (row.id, row.at[:19], row.kind, row.name, row.tenant, row.run, row.call, row.rung, outcome)
        shown.append((*names, money(row.cost), seconds))
        data.append({**row.to_json(), "outcome": outcome})
    return columns, shown, {"rows": data}


def _budgets(ledger: Ledger) -> tuple[list[str], list[Any], dict[str, Any]]:
    found = ledger.spent()
    shown: list[Any] = [
        (each.label, f"at most {_digits(each.usd)}", f"{each.microseconds / 1_000_000:,.3f}", f"{each.calls:,}")
        for each in found
    ]
    data = [
        {
            "account": each.account,
            "label": each.label,
            "usd": f"{each.usd:f}",
            "microseconds": each.microseconds,
            "calls": each.calls,
        }
        for each in found
    ]
    return ["budget", "spent", "seconds", "calls"], shown, {"budgets": data}


def _reconcile(words: list[str], as_json: bool) -> int:
    from brain.prices.exact import amount
    from specialists import Cost

    ledger, rest, problem = named_ledger(words, 2)
    if ledger is None:
        complain(f"{problem}; type `brain ledger reconcile FILE ATTEMPT USD`" if rest or not words else problem)
        return 2
    try:
        attempt, text = rest
        try:
            usd = amount("USD", text)
        except ValueError as error:
            complain(str(error))
            return 2
        found = ledger.rows(id=attempt)
        if not found:
            complain(f"the ledger has no attempt {attempt!r}; `brain ledger --rows` shows those it has")
            return 2
        row = found[0]
        if row.in_flight and ledger.is_alive(row.owner):
            complain(f"the attempt {attempt!r} is in flight in a process that lives; wait until it has ended")
            return 1
        if not row.in_flight and row.cost.status == "exact":
            complain(f"the attempt {attempt!r} costs {row.cost} exactly; there is nothing to reconcile")
            return 1
        ledger.reconcile(attempt, usd)
    finally:
        ledger.close()
    now = Cost.exact(usd)
    if as_json:
        write_json({"attempt": attempt, "was": row.cost.to_json(), "now": now.to_json(), "format": FORMAT})
        return 0
    write(f"{attempt}: {now}, where it was {row.cost}")
    if row.cost.high is not None and usd > row.cost.high:
        complain(f"that is more than the {_digits(row.cost.high)} that it was thought to cost at most")
    return 0


def _write_csv(data: Iterable[Mapping[str, Any]]) -> None:
    writer: Any = None
    for row in data:
        flat = {key: value for each in row.items() for key, value in _flat(*each)}
        if writer is None:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(flat)
        writer.writerow([_cell(value) for value in flat.values()])


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    """A cost as three columns, what has parts of its own as JSON, money as numbers."""
    if name == "cost":
        high = value["high"]
        numbers = Decimal(value["low"]), None if high is None else Decimal(high)
        return [("low", numbers[0]), ("high", numbers[1]), ("status", value["status"])]
    if name == "usd":
        return [(name, Decimal(value))]
    return [(name, json.dumps(value))] if isinstance(value, Mapping) else [(name, value)]


def _cell(value: Any) -> str:
    """As text. Names are other people's: a spreadsheet must not take one for a formula."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if not isinstance(value, str):
        return str(value)
    text = plain(value.replace("\n", "\\n"))
    return f"'{text}" if value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def money(cost: Cost) -> str:
    """An interval, or one amount, with as many digits as a reader needs."""
    if cost.high is None:
        return f"unpriced (at least {_digits(cost.low)})" if cost.low else "unpriced"
    low, high = _digits(cost.low), _digits(cost.high)
    return low if low == high else f"{low} to {high}"


def _digits(amount: Decimal) -> str:
    if not amount:
        return "$0"
    places = 2 if amount >= 1 else min(15, 2 - amount.adjusted())
    return f"${amount:,.{places}f}"
