"""Specialists made from a card alone: the card names the task, and no code of the folder is needed, so none is run.

Whose model runs where is not decided here: a model is handed in, in this process or in a child.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field, WithJsonSchema

from .answers import Answer, Classification
from .card import CARD, Card
from .define import Specialist
from .errors import CardError, ModelFailed, ModelRejected
from .files import FileProblem, read_plain
from .verifiers import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Encode", "Runs", "from_card", "model_file", "read_encoding", "read_labels"]

Encode = Callable[[list[str]], "dict[str, NDArray[Any]]"]
"""From texts to a model's inputs."""

MOST_BYTES = 4 * 1024**2
MOST_TOKENIZER_BYTES = 32 * 1024**2
MOST_LABELS, LONGEST_LABEL = 10_000, 200


class Runs(Protocol):
    """What a task asks of a model: ``OnnxModel`` and ``IsolatedModel`` have it."""

    async def run(self, /, **inputs: Any) -> dict[str, NDArray[Any]]:
        """Arrays by output name for arrays by input name."""
        ...


def model_file(card: Card) -> tuple[str, str | None]:
    """The name of the task's model file inside the folder, and its sha256 as the card lists it."""
    task = card.text_classification
    assert task is not None
    return task.model, card.files.get(task.model)


def from_card(folder: Path, card: Card, model: Runs) -> Specialist[[str], Any]:
    """The specialist that the card describes: a text in, one of the labels out, with the model's probability for it.

    Raises :class:`CardError` or :class:`ModelRejected` when the labels cannot be used.
    """
    task = card.text_classification
    assert task is not None
    labels = read_labels(folder, card)
    encode = read_encoding(folder, card)
    known = frozenset(labels)
    about = task.text or "The text to classify, as it was written."

    def is_label(arguments: Mapping[str, Any], value: Classification) -> Verdict:
        """Complete, not sound: it fails what is no label at all, and cannot tell which label is right."""
        if value.label in known:
            return Verdict.passed()
        return Verdict.failed(f"{value.label[:40]!r} is not one of the {len(labels)} labels")

    async def classify(text: str) -> Answer[Classification]:
        output = await model.run(**encode([text]))
        if task.output not in output:
            raise ModelFailed(f"{card.name}: its model has no output {task.output!r}; it has {', '.join(output)}")
        probabilities = output[task.output]
        if probabilities.shape != (1, len(labels)):
            have = list(probabilities.shape)
            raise ModelFailed(f"{card.name}: its model's {task.output!r} has the shape {have}, not [1, {len(labels)}]")
        best = int(probabilities[0].argmax())
        return Answer(Classification(label=labels[best]), confidence=float(probabilities[0, best]))

    # A model that is asked in the classifier's place must know which labels there are.
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    classify.__annotations__ = {
        "text": Annotated[str, Field(min_length=1, description=about)],
        "return": Answer[Annotated[Classification, WithJsonSchema(schema)]],
    }
    classify.__doc__ = card.description
    classify.__name__ = classify.__qualname__ = card.name
    return Specialist(
        classify,
        name=card.name,
        description=card.description,
        verify=is_label,
        complete=True,
        min_confidence=task.min_confidence,
        timeout=task.timeout,
    )


def read_encoding(folder: Path, card: Card) -> Encode:
    """How the card has texts read: what makes the model's inputs of them.

    Raises as :func:`read_labels` does, and :class:`MissingRuntime` when a library is not installed.
    """
    from .texts import Tokens, encode

    task = card.text_classification
    assert task is not None
    if task.tokenizer is None:
        return encode
    data = _read_listed(folder, card, task.tokenizer, "tokenizer", MOST_TOKENIZER_BYTES)
    return Tokens(data, most=task.max_tokens, name=str(folder / task.tokenizer)).encode


def _read_listed(folder: Path, card: Card, name: str, what: str, limit: int) -> bytes:
    """The bytes of a file of the folder, which are those that the card lists."""
    import hashlib

    try:
        data = read_plain(name, within=folder, limit=limit)
    except FileProblem as problem:
        raise CardError(f"{folder / CARD}: the {what} {name!r}: it {problem}") from None
    if hashlib.sha256(data).hexdigest() != card.files.get(name):
        raise ModelRejected(f"{folder / name} is not the file the card names (its sha256 differs); get a clean copy")
    return data


def read_labels(folder: Path, card: Card) -> tuple[str, ...]:
    """The labels of a text classification, in the order of its model's output, from the bytes that the card lists.

    Raises :class:`ModelRejected` when they are not those bytes, :class:`CardError` when they are no labels.
    """
    task = card.text_classification
    assert task is not None
    place = f"{folder / task.labels}"
    data = _read_listed(folder, card, task.labels, "labels", MOST_BYTES)
    try:
        labels = tuple(line.strip() for line in data.decode("utf-8").splitlines() if line.strip())
    except UnicodeDecodeError:
        raise CardError(f"{place} is not UTF-8 text; write one label a line") from None
    if not 2 <= len(labels) <= MOST_LABELS:
        raise CardError(f"{place} has {len(labels)} labels; a classifier has 2 to {MOST_LABELS:,}, one a line")
    if len(set(labels)) != len(labels):
        raise CardError(f"{place} has a label twice; each stands on one line")
    wrong = next((label for label in labels if len(label) > LONGEST_LABEL or not label.isprintable()), None)
    if wrong is not None:
        raise CardError(f"{place}: {wrong[:40]!r} is no label: up to {LONGEST_LABEL} printable characters")
    return labels
