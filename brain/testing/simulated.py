"""A model with a known accuracy, price and latency, for measuring what is built around models.

It knows nothing of language: right answers are given to it, and chance, drawn from a hash of seed and request, says
whether it gives them. What is measured with it says how a strategy behaves under the stated accuracies, and nothing of
how any real model behaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from specialists import Cost

from ..errors import ModelError, ModelTimeout
from ..events import ModelRequest, ModelResponse, Sending, TokenUsage, WireAttempt, WireOutcome
from ..prices import Price, token_cost
from .explanations import explain, explaining
from .replies import Fault, Reply, as_json, count_tokens
from .scripted import ScriptError
from .simulated_faults import error_of, outcome_of
from .simulated_roles import (
    Asked,
    SimulatedJudge,
    SimulatedReviewer,
    SimulatedReviser,
    SimulatedVerifier,
    asked_for,
    is_right,
    judged,
    reviewed,
    verified,
)
from .simulated_settings import Accuracy, Splitter, check_settings, described, looked_up
from .simulated_values import invented, part_of, request_of, split_parts, spoilt, with_chance, written

__all__ = ["SimulatedModel"]

ENDPOINT = "simulated://model"
MOST_COSTS = 4096
"""Costs that are remembered: the same counts cost the same."""

_UNPRICED = Cost.unpriced()
_counting = threading.Lock()


class SimulatedModel:
    """Answers right with a stated probability, else wrong but plausibly; always the same for a seed and a request.

    **This is a simulation.** Figures measured with it say how a strategy behaves under the stated accuracies, not how
    any real model behaves; print :meth:`describe` beside them.

    The question is the text of the last user message. The right answer is ``solve(question)``, or that of the longest
    key of ``answers`` that the question contains. A wrong answer is ``wrong(question, right)`` (a parameter ``chance``,
    where it has one, is a ``random.Random``), else another of ``answers``, else the right one spoilt in one of
    ``variety`` ways. Where the request has an ``output_schema`` the answer is JSON; a value that is not an object is
    put into the schema's only property.

    All chance comes from a hash of ``seed`` and the request: its question, its ``seed`` and its ``effort``. So another
    ``seed`` in the request is an independent draw.

    Args:
        accuracy: A probability, or one by class of task, by effort, or by both (``{"easy": {"low": 0.9, "high": 1}}``);
            ``"*"`` stands for all others.
        task_class: The class of a question; by default the key of ``answers`` (with ``solve``, the question).
        correlation: The probability that a sample is right or wrong, and wrong in the same way, by a draw that all
            samples of its question share, at whatever effort. The accuracy over many questions stays as stated; two
            samples' correctness correlates by the square of it.
        nonsense: The share of all samples that is convincing nonsense: wrong, with an explanation that looks perfect
            (:func:`brain.testing.polish`). It is part of what is wrong, so it and the accuracy are at most 1.
        flaws: The fewest and the most flaws of an honest explanation. A schema's ``steps``, ``explanation`` or
            ``reasoning`` (a list of strings, or a string) is filled with one.
        price: Exact price of its tokens; ``None``: unpriced.
        reasoning_tokens: Tokens spent before each answer, or these by class or effort as for ``accuracy``; output.
        latency: Seconds, or a range to draw from.
        tokens_per_second: Adds the time that the output tokens take.
        faults: Each :class:`Fault` with its probability. A request that is made again draws again. Asked in process it
            raises what :class:`brain.OpenAIModel` would raise for one try, after the latency; it does not try again.
        judge, verifier, reviewer, reviser: How it plays these roles; see there. By default it plays them without fault.
        splitter: What a task is split into (``output_name`` ``split``): a function of the task, which returns texts or
            objects with ``task`` (and ``id``, ``type``, ``needs``); or a number of parts that are made up, each
            answered as the task itself is. 0: the task is answered whole.
        combiner: ``combiner(question, answers)`` gives the answer made of those to parts (``output_name``
            ``combine``). By default that is right with ``accuracy``, whatever the parts are.
        keep_requests: Whether ``requests`` holds what was asked.

    Tokens are counted as one for every four bytes of UTF-8 of messages and answer; an answer longer than the request's
    limit is cut off, as ``length``. Each question makes one wire attempt. Behind
    :class:`~brain.testing.FakeEndpoint` (``FakeEndpoint(SimulatedModel(...))``) it gives the same answers over a real
    wire. A role is told by the name of the request's schema, as on the wire, so a request without one is a question.

    Raises ``ValueError`` for what cannot be.
    """

    announces = True

    def __init__(
        self,
        answers: Mapping[str, Any] | None = None,
        *,
        solve: Callable[[str], Any] | None = None,
        wrong: Callable[..., Any] | None = None,
        accuracy: Accuracy = 1.0,
        task_class: Callable[[str], str] | None = None,
        correlation: float = 0.0,
        variety: int = 1,
        nonsense: float = 0.0,
        flaws: tuple[int, int] = (1, 3),
        price: Price | None = None,
        reasoning_tokens: int | Mapping[str, Any] = 0,
        latency: float | tuple[float, float] = 0.0,
        tokens_per_second: float | None = None,
        faults: Mapping[Fault, float] | None = None,
        judge: SimulatedJudge | None = None,
        verifier: SimulatedVerifier | None = None,
        reviewer: SimulatedReviewer | None = None,
        reviser: SimulatedReviser | None = None,
        splitter: Splitter = 0,
        combiner: Callable[[str, list[Any]], Any] | None = None,
        keep_requests: bool = True,
        seed: int = 0,
        name: str = "simulated",
    ) -> None:
        if (answers is None) == (solve is None):
            raise ValueError("give either answers or solve")
        self._answers = dict(answers or {})
        self._solve = solve
        self._wrong = None if wrong is None else with_chance(wrong)
        self._task_class = task_class
        self._accuracy, self._correlation, self._nonsense = accuracy, correlation, nonsense
        self._variety, self._flaws = variety, flaws
        self._price = price
        self._reasoning = reasoning_tokens
        self._latency = latency if isinstance(latency, tuple) else (latency, latency)
        self._speed = tokens_per_second
        self._faults = dict(faults or {})
        self._judge = judge or SimulatedJudge()
        self._verifier = verifier or SimulatedVerifier()
        self._reviewer = reviewer or SimulatedReviewer()
        self._reviser = reviser or SimulatedReviser()
        self._splitter, self._combiner = splitter, combiner
        self._keep = keep_requests
        self._seed = seed
        self._name = name
        self._settings: dict[str, Any] = {
            "accuracy": accuracy,
            "task_class": task_class,
            "correlation": correlation,
            "variety": variety,
            "nonsense": nonsense,
            "flaws": flaws,
            "price": price,
            "reasoning_tokens": reasoning_tokens,
            "latency": self._latency,
            "tokens_per_second": tokens_per_second,
            "faults": self._faults,
            "judge": self._judge,
            "verifier": self._verifier,
            "reviewer": self._reviewer,
            "reviser": self._reviser,
            "splitter": splitter,
            "combiner": combiner,
        }
        check_settings(self._settings)
        self._times: dict[bytes, int] = {}
        self._costs: dict[TokenUsage, Cost] = {}
        self._wrapping: tuple[Any, dict[str, bool]] = (None, {})
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
        """Answer. Raises :class:`~brain.errors.ModelTimeout` when the latency is beyond the deadline, what its
        ``faults`` say, and :class:`~brain.testing.ScriptError` for a question that it was given no answer for."""
        said = self._say(request)
        fault, answer, usage = said.fault, said.answer, said.usage
        id, until = os.urandom(16).hex(), request.deadline
        if request.on_send is not None:
            cost = self._cost(usage)
            worst = _UNPRICED if cost.high is None else Cost.bounded(0, cost.high)
            granted = await request.on_send(Sending(id, self._name, ENDPOINT, worst, answer.delay))
            if granted is not None:
                until = min(time.monotonic() + granted, float("inf") if until is None else until)
        started = time.monotonic()
        try:
            late = await self._wait(answer.delay, until)
        except BaseException:
            on_attempt(self._attempt(id, "cancelled", started, usage))
            raise
        if late:
            attempt = self._attempt(id, "timeout", started, usage)
            on_attempt(attempt)
            raise ModelTimeout(f"{self._name} did not answer before the deadline.", wire_attempts=[attempt])
        outcome: WireOutcome = "ok" if fault is None else outcome_of(fault)
        attempt = self._attempt(id, outcome, started, usage, fault)
        on_attempt(attempt)
        if fault is not None and outcome != "ok":
            error = error_of(fault, self._name)
            if isinstance(error, ModelError):
                error.wire_attempts = (attempt,)
            raise error
        if on_text is not None and answer.text:
            on_text(answer.text)
        return ModelResponse(answer.text, answer.tool_calls, answer.ends, answer.model or self._name, usage)

    def reply(self, body: Mapping[str, Any]) -> Reply | Fault:
        """What an endpoint says to a chat-completions request: the same answer that :meth:`ask` gives.

        ``body``: the request's JSON. A fault has the answer that it goes wrong with. Raises ``ValueError`` for a body
        that is no such request, and :class:`~brain.testing.ScriptError` as :meth:`ask` does.
        """
        said = self._say(request_of(body))
        if said.fault is None:
            return said.answer
        return said.fault if said.fault.answer is not None else said.fault.with_answer(said.answer)

    def describe(self) -> dict[str, Any]:
        """All that it was told, as JSON, to stand beside the figures that are measured with it."""
        return {
            "simulation": "Figures say how a strategy behaves under these settings, not how a real model behaves.",
            "name": self._name,
            "seed": self._seed,
            "answers": "a function" if self._solve is not None else len(self._answers),
            "wrong": self._wrong is not None,
            **described(self._settings),
        }

    async def aclose(self) -> None:
        """Nothing to close; here so that it stands in for models that have."""

    def __repr__(self) -> str:
        return (
            f"SimulatedModel(name={self._name!r}, accuracy={self._accuracy!r}, seed={self._seed};"
            " a simulation, not a language model)"
        )

    def _say(self, request: ModelRequest) -> _Said:
        """What comes of ``request``, but for time and money."""
        if self._keep:
            self.requests.append(request)
        asked = asked_for(request)
        effort, seed = request.effort, request.seed
        written_messages = as_json(list(request.messages))
        parts: tuple[Any, ...] = (asked.question,) if not asked.role else (asked.role, written_messages)
        chance = self._draw(*parts) if effort is None and seed is None else self._draw(*parts, seed, effort)
        text = self._text(asked, request, chance)
        given = -(-len(written_messages.encode("utf-8", "replace")) // 4)
        thought = self._reasoning
        if isinstance(thought, Mapping):
            thought = int(looked_up(thought, self._class_of(asked), effort, "number of reasoning tokens"))
        made, ends, limit = thought + count_tokens(text), "stop", request.max_output_tokens
        if limit is not None and made > limit:
            thought, ends = min(thought, max(0, limit)), "length"
            text = text.encode("utf-8", "replace")[: 4 * (max(0, limit) - thought)].decode("utf-8", "ignore")
            made = thought + count_tokens(text)
        low, high = self._latency
        seconds = low if low == high else chance.uniform(low, high)
        if self._speed is not None:
            seconds += made / self._speed
        usage = TokenUsage(given, made, 0, 0, thought, "provider")
        answer = Reply(text, (), usage, ends, None, seconds)
        fault = self._fault(written_messages, request) if self._faults else None
        return _Said(answer, usage) if fault is None else _with_fault(fault, answer, usage, written_messages, limit)

    def _text(self, asked: Asked, request: ModelRequest, chance: random.Random) -> str:
        role, question, material, schema = asked.role, asked.question, asked.material, request.output_schema
        if role == "split":
            return as_json({"parts": self._split(question, schema)})
        right = self._right(question)
        if role == "judgement":
            first, second = is_right(material["first"], right), is_right(material["second"], right)
            return judged(self._judge, first, second, chance)
        if role == "verdict":
            return verified(self._verifier, is_right(material["answer"], right), chance)
        if role == "review":
            return reviewed(self._reviewer, material["verdict"], is_right(material["answer"], right), chance)
        polished = False
        if role == "combine" and self._combiner is not None:
            value = self._combiner(question, list(material["answers"]))
        else:
            chances: float | None = None
            if role == "revision":
                was_right = is_right(material["answer"], right)
                harms = self._reviser.harms
                chances = self._reviser.mends if not was_right else None if harms is None else 1 - harms
            if chances is None:
                value, polished = self._sample(question, right, request.effort, chance)
            else:
                value = right if chance.random() < chances else self._wrong_answer(question, right, chance)
        if schema is None:
            return written(value, None)
        wrapping = self._wrapping
        if wrapping[0] is not schema:
            wrapping = self._wrapping = (schema, explaining(schema))
        if not wrapping[1]:
            return written(value, schema)
        flaws = 0 if polished else chance.randint(*self._flaws)
        steps = explain(question, value, flaws, chance)
        return written(value, schema, {name: steps if many else "\n".join(steps) for name, many in wrapping[1].items()})

    def _sample(self, question: str, right: Any, effort: str | None, own: random.Random) -> tuple[Any, bool]:
        """A value, and whether it is convincing nonsense."""
        rate = self._accuracy
        if isinstance(rate, Mapping):
            rate = looked_up(rate, self._class(question), effort, "accuracy")
        chance, drawn = own, own.random()
        if self._correlation and own.random() < self._correlation:
            chance = self._draw("shared", question)
            drawn = chance.random()
        if drawn < rate:
            return right, False
        return self._wrong_answer(question, right, chance), drawn >= 1 - self._nonsense

    def _wrong_answer(self, question: str, right: Any, chance: random.Random) -> Any:
        if self._wrong is not None:
            return self._wrong(question, right, chance)
        others = [value for value in self._answers.values() if value != right]
        return chance.choice(others) if others else spoilt(right, chance.randrange(self._variety))

    def _right(self, question: str) -> Any:
        question = part_of(question)
        return self._solve(question) if self._solve is not None else self._answers[self._task(question)]

    def _task(self, question: str) -> str:
        if question in self._answers:
            return question
        fitting = [task for task in self._answers if task in question]
        if not fitting:
            raise ScriptError(f"{self._name} was given no answer for {question[:120]!r}")
        return max(fitting, key=len)

    def _class(self, question: str) -> str:
        question = part_of(question)
        if self._task_class is not None:
            return self._task_class(question)
        return question if self._solve is not None else self._task(question)

    def _class_of(self, asked: Asked) -> str:
        return "" if asked.role == "split" else self._class(asked.question)

    def _split(self, question: str, schema: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        parts = invented(question, self._splitter) if isinstance(self._splitter, int) else self._splitter(question)
        return split_parts(parts, schema, self._right)

    def _fault(self, written_messages: str, request: ModelRequest) -> Fault | None:
        whole = f"{request.seed}\0{request.effort}\0{written_messages}"
        key = hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=16).digest()
        with _counting:
            times = self._times[key] = self._times.get(key, 0) + 1
        drawn = self._draw("fault", times, key.hex()).random()
        for fault, share in self._faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    def _draw(self, *parts: Any) -> random.Random:
        text = "\0".join(map(str, (self._seed, *parts)))
        return random.Random(hashlib.sha256(text.encode("utf-8", "replace")).digest())

    async def _wait(self, seconds: float, deadline: float | None) -> bool:
        left = None if deadline is None else deadline - time.monotonic()
        late = left is not None and seconds > left
        await asyncio.sleep(max(0.0, left) if late and left is not None else seconds)
        return late

    def _cost(self, usage: TokenUsage) -> Cost:
        if self._price is None:
            return _UNPRICED
        cost = self._costs.get(usage)
        if cost is None:
            if len(self._costs) >= MOST_COSTS:
                self._costs.clear()
            cost = self._costs[usage] = token_cost(usage, self._name, self._price)
        return cost

    def _attempt(
        self, id: str, outcome: WireOutcome, started: float, usage: TokenUsage, fault: Fault | None = None
    ) -> WireAttempt:
        status = 200 if outcome == "ok" else None
        if fault is not None and outcome != "ok":
            status = fault.status
        if status is not None and status >= 300:
            cost, usage = Cost.exact(0), TokenUsage()  # no provider we know of bills an error status
        else:
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
            status=status,
            answered_model=self._name if outcome == "ok" else None,
            reason=None if outcome == "ok" else f"The simulated answer was {outcome}.",
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer, what it is billed by, and the fault that it goes wrong with."""

    answer: Reply
    usage: TokenUsage
    fault: Fault | None = None


def _with_fault(fault: Fault, answer: Reply, usage: TokenUsage, messages: str, limit: int | None) -> _Said:
    answer = fault.answer or answer
    if fault.kind == "trickle":
        size = len((answer.text or "").encode("utf-8", "replace"))
        return _Said(replace(answer, delay=answer.delay + size / max(fault.amount, 1e-9)), usage, fault)
    if fault.kind == "usage":  # what nobody says is estimated, and never too low
        most = usage.output if limit is None else limit
        usage = TokenUsage(len(messages.encode("utf-8", "replace")), most, source="estimated")
    return _Said(answer, usage, fault)
