"""A command of ``brain`` as it is typed, and what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brain import cli

__all__ = ["Typed"]


class Typed:
    """Types ``brain COMMAND WORDS``: the exit code, and what stood on stdout and stderr."""

    def __init__(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._command = command
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = cli.main([self._command, *words])
        return code, *self._capsys.readouterr()

    def json(self, *words: str) -> Any:
        """What it prints for machines, on one line."""
        code, out, err = self(*words, "--json")
        assert (code, out.count("\n")) == (0, 1), err
        return json.loads(out)
