"""Blanks and line ends, tidied: one blank between words, one empty line between paragraphs, none at a line's end.

What stands at the beginning of a line is kept: it may be code, or a list within a list.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

from .characters import LINE_ENDS, WHITE

__all__ = ["tidy_blanks"]

_RUN = re.compile(rf"[{WHITE}]{{2,}}|[^\S \n\t\v\f\x1c-\x1f\u3000\u1680]")
_ENDING = re.compile(rf"[{WHITE}]++\Z")
_OPENING = re.compile(rf"\A[{WHITE}]++")
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")
_NARROW = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
_KEPT_AS_IT_IS = re.compile("[\t\u1680\u3000]")
"""Blanks that align columns or belong to a script: a run that has one is not shortened."""


def tidy_blanks(piece: str, text: str, start: int, end: int, changes: Counter[str]) -> str:
    """``piece``, which is made of ``text[start:end]``, with tidy blanks; none at the ends of ``text``."""
    if not (start == 0 or end == len(text) or _RUN.search(piece)):
        return piece
    opens = start == 0 or text[start - 1] in LINE_ENDS
    piece = _RUN.sub(partial(_tidy, changes=changes, opens=opens), piece)
    tidy = piece
    if start == 0 and (found := _OPENING.search(tidy)):
        tidy = found.group().rpartition("\n")[2] + tidy[found.end() :]
    if end == len(text) and (found := _ENDING.search(tidy)):
        tidy = tidy[: found.start()]
    changes["blanks"] += tidy != piece
    return tidy


def _tidy(found: re.Match[str], changes: Counter[str], opens: bool) -> str:
    """A run of blanks and line ends, tidied. ``opens``: the piece stands at the beginning of a line."""
    run = found.group()
    if not run.strip(" ") and not (opens and found.start() == 0):
        changes["blanks"] += 1
        return " "
    lines = _LINE_END.sub("\n", run)
    plain = _NARROW.sub(" ", lines)
    count = plain.count("\n")
    if count:
        tidy = "\n" * min(count, 2) + plain.rpartition("\n")[2]
    elif opens and found.start() == 0:
        tidy = plain
    else:
        tidy = run if _KEPT_AS_IT_IS.search(run) else " "
    changes["blanks"] += tidy != run
    return tidy
