"""What a run costs, in counts: bytes encoded, schemas written, tools offered, connections made. No clock is read."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from brain import Brain, OpenAIModel, Tool, tool
from brain.encoding import EncodedMessage, NotJson, as_message, encode
from brain.errors import ConfigurationError, MissingRuntime, PromptError
from brain.events import ModelRequest, ToolSchema
from brain.testing import FakeEndpoint, ScriptedModel, call
from brain.wire.writing import RequestWriter
from specialists import specialist
from tests.running import add, contents


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that is written as JSON by the encoder, in order."""
    written: list[bytes] = []
    real = encode.__globals__["to_json"]

    def noting(value: Any, **more: Any) -> bytes:
        raw: bytes = real(value, **more)
        written.append(raw)
        return raw

    monkeypatch.setitem(encode.__globals__, "to_json", noting)
    return written


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every request's body, in order."""
    sent: list[bytes] = []
    real = RequestWriter.write

    def noting(self: RequestWriter, *given: Any, **more: Any) -> Any:
        body, text_only = real(self, *given, **more)
        sent.append(body)
        return body, text_only

    monkeypatch.setattr(RequestWriter, "write", noting)
    return sent


def history(rounds: int) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": f"{role} {number} says something"}
        for number in range(rounds)
        for role in ("user", "assistant")
    ]


class TestWhatIsEncoded:
    async def test_a_turn_encodes_as_much_with_a_long_history_as_with_none(self, encoded: list[bytes]) -> None:
        counts = []
        with FakeEndpoint([call("add", a=1, b=2), "three"] * 3) as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url), tools=[add]) as brain:
                first = await brain.run("one and two?", history=history(200))
                for before in (None, first.messages):
                    encoded.clear()
                    await brain.run("one and two?", history=before)
                    counts.append((len(encoded), sum(map(len, encoded))))
            assert len(endpoint.requests[-1].body["messages"]) == 407
        (calls, size), (calls_after, size_after) = counts
        assert calls == calls_after
        assert abs(size_after - size) < 64  # the ids of the calls differ in length

    async def test_a_history_read_from_json_is_encoded_once(self, encoded: list[bytes]) -> None:
        before = json.loads(json.dumps(history(50)))
        with FakeEndpoint([call("add", a=1, b=2), call("add", a=2, b=2), "four"]) as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url), tools=[add]) as brain:
                await brain.run("go", history=before)
        assert sum(b"says something" in raw for raw in encoded) == 100

    async def test_a_schema_is_written_once_for_all_runs(self, encoded: list[bytes]) -> None:
        with FakeEndpoint([call("add", a=1, b=2), "three"] * 4) as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url), tools=[add]) as brain:
                for _ in range(4):
                    await brain.run("one and two?")
            assert all(received.body["tools"] for received in endpoint.requests)
        assert sum(b'"parameters"' in raw for raw in encoded) == 1

    async def test_a_request_begins_with_the_last_one(self, bodies: list[bytes]) -> None:
        calls = [call("add", a=number, b=1) for number in range(4)]
        with FakeEndpoint([*calls, "done"]) as endpoint:
            brain = Brain(OpenAIModel("m", base_url=endpoint.base_url), tools=[add], instructions="Be brief.")
            async with brain:
                await brain.run("go")
        assert len(bodies) == 5
        for before, after in itertools.pairwise(bodies):
            assert before.endswith(b"]}")
            assert after.startswith(before[:-2] + b",")

    def test_the_body_is_what_chat_completions_read(self) -> None:
        schema = ToolSchema("a.b", "Dotted.", {"type": "object"})
        used = {"id": "1", "type": "function", "function": {"name": "gone.by", "arguments": "{}"}}
        messages: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [used]}]
        request = ModelRequest(messages, [schema], output_schema={"type": "object"}, output_name="an answer")
        body, text_only = RequestWriter("m", "max_tokens").write(request, 7, stream=True, names={"a.b": "a_b"})
        read = json.loads(body)
        assert list(read)[-1] == "messages"
        assert read["messages"][0]["tool_calls"][0]["function"]["name"] == "gone_by"
        assert read["tools"][0]["function"]["name"] == "a_b"
        assert (read["model"], read["max_tokens"], read["stream"]) == ("m", 7, True)
        assert read["response_format"]["json_schema"]["name"] == "an_answer"
        assert text_only
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        assert RequestWriter("m", "max_tokens").write(ModelRequest(image), 7)[1] is False

    async def test_dotted_names_in_a_history_are_written_once_more_and_no_oftener(self, encoded: list[bytes]) -> None:
        @tool(name="acme.add")
        def dotted(a: int, b: int) -> int:
            """Add."""
            return a + b

        with FakeEndpoint([call("acme_add", a=1, b=number) for number in range(3)] + ["done"] * 2) as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url), tools=[dotted]) as brain:
                result = await brain.run("go")
                await brain.run("again", history=result.messages)
        assert [outcome.tool for outcome in result.calls] == ["acme.add"] * 3
        assert sum(b'"acme_add"' in raw and b"tool_calls" in raw for raw in encoded) == 3


