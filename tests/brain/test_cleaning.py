"""Cleaning a prompt: what it tidies, what keeps every byte, and that cleaning twice is cleaning once."""

from __future__ import annotations

import pickle
import random
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brain.cleaning import Cleaner
from brain.errors import ConfigurationError, PromptError
from brain.events import ToolSchema
from tests.benchmarks.cleaning_figures import hostile, kept_in_order, measure

CLEANER = Cleaner()


def clean(text: str, **options: Any) -> str:
    return Cleaner(**options).clean(text).text


def schema(**properties: Any) -> ToolSchema:
    return ToolSchema("tool", "A tool.", {"type": "object", "properties": properties})


# What is tidied


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Say   hello to\u00a0all.", "Say hello to all."),
        ("one  \ntwo\t\n\n\n\nthree\n\n", "one\ntwo\n\nthree"),
        ("\n\n  first\nsecond", "  first\nsecond"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("  - a list\n    stays   as it is\n  - so", "  - a list\n    stays   as it is\n  - so"),
        ("columns\tby\t\ttabs", "columns\tby\t\ttabs"),
        ("\ufeffHel\u200blo wo\u00adrld\u202e!", "Hello world!"),
        ("hidden\U000e0068\U000e0069 words", "hidden words"),
        ("cafe\u0301", "café"),
        ("\u200b\ufeff \n", ""),
        ("", ""),
    ],
)
def test_blanks_invisible_characters_and_the_normal_form(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "family 👩\u200d👩\u200d👧\u200d👦 here",
        "a heart ❤\ufe0f and a key 1\ufe0f\u20e3",
        "the flag 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f of Scotland",
        "می\u200cخواهم",
        "क\u094d\u200dष and क\u094d\u200cष",
        "ภาษา\u200bไทย",
        "葛\U000e0100 with a selector",
    ],
)
def test_invisible_characters_that_a_script_or_an_emoji_needs_stay(text: str) -> None:
    assert clean(text) == text


def test_a_run_of_selectors_hides_nothing() -> None:
    hidden = "".join(chr(0xE0100 + each) for each in b"secret")
    assert clean(f"a smile 😀\ufe0f{hidden}\ufe0e here") == "a smile 😀\ufe0f here"
    assert clean("ا\u200c\u200c\u200d\u200cب") == "ا\u200cب"


def test_the_compatibility_form_is_only_taken_when_it_is_asked_for() -> None:
    assert clean("the ﬁrst ２ ofﬁces") == "the ﬁrst ２ ofﬁces"
    assert clean("the ﬁrst ofﬁces", form="NFKC") == "the first offices"
    with pytest.raises(ConfigurationError, match="NFKC"):
        Cleaner(form="NFD")  # type: ignore[arg-type]


def test_heaps_of_marks_stay_as_they_are() -> None:
    heap = "a" + "\u0301\u0316" * 200_000  # to bring these in order would take hours
    assert clean(f"cafe\u0301  {heap}") == f"café {heap}"


# Boilerplate


def test_a_repeated_sentence_and_a_repeated_paragraph_are_kept_once() -> None:
    cleaned = CLEANER.clean(
        "Please be brief.\n\nWhat is a monad?\n\nPlease be brief.\n\nYours sincerely\nthe whole big team\n\n"
        "And a functor?\n\nYours sincerely\nthe whole big team\n"
    )
    assert cleaned.text == (
        "Please be brief.\n\nWhat is a monad?\n\nYours sincerely\nthe whole big team\n\nAnd a functor?"
    )
    assert cleaned.report.changes["lines"] == 1
    assert cleaned.report.changes["paragraphs"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Paris\nParis\nRome",  # a list: a word in it twice is there twice
        "Count the words:\n- red wine\n- red wine\n- white wine",
        "Add 2 apples please.\nAdd 2 apples please.",  # a number in it is an argument
        'Print "so" please now.\nPrint "so" please now.',
        "Ask a@b.org about this.\nAsk a@b.org about this.",
        "```\nreturn the same thing again.\nreturn the same thing again.\n```",
        "> quoted once or twice here.\n> quoted once or twice here.",
        "| the same row again here. |\n| the same row again here. |",
        "    the same code line again.\n    the same code line again.",
    ],
)
def test_data_is_never_thinned(text: str) -> None:
    assert clean(text) == text


