"""A user's word list, and the one word of it that a misspelt word can be. Knows nothing of what is protected.

A word is misspelt when it is not in the list and exactly one word of the list is one edit away: a letter too many, one
missing, one wrong, or two neighbours changed places (the restricted Damerau-Levenshtein distance 1). Where there are
two such words it stays as it is.
"""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import ConfigurationError
from .characters import WHITE

__all__ = ["SENTENCE_ENDS", "WORD", "WordList", "bare", "corrected"]

MOST_BYTES = 64 * 1024 * 1024
LONGEST = 40
SHORTEST = 3
"""Letters of the shortest word that is ever corrected; shorter ones are near too many others."""


WORD = re.compile(rf"[^{WHITE}]++")
SENTENCE_ENDS = frozenset(".!?…。！？¿¡")
_AROUND_LEFT = "([\"'“‘„«¿¡"
_AROUND_RIGHT = ".,;:!?…)]\"'”’»"


class WordList:
    """Words, compared without regard to capitals. A ``str`` or a path is a file of UTF-8, a word to a line.

    Raises :class:`~brain.errors.ConfigurationError` for a file that cannot be read, what is no text, or no words.
    """

    def __init__(self, words: Iterable[str] | str | os.PathLike[str]) -> None:
        listed: dict[str, str] = {}
        given: Iterable[str] = _read(words) if isinstance(words, (str, os.PathLike)) else words
        for word in given:
            if not isinstance(word, str):
                raise ConfigurationError(f"a word list holds texts, not {type(word).__name__}; give words or a path")
            word = unicodedata.normalize("NFC", word.strip())
            if word:
                listed.setdefault(word.lower(), word)
        if not listed:
            raise ConfigurationError("the word list is empty; give words, or spelling=None to correct none")
        self._listed = listed
        # What a correction may be: letters, with apostrophes or hyphens between them.
        can_be = [word for word in listed if _is_word(word)]
        self._forward = sorted(can_be)
        self._backward = sorted(word[::-1] for word in can_be)
        self._letters = "".join(sorted(set("".join(can_be))))

    def __len__(self) -> int:
        return len(self._listed)

    def __contains__(self, word: str) -> bool:
        return word.lower() in self._listed

    def like(self, word: str) -> str | None:
        """:meth:`near`, with a capital where ``word`` has one; ``None`` too for a word with capitals inside."""
        right = self.near(word) if word[1:].islower() else None
        return right[:1].upper() + right[1:] if right is not None and word[0].isupper() else right

    def near(self, word: str) -> str | None:
        """The one word of the list that is one edit away from ``word``, as the list writes it; ``None``: none, or more.

        An edit at a place needs what stands before it to begin a word of the list, and what stands after it to end one;
        so few places are tried.
        """
        if not SHORTEST <= len(word) <= LONGEST:
            return None
        word = word.lower()
        size = len(word)
        begins = _reach(self._forward, word)
        ends = _reach(self._backward, word[::-1])
        found: set[str] = set()
        for place in range(max(0, size - ends - 2), min(begins, size) + 1):
            before, rest = word[:place], word[place:]
            tries = [before + letter + rest for letter in self._letters] if len(rest) <= ends else []
            if rest and len(rest) - 1 <= ends:
                tries.append(before + rest[1:])
                tries += [before + letter + rest[1:] for letter in self._letters]
            if len(rest) > 1:
                tries.append(before + rest[1] + rest[0] + rest[2:])
            found.update(each for each in tries if each in self._listed and _is_word(each))
            if len(found) > 1:
                return None
        return self._listed[found.pop()] if found else None


def bare(token: str) -> str:
    """A word without the marks around it."""
    return token.lstrip(_AROUND_LEFT).rstrip(_AROUND_RIGHT)


def corrected(
    piece: str, words: Mapping[str, str], before: str, ends: bool, corrections: Counter[tuple[str, str]]
) -> str:
    """``piece`` with the misspelt ``words`` corrected that stand free in it and are no names.

    ``before``: the character before the piece, nothing at the beginning; ``ends``: the text ends with it.
    """
    parts, place = [], 0
    for token in WORD.finditer(piece):
        free = (token.start() > 0 or not before) and (token.end() < len(piece) or ends)
        text = token.group()
        word = bare(text)
        right = words.get(word)
        name = word[:1].isupper() and before != "" and before not in SENTENCE_ENDS
        if right is not None and free and not name:
            start = token.start() + len(text) - len(text.lstrip(_AROUND_LEFT))
            parts += [piece[place:start], right]
            place = start + len(word)
            corrections[word, right] += 1
        before = text[-1]
    return "".join([*parts, piece[place:]]) if parts else piece


def _reach(ordered: Sequence[str], word: str) -> int:
    """How many letters of ``word``, from its first, begin a word of the list."""
    low, high = 0, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        at = bisect_left(ordered, word[:middle])
        if at < len(ordered) and ordered[at].startswith(word[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def _is_word(word: str) -> bool:
    return word[:1].isalpha() and word[-1:].isalpha() and word.replace("'", "").replace("-", "").isalpha()


def _read(path: str | os.PathLike[str]) -> list[str]:
    file = Path(path)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ConfigurationError(f"the word list {file} has more than {MOST_BYTES:,} bytes; give a shorter one")
        return raw.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"the word list {str(file)!r} cannot be read: {why}; see that it is a text file"
        ) from None
