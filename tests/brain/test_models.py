"""OpenAIModel against a real server on this machine."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest

from brain.errors import (
    AuthenticationFailed,
    BrainProtocolError,
    ConfigurationError,
    ContextOverflow,
    EndpointRefused,
    EndpointUnavailable,
    MissingKey,
    MissingRuntime,
    ModelError,
    ModelTimeout,
    PromptError,
    RateLimited,
    RequestRejected,
    UnknownModel,
)
from brain.events import ModelRequest, TokenUsage
from brain.models import OpenAIModel, model_from_name
from brain.prices import Price
from brain.testing import FakeEndpoint, Fault, call, reply
from brain.wire import retrying
from tests.asking import ADD, ask, question

PRICE = Price(input=2, output=8, cache_read="0.5")


both = pytest.mark.parametrize("transport", ["httpx", "aiohttp"])


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between tries, noted instead of waited."""
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(retrying, "pause", note)
    return noted


def model_at(endpoint: FakeEndpoint, **settings: Any) -> OpenAIModel:
    return OpenAIModel("gpt-4.1-mini", **{"base_url": endpoint.base_url, "api_key": endpoint.api_key, **settings})


@pytest.mark.parametrize("stream", [False, True])
async def test_text_is_answered_and_billed(stream: bool) -> None:
    usage = {"input": 1000, "output": 50, "cache_read": 400, "reasoning": 20}
    with FakeEndpoint([reply("It is two.", usage=usage)], require_key=True) as endpoint:
        async with model_at(endpoint, price=PRICE) as model:
            # A long prompt, so that a thousand tokens can be believed.
            asked = await ask(model, "one and one? " * 300, stream=stream)
        assert asked.text == "It is two."
        assert "".join(asked.pieces) == ("It is two." if stream else "")
        assert len(asked.pieces) == (3 if stream else 0)
        [attempt] = asked.attempts
        assert asked.response is not None
        assert asked.response.usage == attempt.usage == TokenUsage(1000, 50, 400, None, 20, "provider")
        assert attempt.cost.low == attempt.cost.high == (600 * 2 + 400 * Decimal("0.5") + 50 * 8) / Decimal(10**6)
        assert (attempt.outcome, attempt.status, attempt.endpoint) == ("ok", 200, endpoint.base_url.removesuffix("/v1"))
        [row] = endpoint.meter
        assert (row.input, row.output, row.cached, row.reasoning) == (1000, 50, 400, 20)
        [received] = endpoint.requests
        assert received.body["max_tokens"] == 4096
        assert received.body.get("stream_options") == ({"include_usage": True} if stream else None)


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_come_back_whole(stream: bool) -> None:
    calls = [call("add", a=1, b=1), call("add", a=2, b=3)]
    with FakeEndpoint([calls]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, stream=stream, tools=[ADD])
        assert asked.response is not None
        assert asked.response.tool_calls == tuple(calls)
        assert asked.response.finish_reason == "tool_calls"
        assert asked.response.text is None
        assert endpoint.requests[0].body["tools"] == [json.loads(json.dumps(ADD.to_wire()))]


