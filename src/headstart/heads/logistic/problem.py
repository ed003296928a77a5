"""From a user's arrays to rows and groups, and from solved parameters back to a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import HeadError
from headstart.evaluation.targets import (
    FloatArray,
    as_weights,
    class_weight_vector,
    label_weights,
)
from headstart.evaluation.tasks import task_named
from headstart.heads.features import Features, as_rows, moments
from headstart.heads.linear import LinearHead
from headstart.heads.logistic.objective import Group, Link
from headstart.heads.logistic.rows import Rows

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Problem:
    """Checked features, targets and weights of a training set.

    Attributes:
        x: ``(n, d)``.
        labels: ``(n,) int64``, or None where targets are given.
        targets: ``(n, columns) float64``, or None.
        weight: ``(n,) float64``, of the loss.
        counts: ``(n,) float64``, how often each row counts where it judges; None: once.
        link: softmax, or sigmoid for two classes and for multi-label targets.
        columns: the outputs that are solved for; 1 for two classes.
        n_classes: the outputs of the head.
        task: what the head is for.
        standardise: whether features are scaled to unit deviation.
        balance: ``(2, k) float64``, what the absence and the presence of each label weigh; None: 1.
    """

    x: Features
    labels: np.ndarray | None
    targets: FloatArray | None
    weight: FloatArray
    counts: FloatArray | None
    link: Link
    columns: int
    n_classes: int
    task: str
    standardise: bool
    balance: FloatArray | None = None

    def rows(self, order: np.ndarray, device: torch.device = CPU, chunk: int = 0) -> Rows:
        """Return the training rows in the given reading order."""
        shift, scale = moments(self.x, order, self.counts)
        scale = scale if self.standardise else np.ones_like(scale)
        labels = None if self.labels is None else torch.from_numpy(self.labels[order])
        targets = None if self.targets is None else torch.from_numpy(self.targets[order])
        return Rows(
            self.x,
            order,
            None if labels is None else labels.to(device),
            None if targets is None else targets.to(device),
            shift,
            scale,
            chunk=chunk,
            device=device,
            balance=None if self.balance is None else torch.from_numpy(self.balance).to(device),
        )

    def everything(self, rows: Rows) -> Group:
        """Return the group that trains on all rows, in their common standardisation."""
        d, nothing = rows.width - 1, np.zeros(rows.n, dtype=bool)
        return Group(
            self.weight[rows.order], nothing, np.zeros(d), np.ones(d), self._absent(rows.order)
        )

    def all_but(self, rows: Rows, held_out: np.ndarray) -> Group:
        """Return the group that holds out ``held_out: (n,) bool`` (in reading order)."""
        return self.all_but_in_each(rows, held_out, (self.standardise,))[0]

    def all_but_in_each(
        self, rows: Rows, held_out: np.ndarray, standardise: Sequence[bool]
    ) -> list[Group]:
        """Return the group that holds out ``held_out``, with each of some standardisations."""
        members = rows.order[~held_out]
        shift, deviation = moments(self.x, members, self.counts)
        weight, absent = np.where(held_out, 0.0, self.weight[rows.order]), self._absent(members)
        scales = [deviation if scaled else np.ones_like(deviation) for scaled in standardise]
        return [
            Group(
                weight,
                held_out,
                (shift - rows.shift) / rows.scale,
                scale / rows.scale,
                absent,
                None if self.counts is None else np.where(held_out, self.counts[rows.order], 0.0),
            )
            for scale in scales
        ]

    def head(self, rows: Rows, group: Group, theta: Tensor) -> LinearHead:
        """Return the head with parameters ``theta: (d + 1, columns)`` of a group."""
        theta = theta.double().cpu()
        weight, bias = theta[:-1].numpy(), theta[-1].numpy()
        if self.columns < self.n_classes:
            # One sigmoid column z is a softmax over (-z / 2, z / 2).
            weight = np.concatenate([-weight / 2, weight / 2], axis=1)
            bias = np.concatenate([-bias / 2, bias / 2])
        present = ~group.absent
        return LinearHead(
            weight=np.where(present, weight, 0.0),
            bias=np.where(present, bias, 0.0),
            mean=rows.shift + group.shift * rows.scale,
            scale=rows.scale * group.scale,
            present=present,
            task=self.task,
        )

    def _absent(self, members: np.ndarray) -> np.ndarray:
        if self.link == "sigmoid":
            return np.zeros(self.n_classes, dtype=bool)
        if self.labels is not None:
            return np.asarray(np.bincount(self.labels[members], minlength=self.n_classes) == 0)
        assert self.targets is not None
        return np.asarray(self.targets[members].max(axis=0) == 0)


def make_problem(
    x: object,
    y: object,
    n_classes: int,
    *,
    standardise: bool,
    class_weight: str | np.ndarray | None,
    task: str,
    sample_weight: object = None,
) -> Problem:
    """Check the input of a solver (see ``fit_logistic`` for its meaning).

    Raises:
        HeadError: if the arrays are invalid, or fewer than two classes occur.
    """
    what = task_named(task)
    if what.probabilities is None:
        raise HeadError(f"logistic regression has no {task}", hint="use ridge or a perceptron")
    features = as_rows(x)
    targets = what.encode(y, len(features), n_classes)
    counts = as_weights(sample_weight, len(features))
    several = targets.strata is None
    balance = label_weights(class_weight, targets.values, counts) if several else None
    weight = (
        counts if several else class_weight_vector(class_weight, targets.labels, n_classes, counts)
    )
    one_column = targets.labels is not None and n_classes == 2
    return Problem(
        x=features,
        labels=targets.labels,
        targets=None if targets.labels is not None else targets.values,
        weight=np.ones(len(features)) if weight is None else weight,
        counts=counts,
        link="sigmoid" if one_column or several else "softmax",
        columns=1 if one_column else n_classes,
        n_classes=n_classes,
        task=task,
        standardise=standardise,
        balance=balance,
    )
