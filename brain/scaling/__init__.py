"""More compute for a better answer, where it pays: each strategy is an asker around askers, so they nest.

::

    from brain.scaling import asker

    ask = asker("openai:gpt-5-mini")
    solution = await ask.solve("...", output_type=int)
"""

from __future__ import annotations

from ..asking import Asker, ModelAsker, Query, Revision, Solution, Tab
from .sources import asker

__all__ = ["Asker", "ModelAsker", "Query", "Revision", "Solution", "Tab", "asker"]
