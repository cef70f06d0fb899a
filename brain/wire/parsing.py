"""Chat completions as they come over the wire: read strictly, within bounds, and once.

Everything an endpoint sends is untrusted. What is not UTF-8, not JSON, too large, too deep, too many, or of the wrong
type raises :class:`WireError`, and is never repaired or guessed at. This module knows nothing of sockets, clients,
retries or prices.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from specialists import strict_json

from ..events import TokenUsage, ToolCall

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "MAX_STREAM_BYTES",
    "MAX_TOOL_CALLS",
    "MAX_VALUES",
    "Completion",
    "EndpointError",
    "StreamReader",
    "WireError",
    "input_bound",
    "loads",
    "read_completion",
    "read_usage",
]

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Largest answer read, in bytes; also the largest event of a stream, and the most text a stream may add up to."""
MAX_STREAM_BYTES = 32 * 1024 * 1024
"""Largest stream read, in bytes: each token of a stream comes in an envelope of a few hundred."""
MAX_DEPTH = 100
"""Deepest nesting of an answer's JSON."""
MAX_VALUES = 100_000
"""Most values in an answer's JSON. Python needs some hundred bytes for each, so bytes alone do not bound memory."""
FEW_BRACKETS = 2_000
FEW_VALUES = 20_000
"""Up to so many brackets, and so many commas and quotes, JSON is built first and looked at then."""
MAX_TOOL_CALLS = 128
"""Most tool calls in one answer."""
MAX_TOKENS_STATED = 1_000_000_000
"""A count of tokens beyond this is no count."""
INPUT_SLACK = 1024
"""Tokens of an endpoint's own (chat template, tool preamble) that a request's bytes do not show."""

_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]|"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class WireError(Exception):
    """The bytes are not chat completions; the message says what is wrong with them, and quotes none of them."""


class EndpointError(Exception):
    """An error object in the place of an answer (HTTP 200 all the same). ``error`` is the object, unchecked."""

    def __init__(self, error: Any) -> None:
        super().__init__("the endpoint sent an error object")
        self.error = error


@dataclass(slots=True)
class Completion:
    """One answer, read. ``usage`` is the endpoint's own object, not yet believed."""

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    model: str | None = None
    usage: Any = None
    service_tier: str | None = None
    """Which service tier served it, in the endpoint's words."""


def input_bound(body_bytes: int) -> int:
    """The most input tokens a text request of ``body_bytes`` can be: a token is at least one byte."""
    return body_bytes + INPUT_SLACK


def loads(raw: bytes) -> Any:
    """``raw`` as JSON, strictly. Raises :class:`WireError`; needs little more memory than the value itself."""
    if len(raw) > MAX_BODY_BYTES:
        raise WireError(f"it is longer than {MAX_BODY_BYTES:,} bytes")
    # Counted before anything is built: ten bytes of brackets cost the parser a thousand bytes of memory. These counts
    # are quick and too high, for they count what stands in strings too; where they are small nothing else is needed.
    opened = raw.count(b"[") + raw.count(b"{")
    deep = opened > MAX_DEPTH
    if opened > FEW_BRACKETS or raw.count(b",") > FEW_VALUES or raw.count(b'"') > FEW_VALUES:
        _check_shape(raw)
        deep = False
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("it is not UTF-8") from None
    try:
        value = strict_json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("it is not JSON, or has a key twice, a NaN or a number too large") from None
    if deep:
        _check_depth(value)
    return value


def read_completion(raw: bytes) -> Completion:
    """A whole answer. Raises :class:`WireError`, or :class:`EndpointError` when the endpoint sent an error instead."""
    data = _object(loads(raw), "the answer")
    if data.get("error"):
        raise EndpointError(data["error"])
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise WireError("it has no list of choices")
    choice = _object(choices[0], "choices[0]")
    message = _object(choice.get("message"), "the message")
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise WireError("tool_calls is not a list")
    if calls and len(calls) > MAX_TOOL_CALLS:
        raise WireError(f"it has more than {MAX_TOOL_CALLS} tool calls")
    completion = Completion(model=_text(data.get("model"), "model", optional=True), usage=data.get("usage"))
    completion.service_tier = _text(data.get("service_tier"), "service_tier", optional=True)
    completion.tool_calls = tuple(_tool_call(call, index) for index, call in enumerate(calls or ()))
    completion.finish_reason = _text(choice.get("finish_reason"), "finish_reason", optional=True)
    refusal = _text(message.get("refusal"), "refusal", optional=True)
    completion.text = _content(message.get("content"))
    if completion.text is None and refusal is not None:
        completion.text, completion.finish_reason = refusal, "refusal"
    return _checked(completion)


