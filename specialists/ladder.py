"""The ladder as a pure function: from a policy and the attempts so far to the next move.

``decide`` reads no clock and draws no chance, so a logged outcome can be replayed and gives the same decisions. What
runs the rungs is in :mod:`specialists.climb`; this module knows nothing of models, time or money.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, get_args

from pydantic_core import to_jsonable_python

from .costs import Cost
from .verifiers import Verdict

__all__ = [
    "Abstain",
    "Accept",
    "Attempt",
    "CertificateState",
    "Climb",
    "Decision",
    "Floors",
    "Outcome",
    "Policy",
    "RungPolicy",
    "decide",
    "replay",
]

T = TypeVar("T")

AcceptLevel: TypeAlias = Literal["verified", "certified", "confident"]
AcceptedBy: TypeAlias = Literal["verified", "certified", "confident", "unchecked"]
AttemptOutcome: TypeAlias = Literal[
    "answered",  # there is a value of the right type
    "cannot",  # the rung says that it has no answer
    "invalid",  # there was a value, of a wrong type or not finite
    "error",  # the rung raised
    "timeout",
    "overloaded",
    "refused",  # no room in a budget, or a hook said no
    "cancelled",
]
RungKind: TypeAlias = Literal[
    "specialist",
    "more_steps",
    "vote",  # the same specialist, asked symmetric variants of the same input
    "next",
    "big_model",
    "big_model_again",  # with the reason for which its first answer was not taken
    "function",
]
CertificateStatus: TypeAlias = Literal["valid", "missing", "void", "revoked"]

_LEVELS = get_args(AcceptLevel)

FORMAT = 1
"""Version of :meth:`Outcome.to_json`."""

NO_MODEL = "no model"
"""Stands among what ran for an attempt in which no model did."""


class _Jsonable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on one rung. ``None`` is unknown, never zero.

    ``seconds`` is wall time; ``cpu_seconds`` is compute time on this machine, an upper bound when
    ``cpu_seconds_low`` differs from it. ``source`` says who answered on this rung (a specialist's or a model's name).
    ``wire_attempts`` are the requests that left the machine for it. ``ran``: the models that ran for it, each with its
    provider and runtime, as :attr:`specialists.metering.CpuMeter.ran` names them.
    """

    rung: str
    outcome: AttemptOutcome
    seconds: float
    value: Any = None
    confidence: float | None = None
    verdict: Verdict | None = None
    steps: int | None = None
    reason: str | None = None
    source: str | None = None
    cpu_seconds: float | None = None
    cpu_seconds_low: float | None = None
    cost: Cost | None = None
    wire_attempts: tuple[_Jsonable, ...] = ()
    ran: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with everything :func:`decide` reads, and what was paid."""
        return {
            "rung": self.rung,
            "source": self.source,
            "outcome": self.outcome,
            "value": jsonable(self.value),
            "confidence": self.confidence,
            "verdict": None if self.verdict is None else self.verdict.status,
            "verdict_reason": None if self.verdict is None else self.verdict.reason,
            "steps": self.steps,
            "reason": self.reason,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "cpu_seconds_low": self.cpu_seconds_low,
            "cost": None if self.cost is None else self.cost.to_json(),
            "wire_attempts": [attempt.to_json() for attempt in self.wire_attempts],
            "ran": list(self.ran),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attempt:
        """Read a logged attempt back; values stay as JSON, and wire attempts are not rebuilt."""
        verdict = None if data["verdict"] is None else Verdict(data["verdict"], data.get("verdict_reason"))
        cost = data.get("cost")
        return cls(
            rung=data["rung"],
            outcome=data["outcome"],
            seconds=data["seconds"],
            value=data.get("value"),
            confidence=data["confidence"],
            verdict=verdict,
            steps=data.get("steps"),
            reason=data.get("reason"),
            source=data.get("source"),
            cpu_seconds=data.get("cpu_seconds"),
            cpu_seconds_low=data.get("cpu_seconds_low"),
            cost=None if cost is None else Cost.from_json(cost),
            ran=tuple(data.get("ran", ())),
        )


@dataclass(frozen=True, slots=True)
class Floors:
    """From which confidence on a certificate accepts an answer of one rung, by what the verifier said of it.

    ``None``: never. ``0``: whatever the confidence, also where none was given. ``unknown`` holds where there is no
    verifier too, ``failed`` for a verifier that is not declared complete.
    """

    passed: float | None = None
    unknown: float | None = None
    failed: float | None = None

    def accepts(self, attempt: Attempt) -> bool:
        """Whether an answered attempt lies on or above its floor."""
        status = "unknown" if attempt.verdict is None else attempt.verdict.status
        floor: float | None = getattr(self, status)
        if floor is None:
            return False
        return floor == 0 or (attempt.confidence is not None and attempt.confidence >= floor)

    def to_json(self) -> dict[str, float | None]:
        """A plain dictionary."""
        return {"passed": self.passed, "unknown": self.unknown, "failed": self.failed}


@dataclass(frozen=True, slots=True)
class CertificateState:
    """What is known, before a call, of the certificate it may be accepted by.

    ``id``: the certificate's own digest. ``holds_for``: what may have run for an attempt it speaks of. ``group``: the
    call's group, an opaque string. ``reason``: why it is not valid, in words that end a sentence.
    """

    status: CertificateStatus
    reason: str | None = None
    id: str | None = None
    alpha: float | None = None
    delta: float | None = None
    group: str | None = None
    holds_for: tuple[str, ...] = ()

    def objection(self, attempt: Attempt) -> str | None:
        """Why this certificate says nothing of ``attempt``; ``None``: it does."""
        if self.status != "valid":
            return self.reason or "nothing more is known"
        ran = attempt.ran or (NO_MODEL,)
        stranger = next((each for each in ran if each not in self.holds_for), None)
        if stranger is None:
            return None
        return f"it was made with {', '.join(self.holds_for)}, and here ran {stranger}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "status": self.status,
            "reason": self.reason,
            "id": self.id,
            "alpha": self.alpha,
            "delta": self.delta,
            "group": self.group,
            "holds_for": list(self.holds_for),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CertificateState:
        """The inverse of :meth:`to_json`."""
        return cls(**{**data, "holds_for": tuple(data["holds_for"])})


@dataclass(frozen=True, slots=True)
class RungPolicy:
    """What is known beforehand of one rung: by what its answers may be accepted.

    ``checked`` says that the rung declares a verifier or a floor; an answer from a rung that declares neither has
    nothing to be checked with. ``certified``: the floors that a certificate gives it; ``None``: the certificate does
    without this rung.
    """

    name: str
    kind: RungKind
    min_confidence: float | None = None
    sound: bool = False
    complete: bool = False
    checked: bool = True
    certified: Floors | None = None

    @property
    def local(self) -> bool:
        """Whether a specialist answers on it."""
        return self.kind in ("specialist", "more_steps", "vote", "next")

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "name": self.name,
            "kind": self.kind,
            "min_confidence": self.min_confidence,
            "sound": self.sound,
            "complete": self.complete,
            "checked": self.checked,
            "certified": None if self.certified is None else self.certified.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RungPolicy:
        """The inverse of :meth:`to_json`."""
        floors = data.get("certified")
        return cls(**{**data, "certified": None if floors is None else Floors(**floors)})


@dataclass(frozen=True, slots=True)
class Policy:
    """The rungs in order, and how much the application wants before it takes an answer.

    Under a valid certificate the certificate decides what is taken of specialists, beside what is verified. One that is
    missing, void or revoked is as none: ``"certified"`` then takes nothing of them, ``"confident"`` falls to the
    declared floors.

    Raises ``ValueError`` for another level than these, and for two rungs of one name.
    """

    rungs: tuple[RungPolicy, ...]
    accept: AcceptLevel = "confident"
    certificate: CertificateState | None = None

    def __post_init__(self) -> None:
        # Anything else would compare as the weakest level.
        if self.accept not in _LEVELS:
            raise ValueError(f"accept is one of {', '.join(_LEVELS)}, not {self.accept!r}")
        if len(self.rungs) > 1 and len({rung.name for rung in self.rungs}) < len(self.rungs):
            raise ValueError(f"two rungs have one name: {', '.join(rung.name for rung in self.rungs)}")

    def rung(self, name: str) -> RungPolicy:
        """The rung of this name. Raises ``ValueError``."""
        found = next((rung for rung in self.rungs if rung.name == name), None)
        if found is None:
            raise ValueError(f"the policy has no rung {name!r}")
        return found

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "accept": self.accept,
            "rungs": [rung.to_json() for rung in self.rungs],
            "certificate": None if self.certificate is None else self.certificate.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """The inverse of :meth:`to_json`."""
        state = data.get("certificate")
        return cls(
            tuple(RungPolicy.from_json(rung) for rung in data["rungs"]),
            data["accept"],
            None if state is None else CertificateState.from_json(state),
        )


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the last attempt's value."""

    by: AcceptedBy


