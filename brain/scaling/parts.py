"""What a task is split into: the form in which a splitter says it, what is wrong with what it says, and the tree that
comes of it. This module asks nobody.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from specialists import Cost

from ..asking import typed
from ..questions import TypedAnswer
from .showing import short, written

__all__ = ["SPLIT", "DecomposeReport", "Part", "PartType", "Split", "WantedPart", "answer_of", "in_order", "same_task"]

PartType: TypeAlias = Literal["string", "number", "integer", "boolean", "list of strings", "object"]
"""What a part's answer may be, in the words that a splitter uses; ``"object"`` is any JSON object."""

MOST_CHARACTERS = 20_000
"""Of one part's task: a part is smaller than what it is a part of."""

_PYTHON: dict[str, Any] = {
    "string": str,
    "number": float,
    "integer": int,
    "boolean": bool,
    "list of strings": list[str],
    "object": dict[str, Any],
}


class WantedPart(BaseModel):
    """One part as a splitter wants it. ``needs``: the ids of the parts whose answers its task reads."""

    model_config = ConfigDict(extra="ignore")

    id: str = ""
    task: str
    type: PartType = "string"
    needs: list[str] = Field(default_factory=list)


class Split(BaseModel):
    """What a splitter answers; no parts: the task is best answered whole. A function may return just the list, and for
    each part just the task."""

    model_config = ConfigDict(extra="ignore")

    parts: list[WantedPart]

    @model_validator(mode="before")
    @classmethod
    def _of_list(cls, given: Any) -> Any:
        parts = given.get("parts") if isinstance(given, Mapping) else given
        if not isinstance(parts, list | tuple):
            return given
        return {"parts": [{"task": each} if isinstance(each, str) else each for each in parts]}


# Written out, so that every endpoint's strict mode takes it: each object closed, each property required.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "parts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "a short name, each once"},
                    "task": {"type": "string", "description": "the part in full, to be understood by itself"},
                    "type": {"type": "string", "enum": list(get_args(PartType)), "description": "of its answer"},
                    "needs": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "ids of the parts whose answers it needs",
                    },
                },
                "required": ["id", "task", "type", "needs"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["parts"],
    "additionalProperties": False,
}

SPLIT = TypedAnswer(TypeAdapter(Split), schema=_SCHEMA)
"""The form of a splitter's answer."""


@cache
def answer_of(kind: PartType) -> TypedAnswer:
    """The form of the answer to a part of a type."""
    return typed(_PYTHON[kind])


def same_task(one: str, other: str) -> bool:
    """Whether two texts ask the same: letter case, forms of letters and white space aside."""
    return _plain(one) == _plain(other)


def in_order(split: Split, line: Sequence[str], fan_out: int) -> tuple[list[WantedPart], str | None]:
    """The parts, those that are needed first, each with an id; and what is wrong with them, if anything is.

    ``line``: the task that was split, and those that it is itself a part of.
    """
    parts = split.parts
    if len(parts) > fan_out:
        return [], f"it was split into {len(parts)} parts, and {fan_out} are the most"
    named = [part.model_copy(update={"id": part.id.strip() or str(n)}) for n, part in enumerate(parts, 1)]
    by_id: dict[str, WantedPart] = {}
    for part in named:
        shown = short(part.id, 40)
        if part.id in by_id:
            return [], f"two of its parts are called {shown}"
        if not part.task.strip():
            return [], f"the part {shown} has no task"
        if len(part.task) > MOST_CHARACTERS:
            return [], f"the task of the part {shown} is longer than {MOST_CHARACTERS} characters"
        if any(same_task(part.task, each) for each in line):
            return [], f"the part {shown} is the task itself" + (", or one that it is a part of" if line[1:] else "")
        by_id[part.id] = part
    for part in named:
        for need in part.needs:
            if need not in by_id:
                return [], f"the part {short(part.id, 40)} needs {short(need, 40)}, which is none of the parts"
    graph = TopologicalSorter({part.id: part.needs for part in named})
    try:
        return [by_id[each] for each in graph.static_order()], None
    except CycleError as error:
        circle = ", ".join(short(each, 40) for each in error.args[1][:-1])
        return [], f"parts need each other in a circle: {circle}"


