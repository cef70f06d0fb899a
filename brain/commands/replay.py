"""``brain replay``: are a log's decisions reproduced, and what would another policy have done and cost?

What it does is in ``brain.replaying``; here is how it is asked for and shown.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .terminal import complain, console, table, write, write_json

if TYPE_CHECKING:
    from brain.replaying import Comparison, Difference, LedgerReader, OutcomeReader, Reproduction, Side
    from specialists import Cost

__all__ = ["configure"]

_DESCRIPTION = """\
LOG is what Brain(log=PATH) writes: one line for each call, with every attempt on every rung; or the file of a ledger,
Brain(ledger=PATH), whose rows hold the same. No model is run.

Without --policy, each logged decision is made once more, by the function that live calls climb by. Exit code 1 when one
differs; its line (of a ledger, the number of the call) is named.

With --policy or --min-confidence, another policy is walked over the logged attempts, and set beside the logged one on
the same calls: the share answered on this machine, abstentions, cost, time. An answer that was never asked for is not
guessed: where the policy wants a rung that a call has no attempt on, that call's end is unknown, nothing is estimated,
and the exit code is 1. A log made with accept="verified" and a fallback climbs far, so most policies can be replayed
on it.

POLICY is one of
  verified, certified, confident   the same rungs, another level
  FILE.json                        a policy, as "policy" in a line of the log; or {"tools": {NAME: policy}}, where tools
                                   that are not named keep theirs

