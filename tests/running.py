"""What the tests of whole runs share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from brain import (
    RunResult,
)

GUARD = 20.0
"""Seconds that no test here needs; only what hangs reaches it."""


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def contents(result: RunResult[Any]) -> list[dict[str, Any]]:
    return [json.loads(message["content"]) for message in result.messages if message["role"] == "tool"]


def carried(error: BaseException) -> RunResult[Any]:
    result = error.result  # type: ignore[attr-defined]
    assert isinstance(result, RunResult)
    return result


class Point(BaseModel):
    x: int
    y: int = 0


class Shape(BaseModel):
    """Has definitions of its own in its schema."""

    name: Literal["line", "dot"]
    points: list[Point]
    inner: Shape | None = None


@dataclass
class Pair:
    left: int
    right: str
