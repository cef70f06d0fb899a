"""A threshold that was tested: calibrate a specialist without a verifier, use it, and see an alarm revoke it.

    pip install .[cpu,dev]
    python examples/certified.py

The model of `register_specialist.py` finds whole roots of equations, has learned those up to 9, and is as sure
beyond. Say that a check is too dear for every call: then it is calibrated on labelled equations, a few of which have
larger roots, and its certificate says how often accepted answers are wrong. A share of them is checked in service. Then
come more of the large ones than it was calibrated on; the audits notice, and from there on everything goes to the big
model. That one is simulated: it works the equations out, and no request leaves this machine.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brain import Brain, Price
from brain.testing import ScriptedModel, SimulatedModel, call
from specialists import Answer, CannotCertify, OnnxModel, Specialist, Watch, calibrate, specialist

HERE = Path(__file__).parent
ALPHA = 0.05
USUAL = 0.05
"""The share of equations with larger roots, in the calibration and at first in service."""

model = OnnxModel(HERE / "whole_root.onnx")


def solves(arguments: Mapping[str, Any], value: int) -> bool:
    """Put x into the equation. Stands for a check that is too dear for every call."""
    return value in roots(**arguments)


@specialist(audit=solves, timeout=30.0)
async def whole_root(
    b: Annotated[int, Field(ge=-1000, le=1000, description="the number before x")],
    c: Annotated[int, Field(ge=-250_000, le=250_000, description="the number that stands alone")],
) -> Answer[int]:
    """Find a whole root x of the equation x*x + b*x + c = 0."""
    out = await model.run(coefficients=np.array([[b, c]], dtype=np.float32))
    odds = np.exp(out["logits"][0] - out["logits"][0].max())
    best = int(odds.argmax())
    return Answer(best - 9, confidence=float(odds[best] / odds.sum()))


def equations(seed: str, large: float) -> Iterator[dict[str, int]]:
    """Equations drawn alike: with whole roots up to 9, and the share `large` of them with roots up to 12."""
    chance = random.Random(seed)
    while True:
        most = 12 if chance.random() < large else 9
        one, other = chance.randint(-most, most), chance.randint(-most, most)
        yield {"b": -(one + other), "c": one * other}


def roots(b: int, c: int) -> list[int]:
    """All whole roots."""
    return [x for x in range(-1000, 1001) if x * x + b * x + c == 0]


def is_right(arguments: dict[str, Any], expected: Any, value: int) -> bool:
    """Judges an answer in the calibration: an equation may have two roots."""
    return value in roots(**arguments)


def calibrated() -> Specialist[..., int]:
    """The specialist with its certificate."""
    rows = [{"input": equation} for equation in islice(equations("calibration", USUAL), 2000)]
    # There are few such equations, and the calls repeat them as the cases do: each row counts, as it was drawn.
    found = calibrate(whole_root, rows, alpha=ALPHA, correct=is_right, drawn="drawn")
    print(found.certificate.sentence(), "\n")
    return whole_root.with_certificate(found.certificate)


def big_model() -> SimulatedModel:
    """Stands for a large model that is always right, at a made-up price in US dollars per million tokens."""

    def solve(question: str) -> int:
        return roots(**json.loads(question)["arguments"])[0]

    return SimulatedModel(solve=solve, price=Price(input="0.40", output="1.60"), name="simulated-big-model")


async def serve(root: Specialist[..., int], watch: Watch, calls: Iterator[dict[str, int]], count: int) -> None:
    """Ask the same brain for `count` equations, and show by what right it answered."""
    by: Counter[str] = Counter()
    fallback = big_model()
    for _ in range(count):
        plan = ScriptedModel([call("whole_root", **next(calls)), "done"])  # stands for the model that plans
        brain = Brain(plan, specialists=[root], fallback=fallback, accept="certified", watch=watch)
        (outcome,) = (await brain.run("solve it")).calls
        by[outcome.accepted_by or "nothing"] += 1
    (state,) = watch.status()
    revoked = f"revoked after {state.alarm.audits} audits" if state.alarm else "holds"
    print(f"  {dict(by)}; audited {state.audits}, of them wrong {state.errors}; the certificate {revoked}")


async def run(root: Specialist[..., int]) -> None:
    watch = Watch(share=0.2)  # a fifth is audited, so that little traffic is enough to see it; in service take less
    print("Equations like those it was calibrated on:")
    await serve(root, watch, equations("service", USUAL), 500)
    print("Most of them with larger roots than usual:")
    await serve(root, watch, equations("shifted", 0.9), 500)
    print("What follows:")
    await serve(root, watch, equations("later", 0.9), 200)


def main() -> None:
    try:
        asyncio.run(run(calibrated()))
    except CannotCertify as refusal:
        sys.exit(str(refusal))


if __name__ == "__main__":
    main()
