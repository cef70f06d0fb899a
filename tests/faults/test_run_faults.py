"""Promises of a whole run under faults; the number in a test's name is its row in the table of promises."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain import (
    Abstained,
    Brain,
    BrainError,
    ConfigurationError,
    CostLimit,
    Done,
    EndpointUnavailable,
    InvalidToolCall,
    ModelError,
    OpenAIModel,
    Price,
    PromptError,
    RepeatLimit,
    RunResult,
    RunTimeout,
    TextDelta,
    Tool,
    ToolCall,
    TurnLimit,
    tool,
)
from brain.testing import FakeEndpoint, Fault, Meter, ScriptedModel, SimulatedModel, call, reply
from specialists import Answer, Verdict, specialist

GUARD = 30.0
PRICE = Price("1", "2")


class Effects:
    """A tool that counts what it did."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def pay(self, amount: int) -> str:
        """Pay an amount."""
        self.done.append(amount)
        return f"paid {amount}"


def carried(error: BaseException) -> RunResult[Any]:
    result = error.result  # type: ignore[attr-defined]
    assert isinstance(result, RunResult)
    return result


def tool_answers(result: RunResult[Any]) -> list[dict[str, Any]]:
    return [json.loads(message["content"]) for message in result.messages if message["role"] == "tool"]


async def ask(
    brain: Brain[str], prompt: str, *, streamed: bool, pieces: list[str] | None = None, **more: Any
) -> RunResult[str]:
    if not streamed:
        return await brain.run(prompt, **more)
    result: RunResult[str] | None = None
    async for event in brain.run_stream(prompt, **more):
        if isinstance(event, TextDelta) and pieces is not None:
            pieces.append(event.text)
        if isinstance(event, Done):
            result = event.result
    assert result is not None
    return result


BAD_CALLS = {
    "unknown tool": [ToolCall("1", "burn", '{"amount": 1}')],
    "wrong type": [ToolCall("1", "pay", '{"amount": "1"}')],
    "extra argument": [ToolCall("1", "pay", '{"amount": 1, "to": "me"}')],
    "missing argument": [ToolCall("1", "pay", "{}")],
    "not an object": [ToolCall("1", "pay", "[1]")],
    "not json": [ToolCall("1", "pay", '{"amount": 1')],
    "the same key twice": [ToolCall("1", "pay", '{"amount": 1, "amount": 2}')],
    "duplicate ids": [ToolCall("1", "pay", '{"amount": 1}'), ToolCall("1", "pay", '{"amount": 2}')],
}


@pytest.mark.parametrize("bad", list(BAD_CALLS))
async def test_18_a_bad_call_is_rejected_before_dispatch_and_may_be_mended_once(bad: str) -> None:
    effects = Effects()
    model = ScriptedModel([BAD_CALLS[bad], call("pay", amount=7), "done"])
    result = await Brain(model, tools=[effects.pay]).run("go")
    assert effects.done == [7]
    assert result.repairs == 1
    assert len(result.calls) == 1  # what was rejected was never a call
    assert all("error" in answer for answer in tool_answers(result)[:-1])
    ids = [entry["id"] for message in result.messages for entry in message.get("tool_calls", ())]
    assert len(set(ids)) == len(ids)
    assert ids == [message["tool_call_id"] for message in result.messages if message["role"] == "tool"]

    effects.done.clear()
    model = ScriptedModel([BAD_CALLS[bad], [*BAD_CALLS[bad], ToolCall("9", "pay", '{"amount": 9}')], "never"])
    with pytest.raises(InvalidToolCall) as caught:
        await Brain(model, tools=[effects.pay]).run("go")
    result = carried(caught.value)
    assert len(model.requests) == len(result.turns) == 2
    assert result.repairs == 1
    assert effects.done == []  # nor is a good call run beside a bad one that ends the run


async def test_18_good_calls_beside_a_bad_one_are_run_in_the_round_that_goes_on() -> None:
    effects = Effects()
    model = ScriptedModel([[call("burn"), call("pay", amount=1)], "done"])
    result = await Brain(model, tools=[effects.pay]).run("go")
    assert effects.done == [1]
    assert ["error" in answer for answer in tool_answers(result)] == [True, False]  # in the order asked


async def test_18_the_same_id_in_a_later_turn_is_no_duplicate() -> None:
    # Some servers number the calls of each answer anew.
    effects = Effects()
    steps = [ToolCall("call_0", "pay", '{"amount": 1}'), ToolCall("call_0", "pay", '{"amount": 2}'), "done"]
    result = await Brain(ScriptedModel(steps), tools=[effects.pay]).run("go")
    assert effects.done == [1, 2]
    assert result.repairs == 0


