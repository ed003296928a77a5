"""The heads of a study: how one is trained on rows, and what it gets right."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.records import Curve
from headstart.evaluation import choose_linear
from headstart.heads import fit_logistic
from headstart.heads.mlp import fit_mlp

Ints = NDArray[np.int64]
Rows = NDArray[np.float32]

GRID = tuple(float(c) for c in np.logspace(-5, 2, 8))
"""A value a decade. A study compares backbones, and accuracy is flat around the best C."""


_OF_THE_FIT = ("class_weight", "standardise", "tolerance", "device")
"""Options of the linear head that decide a fit at a given C; the others choose C."""


@dataclass(frozen=True)
class HeadSpec:
    """A head and how it is trained.

    Attributes:
        kind: ``linear``: logistic regression, its penalty chosen by cross-validation inside the
            training rows; no chance in it but the folds. ``mlp``: trained by mini-batches with
            :func:`~headstart.heads.mlp.fit_mlp`, the kept epoch chosen on held-out rows.
        options: further arguments of the training function.
    """

    kind: Literal["linear", "mlp"] = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "mlp"):
            raise ConfigError((f"head must be linear or mlp, not {self.kind!r}",))

    def describe(self) -> dict[str, Any]:
        """Return plain values for keys and reports."""
        return {"kind": self.kind, **{key: _plain(v) for key, v in self.options.items()}}

    def __str__(self) -> str:
        return ", ".join(
            f"{key} {value}" if key != "kind" else str(value)
            for key, value in self.describe().items()
        )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def tutorial_head(optimizer: Literal["sgd", "adam"]) -> HeadSpec:
    """Return the linear layer of the usual transfer tutorial, trained by SGD or Adam.

    Rate 0.001 (momentum 0.9 for SGD), batches of 100, a tenth of the rate after each third of 21
    epochs, which is ``StepLR(step_size=7, gamma=0.1)``. The features are standardised first.
    """
    return HeadSpec(
        "mlp",
        {
            "hidden": (),
            "dropout": 0.0,
            "optimizer": optimizer,
            "lr": 1e-3,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "epochs": 21,
            "schedule": "step",
            "batch_size": 100,
            "patience": None,
        },
    )


@dataclass(frozen=True, eq=False)
class TaskRows:
    """Everything that one head of one repetition sees.

    Attributes:
        train: ``(m, d) float32``; with ``recompute``, the rows of all passes below each other.
        labels: ``(m,) int64``.
        items: ``(m,) int64``, which item a row belongs to; rows of one item stay in one fold.
        held_out: ``(m,) bool``, rows of the items that configurations are chosen by.
        validation: ``(v, d) float32``, those items, as the head would meet them in use.
        test: ``(t, d) float32``.
    """

    train: Rows
    labels: Ints
    items: Ints
    held_out: NDArray[np.bool_]
    validation: Rows
    test: Rows


@dataclass(frozen=True, eq=False)
class Fitted:
    """What one training of one repetition gave.

    Attributes:
        validation, test: ``(v,)`` and ``(t,) int64``, predicted classes of those items.
        chosen: what was chosen in training.
        curves: loss and accuracy by epoch; empty where nothing was trained in epochs.
        seconds: wall time of the training; differs from run to run.
    """

    validation: Ints
    test: Ints
    chosen: dict[str, float]
    curves: tuple[Curve, ...] = ()
    seconds: float = 0.0


def fit_head(spec: HeadSpec, rows: TaskRows, n_classes: int, seed: int) -> Fitted:
    """Train the head and predict.

    The linear head that judges the validation items is trained without them; the one that is
    tested is refitted on all training rows with the same penalty and options. The perceptron
    holds the validation items out to choose its epoch, and is tested as it is.

    Args:
        spec: which head.
        rows: features and labels.
        n_classes: the number of classes.
        seed: of folds, initial weights and mini-batches.
    """
    begun = time.perf_counter()
    fit = _fit_mlp if spec.kind == "mlp" else _fit_linear
    fitted = fit(spec, rows, n_classes, seed)
    return dataclasses.replace(fitted, seconds=time.perf_counter() - begun)


def _fit_linear(spec: HeadSpec, rows: TaskRows, n_classes: int, seed: int) -> Fitted:
    options = {"folds": 3, "grid": GRID, "tolerance": 1e-4, **spec.options}
    fit = ~rows.held_out
    repeated = len(np.unique(rows.items)) < len(rows.items)
    choice = choose_linear(
        rows.train[fit],
        rows.labels[fit],
        n_classes,
        seed=seed,
        groups=rows.items[fit] if repeated else None,
        **options,
    )
    validation = choice.head.predict(rows.validation) if len(rows.validation) else _none()
    head = choice.head
    if rows.held_out.any():
        head, _ = fit_logistic(
            rows.train,
            rows.labels,
            n_classes,
            C=choice.chosen["C"],
            **{name: options[name] for name in _OF_THE_FIT if name in options},
        )
    return Fitted(validation, head.predict(rows.test), dict(choice.chosen))


def _fit_mlp(spec: HeadSpec, rows: TaskRows, n_classes: int, seed: int) -> Fitted:
    made = fit_mlp(
        rows.train,
        rows.labels,
        n_classes,
        seed=seed,
        validation_rows=rows.held_out if rows.held_out.any() else None,
        **({"validation": 0.0, **spec.options} if not rows.held_out.any() else spec.options),
    )
    validation = made.head.predict(rows.validation) if len(rows.validation) else _none()
    last = {curve.name: curve.y[made.best_epoch - 1] for curve in made.curves}
    loss = last.get("train loss", math.nan)
    chosen = {"best_epoch": float(made.best_epoch), "train_loss": float(loss)}
    return Fitted(validation, made.head.predict(rows.test), chosen, made.curves)


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


__all__ = ["Fitted", "HeadSpec", "TaskRows", "fit_head", "tutorial_head"]