Intervals are 95 %, paired (new minus logged on the same call), over runs: the calls of one run are not independent.
A dash stands where nothing can be told: there is one run, or the runs do not differ."""

_EPILOG = """\
examples:
  brain replay calls.jsonl                                     is every decision reproduced?
  brain replay bill.db                                         the same, from a ledger
  brain replay calls.jsonl --policy verified                   what if only proofs counted?
  brain replay calls.jsonl --min-confidence intent=0.9         what if this floor were another?
  brain replay calls.jsonl --policy confident --labels right.jsonl --cost-bound 0.95
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options to ``parser``."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("log", metavar="LOG", help="the file that Brain(log=...) appends to, or that of Brain(ledger=...)")
    add("--policy", metavar="POLICY", help="the policy to set beside the logged one")
    add(
        "--min-confidence",
        metavar="TOOL=FLOOR",
        type=_floor,
        action="append",
        default=[],
        help="another confidence floor for the rungs of a tool that run on this machine; may be repeated",
    )
    add(
        "--labels",
        metavar="FILE.jsonl",
        help='right answers, to count wrong ones: {"call_id": ..., "expected": ...} a line, with "run_id" where call'
        ' ids repeat; "expected": null means that it should have abstained',
    )
    add(
        "--cost-bound",
        metavar="LEVEL",
        type=_level,
        help="a bound on the cost of the next run's calls that holds with this probability, such as 0.95",
    )
    add("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=_replay, parser=parser)


def _replay(arguments: argparse.Namespace) -> int:
    from brain.replaying import Labels, PolicyChange, compare, reproduce

    floors = dict(arguments.min_confidence)
    if len(floors) < len(arguments.min_confidence):
        return _wrong("--min-confidence names a tool twice")
    if arguments.policy is None and not floors:
        if arguments.labels is not None:
            return _wrong("--labels judges another policy beside the logged one; name it with --policy")
        with _progress(Path(arguments.log)) as progress:
            log = _reader(arguments.log, progress)
            reproduction = reproduce(log)
        found: Reproduction | Comparison = reproduction
        _check_any(log, reproduction.calls + reproduction.functions)
        bounds = {"logged": reproduction.costs}
        code = 1 if reproduction.differing else 0
    else:
        change = PolicyChange.read(arguments.policy, floors)
        labels = None if arguments.labels is None else Labels.read(arguments.labels)
        with _progress(Path(arguments.log)) as progress:
            log = _reader(arguments.log, progress)
            comparison = compare(log, change, labels=labels)
        found = comparison
        _check_any(log, comparison.calls + comparison.cut_short + comparison.functions)
        bounds = {"logged": comparison.costs[0]}
        if comparison.refused is None:
            bounds["replayed"] = comparison.costs[1]
        code = 1 if comparison.refused else 0
    if arguments.json:
        data = found.to_json()
        data["cut_off_line"], data["duplicates"] = log.cut_off, log.duplicates
        if arguments.cost_bound is not None:
            data["cost_bound"] = _bounds_json(bounds, arguments.cost_bound)
        write_json(data)
        return code
    _tell_of(log)
    if arguments.policy is None and not floors:
        _show_reproduction(reproduction, log.unit)
    else:
        _show_comparison(comparison, arguments.policy, floors)
    if arguments.cost_bound is not None:
        _show_bounds(bounds, arguments.cost_bound)
    return code


def _reader(path: str, progress: Callable[[int], None] | None) -> OutcomeReader | LedgerReader:
    from brain.replaying import LedgerReader, OutcomeReader, is_ledger

    return LedgerReader(path) if is_ledger(path) else OutcomeReader(path, progress=progress)


def _check_any(log: OutcomeReader | LedgerReader, calls: int) -> None:
    from brain import ConfigurationError

    if not calls:
        cut = "" if log.cut_off is None else " that is whole"
        raise ConfigurationError(f"{log.path} holds no {log.unit}{cut}, so there is nothing to replay")


def _tell_of(log: OutcomeReader | LedgerReader) -> None:
    if log.cut_off is not None:
        complain(f"{log.path}, line {log.cut_off}: the last line is not whole, and is passed by")
    if log.duplicates:
        complain(
            f"{log.path}: {_of(log.duplicates, 'line')} passed by that stood there before, letter by letter; the"
            f" first is line {log.first_duplicate}"
        )


def _show_reproduction(found: Reproduction, unit: str) -> None:
    write(
        f"{found.reproduced:,} of {found.decisions:,} decisions reproduced, in {_of(found.calls, 'call')} of"
        " specialists."
    )
    _show_aside(found.functions, found.cut_short, "their last decision was never made")
    if found.first is not None:
        line, differs = found.first
        complain(f"{_of(found.differing, 'call')} not reproduced; the first is {unit} {line}, {differs}")


def _show_aside(functions: int, cut_short: int, so: str) -> None:
    if functions:
        write(f"{_of(functions, 'call')} of plain functions passed by: they have no ladder.")
    if cut_short:
        write(f"{_of(cut_short, 'call')} ended from outside (cancelled, or a failure around the rungs): {so}.")


def _show_comparison(found: Comparison, policy: str | None, floors: Mapping[str, float]) -> None:
    name = " ".join([*([policy] if policy else []), *(f"{tool}>={floor:g}" for tool, floor in floors.items())])
    for tool in sorted(found.overruled):
        complain(
            f"{tool}: a valid certificate decides, so its floor is not asked for and --min-confidence does nothing"
        )
    for tool, rungs in found.left_out.items():
        complain(f"the policy does without {', '.join(sorted(rungs))} of {tool}, which the log's ladder has")
    if found.refused is None:
        _show_figures(found, name)
    _show_aside(found.functions, found.cut_short, "not compared")
    if found.audits:
        write(
            f"{_of(found.audits, 'call')} audited; an audit's cost counts only where the policy asks for that answer."
        )
    if found.labels_unused:
        write(f"Labels of no call that is compared: {len(found.labels_unused):,}, such as {found.labels_unused[0]!r}.")
    if found.refused is not None:
        complain(found.refused)


def _show_figures(found: Comparison, name: str) -> None:
    from specialists.ladder import AcceptedBy

    calls, one, other, differ = found.calls, found.logged, found.replayed, found.differences
    columns = [f"{_of(calls, 'call')} in {_of(found.runs, 'run')}", "logged", name, "difference a call", "95 %"]

    def share(side: Side) -> str:
        return f"{_percent(side.local / calls)} ({side.local:,})"

    rows: list[tuple[Any, ...]] = [
        ("answered on this machine", share(one), share(other), *_shares(differ["local"])),
        ("big model asked", f"{one.escalated:,}", f"{other.escalated:,}", "", ""),
        ("cost", _cost(one.cost), _cost(other.cost), *_amounts(differ["cost"], _dollars)),
        ("CPU time", _time(one.cpu_seconds), _time(other.cpu_seconds), *_amounts(differ["cpu_seconds"], _time)),
        ("wall time, rungs", _time(one.seconds), _time(other.seconds), *_amounts(differ["seconds"], _time)),
    ]
    if found.labelled:
        rows.append(
            (
                f"accepted and wrong, of {found.labelled:,} labelled",
                f"{one.wrong:,}",
                f"{other.wrong:,}",
                *_shares(differ["wrong_accepted"]),
            )
        )
        rows.append(("accepted and right", f"{one.right:,}", f"{other.right:,}", "", ""))
    table(columns, rows, right=columns[1:])
    counts = [(by, one.accepted_by[by], other.accepted_by[by]) for by in (*get_args(AcceptedBy), None)]
    table(
        ["accepted by", "logged", name],
        [(by or "nothing: abstained", f"{was:,}", f"{now:,}") for by, was, now in counts if was or now],
        right=["logged", name],
    )
    if found.other_value or found.newly_accepted or found.no_longer_accepted:
        write(
            f"{_of(found.other_value, 'call')} would have another value; {found.newly_accepted:,} would be accepted"
            f" that were not, {found.no_longer_accepted:,} no longer."
        )
    else:
        write("Every call would have the value it has, and none would be accepted or abstained from that was not.")
    if differ["cost"].basis == "low":
        write(
            "Attempts without a price differ between the two, so the difference in cost is that of the low ends: what"
            " is known to be spent."
        )
    if one.unpriced or other.unpriced:
        write(f"Attempts without a price: {one.unpriced:,} logged, {other.unpriced:,} under the policy.")
    if one.cpu_unknown or other.cpu_unknown:
        write(
            f"Attempts on this machine that state no CPU time: {one.cpu_unknown:,} logged, {other.cpu_unknown:,} under"
            " the policy; they count for nothing in it."
        )
    if found.labelled is not None and found.labelled < calls:
        write(f"{_of(calls - found.labelled, 'call')} without a label: nothing is said of their answers.")


def _bounds_json(bounds: Mapping[str, Mapping[str, Decimal | None]], level: float) -> dict[str, Any]:
    from brain.replaying import cost_bound, runs_needed

    data: dict[str, Any] = {"level": level, "runs_needed": runs_needed(level)}
    for name, costs in bounds.items():
        bound = cost_bound(costs, level)
        data[name] = {
            "runs": len(costs),
            "unpriced_runs": sum(cost is None for cost in costs.values()),
            "bound": None if bound is None else str(bound),
        }
    return data


def _show_bounds(bounds: Mapping[str, Mapping[str, Decimal | None]], level: float) -> None:
    from brain.replaying import cost_bound, runs_needed

    for name, costs in bounds.items():
        bound = cost_bound(costs, level)
        unpriced = sum(cost is None for cost in costs.values())
        which = "as logged" if name == "logged" else "under the policy"
        if bound is not None:
            write(
                f"A run's calls {which}: the next one like these costs at most {_dollars(bound)} with probability"
                f" {level:g} ({_of(len(costs), 'run')})."
            )
        elif unpriced:
            write(f"A run's calls {which}: no bound, as {unpriced:,} of {_of(len(costs), 'run')} have no known price.")
        else:
            write(
                f"A run's calls {which}: no bound at {level:g} from {_of(len(costs), 'run')}; it takes"
                f" {runs_needed(level):,} at least."
            )
    write("That is for runs with a call, and without what planning cost: the log holds calls only.")


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr while a log is read, if somebody is there to see it."""
    if not sys.stderr.isatty() or not path.is_file():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=os.path.getsize(path))
        yield lambda done: bar.update(task, completed=done)


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _cost(cost: Cost) -> str:
    if cost.high is None:
        return f"unpriced (at least {_dollars(cost.low)})" if cost.low else "unpriced"
    low, high = _dollars(cost.low), _dollars(cost.high)
    return low if low == high else f"{low} to {high}"


def _dollars(amount: Decimal | float) -> str:
    """Three digits that count, without an exponent."""
    value = Decimal(amount)
    if not value:
        return "$0"
    places = 2 if abs(value) >= 1 else min(15, 2 - value.adjusted())
    return f"{'-' if value < 0 else ''}${abs(value):,.{places}f}"


def _time(seconds: float) -> str:
    size = abs(seconds)
    if not seconds:
        return "0 s"
    if size < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if size < 1 else f"{seconds:,.2f} s"


def _shares(difference: Difference) -> tuple[str, str | None]:
    mean = f"{100 * difference.mean[0]:+.1f} points"
    if difference.interval is None:
        return mean, None
    return mean, f"{100 * difference.interval[0]:+.1f} to {100 * difference.interval[1]:+.1f}"


def _amounts(difference: Difference, show: Callable[[float], str]) -> tuple[str, str | None]:
    low, high = (_signed(value, show) for value in difference.mean)
    mean = low if low == high else f"{low} to {high}"
    if difference.interval is None:
        return mean, None
    return mean, f"{_signed(difference.interval[0], show)} to {_signed(difference.interval[1], show)}"


def _signed(value: float, show: Callable[[float], str]) -> str:
    return ("+" if value > 0 else "") + show(value)


def _floor(text: str) -> tuple[str, float]:
    tool, _, number = text.rpartition("=")
    try:
        floor = float(number)
    except ValueError:
        floor = math.nan
    if not tool or not 0 <= floor <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form TOOL=FLOOR, with a floor from 0 to 1")
    return tool, floor


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability between 0 and 1")
    return level


def _wrong(sentence: str) -> int:
    complain(sentence)
    return 2