async def test_an_output_schema_is_sent_strict_where_it_can_be() -> None:
    closed = {
        "type": "object",
        "properties": {"value": {"type": "integer"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, output_schema=closed, output_name="a sum")
            await ask(model, output_schema={**closed, "required": []})
        assert json.loads(asked.text or "") == {"value": 0}
        first, second = (received.body["response_format"]["json_schema"] for received in endpoint.requests)
        assert (first["strict"], first["name"], first["schema"]) == (True, "a_sum", closed)
        assert second["strict"] is False


async def test_the_lower_limit_on_output_holds() -> None:
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint, max_output_tokens=100) as model:
            await ask(model, max_output_tokens=7)
            await ask(model, max_output_tokens=1000)
        assert [received.body["max_tokens"] for received in endpoint.requests] == [7, 100]


@pytest.mark.parametrize(
    ("fault", "error", "outcome", "tries"),
    [
        (Fault.rejected(401, "invalid_api_key"), AuthenticationFailed, "authentication", 1),
        (Fault.rejected(403), AuthenticationFailed, "authentication", 1),
        (Fault.rejected(404, "model_not_found"), RequestRejected, "rejected", 1),
        (Fault.rejected(422), RequestRejected, "rejected", 1),
        (Fault.context_overflow(), ContextOverflow, "context_overflow", 1),
        (Fault.rejected(413), ContextOverflow, "context_overflow", 1),
        (Fault.rate_limited(), RateLimited, "rate_limited", 3),
        (Fault.server_error(500), EndpointUnavailable, "server_error", 3),
        (Fault.server_error(529), EndpointUnavailable, "server_error", 3),
        (Fault.server_error(501), EndpointUnavailable, "server_error", 1),
        (Fault.close(), EndpointUnavailable, "unreachable", 3),
        (Fault.malformed("not_json"), BrainProtocolError, "protocol", 1),
        (Fault.cut_stream(), BrainProtocolError, "stream_cut", 3),
    ],
)
async def test_errors_are_typed_and_every_try_is_counted(
    fault: Fault, error: type[ModelError], outcome: str, tries: int
) -> None:
    with FakeEndpoint(fault) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model)
        assert type(asked.error) is error
        assert isinstance(asked.error, ModelError)
        assert asked.error.wire_attempts == tuple(asked.attempts)
        assert asked.outcomes == [outcome] * tries
        assert len(endpoint.meter) == tries
        assert len({attempt.id for attempt in asked.attempts}) == tries
        message = str(asked.error)
        assert "gpt-4.1-mini" in message
        assert "\n" not in message
        assert asked.error.__context__ is None
        free = all(attempt.cost.status == "exact" and attempt.cost.low == 0 for attempt in asked.attempts)
        assert free == (outcome not in ("unreachable", "protocol", "stream_cut"))


async def test_the_meter_and_the_wire_attempts_agree() -> None:
    script: list[Any] = [
        Fault.server_error(503), "first", Fault.rate_limited(), Fault.close(), call("add", a=1), Fault.hang(), "third",
    ]  # fmt: skip
    with FakeEndpoint(script) as endpoint:
        async with model_at(endpoint, timeout=2) as model:
            rounds = [await ask(model), await ask(model, stream=True), await ask(model)]
        attempts = [attempt for asked in rounds for attempt in asked.attempts]
        assert [asked.error for asked in rounds] == [None, None, None]
        assert [attempt.status for attempt in attempts] == [row.status for row in endpoint.meter]
        stated = [attempt.usage for attempt in attempts if attempt.outcome == "ok"]
        assert sum(usage.input or 0 for usage in stated) == endpoint.meter.input
        assert sum(usage.output or 0 for usage in stated) == endpoint.meter.output


async def test_a_stream_cut_before_any_text_is_tried_again_and_after_it_is_not() -> None:
    with FakeEndpoint([Fault.cut_stream(0), "whole"]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, stream=True)
        assert asked.outcomes == ["stream_cut", "ok"]
        assert asked.text == "whole"
    with FakeEndpoint([Fault.cut_stream(2, reply("one two three four")), "whole"]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, stream=True)
        assert asked.outcomes == ["stream_cut"]
        assert asked.pieces == ["one"]
        assert isinstance(asked.error, BrainProtocolError)


async def test_length_in_the_middle_of_a_tool_call_names_the_limit() -> None:
    half = call("add", a=1)
    cut = reply(tool_calls=[type(half)(half.id, half.name, '{"a": ')], finish_reason="length")
    with FakeEndpoint([cut, reply("only te", finish_reason="length")]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, tools=[ADD])
            text = await ask(model)
    assert isinstance(asked.error, BrainProtocolError)
    assert "max_output_tokens" in str(asked.error)
    assert text.response is not None
    assert text.response.finish_reason == "length"


