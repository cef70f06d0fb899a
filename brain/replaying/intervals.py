"""What can be said of the next runs from those that were seen. This module knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from statistics import NormalDist
from typing import Any

__all__ = ["cost_bound", "paired_intervals", "runs_needed", "student_t"]

RESAMPLES = 2000
MOST_CLUSTERS = 10_000
"""Runs beyond these are pooled before resampling: the interval stays the same, and takes seconds, not minutes."""

_T = (  # Student's t at 0.975 for 1 … 30 degrees of freedom
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def paired_intervals(
    sums: Mapping[str, Any], counts: Any, *, shares: Iterable[str] = (), seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of means over calls, from each run's ``sums`` and its number of calls ``counts``.

    Calls of one run are not independent, so whole runs are resampled (the cluster bootstrap of Davison and Hinkley,
    *Bootstrap Methods and their Application*, 1997, section 3.8), all columns together, with a fixed seed. The
    percentiles are those of the expanded percentile interval (Hesterberg, *What Teachers Should Know about the
    Bootstrap*, arXiv 1411.5279), as plain ones are too narrow for few runs.

    ``None``: there are fewer than two runs, or all have the same mean, so that no spread was seen. A column of
    ``shares``, whose differences lie within -1 and 1 for each call, has an interval then too: of the runs that may be
    otherwise there are at most ``1 - 0.025 ** (1 / runs)``, as none was seen.
    """
    import numpy as np

    names = list(sums)
    size = len(counts)
    if size < 2:
        return dict.fromkeys(names)
    values = np.vstack([np.asarray(sums[name], dtype=float) for name in names])
    weights = np.asarray(counts, dtype=float)
    means = values.sum(axis=1) / weights.sum()
    spread = np.ptp(values / weights, axis=1) > 0
    clusters = min(size, MOST_CLUSTERS)
    if size > MOST_CLUSTERS:
        into = np.arange(size) % MOST_CLUSTERS
        values = np.vstack([np.bincount(into, row, MOST_CLUSTERS) for row in values])
        weights = np.bincount(into, weights, MOST_CLUSTERS)
    chance = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, len(names)))
    for row in drawn:
        times = np.bincount(chance.integers(clusters, size=clusters), minlength=clusters)
        row[:] = values @ times / (weights @ times)
    free = clusters - 1
    t = student_t(free)
    tail = NormalDist().cdf(-t * math.sqrt(clusters / free))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    result: dict[str, tuple[float, float] | None] = {}
    for index, name in enumerate(names):
        if spread[index]:
            result[name] = float(low[index]), float(high[index])
        elif name in set(shares):
            mean, unseen = float(means[index]), 1 - 0.025 ** (1 / size)
            result[name] = mean - unseen * (1 + mean), mean + unseen * (1 - mean)
        else:
            result[name] = None
    return result


def student_t(free: int) -> float:
    """Student's t at 0.975 for ``free`` degrees of freedom, from one up."""
    z = NormalDist().inv_cdf(0.975)
    return _T[free - 1] if free <= len(_T) else z + (z**3 + z) / (4 * free)


def cost_bound(costs: Mapping[str, Decimal | None], level: float) -> Decimal | None:
    """What the next run like these costs at most, with probability ``level``: a conformal quantile of the runs' costs.

    It holds on average over logs, for runs that are exchangeable: in any order as likely. ``None``: too few runs
    (:func:`runs_needed`), or one of them has a part without a price.
    """
    from specialists.statistics import conformal_quantile

    amounts = [amount for amount in costs.values() if amount is not None]
    if len(amounts) < len(costs):
        return None
    rank = conformal_quantile(range(1, len(amounts) + 1), level)  # of places, so that money stays a Decimal
    return None if rank is None else sorted(amounts)[round(rank) - 1]


def runs_needed(level: float) -> int:
    """How many runs a bound on cost of this level needs at least."""
    share = Decimal(str(level))
    return math.ceil(share / (1 - share))
