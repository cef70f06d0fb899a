"""ONNX Runtime, imported so that it reports nothing to its maker.

Official builds (1.32 is one) send usage data to Microsoft and keep a device id in the user's cache folder, unless
``ORT_DISABLE_TELEMETRY=1`` stands in the environment before they are first imported. Here it is put there; who wants
to send them sets ``ORT_DISABLE_TELEMETRY=0`` himself. This module knows nothing of models.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["SILENCE", "identity_of", "import_runtime", "runtime_version"]

SILENCE = {"ORT_DISABLE_TELEMETRY": "1"}


def import_runtime() -> Any:
    """The module ``onnxruntime``. Raises ``ImportError`` when it is not installed."""
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    import onnxruntime

    return onnxruntime


@lru_cache(maxsize=1)
def runtime_version() -> str | None:
    """ONNX Runtime's major.minor, without importing it; ``None`` when it is not installed."""
    loaded = getattr(sys.modules.get("onnxruntime"), "__version__", None)
    found = loaded or next((found for name in ("onnxruntime", "onnxruntime-gpu") if (found := _installed(name))), None)
    return None if found is None else ".".join(found.split(".")[:2])


def identity_of(digest: str, provider: str) -> str:
    """What a certificate names of a model that ran: the head of its file's sha256, where it ran, and the runtime."""
    return f"{digest[:32]}/{provider}/{runtime_version()}"


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