@both
async def test_cancelling_leaves_one_attempt_with_its_worst_cost(transport: Any) -> None:
    with FakeEndpoint(Fault.hang()) as endpoint:
        model = model_at(endpoint, transport=transport, price=PRICE, max_output_tokens=1000)
        attempts: list[Any] = []
        task = asyncio.create_task(model.ask(question(), on_attempt=attempts.append))
        await asyncio.to_thread(endpoint.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await model.aclose()
    [attempt] = attempts
    assert attempt.outcome == "cancelled"
    assert attempt.cost.status == "bounded"
    assert attempt.cost.low == 0
    assert attempt.cost.high >= Decimal(8 * 1000) / 10**6
    assert attempt.usage.source == "estimated"


async def test_what_on_text_raises_ends_the_ask_and_the_attempt_is_kept() -> None:
    def refuse(_: str) -> None:
        raise KeyError("reader gone")

    attempts: list[Any] = []
    with FakeEndpoint(["some text"]) as endpoint:
        async with model_at(endpoint) as model:
            with pytest.raises(KeyError, match="reader gone"):
                await model.ask(question(), on_attempt=attempts.append, on_text=refuse)
    assert [attempt.outcome for attempt in attempts] == ["cancelled"]


async def test_a_deadline_in_the_past_sends_nothing() -> None:
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, deadline=0.0)
        assert isinstance(asked.error, ModelTimeout)
        assert endpoint.requests == []
        assert asked.attempts == []


@both
async def test_many_at_once_share_one_model(transport: Any) -> None:
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint, transport=transport) as model:
            many = await asyncio.gather(*(ask(model, f"number {n}", stream=n % 2 == 0) for n in range(60)))
        assert [asked.text for asked in many] == [f"You said: number {n}" for n in range(60)]
        assert len(endpoint.meter) == 60


def test_an_empty_base_url_is_not_taken_for_none() -> None:
    with pytest.raises(EndpointRefused, match="base_url"):
        OpenAIModel("m", base_url="", api_key="key-of-another-place")


@both
def test_one_model_serves_several_loops_and_threads_and_drops_closed_ones(transport: Any) -> None:
    with FakeEndpoint() as endpoint:
        model = model_at(endpoint, transport=transport)
        texts: list[str | None] = []

        def work() -> None:
            texts.append(asyncio.run(ask(model)).text)

        for _ in range(2):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        asyncio.run(ask(model))
        assert texts == ["You said: What is one and one?"] * 8
        assert len(model._process().clients) == 1
        gc.collect()


@both
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_its_own_connections(transport: Any) -> None:
    with FakeEndpoint() as endpoint:
        model = model_at(endpoint, transport=transport)
        assert asyncio.run(ask(model)).text
        pid = os.fork()
        if pid == 0:  # the child tells by its exit code, and runs no test machinery on its way out
            code = 1
            try:
                code = 0 if asyncio.run(ask(model)).text == "You said: What is one and one?" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert asyncio.run(ask(model)).text


@both
async def test_closing_and_asking_again(transport: Any) -> None:
    with FakeEndpoint() as endpoint:
        model = model_at(endpoint, transport=transport)
        await ask(model)
        await model.aclose()
        assert model._process().clients == {}
        assert (await ask(model)).text
        await model.aclose()


async def test_the_environment_gives_base_url_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint(require_key=True, api_key="from-the-environment") as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
        async with model_from_name("openai:small") as model:
            assert (await ask(model)).text
        assert model.name == "openai:small"


async def test_an_endpoint_on_this_machine_needs_no_key() -> None:
    with FakeEndpoint() as endpoint:
        async with OpenAIModel("local", base_url=endpoint.base_url) as model:
            assert (await ask(model)).text


