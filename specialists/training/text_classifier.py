"""``brain specialists train text-classifier``: from labelled texts to the folder of a specialist, without any code.

Data is ``label<TAB>text``. The label ``oos`` marks texts that fit no label. A part of the rows chooses the epoch, the
temperature and the floor, another only measures; both are held out of the data unless files are given for them.
The bundled ``intent`` is made by this. PyTorch is imported when a network is to be trained, after the data was
looked through.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from specialists import CasesError, MissingRuntime, OnnxModel, ScaffoldError, SpecialistError
from specialists.checking import check
from specialists.evaluation import read_rows
from specialists.onnx import set_threads
from specialists.texts import KINDS, encode, tokens
from specialists.training import text_data, text_folder
from specialists.training.text_data import Parts, Rows
from specialists.training.text_figures import Figures, ask, choose_floor, measure, weakest
from specialists.training.text_noise import make_out_of_scope, misspell
from specialists.training.text_watch import Epoch, Watch

if TYPE_CHECKING:
    from specialists.training.text_encoder import Encoder
    from specialists.training.text_training import Fitted, Material, Plan

__all__ = ["FORMAT", "Settings", "Trained", "train"]

FORMAT = 1
"""Version of :meth:`Trained.to_json`."""
OUT_OF_SCOPE = "oos"
FEWEST = 12
"""Different texts in scope, at least: with fewer nothing is left to choose and to measure by."""
MADE_SHARE, FEWEST_MADE, MOST_MADE = 4 / 3, 1_000, 20_000
MADE_WORDS, TYPED_WORDS = 400_000, 800_000
"""How many words of texts are made in all: long texts make fewer of them."""
RATE, HEAD_RATE = 3e-3, 1e-3
MOST_MADE_VECTORS = 4_000
"""An encoder takes milliseconds for each text."""
EXTRA = "pip install 'brain-specialists[train]'"


@dataclass(frozen=True)
class Settings:
    """What is trained, and how.

    ``data``, ``validation``, ``test``: files of ``label<TAB>text``. ``encoder``: the folder of a sentence encoder.
    ``out_of_scope``: the label of texts that fit none. ``minutes``: the most that the training itself takes.
    ``description``, ``text``, ``license`` and ``source`` are for the card; ``cases``: a file to put into the folder in
    place of a few held-out texts.
    """

    data: Path
    out: Path
    validation: Path | None = None
    test: Path | None = None
    encoder: Path | None = None
    name: str | None = None
    out_of_scope: str = OUT_OF_SCOPE
    seed: int = 0
    epochs: int | None = None
    minutes: float = 45.0
    threads: int = 1
    description: str | None = None
    text: str | None = None
    license: str | None = None
    source: str | None = None
    cases: Path | None = None

    def command(self, *, here: bool = False) -> str:
        """The command line that makes the same model; without ``here``, files by their names alone."""

        def shown(path: Path) -> str:
            return str(path) if here else path.resolve().name

        words = [text_folder.COMMAND, "--data", shlex.quote(shown(self.data))]
        for option, path in (("validation", self.validation), ("test", self.test), ("encoder", self.encoder)):
            if path is not None:
                words += [f"--{option}", shlex.quote(shown(path))]
        words += ["--out", shlex.quote(shown(self.out))]
        if self.out_of_scope != OUT_OF_SCOPE:
            words += ["--out-of-scope", shlex.quote(self.out_of_scope)]
        words += ["--seed", str(self.seed)]
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        if self.threads != 1:
            words += ["--threads", str(self.threads)]
        if here:
            for option in ("name", "description", "text", "license", "source", "cases"):
                if getattr(self, option) is not None:
                    words += [f"--{option}", shlex.quote(str(getattr(self, option)))]
            if self.minutes != Settings.minutes:
                words += ["--minutes", f"{self.minutes:g}"]
        return " ".join(words)


@dataclass
class Trained:
    """What came of it. ``measured``: ``None`` when no text was left for it. ``passed``: of the folder's check."""

    name: str
    folder: Path
    labels: int
    fitted: int
    chosen: int
    floor: float
    temperature: float
    epochs: list[Epoch]
    best: int
    measured: Figures | None
    measured_on: str | None
    bytes: int
    parameters: int
    passed: bool
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "name": self.name, "folder": str(self.folder), "labels": self.labels, "fitted": self.fitted,
            "chosen": self.chosen, "floor": self.floor, "temperature": round(self.temperature, 4),
            "epochs": [each._asdict() for each in self.epochs], "best_epoch": self.best,
            "measured": None if self.measured is None else self.measured.to_json(), "measured_on": self.measured_on,
            "bytes": self.bytes, "parameters": self.parameters, "passed": self.passed, "problems": self.problems,
            "notes": self.notes, "format": FORMAT,
        }  # fmt: skip


