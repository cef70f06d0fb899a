"""A specialist before a big model: what six ways to decide who answers cost, and what they get wrong.

Run: ``python -m tests.benchmarks.cascade [--data FOLDER] [--json] [--quick] [--picture FILE]``. Always the big model, a
traffic quota, a fixed threshold, the naive empirical threshold, a certificate's policy, and an oracle which knows where
the specialist is right, on the same cases. The big model is simulated: :class:`brain.testing.SimulatedModel` is asked
for every case at every accuracy, and its answers are kept. A call of the specialist costs 1, one of the big model the
price ratio; no clock is read. Recovered savings are (big minus policy) over (big minus oracle).

The cases are a made-up world, and with ``--data`` CLINC150's sentences, answered by ``intent``. Each of many rounds
draws a half to calibrate on, and as many cases as the other half has from it, with replacement, to measure on;
shown are means over rounds and the 2.5 % and 97.5 % quantiles. All policies see the same cases in a round.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brain.events import ModelRequest
from brain.testing import SimulatedModel
from specialists.ladder import Floors
from specialists.loops import run_sync
from specialists.thresholds import PROVEN, STRATA, Certified, RungSignals, certify

from .certificates import SMOOTH, keys, one
from .clinc import NO_DATA, progress, read_clinc
from .report import machine
from .worlds import UNKNOWN, Answers, World, naive_threshold

ACCURACIES = (0.8, 0.9, 0.95, 0.98, 1.0)
RATIOS = (3, 10, 100, 1000)
ALPHAS = (0.05, 0.02)
DELTA = 0.05
QUOTA, FLOOR = 0.5, 0.9
MOST_CASES = 8_600
COLOURS = ("#666666", "#56b4e9", "#cc79a7", "#e69f00", "#d55e00", "#009e73", "#0072b2", "#000000")
"""Of the policies, in order. Told apart by those who see few colours: Okabe and Ito, "Color universal design", 2008."""

Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Cases with what the specialist said, and for every accuracy whether the big model is right about each."""

    name: str
    told: str
    rung: RungSignals
    big: dict[float, Bools]


def ask_big(questions: Sequence[str], right: Sequence[str], seed: int) -> dict[float, Bools]:
    """Ask the simulated model about every case, at every accuracy."""
    answers = dict(zip(questions, right, strict=True))
    others = sorted(set(right))

    def wrong(question: str, answer: str) -> str:
        # The next label: chance has said already that it is wrong, and which wrong one it is counts for nothing.
        return others[(others.index(answer) + 1) % len(others)]

    async def ask(model: SimulatedModel, question: str) -> str:
        request = ModelRequest([{"role": "user", "content": question}])
        return (await model.ask(request, on_attempt=lambda attempt: None)).text or ""

    found = {}
    for accuracy in ACCURACIES:
        model = SimulatedModel(solve=answers.__getitem__, wrong=wrong, accuracy=accuracy, seed=seed)

        async def ask_all(model: SimulatedModel = model, accuracy: float = accuracy) -> list[bool]:
            told = []
            for number, (question, expected) in enumerate(zip(questions, right, strict=True)):
                progress(f"the simulated model of accuracy {accuracy:g}: {number:,} of {len(questions):,} questions")
                told.append(await ask(model, question) == expected)
            return told

        found[accuracy] = np.array(run_sync(ask_all))
    return found


def made_up(count: int, seed: int) -> Pool:
    """A world whose error falls with the score."""
    world = World("made up", "", one(Answers(UNKNOWN, SMOOTH)), cases=count)
    rung = world.draw(np.random.default_rng([seed, 7]))[0]
    questions = [f"case {number}" for number in range(count)]
    return Pool(
        "made-up world", f"{count:,} cases, error falls with the score", rung, ask_big(questions, questions, seed)
    )


def clinc(folder: Path, seed: int, count: int | None) -> Pool:
    """``intent`` on CLINC150. The right answer to an out-of-scope sentence is that it is one."""
    data = read_clinc(folder)
    chosen = np.arange(len(data.texts))
    if count is not None:
        chosen = np.sort(np.random.default_rng([seed, 8]).permutation(chosen)[:count])
    # One text that stands there twice is one question to the big model, so it has to have one answer.
    questions = [f"{number}: {data.texts[number]}" for number in chosen]
    mask = np.isin(np.arange(len(data.texts)), chosen)
    big = ask_big(questions, [data.right[number] for number in chosen], seed)
    return Pool("intent on CLINC150", f"{len(chosen):,} sentences of two splits", data.rungs[0].of(mask), big)


