"""The parts that a simulated model can be asked to play beside answering: judge, verifier, reviewer, reviser.

Each is a few probabilities. What is wanted is told by the request's ``output_name``, as on the wire; a request of that
name which does not have the form below is an ordinary question. This module knows nothing of what is right.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..events import Message, ModelRequest
from .scripted import ScriptError

__all__ = [
    "Asked",
    "SimulatedJudge",
    "SimulatedReviewer",
    "SimulatedReviser",
    "SimulatedVerifier",
    "asked_for",
    "is_probability",
    "is_right",
    "judged",
    "question_of",
    "reviewed",
    "verified",
]

_FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "judgement": ("better", ("question", "first", "second")),
    "verdict": ("verdict", ("question", "answer")),
    "review": ("stands", ("question", "answer", "verdict", "reason")),
}
"""Of each role: the property that its answer has, and what is in the JSON that it is asked with."""
_EXPLANATION = frozenset({"steps", "explanation", "reasoning"})
_GARBAGE = ("Both have something to be said for them.", '{"better": "neither"}', "")


class _Probabilities:
    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None and not is_probability(value):
                raise ValueError(f"{type(self).__name__}.{field.name} is a probability, not {value!r}")


@dataclass(frozen=True, slots=True)
class SimulatedJudge(_Probabilities):
    """How a simulated model compares two answers (``output_name`` ``judgement``).

    First it ``garbles`` (answers with what is no judgement at all), then it ``abstains`` (``tie``), each with that
    probability. Of a right and a wrong answer it then tells the right one with probability ``accuracy``. Where it does
    not, and among two right or two wrong ones, it takes the first with probability ``prefers_first``: so of a right and
    a wrong answer it takes the right one with ``accuracy + (1 - accuracy) / 2`` over both orders.
    """

    accuracy: float = 1.0
    prefers_first: float = 0.5
    abstains: float = 0.0
    garbles: float = 0.0


@dataclass(frozen=True, slots=True)
class SimulatedVerifier(_Probabilities):
    """How a simulated model checks an answer (``output_name`` ``verdict``).

    ``misses``: the probability that it passes a wrong answer. ``accuses``: that it fails a right one. ``unsure``: that
    it says ``unknown`` of any, before the others. Checks of the same answer are independent, request by request.
    """

    misses: float = 0.0
    accuses: float = 0.0
    unsure: float = 0.0

    @classmethod
    def lying(cls, share: float) -> SimulatedVerifier:
        """One that says the contrary of what is true with probability ``share``, of right and of wrong answers."""
        return cls(misses=share, accuses=share)


@dataclass(frozen=True, slots=True)
class SimulatedReviewer(_Probabilities):
    """How a simulated model checks a verdict (``output_name`` ``review``).

    ``catches``: the probability that a false verdict does not stand. ``overturns``: that a true one does not. The
    verdict ``unknown`` claims nothing, so it is never false.
    """

    catches: float = 1.0
    overturns: float = 0.0


@dataclass(frozen=True, slots=True)
class SimulatedReviser(_Probabilities):
    """How a simulated model answers again after an objection (``output_name`` ``revision``).

    ``mends``: the probability that a wrong answer becomes right. ``harms``: that a right one becomes wrong. ``None``:
    it answers afresh, with the accuracy that it has.
    """

    mends: float | None = None
    harms: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants: its ``role`` (empty: an ordinary answer), its question, and what else it is asked with."""

    role: str
    question: str
    material: Mapping[str, Any]


_NOTHING: dict[str, Any] = {}


