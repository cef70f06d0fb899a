"""Measures a specialist on labelled rows, by the same climb that live calls take.

Rows are read one at a time and results are counted, not kept, so a file may be of any length. This module knows
nothing of terminals or of how a specialist was found.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import strict_json
from .answers import Effort
from .comparing import same_answer
from .define import Specialist
from .errors import CasesError, InvalidArguments, MissingRuntime, ModelRejected
from .ladder import Attempt, Outcome
from .loops import run_sync

__all__ = [
    "FORMAT",
    "Correct",
    "Evaluation",
    "Row",
    "as_row",
    "best_attempt",
    "evaluate",
    "evaluate_async",
    "is_right",
    "read_rows",
    "same_answer",
    "warm_up",
    "wilson",
]

FORMAT = 1
"""Version of :meth:`Evaluation.to_json`."""

Correct = Callable[[dict[str, Any], Any, Any], bool]
"""``correct(arguments, expected, value)``: what a card names where answers are not unique."""

_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "<absent>", "__bool__": lambda self: False})()


class Row(NamedTuple):
    """One labelled call. ``expected`` is ``None`` where the specialist must abstain.

    ``group``: of which group the call is, an opaque string. ``specialist``: of which specialist, where the row says it.
    """

    line: int
    input: dict[str, Any]
    expected: Any = _ABSENT
    group: str | None = None
    specialist: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether the row says what is expected. A row that does not needs a ``correct`` to be judged by."""
        return self.expected is not _ABSENT

    @property
    def wants_answer(self) -> bool:
        """False where the specialist must abstain."""
        return self.expected is not None


@dataclass
class Evaluation:
    """What was counted. ``accepted`` is always ``correct + wrong_accepted``, and ``n`` is ``accepted + abstained``.

    A row that expects an abstention and gets one is counted in ``abstained``; it is not in ``correct``, which counts
    accepted answers, and so not in ``accuracy`` either. ``out_of_scope`` and ``out_of_scope_abstained`` tell of those.
    """

    n: int = 0
    accepted: int = 0
    correct: int = 0
    """Accepted and right."""
    right: int = 0
    """The right value, accepted or not."""
    wrong_accepted: int = 0
    """Accepted and wrong, or accepted where an abstention was expected."""
    rejected: int = 0
    """Of the abstained: rows whose arguments the types refused, so that no model was asked."""
    out_of_scope: int = 0
    """Rows that expect an abstention."""
    out_of_scope_abstained: int = 0
    doubts: dict[str, list[Any]] = field(default_factory=dict)
    """Why rows were abstained from: the kind, with how many and one reason as an example."""
    _seconds: array[float] = field(default_factory=lambda: array("d"), repr=False)
    _steps: int = field(default=0, repr=False)
    _stepped: int = field(default=0, repr=False)

    @property
    def abstained(self) -> int:
        """Rows without an accepted answer."""
        return self.n - self.accepted

    @property
    def accuracy(self) -> float | None:
        """``correct`` over ``n``."""
        return self.correct / self.n if self.n else None

    @property
    def in_scope_accuracy(self) -> float | None:
        """``right`` over the rows that expect an answer: the best answer, with the floor ignored."""
        rows = self.n - self.out_of_scope
        return self.right / rows if rows else None

    @property
    def steps_mean(self) -> float | None:
        """Steps of all the attempts of a row, averaged over the rows that told theirs."""
        return self._steps / self._stepped if self._stepped else None

    def milliseconds(self, share: float) -> float | None:
        """The wall time within which ``share`` of the calls ended; rejected rows are not among them."""
        if not self._seconds:
            return None
        ordered = sorted(self._seconds)
        return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def to_json(self) -> dict[str, Any]:
        """One flat object; what cannot be told is ``null``."""
        low, high = wilson(self.correct, self.n) if self.n else (None, None)
        return {
            "n": self.n,
            "accepted": self.accepted,
            "correct": self.correct,
            "right": self.right,
            "wrong_accepted": self.wrong_accepted,
            "abstained": self.abstained,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "in_scope_accuracy": self.in_scope_accuracy,
            "steps_mean": self.steps_mean,
            "ms_p50": self.milliseconds(0.5),
            "ms_p99": self.milliseconds(0.99),
            "rejected": self.rejected,
            "out_of_scope": self.out_of_scope,
            "out_of_scope_abstained": self.out_of_scope_abstained,
            "format": FORMAT,
        }

    def count(self, row: Row, outcome: Outcome[Any], seconds: float, right: bool) -> None:
        """Add one row that was climbed for. ``right`` is of the accepted value, else of the best one."""
        self._count(row, outcome.accepted, right)
        self._seconds.append(seconds)
        steps = [attempt.steps for attempt in outcome.attempts if attempt.steps is not None]
        self._steps += sum(steps)
        self._stepped += bool(steps)
        if not outcome.accepted:
            self._doubt(_kind(outcome), outcome.reason or "")

    def reject(self, row: Row, reason: str) -> None:
        """Add one row whose arguments the types refused: an abstention before any model."""
        self._count(row, accepted=False, right=False)
        self.rejected += 1
        self._doubt("rejected", reason)

    def _count(self, row: Row, accepted: bool, right: bool) -> None:
        self.n += 1
        self.accepted += accepted
        self.right += right
        self.correct += accepted and right
        self.wrong_accepted += accepted and not right
        if not row.wants_answer:
            self.out_of_scope += 1
            self.out_of_scope_abstained += not accepted

    def _doubt(self, kind: str, reason: str) -> None:
        self.doubts.setdefault(kind, [0, reason])[0] += 1


