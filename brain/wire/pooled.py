"""The transport that is always there: httpx2's connection pool, over asyncio's own sockets.

Connects only to addresses that :func:`brain.wire.endpoints.check_addresses` lets pass, and knows nothing of what is
sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import httpcore2
import httpx2

from . import endpoints
from .endpoints import Endpoint
from .flight import CONNECTIONS, KEPT_SECONDS, flight

__all__ = ["PooledSender", "dial"]

_OURS = (b"accept-encoding", b"content-length", b"host", b"transfer-encoding")

ADDRESS_SECONDS = 3.0
"""Longest wait for one of several addresses, in seconds; the last one has all the time there is."""
PAUSE_BYTES = 256 * 1024
"""What may wait to be read from a connection before its sender is held up."""


class PooledSender:
    """Sends through a pool of kept connections."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS // 10,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=_GuardedBackend(endpoint),
        )
        self._url: tuple[httpx2.URL, httpcore2.URL] | None = None
        self._headers: tuple[Any, list[tuple[bytes, bytes]]] | None = None

    async def send(self, request: httpx2.Request) -> _PooledAnswer:
        """Raises ``httpcore2``'s errors, and :class:`brain.errors.EndpointRefused`."""
        url = request.url
        known = self._url
        if known is None or known[0] is not url:
            target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
            known = self._url = (url, target)
        given = request.extensions["headers"]
        same = self._headers
        if same is None or same[0] is not given:
            headers = [pair for pair in given.raw if pair[0].lower() not in _OURS]
            same = self._headers = (given, [(b"Host", url.netloc), *headers, (b"Accept-Encoding", b"identity")])
        body: bytes = request.extensions["body"]
        own = [*same[1], (b"Content-Length", b"%d" % len(body))]
        if (key := request.extensions["idempotency_key"]) is not None:
            own.append((b"Idempotency-Key", key.encode("ascii")))
        return _PooledAnswer(
            await self._pool.handle_async_request(
                httpcore2.Request(
                    request.method,
                    known[1],
                    headers=own,
                    content=body,
                )
            )
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _PooledAnswer:
    __slots__ = ("_response", "content_type", "encoding", "retry_after", "status")

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self.status = response.status
        self.content_type = b""
        self.retry_after: str | None = None
        self.encoding = ""
        for name, value in response.headers:
            name = name.lower()
            if name == b"content-type":
                self.content_type = value.decode("ascii", "replace").encode("ascii", "replace")
            elif name == b"retry-after":
                self.retry_after = value.decode("latin-1")
            elif name == b"content-encoding":
                self.encoding = value.decode("latin-1").strip().lower()

    def pieces(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, AsyncIterable)
        return self._response.stream.__aiter__()

    async def close(self) -> None:
        await self._response.aclose()


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await checked_addresses(self._endpoint, port)
        for address in addresses[:-1]:
            # To the address that was checked: a second look-up could say something else. A dead one of several must
            # not use up the time of the others.
            with contextlib.suppress(httpcore2.ConnectError, TimeoutError):
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return await dial(address, port)
        return await dial(addresses[-1], port)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("unix sockets are not used")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def checked_addresses(endpoint: Endpoint, port: int) -> list[str]:
    """Where ``endpoint`` may be reached, best first. Raises ``httpcore2.ConnectError`` and ``EndpointRefused``."""
    if endpoint.address is not None:
        found = [endpoint.host]
    else:
        try:
            found = await endpoints.resolver(endpoint.host, port)
        except OSError as error:
            raise httpcore2.ConnectError(f"the name {endpoint.host} cannot be resolved ({error.strerror})") from None
    if not found:
        raise httpcore2.ConnectError(f"the name {endpoint.host} has no address")
    return endpoints.check_addresses(endpoint, found)[:8]


async def dial(address: str, port: int) -> httpcore2.AsyncNetworkStream:
    """A connection to ``address``, which is no name. Raises ``httpcore2.ConnectError``."""
    loop = asyncio.get_running_loop()
    try:
        transport, socket = await loop.create_connection(_Socket, address, port)
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from None
    return _Stream(transport, socket)


class _Socket(asyncio.Protocol):
    """What has come in and was not read yet, and whether more can be written."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.lost: Exception | None = None
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.transport: Any = None
        self.full = False
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.reader is not None:
            self._wake()
        elif len(self.received) > PAUSE_BYTES and not self.waiting:
            self.waiting = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.lost = error
        self._wake()
        if self.writer is not None and not self.writer.done():
            self.writer.set_result(None)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.writer is not None and not self.writer.done():
            self.writer.set_result(None)

    def _wake(self) -> None:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection. What is written waits for the next read, so that the head and the body of a request are one."""

    def __init__(self, transport: Any, socket: _Socket) -> None:
        self._transport = transport
        self._socket = socket
        self._unsent: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        socket = self._socket
        if self._unsent:
            await self._flush()
        if not socket.received and not socket.ended:
            socket.reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout) if timeout is not None else contextlib.nullcontext():
                    await socket.reader
            except TimeoutError:
                raise httpcore2.ReadTimeout("nothing came in time") from None
            finally:
                socket.reader = None
        if not socket.received:
            if socket.lost is not None:
                raise httpcore2.ReadError(str(socket.lost))
            return b""
        if len(socket.received) <= max_bytes:
            data = bytes(socket.received)
            socket.received.clear()
        else:
            data = bytes(socket.received[:max_bytes])
            del socket.received[:max_bytes]
        if socket.waiting and len(socket.received) < PAUSE_BYTES:
            socket.waiting = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            if (seen := flight.get()) is not None:
                seen.sent = True
            self._unsent.append(buffer)

    async def _flush(self) -> None:
        data, self._unsent = self._unsent, []
        socket = self._socket
        if socket.ended:
            return  # what the endpoint said before it closed is still to be read
        self._transport.write(data[0] if len(data) == 1 else b"".join(data))
        if socket.full:
            socket.writer = asyncio.get_running_loop().create_future()
            try:
                await socket.writer
            finally:
                socket.writer = None

    async def aclose(self) -> None:
        # A peer that does not read, or does not say goodbye, is not waited for.
        self._transport.abort() if self._unsent or self._socket.full else self._transport.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport, self._socket, ssl_context, server_hostname=server_hostname
            )
        except OSError as error:  # ssl's own errors are among these
            self._transport.abort()
            raise httpcore2.ConnectError(str(error)) from None
        except BaseException:
            self._transport.abort()
            raise
        if transport is None:
            raise httpcore2.ConnectError("the connection was closed while it was being secured")
        self._socket.transport = transport
        return _Stream(transport, self._socket)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # Of an idle connection: the endpoint has closed it, or says what nobody asked.
            return self._socket.ended or bool(self._socket.received) or self._transport.is_closing()
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return self._transport.get_extra_info(name)
