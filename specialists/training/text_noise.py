"""Texts made from texts: with typing mistakes, and without the words that speak for their label.

A classifier that has only seen what fits is sure of everything. So the network is shown texts that fit no label, with
the target "any label as likely as another". Few or none of them come with the data; more are made here from texts that
fit, by replacing just the words that speak for the label, which leaves "can you tell me how to …" about something never
heard of (compare MASKER, arXiv 2012.09392).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from specialists.texts import tokens

__all__ = ["make_out_of_scope", "misspell"]

LETTERS = "etaoinshrdlucmfwypvbgk"
SPEAKS = 0.1
"""A word speaks for a label when it is found with it so much more often than by chance: 0 is chance, 1 is always."""
FEW_LABELS = 20


def make_out_of_scope(texts: Sequence[str], labels: Sequence[str], count: int, chance: random.Random) -> list[str]:
    """Texts that keep the frame of the given ones but lose the words that speak for their label.

    Each such word becomes a word of any other text or a word that does not exist; a few texts consist of the latter.
    """
    spread: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in zip(texts, labels, strict=True):
        for word in dict.fromkeys(tokens(text)):  # a set's order would differ from process to process
            spread[word][label] += 1
    share = {label: number / len(labels) for label, number in Counter(labels).items()}
    least = {label: own + SPEAKS * (1 - own) for label, own in share.items()}

    def speaks(word: str, label: str) -> bool:
        found = spread[word]
        return found[label] / (found.total() + 2) > least[label]

    words = list(spread)
    if len(share) < FEW_LABELS:
        # With few labels any word may speak for one of them; a text full of such words would fit after all.
        words = [word for word in words if not any(speaks(word, label) for label in spread[word])] or words
    letters = _letters(words)

    def unheard() -> str:
        return "".join(chance.choices(letters, k=chance.randint(3, 9)))

    made = []
    for n in range(count):
        pick = chance.randrange(len(texts))
        label, found = labels[pick], []
        for word in tokens(texts[pick]):
            if speaks(word, label) or chance.random() < 0.1:
                found.append(unheard() if chance.random() < 0.5 else chance.choice(words))
            else:
                found.append(word)
        made.append(" ".join(found) if n % 25 else " ".join(unheard() for _ in range(n // 25 % 8)))
    return made


def _letters(words: Sequence[str]) -> str:
    """Letters to make words of: English ones, or the most frequent ones of another script."""
    counts = Counter(letter for word in words for letter in word if letter.isalpha())
    own = [letter for letter, _ in counts.most_common(len(LETTERS))]
    latin = sum(counts[letter] for letter in LETTERS)
    return LETTERS if not own or latin * 2 > counts.total() else "".join(own)


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
