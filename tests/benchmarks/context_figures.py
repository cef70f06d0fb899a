"""A conversation of 300 turns through a context's view: what of each request is the beginning of the last one.

``measure(quick)`` gives plain figures. The requests are written as they would be sent (model, tools, messages); the
model is scripted, and the sizes of what is said and found are drawn from a fixed seed.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from brain import ModelRequest, ToolSchema
from brain.context import Context, Fold, View
from brain.encoding import EncodedMessage
from brain.handles import HANDLE
from brain.messages import tool_message, user_message
from brain.wire.writing import RequestWriter

__all__ = ["Conversation", "Request", "measure", "requests", "shared"]

SYSTEM = {"role": "system", "content": "You are a clerk of a parcel service. " + "Be brief, exact and polite. " * 60}
FACTS = ("The customer's number is 4711.", "Never ship to a post-office box.")
WORDS = "the parcel to Norway leaves on Monday and takes six days by rail unless customs wants the papers"


def tools(count: int = 12) -> list[ToolSchema]:
    """As many as an application has."""
    parameters = {
        "type": "object",
        "properties": {
            "country": {"type": "string", "description": "Where the parcel goes, by its English name"},
            "express": {"type": "boolean", "description": "Whether it goes by air", "default": False},
        },
        "required": ["country"],
        "additionalProperties": False,
    }
    return [
        ToolSchema(f"shipping_{n}", "How many days a parcel takes, by country and by carrier.", parameters)
        for n in range(count)
    ]


@dataclass
class Conversation:
    """Turns whose sizes are drawn: a question, perhaps calls with results, an answer.

    ``results``: characters of results, of which one is drawn for each call. ``calls``: most calls of a turn.
    """

    seed: int = 1
    results: Sequence[int] = (40, 200, 600, 1500, 10_000)
    calls: int = 2
    words: int = 40
    once: bool = False
    """One question, and then calls only."""
    messages: list[EncodedMessage] = field(default_factory=list)

    def turns(self, count: int) -> Iterator[list[EncodedMessage]]:
        """The history at each request, for so many turns."""
        chance = random.Random(self.seed)
        for turn in range(count):
            if turn == 0 or not self.once:
                self.messages.append(user_message(f"Question {turn}: {self._said(chance)}"))
            yield [EncodedMessage(SYSTEM), *self.messages]
            calls = 1 if self.once else chance.randint(0, self.calls)
            for call in range(calls):
                self._call(chance, f"call_{call}", turn)
                if call < calls - 1 or not self.once:
                    yield [EncodedMessage(SYSTEM), *self.messages]
            if not self.once:
                self.messages.append(EncodedMessage({"role": "assistant", "content": self._said(chance)}))

    def _said(self, chance: random.Random) -> str:
        return " ".join(chance.choice(WORDS.split()) for _ in range(chance.randint(5, self.words)))

    def _call(self, chance: random.Random, id: str, turn: int) -> None:
        function = {"name": f"shipping_{turn % 12}", "arguments": '{"country":"Norway","express":true}'}
        entry = {"id": id, "type": "function", "function": function}
        self.messages.append(EncodedMessage({"role": "assistant", "content": None, "tool_calls": [entry]}))
        size = chance.choice(list(self.results))
        value: Any = [chance.randint(0, 9) for _ in range(size // 2)] if chance.random() < 0.3 else "x " * (size // 2)
        self.messages.append(tool_message(id, {"value": value, "accepted_by": "verified"}))


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its body, what of it is the beginning of the last one, and whether something was folded for it."""

    body: bytes
    shared: float
    new: int
    """Bytes of the messages that are new in the history since the last request, as they were shown."""
    tokens: int
    shown: list[EncodedMessage]
    fold: Fold | None
    turns: int


def shared(one: bytes, other: bytes) -> int:
    """How many bytes two bodies begin with alike."""
    return bisect_left(range(1, min(len(one), len(other)) + 1), True, key=lambda n: one[:n] != other[:n])


def requests(context: Context, conversation: Conversation, turns: int, tool_count: int = 12) -> Iterator[Request]:
    """Every request of a conversation."""
    offered = tools(tool_count)
    writer = RequestWriter("gpt-5-mini", "max_completion_tokens")
    view = View(context, context.count(b",".join(tool.encoded() for tool in offered)))
    last, folds, known = b"", 0, 0
    for stored in conversation.turns(turns):
        shown = view.of(stored)
        body, _ = writer.write(ModelRequest(messages=shown, tools=offered), context.output_tokens)
        new = sum(len(message.wire) + 1 for message in shown[-(len(stored) - known) :])
        folded = view.folds[-1] if len(view.folds) > folds else None
        users = sum(message["role"] == "user" for message in stored)
        yield Request(body, shared(last, body) / len(body), new, view.tokens, shown, folded, users)
        last, folds, known = body, len(view.folds), len(stored)


def figures(context: Context, conversation: Conversation, turns: int, tool_count: int = 12) -> dict[str, Any]:
    """What is promised, measured.

    ``least_shared`` is over the requests from ``from_request`` on: the first after which what is new is never more than
    a fifth of a request by itself, which nothing can change.
    """
    made = list(requests(context, conversation, turns, tool_count))
    late = [n for n, each in enumerate(made) if each.new > 0.2 * len(each.body)]
    begin = late[-1] + 1 if late else 1
    folds = [each for each in made if each.fold is not None]
    gaps = [after.turns - before.turns for before, after in pairwise(folds)]
    steps = [n for n, each in enumerate(made) if each.fold is not None]
    asked = [after - before for before, after in pairwise(steps)]
    facts = {"role": "system", "content": "\n".join(["Pinned facts:", *context.pinned])}
    kept = made[begin:]
    return {
        "requests": len(made),
        "largest_share_of_window": max(each.tokens for each in made) / context.rules.budget,
        "pinned_always": all(facts in each.shown for each in made),
        "from_request": begin,
        "least_shared": min((each.shared for each in kept), default=None),
        "mean_shared": sum(each.shared for each in kept) / len(kept) if kept else None,
        "folds": len(folds),
        "kinds": {kind: sum(each.fold.kind == kind for each in folds if each.fold) for kind in
                  ("previews", "left_out", "rebuilt")},
        "least_turns_between_folds": min(gaps, default=None),
        "least_requests_between_folds": min(asked, default=None),
        "handles_in_last": sum(len(HANDLE.findall(str(m.get("content")))) for m in made[-1].shown),
    }  # fmt: skip


def measure(quick: bool) -> dict[str, Any]:
    """Chats with windows of two sizes, and one run of calls only; 300 turns each, 60 when ``quick``."""
    turns = 60 if quick else 300
    small = Context(32_000, pinned=FACTS)
    large = Context(128_000, pinned=FACTS)
    return {
        "chat, window 32,000": figures(small, Conversation(), turns),
        "chat, window 128,000": figures(large, Conversation(results=(200, 1500, 3500, 10_000), calls=3), turns),
        "one run of calls, window 32,000": figures(small, Conversation(once=True), turns),
    }


if __name__ == "__main__":
    import json
    import sys

    print(json.dumps(measure("--quick" in sys.argv), indent=1))
