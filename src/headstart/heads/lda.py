"""Linear discriminant analysis with a shrunk covariance: one pass, no iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray, as_labels, as_weights, require_two_classes
from headstart.heads.features import Features, as_rows, blocks, moments, standardised
from headstart.heads.linear import LinearHead

_RIDGE = 1e-10
_FEW, _SAFE = 0.5, 1e-3
"""Rows are few below this share of the features; a ridge is safe above this share of the mean
variance, where Woodbury's identity loses three digits at most."""


def fit_lda(
    x: object,
    y: object,
    n_classes: int,
    *,
    shrinkage: float | None = None,
    standardise: bool = True,
    sample_weight: object = None,
) -> tuple[LinearHead, float]:
    """Fit Gaussian classes of one covariance ``S`` and their own means.

    The logits are ``x S^-1 m_k - m_k S^-1 m_k / 2 + log(n_k / n)``, with
    ``S = (1 - s) S_within + s mean(diag(S_within)) I``.

    Args:
        x: features ``(n, d)``.
        y: class indices ``(n,)``.
        n_classes: the number of classes; absent ones get probability 0.
        shrinkage: ``s`` in [0, 1]; None takes the value of Ledoit and Wolf (2004), which is what
            makes the method work when n is not much larger than d.
        standardise: scale each feature to unit deviation first.
        sample_weight: ``(n,)``, how often each row counts, above 0; None: once.

    Returns:
        The head, and the shrinkage that was used.

    Raises:
        HeadError: if the input is invalid.
    """
    features = as_rows(x)
    labels = as_labels(y, len(features), n_classes)
    present = require_two_classes(labels)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise HeadError(f"expected a shrinkage from 0 to 1, found {shrinkage}")
    weight = as_weights(sample_weight, len(features))
    count = np.ones(len(features)) if weight is None else weight
    mean, scale = moments(features, np.arange(len(features)), weight)
    scale = scale if standardise else np.ones_like(scale)
    counts = np.bincount(labels, count, minlength=n_classes)
    centres = np.zeros((n_classes, features.shape[1]))
    for rows in blocks(len(features)):
        z = standardised(features[rows], mean, scale)
        np.add.at(centres, labels[rows], z * count[rows, None])
    there = np.where(counts > 0, counts, 1.0)
    centres /= there[:, None]
    within = _Within.of(features, labels, centres, mean, scale, count)
    used = within.shrinkage if shrinkage is None else float(shrinkage)
    # Without shrinkage a collinear pair of features has no inverse: a whisper of a ridge.
    # Without any spread inside the classes nothing is known of it: unit variances.
    ridge = (used + _RIDGE) * within.level if within.level > 0 else 1.0
    weight = within.solve(centres.T, 1 - used, ridge)
    prior = np.log(there / counts.sum())
    bias = prior - 0.5 * np.einsum("kd,dk->k", centres, weight)
    is_present = np.isin(np.arange(n_classes), present)
    head = LinearHead(
        weight * is_present, np.where(is_present, bias, 0.0), mean, scale, is_present, method="lda"
    )
    return head, used


@dataclass(frozen=True)
class _Within:
    """The within-class covariance ``S: (d, d)``.

    Attributes:
        scatter: ``S``; None where rows are so few that their inner products say the same for less.
        centred: ``(n, d)`` with ``S = centred^T centred``, where scatter is None.
        level: the mean of the diagonal of ``S``.
        shrinkage: by Ledoit and Wolf (2004).
    """

    scatter: FloatArray | None
    centred: FloatArray
    level: float
    shrinkage: float

    @classmethod
    def of(
        cls,
        x: Features,
        labels: np.ndarray,
        centres: FloatArray,
        mean: FloatArray,
        scale: FloatArray,
        count: FloatArray,
    ) -> _Within:
        """Add up the rows."""
        d, n = x.shape[1], float(count.sum())
        parts: list[FloatArray] = []
        scatter, trace, fourth = None, 0.0, 0.0
        few = len(labels) <= _FEW * d
        for rows in blocks(len(labels)):
            z = standardised(x[rows], mean, scale) - centres[labels[rows]]
            square = np.einsum("nd,nd->n", z, z)
            trace += float(count[rows] @ square) / n
            fourth += float(count[rows] @ square**2)
            if few:
                parts.append(z * np.sqrt(count[rows, None] / n))
            else:
                part = z.T @ (z * count[rows, None])
                scatter = part if scatter is None else scatter + part
        if scatter is not None:
            scatter /= n
        centred = np.concatenate(parts) if parts else np.zeros((0, d))
        inner = centred @ centred.T if scatter is None else scatter
        size, level = float((inner**2).sum()), trace / d
        distance = size - d * level**2
        noise = (fourth / n - size) / n
        shrinkage = float(np.clip(noise / distance, 0.0, 1.0)) if distance > 0 else 1.0
        return cls(scatter, centred, level, shrinkage)

    def solve(self, right: FloatArray, factor: float, ridge: float) -> FloatArray:
        """Return ``(factor S + ridge I)^-1 right``, for ``right: (d, k)``.

        Of few rows the matrix of their inner products is solved instead (Woodbury's identity),
        which needs a ridge that is more than a whisper.
        """
        scatter = self.scatter
        if scatter is None and ridge >= _SAFE * self.level:
            inner = factor * (self.centred @ self.centred.T)
            inner[np.diag_indices(len(inner))] += ridge
            solved = np.linalg.solve(inner, self.centred @ right)
            return np.asarray((right - factor * (self.centred.T @ solved)) / ridge)
        shrunk = factor * (self.centred.T @ self.centred if scatter is None else scatter)
        shrunk[np.diag_indices(len(shrunk))] += ridge
        return np.linalg.solve(shrunk, right)
