"""What the exported file says of labelled texts, and the figures of a card: accuracy, calibration, abstention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specialists import OnnxModel
from specialists.evaluation import wilson
from specialists.training.text_data import Rows

__all__ = ["Figures", "Said", "ask", "choose_floor", "measure"]

PASS = 0.9
"""The share of in-scope texts that the floor lets pass."""
BINS = 15


class Said(NamedTuple):
    """The best label of each text, and its probability."""

    best: list[str]
    confidence: NDArray[np.float64]


class Figures(NamedTuple):
    """The figures of a card. Shares of in-scope or out-of-scope texts; ``None`` where there are none of the kind."""

    n: int
    in_scope: int
    in_scope_accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_of_each_label: float
    """The mean over the labels, each counting alike: a rare label that is never found is seen here."""
    most_frequent_label: float
    """What always saying the most frequent label would get right."""
    accepted_right: float | None
    abstained_in_scope: float
    abstained_out_of_scope: float | None
    wrong_accepted: int
    calibration_error: float
    auroc_in_or_out_of_scope: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return self._asdict()


def ask(
    model: OnnxModel,
    encode: Callable[[list[str]], dict[str, Any]],
    labels: Sequence[str],
    rows: Rows,
    tick: Callable[[int, int], None],
) -> Said:
    """What the exported file says, text by text as it will be asked."""
    best: list[str] = []
    confidence = np.zeros(len(rows.texts))
    for i, text in enumerate(rows.texts):
        tick(i, len(rows.texts))
        probabilities = model.run_sync(**encode([text]))["probabilities"][0]
        at = int(probabilities.argmax())
        best.append(labels[at])
        confidence[i] = probabilities[at]
    return Said(best, confidence)


def choose_floor(said: Said, rows: Rows, labels: int, out_of_scope: str) -> float:
    """The confidence that nine in ten in-scope texts reach.

    In-scope texts are many, so it moves little from seed to seed; the point that separates them best from the few
    out-of-scope ones moves by 0.2. It stays above what a text gets of which no word is known, and below 1.
    """
    inside = np.array([label != out_of_scope for label in rows.labels])
    found = math.floor(float(np.quantile(said.confidence[inside], 1 - PASS)) * 100 + 1e-6) / 100
    return min(0.99, max(found, math.floor(100 / labels + 1) / 100))


def measure(said: Said, rows: Rows, floor: float, out_of_scope: str) -> Figures:
    """The figures of some rows that were neither learned from nor chosen by."""
    right = np.array([best == label for best, label in zip(said.best, rows.labels, strict=True)])
    inside = np.array([label != out_of_scope for label in rows.labels])
    confidence, accepted = said.confidence, said.confidence >= floor
    count = int(inside.sum())
    low, high = wilson(int(right[inside].sum()), count)
    in_scope = Counter(label for label in rows.labels if label != out_of_scope)
    found = Counter(label for label, yes in zip(rows.labels, right, strict=True) if yes)
    outside, auroc = None, None
    if count < len(right):
        outside = 1 - float(accepted[~inside].mean())
        auroc = _auroc(confidence[inside], confidence[~inside])
    return Figures(
        n=len(right),
        in_scope=count,
        in_scope_accuracy=_short(right[inside].mean()),
        accuracy_low=_short(low),
        accuracy_high=_short(high),
        accuracy_of_each_label=_short(sum(found[label] / n for label, n in in_scope.items()) / len(in_scope)),
        most_frequent_label=_short(max(in_scope.values()) / count),
        accepted_right=_short(right[inside & accepted].mean()) if (inside & accepted).any() else None,
        abstained_in_scope=_short(1 - accepted[inside].mean()),
        abstained_out_of_scope=None if outside is None else _short(outside),
        wrong_accepted=int((accepted & ~(right & inside)).sum()),
        calibration_error=_short(_calibration_error(right[inside], confidence[inside])),
        auroc_in_or_out_of_scope=None if auroc is None else _short(auroc),
    )


def weakest(said: Said, rows: Rows, out_of_scope: str, most: int = 5) -> list[tuple[str, int, int, str]]:
    """The labels found least often: label, texts found, texts, and what they are mostly taken for."""
    in_scope = Counter(label for label in rows.labels if label != out_of_scope)
    mistaken: dict[str, Counter[str]] = {}
    for best, label in zip(said.best, rows.labels, strict=True):
        if best != label and label != out_of_scope:
            mistaken.setdefault(label, Counter())[best] += 1
    worst = sorted(mistaken, key=lambda label: (-mistaken[label].total() / in_scope[label], -in_scope[label], label))
    return [
        (label, in_scope[label] - mistaken[label].total(), in_scope[label], mistaken[label].most_common(1)[0][0])
        for label in worst[:most]
    ]


def _calibration_error(right: NDArray[np.bool_], confidence: NDArray[np.float64]) -> float:
    """The mean distance between confidence and share right, over bins of confidence."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(
        sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    )


def _auroc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """How often a text in scope is surer than one out of scope; ties count half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(below.mean() / 2 / len(outside))


def _short(value: Any) -> float:
    return round(float(value), 4)
