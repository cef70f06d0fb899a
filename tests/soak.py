"""How long the long tests are: whole with ``SOAK=1`` in the environment, else a twentieth."""

from __future__ import annotations

import os

__all__ = ["scaled"]


def scaled(whole: int) -> int:
    """``whole``, or a twentieth of it, at least one."""
    return whole if os.environ.get("SOAK") == "1" else max(1, whole // 20)