async def test_19_turn_limit() -> None:
    effects = Effects()
    model = SimulatedModel(solve=lambda _: "x", price=PRICE)
    scripted = ScriptedModel([lambda _, n=n: call("pay", amount=n) for n in range(100)])
    with pytest.raises(TurnLimit, match="turn_limit is 5") as caught:
        await Brain(scripted, tools=[effects.pay], turn_limit=5).run("go")
    assert effects.done == [0, 1, 2, 3, 4]
    assert len(scripted.requests) == len(carried(caught.value).turns) == 5
    assert model.requests == []


async def test_19_repeat_limit() -> None:
    effects = Effects()
    model = ScriptedModel([ToolCall(f"id{n}", "pay", '{"amount":%s 7}' % (" " * n)) for n in range(100)])
    with pytest.raises(RepeatLimit, match=r"pay 4 times.*repeat_limit is 3") as caught:
        await Brain(model, tools=[effects.pay]).run("go")
    assert effects.done == [7, 7, 7]
    assert len(model.requests) == 4
    assert "error" in tool_answers(carried(caught.value))[-1]


async def test_19_repeats_within_one_turn_count_too() -> None:
    effects = Effects()
    model = ScriptedModel([[call("pay", amount=7) for _ in range(9)]])
    with pytest.raises(RepeatLimit):
        await Brain(model, tools=[effects.pay]).run("go")
    assert effects.done == []


async def test_19_cost_limit() -> None:
    from decimal import Decimal

    effects = Effects()
    with FakeEndpoint(lambda body: [call("pay", amount=len(body["messages"]))]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=Price("10000", "10000"))
        async with Brain(model, tools=[effects.pay], cost_limit=Decimal("3"), turn_limit=99) as brain:
            with pytest.raises(CostLimit) as caught:
                await brain.run("go")
    result = carried(caught.value)
    assert len(endpoint.meter) == len(result.wire_attempts) == len(result.turns) == len(effects.done) < 99
    spent = result.usage.cost.high
    assert spent is not None
    assert spent >= 3


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def unreachable(**more: Any) -> OpenAIModel:
    return OpenAIModel("m", base_url=f"http://127.0.0.1:{closed_port()}/v1", price=PRICE, **more)


async def test_13_an_endpoint_that_is_down_is_a_typed_error_within_the_deadline() -> None:
    async with Brain(unreachable(retries=1)) as brain:
        with pytest.raises(EndpointUnavailable) as caught:
            await brain.run("go", timeout=GUARD)
    result = carried(caught.value)
    assert [attempt.outcome for attempt in result.wire_attempts] == ["unreachable"] * 2
    assert caught.value.wire_attempts == result.wire_attempts
    assert result.usage.cost.status == "exact"  # nothing left the machine
    assert result.usage.unpriced == 0


@specialist(min_confidence=0.9)
async def unsure(text: str) -> Answer[str]:
    """Guess a word for a text."""
    return Answer("guess", 0.1)


async def test_13_a_fallback_that_is_down_is_an_abstention_with_the_reason() -> None:
    big = unreachable(retries=0)
    async with Brain(specialists=[unsure], fallback=big) as brain:
        with pytest.raises(Abstained, match="cannot be reached") as caught:
            await brain.run("guess a word for the text 'x'", timeout=GUARD)
    result = carried(caught.value)
    assert [attempt.outcome for attempt in result.calls[0].attempts] == ["answered", "error"]
    assert result.calls[0].attempts[1].wire_attempts == result.wire_attempts


async def test_13_a_declared_fallback_answers_while_the_brains_own_rungs_fail() -> None:
    with FakeEndpoint([reply('{"answer": "word"}')]) as endpoint:
        big = OpenAIModel("big", base_url=endpoint.base_url, price=PRICE)
        async with Brain(specialists=[unsure], fallback=big) as brain:
            result = await brain.run("guess a word for the text 'x'")
    assert result.calls[0].answered_by == "big_model"
    assert result.calls[0].value == "word"
    assert_same_bill(result, endpoint.meter)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", ["hang", "trickle", "stall", "cut_stream"])
