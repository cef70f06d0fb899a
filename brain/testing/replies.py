"""What a test double is told to say: answers, tool calls and faults, as plain data.

This module knows nothing of HTTP or event loops.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ..events import TokenUsage, ToolCall

__all__ = ["Fault", "Reply", "as_json", "call", "count_tokens", "reply"]

MalformedKind = Literal[
    "truncated", "invalid_utf8", "duplicate_keys", "nan", "deep_nesting", "many_tool_calls", "wrong_types", "not_json"
]
UsageKind = Literal["missing", "zero", "negative", "absurd"]

_numbers = itertools.count(1)


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A tool call with ``arguments``, and an id that no other has."""
    return ToolCall(f"call_{next(_numbers)}", name, json.dumps(arguments, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``usage`` is what is stated and metered; ``None`` counts by :func:`count_tokens`."""

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: TokenUsage | None = None
    finish_reason: str | None = None
    """``None``: ``tool_calls`` when there are any, else ``stop``."""
    model: str | None = None
    """The model that says it answers; ``None``: the one that was asked for."""
    delay: float = 0.0
    """Seconds before the answer begins."""

    @property
    def ends(self) -> str:
        """The finish reason that is stated."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")


def reply(
    text: str | None = None,
    *,
    tool_calls: Sequence[ToolCall] | ToolCall = (),
    usage: TokenUsage | Mapping[str, int] | None = None,
    finish_reason: str | None = None,
    model: str | None = None,
    delay: float = 0.0,
) -> Reply:
    """An answer of ``text``, or of ``tool_calls`` made with :func:`call`.

    ``usage``: a :class:`~brain.events.TokenUsage`, or a dictionary of its fields (``{"input": 10, "output": 5}``).
    """
    calls = (tool_calls,) if isinstance(tool_calls, ToolCall) else tuple(tool_calls)
    if isinstance(usage, Mapping):
        usage = TokenUsage(**{"source": "provider", **usage})  # type: ignore[arg-type]
    return Reply(text if text is not None or calls else "", calls, usage, finish_reason, model, delay)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at an endpoint. Made by the class methods; ``answer`` is what it goes wrong with."""

    kind: str
    status: int | None = None
    code: str | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    amount: float = 0
    answer: Reply | None = None
    """``None``: the endpoint's echo."""

    @classmethod
    def rate_limited(cls, retry_after: float | str | None = None) -> Fault:
        """429, with ``Retry-After`` as given: seconds, an HTTP date, or anything else."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls("rate_limited", 429, "rate_limit_exceeded", "Rate limit reached.", headers)

    @classmethod
    def server_error(cls, status: int = 500, retry_after: float | str | None = None) -> Fault:
        """A 5xx."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls("server_error", status, "server_error", "The server had an error.", headers)

    @classmethod
    def rejected(cls, status: int = 400, code: str = "invalid_request", message: str = "Bad request.") -> Fault:
        """Any other error status, with a code and a message."""
        return cls("rejected", status, code, message)

    @classmethod
    def context_overflow(cls) -> Fault:
        """400, as OpenAI says that a request is too long."""
        return cls.rejected(400, "context_length_exceeded", "This model's maximum context length is 8192 tokens.")

    @classmethod
    def hang(cls) -> Fault:
        """Takes the request and never answers."""
        return cls("hang")

    @classmethod
    def trickle(cls, bytes_per_second: float = 1.0, answer: Reply | None = None) -> Fault:
        """Answers, this slowly."""
        return cls("trickle", 200, amount=bytes_per_second, answer=answer)

    @classmethod
    def cut_stream(cls, after_chunks: int = 2, answer: Reply | None = None) -> Fault:
        """Closes the connection after so many events of a stream, or in the middle of a plain answer."""
        return cls("cut_stream", 200, amount=after_chunks, answer=answer)

    @classmethod
    def stall(cls, after_chunks: int = 2, answer: Reply | None = None) -> Fault:
        """Falls silent after so many events of a stream, or in the middle of a plain answer."""
        return cls("stall", 200, amount=after_chunks, answer=answer)

    @classmethod
    def malformed(cls, kind: MalformedKind = "truncated") -> Fault:
        """200, and a body that is not chat completions in the way ``kind`` says."""
        return cls("malformed", 200, code=_one_of(MalformedKind, kind))

    @classmethod
    def enormous(cls, megabytes: float = 50) -> Fault:
        """200, and an otherwise proper answer of this size."""
        return cls("enormous", 200, amount=megabytes)

    @classmethod
    def usage(cls, kind: UsageKind = "missing", answer: Reply | None = None) -> Fault:
        """A proper answer whose usage is missing, zero, negative or absurd. The meter keeps the true one."""
        return cls("usage", 200, code=_one_of(UsageKind, kind), answer=answer)

    @classmethod
    def redirect(cls, url: str, status: int = 307) -> Fault:
        """A redirect to ``url``."""
        return cls("redirect", status, headers={"Location": url})

    @classmethod
    def echo_key(cls, status: int = 400) -> Fault:
        """An error that repeats the caller's key, in its message and in a header."""
        return cls("echo_key", status, "invalid_api_key")

    @classmethod
    def close(cls) -> Fault:
        """Takes the request and closes the connection."""
        return cls("close")

    def with_answer(self, answer: Reply) -> Fault:
        """The same fault, with this to say."""
        return replace(self, answer=answer)


def _one_of(kinds: Any, kind: str) -> str:
    if kind not in get_args(kinds):
        raise ValueError(f"there is no such fault as {kind!r}; there are {', '.join(get_args(kinds))}")
    return kind


def count_tokens(value: Any) -> int:
    """The doubles' rule for tokens: one for every four bytes of UTF-8, rounded up. No tokenizer says exactly that."""
    text = value if isinstance(value, str) else as_json(value)
    return -(-len(text.encode("utf-8", "replace")) // 4)


as_json = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""What the doubles write: spaces as Python sets them, characters as they are."""
