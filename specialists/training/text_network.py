"""The networks of a text classifier, and what they read: sums of embedded features, or a head over sentence vectors.

The first adds up embeddings of words, word pairs and character n-grams (``specialists/texts.py``), divides each kind
by the root of its number, and has one hidden layer. The second is one hidden layer over vectors that somebody else's
encoder made. How they are trained is in ``text_training.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from specialists.texts import KINDS, features
from specialists.training.text_graph import Head, Weights

__all__ = ["Features", "Hashed", "HeadNetwork", "NgramNetwork", "Ragged", "Vectors", "Vocabulary", "hashed"]

DIMENSIONS, HIDDEN = 48, 384
HEAD_HIDDEN = 256
FEATURE_DROPOUT, DROPOUT, RARE_DROPOUT = 0.35, 0.3, 0.3
MOST_FEATURES = 200_000
"""Rows of the table of embeddings; rarer features are left out until it is no larger. It keeps the file small."""
CHUNK = 1000


class Bags(NamedTuple):
    """One kind of feature of several texts: all rows of the table, one text after the other, and how many each has."""

    rows: Tensor
    counts: Tensor


class Features(Protocol):
    """All texts of a training, in a form that a network reads."""

    def take(self, which: Tensor) -> list[Bags]:
        """Some of them, as a batch."""
        ...

    def to(self, device: str) -> Features:
        """The same on another device."""
        ...


class Ragged:
    """Rows of the table of embeddings, by kind and text, without any padding."""

    def __init__(self, flat: list[Tensor], ends: list[Tensor]) -> None:
        self.flat, self.ends = flat, ends

    def take(self, which: Tensor) -> list[Bags]:
        """Some of the texts, as a batch."""
        taken = []
        for flat, ends in zip(self.flat, self.ends, strict=True):
            starts = ends[which]
            counts = ends[which + 1] - starts
            before = counts.cumsum(0) - counts
            at = (starts - before).repeat_interleave(counts) + torch.arange(int(counts.sum()), device=flat.device)
            taken.append(Bags(flat[at].long(), counts))
        return taken

    def to(self, device: str) -> Ragged:
        """The same on another device."""
        return Ragged([flat.to(device) for flat in self.flat], [ends.to(device) for ends in self.ends])


class Vectors:
    """One vector a text."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def take(self, which: Tensor) -> list[Bags]:
        """Some of the texts, as a batch: the vectors stand where the rows of a table would."""
        return [Bags(self.vectors[which], torch.ones(0))]

    def to(self, device: str) -> Vectors:
        """The same on another device."""
        return Vectors(self.vectors.to(device))


class Hashed(NamedTuple):
    """The hashes of texts by kind: uint32, one text after the other, and where each begins and the last ends."""

    flat: list[NDArray[np.uint32]]
    ends: list[NDArray[np.int64]]


def hashed(texts: Sequence[str], tick: Callable[[int, int], None]) -> Hashed:
    """The features of ``texts``. ``tick`` is called now and then with how many are done, of how many."""
    flat: list[list[NDArray[np.uint32]]] = [[] for _ in KINDS]
    counts: list[list[int]] = [[] for _ in KINDS]
    for start in range(0, len(texts), CHUNK):
        tick(start, len(texts))
        found = [features(text) for text in texts[start : start + CHUNK]]
        for n, kind in enumerate(KINDS):
            flat[n].append(np.array([value for each in found for value in each[kind]], np.uint32))
            counts[n] += [len(each[kind]) for each in found]
    empty = np.zeros(0, np.uint32)
    return Hashed(
        [np.concatenate([empty, *parts]) for parts in flat],
        [np.concatenate([[0], np.cumsum(own)]).astype(np.int64) for own in counts],
    )