async def test_16_a_partial_tool_call_is_never_executed(fault: str, streamed: bool) -> None:
    effects = Effects()
    half = reply(tool_calls=call("pay", amount=1_000_000))
    faults = {
        "hang": Fault.hang(),
        "trickle": Fault.trickle(50, half),
        "stall": Fault.stall(2, half),
        "cut_stream": Fault.cut_stream(2, half),
    }
    with FakeEndpoint(faults[fault]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE, retries=0)
        async with Brain(model, tools=[effects.pay]) as brain:
            with pytest.raises(BrainError) as caught:
                await ask(brain, "go", streamed=streamed, timeout=0.5)
    assert isinstance(caught.value, ModelError if fault == "cut_stream" else RunTimeout)
    assert effects.done == []
    result = carried(caught.value)
    assert result.calls == ()
    assert len(result.wire_attempts) == len(endpoint.meter) == 1
    assert result.usage.cost.status == "bounded"  # it may have been billed
    high = result.wire_attempts[0].cost.high
    assert high is not None
    assert high > 0


def assert_same_bill(result: RunResult[Any], meter: Meter) -> None:
    """What the endpoint served is what the run says that it sent."""
    assert [attempt.status for attempt in result.wire_attempts] == [row.status for row in meter]
    assert [attempt.model for attempt in result.wire_attempts] == [row.model for row in meter]
    served = [row for row in meter if row.status == 200]
    stated = [attempt.usage for attempt in result.wire_attempts if attempt.status == 200]
    assert [(usage.input, usage.output) for usage in stated] == [(row.input, row.output) for row in served]


@pytest.mark.parametrize("streamed", [False, True])
async def test_16_the_endpoints_own_meter_shows_the_same_requests(streamed: bool) -> None:
    effects = Effects()
    script = [
        Fault.server_error(503),
        call("pay", amount=1),
        Fault.rate_limited(0),
        [call("pay", amount=2), call("unsure", text="x")],
        Fault.server_error(500),
        reply('{"answer": "word"}'),
        "done",
    ]
    with FakeEndpoint(script) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)
        async with Brain(model, tools=[effects.pay], specialists=[unsure]) as brain:
            result = await ask(brain, "go", streamed=streamed, timeout=GUARD)
        assert endpoint.unused == []
    assert sorted(effects.done) == [1, 2]
    assert len(result.wire_attempts) == 7
    assert_same_bill(result, endpoint.meter)
    assert result.usage.input_tokens == endpoint.meter.input
    assert result.usage.output_tokens == endpoint.meter.output
    served = [a for a in result.wire_attempts if a.status == 200]
    assert (
        sum(a.cost.low for a in served) == (endpoint.meter.input * 1 + 2 * endpoint.meter.output) / PRICE.input / 10**6
    )


CANARY = "sk-canary-0123456789abcdefghijklmnop"


class Everything(logging.Handler):
    """Keeps all that any logger says, at any level."""

    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage() + repr(record.__dict__))


@pytest.fixture
def spoken() -> Any:
    handler, root = Everything(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(0)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def everything_of(result: RunResult[Any]) -> str:
    return "\n".join(
        [
            repr(result),
            str(result.usage),
            json.dumps(result.usage.to_json()),
            json.dumps(list(result.messages)),
            repr(result.turns),
            repr(result.wire_attempts),
            json.dumps([attempt.to_json() for attempt in result.wire_attempts]),
            *(json.dumps([attempt.reason for attempt in outcome.attempts]) for outcome in result.calls),
            *(str(outcome.reason) for outcome in result.calls),
            repr(result.calls),
            json.dumps([outcome.to_json() for outcome in result.calls]),
        ]
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_37_the_key_is_in_nothing_that_is_written(tmp_path: Path, spoken: list[str], streamed: bool) -> None:
    @tool
    def leak(how: str) -> Any:
        """Repeat the key."""
        if how == "raise":
            raise RuntimeError(f"401 for https://x/?key={CANARY}")
        return {"said": [f"the key is {CANARY}"]} if how == "nested" else f"the key is {CANARY}"

    def blabs(arguments: Any, value: Any) -> Verdict:
        return Verdict.failed(f"it is not {CANARY}")

    @specialist(verify=blabs)
    async def judged(text: str) -> str:
        """Have the verifier repeat the key."""
        return text

    @specialist
    async def leaky(text: str) -> str:
        """Repeat the key."""
        raise RuntimeError(f"no luck with {CANARY}")

    @specialist
    async def telling(text: str) -> str:
        """Answer with the key."""
        return f"it is {CANARY}"

    calls = [
        call("telling", text="x"),
        call("leak", how="raise"),
        call("leak", how="return"),
        call("leak", how="nested"),
        call("leaky", text=CANARY),
        call("judged", text="x"),
        call("leak", how=CANARY),
        ToolCall("x", "leak", json.dumps({"key": CANARY})),
        ToolCall("y", f"leak_{CANARY}", "{}"),
    ]
    path = tmp_path / "log.jsonl"
    with FakeEndpoint(
        [reply(tool_calls=calls), Fault.server_error(500), f"I know {CANARY}", Fault.echo_key(401)]
    ) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, api_key=CANARY, price=PRICE)
        brain = Brain(model, tools=[leak], specialists=[leaky, judged, telling], fallback=False, log=path)
        pieces: list[str] = []
        result = await ask(brain, f"my key is {CANARY}", streamed=streamed, pieces=pieces)
        with pytest.raises(ModelError) as caught:
            await brain.run("again")
        await brain.aclose()
    assert len(result.calls) == 7
    written = [
        everything_of(result),
        everything_of(carried(caught.value)),
        str(result.output),
        repr(brain) + repr(model),
        repr(caught.value) + str(caught.value),
        path.read_text(),
        "".join(pieces),
        *spoken,
    ]
    assert path.read_text().count("\n") == 7
    for text in written:
        assert CANARY not in text
    # The endpoint got it where it belongs, and nowhere else.
    for received in endpoint.requests:
        assert received.headers["authorization"] == f"Bearer {CANARY}"
        assert CANARY not in json.dumps(received.body)


def test_37_errors_before_a_run_do_not_show_it() -> None:
    for make in (
        lambda: OpenAIModel("m", api_key=CANARY + "\n"),
        lambda: OpenAIModel("m", base_url=f"https://user:{CANARY}@host/v1"),
        lambda: Brain("openai:", fallback=False),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert CANARY not in repr(caught.value)
        assert CANARY not in str(caught.value.__cause__) + str(caught.value.__context__)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_categories=())))
