"""``@specialist``: a typed function around a small model, with its verifier, floor, time limit and ladder.

A specialist can be called, solved and tested by itself: no brain, no key, no registry.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import inspect
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from pydantic import TypeAdapter

from .adapters import adapter_of, schema_of, try_out
from .answers import Answer, Effort, answer_type_of, is_effort, probability, source_of
from .breaker import Breaker, BreakerOpen
from .climb import Hooks, LadderRung, Question, climb
from .errors import CannotAnswer, DeadlinePassed, DefinitionError, InvalidAnswer, Overloaded
from .ladder import AcceptLevel, Attempt, CertificateState, Outcome, RungPolicy
from .loops import current_deadline, run_in_thread, run_sync
from .metering import CpuMeter, current_meter, metered
from .signatures import Signature, check_answer
from .verifiers import Verifier, run_verifier
from .voting import Ballot, Symmetry, count_votes

__all__ = ["Specialist", "specialist"]

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from .certificates import Certificate
    from .watching import Watch

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class Specialist(Generic[P, T]):
    """A typed function with a ladder. Made by :func:`specialist`; immutable and safe for concurrent calls.

    ``await s(...)`` gives the function's own answer, unchecked. ``await s.solve(...)`` climbs the local rungs and
    gives an :class:`Outcome`; ``s.solve_sync(...)`` is its twin.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        verify: Verifier | None = None,
        sound: bool = False,
        complete: bool = False,
        min_confidence: float | None = None,
        timeout: float | None = None,
        steps: tuple[int, ...] | Literal["auto"] = (),
        next: Specialist[..., Any] | None = None,
        hedge: float | None = None,
        symmetries: Sequence[Symmetry] = (),
        audit: Verifier | None = None,
    ) -> None:
        if isinstance(function, Specialist):
            raise DefinitionError(f"{function!r} is a specialist already; decorate its function once")
        self.signature = Signature(function, injected=is_effort)
        self.function = function
        self.name = name or self.signature.name
        self.description = description or self.signature.description
        self.verify = verify
        self.sound = sound
        self.complete = complete
        self.min_confidence = min_confidence
        self.timeout = timeout
        self.steps: tuple[int, ...] | Literal["auto"] = steps if isinstance(steps, str) else tuple(steps)
        self.next = next
        self.hedge = hedge
        self.symmetries = tuple(symmetries)
        self.audit = audit
        self.breaker = Breaker()
        self.certificate: Certificate | None = None
        self._void: str | None = None
        self._origin: Specialist[P, T] | None = None
        self.__name__ = self.name
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self._check_declaration()
        self.answer_type = answer_type_of(self.signature.returns, self.name)
        try:
            try_out(self.answer_type)
        except Exception as error:  # pydantic has several exceptions for a type it cannot describe
            raise DefinitionError(f"{self.name}: its answer's type cannot be checked: {error}") from None

    def _check_declaration(self) -> None:
        # ASCII only: two names that look alike must not be two specialists.
        if not _NAME.fullmatch(self.name):
            raise DefinitionError(
                f"{self.name!r} cannot be a specialist's name: pass name= with up to 64 of the letters a-z, A-Z,"
                " digits, '_', '-' and '.', and begin with a letter or '_'"
            )
        if (self.sound or self.complete) and self.verify is None:
            raise DefinitionError(f"{self.name}: sound and complete are said of a verifier, and there is none")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise DefinitionError(f"{self.name}: min_confidence is a probability, not {self.min_confidence}")
        if self.timeout is not None and not self.timeout > 0:
            raise DefinitionError(f"{self.name}: timeout is in seconds and positive, not {self.timeout}")
        if self.hedge is not None and not self.hedge > 0:
            raise DefinitionError(f"{self.name}: hedge is in seconds and positive, not {self.hedge}")
        steps = () if self.steps == "auto" else self.steps
        if isinstance(steps, str) or list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
            raise DefinitionError(
                f"{self.name}: steps are growing positive numbers, one per rung, or 'auto', not {self.steps!r}"
            )
        if self.steps and not self.signature.injected_names:
            raise DefinitionError(f"{self.name}: steps are of use only to a function with a parameter of type Effort")
        if wrong := [each for each in self.symmetries if not isinstance(each, Symmetry)]:
            raise DefinitionError(f"{self.name}: symmetries are of type specialists.Symmetry, not {wrong[0]!r}")
        if self.next is not None:
            mine, others = self.parameters, self.next.parameters
            unknown = sorted(set(mine["properties"]) - set(others["properties"]))
            missing = sorted(set(others.get("required", ())) - set(mine["properties"]))
            if unknown or missing:
                which = (unknown or missing)[0]
                raise DefinitionError(
                    f"{self.name}: {self.next.name} cannot be next: parameter {which!r} is not one of both, and"
                    " the same question is put to both"
                )

    def __repr__(self) -> str:
        return f"<specialist {self.name}>"

    def with_certificate(
        self, certificate: Certificate | None, *, folder: str | None = None, void: str | None = None
    ) -> Specialist[P, T]:
        """This specialist with what a calibration found of it; the two share everything else.

        ``folder``: the digest of its folder now. Where that, the ladder or the name is not the certificate's, the
        certificate is kept and is void; so too with ``void``, a reason of the caller's own.
        """
        twin = copy.copy(self)
        twin._origin = self  # who shares the original by a weak reference goes on sharing it
        twin.certificate = certificate
        twin._void = None
        if certificate is not None:
            twin._void = void or certificate.problem(specialist=self.name, folder=folder, ladder=self.ladder_digest)
        return twin

    @functools.cached_property
    def ladder_digest(self) -> str:
        """Sha256 over what is declared in code: rungs, steps, verifiers, and the source of functions where it is there.

        A certificate holds for this ladder only.
        """
        told: list[Any] = []
        who: Specialist[..., Any] | None = self
        seen: set[str] = set()
        while who is not None and who.name not in seen:
            seen.add(who.name)
            symmetries = [[each.name, source_of(each.arguments), source_of(each.answer)] for each in who.symmetries]
            functions = [source_of(who.function), None if who.verify is None else source_of(who.verify)]
            told.append([who.name, who.steps, who.sound, who.complete, who.hedge, symmetries, functions])
            who = who.next
        return hashlib.sha256(json.dumps(told).encode("utf-8", "surrogatepass")).hexdigest()

    def certificate_state(self, group: str | None = None, *, max_steps: int | None = None) -> CertificateState:
        """How the certificate stands in a call of ``group``: valid, missing or void, and why."""
        if self.certificate is None:
            return CertificateState("missing", "none was made", group=group)
        void = self._void
        if max_steps is not None and self._is_capped(max_steps):
            void = void or f"this call's steps are capped at {max_steps}"
        if void is not None:
            return CertificateState("void", void, self.certificate.id, group=group)
        return self.certificate.state(group)

    @functools.cached_property
    def answers(self) -> TypeAdapter[Any]:
        """What checks an answer's type."""
        return adapter_of(self.answer_type)

    @functools.cached_property
    def returns(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return schema_of(self.answer_type)

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return self.signature.schema

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """The function's own answer, unchecked by any verifier. Raises :class:`InvalidArguments`."""
        arguments, effort = self._split(args, kwargs)
        return cast("Answer[T]", await self._answer(arguments, effort))

    async def solve(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Climb the local rungs. Raises :class:`InvalidArguments`; everything else is in the outcome.

        A given :class:`Effort` caps the steps of every rung and the time of them all.
        """
        arguments, effort = self._split(args, kwargs)
        return await self.climb(arguments, max_steps=effort.max_steps, deadline=effort.deadline)

    def solve_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """:meth:`solve` for callers without an event loop. Raises ``RuntimeError`` on one that runs."""
        return run_sync(lambda: self.solve(*args, **kwargs))

    def _split(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], Effort]:
        arguments, given = self.signature.split(*args, **kwargs)
        return arguments, next((effort for effort in given.values() if effort is not None), Effort())

    async def climb(
        self,
        arguments: Mapping[str, Any],
        *,
        accept: AcceptLevel = "confident",
        deadline: float | None = None,
        hooks: Hooks | None = None,
        above: tuple[LadderRung, ...] = (),
        max_steps: int | None = None,
        timeout: float | None = None,
        resting: bool = True,
        group: str | None = None,
        watch: Watch | None = None,
        call_id: str | None = None,
    ) -> Outcome[T]:
        """Climb with checked arguments: the local rungs, then the rungs ``above`` (a brain adds the big model).

        ``max_steps`` caps the steps of every rung. ``timeout`` stands in place of the specialists' own time limits.
        ``resting``: whether a specialist that has failed again and again is given a rest, and its rungs are passed by.
        ``group``: an opaque string; a certificate that was made with groups holds for each of them by itself.
        ``watch``: audits a share of what the certificate accepts, drawn by ``call_id``, and knows if it was revoked.
        """
        rungs = (*self.ladder(max_steps=max_steps, timeout=timeout, resting=resting), *above)
        state = self.certificate_state(group, max_steps=max_steps)
        auditor = None
        if watch is not None and state.status == "valid" and self.certificate is not None:
            from .auditing import Auditor

            call_id = call_id or os.urandom(16).hex()
            auditor = Auditor.of(watch, self.certificate, call_id, self.audit)
            state = await auditor.state(state)
        if state.status == "valid":
            rungs = self._with_floors(rungs, group)
        outcome = await climb(rungs, arguments, accept=accept, deadline=deadline, hooks=hooks, certificate=state)
        if auditor is not None:
            outcome = await auditor.after(outcome, above, deadline, hooks)
        return replace(outcome, tool=self.name, call_id=call_id)

    def under(
        self, accept: AcceptLevel = "certified", *, group: str | None = None, watch: Watch | None = None
    ) -> Asked[P, T]:
        """How to ask under a certificate: ``await s.under("certified", group="de").solve(...)``."""
        return Asked(self, accept, group, watch)

    def _is_capped(self, max_steps: int) -> bool:
        """Whether so few steps change what any rung of the ladder does."""
        who: Specialist[..., Any] | None = self
        seen: set[str] = set()
        while who is not None and who.name not in seen:
            seen.add(who.name)
            thinks = bool(who.signature.injected_names)
            if thinks and any(effort is None or effort > max_steps for effort in who._efforts):
                return True
            who = who.next
        return False

    def _with_floors(self, rungs: tuple[LadderRung, ...], group: str | None) -> tuple[LadderRung, ...]:
        """The rungs with the floors that the certificate gives them."""
        certified = self.certificate and self.certificate.of(group)
        if not certified:
            return rungs
        floors = {name: each.floors() for name, each in certified.policy.items()}
        return tuple(
            replace(rung, policy=replace(rung.policy, certified=floors.get(rung.policy.name))) for rung in rungs
        )

    def ladder(
        self, *, max_steps: int | None = None, timeout: float | None = None, resting: bool = True
    ) -> tuple[LadderRung, ...]:
        """The local rungs in order: this specialist, more steps of it, the next specialists."""
        first = self._efforts[0]
        rungs = [self._rung("specialist", "specialist", self, _least(first, max_steps), timeout, resting)]
        for index, (before, steps) in enumerate(pairwise(self._efforts)):
            if max_steps is not None and before is not None and before >= max_steps:
                break
            name = "more_steps" if index == 0 else f"more_steps_{index + 1}"
            rungs.append(self._rung(name, "more_steps", self, _least(steps, max_steps), timeout, resting))
        if self.symmetries:
            last = _least(self._efforts[-1], max_steps)
            rungs.append(self._rung("vote", "vote", self, last, timeout, resting))
        seen, other = {self.name}, self.next
        while other is not None and other.name not in seen:
            last = _least(other._efforts[-1], max_steps)
            rungs.append(self._rung(f"next:{other.name}", "next", other, last, timeout, resting))
            seen.add(other.name)
            other = other.next
        return tuple(rungs)

    @property
    def _efforts(self) -> tuple[int | None, ...]:
        """The most steps of each rung of its own; ``None``: as many as the function thinks fit."""
        return (None,) if isinstance(self.steps, str) else self.steps or (None,)

    async def check(self, arguments: Mapping[str, Any], attempt: Attempt) -> Attempt:
        """``attempt`` with the verdict of this specialist's verifier on its value, if there is one."""
        if self.verify is None or attempt.outcome != "answered":
            return attempt
        return replace(attempt, verdict=await run_verifier(self.verify, arguments, attempt.value))

    def _rung(
        self,
        name: str,
        kind: Any,
        who: Specialist[..., Any],
        max_steps: int | None,
        timeout: float | None,
        resting: bool,
    ) -> LadderRung:
        # The same typed question has the same check, whoever answers it; who has none brings his own.
        judge = self if self.verify is not None else who
        policy = RungPolicy(
            name=name,
            kind=kind,
            min_confidence=who.min_confidence,
            sound=judge.sound,
            complete=judge.complete,
            checked=judge.verify is not None or who.min_confidence is not None,
        )

        async def run(question: Question) -> Attempt:
            if not resting:
                return await who._attempt(name, question, max_steps, judge, self, timeout)
            try:
                probe = who.breaker.enter()
            except BreakerOpen as error:
                rest = f"it has failed again and again and is given {error.seconds:.0f} s more of rest"
                return Attempt(name, "refused", 0.0, reason=rest, source=who.name)
            ended: Literal["up", "down", "unknown"] = "unknown"
            try:
                attempt = await who._attempt(name, question, max_steps, judge, self, timeout)
                ended = _health(attempt, question)
            finally:
                who.breaker.leave(probe, ended)
            return attempt

        return LadderRung(policy, run)

    async def _attempt(
        self,
        rung: str,
        question: Question,
        max_steps: int | None,
        judge: Specialist[..., Any],
        asker: Specialist[..., Any],
        timeout: float | None,
    ) -> Attempt:
        start = time.perf_counter()
        meter = question.meter
        metering = current_meter.set(meter)
        limits = [limit for limit in (timeout or self.timeout, question.remaining()) if limit is not None]
        limit = min(limits, default=None)
        effort = Effort(max_steps, None if limit is None else time.monotonic() + limit)
        limiting = current_deadline.set(effort.deadline)
        timer = asyncio.timeout(limit)
        fields: dict[str, Any]
        try:
            async with timer:
                # A copy: what a function does to its arguments must not change the question for who checks the answer.
                arguments: Mapping[str, Any] = copy.deepcopy(question.arguments)
                if asker is not self:  # another's question: its types may be wider
                    arguments = self.signature.check(arguments)
                if rung == "vote":
                    answer = await self._vote(question, effort, meter)
                elif self.hedge is None:
                    answer = await metered(self._answer(arguments, effort), meter)
                else:
                    answer = await self._hedged(arguments, effort, meter, self.hedge)
                value = check_answer(asker.answers, answer.value, self.name)
                fields = {
                    "outcome": "answered",
                    "value": value,
                    "confidence": probability(answer.confidence, self.name),
                }
                fields["steps"] = None if answer.steps is None else int(answer.steps)
                if judge.verify is not None:
                    fields["verdict"] = await metered(run_verifier(judge.verify, question.arguments, value), meter)
            if effort.remaining() == 0:
                fields = self._too_late(limit)  # it never let the loop run, so nothing could stop it
        except CannotAnswer as error:
            fields = {"outcome": "cannot", "reason": str(error) or "it has no answer"}
        except InvalidAnswer as error:
            fields = {"outcome": "invalid", "reason": str(error)}
        except Overloaded as error:
            fields = {"outcome": "overloaded", "reason": str(error)}
        except DeadlinePassed as error:
            fields = {"outcome": "timeout", "reason": str(error)}
        except (
            Exception,
            SystemExit,
        ) as error:  # a specialist's function is other people's code: it becomes an attempt
            late = isinstance(error, TimeoutError) and timer.expired()
            fields = self._too_late(limit) if late else {"outcome": "error", "reason": _said(error)}
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            fields = {"outcome": "error", "reason": _said(error)}  # something the function waited for was cancelled
        finally:
            current_meter.reset(metering)
            current_deadline.reset(limiting)
        return Attempt(
            rung=rung,
            seconds=time.perf_counter() - start,
            source=self.name,
            cpu_seconds=meter.high,
            cpu_seconds_low=meter.low,
            ran=tuple(sorted(meter.ran)),
            **fields,
        )

    def _too_late(self, limit: float | None) -> dict[str, Any]:
        thread = "" if inspect.iscoroutinefunction(self.function) else "; its thread runs on until it ends"
        return {"outcome": "timeout", "reason": f"no answer within {limit:g} s{thread}"}

    async def _hedged(
        self, arguments: Mapping[str, Any], effort: Effort, meter: CpuMeter, patience: float
    ) -> Answer[Any]:
        """Ask a second time when the first answer takes long, and take whichever comes first; both are paid for.

        Dean and Barroso, The Tail at Scale (2013), "hedged requests".
        """

        def ask() -> asyncio.Task[Answer[Any]]:
            async def answer() -> Answer[Any]:
                found: Answer[Any] = await metered(self._answer(copy.deepcopy(arguments), effort), meter)
                return found

            return asyncio.create_task(answer())

        asked = {ask()}
        try:
            done, _ = await asyncio.wait(asked, timeout=patience)
            if not done:
                asked.add(ask())
            waiting = set(asked)
            while True:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                answered = [task for task in ended if not task.cancelled() and task.exception() is None]
                if answered or not waiting:
                    return await (answered or [*ended])[0]
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _vote(self, question: Question, effort: Effort, meter: CpuMeter) -> Answer[Any]:
        """Ask symmetric variants of the input and let them vote, with this specialist's first answer."""
        original = question.arguments

        async def opinion(symmetry: Symmetry) -> tuple[Ballot, int | None]:
            arguments = self.signature.check(symmetry.arguments(copy.deepcopy(original)))
            answer: Answer[Any] = await metered(self._answer(arguments, effort), meter)
            value = check_answer(self.answers, symmetry.answer(original, answer.value), self.name)
            verdict = None if self.verify is None else await metered(run_verifier(self.verify, original, value), meter)
            return Ballot(value, probability(answer.confidence, self.name), verdict), answer.steps

        told = await asyncio.gather(*map(opinion, self.symmetries), return_exceptions=True)
        errors = [each for each in told if isinstance(each, BaseException)]
        if stop := next((each for each in errors if not isinstance(each, Exception)), None):
            raise stop
        opinions = [each for each in told if not isinstance(each, BaseException)]
        # The first answer and no other: it is there whichever rungs a policy does without.
        own = [each for each in question.attempts if each.source == self.name][:1]
        before = [Ballot(each.value, each.confidence, each.verdict) for each in own if each.outcome == "answered"]
        won = count_votes([*before, *(ballot for ballot, _ in opinions)], len(told) + len(own))
        if won is None:
            raise errors[0]
        steps = [each for _, each in opinions if each is not None]
        return Answer(won.value, won.confidence, sum(steps) if steps else None)

    async def _answer(self, arguments: Mapping[str, Any], effort: Effort) -> Answer[Any]:
        given = {**arguments, **dict.fromkeys(self.signature.injected_names, effort)}
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**given)
        else:
            result = await run_in_thread(self.function, **given)
            if inspect.isawaitable(result):
                result = await result
        return result if isinstance(result, Answer) else Answer(result)


@dataclass(frozen=True, slots=True)
class Asked(Generic[P, T]):
    """A specialist with what its caller wants of answers; made by :meth:`Specialist.under`."""

    specialist: Specialist[P, T]
    accept: AcceptLevel
    group: str | None = None
    watch: Watch | None = None

    async def solve(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """Climb the local rungs; see :meth:`Specialist.solve`."""
        arguments, effort = self.specialist._split(args, kwargs)
        return await self.specialist.climb(
            arguments,
            accept=self.accept,
            max_steps=effort.max_steps,
            deadline=effort.deadline,
            group=self.group,
            watch=self.watch,
        )

    def solve_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        """:meth:`solve` for callers without an event loop. Raises ``RuntimeError`` on one that runs."""
        return run_sync(lambda: self.solve(*args, **kwargs))


@overload
def specialist(function: Callable[P, Awaitable[Answer[T]]], /) -> Specialist[P, T]: ...
@overload
def specialist(function: Callable[P, Answer[T]], /) -> Specialist[P, T]: ...
@overload
def specialist(function: Callable[P, Awaitable[T]], /) -> Specialist[P, T]: ...
@overload
def specialist(function: Callable[P, T], /) -> Specialist[P, T]: ...
@overload
def specialist(
    *,
    name: str | None = None,
    description: str | None = None,
    verify: Verifier | None = None,
    sound: bool = False,
    complete: bool = False,
    min_confidence: float | None = None,
    timeout: float | None = None,
    steps: tuple[int, ...] | Literal["auto"] = (),
    next: Specialist[..., Any] | None = None,
    hedge: float | None = None,
    symmetries: Sequence[Symmetry] = (),
    audit: Verifier | None = None,
) -> _Decorator: ...
def specialist(function: Callable[..., Any] | None = None, /, **declared: Any) -> Any:
    """Make a specialist of a typed function, sync or async; with or without arguments.

    The function's types are the schema, its docstring the description. It returns a value, or an :class:`Answer`.

    Args:
        name: The specialist's name; by default the function's.
        description: What it does, for whoever plans; by default the docstring.
        verify: ``verify(arguments, value) -> Verdict``, sync or async.
        sound: The verifier passes nothing wrong. Its pass then is a proof.
        complete: The verifier fails nothing right.
        min_confidence: The floor, 0 .. 1: an answer not proved right is accepted from here on.
        timeout: Seconds for one attempt.
        steps: For a function with a parameter of type :class:`Effort`: the steps of the first rung and of each
            further one. Or ``"auto"``: one rung, in which the function thinks as long as it finds that it pays.
        next: The specialist that is asked when this one's answer is not accepted.
        hedge: Seconds after which the function is run a second time beside the first; whichever answers first counts.
            For functions whose time varies by chance. A specialist's function has no effects, so twice does no harm.
        symmetries: Changes of the input that change the right answer in a known way. A rung asks such variants of the
            same input and lets them vote.
        audit: A check that passes nothing wrong and fails nothing right, too dear for every call. Of answers that a
            certificate accepts, a watched share is checked with it. Without one the big model is asked, and another
            answer than its own counts as wrong: where a question has several right answers, declare this.

    Raises:
        DefinitionError: when the function or what is declared of it cannot be used.
    """
    if function is None:
        return lambda inner: Specialist(inner, **declared)
    return Specialist(function, **declared)


class _Decorator:
    """The type of ``specialist(...)`` with arguments, for type checkers only."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[Answer[T]]], /) -> Specialist[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, Answer[T]], /) -> Specialist[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[T]], /) -> Specialist[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Specialist[P, T]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return Specialist(function)


def _health(attempt: Attempt, question: Question) -> Literal["up", "down", "unknown"]:
    """What an attempt tells of the specialist: nothing, where the caller left it too little time or too many called."""
    if attempt.outcome == "timeout":
        return "unknown" if question.remaining() == 0 else "down"
    if attempt.outcome in ("error", "invalid"):
        return "down"
    return "unknown" if attempt.outcome in ("overloaded", "cancelled") else "up"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _least(steps: int | None, cap: int | None) -> int | None:
    return min((value for value in (steps, cap) if value is not None), default=None)
