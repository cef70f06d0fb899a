"""The simulated model: its probabilities are what was stated, its roles are the contract, and a wire changes nothing.

Shares are held between binomial bounds so wide (five standard deviations) that a fixed seed which fails means a defect.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from brain import OpenAIModel
from brain.errors import BrainError, ModelError, RateLimited
from brain.events import ModelRequest, ModelResponse, TokenUsage, WireAttempt
from brain.prices import Price
from brain.testing import (
    FakeEndpoint,
    Fault,
    ScriptError,
    SimulatedJudge,
    SimulatedModel,
    SimulatedReviewer,
    SimulatedReviser,
    SimulatedVerifier,
    polish,
    reply,
)
from brain.testing.simulated_roles import is_right
from brain.testing.simulated_values import spoilt


def form(**properties: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: {"type": kind, "items": {"type": "string"}} if kind == "array" else {"type": kind}
        for name, kind in properties.items()
    }
    return {"type": "object", "properties": made, "required": list(made), "additionalProperties": False}


ANSWER = form(answer="integer")
EXPLAINED = form(steps="array", answer="integer")
SCHEMAS = {
    "judgement": form(better="string"),
    "verdict": form(verdict="string", reason="string"),
    "review": form(stands="boolean", reason="string"),
    "split": {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": form(id="string", task="string", type="string")}},
    },
}
QUESTION = "What is twelve?"  # 15 characters


def length(question: str) -> int:
    return len(question)


def simulated(**more: Any) -> SimulatedModel:
    return SimulatedModel(**{"solve": length, **more})


def asking(content: str | Sequence[str], name: str = "answer", **more: Any) -> ModelRequest:
    """``content``: the user's words, or those of user and assistant in turn."""
    said = [content] if isinstance(content, str) else content
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return ModelRequest(messages, output_name=name, **{"output_schema": SCHEMAS.get(name, ANSWER), **more})


def asked_as(role: str, seed: int | None = None, effort: str | None = None, **material: Any) -> ModelRequest:
    return asking(json.dumps(material), role, seed=seed, effort=effort)


async def answer(model: Any, request: ModelRequest) -> ModelResponse:
    response: ModelResponse = await model.ask(request, on_attempt=lambda _: None)
    return response


async def said(model: SimulatedModel, request: ModelRequest) -> Any:
    return json.loads((await answer(model, request)).text or "")


async def samples(model: SimulatedModel, count: int, question: str = QUESTION, **more: Any) -> list[int]:
    return [(await said(model, asking(question, seed=seed, **more)))["answer"] for seed in range(count)]


def near(counted: int, total: int, share: float) -> bool:
    return abs(counted - total * share) <= 5 * math.sqrt(total * share * (1 - share)) + 1e-9


# Chance


async def test_samples_are_as_right_as_stated_and_the_same_for_the_same_seeds() -> None:
    drawn = await samples(simulated(accuracy=0.7), 3000)
    assert near(drawn.count(15), 3000, 0.7)
    assert drawn == await samples(simulated(accuracy=0.7), 3000)
    other = await samples(simulated(accuracy=0.7, seed=1), 3000)
    both = sum(one == 15 and two == 15 for one, two in zip(drawn, other, strict=True))
    assert near(both, 3000, 0.49), "another seed of the model is an independent draw"
    efforts = [await samples(simulated(accuracy=0.7), 3000, effort=effort) for effort in ("low", "high")]
    both = sum(one == 15 and two == 15 for one, two in zip(*efforts, strict=True))
    assert near(both, 3000, 0.49), "another effort is an independent draw"


async def test_a_request_without_seed_and_effort_draws_as_it_always_did() -> None:
    import hashlib

    for n in range(50):
        question = f"question {n}"
        chance = random.Random(hashlib.sha256(f"3\0{question}".encode()).digest())
        expected = len(question) if chance.random() < 0.5 else len(question) + 1
        assert (await said(simulated(accuracy=0.5, seed=3), asking(question)))["answer"] == expected


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
async def test_correlation_keeps_the_accuracy_and_shares_the_errors(correlation: float) -> None:
    model = simulated(accuracy=0.6, correlation=correlation, variety=50, keep_requests=False)
    right = same = both = 0
    questions = 4000
    for n in range(questions):
        one, two = await samples(model, 2, f"question {n:05}")
        right += one == 14
        both += one == 14 and two == 14
        same += one == two and one != 14
    assert near(right, questions, 0.6)
    # Both follow the shared draw with correlation squared, and are independent else.
    shared = correlation**2
    assert near(both, questions, shared * 0.6 + (1 - shared) * 0.36)
    assert near(same, questions, shared * 0.4 + (1 - shared) * 0.16 / 50)


