"""Models that nobody trusts, each in a child process with limits, and nothing of the folder but its model.

``IsolatedModel`` is called as :class:`~specialists.onnx.OnnxModel` is. Its bytes are checked here, in the parent,
before any child is started; what the child answers is checked again, for it may be anything by then.

What a child is held to: memory (``RLIMIT_AS``), wall time for each run, CPU time should the parent be gone, no files
written, no environment, no descriptors but its two pipes, and no network where the kernel lets it leave. What it is not
held to: system calls are not filtered, and it may read what its user may read.
"""

from __future__ import annotations

from .model import IsolatedModel
from .process import require_isolation

__all__ = ["IsolatedModel", "require_isolation"]
