"""Values as reports print them. This module knows nothing of what they mean."""

from __future__ import annotations

import json
from typing import Any

from specialists.ladder import jsonable

__all__ = ["short", "written"]


def written(value: Any) -> Any:
    """``value`` as JSON types; its type's name where it cannot be written."""
    plain = jsonable(value)
    try:
        json.dumps(plain)
    except (ValueError, RecursionError):  # a number of thousands of digits, a value within itself
        return f"({type(value).__name__})"
    return plain


def short(value: Any, limit: int = 60) -> str:
    """In one printable line of at most so many characters: what a model wrote draws nothing in a terminal."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # a number of thousands of digits, an object of the application's own
        text = f"({type(value).__name__})"
    text = " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
