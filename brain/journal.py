"""One run's place in the journal: which steps have happened, and how they are written down and read back.

A step is a turn of the model (``turn 0``) or a call (``turn 0, call 1``). It is intended, executed, committed. A run
that is taken up again goes through its loop from the beginning, and takes the results of committed steps in place of
executing them. Rows are JSON and are never executed. This module knows nothing of stores, money or loops.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, get_args

from specialists import Attempt, Cost, Outcome
from specialists.ladder import AcceptedBy, AttemptOutcome

from .encoding import EncodedMessage
from .errors import JournalCorrupt, RunBusy, RunTaken, SchemaChanged
from .events import ModelResponse, TokenUsage, ToolCall, Turn, WireAttempt, WireOutcome
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

T = TypeVar("T")

ROLES = ("system", "developer", "user", "assistant", "tool")


class Journal:
    """The journal of one run that this process has. ``resumed``: whether it was begun before."""

    def __init__(self, begun: Begun) -> None:
        self.run = begun.run
        self.resumed = begun.resumed
        self._steps = begun.steps
        self._turns: dict[str, tuple[Turn, ModelResponse]] = {}
        self._calls: dict[str, Outcome[Any] | Mapping[str, Any]] = {}
        self._order: list[str] = []

    def read(self) -> None:
        """Read all that was written, before any of it is used. Raises :class:`JournalCorrupt`."""
        try:
            _check_request(self.run.request)
            if not self.run.salt:
                raise ValueError("the run has no salt")
            for step, row in self._steps.items():
                if row.key != idempotency_key(self.salt, step):
                    raise ValueError(f"the key of {step!r} is another step's")
                _place(step)
            self._order = sorted((step for step, row in self._steps.items() if row.result is not None), key=_place)
            for step in self._order:
                self._read_step(step, self._steps[step])
            for step, row in self._steps.items():
                self._check_place(step, row)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise JournalCorrupt(
                f"the run {self.run.id!r} in the journal cannot be read ({type(error).__name__}: {error}); nothing was"
                " executed. Restore the file from a copy, or begin a new run"
            ) from None

    def _read_step(self, step: str, row: StepRow) -> None:
        result = row.result or {}
        if _is_turn(step):
            if step != turn_step(len(self._turns)):
                raise ValueError(f"{turn_step(len(self._turns))!r} is missing")
            self._turns[step] = turn_from_json(result)
        elif "answer" in result:
            self._calls[step] = _of(dict, result["answer"])
        else:
            outcome = self._calls[step] = outcome_from_json(result["outcome"])
            if outcome.tool != row.name:
                raise ValueError(f"{step!r} is a call of {row.name!r}, and its result one of {outcome.tool!r}")

    def _check_place(self, step: str, row: StepRow) -> None:
        """A call belongs to a turn that happened, and no turn happens before the calls of those before have."""
        if _is_turn(step):
            return
        if row.result is None and self.is_past(step):
            raise ValueError(f"{step!r} has no result, and a later turn has")
        if step.startswith("history") or ", summary" in step:
            return
        turn, place = _place(step)
        asked, found = self._turns[turn_step(turn)][1].tool_calls[place], self._calls.get(step)
        if asked.name != row.name or (isinstance(found, Outcome) and found.call_id != asked.id):
            raise ValueError(f"{step!r} is not the call that the model made")

    def is_past(self, step: str) -> bool:
        """Whether a turn after the call ``step`` has happened, which it must have before."""
        return len(self._turns) > _place(step)[0] + 1

    @property
    def fence(self) -> int:
        """Goes with everything that is written, so that it is refused when another process has taken the run up."""
        return self.run.fence

    @property
    def salt(self) -> str:
        """What makes this run's idempotency keys its own."""
        return self.run.salt

    def turn(self, step: str) -> tuple[Turn, ModelResponse] | None:
        """A turn that happened."""
        return self._turns.get(step)

    def call(self, step: str) -> Outcome[Any] | Mapping[str, Any] | None:
        """The outcome of a call that happened, or the answer that was given in its place; values are as JSON."""
        return self._calls.get(step)

    def happened(self) -> list[str]:
        """Every committed step: turns in order, and each turn's calls in the order asked."""
        return list(self._order)

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
            now = digests.get(name)
            if now == digest:
                continue
            what = "has changed" if digest and now else "is not there any more" if digest else "was not there"
            since = "since it was begun" if digest else "when it was called"
            raise SchemaChanged(
                f"the run {self.run.id!r} cannot be taken up: the tool {name!r} {what} {since}; nothing was executed."
                " Begin a new run, or restore the tool"
            )

    def tools(self) -> dict[str, str | None]:
        """Every tool that the run was offered, or has called, with the digest it had; ``None``: there was none."""
        found: dict[str, str | None] = dict(self.run.request["tools"])
        for row in self._steps.values():
            if row.result is not None and _is_turn(row.step):
                found.update(row.result["tools"])
        found.update({row.name: row.schema for row in self._steps.values() if row.schema is not None})
        return found

    def as_before(self) -> Finish:
        """The change that leaves the run as it was found."""
        return self.finish(self.run.status, self.run.reason, self.run.result)


