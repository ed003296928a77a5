"""Means over classes, balanced accuracy and macro F1, and their intervals.

Both are means of figures of single classes, of which some rest on few items. Percentiles of
resamples are too narrow there and shifted by the bias of the resamples; limits of every class
combined (MOVER) shift with the number of classes. The limits here are those values that a score
test does not reject, the figures of all classes moved along the line on which the data are most
likely: the way of Miettinen and Nurminen (1985) for strata, with the variance never below the
unbiased estimate from the items.

The tables are sparse: 10,000 classes cost no more than their items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, Score
from headstart.evaluation.intervals import LEVEL

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STEPS = 48
_STRENGTHS = (-12.0, 16.0)  # of the pull, as powers of ten


@dataclass(frozen=True, eq=False)
class Confusion:
    """A sparse confusion matrix.

    Attributes:
        right: ``(k,)``, items of each class that are predicted as it.
        support: ``(k,)``, items of each class.
        guessed: ``(k,)``, items that are predicted as each class.
        true, predicted, count: ``(m,)``, the other cells that are not empty, ordered by class.
    """

    right: IntArray
    support: IntArray
    guessed: IntArray
    true: IntArray
    predicted: IntArray
    count: IntArray

    @property
    def n(self) -> int:
        """The number of items."""
        return int(self.support.sum())

    @property
    def recall(self) -> FloatArray:
        """``(k,)``; NaN for a class without items, which has none."""
        return _ratio(self.right, self.support)

    @property
    def precision(self) -> FloatArray:
        """``(k,)``; NaN for a class that is never predicted."""
        return _ratio(self.right, self.guessed)

    @property
    def f1(self) -> FloatArray:
        """``(k,)``; NaN for a class without items that is never predicted."""
        return _ratio(2 * self.right, self.support + self.guessed)

    def dense(self) -> IntArray:
        """Return the whole matrix ``(k, k)``, true classes as rows."""
        matrix = np.diag(self.right)
        matrix[self.true, self.predicted] = self.count
        return matrix


def confusion_of(labels: IntArray, predicted: IntArray, k: int) -> Confusion:
    """Count ``(n,)`` labels against ``(n,)`` predictions of ``k`` classes."""
    wrong = labels != predicted
    cells, count = np.unique(labels[wrong] * k + predicted[wrong], return_counts=True)
    return Confusion(
        right=np.bincount(labels[~wrong], minlength=k),
        support=np.bincount(labels, minlength=k),
        guessed=np.bincount(predicted, minlength=k),
        true=cells // k,
        predicted=cells % k,
        count=count,
    )


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    shares: FloatArray = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def balanced_accuracy(table: Confusion, *, level: float = LEVEL) -> Score:
    """Return the mean recall of the classes that have items, with its interval.

    What the interval holds is the mean of these classes' true recalls. None for a single item.
    """
    has = table.support > 0
    right, support = table.right[has].astype(np.float64), table.support[has].astype(np.float64)
    k, value = len(support), float((right / support).mean())
    if table.n < 2:
        return Score(value, None)
    t = _quantile(support, level)
    spread = right / support * (1 - right / support) * support / np.maximum(support - 1, 1)

    def moved(pull: float) -> tuple[float, float]:
        recall = _pulled(right, support, pull)
        # Of a class with one item nothing can be seen: the recall of classes of few items.
        few = float((recall / support).sum() / (1 / support).sum())
        seen = np.where(support > 1, spread, few * (1 - few))
        variances = (recall * (1 - recall) / support, seen / support)
        return float(recall.mean()), max(float(one.sum()) for one in variances) / k**2

    low, high = (_limit(moved, value, value, t, side) for side in (1, -1))
    return Score(value, Interval(low, high, level, "score", table.n))


def macro_f1(table: Confusion, *, level: float = LEVEL) -> Score:
    """Return the mean F1 of the classes that occur or are predicted, with its interval.

    A class without items that is predicted counts as 0, as in scikit-learn. What the interval
    holds is the figure of unlimited items with the same shares of the classes. The figure of few
    items is lower than that; the jackknife tells by how much (Efron and Stein 1981), and with
    fewer than three items a class, where it tells too little, the interval is widened.
    """
    occurs = (table.support + table.guessed) > 0
    k = int(occurs.sum())
    value = float(np.nan_to_num(table.f1[occurs]).mean())
    if table.n < 2:
        return Score(value, None)
    bias, spread = _jackknife(table, value, k)
    each = table.n / k
    less, more = sorted((bias, bias * (1 + 5 / each**2)))
    t = _quantile(table.support[table.support > 0], level)
    wider = 1 + 1 / each**2

    def moved(pull: float) -> tuple[float, float]:
        figure, variance = _moved_f1(table, pull)
        return figure, wider * max(variance, spread)

    n_right = int(table.right.sum())
    low = 0.0 if n_right == 0 else _limit(moved, value, value - more, t, 1)
    high = 1.0 if n_right == table.n else _limit(moved, value, value - less, t, -1)
    return Score(value, Interval(min(low, value), max(high, value), level, "score", table.n))


def _quantile(support: NDArray[Any], level: float) -> float:
    """Return Student's t for as many items as would have the same variance in equal classes."""
    alike = len(support) ** 2 / float((1 / support).sum())
    return float(stdtrit(max(alike - 1, 1.5), 0.5 + level / 2))


