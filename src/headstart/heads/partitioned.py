"""Ridge and LDA on rows in parts, on one machine or many; logistic regression is in
:mod:`headstart.heads.partitioned_logistic`.

Each pass applies one function to every part and adds up what comes back
(:mod:`headstart.heads.merges`), so that neither the rows nor the parts need be in one place.
``over`` says who does it: ``map`` here, one part after the other; a process pool's ``map``; or
processes and Ray (``headstart.runners.over_processes``, ``over_ray``). The heads are those of
:func:`~headstart.heads.fit_ridge`, :func:`~headstart.heads.fit_lda` and
:func:`~headstart.heads.fit_logistic` to 1e-6, however the rows are divided. Near copies are not
looked for: ridge leaves out one row at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray, IntArray
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.features import deviations, standardised
from headstart.heads.lda import head_of_sums
from headstart.heads.linear import LinearHead
from headstart.heads.merges import (
    HERE,
    ClassSums,
    Gram,
    LeftOut,
    Logits,
    Moments,
    Over,
    RowPart,
    Scatter,
    merged,
)
from headstart.heads.ridge import RIDGE_GRID, decomposed, leverages


@dataclass(frozen=True, eq=False)
class Scaled:
    """How rows are standardised.

    Attributes:
        mean, scale: ``(d,)``.
        counts: ``(k,)``, rows of each class.
    """

    mean: FloatArray
    scale: FloatArray
    counts: FloatArray

    @property
    def present(self) -> np.ndarray:
        """Which classes have rows, ``(k,) bool``."""
        return np.asarray(self.counts > 0)

    @property
    def total(self) -> float:
        """How many rows there are."""
        return float(self.counts.sum())

    def __call__(self, x: FloatArray) -> FloatArray:
        """Standardise rows ``(m, d)``."""
        return standardised(x, self.mean, self.scale)


def scaled_over(parts: Sequence[RowPart], n_classes: int, over: Over, standardise: bool) -> Scaled:
    """Make the pass that finds mean, deviation and classes.

    Raises:
        HeadError: no rows, rows that are not finite, or fewer than two classes.
    """
    found = merged(over(partial(Moments.of, n_classes=n_classes), parts))
    if np.count_nonzero(found.counts) < 2:
        raise HeadError(
            f"expected rows of at least two classes, found {np.count_nonzero(found.counts)}"
        )
    dtype = np.dtype(np.float64 if found.double else np.float32)
    scale = deviations(found.mean, found.squares / found.total, int(found.total), dtype)
    return Scaled(found.mean, scale if standardise else np.ones_like(scale), found.counts)


# -- LDA -------------------------------------------------------------------------------------------


def lda_over(
    parts: Sequence[RowPart],
    n_classes: int,
    *,
    shrinkage: float | None = None,
    standardise: bool = True,
    over: Over = HERE,
) -> tuple[LinearHead, float]:
    """Fit :func:`~headstart.heads.fit_lda` in three passes over rows in parts.

    Args:
        parts: of the rows.
        n_classes: the number of classes.
        shrinkage, standardise: as for :func:`~headstart.heads.fit_lda`.
        over: applies a function to every part.

    Returns:
        The head, and the shrinkage that was used.

    Raises:
        HeadError: the input is invalid.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise HeadError(f"expected a shrinkage from 0 to 1, found {shrinkage}")
    scaled = scaled_over(parts, n_classes, over, standardise)
    sums = merged(over(partial(_class_sums, scaled=scaled), parts)).sums
    centres = sums / np.where(scaled.present, scaled.counts, 1.0)[:, None]
    scatter = merged(over(partial(_scatter, scaled=scaled, centres=centres), parts))
    return head_of_sums(
        scaled.counts, centres, scatter, shrinkage, scaled.mean, scaled.scale, scaled.present
    )


def _class_sums(part: RowPart, scaled: Scaled) -> ClassSums:
    total = ClassSums(np.zeros((len(scaled.counts), len(scaled.mean))))
    for x, y in part.blocks():
        total.add(scaled(x), y)
    return total


def _scatter(part: RowPart, scaled: Scaled, centres: FloatArray) -> Scatter:
    total = Scatter(np.zeros((len(scaled.mean), len(scaled.mean))))
    for x, y in part.blocks():
        total.add(scaled(x) - centres[y])
    return total


# -- ridge -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PartitionedRidge:
    """Ridge regression at every penalty.

    Attributes:
        alphas: ``(a,)``, ascending.
        error: ``(a,)``, leave-one-out mean squared error over rows and outputs.
        accuracy: ``(a,)``, leave-one-out accuracy.
        chosen: the position of the least ``error``.
        head: at that penalty, its temperature fitted to left-out outputs.
    """

    alphas: tuple[float, ...]
    error: FloatArray
    accuracy: FloatArray
    chosen: int
    head: LinearHead


