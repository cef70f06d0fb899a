"""Made-up explanations of answers, honest and polished, and a score that goes by looks.

An honest explanation has small flaws: a doubt said aloud, a slip taken back, a sentence cut short. Convincing nonsense
has none. So whoever scores the looks of an explanation prefers the nonsense. This module does not know what is right.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["EXPLAINED_BY", "explain", "explaining", "polish"]

EXPLAINED_BY = ("steps", "explanation", "reasoning")
"""Names of the properties that an explanation is put into."""

MOST_STEPS = 10_000
_OPENINGS = (
    "Read the question: {topic}.",
    "Write down what is given about {topic}.",
    "The question is about {topic}.",
)
_MIDDLES = (
    "Take each part of it by itself.",
    "Put together what follows from the parts.",
    "Compare the result with what was given.",
    "Leave out what the question does not ask for.",
    "Check the order in which the parts belong.",
    "Rule out the answers that do not fit.",
    "Go through the remaining cases one by one.",
)
_ENDING = "Therefore the answer is {value}."
_HEDGES = ("I think", "maybe", "probably", "not sure", "if I remember", "roughly")
_SLIPS = ("wait, no", "hmm", "let me correct that", "sorry")
_FLAWED = re.compile(
    r"\b(?:" + "|".join(re.escape(each) for each in (*_HEDGES, *_SLIPS)) + r")\b|\.\.\.|…|\?\?", re.IGNORECASE
)
_STOPS = re.compile(r"[.!?]+(?=\s|$)")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


def explaining(schema: Mapping[str, Any] | None) -> dict[str, bool]:
    """The properties of ``schema`` that hold an explanation, and of each whether it is a list (else one string)."""
    properties = schema.get("properties") if schema is not None else None
    if not isinstance(properties, Mapping):
        return {}
    found = {}
    for name in EXPLAINED_BY:
        form = properties.get(name)
        if isinstance(form, Mapping) and form.get("type") in ("array", "string"):
            found[name] = form["type"] == "array"
    return found


def explain(question: str, value: Any, flaws: int, chance: random.Random) -> list[str]:
    """Five to eight steps that lead from ``question`` to ``value``, so many of them flawed (at most all but one)."""
    words = question.split()
    topic = " ".join(words[:8]).rstrip(".?!,;:") or "what is asked"
    steps = [chance.choice(_OPENINGS).format(topic=_plain(topic))]
    steps += chance.sample(_MIDDLES, chance.randint(3, 6))
    steps.append(_ENDING.format(value=_plain(value if isinstance(value, str) else json.dumps(value, default=str))))
    for place in chance.sample(range(len(steps) - 1), min(flaws, len(steps) - 1)):
        steps[place] = _with_flaw(steps[place], chance)
    return steps


def polish(value: Any) -> float:
    """How good the explanation in ``value`` looks, between 0 and 1: what a step checker that goes by looks would say.

    The share of its steps that are whole sentences (a capital first, an end, at least three words) without a doubt
    said aloud or a slip taken back. ``value``: a list of steps, text, or an object (also a pydantic one, or JSON text)
    with ``steps``, ``explanation`` or ``reasoning``. What has no explanation scores 0. It knows nothing of right and
    wrong, which is what it is for: :class:`~brain.testing.SimulatedModel`'s ``nonsense`` scores highest.
    """
    steps = [step for step in _steps(value) if step]
    if not steps:
        return 0.0
    return sum(_looks_right(step) for step in steps) / len(steps)


def _looks_right(step: str) -> bool:
    return (
        step[-1] in ".!:"
        and step[0] == step[0].upper()
        and len(step.split(None, 3)) >= 3
        and _FLAWED.search(step) is None
    )


def _with_flaw(step: str, chance: random.Random) -> str:
    kind = chance.randrange(3)
    lower = step[:1].lower() + step[1:]
    if kind == 0:
        return f"{chance.choice(_HEDGES).capitalize()} {lower}"
    if kind == 1:
        return f"{step[:-1]}, {chance.choice(_SLIPS)}, the other way round."
    return step[: max(1, len(step) * 2 // 3)].rstrip(" .") + "..."


def _steps(value: Any) -> Iterable[str]:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):  # then it is text that happens to begin so
            value = json.loads(value)
    if isinstance(value, Mapping):
        value = next((value[name] for name in EXPLAINED_BY if value.get(name)), None)
    if isinstance(value, str):
        value = _SENTENCES.split(value)
    if not isinstance(value, (list, tuple)):
        return ()
    return (step.strip() for step in value[:MOST_STEPS] if isinstance(step, str))


def _plain(text: str, limit: int = 120) -> str:
    """In one line, without what would look like a flaw or like the end of a sentence."""
    line = _FLAWED.sub("-", " ".join(text[: 4 * limit].split())[:limit].rstrip())
    return _STOPS.sub("", line)