def test_boilerplate_can_stay() -> None:
    text = "Please be brief.\nPlease be brief."
    assert clean(text, boilerplate=False) == text


# What keeps every byte

KEPT = [
    ("code", "```python\nx  =  1 \u200b\n\n\n\ny\t=  'e\u0301'  \n```"),
    ("code", "~~~\na  b\u00a0c\n\n\n\nd\n~~~"),
    ("code", "`a  b\u200b`"),
    ("code", "``a ` b  c``"),
    ("code", "    def f():\n\n\n\n        return  1"),
    ("code", "<code>a  b\u00a0</code>"),
    ("code", "```js  and  on one  line```"),
    ("code", "```\nnever closed  \n\n\n\nat  all"),
    ("quote", '"two  blanks\u00a0and\u200b e\u0301"'),
    ("quote", "'so  it  is'"),
    ("quote", "“so  it  is”"),
    ("quote", "„so  it  is“"),
    ("quote", "«so  it  is»"),
    ("quote", "»so  it  is«"),
    ("quote", "‘so  it  isn’t’"),
    ("quote", "「so  it  is」"),
    ("quote", '"over\n\n\n\nparagraphs  too"'),
    ("quote", '"with \\"inner\\"  quotes  "'),
    ("quote", ">  a  quoted\u00a0line\n>   and  another"),
    ("literal", '{"a":  1,\n\n\n "b": [1,  2]}'),
    ("literal", "[1,   2,\n\n\n3]"),
    ("literal", "1\u00a0000\u00a0000"),
    ("literal", "12  34  56"),
    ("literal", "3  March  2024"),
    ("literal", "March  3,  2024"),
    ("literal", "2024-01-\u200b02"),
    ("literal", "ann@exam\u00adple.org"),
    ("literal", "https://example.org/a\u200bb"),
    ("literal", "/tmp/e\u0301.txt"),
    ("literal", "C:\\a\u200bb"),
    ("argument", "size  =  big"),
    ("argument", "key=e\u0301"),
    ("argument", "city:\u00a0 Oslo"),
    ("table", "| a    | b\u00a0 |\n|  c   | d    |"),
]


@pytest.mark.parametrize(("kind", "kept"), KEPT)
def test_protected_stretches_keep_every_byte(kind: str, kept: str) -> None:
    alone = CLEANER.clean(f"Look   here:\n{kept}")
    assert alone.text == f"Look here:\n{kept}"
    assert kind in {each.kind for each in alone.report.protected}
    if "never closed" not in kept:
        within = CLEANER.clean(f"\u200bFirst  \n\n{kept}\n\n\n\nand   then").text
        assert within == f"First\n\n{kept}\n\nand then"


@pytest.mark.parametrize(
    "text",
    [
        'He said "hello. Then  "keep   this" ok',  # one mark is missing, and nobody knows which
        "an open “quotation  that   ends nowhere",
        'a "b" c" d  "e   f"',
        '"first paragraph  of it\n\nsecond   paragraph"',
    ],
)
def test_in_doubt_more_is_protected(text: str) -> None:
    assert clean(text) == text


def test_measures_in_inches_and_apostrophes_open_no_quotation() -> None:
    assert clean("a  pipe of 5\" and  don't   say users' names") == "a pipe of 5\" and don't say users' names"


def test_cleaning_around_a_stretch_joins_nothing_to_it() -> None:
    assert clean('say "a"   `b`\u200b \u00a05  and') == 'say "a" `b` 5 and'
    assert clean('"a"\u200bword') == '"a"\u200bword'
    assert clean("word\u200b`a`") == "word\u200b`a`"
    assert clean('\ufeff"a"\u200b') == '"a"'


