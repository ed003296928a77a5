"""Training of the perceptron: mini-batches of standardised features, with early stopping.

Everything random (initial weights, the order of the rows, dropout, the held-out part) comes from
one generator made from the seed; the global random state is neither read nor changed.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.division import held_out_rows
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve
from headstart.core.row_keys import Keys, content_order
from headstart.core.seeds import require_seeds
from headstart.core.wording import count, verb
from headstart.evaluation.targets import (
    FloatArray,
    Targets,
    as_weights,
    class_weight_vector,
    label_weights,
)
from headstart.evaluation.tasks import MULTI_LABEL, Task, task_named, weighted_label_loss
from headstart.heads.contract import Trained
from headstart.heads.copies import keep_together
from headstart.heads.features import Features, as_rows, moments
from headstart.heads.options import MLPOptions
from headstart.heads.perceptron import MLPHead, as_inputs, layers_of
from headstart.heads.source import StreamedFeatures
from headstart.heads.tensors import Perceptron

_BLOCK_ROWS = 8192


def fit_mlp(
    x: object,
    y: object,
    n_classes: int,
    *,
    task: str = "classification",
    validation_rows: np.ndarray | None = None,
    sample_weight: object = None,
    keys: Keys | None = None,
    groups: Keys | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    **options: Any,
) -> Trained:
    """Train a perceptron on frozen features with mini-batches.

    Args:
        x: features ``(n, d)``.
        y: class indices ``(n,)``; or soft labels ``(n, k)``; multi-label memberships ``(n, k)``;
            regression targets ``(n,)`` or ``(n, t)``, which are standardised for training.
        n_classes: the number of outputs ``k`` (or targets ``t``).
        task: what ``y`` means.
        validation_rows: ``(n,) bool``, rows that choose the epoch, instead of a share of each
            class (``validation``).
        sample_weight: ``(n,)``, how often each row counts, above 0; None: once. Weights multiply
            the losses in a batch.
        keys, groups: what decides which rows are held out, and which are kept together; see
            :mod:`headstart.core.division`. Without keys the content of a row is its key. The order
            of the rows in each epoch follows from them, too.
        seed: of everything random.
        reporter: receives progress by epoch.
        **options: fields of :class:`~headstart.heads.options.MLPOptions`.

    Returns:
        The head with the weights of the epoch of least validation loss (of the last one where
        nothing is held out); that epoch as ``chosen["best_epoch"]``, from 1; and curves of train
        and validation loss and, for classes, accuracy, against the epoch. Training figures are
        means over the epoch's batches, with dropout; validation figures are taken at its end,
        without.

    Raises:
        ConfigError: options are invalid; all are named.
        HeadError: the input is invalid, or training diverged at once.
    """
    settings = MLPOptions(**options)
    require_seeds(seed)
    what = task_named(task)
    features = as_rows(x)
    targets = what.encode(y, len(features), n_classes)
    together = keep_together(targets.strata, features, keys=keys)
    order = content_order(together.keys, targets.order)
    given = cast("str | np.ndarray | None", settings.class_weight)
    counts = as_weights(sample_weight, len(features))
    balance = label_weights(given, targets.values, counts) if task == MULTI_LABEL.name else None
    if balance is not None:
        weighted = weighted_label_loss(torch.from_numpy(balance).float())
        what, given = dataclasses.replace(what, loss=weighted), None
    weights = class_weight_vector(given, targets.labels, n_classes, counts)
    notes: list[str] = []
    if validation_rows is not None:
        held = _checked_mask(validation_rows, len(features))
    else:
        notes += together.notes
        held = _held_out(targets, settings, seed, together.keys, groups, notes)
    present = targets.present
    if not present.all():
        absent = int((~present).sum())
        notes.append(
            f"{count(absent, 'class', 'classes')} {verb(absent, 'has', 'have')} no training row;"
            " probability 0"
        )
    rows = order[~held[order]]
    mean, scale = moments(features, rows, counts)
    values = targets.values if targets.labels is not None else targets.values.astype(np.float32)
    shift: FloatArray = np.zeros(n_classes)
    spread: FloatArray = np.ones(n_classes)
    if what.probabilities is None:
        shift, spread = moments(values, rows, counts)
        values = ((values - shift) / spread).astype(np.float32)
    generator = torch.Generator().manual_seed(seed)
    dropout = settings.dropout
    if dropout == "auto":
        dropout = 0.5 if what.probabilities is not None else 0.0
    widths = (features.shape[1], *settings.hidden, n_classes)
    run = _Training(
        Perceptron(_initial_layers(widths, generator), float(dropout), generator),
        _standardised(features, mean, scale),
        torch.from_numpy(values),
        None if weights is None else torch.from_numpy(weights),
        torch.from_numpy(present),
        what,
        settings,
    )
    best, curves = run.train(
        torch.from_numpy(rows),
        torch.from_numpy(order[held[order]]),
        generator,
        reporter or SilentReporter(),
        notes,
    )
    head = MLPHead(
        layers=layers_of(run.network),
        mean=mean,
        scale=scale,
        output_shift=shift,
        output_scale=spread,
        present=present,
        task=task,
    )
    return Trained(head, {"best_epoch": best}, curves, tuple(notes))


def _initial_layers(
    widths: Sequence[int], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Return weights and biases, uniform in ``±1/sqrt(in)`` as those of ``nn.Linear``."""
    layers = []
    for inputs, outputs in pairwise(widths):
        bound = inputs**-0.5
        weight = torch.rand((outputs, inputs), generator=generator) * (2 * bound) - bound
        bias = torch.rand((outputs,), generator=generator) * (2 * bound) - bound
        layers.append((weight, bias))
    return layers


