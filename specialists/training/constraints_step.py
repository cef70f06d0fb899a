"""The step network of the bundled `constraints`, and its export. It knows nothing of puzzles' making or of training.

One small step, applied again and again to its own latent state, as in the Tiny Recursive Model (arXiv 2510.04871), here
with the symmetries of the task built in. A latent vector stands for each statement "this variable has this value". A
step pools these vectors over every group and value, over every value of a variable, over the variables that two tight
groups share, and over everything; it thinks about each pool and hands the result back to its members. No variable,
value or group has a name of its own, and which variables a group holds is an input. So what is learned on one size of
one task is known on every other, and a relabelled or rearranged problem is the same problem.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HIDDEN", "INPUTS", "NEVER", "OUTPUTS", "WIDTH", "Step", "Thought", "export", "parameters", "step_for"]

WIDTH, HIDDEN = 32, 128
GPU_WIDTH, GPU_HIDDEN = 64, 256
"""On a GPU the same recipe affords a wider network; what ships is made with the first two."""
NEVER = -30.0
"""The logit of a value that a variable may not have: finite, since a graph that gives infinities is refused."""


class Thought(NamedTuple):
    """What a step gives: logits (n, V, N), a logit for "this reading is right" (n,), doubts (n, V), carry (n, V, N, D).

    ``doubt`` is, for each variable, the logit of "the value it reads as is wrong".
    """

    logits: Tensor
    halt: Tensor
    doubt: Tensor
    carry: Tensor


class Step(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """One step. N values, V variables, G groups, O overlaps; D is `WIDTH`.

    Its inputs, all float: ``allowed`` (n, V, N), 1 where the variable may have the value; ``groups`` (n, G, V) and
    ``overlaps`` (n, O, V), 1 for a member (a row of zeros is no group); ``carry`` (n, V, N, D), noise at first.
    """

    def __init__(self, width: int = WIDTH, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.width = width
        self.message = nn.Linear(width, width)
        self.group = nn.Linear(width, hidden)
        self.shape = nn.Linear(3, hidden, bias=False)
        self.back = nn.Linear(hidden, width, bias=False)
        self.overlap = nn.Linear(width, width, bias=False)
        self.cell = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width, bias=False))
        self.value = nn.Linear(width, width, bias=False)
        self.whole = nn.Linear(width, width, bias=False)
        self.clue = nn.Linear(3, width)
        self.own = nn.Linear(width, width, bias=False)
        self.update = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        self.doubt = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.halt = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, allowed: Tensor, groups: Tensor, overlaps: Tensor, carry: Tensor) -> Thought:
        n, count, values = allowed.shape
        message = functional.silu(self.message(carry))
        flat = message.flatten(2)
        # Dividing by the root of the size keeps the variance of a sum.
        size = groups.sum(2, keepdim=True)
        member = groups / size.clamp_min(1).sqrt()
        slack = 1 - size / values
        shape = torch.cat([slack, (slack == 0).to(slack.dtype), size.clamp_min(1).log()], 2)
        pooled = torch.matmul(member, flat).reshape(n, -1, values, self.width)
        thought = self.back(functional.silu(self.group(pooled) + self.shape(shape).unsqueeze(2)))
        shared = overlaps / overlaps.sum(2, keepdim=True).clamp_min(1).sqrt()
        common = self.overlap(torch.matmul(shared, flat).reshape(n, -1, values, self.width))
        sets = torch.cat([member, shared], 1).transpose(1, 2)
        back = torch.matmul(sets, torch.cat([thought, common], 1).flatten(2)).reshape(n, count, values, self.width)
        cells = message.mean(2) * 3
        from_cell = (self.cell(cells) + self.whole(cells.mean(1, keepdim=True))).unsqueeze(2)
        from_value = self.value(message.mean(1, keepdim=True) * 3)
        choice = allowed.sum(2, keepdim=True)
        decided = (choice == 1).to(allowed.dtype)
        given = torch.stack([allowed, 1 - allowed, decided.expand(n, count, values)], 3)
        inner = self.own(carry) + back + from_value + (from_cell + self.clue(given))
        carry = self.norm(carry + self.update(functional.silu(inner)))
        logits = self.head(carry).squeeze(3) * allowed + NEVER * (1 - allowed)
        weight = logits.softmax(2).unsqueeze(3)
        chosen = (weight * carry).sum(2)  # (n, V, D): each variable as the value it reads as
        doubt = self.doubt(chosen).squeeze(2)
        worst = (chosen * doubt.softmax(1).unsqueeze(2)).sum(1)
        halt = self.halt(torch.cat([chosen.mean(1), worst], 1)).squeeze(1)
        return Thought(logits, halt, doubt, carry)


def step_for(device: str) -> Step:
    """A new network of the width that the recipe has on ``device``, there."""
    sizes = (GPU_WIDTH, GPU_HIDDEN) if device == "cuda" else (WIDTH, HIDDEN)
    net: Step = Step(*sizes).to(device)
    return net


def parameters(net: nn.Module) -> int:
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in net.parameters())


INPUTS = ("allowed", "groups", "overlaps", "carry")
OUTPUTS = ("logits", "halt", "doubt", "next_carry")


def export(net: Step, path: Path) -> None:
    """Writes one step as an ONNX graph with the inputs and outputs of :class:`Step`; every axis but D is free."""
    n, values, count, groups, overlaps = 2, 4, 16, 12, 8
    example = (
        torch.ones(n, count, values),
        torch.ones(n, groups, count),
        torch.ones(n, overlaps, count),
        torch.zeros(n, count, values, net.width),
    )
    grid = {0: "n", 1: "variables", 2: "values"}
    axes = {
        "allowed": grid,
        "groups": {0: "n", 1: "groups", 2: "variables"},
        "overlaps": {0: "n", 1: "overlaps", 2: "variables"},
        "carry": grid,
        "logits": grid,
        "halt": {0: "n"},
        "doubt": {0: "n", 1: "variables"},
        "next_carry": grid,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package says that it is the older one
        torch.onnx.export(
            net.eval(),
            example,
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=18,
            dynamo=False,
        )
