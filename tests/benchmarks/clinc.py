"""CLINC150's validation and test splits as cases of ``intent``, each run once. An out-of-scope sentence expects none.

The files are ``clinc150.val.tsv.gz`` and ``clinc150.test.tsv.gz``, a line ``label<TAB>text``, with the label ``oos``
for what is out of scope: what ``intent`` was measured on, as its card says (clinc/oos-eval, data_full.json).
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specialists import load
from specialists.calibration import gather, observe, signals
from specialists.loops import run_sync
from specialists.thresholds import RungSignals

__all__ = ["NO_DATA", "Clinc", "progress", "read_clinc"]

SPLITS = ("val", "test")
NO_DATA = (
    "not run: intent on CLINC150, which wants --data FOLDER with clinc150.val.tsv.gz and clinc150.test.tsv.gz"
    " (label, tab, text; the label oos: out of scope)"
)


@dataclass(frozen=True)
class Clinc:
    """All sentences of both splits. ``rungs``: what ``intent`` said to each; ``right``: its label, or ``oos``."""

    rungs: list[RungSignals]
    texts: list[str]
    right: list[str]
    test: NDArray[np.bool_]

    @property
    def out_of_scope(self) -> NDArray[np.bool_]:
        """Which sentences nothing should be answered to."""
        return np.array([label == "oos" for label in self.right])


def read_clinc(folder: Path) -> Clinc:
    """Read both splits and ask ``intent`` once for each sentence."""
    rows, right, test = [], [], []
    for split in SPLITS:
        with gzip.open(folder / f"clinc150.{split}.tsv.gz", "rt", encoding="utf-8") as file:
            for line in file:
                label, text = line.rstrip("\n").split("\t", 1)
                rows.append({"input": {"text": text}, "expected": None if label == "oos" else label})
                right.append(label)
                test.append(split == "test")
    specialist = load("intent")
    cases = gather(specialist, rows, drawn="drawn").cases
    told = lambda done: progress(f"intent: {done:,} of {len(cases):,} sentences")  # noqa: E731
    seen = run_sync(lambda: observe(specialist, cases, progress=told))
    return Clinc(signals(specialist, seen), [row["input"]["text"] for row in rows], right, np.array(test))


_last = [0.0]


def progress(text: str, *, every: float = 0.5) -> None:
    """A line on stderr that the next one writes over; one at most in ``every`` seconds."""
    import time

    if (moment := time.monotonic()) - _last[0] >= every:
        _last[0] = moment
        print(f"\r\033[K{text}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
