"""What a simulated model can be told: the forms that its settings take, their checks, and how they are written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from ..prices import Price
from .replies import Fault
from .scripted import ScriptError
from .simulated_roles import SimulatedJudge, SimulatedReviewer, SimulatedReviser, SimulatedVerifier, is_probability

__all__ = ["Accuracy", "Splitter", "check_settings", "described", "looked_up"]

Accuracy: TypeAlias = float | Mapping[str, float] | Mapping[str, Mapping[str, float]] | Mapping[str, Any]
"""A probability; or by class of task, by effort, or by both."""
Splitter: TypeAlias = int | Callable[[str], Iterable[str | Mapping[str, Any]]]

_ROLES = {
    "judge": SimulatedJudge,
    "verifier": SimulatedVerifier,
    "reviewer": SimulatedReviewer,
    "reviser": SimulatedReviser,
}


def looked_up(table: Mapping[str, Any], task: str, effort: str | None, what: str) -> Any:
    """What ``table`` says for a class of task and an effort, in either order; ``"*"`` is for all others.

    Raises :class:`ScriptError` where it says nothing.
    """
    found: Any = table
    while isinstance(found, Mapping):
        if task in found:
            found = found[task]
        elif effort in found:
            found = found[effort]
        elif "*" in found:
            found = found["*"]
        else:
            at = "without a stated effort" if effort is None else f"at the effort {effort!r}"
            raise ScriptError(f'there is no {what} for {task[:80]!r} {at}; give one, or one for "*"')
    return found


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` for a setting that cannot be."""
    rates = list(_leaves(settings["accuracy"]))
    if not all(is_probability(rate) for rate in rates):
        raise ValueError(f"an accuracy lies between 0 and 1: {rates[:10]}")
    for name in ("correlation", "nonsense"):
        if not is_probability(settings[name]):
            raise ValueError(f"{name} lies between 0 and 1, and is not {settings[name]!r}")
    if settings["nonsense"] and max(rates, default=0.0) + settings["nonsense"] > 1 + 1e-12:
        raise ValueError("nonsense is a share of the wrong answers: it and an accuracy add up to at most 1")
    if not _whole(settings["variety"], 1):
        raise ValueError(f"variety is a whole number of ways to be wrong, from 1 up, not {settings['variety']!r}")
    flaws = settings["flaws"]
    if (
        not isinstance(flaws, tuple)
        or len(flaws) != 2
        or not all(_whole(each) for each in flaws)
        or flaws[0] > flaws[1]
    ):
        raise ValueError(f"flaws is a pair, the fewest and the most flaws, not {flaws!r}")
    if not all(_whole(count) for count in _leaves(settings["reasoning_tokens"])):
        raise ValueError("reasoning_tokens are whole numbers from zero up")
    latency = settings["latency"]
    if len(latency) != 2 or not all(_number(each) for each in latency) or latency[0] > latency[1]:
        raise ValueError(f"latency is in seconds, or a pair of the least and the most, not {latency!r}")
    speed = settings["tokens_per_second"]
    if speed is not None and not (_number(speed) and speed > 0):
        raise ValueError(f"tokens_per_second is a number above zero or None, not {speed!r}")
    for fault, share in settings["faults"].items():
        if not isinstance(fault, Fault) or not is_probability(share):
            raise ValueError("faults maps each Fault to its probability")
    if sum(settings["faults"].values()) > 1 + 1e-12:
        raise ValueError("the probabilities of all faults add up to at most 1")
    for name, kind in _ROLES.items():
        if not isinstance(settings[name], kind):
            raise ValueError(f"{name} is a {kind.__name__} or None, not {settings[name]!r}")
    splitter = settings["splitter"]
    if not callable(splitter) and not _whole(splitter):
        raise ValueError(f"splitter is a function of the task or a number of parts, not {splitter!r}")
    for name in ("task_class", "combiner"):
        if settings[name] is not None and not callable(settings[name]):
            raise ValueError(f"{name} is a function or None, not {settings[name]!r}")


def described(value: Any) -> Any:
    """A setting as JSON: functions by their name, prices in digits."""
    if isinstance(value, Fault):
        return value.kind if value.status is None else f"{value.kind} {value.status}"
    if isinstance(value, Price):
        return {name: part for name, part in described(asdict(value)).items() if part not in (None, [])}
    if is_dataclass(value) and not isinstance(value, type):
        return described(asdict(value))
    if isinstance(value, Mapping):
        if any(isinstance(key, Fault) for key in value):  # two faults may be called alike
            return [[described(key), part] for key, part in value.items()]
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(part) for part in value]
    if isinstance(value, Decimal):
        return str(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    else:
        yield value


def _whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return finite and value >= 0
