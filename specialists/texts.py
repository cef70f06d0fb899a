"""From a text to the numbers that a text classifier's graph reads: words, word pairs and character n-grams as CRC-32.

There is no vocabulary here: which hashes are known, and what each means, stands in the graph, which searches its own
sorted table. So the same few lines serve training and inference, for any labels and any model file. They are the scheme
``hashed-ngrams`` of a card; another way to read texts is another scheme, since models depend on each detail. This
module knows nothing of models and labels.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["KINDS", "SCHEME", "encode", "features", "tokens"]

SCHEME = "hashed-ngrams"
"""What a card calls these features."""

KINDS = ("words", "pairs", "chars")
"""The graph's inputs, in order."""

MAX_WORDS = 256
"""Later words of a long text are not read: messages are short, and the time per call stays bounded."""

MAX_LETTERS = 32
"""Later letters of a long word are not cut into n-grams."""

_WORD = re.compile(r"[^\W\d_]+|\d+")
_QUOTE = re.compile("['\u2019\u02bc]")


def tokens(text: str) -> list[str]:
    """The words of ``text``: lower case, no accents, no punctuation; a number becomes as many zeros as it has digits.

    An apostrophe joins (``what's`` is ``whats``), as people type on phones; 1,000 and 7,500 mean the same to a router.
    """
    plain = unicodedata.normalize("NFKD", _QUOTE.sub("", text[: MAX_WORDS * 64]).casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [re.sub(r"\d", "0", word)[:64] for word in _WORD.findall(plain)[:MAX_WORDS]]


def features(text: str) -> dict[str, list[int]]:
    """The hashes of ``text`` by kind: words, pairs of neighbours (with both ends), character 3- to 5-grams of words.

    A hash is 1 … 2**32 - 2: the graph keeps 0 and 2**32 - 1 for padding.
    """
    words = tokens(text)
    ends = ["<", *words, ">"]
    pairs = [f"{left} {right}" for left, right in pairwise(ends)] if words else []
    chars = []
    for word in words:
        marked = f"<{word[:MAX_LETTERS]}>"
        chars += [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    return {
        kind: [1 + zlib.crc32(f"{kind}:{part}".encode()) % (2**32 - 2) for part in parts]
        for kind, parts in zip(KINDS, (words, pairs, chars), strict=True)
    }


def encode(texts: list[str]) -> dict[str, NDArray[np.int64]]:
    """The graph's inputs for ``texts``: by kind an int64 array [texts, longest], rows filled up with 0."""
    import numpy as np

    found = [features(text) for text in texts]
    arrays = {}
    for kind in KINDS:
        array = np.zeros((len(texts), max([1, *(len(row[kind]) for row in found)])), np.int64)
        for row, hashes in zip(array, found, strict=True):
            row[: len(hashes[kind])] = hashes[kind]
        arrays[kind] = array
    return arrays