@dataclass(frozen=True, eq=False)
class _Ridge:
    """The eigendecomposition that all penalties share."""

    scaled: Scaled
    values: FloatArray
    basis: FloatArray
    projected: FloatArray

    @property
    def target_mean(self) -> FloatArray:
        """The mean of targets of 1 and -1, ``(k,)``."""
        return np.asarray(2 * self.scaled.counts / self.scaled.total - 1)

    def outputs(self, x: FloatArray, y: IntArray, alphas: FloatArray) -> Iterable[FloatArray]:
        """Yield the outputs ``(m, k)`` at every penalty, each row left out alone."""
        targets = _targets(y, len(self.scaled.counts))
        factor = self.scaled(x) @ self.basis
        hat = leverages(factor, self.values, alphas) + 1.0 / self.scaled.total
        spare = np.maximum(1.0 - hat, 1e-12)
        for at, alpha in enumerate(alphas):
            fitted = factor @ (self.projected / (self.values + alpha)[:, None])
            yield targets - (targets - fitted - self.target_mean) / spare[:, at, None]


def ridge_over(
    parts: Sequence[RowPart],
    n_classes: int,
    *,
    alphas: Sequence[float] = RIDGE_GRID,
    standardise: bool = True,
    over: Over = HERE,
) -> PartitionedRidge:
    """Fit :func:`~headstart.heads.fit_ridge` of classes in four passes over rows in parts.

    Args:
        parts: of the rows.
        n_classes: the number of classes.
        alphas: penalties; the least left-out error chooses.
        standardise: scale each feature to unit deviation first.
        over: applies a function to every part.

    Raises:
        HeadError: the input is invalid.
    """
    grid = np.unique(np.asarray(alphas, dtype=np.float64))
    if not (len(grid) and np.isfinite(grid).all() and grid.min() > 0):
        raise HeadError("expected finite penalties above 0")
    scaled = scaled_over(parts, n_classes, over, standardise)
    ridge = _Ridge(scaled, *decomposed(merged(over(partial(gram_of, scaled=scaled), parts))))
    found = merged(over(partial(_left_out, ridge=ridge, alphas=grid), parts))
    chosen = int(found.error.argmin())
    alpha = float(grid[chosen])
    weight = ridge.basis @ (ridge.projected / (ridge.values + alpha)[:, None])
    head = LinearHead(
        weight, ridge.target_mean, scaled.mean, scaled.scale, scaled.present, method="ridge"
    )
    rows = calibration_rows(int(scaled.total), n_classes)
    step = max(1, int(scaled.total) // len(rows))
    held = merged(over(partial(_calibrating, ridge=ridge, alpha=alpha, step=step), parts))
    logits = np.where(scaled.present, np.concatenate(held.logits), -np.inf)
    head = head.with_temperature(fit_temperature(logits, np.concatenate(held.labels)))
    total = scaled.total
    return PartitionedRidge(
        tuple(grid.tolist()), found.error / total, found.right / total, chosen, head
    )


def _targets(y: IntArray, n_classes: int) -> FloatArray:
    targets = np.full((len(y), n_classes), -1.0)
    targets[np.arange(len(y)), y] = 1.0
    return targets


def gram_of(part: RowPart, scaled: Scaled) -> Gram:
    """Return the products of the rows of a part, with targets of 1 and -1."""
    d, k = len(scaled.mean), len(scaled.counts)
    total, mean = Gram(np.zeros((d, d)), np.zeros((d, k))), 2 * scaled.counts / scaled.total - 1
    for x, y in part.blocks():
        total.add(scaled(x), _targets(y, k) - mean)
    return total


def _left_out(part: RowPart, ridge: _Ridge, alphas: FloatArray) -> LeftOut:
    total = LeftOut(np.zeros(len(alphas)), np.zeros(len(alphas)))
    for x, y in part.blocks():
        targets = _targets(y, len(ridge.scaled.counts))
        for at, output in enumerate(ridge.outputs(x, y, alphas)):
            right = float((output.argmax(axis=1) == y).sum())
            total.add(at, float(((output - targets) ** 2).mean(axis=1).sum()), right)
    return total


def _calibrating(part: RowPart, ridge: _Ridge, alpha: float, step: int) -> Logits:
    """Return the left-out outputs of every ``step``-th row of a part."""
    total, at = Logits([], []), 0
    for x, y in part.blocks():
        mine = np.arange(-at % step, len(y), step)
        at += len(y)
        (output,) = ridge.outputs(x[mine], y[mine], np.array([alpha]))
        total.merge(Logits([output], [y[mine]]))
    return total


__all__ = [
    "PartitionedRidge",
    "Scaled",
    "lda_over",
    "ridge_over",
    "scaled_over",
]
