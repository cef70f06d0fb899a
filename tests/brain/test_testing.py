"""The test doubles, with the models they stand in for and with the openai client as it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI, RateLimitError
from pydantic import BaseModel

from brain.errors import ModelTimeout, RateLimited
from brain.events import ModelRequest, ModelResponse, TokenUsage
from brain.prices import Price
from brain.testing import FakeEndpoint, Fault, ScriptedModel, ScriptError, SimulatedModel, call, reply
from tests.asking import ADD, ask, question

SCHEMA = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as running:
        yield running


def client(endpoint: FakeEndpoint) -> OpenAI:
    return OpenAI(base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0)


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_the_openai_client_gets_an_echo_with_usage(endpoint: FakeEndpoint) -> None:
    answer = client(endpoint).chat.completions.create(model="m", messages=asked("hello"))
    assert answer.choices[0].message.content == "You said: hello"
    assert answer.usage is not None
    [row] = endpoint.meter
    assert (row.model, row.input, row.output) == ("m", answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert [model.id for model in client(endpoint).models.list()] == ["fake-model"]
    assert len(endpoint.requests) == 1
    assert endpoint.requests[0].messages == asked("hello")


def test_the_openai_client_streams() -> None:
    with FakeEndpoint([reply("one two three", usage={"input": 9, "output": 3, "reasoning": 1})]) as endpoint:
        stream = client(endpoint).chat.completions.create(
            model="m", messages=asked("x"), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens_details is not None
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 1
    assert endpoint.meter.reasoning == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_the_async_openai_client_gets_tool_calls_streamed_and_not() -> None:
    wanted = call("add", a=1, b=2)
    async with (
        FakeEndpoint([wanted, wanted]) as endpoint,
        AsyncOpenAI(base_url=endpoint.base_url, api_key="x", max_retries=0) as model,
    ):
        tools: Any = [ADD.to_wire()]
        whole = await model.chat.completions.create(model="m", messages=asked("x"), tools=tools)
        [got] = whole.choices[0].message.tool_calls or []
        assert got.type == "function"
        assert (got.id, got.function.name, json.loads(got.function.arguments)) == (wanted.id, "add", {"a": 1, "b": 2})
        async with model.chat.completions.stream(model="m", messages=asked("x"), tools=tools) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        [streamed] = final.choices[0].message.tool_calls or []
        assert streamed.type == "function"
        assert json.loads(streamed.function.arguments) == {"a": 1, "b": 2}


def test_the_openai_client_parses_a_typed_answer(endpoint: FakeEndpoint) -> None:
    class Sum(BaseModel):
        value: int
        why: str

    parsed = client(endpoint).chat.completions.parse(model="m", messages=asked("x"), response_format=Sum)
    assert parsed.choices[0].message.parsed == Sum(value=0, why="echo")


def test_faults_come_in_order_and_the_meter_knows_them() -> None:
    with FakeEndpoint([Fault.rate_limited(retry_after=7), Fault.server_error(503), "fine"]) as endpoint:
        create = client(endpoint).chat.completions.create
        with pytest.raises(RateLimitError) as limited:
            create(model="m", messages=asked("x"))
        assert limited.value.response.headers["retry-after"] == "7"
        with pytest.raises(APIStatusError):
            create(model="m", messages=asked("x"))
        assert endpoint.unused == ["fine"]
        assert create(model="m", messages=asked("x")).choices[0].message.content == "fine"
        assert [row.status for row in endpoint.meter] == [429, 503, 200]
        assert [row.fault for row in endpoint.meter] == ["rate_limited", "server_error", None]


def test_a_wrong_key_gets_401_when_one_is_required() -> None:
    with FakeEndpoint(require_key=True) as endpoint:
        with pytest.raises(APIStatusError) as caught:
            OpenAI(base_url=endpoint.base_url, api_key="wrong", max_retries=0).chat.completions.create(
                model="m", messages=asked("x")
            )
        assert caught.value.status_code == 401
        assert client(endpoint).chat.completions.create(model="m", messages=asked("x")).choices
        assert endpoint.api_key not in repr(endpoint.requests)


def test_a_dictionary_or_a_typed_object_is_said_as_json() -> None:
    class City(BaseModel):
        name: str

    with FakeEndpoint([{"name": "Oslo"}, City(name="Lima")]) as endpoint:
        ask_it = client(endpoint).chat.completions.create
        said = [ask_it(model="m", messages=asked("x")).choices[0].message.content for _ in range(2)]
    assert [json.loads(str(text)) for text in said] == [{"name": "Oslo"}, {"name": "Lima"}]


def test_a_function_may_answer_from_the_request() -> None:
    with FakeEndpoint(lambda body: body["model"].upper()) as endpoint:
        answer = client(endpoint).chat.completions.create(model="abc", messages=asked("x"))
    assert answer.choices[0].message.content == "ABC"


def test_a_function_that_raises_is_told_to_the_client() -> None:
    with FakeEndpoint(lambda body: body["no such field"]) as endpoint, pytest.raises(APIStatusError, match="KeyError"):
        client(endpoint).chat.completions.create(model="abc", messages=asked("x"))


def test_no_http_and_other_paths_do_no_harm(endpoint: FakeEndpoint) -> None:
    import http.client
    import socket

    port = int(endpoint.base_url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        raw.recv(1000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for method, path, body, status in [
        ("GET", "/nothing", None, 404),
        ("POST", "/v1/chat/completions", "not json", 400),
        ("POST", "/v1/chat/completions", "[]", 400),
    ]:
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    assert endpoint.requests == []
    assert client(endpoint).chat.completions.create(model="m", messages=asked("x")).choices


async def test_it_closes_at_once_with_hanging_connections() -> None:
    endpoint = FakeEndpoint(Fault.hang()).start()
    model = AsyncOpenAI(base_url=endpoint.base_url, api_key="x", max_retries=0)
    tasks = [asyncio.create_task(model.chat.completions.create(model="m", messages=asked("x"))) for _ in range(20)]
    await asyncio.to_thread(endpoint.wait_for, 20)
    await asyncio.wait_for(asyncio.to_thread(endpoint.close), 20)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, Exception) for one in ended)
    await model.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = endpoint.base_url


# ScriptedModel


async def test_a_scripted_model_says_its_steps_and_keeps_the_questions() -> None:
    class Point(BaseModel):
        x: int

    steps: list[Any] = [
        "text",
        call("add", a=1),
        [call("add", a=1), call("add", a=2)],
        ModelResponse("own", finish_reason="stop"),
        {"value": 3},
        Point(x=4),
        reply("with usage", usage={"input": 5, "output": 6}),
        lambda request: f"you asked {len(request.messages)}",
        RateLimited("slow down", retry_after=3),
        TimeoutError,
    ]
    async with ScriptedModel(steps) as model:
        first = await ask(model, stream=True)
        assert first.text == "text"
        assert "".join(first.pieces) == "text"
        one = await ask(model, "second")
        assert one.response is not None
        assert [made.name for made in one.response.tool_calls] == ["add"]
        two = await ask(model)
        assert two.response is not None
        assert len({made.id for made in two.response.tool_calls}) == 2
        assert (await ask(model)).text == "own"
        assert json.loads((await ask(model, output_schema=SCHEMA)).text or "") == {"value": 3}
        assert Point.model_validate_json((await ask(model)).text or "") == Point(x=4)
        used = await ask(model)
        assert used.response is not None
        assert used.response.usage == TokenUsage(5, 6, source="provider")
        assert (await ask(model)).text == "you asked 1"
        limited = await ask(model)
        assert isinstance(limited.error, RateLimited)
        with pytest.raises(TimeoutError):
            await ask(model)
        assert model.requests[1].messages[0]["content"] == "second"
        assert first.attempts == []


async def test_a_scripted_model_complains_of_too_many_and_too_few_questions() -> None:
    with ScriptedModel(["only"]) as model:
        await ask(model)
        beyond = await ask(model, "one too many")
    assert isinstance(beyond.error, ScriptError)
    assert "one too many" in str(beyond.error)
    with pytest.raises(ScriptError, match="never said"), ScriptedModel(["said", "never said"]) as model:
        await ask(model)
    with pytest.raises(ZeroDivisionError), ScriptedModel(["unused"]):
        raise ZeroDivisionError  # the first error is the news
    strange = await ask(ScriptedModel([42]))  # type: ignore[list-item]
    assert isinstance(strange.error, ScriptError)


# SimulatedModel


async def test_a_simulated_model_is_as_right_as_stated_and_always_the_same() -> None:
    def model(seed: int = 1, accuracy: float = 0.8) -> SimulatedModel:
        return SimulatedModel(solve=lambda question: len(question), accuracy=accuracy, seed=seed)

    questions = [f"question {n}" for n in range(400)]
    first = [(await ask(model(), text)).text for text in questions]
    again = [(await ask(model(), text)).text for text in reversed(questions)]
    assert first == again[::-1]
    right = sum(text == str(len(prompt)) for text, prompt in zip(first, questions, strict=True))
    assert 280 < right < 360
    assert first != [(await ask(model(seed=2), text)).text for text in questions]
    for accuracy, expected in [(1.0, 20), (0.0, 0)]:
        texts = [(await ask(model(accuracy=accuracy), text)).text for text in questions[:20]]
        assert sum(text == str(len(prompt)) for text, prompt in zip(texts, questions, strict=False)) == expected


async def test_accuracy_by_task_and_wrong_answers_that_could_be_right() -> None:
    answers = {"capital of France": "Paris", "capital of Italy": "Rome"}
    model = SimulatedModel(answers, accuracy={"capital of France": 1.0, "*": 0.0})
    assert (await ask(model, "What is the capital of France?")).text == "Paris"
    assert (await ask(model, "What is the capital of Italy?")).text == "Paris"
    own = SimulatedModel(answers, accuracy=0, wrong=lambda _, right: right + "?")
    assert (await ask(own, "the capital of Italy")).text == "Rome?"
    unknown = await ask(model, "What is the capital of Spain?")
    assert isinstance(unknown.error, ScriptError)


async def test_a_simulated_answer_fits_the_schema_and_has_its_price() -> None:
    model = SimulatedModel({"sum": 7}, price=Price(1_000_000, 2_000_000))
    got = await ask(model, "the sum", output_schema=SCHEMA, stream=True)
    assert json.loads(got.text or "") == {"value": 7}
    [attempt] = got.attempts
    assert attempt.outcome == "ok"
    usage = attempt.usage
    assert attempt.cost.status == "exact"
    assert attempt.cost.low == Decimal((usage.input or 0) + 2 * (usage.output or 0))
    assert (await ask(SimulatedModel({"sum": 7}), "the sum")).attempts[0].cost.status == "unpriced"


async def test_a_simulated_model_keeps_deadlines_and_cancellation() -> None:
    model = SimulatedModel({"x": 1}, latency=(60, 90), price=Price(1, 1))
    late = await ask(model, "x", deadline=time.monotonic() + 0.01)
    assert isinstance(late.error, ModelTimeout)
    assert late.error.wire_attempts == tuple(late.attempts)
    assert late.attempts[0].cost.status == "bounded"
    attempts: list[Any] = []
    task = asyncio.create_task(model.ask(question("x"), on_attempt=attempts.append))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [attempt.outcome for attempt in attempts] == ["cancelled"]


@pytest.mark.parametrize("settings", [{}, {"answers": {}, "solve": len}, {"answers": {}, "accuracy": 1.5}])
def test_a_simulated_model_needs_answers_and_a_probability(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"answers|accuracy"):
        SimulatedModel(**settings)


def test_a_call_has_its_own_id_and_json_arguments() -> None:
    one, two = call("f", name="ü", n=1), call("f")
    assert one.id != two.id
    assert json.loads(one.arguments) == {"name": "ü", "n": 1}
    assert two.arguments == "{}"


def test_a_request_is_plain() -> None:
    assert ModelRequest([]).tools == ()


def test_a_fault_of_an_unknown_kind_is_refused_where_it_is_ordered() -> None:
    with pytest.raises(ValueError, match="truncated"):
        Fault.malformed("sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absurd"):
        Fault.usage("sideways")  # type: ignore[arg-type]