def evaluate(
    specialist: Specialist[..., Any],
    rows: Iterable[Row | Mapping[str, Any]],
    *,
    correct: Correct | None = None,
    timeout: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Climb for each row in turn and count.

    Args:
        specialist: What is measured, with its own ladder and floor.
        rows: ``{"input": {arguments}, "expected": value}``, or :class:`Row`. ``expected: None`` means that it must
            abstain.
        correct: Judges values where answers are not unique; ``expected`` may then be absent.
        timeout: Seconds for one row, in place of the specialist's own time limit.
        max_steps: The most steps of any rung.
        progress: Called after each row with the counts so far.

    Raises:
        CasesError: a row that is not of this form, or names other arguments than the specialist has.
        MissingRuntime, ModelRejected: the specialist cannot run at all.
    """
    return run_sync(
        lambda: evaluate_async(
            specialist, rows, correct=correct, timeout=timeout, max_steps=max_steps, progress=progress
        )
    )


async def evaluate_async(
    specialist: Specialist[..., Any],
    rows: Iterable[Row | Mapping[str, Any]],
    *,
    correct: Correct | None = None,
    timeout: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """:func:`evaluate` for callers with an event loop. Rows still go one after the other, so that times are honest."""
    result = Evaluation()
    warm = False
    for number, given in enumerate(rows, 1):
        row = given if isinstance(given, Row) else as_row(given, number)
        check_row(row, specialist, correct)
        try:
            arguments = specialist.signature.check_json(json.dumps(row.input))
        except InvalidArguments as error:
            result.reject(row, str(error))
        else:
            if not warm:
                await warm_up(specialist, arguments)
                warm = True
            start = time.perf_counter()
            deadline = None if timeout is None else time.monotonic() + timeout
            outcome = await specialist.climb(
                arguments, deadline=deadline, timeout=timeout, max_steps=max_steps, resting=False, group=row.group
            )
            seconds = time.perf_counter() - start
            result.count(row, outcome, seconds, _outcome_is_right(row, arguments, outcome, correct))
        if progress is not None:
            progress(result)
    return result


def read_rows(path: Path, *, label: str | None = None) -> Iterator[Row]:
    """The rows of a file of JSON lines, one at a time; empty lines are passed over. ``label`` names it in errors.

    Raises :class:`CasesError`, which names the line, and ``OSError``.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{label or path}, line {number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield as_row(strict_json.loads(text), number, where)
            except UnicodeDecodeError as error:
                raise CasesError(f"{where}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
            except RecursionError:
                raise CasesError(f"{where}: nested too deeply to be read") from None
            except ValueError as error:
                raise CasesError(f"{where}: not JSON ({error}); write one object a line") from None


def check_row(row: Row, specialist: Specialist[..., Any], correct: Correct | None, where: str | None = None) -> None:
    """Raise :class:`CasesError` when the row cannot be asked or judged. Values are left to the types, at the call."""
    where = where or f"row {row.line}"
    if row.specialist is not None and row.specialist != specialist.name:
        raise CasesError(f"{where}: it is a case of {row.specialist[:64]!r}, not of {specialist.name!r}")
    if not row.labelled and correct is None:
        raise CasesError(
            f'{where}: there is no "expected"; give one, or null where it must abstain, or name a function'
            ' "correct" in the card'
        )
    known = specialist.parameters["properties"]
    unknown = sorted(set(row.input) - set(known))
    if unknown:
        raise CasesError(
            f"{where}: {specialist.name} has no argument {unknown[0]!r}; its arguments are {', '.join(known) or 'none'}"
        )
    missing = sorted(set(specialist.parameters.get("required", ())) - set(row.input))
    if missing:
        raise CasesError(f"{where}: the argument {missing[0]!r} of {specialist.name} is missing")


def best_attempt(outcome: Outcome[Any]) -> Attempt | None:
    """The attempt whose answer is best, with the floor ignored: by the verdict, then by confidence, then the latest."""
    if outcome.accepted:
        return outcome.attempts[-1]
    rank = {"passed": 2, "unknown": 1, None: 1, "failed": 0}
    answered = [attempt for attempt in outcome.attempts if attempt.outcome == "answered"]

    def goodness(attempt: Attempt) -> tuple[int, float]:
        status = None if attempt.verdict is None else attempt.verdict.status
        return rank[status], -1.0 if attempt.confidence is None else attempt.confidence

    return max(reversed(answered), key=goodness, default=None)


def is_right(row: Row, arguments: dict[str, Any], value: Any, correct: Correct | None) -> bool:
    """Whether ``value`` is right for this row. Where an abstention is expected nothing is.

    Raises :class:`CasesError` when ``correct`` itself fails.
    """
    if not row.wants_answer:
        return False
    if correct is None:
        return same_answer(row.expected, value)
    try:
        return bool(correct(dict(arguments), row.expected if row.labelled else None, value))
    except Exception as error:
        raise CasesError(
            f"line {row.line}: the card's function 'correct' failed with {type(error).__name__}: {error}"
        ) from error


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson: sensible also at 0, at 1 and for few rows."""
    z = 1.959963984540054
    share = successes / n
    centre = share + z * z / (2 * n)
    width = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - width) / scale
    return max(0.0, low), 1.0 if successes == n else min(1.0, (centre + width) / scale)


async def warm_up(specialist: Specialist[..., Any], arguments: dict[str, Any]) -> None:
    """Open the model before the clock runs; without this the first row would pay for all.

    What keeps the model from being opened at all is raised: figures of a specialist that cannot run would mislead.
    """
    effort = dict.fromkeys(specialist.signature.injected_names, Effort(max_steps=1))
    try:
        async with asyncio.timeout(specialist.timeout):
            await specialist(**arguments, **effort)
    except (MissingRuntime, ModelRejected):
        raise
    except Exception:
        return  # it is asked again by the climb, which counts the failure


def _outcome_is_right(row: Row, arguments: dict[str, Any], outcome: Outcome[Any], correct: Correct | None) -> bool:
    best = best_attempt(outcome)
    return best is not None and is_right(row, arguments, best.value, correct)


def as_row(data: Any, number: int, where: str | None = None) -> Row:
    """A row of the form that files have. Raises :class:`CasesError`."""
    where = where or f"row {number}"
    if not isinstance(data, Mapping) or not isinstance(data.get("input"), Mapping):
        raise CasesError(f'{where}: not of the form {{"input": {{arguments}}, "expected": value}}')
    told = {name: data.get(name) for name in ("group", "specialist")}
    for name, value in told.items():
        if value is not None and not isinstance(value, str):
            raise CasesError(f"{where}: {name!r} is a text, not {value!r:.40}")
    return Row(number, dict(data["input"]), data.get("expected", _ABSENT), **told)


def _kind(outcome: Outcome[Any]) -> str:
    last = outcome.attempts[-1] if outcome.attempts else None
    if last is None or last.outcome != "answered":
        return "no answer" if last is None else last.outcome
    return "failed the check" if last.verdict is not None and last.verdict.status == "failed" else "not sure enough"
