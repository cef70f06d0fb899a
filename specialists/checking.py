"""``brain specialists check``: is a folder what its card claims?

Its code is run only where it is trusted: on its own cases and, where it has a verifier, on answers known to be wrong.

A claim that a verifier is sound or complete cannot be proved by trying; one counter-example refutes it, and that is
what is looked for. This module knows nothing of terminals.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .card import CARD, Card, file_problems, read_card
from .certificates import folder_digest
from .corruptions import choices_in, corruptions
from .define import Specialist
from .errors import (
    CardError,
    CasesError,
    InvalidAnswer,
    InvalidArguments,
    ModelRejected,
    SpecialistError,
    UntrustedFolder,
)
from .evaluation import Row, best_attempt, check_row, is_right, read_rows
from .graph_check import check_graph
from .ladder import Outcome, jsonable
from .loops import run_sync
from .model_files import read_model
from .registry import Found, find, verify_model
from .signatures import check_answer
from .verifiers import run_verifier

__all__ = ["CASES", "FORMAT", "Finding", "Report", "check"]

CASES = "cases.jsonl"
FORMAT = 1
"""Version of :meth:`Report.to_json`."""
MARK = "FILL IN"
_NO_CASES = f'write rows {{"input": {{arguments}}, "expected": value}} into {CASES}, null where it must abstain'

MOST_CASES = 200
SECONDS_FOR_CORRUPTIONS = 20.0
MOST_CORRUPTIONS_PER_CASE = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``note`` is worth knowing and refuses nothing; ``failed`` has a remedy."""

    what: str
    status: Literal["ok", "failed", "note"]
    detail: str
    remedy: str | None = None


@dataclass
class Report:
    """What :func:`check` found, in the order in which it looked."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True
    """Whether everything was looked at; not where that needs code that is not trusted."""

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != "failed" for finding in self.findings)

    def ok(self, what: str, detail: str) -> None:
        """Add what is as it should be."""
        self.findings.append(Finding(what, "ok", detail))

    def note(self, what: str, detail: str) -> None:
        """Add what is worth knowing."""
        self.findings.append(Finding(what, "note", detail))

    def unseen(self, what: str, detail: str) -> None:
        """Add what was not looked at, for nobody said that the folder is trusted."""
        self.findings.append(Finding(what, "note", f"{detail}; read the folder, then check it with --trust"))
        self.complete = False

    def failed(self, what: str, detail: str, remedy: str) -> None:
        """Add what is not as claimed."""
        self.findings.append(Finding(what, "failed", detail, remedy))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        findings = [asdict(finding) for finding in self.findings]
        return {
            "folder": str(self.folder),
            "passed": self.passed,
            "complete": self.complete,
            "findings": findings,
            "format": FORMAT,
        }


@dataclass(frozen=True)
class _Case:
    """A row of the cases file with what solving it gave."""

    row: Row
    arguments: dict[str, Any]
    outcome: Outcome[Any]
    seconds: float
    answer: Any
    """The right answer as a value: the expected one, or one that ``correct`` agrees with; ``None`` without either."""


@dataclass
class _Tally:
    """What a verifier said of many answers, with the first example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[_Case, Any, str | None]] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        return self.counts.total()


def check(folder: Path, *, trust: bool = False, before_code: Callable[[], None] | None = None) -> Report:
    """Look at the card, the hashes, the models, the code, the cases, the verifier's claims and the floor.

    Without ``trust`` none of the folder's code is imported; where it has some, what needs it is not looked at, which
    the report says. A folder whose card names a task needs none: its model then runs in a limited child process. With
    ``trust`` its code is run with the caller's rights; ``before_code`` is called just before. What depends on something
    that failed is not looked at.
    """
    report = Report(folder)
    try:
        found = _load(folder, report, trust, before_code)
        if found is not None:
            _check_certificate(found, report)
            # What the folder declares is looked at; a certificate may accept less.
            declared = found._replace(specialist=found.specialist.with_certificate(None))
            run_sync(lambda: _check_loaded(declared, report))
    except SpecialistError as error:
        report.failed("run", str(error), "mend that, seal the folder and check again")
    return report