class Vocabulary:
    """Known hashes, sorted; a text's features become their row numbers: 0 is nothing, the last an unknown word."""

    def __init__(self, fitted: Hashed) -> None:
        found = [_texts_with(flat, ends) for flat, ends in zip(*fitted, strict=True)]
        floors = self._floors(len(fitted.ends[0]) - 1)
        while sum(int((n >= floor).sum()) for (_, n), floor in zip(found, floors, strict=True)) > MOST_FEATURES:
            floors = [floor + 1 for floor in floors]
        kept = [values[n >= floor] for (values, n), floor in zip(found, floors, strict=True)]
        self.hashes: NDArray[np.int64] = np.unique(np.concatenate(kept)).astype(np.int64)
        self.unknown = len(self.hashes) + 1
        words, seen = found[KINDS.index("words")]
        rare = words[(seen >= floors[0]) & (seen <= max(2, floors[0]))].astype(np.int64)
        self.rare = torch.zeros(self.unknown + 1, dtype=torch.bool)
        self.rare[torch.from_numpy(np.searchsorted(self.hashes, rare) + 1)] = True

    @staticmethod
    def _floors(texts: int) -> list[int]:
        """In how many texts a feature of each kind must be found: keeps the file small, and costs no accuracy."""
        return [1, 3, 3] if texts >= 3_000 else [1, 2, 2]

    def rows(self, texts: Hashed) -> Ragged:
        """What is known of the texts' features; an unknown word counts as one, other unknown features are left out."""
        flat, ends = [], []
        for kind, hashes, bounds in zip(KINDS, *texts, strict=True):
            at = np.searchsorted(self.hashes, hashes).clip(max=max(0, len(self.hashes) - 1))
            known = self.hashes[at] == hashes if len(self.hashes) else np.zeros(len(hashes), bool)
            row = np.where(known, at + 1, self.unknown if kind == "words" else 0)
            before = np.concatenate([[0], np.cumsum(row > 0)])
            flat.append(torch.from_numpy(row[row > 0].astype(np.int32)))
            ends.append(torch.from_numpy(before[bounds].astype(np.int64)))
        return Ragged(flat, ends)


def _texts_with(flat: NDArray[np.uint32], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Each hash, and in how many texts it is found."""
    values: list[NDArray[np.uint32]] = []
    for start in range(0, len(ends) - 1, CHUNK):
        bounds = ends[start : start + CHUNK + 1]
        text = np.repeat(np.arange(len(bounds) - 1, dtype=np.uint64), np.diff(bounds))
        pairs = np.unique((text << np.uint64(32)) | flat[bounds[0] : bounds[-1]].astype(np.uint64))
        values.append((pairs & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    found, counts = np.unique(np.concatenate(values), return_counts=True)
    return found, counts.astype(np.int64)


class NgramNetwork(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """Features by kind -> logits [batch, labels]."""

    rare: Tensor

    def __init__(self, vocabulary: Vocabulary, labels: int) -> None:
        super().__init__()
        self.hashes, self.unknown = vocabulary.hashes, vocabulary.unknown
        self.register_buffer("rare", vocabulary.rare, persistent=False)
        self.table = nn.Embedding(vocabulary.unknown + 1, DIMENSIONS, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.1)
        with torch.no_grad():
            self.table.weight[0] = 0  # padding: left out here, added by the graph
        self.hidden = nn.Linear(len(KINDS) * DIMENSIONS, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.out = nn.Linear(HIDDEN, labels)

    def forward(self, batch: list[Bags]) -> Tensor:
        """The logits of a batch."""
        pooled = []
        for kind, (rows, counts) in zip(KINDS, batch, strict=True):
            if self.training:
                if kind == "words":  # rare words stand in for those never seen
                    unseen = self.rare[rows] & (torch.rand(rows.shape, device=rows.device) < RARE_DROPOUT)
                    rows = rows.masked_fill(unseen, self.unknown)
                kept = torch.rand(rows.shape, device=rows.device) >= FEATURE_DROPOUT
                text = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
                rows, counts = rows[kept], torch.bincount(text[kept], minlength=len(counts))
            total = functional.embedding_bag(rows, self.table.weight, counts.cumsum(0) - counts, mode="sum")
            pooled.append(total / counts.clamp(min=1).sqrt()[:, None])
        hidden = self.norm(self.hidden(torch.cat(pooled, 1))).relu()
        logits: Tensor = self.out(functional.dropout(hidden, DROPOUT, self.training))
        return logits

    def weights(self, temperature: float) -> Weights:
        """What the graph is built from."""
        value = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        return Weights(
            self.hashes,
            value["table.weight"],
            value["hidden.weight"].T,
            value["hidden.bias"],
            value["norm.weight"],
            value["norm.bias"],
            value["out.weight"].T,
            value["out.bias"],
            temperature,
        )


class HeadNetwork(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """Vectors of length 1 -> logits [batch, labels]."""

    def __init__(self, dimensions: int, labels: int) -> None:
        super().__init__()
        self.scale = float(dimensions) ** 0.5
        self.hidden = nn.Linear(dimensions, HEAD_HIDDEN)
        self.out = nn.Linear(HEAD_HIDDEN, labels)

    def forward(self, batch: list[Bags]) -> Tensor:
        """The logits of a batch."""
        hidden = self.hidden(functional.dropout(batch[0].rows * self.scale, 0.1, self.training)).relu()
        logits: Tensor = self.out(functional.dropout(hidden, DROPOUT, self.training))
        return logits

    def head(self, temperature: float) -> Head:
        """What the graph's last part is built from."""
        value = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        return Head(
            value["hidden.weight"].T * self.scale,
            value["hidden.bias"],
            value["out.weight"].T,
            value["out.bias"],
            temperature,
        )
