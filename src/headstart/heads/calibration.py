"""Temperature scaling (Guo et al. 2017): one number that makes probabilities honest."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray

_BOUNDS = (-7.0, 7.0)  # of log T: from a thousandth to a thousandfold
# One number is fitted, for which some thousand rows are enough: with many classes, which make every
# row wide, no more than so many logits are looked at.
_MOST_LOGITS = 6_000_000


def calibration_rows(n: int, k: int) -> np.ndarray:
    """Return the rows that calibrate ``k`` classes: all ``n`` up to 6 million logits, else some.

    These are spread evenly over all rows.
    """
    kept = max(min(n, 1000), _MOST_LOGITS // max(k, 1))
    if kept >= n:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, kept).round().astype(np.int64))


def fit_temperature(
    logits: FloatArray,
    labels: np.ndarray,
    weight: FloatArray | None = None,
    *,
    few: bool = False,
) -> float:
    """Return the T > 0 that minimises the mean log loss of ``softmax(logits / T)``.

    The loss is convex in 1 / T, so the minimum is the only one. Predictions do not change.

    Args:
        logits: ``(n, k)``, of rows that the head was not trained on (held out, or left out one
            at a time); ``-inf`` marks a class that cannot be predicted.
        labels: ``(n,) int64``; rows whose own class cannot be predicted are left aside.
        weight: ``(n,)``, how often each row counts; None: once.
        few: adds what is known before, ``log T`` normal around 0 with deviation 1, to the summed
            loss. Ten rows that are all right would else make every later prediction certain.

    Raises:
        HeadError: if no row is left.
    """
    from scipy.optimize import minimize_scalar  # takes a quarter of a second to load

    logits = np.asarray(logits, dtype=np.float64)
    own = logits[np.arange(len(labels)), labels]
    usable = np.isfinite(own)
    if not usable.any():
        raise HeadError("expected held-out rows of a known class to calibrate on, found none")
    # The largest logit of a row is taken out first, so that dividing by a small T is harmless.
    top = logits[usable].max(axis=1)
    centred, own = logits[usable] - top[:, None], own[usable] - top
    share = None if weight is None else weight[usable] / weight[usable].sum()
    total = float(usable.sum() if weight is None else weight[usable].sum())

    def loss(log_t: float) -> float:
        inverse = np.exp(-log_t)
        losses = logsumexp(centred * inverse, axis=1) - own * inverse
        before = log_t**2 / (2 * total) if few else 0.0
        return float(losses.mean() if share is None else share @ losses) + before

    found = minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
