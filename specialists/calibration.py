"""Labelled cases in, a certificate out: every rung is run once on every case, and the cheapest safe policy is taken.

What a case's label is compared with, and what counts as wrong, is :mod:`specialists.evaluation`'s; which policies are
tried and tested is :mod:`specialists.thresholds`'. A case that expects an abstention counts as wrong when accepted.
This module writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from .certificates import LONGEST_GROUP, Certificate, Drawn, FloorsOf, GroupPolicy
from .climb import Hooks, Question, attempt_on
from .comparing import same_answer
from .define import Specialist
from .errors import CannotCertify, CasesError, InvalidAnswer, InvalidArguments
from .evaluation import Correct, Row, as_row, check_row, is_right, warm_up
from .ladder import NO_MODEL, Attempt, jsonable
from .loops import run_sync
from .signatures import check_answer
from .statistics import clopper_pearson, conformal_quantile, conformal_risk_threshold, histogram, upper_bound

if TYPE_CHECKING:
    from .thresholds import Certified, Refusal, RungSignals

__all__ = [
    "Calibration",
    "Case",
    "CaseSet",
    "CostBound",
    "MarginalRisk",
    "Observation",
    "calibrate",
    "calibrate_async",
    "cost_bound",
    "gather",
    "marginal_risk",
    "observe",
    "signals",
]


class Case(NamedTuple):
    """A labelled call that was looked at: its checked arguments, and a key that equal inputs share."""

    row: Row
    arguments: dict[str, Any]
    key: bytes


@dataclass(frozen=True, slots=True)
class CaseSet:
    """Cases that may be calibrated on. ``sha256``: over them, whatever their order.

    ``repeated``: rows that were left out because their input stood there before.
    """

    cases: tuple[Case, ...]
    sha256: str
    drawn: Drawn
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What every rung did on one case. ``wrong``: by rung, whether its answer is; ``None`` where there is none."""

    case: Case
    attempts: tuple[Attempt, ...]
    wrong: tuple[bool | None, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A certificate with what it was made from. ``refused``: groups of calls for which there is none, and why."""

    certificate: Certificate
    observations: tuple[Observation, ...]
    refused: dict[str | None, CannotCertify] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarginalRisk:
    """A weaker promise than a certificate's, and another: a new call is answered *and* wrong with probability at most
    ``alpha``, on average over calibrations, when answers are accepted from ``min_confidence`` on.

    It says nothing of how many of the accepted answers are wrong, and holds with no stated confidence for the one
    threshold at hand (conformal risk control). ``None``: no threshold keeps it.
    """

    alpha: float
    min_confidence: float | None
    n: int

    def sentence(self) -> str:
        """In words."""
        if self.min_confidence is None:
            return f"marginal risk: no threshold keeps it at {100 * self.alpha:g} % with {self.n:,} cases"
        return (
            f"marginal risk: accepting from confidence {self.min_confidence:.4g} on, a call is answered and wrong with"
            f" probability at most {100 * self.alpha:g} %, on average over calibrations ({self.n:,} cases)"
        )


@dataclass(frozen=True, slots=True)
class CostBound:
    """A bound on what a call or a run takes: the next one stays below ``bound`` with probability ``level``.

    A conformal quantile of ``n`` exchangeable values; ``None``: they are too few for this level.
    """

    level: float
    bound: float | None
    n: int


def calibrate(
    specialist: Specialist[..., Any],
    rows: CaseSet | Iterable[Row | Mapping[str, Any]],
    *,
    alpha: float = 0.01,
    delta: float = 0.05,
    correct: Correct | None = None,
    drawn: Drawn = "distinct",
    escalation: float | None = None,
    folder: str | None = None,
    precision: str | None = None,
    uses: int = 0,
    command: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Certify that at most ``alpha`` of the accepted answers are wrong, at confidence 1 - ``delta``.

    Args:
        specialist: With its ladder of local rungs. What its present certificate says plays no part.
        rows: ``{"input": {arguments}, "expected": value, "group": text}``, or :class:`Row`; ``expected`` ``None`` where
            it must abstain. Groups get a policy each and share ``delta``.
        correct: Judges values where answers are not unique; ``expected`` may then be absent.
        drawn: ``"drawn"`` where rows were drawn with replacement, so that repeats count; else each input counts once.
        escalation: What asking the big model costs, in CPU seconds of this machine, to find the cheapest policy.
        folder: The digest of the specialist's folder (:func:`specialists.certificates.folder_digest`).
        uses: How often the results of these cases had been looked at before.
        command: What makes this certificate, for its readers.
        progress: Called with the number of cases that are done.

    Raises:
        CannotCertify: the cases do not support the claim for any group; says how many would.
        CasesError: rows that cannot be used.
        ValueError: ``alpha`` or ``delta`` is not between 0 and 1.
    """
    return run_sync(
        lambda: calibrate_async(
            specialist,
            rows,
            alpha=alpha,
            delta=delta,
            correct=correct,
            drawn=drawn,
            escalation=escalation,
            folder=folder,
            precision=precision,
            uses=uses,
            command=command,
            progress=progress,
        )
    )


async def calibrate_async(
    specialist: Specialist[..., Any],
    rows: CaseSet | Iterable[Row | Mapping[str, Any]],
    *,
    alpha: float = 0.01,
    delta: float = 0.05,
    correct: Correct | None = None,
    drawn: Drawn = "distinct",
    escalation: float | None = None,
    folder: str | None = None,
    precision: str | None = None,
    uses: int = 0,
    command: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """:func:`calibrate` for callers with an event loop."""
    for name, level in (("alpha", alpha), ("delta", delta)):
        if not isinstance(level, int | float) or not 0 < level < 1:
            raise ValueError(f"{name} lies between 0 and 1, not at {level!r}")
    if escalation is not None and not (math.isfinite(escalation) and escalation >= 0):
        raise ValueError(f"escalation is in CPU seconds and not negative, not {escalation!r}")
    cases = rows if isinstance(rows, CaseSet) else gather(specialist, rows, correct=correct, drawn=drawn)
    seen = await observe(specialist, cases.cases, correct=correct, progress=progress)
    groups: dict[str | None, list[Observation]] = {}
    for each in seen:
        groups.setdefault(each.case.row.group, []).append(each)
    level = delta / len(groups)
    certified: list[GroupPolicy] = []
    refused: dict[str | None, CannotCertify] = {}
    for group, part in sorted(groups.items(), key=lambda item: item[0] or ""):
        found = _certify(specialist, part, alpha, level, escalation, cases.sha256)
        if isinstance(found, CannotCertify):
            refused[group] = found
        else:
            certified.append(found.model_copy(update={"group": group}))
    if not certified:
        raise next(iter(refused.values()))
    n, accepted_of = sum(each.n for each in certified), sum(each.cases for each in certified)
    low, high = clopper_pearson(n, accepted_of, 0.05)
    models = sorted({name for each in seen for attempt in each.attempts for name in _ran(attempt)}) or [NO_MODEL]
    known = [name.split("/") for name in models if name != NO_MODEL]
    edges, counts = histogram([each.attempts[0].confidence for each in seen])
    certificate = Certificate(
        specialist=specialist.name,
        alpha=alpha,
        delta=delta,
        n=n,
        errors=sum(each.errors for each in certified),
        coverage=n / accepted_of,
        coverage_low=low,
        coverage_high=high,
        groups=tuple(certified),
        cases=len(seen),
        cases_sha256=cases.sha256,
        drawn=cases.drawn,
        uses=uses,
        folder=folder,
        ladder=specialist.ladder_digest,
        models=tuple(models),
        provider=known[0][1] if known else None,
        precision=precision if known else None,
        onnxruntime=known[0][2] if known else None,
        made=date.today(),
        command=command,
        scores_edges=edges,
        scores_counts=counts,
    )
    return Calibration(certificate, tuple(seen), refused)


def gather(
    specialist: Specialist[..., Any],
    rows: Iterable[Row | Mapping[str, Any]],
    *,
    correct: Correct | None = None,
    drawn: Drawn = "distinct",
    label: str | None = None,
) -> CaseSet:
    """Look at all rows before any is run. ``label`` names their file in errors.

    Raises :class:`CasesError` for rows of another specialist, without a label, with a label of another type, with
    arguments that do not fit, for one input with two labels, and for no rows at all.
    """
    cases: list[Case] = []
    first: dict[bytes, Row] = {}
    repeated = 0
    for number, given in enumerate(rows, 1):
        row = given if isinstance(given, Row) else as_row(given, number)
        where = f"row {row.line}" if label is None else f"{label}, line {row.line}"
        proves = drawn == "generated" and specialist.sound  # its verifier is the judge of what its generator makes
        if row.group is not None and len(row.group) > LONGEST_GROUP:
            long = f"a group's name has up to {LONGEST_GROUP} characters, and this one {len(row.group):,}"
            raise CasesError(f"{where}: {long}")
        check_row(row, specialist, _by_verifier if proves and correct is None else correct, where)
        try:
            arguments = specialist.signature.check_json(json.dumps(row.input))
        except InvalidArguments as error:
            raise CasesError(f"{where}: {error}") from None
        if row.labelled and row.expected is not None:
            _check_label(specialist, row.expected, where)
        told = json.dumps([jsonable(arguments), row.group], sort_keys=True, ensure_ascii=True)
        key = hashlib.sha256(told.encode()).digest()
        before = first.setdefault(key, row)
        if before is not row and not _same_label(before, row):
            raise CasesError(
                f"{where}: line {before.line} has the same input with another label; mend one, or leave both out"
            )
        if before is not row and drawn == "distinct":
            repeated += 1
            continue
        cases.append(Case(row, arguments, key))
    if not cases:
        raise CasesError(f"{label or 'the file'} holds no rows")
    lines = sorted(
        case.key + json.dumps(jsonable(case.row.expected) if case.row.labelled else "?", sort_keys=True).encode()
        for case in cases
    )
    return CaseSet(tuple(cases), hashlib.sha256(b"\n".join(lines)).hexdigest(), drawn, repeated)


async def observe(
    specialist: Specialist[..., Any],
    cases: Iterable[Case],
    *,
    correct: Correct | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Observation]:
    """Run every local rung once on each case, also those that a live call would not have come to.

    What a case needs is run once however often it was drawn. Raises what keeps the specialist from running at all.
    """
    rungs = specialist.ladder(resting=False)
    hooks = Hooks()
    found: list[Observation] = []
    known: dict[bytes, Observation] = {}
    for case in cases:
        seen = known.get(case.key)
        if seen is None:
            if not known:  # a model that cannot be opened is told, and not taken for one that is always wrong
                await warm_up(specialist, case.arguments)
            attempts: tuple[Attempt, ...] = ()
            for rung in rungs:
                question = Question(case.arguments, attempts)
                attempts += (await attempt_on(rung.policy.name, rung.run, question, hooks),)
            wrong = tuple(_is_wrong(case, each, correct) for each in attempts)
            seen = known[case.key] = Observation(case, attempts, wrong)
        found.append(seen)
        if progress is not None:
            progress(len(found))
    return found


def marginal_risk(specialist: Specialist[..., Any], seen: Iterable[Observation], alpha: float) -> MarginalRisk:
    """The weaker promise for the first rung's answers that its verifier does not fail; see :class:`MarginalRisk`."""
    cases: list[tuple[float | None, bool]] = []
    for each in seen:
        attempt, wrong = each.attempts[0], each.wrong[0]
        failed = attempt.verdict is not None and attempt.verdict.status == "failed"
        cases.append((None, False) if wrong is None or failed else (attempt.confidence, wrong))
    return MarginalRisk(alpha, conformal_risk_threshold(cases, alpha), len(cases))


def cost_bound(values: Iterable[float], level: float = 0.95) -> CostBound:
    """What the next call or run stays below with probability ``level``. Raises ``ValueError`` for another level."""
    known = list(values)
    return CostBound(level, conformal_quantile(known, level), len(known))


def _certify(
    specialist: Specialist[..., Any],
    seen: list[Observation],
    alpha: float,
    delta: float,
    escalation: float | None,
    salt: str,
) -> GroupPolicy | CannotCertify:
    from .thresholds import Certified, certify

    rungs = signals(specialist, seen)
    always = [rung.policy.name for rung in specialist.ladder() if rung.policy.sound]
    # Who is for tuning is as good as drawn, for each draw of a repeated case by itself, and the same in any order.
    times: Counter[bytes] = Counter()
    keys = []
    for each in seen:
        times[each.case.key] += 1
        keys.append(hashlib.sha256(f"{salt}{times[each.case.key]}".encode() + each.case.key).digest())
    found = certify(rungs, keys, alpha=alpha, delta=delta, escalation=escalation, always=always)
    if not isinstance(found, Certified):
        return _refusal(specialist, seen[0].case.row.group, found, alpha, len(seen))
    low, high = clopper_pearson(found.n, found.cases, 0.05)
    return GroupPolicy(
        cases=found.cases,
        n=found.n,
        errors=found.errors,
        verified=found.verified,
        level=found.level,
        coverage=found.n / found.cases,
        coverage_low=low,
        coverage_high=high,
        policy={name: FloorsOf(**floors.to_json()) for name, floors in found.floors.items()},
    )


def signals(specialist: Specialist[..., Any], seen: list[Observation]) -> list[RungSignals]:
    """What every rung did, as arrays for :func:`specialists.thresholds.certify`, first rung first."""
    import numpy as np

    from .thresholds import NEVER, PROVEN, STRATA, RungSignals

    found = []
    for index, rung in enumerate(specialist.ladder()):
        policy = rung.policy
        attempts = [each.attempts[index] for each in seen]

        def stratum(attempt: Attempt, sound: bool = policy.sound, complete: bool = policy.complete) -> int:
            status = "unknown" if attempt.verdict is None else attempt.verdict.status
            if attempt.outcome != "answered" or (status == "failed" and complete):
                return NEVER
            return PROVEN if status == "passed" and sound else STRATA.index(status)

        found.append(
            RungSignals(
                policy.name,
                policy.kind,
                np.array([math.nan if each.confidence is None else each.confidence for each in attempts]),
                np.array([stratum(each) for each in attempts], np.int8),
                np.array([bool(each.wrong[index]) for each in seen]),
                np.array([each.outcome == "answered" for each in attempts]),
                np.array([each.outcome == "cannot" for each in attempts]),
                np.array([each.seconds if each.cpu_seconds is None else each.cpu_seconds for each in attempts]),
            )
        )
    return found


def _refusal(
    specialist: Specialist[..., Any], group: str | None, found: Refusal | Certified, alpha: float, cases: int
) -> CannotCertify:
    from .thresholds import Refusal

    assert isinstance(found, Refusal)
    who = specialist.name if group is None else f"{specialist.name}, group {group[:64]!r}"
    claim = f"at most {100 * alpha:g} % wrong at {100 * (1 - found.level):g} % confidence"
    if found.reason == "nothing accepted":
        told = f"none of its answers to the {cases:,} cases can be accepted"
        text = f"{who}: {told}; give it a verifier or a confidence, or better training"
    else:
        bound = upper_bound(found.errors, found.n, found.level)
        told = (
            f"of the {found.n:,} answers (of {found.cases:,} testing cases) that it is surest of {found.errors:,} are"
            f" wrong, which allows for {100 * bound:.3g} %"
        )
        if found.needed is not None:
            remedy = f"about {found.needed:,} cases like these would be needed, or a laxer alpha"
        else:
            remedy = "no number of such cases would do; it takes a better confidence or verifier, or a laxer alpha"
        text = f"{who}: {cases:,} cases do not support {claim}: {told}; {remedy}"
    return CannotCertify(text, reason=found.reason, needed=found.needed, group=group)


def _by_verifier(arguments: dict[str, Any], expected: Any, value: Any) -> bool:
    """Stands where the verdicts judge."""
    return False


def _is_wrong(case: Case, attempt: Attempt, correct: Correct | None) -> bool | None:
    """``None`` where there is no answer. What has no label and no judge is right if a sound verifier passed it."""
    if attempt.outcome != "answered":
        return None
    if correct is None and not case.row.labelled:
        return attempt.verdict is None or attempt.verdict.status != "passed"
    return not is_right(case.row, case.arguments, attempt.value, correct)


def _same_label(one: Row, other: Row) -> bool:
    if not (one.labelled and other.labelled):
        return one.labelled == other.labelled
    return same_answer(one.expected, other.expected) or same_answer(other.expected, one.expected)


def _check_label(specialist: Specialist[..., Any], expected: Any, where: str) -> None:
    """Raise :class:`CasesError` for a label that is no answer of this type; a plain text may be an object's only field.

    The schema is asked too: it may name choices that the Python type does not.
    """
    from jsonschema import Draft202012Validator

    fields = specialist.returns.get("properties", {})
    spellings = [expected]
    if isinstance(expected, str) and len(fields) == 1:
        spellings.append({next(iter(fields)): expected})
    validator = Draft202012Validator(specialist.returns)
    for value in spellings:
        try:
            check_answer(specialist.answers, value, "the label")
        except InvalidAnswer:
            continue
        if validator.is_valid(jsonable(value)):
            return
    short = json.dumps(jsonable(expected), ensure_ascii=False)
    raise CasesError(
        f"{where}: the label {short if len(short) <= 60 else short[:59] + '…'} is no answer of {specialist.name};"
        f" its answers are of the form {json.dumps(specialist.returns, ensure_ascii=False)[:120]}"
    )


def _ran(attempt: Attempt) -> tuple[str, ...]:
    return (attempt.ran or (NO_MODEL,)) if attempt.outcome == "answered" else ()
