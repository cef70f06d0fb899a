"""The folder that a training leaves: card, labels, cases, README and the curve. Nothing of PyTorch is known here."""

from __future__ import annotations

import json
import random
import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specialists import ScaffoldError
from specialists.card import CARD, Card, listed_files, seal
from specialists.training.text_data import Rows
from specialists.training.text_figures import Figures, Said
from specialists.training.text_watch import Epoch

__all__ = ["WORKSHOP", "Contents", "claim", "curve", "pick_cases", "write"]

WORKSHOP = ".training"
"""The folder inside it that holds the checkpoint until all is done; a card lists nothing whose name begins so."""
COMMAND = "brain specialists train text-classifier"
CASES_IN, CASES_OUT, LONGEST_CASE = 12, 4, 300
BY_EVAL = ("in_scope_accuracy", "abstained_out_of_scope", "wrong_accepted")
"""Figures that ``brain specialists eval`` tells."""
OWN = ("model.onnx", "labels.txt", "cases.jsonl", "tokenizer.json", "curve.svg", "README.md", CARD)
"""What is written; nothing else in a folder is ever touched."""


@dataclass
class Contents:
    """What the card, the README and the curve tell."""

    name: str
    description: str
    data: str
    command: str
    parameters: int
    floor: float
    labels: Sequence[str]
    cases: str
    epochs: Sequence[Epoch]
    best: int
    measured: Sequence[tuple[str, Figures, str]]
    """What it was measured on, the figures, and the command that makes them."""
    facts: Sequence[tuple[str, str]]
    """Rows of the README's table."""
    notes: Sequence[str]
    weakest: Sequence[tuple[str, int, int, str]]
    out_of_scope: str
    tested: bool = False
    """Whether it was measured on a file of its own, which can be measured on again."""
    own_cases: bool = False
    """Whether the cases are the maker's own, and no texts of the data."""
    license: str | None = None
    text: str | None = None
    tokenizer: bytes | None = None
    max_tokens: int = 256
    timeout: float = 5.0


def claim(out: Path, resume: bool, force: bool) -> Path:
    """The workshop inside ``out``, which is made if need be.

    Raises :class:`ScaffoldError` when something is there already that must not be lost.
    """
    workshop = out / WORKSHOP
    if out.is_symlink() and not out.exists():
        raise ScaffoldError(f"{str(out)!r} is a link that leads nowhere; name another folder")
    if out.exists() and not out.is_dir():
        raise ScaffoldError(f"{str(out)!r} is a file; name a folder")
    there = sorted(each.name for each in out.iterdir()) if out.is_dir() else []
    if there and not workshop.is_dir() and not _was_trained(out):
        raise ScaffoldError(
            f"the folder {str(out)!r} holds {there[0]!r} and was not made by `{COMMAND}`; name a new folder"
        )
    foreign = sorted(set(listed_files(out)) - set(OWN)) if there else []
    if foreign:
        raise ScaffoldError(
            f"the folder {str(out)!r} also holds {foreign[0]!r}, which the card would have to list; take it out, or"
            " name a new folder"
        )
    if there and not force:
        if not workshop.is_dir():
            begin = "nothing is left to resume" if resume else "it is finished"
            raise ScaffoldError(f"the folder {str(out)!r} holds a specialist already ({begin}); --force makes it anew")
        if not resume:
            raise ScaffoldError(
                f"the folder {str(out)!r} holds a training that was stopped; --resume goes on, --force begins anew"
            )
    if force and not resume:
        shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True, exist_ok=True)
    return workshop


