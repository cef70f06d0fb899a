"""The recipe of the bundled `intent`: from labelled texts to an ONNX text classifier with calibrated confidence.

    python -m specialists.training.intent --data FOLDER_OR_FILES --out FOLDER [--seed N] [--resume]
    python -m specialists.training.intent --data FOLDER_OR_FILES --out FOLDER --measure

Data: files of ``label<TAB>text`` with ``train``, ``val`` or ``test`` in the name, gzipped or not (or a folder of them).
The label ``oos`` marks texts that fit no label. The network is trained on train less every twentieth row, which stops
the training and sets the temperature; the floor is set on val; test is only ever measured.

The network: embeddings of words, word pairs and character n-grams (see ``specialists/texts.py``), each
kind summed and divided by the root of its number, one hidden layer, softmax. For texts that fit no label the target is
"any label as likely as another", so that the highest probability itself tells how well a text fits. Too few such texts
come with the data; more are made from the in-scope ones by replacing just the words that speak for the label, which
leaves "can you tell me how to …" about something never heard of (compare MASKER, arXiv 2012.09392).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specialists import OnnxModel
from specialists.texts import KINDS, encode, features, tokens
from specialists.training.text_graph import Weights, build

OUT_OF_SCOPE = "oos"
DIMENSIONS, HIDDEN = 48, 384
SEEN = {"words": 1, "pairs": 3, "chars": 3}
"""In how many training texts a feature must occur to get a row of its own: keeps the file small, costs no accuracy."""
EPOCHS, PATIENCE = 10, 4
BATCH, GIVEN, MADE = 64, 12, 16
"""Texts per step: in scope, out of scope from the data, out of scope made up."""
LEARNING_RATE = 3e-3
SMOOTHING = 0.15
FEATURE_DROPOUT, DROPOUT, RARE_DROPOUT = 0.35, 0.3, 0.3
FLAT_WEIGHT = 0.3
MISSPELT = 0.2
"""Share of in-scope texts shown with typing mistakes; without them a mistyped word is taken for one never heard of."""
MADE_TEXTS = 20_000


class Rows(NamedTuple):
    """Texts with their labels."""

    texts: list[str]
    labels: list[str]

    def where(self, in_scope: bool) -> Rows:
        kept = [(t, y) for t, y in zip(*self, strict=True) if (y != OUT_OF_SCOPE) == in_scope]
        return Rows([t for t, _ in kept], [y for _, y in kept])


def read(paths: Sequence[Path]) -> dict[str, Rows]:
    """The splits found among ``paths`` (files, or folders of files), by name."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    splits: dict[str, Rows] = {}
    for file in files:
        name = re.search(r"(train|val|test)[^/]*\.tsv(\.gz)?$", file.name)
        if name:
            data = file.read_bytes()
            lines = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8").split("\n")
            pairs = [line.split("\t", 1) for line in lines if line.strip()]
            splits[name[1]] = Rows([text for _, text in pairs], [label for label, _ in pairs])
    return splits


