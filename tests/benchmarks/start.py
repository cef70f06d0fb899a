"""From nothing to an answer: fresh processes, one after the other, beside the imports that none of them can do without.

Each case is a program that a new Python runs to its end, from bytecode. The limits are a bare `pass`, and the bare
imports of what an answer of a bundled specialist needs: onnxruntime, numpy, asyncio, and pydantic with one model made.

    python -m tests.benchmarks.start
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .report import Row, report

ROOT = Path(__file__).parents[2]

SUDOKU = """\
from brain import Brain
brain = Brain(specialists=["sudoku"])
print(brain.run_sync("Solve this sudoku: "
    "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79").output)
"""

INTENT = """\
from brain import Brain
brain = Brain(specialists=["sudoku", "intent"])
print(brain.run_sync("Route this customer message: 'I lost my wallet, please block my card'").output)
"""

FLOOR = """\
import asyncio, numpy, onnxruntime, pydantic
class One(pydantic.BaseModel):
    number: int
"""


class Case(NamedTuple):
    """A program, and a word that it must print for the measurement to count."""

    arguments: tuple[str, ...]
    prints: str = ""


CASES = {
    "pass": Case(("-c", "pass")),
    "floor": Case(("-c", FLOOR)),
    "import brain": Case(("-c", "import brain")),
    "from brain import Brain": Case(("-c", "from brain import Brain")),
    "brain --help": Case(("-m", "brain.cli", "--help"), "specialists"),
    "sudoku": Case(("-c", SUDOKU), "534678912672195348198342567859761423426853791713924856961537284287419635345286179"),
    "intent": Case(("-c", INTENT), "lost"),
}


class Spent(NamedTuple):
    """Seconds of one process, from before it was started until it had ended."""

    wall: float
    cpu: float


def run(case: Case, compiled: Path) -> Spent:
    """Run one process to its end. Raises ``SystemExit`` when it fails, or does not print what it must.

    ``compiled``: where bytecode is kept between processes, as an installed package keeps it.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *case.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment | {"PYTHONPYCACHEPREFIX": str(compiled)},
    )
    assert child.stdout is not None
    assert child.stderr is not None
    printed, complaints = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - before
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or case.prints not in printed:
        raise SystemExit(f"{case.arguments} ended with {child.returncode} and printed {printed!r}: {complaints}")
    return Spent(wall, usage.ru_utime + usage.ru_stime)


def measure(arguments: argparse.Namespace) -> Sequence[Row]:
    """All cases in turn, several times over; medians."""
    rounds = 1 if arguments.quick else arguments.rounds
    spent: dict[str, list[Spent]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="bytecode-") as folder:
        for case in CASES.values():
            run(case, Path(folder))  # the first start compiles, and reads from the disk; the second is the one to count
        for _ in range(rounds):
            for name, case in CASES.items():
                spent[name].append(run(case, Path(folder)))
    wall = {name: statistics.median(each.wall for each in all_) for name, all_ in spent.items()}
    cpu = {name: statistics.median(each.cpu for each in all_) for name, all_ in spent.items()}
    bare = f"a bare `pass`: {wall['pass']:.3f} s, CPU {cpu['pass']:.3f} s"
    imports = f"imports of onnxruntime, numpy, pydantic alone: {wall['floor']:.3f} s, CPU {cpu['floor']:.3f} s"
    rows = []
    for name, measured, target, against in (
        ("sudoku", "first answer of the planner with `sudoku`", 1.0, imports),
        ("intent", "first answer of the planner with `intent`", 1.0, imports),
        ("import brain", "`import brain`", None, bare),
        ("from brain import Brain", "`from brain import Brain`", None, bare),
        ("brain --help", "`brain --help`", None, bare),
    ):
        note = f"median of {rounds} processes; CPU {cpu[name]:.3f} s"
        rows.append(Row(measured, wall[name], "s", target, "lower", against, note))
    for name in ("sudoku", "intent"):
        measured = f"CPU until the first answer with `{name}`, over that of the imports alone"
        rows.append(Row(measured, cpu[name] / cpu["floor"], against=imports, better="lower"))
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark can be told beside the common options."""
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="processes of each kind (default 9)")


if __name__ == "__main__":
    sys.exit(report("start", __doc__, measure, add_arguments=options))
