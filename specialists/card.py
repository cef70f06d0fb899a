"""``specialist.toml``: what a folder claims, with the hash of every file. It imports none of the folder's code.

A hash proves that a file is the one the card was written for; it does not prove that the card can be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import CardError, ModelRejected
from .files import NOT_A_FILE, FileProblem, is_plain_name, open_plain, read_plain
from .signatures import problems_of

__all__ = [
    "CARD",
    "Card",
    "Measured",
    "ModelFrom",
    "TextClassification",
    "file_hash",
    "file_problems",
    "listed_files",
    "read_card",
    "seal",
    "verify_files",
]

CARD = "specialist.toml"

NOT_LISTED = {CARD, "certificate.json", "README.md"}
"""The card cannot hold its own hash; the certificate names the digest of the rest; the README is prose."""

MOST_BYTES = 256 * 1024
"""A card is a page, not a book."""
MOST_DOTS = 200
"""In one line. Reading a key of many parts takes the square of their number, so a short card could take minutes."""
MOST_SOURCE_BYTES = 16 * 1024**2
_NO_NAME = "is no name for a file on every system (it has a backslash, a colon or '..')"

_LITTER = re.compile(r"^(\..*|__pycache__|.*\.egg-info|build|dist)$")


def _inside(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("give the name of a file in the folder, with / and without ..")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
"""A path inside the folder."""


class Measured(BaseModel):
    """One measured figure, beside the command that makes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    value: float
    n: int | None = None
    on: str | None = None
    command: str | None = None


class TextClassification(BaseModel):
    """The table ``[text_classification]``: everything that is needed to classify texts without any code.

    ``model``: the ONNX file, with the inputs that ``features`` makes. ``output``: the graph's output with one
    probability for each label, float [texts, labels]. ``labels``: a file with one label a line, in the order of that
    output. ``features``: how a text becomes numbers, by :mod:`specialists.texts`: ``hashed-ngrams``, or ``tokenizer``,
    and then ``tokenizer`` is a file as Hugging Face's library writes it, of whose tokens a text has up to
    ``max_tokens``. ``min_confidence``: the floor. ``timeout``: seconds for one text. ``text``: what the text is, for
    whoever asks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: FileName = "model.onnx"
    output: Annotated[str, Field(min_length=1, max_length=200)] = "probabilities"
    labels: FileName = "labels.txt"
    features: Literal["hashed-ngrams", "tokenizer"]
    tokenizer: FileName | None = None
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    min_confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    text: str | None = None

    @model_validator(mode="after")
    def _tokenizer_if_wanted(self) -> Self:
        if (self.features == "tokenizer") != (self.tokenizer is not None):
            raise ValueError('tokenizer = "FILE" and features = "tokenizer" go together')
        return self


class ModelFrom(BaseModel):
    """The table ``[model]``: this folder's code asks the model of a bundled specialist, and has none of its own.

    ``from``: the specialist's name. ``sha256``: of its ``model.onnx``, in hex: with any other the folder is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(alias="from", pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Card(BaseModel):
    """What ``specialist.toml`` says.

    Either ``function`` names the specialist in the folder's code, or ``task`` says what it does without any code, and a
    table of that name how. ``function``, ``correct`` and ``generate`` are ``module:name`` inside the folder;
    ``generate`` makes cases: from a seed, an iterator over rows like those of a file of cases. ``files`` maps each
    file's path inside the folder to its sha256 in hex.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    version: str
    description: str
    license: str | None = None
    function: Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+$")] | None = None
    task: Literal["text-classification"] | None = None
    text_classification: TextClassification | None = None
    correct: Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+$")] | None = None
    generate: Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+$")] | None = None
    data: str | None = None
    command: str | None = None
    parameters: int | None = None
    precision: Literal["float32", "float16", "int8"] | None = None
    measured: tuple[Measured, ...] = ()
    model: ModelFrom | None = None
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}

    @model_validator(mode="after")
    def _function_or_task(self) -> Self:
        if (self.function is None) == (self.task is None):
            raise ValueError("give either function = ... or task = ..., as it has code or none")
        if self.task is None and self.text_classification is not None:
            raise ValueError('the table [text_classification] wants task = "text-classification"')
        if self.task is not None and self.text_classification is None:
            raise ValueError(f"the task {self.task} wants the table [{self.task.replace('-', '_')}]")
        if self.task is not None and (self.correct is not None or self.generate is not None):
            raise ValueError("correct and generate name functions, and a folder with a task has no code")
        if self.task is not None and self.model is not None:
            raise ValueError("the table [model] is for a folder with code; one with a task brings its own model")
        return self


def read_card(folder: Path) -> Card:
    """Read the card of ``folder``. Raises :class:`CardError` when there is none or it is not a card."""
    path = folder / CARD
    if not folder.is_dir():
        raise CardError(f"there is no folder {str(folder)!r}")
    if not os.path.lexists(path):
        raise CardError(
            f"the folder {str(folder)!r} has no {CARD}; `brain specialists new NAME` writes one to start from"
        )
    try:
        text = read_plain(CARD, within=folder, limit=MOST_BYTES)
    except FileProblem as problem:
        raise CardError(f"{path} {problem}") from None
    if any(line.count(b".") > MOST_DOTS for line in text.splitlines()):
        raise CardError(f"{path} has a line with more than {MOST_DOTS} dots; break it into several")
    try:
        data: dict[str, Any] = tomllib.loads(text.decode("utf-8"))
        return Card.model_validate(data)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        raise CardError(f"{path}: {'; '.join(problems_of(error))}") from None


def file_hash(path: Path, *, within: Path | None = None, hard_links: bool | None = None) -> str:
    """The sha256 of a file, in hex. Raises :class:`specialists.files.FileProblem`; see there for the arguments."""
    with open_plain(path, within=within, hard_links=hard_links) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed_files(folder: Path) -> Iterator[str]:
    """Paths inside ``folder`` whose hash belongs in the card, sorted, with ``/`` on every system."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        # A link to a folder is listed, and refused: code could be imported through it.
        folder_itself = path.is_dir() and not path.is_symlink()
        if folder_itself or any(_LITTER.match(part) for part in parts) or (len(parts) == 1 and parts[0] in NOT_LISTED):
            continue
        yield "/".join(parts)