async def test_what_is_shared_does_not_depend_on_the_effort() -> None:
    model = simulated(accuracy={"low": 0.4, "high": 0.8}, correlation=1)
    for n in range(200):
        question = f"question {n}"
        [low] = await samples(model, 1, question, effort="low")
        [high] = await samples(model, 1, question, effort="high")
        assert low != len(question) or high == len(question), "what is easy enough for little effort is for more"


async def test_accuracy_by_class_and_effort_in_any_form() -> None:
    def kind(question: str) -> str:
        return question.split()[0]

    table = {"easy": {"low": 1, "*": 0}, "hard": 0, "high": 1, "*": {"low": 0, "*": 1}}
    model = simulated(accuracy=table, task_class=kind)
    for question, effort, right in [
        ("easy one", "low", True),
        ("easy one", "high", False),
        ("easy one", None, False),
        ("hard one", "high", False),
        ("other", "high", True),
        ("other", "low", False),
        ("other", None, True),
    ]:
        got = (await said(model, asking(question, effort=effort)))["answer"]
        assert (got == len(question)) is right, (question, effort)
    turned = simulated(accuracy={"low": {"easy": 1, "*": 0}, "*": 0}, task_class=kind)
    assert (await said(turned, asking("easy one", effort="low")))["answer"] == 8
    assert (await said(turned, asking("easy one", effort="high")))["answer"] != 8
    gap = simulated(accuracy={"easy": {"low": 0.5}}, task_class=kind)
    with pytest.raises(ScriptError, match=r"accuracy for 'hard'.*'high'"):
        await answer(gap, asking("hard one", effort="high"))
    with pytest.raises(ScriptError, match="without a stated effort"):
        await answer(gap, asking("easy one"))


async def test_the_ways_to_be_wrong() -> None:
    assert set(await samples(simulated(accuracy=0, variety=4), 200)) == {16, 17, 18, 19}

    def wrong(question: str, right: int, chance: random.Random) -> int:
        return right - chance.randint(1, 3)

    assert set(await samples(simulated(accuracy=0, wrong=wrong), 200)) == {12, 13, 14}
    assert set(await samples(simulated(accuracy=0, wrong=lambda question, right: 0), 5)) == {0}
    assert set(await samples(simulated(accuracy=0, wrong=lambda question, right, table=3: table), 5)) == {3}
    assert set(await samples(simulated(accuracy=0, wrong=max, solve=lambda _: "b"), 5)) == {"b"}


@pytest.mark.parametrize(
    "value", [0, 10**400, 1.5, 1e300, math.inf, math.nan, "", "aba", True, None, [], {}, [[]], {"a": []}, [True, "x"]]
)
def test_what_is_spoilt_is_wrong_and_of_the_same_shape(value: Any) -> None:
    for way in (0, 1):
        assert not is_right(spoilt(value, way), value)
        assert json.dumps(spoilt(value, way)) != json.dumps(value)
    if not isinstance(value, bool) and value not in (None, [], {}, [[]], {"a": []}) and value != [True, "x"]:
        assert spoilt(value, 0) != spoilt(value, 1)


# Explanations


async def test_nonsense_is_wrong_looks_perfect_and_is_as_frequent_as_stated() -> None:
    model = simulated(accuracy=0.6, nonsense=0.03, flaws=(1, 3))
    drawn = [await said(model, asking(QUESTION, seed=seed, output_schema=EXPLAINED)) for seed in range(4000)]
    assert near(sum(one["answer"] == 15 for one in drawn), 4000, 0.6)
    perfect = [one for one in drawn if polish(one) == 1]
    assert near(len(perfect), 4000, 0.03)
    assert not any(one["answer"] == 15 for one in perfect)
    assert list(drawn[0]) == ["steps", "answer"], "in the order of the schema"
    assert len({tuple(one["steps"]) for one in drawn}) > 1000
    assert len({json.dumps(one) for one in perfect}) > 20


