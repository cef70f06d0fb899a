"""The function and its model. The graph turns hashes into calibrated probabilities; here the best label is read off."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from specialists import Answer, Classification, OnnxModel, Verdict, specialist

from .features import encode

__all__ = ["FLOOR", "intent", "labels", "model"]

FLOOR = 0.81
"""Under this confidence a message counts as out of scope. Nine in ten in-scope texts of CLINC150's
validation split reach it."""

_folder = Path(__file__).parent

model = OnnxModel(_folder / "model.onnx")


@lru_cache(maxsize=1)
def labels() -> tuple[str, ...]:
    """The 150 labels, in the order of the graph's output."""
    return tuple((_folder / "labels.txt").read_text("utf-8").split())


def is_label(arguments: Mapping[str, Any], value: Classification) -> Verdict:
    """Complete, not sound: it fails what is no label at all, whoever answered, and cannot tell which label is right."""
    if value.label in labels():
        return Verdict.passed()
    return Verdict.failed(f"{value.label[:40]!r} is not one of the {len(labels())} labels")


# A model that is asked in the classifier's place must know which labels there are.
Intent = Annotated[
    Classification,
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(labels())}},
            "required": ["label"],
            "additionalProperties": False,
        }
    ),
]


@specialist(verify=is_label, complete=True, min_confidence=FLOOR, timeout=5.0)
async def intent(
    text: Annotated[str, Field(min_length=1, description="The customer's message, in English, as it was written.")],
) -> Answer[Intent]:
    """Classify a customer message by intent, to route it: banking, credit cards, travel, home, work, dining, cars,
    small talk and requests to an assistant, as one label of 150 such as `transfer`, `card_declined` or `book_flight`.
    """
    out = await model.run(**encode([text]))
    probabilities = out["probabilities"][0]  # float32 [150], sums to 1; near 1/150 each where nothing fits
    best = int(probabilities.argmax())
    return Answer(Classification(label=labels()[best]), confidence=float(probabilities[best]))
