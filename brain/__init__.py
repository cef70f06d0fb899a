"""A general model that plans and calls small specialist models, with every answer checked and every attempt priced."""

from __future__ import annotations

import specialists as _specialists

if getattr(_specialists, "DISTRIBUTION", None) != "brain-specialists":
    raise ImportError(
        f"the package 'specialists' found at {getattr(_specialists, '__path__', ['?'])[0]!r} is not the one that brain"
        " needs: remove or rename it, then pip install brain-specialists"
    )
