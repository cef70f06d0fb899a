"""A plan as a tree that is drawn while it runs: fed with the events of a run, printed as text or by rich.

Each step stands under the last of those that it needs. This module knows the events and nothing else of a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from specialists.ladder import jsonable

from .events import Plan, PlanMade, RunEvent, StepReused, ToolAnswered, ToolCalled
from .keys import redact

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["PlanTree"]

State = Literal["waiting", "running", "done", "failed"]
_MARKS: dict[State, str] = {"waiting": "·", "running": "…", "done": "✓", "failed": "✗"}
_STYLES: dict[State, str] = {"waiting": "dim", "running": "yellow", "done": "green", "failed": "red"}


@dataclass
class _Drawn:
    """One plan, and how far each of its steps is."""

    plan: Plan
    ids: tuple[str, ...]
    states: dict[str, State] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


class PlanTree:
    """The plans of one run. Feed it with :meth:`see`; ``str`` draws it, and rich does, also live.

    ::

        tree = PlanTree()
        with rich.live.Live(tree) as live:
            async for event in brain.run_stream("..."):
                tree.see(event)
                live.refresh()

    A plan that was made after a step had failed stands below the one before.
    """

    def __init__(self) -> None:
        self._plans: list[_Drawn] = []

    def see(self, event: RunEvent) -> bool:
        """Take in an event; whether it changed the tree."""
        if isinstance(event, PlanMade):
            self._plans.append(_Drawn(event.plan, event.ids))
            return True
        if not isinstance(event, ToolCalled | ToolAnswered | StepReused):
            return False
        drawn = next((each for each in reversed(self._plans) if event.id in each.ids), None)
        if drawn is None:
            return False
        if isinstance(event, StepReused):
            drawn.states[event.id], drawn.said[event.id] = "done", "as before"
        elif isinstance(event, ToolCalled):
            drawn.states[event.id] = "running"
        elif event.outcome.accepted:
            drawn.states[event.id] = "done"
            drawn.said[event.id] = _short(jsonable(event.outcome.value))
        else:
            drawn.states[event.id] = "failed"
            drawn.said[event.id] = _short(event.outcome.reason)
        return True

    def __str__(self) -> str:
        return "\n".join(line for line, _ in self._lines()) or "no plan yet"

    def __rich__(self) -> Text:
        from rich.text import Text

        text = Text()
        for line, state in self._lines():
            text.append(line + "\n", _STYLES[state] if state is not None else "bold")
        return text if text.plain else Text("no plan yet", "dim")

    def _lines(self) -> Iterator[tuple[str, State | None]]:
        for number, drawn in enumerate(self._plans, 1):
            ended = sum(state in ("done", "failed") for state in drawn.states.values())
            again = "plan" if number == 1 else f"plan {number}, after a failure"
            yield f"{again}: {ended} of {len(drawn.plan.steps)} steps", None
            under: dict[int | None, list[int]] = {}
            for place, step in enumerate(drawn.plan.steps):
                under.setdefault(max(step.needs, default=None), []).append(place)
            yield from self._below(drawn, None, under, "")

    def _below(
        self, drawn: _Drawn, parent: int | None, under: dict[int | None, list[int]], indent: str
    ) -> Iterator[tuple[str, State | None]]:
        children = under.get(parent, [])
        for child in children:
            last = child == children[-1]
            step, id = drawn.plan.steps[child], drawn.ids[child]
            state = drawn.states.get(id, "waiting")
            also = [drawn.plan.steps[each].id or str(each + 1) for each in step.needs if each != parent]
            line = f"{indent}{'└─' if last else '├─'} {_MARKS[state]} {_short(f'{step.id or child + 1}: {step}', 90)}"
            line += f" (needs {', '.join(also)} too)" if also else ""
            line += f" -> {drawn.said[id]}" if id in drawn.said else ""
            yield line, state
            yield from self._below(drawn, child, under, indent + ("   " if last else "│  "))


def _short(value: Any, limit: int = 60) -> str:
    """In one printable line: what a model or a tool wrote draws nothing in a terminal."""
    text = redact(value if isinstance(value, str) else repr(value))
    text = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