def file_problems(
    folder: Path, card: Card, *, hard_links: bool | None = None, sources: dict[str, bytes] | None = None
) -> Iterator[tuple[str, str]]:
    """Each file that is not as the card says, with what is wrong with it; nothing when the folder is the card's.

    Each file is opened once, as :func:`specialists.files.open_plain` does it, which also explains ``hard_links``.
    ``sources``: is given the bytes of each Python file that is as the card says, by its name in the card.
    """
    present = set(listed_files(folder))
    for name in sorted(card.files):
        if name not in present:
            yield name, f"the card lists {name!r}, which is not in the folder"
        elif problem := _problem(folder, name, card.files[name], hard_links, sources):
            yield name, f"{name!r} {problem}"
    for name in sorted(present - set(card.files)):
        yield name, f"{name!r} is not listed in the card"


def _problem(
    folder: Path, name: str, digest: str, hard_links: bool | None, sources: dict[str, bytes] | None
) -> str | None:
    if not is_plain_name(name):
        return _NO_NAME
    try:
        if sources is not None and name.endswith(".py"):
            source = read_plain(name, within=folder, limit=MOST_SOURCE_BYTES, hard_links=hard_links)
            if hashlib.sha256(source).hexdigest() == digest:
                sources[name] = source
                return None
        elif file_hash(Path(name), within=folder, hard_links=hard_links) == digest:
            return None
    except FileProblem as problem:
        return "is not a plain file" if str(problem) == NOT_A_FILE else str(problem)
    return "is not the file the card names (its sha256 differs)"


def verify_files(folder: Path, card: Card, *, hard_links: bool | None = None) -> dict[str, bytes]:
    """Check that the folder holds the listed files with the listed hashes, and no others.

    The result is the source of its Python files by their names in the card: what is imported of a folder comes from
    these bytes, so that nobody can exchange a file between this check and the import. Other files are read again by
    the folder's own code; a model is then checked once more, over the bytes that are loaded.

    Raises :class:`ModelRejected` that names the first file that differs.
    """
    sources: dict[str, bytes] = {}
    for _, problem in file_problems(folder, card, hard_links=hard_links, sources=sources):
        remedy = f"get a clean copy, or, if the change is yours, run `brain specialists seal {folder}`"
        raise ModelRejected(f"{card.name}: {problem}; {remedy}")
    return sources


def seal(folder: Path, *, model: str | None = None) -> Card:
    """Write the hashes of the folder's files into its card, and return it. The rest of the card stays as it is.

    ``model``: the sha256 that the table ``[model]`` is to name from now on.
    """
    card = read_card(folder)
    path = folder / CARD
    lines = []
    for name in listed_files(folder):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise CardError(f"{folder / name} is not a plain file; put the file itself there, or take it away")
        if not is_plain_name(name):
            raise CardError(f"{folder}: {name!r} {_NO_NAME}; give it another")
        try:
            digest = file_hash(Path(name), within=folder)
        except FileProblem as problem:
            raise CardError(f"{folder / name} {problem}") from None
        lines.append(f'{json.dumps(name, ensure_ascii=False)} = "{digest}"')
    head = re.split(r"^\[files\]", path.read_text("utf-8"), maxsplit=1, flags=re.MULTILINE)[0].rstrip("\n")
    if model is not None and card.model is not None:
        head = head.replace(card.model.sha256, model)
        card = card.model_copy(update={"model": card.model.model_copy(update={"sha256": model})})
    text = "\n".join([head, "", "[files]", *lines, ""])
    try:
        kept = Card.model_validate(tomllib.loads(text)).model_copy(update={"files": card.files}) == card
    except (tomllib.TOMLDecodeError, ValidationError):
        kept = False
    if not kept:
        raise CardError(f"{path}: the table [files] must stand last, and file names be plain text")
    path.write_text(text, "utf-8")
    return read_card(folder)