def make_out_of_scope(rows: Rows, count: int, chance: random.Random) -> list[str]:
    """Texts that keep the frame of in-scope ones but lose the words that speak for their label.

    Each such word becomes a word of any other text or a word that does not exist; a few texts consist of the latter.
    """
    spread: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in zip(*rows, strict=True):
        for word in dict.fromkeys(tokens(text)):  # a set's order would differ from process to process
            spread[word][label] += 1
    words = list(spread)

    def unheard() -> str:
        return "".join(chance.choices("etaoinshrdlucmfwypvbgk", k=chance.randint(3, 9)))

    made = []
    for n in range(count):
        pick = chance.randrange(len(rows.texts))
        label, found = rows.labels[pick], []
        for word in tokens(rows.texts[pick]):
            speaks = spread[word][label] / (spread[word].total() + 2) > 0.1 or chance.random() < 0.1
            other = unheard() if chance.random() < 0.5 else chance.choice(words)
            found.append(other if speaks else word)
        made.append(" ".join(found) if n % 25 else " ".join(unheard() for _ in range(n // 25 % 8)))
    return made


def misspell(text: str, chance: random.Random) -> str:
    """``text`` with one or two of its longer words mistyped: a letter lost, doubled, replaced, or two swapped."""
    words = text.split()
    longer = [i for i, word in enumerate(words) if len(word) > 3]
    for i in chance.sample(longer, min(len(longer), chance.randint(1, 2))):
        word, at = words[i], chance.randrange(1, len(words[i]) - 1)
        other = chance.choice("etaoinshrdlucm")
        middle = chance.choice(["", word[at] * 2, other, None])
        words[i] = word[:at] + (word[at + 1] + word[at] + word[at + 2 :] if middle is None else middle + word[at + 1 :])
    return " ".join(words)


class Vocabulary:
    """Known hashes, sorted, and texts as arrays of their row numbers: 0 padding, last an unknown word."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = {kind: Counter[int]() for kind in KINDS}
        for text in texts:
            for kind, hashes in features(text).items():
                counts[kind].update(set(hashes))
        kept = {h for kind in KINDS for h, n in counts[kind].items() if n >= SEEN[kind]}
        self.hashes: NDArray[np.int64] = np.array(sorted(kept), np.int64)
        self.unknown = len(self.hashes) + 1
        rare = [h for h, n in counts["words"].items() if n <= 2]
        self.rare = torch.zeros(self.unknown + 1, dtype=torch.bool)
        self.rare[torch.from_numpy(np.searchsorted(self.hashes, np.array(rare, np.int64)) + 1)] = True

    def rows(self, texts: list[str]) -> list[Tensor]:
        """By kind, int64 [texts, longest]."""
        found = []
        for kind, hashes in encode(texts).items():
            at = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
            missing = self.unknown if kind == "words" else 0
            row = np.where(self.hashes[at] == hashes, at + 1, missing)
            found.append(torch.from_numpy(np.where(hashes == 0, 0, row)))
        return found


class Network(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """Rows by kind -> logits [batch, labels]."""

    def __init__(self, vocabulary: Vocabulary, labels: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.table = nn.Embedding(vocabulary.unknown + 1, DIMENSIONS, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.1)
        with torch.no_grad():
            self.table.weight[0] = 0  # padding: left out here, added by the graph
        self.hidden = nn.Linear(len(KINDS) * DIMENSIONS, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.out = nn.Linear(HIDDEN, labels)

    def forward(self, rows: list[Tensor]) -> Tensor:
        pooled = []
        for kind, row in zip(KINDS, rows, strict=True):
            if self.training:
                if kind == "words":  # rare words stand in for those never seen
                    unseen = self.vocabulary.rare[row] & (torch.rand(row.shape) < RARE_DROPOUT)
                    row = row.masked_fill(unseen, self.vocabulary.unknown)
                row = row.masked_fill(torch.rand(row.shape) < FEATURE_DROPOUT, 0)
            present = row > 0
            count = present.sum(1)
            total = functional.embedding_bag(row[present], self.table.weight, count.cumsum(0) - count, mode="sum")
            pooled.append(total / count.clamp(min=1).sqrt()[:, None])
        hidden = self.norm(self.hidden(torch.cat(pooled, 1))).relu()
        logits: Tensor = self.out(functional.dropout(hidden, DROPOUT, self.training))
        return logits


def take(rows: list[Tensor], which: Tensor) -> list[Tensor]:
    """Some of the texts, without columns that are only padding."""
    taken = [row[which] for row in rows]
    return [row[:, : max(1, int((row > 0).sum(1).max()))] for row in taken]


def join(*parts: list[Tensor]) -> list[Tensor]:
    """Texts of several origins as one batch."""
    joined = []
    for rows in zip(*parts, strict=True):
        longest = max(row.shape[1] for row in rows)
        joined.append(torch.cat([functional.pad(row, (0, longest - row.shape[1])) for row in rows]))
    return joined


def train(data: Rows, labels: list[str], out: Path, seed: int, resume: bool) -> Weights:
    """Train, keeping the weights of the best held-out epoch; a checkpoint after each, from which ``resume`` goes on."""
    torch.manual_seed(seed)
    number = {label: i for i, label in enumerate(labels)}
    inside, outside = data.where(True), data.where(False)
    held = torch.zeros(len(inside.texts), dtype=torch.bool)
    held[torch.randperm(len(held))[: len(held) // 20]] = True
    fitted = Rows(*([v for v, h in zip(column, held.tolist(), strict=True) if not h] for column in inside))
    vocabulary = Vocabulary(fitted.texts)
    chance = random.Random(seed)
    typed = [misspell(text, chance) for text in inside.texts]
    x, y = vocabulary.rows(inside.texts + typed), torch.tensor([number[label] for label in inside.labels])
    held_x, held_y = take(x, torch.nonzero(held)[:, 0]), y[held]
    made = vocabulary.rows(make_out_of_scope(fitted, MADE_TEXTS, chance))
    given = vocabulary.rows(outside.texts) if outside.texts else made
    network = Network(vocabulary, len(labels))
    members = torch.nonzero(~held)[:, 0]
    steps = len(members) // BATCH
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * steps, pct_start=0.1)
    best, best_loss, best_epoch, start = network.state_dict(), float("inf"), 0, 0
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.is_file():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if saved["seed"] != seed or saved["rows"] != len(data.texts):
            raise SystemExit(f"{checkpoint} is of another seed or other data; train without --resume")
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["chance"])
        best, best_loss, best_epoch, start = saved["best"], saved["best_loss"], saved["best_epoch"], saved["epoch"]
        print(f"resumed after epoch {start}")
    print(f"{len(members)} texts, {held.sum()} held out, {len(labels)} labels, {len(vocabulary.hashes)} features")
    begun = time.perf_counter()
    for epoch in range(start + 1, EPOCHS + 1):
        network.train()
        total = 0.0
        for chosen in members[torch.randperm(len(members))][: steps * BATCH].split(BATCH):
            flat = [torch.randint(len(given[0]), (GIVEN,)), torch.randint(len(made[0]), (MADE,))]
            copy = chosen + len(y) * (torch.rand(BATCH) < MISSPELT)
            logits = network(join(take(x, copy), take(given, flat[0]), take(made, flat[1])))
            loss = functional.cross_entropy(logits[:BATCH], y[chosen], label_smoothing=SMOOTHING)
            loss = loss - FLAT_WEIGHT * logits[BATCH:].log_softmax(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        network.eval()
        with torch.no_grad():
            held_logits = network(held_x)
        right = (held_logits.argmax(1) == held_y).float().mean().item()
        held_loss = functional.cross_entropy(held_logits / temperature(held_logits, held_y), held_y).item()
        if held_loss < best_loss:
            best = {name: value.clone() for name, value in network.state_dict().items()}
            best_loss, best_epoch = held_loss, epoch
        print(
            f"epoch {epoch}/{EPOCHS}: loss {total / steps:.3f}, held out {right:.2%} right, "
            f"calibrated loss {held_loss:.3f}, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "seed": seed}
        state |= {"schedule": schedule.state_dict(), "chance": torch.get_rng_state(), "rows": len(data.texts)}
        state |= {"best": best, "best_loss": best_loss, "best_epoch": best_epoch}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        if epoch - best_epoch >= PATIENCE:
            break
    network.load_state_dict(best)
    network.eval()
    with torch.no_grad():
        divide = temperature(network(held_x), held_y)
    print(f"epoch {best_epoch} is kept, temperature {divide:.3f}")
    value = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return Weights(
        vocabulary.hashes,
        value["table.weight"],
        value["hidden.weight"].T,
        value["hidden.bias"],
        value["norm.weight"],
        value["norm.bias"],
        value["out.weight"].T,
        value["out.bias"],
        divide,
    )


def temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide logits by so that the probabilities fit ``labels`` best (Guo et al. 2017, arXiv 1706.04599)."""
    grid = torch.logspace(-1.5, 0.5, 81)
    losses = [functional.cross_entropy(logits / t, labels) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


def answers(model: Path, rows: Rows, labels: list[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Any]:
    """What the exported file says, text by text as it will be asked: best label right, in scope, its probability."""
    session = OnnxModel(model)
    found = np.stack([session.run_sync(**encode([text]))["probabilities"][0] for text in rows.texts])
    right = np.array([labels[i] == label for i, label in zip(found.argmax(1), rows.labels, strict=True)])
    return right, np.array([label != OUT_OF_SCOPE for label in rows.labels]), found.max(1)


def choose_floor(inside: NDArray[np.bool_], confidence: Any) -> float:
    """The confidence that nine in ten in-scope texts reach.

    In-scope texts are many, so it moves little from seed to seed; the point that separates them best from the hundred
    out-of-scope ones moves by 0.2.
    """
    return round(float(np.quantile(confidence[inside], 0.1)), 2)


def measure(right: NDArray[np.bool_], inside: NDArray[np.bool_], confidence: Any, floor: float) -> dict[str, Any]:
    """The figures of the card; shares of in-scope or out-of-scope texts, but ``wrong_accepted``, a count of both."""
    accepted = confidence >= floor
    bins = np.minimum((confidence[inside] * 15).astype(int), 14)
    gaps = [
        abs(right[inside][bins == b].mean() - confidence[inside][bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    found: dict[str, Any] = {
        "n": len(right),
        "in_scope_accuracy": right[inside].mean(),
        "abstained_in_scope": 1 - accepted[inside].mean(),
        "wrong_accepted": int((accepted & ~right).sum()),
        "accepted_in_scope_right": right[inside & accepted].mean(),
        "calibration_error": sum(gaps),
    }
    if not inside.all():
        order = confidence[~inside][None] < confidence[inside][:, None]
        ties = confidence[~inside][None] == confidence[inside][:, None]
        found["abstained_out_of_scope"] = 1 - accepted[~inside].mean()
        found["auroc_in_or_out_of_scope"] = (order + ties / 2).mean()
    return {name: value if isinstance(value, int) else round(float(value), 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files with train, val, test, or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.onnx, labels.txt, measured.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--measure", action="store_true", help="measure the model that is in --out; train nothing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    splits = read(given.data)
    model, names, report = (given.out / name for name in ("model.onnx", "labels.txt", "measured.json"))
    if given.measure:
        labels = names.read_text("utf-8").split()
        floor = float(json.loads(report.read_text("utf-8"))["floor"])
    else:
        if "train" not in splits:
            raise SystemExit("no file with `train` in its name and the ending .tsv or .tsv.gz")
        given.out.mkdir(parents=True, exist_ok=True)
        labels = sorted(set(splits["train"].labels) - {OUT_OF_SCOPE})
        weights = train(splits["train"], labels, given.out, given.seed, given.resume)
        model.write_bytes(build(weights, KINDS).SerializeToString())
        names.write_text("\n".join(labels) + "\n", "utf-8")
        floor = choose_floor(*answers(model, splits["val"], labels)[1:]) if "val" in splits else 0.5
    figures = {name: measure(*answers(model, rows, labels), floor) for name, rows in splits.items() if name != "train"}
    text = json.dumps({"floor": floor, "bytes": model.stat().st_size, **figures}, indent=2)
    print(text)
    if not given.measure:
        report.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
