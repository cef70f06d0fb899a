"""Folders of specialists that tests make: with code that leaves a trace when it runs, or without any code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from specialists.card import CARD, seal

from .conftest import save

CODE = """\
from pathlib import Path
Path({canary!r}).write_text("the code ran")

from specialists import Verdict, specialist

def verify(arguments, value):
    return Verdict.passed() if value == arguments["number"] * 2 else Verdict.failed("not the double")

@specialist(verify=verify, sound=True, complete=True)
def doubler(number: int) -> int:
    \"\"\"Twice a number.\"\"\"
    return number * 2
"""

CARD_OF_CODE = """\
format = 1
name = "doubler"
version = "0.1.0"
description = "Twice a number."
function = "code:doubler"
"""

CARD_OF_TASK = """\
format = 1
name = "mood"
version = "0.1.0"
description = "Says whether a text is glad or sad."
task = "text-classification"

[text_classification]
features = "hashed-ngrams"
min_confidence = 0.6
"""

TASK_CASES = """\
{"input": {"text": "so very happy"}, "expected": {"label": "glad"}}
{"input": {"text": "such an awful day"}, "expected": {"label": "sad"}}
{"input": {"text": "a stone"}, "expected": null}
"""


def with_code(folder: Path) -> Path:
    """A folder whose code writes ``canary`` beside it when it is imported."""
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(CODE.format(canary=str(folder.parent / "canary")))
    rows = [f'{{"input": {{"number": {n}}}, "expected": {2 * n}}}\n' for n in range(1, 6)]
    (folder / "cases.jsonl").write_text("".join(rows))
    (folder / CARD).write_text(CARD_OF_CODE)
    seal(folder)
    return folder


def of_task(folder: Path, card: str = CARD_OF_TASK, labels: str = "glad\nsad\nother\n") -> Path:
    """A folder without code: a text with the word ``happy`` is glad, one with ``awful`` is sad, else nobody knows."""
    from specialists.texts import features

    folder.mkdir(parents=True)
    value = helper.make_tensor_value_info
    inputs = [value(kind, TensorProto.INT64, ["n", f"{kind}_length"]) for kind in ("words", "pairs", "chars")]
    nodes, constants = [], []
    scores = []
    for number, word in enumerate(("happy", "awful")):
        constants.append(numpy_helper.from_array(np.array([[features(word)["words"][0]]], np.int64), f"hash{number}"))
        nodes += [
            helper.make_node("Equal", ["words", f"hash{number}"], [f"equal{number}"]),
            helper.make_node("Cast", [f"equal{number}"], [f"cast{number}"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", [f"cast{number}"], [f"found{number}"], axes=[1], keepdims=1),
        ]
        scores.append(f"found{number}")
    constants += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("zero", 0.0), ("six", 6.0))]
    nodes += [
        helper.make_node("Mul", [scores[0], "zero"], ["nothing"]),
        helper.make_node("Concat", [*scores, "nothing"], ["both"], axis=1),
        helper.make_node("Mul", ["both", "six"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    outputs = [value("probabilities", TensorProto.FLOAT, ["n", 3])]
    save(folder / "model.onnx", nodes, inputs, outputs, constants)
    (folder / "labels.txt").write_text(labels)
    (folder / "cases.jsonl").write_text(TASK_CASES)
    (folder / CARD).write_text(card)
    seal(folder)
    return folder
