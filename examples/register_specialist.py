"""Registering a new specialist from an ONNX file: in code, and as a folder that is loaded by its path.

    pip install .[cpu,dev]
    python examples/register_specialist.py

The model is `whole_root.onnx` beside this file, five kilobytes: given b and c it names a whole number x with
x*x + b*x + c = 0. It was trained on whole roots from -9 to 9, is sure of itself also where it is wrong, and its every
answer is checked by putting x into the equation. `equations.jsonl` holds labelled cases. Needs no key and no network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

import specialists
from brain import Abstained, Brain
from specialists import Answer, OnnxModel, UntrustedFolder, Verdict, scaffold, specialist
from specialists.card import seal
from specialists.evaluation import evaluate, read_rows

HERE = Path(__file__).parent
CASES = HERE / "equations.jsonl"

# Part 1: in code. The file is opened at the first call, and only if it is the one with this hash.
model = OnnxModel(HERE / "whole_root.onnx", sha256="c2aaf3958b36a9d1fb3aa9d77bce31391cdd052d34a9d518dae46df4b8851a72")


def solves(arguments: Mapping[str, Any], value: int) -> Verdict:
    """The check. It looks at the question and the value only, never at the model; it cannot be wrong either way."""
    left = value * value + arguments["b"] * value + arguments["c"]
    return Verdict.passed() if left == 0 else Verdict.failed(f"x = {value} gives {left}, not 0")


@specialist(verify=solves, sound=True, complete=True, timeout=30.0)
async def whole_root(
    b: Annotated[int, Field(ge=-18, le=18, description="the number before x")],
    c: Annotated[int, Field(ge=-81, le=81, description="the number that stands alone")],
) -> Answer[int]:
    """Find a whole root x of the equation x*x + b*x + c = 0."""
    out = await model.run(coefficients=np.array([[b, c]], dtype=np.float32))
    odds = np.exp(out["logits"][0] - out["logits"][0].max())
    best = int(odds.argmax())
    return Answer(best - 9, confidence=float(odds[best] / odds.sum()))


def ask(brain: Brain[str], request: str) -> None:
    """One request and what became of it."""
    print(f"  {request}")
    try:
        result = brain.run_sync(request)
    except Abstained as error:
        print(f"    abstained: {error.reason}")
        return
    call = result.calls[-1]
    print(f"    {call.value}, answered by {call.answered_by}, accepted because {call.accepted_by}")


def in_code() -> None:
    """The specialist above: alone, measured, and used by a brain."""
    print("in code")
    outcome = whole_root.solve_sync(b=-5, c=6)
    print(f"  whole_root(b=-5, c=6): {outcome.value}, accepted because {outcome.accepted_by}")
    result = evaluate(
        whole_root, read_rows(CASES), correct=lambda arguments, _, x: solves(arguments, x).status == "passed"
    )
    print(
        f"  {CASES.name}: {result.correct} of {result.n} right and accepted, {result.wrong_accepted} wrong and accepted"
    )
    brain = Brain(specialists=[whole_root])
    ask(brain, "Find a whole root of the equation with b = 2 and c = -63")
    ask(brain, "Find a whole root of the equation with b = 0 and c = 1")  # there is none, and it says so


def as_folder(folder: Path) -> None:
    """The same model as a folder with a card, which can be copied, checked, and installed with pip."""
    print("as a folder")
    # What `brain specialists new` writes: code, card, cases and tests to start from. Its name is the folder's name.
    scaffold.create(folder)
    (folder / "model.onnx").write_bytes(model.path.read_bytes())
    (folder / "cases.jsonl").write_bytes(CASES.read_bytes())
    card = seal(folder)  # after each change: the hash of every file goes into the card
    print(f"  {card.name} {card.version}: {', '.join(sorted(card.files))}")

    try:
        specialists.load(folder)
    except UntrustedFolder as error:
        print(f"  not yet: {error}")
    loaded = specialists.load(folder, trust=True)  # this folder is ours
    ask(Brain(specialists=[loaded]), f"{loaded.name} with b = -3 and c = -10")

    with (folder / "model.onnx").open("ab") as file:
        file.write(b"one byte too many")
    try:
        specialists.load(folder, trust=True)
    except specialists.ModelRejected as error:
        print(f"  after a change nobody sealed: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A new specialist from an ONNX file, in code and as a folder.")
    parser.add_argument("--folder", type=Path, help="where to write the folder; by default somewhere temporary")
    arguments = parser.parse_args()
    in_code()
    if arguments.folder is not None:
        as_folder(arguments.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            as_folder(Path(temporary) / "root_finder")


if __name__ == "__main__":
    main()
