"""Certificates hold: how often an issued one promises what is not true, in worlds whose truth is known.

Run: ``python -m tests.benchmarks.certificates [--data FOLDER] [--json] [--quick] [--picture FILE]``. In each world
cases are drawn and certified by :func:`specialists.thresholds.certify`; the policy's true risk is taken from the world
and not counted. Over all worlds, those without a certificate included, at most delta plus three standard errors may
have one whose true risk is above alpha. Beside it stands the naive threshold: the laxest at which at most alpha of what
it accepts of the same cases is wrong.

With ``--data`` the bundled ``intent`` is certified on draws from 8,600 sentences of CLINC150, which are then the whole
truth, and its two splits show what "calls like the cases" means. The exit status is 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specialists.ladder import Floors
from specialists.statistics import DriftMartingale, binomial_tail, clopper_pearson, histogram
from specialists.thresholds import PROVEN, STRATA, Certified, RungSignals, certify, walk

from .clinc import NO_DATA, Clinc, progress, read_clinc
from .report import machine
from .worlds import FAILED, PASSED, UNKNOWN, Answers, Kind, Logistic, World, naive_threshold


def one(*answers: Answers) -> tuple[Kind, ...]:
    """A world of one kind of cases."""
    return (Kind(1.0, answers),)


def checked(passes: float, wrong: float, *, power: float | None) -> tuple[Kind, ...]:
    """A world of one check, and of what does not pass nine in ten are wrong."""
    return (
        Kind(passes, (Answers(PASSED, wrong, power),)),
        Kind(1 - passes, (Answers(FAILED, 0.9, power),)),
    )


SMOOTH = Logistic(0.5, 12.0, 0.2)
TWO_RUNGS = (
    Kind(0.6, (Answers(UNKNOWN, 0.002, 4.0), Answers(UNKNOWN, 0.001, 5.0))),
    Kind(0.3, (Answers(UNKNOWN, 0.08, 1.0), Answers(UNKNOWN, 0.03, 2.0))),
    Kind(0.1, (Answers(UNKNOWN, 0.6, 0.5), Answers(UNKNOWN, 0.5, 0.7))),
)
PROMISED = (
    World("smooth", "the error falls with the score, from 46 % to nothing", one(Answers(UNKNOWN, SMOOTH))),
    World("near-sound check", "65 % pass, 0.1 % of these wrong", checked(0.65, 0.001, power=None)),
    World("useless score", "1.2 % wrong at any score", one(Answers(UNKNOWN, 0.012))),
)
"""The shapes that the promise was made for."""
ATTACKS = (
    World("near-sound, score", "the same with a score that says nothing", checked(0.65, 0.001, power=1.0)),
    World("useless, 2 %", "2 % wrong at any score", one(Answers(UNKNOWN, 0.02)), cases=1_000),
    World("useless, 10 %", "10 % wrong at any score", one(Answers(UNKNOWN, 0.1)), cases=1_000),
    World("useless, 5.2 %", "few cases, lax levels", one(Answers(UNKNOWN, 0.052)), cases=500, alpha=0.05, delta=0.1),
    World("just over", "all together 1.1 % wrong, the low scores 2 %", one(Answers(UNKNOWN, Logistic(0.02, 20, 0.55)))),
    World("smooth, few", "few cases", one(Answers(UNKNOWN, SMOOTH)), cases=500, alpha=0.05),
    World("smooth, many", "many, delta 1 %", one(Answers(UNKNOWN, SMOOTH)), cases=5_000, delta=0.01),
    World("two rungs", "what is hard for one is hard for the other", TWO_RUNGS, alpha=0.05),
    World(
        "proofs, few left",
        "95 % proven; of the rest half are wrong at any score",
        (Kind(0.95, (Answers(PROVEN, 0.0),)), Kind(0.05, (Answers(UNKNOWN, 0.5),))),
    ),
    World(
        "proofs, smooth rest",
        "half proven; of the rest the error falls with the score",
        (Kind(0.5, (Answers(PROVEN, 0.0),)), Kind(0.5, (Answers(UNKNOWN, SMOOTH),))),
        cases=5_000,
    ),
    World(
        "proof by rung two",
        "a doubtful rung before one with proofs",
        (
            Kind(0.6, (Answers(UNKNOWN, 0.01, 2.0), Answers(PROVEN, 0.0))),
            Kind(0.4, (Answers(UNKNOWN, 0.3, 1.0), Answers(UNKNOWN, 0.25, 1.0))),
        ),
        alpha=0.02,
        always=("more",),
    ),
)
"""Shapes that look for a weak spot."""

DRIFT_LEVEL = 0.01


@dataclass(frozen=True)
class Found:
    """What happened in all worlds of a shape. Shares of all worlds; coverages are means over the issued."""

    shape: str
    told: str
    worlds: int
    cases: int
    alpha: float
    delta: float
    issued: float
    broken: float
    broken_low: float
    broken_high: float
    limit: float
    coverage: float
    oracle: float
    naive_broken: float
    naive_low: float
    naive_high: float
    naive_coverage: float
    promises: tuple[str, ...] = ()
    """Those that were broken, in words."""


def limit(delta: float, worlds: int) -> float:
    """Delta and three standard errors of a share of so many worlds."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / worlds)