def idempotency_key(salt: str, step: str) -> str:
    """The key of a step, the same whenever it is tried, and told to nobody before."""
    return hashlib.sha256(f"{salt}\0{step}".encode()).hexdigest()[:32]


def turn_step(turn: int) -> str:
    """The name of a turn."""
    return f"turn {turn}"


def call_step(turn: int, place: int) -> str:
    """The name of a call: ``place`` in the turn's order."""
    return f"turn {turn}, call {place}"


def summary_step(turn: int, number: int) -> str:
    """The name of a summary that is made before a turn; ``number``: of the run's summaries."""
    return f"turn {turn}, summary {number}"


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


def turn_to_json(turn: Turn, response: ModelResponse, tools: Mapping[str, str | None]) -> dict[str, Any]:
    """The result of a turn. ``tools``: digests of the tools that it calls; ``None``: there is no such tool."""
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
    """The inverse of :func:`turn_to_json`. Raises ``ValueError`` and its like for what no turn can have written."""
    given, made = data["response"], data["turn"]
    _check_digests(data["tools"], maybe=True)
    calls = tuple([_call_from_json(call) for call in _of(list, given["tool_calls"])])
    response = ModelResponse(
        _text(given["text"]),
        calls,
        _text(given["finish_reason"]),
        _text(given["model"]),
        TokenUsage.from_json(given["usage"]),
        _text(given["abstention"]),
        _text(given["value_of"]),
    )
    turn = Turn(
        model=_of(str, made["model"]),
        seconds=_number(made["seconds"]),
        usage=TokenUsage.from_json(made["usage"]),
        cost=Cost.from_json(made["cost"]),
        tool_calls=calls,
        wire_attempts=tuple([wire_from_json(each) for each in _of(list, made["wire_attempts"])]),
    )
    return turn, response


def outcome_from_json(data: Mapping[str, Any]) -> Outcome[Any]:
    """A call's outcome with its wire attempts; values stay as JSON. Raises ``ValueError`` and its like."""
    outcome = Outcome.from_json(data)
    attempts = [_attempt(attempt, raw) for attempt, raw in zip(outcome.attempts, data["attempts"], strict=True)]
    audit = None if outcome.audit is None else _attempt(outcome.audit, data["audit"])
    for each in (outcome.call_id, outcome.run_id, outcome.answered_by, outcome.reason):
        _text(each)
    if outcome.accepted_by is not None and outcome.accepted_by not in get_args(AcceptedBy):
        raise ValueError(f"nothing is accepted as {outcome.accepted_by!r}")
    _of(str, outcome.tool)
    _of(dict, outcome.arguments)
    return replace(outcome, attempts=tuple(attempts), audit=audit)


def wire_from_json(data: Mapping[str, Any]) -> WireAttempt:
    """The inverse of :meth:`WireAttempt.to_json`. Raises ``ValueError`` and its like."""
    attempt = WireAttempt(
        **{**data, "usage": TokenUsage.from_json(data["usage"]), "cost": Cost.from_json(data["cost"])}
    )
    for text in (attempt.id, attempt.model, attempt.endpoint):
        _of(str, text)
    for maybe in (attempt.answered_model, attempt.reason, attempt.service_tier):
        _text(maybe)
    if attempt.outcome not in get_args(WireOutcome):
        raise ValueError(f"no request ends as {attempt.outcome!r}")
    if attempt.price is not None:
        _of(dict, attempt.price)
    _number(attempt.status, maybe=True)
    _number(attempt.seconds)
    return attempt


