"""A real HTTP server on this machine that speaks chat completions, with faults to order and a meter of its own.

It runs on its own thread and event loop, so that a client that blocks, hangs or is cancelled never blocks it. What it
puts on the wire is built in :mod:`brain.testing.chat`; this module knows HTTP and nothing of models.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel

from ..events import ToolCall
from .chat import answer_body, answer_events, echo, error_body, malformed_body, true_usage
from .replies import Fault, Reply, reply

__all__ = ["FakeEndpoint", "Meter", "Metered", "Received"]

Said: TypeAlias = str | ToolCall | Reply | Fault | Sequence[ToolCall] | Mapping[str, Any] | BaseModel
Replies: TypeAlias = Said | Iterable[Said] | Callable[[dict[str, Any]], Any]


@runtime_checkable
class Replier(Protocol):
    """What answers for a whole endpoint."""

    def reply(self, body: dict[str, Any]) -> Reply | Fault:
        """The reply to one chat-completions request."""


MAX_REQUEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One chat-completions request as it came in. Headers (lower-case names) hold the key and stay out of the repr."""

    body: dict[str, Any]
    headers: Mapping[str, str] = field(repr=False)
    path: str = "/v1/chat/completions"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The body's messages."""
        return list(self.body.get("messages", ()))


@dataclass(frozen=True, slots=True)
class Metered:
    """What the endpoint served for one request, and would bill. Errors and hanging requests bill nothing."""

    model: str
    status: int | None
    """``None`` when no answer was begun."""
    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    fault: str | None = None
    streamed: bool = False


class Meter(list[Metered]):
    """One row for each request, in order, and their sums."""

    @property
    def input(self) -> int:
        """Input tokens served."""
        return sum(row.input for row in self)

    @property
    def output(self) -> int:
        """Output tokens served, reasoning included."""
        return sum(row.output for row in self)

    @property
    def cached(self) -> int:
        """Input tokens read from the cache."""
        return sum(row.cached for row in self)

    @property
    def reasoning(self) -> int:
        """Output tokens spent on reasoning."""
        return sum(row.reasoning for row in self)


