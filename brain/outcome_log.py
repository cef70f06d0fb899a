"""The log that outcomes are appended to, one JSON object a line. It knows nothing of what is in them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from specialists import Outcome

from .keys import redact

__all__ = ["OutcomeLog"]


class OutcomeLog:
    """Appends one JSON line per outcome to a file. One thread writes, so that no event loop waits for a disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen = False
        self._writer: tuple[int, ThreadPoolExecutor] | None = None

    async def open(self) -> None:
        """See, once, that the file can be written. Raises ``OSError``."""
        if not self._seen:
            await self._written("")
            self._seen = True

    async def append(self, outcomes: Sequence[Outcome[Any]], **more: Any) -> None:
        """Write ``outcomes``, each with the fields ``more``. Raises ``OSError``."""
        if not outcomes:
            return
        lines = "".join(redact(json.dumps({**outcome.to_json(), **more})) + "\n" for outcome in outcomes)
        await self._written(lines)

    def close(self) -> None:
        """Wait until all is written."""
        if self._writer is not None and self._writer[0] == os.getpid():
            self._writer[1].shutdown()
        self._writer = None

    async def _written(self, lines: str) -> None:
        # A cancellation ends the wait, not the writing: what was paid for is written down.
        await asyncio.shield(asyncio.wrap_future(self._executor().submit(self._write, lines)))

    def _executor(self) -> ThreadPoolExecutor:
        if self._writer is None or self._writer[0] != os.getpid():
            self._writer = (os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="brain-log"))
        return self._writer[1]

    def _write(self, lines: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