@pytest.mark.parametrize("name", ["steps", "explanation", "reasoning"])
@pytest.mark.parametrize("kind", ["array", "string"])
@pytest.mark.parametrize(
    "question",
    [
        "Mr. Smith has 3.5 apples... maybe 4?? How many, I think?",
        "",
        "x" * 5000,
        "wait, no. hmm!",
        "שלום\u202e. ok",
        "a\nb",
    ],
)
async def test_nonsense_looks_perfect_whatever_was_asked(name: str, kind: str, question: str) -> None:
    nonsense, honest = simulated(accuracy=0, nonsense=1), simulated(flaws=(1, 1))
    for seed in range(20):
        request = asking(question, seed=seed, output_schema=form(**{name: kind, "answer": "integer"}))
        got = await said(nonsense, request)
        assert got["answer"] != len(question)
        assert isinstance(got[name], list if kind == "array" else str)
        assert polish(got) == polish(got[name]) == polish(json.dumps(got)) == 1, got
        assert 0 < polish(await said(honest, request)) < 1


async def test_an_explanation_beside_an_object_or_of_ones_own() -> None:
    class Point(BaseModel):
        x: int
        y: int

    schema = form(x="integer", y="integer", reasoning="string")
    got = await said(simulated(solve=lambda _: Point(x=1, y=2)), asking("q", output_schema=schema))
    assert (got["x"], got["y"]) == (1, 2)
    assert got["reasoning"]
    own = simulated(solve=lambda _: {"x": 1, "y": 2, "reasoning": "Mine."})
    assert (await said(own, asking("q", output_schema=schema)))["reasoning"] == "Mine."
    several = asking("q", output_schema=form(steps="array", x="integer", y="integer"))
    assert await said(simulated(solve=lambda _: 7), several) == 7, "nobody knows where it belongs"


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ([], 0),
        (None, 0),
        (42, 0),
        ({}, 0),
        ({"steps": None}, 0),
        ({"answer": 3}, 0),
        ("{broken", 0),
        ([1, None, {"a": 2}], 0),
        (["Add the two numbers."], 1),
        (["Add the two numbers.", "I think it is four."], 0.5),
        ("Add the two numbers. Then halve the sum. ok", 2 / 3),
        ({"reasoning": "Add the two numbers.\nwait, no, halve them."}, 0.5),
        ("[" * 100_000, 0),
        ('{"a":' * 100_000, 0),
    ],
)
def test_polish_goes_by_looks(value: Any, score: float) -> None:
    assert polish(value) == pytest.approx(score)


def test_polish_takes_typed_and_huge_values() -> None:
    class Proof(BaseModel):
        steps: list[str]

    assert polish(Proof(steps=["Add the two numbers."])) == 1
    assert polish(["Add the two numbers."] * 1_000_000) == 1
    assert 0 <= polish("a " * 1_000_000) <= 1


# Roles


async def test_a_judge_sees_the_better_answer_or_goes_by_place() -> None:
    model = simulated(judge=SimulatedJudge(accuracy=0.8, prefers_first=0.7))
    count = 2000
    for first, second, expected in [(15, 16, 0.8 + 0.2 * 0.7), (16, 15, 0.2 * 0.7), (15, 15, 0.7), (1, 2, 0.7)]:
        got = [
            (await said(model, asked_as("judgement", seed, question=QUESTION, first=first, second=second)))["better"]
            for seed in range(count)
        ]
        assert set(got) <= {"first", "second"}
        assert near(got.count("first"), count, expected), (first, second)
    sure = asked_as("judgement", question=QUESTION, first=3, second={"answer": 15, "steps": ["Count."]})
    assert await said(simulated(), sure) == {"better": "second"}


async def test_a_judge_abstains_and_garbles() -> None:
    model = simulated(judge=SimulatedJudge(abstains=0.5, garbles=0.2))
    requests = [asked_as("judgement", seed, question=QUESTION, first=15, second=2) for seed in range(2000)]
    texts = [(await answer(model, request)).text for request in requests]
    ties = texts.count('{"better": "tie"}')
    right = texts.count('{"better": "first"}')
    assert near(2000 - ties - right, 2000, 0.2)
    assert near(ties, 2000, 0.4)
    assert '{"better": "second"}' not in texts


async def test_a_verifier_lies_in_each_direction_as_stated() -> None:
    model = simulated(verifier=SimulatedVerifier(misses=0.2, accuses=0.1, unsure=0.3))
    count = 2000
    for value, passed in [(15, 0.7 * 0.9), (7, 0.7 * 0.2)]:
        requests = [asked_as("verdict", seed, question=QUESTION, answer=value) for seed in range(count)]
        got = [(await said(model, request))["verdict"] for request in requests]
        assert near(got.count("passed"), count, passed)
        assert near(got.count("unknown"), count, 0.3)
    assert SimulatedVerifier.lying(0.25) == SimulatedVerifier(misses=0.25, accuses=0.25)
    got = await said(simulated(), asked_as("verdict", question=QUESTION, answer=16))
    assert got["verdict"] == "failed"
    assert got["reason"]


