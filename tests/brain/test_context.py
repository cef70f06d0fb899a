"""What of a history a model is shown: within the window, with what is pinned, beginning as the last request did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain.context import Context, View, estimated_tokens
from brain.encoding import EncodedMessage
from brain.errors import ConfigurationError, ContextError, PromptError
from brain.handles import HANDLE, handle_of
from brain.keys import Secret
from brain.previews import handles_of, preview_of, value_in
from tests.benchmarks.context_figures import FACTS, SYSTEM, Conversation, figures, requests

Messages = list[dict[str, Any]]


def user(text: str = "and now?") -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str = "so it is") -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def called(*ids: str) -> dict[str, Any]:
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(id: str, value: Any = 6) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": json.dumps({"value": value, "accepted_by": "verified"})}


def turns(count: int, value: Any = "x" * 300, text: str = "and now? " * 10) -> Messages:
    """So many turns, each with a call, as many models number them: from the same id on."""
    messages: Messages = []
    for number in range(count):
        messages += [user(f"{number}: {text}"), called("call_0"), result("call_0", value), said(f"{number} it is")]
    return messages


def at_each_request(history: Sequence[dict[str, Any]]) -> list[Messages]:
    return [list(history[:at]) for at, message in enumerate(history) if message["role"] == "assistant"]


def check_whole(shown: Sequence[dict[str, Any]]) -> None:
    """Every call has its result, every result its call, next to each other."""
    open_calls: set[str] = set()
    for message in shown:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    assert not open_calls


def test_what_fits_is_shown_as_it_is() -> None:
    history = [SYSTEM, *turns(3), user()]
    view = View(Context(32_000))
    assert view.of(history) == history
    assert view.folds == ()


def test_pinned_facts_stand_behind_the_system_message() -> None:
    shown = View(Context(32_000, pinned=FACTS)).of([SYSTEM, user()])
    assert shown[0] == SYSTEM
    assert shown[1] == {"role": "system", "content": "\n".join(["Pinned facts:", *FACTS])}
    alone = View(Context(32_000, pinned=FACTS)).of([user()])
    assert [message["role"] for message in alone] == ["system", "user"]


def test_a_large_result_is_a_preview_from_its_first_turn_on() -> None:
    grid = [[0, 1] * 50] * 50
    history = [user(), called("a"), result("a", grid)]
    shown = View(Context(32_000)).of(history)
    content = json.loads(shown[2]["content"])
    assert content["preview"]["type"] == "list"
    assert content["preview"]["items"] == 50
    assert content["preview"]["handle"] == handle_of(1, history[2]["content"])
    assert "read_value" in content["preview"]["use"]
    assert content["accepted_by"] == "verified"
    assert len(shown[2]["content"]) < 1500
    assert history[2] == result("a", grid), "what is stored stays"
    assert value_in(handles_of(history)[content["preview"]["handle"]]) == grid


def test_what_is_read_in_parts_is_shown() -> None:
    """Else a model that reads a preview's value would be given a preview."""
    reads = called("a")
    reads["tool_calls"][0]["function"]["name"] = "read_value"
    history = [user(), reads, result("a", "x" * 8000)]
    assert View(Context(32_000)).of(history) == history
    history[2] = result("a", "x" * 20_000)
    assert View(Context(32_000)).of(history) != history


@pytest.mark.parametrize(
    ("conversation", "window"),
    [
        ({}, 32_000),
        ({}, 100_000),
        ({"once": True}, 32_000),
        ({"once": True}, 100_000),
        ({"calls": 0, "words": 120}, 32_000),
        ({"seed": 5, "calls": 4}, 64_000),
        ({"seed": 6, "calls": 4, "results": (3_900, 10_000)}, 128_000),
    ],
)
def test_300_turns(conversation: dict[str, Any], window: int) -> None:
    found = figures(Context(window, pinned=FACTS), Conversation(**conversation), 300)
    assert found["largest_share_of_window"] <= 1
    assert found["pinned_always"]
    assert found["from_request"] <= 30, "after a few turns no turn is a fifth of a request"
    assert found["least_shared"] >= 0.8
    assert found["kinds"]["rebuilt"] == 0
    if found["folds"] > 1:
        assert found["least_requests_between_folds"] >= 10
        assert conversation.get("once") or found["least_turns_between_folds"] >= 10


