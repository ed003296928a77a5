"""Mini-batch training of a small network on features, with early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import HeadError
from headstart.core.progress import Reporter
from headstart.core.records import Curve
from headstart.heads.base import Task

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "step", "constant"]
Layers = list[tuple[Tensor, Tensor]]
Network = Callable[[Tensor], Tensor]

_VALIDATION_ROWS = 8192


class RowsByIndex(Protocol):
    """Features ``(n, d)`` of which rows are asked for: a tensor, or rows on disk."""

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return the rows at indices ``(m,) int64``, ``(m, d) float32``."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and with what steps to train; see :func:`~headstart.heads.mlp.fit_mlp`."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    momentum: float
    optimizer: Optimizer
    schedule: Schedule
    patience: int | None

    def check(self) -> None:
        """Refuse impossible values, all of them together."""
        faults = []
        if self.epochs < 1:
            faults.append(f"expected 1 epoch or more, found {self.epochs}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            faults.append(f"expected a learning rate above 0, found {self.lr}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            faults.append(f"expected a weight decay of 0 or more, found {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            faults.append(f"expected a momentum in [0, 1), found {self.momentum}")
        if self.patience is not None and self.patience < 1:
            faults.append(f"expected a patience of 1 epoch or more, found {self.patience}")
        for name, options in (("optimizer", Optimizer), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(options):
                listed = ", ".join(get_args(options))
                faults.append(f"expected {name} of {listed}, found {getattr(self, name)!r}")
        if faults:
            raise HeadError("; ".join(faults))

    def rate(self, epoch: int, fraction: float) -> float:
        """Return the learning rate ``fraction`` of the way through ``epoch`` (from 0)."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch + fraction) / self.epochs))
        if self.schedule == "step":
            return self.lr * 0.1 ** (3 * epoch // self.epochs)
        return self.lr

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Trained:
    """The layers of the best epoch, and the curves."""

    layers: Layers
    curves: tuple[Curve, ...]
    best_epoch: int
    epochs: int
    notes: tuple[str, ...]


def train(
    layers: Layers,
    network: Network,
    noisy_network: Network,
    x: RowsByIndex,
    targets: Tensor,
    weights: Tensor | None,
    present: Tensor,
    held_out: np.ndarray,
    task: Task,
    plan: TrainingPlan,
    generator: torch.Generator,
    reporter: Reporter,
) -> Trained:
    """Train ``layers`` in place, and return those of the epoch with the least validation loss.

    Args:
        layers: weights and biases, the parameters.
        network, noisy_network: the forward pass without and with dropout.
        x: ``(n, d) float32``, standardised; batches of its rows are taken by index.
        targets: ``(n,) int64`` or ``(n, k) float32``.
        weights: ``(n,)`` of the loss, or None.
        present: ``(k,) bool``; other classes are kept out of the softmax.
        held_out: ``(n,) bool``, the validation rows.
        task: decides the loss.
        plan, generator, reporter: how, in what order, and who is told.
    """
    parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
    optimizer = plan.build(parameters)
    loss_of = _loss(task, present)
    rows = torch.from_numpy(np.flatnonzero(~held_out))
    checks = torch.from_numpy(np.flatnonzero(held_out))
    history: dict[str, list[float]] = {}
    best, best_epoch, best_loss = _copy(layers), 0, math.inf
    notes: list[str] = []
    with reporter.task("MLP head", plan.epochs, "epochs") as progress:
        for epoch in range(plan.epochs):
            shuffled = rows[torch.randperm(len(rows), generator=generator)]
            figures = _epoch(
                noisy_network, loss_of, x, targets, weights, shuffled, optimizer, plan, epoch
            )
            _note(history, "train", figures)
            loss = figures[0]
            if len(checks):
                figures = _measure(network, loss_of, x, targets, weights, checks)
                _note(history, "validation", figures)
                loss = figures[0]
            if not math.isfinite(loss):
                notes.append(f"training diverged in epoch {epoch + 1}; a lower rate may help")
                break
            if loss < best_loss or not len(checks):
                best, best_epoch, best_loss = _copy(layers), epoch, loss
            progress.advance()
            if len(checks) and plan.patience and epoch - best_epoch >= plan.patience:
                notes.append(
                    f"stopped after epoch {epoch + 1}: no lower validation loss in"
                    f" {plan.patience} epochs; the weights of epoch {best_epoch + 1} are kept"
                )
                break
    if not math.isfinite(best_loss):
        raise HeadError("training diverged in the first epoch", hint="lower the learning rate")
    curves = _curves(history, best_epoch + 1, task)
    return Trained(best, curves, best_epoch + 1, len(history["train loss"]), tuple(notes))


Figures = tuple[float, float]
LossOf = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _loss(task: Task, present: Tensor) -> LossOf:
    """Return the function from outputs and targets to loss and hits of each row."""

    def classification(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        masked = outputs.masked_fill(~present, -1e30)
        hard = target if target.ndim == 1 else target.argmax(1)
        loss = functional.cross_entropy(masked, target, reduction="none")
        return loss, (masked.argmax(1) == hard).float()

    def multi_label(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        return loss.sum(1), ((outputs > 0) == (target > 0.5)).float().mean(1)

    def regression(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = ((outputs - target) ** 2).mean(1)
        return loss, torch.full_like(loss, torch.nan)

    return {
        "classification": classification,
        "multi-label": multi_label,
        "regression": regression,
    }[task]


def _epoch(
    network: Network,
    loss_of: LossOf,
    x: RowsByIndex,
    targets: Tensor,
    weights: Tensor | None,
    rows: Tensor,
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    epoch: int,
) -> Figures:
    totals, mass = torch.zeros(2, dtype=torch.float64), 0.0
    batches = [rows[i : i + plan.batch_size] for i in range(0, len(rows), plan.batch_size)]
    for number, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(epoch, number / len(batches))
        with torch.enable_grad():
            loss, hits = loss_of(network(x[batch]), targets[batch])
            weight = torch.ones_like(loss) if weights is None else weights[batch].to(loss.dtype)
            optimizer.zero_grad(set_to_none=True)
            mean = (loss * weight).sum() / weight.sum().clamp_min(1e-12)
            torch.autograd.backward(mean)
        optimizer.step()
        totals += torch.stack([(loss * weight).sum(), (hits * weight).sum()]).detach().double()
        mass += float(weight.sum())
    return float(totals[0]) / max(mass, 1e-12), float(totals[1]) / max(mass, 1e-12)


def _measure(
    network: Network,
    loss_of: LossOf,
    x: RowsByIndex,
    targets: Tensor,
    weights: Tensor | None,
    rows: Tensor,
) -> Figures:
    totals, mass = torch.zeros(2, dtype=torch.float64), 0.0
    with torch.no_grad():
        for start in range(0, len(rows), _VALIDATION_ROWS):
            batch = rows[start : start + _VALIDATION_ROWS]
            loss, hits = loss_of(network(x[batch]), targets[batch])
            weight = torch.ones_like(loss) if weights is None else weights[batch].to(loss.dtype)
            totals += torch.stack([(loss * weight).sum(), (hits * weight).sum()]).double()
            mass += float(weight.sum())
    return float(totals[0]) / max(mass, 1e-12), float(totals[1]) / max(mass, 1e-12)


def _note(history: dict[str, list[float]], part: str, figures: Figures) -> None:
    history.setdefault(f"{part} loss", []).append(figures[0])
    history.setdefault(f"{part} accuracy", []).append(figures[1])


def _copy(layers: Sequence[tuple[Tensor, Tensor]]) -> Layers:
    return [(weight.detach().clone(), bias.detach().clone()) for weight, bias in layers]


def _curves(history: dict[str, list[float]], best: int, task: Task) -> tuple[Curve, ...]:
    names = [f"{part} {figure}" for figure in ("loss", "accuracy") for part in _PARTS]
    labels = {
        "loss": "mean squared error" if task == "regression" else "loss (nats)",
        "accuracy": "accuracy",
    }
    return tuple(
        Curve(
            name=name,
            x=tuple(float(epoch) for epoch in range(1, len(history[name]) + 1)),
            y=tuple(history[name]),
            x_label="epoch",
            y_label=labels[name.split()[1]],
            chosen=float(best),
        )
        for name in names
        if name in history and not (task == "regression" and name.endswith("accuracy"))
    )


_PARTS = ("train", "validation")
