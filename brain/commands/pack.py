"""``brain specialists pack``: how it is asked for, what is shown while it works, and what came of it.

What it does is in ``specialists.quantizing``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import console, table, write, write_json

if TYPE_CHECKING:
    from specialists.quantizing import Packed, Progress

__all__ = ["DESCRIPTION", "EXAMPLE", "SUMMARY", "add_options", "pack"]

SUMMARY = "write a clean, sealed copy of a folder, with int8 weights if wanted"

DESCRIPTION = (
    "Copies the files that the card lists, the card and the README to a new folder, and seals it. FOLDER stays as it"
    " is.\nA certificate is not copied: it holds for these files only.\n\n"
    "--quantize int8 gives its models weights of one byte. The cases are solved before and after; the copy is kept only"
    ' when\nno more than --max-loss of them is lost, and its card says precision = "int8" and what was measured. Exit'
    " code 1 when it\nis refused, or when nothing in the models could be quantised. Whether it is faster depends on the"
    " model and the CPU:\nthe time of one question is printed, before and after."
)

EXAMPLE = "brain specialists pack invoice_total --quantize int8 --out invoice_total-int8"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said after ``pack``."""
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--out", metavar="FOLDER", help="where the copy goes (default FOLDER-int8, or FOLDER-packed)")
    parser.add_argument("--quantize", choices=["int8"], help="make the weights smaller (needs the extra `pack`)")
    parser.add_argument(
        "--max-loss",
        type=_share,
        metavar="SHARE",
        help="the most that may be lost of the cases, from 0 to 1 (default 0.01: of fewer than 100, none)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="you have looked at the folder: open the model of one without code here"
    )
    parser.add_argument("--cases", type=Path, metavar="FILE.jsonl", help="judge by these rows instead of cases.jsonl")


def pack(arguments: argparse.Namespace, folder: Path, before_code: Callable[[], None]) -> int:
    """Pack ``folder``; the exit code. ``before_code`` is called before any of its code is run.

    Naming a folder with code for this is trusting it, as for ``try`` and ``eval``; one without code wants ``--trust``.
    """
    from specialists.card import read_card
    from specialists.quantizing import MAX_LOSS
    from specialists.quantizing import pack as run

    suffix = "packed" if arguments.quantize is None else arguments.quantize
    out = Path(arguments.out) if arguments.out else folder.resolve().with_name(f"{folder.resolve().name}-{suffix}")
    with _shown_progress() as progress:
        packed = run(
            folder,
            out,
            quantize=arguments.quantize,
            trust=arguments.trust or read_card(folder).task is None,
            max_loss=MAX_LOSS if arguments.max_loss is None else arguments.max_loss,
            cases=arguments.cases,
            before_code=before_code,
            progress=progress,
        )
    if arguments.json:
        write_json(packed.to_json())
    else:
        _show(packed)
    return 0 if packed.accepted else 1


def _show(packed: Packed) -> None:
    if packed.models:
        table(
            ["model", "nodes in int8", "left as they were", "bytes before", "bytes after"],
            [(each.file, each.nodes, each.left, each.bytes_before, each.bytes_after) for each in packed.models],
            right=["nodes in int8", "left as they were", "bytes before", "bytes after"],
        )
    if packed.before is not None and packed.after is not None:
        rows = [
            (what, getattr(packed.before, name), getattr(packed.after, name))
            for what, name in (
                ("cases", "n"),
                ("accepted and right", "correct"),
                ("accepted and wrong", "wrong_accepted"),
                ("abstained", "abstained"),
                ("right, accepted or not", "right"),
            )
        ]
        rows.append(("CPU ms of one question", _number(packed.ms_before), _number(packed.ms_after)))
        table(["", "before", "after"], rows, right=["before", "after"])
    if packed.loss is not None and packed.max_loss is not None:
        write(f"lost: {packed.loss:.2%} of the cases; at most {packed.max_loss:.2%} may be")
    if packed.reason is not None:
        write(f"refused: {packed.reason}")
    else:
        write(f"{packed.folder}: {packed.name}, sealed, {len(packed.files)} files")


@contextmanager
def _shown_progress() -> Iterator[Progress | None]:
    """A bar on stderr while it works, if somebody is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda what, done, of: bars.update(task, description=what, completed=done, total=of)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1, such as 0.01")
    return value