def test_old_results_fold_to_previews_before_turns_go() -> None:
    history = [SYSTEM, *turns(150, value="y" * 1500, text="?")]
    view = View(Context(64_000))
    for stored in at_each_request(history):
        shown = view.of(stored)
        if view.folds:
            break
    assert [fold.kind for fold in view.folds] == ["previews"]
    assert view.folds[0].left_out == 0
    assert len(shown) == len(stored), "no message is left out"
    assert shown != stored
    folded = [json.loads(m["content"]) for m in shown if m["role"] == "tool" and "preview" in json.loads(m["content"])]
    assert folded
    contents = handles_of(stored)
    assert all(each["preview"]["handle"] in contents for each in folded)
    assert all(len(m["content"]) < 200 for m in shown if m["role"] == "tool" and "preview" in m["content"])


def test_what_is_left_out_is_said_once_with_its_handles() -> None:
    history = [SYSTEM, *turns(120), user("the last")]
    view = View(Context(8_000))
    shown = view.of(history)
    stubs = [m for m in shown if m["role"] == "user" and m["content"].startswith("[From the loop")]
    assert len(stubs) == 1
    named = [found[1] for found in HANDLE.finditer(stubs[0]["content"])]
    assert named
    assert set(named) <= handles_of(history).keys()
    assert view.folds[-1].kind == "left_out"
    assert view.folds[-1].left_out > 0
    assert shown[-1] == user("the last")
    check_whole(shown)


def test_whole_turns_go() -> None:
    """Of a turn that is not long, all or nothing is shown."""
    history = [SYSTEM, *turns(200, value="z" * 100), user("the last")]
    shown = View(Context(32_000)).of(history)
    groups = [message["content"].split(":")[0] for message in shown if message["role"] == "user"]
    answers = [
        message["content"].split(" ")[0] for message in shown if message["role"] == "assistant" and message["content"]
    ]
    assert [group for group in groups if group.isdigit()] == answers


def test_a_run_taken_up_elsewhere_shows_the_same_bytes() -> None:
    context = Context(12_000, pinned=FACTS)
    live = View(context, 500)
    for stored in at_each_request([SYSTEM, *turns(70)]):
        shown = live.of(stored)
        again = View(Context(12_000, pinned=FACTS), 500)
        copied = json.loads(json.dumps(stored))
        assert [message.wire for message in again.of(copied)] == [message.wire for message in shown]
        assert again.folds == live.folds
    assert len(live.folds) > 2


def test_a_tool_that_is_offered_on_the_way_moves_no_fold() -> None:
    """A run begins without it, and the next one of the session looks at the same history from the beginning."""
    context = Context(12_000)
    live, folds = View(context, 900), 0
    for stored in at_each_request([SYSTEM, *turns(70)]):
        live.head_tokens = 1_000 if len(stored) > 30 else 900
        shown = live.of(stored)
        if len(live.folds) > folds:
            folds = len(live.folds)
            assert View(context, 900).of(stored) == shown
    assert folds > 2


def test_asking_again_changes_nothing() -> None:
    view = View(Context(8_000))
    history = [SYSTEM, *turns(80), user()]
    first = view.of(history)
    assert view.of(history) == first
    assert view.of([SYSTEM, user("something else")]) == [SYSTEM, user("something else")]
    assert view.folds == ()
    assert view.of(history) == first


ITEM = st.sampled_from(["talk", "call", "calls", "huge", "question", "long"])


@settings(max_examples=60, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=120), st.sampled_from([2_000, 6_000, 20_000]))
def test_whatever_happens_calls_keep_their_results_and_the_window_holds(items: list[str], window: int) -> None:
    history: Messages = [{"role": "system", "content": "Be brief."}]
    for number, item in enumerate(items):
        if item in ("talk", "question", "long"):
            history += [user(f"{number} " + "abc " * (200 if item == "long" else 8))]
        if item in ("talk", "long"):
            history += [said(f"{number} " + "abc " * 8)]
        if item in ("call", "huge"):
            history += [called("a"), result("a", "ü😀" * (4000 if item == "huge" else 20))]
        if item == "calls":
            history += [called("a", "b"), result("b", {"k": [number] * 30}), result("a", None)]
    history.append(user("the last"))
    context = Context(window, pinned=["The fact."])
    live = View(context)
    last: list[bytes] = []
    for stored in [*at_each_request(history), history]:
        folds = len(live.folds)
        shown = live.of(stored)
        wire = [message.wire for message in shown]
        check_whole(shown)
        assert sum(estimated_tokens(each) for each in wire) <= live.tokens <= context.rules.budget
        assert shown[1]["content"] == "Pinned facts:\nThe fact."
        asked = [message for message in stored if message["role"] == "user"]
        assert not asked or asked[-1] in shown, "the latest request is always shown"
        assert shown[-1] == stored[-1] or stored[-1]["role"] in ("tool", "system")
        if len(live.folds) == folds:
            assert wire[: len(last)] == last, "nothing changes without a fold"
        last = wire
    assert [message.wire for message in View(context).of(history)] == last


