"""One wire attempt: send a body, read the answer, and say how it ended and what it may have cost.

Nothing is raised here but cancellation and what a caller's ``on_text`` raises; every other end is a
:class:`~brain.retrying.Try`. Errors are made, not passed on: those of the HTTP libraries hold the request, and with it
the key. This module knows nothing of retries, breakers or clients' lives.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpcore2
import httpx2
import openai

from specialists import Cost

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
from ..events import ModelResponse, Sending, TokenUsage, WireAttempt, WireOutcome
from ..keys import redact
from ..prices import PriceBook, Quote, served
from .flight import Flight, flight
from .parsing import (
    MAX_BODY_BYTES,
    MAX_STREAM_BYTES,
    Completion,
    EndpointError,
    StreamReader,
    WireError,
    input_bound,
    loads,
    read_completion,
    read_usage,
)
from .retrying import Try, parse_retry_after
from .transport import AnswerTooLarge, RefusedEncoding

__all__ = ["IDLE_SECONDS", "Exchange"]

logger = logging.getLogger("brain.models")

IDLE_SECONDS = 30.0
"""Longest silence within an answer that has begun. Before it begins a model may think for the whole ``timeout``."""
DRAIN_SECONDS = 0.25
LATE_SECONDS = 1.0
"""By which a busy event loop may end an attempt late: where seconds have a price, these too are reserved."""
RETRIED_STATUS = frozenset({500, 502, 503, 504, 529})
_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long|too many tokens|context size"
)


# Said, though they say what is meant anyway: what is not said the client copies deeply from its own defaults.
_OPTIONS: Any = {
    "headers": {},
    "max_retries": 0,
    "timeout": None,
    "idempotency_key": "",
    "security": {"bearer_auth": True},
    "post_parser": openai.NOT_GIVEN,
}


class _Cut(httpcore2.NetworkError):
    """The stream ended, cleanly as TCP sees it, before the answer did."""


@dataclass(slots=True)
class _End:
    """How an attempt ended, before it is priced."""

    outcome: WireOutcome
    error: type[BrainError] | None = None
    reason: str | None = None
    retryable: bool = False
    retry_after: float | None = None
    completion: Completion | None = None


@dataclass(slots=True)
class Exchange:
    """What the tries of one ask have in common."""

    client: Any
    url: str
    """Where the body is posted to."""
    origin: str
    base_url: str
    model: str
    """As the endpoint knows it."""
    prices: PriceBook
    service_tier: str | None
    """As asked for in the body."""
    body: bytes
    text_only: bool
    """Whether the request's tokens are bounded by its bytes: no images, no audio."""
    output_limit: int
    timeout: float
    deadline: float | None
    on_attempt: Callable[[WireAttempt], None]
    on_text: Callable[[str], None] | None
    on_send: Callable[[Sending], Awaitable[float | None]] | None = None
    idempotency_key: str | None = None

    def worst_case(self) -> Cost:
        """The most that sending this body once can cost: unpriced when the model has no price or the body no bound.

        The dearer of the prices now and at the end of the time it may take: a price can change meanwhile.
        """
        now = datetime.now(UTC)
        given = input_bound(len(self.body)) if self.text_only else None
        longest = self.timeout + LATE_SECONDS
        high = None
        for at in (now, now + timedelta(seconds=self.timeout)):
            quote = self._quote(None, at)
            most = None if quote is None else quote.worst(given, self.output_limit, seconds=longest).high
            if most is None:
                return Cost.unpriced()
            high = most if high is None else max(high, most)
        return Cost.unpriced() if high is None else Cost.bounded(0, high)

    async def once(self) -> Try:
        """Send the body once. ``on_attempt`` is called exactly once, whatever happens.

        What ``on_send`` raises is raised, and nothing was sent then; ``on_attempt`` is not called.
        """
        id, limit = os.urandom(16).hex(), self.timeout
        if self.on_send is not None:
            if self.deadline is not None:
                limit = min(limit, max(0.0, self.deadline - time.monotonic()))
            quote = self._quote(None, datetime.now(UTC))
            price = None if quote is None else quote.to_json()
            granted = await self.on_send(Sending(id, self.model, self.origin, self.worst_case(), limit, price))
            limit = limit if granted is None else min(limit, granted)
        started, at = time.monotonic(), datetime.now(UTC)
        seen = Flight(MAX_BODY_BYTES if self.on_text is None else MAX_STREAM_BYTES, self.idempotency_key)
        handed: list[bool] = []
        token = flight.set(seen)
        try:
            end = await self._bounded(seen, started, limit, handed)
        except BaseException:
            # Cancelled, or the caller's on_text raised: the request is given up, and what it cost stays on the bill.
            end = _End("cancelled", reason="The caller gave the request up.")
            self.on_attempt(self._attempt(id, end, seen, started, at, self._usage(end, seen), None))
            raise
        finally:
            flight.reset(token)
        if handed and end.outcome != "ok":
            end.retryable = False  # half an answer has been shown; a second one would contradict it
        usage = self._usage(end, seen)
        done = end.completion
        answered = None if done is None or done.model is None else _clean(done.model)
        attempt = self._attempt(id, end, seen, started, at, usage, answered)
        self.on_attempt(attempt)
        if done is not None:
            return Try(attempt, ModelResponse(done.text, done.tool_calls, done.finish_reason, answered, usage))
        return Try(attempt, None, self._error(end), end.retryable, end.retry_after)

    async def _bounded(self, seen: Flight, started: float, limit: float, handed: list[bool]) -> _End:
        until = started + limit if self.deadline is None else min(started + limit, self.deadline)
        try:
            async with asyncio.timeout(until - time.monotonic()) as timer:
                try:
                    return _End("ok", completion=await self._talk(seen, timer, handed))
                except EndpointRefused as error:
                    return _End("unreachable", EndpointRefused, str(error))
                except openai.APIStatusError as error:
                    return self._status_end(error.status_code, error.response.content, seen)
                except EndpointError as error:
                    return self._error_object_end(error.error)
                except (WireError, AnswerTooLarge, RefusedEncoding) as error:
                    return _End(
                        "protocol",
                        BrainProtocolError,
                        f"The answer of {self._where} cannot be used: {error}; see that base_url speaks chat"
                        " completions.",
                    )
                except httpcore2.TimeoutException:
                    return self._timeout_end(seen, started)
                except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
                    return self._network_end(error, seen)
                except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
                    return _End(
                        "protocol",
                        BrainProtocolError,
                        f"The exchange with {self._where} failed ({type(error).__name__}); see that base_url is right.",
                    )
        except TimeoutError:
            return self._timeout_end(seen, started)

    @property
    def _where(self) -> str:
        return f"{self.model} at {self.origin}"

    async def _talk(self, seen: Flight, timer: asyncio.Timeout, handed: list[bool]) -> Completion:
        if self.on_text is None:
            answer = await self.client.post(self.url, content=self.body, cast_to=httpx2.Response, options=_OPTIONS)
            return read_completion(answer.content)
        answer = await self.client.post(
            self.url,
            content=self.body,
            cast_to=httpx2.Response,
            options=_OPTIONS,
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        try:
            return await self._stream(answer, timer, handed)
        finally:
            await answer.aclose()

    async def _stream(self, answer: Any, timer: asyncio.Timeout, handed: list[bool]) -> Completion:
        assert self.on_text is not None
        reader = StreamReader()
        loop = asyncio.get_running_loop()
        total = timer.when()
        if answer.headers.get("content-type", "").lower().startswith("application/json"):
            # Some servers do not stream, or not with tools, and answer whole.
            completion = read_completion(await answer.aread())
            if completion.text:
                handed.append(True)
                self.on_text(completion.text)
            return completion
        pieces = answer.aiter_raw()
        async for raw in pieces:
            if total is not None:
                timer.reschedule(min(total, loop.time() + IDLE_SECONDS))
            for text in reader.feed(raw):
                handed.append(True)
                self.on_text(text)
            if reader.done:
                break
        streamed = reader.finish()
        if streamed is None:
            raise _Cut("no finish_reason")
        # Read to the end, if it is there, so that the connection can serve the next request.
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in pieces:
                    pass
        except (TimeoutError, AnswerTooLarge, httpcore2.NetworkError, httpcore2.ProtocolError):
            pass
        return streamed

    def _timeout_end(self, seen: Flight, started: float) -> _End:
        seconds = time.monotonic() - started
        if not seen.sent:
            what = "could not be reached"
        elif seen.received:
            what = "stopped in the middle of its answer or was too slow"
        else:
            what = "did not answer"
        return _End(
            "timeout",
            ModelTimeout,
            f"{self._where} {what} within {seconds:.3g} s; raise timeout or ask for less.",
            retryable=not seen.received,
        )

    def _network_end(self, error: Exception, seen: Flight) -> _End:
        where = self._where
        if seen.status is not None or isinstance(error, _Cut):
            return _End(
                "stream_cut",
                BrainProtocolError,
                f"The answer of {where} was cut off before its end; ask again or look at what stands in between.",
                retryable=True,
            )
        if not seen.sent:
            why = redact(_clean(str(error))) or "no connection"
            return _End(
                "unreachable",
                EndpointUnavailable,
                f"{where} cannot be reached ({why}); see that base_url is right and the endpoint is up.",
                retryable=True,
            )
        if isinstance(error, httpcore2.ProtocolError) and "disconnected" not in str(error):
            return _End(
                "protocol",
                BrainProtocolError,
                f"{where} does not speak HTTP as it should; see that base_url points to a chat-completions endpoint.",
            )
        return _End(
            "unreachable",
            EndpointUnavailable,
            f"{where} closed the connection without an answer; see that the endpoint is up.",
            retryable=True,
        )

    def _status_end(self, status: int, content: bytes, seen: Flight, said: str | None = None) -> _End:
        code, detail = _error_text(content)
        where = self._where
        after = parse_retry_after(seen.retry_after)
        said = (said or f"HTTP {status}") + (f": {detail}" if detail else "")
        if 300 <= status < 400:
            return _End(
                "rejected",
                EndpointRefused,
                f"{self.origin} redirects (HTTP {status}); a key is not carried to another place, "
                "so write the final address as base_url.",
            )
        if status in (401, 403):
            return _End(
                "authentication",
                AuthenticationFailed,
                f"{where} refused the API key ({said}); see that OPENAI_API_KEY or api_key is right for this endpoint.",
            )
        if status == 429:
            rest = "" if after is None else f"; it asks for {after:.4g} s of rest"
            return _End(
                "rate_limited",
                RateLimited,
                f"{where} limits the rate of requests ({said}){rest}; ask later or less often.",
                retryable=True,
                retry_after=after,
            )
        if status == 413 or (status in (400, 422) and _OVERFLOW.search(f"{code} {detail}".lower())):
            return _End(
                "context_overflow",
                ContextOverflow,
                f"The request is longer than {where} reads ({said}); send a shorter prompt or history.",
            )
        if status == 408:
            return _End(
                "timeout",
                ModelTimeout,
                f"{where} gave up waiting ({said}); ask again.",
                retryable=True,
                retry_after=after,
            )
        if status >= 500:
            return _End(
                "server_error",
                EndpointUnavailable,
                f"{where} failed ({said}); ask later or name another endpoint.",
                retryable=status in RETRIED_STATUS,
                retry_after=after,
            )
        return _End(
            "rejected",
            RequestRejected,
            f"{where} does not take the request ({said}); see that the model's name and the arguments suit it.",
        )

    def _error_object_end(self, error: Any) -> _End:
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        content = json.dumps({"error": error}, default=str).encode("utf-8", "replace")
        return self._status_end(status, content, Flight(0), "an error in place of an answer")

    def _worst(self) -> TokenUsage:
        given = input_bound(len(self.body)) if self.text_only else None
        return TokenUsage(given, self.output_limit, source="estimated")

    def _usage(self, end: _End, seen: Flight) -> TokenUsage:
        if end.completion is not None:
            done = end.completion
            stated = read_usage(
                done.usage,
                input_limit=input_bound(len(self.body)) if self.text_only else None,
                output_limit=self.output_limit,
                answered=bool(done.text or done.tool_calls),
            )
            return stated or self._worst()
        if not seen.sent or (seen.status is not None and seen.status >= 300):
            return TokenUsage()
        return self._worst()

    def _quote(self, stated: str | None, at: datetime) -> Quote | None:
        return self.prices.price_of(
            self.model,
            endpoint=self.base_url,
            tier=served(self.service_tier, stated),
            at=at,
            text_only=self.text_only,
        )

    def _cost(self, end: _End, seen: Flight, usage: TokenUsage, quote: Quote | None, seconds: float) -> Cost:
        refused = seen.status is not None and seen.status >= 300
        if not seen.sent or (refused and not (quote is not None and quote.by_second)):
            # Nothing left, or the endpoint refused: no provider we know of bills an error status.
            return Cost.exact(0)
        if quote is None:
            return Cost.unpriced()
        if end.completion is not None:
            return quote.cost(usage, seconds=seconds)
        # Nobody knows how far the other side got, or whether it still computes.
        tokens = (0, 0) if refused else (usage.input, usage.output)
        return quote.worst(*tokens, seconds=max(seconds, self.timeout))

    def _attempt(
        self, id: str, end: _End, seen: Flight, started: float, at: datetime, usage: TokenUsage, answered: str | None
    ) -> WireAttempt:
        seconds = time.monotonic() - started
        stated = end.completion.service_tier if end.completion is not None else None
        quote = self._quote(stated, at)
        attempt = WireAttempt(
            id=id,
            model=self.model,
            endpoint=self.origin,
            outcome=end.outcome,
            seconds=seconds,
            cost=self._cost(end, seen, usage, quote, seconds),
            usage=usage,
            status=seen.status,
            answered_model=answered,
            reason=end.reason,
            service_tier=self.service_tier if stated is None else _clean(stated, 40),
            price=None if quote is None else quote.to_json(),
        )
        logger.info(
            "%s at %s: %s (HTTP %s, %.3f s)", self.model, attempt.endpoint, end.outcome, seen.status, attempt.seconds
        )
        return attempt

    def _error(self, end: _End) -> BrainError | None:
        if end.error is None:
            return None
        message = end.reason or "the attempt failed"
        if end.error is RateLimited:
            return RateLimited(message, retry_after=end.retry_after)
        return end.error(message)


def _error_text(content: bytes) -> tuple[str, str]:
    """Code and message of an error's body, short, on one line, without any key; both empty when nothing can be read."""
    try:
        data = loads(content)
    except WireError:
        text = content[:2000].decode("utf-8", "replace")
        return "", "" if text.lstrip().startswith("<") else redact(_clean(text))
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        code = " ".join(str(error[name])[:100] for name in ("code", "type") if isinstance(error.get(name), (str, int)))
        message = error.get("message", error.get("detail", ""))
        return redact(_clean(code)), redact(_clean(message if isinstance(message, str) else ""))
    return "", redact(_clean(error)) if isinstance(error, str) else ""


def _clean(text: str, limit: int = 300) -> str:
    """One short line: an endpoint's text goes into messages, logs and terminals."""
    hidden = redact(text)
    if len(hidden) <= limit and hidden.isascii() and hidden.isprintable() and " " not in hidden:
        return hidden
    line = " ".join("".join(char if char.isprintable() else " " for char in hidden[: 4 * limit]).split())
    line = line.encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= limit else line[: limit - 1] + "…"
