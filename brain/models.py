"""Chat models at OpenAI-compatible endpoints.

:class:`OpenAIModel` asks one model at one endpoint. It is safe for concurrent calls from any thread and event loop,
and after a fork. This module knows nothing of tools, ladders or budgets, and is the only door to :mod:`brain.wire`.

Nothing heavy is imported, no connection made and no name resolved before the first question.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .encoding import NotJson, encode
from .errors import (
    ConfigurationError,
    EndpointRefused,
    EndpointUnavailable,
    MissingKey,
    MissingRuntime,
    ModelError,
    ModelTimeout,
    PromptError,
    UnknownModel,
)
from .events import ModelRequest, ModelResponse, WireAttempt
from .keys import Secret, redact, redact_logs
from .prices import LIST_PRICES, Price, PriceBook
from .wire.endpoints import Endpoint, parse_endpoint
from .wire.naming import as_registered, wire_names
from .wire.retrying import Breaker, BreakerOpen, RetryBudget, Try, retrying
from .wire.writing import RequestWriter

__all__ = ["PROVIDERS", "OpenAIModel", "Transport", "model_from_name"]

logger = logging.getLogger("brain.models")

DEFAULT_BASE_URL = "https://api.openai.com/v1"
PROVIDERS = ("openai",)
"""Providers that a model's short name may begin with."""

Transport = Literal["auto", "httpx", "aiohttp"]


