"""ONNX Runtime, imported so that it reports nothing to its maker.

Official builds (1.32 is one) send usage data to Microsoft and keep a device id in the user's cache folder, unless
``ORT_DISABLE_TELEMETRY=1`` stands in the environment before they are first imported. Here it is put there; who wants
to send them sets ``ORT_DISABLE_TELEMETRY=0`` himself. This module knows nothing of models.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["SILENCE", "import_runtime"]

SILENCE = {"ORT_DISABLE_TELEMETRY": "1"}


def import_runtime() -> Any:
    """The module ``onnxruntime``. Raises ``ImportError`` when it is not installed."""
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    import onnxruntime

    return onnxruntime
