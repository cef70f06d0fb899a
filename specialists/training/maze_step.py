"""The step network of the bundled `maze`, and its export. It knows nothing of mazes' making or of training.

Each cell of the maze has a small latent vector. A step lets it look at its eight neighbours through one convolution,
think, and move its vector as far as a gate lets it. So news of the goal can travel one cell a step, and how far it
comes is a matter of how many steps there are, not of the network. The maze itself is given anew at every step; a wall
holds no state, so what lies beyond the edge is as a wall is.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH, HIDDEN = 16, 32
NOISE = 0.3
"""How large the noise is that a rollout starts from."""
SURE = 2.2
"""The logit, of a probability of 0.9, from which on a cell that says that it knows the way is asked for it."""


class Step(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """One step: (maze, carry) -> (moves, halt, known, carry).

    ``maze`` (n, 3, rows, columns): open, start and goal as ones and zeros. ``carry`` (n, WIDTH, rows, columns).
    ``moves`` (n, 4, rows, columns): for each cell a logit for going up, right, down, left. ``known`` (n, rows,
    columns): a logit for "news of the goal has come here"; ``halt`` (n,) is that of the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(WIDTH + 2, HIDDEN, 3, padding=1)
        self.think = nn.Conv2d(HIDDEN, 2 * WIDTH, 1)
        self.head = nn.Conv2d(WIDTH, 5, 1)
        nn.init.constant_(self.think.get_parameter("bias")[WIDTH:], -1.0)  # gates begin rather closed

    def forward(self, maze: Tensor, carry: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        free, start, goal = maze[:, :1], maze[:, 1], maze[:, 2:]
        seen = torch.relu(self.look(torch.cat([carry, free, goal], 1)))
        idea, gate = self.think(seen).split(WIDTH, 1)
        carry = (carry + torch.sigmoid(gate) * (torch.tanh(idea) - carry)) * free
        read = self.head(carry)
        known = read[:, 4]
        halt = (known * start).sum((1, 2))
        return read[:, :4], halt, known, carry


def parameters(net: nn.Module) -> int:
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in net.parameters())


class _Shipped(nn.Module):  # type: ignore[misc, unused-ignore]
    """The step with its logits read: which way each cell points, -1 for one that is not sure of knowing it."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, maze: Tensor, carry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moves, halt, known, carry = self.step(maze, carry)
        best = moves.argmax(1)
        return torch.where(known > SURE, best, torch.full_like(best, -1)), halt, carry


def export(net: Step, path: Path) -> None:
    """Writes one step as an ONNX graph, for mazes of any size.

    Inputs ``maze`` and ``carry``; outputs ``moves`` (int64, n, rows, columns: 0 up, 1 right, 2 down, 3 left, -1 not
    known yet), ``halt`` and ``next_carry``.
    """
    names = ["maze", "carry", "moves", "halt", "next_carry"]
    free = {0: "n", 2: "rows", 3: "columns"}
    axes = {
        "maze": free,
        "carry": free,
        "next_carry": free,
        "halt": {0: "n"},
        "moves": {0: "n", 1: "rows", 2: "columns"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package says that it is the older one
        torch.onnx.export(
            _Shipped(net).eval(),
            (torch.zeros(2, 3, 6, 7), torch.zeros(2, WIDTH, 6, 7)),
            str(path),
            input_names=names[:2],
            output_names=names[2:],
            dynamic_axes=axes,
            opset_version=18,
            dynamo=False,
        )
