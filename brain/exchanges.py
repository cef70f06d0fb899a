"""A history read as units: messages that are shown together or not at all, so that no call loses its result.

A unit is one message, or an assistant's message with calls and the tool messages that answer them. This module knows
nothing of windows and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .encoding import EncodedMessage
from .errors import ContextError
from .handles import handle_of
from .previews import preview_of, text_of

__all__ = ["Exchanges", "Size", "Unit"]

OLD_CHARACTERS = 40
"""Characters of a value that the preview of an old result shows: about a hundred in all."""
READER = "read_value"
"""The tool by which a model reads a part of a result. What it gives is shown whole when it is new."""
MOST_READ = 4
"""So many times ``preview_above`` characters at most."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of messages as they are sent: ``tokens`` by the context's rule, and ``bytes`` of their JSON."""

    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.tokens + other.tokens, self.bytes + other.bytes)


@dataclass
class Unit:
    """Messages that belong together. ``first``: the index of the first in the history."""

    first: int
    role: str
    size_of: Callable[[list[EncodedMessage]], Size]
    pinned: bool = False
    """Whether it is always shown, and whole."""
    new: list[EncodedMessage] = field(default_factory=list)
    """As shown from the first turn on: what is large is a preview."""
    whole: list[EncodedMessage] = field(default_factory=list)
    """As stored, but for what was repaired."""
    handles: list[str] = field(default_factory=list)
    open: dict[str, Any] = field(default_factory=dict)
    """Calls that have no result yet."""
    answered: set[str] = field(default_factory=set)

    @cached_property
    def old(self) -> list[EncodedMessage]:
        """As shown when it is old: results are short previews, where these are shorter."""
        handles = iter(self.handles)
        return [_old(given, next(handles)) if given["role"] == "tool" else given for given in self.whole]

    def shown(self, *, folded: bool) -> list[EncodedMessage]:
        """Its messages."""
        return self.old if folded and not self.pinned else self.whole if self.pinned else self.new

    def forget(self) -> None:
        """Measure it anew: it has grown."""
        for name in ("old", "new_size", "old_size"):
            self.__dict__.pop(name, None)

    @cached_property
    def new_size(self) -> Size:
        """The size of what is shown at first."""
        return self.size_of(self.shown(folded=False))

    @cached_property
    def old_size(self) -> Size:
        """The size of what is shown when it is old, or of what is shown at first where that is no more."""
        return self.size_of(self.shown(folded=True))


