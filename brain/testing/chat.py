"""Chat completions as an endpoint writes them: answers, streams, errors, and bodies that are none of these.

This module knows nothing of sockets.
"""

from __future__ import annotations

import json
from typing import Any

from ..events import TokenUsage
from .replies import Reply, count_tokens, reply

__all__ = ["answer_body", "answer_events", "echo", "error_body", "malformed_body", "true_usage"]

_HEAD: dict[str, Any] = {"id": "chatcmpl-fake", "created": 0, "system_fingerprint": "fake"}


def echo(body: dict[str, Any]) -> Reply:
    """The reply when nobody ordered one: the last user message, or an object of the asked schema."""
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    if isinstance(schema, dict):
        return reply(json.dumps(_example(schema, schema, 0)))
    for message in reversed(body["messages"]):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return reply(f"You said: {content}")
    return reply("You said nothing.")


def true_usage(answer: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """The usage of ``answer``: as the reply says, else counted."""
    usage = answer.usage
    if usage is None:
        made = count_tokens(answer.text or "") + sum(
            count_tokens(call.name) + count_tokens(call.arguments) for call in answer.tool_calls
        )
        usage = TokenUsage(max(1, count_tokens(body["messages"])), max(1, made))
    given, made = usage.input or 0, usage.output or 0
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read or 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
    }


def answer_body(answer: Reply, body: dict[str, Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    """A whole answer; without ``usage`` when that is ``None``."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    result = {
        **_HEAD,
        "object": "chat.completion",
        "model": answer.model or body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": answer.ends, "logprobs": None}],
    }
    return result if usage is None else {**result, "usage": usage}


def answer_events(answer: Reply, body: dict[str, Any], usage: dict[str, Any] | None) -> list[bytes]:
    """The same as server-sent events: the role, text by the word, calls in two halves, the end, usage, ``[DONE]``."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    words = (answer.text or "").split(" ")
    deltas += [{"content": word if index == 0 else " " + word} for index, word in enumerate(words) if word or index]
    for index, call in enumerate(answer.tool_calls):
        half = len(call.arguments) // 2
        first = {"name": call.name, "arguments": call.arguments[:half]}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": first}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": call.arguments[half:]}}]})
    head = {**_HEAD, "object": "chat.completion.chunk", "model": answer.model or body.get("model")}
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.ends}]})
    if usage is not None and (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": usage})
    events = [b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks]
    return [*events, b"data: [DONE]\n\n"]


def error_body(message: str, code: str) -> dict[str, Any]:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


def malformed_body(kind: str, streamed: bool) -> bytes:
    """A body that is not chat completions; as the one event of a stream when ``streamed``."""
    field = "delta" if streamed else "message"
    message: dict[str, Any] = {"role": "assistant", "content": "hello"}
    proper = {"model": "fake-model", "choices": [{"index": 0, field: message, "finish_reason": "stop"}]}
    raw = json.dumps(proper).encode()
    if kind == "truncated":
        raw = raw[: len(raw) // 2]
    elif kind == "invalid_utf8":
        raw = raw.replace(b"hello", b"h\xff\xfello")
    elif kind == "duplicate_keys":
        raw = raw.replace(b'"content": "hello"', b'"content": "hello", "content": "goodbye"')
    elif kind == "nan":
        raw = raw.replace(b'"index": 0', b'"index": NaN')
    elif kind == "deep_nesting":
        raw = raw.replace(b'"index": 0', b'"index": ' + b"[" * 1000 + b"]" * 1000)
    elif kind == "many_tool_calls":
        message["tool_calls"] = [
            {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for n in range(10_000)
        ]
        raw = json.dumps(proper).encode()
    elif kind == "wrong_types":
        raw = raw.replace(b'"hello"', b"42")
    elif kind == "not_json":
        raw = b"<html>hello</html>"
    else:
        raise ValueError(f"there is no malformed answer of kind {kind!r}")
    return b"data: " + raw + b"\n\ndata: [DONE]\n\n" if streamed else raw


def _example(schema: Any, root: dict[str, Any], depth: int) -> Any:
    """Some value of ``schema``: the first of what is allowed."""
    if not isinstance(schema, dict) or depth > 20:
        return None
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        return _example(target, root, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("enum", "examples"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _example(schema[name][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: _example(inner, root, depth + 1) for name, inner in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [_example(schema.get("items"), root, depth + 1)] * int(schema.get("minItems", 0))
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return False
    return None if kind == "null" else "echo".ljust(int(schema.get("minLength", 0)), "o")