def asked_for(request: ModelRequest) -> Asked:
    """What ``request`` wants. Raises :class:`ScriptError` for a role's form that is not filled in as it has to be."""
    last = question_of(request.messages)
    role, schema = request.output_name, request.output_schema
    if schema is None or role not in ("revision", "combine", "split", *_FORMS):
        return Asked("", last, _NOTHING)
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    if role == "revision":
        said = [message for message in request.messages if message.get("role") in ("user", "assistant")]
        answers = [message for message in said if message["role"] == "assistant"]
        if not answers or said[0]["role"] != "user" or said[-1]["role"] != "user":
            return Asked("", last, _NOTHING)
        return Asked(role, _text(said[0]), {"answer": _loaded(_text(answers[-1]))})
    if role == "split":
        return Asked(role if "parts" in properties else "", last, _NOTHING)
    data = _loaded(last)
    if role == "combine":
        parts = data.get("parts") if isinstance(data, Mapping) else None
        if not isinstance(parts, list) or not isinstance(data.get("question"), str):
            return Asked("", last, _NOTHING)
        if not all(isinstance(part, Mapping) and "answer" in part for part in parts):
            raise ScriptError("a combination is asked with parts that each have an answer, as JSON")
        return Asked(role, data["question"], {"answers": [part["answer"] for part in parts]})
    answered_in, wants = _FORMS[role]
    if answered_in not in properties:
        return Asked("", last, _NOTHING)
    if not isinstance(data, Mapping) or not all(name in data for name in wants):
        raise ScriptError(f"a {role} is asked with JSON of {', '.join(wants)} as the last message, not {last[:80]!r}")
    if not isinstance(data["question"], str):
        raise ScriptError(f"the question of a {role} is text, not {str(data['question'])[:80]!r}")
    return Asked(role, data["question"], data)


def judged(judge: SimulatedJudge, first: bool, second: bool, chance: random.Random) -> str:
    """The answer of a judge; ``first`` and ``second``: whether these are right."""
    if chance.random() < judge.garbles:
        return chance.choice(_GARBAGE)
    if chance.random() < judge.abstains:
        better = "tie"
    elif first is not second and chance.random() < judge.accuracy:
        better = "first" if first else "second"
    else:
        better = "first" if chance.random() < judge.prefers_first else "second"
    return json.dumps({"better": better})


def verified(verifier: SimulatedVerifier, right: bool, chance: random.Random) -> str:
    """The answer of a verifier of an answer that is ``right`` or not."""
    if chance.random() < verifier.unsure:
        return json.dumps({"verdict": "unknown", "reason": "It cannot be told from what is given."})
    passed = chance.random() >= verifier.accuses if right else chance.random() < verifier.misses
    reason = "Every part holds." if passed else "It does not answer the question as it was asked."
    return json.dumps({"verdict": "passed" if passed else "failed", "reason": reason})


def reviewed(reviewer: SimulatedReviewer, verdict: Any, right: bool, chance: random.Random) -> str:
    """The answer of a reviewer of a ``verdict`` on an answer that is ``right`` or not."""
    false = verdict in ("passed", "failed") and (verdict == "passed") is not right
    stands = chance.random() >= (reviewer.catches if false else reviewer.overturns)
    reason = "The reason given holds." if stands else "The reason given does not hold."
    return json.dumps({"stands": stands, "reason": reason})


def is_right(value: Any, right: Any) -> bool:
    """Whether ``value``, as JSON, is the answer ``right``.

    Numbers are equal by size, all else by JSON. An explanation beside the answer does not count, nor does the object
    that a single value was put into.
    """
    if hasattr(right, "model_dump"):
        right = right.model_dump(mode="json")
    if _same(value, right):
        return True
    if isinstance(value, Mapping):
        kept = {key: part for key, part in value.items() if key not in _EXPLANATION}
        if isinstance(right, Mapping):
            return _same(kept, {key: part for key, part in right.items() if key not in _EXPLANATION})
        if len(kept) != 1:
            return False
        value = next(iter(kept.values()))
        if _same(value, right):
            return True
    return isinstance(value, str) and not isinstance(right, str) and _same(_loaded(value), right)


def question_of(messages: Sequence[Message]) -> str:
    """The text of the last message of a user; empty without one."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text(message)
    return ""


def is_probability(value: Any) -> bool:
    """Whether ``value`` is a number from 0 to 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


def _loaded(text: str) -> Any:
    """``text`` as JSON, or itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(part, other[key]) for key, part in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
