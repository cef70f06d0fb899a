"""What passes between the parts of a run, what it streams and what it records: plain types.

Messages are the chat-completions dictionaries as they go over the wire, so that a history is stored, sent and read
without a conversion. This module knows nothing of models, tools or loops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from specialists import Attempt, Cost, Outcome

from .encoding import encode

if TYPE_CHECKING:
    from .results import RunResult

__all__ = [
    "AttemptMade",
    "ChatModel",
    "Done",
    "Message",
    "ModelRequest",
    "ModelResponse",
    "PendingApproval",
    "Plan",
    "PlanMade",
    "PlanStep",
    "RunEvent",
    "Sending",
    "StepReused",
    "TextDelta",
    "TokenUsage",
    "ToolAnswered",
    "ToolCall",
    "ToolCalled",
    "ToolSchema",
    "Turn",
    "WireAttempt",
]

Message: TypeAlias = dict[str, Any]
"""One chat-completions message: ``{"role": ..., "content": ..., ...}``.

Those of a result keep their bytes and are fixed: changing one raises ``TypeError``; ``copy.deepcopy`` gives one to
change.
"""

UsageSource = Literal["provider", "estimated", "absent"]
WireOutcome = Literal[
    "ok",
    "rate_limited",
    "timeout",
    "unreachable",
    "server_error",
    "authentication",
    "context_overflow",
    "rejected",
    "protocol",
    "stream_cut",
    "cancelled",
]


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a model sees it. ``parameters`` and ``returns`` are JSON schemas (``returns``: ``None`` if unknown)."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    returns: Mapping[str, Any] | None = None
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)
    _named: ToolSchema | None = field(default=None, init=False, repr=False, compare=False)

    def to_wire(self) -> dict[str, Any]:
        """As chat completions write it."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }

    def encoded(self) -> bytes:
        """:meth:`to_wire` as JSON, written at the first call and kept. Raises :class:`brain.encoding.NotJson`."""
        if self._encoded is None:
            object.__setattr__(self, "_encoded", encode(self.to_wire()))
        assert self._encoded is not None
        return self._encoded

    def named(self, name: str) -> ToolSchema:
        """The same tool under another name; the last one made is kept."""
        if self._named is None or self._named.name != name:
            object.__setattr__(self, "_named", ToolSchema(name, self.description, self.parameters, self.returns))
        assert self._named is not None
        return self._named


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool. ``arguments`` is the raw JSON text as the model wrote it, not yet checked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one model call. ``None`` is unknown, zero is zero.

    ``input`` includes ``cache_read``, ``cache_write`` and ``audio_input`` (sound may be cached, so these overlap);
    ``output`` includes ``reasoning`` and ``audio_output``. ``requests``: how many requests the counts are of.

    ``source``: ``provider`` (the endpoint said so), ``estimated`` (conservatively, by us, because the endpoint's
    figures were missing or absurd) or ``absent`` (nothing is known).
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    source: UsageSource = "absent"
    audio_input: int | None = None
    audio_output: int | None = None
    requests: int = 1

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "input": self.input,
            "output": self.output,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "reasoning": self.reasoning,
            "audio_input": self.audio_input,
            "audio_output": self.audio_output,
            "requests": self.requests,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenUsage:
        """The inverse of :meth:`to_json`; a count that is not there is unknown. Raises ``ValueError`` for no usage."""
        counts = {name: data.get(name) for name in cls.__dataclass_fields__ if name not in ("source", "requests")}
        requests, source = data.get("requests", 1), data.get("source", "absent")
        for value in (requests, *(count for count in counts.values() if count is not None)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"a count of tokens or requests is a whole number from zero up, not {value!r}")
        if source not in get_args(UsageSource):
            raise ValueError(f"a usage comes from {', '.join(get_args(UsageSource))}, not {source!r}")
        return cls(**counts, source=source, requests=requests)