def keys(chance: np.random.Generator, count: int) -> list[bytes]:
    """Keys as good as hashes."""
    data = chance.bytes(16 * count)
    return [data[16 * place : 16 * place + 16] for place in range(count)]


def in_worlds(world: World, count: int, seed: int) -> Found:
    """Certify in ``count`` worlds of a shape, and compare with the truth."""
    chance = np.random.default_rng([seed, world.cases])
    coverages, naive_coverages, broken, naive_broken = [], [], 0, 0
    for number in range(count):
        progress(f"{world.name}: {number:,} of {count:,} worlds")
        rungs = world.draw(chance)
        made = certify(rungs, keys(chance, world.cases), alpha=world.alpha, delta=world.delta, always=world.always)
        if isinstance(made, Certified):
            truth = world.truth(made.floors)
            coverages.append(float(truth.coverage))
            broken += bool(truth.breaks(world.alpha))
        truth = world.truth(naive_threshold(rungs[0], world.alpha))
        naive_coverages.append(float(truth.coverage))
        naive_broken += bool(truth.breaks(world.alpha))
    most, oracle = limit(world.delta, count), world.oracle()
    issued, coverage = len(coverages) / count, statistics.fmean(coverages) if coverages else 0.0
    promises = []
    if broken / count > most:
        promises.append(f"{world.name}: {broken / count:.2%} of the certificates are wrong, {most:.2%} may be")
    if world.name == "near-sound check":
        if issued < 0.95:
            promises.append(f"{world.name}: issued in {issued:.1%} of worlds, 95 % are promised")
        if coverage < 0.95 * oracle:
            promises.append(f"{world.name}: {coverage / oracle:.1%} of the oracle's coverage, 95 % are promised")
    return Found(
        world.name,
        world.told,
        count,
        world.cases,
        world.alpha,
        world.delta,
        issued,
        broken / count,
        *clopper_pearson(broken, count, 0.05),
        most,
        coverage,
        oracle,
        naive_broken / count,
        *clopper_pearson(naive_broken, count, 0.05),
        statistics.fmean(naive_coverages),
        tuple(promises),
    )


def _accepts(rungs: Sequence[RungSignals], policy: dict[str, Floors]) -> tuple[int, int]:
    """How many of these cases a policy accepts, and how many of them are wrong."""
    told = [policy.get(rung.name, Floors()).to_json() for rung in rungs]
    floors = np.array([[math.inf if each[verdict] is None else each[verdict] for verdict in STRATA] for each in told])
    end = walk(rungs, floors, used=[rung.name in policy for rung in rungs])
    return int(np.sum(end.accepted)), int(np.sum(end.wrong))


