"""Promises under faults, where an endpoint is at fault: each test is named by its row, and counts rather than times.

The guards on time (``wait_for``) only turn a hang into a failure.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import resource
import socket
import ssl
import sys
import time
import traceback
import tracemalloc
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from brain.errors import (
    AuthenticationFailed,
    BrainError,
    BrainProtocolError,
    EndpointRefused,
    EndpointUnavailable,
    ModelTimeout,
    RateLimited,
    RequestRejected,
)
from brain.models import OpenAIModel
from brain.prices import Price
from brain.testing import FakeEndpoint, Fault, call, reply
from brain.wire import endpoints, retrying
from tests.asking import ADD, Asked, ask

CANARY = "sk-canary-7Zq9'4x\"Lm2"
PRICE = Price(2, 8)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between tries, noted instead of waited."""
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(retrying, "pause", note)
    return noted


@pytest.fixture(autouse=True, params=["httpx", "aiohttp"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every promise here is kept by both transports: what is not told which one takes this one."""
    kind: str = request.param
    monkeypatch.setattr("brain.models.default_transport", lambda: kind)
    return kind


def model_at(endpoint: FakeEndpoint, **settings: Any) -> OpenAIModel:
    return OpenAIModel("m", **{"base_url": endpoint.base_url, "api_key": "sk-something", "price": PRICE, **settings})


async def guarded(asking: Any, seconds: float = 60) -> Asked:
    asked: Asked = await asyncio.wait_for(asking, seconds)
    return asked


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# 13: connection refused, DNS failure, TLS error


async def test_13_refused_connections_are_retried_within_the_budget_and_then_broken_off(
    pauses: list[float],
) -> None:
    model = OpenAIModel("m", base_url=f"http://127.0.0.1:{closed_port()}/v1", retries=2)
    rounds = [await guarded(ask(model)) for _ in range(7)]
    assert all(type(asked.error) is EndpointUnavailable for asked in rounds)
    # Five asks of three tries at most; then the breaker is open and nothing is tried.
    assert [len(asked.attempts) for asked in rounds[:4]] == [3, 3, 3, 3]
    assert [len(asked.attempts) for asked in rounds[5:]] == [0, 0]
    assert model.breaker == "open"
    attempts = [attempt for asked in rounds for attempt in asked.attempts]
    assert {attempt.outcome for attempt in attempts} == {"unreachable"}
    assert all(attempt.cost.status == "exact" and attempt.cost.high == 0 for attempt in attempts)
    assert len(pauses) == len(attempts) - 5


async def test_13_the_breaker_lets_one_through_when_it_has_rested(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    down = [True]
    with FakeEndpoint(lambda _: Fault.server_error(503) if down[0] else "back again") as endpoint:
        model = model_at(endpoint, retries=0)
        for _ in range(8):
            await ask(model)
        assert len(endpoint.meter) == 5
        down[0] = False
        later = time.monotonic() + 11
        monkeypatch.setattr(model._process().breaker, "_clock", lambda: later)
        assert (await ask(model)).text == "back again"
        assert model.breaker == "closed"
        assert len(endpoint.meter) == 6
        await model.aclose()


async def test_13_a_name_that_is_not_known(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(endpoints, "resolver", unknown)
    model = OpenAIModel("m", base_url="https://models.example.com/v1", api_key="sk-something")
    asked = await guarded(ask(model))
    assert isinstance(asked.error, EndpointUnavailable)
    assert "models.example.com cannot be resolved" in str(asked.error)
    assert asked.outcomes == ["unreachable"] * 3


async def test_13_a_certificate_nobody_signed(pauses: list[float]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    reached: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        model = OpenAIModel("m", base_url=f"https://127.0.0.1:{port}/v1", api_key=CANARY)
        asked = await guarded(ask(model))
        await model.aclose()
    assert isinstance(asked.error, EndpointUnavailable)
    assert "certificate" in str(asked.error).lower()
    assert len(asked.attempts) == 3
    assert not any(reached)  # the key never left


async def test_13_all_tries_end_within_the_deadline() -> None:
    with FakeEndpoint(Fault.server_error(503)) as endpoint:
        async with model_at(endpoint, retries=50) as model:
            asked = await guarded(ask(model, deadline=time.monotonic() + 0.2))
    assert isinstance(asked.error, EndpointUnavailable | ModelTimeout)  # the second where the machine is slow
    assert len(asked.attempts) <= 3  # the first wait or two is longer than what is left


# 14: 429 with Retry-After


async def test_14_a_retry_after_of_a_second_is_kept(pauses: list[float]) -> None:
    with FakeEndpoint([Fault.rate_limited(1), "after a rest"]) as endpoint:
        async with model_at(endpoint) as model:
            asked = await ask(model)
    assert asked.text == "after a rest"
    assert asked.outcomes == ["rate_limited", "ok"]
    assert 1.0 <= pauses[0] < 2.0


async def test_14_a_retry_after_of_an_hour_is_given_up_at_once(pauses: list[float]) -> None:
    for header in (3600, formatdate(time.time() + 3600, usegmt=True)):
        with FakeEndpoint(Fault.rate_limited(header)) as endpoint:
            async with model_at(endpoint) as model:
                asked = await ask(model, deadline=time.monotonic() + 30)
            assert isinstance(asked.error, RateLimited)
            assert asked.error.retry_after == pytest.approx(3600, abs=5)
            assert len(endpoint.meter) == 1
    assert pauses == []


async def test_14_a_retry_after_that_is_garbage_is_ignored(pauses: list[float]) -> None:
    for header in ("soon", "-5", "NaN", "1; DROP TABLE", "9" * 400, ""):
        with FakeEndpoint([Fault.rate_limited(header), "yes"]) as endpoint:
            async with model_at(endpoint) as model:
                assert (await ask(model)).text == "yes"
    assert all(seconds < 1 for seconds in pauses)


# 15: storms


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_15_a_storm_is_not_answered_with_a_storm(
    status: int, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = 100
    with FakeEndpoint(Fault.server_error(status)) as endpoint:
        async with model_at(endpoint, retries=5) as model:
            # The breaker out of the way: the budget of retries must hold alone.
            monkeypatch.setattr(model._process().breaker, "_threshold", 10**9)
            for _ in range(offered // 10):
                await asyncio.gather(*(ask(model) for _ in range(10)))
        assert offered < len(endpoint.meter) <= 1.2 * offered + 10


# 16: silence, a trickle, a stall


@pytest.mark.parametrize("stream", [False, True])
async def test_16_silence_ends_in_a_timeout(stream: bool, pauses: list[float]) -> None:
    with FakeEndpoint(Fault.hang()) as endpoint:
        async with model_at(endpoint, timeout=0.3, retries=1) as model:
            asked = await guarded(ask(model, stream=stream))
        assert isinstance(asked.error, ModelTimeout)
        assert asked.outcomes == ["timeout", "timeout"]
        assert len(endpoint.meter) == 2
    for attempt in asked.attempts:
        assert attempt.cost.status == "bounded"
        assert attempt.cost.low == 0
        assert attempt.usage.source == "estimated"


@pytest.mark.parametrize("stream", [False, True])
async def test_16_a_trickle_is_cut_by_the_total_timeout(stream: bool) -> None:
    with FakeEndpoint(Fault.trickle(20)) as endpoint:
        async with model_at(endpoint, timeout=1.5) as model:
            asked = await guarded(ask(model, stream=stream))
        assert isinstance(asked.error, ModelTimeout)
        assert asked.outcomes == ["timeout"]  # bytes had come: not tried again
        assert len(endpoint.meter) == 1


@pytest.mark.parametrize("kind", ["stall", "cut_stream"])
async def test_16_half_a_tool_call_is_never_returned(
    kind: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.wire.exchange.IDLE_SECONDS", 0.3)
    answer = reply(tool_calls=[call("add", a=1, b=2), call("add", a=3, b=4)])
    for chunks in range(1, 6):
        fault = getattr(Fault, kind)(chunks, answer)
        with FakeEndpoint(fault) as endpoint:
            async with model_at(endpoint, timeout=20, retries=0) as model:
                asked = await guarded(ask(model, stream=True, tools=[ADD]), 15)
        assert asked.response is None, chunks
        assert isinstance(asked.error, ModelTimeout if kind == "stall" else BrainProtocolError)
        assert asked.outcomes == ["timeout" if kind == "stall" else "stream_cut"]


async def test_16_the_idle_timeout_is_shorter_than_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain.wire.exchange.IDLE_SECONDS", 1.0)
    with FakeEndpoint(Fault.stall(2, reply("one two three"))) as endpoint:
        async with model_at(endpoint, timeout=600) as model:
            asked = await guarded(ask(model, stream=True), 30)
    assert isinstance(asked.error, ModelTimeout)
    assert asked.pieces == ["one"]


# 17: bodies that are no chat completions

MALFORMED: list[Any] = [
    "truncated", "invalid_utf8", "duplicate_keys", "nan", "deep_nesting", "many_tool_calls", "wrong_types", "not_json",
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", MALFORMED)
async def test_17_malformed_bodies(kind: Any, stream: bool) -> None:
    with FakeEndpoint(Fault.malformed(kind)) as endpoint:
        async with model_at(endpoint) as model:
            asked = await guarded(ask(model, stream=stream))
        assert type(asked.error) is BrainProtocolError
        assert asked.outcomes == ["protocol"]
        assert len(endpoint.meter) == 1
    assert asked.attempts[0].cost.status == "bounded"


@pytest.mark.parametrize("stream", [False, True])
async def test_17_fifty_megabytes_are_not_read(stream: bool) -> None:
    with FakeEndpoint(Fault.enormous(50)) as endpoint:
        async with model_at(endpoint) as model:
            await ask(model)  # what is made once is made before the counting
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            tracemalloc.start()
            asked = await guarded(ask(model, stream=stream))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert type(asked.error) is BrainProtocolError
    assert asked.outcomes == ["protocol"]
    assert peak < 40 * 2**20
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kilobytes


RAW: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "no choices": b'{"choices": []}',
    "choice is text": b'{"choices": ["hello"]}',
    "lone surrogate": b'{"choices": [{"message": {"content": "\\ud800"}, "delta": {"content": "\\ud800"}}]}',
    "huge number": b'{"x": 1e999, "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}',
    "endless digits": b'{"x": ' + b"9" * 10_000 + b"}",
    "seven megabytes of lists": b'{"x": [' + b"[]," * 2_300_000 + b"[]]}",
    "seven megabytes of strings": b'{"x": [' + b'"",' * 2_300_000 + b'""]}',
    "seven megabytes of quotes": b'"' * 7_000_000,
    "open string": b'{"x": "' + b"\\" * 7_000_000,
    "brackets": b"[" * 7_000_000,
    "call without a name": b'{"choices": [{"message": {"tool_calls": [{"id": "1", "function": {}}]}}]}',
    "arguments not text": b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}}]}',
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("stream", [False, True])
async def test_17_raw_bodies_within_memory(name: str, stream: bool) -> None:
    body = b"data: " + RAW[name] + b"\n\n" if stream else RAW[name]
    kind = b"text/event-stream" if stream else b"application/json"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)))
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1", retries=0) as model:
        await ask(model)
        tracemalloc.start()
        asked = await guarded(ask(model, stream=stream))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert type(asked.error) is BrainProtocolError
    assert len(asked.attempts) == 1
    assert peak < 64 * 2**20  # of which the body, sent from this very process, has its share


async def test_17_a_compressed_answer_is_not_unpacked() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"accept-encoding: identity" in head.lower()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1") as model:
        asked = await guarded(ask(model))
    assert type(asked.error) is BrainProtocolError


async def test_17_no_http_at_all() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1") as model:
        asked = await guarded(ask(model))
    assert type(asked.error) is BrainProtocolError


# 20: usage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["missing", "zero", "negative", "absurd"])
async def test_20_usage_that_cannot_be_is_estimated_and_flagged(kind: Any, stream: bool) -> None:
    with FakeEndpoint([Fault.usage(kind), "an honest answer"]) as endpoint:
        async with model_at(endpoint, max_output_tokens=500) as model:
            wrong, honest = await ask(model, stream=stream), await ask(model, stream=stream)
        [attempt] = wrong.attempts
        assert wrong.response is not None
        assert wrong.response.usage == attempt.usage
        assert attempt.usage.source == "estimated"
        assert attempt.outcome == "ok"
        true = endpoint.meter[0]
        assert (attempt.usage.input or 0) >= true.input
        assert (attempt.usage.output or 0) >= true.output
        assert attempt.cost.low == 0  # a budget cannot go up
        assert attempt.cost.high is not None
        assert Decimal(2 * true.input + 8 * true.output) / 10**6 <= attempt.cost.high < 1
        assert honest.attempts[0].usage.source == "provider"
        assert honest.attempts[0].cost.status == "exact"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10},
        {"prompt_tokens": "10", "completion_tokens": 5},
        {"prompt_tokens": 10.0, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": 100_000, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 5000},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}},
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6}},
        "lots",
        [],
    ],
)
def test_20_what_is_not_believed(usage: Any) -> None:
    from brain.wire.parsing import read_usage

    assert read_usage(usage, input_limit=1000, output_limit=100) is None


# 37: the key, here the endpoint's part


async def test_37_the_key_is_in_nothing_that_is_written(
    caplog: pytest.LogCaptureFixture, pauses: list[float], transport: str
) -> None:
    faults: list[Any] = [
        Fault.echo_key(400), Fault.echo_key(401), Fault.echo_key(429), Fault.echo_key(500), Fault.echo_key(418),
        Fault.rejected(400, CANARY, f"the key {CANARY} is no good"), Fault.hang(), Fault.close(), Fault.cut_stream(),
        Fault.malformed("duplicate_keys"), Fault.redirect(f"https://example.com/{CANARY}"),
        reply("fine", model=CANARY),
    ]  # fmt: skip
    written: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for fault in faults:
            for stream in (False, True):
                with FakeEndpoint(fault, api_key=CANARY) as endpoint:
                    model = OpenAIModel("m", base_url=endpoint.base_url, api_key=CANARY, timeout=1, retries=0)
                    asked = await guarded(ask(model, f"my key is {CANARY}", stream=stream))
                    assert endpoint.requests[0].headers["authorization"] == f"Bearer {CANARY}"
                    await model.aclose()
                written += [repr(model), repr(model.__dict__), repr(asked.attempts), repr(asked.response)]
                written += [repr(pickle.dumps(model)), *(repr(attempt.to_json()) for attempt in asked.attempts)]
                if asked.error is not None:
                    error = asked.error
                    written += ["".join(traceback.format_exception(error)), str(error), repr(error)]
                    written += [repr(error.__dict__), repr(pickle.dumps(error))]
                    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
                    written += list(shown.format())
    written += [record.getMessage() for record in caplog.records]
    written += [caplog.text]
    assert transport == "aiohttp" or any("httpcore2" in record.name for record in caplog.records)
    forms = (CANARY, repr(CANARY)[1:-1], CANARY.replace('"', '\\"'), CANARY.replace("'", "\\'"))
    for text in written:
        # The prompt with the key in it belongs to the caller, and a traceback with locals shows it to the caller.
        text = text.replace(f"my key is {CANARY}", "").replace(f"my key is {repr(CANARY)[1:-1]}", "")
        assert not any(form in text for form in forms), text[:500]


def test_37_no_prompt_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), FakeEndpoint([Fault.rejected(400), "fine"]) as endpoint:
        for _ in range(2):
            asyncio.run(ask(model_at(endpoint), "a private question"))
    assert "a private question" not in caplog.text
    assert any(record.name == "brain.models" for record in caplog.records)


# 38: where a key is never sent (the URLs themselves are in tests/brain/test_endpoints.py)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
async def test_38_a_redirect_is_refused_and_the_target_never_asked(status: int, stream: bool) -> None:
    with FakeEndpoint() as target, FakeEndpoint(Fault.redirect(f"{target.base_url}/chat/completions", status)) as first:
        async with model_at(first, api_key=CANARY) as model:
            asked = await guarded(ask(model, stream=stream))
        assert isinstance(asked.error, EndpointRefused)
        assert asked.outcomes == ["rejected"]
        assert len(first.meter) == 1
        assert target.requests == []


async def test_38_a_name_that_leads_to_this_machine_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint() as inside:
        port = int(inside.base_url.split(":")[2].split("/")[0])
        for address in ("127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0"):

            async def fake(host: str, port: int, address: str = address) -> list[str]:
                return ["93.184.215.14", address]

            monkeypatch.setattr(endpoints, "resolver", fake)
            model = OpenAIModel("m", base_url=f"https://models.example.com:{port}/v1", api_key=CANARY)
            asked = await guarded(ask(model))
            assert isinstance(asked.error, EndpointRefused)
            assert len(asked.attempts) == 1
            assert asked.attempts[0].cost.high == 0
        assert inside.requests == []


async def test_38_dns_rebinding(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    answers = [["93.184.215.14"], ["10.0.0.7"]]
    dialled: list[str] = []

    async def fake(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async def connect(self: Any, sock: socket.socket, address: Any) -> None:
        dialled.append(address[0])
        raise OSError("no network in this test")

    monkeypatch.setattr(endpoints, "resolver", fake)
    monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop.sock_connect", connect)
    model = OpenAIModel("m", base_url="https://models.example.com/v1", api_key=CANARY)
    asked = await guarded(ask(model))
    assert isinstance(asked.error, EndpointRefused)
    assert "rebinding" in str(asked.error)
    assert dialled == ["93.184.215.14"]  # the checked address itself, and never the private one


async def test_38_a_key_cannot_smuggle_a_header() -> None:
    for key in ("sk-a\r\nX-Evil: 1", "sk-a\nb", "sk-\x00"):
        with pytest.raises(EndpointRefused):
            OpenAIModel("m", api_key=key)
    with pytest.raises(EndpointRefused):
        OpenAIModel("m\r\nX-Evil: 1", api_key="sk-something")


async def test_38_an_endpoints_error_text_is_kept_to_one_printable_line() -> None:
    message = "bad\r\n\x1b[31mred\x07 " + "x" * 5000
    with FakeEndpoint([Fault.rejected(400, message=message), Fault.rejected(401, message=message)]) as endpoint:
        async with model_at(endpoint) as model:
            for kind in (RequestRejected, AuthenticationFailed):
                asked = await ask(model)
                assert type(asked.error) is kind
                assert isinstance(asked.error, BrainError)
                assert str(asked.error).isprintable()
                assert len(str(asked.error)) < 600
