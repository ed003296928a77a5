"""Linear discriminant analysis with a shrunk covariance: one pass, no iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray, as_labels, as_weights, require_two_classes
from headstart.heads.features import Features, as_rows, blocks, moments, standardised
from headstart.heads.linear import LinearHead
from headstart.heads.merges import ClassSums, Scatter

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
    is_present = np.isin(np.arange(n_classes), present)
    if len(features) <= _FEW * features.shape[1]:
        means = _class_means(features, labels, n_classes, standardise, weight)
        found = _by_inner_products(features, labels, weight, means, shrinkage, is_present)
        if found is not None:
            return found
    gauss = gaussian_classes(features, labels, n_classes, standardise=standardise, weight=weight)
    return head_of_sums(
        gauss.counts, gauss.centres, gauss.scatter, shrinkage, gauss.mean, gauss.scale, is_present
    )


@dataclass(frozen=True, eq=False)
class GaussianClasses:
    """Classes with means of their own and one covariance, in standardised features.

    Attributes:
        mean, scale: ``(d,)``, by which features are standardised.
        centres: ``(k, d)``, the class means; zero for a class without rows.
        counts: ``(k,)``, the weight of the rows of each class.
        scatter: of the rows around the mean of their class.
    """

    mean: FloatArray
    scale: FloatArray
    centres: FloatArray
    counts: FloatArray
    scatter: Scatter


def gaussian_classes(
    features: Features,
    labels: np.ndarray,
    n_classes: int,
    *,
    standardise: bool = True,
    weight: FloatArray | None = None,
) -> GaussianClasses:
    """Take means and scatter in three passes, block by block.

    Args:
        features: checked, ``(n, d)``.
        labels: class indices ``(n,)``.
        n_classes: the number of classes.
        standardise: scale each feature to unit deviation first.
        weight: ``(n,)``, how often each row counts; None: once.
    """
    count = np.ones(len(features)) if weight is None else weight
    means = _class_means(features, labels, n_classes, standardise, weight)
    scatter = Scatter(np.zeros((features.shape[1], features.shape[1])))
    for rows in blocks(len(labels)):
        z = standardised(features[rows], means.mean, means.scale) - means.centres[labels[rows]]
        scatter.add(z, count[rows])
    return GaussianClasses(means.mean, means.scale, means.centres, means.counts, scatter)


@dataclass(frozen=True, eq=False)
class _ClassMeans:
    """What :class:`GaussianClasses` holds but the scatter."""

    mean: FloatArray
    scale: FloatArray
    centres: FloatArray
    counts: FloatArray


def _class_means(
    features: Features,
    labels: np.ndarray,
    n_classes: int,
    standardise: bool,
    weight: FloatArray | None,
) -> _ClassMeans:
    count = np.ones(len(features)) if weight is None else weight
    mean, scale = moments(features, np.arange(len(features)), weight)
    scale = scale if standardise else np.ones_like(scale)
    counts = np.bincount(labels, count, minlength=n_classes).astype(np.float64)
    sums = ClassSums(np.zeros((n_classes, features.shape[1])))
    for rows in blocks(len(features)):
        sums.add(standardised(features[rows], mean, scale), labels[rows], count[rows])
    centres = sums.sums / np.where(counts > 0, counts, 1.0)[:, None]
    return _ClassMeans(mean, scale, centres, counts)


def _by_inner_products(
    features: Features,
    labels: np.ndarray,
    weight: FloatArray | None,
    means: _ClassMeans,
    shrinkage: float | None,
    present: np.ndarray,
) -> tuple[LinearHead, float] | None:
    """Fit few rows by their inner products ``(n, n)``, which say the same for less than ``(d, d)``.

    Returns:
        None where the shrinkage is too small for Woodbury's identity.
    """
    d, n = features.shape[1], float(means.counts.sum())
    count = np.ones(len(features)) if weight is None else weight
    whole = slice(0, len(features))
    z = standardised(features[whole], means.mean, means.scale) - means.centres[labels]
    square = np.einsum("nd,nd->n", z, z)
    centred = z * np.sqrt(count / n)[:, None]
    inner = centred @ centred.T
    level = float(count @ square) / (n * d)
    automatic = _ledoit_wolf(float((inner**2).sum()), level, float(count @ square**2), n, d)
    used = automatic if shrinkage is None else float(shrinkage)
    if level <= 0 or used < _SAFE:
        return None
    ridge = (used + _RIDGE) * level
    inner = (1 - used) * inner
    inner[np.diag_indices(len(inner))] += ridge
    right = means.centres.T
    solved = np.linalg.solve(inner, centred @ right)
    matrix = (right - (1 - used) * (centred.T @ solved)) / ridge
    return _head(means.counts, means.centres, matrix, means.mean, means.scale, present), used


def head_of_sums(
    counts: FloatArray,
    centres: FloatArray,
    scatter: Scatter,
    shrinkage: float | None,
    mean: FloatArray,
    scale: FloatArray,
    present: np.ndarray,
) -> tuple[LinearHead, float]:
    """Return the head that follows from sums over the rows, and its shrinkage.

    Args:
        counts: ``(k,)``, rows of each class.
        centres: ``(k, d)``, the means of the classes, standardised.
        scatter: of the standardised rows around the mean of their class.
        shrinkage: see :func:`fit_lda`.
        mean, scale: ``(d,)``, of the standardisation.
        present: ``(k,) bool``, the classes that have rows.
    """
    shrunk, used = shrunk_covariance(scatter, float(counts.sum()), shrinkage)
    weight = np.linalg.solve(shrunk, centres.T)
    return _head(counts, centres, weight, mean, scale, present), used


def _head(
    counts: FloatArray,
    centres: FloatArray,
    weight: FloatArray,
    mean: FloatArray,
    scale: FloatArray,
    present: np.ndarray,
) -> LinearHead:
    prior = np.log(np.where(counts > 0, counts, 1.0) / counts.sum())
    bias = prior - 0.5 * np.einsum("kd,dk->k", centres, weight)
    return LinearHead(
        weight * present, np.where(present, bias, 0.0), mean, scale, present, method="lda"
    )


def shrunk_covariance(
    scatter: Scatter, n: float, shrinkage: float | None = None
) -> tuple[FloatArray, float]:
    """Return the covariance inside the classes ``(d, d)``, which has an inverse, and its shrinkage.

    Args:
        scatter: of the rows around the mean of their class.
        n: their weight.
        shrinkage: in [0, 1]; None: by Ledoit and Wolf (2004).
    """
    within, automatic = _within(scatter, n)
    used = automatic if shrinkage is None else float(shrinkage)
    level = float(np.trace(within)) / len(within)
    shrunk = (1 - used) * within
    # Without shrinkage a collinear pair of features has no inverse: a whisper of a ridge.
    # Without any spread inside the classes nothing is known of it: unit variances.
    shrunk[np.diag_indices(len(within))] += used * level + _RIDGE * level if level > 0 else 1.0
    return shrunk, used


def _within(sums: Scatter, n: float) -> tuple[FloatArray, float]:
    """Return the within-class covariance ``(d, d)`` and its Ledoit-Wolf shrinkage."""
    scatter = sums.matrix / n
    d = len(scatter)
    size = float((scatter**2).sum())
    level = float(np.trace(scatter)) / d
    return scatter, _ledoit_wolf(size, level, sums.fourth, n, d)


def _ledoit_wolf(size: float, level: float, fourth: float, n: float, d: int) -> float:
    """Return the shrinkage from the squared size, mean variance and fourth moments of the rows."""
    distance = size - d * level**2
    noise = (fourth / n - size) / n
    return float(np.clip(noise / distance, 0.0, 1.0)) if distance > 0 else 1.0
