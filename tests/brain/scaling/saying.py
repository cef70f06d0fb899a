"""An asker that says what a test tells it to say."""

from __future__ import annotations

from typing import Any

from brain.asking import Asker, Query, Solution

__all__ = ["Said"]


class Said(Asker):
    """Says what it is told, sample by sample; what is an exception is a failure."""

    def __init__(self, *says: Any) -> None:
        self.says = says

    @property
    def name(self) -> str:
        return "said"

    async def ask(self, query: Query) -> Solution[Any]:
        said = self.says[int(query.path.rpartition(" ")[2]) - 1]
        if isinstance(said, Exception):
            return Solution(None, str(said), failure=said, source=self.name, tab=query.tab)
        return Solution(said, source=self.name, tab=query.tab)