def test_the_users_patterns_protect() -> None:
    text = "the  title is The  Old   Man and  more"
    assert clean(text, protect=[r"The\s+Old\s+Man"]) == "the title is The  Old   Man and more"
    assert clean(text, protect=[re.compile("the  title")]) == "the  title is The Old Man and more"
    assert clean(text, protect="the  title") == "the  title is The Old Man and more"
    assert clean("a\u200bb  c", protect=["a", "b"]) == "a\u200bb c"


@pytest.mark.parametrize("protect", [["("], [b"a"], [re.compile(b"a")], [1]])
def test_a_pattern_that_cannot_be_is_refused(protect: Any) -> None:
    with pytest.raises(ConfigurationError, match="protect"):
        Cleaner(protect=protect)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"^[A-Z]{2}  [A-Z]{3}$", "AB  CDE"),
        (r"^[a-z]+y\u0308$", "fizzy\u0308"),
        (r"^(?=.*q)[a-z]{2} {2,}[a-z]q$", "ab    cq"),  # looking ahead is left out of it
        (r"^(?:[A-Z]  )+[A-Z]\Z", "A  B  C"),
        (r"[A-Z]{2}  [A-Z]{3}", "xAB  CDEx"),  # a schema's pattern need not match all of a value
        (r"q\u200b?qq", "aqqq\u200bb"),
    ],
)
def test_what_a_tools_pattern_matches_keeps_every_byte(pattern: str, value: str) -> None:
    report = CLEANER.clean(f"take  {value}, please", tools=[schema(code={"type": "string", "pattern": pattern})])
    assert report.text == f"take {value}, please"
    assert "pattern" in {each.kind for each in report.report.protected}


def test_options_of_a_tool_keep_every_byte_at_any_depth() -> None:
    tool = schema(room={"anyOf": [{"type": "object", "properties": {"tone": {"enum": ["warm  white", 3, None]}}}]})
    assert CLEANER.clean("Paint  it Warm  White now  ok", tools=[tool]).text == "Paint it Warm  White now ok"
    assert CLEANER.clean("Paint  it warm  white now").text == "Paint it warm white now"
    words = Cleaner(spelling=["urgent", "call"])
    assert words.clean("an urgnt call", tools=[schema(level={"const": "urgnt"})]).text == "an urgnt call"
    assert words.clean("an urgnt call").text == "an urgent call"


def test_a_pattern_that_anything_matches_protects_nothing() -> None:
    assert CLEANER.clean("a  b   c", tools=[schema(text={"pattern": ".*"})]).text == "a b c"


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(\w+\s?)*\d$", r"(x+x+)+y", r"(?=(a+)+b)a", r"^(a|a)*$"])
def test_a_hostile_pattern_costs_nothing(pattern: str) -> None:
    text = "a" * 5_000 + "!  " + "the words of it " * 500
    CLEANER.clean(text, tools=[schema(code={"pattern": pattern})])  # Python's own engine would not come back


def test_a_pattern_that_cannot_be_tried_is_told() -> None:
    report = CLEANER.clean("a  b", tools=[schema(code={"pattern": "(unclosed"})]).report
    assert report.unread == ("(unclosed",)
    assert "(unclosed" in str(report)


def test_patterns_that_would_be_huge_are_not_compiled() -> None:
    heavy = [rf"^\w{{{90 + number}}}(\w{{9}}){{{number}}}$" for number in range(100)]
    ordinary = [rf"^[A-Z]{{{number}}}-\d{{4,12}}$" for number in range(1, 60)]
    tools = [schema(code={"pattern": pattern}) for pattern in [*heavy, *ordinary]]
    assert set(CLEANER.clean("a  b", tools=tools).report.unread) <= set(heavy)
    assert len(CLEANER.clean("a  b", tools=tools).report.unread) > 80


def test_a_schema_that_contains_itself_is_read_to_its_depth() -> None:
    knot: dict[str, Any] = {"enum": ["x  y"]}
    knot["properties"] = {"again": knot, "pattern": {"enum": ["u  v"]}}
    assert CLEANER.clean("x  y u  v  w", tools=[ToolSchema("t", "", knot)]).text == "x  y u  v w"