async def test_a_reviewer_catches_and_overturns_as_stated() -> None:
    model = simulated(reviewer=SimulatedReviewer(catches=0.8, overturns=0.1))
    count = 2000
    for value, verdict, stands in [(15, "failed", 0.2), (15, "passed", 0.9), (7, "failed", 0.9), (7, "passed", 0.2)]:
        requests = [
            asked_as("review", seed, question=QUESTION, answer=value, verdict=verdict, reason="so")
            for seed in range(count)
        ]
        got = [(await said(model, request))["stands"] for request in requests]
        assert near(got.count(True), count, stands), (value, verdict)
    unsure = asked_as("review", question=QUESTION, answer=7, verdict="unknown", reason="")
    assert (await said(simulated(), unsure))["stands"] is True


async def test_a_reviser_answers_the_first_question_again() -> None:
    count = 1500

    async def right(model: SimulatedModel, before: int, *more: str) -> int:
        words = [QUESTION, json.dumps({"answer": before}), "That is wrong.", *more]
        asked = [asking(words, "revision", seed=seed) for seed in range(count)]
        return sum([(await said(model, request))["answer"] == 15 for request in asked])

    model = simulated(accuracy=0.3, reviser=SimulatedReviser(mends=0.6, harms=0.2))
    assert near(await right(model, 1), count, 0.6)
    assert near(await right(model, 15), count, 0.8)
    assert near(await right(model, 15, '{"answer": 2}', "No."), count, 0.6), "the last answer counts"
    assert near(await right(simulated(accuracy=0.3), 15), count, 0.3), "afresh, where nothing else was said"
    half = simulated(accuracy=0.3, reviser=SimulatedReviser(harms=0.0))
    assert await right(half, 15) == count
    assert near(await right(half, 1), count, 0.3)
    plain = await said(simulated(), asking([QUESTION, "no", "again?"], "answer"))
    assert plain["answer"] == len("again?"), "only a revision looks back"
    first = await said(simulated(), asking(QUESTION, "revision"))
    assert first["answer"] == 15, "there is nothing to revise"


async def test_a_splitter_splits_and_its_parts_are_answered() -> None:
    assert await said(simulated(), asking("q", "split")) == {"parts": []}
    five = simulated(splitter=5)
    parts = (await said(five, asking("What?", "split")))["parts"]
    assert [part["id"] for part in parts] == ["1", "2", "3", "4", "5"]
    assert len({part["task"] for part in parts}) == 5
    assert parts[0]["type"] == "integer"
    assert set(parts[0]) == {"id", "task", "type"}, "what the schema has room for"
    assert (await said(five, asking(parts[3]["task"])))["answer"] == len("What?")
    deeper = (await said(five, asking(parts[3]["task"], "split")))["parts"]
    assert (await said(five, asking(deeper[0]["task"])))["answer"] == len("What?")

    def split(task: str) -> list[Any]:
        return ["one", {"task": "two", "id": "b", "type": "boolean"}]

    made = (await said(simulated(splitter=split, solve=lambda _: 1 / 0), asking("q", "split")))["parts"]
    assert made == [
        {"id": "1", "task": "one", "type": "string"},
        {"id": "b", "task": "two", "type": "boolean"},
    ]
    free = asking("q", "split", output_schema={"type": "object", "properties": {"parts": {"type": "array"}}})
    assert (await said(simulated(splitter=split), free))["parts"][1]["needs"] == []
    for returned in ("text", {"task": "x"}, [3], [{"id": "x"}], None, 7):
        with pytest.raises(ScriptError, match="a splitter returns"):
            await answer(simulated(splitter=lambda task, it=returned: it), asking("q", "split"))


async def test_a_combiner_puts_answers_together() -> None:
    def total(question: str, answers: list[int]) -> int:
        answers.append(len(question))
        return sum(answers)

    request = asked_as("combine", question="q?", parts=[{"task": "a", "answer": 3}, {"task": "b", "answer": 4}])
    assert (await said(simulated(combiner=total), request))["answer"] == 9
    assert (await said(simulated(), request))["answer"] == 2
    count = 1500
    asked = [asked_as("combine", seed, question="q?", parts=[]) for seed in range(count)]
    assert near(sum([(await said(simulated(accuracy=0.4), each))["answer"] == 2 for each in asked]), count, 0.4)
    with pytest.raises(ScriptError, match="parts that each have an answer"):
        await answer(simulated(), asked_as("combine", question="q", parts=[{"task": "a"}]))


