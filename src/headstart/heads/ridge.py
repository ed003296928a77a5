"""Ridge regression: the whole path of penalties, and its leave-one-out errors, from one
eigendecomposition (Golub, Heath and Wahba 1979; Rifkin and Lippert 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.records import Curve
from headstart.core.row_keys import Index, Keys
from headstart.evaluation.targets import FloatArray, as_weights, class_weight_vector
from headstart.evaluation.tasks import Task, task_named
from headstart.heads.calibration import fit_temperature
from headstart.heads.copies import keep_together, members_of_several, units_left_out
from headstart.heads.features import Features, as_rows, blocks, moments, standardised
from headstart.heads.linear import LinearHead
from headstart.heads.merges import Gram
from headstart.heads.ridge_classes import fit_many_classes

_TOGETHER_ROWS = 4096
_MOST_TARGETS = 10_000_000
_EYE_SPARE = 1.0 + 1e-12

RIDGE_GRID: tuple[float, ...] = tuple(float(a) for a in 10.0 ** np.linspace(-3, 8, 45))
"""Penalties for standardised features, of which ``n`` rows have a Gram matrix of trace ``n d``."""


@dataclass(frozen=True)
class RidgePath:
    """Ridge regression at every penalty.

    Attributes:
        alphas: ``(a,)``, ascending.
        error: ``(a,)``, leave-one-out mean squared error over rows and outputs.
        accuracy: ``(a,)``, leave-one-out accuracy; NaN for a regression.
        chosen: the position of the least ``error``.
        head: at the chosen penalty; a classifier's temperature is fitted to the left-out outputs.
        left_out: ``(n, k)``, the output for each row of the fit to all other rows, at the chosen
            penalty; what is kept together is left out together. None, as ``accuracy`` is NaN, where
            rows times classes exceed ten million: then no such matrix is made.
        notes: what was decided on the user's behalf.
    """

    alphas: tuple[float, ...]
    error: FloatArray
    accuracy: FloatArray
    chosen: int
    head: LinearHead
    left_out: FloatArray | None
    notes: tuple[str, ...] = ()


def fit_ridge(
    x: object,
    y: object,
    n_classes: int,
    *,
    alphas: Sequence[float] = RIDGE_GRID,
    task: str = "classification",
    standardise: bool = True,
    class_weight: str | np.ndarray | None = None,
    sample_weight: object = None,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> RidgePath:
    """Minimise ``sum_i w_i |y_i - x_i W - b|^2 + alpha |W|^2`` at every ``alpha``.

    Classes become targets of 1 and -1, as in scikit-learn's ``RidgeClassifierCV``. The left-out
    error of row i is ``(y_i - f(x_i)) / (1 - h_i)`` with h the diagonal of the hat matrix ``H``.
    Of rows U that are kept together it is ``(I - H_UU)^-1 (y_U - f(x_U))``, where all of them are
    left out. The standardisation and the intercept's part of H are those of all rows.

    Args:
        x: features ``(n, d)``.
        y: class indices ``(n,)`` or soft labels ``(n, k)``; memberships ``(n, k)``; or targets
            ``(n,)`` or ``(n, t)``.
        n_classes: the number of outputs.
        alphas: penalties, in any order; the least left-out error chooses.
        task: what ``y`` means.
        standardise: scale each feature to unit deviation first.
        class_weight: ``"balanced"``, one weight per class, or None; for class indices only.
        sample_weight: ``(n,)``, how often each row counts, above 0; None: once.
        keys, groups: which rows are left out together; see :mod:`headstart.core.division`.
            Without keys the content of a row is its key; near copies are kept together, too
            (:func:`~headstart.heads.keep_together`).

    Raises:
        HeadError: if the input is invalid.
    """
    features = as_rows(x)
    grid = np.unique(np.asarray(alphas, dtype=np.float64))
    if not (len(grid) and np.isfinite(grid).all() and grid.min() > 0):
        raise HeadError("expected finite penalties above 0")
    what = task_named(task)
    encoded = what.encode(y, len(features), n_classes)
    labels = encoded.labels
    counts = as_weights(sample_weight, len(features))
    if class_weight is not None and task == "multi-label":
        raise HeadError(
            "class_weight needs class indices, one per item: ridge weights items, not labels of"
            " an item",
            hint="use head='linear' or head='mlp', or threshold='balanced'",
        )
    weight = class_weight_vector(class_weight, labels, n_classes, counts)
    weights = np.ones(len(features)) if weight is None else weight
    mean, scale = moments(features, np.arange(len(features)), counts)
    scale = scale if standardise else np.ones_like(scale)
    together = keep_together(encoded.strata, features, keys=keys)
    units = units_left_out(together.keys, groups)
    if labels is not None and len(features) * n_classes > _MOST_TARGETS:
        found = fit_many_classes(features, labels, n_classes, grid, mean, scale, weights, units)
        return RidgePath(
            tuple(float(a) for a in grid),
            found.error,
            np.full(len(grid), np.nan),
            found.chosen,
            found.head,
            None,
            together.notes,
        )
    targets = what.code(encoded, n_classes)
    system = _System(features, mean, scale, weights, targets, units)
    error, accuracy = _left_out_scores(system, grid, encoded.values, what, counts)
    chosen = int(error.argmin())
    alpha = float(grid[chosen])
    left_out = np.empty_like(targets)
    for rows, outputs in system.left_out(np.array([alpha])):
        left_out[rows] = next(outputs)
    coefficients, intercept = system.solve(alpha)
    present = encoded.present
    head = LinearHead(coefficients, intercept, mean, scale, present, task=task, method="ridge")
    if labels is not None:
        logits = np.where(present, left_out, -np.inf)
        head = head.with_temperature(fit_temperature(logits, labels, counts))
    return RidgePath(
        tuple(float(a) for a in grid), error, accuracy, chosen, head, left_out, together.notes
    )


def ridge_curve(alphas: tuple[float, ...], error: FloatArray, chosen: int) -> Curve:
    """Return the left-out error against the penalty."""
    return Curve(
        name="leave-one-out",
        x=alphas,
        y=tuple(float(v) for v in error),
        x_label="alpha (penalty)",
        y_label="left-out mean squared error",
        log_x=True,
        chosen=alphas[chosen],
    )


def decomposed(sums: Gram) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues ``(d,)`` and eigenvectors ``(d, d)`` of the Gram matrix, and the products
    with the targets in their basis ``(d, k)``.
    """
    values, basis = np.linalg.eigh(sums.gram)
    return np.maximum(values, 0.0), basis, basis.T @ sums.cross


