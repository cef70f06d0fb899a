"""What a run gives back: the output, every call with its attempts, every wire attempt, the messages and the bill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from specialists import Outcome

from .events import Message, Plan, Turn, WireAttempt
from .keys import redact
from .receipts import Usage

if TYPE_CHECKING:
    from .cleaning import CleaningReport

__all__ = ["RunResult"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True, repr=False)
class RunResult(Generic[Out]):
    """A run, as far as it got. Errors that end a run carry one too, a ``RunResult[Any]`` whose ``output`` is ``None``.

    ``calls``: the outcomes of the tool calls, turn by turn, in the order asked. ``turns``: the brain's own model
    calls. ``wire_attempts``: every request that left for an endpoint, retries and fallbacks counted singly.
    ``messages``: the whole history, ready to be handed to the next run, which encodes none of it again; each is fixed,
    and ``copy.deepcopy`` gives one to change. ``repairs``: rounds in which the model was told that a call or an answer
    of its had the wrong form. ``plans``: those that were run, with ``planning="graph"``.
    ``cleaning``: what was done to the prompt, with ``Brain(cleaning=...)``.

    The repr is short: what was asked, and what the tools said, stays out of logs that show one.
    """

    run_id: str
    output: Out
    usage: Usage
    calls: tuple[Outcome[Any], ...]
    turns: tuple[Turn, ...]
    wire_attempts: tuple[WireAttempt, ...]
    messages: tuple[Message, ...]
    new_from: int
    repairs: int = 0
    tenant: str | None = None
    plans: tuple[Plan, ...] = ()
    cleaning: CleaningReport | None = None

    def __repr__(self) -> str:
        output = repr(self.output)
        shown = output if len(output) <= 60 else output[:59] + "…"
        counts = f"{len(self.calls)} calls, {len(self.turns)} turns, {len(self.wire_attempts)} wire attempts"
        return f"<RunResult {redact(shown)}: {counts}, {self.usage.cost}>"

    def new_messages(self) -> list[Message]:
        """The messages this run added to the history it was given."""
        return list(self.messages[self.new_from :])
