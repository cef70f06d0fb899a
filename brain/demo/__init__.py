"""``brain demo``: a real inbox, read by a brain, with every step shown and billed.

The inbox is package data beside this file; any other file works too. Nothing here knows what the answers are.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from specialists import Outcome
from specialists.ladder import jsonable
from specialists.onnx import require_runtime

from ..agent import Brain
from ..errors import Abstained, BrainError, ConfigurationError, InvalidToolCall, PromptError
from ..events import AttemptMade, Done, ToolCalled
from ..receipts import Usage
from ..results import RunResult
from ..tooling import tool

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["desk_for", "main", "read_inbox", "row_of"]

FORMAT = 1
"""Version of the objects that ``--json`` prints."""

INBOX = Path(__file__).with_name("inbox.jsonl")
DESKS = Path(__file__).with_name("desks.tsv")


@tool(effect="pure")
def desk_for(
    label: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", description="Intent label of the customer message")],
) -> str:
    """Find the customer service desk that should handle a message, by the intent label of the message."""
    try:
        return _desks()[label]
    except KeyError:
        raise ValueError(f"no desk handles the intent {label!r}") from None


@tool(effect="pure")
def row_of(
    solution: Annotated[str, Field(pattern=r"^[1-9]{81}$", description="The solution of a Sudoku, 81 digits")],
    row: Annotated[int, Field(ge=1, le=9, description="Number of the row, 1 is the top one")],
) -> str:
    """Read one row of the solution of a Sudoku."""
    return solution[9 * row - 9 : 9 * row]


def read_inbox(path: Path) -> list[str]:
    """The requests of a file: JSON lines ``{"request": …}``, or plain text, one request a line.

    Empty lines and lines that begin with ``#`` are passed over. Raises :class:`ConfigurationError`.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"the inbox {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the inbox {str(path)!r} is not UTF-8 (byte {error.start}); save it as UTF-8 and try again"
        ) from None
    requests = list(_requests(text, path))
    if not requests:
        raise ConfigurationError(f"the inbox {str(path)!r} has no requests; write one a line")
    return requests


def main(inbox: Path | None, model: str | None, as_json: bool) -> int:
    """Run the demo; the exit code is 1 when a request failed for another reason than having no answer."""
    return asyncio.run(_main(inbox or INBOX, model, as_json))


@dataclass(frozen=True, slots=True)
class _Answered:
    """One request, and how it ended."""

    request: str
    result: RunResult[str] | None
    error: BrainError | None
    seconds: float

    @property
    def failed(self) -> bool:
        return self.error is not None and not isinstance(self.error, Abstained | InvalidToolCall | PromptError)

    def to_json(self) -> dict[str, Any]:
        calls = self.result.calls if self.result else ()
        return {
            "request": self.request,
            "output": self.result.output if self.result else None,
            "calls": [_call_json(call) for call in calls],
            "usage": self.result.usage.to_json() if self.result else None,
            "error": None if self.error is None else {"type": type(self.error).__name__, "message": str(self.error)},
            "format": FORMAT,
        }


async def _main(inbox: Path, model: str | None, as_json: bool) -> int:
    from rich.console import Console

    requests = read_inbox(inbox)
    require_runtime()  # without it no specialist can answer, and a table of abstentions would help nobody
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 132)
    answered: list[_Answered] = []
    async with Brain(model, tools=[desk_for, row_of], specialists=["sudoku", "intent"]) as brain:
        if not as_json:
            planner = "the built-in planner (no key, no network)" if model is None else model
            console.print(f"[bold]{len(requests)} requests[/bold], planned by {planner}\n")
        for number, request in enumerate(requests, 1):
            one = await _answer(brain, request, f"{number:>2}/{len(requests)}", console, quiet=as_json)
            answered.append(one)
            if as_json:
                sys.stdout.write(json.dumps(one.to_json(), ensure_ascii=False) + "\n")
                sys.stdout.flush()
    if not as_json:
        _show(answered, console, connected=model is not None)
    return 1 if any(one.failed for one in answered) else 0


