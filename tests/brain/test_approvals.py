"""Approvals: a run stops before the effect, and goes on with what a person decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brain import ApprovalRequired, Brain, ConfigurationError, Message, RunResult, tool
from brain.testing import ScriptedModel, call


class Shop:
    """Counts what really happened."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @tool(requires_approval=True)
        def refund(order: str) -> str:
            """Pay back."""
            self.done.append(f"refund {order}")
            return f"paid {order}"

        @tool
        def look(order: str) -> str:
            """Look."""
            self.done.append(f"look {order}")
            return f"order {order}"

        self.tools = [refund, look]

    def brain(self, *steps: Any) -> Brain[str]:
        return Brain(ScriptedModel(steps), tools=self.tools)


async def stopped(brain: Brain[str], **more: Any) -> ApprovalRequired:
    with pytest.raises(ApprovalRequired) as caught:
        await brain.run(**({"prompt": "go"} | more))
    return caught.value


def messages(error: ApprovalRequired) -> list[Message]:
    assert error.result is not None
    return list(json.loads(json.dumps(error.result.messages)))


def answers(result: RunResult[Any]) -> list[Any]:
    return [json.loads(message["content"]) for message in result.messages if message["role"] == "tool"]


async def test_stops_before_the_effect_and_says_what_waits() -> None:
    shop = Shop()
    error = await stopped(shop.brain(call("refund", order="A1")))
    assert shop.done == []
    (pending,) = error.pending
    assert (pending.tool, pending.arguments) == ("refund", {"order": "A1"})
    assert "refund" in str(error)


async def test_other_calls_of_the_turn_are_run_at_once() -> None:
    shop = Shop()
    brain = shop.brain([call("refund", order="A"), call("look", order="B")], "done")
    error = await stopped(brain)
    assert shop.done == ["look B"]
    result = await brain.run(history=messages(error), approvals={error.pending[0].id: True})
    assert shop.done == ["look B", "refund A"]
    assert result.output == "done"
    assert [answer["value"] for answer in answers(result)] == ["order B", "paid A"]
    assert [outcome.tool for outcome in result.calls] == ["refund"]


async def test_denied() -> None:
    shop = Shop()
    brain = shop.brain(call("refund", order="A"), "as you wish")
    error = await stopped(brain)
    result = await brain.run(history=messages(error), approvals={error.pending[0].id: False})
    assert shop.done == []
    assert answers(result) == [{"denied": "a person did not allow this call"}]
    assert result.output == "as you wish"


async def test_several_some_approved_some_denied_some_still_open() -> None:
    shop = Shop()
    asked = [call("refund", order=order) for order in "ABCD"]
    brain = shop.brain(asked, "done")
    error = await stopped(brain)
    ids = [pending.id for pending in error.pending]
    assert ids == [each.id for each in asked]
    second = await stopped(brain, prompt=None, history=messages(error), approvals={ids[0]: True, ids[2]: False})
    assert shop.done == ["refund A"]
    assert [pending.id for pending in second.pending] == [ids[1], ids[3]]
    result = await brain.run(history=messages(second), approvals={ids[1]: False, ids[3]: True})
    assert shop.done == ["refund A", "refund D"]
    by_id = {m["tool_call_id"]: json.loads(m["content"]) for m in result.messages if m["role"] == "tool"}
    assert [("value" in by_id[id]) for id in ids] == [True, False, False, True]


async def test_an_approval_is_used_up() -> None:
    shop = Shop()
    brain = shop.brain(call("refund", order="A"), "done", "again")
    error = await stopped(brain)
    approvals = {error.pending[0].id: True}
    result = await brain.run(history=messages(error), approvals=approvals)
    with pytest.raises(ConfigurationError, match="waits for approval"):
        await brain.run("and again", history=result.messages, approvals=approvals)
    assert shop.done == ["refund A"]


async def test_without_a_decision_it_waits_on() -> None:
    shop = Shop()
    brain = shop.brain(call("refund", order="A"))
    error = await stopped(brain)
    for more in ({"prompt": None}, {"prompt": "what now?"}):
        again = await stopped(brain, history=messages(error), **more)
        assert [pending.id for pending in again.pending] == [pending.id for pending in error.pending]
    assert shop.done == []


async def test_with_a_new_prompt() -> None:
    shop = Shop()
    model = ScriptedModel([call("refund", order="A"), "done"])
    brain = Brain(model, tools=shop.tools)
    error = await stopped(brain)
    await brain.run("and be quick", history=messages(error), approvals={error.pending[0].id: True})
    assert [message["role"] for message in model.requests[1].messages] == ["user", "assistant", "tool", "user"]


@pytest.mark.parametrize("approvals", [{"nobody": True}, {None: True}, {"ID": "no"}, {"ID": 1}, {"ID": None}], ids=str)
async def test_decisions_that_are_none(approvals: dict[Any, Any]) -> None:
    shop = Shop()
    brain = shop.brain(call("refund", order="A"))
    error = await stopped(brain)
    given = {(error.pending[0].id if key == "ID" else key): value for key, value in approvals.items()}
    with pytest.raises(ConfigurationError) as caught:
        await brain.run(history=messages(error), approvals=given)
    assert caught.value.result is not None
    assert shop.done == []


async def test_a_history_that_was_tampered_with() -> None:
    shop = Shop()
    brain = shop.brain(call("refund", order="A"), "x", "y")
    error = await stopped(brain)
    id = error.pending[0].id

    unknown = messages(error)
    unknown[-1]["tool_calls"][0]["function"]["name"] = "delete_all"
    result = await brain.run(history=unknown, approvals={id: True})
    assert "no tool 'delete_all'" in answers(result)[0]["error"]

    wrong = messages(error)
    wrong[-1]["tool_calls"][0]["function"]["arguments"] = '{"order": 5}'
    result = await brain.run(history=wrong, approvals={id: True})
    assert "order" in answers(result)[0]["error"]

    twice = messages(error)
    twice[-1]["tool_calls"] *= 2
    with pytest.raises(ConfigurationError, match="same id"):
        await brain.run(history=twice, approvals={id: True})
    assert shop.done == []


async def test_a_call_that_no_longer_needs_approval_is_still_the_persons_to_decide() -> None:
    shop = Shop()
    error = await stopped(shop.brain(call("refund", order="A")))
    free = tool(shop.tools[0].function)
    brain = Brain(ScriptedModel(["done", "done"]), tools=[free])
    id = error.pending[0].id
    await brain.run(history=messages(error), approvals={id: False})
    assert shop.done == []
    await brain.run(history=messages(error), approvals={id: True})
    assert shop.done == ["refund A"]


async def test_bad_calls_beside_one_that_waits_are_answered() -> None:
    shop = Shop()
    brain = shop.brain([call("refund", order="A"), call("nothing")], "done")
    error = await stopped(brain)
    result = await brain.run(history=messages(error), approvals={error.pending[0].id: True})
    assert ["error" in answer for answer in answers(result)] == [True, False]


async def test_of_the_planner() -> None:
    shop = Shop()
    brain = Brain(tools=shop.tools[:1])
    error = await stopped(brain, prompt="refund the order A17")
    assert shop.done == []
    result = await brain.run(history=messages(error), approvals={error.pending[0].id: True})
    assert shop.done == ["refund A17"]
    assert "paid A17" in result.output
