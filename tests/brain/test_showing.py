"""What a run's model is shown: previews, windows, summaries, sessions and cleaned prompts, as they come into a run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from brain import (
    Brain,
    Budget,
    Cleaner,
    ConfigurationError,
    Context,
    ContextError,
    Ledger,
    MemorySessions,
    OpenAIModel,
    Price,
    RunStopped,
    SessionError,
    SqliteSessions,
    Tool,
    tool,
)
from brain.handles import HANDLE
from brain.testing import FakeEndpoint, ScriptedModel, SimulatedModel, call, failpoints
from tests.running import carried

PRICE = Price(input=1, output=2)


@tool(effect="pure")
def grid(size: int) -> str:
    """Make a grid."""
    return "".join("123456789."[i * i % 10] for i in range(size))


@tool(effect="pure")
def turned(text: str) -> dict[str, Any]:
    """Turn a text round."""
    return {"text": text[::-1], "length": len(text)}


def last(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.messages[-1]["content"])
    return found


def handle(request: Any) -> str:
    said = last(request)
    found: str = said.get("handle") or said["preview"]["handle"]
    return found


def cut_off() -> None:
    raise RuntimeError("cut off")


def sent(request: Any) -> int:
    return sum(len(message.wire) for message in request.messages)


class TestPreviews:
    async def test_a_large_value_passes_by_its_handle_and_costs_no_token(self) -> None:
        model = ScriptedModel(
            [
                call("grid", size=10_000),
                lambda request: call("turned", text=handle(request)),
                lambda request: call("turned", text=f"{handle(request)}.text"),
                "done",
            ]
        )
        result = await Brain(model, tools=[grid, turned]).run("go")
        assert [outcome.arguments for outcome in result.calls[1:]] == [
            {"text": result.calls[0].value},
            {"text": result.calls[1].value["text"]},
        ]
        assert result.calls[2].value["text"] == result.calls[0].value
        assert all(sent(request) < 3000 for request in model.requests)
        # What is stored is whole: only what is shown is a preview.
        assert json.loads(result.messages[2]["content"])["value"] == result.calls[0].value

    async def test_what_is_small_is_shown_whole_and_nothing_else_is_offered(self) -> None:
        model = ScriptedModel([call("grid", size=100), lambda request: call("turned", text=handle(request)), "done"])
        result = await Brain(model, tools=[grid, turned]).run("go")
        assert last(model.requests[1])["value"] == result.calls[0].value
        assert HANDLE.fullmatch(handle(model.requests[1]))
        assert result.calls[1].arguments == {"text": result.calls[0].value}
        assert {schema.name for request in model.requests for schema in request.tools} == {"grid", "turned"}

    async def test_a_preview_can_be_read_in_parts(self) -> None:
        model = ScriptedModel(
            [
                call("grid", size=10_000),
                lambda request: call("read_value", value=handle(request), start=9_990, length=100),
                "done",
            ]
        )
        result = await Brain(model, tools=[grid]).run("go")
        assert [schema.name for schema in model.requests[0].tools] == ["grid"]
        assert [schema.name for schema in model.requests[1].tools] == ["grid", "read_value"]
        assert result.calls[1].value == result.calls[0].value[9_990:]

    async def test_a_tool_of_the_applications_with_that_name_goes_before(self) -> None:
        def read_value(value: str) -> str:
            """My own."""
            return "mine"

        model = ScriptedModel([call("grid", size=10_000), call("read_value", value="x"), "done"])
        result = await Brain(model, tools=[grid, Tool(read_value, effect="pure")]).run("go")
        assert result.calls[1].value == "mine"

    async def test_a_history_read_back_gives_its_values_by_the_same_handles(self) -> None:
        first = await Brain(ScriptedModel([call("grid", size=10_000), "made"]), tools=[grid, turned]).run("go")
        kept = json.loads(json.dumps(first.messages))
        model = ScriptedModel(
            [lambda request: call("turned", text=json.loads(request.messages[2]["content"])["preview"]["handle"]), "ok"]
        )
        result = await Brain(model, tools=[grid, turned]).run("again", history=kept)
        assert result.calls[0].arguments == {"text": first.calls[0].value}

    @pytest.mark.parametrize(
        ("argument", "said"),
        [
            ("@v7:0000", "no result has the handle @v7:0000"),
            ("@v1:ffff", "no result has the handle"),
            ("HANDLE.nothing", "has no 'nothing'"),
            ("HANDLE[3]", "has no item 3"),
            ("see HANDLE, please", "stands within a longer text"),
        ],
    )
    async def test_a_reference_to_what_there_is_not_is_told_and_nothing_is_called(
        self, argument: str, said: str
    ) -> None:
        model = ScriptedModel(
            [
                call("turned", text="abc"),
                lambda request: call("turned", text=argument.replace("HANDLE", handle(request))),
                "sorry",
            ]
        )
        result = await Brain(model, tools=[turned]).run("go")
        assert len(result.calls) == 1
        assert said in json.loads(result.messages[-2]["content"])["error"]

    async def test_a_value_of_another_type_is_told(self) -> None:
        model = ScriptedModel([call("turned", text="abc"), lambda request: call("grid", size=handle(request)), "sorry"])
        result = await Brain(model, tools=[turned, grid]).run("go")
        assert len(result.calls) == 1
        assert "error" in json.loads(result.messages[-2]["content"])

    async def test_a_text_that_only_looks_like_a_handle_is_a_text(self) -> None:
        model = ScriptedModel([call("turned", text="write to @v1:abcd or @v2"), "done"])
        result = await Brain(model, tools=[turned]).run("go")
        assert result.calls[0].arguments == {"text": "write to @v1:abcd or @v2"}


class TestContext:
    async def test_pinned_facts_stand_behind_the_instructions(self) -> None:
        model = ScriptedModel(["fine"])
        brain = Brain(model, context=Context(4000, pinned=["The order is 17."]), instructions="Be brief.")
        result = await brain.run("go")
        assert [message["content"] for message in model.requests[0].messages] == [
            "Be brief.",
            "Pinned facts:\nThe order is 17.",
            "go",
        ]
        assert [message["role"] for message in result.messages] == ["user", "assistant"]

    async def test_what_is_larger_than_the_window_is_an_error_before_anything_is_sent(self) -> None:
        model = ScriptedModel(["never"])
        with pytest.raises(ContextError, match="room for"):
            await Brain(model, context=Context(1000)).run("word " * 2000)
        assert not model.requests

    async def test_an_orphaned_result_is_an_error_with_the_run_in_it(self) -> None:
        history = [{"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "x", "content": "1"}]
        model = ScriptedModel(["fine", "fine"])
        with pytest.raises(ContextError) as caught:
            await Brain(model, context=Context(4000)).run("go", history=history)
        assert caught.value.index == 1
        assert carried(caught.value).usage.requests == 0
        result = await Brain(model, context=Context(4000, repair=True)).run("go", history=history)
        assert result.output == "fine"
        assert result.messages[1]["role"] == "tool", "what is stored is never rewritten"

    async def test_a_long_run_stays_within_the_window_and_can_use_what_was_left_out(self) -> None:
        steps: list[Any] = [call("turned", text=f"number {n} " + "and more " * 40) for n in range(60)]
        first: list[str] = []

        def back(request: Any) -> Any:
            return call("turned", text=f"{first[0]}.text")

        def keep(request: Any) -> Any:
            first.append(handle(request))
            return steps[1]

        model = ScriptedModel([steps[0], keep, *steps[2:], back, "done"])
        context = Context(4000)
        brain = Brain(model, tools=[turned], context=context, turn_limit=100, repeat_limit=100)
        result = await brain.run("go")
        assert result.calls[-1].arguments["text"] == result.calls[0].value["text"]
        tools = sum(context.count(schema.encoded()) for schema in model.requests[-1].tools)
        for request in model.requests:
            assert tools + sum(context.count(message.wire) for message in request.messages) <= 4000
        assert any("are left out here" in str(m["content"]) for m in model.requests[-1].messages)
        assert "read_value" in [schema.name for schema in model.requests[-1].tools]
        assert len(result.messages) == 2 + 2 * 61

    def test_what_is_no_context_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="context is a Context"):
            Brain(ScriptedModel([]), context=4000)  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="cleaning is a Cleaner"):
            Brain(ScriptedModel([]), cleaning=True)  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="sessions are"):
            Brain(ScriptedModel([]), sessions={})  # type: ignore[call-overload]


class TestSummaries:
    HISTORY = tuple(
        {"role": role, "content": f"{role} says number {n} " + "and more " * 30}
        for n in range(40)
        for role in ("user", "assistant")
    )

    def summing(self, **more: Any) -> SimulatedModel:
        return SimulatedModel(solve=lambda question: "They counted to forty.", price=PRICE, name="summer", **more)

    async def test_are_priced_and_shown(self) -> None:
        summary = self.summing()
        model = ScriptedModel(["fine"])
        brain = Brain(model, context=Context(3000, summary=summary))
        result = await brain.run("go", history=self.HISTORY)
        assert "They counted to forty." in str([m["content"] for m in model.requests[0].messages])
        assert len(summary.requests) == len(result.wire_attempts) >= 1
        assert result.usage.cost == brain.ledger.total()
        assert {row.name for row in brain.ledger.rows(kind="model")} == {"summer"}

    async def test_a_summary_that_a_budget_has_no_room_for_is_done_without(self) -> None:
        summary = self.summing()
        model = ScriptedModel(["fine"])
        brain = Brain(model, context=Context(3000, summary=summary), budget=Budget(usd="0.00001"))
        try:
            result = await brain.run("go", history=self.HISTORY)
        except RunStopped:
            pytest.fail("the run goes on without a summary")
        assert result.output == "fine"
        assert "are left out here" in str(model.requests[0].messages)
        assert "They counted" not in str(model.requests[0].messages)

    async def test_are_journaled_and_not_asked_for_again(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        summary = self.summing()
        model = ScriptedModel(["never kept"])
        before = Brain(model, context=Context(3000, summary=summary), ledger=ledger)
        with failpoints({"journal.after_effect": cut_off}), pytest.raises(RuntimeError):
            await before.run("go", history=self.HISTORY, run_id="a")
        asked = len(summary.requests)
        assert asked >= 1
        again = ScriptedModel(["fine"])
        brain = Brain(again, context=Context(3000, summary=summary), ledger=ledger)
        result = await brain.run(run_id="a")
        assert result.output == "fine"
        assert len(summary.requests) == asked
        assert again.requests[0].messages == model.requests[0].messages
        assert len(result.wire_attempts) == asked
        await ledger.aclose()


class TestSessions:
    @pytest.fixture(params=["memory", "file"])
    def sessions(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        return MemorySessions() if request.param == "memory" else SqliteSessions(tmp_path / "talks.db")

    async def test_a_conversation_goes_on(self, sessions: Any) -> None:
        model = ScriptedModel([call("turned", text="abc"), "cba", "as before"])
        brain = Brain(model, tools=[turned], sessions=sessions)
        first = await brain.run("turn abc", session="s", tenant="t")
        second = await brain.run("and again?", session="s", tenant="t")
        assert second.messages[: len(first.messages)] == first.messages
        assert [message["content"] for message in second.new_messages()] == ["and again?", "as before"]
        assert await sessions.messages("s", tenant="t") == list(second.messages)

    async def test_of_another_tenant_is_an_error_and_nothing_is_asked(self, sessions: Any) -> None:
        model = ScriptedModel(["one", "two"])
        brain = Brain(model, sessions=sessions)
        await brain.run("go", session="s", tenant="t")
        with pytest.raises(SessionError) as caught:
            await brain.run("go", session="s", tenant="other")
        assert caught.value.problem == "taken"
        assert carried(caught.value).messages == ()
        assert len(model.requests) == 1

    async def test_a_run_that_fails_leaves_the_session_as_it_was(self, sessions: Any) -> None:
        brain = Brain(ScriptedModel(["one", ValueError("broken")]), sessions=sessions)
        await brain.run("go", session="s")
        with pytest.raises(ValueError, match="broken"):
            await brain.run("again", session="s")
        assert len(await sessions.messages("s")) == 2

    async def test_two_runs_at_once_do_not_mix(self, sessions: Any) -> None:
        async def meanwhile(request: Any) -> Any:
            await Brain(ScriptedModel(["quick"]), sessions=sessions).run("b", session="s")
            return "slow"

        class Slow(ScriptedModel):
            async def ask(self, request: Any, **how: Any) -> Any:
                await meanwhile(request)
                return await super().ask(request, **how)

        with pytest.raises(SessionError) as caught:
            await Brain(Slow(["slow"]), sessions=sessions).run("a", session="s")
        assert caught.value.problem == "changed"
        assert carried(caught.value).messages[-1]["content"] == "slow", "what was said is not lost"
        assert [m["content"] for m in await sessions.messages("s")] == ["b", "quick"]

    async def test_a_run_taken_up_goes_on_from_the_history_that_it_began_with(
        self, sessions: Any, tmp_path: Path
    ) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        await Brain(ScriptedModel(["one"]), sessions=sessions, ledger=ledger).run("go", session="s")
        with failpoints({"journal.after_effect": cut_off}), pytest.raises(RuntimeError):
            await Brain(ScriptedModel(["lost"]), sessions=sessions, ledger=ledger).run("b", session="s", run_id="r")
        brain = Brain(ScriptedModel(["two"]), sessions=sessions, ledger=ledger)
        result = await brain.run(run_id="r", session="s")
        assert [message["content"] for message in result.messages] == ["go", "one", "b", "two"]
        assert await brain.run(run_id="r", session="s") == result or len(await sessions.messages("s")) == 4
        assert len(await sessions.messages("s")) == 4
        await ledger.aclose()


class TestCleaning:
    async def test_the_model_reads_the_tidy_prompt_and_the_result_says_what_was_done(self) -> None:
        model = ScriptedModel(["fine"])
        result = await Brain(model, cleaning=Cleaner()).run("Hello\u200b   there,  say  'a   b'")
        assert model.requests[0].messages[-1]["content"] == "Hello there, say 'a   b'"
        assert result.cleaning is not None
        assert result.cleaning.tokens_saved > 0

    async def test_without_it_nothing_is_changed(self) -> None:
        model = ScriptedModel(["fine"])
        result = await Brain(model).run("Hello\u200b   there")
        assert model.requests[0].messages[-1]["content"] == "Hello\u200b   there"
        assert result.cleaning is None

    async def test_a_prompt_of_nothing_else_is_kept(self) -> None:
        model = ScriptedModel(["fine"])
        await Brain(model, cleaning=Cleaner()).run("\u200b\ufeffx\u200b")
        assert model.requests[0].messages[-1]["content"] == "x"

    async def test_a_run_is_taken_up_with_the_same_raw_prompt(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path / "bill.db")
        brain = Brain(ScriptedModel(["fine"]), cleaning=Cleaner(), ledger=ledger)
        first = await brain.run("Hello   there", run_id="r")
        assert (await brain.run("Hello   there", run_id="r")).output == first.output
        await ledger.aclose()


async def test_over_the_wire_a_step_adds_little() -> None:
    """Through the real local endpoint: what each further request is longer by, for a value of 10,000 characters."""

    def replies(body: dict[str, Any]) -> Any:
        results = [json.loads(m["content"]) for m in body["messages"] if m["role"] == "tool"]
        if not results:
            return call("grid", size=10_000)
        if len(results) == 3:
            return "done"
        return call("turned" if len(results) == 1 else "grid_of", text=results[-1]["preview"]["handle"])

    @tool(effect="pure")
    def turned(text: str) -> str:
        """Turn."""
        return text[::-1]

    @tool(effect="pure")
    def grid_of(text: str) -> str:
        """Turn back."""
        return text[::-1]

    with FakeEndpoint(replies) as endpoint:
        async with Brain(OpenAIModel("fake-model", base_url=endpoint.base_url), tools=[grid, turned, grid_of]) as brain:
            result = await brain.run("go")
    assert result.calls[2].value == result.calls[0].value
    messages = [received.body["messages"] for received in endpoint.requests]
    lengths = [sum(len(json.dumps(each, separators=(",", ":"))) for each in said) for said in messages]
    grown = [after - before for before, after in pairwise(lengths)]
    results = [len(json.dumps(m, separators=(",", ":"))) for m in messages[-1] if m["role"] == "tool"]
    assert all(each < 200 for each in results), "of a step, what comes back"
    assert all(each < 400 for each in grown), "with the model's own call"
