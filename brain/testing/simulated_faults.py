"""What a fault at an endpoint becomes for whoever asked it, without the endpoint: an outcome, a status, a typed error.

The same as :class:`brain.OpenAIModel` makes of it in one try; a test holds the two together.
"""

from __future__ import annotations

import re

from ..errors import (
    AuthenticationFailed,
    BrainError,
    BrainProtocolError,
    ContextOverflow,
    EndpointRefused,
    EndpointUnavailable,
    ModelTimeout,
    RateLimited,
    RequestRejected,
)
from ..events import WireOutcome
from ..wire.retrying import parse_retry_after
from .replies import Fault

__all__ = ["error_of", "outcome_of"]

_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long|too many tokens|context size"
)
_KINDS: dict[str, tuple[WireOutcome, type[BrainError]]] = {
    "hang": ("timeout", ModelTimeout),
    "stall": ("timeout", ModelTimeout),
    "cut_stream": ("stream_cut", BrainProtocolError),
    "close": ("unreachable", EndpointUnavailable),
    "malformed": ("protocol", BrainProtocolError),
    "enormous": ("protocol", BrainProtocolError),
}


def outcome_of(fault: Fault) -> WireOutcome:
    """How the wire attempt ends. ``ok`` for a fault that an answer comes through all the same."""
    return _end(fault)[0]


def error_of(fault: Fault, name: str) -> BrainError:
    """The error that the ask ends with; ``name`` is the model's."""
    kind = _end(fault)[1]
    status = f" (HTTP {fault.status})" if fault.status is not None else ""
    message = f"{name} was told to fail: {fault.kind}{status}; the fault is simulated."
    if kind is RateLimited:
        return RateLimited(message, retry_after=parse_retry_after(fault.headers.get("Retry-After")))
    return kind(message)


def _end(fault: Fault) -> tuple[WireOutcome, type[BrainError]]:
    if fault.kind in ("usage", "trickle"):
        return "ok", BrainError
    if fault.kind in _KINDS:
        return _KINDS[fault.kind]
    status = fault.status or 500
    if 300 <= status < 400:
        return "rejected", EndpointRefused
    if status in (401, 403):
        return "authentication", AuthenticationFailed
    if status == 429:
        return "rate_limited", RateLimited
    if status == 408:
        return "timeout", ModelTimeout
    if status == 413 or (status in (400, 422) and _OVERFLOW.search(f"{fault.code} {fault.message}".lower())):
        return "context_overflow", ContextOverflow
    if status >= 500:
        return "server_error", EndpointUnavailable
    return "rejected", RequestRejected
