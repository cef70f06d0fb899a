"""The tools of a brain, or any others, as models see them: each schema made when it is looked at, found by an index.

With ten thousand tools registered nearly all of them are never looked at. Knows nothing of runs, plans or messages.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, overload

from .events import ToolSchema
from .retrieval import Index

__all__ = ["Catalogue", "Described"]


class Described(Protocol):
    """What can be described to a model: a tool, a specialist, or a :class:`~brain.events.ToolSchema` itself."""

    @property
    def name(self) -> str:
        """As the model calls it."""

    @property
    def description(self) -> str:
        """What it does."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments; it may be costly to make."""

    @property
    def returns(self) -> Mapping[str, Any] | None:
        """JSON schema of the answer, ``None`` if unknown; it may be costly to make."""


class Catalogue(Sequence[ToolSchema]):
    """The schemas of ``tools``, in their order. Immutable; shared by any number of runs and threads."""

    def __init__(self, tools: Sequence[Described]) -> None:
        self._tools = tuple(tools)
        self._made: dict[int, ToolSchema] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tools)

    @overload
    def __getitem__(self, place: int) -> ToolSchema: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ToolSchema, ...]: ...
    def __getitem__(self, place: int | slice) -> ToolSchema | tuple[ToolSchema, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        place = range(len(self))[place]
        found = self._made.get(place)
        if found is None:
            tool = self._tools[place]
            fresh = (
                tool
                if isinstance(tool, ToolSchema)
                else ToolSchema(tool.name, tool.description, tool.parameters, tool.returns)
            )
            with self._lock:  # one object for each tool, whoever asks first: what is made of it is kept with it
                found = self._made.setdefault(place, fresh)
        return found

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} tools, {len(self._made)} of them described>"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tools' names; no schema is made for them."""
        return tuple(tool.name for tool in self._tools)

    @property
    def described(self) -> int:
        """How many schemas were made until now."""
        return len(self._made)

    def best(self, text: str, limit: int) -> list[int]:
        """Positions of the tools that ``text`` speaks of (see :meth:`brain.retrieval.Index.best`). Makes no schema."""
        return self._index.best(text, limit)

    @cached_property
    def _index(self) -> Index:
        return Index([(tool.name, tool.description or "") for tool in self._tools])