@dataclass
class _Process:
    """What belongs to one process: connections, locks and counts, none of which survives a fork."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clients: dict[int, tuple[asyncio.AbstractEventLoop, Any]] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    budget: RetryBudget = field(default_factory=RetryBudget)


class OpenAIModel:
    """A model at an OpenAI-compatible chat-completions endpoint.

    ``name``: as the endpoint knows it, for example ``gpt-4.1-mini``. ``base_url``: else ``OPENAI_BASE_URL``, else
    OpenAI's own. ``api_key``: else ``OPENAI_API_KEY``; an endpoint on this machine needs none. ``retries``: further
    tries after the first. ``timeout``: seconds for each try; a request's own deadline bounds all of them together.
    ``prices``: a :class:`~brain.prices.PriceBook`, else the list price of the name; or ``price``: one
    :class:`~brain.prices.Price` for this model, whatever the moment and the tier. ``service_tier``: sent with every
    request, for example ``flex`` or ``priority``; the tier that the answer states decides the price. Where the tier is
    set elsewhere (in a project's settings), say it here too, or the worst case of a request is that of the standard
    one. ``max_output_tokens``: always sent, as ``max_completion_tokens`` to OpenAI's own hosts and as ``max_tokens``
    elsewhere, where most servers know no other.
    ``transport``: what carries the requests: ``httpx``, ``aiohttp`` (extra ``fast``; less work a request), or ``auto``,
    aiohttp where it is installed. Both have the same guards.

    The key is sent to the origin of ``base_url`` and nowhere else: redirects are refused, and proxies of the
    environment are not used. Raises :class:`~brain.errors.MissingKey`, :class:`~brain.errors.EndpointRefused`, or
    :class:`~brain.errors.ConfigurationError` for any other argument that cannot be.
    """

    announces = True

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        retries: int = 2,
        timeout: float = 60,
        price: Price | None = None,
        prices: PriceBook | None = None,
        service_tier: str | None = None,
        max_output_tokens: int = 4096,
        transport: Transport = "auto",
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise UnknownModel('A model needs a name, for example OpenAIModel("gpt-4.1-mini").')
        if not name.isprintable() or len(name) > 256:
            raise EndpointRefused("The model's name contains control characters or is longer than 256 characters.")
        self._model = name
        if base_url is None:  # an empty one is a setting that got lost, and its key is not for anybody else
            base_url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        self._endpoint = parse_endpoint(base_url)
        self._secret = _secret(api_key or os.environ.get("OPENAI_API_KEY"), self._endpoint)
        self._retries = _whole("retries", retries, 0, 100)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < 1e7:
            raise ConfigurationError(f"timeout is a number of seconds above zero, not {timeout!r}.")
        self._timeout = float(timeout)
        if price is not None and not isinstance(price, Price):
            raise ConfigurationError(f"price is a Price or None, not {type(price).__name__}.")
        if prices is not None and not isinstance(prices, PriceBook):
            raise ConfigurationError(f"prices is a PriceBook or None, not {type(prices).__name__}.")
        if price is not None and prices is not None:
            raise ConfigurationError("Give either price or prices; an entry of the book prices one model.")
        self._service_tier = _tier(service_tier)
        if price is not None and service_tier is not None:
            raise ConfigurationError(
                "One price does not tell what each service tier costs; give prices, a PriceBook with an entry for each."
            )
        self._prices = PriceBook.flat(price) if price is not None else prices or LIST_PRICES
        self._max_output_tokens = _whole("max_output_tokens", max_output_tokens, 1, 10_000_000)
        if transport not in get_args(Transport):
            raise ConfigurationError(f"transport is {', '.join(get_args(Transport))}, not {transport!r}.")
        self._transport: Transport = transport
        self._writer = RequestWriter(name, "max_completion_tokens" if _is_openai(self._endpoint) else "max_tokens")
        self._origin, self._base_url = self._endpoint.origin, self._endpoint.url
        self._name = f"openai:{name}"
        self._own = _Process()

    @property
    def name(self) -> str:
        """``openai:NAME``, as receipts show it."""
        return self._name

    @property
    def endpoint(self) -> str:
        """The endpoint's origin: scheme, host and port."""
        return self._origin

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]:
        """``open`` while the endpoint, having failed five asks in a row, is given ten seconds of rest."""
        return self._process().breaker.state

    def __repr__(self) -> str:
        return redact(f"OpenAIModel({self._model!r}, base_url={self._endpoint.url!r})")

    async def ask(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """Answer ``request``; see :class:`brain.events.ChatModel`. With ``on_text`` the answer is streamed.

        Raises :class:`~brain.errors.ModelError`; :class:`~brain.errors.EndpointRefused` for a redirect or an address
        that the key is not sent to; :class:`~brain.errors.PromptError` for text that is not UTF-8.

        An attempt's cost is exact when the endpoint states a believable usage, when nothing left this machine, and
        when the endpoint answered with an error status (providers do not bill those). In all other cases (cut off,
        timed out, cancelled, unreadable) the provider may have billed anything up to the worst case, and it is bounded.
        """
        limit = self._max_output_tokens
        if request.max_output_tokens is not None:
            limit = max(1, min(limit, request.max_output_tokens))
        names = wire_names(request)
        body, text_only = self._body(request, limit, names, stream=on_text is not None)
        own = self._process()
        client = self._kept_client(own) or await self._client(own)
        attempts: list[WireAttempt] = []

        def made(attempt: WireAttempt) -> None:
            attempts.append(attempt)
            on_attempt(attempt)

        from .wire.exchange import Exchange

        exchange = Exchange(
            client=client,
            url=f"{self._base_url}/chat/completions",
            origin=self._origin,
            base_url=self._base_url,
            model=self._model,
            prices=self._prices,
            service_tier=self._service_tier,
            body=body,
            text_only=text_only,
            output_limit=limit,
            timeout=self._timeout,
            deadline=request.deadline,
            on_attempt=made,
            on_text=on_text,
            on_send=request.on_send,
            idempotency_key=request.idempotency_key,
        )
        last = await self._tried(own, exchange.once, request.deadline)
        # Raised here, outside any `except`, so that no library's exception, with the request in it, hangs on it.
        if last.error is not None:
            if isinstance(last.error, ModelError):
                last.error.wire_attempts = tuple(attempts)
            raise last.error
        assert last.response is not None
        return as_registered(last.response, names)

    async def aclose(self) -> None:
        """Close the connections. The model can be asked again; it then makes new ones."""
        own = self._process()
        with own.lock:
            clients, own.clients = list(own.clients.values()), {}
        here = asyncio.get_running_loop()
        for loop, client in clients:
            if loop is here:
                await client.close()
            elif loop.is_running():
                # A client may be closed only on its own loop.
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.close(), loop))

    async def __aenter__(self) -> OpenAIModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __copy__(self) -> OpenAIModel:
        return self  # immutable, as far as anyone can see

    def __deepcopy__(self, _: dict[int, Any]) -> OpenAIModel:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_own", "_secret")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = _Process()
        # A pickle carries no key: it may lie on a disk or travel through a queue.
        self._secret = _secret(os.environ.get("OPENAI_API_KEY"), self._endpoint)

    async def _tried(self, own: _Process, once: Callable[[], Any], deadline: float | None) -> Try:
        if deadline is not None and time.monotonic() >= deadline:
            raise ModelTimeout(f"The deadline had passed before {self.name} was asked; allow more time.")
        rest: float | None = None
        probe = False
        try:
            probe = own.breaker.enter()
        except BreakerOpen as error:
            rest = error.seconds
        if rest is not None:
            raise EndpointUnavailable(
                f"{self._model} at {self._origin} has failed again and again and is given {rest:.0f} s more "
                "of rest; ask later or name another endpoint."
            )
        ended: Literal["up", "down", "unknown"] = "unknown"
        try:
            last = await retrying(once, retries=self._retries, deadline=deadline, budget=own.budget)
            if last.attempt.outcome in ("unreachable", "server_error"):
                ended = "unknown" if isinstance(last.error, EndpointRefused) else "down"
            elif last.attempt.outcome not in ("timeout", "cancelled"):
                ended = "up"
        finally:
            own.breaker.leave(probe, ended)
            if ended == "down" and own.breaker.state == "open":
                logger.warning("%s: the breaker is open, no request is sent for a while", self._origin)
        return last

    def _process(self) -> _Process:
        if self._own.pid != os.getpid():
            self._own = _Process()
        return self._own

    def _kept_client(self, own: _Process) -> Any:
        loop = asyncio.get_running_loop()
        found = own.clients.get(id(loop))
        return found[1] if found is not None and found[0] is loop else None

    async def _client(self, own: _Process) -> Any:
        # The first import of these takes the better part of a second, in which a server should go on serving.
        kind = self._transport
        if kind == "auto" and (kind := default_transport()) == "aiohttp":
            try:
                await asyncio.to_thread(importlib.import_module, "brain.wire.fast")
            except ImportError:  # installed for something else, and too old
                kind = "httpx"
        needed = ["brain.wire.transport", "openai", "brain.wire.exchange"]
        needed.append("brain.wire.fast" if kind == "aiohttp" else "brain.wire.pooled")
        try:
            transport, openai, *_ = [await asyncio.to_thread(importlib.import_module, name) for name in needed]
            await asyncio.to_thread(self._prices.price_of, self._model, endpoint=self._base_url)
        except ImportError as error:
            missing = error.name or "openai"
        else:
            with own.lock:
                found = self._kept_client(own)
                if found is None:
                    loop = asyncio.get_running_loop()
                    found = self._new_client(transport, openai, kind)
                    own.clients = {key: kept for key, kept in own.clients.items() if not kept[0].is_closed()}
                    own.clients[id(loop)] = (loop, found)
                return found
        extra = "'brain-specialists[fast]'" if missing == "aiohttp" else "brain-specialists"
        raise MissingRuntime(f"The package {missing} is not installed or too old; run: pip install {extra}")

    def _new_client(self, transport: Any, openai: Any, kind: str) -> Any:
        redact_logs()
        client = openai.AsyncOpenAI(
            api_key=self._secret.reveal() if self._secret is not None else "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=None,  # the whole exchange has one clock, which is not the client's
            http_client=transport.make_client(self._endpoint, kind),
        )
        if not _is_openai(self._endpoint):
            # The client takes these from the environment; they are OpenAI's to know.
            client.organization = client.project = None
        client.admin_api_key = None
        return client

    def _body(self, request: ModelRequest, limit: int, names: dict[str, str], *, stream: bool) -> tuple[bytes, bool]:
        try:
            body, text_only = self._writer.write(request, limit, stream=stream, names=names)
        except NotJson as error:
            problem = str(error)
        else:
            if self._service_tier is not None:
                body = b'{"service_tier":%b,%b' % (encode(self._service_tier), body[1:])
            return body, text_only
        raise PromptError(f"The messages or tools contain {problem}.")


