"""What every benchmark here ends with: a table, ``--json`` for machines, ``--picture FILE`` for the docs.

A benchmark is a function from the parsed arguments to rows. Each row is one ratio, or one figure, measured beside its
limit or peer in the same run; a target is shown beside it and never asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Row", "report"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure. ``against``: the limit or peer it was measured beside. ``note``: how, in a few words."""

    measure: str
    value: float
    unit: str = "ratio"
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    against: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; ``None`` without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def report(
    name: str,
    description: str,
    measure: Callable[[argparse.Namespace], Sequence[Row]],
    *,
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse the command line, measure, print. Returns the exit status: 0, whether or not targets were met.

    Every benchmark has ``--json``, ``--picture FILE`` (SVG) and ``--quick`` (a short run, to see that it works).
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the rows, as SVG")
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works, not how fast")
    add_arguments(parser)
    parsed = parser.parse_args(arguments)
    rows = list(measure(parsed))
    if parsed.picture is not None:
        draw(rows, parsed.picture, title=f"{name}, {machine()}")
    if parsed.json:
        print(
            json.dumps(
                {"benchmark": name, "machine": machine(), "rows": [{**asdict(row), "met": row.met} for row in rows]}
            )
        )
    else:
        show(name, rows)
    return 0


def machine() -> str:
    """What was measured on, in a few words."""
    from specialists.workers import usable_cores

    return f"{usable_cores()} of {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def show(name: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name} ({machine()})", title_justify="left")
    for heading in ("measure", "value", "target", "against", "note"):
        table.add_column(heading, justify="right" if heading in ("value", "target") else "left", overflow="fold")
    for row in rows:
        sign = {"higher": "≥", "lower": "≤"}[row.better]
        target = "" if row.target is None else f"{sign} {row.target:g}"
        colour = {None: "", True: "[green]", False: "[yellow]"}[row.met]
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        table.add_row(row.measure, f"{colour}{row.value:.4g}{unit}", target, row.against, row.note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Bars of the rows that have a target, each as a share of it: a dashed line stands where the target is."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = title
    from matplotlib import pyplot

    shown = [row for row in rows if row.target]
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.45 * len(shown)))
    for place, row in enumerate(reversed(shown)):
        assert row.target
        share = row.value / row.target
        axes.barh(place, share, color="#2a9d8f" if row.met else "#e9c46a")
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        sign = {"higher": "≥", "lower": "≤"}[row.better]
        axes.text(0.01, place, f" {row.value:.3g}{unit} (target {sign} {row.target:g})", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [row.measure for row in reversed(shown)], fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("measured, as a share of the target", fontsize=8)
    axes.set_title(title, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