@pytest.mark.parametrize(
    ("history", "index", "word"),
    [
        ([user(), result("a")], 1, "without a call"),
        ([user(), called("a"), result("b")], 2, "without a call"),
        ([user(), called("a"), result("a"), result("a")], 3, "second result"),
        ([user(), called("a"), user()], 1, "no tool message answers"),
        ([user(), called("a", "b"), result("a"), said()], 1, "no tool message answers"),
        ([user(), called("a", "a"), result("a")], 1, "of one id"),
        ([user(), {"role": "assistant", "tool_calls": [{}]}, user()], 1, "cannot be read"),
        ([user(), {"role": "assistant", "tool_calls": "x"}, user()], 1, "cannot be read"),
        ([user(), said(), result("a"), user()], 2, "without a call"),
        ([result("a"), user()], 0, "without a call"),
    ],
)
def test_orphans(history: Messages, index: int, word: str) -> None:
    view = View(Context(8_000))
    for _ in range(2):
        with pytest.raises(ContextError, match=word) as caught:
            view.of(history)
        assert caught.value.index == index
        assert isinstance(caught.value, PromptError)
        assert "repair=True" in str(caught.value)
    mended = View(Context(8_000, repair=True))
    shown = mended.of([*history, user("the last")] if history[-1]["role"] != "user" else history)
    check_whole(shown)
    assert mended.repairs
    assert [message for message in shown if message["role"] == "user"]


def test_the_last_exchange_may_be_open() -> None:
    history = [user(), called("a", "b"), result("a")]
    assert View(Context(8_000)).of(history) == history


def test_what_can_not_fit_is_said_before_anything_is_sent() -> None:
    with pytest.raises(ContextError, match="message 1 of the history"):
        View(Context(2_000)).of([SYSTEM, user("word " * 2000)])
    with pytest.raises(ContextError, match="system message and the pinned facts"):
        View(Context(2_000, pinned=["word " * 2000])).of([user()])
    with pytest.raises(ContextError, match="offer fewer tools"):
        View(Context(2_000), 5_000).of([user()])
    with pytest.raises(ContextError, match="half a character"):
        View(Context(2_000)).of([user("\ud800")])
    view = View(Context(2_000))
    for _ in range(2):
        with pytest.raises(ContextError):
            view.of([user("word " * 2000)])
    assert view.of([user()]) == [user()]


def test_what_was_once_too_large_is_left_out_later() -> None:
    """A history may come from a run with another window."""
    history = [user("word " * 2000), said(), user("short")]
    shown = View(Context(2_000)).of(history)
    assert shown[-1] == user("short")
    assert "1 earlier turns" in shown[0]["content"]


def test_many_large_results_of_one_turn_become_previews_rather_than_an_error() -> None:
    ids = [f"call_{n}" for n in range(12)]
    history = [user(), called(*ids), *[result(id, "x" * 900) for id in ids]]
    view = View(Context(6_000))
    shown = view.of(history)
    check_whole(shown)
    assert len(shown) == len(history)
    assert view.tokens <= view.context.rules.budget


def test_pinned_messages_stay_whole() -> None:
    history = [SYSTEM, *turns(80)]
    marked = [user("the address is Elm Street 4"), called("z"), result("z", "kept " * 60), said()]
    history = [*history[:161], *marked, *history[161:], user("the last")]
    context = Context(16_000, pin=lambda message: "Elm Street" in str(message) or "kept" in str(message["content"]))
    view = View(context)
    for stored in at_each_request(history):
        shown = view.of(stored)
        if marked[2] in stored:
            assert marked[0] in shown
            assert marked[2] in shown
        check_whole(shown)
    assert view.folds[-1].left_out > 0


