"""Which run and which call a log record belongs to. This module knows nothing of what is logged.

Every record of the SDK's own loggers has ``run_id`` and ``call_id``, as if given in ``extra``; ``None`` outside of one.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

__all__ = ["current_call", "current_run", "mark_records"]

current_run: ContextVar[str | None] = ContextVar("brain_run", default=None)
current_call: ContextVar[str | None] = ContextVar("brain_call", default=None)

# A logger's filter sees its own records only, not those of the loggers below it.
_LOGGERS = ("brain", "brain.models", "specialists")


class _Ids(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__.setdefault("run_id", current_run.get())
        record.__dict__.setdefault("call_id", current_call.get())
        return True


_ids = _Ids()


def mark_records() -> None:
    """Have the ids put on every record of our loggers (added only once)."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_ids)
