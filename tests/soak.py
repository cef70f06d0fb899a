"""How long a soak is: a twentieth of its length in `make test`, the whole of it in `make soak`."""

from __future__ import annotations

import os

WHOLE = os.environ.get("SOAK") == "1"
SHARE = 20


def scaled(whole: int) -> int:
    """``whole``, or a twentieth of it (at least one) where the whole soak was not asked for with ``SOAK=1``."""
    return whole if WHOLE else max(1, whole // SHARE)