def _checked_mask(given: np.ndarray, n: int) -> np.ndarray:
    mask = np.asarray(given)
    if mask.shape != (n,) or mask.dtype != bool or mask.all():
        raise HeadError("expected validation_rows to be one boolean per row, not all true")
    return mask


def _held_out(
    targets: Targets,
    settings: MLPOptions,
    seed: int,
    keys: Keys,
    groups: Keys | None,
    notes: list[str],
) -> np.ndarray:
    """Return ``(n,) bool``: the rows that choose the epoch; every class keeps a training row."""
    n, strata = len(targets.values), targets.strata
    classes = np.zeros(n, dtype=np.int64) if strata is None else strata
    held = held_out_rows(classes, settings.validation, seed=seed, keys=keys, groups=groups)
    if settings.validation > 0 and not held.any():
        notes.append(
            "no rows were held out, because every class has too few different items or groups; the"
            " last epoch is kept"
        )
    return held


class _RowsByIndex(Protocol):
    """Standardised features ``(n, d)`` of which batches are taken: a tensor, or rows on disk."""

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class _StreamedRows:
    """Rows on disk, standardised as they are read."""

    x: StreamedFeatures
    mean: FloatArray
    scale: FloatArray

    def __getitem__(self, rows: Tensor) -> Tensor:
        return as_inputs(self.x[rows.numpy()], self.mean, self.scale)


def _standardised(features: Features, mean: FloatArray, scale: FloatArray) -> _RowsByIndex:
    if isinstance(features, StreamedFeatures):
        return _StreamedRows(features, mean, scale)
    # Standardising once costs a copy of the features; the perceptron reads them every epoch.
    return as_inputs(features, mean, scale)


