"""The index that finds the few of many tools: what it finds, in which order, and how much it looks at."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest

from brain import retrieval
from brain.retrieval import Index

TOOLS = [
    ("get_weather", "Get the weather forecast for a city."),
    ("sendEmail", "Send a message to somebody by mail."),
    ("book_flight", "Book a flight between two airports."),
    ("HTTPStatus", "Say what a status code means."),
    ("currency_conversion", "Convert an amount between currencies, with the weather at the bank's city."),
]


def best(text: str, limit: int = 5) -> list[str]:
    return [TOOLS[place][0] for place in Index(TOOLS).best(text, limit)]


def test_a_word_in_a_name_counts_more_than_in_a_description() -> None:
    assert best("What is the weather in Oslo?") == ["get_weather", "currency_conversion"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Flights to Rome, please", "book_flight"),  # an inflection
        ("Reserve me a seat on a plane: flihgt or flightt?", "book_flight"),  # a misspelling
        ("What does http say?", "HTTPStatus"),  # a part of a name
        ("use sendEmail", "sendEmail"),
        ("use send_email", "sendEmail"),
        ("exchange 100 USD", "currency_conversion"),  # a synonym
    ],
)
def test_what_a_text_speaks_of_is_found(text: str, name: str) -> None:
    assert best(text, 1) == [name]


def test_at_most_limit_and_fewer_where_fewer_fit() -> None:
    assert len(best("weather email flight status", 2)) == 2
    assert best("weather email flight status", 0) == []
    assert len(best("flight", 5)) == 1
    assert Index([]).best("flight", 3) == []


@pytest.mark.parametrize("text", ["", "yes", "Schreibe der Hausverwaltung", "…", "a the of"])
def test_a_text_that_shares_no_word_gets_the_first_entries(text: str) -> None:
    assert best(text, 3) == ["get_weather", "sendEmail", "book_flight"]


def test_equal_entries_come_in_their_own_order() -> None:
    index = Index([(f"tool_{number}", "Paint a wall.") for number in range(500)])
    assert index.best("paint the wall", 4) == [0, 1, 2, 3]


def test_scripts_without_spaces_are_compared_by_pairs_of_characters() -> None:
    index = Index([("a", "发送电子邮件"), ("b", "查询城市天气"), ("c", "天气")])
    assert index.best("今天天气怎么样", 2) == [2, 1]


def test_a_rare_word_outweighs_common_ones() -> None:
    many = [(f"answer_{number}", f"Answer questions for department {number}.") for number in range(3000)]
    assert Index(many).best("Answer a question for department 2718", 3)[0] == 2718


def test_nothing_is_built_before_the_first_question_and_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    post = retrieval._post
    monkeypatch.setattr(retrieval, "_post", lambda entries: (built.append(len(entries)), post(entries))[1])
    index = Index(TOOLS)
    assert built == []
    index.best("weather", 1)
    index.best("flight", 1)
    assert built == [len(TOOLS)]


class Counting(array):  # type: ignore[type-arg]
    """An array that counts how many of its numbers are looked at one after the other."""

    seen = 0

    def __iter__(self) -> Any:
        Counting.seen += len(self)
        return super().__iter__()


def test_common_words_of_a_text_are_not_walked_through() -> None:
    chance = random.Random(7)
    common = [f"{a}{b}" for a in "bdfgk" for b in ("alo", "emu", "ibi", "oro", "upa", "ate", "eno", "ici")]
    entries = [(f"tool_{n}", " ".join(chance.sample(common, 20))) for n in range(5000)]
    index = Index([*entries, ("zebra", "Stripes.")])
    index.best("x", 1)
    assert index._postings is not None
    positions = index._postings.positions
    for word in positions:
        positions[word] = Counting("L", positions[word].tolist())
    Counting.seen = 0
    found = index.best(" ".join(common), 8)
    assert len(found) == 8
    assert 0 < Counting.seen <= 2 * retrieval._POSTINGS  # a walk through all of them would be 100,000
    Counting.seen = 0
    assert index.best("zebra " + " ".join(common[:4]), 8)[0] == 5000
    assert 0 < Counting.seen <= retrieval._POSTINGS


def test_a_long_text_is_read_at_both_ends() -> None:
    filler = "lorem ipsum " * 5000
    assert best(f"{filler} book a flight", 1) == ["book_flight"]
    assert best(f"book a flight {filler}", 1) == ["book_flight"]


def test_the_same_question_has_the_same_answer() -> None:
    chance = random.Random(3)
    words = [f"word{number}" for number in range(300)]
    entries = [(f"t{n}", " ".join(chance.choices(words, k=12))) for n in range(800)]
    text = " ".join(chance.choices(words, k=60))
    assert Index(entries).best(text, 16) == Index(entries).best(text, 16) == Index(tuple(entries)).best(text, 16)