class Exchanges:
    """The units of a history that is read message by message.

    Args:
        size_of: What messages cost.
        preview_above: Characters of a result above which a preview is shown from its first turn on.
        pin: Which messages' units are always shown, whole.
        repair: Leave out results without a call, and calls without a result, instead of raising. What was left out is
            said in ``repairs``, a sentence for each.
    """

    def __init__(
        self,
        size_of: Callable[[list[EncodedMessage]], Size],
        preview_above: int,
        pin: Callable[[EncodedMessage], bool] | None,
        repair: bool,
    ) -> None:
        self._size_of = size_of
        self._preview_above = preview_above
        self._pin = pin
        self._repair = repair
        self._results = 0
        self.units: list[Unit] = []
        self.asked = 0
        """Messages of users."""
        self.lead: list[EncodedMessage] = []
        """System and developer messages that everything begins with."""
        self.repairs: list[str] = []

    def add(self, index: int, message: EncodedMessage) -> None:
        """Read the next message. Raises :class:`ContextError`, naming ``index``."""
        role = message.get("role")
        if role == "tool":
            self._add_result(index, message)
            return
        self.end_exchange(index)
        if role in ("system", "developer") and not self.units:
            self.lead.append(message)
            return
        unit = Unit(index, str(role), self._size_of, self._pinned(message))
        if role == "assistant" and message.get("tool_calls"):
            unit.open = self._calls(index, message)
            if len(unit.open) < len(message["tool_calls"]):
                message = _with_calls(message, list(unit.open.values()))
        unit.whole.append(message)
        unit.new.append(message)
        self.units.append(unit)
        self.asked += role == "user"

    def end_exchange(self, index: int) -> None:
        """That every call of the last unit has its result, before the message ``index`` comes."""
        unit = self.units[-1] if self.units else None
        if unit is None or not unit.open:
            return
        ids = ", ".join(_shown(id) for id in list(unit.open)[:3])
        if not self._repair:
            raise ContextError(
                f"message {unit.first} of the history calls a tool ({ids}), and no tool message answers before message"
                f" {index}; answer every call, or make the context with repair=True, which leaves such calls out",
                index=unit.first,
            )
        self.repairs.append(f"message {unit.first}: a call without a result was left out ({ids})")
        message = unit.whole[0]
        left = [entry for entry in message["tool_calls"] if entry["id"] in unit.answered]
        if left or message.get("content"):
            unit.whole[0] = unit.new[0] = _with_calls(message, left)
        else:
            self.units.pop()
        unit.open = {}

    def _add_result(self, index: int, message: EncodedMessage) -> None:
        self._results += 1  # handles count what is stored, whatever is shown
        id = message.get("tool_call_id")
        unit = self.units[-1] if self.units else None
        if unit is None or not isinstance(id, str) or id not in unit.open:
            twice = unit is not None and isinstance(id, str) and id in unit.answered
            what = "a second result of one call" if twice else "a tool's result without a call before it"
            if not self._repair:
                raise ContextError(
                    f"message {index} of the history is {what} ({_shown(id)}); take it out, or make the context with"
                    " repair=True, which leaves it out",
                    index=index,
                )
            self.repairs.append(f"message {index}: {what} was left out ({_shown(id)})")
            return
        call = unit.open.pop(id)
        unit.answered.add(id)
        unit.forget()
        unit.pinned = unit.pinned or self._pinned(message)
        content = text_of(message)
        handle = handle_of(self._results, content)
        unit.handles.append(handle)
        unit.whole.append(message)
        # What a model reads in parts it must see, or it would read for ever.
        reads = call["function"].get("name") == READER and len(content) <= MOST_READ * self._preview_above
        if len(content) > self._preview_above and not reads:
            message = _shorter(message, content, preview_of(content, handle, self._preview_above // 4))
        unit.new.append(message)

    def _calls(self, index: int, message: EncodedMessage) -> dict[str, Any]:
        calls: dict[str, Any] = {}
        entries = message["tool_calls"]
        for entry in entries if isinstance(entries, list) else [None]:
            problem = None
            id = entry.get("id") if isinstance(entry, dict) and isinstance(entry.get("function"), dict) else None
            if not isinstance(id, str):
                problem = "a tool call that cannot be read"
            elif id in calls:
                problem = f"two tool calls of one id ({_shown(id)})"
            if problem is None:
                assert isinstance(id, str)
                calls[id] = entry
            elif self._repair:
                self.repairs.append(f"message {index}: {problem} was left out")
            else:
                raise ContextError(
                    f"message {index} of the history has {problem}; take it out, or make the context with repair=True,"
                    " which leaves it out",
                    index=index,
                )
        return calls

    def _pinned(self, message: EncodedMessage) -> bool:
        return self._pin is not None and bool(self._pin(message))


def _old(message: EncodedMessage, handle: str) -> EncodedMessage:
    content = text_of(message)
    return _shorter(message, content, preview_of(content, handle, OLD_CHARACTERS))


def _shorter(message: EncodedMessage, content: str, preview: str) -> EncodedMessage:
    return EncodedMessage({**message, "content": preview}) if len(preview) < len(content) else message


def _with_calls(message: EncodedMessage, calls: list[Any]) -> EncodedMessage:
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return EncodedMessage({**rest, "tool_calls": calls} if calls else {**rest, "content": rest.get("content") or ""})


def _shown(id: object) -> str:
    text = repr(id)
    return text if len(text) <= 60 else text[:59] + "…"