class FakeEndpoint:
    """A chat-completions server at ``base_url``, used as a context manager, plain or async.

    ``replies``: a list is used up in order, and after it comes the echo; a single reply is given every time; a function
    of the request's body is asked each time; nothing at all is the echo, which repeats the last user message (as an
    object of the asked schema where there is one). A reply is text, tool calls (:func:`brain.testing.call`), a
    dictionary or pydantic object (given as JSON text), a :func:`brain.testing.reply` or a
    :class:`brain.testing.Fault`. A :class:`brain.testing.SimulatedModel`, or anything else with a method ``reply`` of
    the request's body, answers as that method says. With ``require_key`` other keys get 401.
    ``latency``: seconds before every answer. ``requests`` is what came in; ``meter`` what was served.
    """

    def __init__(
        self,
        replies: Replies | Replier | None = None,
        *,
        api_key: str = "fake-endpoint-key",
        require_key: bool = False,
        models: Sequence[str] = ("fake-model",),
        latency: float = 0.0,
    ) -> None:
        self.api_key = api_key
        self.requests: list[Received] = []
        self.meter = Meter()
        self._require_key = require_key
        self._models = tuple(models)
        self._latency = latency
        self._always: Any = None
        self._script: list[Any] = []
        if callable(replies) or isinstance(replies, (str, ToolCall, Reply, Fault, Mapping, BaseModel)):
            self._always = replies
        elif isinstance(replies, Replier):
            self._always = replies.reply
        elif replies is not None:
            self._script = list(replies)
        self._port: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = threading.Condition()

    @property
    def base_url(self) -> str:
        """For ``base_url=`` or ``OPENAI_BASE_URL``; ends in ``/v1``. Raises ``RuntimeError`` before the start."""
        if self._port is None:
            raise RuntimeError("the endpoint is not running; use it as `with FakeEndpoint() as endpoint:`")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def unused(self) -> list[Any]:
        """Replies of the list that nobody has asked for yet."""
        return list(self._script)

    def start(self) -> FakeEndpoint:
        """Listen on a free port of 127.0.0.1. A context manager does this by itself."""
        if self._thread is not None:
            raise RuntimeError("the endpoint is running already")
        ready = threading.Event()
        problem: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(ready))
            except BaseException as error:
                problem.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name="fake-endpoint", daemon=True)
        self._thread.start()
        ready.wait()
        if problem:
            self._thread = None
            raise RuntimeError("the endpoint could not start") from problem[0]
        return self

    def close(self) -> None:
        """Stop, dropping every connection, also those that hang."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._port = None

    def wait_for(self, requests: int = 1, timeout: float = 30.0) -> None:
        """Block until so many requests have come in; ``TimeoutError`` after ``timeout`` seconds.

        For tests that cancel or close at a known moment; inside a coroutine use ``asyncio.to_thread``.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= requests, timeout):
                raise TimeoutError(f"{len(self.requests)} of {requests} requests came in {timeout} s")

    def __enter__(self) -> FakeEndpoint:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> FakeEndpoint:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        where = "not running" if self._port is None else self.base_url
        return f"FakeEndpoint({where}, {len(self.requests)} requests)"

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024, limit=1024 * 1024)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, _Out(writer)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has gone, sent no HTTP, or the endpoint closes: the end of this connection only
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(Exception):
                writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, out: _Out) -> bool:
        """One request and its answer; whether the connection can be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, _, rest = head[0].partition(" ")
        path = rest.rpartition(" ")[0].partition("?")[0]
        headers = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in head[1:])
            if colon
        }
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_REQUEST:
            return await out.json(413, error_body("The request is too large.", "too_large"))
        raw = await reader.readexactly(int(length))
        if path.rstrip("/").endswith("/models") and method == "GET":
            rows = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self._models]
            return await out.json(200, {"object": "list", "data": rows})
        if method != "POST" or not path.endswith("/chat/completions"):
            return await out.json(404, error_body(f"There is no {method} {path} here.", "not_found"))
        try:
            body = json.loads(raw)
            if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
                raise ValueError
        except ValueError:
            return await out.json(400, error_body("The body is not a chat-completions request.", "invalid_request"))
        with self._arrived:
            self.requests.append(Received(body, headers, path))
            self._arrived.notify_all()
        if self._require_key and headers.get("authorization") != f"Bearer {self.api_key}":
            self.meter.append(Metered(str(body.get("model")), 401))
            return await out.json(401, error_body("Incorrect API key provided.", "invalid_api_key"))
        try:
            said = await self._next(body)
        except Exception as error:  # the test's own function; a client that hangs would hide what went wrong
            self.meter.append(Metered(str(body.get("model")), 400, fault="reply_failed"))
            message = f"The reply function raised {type(error).__name__}: {error}"
            return await out.json(400, error_body(message, "reply_failed"))
        if self._latency:
            await asyncio.sleep(self._latency)
        return await self._say(said, body, headers, out)

    async def _next(self, body: dict[str, Any]) -> Reply | Fault:
        said = self._script.pop(0) if self._script else self._always
        if callable(said):
            said = said(body)
            if inspect.isawaitable(said):
                said = await _awaited(said)
        if said is None:
            return echo(body)
        if isinstance(said, str):
            return reply(said)
        if isinstance(said, (Reply, Fault)):
            return said
        if isinstance(said, BaseModel):
            return reply(said.model_dump_json())
        if isinstance(said, Mapping):
            return reply(json.dumps(dict(said), ensure_ascii=False))
        return reply(tool_calls=said)

    async def _say(self, said: Reply | Fault, body: dict[str, Any], headers: Mapping[str, str], out: _Out) -> bool:
        fault = said if isinstance(said, Fault) else None
        answer = said if isinstance(said, Reply) else (said.answer or echo(body))
        streamed = body.get("stream") is True
        model = str(body.get("model"))
        usage = true_usage(answer, body)
        status = fault.status if fault is not None else 200
        if status == 200:
            row = Metered(
                model,
                200,
                usage["prompt_tokens"],
                usage["completion_tokens"],
                usage["prompt_tokens_details"]["cached_tokens"],
                usage["completion_tokens_details"]["reasoning_tokens"],
                fault.kind if fault is not None else None,
                streamed,
            )
        else:
            row = Metered(model, status, fault=fault.kind if fault is not None else None, streamed=streamed)
        self.meter.append(row)
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if fault is None or fault.kind in ("usage", "trickle", "cut_stream", "stall"):
            return await _answer(answer, fault, body, usage, out)
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "close":
            return False
        if fault.kind == "malformed":
            raw = malformed_body(str(fault.code), streamed)
            return await out.whole(200, raw, "text/event-stream" if streamed else "application/json")
        if fault.kind == "enormous":
            return await out.enormous(int(fault.amount * 1024 * 1024), streamed)
        extra = dict(fault.headers)
        message = fault.message
        if fault.kind == "echo_key":
            key = headers.get("authorization", "").removeprefix("Bearer ")
            extra, message = {"X-Your-Key": key, "X-Request-Id": key}, f"Incorrect API key provided: {key}."
        return await out.json(status or 500, error_body(message, fault.code or fault.kind), extra)


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


async def _answer(answer: Reply, fault: Fault | None, body: dict[str, Any], usage: dict[str, Any], out: _Out) -> bool:
    kind = fault.kind if fault is not None else None
    stated = usage if fault is None or kind != "usage" else _wrong_usage(str(fault.code), usage)
    if body.get("stream") is True:
        pieces = answer_events(answer, body, stated)
        await out.begin(200, "text/event-stream", None)
    else:
        raw = json.dumps(answer_body(answer, body, stated), ensure_ascii=False).encode()
        pieces = [raw]
        if kind in ("cut_stream", "stall"):
            pieces = [raw[: len(raw) // 2], raw[len(raw) // 2 :]]
        await out.begin(200, "application/json", len(raw))
    last: float | None = None
    if fault is not None and kind in ("cut_stream", "stall"):
        last = min(int(fault.amount), len(pieces) - 1) if len(pieces) > 2 else 1
    for number, piece in enumerate(pieces):
        if number == last:
            if kind == "stall":
                await asyncio.Event().wait()
            out.hang_up()
            return False
        if kind == "trickle" and fault is not None:
            for index in range(len(piece)):
                await out.piece(piece[index : index + 1])
                await asyncio.sleep(1 / fault.amount)
        else:
            await out.piece(piece)
    return await out.end()


def _wrong_usage(kind: str, usage: dict[str, Any]) -> dict[str, Any] | None:
    if kind == "missing":
        return None
    counts = {"zero": (0, 0), "negative": (-5, -7), "absurd": (10**15, 10**15)}[kind]
    return {**usage, "prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}


class _Out:
    """The answering side of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._chunked = False

    async def begin(self, status: int, kind: str, length: int | None, extra: Mapping[str, str] | None = None) -> None:
        self._chunked = length is None
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}", f"Content-Type: {kind}"]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        await self._writer.drain()

    async def piece(self, raw: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(raw), raw) if self._chunked else raw)
        await self._writer.drain()

    async def end(self) -> bool:
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    async def whole(self, status: int, raw: bytes, kind: str, extra: Mapping[str, str] | None = None) -> bool:
        await self.begin(status, kind, len(raw), extra)
        await self.piece(raw)
        return await self.end()

    async def json(self, status: int, body: Any, extra: Mapping[str, str] | None = None) -> bool:
        return await self.whole(status, json.dumps(body).encode(), "application/json", extra)

    async def enormous(self, size: int, streamed: bool) -> bool:
        start = b'{"id":"x","object":"chat.completion","model":"fake-model","choices":[{"index":0,"message":'
        start += b'{"role":"assistant","content":"'
        if streamed:
            start = b'data: {"choices":[{"index":0,"delta":{"content":"'
        finish = b'"},"finish_reason":"stop"}]}' + (b"\n\ndata: [DONE]\n\n" if streamed else b"")
        await self.begin(200, "text/event-stream" if streamed else "application/json", len(start) + size + len(finish))
        await self.piece(start)
        block = b"a" * 65536
        for _ in range(size // len(block)):
            await self.piece(block)
        await self.piece(b"a" * (size % len(block)))
        await self.piece(finish)
        return await self.end()

    def hang_up(self) -> None:
        """Close so that what was written still arrives."""
        self._writer.write_eof()


_PHRASES = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
_PHRASES |= {413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error"}
