"""The training loop of a text classifier: from rows to weights, with checkpoints from which it goes on exactly.

Everything random follows from the seed, and the state of chance is in each checkpoint, so a run that was stopped and
resumed on one machine gives what an uninterrupted one gives.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialists import SpecialistError
from specialists.training.text_network import Features
from specialists.training.text_watch import Epoch, Watch

__all__ = ["Fitted", "Material", "Plan", "fit", "plan"]

FORMAT = 1
"""Version of the checkpoint."""
SMOOTHING = 0.15
FLAT_WEIGHT = 0.3
MISSPELT = 0.2
"""Share of texts shown with typing mistakes; without them a mistyped word is taken for one never heard of."""
UPDATES = 2400
"""About as many updates are made, in as many epochs as they take within the bounds below."""
FEWEST_EPOCHS, MOST_EPOCHS = 8, 60
WARM_UP = 0.1
CHECKPOINT_SECONDS = 240.0
EVALUATED_AT_ONCE = 512


class Plan(NamedTuple):
    """How much is done. ``given`` and ``made``: texts that fit no label, beside each ``batch``."""

    epochs: int
    patience: int
    batch: int
    given: int
    made: int
    rate: float
    minutes: float
    seed: int
    device: str


def plan(rows: int, *, epochs: int | None, minutes: float, seed: int, device: str, rate: float) -> Plan:
    """A plan for so many rows: small sets take more epochs of smaller batches."""
    batch = 64 if rows >= 2_000 else 32 if rows >= 400 else 16
    if device != "cpu" and rows >= 20_000:
        batch *= 4
    steps = max(1, rows // batch)
    count = epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(UPDATES / steps)))
    patience = max(4, count // 3)
    return Plan(count, patience, batch, batch * 3 // 16, batch // 4, rate, minutes, seed, device)


@dataclass
class Material:
    """Numbers of texts in ``features``: ``fitted`` with their ``labels`` and ``typed``, the same ones misspelt;
    ``given`` and ``made``, which fit no label; ``chosen`` with their labels, which are not learned from."""

    features: Features
    fitted: Tensor
    typed: Tensor
    labels: Tensor
    given: Tensor
    made: Tensor
    chosen: Tensor
    chosen_labels: Tensor


@dataclass
class Fitted:
    """How the training went. ``best``: the epoch whose weights the network has now."""

    temperature: float = 1.0
    best: int = 0
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What the training took, without what was stopped in between."""
        return self.epochs[-1].seconds if self.epochs else 0.0


def fit(
    network: nn.Module, material: Material, plan: Plan, checkpoint: Path, key: str, resume: bool, watch: Watch
) -> Fitted:
    """Train ``network``, and leave it with the weights of the epoch that was best on the rows that choose.

    ``key`` says what data and settings a checkpoint belongs to; one of another key is refused.
    """
    return _Training(network, material, plan, checkpoint, key, watch).run(resume)