class TestMessages:
    async def test_they_are_plain_to_read_and_fixed(self) -> None:
        result = await Brain(ScriptedModel([call("add", a=1, b=2), "three"]), tools=[add]).run("go")
        message = result.messages[1]
        assert isinstance(message, dict)
        assert json.loads(json.dumps(message)) == message == {**message}
        attempts: list[Callable[[], Any]] = [
            lambda: message.__setitem__("role", "user"),
            lambda: message.update(role="user"),
            lambda: message.pop("role"),
            lambda: message["tool_calls"].append({}),
            lambda: message["tool_calls"][0].clear(),
            lambda: message["tool_calls"][0]["function"].setdefault("x", 1),
        ]
        for attempt in attempts:
            with pytest.raises(TypeError, match=r"copy\.deepcopy"):
                attempt()
        changed = copy.deepcopy(message)
        changed["tool_calls"][0]["function"]["arguments"] = "{}"
        assert type(changed) is dict
        assert message["tool_calls"][0]["function"]["arguments"] != "{}"
        stored = pickle.loads(pickle.dumps(message))
        assert stored == message
        assert stored.wire == message.wire  # type: ignore[attr-defined]

    async def test_what_is_changed_between_runs_is_sent_changed(self) -> None:
        before = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "yes"}]
        with FakeEndpoint(["one", "two"]) as endpoint:
            async with Brain(OpenAIModel("m", base_url=endpoint.base_url)) as brain:
                await brain.run("go", history=before)
                before[0]["content"] = "second"
                await brain.run("go", history=before)
            sent = [received.body["messages"][0]["content"] for received in endpoint.requests]
        assert sent == ["first", "second"]

    def test_what_cannot_be_written_is_refused(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        for content in (object(), float("nan"), [float("inf")], "half \ud800", circle):
            with pytest.raises(NotJson):
                as_message({"role": "user", "content": content})
            with pytest.raises(PromptError, match="history"):
                Brain(ScriptedModel([])).run_sync("go", history=[{"role": "user", "content": content}])
        assert EncodedMessage({"content": "NaN and Infinity are words"}).wire

    async def test_half_a_character_of_a_model_of_ones_own_is_replaced(self) -> None:
        result = await Brain(ScriptedModel(["half \ud800"])).run("go")
        assert result.messages[-1]["content"] == "half ?"


def numbered(count: int) -> list[Tool[..., Any]]:
    def look_up(key: str) -> str:
        return key

    return [
        Tool(look_up, name=f"record_{number}", description=f"Look up a record of kind {number}.")
        for number in range(count)
    ]


@tool
def shipping_days(country: str) -> int:
    """How many days a parcel takes to a country."""
    return 6


class TestWhatIsOffered:
    async def test_few_tools_are_all_offered(self) -> None:
        model = ScriptedModel(["done"])
        await Brain(model, tools=numbered(32)).run("go")
        assert len(model.requests[0].tools) == 32

    async def test_of_many_those_that_fit_and_the_pinned_ones(self) -> None:
        model = ScriptedModel([call("shipping_days", country="Norway"), "six"])
        brain = Brain(model, tools=[*numbered(500), shipping_days], tool_limit=8, pinned=["record_77"])
        result = await brain.run("How many days does a parcel take?")
        assert result.output == "six"
        for request in model.requests:
            names = [schema.name for schema in request.tools]
            assert len(names) <= 8
            assert names[0] == "record_77"
            assert "shipping_days" in names
        assert list(model.requests[0].tools) == list(model.requests[1].tools)

    async def test_a_tool_the_history_has_called_is_offered_again(self) -> None:
        model = ScriptedModel([call("shipping_days", country="Norway"), "six", "yes"])
        brain = Brain(model, tools=[*numbered(500), shipping_days], tool_limit=4)
        first = await brain.run("How many days does a parcel take?")
        await brain.run("record, record, record of kind 3", history=first.messages)
        assert "shipping_days" in [schema.name for schema in model.requests[-1].tools]

    async def test_one_that_was_not_offered_is_checked_and_run_and_offered_from_then_on(self) -> None:
        wrong = call("record_400", key=5)
        model = ScriptedModel([wrong, call("record_400", key="k"), "done"])
        brain = Brain(model, tools=[*numbered(500), shipping_days], tool_limit=2)
        result = await brain.run("How many days does a parcel take?")
        offered = [[schema.name for schema in request.tools] for request in model.requests]
        assert "record_400" not in offered[0]
        assert offered[1] == offered[2] == [*offered[0], "record_400"]
        assert "error" in contents(result)[0]
        assert result.calls[0].value == "k"

    async def test_one_that_does_not_exist_is_refused_in_few_words(self) -> None:
        model = ScriptedModel([call("record_x"), "done"])
        result = await Brain(model, tools=numbered(500), tool_limit=2).run("go")
        [said] = contents(result)
        assert "no tool 'record_x'" in said["error"]
        assert len(said["error"]) < 1000
        assert len(model.requests[1].tools) == len(model.requests[0].tools)

    async def test_specialists_count_too(self) -> None:
        @specialist
        async def parcels(country: str) -> int:
            """How many days a parcel takes to a country."""
            return 6

        model = ScriptedModel(["six"])
        brain = Brain(model, tools=numbered(100), specialists=[parcels], tool_limit=3, pinned=["parcels"])
        await brain.run("Look up a record")
        assert model.requests[0].tools[0].name == "parcels"

    async def test_requests_do_not_grow_with_the_registry(self, bodies: list[bytes]) -> None:
        with FakeEndpoint(["done"] * 2) as endpoint:
            for count in (100, 1000):
                model = OpenAIModel("m", base_url=endpoint.base_url)
                async with Brain(model, tools=numbered(count), tool_limit=16) as brain:
                    await brain.run("Look up a record")
        small, large = map(len, bodies)
        assert large < 1.1 * small

    @pytest.mark.parametrize(
        "settings",
        [{"tool_limit": 0}, {"tool_limit": True}, {"pinned": ["nobody"]}, {"pinned": "add"},
         {"tool_limit": 1, "pinned": ["add", "shipping_days"]}],
    )  # fmt: skip
    def test_settings_that_cannot_be_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            Brain(ScriptedModel([]), tools=[add, shipping_days], **settings)


ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]})
SMUGGLED = ANSWER.replace("hello", "smuggled")