def test_turns_that_grow_make_the_head_give_way() -> None:
    """Rarely: the head was chosen for small turns, and large ones do not fit beside it."""
    history = [SYSTEM, *turns(150, value=1, text="small"), *turns(60, value="x" * 3000, text="large " * 40)]
    view = View(Context(12_000))
    for stored in at_each_request(history):
        view.of(stored)
        assert view.tokens <= view.context.rules.budget
    kinds = [fold.kind for fold in view.folds]
    assert kinds.count("rebuilt") <= 2


def test_a_tokenizer_of_ones_own() -> None:
    history = [SYSTEM, *turns(60), user()]
    assert View(Context(16_000, tokens=lambda raw: len(raw) // 8)).of(history) == history
    for wrong in (lambda raw: -1, lambda raw: "many", lambda raw: 1.5, lambda raw: True):
        with pytest.raises(ConfigurationError, match="number of tokens"):
            View(Context(16_000, tokens=wrong))  # type: ignore[arg-type]


def test_the_rule_is_no_lower_than_known_tokenizers() -> None:
    assert estimated_tokens(b"a" * 100) == 50
    assert estimated_tokens(b"[0,1]") == 5
    assert estimated_tokens("日本".encode()) == 3
    assert estimated_tokens(b"") == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 100}, {"window": "8000"}, {"window": True}, {"window": 8000, "output_tokens": 5000},
        {"window": 8000, "pinned": "one"}, {"window": 8000, "pinned": [""]}, {"window": 8000, "pinned": [3]},
        {"window": 8000, "pinned": ["\ud800"]}, {"window": 8000, "preview_above": 10}, {"window": 8000, "head": 1.5},
        {"window": 8000, "tail": 0}, {"window": 8000, "pin": "x"}, {"window": 8000, "tokens": 4},
        {"window": 8000, "turns_between_folds": 0}, {"window": 8000, "summary_tokens": 1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Context(**wrong)


def test_a_context_is_fixed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Context(8_000).window = 9_000


# Summaries


def summarising() -> Context:
    return Context(8_000, summary="openai:gpt-5-mini")


def test_a_summary_stands_for_what_is_left_out() -> None:
    history = [SYSTEM, *turns(60), user("the last")]
    view = View(summarising())
    plain = view.of(history)
    asked = view.wants_summary()
    assert asked is not None
    assert asked.max_output_tokens == 600
    assert estimated_tokens(b"".join(message.wire for message in asked.messages)) <= view.context.rules.budget
    view.summarised('They asked "what now?" often.')
    shown = view.of(history)
    assert view.wants_summary() is None
    assert len(shown) == len(plain)
    (stub,) = [message for message in shown if "[From the loop" in str(message["content"])]
    assert '"They asked \\"what now?\\" often."' in stub["content"]
    again = View(view.context)
    assert again.of(history) == shown, "a context remembers"
    assert again.wants_summary() is None
    elsewhere = View(summarising())
    elsewhere.of(history)
    wanted = elsewhere.wants_summary()
    assert wanted is not None
    assert wanted.id == asked.id, "so that a journal finds it"


def test_without_an_answer_what_was_sent_stays() -> None:
    history = [SYSTEM, *turns(60), user("the last")]
    view = View(summarising())
    shown = view.of(history)
    assert view.wants_summary() is not None
    later = view.of([*history, said(), user("one more")])
    assert view.wants_summary() is None
    assert later[: len(shown)] == shown
    view.summarised("too late")
    assert view.of([*history, said(), user("one more")]) == later


def test_a_summary_is_bounded_and_has_no_keys() -> None:
    key = Secret("sk-canary-0123456789")
    history = [SYSTEM, *turns(60), user("the last")]
    view = View(summarising())
    view.of(history)
    view.summarised(f"{key.reveal()} " + 'long "\\\n😀\ud800 ' * 10_000)
    shown = view.of(history)
    text = json.dumps(shown)
    assert key.reveal() not in text
    assert view.tokens <= view.context.rules.budget
    assert sum(estimated_tokens(message.wire) for message in shown) <= view.tokens
    empty = View(summarising())
    before = empty.of(history)
    empty.summarised("  ")
    assert empty.of(history) == before


def test_the_next_summary_is_made_from_the_last_one() -> None:
    view = View(summarising())
    seen = []
    for stored in at_each_request([SYSTEM, *turns(120)]):
        view.of(stored)
        asked = view.wants_summary()
        if asked is not None:
            seen.append(asked)
            view.summarised(f"summary {len(seen)}")
            assert f"summary {len(seen)}" in json.dumps(view.of(stored))
    assert len(seen) > 1
    for number, asked in enumerate(seen[1:], 1):
        assert asked.messages[1]["content"].startswith(json.dumps({"earlier summary": f"summary {number}"}))


# Previews


HOSTILE = ["", "{}", "[]", "null", '{"value":', '{"value":1,"accepted_by":"x","more":2}', '"\\ud800"', "[" * 5000,
           '{"value":"\\ud83d\\ude00\\ud800"}', "9" * 6000, '{"value":NaN}', '{"value":1,"value":2}', "\x00\x01" * 900,
           '{"value":{"a":"' + "\\u0001" * 3000 + '"}}', "{" * 3000, '{"error":' + "1" * 400 + "}"]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE)
def test_any_text_has_a_preview(content: str) -> None:
    for limit in (0, 1, 40, 1000):
        preview = preview_of(content, "@v1:0000", limit)
        EncodedMessage({"role": "tool", "content": preview})
        assert isinstance(json.loads(preview), dict)
        assert len(preview) < limit + 400


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
)