class _Made(NamedTuple):
    """A trained model's file, and how texts become its inputs."""

    model: bytes
    fitted: Fitted
    encoder: Encoder | None
    parameters: int


def train(settings: Settings, *, resume: bool = False, force: bool = False, watch: Watch | None = None) -> Trained:
    """Train, export, measure, and write the folder ``settings.out``.

    Raises:
        CasesError: the data cannot be learned from; the message names file and line.
        ScaffoldError: the folder holds something already, or its name is no specialist's.
        MissingRuntime: PyTorch, or another package that training needs, is not installed.
        Stopped: it was told to stop, and has left a checkpoint.
    """
    watch = watch or Watch()
    name = _name(settings)
    with watch.listening():
        data = _read(settings)
        _require()
        encoder = _encoder(settings)
        workshop = text_folder.claim(settings.out, resume, force)
        log = workshop / "progress.log"
        shown = watch.say

        def say(line: str) -> None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            shown(line)

        watch.say = say
        try:
            return _train(settings, name, data, encoder, workshop, resume, watch)
        finally:
            watch.say = shown


class _Data(NamedTuple):
    """What was read. ``key``: the hashes of the files."""

    labels: list[str]
    parts: Parts
    notes: list[str]
    sha256: str
    key: list[str]
    rows: int
    measured_on: str
    cases: str | None


