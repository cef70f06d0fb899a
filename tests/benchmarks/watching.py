"""The watch on a certificate: how often it alarms without a cause, and how soon with one.

Run: ``python -m tests.benchmarks.watching [--json] [--quick]``. Streams of audited answers are simulated, all at once,
by the recursion that :class:`specialists.statistics.ShiftMartingale` runs for one (a test holds the two against each
other). Promised are: of streams whose error rate stays where the certificate puts it, at most delta and three standard
errors ever alarm; and of those that shift to ten times their error, nine in ten alarm within twice the median number
of audits that the process predicts. The exit status is 1 when either is broken.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from specialists.statistics import alternatives, predicted_audits
from specialists.watching import Watch

from .report import Row, report

ALPHA, DELTA = 0.01, 0.05
BEFORE, AFTER = 0.005, 0.05
"""The error rates before and after a shift."""
SHIFTS = (100, 500, 5_000)
PROMISED = 0.9
BLOCK = 500


def values(wrong: Iterator[NDArray[np.bool_]], null: float) -> Iterator[NDArray[np.float64]]:
    """The e-value of every stream after each audit. ``wrong``: for each audit, whether each stream's was wrong."""
    bets = np.array(alternatives(null))[:, None]
    stakes: NDArray[np.float64] | None = None
    rest = 1.0
    for audits, each in enumerate(wrong, 1):
        new, rest = rest - 1 / (1 + math.log1p(audits)), 1 / (1 + math.log1p(audits))
        factors = np.where(each, bets / null, (1 - bets) / (1 - null))
        stakes = np.minimum(((0.0 if stakes is None else stakes) + new) * factors, 1e200)
        yield stakes.mean(axis=0) + rest


def drawn(
    streams: int, audits: int, rate: Callable[[int], float], chance: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Independent audits, wrong with probability ``rate(audits before)``."""
    for start in range(0, audits, BLOCK):
        uniform = chance.random((min(BLOCK, audits - start), streams), dtype=np.float32)
        for place, each in enumerate(uniform):
            yield each < rate(start + place)


def first_alarms(
    streams: int, audits: int, rate: Callable[[int], float], chance: np.random.Generator, *, after: int = 0
) -> NDArray[np.int64]:
    """After how many audits each stream first reaches 1/delta; 0 for never. Ends when all have, ``after`` ones on."""
    first = np.zeros(streams, np.int64)
    for count, value in enumerate(values(drawn(streams, audits, rate, chance), ALPHA), 1):
        first[(first == 0) & (value >= 1 / DELTA)] = count
        if count > after and first.all():
            break
    return first


def stationary(streams: int, calls: int, chance: np.random.Generator) -> list[Row]:
    """How many streams ever alarm without a cause."""
    target = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / streams)
    rows = []
    for error in (ALPHA, BEFORE):
        for share in (1.0, 0.05):
            audits = np.full(streams, calls) if share == 1 else chance.binomial(calls, share, streams)
            first = first_alarms(streams, int(audits.max()), lambda _, error=error: error, chance)  # type: ignore[misc]
            alarmed = float(np.mean((first > 0) & (first <= audits)))
            where = "at the certified rate" if error == ALPHA else "below it"
            measure = f"ever alarmed, {error:.1%} errors all the time, {share:.0%} of calls audited"
            note = f"{streams:,} streams of {calls:,} calls, {where}"
            rows.append(Row(measure, alarmed, target=target, better="lower", against=f"delta {DELTA:g}", note=note))
    return rows


def shifted(streams: int, after: int, chance: np.random.Generator) -> list[Row]:
    """How soon the streams alarm whose error grew tenfold after ``after`` audits."""
    predicted = predicted_audits(AFTER, ALPHA, DELTA, after, before=BEFORE)
    assert predicted is not None
    first = first_alarms(
        streams, after + 20 * predicted, lambda audits: BEFORE if audits < after else AFTER, chance, after=after
    )
    early = (first > 0) & (first <= after)  # a false alarm; what would have come later is not known
    delays = np.where(first == 0, np.inf, first - after)[~early]
    what = f"{BEFORE:.1%} to {AFTER:.0%} errors after {after:,} audits"
    note = f"{len(delays):,} streams; {int(early.sum())} had alarmed before"
    median = float(np.median(delays))
    within = float(np.mean(delays <= 2 * predicted))
    return [
        Row(f"alarmed in time, {what}", within, target=PROMISED, against=f"{2 * predicted} audits", note=note),
        Row(
            f"audits to the alarm, {what}",
            median,
            "audits (median)",
            better="lower",
            against=f"predicted {predicted}",
            note=f"nine in ten within {np.quantile(delays, 0.9, method='higher'):.0f};"
            f" {np.mean(delays <= 2 * median):.1%} within twice this median",
        ),
    ]


def audited_share(calls: int) -> Row:
    """What share of calls is drawn from the hashes of their ids."""
    watch = Watch(share=0.01)
    share = sum(watch.draws(f"call-{number}") for number in range(calls)) / calls
    return Row("drawn for audit", share, better="lower", against="share 0.01", note=f"{calls:,} numbered call ids")


def measure(arguments: argparse.Namespace) -> list[Row]:
    """The rows."""
    chance = np.random.default_rng(20)
    streams, calls = (200, 5_000) if arguments.quick else (1_000, 100_000)
    rows = stationary(streams, calls, chance)
    for after in SHIFTS:
        rows += shifted(streams, after, chance)
    return [*rows, audited_share(calls)]


def main() -> int:
    """The exit status: 1 when a promise is broken."""
    broken: list[Row] = []

    def measured(arguments: argparse.Namespace) -> list[Row]:
        rows = measure(arguments)
        broken.extend(row for row in rows if row.met is False)
        return rows

    status = report("watching", __doc__.splitlines()[0], measured)
    return status or int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
