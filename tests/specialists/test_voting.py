"""A vote over symmetric variants: how votes are counted, and the rung that asks for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists import Answer, CannotAnswer, DefinitionError, Effort, Outcome, Symmetry, Verdict, specialist
from specialists.define import Specialist
from specialists.voting import Ballot, count_votes

PASSED, FAILED, UNKNOWN = Verdict.passed(), Verdict.failed("no"), Verdict.unknown()


@pytest.mark.parametrize(
    ("ballots", "asked", "value", "confidence"),
    [
        ([Ballot("a"), Ballot("b"), Ballot("a")], 3, "a", 2 / 3),
        # Whoever was asked and did not answer is no vote for it.
        ([Ballot("a", 0.9)], 4, "a", 0.9 / 4),
        ([Ballot("a", 0.5), Ballot("a", 0.7)], 2, "a", 0.6),
        # Votes before confidences, confidences before who came first, and then who came first.
        ([Ballot("b", 1.0), Ballot("a", 0.1), Ballot("a", 0.1)], 3, "a", 0.2 / 3),
        ([Ballot("b", 0.2), Ballot("a", 0.3)], 2, "a", 0.15),
        ([Ballot("b", 0.3), Ballot("a", 0.3)], 2, "b", 0.15),
        # No confidence counts whole.
        ([Ballot("b", 0.9), Ballot("a")], 2, "a", 0.5),
        # What passed the check goes before the many, what failed it after the few.
        ([Ballot("a", verdict=UNKNOWN)] * 3 + [Ballot("b", verdict=PASSED)], 4, "b", 0.25),
        ([Ballot("a", verdict=FAILED)] * 3 + [Ballot("b", verdict=UNKNOWN)], 4, "b", 0.25),
        ([Ballot("a", verdict=FAILED)] * 3 + [Ballot("b")], 4, "b", 0.25),
        ([Ballot("a", verdict=FAILED)], 1, "a", 1.0),
        # JSON's ideas of what is the same.
        ([Ballot(1), Ballot(True), Ballot(True)], 3, True, 2 / 3),
        ([Ballot({"x": 1, "y": 2}), Ballot({"y": 2, "x": 1}), Ballot({"x": 1})], 3, {"x": 1, "y": 2}, 2 / 3),
        # Fewer asked than answered cannot be; a share is none above one.
        ([Ballot("a"), Ballot("a")], 1, "a", 1.0),
    ],
)
def test_who_wins(ballots: list[Ballot], asked: int, value: Any, confidence: float) -> None:
    won = count_votes(ballots, asked)
    assert won is not None
    assert won.value == value
    assert type(won.value) is type(value)
    assert won.confidence == pytest.approx(confidence)


def test_nobody_wins_without_a_ballot() -> None:
    assert count_votes([], 3) is None


one_ballot = st.builds(Ballot, st.sampled_from("abc"), st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.none())


@given(st.lists(one_ballot, min_size=1, max_size=5), st.integers(0, 3))
def test_a_vote_is_a_share_and_asks_for_no_order_but_among_equals(ballots: list[Ballot], silent: int) -> None:
    asked = len(ballots) + silent
    won = count_votes(ballots, asked)
    assert won is not None
    mine = [each for each in ballots if each.value == won.value]
    assert won.confidence is not None
    assert 0 <= won.confidence <= len(mine) / asked
    votes = {value: sum(each.value == value for each in ballots) for value in "abc"}
    assert votes[won.value] == max(votes.values())
    for order in itertools.permutations(ballots):
        other = count_votes(order, asked)
        assert other is not None
        assert votes[other.value] == votes[won.value]
        assert other.confidence == pytest.approx(won.confidence)


# The rung.

LETTERS = "abcdefgh"


def shift(by: int) -> Symmetry:
    """Every letter ``by`` places on, around the end; the answer comes back."""

    def moved(text: str, by: int) -> str:
        return "".join(LETTERS[(LETTERS.index(each) + by) % len(LETTERS)] for each in text)

    return Symmetry(
        f"{by} on",
        lambda arguments: {**arguments, "text": moved(arguments["text"], by)},
        lambda arguments, value: moved(value, -by),
    )


def last_of(script: Mapping[str, Any], symmetries: Any, **declared: Any) -> tuple[Specialist[..., Any], list[str]]:
    """Answers the last letter; ``script`` has other ends for some texts."""
    asked: list[str] = []

    @specialist(name="last", symmetries=symmetries, **declared)
    async def last(text: str) -> Answer[str]:
        """The last letter."""
        asked.append(text)
        end = script.get(text, text[-1])
        if isinstance(end, Exception):
            raise end
        return end if isinstance(end, Answer) else Answer(end, 0.5)

    return last, asked


def vote_of(outcome: Outcome[Any]) -> Any:
    return next((each for each in outcome.attempts if each.rung == "vote"), None)


async def test_variants_are_asked_and_their_answers_turned_back() -> None:
    s, asked = last_of({"abh": Answer("a", 0.5)}, [shift(1), shift(3)], min_confidence=0.6)
    outcome = await s.solve(text="abh")
    assert asked == ["abh", "bca", "dec"]
    vote = vote_of(outcome)
    # h and h from the variants against a.
    assert (vote.outcome, vote.value, vote.source) == ("answered", "h", "last")
    assert vote.confidence == pytest.approx(1 / 3)
    assert outcome.accepted_by is None
    assert "last by vote: confidence 0.3333 is below the floor of 0.6" in str(outcome.reason)


async def test_an_answer_that_was_accepted_is_not_voted_on() -> None:
    s, asked = last_of({}, [shift(1)], min_confidence=0.5)
    assert (await s.solve(text="a")).answered_by == "specialist"
    assert asked == ["a"]


async def test_a_vote_may_find_what_can_be_proved() -> None:
    s, _ = last_of(
        {"abc": Answer("x", 0.9), "bcd": Answer("y", 0.9)},
        [shift(1), shift(2)],
        verify=lambda arguments, value: value == arguments["text"][-1],
        sound=True,
        complete=True,
    )
    # "y" is no letter that can be turned back: that variant has no voice.
    outcome = await s.solve(text="abc")
    assert (outcome.value, outcome.accepted_by, outcome.answered_by) == ("c", "verified", "vote")
    assert vote_of(outcome).confidence == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    ("end", "votes"),
    [(CannotAnswer("hard"), True), (ValueError("broken"), False), (Answer(7, 0.9), False)],
)
async def test_it_comes_after_an_answer_or_none_but_not_after_a_failure(end: Any, votes: bool) -> None:
    s, _ = last_of({"a": end}, [shift(1)], min_confidence=0.9)
    vote = vote_of(await s.solve(text="a"))
    assert (vote is not None) is votes
    if vote is not None:
        assert (vote.value, vote.confidence) == ("a", pytest.approx(0.25))  # of two that were asked


async def test_variants_that_fail_have_no_voice_and_all_failing_is_a_failure() -> None:
    s, _ = last_of({"b": ValueError("no"), "c": Answer("c", 3.0)}, [shift(1), shift(2), shift(4)], min_confidence=0.9)
    vote = vote_of(await s.solve(text="a"))
    assert (vote.outcome, vote.value, vote.confidence) == ("answered", "a", pytest.approx(2 * 0.5 / 4))
    s, _ = last_of({"a": CannotAnswer("hard"), "b": CannotAnswer("harder")}, [shift(1)], min_confidence=0.9)
    vote = vote_of(await s.solve(text="a"))
    assert (vote.outcome, vote.reason) == ("cannot", "harder")


async def test_a_variant_that_does_not_fit_the_types_has_no_voice() -> None:
    odd = Symmetry("no text", lambda arguments: {"text": 7})
    other = Symmetry("another name", lambda arguments: {"word": "a"})
    s, asked = last_of({}, [odd, other], min_confidence=0.9)
    vote = vote_of(await s.solve(text="a"))
    assert asked == ["a"]
    assert (vote.value, vote.confidence) == ("a", pytest.approx(0.5 / 3))


async def test_a_symmetry_cannot_change_the_question() -> None:
    def spoil(arguments: Any) -> Any:
        arguments["text"] = "h"
        return arguments

    s, _ = last_of(
        {}, [Symmetry("spoils", spoil), shift(1)], verify=lambda arguments, value: arguments["text"] == "never"
    )
    outcome = await s.solve(text="a")
    assert outcome.arguments == {"text": "a"}
    assert vote_of(outcome).value == "a"


async def test_steps_are_added_and_the_first_answer_alone_votes_with_the_variants() -> None:
    asked: list[tuple[str, int | None]] = []

    @specialist(name="last", steps=(1, 8), symmetries=[shift(1), shift(2)], min_confidence=0.9)
    async def last(text: str, effort: Effort) -> Answer[str]:
        """The last letter."""
        asked.append((text, effort.max_steps))
        return Answer("h" if effort.max_steps == 8 and text == "a" else text[-1], 0.5, steps=effort.max_steps)

    outcome = await last.solve(text="a")
    assert asked == [("a", 1), ("a", 8), ("b", 8), ("c", 8)]
    assert [each.rung for each in outcome.attempts] == ["specialist", "more_steps", "vote"]
    vote = outcome.attempts[-1]
    # Not h, the answer with more steps: a policy may do without that rung, and the vote is the same.
    assert (vote.value, vote.confidence, vote.steps) == ("a", pytest.approx(0.5), 16)


async def test_a_vote_stands_before_the_next_specialist() -> None:
    @specialist
    async def after(text: str) -> Answer[str]:
        """Another."""
        return Answer("z", 1.0)

    s, _ = last_of({}, [shift(1)], min_confidence=0.9, next=after)
    outcome = await s.solve(text="a")
    assert [each.rung for each in outcome.attempts] == ["specialist", "vote", "next:after"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["turn"],
        [lambda arguments: arguments],
        [None],
    ],
)
def test_what_is_no_symmetry_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=r"symmetries are of type specialists\.Symmetry"):
        last_of({}, wrong)


async def test_a_vote_is_within_the_time_limit() -> None:
    @specialist(name="last", symmetries=[shift(1)], min_confidence=0.9, timeout=0.2)
    async def last(text: str) -> Answer[str]:
        """The last letter."""
        if text != "a":
            await asyncio.sleep(60)
        return Answer(text[-1], 0.5)

    outcome = await last.solve(text="a")
    assert [(each.rung, each.outcome) for each in outcome.attempts] == [("specialist", "answered"), ("vote", "timeout")]
