"""Reads a log and labels, line by line. This module knows nothing of decisions: only what a line must be."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from specialists import Attempt, Outcome, Policy, strict_json
from specialists.ladder import RungKind

from ..errors import ConfigurationError

__all__ = [
    "Labels",
    "Logged",
    "OutcomeReader",
    "attempts_of",
    "check_outcome",
    "check_policy",
    "is_function",
    "run_of",
]


class Logged(NamedTuple):
    """An outcome, and the line of the log it stands on; of a ledger, the number of the call."""

    line: int
    outcome: Outcome[Any]


class OutcomeReader:
    """The outcomes of a log, read one at a time. Iterate once; ``cut_off`` and ``duplicates`` hold afterwards.

    A last line that a crash cut off is passed by. So is a line that stands in the log a second time, letter by letter.

    Raises ``ConfigurationError`` with the number of a line that is not an outcome, ``OSError`` for the file.
    """

    unit = "line"
    """What :attr:`Logged.line` counts."""

    def __init__(
        self, path: str | os.PathLike[str], *, progress: Callable[[int], None] | None = None, label: str | None = None
    ) -> None:
        self.path = Path(path)
        self.cut_off: int | None = None
        """The number of a last line that is not whole."""
        self.duplicates = 0
        self.first_duplicate: int | None = None
        self._label = label or str(path)
        self._progress = progress

    def __iter__(self) -> Iterator[Logged]:
        seen: set[bytes] = set()
        done = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                done += len(raw)
                if self._progress is not None and number % 256 == 0:
                    self._progress(done)
                if not raw.strip():
                    continue
                try:
                    data = json.loads(raw.decode("utf-8"))
                except (ValueError, RecursionError):
                    if not raw.endswith(b"\n"):
                        self.cut_off = number
                        return
                    raise ConfigurationError(
                        f"{self._label}, line {number}: not JSON; if a crash cut it off, delete the line"
                    ) from None
                digest = hashlib.blake2b(raw.strip(), digest_size=16).digest()
                if digest in seen:
                    self.duplicates += 1
                    self.first_duplicate = self.first_duplicate or number
                    continue
                seen.add(digest)
                yield Logged(number, self._outcome(data, number))

    def _outcome(self, data: Any, number: int) -> Outcome[Any]:
        where = f"{self._label}, line {number}"
        if not isinstance(data, dict) or not {"format", "attempts", "policy"} <= data.keys():
            raise ConfigurationError(f"{where}: not a call's outcome, as Brain(log=...) writes them")
        try:
            outcome = Outcome.from_json(data)
            check_outcome(outcome)
        except KeyError as error:
            raise ConfigurationError(f"{where}: the outcome has no {error}") from None
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise ConfigurationError(f"{where}: {error}") from None
        return outcome


def check_outcome(outcome: Outcome[Any]) -> None:
    """Types that what follows relies on. Raises ``ValueError``."""
    for name in ("tool", "call_id", "run_id"):
        value = getattr(outcome, name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is a text or null, not {value!r}")
    audit = getattr(outcome, "audit", None)
    for attempt in (*outcome.attempts, *([] if audit is None else [audit])):
        if not _is_number(attempt.seconds):
            raise ValueError(f"an attempt's seconds are a number, not {attempt.seconds!r}")
        for name in ("cpu_seconds", "confidence"):
            value = getattr(attempt, name)
            if value is not None and not _is_number(value):
                raise ValueError(f"an attempt's {name} is a number or null, not {value!r}")
    check_policy(outcome.policy)


def check_policy(policy: Policy) -> None:
    for rung in policy.rungs:
        if not isinstance(rung.name, str) or rung.kind not in get_args(RungKind):
            raise ValueError(f"a rung has a name and one of the kinds {', '.join(get_args(RungKind))}; not {rung}")
        if rung.min_confidence is not None and not _is_number(rung.min_confidence):
            raise ValueError(f"min_confidence of the rung {rung.name!r} is a number or null")
        if not all(isinstance(claim, bool) for claim in (rung.sound, rung.complete, rung.checked)):
            raise ValueError(f"sound, complete and checked of the rung {rung.name!r} are true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_function(outcome: Outcome[Any]) -> bool:
    """Whether a plain tool was called: it has no ladder, so nothing was decided."""
    return any(rung.kind == "function" for rung in outcome.policy.rungs)


def attempts_of(outcome: Outcome[Any]) -> tuple[Attempt, ...]:
    """Every attempt of a call: those of its climb in order, then the audit's."""
    audit = getattr(outcome, "audit", None)
    return outcome.attempts if audit is None else (*outcome.attempts, audit)


def run_of(outcome: Outcome[Any], line: int) -> str:
    """What its cost and its differences are summed under."""
    # A call outside of a run stands for itself. No run's name begins like this: ids in logs are printable.
    return f"\0{line}" if outcome.run_id is None else outcome.run_id


class Labels:
    """Right answers for logged calls, from ``{"call_id": ..., "expected": ...}`` lines, with a ``run_id`` where call
    ids repeat. ``"expected": null`` means that the call should have been abstained from.
    """

    def __init__(self, rows: Mapping[tuple[str | None, str], Any]) -> None:
        self._rows = dict(rows)
        self._used: dict[tuple[str | None, str], int] = {}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Labels:
        """Raises ``ConfigurationError`` with the number of a line that is no label, ``OSError`` for the file."""
        rows: dict[tuple[str | None, str], Any] = {}
        with Path(path).open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    row = strict_json.loads(raw.decode("utf-8"))
                except (ValueError, RecursionError) as error:
                    raise ConfigurationError(f"{where}: not JSON: {error}") from None
                if not isinstance(row, dict) or not isinstance(row.get("call_id"), str) or "expected" not in row:
                    raise ConfigurationError(f'{where}: not of the form {{"call_id": "...", "expected": value}}')
                run = row.get("run_id")
                if run is not None and not isinstance(run, str):
                    raise ConfigurationError(f"{where}: run_id is a text, not {run!r}")
                if (run, row["call_id"]) in rows:
                    raise ConfigurationError(f"{where}: the call {row['call_id']!r} has a label already")
                rows[run, row["call_id"]] = row["expected"]
        if not rows:
            raise ConfigurationError(f"{path} holds no labels")
        return cls(rows)

    def take(self, outcome: Outcome[Any], line: int, unit: str = "line") -> tuple[bool, Any]:
        """Whether the call has a label, and which. Raises ``ConfigurationError`` when another call took it."""
        if outcome.call_id is None:
            return False, None
        for key in ((outcome.run_id, outcome.call_id), (None, outcome.call_id)):
            if key in self._rows:
                if key in self._used:
                    which = "name its run_id too" if key[0] is None else "give the runs ids of their own"
                    raise ConfigurationError(
                        f"the label of the call {outcome.call_id!r} fits {unit} {self._used[key]} of the log and"
                        f" {unit} {line}; {which}"
                    )
                self._used[key] = line
                return True, self._rows[key]
        return False, None

    def unused(self) -> list[str]:
        """Call ids of labels that no call took."""
        return [call for run, call in self._rows if (run, call) not in self._used]
