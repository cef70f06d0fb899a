"""A watched call: is its certificate still good, and, if its answer was drawn for an audit, is the answer right?

The audit is by the strongest check at hand: a verifier that was declared for audits, else the big model, else a person,
for whom the answer is kept. What follows from audits is :mod:`specialists.watching`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .climb import Hooks, LadderRung, Question, attempt_on
from .comparing import same_answer
from .errors import WatchError
from .ladder import CertificateState, Outcome, jsonable
from .loops import run_in_thread
from .verifiers import Verdict, Verifier, run_verifier
from .watching import MemoryStore, Watch, Watched

if TYPE_CHECKING:
    from .certificates import Certificate

__all__ = ["Auditor"]

T = TypeVar("T")

logger = logging.getLogger("specialists")


@dataclass(frozen=True, slots=True)
class Auditor:
    """The watch over one call. ``check``: the verifier for audits; ``call_id``: what the draw is made from."""

    watch: Watch
    watched: Watched
    call_id: str
    check: Verifier | None = None

    @classmethod
    def of(cls, watch: Watch, certificate: Certificate, call_id: str, check: Verifier | None) -> Auditor:
        """The watch over a call that ``certificate`` may speak of."""
        watched = Watched(
            certificate.specialist,
            certificate.id,
            certificate.alpha,
            certificate.delta,
            certificate.scores_edges,
            certificate.scores_counts,
        )
        return cls(watch, watched, call_id, check)

    async def state(self, state: CertificateState) -> CertificateState:
        """``state`` as the watch knows it: an alarm has revoked it, or it cannot be known whether one has."""
        # Told before an answer is accepted, and not at an audit.
        if self.watched.alpha + (self.watch.auditor_error or 0.0) >= 1:  # told before any answer, not at an audit
            impossible = "its alpha and the watch's auditor_error are 1 or more together, so no audit could test it"
            return replace(state, status="void", reason=impossible)
        try:
            reason = await self._ask(self.watch.revoked, self.watched)
        except WatchError as error:
            return replace(state, status="void", reason=f"its watch cannot be read: {error}")
        return state if reason is None else replace(state, status="revoked", reason=reason)

    async def after(
        self, outcome: Outcome[Any], above: Sequence[LadderRung], deadline: float | None, hooks: Hooks | None
    ) -> Outcome[Any]:
        """Count the call, and audit its answer if it was drawn; ``outcome`` with the audit, where a model made it."""
        try:
            confidence = outcome.attempts[0].confidence if outcome.attempts else None
            await self._ask(self.watch.seen, self.watched, self.call_id, confidence)
            if outcome.accepted_by != "certified" or not self.watch.draws(self.call_id):
                return outcome
            return await self._audit(outcome, above, deadline, hooks)
        except WatchError as error:
            logger.error("%s: call %s could not be audited: %s", self.watched.name, self.call_id, error)
            return outcome

    async def _audit(
        self, outcome: Outcome[Any], above: Sequence[LadderRung], deadline: float | None, hooks: Hooks | None
    ) -> Outcome[Any]:
        if self.check is not None:
            verdict = await _checked(self.check, outcome, deadline)
            if verdict.status != "unknown":
                await self._ask(self.watch.audited, self.watched, self.call_id, verdict.status == "failed", "verifier")
                return outcome
        big = next((rung for rung in above if rung.policy.kind == "big_model"), None)
        if big is not None:
            question = Question(outcome.arguments, (), deadline)
            attempt = await attempt_on(big.policy.name, big.run, question, hooks or Hooks())
            outcome = replace(outcome, audit=attempt)
            doubted = attempt.verdict is not None and attempt.verdict.status == "failed"
            if attempt.outcome == "answered" and not doubted:  # what fails the check itself can judge nobody
                wrong = not same_answer(outcome.value, attempt.value)
                await self._ask(self.watch.audited, self.watched, self.call_id, wrong, "big model")
                return outcome
        waiting = {"arguments": jsonable(dict(outcome.arguments)), "value": jsonable(outcome.value)}
        await self._ask(self.watch.pending, self.watched, self.call_id, json.dumps(waiting, ensure_ascii=False))
        return outcome

    async def _ask(self, method: Callable[..., T], *arguments: Any) -> T:
        if isinstance(self.watch.store, MemoryStore):
            return method(*arguments)
        return await run_in_thread(method, *arguments)  # the loop never waits for a disk


async def _checked(check: Verifier, outcome: Outcome[Any], deadline: float | None) -> Verdict:
    """What ``check`` says of the answer, if it says it before the call's deadline."""
    try:
        async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
            return await run_verifier(check, outcome.arguments, outcome.value)
    except TimeoutError:
        return Verdict.unknown("no time was left for it")