def _limit(
    moved: Callable[[float], tuple[float, float]],
    value: float,
    centre: float,
    z: float,
    side: int,
) -> float:
    """Return the last figure along the line that ``centre`` does not contradict.

    Args:
        moved: from the pull to the figure and the variance there.
        value: the figure as it is.
        centre: the figure without its bias.
        z: the quantile.
        side: 1 for the lower limit, -1 for the upper.
    """
    if value == (0.0 if side > 0 else 1.0):
        return value
    low, high = _STRENGTHS
    for _ in range(_STEPS):
        middle = (low + high) / 2
        figure, variance = moved(side * 10.0**middle)
        inside = side * (centre - figure) <= z * np.sqrt(max(variance, 0.0)) + 1e-12
        low, high = (middle, high) if inside else (low, middle)
    figure, _ = moved(side * 10.0**low)
    return float(np.clip(figure, 0.0, 1.0))


def _pulled(right: FloatArray, support: FloatArray, pull: float) -> FloatArray:
    """Return the most likely recalls whose sum is penalised by ``pull`` (raised, if negative)."""
    if pull < 0:
        return 1.0 - _pulled(support - right, support, -pull)
    total = support + pull
    root = np.sqrt(np.maximum(total * total - 4 * pull * right, 0.0))
    recall: FloatArray = 2 * right / (total + root)
    return recall


def _jackknife(table: Confusion, value: float, k: int) -> tuple[float, float]:
    """Return bias and variance of macro F1 by leaving out one item in turn."""
    total = table.support + table.guessed
    f1 = np.nan_to_num(table.f1)

    def without(right: IntArray, rest: IntArray) -> FloatArray:
        # A class that vanishes leaves the mean.
        return np.where(rest > 0, 2 * right / np.maximum(rest, 1), value)

    found = table.right > 0
    one_right = (without(table.right - 1, total - 2) - f1)[found] / k
    i, j = table.true, table.predicted
    one_wrong = without(table.right[i], total[i] - 1) - f1[i]
    one_wrong = (one_wrong + without(table.right[j], total[j] - 1) - f1[j]) / k
    change = np.concatenate([one_right, one_wrong])
    times = np.concatenate([table.right[found], table.count]).astype(np.float64)
    mean = float(change @ times) / table.n
    variance = float(times @ (change - mean) ** 2)
    return (table.n - 1) * mean, (table.n - 1) / table.n * variance


def _moved_f1(table: Confusion, pull: float) -> tuple[float, float]:
    """Return macro F1 and its variance where the recalls are pulled down or up.

    Mistakes keep their pattern; those of a class that has none yet are spread over the others by
    their size.
    """
    support = table.support.astype(np.float64)
    n, k, i, j = table.n, len(support), table.true, table.predicted
    has = support > 0
    recall = np.zeros(k)
    recall[has] = _pulled(table.right[has].astype(np.float64), support[has], pull)
    right, missed = support * recall, support * (1 - recall)
    seen = support - table.right
    scale = np.divide(missed, seen, out=np.zeros(k), where=seen > 0)
    wrong = table.count * scale[i]
    spread = np.where(seen == 0, missed, 0.0)
    rate = spread / np.maximum(n - support, 1e-9)
    guessed = right + np.bincount(j, wrong, k) + support * rate.sum() - support * rate
    total = support + guessed
    f1 = np.divide(2 * right, total, out=np.zeros(k), where=total > 0)
    # What one more item, right or wrong, changes.
    share = np.divide(f1, total, out=np.zeros(k), where=total > 0)
    gain = np.divide(2 - 2 * f1, total, out=np.zeros(k), where=total > 0)
    first = float(support @ share) - support * share
    second = float(support @ share**2) - support * share**2
    variance = float(right @ gain**2 + wrong @ (share[i] + share[j]) ** 2)
    variance += float((spread * share**2 + 2 * rate * share * first + rate * second).sum())
    # A class without items counts as long as it is predicted.
    extra = ~has & (table.guessed > 0)
    counted = has.sum() + np.minimum(guessed[extra] / table.guessed[extra], 1.0).sum()
    return float(f1.sum()) / counted, variance / counted**2


__all__ = ["Confusion", "balanced_accuracy", "confusion_of", "macro_f1"]
