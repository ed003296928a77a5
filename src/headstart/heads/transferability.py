"""Transferability scores: how well features suit labels, without training a head.

- **LogME** (You et al., ICML 2021): the log evidence of Bayesian linear regression on one-hot
  targets, mean over classes and items, both precisions at their maximum.
- **H-score**, with the covariance shrunk after Ledoit and Wolf (Bao et al. 2019; Ibrahim et al.
  2022): ``tr(cov(f)^-1 cov(E[f | y]))``, the share of the variance of features that classes
  explain, in all directions alike.

Both take seconds and are higher for better features. They rank backbones; they are no accuracies.
"""

from __future__ import annotations

import numpy as np

from headstart.evaluation.targets import FloatArray, as_labels, require_two_classes
from headstart.heads.features import as_features

_ROUNDS = 50
_SMALL = 1e-12


def log_evidence(x: object, y: object, n_classes: int) -> float:
    """Return LogME of features ``(n, d)`` and class indices ``(n,)``.

    Raises:
        HeadError: if the input is invalid, or fewer than two classes occur.
    """
    features, labels, present = _checked(x, y, n_classes)
    n, d = features.shape
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    s2 = s**2
    return float(np.mean([_evidence(u, s2, labels == label, n, d) for label in present]))


def log_evidence_of_values(x: object, y: np.ndarray) -> float:
    """Return LogME of features ``(n, d)`` and standardised targets: memberships or numbers.

    Args:
        x: features.
        y: ``(n, k)``; columns that do not vary say nothing and are left out.

    Returns:
        The mean over columns; NaN where none varies.
    """
    features = as_features(x).astype(np.float64)
    n, d = features.shape
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    deviation = y.std(axis=0)
    columns = ((y - y.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)).T[deviation > 0]
    found = [_evidence(u, s**2, column, n, d) for column in columns]
    return float(np.mean(found)) if found else float("nan")


def _evidence(u: FloatArray, s2: FloatArray, values: np.ndarray, n: int, d: int) -> float:
    """Return the evidence an item of one target, by MacKay's fixed point.

    The target is a number, or whether an item is of a class.
    """
    target = values.astype(np.float64)
    projected2 = (u.T @ target) ** 2
    rest = max(float(target @ target) - float(projected2.sum()), 0.0)
    alpha, beta = 1.0, 1.0
    for _ in range(_ROUNDS):
        t = alpha / beta
        gamma = float((s2 / (s2 + t)).sum())
        weights2 = float((s2 * projected2 / (s2 + t) ** 2).sum())
        residual2 = float((projected2 * (t / (s2 + t)) ** 2).sum()) + rest
        alpha = gamma / max(weights2, _SMALL)
        beta = max(n - gamma, _SMALL) / max(residual2, _SMALL)
        if abs(alpha / beta - t) <= 1e-4 * t:
            break
    t = alpha / beta
    weights2 = float((s2 * projected2 / (s2 + t) ** 2).sum())
    residual2 = float((projected2 * (t / (s2 + t)) ** 2).sum()) + rest
    log_determinant = float(np.log(alpha + beta * s2).sum()) + (d - len(s2)) * np.log(alpha)
    evidence = d * np.log(alpha) + n * np.log(beta) - log_determinant - n * np.log(2 * np.pi)
    return float(evidence - beta * residual2 - alpha * weights2) / (2 * n)


def h_score(x: object, y: object, n_classes: int) -> float:
    """Return the shrunk H-score of features ``(n, d)`` and class indices ``(n,)``.

    Raises:
        HeadError: if the input is invalid, or fewer than two classes occur.
    """
    features, labels, present = _checked(x, y, n_classes)
    n, d = features.shape
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / n
    level = float(np.trace(covariance)) / d
    size = float((covariance**2).sum())
    fourth = float((np.einsum("nd,nd->n", centred, centred) ** 2).sum())
    distance = size - d * level**2
    shrinkage = float(np.clip((fourth / n - size) / n / distance, 0, 1)) if distance > 0 else 1.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(d)] += shrinkage * level + _SMALL * max(level, _SMALL)
    means = np.stack([centred[labels == label].mean(axis=0) for label in present])
    shares = np.array([(labels == label).mean() for label in present])
    explained = np.einsum("kd,dk,k->", means, np.linalg.solve(covariance, means.T), shares)
    return float((1 - shrinkage) * explained)


def _checked(x: object, y: object, n_classes: int) -> tuple[FloatArray, np.ndarray, np.ndarray]:
    features = as_features(x).astype(np.float64)
    labels = as_labels(y, len(features), n_classes)
    return features, labels, require_two_classes(labels)


def rank_correlation(a: list[float], b: list[float]) -> float | None:
    """Return Kendall's tau-b of two scores of the same things; None for fewer than three, or where
    all are equal.
    """
    if len(a) < 3:
        return None
    first = np.sign(np.subtract.outer(np.asarray(a), np.asarray(a)))
    second = np.sign(np.subtract.outer(np.asarray(b), np.asarray(b)))
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else None


__all__ = ["h_score", "log_evidence", "log_evidence_of_values", "rank_correlation"]