@dataclass(slots=True)
class _CallParts:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class StreamReader:
    """Reads server-sent events piece by piece. :meth:`feed` gives the new text; :meth:`finish` the answer, if whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        """How much of the buffer holds no line end for certain."""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._total = 0
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._kept = 0
        self._calls: dict[int, _CallParts] = {}
        self._completion = Completion()
        self.done = False
        """Whether the endpoint said ``[DONE]``; what comes after is not read."""

    @property
    def usage(self) -> Any:
        """The endpoint's usage object so far, not yet believed."""
        return self._completion.usage

    @property
    def model(self) -> str | None:
        """The model that answers, in its own words."""
        return self._completion.model

    def feed(self, raw: bytes) -> list[str]:
        """The pieces of text that ``raw`` completes. Raises :class:`WireError` and :class:`EndpointError`."""
        self._total += len(raw)
        if self._total > MAX_STREAM_BYTES:
            raise WireError(f"the stream is longer than {MAX_STREAM_BYTES:,} bytes")
        self._buffer += raw
        pieces: list[str] = []
        start = 0
        search = self._searched
        while not self.done:
            end = self._buffer.find(b"\n", search)
            if end < 0:
                break
            line = bytes(self._buffer[start:end]).rstrip(b"\r")
            start = search = end + 1
            piece = self._line(line)
            if piece:
                pieces.append(piece)
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if len(self._buffer) > MAX_BODY_BYTES:
            raise WireError(f"a line of the stream is longer than {MAX_BODY_BYTES:,} bytes")
        return pieces

    def finish(self) -> Completion | None:
        """The answer, or ``None`` when the stream ended before it was whole."""
        completion = self._completion
        if completion.finish_reason is None:
            return None
        completion.text = "".join(self._text) if self._text else None
        if completion.text is None and self._refusal:
            completion.text, completion.finish_reason = "".join(self._refusal), "refusal"
        calls = [
            {
                "id": parts.id,
                "type": "function",
                "function": {"name": parts.name, "arguments": "".join(parts.arguments)},
            }
            for _, parts in sorted(self._calls.items())
        ]
        completion.tool_calls = tuple(_tool_call(call, index) for index, call in enumerate(calls))
        return _checked(completion)

    def _line(self, line: bytes) -> str | None:
        if not line:
            if not self._data:
                return None
            event, self._data, self._data_bytes = b"\n".join(self._data), [], 0
            return self._event(event)
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data_bytes += len(value) + 1
            if self._data_bytes > MAX_BODY_BYTES:
                raise WireError(f"an event of the stream is longer than {MAX_BODY_BYTES:,} bytes")
            self._data.append(value)
        return None

    def _event(self, event: bytes) -> str | None:
        if event.strip() == b"[DONE]":
            self.done = True
            return None
        data = _object(loads(event), "an event")
        if data.get("error"):
            raise EndpointError(data["error"])
        if data.get("usage") is not None:
            self._completion.usage = data["usage"]
        self._completion.model = _text(data.get("model"), "model", optional=True) or self._completion.model
        tier = _text(data.get("service_tier"), "service_tier", optional=True)
        self._completion.service_tier = tier or self._completion.service_tier
        choices = data.get("choices")
        if choices is None or choices == []:
            return None
        if not isinstance(choices, list):
            raise WireError("choices is not a list")
        choice = _object(choices[0], "choices[0]")
        delta = choice.get("delta")
        piece = None if delta is None else self._delta(_object(delta, "a delta"))
        reason = _text(choice.get("finish_reason"), "finish_reason", optional=True)
        if reason:
            self._completion.finish_reason = reason
        return piece

    def _delta(self, delta: dict[str, Any]) -> str | None:
        calls = delta.get("tool_calls")
        if calls is not None:
            if not isinstance(calls, list):
                raise WireError("tool_calls is not a list")
            for call in calls:
                self._call_delta(_object(call, "a tool call"))
        refusal = _text(delta.get("refusal"), "refusal", optional=True)
        if refusal:
            self._keep(refusal, self._refusal)
        text = _content(delta.get("content"))
        if text:
            self._keep(text, self._text)
        return text or None

    def _call_delta(self, call: dict[str, Any]) -> None:
        index = call.get("index")
        call_id = _text(call.get("id"), "a tool call's id", optional=True) or ""
        if index is None:
            # Some endpoints leave the index out: an id begins a call, its absence goes on with the last one.
            index = max(self._calls, default=-1) + (1 if call_id or not self._calls else 0)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 10 * MAX_TOOL_CALLS:
            raise WireError("a tool call's index is not a small number")
        if index not in self._calls and len(self._calls) >= MAX_TOOL_CALLS:
            raise WireError(f"it has more than {MAX_TOOL_CALLS} tool calls")
        parts = self._calls.setdefault(index, _CallParts())
        parts.id = parts.id or call_id
        function = call.get("function")
        if function is None:
            return
        function = _object(function, "a tool call's function")
        name = _text(function.get("name"), "a tool call's name", optional=True)
        if name and not parts.name:
            parts.name = name
        arguments = _text(function.get("arguments"), "a tool call's arguments", optional=True)
        if arguments:
            self._keep(arguments, parts.arguments)

    def _keep(self, piece: str, pieces: list[str]) -> None:
        self._kept += len(piece)
        if self._kept > MAX_BODY_BYTES:
            raise WireError(f"the stream's text is longer than {MAX_BODY_BYTES:,} characters")
        pieces.append(piece)


