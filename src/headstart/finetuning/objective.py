"""What a network is trained to minimise, and the figure that chooses its best epoch, by task.

A class is learnt by cross-entropy and judged by accuracy; several labels by binary cross-entropy,
summed over the labels of an item as the likelihood of all of them is, and judged by mAP; numbers
by squared error and judged by R². Numbers are learnt in standard deviations around their mean over
the training items: with an age in days or a share of ink, the rates of a recipe mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from headstart.core.devices import doubled
from headstart.core.errors import HeadError
from headstart.core.wording import format_number, format_percent
from headstart.data import Split
from headstart.evaluation.ranked import average_precisions
from headstart.evaluation.targets import FloatArray, class_weight_vector
from headstart.evaluation.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION, task_named

Floats = NDArray[np.float64]
Mixed = tuple[Tensor, float]
"""The targets of the partners of mixed items, and the share of the items' own."""

FIGURES = {
    CLASSIFICATION.name: "accuracy",
    MULTI_LABEL.name: "mAP",
    REGRESSION.name: "R²",
}
BALANCED = "balanced accuracy"


@dataclass(frozen=True, eq=False)
class Objective:
    """The objective of one training.

    Attributes:
        task: what the targets mean.
        mean, scale: ``(k,)``, of the training targets of a regression; else 0 and 1.
        weights: ``(k,)`` of each class, or ``(2, k)`` of an item without and with each label,
            1 on average over the training items; None: all weigh alike.
        outputs: how many there are; 0: not known.
    """

    task: str = CLASSIFICATION.name
    mean: Floats | None = None
    scale: Floats | None = None
    weights: Floats | None = None
    outputs: int = 0

    @classmethod
    def of(cls, train: Split, class_weight: Literal["balanced"] | None = None) -> Objective:
        """Return the objective of training items.

        Args:
            train: the items.
            class_weight: ``balanced``: every class weighs alike, however many items it has; of
                several labels, items with a label and items without it.

        Raises:
            HeadError: numbers have no classes to weigh.
        """
        weights, k = None if class_weight is None else _balanced(train), len(train.classes)
        if train.task != REGRESSION.name or train.targets is None:
            return cls(train.task, weights=weights, outputs=k)
        scale = train.targets.std(axis=0)
        mean, scale = train.targets.mean(axis=0), np.where(scale > 0, scale, 1.0)
        return cls(train.task, mean, scale, outputs=k)

    @property
    def figure(self) -> str:
        """The name of the figure that chooses the best epoch; higher is better."""
        weighted = self.task == CLASSIFICATION.name and self.weights is not None
        return BALANCED if weighted else FIGURES[self.task]

    @property
    def loss_label(self) -> str:
        """The title of an axis of losses."""
        if self.task == REGRESSION.name:
            return "mean squared error (variances of the targets)"
        return task_named(self.task).loss_label

    def targets(self, split: Split, device: torch.device) -> Tensor:
        """Return what items are trained towards: ``(n,) int64``, or ``(n, k) float32``."""
        values: NDArray[np.generic] = split.labels
        if split.targets is not None:
            values = split.targets
            if self.mean is not None and self.scale is not None:
                values = (split.targets - self.mean) / self.scale
            values = values.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    def loss(
        self, outputs: Tensor, truth: Tensor, smoothing: float = 0.0, mixed: Mixed | None = None
    ) -> Tensor:
        """Return the mean loss over items; with ``mixed``, of both targets of mixed items.

        Args:
            outputs: ``(n, k)``.
            truth: as :meth:`targets` returns it.
            smoothing: of classes and labels.
            mixed: the targets of the partners and the share of the items' own.
        """
        loss = self._mean(outputs, truth, smoothing)
        if mixed is None:
            return loss
        partners, share = mixed
        return share * loss + (1 - share) * self._mean(outputs, partners, smoothing)

    def summed(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the sum of the losses of items, as validation adds them up."""
        if self.task == CLASSIFICATION.name and self.weights is None:
            return functional.cross_entropy(outputs.float(), truth, reduction="sum")
        return self._each(outputs.float(), truth, 0.0).sum()

    def _mean(self, outputs: Tensor, truth: Tensor, smoothing: float) -> Tensor:
        if self.task == CLASSIFICATION.name and self.weights is None:
            return functional.cross_entropy(outputs.float(), truth, label_smoothing=smoothing)
        return self._each(outputs.float(), truth, smoothing).mean()

    def _each(self, outputs: Tensor, truth: Tensor, smoothing: float) -> Tensor:
        """Return the loss of every item ``(n,)``; weights are 1 on average over the training."""
        weights = None if self.weights is None else torch.from_numpy(self.weights).to(outputs)
        if self.task == CLASSIFICATION.name:
            return functional.cross_entropy(
                outputs, truth, weights, reduction="none", label_smoothing=smoothing
            )
        if self.task == REGRESSION.name:
            return ((outputs - truth) ** 2).mean(1)
        smoothed = truth * (1 - smoothing) + smoothing / 2
        loss = functional.binary_cross_entropy_with_logits(outputs, smoothed, reduction="none")
        if weights is not None:
            loss = loss * torch.where(truth > 0.5, weights[1], weights[0])
        return loss.sum(1)

    def score(self, truth: Tensor, outputs: Tensor) -> float:
        """Return the figure of items: finite, and higher for better outputs.

        Args:
            truth: as :meth:`targets` returns it.
            outputs: ``(n, k)``.
        """
        made, given = doubled(outputs).cpu().numpy(), doubled(truth).cpu().numpy()
        if self.task == CLASSIFICATION.name:
            right, labels = made.argmax(axis=1) == given, given.astype(np.int64)
            if self.weights is None:
                return float(right.mean())
            counts = np.bincount(labels)
            return float((np.bincount(labels, right) / np.maximum(counts, 1))[counts > 0].mean())
        if self.task == MULTI_LABEL.name:
            each = average_precisions(given > 0.5, made)
            known = each[np.isfinite(each)]
            return float(known.mean()) if len(known) else 0.0
        # Where these items do not vary, the variance of the training items takes its place: 1.
        variance = given.var(axis=0)
        squared = ((made - given) ** 2).mean(axis=0)
        return float((1.0 - squared / np.where(variance > 0, variance, 1.0)).mean())

    def predicted(
        self, outputs: Floats, thresholds: FloatArray | None = None
    ) -> NDArray[np.generic]:
        """Return what outputs say: classes ``(n,)``, memberships, or numbers in their own unit.

        Args:
            outputs: ``(n, k)``.
            thresholds: ``(k,)``, the probability above which a label is there; None: 0.5.
        """
        if self.task == CLASSIFICATION.name:
            return np.asarray(outputs.argmax(axis=1))
        if self.task == MULTI_LABEL.name:
            return np.asarray(expit(outputs) > (0.5 if thresholds is None else thresholds))
        if self.mean is None or self.scale is None:
            return outputs
        return np.asarray(outputs * self.scale + self.mean)

    def worded(self, score: float) -> str:
        """Return a figure as text: shares in per cent."""
        return format_number(score) if self.task == REGRESSION.name else format_percent(score)

    def plain(self) -> dict[str, object]:
        """Return what of it decides the result of a training, for its identity."""
        parts = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        return {
            "task": self.task,
            **{name: value.tolist() for name, value in parts.items() if value is not None},
        }


def _balanced(train: Split) -> Floats:
    if train.task == CLASSIFICATION.name:
        k = len(train.classes)
        each = class_weight_vector("balanced", train.labels, k)
        found = np.zeros(k)
        found[train.labels] = each
        return found
    if train.task != MULTI_LABEL.name or train.targets is None:
        raise HeadError("class_weight does not apply to regression, which has no classes")
    n, having = len(train), train.targets.sum(axis=0)
    return np.stack([n / (2 * np.maximum(part, 1.0)) for part in (n - having, having)])


__all__ = ["BALANCED", "FIGURES", "Objective"]