@dataclass(frozen=True, slots=True)
class Part:
    """A task, or a part of one, and what came of it.

    ``type``: of the answer; ``None`` for the task itself, whose type the question says. ``value``: ``None`` where
    there is a ``reason``. ``how``: answered ``whole``; ``combined`` from its parts; or ``open``, without an answer.
    ``problem``: why a split was not followed, or a router not heard. ``source``: who gave the value. ``calls``,
    ``cost``: of itself and its parts.
    """

    id: str
    task: str
    type: PartType | None = None
    needs: tuple[str, ...] = ()
    value: Any = None
    reason: str | None = None
    how: Literal["whole", "combined", "open"] = "open"
    problem: str | None = None
    source: str = ""
    parts: tuple[Part, ...] = ()
    calls: int = 0
    cost: Cost = field(default_factory=lambda: Cost.exact(0))

    @property
    def answered(self) -> bool:
        """Whether there is a value."""
        return self.reason is None

    def leaves(self) -> Iterator[Part]:
        """The parts that were not split, left to right."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def all(self) -> Iterator[Part]:
        """This one and all below it, from the top."""
        yield self
        for part in self.parts:
            yield from part.all()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "id": self.id,
            "task": self.task,
            "type": self.type,
            "needs": list(self.needs),
            "value": written(self.value),
            "reason": self.reason,
            "how": self.how,
            "problem": self.problem,
            "source": self.source,
            "calls": self.calls,
            "cost": self.cost.to_json(),
            "parts": [part.to_json() for part in self.parts],
        }

    def lines(self) -> Iterator[str]:
        """As a tree, line by line."""
        yield self._line()
        for number, part in enumerate(self.parts, 1):
            last = number == len(self.parts)
            first, *rest = part.lines()
            yield ("└─ " if last else "├─ ") + first
            for line in rest:
                yield ("   " if last else "│  ") + line

    def _line(self) -> str:
        said = f"no answer: {short(self.reason, 100)}" if self.reason is not None else short(self.value, 60)
        wants = "" if self.type is None else f" ({self.type})"
        note = f"; {short(self.problem, 100)}" if self.problem is not None else ""
        return f"{short(self.id, 30)}: {short(self.task, 60)}{wants} -> {said} [{self.calls} calls, {self.cost}{note}]"


@dataclass(frozen=True, slots=True)
class DecomposeReport:
    """What came of a split: the tree, and how it stands to what was declared.

    ``asks``: what was asked, splits and combinations too. ``most_asks``: that it could have asked at most, as declared
    and computed. ``most_calls``: requests that it could have sent at most; ``None``: nobody said, and what is asked
    does not say what it sends. ``stopped``: why parts were left open. ``calls`` and ``cost``: all that it took.
    """

    root: Part
    asks: int
    most_asks: int
    most_calls: int | None
    calls: int
    cost: Cost
    stopped: str | None = None

    @property
    def answered(self) -> int:
        """Parts that were not split and have a value."""
        return sum(part.answered for part in self.root.leaves())

    @property
    def open(self) -> int:
        """Parts that were not split and have none."""
        return sum(not part.answered for part in self.root.leaves())

    @property
    def problems(self) -> tuple[str, ...]:
        """Why splits were not followed, from the top."""
        return tuple(part.problem for part in self.root.all() if part.problem is not None)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "strategy": "decompose",
            "root": self.root.to_json(),
            "answered": self.answered,
            "open": self.open,
            "asks": self.asks,
            "most_asks": self.most_asks,
            "most_calls": self.most_calls,
            "calls": self.calls,
            "cost": self.cost.to_json(),
            "stopped": self.stopped,
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        most = "" if self.most_calls is None else f" of at most {self.most_calls}"
        head = f"{self.answered} parts answered, {self.open} open; {self.calls} calls{most}, {self.cost}"
        stopped = [] if self.stopped is None else [f"stopped: {short(self.stopped, 160)}"]
        return "\n".join([head, *stopped, *self.root.lines()])


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