@dataclass(frozen=True, slots=True)
class Climb:
    """Try this rung."""

    rung: str


@dataclass(frozen=True, slots=True)
class Abstain:
    """No rung is left. ``reason`` says what each one said."""

    reason: str


Decision: TypeAlias = Accept | Climb | Abstain


def decide(policy: Policy, attempts: Sequence[Attempt]) -> Decision:
    """What to do after ``attempts``. Pure: the same attempts under the same policy give the same decision.

    Raises ``ValueError`` for an attempt on a rung the policy does not have.
    """
    if not attempts:
        return Climb(policy.rungs[0].name) if policy.rungs else Abstain("the ladder has no rungs")
    last = attempts[-1]
    index = next((i for i, rung in enumerate(policy.rungs) if rung.name == last.rung), None)
    if index is None:
        raise ValueError(f"the policy has no rung {last.rung!r}")
    by = _accepted_by(policy, policy.rungs[index], last)
    if by is not None:
        return Accept(by)
    if last.outcome != "cancelled":
        for rung in policy.rungs[index + 1 :]:
            if _of_use(policy, rung, policy.rungs[index], last):
                return Climb(rung.name)
    return Abstain("; ".join(_doubt(policy, attempt) for attempt in attempts))


def _of_use(policy: Policy, rung: RungPolicy, before: RungPolicy, last: Attempt) -> bool:
    """Whether an answer that could be accepted may come from ``rung``, after ``last`` on the rung ``before``."""
    if rung.kind == "more_steps" and last.outcome != "answered":
        return False  # more steps help a thinker that was still thinking, not one that broke or ran out of time
    if rung.kind == "vote" and last.outcome not in ("answered", "cannot"):
        return False
    if rung.kind == "big_model_again":  # only where there is something new to tell it
        failed = last.verdict is not None and last.verdict.status == "failed"
        return before.kind == "big_model" and (failed or last.outcome == "invalid")
    # A certificate that does without a rung takes nothing from there but a proof.
    state = policy.certificate
    valid = state is not None and state.status == "valid"
    if state is not None and valid and before.local and last.outcome == "answered":  # what ran may have made it void
        valid = state.objection(last) is None
    return not (valid and rung.local and rung.certified is None and not rung.sound and policy.accept != "verified")