def default_transport() -> Literal["httpx", "aiohttp"]:
    """What ``auto`` means here."""
    return "aiohttp" if importlib.util.find_spec("aiohttp") is not None else "httpx"


def model_from_name(name: str, **settings: Any) -> OpenAIModel:
    """The model of a short name, ``openai:NAME``; ``settings`` are :class:`OpenAIModel`'s.

    Raises :class:`~brain.errors.UnknownModel` for a name without a provider or with one we do not know.
    """
    provider, colon, model = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon:
        shown = name if isinstance(name, str) and name else "gpt-4.1-mini"
        raise UnknownModel(f'The model {name!r} has no provider; write "openai:{shown}".')
    if provider not in PROVIDERS:
        raise UnknownModel(
            f"The provider {provider!r} is not known; known are {', '.join(PROVIDERS)} "
            "(any OpenAI-compatible endpoint, with base_url or OPENAI_BASE_URL)."
        )
    if not model.strip():
        raise UnknownModel(
            f'The model {name!r} names no model after its provider; write for example "openai:gpt-4.1-mini".'
        )
    return OpenAIModel(model, **settings)


def _secret(key: str | None, endpoint: Endpoint) -> Secret | None:
    if not key:
        if endpoint.is_loopback:
            return None
        raise MissingKey(f"{endpoint.origin} needs an API key; set OPENAI_API_KEY or give api_key=.")
    if not isinstance(key, str) or not key.isascii() or any(not 33 <= ord(char) <= 126 for char in key):
        raise EndpointRefused(
            "The API key contains a space, a line end or another character that no key has; copy it again."
        )
    return Secret(key)


def _tier(tier: str | None) -> str | None:
    if tier is not None and (not isinstance(tier, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", tier)):
        raise ConfigurationError(f"service_tier is a short name such as flex or priority, or None, not {tier!r}.")
    if tier == "batch":
        raise ConfigurationError("No single request is served as a batch; batch prices belong in a PriceBook.")
    return tier


def _is_openai(endpoint: Endpoint) -> bool:
    return endpoint.host == "openai.com" or endpoint.host.endswith((".openai.com", ".openai.azure.com"))


def _whole(what: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigurationError(f"{what} is a whole number from {low} to {high:,}, not {value!r}.")
    return value