@asynccontextmanager
async def raw_server(*extra: bytes) -> AsyncIterator[tuple[str, list[list[bytes]]]]:
    """Answers every request, and adds ``extra`` to the first ones a moment later. Gives each connection's requests."""
    connections: list[list[bytes]] = []
    more = list(extra)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[bytes] = []
        connections.append(requests)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                requests.append(await reader.readexactly(length))
                writer.write(response(ANSWER))
                if more:
                    await asyncio.sleep(0.02)
                    writer.write(more.pop(0))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", connections


def response(body: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body.encode(),
    )


@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
class TestConnections:
    async def test_one_is_kept_for_all_turns_of_all_runs(self, transport: Any) -> None:
        async with raw_server() as (url, connections):
            async with Brain(OpenAIModel("m", base_url=url, transport=transport)) as brain:
                for _ in range(5):
                    assert (await brain.run("hi")).output == "hello"
            assert [len(requests) for requests in connections] == [5]

    async def test_a_large_request_arrives_whole(self, transport: Any) -> None:
        text = "0123456789abcdef" * 200_000
        async with raw_server() as (url, connections):
            async with Brain(OpenAIModel("m", base_url=url, transport=transport)) as brain:
                assert (await brain.run(text)).output == "hello"
            assert json.loads(connections[0][0])["messages"][0]["content"] == text

    async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(self, transport: Any) -> None:
        async with raw_server(response(SMUGGLED)) as (url, connections):
            async with Brain(OpenAIModel("m", base_url=url, transport=transport)) as brain:
                first = await brain.run("hi")
                await asyncio.sleep(0.1)
                second = await brain.run("hi")
            assert len(connections) == 2
        assert (first.output, second.output) == ("hello", "hello")

    async def test_an_endpoint_that_closed_an_idle_connection_is_asked_over_another(self, transport: Any) -> None:
        closing = response(ANSWER)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(closing)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, Brain(OpenAIModel("m", base_url=url, transport=transport)) as brain:
            for _ in range(3):
                result = await brain.run("hi")
                assert [attempt.outcome for attempt in result.wire_attempts] == ["ok"]
                await asyncio.sleep(0.05)


def test_a_transport_is_one_of_three() -> None:
    with pytest.raises(ConfigurationError, match="transport"):
        OpenAIModel("m", base_url="http://localhost:1", transport="curl")  # type: ignore[arg-type]


async def test_without_aiohttp_auto_takes_httpx_and_asking_for_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.models.importlib.util.find_spec", lambda name: None)
    real = __import__("importlib").import_module

    def missing(name: str) -> Any:
        if name == "brain.wire.fast":
            raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")
        return real(name)

    monkeypatch.setattr("brain.models.importlib.import_module", missing)
    with FakeEndpoint(["fine"]) as endpoint:
        async with Brain(OpenAIModel("m", base_url=endpoint.base_url)) as brain:
            assert (await brain.run("hi")).output == "fine"
        with pytest.raises(MissingRuntime, match=r"brain-specialists\[fast\]"):
            await Brain(OpenAIModel("m", base_url=endpoint.base_url, transport="aiohttp")).run("hi")


async def test_a_socket_is_checked_once_more_for_where_it_leads() -> None:
    from brain.errors import EndpointRefused
    from brain.wire.endpoints import parse_endpoint
    from brain.wire.fast import AiohttpSender

    sender = AiohttpSender(parse_endpoint("https://models.example.com/v1"), None)
    make = sender._session.connector._socket_factory  # type: ignore[union-attr]
    with pytest.raises(EndpointRefused):
        make((2, 1, 6, "", ("169.254.169.254", 443)))
    await sender.aclose()
