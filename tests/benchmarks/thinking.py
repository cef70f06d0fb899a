"""More compute for a better answer: what each strategy is worth, beside what is computed for it, and what it takes.

    python -m tests.benchmarks.thinking [PART ...] [--quick] [--json] [--picture FILE]

Every figure on strategies is measured with ``brain.testing.SimulatedModel``: it says how a strategy behaves under
stated accuracies, not how any real model does. Seeds are fixed and printed, and the model is described in ``--json``.
Parts: plans, vote, effort, checks (judge, refine, prove, step checks), decompose, context, cleaning, compare.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from .report import machine

__all__ = ["PARTS", "main", "measure"]


def _module(name: str) -> Callable[[bool], dict[str, Any]]:
    return lambda quick: dict(import_module(f"tests.benchmarks.{name}").measure(quick))


def _context(quick: bool) -> dict[str, Any]:
    """What the view of a long conversation holds to."""
    from .context_figures import measure as figures

    rows = []
    for name, found in figures(quick).items():
        kept = found["largest_share_of_window"] <= 1 and found["pinned_always"]
        rows.append(
            {
                "strategy": name,
                **found,
                "value": found["least_shared"],
                "target": "window never passed, pinned facts always there, 80 % of each request as the last one began",
                "reached": kept and found["least_shared"] >= 0.8,
            }
        )
    return {"rows": rows}


def _cleaning(quick: bool) -> dict[str, Any]:
    from .cleaning_figures import measure as figures

    found = figures(quick)
    all_of = (
        ("idempotent", "strings"),
        ("protected_identical", "strings"),
        ("same_calls", "prompts"),
        ("same_plans", "prompts"),
    )
    rows = [
        {
            "strategy": name.replace("_", " "),
            "questions": found[of],
            "value": found[name] / found[of],
            "target": f"all {of}",
            "reached": found[name] == found[of],
        }
        for name, of in all_of
    ]
    return {"rows": rows, "seeds": [found["seed"]]}


def _compare(quick: bool) -> dict[str, Any]:
    """Which strategy wins where, at equal budget."""
    from .thinking_compare import BUDGET, SEED, WORLDS, compare, winner

    rows = []
    worlds = {world.name: world.model().describe() for world in WORLDS}
    for world, tried in compare(30 if quick else 600).items():
        best = winner(tried)
        for each in tried:
            said = each.to_json()
            rows.append(
                {
                    "world": world,
                    "strategy": each.strategy,
                    "accuracy": each.accuracy,
                    "standard error": each.error,
                    "answered": 1 - said["abstained"],
                    "calls per question": each.calls,
                    "money per question": each.money,
                    "dearest": each.most,
                    "questions": each.questions,
                    "target": None,
                    "reached": None,
                    "wins": each is best,
                }
            )
    return {"rows": rows, "seeds": [SEED], "budget a question": BUDGET, "model": worlds}


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "plans": _module("thinking_plans"),
    "vote": _module("thinking_vote"),
    "effort": _module("thinking_effort"),
    "checks": _module("thinking_checks"),
    "decompose": _module("thinking_decompose"),
    "context": _context,
    "cleaning": _cleaning,
    "compare": _compare,
}


def measure(parts: Sequence[str] = tuple(PARTS), quick: bool = False) -> dict[str, dict[str, Any]]:
    """The figures of the parts."""
    found = {}
    for name in parts:
        start = time.perf_counter()
        found[name] = {**PARTS[name](quick), "seconds": time.perf_counter() - start}
        print(f"{name}: {found[name]['seconds']:.1f} s", file=sys.stderr)
    return found


def show(figures: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 150)
    for name, part in figures.items():
        table = Table(title=f"{name} (seeds {part.get('seeds', 'none')})", title_justify="left")
        for column, right in (("strategy", 0), ("accuracy", 1), ("calls", 1), ("money", 1), ("target", 0), ("", 0)):
            table.add_column(column, justify="right" if right else "left")
        world = None
        for row in part["rows"]:
            if row.get("world") != world:
                world = row.get("world")
                table.add_row(f"[bold]{world}")
            met = {True: "met", False: "[red]missed", None: ""}[row.get("reached")]
            table.add_row(
                row["strategy"],
                _number(row.get("accuracy", row.get("value"))),
                _number(row.get("calls per question")),
                _money(row.get("money per question")),
                _target(row),
                "wins" if row.get("wins") else met,
            )
        console.print(table)
        if world is not None:
            won = {row["world"]: row["strategy"] for row in part["rows"] if row["wins"]}
            for each in dict.fromkeys(row["world"] for row in part["rows"]):
                console.print(f"  {each}: {won.get(each, 'nothing is better than one cheap ask')}")


def draw(part: dict[str, Any], path: Path) -> None:
    """Accuracy against money, a picture for each world."""
    from .pictures import BLUE, GREY, ORANGE, figure_of, save

    worlds = list(dict.fromkeys(row["world"] for row in part["rows"]))
    columns = 2
    figure, _ = figure_of(-(-len(worlds) // columns), columns, width=9, height=2.9 * -(-len(worlds) // columns))
    for axis, world in zip(figure.axes, worlds, strict=False):
        rows = [row for row in part["rows"] if row["world"] == world]
        for row in rows:
            colour = ORANGE if row["wins"] else GREY if row["strategy"].startswith("one ask") else BLUE
            money = float(row["money per question"]) * 1000
            axis.errorbar(money, row["accuracy"], yerr=2 * row["standard error"], fmt="o", color=colour)
            axis.annotate(
                row["strategy"], (money, row["accuracy"]), xytext=(6, 2), textcoords="offset points", fontsize=7
            )
        axis.set_title(world, fontsize=9)
        axis.set_xlim(left=0, right=18)
        axis.set_xlabel("US dollars for 1,000 questions")
        axis.set_ylabel("accuracy")
    save(figure, path, f"simulated models, at most ${part['budget a question']} a question")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thinking", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw accuracy against money, as SVG")
    parser.add_argument("--quick", action="store_true", help="a short run: it shows that it works")
    parsed = parser.parse_args(arguments)
    unknown = [part for part in parsed.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    parts = parsed.parts or list(PARTS)
    if parsed.picture is not None and "compare" not in parts:
        parser.error("the picture is of the part compare; name it too")
    figures = measure(parts, parsed.quick)
    if parsed.picture is not None:
        draw(figures["compare"], parsed.picture)
    if parsed.json:
        print(json.dumps({"benchmark": "thinking", "machine": machine(), "parts": figures}, default=str))
    else:
        show(figures)
    return 0


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float | Decimal) else str(value)


def _money(value: Any) -> str:
    return "" if value is None else f"${Decimal(value):.6f}"


def _target(row: dict[str, Any]) -> str:
    target = row.get("target")
    if target is None:
        return ""
    return target if isinstance(target, str) else f"{_number(row.get('value'))} beside {_number(target)}"


if __name__ == "__main__":
    sys.exit(main())