@dataclass(frozen=True, slots=True)
class WireAttempt:
    """One request that left for an endpoint; every retry is one more."""

    id: str
    model: str
    """The model asked for."""
    endpoint: str
    """Origin only (scheme, host, port): no path, no query, no key."""
    outcome: WireOutcome
    seconds: float
    cost: Cost
    usage: TokenUsage = field(default_factory=TokenUsage)
    status: int | None = None
    """HTTP status; ``None`` when no answer came."""
    answered_model: str | None = None
    """The model that answered, in its own words."""
    reason: str | None = None
    """One sentence for anything but ``ok``."""
    service_tier: str | None = None
    """The service tier that the answer states, else the one that was asked for; ``None`` when nobody said."""
    price: Mapping[str, Any] | None = None
    """The price that held, as :meth:`brain.prices.Quote.to_json` writes it; ``None`` when there is none."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "id": self.id,
            "model": self.model,
            "answered_model": self.answered_model,
            "endpoint": self.endpoint,
            "outcome": self.outcome,
            "status": self.status,
            "seconds": self.seconds,
            "usage": self.usage.to_json(),
            "cost": self.cost.to_json(),
            "service_tier": self.service_tier,
            "price": None if self.price is None else dict(self.price),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Sending:
    """A wire attempt that is about to be sent, and the most it can take.

    ``worst``: from nothing to the most that it can cost; unpriced where nobody knows. ``seconds``: its time limit.
    ``price``: the snapshot that it is going to be priced by.
    """

    id: str
    """That of the :class:`WireAttempt` to come."""
    model: str
    endpoint: str
    worst: Cost
    seconds: float
    price: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a chat model."""

    messages: Sequence[Message]
    tools: Sequence[ToolSchema] = ()
    output_schema: Mapping[str, Any] | None = None
    """A JSON schema the answer's text must fit (sent as ``response_format``), or ``None`` for free text."""
    output_name: str = "answer"
    deadline: float | None = None
    """Point on :func:`time.monotonic` after which no answer is of use."""
    max_output_tokens: int | None = None
    """Overrides the model's own limit when lower."""
    on_send: Callable[[Sending], Awaitable[float | None]] | None = None
    """Awaited before each wire attempt by a model that ``announces``. What it raises ends the ask, and nothing is sent;
    what it returns is the seconds that the attempt may take, where they are fewer than the model's own."""
    idempotency_key: str | None = None
    """The same for the same question of the same run, also when it is asked again after a crash."""
    effort: str | None = None
    """How hard the model is to think before it answers: ``minimal``, ``low``, ``medium``, ``high``, or what else the
    endpoint knows (sent as ``reasoning_effort``). ``None``: as it does by itself."""
    seed: int | None = None
    """Tells samples of one question apart (sent as ``seed``). ``None``: none is sent."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One call of a plan, or a subtask.

    ``references`` maps a parameter's name (or a place within it: ``texts[0]``) to the index of the earlier step whose
    value it is; ``paths`` says which part of that value, where it is not the whole (``.rows[0]``). ``after``: steps
    that come first although nothing of theirs is needed. ``task``: what a subtask is, in words; its ``tool`` is then
    ``subtask``, and its arguments are data that it is given. ``id``: what the plan calls it.
    """

    tool: str
    arguments: Mapping[str, Any]
    references: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    task: str | None = None
    id: str = ""

    @property
    def needs(self) -> tuple[int, ...]:
        """The indices of the steps that must have ended well before it begins."""
        return tuple(dict.fromkeys((*self.references.values(), *self.after)))

    def __str__(self) -> str:
        parts = [f"{name}={_short(value)}" for name, value in self.arguments.items()]
        parts += [f"{name}=#{index + 1}{self.paths.get(name, '')}" for name, index in self.references.items()]
        parts += [f"after #{index + 1}" for index in self.after if index not in self.references.values()]
        if self.task is not None:
            parts.insert(0, _short(self.task, 60))
        return f"{self.tool}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls that answer a request: the steps in order, or none and the ``reason``.

    ``score`` (0 .. 1) is how well the built-in planner's best tool fits the request, before any threshold; ``None``:
    another made the plan. ``answer``: the index of the step whose value is the answer; ``None``: whoever planned is to
    say what follows from the values.
    """

    steps: tuple[PlanStep, ...]
    score: float | None = None
    reason: str | None = None
    answer: int | None = None

    def __str__(self) -> str:
        return " -> ".join(str(step) for step in self.steps) if self.steps else f"abstain: {self.reason}"


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """A chat model's answer: text, or tool calls, or (from the built-in planner only) an abstention."""

    text: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    model: str | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    abstention: str | None = None
    """The reason why the planner has no plan. A language model never sets it."""
    value_of: str | None = None
    """Id of the tool call whose typed value is the answer; set by the built-in planner only."""


class ChatModel(Protocol):
    """The one method a brain needs of a model. An implementation is safe for concurrent calls from any event loop.

    One that awaits ``request.on_send`` before each wire attempt says so by an attribute ``announces = True``. For any
    other the brain sets money aside once for each ask, and has no price to go by.
    """

    @property
    def name(self) -> str:
        """Shown in receipts, for example ``openai:gpt-5-mini``."""

    async def ask(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """Answer ``request``.

        ``on_attempt`` is called as each wire attempt ends, whatever its end (also when cancelled), so that no
        attempt is lost to an exception. With ``on_text`` the answer is streamed and the text handed over in pieces.
        Raises :class:`brain.errors.ModelError`.
        """


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the brain's own model calls."""

    model: str
    seconds: float
    usage: TokenUsage
    cost: Cost
    tool_calls: tuple[ToolCall, ...]
    wire_attempts: tuple[WireAttempt, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A tool call that waits for a person."""

    id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the model's text."""

    text: str


@dataclass(frozen=True, slots=True)
class PlanMade:
    """A plan was made, and checked; its steps are going to run. ``ids``: those of their calls, in the plan's order."""

    plan: Plan
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepReused:
    """A step does what an earlier plan of the run has done; it is not done again, and has that value."""

    id: str
    tool: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A checked call is about to run."""

    id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AttemptMade:
    """One rung of the ladder was tried for call ``id``."""

    id: str
    tool: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """A call has ended, accepted or not."""

    id: str
    tool: str
    outcome: Outcome[Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a run that ended well."""

    result: RunResult[Any]


RunEvent: TypeAlias = TextDelta | PlanMade | StepReused | ToolCalled | AttemptMade | ToolAnswered | Done


def _short(value: Any, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