@pytest.mark.parametrize("role", ["judgement", "verdict", "review"])
@pytest.mark.parametrize("content", ["", "no json", "[]", '{"question": "q"}', "[" * 100_000, '{"a": NaN}'])
async def test_a_role_that_is_asked_wrongly_says_so(role: str, content: str) -> None:
    with pytest.raises(ScriptError, match=f"a {role} is asked with"):
        await answer(simulated(), asking(content, role))


async def test_a_question_that_bears_a_roles_name_is_a_question() -> None:
    for role in ("judgement", "verdict", "review", "split", "combine", "revision"):
        got = await said(simulated(), asking("hello", role, output_schema=ANSWER))
        assert got["answer"] == 5, role
        assert (await answer(simulated(), asking("hello", role, output_schema=None))).text == "5"
    with pytest.raises(ScriptError, match="the question of a verdict is text"):
        await answer(simulated(), asked_as("verdict", question=[1], answer=1))


@pytest.mark.parametrize(
    ("value", "right", "same"),
    [
        (7, 7, True),
        (7, 7.0, True),
        (1, True, False),
        (0, None, False),
        ("7", 7, True),
        ("7", "7", True),
        ("x7", 7, False),
        ({"answer": 7}, 7, True),
        ({"answer": 7, "steps": ["a"]}, 7, True),
        ({"answer": "7"}, 7, True),
        ({"answer": 7, "more": 1}, 7, False),
        ({"x": 1, "explanation": "so"}, {"x": 1}, True),
        ({"x": 1, "explanation": "so"}, {"x": 1, "explanation": "else"}, True),
        ({"x": 1}, {"x": 2}, False),
        ({}, 7, False),
        ([1, 2], (1, 2), True),
        ([1], [1, 2], False),
        (["1"], [1], False),
        (None, None, True),
        (math.nan, math.nan, False),
        (json.loads('{"a":' * 500 + "7" + "}" * 500), 7, False),
    ],
)
def test_which_answers_are_the_right_one(value: Any, right: Any, same: bool) -> None:
    assert is_right(value, right) is same


# Tokens, time and faults


async def test_reasoning_is_counted_in_the_output_and_in_the_time() -> None:
    model = simulated(reasoning_tokens={"low": 10, "*": 100}, tokens_per_second=1e6)
    low = (await answer(model, asking(QUESTION, effort="low"))).usage
    more = (await answer(model, asking(QUESTION))).usage
    assert (low.reasoning, more.reasoning) == (10, 100)
    assert low.output is not None
    assert more.output == low.output + 90
    assert low.input == more.input
    reply = model.reply({"messages": [{"role": "user", "content": "x"}]})
    assert reply.delay == pytest.approx(101 / 1e6)  # type: ignore[union-attr]
    assert simulated(latency=(1.0, 2.0)).reply({"messages": []}).delay != 1.0  # type: ignore[union-attr]


@pytest.mark.parametrize(("limit", "reasoning", "text"), [(100, 20, "abcdefghij"), (22, 20, "abcdefgh"), (5, 5, "")])
async def test_an_answer_is_cut_at_the_requests_limit(limit: int, reasoning: int, text: str) -> None:
    model = simulated(solve=lambda _: "abcdefghij", reasoning_tokens=20)
    got = await answer(model, asking("q", output_schema=None, max_output_tokens=limit))
    assert got.text == text
    assert got.usage.reasoning == reasoning
    assert got.usage.output is not None
    assert got.usage.output <= limit
    assert got.finish_reason == ("stop" if limit == 100 else "length")


def all_faults() -> list[Fault]:
    return [
        Fault.rate_limited(7),
        Fault.rate_limited("soon"),
        Fault.server_error(500),
        Fault.server_error(503, retry_after=2),
        Fault.rejected(404),
        Fault.rejected(401),
        Fault.rejected(408),
        Fault.rejected(413),
        Fault.context_overflow(),
        Fault.hang(),
        Fault.stall(),
        Fault.cut_stream(),
        Fault.close(),
        Fault.redirect("http://127.0.0.1:1/"),
        Fault.echo_key(),
        Fault.echo_key(401),
        Fault.enormous(9),
        Fault.trickle(1_000_000),
        *[Fault.malformed(kind) for kind in ("truncated", "invalid_utf8", "nan", "deep_nesting", "not_json")],  # type: ignore[arg-type]
        *[Fault.malformed(kind) for kind in ("duplicate_keys", "many_tool_calls", "wrong_types")],  # type: ignore[arg-type]
        *[Fault.usage(kind) for kind in ("missing", "zero", "negative", "absurd")],  # type: ignore[arg-type]
        Fault.usage("missing", reply("something else")),
    ]


