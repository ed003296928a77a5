"""How good class predictions are, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from headstart.core.errors import HeadError
from headstart.core.records import ClassScores, Evaluation, Interval, ReliabilityBin, Score
from headstart.evaluation.intervals import wilson_interval

FloatArray = npt.NDArray[np.float64]

_RESAMPLES = 2000
_BINS = 15
# A resample table has one cell for each pair of classes; so many cells are held at once.
_CELLS_AT_ONCE = 4_000_000


def accuracy_score(labels: object, predicted: object, *, level: float = 0.95) -> Score:
    """Return the fraction of items that are right, with Wilson's interval.

    Args:
        labels, predicted: ``(n,) int``.
        level: the confidence level.

    Raises:
        HeadError: if the lengths differ or there is no item.
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if truth.shape != guess.shape or truth.ndim != 1 or len(truth) == 0:
        raise HeadError(
            f"expected one prediction per label, found shapes {guess.shape} and {truth.shape}"
        )
    right = int((truth == guess).sum())
    return Score(right / len(truth), wilson_interval(right, len(truth), level=level))


def evaluate(
    labels: object,
    probabilities: object,
    classes: Sequence[str],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Score class probabilities against labels.

    Balanced accuracy is the mean recall over the classes that occur in ``labels``; macro F1 the
    mean over the classes that occur in ``labels`` or are predicted, an undefined F1 counting as
    0 (both as in scikit-learn). Their intervals are percentiles of 2,000 bootstrap resamples of
    the items; that of the accuracy is Wilson's.

    Args:
        labels: ``(n,) int64`` in ``[0, k)``; a class need not occur.
        probabilities: ``(n, k)``, rows that sum to 1.
        classes: ``k`` names.
        level: the confidence level.
        seed: of the bootstrap.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    y, p = _check(labels, probabilities, len(classes))
    n, k = p.shape
    predicted = p.argmax(axis=1)
    confusion = np.bincount(y * k + predicted, minlength=k * k).reshape(k, k)
    balanced, f1 = _macro_scores(confusion[None])
    low_high = _bootstrap(confusion, level, seed)
    bins = reliability(y, p)
    own = np.maximum(p[np.arange(n), y], np.finfo(np.float64).tiny)
    return Evaluation(
        n=n,
        classes=tuple(classes),
        accuracy=accuracy_score(y, predicted, level=level),
        balanced_accuracy=_score(float(balanced[0]), low_high[0], level, n),
        macro_f1=_score(float(f1[0]), low_high[1], level, n),
        log_loss=float(-np.log(own).mean()),
        ece=float(sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / n),
        per_class=_per_class(confusion, classes),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        reliability=bins,
    )


def reliability(
    labels: object, probabilities: object, *, bins: int = _BINS
) -> tuple[ReliabilityBin, ...]:
    """Return confidence against accuracy in equal-width bins of the top probability.

    Args:
        labels: ``(n,) int``.
        probabilities: ``(n, k)``.
        bins: how many; 15 is customary (Guo et al. 2017). Empty bins are left out.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y, p = _check(labels, p, p.shape[1] if p.ndim == 2 else 0)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    # A bin is open below and closed above, so that a probability of 1 falls in the last.
    where = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    confidence_sum = np.bincount(where, confidence, bins)
    right_sum = np.bincount(where, right.astype(np.float64), bins)
    return tuple(
        ReliabilityBin(
            i / bins,
            (i + 1) / bins,
            float(confidence_sum[i] / count[i]),
            float(right_sum[i] / count[i]),
            int(count[i]),
        )
        for i in range(bins)
        if count[i]
    )


def _check(
    labels: object, probabilities: object, k: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if y.ndim != 1 or p.shape != (len(y), k) or len(y) == 0 or k == 0:
        raise HeadError(
            f"expected probabilities of shape (items, classes) = ({len(y) if y.ndim else 0}, {k}),"
            f" found {p.shape}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= k:
        raise HeadError(f"expected labels from 0 to {k - 1}, found {y.min()} to {y.max()}")
    if not np.isfinite(p).all() or p.min() < 0 or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise HeadError("expected probabilities that are not negative and sum to 1 in every row")
    return y.astype(np.int64), p


def _macro_scores(confusion: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return balanced accuracy and macro F1 of each table, ``(b, k, k) -> (b,), (b,)``."""
    diagonal = np.diagonal(confusion, axis1=1, axis2=2).astype(np.float64)
    support = confusion.sum(axis=2).astype(np.float64)
    guessed = confusion.sum(axis=1).astype(np.float64)
    recall = diagonal / np.maximum(support, 1)
    balanced = recall.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1)
    occurs = (support + guessed) > 0
    f1 = 2 * diagonal / np.maximum(support + guessed, 1)
    macro = f1.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1)
    return cast(FloatArray, balanced), cast(FloatArray, macro)


def _bootstrap(
    confusion: np.ndarray, level: float, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    # Drawing n items with replacement is drawing the confusion table from a multinomial, which
    # costs the same for ten thousand items as for ten.
    k, n = len(confusion), int(confusion.sum())
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(confusion)
    share = confusion.ravel()[filled] / n
    batch = max(1, min(_RESAMPLES, _CELLS_AT_ONCE // (k * k)))
    scores: list[tuple[FloatArray, FloatArray]] = []
    for start in range(0, _RESAMPLES, batch):
        size = min(batch, _RESAMPLES - start)
        tables = np.zeros((size, k * k), dtype=np.int64)
        tables[:, filled] = rng.multinomial(n, share, size=size)
        scores.append(_macro_scores(tables.reshape(size, k, k)))
    tails = [50 * (1 - level), 50 * (1 + level)]
    balanced = np.percentile(np.concatenate([s[0] for s in scores]), tails)
    macro = np.percentile(np.concatenate([s[1] for s in scores]), tails)
    return (float(balanced[0]), float(balanced[1])), (float(macro[0]), float(macro[1]))


def _score(value: float, bounds: tuple[float, float], level: float, n: int) -> Score:
    interval = Interval(bounds[0], bounds[1], level, "bootstrap", n) if n > 1 else None
    return Score(value, interval)


def _per_class(confusion: np.ndarray, classes: Sequence[str]) -> tuple[ClassScores, ...]:
    right = np.diagonal(confusion)
    support, guessed = confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassScores(
            label=label,
            precision=float(right[i] / max(guessed[i], 1)),
            recall=float(right[i] / max(support[i], 1)),
            f1=float(2 * right[i] / max(support[i] + guessed[i], 1)),
            support=int(support[i]),
        )
        for i, label in enumerate(classes)
    )
