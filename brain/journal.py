"""One run's place in the journal: which steps have happened, and how they are written down and read back.

A step is a turn of the model (``turn 0``) or a call (``turn 0, call 1``). It is intended, executed, committed. A run
that is taken up again goes through its loop from the beginning, and takes the results of committed steps in place of
executing them. Rows are JSON and are never executed. This module knows nothing of stores, money or loops.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from specialists import Attempt, Cost, Outcome

from .encoding import EncodedMessage
from .errors import JournalCorrupt, RunBusy, RunTaken, SchemaChanged
from .events import ModelResponse, TokenUsage, ToolCall, Turn, WireAttempt
from .storage.changes import Begun, Effect, Finish, Intend, RunStatus, StepRow

__all__ = [
    "Journal",
    "call_step",
    "digest_of",
    "history_step",
    "idempotency_key",
    "messages_from_json",
    "outcome_from_json",
    "taken_once",
    "turn_from_json",
    "turn_step",
    "turn_to_json",
    "wire_from_json",
]


class Journal:
    """The journal of one run that this process has. ``resumed``: whether it was begun before."""

    def __init__(self, begun: Begun) -> None:
        self.run = begun.run
        self.resumed = begun.resumed
        self._steps = begun.steps

    @property
    def fence(self) -> int:
        """Goes with everything that is written, so that it is refused when another process has taken the run up."""
        return self.run.fence

    @property
    def salt(self) -> str:
        """What makes this run's idempotency keys its own."""
        return self.run.salt

    def result(self, step: str) -> Mapping[str, Any] | None:
        """The result of a committed step."""
        found = self._steps.get(step)
        return None if found is None else found.result

    def results(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Every committed step with its result: turns in order, and each turn's calls in the order asked."""
        done = [(step, row.result) for step, row in self._steps.items() if row.result is not None]
        return sorted(done, key=lambda each: _place(each[0]))

    def in_flight(self, step: str) -> StepRow | None:
        """A step that was begun and not committed: it may have happened."""
        found = self._steps.get(step)
        return None if found is None or found.result is not None else found

    def intend(
        self,
        step: str,
        name: str,
        effect: Effect,
        *,
        arguments: Mapping[str, Any] | None = None,
        schema: str | None = None,
    ) -> Intend:
        """The change that says that the step is about to be executed."""
        key = idempotency_key(self.salt, step)
        return Intend(self.run.id, self.fence, step, name, effect, key, arguments, schema)

    def finish(self, status: RunStatus, reason: str | None, result: Mapping[str, Any] | None = None) -> Finish:
        """The change that says that this process is done with the run."""
        return Finish(self.run.id, self.fence, status, reason, result)

    def check_request(self, request: Mapping[str, Any]) -> None:
        """See that a run that was begun before is asked the same. What is ``None`` now is taken from before.

        Raises :class:`RunTaken` for another prompt, history or group, and :class:`SchemaChanged` where the instructions
        or the form of the answer are others.
        """
        before = self.run.request
        for name in ("prompt", "history", "group"):
            given = request.get(name)
            if given is not None and given != [] and given != before.get(name):
                raise RunTaken(
                    f"the run id {self.run.id!r} belongs to a run with another {name}; choose another id, or resume it"
                    f" without a {name}"
                )
        for name, called in (("instructions", "instructions are"), ("output", "form of the answer is")):
            if request.get(name) != before.get(name):
                raise SchemaChanged(
                    f"the run {self.run.id!r} cannot be taken up: the {called} not what it was begun with; begin a new"
                    " run, or restore it"
                )

    def check_tools(self, digests: Mapping[str, str | None]) -> None:
        """See that the tools that the run was offered, or has called, are what they were.

        ``digests``: of this brain's tools by name. Raises :class:`SchemaChanged`.
        """
        for name, digest in self.tools().items():
            if digests.get(name) != digest:
                what = "has changed" if digests.get(name) is not None else "is not there any more"
                raise SchemaChanged(
                    f"the run {self.run.id!r} cannot be taken up: the tool {name!r} {what} since it was begun; nothing"
                    " was executed. Begin a new run, or restore the tool"
                )

    def tools(self) -> dict[str, str]:
        """Every tool that the run was offered, or has called, with the digest it had."""
        found: dict[str, str] = {}
        given: list[Any] = [self.run.request.get("tools")]
        for row in self._steps.values():
            if row.schema is not None:
                found[row.name] = row.schema
            if row.result is not None:
                given.append(row.result.get("tools"))
        for each in given:
            if isinstance(each, dict):
                found.update((name, digest) for name, digest in each.items() if isinstance(digest, str))
        return found


def idempotency_key(salt: str, step: str) -> str:
    """The key of a step, the same whenever it is tried, and told to nobody before."""
    return hashlib.sha256(f"{salt}\0{step}".encode()).hexdigest()[:32]


def turn_step(turn: int) -> str:
    """The name of a turn."""
    return f"turn {turn}"


def call_step(turn: int, place: int) -> str:
    """The name of a call: ``place`` in the turn's order."""
    return f"turn {turn}, call {place}"


def history_step(place: int) -> str:
    """The name of a call that the history left open."""
    return f"history, call {place}"


def digest_of(*parts: bytes | str) -> str:
    """A digest of parts that are told apart."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "big") + raw)
    return total.hexdigest()


def turn_to_json(turn: Turn, response: ModelResponse, tools: Mapping[str, str]) -> dict[str, Any]:
    """The result of a turn. ``tools``: digests of the tools that it calls."""
    return {
        "response": {
            "text": response.text,
            "tool_calls": [_call_to_json(call) for call in response.tool_calls],
            "finish_reason": response.finish_reason,
            "model": response.model,
            "usage": response.usage.to_json(),
            "abstention": response.abstention,
            "value_of": response.value_of,
        },
        "turn": {
            "model": turn.model,
            "seconds": turn.seconds,
            "usage": turn.usage.to_json(),
            "cost": turn.cost.to_json(),
            "wire_attempts": [attempt.to_json() for attempt in turn.wire_attempts],
        },
        "tools": dict(tools),
    }


def turn_from_json(data: Mapping[str, Any]) -> tuple[Turn, ModelResponse]:
    """The inverse of :func:`turn_to_json`. Raises :class:`JournalCorrupt`."""
    try:
        given, made = data["response"], data["turn"]
        calls = tuple([_call_from_json(call) for call in given["tool_calls"]])
        response = ModelResponse(
            _text(given["text"]),
            calls,
            _text(given["finish_reason"]),
            _text(given["model"]),
            TokenUsage(**given["usage"]),
            _text(given["abstention"]),
            _text(given["value_of"]),
        )
        turn = Turn(
            model=str(made["model"]),
            seconds=float(made["seconds"]),
            usage=TokenUsage(**made["usage"]),
            cost=Cost.from_json(made["cost"]),
            tool_calls=calls,
            wire_attempts=tuple([wire_from_json(each) for each in made["wire_attempts"]]),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise _corrupt("a turn", error) from None
    return turn, response


def outcome_from_json(data: Mapping[str, Any]) -> Outcome[Any]:
    """A call's outcome with its wire attempts; values stay as JSON. Raises :class:`JournalCorrupt`."""
    try:
        outcome = Outcome.from_json(data)
        attempts = [_attempt(attempt, raw) for attempt, raw in zip(outcome.attempts, data["attempts"], strict=True)]
        audit = None if outcome.audit is None else _attempt(outcome.audit, data["audit"])
        for each in (outcome.tool, outcome.call_id, outcome.answered_by, outcome.accepted_by, outcome.reason):
            _text(each)
        return replace(outcome, attempts=tuple(attempts), audit=audit)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _corrupt("a call", error) from None


def wire_from_json(data: Mapping[str, Any]) -> WireAttempt:
    """The inverse of :meth:`WireAttempt.to_json`."""
    return WireAttempt(**{**data, "usage": TokenUsage(**data["usage"]), "cost": Cost.from_json(data["cost"])})


def messages_from_json(data: Sequence[Any]) -> list[EncodedMessage]:
    """Messages of a history. Raises :class:`JournalCorrupt`."""
    try:
        return [EncodedMessage(message) for message in data]
    except (TypeError, ValueError, KeyError) as error:
        raise _corrupt("a message", error) from None


class taken_once:
    """Within this process, a run is executed once at a time. Raises :class:`RunBusy`."""

    _lock = threading.Lock()
    _taken: set[tuple[int, str]] = set()  # noqa: RUF012

    def __init__(self, store: object, run: str) -> None:
        self._key = (id(store), run)

    def __enter__(self) -> None:
        with self._lock:
            if self._key in self._taken:
                raise RunBusy(f"the run {self._key[1]!r} is being executed by this process; wait until that has ended")
            self._taken.add(self._key)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._taken.discard(self._key)


def _place(step: str) -> tuple[int, ...]:
    numbers = tuple(int(each) for each in re.findall(r"\d{1,9}", step))
    return (-1, *numbers) if step.startswith("history") else numbers


def _attempt(attempt: Attempt, raw: Mapping[str, Any]) -> Attempt:
    wire = raw.get("wire_attempts") or ()
    return replace(attempt, wire_attempts=tuple([wire_from_json(each) for each in wire])) if wire else attempt


def _call_to_json(call: ToolCall) -> dict[str, str]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _call_from_json(data: Mapping[str, Any]) -> ToolCall:
    values = data["id"], data["name"], data["arguments"]
    if not all(isinstance(each, str) for each in values):
        raise TypeError("a tool call is of texts")
    return ToolCall(*values)


def _text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} stands where a text belongs")
    return value


def _corrupt(what: str, error: Exception) -> JournalCorrupt:
    return JournalCorrupt(
        f"{what} in the journal cannot be read ({type(error).__name__}: {error}); nothing was executed"
    )
