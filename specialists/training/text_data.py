"""Labelled texts: read from ``label<TAB>text``, looked through, and parted into what is learned from and what is not.

What cannot be learned from is refused here, before any network runs. Nothing of PyTorch and of models is known here.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from specialists import CasesError
from specialists.texts import tokens

__all__ = ["Cleaned", "Parts", "Rows", "check_labels", "clean", "part", "read", "without"]

MOST_BYTES = 2 * 1024**3
MOST_LABELS, LONGEST_LABEL = 10_000, 200
"""What ``labels.txt`` may hold."""
LABEL_HEADERS = {"label", "labels", "category", "class", "intent", "target", "y"}
TEXT_HEADERS = {"text", "texts", "message", "sentence", "utterance", "question", "query", "content"}
SHAPE = "each line is a label, a tab, and the text"


class Rows(NamedTuple):
    """Texts with their labels, and the lines of the file that they stood on."""

    texts: list[str]
    labels: list[str]
    lines: list[int]

    def pick(self, which: Iterable[int]) -> Rows:
        """Those rows, in that order."""
        chosen = list(which)
        return Rows(*([column[i] for i in chosen] for column in self))  # type: ignore[arg-type]

    def where(self, label: str, same: bool) -> Rows:
        """The rows of that label, or of the others."""
        return self.pick(i for i, own in enumerate(self.labels) if (own == label) == same)


class Cleaned(NamedTuple):
    """Rows without repetitions, and what was left out. ``notes``: what a reader should know, a sentence each."""

    rows: Rows
    notes: list[str]


class Parts(NamedTuple):
    """What is learned from, what chooses epoch, temperature and floor, and what only measures."""

    fitted: Rows
    chosen: Rows
    measured: Rows


def read(path: Path) -> tuple[Rows, str]:
    """The rows of a file, gzipped or not, and the sha256 of its bytes.

    Raises :class:`CasesError`, which names the line, and ``OSError``.
    """
    if path.is_dir():
        raise CasesError(f"{path} is a folder; name a file in which {SHAPE}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(path, data)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CasesError(f"{path} is UTF-16; save it as UTF-8")
    texts, labels, lines = [], [], []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            line = raw.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise CasesError(f"{where}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
        if not line.strip():
            continue
        before, tab, after = line.partition("\t")
        label, text = before.strip(), after.strip()
        if number == 1 and label.casefold() in LABEL_HEADERS and text.casefold() in TEXT_HEADERS:
            continue
        if not tab:
            raise CasesError(f"{where}: there is no tab between label and text; {SHAPE}")
        if not label:
            raise CasesError(f"{where}: the text has no label; put one before the tab, or take the line out")
        if not text:
            raise CasesError(f"{where}: the label {label[:40]!r} has no text; put one after the tab, or take it out")
        if len(label) > LONGEST_LABEL or not label.isprintable():
            raise CasesError(
                f"{where}: {label[:40]!r} is no label (up to {LONGEST_LABEL} printable characters); {SHAPE}"
            )
        texts.append(text)
        labels.append(label)
        lines.append(number)
    if not texts:
        raise CasesError(f"{path} holds no rows; {SHAPE}")
    return Rows(texts, labels, lines), digest


def _unpacked(path: Path, data: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        found = unpack.decompress(data, MOST_BYTES)
        if not unpack.eof and unpack.unconsumed_tail:
            raise CasesError(f"{path} holds more than {MOST_BYTES:,} bytes; train on a part of it")
        return found if unpack.eof and not unpack.unused_data else gzip.decompress(data)
    except (zlib.error, EOFError, OSError) as error:
        raise CasesError(f"{path} cannot be unpacked ({error}); get a clean copy, or unpack it first") from None


def check_labels(rows: Rows, path: Path, out_of_scope: str) -> list[str]:
    """The labels, sorted, without ``out_of_scope``. Raises :class:`CasesError` when they cannot be learned."""
    counts = Counter(rows.labels)
    counts.pop(out_of_scope, None)
    if not counts:
        raise CasesError(f"{path}: every row has the label {out_of_scope!r}; add rows of two labels or more")
    if len(counts) == 1:
        raise CasesError(
            f"{path}: every row has the label {next(iter(counts))[:40]!r}; a classifier needs two labels or more,"
            f" so add rows of another"
        )
    once = [label for label, count in counts.items() if count == 1]
    if once:
        line = rows.lines[rows.labels.index(once[0])]
        if len(once) * 2 > len(counts) and len(once) > 10:
            raise CasesError(
                f"{path}, line {line}: {len(once)} of {len(counts)} labels are seen once, such as {once[0][:40]!r};"
                " the label stands first, before the tab, and the text after it"
            )
        more = f" ({len(once)} labels are seen once)" if len(once) > 1 else ""
        raise CasesError(
            f"{path}, line {line}: the label {once[0][:40]!r} is seen once{more}, too little to learn and to measure;"
            " add texts of it, or give the row another label"
        )
    if len(counts) > MOST_LABELS:
        raise CasesError(f"{path} has {len(counts):,} labels; a classifier has up to {MOST_LABELS:,}")
    return sorted(counts)


def clean(rows: Rows, path: Path) -> Cleaned:
    """The rows without repetitions; of a text with several labels only the label stays that it has most often."""
    by_text: dict[str, Counter[str]] = {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        by_text.setdefault(_same(text), Counter())[label] += 1
    kept, seen = [], set()
    for i, (text, label) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        key = _same(text)
        if key not in seen and by_text[key].most_common(1)[0][0] == label:
            seen.add(key)
            kept.append(i)
    torn = {key for key, labels in by_text.items() if len(labels) > 1}
    repeated = len(rows.texts) - len(kept)
    notes = []
    if repeated:
        notes.append(f"{repeated:,} of {len(rows.texts):,} rows repeat a text and are left out")
    if torn:
        first = next(key for key in by_text if key in torn)
        at = [(line, label) for text, label, line in zip(*rows, strict=True) if _same(text) == first]
        line, label = at[0]
        other_line, other = next(each for each in at if each[1] != label)
        notes.append(
            f"{len(torn):,} texts have more than one label, such as {label[:40]!r} in line {line} and {other[:40]!r} in"
            f" line {other_line} of {path.name}; each keeps the label that it has most often"
        )
    return Cleaned(rows.pick(kept), notes)


def _same(text: str) -> str:
    """Texts that differ in case or white space only are one text."""
    return " ".join(text.split()).casefold()


def _near(text: str) -> str:
    """Texts that are the same words but for digits and punctuation tell of each other."""
    return " ".join(tokens(text)) or _same(text)


def without(rows: Rows, others: Sequence[Rows]) -> Rows:
    """``rows`` less those with the words of a text in ``others``."""
    known = {_near(text) for other in others for text in other.texts}
    return rows.pick(i for i, text in enumerate(rows.texts) if _near(text) not in known)


def part(rows: Rows, choose: bool, measure: bool, seed: int) -> Parts:
    """Part the rows by chance, label by label, so that each part has of each label what it has of all.

    Texts with the same words stay together, unless that leaves a part with less than half of its share, as with texts
    that are mostly numbers; then only the same texts do. Every label keeps something to be learned from.
    """
    parts = _part(rows, choose, measure, seed, _near)
    least = len(rows.texts) / period(len(rows.texts)) / 2
    short = (choose and len(parts.chosen.texts) < least) or (measure and len(parts.measured.texts) < least)
    return _part(rows, choose, measure, seed, _same) if short else parts


def _part(rows: Rows, choose: bool, measure: bool, seed: int, key: Callable[[str], str]) -> Parts:
    every = period(len(rows.texts))
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(rows.texts):
        groups.setdefault(key(text), []).append(i)
    by_label: dict[str, list[list[int]]] = {}
    for group in groups.values():
        by_label.setdefault(rows.labels[group[0]], []).append(group)
    chance = random.Random(seed)
    parts: dict[str, list[int]] = {"fitted": [], "chosen": [], "measured": []}
    turn = 0
    for label in sorted(by_label):
        own = by_label[label]
        chance.shuffle(own)
        for group in own:
            # The two turns never follow each other, so of two groups at least one is learned from.
            turn += 1
            name = "fitted"
            if len(own) > 1 and choose and turn % every == every // 2:
                name = "chosen"
            elif len(own) > 1 and measure and turn % every == 0:
                name = "measured"
            parts[name] += group
    return Parts(*(rows.pick(sorted(parts[name])) for name in Parts._fields))


def period(count: int) -> int:
    """One row in so many goes to each part that is not learned from: few rows need a larger share to say anything."""
    return 6 if count < 2_000 else 10 if count < 20_000 else 20
