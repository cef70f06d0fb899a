"""What the commands write with: plain text, JSON, tables, and one line for an error.

It copes with a stdout that cannot show every character, and shows control characters instead of obeying them: labels
and reasons come from files and models. It knows no command. ``rich`` is imported when a table is drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["complain", "console", "mark", "plain", "prepare", "table", "write", "write_json"]

_MARKS = {"ok": ("✓", "ok"), "failed": ("✗", "FAILED"), "note": ("·", "note")}


def prepare() -> None:
    """Let stdout and stderr escape what their encoding lacks, instead of failing in the middle of an answer."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def write(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(plain(text) + "\n")


def write_json(data: Any) -> None:
    """One JSON object on one line, in ASCII: any stdout can carry it."""
    sys.stdout.write(json.dumps(data, ensure_ascii=True, allow_nan=False) + "\n")


def complain(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"brain: {plain(' '.join(text.split()))}\n")


def plain(text: str) -> str:
    """``text`` with every control character but the line break written out, so that none reaches the terminal."""
    return "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in text)


def mark(status: str) -> str:
    """A tick, a cross or a dot, or a word where stdout cannot show them."""
    sign, word = _MARKS[status]
    try:
        sign.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return word
    return sign


def console(*, stderr: bool = False) -> Console:
    """A console that takes all text as it stands. Into a pipe it writes lines wide enough not to be broken."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else 200)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> None:
    """A small table on stdout; ``None`` is shown as a dash. ``right`` names the columns of numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("-" if cell is None else plain(str(cell))) for cell in row))
    console().print(drawn)