def leverages(factor: FloatArray, values: FloatArray, alphas: FloatArray) -> FloatArray:
    """Return the diagonal of the hat matrix ``(m, a)``, without the intercept's part.

    Args:
        factor: ``(m, d)``, rows in the eigenbasis.
        values: ``(d,)``.
        alphas: ``(a,)``.
    """
    found: FloatArray = (factor * factor) @ (1.0 / (values[:, None] + alphas))
    return found


def _left_out_scores(
    system: _System,
    grid: FloatArray,
    values: np.ndarray,
    task: Task,
    counts: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    """Return the left-out squared error and accuracy at every penalty, ``(a,)`` each."""
    error, right = np.zeros(len(grid)), np.zeros(len(grid))
    count = np.ones(len(system.targets)) if counts is None else counts
    for rows, outputs in system.left_out(grid):
        targets, weights = system.targets[rows], system.weights[rows]
        for at, output in enumerate(outputs):
            error[at] += float(weights @ ((output - targets) ** 2).mean(axis=1))
            if task.correct is not None:
                right[at] += float(count[rows] @ task.correct(output, values[rows]))
    accuracy = right / float(count.sum())
    return error / system.total, np.full(len(grid), np.nan) if task.correct is None else accuracy


def _same_size(units: Index) -> list[Index]:
    """Return the rows of units of two rows or more: ``(u, m)`` of u units of one size at a time."""
    by_size: dict[int, list[Index]] = {}
    for rows in members_of_several(units):
        by_size.setdefault(len(rows), []).append(rows)
    return [
        np.stack(same[part])
        for size, same in sorted(by_size.items())
        for part in blocks(len(same), max(1, _TOGETHER_ROWS // size))
    ]


def _without(parts: FloatArray, residual: FloatArray) -> FloatArray:
    """Return ``(I - P P^T)^-1 e`` for ``P: (u, m, r)`` and ``e: (u, m, k)``."""
    size = min(parts.shape[1:])
    transposed = parts.transpose(0, 2, 1)
    if size == parts.shape[1]:
        inner = parts @ transposed
        solved: FloatArray = np.linalg.solve(_EYE_SPARE * np.eye(size) - inner, residual)
        return solved
    small: FloatArray = np.linalg.solve(
        _EYE_SPARE * np.eye(size) - transposed @ parts, transposed @ residual
    )
    return np.asarray(residual + parts @ small)


class _System:
    """The eigendecomposition of the (weighted, centred) Gram or kernel matrix."""

    def __init__(
        self,
        x: Features,
        mean: FloatArray,
        scale: FloatArray,
        weights: FloatArray,
        targets: FloatArray,
        units: Index,
    ) -> None:
        self.x, self.mean, self.scale, self.weights = x, mean, scale, weights
        self.root = np.sqrt(weights)
        self.total = float(weights.sum())
        # The weighted means, on top of the standardisation.
        self.centre = np.zeros(x.shape[1])
        for rows in self._blocks():
            self.centre += weights[rows] @ self._block(rows, centred=False)
        self.centre /= self.total
        self.target_mean = weights @ targets / self.total
        self.y = (targets - self.target_mean) * self.root[:, None]
        self.targets = targets
        self.alone = np.bincount(units)[units] == 1
        self.together = _same_size(units)
        n, d = x.shape
        self.primal = n >= d
        self.values: FloatArray
        self.basis: FloatArray
        self.projected: FloatArray
        if self.primal:
            self._decompose_gram(d)
        else:
            values, self.basis = np.linalg.eigh(self._kernel(n))
            self.values = np.maximum(values, 0.0)
            self.projected = self.basis.T @ self.y

    def solve(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Return ``(d, k)`` coefficients and ``(k,)`` intercepts."""
        inner = self.projected / (self.values + alpha)[:, None]
        if self.primal:
            w = self.basis @ inner
        else:
            dual = self.basis @ inner
            w = np.zeros((self.x.shape[1], dual.shape[1]))
            for rows in self._blocks():
                w += self._weighted(rows).T @ dual[rows]
        return w, self.target_mean - self.centre @ w

    def left_out(self, alphas: FloatArray) -> Iterator[tuple[Any, Iterator[FloatArray]]]:
        """Yield, block by block, the outputs for each row of the fit to all other rows.

        A block is turned into the eigenbasis once for all penalties, whose outputs ``(m, k)``
        follow one by one: ``(rows, outputs)``. What is kept together follows behind all others.
        """
        yield from self._left_out_alone(alphas)
        for members in self.together:
            yield members.ravel(), self._left_out_together(members, alphas)

    def _left_out_together(self, members: Index, alphas: FloatArray) -> Iterator[FloatArray]:
        """Yield the outputs ``(u m, k)`` at every penalty for u units of m rows: ``(u, m)``."""
        rows = members.ravel()
        root, targets = self.root[rows][:, None], self.targets[rows]
        safe = np.maximum(root, 1e-150)
        turned = self._block(rows) @ self.basis if self.primal else self.basis[rows]
        factor = (turned * root if self.primal else turned).reshape(*members.shape, -1)
        for alpha in alphas:
            inner = self.projected / (self.values + alpha)[:, None]
            fitted = turned @ inner if self.primal else (turned * self.values) @ inner / safe
            gain = (1.0 if self.primal else self.values) / (self.values + alpha)
            parts = np.concatenate(
                [factor * np.sqrt(gain), (root / np.sqrt(self.total)).reshape(*members.shape, 1)],
                axis=2,
            )
            residual = (targets - fitted - self.target_mean) * root
            solved = _without(parts, residual.reshape(*members.shape, -1)).reshape(targets.shape)
            yield np.where(root > 0, targets - solved / safe, fitted + self.target_mean)

    def _left_out_alone(self, alphas: FloatArray) -> Iterator[tuple[Any, Iterator[FloatArray]]]:
        for rows in self._blocks():
            alone = self.alone[rows]
            if alone.all():
                yield rows, self._outputs(rows, alphas)
            elif alone.any():
                outputs = (one[alone] for one in self._outputs(rows, alphas))
                yield np.arange(rows.start, rows.stop)[alone], outputs

    def _outputs(self, rows: slice, alphas: FloatArray) -> Iterator[FloatArray]:
        """Yield the outputs ``(m, k)`` for a block at every penalty, each row left out alone."""
        if self.primal:
            factor = self._block(rows) @ self.basis
            leverage = leverages(factor, self.values, alphas)
            leverage *= self.weights[rows, None]
        else:
            u = self.basis[rows]
            leverage = (u * u) @ (self.values[:, None] / (self.values[:, None] + alphas))
            factor = u * self.values
        hat = self.weights[rows, None] / self.total + leverage
        spare, targets = np.maximum(1.0 - hat, 1e-12), self.targets[rows]
        root = np.maximum(self.root[rows], 1e-150)[:, None]
        for at, alpha in enumerate(alphas):
            fitted = factor @ (self.projected / (self.values + alpha)[:, None])
            if not self.primal:
                fitted /= root
            yield targets - (targets - fitted - self.target_mean) / spare[:, at, None]

    def _decompose_gram(self, d: int) -> None:
        sums = Gram(np.zeros((d, d)), np.zeros((d, self.y.shape[1])))
        for rows in self._blocks():
            sums.add(self._weighted(rows), self.y[rows])
        self.values, self.basis, self.projected = decomposed(sums)

    def _kernel(self, n: int) -> FloatArray:
        kernel = np.empty((n, n))
        for rows in self._blocks():
            z = self._weighted(rows)
            for others in self._blocks():
                if others.start < rows.start:
                    part = z @ self._weighted(others).T
                    kernel[rows, others], kernel[others, rows] = part, part.T
            kernel[rows, rows] = z @ z.T
        return kernel

    def _blocks(self) -> Iterator[slice]:
        return blocks(len(self.x))

    def _weighted(self, rows: slice) -> FloatArray:
        return self._block(rows) * self.root[rows, None]

    def _block(self, rows: Any, *, centred: bool = True) -> FloatArray:
        z = standardised(self.x[rows], self.mean, self.scale)
        if centred:
            z -= self.centre
        return z
