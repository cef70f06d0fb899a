"""Step-level scheduling of recursive models: items step together in shared batches, and each leaves when it is done.

A recursive model is applied again and again to an item's own state until it halts: a small recursive reasoner, a
denoiser, a looped transformer. A batch of such items that waits for its slowest member wastes most of its steps. Here
an item leaves the moment it halts or is out of steps or time, and one that waits takes its place before the next step.

``scheduler`` is what callers see; ``lanes`` do the stepping; ``rows`` are where items' arrays lie, ``device_rows`` the
same on a GPU; ``onnx_step`` makes a recursive model of an ONNX graph.
"""

from __future__ import annotations

from .lanes import RecursiveModel, StepResult
from .onnx_step import OnnxStep
from .scheduler import StepScheduler

__all__ = ["OnnxStep", "RecursiveModel", "StepResult", "StepScheduler"]