def read_usage(usage: Any, *, input_limit: int | None, output_limit: int, answered: bool = False) -> TokenUsage | None:
    """``usage`` if it can be true, else ``None``. A count that is stated as zero is zero, one left out is ``None``.

    It cannot when a count is missing, no integer, negative or beyond 10**9; when input is zero or, for a request of
    text alone (``input_limit`` is not ``None``), more than that or partly sound; when output is far beyond
    ``output_limit``, or zero although something was ``answered``; when a part exceeds its whole. The caches are parts
    of the input, reasoning is a part of the output, and what a total has beyond both is output too.
    """
    if not isinstance(usage, dict):
        return None
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    written = _detail(usage, "prompt_tokens_details", "cache_write_tokens")
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    heard = _detail(usage, "prompt_tokens_details", "audio_tokens")
    spoken = _detail(usage, "completion_tokens_details", "audio_tokens")
    if not _is_count(given) or not _is_count(made):
        return None
    if any(part is not None and not _is_count(part) for part in (cached, written, reasoning, heard, spoken)):
        return None
    # Some endpoints count reasoning beside the output, not in it, and some state it nowhere; their total then says so.
    total = usage.get("total_tokens")
    if _is_count(total):
        made = max(made, total - given)
    if given == 0 or (answered and made == 0) or made > 2 * output_limit + 64:
        return None
    if input_limit is not None and (given > input_limit or heard):
        return None
    if (cached or 0) + (written or 0) > given or (heard or 0) > given or (reasoning or 0) + (spoken or 0) > made:
        return None
    return TokenUsage(given, made, cached, written, reasoning, "provider", heard, spoken)


def _detail(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS_STATED


def _check_shape(raw: bytes) -> None:
    depth = values = strings = 0
    for match in _TOKENS.finditer(raw):
        char = raw[match.start()]
        if char == 0x22:  # a quote
            if match.end() - match.start() == 1:
                raise WireError("it is not JSON (a string has no end)")
            strings += 1
            if strings > 2 * MAX_VALUES:
                raise WireError(f"it has more than {2 * MAX_VALUES:,} strings")
            continue
        if char in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise WireError(f"it is nested deeper than {MAX_DEPTH}")
        elif char in b"]}":
            depth -= 1
        values += 1
        if values > MAX_VALUES:
            raise WireError(f"it has more than {MAX_VALUES:,} values")


def _check_depth(value: Any) -> None:
    layer, depth = [value], 0
    while layer := [part for part in layer if isinstance(part, (dict, list))]:
        depth += 1
        if depth > MAX_DEPTH:
            raise WireError(f"it is nested deeper than {MAX_DEPTH}")
        layer = [inner for part in layer for inner in (part.values() if isinstance(part, dict) else part)]


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{what} is not an object")
    return value


def _text(value: Any, what: str, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    if not isinstance(value, str):
        raise WireError(f"{what} is not a string")
    if _SURROGATE.search(value):
        raise WireError(f"{what} contains half a character (a lone surrogate)")
    return value


def _content(value: Any) -> str | None:
    if isinstance(value, list):  # parts; those that are not text (reasoning, for one) are not the answer
        parts = [_object(part, "a part of the content") for part in value]
        return "".join(_text(part.get("text"), "text") or "" for part in parts if part.get("type") == "text")
    return _text(value, "content", optional=True)


def _tool_call(value: Any, index: int) -> ToolCall:
    call = _object(value, "a tool call")
    function = _object(call.get("function"), "a tool call's function")
    name = _text(function.get("name"), "a tool call's name")
    if not name:
        raise WireError("a tool call has no name")
    arguments = _text(function.get("arguments"), "a tool call's arguments", optional=True)
    # Some endpoints give no ids; the answers to the calls must name something.
    return ToolCall(
        _text(call.get("id"), "a tool call's id", optional=True) or f"call_{index}", name, arguments or "{}"
    )


def _checked(completion: Completion) -> Completion:
    if completion.finish_reason == "length":
        for call in completion.tool_calls:
            try:
                json.loads(call.arguments)
            except (ValueError, RecursionError):
                raise WireError(
                    "max_output_tokens was reached in the middle of a tool call; raise max_output_tokens"
                ) from None
    if completion.text is None and not completion.tool_calls:
        completion.text = ""
    return completion
