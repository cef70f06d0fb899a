"""Reads calls back out of a ledger's rows: which attempts belong to one call, what it came to, and what left for it.

A row holds the whole attempt and the policy it was made under, so the rows alone are enough to decide again. Where the
journal has the call too, its end is taken from there, and not from the decision that is to be checked. This module
knows nothing of SQL, and nothing of decisions but the last one of a call that no journal knows.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specialists import Attempt, Cost, Outcome, Policy
from specialists.ladder import Abstain, Accept, decide

from ..errors import ConfigurationError, LedgerError
from ..journal import wire_from_json
from ..ledger import Ledger
from ..storage.changes import StepRow
from ..storage.rows import LedgerRow
from .reading import Logged, check_outcome

__all__ = ["LedgerReader", "calls_of", "is_ledger", "open_ledger"]

_MAGIC = b"SQLite format 3\0"


def is_ledger(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file of SQLite's. A pipe is none, and is left unread. Raises ``OSError``."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def open_ledger(path: str | os.PathLike[str]) -> Ledger:
    """The ledger in a file that is there. Nothing is made. Raises :class:`LedgerError` for any other file."""
    if not Path(path).exists():
        raise LedgerError(f"there is no ledger {os.fspath(path)!r}; Brain(ledger={os.fspath(path)!r}) makes one")
    if Path(path).is_file() and not is_ledger(path):
        raise LedgerError(f"{os.fspath(path)!r} is no ledger; Brain(ledger=...) makes one")
    return Ledger(path)


class LedgerReader:
    """The calls of a ledger's file, run by run, as :class:`OutcomeReader` gives those of a log. Iterate once.

    Rows that are still in flight are passed by; a call that they cut short is as it was left.

    Raises :class:`LedgerError` for the file, and ``ConfigurationError`` for a row that is no attempt.
    """

    unit = "call"
    """What :attr:`Logged.line` counts."""
    cut_off: int | None = None
    duplicates = 0
    first_duplicate: int | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Logged]:
        ledger = open_ledger(self.path)
        try:
            number = 0
            for each in ledger.sums("run"):
                steps = [] if each.key is None else ledger.steps(each.key)
                for outcome in calls_of(ledger.rows(run=each.key), steps, label=str(self.path)):
                    number += 1
                    yield Logged(number, outcome)
        finally:
            ledger.close()


@dataclass
class _Call:
    """The rows of one call while they are gathered."""

    policy: Policy
    first: LedgerRow
    attempts: list[Attempt] = field(default_factory=list)
    audit: Attempt | None = None


def calls_of(
    rows: Iterable[LedgerRow], steps: Sequence[StepRow] = (), *, label: str = "the ledger"
) -> list[Outcome[Any]]:
    """The calls that ``rows`` (in order) tell of, those of functions too. ``steps``: of the rows' runs.

    Wire attempts are in their attempts, each at the cost that its row has by now. Raises ``ConfigurationError`` for a
    row that is no attempt.
    """
    calls: list[_Call] = []
    latest: dict[tuple[str | None, str], _Call] = {}
    sent: dict[tuple[str | None, str], list[LedgerRow]] = {}
    for row in rows:
        if row.call is None:
            continue  # a turn of the brain's, its own work, or a reservation by hand
        key = row.run, row.call
        if row.kind == "model":
            if row.details is not None:
                sent.setdefault(key, []).append(row)
            continue
        if row.details is None or row.policy is None:
            continue  # in flight, or left so
        try:
            policy = Policy.from_json(row.policy)
            attempt = _attempt(row, sent.pop(key, []))
            call = latest.get(key)
            if row.audit and call is not None:
                call.audit = attempt
                continue
            # The first rung again: the id of another turn's call, or the call once more after a crash.
            if call is None or not call.attempts or not policy.rungs or attempt.rung == policy.rungs[0].name:
                call = latest[key] = _Call(policy, row)
                calls.append(call)
            call.attempts.append(attempt)
        except KeyError as error:
            raise ConfigurationError(f"{label}, attempt {row.id}: it has no {error}") from None
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise ConfigurationError(f"{label}, attempt {row.id}: {error}") from None
    ends = _ends(steps)
    return [_outcome(call, ends.get((call.first.run, call.first.call or "")), label) for call in calls]


def _attempt(row: LedgerRow, sent: Sequence[LedgerRow]) -> Attempt:
    """The attempt of a row, at what it costs by now: a bill may have settled it since."""
    attempt = Attempt.from_json(row.details or {})
    if row.kind != "rung":
        return replace(attempt, cost=row.cost)
    wires = tuple(replace(wire_from_json(each.details or {}), cost=each.cost) for each in sent)
    return replace(attempt, wire_attempts=wires, cost=Cost.total(wire.cost for wire in wires))


def _ends(steps: Sequence[StepRow]) -> dict[tuple[str | None, str], deque[Mapping[str, Any]]]:
    """How calls ended, as the journal has it, in the order in which they were begun."""
    found: dict[tuple[str | None, str], deque[Mapping[str, Any]]] = {}
    for step in steps:
        told = None if step.result is None else step.result.get("outcome")
        if isinstance(told, dict) and isinstance(told.get("call_id"), str):
            found.setdefault((step.run, told["call_id"]), deque()).append(told)
    return found


def _outcome(call: _Call, ends: deque[Mapping[str, Any]] | None, label: str) -> Outcome[Any]:
    first, attempts = call.first, tuple(call.attempts)
    made: Outcome[Any] = Outcome(
        None, None, None, attempts, call.policy, tool=first.tool, call_id=first.call, run_id=first.run, audit=call.audit
    )
    try:
        if ends and _same_rungs(ends[0], attempts):
            told = ends.popleft()
            made = replace(
                made,
                value=told["value"],
                answered_by=told["answered_by"],
                accepted_by=told["accepted_by"],
                reason=told["reason"],
                arguments=told["arguments"],
            )
        elif any(rung.kind == "function" for rung in call.policy.rungs):
            if attempts[-1].outcome == "answered":
                made = replace(made, value=attempts[-1].value, answered_by=attempts[-1].rung, accepted_by="unchecked")
        else:
            end = decide(call.policy, attempts)
            if isinstance(end, Accept):
                made = replace(made, value=attempts[-1].value, answered_by=attempts[-1].rung, accepted_by=end.by)
            elif isinstance(end, Abstain):
                made = replace(made, reason=end.reason)
        check_outcome(made)
    except KeyError as error:
        raise ConfigurationError(f"{label}, call {first.call} of the run {first.run}: it has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{label}, call {first.call} of the run {first.run}: {error}") from None
    return made


def _same_rungs(told: Mapping[str, Any], attempts: Sequence[Attempt]) -> bool:
    return [each["rung"] for each in told["attempts"]] == [each.rung for each in attempts]
