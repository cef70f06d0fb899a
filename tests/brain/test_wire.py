"""Strict, bounded reading of what an endpoint sends: what is taken, what refused, and that nothing else happens."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain.events import ModelRequest, TokenUsage, ToolCall
from brain.testing import call, reply
from brain.testing.chat import answer_events
from brain.wire.parsing import (
    MAX_DEPTH,
    MAX_TOOL_CALLS,
    EndpointError,
    StreamReader,
    WireError,
    loads,
    read_completion,
    read_usage,
)
from brain.wire.writing import RequestWriter, can_be_strict

BODY: dict[str, Any] = {"model": "m", "messages": [], "stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWER = reply("one two", tool_calls=[call("add", a=1, b="ü"), call("add", a=2)])
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)
COUNTS = ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"]
USAGES = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from([*COUNTS, "prompt_tokens_details", "completion_tokens_details"]), inner)
    ),
)
EVENTS = b"".join(answer_events(ANSWER, BODY, USAGE))


def message(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "choices": [{"message": fields, "finish_reason": "stop"}]}).encode()


def read_stream(raw: bytes, size: int = 10**9) -> Any:
    reader = StreamReader()
    pieces = [piece for start in range(0, len(raw), size) for piece in reader.feed(raw[start : start + size])]
    return reader.finish(), pieces


@given(st.integers(1, 200))
def test_a_stream_reads_the_same_in_pieces_of_any_size(size: int) -> None:
    done, pieces = read_stream(EVENTS, size)
    assert "".join(pieces) == done.text == "one two"
    assert done.tool_calls == ANSWER.tool_calls
    assert (done.finish_reason, done.model, done.usage) == ("tool_calls", "m", USAGE)


def test_line_ends_comments_and_unknown_fields_of_a_stream() -> None:
    raw = b": ping\r\n\r\nevent: x\nid: 1\nretry: 5\n" + EVENTS.replace(b"\n", b"\r\n") + b"\r\n: after the end\r\n"
    done, pieces = read_stream(raw)
    assert done.text == "".join(pieces) == "one two"


def test_a_stream_without_a_finish_reason_is_not_whole() -> None:
    for events in range(7):
        done, _ = read_stream(b"".join(answer_events(ANSWER, BODY, USAGE)[:events]))
        assert done is None


def test_calls_without_index_or_id_are_kept_apart() -> None:
    deltas = [
        {"id": "a", "function": {"name": "f", "arguments": '{"x"'}},
        {"function": {"arguments": ": 1}"}},
        {"id": "b", "function": {"name": "g"}},
    ]
    raw = b"".join(
        b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [delta]}}]}).encode() + b"\n\n" for delta in deltas
    )
    done, _ = read_stream(raw + b'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\n')
    assert done.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    whole = read_completion(message(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}] * 2))
    assert [made.id for made in whole.tool_calls] == ["call_0", "call_1"]


def test_a_stream_of_too_many_calls_is_refused() -> None:
    def event(index: int) -> bytes:
        delta = {"tool_calls": [{"index": index, "id": str(index), "function": {"name": "f"}}]}
        return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"

    read_stream(b"".join(event(index) for index in range(MAX_TOOL_CALLS)))
    with pytest.raises(WireError, match="tool calls"):
        read_stream(b"".join(event(index) for index in range(MAX_TOOL_CALLS + 1)))


def test_content_may_be_parts_a_refusal_or_nothing() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read_completion(message(content=parts)).text == "ab"
    refused = read_completion(message(content=None, refusal="I will not."))
    assert (refused.text, refused.finish_reason) == ("I will not.", "refusal")
    assert read_completion(message(content=None)).text == ""


def test_errors_in_place_of_answers() -> None:
    with pytest.raises(EndpointError):
        read_completion(b'{"error": {"message": "no"}}')
    with pytest.raises(EndpointError):
        read_stream(b'data: {"error": "no"}\n\n')


def test_depth_is_bounded_just_so() -> None:
    assert loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(WireError, match="nested"):
        loads(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    # Brackets in strings are no depth.
    assert loads(json.dumps("[" * 1000 + '\\"]}').encode()) == "[" * 1000 + '\\"]}'


@given(JSON)
def test_proper_json_is_read_as_it_is(value: Any) -> None:
    assert loads(json.dumps(value).encode()) == value
    assert loads(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, len(EVENTS)), st.integers(0, 40))
def test_any_bytes_are_an_answer_or_a_wire_error(noise: bytes, position: int, cut: int) -> None:
    whole = json.dumps({**json.loads(message(content="x", tool_calls=None)), "usage": USAGE}).encode()
    at = position % len(whole)
    for raw in (noise, whole[:at] + noise[:3] + whole[at + cut :]):
        with contextlib.suppress(WireError, EndpointError):
            read_completion(raw)
    for raw in (b"data: " + noise + b"\n\n", EVENTS[:position] + noise[:3] + EVENTS[position + cut :]):
        with contextlib.suppress(WireError, EndpointError):
            read_stream(raw, 7)


@given(USAGES)
def test_any_usage_is_believable_or_none(usage: Any) -> None:
    read = read_usage(usage, input_limit=1000, output_limit=100)
    assert read is None or (0 < (read.input or 0) <= 1000 and 0 <= (read.output or 0) <= 264)


def test_reasoning_counted_beside_the_output_is_output() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert read_usage(usage, input_limit=None, output_limit=100) == TokenUsage(10, 25, None, None, 20, "provider")


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {}}, False),
        ({"type": "array", "items": {"type": "integer"}}, False),
        ({"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"], "additionalProperties": False},
         False),
        ({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"],
          "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "required": ["a"],
          "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": 1}}, "required": ["a"],
          "additionalProperties": False}, False),
    ],
)  # fmt: skip
def test_strict_is_asked_for_only_where_it_is_allowed(schema: dict[str, Any], strict: bool) -> None:
    assert can_be_strict(schema) is strict


def test_effort_and_seed_are_written_where_set_and_samples_begin_alike() -> None:
    writer = RequestWriter("m", "max_tokens")
    asked = [{"role": "user", "content": "x"}]

    def written(**more: Any) -> bytes:
        return writer.write(ModelRequest(asked, **more), 10)[0]

    assert json.loads(written()) == {"model": "m", "max_tokens": 10, "messages": asked}
    assert json.loads(written(effort="low", seed=0)) == {
        **json.loads(written()),
        "reasoning_effort": "low",
        "seed": 0,
    }
    assert written(effort='"}', seed=-1).endswith(b'"seed":-1}')
    assert json.loads(written(effort='"}'))["reasoning_effort"] == '"}'
    one, two = written(effort="high", seed=1), written(effort="high", seed=2)
    assert one.partition(b',"seed":')[0] == two.partition(b',"seed":')[0]
    assert json.loads(one)["messages"] == asked