async def one_try(model: Any, request: ModelRequest) -> tuple[Any, ...]:
    attempts: list[WireAttempt] = []
    error: BrainError | None = None
    ended: tuple[Any, ...]
    try:
        response = await model.ask(request, on_attempt=attempts.append)
        ended = (response.text, response.finish_reason, response.usage.source)
    except BrainError as raised:
        error = raised
        ended = (type(raised), getattr(raised, "retry_after", None))
    if isinstance(error, ModelError):
        assert error.wire_attempts == tuple(attempts)
    [attempt] = attempts
    return *ended, attempt.outcome, attempt.status, attempt.cost.status, attempt.usage.source


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.code}")
async def test_a_fault_is_the_same_in_process_and_over_the_wire(fault: Fault) -> None:
    model = simulated(faults={fault: 1.0}, price=Price(1, 1))
    direct = await one_try(model, asking(QUESTION))
    waits = fault.kind in ("hang", "stall")
    with FakeEndpoint(simulated(faults={fault: 1.0})) as endpoint:
        async with OpenAIModel(
            "simulated", base_url=endpoint.base_url, retries=0, timeout=0.3 if waits else 30, price=Price(1, 1)
        ) as wired:
            over = await one_try(wired, asking(QUESTION))
    *ended, outcome, status, cost, source = direct
    *ended_over, outcome_over, status_over, cost_over, source_over = over
    assert (ended, outcome, cost) == (ended_over, outcome_over, cost_over)
    if outcome not in ("timeout", "stream_cut", "protocol", "unreachable"):
        assert (status, source) == (status_over, source_over)


async def test_faults_are_as_frequent_as_stated_and_a_second_try_draws_again() -> None:
    model = simulated(faults={Fault.rate_limited(1): 0.2, Fault.server_error(): 0.1}, keep_requests=False)

    async def outcomes(model: SimulatedModel, requests: Sequence[ModelRequest]) -> list[str]:
        return [(await one_try(model, request))[-4] for request in requests]

    got = await outcomes(model, [asking(QUESTION, seed=seed) for seed in range(3000)])
    assert near(got.count("rate_limited"), 3000, 0.2)
    assert near(got.count("server_error"), 3000, 0.1)
    same = [asking(QUESTION, seed=1)] * 300
    again = await outcomes(simulated(faults={Fault.close(): 0.5}), same)
    assert near(again.count("ok"), 300, 0.5)
    assert again == await outcomes(simulated(faults={Fault.close(): 0.5}), same)
    texts = {(await answer(simulated(accuracy=0.5), request)).text for request in same}
    assert len(texts) == 1, "the answer is that of the request, however often it is asked"
    assert Fault.rate_limited(1) in {Fault.rate_limited(1): 0.2}


async def test_retries_over_the_wire_get_the_answer_in_the_end() -> None:
    faults = {Fault.rate_limited(0): 0.5}
    with FakeEndpoint(simulated(faults=faults)) as endpoint:
        async with OpenAIModel("m", base_url=endpoint.base_url, retries=20) as model:
            for seed in range(5):
                assert json.loads((await answer(model, asking(QUESTION, seed=seed))).text or "") == {"answer": 15}


async def test_refused_requests_cost_nothing_and_unanswered_ones_are_bounded() -> None:
    attempts: list[WireAttempt] = []
    for fault in (Fault.server_error(), Fault.hang()):
        with pytest.raises(ModelError):
            await simulated(faults={fault: 1}, price=Price(1, 1)).ask(asking("q"), on_attempt=attempts.append)
    assert [(one.cost.status, one.usage.source) for one in attempts] == [("exact", "absent"), ("bounded", "provider")]
    assert attempts[0].cost.high == 0
    with pytest.raises(RateLimited) as limited:
        await answer(simulated(faults={Fault.rate_limited(9): 1}), asking("q"))
    assert limited.value.retry_after == 9


async def test_a_budgets_refusal_comes_before_the_fault_and_the_deadline_holds() -> None:
    async def refuse(_: Any) -> None:
        raise ValueError("no room")

    attempts: list[WireAttempt] = []
    model = simulated(faults={Fault.close(): 1}, latency=60)
    with pytest.raises(ValueError, match="no room"):
        await model.ask(asking("q", on_send=refuse), on_attempt=attempts.append)
    assert not attempts
    ended = await one_try(model, asking("q", deadline=time.monotonic() + 0.01))
    assert ended[2] == "timeout"


