"""The guarded way to an endpoint: one origin, no proxy, no redirect, no cookie, answers bounded and not compressed.

:class:`GuardedClient` is the HTTP client that the official client is given. What it sends through is one of two
transports, each of which connects to checked addresses only: :mod:`.pooled` (httpx2's own machinery) and
:mod:`.fast` (aiohttp, where it is installed). Importing this module imports ``httpx2``; only :mod:`brain.models` does
so, and only when a request is about to leave. It knows nothing of chat completions, retries or prices. Errors of the
network come out as ``httpcore2`` names them, from either transport: they carry no request, and so no key.

Proxies in the environment are not used: a key would go through a machine that the application never named. Certificate
settings in the environment (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import httpcore2
import httpx2

from ..errors import EndpointRefused
from .endpoints import Endpoint
from .flight import Answer, Flight, Sender, flight

__all__ = ["AnswerTooLarge", "GuardedClient", "RefusedEncoding", "make_client"]

ERROR_BODY_BYTES = 64 * 1024
"""Read of an error's body, in bytes; the rest is cut off, an error's message stands at its beginning."""


class AnswerTooLarge(Exception):
    """The answer is longer than allowed."""


class RefusedEncoding(Exception):
    """The answer is compressed, though it was not to be: a few bytes could unpack to gigabytes."""


async def _pieces(answer: Answer, seen: Flight) -> AsyncIterator[bytes]:
    """An answer's body, counted. Of an error's body the beginning is enough; any other is refused when too long."""
    cut = answer.status >= 300
    limit = ERROR_BODY_BYTES if cut else seen.limit
    total = 0
    async for piece in answer.pieces():
        total += len(piece)
        seen.received = total
        if total > limit:
            if not cut:
                raise AnswerTooLarge(f"the answer is longer than {limit:,} bytes")
            yield piece[: len(piece) - (total - limit)]
            return
        yield piece


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: Answer, seen: Flight) -> None:
        self._answer = answer
        self._seen = seen

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _pieces(self._answer, self._seen)

    async def aclose(self) -> None:
        await self._answer.close()


class _Whole(httpx2.Response):
    """An answer that was read to its end: nothing is left to be streamed, unpacked or closed."""

    def __init__(self, status: int, headers: httpx2.Headers, content: bytes, request: httpx2.Request) -> None:
        super().__init__(status, headers=headers, stream=_NOTHING, request=request)
        self.is_closed = self.is_stream_consumed = True
        self._whole = content

    @property
    def content(self) -> bytes:
        return self._whole

    async def aread(self) -> bytes:
        return self._whole


_NOTHING = httpx2.ByteStream(b"")


class GuardedClient(httpx2.AsyncClient):
    """Sends to one origin, and nothing but what it was given: no redirect is followed, no cookie kept, no proxy used.

    ``timeout``, here and in what is sent, is not kept by this class: whoever asks has one clock for the whole exchange.
    """

    def __init__(self, endpoint: Endpoint, sender: Sender) -> None:
        super().__init__(transport=_Refusing(), timeout=None, follow_redirects=False, trust_env=False)
        self._endpoint = endpoint
        self._sender = sender
        self._checked: tuple[str, httpx2.URL] | None = None
        self._written: tuple[Any, httpx2.Headers] | None = None

    def build_request(
        self, method: str, url: httpx2.URL | str, *, content: Any = None, headers: Any = None, **more: Any
    ) -> httpx2.Request:
        """The request as it leaves. Raises :class:`EndpointRefused` when it is for another origin."""
        if any(value is not None for name, value in more.items() if name not in ("timeout", "extensions")):
            raise TypeError(f"only content and headers are sent, not {', '.join(more)}")
        known = self._checked
        if known is None or known[0] != url:
            known = self._checked = (str(url), self._check(httpx2.URL(url)))
        # From one request to the next the headers are the same; with their encoding said, none is decoded to find it.
        same = self._written
        if same is None or same[0] != headers:
            same = self._written = (headers, httpx2.Headers(headers, encoding="ascii"))
        request = httpx2.Request(method, known[1], headers=same[1], stream=httpx2.ByteStream(content or b""))
        request.headers.encoding = "ascii"
        under_way = flight.get()
        key = None if under_way is None else under_way.idempotency_key
        request.extensions = {"body": content or b"", "headers": same[1], "idempotency_key": key}
        return request

    def _check(self, url: httpx2.URL) -> httpx2.URL:
        if (url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)) != (
            self._endpoint.scheme,
            self._endpoint.host,
            self._endpoint.port,
        ):
            raise EndpointRefused(f"a request to another origin than {self._endpoint.origin} was refused.")
        return url

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_: Any) -> httpx2.Response:
        """Send; with ``stream`` the body is left to be read. Raises what ``httpcore2`` would."""
        if self._checked is None or request.url is not self._checked[1]:
            self._check(request.url)
        seen = flight.get() or Flight(ERROR_BODY_BYTES)
        answer = await self._sender.send(request)
        try:
            seen.status = answer.status
            seen.retry_after = answer.retry_after
            if answer.status < 300 and answer.encoding not in ("", "identity"):
                raise RefusedEncoding("the answer is compressed, which was not asked for")
            # Only what is read: other headers are the endpoint's to fill, and libraries above would log some of them.
            headers = httpx2.Headers([(b"content-type", answer.content_type)], encoding="ascii")
            if stream:
                return httpx2.Response(answer.status, headers=headers, stream=_Body(answer, seen), request=request)
            whole = b"".join([piece async for piece in _pieces(answer, seen)])
        except BaseException:
            await answer.close()
            raise
        await answer.close()
        return _Whole(answer.status, headers, whole, request)

    async def aclose(self) -> None:
        await self._sender.aclose()
        await super().aclose()


class _Refusing(httpx2.AsyncBaseTransport):
    """There is one way out, :meth:`GuardedClient.send`; whatever finds another is refused."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise httpcore2.ConnectError("this client sends in one way only")


def make_client(endpoint: Endpoint, kind: Literal["httpx", "aiohttp"] = "httpx") -> GuardedClient:
    """A client for ``endpoint`` and the running event loop. Raises ``ImportError`` when ``kind`` is not installed."""
    context = httpx2.create_ssl_context() if endpoint.scheme == "https" else None
    sender: Sender
    if kind == "aiohttp":
        from .fast import AiohttpSender

        sender = AiohttpSender(endpoint, context)
    else:
        from .pooled import PooledSender

        sender = PooledSender(endpoint, context)
    return GuardedClient(endpoint, sender)
