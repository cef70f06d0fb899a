"""One request under way, as both transports see it: what is known of it, what they give back, and their limits.

This module knows nothing of sockets, addresses or what is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import httpx2

__all__ = ["CONNECTIONS", "KEPT_SECONDS", "Answer", "Flight", "Sender", "flight"]

CONNECTIONS = 1000
"""Most connections to one endpoint from one event loop."""
KEPT_SECONDS = 15.0
"""How long an idle connection is kept for the next request."""


class Flight:
    """What is known of one request under way. Read by whoever has to say what a failure may have cost."""

    __slots__ = ("idempotency_key", "limit", "received", "retry_after", "sent", "status")

    def __init__(self, limit: int, idempotency_key: str | None = None) -> None:
        self.limit = limit
        """Most bytes of an answer."""
        self.idempotency_key = idempotency_key
        """Sent as a header, beside those that every request has."""
        self.sent = False
        """Whether a byte of the request may have reached the endpoint."""
        self.status: int | None = None
        """HTTP status, once the headers are there."""
        self.retry_after: str | None = None
        self.received = 0
        """Bytes of the answer's body."""


flight: ContextVar[Flight | None] = ContextVar("brain_flight", default=None)
"""The request that the current task has under way."""


class Answer(Protocol):
    """The head of an answer, and its body as it comes. :meth:`close` gives the connection back, or up."""

    status: int
    content_type: bytes
    retry_after: str | None
    encoding: str

    def pieces(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None: ...


class Sender(Protocol):
    """One way to send a request to the endpoint."""

    async def send(self, request: httpx2.Request) -> Answer: ...

    async def aclose(self) -> None: ...
