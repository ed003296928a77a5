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
    gauss = gaussian_classes(
        features,
        labels,
        n_classes,
        standardise=standardise,
        weight=as_weights(sample_weight, len(features)),
    )
    is_present = np.isin(np.arange(n_classes), present)
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
    mean, scale = moments(features, np.arange(len(features)), weight)
    scale = scale if standardise else np.ones_like(scale)
    counts = np.bincount(labels, count, minlength=n_classes).astype(np.float64)
    sums = ClassSums(np.zeros((n_classes, features.shape[1])))
    for rows in blocks(len(features)):
        sums.add(standardised(features[rows], mean, scale), labels[rows], count[rows])
    centres = sums.sums / np.where(counts > 0, counts, 1.0)[:, None]
    scatter = Scatter(np.zeros((features.shape[1], features.shape[1])))
    for rows in blocks(len(labels)):
        z = standardised(features[rows], mean, scale) - centres[labels[rows]]
        scatter.add(z, count[rows])
    return GaussianClasses(mean, scale, centres, counts, scatter)


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
    prior = np.log(np.where(counts > 0, counts, 1.0) / counts.sum())
    bias = prior - 0.5 * np.einsum("kd,dk->k", centres, weight)
    head = LinearHead(
        weight * present, np.where(present, bias, 0.0), mean, scale, present, method="lda"
    )
    return head, used


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
    distance = size - d * level**2
    noise = (sums.fourth / n - size) / n
    return scatter, float(np.clip(noise / distance, 0.0, 1.0)) if distance > 0 else 1.0