def _train(
    settings: Settings, name: str, data: _Data, encoder: Encoder | None, workshop: Path, resume: bool, watch: Watch
) -> Trained:
    parts, labels = data.parts, data.labels
    outside = Counter(parts.fitted.labels)[settings.out_of_scope]
    watch.say(
        f"{settings.data.name}: {data.rows:,} rows, {len(labels)} labels; {len(parts.fitted.texts):,} to learn from"
        f" ({outside:,} out of scope), {len(parts.chosen.texts):,} to choose by, {len(parts.measured.texts):,} to"
        " measure on"
    )
    for note in data.notes:
        watch.say(note)
    made = _make(settings, data, encoder, workshop, resume, watch)
    fitted = made.fitted
    watch.say(f"epoch {fitted.best} is kept, temperature {fitted.temperature:.3f}")

    path = workshop / "model.onnx"
    path.write_bytes(made.model)
    model = OnnxModel(path)
    read = encode if encoder is None else encoder.tokens().encode
    chosen = ask(model, read, labels, parts.chosen, watch.tick("choosing the floor"))
    floor = choose_floor(chosen, parts.chosen, len(labels), settings.out_of_scope)
    figures: Figures | None = None
    worst: list[tuple[str, int, int, str]] = []
    held_out = [(chosen, parts.chosen)]
    if parts.measured.texts:
        measured = ask(model, read, labels, parts.measured, watch.tick("measuring"))
        figures = measure(measured, parts.measured, floor, settings.out_of_scope)
        worst = weakest(measured, parts.measured, settings.out_of_scope)
        if settings.test is None:
            held_out.insert(0, (measured, parts.measured))
    cases = data.cases or ""
    for said, shown in held_out:
        if '"label"' not in cases:
            cases = text_folder.pick_cases(said, shown, floor, settings.out_of_scope, settings.seed)
    if '"label"' not in cases:  # of the few held out none was right; then some that it learned from
        some = parts.fitted.where(settings.out_of_scope, same=False).pick(range(min(200, len(parts.fitted.texts) // 2)))
        said = ask(model, read, labels, some, watch.tick("looking for cases"))
        cases = text_folder.pick_cases(said, some, floor, settings.out_of_scope, settings.seed)
    model.close()
    if '"label"' not in cases:
        raise SpecialistError(
            f"of the texts of {settings.data} none is answered rightly above the floor, so there is nothing to use;"
            " look at the labels, and add texts"
        )
    contents = _contents(settings, name, data, made, floor, cases, figures, worst)
    watch.step("checking what was made", 0, 1)
    text_folder.write(settings.out, made.model, contents)
    report = check(settings.out, trust=True)
    shutil.rmtree(workshop, ignore_errors=True)
    return Trained(
        name=name,
        folder=settings.out,
        labels=len(labels),
        fitted=len(parts.fitted.texts),
        chosen=len(parts.chosen.texts),
        floor=floor,
        temperature=fitted.temperature,
        epochs=fitted.epochs,
        best=fitted.best,
        measured=figures,
        measured_on=data.measured_on if figures else None,
        bytes=len(made.model),
        parameters=made.parameters,
        passed=report.passed,
        problems=[f"{each.what}: {each.detail}" for each in report.findings if each.status == "failed"],
        notes=data.notes,
    )


# What is asked for, looked through before anything is trained.


def _name(settings: Settings) -> str:
    given = settings.name
    if given is None:
        given = re.sub(r"[^a-z0-9]+", "_", settings.out.resolve().name.lower()).strip("_")
        given = given if re.match(r"[a-z]", given) else f"classifier_{given}".rstrip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", given):
        raise ScaffoldError(
            f"{given!r} cannot be a specialist's name: lower-case letters, digits and underscores, a letter first, at"
            " most 64; give another with --name"
        )
    return given


def _read(settings: Settings) -> _Data:
    """Everything that was given, read and parted. Raises :class:`CasesError`."""
    raw, digest = text_data.read(settings.data)
    labels = text_data.check_labels(raw, settings.data, settings.out_of_scope)
    rows, notes = text_data.clean(raw, settings.data)
    labels = text_data.check_labels(rows, settings.data, settings.out_of_scope)
    given: dict[str, Rows] = {}
    key = [digest]
    for what, path in (("validation", settings.validation), ("test", settings.test)):
        if path is not None:
            given[what], other = text_data.read(path)
            key.append(other)
            _check_known(given[what], labels, path, settings.out_of_scope)
    learned = text_data.without(rows, list(given.values()))
    if gone := len(rows.texts) - len(learned.texts):
        where = " and ".join(path.name for path in (settings.validation, settings.test) if path is not None)
        notes.append(f"{gone:,} rows have the words of a text in {where} and are not learned from")
        lost = sorted(set(labels) - set(learned.labels))
        if lost:
            raise CasesError(
                f"{settings.data}: every text of the label {lost[0][:40]!r} is in {where} too; take it out there, or"
                " add others here"
            )
    in_scope = sum(label != settings.out_of_scope for label in learned.labels)
    if in_scope < FEWEST:
        raise CasesError(
            f"{settings.data} has {in_scope} different texts in scope, too few to learn and to measure; add some, so"
            f" that there are at least {FEWEST} (some hundreds are better)"
        )
    parts = text_data.part(learned, settings.validation is None, settings.test is None, settings.seed)
    parts = Parts(parts.fitted, given.get("validation", parts.chosen), given.get("test", parts.measured))
    if not any(label != settings.out_of_scope for label in parts.chosen.labels):
        raise CasesError(f"{settings.validation or settings.data}: no text in scope is left to choose by; add some")
    if not any(label != settings.out_of_scope for label in parts.measured.labels):
        if settings.test is not None:
            raise CasesError(f"{settings.test} has no text in scope to measure on; add some")
        parts = parts._replace(measured=Rows([], [], []))
    if settings.test is not None:
        measured_on = settings.test.name
    else:
        share = 100 * len(parts.measured.texts) / max(1, len(learned.texts))
        measured_on = f"{settings.data.name}, {share:.0f} % held out by chance (seed {settings.seed})"
    cases = None
    if settings.cases is not None:
        list(read_rows(settings.cases))  # raises CasesError, with the line
        cases = settings.cases.read_text("utf-8-sig")
    return _Data(labels, parts, notes, digest, key, len(raw.texts), measured_on, cases)


def _check_known(rows: Rows, labels: Sequence[str], path: Path, out_of_scope: str) -> None:
    known = {*labels, out_of_scope}
    for label, line in zip(rows.labels, rows.lines, strict=True):
        if label not in known:
            raise CasesError(
                f"{path}, line {line}: the label {label[:40]!r} is not among those of --data; mend it, or add texts of"
                " it there"
            )


def _require() -> None:
    for package in ("torch", "onnx", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            raise MissingRuntime(
                f"training needs the package {package}, which is not installed; run `{EXTRA}`"
            ) from None


def _encoder(settings: Settings) -> Encoder | None:
    if settings.encoder is None:
        return None
    from specialists.training.text_encoder import read_encoder

    return read_encoder(settings.encoder)


# The model.


def _make(
    settings: Settings, data: _Data, encoder: Encoder | None, workshop: Path, resume: bool, watch: Watch
) -> _Made:
    import torch

    from specialists.training.text_training import fit, plan

    torch.set_num_threads(settings.threads)
    set_threads(settings.threads)
    torch.manual_seed(settings.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inside = data.parts.fitted.where(settings.out_of_scope, same=False)
    schedule = plan(
        len(inside.texts),
        epochs=settings.epochs,
        minutes=settings.minutes,
        seed=settings.seed,
        device=device,
        rate=RATE if encoder is None else HEAD_RATE,
    )
    told = [FORMAT, data.key, settings.out_of_scope, settings.seed, settings.epochs, device]
    told.append(None if encoder is None else encoder.sha256)
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    checkpoint = workshop / "checkpoint.pt"
    if resume and not checkpoint.is_file():
        watch.say("there is no checkpoint yet, so it begins at the beginning")
    if encoder is None:
        return _make_ngrams(settings, data, schedule, checkpoint, key, resume, watch)
    from specialists.training.text_encoder import vectors_of
    from specialists.training.text_network import HeadNetwork, Vectors

    texts, numbers = _gather(settings, data, typed=False, most_made=MOST_MADE_VECTORS)
    vectors = vectors_of(encoder, texts, workshop / "vectors", watch.tick("reading texts with the encoder"))
    network = HeadNetwork(vectors.shape[1], len(data.labels))
    material = _material(Vectors(torch.from_numpy(vectors)), numbers, data, settings)
    fitted = fit(network, material, schedule, checkpoint, key, resume, watch)
    own = sum(value.numel() for value in network.parameters())
    return _Made(encoder.with_head(network.head(fitted.temperature)), fitted, encoder, encoder.parameters + own)


def _make_ngrams(
    settings: Settings, data: _Data, schedule: Plan, checkpoint: Path, key: str, resume: bool, watch: Watch
) -> _Made:
    from specialists.training.text_graph import build
    from specialists.training.text_network import Hashed, NgramNetwork, Vocabulary, hashed
    from specialists.training.text_training import fit

    texts, numbers = _gather(settings, data, typed=True, most_made=MOST_MADE)
    found = hashed(texts, watch.tick("reading texts"))
    count = len(numbers["fitted"])
    ends = [own[: count + 1] for own in found.ends]
    vocabulary = Vocabulary(Hashed([flat[: own[-1]] for flat, own in zip(found.flat, ends, strict=True)], ends))
    watch.say(f"{len(vocabulary.hashes):,} words, word pairs and parts of words are known")
    network = NgramNetwork(vocabulary, len(data.labels))
    material = _material(vocabulary.rows(found), numbers, data, settings)
    del found
    fitted = fit(network, material, schedule, checkpoint, key, resume, watch)
    model = build(network.weights(fitted.temperature), KINDS).SerializeToString()
    return _Made(model, fitted, None, sum(value.numel() for value in network.parameters()))


def _gather(settings: Settings, data: _Data, *, typed: bool, most_made: int) -> tuple[list[str], dict[str, list[int]]]:
    """All texts that a network is shown, and by what they are for their numbers; those to learn from stand first."""
    chance = random.Random(settings.seed)
    inside = data.parts.fitted.where(settings.out_of_scope, same=False)
    outside = data.parts.fitted.where(settings.out_of_scope, same=True)
    chosen = data.parts.chosen.where(settings.out_of_scope, same=False)
    lengths = [len(tokens(text)) for text in inside.texts]
    texts = list(inside.texts)
    numbers = {"fitted": list(range(len(texts))), "typed": list(range(len(texts)))}
    words = 0
    for i, text in enumerate(inside.texts):
        words += lengths[i]
        if not typed or words > TYPED_WORDS:
            break
        numbers["typed"][i] = len(texts)
        texts.append(misspell(text, chance))
    mean = max(1.0, sum(lengths) / len(lengths))
    count = int(min(max(FEWEST_MADE, len(inside.texts) * MADE_SHARE), most_made, MADE_WORDS / mean))
    made = make_out_of_scope(inside.texts, inside.labels, count, chance)
    for what, more in (("made", made), ("given", outside.texts), ("chosen", chosen.texts)):
        numbers[what] = list(range(len(texts), len(texts) + len(more)))
        texts += more
    numbers["given"] = numbers["given"] or numbers["made"]
    return texts, numbers


def _material(features: Any, numbers: dict[str, list[int]], data: _Data, settings: Settings) -> Material:
    import torch

    from specialists.training.text_training import Material

    at = {label: i for i, label in enumerate(data.labels)}

    def labels(rows: Rows) -> torch.Tensor:
        return torch.tensor([at[label] for label in rows.where(settings.out_of_scope, same=False).labels])

    return Material(
        features=features,
        labels=labels(data.parts.fitted),
        chosen_labels=labels(data.parts.chosen),
        **{name: torch.tensor(which, dtype=torch.int64) for name, which in numbers.items()},
    )


# What is told of it.


def _contents(
    settings: Settings,
    name: str,
    data: _Data,
    made: _Made,
    floor: float,
    cases: str,
    figures: Figures | None,
    worst: list[tuple[str, int, int, str]],
) -> text_folder.Contents:
    parts, labels, fitted = data.parts, data.labels, made.fitted
    command = settings.command()
    few = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    description = settings.description or f"Classify a text as one of {len(labels)} labels: {few}."
    source = f"{settings.source}; " if settings.source else ""
    described = f"{source}{settings.data.name}, {data.rows:,} rows, sha256 {data.sha256}"
    chosen_on = (
        settings.validation.name
        if settings.validation is not None
        else f"{len(parts.chosen.texts):,} rows held out of {settings.data.name} by chance"
    )
    seconds = fitted.seconds
    facts = [
        ("data", described),
        ("learned from", f"{len(parts.fitted.texts):,} rows"),
        ("chosen on", f"{chosen_on} ({len(parts.chosen.texts):,} rows): epoch, temperature and floor"),
        ("licence", settings.license or "not stated"),
        ("command", f"`{command}`"),
        (
            "time",
            f"{seconds:.0f} seconds of training, {settings.threads} thread{'s' * (settings.threads > 1)};"
            f" epoch {fitted.best} of {len(fitted.epochs)} is kept, temperature {fitted.temperature:.3f}",
        ),
    ]
    if settings.encoder is not None and made.encoder is not None:
        facts.insert(1, ("encoder", f"{settings.encoder.resolve().name}, sha256 {made.encoder.sha256}"))
    measured = []
    if figures is not None:
        measured.append((data.measured_on, figures, command))
    return text_folder.Contents(
        name=name,
        description=description,
        data=described,
        command=command,
        parameters=made.parameters,
        floor=floor,
        labels=labels,
        cases=cases,
        epochs=fitted.epochs,
        best=fitted.best,
        measured=measured,
        facts=facts,
        notes=data.notes,
        weakest=worst,
        out_of_scope=settings.out_of_scope,
        tested=settings.test is not None,
        own_cases=settings.cases is not None,
        license=settings.license,
        text=settings.text,
        tokenizer=None if made.encoder is None else made.encoder.tokenizer,
        max_tokens=256 if made.encoder is None else made.encoder.most_tokens,
        timeout=5.0 if made.encoder is None else 10.0,
    )