@dataclass(frozen=True, eq=False)
class _Training:
    """A network, the rows that train it, and how.

    Attributes:
        network: trained in place.
        x: ``(n, d) float32``, standardised.
        targets: ``(n,) int64`` or ``(n, k) float32``.
        weights: ``(n,)`` of the loss, or None.
        present: ``(k,) bool``; other classes are kept out of the softmax.
        task: decides the loss.
        settings: how long, and with what steps.
    """

    network: Perceptron
    x: _RowsByIndex
    targets: Tensor
    weights: Tensor | None
    present: Tensor
    task: Task
    settings: MLPOptions

    def train(
        self,
        rows: Tensor,
        checks: Tensor,
        generator: torch.Generator,
        reporter: Reporter,
        notes: list[str],
    ) -> tuple[int, tuple[Curve, ...]]:
        """Train, keep the best epoch's weights, and return its number (from 1) and the curves.

        Args:
            rows: ``(m,) int64``, the rows that are fitted.
            checks: ``(v,) int64``, the validation rows.
            generator: of the order of the rows.
            reporter: receives progress.
            notes: what is decided is added.
        """
        settings, network = self.settings, self.network
        optimizer = _optimizer(settings, list(network.parameters()))
        history: dict[str, list[float]] = {}
        best, best_epoch, best_loss = copy.deepcopy(network.state_dict()), 0, math.inf
        with reporter.task("MLP head", settings.epochs, "epochs") as progress:
            for epoch in range(settings.epochs):
                loss = self._epoch(rows, optimizer, epoch, generator, history)
                if len(checks):
                    loss = self._measure(checks, history)
                if not math.isfinite(loss):
                    notes.append(f"training diverged in epoch {epoch + 1}; a lower rate may help")
                    break
                if loss < best_loss or not len(checks):
                    best, best_epoch = copy.deepcopy(network.state_dict()), epoch
                    best_loss = loss
                progress.advance()
                if len(checks) and settings.patience and epoch - best_epoch >= settings.patience:
                    notes.append(
                        f"stopped after epoch {epoch + 1}: no lower validation loss in"
                        f" {count(settings.patience, 'epoch')}; the weights of epoch"
                        f" {best_epoch + 1} are"
                        " kept"
                    )
                    break
        if not math.isfinite(best_loss):
            raise HeadError("training diverged in the first epoch", hint="lower the learning rate")
        network.load_state_dict(best)
        return best_epoch + 1, self._curves(history, best_epoch + 1)

    def _epoch(
        self,
        rows: Tensor,
        optimizer: torch.optim.Optimizer,
        epoch: int,
        generator: torch.Generator,
        history: dict[str, list[float]],
    ) -> float:
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        batches = torch.split(shuffled, self.settings.batch_size)

        def step(number: int, loss: Tensor) -> None:
            for group in optimizer.param_groups:
                group["lr"] = _rate(self.settings, epoch, number / len(batches))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()

        with torch.enable_grad():
            return self._walk(batches, "train", history, step)

    def _measure(self, rows: Tensor, history: dict[str, list[float]]) -> float:
        with torch.no_grad():
            return self._walk(torch.split(rows, _BLOCK_ROWS), "validation", history, None)

    def _walk(
        self,
        batches: Sequence[Tensor],
        part: str,
        history: dict[str, list[float]],
        step: Callable[[int, Tensor], None] | None,
    ) -> float:
        """Compute the mean loss and accuracy of batches, with a step after each if there is one."""
        self.network.train(step is not None)
        totals, mass = torch.zeros(2, dtype=torch.float64), 0.0
        for number, batch in enumerate(batches):
            outputs = self.network(self.x[batch])
            loss, hits = self.task.loss(outputs, self.targets[batch], self.present)
            weight = torch.ones_like(loss)
            if self.weights is not None:
                weight = self.weights[batch].to(loss.dtype)
            if step is not None:
                step(number, (loss * weight).sum() / weight.sum().clamp_min(1e-12))
            totals += torch.stack([(loss * weight).sum(), (hits * weight).sum()]).detach().double()
            mass += float(weight.sum())
        for name, total in zip(("loss", "accuracy"), totals.tolist(), strict=True):
            history.setdefault(f"{part} {name}", []).append(total / max(mass, 1e-12))
        return history[f"{part} loss"][-1]

    def _curves(self, history: dict[str, list[float]], best: int) -> tuple[Curve, ...]:
        labels = {"loss": self.task.loss_label}
        if self.task.correct is not None:
            labels["accuracy"] = "accuracy"
        return tuple(
            Curve(
                name=name,
                x=tuple(float(epoch) for epoch in range(1, len(history[name]) + 1)),
                y=tuple(history[name]),
                x_label="epoch",
                y_label=label,
                chosen=float(best),
            )
            for figure, label in labels.items()
            for part in ("train", "validation")
            if (name := f"{part} {figure}") in history
        )


def _rate(settings: MLPOptions, epoch: int, fraction: float) -> float:
    """Return the learning rate ``fraction`` of the way through ``epoch`` (from 0)."""
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (epoch + fraction) / settings.epochs))
    if settings.schedule == "step":
        return settings.lr * 0.1 ** (3 * epoch // settings.epochs)
    return settings.lr


def _optimizer(settings: MLPOptions, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=lr, weight_decay=decay)
