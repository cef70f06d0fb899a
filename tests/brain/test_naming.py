"""Names with dots reach an endpoint as names it takes, and come back as they were registered."""

from __future__ import annotations

import re

from brain import Brain, OpenAIModel, Tool
from brain.testing import FakeEndpoint, call, reply


async def test_dotted_names_travel_and_come_back() -> None:
    schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    dotted = Tool.from_schema("math.double", "Twice a number.", schema, lambda number: 2 * number)
    plain = Tool.from_schema("math_double", "Something else.", schema, lambda number: -1)
    with FakeEndpoint([call("math_double_2", number=4), reply("8")]) as endpoint:
        model = OpenAIModel("m", base_url=endpoint.base_url, api_key=endpoint.api_key)
        async with Brain(model, tools=[dotted, plain]) as brain:
            result = await brain.run("twice four?")
    assert [(done.tool, done.value) for done in result.calls] == [("math.double", 8)]
    first, second = (request.body for request in endpoint.requests)
    sent = [tool["function"]["name"] for tool in first["tools"]]
    assert sent == ["math_double_2", "math_double"]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in sent)
    said = next(message for message in second["messages"] if message["role"] == "assistant")
    assert said["tool_calls"][0]["function"]["name"] == "math_double_2"
    kept = next(message for message in result.messages if message["role"] == "assistant")
    assert kept["tool_calls"][0]["function"]["name"] == "math.double"
