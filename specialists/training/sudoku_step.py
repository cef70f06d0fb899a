"""The step network of the bundled `sudoku`, and its export. It knows nothing of puzzles' making or of training.

One small step, applied again and again to its own latent state, as in the Tiny Recursive Model (arXiv 2510.04871), here
with the symmetry of Sudoku built in. A latent vector stands for each of the 729 statements "this cell holds this
digit". A step pools them over the 324 groups of nine of which just one is true (a digit in a row, in a column, in a
box; the digits of a cell), over the threes of cells that a line and a box share, and over the whole grid, thinks about
each group, and hands the result back to its members. No statement has a name of its own: what is learned for one is
known for all, and a relabelled or rearranged puzzle is the same puzzle.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialists.training.sudoku_puzzles import HOUSES

WIDTH, HIDDEN = 32, 96


class Step(nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
    """One step: (clues, carry) -> (logits, carry), with clues (n, 81, 9) one-hot or zero, carry (n, 81, 9, WIDTH)."""

    houses: Tensor

    def __init__(self) -> None:
        super().__init__()

        def group() -> nn.Module:
            return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, WIDTH, bias=False))

        self.clue = nn.Linear(2, WIDTH)
        self.message = nn.Linear(WIDTH, WIDTH)
        self.line, self.box, self.cell = group(), group(), group()
        self.three = nn.Linear(WIDTH, WIDTH, bias=False)
        self.grid = nn.Linear(WIDTH, WIDTH, bias=False)
        self.own = nn.Linear(WIDTH, WIDTH, bias=False)
        self.update = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 1)
        # Products with one matrix are faster than gathering the cells of each house. Dividing by the root of the
        # size keeps the variance of a sum.
        threes = {line & box for line in HOUSES[:18] for box in HOUSES[18:]} - {0}
        sets = [*HOUSES, *sorted(threes)]
        member = torch.tensor([[float(cells >> cell & 1) for cell in range(81)] for cells in sets])
        self.register_buffer("sets", member / member.sum(1, keepdim=True).sqrt(), persistent=False)  # (27 + 54, 81)

    def forward(self, clues: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        message = functional.silu(self.message(carry))
        pooled = torch.matmul(self.sets, message.reshape(-1, 81, 9 * WIDTH)).reshape(-1, 81, 9, WIDTH)
        thought = [self.line(pooled[:, :18]), self.box(pooled[:, 18:27]), self.three(pooled[:, 27:])]
        back = torch.matmul(self.sets.T, torch.cat(thought, 1).reshape(-1, 81, 9 * WIDTH)).reshape(-1, 81, 9, WIDTH)
        cells = message.mean(2) * 3
        from_cell = (self.cell(cells) + self.grid(cells.mean(1, keepdim=True))).unsqueeze(2)
        filled = clues.sum(2, keepdim=True) - clues  # 1 where the cell's clue is another digit
        given = self.clue(torch.stack([clues, filled], 3))
        carry = self.norm(carry + self.update(functional.silu(self.own(carry) + back + (from_cell + given))))
        return self.head(carry).squeeze(3), carry


def parameters(net: nn.Module) -> int:
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in net.parameters())


def export(net: Step, path: Path) -> None:
    """Writes one step as an ONNX graph: inputs `clues`, `carry`, outputs `logits`, `next_carry`; any batch size."""
    names = ["clues", "carry", "logits", "next_carry"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package says that it is the older one
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, 81, 9), torch.zeros(2, 81, 9, WIDTH)),
            str(path),
            input_names=names[:2],
            output_names=names[2:],
            dynamic_axes={name: {0: "n"} for name in names},
            opset_version=18,
            dynamo=False,
        )
