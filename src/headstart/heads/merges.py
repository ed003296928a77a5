"""Sums over rows that merge: what one machine finds of all rows, several find of parts and add up.

Each class is a sum over rows with ``add``, which takes a block in, and ``merge``, which takes in
the sum of other rows. Every order and division of the rows gives the same up to rounding. Their
sizes follow from the features and classes, never from the number of rows. A sum that came from
elsewhere may be read-only, so that ``merge`` makes new arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray, IntArray
from headstart.heads.features import blocks


class RowPart(Protocol):
    """Some of the rows, wherever they are. It can be pickled."""

    def blocks(self) -> Iterator[tuple[FloatArray, IntArray]]:
        """Yield features ``(m, d)`` and class indices ``(m,)``, some thousand rows at a time."""


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """Rows of an array, or of anything that is read by slices.

    Attributes:
        x: ``(n, d)``.
        y: ``(n,)``, class indices.
    """

    x: FloatArray
    y: IntArray

    def blocks(self) -> Iterator[tuple[FloatArray, IntArray]]:
        """Yield the rows in their order."""
        for rows in blocks(len(self.y)):
            yield np.asarray(self.x[rows]), np.asarray(self.y[rows], dtype=np.int64)


class Merge(Protocol):
    """A sum over rows."""

    def merge(self, other: Self) -> Self:
        """Take in the sum of other rows, and return the sum of both."""


M = TypeVar("M", bound=Merge)


def merged(sums: Iterable[M]) -> M:
    """Return the sum of several.

    Raises:
        HeadError: there is none.
    """
    total: M | None = None
    for one in sums:
        total = one if total is None else total.merge(one)
    if total is None:
        raise HeadError("expected at least one part of rows, found none")
    return total


class Over(Protocol):
    """Applies a function to every part, in any order and anywhere. ``map`` is one."""

    def __call__(
        self, function: Callable[[RowPart], M], parts: Sequence[RowPart], /
    ) -> Iterable[M]:
        """Return what the function gives of each part."""


HERE = cast(Over, map)
"""One part after the other, in this process."""


@dataclass(frozen=True, eq=False)
class Reduction:
    """How sums over rows in parts are found.

    Attributes:
        divide: from indices ``(m,)`` of training rows to parts that hold them, in their order.
        over: applies a function to every part, wherever it is.
    """

    divide: Callable[[IntArray], Sequence[RowPart]]
    over: Over


@dataclass(eq=False)
class Moments:
    """Mean, squared deviations and classes of rows (Chan, Golub and LeVeque 1983).

    Attributes:
        counts: ``(k,)``, rows of each class.
        mean: ``(d,)``; empty before the first row.
        squares: ``(d,)``, the sums of squared deviations from the mean.
        double: whether all rows were float64.
    """

    counts: FloatArray
    mean: FloatArray
    squares: FloatArray
    double: bool = True

    @classmethod
    def of(cls, part: RowPart, n_classes: int) -> Moments:
        """Return those of the rows of one part.

        Raises:
            HeadError: a row is not finite, or of no class.
        """
        total = cls(np.zeros(n_classes), np.zeros(0), np.zeros(0))
        for x, y in part.blocks():
            if len(y):
                total = total.merge(cls._of_block(x, y, n_classes))
        return total

    @classmethod
    def _of_block(cls, x: FloatArray, y: IntArray, n_classes: int) -> Moments:
        if x.ndim != 2 or len(x) != len(y):
            raise HeadError(f"expected features (m, d) and m labels, found {x.shape} and {len(y)}")
        if not np.isfinite(x).all():
            raise HeadError("expected finite features, found NaN or infinity in a part")
        if y.min() < 0 or y.max() >= n_classes:
            raise HeadError(f"expected class indices from 0 to {n_classes - 1}")
        mean = x.mean(axis=0, dtype=np.float64)
        deviation = x - mean
        counts = np.bincount(y, minlength=n_classes).astype(np.float64)
        squares = np.einsum("nd,nd->d", deviation, deviation)
        return cls(counts, mean, squares, x.dtype == np.float64)

    @property
    def total(self) -> float:
        """How many rows there are."""
        return float(self.counts.sum())

    def merge(self, other: Moments) -> Moments:
        """Take in the moments of other rows."""
        if not other.total:
            return self
        if not self.total:
            return other
        if len(self.mean) != len(other.mean):
            raise HeadError(f"parts have {len(self.mean)} and {len(other.mean)} features")
        n, m = self.total, other.total
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart * apart * (n * m / (n + m))
        mean = self.mean + apart * (m / (n + m))
        return Moments(self.counts + other.counts, mean, squares, self.double and other.double)


@dataclass(eq=False)
class ClassSums:
    """Sums of the rows of each class.

    Attributes:
        sums: ``(k, d)``.
    """

    sums: FloatArray

    def add(self, z: FloatArray, labels: IntArray, count: FloatArray | None = None) -> None:
        """Take in rows ``z: (m, d)`` of classes ``(m,)``, each ``count`` times."""
        np.add.at(self.sums, labels, z if count is None else z * count[:, None])

    def merge(self, other: ClassSums) -> ClassSums:
        """Take in the sums of other rows."""
        self.sums = self.sums + other.sums
        return self


@dataclass(eq=False)
class Scatter:
    """Second moments of centred rows, and the fourth that their shrinkage follows from.

    Attributes:
        matrix: ``(d, d)``, the sum of ``z z^T``.
        fourth: the sum of ``(z . z)^2``.
    """

    matrix: FloatArray
    fourth: float = 0.0

    def add(self, z: FloatArray, count: FloatArray | None = None) -> None:
        """Take in rows ``z: (m, d)``, each ``count`` times."""
        self.matrix += z.T @ (z if count is None else z * count[:, None])
        fourths = np.einsum("nd,nd->n", z, z) ** 2
        self.fourth += float(fourths.sum() if count is None else count @ fourths)

    def merge(self, other: Scatter) -> Scatter:
        """Take in the moments of other rows."""
        self.matrix = self.matrix + other.matrix
        self.fourth = self.fourth + other.fourth
        return self


@dataclass(eq=False)
class Gram:
    """Products of rows with themselves and with their targets.

    Attributes:
        gram: ``(d, d)``.
        cross: ``(d, k)``.
    """

    gram: FloatArray
    cross: FloatArray

    def add(self, z: FloatArray, y: FloatArray) -> None:
        """Take in rows ``z: (m, d)`` and targets ``y: (m, k)``, both weighted and centred."""
        self.gram += z.T @ z
        self.cross += z.T @ y

    def merge(self, other: Gram) -> Gram:
        """Take in the products of other rows."""
        self.gram = self.gram + other.gram
        self.cross = self.cross + other.cross
        return self


@dataclass(eq=False)
class LeftOut:
    """How well rows are predicted that are left out one at a time, at several penalties.

    Attributes:
        error: ``(a,)``, the sum of squared errors, meant over outputs.
        right: ``(a,)``, how many rows are right.
    """

    error: FloatArray
    right: FloatArray

    def add(self, at: int, error: float, right: float) -> None:
        """Take in a block at one penalty."""
        self.error[at] += error
        self.right[at] += right

    def merge(self, other: LeftOut) -> LeftOut:
        """Take in the errors of other rows."""
        self.error = self.error + other.error
        self.right = self.right + other.right
        return self


@dataclass(eq=False)
class Logits:
    """Logits and classes of some rows: those that calibrate a head.

    Attributes:
        logits: ``(m, k)`` each.
        labels: ``(m,)`` each.
    """

    logits: list[FloatArray]
    labels: list[IntArray]

    def merge(self, other: Logits) -> Logits:
        """Take in other rows."""
        self.logits = self.logits + other.logits
        self.labels = self.labels + other.labels
        return self


@dataclass(eq=False)
class LossSums:
    """Loss and gradient of several heads of logistic regression at their parameters.

    Attributes:
        loss: ``(c,) float64``, sums over rows.
        gradient: ``(d + 1, k, c) float64``, sums over rows.
    """

    loss: torch.Tensor
    gradient: torch.Tensor

    def merge(self, other: LossSums) -> LossSums:
        """Take in the losses of other rows."""
        self.loss = self.loss + other.loss
        self.gradient = self.gradient + other.gradient
        return self


@dataclass(eq=False)
class Curvatures:
    """Second derivatives of the loss of one head.

    Attributes:
        hessian: ``(k, d + 1, k, d + 1) float64``, its upper half, sums over rows.
    """

    hessian: torch.Tensor

    def merge(self, other: Curvatures) -> Curvatures:
        """Take in those of other rows."""
        self.hessian = self.hessian + other.hessian
        return self


@dataclass(eq=False)
class Probabilities:
    """What some heads make of a few rows: how their loss curves.

    Attributes:
        rows: ``(m, k, c)`` each.
    """

    rows: list[torch.Tensor]

    def merge(self, other: Probabilities) -> Probabilities:
        """Take in other rows."""
        self.rows = self.rows + other.rows
        return self


__all__ = [
    "ArrayPart",
    "ClassSums",
    "Curvatures",
    "Gram",
    "LeftOut",
    "Logits",
    "LossSums",
    "Merge",
    "Moments",
    "Probabilities",
    "RowPart",
    "Scatter",
    "merged",
]