@both
async def test_organisation_and_proxies_of_the_environment_stay_at_home(
    monkeypatch: pytest.MonkeyPatch, transport: Any
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-private")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint, transport=transport) as model:
            assert (await ask(model)).text
        assert "private" not in repr(dict(endpoint.requests[0].headers))


def test_names_without_a_known_provider_say_what_to_write() -> None:
    with pytest.raises(UnknownModel, match='write "openai:gpt-4"'):
        model_from_name("gpt-4")
    with pytest.raises(UnknownModel, match="known are openai"):
        model_from_name("acme:gpt-4")
    with pytest.raises(UnknownModel):
        model_from_name("openai:")
    with pytest.raises(UnknownModel):
        OpenAIModel("")


def test_a_missing_key_says_what_to_set() -> None:
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        OpenAIModel("gpt-4.1-mini")
    with pytest.raises(MissingKey):
        OpenAIModel("gpt-4.1-mini", api_key="")


@pytest.mark.parametrize(
    "settings",
    [{"retries": -1}, {"retries": 1.5}, {"timeout": 0}, {"timeout": "1"}, {"max_output_tokens": 0}, {"price": 3}],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        OpenAIModel("m", api_key="sk-something", **settings)


@pytest.mark.parametrize("key", ["sk-a\r\nX-Evil: 1", "sk a", "sk-ü", "sk-\x00"])
def test_a_key_with_a_line_end_or_the_like_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(EndpointRefused) as caught:
        OpenAIModel("m", api_key=key)
    assert key not in str(caught.value)


async def test_half_characters_are_refused_before_anything_is_sent() -> None:
    with FakeEndpoint() as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model, "half \ud800 a character")
        assert isinstance(asked.error, PromptError)
        assert endpoint.requests == []


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(MissingRuntime, match="pip install brain-specialists"):
        await model.ask(question(), on_attempt=lambda _: None)


def test_copies_are_the_model_and_pickles_have_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", api_key="sk-secret-canary")
    assert copy.copy(model) is model
    assert copy.deepcopy(model) is model
    data = pickle.dumps(model)
    assert b"canary" not in data
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    again = pickle.loads(data)
    assert repr(again) == repr(model)


def test_constructing_imports_nothing_heavy() -> None:
    code = (
        "import sys, brain.models; brain.models.OpenAIModel('m', api_key='sk-something');"
        "print([n for n in ('openai', 'httpx2', 'numpy', 'rich', 'onnxruntime', 'genai_prices') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


async def test_images_have_no_bound_by_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = ModelRequest([{"role": "user", "content": [picture]}])
    attempts: list[Any] = []
    with FakeEndpoint([reply("a cat", usage={"input": 9000, "output": 3}), Fault.usage("missing")]) as endpoint:
        async with model_at(endpoint, price=PRICE) as model:
            await model.ask(request, on_attempt=attempts.append)
            await model.ask(request, on_attempt=attempts.append)
    assert [attempt.cost.status for attempt in attempts] == ["exact", "unpriced"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_place_of_an_answer_is_told_as_what_it_is(stream: bool) -> None:
    bodies: list[dict[str, Any]] = [
        {"error": {"message": "upstream is busy", "code": 429}},
        {"error": "something broke"},
        {
            "choices": [
                {"index": 0, "delta": {"content": "yes"}, "message": {"content": "yes"}, "finish_reason": "stop"}
            ]
        },
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(bodies.pop(0)).encode()
        body = b"data: " + body + b"\n\n" if stream else body
        kind = b"text/event-stream" if stream else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1") as model:
        asked = await ask(model, stream=stream)
    assert asked.outcomes == ["rate_limited", "server_error", "ok"]
    assert asked.text == "yes"
    assert "upstream is busy" in (asked.attempts[0].reason or "")
    assert [attempt.cost.status for attempt in asked.attempts] == ["unpriced"] * 3


async def test_an_endpoint_that_does_not_stream_is_understood() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(
            {"model": "m", "choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]}
        ).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1") as model:
        asked = await ask(model, stream=True)
    assert asked.text == "whole"
    assert asked.pieces == ["whole"]
