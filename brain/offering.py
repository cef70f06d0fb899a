"""Which of many tools a run offers its model, so that a request does not grow with the registry.

Up to ``tool_limit`` tools are simply all offered. Of more, a run offers the pinned ones, those its history has called
of late, and those whose names and descriptions have to do with what is asked; chosen once, at its beginning, and only
ever appended to. This module knows nothing of models or of how a tool is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .events import Message, ToolSchema

if TYPE_CHECKING:
    from .catalogue import Catalogue

__all__ = ["Offer", "Offering"]

LOOKED_BACK = 200
"""Messages of a history that are looked at, the latest ones."""
REQUESTS_READ = 3
"""User messages, the latest ones, by whose words tools are chosen: what is asked may be no more than "and now him"."""


class Offer:
    """The tools of one run."""

    __slots__ = ("_catalogue", "_places", "tools")

    def __init__(self, catalogue: Catalogue, tools: Sequence[ToolSchema], places: dict[str, int] | None = None) -> None:
        self.tools = tools
        """What a request carries; it begins with what the run's last request carried."""
        self._catalogue = catalogue
        self._places = places

    def add(self, name: str) -> None:
        """Offer a tool from now on that the model has called without having been offered it."""
        if self._places is not None and all(tool.name != name for tool in self.tools):
            self.tools = (*self.tools, self._catalogue[self._places[name]])

    def offers(self, name: str) -> bool:
        """Whether a tool of this name is offered."""
        return any(tool.name == name for tool in self.tools)

    def show(self, tool: ToolSchema) -> bool:
        """Offer one tool more, of the loop's own, unless one of its name is offered; whether it was not yet."""
        if self.offers(tool.name):
            return False
        self.tools = (*self.tools, tool)
        return True


class Offering:
    """Chooses for each run. ``pinned``: names of tools that are always offered.

    Raises :class:`ConfigurationError` for names that are not registered, and for more of them than the limit.
    """

    def __init__(self, catalogue: Catalogue, limit: int | None, pinned: Sequence[str]) -> None:
        self._catalogue = catalogue
        self._limit = limit
        known = set(catalogue.names)
        for name in pinned:
            if name not in known:
                raise ConfigurationError(f"{name!r} is pinned and no tool has that name; pass it in tools= too")
        if limit is not None and len(set(pinned)) > limit:
            raise ConfigurationError(f"{len(set(pinned))} tools are pinned, and tool_limit is {limit}; raise it")
        self._all: Sequence[ToolSchema] | None = None
        self._places: dict[str, int] = {}
        if limit is None:
            self._all = catalogue
        elif len(catalogue) > limit:
            self._places = {name: place for place, name in enumerate(catalogue.names)}
            catalogue.best("anything", 1)  # what finds tools is made here, and not while an event loop waits for it
        self._pinned = [self._places[name] for name in dict.fromkeys(pinned)] if self._places else []

    def for_run(self, prompt: str | None, history: Sequence[Message]) -> Offer:
        """The tools for a run that begins with these."""
        if self._all is None and not self._places:
            self._all = tuple(self._catalogue)  # once: a run asks for each of them
        if self._all is not None:
            return Offer(self._catalogue, self._all)
        assert self._limit is not None
        chosen = dict.fromkeys(self._pinned)
        room = self._limit - len(chosen)
        for place in islice(self._called(history), room // 2):
            chosen[place] = None
        for place in self._catalogue.best(_asked(prompt, history), self._limit):
            if len(chosen) >= self._limit:
                break
            chosen[place] = None
        return Offer(self._catalogue, tuple([self._catalogue[place] for place in chosen]), self._places)

    def again(self, names: Sequence[str]) -> Offer:
        """The tools of these names, which an earlier run was offered."""
        places = {name: place for place, name in enumerate(self._catalogue.names)}
        tools = tuple([self._catalogue[places[name]] for name in names if name in places])
        return Offer(self._catalogue, tools, places)

    def _called(self, history: Sequence[Message]) -> list[int]:
        places: dict[int, None] = {}
        for message in history[: -LOOKED_BACK - 1 : -1]:
            entries = message.get("tool_calls")
            for entry in entries if isinstance(entries, list) else ():
                function = entry.get("function") if isinstance(entry, dict) else None
                place = self._places.get(str(function.get("name"))) if isinstance(function, dict) else None
                if place is not None:
                    places[place] = None
        return list(places)


def _asked(prompt: str | None, history: Sequence[Message]) -> str:
    texts = [] if prompt is None else [prompt]
    for message in history[: -LOOKED_BACK - 1 : -1]:
        if len(texts) >= REQUESTS_READ:
            break
        if message["role"] == "user" and isinstance(content := message.get("content"), str):
            texts.append(content)
    return "\n".join(texts)
