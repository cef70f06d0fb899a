"""``@specialist``: what may be declared, what a call gives, what becomes of whatever a function does."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

from specialists import (
    Answer,
    Attempt,
    CannotAnswer,
    Certificate,
    Classification,
    DefinitionError,
    Effort,
    InvalidArguments,
    OnnxModel,
    Outcome,
    Symmetry,
    Verdict,
    calibrate,
    specialist,
)


@specialist
def plain(x: int, y: int = 2) -> int:
    """Add."""
    return x + y


@specialist(name="sum.of-two", description="Adds.", min_confidence=0.5, timeout=30)
async def declared(x: int, y: int = 2) -> Answer[int]:
    """Not this."""
    return Answer(x + y, confidence=0.9, steps=3)


async def test_with_and_without_arguments_sync_and_async() -> None:
    assert await plain(1) == Answer(3)
    assert await plain(1, y=5) == Answer(6)
    assert (plain.name, plain.description, plain.__doc__) == ("plain", "Add.", "Add.")
    assert await declared(1) == Answer(3, 0.9, 3)
    assert (declared.name, declared.description) == ("sum.of-two", "Adds.")
    outcome = await declared.solve(1, y=4)
    assert (outcome.value, outcome.accepted_by, outcome.tool) == (5, "confident", "sum.of-two")
    assert (outcome.attempts[0].confidence, outcome.attempts[0].steps) == (0.9, 3)
    assert (await plain.solve("1", 1)).value == 2  # type: ignore[arg-type]
    assert declared.returns == {"type": "integer"}


@pytest.mark.parametrize("x", ["one", None, 1.5])
async def test_bad_arguments_never_reach_the_function(x: Any) -> None:
    for call in (plain(x), plain.solve(x)):
        with pytest.raises(InvalidArguments, match=r"plain: x: input should be a valid integer"):
            await call


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        ({"sound": True}, "said of a verifier"),
        ({"complete": True}, "said of a verifier"),
        ({"min_confidence": 1.1}, "probability"),
        ({"min_confidence": float("nan")}, "probability"),
        ({"timeout": 0}, "positive"),
        ({"timeout": float("nan")}, "positive"),
        ({"steps": (4, 8)}, "parameter of type Effort"),
        ({"steps": (8, 4)}, "growing"),
        ({"steps": (0,)}, "growing"),
        ({"steps": "auto"}, "parameter of type Effort"),
        ({"steps": "many"}, "growing"),
        ({"name": "two words"}, r"pass name= with"),
        ({"name": "ѕudoku"}, r"pass name= with"),
        ({"name": "９lives"}, r"pass name= with"),
        ({"name": "a" * 65}, r"pass name= with"),
        ({"name": "a\n"}, r"pass name= with"),
        ({"name": "../etc"}, r"pass name= with"),
        ({"next": plain}, "parameter 'z' is not one of both"),
        ({"next": specialist(name="needy")(lambda: 1)}, "parameter 'x' is not one of both"),
    ],
)
def test_43_what_is_declared_is_checked(declaration: dict, says: str) -> None:
    def function(x: int, z: int = 1) -> int:
        return x

    with pytest.raises(DefinitionError, match=says):
        specialist(**declaration)(function)


def test_what_cannot_be_a_specialist_is_said_at_once() -> None:
    class Opaque:
        pass

    def returns_opaque(x: int) -> Opaque:
        return Opaque()

    def maybe(x: int) -> Answer[int] | None:
        return None

    with pytest.raises(DefinitionError, match="pass name="):
        specialist(lambda: 1)
    with pytest.raises(DefinitionError, match="already"):
        specialist(plain)
    with pytest.raises(DefinitionError, match="answer's type"):
        specialist(returns_opaque)
    with pytest.raises(DefinitionError, match="CannotAnswer"):
        specialist(maybe)
    assert specialist(name="one")(lambda: 1).solve_sync().value == 1


async def test_any_callable_may_be_one() -> None:
    class Adder:
        def __init__(self, base: int) -> None:
            self.base = base

        async def add(self, x: int) -> int:
            return x + self.base

        async def __call__(self, x: int) -> int:
            return x + self.base

    assert (await specialist(Adder(1).add).solve(1)).value == 2
    assert (await specialist(Adder(2)).solve(1)).value == 3
    assert (await specialist(functools.partial(Adder(3).add)).solve(1)).value == 4


async def test_the_answers_type_is_held_and_its_constraints() -> None:
    @specialist
    def share(x: float) -> Annotated[float, Field(ge=0, le=1)]:
        return x

    @specialist
    def label(x: str) -> Answer[Classification]:
        return Answer(Classification(label=x), confidence=np.float32(1.0) + np.float32(1e-7), steps=np.int64(2))  # type: ignore[arg-type]

    assert (await share.solve(0.5)).value == 0.5
    assert (await share.solve(2)).attempts[0].outcome == "invalid"
    outcome = await label.solve("a")
    assert outcome.value == Classification(label="a")
    assert outcome.attempts[0].confidence == 1.0
    json.dumps(outcome.to_json())


BAD_ENDS: list[tuple[Any, str, str]] = [
    (CannotAnswer("no solution"), "cannot", "no solution"),
    (CannotAnswer(), "cannot", "it has no answer"),
    (ZeroDivisionError("oh"), "error", "ZeroDivisionError: oh"),
    (TimeoutError("own"), "error", "TimeoutError: own"),
    (StopIteration(), "error", "StopIteration"),
    (SystemExit(3), "error", "SystemExit"),
    (asyncio.CancelledError(), "error", "CancelledError"),
    ("text", "invalid", "wrong type"),
    (float("nan"), "invalid", "not finite"),
    (Answer(1.0, confidence=1.5), "invalid", "not a probability"),
    (Answer(1.0, confidence=float("nan")), "invalid", "not a probability"),
    (Answer(1.0, confidence="high"), "error", "ValueError"),
]


@pytest.mark.parametrize(("end", "outcome", "reason"), BAD_ENDS, ids=lambda each: str(each)[:30])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_21_whatever_a_function_does_becomes_an_attempt(kind: str, end: Any, outcome: str, reason: str) -> None:
    def finish() -> Any:
        if isinstance(end, BaseException):
            raise end
        return end

    def in_thread(x: int) -> float:
        return finish()  # type: ignore[no-any-return]

    async def on_loop(x: int) -> float:
        return finish()  # type: ignore[no-any-return]

    async with asyncio.timeout(30):
        result = await specialist(in_thread if kind == "sync" else on_loop).solve(1)
    attempt = result.attempts[0]
    assert attempt.outcome == outcome
    assert reason in (attempt.reason or "")
    assert not result.accepted
    assert reason in (result.reason or "")


async def test_21_nan_from_a_model_is_a_typed_end(logarithm: Path) -> None:
    model = OnnxModel(logarithm)

    @specialist(min_confidence=0.0)
    async def log(x: float) -> Answer[float]:
        return Answer(float((await model.run(x=[x]))["y"][0]), confidence=1.0)

    assert (await log.solve(1.0)).value == 0.0
    outcome = await log.solve(-1.0)
    assert not outcome.accepted
    assert "ModelFailed" in (outcome.reason or "")


@pytest.mark.parametrize("kind", ["sync", "async", "deaf", "verifier"])
async def test_a_time_limit_ends_an_attempt(kind: str) -> None:
    release = threading.Event()

    def in_thread(x: int) -> int:
        release.wait(30)
        return 1

    async def on_loop(x: int) -> int:
        await asyncio.sleep(60)
        return 1

    async def deaf(x: int) -> int:
        time.sleep(0.3)  # noqa: ASYNC251 - it never lets the loop run
        return 1

    async def verify(arguments: Any, value: Any) -> Verdict:
        if kind == "verifier":
            await asyncio.sleep(60)
        return Verdict.passed()

    async def quick(x: int) -> int:
        return 1

    function = {"sync": in_thread, "async": on_loop, "deaf": deaf, "verifier": quick}[kind]
    outcome = await specialist(verify=verify, sound=True, timeout=0.1)(function).solve(1)  # type: ignore[arg-type]
    release.set()
    attempt = outcome.attempts[0]
    assert attempt.outcome == "timeout"
    assert "no answer within 0.1 s" in (attempt.reason or "")
    assert ("thread runs on" in (attempt.reason or "")) == (kind == "sync")
    assert outcome.value is None


async def test_a_sound_verifier_is_a_proof_and_an_unsound_one_is_not() -> None:
    def even(arguments: Any, value: int) -> bool:
        return value % 2 == 0

    def double(x: int) -> Answer[int]:
        return Answer(2 * x, confidence=0.1)

    proved = specialist(verify=even, sound=True, min_confidence=0.5)(double)
    assert (await proved.solve(1)).accepted_by == "verified"
    guessed = specialist(verify=even, min_confidence=0.5)(double)
    assert not (await guessed.solve(1)).accepted
    assert not (await specialist(verify=even)(double).solve(1)).accepted


async def test_a_function_cannot_change_the_question() -> None:
    seen: list[Any] = []

    def same_numbers(arguments: Any, value: list[int]) -> bool:
        seen.append(arguments["numbers"])
        return sorted(arguments["numbers"]) == value

    @specialist(verify=same_numbers, sound=True)
    def cheat(numbers: list[int]) -> list[int]:
        numbers.clear()
        return numbers

    outcome = await cheat.solve([2, 1])
    assert seen == [[2, 1]]
    assert not outcome.accepted
    assert outcome.arguments == {"numbers": [2, 1]}


class Thinker:
    """Needs ten steps; records what it was given."""

    def __init__(self) -> None:
        self.efforts: list[Effort] = []

    async def think(self, x: int, effort: Effort = Effort()) -> Answer[int]:  # noqa: B008 - immutable
        self.efforts.append(effort)
        steps = min(10, effort.max_steps or 10)
        return Answer(x, confidence=steps / 10, steps=steps)


async def test_steps_as_long_as_they_pay_are_one_rung_that_a_caller_may_cap() -> None:
    asked: list[int | None] = []

    @specialist(verify=lambda arguments, value: value > 9, sound=True, steps="auto")
    def thinker(x: int, effort: Effort) -> Answer[int]:
        asked.append(effort.max_steps)
        return Answer(x, steps=effort.max_steps or 10)

    @specialist(verify=lambda arguments, value: value > 9, sound=True, next=thinker)
    def before(x: int) -> int:
        return 0

    assert (await thinker.solve(10)).accepted_by == "verified"
    outcome = await thinker.solve(1, effort=Effort(max_steps=3))
    assert [attempt.rung for attempt in outcome.attempts] == ["specialist"]
    assert (await before.solve(10)).answered_by == "next:thinker"
    assert asked == [None, 3, None]


async def test_more_steps_are_rungs_of_their_own() -> None:
    thinker = Thinker()
    s = specialist(steps=(4, 8, 16), min_confidence=1.0)(thinker.think)
    assert list(s.parameters["properties"]) == ["x"]
    outcome = await s.solve(1)
    assert outcome.accepted_by == "confident"
    assert [effort.max_steps for effort in thinker.efforts] == [4, 8, 16]
    assert [attempt.rung for attempt in outcome.attempts] == ["specialist", "more_steps", "more_steps_2"]


@pytest.mark.parametrize(
    ("cap", "asked"), [(2, [2]), (4, [4]), (6, [4, 6]), (8, [4, 8]), (12, [4, 8, 9]), (99, [4, 8, 9])]
)
async def test_a_cap_on_steps_repeats_no_rung(cap: int, asked: list[int]) -> None:
    thinker = Thinker()
    s = specialist(steps=(4, 8, 9), min_confidence=1.0)(thinker.think)
    await s.climb({"x": 1}, max_steps=cap)
    assert [effort.max_steps for effort in thinker.efforts] == asked


async def test_an_effort_is_filled_in_with_and_without_a_default() -> None:
    given: list[Effort | None] = []

    @specialist(timeout=30)
    async def without(x: int, effort: Effort) -> int:
        given.append(effort)
        return x

    @specialist(timeout=30)
    async def optional(x: int, effort: Effort | None = None) -> int:
        given.append(effort)
        return x

    @specialist(timeout=30)
    async def annotated(x: int, effort: Annotated[Effort, "how hard"] = Effort()) -> int:  # noqa: B008 - immutable
        given.append(effort)
        return x

    for s in (without, optional, annotated):
        assert list(s.parameters["properties"]) == ["x"]
        given.clear()
        await s.solve(1, Effort(max_steps=3))
        await s(1, effort=Effort(max_steps=5))
        await s(1, Effort(max_steps=7))
        await s.climb({"x": 1})
        assert [each.max_steps for each in given if each] == [3, 5, 7, None]
        assert given[0] is not None
        assert given[0].deadline is not None
        with pytest.raises(InvalidArguments, match="effort is not a parameter"):
            s.signature.check_json('{"x": 1, "effort": {"max_steps": 1}}')


async def test_a_deadline_given_with_an_effort_holds_for_the_climb() -> None:
    async def slow(x: int, effort: Effort = Effort()) -> int:  # noqa: B008 - immutable
        await asyncio.sleep(60)
        return x

    outcome = await specialist(slow).solve(1, Effort(deadline=time.monotonic() + 0.05))
    assert outcome.attempts[0].outcome == "timeout"
    assert Effort(deadline=time.monotonic() - 1).remaining() == 0.0
    assert Effort().remaining() is None


async def test_the_next_specialist_is_asked_the_same_question() -> None:
    @specialist
    def second(x: int, more: int = 0) -> int:
        return 10 * x

    @specialist(min_confidence=0.9, next=second)
    def first(x: int) -> Answer[int]:
        return Answer(x, confidence=0.1)

    outcome = await first.solve(2)
    assert (outcome.value, outcome.answered_by, outcome.accepted_by) == (20, "next:second", "unchecked")
    assert [attempt.source for attempt in outcome.attempts] == ["first", "second"]

    @specialist
    def narrower(x: Annotated[int, Field(ge=5)]) -> int:
        return x

    @specialist(min_confidence=0.9, next=narrower)
    def wide(x: int) -> Answer[int]:
        return Answer(x, confidence=0.1)

    assert (await wide.solve(7)).value == 7
    assert "InvalidArguments" in ((await wide.solve(2)).reason or "")


async def test_33_cancelling_a_solve_leaves_no_task() -> None:
    tasks = asyncio.all_tasks()
    for s in (plain, declared):
        for steps in range(6):
            task = asyncio.ensure_future(s.solve(1))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == tasks


def test_the_sync_twin_works_from_many_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(plain.solve_sync, range(64)))
    assert [outcome.value for outcome in outcomes] == [number + 2 for number in range(64)]


async def test_the_sync_twin_refuses_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="await the async form"):
        plain.solve_sync(1)


def test_parameters_may_bear_the_names_of_methods() -> None:
    @specialist
    def odd(self: int, args: int, arguments: int = 1) -> int:
        return self + args + arguments

    assert odd.solve_sync(self=1, args=2).value == 4


def test_an_outcome_can_be_logged_and_read() -> None:
    outcome = declared.solve_sync(1)
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))
    assert again.to_json() == outcome.to_json()
    assert isinstance(again.attempts[0], Attempt)


def test_37_a_repr_says_no_more_than_the_name() -> None:
    token = "canary-1234"

    @specialist
    def secret(x: str = token) -> str:
        return x

    assert token not in repr(secret)


# Certificates.


def even_rows(count: int = 60) -> list[dict[str, Any]]:
    return [{"input": {"x": x}, "expected": x} for x in range(count)]


def test_a_specialist_with_a_certificate_is_another_that_shares_all_else() -> None:
    @specialist(name="same")
    def other(x: int) -> int:
        return x + 0

    certificate = calibrate(other, even_rows(), alpha=0.1).certificate

    @specialist(name="same")
    def same(x: int) -> int:
        return x

    made = calibrate(same, even_rows(), alpha=0.1).certificate
    twin = same.with_certificate(made)
    assert same.certificate is None
    assert same.certificate_state().status == "missing"
    assert twin.certificate_state().status == "valid"
    assert twin.breaker is same.breaker
    assert twin.signature is same.signature
    assert twin.solve_sync(3).accepted_by == "certified"
    assert same.solve_sync(3).accepted_by == "unchecked"
    assert twin.with_certificate(None).certificate_state().status == "missing"
    assert isinstance(made, Certificate)
    assert same.with_certificate(certificate).certificate_state().status == "void"
    void = twin.with_certificate(made, void="nobody trusts it").certificate_state()
    assert (void.status, void.reason, void.id) == ("void", "nobody trusts it", made.id)


def test_how_to_ask_under_a_certificate() -> None:
    @specialist
    def same(x: int) -> int:
        return x

    s = same.with_certificate(calibrate(same, even_rows(), alpha=0.1).certificate)
    assert s.under().solve_sync(x=1).accepted_by == "certified"
    assert s.under("verified").solve_sync(1).accepted_by is None
    outcome = s.under(group="de").solve_sync(1)
    assert outcome.certificate is not None
    assert (outcome.accepted_by, outcome.certificate.status, outcome.certificate.group) == (None, "missing", "de")
    with pytest.raises(InvalidArguments):
        s.under().solve_sync("one")
    with pytest.raises(ValueError, match="accept is one of"):
        s.under("sure").solve_sync(1)  # type: ignore[arg-type]


def ladders() -> dict[str, Any]:
    """Specialists of one name, each with another ladder."""

    def check(arguments: Any, value: int) -> bool:
        return True

    def other_check(arguments: Any, value: int) -> bool:
        return value > 0

    @specialist
    def after(x: int) -> int:
        return x

    @specialist(name="after")
    def another_after(x: int) -> int:
        return x + 0

    def same(x: int, effort: Effort) -> int:
        return x

    def changed(x: int, effort: Effort) -> int:
        return x + 0

    def turned(arguments: Any) -> Any:
        return arguments

    def declared(function: Any = same, **more: Any) -> Any:
        return specialist(name="same", **more)(function)

    return {
        "bare": declared(),
        "function": declared(changed),
        "verify": declared(verify=check),
        "another verify": declared(verify=other_check),
        "sound": declared(verify=check, sound=True),
        "complete": declared(verify=check, complete=True),
        "steps": declared(steps=(1, 2)),
        "other steps": declared(steps=(1, 3)),
        "auto": declared(steps="auto"),
        "hedge": declared(hedge=1.0),
        "next": declared(next=after),
        "another next": declared(next=another_after),
        "symmetries": declared(symmetries=[Symmetry("turned", turned)]),
        "two symmetries": declared(symmetries=[Symmetry("turned", turned), Symmetry("again", turned)]),
    }


def test_another_ladder_has_another_digest() -> None:
    digests = {name: each.ladder_digest for name, each in ladders().items()}
    assert len(set(digests.values())) == len(digests)
    assert {name: each.ladder_digest for name, each in ladders().items()} == digests
    # What is not asked under a certificate may change.
    one = ladders()["bare"]
    floor = specialist(name="same", min_confidence=0.3)(one.function)
    assert floor.ladder_digest == one.ladder_digest


def test_what_a_symmetry_does_is_of_the_ladder() -> None:
    def one(arguments: Any) -> Any:
        return {"x": arguments["x"] + 1}

    def other(arguments: Any) -> Any:
        return {"x": arguments["x"] + 2}

    digests = {specialist(symmetries=[Symmetry("on", each)])(plain.function).ladder_digest for each in (one, other)}
    assert len(digests) == 2


async def test_a_cap_on_the_steps_of_the_next_specialist_is_another_decoding_too() -> None:
    @specialist(steps=(16,))
    def after(x: int, effort: Effort) -> Answer[int]:
        return Answer(x if effort.max_steps == 16 else -x, 0.9)

    @specialist(steps=(4,), next=after)
    def before(x: int, effort: Effort) -> Answer[int]:
        raise CannotAnswer("ask another")

    s = before.with_certificate((await asyncio.to_thread(calibrate, before, even_rows(), alpha=0.1)).certificate)
    assert (await s.under().solve(x=3)).accepted_by == "certified"
    outcome = await s.climb({"x": 3}, accept="certified", max_steps=8)
    assert outcome.accepted_by is None


async def test_a_cap_that_changes_nothing_voids_nothing() -> None:
    @specialist(steps=(4, 8))
    def thinker(x: int, effort: Effort) -> Answer[int]:
        return Answer(x, 0.9)

    s = thinker.with_certificate((await asyncio.to_thread(calibrate, thinker, even_rows(), alpha=0.1)).certificate)
    assert (await s.climb({"x": 3}, accept="certified", max_steps=8)).accepted_by == "certified"
    outcome = await s.climb({"x": 3}, accept="certified", max_steps=7)
    assert outcome.accepted_by is None
    assert "steps are capped at 7" in str(outcome.reason)