class _Training:
    def __init__(
        self, network: nn.Module, material: Material, plan: Plan, checkpoint: Path, key: str, watch: Watch
    ) -> None:
        self.network, self.material, self.plan = network.to(plan.device), material, plan
        self.features = material.features.to(plan.device)
        self.checkpoint, self.key, self.watch = checkpoint, key, watch
        self.steps = max(1, len(material.fitted) // plan.batch)
        self.optimizer = torch.optim.Adam(network.parameters(), plan.rate, betas=(0.9, 0.999))
        self.epochs, self.epoch, self.step, self.total, self.before = plan.epochs, 1, 0, 0.0, 0.0
        self.best = {name: value.clone() for name, value in network.state_dict().items()}
        self.best_loss, self.best_epoch = math.inf, 0
        self.curve: list[Epoch] = []
        self.begun = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def run(self, resume: bool) -> Fitted:
        if resume and self.checkpoint.is_file():
            self._load()
            self.watch.say(f"goes on from the checkpoint in epoch {self.epoch}, after {self.seconds:.0f} s")
        else:
            self._save()
        while self.epoch <= self.epochs and self.epoch - 1 - self.best_epoch < self.plan.patience:
            if not self._learn():
                break
            self._look()
            self._save()
        self.network.load_state_dict(self.best)
        logits = self._logits()
        return Fitted(temperature(logits, self._labels), self.best_epoch, self.curve)

    def _learn(self) -> bool:
        """One epoch, or the rest of one; False when the time is over before it is."""
        plan, material = self.plan, self.material
        self.network.train()
        order = torch.Generator().manual_seed(plan.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(material.fitted), generator=order)
        wanted = f"epoch {self.epoch}/{self.epochs}"
        while self.step < self.steps:
            if self.watch.stop:
                self._save()
                self.watch.check(f"stopped in epoch {self.epoch} of {self.epochs}")
            if self.seconds > plan.minutes * 60:
                self.watch.say(f"the {plan.minutes:g} minutes are over in epoch {self.epoch}")
                return bool(not self.curve)  # without any epoch to take, this one counts as it is
            self.watch.step(wanted, self.step, self.steps)
            self._update(shuffled[self.step * plan.batch : (self.step + 1) * plan.batch])
            self.step += 1
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self._save()
        return True

    def _update(self, picked: Tensor) -> None:
        plan, material = self.plan, self.material
        for group in self.optimizer.param_groups:
            group["lr"] = plan.rate * _cycle(((self.epoch - 1) * self.steps + self.step) / (self.epochs * self.steps))
        typed = torch.rand(len(picked)) < MISSPELT
        which = [torch.where(typed, material.typed[picked], material.fitted[picked])]
        for pool, count in ((material.given, plan.given), (material.made, plan.made)):
            if len(pool):
                which.append(pool[torch.randint(len(pool), (count,))])
        logits = self.network(self.features.take(torch.cat(which).to(plan.device)))
        labels = material.labels[picked].to(plan.device)
        loss = functional.cross_entropy(logits[: len(picked)], labels, label_smoothing=SMOOTHING)
        if len(logits) > len(picked):
            loss = loss - FLAT_WEIGHT * logits[len(picked) :].log_softmax(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        self.optimizer.step()
        self.total += loss.item()

    def _look(self) -> None:
        """What the epoch came to; its weights are kept when they are the best so far."""
        logits, labels = self._logits(), self._labels
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        loss = functional.cross_entropy(logits / temperature(logits, labels), labels).item()
        if loss < self.best_loss:
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.best_loss, self.best_epoch = loss, self.epoch
        self.curve.append(Epoch(self.epoch, accuracy, loss, self.seconds))
        self.watch.say(
            f"epoch {self.epoch}/{self.epochs}: loss {self.total / max(1, self.step):.3f}, held out {accuracy:.2%}"
            f" right, calibrated loss {loss:.3f}, {self.seconds:.0f} s"
        )
        # What is left of the time decides how many epochs there will be, so that the learning rate comes to its end.
        left = self.plan.minutes * 60 - self.seconds
        fits = self.epoch + math.floor(left / (self.seconds / self.epoch))
        if fits < self.epochs:
            self.epochs = max(self.epoch, fits)
            self.watch.say(f"{self.epochs} epochs fit into the {self.plan.minutes:g} minutes")
        self.epoch, self.step, self.total = self.epoch + 1, 0, 0.0

    @property
    def _labels(self) -> Tensor:
        return self.material.chosen_labels

    def _logits(self) -> Tensor:
        """What the network says of the rows that choose."""
        self.network.eval()
        with torch.no_grad():
            found = [
                self.network(self.features.take(which.to(self.plan.device))).cpu()
                for which in torch.split(self.material.chosen, EVALUATED_AT_ONCE)
            ]
        return torch.cat(found)

    def _save(self) -> None:
        state = {
            "format": FORMAT, "key": self.key, "network": self.network.state_dict(), "best": self.best,
            "optimizer": self.optimizer.state_dict(), "epochs": self.epochs, "epoch": self.epoch, "step": self.step,
            "total": self.total, "best_loss": self.best_loss, "best_epoch": self.best_epoch,
            "curve": [list(each) for each in self.curve], "seconds": self.seconds,
            "chance": torch.get_rng_state(),
        }  # fmt: skip
        if self.plan.device != "cpu":
            state["chance_there"] = torch.cuda.get_rng_state()
        new = self.checkpoint.with_suffix(".new")
        with new.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.checkpoint)
        self.saved = time.monotonic()

    def _load(self) -> None:
        remedy = "begin anew with --force in place of --resume"
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location=self.plan.device, weights_only=True)
        except Exception:
            raise SpecialistError(f"the checkpoint {self.checkpoint} cannot be read; {remedy}") from None
        if state.get("format") != FORMAT or state.get("key") != self.key:
            raise SpecialistError(
                f"the checkpoint {self.checkpoint} is of other data or other settings; give the same, or {remedy}"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["chance"].cpu())
        if "chance_there" in state and self.plan.device != "cpu":
            torch.cuda.set_rng_state(state["chance_there"].cpu())
        self.best, self.best_loss, self.best_epoch = state["best"], state["best_loss"], state["best_epoch"]
        self.epochs, self.epoch, self.step, self.total = (state[k] for k in ("epochs", "epoch", "step", "total"))
        self.curve = [Epoch(*each) for each in state["curve"]]
        self.before = state["seconds"]


def _cycle(done: float) -> float:
    """The learning rate's share of its highest: up, then down to nothing (Smith and Topin, arXiv 1708.07120)."""
    if done < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP)) / 2
    return (1 + math.cos(math.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP)))) / 2


def temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide logits by so that the probabilities fit ``labels`` best (Guo et al. 2017, arXiv 1706.04599).

    With few rows, which may all be right by luck, no label is taken to be wholly certain (as Platt does).
    """
    doubt = 1 / (len(labels) + 2)
    grid = torch.cat([torch.logspace(-1.5, 0.5, 81), torch.logspace(0.525, 1.0, 20)])
    losses = [functional.cross_entropy(logits / t, labels, label_smoothing=doubt) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])