def _was_trained(out: Path) -> bool:
    try:
        return f'command = "{COMMAND} ' in (out / CARD).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def pick_cases(said: Said, rows: Rows, floor: float, out_of_scope: str, seed: int) -> str:
    """A few texts, of different labels, that are answered rightly above the floor; and some that are abstained on."""
    order = list(range(len(rows.texts)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda i: len(rows.texts[i]) > LONGEST_CASE or not rows.texts[i].isprintable())  # short ones first
    inside: dict[str, int] = {}
    outside = []
    margin = 0.002  # the same sum in another order differs in its last digits
    for i in order:
        label, sure = rows.labels[i], said.confidence[i]
        if label == out_of_scope and sure < floor - margin:
            outside.append(i)
        elif label == said.best[i] and sure >= min(floor + margin, 0.999) and sure >= floor:
            inside.setdefault(label, i)
    chosen = [(i, {"label": rows.labels[i]}) for i in list(inside.values())[:CASES_IN]]
    cases = [*chosen, *((i, None) for i in outside[:CASES_OUT])]
    return "".join(
        json.dumps({"input": {"text": rows.texts[i]}, "expected": expected}, ensure_ascii=False) + "\n"
        for i, expected in cases
    )


def write(out: Path, model: bytes, contents: Contents) -> Card:
    """Write and seal the folder. The card comes last: a folder without one is not taken for a specialist."""
    (out / CARD).unlink(missing_ok=True)
    (out / "tokenizer.json").unlink(missing_ok=True)
    (out / "model.onnx").write_bytes(model)
    if contents.tokenizer is not None:
        (out / "tokenizer.json").write_bytes(contents.tokenizer)
    for name, text in (
        ("labels.txt", "".join(f"{label}\n" for label in contents.labels)),
        ("cases.jsonl", contents.cases),
        ("curve.svg", curve(contents.epochs, contents.best)),
        ("README.md", _readme(contents, len(model))),
        (CARD, _card(contents)),
    ):
        (out / name).write_text(text, "utf-8", newline="\n")
    return seal(out)


def _quoted(text: str) -> str:
    """As TOML's basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _card(contents: Contents) -> str:
    lines = [
        f"# The card: what this folder claims. Made by `{COMMAND}`.",
        "# `brain specialists seal FOLDER` writes the hashes at the end, after each change.",
        "",
        "format = 1",
        f"name = {_quoted(contents.name)}",
        'version = "1.0.0"',
        f"description = {_quoted(contents.description)}",
        *([f"license = {_quoted(contents.license)}"] if contents.license else []),
        'task = "text-classification"',
        f"data = {_quoted(contents.data)}",
        f"command = {_quoted(contents.command)}",
        f"parameters = {contents.parameters}",
        "",
        "[text_classification]",
        'model = "model.onnx"',
        'labels = "labels.txt"',
    ]
    if contents.tokenizer is None:
        lines.append('features = "hashed-ngrams"')
    else:
        lines += [
            'features = "tokenizer"', 'tokenizer = "tokenizer.json"', f"max_tokens = {contents.max_tokens}",
        ]  # fmt: skip
    lines += [
        "# Under this confidence a text counts as out of scope. Nine in ten held-out texts in scope reach it.",
        f"min_confidence = {contents.floor}",
        f"timeout = {contents.timeout}",
        *([f"text = {_quoted(contents.text)}"] if contents.text else []),
    ]
    for on, figures, trained in contents.measured:
        for what, value, n in _rows(figures):
            command = _eval(contents) if contents.tested and what in BY_EVAL else trained
            lines += [
                "", "[[measured]]", f"what = {_quoted(what)}", f"value = {value}", f"n = {n}", f"on = {_quoted(on)}",
                f"command = {_quoted(command)}",
            ]  # fmt: skip
    return "\n".join([*lines, ""])


def _rows(figures: Figures) -> list[tuple[str, float, int]]:
    """The figures that the card lists, with the number of texts each is of."""
    outside = figures.n - figures.in_scope
    found = [
        ("in_scope_accuracy", figures.in_scope_accuracy, figures.in_scope),
        ("accuracy_of_each_label", figures.accuracy_of_each_label, figures.in_scope),
        ("abstained_in_scope", figures.abstained_in_scope, figures.in_scope),
        ("abstained_out_of_scope", figures.abstained_out_of_scope, outside),
        ("wrong_accepted", figures.wrong_accepted, figures.n),
        ("calibration_error", figures.calibration_error, figures.in_scope),
        ("auroc_in_or_out_of_scope", figures.auroc_in_or_out_of_scope, figures.n),
    ]
    return [(what, value, n) for what, value, n in found if value is not None]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _readme(contents: Contents, size: int) -> str:
    labels = contents.labels
    shown = ", ".join(f"`{_cell(label)}`" for label in labels[:8]) + (", …" if len(labels) > 8 else "")
    description = contents.description.rstrip(".")
    lines = [
        f"# {contents.name}",
        "",
        f"`{contents.name}(text: str) -> Classification`. {description}.",
        "",
        f"It knows {len(labels)} labels ({shown}; all in `labels.txt`). A text that fits none of them is abstained on,"
        f" never labelled: the answer's confidence is then under the floor, **{contents.floor:g}**.",
        "",
        "Its verifier is complete and not sound: it fails what is none of the labels, and cannot tell by rule which"
        ' label is right. What is accepted is accepted by confidence (`accepted_by == "confident"`).',
        "",
        "## How it works",
        "",
        _how(contents),
        "",
        "## How it was made",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {what} | {_cell(value)} |" for what, value in contents.facts),
        f"| size | `model.onnx` {size:,} bytes, {contents.parameters:,} parameters |",
        "",
        *([*(f"- {note[:1].upper()}{note[1:]}." for note in contents.notes), ""] if contents.notes else []),
        "![Held-out accuracy by epoch](curve.svg)",
        "",
        "## Measured",
        "",
        "The exported file, text by text, at this floor. None of these texts was learned from or chosen by.",
        "",
        f"| figure | {' | '.join(_cell(on) for on, _, _ in contents.measured)} |",
        f"| --- |{' --- |' * len(contents.measured)}",
    ]
    if not contents.measured:
        lines = [*lines[:-4], "Nothing: no texts were left to measure on. Give some with `--test FILE`."]
    else:
        lines += _figures(contents)
    if contents.weakest:
        lines += [
            "", "The labels that are found least often, on the same texts:", "",
            "| label | found | mostly taken for |", "| --- | --- | --- |",
            *(f"| {_cell(label)} | {right} of {n} | {_cell(other)} |" for label, right, n, other in contents.weakest),
        ]  # fmt: skip
    lines += ["", "## Limits", "", *_limits(contents), ""]
    return "\n".join(_wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    """Prose in lines of the usual length; tables, pictures and headings stay whole."""
    if line.startswith(("|", "#", "!", "```", COMMAND)):
        return line
    further = "  " if line.startswith("- ") else ""
    return "\n".join(
        textwrap.wrap(line, 120, subsequent_indent=further, break_long_words=False, break_on_hyphens=False) or [""]
    )


def _how(contents: Contents) -> str:
    if contents.tokenizer is not None:
        return (
            "A sentence encoder, which was made elsewhere and stays as it was, gives a vector for each token that"
            " `tokenizer.json` makes of a text, or one for the whole of it. Their mean, brought to length 1, goes"
            f" through one hidden layer to {len(contents.labels)} probabilities, of which the highest is the"
            ' confidence. In training, texts that fit no label had the target "all labels alike".'
        )
    return (
        "Words, pairs of words and character 3- to 5-grams are hashed with CRC-32. The graph looks the hashes up in its"
        " own sorted table, so it knows which it has never seen; it adds up the embeddings of each kind, and one hidden"
        f" layer gives {len(contents.labels)} probabilities, of which the highest is the confidence. In training, texts"
        ' that fit no label had the target "all labels alike": those of the data, if it has some, and others made from'
        " texts in scope by replacing the words that speak for their label. One in five texts was shown with typing"
        " mistakes."
    )


def _figures(contents: Contents) -> list[str]:
    every = [figures for _, figures, _ in contents.measured]
    rows: list[tuple[str, list[str]]] = [
        (
            "`in_scope_accuracy`, floor ignored",
            [f"**{_percent(f.in_scope_accuracy)}** of {f.in_scope:,}" for f in every],
        ),
        ("its 95 % interval", [f"{_percent(f.accuracy_low)} to {_percent(f.accuracy_high)}" for f in every]),
        ("the mean over labels, each counting alike", [_percent(f.accuracy_of_each_label) for f in every]),
        ("always saying the most frequent label", [_percent(f.most_frequent_label) for f in every]),
        ("right, of in scope and accepted", [_percent(f.accepted_right) for f in every]),
        ("abstained, of in scope", [_percent(f.abstained_in_scope) for f in every]),
        ("abstained, of out of scope", [_percent(f.abstained_out_of_scope) for f in every]),
        ("wrong and accepted", [f"{f.wrong_accepted:,} of {f.n:,}" for f in every]),
        ("calibration error, in scope (15 bins)", [_percent(f.calibration_error) for f in every]),
        (
            "AUROC, in or out of scope by confidence",
            ["-" if f.auroc_in_or_out_of_scope is None else f"{f.auroc_in_or_out_of_scope:.3f}" for f in every],
        ),
    ]
    lines = [f"| {what} | {' | '.join(values)} |" for what, values in rows if set(values) != {"-"}]
    commands = list(dict.fromkeys(command for _, _, command in contents.measured))
    lines += ["", "Command:", "", "```console", *commands, "```"]
    if contents.tested:
        rows_of = 'rows `{"input": {"text": …}, "expected": {"label": …}}`'
        if every[0].abstained_out_of_scope is not None:
            rows_of += f', with `"expected": null` for `{contents.out_of_scope}`'
        lines += [
            "",
            f"`{_eval(contents)}` counts them again; FILE.jsonl holds these texts as {rows_of}.",
        ]
    return lines


def _eval(contents: Contents) -> str:
    return f"brain specialists eval ./{contents.name} FILE.jsonl --declared"


def _limits(contents: Contents) -> list[str]:
    figures = contents.measured[0][1] if contents.measured else None
    found = []
    if figures is not None and figures.in_scope < 300:
        found.append(
            f"- {figures.in_scope} texts are few to measure on: the figures above are rough, as the interval says."
        )
    if figures is None or figures.abstained_out_of_scope is None:
        found.append(
            f"- No text out of scope came with the data to measure, so how often it abstains on one is not known; rows"
            f" of the label `{contents.out_of_scope}` would tell."
        )
    if contents.tokenizer is None:
        found.append(
            "- It knows words, not meaning: what is said in words that were never seen with a label is abstained on, or"
            " confused with a neighbour. Only the first 256 words of a text are read."
        )
    else:
        found.append(
            f"- Only the first {contents.max_tokens} tokens of a text are read. The encoder was made by somebody else,"
            " and its licence holds for this folder too."
        )
    found.append(
        "- Confidence fits texts such as it was made from. Where most of what comes is something else, a confidence"
        " says more than it should: measure on your own texts, with `brain specialists eval`, or certify with"
        " `brain specialists calibrate`."
    )
    if not contents.own_cases:
        found.append(
            "- `cases.jsonl` holds texts of the data word for word; look at them before you hand the folder on."
        )
    return found


def _cell(text: str) -> str:
    """One line that breaks no table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def curve(epochs: Sequence[Epoch], best: int) -> str:
    """A picture of held-out accuracy by epoch, with the seconds that each took, as SVG."""
    width, height, left, right, top, bottom = 560, 300, 58, 18, 34, 56
    accuracies = [each.accuracy for each in epochs] or [0.0]
    low = max(0.0, min(accuracies) - 0.02)
    low = int(low * 20) / 20
    high = 1.0
    last = max(1, len(epochs))

    def at(epoch: float, accuracy: float) -> tuple[float, float]:
        across = (epoch - 1) / max(1, last - 1)
        up = (accuracy - low) / (high - low)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="11" fill="#444">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18" font-size="13" fill="#111">Right of the texts that choose the epoch, by epoch</text>',
    ]
    for n in range(5):
        value = low + (high - low) * n / 4
        x, y = at(1, value)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
    every = -(-last // 10)
    for each in epochs:
        if each.number % every and each.number not in (1, last):
            continue
        x, _ = at(each.number, low)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{each.number}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 30}" text-anchor="middle">{each.seconds:.0f} s</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 8}" text-anchor="middle">epoch, and seconds of training</text>')
    points = [at(each.number, each.accuracy) for each in epochs]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline fill="none" stroke="#1f6feb" stroke-width="2" points="{line}"/>')
    for each, (x, y) in zip(epochs, points, strict=True):
        kept = each.number == best
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if kept else 2.5}" fill="{"#d1242f" if kept else "#1f6feb"}"/>'
        )
        if kept:
            side = "end" if x > middle else "start"
            parts.append(
                f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="{side}" fill="#d1242f">'
                f"kept: {100 * each.accuracy:.1f} %</text>"
            )
    return "\n".join([*parts, "</svg>", ""])