def on_intent(data: Clinc, alpha: float, draws: int, cases: int, seed: int, delta: float = 0.05) -> Found:
    """The sentences are the whole truth, and cases are drawn from them with replacement."""
    chance = np.random.default_rng([seed, round(1000 * alpha)])
    whole = len(data.texts)
    coverages, naive_coverages, broken, naive_broken = [], [], 0, 0
    for number in range(draws):
        progress(f"intent at {alpha:.0%}: {number:,} of {draws:,} draws")
        drawn = chance.integers(whole, size=cases)
        rungs = [rung.of(drawn) for rung in data.rungs]
        made = certify(rungs, keys(chance, cases), alpha=alpha, delta=delta)
        if isinstance(made, Certified):
            n, errors = _accepts(data.rungs, made.floors)
            coverages.append(n / whole)
            broken += errors > alpha * n
        n, errors = _accepts(data.rungs, dict(naive_threshold(rungs[0], alpha)))
        naive_coverages.append(n / whole)
        naive_broken += errors > alpha * n
    most = limit(delta, draws)
    n, errors = _accepts(data.rungs, dict(naive_threshold(data.rungs[0], alpha)))  # who knows the truth adds no margin
    return Found(
        "intent",
        f"{cases:,} drawn of the {whole:,} sentences of CLINC150's validation and test splits",
        draws,
        cases,
        alpha,
        delta,
        len(coverages) / draws,
        broken / draws,
        *clopper_pearson(broken, draws, 0.05),
        most,
        statistics.fmean(coverages) if coverages else 0.0,
        n / whole,
        naive_broken / draws,
        *clopper_pearson(naive_broken, draws, 0.05),
        statistics.fmean(naive_coverages),
        (f"intent at {alpha:.0%}: {broken / draws:.2%} of the certificates are wrong",)
        if broken / draws > most
        else (),
    )


def across_splits(data: Clinc, alpha: float, seed: int, delta: float = 0.05) -> dict[str, Any]:
    """A certificate from the validation split, on the test split: it need not hold there."""
    chance = np.random.default_rng([seed, 1])
    parts = [[rung.of(part) for rung in data.rungs] for part in (~data.test, data.test)]
    made = certify(parts[0], keys(chance, len(parts[0][0].wrong)), alpha=alpha, delta=delta)
    if not isinstance(made, Certified):
        return {"alpha": alpha, "delta": delta, "issued": False}
    n, errors = _accepts(parts[1], made.floors)
    low, high = clopper_pearson(errors, n, 0.05)
    inside, inside_errors = _accepts([rung.of(~data.out_of_scope[data.test]) for rung in parts[1]], made.floors)
    shares = [float(np.mean(data.out_of_scope[part])) for part in (~data.test, data.test)]
    return {
        "alpha": alpha,
        "delta": delta,
        "issued": True,
        "validation": {"accepted": made.n, "wrong": made.errors, "testing_cases": made.cases},
        "test": {"accepted": n, "wrong": errors, "risk": errors / n, "low": low, "high": high},
        "test_in_scope": {"accepted": inside, "wrong": inside_errors, "risk": inside_errors / inside},
        "out_of_scope": {"validation": shares[0], "test": shares[1]},
        "chance_of_so_many": 1 - binomial_tail(errors - 1, n, alpha) if errors else 1.0,
    }