def accepts(rung: RungSignals, floors: Floors | None) -> Bools:
    """Which answers a policy accepts."""
    taken = rung.stratum == PROVEN
    if floors is not None:
        for place, verdict in enumerate(STRATA):
            floor = floors.to_json()[verdict]
            if floor is not None:
                mine = rung.stratum == place
                taken = taken | (mine if floor == 0 else mine & (rung.confidence >= floor))
    return taken


def in_the_top(confidence: NDArray[np.float64], share: float) -> Bools:
    """Which calls, in the order in which they come, are among the surest ``share`` of all that came before."""
    before: list[float] = []
    taken = np.zeros(len(confidence), bool)
    for number, value in enumerate(confidence.tolist()):
        taken[number] = bool(before) and bisect_left(before, value) >= (1 - share) * len(before)
        insort(before, value)
    return taken


def policies(calibration: RungSignals, live: RungSignals, chance: np.random.Generator) -> dict[str, Bools | None]:
    """What each policy accepts of the live cases; ``None``: the specialist is not asked at all."""
    found: dict[str, Bools | None] = {
        "always big": None,
        f"quota {QUOTA:.0%}": in_the_top(live.confidence, QUOTA),
        f"fixed {FLOOR:g}": live.confidence >= FLOOR,
    }
    for alpha in ALPHAS:
        found[f"naive {alpha:.0%}"] = accepts(live, naive_threshold(calibration, alpha)[calibration.name])
    for alpha in ALPHAS:
        made = certify([calibration], keys(chance, len(calibration.wrong)), alpha=alpha, delta=DELTA)
        policy = made.floors.get(calibration.name) if isinstance(made, Certified) else None
        found[f"certified {alpha:.0%}"] = None if policy is None else accepts(live, policy)
    return found | {"oracle": ~live.wrong}