# Spelling

WORDS = ["the", "answer", "receive", "colour", "from", "form", "Paris", "don't", "well-known", "naïve"]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("teh answr", "the answer"),
        ("Teh answer. Teh answer", "The answer. The answer"),
        ("I recieve colur.", "I receive colour."),
        ("dont", "don't"),
        ("naïv nai\u0308v", "naïve naïve"),
        ("frm here", "frm here"),  # "from" or "form": not one word
        ("so Recieve stays", "so Recieve stays"),  # a name, perhaps
        ("RECIEVE", "RECIEVE"),
        ("`teh` \"teh\" teh=1 /teh 'teh' re-teh teh_x", "`teh` \"teh\" teh=1 /teh 'teh' re-teh teh_x"),
        ("xyzzy unknown", "xyzzy unknown"),
    ],
)
def test_a_word_is_corrected_only_to_the_one_word_it_can_be(text: str, cleaned: str) -> None:
    assert clean(text, spelling=WORDS, boilerplate=False) == cleaned


def test_no_word_is_changed_without_a_list() -> None:
    assert clean("teh answr") == "teh answr"


def test_corrections_are_told() -> None:
    report = Cleaner(spelling=WORDS).clean("teh answr and teh colour").report
    assert dict(report.corrections) == {("teh", "the"): 2, ("answr", "answer"): 1}
    assert report.changes["spelling"] == 3
    assert "teh -> the (2)" in str(report)


def test_a_word_list_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeffthe\r\nanswer\n\n".encode())
    assert clean("teh answr", spelling=file) == "the answer"
    assert clean("teh answr", spelling=str(file)) == "the answer"


def test_a_word_list_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"\xff\xfe\x00")
    for spelling in (file, tmp_path / "none.txt", tmp_path, [], ["", " "], [1], "\0"):
        with pytest.raises(ConfigurationError, match="word list"):
            Cleaner(spelling=spelling)  # type: ignore[arg-type]


def test_a_list_of_a_hundred_thousand_words() -> None:
    chance = random.Random(1)
    words = {"".join(chance.choices("abcdefghijklmnop", k=chance.randint(5, 12))) for _ in range(100_000)}
    cleaner = Cleaner(spelling={*words, "zebra"})
    assert cleaner.clean("a zzebra and zebar").text == "a zebra and zebra"


@given(st.text("abc", min_size=1, max_size=5), st.sets(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=8))
def test_the_near_word_is_the_one_that_trying_all_finds(word: str, words: set[str]) -> None:
    from brain.tidying.spelling import WordList

    def edits(text: str) -> set[str]:
        cuts = [(text[:place], text[place:]) for place in range(len(text) + 1)]
        return {
            *(a + b[1:] for a, b in cuts if b),
            *(a + letter + b[1:] for a, b in cuts if b for letter in "abc"),
            *(a + letter + b for a, b in cuts for letter in "abc"),
            *(a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1),
        }

    wanted = edits(word) & words
    expected = wanted.pop() if len(wanted) == 1 and len(word) >= 3 else None
    if word not in words:
        assert WordList(words).near(word) == expected


# Properties

CLEANERS = [
    CLEANER,
    Cleaner(form="NFKC"),
    Cleaner(boilerplate=False, protect=[r"AB\s+\d+", r"l+", r".{3}\Z", r"\A.{2}"]),
    Cleaner(spelling=["the", "hello", "world", "answer", "house"]),
]
TOOL = schema(a={"pattern": r"^[A-Z]{2} ?\d{2,}$"}, b={"enum": ["hello  world", "the"]}, c={"format": "date"})
ODD = st.randoms(use_true_random=False).map(hostile)


def check(cleaner: Cleaner, text: str) -> None:
    cleaned = cleaner.clean(text, tools=[TOOL])
    again = cleaner.clean(cleaned.text, tools=[TOOL])
    assert again.text == cleaned.text
    assert not again.report.changes
    assert kept_in_order(text, cleaned.text, cleaned.report.protected)
    assert cleaner.clean(text, tools=[TOOL]) == cleaned
    assert cleaned.report.given_up <= (cleaned.text == text)