def drift(data: Clinc, times: int, seed: int) -> dict[str, Any]:
    """Whether the drift test notices the other split, and is silent about another half of the same sentences."""
    chance = np.random.default_rng([seed, 2])
    confidences = data.rungs[0].confidence
    noticed, false = [], []
    for number in range(times):
        progress(f"drift: {number:,} of {times:,} orders of the sentences")
        noticed.append(_warns(confidences[~data.test], chance.permutation(confidences[data.test]), chance))
        mixed = chance.permutation(confidences)
        false.append(_warns(mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :], chance))
    after = [each for each in noticed if each is not None]
    warned = sum(each is not None for each in false)
    promises = []
    if len(after) < times:
        promises.append(f"drift: the test split was noticed in {len(after):,} of {times:,} orders only")
    if warned / times > limit(DRIFT_LEVEL, times):
        promises.append(f"drift: warned without one in {warned:,} of {times:,} splits")
    return {
        "level": DRIFT_LEVEL,
        "times": times,
        "noticed": len(after) / times,
        "after_median": statistics.median(after) if after else None,
        "after_most": max(after, default=None),
        "of": int(np.sum(data.test)),
        "false_warnings": warned / times,
        "false_of": len(confidences) - len(confidences) // 2,
        "promises": promises,
    }


def _warns(calibration: np.ndarray, live: np.ndarray, chance: np.random.Generator) -> int | None:
    """After how many sentences it warns."""
    edges, counts = histogram(calibration.tolist())
    test = DriftMartingale(edges, list(counts))
    for number, (confidence, luck) in enumerate(zip(live.tolist(), chance.random(len(live)).tolist(), strict=True), 1):
        if test.update(confidence, luck) >= 1 / DRIFT_LEVEL:
            return number
    return None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it is written with ``--json``."""
    worlds = 100 if options.quick else options.worlds
    found = [in_worlds(world, worlds, options.seed) for world in (*PROMISED, *ATTACKS)]
    split, drifted = [], None
    if options.data is not None:
        data = read_clinc(options.data)
        draws, times = (50, 5) if options.quick else (1_000, 200)
        found += [on_intent(data, alpha, draws, 4_300, options.seed) for alpha in (0.05, 0.02)]
        split = [across_splits(data, alpha, options.seed) for alpha in (0.05, 0.02)]
        drifted = drift(data, times, options.seed)
    broken = [each for row in found for each in row.promises] + (drifted["promises"] if drifted else [])
    return {
        "benchmark": "certificates",
        "machine": machine(),
        "seed": options.seed,
        "worlds": [asdict(row) for row in found],
        "splits": split,
        "drift": drifted,
        "broken": broken,
    }


def show(told: dict[str, Any]) -> None:
    """Print it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 170)
    table = Table(title=f"certificates ({told['machine']}, seed {told['seed']})", title_justify="left")
    headings = ("shape", "cases", "alpha", "issued", "wrong certificates", "may be", "coverage", "oracle's")
    for heading in (*headings, "naive: wrong", "coverage"):
        table.add_column(heading, justify="left" if heading == "shape" else "right", no_wrap=True)
    for row in told["worlds"]:
        colour = "[red]" if row["broken"] > row["limit"] else "[green]"
        table.add_row(
            row["shape"],
            f"{row['cases']:,}",
            f"{row['alpha']:.0%}",
            f"{row['issued']:.1%}",
            f"{colour}{row['broken']:.2%}[/] ({row['broken_low']:.2%} to {row['broken_high']:.2%})",
            f"{row['limit']:.2%}",
            f"{row['coverage']:.1%}",
            f"{row['oracle']:.1%}",
            f"{row['naive_broken']:.1%} ({row['naive_low']:.1%} to {row['naive_high']:.1%})",
            f"{row['naive_coverage']:.1%}",
        )
    console.print(table)
    console.print(
        f"Shares of {told['worlds'][0]['worlds']:,} worlds (intent: of the draws), with 95 % intervals; coverages are"
        " true ones, means over the issued. What the shapes are:"
    )
    for row in told["worlds"]:
        console.print(f"  {row['shape']}: {row['told']}", highlight=False)
    if told["drift"] is None:
        console.print(NO_DATA)
    for split in told["splits"]:
        if not split["issued"]:
            console.print(f"calibrated on the validation split at {split['alpha']:.0%}: refused")
            continue
        test, inside, shares = split["test"], split["test_in_scope"], split["out_of_scope"]
        console.print(
            f"calibrated on the validation split at {split['alpha']:.0%}, on the test split {test['wrong']:,} of"
            f" {test['accepted']:,} accepted are wrong: {test['risk']:.2%} ({test['low']:.2%} to {test['high']:.2%})."
            f" Out of scope are {shares['validation']:.1%} of the one and {shares['test']:.1%} of the other;"
            f" without these it is {inside['risk']:.2%}."
        )
    if told["drift"] is not None:
        each = told["drift"]
        console.print(
            f"drift (level {each['level']:g}): the test split was noticed in {each['noticed']:.1%} of {each['times']}"
            f" orders, after {each['after_median']} sentences (median; at most {each['after_most']}) of {each['of']:,};"
            f" another half of the same sentences was warned of in {each['false_warnings']:.1%} of"
            f" {each['times']} splits."
        )
    for sentence in told["broken"]:
        console.print(f"[red]broken: {sentence}")


