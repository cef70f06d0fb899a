"""Another policy, and where it would have gone over the attempts that were logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from specialists import Attempt, Outcome, Policy, strict_json
from specialists.ladder import Abstain, Accept, AcceptLevel, decide

from ..errors import ConfigurationError
from .reading import attempts_of, check_policy

__all__ = ["BIG", "PolicyChange", "Untried", "Walk", "walk"]

BIG = ("big_model", "big_model_again")
"""Kinds of rungs that ask a model elsewhere."""

_SPENT = ("timeout", "refused")


@dataclass(frozen=True)
class PolicyChange:
    """What another policy is, beside the one that each call was logged under.

    ``everywhere`` or the tool's entry of ``tools`` stands in place of the logged policy, ``accept`` in place of its
    level, and ``floors`` (by tool) in place of the confidence floors of its local rungs, in this order.
    """

    accept: AcceptLevel | None = None
    everywhere: Policy | None = None
    tools: Mapping[str, Policy] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None, floors: Mapping[str, float] | None = None) -> PolicyChange:
        """From a level (``verified``, ``certified``, ``confident``) or the path of a JSON file.

        The file holds a policy as :meth:`Policy.to_json` writes it, or ``{"tools": {NAME: policy}}``. Raises
        ``ConfigurationError``.
        """
        floors = dict(floors or {})
        if text is None:
            return cls(floors=floors)
        for level in get_args(AcceptLevel):
            if text == level:
                return cls(accept=level, floors=floors)
        try:
            data = strict_json.loads(Path(text).read_text("utf-8"))
        except FileNotFoundError:
            levels = ", ".join(get_args(AcceptLevel))
            raise ConfigurationError(f"a policy is one of {levels}, or a file; {text!r} is neither") from None
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{text}: not JSON: {error}") from None
        if isinstance(data, dict) and isinstance(data.get("tools"), dict):
            tools = {name: _policy(each, f"{text}, {name}") for name, each in data["tools"].items()}
            return cls(tools=tools, floors=floors)
        if isinstance(data, dict) and "rungs" in data:
            return cls(everywhere=_policy(data, text), floors=floors)
        raise ConfigurationError(
            f'{text}: neither a policy ({{"accept": ..., "rungs": [...]}}, as each line of a log has one) nor'
            f' {{"tools": {{NAME: policy}}}}'
        )

    def of(self, tool: str | None, logged: Policy) -> Policy:
        """The policy for a call of ``tool`` that was logged under ``logged``."""
        policy = self.tools.get(tool or "", self.everywhere or logged)
        if self.accept is not None:
            policy = replace(policy, accept=self.accept)
        floor = self.floors.get(tool or "")
        if floor is not None:
            rungs = (
                rung if rung.kind in BIG else replace(rung, min_confidence=floor, checked=True) for rung in policy.rungs
            )
            policy = replace(policy, rungs=tuple(rungs))
        return policy

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "accept": self.accept,
            "everywhere": None if self.everywhere is None else self.everywhere.to_json(),
            "tools": {name: policy.to_json() for name, policy in self.tools.items()},
            "min_confidence": dict(self.floors),
        }


def _policy(data: Any, where: str) -> Policy:
    try:
        policy = Policy.from_json(data)
        check_policy(policy)
    except KeyError as error:
        raise ConfigurationError(f"{where}: the policy has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{where}: not a policy: {error}") from None
    return policy


@dataclass(frozen=True, slots=True)
class Walk:
    """How a call would have ended under another policy. ``attempts`` are places among those that were tried: the
    logged attempts in order, then the audit's."""

    attempts: tuple[int, ...]
    accepted_by: str | None
    rung: str | None
    """The rung whose answer was accepted."""


@dataclass(frozen=True, slots=True)
class Untried:
    """The rung that another policy wants and the log cannot answer for, and why not."""

    rung: str
    why: str


_NEVER = "the log has no attempt on it"
_NO_SUCH = "the logged ladder has no rung of this name"
_OTHER_BEFORE = "the logged attempt on it was made after another answer"
_RAN_OUT = "the logged attempt on it ran out of time or budget after other attempts"


def walk(policy: Policy, outcome: Outcome[Any]) -> Walk | Untried:
    """Climb ``policy`` over the attempts that were logged for one call, whatever order they were made in."""
    tried = attempts_of(outcome)
    place: dict[str, int] = {}
    for index, attempt in enumerate(tried):
        place.setdefault(attempt.rung, index)
    kinds = {rung.name: rung.kind for rung in (*policy.rungs, *outcome.policy.rungs)}
    taken: list[int] = []
    while True:
        move = decide(policy, [tried[index] for index in taken])
        if isinstance(move, Accept):
            return Walk(tuple(taken), move.by, tried[taken[-1]].rung)
        if isinstance(move, Abstain):
            return Walk(tuple(taken), None, None)
        index = place.get(move.rung, -1)
        if index < 0:
            known = any(rung.name == move.rung for rung in outcome.policy.rungs)
            return Untried(move.rung, _NEVER if known else _NO_SUCH)
        if not _same_ground(kinds[move.rung], tried, taken, index):
            return Untried(move.rung, _OTHER_BEFORE)
        if tried[index].outcome in _SPENT and taken != list(range(index)):
            return Untried(move.rung, _RAN_OUT)
        taken.append(index)


def _same_ground(kind: str, tried: Sequence[Attempt], taken: Sequence[int], index: int) -> bool:
    """Whether what an attempt of this kind builds on is what it built on in the log."""
    if kind == "big_model_again":
        return list(taken[-1:]) == [index - 1]
    if kind == "vote":
        who = tried[index].source
        mine, logged = ([place for place in places if tried[place].source == who] for places in (taken, range(index)))
        return mine[-1:] == logged[-1:]
    return True