@pytest.mark.parametrize("cleaner", CLEANERS, ids=repr)
@settings(max_examples=300)
@given(text=st.one_of(st.text(max_size=60), st.text(st.characters(), max_size=60), ODD))
def test_cleaning_twice_is_cleaning_once_and_what_is_protected_stays(cleaner: Cleaner, text: str) -> None:
    check(cleaner, text)


ORDINARY = st.sampled_from(
    ["so  it", "is  \n", "\n\n\n\n", "a\u200bb", "e\u0301", " ", ".\u00a0 ", "Please be brief.\n", "😀 ", "\u00ad"]
)


@given(
    before=st.lists(ORDINARY, max_size=6),
    kept=st.sampled_from([kept for _, kept in KEPT if "never" not in kept]),
    after=st.lists(ORDINARY, max_size=6),
)
def test_a_stretch_between_untidy_text_stays(before: list[str], kept: str, after: list[str]) -> None:
    text = f"{''.join(before)}\n\n{kept}\n\n{''.join(after)}"
    assert kept in CLEANER.clean(text).text
    check(CLEANER, text)


@pytest.mark.parametrize(
    "piece", ["a", " ", "\n", '"', "'", "`", "` ", "[", "[]", "> \n", "e\u0301", "\u200b", "“", "5 "]
)
def test_a_long_text_of_one_piece(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    check(CLEANER, text)


def test_words_are_kept_in_their_order() -> None:
    chance = random.Random(3)
    for _ in range(300):
        words = ["".join(chance.choices("abcdefgh", k=4)) for _ in range(30)]
        text = "".join(word + chance.choice([" ", "  ", "\n", "\n\n\n", " \u200b", "\u00a0"]) for word in words)
        assert clean(text).split() == words


def test_only_the_normal_form_is_changed_in_a_word() -> None:
    text = "Ω Å ﷺ \u1100\u1161 ậ"
    assert clean(text) == unicodedata.normalize("NFC", text)


# The report and the rest


def test_the_report_tells_what_was_saved_and_quotes_nothing() -> None:
    secret = "sk-0123456789abcdef"
    cleaned = CLEANER.clean(f"my   key is {secret}  \n\n\n\nso")
    report = cleaned.report
    assert report.tokens_saved == report.tokens_before - report.tokens_after
    assert report.tokens_after == -(-len(cleaned.text.encode()) // 4)
    assert report.to_json()["tokens_saved"] == report.tokens_saved
    assert [(each["kind"], each["start"]) for each in report.to_json()["protected"]] == [("literal", 12)]
    for shown in (str(report), repr(report), repr(cleaned), str(report.to_json())):
        assert secret not in shown
    assert "kept byte for byte: 1 literal" in str(report)
    assert str(CLEANER.clean("tidy").report) == (
        "about 0 of 1 tokens saved (four bytes of UTF-8 each)\n  unchanged: the text was clean"
    )


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(PromptError, match="text"):
        CLEANER.clean(text)


def test_one_cleaner_serves_many_threads_and_can_be_pickled() -> None:
    cleaner = pickle.loads(pickle.dumps(Cleaner(spelling=WORDS, protect=["x  y"])))
    chance = random.Random(7)
    texts = [hostile(chance) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(cleaner.clean, texts)) == [cleaner.clean(text) for text in texts]
    assert "WORDS" not in repr(cleaner)


def test_the_figures_hold_in_a_short_run() -> None:
    figures = measure(quick=True)
    assert figures["idempotent"] == figures["protected_identical"] == figures["strings"]
    assert figures["same_calls"] == figures["same_plans"] == figures["prompts"]
    assert figures["planned"] > figures["prompts"] // 2
    assert figures["changed"] > figures["strings"] // 4
    assert figures["given_up"] * 100 < figures["strings"]
    assert figures["tokens_after"] < figures["tokens_before"]