def _accepted_by(policy: Policy, rung: RungPolicy, attempt: Attempt) -> AcceptedBy | None:
    if attempt.outcome != "answered":
        return None
    status = None if attempt.verdict is None else attempt.verdict.status
    if status == "passed" and rung.sound:
        return "verified"
    if policy.accept == "verified" or (status == "failed" and rung.complete):
        return None
    if rung.local and policy.certificate is not None and policy.certificate.objection(attempt) is None:
        return "certified" if rung.certified is not None and rung.certified.accepts(attempt) else None
    # Without a certificate nobody knows what a fail from an incomplete verifier is worth: it is a doubt.
    if status == "failed":
        return None
    if rung.kind in ("big_model", "big_model_again"):
        return "unchecked"
    if policy.accept == "certified":
        return None
    if rung.min_confidence is not None:
        sure = attempt.confidence is not None and attempt.confidence >= rung.min_confidence
        return "confident" if sure else None
    return None if rung.checked else "unchecked"


def _doubt(policy: Policy, attempt: Attempt) -> str:
    rung = policy.rung(attempt.rung)
    who = attempt.source or attempt.rung
    who += {"more_steps": " with more steps", "vote": " by vote", "big_model_again": " once more"}.get(rung.kind, "")
    if attempt.outcome != "answered":
        return f"{who}: {attempt.reason or attempt.outcome}"
    if attempt.verdict is not None and attempt.verdict.status == "failed":
        return f"{who}: its answer failed the check" + (
            f" ({attempt.verdict.reason})" if attempt.verdict.reason else ""
        )
    state = policy.certificate
    if state is not None and rung.local and policy.accept != "verified":
        objection = state.objection(attempt)
        if objection is None:
            sure = "without a confidence" if attempt.confidence is None else f"with confidence {attempt.confidence:.4g}"
            return f"{who}: its answer, {sure}, is below what its certificate accepts"
        if policy.accept == "certified":
            status = "void" if state.status == "valid" else state.status
            return f"{who}: its certificate is {status}: {objection}"
    if rung.min_confidence is not None and policy.accept == "confident":
        if attempt.confidence is None:
            return f"{who}: its answer came without a confidence, and the floor is {rung.min_confidence:g}"
        return f"{who}: confidence {attempt.confidence:.4g} is below the floor of {rung.min_confidence:g}"
    if policy.accept != "confident":
        return f"{who}: nothing makes its answer {policy.accept}, as accept={policy.accept!r} asks"
    return f"{who}: its verifier is not declared sound and it has no confidence floor; declare one of the two"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How one call ended. ``accepted_by`` is ``None`` exactly when the ladder abstained; then ``value`` is ``None``."""

    value: T | None
    answered_by: str | None
    """Name of the rung."""
    accepted_by: AcceptedBy | None
    attempts: tuple[Attempt, ...]
    policy: Policy
    reason: str | None = None
    """Why the ladder abstained, in one sentence."""
    tool: str | None = None
    call_id: str | None = None
    run_id: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    audit: Attempt | None = None
    """The attempt that an accepted answer was audited by, where it was drawn for that."""

    @property
    def accepted(self) -> bool:
        """Whether there is an answer to use."""
        return self.accepted_by is not None

    @property
    def certificate(self) -> CertificateState | None:
        """The certificate's state in this call: void also where other models ran than it was made with."""
        state = self.policy.certificate
        if state is None or state.status != "valid":
            return state
        for attempt in self.attempts:
            local = self.policy.rung(attempt.rung).local and attempt.outcome == "answered"
            if local and (objection := state.objection(attempt)) is not None:
                return replace(state, status="void", reason=objection)
        return state

    def to_json(self) -> dict[str, Any]:
        """One log line: every field :func:`decide` reads, so that a log can be replayed."""
        return {
            "format": FORMAT,
            "run_id": self.run_id,
            "call_id": self.call_id,
            "tool": self.tool,
            "arguments": jsonable(dict(self.arguments)),
            "value": jsonable(self.value),
            "answered_by": self.answered_by,
            "accepted_by": self.accepted_by,
            "reason": self.reason,
            "policy": self.policy.to_json(),
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "audit": None if self.audit is None else self.audit.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome[Any]:
        """Read a log line back. Raises ``ValueError`` for another format."""
        if data.get("format") != FORMAT:
            raise ValueError(f"this log line has format {data.get('format')!r}; this version reads {FORMAT}")
        return Outcome(
            value=data["value"],
            answered_by=data["answered_by"],
            accepted_by=data["accepted_by"],
            attempts=tuple(Attempt.from_json(attempt) for attempt in data["attempts"]),
            policy=Policy.from_json(data["policy"]),
            reason=data["reason"],
            tool=data["tool"],
            call_id=data["call_id"],
            run_id=data["run_id"],
            arguments=data["arguments"],
            audit=None if data.get("audit") is None else Attempt.from_json(data["audit"]),
        )


def replay(outcome: Outcome[Any]) -> list[Decision]:
    """The decisions after none, one, two … all of the attempts of a logged outcome."""
    return [decide(outcome.policy, outcome.attempts[:count]) for count in range(len(outcome.attempts) + 1)]


def jsonable(value: Any) -> Any:
    """``value`` as JSON types; what pydantic cannot write becomes its ``repr``."""
    if type(value) in (str, int, bool, type(None)):
        return value
    try:
        return _finite(to_jsonable_python(value, fallback=repr, bytes_mode="base64"))
    except Exception:  # a log line is written whatever the value: one that contains itself, one whose code raises
        return f"<{type(value).__name__}>"


def _finite(value: Any) -> Any:
    # JSON has no NaN, and pydantic's own mode for it holds only where it writes JSON itself.
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value
