"""Characters: which are blanks, which end a line, which show nothing, and of these which are needed all the same.

Emoji are joined and coloured by invisible characters, and Indic, Arabic and other scripts are spelt with joiners.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Literal, TypeAlias

__all__ = ["BLANKS", "HAN", "INVISIBLE", "LINE_ENDS", "WHITE", "Form", "normalised", "visible"]

Form: TypeAlias = Literal["NFC", "NFKC"]

BLANKS = " \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
LINE_ENDS = "\n\r\x85\u2028\u2029"
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Characters that show nothing: zero widths, soft hyphens, marks of direction, variation selectors, tags."""

WHITE = f"{BLANKS}{LINE_ENDS}"

_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1aaf\u1b00-\u1c4f\u1cd0-\u1cff\ua8e0-\ua8ff"
    "\ua900-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00010fff\U00011000-\U00011fff"
    "\U0001e900-\U0001e95f"
)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_HAN = "\u2e80-\u2fff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_EMOJI = re.compile(f"[{_EMOJI}]")
_IS_JOINING = re.compile(f"[{_JOINING}]")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
HAN = re.compile(f"[{_HAN}]")
_FLAG = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
"""The tags that make a black flag that of a region (Unicode Technical Standard 51, annex C)."""


_HEAPED = re.compile(r"([^\w\s\x00-\x7f]{31,}+)")
"""More marks on one letter than any language has (Unicode Standard Annex 15, section 13: at most 30)."""


def normalised(text: str, form: Form) -> str:
    """``text`` in the normal form, but for heaps of marks: to order those takes the square of their number."""
    if text.isascii():
        return text
    parts = _HEAPED.split(text)
    return "".join(part if index % 2 else unicodedata.normalize(form, part) for index, part in enumerate(parts))


def visible(text: str, start: int, end: int, changes: Counter[str]) -> str:
    """``text[start:end]`` without invisible characters, but for those that emoji and some scripts are written with."""
    parts, place = [], start
    for run in INVISIBLE.finditer(text, start, end):
        before = text[run.start() - 1] if run.start() else ""
        after = text[run.end()] if run.end() < len(text) else ""
        kept = _needed(run.group(), before, after)
        changes["invisible"] += len(run.group()) - len(kept)
        parts += [text[place : run.start()], kept]
        place = run.end()
    return "".join([*parts, text[place:end]]) if parts else text[start:end]


def _needed(run: str, before: str, after: str) -> str:
    """Of a run of invisible characters those that belong to what stands around it: a selector, then a joiner."""
    if not before:
        return ""
    if before == "\U0001f3f4" and (flag := _FLAG.match(run)):
        return flag.group()
    emoji, joining = _IS_EMOJI.match(before), _IS_JOINING.match(before)
    selector = joiner = ""
    for char in run:
        code = ord(char)
        if joiner or (selector and (0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF)):
            continue
        if 0xFE00 <= code <= 0xFE0F:
            is_keycap = code == 0xFE0F and after == "\u20e3"
            if emoji or joining or is_keycap or HAN.match(before) or unicodedata.category(before) == "Sm":
                selector = char
        elif (0xE0100 <= code <= 0xE01EF and HAN.match(before)) or (
            0x180B <= code <= 0x180F and "\u1800" <= before <= "\u18af"
        ):
            selector = char
        elif (char == "\u200d" and emoji and after and _IS_EMOJI.match(after)) or (char in "\u200c\u200d" and joining):
            joiner = char
        elif char == "\u200b" and _IS_UNSPACED.match(before) and after and _IS_UNSPACED.match(after):
            joiner = char  # where a script has no spaces it says where a word ends
    return selector + joiner
