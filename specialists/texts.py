"""From a text to the numbers that a text classifier's graph reads; each way is a scheme that a card names.

``hashed-ngrams``: words, word pairs and character n-grams as CRC-32. There is no vocabulary here: which hashes are
known, and what each means, stands in the graph, which searches its own sorted table. So the same few lines serve
training and inference, for any labels and any model file. Another way to read texts is another scheme, since models
depend on each detail.

``tokenizer``: the tokens of a ``tokenizer.json``, as Hugging Face's library reads it, for a graph with a sentence
encoder inside.

This module knows nothing of models, labels and files.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from .errors import CardError, MissingRuntime

__all__ = ["KINDS", "SCHEME", "TOKENIZER", "Tokens", "encode", "features", "tokens"]

SCHEME = "hashed-ngrams"
"""What a card calls these features."""

TOKENIZER = "tokenizer"
"""What a card calls the tokens of a ``tokenizer.json``."""

KINDS = ("words", "pairs", "chars")
"""The graph's inputs, in order."""

MAX_WORDS = 256
"""Later words of a long text are not read: messages are short, and the time per call stays bounded."""

MAX_LETTERS = 32
"""Later letters of a long word are not cut into n-grams."""

_LETTER = r"[^\W\d_]|[\u0900-\u0dff](?<![\d\u0964\u0965])"  # vowel signs of India's scripts belong to their words
_ALONE = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff](?<!\d)(?<!\W)"
_SIMPLE_WORD = re.compile(r"[^\W\d_]+|\d+")
"""Finds in ASCII what ``_WORD`` does, sooner."""
_WORD = re.compile(rf"{_ALONE}|(?:(?!{_ALONE})(?:{_LETTER}))+|\d+")
_QUOTE = re.compile("['\u2019\u02bc]")


def tokens(text: str) -> list[str]:
    """The words of ``text``: lower case, no accents, no punctuation; a number becomes as many zeros as it has digits.

    An apostrophe joins (``what's`` is ``whats``), as people type on phones; 1,000 and 7,500 mean the same to a router.
    Of scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each letter is a word, so that
    neighbours are pairs.
    """
    plain = unicodedata.normalize("NFKD", _QUOTE.sub("", text[: MAX_WORDS * 64]).casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = (_SIMPLE_WORD if plain.isascii() else _WORD).findall(plain)
    return [re.sub(r"\d", "0", word)[:64] for word in words[:MAX_WORDS]]


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


LONGEST_WORD = 1000
"""A tokenizer that looks for parts of a word takes the square of its length and more."""

_WORDS_OF_BPE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    " {2,}",
    r"\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    _WORDS_OF_BPE % "",
    _WORDS_OF_BPE % "{1,3}",
}
"""Regular expressions that tokenizers are known to have. They are read in this process, and others may never end."""


def _check_bounded(pairs: list[tuple[str, Any]]) -> None:
    """Raise ``ValueError`` for a part of a tokenizer that could take for ever over some text, or make it grow.

    It is given each object of the file; a vocabulary, whose values are numbers, has nothing that is looked for here.
    """
    for key, value in pairs:
        if key == "Regex" and isinstance(value, str) and value not in _PATTERNS:
            raise ValueError("it has a regular expression of its own, which may take for ever on some texts")
        if key == "max_input_chars_per_word" and not (isinstance(value, int) and value <= LONGEST_WORD):
            raise ValueError(f"it reads words of more than {LONGEST_WORD} letters")
        if (key == "String" and value == "") or (key == "type" and value == "Replace" and not _shrinks(pairs)):
            raise ValueError("it replaces letters by more letters")


def _shrinks(replace: list[tuple[str, Any]]) -> bool:
    return all(len(value) <= 1 for key, value in replace if key == "content" and isinstance(value, str))


class Tokens:
    """The tokens of a ``tokenizer.json``, up to ``most`` of a text.

    ``data``: its bytes, of a file that may be somebody else's; ``name`` says in errors which. Raises
    :class:`MissingRuntime` when the library is not installed, :class:`CardError` when the bytes are no tokenizer.
    """

    def __init__(self, data: bytes, *, most: int, name: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingRuntime(
                f"{name} is read by the package tokenizers, which is not installed;"
                " run `pip install 'brain-specialists[encoder]'`"
            ) from None
        try:
            text = data.decode("utf-8")
            json.loads(text, object_pairs_hook=_check_bounded)
            self._tokenizer = Tokenizer.from_str(text)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(most)
        except Exception as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise CardError(f"{name} is not a tokenizer that can be read ({why}); save it anew") from None

    def encode(self, texts: list[str]) -> dict[str, NDArray[np.int64]]:
        """The graph's inputs for ``texts``: int64 arrays [texts, longest], shorter rows filled up and masked out."""
        import numpy as np

        # Later text cannot be among the first tokens; what is not read costs nothing.
        # One by one: a batch would start threads, which a fork does not survive.
        found = [self._tokenizer.encode(text[: MAX_WORDS * 64]) for text in texts]
        ids = np.zeros((len(texts), max([1, *(len(each.ids) for each in found)])), np.int64)
        mask = np.zeros_like(ids)
        for row, marks, each in zip(ids, mask, found, strict=True):
            row[: len(each.ids)] = each.ids
            marks[: len(each.ids)] = 1
        return {"input_ids": ids, "attention_mask": mask}