def messages_from_json(data: Any) -> list[EncodedMessage]:
    """Messages of a history. Raises ``ValueError`` and its like."""
    messages = [EncodedMessage(_of(dict, message)) for message in _of(list, data)]
    for message in messages:
        if message.get("role") not in ROLES:
            raise ValueError(f"nobody speaks as {message.get('role')!r}")
    return messages


class taken_once:
    """Within this process, a run is executed once at a time, whichever brains and ledgers it is given to. ``token``:
    the process's for the ledger's file. Raises :class:`RunBusy`.
    """

    _lock = threading.Lock()
    _taken: set[tuple[str, str]] = set()  # noqa: RUF012

    def __init__(self, token: str, run: str) -> None:
        self._key = (token, run)

    def __enter__(self) -> None:
        with self._lock:
            if self._key in self._taken:
                raise RunBusy(f"the run {self._key[1]!r} is being executed by this process; wait until that has ended")
            self._taken.add(self._key)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._taken.discard(self._key)


_STEP = re.compile(r"(?:turn (0|[1-9]\d{0,8})|history)(?:, (call|summary) (0|[1-9]\d{0,8}))?")
_AFTER_CALLS = 10**9
"""A summary has its place behind the calls of the turn before."""


def _place(step: str) -> tuple[int, ...]:
    """Where a step stands among all. Raises ``ValueError`` for a name that no step has."""
    found = _STEP.fullmatch(step)
    if found is None or step == "history" or (found[1] is None and found[2] == "summary"):
        raise ValueError(f"{step[:64]!r} is no step")
    turn, kind, number = found.groups()
    if kind == "summary":
        return int(turn) - 1, _AFTER_CALLS, int(number)
    return (-1 if turn is None else int(turn), *(() if number is None else (int(number),)))


def _is_turn(step: str) -> bool:
    return "," not in step


def _check_request(request: Mapping[str, Any]) -> None:
    for name in ("prompt", "group", "instructions", "output"):
        _text(request[name])
    _of(str, request["model"])
    _check_digests(request["tools"], maybe=False)
    if request["budget"] is not None:
        _of(dict, request["budget"])
    if not messages_from_json(request["history"]) and request["prompt"] is None:
        raise ValueError("it was asked nothing")


def _check_digests(data: Any, *, maybe: bool) -> None:
    for digest in _of(dict, data).values():
        if digest is not None or not maybe:
            _of(str, digest)


def _attempt(attempt: Attempt, raw: Mapping[str, Any]) -> Attempt:
    _of(str, attempt.rung)
    _number(attempt.seconds)
    for maybe in (attempt.confidence, attempt.steps, attempt.cpu_seconds, attempt.cpu_seconds_low):
        _number(maybe, maybe=True)
    for text in (attempt.reason, attempt.source, *((attempt.verdict.reason,) if attempt.verdict else ())):
        _text(text)
    if attempt.outcome not in get_args(AttemptOutcome):
        raise ValueError(f"no attempt ends as {attempt.outcome!r}")
    if attempt.verdict is not None and attempt.verdict.status not in ("passed", "failed", "unknown"):
        raise ValueError(f"no verdict is {attempt.verdict.status!r}")
    _of(list, raw["ran"])
    for ran in attempt.ran:
        _of(str, ran)
    return replace(attempt, wire_attempts=tuple([wire_from_json(each) for each in _of(list, raw["wire_attempts"])]))


def _call_to_json(call: ToolCall) -> dict[str, str]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _call_from_json(data: Mapping[str, Any]) -> ToolCall:
    return ToolCall(_of(str, data["id"]), _of(str, data["name"]), _of(str, data["arguments"]))


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{str(value)[:64]!r} stands where a {kind.__name__} belongs")
    return value


def _text(value: Any) -> Any:
    return None if value is None else _of(str, value)


def _number(value: Any, *, maybe: bool = False) -> Any:
    if value is None and maybe:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise TypeError(f"{str(value)[:64]!r} stands where a number from zero up belongs")
    return value