def _check_certificate(found: Found, report: Report) -> None:
    s = found.specialist
    if s.certificate is None:
        report.note("certificate", "none; `brain specialists calibrate` makes one from labelled cases")
        return
    reason = s.certificate.problem(
        specialist=s.name, folder=None if found.folder is None else folder_digest(found.folder), ladder=s.ladder_digest
    )
    if reason is None:
        report.ok("certificate", s.certificate.sentence())
    else:
        report.note("certificate", f"void: {reason}; calibrate anew")


def _load(folder: Path, report: Report, trust: bool, before_code: Callable[[], None] | None) -> Found | None:
    try:
        card = read_card(folder)
    except CardError as error:
        todo = "mend it" if (folder / CARD).exists() else f"write a {CARD}"
        report.failed("card", str(error), f"{todo}, then seal the folder and check again")
        return None
    report.ok("card", f"{card.name} {card.version}: {card.description}")
    hard_links = None if trust else False
    problems = [problem for _, problem in file_problems(folder, card, hard_links=hard_links)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        remedy = f"if the change is yours, run `brain specialists seal {folder}`; its code was not run"
        report.failed("hashes", problems[0] + more, remedy)
        return None
    report.ok("hashes", f"{len(card.files)} files are the ones the card lists")
    if not _check_models(folder, card, report, hard_links):
        return None
    found = _found(folder, card, report, trust, before_code)
    left = [name for name in [*card.files, CARD, "README.md"] if _has_marks(folder / name)]
    if left:
        report.note("to do", f"parts marked {MARK} are left in {', '.join(left)}")
    if found is not None and not found.specialist.description:
        report.failed("description", "nothing says what it does", "write a docstring: a brain chooses by it")
    return found


def _check_models(folder: Path, card: Card, report: Report, hard_links: bool | None) -> bool:
    """Look through each model's bytes, as is done before one is loaded."""
    models = [name for name in card.files if name.endswith(".onnx")]
    for name in models:
        try:
            data = read_model(name, within=folder, sha256=card.files[name], hard_links=hard_links)
            check_graph(data, name=repr(name))
        except ModelRejected as error:
            report.failed("model", str(error), "export it anew, seal the folder and check again; its code was not run")
            return False
    if models:
        report.ok("model", f"{', '.join(models)}: nothing in it that is not loaded")
    if card.model is not None:
        try:
            verify_model(card)
        except (ModelRejected, CardError) as error:
            report.failed("model", str(error), "take the model it was measured with, or measure anew")
            return False
        report.ok("model", f"that of the bundled {card.model.name}, as the card names it")
    return True


def _found(
    folder: Path, card: Card, report: Report, trust: bool, before_code: Callable[[], None] | None
) -> Found | None:
    if card.task is None and not trust:
        _check_unread(folder, card, report)
        return None
    if before_code is not None and card.task is None:
        before_code()
    what = "code" if card.task is None else "task"
    try:
        found = find(folder.resolve(), trust=trust)
    except UntrustedFolder as error:
        report.unseen("task", str(error))
        return None
    except SpecialistError as error:
        report.failed(what, str(error), "mend it, seal the folder and check again")
        return None
    s = found.specialist
    arguments = ", ".join(s.parameters["properties"]) or "no arguments"
    if card.task is None:
        report.ok(what, f"{s.name}({arguments}) can be imported and has a schema")
    else:
        where = "in this process" if trust else "in a limited child process"
        report.ok(what, f"{s.name}({arguments}): {card.task} without any code; its model runs {where}")
    return found


def _check_unread(folder: Path, card: Card, report: Report) -> None:
    """What can be said of a folder with code without running it."""
    for where in filter(None, (card.function, card.correct)):
        module = where.partition(":")[0].replace(".", "/")
        if not {f"{module}.py", f"{module}/__init__.py"} & set(card.files):
            report.failed("code", f"the card names {where!r}, and lists no {module}.py", "mend the card")
            return
    try:
        count = sum(1 for _ in read_rows(folder / CASES))
        report.note("cases", f"{count} rows can be read")
    except FileNotFoundError:
        report.failed("cases", f"there is no {CASES}", _NO_CASES)
    except OSError as error:
        report.failed("cases", f"{folder / CASES} cannot be read: {error.strerror}", _NO_CASES)
    except CasesError as error:
        report.failed("cases", str(error), _NO_CASES)
    report.unseen("code", "its Python was not run, so its types, answers and verifier were not tried")


def _has_marks(path: Path) -> bool:
    return path.suffix in (".py", ".toml", ".md") and path.is_file() and MARK.encode() in path.read_bytes()


async def _check_loaded(found: Found, report: Report) -> None:
    s = found.specialist
    if s.verify is None and s.min_confidence is None:
        remedy = "give @specialist a verify=, a min_confidence=, or both"
        report.failed("checked", "nothing checks its answers: it has neither a verifier nor a floor", remedy)
    assert found.folder is not None
    rows = _rows(found, found.folder / CASES, report)
    if not rows:
        return
    cases = await _solve(found, rows, report)
    if s.verify is not None and cases:
        await _check_verifier(found, cases, report)
    _check_confidence(s, cases, report)
    _check_time(s, cases, report)


def _rows(found: Found, path: Path, report: Report) -> list[Row]:
    remedy = _NO_CASES
    rows: list[Row] = []
    try:
        for row in read_rows(path):
            check_row(row, found.specialist, found.correct, f"{path}, line {row.line}")
            rows.append(row)
            if len(rows) == MOST_CASES:
                report.note("cases", f"only the first {MOST_CASES} are run here; measure more with `eval`")
                break
    except FileNotFoundError:
        report.failed("cases", f"there is no {CASES}", remedy)
    except OSError as error:
        report.failed("cases", f"{path} cannot be read: {error.strerror}", remedy)
    except CasesError as error:
        report.failed("cases", str(error), remedy)
        return []
    else:
        if not any(row.wants_answer for row in rows):
            report.failed("cases", "no case expects an answer", remedy)
    return rows


async def _solve(found: Found, rows: list[Row], report: Report) -> list[_Case]:
    """Climb for each row as a live call would; what is not as expected is told for the first row only."""
    s, cases, wrong = found.specialist, [], []
    for row in rows:
        try:
            arguments = s.signature.check_json(json.dumps(row.input))
        except InvalidArguments as error:
            if row.wants_answer:
                wrong.append(f"line {row.line}: its arguments are refused: {error}")
            continue
        start = time.perf_counter()
        outcome = await s.climb(arguments, resting=False)
        seconds = time.perf_counter() - start
        try:
            answer = _right_answer(found, row, arguments, outcome)
        except InvalidAnswer as error:
            wrong.append(f'line {row.line}: "expected" is not of the answer\'s type: {error}')
            continue
        cases.append(_Case(row, arguments, outcome, seconds, answer))
        problem = _problem(found, cases[-1])
        if problem:
            wrong.append(f"line {row.line}: {problem}")
    if wrong:
        detail = f"{len(wrong)} of {len(rows)} are not as expected; {wrong[0]}"
        report.failed("cases", detail, "mend the case, the code or the model, then seal and check again")
    else:
        report.ok("cases", f"{len(rows)} solved as expected")
    return cases


def _problem(found: Found, case: _Case) -> str | None:
    row, outcome = case.row, case.outcome
    if not row.wants_answer:
        return f"it must abstain and answered {_short(outcome.value)}" if outcome.accepted else None
    if row.labelled and not is_right(row, case.arguments, case.answer, found.correct):
        return f"the card's function `correct` says that the expected answer {_short(row.expected)} is wrong"
    if not outcome.accepted:
        return f"it abstained: {outcome.reason}"
    if not is_right(row, case.arguments, outcome.value, found.correct):
        wanted = f"; expected is {_short(row.expected)}" if row.labelled else ""
        return f"it answered {_short(outcome.value)}{wanted}"
    return None


def _right_answer(found: Found, row: Row, arguments: dict[str, Any], outcome: Outcome[Any]) -> Any:
    if row.labelled:
        return None if row.expected is None else _as_answer(found.specialist, row.expected)
    best = best_attempt(outcome)
    if best is not None and is_right(row, arguments, best.value, found.correct):
        return best.value
    return None


def _as_answer(s: Specialist[..., Any], value: Any) -> Any:
    """JSON as the answer's type; a plain value also as the only field of an object. Raises :class:`InvalidAnswer`."""
    try:
        return check_answer(s.answers, value, "the case")
    except InvalidAnswer:
        fields = s.returns.get("properties", {})
        if not isinstance(value, str) or len(fields) != 1:
            raise
        return check_answer(s.answers, {next(iter(fields)): value}, "the case")


async def _check_verifier(found: Found, cases: list[_Case], report: Report) -> None:
    """Right answers should pass and wrong ones must fail; one that does not refutes what is claimed."""
    s = found.specialist
    assert s.verify is not None
    right, wrong = _Tally(), _Tally()
    for case, value, is_correct in _answers(found, cases):
        verdict = await run_verifier(s.verify, case.arguments, value)
        tally = right if is_correct else wrong
        tally.counts[verdict.status] += 1
        tally.examples.setdefault(verdict.status, (case, value, verdict.reason))
        if s.sound and wrong.counts["passed"]:
            break  # right answers came first, so that both claims have been tried
    _report_right(s, right, report)
    _report_wrong(found, wrong, report)


def _report_right(s: Specialist[..., Any], right: _Tally, report: Report) -> None:
    what = "complete" if s.complete else "verifier"
    for status in ("failed", "unknown"):
        if status not in right.examples:
            continue
        case, value, reason = right.examples[status]
        detail = f"line {case.row.line}: the right answer {_short(value)}"
        if s.complete and status == "failed":
            remedy = "mend the verifier, or do not declare complete=True; or mend the case if it is wrong"
            report.failed(what, f"{detail} fails: {reason}", remedy)
        elif (reason or "").startswith(("the verifier raised", "the verifier returned")):
            report.failed(what, f"{detail}: {reason}", "mend the verifier")
        else:
            report.note("verifier", f"{detail} is not passed ({status}): {reason or 'no reason given'}")
        return
    claim = "; nothing here refutes the claim that it fails nothing right" if s.complete else ""
    report.ok(what, f"the verifier passes {right.tried} right answers{claim}")


def _report_wrong(found: Found, wrong: _Tally, report: Report) -> None:
    s = found.specialist
    what = "sound" if s.sound else "verifier"
    if "passed" in wrong.examples:
        case, value, _ = wrong.examples["passed"]
        right = "no answer is right here" if case.answer is None else f"right is {_short(case.answer)}"
        detail = f"line {case.row.line}: the wrong answer {_short(value)} passes; {right}"
        if s.sound:
            remedy = "mend the verifier, or do not declare sound=True"
            if found.correct is None and case.row.wants_answer:
                remedy += "; if that answer is right too, name a function `correct` in the card"
            report.failed(what, detail, remedy)
        else:
            count = f"{wrong.counts['passed']} of {wrong.tried} wrong answers pass, and it does not claim to be sound"
            report.note(what, f"{count}; {detail}")
    elif not wrong.tried:
        report.failed(what, "no answer is known to be wrong, so it cannot be tried", "add cases with other answers")
    elif not wrong.counts["failed"]:
        detail = f"of {wrong.tried} wrong answers it could tell none to be wrong"
        report.failed(what, detail, "mend the verifier: it must fail what is wrong")
    else:
        claim = "; nothing here refutes the claim that it passes nothing wrong" if s.sound else ""
        doubt = f" ({wrong.counts['unknown']} it could not tell)" if wrong.counts["unknown"] else ""
        report.ok(what, f"the verifier passes none of {wrong.tried} wrong answers{doubt}{claim}")


def _answers(found: Found, cases: list[_Case]) -> Iterator[tuple[_Case, Any, bool]]:
    """Values of the answer's type with whether they are right, a few for each case in turn, until the time is over."""
    for case in cases:
        if case.answer is not None:
            yield case, case.answer, True
    end = time.monotonic() + SECONDS_FOR_CORRUPTIONS
    streams = [(case, _candidates(found.specialist, case, cases)) for case in cases]
    for _ in range(MOST_CORRUPTIONS_PER_CASE):
        for case, stream in list(streams):
            if time.monotonic() > end:
                return
            for candidate in stream:
                try:
                    value = _as_answer(found.specialist, candidate)
                except InvalidAnswer:
                    continue  # the types stop it before any verifier
                yield case, value, is_right(case.row, case.arguments, value, found.correct)
                break
            else:
                streams.remove((case, stream))


def _candidates(s: Specialist[..., Any], case: _Case, cases: list[_Case]) -> Iterator[Any]:
    """Near misses, answers of other cases, and what the model itself said; as JSON, some of them right."""
    if case.row.wants_answer and case.answer is None:
        return  # nobody knows what is right here
    others = [jsonable(other.answer) for other in cases if other is not case and other.answer is not None]
    yield from (jsonable(attempt.value) for attempt in case.outcome.attempts if attempt.outcome == "answered")
    yield from others
    choices = choices_in(s.returns)
    bases = others[:1] if case.answer is None else [jsonable(case.answer)]
    for base in bases:
        yield from corruptions(base, choices=choices)


def _check_confidence(s: Specialist[..., Any], cases: list[_Case], report: Report) -> None:
    given = [
        attempt.confidence
        for case in cases
        for attempt in case.outcome.attempts
        if attempt.outcome == "answered" and attempt.rung == "specialist"
    ]
    known = [confidence for confidence in given if confidence is not None]
    if s.min_confidence is None:
        if s.verify is not None and not s.sound and s.next is None:
            remedy = "declare a floor with min_confidence=, or a verifier that is sound"
            report.failed("floor", "its verifier is not sound and it has no floor, so nothing is accepted", remedy)
        return
    if given and not known:
        remedy = "return Answer(value, confidence=...), or do without the floor"
        report.failed("floor", f"the floor is {s.min_confidence:g} and no answer came with a confidence", remedy)
    elif s.min_confidence == 0:
        report.failed("floor", "a floor of 0 accepts every answer", "choose it on cases the model has not seen")
    elif len(known) > 2 and len(set(known)) == 1:
        report.note("floor", f"every answer has the confidence {known[0]:g}, which tells nothing")
    elif known:
        spread = f"{min(known):.3f} to {max(known):.3f}"
        report.ok("floor", f"{s.min_confidence:g}; the answers' confidence is {spread}")


def _check_time(s: Specialist[..., Any], cases: list[_Case], report: Report) -> None:
    if not cases:
        return
    # The first case opens the model too.
    slowest = max(case.seconds for case in cases[1:] or cases)
    if s.timeout is None:
        report.note("time", f"the slowest case took {1000 * slowest:.0f} ms, and no timeout is declared: declare one")
    elif slowest > s.timeout / 2:
        report.note("time", f"the slowest case took {1000 * slowest:.0f} ms of the {1000 * s.timeout:.0f} ms it has")
    else:
        report.ok("time", f"the slowest case took {1000 * slowest:.1f} ms of the {1000 * s.timeout:.0f} ms it has")


def _short(value: Any) -> str:
    text = json.dumps(jsonable(value), ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