def one_round(pool: Pool, chance: np.random.Generator) -> dict[str, dict[str, float]]:
    """The figures of every policy, on one draw of cases."""
    count = len(pool.rung.wrong)
    order = chance.permutation(count)
    calibration = pool.rung.of(order[: count // 2])
    at = chance.choice(order[count // 2 :], count - count // 2)
    live = pool.rung.of(at)
    found: dict[str, dict[str, float]] = {}
    taken_by = policies(calibration, live, chance)
    for name, taken in taken_by.items():
        local = np.zeros(len(at), bool) if taken is None else taken
        figures = {"coverage": float(np.mean(local))}
        wrong = int(np.sum(live.wrong & local))
        figures["wrong_accepts"] = wrong / max(1, int(np.sum(local)))
        for accuracy, right in pool.big.items():
            figures[f"accuracy_{accuracy:g}"] = float(np.mean(np.where(local, ~live.wrong, right[at])))
            figures[f"accuracy_change_{accuracy:g}"] = figures[f"accuracy_{accuracy:g}"] - float(np.mean(right[at]))
        for ratio in RATIOS:
            figures[f"cost_{ratio}"] = (0.0 if taken is None else 1.0) + ratio * (1 - float(np.mean(local)))
            most = ratio - 1 - ratio * float(np.mean(live.wrong))
            figures[f"recovered_{ratio}"] = (ratio - figures[f"cost_{ratio}"]) / most if most > 0 else math.nan
        found[name] = figures
    return found


def compare(pool: Pool, rounds: int, seed: int) -> dict[str, Any]:
    """Means and intervals over rounds."""
    chance = np.random.default_rng([seed, 9])
    found = []
    for number in range(rounds):
        progress(f"{pool.name}: round {number:,} of {rounds:,}")
        found.append(one_round(pool, chance))
    told = {}
    for name in found[0]:
        told[name] = {}
        for figure in found[0][name]:
            values = np.array([each[name][figure] for each in found])
            low, high = np.quantile(values, (0.025, 0.975))
            told[name][figure] = {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
    accuracy = {f"{each:g}": float(np.mean(right)) for each, right in pool.big.items()}
    local = float(np.mean(~pool.rung.wrong))
    return {
        "cases": pool.name,
        "told": pool.told,
        "rounds": rounds,
        "big_model": "simulated",
        "big_model_was_right": accuracy,
        "specialist_was_right": local,
        "policies": told,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it is written with ``--json``."""
    count, rounds = (2_000, 10) if options.quick else (MOST_CASES, 200)
    pools = [made_up(count, options.seed)]
    if options.data is not None:
        pools.append(clinc(options.data, options.seed, count if options.quick else None))
    return {
        "benchmark": "cascade",
        "machine": machine(),
        "seed": options.seed,
        "compared": [compare(pool, rounds, options.seed) for pool in pools],
    }


def show(told: dict[str, Any]) -> None:
    """Print two tables for each source of cases."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 190)

    def table(title: str, compared: dict[str, Any], columns: dict[str, str], digits: int) -> None:
        made = Table(title=title, title_justify="left")
        made.add_column("policy", no_wrap=True)
        for heading in columns:
            made.add_column(heading, justify="right", no_wrap=True)
        for name, figures in compared["policies"].items():
            cells = []
            for key in columns.values():
                each = figures[key]
                low, mean, high = (100 * each[part] for part in ("low", "mean", "high"))
                cells.append(f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
            made.add_row(name, *cells)
        console.print(made)

    for each in told["compared"]:
        where = f"{each['cases']} ({each['told']}; {each['rounds']} rounds; big model simulated)"
        columns = {"accepted": "coverage", "wrong of these": "wrong_accepts"}
        table(f"{where}, %", each, columns | {f"right, big {a:g}": f"accuracy_{a:g}" for a in ACCURACIES}, 1)
        table(f"recovered savings, {where}, %", each, {f"price ratio {r}": f"recovered_{r}" for r in RATIOS}, 0)
        table(
            f"price of 100 calls, {where}, in calls of the specialist",
            each,
            {f"price ratio {r}": f"cost_{r}" for r in RATIOS},
            0,
        )
        console.print(f"the specialist alone is right about {each['specialist_was_right']:.1%}")
    if len(told["compared"]) == 1:
        console.print(NO_DATA)


def draw(told: dict[str, Any], path: Path) -> None:
    """Savings over the price ratio, accuracy over the big model's, and wrong accepts, for each source of cases."""
    from .pictures import figure_of, save

    compared = told["compared"]
    figure, axes = figure_of(len(compared), 3, width=12, height=0.4 + 3.7 * len(compared), squeeze=False)
    for row, each in zip(axes, compared, strict=True):
        savings, accuracy, wrong = row
        names = list(each["policies"])
        for number, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            figures = each["policies"][name]
            style = {"color": colour, "lw": 1.3, "ls": "--" if name in ("oracle", "always big") else "-"}
            shift = 1 + 0.03 * (number - 3.5)

            def curve(on: Any, at: Sequence[float], keys_of: Sequence[str], label: str, figures=figures, style=style):  # type: ignore[no-untyped-def]
                low, mean, high = ([100 * figures[key][part] for key in keys_of] for part in ("low", "mean", "high"))
                spread = [np.subtract(mean, low).clip(0), np.subtract(high, mean).clip(0)]
                on.errorbar(at, mean, yerr=spread, label=label, marker=".", capsize=1.5, elinewidth=0.8, **style)

            if name != "always big":
                at = [ratio * shift for ratio in RATIOS]
                curve(savings, at, [f"recovered_{ratio}" for ratio in RATIOS], name)
            at = [100 * value + 0.12 * (number - 3.5) for value in ACCURACIES]
            curve(accuracy, at, [f"accuracy_{value:g}" for value in ACCURACIES], name)
            if name not in ("always big", "oracle"):
                curve(wrong, [number], ["wrong_accepts"], name)
        savings.set(
            xscale="log", xlabel="price ratio, big model simulated : specialist", ylabel="recovered savings (%)"
        )
        savings.set_xticks(RATIOS, [str(ratio) for ratio in RATIOS])
        savings.set_ylim(bottom=max(savings.get_ylim()[0], -60))
        accuracy.set(xlabel="accuracy of the big model, simulated (%)", ylabel="answers that are right (%)")
        accuracy.legend(fontsize=7, frameon=False, ncols=2)
        for alpha in ALPHAS:
            wrong.axhline(100 * alpha, color="black", ls=":", lw=1)
            wrong.text(0.6, 100 * alpha, f"alpha {alpha:.0%}", fontsize=7, va="bottom")
        wrong.set_xticks(range(1, len(names) - 1), names[1:-1], rotation=30, ha="right")
        wrong.set(ylabel="wrong of what is accepted (%)", ylim=(0, None))
        accuracy.set_title(f"{each['cases']}: {each['told']}", fontsize=9)
    rounds = compared[0]["rounds"]
    save(
        figure,
        path,
        f"who answers, the specialist or the big model? big model simulated; {rounds} rounds, 95 % intervals",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cascade", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with CLINC150's validation and test splits")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--quick", action="store_true", help="few cases and rounds: it shows that it works")
    parser.add_argument("--seed", type=int, default=0, help="of cases, rounds and the big model (default 0)")
    options = parser.parse_args(arguments)
    told = measure(options)
    if options.picture is not None:
        draw(told, options.picture)
    if options.json:
        print(json.dumps(told))
    else:
        show(told)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
