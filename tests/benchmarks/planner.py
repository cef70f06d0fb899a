"""How well the built-in planner picks tools and fills arguments, on the public BFCL v4 files.

Run: ``python -m tests.benchmarks.planner --data DIR [--ids odd|even|all] [--json] [--show-errors N]``. ``DIR`` holds
``BFCL_v4_simple_python``, ``…_multiple`` and ``…_irrelevance`` (``.jsonl.gz``, ``.jsonl`` or ``.json``) and the answers
under the same names in ``answer/`` or ``possible_answer/``. The planner was tuned on even ids; odd ids are reported.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brain.events import Plan, PlanStep, ToolSchema
from brain.planner import THRESHOLD, Planner

POSITIVES = ("simple_python", "multiple")
NEGATIVE = "irrelevance"
ENDINGS = (".jsonl.gz", ".json.gz", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class Case:
    """One request of the benchmark. ``truth`` maps the right tool to its arguments' admissible values."""

    id: str
    request: str
    tools: tuple[ToolSchema, ...]
    truth: Mapping[str, Mapping[str, Any]] | None


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The JSON rows of ``BFCL_v4_{name}`` in whichever form the file has."""
    for ending in ENDINGS:
        path = folder / f"BFCL_v4_{name}{ending}"
        if path.exists():
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            return [json.loads(line) for line in raw.decode("utf-8").splitlines() if line.strip()]
    raise SystemExit(f"{folder} has no BFCL_v4_{name} ({', '.join(ENDINGS)}).")


def load(folder: Path, name: str, ids: str) -> list[Case]:
    """The cases of one category whose number is even, odd, or any."""
    answers: dict[str, Any] = {}
    for answer_folder in (folder / "answer", folder / "possible_answer"):
        if name != NEGATIVE and answer_folder.is_dir():
            answers = {row["id"]: row["ground_truth"] for row in read_rows(answer_folder, name)}
    if name != NEGATIVE and not answers:
        raise SystemExit(f"{folder} has no answers for {name} in answer/ or possible_answer/.")
    cases = []
    for row in read_rows(folder, name):
        number = int(re.findall(r"\d+", row["id"])[-1])
        if ids != "all" and (number % 2 == 0) != (ids == "even"):
            continue
        turn = row["question"][0]
        request = "\n".join(message["content"] for message in turn if message["role"] == "user")
        tools = tuple(ToolSchema(f["name"], f["description"], f["parameters"]) for f in row["function"])
        truth = answers.get(row["id"])
        cases.append(Case(row["id"], request, tools, truth[0] if truth else None))
    return cases


def fold(text: str) -> str:
    """Case and punctuation folded, as the benchmark's own checker does."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def admits(value: Any, wanted: Any) -> bool:
    """Whether ``value`` is the listed value ``wanted``; a listed object lists the admissible values of each field."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, (int, float)) and isinstance(value, (int, float)):
        return abs(value - wanted) <= 1e-9 * max(1.0, abs(wanted))
    if isinstance(wanted, str) and isinstance(value, str):
        return fold(value) == fold(wanted)
    if isinstance(wanted, list) and isinstance(value, (list, tuple)):
        return len(wanted) == len(value) and all(admits(v, w) for v, w in zip(value, wanted, strict=True))
    if isinstance(wanted, dict) and isinstance(value, dict):
        return fills(value, wanted)
    return bool(value == wanted)


def fills(arguments: Mapping[str, Any], truth: Mapping[str, Any]) -> bool:
    """Every argument is listed, and every listed one is given or may be absent (``""``)."""
    for name, value in arguments.items():
        listed = truth.get(name)
        if listed is None or not any(
            admits(value, wanted) for wanted in (listed if isinstance(listed, list) else [listed])
        ):
            return False
    return all(
        name in arguments or "" in (listed if isinstance(listed, list) else [listed]) for name, listed in truth.items()
    )


def is_complete(steps: Sequence[PlanStep], truth: Mapping[str, Mapping[str, Any]]) -> bool:
    """The plan is the one right call with right arguments."""
    return len(steps) == 1 and steps[0].tool in truth and fills(steps[0].arguments, truth[steps[0].tool])


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The chance that a positive scores above a negative, ties counted half."""
    pairs = len(positives) * len(negatives)
    won = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return won / pairs if pairs else float("nan")


