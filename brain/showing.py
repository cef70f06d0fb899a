"""What a run's model is shown: its history through a view, with previews of large results and a tool that reads them.

What a view is stands in :mod:`brain.context`; here it is brought into a run: sizes of what goes before the messages are
told to it, and summaries that it wants are asked for, paid for and journaled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from specialists.ladder import jsonable

from .context import Context, View
from .encoding import EncodedMessage, encode
from .errors import BrainError, ConfigurationError, JournalError, LedgerError
from .events import ChatModel, Message, ModelRequest, WireAttempt
from .handles import handle_of
from .journal import summary_step, wire_from_json
from .previews import preview_of, text_of
from .runs import Run
from .tooling import Tool

__all__ = ["PREVIEW_ABOVE", "READ", "Previews", "Showing"]

PREVIEW_ABOVE = 8000
"""Characters of a tool's result above which a model is shown a preview, where no context says otherwise."""
_SHOWN = 400
"""Characters of a value that such a preview shows."""
_MOST = 8000
"""Characters that are read at once."""
_PREVIEW = '{"preview"'


def read_value(value: Any, start: int = 0, length: int = 4000) -> str:
    """Read a part of an earlier result that was shown as a preview.

    To give a whole result to another tool, pass its handle there as the argument's value; that needs no reading.

    Args:
        value: The result's handle, such as @v3:9c4f, or one with a path to a part: @v3:9c4f.rows[0].
        start: The first character that is wanted, from 0; of what is no text, of its JSON.
        length: How many characters, at most 8000.
    """
    text = value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
    start = max(0, start)
    return text[start : start + max(0, min(length, _MOST))]


READ: Tool[..., str] = Tool(read_value, effect="pure")
"""Offered to a model once it has been shown a preview."""


class Previews:
    """The view of a run without a context: the whole history, but for large results, which are previews."""

    def __init__(self, above: int = PREVIEW_ABOVE) -> None:
        self._above = above
        self._shown: list[EncodedMessage] = []
        self._seen: list[EncodedMessage] = []
        self._results = 0
        self.made = 0
        """Previews among what is shown."""

    def of(self, stored: Sequence[EncodedMessage]) -> list[EncodedMessage]:
        """What the model is shown. Of a history that has grown, only what is new is looked at."""
        known = len(self._seen)
        if known > len(stored) or (known and stored[known - 1] is not self._seen[-1]):
            known, self._shown, self._results, self.made = 0, [], 0, 0
        for message in stored[known:]:
            if message["role"] == "tool":
                self._results += 1
                content = text_of(message)
                if len(content) > self._above:
                    handle = handle_of(self._results, content)
                    message = EncodedMessage({**message, "content": preview_of(content, handle, _SHOWN)})
                    self.made += 1
            self._shown.append(message)
        self._seen = list(stored)
        return list(self._shown)


class Showing:
    """Shared by all runs of a brain. ``summary``: the model that is asked for summaries, if any."""

    def __init__(self, context: Context | None, summary: ChatModel | None, system: EncodedMessage | None) -> None:
        self._context = context
        self._summary = summary
        self._system = system

    async def messages(
        self, run: Run, more: Sequence[EncodedMessage], schema: Mapping[str, Any] | None
    ) -> list[Message]:
        """The messages of ``run``'s next request. ``more``: messages after those of the run, for this request only.

        Raises :class:`ContextError` where the history cannot be shown.
        """
        stored = run.messages if self._system is None else [self._system, *run.messages]
        if self._context is None:
            if run.view is None:
                run.view = Previews()
            shown = run.view.of(stored)
            if run.view.made:
                self._offer_reading(run)
            return [*shown, *more]
        view = run.view
        if view is None:
            view = run.view = View(self._context)
            if run.offer is not None and run.offer.tools:
                self._offer_reading(run)  # from the first request on: they all begin with the tools
        view.head_tokens = self._head(run, more, schema)
        shown = view.of(stored)
        if self._reads(run, shown):
            view.head_tokens = self._head(run, more, schema)
            shown = view.of(stored)
        while (wanted := view.wants_summary()) is not None:
            text = await self._summarise(run, wanted.messages, wanted.max_output_tokens)
            if text is None:
                break
            view.summarised(text)
            shown = view.of(stored)
        return [*shown, *more]

    def _head(self, run: Run, more: Sequence[EncodedMessage], schema: Mapping[str, Any] | None) -> int:
        """Tokens of all that the view does not know of."""
        assert self._context is not None
        assert run.offer is not None
        parts = [tool.encoded() for tool in run.offer.tools] + [message.wire for message in more]
        if schema is not None:
            parts.append(encode(schema))
        return sum(map(self._context.count, parts))

    def _reads(self, run: Run, shown: Sequence[Message]) -> bool:
        """Whether the tool that reads values had to be offered: something is not shown whole."""
        assert run.offer is not None
        if run.offer.offers(READ.name):
            return False
        folded = any(m["role"] == "tool" and str(m.get("content")).startswith(_PREVIEW) for m in shown)
        return (folded or bool(getattr(run.view, "folds", ()))) and self._offer_reading(run)

    def _offer_reading(self, run: Run) -> bool:
        assert run.offer is not None
        return run.offer.show(READ.schema)

    async def _summarise(self, run: Run, messages: Sequence[Message], most: int) -> str | None:
        """Ask for a summary, which is a step of the run; ``None``: there is none, and the run goes on without."""
        model = self._summary
        assert model is not None
        step = summary_step(len(run.turns), run.summaries)
        run.summaries += 1
        known = None if run.journal is None else run.journal.call(step)
        if isinstance(known, Mapping):
            run.wire += [wire_from_json(each) for each in known.get("wire", ())]
            found = known.get("summary")
            return found if isinstance(found, str) else None
        page = run.page(step, model.name, "pure")
        first = len(run.wire)

        def made(attempt: WireAttempt) -> None:
            run.wire.append(attempt)
            page.on_attempt(attempt)

        text: str | None = None
        request = ModelRequest(
            messages=messages,
            deadline=run.deadline,
            max_output_tokens=most,
            on_send=page.on_send,
            idempotency_key=run.key(step),
        )
        try:
            async with page.asking(model):
                text = (await model.ask(request, on_attempt=made)).text
        except (LedgerError, JournalError, ConfigurationError):
            raise
        except BrainError:
            pass  # without a summary the run goes on all the same
        page.commit({"answer": {"summary": text, "wire": [each.to_json() for each in run.wire[first:]]}})
        return text
