"""The quicker transport, where aiohttp is installed (extra ``fast``): the same guards, over aiohttp's connections.

Names are resolved by :func:`brain.wire.endpoints.resolver` and checked, and each socket is checked once more for the
very address it is about to connect to. No proxy, no redirect, no cookie, no netrc, nothing unpacked. What goes wrong is
told in ``httpcore2``'s words, so that whoever asks need not know which transport it was.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import aiohttp.abc
import httpcore2
import httpx2
from multidict import CIMultiDict
from yarl import URL

from . import endpoints
from .endpoints import Endpoint
from .flight import CONNECTIONS, KEPT_SECONDS, flight
from .pooled import checked_addresses

__all__ = ["AiohttpSender"]

if tuple(int(part) for part in aiohttp.__version__.split(".")[:2]) < (3, 12):
    raise ImportError(
        "aiohttp 3.12 or newer is needed, where a socket can be checked before it connects", name="aiohttp"
    )

LARGE_BYTES = 1024 * 1024
"""A longer body is sent in pieces; aiohttp would complain of it in one."""


class AiohttpSender:
    """Sends through one aiohttp session, made for the running event loop."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        def checked_socket(info: Any) -> socket.socket:
            endpoints.check_addresses(endpoint, [str(info[4][0])])
            made = socket.socket(family=info[0], type=info[1], proto=info[2])
            made.setblocking(False)
            return made

        self._session = aiohttp.ClientSession(
            connector=_Connector(
                resolver=_Resolver(endpoint),
                use_dns_cache=False,
                ssl=True if context is None else context,
                limit=CONNECTIONS,
                keepalive_timeout=KEPT_SECONDS,
                socket_factory=checked_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            trust_env=False,
        )
        self._url: tuple[httpx2.URL, URL] | None = None
        self._headers: tuple[Any, CIMultiDict[str]] | None = None

    async def send(self, request: httpx2.Request) -> _AiohttpAnswer:
        """Raises ``httpcore2``'s errors, and :class:`brain.errors.EndpointRefused`."""
        url = request.url
        known = self._url
        if known is None or known[0] is not url:
            known = self._url = (url, URL(str(url), encoded=True))
        given = request.extensions["headers"]
        same = self._headers
        if same is None or same[0] is not given:
            same = self._headers = (given, CIMultiDict(given.multi_items()))
            for name in ("Content-Length", "Host", "Transfer-Encoding"):  # aiohttp's to write
                same[1].popall(name, None)
            same[1]["Accept-Encoding"] = "identity"
        headers = same[1]
        if (key := request.extensions["idempotency_key"]) is not None:
            headers = CIMultiDict(headers)
            headers["Idempotency-Key"] = key
        body: Any = request.extensions["body"]
        if len(body) > LARGE_BYTES:
            body = io.BytesIO(body)
        try:
            response = await self._session.request(
                request.method, known[1], headers=headers, data=body, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _as_known(error) from None
        return _AiohttpAnswer(response)

    async def aclose(self) -> None:
        await self._session.close()

    def __del__(self) -> None:
        # Left without being closed, mostly because its loop has ended: aiohttp would say so on standard error.
        session = self.__dict__.get("_session")
        if session is not None and not session.closed:
            session.detach()


class _AiohttpAnswer:
    __slots__ = ("_response", "content_type", "encoding", "retry_after", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        headers = response.headers
        self.status = response.status
        self.content_type = headers.get("Content-Type", "").encode("ascii", "replace")
        self.retry_after = headers.get("Retry-After")
        self.encoding = headers.get("Content-Encoding", "").strip().lower()

    async def pieces(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while piece := await content.readany():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise _as_known(error) from None

    async def close(self) -> None:
        # A connection whose answer was read to its end has gone back by itself; one with a rest is of no more use.
        self._response.close()


class _Connector(aiohttp.TCPConnector):
    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        while (protocol := connection.protocol) is not None and protocol.should_close:
            # Something came while nobody had asked: it would be read as the answer to what is asked now.
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if (seen := flight.get()) is not None:
            seen.sent = True  # what comes next is the request
        return connection

    def __del__(self, *_: Any, **__: Any) -> None:
        with contextlib.suppress(Exception):
            self._close()


class _Resolver(aiohttp.abc.AbstractResolver):
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for address in await checked_addresses(self._endpoint, port)
        ]

    async def close(self) -> None:
        pass


def _as_known(error: Exception) -> Exception:
    """The same in ``httpcore2``'s words."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return httpcore2.RemoteProtocolError("the server disconnected without an answer")
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpcore2.ConnectError(str(error))
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError)):
        return httpcore2.ReadError(str(error))
    return httpcore2.RemoteProtocolError(str(error))