def draw(told: dict[str, Any], path: Path) -> None:
    """Wrong certificates and wrong thresholds side by side, and what each accepts."""
    from .pictures import BLUE, GREY, ORANGE, figure_of, save

    rows = list(reversed(told["worlds"]))
    figure, (left, right) = figure_of(1, 2, width=10, height=1.2 + 0.34 * len(rows), sharey=True)
    places = np.arange(len(rows))
    for name, shift, colour, keys_of in (
        ("certificate", 0.14, BLUE, ("broken", "broken_low", "broken_high")),
        ("naive threshold", -0.14, ORANGE, ("naive_broken", "naive_low", "naive_high")),
    ):
        at, low, high = (np.array([100 * row[key] for row in rows]) for key in keys_of)
        left.errorbar(at, places + shift, xerr=[at - low, high - at], fmt="o", ms=4, lw=1.2, color=colour, label=name)
    allowed = [100 * row["delta"] for row in rows]
    left.plot(allowed, places, "|", color="black", ms=13, mew=1.3, label="delta: what is allowed")
    left.set(xlim=(-2, 102), xlabel="of all worlds, the true risk is above alpha (%)")
    left.set_yticks(places, [f"{row['shape']}; {row['cases']:,} cases, alpha {row['alpha']:.0%}" for row in rows])
    for place, row in zip(places, rows, strict=True):
        if row["issued"] >= 0.1:  # else there is hardly anything that a mean could be of
            right.plot(100 * row["coverage"], place + 0.14, "o", ms=4, color=BLUE)
        right.plot(100 * row["naive_coverage"], place - 0.14, "o", ms=4, color=ORANGE)
        right.text(104, place, f"issued {row['issued']:.1%}", fontsize=8, va="center", color=GREY)
    most = [100 * row["oracle"] for row in rows]
    right.plot(
        most, places, "|", color=GREY, ms=13, mew=1.5, label="the most that keeps the promise, by who knows the world"
    )
    right.set(xlim=(-2, 102), xlabel="accepted of new cases, mean of the issued (%)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    count = told["worlds"][0]["worlds"]
    save(figure, path, f"certificates and naive thresholds in {count:,} worlds of each shape, with 95 % intervals")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 when a promise is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.certificates", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with CLINC150's validation and test splits")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--quick", action="store_true", help="100 worlds of each shape: it shows that it works")
    parser.add_argument("--worlds", type=int, default=2_000, metavar="N", help="of each shape (default 2,000)")
    parser.add_argument("--seed", type=int, default=0, help="of all worlds (default 0)")
    options = parser.parse_args(arguments)
    told = measure(options)
    if options.picture is not None:
        draw(told, options.picture)
    if options.json:
        print(json.dumps(told))
    else:
        show(told)
    return int(bool(told["broken"]))


if __name__ == "__main__":
    raise SystemExit(main())
