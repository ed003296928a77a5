"""The multi-layer perceptron: hidden layers with ReLU and dropout on standardised features.

Everything random (initial weights, the order of the rows, dropout, the held-out part) comes from
one generator made from the seed; the global random state is neither read nor moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.division import Keys, held_out_rows
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve
from headstart.core.seeds import seed_faults
from headstart.heads.base import Arrays, Head, Task, expect_arrays
from headstart.heads.checks import (
    Features,
    FloatArray,
    as_labels,
    as_multi_hot,
    as_regression_targets,
    as_rows,
    as_soft_targets,
    class_weight_vector,
    require_two_classes,
)
from headstart.heads.logistic.rows import moments
from headstart.heads.source import StreamedFeatures
from headstart.heads.training import Optimizer, RowsByIndex, Schedule, TrainingPlan, train

_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class MLPHead(Head):
    """``h_0 = (x - mean) / scale``, ``h_j = relu(W_j h_{j-1} + b_j)``, outputs the last, linear.

    Attributes:
        layers: pairs of weight ``(out, in) float32`` and bias ``(out,) float32``.
        mean, scale: ``(d,) float64``, the standardisation of the training rows.
        output_shift, output_scale: ``(k,) float64``, undo the standardisation of regression
            targets; 0 and 1 otherwise.
        present: ``(k,) bool``, the classes that the training rows held.
        task, temperature: see :class:`~headstart.heads.base.Head`.
    """

    kind: ClassVar[str] = "mlp"

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    mean: FloatArray
    scale: FloatArray
    output_shift: FloatArray
    output_scale: FloatArray
    present: np.ndarray
    task: Task = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return len(self.mean)

    @property
    def n_classes(self) -> int:
        """The number of outputs."""
        return len(self.present)

    def decision(self, x: Features) -> FloatArray:
        """Return the outputs ``(n, k) float64``; ``-inf`` for classes not seen in training."""
        outputs = np.empty((len(x), self.n_classes))
        layers = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in self.layers]
        for start in range(0, len(x), _BLOCK_ROWS):
            block = (x[start : start + _BLOCK_ROWS] - self.mean) / self.scale
            with torch.inference_mode():
                hidden = forward(torch.from_numpy(block.astype(np.float32)), layers)
            outputs[start : start + _BLOCK_ROWS] = hidden.double().numpy()
        outputs = outputs * self.output_scale + self.output_shift
        if self.task != "regression":
            outputs[:, ~self.present] = -np.inf
        return cast(FloatArray, outputs)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays as they are, the task, and the number of layers."""
        arrays = {
            "mean": self.mean,
            "scale": self.scale,
            "output_shift": self.output_shift,
            "output_scale": self.output_scale,
            "present": self.present.astype(np.uint8),
        }
        for number, (weight, bias) in enumerate(self.layers):
            arrays |= {f"weight.{number}": weight, f"bias.{number}": bias}
        return arrays, {"task": self.task, "layers": len(self.layers)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse layers that do not fit one another."""
        count = options["layers"]
        if not (isinstance(count, int) and 1 <= count <= len(arrays)):
            raise HeadError(f"the number of layers of the head is impossible: {count!r}")
        if options["task"] not in get_args(Task):
            raise HeadError(f"the task of the head is unknown: {options['task']!r}")
        widths = ["d", *(f"h{i}" for i in range(count - 1)), "k"]
        shapes: dict[str, tuple[int | str, ...]] = {"mean": ("d",), "scale": ("d",)}
        shapes |= dict.fromkeys(("output_shift", "output_scale", "present"), ("k",))
        for i in range(count):
            shapes |= {f"weight.{i}": (widths[i + 1], widths[i]), f"bias.{i}": (widths[i + 1],)}
        expect_arrays(arrays, shapes)
        if arrays["scale"].min() <= 0:
            raise HeadError("the scale of the head must be positive everywhere")
        return cls(
            layers=tuple(
                (arrays[f"weight.{i}"].astype(np.float32), arrays[f"bias.{i}"].astype(np.float32))
                for i in range(count)
            ),
            mean=arrays["mean"].astype(np.float64),
            scale=arrays["scale"].astype(np.float64),
            output_shift=arrays["output_shift"].astype(np.float64),
            output_scale=arrays["output_scale"].astype(np.float64),
            present=arrays["present"].astype(bool),
            task=options["task"],
        )


@dataclass(frozen=True)
class MLPFit:
    """A trained perceptron and how its training went.

    Attributes:
        head: with the weights of ``best_epoch``.
        curves: train and validation loss, then (for classes) train and validation accuracy,
            against the epoch, from 1. Training figures are means over the epoch's batches, with
            dropout; validation figures are taken at its end, without.
        best_epoch: the epoch whose weights are kept, from 1.
        epochs: how many were trained.
        notes: what was decided on the user's behalf.
    """

    head: MLPHead
    curves: tuple[Curve, ...]
    best_epoch: int
    epochs: int
    notes: tuple[str, ...]


def fit_mlp(
    x: object,
    y: object,
    n_classes: int,
    *,
    hidden: Sequence[int] = (256,),
    dropout: float = 0.5,
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    momentum: float = 0.9,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "cosine",
    patience: int | None = 10,
    validation: float = 0.2,
    validation_rows: np.ndarray | None = None,
    keys: Keys | None = None,
    groups: Keys | None = None,
    task: Literal["classification", "multi-label", "regression"] = "classification",
    class_weight: str | np.ndarray | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> MLPFit:
    """Train a perceptron on frozen features with mini-batches.

    Args:
        x: features ``(n, d)``.
        y: class indices ``(n,)``; or soft labels ``(n, k)``; multi-label memberships ``(n, k)``;
            regression targets ``(n,)`` or ``(n, t)``, which are standardised for training.
        n_classes: the number of outputs ``k`` (or targets ``t``).
        hidden: widths of the hidden layers; empty makes a linear head.
        dropout: on the inputs of every layer but the first, in training only.
        epochs: at most so many passes over the training part.
        batch_size: rows a step; the last batch of an epoch may be smaller.
        lr: the initial learning rate.
        weight_decay: decoupled for ``adamw`` (its default of 1e-2 is PyTorch's), L2 otherwise.
        momentum: of ``sgd``.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        schedule: ``cosine`` to zero, ``step`` (a tenth after each third of the epochs) or
            ``constant``.
        patience: stop after so many epochs without a lower validation loss; None never stops.
        validation: the fraction of the rows that is held out (stratified by class) to choose
            the epoch; 0 keeps the last epoch's weights.
        validation_rows: ``(n,) bool``, hold out just these rows instead.
        keys, groups: what decides which rows are held out, and which are kept together; see
            :mod:`headstart.core.division`.
        task: what ``y`` means.
        class_weight: ``"balanced"``, one weight a class, or None; for class indices only.
        seed: of everything random.
        reporter: is told about the epochs.

    Raises:
        HeadError: if the input or an option is unfit; all unfit options are named together.
    """
    _check_options(hidden, dropout, batch_size, validation, seed)
    plan = TrainingPlan(
        epochs, batch_size, lr, weight_decay, momentum, optimizer, schedule, patience
    )
    plan.check()
    features = as_rows(x)
    targets, labels, present = _targets(y, len(features), n_classes, task)
    indices = targets if targets.ndim == 1 else None
    weights = class_weight_vector(class_weight, indices, n_classes)
    notes: list[str] = []
    held = _held_out_rows(
        labels, len(features), validation, validation_rows, seed, keys, groups, notes
    )
    if not present.all():
        notes.append(f"{int((~present).sum())} classes have no training row; probability 0")
    train_rows = np.flatnonzero(~held)
    mean, scale = moments(features, train_rows)
    shift: FloatArray = np.zeros(n_classes)
    spread: FloatArray = np.ones(n_classes)
    if task == "regression":
        shift, spread = moments(targets, train_rows)
        targets = ((targets - shift) / spread).astype(np.float32)
    generator = torch.Generator().manual_seed(seed)
    widths = [features.shape[1], *hidden, n_classes]
    layers = initial_layers(widths, generator)
    result = train(
        layers,
        lambda inputs: forward(inputs, layers),
        lambda inputs: forward(inputs, layers, dropout, generator),
        _inputs(features, mean, scale),
        torch.from_numpy(targets),
        None if weights is None else torch.from_numpy(weights),
        torch.from_numpy(present),
        held,
        task,
        plan,
        generator,
        reporter or SilentReporter(),
    )
    notes += result.notes
    head = MLPHead(
        layers=tuple((w.numpy().copy(), b.numpy().copy()) for w, b in result.layers),
        mean=mean,
        scale=scale,
        output_shift=shift,
        output_scale=spread,
        present=present,
        task=task,
    )
    return MLPFit(head, result.curves, result.best_epoch, result.epochs, tuple(notes))


def forward(
    inputs: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Apply the layers, ``(n, d) -> (n, k)``; with dropout if ``dropout > 0``."""
    hidden = inputs
    for number, (weight, bias) in enumerate(layers):
        if number:
            hidden = functional.relu(hidden)
            if dropout > 0:
                # functional.dropout would draw from the global generator.
                keep = torch.rand(hidden.shape, generator=generator) >= dropout
                hidden = hidden * keep / (1 - dropout)
        hidden = functional.linear(hidden, weight, bias)
    return hidden


def initial_layers(
    widths: Sequence[int], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Return weights ``(out, in)`` and biases, uniform in ``±1/sqrt(in)`` as ``nn.Linear``'s."""
    layers = []
    for inputs, outputs in pairwise(widths):
        bound = inputs**-0.5
        weight = torch.rand((outputs, inputs), generator=generator) * (2 * bound) - bound
        bias = torch.rand((outputs,), generator=generator) * (2 * bound) - bound
        layers.append((weight, bias))
    return layers


def _inputs(features: Features, mean: FloatArray, scale: FloatArray) -> RowsByIndex:
    if isinstance(features, StreamedFeatures):
        return _StandardisedRows(features, mean, scale)
    # Standardising once costs a copy of the features; the perceptron reads them every epoch.
    return torch.from_numpy(((features - mean) / scale).astype(np.float32))


@dataclass(frozen=True)
class _StandardisedRows:
    """Rows on disk, standardised as they are read."""

    x: StreamedFeatures
    mean: FloatArray
    scale: FloatArray

    def __getitem__(self, rows: Tensor) -> Tensor:
        block = (self.x[rows.numpy()] - self.mean) / self.scale
        return torch.from_numpy(block.astype(np.float32))


def _check_options(
    hidden: Sequence[int], dropout: float, batch_size: int, validation: float, seed: int
) -> None:
    faults = seed_faults(seed)
    if any(width < 1 for width in hidden):
        faults.append(f"expected hidden widths of 1 or more, found {list(hidden)}")
    if not 0 <= dropout < 1:
        faults.append(f"expected dropout in [0, 1), found {dropout}")
    if batch_size < 1:
        faults.append(f"expected a batch size of 1 or more, found {batch_size}")
    if not 0 <= validation < 1:
        faults.append(f"expected a validation fraction in [0, 1), found {validation}")
    if faults:
        raise HeadError("; ".join(faults))


def _targets(
    y: object, n: int, n_classes: int, task: Task
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return targets for the loss, labels to stratify by (or None), and the classes present."""
    everything = np.ones(n_classes, dtype=bool)
    if task == "regression":
        values = as_regression_targets(y, n)
        if values.shape[1] != n_classes:
            raise HeadError(f"expected {n_classes} targets an item, found {values.shape[1]}")
        return values.astype(np.float32), None, everything
    if task == "multi-label":
        return as_multi_hot(y, n, n_classes).astype(np.float32), None, everything
    if np.ndim(y) == 2:  # type: ignore[arg-type]
        soft = as_soft_targets(y, n, n_classes)
        require_two_classes(np.flatnonzero(soft.max(axis=0) > 0))
        return soft.astype(np.float32), soft.argmax(axis=1), soft.max(axis=0) > 0
    labels = as_labels(y, n, n_classes)
    require_two_classes(labels)
    return labels, labels, np.bincount(labels, minlength=n_classes) > 0


def _held_out_rows(
    labels: np.ndarray | None,
    n: int,
    fraction: float,
    given: np.ndarray | None,
    seed: int,
    keys: Keys | None,
    groups: Keys | None,
    notes: list[str],
) -> np.ndarray:
    """Return ``(n,) bool``: the rows that choose the epoch; every class keeps a training row."""
    if given is not None:
        mask = np.asarray(given)
        if mask.shape != (n,) or mask.dtype != bool or mask.all():
            raise HeadError("expected validation_rows to be one boolean a row, not all true")
        return mask
    strata = np.zeros(n, dtype=np.int64) if labels is None else labels
    held = held_out_rows(strata, fraction, seed=seed, keys=keys, groups=groups)
    if fraction > 0 and not held.any():
        notes.append(
            "no rows were held out, because every class has too few; the last epoch is kept"
        )
    return held
