"""The recipe of the bundled `sudoku`: makes puzzles, trains the step network on a CPU, exports it, measures it.

    python -m specialists.training.sudoku --out FOLDER [--minutes N] [--seed N] [--resume]
    python -m specialists.training.sudoku --evaluate FILE [--limit N] [--model model.onnx | --untrained]

The network is a recursive reasoner in the manner of the Tiny Recursive Model (arXiv 2510.04871): one small step, applied
again and again to its own latent state, here with the symmetry of Sudoku built in. A latent vector stands for each of
the 729 statements "this cell holds this digit". A step pools them over the 324 groups of nine in which just one is true
(a digit in a row, in a column, in a box; the digits of a cell), thinks about each group, and hands the result back.
No statement has a name of its own, so what is learned for one is known for all, and relabelled or rearranged puzzles
are the same puzzle to it.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from specialists.training import sudoku_puzzles as puzzles

WIDTH, HIDDEN = 32, 96
UNROLL = 6
"""Steps with gradient; then the carry is detached and goes on."""
BATCH = 32
LONGEST = 16
"""Segments of `UNROLL` steps after which an unsolved puzzle makes room for another."""


class Step(nn.Module):
    """One step: (clues, carry) -> (logits, carry), with clues (n, 81, 9) one-hot or zero, carry (n, 81, 9, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()

        def group() -> nn.Module:
            return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, WIDTH, bias=False))

        self.clue = nn.Linear(2, WIDTH)
        self.message = nn.Linear(WIDTH, WIDTH)
        self.line, self.box, self.cell = group(), group(), group()
        self.own = nn.Linear(WIDTH, WIDTH, bias=False)
        self.update = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 1)
        houses = torch.tensor([[float(house >> cell & 1) for cell in range(81)] for house in puzzles.HOUSES])
        self.register_buffer("houses", houses / 3)  # (27, 81); a sum over nine, scaled to keep the variance

    def forward(self, clues: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        n = carry.shape[0]
        filled = clues.sum(2, keepdim=True).expand(-1, -1, 9)
        message = functional.silu(self.message(carry))
        in_houses = torch.matmul(self.houses, message.reshape(n, 81, 9 * WIDTH)).reshape(n, 27, 9, WIDTH)
        from_houses = torch.cat([self.line(in_houses[:, :18]), self.box(in_houses[:, 18:])], 1)
        from_cell = self.cell(message.mean(2) * 3).unsqueeze(2) + self.clue(torch.stack([clues, filled], 3))
        back = torch.matmul(self.houses.T, from_houses.reshape(n, 27, 9 * WIDTH)).reshape(n, 81, 9, WIDTH)
        carry = self.norm(carry + self.update(functional.silu(self.own(carry) + back + from_cell)))
        return self.head(carry).squeeze(3), carry


class Pool:
    """Puzzles as arrays; draws them at random, the hard ones as often as the many easy ones."""

    def __init__(self, rows: list[puzzles.Puzzle], seed: int) -> None:
        self.clues = np.array([[0 if mark == "." else int(mark) for mark in row.clues] for row in rows])
        self.solution = np.array([[int(mark) - 1 for mark in row.solution] for row in rows])
        weight = np.array([1.0 + min(row.guesses, 30) / 5 for row in rows])
        self.weight = np.cumsum(weight / weight.sum())
        self.rng = np.random.default_rng(seed)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """`n` puzzles: clues (n, 81, 9) and solutions (n, 81) with digits 0..8. A third get up to 15 extra clues."""
        index = np.minimum(np.searchsorted(self.weight, self.rng.random(n)), len(self.weight) - 1)
        clues, solution = self.clues[index].copy(), self.solution[index]
        extra = np.where(self.rng.random(n) < 1 / 3, self.rng.integers(1, 16, n), 0)
        order = self.rng.random((n, 81)) + (clues > 0)
        give = order <= np.sort(order, 1)[np.arange(n), extra - 1][:, None]
        give &= (extra > 0)[:, None]
        clues = np.where(give, solution + 1, clues)
        return one_hot(clues), torch.from_numpy(solution)


def one_hot(clues: np.ndarray) -> Tensor:
    return functional.one_hot(torch.from_numpy(clues), 10)[:, :, 1:].float()


def fresh_carry(n: int, generator: torch.Generator | None = None) -> Tensor:
    return torch.randn(n, 81, 9, WIDTH, generator=generator)


@torch.no_grad()
def solved_by_step(net: Step, clues: Tensor, solution: Tensor, steps: int) -> Tensor:
    """The step (1..steps) at which each puzzle was first right, `steps + 1` where it never was."""
    carry = fresh_carry(len(clues), torch.Generator().manual_seed(0))
    first = torch.full((len(clues),), steps + 1)
    left = torch.arange(len(clues))
    for step in range(1, steps + 1):
        logits, carry = net(clues[left], carry)
        right = (logits.argmax(2) == solution[left]).all(1)
        first[left[right]] = step
        left, carry = left[~right], carry[~right]
        if not len(left):
            break
    return first


def train(out: Path, pool: Pool, valid: list[puzzles.Puzzle], seconds: float, seed: int, resume: bool) -> None:
    torch.manual_seed(seed)
    net, mean = Step(), Step()
    mean.load_state_dict(net.state_dict())
    decay = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0}])
    spent, updates = 0.0, 0
    if resume and (out / "last.pt").exists():
        state = torch.load(out / "last.pt")
        net.load_state_dict(state["net"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        spent, updates = state["spent"], state["updates"]
    check = Pool(valid, seed)
    check_clues, check_solution = one_hot(check.clues), torch.from_numpy(check.solution)
    clues, solution = pool.draw(BATCH)
    carry, age = fresh_carry(BATCH), torch.randint(0, LONGEST, (BATCH,))
    began = saved = time.monotonic() - spent
    losses: list[float] = []
    solved = 0
    while spent < seconds:
        rate = 3e-3 * min(1, (updates + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent / seconds)) / 2)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        loss = torch.zeros(())
        for step in range(UNROLL):
            logits, carry = net(clues, carry)
            if step % 2:
                loss = loss + functional.cross_entropy(logits.flatten(0, 1), solution.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        updates += 1
        with torch.no_grad():
            for kept, now in zip(mean.parameters(), net.parameters(), strict=True):
                kept.lerp_(now, max(1 / updates, 0.002))
        carry, age = carry.detach(), age + 1
        right = (logits.argmax(2) == solution).all(1)
        gone = right | (age >= LONGEST)
        solved += int(right.sum())
        losses.append(loss.item() / (UNROLL // 2))
        if gone.any():
            clues[gone], solution[gone] = pool.draw(int(gone.sum()))
            carry[gone], age[gone] = fresh_carry(int(gone.sum())), 0
        spent = time.monotonic() - began
        if time.monotonic() - saved > 150 or spent >= seconds:
            first = solved_by_step(mean, check_clues, check_solution, 48)
            hard = torch.tensor([row.guesses >= 5 for row in valid])
            print(
                f"{spent / 60:5.1f} min  update {updates}  loss {np.mean(losses):.4f}  solved/update {solved / len(losses):.2f}"
                f"  valid 16 steps {(first <= 16).float().mean():.3f}, 48 steps {(first <= 48).float().mean():.3f},"
                f" hard {(first[hard] <= 48).float().mean():.3f}",
                flush=True,
            )
            losses, solved = [], 0
            saved = time.monotonic()
            state = {"net": net.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "spent": spent, "updates": updates}, out / "part.pt")
            (out / "part.pt").rename(out / "last.pt")
