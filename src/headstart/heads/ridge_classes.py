"""Ridge regression on ±1 targets of very many classes, without a matrix of rows by classes.

With targets of 1 and -1 everything that the choice of the penalty needs follows from the sums of
the rows of each class. With ``t_i`` row i in the eigenbasis of the Gram matrix, ``D`` the division
by eigenvalue and penalty, and ``P: (d, k)`` the turned class sums, the squared left-out error of a
row over all classes is

    (|y_i - m|^2 - 2 (y_i - m) . (P^T D t_i) + t_i^T D P P^T D t_i) / (1 - h_i)^2

with ``m`` the mean target, in which ``y_i`` has one entry of 1, so that a row costs ``d^2`` instead
of ``d k``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headstart.evaluation.targets import FloatArray, IntArray
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.features import Features, blocks, standardised
from headstart.heads.linear import LinearHead

_TINY = 1e-12


@dataclass(frozen=True)
class ManyClasses:
    """The left-out error of every penalty ``(a,)``, the chosen one, and the head there."""

    error: FloatArray
    chosen: int
    head: LinearHead


def fit_many_classes(
    x: Features,
    labels: IntArray,
    n_classes: int,
    alphas: FloatArray,
    mean: FloatArray,
    scale: FloatArray,
    weights: FloatArray,
    units: IntArray,
) -> ManyClasses:
    """Fit ridge regression at every penalty, and choose by the left-out error.

    Rows that are kept together with others do not judge, unless all are.

    Args:
        x, labels, n_classes: checked features ``(n, d)``, class indices ``(n,)``, their number.
        alphas: penalties, ascending.
        mean, scale: ``(d,)``, the standardisation.
        weights: ``(n,)``.
        units: ``(n,)``, equal where rows are kept together.
    """
    system = _System(x, labels, n_classes, mean, scale, weights)
    judge = np.bincount(units)[units] == 1
    judge = judge & (weights > 0) if (judge & (weights > 0)).any() else weights > 0
    error = np.zeros(len(alphas))
    for rows in blocks(len(x)):
        error += system.errors(rows, alphas, weights[rows] * judge[rows])
    chosen = int(error.argmin())
    alpha = float(alphas[chosen])
    present = np.bincount(labels, minlength=n_classes) > 0
    coefficients, intercept = system.solve(alpha)
    head = LinearHead(coefficients, intercept, mean, scale, present, method="ridge")
    some = np.flatnonzero(judge)
    some = some[calibration_rows(len(some), n_classes)]
    outputs = np.where(present, system.left_out(some, alpha), -np.inf)
    head = head.with_temperature(fit_temperature(outputs, labels[some]))
    return ManyClasses(error / float((weights * judge).sum()), chosen, head)


class _System:
    """The eigendecomposition of the weighted Gram matrix, and the class sums turned by it."""

    def __init__(
        self,
        x: Features,
        labels: IntArray,
        n_classes: int,
        mean: FloatArray,
        scale: FloatArray,
        weights: FloatArray,
    ) -> None:
        self.x, self.labels, self.weights = x, labels, weights
        self.mean, self.scale, self.k = mean, scale, n_classes
        self.total, d = float(weights.sum()), x.shape[1]
        self.centre = np.zeros(d)
        for rows, z in self._read():
            self.centre += weights[rows] @ z
        self.centre /= self.total
        gram, sums = np.zeros((d, d)), np.zeros((n_classes, d))
        for rows, z in self._read():
            z -= self.centre
            weighted = z * weights[rows, None]
            gram += weighted.T @ z
            np.add.at(sums, labels[rows], weighted)
        values, self.basis = np.linalg.eigh(gram)
        self.values = np.maximum(values, 0.0)
        self.projected = self.basis.T @ (2 * sums).T
        share = np.bincount(labels, weights, n_classes) / self.total
        self.target_mean = 2 * share - 1
        self.squares = self.projected @ self.projected.T
        self.against = self.projected @ (1 + self.target_mean)
        self.constant = float(((1 + self.target_mean) ** 2).sum())

    def errors(self, rows: slice, alphas: FloatArray, weights: FloatArray) -> FloatArray:
        """Return the weighted sum over rows of the mean squared left-out error, ``(a,)``."""
        turned = self._turned(rows)
        truth = self.labels[rows]
        own = self.projected.T[truth]
        missed = self.constant - 4 * self.target_mean[truth]
        found = np.empty(len(alphas))
        for at, alpha in enumerate(alphas):
            shrunk = turned / (self.values + alpha)
            hat = self.weights[rows] * (1 / self.total + np.einsum("nd,nd->n", shrunk, turned))
            along = 2 * np.einsum("nd,nd->n", shrunk, own) - shrunk @ self.against
            size = np.einsum("nd,nd->n", shrunk @ self.squares, shrunk)
            square = np.maximum(missed - 2 * along + size, 0.0)
            found[at] = float((weights * square / np.maximum(1 - hat, _TINY) ** 2).sum()) / self.k
        return found

    def solve(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Return ``(d, k)`` coefficients and ``(k,)`` intercepts."""
        w = self.basis @ (self.projected / (self.values + alpha)[:, None])
        return w, self.target_mean - self.centre @ w

    def left_out(self, rows: IntArray, alpha: float) -> FloatArray:
        """Return the outputs ``(m, k)`` for some rows of the fit to all other rows."""
        turned = self._turned(rows)
        shrunk = turned / (self.values + alpha)
        hat = self.weights[rows] * (1 / self.total + np.einsum("nd,nd->n", shrunk, turned))
        targets = np.full((len(rows), self.k), -1.0)
        targets[np.arange(len(rows)), self.labels[rows]] = 1.0
        residual = targets - shrunk @ self.projected - self.target_mean
        left: FloatArray = targets - residual / np.maximum(1 - hat, _TINY)[:, None]
        return left

    def _read(self) -> Iterator[tuple[slice, FloatArray]]:
        for rows in blocks(len(self.x)):
            yield rows, standardised(self.x[rows], self.mean, self.scale)

    def _turned(self, rows: slice | IntArray) -> FloatArray:
        z = standardised(self.x[rows], self.mean, self.scale) - self.centre
        turned: FloatArray = z @ self.basis
        return turned


__all__ = ["ManyClasses", "fit_many_classes"]
