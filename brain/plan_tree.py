"""A plan as a tree that is drawn while it runs: fed with the events of a run, printed as text or by rich.

Each step stands under the last of those that it needs. This module knows the events and nothing else of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from specialists import strict_json
from specialists.ladder import jsonable

from .events import Done, Message, Plan, PlanMade, PlanStep, RunEvent, StepReused, ToolAnswered, ToolCalled
from .keys import redact, redact_value
from .previews import text_of

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["PlanTree"]

State = Literal["waiting", "running", "done", "failed", "not begun"]
_MARKS: dict[State, str] = {"waiting": "·", "running": "…", "done": "✓", "failed": "✗", "not begun": "–"}
_STYLES: dict[State, str] = {
    "waiting": "dim",
    "running": "yellow",
    "done": "green",
    "failed": "red",
    "not begun": "dim strike",
}


@dataclass
class _Drawn:
    """One plan, and how far each of its steps is."""

    plan: Plan
    ids: tuple[str, ...]
    states: dict[str, State] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    """The places of the steps, each after those that it needs."""

    def __post_init__(self) -> None:
        self.order = tuple(TopologicalSorter({n: step.needs for n, step in enumerate(self.plan.steps)}).static_order())

    def now(self) -> dict[int, State]:
        """How far each step is; one whose needs have failed will not begin."""
        states: dict[int, State] = {}
        for place in self.order:
            state = self.states.get(self.ids[place], "waiting")
            needs = (states[each] for each in self.plan.steps[place].needs)
            if state == "waiting" and any(each in ("failed", "not begun") for each in needs):
                state = "not begun"
            states[place] = state
        return states

    def parents(self) -> dict[int, int | None]:
        """The step under which each is drawn: of those that it needs, the one that comes last."""
        depths: dict[int, int] = {}
        parents: dict[int, int | None] = {}
        for place in self.order:
            needs = self.plan.steps[place].needs
            parents[place] = max(needs, key=lambda each: (depths[each], each), default=None)
            depths[place] = 1 + max((depths[each] for each in needs), default=0)
        return parents

    def read(self, messages: Sequence[Message]) -> None:
        """What a history says of steps that no event told of: of a denied one, or one that was made before a crash."""
        for message in messages:
            id = message.get("tool_call_id")
            if message["role"] != "tool" or id not in self.ids or self.states.get(id) in ("done", "failed"):
                continue
            try:
                answer = strict_json.loads(text_of(message))
            except (ValueError, RecursionError):
                continue
            if not isinstance(answer, dict) or not answer:
                continue
            if "value" in answer:
                self.states[id], self.said[id] = "done", _short(answer["value"])
            elif not str(reason := next(iter(answer.values()))).startswith("not begun: "):
                self.states[id], self.said[id] = "failed", _short(reason)


class PlanTree:
    """The plans of one run. Feed it with :meth:`see`; ``str`` draws it, and rich does, also live.

    ::

        tree = PlanTree()
        with rich.live.Live(tree) as live:
            async for event in brain.run_stream("..."):
                tree.see(event)
                live.refresh()

    Marks: ``·`` waiting, ``…`` running, ``✓`` done, ``✗`` failed, ``–`` not begun, for what it needs has failed. A plan
    that was made after another of the run stands below it.
    """

    def __init__(self) -> None:
        self._plans: list[_Drawn] = []

    def see(self, event: RunEvent) -> bool:
        """Take in an event; whether it changed the tree."""
        if isinstance(event, PlanMade):
            self._plans.append(_Drawn(event.plan, event.ids))
            return True
        if isinstance(event, Done):
            for each in self._plans:
                each.read(event.result.messages)
            return bool(self._plans)
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
        failed = False
        for number, drawn in enumerate(self._plans, 1):
            states, parents = drawn.now(), drawn.parents()
            ended = sum(state in ("done", "failed") for state in states.values())
            again = "plan" if number == 1 else f"plan {number}"
            yield f"{again}{', after a failure' if failed else ''}: {ended} of {len(drawn.plan.steps)} steps", None
            yield from self._below(drawn, None, states, parents, "")
            failed = "failed" in states.values()

    def _below(
        self,
        drawn: _Drawn,
        parent: int | None,
        states: dict[int, State],
        parents: dict[int, int | None],
        indent: str,
    ) -> Iterator[tuple[str, State | None]]:
        children = sorted(place for place, above in parents.items() if above == parent)
        for child in children:
            last = child == children[-1]
            step, id, state = drawn.plan.steps[child], drawn.ids[child], states[child]
            also = [drawn.plan.steps[each].id or str(each + 1) for each in step.needs if each != parent]
            said = _short(f"{step.id or child + 1}: {_safe(step)}", 90)
            line = f"{indent}{'└─' if last else '├─'} {_MARKS[state]} {said}"
            line += f" (needs {_short(', '.join(also))} too)" if also else ""
            line += f" -> {drawn.said[id]}" if id in drawn.said else ""
            yield line, state
            yield from self._below(drawn, child, states, parents, indent + ("   " if last else "│  "))


def _safe(step: PlanStep) -> PlanStep:
    """Without keys, which could not be told any more once a long argument is cut."""
    task = None if step.task is None else redact(step.task)
    return replace(step, arguments=redact_value(dict(step.arguments)), task=task)


def _short(value: Any, limit: int = 60) -> str:
    """In one printable line: what a model or a tool wrote draws nothing in a terminal."""
    text = redact(value if isinstance(value, str) else repr(value))
    text = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