@settings(max_examples=100, deadline=None)
@given(VALUE)
def test_any_value_has_a_preview(value: Any) -> None:
    content = json.dumps({"value": value, "accepted_by": "unchecked"})
    preview = json.loads(preview_of(content, "@v1:0000", 60))
    assert preview["accepted_by"] == "unchecked"
    assert preview["preview"]["handle"] == "@v1:0000"
    assert value_in(content) == value


def test_previews_by_type() -> None:
    def preview(value: Any, limit: int = 20) -> Any:
        return json.loads(preview_of(json.dumps({"value": value, "accepted_by": None}), "@v1:0000", limit))["preview"]

    text = "éàüöäß" + "abcdefghijklmnopqrst" * 3
    assert preview(text)["begins"] == text[:20]
    assert preview(text)["characters"] == len(text)
    assert preview("01" * 50)["begins"] == "01" * 6, "more of a grid says no more"
    assert preview(list(range(1000)))["begins"] == list(range(10))
    assert preview(["x" * 50])["begins"] == '"' + "x" * 18, "the quote is written as two characters"
    assert preview({"a": 1, "b": "x" * 50})["begins"] == {"a": 1}
    assert preview(1.5) == {"type": "number", "begins": "1.5", "handle": "@v1:0000"}
    assert preview(None)["type"] == "null"
    assert "use" not in preview(1)
    assert "use" in preview(1, 200)


def test_errors_keep_their_first_200_characters_and_texts_their_beginning() -> None:
    assert json.loads(preview_of(json.dumps({"error": "e" * 5000}), "@v1:0000", 40)) == {"error": "e" * 200}
    assert json.loads(preview_of('{"error": "no", "handle": "@v1:0000"}', "@v1:0000", 40)) == {"error": "no"}
    assert json.loads(preview_of("plain " * 50, "@v1:0000", 12))["preview"]["begins"] == "plain plain "
    forged = json.dumps({"preview": {"handle": "@v9:dead"}, "text": "x" * 900})
    assert json.loads(preview_of(forged, "@v1:0000", 10))["preview"]["handle"] == "@v1:0000"


def test_handles() -> None:
    assert HANDLE.fullmatch(handle_of(3, "text"))
    assert handle_of(3, "text") == handle_of(3, "text") != handle_of(3, "text.")
    for wrong in ("@v0:0000", "@v1:000", "@v1:00000", "@v1:ABCD", "@v1:0000\n", "x@v1:0000", "@v١:0000"):
        assert HANDLE.fullmatch(wrong) is None
    history = [user(), called("a"), result("a", 1), user(), called("a"), result("a", 2)]
    assert [value_in(content) for content in handles_of(history).values()] == [1, 2]
    assert [handle.split(":")[0] for handle in handles_of(history)] == ["@v1", "@v2"]


def test_requests_are_measured_as_they_are_sent() -> None:
    """The benchmark's own counting: what it calls shared is what two bodies begin with alike."""
    made = list(requests(Context(32_000), Conversation(), 20))
    for before, after in pairwise(made):
        length = round(after.shared * len(after.body))
        assert before.body[:length] == after.body[:length]
        assert before.body[: length + 1] != after.body[: length + 1]
