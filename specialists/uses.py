"""How often a set of cases was looked at: cases whose results were seen no longer test what was changed since.

One line for each calibration, by the digest of the cases, in ``$XDG_STATE_HOME/brain-specialists/calibrations.jsonl``
(or below ``~/.local/state``); ``SPECIALISTS_STATE`` names another folder. It stays on this machine, so it knows nothing
of what was done on another.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from . import strict_json

__all__ = ["VARIABLE", "Use", "count_use", "state_file", "uses_of"]

VARIABLE = "SPECIALISTS_STATE"
"""The environment variable that names another folder."""


@dataclass(frozen=True, slots=True)
class Use:
    """One look at the results of some cases: which cases, what was measured with them, and how.

    The same again shows nothing new: it is the same calculation.
    """

    cases: str
    specialist: str
    folder: str | None
    ladder: str
    alpha: float
    delta: float
    escalation: float | None = None

    def line(self) -> str:
        """As it is written down."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None}, sort_keys=True)


def state_file() -> Path:
    """Where uses are counted. Raises ``OSError`` when there is no home to put it in."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) / "calibrations.jsonl"
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError(str(error)) from None
    return root / "brain-specialists" / "calibrations.jsonl"


def uses_of(use: Use) -> int:
    """How often these cases were looked at in another way than this one. Raises ``OSError`` for an unreadable file."""
    try:
        text = state_file().read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return 0
    others = set()
    for line in text.splitlines():
        try:
            told = strict_json.loads(line)
        except (ValueError, RecursionError):
            continue  # a line that was cut off counts for nothing
        if isinstance(told, dict) and told.get("cases") == use.cases:
            others.add(json.dumps({name: value for name, value in told.items() if value is not None}, sort_keys=True))
    return len(others - {use.line()})


def count_use(use: Use) -> None:
    """Note that these results were looked at. Raises ``OSError`` when it cannot be written."""
    path = state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    # It begins a line of its own: one that was cut off before it must not swallow it.
    line = f"\n{use.line()}\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode())  # one write: lines of several processes do not mix
    finally:
        os.close(handle)
