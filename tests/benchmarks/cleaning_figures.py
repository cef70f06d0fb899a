"""What cleaning a prompt keeps and saves, on texts made by chance with a fixed seed.

Run: ``python -m tests.benchmarks.cleaning_figures [--json] [--quick]``. Needs no data and no network.

* 100,000 strings of whatever is hostile to cleaning: marks that do not pair up, fences never closed, invisible and
  combining characters, halves of characters, odd line ends. Each is cleaned, cleaned again, and what was protected is
  looked for in it.
* 200 prompts in plain words with typed arguments, made untidy. A model that obeys the words of the prompt calls tools
  with what it finds there; its calls for the prompt and for the cleaned prompt are compared, and so are the built-in
  planner's plans.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from brain import Brain, Planner
from brain.cleaning import Cleaner
from brain.events import ModelRequest, ToolCall
from brain.testing import ScriptedModel, call
from brain.tooling import Tool

__all__ = ["SEED", "TOOLS", "calls_for", "hostile", "kept_in_order", "measure", "untidy_prompt"]

SEED = 20261130

_ATOMS = (
    *('"', "'", "`", "``", "```", "\n```\n", "~~~\n", "“", "”", "„", "‘", "’", "«", "»", "「", "」", "\\", '\\"'),
    *("\n", "\n\n", "\n\n\n", " ", "  ", "   ", "\t", "\u00a0", "\u2028", "\r\n", "\r", "\x85", "\u3000", "\x00"),
    *("\u200b", "\u200d", "\u200c", "\ufeff", "\u00ad", "\u202e", "\ufe0f", "\U000e0061", "\u2060", "\u0301", "\u0338"),
    *("a", "hello", "world", "Teh", "the", "don't", "users'", "e\u0301", "é", "\u1fef", "\u037e", "\ud800", "\udc00"),
    *("5", "42", "3.14", "1 000", "2024-01-02", "3 May 2024", "x=1", "key = v", "key: v", "a@b.c", "http://x.y/z"),
    *("/tmp/a", "{", "}", "[", "]", '{"a": 1}', "<code>", "</code>", "|", "> ", "    ", "- ", "1. ", "#", "=", "May"),
    *("😀", "👩\u200d👩", "❤\ufe0f", "می\u200cخواهم", "क\u094d\u200dष", "ไทย", "漢字", "שלום", "ﬁ", "½", "＂"),
    *(".", "!", "?", ",", ":", ";", "Please answer in English now.", "\nPlease answer in English now.\n", "AB 123"),
)


def hostile(chance: random.Random) -> str:
    """A string of up to 80 pieces, each ordinary or odd."""
    return "".join(chance.choices(_ATOMS, k=chance.randint(0, chance.choice((3, 8, 30, 80)))))


def kept_in_order(text: str, cleaned: str, stretches: Sequence[Any]) -> bool:
    """Whether each protected stretch of ``text`` is in ``cleaned``, byte for byte and in its order."""
    place = 0
    for stretch in stretches:
        wanted = text[stretch.start : stretch.end]
        place = cleaned.find(wanted, place)
        if place < 0:
            return False
        place += len(wanted)
    return True


def _said(**arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _tool(name: str, description: str, **properties: Any) -> Tool[..., Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return Tool.from_schema(name, description, schema, _said, effect="pure")


TOOLS = (
    _tool(
        "send_email",
        "Send an email with a message to an address.",
        address={"type": "string", "format": "email", "description": "The address of the recipient."},
        message={"type": "string", "description": "The text of the message."},
    ),
    _tool(
        "order_status",
        "Look up the status of an order by its order number.",
        order_id={"type": "string", "pattern": r"^ORD-\d{4}$", "description": "The order number."},
    ),
    _tool("circle_area", "Calculate the area of a circle.", radius={"type": "number", "description": "The radius."}),
    _tool(
        "paint_room",
        "Paint a room in a colour.",
        room={"type": "string", "description": "The name of the room."},
        colour={"type": "string", "enum": ["warm white", "pale blue", "red"]},
    ),
    _tool(
        "book_table",
        "Book a table at a restaurant for a number of people on a date.",
        restaurant={"type": "string", "description": "The name of the restaurant."},
        people={"type": "integer", "description": "The number of people."},
        date={"type": "string", "format": "date", "description": "The date, YYYY-MM-DD."},
    ),
)

_MESSAGES = (
    "See  you at  the café.",
    "Line one\nline   two",
    "déjà vu, naïve coöperation",
    "tabs\there",
    "It's done!  ",
)
_NAMES = ("kitchen", "study", "hall", "attic")
_PLACES = ("Chez  Marie", "The Old Mill", "Zum Löwen", "Il\u00a0Forno")
_BOILERPLATE = ("Thank you very much for all your help, dear assistant.", "This message is meant for its reader alone.")
_ODD = ("\u200b", "\ufeff", "\u00ad", "\u2060", "\u202d")


def _request(chance: random.Random) -> str:
    kind = chance.randrange(len(TOOLS))
    if kind == 0:
        message = chance.choice(_MESSAGES)
        return f'Send an email to {chance.choice("abc")}nn@example.org with the message "{message}".'
    if kind == 1:
        return f"What is the status of order ORD-{chance.randint(1000, 9999)} today?"
    if kind == 2:
        number = chance.choice((f"{chance.uniform(1, 90):.2f}", str(chance.randint(2, 400))))
        return f"Calculate the area of a circle, radius = {number} please."
    if kind == 3:
        colour = chance.choice(("warm white", "pale blue", "red"))
        return f"Paint the room '{chance.choice(_NAMES)}' in the colour {colour} for me."
    date = f"2027-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
    return f'Book a table at the restaurant "{chance.choice(_PLACES)}" for {chance.randint(2, 9)} people on {date}.'


def _untidy(text: str, chance: random.Random) -> str:
    """``text`` with odd blanks between its words, outside quotations; accents taken apart.

    Invisible characters follow plain words only: one that hangs on a typed argument hides it from the planner, which
    then finds it in the cleaned prompt and not in this one.
    """
    parts = re.split(r"(\"[^\"]*\"|'[^']*'|warm white|pale blue)", text)
    for index in range(0, len(parts), 2):
        words = unicodedata.normalize("NFD", parts[index]).split(" ")
        untidy = words[0]
        for before, word in pairwise(words):
            gap = chance.choices((" ", "  ", "     ", "\u00a0", " \u00a0", " \n"), (12, 4, 2, 2, 1, 1))[0]
            odd = chance.choice(_ODD) if before.isalpha() and chance.random() < 0.2 else ""
            untidy += odd + gap + word
        parts[index] = untidy
    return "".join(parts)


def untidy_prompt(chance: random.Random) -> str:
    """A request for one tool, untidy, between boilerplate that is repeated."""
    boilerplate = chance.choice(_BOILERPLATE)
    gap = "\n" * chance.randint(2, 5)
    request = _untidy(_request(chance), chance)
    return f"{chance.choice(('', _ODD[1], '  '))}{boilerplate}{gap}{request}   {gap}{boilerplate}{gap}{boilerplate}\n\n"


_FOUND = re.compile(
    r'"(?P<quote>[^"]*)"|\'(?P<single>[^\']*)\'|(?P<email>[\w.]+@[\w.]+\w)|(?P<order>ORD-\d{4})|(?P<date>\d{4}-\d\d-\d\d)'
    r"|(?P<key>\w+)\s*=\s*(?P<value>\S+)|(?P<colour>warm white|pale blue|\bred\b)|(?P<number>\d+(?:\.\d+)?)"
)


def calls_for(request: ModelRequest) -> list[ToolCall]:
    """What an obedient model calls: a tool for everything typed or quoted in the last message, with just that."""
    text = str(request.messages[-1]["content"])
    found = [{kind: value for kind, value in match.groupdict().items() if value} for match in _FOUND.finditer(text)]
    return [call("note", items=found)]


async def _note(items: list[dict[str, str]]) -> str:
    return f"{len(items)} noted"


def _obedient(prompt: str) -> list[tuple[str, str]]:
    """The tool calls of a run with the obedient model."""
    schema = {"type": "object", "properties": {"items": {"type": "array"}}, "required": ["items"]}
    note = Tool.from_schema("note", "Note what was found.", schema, _note, effect="pure")
    with ScriptedModel([calls_for, "done"]) as model:
        result = Brain(model=model, tools=[note]).run_sync(prompt)
    return [
        (each["function"]["name"], each["function"]["arguments"])
        for message in result.messages
        for each in message.get("tool_calls") or ()
    ]


def measure(quick: bool) -> dict[str, Any]:
    """All figures; ``quick``: of 2,000 strings and 20 prompts in place of 100,000 and 200."""
    strings, prompts = (2_000, 20) if quick else (100_000, 200)
    chance = random.Random(SEED)
    cleaner = Cleaner()
    idempotent = identical = changed = given_up = 0
    for _ in range(strings):
        text = hostile(chance)
        cleaned = cleaner.clean(text)
        idempotent += cleaner.clean(cleaned.text).text == cleaned.text
        identical += kept_in_order(text, cleaned.text, cleaned.report.protected)
        changed += cleaned.text != text
        given_up += cleaned.report.given_up
    schemas = [tool.schema for tool in TOOLS]
    planner = Planner()
    same_calls = same_plans = planned = before = after = 0
    for _ in range(prompts):
        prompt = untidy_prompt(chance)
        cleaned = cleaner.clean(prompt, tools=schemas)
        same_calls += _obedient(prompt) == _obedient(cleaned.text)
        raw, tidy = planner.plan(prompt, schemas), planner.plan(cleaned.text, schemas)
        same_plans += raw.steps == tidy.steps
        planned += bool(raw.steps)
        before += cleaned.report.tokens_before
        after += cleaned.report.tokens_after
    return {
        "seed": SEED,
        "strings": strings,
        "idempotent": idempotent,
        "protected_identical": identical,
        "changed": changed,
        "given_up": given_up,
        "prompts": prompts,
        "same_calls": same_calls,
        "same_plans": same_plans,
        "planned": planned,
        "tokens_before": before,
        "tokens_after": after,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cleaning_figures", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    options = parser.parse_args(arguments)
    figures = measure(options.quick)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:20} {value:>12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
