"""The guarded way to an endpoint: one origin, addresses checked at connect, no proxy, no redirect, answers bounded.

Importing this module imports ``httpx2``; only :mod:`brain.models` does so, and only when a request is about to leave.
It knows nothing of chat completions, retries or prices. Errors of the network come out as ``httpcore2`` raises them:
they carry no request, and so no key.

Proxies in the environment are not used: a key would go through a machine that the application never named. Certificate
settings in the environment (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) are.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import anyio
import httpcore2
import httpx2

from ..errors import EndpointRefused
from . import endpoints
from .endpoints import Endpoint

__all__ = ["AnswerTooLarge", "Flight", "GuardedTransport", "RefusedEncoding", "flight", "make_client"]

ADDRESS_SECONDS = 3.0
"""Longest wait for one of several addresses, in seconds; the last one has all the time there is."""
ERROR_BODY_BYTES = 64 * 1024
"""Read of an error's body, in bytes; the rest is cut off, an error's message stands at its beginning."""


class AnswerTooLarge(Exception):
    """The answer is longer than allowed."""


class RefusedEncoding(Exception):
    """The answer is compressed, though it was not to be: a few bytes could unpack to gigabytes."""


@dataclass(slots=True)
class Flight:
    """What is known of one request under way. Read by whoever has to say what a failure may have cost."""

    limit: int
    """Most bytes of an answer."""
    sent: bool = False
    """Whether a byte of the request may have reached the endpoint."""
    status: int | None = None
    """HTTP status, once the headers are there."""
    retry_after: str | None = None
    received: int = 0
    """Bytes of the answer's body."""


flight: ContextVar[Flight | None] = ContextVar("brain_flight", default=None)
"""The request that the current task has under way."""


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects only to addresses that :func:`brain.endpoints.check_addresses` lets pass."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        endpoint = self._endpoint
        if endpoint.address is not None:
            found = [endpoint.host]
        else:
            try:
                found = await endpoints.resolver(endpoint.host, port)
            except OSError as error:
                raise httpcore2.ConnectError(
                    f"the name {endpoint.host} cannot be resolved ({error.strerror})"
                ) from None
        if not found:
            raise httpcore2.ConnectError(f"the name {endpoint.host} has no address")
        addresses = endpoints.check_addresses(endpoint, found)[:8]
        for address in addresses[:-1]:
            # To the address that was checked: a second look-up could say something else. A dead one of several must
            # not use up the time of the others.
            patience = ADDRESS_SECONDS if timeout is None else min(timeout, ADDRESS_SECONDS)
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await self._inner.connect_tcp(address, port, patience, local_address, socket_options)
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("unix sockets are not used")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, limit: int, *, cut: bool, seen: Flight | None) -> None:
        self._stream = stream
        self._limit = limit
        self._cut = cut
        self._seen = seen

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for piece in self._stream:
            total += len(piece)
            if self._seen is not None:
                self._seen.received = total
            if total > self._limit:
                if not self._cut:
                    raise AnswerTooLarge(f"the answer is longer than {self._limit:,} bytes")
                yield piece[: len(piece) - (total - self._limit)]
                return
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends to one origin only."""

    def __init__(self, endpoint: Endpoint, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._endpoint = endpoint
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=1000,
            max_keepalive_connections=100,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(endpoint),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        if (url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)) != (
            self._endpoint.scheme,
            self._endpoint.host,
            self._endpoint.port,
        ):
            raise EndpointRefused(f"a request to another origin than {self._endpoint.origin} was refused.")
        seen = flight.get()
        request.headers["Accept-Encoding"] = "identity"

        async def trace(name: str, _: dict[str, Any]) -> None:
            if seen is not None and name.endswith("send_request_headers.started"):
                seen.sent = True

        assert isinstance(request.stream, AsyncIterable)
        answer = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions={**request.extensions, "trace": trace},
            )
        )
        headers = httpx2.Headers(answer.headers)
        if seen is not None:
            seen.status = answer.status
            seen.retry_after = headers.get("retry-after")
        failed = answer.status >= 300
        packed = headers.get("content-encoding", "").strip().lower() not in ("", "identity")
        if packed and not failed:
            await answer.aclose()
            raise RefusedEncoding("the answer is compressed, which was not asked for")
        limit = ERROR_BODY_BYTES if failed else (seen.limit if seen is not None else ERROR_BODY_BYTES)
        assert isinstance(answer.stream, AsyncIterable)
        return httpx2.Response(
            status_code=answer.status,
            # Only what is read: other headers are the endpoint's to fill, and libraries above would log some of them.
            headers=[(b"content-type", headers.get("content-type", "").encode("ascii", "replace"))],
            stream=_BoundedStream(answer.stream, limit, cut=failed, seen=seen),
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def make_client(endpoint: Endpoint, *, timeout: float) -> httpx2.AsyncClient:
    """A client for ``endpoint``. ``timeout`` (seconds) is for connecting and for each read; totals are the caller's."""
    context = httpx2.create_ssl_context() if endpoint.scheme == "https" else None
    return httpx2.AsyncClient(
        transport=GuardedTransport(endpoint, ssl_context=context),
        timeout=httpx2.Timeout(timeout),
        follow_redirects=False,
        trust_env=False,
    )
