"""A request's body, put together from bytes that were written before: messages and tools are not encoded here.

The order is fixed: what belongs to the model, the tools, the answer's form, the messages, and last a sample's seed. So
a run's next request begins with the very bytes of its last one. This module knows nothing of sockets, clients or
retries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..encoding import EncodedMessage, as_message, encode
from ..events import Message, ModelRequest
from .naming import as_sent, renamed_tool

__all__ = ["RequestWriter"]


class RequestWriter:
    """Writes the requests to one model. ``limit_field`` is what its endpoint calls the limit on output tokens."""

    def __init__(self, model: str, limit_field: str) -> None:
        self._model = encode(model)
        self._limit_field = limit_field.encode()
        self._form: tuple[Mapping[str, Any], str, bytes] | None = None

    def write(
        self, request: ModelRequest, limit: int, *, stream: bool = False, names: Mapping[str, str] | None = None
    ) -> tuple[bytes, bool]:
        """The body, and whether it is text alone. ``names``: tools that travel under another name.

        Raises :class:`brain.encoding.NotJson`.
        """
        parts = [b'{"model":%b,"%b":%d' % (self._model, self._limit_field, limit)]
        if stream:
            parts.append(b',"stream":true,"stream_options":{"include_usage":true}')
        if request.effort is not None:
            parts.append(b',"reasoning_effort":%b' % encode(request.effort))
        if request.tools:
            tools = request.tools if not names else [renamed_tool(tool, names) for tool in request.tools]
            parts += (b',"tools":[', b",".join([tool.encoded() for tool in tools]), b"]")
        if request.output_schema is not None:
            parts.append(self._response_format(request.output_schema, request.output_name))
        messages, text_only = _messages(request.messages, names)
        parts += (b',"messages":[', messages)
        # After the messages: samples of one question begin with the same bytes, which providers' caches go by.
        parts.append(b"]}" if request.seed is None else b'],"seed":%d}' % request.seed)
        return b"".join(parts), text_only

    def _response_format(self, schema: Mapping[str, Any], name: str) -> bytes:
        form = self._form
        if form is None or form[0] is not schema or form[1] != name:
            inner = {
                "name": re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer",
                "schema": schema,
                "strict": can_be_strict(schema),
            }
            written = b',"response_format":' + encode({"type": "json_schema", "json_schema": inner})
            form = self._form = (schema, name, written)
        return form[2]


def _messages(messages: Sequence[Message], names: Mapping[str, str] | None) -> tuple[bytes, bool]:
    if not names:
        try:
            ready = [message.as_sent for message in messages]  # type: ignore[attr-defined]
        except AttributeError:  # plain dictionaries among them
            pass
        else:
            if None not in ready:
                return b",".join(ready), True
    encoded = [as_message(message) for message in messages]
    text_only = all(_is_text(message) for message in encoded)
    return b",".join([as_sent(message, names or {}) for message in encoded]), text_only


def _is_text(message: EncodedMessage) -> bool:
    content = message.get("content")
    return not isinstance(content, list) or all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    )


def can_be_strict(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode takes ``schema``: every object closed, every property required, nothing exotic."""
    return schema.get("type") == "object" and all(_strict_node(node) for node in _nodes(schema, 0))


def _strict_node(node: Mapping[str, Any] | None) -> bool:
    if node is None or any(word in node for word in ("allOf", "oneOf", "not", "if", "patternProperties", "default")):
        return False
    if node.get("type") == "object" or "properties" in node:
        properties = node.get("properties", {})
        return node.get("additionalProperties") is False and set(node.get("required", ())) == set(properties)
    return "items" in node if node.get("type") == "array" else bool(node)


def _nodes(schema: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > 10:
        yield None
        return
    yield schema
    for group in ("properties", "$defs"):
        for child in (schema.get(group) or {}).values():
            yield from _nodes(child, depth + 1)
    for child in [schema["items"]] if "items" in schema else []:
        yield from _nodes(child, depth + 1)
    for child in (*schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        yield from _nodes(child, depth + 1)
