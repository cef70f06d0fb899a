"""A model with a known accuracy, price and latency, for measuring what is built around models.

It knows nothing of language: right answers are given to it, and chance, drawn from a hash of seed and question, says
whether it gives them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from specialists import Cost

from ..errors import ModelTimeout
from ..events import ModelRequest, ModelResponse, Sending, TokenUsage, WireAttempt, WireOutcome
from ..prices import Price, token_cost
from .replies import count_tokens
from .scripted import ScriptError

__all__ = ["SimulatedModel"]

ENDPOINT = "simulated://model"


class SimulatedModel:
    """Answers right with a stated probability, else wrong but plausibly; always the same for a seed and a question.

    The question is the text of the last user message. The right answer is ``solve(question)``, or that of the longest
    key of ``answers`` that the question contains; that key (with ``solve``, the question) is the *task*. ``accuracy``
    is one probability, or one for each task (``"*"`` for all others). A wrong answer is ``wrong(question, right)``,
    else another of ``answers``, else the right one spoilt. Where the request has an ``output_schema`` the answer is
    JSON; a value that is not an object is put into the schema's only property.

    Tokens are counted as one for every four bytes of UTF-8 of messages and answer. Each question makes one wire
    attempt, priced at ``price`` exactly (``None``: unpriced). ``latency``: seconds, or a range to draw from.
    """

    announces = True

    def __init__(
        self,
        answers: Mapping[str, Any] | None = None,
        *,
        solve: Callable[[str], Any] | None = None,
        wrong: Callable[[str, Any], Any] | None = None,
        accuracy: float | Mapping[str, float] = 1.0,
        price: Price | None = None,
        latency: float | tuple[float, float] = 0.0,
        seed: int = 0,
        name: str = "simulated",
    ) -> None:
        if (answers is None) == (solve is None):
            raise ValueError("give either answers or solve")
        rates = list(accuracy.values()) if isinstance(accuracy, Mapping) else [accuracy]
        if any(not 0 <= rate <= 1 for rate in rates):
            raise ValueError(f"an accuracy lies between 0 and 1: {rates}")
        self._answers = dict(answers or {})
        self._solve = solve
        self._wrong = wrong
        self._accuracy = accuracy
        self._price = price
        self._latency = latency if isinstance(latency, tuple) else (latency, latency)
        self._seed = seed
        self._name = name
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    async def ask(
        self,
        request: ModelRequest,
        *,
        on_attempt: Callable[[WireAttempt], None],
        on_text: Callable[[str], None] | None = None,
    ) -> ModelResponse:
        """Answer. Raises :class:`~brain.errors.ModelTimeout` when the latency is beyond the deadline, and
        :class:`~brain.testing.ScriptError` for a question that it was given no answer for."""
        self.requests.append(request)
        question = _question(request)
        chance = random.Random(hashlib.sha256(f"{self._seed}\0{question}".encode("utf-8", "replace")).digest())
        text = _written(self._answer(question, chance), request.output_schema)
        usage = TokenUsage(count_tokens(list(request.messages)), count_tokens(text), 0, 0, 0, "provider")
        id, until, seconds = uuid.uuid4().hex, request.deadline, chance.uniform(*self._latency)
        if request.on_send is not None:
            cost = self._cost(usage)
            worst = Cost.unpriced() if cost.high is None else Cost.bounded(0, cost.high)
            granted = await request.on_send(Sending(id, self._name, ENDPOINT, worst, seconds))
            if granted is not None:
                until = min(time.monotonic() + granted, float("inf") if until is None else until)
        started = time.monotonic()
        late = False
        try:
            late = await self._wait(seconds, until)
        except BaseException:
            on_attempt(self._attempt(id, "cancelled", started, usage))
            raise
        attempt = self._attempt(id, "timeout" if late else "ok", started, usage)
        on_attempt(attempt)
        if late:
            raise ModelTimeout(f"{self._name} did not answer before the deadline.", wire_attempts=[attempt])
        if on_text is not None:
            on_text(text)
        return ModelResponse(text, (), "stop", self._name, usage)

    async def aclose(self) -> None:
        """Nothing to close; here so that it stands in for models that have."""

    def __repr__(self) -> str:
        return f"SimulatedModel(name={self._name!r}, accuracy={self._accuracy!r}, seed={self._seed})"

    def _answer(self, question: str, chance: random.Random) -> Any:
        task, right = self._right(question)
        rate = self._accuracy
        if isinstance(rate, Mapping):
            rate = rate.get(task, rate.get("*", 1.0))
        if chance.random() < rate:
            return right
        if self._wrong is not None:
            return self._wrong(question, right)
        others = [value for value in self._answers.values() if value != right]
        return chance.choice(others) if others else _spoilt(right)

    def _right(self, question: str) -> tuple[str, Any]:
        if self._solve is not None:
            return question, self._solve(question)
        fitting = [task for task in self._answers if task in question]
        if not fitting:
            raise ScriptError(f"{self._name} was given no answer for {question[:120]!r}")
        task = max(fitting, key=len)
        return task, self._answers[task]

    async def _wait(self, seconds: float, deadline: float | None) -> bool:
        left = None if deadline is None else deadline - time.monotonic()
        late = left is not None and seconds > left
        await asyncio.sleep(max(0.0, left) if late and left is not None else seconds)
        return late

    def _cost(self, usage: TokenUsage) -> Cost:
        return token_cost(usage, self._name, self._price) if self._price is not None else Cost.unpriced()

    def _attempt(self, id: str, outcome: WireOutcome, started: float, usage: TokenUsage) -> WireAttempt:
        cost = self._cost(usage)
        if outcome != "ok" and cost.high is not None:
            cost = Cost.bounded(0, cost.high)
        return WireAttempt(
            id=id,
            model=self._name,
            endpoint=ENDPOINT,
            outcome=outcome,
            seconds=time.monotonic() - started,
            cost=cost,
            usage=usage,
            status=200 if outcome == "ok" else None,
            answered_model=self._name if outcome == "ok" else None,
            reason=None if outcome == "ok" else f"The simulated answer was {outcome}.",
        )


def _question(request: ModelRequest) -> str:
    for message in reversed(request.messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return str(content or "")
    return ""


def _written(value: Any, schema: Mapping[str, Any] | None) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if schema is None:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    properties = list(schema.get("properties", ()))
    if not isinstance(value, Mapping) and len(properties) == 1:
        value = {properties[0]: value}
    return json.dumps(value, ensure_ascii=False)


def _spoilt(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value[::-1] if value[::-1] != value else value + "x"
    if isinstance(value, Mapping):
        return {key: _spoilt(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spoilt(inner) for inner in value]
    return "wrong"