def test_43_any_prompt_ends_typed_planner(prompt: str) -> None:
    try:
        result = Brain(tools=[add]).run_sync(prompt)
    except (Abstained, PromptError) as error:
        json.dumps(carried(error).messages)
        str(error).encode()
    else:
        json.dumps(result.messages)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_43_any_text_of_tools_and_models_goes_through(said: str, returned: str) -> None:
    def tell() -> str:
        """Tell."""
        return returned

    model = ScriptedModel([call("tell"), said + "."])
    result = Brain(model, tools=[tell]).run_sync("go")
    assert result.calls[0].value == returned
    for message in model.requests[1].messages:
        str(message.get("content")).encode()
    json.dumps([outcome.to_json() for outcome in result.calls], allow_nan=False)


@pytest.mark.parametrize(
    "prompt",
    [
        "add 1 and 2 \u202e\u0661",
        "\u200f\u05e9\u05dc\u05d5\u05dd add 1 and 2",
        "add\x001\x00and\x002",
        "a" * 1_000_000,
        "add " + "9" * 1_000_000 + " and 2",
        "\ufeff\u200b\u200b",
        "e" + "\u0301" * 10_000,
    ],
    ids=["digits", "rtl", "nul", "one word of 1 MB", "one number of 1 MB", "invisible", "marks"],
)
def test_43_odd_prompts(prompt: str) -> None:
    started = time.monotonic()
    with contextlib.suppress(Abstained, PromptError):
        Brain(tools=[add]).run_sync(prompt)
    assert time.monotonic() - started < GUARD


def test_43_half_a_character_in_a_prompt_is_told_so() -> None:
    with pytest.raises(PromptError, match="UTF-8"):
        Brain(tools=[add]).run_sync("add \udcff")


async def test_43_a_megabyte_goes_to_a_model_and_back() -> None:
    word = "\u05d0" * 500_000
    with FakeEndpoint() as endpoint:
        async with Brain(OpenAIModel("m", base_url=endpoint.base_url, price=PRICE)) as brain:
            result = await asyncio.wait_for(brain.run(word), GUARD)
    assert result.output == f"You said: {word}"


@pytest.mark.parametrize("name", ["раy", "pay\u200b", "ｐay", "pay\u202e", "páy", "pay\x00", "pay\udcff"], ids=ascii)
def test_43_names_that_look_alike_are_refused_at_registration(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        Brain(tools=[Tool(add, name=name)])
    with pytest.raises(ConfigurationError, match="name"):
        Tool.from_schema(name, "Pay.", {}, lambda **given: None)

    def function(a: int) -> int:
        """Do."""
        return a

    function.__name__ = name
    with pytest.raises(ConfigurationError, match="name"):
        Brain(tools=[function])
    # A model that asks for the look-alike of a tool that there is gets nothing.
    with pytest.raises(InvalidToolCall):
        Brain(ScriptedModel([ToolCall("1", name, "{}"), ToolCall("2", name, "{}")]), tools=[Effects().pay]).run_sync(
            "x"
        )