async def _answer(brain: Brain[str], request: str, place: str, console: Console, *, quiet: bool) -> _Answered:
    """Run one request; on a terminal, each attempt is seen as it is made."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    head = f"{place}  {_one_line(request, 64)}"
    result: RunResult[str] | None = None
    error: BrainError | None = None
    with console.status(head) as status:
        try:
            async for event in brain.run_stream(request):
                if isinstance(event, ToolCalled):
                    status.update(f"{head}  [dim]{event.tool} …[/dim]")
                elif isinstance(event, AttemptMade):
                    status.update(f"{head}  [dim]{event.tool}: {_attempt_line(event)}[/dim]")
                elif isinstance(event, Done):
                    result = event.result
        except BrainError as caught:
            error, result = caught, caught.result
    seconds = loop.time() - start
    if not quiet:
        mark = "[green]✓[/green]" if error is None else "[yellow]–[/yellow]"
        console.print(f"{mark} {head}  [dim]{seconds * 1000:.0f} ms[/dim]", highlight=False)
    return _Answered(request, result, error, seconds)


def _show(answered: list[_Answered], console: Console, *, connected: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_lines=True, title="\nWhat was asked, and what came of it", title_justify="left")
    for name in ("request", "plan", "answered by", "accepted by"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "ms", "cost"):
        table.add_column(name, justify="right")
    for one in answered:
        calls = one.result.calls if one.result else ()
        ending = f"[green]{escape(one.result.output or '')}[/green]" if one.error is None and one.result else ""
        if one.error is not None:
            ending = f"[yellow]{escape(str(one.error))}[/yellow]"
        table.add_row(
            f"{escape(_one_line(one.request, 90))}\n→ {ending}",
            " → ".join(str(call.tool) for call in calls) or "none",
            "\n".join(_answered_by(call) for call in calls) or "–",
            "\n".join(call.accepted_by or "abstained" for call in calls) or "–",
            "\n".join(_steps(call) for call in calls),
            f"{one.seconds * 1000:.0f}",
            str(one.result.usage.cost.status if one.result.usage.unpriced else _dollars(one.result.usage))
            if one.result
            else "–",
        )
    console.print(table)
    usage = Usage()
    for one in answered:
        if one.result:
            usage = usage + one.result.usage
    console.print()
    console.print(str(usage), highlight=False, markup=False)
    console.print()
    console.print(_for_a_model(answered, connected), highlight=False, markup=False)


def _for_a_model(answered: list[_Answered], connected: bool) -> str:
    """What a connected model was, or would have been, asked."""
    if connected:
        asked = sum(len(one.result.turns) for one in answered if one.result)
        rungs = sum(
            attempt.rung == "big_model" for one in answered for call in _calls(one) for attempt in call.attempts
        )
        return f"The connected model was asked {asked} times to plan or to answer, and {rungs} times as the last rung."
    whole = [one for one in answered if one.error is not None and not _calls(one)]
    rungs = sum(not call.accepted and call.answered_by != "function" for one in answered for call in _calls(one))
    whole_list = "; ".join(f"“{_one_line(one.request, 60)}”" for one in whole)
    return (
        f"A connected model (--model openai:NAME) would have been asked: {len(whole)} whole request(s) ({whole_list}),"
        f" and {rungs} typed question(s) that no specialist's answer was accepted for."
    )


def _calls(one: _Answered) -> tuple[Outcome[Any], ...]:
    return one.result.calls if one.result else ()


def _answered_by(call: Outcome[Any]) -> str:
    if call.answered_by is None:
        return "nobody"
    return "plain tool" if call.answered_by == "function" else call.answered_by.replace("_", " ")


def _steps(call: Outcome[Any]) -> str:
    steps = [attempt.steps for attempt in call.attempts if attempt.steps is not None]
    return str(sum(steps)) if steps else "–"


def _attempt_line(event: AttemptMade) -> str:
    attempt = event.attempt
    parts = [attempt.rung.replace("_", " "), attempt.outcome]
    if attempt.steps is not None:
        parts.append(f"{attempt.steps} steps")
    if attempt.verdict is not None:
        parts.append(attempt.verdict.status)
    return ", ".join(parts)


def _dollars(usage: Usage) -> str:
    amount = usage.cost.high
    return "unpriced" if amount is None else f"${amount:.8f}"


def _call_json(call: Outcome[Any]) -> dict[str, Any]:
    data = call.to_json()
    keys = ("rung", "outcome", "seconds", "steps", "confidence", "verdict", "reason", "cost")
    attempts = [{key: attempt[key] for key in keys} for attempt in data["attempts"]]
    return {
        "tool": call.tool,
        "arguments": jsonable(dict(call.arguments)),
        "value": data["value"],
        "answered_by": call.answered_by,
        "accepted_by": call.accepted_by,
        "attempts": attempts,
    }


def _one_line(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _requests(text: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line.lstrip().startswith("{"):
            yield line.strip()
            continue
        try:
            row = json.loads(line)
            request = row["request"]
        except (ValueError, KeyError, RecursionError):
            raise ConfigurationError(f'{path}, line {number}: a JSON line has the form {{"request": "…"}}') from None
        if not isinstance(request, str):
            raise ConfigurationError(f"{path}, line {number}: the request is not text")
        yield request


@cache
def _desks() -> dict[str, str]:
    lines = DESKS.read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)