def measure(folder: Path, ids: str) -> tuple[dict[str, Any], list[tuple[Case, Plan]]]:
    """All figures, and the requests that went wrong with the plans they got."""
    planner = Planner()
    figures: dict[str, Any] = {"ids": ids, "threshold": THRESHOLD, "categories": {}}
    wrong: list[tuple[Case, Plan]] = []
    scores: dict[str, list[float]] = {}
    for name in (*POSITIVES, NEGATIVE):
        cases = load(folder, name, ids)
        began = time.perf_counter()
        plans = [(case, planner.plan(case.request, case.tools)) for case in cases]
        seconds = time.perf_counter() - began
        scores[name] = [plan.score for _, plan in plans]
        row: dict[str, Any] = {
            "n": len(cases),
            "abstained": sum(not plan.steps for _, plan in plans) / len(cases),
            "ms_per_request": 1000 * seconds / len(cases),
        }
        if name != NEGATIVE:
            drafts = [(case, plan, planner.draft(case.request, case.tools)) for case, plan in plans]
            row["right_tool"] = sum(len(d) == 1 and d[0].tool in (c.truth or {}) for c, _, d in drafts) / len(cases)
            row["complete_call"] = sum(is_complete(d, c.truth or {}) for c, _, d in drafts) / len(cases)
            row["right_tool_kept"] = sum(
                len(p.steps) == 1 and p.steps[0].tool in (c.truth or {}) for c, p in plans
            ) / len(cases)
            row["complete_call_kept"] = sum(is_complete(p.steps, c.truth or {}) for c, p in plans) / len(cases)
            wrong += [(c, Plan(d, p.score, p.reason)) for c, p, d in drafts if not is_complete(d, c.truth or {})]
        else:
            wrong += [(case, plan) for case, plan in plans if plan.steps]
        figures["categories"][name] = row
    figures["auroc"] = auroc([s for name in POSITIVES for s in scores[name]], scores[NEGATIVE])
    return figures, wrong


def table(figures: Mapping[str, Any]) -> None:
    """The figures for a person."""
    from rich.console import Console
    from rich.table import Table

    view = Table(title=f"Built-in planner on BFCL v4, {figures['ids']} ids")
    for column in ("category", "n", "right tool", "complete call", "… at threshold", "abstained", "ms/request"):
        view.add_column(column, justify="left" if column == "category" else "right")
    for name, row in figures["categories"].items():
        share = [
            f"{100 * row[key]:.1f} %" if key in row else ""
            for key in ("right_tool", "complete_call", "complete_call_kept")
        ]
        view.add_row(name, str(row["n"]), *share, f"{100 * row['abstained']:.1f} %", f"{row['ms_per_request']:.1f}")
    console = Console()
    console.print(view)
    console.print(f"abstention AUROC {figures['auroc']:.4f}   threshold {figures['threshold']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.planner", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the BFCL v4 files")
    parser.add_argument("--ids", choices=("odd", "even", "all"), default="odd")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--show-errors", type=int, default=0, metavar="N", help="print N requests that went wrong")
    options = parser.parse_args(arguments)
    figures, wrong = measure(options.data, options.ids)
    if options.json:
        print(json.dumps(figures))
    else:
        table(figures)
    for case, plan in wrong[: options.show_errors]:
        print(
            f"{case.id}: {case.request}\n  plan ({plan.score:.2f}): {plan}\n  wanted: {json.dumps(case.truth)}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