# The wire


def all_requests() -> list[ModelRequest]:
    return [
        asking(QUESTION),
        asking(QUESTION, seed=5, effort="low"),
        asking("שלום 🎈 \x00 \u202e", seed=2**31),
        asking(QUESTION, output_schema=None, seed=0),
        asking(QUESTION, seed=3, output_schema=EXPLAINED),
        asking(QUESTION, seed=4, output_schema=form(reasoning="string", answer="integer"), effort="high"),
        asking(QUESTION, seed=4, max_output_tokens=3),
        asking([QUESTION, '{"answer": 1}', "No."], "revision", seed=8),
        asked_as("judgement", 1, question=QUESTION, first=3, second=4),
        asked_as("judgement", 2, "high", question=QUESTION, first=3, second=15),
        asked_as("verdict", 3, question=QUESTION, answer={"answer": 15}),
        asked_as("review", 4, question=QUESTION, answer=15, verdict="failed", reason="ü"),
        asking("Do it all", "split", seed=1),
        asked_as("combine", 9, question=QUESTION, parts=[{"task": "a", "answer": 1}]),
    ]


SETTINGS: dict[str, Any] = {
    "accuracy": {"low": 0.4, "*": 0.6},
    "correlation": 0.3,
    "variety": 9,
    "nonsense": 0.2,
    "reasoning_tokens": {"low": 7, "*": 70},
    "judge": SimulatedJudge(0.5, 0.6, 0.2, 0.1),
    "verifier": SimulatedVerifier.lying(0.4),
    "reviewer": SimulatedReviewer(0.5, 0.5),
    "reviser": SimulatedReviser(0.5, 0.5),
    "splitter": 2,
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_endpoint_gives_the_answers_that_asking_in_process_gives(streamed: bool) -> None:
    direct = simulated(**SETTINGS)
    with FakeEndpoint(simulated(**SETTINGS)) as endpoint:
        async with OpenAIModel("any", base_url=endpoint.base_url, retries=0) as wired:
            judgements = [asked_as("judgement", seed, question=QUESTION, first=1, second=2) for seed in range(60)]
            for request in [*all_requests(), *judgements, *(asking(QUESTION, seed=seed) for seed in range(30))]:
                here = await answer(direct, request)
                pieces: list[str] = []
                there = await wired.ask(request, on_attempt=lambda _: None, on_text=pieces.append if streamed else None)
                assert there.text == here.text
                assert there.finish_reason == here.finish_reason
                assert "".join(pieces) == (here.text if streamed else "")
                for count in ("input", "output", "reasoning", "cache_read", "source"):
                    assert getattr(there.usage, count) == getattr(here.usage, count), count
        assert endpoint.meter.reasoning == sum(
            usage_of(direct, received.body).reasoning or 0 for received in endpoint.requests
        )


def usage_of(model: SimulatedModel, body: dict[str, Any]) -> TokenUsage:
    said = model.reply(body)
    assert not isinstance(said, Fault)
    assert said.usage is not None
    return said.usage


async def test_effort_and_seed_reach_the_endpoint() -> None:
    with FakeEndpoint(simulated()) as endpoint:
        async with OpenAIModel("any", base_url=endpoint.base_url) as wired:
            await answer(wired, asking(QUESTION, seed=5, effort="low"))
            await answer(wired, asking(QUESTION))
    set_, unset = (received.body for received in endpoint.requests)
    assert (set_["reasoning_effort"], set_["seed"]) == ("low", 5)
    assert "seed" not in unset
    assert "reasoning_effort" not in unset


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": "x"},
        {"messages": [1]},
        {"messages": [], "seed": "1"},
        {"messages": [], "seed": True},
        {"messages": [], "reasoning_effort": 3},
        {"messages": [], "max_tokens": "many"},
    ],
)
def test_a_body_that_is_no_request_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"messages|seed|reasoning_effort"):
        simulated().reply(body)


