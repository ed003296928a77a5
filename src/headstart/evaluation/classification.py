"""How good class predictions are, on one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from headstart.core.errors import HeadError
from headstart.core.records import (
    ClassScores,
    ConfusedPair,
    Evaluation,
    ReliabilityBin,
    Score,
)
from headstart.core.row_keys import Keys
from headstart.evaluation.grouped import grouped_accuracy, grouped_figures
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.macro import Confusion, balanced_accuracy, confusion_of, macro_f1

FloatArray = npt.NDArray[np.float64]

_BINS = 15
# So many probabilities are looked at at once.
_CELLS_AT_ONCE = 4_000_000
# A matrix of more classes is neither kept nor drawn: its most frequent confusions are.
DENSE_CLASSES = 500
_PAIRS = 1000
TOP = 5
_TOP_FROM = 21  # classes from which the share of items with the true class among five is given


class ProbabilityBlocks(Protocol):
    """Probabilities ``(n, k)`` that are made block by block, and never all at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, k)``."""

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Yield the rows of all items in order, some at a time."""


def probability_blocks(
    probabilities: ProbabilityBlocks | npt.ArrayLike,
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield probabilities some rows at a time, be they an array or blocks already."""
    if hasattr(probabilities, "blocks"):
        for rows, p in cast(ProbabilityBlocks, probabilities).blocks():
            yield rows, np.asarray(p, dtype=np.float64)
        return
    whole = np.asarray(probabilities)
    step = max(1, _CELLS_AT_ONCE // max(whole.shape[1], 1))
    for start in range(0, len(whole), step):
        rows = slice(start, min(start + step, len(whole)))
        yield rows, np.asarray(whole[rows], dtype=np.float64)


def most_likely(
    probabilities: ProbabilityBlocks | npt.NDArray[np.floating[Any]], count: int = 1
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the ``count`` most probable classes of each item and their probabilities, ``(n, c)``.

    The most probable comes first, of equals the first class. At most all classes are returned.
    """
    n, k = probabilities.shape
    count = min(count, k)
    order, values = np.empty((n, count), dtype=np.int64), np.empty((n, count))
    for rows, p in probability_blocks(probabilities):
        found = p.argmax(axis=1)[:, None]
        if count > 1:
            found = np.argsort(-p, axis=1, kind="stable")[:, :count]
        order[rows] = found
        values[rows] = np.take_along_axis(p, found, axis=1)
    return order, values


def accuracy_score(
    labels: object, predicted: object, *, level: float = 0.95, groups: Keys | None = None
) -> Score:
    """Return the fraction of items that are right, with the exact interval (Blaker 2000).

    Args:
        labels, predicted: ``(n,) int``.
        level: the confidence level.
        groups: n names of what the items belong to; see :func:`evaluate`.

    Raises:
        HeadError: if the lengths differ or there is no item.
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if truth.shape != guess.shape or truth.ndim != 1 or len(truth) == 0:
        raise HeadError(
            f"expected one prediction per label, found shapes {guess.shape} and {truth.shape}"
        )
    return _share(truth == guess, groups, level)


def evaluate(
    labels: object,
    probabilities: object,
    classes: Sequence[str],
    *,
    level: float = 0.95,
    groups: Keys | None = None,
) -> Evaluation:
    """Score class probabilities against labels.

    Balanced accuracy is the mean recall over the classes that occur in ``labels``; macro F1 the
    mean over the classes that occur in ``labels`` or are predicted, an undefined F1 counting as
    0 (both as in scikit-learn). What the intervals are, and how often they hold the truth, is
    told in ``docs/intervals.md``. Memory is that of a block of rows: 10,000 classes are no more
    than their items.

    Args:
        labels: ``(n,) int64`` in ``[0, k)``; a class need not occur.
        probabilities: ``(n, k)``, rows that sum to 1: an array, or :class:`ProbabilityBlocks`.
        classes: ``k`` names.
        level: the confidence level.
        groups: n names of what the items belong to (patients, films). The intervals then are those
            of :mod:`headstart.evaluation.grouped`: groups count, not items. None: items are
            independent.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    given: ProbabilityBlocks | npt.NDArray[np.generic] = (
        cast(ProbabilityBlocks, probabilities)
        if hasattr(probabilities, "blocks")
        else np.asarray(probabilities)
    )
    k = len(classes)
    y = _checked_labels(labels, given.shape, k)
    n = len(y)
    predicted, rank = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    confidence, own = np.empty(n), np.empty(n)
    for rows, p in probability_blocks(given):
        _check_probabilities(p)
        truth, at = y[rows], np.arange(len(p))
        predicted[rows], confidence[rows] = p.argmax(axis=1), p.max(axis=1)
        own[rows] = p[at, truth]
        if k >= _TOP_FROM:
            rank[rows] = _rank(p, truth)
    table = confusion_of(y, predicted, k)
    bins = _bins(confidence, predicted == y, _BINS)
    loss = -np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()
    top = None
    if k >= _TOP_FROM:
        top = _share(rank < TOP, groups, level)
    dense = k <= DENSE_CLASSES
    if groups is None:
        accuracy = _share(predicted == y, None, level)
        balanced = balanced_accuracy(table, level=level)
        f1 = macro_f1(table, level=level)
    else:
        accuracy, balanced, f1 = grouped_figures(y, predicted, k, groups, level=level)
    return Evaluation(
        n=n,
        classes=tuple(classes),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        macro_f1=f1,
        log_loss=float(loss),
        ece=float(sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / n),
        per_class=_per_class(table, classes),
        confusion=tuple(map(tuple, table.dense().tolist())) if dense else (),
        reliability=bins,
        top_5=top,
        confused=() if dense else _confused(table, classes),
    )


def _share(right: npt.NDArray[np.bool_], groups: Keys | None, level: float) -> Score:
    """Return the share of items that are right, with its interval."""
    if groups is None:
        n = int(right.sum())
        return Score(n / len(right), proportion_interval(n, len(right), level=level))
    return grouped_accuracy(right, groups, level=level)


def _rank(p: FloatArray, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many classes come before the true one, ``(n,)``; equals in their order."""
    own = p[np.arange(len(p)), truth][:, None]
    before = (p > own) | ((p == own) & (np.arange(p.shape[1]) < truth[:, None]))
    return cast("npt.NDArray[np.int64]", before.sum(axis=1))


def _confused(table: Confusion, classes: Sequence[str]) -> tuple[ConfusedPair, ...]:
    """Return the most frequent mistakes, then by the share of the true class, then by name."""
    share = table.count / table.support[table.true]
    order = np.lexsort((table.predicted, table.true, -share, -table.count))[:_PAIRS]
    pairs = [
        ConfusedPair(
            classes[table.true[at]],
            classes[table.predicted[at]],
            int(table.count[at]),
            int(table.support[table.true[at]]),
        )
        for at in order
    ]
    return tuple(sorted(pairs, key=lambda p: (-p.count, -p.count / p.items, p.true, p.predicted)))


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
    y = _checked_labels(labels, p.shape, p.shape[1] if p.ndim == 2 else 0)
    _check_probabilities(p)
    return _bins(p.max(axis=1), p.argmax(axis=1) == y, bins)


def _bins(
    confidence: FloatArray, right: npt.NDArray[np.bool_], bins: int
) -> tuple[ReliabilityBin, ...]:
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


def _checked_labels(labels: object, shape: tuple[int, ...], k: int) -> npt.NDArray[np.int64]:
    y = np.asarray(labels)
    if y.ndim != 1 or shape != (len(y), k) or len(y) == 0 or k == 0:
        raise HeadError(
            f"expected probabilities of shape (items, classes) = ({len(y) if y.ndim else 0}, {k}),"
            f" found {shape}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= k:
        raise HeadError(f"expected labels from 0 to {k - 1}, found {y.min()} to {y.max()}")
    return y.astype(np.int64)


def _check_probabilities(p: FloatArray) -> None:
    if not np.isfinite(p).all() or p.min() < 0 or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise HeadError("expected probabilities that are not negative and sum to 1 in every row")


def _per_class(table: Confusion, classes: Sequence[str]) -> tuple[ClassScores, ...]:
    figures = zip(table.precision, table.recall, table.f1, table.support, strict=True)
    return tuple(
        ClassScores(label, float(precision), float(recall), float(f1), int(support))
        for label, (precision, recall, f1, support) in zip(classes, figures, strict=True)
    )
