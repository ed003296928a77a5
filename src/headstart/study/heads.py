"""The heads of a study: how one is trained on rows, and what it gets right."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.records import Curve
from headstart.core.row_keys import RowKeys
from headstart.heads.registry import HeadKind, Trained, TrainingRows, head_kind, head_kinds
from headstart.heads.table import unknown
from headstart.heads.thresholds import with_thresholds

Ints = NDArray[np.int64]
FloatRows = NDArray[np.float32]


@dataclass(frozen=True)
class HeadSpec:
    """A head and how it is trained.

    Attributes:
        kind: a kind of head in the registry (:func:`headstart.heads.head_kinds`).
        options: options of that kind, by name; others are those that the kind offers for many
            fits (``HeadKind.coarse``).
    """

    kind: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = any(self.kind in (kind.name, *kind.aliases) for kind in head_kinds())
        faults = self.head.faults(self.options) if known else [unknown(self.kind, None)]
        if faults:
            raise ConfigError(tuple(faults))

    @property
    def head(self) -> HeadKind:
        """The kind of head."""
        return head_kind(self.kind)

    def describe(self) -> dict[str, Any]:
        """Return plain values for keys and reports."""
        return {"kind": self.kind, **{key: _plain(v) for key, v in self.options.items()}}


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
class HeadRows:
    """Everything that one head of one repetition sees.

    Attributes:
        train: ``(m, d) float32``; with ``recompute``, the rows of all passes below each other.
        labels: ``(m,) int64``, or memberships or numbers ``(m, k)``.
        items: ``(m,) int64``, which item a row belongs to, by its content and its group; rows of
            one item, copies, and items of one group stay in one fold.
        held_out: ``(m,) bool``, rows of the items that configurations are chosen by.
        validation: ``(v, d) float32``, those items, as the head would meet them in use.
        test: ``(t, d) float32``.
        task: what the labels mean.
    """

    train: FloatRows
    labels: NDArray[Any]
    items: Ints
    held_out: NDArray[np.bool_]
    validation: FloatRows
    test: FloatRows
    task: str = "classification"


@dataclass(frozen=True, eq=False)
class Fitted:
    """What one training of one repetition gave.

    Attributes:
        validation, test: ``(v,)`` and ``(t,) int64``, predicted classes of those items; memberships
            or numbers ``(v, k)`` and ``(t, k)``.
        chosen: what was chosen in training.
        curves: loss and accuracy by epoch; empty where nothing was trained in epochs.
        seconds: wall time of the training; differs from run to run.
    """

    validation: NDArray[Any]
    test: NDArray[Any]
    chosen: dict[str, float]
    curves: tuple[Curve, ...] = ()
    seconds: float = 0.0


def fit_head(spec: HeadSpec, rows: HeadRows, n_classes: int, seed: int) -> Fitted:
    """Train the head and predict.

    A head that decides when to stop does so on the held-out rows, and is tested unchanged. Any
    other is trained without them to be judged on them; the one that is tested is then refitted on
    all training rows with what was chosen and the same options.

    Args:
        spec: which head.
        rows: features and labels.
        n_classes: the number of classes.
        seed: of folds, initial weights and mini-batches.
    """
    begun = time.perf_counter()
    kind, none_held_out = spec.head, not rows.held_out.any()
    shared: dict[str, Any] = {"task": rows.task, "seed": seed}
    names = tuple(str(item) for item in rows.items.tolist())
    keys = RowKeys(names, names)
    if kind.stops_early:
        own = {"validation": 0.0} if none_held_out else {}
        validation = None if none_held_out else rows.held_out
        training = TrainingRows(
            rows.train, rows.labels, n_classes, keys=keys, validation=validation, **shared
        )
        options = kind.settings(spec.options, **{**kind.coarse, **own})
        trained = with_thresholds(kind.fit(training, options), training)
        tested, curves = trained.head, trained.curves
    else:
        fit, options = ~rows.held_out, kind.settings(spec.options, **kind.coarse)
        kept = keys.take(np.flatnonzero(fit))
        training = TrainingRows(rows.train[fit], rows.labels[fit], n_classes, keys=kept, **shared)
        trained = with_thresholds(kind.fit(training, options), training)
        tested, curves = trained.head, ()
        if not none_held_out:
            everything = TrainingRows(rows.train, rows.labels, n_classes, keys=keys, **shared)
            final = kind.fit(everything, kind.with_chosen(options, trained.chosen)).head
            tested = final.with_thresholds(trained.head.thresholds)
    held = len(rows.validation)
    none = np.empty((0, *rows.labels.shape[1:]), rows.labels.dtype)
    return Fitted(
        validation=trained.head.predict(rows.validation) if held else none,
        test=tested.predict(rows.test),
        chosen=_chosen(trained),
        curves=curves,
        seconds=time.perf_counter() - begun,
    )


def _chosen(trained: Trained) -> dict[str, float]:
    """Return what training has chosen, with the loss of the chosen epoch where there is one."""
    numbers = {k: v for k, v in trained.chosen.items() if not isinstance(v, str)}
    chosen = {name: float(value) for name, value in numbers.items()}
    losses = [curve for curve in trained.curves if curve.name == "train loss"]
    if losses and "best_epoch" in chosen:
        chosen["train_loss"] = float(losses[0].y[int(chosen["best_epoch"]) - 1])
    return chosen


__all__ = ["Fitted", "FloatRows", "HeadRows", "HeadSpec", "fit_head", "tutorial_head"]