@pytest.mark.parametrize(
    "odd",
    [
        {"response_format": 3},
        {"response_format": {"json_schema": []}},
        {"response_format": {"json_schema": {"name": 3, "schema": "x"}}},
        {"response_format": {"json_schema": {"name": "judgement", "schema": {"properties": 3}}}},
        {"response_format": {"json_schema": {"name": "split", "schema": {"properties": {"parts": 3}}}}},
        {"response_format": {"json_schema": {"schema": {"properties": {"steps": 3, "answer": {}}}}}},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [1, {"text": 2}, {"type": "image"}]}]},
        {"messages": [{"role": 3}, {}]},
        {"max_tokens": -1},
    ],
)
def test_an_odd_body_is_answered_all_the_same(odd: dict[str, Any]) -> None:
    said = simulated().reply({"messages": [], **odd})
    assert not isinstance(said, Fault)
    assert said.text is not None


# What it says of itself, and what it does not take


def test_it_says_that_it_is_a_simulation_and_all_that_it_was_told() -> None:
    model = simulated(**SETTINGS, price=Price("0.40", "1.60"), faults={Fault.hang(): 0.1, Fault.server_error(503): 0.2})
    told = model.describe()
    assert json.loads(json.dumps(told)) == told
    assert "not how a real model behaves" in told["simulation"]
    assert told["seed"] == 0
    assert told["accuracy"] == {"low": 0.4, "*": 0.6}
    assert told["judge"] == {"accuracy": 0.5, "prefers_first": 0.6, "abstains": 0.2, "garbles": 0.1}
    assert told["price"] == {"input": "0.40", "output": "1.60"}
    assert told["faults"] == [["hang", 0.1], ["server_error 503", 0.2]]
    assert "length" in simulated(task_class=length).describe()["task_class"]
    assert "simulation" in repr(model)
    assert "simulation" in (SimulatedModel.__doc__ or "")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"accuracy": math.nan}, "accuracy"),
        ({"accuracy": {"a": {"b": -0.1}}}, "accuracy"),
        ({"accuracy": True}, "accuracy"),
        ({"accuracy": "0.5"}, "accuracy"),
        ({"correlation": 2}, "correlation"),
        ({"nonsense": -1}, "nonsense"),
        ({"accuracy": 0.9, "nonsense": 0.2}, "nonsense"),
        ({"variety": 0}, "variety"),
        ({"flaws": (3, 1)}, "flaws"),
        ({"flaws": 2}, "flaws"),
        ({"reasoning_tokens": -1}, "reasoning_tokens"),
        ({"reasoning_tokens": {"low": 1.5}}, "reasoning_tokens"),
        ({"latency": -1}, "latency"),
        ({"latency": (2, 1)}, "latency"),
        ({"latency": math.inf}, "latency"),
        ({"tokens_per_second": 0}, "tokens_per_second"),
        ({"faults": {Fault.hang(): 1.2}}, "faults"),
        ({"faults": {"hang": 0.2}}, "faults"),
        ({"faults": {Fault.hang(): 0.6, Fault.close(): 0.6}}, "faults"),
        ({"judge": SimulatedVerifier()}, "judge"),
        ({"verifier": 0.2}, "verifier"),
        ({"splitter": -1}, "splitter"),
        ({"splitter": True}, "splitter"),
        ({"splitter": "x"}, "splitter"),
        ({"combiner": 3}, "combiner"),
        ({"task_class": "x"}, "task_class"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        simulated(**settings)


@pytest.mark.parametrize("kind", [SimulatedJudge, SimulatedVerifier, SimulatedReviewer, SimulatedReviser])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0.5", True])
def test_a_roles_probabilities_are_probabilities(kind: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="is a probability"):
        kind(value)


async def test_it_keeps_its_requests_or_not_and_travels() -> None:
    kept, lean = simulated(), simulated(keep_requests=False)
    for model in (kept, lean):
        await answer(model, asking("q"))
        model.reply({"messages": [{"role": "user", "content": "x"}]})
    assert [request.messages[0]["content"] for request in kept.requests] == ["q", "x"]
    assert lean.requests == []
    for copied in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert (await answer(copied, asking("q"))).text == (await answer(kept, asking("q"))).text


async def test_concurrent_asks_from_many_loops_draw_the_same() -> None:
    model = simulated(accuracy=0.5, faults={Fault.close(): 0.3}, correlation=0.5, latency=(0, 0.001))
    requests = [asking(f"question {n % 20}", seed=n % 50) for n in range(400)]

    async def all_of(model: SimulatedModel) -> list[Any]:
        return await asyncio.gather(*(one_try(model, request) for request in requests))

    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: asyncio.run(all_of(model)), range(4)))
    alone = simulated(accuracy=0.5, faults={Fault.close(): 0.3}, correlation=0.5)
    expected = [await all_of(alone) for _ in range(4)]
    assert sorted(str(one) for each in several for one in each) == sorted(str(one) for each in expected for one in each)
