"""A batch job: every row of a file is answered, a few at a time, with progress, and can be stopped and gone on with.

    pip install .[cpu,dev]
    python examples/batch.py
    python examples/batch.py MY_ROWS.jsonl --out MY_RESULTS.jsonl --concurrency 8

A row is {"id": ..., "request": "..."}, one a line; `batch_requests.jsonl` beside this file is the default. Each
result is appended to the output file as soon as it is there. Started again, the job passes over the rows that have a
result and goes on with the rest: rows that failed for a reason that may go away (an endpoint that was down, a time
limit) are tried again, abstentions are not, and the last result of an id counts. At the end stands the receipt. Needs
no key and no network; --model and --fallback name chat models (openai:NAME).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from brain import Brain, BrainError, ConfigurationError, Cost, ModelError, RunResult, RunStopped, Usage

REQUESTS = Path(__file__).with_name("batch_requests.jsonl")

AGAIN = (ModelError, RunStopped)
"""Errors after which a row is tried again when the job is started again."""


class RowError(Exception):
    """A line of the input that cannot be used; the message names it."""


@dataclass
class Totals:
    """What this start of the job did."""

    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add(self, row: dict[str, Any], result: RunResult[Any] | None) -> None:
        self.counts["answered" if row["error"] is None else row["error"]] += 1
        if result is not None:
            self.usage += result.usage


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows, one at a time, so that a file may be of any length. Raises `RowError`."""
    seen: set[Any] = set()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row["request"], str) or not isinstance(row["id"], str | int):
                    raise ValueError("wrong type")
            except (ValueError, LookupError, TypeError):
                raise RowError(f'{path}, line {number}: not of the form {{"id": ..., "request": "..."}}') from None
            if row["id"] in seen:
                raise RowError(f"{path}, line {number}: the id {row['id']!r} stands twice; ids tell rows apart")
            seen.add(row["id"])
            yield row


def done_before(path: Path) -> set[Any]:
    """Ids that have a result for good. A last line that was cut when the job was killed is cut off."""
    done: set[Any] = set()
    if not path.exists():
        return done
    whole = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            row = json.loads(line)
            if not row["again"]:
                done.add(row["id"])
    with path.open("r+b") as file:
        file.truncate(whole)
    return done


async def answer(
    brain: Brain[str], row: dict[str, Any], timeout: float
) -> tuple[dict[str, Any], RunResult[Any] | None]:
    """Run one row. Everything but a mistake in the set-up becomes a result."""
    error: BrainError | None = None
    result: RunResult[Any] | None
    try:
        result = await brain.run(row["request"], run_id=str(row["id"]), timeout=timeout)
    except ConfigurationError:
        raise  # it would be the same for every row
    except BrainError as caught:
        error, result = caught, caught.result
    calls = result.calls if result is not None else ()
    return {
        "id": row["id"],
        "output": None if error is not None or result is None else result.output,
        "calls": [
            {"tool": c.tool, "answered_by": c.answered_by, "accepted_by": c.accepted_by, "reason": c.reason}
            for c in calls
        ],
        "cost": Cost.total([] if result is None else [result.usage.cost]).to_json(),
        "error": None if error is None else type(error).__name__,
        "message": None if error is None else str(error),
        "again": isinstance(error, AGAIN),
    }, result


async def work(
    brain: Brain[str], source: Path, out: Path, *, concurrency: int, timeout: float, console: Console
) -> Totals:
    """Answer what has no result yet, at most `concurrency` rows at a time."""
    count = sum(1 for _ in read_rows(source))  # also finds a bad line before anything is paid for
    done = done_before(out)
    totals = Totals()
    slots = asyncio.Semaphore(concurrency)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with out.open("a", encoding="utf-8") as file, Progress(*columns, console=console) as progress:
        bar = progress.add_task("rows", total=count)

        async def one(row: dict[str, Any]) -> None:
            try:
                written, result = await answer(brain, row, timeout)
                file.write(json.dumps(written, ensure_ascii=False) + "\n")
                file.flush()
                totals.add(written, result)
                progress.advance(bar)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            for row in read_rows(source):
                if row["id"] in done:
                    totals.counts["had a result"] += 1
                    progress.advance(bar)
                    continue
                # Wait for a slot before a task is made, so that a long file is not in memory as tasks.
                await slots.acquire()
                group.create_task(one(row))
    return totals


async def run(arguments: argparse.Namespace) -> None:
    console = Console()
    async with Brain(arguments.model, specialists=["sudoku", "intent"], fallback=arguments.fallback or None) as brain:
        totals = await work(
            brain,
            arguments.rows,
            arguments.out,
            concurrency=arguments.concurrency,
            timeout=arguments.timeout,
            console=console,
        )
    print(", ".join(f"{count} {what}" for what, count in totals.counts.most_common()) or "no rows")
    print(f"results: {arguments.out}\n")
    print(totals.usage)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer every row of a file.")
    parser.add_argument("rows", nargs="?", type=Path, default=REQUESTS, help='lines of {"id": ..., "request": "..."}')
    parser.add_argument("--out", type=Path, default=Path("batch_results.jsonl"), help="results, appended line by line")
    parser.add_argument("--concurrency", type=int, default=4, help="rows at a time (default 4)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one row (default 60)")
    parser.add_argument("--model", help="openai:NAME; by default the built-in planner")
    parser.add_argument("--fallback", help="openai:NAME, asked what no specialist could answer")
    arguments = parser.parse_args()
    if arguments.concurrency < 1:
        parser.error("--concurrency is at least 1")
    try:
        asyncio.run(run(arguments))
    except* (BrainError, RowError, OSError) as group:
        sys.exit("\n".join(dict.fromkeys(str(error) for error in group.exceptions)))
    except* KeyboardInterrupt:
        sys.exit(f"stopped; start it again to go on, what is done is in {arguments.out}")


if __name__ == "__main__":
    main()
